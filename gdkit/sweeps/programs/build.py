"""The programs of a sweep: traced from a problem and an optimizer, compiled for blocks of lanes, and called."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gdkit import monitors
from gdkit.binding import Arrays
from gdkit.descent import Lane, StepInputs, evaluate, keys_of, observe, roll_windows, start_lane, step_map
from gdkit.monitors import EndKind, Limits
from gdkit.sweeps.programs.packing import Packed
from gdkit.sweeps.request import Recording
from gdkit.types import Array, Key


class Shared(NamedTuple):
    """What every block of a job is given, placed on a device once."""

    key: Key  # the root; seed s has fold_in(key, s)
    arrays: Arrays
    limits: Limits


class Inputs(NamedTuple):
    """What a block is, on the way into its program."""

    traced: dict[str, np.ndarray]  # name -> (points,)
    points: np.ndarray  # (points,) int32, places in the group; without traced values only their number matters
    seeds: np.ndarray  # (seeds,) int32


class Carry(NamedTuple):
    """A block of lanes on its way: an outer product of seeds and points, at one step."""

    t: Any  # () int32, the step that comes next
    lanes: Any  # a Lane, each leaf (seeds, points, ...); between calls it is Packed
    curve: Any  # (slots, seeds, points), the losses at the recorded steps
    going: Any  # () bool, whether any lane has not ended; as of the end of a call


class Program(NamedTuple):
    """Three pure functions over a block of lanes.

    Lanes of one seed share their batches: the seed's key is not batched over the points.
    """

    start: Any  # (inputs, shared) -> carry
    advance: Any  # (inputs, shared, carry, t1, steps) -> carry at step t1, or where its last lane has ended
    finish: Any  # (inputs, shared, carry) -> Packed, name -> (seeds, points, ...)
    fingerprint: str = ""  # of the compiled: equal for what computes the same on the same device with the same versions
    carry: Any = None  # of the compiled: its shapes
    output: Any = None  # of the compiled: the shapes of what it reads in the end, name -> (seeds, points, ...)
    loops: bool = True  # whether `advance` makes all steps to t1, not just one
    starts_alike: bool = False  # of the compiled: whether lanes of one seed start alike at every point


def program_of(problem: Any, factory: Any, static: Mapping[str, Any], watching: Recording, unroll: int = 1) -> Program:
    """The program that advances lanes which share `static`, `unroll` steps at a time; without a loop if that is 0."""
    watched, curve_steps = watching.monitors, np.asarray(watching.curve, np.int32)

    def keys_in(inputs: Inputs, shared: Shared) -> tuple[Key, Key]:
        return jax.vmap(lambda seed: keys_of(jax.random.fold_in(shared.key, seed)))(inputs.seeds)

    def over_block(f: Callable, inputs: Inputs, keys: Key, *lanes: Any, squeeze: bool = False) -> Any:
        one = lambda point, key, *lane: f({**static, **point[0]}, key, *lane)
        along_points = _mapped(one, (0, None, *(0 for _ in lanes)), squeeze and len(inputs.points) == 1)
        along_seeds = _mapped(along_points, (None, 0, *(0 for _ in lanes)), squeeze and len(inputs.seeds) == 1)
        return along_seeds(inputs[:2], keys, *lanes)

    def start(inputs: Inputs, shared: Shared) -> Carry:
        one = lambda point, key: start_lane(problem, factory, watched, point, key, shared.arrays)
        lanes = over_block(one, inputs, keys_in(inputs, shared)[0])
        loss = lanes.record.initial_loss
        curve = jnp.zeros((len(curve_steps), *loss.shape), loss.dtype)
        return _packed(Carry(jnp.int32(0), lanes, curve, jnp.bool_(True)))

    def advance(inputs: Inputs, shared: Shared, carry: Carry, t1: Array, steps: Array) -> Carry:
        step = step_map(problem, factory)
        _, keys = keys_in(inputs, shared)  # made here, not at every step

        def body(carry: Carry, slot: Array) -> tuple[Carry, Array]:
            t = carry.t
            data, limits = shared.arrays.data, shared.limits
            move = lambda point, key, state: step(state, point, t, key, data)
            seen = lambda point, key: StepInputs(point, t, key, data)
            look = lambda point, key, lane, found: observe(
                watched, factory, lane, *found, seen(point, key), limits, t == steps
            )
            # XLA makes products over an axis of 1 up to 1.5 times slower, and elementwise statistics faster
            moved = over_block(move, inputs, keys, carry.lanes.state, squeeze=True)
            lanes, loss = over_block(look, inputs, keys, carry.lanes, moved)
            if not len(curve_steps):
                return carry._replace(t=t + 1, lanes=lanes), slot
            # a step that is not recorded leaves its loss where that of the next recorded one will be
            curve = jax.lax.dynamic_update_index_in_dim(carry.curve, loss, slot, 0)
            return carry._replace(t=t + 1, lanes=lanes, curve=curve), slot + (jnp.asarray(curve_steps)[slot] == t)

        def until(end: Array, body: Callable, at: tuple[Carry, Array], stride: int = 1) -> tuple[Carry, Array]:
            def goes_on(at: tuple[Carry, Array]) -> Array:
                return (at[0].t <= end - stride) & _goes_on(at[0].lanes)

            return jax.lax.while_loop(goes_on, body, at)

        def stride(at: tuple[Carry, Array]) -> tuple[Carry, Array]:
            for _ in range(unroll):
                at = body(*at)
            return at

        def rolled(carry: Carry) -> Carry:
            return carry._replace(lanes=roll_windows(watched, carry.lanes, carry.t, batch_dimensions=2))

        def window(at: tuple[Carry, Array]) -> tuple[Carry, Array]:
            # windows of statistics move up between two loops, so that the inner one does not touch the older ones
            at = rolled(at[0]), at[1]
            end = jnp.minimum(t1, monitors.next_window(at[0].t))
            return until(end, lambda at: body(*at), until(end, stride, at, unroll) if unroll > 1 else at)

        carry = carry._replace(lanes=carry.lanes.unpack())
        slot = jnp.sum(curve_steps < carry.t, dtype=jnp.int32)  # the first recorded step that is not before t
        return _packed(until(t1, window, (carry, slot))[0] if unroll else body(rolled(carry), slot)[0])

    def finish(inputs: Inputs, shared: Shared, carry: Carry) -> Packed:
        def one(point: dict, key: Key, lane: Lane) -> dict[str, Array]:
            read = monitors.read(watched, lane.record)
            return read | evaluate(problem, factory, point, lane.state, shared.arrays)

        found = over_block(one, inputs, keys_in(inputs, shared)[1], carry.lanes.unpack())
        if len(curve_steps):
            reached = curve_steps[:, None, None] <= found["end_step"][None]
            found["curve_loss"] = jnp.moveaxis(jnp.where(reached, carry.curve, jnp.nan), 0, -1)
        return Packed.pack(found)

    return Program(start, advance, finish, loops=unroll > 0)


def _packed(carry: Carry) -> Carry:
    return carry._replace(lanes=Packed.pack(carry.lanes), going=_goes_on(carry.lanes))


def _goes_on(lanes: Lane) -> Array:
    return jnp.any(lanes.record.end_kind == EndKind.RUNNING)


def _mapped(f: Callable, in_axes: tuple[int | None, ...], squeeze: bool) -> Callable:
    """`f` along an axis; to squeeze one of size 1 is to take it away and put it back."""
    if not squeeze:
        return jax.vmap(f, in_axes=in_axes)

    def alone(*arguments: Any) -> Any:
        first = lambda x, axis: x if axis is None else jax.tree.map(lambda leaf: leaf[0], x)
        return jax.tree.map(lambda leaf: leaf[None], f(*map(first, arguments, in_axes)))

    return alone
