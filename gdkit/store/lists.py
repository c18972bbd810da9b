"""Long lists of numbers of a manifest, in a file beside it, so that a manifest is small at any number of lanes.

Where the manifest would list them, it names them: ``{"$list": DIGEST}``. The file is an .npz of arrays, each called by
its digest, so equal lists make an equal file, and what names a list vouches for its numbers.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gdkit.errors import DamagedFileError, StoreError
from gdkit.store import arrays
from gdkit.store.arrays import Kind, digest
from gdkit.store.files import Files, failed, publish

LONG = 4096  # numbers: a longer list has a place of its own
REFERENCE = "$list"
_KIND = "lists"


class Lists(NamedTuple):
    """The arrays of a manifest that lie beside it."""

    arrays: dict[str, np.ndarray]  # digest -> numbers

    @property
    def name(self) -> str:
        """The file's name."""
        return name_of(self.arrays)

    def as_json(self) -> dict[str, Any]:
        """What the manifest says of them."""
        kinds = {name: {"dtype": x.dtype.name, "shape": list(x.shape)} for name, x in sorted(self.arrays.items())}
        return {"file": self.name, "kinds": kinds}

    def write(self, files: Files, folder: Path) -> None:
        """Publish the file; one that another process has published is equal."""
        if self.arrays:
            publish(files, folder / self.name, arrays.packed({"kind": _KIND}, dict(sorted(self.arrays.items()))))


def name_of(lists: Iterable[str]) -> str:
    """The name of the file of lists that have these names: other lists lie in another file."""
    return f"lists-{digest(*sorted(lists))[:16]}.npz"


def apart(content: Any) -> tuple[Any, Lists]:
    """What JSON and arrays hold, as JSON alone: short arrays as lists, long ones named, and those beside it.

    >>> apart({"a": np.arange(2), "b": [np.zeros(5000)]})[0]["a"]
    [0, 1]
    """
    found: dict[str, np.ndarray] = {}

    def plain(value: Any) -> Any:
        if isinstance(value, np.ndarray | Listed):
            value = np.asarray(value)
            if value.size <= LONG:
                return value.tolist()
            name = digest(value)
            found[name] = value
            return {REFERENCE: name}
        if isinstance(value, Mapping):
            return {name: plain(part) for name, part in value.items()}
        return [plain(part) for part in value] if isinstance(value, list | tuple) else value

    return plain(content), Lists(found)


class Listed:
    """A list beside a manifest: numpy takes it for an array, and reads it then."""

    def __init__(self, files: Files, path: Path, name: str, kind: Kind):
        self._files, self._path, self._name, self._kind = files, path, name, kind

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self._read(), dtype, copy=copy)

    def _read(self) -> np.ndarray:
        """The numbers, read-only.

        Raises:
          DamagedFileError: the file is not there, or not what was written.
          StoreError: the system refused.
        """
        try:
            _, found = arrays.read(self._files, self._path, only=[self._name])
        except (FileNotFoundError, DamagedFileError) as error:
            raise _lost(self._path, error) from error
        except OSError as error:
            raise failed("it cannot be read", self._path, error) from error
        (array,) = found.values()
        if (array.dtype.name, array.shape) != self._kind or digest(array) != self._name:
            raise _lost(self._path, "its checksum does not match")
        return array


def _lost(path: Path, what: object) -> StoreError:
    what = "it is missing" if isinstance(what, FileNotFoundError) else what
    remedy = "Remove it and manifest.json, and run the same again: both are made anew if they fit the tiles"
    return DamagedFileError(f"{path}: lists of the manifest cannot be read: {what}. {remedy}.")


def together(content: Any, known: Mapping[str, Any]) -> Any:
    """What JSON holds, with what is `known` by a name wherever a list is named.

    Raises:
      ValueError: one that is not there is named.
    """
    if isinstance(content, Mapping):
        if REFERENCE in content:
            name = content[REFERENCE]
            if not isinstance(name, str) or name not in known:
                raise ValueError(f"it names a list that is not there: {ascii(name)[:80]}")
            return known[name]
        return {name: together(part, known) for name, part in content.items()}
    return [together(part, known) for part in content] if isinstance(content, list) else content
