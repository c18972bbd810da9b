"""The monitor of runs whose gradients are not known."""

import functools
from typing import NamedTuple

import jax.numpy as jnp

from gdkit.trees import flatten, norm, select, statistics_dtype
from gdkit.types import Array, Context, Info, Monitor, State


class _ChangeState(NamedTuple):
    last: Array  # () the last loss, NaN before the first
    peak: Array  # () largest finite update norm
    count: tuple[Array, Array]  # number of updates in the newest window and in the one before
    update: tuple[Array, Array]  # sums of norms
    variation: tuple[Array, Array]  # sums of changes of the loss, rises and falls


@functools.cache
def changes() -> Monitor:
    """In place of `norms` where gradients are not known: late mean and largest update, and changes of the loss.

    ``late_variation`` is the sum of |L(t) − L(t − 1)| over the late steps, which `classify` reads for the decrease that
    slopes predict.
    """

    def init(state: State) -> _ChangeState:
        zero = jnp.zeros((), statistics_dtype(state.params))
        return _ChangeState(jnp.full_like(zero, jnp.nan), zero, *((zero, zero),) * 3)

    def update(m: _ChangeState, before: State, after: State, info: Info, context: Context) -> _ChangeState:
        size, change = norm(flatten(info.update)).astype(m.peak.dtype), abs(info.loss - m.last)
        valid = context.moves & jnp.isfinite(size)
        add = lambda pair, value, valid: (pair[0] + jnp.where(valid, value, 0), pair[1])
        return _ChangeState(
            last=jnp.where(context.going, info.loss, m.last),
            peak=jnp.where(valid, jnp.maximum(m.peak, size), m.peak),
            count=add(m.count, 1, valid),
            update=add(m.update, size, valid),
            variation=add(m.variation, change, jnp.isfinite(change)),
        )

    def read(m: _ChangeState) -> dict[str, Array]:
        mean = (m.update[0] + m.update[1]) / (m.count[0] + m.count[1])
        return {"update_norm": mean, "peak_update_norm": m.peak, "late_variation": m.variation[0] + m.variation[1]}

    def roll(m: _ChangeState, state: State) -> _ChangeState:
        up = lambda pair: (jnp.zeros_like(pair[0]), pair[0])
        return select(m.count[0] > 0, _ChangeState(m.last, m.peak, up(m.count), up(m.update), up(m.variation)), m)

    return Monitor(init, update, read, roll, freeze=False)
