"""Operations on whole pytrees and their leaves: select, norm, one vector, the dtype of statistics, keys, names."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from gdkit.types import Array, Params, PyTree

MANY_LEAVES = 16  # up to this many leaves, copying them into one vector costs more than it saves


def select(condition: Array, yes: PyTree, no: PyTree) -> PyTree:
    """``jnp.where`` over two trees of one structure; `condition` is a scalar."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)


def flatten(tree: PyTree, most_leaves: int = MANY_LEAVES) -> PyTree:
    """`tree`, or one vector if it has many leaves: operations on each leaf would take minutes to compile."""
    return ravel_pytree(tree)[0] if len(jax.tree.leaves(tree)) > most_leaves else tree


def norm(tree: PyTree) -> Array:
    """Euclidean norm over all leaves, whose derivative at zero is zero rather than NaN."""
    square = optax.tree.norm(tree, squared=True)
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
