"""Blocks: the lanes that one call of a program advances, and how they lie on the host and on a device."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gdkit.sweeps.packing import Packed
from gdkit.sweeps.plan import Shape


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


def blocks_of(points: int, seeds: int, shape: Shape) -> list[Block]:
    """Cut the lanes of a group into blocks of one shape; all seeds of a chunk of points come one after the other.

    >>> [(b.points.tolist(), b.seeds.tolist()) for b in blocks_of(3, 2, Shape(2, 1))]
    [([0, 1], [0]), ([0, 1], [1]), ([2, 2], [0]), ([2, 2], [1])]
    """
    return cut(Block(np.arange(points), np.arange(seeds)), shape)


def cut(lanes: Block, shape: Shape) -> list[Block]:
    """`lanes` as blocks of one shape."""
    chunks = _chunks(lanes.points, shape.width)
    return [Block(points, seeds) for points in chunks for seeds in _chunks(lanes.seeds, shape.depth)]


def _chunks(items: np.ndarray, size: int) -> list[np.ndarray]:
    starts = range(0, len(items), size)
    return [items[np.minimum(np.arange(low, low + size), len(items) - 1)] for low in starts]


def on_host(x: Any) -> np.ndarray:
    """A leaf of lanes as numbers; of keys their data."""
    return np.asarray(jax.random.key_data(x) if _is_key(x) else x)


def on_device(x: np.ndarray, like: Any) -> Any:
    """What `on_host` made of a leaf, as a program takes it."""
    if not _is_key(like):
        return x
    key = jax.random.wrap_key_data(jnp.asarray(x), impl=jax.random.key_impl(jnp.empty((), like.dtype)))
    return jax.device_put(key, like.sharding)


def shape_on_host(x: Any) -> Any:
    """The shape and dtype of what `on_host` makes of a leaf."""
    return jax.eval_shape(jax.random.key_data, x) if _is_key(x) else x


def gathered(parts: Sequence[tuple[Block, Packed]], points: int, seeds: int) -> Packed:
    """The lanes of blocks together, each array (points, seeds, ...); of a lane in several the last counts."""
    whole = jax.tree.map(lambda x: np.zeros((points, seeds, *on_host(x).shape[2:]), on_host(x).dtype), parts[0][1])
    for block, lanes in parts:
        at = np.ix_(block.points, block.seeds)
        for all_of_it, x in zip(jax.tree.leaves(whole), jax.tree.leaves(lanes), strict=True):
            all_of_it[at] = np.swapaxes(on_host(x), 0, 1)
    return whole


def _is_key(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
