"""``gdkit list``: what a config can name."""

import ast
import inspect
import shutil
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gdkit.factories import parameters


def show(kind: str) -> None:
    """Prints the names of one kind, one an entry, with what each takes."""
    entries = dict(_KINDS[kind]())
    width = min(max(map(len, entries), default=0), 32) + 2
    columns = max(shutil.get_terminal_size((100, 24)).columns, 40)
    if not entries:
        print(_NOTHING[kind].format(here=Path.cwd()))
    for name, about in entries.items():
        head = f"{name:{width}}"
        if len(name) > width - 2:
            print(name)
            head = " " * width
        print(textwrap.fill(about or " ", columns, initial_indent=head, subsequent_indent=" " * width).rstrip())


def _optimizers() -> Iterator[tuple[str, str]]:
    from gdkit import optimizers

    for name, factory in optimizers.names().items():
        why = optimizers.UNSUPPORTED.get(name)
        yield name, f"not by name: {why}" if why else _takes(factory)


def _problems() -> Iterator[tuple[str, str]]:
    from gdkit import problems

    for name, factory in problems.names().items():
        yield name, f"{_first_line(factory)} Takes {_takes(factory)}."


def _monitors() -> Iterator[tuple[str, str]]:
    from gdkit.app.config import build

    for name, factory in build.MONITORS.items():
        taken = ", ".join(map(_parameter, build.own_parameters(factory).values()))
        alone = " Of one optimizer." if "factory" in parameters(factory) else ""
        yield name, f"{_summary(factory)} Takes {taken}.{alone}"
    yield "{use: MODULE:FUNCTION}", "one of your own: a function that returns a gdkit.monitors.Monitor"


def _data() -> Iterator[tuple[str, str]]:
    from gdkit import datasets

    for name in datasets.names():
        data = datasets.load(name)
        rows = sum(len(part[1]) for part in (data.train, data.validation, data.test) if part is not None)
        columns = data.train[0].shape[1:]
        classes = f", {data.outputs} classes" if data.task == "classification" else ""
        yield name, f"{data.task}: {rows} rows of {'×'.join(map(str, columns))}{classes}"
    yield "{file: PATH, target: COLUMN}", "a .csv or .npz file of your own; task and split may be given as well"


def _experiments() -> Iterator[tuple[str, str]]:
    """The modules of the folder ``experiments`` that have a function `run`, by their text: nothing is imported."""
    for path in sorted(Path("experiments").glob("*.py")):
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, ValueError) as error:
            yield path.stem, f"cannot be read: {error}"
            continue
        if any(isinstance(node, ast.FunctionDef) and node.name == "run" for node in tree.body):
            yield (
                f"experiments.{path.stem}:run",
                (ast.get_docstring(tree) or "").partition("\n\n")[0].replace("\n", " "),
            )


_KINDS: dict[str, Callable[[], Iterator[tuple[str, str]]]] = {
    "optimizers": _optimizers,
    "problems": _problems,
    "monitors": _monitors,
    "data": _data,
    "experiments": _experiments,
}


_NOTHING = {
    "experiments": "{here}: no experiments here. They are looked for in the folder experiments, as modules with a "
    "function run(settings): go to a clone of gdkit, or write one."
}


def _takes(factory: Callable[..., Any]) -> str:
    return ", ".join(map(_parameter, parameters(factory).values())) or "nothing"


def _parameter(parameter: inspect.Parameter) -> str:
    default = parameter.default
    plain = isinstance(default, str | int | float | tuple | None) and default is not parameter.empty
    return f"{parameter.name}={default}" if plain else parameter.name


def _summary(factory: Callable[..., Any]) -> str:
    """The first paragraph of a docstring, as plain words."""
    return (inspect.getdoc(factory) or "").partition("\n\n")[0].replace("\n", " ").replace("``", "").replace("`", "")


def _first_line(factory: Callable[..., Any]) -> str:
    return (inspect.getdoc(factory) or "").partition("\n")[0]
