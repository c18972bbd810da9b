"""Blocks that run while later jobs are compiled, before there is a run directory to store them in."""

import functools
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self

from gdkit.environment import keep_precision
from gdkit.sweeps.execution.settings import ExecutionSettings
from gdkit.sweeps.plan.blocks import Block
from gdkit.sweeps.programs.build import Carry
from gdkit.sweeps.programs.job import Job, count_carry_bytes
from gdkit.sweeps.programs.tiles import Checkpoint, FinishedBlock


class HeadStart:
    """Runs the first blocks of a sweep by threads, and keeps in memory what they reach.

    A run directory needs the programs of all jobs, and compiling those takes one core. Later, `run_block` continues
    the blocks from there. The threads have ended after the ``with`` statement; with 0 `workers` nothing runs.
    """

    def __init__(self, workers: int, segment_steps: int | None, settings: ExecutionSettings):
        self._segment_steps, self._settings = segment_steps, settings
        self._bytes_left = settings.lane_bytes if workers > 0 else 0
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(max(workers, 1), thread_name_prefix="gdkit-head-start")
        self._futures: dict[tuple, tuple[Future, list[Carry]]] = {}  # the list holds the last checkpoint

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        self._stop.set()
        self._pool.shutdown(cancel_futures=True)

    def add(self, job: Job) -> None:
        """Run blocks of a job, as many as memory allows; none if it has several devices or its data on the host."""
        if len(job.programs) > 1 or job.source is not None:
            return
        size = max(count_carry_bytes(job), 1)
        for block in job.blocks[: self._bytes_left // size]:
            saved: list[Carry] = []
            future = self._pool.submit(keep_precision(self._run), job, block, saved)
            self._futures[_identify(job, block)] = future, saved
            self._bytes_left -= size

    def stop(self, settings: ExecutionSettings) -> ExecutionSettings:
        """End each block at the end of its segment, without waiting; returns settings that continue the blocks."""
        self._stop.set()
        return settings._replace(run_block=self.run_block) if self._futures else settings

    def run_block(
        self,
        job: Job,
        block: Block,
        *,
        report_steps: Callable[[int], None],
        checkpoint: Checkpoint | None = None,
        **options: Any,
    ) -> FinishedBlock | None:
        """Run a block as `block.run_block` does, from the step that it has reached.

        A block that failed runs again, so that its error is raised where errors are handled. A stored checkpoint, which
        another process wrote later, takes precedence.
        """
        finished, saved = self._take(job, block)
        if finished is not None:
            report_steps(job.steps)
            return finished._replace(job=job, lanes=finished.lanes if job.returns_lanes else None)
        if saved and checkpoint is not None and checkpoint.load(job, options["device"]) is None:
            checkpoint.save(saved[0])
            checkpoint = checkpoint._replace(load=lambda *_: saved.pop())  # pop: memory holds it no longer than needed
        run = functools.partial(self._settings.run_block, report_steps=report_steps, checkpoint=checkpoint)
        return run(job, block, **options)

    def _take(self, job: Job, block: Block) -> tuple[FinishedBlock | None, list[Carry]]:
        """A block if it has finished, and otherwise its last checkpoint, if there is one; waits for its segment."""
        future, saved = self._futures.pop(_identify(job, block), (None, []))
        if future is None or future.cancel() or future.exception() is not None:
            return None, saved
        return future.result(), saved

    def _run(self, job: Job, block: Block, saved: list[Carry]) -> FinishedBlock | None:
        if self._stop.is_set():
            return None
        segments = self._settings.segments
        finished = self._settings.run_block(
            job._replace(returns_lanes=True),
            block,
            device=0,
            segment_steps=self._segment_steps,
            report_steps=lambda steps: None,
            stop=self._stop,
            checkpoint=Checkpoint(lambda *_: None, lambda carry: saved.__setitem__(slice(None), [carry])),
            settings=segments._replace(checkpoint_seconds=segments.seconds),
        )
        if finished is not None:
            saved.clear()
        return finished


def _identify(job: Job, block: Block) -> tuple[str, int, bytes, bytes]:
    return job.programs[0].fingerprint, job.group, block.points.tobytes(), block.seeds.tobytes()
