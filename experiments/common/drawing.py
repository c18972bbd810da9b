"""What the figures of several studies draw alike: theory, borders, seeds, intervals, legends."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from gdkit import plots

INK = "0.15"
FORMULA: dict[str, Any] = {"color": INK, "linewidth": 1.2}  # a line of theory
BORDER: dict[str, Any] = FORMULA | {
    "linestyle": (0, (1, 1.2))
}  # where theory, or a measurement, says that things change
STAR: dict[str, Any] = {"marker": "*", "linestyle": "none", "markeredgecolor": INK, "zorder": 5}  # the best of a line


def borders(ax: Axes, named: Mapping[str, float], *, at: float = 0.96, above: bool = False, **look: Any) -> None:
    """Dotted lines at values of x, their names upright left of them at a share of the height, or above the axes."""
    for name, value in named.items():
        ax.axvline(value, **BORDER | look)
        place: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
        if above:
            ax.annotate(name, (value, 1), (0, 4), fontsize="small", ha="center", **place)
        else:
            turned: dict[str, Any] = {"rotation": 90, "ha": "right", "va": "center" if at == 0.5 else "top"}
            ax.annotate(name, (value, at), (-4, 0), fontsize="small", **turned, **place)


def level(ax: Axes, height: float, text: str, *, above: bool) -> None:
    """A dotted line at a height, and what it is, above or below it."""
    ax.axhline(height, **BORDER)
    ax.annotate(
        text, (0.02, height), (0, 3 if above else -3), xycoords=("axes fraction", "data"), textcoords="offset points",
        va="bottom" if above else "top", fontsize="small", color=INK,
    )  # fmt: skip


def seeds(ax: Axes, x: np.ndarray, scores: np.ndarray, number: int, label: str, *, middle: Callable = np.mean) -> None:
    """The n-th series of scores, (x, seeds), at `x`: a faint mark a seed, and a line of their middle."""
    look = plots.style.series(number)
    ax.plot(np.repeat(x, scores.shape[1]), scores.ravel(), **look, linestyle="none", alpha=0.35, markersize=4)
    ax.plot(x, middle(scores, axis=1), **look, label=label)


def bars(
    ax: Axes, at: np.ndarray, values: np.ndarray, interval: np.ndarray, *, flat: bool = False, **look: Any
) -> None:
    """Marks with bars over an interval, (2, points); along the other axis where `flat`."""
    reach = np.maximum([values - interval[0], interval[1] - values], 0)
    points: dict[str, Any] = {"x": values, "y": at, "xerr": reach} if flat else {"x": at, "y": values, "yerr": reach}
    ax.errorbar(**points, linestyle="none", **look)


def powers_of_two(ax: Axes, name: str) -> None:
    """An axis of sizes that double, in plain numbers."""
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.set_xlabel(name)


def legend_below(ax: Axes, ncols: int = 2, *, drop: float = 0.14, **options: Any) -> None:
    """A legend under the axis' label."""
    place: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, -drop), "ncols": ncols}
    ax.legend(**place, frameon=False, fontsize="small", **options)
