"""How much each axis of a sweep matters: the variance of the ranks of its points, divided among the axes."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from gdkit.app.labels import humanize
from gdkit.app.summary import results_by_optimizer
from gdkit.sweeps.result.result import SweepResult


class AxisImportance(NamedTuple):
    """Shares of the variance that an axis explains; Sobol' indices."""

    name: str  # in words; of axes that vary together, all of them
    alone: float  # by itself: the first-order index
    total: float  # with its interactions: the total index


def axis_importances(result: SweepResult, by: str) -> dict[str, list[AxisImportance]]:
    """The axes of each optimizer that has at least two, the most important first, by label.

    The ranks are those of the means over seeds of `by`; points with a diverged seed share the last rank. Optimizers
    with unfinished runs, or whose points are all equal, are omitted.
    """
    found = {label: _rank_axes(one, by) for label, one in results_by_optimizer(result).items()}
    return {label: axes for label, axes in found.items() if axes}


def describe_importance(axes: Sequence[AxisImportance]) -> str:
    """What the axes explain, in one sentence.

    >>> describe_importance([AxisImportance("learning rate", 0.7, 0.8), AxisImportance("momentum", 0.2, 0.3)])
    'learning rate explains 70 % of the variance, momentum 20 %; interactions and seed noise the other 10 %.'
    """
    percents = [round(100 * axis.alone) for axis in axes]
    rest = round(100 * (1 - sum(axis.alone for axis in axes)))
    others = [f"{axis.name} {percent} %" for axis, percent in zip(axes[1:], percents[1:], strict=True)]
    listed = ", ".join([f"{axes[0].name} explains {percents[0]} % of the variance", *others])
    return listed + (f"; interactions and seed noise the other {rest} %." if rest > 0 else ".")


def decompose_variance(values: np.ndarray) -> list[tuple[float, float]]:
    """The first-order and the total Sobol' index of each dimension of a whole grid; NaN if all values are equal.

    On a whole grid the functional ANOVA is exact: its terms are differences of means (Sobol', Global sensitivity
    indices, 2001; Hutter, Hoos and Leyton-Brown, An efficient approach for assessing hyperparameter importance, 2014).

    >>> decompose_variance(np.add.outer([0.0, 4.0], [0.0, 3.0]))
    [(0.64, 0.64), (0.36, 0.36)]
    """
    every = tuple(range(values.ndim))
    variance = values.var()
    if not variance > 0:
        return [(np.nan, np.nan)] * values.ndim
    others = lambda i: tuple(j for j in every if j != i)
    share = lambda axes: float(values.mean(axis=axes).var() / variance)
    return [(share(others(i)), 1.0 - share((i,))) for i in every]


def _rank_axes(result: SweepResult, by: str) -> list[AxisImportance]:
    """The axes of one optimizer with at least two values, the most important first; empty for fewer than two."""
    dimensions = result.grids[0].dimensions
    shape = tuple(size for _, _, size in dimensions)
    names = [" with ".join(map(humanize, axes)) for _, axes, size in dimensions if size > 1]
    if len(names) < 2 or result.missing:
        return []
    means = result.scores(by).reshape(*shape, result.seeds).mean(axis=-1)
    ranks = pd.Series(means.ravel()).rank().to_numpy()  # equal values share the mean of their ranks
    shares = decompose_variance(ranks.reshape([size for size in shape if size > 1]))
    axes = [AxisImportance(name, *pair) for name, pair in zip(names, shares, strict=True)]
    return sorted(axes, key=lambda axis: -axis.alone) if np.isfinite(shares).all() else []
