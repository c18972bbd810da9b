"""The best learning rate, interpolated between those of a grid, and its interval over seeds."""

from typing import NamedTuple

import numpy as np


def interpolate_best_rate(rates: np.ndarray, losses: np.ndarray) -> float:
    """Vertex of the parabola, on log axes, through the smallest loss and its neighbors.

    At an end of the grid, or beside a run that diverged, it is the learning rate of the smallest loss itself.

    Args:
      rates: at equal ratios, (rates,).
      losses: above 0, infinite where runs diverged, (rates,).

    >>> round(interpolate_best_rate(np.array([0.1, 1.0, 10.0]), np.array([2.0, 1.0, 2.0])), 6)
    1.0
    """
    best = int(np.argmin(losses))
    if not is_inside(rates, rates[best]) or not np.isfinite(losses[best - 1 : best + 2]).all():
        return float(rates[best])
    before, at, after = np.log(losses[best - 1 : best + 2])
    shift = 0.5 * (before - after) / (before - 2 * at + after)
    return float(rates[best] * (rates[1] / rates[0]) ** shift)


def choose_rate(scores: np.ndarray, tolerance: float = 0.0) -> tuple[int, np.ndarray]:
    """The learning rate with the smallest mean over half of the seeds, and the scores of the others there.

    A score at which the learning rate was chosen looks better than one that is drawn anew. Of learning rates that are
    equally good the middle one is chosen, as `SweepResult.recommend` does: the largest may be next to the edge.

    Args:
      scores: smaller is better, NaN where runs diverged, (rates, seeds), with at least two seeds.
      tolerance: means that differ from the smallest by at most this much are equally good.

    Returns:
      The index of the learning rate, and the scores of the seeds that did not choose it, (seeds // 2,) or one more.

    >>> choose_rate(np.array([[1.0, 1.0, 4.0], [3.0, 3.0, 3.0]]))
    (0, array([1., 4.]))
    >>> choose_rate(np.array([[2e-7, 0.0], [1e-7, 0.0], [0.0, 9.0]]), tolerance=1e-6)
    (1, array([0.]))
    """
    half = scores.shape[1] // 2
    means = np.nan_to_num(scores[:, :half].mean(axis=1), nan=np.inf)
    tied = np.flatnonzero(means <= means.min() + tolerance)
    best = int(tied[(len(tied) - 1) // 2])
    return best, scores[best, half:]


def is_inside(rates: np.ndarray, best: float | np.ndarray) -> np.ndarray:
    """Whether the best learning rate lies between the ends of the grid: at an end the optimum may lie beyond."""
    return (rates[0] < best) & (best < rates[-1])


def resample_means(losses: np.ndarray, times: int = 400) -> np.ndarray:
    """Means of losses (rates, seeds) over all seeds, then over bootstrap samples of the seeds: (1 + times, rates)."""
    seeds = losses.shape[1]
    picks = np.random.default_rng(0).integers(seeds, size=(times, seeds))
    return np.stack([losses[:, pick].mean(axis=1) for pick in (np.arange(seeds), *picks)])


class BestRates(NamedTuple):
    """The best learning rate at each batch size."""

    batch_sizes: np.ndarray  # (sizes,)
    samples: np.ndarray  # (1 + bootstrap samples, sizes): over all seeds, then over resampled seeds

    @property
    def rates(self) -> np.ndarray:
        """Best learning rates over all seeds, (sizes,)."""
        return self.samples[0]

    @property
    def interval(self) -> np.ndarray:
        """95 % bootstrap interval over seeds, (2, sizes)."""
        return np.quantile(self.samples, [0.025, 0.975], axis=0)

    def exponent(self, low: float = 0, high: float = np.inf) -> tuple[float, float, float]:
        """Exponent of the batch size between `low` and `high` in the best learning rate, and its 95 % interval."""
        selected = (low <= self.batch_sizes) & (self.batch_sizes <= high)
        x = np.log(self.batch_sizes[selected])
        # The slope of a least-squares line.
        slopes = np.log(self.samples[:, selected]) @ (x - x.mean()) / np.sum((x - x.mean()) ** 2)
        below, above = np.quantile(slopes, [0.025, 0.975])
        return float(slopes[0]), float(below), float(above)
