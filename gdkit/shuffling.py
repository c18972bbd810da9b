"""A keyed permutation whose rows are computed one by one, without the permutation in memory."""

from typing import Any

import jax.numpy as jnp
import numpy as np

ROUNDS = 32  # of the shuffle, whose distance from a random permutation falls by half about every two rounds


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
