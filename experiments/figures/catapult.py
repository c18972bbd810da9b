"""The figure of `experiments.catapult`."""

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.drawing import BORDER, FORMULA, INK
from gdkit import Regime, plots
from gdkit.plots.style import mark, regime_handles

if TYPE_CHECKING:
    from experiments.catapult import Catapult, Phases

EXAMPLES = {0.4: ":", 1.5: "-.", 2.5: "-", 3.5: "--", 4.3: (0, (6, 1, 1, 1, 1, 1))}  # ηλ₀ of the curves, and lines
FLOOR = 1e-8  # of what is drawn: float32 has little to say below it


def draw(result: "Catapult") -> Figure:
    """A row a network: loss curves in each phase; sharpness at the end, and losses, against the learning rate."""
    figure = Figure(figsize=(12.5, 7.0), layout="constrained")
    grid = figure.subplots(len(result.phases), 3, squeeze=False)
    for row, (name, phases) in zip(grid, result.phases.items(), strict=True):
        _draw_curves(row[0], phases)
        _draw_sharpness(row[1], phases)
        _draw_losses(row[2], phases)
        row[0].set_title(f"two-layer linear network, {name}", loc="left", fontsize="medium")
    codes = np.unique(np.concatenate([phases.runs.verdict.regime for phases in result.phases.values()]))
    handles = [*regime_handles(codes), Line2D([], [], **BORDER, label="theory: 2 and 4"),
               Line2D([], [], color=INK, label="highest on the way")]  # fmt: skip
    figure.legend(handles=handles, loc="outside lower center", ncols=7, frameon=False, fontsize="small")
    return figure


def _draw_curves(ax: Axes, phases: "Phases") -> None:
    seen, bottom = 40, 1.0  # steps, and the least that is drawn
    for wanted, line in EXAMPLES.items():
        lane = int(np.argmin(np.abs(phases.scaled - wanted)))
        steps, gap = phases.gaps(lane)
        color = plots.REGIME_COLORS[Regime(int(phases.runs.verdict.regime[lane]))]
        bottom = max(FLOOR, min(bottom, 0.5 * np.min(gap[steps <= seen])))
        ax.plot(steps, np.maximum(gap, FLOOR / 10), color=color, linestyle=line, label=f"{phases.scaled[lane]:.2f}")
    ax.set(xlim=(0, seen), ylim=(bottom, 1e5), yscale="log", xlabel="step", ylabel="loss gap (1 at the start)")
    ax.legend(title="$\\eta\\lambda_0$", fontsize="small", loc="upper right")


def _draw_sharpness(ax: Axes, phases: "Phases") -> None:
    _draw_points(ax, phases, phases.sharpness)
    ax.plot(phases.scaled, 2 / phases.scaled, color=INK, linestyle="--", linewidth=1.2)
    ax.annotate("$2/\\eta$", (2.9, 2 / 2.9), (4, 4), textcoords="offset points")
    ax.set(ylim=(0, 1.5), ylabel="final sharpness / $\\lambda_0$")


def _draw_losses(ax: Axes, phases: "Phases") -> None:
    last = np.where(np.isfinite(phases.sharpness), phases.runs.verdict.evidence["gap"], 1e5)
    ax.plot(phases.scaled, np.minimum(phases.runs.verdict.evidence["rise"], 1e9), **FORMULA)
    _draw_points(ax, phases, np.maximum(last, FLOOR))
    ax.set(ylim=(FLOOR / 3, 3e5), yscale="log", ylabel="final loss gap (1 at the start)")


def _draw_points(ax: Axes, phases: "Phases", values: np.ndarray) -> None:
    codes = phases.runs.verdict.regime
    for code in np.unique(codes):
        style: dict[str, Any] = mark(Regime(int(code)), 4.5)
        ax.plot(phases.scaled[codes == code], values[codes == code], **style)
    for border in (2, 4):
        ax.axvline(border, **BORDER)
    ax.set_xlabel("learning rate $\\eta\\lambda_0$")
