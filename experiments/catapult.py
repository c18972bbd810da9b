"""The catapult: learning rates beyond 2/λ₀ at which the loss rises, the curvature falls, and the run converges.

A two-layer linear network f(x) = vᵀU x / √(n d), with all weights drawn from a unit normal, on ½ · mean (f − y)². λ₀ is
the largest eigenvalue of its tangent kernel at the start, J Jᵀ / rows. For one datum, x = 1 and y = 0, the distance γ =
η f / √n and the curvature k = η (‖u‖² + ‖v‖²) / n follow a map of their own (Lewkowycz et al., The large learning rate
phase of deep learning: the catapult mechanism, 2020):

    γ ← γ (1 − k + γ²),    k ← k + γ² (k − 4).

While k < 2 the loss falls at every step. Above, the loss grows until γ², which starts at order 1/n, brings k below 2; a
run that lands where k is nearly 0 continues slowly. Since |γ| ≤ k/2, both stay bounded up to k = 4 at every width;
above that, k grows without bound.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

import gdkit
from experiments.common.claims import Claim
from experiments.common.drawing import BORDER_LINE, INK, THEORY_LINE
from experiments.common.settings import complete_settings
from experiments.common.tables import format_table
from experiments.problems import linear_network
from gdkit import Regime, SweepResult, datasets, plots, stability
from gdkit.plots.style import mark, regime_handles
from gdkit.stability import CriticalLearningRate

DEFAULTS: dict[str, Any] = {
    "width": 1024,
    "rows": 64,  # of the data set
    "key": 1,  # of the initial weights
    "sweep": {"from": 0.1, "to": 5.0, "count": 124, "steps": 600},  # learning rates times λ₀
}
EXAMPLES = {
    0.4: ":",
    1.5: "-.",
    2.5: "-",
    3.5: "--",
    4.3: (0, (6, 1, 1, 1, 1, 1)),
}  # ηλ₀ of examples: line style
FLOOR = 1e-8  # of the axes: smaller loss gaps are below the resolution of float32


class Phases(NamedTuple):
    """A network at learning rates in all three phases."""

    kernel: float  # λ₀
    runs: SweepResult  # with the final sharpness
    critical: CriticalLearningRate

    @property
    def scaled(self) -> np.ndarray:
        """ηλ₀, (count,)."""
        return self.runs.lanes["learning_rate"].values * self.kernel

    @property
    def sharpness(self) -> np.ndarray:
        """Final sharpness over λ₀, NaN where the run diverged, (count,)."""
        final = self.runs.lanes["sharpness"].values / self.kernel
        return np.where(self.runs.lane_regimes == Regime.DIVERGED, np.nan, final)

    def gaps(self, lane: int) -> tuple[np.ndarray, np.ndarray]:
        """Recorded steps of a run, and its loss above the optimum as a share of that at the start."""
        steps, losses = self.runs.curve(lane)
        best = self.runs.lanes["reference_loss"].values[lane]
        return steps, (losses - best) / (losses[0] - best)

    @property
    def is_monotone(self) -> np.ndarray:
        """Whether the loss falls at every recorded step until its gap is negligible, (count,) bool."""
        curves = [self.gaps(lane)[1] for lane in range(len(self.scaled))]
        return np.array([np.all(np.diff(gap)[gap[:-1] > 1e-6] <= 0) for gap in curves])

    @property
    def lower(self) -> float:
        """The first learning rate whose loss rises at some step, times λ₀."""
        return float(self.scaled[~self.is_monotone].min(initial=np.inf))

    @property
    def upper(self) -> float:
        """The critical learning rate, times λ₀."""
        return self.critical.value * self.kernel


class Catapult(NamedTuple):
    """Result of the study."""

    settings: dict[str, Any]
    phases: dict[str, Phases]  # by data set

    def __str__(self) -> str:
        phases = self.phases.values()
        return format_table({
            "": ("", self.phases),
            "λ₀": (".3f", [each.kernel for each in phases]),
            "first rise · λ₀": (".3f", [each.lower for each in phases]),
            "critical · λ₀": (".3f", [each.upper for each in phases]),
        })  # fmt: skip


def run(settings: Mapping[str, Any]) -> Catapult:
    """The phases of a network on one datum, and on a data set."""
    settings = complete_settings(settings, DEFAULTS)
    one = np.ones((1, 1), np.float32), np.zeros(1, np.float32)
    x, y = (np.asarray(part)[: settings["rows"]] for part in datasets.load("diabetes").train)
    return Catapult(settings, {"one datum": _phases(*one, settings), "diabetes": _phases(x, y, settings)})


def _phases(x: np.ndarray, y: np.ndarray, settings: Mapping[str, Any]) -> Phases:
    grid = settings["sweep"]
    problem, kernel = linear_network.network(x, y, settings["width"], settings["key"])
    rates = np.linspace(grid["from"], grid["to"], grid["count"]) / kernel
    monitors = [stability.sharpness_every(problem, grid["steps"])]  # at the first and the last step
    axes, steps = {"learning_rate": rates}, grid["steps"]
    runs = gdkit.sweep(problem, gdkit.sgd, axes, steps=steps, monitors=monitors, curve_points=1000)
    low, high = 1 / kernel, 8 / kernel
    critical = gdkit.critical_learning_rate(problem, gdkit.sgd, low=low, high=high, steps=steps, rtol=2e-3)
    return Phases(kernel, runs, critical)


def plot(result: Catapult) -> dict[str, Figure]:
    """One row per network: loss curves in each phase; final sharpness and losses against the learning rate."""
    figure = Figure(figsize=(9.6, 6.2), layout="constrained")
    grid = figure.subplots(len(result.phases), 3, squeeze=False)
    for row, (name, phases) in zip(grid, result.phases.items(), strict=True):
        _draw_curves(row[0], phases)
        _draw_sharpness(row[1], phases)
        _draw_losses(row[2], phases)
        row[0].set_title(f"two-layer linear network, {name}", loc="left", fontsize="medium")
    codes = np.unique(np.concatenate([phases.runs.lane_regimes for phases in result.phases.values()]))
    handles = [*regime_handles(codes), Line2D([], [], **BORDER_LINE, label="theory: 2 and 4"),
               Line2D([], [], color=INK, label="largest along the run")]  # fmt: skip
    figure.legend(handles=handles, loc="outside lower center", ncols=7, frameon=False, fontsize="small")
    return {"catapult": plots.label_panels(figure)}


def claims(result: Catapult) -> list[Claim]:
    """Three phases, their borders, and the decrease of the sharpness in the middle one."""
    return [claim for name, phases in result.phases.items() for claim in _claims_of(name, phases)]


def _claims_of(name: str, phases: Phases) -> list[Claim]:
    source, scaled, codes = "Lewkowycz et al. 2020", phases.scaled, phases.runs.lane_regimes
    catapults = codes == Regime.CATAPULT
    between = (scaled > 2 * 1.06) & (scaled < 4 * 0.97)  # closer to 2, the rise is too small to double the loss
    edge = float(phases.runs.edge("learning_rate")["median"])
    return [
        Claim.published(f"{name}: first learning rate whose loss rises at some step, times λ₀", source, 2.0, 0.06,
              phases.lower),
        Claim.published(
              f"{name}: share of learning rates from 2.12/λ₀ to 3.88/λ₀ that catapult (a few may land where it is too "
              "flat to converge in time)", source, 1.0, 0.05, float(np.mean(catapults[between]))),
        Claim.check(f"{name}: share of catapults that end flatter than 2/η", source, 1.0, 0.0,
              float(np.mean(phases.sharpness[catapults] * scaled[catapults] < 2))),
        Claim.published(f"{name}: learning rate at which divergence begins in the sweep, times λ₀", source, 4.0, 0.12,
              edge * phases.kernel),
        Claim.published(f"{name}: critical learning rate, times λ₀", source, 4.0, 0.04, phases.upper),
    ]  # fmt: skip


def _draw_curves(ax: Axes, phases: Phases) -> None:
    shown_steps, bottom = 40, 1.0
    for target, line in EXAMPLES.items():
        lane = int(np.argmin(np.abs(phases.scaled - target)))
        steps, gap = phases.gaps(lane)
        color = plots.REGIME_COLORS[Regime(int(phases.runs.lane_regimes[lane]))]
        bottom = max(FLOOR, min(bottom, 0.5 * np.min(gap[steps <= shown_steps])))
        ax.plot(steps, np.maximum(gap, FLOOR / 10), color=color, linestyle=line, label=f"{phases.scaled[lane]:.2f}")
    ax.set(xlim=(0, shown_steps), ylim=(bottom, 1e5), yscale="log", xlabel="step", ylabel="loss gap (1 at the start)")
    ax.legend(title="$\\eta\\lambda_0$", fontsize="small", loc="upper right")


def _draw_sharpness(ax: Axes, phases: Phases) -> None:
    _draw_points(ax, phases, phases.sharpness)
    ax.plot(phases.scaled, 2 / phases.scaled, color=INK, linestyle="--", linewidth=1.2)
    ax.annotate("$2/\\eta$", (2.9, 2 / 2.9), (4, 4), textcoords="offset points")
    ax.set(ylim=(0, 1.5), ylabel="final sharpness / $\\lambda_0$")


def _draw_losses(ax: Axes, phases: Phases) -> None:
    final = np.where(np.isfinite(phases.sharpness), phases.runs.verdicts["gap"].values.ravel(), 1e5)
    ax.plot(phases.scaled, np.minimum(phases.runs.verdicts["rise"].values.ravel(), 1e9), **THEORY_LINE)
    _draw_points(ax, phases, np.maximum(final, FLOOR))
    ax.set(ylim=(FLOOR / 3, 3e5), yscale="log", ylabel="final loss gap (1 at the start)")


def _draw_points(ax: Axes, phases: Phases, values: np.ndarray) -> None:
    codes = phases.runs.lane_regimes
    for code in np.unique(codes):
        style: dict[str, Any] = mark(Regime(int(code)), 4.5)
        ax.plot(phases.scaled[codes == code], values[codes == code], **style)
    for border in (2, 4):
        ax.axvline(border, **BORDER_LINE)
    ax.set_xlabel("learning rate $\\eta\\lambda_0$")
