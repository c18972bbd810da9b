"""Validation errors of a config as messages with file, line, key and remedy. Imports no JAX."""

from collections.abc import Mapping, Sequence
from typing import Any

from gdkit.app.config.schema import AXIS_TAG, PATTERNS, SCALAR_TAG, Config, PathError, SweepConfig, build_schema
from gdkit.app.config.source import ConfigSource, KeyPath, format_path, format_value
from gdkit.errors import nearest

_MAX_SHOWN = 20
_TYPES = {
    "int_type": "must be an integer",
    "int_from_float": "must be an integer",
    "float_type": "must be a number",
    "string_type": "must be a string",
}
_CONTAINERS = {"list_type": "a list", "dict_type": "a mapping", "model_type": "a mapping"}
_NAMED = ("problem", "optimizer", "monitors", "schedule")  # mappings with the key name
_EXAMPLES = {
    "sweep": "{axes: {learning_rate: [0.01, 0.1]}, steps: 100}",
    "axes": "{learning_rate: [0.01, 0.1]}",
    "paired": "{learning_rate: [0.01, 0.1], momentum: [0.0, 0.9]}",
    "log": "{from: 1e-4, to: 1, count: 9}",
    "linear": "{from: 0, to: 0.9, count: 10}",
    "random": "{from: 1e-4, to: 1, count: 20}",
    "values": "[0.01, 0.1]",
    "static": "[false, true]",
    "stop": "{patience: {checks: 5}}",
    "patience": "{checks: 5}",
}


def explain_errors(source: ConfigSource, model: type[Config], errors: Sequence[Mapping[str, Any]]) -> str:
    """The message for all of pydantic's errors; several are listed one per line."""
    messages = [_explain(source, model, error) for error in errors]
    if len(messages) == 1:
        return messages[0]
    more = len(messages) - _MAX_SHOWN
    shown = messages[:_MAX_SHOWN] + ([f"and {more} more"] if more > 0 else [])
    return "\n".join([f"{len(messages)} errors:", *(f"  {line}" for line in shown)])


def _explain(source: ConfigSource, model: type[Config], error: Mapping[str, Any]) -> str:
    path = tuple(part for part in error["loc"] if part not in ("[key]", AXIS_TAG, SCALAR_TAG))
    cause = error.get("ctx", {}).get("error")
    path += cause.path if isinstance(cause, PathError) else ()
    kind = error["type"]
    if kind == "extra_forbidden":
        message = f"unknown key. {_suggest_key(path, model)}"
    elif kind == "missing":
        message = f"missing. {_describe_field(path, model)}".strip()
    elif kind in _CONTAINERS:
        message = _describe_container(path, error)
    elif kind == "string_pattern_mismatch":
        message = PATTERNS[error["ctx"]["pattern"]]
    else:
        message = error["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
        message = _TYPES.get(kind, message)
    return source.describe(path, message)


def _describe_container(path: KeyPath, error: Mapping[str, Any]) -> str:
    """The list or mapping expected at `path`, with an example made from the scalar that was given."""
    value = error["input"] if isinstance(error["input"], str | int | float) else None
    names = [str(part) for part in path if not isinstance(part, int)]
    if names[-2:-1] == ["axes"] or names[-2:-1] == ["paired"]:
        fixed = f"optimizer.0.{names[-1]}={format_value(value)}"
        is_list = isinstance(value, str) and "," in value
        remedy = "" if value is None or is_list else f". To fix the value, give it to the optimizer: {fixed}."
        example = f"[{'0.01, 0.1' if value is None else value if is_list else format_value(value)}]"
        return f"must be a list of values, for example {example}, or one of log, linear, random, static{remedy}"
    example = _EXAMPLES.get(names[-1], "") if names else ""
    if names and names[-1] in _NAMED:
        example = f"{{name: {value if isinstance(value, str) else '...'}}}"
        example = f"[{example}]" if names[-1] == "monitors" and path[-1] == "monitors" else example
    container = "a mapping, or a list of mappings" if path == ("optimizer",) else _CONTAINERS[error["type"]]
    return f"must be {container}" + (f", for example {example}" if example else "")


def _suggest_key(path: KeyPath, model: type[Config]) -> str:
    """The remedy for an unknown key: where it belongs, the nearest key, or the known keys."""
    name = str(path[-1])
    known = [key for node in _find_nodes(path[:-1], model) for key in node.get("properties", ())]
    home = _find_key(name, model)
    close = f"It belongs under {home[0]}: {format_path(home)}" if home else nearest(name, known)
    if close or path[:-1] not in ((), ("sweep",)) or model is not SweepConfig:
        return close or f"Known: {', '.join(known)}."
    remedy = f" If {name} is a hyperparameter: sweep.axes.{name}=[...] for its values, optimizer.0.{name}=... for one."
    return f"Known: {', '.join(known)}.{remedy if name.isidentifier() else ''}"


def _find_key(name: str, model: type[Config]) -> KeyPath | None:
    """The path of the section of a config that has a key `name`."""
    for part in build_schema(model).get("properties", ()):
        for path in ((part,), (part, 0)):
            nodes = _find_nodes(path, model)
            if any(name in node.get("properties", ()) for node in nodes) and name not in ("name", "use"):
                return (*path, name)
    return None


def _describe_field(path: KeyPath, model: type[Config]) -> str:
    descriptions = [node["description"] for node in _find_nodes(path, model) if "description" in node]
    return f"Expected: {descriptions[0]}." if descriptions else ""


def _find_nodes(path: KeyPath, model: type[Config]) -> list[dict[str, Any]]:
    """The nodes of the model's JSON Schema that apply to the value at `path`."""
    schema = build_schema(model)
    nodes = _expand_node(schema, schema)
    for part in path:
        children = [n["properties"][part] for n in nodes if part in n.get("properties", {})]
        children += [n["items"] for n in nodes if isinstance(part, int) and "items" in n]
        children = children or [child for node in nodes for child in _list_free_children(node)]
        nodes = [n for child in children for n in _expand_node(child, schema)] or nodes  # a union's tag has no node
    return nodes


def _list_free_children(node: dict[str, Any]) -> list[dict[str, Any]]:
    """The nodes for the values of keys that the schema does not name."""
    rest = node.get("additionalProperties")
    return [*node.get("patternProperties", {}).values(), *([rest] if isinstance(rest, dict) else [])]


def _expand_node(node: dict[str, Any], schema: dict[str, Any]) -> list[dict[str, Any]]:
    """`node`, the nodes that it refers to, and the members of its unions."""
    children = [*node.get("anyOf", ()), *node.get("oneOf", ())]
    if "$ref" in node:
        children.append(schema["$defs"][node["$ref"].rpartition("/")[2]])
    return [node, *(other for child in children for other in _expand_node(child, schema))]
