"""YAML text as plain values, with the place that each came from."""

import copy
import dataclasses
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from gdkit.errors import GdkitError, nearest

MAX_BYTES = 1_000_000  # a config is text that a person reads
MAX_VALUES = 200_000  # aliases of aliases ("billion laughs") write more than any file holds
MAX_DEPTH = 40
MAX_INTEGER = 2**63 - 1
_DOTTED = ("axes", "paired")  # the mappings whose names may hold a dot: problem.NAME

KeyPath = tuple[str | int, ...]


class ConfigError(GdkitError, ValueError):
    """A config that cannot be used; the message says where and how to fix it."""


@dataclasses.dataclass(frozen=True)
class Source:
    """Plain values (dict, list, str, int, float, bool, None) and where each of them was written."""

    # not compared: two configs are the same whatever text they were written as
    file: str = dataclasses.field(compare=False)
    tree: Any = dataclasses.field(compare=False)
    places: dict[KeyPath, str] = dataclasses.field(compare=False)  # path -> "file:line", or the override that set it

    def place(self, path: KeyPath) -> str:
        """Where the value at `path` was written, or the nearest value around it."""
        path = self.written(path)
        while path and path not in self.places:
            path = path[:-1]
        return self.places.get(path, self.file)

    def written(self, path: KeyPath) -> KeyPath:
        """`path` as the user wrote it: without the steps that only the checked form has, such as a list of one."""
        node, kept = self.tree, []
        for i, part in enumerate(path):
            if _has(node, part):
                node = node[part]
            elif i < len(path) - 1 or isinstance(part, int):
                continue
            kept.append(part)
        return tuple(kept)

    def value(self, path: KeyPath) -> Any:
        """The value at a written `path`; KeyError, IndexError or TypeError where there is none."""
        return _at(self.tree, path)


def read(path: str | Path) -> str:
    """The text of a config file.

    Raises:
      ConfigError: no such file, a folder, too large, not UTF-8 text.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file. {_nearest_file(path)}".strip()) from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: this is a folder. Name a config file in it.") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise ConfigError(f"{path}: cannot be read: {getattr(error, 'strerror', error)}.") from None
    if len(content) > MAX_BYTES:
        raise ConfigError(f"{path}: larger than {MAX_BYTES:,} bytes. A config is a short text in YAML.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: byte {error.start} is not UTF-8. A config is text in YAML.") from None


def parse(text: str, file: str) -> Source:
    """The values that YAML 1.2 `text` holds, and their lines.

    Raises:
      ConfigError: not YAML, a key twice, a value that is not plain or not finite, an anchor inside itself.
    """
    yaml = YAML(typ="safe", pure=True)
    try:
        node = yaml.compose(text)
        reader = _Reader(yaml.constructor, file)
        tree = None if node is None else reader.plain(node, ())
    except MarkedYAMLError as error:
        raise _syntax_error(error, text, file) from None
    except RecursionError:
        raise ConfigError(f"{file}: nested too deeply. At most {MAX_DEPTH} levels.") from None
    except (
        YAMLError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        AssertionError,
        NotImplementedError,
    ) as error:
        if isinstance(error, ConfigError):
            raise
        what = str(error).split("\n")[0]  # the parser's own slips on malformed text included
        raise ConfigError(f"{file}: not YAML: {what}") from None
    return Source(file, tree, reader.places)


def override(source: Source, assignment: str) -> Source:
    """`source` with ``key.path=value`` applied.

    The value is YAML; a list's entries are numbered from 0, as in ``optimizer.0.name`` or ``optimizer[0].name``.

    Raises:
      ConfigError: no ``=``, a value that is not YAML, a path through something that has no parts.
    """
    where = f"override {assignment!r}"
    name, equals, text = assignment.partition("=")
    if not equals or not all(name.split(".")):
        raise ConfigError(f"{where}: not of the form key.path=value. For example: sweep.steps=1000")
    value = parse(text, where)
    tree = copy.deepcopy(source.tree)
    path = _descend(tree, re.sub(r"\[(\d+)\]", r".\1", name).split("."), where)
    _at(tree, path[:-1])[path[-1]] = value.tree
    kept = {p: place for p, place in source.places.items() if p[: len(path)] != path}
    made = {path[:i]: where for i in range(len(path) + 1)} | {path + p: where for p in value.places}
    return Source(source.file, tree, made | kept)


class _Reader:
    """Turns composed nodes into plain values, noting lines, within the limits above."""

    def __init__(self, constructor: Any, file: str):
        self.constructor, self.file = constructor, file
        self.places: dict[KeyPath, str] = {}
        self.count = 0
        self.open: list[Any] = []  # the nodes we are inside of

    def plain(self, node: Any, path: KeyPath) -> Any:
        self.places.setdefault(path, self._place(node))
        self.count += 1
        if self.count > MAX_VALUES:
            raise self._error(node, f"more than {MAX_VALUES:,} values, aliases written out. Write fewer")
        if any(node is above for above in self.open):
            raise self._error(node, "an anchor that contains itself. Write the value out")
        if len(self.open) >= MAX_DEPTH:
            raise self._error(node, f"nested too deeply. At most {MAX_DEPTH} levels")
        self.open.append(node)
        kind = str(node.tag).removeprefix("tag:yaml.org,2002:")
        value = getattr(self, f"_{node.id}")(node, kind, path)
        self.open.pop()
        return value

    def _mapping(self, node: Any, kind: str, path: KeyPath) -> dict[str, Any]:
        if kind != "map":
            raise self._error(node, f"the tag {str(node.tag)!r} is not supported. Write a plain mapping")
        found: dict[str, Any] = {}
        for key, value in node.value:
            name = self._key(key)
            if name in found:
                first = self.places[(*path, name)]
                raise self._error(key, f"the key {name!r} is there twice (first at {first}). Remove one")
            self.places[(*path, name)] = self._place(key)
            found[name] = self.plain(value, (*path, name))
        return found

    def _key(self, key: Any) -> str:
        kind = str(key.tag).removeprefix("tag:yaml.org,2002:")
        if key.id == "scalar" and kind == "merge":
            raise self._error(key, "merge keys (<<) are not part of YAML 1.2. Write the entries out")
        if key.id != "scalar" or kind != "str":
            shown = repr(key.value) if key.id == "scalar" else f"a {key.id}"
            raise self._error(key, f"a key must be a name, not {shown}. Put quotes around it if it is one")
        return key.value

    def _sequence(self, node: Any, kind: str, path: KeyPath) -> list[Any]:
        if kind != "seq":
            raise self._error(node, f"the tag {str(node.tag)!r} is not supported. Write a plain list")
        return [self.plain(item, (*path, i)) for i, item in enumerate(node.value)]

    def _scalar(self, node: Any, kind: str, path: KeyPath) -> str | int | float | bool | None:
        if kind in ("str", "timestamp"):
            return node.value
        if kind not in ("int", "float", "bool", "null"):
            raise self._error(node, f"the tag {str(node.tag)!r} is not supported. Write a plain value")
        try:
            value = getattr(self.constructor, f"construct_yaml_{kind}")(node)
        except (ValueError, LookupError, OverflowError):
            raise self._error(
                node, f"{short(node.value)} is not a value of type {kind}. Put quotes around text"
            ) from None
        if isinstance(value, int) and abs(value) > MAX_INTEGER:
            raise self._error(node, f"the number {short(node.value)} is too large. At most {MAX_INTEGER}")
        if isinstance(value, float) and not math.isfinite(value):
            raise self._error(node, f"{short(node.value)} is not a finite number. Leave it out or give a number")
        return value

    def _place(self, node: Any) -> str:
        return f"{self.file}:{node.start_mark.line + 1}"

    def _error(self, node: Any, message: str) -> ConfigError:
        return ConfigError(f"{self._place(node)}: {message}.")


def _syntax_error(error: MarkedYAMLError, text: str, file: str) -> ConfigError:
    mark = error.problem_mark or error.context_mark
    what = " ".join(part for part in (error.context, error.problem) if part)
    if "another document" in what:
        what = "a second document begins. A file holds one config"
    if mark is None:
        return ConfigError(f"{file}: not YAML: {what}.")
    lines = text.splitlines() or [""]
    number = min(mark.line, len(lines) - 1)
    shown = "".join(c if c.isprintable() else " " for c in lines[number][:100])
    excerpt = f"\n  {number + 1:>4} | {shown}"
    if mark.line == number and mark.column < 100:
        excerpt += f"\n       | {'':{mark.column}}^"
    return ConfigError(f"{file}:{number + 1}: not YAML: {what}.{excerpt}")


def _descend(tree: Any, parts: list[str], where: str) -> KeyPath:
    """The path that the dotted `parts` name in `tree`; mappings that are missing on the way are made."""
    path: list[str | int] = []
    while parts:
        node = _at(tree, path)
        if isinstance(node, list):
            key, parts = _index(node, parts[0], path, where), parts[1:]
        elif isinstance(node, dict):
            key, parts = _name(node, parts, path)
            if parts and node.get(key) is None:
                node[key] = {}
        else:
            raise ConfigError(f"{where}: {dotted(path)} is {short(node)}, which has no part {parts[0]!r}.")
        path.append(key)
        if parts and path == ["optimizer"] and isinstance(node["optimizer"], dict) and parts[0] == "0":
            parts = parts[1:]  # one optimizer may be written without a list
    return tuple(path)


def _index(node: list[Any], part: str, path: list[str | int], where: str) -> int:
    if part.isdecimal() and len(part) < 9 and int(part) < len(node):
        return int(part)
    entries = ", ".join(f"{i} ({_label(entry)})" for i, entry in enumerate(node[:8]))
    raise ConfigError(f"{where}: {dotted(path)} has no entry {part!r}. Its entries are {entries}.")


def _name(node: dict[str, Any], parts: list[str], path: list[str | int]) -> tuple[str, list[str]]:
    """The key of `node` that `parts` begin with, and the rest: names such as ``problem.width`` hold dots."""
    for n in range(len(parts), 0, -1):
        if ".".join(parts[:n]) in node:
            return ".".join(parts[:n]), parts[n:]
    n = 2 if path and path[-1] in _DOTTED and parts[0] == "problem" else 1
    return ".".join(parts[:n]), parts[n:]


def _label(entry: Any) -> str:
    if isinstance(entry, dict):
        return short(entry.get("label") or entry.get("name") or entry.get("use") or "mapping")
    return short(entry)


def dotted(path: Iterable[str | int]) -> str:
    """``("optimizer", 0, "name")`` as ``optimizer.0.name``."""
    return ".".join(part if str(part).isprintable() else repr(part) for part in map(str, path))


def _at(tree: Any, path: Iterable[str | int]) -> Any:
    for part in path:
        tree = tree[part]
    return tree


def _has(node: Any, part: str | int) -> bool:
    if isinstance(node, dict):
        return part in node
    return isinstance(node, list) and isinstance(part, int) and 0 <= part < len(node)


def short(value: Any, limit: int = 60) -> str:
    """`value` on one line of at most `limit` characters, unprintable ones escaped."""
    text = repr(value) if not isinstance(value, str) or not value.isprintable() else value
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _nearest_file(path: Path) -> str:
    try:
        names = [p.name for p in path.parent.iterdir() if p.suffix in (".yaml", ".yml")]
    except (OSError, ValueError):
        names = []
    return nearest(path.name, names) or "gdkit new NAME writes a config to start from."
