"""Operations on whole pytrees: select, norm, one vector, the dtype of statistics."""

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


def flatten(tree: PyTree) -> PyTree:
    """`tree`, or one vector if it has many leaves: operations on each leaf would take minutes to compile."""
    return ravel_pytree(tree)[0] if len(jax.tree.leaves(tree)) > MANY_LEAVES else tree


def norm(tree: PyTree) -> Array:
    """Euclidean norm over all leaves, whose derivative at zero is zero rather than NaN."""
    square = optax.tree.norm(tree, squared=True)
    positive = square != 0  # so that NaN stays NaN
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, square, 1)), 0)


def statistics_dtype(params: Params) -> np.dtype:
    """The dtype of the params, but at least float32, in which sums keep their digits."""
    return jnp.promote_types(jnp.result_type(*jax.tree.leaves(params)), jnp.float32)
