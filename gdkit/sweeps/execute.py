"""Execution: programs that advance blocks of lanes, and workers that pull blocks from one queue."""

import functools
import hashlib
import math
import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from gdkit import monitors
from gdkit.descent import Arrays, Lane, evaluate, keys_of, observation, start_lane, step_map
from gdkit.monitors import EndKind, Limits
from gdkit.sweeps.packing import Packed
from gdkit.sweeps.plan import Shape, visible_cores
from gdkit.types import Array, Key, Monitor


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


class Watching(NamedTuple):
    """What is recorded of lanes."""

    monitors: tuple[Monitor, ...]
    curve: tuple[int, ...] = ()  # the steps whose losses are kept, and one more


def program_of(problem: Any, factory: Any, static: Mapping[str, Any], watching: Watching, unroll: int = 1) -> Program:
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
        step, observe = step_map(problem, factory), observation(watched)
        _, keys = keys_in(inputs, shared)  # made here, not at every step

        def body(carry: Carry, slot: Array) -> tuple[Carry, Array]:
            t = carry.t
            data, limits = shared.arrays.data, shared.limits
            move = lambda point, key, state: step(state, point, t, key, data)
            look = lambda point, key, lane, found: observe(lane, *found, point, t, key, data, limits, t == steps)
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
            roll = jax.vmap(jax.vmap(lambda lane: monitors.roll(watched, lane.record, lane.state)))
            starts = monitors.starts_window(carry.t)
            record = jax.lax.cond(starts, roll, lambda lanes: lanes.record, carry.lanes)
            return carry._replace(lanes=carry.lanes._replace(record=record))

        def window(at: tuple[Carry, Array]) -> tuple[Carry, Array]:
            # windows of statistics move up between two loops, so that the inner one does not touch the older ones
            at = rolled(at[0]), at[1]
            end = jnp.minimum(t1, monitors.next_window(at[0].t))
            return until(end, lambda at: body(*at), until(end, stride, at, unroll) if unroll > 1 else at)

        carry = carry._replace(lanes=carry.lanes.tree())
        slot = jnp.sum(curve_steps < carry.t, dtype=jnp.int32)  # the first recorded step that is not before t
        return _packed(until(t1, window, (carry, slot))[0] if unroll else body(rolled(carry), slot)[0])

    def finish(inputs: Inputs, shared: Shared, carry: Carry) -> Packed:
        def one(point: dict, key: Key, lane: Lane) -> dict[str, Array]:
            read = monitors.read(watched, lane.record)
            return read | evaluate(problem, factory, point, lane.state, shared.arrays)

        found = over_block(one, inputs, keys_in(inputs, shared)[1], carry.lanes.tree())
        if len(curve_steps):
            reached = curve_steps[:, None, None] <= found["end_step"][None]
            found["curve_loss"] = jnp.moveaxis(jnp.where(reached, carry.curve, jnp.nan), 0, -1)
        return Packed.of(found)

    return Program(start, advance, finish, loops=unroll > 0)


def _packed(carry: Carry) -> Carry:
    return carry._replace(lanes=Packed.of(carry.lanes), going=_goes_on(carry.lanes))


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


@functools.lru_cache(maxsize=32)
def _jitted(problem: Any, factory: Any, static: tuple, watching: Watching, unroll: int) -> Program:
    return _jit(program_of(problem, factory, dict(static), watching, unroll))


def _jit(program: Program) -> Program:
    start, advance, finish = map(jax.jit, program[:3])
    return Program(start, advance, finish, loops=program.loops)


class Block(NamedTuple):
    """The lanes that one call advances: a chunk of points for a chunk of seeds. The last of each is padded."""

    points: np.ndarray  # (points,) int, places in the group, all different
    seeds: np.ndarray  # (seeds,) int, all different

    @property
    def sizes(self) -> tuple[int, int]:
        """How many points and seeds it has without padding, which repeats the last."""
        points, seeds = (1 + int((items == items[-1]).argmax()) for items in self)
        return points, seeds

    @property
    def lanes(self) -> int:
        """How many lanes it has without padding."""
        return math.prod(self.sizes)


def blocks_of(points: int, seeds: int, shape: Shape) -> list[Block]:
    """Cut the lanes of a group into blocks of one shape; all seeds of a chunk of points come one after the other.

    >>> [(b.points.tolist(), b.seeds.tolist()) for b in blocks_of(3, 2, Shape(2, 1))]
    [([0, 1], [0]), ([0, 1], [1]), ([2, 2], [0]), ([2, 2], [1])]
    """
    return cut(Block(np.arange(points), np.arange(seeds)), shape)


def cut(lanes: Block, shape: Shape) -> list[Block]:
    """`lanes` as blocks of one shape."""
    chunks = _chunks(lanes.points, shape.width)
    return [Block(points, seeds) for points in chunks for seeds in _chunks(lanes.seeds, shape.depth)]


def _chunks(items: np.ndarray, size: int) -> list[np.ndarray]:
    starts = range(0, len(items), size)
    return [items[np.minimum(np.arange(low, low + size), len(items) - 1)] for low in starts]


class Kept(NamedTuple):
    """Lanes on the host that can go on, all at one step; of keys their data."""

    lanes: Packed  # each array (points, seeds, ...)
    curve: np.ndarray  # (points, seeds, steps recorded so far)


def on_host(x: Any) -> np.ndarray:
    """A leaf of lanes as numbers; of keys their data."""
    return np.asarray(jax.random.key_data(x) if _is_key(x) else x)


def on_device(x: np.ndarray, like: Any) -> Any:
    """What `on_host` made of a leaf, as a program takes it."""
    if not _is_key(like):
        return x
    key = jax.random.wrap_key_data(jnp.asarray(x), impl=jax.random.key_impl(jnp.empty((), like.dtype)))
    return jax.device_put(key, like.sharding)


def shape_on_host(x: Any) -> Any:
    """The shape and dtype of what `on_host` makes of a leaf."""
    return jax.eval_shape(jax.random.key_data, x) if _is_key(x) else x


def gathered(parts: Sequence[tuple[Block, Packed]], points: int, seeds: int) -> Packed:
    """The lanes of blocks together, each array (points, seeds, ...); of a lane in several the last counts."""
    whole = jax.tree.map(lambda x: np.zeros((points, seeds, *on_host(x).shape[2:]), on_host(x).dtype), parts[0][1])
    for block, lanes in parts:
        at = np.ix_(block.points, block.seeds)
        for all_of_it, x in zip(jax.tree.leaves(whole), jax.tree.leaves(lanes), strict=True):
            all_of_it[at] = np.swapaxes(on_host(x), 0, 1)
    return whole


class Job(NamedTuple):
    """A group, ready to run: compiled programs and placed arrays, one of each a device."""

    programs: list[Program]
    shared: list[Shared]
    traced: dict[str, np.ndarray]  # name -> (points,)
    steps: int
    blocks: list[Block]  # all of one shape
    group: int = 0  # its number in the sweep
    begin: int = 0  # the step at which its lanes go on
    kept: Kept | None = None  # lanes that go on; None where they start
    keep: bool = False  # whether the lanes are handed out, so that they can go on after the last step
    unroll: int = 1  # steps in the body of its programs' loop
    pace: list[int] | None = None  # [steps of a segment], as blocks before found it; shared by all of them

    @property
    def lanes_a_block(self) -> int:
        """Lanes that a call advances, padding included."""
        return len(self.blocks[0].points) * len(self.blocks[0].seeds)


def prepare(
    problem: Any,
    factory: Any,
    static: Mapping[str, Any],
    traced: Mapping[str, np.ndarray],
    watching: Watching,
    shared: Shared,
    *,
    dtype: Any,
    steps: int,
    blocks: list[Block],
    devices: Sequence[Any],
    unroll: int = 1,
    group: int = 0,
) -> Job:
    """Compile the programs of a group and place its arrays, in the caller's thread."""
    try:
        program = _jitted(problem, factory, tuple(sorted(static.items())), watching, unroll)
    except TypeError:  # something static cannot be hashed, so this program is not remembered
        program = _jit(program_of(problem, factory, dict(static), watching, unroll))
    shared = shared._replace(limits=Limits(*(np.asarray(x, dtype) for x in shared.limits)))
    placed = [jax.device_put(shared, device) for device in devices]
    job = Job(
        [],
        placed,
        {n: v.astype(dtype) for n, v in traced.items()},
        steps,
        blocks,
        group,
        unroll=unroll,
        pace=[_FIRST_SEGMENT],
    )
    programs = []
    for number, device in enumerate(devices):
        leaves, treedef = jax.tree.flatten(inputs_of(job, blocks[0], number))
        on = jax.sharding.SingleDeviceSharding(device)
        programs.append(_compiled(program, treedef, tuple(_shape(x, on) for x in leaves)))
    return job._replace(programs=programs)


@functools.lru_cache(maxsize=64)
def _compiled(program: Program, treedef: Any, shapes: tuple[Any, ...]) -> Program:
    """The program's executables for blocks of these inputs; compiled once a program, shape and device."""
    inputs, on = jax.tree.unflatten(treedef, shapes), shapes[0].sharding
    start = program.start.lower(*inputs)
    carry = jax.tree.map(lambda x: _shape(x, on), jax.eval_shape(program.start, *inputs))
    step = jax.ShapeDtypeStruct((), jnp.int32, sharding=on)
    advance = program.advance.lower(*inputs, carry, step, step)
    finish = program.finish.lower(*inputs, carry)
    texts = tuple(lowered.as_text() for lowered in (start, advance, finish))
    made = _compile(start, on, ONCE), _compile(advance, on, OFTEN), finish.compile()
    return Program(*made, _fingerprint(texts, on), carry, finish.out_info.tree(), program.loops)


# On a CPU. The start runs once a block, and its random numbers would take a second to optimise; statistics of a scalar
# take 0.7 of the time by the widest vectors, which XLA leaves out by default, and other programs as long as without.
# The newer analysis copies less of what a loop carries: 0.84 of the time for a scalar, 0.96 for networks, same bits.
ONCE = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
OFTEN = {"xla_cpu_prefer_vector_width": 512, "xla_cpu_copy_insertion_use_region_analysis": True}


def _compile(lowered: Any, on: Any, options: Mapping[str, Any]) -> Any:
    """The executable; options that this version of XLA does not know are left out."""
    (device,) = on.device_set
    known = dict(options) if device.platform == "cpu" else {}
    while True:
        try:
            return lowered.compile(compiler_options=known or None)
        except jax.errors.JaxRuntimeError as error:
            unknown = [name for name in known if f"No such compile option: '{name}'" in str(error)]
            if not unknown:
                raise
            del known[unknown[0]]


def _fingerprint(program: tuple[str, ...], on: Any) -> str:
    """A hash of lowered programs, without locations, and of all else that decides what they compute and how fast."""
    (device,) = on.device_set
    versions = jax.__version__, jax.lib.__version__, os.environ.get("XLA_FLAGS", "")
    where = device.platform, device.device_kind, visible_cores()
    return hashlib.sha256(repr((program, where, versions)).encode()).hexdigest()


def _shape(x: Any, sharding: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)


def inputs_of(job: Job, block: Block, device: int = 0) -> tuple[Inputs, Shared]:
    """What the programs of `job` take for `block`, before the lanes."""
    traced = {name: values[block.points] for name, values in job.traced.items()}
    return Inputs(traced, block.points.astype(np.int32), block.seeds.astype(np.int32)), job.shared[device]


class Checkpoint(NamedTuple):
    """Where a block's lanes are kept at the end of each segment."""

    load: Callable[[Job, int], Carry | None]  # for a device; None where there is nothing to go on from
    save: Callable[[Carry], None]


def advance(program: Program, inputs: tuple[Inputs, Shared], carry: Carry, t0: int, t1: int, steps: int) -> Carry:
    """The carry of step `t0` advanced to `t1`: by one call, or by one a step where the program has no loop."""
    for end in (t1,) if program.loops else range(t0 + 1, t1 + 1):
        carry = program.advance(*inputs, carry, np.int32(end), np.int32(steps))
    return carry


def run_block(
    job: Job,
    block: Block,
    device: int,
    segment: int | None,
    report: Callable[[int], None],
    stop: threading.Event,
    checkpoint: Checkpoint | None = None,
) -> tuple[dict[str, np.ndarray], Packed | None]:
    """Advance a block to its end, segment by segment: what its lanes read, and its lanes before the last observation.

    Nothing if asked to stop on the way.
    """
    inputs, program = inputs_of(job, block, device), job.programs[device]
    carry = _begun(job, block, device, checkpoint)
    pace = [segment] if segment or job.pace is None else job.pace
    t0, size = int(carry.t), pace[0] or _FIRST_SEGMENT
    kept, kept_at = t0, time.monotonic()
    report(t0 - job.begin)
    while t0 < job.steps:
        if stop.is_set():
            if checkpoint and kept < t0:
                checkpoint.save(carry)
            return {}, None
        begin, t1 = time.monotonic(), min(t0 + size, job.steps)
        carry = advance(program, inputs, carry, t0, t1, job.steps)
        going = bool(carry.going)  # waits for the segment
        report(t1 - t0 if going else job.steps - t0)
        if segment is None:
            wanted = _KEPT_SECONDS if checkpoint else _SEGMENT_SECONDS
            fitting = (t1 - t0) * wanted / max(time.monotonic() - begin, 1e-4)
            pace[0] = size = max(1, min(int(fitting), 32 * size, 2**30))
        t0 = t1 if going else job.steps
        # what is found out with a short segment is not worth a file; it is kept with the next one
        due = segment is not None or time.monotonic() - kept_at >= _KEPT_SECONDS / 2
        if checkpoint and t0 < job.steps and due:
            checkpoint.save(carry)
            kept, kept_at = t0, time.monotonic()
    lanes = carry.lanes if job.keep else None
    carry = advance(program, inputs, carry, job.steps, job.steps + 1, job.steps)
    return read_out(program, inputs, carry), lanes


def read_out(program: Program, inputs: tuple[Inputs, Shared], carry: Carry) -> dict[str, np.ndarray]:
    """What lanes read in the end, on the host: name -> (seeds, points, ...)."""
    return jax.device_get(program.finish(*inputs, carry)).tree()


def _begun(job: Job, block: Block, device: int, checkpoint: Checkpoint | None) -> Carry:
    """The carry that a block begins with: as it was kept last, if it was."""
    kept = checkpoint.load(job, device) if checkpoint else None
    if kept is not None:
        return kept
    if job.kept is not None:
        return _carry_at(job, job.kept, block, device)
    return job.programs[device].start(*inputs_of(job, block, device))


def replay(
    job: Job, block: Block, at: tuple[int, int], onset: int, around: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Run a block again and watch one lane, at place `at` of it, step by step around `onset`.

    Steps are single calls of the same program, and so change nothing. Returns the loss and each leaf's norm of params
    and of their change, (watched steps,), with ``step``; and all that the lane reads at its end.
    """
    inputs, program = inputs_of(job, block), job.programs[0]
    to = lambda carry, t0, t1: advance(program, inputs, carry, t0, t1, job.steps)
    mine = lambda tree: jax.tree.map(lambda x: np.asarray(x)[at], tree)
    params = lambda carry: mine(carry.lanes.tree().state.params)
    first, last = max(0, onset - around), min(onset + around + 1, job.steps)
    carry = to(program.start(*inputs), 0, first)
    watched: dict[str, list] = {"step": list(range(first, last)), "loss": []}
    for t in range(first, last):
        before = jax.tree_util.tree_leaves_with_path(params(carry))
        carry = to(carry, t, t + 1)
        after = jax.tree.leaves(params(carry))
        watched["loss"].append(mine(read_out(program, inputs, carry)["final_loss"]))
        for (path, old), new in zip(before, after, strict=True):
            name = jax.tree_util.keystr(path) or "params"
            watched.setdefault(f"norm{name}", []).append(np.linalg.norm(np.ravel(old)))
            watched.setdefault(f"update{name}", []).append(np.linalg.norm(np.ravel(new - old)))
    carry = to(carry, last, job.steps + 1)
    return {name: np.asarray(values) for name, values in watched.items()}, mine(read_out(program, inputs, carry))


def _carry_at(job: Job, kept: Kept, block: Block, device: int) -> Carry:
    """The carry of a block of lanes that go on, as its program takes it."""
    like = job.programs[device].carry
    of_block = lambda x: x[np.ix_(block.points, block.seeds)]

    leaf = lambda x, like: on_device(np.swapaxes(of_block(x), 0, 1), like)
    curve = np.zeros(like.curve.shape, like.curve.dtype)
    curve[: kept.curve.shape[-1]] = np.transpose(of_block(kept.curve))
    return Carry(np.int32(job.begin), jax.tree.map(leaf, kept.lanes, like.lanes), curve, np.bool_(True))


def _is_key(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


# How long a segment should take: short enough for an interruption and for progress, long enough to cost nothing.
_SEGMENT_SECONDS = 0.5
_KEPT_SECONDS = 2.0  # where the lanes are written to disk at its end
_FIRST_SEGMENT = 64


class Finished(NamedTuple):
    """A block that has run."""

    job: Job
    block: Block
    output: dict[str, np.ndarray]  # name -> (seeds, points, ...)
    lanes: Packed | None  # before the last observation; None unless they are kept


class Part(NamedTuple):
    """A block of a tile."""

    job: Job
    block: Block
    number: int | None = None  # of the block in a run directory; None where there is none, or it is a part of one


class Tile(NamedTuple):
    """Blocks that a worker runs one after the other."""

    parts: list[Part]
    number: int = -1  # in a run directory


class Archive(Protocol):
    """Where workers leave tiles, and lanes on their way."""

    def take(self, tile: Tile) -> bool:
        """Whether to run a tile now; nobody else then does."""

    def checkpoint(self, tile: Tile, part: Part) -> Checkpoint | None:
        """Where a block's lanes are kept."""

    def write(self, tile: Tile, finished: list[Finished]) -> Callable[[], None]:
        """Keep a tile once what is returned has been called, which waits for the disk."""

    def is_done(self, tile: Tile) -> bool:
        """Whether somebody has kept a tile."""


class Ran(NamedTuple):
    """What became of a tile: `finished` of all its parts, or `failed` ones, or neither if it was not run to its end."""

    tile: Tile
    finished: list[Finished]
    failed: list[tuple[Part, Exception]]
    taken: bool = True  # False if it is left to somebody else for now


def tiles_of(job: Job, size: int) -> list[Tile]:
    """The blocks of a job as tiles of `size`."""
    parts = [Part(job, block) for block in job.blocks]
    return [Tile(parts[low : low + size]) for low in range(0, len(parts), size)]


def run_jobs(
    jobs: Iterable[Job],
    *,
    workers: int,
    tiles_of: Callable[[Job], list[Tile]],
    segment: int | None,
    report: Callable[[Block, int], None],
    narrower: Callable[[Job, Block], Job],
    executor: Executor | None = None,
    archive: Archive | None = None,
    stop: threading.Event | None = None,
) -> Iterator[Finished]:
    """Run the blocks of all jobs by workers that pull tiles from one queue; yields blocks as their tiles finish.

    The jobs are taken, and so compiled, in the caller's thread while the workers run those before. A block for which
    the device has no memory is run again as the job that `narrower` makes of it. `stop`, closing the iterator, or
    another error in a block ends every worker at the end of its segment. With an archive tiles are left there; those
    that somebody else works on come last.
    """
    queued: queue.SimpleQueue = queue.SimpleQueue()
    done: queue.SimpleQueue = queue.SimpleQueue()
    stop = _Leaving(stop)
    pool = executor or ThreadPoolExecutor(workers, thread_name_prefix="gdkit")
    crew = [pool.submit(_work, w, queued, done, segment, report, stop, archive) for w in range(workers)]

    def put(tiles: list[Tile]) -> int:
        for tile in tiles:
            queued.put(tile)
        return len(tiles)

    try:
        waiting, awaited, held = iter(jobs), 0, []
        while (job := next(waiting, None)) is not None or awaited or held:
            awaited += put(tiles_of(job)) if job is not None else 0
            while awaited and (job is None or not done.empty()):
                ran = done.get()
                awaited -= 1
                yield from ran.finished
                held += [] if ran.taken else [ran.tile]
                awaited += put(_mended(ran, narrower, archive)) if ran.failed else 0
            if job is None and held:
                awaited += put(_still_wanted(held, archive, stop))
                held = []
    finally:
        stop.set()
        for _ in crew:
            queued.put(None)
        wait(crew)
        if executor is None:
            pool.shutdown()


class _Leaving(threading.Event):
    """Set when the workers should leave, or when they were asked to from outside."""

    def __init__(self, asked: threading.Event | None):
        super().__init__()
        self._asked = asked

    def is_set(self) -> bool:
        return super().is_set() or (self._asked is not None and self._asked.is_set())


def _still_wanted(held: list[Tile], archive: Any, stop: threading.Event) -> list[Tile]:
    """Of tiles that others work on, after a while, those that are not done."""
    stop.wait(_PATIENCE)
    return [] if stop.is_set() else [tile for tile in held if not archive.is_done(tile)]


_PATIENCE = 1.0  # seconds between looks at what others work on


def _mended(ran: Ran, narrower: Callable[[Job, Block], Job], archive: Archive | None) -> list[Tile]:
    """The tiles to run after blocks failed for want of memory; any other error is raised."""
    parts: dict[int, list[Part]] = {}
    for part, error in ran.failed:
        if not is_out_of_memory(error) or part.job.lanes_a_block == 1:
            raise error
        parts[id(part)] = tiles_of(narrower(part.job, part.block), 2**30)[0].parts
    if archive is None:  # the others have run
        return [Tile([part]) for mended in parts.values() for part in mended]
    return [ran.tile._replace(parts=[p for part in ran.tile.parts for p in parts.get(id(part), [part])])]


def is_out_of_memory(error: Exception) -> bool:
    """Whether a device had no memory left; a CPU kills the process instead."""
    return isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)


def _work(
    worker: int,
    queued: queue.SimpleQueue,
    done: queue.SimpleQueue,
    segment: int | None,
    report: Callable[[Block, int], None],
    stop: threading.Event,
    archive: Archive | None,
) -> None:
    """Run tiles as they come. What a tile leaves in the archive is published while the next one runs."""
    with ThreadPoolExecutor(1, thread_name_prefix="gdkit-publish") as publisher:
        published: Future | None = None
        while (tile := queued.get()) is not None:
            try:
                if archive is not None and (stop.is_set() or not archive.take(tile)):
                    ran = Ran(tile, [], [], stop.is_set())
                else:
                    ran = _run_tile(worker, tile, segment, report, stop, archive)
                publish = archive.write(tile, ran.finished) if archive and ran.finished else None
            except Exception as error:  # it is raised again in the caller's thread
                ran, publish = _broken(tile, error), None
            if published is not None:
                wait([published])  # where the disk is slower than the lanes, they wait for it
            if publish is None:
                done.put(ran)
            else:
                published = publisher.submit(_published, ran, publish, done)


def _published(ran: Ran, publish: Callable[[], None], done: queue.SimpleQueue) -> None:
    try:
        publish()
    except Exception as error:  # it is raised again in the caller's thread
        ran = _broken(ran.tile, error)
    done.put(ran)


def _broken(tile: Tile, error: Exception) -> Ran:
    return Ran(tile, [], [(tile.parts[0], error)])


def _run_tile(
    worker: int,
    tile: Tile,
    segment: int | None,
    report: Callable[[Block, int], None],
    stop: threading.Event,
    archive: Archive | None,
) -> Ran:
    """Run the blocks of a tile; with an archive, all or none of them."""
    ran = Ran(tile, [], [])
    for part in tile.parts:
        job, block, _ = part
        checkpoint = archive.checkpoint(tile, part) if archive else None
        try:
            device = worker % len(job.programs)
            found = run_block(job, block, device, segment, functools.partial(report, block), stop, checkpoint)
        except Exception as error:  # it is raised again, or mended, in the caller's thread
            ran.failed.append((part, error))
            if is_out_of_memory(error):
                continue
            break
        if not found[0]:  # asked to stop
            return ran._replace(finished=[])
        ran.finished.append(Finished(job, block, *found))
    return ran._replace(finished=[]) if archive and ran.failed else ran
