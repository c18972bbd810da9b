"""Dyadic windows of steps, whose sums do not depend on the length of a run: each octave has four."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from gdkit.trees import select
from gdkit.types import Array


class Window(NamedTuple):
    """Sums over one window of the deviations of a value from `shift`, which keeps their precision."""

    count: Array  # ()
    shift: Array  # ()
    total: Array  # () of the deviations
    square: Array  # () of the squared deviations


Windows = tuple[Window, ...]  # the newest first


def quarter_of_octave(t: Array) -> Array:
    """Length of the dyadic window that holds step `t`: every octave [2ᵏ, 2ᵏ⁺¹) has four."""
    octave = 31 - jax.lax.clz(jnp.maximum(jnp.asarray(t, jnp.int32), 1))
    return jnp.left_shift(1, jnp.maximum(octave - 2, 0))


def starts_window(t: Array) -> Array:
    """Whether a dyadic window starts at step `t`."""
    return t % quarter_of_octave(t) == 0


def next_window(t: Array) -> Array:
    """The first step after `t` at which a dyadic window starts."""
    quarter = quarter_of_octave(t)
    return t + jnp.minimum(quarter - t % quarter, jnp.iinfo(jnp.int32).max - t)  # saturates


def empty_windows(count: int, dtype: DTypeLike) -> Windows:
    """`count` empty windows."""
    return (Window(*(jnp.zeros((), dtype),) * 4),) * count


def push_value(windows: Windows, value: Array, valid: Array) -> Windows:
    """Add `value` to the newest window, where `valid`."""
    w = windows[0]
    deviation = jnp.where(valid, value - w.shift, 0)
    newest = Window(w.count + valid.astype(w.count.dtype), w.shift, w.total + deviation, w.square + deviation**2)
    return (newest, *windows[1:])


def shift_windows(windows: Windows, shift: Array) -> Windows:
    """A new window, and the others moved up by one; unchanged where the newest is empty."""
    zero = jnp.zeros_like(shift)
    moved = (Window(zero, shift, zero, zero), *windows[:-1])
    return select(windows[0].count > 0, moved, windows)


def merge_windows(windows: Windows) -> tuple[Array, Array, Array]:
    """Count, mean and sum of squared deviations over several windows (Chan et al. 1979); the mean of none is NaN."""
    count, mean, m2 = _compute_moments(windows[0])
    for window in windows[1:]:
        n, m, s = _compute_moments(window)
        merged = (count * mean + n * m) / jnp.maximum(count + n, 1)
        m2 = m2 + s + count * (mean - merged) ** 2 + n * (m - merged) ** 2
        count, mean = count + n, merged
    return count, jnp.where(count > 0, mean, jnp.nan), m2


def _compute_moments(w: Window) -> tuple[Array, Array, Array]:
    mean = w.total / jnp.maximum(w.count, 1)
    return w.count, w.shift + mean, jnp.maximum(w.square - w.count * mean**2, 0)
