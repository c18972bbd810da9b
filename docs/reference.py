"""Write the reference from the docstrings: a page for each module that public names come from.

Signatures and fields are taken from the source as they are written there, comments of fields (shapes, units) included.
"""

import ast
import functools
import importlib
import inspect
import itertools
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import gdkit
from gdkit import types

ROOT = Path(gdkit.__file__).parent.parent
TITLES = {
    "problems": "Problems", "optimizers": "Optimizers", "descent": "One run", "sweeps": "Sweeps", "regimes": "Regimes",
    "stability": "Stability", "gradients": "Gradients", "hypergradients": "Hypergradients", "boundary": "Borders",
    "monitors": "Monitors", "plots": "Plots",
}  # fmt: skip
MORE = {"monitors": (types.Monitor, types.Context, types.State, types.Info)}  # what users write monitors with
REST = "other"  # the page of what has no place above
SECTIONS = ("Args", "Attributes", "Returns", "Raises")
_SECTION = re.compile(rf"({'|'.join(SECTIONS)}):")
_ITEM = re.compile(r"(?P<name>[\w*.` ,()]+?):\s+(?P<text>\S.*)", re.DOTALL)
_CODE = re.compile(r"(`+)(.+?)\1", re.DOTALL)
_WIDTH = 88  # of a signature on one line


class Entry(NamedTuple):
    """One documented thing."""

    name: str  # dotted, as a user writes it; its anchor
    thing: Any


# --- what there is


def pages() -> dict[str, list[Entry]]:
    """Page to its entries: public names first, then what else their modules define for users."""
    found: dict[str, list[Entry]] = {page: [] for page in [*TITLES, REST]}
    for name in gdkit.__all__:
        thing = getattr(gdkit, name)
        if not isinstance(thing, ModuleType):
            found[_page_of(thing)].append(Entry(f"gdkit.{name}", thing))
    for page, entries in found.items():
        known = [inspect.unwrap(entry.thing) for entry in entries]
        more = _members(importlib.import_module(f"gdkit.{page}")) if page in gdkit.__all__ else []
        entries.extend(Entry(f"gdkit.{page}.{name}", thing) for name, thing in more if thing not in known)
        known = [entry.thing for entry in entries]
        more = [cls for cls in _returned(known) if cls.__module__.startswith(f"gdkit.{page}") and cls not in known]
        entries.extend(Entry(f"{cls.__module__}.{cls.__name__}", cls) for cls in [*more, *MORE.get(page, ())])
    return found


def _returned(things: list[Any]) -> Iterator[type]:
    """The documented classes of gdkit that functions and methods return."""
    found = {}
    for function in [f for thing in things for f in (thing, *(f for _, f in _methods(thing)))]:
        function = inspect.unwrap(function)
        names = re.findall(r"\w+", _returns(_definition(function))) if inspect.isfunction(function) else ()
        for cls in [function.__globals__.get(name) for name in names]:
            if inspect.isclass(cls) and cls.__module__.startswith("gdkit.") and cls.__doc__:
                found[cls.__name__] = cls
    public = set(gdkit.__all__)
    return (cls for name, cls in found.items() if name not in public and not name.startswith("_"))


def _page_of(thing: Any) -> str:
    part = inspect.unwrap(thing).__module__.split(".")[1]
    return part if part in TITLES else REST


def _members(module: Any) -> list[tuple[str, Any]]:
    """The documented functions and classes that a module defines; of monitors, those that make one."""
    names = getattr(module, "__all__", None) or [name for name in vars(module) if not name.startswith("_")]
    things = [(name, inspect.unwrap(getattr(module, name))) for name in names]
    kept = [(n, t) for n, t in things if inspect.isroutine(t) or inspect.isclass(t)]
    kept = [(n, t) for n, t in kept if t.__module__.startswith(module.__name__) and t.__doc__]
    if module is gdkit.monitors:
        kept = [(n, t) for n, t in kept if getattr(t, "__annotations__", {}).get("return") is types.Monitor]
    return kept


@functools.cache
def anchors() -> dict[str, str]:
    """What a docstring calls a thing to the page and anchor of its entry: in full, or shortly where that is clear."""
    found, taken = {}, set()
    for page, entries in pages().items():
        for name, thing in entries:
            short = name.rpartition(".")[2]
            found[name] = f"{page}.md#{name}"
            if name == f"gdkit.{short}" or inspect.isclass(thing):
                found[short] = found[name]
            taken.update(re.findall(r"^ *(\w+)\b(?=:|=)", _shape(name, thing), re.MULTILINE))
            for member, function in _methods(thing):
                found[f"{short}.{member}"] = f"{page}.md#{name}.{member}"
                taken.update([member, *inspect.signature(function).parameters])
            if inspect.isfunction(thing):
                taken.update(inspect.signature(thing).parameters)
    return {name: target for name, target in found.items() if name not in taken}


# --- how it is written


def written() -> dict[str, str]:
    """File name to text, for every page and an index of all names."""
    found = {}
    for page, entries in pages().items():
        title = TITLES.get(page, "Other")
        about = _prose(inspect.getdoc(importlib.import_module(f"gdkit.{page}")) or "") if page in TITLES else ""
        found[f"{page}.md"] = (
            "\n\n".join(filter(None, [f"# {title}", about, *(_entry(entry) for entry in entries)])) + "\n"
        )
    return {"index.md": _index(), **found}


def _index() -> str:
    """All entries by page, each with its first sentence."""
    parts = ["# Reference", "Written by a program from the docstrings; what stands in `gdkit` itself first."]
    for page, entries in pages().items():
        rows = [f"| [`{name}`]({page}.md#{name}) | {_prose(_summary(thing)).replace('|', chr(92) + '|')} |"
                for name, thing in entries]  # fmt: skip
        parts.append("\n".join([f"## {TITLES.get(page, 'Other')}", "", "| name | |", "|---|---|", *rows]))
    return "\n\n".join(parts) + "\n"


def _summary(thing: Any) -> str:
    return " ".join((inspect.getdoc(thing) or "").partition("\n\n")[0].split())


def _entry(entry: Entry) -> str:
    name, thing = entry
    path = Path(inspect.getsourcefile(inspect.unwrap(thing)) or "").relative_to(ROOT)
    line = inspect.getsourcelines(inspect.unwrap(thing))[1]
    place = f"<small>{path}, line {max(line, 1)}</small>"
    head = f"## {name} {{ #{name} }}\n\n```python\n{_shape(name, thing)}\n```\n\n{place}"
    methods = [_method(name, thing, member, what) for member, what in _methods(thing)]
    return "\n\n".join([head, described(inspect.getdoc(thing) or ""), *methods])


def _methods(thing: Any) -> list[tuple[str, Any]]:
    """Public methods and properties of a class with a docstring of their own, in the order of the source."""
    if not inspect.isclass(thing):
        return []
    own = {n: getattr(v, "fget", None) or getattr(v, "func", None) or v for n, v in vars(thing).items()}
    return [(n, f) for n, f in own.items() if inspect.isfunction(f) and not n.startswith("_") and f.__doc__]


def _method(owner: str, cls: type, name: str, function: Any) -> str:
    kind = vars(cls)[name]
    is_value = isinstance(kind, property | functools.cached_property)
    shape = f"{name}: {_returns(_definition(function))}" if is_value else _signature(name, _definition(function))
    head = f"### {name} {{ #{owner}.{name} }}\n\n```python\n{shape}\n```"
    return f"{head}\n\n{described(inspect.getdoc(function) or '')}"


def _shape(name: str, thing: Any) -> str:
    """A function's signature; of a class the arguments of its ``__init__``, or its fields as the source has them."""
    thing = inspect.unwrap(thing)
    if inspect.isfunction(thing):
        return _signature(name, _definition(thing))
    source = textwrap.dedent(inspect.getsource(thing))
    body = ast.parse(source).body[0].body  # ty: ignore[unresolved-attribute]
    made = [n for n in body if isinstance(n, ast.FunctionDef) and n.name == "__init__"]
    if made:
        return _signature(name, made[0])
    fields = [n for n in body if isinstance(n, ast.AnnAssign | ast.Assign) and not _is_private(n)]
    lines = source.splitlines()
    kept = [line for n in fields for line in [*lines[n.lineno - 1 : n.end_lineno], *_comments(lines[n.end_lineno :])]]
    return "\n".join([next(line for line in lines if line.startswith("class ")), *(kept or ["    ..."])])


def _comments(lines: list[str]) -> Iterator[str]:
    """The lines at the start that go on with the comment of a field."""
    return itertools.takewhile(lambda line: line.strip().startswith("#"), lines)


def _is_private(node: ast.AnnAssign | ast.Assign) -> bool:
    target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
    shown = ast.unparse(node.annotation) if isinstance(node, ast.AnnAssign) else ""
    return ast.unparse(target).startswith("_") and "KW_ONLY" not in shown


def _definition(function: Any) -> ast.FunctionDef:
    tree = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(function)))).body[0]
    assert isinstance(tree, ast.FunctionDef)
    return tree


def _returns(tree: ast.FunctionDef) -> str:
    return ast.unparse(tree.returns).strip("'") if tree.returns else "None"


def _signature(name: str, tree: ast.FunctionDef) -> str:
    """``name(arguments) -> result`` as the source has it, on one line if it is short, else an argument a line."""
    arguments = [a for a in _arguments(tree.args) if a.partition(":")[0] not in ("self", "cls")]
    tail = f" -> {_returns(tree)}" if tree.returns and tree.name != "__init__" else ""
    line = f"{name}({', '.join(arguments)}){tail}"
    return line if len(line) <= _WIDTH else "\n".join([f"{name}(", *(f"    {a}," for a in arguments), f"){tail}"])


def _arguments(found: ast.arguments) -> Iterator[str]:
    positional = [*found.posonlyargs, *found.args]
    defaults = [None] * (len(positional) - len(found.defaults)) + list(found.defaults)
    for at, (argument, default) in enumerate(zip(positional, defaults, strict=True)):
        yield _argument(argument, default)
        if at + 1 == len(found.posonlyargs):
            yield "/"
    if found.vararg:
        yield f"*{_argument(found.vararg)}"
    elif found.kwonlyargs:
        yield "*"
    for argument, default in zip(found.kwonlyargs, found.kw_defaults, strict=True):
        yield _argument(argument, default)
    if found.kwarg:
        yield f"**{_argument(found.kwarg)}"


def _argument(argument: ast.arg, default: ast.expr | None = None) -> str:
    shown = ast.unparse(argument)
    equals = " = " if argument.annotation else "="
    return shown if default is None else f"{shown}{equals}{ast.unparse(default)}"


# --- docstrings


def described(docstring: str) -> str:
    """A docstring as Markdown: prose, what it takes and returns as lists, examples as code."""
    parts, lines = [], docstring.splitlines()
    while lines:
        if not lines[0].strip():
            lines.pop(0)
        elif _SECTION.fullmatch(lines[0]):
            title = lines.pop(0).rstrip(":")
            parts.append(f"**{title}**\n\n{_section(title, _indented(lines))}")
        elif lines[0].startswith(">>> "):
            parts.append(f"```pycon\n{chr(10).join(_until_blank(lines))}\n```")
        else:
            parts.append(_prose("\n".join(_until_blank(lines))))
    return "\n\n".join(parts)


def _indented(lines: list[str]) -> str:
    """Take the indented lines at the start; without the indent."""
    taken = []
    while lines and (not lines[0].strip() or lines[0].startswith(" ")):
        taken.append(lines.pop(0))
    return textwrap.dedent("\n".join(taken)).strip()


def _until_blank(lines: list[str]) -> list[str]:
    taken = []
    while lines and lines[0].strip() and not (taken and lines[0].startswith(">>> ") and ">>> " not in taken[0]):
        taken.append(lines.pop(0))
    return taken


def _section(title: str, body: str) -> str:
    """Items ``name: text`` as a list; a text without them as it is."""
    items = [item for item in re.split(r"\n(?=\S)", body) if item.strip()]
    found = [_ITEM.fullmatch(item.strip()) for item in items]
    if title == "Returns" or not all(found):
        return _prose(body)
    rows = [(_names(match["name"]), _prose(_aligned(match["text"]))) for match in found if match]
    return "\n".join(f"- {name}: {textwrap.indent(text, '    ').strip()}" for name, text in rows)


def _aligned(text: str) -> str:
    """The text of an item, its further lines without the indent that they share."""
    first, _, rest = text.partition("\n")
    return f"{first}\n{textwrap.dedent(rest)}" if rest else first


def _names(names: str) -> str:
    return ", ".join(f"`{name.strip('` ')}`" for name in names.split(","))


def _prose(text: str) -> str:
    """Text with links on the names that have an entry, and nothing in it that Markdown takes for HTML."""
    parts, at = [], 0
    for code in _CODE.finditer(text):
        parts += [text[at : code.start()].replace("<", "&lt;"), _linked(code)]
        at = code.end()
    return "".join([*parts, text[at:].replace("<", "&lt;")])


def _linked(code: re.Match) -> str:
    name = code[2].strip()
    target = anchors().get(name)
    return f"[`{name}`]({target})" if target else code[0]
