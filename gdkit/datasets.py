"""Data sets: scikit-learn's by name, .npz and .csv files, and arrays; split by a key, and standardized.

All arrays are NumPy arrays: data are on no device before they become the argument of a program.
"""

import array
import csv
import dataclasses
import functools
import math
import os
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np
from jax.core import Tracer

from gdkit.checks import MOST_KEY, check_choice, check_integer
from gdkit.errors import bad_type, bad_value, missing_package, nearest, unknown_name
from gdkit.factories import is_number

Pair = tuple[np.ndarray, np.ndarray]  # x (rows, ...), y (rows, ...)
Scale = tuple[np.ndarray, np.ndarray]  # mean and spread, each (...)

SPLIT = (0.7, 0.15, 0.15)  # fractions of the rows for train, validation and test
TASKS = ("classification", "regression")
# A .csv has no dtypes: a target of integers with at most this many distinct values is a classification.
MAX_INFERRED_CLASSES = 20

_SETS = {
    "breast_cancer": "classification",
    "diabetes": "regression",
    "digits": "classification",
    "iris": "classification",
    "wine": "classification",
}
_FILE_KEYS = ("file", "target", "task", "split")
_MISSING = frozenset({"", "?", "na", "n/a", "nan", "null"})
_PARTS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Rows for training, validation and test, each a pair ``(x, y)``; None for a part without rows.

    Args:
      train, validation, test: x (rows, ...), y (rows, ...). Labels are integers from 0 on.
      task: "classification" or "regression".
      feature_names: one name per column of x.
      classes: the names of labels 0, 1, ... in the source.
      x_scale: mean and standard deviation of the training rows, by which x is standardized; None: x is as given.
      y_scale: the same of a regression target.
      name: the name in tables and figures.

    Raises:
      InputValueError: an unknown task.
    """

    train: Pair
    _: dataclasses.KW_ONLY
    task: str
    validation: Pair | None = None
    test: Pair | None = None
    feature_names: tuple[str, ...] | None = None
    classes: tuple[Any, ...] | None = None
    x_scale: Scale | None = None
    y_scale: Scale | None = None
    name: str | None = None

    def __post_init__(self):
        check_choice("task", self.task, TASKS)

    @property
    def outputs(self) -> int:
        """Number of outputs of a model: one per class, or one per target."""
        if self.task == "regression":
            return math.prod(np.shape(self.train[1])[1:])
        if self.classes is not None:
            return len(self.classes)
        return 1 + max(int(np.max(part[1])) for part in (self.train, self.validation, self.test) if part is not None)


DataLike: TypeAlias = str | Mapping[str, Any] | tuple[Any, Any] | Dataset  # what `load` takes


class Table(NamedTuple):
    """The content of a source, before it is split."""

    x: np.ndarray  # (rows, ...)
    y: np.ndarray  # (rows, ...) numbers or text
    task: str
    feature_names: tuple[str, ...] | None = None
    class_names: tuple[Any, ...] | None = None  # names of the sorted labels, where the source has them
    parts: tuple[Any, ...] | None = None  # row numbers of train, validation and test, where the source has parts
    as_given: bool = False  # neither standardize x nor renumber integer labels


def names() -> tuple[str, ...]:
    """The built-in data sets.

    >>> names()
    ('breast_cancer', 'diabetes', 'digits', 'iris', 'wine')
    """
    return tuple(_SETS)


def load(data: DataLike, *, split: Sequence[float] = SPLIT, split_key: int = 0) -> Dataset:
    """Load a data set, permute its rows by `split_key` and split them into train, validation and test.

    Args:
      data: one of

        - the name of a built-in set (``names()``; the data come with scikit-learn);
        - ``{"file": path, "target": column, "task": ..., "split": ...}``. A .csv has a header; target is the name or
          index of a column, and the other columns are numbers. An .npz has arrays x and y (or the name in `target`), or
          x_train, y_train, x_test, y_test and optionally x_validation, y_validation: its test rows are then used as
          they are, and validation rows are drawn from its training rows if it has none. Without a task, a target of
          text is a classification, in an .npz also one of booleans or integers, in a .csv also one of integers with at
          most 20 distinct values; any other target is a regression. A split in the mapping takes precedence;
        - a pair ``(x, y)`` of arrays, which are split and cast but not standardized; integers, booleans and text in y
          are a classification;
        - a `Dataset`, returned unchanged.
      split: fractions of the rows for train, validation and test, or for train and test.
      split_key: an integer of 0 or more; equal keys give equal splits of equally many rows.

    Returns:
      The data set. From names and files, x and the y of a regression are standardized by the mean and standard
      deviation of the training rows (1 for a constant column), which are in `x_scale` and `y_scale`. Floats have JAX's
      default dtype, labels int32.

    Raises:
      GdkitError: an unknown set, file, column or key; an empty file; a missing or non-numeric value (with its row and
        column); fewer than two classes; a split that does not sum to 1 or leaves a part without rows.

    >>> wine = load("wine", split=(0.8, 0.2))
    >>> wine.train[0].shape, wine.validation, wine.test[0].shape, wine.classes
    ((142, 13), None, (36, 13), ('class_0', 'class_1', 'class_2'))
    """
    if isinstance(data, Dataset):
        return data
    if isinstance(data, Mapping):
        return _load_mapping(data, split, split_key)
    options = (_check_fractions(split), _check_key(split_key), _float_dtype())
    if isinstance(data, str):
        return _load_named(_check_name(data), *options)
    if isinstance(data, tuple | list) and len(data) == 2:
        return _prepare(_table_from_arrays(*data), None, *options)
    remedy = "Pass the name of a set, {'file': path, 'target': column}, a pair (x, y) of arrays, or a Dataset"
    raise bad_type("data", data, "not a data set", remedy)


# --- sources


@functools.lru_cache(maxsize=16)
def _load_named(name: str, fractions: tuple[float, ...], split_key: int, dtype: str) -> Dataset:
    try:
        import sklearn.datasets
    except ImportError:
        raise missing_package("scikit-learn", "app", f"data={name!r}") from None
    bunch = getattr(sklearn.datasets, f"load_{name}")()
    classes = getattr(bunch, "target_names", None)
    class_names = None if classes is None else tuple(np.asarray(classes).tolist())
    table = Table(bunch.data, bunch.target, _SETS[name], tuple(map(str, bunch.feature_names)), class_names)
    return _prepare(table, name, fractions, split_key, dtype)


def _load_mapping(data: Mapping[str, Any], split: Sequence[float], split_key: int) -> Dataset:
    for key in data:
        check_choice("data", key, _FILE_KEYS)
    if "file" not in data:
        raise bad_value("data", dict(data), "no file is named", "Pass {'file': path, 'target': column}")
    path = _check_file(data["file"])
    target, task = data.get("target"), data.get("task")
    if not (target is None or isinstance(target, str | int)) or isinstance(target, bool):
        remedy = "Pass the name of the column, or its index from 0"
        raise bad_type("target", target, "neither a name nor an index", remedy)
    if task is not None:
        check_choice("task", task, TASKS)
    fractions = _check_fractions(split if data.get("split") is None else data["split"])
    try:
        status = path.stat()
    except OSError as error:
        remedy = "Check the path and its permissions"
        raise bad_value("file", str(path), f"it cannot be read ({error})", remedy) from error
    # The size and the time of the last change are part of the key, so that an edited file is read again.
    stamp = (status.st_mtime_ns, status.st_size)
    return _load_file(path.resolve(), stamp, target, task, fractions, _check_key(split_key), _float_dtype())


@functools.lru_cache(maxsize=16)
def _load_file(
    path: Path,
    stamp: tuple[int, int],  # for the key of the cache only
    target: str | int | None,
    task: str | None,
    fractions: tuple[float, ...],
    split_key: int,
    dtype: str,
) -> Dataset:
    table = _read_csv(path, target, task) if path.suffix.lower() == ".csv" else _read_npz(path, target, task)
    return _prepare(table, path.stem, fractions, split_key, dtype)


def _check_file(file: Any) -> Path:
    if not isinstance(file, str | os.PathLike):
        raise bad_type("file", file, "not a path", "Pass the path of a .csv or .npz file")
    path = Path(os.path.expanduser(file))
    if path.suffix.lower() not in (".csv", ".npz"):
        raise bad_value("file", str(file), "neither a .csv nor an .npz file", "Convert it to one of them")
    if not os.path.isfile(path):  # unlike Path.is_file, False for a name that is too long
        beside = [f.name for f in path.parent.glob(f"*{path.suffix}")] if os.path.isdir(path.parent) else []
        remedy = nearest(path.name, beside) or "A relative path starts from the current folder"
        raise bad_value("file", str(file), "no such file", remedy)
    return path


def _table_from_arrays(x: Any, y: Any) -> Table:
    if any(isinstance(a, Tracer) for a in (x, y)):
        raise bad_type("data", (x, y), "traced arrays", "Pass concrete arrays: data must not depend on a lane")
    y = _as_numbers("y", _as_array("y", y), text=True)
    return Table(_as_numbers("x", _as_array("x", x)), y, _infer_task(y), as_given=True)


def _read_npz(path: Path, target: str | int | None, task: str | None) -> Table:
    if isinstance(target, int):
        raise bad_type("target", target, "an .npz has no columns", "Pass the name of the array of targets")
    arrays = _read_arrays(path)
    target = target or "y"
    pairs: list[tuple[str, str] | None] = [("x", target)]
    if "x" not in arrays and "x_train" in arrays:
        pairs = [(f"x_{part}", f"{target}_{part}") for part in _PARTS]
        if "x_validation" not in arrays:
            pairs[1] = None
    for name in (name for pair in pairs if pair for name in pair):
        if name not in arrays:
            remedy = nearest(name, arrays) or "Save arrays x and y, or x_train, y_train, x_test and y_test"
            raise bad_value("file", str(path), f"it has {sorted(arrays)}, and no array {name!r}", remedy)
    return _join_pairs([_check_rows(arrays[pair[0]], arrays[pair[1]], pair) if pair else None for pair in pairs], task)


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        # Opened here, because np.load leaves its file open when the archive is damaged.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    # Damaged bytes raise many kinds of errors in zipfile, zlib, struct and NumPy's header parser.
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
    return Table(x, y, task or _infer_task(y), parts=tuple(parts) if len(pairs) > 1 else None)


def _infer_task(y: np.ndarray) -> str:
    return "regression" if y.dtype.kind == "f" else "classification"


# --- .csv


def _read_csv(path: Path, target: str | int | None, task: str | None) -> Table:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return _parse_csv(str(path), csv.reader(file, strict=True), target, task)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        remedy = "Write comma-separated UTF-8 text whose first line has the column names"
        raise bad_value("file", str(path), f"it cannot be read as .csv ({error})", remedy) from error


def _parse_csv(path: str, reader: Any, target: str | int | None, task: str | None) -> Table:
    rows = _iterate_rows(reader)
    _, header = next(rows, (0, []))
    _check_header(path, header)
    column = _find_target(header, target)
    names = header[:column] + header[column + 1 :]
    features = array.array("d")  # flat: 8 bytes per cell of a large file
    targets = {}  # line number -> cell
    for line, row in rows:
        if len(row) != len(header):
            problem = f"line {line} has {len(row)} cells, the header {len(header)}"
            raise bad_value("file", path, problem, "Write one cell per column in every row, with quotes around commas")
        targets[line] = _check_present(path, line, header[column], row.pop(column))
        features.extend(_parse_number(path, line, name, cell) for name, cell in zip(names, row, strict=True))
    if not targets:
        raise bad_value("file", path, "it has a header and no rows", "Add rows of data")
    x = np.frombuffer(features, dtype=np.float64).reshape(len(targets), len(names))
    return Table(x, *_parse_targets(path, header[column], targets, task), feature_names=tuple(names))


def _iterate_rows(reader: Any) -> Iterator[tuple[int, list[str]]]:
    """Line number and stripped cells of every line that is not blank."""
    for row in reader:
        if row:
            yield reader.line_num, [cell.strip() for cell in row]


def _check_header(path: str, header: list[str]) -> None:
    if not header:
        raise bad_value("file", path, "it is empty", "Write a line of column names, then rows of data")
    if len(header) < 2:
        raise bad_value("file", path, f"one column only, {header[0]!r}", "Separate features and target with commas")
    if all(_is_numeral(name) for name in header):
        problem = f"the first line has numbers, not column names: {reprlib.repr(header)}"
        raise bad_value("file", path, problem, "Add a line of column names")
    if "" in header:
        problem = f"column {header.index('')} (from 0) has no name"
        raise bad_value("file", path, problem, "Name it; for an index written by pandas, save with index=False")
    if len(set(header)) < len(header):
        repeated = next(name for name in header if header.count(name) > 1)
        raise bad_value("file", path, f"two columns are called {repeated!r}", "Give every column its own name")


def _find_target(header: list[str], target: str | int | None) -> int:
    if target is None:
        remedy = f"Name one of {reprlib.repr(header)}, or its index"
        raise bad_value("target", None, "the target column is not given", remedy)
    if isinstance(target, str):
        if target not in header:
            raise unknown_name("target", target, header)
        return header.index(target)
    if not -len(header) <= target < len(header):
        raise bad_value("target", target, f"there are {len(header)} columns", f"Pass 0 to {len(header) - 1}, or a name")
    return target % len(header)


def _parse_targets(path: str, name: str, targets: dict[int, str], task: str | None) -> tuple[np.ndarray, str]:
    """The targets as numbers or text, and the task, inferred if it is not given."""
    texts = [line for line, cell in targets.items() if not _is_numeral(cell)]
    if texts and (task == "regression" or (task is None and len(texts) < len(targets))):
        problem = f"line {texts[0]}, column {name!r}: {reprlib.repr(targets[texts[0]])} is not a number"
        raise bad_value("file", path, problem, "Correct the cell, or set task: classification")
    if texts:
        return np.array(list(targets.values())), "classification"
    y = np.array([_parse_number(path, line, name, cell) for line, cell in targets.items()])
    few = len(np.unique(y)) <= MAX_INFERRED_CLASSES and np.array_equal(y, np.round(y))
    return y, task or ("classification" if few else "regression")


def _check_present(path: str, line: int, name: str, cell: str) -> str:
    if cell.lower() in _MISSING:
        problem = f"line {line}, column {name!r}: missing value {cell!r}"
        raise bad_value("file", path, problem, "Fill it in, or remove the row")
    return cell


def _parse_number(path: str, line: int, name: str, cell: str) -> float:
    value = float(cell) if _is_numeral(cell) else math.nan
    if math.isfinite(value):
        return value
    _check_present(path, line, name, cell)
    problem = f"line {line}, column {name!r}: {reprlib.repr(cell)} is not a finite number"
    raise bad_value("file", path, problem, "Write text columns as numbers, or remove them")


def _is_numeral(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


# --- from a table to a data set


def _prepare(table: Table, name: str | None, fractions: tuple[float, ...], split_key: int, dtype: str) -> Dataset:
    x, y = _check_rows(table.x, table.y, ("x", "y"))
    parts = _split_table(table, fractions, split_key)
    classes, x_scale, y_scale = None, None, None
    if not table.as_given:
        x, x_scale = _standardize(x, parts[0])
    if table.task == "classification":
        y, classes = _encode_labels(table)
    elif not table.as_given:
        y, y_scale = _standardize(_as_numbers("y", y), parts[0])
    x, y = _cast("x", x, dtype), _cast("y", y, "int32" if table.task == "classification" else dtype)
    train, validation, test = (_take_rows(x, y, rows) for rows in parts)
    return Dataset(
        train,
        task=table.task,
        validation=validation,
        test=test,
        feature_names=table.feature_names,
        classes=classes,
        x_scale=x_scale,
        y_scale=y_scale,
        name=name,
    )


def _split_table(table: Table, fractions: tuple[float, ...], split_key: int) -> tuple[Any, ...]:
    """The row numbers of train, validation and test, which partition the rows."""
    if table.parts is None:
        return _split_rows(len(table.x), fractions, split_key)
    train, validation, test = table.parts
    if validation is None and fractions[1] > 0:
        share = fractions[1] / (fractions[0] + fractions[1])
        remaining, drawn, _ = _split_rows(len(train), (1 - share, share, 0.0), split_key)
        train, validation = train[remaining], train[drawn]
    return train, validation, test


def _split_rows(rows: int, fractions: tuple[float, ...], split_key: int) -> tuple[Any, ...]:
    order = np.random.default_rng(split_key).permutation(rows)
    ends = np.round(np.cumsum(fractions) * rows).astype(int)
    parts = np.split(order, ends[:-1])
    for name, fraction, part in zip(_PARTS, fractions, parts, strict=True):
        if fraction > 0 and not len(part):
            raise bad_value("split", fractions, f"none of the {rows} rows is left for {name}", "Pass a larger fraction")
    return tuple(part if fraction > 0 else None for fraction, part in zip(fractions, parts, strict=True))


def _standardize(values: np.ndarray, train: np.ndarray) -> tuple[np.ndarray, Scale]:
    """`values` (rows, ...) standardized by the rows `train`, and the scale."""
    values = values.astype(np.float64)
    rows = values[train]
    with np.errstate(all="ignore"):  # an overflow is reported when the values are cast
        mean, spread = rows.mean(axis=0), rows.std(axis=0)
        # Compared with ==, because rounding of the mean gives equal values a small standard deviation.
        constant = (rows == rows[:1]).all(axis=0) | (spread == 0)
        spread = np.where(constant, 1.0, np.where(np.isfinite(spread), spread, np.nan))
        return (values - mean) / spread, (mean, spread)


def _encode_labels(table: Table) -> tuple[np.ndarray, tuple[Any, ...]]:
    """Labels as integers from 0, and the name of each. Integer labels in arrays of the user stay as they are."""
    y = table.y
    if y.dtype.kind == "f":
        if not np.array_equal(y, np.round(y)):
            raise bad_value("task", table.task, "the target is not integers", "Set task: regression")
        y = y.astype(np.int64) if np.abs(y).max() < 2**53 else y
    values, labels = np.unique(y, return_inverse=True)
    if len(values) < 2:
        remedy = "Use a target with two or more classes, or set task: regression"
        raise bad_value("y", values.tolist(), "all rows have the same class", remedy)
    if table.as_given and y.dtype.kind in "iu":
        if values[0] < 0 or values[-1] >= 2**31:
            raise bad_value("y", values.tolist(), "labels below 0 or above 2**31", "Number the classes from 0")
        return y, tuple(range(int(values[-1]) + 1))
    return labels.reshape(y.shape), table.class_names or tuple(values.tolist())


def _cast(name: str, values: np.ndarray, dtype: str) -> np.ndarray:
    if name == "x" and values.dtype.kind in "iub":
        return values  # for example token numbers or pixels, in arrays of the user
    with np.errstate(all="ignore"):
        cast = values.astype(dtype)
    _check_finite(name, cast, f"too large for {dtype}")
    return cast


def _take_rows(x: np.ndarray, y: np.ndarray, rows: np.ndarray | None) -> Any:
    """The rows as a read-only pair: all callers that load the same set share its arrays."""
    if rows is None:
        return None
    pair = x[rows], y[rows]
    for values in pair:
        values.flags.writeable = False
    return pair


# --- checks


def _as_array(name: str, values: Any) -> np.ndarray:
    try:
        values = np.asarray(values)
    except (ValueError, TypeError) as error:
        raise bad_type(name, values, f"not an array ({error})", "Pass a rectangular array of numbers") from error
    # pandas stores text as objects
    return values.astype(str) if values.dtype == object and all(isinstance(v, str) for v in values.flat) else values


def _as_numbers(name: str, values: np.ndarray, *, text: bool = False) -> np.ndarray:
    """`values` as real numbers or, where allowed, text; raises for others."""
    if jax.dtypes.issubdtype(values.dtype, np.floating) and values.dtype.kind != "f":
        return values.astype(np.float32)  # bfloat16 and others, whose finiteness NumPy cannot check
    if values.dtype.kind not in ("fiubUS" if text else "fiub"):
        raise bad_type(name, values.dtype.name, "not an array of real numbers", "Encode text as numbers")
    return values


def _check_finite(name: str, values: np.ndarray, problem: str) -> None:
    if values.dtype.kind != "f" or np.isfinite(values).all():
        return
    row, *place = np.argwhere(~np.isfinite(values))[0].tolist()
    where = f"row {row}" + (f", column {place[0] if len(place) == 1 else tuple(place)}" if place else "")
    value = float(values[(row, *place)])
    raise bad_value(name, value, f"{problem}, at {where} (from 0)", "Fill it in, or remove the row")


def _check_rows(x: np.ndarray, y: np.ndarray, names: tuple[str, str]) -> Pair:
    _as_numbers(names[0], x)
    _as_numbers(names[1], y, text=True)
    if x.ndim < 1 or y.ndim < 1 or len(x) != len(y):
        problem = f"{names[0]} has shape {x.shape} and {names[1]} {y.shape}"
        raise bad_value("data", names, problem, "Pass equally many rows of both, along the first dimension")
    if len(x) == 0 or 0 in x.shape:
        raise bad_value(names[0], x.shape, "it has no rows or no features", "Pass at least one of each")
    _check_finite(names[0], x, "missing or not finite")
    _check_finite(names[1], y, "missing or not finite")
    return x, y


def _check_name(name: str) -> str:
    if name.lower().endswith((".csv", ".npz")):
        remedy = f"Pass {{'file': {name!r}, 'target': column}}"
        raise bad_value("data", name, "not the name of a data set", remedy)
    check_choice("data", name, _SETS)
    return name


def _check_fractions(split: Any) -> tuple[float, ...]:
    """The split as three floats."""
    remedy = "Pass fractions for train, validation and test, or for train and test, such as (0.7, 0.15, 0.15)"
    if not isinstance(split, Sequence) or isinstance(split, str) or len(split) not in (2, 3):
        raise bad_type("split", split, "not two or three fractions", remedy)
    if not all(map(is_number, split)):
        raise bad_type("split", split, "not all fractions are numbers", remedy)
    if not (all(0 <= f <= 1 for f in split) and split[0] > 0):
        raise bad_value("split", split, "a fraction is below 0 or above 1, or no row is left for training", remedy)
    fractions = tuple(map(float, split))
    if abs(sum(fractions) - 1) > 1e-6:
        raise bad_value("split", split, f"the fractions sum to {sum(fractions):g}, not 1", remedy)
    return fractions if len(fractions) == 3 else (fractions[0], 0.0, fractions[1])


def _check_key(split_key: Any) -> int:
    check_integer("split_key", split_key, at_least=0, at_most=MOST_KEY)
    return int(split_key)


def _float_dtype() -> str:
    return jax.dtypes.canonicalize_dtype(float).name
