"""Recorded curves of a sweep, such as its losses, against the step."""

from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, LogNorm, Normalize, SymLogNorm
from matplotlib.ticker import MaxNLocator

from gdkit.checks import check_integer
from gdkit.errors import bad_value
from gdkit.plots import style
from gdkit.plots.lines import Line, add_title, select_line
from gdkit.regimes import Regime
from gdkit.sweeps.result.result import SweepResult
from gdkit.sweeps.scoring.lane_values import curve_names

_MAX_CURVES = 150  # more cannot be distinguished


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
    """Draw the training loss against the step; arguments are those of `curves`.

    Without recorded curves, lines join the first and the last loss.

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
    """Draw a recorded value against the step, one line per value of `axis`, with the marker of its regime at its end.

    The vertical range is that of the lanes that did not diverge; diverged lanes are drawn up to its edge.
    Unfinished lanes are drawn up to their last recorded step, without a marker.
    Of more than 150 values of `axis`, 150 at equal distances are drawn.

    Args:
      result: a sweep.
      name: what `SweepResult.curve` returns: ``loss``, a value on validation data of a sweep with `evaluate_every`, or
        what the loss logs; None: the value that lanes are compared by if it was evaluated along the run, else the loss.
      axis: a numeric axis.
      seed: the number of the seed.
      optimizer: the label of an optimizer; None: that of the recommended point.
      at: values of the other axes; those not given are those of the recommended point.
      log_steps: whether steps are on a log axis, with 0 at its left.
      ax: the Axes to draw on.

    Raises:
      InputValueError, InputTypeError: an argument cannot be used.
    """
    line = select_line(result, axis, optimizer, at)
    check_integer("seed", seed, at_least=0)
    if seed >= result.seeds:
        raise bad_value("seed", seed, "no such seed", f"Use 0 to {result.seeds - 1}")
    ax = style.get_axes(ax)
    shown = np.unique(np.linspace(0, len(line.values) - 1, _MAX_CURVES).round().astype(int))
    if name is None:  # what lanes are compared by if it was evaluated along the run, else the loss
        name = result.score_name() if result.score_name() in curve_names(result.lanes) else "loss"
    found = [(*_get_curve(line.result, line.rows[place, seed], name), place) for place in shown]
    drawn = [(steps, values, place) for steps, values, place in found if len(steps)]
    finished = line.result.finished[line.rows[shown, seed]]
    regimes = line.regimes[shown, seed][finished]
    bounded = [values for _, values, place in drawn if line.regimes[place, seed] != Regime.DIVERGED]
    around_start = [values[:1] * factor for _, values, _ in drawn for factor in (1.0, 100.0)]
    linear = name in result.lanes and result.is_maximized(name)
    style.set_loss_axis(ax, np.concatenate(bounded or around_start or [np.zeros(0)]), linear=linear)
    if log_steps:
        ax.set_xscale("symlog", linthresh=1, linscale=0.4, subs=(2, 5))
    else:
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    last = max([1.0, *(float(steps[-1]) for steps, *_ in drawn)])
    ax.set_xlim(0, last * (1.06 if log_steps else 1.02))
    style.tidy_ticks(ax.xaxis)
    shades = _make_color_map(line)
    ends = [_draw_curve(ax, steps, values, shades.to_rgba(line.values[place])) for steps, values, place in drawn]
    places = [place for *_, place in drawn]
    _draw_ends(ax, np.array(ends), line.regimes[places, seed], line.result.finished[line.rows[places, seed]])
    ax.set(xlabel="step", ylabel=style.format_name(name))
    style.draw_legend(ax, style.regime_handles(regimes))
    _draw_color_bar(ax, shades, style.format_name(axis))
    return add_title(ax, result, line)


def _get_curve(result: SweepResult, lane: int, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of a lane: all losses, with the first even where no curve was recorded, or all finite values."""
    steps, losses = result.curve(int(lane), name)
    if name != "loss" or not len(steps):  # a lane that has not begun has none
        is_finite = np.isfinite(losses)
        return steps[is_finite], losses[is_finite].astype(float)
    if steps[0] > 0:
        first = float(result.lanes["initial_loss"].values[lane])
        steps, losses = np.insert(steps, 0, 0), np.insert(losses, 0, first)
    return steps, losses.astype(float)


def _draw_curve(ax: Axes, steps: np.ndarray, losses: np.ndarray, color: Any) -> np.ndarray:
    """Draw a curve up to the edge of the axes; returns the point where it ends, (2,)."""
    bottom, top = ax.get_ylim()
    losses = np.maximum(np.nan_to_num(losses, nan=1e300, posinf=1e300), bottom)
    scale = ax.transScale
    points = scale.transform(np.stack([steps.astype(float), losses], axis=1))
    low, high = scale.transform([(0.0, bottom), (max(steps[-1], 1), top)])
    path = scale.inverted().transform(style.clip_path(points, low, high))
    ax.plot(*path.T, color=color, linewidth=1.3, solid_joinstyle="round", zorder=2)
    return path[-1]


def _draw_ends(ax: Axes, ends: np.ndarray, regimes: np.ndarray, finished: np.ndarray) -> None:
    """Draw the marker of its regime at the end of each finished curve; ends: (curves, 2)."""
    for regime in sorted({Regime(int(code)) for code in regimes[finished]}):
        ax.plot(*ends[finished & (regimes == regime)].T, **style.mark(regime, 6.5), clip_on=False, zorder=4)


def _make_color_map(line: Line) -> ScalarMappable:
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
    has_layout = style.get_figure(ax).get_layout_engine() is not None  # without one the axes keep their place
    bar = ax.figure.colorbar(shades, ax=ax, label=label, pad=0.02, use_gridspec=has_layout)
    style.tidy_ticks(bar.ax.yaxis)
