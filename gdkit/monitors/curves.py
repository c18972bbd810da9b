"""Monitors that record curves, at steps that do not depend on the length of a run."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from gdkit.trees import statistics_dtype
from gdkit.types import Array, Context, Info, Monitor, State


@functools.cache
def curve(points: int) -> Monitor:
    """The loss at the steps that `curve_steps` lists: ``curve_loss``, NaN at steps that the run did not reach."""
    at = curve_steps(points)

    def init(state: State) -> Array:
        return jnp.full((len(at),), jnp.nan, statistics_dtype(state.params))

    def update(m: Array, before: State, after: State, info: Info, context: Context) -> Array:
        return _record_value(m, at, context.t, info.loss)

    def read(m: Array) -> dict[str, Array]:
        return {"curve_loss": m}

    return Monitor(init, update, read, freeze=False)


def _record_value(curve: Array, at: np.ndarray, t: Array, value: Array) -> Array:
    """The curve with `value` in the slot of step `t`, if that is one of the recorded steps `at`."""
    # without a branch: at a step that is not recorded the next slot is overwritten with its own value
    slot = jnp.sum(at < t, dtype=jnp.int32)
    current = jax.lax.dynamic_index_in_dim(curve, slot, 0, keepdims=False)
    value = jnp.where(jnp.asarray(at)[slot] == t, value.astype(curve.dtype), current)
    return jax.lax.dynamic_update_index_in_dim(curve, value, slot, 0)


@functools.cache
def log_curves(names: tuple[str, ...], points: int) -> Monitor:
    """The logs of a loss with `has_logs` at the steps of `curve_steps`: ``curve_NAME``, NaN after the end of a run."""
    at = curve_steps(points)

    def init(state: State) -> dict[str, Array]:
        return {name: jnp.full((len(at),), jnp.nan, statistics_dtype(state.params)) for name in names}

    def update(m: dict[str, Array], before: State, after: State, info: Info, context: Context) -> dict[str, Array]:
        values = {name: jnp.where(context.going, info.logs[name].astype(m[name].dtype), jnp.nan) for name in names}
        return {name: _record_value(m[name], at, context.t, values[name]) for name in names}

    return Monitor(init, update, lambda m: {f"curve_{name}": m[name] for name in names}, freeze=False)


@functools.cache
def curve_steps(points: int) -> np.ndarray:
    """The steps at which a curve of `points` is recorded: all at first, then geometric; int32, increasing.

    About `points` of them lie within the first 10,000 steps. They do not depend on the length of the run.

    >>> [int(t) for t in curve_steps(4)[:6]]
    [0, 1, 2, 7, 20, 54]
    """
    n = points / 8
    for _ in range(50):  # n·(1 + log(horizon / n)) = points: the first n steps, then every 1/n of an e-fold
        n = max(1.0, points / (1 + math.log(10_000 / n)))
    longest = np.iinfo(np.int32).max
    grown = n * np.exp(np.arange(math.ceil(n * math.log(longest / n))) / n)
    steps = np.union1d(np.arange(math.ceil(n)), np.floor(grown)).astype(np.int32)
    steps.setflags(write=False)  # all callers share this array
    return steps
