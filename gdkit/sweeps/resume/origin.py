"""What continues a result: its request, its lanes, and the function that runs a request."""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np

from gdkit import checks, optimizers
from gdkit.errors import bad_value
from gdkit.sweeps.execution.block import replay
from gdkit.sweeps.execution.lanes import ResumableSweep
from gdkit.sweeps.execution.progress import Progress
from gdkit.sweeps.plan.blocks import cut_blocks
from gdkit.sweeps.programs.groups import TracedGroup, build_job
from gdkit.sweeps.request import select_devices
from gdkit.sweeps.result.result import SweepResult
from gdkit.sweeps.resume.refine import Around, RunRequest, refine


def attach_origin(result: SweepResult, lanes: ResumableSweep | None, run: RunRequest) -> SweepResult:
    """The result with what continues it by `run`; without it where some lanes have not finished."""
    return result if lanes is None else dataclasses.replace(result, origin=Origin(lambda: lanes, run))


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
        for section in request.sections:
            if optimizers.depends_on_steps(section.optimizer):
                remedy = "Run the sweep again with more steps"
                raise bad_value("steps", steps, "the schedule depends on the total number of steps", remedy)
        return attach_origin(*self.run(request._replace(steps=steps), progress, resumed=self.sweep), self.run)

    def replay(self, lane: int, onset: int, around: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Norms of a lane step by step around `onset`, and all columns that it reports at its end."""
        request, seed = self.sweep.request, lane % self.sweep.request.seeds
        candidates = ((g, self._find_place(g, lane)) for g in reversed(self.sweep.groups) if g.offset <= lane)
        group, place = next((g, place) for g, place in candidates if place is not None)
        shape = self.sweep.shapes[group.number]
        blocks = cut_blocks(len(group.group.points), request.seeds, shape)
        block = next(b for b in blocks if place in b.points and seed in b.seeds)
        job = build_job(request, group, select_devices(request.plan)[:1], shape, [block])
        at = int(np.flatnonzero(block.seeds == seed)[0]), int(np.flatnonzero(block.points == place)[0])
        return replay(job, block, at, onset, around)

    def refine(
        self,
        result: SweepResult,
        axis: str,
        around: Around,
        count: int,
        progress: Callable[[Progress], None] | None = None,
        *,
        by: str | None = None,
        maximize: bool | None = None,
    ) -> SweepResult:
        """The sweep with `count` more values of `axis`."""
        find_best = lambda one: one.best(by, maximize=maximize).lanes
        more = refine(result, self.sweep, axis, around, count, progress, self.run, find_best)
        return attach_origin(*more, self.run)

    def _find_place(self, group: TracedGroup, lane: int) -> int | None:
        """The place of a lane's point in a group; None if the point is in another group."""
        places = np.flatnonzero(group.group.points == (lane - group.offset) // self.sweep.request.seeds)
        return int(places[0]) if places.size else None
