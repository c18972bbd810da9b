"""Jobs: the compiled programs and placed arrays of a group."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from gdkit.monitors import Limits
from gdkit.sweeps.plan.blocks import Block
from gdkit.sweeps.programs.build import Carry, Inputs, Program, Shared
from gdkit.sweeps.programs.compile import compile_program, jit_program
from gdkit.sweeps.programs.packing import Packed
from gdkit.sweeps.request import Recording


class HostLanes(NamedTuple):
    """Lanes on the host that can go on, all at one step; of keys their data."""

    lanes: Packed  # each array (points, seeds, ...)
    curve: np.ndarray  # (points, seeds, steps recorded so far)


class Job(NamedTuple):
    """A group, ready to run: compiled programs and placed arrays, one of each a device."""

    programs: list[Program]
    shared: list[Shared]
    traced: dict[str, np.ndarray]  # name -> (points,)
    steps: int
    blocks: list[Block]  # all of one shape
    group: int = 0  # its number in the sweep
    begin: int = 0  # the step at which its lanes go on
    kept: HostLanes | None = None  # lanes that go on; None where they start
    keep: bool = False  # whether the lanes are handed out, so that they can go on after the last step
    unroll: int = 1  # steps in the body of its programs' loop
    starts: dict[tuple[int, bytes], Carry] | None = None  # by device and seeds, where these alone decide them

    @property
    def lanes_per_block(self) -> int:
        """Lanes that a call advances, padding included."""
        return len(self.blocks[0].points) * len(self.blocks[0].seeds)


def compile_job(
    problem: Any,
    factory: Any,
    static: Mapping[str, Any],
    traced: Mapping[str, np.ndarray],
    watching: Recording,
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
    program = jit_program(problem, factory, static, watching, unroll)
    shared = shared._replace(limits=Limits(*(np.asarray(x, dtype) for x in shared.limits)))
    placed = [jax.device_put(shared, device) for device in devices]
    traced = {name: values.astype(dtype) for name, values in traced.items()}
    job = Job([], placed, traced, steps, blocks, group, unroll=unroll, starts={})
    first = lambda number: get_block_inputs(job, blocks[0], number)
    return job._replace(
        programs=[compile_program(program, first(number), device) for number, device in enumerate(devices)]
    )


def get_block_inputs(job: Job, block: Block, device: int = 0) -> tuple[Inputs, Shared]:
    """What the programs of `job` take for `block`, before the lanes."""
    traced = {name: values[block.points] for name, values in job.traced.items()}
    return Inputs(traced, block.points.astype(np.int32), block.seeds.astype(np.int32)), job.shared[device]


def is_out_of_memory(error: Exception) -> bool:
    """Whether a device had no memory left; a CPU kills the process instead."""
    return isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)


def count_lane_bytes(job: Job) -> int:
    """What the lanes of a job take."""
    block = sum(x.dtype.itemsize * math.prod(x.shape) for x in jax.tree.leaves(job.programs[0].carry.lanes))
    return len(job.blocks) * block
