"""Running the lanes of a result again, or for more steps."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import xarray as xr

from gdkit import checks
from gdkit.errors import bad_value
from gdkit.formatting import format_number, html, text_table
from gdkit.sweeps.result.arguments import check_finished, check_lane
from gdkit.sweeps.result.arrays import is_of_arrays
from gdkit.sweeps.result.explanation import Explanation
from gdkit.sweeps.result.recommend import Recommendation
from gdkit.sweeps.scoring.judging import judge_lanes
from gdkit.sweeps.scoring.lane_values import SweepLike
from gdkit.sweeps.scoring.scores import Best
from gdkit.types import State

_Result = TypeVar("_Result")


class Refinement(NamedTuple):
    """The values that `SweepResult.refine` adds to an axis."""

    axis: str
    around: str | tuple[float, float]
    count: int
    by: str | None = None  # the variable that points are compared by
    maximize: bool | None = None


class Replay(NamedTuple):
    """A lane that was run again; prints as a table."""

    lane: int
    onset: int  # the step at which its regime began, or its last
    watched: dict[str, np.ndarray]  # step, loss, and norm and update of each leaf of the params; (watched steps,)
    same: bool  # whether it ended with the same bits as before

    def __str__(self) -> str:
        rows = [[format_number(value) for value in row] for row in zip(*self.watched.values(), strict=True)]
        ending = "The end is the same, bit for bit." if self.same else "The end differs from that of the sweep."
        return f"{text_table(list(self.watched), rows)}\n{ending}"

    _repr_html_ = html.preformat


class LaneStates(Protocol):
    """Returns the state of a lane, at its end or at the step of an evaluation."""

    def __call__(self, lane: int, step: int | None = None) -> State: ...


class Resumable(Protocol[_Result]):
    """Continues a sweep whose problem and optimizer are known; implemented in `gdkit.sweeps.resume`."""

    def extend(self, steps: int, *, progress: Callable[[Any], None] | None = None) -> _Result:
        """The sweep with `steps` steps in total."""

    def refine(self, result: _Result, refinement: Refinement, progress: Callable[[Any], None] | None = None) -> _Result:
        """The sweep with more values of an axis."""

    def replay(self, lane: int, onset: int, around: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """What a lane does around the step `onset`, step by step, and all columns that it reports at its end."""

    def explain(self, result: _Result, lane: int, *, points: int, flow_steps: int) -> Explanation:
        """Why a lane ended as it did."""


class ResumableResult(SweepLike, Protocol):
    """The views of a `SweepResult` that running its lanes again rests on."""

    @property
    def origin(self) -> Resumable[Any] | None: ...
    @property
    def lanes(self) -> xr.Dataset: ...
    def best(self) -> Best: ...
    def recommend(self) -> Recommendation: ...


def check_resumable(origin: Resumable[_Result] | None, lanes: xr.Dataset) -> Resumable[_Result]:
    """The origin of a result with these lanes; raises if it has none."""
    if origin is None and is_of_arrays(lanes):
        remedy = "Call sweep_function again with more steps or other values, or pass what was trained to from_arrays"
        raise bad_value("result", "its lanes", "they come from a function or from arrays, and have no step map", remedy)
    if origin is None:
        remedy = "Use the whole result of a sweep; open one from disk by gdkit.open(path, problem=..., optimizer=...)"
        raise bad_value("result", "its lanes", "its problem and optimizer are not known", remedy)
    return origin


def replay(result: ResumableResult, lane: int, *, around: int = 5) -> Replay:
    """Run one lane again and record it step by step around the onset of its regime, or its end.

    Args:
      lane: its place on ``lane``.
      around: steps to either side of the onset.

    Raises:
      InputValueError: no such lane, or a result that cannot be resumed, as in `extend`.
    """
    lane = check_lane(result, lane)
    checks.check_integer("around", around)
    onsets = judge_lanes(result.lanes, result.thresholds).onset if result.has_all_statistics else -1
    onset = int(np.broadcast_to(onsets, result.lanes.sizes["lane"])[lane])
    onset = onset if onset >= 0 else int(result.lanes["end_step"].values[lane])
    watched, end = check_resumable(result.origin, result.lanes).replay(lane, onset, around)
    row = result.lanes.isel(lane=lane)
    same = all(_is_same(row[name].values, value) for name, value in end.items() if name in row)
    return Replay(lane, onset, watched, same)


def _is_same(stored: np.ndarray, value: np.ndarray) -> bool:
    """Whether a result stores `value`: dtypes unknown to NumPy as float32, and curves up to the last step."""
    plain = value.astype(np.float32) if value.dtype.kind == "V" else value
    return np.array_equal(stored, plain[: len(stored)] if stored.ndim else plain, equal_nan=plain.dtype.kind == "f")


def explain(
    result: ResumableResult, lane: int | None = None, *, points: int = 50, flow_steps: int = 100
) -> Explanation:
    """Why a lane ended as it did: its curvature along the run, beside the runs around where divergence begins.

    The lane, and those of its seed just below and just above the first divergence along `main_axis`, are run again
    one by one, with the sharpness on all data at `points` steps and the curvature at which this optimizer's steps
    become unstable, found from its own update. Runs on minibatches have their batch sharpness too. On all data,
    where it is known, the central flow is followed for `flow_steps` steps from where the run nears the edge of
    stability, and its mean loss compared with that of the run. The answer prints as a paragraph and a table;
    `plots.curvature` and `plots.flow` draw its runs, and ``gdkit explain`` writes a page.

    Args:
      lane: its place on ``lane``; by default the first seed of the recommended point.
      points: measurements per run, each of at most 20 Hessian-vector products.
      flow_steps: steps of the central flow, 0 for none; each takes about as long as a hundred steps of the run.

    Raises:
      InputValueError, InputTypeError: no such lane, or it has not finished; `points` or `flow_steps` is out of
        range; the lane is that of a Learner; a result that cannot be resumed, as in `extend`.

    >>> from gdkit import problems, sgd, sweep
    >>> result = sweep(problems.parabola(), sgd, {"learning_rate": [0.2, 0.9, 1.1]}, steps=20)
    >>> [run.ratio[0].round(2).item() for run in result.explain(0, flow_steps=0).runs]  # sharpness over 2/η
    [0.2, 0.9, 1.1]
    """
    if lane is None:
        check_finished(result)
        lanes = result.recommend().lanes or result.best().lane_numbers
        lane = lanes[0]
    lane = check_lane(result, lane)
    if not result.finished[lane]:
        raise bad_value("lane", lane, "it has not finished", "Resume the sweep first")
    return check_resumable(result.origin, result.lanes).explain(result, lane, points=points, flow_steps=flow_steps)
