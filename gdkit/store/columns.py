"""The columns of a run, merged from its tiles: in memory, or read tile by tile when lanes are indexed."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gdkit.errors import StoreError, unknown_name
from gdkit.store.arrays import Kind

if TYPE_CHECKING:
    import xarray as xr

    from gdkit.store.store import Store


class Columns(NamedTuple):
    """The columns of all finished tiles, in the order of lanes."""

    values: dict[str, np.ndarray]  # name -> (lanes, ...); NaN, of integers 0, where a lane is not finished
    finished: np.ndarray  # (lanes,) bool
    narrower: dict[int, tuple[tuple[int, int], ...]]  # tile -> widths and depths of blocks smaller than planned


def read_columns(store: "Store", names: Sequence[str] | None = None) -> Columns:
    """The columns of a `Store` in memory, each tile read once.

    Raises:
      DamagedFileError: a tile is not what was written.
      StoreError: this machine has less memory.
    """
    kinds, lanes = _select_kinds(store, names), store.partition.lanes
    _check_memory(store, lanes * sum(kind.bytes for kind in kinds.values()))
    values = {
        name: np.full((lanes, *kind.shape), _get_missing_value(kind.dtype), kind.dtype) for name, kind in kinds.items()
    }
    finished, narrower = np.zeros(lanes, bool), {}
    for tile in map(int, np.flatnonzero(store.finished())):
        lanes_of_tile = store.partition.lanes_of(tile)
        stored = store.read_tile(tile)
        for name, column in values.items():
            column[lanes_of_tile] = stored.columns[name]
        finished[lanes_of_tile] = True
        if stored.narrower:
            narrower[tile] = stored.narrower
    return Columns(values, finished, narrower)


def _check_memory(store: "Store", needed: int) -> None:
    """Raise unless memory can hold all columns; a system that overcommits would kill the process instead."""
    is_known = "SC_PHYS_PAGES" in getattr(os, "sysconf_names", ())
    if is_known and needed > os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"):
        problem = f"its {store.partition.lanes:,} lanes take {needed / 2**30:,.1f} GiB, more than this machine's memory"
        remedy = "Read some of them: gdkit.store.Store.open(path).lazy_columns() reads only the tiles of indexed lanes"
        raise StoreError(f"{store.path}: {problem}. {remedy}.")


def lazy_columns(store: "Store", names: Sequence[str] | None = None) -> "xr.Dataset":
    """The columns of a `Store` as an ``xarray.Dataset`` on ``lane`` that reads no tile until lanes are indexed.

    It uses xarray's own lazy arrays, without Dask: only the tiles of indexed lanes are read. As in `read_columns`,
    lanes of tiles that are not finished now are missing.
    """
    import xarray as xr
    from xarray.core import indexing

    finished = store.finished()
    variables = {}
    for name, kind in _select_kinds(store, names).items():
        dims = [f"{name}_{i}" for i in range(1, 1 + len(kind.shape))]
        dims = ["point"] if name.startswith("curve_") and len(dims) == 1 else dims
        column = indexing.LazilyIndexedArray(_lazy_array(store, name, kind, finished))
        variables[name] = xr.Variable(["lane", *dims], column)
    return xr.Dataset(variables)


def _lazy_array(store: "Store", name: str, kind: Kind, finished: np.ndarray) -> Any:
    from xarray.backends import BackendArray
    from xarray.core import indexing

    class Column(BackendArray):
        """One column, read when it is indexed."""

        def __init__(self):
            self.shape, self.dtype = (store.partition.lanes, *kind.shape), np.dtype(kind.dtype)

        def __getitem__(self, key: Any) -> Any:
            return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

        def _read(self, key: tuple[Any, ...]) -> np.ndarray:
            first, *rest = key
            lanes = np.arange(*first.indices(self.shape[0])) if isinstance(first, slice) else np.asarray(first)
            values = _read_lanes(store, name, kind, finished, np.atleast_1d(lanes), rest)
            return values if lanes.ndim else values[0]

    return Column()


def _read_lanes(
    store: "Store", name: str, kind: Kind, finished: np.ndarray, lanes: np.ndarray, rest: Sequence[Any]
) -> np.ndarray:
    """One column at some lanes, and at `rest` of its other dimensions; reads each of their tiles once."""

    def cut(x: np.ndarray) -> np.ndarray:
        for axis in reversed(range(len(rest))):
            x = x[(slice(None),) * (axis + 1) + (rest[axis],)]
        return x

    blank = cut(np.empty((0, *kind.shape), kind.dtype))
    values = np.full((len(lanes), *blank.shape[1:]), _get_missing_value(kind.dtype), kind.dtype)
    tiles, rows = store.partition.tiles_of(lanes)
    order = np.argsort(tiles, kind="stable")
    for at in np.split(order, np.flatnonzero(np.diff(tiles[order])) + 1):
        if at.size and finished[tiles[at[0]]]:
            values[at] = cut(store.tile(int(tiles[at[0]]), [name])[name][rows[at]])
    return values


def _get_missing_value(dtype: str) -> Any:
    return np.nan if np.dtype(dtype).kind in "fc" else 0


def _select_kinds(store: "Store", names: Sequence[str] | None) -> dict[str, Kind]:
    known = store.manifest.columns
    for name in names or ():
        if name not in known:
            raise unknown_name("names", name, known)
    return {name: known[name] for name in (known if names is None else names)}
