"""The figure of `experiments.lr_range_test`."""

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.drawing import FORMULA, INK
from experiments.finders import LIGHTNING, SLOPE
from gdkit import plots

if TYPE_CHECKING:
    from experiments.lr_range_test import Case, Finders

LEAST, MOST = 1e-3, 10.0  # of the missed decrease, in the figure


def draw(result: "Finders") -> Figure:
    """One figure: what is read off a real and off noisy curves; how far each suggestion is off, and what it costs."""
    figure = Figure(figsize=(13, 7.2), layout="constrained")
    grid = figure.add_gridspec(2, 3, width_ratios=(1.1, 1, 1))
    _draw_real(figure.add_subplot(grid[0, 0]), result.cases[-len(result.settings["optimizers"])])
    _draw_noisy(figure.add_subplot(grid[1, 0]), result)
    off = figure.add_subplot(grid[:, 1])
    cost = figure.add_subplot(grid[:, 2], sharey=off)
    rules = list(result.cases[0].suggestions)
    for number, rule in enumerate(rules):
        rows = np.arange(len(result.cases)) + 0.3 * (number / (len(rules) - 1) - 0.5)
        look: dict[str, Any] = plots.style.series(number) | {"label": rule, "linestyle": "none", "markersize": 6}
        look |= {"markeredgecolor": INK, "markeredgewidth": 0.5}
        off.plot([case.decades[rule] for case in result.cases], rows, **look)
        cost.plot(np.clip([case.lost[rule] for case in result.cases], LEAST, MOST), rows, **look)
    off.axvline(0, color=INK, linewidth=1)
    off.set(xlabel="$\\log_{10}$ (suggestion / best of the sweep)", ylim=(len(result.cases) - 0.5, -0.5))
    off.set_yticks(range(len(result.cases)), [f"{c.problem}, {c.optimizer}" for c in result.cases], fontsize="small")
    cost.set(xscale="log", xlim=(LEAST / 1.5, MOST * 1.5), xlabel="share of the decrease missed (∞: diverged)")
    cost.set_xticks([LEAST, 1e-2, 1e-1, 1, MOST], ["≤.001", "0.01", "0.1", "1", "∞"])
    cost.tick_params(labelleft=False)
    for ax in (off, cost):
        for row in range(len(result.cases)):
            ax.axhspan(row - 0.3, row + 0.3, color="0.95", zorder=0)
    figure.legend(*off.get_legend_handles_labels(), loc="outside lower right", ncols=7, frameon=False, fontsize="small")
    return figure


def _draw_real(ax: Axes, case: "Case") -> None:
    found, shown = case.found, slice(0, len(case.found.smooth))
    for loss in found.loss:
        ax.plot(found.learning_rate, loss, color="0.8", linewidth=0.6)
    ax.plot(found.learning_rate[shown], found.smooth, color=INK, linewidth=2.4, label="median, smoothed")
    marks = {LIGHTNING: np.median(case.suggestions[LIGHTNING]), SLOPE: case.suggestions[SLOPE][0], "best": case.best}
    if found.limit is not None:
        marks["limit"] = found.limit.value
    top = 1.1 * float(np.nanmax(found.smooth))
    for (name, rate), style in zip(marks.items(), ("--", "-.", "-", ":"), strict=False):
        ax.axvline(rate, **FORMULA, linestyle=style, label=name)
    ax.legend(frameon=False, fontsize="small", loc="lower center")
    ax.set(xscale="log", ylim=(0, top), xlabel="learning rate, growing within the run", ylabel="loss")
    ax.set_title(f"{case.problem}, {case.optimizer}: {len(found.loss)} seeds", fontsize="medium")


def _draw_noisy(ax: Axes, result: "Finders") -> None:
    noisy = result.settings["noisy"]
    bins = np.geomspace(noisy["from"], noisy["to"], 65).tolist()
    for number, (rule, found) in enumerate(result.noisy.items()):
        ax.hist(found, bins, label=rule, color=plots.SERIES_COLORS[1 - number], hatch=("////", "")[number],
                edgecolor=INK, linewidth=0.4)  # fmt: skip
    ax.axvline(noisy["steepest"], color=INK, linewidth=1, linestyle=":", label="steepest")
    ax.set(xscale="log", xlabel="suggested learning rate", ylabel=f"of {noisy['curves']} noisy curves")
    ax.legend(frameon=False, fontsize="small", loc="upper center")
