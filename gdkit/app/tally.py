"""Counts over the finished tiles of a run directory, for progress while the run is unfinished."""

from typing import NamedTuple

import numpy as np

from gdkit.regimes import has_left_bounds
from gdkit.store import Store
from gdkit.sweeps.description import Description
from gdkit.sweeps.result.direction import default_score, is_maximized, maximized_names, orient


class OptimizerTally(NamedTuple):
    """The finished runs of one optimizer so far."""

    label: str
    lanes: int
    finished: int
    diverged: int
    best: float | None  # best score of a run; None before the first that did not diverge
    best_at: dict[str, float | str]  # that run's values on the axes
    maximize: bool = False  # whether larger scores are better


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
        labels = [grid.label or "" for grid in self._description.grids]
        self.optimizers = [
            OptimizerTally(label, size, 0, 0, None, {}, self._maximize)
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
        best = int(np.argmin(scores))
        is_better = optimizer.best is None or scores[best] < orient(optimizer.best, self._maximize)
        if np.isfinite(scores[best]) and is_better:
            optimizer = optimizer._replace(best=float(values[best]), best_at=self._axis_values(index, int(lanes[best])))
        self.optimizers[index] = optimizer._replace(
            finished=optimizer.finished + len(lanes), diverged=optimizer.diverged + int(diverged.sum())
        )

    def _axis_values(self, index: int, lane: int) -> dict[str, float | str]:
        """The values of a lane on the axes of its optimizer."""
        grid, axes = self._description.grids[index], self._description.axes[index]
        point = (lane - int(self._starts[index])) // self._seeds
        places = np.unravel_index(point, [size for *_, size in grid.dimensions]) if grid.dimensions else ()
        pairs = zip(grid.dimensions, places, strict=True)
        return {name: axes[name][place].item() for (_, names, _), place in pairs for name in names}
