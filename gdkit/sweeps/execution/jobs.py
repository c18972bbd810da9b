"""The jobs of a sweep, as they are compiled group by group."""

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from gdkit.errors import OtherRunError
from gdkit.sweeps.description import Description, describe
from gdkit.sweeps.execution.lanes import ResumableSweep
from gdkit.sweeps.plan.blocks import Block, cut_lanes
from gdkit.sweeps.plan.shapes import Plan, Shape
from gdkit.sweeps.programs import timing
from gdkit.sweeps.programs.groups import TracedGroup, build_job, plan_job
from gdkit.sweeps.programs.job import Job
from gdkit.sweeps.request import SweepRequest
from gdkit.sweeps.rundir.archive import UnfinishedRun
from gdkit.sweeps.rundir.manifest import CompiledSweep, RunDirectory, shapes_there


class JobCompiler:
    """Compiles the jobs of a sweep, group by group, and notes how their shapes came about."""

    def __init__(
        self,
        request: SweepRequest,
        prepared: list[TracedGroup],
        devices: Sequence[Any],
        workers: int,
        processes: int = 1,
    ):
        self.request, self.prepared, self.devices = request, prepared, devices
        self.workers, self.processes = workers, processes
        self.chosen: list[timing.Choice] = []
        self.compiling = 0.0  # seconds

    def jobs(self, shapes: Sequence[Shape] | None = None) -> Iterator[Job]:
        """One job a group, in the shapes given or in those that the planner chooses."""
        for number, group in enumerate(self.prepared):
            start = time.monotonic()
            if shapes is None:
                job, choice = plan_job(self.request, group, self.devices, self.workers)
            else:
                job = build_job(self.request, group, self.devices, shapes[number])
                choice = timing.Choice(shapes[number], "stored")
            self._note(choice, start)
            yield job

    def again(self, before: ResumableSweep, points: list[np.ndarray] | None) -> Iterator[Job]:
        """One job a group whose lanes go on, those of all points or of some."""
        for group in self.prepared:
            start, choice = time.monotonic(), timing.Choice(before.shapes[group.number], "given")
            which = np.arange(len(group.group.points)) if points is None else points[group.number]
            if not which.size:
                self.chosen.append(choice)
                continue
            blocks = cut_lanes(Block(which, np.arange(self.request.seeds)), choice.shape)
            job = build_job(self.request, group, self.devices, choice.shape, blocks)
            self._note(choice, start)
            yield from before.going_on(job)

    def archive(self, where: RunDirectory) -> tuple[list[Job], UnfinishedRun]:
        """All jobs, and the directory that they are kept in: in the shapes of the run that is there, if one is."""
        while True:
            shapes = shapes_there(where, self.request, self.prepared)
            self.chosen.clear()
            jobs = list(self.jobs(shapes))
            described = self.described(optimum_known="optimum" in jobs[0].programs[0].output)
            try:
                setting = CompiledSweep(
                    self.request, self.prepared, jobs, self.chosen, self.workers, self.processes, described
                )
                return jobs, UnfinishedRun.open(setting, where)
            except OtherRunError:
                if shapes is not None:
                    raise  # else another process was faster, perhaps with other shapes

    def narrower(self, job: Job, block: Block) -> Job:
        """The job of a block's lanes in blocks of half the size."""
        shape = timing.halve(Shape(len(block.points), len(block.seeds)))
        self.chosen.append(timing.Choice(shape, "memory"))
        lanes = Block(np.unique(block.points), np.unique(block.seeds))
        blocks = cut_lanes(lanes, shape)
        made = build_job(self.request, self.prepared[job.group], self.devices, shape, blocks)
        return made._replace(first_step=job.first_step, resumed=job.resumed, returns_lanes=job.returns_lanes)

    def described(self, *, optimum_known: bool) -> Description:
        """What the sweep is."""
        plan = _recorded(self.request.plan, self.chosen, self.workers, len(self.devices))
        stochastic = any(p.problem.sample is not None for p in self.prepared)
        return describe(self.request, stochastic=stochastic, optimum_known=optimum_known, plan=plan)

    def timings(self, seconds: float) -> dict[str, float]:
        """How long everything took."""
        planning = sum(choice.seconds for choice in self.chosen)
        return {"seconds": seconds, "compile_seconds": self.compiling, "plan_seconds": planning}

    def _note(self, choice: timing.Choice, start: float) -> None:
        self.compiling += time.monotonic() - start - choice.seconds
        self.chosen.append(choice)


def _recorded(plan: Plan, chosen: Sequence[timing.Choice], workers: int, devices: int) -> dict[str, Any]:
    """The plan as it was carried out; its shapes in the order of the groups."""
    shapes = {name: [getattr(choice.shape, name) for choice in chosen] for name in timing.Shape._fields}
    one = lambda values: values[0] if len(set(values)) == 1 else values
    return {name: one(values) for name, values in shapes.items()} | {
        "chosen": one([choice.source for choice in chosen]),
        "tile": plan.tile,
        "segment": plan.segment,
        "workers": workers,
        "devices": devices,
    }
