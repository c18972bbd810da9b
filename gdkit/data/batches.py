"""Batches of a source, read step by step or in windows of consecutive steps."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from gdkit.data.held_out import describe_arrays
from gdkit.errors import RunError, bad_type
from gdkit.types import Array, PyTree

WINDOW_BYTES = 2**22  # most bytes of the batches that a program gets at once
MAX_STEPS = 64  # most steps of these batches

BatchFunction = Callable[[int, int], PyTree]


class BatchWindow(NamedTuple):
    """The batches of consecutive steps, which stand in for the data of a problem."""

    first: Any  # () int32, the step of the first one
    batches: PyTree  # each leaf (steps, ...)


@dataclasses.dataclass(frozen=True)
class Source:
    """A function ``(seed, t) -> batch`` with checks: every batch is like that of seed 0 and step 0."""

    function: BatchFunction

    @functools.cached_property
    def first(self) -> PyTree:
        """The batch of seed 0 and step 0, which is read once."""
        batch = jax.tree.map(np.array, self._call(0, 0))
        leaves = jax.tree.leaves(batch)
        if not leaves or not all(np.issubdtype(x.dtype, np.number) or x.dtype.kind in "bV" for x in leaves):
            remedy = "Return a pytree of numbers or NumPy arrays"
            raise bad_type("batches", batch, "the batch of seed 0 and step 0 holds no arrays of numbers", remedy)
        return batch

    @functools.cached_property
    def window_steps(self) -> int:
        """The steps that one window serves: as many as fit in `WINDOW_BYTES`, 1 to `MAX_STEPS`."""
        size = sum(x.nbytes for x in jax.tree.leaves(self.first))
        return int(np.clip(WINDOW_BYTES // max(size, 1), 1, MAX_STEPS))

    def example(self) -> BatchWindow:
        """A window of the shape of all windows, with the first batch at every step."""
        repeat = lambda x: np.broadcast_to(x, (self.window_steps, *x.shape))
        return BatchWindow(np.int32(0), jax.tree.map(repeat, self.first))

    def read(self, seed: int, t: int) -> PyTree:
        """The batch of a seed and a step.

        Raises:
          RunError: the source raised.
          InputTypeError: the batch is not like the first one.
        """
        if (seed, t) == (0, 0):
            return self.first
        batch = jax.tree.map(np.asarray, self._call(seed, t))
        found, expected = describe_arrays(batch), describe_arrays(self.first)
        if found != expected:
            problem = f"batches(seed={seed}, t={t}) differs in structure, shape or dtype from the first, {expected}"
            raise bad_type("batches", found, problem, "Return batches of one shape for every seed and step")
        return batch

    def read_window(self, seed: int, first: int, begin: int, end: int, steps: int | None = None) -> BatchWindow:
        """The window from step `first` on, with the batches of the steps `begin` to `end` - 1, and zeros elsewhere."""
        allocate = lambda x: np.zeros((steps or self.window_steps, *x.shape), x.dtype)
        window = BatchWindow(np.int32(first), jax.tree.map(allocate, self.first))
        for t in range(begin, end):
            for target, x in zip(jax.tree.leaves(window.batches), jax.tree.leaves(self.read(seed, t)), strict=True):
                target[t - first] = x
        return window

    def _call(self, seed: int, t: int) -> PyTree:
        try:
            return self.function(seed, t)
        except (Exception, SystemExit) as error:
            text = f"batches(seed={seed}, t={t}) raised {type(error).__name__}: {error}"
            raise RunError(f"{text}. Make it return a batch for every seed and step from 0 on.") from error


def select_batch(window: BatchWindow, t: Array) -> PyTree:
    """The batch of step `t` of a window that holds it."""
    select = lambda x: jax.lax.dynamic_index_in_dim(x, t - window.first, 0, keepdims=False)
    return jax.tree.map(select, window.batches)
