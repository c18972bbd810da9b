"""What the figures of several studies draw in the same way: theory, borders, seeds, intervals, legends."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from gdkit import plots

INK = "0.15"
THEORY_LINE: dict[str, Any] = {"color": INK, "linewidth": 1.2}
BORDER_LINE: dict[str, Any] = THEORY_LINE | {"linestyle": (0, (1, 1.2))}  # where the behaviour changes
BEST_MARK: dict[str, Any] = {"marker": "*", "linestyle": "none", "markeredgecolor": INK, "zorder": 5}


def draw_borders(ax: Axes, named: Mapping[str, float], *, at: float = 0.96, above: bool = False, **style: Any) -> None:
    """Dotted vertical lines with their names, rotated beside them at the height `at` (a share), or above the axes."""
    for name, value in named.items():
        ax.axvline(value, **BORDER_LINE | style)
        place: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
        if above:
            ax.annotate(name, (value, 1), (0, 4), fontsize="small", ha="center", **place)
        else:
            upright: dict[str, Any] = {"rotation": 90, "ha": "right", "va": "center" if at == 0.5 else "top"}
            ax.annotate(name, (value, at), (-4, 0), fontsize="small", **upright, **place)


def draw_level(ax: Axes, height: float, text: str, *, above: bool) -> None:
    """A dotted horizontal line with its name above or below it."""
    ax.axhline(height, **BORDER_LINE)
    ax.annotate(
        text, (0.02, height), (0, 3 if above else -3), xycoords=("axes fraction", "data"), textcoords="offset points",
        va="bottom" if above else "top", fontsize="small", color=INK,
    )  # fmt: skip


def draw_seeds(
    ax: Axes, x: np.ndarray, scores: np.ndarray, number: int, label: str, *, average: Callable = np.mean
) -> None:
    """The n-th series of scores, (x, seeds): one faint mark per seed, and a line through their average."""
    style = plots.style.series(number)
    ax.plot(np.repeat(x, scores.shape[1]), scores.ravel(), **style, linestyle="none", alpha=0.35, markersize=4)
    ax.plot(x, average(scores, axis=1), **style, label=label)


def draw_intervals(
    ax: Axes, at: np.ndarray, values: np.ndarray, interval: np.ndarray, *, horizontal: bool = False, **style: Any
) -> None:
    """Marks with error bars over an interval, (2, points)."""
    reach = np.maximum([values - interval[0], interval[1] - values], 0)
    vertical: dict[str, Any] = {"x": at, "y": values, "yerr": reach}
    points = {"x": values, "y": at, "xerr": reach} if horizontal else vertical
    ax.errorbar(**points, linestyle="none", **style)


def set_power_of_two_axis(ax: Axes, name: str) -> None:
    """A logarithmic x-axis of sizes that double, with plain numbers as labels."""
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.set_xlabel(name)


def place_legend_below(ax: Axes, ncols: int = 2, *, drop: float = 0.14, **options: Any) -> None:
    """A legend under the x-axis' label."""
    place: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, -drop), "ncols": ncols}
    ax.legend(**place, frameon=False, fontsize="small", **options)
