"""The border between learning rates that train a network and those that do not can be rough at every scale.

A network of one hidden layer without biases, f(x) = v · φ(Ux/√n) / n for n inputs and n hidden units with all weights
drawn from a unit normal (the mean-field parametrization), is trained by gradient descent on mean (f − y)², with one
learning rate per layer. Inputs and targets are drawn from unit normals too, with as many rows as the network has
parameters. A run counts as trained if its last losses are on average below its first. Sohl-Dickstein (The boundary of
neural network trainability is fractal, 2024) zoomed in on the border in the plane of the two learning rates, and by
counting boxes found dimensions from 1.17 to 1.98 over six conditions, where 1 is a smooth curve.

Each zoom follows a rule. "middle" does not search for a rough place: each window is centered on the border nearest to
the middle of the previous one. There the border of tanh is rough in every window, and that of the linear network
smooth, as far as the zoom goes. "roughest" moves to where the previous window holds the most border, and there the
linear network's is rough too. (With tanh it leads to hidden learning rates so large that runs neither converge nor
diverge: the border fills the plane, and the check for rounding, below, fails.)
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from matplotlib.animation import FuncAnimation
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.common.claims import Claim
from experiments.common.settings import complete_settings
from experiments.problems.mean_field import ACTIVATIONS, layerwise, problem
from gdkit import SweepResult, boundary, plots
from gdkit.boundary import Frame, Trail
from gdkit.errors import bad_value, unknown_name
from gdkit.formatting import text_table
from gdkit.types import Array, Context, Info, Monitor, State

DEFAULTS: dict[str, Any] = {
    "cases": ["tanh middle", "linear middle", "linear roughest"],  # a network, and the rule for the next window
    "width": 16,
    "steps": 500,
    "last_losses": 20,  # averaged at the end
    "from": -3.0,  # log10 of both learning rates
    "to": 6.0,
    "zoom": {"frames": 6, "factor": 16, "cells": 128},
}
SMOOTH = "linear middle"  # the case whose border is smooth
DIVERGED_ABOVE = 1e30  # times the first loss: runs recover from a million times it
CHECKED_POINTS = 256  # beside the deepest border, evaluated again
SOURCE = "Sohl-Dickstein 2024"
PUBLISHED = (1.17, 1.98)  # dimensions over six conditions
NAMES = ("not trained", "trained")
LABELS = ("log₁₀ learning rate, hidden layer", "log₁₀ learning rate, output layer")


class FractalBoundary(NamedTuple):
    """Result of the study, by case."""

    settings: dict[str, Any]
    trails: dict[str, Trail]
    stable_share: dict[str, float]  # of answers beside the deepest border, if learning rates move by one rounding

    def __str__(self) -> str:
        rows = []
        for name, trail in self.trails.items():
            for k, (frame, dimension) in enumerate(zip(trail.frames, trail.dimensions, strict=True)):
                magnification = f"{self.settings['zoom']['factor'] ** k:,}"
                rows.append((name, magnification, str(frame.border.sum()), str(dimension or "too coarse")))
            rows.append((name, "median", "", "{:.3f} (95 %: {:.3f} to {:.3f})".format(*trail.median())))
        return text_table(("case", "magnification", "border cells", "dimension (95 % over blocks)"), rows, "<>><")


def run(settings: Mapping[str, Any]) -> FractalBoundary:
    """A series of windows into the border for each case."""
    settings = complete_settings(settings, DEFAULTS, signed=("from", "to"))
    trails, stable_share = {}, {}
    for name in settings["cases"]:
        network, _, toward = name.partition(" ")
        ask = is_trained(network, settings["width"], settings["steps"], settings["last_losses"])
        side = settings["from"], settings["to"]
        trails[name] = boundary.zoom(ask, side, side, **settings["zoom"], toward=toward)
        stable_share[name] = _stable_share(ask, trails[name].frames[-1])
    return FractalBoundary(settings, trails, stable_share)


@functools.cache  # compiled programs belong to one problem
def is_trained(network: str, width: int, steps: int, late: int) -> boundary.Ask:
    """Function from log10 learning rates (n, 2), hidden layer first, to whether the network trains, (n,) bool."""
    if network not in ACTIVATIONS:
        raise unknown_name("settings.cases", network, ACTIVATIONS)
    if late > steps:
        raise bad_value("settings.last_losses", late, f"more than the {steps} steps", "Average fewer")
    return boundary.by_runs(
        problem(network, width), layerwise, ("hidden", "output"), steps=steps,
        monitors=(mean_last_losses(steps, late),), diverged_above=DIVERGED_ABOVE, answer=is_below_start,
    )  # fmt: skip


def mean_last_losses(steps: int, late: int) -> Monitor:
    """A monitor of the mean of the last losses of a run: ``last_losses``."""

    def update(total: Array, before: State, after: State, info: Info, context: Context) -> Array:
        return total + jnp.where(context.t > steps - late, info.loss, 0)

    return Monitor(lambda state: jnp.zeros(()), update, lambda total: {"last_losses": total / late})


def is_below_start(result: SweepResult) -> np.ndarray:
    """Whether runs did not diverge and ended below their start, (lanes,) bool."""
    lanes = result.lanes
    return boundary.is_bounded(result) & (lanes["last_losses"].values < lanes["initial_loss"].values)


def _stable_share(ask: boundary.Ask, frame: Frame) -> float:
    """Share of answers beside the border that stay the same when learning rates move by one rounding."""
    rows, columns = np.nonzero(frame.border)
    sample = np.unique(np.linspace(0, len(rows) - 1, CHECKED_POINTS).astype(int))
    rows, columns = rows[sample], columns[sample]
    moved = np.nextafter(np.stack([frame.x[columns], frame.y[rows]], axis=1), np.inf)
    return float(np.mean(np.asarray(ask(moved)) == frame.answers[rows, columns]))


def plot(result: FractalBoundary) -> dict[str, Figure | FuncAnimation]:
    """One row per case: the plane, three windows, and the dimension in each; the first case also as an animation."""
    figure = Figure(figsize=(15, 3.35 * len(result.trails) + 0.5), layout="constrained")
    grid = figure.subplots(len(result.trails), 5, squeeze=False, width_ratios=(1, 1, 1, 1, 1.5))
    for row, (name, trail) in zip(grid, result.trails.items(), strict=True):
        last = len(trail.frames) - 1
        for ax, depth in zip(row[:4], (0, min(1, last), (last + 1) // 2, last), strict=True):
            _draw_window(ax, result, trail, depth)
        row[0].set(xlabel=LABELS[0], ylabel=LABELS[1])
        row[0].set_title(f"{name}, {row[0].get_title()}", fontsize="small")
        _draw_dimensions(row[4], result, trail)
    drawn, labels = grid[0, 4].get_legend_handles_labels()
    handles = [*plots.answer_handles(NAMES), *drawn]
    figure.legend(handles=handles, labels=[*NAMES, *labels], loc="outside lower center", ncols=6, frameon=False)
    animation = plots.zoom(next(iter(result.trails.values())), names=NAMES, labels=LABELS)
    return {"fractal_boundary": plots.label_panels(figure), "fractal_boundary_zoom": animation}


def claims(result: FractalBoundary) -> list[Claim]:
    """Borders are as rough as published, at every scale, and not an effect of rounding."""
    result_claims, trails = [], result.trails
    for name, trail in trails.items():
        result_claims += _smooth(trail) if name == SMOOTH else _rough(name, trail)
        text = f"{name}: share of answers beside the deepest border that survive a rounding of the learning rates"
        result_claims.append(Claim.check(text, "otherwise the border is noise", 1.0, 0.05, result.stable_share[name]))
    if "tanh middle" in trails and SMOOTH in trails:
        separation = trails["tanh middle"].median()[1] - trails[SMOOTH].median()[2]
        result_claims.append(Claim.check(
                          "middle: distance of the interval of the median for tanh above that for the linear "
                          "network", "above: 0 to 1", 0.5, 0.5, separation))  # fmt: skip
    return result_claims


def _rough(name: str, trail: Trail) -> list[Claim]:
    (low, high), cells = PUBLISHED, trail.frames[0].cells
    deep = np.array([frame.border.sum() for frame in trail.frames[1:]])
    return [
        Claim.published(f"{name}: median dimension of the windows", f"{low} to {high}: {SOURCE}", (low + high) / 2,
              (high - low) / 2, trail.median()[0]),
        Claim.published(f"{name}: share of the zoomed windows whose border fills more cells than a straight line can",
              f"every scale: {SOURCE}", 1.0, 0.0, float(np.mean(deep > 2 * cells - 1))),
    ]  # fmt: skip


def _smooth(trail: Trail) -> list[Claim]:
    whole = trail.dimensions[0]
    return [
        Claim.check(f"{SMOOTH}: dimension of the border of the whole plane", "1: a smooth curve", 1.0, 0.1,
              whole.value if whole else np.nan),
        Claim.check(f"{SMOOTH}: median dimension of the windows", "1: a smooth curve", 1.0, 0.1, trail.median()[0]),
    ]  # fmt: skip


def _draw_window(ax: Axes, result: FractalBoundary, trail: Trail, depth: int) -> None:
    inner = trail.frames[depth + 1] if depth + 1 < len(trail.frames) else None
    plots.answers(trail.frames[depth], inner=inner, ticks=depth == 0, ax=ax)
    power = {0: "× 1", 1: f"× {result.settings['zoom']['factor']}"}
    size = power.get(depth, f"× ${result.settings['zoom']['factor']}^{depth}$")
    dimension = trail.dimensions[depth]
    ax.set_title(f"{size}: dimension {dimension.value:.2f}" if dimension else size, fontsize="medium")
    ax.set_box_aspect(1)


def _draw_dimensions(ax: Axes, result: FractalBoundary, trail: Trail) -> None:
    dimensions = [(k, one) for k, one in enumerate(trail.dimensions) if one]
    sizes = [float(result.settings["zoom"]["factor"]) ** k for k, _ in dimensions]
    values = np.array([(one.value, one.value - one.low, one.high - one.value) for _, one in dimensions])
    median, low, high = trail.median()
    ax.axhspan(*PUBLISHED, color="0.9", label=f"{SOURCE}: medians of six conditions")
    ax.axhline(1, color="0.15", linewidth=1.2, linestyle="--", label="smooth curve")
    ax.axhspan(low, high, color=plots.SERIES_COLORS[5], alpha=0.35, linewidth=0)
    ax.axhline(median, color=plots.SERIES_COLORS[0], linewidth=1.4, linestyle=":", label="median of windows, 95 %")
    ax.errorbar(sizes, values[:, 0], yerr=values[:, 1:].T, fmt="o", color=plots.SERIES_COLORS[0], capsize=3,
                label="window, 95 % over blocks")  # fmt: skip
    ax.set(xscale="log", ylim=(0.7, 2.05), xlabel="magnification", ylabel="box-counting dimension")
    ax.set_title(f"median {median:.2f} ({low:.2f} to {high:.2f})", fontsize="medium")
