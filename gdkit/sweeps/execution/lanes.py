"""What a sweep has in memory: the columns of its lanes, and lanes at the last step, from which a longer one resumes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from gdkit.descent.evaluation import is_along
from gdkit.errors import bad_value
from gdkit.sweeps.execution.evaluations import lengthen_evaluations
from gdkit.sweeps.plan.blocks import Block
from gdkit.sweeps.plan.shapes import Shape
from gdkit.sweeps.programs.groups import TracedGroup
from gdkit.sweeps.programs.job import HostLanes, Job, count_lane_bytes
from gdkit.sweeps.programs.packing import Packed, gather_lanes
from gdkit.sweeps.programs.tiles import FinishedBlock, Tile, cut_tiles, extract_rows
from gdkit.sweeps.request import SweepRequest
from gdkit.sweeps.rundir.states import MergedStates, StoredStates

BlockLanes = tuple[Block, Packed]  # the lanes of a block at their last step
LANE_BYTES = 2**28  # most bytes of lanes that a result keeps in memory


class ResumableSweep(NamedTuple):
    """A finished sweep, and its lanes at the last step."""

    request: SweepRequest
    groups: list[TracedGroup]
    shapes: list[Shape]  # one per group
    columns: Mapping[str, np.ndarray]  # name -> (lanes, ...), the values that all lanes report
    parts: list[list[BlockLanes]] | None  # one per group; None where memory does not hold the lanes
    load: Callable[[Job], list[BlockLanes]] | None = None  # reads the lanes from a run directory that stores them
    states: StoredStates | MergedStates | None = None  # states in the run directory, or in those of its parts
    check: Callable[[], None] = lambda: None  # raises if the request computes something else than the run on disk

    def resume(self, job: Job) -> Iterator[Job]:
        """The job of a longer sweep from the last step of this one; blocks whose lanes are missing, from step 0.

        Raises:
          InputValueError: the lanes were not kept.
          StoreError: they cannot be read.
        """
        wanted = {point for block in job.blocks for point in block.points.tolist()}
        lanes = [part for part in self._block_lanes(job) if not wanted.isdisjoint(part[0].points.tolist())]
        group, seeds = self.groups[job.group], self.request.seeds
        points = len(group.group.points)
        rows = group.number_lanes(Block(np.arange(points), np.arange(seeds)), seeds).T
        curve = self.columns["curve_loss"][rows] if "curve_loss" in self.columns else np.zeros((*rows.shape, 0))
        is_held = np.zeros((points, seeds), bool)
        for block, _ in lanes:
            is_held[np.ix_(*block)] = True
        held = [block for block in job.blocks if is_held[np.ix_(*block)].all()]
        missing = [block for block in job.blocks if not is_held[np.ix_(*block)].all()]
        if held:
            evaluations = {name: self.columns[name][rows] for name in job.evaluated}
            kept = HostLanes(gather_lanes(lanes, points, seeds), curve, evaluations)
            yield job._replace(blocks=held, first_step=self.request.steps, resumed=kept)
        if missing:
            yield job._replace(blocks=missing)

    def find_block(self, group: int, place: int, seed: int) -> BlockLanes | None:
        """The block in memory that has a lane, by the place of its point in a group; None if none is kept."""
        blocks = self.parts[group] if self.parts is not None else []
        return next((own for own in reversed(blocks) if place in own[0].points and seed in own[0].seeds), None)

    def _block_lanes(self, job: Job) -> list[BlockLanes]:
        if self.parts is not None:
            return self.parts[job.group]
        if self.load is not None:
            return self.load(job)
        remedy = f"Run the sweep again with more steps; up to {LANE_BYTES >> 20} MiB of lanes are kept"
        problem = "they were too large to be kept, or another process ran them"
        if self.request.keep_states is None:
            problem, remedy = "the sweep kept none (keep_states=None)", 'Run it with keep_states="auto"'
        raise bad_value("result", "its lanes", problem, remedy)


class LaneCollector:
    """Collects the lanes of a sweep at its last step, as long as all of them fit in `most_bytes`."""

    def __init__(self, resumed: ResumableSweep | None, *, is_on: bool, most_bytes: int):
        earlier = resumed.parts if resumed is not None and resumed.parts is not None else []
        self.parts: dict[int, list[BlockLanes]] = {number: list(parts) for number, parts in enumerate(earlier)}
        self._is_on, self._bytes_left = is_on, most_bytes
        self._resumes, self._lanes = resumed is not None, 0

    def reserve(self, job: Job) -> bool:
        """Reserve memory for the lanes of a job; if there is too little, no lanes are collected at all."""
        self._bytes_left -= count_lane_bytes(job)
        self._is_on = self._is_on and self._bytes_left >= 0
        return self._is_on

    def add(self, finished: FinishedBlock) -> None:
        """Collect the lanes of a block."""
        if self._is_on and finished.lanes is not None:
            self.parts.setdefault(finished.job.group, []).append((finished.block, finished.lanes))
            self._lanes += finished.block.lanes

    def is_complete(self, request: SweepRequest) -> bool:
        """Whether the lanes of the whole sweep were collected."""
        return self._is_on and (self._resumes or self._lanes == request.lane_count)


class MemoryColumns:
    """The values that lanes report, name -> ``(lanes, ...)``, filled block by block."""

    archive, states, load, lanes_done, stores_lanes = None, None, None, 0, False

    def __init__(self, request: SweepRequest, groups: Sequence[TracedGroup], resumed: ResumableSweep | None):
        self._request, self._groups = request, groups
        self._columns = _copy_columns(resumed, request) if resumed else {}

    def cut_tiles(self, job: Job) -> list[Tile]:
        """The tiles of a job."""
        return cut_tiles(job, self._request.plan.tile or 1)

    def add(self, finished: FinishedBlock) -> None:
        """Write the rows of a block."""
        rows = extract_rows(finished.block, finished.output, self._request.recorded_points)
        numbers = self._groups[finished.job.group].number_rows(finished.block, self._request.seeds)
        where = slice(numbers[0], numbers[-1] + 1) if (numbers[1:] - numbers[:-1] == 1).all() else numbers
        for name, value in rows.items():
            if name not in self._columns:  # every lane is written
                self._columns[name] = np.empty((self._request.lane_count, *value.shape[1:]), value.dtype)
            self._columns[name][where] = value

    def columns(self) -> dict[str, np.ndarray]:
        """The columns."""
        return self._columns

    def close(self) -> None:
        """Do nothing: no file is open."""


def _copy_columns(resumed: ResumableSweep, request: SweepRequest) -> dict[str, np.ndarray]:
    """A copy of the columns, with the recorded steps and the evaluations of a longer sweep."""
    copied = {name: column.copy() for name, column in resumed.columns.items()}
    for name, curves in copied.items():
        if name.startswith("curve_"):
            longer = np.full((len(curves), request.recorded_points - curves.shape[1]), np.nan, curves.dtype)
            copied[name] = np.concatenate([curves, longer], axis=1)
    names = [name for name in copied if is_along(name) and copied[name].ndim == 2] if request.evaluate_every else []
    return copied | lengthen_evaluations(copied, names, resumed.request.steps, request.evaluation_steps)
