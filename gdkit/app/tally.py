"""Counts over the finished tiles of a run directory, for progress while the run is unfinished."""

from typing import NamedTuple

import numpy as np

from gdkit.regimes import has_left_bounds
from gdkit.store import Store
from gdkit.sweeps.description import Description
from gdkit.sweeps.scoring.direction import default_score, is_maximized, maximized_names, orient


class OptimizerTally(NamedTuple):
    """The finished runs of one optimizer so far."""

    label: str
    lanes: int
    finished: int
    diverged: int
    best: float | None  # best mean score over the seeds of a point; None before all seeds of a point have converged
    best_at: dict[str, float | str]  # that point's values on the axes
    maximize: bool = False  # whether larger scores are better
    by: str = ""  # the variable that points are compared by


class Tally:
    """Counts over the finished tiles of a run directory; each tile is read once."""

    def __init__(self, store: Store):
        self.store = store
        self._description = Description.from_json(store.manifest.plan["result"])
        maximized = maximized_names(self._description.attrs)
        self.by = default_score(store.manifest.columns, maximized)
        self._maximize = is_maximized(maximized, self.by)
        self._seeds = int(self._description.attrs["seeds"])
        sizes = [grid.points * self._seeds for grid in self._description.grids]
        self._starts = np.cumsum([0, *sizes])
        self._counted = np.zeros(store.partition.tiles, bool)
        points = int(self._starts[-1]) // self._seeds
        self._sums, self._seen = np.zeros(points), np.zeros(points, int)  # of scores, and finished seeds, by point
        labels = [grid.label or "" for grid in self._description.grids]
        self.optimizers = [
            OptimizerTally(label, size, 0, 0, None, {}, self._maximize, self.by)
            for label, size in zip(labels, sizes, strict=True)
        ]

    @property
    def finished(self) -> int:
        """Number of lanes counted."""
        return sum(optimizer.finished for optimizer in self.optimizers)

    def update(self) -> None:
        """Count the tiles that have finished since the last call."""
        for tile in map(int, np.flatnonzero(self.store.finished() & ~self._counted)):
            self._counted[tile] = True
            self._add(self.store.partition.lanes_of(tile), self.store.tile(tile, ["end_kind", self.by]))

    def _add(self, lanes: np.ndarray, rows: dict[str, np.ndarray]) -> None:
        index = int(np.searchsorted(self._starts, lanes[0], side="right")) - 1  # a tile holds one optimizer only
        optimizer = self.optimizers[index]
        diverged = has_left_bounds(rows)
        values = rows[self.by].astype(float)
        values = values if values.ndim == 1 else values[:, -1]  # of evaluations along the run, that at the end
        scores = np.where(diverged | ~np.isfinite(values), np.inf, orient(values, self._maximize))
        points = self._complete_points(lanes, scores)
        means = self._sums[points] / self._seeds
        if len(points) and np.isfinite(means.min()):
            best, mean = int(points[np.argmin(means)]), orient(float(means.min()), self._maximize)
            if optimizer.best is None or means.min() < orient(optimizer.best, self._maximize):
                optimizer = optimizer._replace(best=mean, best_at=self._get_axis_values(index, best * self._seeds))
        self.optimizers[index] = optimizer._replace(
            finished=optimizer.finished + len(lanes), diverged=optimizer.diverged + int(diverged.sum())
        )

    def _complete_points(self, lanes: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """The points whose last seed is among these lanes; a diverged seed counts as an infinite score."""
        points = lanes // self._seeds
        np.add.at(self._sums, points, scores)
        np.add.at(self._seen, points, 1)
        points = np.unique(points)
        return points[self._seen[points] == self._seeds]

    def _get_axis_values(self, index: int, lane: int) -> dict[str, float | str]:
        """The values of a lane on the axes of its optimizer."""
        grid, axes = self._description.grids[index], self._description.axes[index]
        point = (lane - int(self._starts[index])) // self._seeds
        places = np.unravel_index(point, [size for *_, size in grid.dimensions]) if grid.dimensions else ()
        pairs = zip(grid.dimensions, places, strict=True)
        return {name: axes[name][place].item() for (_, names, _), place in pairs for name in names}
