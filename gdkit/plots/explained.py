"""Figures of runs that `SweepResult.explain` ran again."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from gdkit.plots import style
from gdkit.sweeps.result.explanation import ExplainedRun


def curvature(run: ExplainedRun, *, ax: Axes | None = None) -> Axes:
    """Draw the sharpness along a run, its batch sharpness, and the edge of stability of its optimizer."""
    ax = style.get_axes(ax, height=3.2)
    ax.plot(run.step, run.sharpness, **_look(0), label="sharpness")
    if run.batch_sharpness is not None:
        ax.plot(run.step, run.batch_sharpness, **_look(1), label="batch sharpness")
    if run.edge is not None:
        ax.plot(run.step, run.edge, color=style.INK, linewidth=1.2, linestyle="--", label="edge of stability")
    drawn = [values[np.isfinite(values) & (values > 0)] for values in (run.sharpness, run.batch_sharpness, run.edge)
             if values is not None]  # fmt: skip
    positive = np.concatenate(drawn)
    if positive.size and positive.max() > 30 * positive.min():
        ax.set_yscale("log")
    ax.set(xlabel="step", ylabel="curvature")
    style.draw_legend(ax, ax.get_legend_handles_labels()[0])
    return ax


def flow(run: ExplainedRun, *, ax: Axes | None = None) -> Axes:
    """Draw the loss of a run, and the mean loss that the central flow predicts where it was followed."""
    ax = style.get_axes(ax, height=3.2)
    finite = np.isfinite(run.loss) & (run.loss > 0)
    ax.plot(np.arange(len(run.loss))[finite], run.loss[finite], color="0.6", linewidth=0.9, label="loss")
    if run.flow is not None:
        ax.plot(run.flow.step, run.flow.predicted, **_look(1), label="mean loss by the central flow")
        ax.plot(run.flow.step, run.flow.flow_loss, **_look(2), label="loss at the central flow")
    if finite.any():
        ax.set_yscale("log")
    ax.set(xlabel="step", ylabel="loss")
    style.draw_legend(ax, ax.get_legend_handles_labels()[0])
    return ax


def _look(number: int) -> dict[str, Any]:
    return style.series(number) | {"markersize": 3, "linewidth": 1}
