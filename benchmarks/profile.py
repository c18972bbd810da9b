"""Time of a sweep by stage, and costs of statistics and of the tests for the end of a run."""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import gdkit
from benchmarks import timing, workloads
from benchmarks.operations import operations, side_by_side
from benchmarks.peers import CURVE_POINTS, OPTIONS, bare_lane, gdkit_peer, on_accelerator, start_of
from benchmarks.workloads import Workload
from gdkit import descent, monitors
from gdkit.sweeps.plan.blocks import Block
from gdkit.sweeps.plan.shapes import Shape, count_visible_cores
from gdkit.sweeps.programs.compile import advance_block
from gdkit.sweeps.programs.groups import build_job, plan_job, trace_groups
from gdkit.sweeps.programs.job import Job, get_block_inputs
from gdkit.sweeps.programs.layout import Layout
from gdkit.sweeps.request import Recording, check_request, select_curve_steps, select_devices
from gdkit.types import Monitor

SIZES = ("scalar", "small_mlp", "digits_mlp")
WATCHED: dict[str, tuple[tuple[Monitor, ...], int]] = {  # monitors and points of a curve
    "all statistics and a curve": (monitors.DEFAULT, CURVE_POINTS),
    "all statistics": (monitors.DEFAULT, 0),
    "ends": (monitors.BUILT_IN["ends"], 0),
    "loss statistics": ((monitors.loss_statistics(),), 0),
    "reversals": ((monitors.reversals(),), 0),
    "norms": ((monitors.norms(),), 0),
    "curve": ((), CURVE_POINTS),
    "none": ((), 0),
}


def run(*, quick: bool = False) -> dict[str, Any]:
    """Stages and costs of the main sizes."""
    sizes = SIZES[:1] if quick else SIZES
    return {name: _profile(workloads.make(name, quick=quick), 1 if quick else 7) for name in sizes}


def _profile(work: Workload, rounds: int) -> dict[str, Any]:
    job, shape, seconds = _plan(work, "all")
    jobs = {flavour: _plan(work, flavour)[0] for flavour in OPTIONS}
    costs = advance_seconds(work, jobs, rounds)
    staged = {flavour: stages(work, job, flavour, rounds) for flavour, job in jobs.items()}
    found = {"title": work.title, "first": seconds, "stages": staged, "advance": costs}
    if work.sizes and not on_accelerator():  # all steps of a scalar are one operation
        found["operations"] = operations(work, job, shape, CURVE_POINTS)
    return found


def _plan(work: Workload, flavour: str) -> tuple[Job, Shape, dict[str, float]]:
    """The job of a sweep, and the seconds of checking, tracing and compiling, and planning."""
    begun = time.perf_counter()
    axes = {"learning_rate": work.rates}
    request = check_request(work.problem, gdkit.sgd, axes, steps=work.steps, **OPTIONS[flavour])
    (prepared,) = trace_groups(request)
    checked = time.perf_counter()
    job, choice = plan_job(request, prepared, select_devices(request.plan), count_visible_cores())
    compiled = time.perf_counter() - checked - choice.seconds
    spent = {"check": checked - begun, "compile": compiled, "plan": choice.seconds}
    return job, choice.shape, spent


def stages(work: Workload, job: Job, flavour: str, rounds: int) -> dict[str, float]:
    """Seconds of a sweep by stage, mean per worker; the rest is spent in Python outside the workers."""
    workers = count_visible_cores()
    peer = gdkit_peer(work, flavour)
    peer.run()
    spent = []
    with ThreadPoolExecutor(workers) as pool:
        for _ in range(rounds):
            total = timing.seconds(peer.run)
            staged = np.sum(list(pool.map(lambda block: _time_stages(job, block), job.blocks)), axis=0) / workers
            spent.append((*staged, max(total - staged.sum(), 0.0)))
    names = ("start", "advance", "finish", "copy out", "rest")
    return dict(zip(names, np.median(spent, axis=0).tolist(), strict=True))


def _time_stages(job: Job, block: Block) -> list[float]:
    """Seconds of each stage of a block."""
    inputs, program, clock = get_block_inputs(job, block), job.programs[0], [time.perf_counter()]
    lanes = jax.block_until_ready(program.start(*inputs))
    clock.append(time.perf_counter())
    lanes = jax.block_until_ready(advance_block(program, inputs, lanes, 0, job.steps + 1, job.steps))
    clock.append(time.perf_counter())
    output = jax.block_until_ready(program.finish(*inputs, lanes))
    clock.append(time.perf_counter())
    jax.tree.map(np.asarray, output)
    clock.append(time.perf_counter())
    return list(np.diff(clock))


def advance_seconds(work: Workload, jobs: Mapping[str, Job], rounds: int) -> dict[str, float]:
    """Seconds of all steps of one block, or chunk of it, per worker: with statistics, without, and without gdkit.

    All in the shape of the job with all statistics; the ends have the loops of their own job.
    """
    whole = jobs["all"].shape
    shape = whole._replace(width=whole.chunk or whole.width, chunk=0)
    layout = lambda name: jobs["ends" if name == "ends" else "all"].programs[0].layout._replace(chunk=0)
    ways = {name: _advance(work, shape, layout(name), *watched) for name, watched in WATCHED.items()}
    rates = [work.rates[: shape.width]] * count_visible_cores()
    start = start_of(work)
    for name, lane in {"bare, by hand": bare_lane(work, shape.unroll), "updates alone": _updates(work, shape)}.items():
        program = jax.jit(jax.vmap(lane, in_axes=(0, None)))
        ways[name] = lambda program=program: side_by_side(lambda r: program(r, start), rates)
    for way in ways.values():
        way()
    reference = next(iter(ways))
    times = timing.time_interleaved(ways, reference=reference, budget=3.0, most=rounds, least=min(3, rounds))
    return {name: timing.median(taken) for name, taken in times.items()}


def _advance(
    work: Workload, shape: Shape, layout: Layout, watched: tuple[Monitor, ...], points: int
) -> Callable[[], Any]:
    request = check_request(work.problem, gdkit.sgd, {"learning_rate": work.rates}, steps=work.steps)
    (group,) = trace_groups(request)
    recording = Recording(watched, select_curve_steps(points, work.steps))
    job = build_job(request, group, jax.local_devices()[:1], shape, recording=recording, layout=layout)
    inputs = [get_block_inputs(job, job.blocks[i % len(job.blocks)]) for i in range(count_visible_cores())]
    given = [(each, jax.block_until_ready(job.programs[0].start(*each))) for each in inputs]
    to_end = lambda each: advance_block(job.programs[0], *each, 0, work.steps + 1, work.steps)
    return lambda: side_by_side(to_end, given)


def _updates(work: Workload, shape: Shape) -> Callable[[Any, Any], Any]:
    """Only the params, without observations."""
    step = descent.step_map(work.problem, gdkit.sgd)

    def run(rate: Any, start: Any) -> Any:
        state = gdkit.types.State(start.params, (), gdkit.sgd(rate).init(start.params))
        body = lambda s, t: (step(s, {"learning_rate": rate}, t, start.key, start.data)[0], None)
        return jax.lax.scan(body, state, jnp.arange(work.steps, dtype=jnp.int32), unroll=shape.unroll)[0].params

    return run
