"""The figure of `experiments.gradient_flow`."""

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.drawing import FORMULA, INK
from gdkit import plots

if TYPE_CHECKING:
    from experiments.gradient_flow import GradientFlow


def draw(result: "GradientFlow") -> Figure:
    """One figure: the distance against time and against the learning rate, and when the flow is left."""
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    along, across, when = figure.subplots(1, 3)
    _draw_along(along, result)
    _draw_across(across, result)
    _draw_when(when, result)
    return figure


def _draw_along(ax: Axes, result: "GradientFlow") -> None:
    shown = np.unique(np.linspace(0, len(result.rates) - 1, 6).round().astype(int))
    for number, i in enumerate(shown):
        series = plots.style.series(number)
        look: dict[str, Any] = series | {"linewidth": 1, "markersize": 3.5}
        ax.semilogy(result.time[1:], result.distance[i, 1:], label=f"{result.rates[i]:.3g}", **look)
        at = result.curve.reached(result.rates)[i]
        if np.isfinite(at):
            height = np.interp(at, result.time, result.distance[i])
            ax.plot(at, height, "*", markersize=13, color=series["color"], markeredgecolor=INK, zorder=5)
    ax.set(xlabel="time $\\eta t$", ylabel="distance from the flow, of params", ylim=(None, 9 * ax.get_ylim()[1]))
    ax.legend(title="$\\eta$ (star: flow at $2/\\eta$)", frameon=False, fontsize="small", ncols=2)


def _draw_across(ax: Axes, result: "GradientFlow") -> None:
    for number, i in enumerate((len(result.time) // 5, len(result.time) // 2, len(result.time) - 1)):
        series = plots.style.series(number)
        border = 2 / result.sharpness[: i + 1].max()
        ax.loglog(result.rates, result.distance[:, i], linestyle="none", label=f"time {result.time[i]:g}", **series)
        ax.plot(result.rates, result.rates / result.rates[-1] * result.distance[-1, i], **FORMULA)
        ax.axvline(border, color=series["color"], linewidth=1.2, linestyle=(0, (4, 2)))
        ax.plot(border, 0, **series, markersize=5, transform=ax.get_xaxis_transform(), clip_on=False)  # whose it is
    ax.plot([], [], label="$\\propto\\eta$", **FORMULA)
    ax.plot([], [], color="0.4", linestyle=(0, (4, 2)), label="2/sharpness by then")
    ax.set(xlabel="learning rate $\\eta$", ylabel="distance from the flow, of params")
    plots.style.tidy_ticks(ax.xaxis)
    ax.legend(frameon=False, fontsize="small")


def _draw_when(ax: Axes, result: "GradientFlow") -> None:
    left, rates = np.isfinite(result.left), np.linspace(result.rates[-1], result.rates[0], 400)
    ax.plot(result.time, result.sharpness, color=plots.SERIES_COLORS[0], label="sharpness of the flow")
    ax.plot(result.curve.foretold(rates), 2 / rates, label="foretold: swing back at 1", **FORMULA)
    half = (result.time[1] - result.time[0]) / 2
    look: dict[str, Any] = {"fmt": "o", "markersize": 4, "color": plots.SERIES_COLORS[1]}
    ax.errorbar(result.left[left], 2 / result.rates[left], xerr=half, label="a run leaves the flow", **look)
    ax.set(xlabel="time $\\eta t$", ylabel="sharpness, or $2/\\eta$ of a run")
    ax.set(xlim=(0, result.time[-1]), ylim=(0, None))
    ax.legend(frameon=False, fontsize="small", loc="lower right")
