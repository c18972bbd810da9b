"""The continuous flow dθ/dt = −∇L: its integration, the distance of runs from it, and when they should leave it."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from gdkit import Problem, descend
from gdkit.types import Array, Context, Info, Key, Monitor, Optimizer, PyTree, State


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


def integrate(problem: Problem, length: float, count: int, steps: int, *, key: Key) -> np.ndarray:
    """Params (count + 1, params) of the flow at the ends of `count` intervals of `steps`."""
    options: dict[str, Any] = {"hyperparameters": {"learning_rate": length / steps}, "key": key}
    run = descend(problem, runge_kutta, steps * count, record_every=steps, record_params=True, **options)
    return flatten_params(run.params_history)


def flatten_params(history: PyTree) -> np.ndarray:
    """Params at recorded steps as (steps, params)."""
    return np.asarray(jax.vmap(lambda params: ravel_pytree(params)[0])(history))


class FlowSharpness(NamedTuple):
    """The sharpness along the flow and along runs, and what it predicts of the oscillation of runs.

    A run's deviation along the top direction is multiplied by 1 − ηλ at each step, and rounding adds to it.
    """

    time: np.ndarray  # (times,)
    values: np.ndarray  # (times,) of the flow
    slope: np.ndarray  # (times,) of a run's sharpness in its η, at η = 0
    rounding: np.ndarray  # (times,) root mean square of what rounding adds at a step

    def steps(self, rate: float) -> tuple[np.ndarray, np.ndarray]:
        """The time of every step of a run, and |1 − ηλ| there, with λ to first order in η; (steps + 1,) each."""
        time = rate * np.arange(round(self.time[-1] / rate) + 1)
        return time, np.abs(1 - rate * np.interp(time, self.time, self.values + rate * self.slope))

    def growth(self, rate: float) -> np.ndarray:
        """Log-growth of a deviation since the start of a run, (steps + 1,)."""
        return np.append(0, np.cumsum(np.log(np.maximum(self.steps(rate)[1][:-1], 1e-9))))

    def oscillation(self, rate: float) -> np.ndarray:
        """Root mean square of the deviation that grows from rounding, (steps + 1,)."""
        time, factors = self.steps(rate)
        added, variance = np.interp(time, self.time, self.rounding) ** 2, np.zeros(len(time))
        for i in range(len(time) - 1):
            variance[i + 1] = factors[i] ** 2 * variance[i] + added[i]
        return np.sqrt(variance)

    def crossing_times(self, rates: np.ndarray) -> np.ndarray:
        """The first time at which the flow's sharpness exceeds 2/η, infinite if it never does; like `rates`."""
        fine = np.linspace(0, self.time[-1], 6001)
        values = np.interp(fine, self.time, self.values)
        return np.array([_first_time(fine, rate * values > 2) for rate in rates])

    def predicted_departures(self, rates: np.ndarray, limit: np.ndarray) -> np.ndarray:
        """The first time at which the oscillation is at η times `limit`, (times,), or above; like `rates`."""
        times = []
        for rate in rates:
            time = self.steps(rate)[0]
            has_left = self.oscillation(rate) >= rate * np.interp(time, self.time, limit)
            times.append(_first_time(time, has_left))
        return np.array(times)


def _first_time(time: np.ndarray, condition: np.ndarray) -> float:
    return float(time[condition.argmax()]) if condition.any() else np.inf
