"""The figure of `experiments.q_learning`."""

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from experiments.drawing import FORMULA, legend_below, seeds
from gdkit import plots

if TYPE_CHECKING:
    from experiments.q_learning import QLearning


def draw(result: "QLearning") -> Figure:
    """Left, the error of Q on the lake; right, growth on Baird's counterexample, both against the learning rate."""
    figure = Figure(figsize=(10.5, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    rates = result.lake.axes["learning_rate"]
    for number, period in enumerate(result.settings["lake"]["periods"]):
        label = "target renewed every " + (f"{period} steps" if period > 1 else "step")
        seeds(left, rates, result.errors(period), number, label, middle=np.median)
    left.set(title="network on a frozen lake", ylabel="largest $|Q - Q^*|$", yscale="log")
    rates = result.runs.axes["learning_rate"]
    fine = np.geomspace(rates[0], rates[-1], 300)
    grown, held = ([result.game.growth(rate, held=flag) for rate in fine] for flag in (False, True))
    right.plot(fine, grown, **FORMULA | {"linewidth": 1.5}, label=r"theory: $\log \rho(I - \eta A)$")
    right.plot(fine, held, **FORMULA, linestyle="--", label=r"$\log \rho(I - \eta X^\top X / 7)$")
    look: dict[str, Any] = {"linestyle": "none", "markersize": 5}
    right.plot(rates, result.exponents, **plots.style.series(0), **look, label="Lyapunov exponent")
    hollow = plots.style.series(1) | look | {"markerfacecolor": "none"}
    right.plot(rates, result.stopped, **hollow, label="behind stop_gradient")
    right.set(title="Baird's counterexample", ylabel="log-growth a step")
    right.set_yscale("symlog", linthresh=0.01, linscale=0.5)
    right.set_ylim(-0.004, 6)
    for ax in (left, right):
        ax.set(xscale="log", xlabel="learning rate")
        legend_below(ax)
    return figure
