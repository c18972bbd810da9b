"""``gdkit run``: from a validated config to a finished run directory."""

import dataclasses
import functools
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
from rich.console import Console

from gdkit.app import resources, terminal, watcher
from gdkit.app.config.build import build_arguments, build_thresholds, locate_errors
from gdkit.app.config.loading import dump
from gdkit.app.config.schema import Config, SweepConfig
from gdkit.app.directory import REPORT, resume_command
from gdkit.app.interrupts import stop_on_signal
from gdkit.app.run.caches import store_plans, use_program_cache
from gdkit.app.run.hooks import Hooks
from gdkit.app.run.log import log_run, raise_store_errors, write_log
from gdkit.app.run.outputs import Show, write_partial_report, write_report
from gdkit.app.run.study import run_study
from gdkit.app.summary import describe_run
from gdkit.formatting import count
from gdkit.store import RESULTS, Store
from gdkit.store.manifest import NAME
from gdkit.sweeps.execution.progress import Progress
from gdkit.sweeps.execution.settings import DEFAULT_SETTINGS
from gdkit.sweeps.plan.shapes import Plan
from gdkit.sweeps.request import SweepRequest, check_request
from gdkit.sweeps.result.assemble import has_results, name_run
from gdkit.sweeps.result.result import SweepResult
from gdkit.sweeps.resume.bracket import check_bracketable, extend_until_bracketed
from gdkit.sweeps.resume.refine import RunRequest
from gdkit.sweeps.rundir.manifest import RunDirectory
from gdkit.sweeps.sweep import run_request

if TYPE_CHECKING:
    from distributed import Client


class Options(NamedTuple):
    """The options of ``gdkit run``."""

    plan: Plan = Plan()
    shard: tuple[int, int] = (0, 1)  # (i, n): run the i-th of every n tiles, i from 0
    executor: "Client | None" = None  # runs the tiles instead of threads
    live: bool = False  # also write the report while the sweep runs
    anyway: bool = False  # start although memory or disk are too small
    show: Show = "all"  # the form of the answer; progress is shown only with "all"
    hooks: Hooks = Hooks()


def run(config: Config, folder: Path, options: Options) -> None:
    """Run `config`, or resume its run in `folder`; print the answer and write all outputs to `folder`.

    Raises:
      GdkitError: the config names something that cannot be used, or the run failed.
      KeyboardInterrupt: the run was interrupted; the message says how to resume it.
    """
    if isinstance(config, SweepConfig):
        _run_sweep(config, folder, options)
        return
    if options.executor is not None or options.shard != (0, 1) or jax.process_count() > 1:
        raise config.error(("experiment",), "a study runs in one process. Omit --dask, --shard and --distributed")
    if options.live:
        raise config.error(("experiment",), "the report of a study is written at its end. Omit --live")
    run_study(config, folder, show=options.show)


def _run_sweep(config: SweepConfig, folder: Path, options: Options) -> None:
    arguments = build_arguments(config)
    thresholds = build_thresholds(config)
    use_program_cache()
    with locate_errors(config, ("sweep",)):
        request = check_request(**arguments, plan=options.plan)
        if config.sweep.until_bracketed:
            check_bracketable(request)
    console = _make_console(options.show)
    needed = resources.estimate_minimum(request.lane_count, request.recorded_points)
    if not options.anyway:
        remedy = "; or start the run regardless with --anyway"
        resources.check_minimum(request.lane_count, needed, options.hooks.measure_free(folder), remedy)
    with log_run(config, folder):
        terminal.print_plan(console, config.name, request, needed)
        _print_resumed(folder, console, until_bracketed=config.sweep.until_bracketed)
        result = _run_or_resume(config, folder, request, options)
        if result.missing:
            return
        result = name_run(dataclasses.replace(result, thresholds=thresholds), folder)
        problem = "results, figures and report cannot be written"
        with raise_store_errors(folder, problem):
            if not has_results(folder):
                result.save(folder / RESULTS)
            write_log(folder, describe_run(result))
            write = options.hooks.write_report or functools.partial(write_report, keep=True, show=options.show)
            write(config, result, folder)


def _run_or_resume(config: SweepConfig, folder: Path, request: SweepRequest, options: Options) -> SweepResult:
    """The result of all lanes; lanes are missing where other shards have not finished them.

    Raises:
      KeyboardInterrupt: the run was interrupted before its end.
    """
    resolved = dump(config.model_copy(update={"output": None}))
    directory = RunDirectory(folder, resolved, options.shard).shard_of_process()
    with (
        _show_progress(config, folder, _make_console(options.show), live=options.live) as report_progress,
        locate_errors(config, ("sweep",)),
        store_plans(),
        stop_on_signal() as stop,
    ):
        settings = options.hooks.settings or DEFAULT_SETTINGS
        run = functools.partial(
            run_request, report_progress=report_progress, executor=options.executor, stop=stop, settings=settings
        )
        result, lanes = run(request, directory=directory)
        if config.sweep.until_bracketed:
            result, _ = extend_until_bracketed(result, lanes, functools.partial(_run_extension, run), directory)
    if result.missing:
        _report_missing(config, folder, result, live=options.live, interrupted=stop.is_set())
    return result


def _run_extension(run: RunRequest, request: SweepRequest, *, directory: RunDirectory) -> Any:
    """Run more values of an axis, and print how many."""
    extending = f"extending it by {count(request.lane_count, 'run')}, in {directory.path.name}"
    print(f"the best value is at the end of its axis: {extending}", file=sys.stderr)
    return run(request, directory=directory)


@contextmanager
def _show_progress(
    config: SweepConfig, folder: Path, console: Console, *, live: bool
) -> Generator[Callable[[Progress], None]]:
    """A progress callback that updates the terminal and, with `live`, the report."""
    write = functools.partial(write_partial_report, config, folder) if live else None
    if write:
        write(watcher.REPORT_INTERVAL)
        console.print(f"live report: {folder / REPORT}", soft_wrap=True, markup=False)
    with (
        terminal.show_progress(console) as (report_progress, show),
        watcher.watch_tiles(folder, report_progress, show, write) as callback,
    ):
        yield callback


def _make_console(show: Show) -> Console:
    """The console for progress and messages; silent if only the answer is shown."""
    return Console(stderr=True, highlight=False, quiet=show != "all")


def _print_resumed(folder: Path, console: Console, *, until_bracketed: bool) -> None:
    """Print how much of the run is finished already, if it was started before."""
    if not (folder / NAME).exists():
        return
    status = Store.open(folder).status()
    text = f"resuming: {status.lanes_done:,} of {count(status.lanes, 'run')} are finished"
    if status.finished == status.tiles and not until_bracketed:
        text = "already finished; only missing or damaged outputs are written"
    console.print(f"{folder}: {text}", soft_wrap=True, markup=False)


def _report_missing(config: SweepConfig, folder: Path, result: SweepResult, *, live: bool, interrupted: bool) -> None:
    """Print, log and, with `live`, report how many runs are finished when this process ends before all are.

    Raises:
      KeyboardInterrupt: the run was interrupted.
    """
    runs = result.lanes.sizes["lane"]
    text = f"{folder}: {runs - result.missing:,} of {count(runs, 'run')} are finished"
    write_log(folder, text)
    if live:
        write_partial_report(config, folder, None if interrupted else watcher.REPORT_INTERVAL)
    if interrupted:
        command = resume_command(folder)
        raise KeyboardInterrupt(f"interrupted. {text}; the others are checkpointed. To resume:\n  {command}")
    print(f"{text}; other shards have not finished. The last one to finish writes the report.")
