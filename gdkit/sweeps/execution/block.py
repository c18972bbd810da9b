"""One block, advanced from its first step to its last."""

import contextlib
import functools
import threading
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import numpy as np

from gdkit.data.held_out import raise_source_errors
from gdkit.errors import RunError
from gdkit.monitors import EndKind
from gdkit.sweeps.execution.compaction import Compaction, choose_compaction
from gdkit.sweeps.execution.evaluations import (
    Evaluations,
    mask_after_end,
    read_latest,
    start_evaluations,
    write_evaluations,
)
from gdkit.sweeps.execution.feed import BlockFeed, open_feed
from gdkit.sweeps.plan.blocks import Block
from gdkit.sweeps.programs.build import BlockInputs, Carry, Program
from gdkit.sweeps.programs.compile import advance_block, evaluate_along, read_block
from gdkit.sweeps.programs.job import NO_EVALUATIONS, HostLanes, Job, count_carry_bytes, get_block_inputs
from gdkit.sweeps.programs.packing import Packed, to_device
from gdkit.sweeps.programs.tiles import Checkpoint, FinishedBlock, SegmentOutput
from gdkit.sweeps.programs.timing import seconds_per_step


class SegmentSettings(NamedTuple):
    """How long segments take: short enough for interruptions and progress, long enough to cost nothing."""

    first_steps: int = 64  # steps per segment until the speed of the program is known
    seconds: float = 0.5
    checkpoint_seconds: float = 2.0  # if a checkpoint is written at the end of each segment
    start_cache_bytes: int = 2**25  # most bytes of start carries that a job caches for its later blocks
    compaction_steps: int = 16  # before a block can be compacted for the first time: many lanes that diverge do so soon
    compaction_gain: float = 1.0  # seconds that a narrower block has to save per second of compiling its program


DEFAULT_SEGMENTS = SegmentSettings()
NO_SLOTS = contextlib.nullcontext()


@raise_source_errors()
def run_block(
    job: Job,
    block: Block,
    *,
    device: int,
    segment_steps: int | None,
    report_steps: Callable[[int], None],
    stop: threading.Event,
    checkpoint: Checkpoint | None = None,
    report_output: Callable[[SegmentOutput], None] | None = None,
    feed: BlockFeed | None = None,
    slots: contextlib.AbstractContextManager = NO_SLOTS,
    settings: SegmentSettings = DEFAULT_SEGMENTS,
) -> FinishedBlock | None:
    """Advance a block to its last step, segment by segment; None if `stop` was set before.

    `report_output` receives the values of the block at the end of each segment. With data on the host, batches come
    from `feed`, which the caller opens, and a segment runs within `slots`, which limit how many run at once.

    Raises:
      RunError: the program did not advance every lane to the last step or to its end.
    """
    inputs, program = get_block_inputs(job, block, device), job.programs[device]
    carry = _first_carry(job, block, device, checkpoint, settings.start_cache_bytes)
    evaluations = {name: np.array(values) for name, values in dict(carry.evaluations).items()}
    evaluations, carry = evaluations or start_evaluations(job, block), carry._replace(evaluations=())
    step = saved_step = int(carry.t) if bool(carry.going) else job.steps  # lanes that have ended have no segment left
    saved_at = time.monotonic()
    seconds = settings.checkpoint_seconds if checkpoint else settings.seconds
    report_steps(step - job.first_step)
    while step < job.steps:
        if stop.is_set():
            if checkpoint and saved_step < step:
                checkpoint.save(carry._replace(evaluations=evaluations))
            return None
        count = segment_steps or _steps_in(seconds, program, settings.first_steps)
        if step == 0 and program.layout.compacts:
            count = min(count, settings.compaction_steps)
        end = _end_segment(step, count, job.steps, program)
        if feed:
            inputs, batches_end = feed.serve(job, inputs, step, device)
            end = min(end, batches_end)
        with slots:
            compaction = choose_compaction(job, inputs, carry, device, step, settings.compaction_gain)
            carry, reached, pending = _advance_segment(job, program, inputs, carry, step, end, compaction)
            write_evaluations(evaluations, pending)
            report_steps(reached - step)
            step = reached
            # no checkpoint after the short segments that measure the speed; the next one covers their steps
            is_due = segment_steps is not None or time.monotonic() - saved_at >= settings.checkpoint_seconds / 2
            is_last = step == job.steps and not feed  # the tile follows; with `feed` other blocks may advance first
            if checkpoint and is_due and not is_last:
                checkpoint.save(carry._replace(evaluations=evaluations))
                saved_step, saved_at = step, time.monotonic()
        if report_output and step < job.steps:
            output = read_block(program, inputs, carry) | read_latest(evaluations, job, step)
            report_output(SegmentOutput(job, block, step, output))
    output = _end_block(job, device, inputs, carry, evaluations, feed)
    _check_end(job, block, output)
    if report_output:
        report_output(SegmentOutput(job, block, job.steps, output | read_latest(evaluations, job, job.steps)))
    return FinishedBlock(job, block, output, carry.lanes if job.returns_lanes else None)


def _end_block(
    job: Job, device: int, inputs: BlockInputs, carry: Carry, evaluations: Evaluations, feed: BlockFeed | None
) -> dict[str, np.ndarray]:
    """What a block whose carry is at its last step reports at its end, its last evaluations included."""
    program = job.programs[device]
    if feed and bool(carry.going):  # lanes that have ended see no batch
        inputs, _ = feed.serve(job, inputs, job.steps, device)
    carry = advance_block(program, inputs, carry, job.steps, job.steps + 1, job.steps)
    output = read_block(program, inputs, carry)
    if evaluations:
        write_evaluations(evaluations, [(-1, program.evaluate(*inputs, carry))])
        mask = lambda values: mask_after_end(values, job.evaluation_steps, output["end_step"])
        output |= {name: mask(values) for name, values in evaluations.items()}
    return output


def _check_end(job: Job, block: Block, output: Mapping[str, np.ndarray]) -> None:
    """Check that every lane has ended, at the last step unless it ended before; a faulty compiler may skip steps."""
    end_kind, end_step = output["end_kind"], output["end_step"]
    is_right = (end_kind != EndKind.RUNNING) & (end_step <= job.steps)
    is_right &= (end_kind != EndKind.STEPS) | (end_step == job.steps)
    if is_right.all():
        return
    points, seeds = (f"{items.min()} to {items.max()}" for items in block)
    raise RunError(
        f"group {job.group}, block of points {points} and seeds {seeds}: the compiled program left {np.sum(~is_right)} "
        f"of {is_right.size} lanes at step {end_step[~is_right].min()} of {job.steps}, and the block is discarded. "
        f"XLA miscompiled it: use another version of jaxlib (this is {jax.lib.__version__}) or remove options from "
        "XLA_FLAGS, and run the same command again."
    )


def _advance_segment(
    job: Job, program: Program, inputs: BlockInputs, carry: Carry, step: int, end: int, compaction: Compaction | None
) -> tuple[Carry, int, list[tuple[int, Packed]]]:
    """The carry advanced from `step` to `end`, and the step reached: the last one where every lane has ended.

    Also the places and the values of the evaluations on the way, computed without waiting for the device in between.
    """
    begin = time.monotonic()
    carry, pending = _advance_and_evaluate(job, program, inputs, carry, step, end, compaction)
    if not bool(carry.going):  # waits for the segment
        return carry, job.steps, pending
    advanced = compaction.program if compaction else program
    seconds_per_step[advanced.fingerprint] = max(time.monotonic() - begin, 1e-4) / (end - step)
    return carry, end, pending


def _advance_and_evaluate(
    job: Job, program: Program, inputs: BlockInputs, carry: Carry, step: int, end: int, compaction: Compaction | None
) -> tuple[Carry, list[tuple[int, Packed]]]:
    """The carry advanced from `step` to `end`, and the places and values of the evaluations after `step`.

    They read the carry between two calls that advance it, and change nothing but the monitors that observe them.
    """
    at, pending = step, []
    advance = compaction.advance if compaction else functools.partial(advance_block, program)
    for place in np.flatnonzero((job.evaluation_steps > step) & (job.evaluation_steps <= end)).tolist():
        if (due := int(job.evaluation_steps[place])) < job.steps:  # the last one is at the end of all lanes
            carry, at = advance(inputs, carry, at, due, job.steps), due
            carry, values = evaluate_along(program, inputs, carry)
            pending.append((place, values))
    if at < end:
        carry = advance(inputs, carry, at, end, job.steps)
    return carry, pending


def _steps_in(seconds: float, program: Program, first_steps: int) -> int:
    """The steps that a block makes in so many seconds; `first_steps` where its speed is not known yet."""
    pace = seconds_per_step.get(program.fingerprint)
    return first_steps if pace is None else max(1, min(int(seconds / pace), 2**30))


def _end_segment(step: int, count: int, steps: int, program: Program) -> int:
    """The end of a segment of about `count` steps: where a stride ends, so that all its steps are made in strides."""
    stride = program.layout.stride
    return min(-(-(step + count) // stride) * stride, steps)


def _first_carry(job: Job, block: Block, device: int, checkpoint: Checkpoint | None, cache_bytes: int) -> Carry:
    """The carry that a block begins with: its checkpoint, else the lanes that the job resumes, else its start.

    A start is computed once where only the seeds decide it.
    """
    saved = checkpoint.load(job, device) if checkpoint else None
    if saved is not None:
        return saved
    if job.resumed is not None:
        return _resumed_carry(job, job.resumed, block, device)
    program, seeds = job.programs[device], (device, block.seeds.tobytes())
    if job.start_cache is None or not program.starts_alike:
        return program.start(*get_block_inputs(job, block, device))
    carry = job.start_cache.get(seeds)
    if carry is None:
        carry = program.start(*get_block_inputs(job, block, device))
        if (len(job.start_cache) + 1) * count_carry_bytes(job) <= cache_bytes:
            job.start_cache[seeds] = carry
    return carry


def _resumed_carry(job: Job, lanes: HostLanes, block: Block, device: int) -> Carry:
    """The carry of a block of lanes on the host, after the evaluation that its monitors observe at this step."""
    program = job.programs[device]
    like = program.carry
    of_block = lambda x: x[np.ix_(block.points, block.seeds)]
    leaf = lambda x, like: to_device(np.swapaxes(of_block(x), 0, 1), like)
    curve = np.zeros(like.curve.shape, like.curve.dtype)
    curve[: lanes.curve.shape[-1]] = np.transpose(of_block(lanes.curve))
    carry = Carry(np.int32(job.first_step), jax.tree.map(leaf, lanes.lanes, like.lanes), curve, np.bool_(True))
    if program.observe is not None and job.first_step in job.evaluation_steps[:-1]:
        carry, _ = evaluate_along(program, get_block_inputs(job, block, device), carry)
    return carry


def replay(
    job: Job, block: Block, place: tuple[int, int], onset: int, around: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Run a block again and record one lane, at `place` in the block, step by step around `onset`.

    Steps are single calls of the same program, and so change nothing. Returns the loss and each leaf's norm of params
    and of their change, (recorded steps,), with ``step``; and the statistics of the lane at its end.
    """
    inputs, program = get_block_inputs(job, block), job.programs[0]
    lane_of = lambda tree: jax.tree.map(lambda x: np.asarray(x)[place], tree)
    params_of = lambda carry: lane_of(carry.lanes.unpack().state.params)
    first, last = max(0, onset - around), min(onset + around + 1, job.steps)
    recorded: dict[str, list] = {"step": list(range(first, last)), "loss": []}
    with open_feed(job, block) as batches, raise_source_errors():
        advance_to = functools.partial(_advance_to, job, inputs, batches)
        carry = advance_to(program.start(*inputs), 0, first)
        for step in range(first, last):
            before = jax.tree_util.tree_leaves_with_path(params_of(carry))
            carry = advance_to(carry, step, step + 1)
            after = jax.tree.leaves(params_of(carry))
            recorded["loss"].append(lane_of(read_block(program, inputs, carry)["final_loss"]))
            for (path, old), new in zip(before, after, strict=True):
                name = jax.tree_util.keystr(path) or "params"
                recorded.setdefault(f"norm{name}", []).append(np.linalg.norm(np.ravel(old)))
                recorded.setdefault(f"update{name}", []).append(np.linalg.norm(np.ravel(new - old)))
        carry = advance_to(carry, last, job.steps + 1)
        end = lane_of(read_block(program, inputs, carry))
    return {name: np.asarray(values) for name, values in recorded.items()}, end


def run_until(job: Job, block: Block, step: int) -> Packed:
    """Run a block again from its first step to `step`, and return its lanes there."""
    with open_feed(job, block) as batches:
        inputs = get_block_inputs(job, block)
        return _advance_to(job, inputs, batches, job.programs[0].start(*inputs), 0, step).lanes


def _advance_to(job: Job, inputs: BlockInputs, batches: BlockFeed | None, carry: Carry, step: int, end: int) -> Carry:
    """The carry advanced from `step` to `end`; evaluated on the way where its monitors observe that."""
    program = job.programs[0]
    if program.observe is None:
        job = job._replace(evaluation_steps=NO_EVALUATIONS)
    while batches and step < end and bool(carry.going):
        served, batches_end = batches.serve(job, inputs, step, 0)
        step, begin = min(end, batches_end), step
        carry, _ = _advance_and_evaluate(job, program, served, carry, begin, step, None)
    return carry if step == end else _advance_and_evaluate(job, program, inputs, carry, step, end, None)[0]
