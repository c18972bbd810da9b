"""Columns of cells as numbers or text, and a table of them once nothing in it is ambiguous."""

import json
import re
import reprlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gdkit.datasets.caveats import find_caveats
from gdkit.datasets.dataset import MAX_INFERRED_CLASSES, Features, Table, TableColumn, infer_task_of_numbers
from gdkit.datasets.options import FileOptions
from gdkit.errors import bad_value
from gdkit.formatting import count

_MISSING = {  # as pandas has them (pandas.read_csv, na_values), and the question mark of many public files
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "?", "N/A", "NA",
    "NULL", "NaN", "None", "n/a", "nan", "null",
}  # fmt: skip
_LARGEST_EXACT = 2**53  # of float64
_MAX_LEVELS = (100, 1000)  # bounds of the most distinct texts of a column that is encoded, else half the rows
_MAX_SHOWN = 20  # columns in a message
_INDEX_NAME = re.compile(r"(Unnamed: \d+(_level_\d+)?)?")  # as pandas writes an index, and reads it again
_PLAIN = frozenset("0123456789+-.eE")
_INTEGER = re.compile(r"[+-]?\d+", re.ASCII)
_PADDED = re.compile(r"[+-]?0\d+", re.ASCII)
_MONTH = r"(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?"
_DATE = re.compile(
    r"\d{4}([-/.])\d{1,2}\1\d{1,2}([T ].*)?|\d{1,2}([-/.])\d{1,2}\3(\d{4}|\d{2})( .*)?|\d{1,2}:\d\d(:\d\d(\.\d+)?)?"
    rf"|\d{{1,2}}[- ]?{_MONTH}[- ,]*(\d{{4}}|\d\d)|{_MONTH}[- ](\d{{1,2}},? )?\d{{4}}",
    re.ASCII | re.IGNORECASE,
)
# Numbers in a notation that needs an option: the pattern and its remedy.
_NOTATIONS = (
    (re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d+)?", re.ASCII), 'thousands: ",", or decimal: "," if it marks decimals'),
    (re.compile(r"[+-]?\d{1,3}(\.\d{3})+,\d+", re.ASCII), 'decimal: "," and thousands: "."'),
    (re.compile(r"[+-]?\d*,\d+(e[+-]?\d+)?", re.ASCII | re.IGNORECASE), 'decimal: ","'),
)


def parse_cells(
    name: str, codes: np.ndarray, cells: Iterable[Any], *, decimal: str = ".", thousands: str | None = None
) -> TableColumn:
    """A column of numbers if all its cells are numbers or missing, else one of text.

    Args:
      name: of the column.
      codes: (rows,), the number of each cell in `cells`; -1 where it is missing.
      cells: distinct texts.
      decimal, thousands: how numbers are written.
    """
    texts = [cell.strip() for cell in map(str, cells)]
    is_missing = np.array([text in _MISSING for text in texts] + [True])  # the last one is for -1
    known = [text for text in texts if text not in _MISSING]
    numbers = parse_numbers(known, decimal, thousands)
    if not np.isnan(numbers).any() and not _merge_as_numbers(known, numbers):
        values = np.full(len(is_missing), np.nan)
        values[~is_missing] = numbers
        return TableColumn(name, values[codes], np.zeros(0, int), np.zeros(0, object))
    levels, places = np.unique(np.array(known, object), return_inverse=True)
    order = np.full(len(is_missing), -1)
    order[~is_missing] = places
    return TableColumn(name, None, order[codes], levels)


def parse_numbers(texts: Iterable[str], decimal: str = ".", thousands: str | None = None) -> np.ndarray:
    """The numbers that `texts` are, integers exactly; NaN for what is not a plain, finite number.

    >>> parse_numbers(["1e3", "1_000", "١٢", "inf", "9007199254740993"])
    array([1000.,   nan,   nan,   nan,   nan])
    """
    texts = list(texts)
    numbers = None if decimal != "." or thousands else _parse_plain(texts)
    if numbers is None:
        pattern = _make_number_pattern(decimal, thousands)
        strip = (lambda text: text.replace(thousands, "")) if thousands else (lambda text: text)
        texts = [strip(text).replace(decimal, ".") if pattern.fullmatch(text) else "nan" for text in texts]
        numbers = np.array(texts, object).astype(np.float64)
    for i in np.flatnonzero(np.abs(numbers) >= _LARGEST_EXACT):
        if np.isinf(numbers[i]) or (_INTEGER.fullmatch(texts[i]) and int(texts[i]) != int(numbers[i])):
            numbers[i] = np.nan
    return numbers


def _make_number_pattern(decimal: str, thousands: str | None) -> re.Pattern[str]:
    mark, groups = re.escape(decimal), rf"|\d{{1,3}}(?:{re.escape(thousands)}\d{{2,3}})+" if thousands else ""
    return re.compile(rf"[+-]?(?:(?:\d+{groups})(?:{mark}\d*)?|{mark}\d+)(?:[eE][+-]?\d+)?", re.ASCII)


def _parse_plain(texts: Sequence[str]) -> np.ndarray | None:
    """All `texts` as numbers, faster than by a pattern; None if one is not a plain number."""
    if not set().union(*texts) <= _PLAIN:
        return None
    try:
        return np.array(texts, object).astype(np.float64)
    except ValueError:  # such as "1-2"
        return None


def build_table(path: Path, columns: Sequence[TableColumn], target: int, options: FileOptions) -> Table:
    """The table of all columns.

    Raises:
      GdkitError: no rows; text, missing values, dates or columns that number the rows where no option says what to do
        with them. One message names all columns concerned.
    """
    if not len(columns[0].is_missing):
        raise bad_value("file", str(path), "it has a header and no rows", "Add rows of data")
    problems = list(_find_problems(columns, target, options))
    if problems:
        described = "; ".join(problem for problem, _ in problems)
        remedies = "; ".join(dict.fromkeys(remedy for _, remedy in problems))
        raise bad_value("file", str(path), described, f"Set {remedies}")
    if options.missing == "drop_rows":
        columns = _drop_rows(path, columns)
    features = tuple(column for i, column in enumerate(columns) if i != target)
    y, task = _parse_targets(path, columns[target], options.task)
    encoded = Features(features, options.missing, options.categorical)
    return Table(encoded, y, task, caveats=find_caveats(features, y, task))


def _find_problems(columns: Sequence[TableColumn], target: int, options: FileOptions) -> Iterator[tuple[str, str]]:
    """What keeps the columns from being read, each with its remedy in the syntax of a config."""
    features = [column for i, column in enumerate(columns) if i != target]
    index = [column for column in features if _INDEX_NAME.fullmatch(column.name)]
    if index:
        yield (
            f"columns that seem to number the rows: {_shorten(repr(column.name) for column in index)}",
            _format_drop(index),
        )
    features = [column for column in features if not _INDEX_NAME.fullmatch(column.name)]
    empty = [column for column in features if column.is_missing.all()]
    if empty:
        yield f"columns without a value: {_shorten(repr(column.name) for column in empty)}", _format_drop(empty)
    judged: dict[tuple[str, str], list[TableColumn]] = {}
    for column in features:
        if len(column.levels):
            judged.setdefault(_judge_text(column, options), []).append(column)
    for (problem, remedy), found in judged.items():
        if problem:
            yield f"{problem}: {_shorten(map(_describe_text, found))}", remedy.format(drop=_format_drop(found))
    gaps = [column for column in features if column.is_missing.any() and not column.is_missing.all()]
    yield from _find_gaps(gaps if options.missing == "refuse" else [], columns[target], options)


def _find_gaps(gaps: list[TableColumn], target: TableColumn, options: FileOptions) -> Iterator[tuple[str, str]]:
    """Missing values, if those of some features or of the target have no option."""
    lacks_target = options.missing != "drop_rows" and target.is_missing.any()
    gaps = [*gaps, target] if lacks_target else gaps
    if gaps:
        rows = np.any([column.is_missing for column in gaps], axis=0)
        remedy = "missing: drop_rows, as a target is not filled in" if lacks_target else "missing: drop_rows or mean"
        yield f"missing values: {_count_missing(gaps)}, in {rows.sum():,} of {count(len(rows), 'row')}", remedy


def _count_missing(columns: Iterable[TableColumn]) -> str:
    return _shorten(f"{column.name!r} {column.is_missing.sum():,}" for column in columns)


def _judge_text(column: TableColumn, options: FileOptions) -> tuple[str, str]:
    """What keeps a column of text from being encoded, and the remedy; empty for a column that is encoded."""
    is_number = ~np.isnan(parse_numbers(column.levels, options.decimal, options.thousands))
    others = column.levels[~is_number]
    if 2 * sum(bool(_DATE.fullmatch(text)) for text in others) > len(column.levels):
        return "columns of dates", "{drop}, or write them as numbers"
    for pattern, remedy in _NOTATIONS:
        if len(others) and all(map(pattern.fullmatch, others)):
            return "columns of numbers in another notation", remedy
    if len(others) and is_number.sum() > MAX_INFERRED_CLASSES:
        return "columns of numbers and text", "{drop}, or correct the cells"
    rows, (few, many) = len(column.codes), _MAX_LEVELS
    if len(column.levels) > min(many, max(few, rows // 2)) and options.categorical != "ordinal":
        return "columns of text with too many values to encode", "{drop}, or categorical: ordinal"
    if options.categorical == "refuse":
        return "columns of text", "categorical: one_hot or ordinal, or {drop}"
    return "", ""


def _describe_text(column: TableColumn) -> str:
    """The name and a few values, first those that are not numbers."""
    is_number = ~np.isnan(parse_numbers(column.levels))
    shown = [reprlib.repr(str(text)) for text in column.levels[np.argsort(is_number, kind="stable")][:3]]
    more = ", ..." if len(column.levels) > len(shown) else ""
    return f"{column.name!r} ({count(len(column.levels), 'value')}: {', '.join(shown)}{more})"


def _format_drop(columns: Sequence[TableColumn]) -> str:
    return f"drop: [{_shorten(json.dumps(column.name, ensure_ascii=False) for column in columns)}]"


def _shorten(texts: Iterable[str]) -> str:
    texts = list(texts)
    more = [f"and {len(texts) - _MAX_SHOWN:,} more"] if len(texts) > _MAX_SHOWN else []
    return ", ".join(texts[:_MAX_SHOWN] + more)


def _drop_rows(path: Path, columns: Sequence[TableColumn]) -> list[TableColumn]:
    """The columns without the rows that lack a value."""
    is_whole = ~np.any([column.is_missing for column in columns], axis=0)
    if not is_whole.any():
        problem = f"every row has a missing value: {_count_missing(c for c in columns if c.is_missing.any())}"
        raise bad_value("missing", "drop_rows", problem, "Drop the worst columns first")
    return [column.select(is_whole) for column in columns]


def _parse_targets(path: Path, column: TableColumn, task: str | None) -> tuple[np.ndarray, str]:
    """The targets as numbers or text, and the task, inferred if it is not given."""
    if column.numbers is not None:
        return column.numbers, task or infer_task_of_numbers(column.numbers)
    is_text = np.isnan(parse_numbers(column.levels))
    used = np.bincount(column.codes, minlength=len(column.levels)) > 0
    if task == "regression" or (task is None and is_text.any() and not is_text[used].all()):
        cell = reprlib.repr(str(column.levels[is_text][0] if is_text.any() else column.levels[0]))
        problem = f"target {column.name!r}: {cell} is not a number"
        raise bad_value("file", str(path), problem, "Correct the cell, or set task: classification")
    return column.levels[column.codes].astype(str), "classification"


def _merge_as_numbers(texts: Sequence[str], numbers: np.ndarray) -> bool:
    """Whether two integers that differ in leading zeros, as codes may, would become one number: 01 and 1."""
    if not np.array_equal(numbers, np.round(numbers)) or not any(map(_PADDED.fullmatch, texts)):
        return False
    integers = {text for text in texts if _INTEGER.fullmatch(text)}
    return len(set(map(int, integers))) < len(integers)
