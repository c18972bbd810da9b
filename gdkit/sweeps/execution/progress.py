"""Progress of a sweep: what a callback receives, and lines for a terminal or a log."""

import math
import sys
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

_MEASURED_SECONDS = 1.0  # time before a rate is reported: the first segments of a block are short and slow


class Progress(NamedTuple):
    """The progress of a sweep."""

    done: int  # lane-steps
    total: int  # lane-steps
    lanes_done: int
    lanes: int
    seconds: float  # since this process began
    resumed: int = 0  # lane-steps that earlier or other processes have done
    waited: float = 0.0  # seconds before the first lane moved, while programs were compiled

    @property
    def rate(self) -> float:
        """Lane-steps per second, of this process and since its first lane moved."""
        return (self.done - self.resumed) / max(self.seconds - self.waited, 1e-9)

    @property
    def seconds_left(self) -> float:
        """Seconds left at this rate."""
        return (self.total - self.done) / max(self.rate, 1e-9)

    @property
    def has_rate(self) -> bool:
        """Whether lanes have moved for long enough to predict the rest."""
        return self.done > self.resumed and self.seconds - self.waited >= _MEASURED_SECONDS


class SegmentUpdate(NamedTuple):
    """The values of the lanes of a block at the end of a segment, as columns."""

    lanes: np.ndarray  # (n,) int, their numbers in the result
    hyperparameters: dict[str, np.ndarray]  # name -> (n,), every axis, the ``seed``, and the ``optimizer`` if it is one
    step: int  # the step that the lanes have reached, unless they ended before: ``values["end_step"]``
    values: dict[str, np.ndarray]  # name -> (n,): the ``loss``, and all other values per lane of the result


class Meter:
    """Counts lane-steps from any thread, and reports to a callback, at once and at most every `every` seconds."""

    def __init__(
        self,
        report: Callable[[Progress], None] | None,
        lanes: int,
        steps: int,
        every: float = 0.1,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._report, self._lanes, self._steps, self._every = report, lanes, steps, every
        self._done, self._lanes_done, self._resumed = 0, 0, 0
        self._clock = clock
        self._began, self._reported = clock(), -math.inf  # the first block reports as it begins
        self._moved = math.inf  # when the first lane moved
        self._lock = threading.Lock()

    def add(self, lane_steps: int, lanes: int = 0) -> None:
        """Count lane-steps, and lanes that have finished."""
        self._moved = min(self._moved, self._clock())  # a block reports as it begins
        self._count(lane_steps, lanes)

    def add_resumed(self, lane_steps: int, lanes: int) -> None:
        """Count the work of earlier or other processes."""
        self._resumed += lane_steps
        self._count(lane_steps, lanes)

    def complete(self) -> None:
        """Count all lanes as finished, those that other processes ran included."""
        if self._lanes_done < self._lanes:
            self.add_resumed(max(0, self._lanes * self._steps - self._done), self._lanes - self._lanes_done)

    def _count(self, lane_steps: int, lanes: int) -> None:
        with self._lock:
            self._done += lane_steps
            self._lanes_done += lanes
            now = self._clock()
            if self._report and (now - self._reported >= self._every or self._lanes_done == self._lanes):
                self._reported = now
                self._report(self._progress(now))

    def _progress(self, now: float) -> Progress:
        total, waited = self._lanes * self._steps, min(self._moved, now) - self._began
        done = min(self._done, total)
        return Progress(done, total, self._lanes_done, self._lanes, now - self._began, self._resumed, waited)


def print_lines(every: float = 10.0) -> Callable[[Progress], None]:
    """A callback that prints one line every `every` seconds and one at the end, to stderr."""
    printed = [time.monotonic()]

    def report(p: Progress) -> None:
        if p.lanes_done < p.lanes and time.monotonic() - printed[0] < every:
            return
        printed[0] = time.monotonic()
        share = 100 * p.done / max(p.total, 1)
        left = f", about {p.seconds_left:.0f} s left" if p.has_rate else ""
        left = left if p.lanes_done < p.lanes else f" in {p.seconds:.1f} s"
        line = f"{share:3.0f} %  {p.lanes_done} of {p.lanes} lanes  {p.rate:.3g} lane-steps/s{left}"
        print(line, file=sys.stderr, flush=True)  # noqa: T201  # the caller asked for lines

    return report
