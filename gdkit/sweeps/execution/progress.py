"""Progress of a sweep: what a callback is told, and plain lines now and then."""

import math
import sys
import threading
import time
from collections.abc import Callable
from typing import NamedTuple, TextIO


class Progress(NamedTuple):
    """How far a sweep is."""

    done: int  # lane-steps
    total: int  # lane-steps
    lanes_done: int
    lanes: int
    seconds: float  # since the sweep began
    before: int = 0  # lane-steps that were done by then: an earlier process left them
    waited: float = 0.0  # seconds before the first lane moved, while programs were compiled

    @property
    def rate(self) -> float:
        """Lane-steps a second, of this process and while lanes move."""
        return (self.done - self.before) / max(self.seconds - self.waited, 1e-9)

    @property
    def left(self) -> float:
        """Seconds left, at the rate so far."""
        return (self.total - self.done) / max(self.rate, 1e-9)

    @property
    def tells(self) -> bool:
        """Whether enough has been done to tell from it how long the rest takes."""
        return self.done > self.before and self.seconds - self.waited >= _TELLING


_TELLING = 1.0  # seconds: the first segments of a block are short, and slower than those that follow


class Meter:
    """Counts lane-steps from any thread and tells a callback, at most every `every` seconds."""

    def __init__(self, tell: Callable[[Progress], None] | None, lanes: int, steps: int, every: float = 0.1):
        self._tell, self._lanes, self._steps, self._every = tell, lanes, steps, every
        self._done, self._lanes_done = 0, 0
        self._begin = self._told = time.monotonic()
        self._before, self._moving = 0, math.inf  # the moment when the first lane moved
        self._lock = threading.Lock()

    def found(self, lane_steps: int, lanes: int) -> None:
        """Count what was done before."""
        self._before += lane_steps
        self._add(lane_steps, lanes)

    def over(self) -> None:
        """Count what others have done meanwhile, now that all is there."""
        if self._lanes_done < self._lanes:
            self.found(max(0, self._lanes * self._steps - self._done), self._lanes - self._lanes_done)

    def add(self, lane_steps: int, lanes: int = 0) -> None:
        """Count lane-steps done, and lanes that are finished."""
        self._moving = min(self._moving, time.monotonic())  # a block reports as it begins
        self._add(lane_steps, lanes)

    def _add(self, lane_steps: int, lanes: int) -> None:
        with self._lock:
            self._done += lane_steps
            self._lanes_done += lanes
            now = time.monotonic()
            if self._tell and (now - self._told >= self._every or self._lanes_done == self._lanes):
                self._told = now
                self._tell(self._progress(now))

    def _progress(self, now: float) -> Progress:
        total, waited = self._lanes * self._steps, min(self._moving, now) - self._begin
        done = min(self._done, total)
        return Progress(done, total, self._lanes_done, self._lanes, now - self._begin, self._before, waited)


def plain_lines(stream: TextIO | None = None, every: float = 10.0) -> Callable[[Progress], None]:
    """A callback that prints a line every `every` seconds, and one at the end; to stderr unless told otherwise."""
    told = [time.monotonic()]

    def tell(p: Progress) -> None:
        if p.lanes_done < p.lanes and time.monotonic() - told[0] < every:
            return
        told[0] = time.monotonic()
        share = 100 * p.done / max(p.total, 1)
        left = f", about {p.left:.0f} s left" if p.tells else ""
        left = left if p.lanes_done < p.lanes else f" in {p.seconds:.1f} s"
        line = f"{share:3.0f} %  {p.lanes_done} of {p.lanes} lanes  {p.rate:.3g} lane-steps/s{left}"
        print(line, file=stream or sys.stderr, flush=True)

    return tell
