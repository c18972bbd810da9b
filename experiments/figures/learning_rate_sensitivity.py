"""The figure of `experiments.learning_rate_sensitivity`."""

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.drawing import bars, legend_below
from experiments.spread import TREATMENTS
from gdkit import plots

if TYPE_CHECKING:
    from experiments.learning_rate_sensitivity import Sensitivity


def draw(result: "Sensitivity") -> Figure:
    """One figure, a row a problem: loss against the learning rate; sensitivity by optimizer and treatment."""
    figure = Figure(figsize=(11, 7.6), layout="constrained")
    for (left, right), problem in zip(figure.subplots(len(result.runs), 2), result.runs, strict=True):
        for number, family in enumerate(result.settings["optimizers"]):
            found = result.spread(problem, family, "plain")
            loss = np.minimum(found.losses, found.start).mean(axis=1)
            left.plot(found.rates, loss, label=family, linewidth=1.1, markersize=4, **plots.style.series(number))
        left.set(xscale="log", yscale="log", ylabel=f"{problem}\nmin(validation loss, loss at the start)")
        plots.style.tidy_ticks(left.yaxis)
        _draw_ranking(right, result, problem)
    left.set_xlabel("learning rate (plain: cosine decay alone)")
    right.set_xlabel("sensitivity (nats), with 95 % of resampled seeds")
    for ax in (left, right):
        legend_below(ax, 4, drop=0.18)
    return figure


def _draw_ranking(ax: Axes, result: "Sensitivity", problem: str) -> None:
    ranked = result.ranked(problem)
    for number, treatment in enumerate(TREATMENTS):
        found = [result.spread(problem, family, treatment) for family in ranked]
        value = np.array([s.sensitivity for s in found])
        interval = np.array([s.interval for s in found]).T
        heights = np.arange(len(ranked)) + 0.18 * (number - 1.5)
        look: dict[str, Any] = plots.style.series(number) | {"label": treatment, "markersize": 5, "elinewidth": 1}
        bars(ax, heights, value, interval, flat=True, **look)
    ax.set_yticks(range(len(ranked)), ranked)
    ax.set_ylim(len(ranked) - 0.5, -0.5)
    for place in range(1, len(ranked)):
        ax.axhline(place - 0.5, color="0.85", linewidth=0.8)
    ax.set_xlim(left=0)
