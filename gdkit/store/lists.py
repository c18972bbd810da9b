"""The long lists of a manifest, in a file beside it, so that a manifest is small for any number of lanes.

The manifest names a long list as ``{"$list": DIGEST}``. The file is an .npz of arrays, each named by its digest, so
that equal lists make equal files and the name of a list verifies its numbers.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gdkit.errors import DamagedFileError, StoreError
from gdkit.store import arrays
from gdkit.store.arrays import Kind, digest
from gdkit.store.files import Files, failed, publish

LONG = 4096  # numbers: longer lists are stored beside the manifest
REFERENCE = "$list"
_KIND = "lists"


Lists = dict[str, np.ndarray]  # the long lists of a manifest: digest -> numbers


def describe_lists(lists: Lists) -> dict[str, Any]:
    """The entry ``lists`` of the manifest."""
    kinds = {name: {"dtype": x.dtype.name, "shape": list(x.shape)} for name, x in lists.items()}
    return {"file": lists_name(lists), "kinds": kinds}


def write_lists(files: Files, folder: Path, lists: Lists) -> None:
    """Publish the file, if there are lists; another process would publish the same bytes."""
    if lists:
        publish(files, folder / lists_name(lists), arrays.pack_arrays({"kind": _KIND}, lists))


def lists_name(lists: Iterable[str]) -> str:
    """The name of the file that holds lists of these names, and no others."""
    return f"lists-{digest(*sorted(lists))[:16]}.npz"


def split_lists(content: Any) -> tuple[Any, Lists]:
    """The content of a manifest, with short arrays as lists and long arrays by name; and the long arrays, by name.

    >>> split_lists({"a": np.arange(2), "b": [np.zeros(5000)]})[0]["a"]
    [0, 1]
    """
    long: Lists = {}

    def plain(value: Any) -> Any:
        if isinstance(value, np.ndarray | StoredList):
            value = np.asarray(value)
            if value.size <= LONG:
                return value.tolist()
            name = digest(value)
            long[name] = value
            return {REFERENCE: name}
        if isinstance(value, Mapping):
            return {name: plain(part) for name, part in value.items()}
        return [plain(part) for part in value] if isinstance(value, list | tuple) else value

    return plain(content), dict(sorted(long.items()))


class StoredList:
    """A list beside a manifest, read when numpy converts it to an array."""

    def __init__(self, files: Files, path: Path, name: str, kind: Kind):
        self._files, self._path, self._name, self._kind = files, path, name, kind

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self._read(), dtype, copy=copy)

    def _read(self) -> np.ndarray:
        """The numbers, read-only.

        Raises:
          DamagedFileError: the file is missing, or not what was written.
          StoreError: the system refused.
        """
        try:
            _, stored = arrays.read_arrays(self._files, self._path, only=[self._name])
        except (FileNotFoundError, DamagedFileError) as error:
            raise _damage_error(self._path, error) from error
        except OSError as error:
            raise failed("it cannot be read", self._path, error) from error
        (array,) = stored.values()
        if (array.dtype.name, array.shape) != self._kind or digest(array) != self._name:
            raise _damage_error(self._path, "its checksum does not match")
        return array


def _damage_error(path: Path, cause: object) -> StoreError:
    cause = "it is missing" if isinstance(cause, FileNotFoundError) else cause
    remedy = "Remove it and manifest.json, and run the same command again, which writes both anew if they fit the tiles"
    return DamagedFileError(f"{path}: the lists of the manifest cannot be read: {cause}. {remedy}.")


def insert_lists(content: Any, known: Mapping[str, Any]) -> Any:
    """The content of a manifest with the lists in `known` in place of their names.

    Raises:
      ValueError: it names another list.
    """
    if isinstance(content, Mapping):
        if REFERENCE in content:
            name = content[REFERENCE]
            if not isinstance(name, str) or name not in known:
                raise ValueError(f"it names a list that it does not have: {ascii(name)[:80]}")
            return known[name]
        return {name: insert_lists(part, known) for name, part in content.items()}
    return [insert_lists(part, known) for part in content] if isinstance(content, list) else content
