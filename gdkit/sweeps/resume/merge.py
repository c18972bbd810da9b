"""Merge sweeps of parts of a request into the sweep of all its points."""

import dataclasses
import json
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from gdkit.sweeps.description import describe
from gdkit.sweeps.execution.lanes import ResumableSweep
from gdkit.sweeps.plan.blocks import Block
from gdkit.sweeps.plan.shapes import Shape
from gdkit.sweeps.programs.groups import TracedGroup, trace_groups
from gdkit.sweeps.request import SweepRequest
from gdkit.sweeps.result.assemble import assemble, merge_columns
from gdkit.sweeps.result.result import SweepResult
from gdkit.sweeps.rundir.states import MergedStates
from gdkit.sweeps.scoring.direction import maximized_names


class PartialSweep(NamedTuple):
    """A finished sweep of some points of a larger request."""

    result: SweepResult
    lanes: ResumableSweep | None
    points: np.ndarray  # (points,) int, their places in the larger request; where one repeats, its lanes are the same


def merge_sweeps(request: SweepRequest, parts: Sequence[PartialSweep]) -> tuple[SweepResult, ResumableSweep | None]:
    """The result of `request`, whose points are all in some part, and its lanes if all parts have theirs."""
    first = parts[0].result.lanes
    described = describe(
        request,
        stochastic=bool(first.attrs["stochastic"]),
        optimum_known="optimum" in first,
        maximized=maximized_names(first.attrs),
        plan=json.loads(first.attrs["plan"]),
        validation_rows=int(first.attrs.get("validation_rows", 0)),
    )
    columns = merge_columns(described, [(_reported_columns(part.result), part.points) for part in parts])
    timings = [json.loads(part.result.lanes.attrs["timings"]) for part in parts]
    total = {name: sum(own[name] for own in timings) for name in timings[0]}
    result = dataclasses.replace(assemble(described, columns, total), thresholds=parts[0].result.thresholds)
    return result, _merge_lanes(request, parts, columns)


def pad_places(count: int, width: int) -> np.ndarray:
    """Places 0 to count − 1, the last repeated to fill whole blocks of `width`.

    >>> pad_places(3, 2).tolist()
    [0, 1, 2, 2]
    """
    return np.minimum(np.arange(math.ceil(count / width) * width), count - 1)


def _reported_columns(result: SweepResult) -> dict[str, np.ndarray]:
    """All columns but the reference loss, which depends on the lanes of all parts; `assemble` computes it."""
    return {str(name): v.values for name, v in result.lanes.data_vars.items() if name != "reference_loss"}


def _merge_lanes(
    request: SweepRequest, parts: Sequence[PartialSweep], columns: dict[str, np.ndarray]
) -> ResumableSweep | None:
    """The lanes of all parts as those of `request`; of parts whose lanes are not in memory, the stored ones."""
    groups = list(trace_groups(request))
    blocks: list[list[tuple[Block, Any]]] = [[] for _ in groups]
    shapes: dict[int, Shape] = {}
    for part in parts:
        if part.lanes is None:
            return None
        in_memory = part.lanes.parts or [[] for _ in part.lanes.groups]
        for source, shape, own in zip(part.lanes.groups, part.lanes.shapes, in_memory, strict=True):
            numbers = part.points[source.number_points(request.seeds)]
            home = next(g for g in groups if numbers[0] in g.number_points(request.seeds))
            shapes.setdefault(home.number, shape)
            for block, lanes in own:
                places = _find_places(home, numbers[block.points], request.seeds)
                blocks[home.number].append((Block(places, block.seeds), lanes))
    ordered = [shapes[group.number] for group in groups]
    if all(part.lanes.parts is not None for part in parts if part.lanes):
        return ResumableSweep(request, groups, ordered, columns, blocks)
    stored = [part.lanes.states for part in parts if part.lanes and part.lanes.states]
    if len(stored) < len(parts):
        return None
    states = MergedStates.merge(stored, [part.points for part in parts], request.seeds)
    return ResumableSweep(request, groups, ordered, columns, None, states=states)


def _find_places(group: TracedGroup, points: np.ndarray, seeds: int) -> np.ndarray:
    """The places in a group of points that are numbered over the whole sweep."""
    numbers = group.number_points(seeds)
    order = np.argsort(numbers)
    return order[np.searchsorted(numbers, points, sorter=order)]
