"""Compaction: a segment of a block in which many lanes have ended, advanced in a narrower block.

On a CPU blocks are narrow, and one that has ended makes room for another. On an accelerator one block holds all lanes,
and takes as long as if none had ended. So its running lanes are gathered into a block of its own for each segment, of a
power of two of points and of seeds, and scattered back at the end: whatever reads, stores or evaluates lanes sees the
whole block. The devices of a mesh divide the points of the narrower block anew: each takes a power of two of them.
"""

import math
from typing import NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np

from gdkit.monitors import EndKind
from gdkit.sweeps.programs.build import BlockInputs, Carry, Inputs, Program
from gdkit.sweeps.programs.compile import advance_block, compile_narrower, compile_seconds
from gdkit.sweeps.programs.job import Job
from gdkit.sweeps.programs.packing import Packed
from gdkit.sweeps.programs.places import CARRY, count_devices, get_place, put
from gdkit.sweeps.programs.timing import seconds_per_step
from gdkit.types import Array


class Selection(NamedTuple):
    """The lanes of a block that a narrower one takes: a product of some of its seeds and points.

    Padding repeats the last seed or point of the block, and is dropped where lanes are scattered.
    """

    seeds: np.ndarray  # (narrower seeds,) int32, places in the block; those of padding are beyond it
    points: np.ndarray  # (narrower points,) int32

    @classmethod
    def of_running(cls, is_running: np.ndarray, devices: int = 1) -> Self:
        """The seeds and points with a running lane; `is_running` (seeds, points).

        Seeds are padded to a power of two, and points to a power of two per device.

        >>> Selection.of_running(np.array([[True, False, True, True, False]]))
        Selection(seeds=array([0], dtype=int32), points=array([0, 2, 3, 5], dtype=int32))
        """
        seeds, points = (np.flatnonzero(is_running.any(axis=other)) for other in (1, 0))
        return cls(_pad(seeds, len(is_running)), _pad(points, is_running.shape[1], devices))

    @property
    def lanes(self) -> int:
        """Number of lanes, padding included."""
        return len(self.seeds) * len(self.points)


def _pad(places: np.ndarray, size: int, devices: int = 1) -> np.ndarray:
    width = min(devices * 2 ** math.ceil(math.log2(max(len(places) / devices, 1))), size)
    return np.append(places, np.full(width - len(places), size)).astype(np.int32)


class Compaction(NamedTuple):
    """How a segment of a block is advanced in a narrower one."""

    program: Program  # of the narrower block; of its functions only `advance` is compiled for it
    selection: Selection

    def advance(self, inputs: BlockInputs, carry: Carry, t0: int, t1: int, steps: int) -> Carry:
        """As `advance_block`, of the whole block."""
        place = get_place(self.program)
        narrow = put(gather(carry, self.selection), place, CARRY)
        narrow = advance_block(self.program, self.take(inputs), narrow, t0, t1, steps)
        return put(scatter(carry, narrow, self.selection), place, CARRY)

    def take(self, inputs: BlockInputs) -> BlockInputs:
        """The inputs of the narrower block."""
        own, shared = inputs
        points = np.minimum(self.selection.points, len(own.points) - 1)
        seeds = np.minimum(self.selection.seeds, len(own.seeds) - 1)
        traced = {name: values[points] for name, values in own.traced.items()}
        return Inputs(traced, own.points[points], own.seeds[seeds]), shared


def choose_compaction(
    job: Job, inputs: BlockInputs, carry: Carry, device: int, step: int, least_gain: float
) -> Compaction | None:
    """The compaction of the segment after `step`; None at the start, or where a narrower block would save too little.

    A program of another width has to be compiled, which has to save `least_gain` times as many seconds as it takes; and
    where the device is not busy with so few lanes, a narrower block takes as long.
    """
    if step == 0 or job.narrower is None or job.jitted is None:
        return None
    program = job.programs[device]
    place = get_place(program)  # a carry that was read from a checkpoint is on the host
    selection = Selection.of_running(np.asarray(_find_running(carry.lanes)), count_devices(place))
    if selection.lanes == job.lanes_per_block:
        return None
    key, pace = (device, len(selection.seeds), len(selection.points)), seconds_per_step.get(program.fingerprint, 0)
    if narrower := job.narrower.get(key):
        is_slower = seconds_per_step.get(narrower.fingerprint, 0) > pace
        return None if is_slower else Compaction(narrower, selection)
    saved = (1 - selection.lanes / job.lanes_per_block) * pace * (job.steps - step)
    if saved < least_gain * compile_seconds.get(program.fingerprint, 0):
        return None
    compaction = Compaction(program, selection)
    narrow = put(gather(carry, selection), place, CARRY)
    narrower = compile_narrower(job.jitted, program, compaction.take(inputs), narrow)
    jax.block_until_ready(scatter(carry, narrow, selection))  # compiled before the segment is timed
    job.narrower[key] = narrower
    return compaction._replace(program=narrower)


@jax.jit
def gather(carry: Carry, selection: Selection) -> Carry:
    """The carry of a selection of lanes."""
    seeds, points = selection
    take = lambda x: jnp.take(jnp.take(x, seeds, axis=0, mode="clip"), points, axis=1, mode="clip")
    curve = jnp.moveaxis(take(jnp.moveaxis(carry.curve, 0, -1)), -1, 0)
    return carry._replace(lanes=jax.tree.map(take, carry.lanes), curve=curve)


@jax.jit
def scatter(carry: Carry, narrow: Carry, selection: Selection) -> Carry:
    """The carry after its selected lanes were advanced; the step and what is running are those of `narrow`."""
    seeds, points = selection
    write = lambda x, new: x.at[seeds[:, None], points].set(new, mode="drop")
    lanes = jax.tree.map(write, carry.lanes, narrow.lanes)
    curve = carry.curve.at[:, seeds[:, None], points].set(narrow.curve, mode="drop")
    return narrow._replace(lanes=lanes, curve=curve)


@jax.jit
def _find_running(lanes: Packed) -> Array:
    """(seeds, points) bool, which lanes have not ended."""
    return lanes.unpack().record.end_kind == EndKind.RUNNING
