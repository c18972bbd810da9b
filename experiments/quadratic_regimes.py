"""Four optimizers on a quadratic: each breaks where a multiplier of its step map leaves the unit circle at −1.

On ½ Σ λᵢ xᵢ² a step is a linear map, and its multipliers are roots known in closed form. gdkit measures them three
times: by runs that grow or shrink, as eigenvalues of the step map's Jacobian, and as the growth of a tangent.

Adam's preconditioner follows its gradients, so that it blows up here at no learning rate. What has a threshold is Adam
with the preconditioner that a run has reached held fixed (Cohen et al., Adaptive gradient methods at the edge of
stability, 2022); the Adam that adapts runs beside it.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D

import gdkit
from experiments.analysis import linear_steps as theory
from experiments.analysis import quadratic_cases
from experiments.analysis.quadratic_cases import Case
from experiments.common.claims import Claim
from experiments.common.drawing import BORDER, FORMULA
from experiments.common.printing import table
from experiments.common.settings import complete, spaced
from gdkit import Problem, Regime, SweepResult, plots, problems
from gdkit.errors import bad_value
from gdkit.plots.style import regime_handles

DEFAULTS: dict[str, Any] = {
    "eigenvalues": [1.0, 3.0, 10.0],
    "momentum": 0.9,  # β of heavy ball and Nesterov, β₁ of Adam
    "adam": {"learning_rate": 0.01, "steps": 100},  # the run whose preconditioner is held fixed
    "sweep": {"from": 0.1, "to": 1.7, "count": 64, "steps": 2000},  # learning rates as shares of the threshold
    "exponents": {"burn_in": 2000, "steps": 6000},
}
TITLES = {"sgd": "gradient descent", "momentum": "heavy ball", "nesterov": "Nesterov", "adam": "Adam"}
HOLLOW: dict[str, Any] = {"linestyle": "none", "markerfacecolor": "white", "markersize": 4.5, "markevery": 2}
SERIES: dict[str, dict[str, Any]] = {
    "largest modulus of a multiplier": HOLLOW | {"marker": "o", "color": plots.SERIES_COLORS[0]},
    "multiplier farthest from 1 (real part)": HOLLOW | {"marker": "s", "color": plots.SERIES_COLORS[1]},
    "Lyapunov exponent": HOLLOW | {"marker": "^", "color": plots.SERIES_COLORS[2]},
}


class Family(NamedTuple):
    """What was measured of one optimizer."""

    case: Case
    rates: np.ndarray  # (count,)
    runs: SweepResult  # of all factories
    radius: np.ndarray  # (count,) largest modulus of a multiplier
    farthest: np.ndarray  # (count,) real part of the multiplier farthest from 1
    crossing: float  # that at the threshold
    exponents: np.ndarray  # (count,) Lyapunov exponent

    @property
    def edge(self) -> float:
        """Where runs begin to diverge."""
        return float(self.runs.select(optimizer=next(iter(self.case.factories))).edge("learning_rate")["median"])

    def closed(self, form: Callable, beta: float) -> np.ndarray:
        """A closed form at every learning rate, (count,)."""
        return form(self.case.name, self.rates, self.case.curvatures, beta)


class QuadraticRegimes(NamedTuple):
    """What the study found."""

    settings: dict[str, Any]
    families: tuple[Family, ...]

    def __str__(self) -> str:
        tops = [family.case.curvatures.max() for family in self.families]
        return table({
            "": ("", [family.case.name for family in self.families]),
            "threshold": (".5f", [family.case.threshold for family in self.families]),
            "· curvature": (".4f", [f.case.threshold * top for f, top in zip(self.families, tops, strict=True)]),
            "edge": (".5f", [family.edge for family in self.families]),
            "multiplier there": (".6f", [family.crossing for family in self.families]),
        })  # fmt: skip


def run(settings: Mapping[str, Any]) -> QuadraticRegimes:
    """Each optimizer at learning rates on both sides of its threshold."""
    chosen = complete(settings, DEFAULTS)
    beta, curvatures = chosen["momentum"], np.array(chosen["eigenvalues"], float)
    if not beta < 1:
        raise bad_value("settings.momentum", beta, "not below 1", "Leave it out for the default")
    problem = problems.quadratic(curvatures.tolist(), start=(curvatures**-0.5).tolist())  # each holds as much loss
    heavy_ball = functools.partial(gdkit.sgd, momentum=beta)
    nesterov = functools.partial(heavy_ball, nesterov=True)
    cases = [
        quadratic_cases.plain("sgd", problem, curvatures, gdkit.sgd),
        quadratic_cases.plain("momentum", problem, curvatures, heavy_ball, momentum=beta),
        quadratic_cases.plain("nesterov", problem, curvatures, nesterov, momentum=beta),
        quadratic_cases.adam(problem, curvatures, beta, **chosen["adam"]),
    ]
    return QuadraticRegimes(chosen, tuple(_measure(case, problem, chosen) for case in cases))


def _measure(case: Case, problem: Problem, chosen: Mapping[str, Any]) -> Family:
    grid, window = chosen["sweep"], chosen["exponents"]
    rates = case.threshold * spaced(grid)
    runs = gdkit.sweep(problem, None, {"optimizer": case.factories, "learning_rate": rates}, steps=grid["steps"])
    at = lambda rate: gdkit.multipliers(problem, case.judged, case.state, hyperparameters={"learning_rate": rate})
    found = [at(float(rate)) for rate in rates]
    # a run that diverges is over before its exponent is known; at the minimum all runs stay, and the map is the same
    rest, factory = problems.quadratic(chosen["eigenvalues"], start=0.0), next(iter(case.factories.values()))
    watched = [gdkit.lyapunov_exponent(rest, factory, burn_in=window["burn_in"])]
    still = gdkit.sweep(rest, factory, {"learning_rate": rates}, steps=window["steps"], monitors=watched)
    return Family(
        case,
        rates,
        runs,
        radius=np.array([abs(m.largest.values[0]) for m in found]),
        farthest=np.array([m.farthest.values[0].real for m in found]),
        crossing=float(at(case.threshold).farthest.values[0].real),
        exponents=still.lanes["lyapunov_exponent"].values,
    )


def plot(result: QuadraticRegimes) -> dict[str, Figure]:
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
    codes = np.unique(np.concatenate([f.runs.lane_regimes for f in result.families]))
    lines = [Line2D([], [], **FORMULA, label="closed form"), Line2D([], [], **BORDER, label="threshold of theory")]
    series = [Line2D([], [], **marks, label=name) for name, marks in SERIES.items()]
    below: dict[str, Any] = {"loc": "outside lower center", "frameon": False, "fontsize": "small"}
    figure.legend(handles=[*series, *lines, *regime_handles(codes)], ncols=5, **below)
    return {"quadratic_regimes": figure}


def claims(result: QuadraticRegimes) -> list[Claim]:
    """Theory against the runs, the Jacobian and the tangent of each optimizer."""
    found = [claim for family in result.families for claim in _claims_of(family, result.settings["momentum"])]
    first, last = result.families[0], result.families[-1]
    turning, spacing = 2 / (first.case.curvatures.min() + first.case.curvatures.max()), first.rates[1] / first.rates[0]
    reverses = first.rates[first.runs.lane_regimes == Regime.OSCILLATING].min(initial=np.inf)
    adapting = last.runs.select(optimizer="adapting").lane_regimes
    return [
        *found,
        Claim("sgd: first learning rate whose late updates reverse", "2 / (least λ + greatest λ)", turning,
              turning * (spacing - 1), float(reverses)),
        Claim("adam: share of learning rates at which it diverges while its preconditioner adapts",
              "Cohen et al. 2022", 0.0, 0.0, float((adapting == Regime.DIVERGED).mean())),
    ]  # fmt: skip


def _claims_of(family: Family, beta: float) -> list[Claim]:
    name = family.case.name
    radius, farthest = family.closed(theory.radius, beta), family.closed(theory.farthest, beta)
    errors = np.abs([family.radius - radius, family.farthest - farthest]) / radius
    return [
        Claim(f"{name}: where runs begin to diverge, over theory's learning rate", theory.THRESHOLDS[name], 1.0,
              float(np.log(family.rates[1] / family.rates[0])), family.edge / family.case.threshold),
        Claim(f"{name}: the multiplier farthest from 1 at theory's learning rate", theory.POLYNOMIALS[name], -1.0,
              1e-4, family.crossing),
        Claim(f"{name}: largest error of a multiplier, as a share of the largest", theory.POLYNOMIALS[name], 0.0,
              1e-3, float(errors.max())),
        Claim(f"{name}: largest error of a Lyapunov exponent", "log of the largest modulus", 0.0, 1e-3,
              float(np.abs(family.exponents - np.log(radius)).max())),
    ]  # fmt: skip


def _draw(column: np.ndarray, family: Family, beta: float) -> None:
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
