"""Suspicious columns of a file: those that count the rows, and those that predict the target by themselves."""

import json
from collections.abc import Sequence

import numpy as np

from gdkit.datasets.dataset import TableColumn

# With fewer rows, or fewer rows of some class, such columns arise by chance.
_MIN_COUNTED, _MIN_ROWS, _MIN_CLASS_ROWS = 10, 20, 5


def find_caveats(features: Sequence[TableColumn], y: np.ndarray, task: str) -> tuple[str, ...]:
    """A sentence for each kind of suspicious column, with the remedy in the syntax of a config."""
    counting = [column for column in features if _counts_rows(column)]
    labels = np.unique(y, return_inverse=True)[1]
    is_telling = _follows_target if task == "regression" else _separates_classes
    telling = [column for column in features if is_telling(column, labels)]
    telling = telling if len(features) > 1 else []  # a single feature may well predict perfectly
    caveats = []
    if counting:
        remedy = f"If it is not a feature, set {_format_drop(counting)}."
        caveats.append(f"{_name_columns(counting)} counts the rows. {remedy}")
    if telling:
        remedy = f"If it is derived from the target, set {_format_drop(telling)}."
        caveats.append(f"{_name_columns(telling)} predicts the target perfectly. {remedy}")
    return tuple(caveats)


def _counts_rows(column: TableColumn) -> bool:
    numbers = column.numbers
    return numbers is not None and len(numbers) >= _MIN_COUNTED and bool((np.diff(numbers) == 1).all())


def _follows_target(column: TableColumn, ranks: np.ndarray) -> bool:
    """Whether a column of numbers orders the rows as the ranks of the target do, or in reverse."""
    if column.numbers is None or column.is_missing.any() or ranks.max() < _MIN_ROWS - 1:
        return False
    own = np.unique(column.numbers, return_inverse=True)[1]
    return np.array_equal(own, ranks) or np.array_equal(own.max() - own, ranks)


def _separates_classes(column: TableColumn, labels: np.ndarray) -> bool:
    """Whether few distinct values have one class each, or thresholds separate all classes."""
    if column.is_missing.any() or len(labels) < _MIN_ROWS or np.bincount(labels).min() < _MIN_CLASS_ROWS:
        return False
    values = np.unique(column.codes if column.numbers is None else column.numbers, return_inverse=True)[1]
    order = np.lexsort((labels, values))
    is_change = np.diff(labels[order]) != 0
    has_one_class = (np.diff(values[order])[is_change] != 0).all()
    is_separated = column.numbers is not None and is_change.sum() == labels.max()
    return bool(has_one_class and (is_separated or 2 * (values.max() + 1) <= len(labels)))


def _name_columns(columns: Sequence[TableColumn]) -> str:
    names = ", ".join(repr(column.name) for column in columns)
    return f"column {names}" if len(columns) == 1 else f"each of the columns {names}"


def _format_drop(columns: Sequence[TableColumn]) -> str:
    return f"drop: [{', '.join(json.dumps(column.name, ensure_ascii=False) for column in columns)}]"
