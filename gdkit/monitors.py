"""Monitors: streaming statistics of a run, folded into its carry, flat in steps.

Windowed statistics live on dyadic windows (each octave of steps has four), so that they do not depend on the length
of the run. "Late" is the last two windows, an eighth to a third of the steps so far; "earlier" the two before them.
"""

import functools
import itertools
import math
from collections.abc import Sequence
from enum import IntEnum
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gdkit.types import Array, Context, Info, Monitor, Params, PyTree, State


class EndKind(IntEnum):
    """How a run ended."""

    RUNNING = 0
    STEPS = 1  # it used up its steps
    NONFINITE = 2  # its loss was not finite
    EXCEEDED = 3  # its loss exceeded L₀ + diverged_above · max(|L₀|, 1)
    TARGET = 4  # its loss reached the target


class Limits(NamedTuple):
    """When a run ends before its steps are used up."""

    diverged_above: Any = 1e6
    target: Any = -math.inf


class Record(NamedTuple):
    """What has been observed of one run."""

    initial_loss: Array  # ()
    end_step: Array  # () int32, the step of the last loss
    end_kind: Array  # () int32, an EndKind
    monitors: tuple[PyTree, ...]  # one a monitor


def start_record(monitors: Sequence[Monitor], state: State, dtype: Any) -> Record:
    """The record of a run of which nothing has been seen yet."""
    seen = tuple(m.init(state) for m in monitors)
    return Record(jnp.zeros((), dtype), jnp.zeros((), jnp.int32), jnp.full((), EndKind.RUNNING, jnp.int32), seen)


def end_of(record: Record, loss: Array, t: Array, limits: Limits, last: Array) -> Record:
    """The record with its initial loss, and with its end if `loss` at step `t` is the run's last."""
    initial = jnp.where(t == 0, loss, record.initial_loss)
    bound = initial + limits.diverged_above * jnp.maximum(jnp.abs(initial), 1)
    kind = jnp.where(last, jnp.int32(EndKind.STEPS), jnp.int32(EndKind.RUNNING))
    kind = jnp.where(loss <= limits.target, EndKind.TARGET, kind)
    kind = jnp.where(loss > bound, EndKind.EXCEEDED, kind)
    kind = jnp.where(jnp.isfinite(loss), kind, EndKind.NONFINITE)
    going = record.end_kind == EndKind.RUNNING
    kind = jnp.where(going, kind, record.end_kind)
    return record._replace(
        initial_loss=jnp.where(going, initial, record.initial_loss),
        end_step=jnp.where(going, t, record.end_step),
        end_kind=kind,
    )


def fold(
    monitors: Sequence[Monitor], record: Record, going: Array, before: State, after: State, info: Info, context: Context
) -> Record:
    """The record after every monitor has seen a step; a run that is not `going` keeps what it had."""
    hidden = info._replace(loss=jnp.where(going, info.loss, jnp.nan))
    seen = []
    for monitor, old in zip(monitors, record.monitors, strict=True):
        new = monitor.update(old, before, after, info if monitor.freeze else hidden, context)
        seen.append(select(going, new, old) if monitor.freeze else new)
    return record._replace(monitors=tuple(seen))


def read(monitors: Sequence[Monitor], record: Record) -> dict[str, Array]:
    """Every statistic by name."""
    statistics = {"end_step": record.end_step, "end_kind": record.end_kind}
    for monitor, seen in zip(monitors, record.monitors, strict=True):
        statistics |= monitor.read(seen)
    return statistics


def select(condition: Array, yes: PyTree, no: PyTree) -> PyTree:
    """``jnp.where`` over two trees of one structure; `condition` is a scalar."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)


# Dyadic windows


class Window(NamedTuple):
    """Count, mean and sum of squared deviations (Welford 1962) of a value within one window."""

    count: Array  # ()
    mean: Array  # ()
    m2: Array  # ()


Windows = tuple[Window, ...]  # the newest first


def starts_window(t: Array) -> Array:
    """Whether a dyadic window starts at step `t`: every octave [2ᵏ, 2ᵏ⁺¹) has four of equal length."""
    octave = 31 - jax.lax.clz(jnp.maximum(jnp.asarray(t, jnp.int32), 1))
    quarter = jnp.left_shift(1, jnp.maximum(octave - 2, 0))
    return jnp.bitwise_and(t, quarter - 1) == 0


def empty_windows(count: int, dtype: Any) -> Windows:
    """`count` windows with nothing in them."""
    zero = jnp.zeros((), dtype)
    return (Window(zero, zero, zero),) * count


def push(windows: Windows, value: Array, valid: Array, starts: Array) -> Windows:
    """Add `value` where `valid`; where a window `starts` and the newest has something in it, they move up by one."""
    newest = windows[0]
    moves = starts & (newest.count > 0)
    older = (select(moves, a, b) for a, b in itertools.pairwise(windows))
    count = jnp.where(moves, 0, newest.count)
    mean = jnp.where(moves, 0, newest.mean)
    m2 = jnp.where(moves, 0, newest.m2)
    difference = jnp.where(valid, value - mean, 0)
    count = count + valid
    mean = mean + difference / jnp.maximum(count, 1)
    m2 = m2 + difference * jnp.where(valid, value - mean, 0)
    return (Window(count, mean, m2), *older)


def merge(windows: Windows) -> Window:
    """Several windows as one (Chan et al. 1979); NaN mean where nothing was seen."""
    total = windows[0]
    for w in windows[1:]:
        count = total.count + w.count
        mean = (total.count * total.mean + w.count * w.mean) / jnp.maximum(count, 1)
        between = total.count * (total.mean - mean) ** 2 + w.count * (w.mean - mean) ** 2
        total = Window(count, mean, total.m2 + w.m2 + between)
    return total._replace(mean=jnp.where(total.count > 0, total.mean, jnp.nan))


# Built-in monitors. The constructors are cached, so that equal monitors are one, and a program is compiled once.


class _LossState(NamedTuple):
    initial: Array  # ()
    final: Array  # ()
    least: Array  # ()
    least_step: Array  # () int32
    most: Array  # () of the finite losses
    most_step: Array  # () int32
    increases: Array  # () how often a loss exceeded the one before it
    steps: Array  # () steps so far
    windows: Windows  # four


@functools.cache
def loss_statistics() -> Monitor:
    """Initial, final, least and greatest loss and where; mean and spread of late ones; fraction of increases."""

    def init(state: State) -> _LossState:
        dtype = _dtype(state.params)
        zero, step = jnp.zeros((), dtype), jnp.zeros((), jnp.int32)
        inf = jnp.full((), jnp.inf, dtype)
        return _LossState(zero, zero, inf, step, -inf, step, zero, zero, empty_windows(4, dtype))

    def update(m: _LossState, before: State, after: State, info: Info, context: Context) -> _LossState:
        loss, t = info.loss, context.t
        finite = jnp.isfinite(loss)
        lower, higher = finite & (loss < m.least), finite & (loss > m.most)
        return _LossState(
            initial=jnp.where(t == 0, loss, m.initial),
            final=loss,
            least=jnp.where(lower, loss, m.least),
            least_step=jnp.where(lower, t, m.least_step),
            most=jnp.where(higher, loss, m.most),
            most_step=jnp.where(higher, t, m.most_step),
            increases=m.increases + ((loss > m.final) & (t > 0)),
            steps=jnp.asarray(t, m.steps.dtype),
            windows=push(m.windows, loss, finite, starts_window(t)),
        )

    def read(m: _LossState) -> dict[str, Array]:
        late, earlier = merge(m.windows[:2]), merge(m.windows[2:])
        return {
            "initial_loss": m.initial,
            "final_loss": m.final,
            "min_loss": m.least,
            "min_step": m.least_step,
            "max_loss": m.most,
            "max_step": m.most_step,
            "late_mean": late.mean,
            "late_spread": jnp.sqrt(late.m2 / late.count),
            "earlier_mean": earlier.mean,
            "increases": m.increases / jnp.maximum(m.steps, 1),
        }

    return Monitor(init, update, read)


class _ReversalState(NamedTuple):
    previous: Params  # the last update that moved
    first: Array  # () int32, the step of the first update that reversed, -1 before
    windows: Windows  # two, of the cosine


@functools.cache
def reversals() -> Monitor:
    """Mean cosine between successive late updates, −1 where each undoes the direction of the last.

    Updates too small to move the params beyond rounding are not counted, so that a run that has arrived keeps the
    number it arrived with.
    """

    def init(state: State) -> _ReversalState:
        dtype = _dtype(state.params)
        return _ReversalState(
            jax.tree.map(jnp.zeros_like, state.params), jnp.full((), -1, jnp.int32), empty_windows(2, dtype)
        )

    def update(m: _ReversalState, before: State, after: State, info: Info, context: Context) -> _ReversalState:
        size, last_size = norm(info.update), norm(m.previous)
        # squares of sizes below the root of the smallest number vanish: such updates tell no direction
        least = jnp.sqrt(jnp.finfo(size.dtype).tiny)
        moves = jnp.isfinite(size) & (size > jnp.maximum(rounding(before.params), least))
        valid = moves & (last_size > 0)
        unit = optax.tree.vdot(info.update, m.previous) / jnp.where(valid, size, 1)
        cosine = jnp.clip(unit / jnp.where(valid, last_size, 1), -1, 1)
        reverses = valid & (cosine < 0) & (m.first < 0)
        return _ReversalState(
            previous=jax.tree.map(lambda u, p: jnp.where(moves, u, p).astype(p.dtype), info.update, m.previous),
            first=jnp.where(reverses, context.t, m.first),
            windows=push(m.windows, cosine, valid, starts_window(context.t)),
        )

    def read(m: _ReversalState) -> dict[str, Array]:
        return {"reversal": merge(m.windows).mean, "reversal_step": m.first}

    return Monitor(init, update, read)


class _NormState(NamedTuple):
    latest: tuple[Array, Array, Array]  # of the step before, counted at the next: the last update of all is no move
    peak: Array  # () largest finite update norm
    grad: Windows  # two
    update: Windows  # two
    predicted: Windows  # two, of −⟨gradient, update⟩


@functools.cache
def norms() -> Monitor:
    """Late mean norms of gradient and update, the largest update, and the decrease that the slope predicted.

    ``late_predicted`` is the sum of −⟨gradient, update⟩ over the late steps: what the loss would have lost if the
    slope had held. As the learning rate falls it tends to what is lost, for every optimizer.
    """

    def init(state: State) -> _NormState:
        dtype = _dtype(state.params)
        two, zero = empty_windows(2, dtype), jnp.zeros((), dtype)
        return _NormState((zero, zero, zero), zero, two, two, two)

    def update(m: _NormState, before: State, after: State, info: Info, context: Context) -> _NormState:
        grad, update, predicted = m.latest
        valid = (context.t > 0) & jnp.isfinite(grad) & jnp.isfinite(update) & jnp.isfinite(predicted)
        starts = starts_window(context.t - 1)
        slope = jnp.asarray(optax.tree.vdot(info.grad, info.update), grad.dtype)
        return _NormState(
            latest=(norm(info.grad), norm(info.update), -slope),
            peak=jnp.where(valid, jnp.maximum(m.peak, update), m.peak),
            grad=push(m.grad, grad, valid, starts),
            update=push(m.update, update, valid, starts),
            predicted=push(m.predicted, predicted, valid, starts),
        )

    def read(m: _NormState) -> dict[str, Array]:
        predicted = merge(m.predicted)
        return {
            "grad_norm": merge(m.grad).mean,
            "update_norm": merge(m.update).mean,
            "peak_update_norm": m.peak,
            "late_predicted": predicted.count * predicted.mean,
        }

    return Monitor(init, update, read)


@functools.cache
def time_to(target: float) -> Monitor:
    """The first step whose loss is at most `target`, −1 if none was: ``time_to_TARGET``."""

    def update(m: Array, before: State, after: State, info: Info, context: Context) -> Array:
        return jnp.where((m < 0) & (info.loss <= target), context.t, m)

    return Monitor(lambda state: jnp.full((), -1, jnp.int32), update, lambda m: {f"time_to_{target:g}": m})


@functools.cache
def curve(points: int) -> Monitor:
    """The loss at the steps that `curve_steps` lists: ``curve_loss``, NaN at those which the run did not reach."""
    at = curve_steps(points)

    def init(state: State) -> Array:
        return jnp.full((len(at),), jnp.nan, _dtype(state.params))

    def update(m: Array, before: State, after: State, info: Info, context: Context) -> Array:
        # the slot of the next recorded step is written at every step before it too: no branch, and t is unbatched
        slot = jnp.sum(at < context.t, dtype=jnp.int32)
        return jax.lax.dynamic_update_index_in_dim(m, info.loss.astype(m.dtype), slot, 0)

    def read(m: Array) -> dict[str, Array]:
        return {"curve_loss": m}

    return Monitor(init, update, read, freeze=False)


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
    steps.setflags(write=False)  # it is shared by every caller
    return steps


def norm(tree: PyTree) -> Array:
    """Euclidean norm over all leaves, whose derivative at zero is zero rather than NaN."""
    square = optax.tree.norm(tree, squared=True)
    positive = square > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, square, 1)), 0)


DEFAULT = (loss_statistics(), reversals(), norms())


def rounding(params: Params) -> Array:
    """The size below which an update of `params` is rounding: a few units in the last place of their norm."""
    return 4 * jnp.finfo(_dtype(params)).eps * norm(params)


def _dtype(params: Params) -> Any:
    return jnp.result_type(*jax.tree.leaves(params))
