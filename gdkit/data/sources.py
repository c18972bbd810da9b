"""Sources of batches: arrays, map-style datasets and datasets of grain."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from gdkit import checks
from gdkit.data.batches import BatchFunction
from gdkit.data.shuffling import epoch_rows
from gdkit.errors import bad_type, bad_value
from gdkit.types import PyTree


class MapDataset(Protocol):
    """Examples by index: a list, a PyTorch map-style dataset, a `grain.MapDataset`."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


@dataclasses.dataclass(frozen=True, eq=False)
class _RowSource:
    """Minibatches of rows by shuffled epochs; `take` makes a batch of the numbers of its rows."""

    take: Callable[[np.ndarray], PyTree]
    rows: int
    batch_size: int
    key: int

    def __call__(self, seed: int, t: int) -> PyTree:
        return self.take(epoch_rows(self.key, seed, t, self.batch_size, self.rows))

    def count_chunks(self) -> int:
        """The number of chunks of `batch_size` rows."""
        return -(-self.rows // self.batch_size)

    def read_chunk(self, number: int) -> PyTree:
        """Rows in their order; the last chunk may have fewer than `batch_size`."""
        begin = number * self.batch_size
        return self.take(np.arange(begin, min(begin + self.batch_size, self.rows)))


@dataclasses.dataclass(frozen=True, eq=False)
class _ArrayDataset:
    """Arrays with equally many rows. Memory maps are pickled by the names of their files."""

    arrays: PyTree

    def __call__(self, rows: np.ndarray) -> PyTree:
        return jax.tree.map(lambda x: np.asarray(x[rows]), self.arrays)

    def __getstate__(self) -> dict[str, Any]:
        return {"arrays": jax.tree.map(_describe_map, self.arrays)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        is_map = lambda x: isinstance(x, _MappedFile)
        object.__setattr__(self, "arrays", jax.tree.map(_open_map, state["arrays"], is_leaf=is_map))


class _MappedFile(NamedTuple):
    """A whole memory map in a file."""

    filename: str
    dtype: np.dtype
    offset: int
    shape: tuple[int, ...]
    order: str


def _describe_map(x: Any) -> Any:
    """A memory map of a whole file as its name; other arrays, views of maps among them, as they are."""
    whole = isinstance(x, np.memmap) and x.filename is not None and not isinstance(x.base, np.memmap)
    if not whole:
        return np.asarray(x)
    return _MappedFile(str(x.filename), x.dtype, x.offset, x.shape, "C" if x.flags.c_contiguous else "F")


def _open_map(x: Any) -> Any:
    return np.memmap(x.filename, x.dtype, "r", x.offset, x.shape, x.order) if isinstance(x, _MappedFile) else x


def from_arrays(arrays: PyTree, *, batch_size: int, key: int = 0) -> BatchFunction:
    """Minibatches of arrays on the host, memory maps included, by shuffled epochs.

    Every epoch has each row once, in an order of its own for each seed. A batch at the end of an epoch is filled up
    with the first rows of the next one. The cost of a batch does not depend on the number of rows.

    Args:
      arrays: a pytree of arrays with as many rows each, less than 2³¹.
      batch_size: rows per batch.
      key: decides the orders, with the seed.

    Raises:
      InputValueError, InputTypeError: they are not arrays of as many rows each.

    >>> source = from_arrays((np.arange(6), np.arange(6) ** 2), batch_size=3)
    >>> epoch = [source(0, t) for t in (0, 1)]
    >>> sorted(np.concatenate([x for x, _ in epoch]).tolist()), bool(np.all(epoch[0][0] ** 2 == epoch[0][1]))
    ([0, 1, 2, 3, 4, 5], True)
    """
    leaves = jax.tree.leaves(arrays)
    if not leaves or not all(np.ndim(x) and hasattr(x, "dtype") for x in leaves):
        raise bad_type("arrays", arrays, "not a pytree of arrays with rows", "Pass for example (x, y) of NumPy arrays")
    counts = sorted({len(x) for x in leaves})
    if len(counts) > 1:
        problem = "the arrays differ in their numbers of rows"
        raise bad_value("arrays", counts, problem, "Pass equally many rows of each")
    return _make_row_source(_ArrayDataset(arrays), counts[0], batch_size, key)


def from_map_dataset(
    dataset: MapDataset,
    *,
    batch_size: int,
    key: int = 0,
    collate: Callable[[Sequence[Any]], PyTree] | None = None,
) -> BatchFunction:
    """Minibatches of a dataset with ``__len__`` and ``__getitem__``, by shuffled epochs as in `from_arrays`.

    Args:
      dataset: for example a map-style `torch.utils.data.Dataset`; pure: an index has the same example whenever asked.
      batch_size: examples per batch.
      key: decides the orders, with the seed.
      collate: makes a batch of a list of examples; by default their leaves are stacked as NumPy arrays.

    >>> squares = [(np.float32(i), i * i) for i in range(4)]
    >>> x, y = from_map_dataset(squares, batch_size=4)(seed=0, t=0)
    >>> sorted(x.tolist()), x.dtype.name, sorted(y.tolist())
    ([0.0, 1.0, 2.0, 3.0], 'float32', [0, 1, 4, 9])
    """
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise bad_type("dataset", dataset, "it has no __len__ and __getitem__", "Pass examples by index, or a function")
    return _make_row_source(_Examples(dataset, collate or _stack), len(dataset), batch_size, key)


@dataclasses.dataclass(frozen=True, eq=False)
class _Examples:
    """Examples of a dataset, collated."""

    dataset: MapDataset
    collate: Callable[[Sequence[Any]], PyTree]

    def __call__(self, rows: np.ndarray) -> PyTree:
        return self.collate([self.dataset[int(row)] for row in rows])


class GrainDataset(MapDataset, Protocol):
    """A `grain.MapDataset`: examples or batches by index; beyond its length are later epochs, each shuffled anew."""

    def shuffle(self, seed: int | None = None) -> "GrainDataset": ...


_EPOCHS_PER_SEED = 1_013_904_223  # odd: a shuffle of grain knows epochs modulo 2³²
_INFINITE = 2**48  # elements; a dataset that repeats without end reports about 2⁶³ divided by its batch size


def from_grain(dataset: GrainDataset, *, batch_size: int | None = None, key: int = 0) -> BatchFunction:
    """The batches of a `grain.MapDataset`, with its shuffles and transformations.

    Seed 0 has ``dataset[0]``, ``dataset[1]`` and so on; beyond the end grain continues with the next epoch, in another
    order and with other random transformations. Every other seed has later epochs of the same dataset.

    Args:
      dataset: its elements are batches of one shape, by ``.batch(n, drop_remainder=True)`` or ``.repeat().batch(n)``;
        with `batch_size` they are examples. It needs no ``.repeat()``.
      batch_size: examples per batch; they are then shuffled, unless the dataset repeats already. A batch at the end of
        an epoch is filled up with examples of the next one.
      key: decides this order, with the seed.

    Raises:
      InputTypeError: not a MapDataset, such as one that can only be iterated over.
    """
    if not all(hasattr(dataset, name) for name in ("__len__", "__getitem__", "shuffle")):
        remedy = "Pass a grain.MapDataset, before to_iter_dataset(); other datasets by from_map_dataset"
        raise bad_type("dataset", dataset, "not a grain.MapDataset", remedy)
    if batch_size is not None:
        checks.check_integer("batch_size", batch_size)
    checks.check_integer("key", key, at_least=0)
    size = len(dataset)
    if not size:
        raise bad_value("dataset", size, "it has no elements", "Pass other data")
    if batch_size is not None and size < _INFINITE:
        dataset = dataset.shuffle(seed=key * _EPOCHS_PER_SEED**2 % 2**32)  # grain adds the epoch to it
    return _GrainSource(dataset, batch_size, _EPOCHS_PER_SEED * (size if size < _INFINITE else 1))


@dataclasses.dataclass(frozen=True, eq=False)
class _GrainSource:
    """Elements of a `grain.MapDataset`, or examples of it stacked to batches."""

    dataset: GrainDataset
    batch_size: int | None
    stride: int  # elements from one seed to the next: whole epochs if their length is known

    def __call__(self, seed: int, t: int) -> PyTree:
        first = seed * self.stride
        if self.batch_size is None:
            return self.dataset[first + t]
        begin = first + t * self.batch_size
        return _stack([self.dataset[index] for index in range(begin, begin + self.batch_size)])

    def count_chunks(self) -> int:
        """The number of batches of one epoch; the last batch may have fewer rows."""
        size = len(self.dataset)
        if size >= _INFINITE:
            remedy = "Leave out .repeat() for validation and test data"
            raise bad_value("dataset", size, "it repeats without end", remedy)
        return -(-size // (self.batch_size or 1))

    def read_chunk(self, number: int) -> PyTree:
        """A batch of the first epoch."""
        if self.batch_size is None:
            return self.dataset[number]
        begin = number * self.batch_size
        return _stack([self.dataset[index] for index in range(begin, min(begin + self.batch_size, len(self.dataset)))])


def _stack(examples: Sequence[Any]) -> PyTree:
    return jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *examples)


def _make_row_source(take: Callable[[np.ndarray], PyTree], rows: int, batch_size: int, key: int) -> BatchFunction:
    checks.check_integer("batch_size", batch_size)
    checks.check_integer("key", key, at_least=0)
    if not 0 < rows < 2**31:
        raise bad_value("rows", rows, "a source has 1 to 2³¹ - 1 rows", "Pass other data")
    return _RowSource(take, rows, batch_size, key)
