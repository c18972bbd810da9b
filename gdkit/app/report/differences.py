"""Whether the seeds of two runs can tell their scores apart."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gdkit.formatting import format_number

_RESAMPLES = 2000
_SIGNIFICANCE = 0.05  # probability below which a difference is not attributed to chance


class Difference(NamedTuple):
    """The difference between two mean scores."""

    mean: float
    interval: tuple[float, float] | None  # 95 % bootstrap interval over seeds; None for one seed
    objection: str  # why the difference is not significant, for example "2 seeds; p = 0.5"; empty if it is

    @property
    def is_significant(self) -> bool:
        """Whether the seeds can tell the two apart."""
        return not self.objection


def compare_scores(ours: Sequence[float], theirs: Sequence[float], *, paired: bool) -> Difference:
    """Mean of `ours` minus mean of `theirs`, and whether the difference is significant.

    It is significant if a permutation test over the seeds gives p ≤ 0.05. The test exchanges the members of each pair,
    or, without pairs, seeds between the runs. It needs at least six pairs of one sign (2 / 2⁶), or four seeds above
    four others (2 / C(8, 4)).

    >>> compare_scores([0.5, 0.6, 0.7], [0.4, 0.5, 0.6], paired=True).objection
    '3 seeds; p = 0.25'
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
    p = _permutation_probability(a, b, paired)
    seeds = str(len(a)) if paired else f"{len(a)} and {len(b)}"
    return Difference(mean, interval, "" if p <= _SIGNIFICANCE else f"{seeds} seeds; p = {format_number(p, 2)}")


def _permutation_probability(a: np.ndarray, b: np.ndarray, paired: bool) -> float:
    """The two-sided probability of a mean difference at least as large if runs and seeds were unrelated."""
    from scipy.stats import permutation_test

    found = permutation_test(
        (a, b),
        lambda x, y, axis: np.mean(x, axis) - np.mean(y, axis),
        permutation_type="samples" if paired else "independent",
        vectorized=True,
        random_state=np.random.default_rng(0),
    )
    return float(found.pvalue)


def _resample_means(a: np.ndarray, b: np.ndarray, paired: bool) -> np.ndarray:
    """Differences of means over bootstrap resamples of the seeds, (resamples,)."""
    generator = np.random.default_rng(0)
    draw = lambda values: values[generator.integers(len(values), size=(_RESAMPLES, len(values)))].mean(axis=1)
    return draw(a - b) if paired else draw(a) - draw(b)
