"""YAML text as plain values, with the file and line of each value."""

import contextlib
import copy
import dataclasses
import math
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import BaseConstructor
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from gdkit.app.examples import example_names
from gdkit.errors import GdkitError, nearest

MAX_BYTES = 1_000_000  # a config is text that a person reads
MAX_VALUES = 200_000  # aliases of aliases ("billion laughs") expand to more than any file holds
MAX_DEPTH = 40
MAX_INTEGER = 2**63 - 1
_AXIS_MAPPINGS = ("axes", "paired")  # their keys may contain a dot: problem.NAME

KeyPath = tuple[str | int, ...]


class ConfigError(GdkitError, ValueError):
    """A config that cannot be used; the message gives the file, the line and the remedy."""


@dataclasses.dataclass(frozen=True)
class ConfigSource:
    """Plain values (dict, list, str, int, float, bool, None) and the location of each of them."""

    # excluded from ==: configs are equal when their values are, whatever text they were read from
    file: str = dataclasses.field(compare=False)
    tree: Any = dataclasses.field(compare=False)
    locations: dict[KeyPath, str] = dataclasses.field(compare=False)  # path -> "file:line", or the override

    def location(self, path: KeyPath) -> str:
        """``file:line`` of the value at `path`, or of the nearest value that contains it."""
        path = self.written_path(path)
        while path and path not in self.locations:
            path = path[:-1]
        return self.locations.get(path, self.file)

    def written_path(self, path: KeyPath) -> KeyPath:
        """`path` as the user wrote it, without the parts that validation added, such as the list around one entry."""
        node, written = self.tree, []
        for i, part in enumerate(path):
            if _has(node, part):
                node = node[part]
            elif i < len(path) - 1 or isinstance(part, int):
                continue
            written.append(part)
        return tuple(written)

    def describe(self, path: KeyPath, message: str) -> str:
        """``file:line: path = value: message.`` for the value at `path`."""
        path = self.written_path(path)
        try:
            value = _get(self.tree, path)
            shown = "" if isinstance(value, dict | list) else f" = {format_value(value)}"
        except (KeyError, IndexError, TypeError):
            shown = ""
        name = f"{format_path(path)}{shown}: " if path else ""
        return f"{self.location(path)}: {name}{message}{'' if message.endswith(('.', '?')) else '.'}"


def read_text(path: str | Path) -> str:
    """The text of a config file, or of standard input for ``-``.

    Raises:
      ConfigError: the file does not exist, is a folder, is too large or is not UTF-8 text.
    """
    path = Path(path)
    try:
        with contextlib.nullcontext(sys.stdin.buffer) if str(path) == "-" else path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file. {_suggest_file(path)}".strip()) from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: this is a folder. Give the path of a config file in it.") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise ConfigError(f"{path}: cannot be read: {getattr(error, 'strerror', error)}.") from None
    if len(content) > MAX_BYTES:
        raise ConfigError(f"{path}: larger than {MAX_BYTES:,} bytes. A config is a short YAML file.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: byte {error.start} is not UTF-8. A config is a YAML text file.") from None


def parse(text: str, file: str) -> ConfigSource:
    """The values in a YAML 1.2 text, and their lines.

    Raises:
      ConfigError: invalid YAML, a duplicate key, a value of a type that `ConfigSource` lacks, a number that is not
        finite, an anchor that contains itself.
    """
    yaml = YAML(typ="safe", pure=True)
    try:
        node = yaml.compose(text)
        reader = _Reader(yaml.constructor, file)
        tree = None if node is None else reader.convert(node, ())
    except ConfigError:
        raise
    except MarkedYAMLError as error:
        raise _describe_syntax_error(error, text, file) from None
    except RecursionError:
        raise ConfigError(f"{file}: nested too deeply. At most {MAX_DEPTH} levels.") from None
    except Exception as error:  # malformed text raises many kinds of errors in the parser
        problem = str(error).split("\n")[0]
        raise ConfigError(f"{file}: not YAML: {problem}") from None
    return ConfigSource(file, tree, reader.locations)


def apply_override(source: ConfigSource, assignment: str) -> ConfigSource:
    """`source` with ``key.path=value`` applied.

    The value is YAML. List entries are numbered from 0, as in ``optimizer.0.name`` or ``optimizer[0].name``.

    Raises:
      ConfigError: there is no ``=``, the value is not YAML, or the path goes through a value without keys.
    """
    location = f"override {assignment!r}"
    name, equals, text = assignment.partition("=")
    if not equals or not all(name.split(".")):
        raise ConfigError(f"{location}: not of the form key.path=value. For example: sweep.steps=1000")
    value = parse(text, location)
    tree = copy.deepcopy(source.tree)
    path = _create_path(tree, re.sub(r"\[(\d+)\]", r".\1", name).split("."), location)
    _get(tree, path[:-1])[path[-1]] = value.tree
    others = {p: place for p, place in source.locations.items() if p[: len(path)] != path}
    new = {path[:i]: location for i in range(len(path) + 1)} | {path + p: location for p in value.locations}
    return ConfigSource(source.file, tree, new | others)


_FORMS: dict[type[Node], tuple[str, Sequence[str]]] = {  # what a node is called, and the tags that it may have
    MappingNode: ("mapping", ("map",)),
    SequenceNode: ("list", ("seq",)),
    ScalarNode: ("value", ("str", "timestamp", "int", "float", "bool", "null")),
}


class _Reader:
    """Converts composed YAML nodes to plain values and records their lines, within the limits above."""

    def __init__(self, constructor: BaseConstructor, file: str):
        self.constructor, self.file = constructor, file
        self.locations: dict[KeyPath, str] = {}
        self.count = 0
        self.ancestors: list[Node] = []  # the nodes that contain the current one

    def convert(self, node: Node, path: KeyPath) -> Any:
        self.locations.setdefault(path, self._location(node))
        self.count += 1
        if self.count > MAX_VALUES:
            raise self._error(node, f"more than {MAX_VALUES:,} values after aliases are expanded. Write fewer")
        if any(node is ancestor for ancestor in self.ancestors):
            raise self._error(node, "this anchor contains itself. Write the value out")
        if len(self.ancestors) >= MAX_DEPTH:
            raise self._error(node, f"nested too deeply. At most {MAX_DEPTH} levels")
        form, tags = _FORMS[type(node)]
        if _get_tag(node) not in tags:
            raise self._error(node, f"the tag {str(node.tag)!r} is not supported. Write a plain {form}")
        self.ancestors.append(node)
        value = self._convert(node, path)
        self.ancestors.pop()
        return value

    def _convert(self, node: Node, path: KeyPath) -> Any:
        if isinstance(node, MappingNode):
            return self._convert_mapping(node, path)
        if isinstance(node, SequenceNode):
            return [self.convert(item, (*path, i)) for i, item in enumerate(node.value)]
        return self._convert_scalar(node)

    def _convert_mapping(self, node: MappingNode, path: KeyPath) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key, value in self._merge_items(node):
            name = self._convert_key(key)
            if name in values:
                first = self.locations[(*path, name)]
                raise self._error(key, f"duplicate key {name!r} (first at {first}). Remove one")
            self.locations[(*path, name)] = self._location(key)
            values[name] = self.convert(value, (*path, name))
        return values

    def _merge_items(self, node: MappingNode) -> list[tuple[Node, Node]]:
        """The entries of a mapping, and those of the mappings under its merge key (<<) that it does not set itself."""
        own = [(key, value) for key, value in node.value if _get_tag(key) != "merge"]
        sources = [value for key, value in node.value if _get_tag(key) == "merge"]
        for source in sources:
            for mapping in source.value if isinstance(source, SequenceNode) else [source]:
                if not isinstance(mapping, MappingNode) or mapping is node:
                    remedy = "Give a mapping, or a list of mappings"
                    raise self._error(source, f"a merge key (<<) takes the entries of other mappings. {remedy}")
                names = {key.value for key, _ in own}
                own += [item for item in self._merge_items(mapping) if item[0].value not in names]
        return own

    def _convert_key(self, key: Node) -> str:
        if not isinstance(key, ScalarNode) or _get_tag(key) != "str":
            shown = repr(key.value) if isinstance(key, ScalarNode) else f"a {_FORMS[type(key)][0]}"
            raise self._error(key, f"a key must be a string, not {shown}. Put a number that is a name in quotes")
        return key.value

    def _convert_scalar(self, node: Node) -> str | int | float | bool | None:
        tag = _get_tag(node)
        if tag in ("str", "timestamp"):
            return node.value
        try:
            value = getattr(self.constructor, f"construct_yaml_{tag}")(node)
        except (ValueError, LookupError, OverflowError):
            problem = f"{shorten(node.value)} is not a value of type {tag}. Put text in quotes"
            raise self._error(node, problem) from None
        if isinstance(value, int) and abs(value) > MAX_INTEGER:
            raise self._error(node, f"the number {shorten(node.value)} is too large. At most {MAX_INTEGER}")
        if isinstance(value, float) and not math.isfinite(value):
            raise self._error(node, f"{shorten(node.value)} is not a finite number. Give a number, or remove the key")
        return value

    def _location(self, node: Node) -> str:
        return f"{self.file}:{node.start_mark.line + 1}"

    def _error(self, node: Node, message: str) -> ConfigError:
        return ConfigError(f"{self._location(node)}: {message}.")


def _get_tag(node: Node) -> str:
    return str(node.tag).removeprefix("tag:yaml.org,2002:")


def _describe_syntax_error(error: MarkedYAMLError, text: str, file: str) -> ConfigError:
    mark = error.problem_mark or error.context_mark
    problem = " ".join(part for part in (error.context, error.problem) if part)
    if "another document" in problem:
        problem = "a second YAML document starts here. A file holds one config"
    if mark is None:
        return ConfigError(f"{file}: not YAML: {problem}.")
    lines = text.splitlines() or [""]
    number = min(mark.line, len(lines) - 1)
    shown = "".join(c if c.isprintable() else " " for c in lines[number][:100])
    excerpt = f"\n  {number + 1:>4} | {shown}"
    if mark.line == number and mark.column < 100:
        excerpt += f"\n       | {'':{mark.column}}^"
    return ConfigError(f"{file}:{number + 1}: not YAML: {problem}.{excerpt}")


def _create_path(tree: Any, parts: list[str], location: str) -> KeyPath:
    """The path that the dotted `parts` name in `tree`; missing mappings on the way are created."""
    path: list[str | int] = []
    while parts:
        node = _get(tree, path)
        if isinstance(node, list):
            key, parts = _parse_index(node, parts[0], path, location), parts[1:]
        elif isinstance(node, dict):
            key, parts = _split_key(node, parts, path)
            if parts and node.get(key) is None:
                node[key] = {}
        else:
            raise ConfigError(f"{location}: {format_path(path)} is {shorten(node)}, which has no key {parts[0]!r}.")
        path.append(key)
        if parts and path == ["optimizer"] and isinstance(node["optimizer"], dict) and parts[0] == "0":
            parts = parts[1:]  # one optimizer may be written without a list
    return tuple(path)


def _parse_index(node: list[Any], part: str, path: list[str | int], location: str) -> int:
    if part.isdecimal() and len(part) < 9 and int(part) < len(node):
        return int(part)
    entries = ", ".join(f"{i} ({_label_entry(entry)})" for i, entry in enumerate(node[:8]))
    raise ConfigError(f"{location}: {format_path(path)} has no entry {part!r}. Its entries are {entries}.")


def _split_key(node: dict[str, Any], parts: list[str], path: list[str | int]) -> tuple[str, list[str]]:
    """The key of `node` that `parts` begin with, and the rest; keys such as ``problem.width`` contain dots."""
    for n in range(len(parts), 0, -1):
        if ".".join(parts[:n]) in node:
            return ".".join(parts[:n]), parts[n:]
    n = 2 if path and path[-1] in _AXIS_MAPPINGS and parts[0] == "problem" else 1
    return ".".join(parts[:n]), parts[n:]


def _label_entry(entry: Any) -> str:
    if isinstance(entry, dict):
        return shorten(entry.get("label") or entry.get("name") or entry.get("use") or "mapping")
    return shorten(entry)


def format_path(path: Iterable[str | int]) -> str:
    """``("optimizer", 0, "name")`` as ``optimizer.0.name``."""
    return ".".join(part if str(part).isprintable() else repr(part) for part in map(str, path))


def format_value(value: Any) -> str:
    """`value` as YAML on one line, shortened."""
    words: dict[Any, str] = {None: "null", True: "true", False: "false"}
    return words[value] if value is None or isinstance(value, bool) else shorten(repr(value))


def shorten(value: Any, limit: int = 60) -> str:
    """`value` on one line of at most `limit` characters, unprintable ones escaped."""
    text = repr(value) if not isinstance(value, str) or not value.isprintable() else value
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _get(tree: Any, path: Iterable[str | int]) -> Any:
    for part in path:
        tree = tree[part]
    return tree


def _has(node: Any, part: str | int) -> bool:
    if isinstance(node, dict):
        return part in node
    return isinstance(node, list) and isinstance(part, int) and 0 <= part < len(node)


def _suggest_file(path: Path) -> str:
    if path.stem in example_names():
        return f"This config is an example. Copy it: gdkit new --example {path.stem}"
    try:
        names = [p.name for p in path.parent.iterdir() if p.suffix in (".yaml", ".yml")]
    except (OSError, ValueError):
        names = []
    return nearest(path.name, names) or "gdkit new NAME writes a config to start from."
