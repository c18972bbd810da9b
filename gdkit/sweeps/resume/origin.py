"""What a result can do besides what its numbers tell: go on, and run a lane again."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

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
from gdkit.sweeps.resume.refine import RunRequest, refine


def attach_origin(result: SweepResult, kept: ResumableSweep | None, run: RunRequest) -> SweepResult:
    """The result, which can be continued by `run` if all its lanes are finished."""
    return result if kept is None else dataclasses.replace(result, origin=Origin(lambda: kept, run))


@dataclasses.dataclass(frozen=True)
class Origin:
    """What a result can do whose problem and optimizer are known."""

    find: Callable[[], ResumableSweep]
    run: RunRequest

    @functools.cached_property
    def kept(self) -> ResumableSweep:
        """The sweep, and its lanes where they were kept."""
        return self.find()

    def extend(self, steps: int, *, progress: Callable[[Progress], None] | None = None) -> SweepResult:
        """Every lane until `steps` in all; those that ended stay as they are."""
        checks.check_integer("steps", steps)
        kept = self.kept
        if steps <= kept.request.steps:
            raise bad_value(
                "steps", steps, f"the sweep has run {kept.request.steps} already", "Pass how many there are in all"
            )
        for section in kept.request.sections:
            if optimizers.depends_on_steps(section.optimizer):
                remedy = "Run the sweep again with more steps"
                raise bad_value("steps", steps, "the schedule depends on how many steps there are in all", remedy)
        longer = kept.request._replace(steps=steps)
        return attach_origin(*self.run(longer, tell=progress, before=kept), self.run)

    def replay(self, lane: int, onset: int, around: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """One lane run again: norms step by step around `onset`, and all that it reads at its end."""
        kept = self.kept
        seed = lane % kept.request.seeds
        mine = next(p for p in reversed(kept.prepared) if p.offset <= lane and self._place(p, lane) is not None)
        shape, place = kept.shapes[mine.number], self._place(mine, lane)
        points, seeds = len(mine.group.points), kept.request.seeds
        block = next(b for b in cut_blocks(points, seeds, shape) if place in b.points and seed in b.seeds)
        job = build_job(kept.request, mine, select_devices(kept.request.plan)[:1], shape, [block])
        at = int(np.flatnonzero(block.seeds == seed)[0]), int(np.flatnonzero(block.points == place)[0])
        return replay(job, block, at, onset, around)

    def refine(
        self,
        result: SweepResult,
        axis: str,
        around: Any,
        count: int,
        progress: Callable[[Progress], None] | None = None,
    ) -> SweepResult:
        """The sweep with more values of `axis`."""
        return attach_origin(*refine(result, self.kept, axis, around, count, progress, self.run), self.run)

    def _place(self, prepared: TracedGroup, lane: int) -> int | None:
        """Where a lane's point stands in a group, None if it is another group's."""
        found = np.flatnonzero(prepared.group.points == (lane - prepared.offset) // self.kept.request.seeds)
        return int(found[0]) if found.size else None
