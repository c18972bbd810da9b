"""Execution: a group's programs and arrays made ready, and a block of its lanes advanced to its end."""

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from gdkit.monitors import Limits
from gdkit.sweeps.blocks import Block, on_device
from gdkit.sweeps.packing import Packed
from gdkit.sweeps.programs import Carry, Inputs, Program, Shared, Watching, advance, compiled, jitted, read_out


class Kept(NamedTuple):
    """Lanes on the host that can go on, all at one step; of keys their data."""

    lanes: Packed  # each array (points, seeds, ...)
    curve: np.ndarray  # (points, seeds, steps recorded so far)


paces: dict[str, float] = {}  # seconds a step of a block, by a program's fingerprint, as it was last seen


class Job(NamedTuple):
    """A group, ready to run: compiled programs and placed arrays, one of each a device."""

    programs: list[Program]
    shared: list[Shared]
    traced: dict[str, np.ndarray]  # name -> (points,)
    steps: int
    blocks: list[Block]  # all of one shape
    group: int = 0  # its number in the sweep
    begin: int = 0  # the step at which its lanes go on
    kept: Kept | None = None  # lanes that go on; None where they start
    keep: bool = False  # whether the lanes are handed out, so that they can go on after the last step
    unroll: int = 1  # steps in the body of its programs' loop
    starts: dict[tuple[int, bytes], Carry] | None = None  # by device and seeds, where these alone decide them

    @property
    def lanes_a_block(self) -> int:
        """Lanes that a call advances, padding included."""
        return len(self.blocks[0].points) * len(self.blocks[0].seeds)


def prepare(
    problem: Any,
    factory: Any,
    static: Mapping[str, Any],
    traced: Mapping[str, np.ndarray],
    watching: Watching,
    shared: Shared,
    *,
    dtype: Any,
    steps: int,
    blocks: list[Block],
    devices: Sequence[Any],
    unroll: int = 1,
    group: int = 0,
) -> Job:
    """Compile the programs of a group and place its arrays, in the caller's thread."""
    program = jitted(problem, factory, static, watching, unroll)
    shared = shared._replace(limits=Limits(*(np.asarray(x, dtype) for x in shared.limits)))
    placed = [jax.device_put(shared, device) for device in devices]
    traced = {name: values.astype(dtype) for name, values in traced.items()}
    job = Job([], placed, traced, steps, blocks, group, unroll=unroll, starts={})
    first = lambda number: inputs_of(job, blocks[0], number)
    return job._replace(programs=[compiled(program, first(number), device) for number, device in enumerate(devices)])


def inputs_of(job: Job, block: Block, device: int = 0) -> tuple[Inputs, Shared]:
    """What the programs of `job` take for `block`, before the lanes."""
    traced = {name: values[block.points] for name, values in job.traced.items()}
    return Inputs(traced, block.points.astype(np.int32), block.seeds.astype(np.int32)), job.shared[device]


class Checkpoint(NamedTuple):
    """Where a block's lanes are kept at the end of each segment."""

    load: Callable[[Job, int], Carry | None]  # for a device; None where there is nothing to go on from
    save: Callable[[Carry], None]


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
    inputs, program = inputs_of(job, block, device), job.programs[device]
    carry = _begun(job, block, device, checkpoint)
    t0 = kept = int(carry.t)
    kept_at = time.monotonic()
    report(t0 - job.begin)
    while t0 < job.steps:
        if stop.is_set():
            if checkpoint and kept < t0:
                checkpoint.save(carry)
            return {}, None
        size = segment or _fitting(program, _KEPT_SECONDS if checkpoint else _SEGMENT_SECONDS)
        begin, t1 = time.monotonic(), min(t0 + size, job.steps)
        carry = advance(program, inputs, carry, t0, t1, job.steps)
        going = bool(carry.going)  # waits for the segment
        report(t1 - t0 if going else job.steps - t0)
        if going:  # else the steps were fewer
            paces[program.fingerprint] = max(time.monotonic() - begin, 1e-4) / (t1 - t0)
        t0 = t1 if going else job.steps
        # what is found out with a short segment is not worth a file; it is kept with the next one
        due = segment is not None or time.monotonic() - kept_at >= _KEPT_SECONDS / 2
        if checkpoint and t0 < job.steps and due:
            checkpoint.save(carry)
            kept, kept_at = t0, time.monotonic()
    lanes = carry.lanes if job.keep else None
    carry = advance(program, inputs, carry, job.steps, job.steps + 1, job.steps)
    return read_out(program, inputs, carry), lanes


def _fitting(program: Program, seconds: float) -> int:
    """Steps that a block makes in about so many seconds."""
    known = paces.get(program.fingerprint)
    return _FIRST_SEGMENT if known is None else max(1, min(int(seconds / known), 2**30))


def _begun(job: Job, block: Block, device: int, checkpoint: Checkpoint | None) -> Carry:
    """The carry that a block begins with: as it was kept last, if it was."""
    kept = checkpoint.load(job, device) if checkpoint else None
    if kept is not None:
        return kept
    if job.kept is not None:
        return _carry_at(job, job.kept, block, device)
    program, seeds = job.programs[device], (device, block.seeds.tobytes())
    if job.starts is None or not program.starts_alike:
        return program.start(*inputs_of(job, block, device))
    carry = job.starts.get(seeds)
    if carry is None:
        carry = program.start(*inputs_of(job, block, device))
        size = sum(x.dtype.itemsize * math.prod(x.shape) for x in jax.tree.leaves(program.carry))
        if (len(job.starts) + 1) * size <= _STARTS_BYTES:
            job.starts[seeds] = carry
    return carry


def replay(
    job: Job, block: Block, at: tuple[int, int], onset: int, around: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Run a block again and watch one lane, at place `at` of it, step by step around `onset`.

    Steps are single calls of the same program, and so change nothing. Returns the loss and each leaf's norm of params
    and of their change, (watched steps,), with ``step``; and all that the lane reads at its end.
    """
    inputs, program = inputs_of(job, block), job.programs[0]
    to = lambda carry, t0, t1: advance(program, inputs, carry, t0, t1, job.steps)
    mine = lambda tree: jax.tree.map(lambda x: np.asarray(x)[at], tree)
    params = lambda carry: mine(carry.lanes.tree().state.params)
    first, last = max(0, onset - around), min(onset + around + 1, job.steps)
    carry = to(program.start(*inputs), 0, first)
    watched: dict[str, list] = {"step": list(range(first, last)), "loss": []}
    for t in range(first, last):
        before = jax.tree_util.tree_leaves_with_path(params(carry))
        carry = to(carry, t, t + 1)
        after = jax.tree.leaves(params(carry))
        watched["loss"].append(mine(read_out(program, inputs, carry)["final_loss"]))
        for (path, old), new in zip(before, after, strict=True):
            name = jax.tree_util.keystr(path) or "params"
            watched.setdefault(f"norm{name}", []).append(np.linalg.norm(np.ravel(old)))
            watched.setdefault(f"update{name}", []).append(np.linalg.norm(np.ravel(new - old)))
    carry = to(carry, last, job.steps + 1)
    return {name: np.asarray(values) for name, values in watched.items()}, mine(read_out(program, inputs, carry))


def _carry_at(job: Job, kept: Kept, block: Block, device: int) -> Carry:
    """The carry of a block of lanes that go on, as its program takes it."""
    like = job.programs[device].carry
    of_block = lambda x: x[np.ix_(block.points, block.seeds)]

    leaf = lambda x, like: on_device(np.swapaxes(of_block(x), 0, 1), like)
    curve = np.zeros(like.curve.shape, like.curve.dtype)
    curve[: kept.curve.shape[-1]] = np.transpose(of_block(kept.curve))
    return Carry(np.int32(job.begin), jax.tree.map(leaf, kept.lanes, like.lanes), curve, np.bool_(True))


# How long a segment should take: short enough for an interruption and for progress, long enough to cost nothing.
_SEGMENT_SECONDS = 0.5
_KEPT_SECONDS = 2.0  # where the lanes are written to disk at its end
_FIRST_SEGMENT = 64
_STARTS_BYTES = 2**25  # of starts that a job keeps for its later blocks


def is_out_of_memory(error: Exception) -> bool:
    """Whether a device had no memory left; a CPU kills the process instead."""
    return isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)
