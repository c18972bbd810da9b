"""Whether the seeds of two runs can tell their scores apart."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_RESAMPLES = 2000
_SIGNIFICANCE = 0.05  # probability below which a difference is not attributed to chance


class Difference(NamedTuple):
    """The difference between two mean scores."""

    mean: float
    interval: tuple[float, float] | None  # 95 % bootstrap interval over seeds; None for one seed
    objection: str  # why the difference is not significant; empty if it is

    @property
    def is_significant(self) -> bool:
        """Whether the seeds can tell the two apart."""
        return not self.objection


def compare_scores(ours: Sequence[float], theirs: Sequence[float], *, paired: bool) -> Difference:
    """Mean of `ours` minus mean of `theirs`, and whether the difference is significant.

    It is significant if the bootstrap interval excludes 0, and if chance alone separates that many seeds as clearly
    with a probability of at most 5 %: six pairs of one sign (2 / 2⁶), or four seeds above four others (2 / C(8, 4)).

    >>> compare_scores([0.5, 0.6, 0.7], [0.4, 0.5, 0.6], paired=True).objection
    '3 seeds agree by chance once in 4'
    """
    a, b = np.asarray(ours, float), np.asarray(theirs, float)
    if np.isnan([*a, *b]).any():
        return Difference(float("nan"), None, "some seed has not finished")
    mean = float(a.mean() - b.mean())
    if not np.isfinite(mean):
        return Difference(mean, None, "some seed diverged")
    if min(len(a), len(b)) < 2:
        return Difference(mean, None, "one seed")
    low, high = np.quantile(_resample_means(a, b, paired), [0.025, 0.975])
    interval = (float(low), float(high))
    if low <= 0 <= high:
        return Difference(mean, interval, "the interval contains 0")
    chance = 2.0 ** (1 - len(a)) if paired else 2 / math.comb(len(a) + len(b), len(a))
    if chance > _SIGNIFICANCE:
        seeds = len(a) if paired else f"{len(a)} and {len(b)}"
        return Difference(mean, interval, f"{seeds} seeds agree by chance once in {round(1 / chance)}")
    return Difference(mean, interval, "")


def _resample_means(a: np.ndarray, b: np.ndarray, paired: bool) -> np.ndarray:
    """Differences of means over bootstrap resamples of the seeds, (resamples,)."""
    generator = np.random.default_rng(0)
    draw = lambda values: values[generator.integers(len(values), size=(_RESAMPLES, len(values)))].mean(axis=1)
    return draw(a - b) if paired else draw(a) - draw(b)
