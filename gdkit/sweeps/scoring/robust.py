"""Robust scores: those of the points of a grid, shrunk towards their neighbors, so that a lucky point does not win.

The best of many noisy means is optimistic. A curve over hyperparameters is smooth, so luck shows as the distance of a
point from the line through its neighbors, and the spread over seeds shows how much of that distance is noise.
docs/recommendation.md has the rule and its measured regret.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

PASSES = 8  # passes of shrinkage along every axis: strong noise is averaged over about ±3 neighbors
NEAR = 3.0  # on the scale: a factor of 20. Points so near the best share one estimate of noise and roughness
ISOLATED = 3.0  # a point counts as at most this many times better than the better of its neighbors
TIED = 1e-3  # on the scale: 0.1 %. Points that differ by less tie
RESOLVED = 1e-3  # share of the distance between start and floor; smaller differences of scores are ignored


class Scale(NamedTuple):
    """How scores compare: by the logarithm of their distance from the lowest possible score, if there is one.

    Without a floor, as for log-likelihoods, by their difference in units of their median deviation.
    """

    floor: float | None  # lowest possible score
    resolution: float  # added to distances: below it scores count as equal
    center: float = 0.0
    unit: float = 1.0

    def apply(self, scores: np.ndarray) -> np.ndarray:
        """Scores on the scale."""
        if self.floor is None:
            return (scores - self.center) / self.unit
        return np.log(np.maximum(scores - self.floor, 0.0) + self.resolution)

    def invert(self, values: np.ndarray) -> np.ndarray:
        """Values on the scale as scores."""
        if self.floor is None:
            return self.center + self.unit * values
        return self.floor + np.maximum(np.exp(values) - self.resolution, 0.0)

    def slope(self, scores: np.ndarray) -> np.ndarray:
        """The derivative of the scale."""
        if self.floor is None:
            return np.full(np.shape(scores), 1 / self.unit)
        return 1 / (np.maximum(scores - self.floor, 0.0) + self.resolution)


def make_scale(mean: np.ndarray, floor: float | None, start: float, rows: int | None = None) -> Scale:
    """The scale of scores.

    Args:
      mean: scores, (points,).
      floor: the lowest possible score; None if it is unknown.
      start: a score from which learning starts.
      rows: of the data that a score is a mean over. One more row like those at the start would move the mean by their
        distance from the floor over `rows` + 1, so that no smaller difference is resolved.
    """
    finite = mean[np.isfinite(mean)]
    if floor is None:
        center = float(np.median(finite)) if finite.size else 0.0
        deviation = float(np.median(np.abs(finite - center))) if finite.size else 0.0
        return Scale(None, 0.0, center, deviation or max(float(np.ptp(finite)) if finite.size else 0.0, 1e-12))
    share = max(RESOLVED, 1 / (rows + 1)) if rows else RESOLVED
    return Scale(floor, share * max(start - floor, 1e-12))


class Robust(NamedTuple):
    """Robust scores of the points of a grid, on a scale."""

    shrunk: np.ndarray  # (*sizes, seeds); NaN where excluded
    score: np.ndarray  # (*sizes,): their mean, or the bound of an isolated point; infinite where excluded
    isolated: np.ndarray  # (*sizes,), whether a point is far better than its neighbors


def robust_scores(
    scores: np.ndarray, finished: np.ndarray, mean: np.ndarray, positions: Sequence[np.ndarray | None], scale: Scale
) -> Robust:
    """Scores shrunk towards their neighbors, and bounded by them where a point stands alone.

    Args:
      scores: (*sizes, seeds).
      finished: mask of the scores that are known, (*sizes, seeds).
      mean: over the known seeds, (*sizes,); infinite where a seed diverged, NaN where none is known.
      positions: of the points along each dimension, distinct; None for a dimension without order.
      scale: of the scores.
    """
    known = np.isfinite(mean)
    safe = np.where(known, mean, 0.0)
    with np.errstate(invalid="ignore", over="ignore"):
        deviation = np.where(
            finished & np.isfinite(scores), (scores - safe[..., None]) * scale.slope(safe)[..., None], 0.0
        )
        values = np.where(known[..., None], scale.apply(safe)[..., None] + deviation, np.nan)
    ordered = [(d, x) for d, x in enumerate(positions) if x is not None and len(x) > 1]
    shrunk = values
    for _ in range(PASSES if scores.shape[-1] > 1 else 0):
        for d, x in ordered:
            shrunk = _shrink_along(shrunk, d, x)
    score = np.where(known, shrunk.mean(axis=-1), mean)
    bound = np.full(score.shape, -np.inf)
    for d, x in ordered:
        bound = np.maximum(bound, _best_neighbor(score, d, x) - np.log(ISOLATED))
    isolated = known & (bound > score)
    return Robust(shrunk, np.where(known, np.maximum(score, bound), np.inf), isolated)


def _shrink_along(values: np.ndarray, dimension: int, positions: np.ndarray) -> np.ndarray:
    """One pass: every point moves towards the line through its neighbors by the share of its distance that is noise.

    The share is the variance over seeds of the mean distance, over its mean square, both of points near the best. Of a
    distance that is all noise, 1 / (1 + Σ w²) is the point's own, w being the weights of its neighbors.
    """
    order = np.argsort(positions)
    line = np.moveaxis(values, dimension, 0)[order]
    predicted, weight = _predict(line, positions[order])
    distance = line - predicted
    mean = line.mean(axis=-1)
    with np.errstate(invalid="ignore"):
        near = np.isfinite(distance).all(axis=-1) & (weight > 0) & (mean <= np.nanmin(mean, initial=np.inf) + NEAR)
    if not near.any():
        return values
    noise = (distance[near].var(axis=-1, ddof=1) / values.shape[-1]).mean()
    square = (distance[near].mean(axis=-1) ** 2).mean()
    share = min(noise / square, 1.0) if square > 0 else 0.0
    own = np.where(weight > 0, weight, 0.25)  # at an end of the axis half as much as one neighbor allows
    moved = line - np.nan_to_num(share * own[..., None] * distance)
    return np.moveaxis(moved[np.argsort(order)], 0, dimension)


def _predict(line: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The line through the neighbors along the first dimension, and the share of a point in its distance from it.

    Next to one neighbor alone the prediction is that neighbor, and the share 0; next to none it is NaN.
    """
    low, high = _neighbors(line)
    gap_low, gap_high = np.diff(x, prepend=np.nan), np.diff(x, append=np.nan)
    upper = gap_low / (gap_low + gap_high)  # weight of the upper neighbor
    upper = np.where(np.isfinite(upper), upper, 0.0).reshape(-1, *(1,) * (line.ndim - 1))
    both = np.isfinite(low) & np.isfinite(high)
    predicted = np.where(both, (1 - upper) * low + upper * high, np.where(np.isfinite(low), low, high))
    share = 1 / (1 + upper[..., 0] ** 2 + (1 - upper[..., 0]) ** 2)
    return predicted, np.where(both.all(axis=-1), share, 0.0)


def _best_neighbor(score: np.ndarray, dimension: int, positions: np.ndarray) -> np.ndarray:
    """The lower score of the neighbors along a dimension; −∞ where all diverged and they are not on both sides.

    Between two neighbors that diverged it is the worst score that is finite.
    """
    order = np.argsort(positions)
    line = np.moveaxis(score, dimension, 0)[order]
    low, high = _neighbors(line)
    best = np.fmin(low, high)
    worst = np.max(line, initial=-np.inf, where=np.isfinite(line))
    best = np.where(np.isfinite(best), best, np.where(np.isinf(low) & np.isinf(high), worst, -np.inf))
    return np.moveaxis(best[np.argsort(order)], 0, dimension)


def _neighbors(line: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lower and upper neighbors along the first dimension, NaN beyond it."""
    beyond = np.full((1, *line.shape[1:]), np.nan)
    return np.concatenate([beyond, line[:-1]]), np.concatenate([line[1:], beyond])
