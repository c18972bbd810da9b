"""A data set, and the table that it is made from."""

import dataclasses
import math
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from gdkit.checks import check_choice

Pair: TypeAlias = tuple[np.ndarray, np.ndarray]  # x (rows, ...), y (rows, ...)
Scale: TypeAlias = tuple[np.ndarray, np.ndarray]  # mean and spread, each (...)

SPLIT = (0.7, 0.15, 0.15)  # fractions of the rows for train, validation and test
TASKS = ("classification", "regression")
# A text file has no dtypes: a target of integers with at most this many distinct values is a classification.
MAX_INFERRED_CLASSES = 20


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
      caveats: what is suspicious about the data, one sentence each; reports show them.

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
    caveats: tuple[str, ...] = ()

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


class TableColumn(NamedTuple):
    """A column of a file: numbers, or text."""

    name: str
    numbers: np.ndarray | None  # (rows,) float64, NaN where missing; None for text
    codes: np.ndarray  # (rows,) number of each cell in `levels`, -1 where missing; without rows for numbers
    levels: np.ndarray  # (levels,) distinct texts, sorted; empty for numbers

    @property
    def is_missing(self) -> np.ndarray:
        """Mask of the rows without a value."""
        return self.codes < 0 if self.numbers is None else np.isnan(self.numbers)

    def select(self, rows: np.ndarray) -> "TableColumn":
        """The column with some of its rows."""
        if self.numbers is None:
            return self._replace(codes=self.codes[rows])
        return self._replace(numbers=self.numbers[rows])


class Features(NamedTuple):
    """Columns that are encoded when the training rows are known."""

    columns: tuple[TableColumn, ...]
    missing: str = "refuse"  # the option `missing` of a file
    categorical: str = "refuse"


class Table(NamedTuple):
    """The content of a source, before it is split."""

    x: np.ndarray | Features  # (rows, ...)
    y: np.ndarray  # (rows, ...) numbers or text
    task: str
    feature_names: tuple[str, ...] | None = None
    class_names: tuple[Any, ...] | None = None  # names of the sorted labels, if the source has them
    parts: tuple[Any, ...] | None = None  # row numbers of train, validation and test, if the source has parts
    as_given: bool = False  # neither standardize x nor renumber integer labels
    caveats: tuple[str, ...] = ()


def infer_task(y: np.ndarray) -> str:
    """The task for targets whose dtype is known."""
    return "regression" if y.dtype.kind == "f" else "classification"


def infer_task_of_numbers(y: np.ndarray) -> str:
    """The task for targets read as floats."""
    few = len(np.unique(y)) <= MAX_INFERRED_CLASSES and np.array_equal(y, np.round(y))
    return "classification" if few else "regression"
