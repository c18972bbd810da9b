"""The figure of `experiments.phase_diagram`."""

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments import linear_steps
from experiments.drawing import INK, legend_below
from gdkit import plots

if TYPE_CHECKING:
    from experiments.phase_diagram import PhaseDiagram

THEORY: dict[str, Any] = {"color": plots.SERIES_COLORS[5], "linewidth": 1.8}
POLYAK: dict[str, Any] = {"marker": "*", "markersize": 13, "color": "white", "markeredgecolor": INK, "zorder": 5}
FASTEST: dict[str, Any] = {"marker": "o", "markersize": 17, "markerfacecolor": "none", "zorder": 5}
FASTEST |= {"color": plots.SERIES_COLORS[1]}


def draw(result: "PhaseDiagram") -> Figure:
    """Left, the regimes with theory's border over the measured edge; right, how many late steps gain a digit."""
    figure = Figure(figsize=(11.5, 5.2), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    plots.regime_map(result.runs, x="learning_rate", y="momentum", ax=left)
    _draw_speed(right, result)
    for ax in (left, right):
        ax.plot(result.borders, result.runs.axes["momentum"], **THEORY)
    return figure


def _draw_speed(ax: Axes, result: "PhaseDiagram") -> None:
    digit = np.log(10) / np.maximum(-result.exponents, 1e-12)
    shown = np.ma.masked_where(result.exponents >= 0, digit)
    rates, momenta = result.runs.axes["learning_rate"], result.runs.axes["momentum"]
    norm = LogNorm(digit.min(), 100 * digit.min())
    colors = ax.pcolormesh(rates, momenta, shown, cmap="viridis_r", norm=norm, shading="nearest", rasterized=True)
    ax.figure.colorbar(colors, ax=ax, label="late steps that gain one decimal digit", extend="max")
    ideal = linear_steps.polyak(result.settings["condition_number"])
    marks = [ax.plot(*result.fastest, **FASTEST, linestyle="none", label="fastest measured")[0]]
    marks += ax.plot(*ideal, **POLYAK, linestyle="none", label="Polyak's optimum")
    line = Line2D([], [], **THEORY, label="theory: $(2 + 2\\beta)/\\lambda$")
    ax.text(0.97, 0.3, "diverges", transform=ax.transAxes, rotation=90, ha="right", va="center")
    ax.set_xlabel("learning rate")
    legend_below(ax, 3, handles=[line, *marks], markerscale=0.6)
