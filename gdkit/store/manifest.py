"""The manifest of a run directory: its run, and the partition of its lanes. Written once, before any tile."""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import gdkit
from gdkit.errors import OTHER_DIRECTORY, DamagedFileError, StoreError, bad_value
from gdkit.store import lists
from gdkit.store.arrays import ABOUT, CHECKSUM, PLAIN, Kind, digest, read_json
from gdkit.store.files import Files
from gdkit.store.lists import Lists, StoredList
from gdkit.store.partition import Partition, StoredGroup

NAME = "manifest.json"
FORMAT = 2  # the newest; a manifest without long lists is written in format 1, which has none
_LARGEST = 2**26  # bytes
_MOST_LANES, _MOST_TILES = 2**40, 2**27
_HASH = re.compile(r"[0-9a-f]{64}")


class Manifest(NamedTuple):
    """The run of a directory."""

    fingerprint: Mapping[str, Any]  # name -> a `digest`, or a short text, number, bool or None
    partition: Partition
    columns: Mapping[str, Kind]  # name -> dtype and shape per lane
    seeds: int
    steps: int
    dtype: str  # of the params
    plan: Mapping[str, Any] = {}  # this and the next two: JSON values and arrays of numbers
    versions: Mapping[str, Any] = {}
    device: Mapping[str, Any] = {}
    config: str | None = None  # the text of the config

    @property
    def run(self) -> str:
        """The digest that every tile carries, of all parts that decide the content of tiles."""
        content, _ = as_json(self, only=("fingerprint", "groups", "columns"))
        return digest(*map(_canonical, content.values()))


def differences(stored: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """One line per part in which two fingerprints differ.

    >>> differences({"steps": 600, "key": 0}, {"steps": 300, "key": 0})
    ['steps: 600 in this directory, 300 now']
    """
    lines = []
    for part in dict.fromkeys([*stored, *now]):
        if part in stored and part in now and _canonical(stored[part]) == _canonical(now[part]):
            continue
        old, new = (_format_value(side[part]) if part in side else "not recorded" for side in (stored, now))
        lines.append(f"{part}: {old} in this directory, {new} now")
    return lines


def _format_value(value: Any) -> str:
    if isinstance(value, str):
        return f"hash {value[:10]}…" if _HASH.fullmatch(value) else repr(value)
    return json.dumps(value)


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def as_json(manifest: Manifest, only: Sequence[str] = ()) -> tuple[dict[str, Any], Lists]:
    """The content of the file without its checksum, or only some parts of it; and the long lists."""
    content = {
        "gdkit": gdkit.__version__,
        "lanes": manifest.partition.lanes,
        "tiles": manifest.partition.tiles,
        "groups": list(map(_group_as_json, manifest.partition.groups)),
        "columns": {name: {"dtype": kind.dtype, "shape": kind.shape} for name, kind in manifest.columns.items()},
    } | {name: getattr(manifest, name) for name in _PLAIN_FIELDS}
    content, long = lists.split_lists({name: content[name] for name in only or content})
    if only:
        return content, long
    head = {"format": 2, "lists": lists.describe_lists(long)} if long else {"format": 1}
    return head | content, long


_PLAIN_FIELDS = ("fingerprint", "seeds", "steps", "dtype", "plan", "versions", "device", "config")


def _group_as_json(group: StoredGroup) -> dict[str, Any]:
    fields = {name: getattr(group, name) for name in StoredGroup.__dataclass_fields__}
    return fields | {"chosen": [None if places is None else np.asarray(places) for places in group.chosen]}


def encode_manifest(manifest: Manifest) -> tuple[bytes, Lists]:
    """The bytes of the file, and the long lists.

    Raises:
      InputValueError: the manifest holds a value that cannot be stored.
    """
    try:
        content, long = as_json(manifest)
        content = json.loads(json.dumps(content, allow_nan=False))
        from_json(lists.insert_lists(content, long))
    except (TypeError, ValueError) as error:
        raise bad_value(
            "manifest", manifest, f"it cannot be stored: {error}", "Pass JSON values and arrays of numbers"
        ) from error
    return json.dumps(content | {"checksum": digest(_canonical(content))}, indent=1).encode() + b"\n", long


def read_manifest(files: Files, path: Path) -> Manifest:
    """Read a manifest. The long lists of its partition are read now, the others when numpy converts them.

    Raises:
      DamagedFileError: the manifest or a list is not what was written.
      StoreError: it has a format that this version of gdkit does not read.
      OSError: the system will not open it.
    """
    with files.open(path) as file:
        try:
            text = file.read(_LARGEST + 1)
            if len(text) > _LARGEST:
                raise ValueError(f"it has more than {_LARGEST:,} bytes")
            content = read_json(text)
            _check_format(path, content)
            checksum = content.pop("checksum", None)
            if checksum != digest(_canonical(content)):
                raise ValueError("its checksum does not match; do not edit it")
            return from_json(lists.insert_lists(content, _open_lists(files, path.parent, content)))
        except (ValueError, OSError, RecursionError) as error:
            if isinstance(error, StoreError):
                raise
            raise DamagedFileError(f"{path}: it is damaged: {error}. {OTHER_DIRECTORY}.") from error


def _open_lists(files: Files, folder: Path, content: Mapping[str, Any]) -> dict[str, StoredList]:
    """The long lists of a manifest by their names; none of them is read."""
    if content["format"] == 1:
        return {}
    entry = _check_table("lists", content.get("lists"))
    kinds = _parse_kinds("lists.kinds", entry.get("kinds"))
    if entry.get("file") != lists.lists_name(kinds):
        raise ValueError("lists.file is not the name of a file of these lists")
    return {name: StoredList(files, folder / entry["file"], name, kind) for name, kind in kinds.items()}


def _check_format(path: Path, content: Mapping[str, Any]) -> None:
    """Check the format, before the checksum, which another format may compute differently."""
    number = content.get("format")
    if isinstance(number, bool) or not isinstance(number, int):
        raise ValueError("it has no format")
    if 1 <= number <= FORMAT:
        return
    by = f"gdkit {str(content.get('gdkit', 'of an unknown version'))[:40]} wrote it"
    remedy = "Install a newer gdkit" if number > FORMAT else "Open it with that version, or name another directory"
    raise StoreError(f"{path}: it has format {number} and this gdkit reads formats 1 to {FORMAT}; {by}. {remedy}.")


# Parsing: every value of the file is checked before it is used.


def from_json(content: Mapping[str, Any]) -> Manifest:
    """The manifest that `as_json` made. Unknown parts are ignored: a later gdkit may add some.

    Raises:
      ValueError: a part is not what it should be; the message names it.
    """
    fingerprint = _check_table("fingerprint", content.get("fingerprint"))
    for part, value in fingerprint.items():
        if not (value is None or isinstance(value, bool | int | float | str)):
            raise ValueError(f"fingerprint.{part} is {type(value).__name__}")
    columns = _parse_kinds("columns", content.get("columns"))
    for name in columns:
        _check_name(name)
    config = content.get("config")
    if not (config is None or isinstance(config, str)):
        raise ValueError("config is not a text")
    partition = _parse_partition(content)
    seeds, steps = (_check_integer(name, content.get(name), 1) for name in ("seeds", "steps"))
    tables = {name: _check_table(name, content.get(name)) for name in ("plan", "versions", "device")}
    dtype = content.get("dtype")
    if not isinstance(dtype, str):
        raise ValueError("dtype is not a text")
    return Manifest(fingerprint, partition, columns, seeds, steps, dtype, **tables, config=config)


def _parse_partition(content: Mapping[str, Any]) -> Partition:
    groups = tuple(
        _parse_group(f"groups[{i}]", group) for i, group in enumerate(_check_list("groups", content.get("groups")))
    )
    if not groups:
        raise ValueError("it has no groups")
    partition = Partition(groups)
    if partition.lanes > _MOST_LANES or sum(group.tiles for group in groups) > _MOST_TILES:
        raise ValueError(f"more than {_MOST_LANES} lanes or {_MOST_TILES} tiles")
    if sum(group.lanes for group in groups) != partition.lanes:
        raise ValueError("the groups do not hold every lane once")
    for name in ("lanes", "tiles"):
        if content.get(name) != getattr(partition, name):
            raise ValueError(f"{name} is {content.get(name)!r}, and the groups have {getattr(partition, name)}")
    return partition


def _parse_group(at: str, content: Any) -> StoredGroup:
    content = _check_table(at, content)
    read_integer = lambda name, least: _check_integer(f"{at}.{name}", content.get(name), least)
    read_integers = lambda name, least: _check_integers(f"{at}.{name}", content.get(name), least)
    sizes, order = read_integers("sizes", 1), read_integers("order", 0)
    if len(sizes) > 64 or sorted(order) != list(range(len(sizes))):
        raise ValueError(f"{at}.order does not name each dimension once")
    chosen = _check_list(f"{at}.chosen", content.get("chosen"))
    if len(chosen) != len(sizes):
        raise ValueError(f"{at}.chosen does not have one entry per dimension")
    chosen = tuple(c if c is None else _check_integers(f"{at}.chosen", _as_list(c), 0) for c in chosen)
    for own, size in zip(chosen, sizes, strict=True):
        if own is not None and (not own or list(own) != sorted(set(own)) or own[-1] >= size):
            raise ValueError(f"{at}.chosen is not in rising order below {size}")
    rest = {name: read_integer(name, 1) for name in ("seeds", "width", "depth", "tile")}
    group = StoredGroup(read_integer("first", 0), sizes, order, chosen, **rest)
    if math.prod(sizes) * group.seeds > _MOST_LANES:
        raise ValueError(f"{at} has more than {_MOST_LANES} lanes")
    return group


def _as_list(value: Any) -> Any:
    """A list of a manifest, read from its file if it is long."""
    return np.asarray(value).tolist() if isinstance(value, StoredList | np.ndarray) else value


def _parse_kinds(at: str, content: Any) -> dict[str, Kind]:
    return {name: _parse_kind(f"{at}.{name}", kind) for name, kind in _check_table(at, content).items()}


def _parse_kind(at: str, content: Any) -> Kind:
    content = _check_table(at, content)
    kind = Kind(content.get("dtype"), _check_integers(f"{at}.shape", content.get("shape"), 0))
    if kind.dtype not in PLAIN:
        raise ValueError(f"{at}.dtype is none of {', '.join(PLAIN)}")
    if len(kind.shape) > 32 or math.prod(kind.shape) > _MOST_LANES:
        raise ValueError(f"{at}.shape is too large")
    return kind


def _check_name(name: str) -> None:
    if not (0 < len(name) <= 200 and name.isprintable()) or set(name) & set("/\\") or name in (ABOUT, CHECKSUM):
        raise ValueError(f"columns: {name!r} cannot be a name; use printable characters without slashes")


def _make_check(is_right: Callable[[Any], bool], kind: str) -> Callable[[str, Any], Any]:
    def check(at: str, value: Any) -> Any:
        if not is_right(value):
            raise ValueError(f"{at} is not {kind}")
        return value

    return check


_check_table = _make_check(lambda value: isinstance(value, dict), "a table")
_check_list = _make_check(lambda value: isinstance(value, list), "a list")


def _check_integer(at: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= _MOST_LANES:
        raise ValueError(f"{at} is not a whole number from {least} to {_MOST_LANES}")
    return value


def _check_integers(at: str, value: Any, least: int) -> tuple[int, ...]:
    return tuple(_check_integer(at, item, least) for item in _check_list(at, value))
