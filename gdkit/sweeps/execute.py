"""Execution: programs that advance blocks of lanes, and workers that pull blocks from one queue."""

import functools
import hashlib
import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor, wait
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gdkit import monitors
from gdkit.descent import Arrays, Lane, evaluate, keys_of, lane_map, start_lane
from gdkit.monitors import EndKind, Limits
from gdkit.sweeps.plan import Shape, visible_cores
from gdkit.types import Array, Key, Monitor, PyTree


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


class Program(NamedTuple):
    """Three pure functions over a block of lanes, an outer product of seeds and points.

    Lanes of one seed share their batches: the seed's key is not batched over the points.
    """

    start: Any  # (inputs, shared) -> lanes, each leaf (seeds, points, ...)
    advance: Any  # (inputs, shared, lanes, t0, t1, steps) -> lanes
    finish: Any  # (inputs, shared, lanes) -> name -> (seeds, points, ...)
    fingerprint: str = ""  # of the compiled: equal for what computes the same on the same device with the same versions
    lanes: Any = None  # of the compiled: the shapes of its lanes


def program_of(
    problem: Any, factory: Any, static: Mapping[str, Any], watched: Sequence[Monitor], unroll: int = 1
) -> Program:
    """The program that advances lanes which share `static`, `unroll` steps at a time."""

    def keys_in(inputs: Inputs, shared: Shared) -> tuple[Key, Key]:
        return jax.vmap(lambda seed: keys_of(jax.random.fold_in(shared.key, seed)))(inputs.seeds)

    def over_block(f: Callable, inputs: Inputs, keys: Key, *lanes: Lane) -> Any:
        one = lambda point, key, *lane: f({**static, **point[0]}, key, *lane)
        along_points = jax.vmap(one, in_axes=(0, None, *(0 for _ in lanes)))
        return jax.vmap(along_points, in_axes=(None, 0, *(0 for _ in lanes)))(inputs[:2], keys, *lanes)

    def start(inputs: Inputs, shared: Shared) -> Lane:
        one = lambda point, key: start_lane(problem, factory, watched, point, key, shared.arrays)
        return over_block(one, inputs, keys_in(inputs, shared)[0])

    def advance(inputs: Inputs, shared: Shared, lanes: Lane, t0: Array, t1: Array, steps: Array) -> Lane:
        step = lane_map(problem, factory, watched)
        _, keys = keys_in(inputs, shared)  # made here, not at every step

        def until(end: Array, body: Callable, carry: tuple[Array, Lane], stride: int = 1) -> tuple[Array, Lane]:
            any_goes = lambda lanes: jnp.any(lanes.record.end_kind == EndKind.RUNNING)
            return jax.lax.while_loop(lambda carry: (carry[0] <= end - stride) & any_goes(carry[1]), body, carry)

        def body(carry: tuple[Array, Lane]) -> tuple[Array, Lane]:
            t, lanes = carry
            one = lambda point, key, lane: step(lane, point, t, key, shared.arrays.data, shared.limits, t == steps)
            return t + 1, over_block(one, inputs, keys, lanes)

        def stride(carry: tuple[Array, Lane]) -> tuple[Array, Lane]:
            for _ in range(unroll):
                carry = body(carry)
            return carry

        def window(carry: tuple[Array, Lane]) -> tuple[Array, Lane]:
            # windows of statistics move up between two loops, so that the inner one does not touch the older ones
            t, lanes = carry
            roll = lambda record: monitors.roll(watched, record)
            rolled = jax.lax.cond(monitors.starts_window(t), jax.vmap(jax.vmap(roll)), lambda r: r, lanes.record)
            end = jnp.minimum(t1, monitors.next_window(t))
            carry = t, lanes._replace(record=rolled)
            return until(end, body, until(end, stride, carry, unroll) if unroll > 1 else carry)

        return until(t1, window, (t0, lanes))[1]

    def finish(inputs: Inputs, shared: Shared, lanes: Lane) -> dict[str, Array]:
        def one(point: dict, key: Key, lane: Lane) -> dict[str, Array]:
            read = monitors.read(watched, lane.record)
            return read | evaluate(problem, factory, point, lane.state, shared.arrays)

        return over_block(one, inputs, keys_in(inputs, shared)[1], lanes)

    return Program(start, advance, finish)


@functools.lru_cache(maxsize=32)
def _jitted(problem: Any, factory: Any, static: tuple, watched: tuple[Monitor, ...], unroll: int) -> Program:
    return _jit(program_of(problem, factory, dict(static), watched, unroll))


def _jit(program: Program) -> Program:
    return Program(jax.jit(program.start), jax.jit(program.advance), jax.jit(program.finish))


class Block(NamedTuple):
    """The lanes that one call advances: a chunk of points for a chunk of seeds. The last of each is padded."""

    points: np.ndarray  # (points,) int, places in the group
    seeds: np.ndarray  # (seeds,) int


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


class Job(NamedTuple):
    """A group, ready to run: compiled programs and placed arrays, one of each a device."""

    programs: list[Program]
    shared: list[Shared]
    traced: dict[str, np.ndarray]  # name -> (points,)
    steps: int
    blocks: list[Block]  # all of one shape
    group: int = 0  # its number in the sweep
    begin: int = 0  # the step at which its lanes go on
    carry: PyTree = None  # lanes that go on, each leaf (points, seeds, ...); None where they start
    keep: bool = False  # whether the lanes are kept, so that they can go on after the last step
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
    watched: Sequence[Monitor],
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
        program = _jitted(problem, factory, tuple(sorted(static.items())), tuple(watched), unroll)
    except TypeError:  # something static cannot be hashed, so this program is not remembered
        program = _jit(program_of(problem, factory, dict(static), watched, unroll))
    shared = shared._replace(limits=Limits(*(np.asarray(x, dtype) for x in shared.limits)))
    placed = [jax.device_put(shared, device) for device in devices]
    job = Job([], placed, {n: v.astype(dtype) for n, v in traced.items()}, steps, blocks, group, pace=[_FIRST_SEGMENT])
    programs = []
    for number, device in enumerate(devices):
        leaves, treedef = jax.tree.flatten(inputs_of(job, blocks[0], number))
        on = jax.sharding.SingleDeviceSharding(device)
        programs.append(_compiled(program, treedef, tuple(_shape(x, on) for x in leaves)))
    return job._replace(programs=programs)


# The start runs once a block, and its random numbers would take a second to optimise.
_ONCE = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}


@functools.lru_cache(maxsize=64)
def _compiled(program: Program, treedef: Any, shapes: tuple[Any, ...]) -> Program:
    """The program's executables for blocks of these inputs; compiled once a program, shape and device."""
    inputs, on = jax.tree.unflatten(treedef, shapes), shapes[0].sharding
    start = program.start.lower(*inputs).compile(compiler_options=_ONCE)
    lanes = jax.tree.map(lambda x: _shape(x, on), jax.eval_shape(program.start, *inputs))
    step = jax.ShapeDtypeStruct((), jnp.int32, sharding=on)
    advance = program.advance.lower(*inputs, lanes, step, step, step)
    finish = program.finish.lower(*inputs, lanes)
    return Program(start, advance.compile(), finish.compile(), _fingerprint(advance.as_text(), on), lanes)


def _fingerprint(program: str, on: Any) -> str:
    """A hash of a lowered program, without locations, and of all else that decides what it computes and how fast."""
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


def run_block(
    job: Job, block: Block, device: int, segment: int | None, report: Callable[[int], None], stop: threading.Event
) -> tuple[dict[str, np.ndarray], PyTree]:
    """Advance a block to its end, segment by segment: what its lanes read, and the lanes before the last observation.

    Nothing if asked to stop on the way.
    """
    inputs, program = inputs_of(job, block, device), job.programs[device]
    lanes = program.start(*inputs) if job.carry is None else _lanes_at(job, block, device)
    pace = [segment] if segment or job.pace is None else job.pace
    t0, size = job.begin, pace[0] or _FIRST_SEGMENT
    while t0 < job.steps:
        if stop.is_set():
            return {}, None
        begin, t1 = time.monotonic(), min(t0 + size, job.steps)
        lanes = program.advance(*inputs, lanes, *map(np.int32, (t0, t1, job.steps)))
        going = bool(np.any(np.asarray(lanes.record.end_kind) == EndKind.RUNNING))  # waits for the segment
        report(t1 - t0 if going else job.steps - t0)
        if segment is None:
            fitting = (t1 - t0) * _SEGMENT_SECONDS / max(time.monotonic() - begin, 1e-4)
            pace[0] = size = max(1, min(int(fitting), 32 * size, 2**30))
        t0 = t1 if going else job.steps
    carry = jax.tree.map(_stored, lanes) if job.keep else None
    lanes = program.advance(*inputs, lanes, *map(np.int32, (job.steps, job.steps + 1, job.steps)))
    return {name: np.asarray(value) for name, value in program.finish(*inputs, lanes).items()}, carry


def replay(
    job: Job, block: Block, at: tuple[int, int], onset: int, around: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Run a block again and watch one lane, at place `at` of it, step by step around `onset`.

    Steps are single calls of the same program, and so change nothing. Returns the loss and each leaf's norm of params
    and of their change, (watched steps,), with ``step``; and all that the lane reads at its end.
    """
    inputs, program = inputs_of(job, block), job.programs[0]
    advance = lambda lanes, t0, t1: program.advance(*inputs, lanes, *map(np.int32, (t0, t1, job.steps)))
    mine = lambda tree: jax.tree.map(lambda x: np.asarray(x)[at], tree)
    first, last = max(0, onset - around), min(onset + around + 1, job.steps)
    lanes = advance(program.start(*inputs), 0, first)
    watched: dict[str, list] = {"step": list(range(first, last)), "loss": []}
    for t in range(first, last):
        before = jax.tree_util.tree_leaves_with_path(mine(lanes.state.params))
        lanes = advance(lanes, t, t + 1)
        after = jax.tree.leaves(mine(lanes.state.params))
        watched["loss"].append(mine(program.finish(*inputs, lanes)["final_loss"]))
        for (path, old), new in zip(before, after, strict=True):
            name = jax.tree_util.keystr(path) or "params"
            watched.setdefault(f"norm{name}", []).append(np.linalg.norm(np.ravel(old)))
            watched.setdefault(f"update{name}", []).append(np.linalg.norm(np.ravel(new - old)))
    lanes = advance(lanes, last, job.steps + 1)
    return {name: np.asarray(values) for name, values in watched.items()}, mine(program.finish(*inputs, lanes))


def _stored(x: Array) -> np.ndarray:
    """A leaf (seeds, points, ...) of lanes as (points, seeds, ...) on the host; of keys their data."""
    return np.swapaxes(np.asarray(jax.random.key_data(x) if _is_key(x) else x), 0, 1)


def _lanes_at(job: Job, block: Block, device: int) -> Lane:
    """The kept lanes of a block, as its program takes them."""

    def leaf(x: np.ndarray, like: Any) -> Any:
        rows = np.swapaxes(x[np.ix_(block.points, block.seeds)], 0, 1)
        if not _is_key(like):
            return rows
        return jax.device_put(
            jax.random.wrap_key_data(rows, impl=jax.random.key_impl(jnp.empty((), like.dtype))), like.sharding
        )

    return jax.tree.map(leaf, job.carry, job.programs[device].lanes)


def _is_key(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


# How long a segment should take: short enough for an interruption and for progress, long enough to cost nothing.
_SEGMENT_SECONDS = 0.5
_FIRST_SEGMENT = 64


class Finished(NamedTuple):
    """A block that has run."""

    job: Job
    block: Block
    output: dict[str, np.ndarray]  # name -> (seeds, points, ...)
    carry: PyTree  # its lanes before the last observation, each leaf (points, seeds, ...); None unless they are kept


class Failed(NamedTuple):
    """A block that has not."""

    job: Job
    block: Block
    error: Exception


def run_jobs(
    jobs: Iterable[Job],
    *,
    workers: int,
    tile: int,
    segment: int | None,
    report: Callable[[Block, int], None],
    narrower: Callable[[Job, Block], Job],
    executor: Executor | None = None,
) -> Iterator[Finished]:
    """Run the blocks of all jobs by workers that pull tiles from one queue; yields blocks as they finish.

    The jobs are taken, and so compiled, in the caller's thread while the workers run those before. A block for which
    the device has no memory is run again as the job that `narrower` makes of it. Closing the iterator, or another error
    in a block, ends every worker at the end of its segment.
    """
    tiles: queue.SimpleQueue = queue.SimpleQueue()
    done: queue.SimpleQueue = queue.SimpleQueue()
    stop = threading.Event()
    pool = executor or ThreadPoolExecutor(workers, thread_name_prefix="gdkit")
    crew = [pool.submit(_work, worker, tiles, done, segment, report, stop) for worker in range(workers)]

    def put(job: Job) -> int:
        for low in range(0, len(job.blocks), tile):
            tiles.put((job, job.blocks[low : low + tile]))
        return len(job.blocks)

    try:
        waiting, awaited = iter(jobs), 0
        while (job := next(waiting, None)) is not None or awaited:
            awaited += put(job) if job is not None else 0
            while awaited and (job is None or not done.empty()):
                found = done.get()
                awaited -= 1
                if isinstance(found, Finished):
                    yield found
                elif is_out_of_memory(found.error) and found.job.lanes_a_block > 1:
                    awaited += put(narrower(found.job, found.block))
                else:
                    raise found.error
    finally:
        stop.set()
        for _ in crew:
            tiles.put(None)
        wait(crew)
        if executor is None:
            pool.shutdown()


def is_out_of_memory(error: Exception) -> bool:
    """Whether a device had no memory left; a CPU kills the process instead."""
    return isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)


def _work(
    worker: int,
    tiles: queue.SimpleQueue,
    done: queue.SimpleQueue,
    segment: int | None,
    report: Callable[[Block, int], None],
    stop: threading.Event,
) -> None:
    while (tile := tiles.get()) is not None:
        job, blocks = tile
        for block in blocks:
            try:
                device = worker % len(job.programs)
                found = run_block(job, block, device, segment, functools.partial(report, block), stop)
                done.put(Finished(job, block, *found))
            except Exception as error:  # it is raised again, or mended, in the caller's thread
                done.put(Failed(job, block, error))
