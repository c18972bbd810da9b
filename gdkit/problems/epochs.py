"""Rows in shuffled epochs: any row of a permutation by itself, without the permutation in memory."""

import jax
import jax.numpy as jnp
import numpy as np

from gdkit.data.shuffling import ROUNDS, shuffle
from gdkit.types import Array, Key


def epoch_rows(key: Key, t: Array | int, size: int, rows: int) -> Array:
    """The rows of minibatch `t` in a stream of epochs; each epoch has every row once, in an order of its own.

    A minibatch at the end of an epoch is filled up with the first rows of the next one, so that all have one shape.

    Args:
      key: decides the order of every epoch.
      t: the step, at least 0.
      size: rows per minibatch.
      rows: of the data, less than 2³¹.

    Returns:
      (size,) uint32, in [0, rows).
    """
    epoch, place = _divide_product(jnp.asarray(t, jnp.uint32), size, rows)
    places = place + jnp.arange(size, dtype=jnp.uint32)
    epochs = -(-(size - 1) // rows) + 1  # the most that a minibatch touches
    make_rounds = lambda number: jax.random.bits(jax.random.fold_in(key, number), (ROUNDS, 2), jnp.uint32)
    rounds = jax.vmap(make_rounds, out_axes=-1)(epoch + jnp.arange(epochs, dtype=jnp.uint32))
    return shuffle(places % rows, jnp.take(rounds, places // rows, axis=-1, mode="clip"), rows)


def _divide_product(t: Array, size: int, rows: int) -> tuple[Array, Array]:
    """Quotient and remainder of ``t * size`` by `rows`, from the bits of `size`, since the product may overflow."""
    count = np.uint32(rows)
    quotient, remainder = jnp.zeros_like(t), jnp.zeros_like(t)
    for bit in f"{size:b}":
        quotient, remainder = 2 * quotient, 2 * remainder
        if bit == "1":
            # reduce the doubled remainder, then the sum: each is below 2 * rows < 2³²
            quotient, remainder = quotient + remainder // count, remainder % count
            quotient, remainder = quotient + t // count, remainder + t % count
        quotient, remainder = quotient + remainder // count, remainder % count
    return quotient, remainder
