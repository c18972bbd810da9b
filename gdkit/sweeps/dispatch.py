"""Workers that pull blocks from one queue."""

import functools
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from typing import Any, NamedTuple, Protocol

import numpy as np

from gdkit.sweeps import execute
from gdkit.sweeps.blocks import Block
from gdkit.sweeps.execute import Checkpoint, Job
from gdkit.sweeps.packing import Packed


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
        if not execute.is_out_of_memory(error) or part.job.lanes_a_block == 1:
            raise error
        parts[id(part)] = tiles_of(narrower(part.job, part.block), 2**30)[0].parts
    if archive is None:  # the others have run
        return [Tile([part]) for mended in parts.values() for part in mended]
    return [ran.tile._replace(parts=[p for part in ran.tile.parts for p in parts.get(id(part), [part])])]


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
            found = execute.run_block(job, block, device, segment, functools.partial(report, block), stop, checkpoint)
        except Exception as error:  # it is raised again, or mended, in the caller's thread
            ran.failed.append((part, error))
            if execute.is_out_of_memory(error):
                continue
            break
        if not found[0]:  # asked to stop
            return ran._replace(finished=[])
        ran.finished.append(Finished(job, block, *found))
    return ran._replace(finished=[]) if archive and ran.failed else ran
