"""The simplest case: gradient descent on L(x) = (x − 3)² from x = 0, from slow to diverged.

A step multiplies the distance to the minimum by 1 − 2η, since the curvature is λ = 2. So x_t = 3 − 3 (1 − 2η)^t, and
the borders between the regimes are known: 1/λ = 0.5, 2/λ = 1, and the smallest learning rate that converges in time.
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.common import drawing
from experiments.common.claims import Claim
from experiments.common.settings import complete_settings
from experiments.common.tables import format_table
from gdkit import Problem, Regime, SweepResult, Thresholds, descend, plots, problems, sgd, sweep, training_table
from gdkit.gradients import TrainingTable

CURVATURE = 2.0
EPSILON = float(np.finfo(np.float32).eps)  # a step rounds x by half of it at most, and shrinks earlier errors
DEFAULTS: dict[str, Any] = {
    "center": 3.0,
    "start": 0.0,
    "learning_rate": 0.2,  # of the table
    "steps": 10,  # of the table
    "sweep": {"from": 1e-3, "to": 2.0, "count": 300, "steps": 400},
}
EXAMPLES = {
    Regime.SLOW: 0.002,
    Regime.CONVERGED: 0.2,
    Regime.OSCILLATING: 0.85,
    Regime.BOUNCING: 1.0,
    Regime.DIVERGED: 1.05,
}


class Parabola(NamedTuple):
    """Result of the study."""

    settings: dict[str, Any]
    table: TrainingTable  # steps + 1 rows
    sweep: SweepResult

    def __str__(self) -> str:
        return format_table({
            "Step": ("d", [row.step for row in self.table]),
            "x": ("7.4f", [row.params for row in self.table]),
            "L(x)": ("7.4f", [row.loss for row in self.table]),
            "dL/dx": ("7.4f", [row.gradient for row in self.table]),
        })  # fmt: skip


class Borders(NamedTuple):
    """Learning rates at which the regime changes."""

    convergence: float  # below, the loss is still falling at the last step
    overshoot: float  # above, each step crosses the minimum
    divergence: float  # here the distance stays, above it grows


def run(settings: Mapping[str, Any]) -> Parabola:
    """A table of a few steps, and a sweep of the learning rate across every border."""
    settings = complete_settings(settings, DEFAULTS, signed=("center", "start"))
    grid = settings["sweep"]
    problem = _problem(settings["center"], settings["start"])
    table = training_table(
        problem, sgd, settings["steps"], hyperparameters={"learning_rate": settings["learning_rate"]}
    )
    rates = np.geomspace(grid["from"], grid["to"], grid["count"])
    border = 2 / CURVATURE  # added to the grid, which would miss this point
    rates = np.sort(np.append(rates[np.abs(rates / border - 1) > 1e-6], border))
    return Parabola(settings, table, sweep(problem, sgd, {"learning_rate": rates}, steps=grid["steps"]))


def borders(steps: int, gap: float = Thresholds().converged_gap) -> Borders:
    """Theory's borders: the loss gap after t steps is (1 − λη)^2t of that at the start."""
    return Borders((1 - gap ** (1 / (2 * steps))) / CURVATURE, 1 / CURVATURE, 2 / CURVATURE)


def predict_regimes(rates: np.ndarray, steps: int) -> np.ndarray:
    """Codes of the regimes that theory predicts."""
    at = borders(steps)
    tests = [rates > at.divergence, rates == at.divergence, rates > at.overshoot, rates >= at.convergence]
    return np.select(tests, [Regime.DIVERGED, Regime.BOUNCING, Regime.OSCILLATING, Regime.CONVERGED], Regime.SLOW)


def plot(result: Parabola) -> dict[str, Figure]:
    """Above, a run in each regime; below, the loss after all steps against the learning rate."""
    figure = Figure(figsize=(8.4, 5.8), layout="constrained")
    rows = figure.add_gridspec(2, 1, height_ratios=(1.0, 1.55))
    upper, lower = figure.add_subfigure(rows[0]), figure.add_subfigure(rows[1])
    for ax, (regime, rate) in zip(upper.subplots(1, len(EXAMPLES), sharey=True), EXAMPLES.items(), strict=True):
        _draw_run(ax, result.settings["center"], result.settings["start"], regime, rate)
        ax.label_outer()
    ax = plots.final_loss(result.sweep, ax=lower.subplots())
    steps = result.settings["sweep"]["steps"]
    named = zip(("converges in time", "$1/\\lambda$", "$2/\\lambda$"), borders(steps), strict=True)
    drawing.draw_borders(ax, {f"{name} = {value:.3g}": value for name, value in named}, at=0.5)
    ax.set_ylabel(f"loss after {steps} steps")
    return {"parabola": plots.label_panels(figure)}


def claims(result: Parabola) -> list[Claim]:
    """The closed forms against the measurements."""
    settings, data = result.settings, result.sweep.data.squeeze("seed")
    rates, codes = data["learning_rate"].values, result.sweep.regimes.squeeze("seed").values
    at = borders(settings["sweep"]["steps"])
    is_near = np.abs(rates[:, None] / np.array(at) - 1).min(axis=1) < 0.01
    agrees = codes == predict_regimes(rates, settings["sweep"]["steps"])
    spacing = float(np.diff(np.log(rates)).max())
    first = lambda regime: float(rates[codes == regime].min(initial=np.inf))
    return [
        Claim.theory("largest error of x_t in the table against the closed form", "c + (s − c)(1 − 2η)^t", 0.0,
              EPSILON, _largest_error(result)),
        Claim.theory("share of learning rates, away from borders, with the regime that theory predicts",
              "|1 − λη| against 0, 1", 1.0, 0.0, float(agrees[~is_near].mean()) if (~is_near).any() else float("nan")),
        Claim.theory("first learning rate that converges in time", "(1 − gap^(1/2t)) / λ", at.convergence,
              at.convergence * (spacing + 0.01), first(Regime.CONVERGED)),
        Claim.theory("first learning rate that oscillates", "1/λ", at.overshoot, at.overshoot * (spacing + 0.01),
              first(Regime.OSCILLATING)),
        Claim.theory("learning rate that bounces", "2/λ", at.divergence, EPSILON * at.divergence,
              first(Regime.BOUNCING)),
        Claim.theory("first learning rate that diverges", "2/λ", at.divergence, at.divergence * (spacing + 0.01),
              first(Regime.DIVERGED)),
    ]  # fmt: skip


def _largest_error(result: Parabola) -> float:
    """Largest error of the table against the closed form, relative to the distance at the start."""
    center, start = result.settings["center"], result.settings["start"]
    t = np.arange(len(result.table))
    expected = center + (start - center) * (1 - CURVATURE * result.settings["learning_rate"]) ** t
    measured = np.array([float(row.params) for row in result.table])
    scale = np.maximum(np.abs(expected - center), abs(start - center)) + abs(center)
    return float(np.max(np.abs(measured - expected) / np.maximum(scale, 1e-30)))


def _draw_run(ax: Axes, center: float, start: float, regime: Regime, rate: float) -> None:
    problem = _problem(center, start)
    reach = abs(start - center) or 1.0
    run = descend(problem, sgd, 13, hyperparameters={"learning_rate": rate}, record_params=True)
    plots.descent_1d(problem, run, regime=regime, limits=(center - 1.45 * reach, center + 1.45 * reach), ax=ax)
    ax.locator_params(axis="x", integer=True)
    ax.set_title(f"{plots.REGIME_LABELS[regime]}, $\\eta$ = {rate:g}", fontsize="small")


@functools.cache  # compiled programs belong to one problem
def _problem(center: float, start: float) -> Problem:
    return problems.parabola(center=center, start=start)
