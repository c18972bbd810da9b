"""Tiles run by worker threads, which take blocks from one queue."""

import contextlib
import functools
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from typing import NamedTuple

from gdkit.environment import keep_precision
from gdkit.sweeps.execution.feed import MAX_IN_STEP, BlockFeed, open_feed, open_shared_feeds
from gdkit.sweeps.execution.settings import ExecutionSettings
from gdkit.sweeps.plan.blocks import Block
from gdkit.sweeps.programs.job import Job, is_out_of_memory
from gdkit.sweeps.programs.tiles import FinishedBlock, SegmentOutput, Tile, TileBlock
from gdkit.sweeps.rundir.archive import RunArchive

_Place = tuple[int, ...]  # the place of a block in its tile; halves of a block have its place and a further number
_WHOLE_TILE: _Place = ()


class _QueuedBlock(NamedTuple):
    """A block that waits for a worker."""

    tile_run: "_TileRun"
    place: _Place
    part: TileBlock
    feed: BlockFeed | None = None  # its batches, if they are on the host


class _TileRun:
    """A tile that is being run. Workers share its blocks, and the worker that finishes the last one writes the tile."""

    def __init__(self, tile: Tile):
        self.tile = tile
        self.errors: dict[_Place, tuple[TileBlock, Exception]] = {}
        self._finished: dict[_Place, FinishedBlock] = {}
        self._blocks_left = len(tile.parts)
        self._is_taken: bool | None = None  # None: no worker has tried to take the tile yet
        self._is_stopped = False  # whether some block was not run to its last step
        self._lock = threading.Lock()

    @property
    def finished_blocks(self) -> list[FinishedBlock]:
        """All blocks of the tile in order; none unless all of them finished."""
        return [] if self._is_stopped or self.errors else [self._finished[p] for p in sorted(self._finished)]

    @property
    def is_taken_elsewhere(self) -> bool:
        """Whether another process works on the tile."""
        return self._is_taken is False

    def queued_blocks(self) -> list[_QueuedBlock]:
        """The blocks of the tile for the queue."""
        return [_QueuedBlock(self, (number,), part) for number, part in enumerate(self.tile.parts)]

    def may_run(self, archive: RunArchive | None, stop: threading.Event) -> bool:
        """Whether to run a block of the tile now; the first worker that asks takes the tile."""
        with self._lock:
            if self._is_taken is None and not stop.is_set():
                self._is_taken = archive is None or archive.take(self.tile.number)
            return bool(self._is_taken) and not stop.is_set()

    def add_finished(self, place: _Place, finished: FinishedBlock | None) -> bool:
        """Record a block that finished, or None for one that did not; returns whether no block is left."""
        with self._lock:
            if finished is None:
                self._is_stopped = True
            else:
                self._finished[place] = finished
            self._blocks_left -= 1
            return self._blocks_left == 0

    def add_error(self, queued: _QueuedBlock, error: Exception) -> bool:
        """Record the error of a block; returns whether the tile is done.

        Only after a lack of memory are its other blocks awaited.
        """
        with self._lock:
            self.errors[queued.place] = queued.part, error
            self._blocks_left -= 1
            return self._blocks_left == 0 or not is_out_of_memory(error)

    def add_write_error(self, error: Exception) -> None:
        """Record that the tile could not be written."""
        self.errors[_WHOLE_TILE] = self.tile.parts[0], error

    def halve_failed_blocks(self, halve_block: Callable[[Job, Block], Job]) -> list[_QueuedBlock]:
        """Halves of the blocks that failed for lack of memory, for the queue; raises any other error."""
        halves = []
        for place, (part, error) in tuple(self.errors.items()):  # other blocks may still fail meanwhile
            if place == _WHOLE_TILE or not is_out_of_memory(error) or part.job.lanes_per_block == 1:
                raise error
            job = halve_block(part.job, part.block)
            halves += [
                _QueuedBlock(self, (*place, number), TileBlock(job, block)) for number, block in enumerate(job.blocks)
            ]
        self.errors, self._blocks_left = {}, len(halves)
        return halves


class _Workload(NamedTuple):
    """The arguments of every worker."""

    queued: queue.SimpleQueue  # of _QueuedBlock; None ends a worker
    done: queue.SimpleQueue  # of _TileRun, and of SegmentOutput where these are reported
    segment_steps: int | None
    report: Callable[[Block, int], None]
    stop: threading.Event
    archive: RunArchive | None
    reports_output: bool
    slots: contextlib.AbstractContextManager  # limit how many segments with batches from the host run at once
    settings: ExecutionSettings


def run_jobs(
    jobs: Iterable[Job],
    *,
    workers: int,
    cut_tiles: Callable[[Job], list[Tile]],
    segment_steps: int | None,
    report: Callable[[Block, int], None],
    halve_block: Callable[[Job, Block], Job],
    archive: RunArchive | None,
    stop: threading.Event,
    settings: ExecutionSettings,
    executor: Executor | None = None,
    report_output: Callable[[SegmentOutput], None] | None = None,
) -> Iterator[FinishedBlock]:
    """Run the blocks of all jobs by workers that take them from one queue; yields blocks as their tiles finish.

    The jobs are taken, and so compiled, in the caller's thread while the workers run earlier ones. A block that the
    device has no memory for is run again as the job that `halve_block` makes of it. `stop`, closing the iterator, or
    another error in a block ends every worker at the end of its segment. With an archive, tiles are written there, and
    those that another process works on come last. Blocks with batches from the host advance in step, in threads of
    gdkit; only as many of these work at once as the executor has threads. `report_output` is called in the caller's
    thread while that thread waits; its error ends every worker too.
    """
    stop = LinkedEvent(stop.is_set)
    work = _Workload(
        queue.SimpleQueue(),
        queue.SimpleQueue(),
        segment_steps,
        report,
        stop,
        archive,
        report_output is not None,
        threading.Semaphore(min(workers, getattr(executor, "_max_workers", workers))),  # no public attribute
        settings,
    )
    with _open_workers(workers, work, executor) as add_workers:
        waiting, running, held = _cut_jobs(jobs, cut_tiles), 0, []
        while (tiles := next(waiting, None)) is not None or running or held:
            add_workers(_queue_tiles(tiles or [], work, shares=True))
            running += len(tiles or [])
            while running and (tiles is None or not work.done.empty()):
                tile_run = work.done.get()
                if report_output and isinstance(tile_run, SegmentOutput):
                    report_output(tile_run)
                    continue
                if tile_run.errors:
                    _queue_blocks(tile_run.halve_failed_blocks(halve_block), work)
                    continue
                running -= 1
                yield from tile_run.finished_blocks
                held += [tile_run.tile] if tile_run.is_taken_elsewhere else []
            if tiles is None and archive and held:
                stop.wait(settings.claim_poll_seconds)
                held = [] if stop.is_set() else [t for t in held if not archive.is_done(t.number)]
                _queue_tiles(held, work, shares=False)
                running, held = running + len(held), []


@contextlib.contextmanager
def _open_workers(number: int, work: _Workload, executor: Executor | None) -> Generator[Callable[[int], None]]:
    """Start `number` workers; yields a function that adds others, for so many blocks that advance in step.

    The first ones are threads of `executor`, if there is one. The others are not: it may have fewer threads, which may
    be busy. At the end they are stopped and waited for.
    """
    own = ThreadPoolExecutor(number + MAX_IN_STEP, thread_name_prefix="gdkit")  # starts a thread when it is needed
    run = keep_precision(_work)
    futures = [(executor or own).submit(run, worker, work) for worker in range(number)]

    def add_workers(in_step: int) -> None:
        total = in_step + (number if executor else 0)
        futures.extend(own.submit(run, worker, work) for worker in range(len(futures), total))

    try:
        yield add_workers
    finally:
        work.stop.set()
        for _ in futures:
            work.queued.put(None)
        wait(futures)
        own.shutdown()


def _cut_jobs(jobs: Iterable[Job], cut_tiles: Callable[[Job], list[Tile]]) -> Iterator[list[Tile]]:
    """The tiles of each job once it is compiled; those with batches from the host all at once, after the others."""
    fed = []
    for job in jobs:
        if job.source is None:
            yield cut_tiles(job)
        else:
            fed += cut_tiles(job)
    if fed:
        yield fed


def _queue_tiles(tiles: list[Tile], work: _Workload, *, shares: bool) -> int:
    """Queue the blocks of tiles; returns how many must run at once, where they share batches from the host."""
    blocks = [block for tile in tiles for block in _TileRun(tile).queued_blocks()]
    if not any(block.part.job.source for block in blocks):
        _queue_blocks(blocks, work)
        return 0
    blocks.sort(key=lambda block: (id(block.part.job.source), block.part.block.seeds[0]))
    feeds, at_once = open_shared_feeds([block.part[:2] for block in blocks], shares=shares)
    _queue_blocks([block._replace(feed=feed) for block, feed in zip(blocks, feeds, strict=True)], work)
    return at_once


def _queue_blocks(blocks: list[_QueuedBlock], work: _Workload) -> None:
    for block in blocks:
        work.queued.put(block)


class LinkedEvent(threading.Event):
    """An event that is also set while `is_set_elsewhere` returns True, if that is given."""

    def __init__(self, is_set_elsewhere: Callable[[], bool] | None):
        super().__init__()
        self._is_set_elsewhere = is_set_elsewhere

    def is_set(self) -> bool:
        return super().is_set() or (self._is_set_elsewhere is not None and self._is_set_elsewhere())


def _work(worker: int, work: _Workload) -> None:
    """Run blocks from the queue. A tile is published in the archive while the next blocks run."""
    with ThreadPoolExecutor(1, thread_name_prefix="gdkit-publish") as publisher:
        published: Future | None = None
        while (queued := work.queued.get()) is not None:
            tile_run = queued.tile_run
            try:  # an error is raised, or the block halved, in the caller's thread
                is_over = tile_run.add_finished(queued.place, _run_queued(worker, queued, work))
            except Exception as error:
                is_over = tile_run.add_error(queued, error)
            if not is_over:
                continue
            publish = _write_tile(tile_run, work.archive)
            if published is not None:
                wait([published])  # if the disk is slower than the lanes, they wait for it
            if publish is None:
                work.done.put(tile_run)
            else:
                published = publisher.submit(_publish_tile, tile_run, publish, work.done)


def _run_queued(worker: int, queued: _QueuedBlock, work: _Workload) -> FinishedBlock | None:
    """Run a block; None if its tile is not to be run now, or `stop` was set before its last step."""
    job, block, number = queued.part
    with queued.feed or open_feed(job, block) as feed:
        if not queued.tile_run.may_run(work.archive, work.stop):
            return None
        return work.settings.run_block(
            job,
            block,
            device=worker % len(job.programs),
            segment_steps=work.segment_steps,
            report_steps=functools.partial(work.report, block),
            stop=work.stop,
            checkpoint=work.archive.checkpoint(number) if work.archive else None,
            settings=work.settings.segments,
            **({"report_output": work.done.put} if work.reports_output else {}),
            **({"feed": feed, "slots": work.slots} if feed else {}),
        )


def _write_tile(tile_run: _TileRun, archive: RunArchive | None) -> Callable[[], None] | None:
    """Write a tile whose blocks have all finished; returns the function that publishes it, if there is one."""
    finished = tile_run.finished_blocks
    if not finished or archive is None:
        return None
    try:
        return archive.write(tile_run.tile, finished)
    except Exception as error:  # raised in the caller's thread
        tile_run.add_write_error(error)
        return None


def _publish_tile(tile_run: _TileRun, publish: Callable[[], None], done: queue.SimpleQueue) -> None:
    try:
        publish()
    except Exception as error:  # raised in the caller's thread
        tile_run.add_write_error(error)
    done.put(tile_run)
