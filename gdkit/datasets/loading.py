"""Loading: the sources of data sets, each read, checked and prepared once."""

import functools
import importlib.util
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import jax
import numpy as np

from gdkit.checks import MAX_KEY, check_choice, check_integer
from gdkit.datasets.array_files import read_npy, read_npz, table_from_arrays
from gdkit.datasets.columns import build_table
from gdkit.datasets.dataset import SPLIT, Dataset, Table
from gdkit.datasets.options import FILE_KEYS, FileOptions, data_suffix, is_data_file, parse_options
from gdkit.datasets.preparing import prepare
from gdkit.datasets.text_files import read_parquet, read_text
from gdkit.errors import bad_type, bad_value, missing_package, nearest, warn
from gdkit.factories import is_number

_SETS = {
    "breast_cancer": "classification",
    "diabetes": "regression",
    "digits": "classification",
    "iris": "classification",
    "wine": "classification",
}
DataLike: TypeAlias = str | Mapping[str, Any] | tuple[Any, Any] | Dataset  # what `load` takes


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
        - ``{"file": path, "target": column, ...}`` with these options: `task`; `split`, which takes precedence; for
          text and Parquet `drop` (columns), `missing` (refuse, drop_rows or mean), `categorical` (refuse, one_hot or
          ordinal); for text `header`, `delimiter`, `decimal`, `thousands`, `comment` and `encoding`. Text (.csv, .tsv,
          .txt, .data) has a header, and target is the name or index of a column. An .npz has arrays x and y (or the
          name in `target`), or x_train, y_train, x_test, y_test and optionally x_validation, y_validation: its test
          rows are used as they are, and validation rows are drawn from its training rows if it has none. The array of
          an .npy is mapped; target is the index of a column, or the path of another .npy. Without a task, a target of
          text is a classification, in an .npz also one of booleans or integers, in other files also one of integers
          with at most 20 distinct values; any other target is a regression;
        - a pair ``(x, y)`` of arrays, which are split and cast but not standardized; integers, booleans and text in y
          are a classification;
        - a `Dataset`, returned unchanged.
      split: fractions of the rows for train, validation and test, or for train and test; every part has the classes in
        the same proportions, to within a row per class.
      split_key: an integer of 0 or more; equal keys give equal splits of equally many rows.

    Returns:
      The data set. From names and files, x and the y of a regression are standardized by the mean and standard
      deviation of the training rows (1 for a constant column), which are in `x_scale` and `y_scale`; text is encoded,
      and missing values are filled in, by what scikit-learn fits on the training rows. Floats have JAX's default dtype,
      labels int32. What is suspicious about a file is in `caveats` and a GdkitWarning.

    Raises:
      GdkitError: an unknown set, file, column or option; an empty file; a header that looks like a row; missing values,
        text, dates or columns that number the rows, all named with counts, where no option says what to do with them;
        fewer than two classes; a split that does not sum to 1 or leaves a part without rows.

    >>> wine = load("wine", split=(0.8, 0.2))
    >>> wine.train[0].shape, wine.validation, wine.test[0].shape, wine.classes
    ((142, 13), None, (36, 13), ('class_0', 'class_1', 'class_2'))
    """
    if isinstance(data, Dataset):
        return data
    if isinstance(data, Mapping):
        return _load_mapping(data, split, split_key)
    options = (_check_fractions(split), _check_key(split_key), _get_float_dtype())
    if isinstance(data, str):
        return _load_named(_check_name(data), *options)
    if isinstance(data, tuple | list) and len(data) == 2:
        return prepare(table_from_arrays(*data), None, *options)
    remedy = "Pass the name of a set, {'file': path, 'target': column}, a pair (x, y) of arrays, or a Dataset"
    raise bad_type("data", data, "not a data set", remedy)


# --- sources


@functools.lru_cache(maxsize=16)
def _load_named(name: str, fractions: tuple[float, ...], split_key: int, dtype: str) -> Dataset:
    if importlib.util.find_spec("sklearn") is None:
        raise missing_package("scikit-learn", "app", f"data={name!r}")
    return prepare(_read_file_of(name) if name in _FILES else _read_named(name), name, fractions, split_key, dtype)


def _read_named(name: str) -> Table:
    """A built-in set as scikit-learn loads it."""
    import sklearn.datasets

    bunch = getattr(sklearn.datasets, f"load_{name}")()
    classes = getattr(bunch, "target_names", None)
    class_names = None if classes is None else tuple(np.asarray(classes).tolist())
    return Table(bunch.data, bunch.target, _SETS[name], tuple(map(str, bunch.feature_names)), class_names)


def _read_digits(rows: np.ndarray) -> Table:
    features = tuple(f"pixel_{row}_{column}" for row in range(8) for column in range(8))
    return Table(rows[:, :-1], rows[:, -1].astype(int), _SETS["digits"], features, tuple(range(10)))


def _read_iris(rows: np.ndarray) -> Table:
    features = tuple(f"{part} {side} (cm)" for part in ("sepal", "petal") for side in ("length", "width"))
    return Table(rows[:, :-1], rows[:, -1].astype(int), _SETS["iris"], features, ("setosa", "versicolor", "virginica"))


# Sets that are read from their file in scikit-learn, whose import takes 2 s, longer than all else that precedes a run.
_FILES = {"digits": ("digits.csv.gz", 0, _read_digits), "iris": ("iris.csv", 1, _read_iris)}  # file, lines to skip


def _read_file_of(name: str) -> Table:
    file, header, make = _FILES[name]
    spec = importlib.util.find_spec("sklearn")
    folders = (spec.submodule_search_locations if spec else None) or ()
    path = next((f for folder in folders if (f := Path(folder, "datasets/data", file)).is_file()), None)
    if path is None:  # another version has it elsewhere
        return _read_named(name)
    return make(np.loadtxt(path, delimiter=",", skiprows=header))


def _load_mapping(data: Mapping[str, Any], split: Sequence[float], split_key: int) -> Dataset:
    for key in data:
        check_choice("data", key, FILE_KEYS)
    if "file" not in data:
        raise bad_value("data", dict(data), "no file is named", "Pass {'file': path, 'target': column}")
    path = _check_file(data["file"])
    options = parse_options(data, path)
    fractions = _check_fractions(split if data.get("split") is None else data["split"])
    # size and time of the last change are part of the cache's key, so that an edited file is read again
    stamp = _read_stamp(path)
    if data_suffix(path) == ".npy" and isinstance(options.target, str):
        stamp += _read_stamp(_check_file(options.target))
    dataset = _load_file(path.resolve(), stamp, options, fractions, _check_key(split_key), _get_float_dtype())
    for caveat in dataset.caveats:
        warn(f"{path.name}: {caveat}")
    return dataset


def _read_stamp(path: Path) -> tuple[int, ...]:
    try:
        status = path.stat()
    except OSError as error:
        remedy = "Check the path and its permissions"
        raise bad_value("file", str(path), f"it cannot be read ({error})", remedy) from error
    return status.st_mtime_ns, status.st_size


@functools.lru_cache(maxsize=16)
def _load_file(
    path: Path,
    stamp: tuple[int, ...],  # only part of the cache's key
    options: FileOptions,
    fractions: tuple[float, ...],
    split_key: int,
    dtype: str,
) -> Dataset:
    name = path.name[: path.name.lower().index(data_suffix(path))]
    return prepare(_read_table(path, options), name, fractions, split_key, dtype)


def _read_table(path: Path, options: FileOptions) -> Table:
    suffix = data_suffix(path)
    if suffix == ".npz":
        return read_npz(path, options.target, options.task)
    if suffix == ".npy":
        return read_npy(path, options.target, options.task)
    read = read_parquet if suffix == ".parquet" else read_text
    return build_table(path, *read(path, options), options)


def _check_file(file: Any) -> Path:
    if not isinstance(file, str | os.PathLike):
        raise bad_type("file", file, "not a path", "Pass the path of a data file")
    path = Path(os.path.expanduser(file))
    if not is_data_file(path):
        remedy = "Give a file .csv, .tsv, .txt or .data (or one of these with .gz, .bz2 or .xz), .parquet, .npz or .npy"
        raise bad_value("file", str(file), "not the name of a data file", remedy)
    if not os.path.isfile(path):  # unlike Path.is_file, False for a name that is too long
        beside = [f.name for f in path.parent.glob(f"*{path.suffix}")] if os.path.isdir(path.parent) else []
        remedy = nearest(path.name, beside) or "A relative path starts from the current folder"
        raise bad_value("file", str(file), "no such file", remedy)
    return path


# --- checks


def _check_name(name: str) -> str:
    if is_data_file(Path(name)):
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
    check_integer("split_key", split_key, at_least=0, at_most=MAX_KEY)
    return int(split_key)


def _get_float_dtype() -> str:
    return jax.dtypes.canonicalize_dtype(float).name
