"""A monitor of what is measured at each `every`-th step of a run, and of its curve."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gdkit.checks import check_integer
from gdkit.trees import statistics_dtype
from gdkit.types import Array, Context, Info, Monitor, State

# (sums before, states before and after the step, info, context) -> sums, values
Measure = Callable[[Any, State, State, Info, Context], tuple[Any, tuple[Array, ...]]]


class _Measurements(NamedTuple):
    sums: Any  # (sums,), what is averaged along the run; () without
    values: tuple[Array, ...]  # () each, of the last measurement, NaN before the first
    most: Array  # () largest first value
    curve: Array  # (record,) first values, NaN where not yet measured


def measure_every(
    names: tuple[str, ...], measure: Measure, every: int, record: int, *, sums: int = 0, of_updates: bool = False
) -> Monitor:
    """A monitor of the values that `measure` returns at each `every`-th step, and of the curve of the first value.

    With `of_updates` the last loss of a run, which no update follows, leaves the values as they are.
    """
    check_integer("every", every)
    check_integer("record", record, at_least=0)

    def init(state: State) -> _Measurements:
        dtype = statistics_dtype(state.params)
        nothing = jnp.full((), jnp.nan, dtype)
        curve, zeros = jnp.full((record,), jnp.nan, dtype), jnp.zeros((sums,), dtype) if sums else ()
        return _Measurements(zeros, (nothing,) * len(names), nothing, curve)

    def observe(m: _Measurements, before: State, after: State, info: Info, context: Context) -> _Measurements:
        total, values = measure(m.sums, before, after, info, context)
        values = tuple(value.astype(m.most.dtype) for value in values)
        curve = jnp.where(jnp.arange(record) == context.t // every, values[0], m.curve)
        keep = lambda new, old: jnp.where(context.moves, new, old) if of_updates else new
        return _Measurements(total, tuple(map(keep, values, m.values)), jnp.fmax(m.most, values[0]), curve)

    def update(m: _Measurements, before: State, after: State, info: Info, context: Context) -> _Measurements:
        # all lanes are at the same step, so that this stays a branch under vmap
        is_due = context.t % every == 0
        return jax.lax.cond(is_due, observe, lambda m, *_: m, m, before, after, info, context)

    def read(m: _Measurements) -> dict[str, Array]:
        statistics = dict(zip(names, m.values, strict=True)) | {f"{names[0]}_max": m.most}
        return statistics | ({f"{names[0]}_curve": m.curve} if record else {})

    return Monitor(init, update, read)
