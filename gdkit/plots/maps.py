"""Maps of a sweep in the plane of two axes."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap
from matplotlib.lines import Line2D

from gdkit.errors import bad_value
from gdkit.plots import style
from gdkit.plots.lines import check_result, find_most_frequent, select_lines
from gdkit.regimes import Regime
from gdkit.sweeps.result.recommend import central_lane
from gdkit.sweeps.result.result import SweepResult


def regime_map(
    result: SweepResult,
    *,
    x: str,
    y: str,
    optimizer: str | None = None,
    at: Mapping[str, Any] | None = None,
    best: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Draw the most frequent regime of the seeds over two axes, the edge of divergence, and a star at the best point.

    Paired axes are drawn as points, others as cells; `y` may be ``optimizer`` if all optimizers have the same values.

    Args:
      result: a sweep.
      x, y: two axes; strings are drawn in the order of the axis.
      optimizer: the label of an optimizer; None: that of the recommended point.
      at: values of the other axes; those not given are those of the recommended point.
      best: whether to mark the recommended point if it lies in the plane.
      ax: the Axes to draw on.

    Raises:
      InputValueError, InputTypeError: an argument cannot be used.
    """
    plane = _select_plane(result, x, y, optimizer, at)
    ax = style.get_axes(ax)
    for which, values in (("x", plane.x), ("y", plane.y)):
        style.set_scale(ax, which, values)
    edge = (_draw_points if plane.is_paired else _draw_cells)(ax, plane)
    ax.set(xlabel=style.format_name(x), ylabel=style.format_name(y))
    star = [_draw_star(ax, plane)] if best and plane.best is not None else []
    style.draw_legend(ax, style.regime_handles(plane.codes[plane.codes >= 0]) + edge + star)
    return ax


class _AxisPlane(NamedTuple):
    """Regimes over two axes."""

    x: np.ndarray  # (columns,), increasing numbers, or strings
    y: np.ndarray  # (rows,)
    codes: np.ndarray  # (rows, columns), −1 where the sweep has no lane; (points,) if paired
    is_paired: bool
    best: tuple[Any, Any] | None = None  # the recommended point if it lies in the plane


def _select_plane(
    result: SweepResult, x: str, y: str, optimizer: str | None, at: Mapping[str, Any] | None
) -> _AxisPlane:
    check_result(result)
    if x == y:
        raise bad_value("y", y, "the same axis as x", "Name two axes")
    if y == "optimizer" and result.optimizers:
        lines = select_lines(result, x, None, at)
        if any(not np.array_equal(line.values, lines[0].values) for line in lines):
            raise bad_value("y", y, f"the optimizers have different values of {x}", "Use regime_strip")
        codes = np.stack([find_most_frequent(line.regimes) for line in lines])
        return _AxisPlane(lines[0].values, np.array([line.label for line in lines]), codes, is_paired=False)
    one = result.along(x, y, optimizer=optimizer, at=at)
    across, up = one.lanes[x].values, one.lanes[y].values
    if len(one.grids[0].dimensions) == 1:
        codes, best = find_most_frequent(one.lane_regimes.reshape(-1, one.seeds)), _find_best(result, one, x, y)
        return _AxisPlane(across[:: one.seeds], up[:: one.seeds], codes, is_paired=True, best=best)
    (xs, column), (ys, row) = _index_distinct(across), _index_distinct(up)
    counts = np.zeros((len(ys), len(xs), len(Regime)), int)
    np.add.at(counts, (row, column, one.lane_regimes), 1)
    codes = np.where(counts.any(axis=2), counts.argmax(axis=2), -1)
    return _AxisPlane(xs, ys, codes, is_paired=False, best=_find_best(result, one, x, y))


def _find_best(result: SweepResult, plane: SweepResult, x: str, y: str) -> tuple[Any, Any] | None:
    """The recommended point of the optimizer of `plane`; None if it lies in another plane, or all its runs diverged."""
    label = plane.grids[0].label
    whole = result.select(optimizer=label) if label and label in result.optimizers else result
    lane = central_lane(whole, (x, y))
    own = lambda name: whole.lanes[name].values[lane]
    is_here = all((plane.lanes[name].values == own(name)).any() for name in whole.axes if name in plane.lanes)
    seeds = slice(lane, lane + whole.seeds)
    score = whole.scores(whole.score_name())[seeds].mean()
    return (own(x), own(y)) if is_here and np.isfinite(score) else None


def _draw_star(ax: Axes, plane: _AxisPlane) -> Line2D:
    """Mark the best point; return its legend entry."""
    place = [
        float(np.flatnonzero(values == best)[0]) if values.dtype.kind not in "fiu" else float(best)
        for values, best in zip((plane.x, plane.y), plane.best or (), strict=True)
    ]
    look: dict[str, Any] = {"marker": "*", "color": "white", "markeredgecolor": "black", "linestyle": "none"}
    ax.plot(*place, **look, markersize=style.scale_size(13), zorder=6, clip_on=False)
    return Line2D([], [], **look, markersize=style.scale_size(10), label="best")


def _index_distinct(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct values, numbers increasing and strings in order of appearance, and the index of each value in them."""
    distinct, first, index = np.unique(values, return_index=True, return_inverse=True)
    if values.dtype.kind in "fiu":
        return distinct, index
    order = np.argsort(first)
    return distinct[order], np.argsort(order)[index]


def _draw_cells(ax: Axes, plane: _AxisPlane) -> list[Line2D]:
    """Draw cells in the colors of their regimes, markers on some of them, and the edge of divergence."""
    x, y = style.cell_edges(ax.xaxis, plane.x), style.cell_edges(ax.yaxis, plane.y)
    colors = ListedColormap([style.REGIME_COLORS[regime] for regime in Regime])
    cells = np.ma.masked_less(plane.codes, 0)
    ax.pcolormesh(x, y, cells, cmap=colors, vmin=-0.5, vmax=len(Regime) - 0.5, rasterized=cells.size > 4096)
    middles = [style.positions(v) for v in (plane.x, plane.y)]
    every = [math.ceil(len(v) / 14) for v in middles]
    for row in range(every[1] // 2, len(middles[1]), every[1]):
        for column in range(every[0] // 2, len(middles[0]), every[0]):
            if plane.codes[row, column] >= 0:
                look = style.symbol(Regime(int(plane.codes[row, column])), 3.5)
                ax.plot(middles[0][column], middles[1][row], **look, alpha=0.75)
    segments = _find_borders(plane.codes, x, y)
    for width, color in ((3.6, "white"), (1.8, "black")) if segments else ():
        ax.add_collection(LineCollection(segments, colors=color, linewidths=width, capstyle="projecting"))
    ax.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]) if plane.y.dtype.kind in "fiu" else (y[-1], y[0]))
    for axis, values in ((ax.xaxis, plane.x), (ax.yaxis, plane.y)):
        style.tidy_ticks(axis)
        if axis.get_scale() == "linear" and values.dtype.kind in "fiu" and len(values) <= 8:
            axis.set_ticks(values)
    return [Line2D([], [], color="black", linewidth=1.8, label="edge of divergence")] if segments else []


def _find_borders(codes: np.ndarray, x: np.ndarray, y: np.ndarray) -> list:
    """The sides that separate diverged cells from others."""
    diverged, known = codes == Regime.DIVERGED, codes >= 0
    upright = (diverged[:, 1:] != diverged[:, :-1]) & known[:, 1:] & known[:, :-1]
    level = (diverged[1:] != diverged[:-1]) & known[1:] & known[:-1]
    sides = [((x[c + 1], y[r]), (x[c + 1], y[r + 1])) for r, c in np.argwhere(upright)]
    return sides + [((x[c], y[r + 1]), (x[c + 1], y[r + 1])) for r, c in np.argwhere(level)]


def _draw_points(ax: Axes, plane: _AxisPlane) -> list[Line2D]:
    """Draw one marker per point."""
    x, y = style.positions(plane.x), style.positions(plane.y)
    for regime in Regime:
        mine = plane.codes == regime
        if mine.any():
            ax.plot(x[mine], y[mine], **style.mark(regime, 6))
    return []
