"""The planner: times shapes of blocks on the user's own program, if the sweep is long enough to pay for it."""

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax

from gdkit.environment import keep_precision
from gdkit.sweeps.plan.shapes import Plan, Shape
from gdkit.sweeps.programs.build import Carry
from gdkit.sweeps.programs.compile import advance_block
from gdkit.sweeps.programs.job import Job, get_block_inputs, is_out_of_memory

_COMPILE = 1.0  # lower bound, in seconds, on the estimated time to compile another shape
_SAMPLE = 0.1  # seconds per timing: long against the clock, short against the sweep
_BETTER = 0.97  # a shape has to take less than this share of the time to be preferred, because of noise

seconds_per_step: dict[str, float] = {}  # fingerprint of a program -> seconds per step of a block, as last measured


class Choice(NamedTuple):
    """A shape, and how it was chosen."""

    shape: Shape
    source: str  # "given", "rule", "timed", "remembered" or "memory": halved until it fitted
    seconds: float = 0.0  # time that the choice took, compiling included


class PlannerSettings(NamedTuple):
    """How `choose_job` times shapes, and for how long."""

    share: float  # largest part of the sweep's time for planning, compiling included
    time_lane_step: Callable[[Job, int], float]  # seconds per lane-step of a job run by so many workers


def choose_job(
    make: Callable[[Shape], Job],
    shape: Shape,
    plan: Plan,
    *,
    most: int,
    lanes: int,
    workers: int,
    settings: PlannerSettings,
) -> tuple[Job, Choice]:
    """A job compiled by `make`, and how its shape was chosen.

    Starts from `shape`, which `choose_shape` chose, and moves to neighboring shapes that are faster, as long as
    compiling and timing them stays within a twentieth of the expected time of the sweep. What `plan` sets is not
    varied. `most` is the largest number of lanes per block, `lanes` the number of lanes of the group, and `workers` the
    number of blocks that run at once. Choices are cached in the process, by program, device and versions.
    """
    start = time.monotonic()
    job, shape, halved = _fit_memory(make, shape)
    compiled = time.monotonic()
    if plan.width is not None or plan.chunk is not None or halved:
        return job, Choice(shape, "memory" if halved else "given")
    fingerprint = job.programs[0].fingerprint
    earlier = chosen_shapes.get(fingerprint)
    if earlier is not None:
        return (job if earlier == shape else make(earlier)), Choice(earlier, "remembered")
    budget = settings.share * measure_pace(job, workers) * lanes * job.steps
    per_shape = max(compiled - start, _COMPILE) + _SAMPLE
    if budget < per_shape:
        return job, Choice(shape, "rule", time.monotonic() - compiled)
    last = time.monotonic() + budget - per_shape
    job, shape = _try_neighbors(
        make, job, shape, plan, most=most, workers=workers, until=last, time_lane_step=settings.time_lane_step
    )
    chosen_shapes[fingerprint] = shape
    return job, Choice(shape, "timed", time.monotonic() - compiled)


def measure_pace(job: Job, workers: int) -> float:
    """Seconds per lane-step when all workers are busy; timed on a few steps, unless the program has run before."""
    fingerprint, at_once = job.programs[0].fingerprint, job.lanes_per_block * workers
    if fingerprint not in seconds_per_step:
        seconds_per_step[fingerprint] = _time_few_steps(job, workers) * at_once
    return seconds_per_step[fingerprint] / at_once


def _try_neighbors(
    make: Callable[[Shape], Job],
    job: Job,
    shape: Shape,
    plan: Plan,
    *,
    most: int,
    workers: int,
    until: float,
    time_lane_step: Callable[[Job, int], float],
) -> tuple[Job, Shape]:
    """The fastest shape found by widening, narrowing and unrolling, each for as long as it helps."""
    double_width = lambda shape: shape._replace(width=2 * shape.width)
    double_unroll = lambda shape: shape._replace(unroll=2 * shape.unroll)
    changes = () if shape.chunk else (double_width, halve)  # blocks in chunks are as wide as workers need
    changes += (double_unroll,) if plan.unroll is None and job.programs[0].layout.stride > 1 else ()
    best, tried = time_lane_step(job, workers), {shape}
    for change in changes:
        while (other := change(shape)) not in tried and other.lanes_at_once <= 4 * most and time.monotonic() < until:
            tried.add(other)
            try:
                candidate = make(other)
                seconds = time_lane_step(candidate, workers)
            except jax.errors.JaxRuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                break
            if seconds > _BETTER * best:
                break
            best, job, shape = seconds, candidate, other
    return job, shape


def _fit_memory(make: Callable[[Shape], Job], shape: Shape) -> tuple[Job, Shape, bool]:
    """The job of `shape`, halved until it compiles within the device's memory; and whether it was halved."""
    halved = False
    while True:
        try:
            return make(shape), shape, halved
        except jax.errors.JaxRuntimeError as error:
            if not is_out_of_memory(error) or shape.lanes == 1:
                raise
            shape, halved = halve(shape), True


def halve(shape: Shape) -> Shape:
    """The shape of blocks with half as many lanes.

    >>> halve(Shape(8, 3)), halve(Shape(1, 3))
    (Shape(width=4, depth=3, unroll=1, chunk=0), Shape(width=1, depth=2, unroll=1, chunk=0))
    """
    if shape.chunk > 1:
        chunk = (shape.chunk + 1) // 2
        return shape._replace(width=shape.width // shape.chunk * chunk, chunk=chunk)
    if shape.width > 1:
        return shape._replace(width=(shape.width + 1) // 2)
    return shape._replace(depth=(shape.depth + 1) // 2)


def time_lane_step(job: Job, workers: int, sample: float = _SAMPLE) -> float:
    """Seconds per lane-step when all workers are busy: the least of three samples, of `sample` seconds in all."""
    steps = max(8, int(sample / 3 / max(_time_few_steps(job, workers) * job.lanes_per_block, 1e-7)))
    return min(_time_steps(job, workers, steps) for _ in range(3))


def _time_few_steps(job: Job, workers: int) -> float:
    """Seconds per lane-step, from as few steps as the clock can resolve, after a first call that allocates."""
    _time_steps(job, workers, 1)
    steps, seconds = 1, 0.0
    while seconds * steps * job.lanes_per_block < _SAMPLE / 20 and steps < job.steps:
        steps = min(4 * steps, job.steps)
        seconds = _time_steps(job, workers, steps)
    return max(seconds, 1e-12)


def _time_steps(job: Job, workers: int, steps: int) -> float:
    """Seconds per lane-step over the first steps of the first blocks, one block per worker, side by side."""
    steps = min(steps, job.steps)
    started = []
    for worker in range(workers):
        device = worker % len(job.programs)
        inputs = get_block_inputs(job, job.blocks[worker % len(job.blocks)], device)
        started.append((device, inputs, job.programs[device].start(*inputs)))
    jax.block_until_ready([carry for *_, carry in started])
    gate = threading.Barrier(workers + 1)

    def run(device: int, inputs: tuple, carry: Carry) -> None:
        gate.wait()
        jax.block_until_ready(advance_block(job.programs[device], inputs, carry, 0, steps, job.steps))

    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(keep_precision(run), *arguments) for arguments in started]
        gate.wait()
        start = time.perf_counter()
        for future in futures:
            future.result()
        return (time.perf_counter() - start) / (steps * job.lanes_per_block * workers)


DEFAULT_PLANNER = PlannerSettings(share=0.05, time_lane_step=time_lane_step)

# Choices by the fingerprint of the program in the shape that `choose_shape` chose. The command line stores them between
# processes.

chosen_shapes: dict[str, Shape] = {}


def export_choices() -> dict[str, tuple[int, ...]]:
    """Every choice of this process, by fingerprint."""
    return {fingerprint: tuple(shape) for fingerprint, shape in chosen_shapes.items()}


def import_choices(choices: Mapping[str, Any]) -> None:
    """Add the choices of an earlier process; skip entries that are not shapes."""
    for fingerprint, numbers in choices.items():
        is_whole = isinstance(numbers, list | tuple) and all(isinstance(n, int) and n >= 0 for n in numbers)
        if is_whole and len(numbers) == len(Shape._fields) and all(numbers[:2]):
            chosen_shapes[fingerprint] = Shape(*numbers)
