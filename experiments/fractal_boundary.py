"""The border between learning rates that train a network and those that do not can be rough at every scale.

A network of one hidden layer without biases, f(x) = v · φ(Ux/√n) / n for n inputs and n hidden units with all weights
drawn from a unit normal (the mean-field parametrization), is trained by gradient descent on mean (f − y)², with one
learning rate per layer. Inputs and targets are drawn from unit normals too. A run counts as trained if its last losses
are on average below its first. Sohl-Dickstein (The boundary of neural network trainability is fractal, 2024) zoomed in
on the border in the plane of the two learning rates, one network per condition, and counted boxes, where 1 is a smooth
curve: dimension 1.66 for tanh, 1.55 for tanh with minibatches of 16 rows, 1.41 for tanh on one row, 1.20 for ReLU, and
1.17 for a linear network, which has n rows of data where the others have as many as weights. Three of these conditions
run by default, all of them with `settings.conditions`. The paper has a sixth, which shifts the initial weights, and a
dimension of 1.98. The conditions, the first window and the rule for trained were compared with the code of the paper
(github.com/Sohl-Dickstein/fractal), which does not have the dimensions: those above are from its table 1 as others
quote it, in agreement. They are medians of local slopes over all sizes of boxes and about 50 windows of 4,096² cells,
each twice as wide as the next; here the median is over few windows of 64² cells with one slope each.

The paper's windows were chosen by eye. Here each window is centered on the border nearest to the middle of the previous
one, which does not look for rough places, and every condition has several networks. Of one network the published number
is a sample: networks differ, those of tanh by 0.1 (standard deviation) in trial runs at other keys. Claimed is the
dimension for tanh. Not reproduced is that borders are rough at every scale: near the middle one window in nine is
smooth for tanh, and all windows of one linear network are, while others are about as rough as those of tanh; so tanh
and the linear network differ in the mean by two standard errors alone. On one row the border is smooth there, and
begins to be rough at large magnifications. So nothing is claimed of these two conditions; the table has the dimensions
of all windows, and under each condition the mean beside the published one.
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
from experiments.problems.mean_field import CONDITIONS, layerwise, problem
from gdkit import SweepResult, boundary, plots
from gdkit.boundary import Frame, Trail
from gdkit.errors import bad_value, unknown_name
from gdkit.formatting import text_table
from gdkit.types import Array, Context, Info, Monitor, State

DEFAULTS: dict[str, Any] = {
    "conditions": ["tanh", "tanh, one row", "linear"],
    "width": 16,
    "steps": 500,
    "last_losses": 20,  # averaged at the end
    "from": -3.0,  # log10 of both learning rates
    "to": 6.0,
    "zoom": {"frames": 4, "factor": 16, "cells": 64},
    "seeds": 3,  # networks per condition
    "key": 620,  # of the first
}
DIVERGED_ABOVE = 1e30  # times the first loss: runs recover from a million times it
CHECKED_POINTS = 64  # beside the deepest border of each network, evaluated again
SOURCE = "Sohl-Dickstein 2024"
PUBLISHED = {"tanh": 1.66, "tanh, minibatches": 1.55, "tanh, one row": 1.41, "relu": 1.20, "linear": 1.17}
SPREAD = 0.1  # standard deviation between networks, of tanh at other keys
ROUGH = 1.15  # a window's dimension above that of a smooth curve, which is measured as 0.95 to 1.1
NAMES = ("not trained", "trained")
LABELS = ("log₁₀ learning rate, hidden layer", "log₁₀ learning rate, output layer")


class FractalBoundary(NamedTuple):
    """Result of the study, by condition; one trail per network."""

    settings: dict[str, Any]
    trails: dict[str, list[Trail]]
    stable_share: dict[str, float]  # of answers beside the deepest borders, if learning rates move by one rounding

    def dimensions(self, name: str) -> np.ndarray:
        """The dimension in each window, (networks, frames); NaN where the border is too coarse to be measured."""
        return np.array([[one.value if one else np.nan for one in trail.dimensions] for trail in self.trails[name]])

    def medians(self, name: str) -> np.ndarray:
        """The median dimension of the zoomed windows of each network, (networks,)."""
        return np.nanmedian(self.dimensions(name)[:, 1:], axis=1)

    def __str__(self) -> str:
        rows: list[tuple[str, ...]] = []
        for name in self.trails:
            for number, (row, median) in enumerate(zip(self.dimensions(name), self.medians(name), strict=True)):
                cells = ["too coarse" if np.isnan(one) else f"{one:.2f}" for one in row]
                rows.append((name, str(self.settings["key"] + number), *cells, f"{median:.2f}", ""))
            mean, error = _mean_and_error(self.medians(name))
            blank = [""] * self.settings["zoom"]["frames"]
            rows.append((name, "mean", *blank, f"{mean:.2f} ± {error:.2f}", f"{PUBLISHED[name]:.2f}"))
        sizes = [f"× {self.settings['zoom']['factor'] ** k:,}" for k in range(self.settings["zoom"]["frames"])]
        return text_table(
            ("condition", "key", *sizes, "median of zoomed", "published"), rows, "<>" + ">" * (len(sizes) + 2)
        )


def run(settings: Mapping[str, Any]) -> FractalBoundary:
    """A series of windows into the border for each network of each condition."""
    settings = complete_settings(settings, DEFAULTS, signed=("from", "to", "key"))
    trails: dict[str, list[Trail]] = {}
    stable_share, side = {}, (settings["from"], settings["to"])
    for name in settings["conditions"]:
        asks = [
            is_trained(name, settings["width"], settings["steps"], settings["last_losses"], settings["key"] + number)
            for number in range(settings["seeds"])
        ]
        trails[name] = [boundary.zoom(ask, side, side, **settings["zoom"], toward="middle") for ask in asks]
        stable = [_stable_share(ask, trail.frames[-1]) for ask, trail in zip(asks, trails[name], strict=True)]
        stable_share[name] = float(np.mean(stable))
    return FractalBoundary(settings, trails, stable_share)


@functools.cache  # compiled programs belong to one problem
def is_trained(name: str, width: int, steps: int, late: int, key: int) -> boundary.Ask:
    """Function from log10 learning rates (n, 2), hidden layer first, to whether the network trains, (n,) bool."""
    if name not in CONDITIONS:
        raise unknown_name("settings.conditions", name, CONDITIONS)
    if late > steps:
        raise bad_value("settings.last_losses", late, f"more than the {steps} steps", "Average fewer")
    return boundary.by_runs(
        problem(name, width, key), layerwise, ("hidden", "output"), steps=steps,
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


def _mean_and_error(values: np.ndarray) -> tuple[float, float]:
    """The mean and its standard error; 0 of one value."""
    return float(np.mean(values)), float(np.std(values, ddof=1) / len(values) ** 0.5) if len(values) > 1 else 0.0


def plot(result: FractalBoundary) -> dict[str, Figure | FuncAnimation]:
    """One row per condition: windows of its first network, and the dimensions of all; the first row as an animation."""
    figure = Figure(figsize=(15, 3.35 * len(result.trails) + 0.5), layout="constrained")
    grid = figure.subplots(len(result.trails), 5, squeeze=False, width_ratios=(1, 1, 1, 1, 1.5))
    for row, (name, trails) in zip(grid, result.trails.items(), strict=True):
        last = len(trails[0].frames) - 1
        for ax, depth in zip(row[:4], (0, min(1, last), (last + 1) // 2, last), strict=True):
            _draw_window(ax, result, trails[0], depth)
        row[0].set(xlabel=LABELS[0], ylabel=LABELS[1])
        row[0].set_title(f"{name}, {row[0].get_title()}", fontsize="small")
        _draw_dimensions(row[4], result, name)
    drawn, labels = grid[0, 4].get_legend_handles_labels()
    handles = [*plots.answer_handles(NAMES), *drawn]
    figure.legend(handles=handles, labels=[*NAMES, *labels], loc="outside lower center", ncols=6, frameon=False)
    animation = plots.zoom(next(iter(result.trails.values()))[0], names=NAMES, labels=LABELS)
    return {"fractal_boundary": plots.label_panels(figure), "fractal_boundary_zoom": animation}


def claims(result: FractalBoundary) -> list[Claim]:
    """The borders of tanh are as rough as published, and none is an effect of rounding."""
    tolerance = 3 * SPREAD * (1 + 1 / result.settings["seeds"]) ** 0.5  # of a mean of several and one published
    found = [name for name in result.trails if CONDITIONS[name].activation == "tanh" and name != "tanh, one row"]
    return [
        *(Claim.published(f"{name}: share of networks whose border is rough in some zoomed window",
                          f"fractal in all conditions: {SOURCE}", 1.0, 0.0,
                          float(np.mean(np.nanmax(result.dimensions(name)[:, 1:], axis=1) > ROUGH)))
          for name in found),
        *(Claim.published(f"{name}: dimension, mean over networks of the median over zoomed windows", SOURCE,
                          PUBLISHED[name], tolerance, float(np.mean(result.medians(name))))
          for name in found),
        *(Claim.check(f"{name}: share of answers beside the deepest borders that survive a rounding of the learning "
                      "rates", "otherwise the border is noise", 1.0, 0.05, share)
          for name, share in result.stable_share.items()),
    ]  # fmt: skip


def _draw_window(ax: Axes, result: FractalBoundary, trail: Trail, depth: int) -> None:
    inner = trail.frames[depth + 1] if depth + 1 < len(trail.frames) else None
    plots.answers(trail.frames[depth], inner=inner, ticks=depth == 0, ax=ax)
    power = {0: "× 1", 1: f"× {result.settings['zoom']['factor']}"}
    size = power.get(depth, f"× ${result.settings['zoom']['factor']}^{depth}$")
    dimension = trail.dimensions[depth]
    ax.set_title(f"{size}: dimension {dimension.value:.2f}" if dimension else size, fontsize="medium")
    ax.set_box_aspect(1)


def _draw_dimensions(ax: Axes, result: FractalBoundary, name: str) -> None:
    sizes = float(result.settings["zoom"]["factor"]) ** np.arange(result.settings["zoom"]["frames"])
    mean, error = _mean_and_error(result.medians(name))
    ax.axhline(PUBLISHED[name], color="0.45", linewidth=1.6, label=f"{SOURCE}, this condition")
    ax.axhline(1, color="0.15", linewidth=1.2, linestyle="--", label="smooth curve")
    ax.axhspan(mean - error, mean + error, color=plots.SERIES_COLORS[5], alpha=0.35, linewidth=0,
               label="mean ± standard error over networks")  # fmt: skip
    for number, row in enumerate(result.dimensions(name)):
        label = "windows of one network" if number == 0 else None
        ax.plot(sizes, row, "o-", color=plots.SERIES_COLORS[number % len(plots.SERIES_COLORS)], linewidth=0.7,
                markersize=4, label=label)  # fmt: skip
    ax.set(xscale="log", ylim=(0.7, 2.05), xlabel="magnification", ylabel="box-counting dimension")
    ax.set_title(f"{mean:.2f} ± {error:.2f}", fontsize="medium")
