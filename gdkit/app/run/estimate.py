"""``gdkit check``: the cost of a run, from one compiled block per optimizer, and whether its gradient is right."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from rich.console import Console
from rich.table import Table

from gdkit import binding, descent
from gdkit.app import resources
from gdkit.app.config.build import build_arguments, build_thresholds, locate_errors, resolve
from gdkit.app.config.schema import Config, StudyConfig
from gdkit.app.resources import Resources, format_bytes
from gdkit.errors import RunError, warn
from gdkit.formatting import count, format_duration
from gdkit.gradients import GradientCheck, check_gradient
from gdkit.problems import Problem
from gdkit.problems.learner import LearnerProblem
from gdkit.sweeps.execution.settings import DEFAULT_SETTINGS
from gdkit.sweeps.plan.blocks import Block, cut_blocks
from gdkit.sweeps.plan.shapes import Plan, count_workers
from gdkit.sweeps.programs.compile import advance_block
from gdkit.sweeps.programs.groups import TracedGroup, plan_job, trace_groups
from gdkit.sweeps.programs.job import Job, count_lane_bytes, get_block_inputs
from gdkit.sweeps.request import KeepStates, SweepRequest, check_request, select_devices
from gdkit.types import Params, PyTree

_TIMED_SECONDS = 0.3  # long enough for the clock, short enough to wait for
_OUTPUT_BYTES = 1800  # per lane, of memory for regimes, figures and report; measured with 300,000 lanes
_SOURCES = {
    "given": "blocks as requested",
    "rule": "blocks by rule, since timing alternatives would take longer than it could save",
    "timed": "blocks timed on this machine; the choice is stored for later runs",
    "remembered": "blocks timed by an earlier run",
    "memory": "blocks halved until they fit the memory",
}


class Cost(NamedTuple):
    """The cost of one optimizer's runs; times are those of one worker."""

    optimizer: str
    programs: int
    lanes: int
    blocks: int
    width: int  # lanes per block
    source: str  # how the planner chose the blocks
    memory: int  # bytes, of one block while it runs
    data: int  # bytes, shared by all blocks
    disk: int  # bytes of results
    resumable: int  # bytes of all lanes at the last step
    carry: int  # bytes of a checkpoint of one block
    compile_seconds: float
    step_seconds: float  # per step of one block


def check(config: Config, folder: Path, measure_free: Callable[[Path], Resources]) -> None:
    """Print the cost of a run of `config` to `folder`, after checking all that the config names.

    Raises:
      GdkitError: the config names something that cannot be used, or memory or disk are too small.
      RunError: the gradient of the loss is wrong.
    """
    console = Console(highlight=False)
    if isinstance(config, StudyConfig):
        resolve(config, ("experiment",), config.experiment)
        console.print(f"{config.name}: {config.experiment} exists. The cost of a study cannot be estimated.")
        return
    arguments = build_arguments(config)
    build_thresholds(config)
    with locate_errors(config, ("sweep",)):
        request = check_request(**arguments)
        groups = list(trace_groups(request))
        costs = list(_measure_costs(request, groups))
        gradients = list(_check_gradients(request, groups))
    runs = f"{count(request.lane_count, 'run')} of {count(request.steps, 'step')}"
    console.print(f"{config.name}: {runs}; nothing has been run\n")
    console.print(build_cost_table(costs))
    console.print()
    needed = _estimate_peak(costs, request.keep_states)
    console.print(_build_totals_table(costs, needed, request.steps, gradients))
    _check_resources(request, needed, measure_free(folder))
    wrong = [gradient for gradient in gradients if not gradient.ok]
    if wrong:
        console.print(f"\n{wrong[0]}", markup=False)
        raise RunError("jax.grad and central differences of the loss disagree. Check its custom derivative rules")


def _check_gradients(request: SweepRequest, groups: list[TracedGroup]) -> Iterator[GradientCheck]:
    """The gradient of each problem's loss at its start, on its first batch, against central differences."""
    init_key, sample_key = descent.split_key(request.key)
    problems = {id(group.problem): group.problem for group in groups}.values()
    for problem in (problem for problem in problems if not isinstance(problem, LearnerProblem)):
        start = problem.init(init_key) if problem.init_is_function else problem.init
        params, aux = start if problem.has_aux else (start, ())
        batch = binding.get_batch(problem, jnp.int32(0), sample_key, binding.get_arrays(problem).data)

        def loss(params: Params, batch: PyTree, aux: PyTree, problem: Problem = problem) -> jax.Array:
            return binding.objective(problem, None, batch, aux)(params)[0]

        yield check_gradient(loss, params, batch, aux)


def _measure_costs(request: SweepRequest, groups: list[TracedGroup]) -> Iterator[Cost]:
    """One cost per optimizer: its first group is compiled and timed, and represents the others."""
    for label, members in group_by_optimizer(groups).items():
        start = time.monotonic()
        devices = select_devices(request.plan)
        job, choice = plan_job(request, members[0], devices, count_workers(request.plan, len(devices)))
        compile_seconds = time.monotonic() - start - choice.seconds
        block = job.blocks[0]
        blocks = sum(len(cut_blocks(len(member.group.points), request.seeds, choice.shape)) for member in members)
        lanes = sum(len(member.group.points) for member in members) * request.seeds
        yield Cost(
            optimizer=label,
            programs=len(members),
            lanes=lanes,
            blocks=blocks,
            width=choice.shape.lanes,
            source=choice.source,
            memory=count_block_bytes(job),
            data=count_bytes(job.shared[0].arrays),
            disk=lanes * _count_result_bytes(job, block),
            resumable=count_lane_bytes(job) // len(job.blocks) * blocks,
            carry=count_bytes(job.programs[0].carry),
            compile_seconds=compile_seconds * len(members),
            step_seconds=time_step(job, block),
        )


def group_by_optimizer(groups: Iterable[TracedGroup]) -> dict[str, list[TracedGroup]]:
    """The groups of each optimizer, by its label; those of a Learner as ``learner``."""
    by_optimizer: dict[str, list[TracedGroup]] = {}
    for group in groups:
        by_optimizer.setdefault(group.group.section.label or "learner", []).append(group)
    return by_optimizer


def time_step(job: Job, block: Block) -> float:
    """Seconds per step of one block, over as many steps as fit the time limit."""
    inputs, program = get_block_inputs(job, block), job.programs[0]
    steps, seconds = 1, 0.0
    while seconds < _TIMED_SECONDS and steps < job.steps:
        steps = min(job.steps, max(2 * steps, int(steps * _TIMED_SECONDS / max(seconds, 1e-4))))
        carry = jax.block_until_ready(program.start(*inputs))
        start = time.perf_counter()
        jax.block_until_ready(advance_block(program, inputs, carry, 0, steps, job.steps))
        seconds = time.perf_counter() - start
    return seconds / steps


def count_block_bytes(job: Job) -> int:
    """Bytes of a block's arguments, outputs and temporaries, without those that share memory."""
    analysis: Any = job.programs[0].advance.memory_analysis()
    sizes = ("argument_size_in_bytes", "output_size_in_bytes", "temp_size_in_bytes")
    return sum(getattr(analysis, size) for size in sizes) - analysis.alias_size_in_bytes


def _count_result_bytes(job: Job, block: Block) -> int:
    inputs, program = get_block_inputs(job, block), job.programs[0]
    return count_bytes(program.finish(*inputs, program.start(*inputs))) // (len(block.points) * len(block.seeds))


def count_bytes(tree: PyTree) -> int:
    """Bytes of all arrays of a tree."""
    leaves = (leaf for leaf in jax.tree.leaves(tree) if hasattr(leaf, "dtype"))
    return sum(leaf.dtype.itemsize * math.prod(leaf.shape) for leaf in leaves)


def _estimate_peak(costs: list[Cost], keep_states: KeepStates) -> Resources:
    """The likely peak use of memory and disk.

    Memory: the running blocks, the data, the results twice, since they are concatenated, and regimes, figures and
    report. Disk: the results twice, as tiles and as one file, two checkpoints per running block, figures and report.
    Both: the states of all lanes, if they are small or `keep_states` is "last" or "best"; states at the best
    evaluations are part of the lanes.
    """
    results, resumable = sum(c.disk for c in costs), sum(c.resumable for c in costs)
    workers = count_workers(Plan(), len(jax.local_devices()))
    memory = (
        resources.measure_peak_memory()
        + workers * max(c.memory for c in costs)
        + max(c.data for c in costs)
        + 2 * results
    )
    memory += _OUTPUT_BYTES * sum(c.lanes for c in costs)
    disk = 2 * results + 2 * workers * max(c.carry for c in costs)
    disk += resources.estimate_report(sum(c.lanes for c in costs))
    if keep_states is None:
        return Resources(memory, disk)
    memory += resumable * (resumable <= DEFAULT_SETTINGS.lane_bytes)
    is_stored = keep_states in ("last", "best") or resumable <= DEFAULT_SETTINGS.stored_lane_bytes
    return Resources(memory, disk + resumable * is_stored)


def _check_resources(request: SweepRequest, likely: Resources, free: Resources) -> None:
    """Raise if less is free than the run needs at least; warn if less is free than its likely peak."""
    minimum = resources.estimate_minimum(request.lane_count, request.recorded_points)
    resources.check_minimum(request.lane_count, minimum, free)
    shortage = resources.describe_shortage(likely, free)
    if shortage:
        warn(f"the run may not fit: it is likely to need {shortage}. {resources.REMEDY}.")


def build_cost_table(costs: list[Cost]) -> Table:
    """One row per optimizer."""
    per_block = ("runs per\nblock", "memory\nper block", "compile\ntime", "time per\nblock step")
    rows = (
        (
            c.optimizer, f"{c.programs:,}", f"{c.lanes:,}", f"{c.blocks:,}", f"{c.width:,}", format_bytes(c.memory),
            format_duration(c.compile_seconds), f"{1e3 * c.step_seconds:.3g} ms",
        )
        for c in costs
    )  # fmt: skip
    return build_table(("programs", "runs", "blocks", *per_block), rows)


def build_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A table of numbers with a row per optimizer, whose name comes first, that fits a terminal of 80 columns."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bright_black")
    table.add_column("optimizer", vertical="bottom")
    for head in heads:
        table.add_column(head, justify="right", vertical="bottom")
    for row in rows:
        table.add_row(*row)
    return table


def _build_totals_table(costs: list[Cost], likely: Resources, steps: int, gradients: list[GradientCheck]) -> Table:
    workers = count_workers(Plan(), len(jax.local_devices()))
    compiling = sum(c.compile_seconds for c in costs)
    running = sum(c.blocks * steps * c.step_seconds for c in costs) / workers
    leaves = [leaf for gradient in gradients for leaf in gradient.leaves]
    right = sum(leaf.ok for leaf in leaves)
    dtypes = " and ".join(sorted({gradient.dtype for gradient in gradients}))
    agreement = f"agrees with central differences in {right} of {count(len(leaves), 'params array')}, in {dtypes}"
    time_on = f"about {format_duration(running)} on {count(workers, 'worker')}"
    peak = resources.measure_peak_memory()
    rows = {
        "time": f"{time_on}, plus up to {format_duration(compiling)} to compile programs, which are cached",
        "plan": "; ".join(dict.fromkeys(_SOURCES[c.source] for c in costs)),
        "memory": f"about {format_bytes(likely.memory)} at most, {format_bytes(peak)} of it Python and JAX",
        "disk": f"about {format_bytes(likely.disk)} at most for results, checkpoints, figures and report",
        "gradient": agreement if gradients else "not checked, since a learner makes its own updates",
    }
    table = Table.grid(padding=(0, 2))
    for name, text in rows.items():
        table.add_row(name, text)
    return table
