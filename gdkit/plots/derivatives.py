"""Figures of derivatives: the tangent, the error of finite differences, the graph of the chain rule."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes

from gdkit.checks import check_number
from gdkit.errors import bad_type, bad_value
from gdkit.formatting import format_number
from gdkit.gradients import ChainRow, ChainRuleTrace, FiniteDifference
from gdkit.gradients.chain_rule import format_value
from gdkit.plots import style

_MAX_NODES = 60  # larger graphs are not readable


def tangent(
    f: Callable[[Any], Any], at: float, *, limits: tuple[float, float] | None = None, ax: Axes | None = None
) -> Axes:
    """Draw the curve of `f`, and its tangent at `at` with the slope of ``jax.grad``.

    Args:
      f: a function from one number to one number.
      at: the point of contact.
      limits: ``(left, right)``; None: ``at ± max(|at|, 1)``.
      ax: the Axes to draw on.

    Raises:
      InputValueError, InputTypeError: an argument cannot be used.
    """
    check_number("at", at)
    style.check_limits(limits, (2,))
    reach = max(abs(at), 1.0)
    t = np.linspace(*(limits or (at - reach, at + reach)), 401)
    curve = np.asarray(jax.vmap(f)(jnp.asarray(t, float)))
    if curve.shape != t.shape:
        raise bad_type("f", curve.shape[1:], "it does not return a scalar", "Pass a function of one number")
    height, slope = (float(x) for x in jax.value_and_grad(f)(jnp.asarray(at, float)))
    ax = style.get_axes(ax, height=3.4)
    ax.plot(t, curve, color="0.45", linewidth=1.8, label="$h(t)$")
    label = f"tangent at {format_number(at, 3)}, slope {format_number(slope, 3)}"
    ax.plot(t, height + slope * (t - at), "--", color=style.SERIES_COLORS[1], linewidth=1.5, label=label)
    ax.plot(at, height, "o", color=style.SERIES_COLORS[1], markeredgecolor=style.INK, markersize=7, zorder=4)
    pad = 0.12 * float(np.ptp(curve)) or 1.0
    ax.set(xlim=(t[0], t[-1]), ylim=(curve.min() - pad, curve.max() + 0.3 * pad), xlabel="$t$", ylabel="$h(t)$")
    style.draw_legend(ax, ax.get_lines()[:2])
    return ax


def difference_error(
    table: FiniteDifference | Sequence[FiniteDifference], *, labels: Sequence[str] | None = None, ax: Axes | None = None
) -> Axes:
    """Draw the error of finite differences against the step: rounding on the left, truncation on the right.

    A ring marks the best step. An error of exactly zero is drawn at the bottom of the log axis.

    Args:
      table: one or several results of `gdkit.finite_difference`.
      labels: one label per table.
      ax: the Axes to draw on.

    Raises:
      InputValueError, InputTypeError: an argument cannot be used.
    """
    tables = (table,) if isinstance(table, FiniteDifference) else tuple(table)
    if not tables or not all(isinstance(one, FiniteDifference) for one in tables):
        raise bad_type("table", table, "not a FiniteDifference", "Pass the result of gdkit.finite_difference")
    style.check_labels(labels, len(tables), "table")
    ax = style.get_axes(ax)
    errors = np.concatenate([one.error for one in tables])
    least = errors[errors > 0].min(initial=1.0) / 3
    ax.set(xscale="log", yscale="log", xlabel="step $h$", ylabel="error of the slope")
    handles = []
    for number, one in enumerate(tables):
        look = style.series(number)
        order = np.argsort(one.step)
        error = np.maximum(one.error, least)
        handles += ax.plot(one.step[order], error[order], **look, markersize=3.5, linewidth=1.3)
        if labels:
            handles[-1].set_label(labels[number])
        best = int(np.argmin(one.error))
        ring: dict[str, Any] = {"marker": "o", "markerfacecolor": "none", "markeredgecolor": style.INK}
        ax.plot(one.step[best], error[best], **ring, markersize=10, zorder=5)
    if labels:
        style.draw_legend(ax, handles)
    return ax


def chain_rule(trace: ChainRuleTrace, *, ax: Axes | None = None) -> Axes:
    """Draw the graph of a function: values flow down along its arrows, adjoints flow back up.

    A box shows an operation, its value and, in color, its adjoint; an arrow the local derivative where that is one
    number. Arrays are shown by shape and norm.

    Args:
      trace: the result of `gdkit.chain_rule_trace`.
      ax: the Axes to draw on.

    Raises:
      InputTypeError: not a trace.
      InputValueError: the graph has more boxes than are readable.
    """
    if not isinstance(trace, ChainRuleTrace):
        raise bad_type("trace", trace, "not a ChainRuleTrace", "Pass the result of gdkit.chain_rule_trace")
    if len(trace.rows) > _MAX_NODES:
        remedy = "Print the trace, or trace a part of the function"
        raise bad_value("trace", f"{len(trace.rows)} operations", f"more than {_MAX_NODES} are not readable", remedy)
    owner = {name: row.output for row in trace.rows for name in row.outputs}
    edges = [_Edge(owner[source], owner[target], slope) for source, target, slope in trace.graph().edges]
    depths = _find_depths(trace.rows, edges)
    routes = [_find_route(number, edge, depths) for number, edge in enumerate(edges)]
    places = _place_stops(depths, routes)
    ax = style.get_axes(ax, height=max(2.4, 0.95 * (1 + max(depths.values()))))
    boxes = {row.output: _draw_box(ax, row, places[row.output]) for row in trace.rows}
    ends = [edge[:2] for edge in edges]
    for number, (edge, route) in enumerate(zip(edges, routes, strict=True)):
        twin = ends[:number].count(ends[number])  # x · x uses x twice
        bend = 0.0 if ends.count(ends[number]) == 1 else 0.35 * (1 - 2 * twin)
        _draw_edge(ax, edge, [places[stop] for stop in route], boxes, bend)
    x, y = np.transpose(list(places.values()))
    ax.set(xlim=(x.min() - 0.75, x.max() + 0.75), ylim=(y.min() - 0.4, 0.5))
    ax.axis("off")
    return ax


class _Edge(NamedTuple):
    source: str
    target: str
    slope: float | None


def _find_depths(rows: Sequence[ChainRow], edges: Sequence[_Edge]) -> dict[str, int]:
    """The level of each box: below its inputs; function inputs and constants just above their first use."""
    depths: dict[str, int] = {}
    for row in rows:
        depths[row.output] = 1 + max((depths[e.source] for e in edges if e.target == row.output), default=-1)
    targets = {edge.target for edge in edges}
    for row in rows:
        users = [depths[edge.target] for edge in edges if edge.source == row.output]
        if row.output not in targets and users:
            depths[row.output] = min(users) - 1
    return depths


def _find_route(number: int, edge: _Edge, depths: Mapping[str, int]) -> list[Any]:
    """The points of an arrow: its ends, and a gap to pass through on every level between them."""
    between = range(depths[edge.source] + 1, depths[edge.target])
    return [edge.source, *((number, depth) for depth in between), edge.target]


def _place_stops(depths: Mapping[str, int], routes: Sequence[list[Any]]) -> dict[Any, tuple[float, float]]:
    """The positions of boxes and gaps, ordered on each level by their neighbors, so that few arrows cross."""
    levels: dict[int, list[Any]] = {depth: [] for depth in range(1 + max(depths.values()))}
    for name, depth in depths.items():
        levels[depth].append(name)
    for stop in (stop for route in routes for stop in route[1:-1]):
        levels[stop[1]].append(stop)
    above: dict[Any, list[Any]] = {stop: [] for stops in levels.values() for stop in stops}
    below: dict[Any, list[Any]] = {stop: [] for stop in above}
    for route in routes:
        for stop, after in pairwise(route):
            above[after].append(stop)
            below[stop].append(after)
    across = dict.fromkeys(above, 0.0)
    for neighbors in (above, below, above, below, above):  # barycenters, downwards and upwards (Sugiyama et al. 1981)
        for depth in sorted(levels, reverse=neighbors is below):
            across |= _spread_stops(
                {stop: [across[n] for n in neighbors[stop]] or [across[stop]] for stop in levels[depth]}
            )
    return {stop: (across[stop], -float(depth)) for depth, stops in levels.items() for stop in stops}


def _spread_stops(wanted: Mapping[Any, Sequence[float]]) -> dict[Any, float]:
    """Positions side by side on one level, in the order of the wanted positions and centered on them."""
    ordered = sorted(wanted, key=lambda stop: float(np.mean(wanted[stop])))
    widths = np.array([1.0 if isinstance(stop, str) else 0.6 for stop in ordered])
    at = np.cumsum(widths) - widths / 2
    middle = np.mean([np.mean(places) for places in wanted.values()])
    return dict(zip(ordered, (at - at.mean() + middle).tolist(), strict=True))


def _draw_box(ax: Axes, row: ChainRow, place: tuple[float, float]) -> Any:
    name = row.output if row.operation == "input" else f"{row.output} = {row.operation}"
    color = "white" if row.operation == "input" else "0.95"
    frame = {"boxstyle": "round,pad=0.45", "facecolor": color, "edgecolor": "0.45", "linewidth": 0.9}
    adjoint = "" if row.adjoint is None else f"\nadjoint {format_value(row.adjoint, 4)}"
    text = f"{name}\nvalue {format_value(row.value, 4)}"
    box = ax.text(
        *place, f"{text}{adjoint}", ha="center", va="center", fontsize="small", color=(0, 0, 0, 0), bbox=frame, zorder=3
    )
    lines = text.count("\n") + adjoint.count("\n") + 1
    look: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": "small", "linespacing": 1.2, "zorder": 4}
    ax.text(*place, text + "\n" * (lines - 2), color=style.INK, **look)
    ax.text(*place, "\n" * (lines - 1) + adjoint.strip(), color=style.SERIES_COLORS[1], **look)
    return box


def _draw_edge(ax: Axes, edge: _Edge, stops: Sequence[tuple[float, float]], boxes: dict[str, Any], bend: float) -> None:
    """Draw an arrow through its points, with the local derivative beside its start."""
    first = boxes[edge.source].get_bbox_patch()
    for number, (start, end) in enumerate(pairwise(stops)):
        arrow: dict[str, Any] = {"color": "0.45", "shrinkA": 0, "shrinkB": 0, "connectionstyle": f"arc3,rad={bend}"}
        if number == 0:
            arrow |= {"patchA": first}
        last = number == len(stops) - 2
        arrow |= {"arrowstyle": "-|>", "patchB": boxes[edge.target].get_bbox_patch()} if last else {"arrowstyle": "-"}
        ax.annotate("", xy=end, xytext=start, arrowprops=arrow, zorder=2)
    if edge.slope is not None:
        start, end = stops[:2]
        middle = 0.55 * start[0] + 0.45 * end[0] + 0.5 * bend * (start[1] - end[1]), 0.55 * start[1] + 0.45 * end[1]
        look: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": "small", "color": style.SERIES_COLORS[0]}
        back = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none"}
        ax.text(*middle, f"· {format_number(edge.slope)}", **look, bbox=back, zorder=3)
