"""The continuous flow dθ/dt = −∇L: its integration, the distance of runs from it, and when they should leave it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from gdkit import Problem, descend
from gdkit.types import Array, Context, Info, Monitor, Optimizer, PyTree, State


def runge_kutta(learning_rate: Any) -> Optimizer:
    """The classical method of order 4 for dθ/dt = −∇L as an optimizer whose learning rate is the time of a step."""

    def update(updates: PyTree, state: Any, params: Any = None, *, value_fn: Any = None) -> tuple[PyTree, tuple]:
        advance = lambda slope, share: jax.tree.map(lambda p, k: p - share * learning_rate * k, params, slope)
        second = jax.grad(value_fn)(advance(updates, 0.5))
        third = jax.grad(value_fn)(advance(second, 0.5))
        fourth = jax.grad(value_fn)(advance(third, 1.0))
        mean = lambda a, b, c, d: -learning_rate * (a + 2 * b + 2 * c + d) / 6
        return jax.tree.map(mean, updates, second, third, fourth), state

    return optax.GradientTransformationExtraArgs(lambda params: (), update)


def distance_monitor(flow: np.ndarray, interval: float) -> Monitor:
    """A monitor of the distance of params from `flow`, (times, params), after each interval: ``distance``, (times,)."""
    last = len(flow) - 1

    def update(m: Array, before: State, after: State, info: Info, context: Context) -> Array:
        steps = jnp.round(interval / context.hyperparameters["learning_rate"]).astype(jnp.int32)  # per interval
        slot = jnp.minimum(context.t // steps, last)
        is_due = (context.t % steps == 0) & (context.t // steps <= last)
        distance = jnp.linalg.norm(ravel_pytree(before.params)[0] - jnp.asarray(flow)[slot])
        return m.at[slot].set(jnp.where(is_due, distance, m[slot]))

    return Monitor(lambda state: jnp.full((last + 1,), jnp.nan, flow.dtype), update, lambda m: {"distance": m})


def integrate(
    problem: Problem, length: float, count: int, steps: int, monitors: Sequence[Monitor] = ()
) -> tuple[np.ndarray, dict[str, Array]]:
    """Params (count + 1, params) of the flow at the ends of `count` intervals of `steps`, and the run's statistics."""
    options: dict[str, Any] = {"hyperparameters": {"learning_rate": length / steps}, "monitors": monitors}
    run = descend(problem, runge_kutta, steps * count, record_every=steps, record_params=True, **options)
    vectors = jax.vmap(lambda params: ravel_pytree(params)[0])(run.params_history)
    return np.asarray(vectors), run.statistics


class FlowSharpness(NamedTuple):
    """The flow's sharpness as a function of time, and what it predicts of runs."""

    time: np.ndarray  # (fine times,)
    values: np.ndarray  # (fine times,)
    rounding: float  # log ε of the params

    def growth(self, rate: float) -> np.ndarray:
        """Log-growth, since the start, of a run's oscillation along the top direction, (fine times,)."""
        slope = np.log(np.maximum(np.abs(rate * self.values - 1), 1e-9)) / rate  # per unit of time, 1/η steps
        return np.concatenate([[0], np.cumsum((slope[1:] + slope[:-1]) / 2 * np.diff(self.time))])

    def oscillation(self, rate: float) -> np.ndarray:
        """Log of the oscillation, which rounding keeps at ε or above, (fine times,)."""
        unbounded = self.growth(rate)
        return unbounded + np.maximum.accumulate(np.maximum(self.rounding - unbounded, 0))

    def crossing_times(self, rates: np.ndarray) -> np.ndarray:
        """The first time at which the sharpness exceeds 2/η, infinite if it never does; like `rates`."""
        return np.array([self._first_time(rate * self.values > 2) for rate in rates])

    def predicted_departures(self, rates: np.ndarray) -> np.ndarray:
        """The first time past 2/η at which the oscillation is as large as at the start; like `rates`."""
        return np.array([self._first_time((rate * self.values > 2) & (self.oscillation(rate) >= 0)) for rate in rates])

    def _first_time(self, condition: np.ndarray) -> float:
        return float(self.time[condition.argmax()]) if condition.any() else np.inf
