"""The figure of `experiments.optimizer_race`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments import profiles
from gdkit import plots

if TYPE_CHECKING:
    from experiments.optimizer_race import Race

COLORS = (*plots.SERIES_COLORS, "0.5")
STYLES: Any = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)), (0, (9, 1)), (0, (4, 1, 1, 1)), (0, (1, 1)))


def draw(result: "Race") -> Figure:
    """One figure: the profiles at tuned and at default learning rates, side by side."""
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    far = 10 ** np.ceil(np.log10(max(np.max(r[np.isfinite(r)], initial=10.0) for r in result.ratios.values())))
    for ax, (name, ratio) in zip(axes, result.ratios.items(), strict=True):
        _draw(ax, result.names, ratio, far)
        ax.set_title(f"{name} learning rates, with scores", fontsize="medium")
    axes[0].set_ylabel(f"$\\rho(\\tau)$: share of {len(result.problems)} problems solved")
    return figure


def _draw(ax: Axes, names: Sequence[str], ratio: np.ndarray, far: float) -> None:
    tau = np.unique(np.append(ratio[np.isfinite(ratio)], [1.0, far]))
    rho, scores = profiles.profile(ratio, tau), profiles.score(ratio)
    ax.axvspan(1, profiles.MOST, color="0.93", zorder=0)
    ax.text(np.sqrt(profiles.MOST), 1.0, "scored", fontsize="small", color="0.35", ha="center", va="top")
    order = np.argsort(rho[:, -1], kind="stable")
    heights = _apart(rho[order, -1], 0.062)
    for i, height in zip(order, heights, strict=True):
        color, text = COLORS[i], f"{names[i]}  {scores[i]:.2f}"
        ax.step(tau, rho[i], where="post", color=color, linestyle=STYLES[i], linewidth=1.7)
        line = {"arrowstyle": "-", "color": color, "linewidth": 0.7, "relpos": (0, 0.5), "shrinkA": 0, "shrinkB": 0}
        look: dict[str, Any] = {"color": color, "va": "center", "fontsize": "small", "annotation_clip": False}
        ax.annotate(text, (far, rho[i, -1]), (far * 1.5, height), arrowprops=line, **look)
    ax.set(xscale="log", xlim=(1, far), ylim=(0, 1.02), xlabel="$\\tau$: steps over those of the fastest")


def _apart(values: np.ndarray, gap: float) -> np.ndarray:
    """Places in [0, 1], `gap` apart at least, near `values`, which are increasing."""
    steps = gap * np.arange(len(values))
    low = values - steps
    middle = (np.maximum.accumulate(low) + np.minimum.accumulate(low[::-1])[::-1]) / 2
    return np.clip(middle, 0, 1 - steps[-1]) + steps
