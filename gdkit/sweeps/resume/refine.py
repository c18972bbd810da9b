"""More points on an axis of a sweep that has run."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from gdkit import checks, factories
from gdkit.errors import bad_type, bad_value
from gdkit.sweeps.axes import Dimension, Section, group_points, is_log
from gdkit.sweeps.execution.lanes import ResumableSweep
from gdkit.sweeps.execution.progress import Progress
from gdkit.sweeps.result.result import SweepResult
from gdkit.sweeps.resume.merge import PartialSweep, alone, filled, merge_sweeps, of_shape, same_static

# Runs a checked request, from its start or from lanes that an earlier one left; `gdkit.sweeps.sweep.run_request`.
RunRequest = Callable[..., tuple[SweepResult, ResumableSweep | None]]


def refine(
    result: SweepResult,
    kept: ResumableSweep,
    axis: str,
    around: Any,
    count: int,
    tell: Callable[[Progress], None] | None,
    run: RunRequest,
) -> tuple[SweepResult, ResumableSweep | None]:
    """The sweep with more values of `axis`; what `SweepResult.refine` does."""
    checks.check_integer("count", count)
    widened, old, offset = [], [], 0
    for section in kept.request.sections:
        one = result.select(optimizer=section.label) if section.label is not None else result
        home = next((d for d in section.dimensions for own in d.axes if own.name == axis), None)
        new, mine = (
            _widened(section, home, one, axis, around, count) if home else (section, np.arange(section.point_count))
        )
        widened.append(new)
        old.append(offset + mine)
        offset += new.point_count
    wanted = kept.request._replace(sections=tuple(widened))
    parts = [PartialSweep(result, kept, np.concatenate(old))]
    missing = np.setdiff1d(np.arange(offset), parts[0].points)
    offset = 0
    for section in widened:
        for group in group_points(section):
            which = np.flatnonzero(np.isin(offset + group.points, missing))
            if which.size:
                shape = next(
                    shape
                    for before, shape in zip(kept.prepared, kept.shapes, strict=True)
                    if before.group.section.label == section.label and same_static(before.group.static, group.static)
                )
                which = which[filled(len(which), shape.width)]  # whole blocks, so that the program is the one there is
                more = run(of_shape(wanted, alone(group, which), shape), tell)
                parts.append(PartialSweep(*more, offset + group.points[which]))
        offset += section.point_count
    return merge_sweeps(wanted, parts)


def _widened(
    section: Section, home: Dimension, one: SweepResult, axis: str, around: Any, count: int
) -> tuple[Section, np.ndarray]:
    """A section with more values of an axis, and which of its points those of the old one are, (points,)."""
    own = next(a for a in home.axes if a.name == axis)
    if not own.traced:
        raise bad_value("axis", axis, "its values are static, one program each", "Sweep again with more of them")
    values = np.asarray(own.values, float)
    extra = np.unique(_values(one, axis, around, count))
    extra = extra[~np.isclose(extra[:, None], values, rtol=1e-6, atol=0.0).any(axis=1)]
    if not extra.size:
        raise bad_value("around", around, "every value there has been run", "Pass a larger count")
    if len(home.axes) == 1:
        union = np.union1d(values, extra)
        moved = np.searchsorted(union, values)
        axes = (dataclasses.replace(own, values=union),)
    else:  # paired with others, which stay as at the best point
        moved = np.arange(home.size)
        at = _best_pair(one, home)
        repeated = np.append(moved, np.full(len(extra), at))
        axes = tuple(
            dataclasses.replace(a, values=_append(a.values, extra) if a.name == axis else _take(a.values, repeated))
            for a in home.axes
        )
    dimensions = tuple(dataclasses.replace(d, axes=axes) if d is home else d for d in section.dimensions)
    new = dataclasses.replace(section, dimensions=dimensions)
    index = list(np.indices(section.shape).reshape(len(section.shape), section.point_count))
    place = section.dimensions.index(home)
    index[place] = moved[index[place]]
    return new, np.ravel_multi_index(tuple(index), new.shape)


def _append(values: Any, extra: np.ndarray) -> np.ndarray:
    return np.append(np.asarray(values, float), extra)


def _take(values: Any, places: np.ndarray) -> Any:
    return values[places] if isinstance(values, np.ndarray) else tuple(values[i] for i in places)


def _best_pair(one: SweepResult, home: Dimension) -> int:
    """Which of the paired values the best point has."""
    best = one.best().lanes
    same = [np.asarray(a.labels) == best[a.name].values[0] for a in home.axes]
    return int(np.flatnonzero(np.all(same, axis=0))[0])


def _values(one: SweepResult, axis: str, around: Any, count: int) -> np.ndarray:
    """The values to add, some of which may be there already."""
    values = np.unique(one.lanes[axis].values.astype(float))
    spaced = np.geomspace if is_log(values) else np.linspace
    if around == "best":
        return _around_best(values, float(one.best().lanes[axis].values[0]), count, spaced)
    if around == "edge":
        return spaced(*_edge_bracket(one.along(axis).edge(axis)), count + 2)[1:-1]
    if not isinstance(around, tuple) or len(around) != 2 or not all(map(factories.is_number, around)):
        raise bad_type("around", around, "not a place on the axis", "Pass 'best', 'edge' or (low, high)")
    if not 0 < around[0] < around[1] < np.inf:
        raise bad_value("around", around, "not two values 0 < low < high", "Pass (low, high)")
    return spaced(*around, count)


def _edge_bracket(found: Any) -> tuple[float, float]:
    """Between which values divergence begins, for all seeds whose edge lies on the axis.

    Raises:
      InputValueError: it does for none.
    """
    low, high = found["low"].values, found["high"].values  # (seeds,)
    there = (low > 0) & np.isfinite(high)
    if not there.any():
        why = "it diverged at the smallest value" if np.isfinite(high).any() else "no seed diverged"
        raise bad_value("around", "edge", f"{why}, so the edge is not on the axis", "Pass (low, high)")
    return float(low[there].min()), float(high[there].max())


def _around_best(values: np.ndarray, best: float, count: int, spaced: Callable[..., np.ndarray]) -> np.ndarray:
    """Values between the neighbours of the best; at an end of the axis, as far beyond it."""
    place = int(np.searchsorted(values, best))
    if len(values) < 2:
        raise bad_value("around", "best", "the axis has one value, which has no neighbours", "Pass (low, high)")
    mirrored = (lambda x: best * best / x) if spaced is np.geomspace else (lambda x: max(2 * best - x, 0.0))
    low = values[place - 1] if place else mirrored(values[1])
    high = values[place + 1] if place + 1 < len(values) else mirrored(values[-2])
    left = spaced(low, best, (count + 1) // 2 + 2)[1:-1]
    return np.concatenate([left, spaced(best, high, count // 2 + 2)[1:-1]])
