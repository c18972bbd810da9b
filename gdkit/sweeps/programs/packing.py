"""Trees of many small leaves as few arrays: a call of a program costs by the array that it takes or gives back."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from gdkit.sweeps.plan.blocks import Block
from gdkit.types import PyTree

_STATIC = {"static": True}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Packed:
    """A tree over a block of lanes; itself a tree, whose leaves are its few arrays.

    Leaves that have nothing but the two axes of the lanes lie side by side on a third, one array a dtype.
    """

    arrays: tuple[Any, ...]  # each (seeds, points, ...), of JAX or NumPy
    places: tuple[tuple[int, int | None], ...] = dataclasses.field(metadata=_STATIC)  # a leaf's array, and column of it
    structure: Any = dataclasses.field(metadata=_STATIC)

    @classmethod
    def of(cls, tree: PyTree) -> Self:
        """`tree`, each leaf of which is ``(seeds, points, ...)``."""
        leaves, structure = jax.tree.flatten(tree)
        alone: list[int] = []
        together: dict[Any, list[int]] = {}
        for number, leaf in enumerate(leaves):
            small = leaf.ndim == 2 and not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
            (together.setdefault(leaf.dtype, []) if small else alone).append(number)
        places: dict[int, tuple[int, int | None]] = {number: (array, None) for array, number in enumerate(alone)}
        for array, group in enumerate(together.values(), len(alone)):
            places |= {number: (array, column) for column, number in enumerate(group)}
        stacks = [jnp.stack([leaves[number] for number in group], axis=-1) for group in together.values()]
        arrays = (*(leaves[number] for number in alone), *stacks)
        return cls(arrays, tuple(places[number] for number in range(len(leaves))), structure)

    def tree(self) -> PyTree:
        """The tree, of what the arrays are: of JAX, NumPy or shapes."""
        leaves = [self.arrays[array] if at is None else _column(self.arrays[array], at) for array, at in self.places]
        return jax.tree.unflatten(self.structure, leaves)


def _column(x: Any, at: int) -> Any:
    is_shape = not hasattr(x, "__getitem__")
    return jax.ShapeDtypeStruct(x.shape[:-1], x.dtype) if is_shape else x[..., at]


def to_host(x: Any) -> np.ndarray:
    """A leaf of lanes as numbers; of keys their data."""
    return np.asarray(jax.random.key_data(x) if _is_key(x) else x)


def to_device(x: np.ndarray, like: Any) -> Any:
    """What `on_host` made of a leaf, as a program takes it."""
    if not _is_key(like):
        return x
    key = jax.random.wrap_key_data(jnp.asarray(x), impl=jax.random.key_impl(jnp.empty((), like.dtype)))
    return jax.device_put(key, like.sharding)


def get_host_shape(x: Any) -> Any:
    """The shape and dtype of what `on_host` makes of a leaf."""
    return jax.eval_shape(jax.random.key_data, x) if _is_key(x) else x


def gather_lanes(parts: Sequence[tuple[Block, Packed]], points: int, seeds: int) -> Packed:
    """The lanes of blocks together, each array (points, seeds, ...); of a lane in several the last counts."""
    whole = jax.tree.map(lambda x: np.zeros((points, seeds, *to_host(x).shape[2:]), to_host(x).dtype), parts[0][1])
    for block, lanes in parts:
        at = np.ix_(block.points, block.seeds)
        for all_of_it, x in zip(jax.tree.leaves(whole), jax.tree.leaves(lanes), strict=True):
            all_of_it[at] = np.swapaxes(to_host(x), 0, 1)
    return whole


def _is_key(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
