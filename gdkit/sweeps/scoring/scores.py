"""Scores of points over their seeds: which points can be ranked, their means, and the best of several that tie.

A score is small if a point is good, and infinite if a lane diverged; `direction.orient` converts values to scores.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr

from gdkit.errors import bad_value
from gdkit.formatting import count, format_number, html
from gdkit.sweeps.scoring.lane_values import SweepLike, end_values
from gdkit.types import State


@dataclasses.dataclass(frozen=True)
class Best:
    """The point with the best mean score over its seeds."""

    hyperparameters: dict[str, Any]
    by: str
    score: float  # in the units of `by`: an accuracy of 0.95 is 0.95
    spread: float  # standard deviation over seeds
    lanes: xr.Dataset = dataclasses.field(repr=False)  # of this point, dimension lane: one per seed
    lane_numbers: tuple[int, ...] = ()  # of these lanes in the result
    states: Callable[[int], State] | None = dataclasses.field(default=None, repr=False, compare=False)  # seed -> state

    def __getstate__(self) -> dict[str, Any]:
        """All but the states, which stay in their process."""
        return vars(self) | {"states": None}

    def state(self, seed: int = 0) -> State:
        """The state of the run of a seed at this point, as `SweepResult.state` returns it."""
        return state_of_seed(self.states, seed, self.lanes.sizes["lane"])

    def mean(self, name: str) -> float:
        """Mean over seeds of a variable at the end of the runs, for example ``test_accuracy``."""
        return float(end_values(self.lanes)[name].mean())

    def __str__(self) -> str:
        shown = lambda value: format_number(value) if isinstance(value, float) else value
        point = ", ".join(f"{name} {shown(value)}" for name, value in self.hyperparameters.items())
        seeds = count(self.lanes.sizes["lane"], "seed")
        return f"{point}: {self.by} {format_number(self.score)}, spread {format_number(self.spread)} over {seeds}"

    _repr_html_ = html.preformat


def state_of_seed(states: Callable[[int], State] | None, seed: int, seeds: int) -> State:
    """The state of a seed of a point.

    Raises:
      InputValueError: there is no such seed, or there are no states.
    """
    if states is None:
        raise bad_value("states", None, "they stay in the process of the sweep", "Use SweepResult.state there")
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < seeds:
        raise bad_value("seed", seed, "no such seed", f"Pass 0 to {seeds - 1}" if seeds else "No value is recommended")
    return states(int(seed))


def rankable_points(scores: np.ndarray, finished: np.ndarray) -> np.ndarray:
    """Mask of points with enough finished seeds to rank, (points,); the arguments are (points, seeds).

    These are the points all of whose seeds have finished. Where none of these has a finite mean, as at the beginning of
    a run, they are those with any finished seed.
    """
    whole = np.asarray(finished.all(axis=1))
    return whole if np.isfinite(scores[whole]).all(axis=1).any() else np.asarray(finished.any(axis=1))


def mean_scores(scores: np.ndarray, finished: np.ndarray) -> np.ndarray:
    """Means over the finished seeds, (points,); infinite where a point cannot be ranked."""
    count = np.where(rankable_points(scores, finished), finished.sum(axis=1), 0)
    return np.where(count > 0, np.where(finished, scores, 0.0).sum(axis=1) / np.maximum(count, 1), np.inf)


def find_bracket(values: np.ndarray, diverged: np.ndarray) -> tuple[float, float, bool]:
    """The value below the first that diverged, that value, and whether all above it diverged too.

    Args:
      values: increasing, (values,).
      diverged: whether the run at each diverged, (values,).

    Returns:
      The lower value is 0 where the first value diverged; the upper one is infinite where none did.
    """
    if not diverged.any():
        return (values[-1] if len(values) else 0.0), np.inf, True
    first = int(np.argmax(diverged))
    return (values[first - 1] if first else 0.0), values[first], bool(diverged[first:].all())


def rounding_error(initial_loss: np.ndarray) -> float:
    """The largest difference of scores that single precision does not resolve, for losses like the initial ones."""
    start = np.abs(initial_loss.astype(float))
    finite = start[np.isfinite(start)]
    return float(np.finfo(np.float32).eps * np.median(finite)) if finite.size else 0.0


def best_place(scores: np.ndarray, rounding: float) -> int:
    """The place of the lowest score; of several within `rounding` of it, the middle one.

    >>> best_place(np.array([3.0, 0.0, 1e-9, 0.0, 2.0]), 1e-7)
    2
    """
    tied = np.flatnonzero(scores <= scores.min() + rounding) if np.isfinite(scores).any() else np.zeros(1, int)
    return int(tied[(len(tied) - 1) // 2])


def best_point(result: SweepLike, mean: np.ndarray, rounding: float) -> int:
    """The point with the lowest mean, (points,); of several within `rounding` of it, the one in the middle.

    The middle is taken along one axis after another, `main_axis` last: in the order of lanes the middle of ties over
    several axes may lie at the end of one of them.
    """
    point, tied = best_place(mean, rounding), mean <= mean.min() + rounding
    if not np.isfinite(mean[point]) or np.count_nonzero(tied) == 1:
        return point
    ends = np.cumsum([grid.points for grid in result.grids])
    number = int(np.searchsorted(ends, point, side="right"))
    grid, end = result.grids[number], int(ends[number])
    points = np.arange(end - grid.points, end).reshape(grid.shape)
    for i in sorted(range(points.ndim), key=lambda i: result.main_axis in grid.dimensions[i][1]):
        place = np.argwhere(points == point)[0]
        line = points[(*place[:i], slice(None), *place[i + 1 :])]
        line = line[tied[line]]
        values = result.lanes[grid.dimensions[i][1][0]].values[line * result.seeds]
        ordered = line[np.argsort(values, kind="stable")] if values.dtype.kind in "fiu" else line
        point = int(ordered[(len(ordered) - 1) // 2])
    return point
