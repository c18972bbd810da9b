"""Errors of JAX in functions of the user, as typed errors that name the file, the line and the remedy."""

import contextlib
import sysconfig
import traceback
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import jax

from gdkit.errors import bad_type


class Mistake(NamedTuple):
    """What a function does that JAX cannot trace, and what to do instead."""

    problem: str
    remedy: str


# A subclass stands before its base class. A text restricts an entry to messages that hold it.
_MISTAKES: tuple[tuple[type[Exception], str, Mistake], ...] = (
    (
        jax.errors.TracerBoolConversionError, "",
        Mistake("it branches in Python on a traced value", "Use jnp.where or jax.lax.cond"),
    ),
    (
        jax.errors.ConcretizationTypeError, "",
        Mistake(
            "it converts a traced value to a Python number or a shape",
            "Keep it an array, with functions of jax.numpy; shapes do not depend on values",
        ),
    ),
    (
        jax.errors.TracerArrayConversionError, "",
        Mistake("it passes a traced value to NumPy or to other code outside JAX", "Use jax.numpy instead of numpy"),
    ),
    (
        jax.errors.TracerIntegerConversionError, "",
        Mistake(
            "it uses a traced value as a Python integer, such as an index or a range",
            "Index a JAX array, or loop with jax.lax.fori_loop",
        ),
    ),
    (
        jax.errors.NonConcreteBooleanIndexError, "",
        Mistake("it selects entries by a traced mask", "Use jnp.where(mask, x, 0), which keeps the shape"),
    ),
    (
        jax.errors.UnexpectedTracerError, "",
        Mistake(
            "it uses a traced value that an earlier call has stored outside",
            "Return the value instead; a loss with has_aux returns (value, aux)",
        ),
    ),
    (
        ValueError, "allbacks do not support JVP",
        Mistake(
            "it calls a function outside JAX, which has no derivative",
            "Write it in jax.numpy, or give it a derivative with jax.custom_jvp",
        ),
    ),
    (
        NotImplementedError, "vmap_method",
        Mistake(
            "it calls a function outside JAX that runs side by side cannot share",
            "Pass vmap_method='sequential' to jax.pure_callback, or write the function in jax.numpy",
        ),
    ),
)  # fmt: skip
_GDKIT = str(Path(__file__).parents[1])
_LIBRARIES = tuple({*map(sysconfig.get_path, ("stdlib", "purelib", "platlib")), _GDKIT, "<frozen"})


@contextlib.contextmanager
def translate_errors(argument: str, function: object) -> Generator[None]:
    """Raise errors of JAX about the code of `function` as the typed error of `argument`.

    Raises:
      InputTypeError: the code does what JAX cannot trace; the message names the user's file and line, and the remedy.
    """
    try:
        yield
    except Exception as error:
        explanation = explain(error)
        if explanation is None:
            raise
        problem = explanation.problem + locate(_lines(error.__traceback__))
        raise bad_type(argument, function, problem, explanation.remedy) from error


def explain(error: Exception) -> Mistake | None:
    """The explanation of an error that JAX raises about a function of the user; None for other errors."""
    matches = (e for kind, text, e in _MISTAKES if isinstance(error, kind) and text in str(error))
    return next(matches, None)


def locate(lines: Iterable[tuple[str, int]]) -> str:
    """`` (FILE, line N)`` of the last line of the user among (file, line); empty if there is none.

    >>> locate([("model.py", 3), ("model.py", 7)])
    ' (model.py, line 7)'
    """
    own = [(file, line) for file, line in lines if not file.startswith(_LIBRARIES)]
    return f" ({own[-1][0]}, line {own[-1][1]})" if own else ""


def functions(error: Exception, package: str) -> list[str]:
    """The names of the functions of `package` in the traceback of an error, from the outermost."""
    frames = traceback.walk_tb(error.__traceback__)
    return [f.f_code.co_name for f, _ in frames if f.f_globals.get("__name__", "").startswith(package)]


def _lines(trace: TracebackType | None) -> Iterator[tuple[str, int]]:
    return ((frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(trace))
