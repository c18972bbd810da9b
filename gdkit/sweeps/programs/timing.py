"""The planner: times shapes of blocks on the user's own program, where the sweep is long enough to pay for it."""

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax

from gdkit.sweeps.plan.shapes import Plan, Shape
from gdkit.sweeps.programs.compile import advance_block
from gdkit.sweeps.programs.job import Job, get_block_inputs, is_out_of_memory

seconds_per_step: dict[str, float] = {}  # seconds a step of a block, by a program's fingerprint, as it was last seen


SHARE = 0.05  # of the sweep, that planning may take with all its compiling
_COMPILE = 1.0  # seconds that another shape's program takes at least, however soon the first one was there
_SAMPLE = 0.1  # seconds of one timing: long against the clock, short against the sweep
_BETTER = 0.97  # a shape must take this share of the time to be preferred, so that noise changes little


class Choice(NamedTuple):
    """A shape and how it came about."""

    shape: Shape
    source: str  # "given", "rule", "timed", "remembered" or "memory": halved until it fitted
    seconds: float = 0.0  # that choosing took, compiling included


def choose_job(
    make: Callable[[Shape], Job], shape: Shape, plan: Plan, *, most: int, lanes: int, workers: int
) -> tuple[Job, Choice]:
    """A compiled job, and how its shape was chosen.

    Starts from `shape`, the rule's, and goes on to neighbours that are faster, as long as compiling and timing them
    stays within a twentieth of the time that the sweep will take. A choice is remembered in this process, by program,
    device and versions.

    Args:
      make: compiles the job of a shape.
      shape: that which the rule chose.
      plan: what the user fixed is not varied.
      most: lanes a block may have.
      lanes: of the whole group.
      workers: how many blocks run at once.
    """
    begin = time.monotonic()
    job, shape, halved = _fit_memory(make, shape)
    ready = time.monotonic()
    if plan.width is not None or halved:
        return job, Choice(shape, "memory" if halved else "given")
    program = job.programs[0].fingerprint
    known = _choices.get(program)
    if known is not None:
        return (job if known == shape else make(known)), Choice(known, "export_choices")
    expected = measure_pace(job, workers) * lanes * job.steps
    for_one = max(ready - begin, _COMPILE) + _SAMPLE
    if SHARE * expected < for_one:
        return job, Choice(shape, "rule", time.monotonic() - ready)
    last = time.monotonic() + SHARE * expected - for_one
    found, best = _try_neighbors(make, job, shape, plan, most=most, workers=workers, until=last)
    _choices[program] = best
    return found, Choice(best, "timed", time.monotonic() - ready)


def measure_pace(job: Job, workers: int) -> float:
    """Seconds that a step of a lane takes when all workers are busy; from as few steps as tell, unless it has run."""
    program, at_once = job.programs[0].fingerprint, job.lanes_per_block * workers
    if program not in seconds_per_step:
        seconds_per_step[program] = _time_few_steps(job, workers) * at_once
    return seconds_per_step[program] / at_once


def _try_neighbors(
    make: Callable[[Shape], Job], job: Job, shape: Shape, plan: Plan, *, most: int, workers: int, until: float
) -> tuple[Job, Shape]:
    """The fastest shape that is found by going wider, narrower, and to more steps a loop, each while that helps."""
    changes = (_double_width, halve) if plan.unroll is not None else (_double_width, halve, _double_unroll)
    best, seen = _time_lane_step(job, workers), {shape}
    for change in changes:
        while (other := change(shape)) not in seen and other.lanes <= 4 * most and time.monotonic() < until:
            seen.add(other)
            try:
                made = make(other)
                seconds = _time_lane_step(made, workers)
            except jax.errors.JaxRuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                break
            if seconds > _BETTER * best:
                break
            best, job, shape = seconds, made, other
    return job, shape


def _fit_memory(make: Callable[[Shape], Job], shape: Shape) -> tuple[Job, Shape, bool]:
    """The job of `shape`, or of the half of it that compiles within the device's memory."""
    halved = False
    while True:
        try:
            return make(shape), shape, halved
        except jax.errors.JaxRuntimeError as error:
            if not is_out_of_memory(error) or shape.lanes == 1:
                raise
            shape, halved = halve(shape), True


def halve(shape: Shape) -> Shape:
    """Half as many lanes a block.

    >>> halve(Shape(8, 3)), halve(Shape(1, 3))
    (Shape(width=4, depth=3, unroll=1), Shape(width=1, depth=2, unroll=1))
    """
    if shape.width > 1:
        return shape._replace(width=(shape.width + 1) // 2)
    return shape._replace(depth=(shape.depth + 1) // 2)


def _double_width(shape: Shape) -> Shape:
    return shape._replace(width=2 * shape.width)


def _double_unroll(shape: Shape) -> Shape:
    return shape._replace(unroll=2 * shape.unroll)


def _time_lane_step(job: Job, workers: int) -> float:
    """Seconds that a step of a lane takes when all workers are busy: the least of three samples."""
    steps = max(8, int(_SAMPLE / 3 / max(_time_few_steps(job, workers) * job.lanes_per_block, 1e-7)))
    return min(_time_steps(job, workers, steps) for _ in range(3))


def _time_few_steps(job: Job, workers: int) -> float:
    """The same, from as few steps as tell anything; not the first, for which threads and memory are only then got."""
    _time_steps(job, workers, 1)
    steps, seconds = 1, 0.0
    while seconds * steps * job.lanes_per_block < _SAMPLE / 20 and steps < job.steps:
        steps = min(4 * steps, job.steps)
        seconds = _time_steps(job, workers, steps)
    return max(seconds, 1e-12)


def _time_steps(job: Job, workers: int, steps: int) -> float:
    """Seconds a lane-step of the first steps of the first blocks, one a worker, side by side."""
    steps = min(steps, job.steps)
    started = []
    for worker in range(workers):
        device = worker % len(job.programs)
        inputs = get_block_inputs(job, job.blocks[worker % len(job.blocks)], device)
        started.append((device, inputs, job.programs[device].start(*inputs)))
    jax.block_until_ready([carry for *_, carry in started])
    gate = threading.Barrier(workers + 1)

    def run(device: int, inputs: Any, carry: Any) -> None:
        gate.wait()
        done = advance_block(job.programs[device], inputs, carry, 0, steps, job.steps)
        jax.block_until_ready(done)

    with ThreadPoolExecutor(workers) as pool:
        crew = [pool.submit(run, *one) for one in started]
        gate.wait()
        begin = time.perf_counter()
        for member in crew:
            member.result()
        return (time.perf_counter() - begin) / (steps * job.lanes_per_block * workers)


# What was chosen before, by the fingerprint of the rule's program. The command line keeps it between processes.

_choices: dict[str, Shape] = {}


def export_choices() -> dict[str, tuple[int, int, int]]:
    """Every choice of this process, by fingerprint."""
    return {name: tuple(shape) for name, shape in _choices.items()}


def import_choices(choices: Mapping[str, Any]) -> None:
    """Add choices of an earlier process; what is no shape is left out."""
    for name, numbers in choices.items():
        whole = isinstance(numbers, list | tuple) and all(isinstance(n, int) and n >= 0 for n in numbers)
        if whole and len(numbers) == len(Shape._fields) and all(numbers[:2]):
            _choices[name] = Shape(*numbers)
