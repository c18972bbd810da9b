"""``gdkit list``: the names that a config can use."""

import ast
import inspect
import shutil
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from gdkit.app import examples
from gdkit.factories import parameters
from gdkit.formatting import first_paragraph


def print_names(kind: str) -> None:
    """Print the names of one kind, one entry each, with the arguments that they take."""
    entries = dict(_KINDS[kind]())
    if not entries:
        print(_EMPTY[kind].format(folder=Path.cwd()))
    width = min(max(map(len, entries), default=0), 32) + 2
    columns = max(shutil.get_terminal_size((100, 24)).columns, 40)
    for name, description in entries.items():
        head = f"{name:{width}}"
        if len(name) > width - 2:
            print(name)
            head = " " * width
        lines = textwrap.fill(description or " ", columns, initial_indent=head, subsequent_indent=" " * width)
        print(lines.rstrip())


def _list_optimizers() -> Iterator[tuple[str, str]]:
    from gdkit import optimizers

    for name, factory in optimizers.names().items():
        reason = optimizers.UNSUPPORTED.get(name)
        yield name, f"not available by name: {reason}" if reason else _describe_parameters(parameters(factory))


def _list_problems() -> Iterator[tuple[str, str]]:
    from gdkit import problems

    for name, factory in problems.names().items():
        summary = (inspect.getdoc(factory) or "").partition("\n")[0]
        yield name, f"{summary} Arguments: {_describe_parameters(parameters(factory))}."


def _list_monitors() -> Iterator[tuple[str, str]]:
    from gdkit.app.config.build import MONITORS, get_monitor_parameters

    for name, factory in MONITORS.items():
        arguments = _describe_parameters(get_monitor_parameters(factory))
        single = " For a single optimizer." if "optimizer" in parameters(factory) else ""
        summary = first_paragraph(inspect.getdoc(factory)).replace("`", "")
        yield name, f"{summary} Arguments: {arguments}.{single}"
    yield "{use: MODULE:FUNCTION}", "your own: a function that returns a gdkit.monitors.Monitor"


def _list_data() -> Iterator[tuple[str, str]]:
    from gdkit import datasets

    for name in datasets.names():
        data = datasets.load(name)
        rows = sum(len(part[1]) for part in (data.train, data.validation, data.test) if part is not None)
        columns = data.train[0].shape[1:]
        classes = f", {data.outputs} classes" if data.task == "classification" else ""
        yield name, f"{data.task}: {rows} rows of {'×'.join(map(str, columns))}{classes}"
    yield "{file: PATH, target: COLUMN}", "your own file: text such as .csv, .parquet, .npz or .npy"


def _list_experiments() -> Iterator[tuple[str, str]]:
    """The modules of the folder ``experiments`` that define `run`, read as text: nothing is imported."""
    for path in sorted(Path("experiments").glob("*.py")):
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, ValueError) as error:
            yield path.stem, f"cannot be read: {error}"
            continue
        if any(isinstance(node, ast.FunctionDef) and node.name == "run" for node in tree.body):
            yield f"experiments.{path.stem}:run", first_paragraph(ast.get_docstring(tree))


def _list_examples() -> Iterator[tuple[str, str]]:
    for name in examples.example_names():
        yield name, examples.describe_example(name)


_KINDS: dict[str, Callable[[], Iterator[tuple[str, str]]]] = {
    "optimizers": _list_optimizers,
    "problems": _list_problems,
    "monitors": _list_monitors,
    "data": _list_data,
    "experiments": _list_experiments,
    "examples": _list_examples,
}
_EMPTY = {
    "experiments": "{folder}: no experiments. An experiment is a module in the folder experiments with a function "
    "run(settings). Write one, or copy an example: gdkit new --example NAME. gdkit list examples lists the names.",
    "examples": "This installation of gdkit contains no examples.",
}


def _describe_parameters(parameters: Mapping[str, inspect.Parameter]) -> str:
    return ", ".join(map(_describe_parameter, parameters.values())) or "none"


def _describe_parameter(parameter: inspect.Parameter) -> str:
    default = parameter.default
    plain = isinstance(default, str | int | float | tuple | None) and default is not parameter.empty
    return f"{parameter.name}={default}" if plain else parameter.name
