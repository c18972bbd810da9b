"""The groups of a sweep, checked by tracing them, and their jobs."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from gdkit import binding, descent, factories, jaxprs
from gdkit.errors import bad_value, warn
from gdkit.problems import Problem
from gdkit.sweeps.axes import Group, group_points
from gdkit.sweeps.plan.blocks import Block, cut_blocks
from gdkit.sweeps.plan.shapes import BlockLimits, Plan, Shape, choose_shape, compute_block_limits, count_workers
from gdkit.sweeps.programs import timing
from gdkit.sweeps.programs.build import Shared
from gdkit.sweeps.programs.job import Job, compile_job
from gdkit.sweeps.request import SweepRequest, depends_on_seed, select_devices
from gdkit.types import Params


class TracedGroup(NamedTuple):
    """A group with all that running it needs, but not compiled."""

    number: int  # of the group
    offset: int  # of its section's first lane
    group: Group
    problem: Problem  # concrete
    static: dict[str, Any]
    params: Params  # of a lane, as shapes
    room: BlockLimits  # of a block
    unroll: int  # as the rule has it

    def lanes_of(self, block: Block, seeds: int) -> np.ndarray:
        """The numbers of a block's lanes in a sweep of so many seeds, (seeds, points)."""
        return self.offset + self.group.points[block.points][None, :] * seeds + block.seeds[:, None]

    def number_rows(self, block: Block, seeds: int) -> np.ndarray:
        """The numbers of a block's lanes as `archive.rows_of` puts them, without padding."""
        points, own = block.sizes
        return self.lanes_of(block, seeds)[:own, :points].T.ravel()

    def shape(self, request: SweepRequest) -> Shape:
        """The shape of its blocks by the rule; it depends on the machine's workers, not on those of this run."""
        usual = count_workers(Plan(), len(select_devices(request.plan)))
        return choose_shape(len(self.group.points), request.seeds, self.room, request.plan, usual, self.unroll)


def trace_groups(request: SweepRequest) -> Iterator[TracedGroup]:
    """Every group, checked by tracing one step."""
    number = offset = 0
    checked: set[int] = set()
    for section in request.sections:
        for group in group_points(section):
            yield _trace_group(request, group, checked)._replace(number=number, offset=offset)
            number += 1
        offset += section.points * request.seeds


def plan_job(
    request: SweepRequest, prepared: TracedGroup, devices: Sequence[Any], workers: int
) -> tuple[Job, timing.Choice]:
    """The job of a group in the shape that the planner chooses, compiled and placed on `devices`."""
    make = lambda shape: build_job(request, prepared, devices, shape)
    lanes, most = len(prepared.group.points) * request.seeds, prepared.room.most
    return timing.choose_job(make, prepared.shape(request), request.plan, most=most, lanes=lanes, workers=workers)


def build_job(
    request: SweepRequest,
    prepared: TracedGroup,
    devices: Sequence[Any],
    shape: Shape,
    blocks: list[Block] | None = None,
) -> Job:
    """The job of a group in blocks of a shape, compiled and placed on `devices`."""
    floorless = prepared.problem.optimum is None and request.limits.target == -np.inf
    limits = request.limits._replace(unbounded_below=request.limits.diverged_above if floorless else np.inf)
    return compile_job(
        request.problem,
        prepared.group.section.factory,
        prepared.static,
        prepared.group.traced,
        request.watching,
        Shared(request.key, binding.arrays_of(prepared.problem), limits),
        dtype=binding.dtype_of(prepared.params),
        steps=request.steps,
        blocks=blocks or cut_blocks(len(prepared.group.points), request.seeds, shape),
        devices=devices,
        unroll=shape.unroll,
        group=prepared.number,
    )


def _trace_group(request: SweepRequest, group: Group, checked: set[int]) -> TracedGroup:
    first = {name: values[0] for name, values in group.traced.items()}
    concrete, _ = binding.resolve_problem(request.problem, group.static | first)
    static = {n: factories.hashable(v) for n, v in group.static.items()}
    known = inspect_loss(request, group)
    if id(concrete) not in checked:
        checked.add(id(concrete))
        _warn(request, concrete, known.is_impure)
    _check_used(request, group, concrete, static)
    return TracedGroup(
        0, 0, group, concrete, static, known.params, known.room, unroll=0 if known.runs_step_by_step else 1
    )


class LossFacts(NamedTuple):
    """What tracing a group's loss tells."""

    params: Params  # of a lane, as shapes
    runs_step_by_step: bool  # whether each step is a call
    is_impure: bool

    @property
    def room(self) -> BlockLimits:
        """The room of a block."""
        room = compute_block_limits(self.params)
        return room._replace(most=1) if self.runs_step_by_step else room


_loss_facts: dict[tuple, LossFacts] = {}  # of the last groups; no traced value changes what is known of a loss


def inspect_loss(request: SweepRequest, group: Group) -> LossFacts:
    """A group's loss checked, once in a process: tracing it takes longer than running a short sweep does."""
    point = {name: values[0] for name, values in group.traced.items()}
    static = {name: factories.hashable(value) for name, value in group.static.items()}
    key = jax.ShapeDtypeStruct(request.key.shape, request.key.dtype)
    trace = lambda: _trace_loss(request.problem, group.section.factory, {**static, **point}, key)
    precision = jax.config.read("jax_enable_x64")  # decides the dtype of what a function makes
    name = request.problem, group.section.factory, tuple(sorted(static.items())), tuple(sorted(point)), key, precision
    if not factories.is_hashable(name):
        return trace()
    if name not in _loss_facts:
        _loss_facts[name] = trace()
        if len(_loss_facts) > 64:
            del _loss_facts[next(iter(_loss_facts))]
    return _loss_facts[name]


def _trace_loss(problem: Any, factory: Any, point: Mapping[str, Any], key: Any) -> LossFacts:
    concrete, _ = binding.resolve_problem(problem, point)
    loss = binding.check_run(problem, factory, point, key, binding.arrays_of(concrete))
    # XLA brings convolutions into their fast form only outside of loops, and those of many filters are slow
    runs_step_by_step = jax.default_backend() == "cpu" and jaxprs.has_convolutions(loss)
    return LossFacts(binding.params_shape(concrete), runs_step_by_step, binding.is_impure(concrete, key))


def _warn(request: SweepRequest, problem: Problem, is_impure: bool) -> None:
    """Warn of what is allowed and probably not meant: seeds that change nothing, a loss that is not pure."""
    if request.seeds > 1 and not depends_on_seed(problem, request.key):
        text = f"seeds={request.seeds}: neither the start nor the batches depend on the seed, so all runs are the same"
        warn(text)
    if is_impure:
        text = "loss: it is not pure, two traces of it differ; draw random numbers in sample(key, t, data)"
        warn(text)


def _check_used(request: SweepRequest, group: Group, problem: Problem, static: dict[str, Any]) -> None:
    """Behind ``**kwargs`` a misspelt name is swallowed: raise for a traced hyperparameter that nothing uses."""
    for name in group.traced:
        inside = name.startswith(factories.PROBLEM_PREFIX)
        factory = request.problem if inside else group.section.factory
        known = factories.parameters(factory)
        if name.removeprefix(factories.PROBLEM_PREFIX) in known or not factories.takes_any_name(factory):
            continue
        point = {n: values[0] for n, values in group.traced.items()}
        arrays = binding.arrays_of(problem)
        if not descent.is_used(request.problem, group.section.factory, static | point, name, request.key, arrays):
            remedy = f"Check its spelling; named parameters are {', '.join(known) or 'none'}"
            raise bad_value("axes", name, "the factory takes it and nothing uses it", remedy)
