"""The options of a data file, checked."""

import codecs
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from gdkit.checks import check_choice
from gdkit.datasets.dataset import TASKS
from gdkit.errors import bad_type, bad_value

TEXT_SUFFIXES = (".csv", ".tsv", ".txt", ".data")
PACKED_SUFFIXES = (".gz", ".bz2", ".xz")
_SUFFIXES = (*TEXT_SUFFIXES, ".parquet", ".npz", ".npy")
_CHOICES = {"missing": ("refuse", "drop_rows", "mean"), "categorical": ("refuse", "one_hot", "ordinal")}
_COLUMNS = ("drop", *_CHOICES)  # options of files that have columns
_EXAMPLES = {"delimiter": ";", "decimal": ",", "thousands": ",", "comment": "#"}
_CHARACTERS = tuple(_EXAMPLES)


class FileOptions(NamedTuple):
    """How a file is read; hashable, so that it is part of the key of a cache."""

    target: str | int | None = None
    task: str | None = None
    drop: tuple[str | int, ...] = ()
    missing: str = "refuse"
    categorical: str = "refuse"
    header: bool | None = None  # None: the first line has names, unless it looks like a row
    encoding: str = "utf-8-sig"
    delimiter: str | None = None
    decimal: str = "."
    thousands: str | None = None
    comment: str | None = None


FILE_KEYS = ("file", "split", *FileOptions._fields)


def parse_options(data: Mapping[str, Any], path: Path) -> FileOptions:
    """The options of the file at `path`, from a mapping in which None stands for the default.

    Raises:
      GdkitError: an unknown value, or an option that such a file does not have.
    """
    given = {key: data[key] for key in FileOptions._fields if data.get(key) is not None}
    suffix = data_suffix(path)
    known = {".parquet": ("target", "task", *_COLUMNS), ".npz": ("target", "task"), ".npy": ("target", "task")}
    for key in given:
        if key not in known.get(suffix, FileOptions._fields):
            raise bad_value(key, given[key], f"a file {suffix} is read without it", "Remove the option")
    if given.keys() & {"target"}:
        _check_target(given["target"])
    if "task" in given:
        check_choice("task", given["task"], TASKS)
    for key, allowed in _CHOICES.items():
        if key in given and given[key] not in allowed:
            raise bad_value(key, given[key], "no such choice", f"Set {key}: {', '.join(allowed[:-1])} or {allowed[-1]}")
    if not isinstance(given.get("header", True), bool):
        remedy = "Set header: false if the first line is a row, header: true if it has names, or leave the option out"
        raise bad_type("header", given["header"], "neither true nor false", remedy)
    if "drop" in given:
        given["drop"] = _parse_drop(given["drop"])
    _check_characters(given)
    _check_encoding(given.get("encoding", "utf-8"))
    return FileOptions(**given)


def data_suffix(path: Path) -> str:
    """The ending that says how the file is read, without that of a compression.

    >>> data_suffix(Path("a/wine.CSV.gz")), data_suffix(Path("wine.npz"))
    ('.csv', '.npz')
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes[-1:] and suffixes[-1] in PACKED_SUFFIXES and suffixes[-2:-1] and suffixes[-2] in TEXT_SUFFIXES:
        return suffixes[-2]
    return suffixes[-1] if suffixes else ""


def is_data_file(path: Path) -> bool:
    """Whether a file of this name can be read."""
    return data_suffix(path) in _SUFFIXES


def _check_target(target: Any) -> None:
    if not isinstance(target, str | int) or isinstance(target, bool):
        remedy = "Pass the name of the column, or its index from 0"
        raise bad_type("target", target, "neither a name nor an index", remedy)


def _parse_drop(drop: Any) -> tuple[str | int, ...]:
    if isinstance(drop, str) or not isinstance(drop, list | tuple):
        remedy = f"Set drop: [{drop if isinstance(drop, str) else 'name'}]"
        raise bad_type("drop", drop, "not a list of columns", remedy)
    for column in drop:
        if not isinstance(column, str | int) or isinstance(column, bool):
            remedy = "Give names; or numbers from 0 where there is no header"
            raise bad_type("drop", column, "not the name of a column", remedy)
    return tuple(drop)


def _check_characters(given: Mapping[str, Any]) -> None:
    for key in _CHARACTERS:
        value = given.get(key, ".")
        is_character = isinstance(value, str) and len(value) == 1 and value not in '"\r\n\0'
        if not is_character or (key != "delimiter" and value.isalnum()):
            remedy = f'Give one character that is no quote, such as {key}: "{_EXAMPLES[key]}"'
            raise bad_value(key, value, "not a single character", remedy)
    for key, other, default in (("thousands", "decimal", "."), ("comment", "delimiter", None)):
        if key in given and given[key] == given.get(other, default):
            raise bad_value(key, given[key], f"the same character as {other}", f"Set {other} to another character")


def _check_encoding(encoding: Any) -> None:
    try:
        b"".decode(encoding)
        codecs.lookup(encoding)
    except (LookupError, TypeError, ValueError):
        remedy = "Give one that Python knows, such as utf-8, latin-1, cp1252 or utf-16"
        raise bad_value("encoding", encoding, "no such encoding of text", remedy) from None
