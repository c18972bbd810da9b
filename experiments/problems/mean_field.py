"""A network of one hidden layer in the mean-field parametrisation, with one learning rate per layer."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from gdkit import Problem
from gdkit.types import Array, Optimizer

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "tanh": lambda z: jnp.tanh(2**0.5 * z),
    "relu": lambda z: 2**0.5 * jax.nn.relu(z),
    "linear": lambda z: z,
}


def problem(network: str, width: int, key: int = 0) -> Problem:
    """A network with weights and data drawn from unit normals, and as many rows as weights."""
    phi, rows = ACTIVATIONS[network], width * width + width
    keys = jax.random.split(jax.random.key(key), 4)
    shapes = ((width, width), (width,), (rows, width), (rows,))
    U, v, x, y = (jax.random.normal(k, shape) for k, shape in zip(keys, shapes, strict=True))
    outputs = lambda params, x: phi(x @ params[0] / width**0.5) @ params[1] / width
    loss = lambda params, data: jnp.mean((outputs(params, data[0]) - data[1]) ** 2)
    return Problem(loss, (U, v), data=(x, y), name=f"{network} network")


def layerwise(hidden: float, output: float) -> Optimizer:
    """Gradient descent with one learning rate per layer."""

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        return (-hidden * updates[0], -output * updates[1]), state

    return optax.GradientTransformation(lambda params: (), update)
