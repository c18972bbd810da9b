"""The jobs of a sweep, compiled group by group."""

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from gdkit.errors import OtherRunError
from gdkit.problems.problem import count_validation_rows, maximized_names
from gdkit.sweeps.description import Description, describe
from gdkit.sweeps.execution.head_start import HeadStart
from gdkit.sweeps.execution.lanes import ResumableSweep
from gdkit.sweeps.execution.settings import DEFAULT_SETTINGS, ExecutionSettings
from gdkit.sweeps.plan.blocks import Block, cut_lanes
from gdkit.sweeps.plan.shapes import Place, Plan, Shape, count_workers
from gdkit.sweeps.programs import timing
from gdkit.sweeps.programs.groups import TracedGroup, plan_job
from gdkit.sweeps.programs.job import Job
from gdkit.sweeps.programs.places import count_devices
from gdkit.sweeps.request import SweepRequest, select_devices
from gdkit.sweeps.rundir.archive import UnfinishedRun
from gdkit.sweeps.rundir.manifest import CompiledSweep, RunDirectory, stored_shapes


class JobCompiler:
    """Compiles the jobs of a sweep, and records their shapes and how long it took.

    `devices` and `workers`, the threads that run blocks at once, are by default those of the plan; `processes` is the
    number of processes that run tiles at once.
    """

    def __init__(
        self,
        request: SweepRequest,
        groups: list[TracedGroup],
        devices: Sequence[Place] | None = None,
        workers: int | None = None,
        processes: int = 1,
        settings: ExecutionSettings = DEFAULT_SETTINGS,
    ):
        self.request, self.groups = request, groups
        self.devices = select_devices(request.plan) if devices is None else devices
        self.workers = count_workers(request.plan, len(self.devices)) if workers is None else workers
        if any(group.facts.mesh for group in groups):
            self.workers = 1  # as of a mesh that divides lanes
        self.processes, self.settings = processes, settings
        self.choices: list[timing.Choice] = []
        self.compile_seconds = 0.0

    def compile_jobs(self, shapes: Sequence[Shape] | None = None) -> Iterator[Job]:
        """One job per group, in the given shapes or in those that the planner chooses."""
        for number, group in enumerate(self.groups):
            begin = time.monotonic()
            if shapes is None:
                hooks: dict[str, Any] = {"build": self.settings.build_job, "settings": self.settings.planner}
                job, choice = plan_job(self.request, group, self.devices, self.workers, **hooks)
            else:
                job = self.settings.build_job(self.request, group, self.devices, shapes[number])
                choice = timing.Choice(shapes[number], "stored")
            self._record(choice, begin)
            yield job

    def compile_resumed_jobs(self, resumed: ResumableSweep, points: list[np.ndarray] | None) -> Iterator[Job]:
        """The jobs that resume the lanes of an earlier sweep: of all points, or per group of some."""
        for group in self.groups:
            begin, choice = time.monotonic(), timing.Choice(resumed.shapes[group.number], "given")
            own = np.arange(len(group.group.points)) if points is None else points[group.number]
            if not own.size:
                self.choices.append(choice)
                continue
            blocks = cut_lanes(Block(own, np.arange(self.request.seeds)), choice.shape)
            job = self.settings.build_job(self.request, group, self.devices, choice.shape, blocks)
            self._record(choice, begin)
            yield from resumed.resume(job)

    def open_run(self, directory: RunDirectory, head_start: HeadStart) -> tuple[list[Job], UnfinishedRun]:
        """All jobs, and the run in a directory; in the shapes of the run that the directory holds, if it holds one.

        Blocks of a new run, unless it has shards, are started in `head_start` while later jobs are compiled.
        """
        while True:
            shapes = stored_shapes(directory, self.request, self.groups)
            self.choices.clear()
            jobs = []
            for job in self.compile_jobs(shapes):
                jobs.append(job)
                if shapes is None and directory.shard == (0, 1) and len(jobs) < len(self.groups):
                    head_start.add(job)
            description = self.describe(optimum_known="optimum" in jobs[0].programs[0].output)
            compiled = CompiledSweep(
                self.request, self.groups, jobs, self.choices, self.workers, self.processes, description,
                self.settings.stored_lane_bytes, self.settings.seconds_per_lane_step,
            )  # fmt: skip
            try:
                run = UnfinishedRun.open(compiled, directory, self.settings.store_class)
                self.settings = head_start.stop(self.settings)
                return jobs, run
            except OtherRunError:
                if shapes is not None:
                    raise  # else another process has just made the directory, perhaps with other shapes

    def halve_block(self, job: Job, block: Block) -> Job:
        """The job of a block's lanes in blocks of half the size."""
        shape = timing.halve(job.shape)
        self.choices.append(timing.Choice(shape, "memory"))
        blocks = cut_lanes(Block(np.unique(block.points), np.unique(block.seeds)), shape)
        halved = self.settings.build_job(self.request, self.groups[job.group], self.devices, shape, blocks)
        return halved._replace(first_step=job.first_step, resumed=job.resumed, returns_lanes=job.returns_lanes)

    def describe(self, *, optimum_known: bool) -> Description:
        """The description of the sweep, with the plan as it was carried out."""
        devices = sum(count_devices(place) for place in self.devices)
        plan = _executed_plan(self.request.plan, self.choices, self.workers, devices)
        return describe(
            self.request,
            stochastic=any(group.facts.is_stochastic for group in self.groups),
            optimum_known=optimum_known,
            maximized=dict.fromkeys(name for group in self.groups for name in maximized_names(group.problem)),
            validation_rows=min(count_validation_rows(group.problem) for group in self.groups),
            plan=plan,
        )

    def timings(self, seconds: float) -> dict[str, float]:
        """Seconds of the whole sweep, of compiling, and of planning."""
        planning = sum(choice.seconds for choice in self.choices)
        return {"seconds": seconds, "compile_seconds": self.compile_seconds, "plan_seconds": planning}

    def _record(self, choice: timing.Choice, begin: float) -> None:
        self.compile_seconds += time.monotonic() - begin - choice.seconds
        self.choices.append(choice)


def _executed_plan(plan: Plan, choices: Sequence[timing.Choice], workers: int, devices: int) -> dict[str, Any]:
    """The plan as it was carried out: one value where all groups have the same, else one per group."""
    shapes = {name: [getattr(choice.shape, name) for choice in choices] for name in timing.Shape._fields}
    one = lambda values: values[0] if len(set(values)) == 1 else values
    return {name: one(values) for name, values in shapes.items()} | {
        "chosen": one([choice.source for choice in choices]),
        "tile": plan.tile,
        "segment": plan.segment,
        "workers": workers,
        "devices": devices,
    }
