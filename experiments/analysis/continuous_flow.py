"""The continuous flow dθ/dt = −∇L: how it is integrated, how far runs are from it, and when they should leave it."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from gdkit import Problem, descend
from gdkit.stability import sharpness_every
from gdkit.types import Array, Context, Info, Monitor, Optimizer, PyTree, State


def runge_kutta(learning_rate: Any) -> Optimizer:
    """The classical method of order 4 for dθ/dt = −∇L as an optimizer whose learning rate is the time of a step."""

    def update(updates: PyTree, state: Any, params: Any = None, *, value_fn: Any = None) -> tuple[PyTree, tuple]:
        ahead = lambda slope, share: jax.tree.map(lambda p, k: p - share * learning_rate * k, params, slope)
        second = jax.grad(value_fn)(ahead(updates, 0.5))
        third = jax.grad(value_fn)(ahead(second, 0.5))
        fourth = jax.grad(value_fn)(ahead(third, 1.0))
        mean = lambda a, b, c, d: -learning_rate * (a + 2 * b + 2 * c + d) / 6
        return jax.tree.map(mean, updates, second, third, fourth), state

    return optax.GradientTransformationExtraArgs(lambda params: (), update)


def distance_to(flow: np.ndarray, interval: float) -> Monitor:
    """A monitor of how far params are from the flow's, (times, params), after intervals: ``distance``, (times,)."""
    last = len(flow) - 1

    def update(m: Array, before: State, after: State, info: Info, context: Context) -> Array:
        steps = jnp.round(interval / context.hyperparameters["learning_rate"]).astype(jnp.int32)  # an interval
        slot = jnp.minimum(context.t // steps, last)
        due = (context.t % steps == 0) & (context.t // steps <= last)
        there = jnp.linalg.norm(ravel_pytree(before.params)[0] - jnp.asarray(flow)[slot])
        return m.at[slot].set(jnp.where(due, there, m[slot]))

    return Monitor(lambda state: jnp.full((last + 1,), jnp.nan, flow.dtype), update, lambda m: {"distance": m})


def integrate(
    problem: Problem, length: float, count: int, steps: int, iterations: int
) -> tuple[np.ndarray, np.ndarray]:
    """Params (count + 1, params) and sharpness (count + 1,) of the flow, after whole intervals of so many steps."""
    watched = sharpness_every(problem, steps, iterations=iterations, record=count + 1)
    options: dict[str, Any] = {"hyperparameters": {"learning_rate": length / steps}, "monitors": [watched]}
    run = descend(problem, runge_kutta, steps * count, record_every=steps, record_params=True, **options)
    vectors = jax.vmap(lambda params: ravel_pytree(params)[0])(run.params_history)
    return np.asarray(vectors), np.asarray(run.statistics["sharpness_curve"])


class Sharpness(NamedTuple):
    """The flow's sharpness, as a function of time."""

    time: np.ndarray  # (fine times,)
    values: np.ndarray  # (fine times,)
    rounding: float  # log ε of the params

    def growth(self, rate: float) -> np.ndarray:
        """Log of how often larger the swing of a run along the top direction is than at the start; (fine times,)."""
        slope = np.log(np.maximum(np.abs(rate * self.values - 1), 1e-9)) / rate  # a unit of time; 1/η steps
        return np.concatenate([[0], np.cumsum((slope[1:] + slope[:-1]) / 2 * np.diff(self.time))])

    def swing(self, rate: float) -> np.ndarray:
        """The same, but that rounding lets it become no smaller than ε; (fine times,)."""
        free = self.growth(rate)
        return free + np.maximum.accumulate(np.maximum(self.rounding - free, 0))

    def reached(self, rates: np.ndarray) -> np.ndarray:
        """The time at which it is at 2/η, infinite if it never is; like `rates`."""
        return np.array([self._first(rate * self.values > 2) for rate in rates])

    def foretold(self, rates: np.ndarray) -> np.ndarray:
        """When a run should leave: once it is past 2/η, and the swing as large as at first; like `rates`."""
        return np.array([self._first((rate * self.values > 2) & (self.swing(rate) >= 0)) for rate in rates])

    def _first(self, there: np.ndarray) -> float:
        return float(self.time[there.argmax()]) if there.any() else np.inf
