"""Shuffled epochs: a keyed permutation whose rows are computed one by one, without the permutation in memory."""

import functools
from typing import Any

import jax.numpy as jnp
import numpy as np

ROUNDS = 32  # of the shuffle; about every two rounds halve its distance from a random permutation
_SHUFFLED_ROWS = 2**13  # rows shuffled at once: a minibatch of 128 by itself takes ten times as long per row


def epoch_rows(key: int, seed: int, t: int, size: int, rows: int) -> np.ndarray:
    """The rows of minibatch `t` in a stream of shuffled epochs; (size,) int64 in [0, rows)."""
    steps = max(min(_SHUFFLED_ROWS, rows) // size, 1)
    first = t % steps * size
    return _shuffle_rows(key, seed, t // steps * steps * size, steps * size, rows)[first : first + size]


@functools.lru_cache(maxsize=16)
def _shuffle_rows(key: int, seed: int, first: int, count: int, rows: int) -> np.ndarray:
    """The rows at the places `first` to ``first + count - 1`` of the stream."""
    epochs, places = np.divmod(np.arange(first, first + count, dtype=np.int64), rows)
    found = np.empty(count, np.int64)
    for epoch in np.unique(epochs):
        bits = np.random.SeedSequence([key, seed, int(epoch)]).generate_state(2 * ROUNDS).reshape(ROUNDS, 2, 1)
        own = epochs == epoch
        found[own] = shuffle(places[own].astype(np.uint32), bits, rows)
    found.setflags(write=False)
    return found


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
