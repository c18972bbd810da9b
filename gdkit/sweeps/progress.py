"""Progress of a sweep: what a callback is told, and plain lines now and then."""

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
    waited: float = 0.0  # of these, before the first lane started: tracing and compiling
    before: int = 0  # of `done`, what was there from a run that was stopped

    @property
    def rate(self) -> float:
        """Lane-steps a second, since the first lane started."""
        return (self.done - self.before) / max(self.seconds - self.waited, 1e-9)

    @property
    def left(self) -> float:
        """Seconds left, at the rate so far."""
        return (self.total - self.done) / max(self.rate, 1e-9)


class Meter:
    """Counts lane-steps from any thread and tells a callback, at most every `every` seconds."""

    def __init__(self, tell: Callable[[Progress], None] | None, lanes: int, steps: int, every: float = 0.1):
        self._tell, self._lanes, self._steps, self._every = tell, lanes, steps, every
        self._done, self._lanes_done, self._before = 0, 0, 0
        self._started: float | None = None
        self._begin = self._told = time.monotonic()
        self._lock = threading.Lock()

    def start(self) -> None:
        """The first lane starts now, if none has; what is counted already was there before."""
        with self._lock:
            if self._started is None:
                self._started, self._before = time.monotonic(), self._done

    def add(self, lane_steps: int, lanes: int = 0) -> None:
        """Count lane-steps done, and lanes that are finished."""
        with self._lock:
            self._done += lane_steps
            self._lanes_done += lanes
            now = time.monotonic()
            if self._tell and (now - self._told >= self._every or self._lanes_done == self._lanes):
                self._told = now
                self._tell(self._progress(now))

    def _progress(self, now: float) -> Progress:
        total, begin = self._lanes * self._steps, self._begin
        done, before = min(self._done, total), self._done if self._started is None else self._before
        waited = (now if self._started is None else self._started) - begin
        return Progress(done, total, self._lanes_done, self._lanes, now - begin, waited, min(before, total))


def plain_lines(stream: TextIO | None = None, every: float = 10.0) -> Callable[[Progress], None]:
    """A callback that prints a line every `every` seconds, and one at the end; to stderr unless told otherwise."""
    told = [time.monotonic()]

    def tell(p: Progress) -> None:
        if p.lanes_done < p.lanes and time.monotonic() - told[0] < every:
            return
        told[0] = time.monotonic()
        share = 100 * p.done / max(p.total, 1)
        left = f", about {p.left:.0f} s left" if p.rate else ""
        left = left if p.lanes_done < p.lanes else f" in {p.seconds:.1f} s"
        line = f"{share:3.0f} %  {p.lanes_done} of {p.lanes} lanes  {p.rate:.3g} lane-steps/s{left}"
        print(line, file=stream or sys.stderr, flush=True)

    return tell
