"""The plan of a sweep: how lanes are cut into blocks, tiles and segments, and who works."""

import dataclasses
import math
import os
from typing import Any, NamedTuple

import jax
import numpy as np

from gdkit.checks import check_integer


@dataclasses.dataclass(frozen=True)
class Plan:
    """How a sweep runs. What is None is chosen; `width` and `depth` alone decide the bits of the result.

    Attributes:
      width: points that one program call advances side by side, for each seed in the block.
      depth: seeds that it advances side by side.
      unroll: steps in the body of the program's loop; 0 for no loop, each step a call. By default 0 for losses with
        convolutions on a CPU, which XLA brings into their fast form only outside of loops.
      tile: blocks that a worker takes at a time; by default one, or in a run directory as many as take about a second.
      segment: steps that a block advances in one call, between which it can be interrupted and reports progress; by
        default as many as take about half a second.
      workers: threads; by default one a core, or one an accelerator.
      devices: how many of the devices to use; by default all.
    """

    width: int | None = None
    depth: int | None = None
    unroll: int | None = None
    tile: int | None = None
    segment: int | None = None
    workers: int | None = None
    devices: int | None = None

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is not None and not (field.name == "unroll" and value == 0 and value is not False):
                check_integer(f"plan.{field.name}", value)


class Shape(NamedTuple):
    """What decides a program besides what it computes."""

    width: int  # points a block
    depth: int  # seeds a block
    unroll: int = 1  # 0: no loop, each step a call

    @property
    def lanes(self) -> int:
        """Lanes a block."""
        return self.width * self.depth


class _Capacity(NamedTuple):
    """How much a block should hold, and what a step of it costs besides its lanes; in numbers of a lane's params."""

    floats: int
    lanes: int
    overhead: int


# On a CPU some 256 KiB, so that a block and its work stay in a core's cache; beyond 1,536 lanes the vector units are
# full and only the cache is lost; of a power of two, arrays would fall on the same lines of it. On an accelerator a
# step of a block costs much the same for any width, so all lanes go into one block; 256 MiB of params leave room for
# gradients and activations, and what does not fit is halved.
_CPU = _Capacity(65_536, 1536, 4096)
_ACCELERATOR = _Capacity(2**26, 2**17, 2**22)
_SCALARS = 340  # what a lane takes besides its params, in numbers of them: its statistics
_VECTOR = 16  # numbers in the widest vector of a CPU


class BlockLimits(NamedTuple):
    """What a block of a problem has room for."""

    most: int  # lanes
    overhead: float  # what a step of a block costs besides its lanes, in lanes


def compute_block_limits(params: Any, platform: str | None = None) -> BlockLimits:
    """The room of a block, from the size of one lane's params.

    >>> [compute_block_limits(np.zeros(n), "cpu").most for n in (1, 9_000, 10**6)]
    [1536, 8, 1]
    >>> [compute_block_limits(np.zeros(n), "gpu").most for n in (1, 9_000, 10**6)]
    [131072, 8192, 64]
    >>> [round(compute_block_limits(np.zeros(n), "cpu").overhead, 1) for n in (1, 1_200, 9_000)]
    [12.0, 2.7, 0.4]
    """
    capacity = _CPU if (platform or jax.default_backend()) == "cpu" else _ACCELERATOR
    floats = sum(int(np.prod(x.shape)) for x in jax.tree.leaves(params))
    most = int(np.clip(2 ** round(np.log2(capacity.floats / max(floats, 1))), 1, capacity.lanes))
    return BlockLimits(most, capacity.overhead / (floats + _SCALARS))


def choose_shape(points: int, seeds: int, room: BlockLimits, plan: Plan, workers: int, unroll: int = 1) -> Shape:
    """The shape of the blocks of `points` × `seeds` lanes that keeps `workers` busiest.

    Of all shapes, that whose blocks are done soonest: blocks come in rounds, one a worker, padding counts, and so does
    what a block costs besides its lanes. On a tie, the one of fewer lanes, since it ends sooner when they diverge.

    >>> limits = BlockLimits(64, 3)
    >>> choose_shape(64, 1, limits, Plan(), 2), choose_shape(31, 3, limits, Plan(), 2)
    (Shape(width=32, depth=1, unroll=1), Shape(width=16, depth=3, unroll=1))
    """
    most = room.most
    widths = [min(plan.width, points)] if plan.width else _divisors(points, min(most, points))
    shapes = [
        Shape(width, depth, unroll if plan.unroll is None else plan.unroll)
        for width in widths
        for depth in ([min(plan.depth, seeds)] if plan.depth else _divisors(seeds, max(1, min(seeds, most // width))))
    ]

    def cost(shape: Shape) -> tuple[float, int]:
        blocks = math.ceil(points / shape.width) * math.ceil(seeds / shape.depth)
        return math.ceil(blocks / workers) * (shape.lanes + room.overhead), shape.lanes

    return min(shapes, key=cost)


def _divisors(count: int, most: int) -> list[int]:
    """Sizes up to `most` that cut `count` into equal pieces, the last perhaps smaller; large ones full vectors."""
    fewest = math.ceil(count / most)
    sizes = {math.ceil(count / pieces) for pieces in range(fewest, min(count, fewest + 1000) + 1)}
    return sorted({min(most, _VECTOR * math.ceil(size / _VECTOR)) if size > 4 * _VECTOR else size for size in sizes})


def count_workers(plan: Plan, devices: int) -> int:
    """Worker threads: as the plan says, else one a core on a CPU, one a device elsewhere."""
    if plan.workers is not None:
        return plan.workers
    return count_visible_cores() if devices == 1 and jax.default_backend() == "cpu" else devices


def count_visible_cores() -> int:
    """Cores that this process may use; a result's bits depend on how many."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
