"""Blocks: the lanes that one call of a program advances."""

import math
from typing import NamedTuple

import numpy as np

from gdkit.sweeps.plan.shapes import Shape


class Block(NamedTuple):
    """The lanes that one call advances: the product of some points of a group and some seeds.

    A block at the end of a group is padded: its last point or seed is repeated.
    """

    points: np.ndarray  # (points,) int, indices into the group
    seeds: np.ndarray  # (seeds,) int

    @property
    def sizes(self) -> tuple[int, int]:
        """Number of points and of seeds without padding."""
        return _count_unpadded(self.points), _count_unpadded(self.seeds)

    @property
    def lanes(self) -> int:
        """Number of lanes without padding."""
        return math.prod(self.sizes)


def cut_blocks(points: int, seeds: int, shape: Shape) -> list[Block]:
    """Cut the lanes of a group into blocks of one shape: all seeds of the first points, then those of the next.

    >>> [(b.points.tolist(), b.seeds.tolist()) for b in cut_blocks(3, 2, Shape(2, 1))]
    [([0, 1], [0]), ([0, 1], [1]), ([2, 2], [0]), ([2, 2], [1])]
    """
    return cut_lanes(Block(np.arange(points), np.arange(seeds)), shape)


def cut_lanes(lanes: Block, shape: Shape) -> list[Block]:
    """Cut the product of some points and seeds into blocks of one shape."""
    chunks = _cut_padded(lanes.points, shape.width)
    return [Block(points, seeds) for points in chunks for seeds in _cut_padded(lanes.seeds, shape.depth)]


def _count_unpadded(items: np.ndarray) -> int:
    is_padded = len(items) > 1 and items[-1] == items[-2]
    return 1 + int((items == items[-1]).argmax()) if is_padded else len(items)


def _cut_padded(items: np.ndarray, size: int) -> list[np.ndarray]:
    starts = range(0, len(items), size)
    return [items[np.minimum(np.arange(low, low + size), len(items) - 1)] for low in starts]
