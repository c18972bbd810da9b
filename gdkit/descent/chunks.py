"""Values on held-out data in chunks of rows, so that memory does not grow with the number of rows."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from gdkit.data.held_out import count_rows
from gdkit.tracing import jaxprs
from gdkit.types import Array, PyTree

CHUNK_BYTES = 2**22  # most bytes of an array that grows with the rows, in the evaluation of one lane
_MIN_ROWS = 1024  # data with fewer rows are not cut
_TESTED_ROWS, _TESTED_CHUNKS = 64, 4
_ROUNDING = 64  # two means of a few rows may differ by so many times the resolution of their dtype

Values = dict[str, Array]


class Chunks(Protocol):
    """Data in chunks of equally many rows; the last one may have fewer."""

    @property
    def chunks(self) -> int:
        """The number of chunks."""

    @property
    def rows(self) -> int:
        """The number of all rows."""

    @property
    def first(self) -> PyTree:
        """The first chunk."""

    @property
    def last(self) -> PyTree:
        """The last chunk."""

    def fetch(self, number: Array | int, like: PyTree) -> PyTree:
        """A chunk of the shapes of `like`, the first or the last one."""


@dataclasses.dataclass(frozen=True)
class RowChunks:
    """Arrays of equally many rows, in chunks of `size` rows."""

    data: PyTree
    size: int

    @property
    def rows(self) -> int:
        """The number of all rows."""
        return count_rows(self.data)

    @property
    def chunks(self) -> int:
        """The number of chunks."""
        return -(-self.rows // self.size)

    @property
    def first(self) -> PyTree:
        """The first chunk."""
        return jax.tree.map(lambda x: x[: self.size], self.data)

    @property
    def last(self) -> PyTree:
        """The last chunk."""
        return jax.tree.map(lambda x: x[(self.chunks - 1) * self.size :], self.data)

    def fetch(self, number: Array | int, like: PyTree) -> PyTree:
        """A chunk of the shapes of `like`, the first or the last one."""
        cut = lambda x, like: jax.lax.dynamic_slice_in_dim(x, number * self.size, len(like))
        return jax.tree.map(cut, self.data, like)


def average_chunks(values_on: Callable[[PyTree], Values], data: Chunks) -> Values:
    """The means over rows of the values on chunks, which are fetched one after another."""
    rows, last_rows = count_rows(data.first), count_rows(data.last)
    values_of = lambda chunk: {name: jnp.asarray(x, jnp.result_type(x, 1.0)) for name, x in values_on(chunk).items()}
    whole = data.chunks - (last_rows < rows)
    add = lambda total, number: (jax.tree.map(jnp.add, total, values_of(data.fetch(number, data.first))), None)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(values_of, data.first))
    total, _ = jax.lax.scan(add, zeros, jnp.arange(whole, dtype=jnp.int32))
    if whole == data.chunks:
        return jax.tree.map(lambda x: x / whole, total)
    rest = values_of(data.fetch(whole, data.last))
    return jax.tree.map(lambda x, y: (x * rows + y * last_rows) / data.rows, total, rest)


def choose_rows(values_on: Callable[[PyTree], Values], data: PyTree) -> int | None:
    """The rows per chunk, so that no array of the evaluation takes more than `CHUNK_BYTES`; None for one chunk.

    The arrays are found by tracing the evaluation. Those that do not grow with the rows are not counted. Data are not
    cut if the evaluation cannot be traced on fewer rows.
    """
    rows = count_rows(data)
    if rows < _MIN_ROWS or any(jnp.shape(x)[:1] != (rows,) for x in jax.tree.leaves(data)):
        return None
    try:
        largest, of_row = (_largest_array(values_on, data, count) for count in (rows, 1))
        chunks = math.ceil((largest - of_row) / CHUNK_BYTES)
        if chunks <= 1:
            return None
        size = -(-rows // chunks)
        for count in {size, rows % size or size}:
            _largest_array(values_on, data, count)
    except Exception:  # tracing runs code of every kind
        return None
    return size


def _largest_array(values_on: Callable[[PyTree], Values], data: PyTree, rows: int) -> int:
    """The bytes of the largest array that an evaluation on so many rows makes."""
    some = jax.tree.map(lambda x: jax.ShapeDtypeStruct((rows, *x.shape[1:]), x.dtype), data)
    program = jax.make_jaxpr(lambda data: values_on(data))(some)  # a new function: JAX caches the traces of old ones
    made: list[Any] = [v.aval for equation in jaxprs.equations(program.jaxpr) for v in equation.outvars]
    return max((math.prod(x.shape) * x.dtype.itemsize for x in made if hasattr(x, "shape")), default=0)


def find_means(values_on: Callable[[PyTree, PyTree], Values], params: PyTree, data: PyTree) -> frozenset[str]:
    """The values that are means over rows, found by a test: the mean of several chunks equals the value on all rows.

    The test avoids cases where other values agree by chance. It is made at params near `params`, since at the start all
    rows may have the same loss; and some entries of the rows are replaced by the lowest and the highest of the data,
    which may be rare and mean something else, such as a mask.
    """
    rng = np.random.default_rng(0)
    rows = rng.choice(count_rows(data), _TESTED_ROWS, replace=False)
    some = jax.tree.map(functools.partial(_take_mixed, rng, rows), data)
    is_float = lambda x: jnp.issubdtype(x.dtype, jnp.floating)
    noise = lambda x: x + 0.3 * rng.normal(size=x.shape).astype(x.dtype) if is_float(x) else x
    moved = jax.tree.map(noise, params)

    @jax.jit
    def evaluate(params: PyTree, some: PyTree) -> tuple[Values, Values]:
        chunks = jax.tree.map(lambda x: x.reshape(_TESTED_CHUNKS, -1, *x.shape[1:]), some)
        means = jax.vmap(lambda chunk: values_on(params, chunk))(chunks)
        return values_on(params, some), jax.tree.map(lambda x: x.mean(0), means)

    try:
        whole, means = evaluate(moved, some)
    except Exception:  # as above
        return frozenset()
    return frozenset(name for name in whole if _is_close(whole[name], means[name]))


def _take_mixed(rng: np.random.Generator, rows: np.ndarray, x: Any) -> Any:
    """Some rows of an array, an eighth of whose entries are its least value, and an eighth its largest."""
    taken = x[rows]
    if not any(jnp.issubdtype(x.dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_)):
        return taken
    chance = rng.random(taken.shape)
    return jnp.where(chance < 0.125, x.min(), jnp.where(chance > 0.875, x.max(), taken))


def _is_close(a: Array, b: Array) -> bool:
    """Whether two finite floats differ by rounding only; coarse dtypes cannot tell."""
    resolution = float(jnp.finfo(a.dtype).eps) if jnp.issubdtype(a.dtype, jnp.floating) else 0.0
    return resolution < 1e-4 and bool(jnp.abs(a - b) <= _ROUNDING * resolution * jnp.maximum(jnp.abs(a), 1e-3))
