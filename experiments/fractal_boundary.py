"""The border between learning rates that train a network and those that do not can be rough at every scale.

A network of one hidden layer without biases, f(x) = v · φ(Ux/√n) / n for n inputs and n hidden units with all weights
drawn from a unit normal (the mean-field parametrisation), is trained by gradient descent on mean (f − y)², each layer
at a learning rate of its own. Inputs and targets are drawn from unit normals too, as many rows as the network has
parameters. A run counts as trained if its last losses are on average below its first. Sohl-Dickstein (The boundary of
neural network trainability is fractal, 2024) zoomed in on the border in the plane of the two learning rates, and by
counting boxes found dimensions from 1.17 to 1.98 over six conditions, where 1 is a smooth curve.

The way in is chosen by a rule. The middle way does not look for a rough place: each window is centred on the border
nearest to the middle of the last. On it the border of tanh is rough in every window, and that of the linear network
smooth, as far as it is followed. The roughest way goes where the last window holds the most border, and there the
linear network's is rough too. (With tanh it leads to hidden learning rates so large that runs neither settle nor leave:
the border fills the plane, and the check for rounding, below, fails.)
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
from experiments.common.settings import complete
from experiments.problems.mean_field import ACTIVATIONS, layerwise, problem
from gdkit import SweepResult, boundary, plots
from gdkit.boundary import Frame, Trail
from gdkit.errors import bad_value, unknown_name
from gdkit.types import Array, Context, Info, Monitor, State

DEFAULTS: dict[str, Any] = {
    "ways": ["tanh middle", "linear middle", "linear roughest"],  # a network, and where the next window is
    "width": 16,
    "steps": 500,
    "late": 20,  # losses that are averaged at the end
    "from": -3.0,  # log10 of both learning rates
    "to": 6.0,
    "zoom": {"frames": 6, "factor": 16, "cells": 128},
}
SMOOTH = "linear middle"  # the way on which nothing is rough
ENOUGH = 1e30  # times the first loss: runs come back from a million times it
CHECKED = 256  # points beside the deepest border that are asked again
SOURCE = "Sohl-Dickstein 2024"
PUBLISHED = (1.17, 1.98)  # dimensions over six conditions
NAMES = ("not trained", "trained")
LABELS = ("log₁₀ learning rate, hidden layer", "log₁₀ learning rate, output layer")


class Borders(NamedTuple):
    """What the study found, by way."""

    settings: dict[str, Any]
    trails: dict[str, Trail]
    steady: dict[str, float]  # share of answers beside the deepest border that survive a rounding of learning rates

    def __str__(self) -> str:
        lines = [f"{'way':>15} | {'magnified':>9} | {'border':>6} | dimension (95 % over its blocks)", "-" * 78]
        for name, trail in self.trails.items():
            for k, (frame, found) in enumerate(zip(trail.frames, trail.dimensions, strict=True)):
                size = self.settings["zoom"]["factor"] ** k
                lines.append(f"{name:>15} | {size:9,} | {frame.border.sum():6} | {found or 'too coarse'}")
            median = "{:.3f} (95 %: {:.3f} to {:.3f})".format(*trail.median())
            lines.append(f"{name:>15} | {'median':>9} | {'':6} | {median}")
        return "\n".join(lines)


def run(settings: Mapping[str, Any]) -> Borders:
    """A trail into the border, each way."""
    chosen = complete(settings, DEFAULTS, free=("from", "to"))
    trails, steady = {}, {}
    for name in chosen["ways"]:
        network, _, toward = name.partition(" ")
        ask, side = trained(network, chosen["width"], chosen["steps"], chosen["late"]), (chosen["from"], chosen["to"])
        trails[name] = boundary.zoom(ask, side, side, **chosen["zoom"], toward=toward)
        steady[name] = _steady(ask, trails[name].frames[-1])
    return Borders(chosen, trails, steady)


@functools.cache  # compiled programs belong to one problem
def trained(network: str, width: int, steps: int, late: int) -> boundary.Ask:
    """What tells at log10 learning rates (n, 2), hidden layer first, whether a network trains, (n,) bool."""
    if network not in ACTIVATIONS:
        raise unknown_name("settings.ways", network, ACTIVATIONS)
    if late > steps:
        raise bad_value("settings.late", late, f"more than the {steps} steps", "Average fewer")
    return boundary.by_runs(
        problem(network, width), layerwise, ("hidden", "output"), steps=steps, monitors=(late_mean(steps, late),),
        diverged_above=ENOUGH, answer=fell,
    )  # fmt: skip


def late_mean(steps: int, late: int) -> Monitor:
    """The mean of the last losses of a run of `steps`."""

    def update(total: Array, before: State, after: State, info: Info, context: Context) -> Array:
        return total + jnp.where(context.t > steps - late, info.loss, 0)

    return Monitor(lambda state: jnp.zeros(()), update, lambda total: {"last_losses": total / late})


def fell(result: SweepResult) -> np.ndarray:
    """Whether runs stayed to their end, and ended below their start, (lanes,) bool."""
    lanes = result.lanes
    return boundary.is_bounded(result) & (lanes["last_losses"].values < lanes["initial_loss"].values)


def _steady(ask: boundary.Ask, frame: Frame) -> float:
    """The share of answers beside the border that stay when learning rates move by one rounding."""
    rows, columns = np.nonzero(frame.border)
    some = np.unique(np.linspace(0, len(rows) - 1, CHECKED).astype(int))
    rows, columns = rows[some], columns[some]
    moved = np.nextafter(np.stack([frame.x[columns], frame.y[rows]], axis=1), np.inf)
    return float(np.mean(np.asarray(ask(moved)) == frame.answers[rows, columns]))


def plot(result: Borders) -> dict[str, Figure | FuncAnimation]:
    """A row a way: the plane, windows ever deeper, the dimension in each; and the first as a film."""
    figure = Figure(figsize=(15, 3.35 * len(result.trails) + 0.5), layout="constrained")
    grid = figure.subplots(len(result.trails), 5, squeeze=False, width_ratios=(1, 1, 1, 1, 1.5))
    for row, (name, trail) in zip(grid, result.trails.items(), strict=True):
        last = len(trail.frames) - 1
        for ax, depth in zip(row[:4], (0, min(1, last), (last + 1) // 2, last), strict=True):
            _draw_window(ax, result, trail, depth)
        row[0].set(xlabel=LABELS[0], ylabel=LABELS[1])
        row[0].set_title(f"{name}, {row[0].get_title()}", fontsize="medium")
        _draw_dimensions(row[4], result, trail)
    drawn, labels = grid[0, 4].get_legend_handles_labels()
    handles = [*plots.answer_handles(NAMES), *drawn]
    figure.legend(handles=handles, labels=[*NAMES, *labels], loc="outside lower center", ncols=6, frameon=False)
    film = plots.zoom(next(iter(result.trails.values())), names=NAMES, labels=LABELS)
    return {"fractal_boundary": figure, "fractal_boundary_zoom": film}


def claims(result: Borders) -> list[Claim]:
    """Whether borders are as rough as published, at every scale, and no noise of rounding."""
    made, trails = [], result.trails
    for name, trail in trails.items():
        made += _smooth(trail) if name == SMOOTH else _rough(name, trail)
        made.append(Claim(f"{name}: share of answers beside the deepest border that stay when learning rates move by "
                          "one rounding", "else it would be noise", 1.0, 0.05, result.steady[name]))  # fmt: skip
    if "tanh middle" in trails and SMOOTH in trails:
        apart = trails["tanh middle"].median()[1] - trails[SMOOTH].median()[2]
        made.append(Claim("middle: how far the interval of the median for tanh lies above that for the linear "
                          "network", "above: 0 to 1", 0.5, 0.5, apart))  # fmt: skip
    return made


def _rough(name: str, trail: Trail) -> list[Claim]:
    (low, high), cells = PUBLISHED, trail.frames[0].cells
    deep = np.array([frame.border.sum() for frame in trail.frames[1:]])
    return [
        Claim(f"{name}: median dimension of the windows", f"{low} to {high}: {SOURCE}", (low + high) / 2,
              (high - low) / 2, trail.median()[0]),
        Claim(f"{name}: share of the windows within the plane whose border fills more cells than a straight line can",
              f"every scale: {SOURCE}", 1.0, 0.0, float(np.mean(deep > 2 * cells - 1))),
    ]  # fmt: skip


def _smooth(trail: Trail) -> list[Claim]:
    whole = trail.dimensions[0]
    return [
        Claim(f"{SMOOTH}: dimension of the border of the whole plane", "1: a smooth curve", 1.0, 0.1,
              whole.value if whole else np.nan),
        Claim(f"{SMOOTH}: median dimension of the windows", "1: a smooth curve", 1.0, 0.1, trail.median()[0]),
    ]  # fmt: skip


def _draw_window(ax: Axes, result: Borders, trail: Trail, depth: int) -> None:
    inner = trail.frames[depth + 1] if depth + 1 < len(trail.frames) else None
    plots.answers(trail.frames[depth], inner=inner, ticks=depth == 0, ax=ax)
    power = {0: "× 1", 1: f"× {result.settings['zoom']['factor']}"}
    size = power.get(depth, f"× ${result.settings['zoom']['factor']}^{depth}$")
    found = trail.dimensions[depth]
    ax.set_title(f"{size}: dimension {found.value:.2f}" if found else size, fontsize="medium")
    ax.set_box_aspect(1)


def _draw_dimensions(ax: Axes, result: Borders, trail: Trail) -> None:
    known = [(k, found) for k, found in enumerate(trail.dimensions) if found]
    sizes = [float(result.settings["zoom"]["factor"]) ** k for k, _ in known]
    values = np.array([(found.value, found.value - found.low, found.high - found.value) for _, found in known])
    median, low, high = trail.median()
    ax.axhspan(*PUBLISHED, color="0.9", label=f"{SOURCE}: medians of six conditions")
    ax.axhline(1, color="0.15", linewidth=1.2, linestyle="--", label="smooth curve")
    ax.axhspan(low, high, color=plots.SERIES_COLORS[5], alpha=0.35, linewidth=0)
    ax.axhline(median, color=plots.SERIES_COLORS[0], linewidth=1.4, linestyle=":", label="median of windows, 95 %")
    ax.errorbar(sizes, values[:, 0], yerr=values[:, 1:].T, fmt="o", color=plots.SERIES_COLORS[0], capsize=3,
                label="window, 95 % over its blocks")  # fmt: skip
    ax.set(xscale="log", ylim=(0.7, 2.05), xlabel="magnification", ylabel="box-counting dimension")
    ax.set_title(f"median {median:.2f} ({low:.2f} to {high:.2f})", fontsize="medium")
