"""Jobs: the compiled programs and placed arrays of a group."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from gdkit.data import Source
from gdkit.sweeps.plan.blocks import Block
from gdkit.sweeps.plan.shapes import Shape
from gdkit.sweeps.programs.build import BlockInputs, Carry, Inputs, Program, Shared
from gdkit.sweeps.programs.packing import Packed, get_host_dtype
from gdkit.types import PyTree

NO_EVALUATIONS = np.zeros(0, np.int32)


class HostLanes(NamedTuple):
    """Lanes on the host from which a job continues, all at one step; typed keys as their data."""

    lanes: Packed  # each array (points, seeds, ...)
    curve: np.ndarray  # (points, seeds, steps recorded so far)
    evaluations: Mapping[str, np.ndarray] = {}  # name -> (points, seeds, evaluations so far)


class Job(NamedTuple):
    """A group that is ready to run: compiled programs and placed arrays, one of each per device."""

    programs: list[Program]
    shared: list[Shared]
    traced: dict[str, np.ndarray]  # name -> (points,)
    steps: int
    blocks: list[Block]  # all of one shape
    group: int = 0  # the number of the group in the sweep
    first_step: int = 0  # the step at which its lanes continue
    resumed: HostLanes | None = None  # the lanes that continue; None where lanes start
    returns_lanes: bool = False  # whether finished blocks carry their lanes, so that these can be continued later
    source: Source | None = None  # its batches, if they are on the host; then a block has one seed
    start_cache: dict[tuple[int, bytes], Carry] | None = None  # by device and seeds, if starts depend on nothing else
    evaluation_steps: np.ndarray = NO_EVALUATIONS  # (evaluations,), the last at the end of the run
    jitted: Program | None = None  # the jitted functions from which `programs` were compiled
    narrower: dict[tuple[int, int, int], Program] | None = None  # by device, seeds and points; None: no compaction

    @property
    def shape(self) -> Shape:
        """The shape of its blocks."""
        block, layout = self.blocks[0], self.programs[0].layout
        return Shape(len(block.points), len(block.seeds), layout.unroll, layout.chunk)

    @property
    def lanes_per_block(self) -> int:
        """Number of lanes that one call advances, padding included."""
        return len(self.blocks[0].points) * len(self.blocks[0].seeds)

    @property
    def evaluated(self) -> dict[str, Any]:
        """The shapes of what is evaluated along the run, name -> (seeds, points)."""
        return self.programs[0].evaluated or {}


def get_block_inputs(job: Job, block: Block, device: int = 0) -> BlockInputs:
    """The arguments before the carry of the programs of `job`, for `block`."""
    traced = {name: values[block.points] for name, values in job.traced.items()}
    return Inputs(traced, block.points.astype(np.int32), block.seeds.astype(np.int32)), job.shared[device]


def describe_checkpoint(job: Job, device: int) -> Carry:
    """The shapes of the carry of a block with its evaluations, as a checkpoint holds it."""
    program, size = job.programs[device], len(job.evaluation_steps)
    at_steps = lambda like: jax.ShapeDtypeStruct((*like.shape, size), get_host_dtype(like.dtype))
    return program.carry._replace(evaluations=jax.tree.map(at_steps, job.evaluated))


def is_out_of_memory(error: Exception) -> bool:
    """Whether a device had no memory left; a CPU kills the process instead."""
    return isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)


def count_lane_bytes(job: Job) -> int:
    """Bytes that the lanes of all blocks of a job take."""
    return len(job.blocks) * _count_bytes(job.programs[0].carry.lanes)


def count_carry_bytes(job: Job) -> int:
    """Bytes that a block takes while it is advanced, without what its steps need."""
    return _count_bytes(job.programs[0].carry)


def _count_bytes(tree: PyTree) -> int:
    return sum(x.dtype.itemsize * math.prod(x.shape) for x in jax.tree.leaves(tree))
