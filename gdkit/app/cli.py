"""The command line. Imports nothing heavy: what needs JAX is imported by the command that needs it."""

import importlib.util
import json
import os
import re
import sys
import sysconfig
import traceback
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import gdkit
from gdkit import environment
from gdkit.errors import GdkitError, GdkitWarning, OtherRunError, RunError, bad_value, missing_package

_USAGE = {
    "run": "CONFIG [key.path=value ...] [--output DIR] [--workers N] [--devices N] [--shard I/N] [--new]",
    "check": "CONFIG [key.path=value ...]",
    "status": "DIR",
    "report": "DIR [DIR ...] [-o FILE]",
    "list": "optimizers|problems|data|experiments",
    "new": "NAME",
}
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


def run(
    config: str,
    /,
    *overrides: str,
    output: str | None = None,
    workers: int | None = None,
    devices: int | None = None,
    shard: str | None = None,
    new: bool = False,
) -> None:
    """Run a sweep or a study: table, figures, report. A sweep that was stopped goes on where it was.

    Args:
      config: the YAML file; gdkit new NAME writes one to start from.
      overrides: key.path=value, for example sweep.steps=1000 or optimizer.0.momentum=0.9.
      output: the folder to write to; default: runs/NAME.
      workers: how many threads advance blocks; default: one a core, or one a device.
      devices: how many devices to use; a CPU is split into as many. Default: all accelerators, or the CPU as one.
      shard: I/N, for example 2/8: run the I-th of every N tiles; the processes share the folder, and the last one to
        end writes the report.
      new: where the folder holds another run, write to NAME-2, NAME-3 and so on.
    """
    from gdkit.app import config as configs
    from gdkit.app import folder

    for option, number in (("--workers", workers), ("--devices", devices)):
        if number is not None and number < 1:
            raise bad_value(option, number, "nothing would run", "Give 1 or more, or leave it out")
    part = _shard(shard)
    job = configs.load(config, overrides)
    where = folder.choose(job, output, new=new)
    _start_jax(job.precision, devices)
    from gdkit.app import run as runner

    try:
        runner.run(job, where, workers=workers, devices=devices, shard=part)
    except OtherRunError:  # the same config, and other code or another machine
        if not new:
            raise
        runner.run(job, folder.beside(where), workers=workers, devices=devices, shard=part)


def status(folder: str, /) -> None:
    """Tell how far a run is: what is finished, running and left.

    Args:
      folder: the run's folder, for example runs/digits_mlp.
    """
    from gdkit.app import standing

    print(standing.told(Path(folder)))


def check(config: str, /, *overrides: str) -> None:
    """Tell what a run would take, without running it, and whether the gradient of its loss is right.

    Args:
      config: the YAML file.
      overrides: key.path=value.
    """
    from gdkit.app import config as configs

    job = configs.load(config, overrides)
    _start_jax(job.precision)
    from gdkit.app import estimate
    from gdkit.app import run as runner

    runner.use_cache()
    with runner.plans_kept():
        estimate.check(job)


def report(folder: str, /, *others: str, output: str | None = None) -> None:
    """Write the report of a finished run again, or one page that compares several runs.

    Args:
      folder: the run's folder, for example runs/digits_mlp.
      others: folders of more runs, to compare.
      output: where the comparison is written; default: comparison.html. Also -o.
    """
    from gdkit.app import folder as folders

    job = folders.config(Path(folder))
    if output is not None and not others:
        raise bad_value("--output", output, "one run's report is in its own folder", "Name several runs to compare")
    _start_jax(job.precision)
    if others:
        from gdkit.app.report.compare import compare

        print(compare([Path(name) for name in (folder, *others)], Path(output or "comparison.html")))
        return
    from gdkit.app import run as runner

    runner.write_again(job, Path(folder))


def list_(kind: Literal["optimizers", "problems", "data", "experiments"], /) -> None:
    """Name what a config can name.

    Args:
      kind: of what.
    """
    _start_jax("float32")
    from gdkit.app import listing

    listing.show(kind)


def new(name: str, /) -> None:
    """Write a commented config and loss file to start from.

    Args:
      name: NAME.yaml and NAME_problem.py are written to the current folder.
    """
    from gdkit.app import starter

    config, loss = starter.write(name, Path())
    print(f"wrote {config} and {loss}\nrun it:  gdkit run {config}")


def schema() -> None:
    """Print the JSON Schema of configs, for editors."""
    from gdkit.app.config import json_schema

    print(json.dumps(json_schema(), indent=2))


def _shard(text: str | None) -> tuple[int, int]:
    """I/N, I counted from 1, as the place counted from 0 and how many."""
    if text is None:
        return 0, 1
    found = re.fullmatch(r"([1-9]\d{0,8})/([1-9]\d{0,8})", text)
    if not found or int(found[1]) > int(found[2]):
        raise bad_value("--shard", text, "not I/N with 1 ≤ I ≤ N", "Give for example 2/8")
    return int(found[1]) - 1, int(found[2])


def _dispatch(words: list[str]) -> int:
    for package in ("cyclopts", "pydantic", "rich", "ruamel"):  # found here, not halfway; not imported, for speed
        if importlib.util.find_spec(package) is None:
            raise missing_package(package, "app", "The command line")
    import cyclopts

    try:
        _app()(["--output" if word == "-o" else word for word in words])
    except cyclopts.CycloptsError as error:
        print(f"error: {error}\ngdkit --help shows what there is.", file=sys.stderr)
        return BAD_INPUT
    return DONE


def _app() -> Any:
    import cyclopts

    app = cyclopts.App(
        name="gdkit",
        help=(
            "Every optimizer is a map. gdkit runs thousands of runs side by side and tells which learning rates "
            "converge, oscillate or diverge, and which to use."
        ),
        help_epilogue="--debug shows where an error came from. Begin with: gdkit new NAME",
        help_format="plaintext",
        version=gdkit.__version__,
        default_parameter=cyclopts.Parameter(negative=(), show_default=False),
        result_action="return_value",
        print_error=False,
        exit_on_error=False,
        suppress_keyboard_interrupt=False,
    )
    for order, command in enumerate((run, check, status, report, list_, new, schema)):
        name = command.__name__.rstrip("_")
        usage = f"gdkit {name} {_USAGE.get(name, '')}".rstrip()
        app.command(command, name=name, usage=f"Usage: {usage}", sort_key=order)
    return app


def _start_jax(precision: str, devices: int | None = None) -> None:
    """Chooses the precision and the flags of this process; the environment alone, as long as JAX is not imported."""
    environment.faster_cpu()
    if devices is not None:
        environment.split_cpu(devices)
    wide = precision == "float64"
    os.environ["JAX_ENABLE_X64"] = str(int(wide))
    if "jax" in sys.modules:
        import jax

        jax.config.update("jax_enable_x64", wide)


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
