"""A thread that reads the finished tiles of a running sweep, and updates its progress table and its live report."""

import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from gdkit.app.tally import Tally
from gdkit.errors import GdkitError, warn
from gdkit.store import Store
from gdkit.store.manifest import NAME
from gdkit.sweeps.execution.progress import Progress

REPORT_SHARE = 50  # a report is written again after this many times its own duration: below 2 % of the run's time
_READ_SHARE = 200  # the same for reading tiles: a quarter of a percent of two cores
_READ_INTERVAL = 1.0  # seconds, at least
REPORT_INTERVAL = 5.0  # seconds, at least
FIRST_REPORT = 0.3  # seconds of processor time that a first report is assumed to take


@contextmanager
def watch_tiles(
    folder: Path,
    on_progress: Callable[[Progress], None],
    on_tally: Callable[[Tally], None],
    write_report: Callable[[float], None] | None = None,
) -> Generator[Callable[[Progress], None]]:
    """Yield a progress callback for `sweep`; a separate thread reads the finished tiles of `folder`.

    Args:
      folder: the run directory.
      on_progress: receives each progress, in the thread that reports it.
      on_tally: receives the tally after each reading.
      write_report: writes the report; receives the seconds until it will be called again, at the earliest.
    """
    watcher = TileWatcher(folder, on_tally, LiveReport(write_report) if write_report else None)
    lanes_done = -1

    def forward(progress: Progress) -> None:
        nonlocal lanes_done
        on_progress(progress)
        if progress.lanes_done != lanes_done:
            lanes_done = progress.lanes_done
            watcher.news.set()

    watcher.start()
    try:
        yield forward
    finally:
        watcher.finish()


def processor_seconds(work: Callable[[], object]) -> float:
    """Processor time that `work` takes in this thread; waiting for a processor does not count."""
    start = time.thread_time()
    work()
    return time.thread_time() - start


class LiveReport:
    """Writes the report of a running sweep, and pauses for many times the duration of writing.

    Args:
      write: writes the report; receives the seconds until it will be called again, at the earliest.
      clock: the current time in seconds.
      measure: calls a function and returns the seconds it took.
    """

    def __init__(
        self,
        write: Callable[[float], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        measure: Callable[[Callable[[], object]], float] = processor_seconds,
    ):
        self._write, self._clock, self._measure = write, clock, measure
        self._finished = 0  # lanes in the report
        self._due = clock() + REPORT_SHARE * FIRST_REPORT
        self._pause = REPORT_INTERVAL

    def update(self, finished: int, *, has_begun: bool = False) -> None:
        """Write the report if the pause is over and lanes have finished, or, before any has, if `has_begun`."""
        if (finished == self._finished and not has_begun) or self._clock() < self._due:
            return
        self._pause = max(REPORT_INTERVAL, REPORT_SHARE * self._measure(lambda: self._write(self._pause)))
        self._finished, self._due = finished, self._clock() + self._pause


class TileWatcher(threading.Thread):
    """Reads tiles when there are new ones, passes on the tally, and rests for many times the duration of reading."""

    def __init__(self, folder: Path, on_tally: Callable[[Tally], None], report: LiveReport | None = None):
        super().__init__(name="gdkit-watcher", daemon=True)
        self.news, self._over = threading.Event(), threading.Event()
        self._folder, self._on_tally, self._report = folder, on_tally, report
        self._tally: Tally | None = None

    def run(self) -> None:
        """The body of the thread; its errors are warnings, since a run must not fail because of its display."""
        try:
            while not self._over.is_set():
                self.news.wait(REPORT_INTERVAL)
                self.news.clear()
                if not self._over.is_set():
                    rest = max(_READ_INTERVAL, _READ_SHARE * processor_seconds(self._read))
                    if self._report and self._tally:
                        has_begun = not self._tally.finished and any(True for _ in self._tally.store.carries())
                        self._report.update(self._tally.finished, has_begun=has_begun)
                    self._over.wait(rest)
        except (GdkitError, OSError) as error:
            warn(f"progress can no longer be shown: {error} The run continues.")

    def finish(self) -> None:
        """End the thread and wait for it."""
        self._over.set()
        self.news.set()
        self.join()

    def _read(self) -> None:
        if self._tally is None:
            if not (self._folder / NAME).exists():
                return
            self._tally = Tally(Store.open(self._folder))
        self._tally.update()
        self._on_tally(self._tally)
