"""``gdkit check``: what a run would take, from one compiled block an optimizer and a few of its steps.

And whether the gradient of its loss is right.
"""

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from rich.console import Console
from rich.table import Table

from gdkit import binding, descent
from gdkit.app import resources
from gdkit.app.config import build
from gdkit.app.config.schema import Config, StudyConfig
from gdkit.app.resources import Resources, amount
from gdkit.errors import RunError, warn
from gdkit.gradients import GradientCheck, check_gradient
from gdkit.problems import Problem
from gdkit.sweeps.execution.lanes import KEPT_BYTES
from gdkit.sweeps.plan.blocks import Block, cut_blocks
from gdkit.sweeps.plan.shapes import Plan, count_workers
from gdkit.sweeps.programs.compile import advance_block
from gdkit.sweeps.programs.groups import TracedGroup, plan_job, trace_groups
from gdkit.sweeps.programs.job import Job, count_lane_bytes, get_block_inputs
from gdkit.sweeps.request import SweepRequest, select_devices
from gdkit.sweeps.request import check_request as checked
from gdkit.sweeps.rundir.manifest import STORED_BYTES
from gdkit.tables import count, format_duration

_TIMED_SECONDS = 0.3  # long enough for the clock, short enough to wait for


class Cost(NamedTuple):
    """What the groups of one optimizer take; times are those of one worker."""

    optimizer: str
    programs: int
    lanes: int
    blocks: int
    width: int  # lanes a block
    chosen: str  # how the planner came to that
    memory: int  # bytes, of one block at work
    data: int  # bytes, shared by all blocks
    disk: int  # bytes of results
    kept: int  # bytes of all lanes at the last step
    carry: int  # bytes of a block on its way
    compile_seconds: float
    step_seconds: float  # of one step of one block


def check(config: Config, folder: Path) -> None:
    """Prints what a run of `config` to `folder` would take; everything it names is checked on the way.

    Raises:
      GdkitError: something that the config names cannot be used; there is no room for the run.
      RunError: the gradient of its loss is wrong.
    """
    console = Console(highlight=False)
    if isinstance(config, StudyConfig):
        build.resolve(config, ("experiment",), config.experiment)
        console.print(f"{config.name}: {config.experiment} is there. A study's cost is known to itself alone.")
        return
    arguments = build.arguments(config)
    build.thresholds_of(config)
    with build.located(config, ("sweep",)):
        request = checked(**arguments)
        prepared = list(trace_groups(request))
        costs = list(_costs(request, prepared))
        gradients = list(_gradients(request, prepared))
    console.print(f"{config.name}: {request.lane_count:,} runs of {request.steps:,} steps; nothing has been run\n")
    console.print(_table(costs))
    console.print()
    needed = _needed(costs)
    console.print(_totals(costs, needed, request.steps, gradients))
    _check_room(request, needed, folder)
    wrong = [gradient for gradient in gradients if not gradient.ok]
    if wrong:
        console.print(f"\n{wrong[0]}", markup=False)
        raise RunError("jax.grad and central differences of the loss disagree: look at its custom derivative rules")


def _gradients(request: SweepRequest, prepared: list[TracedGroup]) -> Iterator[GradientCheck]:
    """The gradient of each problem's loss where it starts, on its first batch, against central differences."""
    init_key, sample_key = descent.keys_of(request.key)
    for problem in {id(group.problem): group.problem for group in prepared}.values():
        made = problem.init(init_key) if problem.init_is_function else problem.init
        params, aux = made if problem.has_aux else (made, ())
        batch = binding.batch_of(problem, jnp.int32(0), sample_key, problem.data)

        def loss(params: Any, batch: Any, aux: Any, problem: Problem = problem) -> Any:
            return binding.objective(problem, None, batch, aux)(params)[0]

        yield check_gradient(loss, params, batch, aux)


def _costs(request: SweepRequest, prepared: list[TracedGroup]) -> Iterator[Cost]:
    """One cost an optimizer; the first of its groups is compiled and timed, and stands for the others."""
    groups: dict[str, list[TracedGroup]] = {}
    for group in prepared:
        groups.setdefault(str(group.group.section.label), []).append(group)
    for label, several in groups.items():
        begin = time.monotonic()
        devices = select_devices(request.plan)
        job, choice = plan_job(request, several[0], devices, count_workers(request.plan, len(devices)))
        compile_seconds = time.monotonic() - begin - choice.seconds
        block = job.blocks[0]
        blocks = [cut_blocks(len(p.group.points), request.seeds, choice.shape) for p in several]
        lanes = sum(len(p.group.points) for p in several) * request.seeds
        yield Cost(
            optimizer=label,
            programs=len(several),
            lanes=lanes,
            blocks=sum(map(len, blocks)),
            width=choice.shape.lanes,
            chosen=choice.source,
            memory=_memory(job),
            data=_bytes(job.shared[0].arrays),
            disk=lanes * _bytes_a_lane(job, block),
            kept=count_lane_bytes(job) // len(job.blocks) * sum(map(len, blocks)),
            carry=_bytes(job.programs[0].carry),
            compile_seconds=compile_seconds * len(several),
            step_seconds=_step_seconds(job, block),
        )


def _step_seconds(job: Job, block: Block) -> float:
    """Seconds a step of one block, from as many steps as fit the time; ended lanes would cost nothing."""
    inputs, program = get_block_inputs(job, block), job.programs[0]
    steps, seconds = 1, 0.0
    while seconds < _TIMED_SECONDS and steps < job.steps:
        steps = min(job.steps, max(2 * steps, int(steps * _TIMED_SECONDS / max(seconds, 1e-4))))
        carry = jax.block_until_ready(program.start(*inputs))
        begin = time.perf_counter()
        jax.block_until_ready(advance_block(program, inputs, carry, 0, steps, job.steps))
        seconds = time.perf_counter() - begin
    return seconds / steps


def _memory(job: Job) -> int:
    """Arguments, outputs and temporaries of a block, less what the compiler shares between them."""
    analysis: Any = job.programs[0].advance.memory_analysis()
    sizes = ("argument_size_in_bytes", "output_size_in_bytes", "temp_size_in_bytes")
    return sum(getattr(analysis, size) for size in sizes) - analysis.alias_size_in_bytes


def _bytes_a_lane(job: Job, block: Block) -> int:
    inputs, program = get_block_inputs(job, block), job.programs[0]
    return _bytes(program.finish(*inputs, program.start(*inputs))) // (len(block.points) * len(block.seeds))


def _bytes(tree: Any) -> int:
    leaves = (leaf for leaf in jax.tree.leaves(tree) if hasattr(leaf, "dtype"))
    return sum(leaf.dtype.itemsize * math.prod(leaf.shape) for leaf in leaves)


def _table(costs: list[Cost]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bright_black")
    table.add_column("optimizer", vertical="bottom")
    for head in ("programs", "runs", "blocks", "runs a\nblock", "memory\na block", "compile", "a step of\na block"):
        table.add_column(head, justify="right", vertical="bottom")
    for c in costs:
        sizes = [f"{c.programs:,}", f"{c.lanes:,}", f"{c.blocks:,}", f"{c.width:,}", amount(c.memory)]
        table.add_row(c.optimizer, *sizes, format_duration(c.compile_seconds), f"{1e3 * c.step_seconds:.3g} ms")
    return table


_SOURCES = {
    "given": "blocks as they were asked for",
    "rule": "blocks as the rule has them, since timing others would take longer than it could save",
    "timed": "blocks timed on this machine, and remembered",
    "remembered": "blocks as they were timed before",
    "memory": "blocks halved until they fitted the memory",
}


_DRAWN = 1800  # bytes a lane that regimes, figures and report take, measured with 300,000 lanes


def _needed(costs: list[Cost]) -> Resources:
    """What a run is likely to take.

    Memory: blocks at work, data, and results twice, as they are put together; then what judges and draws them. Disk:
    results twice, in tiles and in the one file at the end; a carry of each block at work, and its follower. Both: lanes
    that can go on, if they are few.
    """
    results, kept = sum(c.disk for c in costs), sum(c.kept for c in costs)
    workers = count_workers(Plan(), len(jax.local_devices()))
    memory = resources.peak() + workers * max(c.memory for c in costs) + max(c.data for c in costs) + 2 * results
    memory += _DRAWN * sum(c.lanes for c in costs)
    disk = 2 * results + 2 * workers * max(c.carry for c in costs)
    return Resources(memory + kept * (kept <= KEPT_BYTES), disk + kept * (kept <= STORED_BYTES))


def _check_room(request: SweepRequest, needed: Resources, folder: Path) -> None:
    free = resources.there(folder)
    surely = resources.shortage(resources.least(request.lane_count, request.recorded_points), free)
    if surely:
        raise resources.refused(request.lane_count, surely)
    likely = resources.shortage(needed, free)
    if likely:
        warn(f"it may not fit: it needs about {likely}. {resources.SMALLER}.")


def _totals(costs: list[Cost], needed: Resources, steps: int, gradients: list[GradientCheck]) -> Table:
    workers = count_workers(Plan(), len(jax.local_devices()))
    compiling = sum(c.compile_seconds for c in costs)
    running = sum(c.blocks * steps * c.step_seconds for c in costs) / workers
    table = Table.grid(padding=(0, 2))
    compiled = f"and up to {format_duration(compiling)} of compiling, which is kept for the next run"
    table.add_row("time", f"about {format_duration(running)} on {count(workers, 'worker')}, {compiled}")
    table.add_row("plan", "; ".join(dict.fromkeys(_SOURCES[c.chosen] for c in costs)))
    mine = amount(resources.peak())
    table.add_row("memory", f"about {amount(needed.memory)} at most, of which Python and JAX are {mine}")
    parts = "results and lanes as they can go on, besides figures and report"
    table.add_row("disk", f"about {amount(needed.disk)} at most: {parts}")
    leaves = [leaf for gradient in gradients for leaf in gradient.leaves]
    right = sum(leaf.ok for leaf in leaves)
    dtypes = " and ".join(sorted({gradient.dtype for gradient in gradients}))
    arrays = count(len(leaves), "array")
    table.add_row("gradient", f"agrees with central differences in {right} of {arrays} of params, in {dtypes}")
    return table
