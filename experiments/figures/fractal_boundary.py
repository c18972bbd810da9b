"""The figure and the film of `experiments.fractal_boundary`."""

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.animation import FuncAnimation
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gdkit import plots
from gdkit.boundary import Trail

if TYPE_CHECKING:
    from experiments.fractal_boundary import Borders

SOURCE = "Sohl-Dickstein 2024"
PUBLISHED = (1.17, 1.98)  # dimensions over six conditions
NAMES = ("not trained", "trained")
LABELS = ("log₁₀ learning rate, hidden layer", "log₁₀ learning rate, output layer")


def draw(result: "Borders") -> dict[str, Figure | FuncAnimation]:
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


def _draw_window(ax: Axes, result: "Borders", trail: Trail, depth: int) -> None:
    inner = trail.frames[depth + 1] if depth + 1 < len(trail.frames) else None
    plots.answers(trail.frames[depth], inner=inner, ticks=depth == 0, ax=ax)
    power = {0: "× 1", 1: f"× {result.settings['zoom']['factor']}"}
    size = power.get(depth, f"× ${result.settings['zoom']['factor']}^{depth}$")
    found = trail.dimensions[depth]
    ax.set_title(f"{size}: dimension {found.value:.2f}" if found else size, fontsize="medium")
    ax.set_box_aspect(1)


def _draw_dimensions(ax: Axes, result: "Borders", trail: Trail) -> None:
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
