"""``gdkit check --device``: the cost of a run on an accelerator, which need not be present, from compiled programs."""

from collections.abc import Iterator
from typing import NamedTuple

import jax
from rich.console import Console
from rich.table import Table

from gdkit.app.config.build import build_arguments, locate_errors
from gdkit.app.config.schema import Config, StudyConfig
from gdkit.app.resources import format_bytes
from gdkit.app.run import estimate
from gdkit.formatting import count, format_duration
from gdkit.sweeps.plan.blocks import cut_blocks
from gdkit.sweeps.plan.shapes import count_workers
from gdkit.sweeps.programs import targets
from gdkit.sweeps.programs.groups import TracedGroup, compile_absent, plan_job, trace_groups
from gdkit.sweeps.programs.job import Job
from gdkit.sweeps.programs.kernels import Work, count_per_step
from gdkit.sweeps.request import SweepRequest, check_request, select_devices


class DeviceCost(NamedTuple):
    """The cost of the runs of one optimizer on a device."""

    optimizer: str
    lanes: int
    blocks: int
    width: int  # lanes per block
    memory: int  # bytes of one block while it runs
    fitting: int  # most lanes per block that fit in the memory of the device
    work: Work  # per step of one block
    seconds: float  # per step of one block


def check_device(config: Config, name: str, free_memory: float) -> None:
    """Print the cost of a run on a device: a name of `targets.TARGETS`, or ``here``, with so much free memory.

    Raises:
      MissingPackageError: the compiler for the device is not installed.
      GdkitError: the config names something that cannot be used.
    """
    console = Console(highlight=False)
    device = jax.devices()[0] if name == targets.HERE else targets.get_device(name)
    if isinstance(config, StudyConfig):
        console.print(f"{config.name}: the cost of a study cannot be estimated.")
        return
    with locate_errors(config, ("sweep",)):
        request = check_request(**build_arguments(config))
        costs = list(_measure_costs(request, device, name, free_memory))
    title = device.device_kind if name == targets.HERE else targets.TARGETS[name].title
    runs = f"{count(request.lane_count, 'run')} of {count(request.steps, 'step')}"
    console.print(f"{config.name}: {runs} on {title}; nothing has been run\n")
    console.print(_build_block_table(costs))
    console.print()
    console.print(_build_step_table(costs))
    seconds = sum(cost.blocks * request.steps * cost.seconds for cost in costs) / _count_workers(request, name)
    console.print(f"\ntime  {_describe_time(name, seconds)}", markup=False)


def _measure_costs(request: SweepRequest, device: jax.Device, name: str, free_memory: float) -> Iterator[DeviceCost]:
    """One cost per optimizer: its first group is compiled, and represents the others."""
    for label, members in estimate.group_by_optimizer(trace_groups(request)).items():
        job = _compile(request, members[0], device, name)
        shape, layout = job.shape, job.programs[0].layout
        steps = layout.stride if layout.stride > 1 else max(layout.unroll, 1)
        work = count_per_step(job.programs[0].advance.as_text(), steps)
        memory, data = estimate.count_block_bytes(job), estimate.count_bytes(job.shared[0].arrays)
        capacity = free_memory if name == targets.HERE else targets.TARGETS[name].memory
        yield DeviceCost(
            optimizer=label,
            lanes=sum(len(member.group.points) for member in members) * request.seeds,
            blocks=sum(len(cut_blocks(len(member.group.points), request.seeds, shape)) for member in members),
            width=shape.lanes,
            memory=memory,
            fitting=int((capacity - data) // max((memory - data) / shape.lanes, 1)),
            work=work,
            seconds=_estimate_seconds(job, work, name),
        )


def _compile(request: SweepRequest, group: TracedGroup, device: jax.Device, name: str) -> Job:
    if name != targets.HERE:
        return compile_absent(request, group, device)
    devices = select_devices(request.plan)
    return plan_job(request, group, devices, count_workers(request.plan, len(devices)))[0]


def _count_workers(request: SweepRequest, name: str) -> int:
    return count_workers(request.plan, len(select_devices(request.plan))) if name == targets.HERE else 1


def _estimate_seconds(job: Job, work: Work, name: str) -> float:
    """Seconds per step of one block: measured here, else by the model."""
    if name == targets.HERE:
        return estimate.time_step(job, job.blocks[0])
    return targets.estimate_seconds(work, targets.TARGETS[name])


def _describe_time(name: str, seconds: float) -> str:
    if name == targets.HERE:
        return f"about {format_duration(seconds)}, measured"
    if targets.TARGETS[name].platform == "tpu":
        return f"at least {format_duration(seconds)}, from the memory bandwidth alone; no TPU has been measured"
    return f"about {format_duration(seconds)} without compiling, by a model fitted to measurements on an H200"


def _build_block_table(costs: list[DeviceCost]) -> Table:
    heads = ("runs", "blocks", "runs per\nblock", "memory\nper block", "runs that\nfit")
    rows = (
        (c.optimizer, f"{c.lanes:,}", f"{c.blocks:,}", f"{c.width:,}", format_bytes(c.memory), f"{c.fitting:,}")
        for c in costs
    )
    return estimate.build_table(heads, rows)


def _build_step_table(costs: list[DeviceCost]) -> Table:
    heads = ("kernels\nper step", "copies\namong them", "host syncs\nper step", "bytes\nper step", "time\nper step")
    counts = lambda work: [f"{x:.3g}" for x in (work.kernels, work.copies, work.syncs)]
    rows = ((c.optimizer, *counts(c.work), format_bytes(c.work.bytes), f"{1e6 * c.seconds:.3g} µs") for c in costs)
    return estimate.build_table(heads, rows)
