"""What each command does. Imports nothing heavy: what needs JAX is imported by the command that needs it."""

import functools
import json
import os
import re
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import cyclopts

import gdkit
from gdkit import environment
from gdkit.errors import DamagedFileError, OtherRunError, bad_value

_USAGE = {
    "run": "CONFIG [key.path=value ...] [--output DIR] [--live] [--new] [--workers N] [--devices N] [--dask ADDRESS]"
    " [--shard I/N] [--distributed] [--anyway]",
    "check": "CONFIG [key.path=value ...]",
    "status": "DIR",
    "report": "DIR [DIR ...] [-o FILE]",
    "list": "optimizers|problems|monitors|data|experiments",
    "new": "NAME",
    "schema": "",
    "completion": "bash|zsh|fish",
}

Output = Annotated[Path | None, cyclopts.Parameter(alias="-o")]


def run(
    config: Path,
    /,
    *overrides: str,
    output: Output = None,
    workers: int | None = None,
    devices: int | None = None,
    dask: str | None = None,
    shard: str | None = None,
    distributed: bool = False,
    live: bool = False,
    new: bool = False,
    anyway: bool = False,
) -> None:
    """Run a sweep or a study: table, figures, report. A sweep that was stopped goes on where it was.

    Args:
      config: the YAML file; gdkit new NAME writes one to start from.
      overrides: key.path=value, for example sweep.steps=1000 or optimizer.0.momentum=0.9.
      output: the folder to write to; default: runs/NAME.
      workers: how many threads advance blocks; default: one a core, or one a device.
      devices: how many devices to use; a CPU is split into as many. Default: all accelerators, or the CPU as one.
      dask: the address of a Dask scheduler, or its file: its workers run the tiles; they must find the folder.
      shard: I/N, for example 2/8: run the I-th of every N tiles; the processes share the folder, and the last one to
        end writes the report.
      distributed: one of the processes that a launcher started, which meet by jax.distributed: each runs a shard.
      live: write the report while the run goes on, too, with what has ended so far; it takes less than 2 % of the time.
      new: where the folder holds another run, write to NAME-2, NAME-3 and so on.
      anyway: begin although there is too little memory or disk.
    """
    from gdkit.app import directory
    from gdkit.app.config import schema as configs

    for option, number in (("--workers", workers), ("--devices", devices)):
        if number is not None and number < 1:
            raise bad_value(option, number, "nothing would run", "Give 1 or more, or leave it out")
    if distributed and shard:
        raise bad_value("--shard", shard, "--distributed deals the shards itself", "Leave one of the two out")
    part = _shard(shard)
    job = configs.load(config, overrides)
    try:
        where = directory.choose(job, output, new=new)
    except directory.TakenError:
        _check_names(job)
        raise
    _start_jax(job.precision, devices)
    from gdkit.app.run import machines
    from gdkit.app.run import run as runner

    if distributed:
        machines.join()
    with machines.dask_at(dask) as client:
        options = {"workers": workers, "devices": devices, "shard": part, "live": live, "anyway": anyway}
        begin = functools.partial(runner.run, job, executor=client, **options)
        try:
            begin(folder=where)
        except (OtherRunError, DamagedFileError):  # other code or another machine, or no manifest
            if not new:
                raise
            begin(folder=directory.beside(where))


def status(directory: Path, /) -> None:
    """Tell how far a run is: what is finished, running and left.

    Args:
      folder: the run's folder, for example runs/digits_mlp.
    """
    from gdkit.app.command_line import status

    print(status.told(directory))


def check(config: Path, /, *overrides: str) -> None:
    """Tell what a run would take, without running it, and whether the gradient of its loss is right.

    Args:
      config: the YAML file.
      overrides: key.path=value.
    """
    from gdkit.app import directory
    from gdkit.app.config import schema as configs

    job = configs.load(config, overrides)
    where = directory.choose(job, None, new=True)
    _start_jax(job.precision)
    from gdkit.app.run import estimate
    from gdkit.app.run import run as runner

    runner.use_cache()
    with runner.plans_kept():
        estimate.check(job, where)


def report(directory: Path, /, *others: Path, output: Output = None) -> None:
    """Write the report of a finished run again, or one page that compares several runs.

    Args:
      folder: the run's folder, for example runs/digits_mlp.
      others: folders of more runs, to compare.
      output: where the comparison is written; default: comparison.html.
    """
    from gdkit.app import directory as folders

    job = folders.config(directory)
    if output is not None and not others:
        raise bad_value(
            "--output", str(output), "one run's report is in its own folder", "Name several runs to compare"
        )
    _start_jax(job.precision)
    if others:
        from gdkit.app.report.comparison import write_comparison

        print(write_comparison([directory, *others], output or Path("comparison.html")))
        return
    from gdkit.app.run import run as runner

    runner.write_again(job, directory)


def list_(kind: Literal["optimizers", "problems", "monitors", "data", "experiments"], /) -> None:
    """Name what a config can name.

    Args:
      kind: of what.
    """
    _start_jax("float32")
    from gdkit.app.command_line import listing

    listing.show(kind)


def new(name: str, /) -> None:
    """Write a commented config and loss file to start from.

    Args:
      name: NAME.yaml and NAME_problem.py are written to the current folder.
    """
    from gdkit.app.command_line import starter

    config, loss = starter.write(name, Path())
    print(f"wrote {config} and {loss}\nrun it:  gdkit run {config}")


def schema() -> None:
    """Print the JSON Schema of configs, for editors."""
    from gdkit.app.config.schema import json_schema

    print(json.dumps(json_schema(), indent=2))


def completion(shell: Literal["bash", "zsh", "fish"], /) -> None:
    """Print what makes a shell complete commands, options and files of gdkit.

    For good: bash: gdkit completion bash > ~/.local/share/bash-completion/completions/gdkit; zsh: to _gdkit in a folder
    of $fpath; fish: to ~/.config/fish/completions/gdkit.fish. For this shell: eval "$(gdkit completion bash)".

    Args:
      shell: which one.
    """
    print(app().generate_completion(shell=shell))


def usage(command: str) -> str:
    """How a command is written, and where all of it is said; nothing if there is none of this name."""
    if command not in _USAGE:
        return ""
    return f"Usage: {_usage(command)}\ngdkit {command} --help says more."


def _usage(command: str) -> str:
    return f"gdkit {command} {_USAGE[command]}".rstrip()


def app() -> cyclopts.App:
    """The command line."""
    made = cyclopts.App(
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
    for order, command in enumerate((run, check, status, report, list_, new, schema, completion)):
        name = command.__name__.rstrip("_")
        made.command(command, name=name, usage=f"Usage: {_usage(name)}", sort_key=order)
    return made


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


def _check_names(job: Any) -> None:
    """Raises if a sweep's config names what there is not: its writer should fix that before choosing a folder."""
    from gdkit.app.config.schema import SweepConfig

    if isinstance(job, SweepConfig):
        _start_jax(job.precision)
        from gdkit.app.config import build

        build.arguments(job)


def _shard(text: str | None) -> tuple[int, int]:
    """I/N, I counted from 1, as the place counted from 0 and how many."""
    if text is None:
        return 0, 1
    found = re.fullmatch(r"([1-9]\d{0,8})/([1-9]\d{0,8})", text)
    if not found or int(found[1]) > int(found[2]):
        raise bad_value("--shard", text, "not I/N with 1 ≤ I ≤ N", "Give for example 2/8")
    return int(found[1]) - 1, int(found[2])
