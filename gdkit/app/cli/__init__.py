"""The entry point: dispatch, exit codes, and errors as messages. Imports nothing heavy."""

import atexit
import gc
import importlib.util
import os
import sys
import sysconfig
import traceback
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gdkit
from gdkit.app import interrupts
from gdkit.app.cli.streams import tolerant_output
from gdkit.errors import GdkitError, GdkitWarning, RunError, missing_package

if TYPE_CHECKING:
    from gdkit.app.run.hooks import Hooks

DONE, FAILED, BAD_INPUT = 0, 1, 2


def main(argv: Sequence[str] | None = None, hooks: "Hooks | None" = None) -> int:
    """Run one command.

    Args:
      argv: the words of the command line; default: those of this process.
      hooks: replacements, for tests.

    Returns:
      The exit code: 0 done, 1 failed, 2 bad input, 130 interrupted. Tracebacks are printed only with --debug.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words or os.environ.get("GDKIT_DEBUG", "0") not in ("", "0")
    if argv is None:
        interrupts.exit_on_signals()
        _collect_rarely()
    with tolerant_output():
        code = _exit_code([_as_argument(word) for word in words if word != "--debug"], hooks, debug=debug)
        if argv is None:
            interrupts.ignore_signals()
    return code


def _collect_rarely() -> None:
    """Let Python search for cyclic garbage rarely, and not at the end of this process, which is to end soon after.

    Imports and traces leave many objects and little garbage: the searches took 1 s of the main job, and those at its
    end 0.6 s.
    """
    gc.set_threshold(100_000, 20, 100)
    atexit.register(gc.freeze)


def _exit_code(words: list[str], hooks: "Hooks | None", *, debug: bool) -> int:
    """Run one command; print what ends it."""
    try:
        with _plain_warnings(debug):
            return _dispatch(words, hooks)
    except KeyboardInterrupt as error:
        print(interrupts.describe_error(error), file=sys.stderr)
        return interrupts.INTERRUPTED
    except (Exception, SystemExit) as error:  # the only place where exceptions become messages
        if debug:
            traceback.print_exc()
        message, code = _explain(error)
        print(f"error: {message}", file=sys.stderr)
        return code


def _as_argument(word: str) -> str:
    """``-``, which stands for standard input, as a path that the parser does not take for an option."""
    return "./-" if word == "-" else word


def _dispatch(words: list[str], hooks: "Hooks | None") -> int:
    for package in ("cyclopts", "pydantic", "rich", "ruamel"):  # checked before anything runs; not imported, for speed
        if importlib.util.find_spec(package) is None:
            raise missing_package(package, "app", "The command line")
    import cyclopts

    from gdkit.app.cli.commands import build_app, describe_usage
    from gdkit.app.run.hooks import Hooks

    try:
        command, bound, injected = build_app().parse_args(words)
    except cyclopts.CycloptsError as error:
        usage = describe_usage(words[0]) if words else ""
        print(f"error: {error}\n{usage or 'gdkit --help lists the commands.'}", file=sys.stderr)
        return BAD_INPUT
    command(*bound.args, **bound.kwargs, **dict.fromkeys(injected, hooks or Hooks()))
    return DONE


def _explain(error: Exception | SystemExit) -> tuple[str, int]:
    """The message of an error, and the exit code."""
    if isinstance(error, GdkitError):
        return str(error), FAILED if isinstance(error, RunError) else BAD_INPUT
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if isinstance(error, SystemExit):
        text = f"{text}. The code of the problem ended the process; raise another exception instead"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}", FAILED
    if isinstance(error, SyntaxError) and error.filename is not None:
        return f"{_shorten_path(Path(error.filename))}:{error.lineno}: SyntaxError: {error.msg}", FAILED
    location = _find_user_location(error)
    if location:
        return f"{location}: {text}", FAILED
    return f"{text}\n(raised outside your files; --debug prints the traceback)", FAILED


def _find_user_location(error: BaseException) -> str:
    """``file:line in function`` of the innermost frame that is neither gdkit's nor a package's; empty without one."""
    paths = sysconfig.get_paths()
    package = Path(gdkit.__file__).parent
    foreign = [package, *(Path(paths[name]) for name in ("stdlib", "platstdlib", "purelib", "platlib"))]
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        is_foreign = any(path.is_relative_to(folder) for folder in foreign) or "site-packages" in path.parts
        if path.is_file() and not is_foreign and path.parent != Path(sysconfig.get_path("scripts")):
            return f"{_shorten_path(path)}:{frame.lineno} in {frame.name}"
    return ""


def _shorten_path(path: Path) -> Path:
    """`path` relative to the current folder, if it is inside."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


@contextmanager
def _plain_warnings(debug: bool) -> Generator[None]:
    """Print gdkit's warnings on one line each, and those of other packages only when debugging."""
    with warnings.catch_warnings():
        if not debug:
            warnings.simplefilter("ignore")
        warnings.simplefilter("always", GdkitWarning)
        show_other = warnings.showwarning

        def show(message: Any, category: Any, *where: Any) -> None:
            if issubclass(category, GdkitWarning):
                print(f"warning: {message}", file=sys.stderr)
            else:
                show_other(message, category, *where)

        warnings.showwarning = show  # ty: ignore[invalid-assignment]  # catch_warnings puts it back
        yield
