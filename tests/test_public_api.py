"""The public names, their arguments and their docstrings. After a deliberate change: python tests/test_public_api.py"""

import enum
import inspect
from pathlib import Path
from types import ModuleType

import pytest

import gdkit

SIGNATURES = Path(__file__).parent / "public_api.txt"
# Modules with parts that only the library itself calls; gdkit.__all__ and their documents name the rest.
PARTLY_PUBLIC = ("monitors",)


def public():
    """Every public name and what it stands for: those of gdkit, and what its public modules define."""
    things = {}
    for name in gdkit.__all__:
        thing = things[f"gdkit.{name}"] = getattr(gdkit, name)
        if isinstance(thing, ModuleType) and name not in PARTLY_PUBLIC:
            things |= {f"gdkit.{name}.{inner}": value for inner, value in members(thing)}
    return things


def members(module):
    """The functions and classes that a module or a package defines."""
    names = getattr(module, "__all__", None) or [name for name in vars(module) if not name.startswith("_")]
    for name in names:
        thing = inspect.unwrap(getattr(module, name))
        if (inspect.isfunction(thing) or inspect.isclass(thing)) and thing.__module__.startswith(module.__name__):
            yield name, thing


def signature(thing):
    """Arguments with their kinds and defaults, or the members of an enum; how types print differs between versions."""
    if isinstance(thing, enum.EnumType):
        return f"({', '.join(thing.__members__)})"
    if isinstance(thing, ModuleType) or (inspect.isclass(thing) and issubclass(thing, BaseException)):
        return ""
    found = inspect.signature(thing)
    bare = [parameter.replace(annotation=parameter.empty) for parameter in found.parameters.values()]
    return str(found.replace(parameters=bare, return_annotation=found.empty))


def listing():
    return "".join(f"{name}{signature(thing)}\n" for name, thing in sorted(public().items()))


def test_the_signatures_of_the_public_names_are_those_on_record():
    assert listing() == SIGNATURES.read_text(encoding="utf-8"), "if intended, run: python tests/test_public_api.py"


@pytest.mark.parametrize("name", sorted(public()))
def test_every_public_name_has_a_docstring_of_its_own(name):
    thing = public()[name]
    assert thing.__doc__ and len(thing.__doc__.split()) > 2
    if inspect.isclass(thing):
        assert thing.__doc__ not in {base.__doc__ for base in thing.__mro__[1:]}


@pytest.mark.parametrize("name", sorted(public()))
def test_arguments_have_one_name_everywhere(name):
    thing = public()[name]
    if inspect.isfunction(thing):
        refused = {"factory", "optimizer_factory", "problem_factory", "maximise", "minimise", "rng"}
        assert not refused & set(inspect.signature(thing).parameters)


if __name__ == "__main__":
    SIGNATURES.write_text(listing(), encoding="utf-8")
