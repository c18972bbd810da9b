"""From a table to a data set: the rows are split, then encoded and standardized by the training rows."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from gdkit.datasets.array_files import PARTS, as_numbers, check_finite, check_rows
from gdkit.datasets.dataset import Dataset, Features, Scale, Table, TableColumn
from gdkit.errors import bad_value, import_package
from gdkit.formatting import count


def prepare(table: Table, name: str | None, fractions: tuple[float, ...], split_key: int, dtype: str) -> Dataset:
    """The data set of a table."""
    if not isinstance(table.x, Features):
        check_rows(table.x, table.y, ("x", "y"))
    y, names, caveats = table.y, table.feature_names, table.caveats
    classes, x_scale, y_scale = None, None, None
    if table.task == "classification":
        y, classes = _encode_labels(table)
        caveats += _find_single_rows(table, y, classes)
    parts = _split_table(table, y, fractions, split_key)
    x = table.x
    if isinstance(x, Features):
        x, names, unseen = _encode_features(x, parts[0])
        caveats += unseen
    if not table.as_given:
        x, x_scale = _standardize(x, parts[0])
        if table.task == "regression":
            y, y_scale = _standardize(as_numbers("y", y), parts[0])
    x, y = _cast("x", x, dtype), _cast("y", y, "int32" if table.task == "classification" else dtype)
    train, validation, test = (_take_rows(x, y, rows) for rows in parts)
    return Dataset(
        train,
        task=table.task,
        validation=validation,
        test=test,
        feature_names=names,
        classes=classes,
        x_scale=x_scale,
        y_scale=y_scale,
        name=name,
        caveats=caveats,
    )


# --- splits


def _split_table(
    table: Table, y: np.ndarray, fractions: tuple[float, ...], split_key: int
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """The row numbers of train, validation and test, which partition the rows."""
    labels = y if table.task == "classification" and y.ndim == 1 else None
    if table.parts is None:
        return _split_rows(len(y), labels, fractions, split_key)
    train, validation, test = table.parts
    if validation is None and fractions[1] > 0:
        share = fractions[1] / (fractions[0] + fractions[1])
        own = None if labels is None else labels[train]
        remaining, drawn, _ = _split_rows(len(train), own, (1 - share, share, 0.0), split_key)
        train, validation = train[remaining], train[drawn]
    return train, validation, test


def _split_rows(rows: int, labels: np.ndarray | None, fractions: tuple[float, ...], split_key: int) -> Any:
    order = np.random.default_rng(split_key).permutation(rows)
    if labels is not None:
        order = order[_spread_classes(labels[order])]
    ends = np.round(np.cumsum(fractions) * rows).astype(int)
    parts = np.split(order, ends[:-1])
    for name, fraction, part in zip(PARTS, fractions, parts, strict=True):
        if fraction > 0 and not len(part):
            raise bad_value("split", fractions, f"none of the {rows} rows is left for {name}", "Pass a larger fraction")
    return tuple(part if fraction > 0 else None for fraction, part in zip(fractions, parts, strict=True))


def _spread_classes(labels: np.ndarray) -> np.ndarray:
    """An order in which every stretch of rows has the classes in their proportions, to within a row per class."""
    _, labels, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    by_class = np.argsort(labels, kind="stable")
    rank = np.empty(len(labels))
    rank[by_class] = np.arange(len(labels)) - np.repeat(np.cumsum(sizes) - sizes, sizes)  # within the row's class
    return np.argsort((rank + 0.5) / sizes[labels], kind="stable")


def _find_single_rows(table: Table, y: np.ndarray, classes: Sequence[Any]) -> tuple[str, ...]:
    """The caveat that some classes have one row, and so are in one part only; labels of arrays need not be classes."""
    if table.as_given or y.ndim > 1:
        return ()
    single = [repr(classes[label]) for label in np.flatnonzero(np.bincount(y) == 1)]
    if not single:
        return ()
    shown = ", ".join(single[:5]) + (", ..." if len(single) > 5 else "")
    return (f"Classes with a single row, which cannot be in every part: {shown}.",)


# --- values


def _encode_features(features: Features, train: np.ndarray) -> tuple[np.ndarray, tuple[str, ...], tuple[str, ...]]:
    """x (rows, features), numbers first and encoded text after them; the names of its columns, and caveats."""
    numeric = [column for column in features.columns if column.numbers is not None]
    texts = [column for column in features.columns if column.numbers is None]
    blocks, names, caveats = [], [column.name for column in numeric], []
    if numeric:
        numbers = np.column_stack([column.numbers for column in numeric if column.numbers is not None])
        blocks.append(_fill(numbers, numeric, train))
    if texts:
        codes = _fill(np.column_stack([column.codes for column in texts]), texts, train)
        encoder = _make_encoder(features.categorical).fit(codes[train])
        blocks.append(encoder.transform(codes))
        for column, known, own in zip(texts, encoder.categories_, codes.T, strict=True):
            one_hot = [f"{column.name}={column.levels[level]}" for level in known]
            names += one_hot if features.categorical == "one_hot" else [column.name]
            unseen = column.levels[np.setdiff1d(own, known)]
            if len(unseen):
                values = count(len(unseen), "value")
                caveats.append(f"{values} of column {column.name!r} in no training row, and encoded as unknown.")
    return np.hstack(blocks), tuple(names), tuple(caveats)


def _make_encoder(categorical: str) -> Any:
    preprocessing = import_package("sklearn.preprocessing", "app", f"categorical={categorical!r}", "scikit-learn")
    if categorical == "one_hot":
        return preprocessing.OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    return preprocessing.OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)


def _fill(values: np.ndarray, columns: Sequence[TableColumn], train: np.ndarray) -> np.ndarray:
    """`values` (rows, columns); missing ones are the training rows' mean, or their most frequent code."""
    is_missing = np.column_stack([column.is_missing for column in columns])
    if not is_missing.any():
        return values
    unknown = [column.name for column, lacks in zip(columns, is_missing[train].T, strict=True) if lacks.all()]
    if unknown:
        raise bad_value("missing", "mean", f"no training row has a value of {unknown}", "Drop these columns")
    impute = import_package("sklearn.impute", "app", "missing='mean'", "scikit-learn")
    is_codes = columns[0].numbers is None
    settings = {"missing_values": -1, "strategy": "most_frequent"} if is_codes else {"strategy": "mean"}
    return impute.SimpleImputer(**settings).fit(values[train]).transform(values)


def _standardize(values: np.ndarray, train: np.ndarray) -> tuple[np.ndarray, Scale]:
    """`values` (rows, ...) standardized by the rows `train`, and the scale."""
    values = values.astype(np.float64)
    rows = values[train]
    with np.errstate(all="ignore"):  # an overflow is reported when the values are cast
        mean, spread = rows.mean(axis=0), rows.std(axis=0)
        # compared with ==, because rounding of the mean gives equal values a small standard deviation
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
    check_finite(name, cast, f"too large for {dtype}")
    return cast


def _take_rows(x: np.ndarray, y: np.ndarray, rows: np.ndarray | None) -> Any:
    """The rows as a read-only pair: all callers that load the same set share its arrays."""
    if rows is None:
        return None
    pair = x[rows], y[rows]
    for values in pair:
        values.flags.writeable = False
    return pair
