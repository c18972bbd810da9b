"""Figures of sweeps."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap, LogNorm, Normalize, SymLogNorm
from matplotlib.lines import Line2D
from matplotlib.transforms import Bbox

from gdkit.errors import bad_type, bad_value, unknown_name
from gdkit.plots import style
from gdkit.regimes import Regime
from gdkit.sweeps.result.result import SweepResult

_SIGNS: dict[str, dict[str, Any]] = {
    "best": {"marker": "*", "markerfacecolor": "white", "linestyle": "none", "markersize": 9},
    "edge": {"linestyle": "--", "linewidth": 1.3},
    "diverged": {"marker": "x", "linestyle": "none", "markersize": 4},
}
_CURVES = 150  # that can be told apart, at most
_ROWS = 6  # of crosses at the top, at most
_STAR: dict[str, Any] = {"marker": "*", "color": "white", "markeredgewidth": 1.3, "linestyle": "none"}


def loss_curves(
    result: SweepResult,
    *,
    axis: str = "learning_rate",
    seed: int = 0,
    optimizer: str | None = None,
    at: Mapping[str, Any] | None = None,
    log_steps: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Loss against step, a line a value of `axis`, coloured by it; the mark at its end tells the regime.

    The loss axis is chosen by the lanes that did not diverge; those that did are drawn to where they leave it. Of very
    many values, some at equal distances are drawn.

    Args:
      result: a sweep; without recorded curves, lines join the first and the last loss.
      axis: a numeric axis.
      seed: which seed's runs.
      optimizer: which optimizer's; by default that of the best point.
      at: values of the other axes; by default those of the best point.
      log_steps: whether steps are on a log axis (with 0 at its left).
      ax: where to draw.

    Raises:
      InputValueError, InputTypeError: an argument cannot be used.
    """
    line = _line(result, axis, optimizer, at)
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < result.seeds:
        raise bad_value("seed", seed, "no such seed", f"Use 0 to {result.seeds - 1}")
    ax = style.axes(ax)
    shown = np.unique(np.linspace(0, len(line.values) - 1, _CURVES).round().astype(int))
    curves = [_curve(line.result, row) for row in line.rows[shown, seed]]
    regimes = line.regimes[shown, seed]
    stayed = [losses for (_, losses), regime in zip(curves, regimes, strict=True) if regime != Regime.DIVERGED]
    begun = [losses[:1] * factor for _, losses in curves for factor in (1.0, 100.0)]  # where all diverged
    style.set_loss_axis(ax, np.concatenate(stayed or begun))
    if log_steps:
        ax.set_xscale("symlog", linthresh=1, linscale=0.4, subs=range(2, 10))
    ax.set_xlim(0, max(float(steps[-1]) for steps, _ in curves) * (1.06 if log_steps else 1.02))
    shades = _shades(line)
    for (steps, losses), value, regime in zip(curves, line.values[shown], regimes, strict=True):
        _draw_curve(ax, steps, losses, shades.to_rgba(value), Regime(int(regime)))
    ax.set(xlabel="step", ylabel="loss")
    style.legend(ax, style.regime_handles(regimes))
    _colour_bar(ax, shades, style.words(axis))
    return _titled(ax, result, line)


def final_loss(
    result: SweepResult,
    *,
    by: str | None = None,
    axis: str = "learning_rate",
    optimizer: str | None = None,
    at: Mapping[str, Any] | None = None,
    threshold: float | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Loss at the end against `axis`: the median over seeds as a line, their spread as a band, each as a point.

    A strip above tells the regime (the commonest over seeds); for one optimizer it is the background too, several are
    laid over one another. Lines mark the edge where divergence begins; seeds that diverged are crosses at the top.

    Args:
      result: a sweep.
      by: what is drawn; by default ``validation_loss`` if there is one, else ``final_loss``.
      axis: a numeric axis.
      optimizer: one of several; by default all that have the axis.
      at: values of the other axes; by default those of each optimizer's best point.
      threshold: theory's border of divergence, to be compared with the edge.
      ax: where to draw.

    Raises:
      InputValueError, InputTypeError: an argument cannot be used.
    """
    lines = _lines(result, axis, optimizer, at)
    by = result.score_name(by)
    ax = style.axes(ax)
    style.set_scale(ax, "x", np.concatenate([line.values for line in lines]))
    scores = [_scores(line, by) for line in lines]
    style.set_loss_axis(ax, np.concatenate([s.ravel() for s in scores]), room=0.025 * _count_rows(scores))
    handles = _draw_only(ax, lines[0], axis, by, scores[0]) if len(lines) == 1 else []
    if len(lines) > 1:
        for number, (line, score) in enumerate(zip(lines, scores, strict=True)):
            handles.append(_draw_one_of_several(ax, line, axis, by, score, number))
        handles += [Line2D([], [], color=style.INK, **look, label=name) for name, look in _SIGNS.items()]
    if threshold is not None:
        style.check_number("threshold", threshold)
        look: dict[str, Any] = {"color": style.INK, "linewidth": 1.5, "linestyle": (0, (1, 1.2))}
        handles.append(ax.axvline(threshold, **look, label=f"theory {style.short(threshold)}", zorder=3))
    _draw_strip(ax, lines)
    style.tidy_ticks(ax.xaxis)
    ax.set(xlabel=style.words(axis), ylabel=style.words(by))
    style.legend(ax, handles, style.regime_handles(np.concatenate([line.regimes.ravel() for line in lines])))
    return _titled(ax, result, lines[0], named=False) if len(lines) == 1 else ax


def regime_map(
    result: SweepResult,
    *,
    x: str,
    y: str,
    optimizer: str | None = None,
    at: Mapping[str, Any] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Regimes over two axes, the commonest over seeds, with the border of divergence as a line.

    Axes that were paired are drawn as points, others as cells; `y` may be ``optimizer`` where all have the same axes.

    Args:
      result: a sweep.
      x, y: two axes; text is drawn in the order of the axis.
      optimizer: which optimizer's; by default that of the best point.
      at: values of the other axes; by default those of the best point.
      ax: where to draw.

    Raises:
      InputValueError, InputTypeError: an argument cannot be used.
    """
    plane = _plane(result, x, y, optimizer, at)
    ax = style.axes(ax)
    for which, values in (("x", plane.x), ("y", plane.y)):
        style.set_scale(ax, which, values)
    edge = (_draw_points if plane.paired else _draw_cells)(ax, plane)
    ax.set(xlabel=style.words(x), ylabel=style.words(y))
    style.legend(ax, style.regime_handles(plane.codes[plane.codes >= 0]) + edge)
    return ax


def regime_strip(
    result: SweepResult,
    *,
    axis: str = "learning_rate",
    optimizer: str | None = None,
    at: Mapping[str, Any] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Regimes along `axis` as a strip, a row an optimizer; each may have values of its own.

    At each value the row is divided among the regimes of the seeds, what diverged on top.

    Args:
      result: a sweep.
      axis: a numeric axis.
      optimizer: one of several; by default all that have the axis.
      at: values of the other axes; by default those of each optimizer's best point.
      ax: where to draw.

    Raises:
      InputValueError, InputTypeError: an argument cannot be used.
    """
    lines = _lines(result, axis, optimizer, at)
    ax = style.axes(ax, height=0.9 + 0.3 * len(lines))
    style.set_scale(ax, "x", np.concatenate([line.values for line in lines]))
    _fill_strip(ax, lines)
    style.tidy_ticks(ax.xaxis)
    ax.set_xlabel(style.words(axis))
    style.legend(ax, style.regime_handles(np.concatenate([line.regimes.ravel() for line in lines])))
    return ax


class _Line(NamedTuple):
    """The lanes of one optimizer along one axis."""

    result: SweepResult
    values: np.ndarray  # (values,), increasing
    rows: np.ndarray  # (values, seeds), lanes of `result`

    @property
    def label(self) -> str:
        return self.result.grids[0].label or ""

    @property
    def regimes(self) -> np.ndarray:
        """Codes, (values, seeds)."""
        return self.result.lane_regimes[self.rows]


class _Plane(NamedTuple):
    """Regimes over two axes."""

    x: np.ndarray  # (columns,), increasing numbers, or texts
    y: np.ndarray  # (rows,)
    codes: np.ndarray  # (rows, columns), −1 where the sweep has no lane; (points,) if paired
    paired: bool


def _lines(result: Any, axis: str, optimizer: str | None, at: Mapping[str, Any] | None) -> list[_Line]:
    """One line an optimizer that has the axis."""
    _check_result(result)
    if optimizer is not None or not result.optimizers:
        return [_line(result, axis, optimizer, at)]
    _check_axis(result, axis)
    having = [label for label in result.optimizers if axis in result.select(optimizer=label).axes]
    return [_line(result, axis, label, at) for label in having]


def _line(result: Any, axis: str, optimizer: str | None, at: Mapping[str, Any] | None) -> _Line:
    _check_result(result)
    _check_axis(result, axis)
    one = result.along(axis, optimizer=optimizer, at=at)
    values = one.lanes[axis].values.astype(float).reshape(-1, one.seeds)[:, 0]
    order = np.argsort(values, kind="stable")
    return _Line(one, values[order], np.arange(values.size * one.seeds).reshape(-1, one.seeds)[order])


def _plane(result: Any, x: str, y: str, optimizer: str | None, at: Mapping[str, Any] | None) -> _Plane:
    _check_result(result)
    if x == y:
        raise bad_value("y", y, "the same axis as x", "Name two axes")
    if y == "optimizer" and result.optimizers:
        lines = _lines(result, x, None, at)
        if any(not np.array_equal(line.values, lines[0].values) for line in lines):
            raise bad_value("y", y, f"the optimizers have values of {x} of their own", "Use regime_strip")
        codes = np.stack([_commonest(line.regimes) for line in lines])
        return _Plane(lines[0].values, np.array([line.label for line in lines]), codes, paired=False)
    one = result.along(x, y, optimizer=optimizer, at=at)
    across, up = one.lanes[x].values, one.lanes[y].values
    if len(one.grids[0].dimensions) == 1:
        codes = _commonest(one.lane_regimes.reshape(-1, one.seeds))
        return _Plane(across[:: one.seeds], up[:: one.seeds], codes, paired=True)
    (xs, column), (ys, row) = _numbered(across), _numbered(up)
    counts = np.zeros((len(ys), len(xs), len(Regime)), int)
    np.add.at(counts, (row, column, one.lane_regimes), 1)
    return _Plane(xs, ys, np.where(counts.any(axis=2), counts.argmax(axis=2), -1), paired=False)


def _numbered(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct values, numbers in increasing order and texts as they come, and the place of each among them."""
    distinct, first, place = np.unique(values, return_index=True, return_inverse=True)
    if values.dtype.kind in "fiu":
        return distinct, place
    order = np.argsort(first)
    return distinct[order], np.argsort(order)[place]


def _commonest(regimes: np.ndarray) -> np.ndarray:
    """The commonest code over the last dimension; the lowest of several."""
    return (regimes[..., None] == np.arange(len(Regime))).sum(axis=-2).argmax(axis=-1)


def _scores(line: _Line, by: str) -> np.ndarray:
    """Values of a variable, (values, seeds); infinite where the lane diverged or it is not a number."""
    found = line.result.lanes[by].values.astype(float)[line.rows]
    return np.where((line.regimes == Regime.DIVERGED) | ~np.isfinite(found), np.inf, found)


def _curve(result: SweepResult, lane: int) -> tuple[np.ndarray, np.ndarray]:
    """Steps and losses of a lane, the first loss included even where no curve was recorded."""
    steps, losses = result.curve(int(lane))
    if steps[0] > 0:
        first = float(result.lanes["initial_loss"].values[lane])
        steps, losses = np.insert(steps, 0, 0), np.insert(losses, 0, first)
    return steps, losses.astype(float)


def _draw_curve(ax: Axes, steps: np.ndarray, losses: np.ndarray, color: Any, regime: Regime) -> None:
    bottom, top = ax.get_ylim()
    losses = np.maximum(np.nan_to_num(losses, nan=1e300, posinf=1e300), bottom)
    scale = ax.transScale
    points = scale.transform(np.stack([steps.astype(float), losses], axis=1))
    low, high = scale.transform([(0.0, bottom), (max(steps[-1], 1), top)])
    path = scale.inverted().transform(style.until_it_leaves(points, low, high))
    ax.plot(*path.T, color=color, linewidth=1.3, solid_joinstyle="round", zorder=2)
    ax.plot(*path[-1], **style.mark(regime, 6.5), clip_on=False, zorder=4)


def _draw_only(ax: Axes, line: _Line, axis: str, by: str, scores: np.ndarray) -> list[Line2D]:
    """One optimizer, with regimes as the background; returns the legend's entries."""
    _bands(ax, line)
    look: dict[str, Any] = {"color": style.INK, "marker": "o"}
    red = style.REGIME_COLORS[Regime.DIVERGED]
    _draw_scores(ax, line, scores, look)
    _draw_crosses(ax, line, scores, red, row=None)
    name = "median over seeds" if line.result.seeds > 1 else "one seed"
    handles = [Line2D([], [], **look, linewidth=1.7, markersize=3.5, label=name)]
    edge, best = _edge(line, axis), _draw_best(ax, line, axis, by, scores, style.INK)
    if best is not None:
        star: dict[str, Any] = _STAR | {"markeredgecolor": style.INK}
        handles.append(Line2D([], [], **star, markersize=9, label=f"best {style.short(best)}"))
    if edge is not None:
        dashes: dict[str, Any] = {"color": red, "linewidth": 1.3, "linestyle": "--", "zorder": 3}
        handles.append(ax.axvline(edge, **dashes, label=f"edge {style.short(edge)}"))
    if np.isinf(scores).any():
        handles.append(Line2D([], [], color=red, marker="x", linestyle="none", markersize=4, label="diverged seed"))
    return handles


def _draw_one_of_several(ax: Axes, line: _Line, axis: str, by: str, scores: np.ndarray, number: int) -> Line2D:
    """An optimizer among others; returns its entry in the legend."""
    look = style.series(number)
    _draw_scores(ax, line, scores, look)
    _draw_crosses(ax, line, scores, look["color"], row=number)
    edge, best = _edge(line, axis), _draw_best(ax, line, axis, by, scores, look["color"])
    if edge is not None:
        ax.axvline(edge, color=look["color"], linewidth=1.3, linestyle="--", zorder=3)
    said = [f"{name} {style.short(value)}" for name, value in (("best", best), ("edge", edge)) if value is not None]
    label = f"{line.label}: {', '.join(said)}" if said else line.label
    return Line2D([], [], **look, linewidth=1.7, markersize=4, label=label)


def _draw_scores(ax: Axes, line: _Line, scores: np.ndarray, look: dict[str, Any]) -> None:
    """The median as a line, the spread as a band, every seed as a point."""
    bottom, top = ax.get_ylim()
    seen = np.where(np.isfinite(scores), np.maximum(scores, bottom), np.nan)
    if scores.shape[1] > 1:
        least, most = np.fmin.reduce(seen, axis=1), np.fmax.reduce(seen, axis=1)
        ax.fill_between(line.values, least, most, color=look["color"], alpha=0.18, linewidth=0, zorder=2)
        ax.plot(line.values, seen, linestyle="none", **look, markersize=2.2, alpha=0.55, zorder=3)
    middle = np.maximum(np.median(scores, axis=1), bottom)
    ax.plot(line.values, _up_to_the_top(middle, top), color=look["color"], linewidth=1.7, zorder=4)
    if len(middle) < 100:
        middle = np.where(np.isfinite(middle), middle, np.nan)
        ax.plot(line.values, middle, linestyle="none", markersize=3.5, **look, zorder=4)


def _draw_crosses(ax: Axes, line: _Line, scores: np.ndarray, color: Any, row: int | None) -> None:
    """A cross at the top for every seed that diverged, one below the other, or all in one row."""
    lost = np.isinf(scores)
    rows = np.cumsum(lost, axis=1) - 1 if row is None else np.full(scores.shape, row)
    height = 0.975 - 0.025 * np.minimum(rows, _ROWS - 1)
    x = np.broadcast_to(line.values[:, None], scores.shape)
    look: dict[str, Any] = {"marker": "x", "linestyle": "none", "markersize": 4, "color": color}
    ax.plot(x[lost], height[lost], **look, transform=ax.get_xaxis_transform(), zorder=5)


def _count_rows(scores: Sequence[np.ndarray]) -> int:
    """How many rows of crosses there are."""
    if len(scores) > 1:
        return min(len(scores), _ROWS) if any(np.isinf(s).any() for s in scores) else 0
    return min(int(np.isinf(scores[0]).sum(axis=1).max()), _ROWS)


def _up_to_the_top(values: np.ndarray, top: float) -> np.ndarray:
    """Infinite values at the top where a finite one is beside them, else left out."""
    lost = np.isinf(values)
    beside = np.zeros_like(lost)
    beside[1:] |= ~lost[:-1]
    beside[:-1] |= ~lost[1:]
    return np.where(lost, np.where(beside, top, np.nan), values)


def _edge(line: _Line, axis: str) -> float | None:
    """Median over seeds of where divergence begins; None where it lies off the axis."""
    edge = float(line.result.edge(axis)["median"])
    return edge if np.isfinite(edge) and edge > 0 else None


def _draw_best(ax: Axes, line: _Line, axis: str, by: str, scores: np.ndarray, color: Any) -> float | None:
    """A star at the median of the best point, whose value is returned; None where all diverged."""
    best = line.result.best(by)
    if not np.isfinite(best.score):
        return None
    value = float(best.hyperparameters[axis])
    height = max(float(np.median(scores[np.flatnonzero(line.values == value)[0]])), ax.get_ylim()[0])
    ax.plot(value, height, **_STAR | {"markeredgecolor": color}, markersize=13, zorder=6, clip_on=False)
    return value


def _bands(ax: Axes, line: _Line) -> None:
    """Regimes as the background."""
    for code, left, right in _stretches(ax, line):
        ax.axvspan(left, right, color=style.REGIME_COLORS[Regime(code)], alpha=0.22, linewidth=0, zorder=0)
    edges = style.borders(ax.xaxis, line.values)
    ax.set_xlim(edges[0], edges[-1])


def _stretches(ax: Axes, line: _Line) -> list[tuple[int, float, float]]:
    """Unbroken stretches of one regime: its code, where it begins and ends."""
    codes = _commonest(line.regimes)
    borders = style.borders(ax.xaxis, line.values)
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    ends = np.append(starts[1:], len(codes))
    return [(int(codes[s]), borders[s], borders[e]) for s, e in zip(starts, ends, strict=True)]


def _draw_strip(ax: Axes, lines: Sequence[_Line]) -> None:
    """A strip of regimes on top of the axes, as high in inches whatever a layout makes of these."""

    def place(_: Any, renderer: Any) -> Bbox:
        box, inch = ax.get_position(), style.figure_of(ax).dpi / ax.figure.bbox.height
        return Bbox.from_bounds(box.x0, box.y1 + 0.035 * inch, box.width, 0.125 * len(lines) * inch)

    strip = ax.inset_axes((0.0, 1.0, 1.0, 0.1), sharex=ax)
    strip.set_axes_locator(place)
    _fill_strip(strip, lines)
    strip.tick_params(axis="x", which="both", bottom=False, labelbottom=False)


def _fill_strip(ax: Axes, lines: Sequence[_Line]) -> None:
    for row, line in enumerate(lines):
        _fill_row(ax, line, row)
        for regime, middle, fits in _centres(ax, _stretches(ax, line)):
            ax.plot(middle, row, **style.symbol(regime, 5) if fits else style.mark(regime, 5), zorder=5)
    if any(line.label for line in lines):
        ax.set_yticks(range(len(lines)), [line.label for line in lines], fontsize="small")
    else:
        ax.set_yticks([])
    ax.set_ylim(len(lines) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.spines[:].set_visible(False)
    borders = np.concatenate([style.borders(ax.xaxis, line.values) for line in lines])
    ax.set_xlim(borders.min(), borders.max())


def _fill_row(ax: Axes, line: _Line, row: int) -> None:
    """Shares of seeds by regime from bottom to top, a column a value."""
    borders = style.borders(ax.xaxis, line.values)
    shares = (line.regimes[..., None] == np.arange(len(Regime))).mean(axis=1)  # (values, regimes)
    heights = row + 0.44 - 0.88 * np.cumsum(np.pad(shares, ((0, 1), (1, 0)), mode="constant"), axis=1)
    heights[-1] = heights[-2]  # steps have a border more than there are values
    look: dict[str, Any] = {"step": "post", "linewidth": 0, "antialiased": False}
    for regime in Regime:
        if shares[:, regime].any():
            color = style.REGIME_COLORS[regime]
            ax.fill_between(borders, heights[:, regime], heights[:, regime + 1], color=color, **look)


def _centres(ax: Axes, stretches: list[tuple[int, float, float]]) -> list[tuple[Regime, float, bool]]:
    """Where a mark tells the regime, amid every wide stretch and amid the widest of each; whether it fits into it."""
    scale = ax.xaxis.get_transform()
    ends = scale.transform(np.array([border for _, *pair in stretches for border in pair])).reshape(-1, 2)
    shares = np.diff(ends)[:, 0] / np.ptp(ends)
    codes = np.array([code for code, _, _ in stretches])
    wide = shares > 0.04
    for code in np.unique(codes):
        wide[np.argmax(np.where(codes == code, shares, -1.0))] = True
    middles = scale.inverted().transform(ends.mean(axis=1))
    marked = zip(codes[wide], middles[wide], shares[wide], strict=True)
    return [(Regime(int(code)), float(middle), bool(share > 0.015)) for code, middle, share in marked]


def _draw_cells(ax: Axes, plane: _Plane) -> list[Line2D]:
    """Cells by regime, marks on a wide lattice of them, and the border of divergence."""
    x, y = style.borders(ax.xaxis, plane.x), style.borders(ax.yaxis, plane.y)
    colors = ListedColormap([style.REGIME_COLORS[regime] for regime in Regime])
    cells = np.ma.masked_less(plane.codes, 0)
    ax.pcolormesh(x, y, cells, cmap=colors, vmin=-0.5, vmax=len(Regime) - 0.5, rasterized=cells.size > 4096)
    middles = [style.places(v) for v in (plane.x, plane.y)]
    every = [math.ceil(len(v) / 14) for v in middles]
    for row in range(every[1] // 2, len(middles[1]), every[1]):
        for column in range(every[0] // 2, len(middles[0]), every[0]):
            if plane.codes[row, column] >= 0:
                look = style.symbol(Regime(int(plane.codes[row, column])), 3.5)
                ax.plot(middles[0][column], middles[1][row], **look, alpha=0.75)
    segments = _border_segments(plane.codes, x, y)
    for width, color in ((3.6, "white"), (1.8, "black")) if segments else ():
        ax.add_collection(LineCollection(segments, colors=color, linewidths=width, capstyle="projecting"))
    ax.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]) if plane.y.dtype.kind in "fiu" else (y[-1], y[0]))
    for axis, values in ((ax.xaxis, plane.x), (ax.yaxis, plane.y)):
        style.tidy_ticks(axis)
        if axis.get_scale() == "linear" and values.dtype.kind in "fiu" and len(values) <= 8:
            axis.set_ticks(values)
    return [Line2D([], [], color="black", linewidth=1.8, label="edge of divergence")] if segments else []


def _border_segments(codes: np.ndarray, x: np.ndarray, y: np.ndarray) -> list:
    """The sides that a cell that diverged shares with one that did not."""
    lost, known = codes == Regime.DIVERGED, codes >= 0
    upright = (lost[:, 1:] != lost[:, :-1]) & known[:, 1:] & known[:, :-1]
    level = (lost[1:] != lost[:-1]) & known[1:] & known[:-1]
    sides = [((x[c + 1], y[r]), (x[c + 1], y[r + 1])) for r, c in np.argwhere(upright)]
    return sides + [((x[c], y[r + 1]), (x[c + 1], y[r + 1])) for r, c in np.argwhere(level)]


def _draw_points(ax: Axes, plane: _Plane) -> list[Line2D]:
    """A mark a point."""
    x, y = style.places(plane.x), style.places(plane.y)
    for regime in Regime:
        mine = plane.codes == regime
        if mine.any():
            ax.plot(x[mine], y[mine], **style.mark(regime, 6))
    return []


def _shades(line: _Line) -> ScalarMappable:
    """Value to colour: viridis without its end that white swallows."""
    colors = ListedColormap(mpl.colormaps["viridis"](np.linspace(0, 0.93, 256)))
    low, high = line.values[0], line.values[-1]
    scale = style.scale_of(line.values)
    if scale == "log":
        norm = LogNorm(*((low, high) if high > low else (low / 2, high * 2)))
    elif scale == "symlog":
        norm = SymLogNorm(line.values[1], linscale=0.5, vmin=low, vmax=high)
    else:
        norm = Normalize(*((low, high) if high > low else (low - 0.5, high + 0.5)))
    return ScalarMappable(norm, colors)


def _colour_bar(ax: Axes, shades: ScalarMappable, label: str) -> None:
    laid_out = style.figure_of(ax).get_layout_engine() is not None  # else beside the axes where they now are
    bar = ax.figure.colorbar(shades, ax=ax, label=label, pad=0.02, use_gridspec=laid_out)
    style.tidy_ticks(bar.ax.yaxis)


def _titled(ax: Axes, result: SweepResult, line: _Line, *, named: bool = True) -> Axes:
    """A title that says which of the sweep's lanes are drawn, where they are not all."""
    varying = {name for _, axes, _ in line.result.grids[0].dimensions for name in axes}
    coords = line.result.lanes.coords  # those of other optimizers alone are not among them
    fixed = [n for n, values in result.axes.items() if n in coords and n not in varying and len(values) > 1]
    said = [line.label] if named and len(result.optimizers) > 1 else []
    said += [f"{style.words(name)} {style.short(line.result.lanes[name].values[0])}" for name in fixed]
    if said:
        ax.set_title(", ".join(said), loc="left", fontsize="medium")
    return ax


def _check_result(result: Any) -> None:
    if not isinstance(result, SweepResult):
        raise bad_type("result", result, "not a SweepResult", "Pass what gdkit.sweep or gdkit.open returned")


def _check_axis(result: SweepResult, axis: str) -> None:
    if axis not in result.axes:
        raise unknown_name("axis", axis, result.axes)
    if result.axes[axis].dtype.kind not in "fiu":
        raise bad_value("axis", axis, "its values are not numbers", "Choose a numeric axis")
