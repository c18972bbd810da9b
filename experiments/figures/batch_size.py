"""The figure of `experiments.batch_size`."""

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.drawing import BORDER, FORMULA, bars, powers_of_two
from experiments.learning_rates import Best
from gdkit import plots

if TYPE_CHECKING:
    from experiments.batch_size import BatchSize


def draw(result: "BatchSize") -> Figure:
    """One figure: the best learning rate against the batch size, of one step, and of runs by sgd and adam."""
    figure = Figure(figsize=(12, 4.2), layout="constrained")
    axes = figure.subplots(1, 3)
    noise, rows = result.noise, result.settings["rows"]
    dense = np.geomspace(result.one_step.batch_sizes[0], result.one_step.batch_sizes[-1], 100)
    axes[0].plot(dense, noise.best(dense), **FORMULA, label="$\\eta_{max}/(1+B_{noise}/B)$")
    axes[0].axvline(noise.scale, **BORDER | {"color": "0.55", "linewidth": 1}, label="$B_{noise}$")
    axes[0].set(title="one step on a quadratic, sgd", ylabel="best learning rate")
    linear = result.settings["sgd"]["linear_to"]
    _draw_power(axes[1], result.runs["sgd"], 1.0, linear, "in proportion to $B$")
    axes[1].set_title(f"sgd, runs that read {rows:,} rows")
    _draw_power(axes[2], result.runs["adam"], 0.5, np.inf, "in proportion to $\\sqrt{B}$")
    axes[2].set_title(f"adam, runs that read {rows:,} rows")
    for number, (ax, found) in enumerate(zip(axes, (result.one_step, *result.runs.values()), strict=True)):
        _draw(ax, found, number)
    return figure


def _draw_power(ax: Axes, found: "Best", power: float, most: float, label: str) -> None:
    """The law through batch sizes up to `most`, and dotted beyond."""
    kept = found.batch_sizes <= most
    law = found.batch_sizes**power * np.exp(np.mean(np.log(found.rates[kept] / found.batch_sizes[kept] ** power)))
    ax.plot(found.batch_sizes[kept], law[kept], **FORMULA, label=label)
    beyond = (found.batch_sizes >= most) & (law < 3 * found.rates.max())
    ax.plot(found.batch_sizes[beyond], law[beyond], **BORDER)


def _draw(ax: Axes, found: "Best", number: int) -> None:
    look: dict[str, Any] = plots.style.series(number) | {"markersize": 6, "label": "measured, 95 % of seeds"}
    bars(ax, found.batch_sizes, found.rates, found.interval, **look)
    powers_of_two(ax, "batch size (rows)")
    ax.set_yscale("log")
    plots.style.tidy_ticks(ax.yaxis)
    ax.legend(edgecolor="none", framealpha=1, fontsize="small", loc="lower right")
