"""A network of one hidden layer in the mean-field parametrisation, with one learning rate per layer."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gdkit import Problem
from gdkit.types import Array, Key, Optimizer, Params

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "tanh": lambda z: jnp.tanh(2**0.5 * z),
    "relu": lambda z: 2**0.5 * jax.nn.relu(z),
    "linear": lambda z: z,
}


class Condition(NamedTuple):
    """An activation, the rows of data, and the rows that a step reads."""

    activation: str
    rows: Callable[[int], int]  # of the width
    batch: int | None = None  # drawn with replacement; None: all


def _as_many_as_weights(width: int) -> int:
    return width * width + width


CONDITIONS: dict[str, Condition] = {
    "tanh": Condition("tanh", _as_many_as_weights),
    "relu": Condition("relu", _as_many_as_weights),
    "linear": Condition("linear", lambda width: width),
    "tanh, minibatches": Condition("tanh", _as_many_as_weights, 16),
    "tanh, one row": Condition("tanh", lambda width: 1),
}


def problem(name: str, width: int, key: int = 0) -> Problem:
    """A network of a condition, with weights and data drawn from unit normals.

    The value of the loss is that of all rows in every condition; its gradient is that of the minibatch.
    """
    activation, rows_of, batch = CONDITIONS[name]
    phi, rows = ACTIVATIONS[activation], rows_of(width)
    keys = jax.random.split(jax.random.key(key), 4)
    shapes = ((width, width), (width,), (rows, width), (rows,))
    U, v, x, y = (jax.random.normal(k, shape) for k, shape in zip(keys, shapes, strict=True))

    def mean_error(params: Params, x: Array, y: Array) -> Array:
        return jnp.mean((phi(x @ params[0] / width**0.5) @ params[1] / width - y) ** 2)

    def loss(params: Params, data: tuple[Array, Array]) -> Array:
        return mean_error(params, *data)

    def loss_of_minibatch(params: Params, data: tuple[Array, Array, Array]) -> Array:
        x, y, drawn = data
        of_drawn = mean_error(params, x[drawn], y[drawn])
        return jax.lax.stop_gradient(mean_error(params, x, y) - of_drawn) + of_drawn

    def sample(key: Key, t: Array, data: tuple[Array, Array]) -> tuple[Array, Array, Array]:
        return (*data, jax.random.randint(jax.random.fold_in(key, t), (batch or rows,), 0, rows))

    if batch is None:
        return Problem(loss, (U, v), data=(x, y), name=f"{name} network")
    return Problem(loss_of_minibatch, (U, v), data=(x, y), sample=sample, name=f"{name} network")


def layerwise(hidden: float, output: float) -> Optimizer:
    """Gradient descent with one learning rate per layer."""

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        return (-hidden * updates[0], -output * updates[1]), state

    return optax.GradientTransformation(lambda params: (), update)
