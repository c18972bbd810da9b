"""Monitors of the losses of a run."""

import functools
from typing import NamedTuple

import jax.numpy as jnp

from gdkit.checks import check_number
from gdkit.monitors.windows import Windows, empty_windows, merge_windows, push_value, shift_windows
from gdkit.trees import statistics_dtype
from gdkit.types import Array, Context, Info, Monitor, State


class _LossState(NamedTuple):
    final: Array  # ()
    least: Array  # ()
    least_step: Array  # () int32
    most: Array  # (), largest finite loss
    most_step: Array  # () int32
    increases: Array  # () number of losses that exceeded the one before
    steps: Array  # () made so far
    windows: Windows  # four


@functools.cache
def loss_statistics() -> Monitor:
    """Final, least and greatest loss and their steps; mean and spread of late losses; fraction of increases."""

    def init(state: State) -> _LossState:
        dtype = statistics_dtype(state.params)
        zero, step = jnp.zeros((), dtype), jnp.zeros((), jnp.int32)
        inf = jnp.full((), jnp.inf, dtype)
        return _LossState(inf, inf, step, -inf, step, zero, zero, empty_windows(4, dtype))

    def update(m: _LossState, before: State, after: State, info: Info, context: Context) -> _LossState:
        loss, t = info.loss, context.t
        finite = jnp.isfinite(loss)
        lower, higher = loss < m.least, finite & (loss > m.most)
        return _LossState(
            final=jnp.where(context.going, loss, m.final),
            least=jnp.where(lower, loss, m.least),
            least_step=jnp.where(lower, t, m.least_step),
            most=jnp.where(higher, loss, m.most),
            most_step=jnp.where(higher, t, m.most_step),
            increases=m.increases + (loss > m.final).astype(m.increases.dtype),
            steps=jnp.where(context.going, t.astype(m.steps.dtype), m.steps),
            windows=push_value(m.windows, loss, finite),
        )

    def read(m: _LossState) -> dict[str, Array]:
        count, late, m2 = merge_windows(m.windows[:2])
        return {
            "final_loss": m.final,
            "min_loss": m.least,
            "min_step": m.least_step,
            "max_loss": m.most,
            "max_step": m.most_step,
            "late_mean": late,
            "late_spread": jnp.sqrt(m2 / count),
            "earlier_mean": merge_windows(m.windows[2:])[1],
            "increases": m.increases / jnp.maximum(m.steps, 1),
        }

    def roll(m: _LossState, state: State) -> _LossState:
        # deviations are from the last loss, the best estimate of the next ones
        return m._replace(windows=shift_windows(m.windows, jnp.where(jnp.isfinite(m.final), m.final, 0)))

    return Monitor(init, update, read, roll, freeze=False)


class _LossEnds(NamedTuple):
    final: Array  # ()
    least: Array  # ()


@functools.cache
def loss_ends() -> Monitor:
    """Final and least loss."""

    def init(state: State) -> _LossEnds:
        inf = jnp.full((), jnp.inf, statistics_dtype(state.params))
        return _LossEnds(inf, inf)

    def update(m: _LossEnds, before: State, after: State, info: Info, context: Context) -> _LossEnds:
        return _LossEnds(
            final=jnp.where(context.going, info.loss, m.final),
            least=jnp.where(info.loss < m.least, info.loss, m.least),
        )

    def read(m: _LossEnds) -> dict[str, Array]:
        return {"final_loss": m.final, "min_loss": m.least}

    return Monitor(init, update, read, freeze=False)


@functools.cache
def time_to(target: float) -> Monitor:
    """The first step whose loss is at most `target`, −1 if none was: ``time_to_TARGET``.

    Raises:
      InputTypeError, InputValueError: `target` is not a finite number.
    """
    check_number("target", target)

    def update(m: Array, before: State, after: State, info: Info, context: Context) -> Array:
        return jnp.where((m < 0) & (info.loss <= target), context.t, m)

    return Monitor(lambda state: jnp.full((), -1, jnp.int32), update, lambda m: {f"time_to_{target:g}": m})
