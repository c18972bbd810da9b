"""The figures of docs/performance.md."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks import COMPARED
from gdkit import plots
from gdkit.plots import style


def draw(parts: Mapping[str, Any]) -> dict[str, Figure]:
    """Figures by file name, from the available parts."""
    figures = {}
    compared = [parts[name] for name in COMPARED if name in parts]
    if compared:
        figures["performance"] = peers(compared)
    if "scaling" in parts:
        figures["performance_scaling"] = scaling(parts["scaling"])
    return figures


def peers(compared: Sequence[Mapping[str, Any]]) -> Figure:
    """Time of each peer (row) on each workload (mark) as a multiple of gdkit's."""
    name = lambda row: f"{row['title']}, {_RECORDED[row['flavour']]}"
    titles = list(dict.fromkeys(name(row) for part in compared for row in part["peers"]))
    titles.remove(f"gdkit, {_RECORDED['all']}")
    figure = Figure(figsize=(8.4, 1.8 + 0.34 * len(titles)), layout="constrained")
    ax = figure.subplots()
    for number, part in enumerate(compared):
        rows = [row for row in part["peers"] if name(row) in titles]
        # offset, so that equal ratios do not overlap
        places = [titles.index(name(row)) + 0.08 * (number - len(compared) / 2) for row in rows]
        mark: dict[str, Any] = style.series(number) | {"markeredgecolor": style.INK, "markeredgewidth": 0.5}
        ax.plot([row["ratio"] for row in rows], places, linestyle="none", label=part["title"], **mark)
    ax.axvline(1, color=style.INK, linewidth=1)
    ax.set_xscale("log")
    ax.set_yticks(range(len(titles)), titles)
    ax.invert_yaxis()
    for border in range(1, len(titles)):
        ax.axhline(border - 0.5, color="0.9", linewidth=0.8, zorder=0)
    ax.set_xlabel("time as a multiple of gdkit's with all statistics (right of 1: slower)")
    figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize="small")
    return figure


_RECORDED = {"bare": "final loss only", "ends": "final loss only", "all": "all statistics"}  # by the flavour of a peer


def scaling(part: Mapping[str, Any]) -> Figure:
    """Time against lanes, steps and params, and memory against steps."""
    figure = Figure(figsize=(8.4, 5.6), layout="constrained")
    (by_lanes, by_steps), (memory, by_params) = figure.subplots(2, 2)
    lanes, steps, params = part["lanes"], part["steps"], part["params"]
    dense = np.geomspace(min(lanes["lanes"]), max(lanes["lanes"]), 100)
    by_lanes.plot(dense, lanes["a"] + lanes["b"] * dense, color=style.INK, linewidth=1, label="a + b · lanes")
    _points(by_lanes, lanes["lanes"], lanes["seconds"], f"lanes of a scalar, {lanes['steps']} steps")
    by_lanes.legend(frameon=False)
    _points(by_steps, steps["steps"], steps["seconds"], f"steps, {steps['lanes']:,} lanes of a scalar")
    _points(by_params, params["params"], params["seconds"], f"params, {params['lanes']} lanes, {params['steps']} steps")
    peaks = [peak / 2**20 for peak in steps["peak"]]
    memory.semilogx(steps["steps"], peaks, "s", color=plots.SERIES_COLORS[1])
    memory.set_ylim(0, 1.3 * max(peaks))
    memory.set_xlabel(f"steps, {steps['lanes']:,} lanes of a scalar")
    memory.set_ylabel("peak memory of the process (MiB)")
    for ax in (by_lanes, by_steps, by_params):
        ax.set_ylabel("time (s)")
        style.tidy_ticks(ax.yaxis)
    return figure


def _points(ax: Axes, x: Sequence[float], seconds: Sequence[float], label: str) -> None:
    ax.loglog(x, seconds, "o", color=plots.SERIES_COLORS[0], label="measured")
    ax.set_xlabel(label)
