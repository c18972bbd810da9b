"""What each command does. Imports nothing heavy: a command that needs JAX imports it itself."""

import dataclasses
import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import cyclopts

import gdkit
from gdkit import environment
from gdkit.app import examples, resources
from gdkit.app.interrupts import explain_interruption
from gdkit.app.run.hooks import Hooks
from gdkit.errors import DamagedFileError, InputValueError, OtherRunError, bad_value

if TYPE_CHECKING:
    from gdkit.app.config.schema import Config
    from gdkit.app.run.run import Options

_USAGE = {
    "run": "CONFIG [key.path=value ...] [--output DIR] [--live] [--new] [--workers N] [--devices N] [--dask ADDRESS]"
    " [--shard I/N] [--distributed] [--anyway] [--quiet | --json]",
    "check": "CONFIG [key.path=value ...] [--device NAME]",
    "status": "DIR|FILE [--json]",
    "report": "DIR|FILE [DIR ...] [-o FILE] [--quiet | --json]",
    "explain": "DIR [--lane N] [--points N] [--flow-steps N] [-o FILE]",
    "serve": "DIR [--port N] [--host ADDRESS]",
    "export": "DIR -o FILE [--best | --lane N] [--seed S]",
    "list": "optimizers|problems|monitors|data|experiments|examples",
    "new": "NAME | --example [NAME]",
    "schema": "",
    "completion": "bash|zsh|fish",
}

Json = Annotated[bool, cyclopts.Parameter(name="--json")]
Output = Annotated[Path | None, cyclopts.Parameter(alias="-o")]
Injected = Annotated[Hooks, cyclopts.Parameter(parse=False)]  # passed by `main`, not an option


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
    quiet: bool = False,
    as_json: Json = False,
    hooks: Injected,
) -> None:
    """Run a sweep or a study and write its report. An interrupted sweep is resumed.

    Args:
      config: the YAML file, or - for standard input; gdkit new NAME writes one to start from.
      overrides: key.path=value, for example sweep.steps=1000 or optimizer.0.momentum=0.9.
      output: the folder to write to; default: runs/NAME.
      workers: number of threads that advance blocks; default: one per core, or one per device.
      devices: number of devices to use; a CPU is split into as many. Default: all accelerators, or the CPU as one.
      dask: address or scheduler file of a Dask scheduler whose workers run the tiles; they need access to the folder.
      shard: I/N, for example 2/8: run the I-th of every N tiles; the last process to finish writes the report.
      distributed: join the processes of a launcher by jax.distributed; each runs one shard.
      live: also write the report while the sweep runs, on the finished runs; costs less than 2 % of the time.
      new: if the folder holds another run, write to NAME-2, NAME-3 and so on.
      anyway: start although memory or disk are too small.
      quiet: show no progress, and the answer in one line.
      as_json: show no progress, and the answer as JSON: recommended values, score, interval, edge, caveats, paths.
    """
    show = _choose_show(quiet=quiet, as_json=as_json)
    _check_counts({"--workers": workers, "--devices": devices})
    indices = _parse_shard(shard, distributed=distributed)
    from gdkit.app.config.loading import load

    loaded = load(config, overrides)
    folder = _choose_folder(loaded, output, new=new)
    _configure_jax(loaded.precision, devices)
    from gdkit.app.directory import describe_interruption

    with explain_interruption(lambda: describe_interruption(folder)):
        from gdkit.app.run.machines import connect_dask, join_processes
        from gdkit.app.run.run import Options
        from gdkit.sweeps.plan.shapes import Plan

        if distributed:
            join_processes()
        plan = dataclasses.replace(Plan(workers=workers, devices=devices), **hooks.plan)
        with connect_dask(dask) as client:
            _run(loaded, folder, Options(plan, indices, client, live, anyway, show, hooks), new=new)


def _run(config: "Config", folder: Path, options: "Options", *, new: bool) -> None:
    from gdkit.app.directory import find_free_folder
    from gdkit.app.run.run import run

    try:
        run(config, folder, options)
    except (OtherRunError, DamagedFileError):  # code or machine differ from those of the run, or no manifest
        if not new:
            raise
        run(config, find_free_folder(folder), options)


def status(folder: Path, /, *, as_json: Json = False) -> None:
    """Print how much of a run is finished, running and left.

    Args:
      folder: the folder of the run, for example runs/digits_mlp; or a file of results.
      as_json: print counts, steps and paths as JSON.
    """
    from gdkit.app.cli.status import describe_status, status_record

    print(json.dumps(status_record(folder), indent=1) if as_json else describe_status(folder))


def check(
    config: Path,
    /,
    *overrides: str,
    device: Literal["h200", "h100", "a100", "v5e", "v6e", "here"] | None = None,
    hooks: Injected,
) -> None:
    """Estimate time, memory and disk of a sweep without running it, and check its gradient.

    Args:
      config: the YAML file, or - for standard input.
      overrides: key.path=value.
      device: estimate the cost of a step on an accelerator, which need not be present, or on the device of this
        machine (here): memory, kernels, bytes and time.
    """
    from gdkit.app import directory
    from gdkit.app.config.loading import load

    loaded = load(config, overrides)
    folder = directory.choose_folder(loaded, None, new=True)
    _configure_jax(loaded.precision)
    from gdkit.app.run import caches, estimate

    if device is not None:
        from gdkit.app.run.device import check_device

        check_device(loaded, device, hooks.measure_free(folder).memory)
        return
    caches.use_program_cache()
    with caches.store_plans():
        estimate.check(loaded, folder, hooks.measure_free)


def report(
    folder: Path,
    /,
    *others: Path,
    output: Output = None,
    quiet: bool = False,
    as_json: Json = False,
    hooks: Injected,
) -> None:
    """Write the report of a run again, one page that compares several runs, or the list of all runs in a folder.

    Args:
      folder: the folder of the run, for example runs/digits_mlp; or the run directory or the file of results of a
        gdkit.sweep in Python; or a folder of runs, for example runs, whose list is written to index.html.
      others: folders of more runs, to compare.
      output: the file of the comparison (default: comparison.html), or of the report of a sweep in Python.
      quiet: print the answer in one line.
      as_json: print the answer as JSON.
    """
    from gdkit.app import directory

    show = _choose_show(quiet=quiet, as_json=as_json)
    if not others and directory.contains_runs(folder):
        _configure_jax("float32")
        from gdkit.app.report import write_index

        print(write_index(folder))
        return
    if not others and (folder.is_file() or directory.is_library_run(folder)):
        _configure_jax("float32")
        from gdkit.app.run.outputs import write_library_report

        write_library_report(folder, output, show=show)
        return
    config = directory.load_config(folder)
    if output is not None and not others:
        problem = "the report of a single run is written to its folder"
        raise bad_value("--output", str(output), problem, "Give several runs to compare")
    _configure_jax(config.precision)
    if others:
        from gdkit.app.report.comparison import write_comparison

        print(write_comparison([folder, *others], output or Path("comparison.html")))
        return
    from gdkit.app.run.outputs import rewrite_report

    rewrite_report(config, folder, hooks.write_report, show=show)


def explain(
    folder: Path, /, *, lane: int | None = None, points: int = 50, flow_steps: int = 100, output: Output = None
) -> None:
    """Explain why a run ended as it did, in words and on a page: its curvature against the edge of stability.

    The run and its neighbors just below and just above the edge of divergence are repeated. The report links to the
    page.

    Args:
      folder: the folder of the sweep, for example runs/digits_mlp.
      lane: the number of the run; default: the first seed of the recommended point.
      points: measurements of the curvature per run.
      flow_steps: steps of the central flow, where there is one; 0 for none.
      output: the file of the page; default: explain-N.html in the folder.
    """
    from gdkit.app import directory

    if not (folder / "config.yaml").is_file():
        problem = "it is not the folder of a sweep that a config ran"
        raise bad_value("DIR", str(folder), problem, "Name one, such as runs/NAME; in Python use result.explain(lane)")
    config = directory.load_config(folder)
    _configure_jax(config.precision)
    from gdkit.app.report.explanation import write_explanation
    from gdkit.app.run.outputs import link_explanations

    result = gdkit.open(folder)
    explanation = result.explain(lane, points=points, flow_steps=flow_steps)
    print(explanation)
    target = output or folder / f"explain-{explanation.runs[0].lane}.html"
    run = str(result.lanes.attrs.get("run"))
    print(f"\nwrote {write_explanation(explanation, target, folder.absolute().name, run)}")
    if output is None and directory.find_report_damage(folder, run) is None:
        link_explanations(config, folder)


def serve(folder: Path, /, *, port: int = 8000, host: str = "127.0.0.1") -> None:
    """Serve a list of all runs in a folder, with their reports, to a browser; unfinished runs are followed.

    Args:
      folder: the folder of runs, for example runs.
      port: the number of the port; 0 for any that is free.
      host: the address to listen on; only this machine can connect by default. There is no password.
    """
    if not folder.is_dir():
        raise bad_value("DIR", str(folder), "no such folder", "Give a folder that contains folders of runs")
    if not 0 <= port < 2**16:
        raise bad_value("--port", port, "no such port", "Give 0 to 65535")
    _configure_jax("float32")
    from gdkit.app.run.serve import make_server

    with explain_interruption(lambda: "stopped."), make_server(folder, host, port) as server:
        address = f"[{host}]" if ":" in host else host
        print(f"serving {folder} at http://{address}:{server.server_port}/ (Ctrl-C stops it)", flush=True)
        server.serve_forever()


def export(
    folder: Path, /, *, output: Output = None, best: bool = False, lane: int | None = None, seed: int | None = None
) -> None:
    """Write the trained params of a run, by default of the recommended one.

    Args:
      folder: the folder of the sweep, for example runs/digits_mlp.
      output: a .safetensors file, or a path without a suffix for the folder of an Orbax checkpoint.
      best: export the point with the best mean score instead of the recommended one.
      lane: export the run with this number.
      seed: the seed of the point; default: 0.
    """
    if output is None:
        raise InputValueError(f"gdkit export: --output is missing.\n{describe_usage('export')}")
    if lane is not None and (best or seed is not None):
        raise bad_value("--lane", lane, "a lane is one run", "Leave --best and --seed out")
    from gdkit.app import directory
    from gdkit.store import manifest

    if (folder / "config.yaml").is_file():
        _configure_jax(directory.load_config(folder).precision)
    elif not (folder / manifest.NAME).is_file():
        raise bad_value("DIR", str(folder), "it is not the folder of a sweep", "Name one, such as runs/NAME")
    result = gdkit.open(folder)
    if lane is None:
        lanes = result.best().lane_numbers if best else result.recommend().lanes
        if not lanes:
            raise bad_value("--best", best, "no value can be recommended", "Pass --best for the best mean score")
        if not 0 <= (seed or 0) < len(lanes):
            raise bad_value("--seed", seed, "no such seed", f"Pass 0 to {len(lanes) - 1}")
        lane = lanes[seed or 0]
    result.export(lane, output)
    print(f"wrote {output}: run {lane}")


def list_(kind: Literal["optimizers", "problems", "monitors", "data", "experiments", "examples"], /) -> None:
    """List the names that a config can use, or the examples.

    Args:
      kind: which names.
    """
    _configure_jax("float32")
    from gdkit.app.cli.listing import print_names

    print_names(kind)


def new(name: str | None = None, /, *, example: bool = False) -> None:
    """Write a commented config and a problem to start from, or copy an example.

    Args:
      name: NAME.yaml and NAME_problem.py are written to the current folder.
      example: copy the example NAME to the folders configs and experiments; without a NAME, list the examples.
    """
    if example and name is None:
        list_("examples")
    elif name is None:
        raise InputValueError(f"gdkit new: NAME is missing.\n{describe_usage('new')}")
    elif example:
        written = examples.copy_example(name, Path())
        print("\n".join(f"wrote {path}" for path in written) or "All files of this example exist already.")
        print(f"run it:  gdkit run configs/{name}.yaml")
    else:
        config, problem = examples.write_starter(name, Path())
        print(f"wrote {config} and {problem}\nrun it:  gdkit run {config}")


def schema() -> None:
    """Print the JSON Schema of configs, for editors."""
    from gdkit.app.config.schema import build_json_schema

    print(json.dumps(build_json_schema(), indent=2))


def completion(shell: Literal["bash", "zsh", "fish"], /) -> None:
    """Print the completion script of a shell.

    This session: eval "$(gdkit completion bash)". Permanently: for bash, write it to
    ~/.local/share/bash-completion/completions/gdkit; for zsh, to _gdkit in a folder of $fpath; for fish, to
    ~/.config/fish/completions/gdkit.fish.

    Args:
      shell: the shell.
    """
    print(build_app().generate_completion(shell=shell))


def describe_usage(command: str) -> str:
    """The usage of a command and how to see its help; empty if there is no such command."""
    if command not in _USAGE:
        return ""
    return f"Usage: {_format_usage(command)}\ngdkit {command} --help shows all options."


def _format_usage(command: str) -> str:
    return f"gdkit {command} {_USAGE[command]}".rstrip()


def build_app() -> cyclopts.App:
    """The command line."""
    app = cyclopts.App(
        name="gdkit",
        help=(
            "Every optimizer is a map. gdkit runs thousands of training runs in parallel and reports which learning "
            "rates converge, oscillate or diverge, and which to use."
        ),
        help_epilogue="--debug prints the traceback of an error. To begin: gdkit new NAME, or gdkit new --example",
        help_format="plaintext",
        version=gdkit.__version__,
        default_parameter=cyclopts.Parameter(negative=(), show_default=False),
        result_action="return_value",
        print_error=False,
        exit_on_error=False,
        suppress_keyboard_interrupt=False,
    )
    commands = (run, check, status, report, explain, serve, export, list_, new, schema, completion)
    for order, command in enumerate(commands):
        name = command.__name__.rstrip("_")
        app.command(command, name=name, usage=f"Usage: {_format_usage(name)}", sort_key=order)
    return app


def _choose_folder(config: "Config", output: Path | None, *, new: bool) -> Path:
    """The folder of the run; unknown names are reported first, since correcting them may change the folder's config."""
    from gdkit.app.config.schema import SweepConfig
    from gdkit.app.directory import TakenError, choose_folder

    try:
        return choose_folder(config, output, new=new)
    except TakenError:
        if isinstance(config, SweepConfig):
            _configure_jax(config.precision)
            from gdkit.app.config.build import build_arguments

            build_arguments(config)
        raise


def _configure_jax(precision: str, devices: int | None = None) -> None:
    """Set the precision and the flags of this process: only in the environment where JAX is not imported yet."""
    resources.check_limits()
    environment.faster_cpu()
    if devices is not None:
        environment.split_cpu(devices)
    wide = precision == "float64"
    os.environ["JAX_ENABLE_X64"] = str(int(wide))
    if "jax" in sys.modules:
        import jax

        jax.config.update("jax_enable_x64", wide)


def _choose_show(*, quiet: bool, as_json: bool) -> Literal["all", "line", "json"]:
    if quiet and as_json:
        raise bad_value("--quiet", quiet, "--json prints a record instead", "Omit one of the two")
    return "line" if quiet else "json" if as_json else "all"


def _check_counts(options: Mapping[str, int | None]) -> None:
    for option, number in options.items():
        if number is not None and number < 1:
            raise bad_value(option, number, "nothing would run", "Give 1 or more, or omit it")


def _parse_shard(text: str | None, *, distributed: bool) -> tuple[int, int]:
    """I/N, with I from 1, as (index from 0, number of shards)."""
    if distributed and text:
        raise bad_value("--shard", text, "--distributed assigns the shards itself", "Omit one of the two")
    if text is None:
        return 0, 1
    match = re.fullmatch(r"([1-9]\d{0,8})/([1-9]\d{0,8})", text)
    if not match or int(match[1]) > int(match[2]):
        raise bad_value("--shard", text, "not I/N with 1 ≤ I ≤ N", "Give for example 2/8")
    return int(match[1]) - 1, int(match[2])
