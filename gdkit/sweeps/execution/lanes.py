"""Lanes that can go on from where a sweep left them."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from gdkit.errors import bad_value
from gdkit.sweeps.plan.blocks import Block
from gdkit.sweeps.plan.shapes import Shape
from gdkit.sweeps.programs.groups import TracedGroup
from gdkit.sweeps.programs.job import HostLanes, Job, count_lane_bytes
from gdkit.sweeps.programs.packing import gather_lanes
from gdkit.sweeps.programs.tiles import FinishedBlock
from gdkit.sweeps.request import SweepRequest


class ResumableSweep(NamedTuple):
    """A finished sweep, and its lanes as they go on from its last step."""

    request: SweepRequest
    prepared: list[TracedGroup]
    shapes: list[Shape]  # one a group
    columns: Mapping[str, np.ndarray]  # what all lanes read so far
    parts: list[list[tuple[Block, Any]]] | None  # one a group: its blocks and their lanes, if in memory
    load: Callable[[Job], list[tuple[Block, Any]]] | None = None  # else where they are, if anywhere

    def going_on(self, job: Job) -> Iterator[Job]:
        """A job of its group from the last step on; blocks whose lanes are not there, from the first.

        Raises:
          InputValueError: no lanes were kept.
          StoreError: they cannot be read.
        """
        parts = self.parts[job.group] if self.parts is not None else self.load(job) if self.load is not None else None
        if parts is None:
            remedy = f"Run the sweep again with more steps; up to {KEPT_BYTES >> 20} MiB of lanes are kept"
            problem = "they were too large to be kept, or another process ran them"
            raise bad_value("result", "its lanes", problem, remedy)
        group = self.prepared[job.group]
        points, seeds = len(group.group.points), self.request.seeds
        at = group.number_lanes(Block(np.arange(points), np.arange(seeds)), seeds)
        curve = self.columns["curve_loss"][at.T] if "curve_loss" in self.columns else np.zeros((*at.T.shape, 0))
        there = np.zeros((points, seeds), bool)
        for block, _ in parts:
            there[np.ix_(*block)] = True
        is_there = [there[np.ix_(*block)].all() for block in job.blocks]
        known = [block for block, kept in zip(job.blocks, is_there, strict=True) if kept]
        lost = [block for block, kept in zip(job.blocks, is_there, strict=True) if not kept]
        if known:
            kept = HostLanes(gather_lanes(parts, points, seeds), curve)
            yield job._replace(blocks=known, first_step=self.request.steps, resumed=kept)
        if lost:
            yield job._replace(blocks=lost)


KEPT_BYTES = 2**28  # of lanes that a result keeps, so that they can go on


class LaneCollector:
    """Collects the lanes of a sweep at its last step, for as long as all of them are small enough to be kept."""

    def __init__(self, before: ResumableSweep | None, keeps: bool):
        self.parts: dict[int, list] = {
            number: list(parts) for number, parts in enumerate((before and before.parts) or ())
        }
        self.keeps, self.lanes, self._goes_on = keeps, 0, before is not None
        self._left = KEPT_BYTES

    def fits(self, job: Job) -> bool:
        """Whether the lanes of `job` are kept; if they are not, none are."""
        self._left -= count_lane_bytes(job)
        self.keeps = self.keeps and self._left >= 0
        return self.keeps

    def is_whole(self, request: SweepRequest) -> bool:
        """Whether the lanes of a sweep are all there."""
        return self.keeps and (self._goes_on or self.lanes == request.lane_count)

    def put(self, finished: FinishedBlock) -> None:
        """Keep the lanes of a block."""
        if self.keeps and finished.lanes is not None:
            self.parts.setdefault(finished.job.group, []).append((finished.block, finished.lanes))
            self.lanes += finished.block.lanes
