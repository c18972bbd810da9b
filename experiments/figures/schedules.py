"""The figure of `experiments.schedules`."""

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.drawing import BORDER, FORMULA, INK, STAR
from gdkit import plots

if TYPE_CHECKING:
    from experiments.schedules import Schedules, Watched


def draw(result: "Schedules") -> Figure:
    """One figure: validation loss against learning rate, where each schedule diverges, and sharpness in a warm-up."""
    figure = Figure(figsize=(13, 4.4), layout="constrained")
    scores, edges, watched = figure.subplots(1, 3, width_ratios=(1.25, 1, 1))
    for number, name in enumerate(result.runs.optimizers):
        _draw_scores(scores, result, name, number)
        values, color = result.edges[name], plots.SERIES_COLORS[number]
        heights = number + np.linspace(-0.16, 0.16, len(values))
        edges.plot(values, heights, "o", markersize=4, color=color, markeredgecolor=INK, markeredgewidth=0.4)
        edges.plot(np.median(values), number, "|", markersize=24, markeredgewidth=2.5, color=color)
    scores.set(xscale="log", yscale="log", xlabel="peak learning rate", ylabel="validation loss (squared error)")
    scores.legend(frameon=False, fontsize="small", loc="lower left")
    edges.set(xscale="log", xlabel="where divergence begins: seeds, median", ylim=(len(result.edges) - 0.5, -0.5))
    edges.set_yticks(range(len(result.edges)), [name.replace(", ", ",\n", 1) for name in result.edges])
    edges.axvline(np.median(result.edges[result.runs.optimizers[0]]), **BORDER)  # of the constant learning rate
    for axis in (scores.xaxis, edges.xaxis, scores.yaxis):
        plots.style.tidy_ticks(axis)
    _draw_watched(watched, result.watched)
    return figure


def _draw_scores(ax: Axes, result: "Schedules", name: str, number: int) -> None:
    part, best = result.runs.select(optimizer=name), result.found[name]
    mean = part.scores().reshape(-1, part.seeds).mean(axis=1)
    series, rates = plots.style.series(number), part.axes["learning_rate"]
    kept = np.isfinite(mean)
    ax.plot(rates[kept], mean[kept], label=name, linewidth=1, markersize=3.5, **series)
    ax.plot(best.hyperparameters["learning_rate"], best.score, **STAR, color=series["color"], markersize=14)


def _draw_watched(ax: Axes, watched: "Watched") -> None:
    look: dict[str, Any] = {"color": plots.SERIES_COLORS[1], "linewidth": 0.8, "markersize": 4}
    ax.semilogy(watched.step, watched.sharpness, ".-", **look, label="sharpness")
    ax.plot(watched.step[1:], 2 / watched.rate[1:], **FORMULA, label="$2/\\eta$ at that step")
    ax.axhline(2 / watched.rate[-1], color=INK, linewidth=0.8, linestyle=(0, (4, 2)))
    ax.axvline(watched.warm, color="0.75", linewidth=0.8)
    ax.set_xlabel(f"step, with warm-up to $\\eta$ = {watched.rate[-1]:.2g} until {watched.warm}")
    ax.set_ylabel("sharpness, all data")
    ax.legend(frameon=False, fontsize="small")
