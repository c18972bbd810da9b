"""The checked request of a sweep."""

import functools
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from gdkit import binding, checks
from gdkit import monitors as monitors_
from gdkit.binding import Arrays
from gdkit.descent import evaluation
from gdkit.errors import bad_value
from gdkit.monitors import Limits
from gdkit.problems import Learner, Problem, ProblemLike
from gdkit.sweeps import checkpoints
from gdkit.sweeps.axes import Section, parse_axes
from gdkit.sweeps.plan.shapes import LANES, Place, Plan, check_plan
from gdkit.tracing import jaxprs
from gdkit.types import Key, Monitor, OptimizerLike, PyTree, State

KeepStates = Literal["auto", "last", "best"] | None


class Recording(NamedTuple):
    """The monitors of every lane, and the steps at which its loss is recorded."""

    monitors: tuple[Monitor, ...]
    curve: tuple[int, ...] = ()  # as `select_curve_steps` returns them
    evaluates: bool = False  # whether validation data are evaluated along the run


class SweepRequest(NamedTuple):
    """The checked arguments of a sweep."""

    problem: ProblemLike
    sections: tuple[Section, ...]
    seeds: int
    steps: int
    key: Key
    monitors: tuple[Monitor, ...]
    curve_points: int
    limits: Limits
    plan: Plan
    keep_states: KeepStates = "auto"
    statistics: str = "all"  # a name of `monitors.BUILT_IN`
    start: State | None = None  # where all lanes start; aux and optimizer state may be None
    evaluate_every: int | None = None  # steps from one evaluation on validation data to the next

    @property
    def lane_count(self) -> int:
        """Number of lanes."""
        return sum(section.point_count for section in self.sections) * self.seeds

    def get_arrays(self, problem: Problem) -> Arrays:
        """The arrays of one of its problems, with the state to start from."""
        return binding.get_arrays(problem)._replace(start=self.start)

    @property
    def recorded_points(self) -> int:
        """Number of recorded steps that the sweep reaches."""
        return _count_recorded(self.curve_points, self.steps)

    @property
    def evaluation_steps(self) -> np.ndarray:
        """The steps at which validation data are evaluated along the run, (evaluations,); the last is the end."""
        return evaluation.select_steps(self.evaluate_every, self.steps)


@functools.lru_cache
def _count_recorded(points: int, steps: int) -> int:
    return int(np.sum(monitors_.curve_steps(points) <= steps)) if points else 0


def select_curve_steps(points: int, steps: int) -> tuple[int, ...]:
    """The steps at which a sweep of `steps` steps records losses, and at least one more.

    Sweeps of up to 10,000 steps have the same slots, and so share a program.
    """
    if not points:
        return ()
    at = monitors_.curve_steps(points)
    return tuple((at[: int(np.sum(at <= 10_000)) + 1] if steps <= 10_000 else at).tolist())


def check_request(
    problem: ProblemLike,
    optimizer: OptimizerLike | str | None,
    axes: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    *,
    seeds: int = 1,
    steps: int,
    key: int | Key = 0,
    monitors: Sequence[Monitor] = (),
    statistics: str = "all",
    curve_points: int = 200,
    target: float | None = None,
    diverged_above: float = 1e6,
    plan: Plan | None = None,
    keep_states: KeepStates = "auto",
    start: State | PyTree | str | Path = None,
    evaluate_every: int | None = None,
) -> SweepRequest:
    """Check the arguments of `sweep`, without tracing."""
    checks.check_integer("steps", steps)
    checks.check_integer("seeds", seeds)
    checks.check_integer("curve_points", curve_points, at_least=0)
    if evaluate_every is not None:
        checks.check_integer("evaluate_every", evaluate_every)
    checks.check_diverged_above(diverged_above)
    if target is not None:
        checks.check_number("target", target)
    check_plan(plan)
    checks.check_choice("statistics", statistics, monitors_.BUILT_IN)
    checks.check_instances("monitors", monitors, Monitor, "Pass for example [gdkit.monitors.time_to(0.1)]")
    _check_keep_states(keep_states, evaluate_every)
    if not isinstance(problem, Learner):
        binding.check_problem(problem)
    sections = parse_axes(problem, optimizer, axes)
    for section in sections:
        names = [*(axis.name for axis in section.axes), *section.fixed]
        binding.check_hyperparameters(problem, section.optimizer, names)
    key = checks.as_key(key)
    limits = Limits(diverged_above, -np.inf if target is None else target)
    begin = checkpoints.read_start(start)
    return SweepRequest(
        problem, sections, seeds, steps, key, tuple(monitors), curve_points, limits, plan or Plan(), keep_states,
        statistics, begin, evaluate_every,
    )  # fmt: skip


def check_options(options: Mapping[str, Any]) -> None:
    """Raise for a further argument of a search that no sweep has."""
    for name in options:
        checks.check_choice("options", name, [*inspect.signature(check_request).parameters][3:])


def _check_keep_states(keep_states: Any, evaluate_every: int | None) -> None:
    """Raise unless `keep_states` names states that the sweep can keep."""
    if keep_states is not None:
        checks.check_choice("keep_states", keep_states, ("auto", "last", "best"))
    if keep_states == "best" and evaluate_every is None:
        remedy = "Pass evaluate_every= too, for example evaluate_every=100"
        raise bad_value("keep_states", "best", "nothing is evaluated along the run", remedy)


def select_devices(plan: Plan) -> list[Place]:
    """The devices that a sweep uses, each by itself or as one mesh.

    Raises:
      InputValueError: the plan asks for more devices than there are.
    """
    devices = jax.local_devices()
    if plan.devices is not None and plan.devices > len(devices):
        remedy = "Use fewer; a CPU is split with XLA_FLAGS=--xla_force_host_platform_device_count=N before JAX starts"
        raise bad_value("plan.devices", plan.devices, f"there are {len(devices)}", remedy)
    chosen = devices[: plan.devices]
    return [Mesh(np.array(chosen), (LANES,))] if plan.mesh else chosen


def depends_on_seed(problem: Problem, key: Key) -> bool:
    """Whether the initial params or the batches depend on the seed."""
    if problem.is_sampled:
        return True
    return problem.init_is_function and any(jaxprs.depends_on(jax.make_jaxpr(problem.init)(key).jaxpr))
