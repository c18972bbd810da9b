"""Tiles, and workers that pull their blocks from one queue."""

import functools
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from typing import Any, NamedTuple

from gdkit.sweeps.execution.block import run_block
from gdkit.sweeps.plan.blocks import Block
from gdkit.sweeps.programs.job import Job, is_out_of_memory
from gdkit.sweeps.programs.tiles import FinishedBlock, Tile, TileArchive, TileBlock

_Place = tuple[int, ...]  # of a block in its tile: one that is made narrower leaves its own to several, a number longer
_WHOLE: _Place = ()


class _QueuedBlock(NamedTuple):
    """A block that is to be run."""

    course: "_TileRun"
    place: _Place
    part: TileBlock


class _TileRun:
    """A tile on its way: workers share its blocks, and whoever runs the last one hands it in."""

    def __init__(self, tile: Tile):
        self.tile = tile
        self.failed: dict[_Place, tuple[TileBlock, Exception]] = {}
        self._ran: dict[_Place, FinishedBlock] = {}
        self._left = len(tile.parts)  # blocks whose end is not known
        self._taken: bool | None = None  # None: not asked yet
        self._is_whole = True  # False: some blocks did not run to their end
        self._lock = threading.Lock()

    @property
    def finished(self) -> list[FinishedBlock]:
        """All its blocks in order; none unless all have run."""
        return [self._ran[place] for place in sorted(self._ran)] if self._is_whole and not self.failed else []

    @property
    def was_refused(self) -> bool:
        """Whether it is left to somebody else for now."""
        return self._taken is False

    def steps(self) -> list[_QueuedBlock]:
        """What is to be run."""
        return [_QueuedBlock(self, (number,), part) for number, part in enumerate(self.tile.parts)]

    def begins(self, archive: TileArchive | None, stop: threading.Event) -> bool:
        """Whether a block of it is to be run now; the first that asks takes the tile."""
        with self._lock:
            if self._taken is None and not stop.is_set():
                self._taken = archive is None or archive.take(self.tile)
            return bool(self._taken) and not stop.is_set()

    def ends(self, place: _Place, ran: FinishedBlock | None) -> bool:
        """Note a block that has run, or has not to its end; whether nothing is left to wait for."""
        with self._lock:
            if ran is None:
                self._is_whole = False
            else:
                self._ran[place] = ran
            self._left -= 1
            return self._left == 0

    def fails(self, step: _QueuedBlock, error: Exception) -> bool:
        """Note a block's error; the same. Only blocks that lacked memory let the others run."""
        with self._lock:
            self.failed[step.place] = step.part, error
            self._left -= 1
            return self._left == 0 or not is_out_of_memory(error)

    def breaks(self, error: Exception) -> None:
        """Note that it could not be kept."""
        self.failed[_WHOLE] = self.tile.parts[0], error

    def mended(self, narrower: Callable[[Job, Block], Job]) -> list[_QueuedBlock]:
        """What is to be run in place of blocks that failed for want of memory; any other error is raised."""
        steps = []
        for place, (part, error) in tuple(self.failed.items()):  # others may still fail
            if place == _WHOLE or not is_out_of_memory(error) or part.job.lanes_per_block == 1:
                raise error
            job = narrower(part.job, part.block)
            steps += [
                _QueuedBlock(self, (*place, number), TileBlock(job, block)) for number, block in enumerate(job.blocks)
            ]
        self.failed, self._left = {}, len(steps)
        return steps


def run_jobs(
    jobs: Iterable[Job],
    *,
    workers: int,
    tiles_of: Callable[[Job], list[Tile]],
    segment: int | None,
    report: Callable[[Block, int], None],
    narrower: Callable[[Job, Block], Job],
    executor: Executor | None = None,
    archive: TileArchive | None = None,
    stop: threading.Event | None = None,
) -> Iterator[FinishedBlock]:
    """Run the blocks of all jobs by workers that pull them from one queue; yields blocks as their tiles finish.

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
            send(_TileRun(tile).steps())
        return len(tiles)

    def send(steps: list[_QueuedBlock]) -> None:
        for step in steps:
            queued.put(step)

    try:
        waiting, awaited, held = iter(jobs), 0, []
        while (job := next(waiting, None)) is not None or awaited or held:
            awaited += put(tiles_of(job)) if job is not None else 0
            while awaited and (job is None or not done.empty()):
                course = done.get()
                if course.failed:
                    send(course.mended(narrower))
                    continue
                awaited -= 1
                yield from course.finished
                held += [course.tile] if course.was_refused else []
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


def _work(
    worker: int,
    queued: queue.SimpleQueue,
    done: queue.SimpleQueue,
    segment: int | None,
    report: Callable[[Block, int], None],
    stop: threading.Event,
    archive: TileArchive | None,
) -> None:
    """Run blocks as they come. What their tiles leave in the archive is published while the next ones run."""
    with ThreadPoolExecutor(1, thread_name_prefix="gdkit-publish") as publisher:
        published: Future | None = None
        while (step := queued.get()) is not None:
            course = step.course
            try:  # an error is raised again, or mended, in the caller's thread
                is_over = course.ends(step.place, _run(worker, step, segment, report, stop, archive))
            except Exception as error:
                is_over = course.fails(step, error)
            if not is_over:
                continue
            publish = _handed_in(course, archive)
            if published is not None:
                wait([published])  # where the disk is slower than the lanes, they wait for it
            if publish is None:
                done.put(course)
            else:
                published = publisher.submit(_published, course, publish, done)


def _run(
    worker: int,
    step: _QueuedBlock,
    segment: int | None,
    report: Callable[[Block, int], None],
    stop: threading.Event,
    archive: TileArchive | None,
) -> FinishedBlock | None:
    """Run a block; None if it is not to be run now, or not to its end."""
    if not step.course.begins(archive, stop):
        return None
    job, block, _ = step.part
    checkpoint = archive.checkpoint(step.course.tile, step.part) if archive else None
    device = worker % len(job.programs)
    found = run_block(job, block, device, segment, functools.partial(report, block), stop, checkpoint)
    return FinishedBlock(job, block, *found) if found[0] else None


def _handed_in(course: _TileRun, archive: TileArchive | None) -> Callable[[], None] | None:
    """Leave a tile in the archive, if all of it has run; what is to be called then, if anything."""
    finished = course.finished
    if not finished or archive is None:
        return None
    try:
        return archive.write(course.tile, finished)
    except Exception as error:  # it is raised again in the caller's thread
        course.breaks(error)
        return None


def _published(course: _TileRun, publish: Callable[[], None], done: queue.SimpleQueue) -> None:
    try:
        publish()
    except Exception as error:  # the same
        course.breaks(error)
    done.put(course)
