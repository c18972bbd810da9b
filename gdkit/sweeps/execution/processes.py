"""Tiles run by the processes of an executor, on this machine or on others.

A worker is sent the sweep with every task, pickled (a large one lies in a file, see `Pool.place`), and keeps what it
made of the last ones: it traces and compiles once. With a run directory it leaves tiles there and only says so; without
one, what its lanes read comes back.
"""

import collections
import contextlib
import hashlib
import os
import pickle
import sys
import threading
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax._src import xla_bridge  # no public function says whether JAX has read XLA_FLAGS yet

from gdkit.errors import GdkitWarning, RunError, bad_value
from gdkit.problems import Problem
from gdkit.store import Store
from gdkit.sweeps.execution import threads
from gdkit.sweeps.execution.executors import Pool
from gdkit.sweeps.execution.jobs import JobCompiler
from gdkit.sweeps.plan.blocks import Block
from gdkit.sweeps.plan.shapes import Shape
from gdkit.sweeps.programs.groups import build_job, trace_groups
from gdkit.sweeps.programs.job import Job
from gdkit.sweeps.programs.tiles import FinishedBlock, Tile, TileBlock
from gdkit.sweeps.request import SweepRequest, select_devices
from gdkit.sweeps.rundir.archive import RunArchive

# What a worker sets as here before it traces anything.
_SETTINGS = (
    "jax_enable_x64", "jax_default_prng_impl", "jax_default_matmul_precision", "jax_threefry_partitionable",
    "jax_numpy_dtype_promotion", "jax_numpy_rank_promotion", "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs", "jax_persistent_cache_min_entry_size_bytes",
)  # fmt: skip


class SentSweep(NamedTuple):
    """A sweep on its way to workers."""

    digest: str
    pickled: bytes  # a Sweep, its key as numbers
    settings: dict[str, Any]  # of JAX
    flags: str  # of XLA
    paths: tuple[str, ...]  # where modules are found
    directory: Path | None  # the run directory
    asked: Path | None  # a file that is there once workers should stop
    file: Path | None = None  # has what `pickled` would have


class Task(NamedTuple):
    """A tile for a worker."""

    group: int
    shape: Shape
    fingerprint: str  # of the program that must run
    number: int  # in a run directory, else -1
    blocks: tuple[Block, ...]


class Read(NamedTuple):
    """What a block's lanes read; nothing where they are in a run directory."""

    block: Block
    output: dict[str, np.ndarray]


# The worker's side


def run_tile(sent: SentSweep, task: Task) -> list[Read] | None:
    """Run a tile in a worker; None if it was asked to stop before the end.

    Raises:
      RunError: this worker compiles another program than the one that sent the task.
    """
    crew = _crew_of(sent)
    stop = _StopRequest(sent.asked)
    finished = threads.run_jobs(
        [crew.job(task)], tiles_of=lambda job: [crew.tile(job, task)], workers=1, segment=crew.request.plan.segment,
        report=lambda *_: None, narrower=crew.planned.narrower, archive=crew.archive, stop=stop,
    )  # fmt: skip
    read = [Read(f.block, {} if crew.archive else f.output) for f in finished]
    return read or None


class _StopRequest(threading.Event):
    """Set, or asked for by a file."""

    def __init__(self, file: Path | None):
        super().__init__()
        self._file = file

    def is_set(self) -> bool:
        return super().is_set() or (self._file is not None and self._file.exists())


class _WorkerSweep:
    """A sweep as a worker keeps it."""

    def __init__(self, sent: SentSweep):
        sys.path.extend(path for path in sent.paths if path not in sys.path and os.path.isdir(path))
        if not xla_bridge.backends_are_initialized():
            os.environ["XLA_FLAGS"] = sent.flags  # read once; where it is too late, `job` finds out
        for name, value in sent.settings.items():
            if getattr(jax.config, name) != value:
                jax.config.update(name, value)
        self.request = _unpickled(sent.file.read_bytes() if sent.file else sent.pickled)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", GdkitWarning)  # who sent it has warned
            prepared = list(trace_groups(self.request))
        self.planned = JobCompiler(self.request, prepared, select_devices(self.request.plan)[:1], workers=1)
        self.archive = RunArchive(Store.open(sent.directory), self.request.recorded_points) if sent.directory else None
        self._jobs: dict[tuple[int, Shape], Job] = {}

    def job(self, task: Task) -> Job:
        """The job of a task, compiled once."""
        with _lock:
            job = self._jobs.get((task.group, task.shape))
            if job is None:
                job = build_job(self.request, self.planned.prepared[task.group], self.planned.devices, task.shape)
                job = job._replace(returns_lanes=bool(self.archive and self.archive.keeps_lanes))
                self._jobs[task.group, task.shape] = job
        if job.programs[0].fingerprint != task.fingerprint:
            text = "a worker compiles another program: it has other versions, another kind or number of cores or flags"
            raise RunError(f"{text}, and so would not compute the same. Give all workers the same environment.")
        return job

    def tile(self, job: Job, task: Task) -> Tile:
        """The tile of a task."""
        if self.archive:
            return self.archive.tile(job, task.number)
        return Tile([TileBlock(job, block) for block in task.blocks])


_lock = threading.RLock()  # a worker may have threads


def _crew_of(sent: SentSweep) -> _WorkerSweep:
    with _lock:
        if sent.digest not in _crews:
            while len(_crews) > 1:
                _crews.pop(next(iter(_crews)))
            _crews[sent.digest] = _WorkerSweep(sent)
        return _crews[sent.digest]


_crews: dict[str, _WorkerSweep] = {}  # the last two


# Pickling


def sent_of(request: SweepRequest, archive: RunArchive | None) -> SentSweep:
    """A sweep for workers.

    Raises:
      InputValueError: something in it cannot be pickled.
    """
    pickled, settings = _pickled(request), {name: getattr(jax.config, name) for name in _SETTINGS}
    directory = archive.run.path.resolve() if archive else None
    asked = archive.run.asking(uuid.uuid4().hex).resolve() if archive else None
    flags = os.environ.get("XLA_FLAGS", "")
    rest = settings, flags, directory, archive and archive.run.run
    digest = hashlib.sha256(pickled + repr(rest).encode()).hexdigest()
    return SentSweep(digest, pickled, settings, flags, tuple(sys.path), directory, asked)


def _pickled(request: SweepRequest) -> bytes:
    key = str(jax.random.key_impl(request.key)), np.asarray(jax.random.key_data(request.key))
    try:
        return _dumps(({**request._asdict(), "key": None}, key))
    except Exception as error:  # pickling calls anything
        name, value = next(_unpicklable(request), ("problem", request.problem))
        remedy = "Install cloudpickle, or define it in a module" if _dumps is pickle.dumps else f"{error}"
        raise bad_value(name, value, "it cannot be sent to another process", remedy) from error


def _unpickled(pickled: bytes) -> SweepRequest:
    request, (impl, data) = pickle.loads(pickled)
    return SweepRequest(**{**request, "key": jax.random.wrap_key_data(data, impl=impl)})


def _unpicklable(request: SweepRequest) -> Iterator[tuple[str, Any]]:
    """The parts of a sweep that cannot be pickled, by the names of arguments."""
    problem = request.problem
    parts: dict[str, Any]
    if isinstance(problem, Problem):
        parts = {f"problem.{name}": value for name, value in vars(problem).items()}
    else:
        parts = {"problem": problem}
    for section in request.sections:
        parts["optimizer" if section.label is None else f"axes['optimizer'][{section.label!r}]"] = section
    parts |= {f"monitors[{i}]": monitor for i, monitor in enumerate(request.monitors)}
    for name, value in parts.items():
        try:
            _dumps(value)
        except Exception:  # the same
            yield name, value


try:
    from cloudpickle import dumps as _dumps  # functions of a notebook or within others by what they are
except ImportError:
    from pickle import dumps as _dumps  # only by where they are


# The side that sends


def run_jobs(
    jobs: Iterable[Job],
    *,
    tiles_of: Callable[[Job], list[Tile]],
    pool: Pool,
    request: SweepRequest,
    lanes_of: Callable[[Tile], np.ndarray],
    report: Callable[[Block, int], None],
    archive: RunArchive | None = None,
    stop: threading.Event | None = None,
) -> Iterator[FinishedBlock]:
    """Run the tiles of all jobs in the processes of a pool; yields blocks as their tiles finish.

    A tile whose worker dies is run again, alone; if that happens twice, the others are run and it is named.

    Raises:
      RunError: workers died of tiles.
    """
    desk = _TileScheduler(pool, sent_of(request, archive), archive, stop or threading.Event(), report)
    try:
        for job in jobs:
            desk.waiting.extend(tiles_of(job))
            yield from desk.collected(patience=0.0)
        while desk.is_busy:
            yield from desk.collected(patience=_PATIENCE)
    finally:
        desk.leave()
    if desk.lost:
        lost = "; ".join(f"tile {tile.number}" * (tile.number >= 0) + _lanes(lanes_of(tile)) for tile in desk.lost)
        kept = "All others are finished" if archive else "With store=DIR the others would be kept"
        raise RunError(
            f"workers die of what they are given: {lost}. {kept}. Look at memory, and at what the loss calls."
        )


def _lanes(lanes: np.ndarray) -> str:
    shown = ", ".join(map(str, lanes[:8])) + (", …" if len(lanes) > 8 else "")
    return f" (lane{'s' * (len(lanes) > 1)} {shown})"


_PATIENCE = 1.0  # seconds between looks at claims and at whether to stop
_STRIKES = 2  # workers that a tile may take with it when it runs alone
_DEATHS = 6  # in a row, with nothing finished between, after which something else is wrong


class _TileScheduler:
    """Deals tiles to a pool."""

    def __init__(
        self,
        pool: Pool,
        sent: SentSweep,
        archive: RunArchive | None,
        stop: threading.Event,
        report: Callable[[Any, int], None],
    ):
        self._pool, self._sent, self._archive, self._stop, self._report = pool, sent, archive, stop, report
        self._placed = pool.place(sent)
        self.waiting: collections.deque[Tile] = collections.deque()
        self._suspects: collections.deque[Tile] = collections.deque()  # their worker died
        self._held: list[Tile] = []  # somebody else works on them
        self._running: dict[Future, Tile] = {}
        self._strikes: collections.Counter = collections.Counter()
        self._alone: Tile | None = None  # the suspect that runs
        self._broken, self._deaths = False, 0
        self.lost: list[Tile] = []

    @property
    def is_busy(self) -> bool:
        """Whether anything is left to do."""
        return bool(self._running or self.waiting or self._suspects or self._held)

    def collected(self, patience: float) -> Iterator[FinishedBlock]:
        """The blocks of tiles that finish within a while."""
        self._deal()
        for future in wait(self._running, patience, FIRST_COMPLETED).done:
            tile = self._running.pop(future)
            try:
                read = future.result()
            except (*self._pool.lost, CancelledError) as error:
                self._died(tile, error)
                continue
            self._deaths = 0
            if self._archive:
                self._archive.release(tile)
            for one in read or ():
                job = tile.parts[0].job
                self._report(one.block, job.steps)
                yield FinishedBlock(job, Block(*one.block), one.output, None)

    def leave(self) -> None:
        """Wait for what runs, which ends with its segment if it is kept, and for nothing else."""
        if self._running:
            self._ask()
            wait(self._running)
        if self._sent.asked:
            with contextlib.suppress(OSError):
                self._sent.asked.unlink()
        self._pool.close()

    def _deal(self) -> None:
        """Give the pool what it can take: suspects one at a time, and alone."""
        if self._stop.is_set():
            self._drop()
        if self._suspects:
            if not self._running:
                self._alone = self._suspects.popleft()
                self._start(self._alone)
            return
        while self.waiting and len(self._running) < 2 * self._pool.size:
            tile = self.waiting.popleft()
            if self._archive and not self._archive.take(tile):
                self._held.append(tile)
            else:
                self._start(tile)
        if self._held and not self._running:
            self._stop.wait(_PATIENCE)
            self.waiting.extend(tile for tile in self._held if self._archive and not self._archive.is_done(tile))
            self._held.clear()

    def _start(self, tile: Tile) -> None:
        job, blocks = tile.parts[0].job, [part.block for part in tile.parts]
        shape = Shape(len(blocks[0].points), len(blocks[0].seeds), job.unroll)
        known = () if self._archive else tuple(blocks)
        task = Task(job.group, shape, job.programs[0].fingerprint, tile.number, known)
        try:
            if self._broken:
                self._pool.anew()
                self._placed, self._broken = self._pool.place(self._sent), False
            self._running[self._pool.submit(run_tile, self._placed, task)] = tile
            self._report(blocks[0], 0)
        except self._pool.lost as error:
            self._died(tile, error)

    def _died(self, tile: Tile, error: BaseException) -> None:
        """Note that a worker died while a tile was with it, or that the tile was given back."""
        if self._stop.is_set():
            return
        self._broken = True
        self._deaths += 1
        if self._deaths > _DEATHS + 2 * self._pool.size:
            remedy = "A script must start its work under if __name__ == '__main__'. Look at what the workers print"
            raise RunError(f"workers die before anything is finished: {error}. {remedy}.") from error
        self._strikes[id(tile)] += tile is self._alone
        (self.lost if self._strikes[id(tile)] >= _STRIKES else self._suspects).append(tile)

    def _drop(self) -> None:
        """Leave all that has not begun, and ask what runs to stop."""
        self.waiting.clear()
        self._suspects.clear()
        self._held.clear()
        self._ask()

    def _ask(self) -> None:
        """Ask what runs to stop at the end of its segment; without a directory, what has not begun is cancelled."""
        if self._sent.asked:
            with contextlib.suppress(OSError):
                self._sent.asked.touch()
        else:
            self._running = {future: tile for future, tile in self._running.items() if not future.cancel()}
