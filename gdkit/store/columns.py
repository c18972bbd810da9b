"""The columns of a run, put together from its tiles: all of them in memory, or tile by tile as they are asked for."""

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from gdkit.errors import StoreError, unknown_name


class Columns(NamedTuple):
    """What all finished tiles hold, in the order of lanes."""

    values: dict[str, np.ndarray]  # name -> (lanes, ...); NaN, or 0 of whole numbers, where a lane is not finished
    finished: np.ndarray  # (lanes,) bool
    narrower: dict[int, tuple[tuple[int, int], ...]]  # tiles with blocks that ran smaller: their widths and depths


def read_columns(store: Any, names: Sequence[str] | None = None) -> Columns:
    """The columns of a `Store` in memory, each tile read once.

    Raises:
      DamagedFileError: a tile is not what was written.
      StoreError: there is not so much memory.
    """
    kinds, lanes = _kinds(store, names), store.partition.lanes
    _check_room(store, lanes * sum(kind.bytes for kind in kinds.values()))
    values = {name: np.full((lanes, *kind.shape), _missing(kind.dtype), kind.dtype) for name, kind in kinds.items()}
    finished, narrower = np.zeros(lanes, bool), {}
    for tile in map(int, np.flatnonzero(store.finished())):
        at = store.partition.lanes_of(tile)
        found = store.read_tile(tile)
        for name, column in values.items():
            column[at] = found.columns[name]
        finished[at] = True
        if found.narrower:
            narrower[tile] = found.narrower
    return Columns(values, finished, narrower)


def _check_room(store: Any, needed: int) -> None:
    """That all columns can be held; before memory is taken, since a system that lends it freely kills who uses it."""
    known = "SC_PHYS_PAGES" in getattr(os, "sysconf_names", ())
    if known and needed > os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"):
        what = f"its {store.partition.lanes:,} lanes take {needed / 2**30:,.1f} GiB of memory, more than there is"
        remedy = "gdkit.store.Store.open(path).lazy_columns() reads the tiles of the lanes that are asked for"
        raise StoreError(f"{store.path}: {what}. Ask for some: {remedy}.")


def lazy_columns(store: Any, names: Sequence[str] | None = None) -> Any:
    """The columns of a `Store` as an ``xarray.Dataset`` on ``lane`` that holds no numbers until they are asked for.

    An array of xarray's own lazy kind, which needs no Dask: indexing reads the tiles of the lanes that are left, and no
    others. It shows the tiles that are finished now, as `read_columns` does.
    """
    import xarray as xr
    from xarray.core import indexing

    finished = store.finished()
    variables = {}
    for name, kind in _kinds(store, names).items():
        dims = [f"{name}_{i}" for i in range(1, 1 + len(kind.shape))]
        dims = ["point"] if name == "curve_loss" and len(dims) == 1 else dims
        column = indexing.LazilyIndexedArray(_lazy_array(store, name, kind, finished))
        variables[name] = xr.Variable(["lane", *dims], column)
    return xr.Dataset(variables)


def _lazy_array(store: Any, name: str, kind: Any, finished: np.ndarray) -> Any:
    from xarray.backends import BackendArray
    from xarray.core import indexing

    class Column(BackendArray):
        """One column, not read."""

        def __init__(self):
            self.shape, self.dtype = (store.partition.lanes, *kind.shape), np.dtype(kind.dtype)

        def __getitem__(self, key: Any) -> Any:
            return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

        def _read(self, key: tuple[Any, ...]) -> np.ndarray:
            first, *rest = key
            lanes = np.arange(*first.indices(self.shape[0])) if isinstance(first, slice) else np.asarray(first)
            found = _read_lanes(store, name, kind, finished, np.atleast_1d(lanes), rest)
            return found if lanes.ndim else found[0]

    return Column()


def _read_lanes(
    store: Any, name: str, kind: Any, finished: np.ndarray, lanes: np.ndarray, rest: Sequence[Any]
) -> np.ndarray:
    """One column at some lanes, and at `rest` of its other dimensions; reads each tile that they lie in once."""

    def cut(x: np.ndarray) -> np.ndarray:
        for axis in reversed(range(len(rest))):
            x = x[(slice(None),) * (axis + 1) + (rest[axis],)]
        return x

    blank = cut(np.empty((0, *kind.shape), kind.dtype))
    found = np.full((len(lanes), *blank.shape[1:]), _missing(kind.dtype), kind.dtype)
    tiles, rows = store.partition.tiles_of(lanes)
    order = np.argsort(tiles, kind="stable")
    for at in np.split(order, np.flatnonzero(np.diff(tiles[order])) + 1):
        if at.size and finished[tiles[at[0]]]:
            found[at] = cut(store.tile(int(tiles[at[0]]), [name])[name][rows[at]])
    return found


def _missing(dtype: str) -> Any:
    return np.nan if np.dtype(dtype).kind in "fc" else 0


def _kinds(store: Any, names: Sequence[str] | None) -> dict[str, Any]:
    known = store.manifest.columns
    for name in names or ():
        if name not in known:
            raise unknown_name("names", name, known)
    return {name: known[name] for name in (known if names is None else names)}
