"""The command line. Imports nothing heavy: what needs JAX is imported by the command that needs it."""

import importlib.util
import os
import sys
import sysconfig
import traceback
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gdkit.errors import GdkitError, GdkitWarning, RunError, missing_package

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command. 0 done, 1 the run failed, 2 bad input, 130 interrupted; a traceback only with --debug."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words or os.environ.get("GDKIT_DEBUG", "0") not in ("", "0")
    try:
        with _plain_warnings(debug):
            return _dispatch([word for word in words if word != "--debug"])
    except KeyboardInterrupt as error:
        print(error if error.args else "interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # gdkit list optimizers | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except Exception as error:  # the one place where an exception becomes words
        if debug:
            traceback.print_exc()
        message, code = _explain(error)
        print(f"error: {message}", file=sys.stderr)
        return code


def _dispatch(words: list[str]) -> int:
    for package in ("cyclopts", "pydantic", "rich", "ruamel"):  # found here, not halfway; not imported, for speed
        if importlib.util.find_spec(package) is None:
            raise missing_package(package, "app", "The command line")
    import cyclopts

    from gdkit.app.command_line.commands import app, usage

    try:
        app()(words)
    except cyclopts.CycloptsError as error:
        told = usage(words[0]) if words else ""
        print(f"error: {error}\n{told or 'gdkit --help shows what there is.'}", file=sys.stderr)
        return BAD_INPUT
    return DONE


def _explain(error: Exception) -> tuple[str, int]:
    """What to say of an error, and the exit code."""
    if isinstance(error, GdkitError):
        return str(error), FAILED if isinstance(error, RunError) else BAD_INPUT
    said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}", FAILED
    if isinstance(error, SyntaxError) and error.filename is not None:
        return f"{_shown(Path(error.filename))}:{error.lineno}: SyntaxError: {error.msg}", FAILED
    place = _user_place(error)
    if place:
        return f"{place}: {said}", FAILED
    return f"{said}\n(not in a file of yours; --debug shows where)", FAILED


def _user_place(error: BaseException) -> str:
    """``file:line in function`` of the innermost frame that is neither gdkit's nor a package's, or nothing."""
    paths = sysconfig.get_paths()
    foreign = [Path(__file__).parents[1], *(Path(paths[k]) for k in ("stdlib", "platstdlib", "purelib", "platlib"))]
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        inside = any(path.is_relative_to(folder) for folder in foreign) or "site-packages" in path.parts
        if path.is_file() and not inside and path.parent != Path(sysconfig.get_path("scripts")):
            return f"{_shown(path)}:{frame.lineno} in {frame.name}"
    return ""


def _shown(path: Path) -> Path:
    """`path` as seen from the current folder, if it is inside."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


@contextmanager
def _plain_warnings(debug: bool) -> Generator[None]:
    """gdkit's warnings as one line each; those of other packages only when debugging."""
    with warnings.catch_warnings():
        if not debug:
            warnings.simplefilter("ignore")
        warnings.simplefilter("always", GdkitWarning)
        shown = warnings.showwarning

        def show(message: Any, category: Any, *where: Any) -> None:
            if issubclass(category, GdkitWarning):
                print(f"warning: {message}", file=sys.stderr)
            else:
                shown(message, category, *where)

        warnings.showwarning = show  # ty: ignore[invalid-assignment]  # catch_warnings puts it back
        yield
