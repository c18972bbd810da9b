"""The observed step: the step map, the monitors, the end of a run and its windows, assembled once."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gdkit import monitors
from gdkit.binding import Arrays
from gdkit.descent import evaluation
from gdkit.descent.start import initial_state, withholds_updates
from gdkit.descent.step import lane_step
from gdkit.monitors import EndKind, Limits, Record
from gdkit.problems import ProblemLike
from gdkit.trees import select
from gdkit.types import (
    Array,
    Context,
    Hyperparameters,
    Info,
    Key,
    Monitor,
    OptimizerLike,
    PyTree,
    State,
    StaticHyperparameters,
)


class Lane(NamedTuple):
    """A run and the record of its observations; after its end it stays as it is."""

    state: State
    record: Record


class StepInputs(NamedTuple):
    """The inputs of a step besides the state."""

    hyperparameters: Hyperparameters
    t: Array  # () int32, the step
    key: Key  # the key that samples, from `split_key`
    data: PyTree

    def with_static(self, static: StaticHyperparameters) -> "StepInputs":
        """The inputs with the hyperparameters that are constant in a program."""
        return self._replace(hyperparameters=dict(static) | dict(self.hyperparameters))


def start_lane(
    problem: ProblemLike,
    optimizer: OptimizerLike,
    watched: Sequence[Monitor],
    hyperparameters: Hyperparameters,
    key: Key,
    arrays: Arrays,
) -> Lane:
    """The lane before step 0; `key` is the key that initializes, from `split_key`."""
    state = initial_state(problem, optimizer, hyperparameters, key, arrays)
    is_gated = withholds_updates(problem, optimizer, hyperparameters, state)
    return Lane(state, monitors.start_record(watched, state, is_gated=is_gated))


def observed_step(
    problem: ProblemLike, optimizer: OptimizerLike, watched: Sequence[Monitor]
) -> Callable[[Lane, StepInputs, Limits, Array], tuple[Lane, Array]]:
    """The step map with its observation: ``(lane, inputs, limits, last) -> (lane, loss)``.

    With `last` the loss is observed and no update is made.
    """
    step = lane_step(problem, optimizer)

    def advance(lane: Lane, inputs: StepInputs, limits: Limits, last: Array) -> tuple[Lane, Array]:
        lane = roll_windows(watched, lane, inputs.t)
        after, info = step(lane.state, *inputs)
        return observe(watched, optimizer, lane, after, info, inputs, limits, last)

    return advance


def roll_windows(watched: Sequence[Monitor], lane: Lane, t: Array, *, batch_dimensions: int = 0) -> Lane:
    """The lane, or a batch of them, with the windows of its monitors moved up by one if a window starts at step `t`."""
    roll = lambda lane: monitors.roll(watched, lane.record, lane.state)
    for _ in range(batch_dimensions):
        roll = jax.vmap(roll)
    record = jax.lax.cond(monitors.starts_window(t), roll, lambda lane: lane.record, lane)
    return lane._replace(record=record)


def observe(
    watched: Sequence[Monitor],
    optimizer: OptimizerLike,
    lane: Lane,
    after: State,
    info: Info,
    inputs: StepInputs,
    limits: Limits,
    last: Array | np.bool_,
    first: Array | np.bool_ | None = None,
) -> tuple[Lane, Array]:
    """The lane after a step to `after`, and the loss; a lane that has ended, or ends at this step, keeps its state.

    `last` and `first` are those of `end_record`.
    """
    hyperparameters, t, key, data = inputs
    going = lane.record.end_kind == EndKind.RUNNING
    record = monitors.end_record(lane.record, info, t, limits, last, first)
    moves = record.end_kind == EndKind.RUNNING
    after = select(moves, after, lane.state)
    context = Context(t, key, hyperparameters, data, moves, going)
    if any(monitor.stop for monitor in watched):
        record = monitors.apply_stops(watched, optimizer, record, lane.state, after, info, context)
        moves = record.end_kind == EndKind.RUNNING
        after, context = select(moves, after, lane.state), context._replace(moves=moves)
    record = monitors.fold(watched, optimizer, record, lane.state, after, info, context)
    return Lane(after, record), info.loss.astype(record.initial_loss.dtype)


def check_observers(
    problem: ProblemLike,
    optimizer: OptimizerLike,
    chosen: Hyperparameters,
    key: Key,
    arrays: Arrays,
    watched: tuple[Monitor, ...],
    evaluate_every: int | None,
) -> None:
    """Raise unless the monitors that observe evaluations can use what is evaluated along the run."""

    def observe(arrays: Arrays) -> Record:
        lane, t = start_lane(problem, optimizer, watched, chosen, key, arrays), jnp.int32(0)
        values = evaluation.evaluate_along(problem, optimizer, chosen, lane.state, arrays, t, key)
        return evaluation.observe_evaluation(problem, watched, chosen, lane.state, lane.record, values, t)

    evaluation.check_observers(watched, evaluate_every, observe, arrays)
