"""Add values to an axis of a finished sweep."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import xarray as xr

from gdkit import checks
from gdkit.errors import bad_value, unknown_name
from gdkit.sweeps.axes import Axis, Dimension, Group, Section, group_points, is_log, renumber_points
from gdkit.sweeps.execution.lanes import ResumableSweep
from gdkit.sweeps.plan.shapes import Shape
from gdkit.sweeps.request import SweepRequest
from gdkit.sweeps.result.result import SweepResult
from gdkit.sweeps.result.resumable import Refinement
from gdkit.sweeps.resume.merge import PartialSweep, merge_sweeps, pad_places

# Runs a checked request, from its start or from the last step of earlier lanes: `gdkit.sweeps.sweep.run_request`.
RunRequest = Callable[..., tuple[SweepResult, ResumableSweep | None]]


def refine(
    result: SweepResult, lanes: ResumableSweep, refinement: Refinement, run: RunRequest
) -> tuple[SweepResult, ResumableSweep | None]:
    """The sweep with more values of an axis; see `SweepResult.refine`."""
    checks.check_integer("count", refinement.count)
    sections, old, offset = [], [], 0
    for section in lanes.request.sections:
        one = result.select(optimizer=section.label) if section.label is not None else result
        home = next((d for d in section.dimensions for own in d.axes if own.name == refinement.axis), None)
        new, places = section, np.arange(section.point_count)
        if home is not None:
            new, places = _extend_section(section, home, one, refinement)
        sections.append(new)
        old.append(offset + places)
        offset += new.point_count
    request = lanes.request._replace(sections=tuple(sections))
    parts = [PartialSweep(result, lanes, np.concatenate(old))]
    missing = np.setdiff1d(np.arange(offset), parts[0].points)
    offset = 0
    for section in sections:
        for group in group_points(section):
            which = np.flatnonzero(np.isin(offset + group.points, missing))
            if which.size:
                shape = _find_shape(lanes, group)
                which = which[pad_places(len(which), shape.width)]  # to fill whole blocks of the compiled program
                more = run(_replace_section(request, _cut_section(group, which), shape))
                parts.append(PartialSweep(*more, offset + group.points[which]))
        offset += section.point_count
    return merge_sweeps(request, parts)


def _find_shape(lanes: ResumableSweep, group: Group) -> Shape:
    """The shape of the blocks in which the points of this program ran."""
    return next(
        shape
        for before, shape in zip(lanes.groups, lanes.shapes, strict=True)
        if before.group.section.label == group.section.label and _has_same_static(before.group.static, group.static)
    )


def _cut_section(group: Group, places: np.ndarray) -> Section:
    """Some points of a group as a section that the same program serves."""
    axes = tuple(Axis(name, values[places], traced=True) for name, values in group.traced.items())
    return Section(group.section.label, group.section.optimizer, group.static, (Dimension("pair", axes),))


def _replace_section(request: SweepRequest, section: Section, shape: Shape) -> SweepRequest:
    """The request with `section` as its only one, in blocks of `shape`."""
    plan = dataclasses.replace(request.plan, **shape._asdict() | {"chunk": shape.chunk or None})
    return request._replace(sections=(section,), plan=plan)


def _has_same_static(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Whether two groups have the same static values: the same objects, or equal ones."""
    return a.keys() == b.keys() and all(a[name] is b[name] or a[name] == b[name] for name in a)


def _extend_section(
    section: Section, home: Dimension, one: SweepResult, refinement: Refinement
) -> tuple[Section, np.ndarray]:
    """A section with more values of an axis, and the places that its earlier points have there, (points,)."""
    own = next(a for a in home.axes if a.name == refinement.axis)
    if not own.traced:
        raise bad_value(
            "axis", refinement.axis, "its values are static, one program each", "Sweep again with more of them"
        )
    values = np.asarray(own.values, float)
    extra = np.unique(_choose_values(one, refinement))
    extra = extra[~np.isclose(extra[:, None], values, rtol=1e-6, atol=0.0).any(axis=1)]
    if not extra.size:
        raise bad_value("around", refinement.around, "every value there has been run", "Pass a larger count")
    if len(home.axes) == 1:
        union = np.union1d(values, extra)
        places = np.searchsorted(union, values)
        axes = (dataclasses.replace(own, values=union),)
    else:  # axes paired with this one keep the values of the best point
        places = np.arange(home.size)
        repeated = np.append(places, np.full(len(extra), _best_place(_find_best(one, refinement), home)))
        axes = tuple(
            dataclasses.replace(a, values=np.append(values, extra) if a is own else _take(a.values, repeated))
            for a in home.axes
        )
    dimensions = tuple(dataclasses.replace(d, axes=axes) if d is home else d for d in section.dimensions)
    new = dataclasses.replace(section, dimensions=dimensions)
    number = section.dimensions.index(home)
    return new, renumber_points(section.shape, number, places, new.shape[number])


def _take(values: np.ndarray | tuple[Any, ...], places: np.ndarray) -> np.ndarray | tuple[Any, ...]:
    return values[places] if isinstance(values, np.ndarray) else tuple(values[i] for i in places)


def _best_place(best: xr.Dataset, home: Dimension) -> int:
    """The place of the best point along a dimension of paired axes."""
    is_best = [np.asarray(a.labels) == best[a.name].values[0] for a in home.axes]
    return int(np.flatnonzero(np.all(is_best, axis=0))[0])


def _find_best(one: SweepResult, refinement: Refinement) -> xr.Dataset:
    """The lanes of the best point."""
    return one.best(refinement.by, maximize=refinement.maximize).lanes


def _choose_values(one: SweepResult, refinement: Refinement) -> np.ndarray:
    """The values to add; some of them may have been run already."""
    axis, around, count, *_ = refinement
    values = np.unique(one.lanes[axis].values.astype(float))
    space = np.geomspace if is_log(values) else np.linspace
    if around == "best":
        return _values_around(values, float(_find_best(one, refinement)[axis].values[0]), count, space)
    if around == "edge":
        return space(*_edge_bracket(one.along(axis).edge(axis)), count + 2)[1:-1]
    if isinstance(around, str):
        raise unknown_name("around", around, ("best", "edge"))
    return space(*checks.as_bounds("around", around, above=0), count)


def _edge_bracket(edges: xr.Dataset) -> tuple[float, float]:
    """The bracket of the edges of all seeds, of those seeds whose edge lies on the axis.

    Raises:
      InputValueError: it lies there for no seed.
    """
    low, high = edges["low"].values, edges["high"].values  # (seeds,)
    on_axis = (low > 0) & np.isfinite(high)
    if not on_axis.any():
        why = "it diverged at the smallest value" if np.isfinite(high).any() else "no seed diverged"
        raise bad_value("around", "edge", f"{why}, so the edge is not on the axis", "Pass (low, high)")
    return float(low[on_axis].min()), float(high[on_axis].max())


def _values_around(values: np.ndarray, best: float, count: int, space: Callable[..., np.ndarray]) -> np.ndarray:
    """Values between the neighbors of the best; at an end of the axis, as far beyond it."""
    place = int(np.searchsorted(values, best))
    if len(values) < 2:
        raise bad_value("around", "best", "the axis has one value, which has no neighbors", "Pass (low, high)")
    mirror = (lambda x: best * best / x) if space is np.geomspace else (lambda x: max(2 * best - x, 0.0))
    low = values[place - 1] if place else mirror(values[1])
    high = values[place + 1] if place + 1 < len(values) else mirror(values[-2])
    left = space(low, best, (count + 1) // 2 + 2)[1:-1]
    return np.concatenate([left, space(best, high, count // 2 + 2)[1:-1]])
