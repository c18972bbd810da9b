"""A run while it goes on: what its finished tiles say, and a report that is written again and again."""

import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gdkit.errors import GdkitError, warn
from gdkit.monitors import EndKind
from gdkit.store import RESULTS, Store
from gdkit.store.manifest import NAME
from gdkit.sweeps.description import Description
from gdkit.sweeps.execution.progress import Progress

SHARE = 50  # what took so long is not done again before this many times as long: less than 2 % of the run's time
_LOOK_SHARE = 200  # the same of looking at tiles: a quarter of a hundredth of two cores
_LOOK_EVERY = 1.0  # seconds, at least
WRITE_EVERY = 5.0
FIRST = 0.3  # seconds of processor time that a first report is taken to need


class OptimizerTally(NamedTuple):
    """What is known of one optimizer's runs so far."""

    label: str
    lanes: int
    finished: int
    diverged: int
    best: float | None  # the least score of a run; None before the first that did not diverge
    at: dict[str, float | str]  # that run's place on the axes


class Tally:
    """Counts over the finished tiles of a run directory, each read once."""

    def __init__(self, run: Store):
        self.run = run
        self.by = "validation_loss" if "validation_loss" in run.manifest.columns else "final_loss"
        self._described = Description.from_json(run.manifest.plan["result"])
        seeds = int(self._described.attrs["seeds"])
        sizes = [grid.points * seeds for grid in self._described.grids]
        self._seeds, self._starts = seeds, np.cumsum([0, *sizes])
        self._seen = np.zeros(run.partition.tiles, bool)
        labels = [grid.label or "" for grid in self._described.grids]
        self.parts = [OptimizerTally(label, size, 0, 0, None, {}) for label, size in zip(labels, sizes, strict=True)]

    @property
    def finished(self) -> int:
        """How many lanes have been seen."""
        return sum(part.finished for part in self.parts)

    def look(self) -> None:
        """Adds what has been finished since the last look."""
        for tile in map(int, np.flatnonzero(self.run.finished() & ~self._seen)):
            self._seen[tile] = True
            self._add(self.run.partition.lanes_of(tile), self.run.tile(tile, ["end_kind", self.by]))

    def _add(self, lanes: np.ndarray, rows: dict[str, np.ndarray]) -> None:
        number = int(np.searchsorted(self._starts, lanes[0], side="right")) - 1  # a tile is of one optimizer
        part = self.parts[number]
        lost = np.isin(rows["end_kind"], (EndKind.NONFINITE, EndKind.EXCEEDED))
        score = np.where(lost | ~np.isfinite(rows[self.by]), np.inf, rows[self.by].astype(float))
        first = int(np.argmin(score))
        if np.isfinite(score[first]) and (part.best is None or score[first] < part.best):
            part = part._replace(best=float(score[first]), at=self._at(number, int(lanes[first])))
        part = part._replace(finished=part.finished + len(lanes), diverged=part.diverged + int(lost.sum()))
        self.parts[number] = part

    def _at(self, number: int, lane: int) -> dict[str, float | str]:
        """The place of a lane on the axes of its optimizer."""
        grid, axes = self._described.grids[number], self._described.axes[number]
        point = (lane - int(self._starts[number])) // self._seeds
        places = np.unravel_index(point, [size for *_, size in grid.dimensions]) if grid.dimensions else ()
        pairs = zip(grid.dimensions, places, strict=True)
        return {name: axes[name][place].item() for (_, names, _), place in pairs for name in names}


@contextmanager
def watching(
    folder: Path,
    tell: Callable[[Progress], None],
    show: Callable[[Tally], None],
    write: Callable[[float], None] | None = None,
) -> Generator[Callable[[Progress], None]]:
    """A callback for the engine; a thread of its own looks at the tiles that are finished, shows and writes.

    Args:
      folder: the run directory.
      tell: what is told of progress, in the threads that make it.
      show: what is told of the tiles.
      write: writes the report; is told after how many seconds it will be called again at the earliest.
    """
    watcher = _Watcher(folder, show, write)
    lanes = [-1]

    def noted(progress: Progress) -> None:
        tell(progress)
        if progress.lanes_done != lanes[0]:
            lanes[0] = progress.lanes_done
            watcher.news.set()

    watcher.start()
    try:
        yield noted
    finally:
        watcher.over.set()
        watcher.news.set()
        watcher.join()


class _Watcher(threading.Thread):
    """Looks when there is news, and rests for many times what looking or writing has taken."""

    def __init__(self, folder: Path, show: Callable[[Tally], None], write: Callable[[float], None] | None):
        super().__init__(name="gdkit-watcher", daemon=True)
        self.news, self.over = threading.Event(), threading.Event()
        self._folder, self._show, self._write = folder, show, write
        self._tally: Tally | None = None
        self._written = 0  # lanes in the report
        self._due = time.monotonic() + SHARE * FIRST
        self._pause = WRITE_EVERY

    def run(self) -> None:
        """What the thread does; a run never fails because nobody could watch it."""
        try:
            while not self.over.is_set():
                self.news.wait(WRITE_EVERY)
                self.news.clear()
                if not self.over.is_set():
                    rest = max(_LOOK_EVERY, _LOOK_SHARE * _timed(self._look))
                    self._report()
                    self.over.wait(rest)
        except (GdkitError, OSError) as error:
            warn(f"progress can no longer be shown: {error} The run goes on.")

    def _look(self) -> None:
        if self._tally is None:
            if not (self._folder / NAME).exists():
                return
            self._tally = Tally(Store.open(self._folder))
        self._tally.look()
        self._show(self._tally)

    def _report(self) -> None:
        """Writes the report, if there is something new to be told and it is not too soon."""
        write, finished = self._write, self._tally.finished if self._tally else 0
        if write is None or finished == self._written or time.monotonic() < self._due:
            return
        self._pause = max(WRITE_EVERY, SHARE * _timed(lambda: write(self._pause)))
        self._written, self._due = finished, time.monotonic() + self._pause


def _timed(work: Callable[[], object]) -> float:
    """Seconds of processor time that `work` takes in this thread; waiting for a processor is not its fault."""
    start = time.thread_time()
    work()
    return time.thread_time() - start


def is_over(folder: Path) -> bool:
    """Whether some process has written the results of all runs, and so the report."""
    return (folder / RESULTS).exists()
