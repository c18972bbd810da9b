"""The columns of a sweep in memory, where it has no run directory."""

from collections.abc import Sequence

import numpy as np

from gdkit.descent.evaluation import is_along
from gdkit.sweeps.execution.evaluations import lengthen_evaluations
from gdkit.sweeps.execution.lanes import BlockLanes, ResumableSweep
from gdkit.sweeps.programs.groups import TracedGroup
from gdkit.sweeps.programs.job import Job
from gdkit.sweeps.programs.tiles import FinishedBlock, Tile, cut_tiles, extract_rows
from gdkit.sweeps.request import SweepRequest


class MemoryColumns:
    """The values that lanes report, name -> ``(lanes, ...)``, filled block by block."""

    archive, states, lanes_done, stores_lanes = None, None, 0, False

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
        where = slice(numbers[0], numbers[-1] + 1) if np.all(np.diff(numbers) == 1) else numbers
        for name, value in rows.items():
            if name not in self._columns:  # every lane is written
                self._columns[name] = np.empty((self._request.lane_count, *value.shape[1:]), value.dtype)
            self._columns[name][where] = value

    def columns(self) -> dict[str, np.ndarray]:
        """The columns."""
        return self._columns

    def load(self, job: Job) -> list[BlockLanes]:
        """Return no lanes: a `LaneCollector` holds them."""
        return []

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
