"""The programs of a sweep, traced from a problem and an optimizer for blocks of lanes."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gdkit import binding, factories, monitors
from gdkit.binding import Arrays
from gdkit.descent import (
    Lane,
    StepInputs,
    batch_step,
    evaluation,
    lane_step,
    observe,
    roll_windows,
    split_key,
    start_lane,
)
from gdkit.monitors import EndKind, Limits, Record
from gdkit.problems import ProblemLike
from gdkit.sweeps.programs.layout import ON_CPU, Layout
from gdkit.sweeps.programs.packing import Packed
from gdkit.sweeps.request import Recording
from gdkit.types import Array, Key, Monitor, OptimizerLike, PyTree

_STRETCH = 64  # short steps between two checks of whether any lane is running; a check takes about as long as a step
_AHEAD_BYTES = 2**26  # most bytes of the batches that a stride samples ahead


class Shared(NamedTuple):
    """The arguments that all blocks of a job share, placed on a device once."""

    key: Key  # the root; seed s has fold_in(key, s)
    arrays: Arrays
    limits: Limits


class Inputs(NamedTuple):
    """The arguments of one block."""

    traced: dict[str, np.ndarray]  # name -> (points,)
    points: np.ndarray  # (points,) int32, indices into the group; without traced values only their number matters
    seeds: np.ndarray  # (seeds,) int32


BlockInputs = tuple[Inputs, Shared]  # the arguments with which a program is called for a block


class Carry(NamedTuple):
    """A block of lanes at one step: an outer product of seeds and points."""

    t: Any  # () int32, the next step
    lanes: PyTree  # a Lane, each leaf (seeds, points, ...); between calls it is Packed
    curve: Any  # (slots, seeds, points), the losses at the recorded steps
    going: Any  # () bool, whether any lane had not ended at the end of the last call
    evaluations: Any = ()  # name -> (seeds, points, evaluations), on the host: in a checkpoint, never in a program


class Program(NamedTuple):
    """Pure functions over a block of lanes.

    Lanes of one seed share their batches: the seed's key is not batched over the points. `moved` is a carry without the
    arrays that stay the same, which a program would copy (`keep_unchanged`).
    """

    start: Any  # (inputs, shared) -> carry
    advance: Any  # (inputs, shared, carry, t1, steps) -> moved: at step t1, or where its last lane has ended
    finish: Any  # (inputs, shared, carry) -> Packed, name -> (seeds, points, ...)
    layout: Layout = ON_CPU
    # of compiled programs only
    fingerprint: str = ""  # equal for programs that compute the same, on the same device with the same versions
    carry: Any = None  # the shapes of a carry
    output: PyTree = None  # the shapes of what `finish` returns, name -> (seeds, points, ...)
    starts_alike: bool = False  # whether lanes of one seed start alike at every point
    evaluate: Any = None  # (inputs, shared, carry) -> Packed, name -> (seeds, points); where `Recording.evaluates`
    evaluated: PyTree = None  # the shapes of what `evaluate` returns, of compiled programs only
    observe: Any = None  # (inputs, shared, carry, evaluated) -> moved; where monitors observe evaluations


class Definition(NamedTuple):
    """The values that are constant in a program; all others are its arguments."""

    problem: ProblemLike
    optimizer: OptimizerLike
    static: Mapping[str, Any]  # hyperparameters that all lanes share
    watched: tuple[Monitor, ...]
    curve_steps: np.ndarray  # (slots,) int32, the recorded steps and one more; one array, so one constant
    layout: Layout
    evaluates: bool = False  # whether `evaluate` reads the values on validation data, which `finish` then omits


def program_of(
    problem: ProblemLike,
    optimizer: OptimizerLike,
    static: Mapping[str, Any],
    recording: Recording,
    layout: Layout = ON_CPU,
) -> Program:
    """The program of lanes that share `static`."""
    curve_steps = np.asarray(recording.curve, np.int32)
    watched = layout.choose_monitors(recording.monitors)
    definition = Definition(problem, optimizer, static, watched, curve_steps, layout, recording.evaluates)
    bind = lambda function: functools.partial(function, definition)
    evaluate = bind(evaluate_lanes) if recording.evaluates else None
    observes = recording.evaluates and evaluation.observes_evaluations(recording.monitors)
    observe = bind(observe_evaluation) if observes else None
    return Program(bind(start), bind(advance), bind(finish), layout=layout, evaluate=evaluate, observe=observe)


def start(definition: Definition, inputs: Inputs, shared: Shared) -> Carry:
    """The block before step 0."""
    problem, optimizer, _, watched, curve_steps, *_ = definition
    one = lambda point, key: start_lane(problem, optimizer, watched, point, key, shared.arrays)
    lanes = _over_block(definition, one, inputs, _make_seed_keys(inputs, shared)[0])
    loss = lanes.record.initial_loss
    curve = jnp.zeros((len(curve_steps), *loss.shape), loss.dtype)
    return _pack(Carry(jnp.int32(0), lanes, curve, jnp.bool_(True)))


def advance(definition: Definition, inputs: Inputs, shared: Shared, carry: Carry, t1: Array, steps: Array) -> Carry:
    """The block at step `t1`, or where its last lane has ended; runs have `steps` steps in all."""
    _, keys = _make_seed_keys(inputs, shared)  # made here, not at every step
    advance_part = lambda inputs, carry: _advance(_BlockCall(definition, inputs, shared, keys, steps), carry, t1)
    if not definition.layout.chunk:
        return advance_part(inputs, carry)
    moved = _map_chunks(definition, advance_part, inputs, carry)
    lanes, curve = _join_chunks(moved.lanes, 1), _join_chunks(moved.curve, 2)
    return Carry(jnp.max(moved.t), lanes, curve, jnp.any(moved.going))


def _advance(block: "_BlockCall", carry: Carry, t1: Array) -> Carry:
    definition, before = block.definition, carry.lanes.unpack()
    position = _begin(block, carry, before._replace(record=evaluation.set_best_aside(before.record)))
    if definition.layout.unroll == 0:
        position = _step(block, _roll(block, position))
    else:
        position = _run_until(t1, functools.partial(_run_window, block, t1), position)
    lanes = block.restore_axes(position.carry.lanes)
    lanes = lanes._replace(record=evaluation.put_best_back(lanes.record, before.record))
    moved = _pack(position.carry._replace(lanes=lanes, curve=position.carry.curve.reshape(carry.curve.shape)))
    return moved._replace(lanes=_omit_unchanged(carry.lanes, moved.lanes))


def finish(definition: Definition, inputs: Inputs, shared: Shared, carry: Carry) -> Packed:
    """The statistics and evaluations of every lane, by name."""
    if not definition.layout.chunk:
        return _finish(definition, shared, inputs, carry)
    return _join_chunks(_map_chunks(definition, functools.partial(_finish, definition, shared), inputs, carry), 1)


def _finish(definition: Definition, shared: Shared, inputs: Inputs, carry: Carry) -> Packed:
    problem, optimizer, _, watched, curve_steps, *_ = definition

    def read(point: dict[str, Any], key: Key, lane: Lane) -> dict[str, Array]:
        statistics = monitors.read(watched, _end_at_start(lane))
        t = lane.record.end_step
        values = evaluation.evaluate(problem, optimizer, point, lane.state, shared.arrays, t, key)
        return statistics | {
            n: value for n, value in values.items() if not (definition.evaluates and evaluation.is_along(n))
        }

    columns = _over_block(definition, read, inputs, _make_seed_keys(inputs, shared)[1], carry.lanes.unpack())
    if len(curve_steps):
        reached = curve_steps[:, None, None] <= columns["end_step"][None]
        columns["curve_loss"] = jnp.moveaxis(jnp.where(reached, carry.curve, jnp.nan), 0, -1)
    return Packed.pack(columns)


def evaluate_lanes(definition: Definition, inputs: Inputs, shared: Shared, carry: Carry) -> Packed:
    """The values on validation data of every lane at the step of `carry`, or at the end of the lane, by name."""
    if not definition.layout.chunk:
        return _evaluate_lanes(definition, shared, inputs, carry)
    of_chunk = functools.partial(_evaluate_lanes, definition, shared)
    return _join_chunks(_map_chunks(definition, of_chunk, inputs, carry), 1)


def _evaluate_lanes(definition: Definition, shared: Shared, inputs: Inputs, carry: Carry) -> Packed:
    def read(point: dict[str, Any], key: Key, lane: Lane) -> dict[str, Array]:
        has_ended = lane.record.end_kind != EndKind.RUNNING
        t = jnp.where(has_ended, lane.record.end_step, carry.t)
        return evaluation.evaluate_along(
            definition.problem, definition.optimizer, point, lane.state, shared.arrays, t, key
        )

    return Packed.pack(_over_block(definition, read, inputs, _make_seed_keys(inputs, shared)[1], carry.lanes.unpack()))


def observe_evaluation(
    definition: Definition, inputs: Inputs, shared: Shared, carry: Carry, evaluated: Packed
) -> Carry:
    """The block after the monitors have observed what `evaluate_lanes` returned."""

    def observe(point: dict[str, Any], key: Key, lane: Lane, values: dict[str, Array]) -> Lane:
        watched, state = definition.watched, lane.state
        seen = evaluation.observe_evaluation(definition.problem, watched, point, state, lane.record, values, carry.t)
        return lane._replace(record=seen)

    keys = _make_seed_keys(inputs, shared)[1]
    lanes = _over_block(definition, observe, inputs, keys, carry.lanes.unpack(), evaluated.unpack())
    return _omit_unchanged(carry, carry._replace(lanes=Packed.pack(lanes)))


def _omit_unchanged(before: PyTree, after: PyTree) -> PyTree:
    """`after` with None in place of each array of `before`."""
    return jax.tree.map(lambda old, new: None if new is old else new, before, after)


def keep_unchanged(before: Carry, moved: Carry) -> Carry:
    """The carry after `before`, of what a program returned for it."""
    return jax.tree.map(lambda new, old: old if new is None else new, moved, before, is_leaf=lambda x: x is None)


def _end_at_start(lane: Lane) -> Record:
    """The record of a lane; one whose first update made its params not finite has ended at step 0, by its gradient."""
    is_finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(lane.state.params)]))
    record = lane.record
    never_moved = (record.end_kind == EndKind.NONFINITE) & (record.end_step == 1) & ~is_finite
    return record._replace(end_step=jnp.where(never_moved, 0, record.end_step))


def _map_chunks(definition: Definition, f: Callable[[Inputs, Carry], Any], inputs: Inputs, carry: Carry) -> Any:
    """What `f` returns for each chunk of a block's points, computed one after the other and stacked on a first axis."""

    def cut(tree: PyTree, axis: int) -> PyTree:
        sizes = len(inputs.points) // definition.layout.chunk, definition.layout.chunk
        split = lambda x: x.reshape(*x.shape[:axis], *sizes, *x.shape[axis + 1 :])
        return jax.tree.map(lambda x: jnp.moveaxis(split(x), axis, 0), tree)

    def of_chunk(part: tuple[Any, PyTree, Array]) -> Any:
        own, lanes, curve = part
        return f(Inputs(*own, inputs.seeds), carry._replace(lanes=lanes, curve=curve))

    return jax.lax.map(of_chunk, (cut(inputs[:2], 0), cut(carry.lanes, 1), cut(carry.curve, 2)))


def _join_chunks(tree: PyTree, axis: int) -> PyTree:
    """Arrays of chunks, stacked on a first axis, as arrays of a block whose points are on `axis`."""
    merge = lambda x: x.reshape(*x.shape[:axis], x.shape[axis] * x.shape[axis + 1], *x.shape[axis + 2 :])
    return jax.tree.map(lambda x: merge(jnp.moveaxis(x, 0, axis)), tree)


class _BlockCall(NamedTuple):
    """The arguments of `advance` that stay the same at all its steps."""

    definition: Definition
    inputs: Inputs
    shared: Shared
    keys: Key  # (seeds,), for sampling
    steps: Array  # () int32, of a whole run

    @property
    def axes(self) -> tuple[int, ...]:
        """The sizes of the axes of seeds and points, without those of size 1.

        XLA makes products over an axis of 1 up to 1.5 times slower, and copies params whose updates lack that axis.
        """
        return tuple(size for size in (len(self.inputs.seeds), len(self.inputs.points)) if size > 1)

    def drop_axes(self, lanes: PyTree) -> PyTree:
        """Lanes, each leaf (seeds, points, ...), without axes of size 1: as the steps take and return them."""
        return jax.tree.map(lambda x: x.reshape(*self.axes, *x.shape[2:]), lanes)

    def restore_axes(self, lanes: PyTree) -> PyTree:
        """The inverse of `drop_axes`."""
        sizes = len(self.inputs.seeds), len(self.inputs.points)
        return jax.tree.map(lambda x: x.reshape(*sizes, *x.shape[len(self.axes) :]), lanes)


class _Position(NamedTuple):
    """The carry of a block within `advance`, with its place in the curve."""

    carry: Carry  # its lanes and its curve without axes of size 1
    slot: Array  # () int32, the slot of the first recorded step that is not before t


def _run_window(block: _BlockCall, t1: Array, position: _Position) -> _Position:
    """Advance to the end of one window of the statistics, or to `t1`.

    Windows move up between two loops, so that the inner one does not touch the older windows.
    """
    step, layout = functools.partial(_step, block), block.definition.layout
    end = t1
    if any(monitor.roll for monitor in block.definition.watched):
        position = _roll(block, position)
        end = jnp.minimum(t1, monitors.next_window(position.carry.t))
    if layout.stride > 1:
        position = _run_until(end, functools.partial(_run_stride, block), position, stride=layout.stride)
    elif layout.peels:
        position = _run_until(jnp.minimum(end, 1), functools.partial(step, first=True, last=False), position)
        position = _run_stretches(block, jnp.minimum(end, block.steps), position)
        return _run_until(end, functools.partial(step, first=False, last=True), position)
    return _run_until(end, step, position)


def _run_until(end: Array, move: Callable[[_Position], _Position], position: _Position, stride: int = 1) -> _Position:
    """Advance by `stride` steps at a time while that does not pass `end`, and while any lane is running."""
    is_before_end = lambda position: (position.carry.t <= end - stride) & _is_running(position.carry.lanes)
    return jax.lax.while_loop(is_before_end, move, position)


def _run_stretches(block: _BlockCall, end: Array, position: _Position) -> _Position:
    """Advance by steps that are neither first nor last, and check every `_STRETCH` whether any lane is running."""
    step = functools.partial(_step, block, first=False, last=False)

    def run_stretch(position: _Position) -> _Position:
        stretch_end = jnp.minimum(end, position.carry.t + _STRETCH)
        return jax.lax.while_loop(lambda position: position.carry.t < stretch_end, step, position)

    return _run_until(end, run_stretch, position)


def _run_stride(block: _BlockCall, position: _Position) -> _Position:
    """Advance every lane by the steps of a stride, in a loop of static length, and record their losses after it."""
    definition, (carry, slot) = block.definition, position
    layout, at = definition.layout, jnp.asarray(definition.curve_steps)
    steps = carry.t + jnp.arange(layout.stride, dtype=jnp.int32)

    def move(lanes: Lane, step: tuple[Array, PyTree]) -> tuple[Lane, Array]:
        lanes, loss = _move_lanes(block, lanes, *step)
        return layout.separate(lanes, loss)

    lanes, losses = jax.lax.scan(move, carry.lanes, (steps, _sample_ahead(block, steps)), unroll=layout.unroll)
    carry = carry._replace(t=carry.t + layout.stride, lanes=lanes)
    if not len(at):
        return _Position(carry, slot)
    slots = jnp.sum(at[:, None] < steps[None], axis=0, dtype=slot.dtype)
    is_recorded = at[slots] == steps
    targets = jnp.where(is_recorded, slots, len(at) + jnp.arange(layout.stride))  # beyond the curve: dropped
    curve = carry.curve.at[targets].set(losses, mode="drop", unique_indices=True)
    return _Position(carry._replace(curve=curve), jnp.sum(at <= steps[-1], dtype=slot.dtype))


def _sample_ahead(block: _BlockCall, steps: Array) -> PyTree:
    """The batches of some steps for each seed, each leaf (steps, seeds, ...); None where each step samples its own.

    Each step samples its own if a batch depends on swept values, or if the batches would not fit in memory.
    """
    definition, inputs, shared, keys, _ = block
    if not definition.layout.samples_ahead or factories.split_hyperparameters(inputs.traced)[1]:
        return None
    point = {**definition.static, **{name: values[0] for name, values in inputs.traced.items()}}
    problem, _ = binding.resolve_problem(definition.problem, point)
    if problem.sample is None or problem.batches is not None:
        return None
    sample = lambda t, key: binding.get_batch(problem, t, key, shared.arrays.data)
    draw = jax.vmap(jax.vmap(sample, in_axes=(None, 0)), in_axes=(0, None))
    size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(jax.eval_shape(draw, steps, keys)))
    return draw(steps, keys) if size <= _AHEAD_BYTES else None


def _move_lanes(
    block: _BlockCall,
    lanes: Lane,
    t: Array,
    batches: PyTree = None,
    *,
    first: bool | None = None,
    last: bool | None = None,
) -> tuple[Lane, Array]:
    """Every lane after one step, and the losses (seeds, points).

    `batches` (seeds, ...) if they are sampled already; `first` and `last`: whether the step is one of these, None if
    unknown. XLA omits what depends on what is known.
    """
    definition, inputs, shared, keys, steps = block
    problem, optimizer, _, watched, *_ = definition
    step, on_batch = lane_step(problem, optimizer), batch_step(problem, optimizer)
    step_inputs = lambda point, key: StepInputs(point, t, key, shared.arrays.data)
    move_lane = lambda point, key, state: step(state, *step_inputs(point, key))
    move_on_batch = lambda point, batch, state: on_batch(state, point, batch)
    is_first, is_last = t == 0 if first is None else np.bool_(first), t == steps if last is None else np.bool_(last)
    observe_lane = lambda point, key, lane, moved: observe(
        watched, optimizer, lane, *moved, step_inputs(point, key), shared.limits, is_last, is_first
    )
    move, of_seed = (move_lane, keys) if batches is None else (move_on_batch, batches)
    moved = _over_block(definition, move, inputs, of_seed, lanes.state, drops_axes=True)
    return _over_block(definition, observe_lane, inputs, keys, lanes, moved, drops_axes=True)


def _step(block: _BlockCall, position: _Position, *, first: bool | None = None, last: bool | None = None) -> _Position:
    """Advance every lane by one step, and record its loss; `first` and `last` are those of `_move_lanes`."""
    (carry, slot), t, curve_steps = position, position.carry.t, block.definition.curve_steps
    lanes, loss = _move_lanes(block, carry.lanes, t, first=first, last=last)
    if not len(curve_steps):
        return _Position(carry._replace(t=t + 1, lanes=lanes), slot)
    # the loss of a step that is not recorded is overwritten by that of the next recorded step
    curve = jax.lax.dynamic_update_index_in_dim(carry.curve, loss, slot, 0)
    carry = carry._replace(t=t + 1, lanes=lanes, curve=curve)
    return _Position(carry, slot + (jnp.asarray(curve_steps)[slot] == t).astype(slot.dtype))


def _roll(block: _BlockCall, position: _Position) -> _Position:
    """Move the windows of the statistics up if one starts at this step."""
    carry, watched = position.carry, block.definition.watched
    lanes = roll_windows(watched, carry.lanes, carry.t, batch_dimensions=len(block.axes))
    return position._replace(carry=carry._replace(lanes=lanes))


def _pack(carry: Carry) -> Carry:
    return carry._replace(lanes=Packed.pack(carry.lanes), going=_is_running(carry.lanes))


def _begin(block: _BlockCall, carry: Carry, lanes: Lane) -> _Position:
    """The position at the step of `carry`, with `lanes` and the curve without axes of size 1."""
    slot = jnp.sum(block.definition.curve_steps < carry.t, dtype=jnp.int32)
    curve = carry.curve.reshape(len(carry.curve), *block.axes)
    return _Position(carry._replace(lanes=block.drop_axes(lanes), curve=curve), slot)


def _is_running(lanes: Lane) -> Array:
    """() bool, whether any lane has not ended."""
    return jnp.any(lanes.record.end_kind == EndKind.RUNNING)


def _make_seed_keys(inputs: Inputs, shared: Shared) -> tuple[Key, Key]:
    """The keys that initialize and the keys that sample, each (seeds,)."""
    return jax.vmap(lambda seed: split_key(jax.random.fold_in(shared.key, seed)))(inputs.seeds)


def _over_block(
    definition: Definition,
    f: Callable[..., Any],
    inputs: Inputs,
    seeds: PyTree,
    *lanes: PyTree,
    drops_axes: bool = False,
) -> Any:
    """Call ``f(point, seed, *lane)`` for every lane; with `drops_axes`, lanes come and go without axes of size 1.

    `seeds` is what the lanes of a seed share, each leaf (seeds, ...), such as its key.
    """
    one = lambda point, seed, *lane: f({**definition.static, **point[0]}, seed, *lane)
    first = lambda tree: jax.tree.map(lambda leaf: leaf[0], tree)
    if drops_axes and len(inputs.points) == 1:
        along_points = lambda points, seed, *lane: one(first(points), seed, *lane)
    else:
        along_points = jax.vmap(one, in_axes=(0, None, *(0 for _ in lanes)))
    if drops_axes and len(inputs.seeds) == 1:
        return along_points(inputs[:2], first(seeds), *lanes)
    return jax.vmap(along_points, in_axes=(None, 0, *(0 for _ in lanes)))(inputs[:2], seeds, *lanes)
