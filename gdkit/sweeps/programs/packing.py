"""Lanes packed into few arrays, on the device and on the host: the cost of a call grows with its arrays."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from gdkit.sweeps.plan.blocks import Block
from gdkit.trees import is_key, to_host
from gdkit.types import PyTree

_STATIC = {"static": True}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Packed:
    """A pytree over a block of lanes; itself a pytree whose leaves are few arrays.

    Leaves with no axes besides the two of the lanes are stacked on a third axis, in one array per dtype.
    """

    arrays: tuple[Any, ...]  # each (seeds, points, ...), of JAX or NumPy
    places: tuple[tuple[int, int | None], ...] = dataclasses.field(metadata=_STATIC)  # per leaf: array, column of it
    structure: Any = dataclasses.field(metadata=_STATIC)

    @classmethod
    def pack(cls, tree: PyTree) -> Self:
        """Pack a tree of leaves ``(seeds, points, ...)``."""
        leaves, structure = jax.tree.flatten(tree)
        unstacked: list[int] = []
        stacked: dict[Any, list[int]] = {}
        for number, leaf in enumerate(leaves):
            is_small = leaf.ndim == 2 and not is_key(leaf)
            (stacked.setdefault(leaf.dtype, []) if is_small else unstacked).append(number)
        places: dict[int, tuple[int, int | None]] = {number: (array, None) for array, number in enumerate(unstacked)}
        for array, group in enumerate(stacked.values(), len(unstacked)):
            places |= {number: (array, column) for column, number in enumerate(group)}
        stacks = [jnp.stack([leaves[number] for number in group], axis=-1) for group in stacked.values()]
        arrays = (*(leaves[number] for number in unstacked), *stacks)
        return cls(arrays, tuple(places[number] for number in range(len(leaves))), structure)

    def unpack(self) -> PyTree:
        """The pytree, of the same kind of arrays: JAX, NumPy or shapes."""
        leaves = [self.arrays[array] if at is None else _take(self.arrays[array], at) for array, at in self.places]
        return jax.tree.unflatten(self.structure, leaves)


def take_lane(lanes: Packed, at: tuple[int, int]) -> PyTree:
    """One lane, at (seed, point) in its block; each leaf an array of JAX."""
    take = lambda array, column: array[at] if column is None else array[(*at, column)]
    arrays = [x if is_key(x) else np.asarray(x) for x in lanes.arrays]
    leaves = [take(arrays[array], column) for array, column in lanes.places]
    return jax.tree.unflatten(lanes.structure, [x if is_key(x) else to_jax(x) for x in leaves])


def to_jax(x: Any) -> Any:
    """An array of JAX with the numbers of `x`; `x` itself where JAX would change its dtype: float64 without x64."""
    return jnp.asarray(x) if jax.dtypes.canonicalize_dtype(x.dtype) == x.dtype else x


def to_device(x: np.ndarray, like: jax.ShapeDtypeStruct) -> Any:
    """The inverse of `to_host`: a leaf as a program takes it, of the dtype and sharding of `like`."""
    if not is_key(like):
        return x
    key = jax.random.wrap_key_data(jnp.asarray(x), impl=jax.random.key_impl(jnp.empty((), like.dtype)))
    return jax.device_put(key, like.sharding)


def get_host_shape(x: Any) -> Any:
    """The shape and dtype of ``to_host(x)``."""
    return jax.eval_shape(jax.random.key_data, x) if is_key(x) else x


def get_host_dtype(dtype: np.dtype) -> np.dtype:
    """The dtype in which the values of a column are stored: float32 for bfloat16, which NumPy cannot name."""
    return np.dtype(np.float32) if dtype.kind == "V" else np.dtype(dtype)


def gather_lanes(parts: Sequence[tuple[Block, Packed]], points: int, seeds: int) -> Packed:
    """Merge the lanes of blocks, each array (points, seeds, ...); where blocks overlap, the last one counts."""
    merged = jax.tree.map(lambda x: np.zeros((points, seeds, *to_host(x).shape[2:]), to_host(x).dtype), parts[0][1])
    for block, lanes in parts:
        at = np.ix_(block.points, block.seeds)
        for target, x in zip(jax.tree.leaves(merged), jax.tree.leaves(lanes), strict=True):
            target[at] = np.swapaxes(to_host(x), 0, 1)
    return merged


def _take(x: Any, at: int) -> Any:
    is_shape = not hasattr(x, "__getitem__")
    return jax.ShapeDtypeStruct(x.shape[:-1], x.dtype) if is_shape else x[..., at]
