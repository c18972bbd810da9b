"""Batches from the host for blocks that advance in step: each is read once, ahead of its use."""

import contextlib
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import jax

from gdkit.data import BatchWindow, Source
from gdkit.environment import keep_precision
from gdkit.sweeps.plan.blocks import Block
from gdkit.sweeps.programs.build import BlockInputs
from gdkit.sweeps.programs.job import Job, count_carry_bytes

MAX_IN_STEP = 1024  # most blocks that advance in step, each in its own thread
IN_STEP_BYTES = 2**31  # most bytes of the lanes of these blocks


class _Read(NamedTuple):
    """A window of batches that is being read or has been read."""

    begin: int  # the first step that it serves
    window: Future  # BatchWindow on the host
    placed: dict[int, BatchWindow]  # copies on devices, by device number


class BatchFeed:
    """The batches of one seed for several blocks.

    A block may be one window ahead of the slowest. At most three windows are in memory: two that blocks use, and the
    one that a thread reads ahead.
    """

    def __init__(self, source: Source, seed: int, steps: int, blocks: int):
        self._source, self._seed, self._steps = source, seed, steps
        self._window_of = dict.fromkeys(range(blocks), -1)  # block -> number of the window that it uses or waits for
        self._slowest = -1  # the lowest of these numbers
        self._reads: dict[int, _Read] = {}
        self._changed = threading.Condition()
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="gdkit-batches")

    def members(self) -> list["BlockFeed"]:
        """One member per block."""
        return [BlockFeed(self, number) for number in self._window_of]

    def get(self, block: int, step: int, device: jax.Device, device_number: int) -> BatchWindow:
        """The window that holds `step`, on a device; waits for blocks that are more than a window behind."""
        number = step // self._source.window_steps
        with self._changed:
            self._window_of[block] = number
            self._discard_passed()
            self._changed.wait_for(lambda: number <= self._slowest + 1)
            read = self._reads.get(number)
            if read is None or step < read.begin:
                read = self._reads[number] = self._read(number, step)
        window = read.window.result()
        with self._changed:
            if device_number not in read.placed:
                read.placed[device_number] = jax.device_put(window, device)
            following = (number + 1) * self._source.window_steps
            if following <= self._steps and number + 1 not in self._reads and block in self._window_of:
                self._reads[number + 1] = self._read(number + 1, following)
        return read.placed[device_number]

    def leave(self, block: int) -> None:
        """Record that a block has read all its batches."""
        with self._changed:
            self._window_of.pop(block, None)
            if self._window_of:
                self._discard_passed()
                return
            self._reads.clear()
        self._reader.shutdown(wait=False, cancel_futures=True)

    def _read(self, number: int, begin: int) -> _Read:
        first = number * self._source.window_steps
        end = min(first + self._source.window_steps, self._steps + 1)
        read = keep_precision(self._source.read_window)  # the user's function may compute its batches by JAX
        return _Read(begin, self._reader.submit(read, self._seed, first, begin, end), {})

    def _discard_passed(self) -> None:
        """Discard windows that all blocks have passed, and wake the blocks that waited for them."""
        slowest = min(self._window_of.values())
        if slowest == self._slowest:
            return
        self._slowest = slowest
        for number in [number for number in self._reads if number < slowest]:
            del self._reads[number]
        self._changed.notify_all()


class BlockFeed(contextlib.AbstractContextManager):
    """The batches of one block."""

    def __init__(self, feed: BatchFeed, number: int):
        self._feed, self._number = feed, number
        self._window: BatchWindow | None = None
        self._end = -1

    def serve(self, job: Job, inputs: BlockInputs, step: int, device: int) -> tuple[Any, int]:
        """The arguments of a program with the batches from `step` on, and the step at which these end."""
        source = job.source
        assert source is not None
        if step >= self._end:
            where = jax.tree.leaves(job.shared[device].limits)[0].sharding
            self._window = self._feed.get(self._number, step, where, device)
            self._end = (step // source.window_steps + 1) * source.window_steps
        block, shared = inputs
        return (block, shared._replace(arrays=shared.arrays._replace(data=self._window))), self._end

    def __exit__(self, *_: object) -> None:
        self._feed.leave(self._number)


def open_feed(job: Job, block: Block) -> contextlib.AbstractContextManager[BlockFeed | None]:
    """The batches of a block that advances by itself; None for a job without batches on the host."""
    if job.source is None:
        return contextlib.nullcontext()
    (member,) = BatchFeed(job.source, int(block.seeds[0]), job.steps, 1).members()
    return member


def open_shared_feeds(blocks: Sequence[tuple[Job, Block]], *, shares: bool) -> tuple[list[BlockFeed | None], int]:
    """The feed of each block, and the number of blocks in the largest team.

    The blocks of a team share the batches that are read, and so have to run at once. They have one source and one seed,
    and their lanes fit in memory together. Without `shares` each block is a team.
    """
    sharing: dict[tuple[int, int, int], list[int]] = {}
    for number, (job, block) in enumerate(blocks):
        if job.source is not None:
            sharing.setdefault((id(job.source), int(block.seeds[0]), job.steps), []).append(number)
    feeds: list[BlockFeed | None] = [None] * len(blocks)
    largest = 1
    for own in sharing.values():
        size = max(count_carry_bytes(blocks[number][0]) for number in own)
        most = min(max(IN_STEP_BYTES // size, 1), MAX_IN_STEP) if shares else 1
        for team in (own[low : low + most] for low in range(0, len(own), most)):
            job, block = blocks[team[0]]
            assert job.source is not None
            members = BatchFeed(job.source, int(block.seeds[0]), job.steps, len(team)).members()
            for number, member in zip(team, members, strict=True):
                feeds[number] = member
            largest = max(largest, len(team))
    return feeds, largest
