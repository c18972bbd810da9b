"""Execution: programs that advance blocks of lanes, and workers that pull blocks from one queue."""

import functools
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor, wait
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gdkit import monitors
from gdkit.descent import Arrays, Lane, evaluate, keys_of, lane_map, start_lane
from gdkit.monitors import EndKind, Limits
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


class Program(NamedTuple):
    """Three pure functions over a block of lanes, an outer product of seeds and points.

    Lanes of one seed share their batches: the seed's key is not batched over the points.
    """

    start: Any  # (inputs, shared) -> lanes, each leaf (seeds, points, ...)
    advance: Any  # (inputs, shared, lanes, t0, t1, steps) -> lanes
    finish: Any  # (inputs, shared, lanes) -> name -> (seeds, points, ...)


def program_of(problem: Any, factory: Any, static: Mapping[str, Any], watched: Sequence[Monitor]) -> Program:
    """The program that advances lanes which share `static`."""

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

        def until(end: Array, body: Callable, carry: tuple[Array, Lane]) -> tuple[Array, Lane]:
            any_goes = lambda lanes: jnp.any(lanes.record.end_kind == EndKind.RUNNING)
            return jax.lax.while_loop(lambda carry: (carry[0] < end) & any_goes(carry[1]), body, carry)

        def body(carry: tuple[Array, Lane]) -> tuple[Array, Lane]:
            t, lanes = carry
            one = lambda point, key, lane: step(lane, point, t, key, shared.arrays.data, shared.limits, t == steps)
            return t + 1, over_block(one, inputs, keys, lanes)

        def window(carry: tuple[Array, Lane]) -> tuple[Array, Lane]:
            # windows of statistics move up between two loops, so that the inner one does not touch the older ones
            t, lanes = carry
            roll = lambda record: monitors.roll(watched, record)
            rolled = jax.lax.cond(monitors.starts_window(t), jax.vmap(jax.vmap(roll)), lambda r: r, lanes.record)
            end = jnp.minimum(t1, monitors.next_window(t))
            return until(end, body, (t, lanes._replace(record=rolled)))

        return until(t1, window, (t0, lanes))[1]

    def finish(inputs: Inputs, shared: Shared, lanes: Lane) -> dict[str, Array]:
        def one(point: dict, key: Key, lane: Lane) -> dict[str, Array]:
            read = monitors.read(watched, lane.record)
            return read | evaluate(problem, factory, point, lane.state, shared.arrays)

        return over_block(one, inputs, keys_in(inputs, shared)[1], lanes)

    return Program(start, advance, finish)


@functools.lru_cache(maxsize=32)
def _jitted(problem: Any, factory: Any, static: tuple, watched: tuple[Monitor, ...]) -> Program:
    program = program_of(problem, factory, dict(static), watched)
    return Program(*map(jax.jit, program))


class Block(NamedTuple):
    """The lanes that one call advances: a chunk of points for a chunk of seeds. The last of each is padded."""

    points: np.ndarray  # (points,) int, places in the group
    seeds: np.ndarray  # (seeds,) int


def blocks_of(points: int, seeds: int, width: int) -> list[Block]:
    """Cut the lanes of a group into blocks of one shape; all seeds of a chunk of points come one after the other.

    >>> [(b.points.tolist(), b.seeds.tolist()) for b in blocks_of(3, 2, 2)]
    [([0, 1], [0]), ([0, 1], [1]), ([2, 2], [0]), ([2, 2], [1])]
    """
    wide = min(width, points)
    deep = max(1, min(seeds, width // wide))
    return [Block(p, s) for p in _chunks(points, wide) for s in _chunks(seeds, deep)]


def _chunks(count: int, size: int) -> Iterator[np.ndarray]:
    for low in range(0, count, size):
        yield np.minimum(np.arange(low, low + size), count - 1)


class Job(NamedTuple):
    """A group, ready to run: compiled programs and placed arrays, one of each a device."""

    programs: list[Program]
    shared: list[Shared]
    traced: dict[str, np.ndarray]  # name -> (points,)
    steps: int
    blocks: list[Block]


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
) -> Job:
    """Compile the programs of a group and place its arrays, in the caller's thread."""
    try:
        program = _jitted(problem, factory, tuple(sorted(static.items())), tuple(watched))
    except TypeError:  # something static cannot be hashed, so this program is not remembered
        program = Program(*map(jax.jit, program_of(problem, factory, dict(static), watched)))
    shared = shared._replace(limits=Limits(*(np.asarray(x, dtype) for x in shared.limits)))
    placed = [jax.device_put(shared, device) for device in devices]
    job = Job([], placed, {n: v.astype(dtype) for n, v in traced.items()}, steps, blocks)
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
    advance = program.advance.lower(*inputs, lanes, step, step, step).compile()
    return Program(start, advance, program.finish.lower(*inputs, lanes).compile())


def _shape(x: Any, sharding: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)


def inputs_of(job: Job, block: Block, device: int = 0) -> tuple[Inputs, Shared]:
    """What the programs of `job` take for `block`, before the lanes."""
    traced = {name: values[block.points] for name, values in job.traced.items()}
    return Inputs(traced, block.points.astype(np.int32), block.seeds.astype(np.int32)), job.shared[device]


def run_block(
    job: Job, block: Block, device: int, segment: int, report: Callable[[int], None], stop: threading.Event
) -> dict[str, np.ndarray]:
    """Advance a block from its start to its end, segment by segment; empty if asked to stop on the way."""
    inputs, program = inputs_of(job, block, device), job.programs[device]
    lanes = program.start(*inputs)
    for t0 in range(0, job.steps + 1, segment):
        if stop.is_set():
            return {}
        t1 = min(t0 + segment, job.steps + 1)
        lanes = program.advance(*inputs, lanes, *map(np.int32, (t0, t1, job.steps)))
        going = bool(np.any(np.asarray(lanes.record.end_kind) == EndKind.RUNNING))  # waits for the segment
        report(min(t1, job.steps) - t0)
        if not going:
            report(job.steps - min(t1, job.steps))
            break
    return {name: np.asarray(value) for name, value in program.finish(*inputs, lanes).items()}


class Finished(NamedTuple):
    """A block that has run."""

    job: int  # the number of its job
    block: Block
    output: dict[str, np.ndarray]  # name -> (seeds, points, ...)


def run_jobs(
    jobs: Iterable[Job],
    *,
    workers: int,
    tile: int,
    segment: int,
    report: Callable[[Block, int], None],
    executor: Executor | None = None,
) -> Iterator[Finished]:
    """Run the blocks of all jobs by workers that pull tiles from one queue; yields blocks as they finish.

    The jobs are taken, and so compiled, in the caller's thread while the workers run those before. Closing the
    iterator, or an error in a block, ends every worker at the end of its segment.
    """
    tiles: queue.SimpleQueue = queue.SimpleQueue()
    done: queue.SimpleQueue = queue.SimpleQueue()
    stop = threading.Event()
    pool = executor or ThreadPoolExecutor(workers, thread_name_prefix="gdkit")
    crew = [pool.submit(_work, worker, tiles, done, segment, report, stop) for worker in range(workers)]
    awaited = 0
    try:
        for number, job in enumerate(jobs):
            for low in range(0, len(job.blocks), tile):
                tiles.put((number, job, job.blocks[low : low + tile]))
            awaited += len(job.blocks)
            while not done.empty():
                awaited -= 1
                yield _result_of(done.get())
        for _ in range(awaited):
            yield _result_of(done.get())
    finally:
        stop.set()
        for _ in crew:
            tiles.put(None)
        wait(crew)
        if executor is None:
            pool.shutdown()


def _work(
    worker: int,
    tiles: queue.SimpleQueue,
    done: queue.SimpleQueue,
    segment: int,
    report: Callable[[Block, int], None],
    stop: threading.Event,
) -> None:
    while (tile := tiles.get()) is not None:
        number, job, blocks = tile
        for block in blocks:
            try:
                output = run_block(
                    job, block, worker % len(job.programs), segment, functools.partial(report, block), stop
                )
                done.put(Finished(number, block, output))
            except Exception as error:  # it is raised again in the caller's thread
                done.put(error)


def _result_of(finished: Any) -> Finished:
    if isinstance(finished, Exception):
        raise finished
    return finished
