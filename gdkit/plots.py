"""Figures of sweeps and of single runs, on matplotlib.

Every function takes ``ax=None`` and returns the Axes it drew on; without `ax` it makes a pyplot figure. Nothing global
is changed. Legends stand below the axes, strips above; a figure of several axes needs a layout that makes room for
them: ``plt.subplots(2, 2, layout="constrained")``. A run that leaves the picture is drawn to where it left, with a mark
there.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import matplotlib as mpl
import numpy as np
from jax.flatten_util import ravel_pytree
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap, LogNorm, Normalize, SymLogNorm
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from gdkit.descent import Trajectory
from gdkit.errors import bad_type, bad_value, unknown_name
from gdkit.problems import Problem
from gdkit.regimes import Regime, classify
from gdkit.sweeps.result import SweepResult

# Apart under protanopia, deuteranopia and tritanopia, and in grey: no two are closer than 7 in lightness (CIE L*).
REGIME_COLORS = {
    Regime.SLOW: "#b4e0f7",
    Regime.CONVERGED: "#20a157",
    Regime.OSCILLATING: "#2746ad",
    Regime.CATAPULT: "#571e64",
    Regime.BOUNCING: "#f2b701",
    Regime.STALLED: "#a3a3a3",
    Regime.DIVERGED: "#cf2205",
}
REGIME_LABELS = {regime: regime.name.lower() for regime in Regime}
_BAR = ((-1.0, -0.4), (1.0, -0.4), (1.0, 0.4), (-1.0, 0.4), (-1.0, -0.4))
REGIME_MARKERS: dict[Regime, Any] = {
    Regime.SLOW: "v",
    Regime.CONVERGED: "o",
    Regime.OSCILLATING: "D",
    Regime.CATAPULT: "^",
    Regime.BOUNCING: "s",
    Regime.STALLED: _BAR,
    Regime.DIVERGED: "X",
}
# Okabe and Ito, Color universal design, 2008
SERIES_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
SERIES_MARKERS = ("o", "s", "^", "D", "v", "P", "p", "h")

_SIGNS: dict[str, dict[str, Any]] = {
    "best": {"marker": "*", "markerfacecolor": "white", "linestyle": "none", "markersize": 9},
    "edge": {"linestyle": "--", "linewidth": 1.3},
    "diverged": {"marker": "x", "linestyle": "none", "markersize": 4},
}
_DECADES = 16  # of loss in a figure; what lies lower is drawn at the bottom
_INK = "0.15"
_ROWS = 6  # of crosses at the top, at most
_STAR: dict[str, Any] = {"marker": "*", "color": "white", "markeredgewidth": 1.3, "linestyle": "none"}
_OUTLINE: dict[str, Any] = {"markeredgecolor": _INK, "markeredgewidth": 0.5, "linestyle": "none"}


# Figures of a sweep


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

    The loss axis is chosen by the lanes that did not diverge; those that did are drawn to where they leave it.

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
    ax = _axes(ax)
    curves = [_curve(line.result, row) for row in line.rows[:, seed]]
    regimes = line.regimes[:, seed]
    stayed = [losses for (_, losses), regime in zip(curves, regimes, strict=True) if regime != Regime.DIVERGED]
    begun = [losses[:1] * factor for _, losses in curves for factor in (1.0, 100.0)]  # where all diverged
    _set_loss_axis(ax, np.concatenate(stayed or begun))
    if log_steps:
        ax.set_xscale("symlog", linthresh=1, linscale=0.4, subs=range(2, 10))
    ax.set_xlim(0, max(float(steps[-1]) for steps, _ in curves) * (1.06 if log_steps else 1.02))
    shades = _shades(line)
    for (steps, losses), value, regime in zip(curves, line.values, regimes, strict=True):
        _draw_curve(ax, steps, losses, shades.to_rgba(value), Regime(int(regime)))
    ax.set(xlabel="step", ylabel="loss")
    _legend(ax, _regime_handles(regimes))
    _colour_bar(ax, shades, _words(axis))
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
    ax = _axes(ax)
    _set_scale(ax, "x", np.concatenate([line.values for line in lines]))
    scores = [_scores(line, by) for line in lines]
    _set_loss_axis(ax, np.concatenate([s.ravel() for s in scores]), room=0.025 * _count_rows(scores))
    handles = _draw_only(ax, lines[0], axis, by, scores[0]) if len(lines) == 1 else []
    if len(lines) > 1:
        for number, (line, score) in enumerate(zip(lines, scores, strict=True)):
            handles.append(_draw_one_of_several(ax, line, axis, by, score, number))
        handles += [Line2D([], [], color=_INK, **style, label=name) for name, style in _SIGNS.items()]
    if threshold is not None:
        _check_number("threshold", threshold)
        style: dict[str, Any] = {"color": _INK, "linewidth": 1.5, "linestyle": (0, (1, 1.2))}
        handles.append(ax.axvline(threshold, **style, label=f"theory {_short(threshold)}", zorder=3))
    _draw_strip(ax, lines)
    _tidy_ticks(ax.xaxis)
    ax.set(xlabel=_words(axis), ylabel=_words(by))
    _legend(ax, handles, _regime_handles(np.concatenate([_commonest(line.regimes) for line in lines])))
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
    ax = _axes(ax)
    for which, values in (("x", plane.x), ("y", plane.y)):
        _set_scale(ax, which, values)
    edge = (_draw_points if plane.paired else _draw_cells)(ax, plane)
    ax.set(xlabel=_words(x), ylabel=_words(y))
    _legend(ax, _regime_handles(plane.codes[plane.codes >= 0]) + edge)
    return ax


def regime_strip(
    result: SweepResult,
    *,
    axis: str = "learning_rate",
    optimizer: str | None = None,
    at: Mapping[str, Any] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """The commonest regime along `axis` as a strip, a row an optimizer; each may have values of its own.

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
    ax = _axes(ax, height=0.9 + 0.3 * len(lines))
    _set_scale(ax, "x", np.concatenate([line.values for line in lines]))
    _fill_strip(ax, lines)
    _tidy_ticks(ax.xaxis)
    ax.set_xlabel(_words(axis))
    _legend(ax, _regime_handles(np.concatenate([_commonest(line.regimes) for line in lines])))
    return ax


# Figures of single runs


def trajectories(
    problem: Problem,
    runs: Trajectory | Sequence[Trajectory],
    *,
    labels: Sequence[str] | None = None,
    limits: tuple[tuple[float, float], tuple[float, float]] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Paths of runs with two params over contours of the loss, which lie at equal ratios above its minimum.

    A ring marks each start; the mark at an end tells the regime. The frame holds what lies no higher than the starts.

    Args:
      problem: what they ran on; its params have two numbers.
      runs: of ``descend(..., record_params=True)``.
      labels: one a run.
      limits: ``((left, right), (bottom, top))`` of the frame.
      ax: where to draw.

    Raises:
      InputValueError, InputTypeError: an argument cannot be used.
    """
    _check_limits(limits, (2, 2))
    runs = (runs,) if isinstance(runs, Trajectory) else tuple(runs)
    labels = _checked_labels(labels, runs)
    paths = [_path(run, 2) for run in runs]
    loss = _loss_of(problem, runs[0])
    low, high = np.transpose(limits) if limits else _frame(paths, runs)
    ax = _axes(ax, height=4.4)
    _draw_contours(ax, loss, problem.optimum, low, high)
    ax.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), xlabel="$x_0$", ylabel="$x_1$")
    handles = []
    regimes = [_regime_of(problem, run) for run in runs]
    for number, (path, regime, label) in enumerate(zip(paths, regimes, labels, strict=True)):
        style = _series(number)
        _draw_path(ax, path, low, high, style["color"], regime)
        if label:
            handles.append(Line2D([], [], color=style["color"], linewidth=1.6, label=label))
    _legend(ax, handles, _regime_handles(regimes, color="0.75"))
    return ax


def descent_1d(
    problem: Problem,
    run: Trajectory,
    *,
    regime: Regime | None = None,
    limits: tuple[float, float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """L(x) of a single number x, with the iterates of a run walking on it, joined in their order.

    Args:
      problem: what it ran on; its params have one number.
      run: of ``descend(..., record_params=True)``.
      regime: for its colour and the mark at its end; by default that of the run.
      limits: ``(left, right)`` of the frame.
      ax: where to draw.

    Raises:
      InputValueError, InputTypeError: an argument cannot be used.
    """
    _check_limits(limits, (2,))
    x = _path(run, 1)[:, 0]
    loss = _loss_of(problem, run)
    if limits is None:
        low, high = _frame([x[:, None]], (run,))
        limits = (float(low[0]), float(high[0]))
    ax = _axes(ax, height=3.2)
    grid = np.linspace(*limits, 401)
    values = loss(grid[:, None])
    pad = 0.06 * float(np.ptp(values)) or 1.0
    low, high = np.array([limits[0], values.min() - pad]), np.array([limits[1], values.max()])
    ax.plot(grid, values, color="0.6", linewidth=1.2, zorder=1)
    ax.set(xlim=limits, ylim=(low[1], high[1]), xlabel="$x$", ylabel="$L(x)$")
    regime = _regime_of(problem, run) if regime is None else regime
    path = np.stack([x, loss(x[:, None])], axis=1)
    _draw_path(ax, path, low, high, REGIME_COLORS[regime], regime, outline=True)
    return ax


# Files and legends


def save(figure: Figure, path: str | Path, *, dpi: int = 200) -> tuple[Path, Path]:
    """Write ``path.png`` and ``path.svg``; the same figure gives the same bytes.

    >>> import tempfile
    >>> [file.name for file in save(Figure(), Path(tempfile.mkdtemp(), "empty"))]
    ['empty.png', 'empty.svg']
    """
    base = Path(path)
    if not base.parent.is_dir():
        raise bad_value("path", str(path), "its folder does not exist", f"Make it first: mkdir -p {base.parent}")
    png, svg = (base.with_name(base.name + end) for end in (".png", ".svg"))
    with mpl.rc_context({"svg.hashsalt": "gdkit", "svg.fonttype": "path"}):
        figure.savefig(png, dpi=dpi, metadata={"Software": None})
        figure.savefig(svg, dpi=dpi, metadata={"Date": None, "Creator": None})
    return png, svg


def _regime_handles(regimes: Iterable[Any], color: str | None = None) -> list[Line2D]:
    """A legend entry for each regime that occurs; `color` where colours tell something else."""
    found = sorted({Regime(int(code)) for code in regimes})
    own: dict[str, Any] = {} if color is None else {"color": color}
    marks = {regime: _mark(regime, 7) | own for regime in found}
    return [Line2D([], [], **mark, label=REGIME_LABELS[regime]) for regime, mark in marks.items()]


def _legend(ax: Axes, *groups: Sequence[Any]) -> None:
    """Groups one below the other, below the axis' label."""
    style: dict[str, Any] = {"fontsize": "small", "handletextpad": 0.5, "columnspacing": 1.3, "handlelength": 1.8}
    below = 4.2  # in letters: the ticks and the axis' label
    for group in filter(None, groups):
        letters = max(len(str(handle.get_label())) for handle in group) + 4
        rows = math.ceil(len(group) / max(1, 90 // letters))
        place: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, 0.0), "borderaxespad": below}
        former = ax.get_legend()
        ax.legend(handles=group, ncols=math.ceil(len(group) / rows), frameon=False, **place, **style)
        if former is not None and below > 4.2:
            ax.add_artist(former)  # another legend would take its place
        below += 1.55 * rows + 0.6
    if _figure(ax).get_layout_engine() is None:
        _make_room(ax, below)


def _make_room(ax: Axes, letters: float) -> None:
    """Raise the bottom of axes that no layout places."""
    points = FontProperties(size="small").get_size_in_points()
    share = letters * points / 72 * _figure(ax).dpi / ax.figure.bbox.height
    box = ax.get_position()
    if box.y0 < share < box.y1 - 0.1:
        ax.set_position((box.x0, share, box.width, box.y1 - share))


# Lanes along one axis, or two


class _Line(NamedTuple):
    """The lanes of one optimizer along one axis."""

    result: SweepResult
    values: np.ndarray  # (values,), increasing
    rows: np.ndarray  # (values, seeds), lanes of `result`

    @property
    def label(self) -> str:
        return self.result.forms[0].label or ""

    @property
    def regimes(self) -> np.ndarray:
        """Codes, (values, seeds)."""
        return self.result.verdict.regime[self.rows]


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
    if len(one.forms[0].dimensions) == 1:
        codes = _commonest(one.verdict.regime.reshape(-1, one.seeds))
        return _Plane(across[:: one.seeds], up[:: one.seeds], codes, paired=True)
    (xs, column), (ys, row) = _numbered(across), _numbered(up)
    counts = np.zeros((len(ys), len(xs), len(Regime)), int)
    np.add.at(counts, (row, column, one.verdict.regime), 1)
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


# Parts of the figures of a sweep


def _draw_curve(ax: Axes, steps: np.ndarray, losses: np.ndarray, color: Any, regime: Regime) -> None:
    bottom, top = ax.get_ylim()
    losses = np.maximum(np.nan_to_num(losses, nan=1e300, posinf=1e300), bottom)
    scale = ax.transScale
    points = scale.transform(np.stack([steps.astype(float), losses], axis=1))
    low, high = scale.transform([(0.0, bottom), (max(steps[-1], 1), top)])
    path = scale.inverted().transform(_until_it_leaves(points, low, high))
    ax.plot(*path.T, color=color, linewidth=1.3, solid_joinstyle="round", zorder=2)
    ax.plot(*path[-1], **_mark(regime, 6.5), clip_on=False, zorder=4)


def _draw_only(ax: Axes, line: _Line, axis: str, by: str, scores: np.ndarray) -> list[Line2D]:
    """One optimizer, with regimes as the background; returns the legend's entries."""
    _bands(ax, line)
    style: dict[str, Any] = {"color": _INK, "marker": "o"}
    red = REGIME_COLORS[Regime.DIVERGED]
    _draw_scores(ax, line, scores, style)
    _draw_crosses(ax, line, scores, red, row=None)
    name = "median over seeds" if line.result.seeds > 1 else "one seed"
    handles = [Line2D([], [], **style, linewidth=1.7, markersize=3.5, label=name)]
    edge, best = _edge(line, axis), _draw_best(ax, line, axis, by, scores, _INK)
    if best is not None:
        star: dict[str, Any] = _STAR | {"markeredgecolor": _INK}
        handles.append(Line2D([], [], **star, markersize=9, label=f"best {_short(best)}"))
    if edge is not None:
        dashes: dict[str, Any] = {"color": red, "linewidth": 1.3, "linestyle": "--", "zorder": 3}
        handles.append(ax.axvline(edge, **dashes, label=f"edge {_short(edge)}"))
    if np.isinf(scores).any():
        handles.append(Line2D([], [], color=red, marker="x", linestyle="none", markersize=4, label="diverged seed"))
    return handles


def _draw_one_of_several(ax: Axes, line: _Line, axis: str, by: str, scores: np.ndarray, number: int) -> Line2D:
    """An optimizer among others; returns its entry in the legend."""
    style = _series(number)
    _draw_scores(ax, line, scores, style)
    _draw_crosses(ax, line, scores, style["color"], row=number)
    edge, best = _edge(line, axis), _draw_best(ax, line, axis, by, scores, style["color"])
    if edge is not None:
        ax.axvline(edge, color=style["color"], linewidth=1.3, linestyle="--", zorder=3)
    said = [f"{name} {_short(value)}" for name, value in (("best", best), ("edge", edge)) if value is not None]
    label = f"{line.label}: {', '.join(said)}" if said else line.label
    return Line2D([], [], **style, linewidth=1.7, markersize=4, label=label)


def _draw_scores(ax: Axes, line: _Line, scores: np.ndarray, style: dict[str, Any]) -> None:
    """The median as a line, the spread as a band, every seed as a point."""
    bottom, top = ax.get_ylim()
    seen = np.where(np.isfinite(scores), np.maximum(scores, bottom), np.nan)
    if scores.shape[1] > 1:
        least, most = np.fmin.reduce(seen, axis=1), np.fmax.reduce(seen, axis=1)
        ax.fill_between(line.values, least, most, color=style["color"], alpha=0.18, linewidth=0, zorder=2)
        ax.plot(line.values, seen, linestyle="none", **style, markersize=2.2, alpha=0.55, zorder=3)
    middle = np.maximum(np.median(scores, axis=1), bottom)
    ax.plot(line.values, _up_to_the_top(middle, top), color=style["color"], linewidth=1.7, zorder=4)
    if len(middle) < 100:
        middle = np.where(np.isfinite(middle), middle, np.nan)
        ax.plot(line.values, middle, linestyle="none", markersize=3.5, **style, zorder=4)


def _draw_crosses(ax: Axes, line: _Line, scores: np.ndarray, color: Any, row: int | None) -> None:
    """A cross at the top for every seed that diverged, one below the other, or all in one row."""
    lost = np.isinf(scores)
    rows = np.cumsum(lost, axis=1) - 1 if row is None else np.full(scores.shape, row)
    height = 0.975 - 0.025 * np.minimum(rows, _ROWS - 1)
    x = np.broadcast_to(line.values[:, None], scores.shape)
    style: dict[str, Any] = {"marker": "x", "linestyle": "none", "markersize": 4, "color": color}
    ax.plot(x[lost], height[lost], **style, transform=ax.get_xaxis_transform(), zorder=5)


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
        ax.axvspan(left, right, color=REGIME_COLORS[Regime(code)], alpha=0.22, linewidth=0, zorder=0)
    edges = _borders(ax.xaxis, line.values)
    ax.set_xlim(edges[0], edges[-1])


def _stretches(ax: Axes, line: _Line) -> list[tuple[int, float, float]]:
    """Unbroken stretches of one regime: its code, where it begins and ends."""
    codes = _commonest(line.regimes)
    borders = _borders(ax.xaxis, line.values)
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    ends = np.append(starts[1:], len(codes))
    return [(int(codes[s]), borders[s], borders[e]) for s, e in zip(starts, ends, strict=True)]


def _draw_strip(ax: Axes, lines: Sequence[_Line]) -> None:
    """A strip of regimes on top of the axes."""
    inches = ax.get_window_extent().height / _figure(ax).dpi
    height = 0.17 * len(lines) / max(inches, 1.0)
    strip = ax.inset_axes((0.0, 1.015, 1.0, height), sharex=ax)
    _fill_strip(strip, lines)
    strip.tick_params(axis="x", which="both", bottom=False, labelbottom=False)


def _fill_strip(ax: Axes, lines: Sequence[_Line]) -> None:
    for row, line in enumerate(lines):
        stretches = _stretches(ax, line)
        for code, left, right in stretches:
            color = REGIME_COLORS[Regime(code)]
            ax.fill_between([left, right], row - 0.44, row + 0.44, color=color, linewidth=0)
        for regime, middle, fits in _centres(ax, stretches):
            ax.plot(middle, row, **_symbol(regime, 5) if fits else _mark(regime, 5), zorder=5)
    if any(line.label for line in lines):
        ax.set_yticks(range(len(lines)), [line.label for line in lines], fontsize="small")
    else:
        ax.set_yticks([])
    ax.set_ylim(len(lines) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.spines[:].set_visible(False)
    borders = np.concatenate([_borders(ax.xaxis, line.values) for line in lines])
    ax.set_xlim(borders.min(), borders.max())


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
    x, y = _borders(ax.xaxis, plane.x), _borders(ax.yaxis, plane.y)
    colors = ListedColormap([REGIME_COLORS[regime] for regime in Regime])
    cells = np.ma.masked_less(plane.codes, 0)
    ax.pcolormesh(x, y, cells, cmap=colors, vmin=-0.5, vmax=len(Regime) - 0.5, rasterized=cells.size > 4096)
    middles = [_places(v) for v in (plane.x, plane.y)]
    every = [math.ceil(len(v) / 14) for v in middles]
    for row in range(every[1] // 2, len(middles[1]), every[1]):
        for column in range(every[0] // 2, len(middles[0]), every[0]):
            if plane.codes[row, column] >= 0:
                style = _symbol(Regime(int(plane.codes[row, column])), 3.5)
                ax.plot(middles[0][column], middles[1][row], **style, alpha=0.75)
    segments = _border_segments(plane.codes, x, y)
    for width, color in ((3.6, "white"), (1.8, "black")) if segments else ():
        ax.add_collection(LineCollection(segments, colors=color, linewidths=width, capstyle="projecting"))
    ax.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]) if plane.y.dtype.kind in "fiu" else (y[-1], y[0]))
    for axis, values in ((ax.xaxis, plane.x), (ax.yaxis, plane.y)):
        _tidy_ticks(axis)
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
    x, y = _places(plane.x), _places(plane.y)
    for regime in Regime:
        mine = plane.codes == regime
        if mine.any():
            ax.plot(x[mine], y[mine], **_mark(regime, 6))
    return []


def _shades(line: _Line) -> ScalarMappable:
    """Value to colour: viridis without its end that white swallows."""
    colors = ListedColormap(mpl.colormaps["viridis"](np.linspace(0, 0.93, 256)))
    low, high = line.values[0], line.values[-1]
    scale = _scale_of(line.values)
    if scale == "log":
        norm = LogNorm(*((low, high) if high > low else (low / 2, high * 2)))
    elif scale == "symlog":
        norm = SymLogNorm(line.values[1], linscale=0.5, vmin=low, vmax=high)
    else:
        norm = Normalize(*((low, high) if high > low else (low - 0.5, high + 0.5)))
    return ScalarMappable(norm, colors)


def _colour_bar(ax: Axes, shades: ScalarMappable, label: str) -> None:
    laid_out = _figure(ax).get_layout_engine() is not None  # else beside the axes where they now are
    bar = ax.figure.colorbar(shades, ax=ax, label=label, pad=0.02, use_gridspec=laid_out)
    _tidy_ticks(bar.ax.yaxis)


def _titled(ax: Axes, result: SweepResult, line: _Line, *, named: bool = True) -> Axes:
    """A title that says which of the sweep's lanes are drawn, where they are not all."""
    varying = {name for _, axes, _ in line.result.forms[0].dimensions for name in axes}
    coords = line.result.lanes.coords  # those of other optimizers alone are not among them
    fixed = [n for n, values in result.axes.items() if n in coords and n not in varying and len(values) > 1]
    said = [line.label] if named and len(result.optimizers) > 1 else []
    said += [f"{_words(name)} {_short(line.result.lanes[name].values[0])}" for name in fixed]
    if said:
        ax.set_title(", ".join(said), loc="left", fontsize="medium")
    return ax


# Parts of the figures of single runs


def _draw_path(
    ax: Axes, path: np.ndarray, low: np.ndarray, high: np.ndarray, color: Any, regime: Regime, *, outline: bool = False
) -> None:
    """Points joined in order, to where they leave the frame: a ring at the start, the regime's mark at the end."""
    seen = _until_it_leaves(path, low, high)
    inside = seen[((seen >= low) & (seen <= high)).all(axis=1)]
    ax.plot(*seen.T, color=_INK if outline else color, linewidth=0.7 if outline or len(seen) > 100 else 1.3, zorder=3)
    dot: dict[str, Any] = {"marker": "o", "color": color, "linestyle": "none", "markeredgecolor": _INK}
    ax.plot(*inside.T, **dot, markersize=5 if outline else 2.6, markeredgewidth=0.5 if outline else 0, zorder=4)
    ring: dict[str, Any] = {"marker": "o", "markersize": 7.5, "markerfacecolor": "white", "markeredgecolor": _INK}
    ax.plot(*seen[0], **ring, markeredgewidth=1.3, zorder=5)
    end: dict[str, Any] = _mark(regime, 9) | {"color": color}
    ax.plot(*seen[-1], **end, zorder=6, clip_on=False)


def _until_it_leaves(path: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """A path up to the last point inside a box, and on to the side of it where it leaves for good."""
    inside = (np.isfinite(path) & (path >= low) & (path <= high)).all(axis=1)
    if not inside.any():
        return np.clip(np.nan_to_num(path[:1]), low, high)
    last = int(np.flatnonzero(inside)[-1])
    kept = path[: last + 1][np.isfinite(path[: last + 1]).all(axis=1)]
    if last + 1 == len(path) or not np.isfinite(path[last + 1]).all():
        return kept
    start, move = path[last], path[last + 1] - path[last]
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = np.where(move > 0, (high - start) / move, np.where(move < 0, (low - start) / move, np.inf))
    return np.vstack([kept, start + shares.min() * move])


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


def _frame(paths: Sequence[np.ndarray], runs: Sequence[Trajectory]) -> tuple[np.ndarray, np.ndarray]:
    """The box of all points no higher than their start, with a margin; never much narrower one way than the other."""
    kept = []
    for path, run in zip(paths, runs, strict=True):
        losses = np.asarray(run.loss)
        kept += [path[:1], path[np.isfinite(path).all(axis=1) & (losses <= losses[0])]]
    points = np.concatenate(kept)
    low, high = points.min(axis=0), points.max(axis=0)
    width = np.maximum(high - low, 0.4 * (high - low).max())
    width = np.where(width > 0, width, 1.0)
    middle = (low + high) / 2
    return middle - 0.62 * width, middle + 0.62 * width


def _path(run: Any, size: int) -> np.ndarray:
    """The params of a run at its recorded steps, (points, size)."""
    if not isinstance(run, Trajectory):
        raise bad_type("runs", run, "not a Trajectory", "Pass what gdkit.descend returned")
    if run.params_history is None:
        raise bad_value("runs", "a Trajectory", "its params were not recorded", "Use descend(..., record_params=True)")
    points = len(run.loss)
    leaves = [np.asarray(leaf, float).reshape(points, -1) for leaf in jax.tree.leaves(run.params_history)]
    path = np.concatenate(leaves, axis=1)
    if path.shape[1] != size:
        counted = "one number" if size == 1 else "two numbers"
        raise bad_value("runs", "a Trajectory", f"its params are {path.shape[1]} numbers", f"Draw params of {counted}")
    return path


def _loss_of(problem: Any, run: Trajectory) -> Callable[[np.ndarray], np.ndarray]:
    """``(n, numbers) -> (n,)``: the loss on all the data, of params laid out as one row."""
    if not isinstance(problem, Problem):
        raise bad_type("problem", problem, "not a Problem", "Pass the gdkit.Problem of the runs; call its factory")
    if problem.has_aux:
        raise bad_value("problem", problem.name, "its loss depends on more than its params", "Draw one without aux")
    _, unravel = ravel_pytree(run.params)
    batch = () if problem.data is None else (problem.data,)
    loss = jax.vmap(lambda row: problem.loss(unravel(row), *batch))
    return lambda rows: np.asarray(loss(np.asarray(rows, ravel_pytree(run.params)[0].dtype)), float)


def _regime_of(problem: Problem, run: Trajectory) -> Regime:
    return Regime(int(classify(run.statistics, optimum=problem.optimum).regime))


def _checked_labels(labels: Sequence[str] | None, runs: Sequence[Trajectory]) -> Sequence[str]:
    if not runs:
        raise bad_value("runs", runs, "there is none", "Pass at least one Trajectory")
    if labels is None:
        return [""] * len(runs)
    if len(labels) != len(runs):
        raise bad_value("labels", labels, f"{len(labels)} labels for {len(runs)} runs", "Pass one a run")
    return labels


# Axes, scales and marks


def _axes(ax: Any, *, height: float = 4.0) -> Axes:
    """The Axes given, or those of a new figure."""
    if ax is None:
        import matplotlib.pyplot as plt  # chooses a backend, so only where a figure must be made

        return plt.subplots(figsize=(6.4, height), layout="constrained")[1]
    if not isinstance(ax, Axes):
        raise bad_type("ax", ax, "not matplotlib Axes", "Pass one Axes, for example of plt.subplots()")
    return ax


def _figure(ax: Axes) -> Figure:
    figure = ax.get_figure(root=True)
    if figure is None:
        raise bad_value("ax", ax, "it belongs to no figure any more", "Pass Axes of a figure")
    return figure


def _scale_of(values: np.ndarray) -> str:
    """log where values lie more evenly so; symlog for that with a 0; else linear."""
    distinct = np.unique(values)
    positive = distinct[distinct > 0]
    if distinct[0] < 0 or not positive.size or distinct.size - positive.size > 1:
        return "linear"
    if positive.size < 3:
        even = positive.size == 1 or positive[-1] >= 4 * positive[0]
        return "log" if even and positive.size == distinct.size else "linear"
    uneven = lambda v: float(np.std(np.diff(v)) / np.mean(np.diff(v)))
    wide = positive[-1] >= 100 * positive[0] and uneven(positive) > 0.01
    if not wide and uneven(np.log(positive)) > uneven(positive):
        return "linear"
    return "log" if positive.size == distinct.size else "symlog"


def _set_scale(ax: Axes, which: str, values: np.ndarray) -> None:
    """A scale that suits the values of an axis; texts become ticks."""
    axis = ax.xaxis if which == "x" else ax.yaxis
    if values.dtype.kind not in "fiu":
        axis.set_ticks(range(len(values)), [str(v) for v in values])
        return
    scale = _scale_of(values)
    extra: dict[str, Any] = {"linthresh": float(values[values > 0].min()), "linscale": 0.5} if scale == "symlog" else {}
    (ax.set_xscale if which == "x" else ax.set_yscale)(scale, **extra)


def _set_loss_axis(ax: Axes, losses: np.ndarray, *, room: float = 0.0) -> None:
    """A log axis that holds the finite losses, with a share of it left free at the top; linear if any is negative."""
    losses = losses[np.isfinite(losses)]
    positive = losses[losses > 0]
    if losses.size and losses.min() >= 0 and positive.size:
        top = np.log10(positive.max())
        bottom = max(np.log10(positive.min()), top - _DECADES)
        width = max(top - bottom, 0.3)
        ax.set_yscale("log")
        ax.set_ylim(10 ** (bottom - 0.05 * width), 10 ** (top + (0.05 + room / (1 - room)) * width))
        _tidy_ticks(ax.yaxis)
        return
    low, high = (float(losses.min()), float(losses.max())) if losses.size else (0.0, 1.0)
    width = high - low or 1.0
    ax.set_ylim(low - 0.05 * width, high + (0.05 + room / (1 - room)) * width)


def _tidy_ticks(axis: Any) -> None:
    """On a log axis of less than two decades 1, 2 and 5 as plain numbers, on any log axis no labels between them."""
    low, high = sorted(axis.get_view_interval())
    if axis.get_scale() != "log":
        return
    axis.set_minor_formatter(NullFormatter())
    if high < 100 * low:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high > 4 * low else (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)))
        axis.set_major_formatter(lambda value, _: f"{value:g}")


def _borders(axis: Any, values: np.ndarray) -> np.ndarray:
    """Borders of the cells around increasing values, halfway on the axis' scale; (values + 1,)."""
    scale = axis.get_transform()
    at = scale.transform(_places(values))
    if at.size == 1:
        return scale.inverted().transform(np.array([at[0] - 0.3, at[0] + 0.3]))
    middles = (at[1:] + at[:-1]) / 2
    return scale.inverted().transform(np.concatenate([[2 * at[0] - middles[0]], middles, [2 * at[-1] - middles[-1]]]))


def _places(values: np.ndarray) -> np.ndarray:
    """Numbers as they are; texts by their place."""
    return values.astype(float) if values.dtype.kind in "fiu" else np.arange(len(values), dtype=float)


def _mark(regime: Regime, size: float) -> dict[str, Any]:
    return {"marker": REGIME_MARKERS[regime], "color": REGIME_COLORS[regime], "markersize": size} | _OUTLINE


def _symbol(regime: Regime, size: float) -> dict[str, Any]:
    """The mark of a regime on its own colour: white on dark, black on light."""
    dark = regime in (Regime.OSCILLATING, Regime.CATAPULT, Regime.DIVERGED, Regime.CONVERGED)
    color = "white" if dark else _INK
    return {"marker": REGIME_MARKERS[regime], "color": color, "markersize": size, "linestyle": "none"}


def _series(number: int) -> dict[str, Any]:
    """Colour and marker of the n-th of several; markers and colours repeat with different periods."""
    color = SERIES_COLORS[number % len(SERIES_COLORS)]
    return {"color": color, "marker": SERIES_MARKERS[number % len(SERIES_MARKERS)]}


def _check_result(result: Any) -> None:
    if not isinstance(result, SweepResult):
        raise bad_type("result", result, "not a SweepResult", "Pass what gdkit.sweep or gdkit.open returned")


def _check_axis(result: SweepResult, axis: str) -> None:
    if axis not in result.axes:
        raise unknown_name("axis", axis, result.axes)
    if result.axes[axis].dtype.kind not in "fiu":
        raise bad_value("axis", axis, "its values are not numbers", "Choose a numeric axis")


def _check_limits(limits: Any, shape: tuple[int, ...]) -> None:
    if limits is None:
        return
    mend = "Pass (left, right)" if shape == (2,) else "Pass ((left, right), (bottom, top))"
    pairs = np.asarray(limits, float) if np.shape(limits) == shape else None
    if pairs is None or not np.isfinite(pairs).all() or not (np.diff(pairs) > 0).all():
        raise bad_value("limits", limits, "not increasing pairs of numbers", mend)


def _check_number(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise bad_type(name, value, "not a number", "Pass a number")


def _words(name: str) -> str:
    return name.removeprefix("problem.").replace("_", " ")


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, int | float | np.number) else str(value)
