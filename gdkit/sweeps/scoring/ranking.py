"""The ranking of the points of a result by robust scores."""

from typing import NamedTuple

import numpy as np

from gdkit.regimes import Regime
from gdkit.sweeps.axes import is_log
from gdkit.sweeps.description import LaneGrid
from gdkit.sweeps.scoring.lane_values import SweepLike
from gdkit.sweeps.scoring.robust import TIED, Scale, make_scale, robust_scores
from gdkit.sweeps.scoring.scores import best_point, mean_scores, rankable_points, rounding_error

UNSETTLED = 1.1  # factor by which a point counts as worse if half of its runs keep bouncing


class Ranking(NamedTuple):
    """The points of a result with their scores, which are small if good."""

    scores: np.ndarray  # (points, seeds); infinite where diverged
    finished: np.ndarray  # (points, seeds)
    ranked: np.ndarray  # mask of points with enough finished seeds, (points,)
    mean: np.ndarray  # over finished seeds, (points,)
    shrunk: np.ndarray  # (points, seeds), on the scale
    score: np.ndarray  # robust, on the scale, (points,)
    total: np.ndarray  # (points,), `score` made worse if runs do not settle; the lowest is recommended
    isolated: np.ndarray  # (points,)
    unsettled: np.ndarray  # (points,)
    scale: Scale
    optimum: float | None  # the score of a perfect point, if it is known
    rows: int | None  # number of rows that a score is a mean over, if known
    tie: float  # largest difference on the scale at which scores count as equal
    top: int  # the point with the lowest total
    plain: int  # the point with the lowest mean

    @property
    def has_noise(self) -> bool:
        """Whether seeds differ: without a random start and batches all have the same scores."""
        finite = self.scores[np.isfinite(self.scores).all(axis=1) & self.finished.all(axis=1)]
        return not finite.size or bool(np.ptp(finite, axis=1).any())


def rank(result: SweepLike, axis: str, by: str, maximize: bool) -> Ranking:
    """Rank the points of the optimizers that have `axis`."""
    finished = result.finished.reshape(-1, result.seeds)
    scores = result.scores(by, maximize).reshape(finished.shape)
    has_axis = np.repeat([axis in grid.axes for grid in result.grids], [grid.points for grid in result.grids])
    ranked = rankable_points(np.where(has_axis[:, None], scores, np.inf), finished) & has_axis
    mean = np.where(has_axis, mean_scores(scores, finished), np.inf)
    optimum = _optimum(result, by, maximize)
    rows = int(result.lanes.attrs.get("validation_rows") or 0) if by.startswith("validation_") else 0
    scale = make_scale(mean, _floor(optimum, mean, by), _start(result, mean, by, optimum), rows)
    parts = [
        _robust_grid(result, grid, part, scores, finished, np.where(ranked, mean, np.nan), scale)
        for grid, part in zip(result.grids, _cut_points(result), strict=True)
    ]
    shrunk, score, isolated = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    regimes = result.lane_regimes.reshape(finished.shape)
    unsettled = np.mean(regimes == Regime.BOUNCING, axis=1) >= 0.5
    total = score + np.log(UNSETTLED) * unsettled
    rounding = rounding_error(result.lanes["initial_loss"].values)
    slope = float(scale.slope(np.min(mean, initial=np.inf)) if np.isfinite(mean).any() else 0)
    tie = max(TIED, rounding * slope)
    top, plain = best_point(result, total, tie), best_point(result, mean, rounding)
    return Ranking(
        scores, finished, ranked, mean, shrunk, score, total, isolated, unsettled, scale, optimum, rows or None, tie,
        top, plain,
    )  # fmt: skip


def points_along(result: SweepLike, axis: str, point: int) -> np.ndarray:
    """The points that differ from `point` along the dimension of `axis` only, by increasing value; (values,)."""
    for grid, part in zip(result.grids, _cut_points(result), strict=True):
        if axis in grid.axes and part.start <= point < part.stop:
            points = np.arange(part.start, part.stop).reshape(grid.shape)
            points = np.moveaxis(points, grid.find_dimension(axis), -1)
            line = points[(points == point).any(axis=-1)][0]
            return line[np.argsort(result.lanes[axis].values[line * result.seeds], kind="stable")]
    raise ValueError(f"point {point} has no {axis}")


def _cut_points(result: SweepLike) -> list[slice]:
    """The points of each grid."""
    ends = np.cumsum([grid.points for grid in result.grids]).tolist()
    return [slice(end - grid.points, end) for grid, end in zip(result.grids, ends, strict=True)]


def _robust_grid(
    result: SweepLike,
    grid: LaneGrid,
    part: slice,
    scores: np.ndarray,
    finished: np.ndarray,
    mean: np.ndarray,
    scale: Scale,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shrunk scores (points, seeds), robust scores and the mask of isolated points of one grid."""
    shape = lambda array: array[part].reshape(*grid.shape, *array.shape[1:])
    places = np.arange(part.start, part.stop).reshape(grid.shape)
    first_line = lambda d: np.moveaxis(places, d, 0).reshape(places.shape[d], -1)[:, 0]
    positions = [_positions(result, names, first_line(d)) for d, (_, names, _) in enumerate(grid.dimensions)]
    found = robust_scores(shape(scores), shape(finished), shape(mean), positions, scale)
    return found.shrunk.reshape(-1, result.seeds), found.score.ravel(), found.isolated.ravel()


def _positions(result: SweepLike, names: tuple[str, ...], points: np.ndarray) -> np.ndarray | None:
    """Positions along a dimension, by the first of its axes with distinct numbers; None without one."""
    for name in names:
        values = result.lanes[name].values[points * result.seeds]
        if values.dtype.kind in "fiu" and len(np.unique(values)) == len(values):
            return np.log(values.astype(float)) if is_log(values) else values.astype(float)
    return None


def _optimum(result: SweepLike, by: str, maximize: bool) -> float | None:
    """The score of a perfect point: that of a full accuracy or R², or the known optimum of the loss."""
    if maximize and by.rpartition("_")[2] in ("accuracy", "r2"):
        return -1.0
    if by.endswith("_loss") and not maximize and result.lanes.attrs["optimum_known"]:
        return float(np.min(result.lanes["reference_loss"].values))
    return None


def _floor(optimum: float | None, mean: np.ndarray, by: str) -> float | None:
    """The lowest possible score; 0 if no score is negative."""
    finite = mean[np.isfinite(mean)]
    return optimum if optimum is not None else 0.0 if (finite >= 0).all() else None


def _start(result: SweepLike, mean: np.ndarray, by: str, optimum: float | None) -> float:
    """A score from which learning starts: the initial loss, an accuracy of 0, or the middle of all scores."""
    start = result.lanes["initial_loss"].values if by.endswith("_loss") else mean
    finite = start[np.isfinite(start)]
    return 0.0 if optimum == -1.0 and not by.endswith("_loss") else float(np.median(finite)) if finite.size else 1.0
