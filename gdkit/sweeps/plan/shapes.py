"""The plan of a sweep, and the rule that chooses the shape of its blocks."""

import dataclasses
import math
import os
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from gdkit.checks import check_integer
from gdkit.errors import bad_type, bad_value
from gdkit.types import Params

LANES = "lanes"  # the axis of a mesh whose devices divide the points of a block
Place = jax.Device | Mesh  # where a program runs


@dataclasses.dataclass(frozen=True)
class Plan:
    """How a sweep runs. A field that is None is chosen by gdkit.

    `workers`, `devices` and `tile` change no bit of results.

    Attributes:
      width: points per block, which one program call advances for each seed of the block.
      depth: seeds per block.
      chunk: points of a block that are advanced at once on a CPU, one chunk after the other; `width` is a multiple of
        it. By default all points of a block, except for many lanes of few params: handing over a block of one chunk
        would take longer than running it. On accelerators all points are advanced at once.
      unroll: 0 for no loop, one call per step: the default of losses with convolutions on a CPU, since XLA has a fast
        form of these only outside of loops. On an accelerator, the steps per iteration of the loop; by default two, or
        eight for losses of few params. On a CPU an iteration is one step.
      tile: blocks per tile, the unit of dispatch and storage; by default one; in a run directory as many as take
        about a second.
      segment: steps that a block advances per call, between which it reports progress and can be interrupted; by
        default as many as take about half a second.
      workers: worker threads; by default one per core, or one per accelerator.
      devices: number of devices to use; by default all.
      mesh: whether one program advances a block on all devices, which divide its points among them
        (`jax.sharding.Mesh`). By default each device advances blocks of its own.
    """

    width: int | None = None
    depth: int | None = None
    chunk: int | None = None
    unroll: int | None = None
    tile: int | None = None
    segment: int | None = None
    workers: int | None = None
    devices: int | None = None
    mesh: bool = False

    def __post_init__(self):
        if not isinstance(self.mesh, bool):
            raise bad_type("plan.mesh", self.mesh, "neither True nor False", "Choose devices with devices=N")
        if self.mesh and self.workers not in (None, 1):
            raise bad_value("plan.workers", self.workers, "one worker drives a mesh", "Leave out one of the two")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is not None and field.name != "mesh":
                check_integer(f"plan.{field.name}", value, at_least=0 if field.name == "unroll" else 1)
        if self.width and self.chunk and self.width % self.chunk:
            remedy = f"Pass a width that is a multiple of chunk={self.chunk}, or leave out one of the two"
            raise bad_value("plan.width", self.width, "a block is cut into chunks of equal size", remedy)
        if self.mesh and self.chunk:
            raise bad_value("plan.chunk", self.chunk, "devices of a mesh advance all points at once", "Leave it out")


def check_plan(plan: Plan | None) -> None:
    """Raise unless `plan` is a Plan or None."""
    if plan is not None and not isinstance(plan, Plan):
        raise bad_type("plan", plan, "not a Plan", "Pass for example gdkit.Plan(width=8)")


class Shape(NamedTuple):
    """The size of blocks, and how their program goes through lanes and steps."""

    width: int  # points per block
    depth: int  # seeds per block
    unroll: int = 1  # steps per iteration of the loop, on a CPU one; 0: no loop, one call per step
    chunk: int = 0  # points that are advanced side by side; 0: all

    @property
    def lanes(self) -> int:
        """Lanes per block."""
        return self.width * self.depth

    @property
    def lanes_at_once(self) -> int:
        """Lanes that are advanced side by side."""
        return (self.chunk or self.width) * self.depth


class _Budget(NamedTuple):
    """How much a block should hold, and what its steps cost."""

    floats: int  # params of all lanes
    lanes: int
    overhead: int  # cost of a step besides its lanes, as a number of params
    chunks: int = 1  # most chunks per block, where the lanes are the limit


# On a CPU about 256 KiB, so that a block and its temporaries stay in a core's cache; 480 lanes fill the vector
# units, and their loop with all statistics is below the threshold of `gdkit.faster_cpu`. Not a power of two: its arrays
# would share cache lines. On an accelerator a step of a block takes about as long for any width, so all lanes go into
# one block; 256 MiB of params leave memory for gradients and activations, and a block that does not fit is halved.
_CPU = _Budget(65_536, 480, 4096, chunks=32)
_ACCELERATOR = _Budget(2**26, 2**17, 2**22)
_STATISTICS = 340  # memory of a lane's statistics, as a number of params
_ROUNDS = 4  # blocks per worker that are enough for all workers to finish at about the same time
_VECTOR = 16  # numbers in the widest vector register of a CPU


class BlockLimits(NamedTuple):
    """How many lanes of a problem a block may hold."""

    max_lanes: int
    overhead: float  # cost of a step of a block besides its lanes, in lanes
    chunks: int = 1  # most chunks of so many lanes per block


def compute_block_limits(params: Params, platform: str | None = None) -> BlockLimits:
    """The limits of a block, from the params of one lane.

    >>> [compute_block_limits(np.zeros(n), "cpu").max_lanes for n in (1, 9_000, 10**6)]
    [480, 8, 1]
    >>> [compute_block_limits(np.zeros(n), "gpu").max_lanes for n in (1, 9_000, 10**6)]
    [131072, 8192, 64]
    >>> [round(compute_block_limits(np.zeros(n), "cpu").overhead, 1) for n in (1, 1_200, 9_000)]
    [12.0, 2.7, 0.4]
    """
    budget = _CPU if (platform or jax.default_backend()) == "cpu" else _ACCELERATOR
    floats = sum(int(np.prod(x.shape)) for x in jax.tree.leaves(params))
    max_lanes = int(np.clip(2 ** round(np.log2(budget.floats / max(floats, 1))), 1, budget.lanes))
    chunks = budget.chunks if max_lanes == budget.lanes else 1
    return BlockLimits(max_lanes, budget.overhead / (floats + _STATISTICS), chunks)


def choose_shape(points: int, seeds: int, limits: BlockLimits, plan: Plan, workers: int, unroll: int = 1) -> Shape:
    """The shape of blocks that finishes `points` × `seeds` lanes soonest on `workers`.

    Blocks run in rounds of one per worker; padding and the overhead per block count. On a tie the shape with fewer
    lanes wins, since its blocks end sooner when lanes diverge.

    >>> limits = BlockLimits(64, 3)
    >>> choose_shape(64, 1, limits, Plan(), 2), choose_shape(31, 3, limits, Plan(), 2)
    (Shape(width=32, depth=1, unroll=1, chunk=0), Shape(width=16, depth=3, unroll=1, chunk=0))
    """
    most, unroll = limits.max_lanes, unroll if plan.unroll is None else plan.unroll
    given = plan.chunk or plan.width
    widths = [min(given, points)] if given else _divide(points, min(most, points))
    shapes = [
        Shape(width, depth, unroll)
        for width in widths
        for depth in ([min(plan.depth, seeds)] if plan.depth else _divide(seeds, max(1, min(seeds, most // width))))
    ]

    def cost(shape: Shape) -> tuple[float, int]:
        blocks = math.ceil(points / shape.width) * math.ceil(seeds / shape.depth)
        return math.ceil(blocks / workers) * (shape.lanes + limits.overhead), shape.lanes

    shape = min(shapes, key=cost)
    if plan.width is None:
        return _gather_chunks(shape, points, seeds, limits.chunks, workers, plan.chunk)
    chunks = math.ceil(min(plan.width, points) / shape.width)
    return shape._replace(width=chunks * shape.width, chunk=shape.width if chunks > 1 else 0)


def _gather_chunks(shape: Shape, points: int, seeds: int, most: int, workers: int, given: int | None = None) -> Shape:
    """Blocks of up to `most` chunks of `given` points, or of about the width of `shape`, if workers have many to run.

    >>> _gather_chunks(Shape(480, 1), 131_072, 1, 32, 2), _gather_chunks(Shape(480, 1), 131_072, 1, 32, 64)
    (Shape(width=13312, depth=1, unroll=1, chunk=416), Shape(width=480, depth=1, unroll=1, chunk=0))
    """
    along_points, along_seeds = math.ceil(points / shape.width), math.ceil(seeds / shape.depth)
    chunks = min(most, along_points, along_points * along_seeds // (_ROUNDS * workers))
    if chunks < 2:
        return shape
    blocks = math.ceil(along_points / chunks)
    if along_seeds == 1:
        blocks = workers * math.ceil(blocks / workers)
    chunk = given or _fill_vectors(math.ceil(points / (blocks * chunks)))
    return shape._replace(width=chunk * math.ceil(points / (blocks * chunk)), chunk=chunk)


def _divide(count: int, most: int) -> list[int]:
    """Sizes up to `most` that divide `count` into equal parts, the last perhaps smaller; large ones in full vectors."""
    fewest = math.ceil(count / most)
    sizes = {math.ceil(count / parts) for parts in range(fewest, min(count, fewest + 1000) + 1)}
    return sorted({min(most, _fill_vectors(size)) for size in sizes})


def _fill_vectors(size: int) -> int:
    """`size` rounded up to full vectors, if it is above four vectors."""
    return _VECTOR * math.ceil(size / _VECTOR) if size > 4 * _VECTOR else size


def count_workers(plan: Plan, devices: int) -> int:
    """Number of worker threads: that of the plan, else one per core on a CPU, one per device on accelerators.

    It is one for a mesh: programs that run on the same devices at once may wait for each other for ever.
    """
    if plan.mesh:
        return 1
    if plan.workers is not None:
        return plan.workers
    return count_visible_cores() if devices == 1 and jax.default_backend() == "cpu" else devices


def count_visible_cores() -> int:
    """Number of cores that this process may use; the bits of results depend on it."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
