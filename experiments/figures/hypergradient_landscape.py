"""The figure of `experiments.hypergradient_landscape`."""

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from experiments.drawing import BORDER, INK, STAR, borders
from gdkit import plots

if TYPE_CHECKING:
    from experiments.hypergradient_landscape import Landscape

BLUE, ORANGE, GREEN = plots.SERIES_COLORS[:3]


def draw(result: "Landscape") -> Figure:
    """One figure over the learning rate: the final loss, its slope, and the sharpness on the way."""
    figure = Figure(figsize=(8.4, 7.2), layout="constrained")
    upper, middle, lower = figure.subplots(3, 1, sharex=True, height_ratios=(1.15, 1.15, 0.7))
    rates = result.learning_rate
    upper.plot(rates, result.loss, ".-", color=BLUE, linewidth=0.6, markersize=3.5, label="runs of the grid")
    tried = [(seen.hyperparameters["learning_rate"], seen.final_loss) for seen in result.tuned.history]
    upper.plot(*zip(*tried, strict=True), "o", color=ORANGE, fillstyle="none", label="tried by gdkit.tune")
    best = result.tuned.hyperparameters["learning_rate"], result.tuned.final_loss
    upper.plot(*best, **STAR, color=ORANGE, markersize=13.0, label="its result")
    upper.set(ylabel=f"loss after {result.settings['steps']} steps", ylim=(0, 1.1 * result.loss.max()))
    borders(upper, {"edge of stability": result.edge})
    middle.plot(*result.differences, "_", color=ORANGE, markersize=6.0, label="difference of its neighbours")
    middle.plot(rates, result.slope, ".", color=BLUE, markersize=3.5, label="hypergradient of a run")
    middle.set_yscale("symlog", linthresh=0.01, linscale=0.5)
    limit = max(10.0, float(np.abs(result.slope).max()))
    decades = 10.0 ** np.arange(0, np.log10(limit), 1 + np.log10(limit) // 5)
    middle.set(yticks=[*-decades[::-1], 0, *decades], ylim=(-2 * limit, 2 * limit), ylabel="$\\eta$ d(loss)/d$\\eta$")
    lower.plot(*result.sharpness, "o-", color=GREEN, markersize=3.5, linewidth=1.0)
    lower.axhline(1, color=INK, linewidth=0.8)
    lower.set(xlabel="learning rate $\\eta$", xscale="log", xlim=(rates[0], rates[-1]), ylim=(0, None))
    lower.set_ylabel("largest $\\eta\\lambda/2$")
    lower.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    lower.xaxis.set_major_formatter("{x:g}")
    lower.xaxis.set_minor_formatter(NullFormatter())
    for ax in (middle, lower):
        ax.axvline(result.edge, **BORDER)
    for ax in (upper, middle):
        ax.legend(fontsize="small", loc="lower left")
    return figure
