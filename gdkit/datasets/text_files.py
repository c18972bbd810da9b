"""Text and Parquet files as columns; pandas reads them."""

import bz2
import csv
import gzip
import io
import lzma
import re
import reprlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from gdkit.datasets.columns import parse_cells, parse_numbers
from gdkit.datasets.dataset import TableColumn
from gdkit.datasets.options import FileOptions, data_suffix
from gdkit.errors import GdkitError, bad_type, bad_value, missing_package, nearest, unknown_name

if TYPE_CHECKING:
    import pandas as pd

_OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_DELIMITERS = "\t;, "  # detected in this order, since cells may hold the later ones
_SAMPLE = 1 << 16  # characters from which the delimiter is detected


def read_text(path: Path, options: FileOptions) -> tuple[list[TableColumn], int]:
    """The columns of a text file without those to drop, and the position of the target among them."""
    import pandas as pd

    sample = _read(path, lambda: _check_characters(path, options.encoding))
    delimiter = options.delimiter or ("\t" if data_suffix(path) == ".tsv" else _detect_delimiter(sample, options))
    width = _find_width(sample, delimiter, options)
    frame = _read(path, lambda: _read_frame(path, options, delimiter, width))
    header = options.header is not False
    names = [str(cell).strip() for cell in (frame.iloc[0] if header else frame.columns)]
    rows = frame.iloc[int(header) :]
    cells = (pd.factorize(rows.iloc[:, i].to_numpy(object)) for i in range(len(names)))
    notation: dict[str, Any] = {"decimal": options.decimal, "thousands": options.thousands}
    columns = [parse_cells(name, *own, **notation) for name, own in zip(names, cells, strict=True)]
    if header and options.header is None:
        _check_header(path, columns, options)
    if header and width is not None and not columns[-1].is_missing.all():
        problem = f"the header has {width - 1} cells, the lines below {width}"
        raise bad_value("file", str(path), problem, "Give every column a name")
    return choose_columns(path, columns, options)


def read_parquet(path: Path, options: FileOptions) -> tuple[list[TableColumn], int]:
    """The columns of a Parquet file without those to drop, and the position of the target among them."""
    import pandas as pd

    try:
        frame = pd.read_parquet(path)
    except ImportError:
        raise missing_package("pyarrow", "parquet", f"file={str(path)!r}") from None
    except Exception as error:  # damaged bytes raise many kinds of errors in Arrow
        raise bad_value("file", str(path), f"it cannot be read as Parquet ({error})", "Write it again") from error
    return choose_columns(path, [_convert_column(str(name), frame[name]) for name in frame], options)


def choose_columns(path: Path, columns: list[TableColumn], options: FileOptions) -> tuple[list[TableColumn], int]:
    """The columns that are used, and the position of the target among them.

    Raises:
      GdkitError: no target, an unknown one, or one that is dropped; unknown columns to drop; names that occur twice.
    """
    names = [column.name for column in columns]
    if len(names) < 2:
        remedy = 'Separate features and target with commas, or set delimiter: ";"'
        raise bad_value("file", str(path), f"one column only, {reprlib.repr(names[0])}", remedy)
    target = _find_target(names, options.target)
    dropped = _find_dropped(names, options)
    if names[target] in dropped:
        raise bad_value("drop", names[target], "it is the target", "Keep the target")
    # delimiters at the ends of lines make a column with neither a name nor a value
    is_used = [c.name not in dropped and not (c.name == "" and c.is_missing.all()) for c in columns]
    used = [column for column, use in zip(columns, is_used, strict=True) if use]
    repeated = [column.name for column in used if column.name and names.count(column.name) > 1]
    if repeated:
        raise bad_value("file", str(path), f"two columns are called {repeated[0]!r}", "Give every column its own name")
    if len(used) < 2:
        raise bad_value("drop", list(dropped), "no feature is left", "Drop fewer columns")
    return used, sum(is_used[:target])


def _read(path: Path, read: Callable[[], Any]) -> Any:
    """What `read` returns, with its errors as those of the file."""
    try:
        return read()
    except GdkitError:
        raise
    except UnicodeError as error:
        remedy = "Name the encoding, such as encoding: latin-1, cp1252 or utf-16"
        raise bad_value("file", str(path), f"it cannot be read as text ({error})", remedy) from error
    except Exception as error:  # damaged bytes raise many kinds of errors in pandas, zlib and lzma
        ragged = re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", str(error))
        problem = f"it cannot be read as a table ({str(error).strip()})"
        if ragged:
            problem = "line {1} has {2} cells, the header {0}".format(*ragged.groups())
        remedy = 'Write one cell per column, with quotes around delimiters; or set delimiter: ";" or comment: "#"'
        raise bad_value("file", str(path), problem, remedy) from error


def _open(path: Path, encoding: str) -> IO[str]:
    opener = _OPENERS.get(path.suffix.lower(), open)
    return opener(path, "rt", encoding=encoding, newline="")


def _check_characters(path: Path, encoding: str) -> str:
    """The beginning of the file; raises where it is empty, not text, or has a NUL, at which pandas would cut a cell."""
    sample = ""
    with _open(path, encoding) as file:
        while text := file.read(_SAMPLE):
            sample = sample or text
            if "\0" in text:
                remedy = "Write text; or name the encoding, such as encoding: utf-16"
                raise bad_value("file", str(path), "it has a NUL character", remedy)
    if not sample.strip():
        raise bad_value("file", str(path), "it is empty", "Write a line of column names, then rows of data")
    return sample


def _count_cells(sample: str, delimiter: str, options: FileOptions) -> list[int]:
    """The number of cells in every row of the sample; the last row of a long sample may be cut and is not counted."""
    lines = (line.strip(" ") if delimiter == " " else line for line in io.StringIO(sample, newline=""))
    lines = (line for line in lines if line.strip() and not (options.comment and line.startswith(options.comment)))
    try:
        counts = [len(row) for row in csv.reader(lines, delimiter=delimiter, skipinitialspace=True)]
    except csv.Error:  # a cell without an end
        counts = []
    return (counts[:-1] if len(sample) >= _SAMPLE else counts) or [0]


def _detect_delimiter(sample: str, options: FileOptions) -> str:
    """The first delimiter that splits all lines into equally many cells; else the one that splits the header most."""
    widths = {by: _count_cells(sample, by, options) for by in _DELIMITERS}
    even = [by for by, found in widths.items() if len(set(found)) == 1 and found[0] > 1]
    return even[0] if even else max(",;\t ", key=lambda by: widths[by][0])


def _find_width(sample: str, delimiter: str, options: FileOptions) -> int | None:
    """The number of columns if all lines have one cell more than the header, as with a delimiter at their ends."""
    if options.header is False or not delimiter.isascii():
        return None
    first, *others = _count_cells(sample, delimiter, options)
    return first + 1 if set(others) == {first + 1} else None


def _read_frame(path: Path, options: FileOptions, delimiter: str, width: int | None) -> "pd.DataFrame":
    """All cells as text, the header included."""
    import pandas as pd

    with _open(path, options.encoding) as file:
        return pd.read_csv(
            file,
            sep=r"\s+" if delimiter == " " else delimiter,
            header=None,
            names=None if width is None else range(width),
            dtype=str,
            na_filter=False,
            comment=options.comment,
            skipinitialspace=True,
            engine="c" if delimiter.isascii() else "python",
        )


def _convert_column(name: str, column: "pd.Series") -> TableColumn:
    """A typed column: numbers, dates, or text."""
    import pandas as pd

    is_number = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
    if is_number and not pd.api.types.is_complex_dtype(column):
        numbers = column.to_numpy(np.float64, na_value=np.nan)
        if not (np.abs(numbers) >= 2**53).any() and not np.isinf(numbers).any():
            return TableColumn(name, numbers, np.zeros(0, int), np.zeros(0, object))
    return parse_cells(name, *pd.factorize(column))


def _check_header(path: Path, columns: Sequence[TableColumn], options: FileOptions) -> None:
    """Raise if a name is a number above a column of numbers: the first line may be a row."""
    is_number = ~np.isnan(parse_numbers([column.name for column in columns], options.decimal, options.thousands))
    found = [c.name for c, number in zip(columns, is_number, strict=True) if number and c.numbers is not None]
    if found:
        problem = f"the header looks like a row of data: it has {', '.join(found[:5])} above columns of numbers"
        remedy = "Set header: false if the first line is a row; header: true if these are names"
        raise bad_value("file", str(path), problem, remedy)


def _find_target(names: Sequence[str], target: str | int | None) -> int:
    if target is None:
        remedy = f"Name one of {reprlib.repr(list(names))}, or its index"
        raise bad_value("target", None, "the target column is not given", remedy)
    if isinstance(target, str):
        if target not in names:
            raise unknown_name("target", target, names)
        return list(names).index(target)
    if not -len(names) <= target < len(names):
        raise bad_value("target", target, f"there are {len(names)} columns", f"Pass 0 to {len(names) - 1}, or a name")
    return target % len(names)


def _find_dropped(names: Sequence[str], options: FileOptions) -> set[str]:
    """The names of the columns to drop; numbers are names where there is no header."""
    if options.header is not False and any(isinstance(column, int) for column in options.drop):
        number = next(column for column in options.drop if isinstance(column, int))
        remedy = f'Name the column, in quotes if its name is a number: drop: ["{number}"]'
        raise bad_type("drop", number, "a number, but the columns have names", remedy)
    dropped = list(map(str, options.drop))
    unknown = [name for name in dropped if name not in names]
    if unknown:
        remedy = nearest(unknown[0], names) or f"The columns are {reprlib.repr(list(names))}"
        raise bad_value("drop", unknown[0] if len(unknown) == 1 else unknown, "no such column", remedy)
    return set(dropped)
