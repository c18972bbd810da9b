"""The record of one run: its end, and the states of its monitors."""

import math
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gdkit.monitors.updates import UpdateMonitor, get_update_multiple
from gdkit.optimizers import gates
from gdkit.trees import select, statistics_dtype
from gdkit.types import Array, Context, Info, Monitor, Numeric, OptimizerLike, PyTree, State


class EndKind(IntEnum):
    """How a run ended."""

    RUNNING = 0
    STEPS = 1  # it made all its steps
    NONFINITE = 2  # its loss was not finite, and its optimizer did not skip the step, or skipped all late ones
    EXCEEDED = 3  # its loss exceeded L₀ + diverged_above · max(|L₀|, 1), or fell as far below L₀ (no known optimum)
    TARGET = 4  # its loss reached the target
    STOPPED = 5  # the stopping rule of a monitor ended it


class Limits(NamedTuple):
    """When a run ends before it has made all its steps."""

    diverged_above: Numeric = 1e6
    target: Numeric = -math.inf
    unbounded_below: Numeric = math.inf  # like diverged_above, for a loss that falls without bound


class Record(NamedTuple):
    """The observations of one run."""

    initial_loss: Array  # (), the first finite one if the optimizer may skip steps
    end_step: Array  # () int32, the step of the last loss
    end_kind: Array  # () int32, an EndKind
    monitors: tuple[PyTree, ...]  # one state per monitor
    gate: gates.Gate | None = None  # None for an optimizer that updates at every step


def start_record(monitors: Sequence[Monitor], state: State, *, is_gated: bool = False) -> Record:
    """The record of a run before its first step; `is_gated`: whether its optimizer withholds some of its updates."""
    states = tuple(m.init(state) for m in monitors)
    loss, gate = jnp.zeros((), statistics_dtype(state.params)), gates.start_gate() if is_gated else None
    return Record(loss, jnp.zeros((), jnp.int32), jnp.int32(EndKind.RUNNING), states, gate)


def end_record(
    record: Record, info: Info, t: Array, limits: Limits, last: Array | np.bool_, first: Array | np.bool_ | None = None
) -> Record:
    """The record with its initial loss, and with its end if the loss at step `t` is the run's last.

    `first` is whether `t` is 0, where the caller knows; a constant saves the comparison in every step of a loop.
    """
    going, loss = record.end_kind == EndKind.RUNNING, info.loss.astype(record.initial_loss.dtype)
    is_first, gate, after_skip = t == 0 if first is None else first, record.gate, jnp.int32(EndKind.NONFINITE)
    if gate is not None:
        is_first |= going & ~jnp.isfinite(record.initial_loss)
        gate, skips = gates.observe_gate(gate, info, t, going & ~last)
        skips &= ~(last & gates.is_long_ago(gate.finite, t))
        after_skip = jnp.where(skips, jnp.where(last, EndKind.STEPS, EndKind.RUNNING), after_skip)
    initial = jnp.where(is_first, loss, record.initial_loss)
    size = jnp.maximum(jnp.abs(initial), 1)
    above, below = initial + limits.diverged_above * size, initial - limits.unbounded_below * size
    kind = jnp.where(last, jnp.int32(EndKind.STEPS), jnp.int32(EndKind.RUNNING))
    kind = jnp.where(loss <= limits.target, EndKind.TARGET, kind)
    kind = jnp.where((loss > above) | (loss < below), EndKind.EXCEEDED, kind)
    kind = jnp.where(jnp.isfinite(loss), kind, after_skip)
    end_step, end_kind = jnp.where(going, t, record.end_step), jnp.where(going, kind, record.end_kind)
    return record._replace(initial_loss=initial, end_step=end_step, end_kind=end_kind, gate=gate)


def apply_stops(
    monitors: Sequence[Monitor],
    optimizer: OptimizerLike,
    record: Record,
    before: State,
    after: State,
    info: Info,
    context: Context,
) -> Record:
    """The record after the monitors with a stopping rule have observed a step, ended if one of the rules says so.

    They observe the step as it is made unless they stop it; `fold` then shows the others whether it is made.
    """
    record = fold(monitors, optimizer, record, before, after, info, context, stopping=True)
    pairs = zip(monitors, record.monitors, strict=True)
    stops = jnp.any(jnp.stack([m.stop(state) for m, state in pairs if m.stop]))
    in_bounds = (record.end_kind == EndKind.RUNNING) | (record.end_kind == EndKind.STEPS)
    kind = jnp.where(context.going & in_bounds & stops, EndKind.STOPPED, record.end_kind)
    return record._replace(end_kind=kind)


def fold(
    monitors: Sequence[Monitor],
    optimizer: OptimizerLike,
    record: Record,
    before: State,
    after: State,
    info: Info,
    context: Context,
    *,
    stopping: bool = False,
) -> Record:
    """The record after the monitors without a stopping rule, or if `stopping` those with one, have observed a step.

    The record of a run that has ended stays as it is.
    """
    multiple, going, gate = get_update_multiple(optimizer, context.hyperparameters), context.going, record.gate
    is_update = None
    if gate is not None:
        is_update = (gate.moved == context.t) | gates.is_long_ago(gate.moved, context.t)
        is_seen = jnp.isfinite(info.loss) | (record.end_kind == EndKind.NONFINITE)
        context = context._replace(going=going & is_seen)
    info = info._replace(loss=info.loss.astype(record.initial_loss.dtype))
    unmoved = info._replace(update=jax.tree.map(lambda u: jnp.where(context.moves, u, 0), info.update))
    after_end = info._replace(loss=jnp.where(going, info.loss, jnp.nan))
    states = []
    for monitor, old in zip(monitors, record.monitors, strict=True):
        if (monitor.stop is not None) != stopping:
            states.append(old)
            continue
        update: Callable[..., PyTree] = monitor.update
        shortcut = (multiple, is_update) if isinstance(monitor, UpdateMonitor) else ()
        new = update(old, before, after, unmoved if monitor.freeze else after_end, context, *shortcut)
        states.append(select(going, new, old) if monitor.freeze else new)
    return record._replace(monitors=tuple(states))


def roll(monitors: Sequence[Monitor], record: Record, state: State) -> Record:
    """The record at the start of a dyadic window; the record of a run that has ended stays as it is."""
    going = record.end_kind == EndKind.RUNNING
    pairs = zip(monitors, record.monitors, strict=True)
    states = tuple(select(going, m.roll(old, state), old) if m.roll else old for m, old in pairs)
    return record._replace(monitors=states)


def read(monitors: Sequence[Monitor], record: Record) -> dict[str, Array]:
    """Every statistic by name."""
    statistics = record._asdict()
    gate = statistics.pop("gate")
    statistics["skipped_steps"] = jnp.zeros_like(record.end_step) if gate is None else gate.skipped
    for monitor, state in zip(monitors, statistics.pop("monitors"), strict=True):
        statistics |= monitor.read(state)
    return statistics
