"""Typed errors whose message names the argument, the value and the remedy. Imports nothing heavy."""

import difflib
import reprlib
import sys
import warnings
from collections.abc import Iterable


class GdkitError(Exception):
    """Base class of every error that gdkit raises on purpose."""


class InputValueError(GdkitError, ValueError):
    """An argument has the right type and a value that cannot be used."""


class InputTypeError(GdkitError, TypeError):
    """An argument has a type that cannot be used."""


class MissingPackageError(GdkitError, ValueError):
    """A feature needs a package of an extra that is not installed."""


class RunError(GdkitError, ValueError):
    """A run that started could not be finished."""


class StoreError(RunError):
    """A run directory cannot be written or read."""


class DamagedFileError(StoreError):
    """A file of a run directory is not what was written there."""


class OtherRunError(InputValueError):
    """A run directory holds a run of something else; `lines` name each part that differs."""

    def __init__(self, path: object, lines: Iterable[str]):
        self.path, self.lines = path, tuple(lines)
        remedy = "Name another directory, or begin anew beside it with --new."
        super().__init__("\n  ".join([f"{path}: it holds another run:", *self.lines, remedy]))

    def __reduce__(self) -> tuple:  # so that it comes back whole from another process
        return type(self), (self.path, self.lines)


class GdkitWarning(UserWarning):
    """Something is allowed and probably not meant."""


_short = reprlib.Repr()  # its settings are arguments only from Python 3.12 on
_short.maxstring = _short.maxother = 120


def bad_value(argument: str, value: object, problem: str, remedy: str) -> InputValueError:
    """The error for a bad value: ``argument=value: problem. remedy.``"""
    return InputValueError(_message(argument, value, problem, remedy))


def bad_type(argument: str, value: object, problem: str, remedy: str) -> InputTypeError:
    """The error for a bad type: ``argument=value: problem. remedy.``"""
    return InputTypeError(_message(argument, value, problem, remedy))


def unknown_name(argument: str, name: object, known: Iterable[str]) -> InputValueError:
    """The error for a name that is not among `known`, with the nearest one."""
    known = sorted(map(str, known))
    return bad_value(argument, name, "no such name", nearest(str(name), known) or f"Known: {', '.join(known)}")


def nearest(name: str, known: Iterable[str]) -> str:
    """``"Did you mean 'x'?"`` for the name nearest to `name`, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"Did you mean {close[0]!r}?" if close else ""


def missing_package(package: str, extra: str, purpose: str) -> MissingPackageError:
    """The error for a package of an extra that `purpose` needs."""
    return MissingPackageError(f"{purpose} needs {package}, which is not installed. Run: pip install 'gdkit[{extra}]'")


def warn(text: str) -> None:
    """Warn at the line outside gdkit that led here."""
    frame, level = sys._getframe(1), 2
    while frame and frame.f_globals.get("__name__", "").startswith("gdkit."):
        frame, level = frame.f_back, level + 1
    warnings.warn(text, GdkitWarning, stacklevel=level)


def _message(argument: str, value: object, problem: str, remedy: str) -> str:
    remedy = remedy if remedy.endswith((".", "?", "!")) else remedy + "."
    return f"{argument}={_short.repr(value)}: {problem}. {remedy}"
