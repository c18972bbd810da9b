"""Run lanes again with their curvature, and compare them with the central flow."""

import dataclasses
import functools
import itertools
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

import jax
import numpy as np

from gdkit import binding, checks, descent
from gdkit.descent import Trajectory
from gdkit.errors import GdkitError, GdkitWarning, bad_type
from gdkit.problems import Learner, Problem, ProblemLike
from gdkit.regimes import Regime
from gdkit.stability import (
    batch_sharpness_every,
    central_flow,
    preconditioned_sharpness_every,
    sharpness,
    sharpness_every,
)
from gdkit.stability.edges import find_edge, is_adaptive
from gdkit.sweeps.result.explanation import (
    ExplainedRun,
    Explanation,
    FlowPart,
    choose_lanes,
    count_outliers,
    describe_lane,
)
from gdkit.sweeps.scoring.lane_values import SweepLike
from gdkit.types import Key, Monitor, OptimizerLike, State

_EIGENVALUES = 12  # number of eigenvalues at the end
_NEAR_EDGE = 0.9  # share of the edge at which the comparison with the central flow begins
_DIRECTIONS, _SUBSTEPS = 3, 2  # settings of the central flow
_FLOW_POINTS = 20


class LaneArguments(NamedTuple):
    """The arguments with which `descend` runs one lane."""

    problem: ProblemLike
    optimizer: OptimizerLike
    hyperparameters: dict[str, Any]
    key: Key
    seed: int
    start: State | None


def explain(
    result: SweepLike,
    lane: int,
    steps: int,
    arguments_of: Callable[[int], LaneArguments],
    *,
    points: int,
    flow_steps: int,
) -> Explanation:
    """Why a lane ended as it did; `arguments_of` returns the arguments of a lane.

    Raises:
      InputTypeError, InputValueError: `points` or `flow_steps` is not an integer in range; the lane is a Learner's.
    """
    checks.check_integer("points", points)
    checks.check_integer("flow_steps", flow_steps, at_least=0)
    arguments = arguments_of(lane)
    if isinstance(arguments.problem, Learner):
        raise bad_type("problem", arguments.problem, "a Learner has no loss with a curvature", "Sweep a Problem")
    axis, places = choose_lanes(result, lane)
    recorder = _make_recorder(arguments, steps, -(-steps // points))
    runs, notes, eigenvalues = [], [], np.zeros(0)
    for number, place in places.items():
        own = arguments if number == lane else arguments_of(number)
        run, end = recorder.run(own, result, number, place, axis)
        flow, note = _compare_flow(own, run, flow_steps) if flow_steps else (None, "")
        runs.append(run._replace(flow=flow))
        notes.append(note)
        if number == lane:
            eigenvalues = _find_eigenvalues(own, end)
    note = notes[0] if all(run.flow is None for run in runs) else ""
    return Explanation(axis, tuple(runs), eigenvalues, count_outliers(eigenvalues), recorder.is_preconditioned, note)


class _Recorder(NamedTuple):
    """Records the runs of lanes with one problem and one optimizer, by one compiled program."""

    steps: int
    at: np.ndarray  # (points,) the steps of measurements
    monitors: tuple[Monitor, ...]
    is_preconditioned: bool
    has_minibatches: bool
    reads_batches: bool  # whether batches come from the host

    def run(
        self, own: LaneArguments, result: SweepLike, lane: int, place: str, axis: str | None
    ) -> tuple[ExplainedRun, Trajectory]:
        """Run a lane again, with its curvature."""
        seed = {"seed": own.seed} if self.reads_batches else {}
        options: dict[str, Any] = {"key": own.key, "start": own.start, "monitors": self.monitors, **seed}
        end = descent.descend(own.problem, own.optimizer, self.steps, hyperparameters=own.hyperparameters, **options)
        last = int(result.lanes["end_step"].values[lane])
        reached = self.at <= last
        read = lambda name: np.asarray(end.statistics[f"{name}_curve"], float)[reached]
        edge = find_edge(own.optimizer, own.hyperparameters, self.at)
        return ExplainedRun(
            lane=lane,
            place=place,
            hyperparameters=describe_lane(result, lane),
            value=float(result.lanes[axis].values[lane]) if axis else np.nan,
            regime=Regime(int(result.lane_regimes[lane])),
            end_step=last,
            loss=np.asarray(end.loss, float)[: last + 1],
            step=self.at[reached],
            sharpness=read("preconditioned_sharpness" if self.is_preconditioned else "sharpness"),
            edge=None if edge is None else edge[reached],
            batch_sharpness=read("batch_sharpness") if self.has_minibatches else None,
            flow=None,
        ), end


def _make_recorder(own: LaneArguments, steps: int, every: int) -> _Recorder:
    """The recorder of a lane and of those that differ in the values of floats."""
    concrete, _ = binding.resolve_problem(own.problem, own.hyperparameters)
    reads_batches = concrete.batches is not None
    has_minibatches = reads_batches or concrete.sample is not None
    record, problem = steps // every + 1, on_all_data(own.problem, own.hyperparameters)
    is_preconditioned = is_adaptive(own.optimizer, own.hyperparameters)
    if is_preconditioned:
        curvature = preconditioned_sharpness_every(problem, own.optimizer, every, learning_rate=1.0, record=record)
    else:
        curvature = sharpness_every(problem, every, record=record)
    batch = (batch_sharpness_every(own.problem, every, record=record),) if has_minibatches else ()
    at = every * np.arange(record)
    return _Recorder(steps, at, (curvature, *batch), is_preconditioned, has_minibatches, reads_batches)


def on_all_data(problem: ProblemLike, hyperparameters: Mapping[str, Any]) -> ProblemLike:
    """The problem with its loss on all data, where these have the structure of a batch; else the problem itself."""
    concrete, _ = binding.resolve_problem(problem, hyperparameters)
    if concrete.sample is None:
        return problem
    key = jax.eval_shape(jax.random.key, 0)
    batch = jax.eval_shape(concrete.sample, key, jax.ShapeDtypeStruct((), np.int32), concrete.data)
    if binding.find_mismatch(concrete.data, batch) is not None:
        return problem
    if isinstance(problem, Problem):
        return dataclasses.replace(problem, sample=None)

    factory = cast(Callable[..., Problem], problem)

    @functools.wraps(factory)
    def make(**own: Any) -> Problem:
        return dataclasses.replace(factory(**own), sample=None)

    return make


def _compare_flow(own: LaneArguments, run: ExplainedRun, flow_steps: int) -> tuple[FlowPart | None, str]:
    """The central flow from where the run nears its edge, or from its start; or why there is none."""
    near = np.flatnonzero(run.ratio >= _NEAR_EDGE)
    first = int(run.step[near[0]]) if near.size else 0
    length = min(flow_steps, run.end_step - first)
    reason = _find_obstacle(own, run, length)
    if reason:
        return None, reason
    begin, every = own.start, max(1, length // _FLOW_POINTS)
    options: dict[str, Any] = {"hyperparameters": own.hyperparameters, "key": own.key}
    try:
        if first:
            begin = descent.descend(own.problem, own.optimizer, first, start=begin, **options).state
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", GdkitWarning)
            options |= {"start": begin, "record_every": every, "k": min(_DIRECTIONS, _count_params(own))}
            flow = central_flow(own.problem, own.optimizer, length, substeps=_SUBSTEPS, **options)
    except GdkitError:
        return None, "it is not derived for this optimizer, or not from where the run is"
    at = np.asarray(flow.step)
    if not np.all(np.isfinite(flow.loss)):
        return None, "it is not finite"
    means = [run.loss[first + low : first + high].mean() for low, high in itertools.pairwise(at)]
    between = lambda values: (np.asarray(values[:-1], float) + np.asarray(values[1:], float)) / 2
    return FlowPart(first + at[:-1], np.array(means), between(flow.predicted_loss), between(flow.loss)), ""


def _find_obstacle(own: LaneArguments, run: ExplainedRun, length: int) -> str:
    """Why a run has no central flow; empty if it has one."""
    concrete, _ = binding.resolve_problem(own.problem, own.hyperparameters)
    obstacles = {
        "batches are random": concrete.sample is not None or concrete.batches is not None,
        "the edge of stability of this optimizer is not known": run.edge is None,
        "the run diverged": run.regime == Regime.DIVERGED,
        "the run is too short": length < 2,
    }
    return next((reason for reason, holds in obstacles.items() if holds), "")


def _count_params(own: LaneArguments) -> int:
    shapes = binding.get_params_shape(binding.resolve_problem(own.problem, own.hyperparameters)[0])
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def _find_eigenvalues(own: LaneArguments, end: Trajectory) -> np.ndarray:
    """The largest eigenvalues of the Hessian on all data at the end; none of a run that is not finite there."""
    concrete, _ = binding.resolve_problem(on_all_data(own.problem, own.hyperparameters), own.hyperparameters)
    is_finite = all(bool(np.isfinite(leaf).all()) for leaf in jax.tree.leaves(end.params))
    if not is_finite or concrete.sample is not None or concrete.batches is not None:
        return np.zeros(0)
    k = min(_EIGENVALUES, _count_params(own))
    found = sharpness(concrete, end.params, k, aux=end.aux, tolerance=1e-3)
    return np.asarray(found.values, float)[np.asarray(found.converged)]
