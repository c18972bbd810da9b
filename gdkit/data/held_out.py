"""Validation and test data on the host: all rows of a source, in chunks that programs read while they run."""

import contextlib
import dataclasses
import functools
import re
from collections.abc import Generator
from typing import Any, Protocol

import jax
import numpy as np

from gdkit.errors import InputTypeError, RunError, bad_type
from gdkit.types import Array, PyTree


class FiniteSource(Protocol):
    """A source of `from_arrays`, `from_map_dataset` or `from_grain`; its rows can also be read in order, in chunks."""

    def count_chunks(self) -> int:
        """The number of chunks."""
        ...

    def read_chunk(self, number: int) -> PyTree:
        """A chunk of rows; all chunks but the last have equally many."""
        ...


@dataclasses.dataclass(frozen=True)
class HeldOutSource:
    """A source of validation or test data: all its rows, in chunks."""

    source: FiniteSource
    part: str  # validation or test

    @functools.cached_property
    def chunks(self) -> int:
        """The number of chunks."""
        return self.source.count_chunks()

    @functools.cached_property
    def first(self) -> PyTree:
        """The first chunk, which is read once."""
        chunk = jax.tree.map(np.array, self._call(0))
        if not jax.tree.leaves(chunk):
            raise bad_type(self.part, chunk, "chunk 0 holds no arrays", "Pass a source of arrays of numbers")
        return chunk

    @functools.cached_property
    def last(self) -> PyTree:
        """The last chunk, which may have fewer rows."""
        return self.first if self.chunks == 1 else jax.tree.map(np.array, self._call(self.chunks - 1))

    @property
    def rows(self) -> int:
        """The number of all rows."""
        return count_rows(self.first) * (self.chunks - 1) + count_rows(self.last)

    def fetch(self, number: Array | int, like: PyTree) -> PyTree:
        """A chunk of the shapes of `like`, the first or the last one, which is read while the program runs."""
        as_shape = lambda x: jax.ShapeDtypeStruct(x.shape, jax.dtypes.canonicalize_dtype(x.dtype))
        read = functools.partial(self._read, describe_arrays(like))
        return jax.pure_callback(read, jax.tree.map(as_shape, like), number, vmap_method="sequential")

    def _read(self, expected: PyTree, number: Any) -> PyTree:
        chunk = jax.tree.map(np.asarray, self._call(int(number)))
        if (found := describe_arrays(chunk)) != expected:
            problem = f"chunk {int(number)} differs in structure, shape or dtype from the first, {expected}"
            remedy = "Return rows of one shape, and equally many in all chunks but the last"
            raise bad_type(self.part, found, problem, remedy)
        return jax.tree.map(lambda x: np.asarray(x, jax.dtypes.canonicalize_dtype(x.dtype)), chunk)

    def _call(self, number: int) -> PyTree:
        try:
            return self.source.read_chunk(number)
        except (Exception, SystemExit) as error:
            text = f"{self.part}: reading chunk {number} raised {type(error).__name__}: {error}"
            raise RunError(f"{text}. Make the source return all of its rows.") from error


def count_rows(chunk: PyTree) -> int:
    """The rows of a chunk; 1 for scalars."""
    return next(iter(np.shape(jax.tree.leaves(chunk)[0])), 1)


@contextlib.contextmanager
def raise_source_errors() -> Generator[None]:
    """Raise an error of a source that a program read as the error that the source raised, not as one of the program."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        pattern = r"^(?:gdkit\.errors\.)?(?P<kind>RunError|InputTypeError): (?P<text>.*)"
        found = re.search(pattern, str(error), re.MULTILINE)
        if found is None:
            raise
        kind = RunError if found["kind"] == "RunError" else InputTypeError
        raise kind(found["text"]) from error


def describe_arrays(tree: PyTree) -> PyTree:
    """The dtypes and shapes of arrays."""
    return jax.tree.map(lambda x: f"{x.dtype}{list(x.shape)}", tree)
