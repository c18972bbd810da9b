"""Figures of derivatives: the tangent, the error of differences, the walk back through a graph."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes

from gdkit.errors import bad_type, bad_value
from gdkit.gradients import ChainRow, ChainRuleTrace, FiniteDifference
from gdkit.plots import style

_NODES = 60  # of a graph that can still be read


def tangent(
    f: Callable[[Any], Any], at: float, *, limits: tuple[float, float] | None = None, ax: Axes | None = None
) -> Axes:
    """The curve of `f`, and the line that touches it at `at` with the slope of ``jax.grad``.

    Args:
      f: a function of one number that returns one number.
      at: where it is touched.
      limits: ``(left, right)``; by default as far to either side as `at` is from zero, and 1 at least.
      ax: where to draw.

    Raises:
      InputValueError, InputTypeError: an argument cannot be used.
    """
    style.check_number("at", at)
    style.check_limits(limits, (2,))
    reach = max(abs(at), 1.0)
    t = np.linspace(*(limits or (at - reach, at + reach)), 401)
    curve = np.asarray(jax.vmap(f)(jnp.asarray(t, float)))
    if curve.shape != t.shape:
        raise bad_type("f", curve.shape[1:], "it does not return a scalar", "Pass a function of one number")
    height, slope = (float(x) for x in jax.value_and_grad(f)(jnp.asarray(at, float)))
    ax = style.axes(ax, height=3.4)
    ax.plot(t, curve, color="0.45", linewidth=1.8, label="$h(t)$")
    label = f"tangent at {style.short(at)}, slope {style.short(slope)}"
    ax.plot(t, height + slope * (t - at), "--", color=style.SERIES_COLORS[1], linewidth=1.5, label=label)
    ax.plot(at, height, "o", color=style.SERIES_COLORS[1], markeredgecolor=style.INK, markersize=7, zorder=4)
    pad = 0.12 * float(np.ptp(curve)) or 1.0
    ax.set(xlim=(t[0], t[-1]), ylim=(curve.min() - pad, curve.max() + 0.3 * pad), xlabel="$t$", ylabel="$h(t)$")
    style.legend(ax, ax.get_lines()[:2])
    return ax


def difference_error(
    table: FiniteDifference | Sequence[FiniteDifference], *, labels: Sequence[str] | None = None, ax: Axes | None = None
) -> Axes:
    """The error of slopes from finite differences against the step: truncation to the right, rounding to the left.

    A ring marks the best step of each. An error of exactly zero has no place on the log axis, and is drawn at the
    bottom.

    Args:
      table: what `gdkit.finite_difference` returned, one or several.
      labels: one a table.
      ax: where to draw.

    Raises:
      InputValueError, InputTypeError: an argument cannot be used.
    """
    tables = (table,) if isinstance(table, FiniteDifference) else tuple(table)
    if not tables or not all(isinstance(one, FiniteDifference) for one in tables):
        raise bad_type("table", table, "not of finite_difference", "Pass what gdkit.finite_difference returned")
    if labels is not None and len(labels) != len(tables):
        raise bad_value("labels", labels, f"{len(labels)} labels for {len(tables)} tables", "Pass one a table")
    ax = style.axes(ax)
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
        ring: dict[str, Any] = {
            "markerfacecolor": "none",
            "markeredgecolor": style.INK,
            "marker": "o",
            "markersize": 10,
        }
        ax.plot(one.step[best], error[best], **ring, zorder=5)
    if labels:
        style.legend(ax, handles)
    return ax


def chain_rule(trace: ChainRuleTrace, *, ax: Axes | None = None) -> Axes:
    """The graph of a function: values flow down its arrows, adjoints flow back up.

    Each box says what is computed, its value and, in colour, its adjoint; each arrow the local derivative where that is
    one number. Arrays are shown by shape and norm.

    Args:
      trace: of `gdkit.chain_rule_trace`.
      ax: where to draw.

    Raises:
      InputTypeError: not a trace.
      InputValueError: a graph of more boxes than can be read.
    """
    if not isinstance(trace, ChainRuleTrace):
        raise bad_type("trace", trace, "not a ChainRuleTrace", "Pass what gdkit.chain_rule_trace returned")
    if len(trace.rows) > _NODES:
        remedy = "Print the trace, or trace a part of the function"
        raise bad_value("trace", f"{len(trace.rows)} operations", f"more than {_NODES} cannot be read", remedy)
    owner = {name: row.output for row in trace.rows for name in row.outputs}
    edges = [_Edge(owner[source], owner[target], slope) for source, target, slope in trace.graph().edges]
    depths = _depths(trace.rows, edges)
    routes = [_route(number, edge, depths) for number, edge in enumerate(edges)]
    places = _places(depths, routes)
    ax = style.axes(ax, height=max(2.4, 0.95 * (1 + max(depths.values()))))
    boxes = {row.output: _box(ax, row, places[row.output]) for row in trace.rows}
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


def _depths(rows: Sequence[ChainRow], edges: Sequence[_Edge]) -> dict[str, int]:
    """How deep each box lies: below all that it is made of; inputs and constants just above their first use."""
    depths: dict[str, int] = {}
    for row in rows:
        depths[row.output] = 1 + max((depths[e.source] for e in edges if e.target == row.output), default=-1)
    made = {edge.target for edge in edges}
    for row in rows:
        users = [depths[edge.target] for edge in edges if edge.source == row.output]
        if row.output not in made and users:
            depths[row.output] = min(users) - 1
    return depths


def _route(number: int, edge: _Edge, depths: Mapping[str, int]) -> list[Any]:
    """The stops of an arrow: its ends, and a gap to pass through on every level between them."""
    between = range(depths[edge.source] + 1, depths[edge.target])
    return [edge.source, *((number, depth) for depth in between), edge.target]


def _places(depths: Mapping[str, int], routes: Sequence[list[Any]]) -> dict[Any, tuple[float, float]]:
    """Where the boxes and the gaps are: on each level in the order of what leads there, so that arrows cross little."""
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
    for neighbours in (above, below, above, below, above):  # barycentres, downwards and upwards (Sugiyama et al. 1981)
        for depth in sorted(levels, reverse=neighbours is below):
            across |= _spread({stop: [across[n] for n in neighbours[stop]] or [across[stop]] for stop in levels[depth]})
    return {stop: (across[stop], -float(depth)) for depth, stops in levels.items() for stop in stops}


def _spread(wanted: Mapping[Any, Sequence[float]]) -> dict[Any, float]:
    """The stops of one level side by side, in the order of the places they want, and around their middle."""
    ordered = sorted(wanted, key=lambda stop: float(np.mean(wanted[stop])))
    widths = np.array([1.0 if isinstance(stop, str) else 0.6 for stop in ordered])
    at = np.cumsum(widths) - widths / 2
    middle = np.mean([np.mean(places) for places in wanted.values()])
    return dict(zip(ordered, (at - at.mean() + middle).tolist(), strict=True))


def _box(ax: Axes, row: ChainRow, place: tuple[float, float]) -> Any:
    made = row.output if row.operation == "input" else f"{row.output} = {row.operation}"
    color = "white" if row.operation == "input" else "0.95"
    frame = {"boxstyle": "round,pad=0.45", "facecolor": color, "edgecolor": "0.45", "linewidth": 0.9}
    adjoint = "" if row.adjoint is None else f"\nadjoint {_shown(row.adjoint)}"
    text = f"{made}\nvalue {_shown(row.value)}"
    box = ax.text(
        *place, f"{text}{adjoint}", ha="center", va="center", fontsize="small", color=(0, 0, 0, 0), bbox=frame, zorder=3
    )
    lines = text.count("\n") + adjoint.count("\n") + 1
    look: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": "small", "linespacing": 1.2, "zorder": 4}
    ax.text(*place, text + "\n" * (lines - 2), color=style.INK, **look)
    ax.text(*place, "\n" * (lines - 1) + adjoint.strip(), color=style.SERIES_COLORS[1], **look)
    return box


def _shown(value: Any) -> str:
    """A number, or the shape and norm of an array."""
    parts = [np.asarray(part, complex if jnp.iscomplexobj(part) else float) for part in _parts(value)]
    said = [
        f"{p[()]:.4g}" if p.shape == () else f"{'×'.join(map(str, p.shape))}, ‖{np.linalg.norm(p):.3g}‖" for p in parts
    ]
    return "; ".join(said)


def _parts(value: Any) -> list[Any]:
    parts = value if isinstance(value, tuple) else (value,)
    return [part for part in parts if part is not None and jnp.issubdtype(jnp.result_type(part), jnp.number)]


def _draw_edge(ax: Axes, edge: _Edge, stops: Sequence[tuple[float, float]], boxes: dict[str, Any], bend: float) -> None:
    """An arrow through its stops, with the local derivative beside its beginning."""
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
        ax.text(*middle, f"· {edge.slope:.4g}", **look, bbox=back, zorder=3)
