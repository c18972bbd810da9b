"""Blocks: the lanes that one call of a program advances, and how they lie on the host and on a device."""

import math
from typing import NamedTuple

import numpy as np

from gdkit.sweeps.plan.shapes import Shape


class Block(NamedTuple):
    """The lanes that one call advances: a chunk of points for a chunk of seeds. The last of each is padded."""

    points: np.ndarray  # (points,) int, places in the group, all different
    seeds: np.ndarray  # (seeds,) int, all different

    @property
    def sizes(self) -> tuple[int, int]:
        """How many points and seeds it has without padding, which repeats the last."""
        points, seeds = (1 + int((items == items[-1]).argmax()) for items in self)
        return points, seeds

    @property
    def lanes(self) -> int:
        """How many lanes it has without padding."""
        return math.prod(self.sizes)


def cut_blocks(points: int, seeds: int, shape: Shape) -> list[Block]:
    """Cut the lanes of a group into blocks of one shape; all seeds of a chunk of points come one after the other.

    >>> [(b.points.tolist(), b.seeds.tolist()) for b in cut_blocks(3, 2, Shape(2, 1))]
    [([0, 1], [0]), ([0, 1], [1]), ([2, 2], [0]), ([2, 2], [1])]
    """
    return cut_lanes(Block(np.arange(points), np.arange(seeds)), shape)


def cut_lanes(lanes: Block, shape: Shape) -> list[Block]:
    """`lanes` as blocks of one shape."""
    chunks = _chunks(lanes.points, shape.width)
    return [Block(points, seeds) for points in chunks for seeds in _chunks(lanes.seeds, shape.depth)]


def _chunks(items: np.ndarray, size: int) -> list[np.ndarray]:
    starts = range(0, len(items), size)
    return [items[np.minimum(np.arange(low, low + size), len(items) - 1)] for low in starts]
