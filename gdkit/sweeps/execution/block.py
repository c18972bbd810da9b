"""One block, advanced from its start to its end."""

import math
import threading
import time
from collections.abc import Callable

import jax
import numpy as np

from gdkit.sweeps.plan.blocks import Block
from gdkit.sweeps.programs.build import Carry, Program
from gdkit.sweeps.programs.compile import advance_block, read_block
from gdkit.sweeps.programs.job import HostLanes, Job, get_block_inputs
from gdkit.sweeps.programs.packing import Packed, to_device
from gdkit.sweeps.programs.tiles import Checkpoint
from gdkit.sweeps.programs.timing import seconds_per_step


def run_block(
    job: Job,
    block: Block,
    device: int,
    segment: int | None,
    report: Callable[[int], None],
    stop: threading.Event,
    checkpoint: Checkpoint | None = None,
) -> tuple[dict[str, np.ndarray], Packed | None]:
    """Advance a block to its end, segment by segment: what its lanes read, and its lanes before the last observation.

    Nothing if asked to stop on the way.
    """
    inputs, program = get_block_inputs(job, block, device), job.programs[device]
    carry = _begun(job, block, device, checkpoint)
    t0 = kept = int(carry.t)
    kept_at = time.monotonic()
    report(t0 - job.first_step)
    while t0 < job.steps:
        if stop.is_set():
            if checkpoint and kept < t0:
                checkpoint.save(carry)
            return {}, None
        size = segment or _fitting(program, _KEPT_SECONDS if checkpoint else _SEGMENT_SECONDS)
        begin, t1 = time.monotonic(), min(t0 + size, job.steps)
        carry = advance_block(program, inputs, carry, t0, t1, job.steps)
        going = bool(carry.going)  # waits for the segment
        report(t1 - t0 if going else job.steps - t0)
        if going:  # else the steps were fewer
            seconds_per_step[program.fingerprint] = max(time.monotonic() - begin, 1e-4) / (t1 - t0)
        t0 = t1 if going else job.steps
        # what is found out with a short segment is not worth a file; it is kept with the next one
        due = segment is not None or time.monotonic() - kept_at >= _KEPT_SECONDS / 2
        if checkpoint and t0 < job.steps and due:
            checkpoint.save(carry)
            kept, kept_at = t0, time.monotonic()
    lanes = carry.lanes if job.returns_lanes else None
    carry = advance_block(program, inputs, carry, job.steps, job.steps + 1, job.steps)
    return read_block(program, inputs, carry), lanes


def _fitting(program: Program, seconds: float) -> int:
    """Steps that a block makes in about so many seconds."""
    known = seconds_per_step.get(program.fingerprint)
    return _FIRST_SEGMENT if known is None else max(1, min(int(seconds / known), 2**30))


def _begun(job: Job, block: Block, device: int, checkpoint: Checkpoint | None) -> Carry:
    """The carry that a block begins with: as it was kept last, if it was."""
    kept = checkpoint.load(job, device) if checkpoint else None
    if kept is not None:
        return kept
    if job.resumed is not None:
        return _carry_at(job, job.resumed, block, device)
    program, seeds = job.programs[device], (device, block.seeds.tobytes())
    if job.start_cache is None or not program.starts_alike:
        return program.start(*get_block_inputs(job, block, device))
    carry = job.start_cache.get(seeds)
    if carry is None:
        carry = program.start(*get_block_inputs(job, block, device))
        size = sum(x.dtype.itemsize * math.prod(x.shape) for x in jax.tree.leaves(program.carry))
        if (len(job.start_cache) + 1) * size <= _STARTS_BYTES:
            job.start_cache[seeds] = carry
    return carry


def replay(
    job: Job, block: Block, at: tuple[int, int], onset: int, around: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Run a block again and watch one lane, at place `at` of it, step by step around `onset`.

    Steps are single calls of the same program, and so change nothing. Returns the loss and each leaf's norm of params
    and of their change, (watched steps,), with ``step``; and all that the lane reads at its end.
    """
    inputs, program = get_block_inputs(job, block), job.programs[0]
    to = lambda carry, t0, t1: advance_block(program, inputs, carry, t0, t1, job.steps)
    mine = lambda tree: jax.tree.map(lambda x: np.asarray(x)[at], tree)
    params = lambda carry: mine(carry.lanes.unpack().state.params)
    first, last = max(0, onset - around), min(onset + around + 1, job.steps)
    carry = to(program.start(*inputs), 0, first)
    watched: dict[str, list] = {"step": list(range(first, last)), "loss": []}
    for t in range(first, last):
        before = jax.tree_util.tree_leaves_with_path(params(carry))
        carry = to(carry, t, t + 1)
        after = jax.tree.leaves(params(carry))
        watched["loss"].append(mine(read_block(program, inputs, carry)["final_loss"]))
        for (path, old), new in zip(before, after, strict=True):
            name = jax.tree_util.keystr(path) or "params"
            watched.setdefault(f"norm{name}", []).append(np.linalg.norm(np.ravel(old)))
            watched.setdefault(f"update{name}", []).append(np.linalg.norm(np.ravel(new - old)))
    carry = to(carry, last, job.steps + 1)
    return {name: np.asarray(values) for name, values in watched.items()}, mine(read_block(program, inputs, carry))


def _carry_at(job: Job, kept: HostLanes, block: Block, device: int) -> Carry:
    """The carry of a block of lanes that go on, as its program takes it."""
    like = job.programs[device].carry
    of_block = lambda x: x[np.ix_(block.points, block.seeds)]

    leaf = lambda x, like: to_device(np.swapaxes(of_block(x), 0, 1), like)
    curve = np.zeros(like.curve.shape, like.curve.dtype)
    curve[: kept.curve.shape[-1]] = np.transpose(of_block(kept.curve))
    return Carry(np.int32(job.first_step), jax.tree.map(leaf, kept.lanes, like.lanes), curve, np.bool_(True))


# How long a segment should take: short enough for an interruption and for progress, long enough to cost nothing.
_SEGMENT_SECONDS = 0.5
_KEPT_SECONDS = 2.0  # where the lanes are written to disk at its end
_FIRST_SEGMENT = 64
_STARTS_BYTES = 2**25  # of starts that a job keeps for its later blocks
