"""The figure of `experiments.chaos`."""

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments import period_doubling as theory
from experiments.drawing import BORDER, FORMULA, INK, borders
from gdkit import plots

if TYPE_CHECKING:
    from experiments.chaos import Chaos

THEORY: dict[str, Any] = FORMULA | {"color": plots.SERIES_COLORS[1]}


def draw(result: "Chaos") -> Figure:
    """One figure: the last iterates, below them the exponent, and beside them the intervals between doublings."""
    figure = Figure(figsize=(11, 6.2), layout="constrained")
    grid = figure.add_gridspec(2, 2, width_ratios=(3, 1), height_ratios=(1.5, 1))
    above = figure.add_subplot(grid[0, 0])
    below = figure.add_subplot(grid[1, 0], sharex=above)
    _draw_iterates(above, result)
    _draw_exponents(below, result)
    _draw_intervals(figure.add_subplot(grid[:, 1]), result)
    return figure


def _draw_iterates(ax: Axes, result: "Chaos") -> None:
    kept = result.runs.lanes["iterates"].values[np.isfinite(result.exponents)]
    rates = np.repeat(result.rates[np.isfinite(result.exponents)], theory.KEPT)
    ax.plot(rates, kept.ravel(), ",", color=INK, alpha=0.3, rasterized=True)
    ax.set(ylabel=f"x at the last {theory.KEPT} steps", ylim=(-1.55, 1.55), xlim=(0, result.rates[-1]))
    ax.tick_params(labelbottom=False)
    borders(ax, theory.BORDERS, above=True)


def _draw_exponents(ax: Axes, result: "Chaos") -> None:
    marks: dict[str, Any] = {"linestyle": "none", "marker": ".", "markersize": 2, "rasterized": True}
    ax.axhline(0, color="0.75", linewidth=0.8, zorder=0)
    ax.plot(result.rates, result.exponents, color=plots.SERIES_COLORS[0], label="measured", **marks)
    ax.plot(result.rates, theory.closed_form(result.rates), label="closed form", **THEORY)
    ax.plot(theory.LAST, np.log(3), "*", markersize=10, color=THEORY["color"], markeredgecolor=INK, label="log 3")
    for value in theory.BORDERS.values():
        ax.axvline(value, **BORDER)
    ax.set(xlabel="learning rate $\\eta$", ylabel="Lyapunov exponent", ylim=(-2.6, 1.4))
    ax.legend(frameon=False, fontsize="small", loc="lower left", markerscale=1)


def _draw_intervals(ax: Axes, result: "Chaos") -> None:
    intervals = np.diff(result.doublings)
    number = 1 + np.arange(intervals.size)
    line = intervals[-1] * theory.FEIGENBAUM ** (intervals.size - number)
    ax.semilogy(number, line, label=f"ratio {theory.FEIGENBAUM:.3f} (Feigenbaum)", **THEORY)
    ax.semilogy(number, intervals, "o", color=plots.SERIES_COLORS[0], markeredgecolor=INK, label="measured")
    for at, ratio in enumerate(result.ratios):
        middle = (number[at] + 0.5, (intervals[at] * intervals[at + 1]) ** 0.5)
        ax.annotate(f"÷ {ratio:.3f}", middle, (6, 4), textcoords="offset points", fontsize="small")
    ax.set(xlabel="doubling", ylabel="learning rates from a doubling to the next", xticks=number)
    ax.margins(x=0.3)
    ax.set_ylim(bottom=intervals[-1] / 4)  # room for the legend
    ax.legend(frameon=False, fontsize="small", loc="lower left")
