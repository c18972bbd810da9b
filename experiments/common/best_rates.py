"""The best learning rate between those of a grid, and how sure seeds make it."""

from typing import NamedTuple

import numpy as np

from gdkit import SweepResult


def vertex(rates: np.ndarray, losses: np.ndarray) -> float:
    """Where the parabola through the least loss and its neighbours, on log axes, is lowest; at an end, the end.

    Args:
      rates: at equal ratios, (rates,).
      losses: above 0, infinite where runs diverged, (rates,).

    >>> round(vertex(np.array([0.1, 1.0, 10.0]), np.array([2.0, 1.0, 2.0])), 6)
    1.0
    """
    least = int(np.argmin(losses))
    if not inside(rates, rates[least]) or not np.isfinite(losses[least - 1 : least + 2]).all():
        return float(rates[least])
    before, at, after = np.log(losses[least - 1 : least + 2])
    shift = 0.5 * (before - after) / (before - 2 * at + after)
    return float(rates[least] * (rates[1] / rates[0]) ** shift)


def inside(rates: np.ndarray, best: float | np.ndarray) -> np.ndarray:
    """Whether a best learning rate lies inside the grid: one at an end may lie beyond it."""
    return (rates[0] < best) & (best < rates[-1])


def resampled(losses: np.ndarray, times: int = 400) -> np.ndarray:
    """Means over all seeds, and over seeds drawn anew, (1 + times, rates), of losses (rates, seeds)."""
    seeds = losses.shape[1]
    picks = np.random.default_rng(0).integers(seeds, size=(times, seeds))
    return np.stack([losses[:, pick].mean(axis=1) for pick in (np.arange(seeds), *picks)])


def curve(found: SweepResult) -> tuple[np.ndarray, np.ndarray]:
    """Learning rates of a sweep, and the mean score over seeds at each, (rates,)."""
    return found.axes["learning_rate"], found.scores().reshape(-1, found.seeds).mean(axis=1)


class Best(NamedTuple):
    """The best learning rate at each batch size."""

    batch_sizes: np.ndarray  # (sizes,)
    drawn: np.ndarray  # (1 + resamples, sizes): of all seeds, then of seeds drawn anew

    @property
    def rates(self) -> np.ndarray:
        """Of all seeds, (sizes,)."""
        return self.drawn[0]

    @property
    def interval(self) -> np.ndarray:
        """95 % of resampled seeds, (2, sizes)."""
        return np.quantile(self.drawn, [0.025, 0.975], axis=0)

    def slope(self, least: float = 0, most: float = np.inf) -> tuple[float, float, float]:
        """The exponent of the batch size from `least` to `most`, and its 95 % interval."""
        kept = (least <= self.batch_sizes) & (self.batch_sizes <= most)
        x = np.log(self.batch_sizes[kept])
        slopes = np.log(self.drawn[:, kept]) @ (x - x.mean()) / np.sum((x - x.mean()) ** 2)  # least squares
        low, high = np.quantile(slopes, [0.025, 0.975])
        return float(slopes[0]), float(low), float(high)
