"""The division of lanes into blocks and tiles: the lanes of a tile and the tile of a lane, by arithmetic alone.

A section of a sweep is a product of dimensions; the seed varies fastest. A group holds the points of a section that one
program serves: per dimension all indices, or some. It orders its points by dimensions in an order of its own, cuts them
into chunks of `width`, and for each chunk the seeds into chunks of `depth`. These are its blocks; `tile` consecutive
blocks are a tile. The rows of a tile are the lanes of its blocks one after the other, per block the seeds of a point
side by side, without padding.
"""

import bisect
import dataclasses
import functools
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gdkit.errors import bad_value


@dataclasses.dataclass(frozen=True)
class StoredGroup:
    """The lanes of one program, and how they are divided into blocks and tiles."""

    first: int  # lane of its section's first point and seed
    sizes: tuple[int, ...]  # of the dimensions of its section
    order: tuple[int, ...]  # the dimensions, the fastest varying last
    chosen: tuple[tuple[int, ...] | None, ...]  # per dimension the indices of the group's points; None for all
    seeds: int
    width: int  # points per block
    depth: int  # seeds per block
    tile: int  # blocks per tile

    @functools.cached_property
    def counts(self) -> tuple[int, ...]:
        """Indices of the group along each dimension."""
        return tuple(s if c is None else len(c) for s, c in zip(self.sizes, self.chosen, strict=True))

    @functools.cached_property
    def _chosen(self) -> tuple[np.ndarray | None, ...]:
        return tuple(None if c is None else np.asarray(c) for c in self.chosen)  # made once, not for every tile

    @property
    def points(self) -> int:
        """Number of points."""
        return math.prod(self.counts)

    @property
    def lanes(self) -> int:
        """Number of lanes without padding."""
        return self.points * self.seeds

    @functools.cached_property
    def blocks(self) -> int:
        """Number of blocks."""
        return -(-self.points // self.width) * -(-self.seeds // self.depth)

    @property
    def tiles(self) -> int:
        """Number of tiles."""
        return -(-self.blocks // self.tile)

    @property
    def last(self) -> int:
        """The lane after the last of its section."""
        return self.first + math.prod(self.sizes) * self.seeds

    def rows_before(self, block: np.ndarray) -> np.ndarray:
        """Number of rows of all blocks before `block`, which may be the number after the last."""
        deep = -(-self.seeds // self.depth)
        chunk, part = np.divmod(np.asarray(block, np.int64), deep)
        wide = np.clip(self.points - chunk * self.width, 0, self.width)
        return np.minimum(chunk * self.width, self.points) * self.seeds + wide * part * self.depth

    def lanes_at(self, rows: np.ndarray) -> np.ndarray:
        """The lanes of `rows`, counted from the first row of the group."""
        chunk, rest = np.divmod(rows, self.width * self.seeds)
        wide = np.minimum(self.width, self.points - chunk * self.width)
        part, rest = np.divmod(rest, wide * self.depth)
        point, seed = np.divmod(rest, np.minimum(self.depth, self.seeds - part * self.depth))
        return self.first + self._point(chunk * self.width + point) * self.seeds + part * self.depth + seed

    def _point(self, place: np.ndarray) -> np.ndarray:
        """Number of a point in the section, from its number in the group."""
        found = np.zeros_like(place)
        for d in reversed(self.order):
            place, digit = np.divmod(place, self.counts[d])
            chosen = self._chosen[d]
            found += (digit if chosen is None else chosen[digit]) * math.prod(self.sizes[d + 1 :])
        return found

    def _place(self, point: np.ndarray) -> np.ndarray:
        """Number of a point in the group, from its number in the section; -1 where it belongs to another group."""
        place, mine = np.zeros_like(point), np.ones(point.shape, bool)
        for d in self.order:
            digit = point // math.prod(self.sizes[d + 1 :]) % self.sizes[d]
            chosen = self._chosen[d]
            if chosen is not None:
                at = np.minimum(np.searchsorted(chosen, digit), len(chosen) - 1)
                mine &= chosen[at] == digit
                digit = at
            place = place * self.counts[d] + digit
        return np.where(mine, place, -1)

    def rows_of(self, lanes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Block and row of each lane, counted from the first of the group; -1 where it belongs to another group."""
        point, seed = np.divmod(lanes - self.first, self.seeds)
        place = np.where((lanes >= self.first) & (lanes < self.last), self._place(np.maximum(point, 0)), -1)
        chunk, column = np.divmod(np.maximum(place, 0), self.width)
        part, deep = seed // self.depth, np.minimum(self.depth, self.seeds - seed // self.depth * self.depth)
        block = chunk * -(-self.seeds // self.depth) + part
        row = self.rows_before(block) + column * deep + seed % self.depth
        return np.where(place < 0, -1, block), np.where(place < 0, -1, row)


def make_group(
    points: np.ndarray, sizes: Sequence[int], *, first: int, seeds: int, width: int, depth: int, tile: int = 1
) -> StoredGroup:
    """The group of `points`, numbers in a product of `sizes`, in the order in which they run.

    Raises:
      InputValueError: they are not the product of some indices per dimension.

    >>> make_group(np.array([0, 3, 1, 4]), (2, 3), first=0, seeds=1, width=4, depth=1).order
    (1, 0)
    """
    sizes = tuple(map(int, sizes))
    digits = np.unravel_index(np.asarray(points), sizes) if sizes else ()
    own = [np.unique(digit) for digit in digits]
    changes = [int(np.argmax(digit != digit[0])) or len(digit) for digit in digits]  # points before its first change
    order = sorted(range(len(sizes)), key=lambda d: (-changes[d], d))
    chosen = [None if len(o) == size else tuple(o.tolist()) for o, size in zip(own, sizes, strict=True)]
    group = StoredGroup(first, sizes, tuple(order), tuple(chosen), seeds, width, depth, tile)
    if group.points != len(points) or not np.array_equal(group._point(np.arange(len(points))), points):
        raise bad_value("points", points, "not a product of indices, each in rising order", "Make several groups")
    return group


class BlockPlace(NamedTuple):
    """Where a lane is."""

    group: int
    block: int  # counted in the run
    seed: int  # place in the block
    point: int  # place in the block


class Span(NamedTuple):
    """The blocks of a tile, all of one group."""

    group: int
    low: int  # first block, counted in the group
    high: int  # block after the last


@dataclasses.dataclass(frozen=True)
class Partition:
    """All groups of a run. Tiles and blocks are numbered consecutively over the groups."""

    groups: tuple[StoredGroup, ...]

    @functools.cached_property
    def lanes(self) -> int:
        """Number of lanes of the run."""
        return max(group.last for group in self.groups)

    @functools.cached_property
    def _tiles(self) -> list[int]:  # Python integers: numpy is slow for one tile at a time
        return [0, *itertools.accumulate(g.tiles for g in self.groups)]

    @functools.cached_property
    def _blocks(self) -> list[int]:
        return [0, *itertools.accumulate(g.blocks for g in self.groups)]

    @property
    def tiles(self) -> int:
        """Number of tiles."""
        return self._tiles[-1]

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return self._blocks[-1]

    def tiles_in(self, group: int) -> range:
        """The tiles of a group."""
        return range(self._tiles[group], self._tiles[group + 1])

    def span(self, tile: int) -> Span:
        """The blocks of a tile."""
        group = bisect.bisect_right(self._tiles, tile) - 1
        low = (tile - self._tiles[group]) * self.groups[group].tile
        return Span(group, low, min(low + self.groups[group].tile, self.groups[group].blocks))

    def blocks_of(self, tile: int) -> range:
        """The numbers of a tile's blocks in the run, which name their checkpoints."""
        group, low, high = self.span(tile)
        base = self._blocks[group]
        return range(base + low, base + high)

    def blocks_in(self, group: int) -> range:
        """The numbers of a group's blocks in the run."""
        return range(int(self._blocks[group]), int(self._blocks[group + 1]))

    def lanes_in(self, block: int) -> np.ndarray:
        """The lanes of a block, ``(points, seeds)``."""
        number = bisect.bisect_right(self._blocks, block) - 1
        group, own = self.groups[number], block - self._blocks[number]
        first, last = group.rows_before(np.array([own, own + 1]))
        part = own % -(-group.seeds // group.depth)
        return group.lanes_at(np.arange(first, last)).reshape(-1, min(group.depth, group.seeds - part * group.depth))

    def find_lane(self, lane: int) -> BlockPlace:
        """The block of a lane, and its place there."""
        for number, group in enumerate(self.groups):
            block, _ = group.rows_of(np.array([lane]))
            if block[0] >= 0:
                point, seed = divmod(lane - group.first, group.seeds)
                place = int(group._place(np.array([point]))[0])
                own = int(self._blocks[number] + block[0])
                return BlockPlace(number, own, seed % group.depth, place % group.width)
        raise bad_value("lane", lane, "no such lane", f"Pass 0 to {self.lanes - 1}")

    def tile_of_block(self, block: int) -> int:
        """The tile that a block belongs to."""
        group = bisect.bisect_right(self._blocks, block) - 1
        return self._tiles[group] + (block - self._blocks[group]) // self.groups[group].tile

    def rows(self, tile: int) -> int:
        """Number of lanes of a tile."""
        group, low, high = self.span(tile)
        first, last = self.groups[group].rows_before(np.array([low, high]))
        return int(last - first)

    def rows_per_tile(self) -> np.ndarray:
        """Number of lanes of each tile, ``(tiles,)``."""
        ends = [np.minimum(np.arange(g.tiles + 1) * g.tile, g.blocks) for g in self.groups]
        return np.concatenate([np.diff(g.rows_before(e)) for g, e in zip(self.groups, ends, strict=True)])

    def lanes_of(self, tile: int) -> np.ndarray:
        """The lanes of a tile, ``(rows,)``, in the order of its rows."""
        group, low, high = self.span(tile)
        first, last = self.groups[group].rows_before(np.array([low, high]))
        return self.groups[group].lanes_at(np.arange(first, last))

    def tiles_of(self, lanes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Tile of each lane, and its row in the tile; both shaped like `lanes`."""
        lanes = np.asarray(lanes, np.int64)
        tiles, rows = np.full(lanes.shape, -1), np.full(lanes.shape, -1)
        for number, group in enumerate(self.groups):
            block, row = group.rows_of(lanes)
            tile = np.where(block < 0, -1, block // group.tile)
            mine = tile >= 0
            tiles[mine] = tile[mine] + self._tiles[number]
            rows[mine] = (row - group.rows_before(tile * group.tile))[mine]
        return tiles, rows
