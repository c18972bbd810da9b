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

from gdkit.checks import check_integer, check_number
from gdkit.errors import bad_type, bad_value, unknown_name
from gdkit.plots import style
from gdkit.regimes import Regime
from gdkit.sweeps.result.direction import orient
from gdkit.sweeps.result.lane_values import curve_names, end_values
from gdkit.sweeps.result.result import SweepResult

_SIGNS: dict[str, dict[str, Any]] = {
    "best": {"marker": "*", "markerfacecolor": "white", "linestyle": "none", "markersize": 9},
    "edge": {"linestyle": "--", "linewidth": 1.3},
    "diverged": {"marker": "x", "linestyle": "none", "markersize": 4},
}
_MAX_CURVES = 150  # more cannot be distinguished
_MAX_CROSS_ROWS = 6  # rows of crosses at the top
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
    """Loss against step: `curves` of the training loss.

    Without recorded curves, lines join the first and the last loss. Arguments are those of `curves`.

    Raises:
      InputValueError, InputTypeError: an argument cannot be used.
    """
    settings: dict[str, Any] = {"axis": axis, "seed": seed, "optimizer": optimizer, "at": at}
    return curves(result, "loss", **settings, log_steps=log_steps, ax=ax)


def curves(
    result: SweepResult,
    name: str | None = None,
    *,
    axis: str = "learning_rate",
    seed: int = 0,
    optimizer: str | None = None,
    at: Mapping[str, Any] | None = None,
    log_steps: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """A value along runs against step, one line per value of `axis`, colored by it, with the marker of its regime.

    The range of the value's axis is that of the lanes that did not diverge; diverged lanes are drawn up to its edge.
    With more than 150 values, 150 of them at equal distances are drawn.

    Args:
      result: a sweep.
      name: what `SweepResult.curve` returns: ``loss``, a value on validation data of a sweep with `evaluate_every`, or
        what the loss logs; None: the value that lanes are compared by if it was evaluated along the run, else the loss.
      axis: a numeric axis.
      seed: the number of the seed.
      optimizer: the label of an optimizer; None: that of the recommended point.
      at: values of the other axes; those not given are those of the recommended point.
      log_steps: whether steps are on a log axis (with 0 at its left).
      ax: the Axes to draw on.

    Raises:
      InputValueError, InputTypeError: an argument cannot be used.
    """
    line = _select_line(result, axis, optimizer, at)
    check_integer("seed", seed, at_least=0)
    if seed >= result.seeds:
        raise bad_value("seed", seed, "no such seed", f"Use 0 to {result.seeds - 1}")
    ax = style.get_axes(ax)
    shown = np.unique(np.linspace(0, len(line.values) - 1, _MAX_CURVES).round().astype(int))
    name = _choose_curve(result) if name is None else name
    found = [
        (*_get_curve(line.result, row, name), place) for row, place in zip(line.rows[shown, seed], shown, strict=True)
    ]
    drawn = [(steps, values, place) for steps, values, place in found if len(steps)]
    regimes = line.regimes[shown, seed]
    bounded = [values for _, values, place in drawn if line.regimes[place, seed] != Regime.DIVERGED]
    around_start = [values[:1] * factor for _, values, _ in drawn for factor in (1.0, 100.0)]
    linear = name in result.lanes and result.is_maximized(name)
    style.set_loss_axis(ax, np.concatenate(bounded or around_start or [np.zeros(0)]), linear=linear)
    if log_steps:
        ax.set_xscale("symlog", linthresh=1, linscale=0.4, subs=range(2, 10))
    ax.set_xlim(0, max([float(steps[-1]) for steps, *_ in drawn], default=1.0) * (1.06 if log_steps else 1.02))
    shades = _make_color_map(line)
    for steps, values, place in drawn:
        _draw_curve(ax, steps, values, shades.to_rgba(line.values[place]), Regime(int(line.regimes[place, seed])))
    ax.set(xlabel="step", ylabel=style.format_name(name))
    style.draw_legend(ax, style.regime_handles(regimes))
    _draw_color_bar(ax, shades, style.format_name(axis))
    return _add_title(ax, result, line)


def final_loss(
    result: SweepResult,
    *,
    by: str | None = None,
    maximize: bool | None = None,
    axis: str = "learning_rate",
    optimizer: str | None = None,
    at: Mapping[str, Any] | None = None,
    threshold: float | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Final loss against `axis`: the median over seeds as a line, their range as a band, each seed as a point.

    A strip above shows the most frequent regime over seeds, which is also the background for a single optimizer. Dashed
    lines mark the edge of divergence, crosses at the top the diverged seeds.

    Args:
      result: a sweep.
      by: the variable to draw; None: ``validation_loss`` if there is one, else ``final_loss``.
      maximize: whether larger is better; None: as the metric declares it. It decides which point has the star.
      axis: a numeric axis.
      optimizer: the label of an optimizer; None: all that have the axis.
      at: values of the other axes; those not given are those of each optimizer's recommended point.
      threshold: the edge of divergence by theory, drawn for comparison.
      ax: the Axes to draw on.

    Raises:
      InputValueError, InputTypeError: an argument cannot be used.
    """
    lines = _select_lines(result, axis, optimizer, at)
    measure = _Measure(result.score_name(by), result.is_maximized(by, maximize))
    ax = style.get_axes(ax)
    style.set_scale(ax, "x", np.concatenate([line.values for line in lines]))
    scores = [_get_scores(line, measure) for line in lines]
    margin, finite = 0.025 * _count_rows(scores), np.concatenate([s.ravel() for s in scores])
    style.set_loss_axis(ax, finite, margin=margin, linear=measure.maximize)
    handles = _draw_single(ax, lines[0], axis, measure, scores[0]) if len(lines) == 1 else []
    if len(lines) > 1:
        for number, (line, score) in enumerate(zip(lines, scores, strict=True)):
            handles.append(_draw_one_of_several(ax, line, axis, measure, score, number))
        handles += [Line2D([], [], color=style.INK, **look, label=name) for name, look in _SIGNS.items()]
    if threshold is not None:
        check_number("threshold", threshold)
        look: dict[str, Any] = {"color": style.INK, "linewidth": 1.5, "linestyle": (0, (1, 1.2))}
        handles.append(ax.axvline(threshold, **look, label=f"theory {style.format_short(threshold)}", zorder=3))
    _draw_strip(ax, lines)
    style.tidy_ticks(ax.xaxis)
    ax.set(xlabel=style.format_name(axis), ylabel=measure.label)
    style.draw_legend(ax, handles, style.regime_handles(np.concatenate([line.regimes.ravel() for line in lines])))
    return _add_title(ax, result, lines[0], named=False) if len(lines) == 1 else ax


def regime_map(
    result: SweepResult,
    *,
    x: str,
    y: str,
    optimizer: str | None = None,
    at: Mapping[str, Any] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """The most frequent regime over seeds, over two axes, with the edge of divergence as a line.

    Paired axes are drawn as points, others as cells; `y` may be ``optimizer`` if all optimizers have the same values.

    Args:
      result: a sweep.
      x, y: two axes; strings are drawn in the order of the axis.
      optimizer: the label of an optimizer; None: that of the recommended point.
      at: values of the other axes; those not given are those of the recommended point.
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
    style.draw_legend(ax, style.regime_handles(plane.codes[plane.codes >= 0]) + edge)
    return ax


def regime_strip(
    result: SweepResult,
    *,
    axis: str = "learning_rate",
    optimizer: str | None = None,
    at: Mapping[str, Any] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Regimes along `axis` as a strip, one row per optimizer; optimizers may have different values.

    At each value the height of the row is divided among the regimes of the seeds, with diverged seeds on top.

    Args:
      result: a sweep.
      axis: a numeric axis.
      optimizer: the label of an optimizer; None: all that have the axis.
      at: values of the other axes; those not given are those of each optimizer's recommended point.
      ax: the Axes to draw on.

    Raises:
      InputValueError, InputTypeError: an argument cannot be used.
    """
    lines = _select_lines(result, axis, optimizer, at)
    ax = style.get_axes(ax, height=0.9 + 0.3 * len(lines))
    style.set_scale(ax, "x", np.concatenate([line.values for line in lines]))
    _draw_strip_rows(ax, lines)
    style.tidy_ticks(ax.xaxis)
    ax.set_xlabel(style.format_name(axis))
    style.draw_legend(ax, style.regime_handles(np.concatenate([line.regimes.ravel() for line in lines])))
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
    def shown_label(self) -> str:
        """The label for matplotlib."""
        return style.escape_math(self.label)

    @property
    def regimes(self) -> np.ndarray:
        """Codes, (values, seeds)."""
        return self.result.lane_regimes[self.rows]


class _Measure(NamedTuple):
    """A variable that is drawn along an axis, and its direction."""

    name: str
    maximize: bool  # whether larger is better

    @property
    def label(self) -> str:
        return style.format_name(self.name) + (" (higher is better)" if self.maximize else "")

    @property
    def worst(self) -> float:
        """The value of a diverged lane."""
        return orient(np.inf, self.maximize)


class _AxisPlane(NamedTuple):
    """Regimes over two axes."""

    x: np.ndarray  # (columns,), increasing numbers, or strings
    y: np.ndarray  # (rows,)
    codes: np.ndarray  # (rows, columns), −1 where the sweep has no lane; (points,) if paired
    is_paired: bool


def _select_lines(result: SweepResult, axis: str, optimizer: str | None, at: Mapping[str, Any] | None) -> list[_Line]:
    """One line per optimizer that has the axis."""
    _check_result(result)
    if optimizer is not None or not result.optimizers:
        return [_select_line(result, axis, optimizer, at)]
    _check_axis(result, axis)
    labels = [label for label in result.optimizers if axis in result.select(optimizer=label).axes]
    return [_select_line(result, axis, label, at) for label in labels]


def _select_line(result: SweepResult, axis: str, optimizer: str | None, at: Mapping[str, Any] | None) -> _Line:
    _check_result(result)
    _check_axis(result, axis)
    one = result.along(axis, optimizer=optimizer, at=at)
    values = one.lanes[axis].values.astype(float).reshape(-1, one.seeds)[:, 0]
    order = np.argsort(values, kind="stable")
    return _Line(one, values[order], np.arange(values.size * one.seeds).reshape(-1, one.seeds)[order])


def _select_plane(
    result: SweepResult, x: str, y: str, optimizer: str | None, at: Mapping[str, Any] | None
) -> _AxisPlane:
    _check_result(result)
    if x == y:
        raise bad_value("y", y, "the same axis as x", "Name two axes")
    if y == "optimizer" and result.optimizers:
        lines = _select_lines(result, x, None, at)
        if any(not np.array_equal(line.values, lines[0].values) for line in lines):
            raise bad_value("y", y, f"the optimizers have different values of {x}", "Use regime_strip")
        codes = np.stack([_find_most_frequent(line.regimes) for line in lines])
        return _AxisPlane(lines[0].values, np.array([line.label for line in lines]), codes, is_paired=False)
    one = result.along(x, y, optimizer=optimizer, at=at)
    across, up = one.lanes[x].values, one.lanes[y].values
    if len(one.grids[0].dimensions) == 1:
        codes = _find_most_frequent(one.lane_regimes.reshape(-1, one.seeds))
        return _AxisPlane(across[:: one.seeds], up[:: one.seeds], codes, is_paired=True)
    (xs, column), (ys, row) = _unique_indices(across), _unique_indices(up)
    counts = np.zeros((len(ys), len(xs), len(Regime)), int)
    np.add.at(counts, (row, column, one.lane_regimes), 1)
    return _AxisPlane(xs, ys, np.where(counts.any(axis=2), counts.argmax(axis=2), -1), is_paired=False)


def _unique_indices(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct values, numbers in increasing order and strings in their own, and the index of each value in them."""
    distinct, first, index = np.unique(values, return_index=True, return_inverse=True)
    if values.dtype.kind in "fiu":
        return distinct, index
    order = np.argsort(first)
    return distinct[order], np.argsort(order)[index]


def _find_most_frequent(regimes: np.ndarray) -> np.ndarray:
    """The most frequent code over the last dimension; of several the lowest."""
    return (regimes[..., None] == np.arange(len(Regime))).sum(axis=-2).argmax(axis=-1)


def _get_scores(line: _Line, measure: _Measure) -> np.ndarray:
    """Values of a variable, (values, seeds); infinitely bad where the lane diverged or the value is not finite."""
    scores = end_values(line.result.lanes)[measure.name].values.astype(float)[line.rows]
    return np.where((line.regimes == Regime.DIVERGED) | ~np.isfinite(scores), measure.worst, scores)


def _choose_curve(result: SweepResult) -> str:
    """The value that lanes are compared by if it was evaluated along the run, else the loss."""
    return result.score_name() if result.score_name() in curve_names(result.lanes) else "loss"


def _get_curve(result: SweepResult, lane: int, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and losses of a lane, the first loss included even where no curve was recorded; else finite values."""
    steps, losses = result.curve(int(lane), name)
    if name != "loss":
        is_finite = np.isfinite(losses)
        return steps[is_finite], losses[is_finite].astype(float)
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
    path = scale.inverted().transform(style.clip_path(points, low, high))
    ax.plot(*path.T, color=color, linewidth=1.3, solid_joinstyle="round", zorder=2)
    ax.plot(*path[-1], **style.mark(regime, 6.5), clip_on=False, zorder=4)


def _draw_single(ax: Axes, line: _Line, axis: str, measure: _Measure, scores: np.ndarray) -> list[Line2D]:
    """Draw one optimizer with regimes as the background; returns the legend entries."""
    _draw_bands(ax, line)
    look: dict[str, Any] = {"color": style.INK, "marker": "o"}
    red = style.REGIME_COLORS[Regime.DIVERGED]
    _draw_scores(ax, line, scores, look)
    _draw_crosses(ax, line, scores, red, row=None)
    name = "median over seeds" if line.result.seeds > 1 else "one seed"
    handles = [Line2D([], [], **look, linewidth=1.7, markersize=3.5, label=name)]
    edge, best = _find_edge(line, axis), _draw_best(ax, line, axis, measure, scores, style.INK)
    if best is not None:
        star: dict[str, Any] = _STAR | {"markeredgecolor": style.INK}
        handles.append(Line2D([], [], **star, markersize=9, label=f"best {style.format_short(best)}"))
    if edge is not None:
        dashes: dict[str, Any] = {"color": red, "linewidth": 1.3, "linestyle": "--", "zorder": 3}
        handles.append(ax.axvline(edge, **dashes, label=f"edge {style.format_short(edge)}"))
    if np.isinf(scores).any():
        handles.append(Line2D([], [], color=red, marker="x", linestyle="none", markersize=4, label="diverged seed"))
    return handles


def _draw_one_of_several(
    ax: Axes, line: _Line, axis: str, measure: _Measure, scores: np.ndarray, number: int
) -> Line2D:
    """Draw one of several optimizers; returns its legend entry."""
    look = style.series(number)
    _draw_scores(ax, line, scores, look)
    _draw_crosses(ax, line, scores, look["color"], row=number)
    edge, best = _find_edge(line, axis), _draw_best(ax, line, axis, measure, scores, look["color"])
    if edge is not None:
        ax.axvline(edge, color=look["color"], linewidth=1.3, linestyle="--", zorder=3)
    values = [f"{name} {style.format_short(x)}" for name, x in (("best", best), ("edge", edge)) if x is not None]
    label = f"{line.shown_label}: {', '.join(values)}" if values else line.shown_label
    return Line2D([], [], **look, linewidth=1.7, markersize=4, label=label)


def _draw_scores(ax: Axes, line: _Line, scores: np.ndarray, look: dict[str, Any]) -> None:
    """Draw the median as a line, the range as a band, every seed as a point."""
    bottom, top = ax.get_ylim()
    seen = np.where(np.isfinite(scores), np.maximum(scores, bottom), np.nan)
    if scores.shape[1] > 1:
        least, most = np.fmin.reduce(seen, axis=1), np.fmax.reduce(seen, axis=1)
        ax.fill_between(line.values, least, most, color=look["color"], alpha=0.18, linewidth=0, zorder=2)
        ax.plot(line.values, seen, linestyle="none", **look, markersize=2.2, alpha=0.55, zorder=3)
    middle = np.median(scores, axis=1)
    middle = np.where(np.isfinite(middle), np.maximum(middle, bottom), middle)
    ax.plot(line.values, _cap_infinite(middle, bottom, top), color=look["color"], linewidth=1.7, zorder=4)
    if len(middle) < 100:
        middle = np.where(np.isfinite(middle), middle, np.nan)
        ax.plot(line.values, middle, linestyle="none", markersize=3.5, **look, zorder=4)


def _draw_crosses(ax: Axes, line: _Line, scores: np.ndarray, color: Any, row: int | None) -> None:
    """Draw a cross at the top for every diverged seed, below each other, or all in one row."""
    diverged = np.isinf(scores)
    rows = np.cumsum(diverged, axis=1) - 1 if row is None else np.full(scores.shape, row)
    height = 0.975 - 0.025 * np.minimum(rows, _MAX_CROSS_ROWS - 1)
    x = np.broadcast_to(line.values[:, None], scores.shape)
    look: dict[str, Any] = {"marker": "x", "linestyle": "none", "markersize": 4, "color": color}
    ax.plot(x[diverged], height[diverged], **look, transform=ax.get_xaxis_transform(), zorder=5)


def _count_rows(scores: Sequence[np.ndarray]) -> int:
    """The number of rows of crosses."""
    if len(scores) > 1:
        return min(len(scores), _MAX_CROSS_ROWS) if any(np.isinf(s).any() for s in scores) else 0
    return min(int(np.isinf(scores[0]).sum(axis=1).max()), _MAX_CROSS_ROWS)


def _cap_infinite(values: np.ndarray, bottom: float, top: float) -> np.ndarray:
    """`values` with the end of the axis for an infinite value next to a finite one, NaN for other infinite values."""
    infinite = np.isinf(values)
    next_to_finite = np.zeros_like(infinite)
    next_to_finite[1:] |= ~infinite[:-1]
    next_to_finite[:-1] |= ~infinite[1:]
    return np.where(infinite, np.where(next_to_finite, np.clip(values, bottom, top), np.nan), values)


def _find_edge(line: _Line, axis: str) -> float | None:
    """The median edge of divergence over seeds; None if it is not finite."""
    edge = float(line.result.edge(axis)["median"])
    return edge if np.isfinite(edge) and edge > 0 else None


def _draw_best(ax: Axes, line: _Line, axis: str, measure: _Measure, scores: np.ndarray, color: Any) -> float | None:
    """Draw a star at the median of the recommended value and return the value; None if there is none."""
    found = (
        line.result.recommend(axis, by=measure.name, maximize=measure.maximize) if line.result.finished.any() else None
    )
    value = found.best if found else None
    if value is None:
        return None
    height = max(float(np.median(scores[np.flatnonzero(line.values == value)[0]])), ax.get_ylim()[0])
    ax.plot(value, height, **_STAR | {"markeredgecolor": color}, markersize=13, zorder=6, clip_on=False)
    return value


def _draw_bands(ax: Axes, line: _Line) -> None:
    """Draw regimes as the background."""
    for code, left, right in _find_intervals(ax, line):
        ax.axvspan(left, right, color=style.REGIME_COLORS[Regime(code)], alpha=0.22, linewidth=0, zorder=0)
    edges = style.cell_edges(ax.xaxis, line.values)
    ax.set_xlim(edges[0], edges[-1])


def _find_intervals(ax: Axes, line: _Line) -> list[tuple[int, float, float]]:
    """Intervals of one regime along the axis: code, start and end."""
    codes = _find_most_frequent(line.regimes)
    borders = style.cell_edges(ax.xaxis, line.values)
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    ends = np.append(starts[1:], len(codes))
    return [(int(codes[s]), borders[s], borders[e]) for s, e in zip(starts, ends, strict=True)]


def _draw_strip(ax: Axes, lines: Sequence[_Line]) -> None:
    """Draw a strip of regimes above the axes, whose height in inches does not depend on the layout."""

    def place(_: Any, renderer: Any) -> Bbox:
        box, inch = ax.get_position(), style.get_figure(ax).dpi / ax.figure.bbox.height
        return Bbox.from_bounds(box.x0, box.y1 + 0.035 * inch, box.width, 0.125 * len(lines) * inch)

    strip = ax.inset_axes((0.0, 1.0, 1.0, 0.1), sharex=ax)
    strip.set_axes_locator(place)
    _draw_strip_rows(strip, lines)
    strip.tick_params(axis="x", which="both", bottom=False, labelbottom=False)


def _draw_strip_rows(ax: Axes, lines: Sequence[_Line]) -> None:
    for row, line in enumerate(lines):
        _draw_strip_row(ax, line, row)
        for regime, middle, fits in _marker_positions(ax, _find_intervals(ax, line)):
            ax.plot(middle, row, **style.symbol(regime, 5) if fits else style.mark(regime, 5), zorder=5)
    if any(line.label for line in lines):
        ax.set_yticks(range(len(lines)), [line.shown_label for line in lines], fontsize="small")
    else:
        ax.set_yticks([])
    ax.set_ylim(len(lines) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.spines[:].set_visible(False)
    borders = np.concatenate([style.cell_edges(ax.xaxis, line.values) for line in lines])
    ax.set_xlim(borders.min(), borders.max())


def _draw_strip_row(ax: Axes, line: _Line, row: int) -> None:
    """Draw the shares of seeds by regime from bottom to top, one column per value."""
    borders = style.cell_edges(ax.xaxis, line.values)
    shares = (line.regimes[..., None] == np.arange(len(Regime))).mean(axis=1)  # (values, regimes)
    heights = row + 0.44 - 0.88 * np.cumsum(np.pad(shares, ((0, 1), (1, 0)), mode="constant"), axis=1)
    heights[-1] = heights[-2]  # one edge more than values
    look: dict[str, Any] = {"step": "post", "linewidth": 0, "antialiased": False}
    for regime in Regime:
        if shares[:, regime].any():
            color = style.REGIME_COLORS[regime]
            ax.fill_between(borders, heights[:, regime], heights[:, regime + 1], color=color, **look)


def _marker_positions(ax: Axes, intervals: list[tuple[int, float, float]]) -> list[tuple[Regime, float, bool]]:
    """Positions of markers, in every wide interval and in the widest of each regime, and whether the marker fits in."""
    scale = ax.xaxis.get_transform()
    ends = scale.transform(np.array([border for _, *pair in intervals for border in pair])).reshape(-1, 2)
    shares = np.diff(ends)[:, 0] / np.ptp(ends)
    codes = np.array([code for code, _, _ in intervals])
    wide = shares > 0.04
    for code in np.unique(codes):
        wide[np.argmax(np.where(codes == code, shares, -1.0))] = True
    middles = scale.inverted().transform(ends.mean(axis=1))
    marked = zip(codes[wide], middles[wide], shares[wide], strict=True)
    return [(Regime(int(code)), float(middle), bool(share > 0.015)) for code, middle, share in marked]


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
    """The sides between diverged cells and others."""
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


def _make_color_map(line: _Line) -> ScalarMappable:
    """Map from value to color: viridis without its lightest end."""
    colors = ListedColormap(mpl.colormaps["viridis"](np.linspace(0, 0.93, 256)))
    low, high = line.values[0], line.values[-1]
    scale = style.choose_scale(line.values)
    if scale == "log":
        norm = LogNorm(*((low, high) if high > low else (low / 2, high * 2)))
    elif scale == "symlog":
        norm = SymLogNorm(line.values[1], linscale=0.5, vmin=low, vmax=high)
    else:
        norm = Normalize(*((low, high) if high > low else (low - 0.5, high + 0.5)))
    return ScalarMappable(norm, colors)


def _draw_color_bar(ax: Axes, shades: ScalarMappable, label: str) -> None:
    laid_out = style.get_figure(ax).get_layout_engine() is not None  # without a layout engine the axes keep their place
    bar = ax.figure.colorbar(shades, ax=ax, label=label, pad=0.02, use_gridspec=laid_out)
    style.tidy_ticks(bar.ax.yaxis)


def _add_title(ax: Axes, result: SweepResult, line: _Line, *, named: bool = True) -> Axes:
    """Add a title with the optimizer and the fixed values, if not all lanes of the sweep are drawn."""
    varying = {name for _, axes, _ in line.result.grids[0].dimensions for name in axes}
    coords = line.result.lanes.coords  # without the axes of other optimizers
    fixed = [n for n, values in result.axes.items() if n in coords and n not in varying and len(values) > 1]
    parts = [line.shown_label] if named and len(result.optimizers) > 1 else []
    parts += [f"{style.format_name(name)} {style.format_short(line.result.lanes[name].values[0])}" for name in fixed]
    if parts:
        ax.set_title(", ".join(parts), loc="left", fontsize="medium")
    return ax


def _check_result(result: object) -> None:
    if not isinstance(result, SweepResult):
        raise bad_type("result", result, "not a SweepResult", "Pass the result of gdkit.sweep or gdkit.open")


def _check_axis(result: SweepResult, axis: str) -> None:
    if axis not in result.axes:
        raise unknown_name("axis", axis, result.axes)
    if result.axes[axis].dtype.kind not in "fiu":
        raise bad_value("axis", axis, "its values are not numbers", "Choose a numeric axis")
