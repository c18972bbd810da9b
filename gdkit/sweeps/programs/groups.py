"""The groups of a sweep: trace and check them, tell what they compute by a hash, and compile their jobs."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from gdkit import binding, descent, factories, monitors
from gdkit.descent import evaluation
from gdkit.environment import read_precision
from gdkit.errors import bad_value, warn
from gdkit.monitors import names
from gdkit.problems import Learner, Problem, ProblemLike
from gdkit.problems.learner import own_state
from gdkit.sweeps.axes import Group, group_points
from gdkit.sweeps.plan.blocks import Block, cut_blocks
from gdkit.sweeps.plan.shapes import BlockLimits, Plan, Shape, choose_shape, compute_block_limits, count_workers
from gdkit.sweeps.programs import timing
from gdkit.sweeps.programs.build import Shared
from gdkit.sweeps.programs.compile import compile_program, jit_program
from gdkit.sweeps.programs.job import Job, get_block_inputs
from gdkit.sweeps.programs.layout import ON_ACCELERATOR, Layout, choose_layout
from gdkit.sweeps.programs.places import Place, count_devices, divides_arrays, fit_place, get_device, put
from gdkit.sweeps.request import Recording, SweepRequest, depends_on_seed, select_curve_steps, select_devices
from gdkit.tracing import jaxprs
from gdkit.types import Array, Key, Monitor, OptimizerLike, Params, PyTree, State

R = TypeVar("R")

_FEW_ENTRIES = 16  # a lane with at most so many params has short steps,
_FEW_NUMBERS = 256  # if no array of a step is larger than this


class TracedGroup(NamedTuple):
    """A group that has been traced and checked, before it is compiled."""

    number: int  # of the group
    offset: int  # number of the first lane of its section
    group: Group
    problem: Problem  # with its hyperparameters
    static: dict[str, Any]
    facts: "LossFacts"
    unroll: int  # steps per iteration of the loop, unless the plan sets it

    def number_points(self, seeds: int) -> np.ndarray:
        """The numbers of its points in a sweep of `seeds` seeds, (points,)."""
        return self.offset // seeds + self.group.points

    def number_lanes(self, block: Block, seeds: int) -> np.ndarray:
        """The numbers of a block's lanes in a sweep of `seeds` seeds, (seeds, points)."""
        return self.offset + self.group.points[block.points][None, :] * seeds + block.seeds[:, None]

    def number_rows(self, block: Block, seeds: int) -> np.ndarray:
        """The lane numbers of a block without padding, in the order of `tiles.extract_rows`; (rows,)."""
        points, own = block.sizes
        return self.number_lanes(block, seeds)[:own, :points].T.ravel()

    def record(self, request: SweepRequest) -> Recording:
        """The built-in monitors, those of the user, curves of what the loss logs, and the steps of the curve.

        With ``keep_states="best"`` also the monitor that keeps the best states.
        """
        logs, points = self.facts.logs, request.curve_points
        curves = (monitors.log_curves(logs, points),) if logs and points else ()
        by = evaluation.watched_value(self.problem) if request.keep_states == "best" else None
        best = () if by is None else (evaluation.keep_best(by),)
        built_in = monitors.built_in(request.statistics, has_gradient=self.facts.has_gradient)
        watched = (*built_in, *request.monitors, *curves, *best)
        return Recording(watched, select_curve_steps(points, request.steps), request.evaluate_every is not None)

    def trace_state(self, request: SweepRequest) -> State | PyTree:
        """The state of one lane as users see it, as shapes."""
        point, optimizer = self.static | _get_first_point(self.group), self.group.section.optimizer
        arrays = request.get_arrays(self.problem)
        start = lambda: descent.initial_state(request.problem, optimizer, point, request.key, arrays)
        return own_state(request.problem, jax.eval_shape(start))

    def choose_shape(self, request: SweepRequest) -> Shape:
        """The shape of its blocks by the rule, which takes the workers of the machine, not those of this run."""
        devices = select_devices(request.plan)
        plan = request.plan if self.problem.batches is None else dataclasses.replace(request.plan, depth=1)
        if get_device(devices[0]).platform != "cpu":
            plan = dataclasses.replace(plan, chunk=None)  # all points of a block are advanced side by side
        elif plan.unroll:
            plan = dataclasses.replace(plan, unroll=1)  # as `choose_layout` says
        points, seeds, limits = len(self.group.points), request.seeds, self.facts.limits
        if not request.plan.mesh:
            return choose_shape(points, seeds, limits, plan, count_workers(Plan(), len(devices)), self.unroll)
        narrow, size = dataclasses.replace(plan, width=None), count_devices(devices[0])
        shape = choose_shape(math.ceil(points / size), seeds, limits._replace(chunks=1), narrow, 1, self.unroll)
        return shape._replace(width=plan.width or shape.width * size)


class LossFacts(NamedTuple):
    """Properties of the loss of a group, found by tracing."""

    params: Params  # shapes of one lane's params
    runs_step_by_step: bool  # whether each step is a call of its own
    is_impure: bool
    logs: tuple[str, ...]  # names of what the loss logs
    has_gradient: bool  # whether steps report their gradient
    is_stochastic: bool  # whether the loss is that of a minibatch
    is_small: bool  # whether a step has no large array and no loop
    mesh: Mesh | None = None  # among whose devices the loss divides its arrays

    @property
    def has_short_steps(self) -> bool:
        """Whether a step takes less time than what is done around it: few params, small arrays, no inner loop."""
        return self.is_small and sum(leaf.size for leaf in jax.tree.leaves(self.params)) <= _FEW_ENTRIES

    @property
    def limits(self) -> BlockLimits:
        """The limits of a block."""
        limits = compute_block_limits(self.params)
        return limits._replace(max_lanes=1, chunks=1) if self.runs_step_by_step or self.mesh else limits


def trace_groups(request: SweepRequest) -> Iterator[TracedGroup]:
    """Trace one step of every group, and check it."""
    number = offset = 0
    warned: set[int] = set()
    for section in request.sections:
        for group in group_points(section):
            yield _trace_group(request, group, number, offset, warned)
            number += 1
        offset += section.point_count * request.seeds


def _trace_group(request: SweepRequest, group: Group, number: int, offset: int, warned: set[int]) -> TracedGroup:
    concrete, _ = binding.resolve_problem(request.problem, group.static | _get_first_point(group))
    static = {name: factories.hashable(value) for name, value in group.static.items()}
    if concrete.batches is not None and (request.plan.depth or 1) > 1:
        remedy = "Leave it out; batches are shared by the points of a seed"
        raise bad_value("plan.depth", request.plan.depth, "a block with batches= has one seed", remedy)
    facts = inspect_loss(request, group)
    if id(concrete) not in warned:
        warned.add(id(concrete))
        _warn_of_mistakes(request, concrete, facts)
    _check_used(request, group, concrete, static)
    _check_names(request, group, concrete, static, facts.logs)
    unroll = 0 if facts.runs_step_by_step else _choose_unroll(facts)
    traced = TracedGroup(number, offset, group, concrete, static, facts, unroll)
    if request.start is not None:
        traced.trace_state(request)  # checks its leaves
    return traced


def _choose_unroll(facts: LossFacts, platform: str | None = None) -> int:
    """Steps per iteration: one on a CPU, and as many as make the fewest launches on an accelerator.

    A whole stride of short steps is 9 launches instead of 33. Longer steps are made in pairs, which saves the copies of
    the loop's carry: 26 kernels per step of the digits MLP instead of 29.
    """
    if (platform or jax.default_backend()) == "cpu":
        return 1
    return ON_ACCELERATOR.stride if facts.has_short_steps else 2


def _get_first_point(group: Group) -> dict[str, Any]:
    return {name: values[0] for name, values in group.traced.items()}


_traced: dict[tuple, Any] = {}  # the results of the last traces
_MOST_TRACED = 128


def _get_traced(request: SweepRequest, group: Group) -> tuple[ProblemLike, OptimizerLike, dict[str, Any], Any]:
    """What is traced of a group: problem, optimizer, the hyperparameters of its first point, and the shape of a key."""
    static = {name: factories.hashable(value) for name, value in group.static.items()}
    key = jax.ShapeDtypeStruct(request.key.shape, request.key.dtype)
    return request.problem, group.section.optimizer, static | _get_first_point(group), key


def _trace_once(request: SweepRequest, group: Group, trace: Callable[..., R], *arguments: Any) -> R:
    """``trace(problem, optimizer, hyperparameters, key, *arguments)`` of a group, once per process.

    Tracing takes longer than a short sweep. What `trace` returns must not depend on the values of traced
    hyperparameters.
    """
    problem, optimizer, chosen, key = _get_traced(request, group)
    static = tuple(sorted((name, value) for name, value in chosen.items() if name not in group.traced))
    memo_key = trace, problem, optimizer, static, tuple(sorted(group.traced)), key, read_precision(), arguments
    memo_key += (factories.nested_types(memo_key),)
    if not factories.is_hashable(memo_key):
        return trace(problem, optimizer, chosen, key, *arguments)
    found = _traced.get(memo_key) or trace(problem, optimizer, chosen, key, *arguments)
    _traced[memo_key] = found
    while len(_traced) > _MOST_TRACED:
        _traced.pop(next(iter(_traced)), None)
    return found


def inspect_loss(request: SweepRequest, group: Group) -> LossFacts:
    """Trace and check the loss of a group."""
    return _trace_once(request, group, _trace_loss)


def _trace_loss(problem: ProblemLike, optimizer: OptimizerLike, point: Mapping[str, Any], key: Any) -> LossFacts:
    concrete, _ = binding.resolve_problem(problem, point)
    arrays = binding.get_arrays(concrete)
    run = binding.check_run(problem, optimizer, point, key, arrays)
    # XLA has fast convolutions only outside of loops; those inside are slow for many filters
    runs_step_by_step = jax.default_backend() == "cpu" and jaxprs.has_convolutions(run.program)
    is_impure = binding.is_impure(problem, point, key)
    params, is_small = binding.get_params_shape(concrete), jaxprs.is_small(run.program, _FEW_NUMBERS)
    return LossFacts(params, runs_step_by_step, is_impure, *run[1:], is_small, jaxprs.find_mesh(run.program))


def _warn_of_mistakes(request: SweepRequest, problem: Problem, facts: LossFacts) -> None:
    depends = facts.is_stochastic or (request.start is None and depends_on_seed(problem, request.key))
    if request.seeds > 1 and not depends:
        warn(f"seeds={request.seeds}: neither the start nor the batches depend on the seed, so all runs are the same")
    if facts.is_impure:
        warn("loss: two traces of it differ, so it is not pure; draw random numbers in sample(key, t, data)")


def _check_used(request: SweepRequest, group: Group, problem: Problem, static: Mapping[str, Any]) -> None:
    """Raise for a traced hyperparameter that nothing uses: ``**kwargs`` would accept a misspelled name."""
    point, optimizer = {**static, **_get_first_point(group)}, group.section.optimizer
    for name in group.traced:
        is_of_problem = name.startswith(factories.PROBLEM_PREFIX) and not isinstance(request.problem, Learner)
        factory: Any = request.problem if is_of_problem else optimizer
        known = factories.parameters(factory)
        if name.removeprefix(factories.PROBLEM_PREFIX) in known or not factories.takes_any_name(factory):
            continue
        if not descent.is_used(request.problem, optimizer, point, name, request.key, request.get_arrays(problem)):
            remedy = f"Check its spelling; named parameters are {', '.join(known) or 'none'}"
            text = "the factory takes it, and neither the start nor a step uses it"
            if isinstance(request.problem, Learner):
                text, remedy = "neither init nor step of the Learner uses it", "Check its spelling, or leave it out"
            raise bad_value("axes", name, text, remedy)


def _check_names(
    request: SweepRequest, group: Group, problem: Problem, static: Mapping[str, Any], logs: Sequence[str]
) -> None:
    """Raise for a name that two of statistics, monitors, axes and dimensions of a result have."""
    axes = {axis.name for section in request.sections for axis in section.axes}
    if request.evaluate_every is not None:
        evaluation.check_evaluate_every(request.evaluate_every, problem)
    if request.keep_states == "best" and evaluation.watched_value(problem) is None:
        remedy = "Pass Problem(validation=...)"
        raise bad_value("keep_states", "best", "there are no validation data to judge states by", remedy)
    columns = names.built_in_names() | {*evaluation.evaluation_names(problem), *(f"curve_{name}" for name in logs)}
    for name in axes & columns:
        remedy = "Rename it in a factory of your own, for example lambda draw: optimizer(seed=draw)"
        raise bad_value("axes", name, "a statistic or a dimension of the result has this name", remedy)
    if request.monitors:
        point = {**static, **_get_first_point(group)}
        arrays = request.get_arrays(problem)
        raw, optimizer = descent.raw_initial_state, group.section.optimizer
        start = lambda: raw(request.problem, optimizer, point, request.key, arrays)
        taken = columns | axes | {dimension.name for section in request.sections for dimension in section.dimensions}
        names.check_monitor_names(request.monitors, taken, start)
        descent.check_observers(
            request.problem, optimizer, point, request.key, arrays, request.monitors, request.evaluate_every
        )


def trace_lane(request: SweepRequest, group: TracedGroup) -> tuple[str, set[str]]:
    """A hash of one lane of a group: its start, an observed step, and what is read out; and the names of the latter.

    Groups with equal hashes compute the same under one version of gdkit, which decides all else of a program. Tracing
    one lane takes an eighth of the time of tracing and lowering the programs of its blocks.
    """
    traced = tuple(sorted(group.group.traced))
    return _trace_lane(*_get_traced(request, group.group), traced, group.record(request).monitors, request.steps)


def hash_lane(request: SweepRequest, group: TracedGroup) -> str:
    """The hash of `trace_lane`, traced once per process: of functions whose programs the process keeps as well."""
    traced = tuple(sorted(group.group.traced))
    return _trace_once(request, group.group, _trace_lane, traced, group.record(request).monitors, request.steps)[0]


def _trace_lane(
    problem: ProblemLike,
    optimizer: OptimizerLike,
    chosen: Mapping[str, Any],
    key: Any,
    traced_names: tuple[str, ...],
    watched: tuple[Monitor, ...],
    steps: int,
) -> tuple[str, set[str]]:
    """What `trace_lane` returns of a group whose hyperparameters are `chosen`, of which `traced_names` are traced."""
    arrays = binding.get_arrays(binding.resolve_problem(problem, chosen)[0])
    static = {name: value for name, value in chosen.items() if name not in traced_names}

    def lane(traced: dict[str, Array], key: Key, arrays: binding.Arrays, limits: monitors.Limits, t: Array) -> Any:
        point = {**static, **traced}
        before = descent.start_lane(problem, optimizer, watched, point, key, arrays)
        inputs = descent.StepInputs(point, t, key, arrays.data)
        step = descent.observed_step(problem, optimizer, watched)
        after, loss = step(before, inputs, limits, t == steps)
        values = evaluation.evaluate(problem, optimizer, point, after.state, arrays, t, key)
        if evaluation.observes_evaluations(watched):
            along = evaluation.evaluate_along(problem, optimizer, point, after.state, arrays, t, key)
            seen = evaluation.observe_evaluation(problem, watched, point, after.state, after.record, along, t)
            return before, after, loss, seen, monitors.read(watched, after.record), values
        return before, after, loss, monitors.read(watched, after.record), values

    number: Any = jax.ShapeDtypeStruct((), binding.traced_dtype())
    traced, limits = dict.fromkeys(traced_names, number), monitors.Limits(*(number for _ in monitors.Limits._fields))
    step = jax.ShapeDtypeStruct((), jnp.int32)
    program, shapes = jax.make_jaxpr(lane, return_shape=True)(traced, key, arrays, limits, step)
    *_, statistics, values = shapes
    return jaxprs.digest_program(program), {*statistics, *values}


def build_job(
    request: SweepRequest,
    group: TracedGroup,
    devices: Sequence[Place],
    shape: Shape,
    blocks: list[Block] | None = None,
    *,
    recording: Recording | None = None,
    layout: Layout | None = None,
    place: Callable[[Shared, Place], Shared] = put,
) -> Job:
    """The job of a group in blocks of a shape, compiled in the caller's thread and placed on `devices`.

    By default it has all blocks of the group, its recording, and the layout of the platform.
    """
    blocks = blocks or cut_blocks(len(group.group.points), request.seeds, shape)
    devices = [group.facts.mesh] if group.facts.mesh else devices
    places = [fit_place(device, len(blocks[0].points)) for device in devices]
    # other statistics take longer than peeling saves; monitors that do not freeze see steps after the end of a lane
    peels = group.facts.has_short_steps and request.statistics == "ends" and all(m.freeze for m in request.monitors)
    layout = layout or choose_layout(get_device(places[0]).platform, shape, peels=peels)
    if divides_arrays(places[0]):
        layout = layout._replace(on_vectors=False)  # a vector of all leaves would lie on every device
    optimizer, static = group.group.section.optimizer, tuple(sorted(group.static.items()))
    program = jit_program(request.problem, optimizer, static, recording or group.record(request), layout)
    has_floor = group.problem.optimum is not None or request.limits.target != -np.inf
    limits = request.limits._replace(unbounded_below=np.inf if has_floor else request.limits.diverged_above)
    dtype = binding.traced_dtype()
    limits = monitors.Limits(*(np.asarray(x, dtype) for x in limits))
    shared = Shared(request.key, request.get_arrays(group.problem), limits)
    traced = {name: values.astype(dtype) for name, values in group.group.traced.items()}
    compacts = layout.compacts and not divides_arrays(places[0])
    job = Job(
        [], [place(shared, own) for own in places], traced, request.steps, blocks, group.number,
        source=group.problem.source, start_cache={}, evaluation_steps=request.evaluation_steps, jitted=program,
        narrower={} if compacts else None,
    )  # fmt: skip
    programs = [compile_program(program, get_block_inputs(job, blocks[0], i), own) for i, own in enumerate(places)]
    return job._replace(programs=programs)


def compile_absent(request: SweepRequest, group: TracedGroup, place: Place, layout: Layout | None = None) -> Job:
    """The job of a group compiled for devices that this machine lacks, in the blocks that it would have there."""
    platform = get_device(place).platform
    platform = "gpu" if platform == "cuda" else platform
    limits = compute_block_limits(group.facts.params, platform)
    unroll = _choose_unroll(group.facts, platform)
    shape = choose_shape(len(group.group.points), request.seeds, limits, request.plan, 1, unroll)
    return build_job(request, group, [place], shape, layout=layout, place=lambda shared, _: shared)


def plan_job(
    request: SweepRequest,
    group: TracedGroup,
    devices: Sequence[Place],
    workers: int,
    *,
    build: Callable[..., Job] = build_job,
    settings: timing.PlannerSettings = timing.DEFAULT_PLANNER,
) -> tuple[Job, timing.Choice]:
    """The job of a group in the shape that the planner chooses, compiled and placed on `devices`."""
    make = lambda shape: build(request, group, devices, shape)
    sizes = {"most": group.facts.limits.max_lanes, "lanes": len(group.group.points) * request.seeds, "workers": workers}
    return timing.choose_job(make, group.choose_shape(request), request.plan, **sizes, settings=settings)
