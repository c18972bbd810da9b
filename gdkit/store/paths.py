"""Paths in a run directory: numbered files, a thousand per folder, so that a million are listed within seconds."""

import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path

from gdkit.errors import bad_type, bad_value
from gdkit.store.files import Files, failed, host, is_alive

PER_FOLDER = 1000
SUFFIX = ".npz"
NARROWER = ".narrower"  # suffix of the empty file that marks a tile with blocks that ran smaller than planned
_DAY = 86_400


def as_path(argument: str, path: str | os.PathLike[str]) -> Path:
    """A path that a user has given.

    Raises:
      InputTypeError: it is neither text nor a path.
      InputValueError: it is empty, or holds a null character.
    """
    remedy = "Pass a string or a pathlib.Path"
    if not isinstance(path, str | os.PathLike) or not isinstance(os.fspath(path), str):
        raise bad_type(argument, path, "not a path", remedy)
    if not os.fspath(path) or "\0" in os.fspath(path):
        raise bad_value(argument, path, "no file can have this name", f"{remedy}; . is the current folder")
    return Path(path)


def extension_folder(run: Path, number: int) -> Path:
    """The run directory of further values of an axis, inside that of the sweep; numbers begin at 1."""
    return run / f"extended-{number}"


def extension_folders(run: Path) -> Iterator[Path]:
    """The run directories of all extensions of a run, in the order in which they were run."""
    folders = (extension_folder(run, number) for number in itertools.count(1))
    return itertools.takewhile(Path.is_dir, folders)


def numbered_path(folder: Path, what: str, number: int, count: int) -> Path:
    """The file of a tile or block.

    >>> str(numbered_path(Path("tiles"), "tile", 3906, 3907))
    'tiles/0003/0003906.npz'
    """
    if not 0 <= number < count:
        raise bad_value(what, number, f"there is no such {what}", f"Pass 0 to {count - 1}")
    return folder / f"{number // PER_FOLDER:04d}" / f"{number:07d}{SUFFIX}"


def list_numbers(files: Files, folder: Path, suffix: str = SUFFIX) -> Iterator[int]:
    """The numbers of the files in `folder`, by their names; other names are ignored."""
    for inside in list_folders(files, folder):
        own = int(inside.name)
        numbers = (int(name.removesuffix(suffix)) for name in _names(files, inside) if _is_number(name, suffix, 7))
        yield from (number for number in numbers if number // PER_FOLDER == own)


def list_folders(files: Files, folder: Path) -> list[Path]:
    """The folders of numbered files within `folder`."""
    return [folder / name for name in sorted(_names(files, folder)) if _is_number(name, "", 4)]


def _is_number(name: str, suffix: str, digits: int) -> bool:
    stem = name.removesuffix(suffix)
    return name.endswith(suffix) and stem.isascii() and stem.isdigit() and digits <= len(stem) <= 18


def _names(files: Files, folder: Path) -> list[str]:
    try:
        return files.names(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise failed("it cannot be listed", folder, error) from error


def temporary_number(temporary: Path) -> int | None:
    """The number of the tile or block that a temporary file was written for, None if it is another file.

    >>> temporary_number(Path(".0003906.npz.host.7.8-ab.tmp"))
    3906
    """
    stem = temporary.name.removeprefix(".").partition(".")[0]
    return int(stem) if _is_number(stem, "", 7) and temporary.name.startswith(f".{stem}{SUFFIX}.") else None


def list_left_behind(files: Files, folder: Path) -> list[Path]:
    """Temporary files that no process will finish: of dead processes of this machine, or a day old."""
    return [folder / name for name in _names(files, folder) if name.endswith(".tmp") and _is_left_behind(folder / name)]


def _is_left_behind(path: Path) -> bool:
    try:
        *_, machine, process, _, _ = path.name.split(".")
        if machine == host() and not is_alive(int(process)):
            return True
        return time.time() - path.stat().st_mtime > _DAY
    except (ValueError, OSError):  # not a file of gdkit, or removed meanwhile
        return False
