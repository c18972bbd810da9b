"""Several sweeps of one request's points as the sweep that has them all."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from gdkit.sweeps.axes import Axis, Dimension, Group, Section
from gdkit.sweeps.description import describe
from gdkit.sweeps.execution.lanes import ResumableSweep
from gdkit.sweeps.plan.blocks import Block
from gdkit.sweeps.plan.shapes import Shape
from gdkit.sweeps.programs.groups import TracedGroup, trace_groups
from gdkit.sweeps.request import SweepRequest
from gdkit.sweeps.result.assemble import assemble
from gdkit.sweeps.result.result import SweepResult


class PartialSweep(NamedTuple):
    """A sweep that has run, and which points of the whole its points are."""

    result: SweepResult
    kept: ResumableSweep | None
    points: np.ndarray  # (points,) int; several of one number hold the same


def merge_sweeps(wanted: SweepRequest, parts: Sequence[PartialSweep]) -> tuple[SweepResult, ResumableSweep | None]:
    """The result of `wanted`, every lane of which is in some part; its lanes, if those of all parts were kept."""
    columns: dict[str, np.ndarray] = {}
    for part in parts:
        rows = (part.points[:, None] * wanted.seeds + np.arange(wanted.seeds)).ravel()
        for name, values in part.result.lanes.data_vars.items():
            if name != "reference_loss":  # which all lanes have a say in
                held = columns.setdefault(str(name), np.empty((wanted.lane_count, *values.shape[1:]), values.dtype))
                held[rows] = values.values
    first = parts[0].result.lanes.attrs
    described = describe(
        wanted,
        stochastic=bool(first["stochastic"]),
        optimum_known="optimum" in columns,
        plan=json.loads(first["plan"]),
    )
    each = [json.loads(part.result.lanes.attrs["timings"]) for part in parts]
    result = assemble(described, columns, {name: sum(own[name] for own in each) for name in each[0]})
    return dataclasses.replace(result, thresholds=parts[0].result.thresholds), _kept(wanted, parts, columns)


def _kept(wanted: SweepRequest, parts: Sequence[PartialSweep], columns: dict[str, np.ndarray]) -> ResumableSweep | None:
    """The lanes of all parts, as those of `wanted`."""
    prepared = list(trace_groups(wanted))
    blocks: list[list[tuple[Block, Any]]] = [[] for _ in prepared]
    shapes: dict[int, Shape] = {}
    for kept, points in ((part.kept, part.points) for part in parts):
        if kept is None or kept.parts is None:
            return None
        for source, shape, own in zip(kept.prepared, kept.shapes, kept.parts, strict=True):
            for block, lanes in own:
                at = points[source.offset // wanted.seeds + source.group.points[block.points]]
                home = next(p for p in prepared if at[0] in p.offset // wanted.seeds + p.group.points)
                blocks[home.number].append((Block(_places(home, at, wanted.seeds), block.seeds), lanes))
                shapes.setdefault(home.number, shape)
    return ResumableSweep(wanted, prepared, [shapes[p.number] for p in prepared], columns, blocks)


def _places(home: TracedGroup, points: np.ndarray, seeds: int) -> np.ndarray:
    """Where points stand in their group."""
    own = home.offset // seeds + home.group.points
    order = np.argsort(own)
    return order[np.searchsorted(own, points, sorter=order)]


def filled(count: int, width: int) -> np.ndarray:
    """Places 0 to count − 1, the last repeated until they fill blocks of a width.

    >>> filled(3, 2).tolist()
    [0, 1, 2, 2]
    """
    return np.minimum(np.arange(math.ceil(count / width) * width), count - 1)


def alone(group: Group, which: np.ndarray) -> Section:
    """Some points of a group, by their places, as a section that the group's program serves."""
    axes = tuple(Axis(name, values[which], traced=True) for name, values in group.traced.items())
    return Section(group.section.label, group.section.optimizer, group.static, (Dimension("pair", axes),))


def of_shape(wanted: SweepRequest, section: Section, shape: Shape) -> SweepRequest:
    """The same request for another section, in blocks of a shape."""
    plan = dataclasses.replace(wanted.plan, width=shape.width, depth=shape.depth, unroll=shape.unroll)
    return wanted._replace(sections=(section,), plan=plan)


def same_static(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Whether static values are the same objects or equal ones."""
    return a.keys() == b.keys() and all(a[name] is b[name] or a[name] == b[name] for name in a)
