"""Scores and regimes of a sweep along an axis."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.transforms import Bbox

from gdkit.checks import check_number
from gdkit.plots import style
from gdkit.plots.lines import Line, add_title, find_most_frequent, select_lines
from gdkit.regimes import Regime
from gdkit.sweeps.result.result import SweepResult
from gdkit.sweeps.scoring.direction import orient

_SIGNS: dict[str, dict[str, Any]] = {
    "best": {"marker": "*", "markerfacecolor": "white", "linestyle": "none", "markersize": 9},
    "edge": {"linestyle": "--", "linewidth": 1.3},
    "diverged seed": {"marker": "x", "linestyle": "none", "markersize": 4},
}
_MAX_CROSS_ROWS = 6  # rows of crosses at the top
_STAR: dict[str, Any] = {"marker": "*", "color": "white", "markeredgewidth": 1.3, "linestyle": "none"}


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
    """Draw the final loss against `axis`: the median over seeds as a line, their range as a band, each seed as a point.

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
    lines = select_lines(result, axis, optimizer, at)
    measure = _Measure(result.score_name(by), result.is_maximized(by, maximize))
    ax = style.get_axes(ax, height=3.85 + 0.15 * len(lines))
    style.set_scale(ax, "x", np.concatenate([line.values for line in lines]))
    scores = [_get_scores(line, measure) for line in lines]
    margin, finite = 0.025 * _count_rows(scores), np.concatenate([s.ravel() for s in scores])
    style.set_loss_axis(ax, finite, margin=margin, linear=measure.maximize)
    handles = _draw_single(ax, lines[0], axis, measure, scores[0]) if len(lines) == 1 else []
    if len(lines) > 1:
        for number, (line, score) in enumerate(zip(lines, scores, strict=True)):
            handles.append(_draw_one_of_several(ax, line, axis, measure, score, number))
    if threshold is not None:
        check_number("threshold", threshold)
        look: dict[str, Any] = {"color": style.INK, "linewidth": 1.5, "linestyle": (0, (1, 1.2))}
        handles.append(ax.axvline(threshold, **look, label=f"theory {style.format_short(threshold)}", zorder=3))
    _draw_strip(ax, lines)
    style.tidy_ticks(ax.xaxis)
    ax.set(xlabel=style.format_name(axis), ylabel=measure.label)
    several = _SIGNS if len(lines) > 1 else {}
    signs = [Line2D([], [], color=style.INK, **look, label=name) for name, look in several.items()]
    regimes = style.regime_handles(np.concatenate([line.regimes.ravel() for line in lines]))
    style.draw_legend(ax, handles, signs, regimes)
    return add_title(ax, result, lines[0], named=False) if len(lines) == 1 else ax


def regime_strip(
    result: SweepResult,
    *,
    axis: str = "learning_rate",
    optimizer: str | None = None,
    at: Mapping[str, Any] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw regimes along `axis` as a strip, one row per optimizer; optimizers may have different values.

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
    lines = select_lines(result, axis, optimizer, at)
    ax = style.get_axes(ax, height=0.9 + 0.3 * len(lines))
    style.set_scale(ax, "x", np.concatenate([line.values for line in lines]))
    _draw_strip_rows(ax, lines)
    style.tidy_ticks(ax.xaxis)
    ax.set_xlabel(style.format_name(axis))
    style.draw_legend(ax, style.regime_handles(np.concatenate([line.regimes.ravel() for line in lines])))
    return ax


class _Measure(NamedTuple):
    """A variable that is drawn along an axis, and its direction."""

    name: str
    maximize: bool  # whether larger is better

    @property
    def label(self) -> str:
        return style.format_name(self.name) + (" (higher is better)" if self.maximize else "")


def _get_scores(line: Line, measure: _Measure) -> np.ndarray:
    """Values of a variable, (values, seeds); infinitely bad where the lane diverged or the value is not finite."""
    return orient(line.result.scores(measure.name, measure.maximize), measure.maximize)[line.rows]


def _draw_single(ax: Axes, line: Line, axis: str, measure: _Measure, scores: np.ndarray) -> list[Line2D]:
    """Draw one optimizer with regimes as the background; return the legend entries."""
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


def _draw_one_of_several(ax: Axes, line: Line, axis: str, measure: _Measure, scores: np.ndarray, number: int) -> Line2D:
    """Draw one of several optimizers; return its legend entry."""
    look, dashes = style.series(number), style.dashes(number)
    _draw_scores(ax, line, scores, look, dashes)
    _draw_crosses(ax, line, scores, look["color"], row=number)
    edge, best = _find_edge(line, axis), _draw_best(ax, line, axis, measure, scores, look["color"])
    if edge is not None:
        shifted: Any = (1.75 * number, (4, 3))  # so that equal edges show each other's colors
        ax.axvline(edge, color=look["color"], linewidth=1.3, linestyle=shifted, zorder=3)
    values = [f"{name} {style.format_short(x)}" for name, x in (("best", best), ("edge", edge)) if x is not None]
    label = f"{line.shown_label}: {', '.join(values)}" if values else line.shown_label
    return Line2D([], [], **look, linestyle=dashes, linewidth=1.7, markersize=4, label=label)


def _draw_scores(ax: Axes, line: Line, scores: np.ndarray, look: dict[str, Any], dashes: Any = "-") -> None:
    """Draw the median as a line, the range as a band, every seed as a point."""
    bottom, top = ax.get_ylim()
    seen = np.where(np.isfinite(scores), np.maximum(scores, bottom), np.nan)
    if scores.shape[1] > 1:
        least, most = np.fmin.reduce(seen, axis=1), np.fmax.reduce(seen, axis=1)
        ax.fill_between(line.values, least, most, color=look["color"], alpha=0.18, linewidth=0, zorder=2)
        ax.plot(line.values, seen, linestyle="none", **look, markersize=2.2, alpha=0.55, zorder=3)
    middle = np.median(scores, axis=1)
    middle = np.where(np.isfinite(middle), np.maximum(middle, bottom), middle)
    drawn = _cap_infinite(middle, bottom, top)
    ax.plot(line.values, drawn, color=look["color"], linestyle=dashes, linewidth=1.7, zorder=4)
    if len(middle) < 100:
        middle = np.where(np.isfinite(middle), middle, np.nan)
        ax.plot(line.values, middle, linestyle="none", markersize=3.5, **look, zorder=4)


def _draw_crosses(ax: Axes, line: Line, scores: np.ndarray, color: Any, row: int | None) -> None:
    """Draw a cross at the top for every diverged seed: below each other if `row` is None, else all in that row."""
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


def _find_edge(line: Line, axis: str) -> float | None:
    """The median edge of divergence over seeds; None if it is not finite."""
    edge = float(line.result.edge(axis)["median"])
    return edge if np.isfinite(edge) and edge > 0 else None


def _draw_best(ax: Axes, line: Line, axis: str, measure: _Measure, scores: np.ndarray, color: Any) -> float | None:
    """Draw a star at the median of the recommended value; return the value, or None if there is none."""
    if not line.result.finished.any():
        return None
    value = line.result.recommend(axis, by=measure.name, maximize=measure.maximize).best
    if value is not None:
        height = max(float(np.median(scores[np.flatnonzero(line.values == value)[0]])), ax.get_ylim()[0])
        look: dict[str, Any] = _STAR | {"markeredgecolor": color, "markersize": style.scale_size(13)}
        ax.plot(value, height, **look, zorder=6, clip_on=False)
    return value


def _draw_bands(ax: Axes, line: Line) -> None:
    """Draw regimes as the background."""
    for code, left, right in _find_intervals(ax, line):
        ax.axvspan(left, right, color=style.REGIME_COLORS[Regime(code)], alpha=0.22, linewidth=0, zorder=0)
    edges = style.cell_edges(ax.xaxis, line.values)
    ax.set_xlim(edges[0], edges[-1])


def _find_intervals(ax: Axes, line: Line) -> list[tuple[int, float, float]]:
    """Intervals of one regime along the axis: code, start and end."""
    codes = find_most_frequent(line.regimes)
    borders = style.cell_edges(ax.xaxis, line.values)
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    ends = np.append(starts[1:], len(codes))
    return [(int(codes[s]), borders[s], borders[e]) for s, e in zip(starts, ends, strict=True)]


def _draw_strip(ax: Axes, lines: Sequence[Line]) -> None:
    """Draw a strip of regimes above the axes, whose height in inches does not depend on the layout."""

    def place(_: Any, renderer: Any) -> Bbox:
        box, inch = ax.get_position(), style.get_figure(ax).dpi / ax.figure.bbox.height
        return Bbox.from_bounds(box.x0, box.y1 + 0.035 * inch, box.width, 0.125 * len(lines) * inch)

    strip = ax.inset_axes((0.0, 1.0, 1.0, 0.1), sharex=ax)
    strip.set_axes_locator(place)
    _draw_strip_rows(strip, lines)
    strip.tick_params(axis="x", which="both", bottom=False, labelbottom=False)


def _draw_strip_rows(ax: Axes, lines: Sequence[Line]) -> None:
    for row, line in enumerate(lines):
        _draw_strip_row(ax, line, row)
        for regime, middle, fits in _place_markers(ax, _find_intervals(ax, line)):
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


def _draw_strip_row(ax: Axes, line: Line, row: int) -> None:
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


def _place_markers(ax: Axes, intervals: list[tuple[int, float, float]]) -> list[tuple[Regime, float, bool]]:
    """Markers in wide intervals and in the widest of each regime: regime, position, whether the interval holds it."""
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
