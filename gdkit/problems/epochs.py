"""Rows in shuffled epochs: any row of a permutation by itself, without the permutation in memory."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gdkit.types import Array, Key

ROUNDS = 32  # of the shuffle, whose distance from a random permutation falls by half about every two rounds


def epoch_rows(key: Key, t: Array | int, size: int, rows: int) -> Array:
    """The rows of minibatch `t` in a stream of epochs, each of which has every row once in an order of its own.

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


def shuffle(places: Any, rounds: Any, rows: int) -> Any:
    """The rows at some places of a permutation of ``range(rows)``, in time that does not depend on `rows`.

    Swap-or-not (Hoang, Morris and Rogaway, An enciphering scheme based on a card shuffle, 2012): each round pairs the
    places by a reflection, and swaps half of the pairs. Works on arrays of NumPy and of JAX.

    Args:
      places: (n,) uint32, in [0, rows).
      rounds: (ROUNDS, 2, n) uint32, random bits; places with equal bits are in one permutation.
      rows: less than 2³¹.

    >>> rounds = np.random.default_rng(0).integers(2**32, size=(ROUNDS, 2, 1), dtype=np.uint32)
    >>> sorted(shuffle(np.arange(7, dtype=np.uint32), rounds, 7).tolist())
    [0, 1, 2, 3, 4, 5, 6]
    """
    xp = np if isinstance(places, np.ndarray) else jnp
    count = np.uint32(rows)
    for reflection, salt in zip(rounds[:, 0] % count, rounds[:, 1], strict=True):
        partner = xp.where(reflection >= places, reflection - places, reflection - places + count)
        swaps = _mix(xp.maximum(places, partner) ^ salt) >> np.uint32(31) == 1
        places = xp.where(swaps, partner, places)
    return places


def _mix(x: Any) -> Any:
    """A hash of uint32: the finalizer of MurmurHash3."""
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    x = (x ^ (x >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return x ^ (x >> np.uint32(16))


def _divide_product(t: Array, size: int, rows: int) -> tuple[Array, Array]:
    """Quotient and remainder of ``t * size`` by `rows`, from the bits of `size`, since the product may overflow."""
    count = np.uint32(rows)
    quotient, remainder = jnp.zeros_like(t), jnp.zeros_like(t)
    for bit in f"{size:b}":
        quotient, remainder = 2 * quotient, 2 * remainder
        if bit == "1":
            # first the doubled remainder, then the sum: each is below 2 * rows < 2³²
            quotient, remainder = quotient + remainder // count, remainder % count
            quotient, remainder = quotient + t // count, remainder + t % count
        quotient, remainder = quotient + remainder // count, remainder % count
    return quotient, remainder
