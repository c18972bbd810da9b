"""How a sweep is executed, apart from its plan: limits, intervals, and the functions that tests replace."""

from collections.abc import Callable
from typing import NamedTuple

from gdkit.store import Store
from gdkit.sweeps.execution.block import DEFAULT_SEGMENTS, SegmentSettings, run_block
from gdkit.sweeps.execution.executors import LARGE_BYTES
from gdkit.sweeps.execution.lanes import LANE_BYTES
from gdkit.sweeps.programs import timing
from gdkit.sweeps.programs.groups import build_job
from gdkit.sweeps.programs.job import Job
from gdkit.sweeps.programs.tiles import FinishedBlock
from gdkit.sweeps.rundir.manifest import STORED_LANE_BYTES

try:
    from cloudpickle import dumps  # by value: functions of a notebook, or defined within others
except ImportError:
    from pickle import dumps  # by reference alone


class ExecutionSettings(NamedTuple):
    """Settings of `run_request`; none of them changes what a sweep computes."""

    segments: SegmentSettings = DEFAULT_SEGMENTS
    build_job: Callable[..., Job] = build_job
    run_block: Callable[..., FinishedBlock | None] = run_block
    store_class: type[Store] = Store
    planner: timing.PlannerSettings = timing.DEFAULT_PLANNER
    seconds_per_lane_step: Callable[[Job, int], float] = timing.measure_pace  # pace of a job with a number of workers
    dumps: Callable[..., bytes] = dumps  # pickles a sweep for other processes
    progress_seconds: float = 0.1  # least interval between two reports of progress
    claim_poll_seconds: float = 1.0  # interval at which tiles of other processes are checked
    lane_bytes: int = LANE_BYTES  # most bytes of lanes at their last step that a result keeps in memory
    stored_lane_bytes: int = STORED_LANE_BYTES  # most bytes of such lanes that a run directory stores
    large_request_bytes: int = LARGE_BYTES  # a larger request is read from a file by processes of this machine


DEFAULT_SETTINGS = ExecutionSettings()
