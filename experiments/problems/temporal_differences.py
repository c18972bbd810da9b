"""Losses of temporal-difference learning: a network on a frozen lake, and Baird's counterexample.

The target r + γ max Q(s', ·) is held constant when the squared error is differentiated. The result is a semi-gradient,
which is the gradient of no loss. A network's target comes from a copy of its weights, the target network, which is
renewed periodically and carried as `aux`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.problems import environments
from experiments.problems.environments import Baird, Transitions
from gdkit import Problem
from gdkit.types import Array, Key, Params


def semi_gradient(loss: Callable[[Any, Any], Array]) -> Callable[[Any], Array]:
    """``params -> loss(params, params)``, whose gradient is taken with respect to the first argument only.

    `jax.lax.stop_gradient` on the second argument gives the same steps, but hides their dependence on it from further
    derivatives, and so from multipliers and Lyapunov exponents.

    >>> slope = jax.grad(semi_gradient(lambda x, target: 0.5 * (x - 3 * target) ** 2))
    >>> [float(f(1.0)) for f in (slope, jax.grad(slope))]  # x − 3x, and its slope (1 behind stop_gradient)
    [-2.0, -2.0]
    """

    @jax.custom_jvp
    def value(params: Any) -> Array:
        return loss(params, params)

    @value.defjvp
    def derivative(primals: tuple[Any], tangents: tuple[Any]) -> tuple[Array, Array]:
        return jax.jvp(lambda params: loss(params, *primals), primals, tangents)

    return value


class Target(NamedTuple):
    """The target network."""

    params: Params
    age: Array  # () int32, steps since it was renewed


def lake(hidden: int = 32, discount: float = 0.95, period: int = 50) -> Problem:
    """Mean squared expected temporal-difference error of a network, over all states and actions of the frozen lake.

    The semi-gradient is that of the squared errors of all outcomes, but the loss vanishes at Q*.

    Args:
      hidden: width of the hidden layer.
      discount: γ.
      period: steps after which the target network is renewed; with 1 the target uses the current weights.

    Metrics: ``gap``, the largest |Q − Q*|, and ``regret``, the largest decrease of Q* by a greedy action.
    """
    steps = environments.lake_transitions()
    best = environments.optimal_q(steps, discount)
    cells = np.unique(steps.state)  # in the other cells the episode has ended

    def init(key: Key) -> tuple[Params, Target]:
        first, second = jax.random.split(key)
        out = hidden**-0.5 * jax.random.normal(second, (hidden, 4))
        params = (jax.random.normal(first, (len(best), hidden)), out, jnp.zeros((1, 4)))
        return params, Target(params, jnp.int32(0))

    def q_of(params: Params) -> Array:  # (states, 4)
        weight, out, bias = params
        return jnp.tanh(weight) @ out + bias

    def loss(params: Params, steps: Transitions, target: Target) -> tuple[Array, Target]:
        renewed = target.age % period == 0
        held = jax.tree.map(lambda new, old: jnp.where(renewed, new, old), params, target.params)
        held = jax.lax.stop_gradient(held)
        error = environments.bellman(q_of(held), steps, discount) - q_of(params)[steps.state, steps.action]
        return jnp.mean(error**2), Target(held, target.age + 1)

    def gap(params: Params, steps: Transitions) -> Array:
        return jnp.max(jnp.abs(q_of(params) - jnp.asarray(best, jnp.float32))[cells])

    def regret(params: Params, steps: Transitions) -> Array:
        greedy = jnp.argmax(q_of(params), axis=1)
        return jnp.max(jnp.asarray(best.max(axis=1) - best.T, jnp.float32)[greedy, np.arange(len(best))][cells])

    metrics = {"gap": gap, "regret": regret}
    name = "frozen lake"
    return Problem(loss, init, data=steps, validation=steps, metrics=metrics, optimum=0.0, has_aux=True, name=name)


def baird(game: Baird, start: np.ndarray, *, stop_gradient: bool = False) -> Problem:
    """Half the mean squared temporal-difference error on Baird's counterexample.

    Args:
      game: the counterexample.
      start: the initial weights, (8,).
      stop_gradient: hide the target behind `jax.lax.stop_gradient`.
    """
    features = game.features.astype(np.float32)

    def loss(weights: Array, held: Array) -> Array:
        values = jnp.asarray(features) @ weights
        return 0.5 * jnp.mean((game.discount * (jnp.asarray(features[-1]) @ held) - values) ** 2)

    stopped = lambda weights: loss(weights, jax.lax.stop_gradient(weights))
    update = stopped if stop_gradient else semi_gradient(loss)
    return Problem(update, start.astype(np.float32), name="Baird's counterexample")
