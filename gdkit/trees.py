"""Operations on whole pytrees and their leaves: select, dot, norm, one vector, dtype of statistics, keys, names."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from gdkit.types import Array, Params, PyTree

_MANY_LEAVES = 16  # up to this many leaves, copying them into one vector costs more than it saves


def select(condition: Array, yes: PyTree, no: PyTree) -> PyTree:
    """``jnp.where`` over two trees of one structure; `condition` is a scalar."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)


def flatten(tree: PyTree, always: bool = False) -> PyTree:
    """One vector if `tree` has many leaves, whose operations would take minutes to compile, or `always` if several."""
    return ravel_pytree(tree)[0] if len(jax.tree.leaves(tree)) > (1 if always else _MANY_LEAVES) else tree


def add_quarters(x: Array) -> Array:
    """The sum of all entries: quarters along an axis are added to each other, until at most 64 numbers are left.

    On a CPU, XLA adds whole slices with vector instructions, and numbers side by side one after the other: without
    this, the squares and products of 8 lanes of a digits MLP take ten times as long. The last axis comes last, and
    no axes are merged: either would take longer where a gradient is stored in another order.
    """
    if x.size <= 64:
        return jnp.sum(x)
    axis = next((axis for axis, length in enumerate(x.shape[:-1]) if length >= 4), x.ndim - 1)
    length = x.shape[axis]
    if length < 4:
        return add_quarters(x.ravel())
    levels = min(math.ceil(math.log(x.size / 64, 4)), int(math.log(length, 4)))
    whole = length - length % 4**levels
    quarters, rest = jnp.split(x, [whole], axis)
    for _ in range(levels):
        quarters = functools.reduce(jnp.add, jnp.split(quarters, 4, axis))
    total = add_quarters(quarters)
    return total + add_quarters(rest) if rest.size else total


def dot(a: PyTree, b: PyTree, add: Callable[[Array], Array] = add_quarters) -> Array:
    """The sum over all leaves of the entries of conj(a) · b, in float32 at least; `add` sums those of a leaf."""
    widen = lambda x: x.astype(jnp.promote_types(x.dtype, jnp.float32))
    products = jax.tree.map(lambda x, y: add(jnp.conj(widen(x)) * widen(y)), a, b)
    return sum(jax.tree.leaves(products))


def norm(tree: PyTree, add: Callable[[Array], Array] = add_quarters) -> Array:
    """Euclidean norm over all leaves, whose derivative at zero is zero rather than NaN; `add` as in `dot`."""
    square = jnp.real(dot(tree, tree, add))
    positive = square != 0  # so that NaN stays NaN
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, square, 1)), 0)


def statistics_dtype(params: Params) -> np.dtype:
    """The dtype of the params, but at least float32, in which sums keep their digits."""
    return jnp.promote_types(jnp.result_type(*jax.tree.leaves(params)), jnp.float32)


def is_key(leaf: Any) -> bool:
    """Whether a leaf is an array of typed keys."""
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def to_host(leaf: Any) -> np.ndarray:
    """A leaf as an array of NumPy; typed keys as their data."""
    return np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf)


def children(tree: PyTree) -> list[tuple[Any, PyTree]]:
    """The direct children of a node, each with its name: a key, a place, or the name of a field.

    >>> children({"w": 1.0, "b": (2.0, 3.0)})
    [('b', (2.0, 3.0)), ('w', 1.0)]
    """
    found, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda x: x is not tree)
    return [(get_name(path[0]), child) for path, child in found if path]


def name_leaves(tree: PyTree) -> dict[str, Any]:
    """The leaves of a tree by their path: names, keys and places joined by ``/``; "" if the tree is one leaf.

    >>> list(name_leaves([{"w": 1.0, "b": 2.0}, 3.0]))
    ['0/b', '0/w', '1']
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {"/".join(str(get_name(entry)) for entry in path): leaf for path, leaf in leaves}


def get_name(entry: Any) -> Any:
    """The name in an entry of a key path of JAX."""
    return next((getattr(entry, name) for name in ("key", "idx", "name") if hasattr(entry, name)), str(entry))
