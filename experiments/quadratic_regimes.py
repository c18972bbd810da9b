"""Four optimizers on a quadratic: each diverges where a multiplier of its step map leaves the unit circle at −1.

On ½ Σ λᵢ xᵢ² a step is a linear map, and its multipliers are roots known in closed form. gdkit measures them in three
ways: by runs that grow or shrink, as eigenvalues of the step map's Jacobian, and as the growth of a tangent.

Adam's preconditioner follows its gradients, so it diverges at no learning rate here. The threshold is that of Adam with
the preconditioner of an earlier run held fixed (Cohen et al., Adaptive gradient methods at the edge of stability,
2022); ordinary Adam runs beside it.
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
from experiments.analysis.quadratic_cases import QuadraticCase
from experiments.common.claims import Claim
from experiments.common.drawing import BORDER_LINE, THEORY_LINE
from experiments.common.settings import complete_settings, geometric_grid
from experiments.common.tables import format_table
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
ROUNDING = 8 * float(np.finfo(np.float32).eps)  # of linear maps; the preconditioner of adam has converged to 1e-4
TITLES = {"sgd": "gradient descent", "momentum": "heavy ball", "nesterov": "Nesterov", "adam": "Adam"}
HOLLOW: dict[str, Any] = {"linestyle": "none", "markerfacecolor": "white", "markersize": 4.5, "markevery": 2}
SERIES: dict[str, dict[str, Any]] = {
    "largest modulus of a multiplier": HOLLOW | {"marker": "o", "color": plots.SERIES_COLORS[0]},
    "multiplier farthest from 1 (real part)": HOLLOW | {"marker": "s", "color": plots.SERIES_COLORS[1]},
    "Lyapunov exponent": HOLLOW | {"marker": "^", "color": plots.SERIES_COLORS[2]},
}


class MeasuredCase(NamedTuple):
    """Measurements of one optimizer."""

    case: QuadraticCase
    rates: np.ndarray  # (count,)
    runs: SweepResult  # of all its variants
    radius: np.ndarray  # (count,) largest modulus of a multiplier
    farthest: np.ndarray  # (count,) real part of the multiplier farthest from 1
    crossing: float  # the same at the threshold
    exponents: np.ndarray  # (count,) Lyapunov exponent

    @property
    def edge(self) -> float:
        """Learning rate at which runs begin to diverge."""
        return float(self.runs.select(optimizer=next(iter(self.case.optimizers))).edge("learning_rate")["median"])

    def closed_form(self, form: Callable, beta: float) -> np.ndarray:
        """A closed form at every learning rate, (count,)."""
        return form(self.case.name, self.rates, self.case.curvatures, beta)


class QuadraticRegimes(NamedTuple):
    """Result of the study."""

    settings: dict[str, Any]
    cases: tuple[MeasuredCase, ...]

    def __str__(self) -> str:
        tops = [family.case.curvatures.max() for family in self.cases]
        return format_table({
            "": ("", [family.case.name for family in self.cases]),
            "threshold": (".5f", [family.case.threshold for family in self.cases]),
            "· curvature": (".4f", [f.case.threshold * top for f, top in zip(self.cases, tops, strict=True)]),
            "edge": (".5f", [family.edge for family in self.cases]),
            "multiplier there": (".6f", [family.crossing for family in self.cases]),
        })  # fmt: skip


def run(settings: Mapping[str, Any]) -> QuadraticRegimes:
    """Each optimizer at learning rates on both sides of its threshold."""
    settings = complete_settings(settings, DEFAULTS)
    beta, curvatures = settings["momentum"], np.array(settings["eigenvalues"], float)
    if not beta < 1:
        raise bad_value("settings.momentum", beta, "not below 1", "Leave it out for the default")
    problem = problems.quadratic(curvatures.tolist(), start=(curvatures**-0.5).tolist())  # equal loss in each direction
    heavy_ball = functools.partial(gdkit.sgd, momentum=beta)
    nesterov = functools.partial(heavy_ball, nesterov=True)
    cases = [
        quadratic_cases.linear_case("sgd", problem, curvatures, gdkit.sgd),
        quadratic_cases.linear_case("momentum", problem, curvatures, heavy_ball, momentum=beta),
        quadratic_cases.linear_case("nesterov", problem, curvatures, nesterov, momentum=beta),
        quadratic_cases.adam_case(problem, curvatures, beta, **settings["adam"]),
    ]
    return QuadraticRegimes(settings, tuple(_measure(case, problem, settings) for case in cases))


def _measure(case: QuadraticCase, problem: Problem, settings: Mapping[str, Any]) -> MeasuredCase:
    grid, window = settings["sweep"], settings["exponents"]
    rates = case.threshold * geometric_grid(grid)
    runs = gdkit.sweep(problem, None, {"optimizer": case.optimizers, "learning_rate": rates}, steps=grid["steps"])
    at = lambda rate: gdkit.multipliers(problem, case.optimizer, case.state, hyperparameters={"learning_rate": rate})
    multipliers = [at(float(rate)) for rate in rates]
    # A run that diverges ends before its exponent is measured. At the minimum no run ends, and the map is the same.
    rest, optimizer = problems.quadratic(settings["eigenvalues"], start=0.0), next(iter(case.optimizers.values()))
    monitors = [gdkit.lyapunov_exponent(rest, optimizer, burn_in=window["burn_in"])]
    options: dict[str, Any] = {"monitors": monitors, "statistics": "ends", "curve_points": 0}
    at_rest = gdkit.sweep(rest, optimizer, {"learning_rate": rates}, steps=window["steps"], **options)
    return MeasuredCase(
        case,
        rates,
        runs,
        radius=np.array([abs(m.largest.values[0]) for m in multipliers]),
        farthest=np.array([m.farthest.values[0].real for m in multipliers]),
        crossing=float(at(case.threshold).farthest.values[0].real),
        exponents=at_rest.lanes["lyapunov_exponent"].values,
    )


def plot(result: QuadraticRegimes) -> dict[str, Figure]:
    """One column per optimizer: the regimes of its runs, its multipliers and exponents, with their closed forms."""
    figure = Figure(figsize=(9.8, 6.6), layout="constrained")
    rows = figure.subplots(3, len(result.cases), height_ratios=(0.2, 1.4, 1), sharex="col")
    for column, family in zip(rows.T, result.cases, strict=True):
        _draw(column, family, result.settings["momentum"])
    rows[1, 0].set_ylabel("multipliers of a step")
    rows[2, 0].set_ylabel("Lyapunov exponent")
    for row, limits in zip(rows[1:], ((-3, 3), (-0.3, 1)), strict=True):
        for ax in row:
            ax.set_ylim(limits)
            ax.tick_params(labelleft=ax is row[0])
    codes = np.unique(np.concatenate([f.runs.lane_regimes for f in result.cases]))
    lines = [
        Line2D([], [], **THEORY_LINE, label="closed form"),
        Line2D([], [], **BORDER_LINE, label="theoretical threshold"),
    ]
    series = [Line2D([], [], **marks, label=name) for name, marks in SERIES.items()]
    below: dict[str, Any] = {"loc": "outside lower center", "frameon": False, "fontsize": "small"}
    figure.legend(handles=[*series, *lines, *regime_handles(codes)], ncols=5, **below)
    return {"quadratic_regimes": plots.label_panels(figure, rows[1:].ravel())}


def claims(result: QuadraticRegimes) -> list[Claim]:
    """Theory against the runs, the Jacobian and the tangent of each optimizer."""
    case_claims = [claim for family in result.cases for claim in _claims_of(family, result.settings["momentum"])]
    first, last = result.cases[0], result.cases[-1]
    reversal, spacing = 2 / (first.case.curvatures.min() + first.case.curvatures.max()), first.rates[1] / first.rates[0]
    reverses = first.rates[first.runs.lane_regimes == Regime.OSCILLATING].min(initial=np.inf)
    adapting = last.runs.select(optimizer="adapting").lane_regimes
    return [
        *case_claims,
        Claim.theory("sgd: first learning rate whose late updates reverse", "2 / (smallest λ + largest λ)", reversal,
              reversal * (spacing - 1), float(reverses)),
        Claim.check("adam with adapting preconditioner: share of learning rates at which it diverges",
              "Cohen et al. 2022", 0.0, 0.0, float((adapting == Regime.DIVERGED).mean())),
    ]  # fmt: skip


def _claims_of(family: MeasuredCase, beta: float) -> list[Claim]:
    name = family.case.name
    radius, farthest = (
        family.closed_form(theory.spectral_radius, beta),
        family.closed_form(theory.farthest_multiplier, beta),
    )
    errors = np.abs([family.radius - radius, family.farthest - farthest]) / radius
    return [
        Claim.theory(f"{name}: learning rate at which runs begin to diverge, over theory's", theory.THRESHOLDS[name],
              1.0, float(np.log(family.rates[1] / family.rates[0])), family.edge / family.case.threshold),
        Claim.theory(f"{name}: multiplier farthest from 1 at theory's learning rate", theory.POLYNOMIALS[name], -1.0,
              1e-4 if name == "adam" else 1e-5, family.crossing),
        Claim.theory(f"{name}: largest error of a multiplier, relative to the spectral radius",
              theory.POLYNOMIALS[name], 0.0, 1e-4 if name == "adam" else ROUNDING, float(errors.max())),
        Claim.theory(f"{name}: largest error of a Lyapunov exponent", "log of the largest modulus", 0.0,
              ROUNDING if name == "sgd" else 1e-3,
              float(np.abs(family.exponents - np.log(radius)).max())),
    ]  # fmt: skip


def _draw(column: np.ndarray, family: MeasuredCase, beta: float) -> None:
    strip, middle, lower = column
    plots.regime_strip(family.runs, ax=strip)
    for legend in strip.findobj(Legend):  # the figure has a common one
        legend.remove()
    title = f"{TITLES[family.case.name]}:\n$\\eta^*$ = {theory.THRESHOLDS[family.case.name]}"
    strip.set_title(title, fontsize="small")
    strip.set_xlabel("")
    if len(family.case.optimizers) == 1:
        strip.set_yticks([])
    radius, farthest = (
        family.closed_form(theory.spectral_radius, beta),
        family.closed_form(theory.farthest_multiplier, beta),
    )
    measured = family.radius, family.farthest, family.exponents
    theoretical, axes = (radius, farthest, np.log(radius)), (middle, middle, lower)
    for ax, points, line, marks in zip(axes, measured, theoretical, SERIES.values(), strict=True):
        ax.plot(family.rates, points, **marks)
        ax.plot(family.rates, line, **THEORY_LINE)
    for ax, levels in ((middle, (-1, 1)), (lower, (0,))):
        ax.axvline(family.case.threshold, **BORDER_LINE)
        for level in levels:
            ax.axhline(level, color="0.75", linewidth=0.8, zorder=0)
    lower.set_xlabel("learning rate $\\eta$")
