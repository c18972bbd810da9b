"""The origin of a result, which continues it: its request, its lanes, and the function that runs a request."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import numpy as np

from gdkit import checks, optimizers
from gdkit.descent.evaluation import find_best
from gdkit.errors import bad_value
from gdkit.monitors import EndKind
from gdkit.problems.learner import own_state
from gdkit.sweeps.execution.block import replay, run_until
from gdkit.sweeps.execution.lanes import ResumableSweep
from gdkit.sweeps.execution.progress import Progress
from gdkit.sweeps.plan.blocks import Block, cut_blocks
from gdkit.sweeps.programs.groups import TracedGroup, build_job
from gdkit.sweeps.programs.job import Job
from gdkit.sweeps.programs.packing import take_lane
from gdkit.sweeps.request import select_devices
from gdkit.sweeps.result.explanation import Explanation
from gdkit.sweeps.result.result import SweepResult
from gdkit.sweeps.result.resumable import Refinement
from gdkit.sweeps.resume.explain import LaneArguments, explain
from gdkit.sweeps.resume.refine import RunRequest, refine
from gdkit.sweeps.rundir.states import no_states_error
from gdkit.types import PyTree, State


def attach_origin(result: SweepResult, lanes: ResumableSweep | None, run: RunRequest) -> SweepResult:
    """The result with its origin, which continues it by `run`; unchanged if some lanes have not finished."""
    if lanes is None:
        return result
    origin = Origin(lambda: lanes, run)
    return dataclasses.replace(result, origin=origin, states=origin.state)


@dataclasses.dataclass(frozen=True)
class Origin:
    """The `Resumable` of a result whose problem and optimizer are known."""

    load: Callable[[], ResumableSweep]  # called once, when first needed
    run: RunRequest

    @functools.cached_property
    def sweep(self) -> ResumableSweep:
        """The finished sweep, with its lanes if they are in memory."""
        return self.load()

    def extend(self, steps: int, *, progress: Callable[[Progress], None] | None = None) -> SweepResult:
        """The sweep with `steps` steps in total; lanes that ended early stay as they are."""
        checks.check_integer("steps", steps)
        request = self.sweep.request
        if steps <= request.steps:
            problem = f"the sweep has run {request.steps} already"
            raise bad_value("steps", steps, problem, "Pass the total number of steps")
        self.sweep.check()
        for section in request.sections:
            if optimizers.depends_on_steps(section.optimizer):
                remedy = "Run the sweep again with more steps"
                raise bad_value("steps", steps, "the schedule depends on the total number of steps", remedy)
        return attach_origin(*self.run(request._replace(steps=steps), progress, resumed=self.sweep), self.run)

    def replay(self, lane: int, onset: int, around: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Norms of a lane step by step around `onset`, and all columns that it reports at its end."""
        self.sweep.check()
        group, place, seed = self._find_lane(lane)
        job, block = self._build_job(group, place, seed)
        return replay(job, block, _find_in_block(block, place, seed), onset, around)

    def explain(self, result: SweepResult, lane: int, *, points: int, flow_steps: int) -> Explanation:
        """Why a lane ended as it did."""
        return explain(result, lane, self.sweep.request.steps, self._arguments_of, points=points, flow_steps=flow_steps)

    def _arguments_of(self, lane: int) -> LaneArguments:
        """The arguments with which `descend` runs a lane."""
        request, (group, place, seed) = self.sweep.request, self._find_lane(lane)
        traced = {name: float(values[place]) for name, values in group.group.traced.items()}
        key, optimizer = jax.random.fold_in(request.key, seed), group.group.section.optimizer
        return LaneArguments(request.problem, optimizer, group.static | traced, key, seed, request.start)

    def state(self, lane: int, step: int | None = None) -> State | PyTree:
        """The state of a lane at its end, or at an evaluation, from memory or the run directory; else it is run again.

        Raises:
          InputValueError: the sweep keeps no states.
        """
        sweep, (group, place, seed) = self.sweep, self._find_lane(lane)
        if sweep.request.keep_states is None:
            raise no_states_error()
        if step is not None and step >= sweep.columns["end_step"][lane]:
            step = None
        kept = sweep.find_block(group.number, place, seed)
        if kept is None and sweep.states is not None:
            leaves = sweep.states.read_leaves(lane) if step is None else sweep.states.read_best(lane, step)
            if leaves is not None:
                return jax.tree.unflatten(jax.tree.structure(group.trace_state(sweep.request)), leaves)
        own = None if kept is None else take_lane(kept[1], _find_in_block(kept[0], place, seed))
        best = None if own is None else find_best(own.record)
        if best is not None and step == best.step:
            return own_state(sweep.request.problem, best.state)
        if own is None or step is not None:
            sweep.check()
            job, block = self._build_job(group, place, seed)  # blocks of the same shape have the same bits
            lanes = run_until(job, block, self._end_of(lane) if step is None else step)
            own = take_lane(lanes, _find_in_block(block, place, seed))
        return own_state(sweep.request.problem, own.state)

    def _end_of(self, lane: int) -> int:
        """The step at which a lane has ended: one more than its last where it ended before its steps were used up."""
        kind, step = (int(self.sweep.columns[name][lane]) for name in ("end_kind", "end_step"))
        # a lane whose first update made its params not finite was frozen at step 1, and has ended at step 0
        return step if kind == EndKind.STEPS else min(step + 2, self.sweep.request.steps + 1)

    def _build_job(self, group: TracedGroup, place: int, seed: int) -> tuple[Job, Block]:
        """The job of the block that has a lane, as it ran."""
        request, shape = self.sweep.request, self.sweep.shapes[group.number]
        blocks = cut_blocks(len(group.group.points), request.seeds, shape)
        block = next(b for b in blocks if place in b.points and seed in b.seeds)
        return build_job(request, group, select_devices(request.plan)[:1], shape, [block]), block

    def _find_lane(self, lane: int) -> tuple[TracedGroup, int, int]:
        """The group of a lane, the place of its point in the group, and its seed."""
        point, seed = divmod(lane, self.sweep.request.seeds)
        places = ((group, group.number_points(self.sweep.request.seeds) == point) for group in self.sweep.groups)
        group, is_there = next((group, is_there) for group, is_there in places if is_there.any())
        return group, int(np.argmax(is_there)), seed

    def refine(
        self, result: SweepResult, refinement: Refinement, progress: Callable[[Progress], None] | None = None
    ) -> SweepResult:
        """The sweep with more values of an axis."""
        self.sweep.check()
        run = lambda request: self.run(request, progress)
        return attach_origin(*refine(result, self.sweep, refinement, run), self.run)


def _find_in_block(block: Block, place: int, seed: int) -> tuple[int, int]:
    """Where a lane is in its block: of seeds and of points."""
    return int(np.flatnonzero(block.seeds == seed)[0]), int(np.flatnonzero(block.points == place)[0])
