"""Figures of single runs, among them those that `SweepResult.explain` ran again."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import matplotlib as mpl
import numpy as np
from jax.flatten_util import ravel_pytree
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.lines import Line2D

from gdkit.descent import Trajectory
from gdkit.errors import bad_type, bad_value
from gdkit.plots import style
from gdkit.problems import Problem
from gdkit.regimes import Regime, classify
from gdkit.sweeps.result.explanation import ExplainedRun


def trajectories(
    problem: Problem,
    runs: Trajectory | Sequence[Trajectory],
    *,
    labels: Sequence[str] | None = None,
    limits: tuple[tuple[float, float], tuple[float, float]] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw paths of runs with two params, over contours of the loss at equal ratios above its minimum.

    A ring marks the start of a path, the marker of its regime the end.

    Args:
      problem: the problem of the runs; its params are two numbers.
      runs: results of ``descend(..., record_params=True)``.
      labels: one label per run.
      limits: ``((left, right), (bottom, top))``; None: around all points with a loss up to that of their start.
      ax: the Axes to draw on.

    Raises:
      InputValueError, InputTypeError: an argument cannot be used.
    """
    style.check_limits(limits, (2, 2))
    runs = (runs,) if isinstance(runs, Trajectory) else tuple(runs)
    if not runs:
        raise bad_value("runs", runs, "it is empty", "Pass at least one Trajectory")
    style.check_labels(labels, len(runs), "run")
    paths = [_get_path(run, 2) for run in runs]
    loss = _make_loss(problem, runs[0])
    low, high = np.transpose(limits) if limits else _find_box(paths, runs)
    ax = style.get_axes(ax, height=4.4)
    _draw_contours(ax, loss, problem.optimum, low, high)
    ax.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), xlabel="$x_0$", ylabel="$x_1$")
    handles = []
    regimes = [_classify(problem, run) for run in runs]
    for number, (path, regime, label) in enumerate(zip(paths, regimes, labels or [""] * len(runs), strict=True)):
        look = style.series(number)
        _draw_path(ax, path, low, high, look["color"], regime)
        if label:
            handles.append(Line2D([], [], color=look["color"], linewidth=1.6, label=label))
    style.draw_legend(ax, handles, style.regime_handles(regimes, color="0.75"))
    return ax


def descent_1d(
    problem: Problem,
    run: Trajectory,
    *,
    regime: Regime | None = None,
    limits: tuple[float, float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the loss L(x) of one number x, and on it the iterates of a run, joined in order.

    Args:
      problem: the problem of the run; its params are one number.
      run: the result of ``descend(..., record_params=True)``.
      regime: the regime that decides color and end marker; None: that of the run.
      limits: ``(left, right)``; None: around all points with a loss up to that of the start.
      ax: the Axes to draw on.

    Raises:
      InputValueError, InputTypeError: an argument cannot be used.
    """
    style.check_limits(limits, (2,))
    x = _get_path(run, 1)[:, 0]
    loss = _make_loss(problem, run)
    if limits is None:
        low, high = _find_box([x[:, None]], (run,))
        limits = (float(low[0]), float(high[0]))
    ax = style.get_axes(ax, height=3.2)
    grid = np.linspace(*limits, 401)
    values = loss(grid[:, None])
    pad = 0.06 * float(np.ptp(values)) or 1.0
    low, high = np.array([limits[0], values.min() - pad]), np.array([limits[1], values.max()])
    ax.plot(grid, values, color="0.6", linewidth=1.2, zorder=1)
    ax.set(xlim=limits, ylim=(low[1], high[1]), xlabel="$x$", ylabel="$L(x)$")
    regime = _classify(problem, run) if regime is None else regime
    path = np.stack([x, loss(x[:, None])], axis=1)
    _draw_path(ax, path, low, high, style.REGIME_COLORS[regime], regime, outline=True)
    return ax


def _draw_path(
    ax: Axes, path: np.ndarray, low: np.ndarray, high: np.ndarray, color: Any, regime: Regime, *, outline: bool = False
) -> None:
    """Draw points joined in order, up to the edge of the axes: a ring at the start, the regime's marker at the end."""
    seen = style.clip_path(path, low, high)
    inside = seen[((seen >= low) & (seen <= high)).all(axis=1)]
    width = 0.7 if outline or len(seen) > 100 else 1.3
    ax.plot(*seen.T, color=style.INK if outline else color, linewidth=width, zorder=3)
    dot: dict[str, Any] = {"marker": "o", "color": color, "linestyle": "none", "markeredgecolor": style.INK}
    ax.plot(*inside.T, **dot, markersize=5 if outline else 2.6, markeredgewidth=0.5 if outline else 0, zorder=4)
    ring: dict[str, Any] = {"marker": "o", "markersize": 7.5, "markerfacecolor": "white", "markeredgecolor": style.INK}
    ax.plot(*seen[0], **ring, markeredgewidth=1.3, zorder=5)
    end: dict[str, Any] = style.mark(regime, 9) | {"color": color}
    ax.plot(*seen[-1], **end, zorder=6, clip_on=False)


def _draw_contours(ax: Axes, loss: Callable, optimum: Any, low: np.ndarray, high: np.ndarray) -> None:
    x, y = (np.linspace(a, b, 301) for a, b in zip(low, high, strict=True))
    grid = np.stack(np.meshgrid(x, y), axis=-1)
    height = loss(grid.reshape(-1, 2)).reshape(grid.shape[:2])
    height = np.where(np.isfinite(height), height, np.nan)
    least = float(np.nanmin(height)) if optimum is None else float(optimum)
    gap = height - least
    most = float(np.nanmax(gap)) or 1.0
    bottom = max(float(np.nanmin(np.where(gap > 0, gap, np.inf))), 1e-5 * most)
    levels = np.geomspace(min(bottom, most / 10), most, 14)
    greys = ListedColormap(mpl.colormaps["Greys"](np.linspace(0.0, 0.34, 64)))
    norm = LogNorm(levels[0], levels[-1])
    ax.contourf(x, y, np.maximum(gap, levels[0]), levels=levels, cmap=greys, norm=norm, zorder=0)
    ax.contour(x, y, gap, levels=levels, colors="0.6", linewidths=0.5, zorder=1)


def _find_box(paths: Sequence[np.ndarray], runs: Sequence[Trajectory]) -> tuple[np.ndarray, np.ndarray]:
    """The box of the points with a loss up to that of their start, with a margin and sides of ratio 0.4 to 2.5."""
    inside = []
    for path, run in zip(paths, runs, strict=True):
        losses = np.asarray(run.loss)
        inside += [path[:1], path[np.isfinite(path).all(axis=1) & (losses <= losses[0])]]
    points = np.concatenate(inside)
    low, high = points.min(axis=0), points.max(axis=0)
    width = np.maximum(high - low, 0.4 * (high - low).max())
    width = np.where(width > 0, width, 1.0)
    middle = (low + high) / 2
    return middle - 0.62 * width, middle + 0.62 * width


def _get_path(run: Trajectory, size: int) -> np.ndarray:
    """The params of a run at its recorded steps, (points, size)."""
    if not isinstance(run, Trajectory):
        raise bad_type("runs", run, "not a Trajectory", "Pass the result of gdkit.descend")
    if run.params_history is None:
        raise bad_value("runs", "a Trajectory", "its params were not recorded", "Use descend(..., record_params=True)")
    points = len(run.loss)
    leaves = [np.asarray(leaf, float).reshape(points, -1) for leaf in jax.tree.leaves(run.params_history)]
    path = np.concatenate(leaves, axis=1)
    if path.shape[1] != size:
        wanted = "one number" if size == 1 else "two numbers"
        raise bad_value("runs", "a Trajectory", f"its params are {path.shape[1]} numbers", f"Draw params of {wanted}")
    return path


def _make_loss(problem: Problem, run: Trajectory) -> Callable[[np.ndarray], np.ndarray]:
    """``(n, params) -> (n,)``: the loss on all data, for flattened params."""
    if not isinstance(problem, Problem):
        raise bad_type("problem", problem, "not a Problem", "Pass the gdkit.Problem of the runs; call its factory")
    if problem.has_aux:
        raise bad_value("problem", problem.name, "its loss depends on more than its params", "Draw one without aux")
    _, unravel = ravel_pytree(run.params)
    batch = () if problem.data is None else (problem.data,)
    loss = jax.vmap(lambda row: problem.loss(unravel(row), *batch))
    return lambda rows: np.asarray(loss(np.asarray(rows, ravel_pytree(run.params)[0].dtype)), float)


def _classify(problem: Problem, run: Trajectory) -> Regime:
    return Regime(int(classify(run.statistics, optimum=problem.optimum).regime))


def coordinate_check(
    widths: Sequence[int], changes: Any, *, labels: Sequence[str] | None = None, ax: Axes | None = None
) -> Axes:
    """Draw the change of each layer's outputs during training against the width: constant where steps suit every width.

    Lines are means over seeds, bars their ranges. Yang et al., Tensor Programs V, 2022, appendix D.1.

    Args:
      widths: widths of the networks.
      changes: mean |h_t − h_0| of each layer, (widths, seeds, layers); for example the last points of
        `gdkit.problems.layer_changes`.
      labels: one label per layer.
      ax: the Axes to draw on.

    Raises:
      InputValueError: the shapes do not agree.
    """
    changes = np.asarray(changes, float)
    if changes.ndim != 3 or len(changes) != len(widths):
        raise bad_value("changes", changes.shape, "not (widths, seeds, layers)", f"Pass {len(widths)} rows")
    style.check_labels(labels, changes.shape[2], "layer")
    labels = labels or [f"layer {number}" for number in range(1, changes.shape[2] + 1)]
    ax = style.get_axes(ax)
    for number, (layer, label) in enumerate(zip(np.moveaxis(changes, 2, 0), labels, strict=True)):
        mean = layer.mean(axis=1)
        bars = np.maximum([mean - layer.min(axis=1), layer.max(axis=1) - mean], 0)
        ax.errorbar(widths, mean, yerr=bars, label=label, linewidth=1.2, markersize=5, **style.series(number))
    ax.set_xscale("log", base=2)
    ax.set(yscale="log", xlabel="width", ylabel="mean $|h_t - h_0|$")
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    style.tidy_ticks(ax.yaxis)
    ax.legend(frameon=False, fontsize="small")
    return ax


def curvature(run: ExplainedRun, *, ax: Axes | None = None) -> Axes:
    """Draw the sharpness along a run, its batch sharpness, and the edge of stability of its optimizer."""
    ax = style.get_axes(ax, height=3.2)
    ax.plot(run.step, run.sharpness, **_choose_look(0), label="sharpness")
    if run.batch_sharpness is not None:
        ax.plot(run.step, run.batch_sharpness, **_choose_look(1), label="batch sharpness")
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
        ax.plot(run.flow.step, run.flow.predicted, **_choose_look(1), label="mean loss by the central flow")
        ax.plot(run.flow.step, run.flow.flow_loss, **_choose_look(2), label="loss at the central flow")
    if finite.any():
        ax.set_yscale("log")
    ax.set(xlabel="step", ylabel="loss")
    style.draw_legend(ax, ax.get_legend_handles_labels()[0])
    return ax


def _choose_look(number: int) -> dict[str, Any]:
    return style.series(number) | {"markersize": 3, "linewidth": 1}
