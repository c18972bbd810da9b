"""Arrays as tables: pairs in memory, ``.npz`` archives and ``.npy`` files, which are mapped and not copied."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from gdkit.datasets.dataset import Pair, Table, infer_task, infer_task_of_numbers
from gdkit.errors import bad_type, bad_value, nearest

PARTS = ("train", "validation", "test")


def table_from_arrays(x: Any, y: Any) -> Table:
    """The table of a pair of arrays, which are used as they are."""
    if any(isinstance(a, Tracer) for a in (x, y)):
        raise bad_type("data", (x, y), "traced arrays", "Pass concrete arrays: data must not depend on a lane")
    y = as_numbers("y", _as_array("y", y), text=True)
    return Table(as_numbers("x", _as_array("x", x)), y, infer_task(y), as_given=True)


def read_npz(path: Path, target: str | int | None, task: str | None) -> Table:
    """The table of an archive with arrays x and y, or x_train, y_train, x_test and y_test."""
    if isinstance(target, int):
        raise bad_type("target", target, "an .npz has no columns", "Pass the name of the array of targets")
    arrays = _read_arrays(path)
    target = target or "y"
    pairs: list[tuple[str, str] | None] = [("x", target)]
    if "x" not in arrays and "x_train" in arrays:
        pairs = [(f"x_{part}", f"{target}_{part}") for part in PARTS]
        if "x_validation" not in arrays:
            pairs[1] = None
    for name in (name for pair in pairs if pair for name in pair):
        if name not in arrays:
            remedy = nearest(name, arrays) or "Save arrays x and y, or x_train, y_train, x_test and y_test"
            raise bad_value("file", str(path), f"it has {sorted(arrays)}, and no array {name!r}", remedy)
    return _join_pairs([check_rows(arrays[pair[0]], arrays[pair[1]], pair) if pair else None for pair in pairs], task)


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        # opened here, because np.load leaves its file open if the archive is damaged
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    # damaged bytes raise many kinds of errors in zipfile, zlib, struct and NumPy's header parser
    except Exception as error:
        remedy = "Save arrays of numbers with np.savez(path, x=x, y=y); pickled objects are never loaded"
        raise bad_value("file", str(path), f"it cannot be read as .npz ({error})", remedy) from error


def _join_pairs(pairs: Sequence[Pair | None], task: str | None) -> Table:
    """One table of all pairs, with the row numbers of each; without them for a single pair."""
    given = [pair for pair in pairs if pair is not None]
    if len({a.shape[1:] for a, _ in given}) > 1 or len({b.shape[1:] for _, b in given}) > 1:
        shapes = [(a.shape, b.shape) for a, b in given]
        raise bad_value("file", shapes, "the parts differ in shape", "Save the same features and targets in every part")
    if len({b.dtype.kind in "US" for _, b in given}) > 1:
        dtypes = [b.dtype.name for _, b in given]
        raise bad_value("file", dtypes, "targets of text and of numbers", "Use one of the two")
    x, y = (np.concatenate(arrays) for arrays in zip(*given, strict=True))
    parts, start = [], 0
    for pair in pairs:
        stop = start + (0 if pair is None else len(pair[0]))
        parts.append(None if pair is None else np.arange(start, stop))
        start = stop
    return Table(x, y, task or infer_task(y), parts=tuple(parts) if len(pairs) > 1 else None)


def read_npy(path: Path, target: str | int | None, task: str | None) -> Table:
    """The table of a mapped array: `target` is a column of it, or the path of the array of targets."""
    x = _map_array(path)
    if isinstance(target, str):
        y = _map_array(Path(target).expanduser())
        return Table(*check_rows(x, y, (path.name, target)), task or infer_task(y))
    if x.ndim != 2 or target is None:
        remedy = "Give the index of a column of an array (rows, columns), or the path of the .npy file of targets"
        raise bad_value("target", target, f"the array has shape {x.shape}", remedy)
    columns = x.shape[1]
    if not -columns <= target < columns:
        raise bad_value("target", target, f"there are {columns} columns", f"Pass 0 to {columns - 1}")
    y = as_numbers("y", x[:, target])
    features = tuple(column for column in range(columns) if column != target % columns)
    x, y = check_rows(x[:, features], y, ("x", "y"))
    return Table(x, y, task or infer_task_of_numbers(y), feature_names=tuple(map(str, features)))


def _map_array(path: Path) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(array, np.ndarray):
            raise ValueError("it is an archive; rename it to .npz")
        return array
    except Exception as error:  # damaged bytes raise many kinds of errors in NumPy's header parser
        remedy = "Save an array of numbers with np.save(path, x); pickled objects are never loaded"
        raise bad_value("file", str(path), f"it cannot be read as .npy ({error})", remedy) from error


def _as_array(name: str, values: Any) -> np.ndarray:
    try:
        values = np.asarray(values)
    except (ValueError, TypeError) as error:
        raise bad_type(name, values, f"not an array ({error})", "Pass a rectangular array of numbers") from error
    # pandas stores text as objects
    return values.astype(str) if values.dtype == object and all(isinstance(v, str) for v in values.flat) else values


def as_numbers(name: str, values: np.ndarray, *, text: bool = False) -> np.ndarray:
    """`values` as real numbers or, where allowed, text; raises for others."""
    if jax.dtypes.issubdtype(values.dtype, np.floating) and values.dtype.kind != "f":
        return values.astype(np.float32)  # bfloat16 and others, whose finiteness NumPy cannot check
    if values.dtype.kind not in ("fiubUS" if text else "fiub"):
        raise bad_type(name, values.dtype.name, "not an array of real numbers", "Encode text as numbers")
    return values


def check_finite(name: str, values: np.ndarray, problem: str) -> None:
    """Raise unless all `values` are finite; the error names the first that is not."""
    if values.dtype.kind != "f" or np.isfinite(values).all():
        return
    row, *place = np.argwhere(~np.isfinite(values))[0].tolist()
    where = f"row {row}" + (f", column {place[0] if len(place) == 1 else tuple(place)}" if place else "")
    value = float(values[(row, *place)])
    raise bad_value(name, value, f"{problem}, at {where} (from 0)", "Fill it in, or remove the row")


def check_rows(x: np.ndarray, y: np.ndarray, names: tuple[str, str]) -> Pair:
    """`x` and `y`, which are equally many rows of finite numbers; y may be text."""
    as_numbers(names[0], x)
    as_numbers(names[1], y, text=True)
    if x.ndim < 1 or y.ndim < 1 or len(x) != len(y):
        problem = f"{names[0]} has shape {x.shape} and {names[1]} {y.shape}"
        raise bad_value("data", names, problem, "Pass equally many rows of both, along the first dimension")
    if len(x) == 0 or 0 in x.shape:
        raise bad_value(names[0], x.shape, "it has no rows or no features", "Pass at least one of each")
    check_finite(names[0], x, "missing or not finite")
    check_finite(names[1], y, "missing or not finite")
    return x, y
