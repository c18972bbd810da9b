"""Typed errors whose messages name the argument, its value and the remedy. Imports only the standard library."""

import difflib
import importlib
import re
import reprlib
import sys
import warnings
from collections.abc import Iterable
from typing import Any

OTHER_DIRECTORY = "Name another directory, or on the command line start a new run beside it with --new"


class GdkitError(Exception):
    """Base class of all errors that gdkit raises deliberately."""


class InputValueError(GdkitError, ValueError):
    """An argument has a valid type and an invalid value."""


class InputTypeError(GdkitError, TypeError):
    """An argument has an invalid type."""


class MissingPackageError(GdkitError, ValueError):
    """A feature needs a package that is not installed."""


class RunError(GdkitError, ValueError):
    """A run started and could not finish."""


class StoreError(RunError):
    """A run directory cannot be read or written."""


class DamagedFileError(StoreError):
    """A file of a run directory does not have the content that was written."""


class OtherRunError(InputValueError):
    """A run directory holds another run; `lines` name the parts that differ, `remedy` what to do instead."""

    def __init__(self, path: object, lines: Iterable[str], remedy: str = f"{OTHER_DIRECTORY}."):
        self.path, self.lines, self.remedy = path, tuple(lines), remedy
        super().__init__("\n  ".join([f"{path}: it holds another run:", *self.lines, remedy]))

    def __reduce__(self) -> tuple:  # for pickling: worker processes return errors
        return type(self), (self.path, self.lines, self.remedy)


class GdkitWarning(UserWarning):
    """A setting is allowed and probably unintended."""


_repr = reprlib.Repr()  # accepts its settings as arguments only from Python 3.12 on
_repr.maxstring = _repr.maxother = 120


def bad_value(argument: str, value: object, problem: str, remedy: str) -> InputValueError:
    """The error for a bad value: ``argument=value: problem. remedy.``"""
    return InputValueError(_message(argument, value, problem, remedy))


def bad_type(argument: str, value: object, problem: str, remedy: str) -> InputTypeError:
    """The error for a bad type: ``argument=value: problem. remedy.``"""
    return InputTypeError(_message(argument, value, problem, remedy))


def unknown_name(argument: str, name: object, known: Iterable[str]) -> InputValueError:
    """The error for a name that is not in `known`, with the nearest known name."""
    known = sorted(map(str, known))
    return bad_value(argument, name, "no such name", nearest(str(name), known) or f"Known: {', '.join(known)}")


def nearest(name: str, known: Iterable[str]) -> str:
    """``"Did you mean 'x'?"`` with the known name nearest to `name`; empty if none is near."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"Did you mean {close[0]!r}?" if close else ""


def missing_package(package: str, extra: str, purpose: str) -> MissingPackageError:
    """The error for a missing `package`, which `purpose` needs and which the extra installs."""
    return MissingPackageError(f"{purpose} needs {package}, which is not installed. Run: pip install 'gdkit[{extra}]'")


def import_package(module: str, extra: str, purpose: str, package: str = "") -> Any:
    """A `module`, which `purpose` needs and which the extra installs.

    Raises:
      MissingPackageError: `package`, by default of the same name, is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise missing_package(package or module, extra, purpose) from error


def warn(text: str) -> None:
    """Warn with the location of the nearest caller outside gdkit."""
    frame, level = sys._getframe(1), 2
    while frame and frame.f_globals.get("__name__", "").startswith("gdkit."):
        frame, level = frame.f_back, level + 1
    warnings.warn(text, GdkitWarning, stacklevel=level)


def name_type(value: object) -> str:
    """The dtype and shape of an array, traced or not; of other values the name of the type.

    >>> import numpy as np
    >>> name_type(np.zeros((2, 3), "float32")), name_type({})
    ('float32[2,3]', 'dict')
    """
    dtype, shape = getattr(value, "dtype", None), getattr(value, "shape", None)
    return type(value).__name__ if dtype is None or shape is None else f"{dtype}[{','.join(map(str, shape))}]"


def without_addresses(text: str) -> str:
    """`text` in which functions and objects are named without their addresses.

    >>> without_addresses("[<function <lambda> at 0x7f1>, <app.Model object at 0x7f2>]")
    '[<lambda>, app.Model]'
    """
    text = re.sub(r"<(?:(?:built-in )?function |bound method )?(\S+)(?: object)? at 0x[0-9a-fA-F]+>", r"\1", text)
    return re.sub(r"(?: object)? at 0x[0-9a-fA-F]+", "", text)


def _message(argument: str, value: object, problem: str, remedy: str) -> str:
    remedy = remedy if remedy.endswith((".", "?", "!")) else remedy + "."
    is_traced = type(value).__name__.endswith("Tracer")  # of JAX, which this module does not import
    shown = name_type(value) if is_traced else without_addresses(_repr.repr(value))
    return f"{argument}={shown}: {problem}. {remedy}"
