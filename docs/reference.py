"""Write the reference from the docstrings: one page per module with public names.

Signatures and fields are copied from the source, with the comments of fields (shapes, units).
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
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

import gdkit
from gdkit import types
from gdkit.formatting import first_paragraph

ROOT = Path(gdkit.__file__).parent.parent
TITLES = {
    "problems": "Problems", "optimizers": "Optimizers", "descent": "One run", "sweeps": "Sweeps", "regimes": "Regimes",
    "stability": "Stability", "gradients": "Gradients", "hypergradients": "Hypergradients", "boundary": "Boundaries",
    "monitors": "Monitors", "datasets": "Data files", "data": "Data from the host", "schedules": "Schedules",
    "live": "Live trackers", "plots": "Plots",
}  # fmt: skip
MORE = {"monitors": (types.Monitor, types.Context, types.State, types.Info)}  # types for monitors of users
REST = "other"  # the page for all other names
SECTIONS = ("Args", "Attributes", "Returns", "Raises")
_SECTION = re.compile(rf"({'|'.join(SECTIONS)}):")
_ITEM = re.compile(r"(?P<name>[\w*.` ,()]+?):\s+(?P<text>\S.*)", re.DOTALL)
_CODE = re.compile(r"(`+)(.+?)\1", re.DOTALL)
_WIDTH = 88  # longest signature on one line


class Entry(NamedTuple):
    """One documented object."""

    name: str  # dotted, as a user writes it; its anchor
    thing: Any


# --- entries


def pages() -> dict[str, list[Entry]]:
    """Page -> entries: public names first, then other documented names of their modules."""
    entries_by_page: dict[str, list[Entry]] = {page: [] for page in [*TITLES, REST]}
    for name in gdkit.__all__:
        thing = getattr(gdkit, name)
        if not isinstance(thing, ModuleType):
            entries_by_page[_page_of(thing)].append(Entry(f"gdkit.{name}", thing))
    for page, entries in entries_by_page.items():
        known = [inspect.unwrap(entry.thing) for entry in entries]
        more = _members(importlib.import_module(f"gdkit.{page}")) if page in gdkit.__all__ else []
        entries.extend(Entry(f"gdkit.{page}.{name}", thing) for name, thing in more if thing not in known)
        known = [entry.thing for entry in entries]
        more = [cls for cls in _returned(known) if cls.__module__.startswith(f"gdkit.{page}") and cls not in known]
        entries.extend(Entry(f"{cls.__module__}.{cls.__name__}", cls) for cls in [*more, *MORE.get(page, ())])
    return entries_by_page


def _returned(things: list[Any]) -> Iterator[type]:
    """The documented classes of gdkit that functions and methods return."""
    classes = {}
    for function in [f for thing in things for f in (thing, *(f for _, f in _methods(thing)))]:
        function = inspect.unwrap(function)
        names = re.findall(r"\w+", _returns(_definition(function))) if inspect.isfunction(function) else ()
        for cls in [function.__globals__.get(name) for name in names]:
            if inspect.isclass(cls) and cls.__module__.startswith("gdkit.") and cls.__doc__:
                classes[cls.__name__] = cls
    public = set(gdkit.__all__)
    return (cls for name, cls in classes.items() if name not in public and not name.startswith("_"))


def _page_of(thing: Any) -> str:
    part = inspect.unwrap(thing).__module__.split(".")[1]
    return part if part in TITLES else REST


def _members(module: Any) -> list[tuple[str, Any]]:
    """Documented functions and classes of a module; of `gdkit.monitors` only those that return a monitor."""
    names = getattr(module, "__all__", None) or [name for name in vars(module) if not name.startswith("_")]
    things = [(name, inspect.unwrap(getattr(module, name))) for name in names]
    members = [(n, t) for n, t in things if inspect.isroutine(t) or inspect.isclass(t)]
    members = [(n, t) for n, t in members if t.__module__.startswith(module.__name__) and t.__doc__]
    if module is gdkit.monitors:
        members = [(n, t) for n, t in members if getattr(t, "__annotations__", {}).get("return") is types.Monitor]
    return members


@functools.cache
def anchors() -> dict[str, str]:
    """Name in docstrings -> page and anchor of its entry; short names only where they are unambiguous."""
    targets, ambiguous = {}, set()
    for page, entries in pages().items():
        for name, thing in entries:
            short = name.rpartition(".")[2]
            targets[name] = f"{page}.md#{name}"
            if name == f"gdkit.{short}" or inspect.isclass(thing):
                targets[short] = targets[name]
            ambiguous.update(re.findall(r"^ *(\w+)\b(?=:|=)", _shape(name, thing), re.MULTILINE))
            for member, function in _methods(thing):
                targets[f"{short}.{member}"] = f"{page}.md#{name}.{member}"
                ambiguous.update([member, *inspect.signature(function).parameters])
            if inspect.isfunction(thing):
                ambiguous.update(inspect.signature(thing).parameters)
    return {name: target for name, target in targets.items() if name not in ambiguous}


# --- pages


def reference_pages() -> dict[str, str]:
    """File name -> text, for every page and an index of all names."""
    texts = {}
    for page, entries in pages().items():
        title = TITLES.get(page, "Other")
        about = _prose(inspect.getdoc(importlib.import_module(f"gdkit.{page}")) or "") if page in TITLES else ""
        parts = filter(None, [f"# {title}", about, *map(_entry, entries)])
        texts[f"{page}.md"] = "\n\n".join(parts) + "\n"
    return {"index.md": _index(), **texts}


def _index() -> str:
    """All entries by page, each with its first sentence."""
    parts = ["# Reference", "Generated from the docstrings; names of `gdkit` itself come first."]
    for page, entries in pages().items():
        summarize = lambda thing: _prose(first_paragraph(inspect.getdoc(thing))).replace("|", "\\|")
        rows = [f"| [`{name}`]({page}.md#{name}) | {summarize(thing)} |" for name, thing in entries]
        parts.append("\n".join([f"## {TITLES.get(page, 'Other')}", "", "| name | |", "|---|---|", *rows]))
    return "\n\n".join(parts) + "\n"


def _entry(entry: Entry) -> str:
    name, thing = entry
    path = Path(inspect.getsourcefile(inspect.unwrap(thing)) or "").relative_to(ROOT)
    line = inspect.getsourcelines(inspect.unwrap(thing))[1]
    place = f"<small>{path}, line {max(line, 1)}</small>"
    head = f"## {name} {{ #{name} }}\n\n```python\n{_shape(name, thing)}\n```\n\n{place}"
    methods = [_method(name, thing, member, what) for member, what in _methods(thing)]
    return "\n\n".join([head, docstring_to_markdown(inspect.getdoc(thing) or ""), *methods])


def _methods(thing: Any) -> list[tuple[str, Any]]:
    """Public methods and properties of a class with a docstring of their own, in the order of the source."""
    if not inspect.isclass(thing):
        return []
    own = {n: getattr(v, "fget", None) or getattr(v, "func", None) or v for n, v in vars(thing).items()}
    return [(n, f) for n, f in own.items() if inspect.isfunction(f) and not n.startswith("_") and f.__doc__]


def _method(owner: str, cls: type, name: str, function: Any) -> str:
    kind = vars(cls)[name]
    is_value = isinstance(kind, property | functools.cached_property)
    tree = _definition(function)
    if isinstance(kind, FunctionType):
        tree.args.args = tree.args.args[1:]  # the object, whatever its name
    shape = f"{name}: {_returns(tree)}" if is_value else _signature(name, tree)
    head = f"### {name} {{ #{owner}.{name} }}\n\n```python\n{shape}\n```"
    return f"{head}\n\n{docstring_to_markdown(inspect.getdoc(function) or '')}"


def _shape(name: str, thing: Any) -> str:
    """Signature of a function; for a class the arguments of its ``__init__``, or its fields as in the source."""
    thing = inspect.unwrap(thing)
    if inspect.isfunction(thing):
        return _signature(name, _definition(thing))
    source = textwrap.dedent(inspect.getsource(thing))
    body = ast.parse(source).body[0].body  # ty: ignore[unresolved-attribute]
    inits = [n for n in body if isinstance(n, ast.FunctionDef) and n.name == "__init__"]
    if inits:
        return _signature(name, inits[0])
    fields = [n for n in body if isinstance(n, ast.AnnAssign | ast.Assign) and not _is_private(n)]
    lines = source.splitlines()
    shown = [line for n in fields for line in [*lines[n.lineno - 1 : n.end_lineno], *_comments(lines[n.end_lineno :])]]
    return "\n".join([next(line for line in lines if line.startswith("class ")), *(shown or ["    ..."])])


def _comments(lines: list[str]) -> Iterator[str]:
    """The leading lines that continue the comment of a field."""
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
    """``name(arguments) -> result`` as in the source, on one line if short, otherwise with one line per argument."""
    arguments = [a for a in _arguments(tree.args) if a.partition(":")[0] not in ("self", "cls")]
    tail = f" -> {_returns(tree)}" if tree.returns and tree.name != "__init__" else ""
    line = f"{name}({', '.join(arguments)}){tail}"
    return line if len(line) <= _WIDTH else "\n".join([f"{name}(", *(f"    {a}," for a in arguments), f"){tail}"])


def _arguments(arguments: ast.arguments) -> Iterator[str]:
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(positional) - len(arguments.defaults)) + list(arguments.defaults)
    for at, (argument, default) in enumerate(zip(positional, defaults, strict=True)):
        yield _argument(argument, default)
        if at + 1 == len(arguments.posonlyargs):
            yield "/"
    if arguments.vararg:
        yield f"*{_argument(arguments.vararg)}"
    elif arguments.kwonlyargs:
        yield "*"
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        yield _argument(argument, default)
    if arguments.kwarg:
        yield f"**{_argument(arguments.kwarg)}"


def _argument(argument: ast.arg, default: ast.expr | None = None) -> str:
    shown = ast.unparse(argument)
    equals = " = " if argument.annotation else "="
    return shown if default is None else f"{shown}{equals}{ast.unparse(default)}"


# --- docstrings


def docstring_to_markdown(docstring: str) -> str:
    """A docstring as Markdown: prose, sections as lists, examples as code."""
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
    """Remove the leading indented lines from `lines`; returns them without the indent."""
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
    """Items ``name: text`` as a list; other text unchanged."""
    items = [item for item in re.split(r"\n(?=\S)", body) if item.strip()]
    matches = [_ITEM.fullmatch(item.strip()) for item in items]
    if title == "Returns" or not all(matches):
        return _prose(body)
    rows = [(_names(match["name"]), _prose(_dedent_item(match["text"]))) for match in matches if match]
    return "\n".join(f"- {name}: {textwrap.indent(text, '    ').strip()}" for name, text in rows)


def _dedent_item(text: str) -> str:
    """The text of an item, its continuation lines without their common indent."""
    first, _, rest = text.partition("\n")
    return f"{first}\n{textwrap.dedent(rest)}" if rest else first


def _names(names: str) -> str:
    return ", ".join(f"`{name.strip('` ')}`" for name in names.split(","))


def _prose(text: str) -> str:
    """Text with links on names that have an entry, and `<` escaped outside code."""
    parts, at = [], 0
    for code in _CODE.finditer(text):
        parts += [text[at : code.start()].replace("<", "&lt;"), _link(code)]
        at = code.end()
    return "".join([*parts, text[at:].replace("<", "&lt;")])


def _link(code: re.Match) -> str:
    name = code[2].strip()
    target = anchors().get(name)
    return f"[`{name}`]({target})" if target else code[0]
