"""Tiles run by the processes of an executor, on this machine or on others.

Every task carries the pickled sweep (a large one lies in a file, see `Pool.share`). A worker keeps the last two sweeps,
so that it traces and compiles each once. With a run directory a worker writes its tiles there; without one it returns
the values that its lanes report.
"""

import collections
import contextlib
import dataclasses
import hashlib
import os
import pickle
import sys
import threading
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from typing import Any, NamedTuple

import jax
import numpy as np
from jax._src import xla_bridge  # no public function says whether JAX has read XLA_FLAGS yet

from gdkit.errors import GdkitWarning, RunError, bad_value
from gdkit.problems import Learner, Problem
from gdkit.sweeps.execution import threads
from gdkit.sweeps.execution.executors import Pool, SentSweep
from gdkit.sweeps.execution.jobs import JobCompiler
from gdkit.sweeps.execution.settings import DEFAULT_SETTINGS, ExecutionSettings
from gdkit.sweeps.plan.blocks import Block
from gdkit.sweeps.plan.shapes import Shape
from gdkit.sweeps.programs.groups import build_job, trace_groups
from gdkit.sweeps.programs.job import Job
from gdkit.sweeps.programs.tiles import FinishedBlock, Tile, TileBlock
from gdkit.sweeps.request import SweepRequest, select_devices
from gdkit.sweeps.rundir.archive import RunArchive

# The options of JAX that a worker sets as here before it traces anything.
_JAX_OPTIONS = (
    "jax_enable_x64", "jax_default_prng_impl", "jax_default_matmul_precision", "jax_threefry_partitionable",
    "jax_numpy_dtype_promotion", "jax_numpy_rank_promotion", "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs", "jax_persistent_cache_min_entry_size_bytes",
)  # fmt: skip


class Task(NamedTuple):
    """Tiles for a worker."""

    group: int
    shape: Shape
    fingerprint: str  # of the program that must run
    numbers: tuple[int, ...] = ()  # of the tiles in a run directory
    blocks: tuple[tuple[Block, ...], ...] = ()  # of each tile, without a run directory


# In a worker


def run_tiles(sent: SentSweep, task: Task) -> list[tuple[Block, dict[str, np.ndarray]]]:
    """Run tiles in a worker, and return their blocks with the values that lanes report.

    No blocks if the worker was asked to stop before; no values where they are in a run directory.

    Raises:
      RunError: this worker compiles another program than the process that sent the task.
    """
    sweep, stop = _worker_sweep(sent), threads.LinkedEvent(sent.stop_file.exists if sent.stop_file else None)
    finished = threads.run_jobs(
        [sweep.job(task)], cut_tiles=lambda job: sweep.cut_tiles(job, task), workers=1,
        segment_steps=sweep.request.plan.segment, report=lambda *_: None, halve_block=sweep.compiler.halve_block,
        archive=sweep.archive, stop=stop, settings=sweep.settings,
    )  # fmt: skip
    return [(f.block, {} if sweep.archive else f.output) for f in finished]


class _WorkerSweep:
    """A sweep that a worker has traced, and its compiled jobs."""

    def __init__(self, sent: SentSweep):
        sys.path.extend(path for path in sent.import_paths if path not in sys.path and os.path.isdir(path))
        if not xla_bridge.backends_are_initialized():
            os.environ["XLA_FLAGS"] = sent.xla_flags  # XLA reads it once; `job` raises if it already had other flags
        for name, value in sent.jax_options.items():
            if getattr(jax.config, name) != value:
                jax.config.update(name, value)
        self.request, self.settings = _unpickle(sent.file.read_bytes() if sent.file else sent.pickled)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", GdkitWarning)  # the process that sent it has warned
            groups = list(trace_groups(self.request))
        self.compiler = JobCompiler(self.request, groups, select_devices(self.request.plan)[:1], workers=1)
        open_store = self.settings.store_class.open
        self.archive = RunArchive(open_store(sent.directory), self.request.recorded_points) if sent.directory else None
        self._jobs: dict[tuple[int, Shape], Job] = {}

    def job(self, task: Task) -> Job:
        """The job of a task, compiled once."""
        with _lock:
            job = self._jobs.get((task.group, task.shape))
            if job is None:
                job = build_job(self.request, self.compiler.groups[task.group], self.compiler.devices, task.shape)
                job = job._replace(returns_lanes=bool(self.archive and self.archive.stores_lanes))
                self._jobs[task.group, task.shape] = job
        if job.programs[0].fingerprint != task.fingerprint:
            raise RunError(
                "a worker compiles another program than the process that sent it, and would compute other bits: its "
                "versions, its cores or its flags differ. Give all workers the same environment."
            )
        return job

    def cut_tiles(self, job: Job, task: Task) -> list[Tile]:
        """The tiles of a task."""
        if self.archive:
            return [self.archive.tile(job, number) for number in task.numbers]
        return [Tile([TileBlock(job, block) for block in blocks]) for blocks in task.blocks]


_lock = threading.RLock()  # a worker may have threads
_worker_sweeps: dict[str, _WorkerSweep] = {}  # the last two, by digest


def _worker_sweep(sent: SentSweep) -> _WorkerSweep:
    with _lock:
        if sent.digest not in _worker_sweeps:
            while len(_worker_sweeps) > 1:
                _worker_sweeps.pop(next(iter(_worker_sweeps)))
            _worker_sweeps[sent.digest] = _WorkerSweep(sent)
        return _worker_sweeps[sent.digest]


# Pickling


def pack_sweep(
    request: SweepRequest, archive: RunArchive | None = None, settings: ExecutionSettings = DEFAULT_SETTINGS
) -> SentSweep:
    """A sweep for workers.

    Raises:
      InputValueError: some part of it cannot be pickled.
    """
    pickled = _pickle(request, settings)
    jax_options = {name: getattr(jax.config, name) for name in _JAX_OPTIONS}
    directory = archive.run.path.resolve() if archive else None
    stop_file = archive.run.stop_file(uuid.uuid4().hex).resolve() if archive else None
    xla_flags = os.environ.get("XLA_FLAGS", "")
    rest = jax_options, xla_flags, directory, archive and archive.run.run
    digest = hashlib.sha256(pickled + repr(rest).encode()).hexdigest()
    return SentSweep(digest, pickled, jax_options, xla_flags, tuple(sys.path), directory, stop_file)


def _pickle(request: SweepRequest, settings: ExecutionSettings) -> bytes:
    key = str(jax.random.key_impl(request.key)), np.asarray(jax.random.key_data(request.key))
    try:
        return settings.dumps(({**request._asdict(), "key": None}, key, settings))
    except Exception as error:  # pickling runs code of every kind
        name, value = next(_unpicklable_parts(request, settings), ("problem", request.problem))
        remedy = "Install cloudpickle, or define it in a module" if settings.dumps is pickle.dumps else f"{error}"
        raise bad_value(name, value, "it cannot be sent to another process", remedy) from error


def _unpickle(pickled: bytes) -> tuple[SweepRequest, ExecutionSettings]:
    request, (impl, data), settings = pickle.loads(pickled)
    return SweepRequest(**{**request, "key": jax.random.wrap_key_data(data, impl=impl)}), settings


def _unpicklable_parts(request: SweepRequest, settings: ExecutionSettings) -> Iterator[tuple[str, Any]]:
    """The parts of a sweep that cannot be pickled, by the names of arguments."""
    problem = request.problem
    parts: dict[str, Any]
    if isinstance(problem, Problem | Learner):
        parts = {f"problem.{name}": value for name, value in vars(problem).items()}
    else:
        parts = {"problem": problem}
    for section in request.sections:
        parts["optimizer" if section.label is None else f"axes['optimizer'][{section.label!r}]"] = section
    parts |= {f"monitors[{i}]": monitor for i, monitor in enumerate(request.monitors)}
    for name, value in parts.items():
        try:
            settings.dumps(value)
        except Exception:  # as above
            yield name, value


# In the process that sends


def run_jobs(
    jobs: Iterable[Job],
    *,
    cut_tiles: Callable[[Job], list[Tile]],
    pool: Pool,
    request: SweepRequest,
    lanes_of: Callable[[Tile], np.ndarray],
    report: Callable[[Block, int], None],
    archive: RunArchive | None,
    stop: threading.Event,
    settings: ExecutionSettings,
) -> Iterator[FinishedBlock]:
    """Run the tiles of all jobs in the processes of a pool; yields blocks as their tiles finish.

    A tile whose worker dies is run again alone. If its worker dies twice more, the tile has failed: the other tiles are
    run, and the error names it.

    Raises:
      RunError: tiles have failed.
    """
    sent = pack_sweep(request, archive, settings)
    scheduler = _TileScheduler(pool, sent, archive, stop, report, settings.claim_poll_seconds)
    try:
        for job in jobs:
            scheduler.add(cut_tiles(job))
            yield from scheduler.collect_finished(seconds=0.0)
        while scheduler.is_busy:
            yield from scheduler.collect_finished(settings.claim_poll_seconds)
    finally:
        scheduler.close()
    if scheduler.failed:
        failed = "; ".join(f"tile {t.number}" * (t.number >= 0) + _list_lanes(lanes_of(t)) for t in scheduler.failed)
        others = "All other tiles are finished" if archive else "With store=DIR the other tiles would have been stored"
        raise RunError(f"workers died of {failed}. {others}. Look at memory, and at what the loss calls.")


def _list_lanes(lanes: np.ndarray) -> str:
    shown = ", ".join(map(str, lanes[:8])) + (", …" if len(lanes) > 8 else "")
    return f" (lane{'s' * (len(lanes) > 1)} {shown})"


def _group_tiles(tiles: list[Tile], size: int) -> list[list[Tile]]:
    """The tiles of each task: one, or with batches from the host the share of a process, which reads each once."""
    if not tiles or tiles[0].parts[0].job.source is None:
        return [[tile] for tile in tiles]
    tiles = sorted(tiles, key=lambda tile: int(tile.parts[0].block.seeds[0]))
    share = -(-len(tiles) // size)
    return [tiles[low : low + share] for low in range(0, len(tiles), share)]


_MOST_RETRIES = 2  # deaths of the worker of a tile that runs alone, after which the tile has failed
_MOST_DEATHS = 6  # deaths in a row without a finished tile, beyond which the cause is no tile


@dataclasses.dataclass(eq=False)
class _TileScheduler:
    """Submits tiles to a pool, and submits them again if their workers died."""

    pool: Pool
    sent: SentSweep
    archive: RunArchive | None
    stop: threading.Event
    report: Callable[[Block, int], None]
    claim_poll_seconds: float

    def __post_init__(self):
        self._shared = self.pool.share(self.sent)
        self._waiting: collections.deque[list[Tile]] = collections.deque()  # by task
        self._retries: collections.deque[Tile] = collections.deque()  # their workers died
        self._claimed_elsewhere: list[Tile] = []
        self._running: dict[Future, list[Tile]] = {}
        self._retried: Tile | None = None  # the one that runs now or ran last
        self._retry_deaths: collections.Counter = collections.Counter()  # by the id of a tile
        self._is_broken, self._deaths = False, 0
        self.failed: list[Tile] = []

    @property
    def is_busy(self) -> bool:
        """Whether any tile runs or waits."""
        return bool(self._running or self._waiting or self._retries or self._claimed_elsewhere)

    def add(self, tiles: list[Tile]) -> None:
        """Append tiles to those that wait."""
        self._waiting.extend(_group_tiles(tiles, self.pool.size))

    def collect_finished(self, seconds: float) -> Iterator[FinishedBlock]:
        """Start tiles, and yield the blocks of those that finish within so many seconds."""
        self._start_tiles()
        for future in wait(self._running, seconds, FIRST_COMPLETED).done:
            tiles = self._running.pop(future)
            try:
                outputs = future.result()
            except (*self.pool.worker_errors, CancelledError) as error:
                self._retry(tiles, error)
                continue
            self._deaths = 0
            if self.archive:
                for tile in tiles:
                    self.archive.release(tile.number)
            for block, output in outputs:
                job = tiles[0].parts[0].job
                self.report(block, job.steps)
                yield FinishedBlock(job, Block(*block), output, None)

    def close(self) -> None:
        """Ask running tiles to stop, and wait for them."""
        if self._running:
            self._ask_to_stop()
            wait(self._running)
        if self.sent.stop_file:
            with contextlib.suppress(OSError):
                self.sent.stop_file.unlink()
        self.pool.close()

    def _start_tiles(self) -> None:
        """Start as many tiles as the pool runs at once; tiles to retry run one by one, each alone."""
        if self.stop.is_set():
            self._discard_waiting()
        if self._retries:
            if not self._running:
                self._retried = self._retries.popleft()
                self._start([self._retried])
            return
        while self._waiting and len(self._running) < 2 * self.pool.size:
            tiles = self._waiting.popleft()
            taken: list[Tile] = []
            for tile in tiles:
                is_taken = not self.archive or self.archive.take(tile.number)
                (taken if is_taken else self._claimed_elsewhere).append(tile)
            if taken:
                self._start(taken)
        if self.archive and self._claimed_elsewhere and not self._running:
            self.stop.wait(self.claim_poll_seconds)
            self._waiting.extend([t] for t in self._claimed_elsewhere if not self.archive.is_done(t.number))
            self._claimed_elsewhere.clear()

    def _start(self, tiles: list[Tile]) -> None:
        (job, block, _), *_ = tiles[0].parts
        numbers = tuple(tile.number for tile in tiles) if self.archive else ()
        blocks = () if self.archive else tuple(tuple(part.block for part in tile.parts) for tile in tiles)
        task = Task(job.group, job.shape, job.programs[0].fingerprint, numbers, blocks)
        try:
            if self._is_broken:
                self.pool.restart()
                self._shared, self._is_broken = self.pool.share(self.sent), False
            self._running[self.pool.submit(run_tiles, self._shared, task)] = tiles
            self.report(block, 0)
        except self.pool.worker_errors as error:
            self._retry(tiles, error)

    def _retry(self, tiles: list[Tile], error: BaseException) -> None:
        """Put tiles whose worker died, or that were cancelled, among those to retry, or among those that failed."""
        if self.stop.is_set():
            return
        self._is_broken = True
        self._deaths += 1
        if self._deaths > _MOST_DEATHS + 2 * self.pool.size:
            remedy = "A script must start its work under if __name__ == '__main__'. Look at what the workers print"
            raise RunError(f"workers die before any tile finishes: {error}. {remedy}.") from error
        for tile in tiles:
            self._retry_deaths[id(tile)] += tile is self._retried
            (self.failed if self._retry_deaths[id(tile)] >= _MOST_RETRIES else self._retries).append(tile)

    def _discard_waiting(self) -> None:
        """Discard the tiles that wait, and ask the running ones to stop."""
        self._waiting.clear()
        self._retries.clear()
        self._claimed_elsewhere.clear()
        self._ask_to_stop()

    def _ask_to_stop(self) -> None:
        """Ask workers to stop at the end of their segments; without a run directory, cancel tasks that wait."""
        if self.sent.stop_file:
            with contextlib.suppress(OSError):
                self.sent.stop_file.touch()
        else:
            self._running = {future: tile for future, tile in self._running.items() if not future.cancel()}
