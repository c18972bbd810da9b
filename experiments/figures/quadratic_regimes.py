"""The figure of `experiments.quadratic_regimes`."""

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D

from experiments import linear_steps as theory
from experiments.drawing import BORDER, FORMULA
from gdkit import plots
from gdkit.plots.style import regime_handles

if TYPE_CHECKING:
    from experiments.quadratic_regimes import Family, QuadraticRegimes

TITLES = {"sgd": "gradient descent", "momentum": "heavy ball", "nesterov": "Nesterov", "adam": "Adam"}
HOLLOW: dict[str, Any] = {"linestyle": "none", "markerfacecolor": "white", "markersize": 4.5, "markevery": 2}
SERIES: dict[str, dict[str, Any]] = {
    "largest modulus of a multiplier": HOLLOW | {"marker": "o", "color": plots.SERIES_COLORS[0]},
    "multiplier farthest from 1 (real part)": HOLLOW | {"marker": "s", "color": plots.SERIES_COLORS[1]},
    "Lyapunov exponent": HOLLOW | {"marker": "^", "color": plots.SERIES_COLORS[2]},
}


def draw(result: "QuadraticRegimes") -> Figure:
    """A column an optimizer: the regimes of its runs, its multipliers and its exponents, with the closed forms."""
    figure = Figure(figsize=(12.5, 6.2), layout="constrained")
    rows = figure.subplots(3, len(result.families), height_ratios=(0.2, 1.4, 1), sharex="col")
    for column, family in zip(rows.T, result.families, strict=True):
        _draw(column, family, result.settings["momentum"])
    rows[1, 0].set_ylabel("multipliers of a step")
    rows[2, 0].set_ylabel("Lyapunov exponent")
    for row, limits in zip(rows[1:], ((-3, 3), (-0.3, 1)), strict=True):
        for ax in row:
            ax.set_ylim(limits)
            ax.tick_params(labelleft=ax is row[0])
    codes = np.unique(np.concatenate([f.runs.verdict.regime for f in result.families]))
    lines = [Line2D([], [], **FORMULA, label="closed form"), Line2D([], [], **BORDER, label="threshold of theory")]
    series = [Line2D([], [], **marks, label=name) for name, marks in SERIES.items()]
    below: dict[str, Any] = {"loc": "outside lower center", "frameon": False, "fontsize": "small"}
    figure.legend(handles=[*series, *lines, *regime_handles(codes)], ncols=5, **below)
    return figure


def _draw(column: np.ndarray, family: "Family", beta: float) -> None:
    strip, middle, lower = column
    plots.regime_strip(family.runs, ax=strip)
    for own in strip.findobj(Legend):  # the figure has one for all
        own.remove()
    strip.set_title(f"{TITLES[family.case.name]}: $\\eta^*$ = {theory.THRESHOLDS[family.case.name]}", fontsize="medium")
    strip.set_xlabel("")
    if len(family.case.factories) == 1:
        strip.set_yticks([])
    radius, farthest = family.closed(theory.radius, beta), family.closed(theory.farthest, beta)
    found = family.radius, family.farthest, family.exponents
    true, places = (radius, farthest, np.log(radius)), (middle, middle, lower)
    for ax, points, line, marks in zip(places, found, true, SERIES.values(), strict=True):
        ax.plot(family.rates, points, **marks)
        ax.plot(family.rates, line, **FORMULA)
    for ax, levels in ((middle, (-1, 1)), (lower, (0,))):
        ax.axvline(family.case.threshold, **BORDER)
        for level in levels:
            ax.axhline(level, color="0.75", linewidth=0.8, zorder=0)
    lower.set_xlabel("learning rate $\\eta$")
