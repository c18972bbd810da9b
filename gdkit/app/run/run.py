"""From a checked config to a finished run directory."""

import dataclasses
import functools
import importlib.metadata
import json
import math
import os
import platform
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import jax
import platformdirs
from rich.console import Console

import gdkit
from gdkit.app import report, resources, terminal, watcher
from gdkit.app.config import build
from gdkit.app.config.schema import Config, ConfigError, StudyConfig, SweepConfig, dump
from gdkit.app.directory import CONFIG, REPORT, to_go_on
from gdkit.app.report import figures
from gdkit.app.resources import Resources
from gdkit.app.summary import describe_run, summarize
from gdkit.errors import RunError
from gdkit.store import RESULTS, Store
from gdkit.store.files import FILES, failed, publish
from gdkit.store.manifest import NAME
from gdkit.sweeps.execution.progress import Progress
from gdkit.sweeps.plan.shapes import Plan, count_visible_cores
from gdkit.sweeps.programs import timing
from gdkit.sweeps.request import check_request
from gdkit.sweeps.result.result import SweepResult
from gdkit.sweeps.result.result import open as open_result
from gdkit.sweeps.rundir.manifest import RunDirectory
from gdkit.sweeps.sweep import run_request as sweep
from gdkit.tables import count, format_duration

CLAIMS, SAID = "claims.json", "found.txt"  # of a study: what it claims, and what it prints
_CACHE_BYTES = 2**30
_PACKAGES = ("jax", "jaxlib", "optax", "numpy")
_PLANS = 1000  # the latest choices of the planner that are kept, a hundred bytes each


def run(
    config: Config,
    folder: Path,
    *,
    workers: int | None = None,
    devices: int | None = None,
    shard: tuple[int, int] = (0, 1),
    executor: Any = None,
    live: bool = False,
    anyway: bool = False,
) -> None:
    """Runs what `config` describes, prints the answer, and writes everything to `folder`; goes on with what is there.

    Args:
      config: what to run.
      folder: where to.
      workers, devices, shard: as for `gdkit run`.
      executor: what runs the tiles instead of threads, such as a client of Dask.
      live: write the report while it goes on, too.
      anyway: begin although there is too little memory or disk.

    Raises:
      GdkitError: something that the config names cannot be used; a run that could not be finished.
      KeyboardInterrupt: it was asked to stop; says how to go on.
    """
    if isinstance(config, SweepConfig):
        _run_job(config, folder, Plan(workers=workers, devices=devices), shard, executor, live=live, anyway=anyway)
        return
    if executor is not None or shard != (0, 1) or jax.process_count() > 1:
        raise config.error(("experiment",), "a study runs in one process. Leave out --dask, --shard and --distributed")
    if live:
        raise config.error(("experiment",), "a study's report is written when it is over. Leave out --live")
    _run_study(config, folder)


def write_again(config: Config, folder: Path) -> None:
    """Writes the figures and the report of a run again; of one that is not finished, the report of what has ended.

    Raises:
      ConfigError: a study, or a run of which nothing has ended.
    """
    if isinstance(config, StudyConfig):
        raise config.error(("experiment",), "a study's report is written by running it: gdkit run")
    result = dataclasses.replace(open_result(folder), thresholds=build.thresholds_of(config))
    if not result.missing:
        _write(config, result, folder)
        return
    if result.missing == result.lanes.sizes["lane"]:
        raise ConfigError(f"{folder}: no run has finished yet. To resume: {to_go_on(folder)}")
    summary = summarize(result)
    text = f"As of {time.strftime('%H:%M:%S')}: {_unfinished(result)} To go on, or to help: {to_go_on(folder)}"
    print(f"{text}\n")
    terminal.print_summary(Console(highlight=False), summary)
    _where({"report": report.write_report(config, result, summary, [], folder, report.Notice(text))})


@contextmanager
def plans_kept() -> Generator[None]:
    """Keeps what the planner chose between processes, in the user's cache folder; a damaged file is made anew."""
    file = Path(platformdirs.user_cache_dir("gdkit"), "plans.json")
    with suppress(OSError, ValueError):
        timing.import_choices(json.loads(file.read_text(encoding="utf-8")))
    before = timing.export_choices()
    yield
    chosen = timing.export_choices()
    if chosen != before:
        with suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            part = file.with_suffix(f".{os.getpid()}")
            part.write_text(json.dumps(dict(list(chosen.items())[-_PLANS:])), encoding="utf-8")
            part.replace(file)


def use_cache() -> None:
    """Keeps compiled programs between runs, in the user's cache folder unless JAX was told another."""
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    cache = Path(platformdirs.user_cache_dir("gdkit"), "programs")
    _prune(cache)
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _run_job(
    job: SweepConfig, folder: Path, plan: Plan, shard: tuple[int, int], executor: Any, *, live: bool, anyway: bool
) -> None:
    arguments = build.arguments(job)
    thresholds = build.thresholds_of(job)
    use_cache()
    with build.located(job, ("sweep",)):
        request = check_request(**arguments, plan=plan)
    needed = _room(request, folder, anyway=anyway)
    with _kept(job, folder):
        terminal.print_plan(Console(stderr=True, highlight=False), job.name, request, needed)
        _say_what_is_there(folder)
        where = RunDirectory(folder, dump(job.model_copy(update={"output": None})), shard).of_this_process()
        with _shown(job, folder, live=live) as tell, build.located(job, ("sweep",)), plans_kept(), stopping() as stop:
            result, _ = sweep(request, tell, executor, where=where, stop=stop)
        if result.missing:
            _say_what_is_left(job, folder, result, live=live, interrupted=stop.is_set())
            return
        result = dataclasses.replace(result, thresholds=thresholds)
        with _writing(folder, "results, figures and report cannot be written"), _to_be_written(folder):
            result.save(folder / RESULTS)
            _note(folder, describe_run(result))
            _write(job, result, folder)


def _room(request: Any, folder: Path, *, anyway: bool) -> Resources:
    """What a run needs at the least.

    Raises:
      InputValueError: there is less, and it was not to begin anyway.
    """
    needed = resources.least(request.lane_count, request.recorded_points)
    short = resources.shortage(needed, resources.there(folder))
    if short and not anyway:
        raise resources.refused(request.lane_count, short, "; or begin all the same, with --anyway")
    return needed


@contextmanager
def _shown(job: SweepConfig, folder: Path, *, live: bool) -> Generator[Callable[[Progress], None]]:
    """A callback for the engine that shows progress on the terminal and, where it is wanted, in the report."""
    write = functools.partial(_write_meanwhile, job, folder) if live else None
    if write:
        write(watcher.REPORT_INTERVAL)
        print(f"live report: {folder / REPORT}", file=sys.stderr)
    with (
        terminal.show_progress(Console(stderr=True, highlight=False)) as (tell, show),
        watcher.watch_tiles(folder, tell, show, write) as noted,
    ):
        yield noted


def _write_meanwhile(job: SweepConfig, folder: Path, again: float | None) -> None:
    """Writes the report of what has ended so far; of a run that goes on, to be loaded again after so many seconds."""
    there = (folder / NAME).exists()
    found = open_result(folder) if there else None
    if found is None or found.missing == found.lanes.sizes["lane"]:
        text = "Nothing has ended yet."
        report.write_empty_report(job, folder, _standing(folder, text, again))
        return
    found = dataclasses.replace(found, thresholds=build.thresholds_of(job))
    text = _unfinished(found)
    if not watcher.has_results(folder):  # where another process has written the whole, it stays
        report.write_report(job, found, summarize(found), [], folder, _standing(folder, text, again))


def _unfinished(result: SweepResult) -> str:
    lanes = count(result.lanes.sizes["lane"], "run")
    return f"{result.missing:,} of {lanes} have not ended yet; this is of the others."


def _standing(folder: Path, text: str, again: float | None) -> report.Notice:
    at = time.strftime("%H:%M:%S")
    if again is None:
        return report.Notice(f"Stopped at {at}. {text} To go on: {to_go_on(folder)}")
    status = shlex.join(["gdkit", "status", str(folder)])
    said = f"As of {at}: {text} This page loads itself again; {status} tells who runs it."
    return report.Notice(said, math.ceil(again))


@contextmanager
def stopping() -> Generator[threading.Event]:
    """An event that is set by the first Ctrl-C or SIGTERM; the second ends the process at once."""
    stop = threading.Event()

    def asked(*_: Any) -> None:
        if stop.is_set():
            os.write(2, b"\x1b[?25h" if os.isatty(2) else b"")  # a bar hides the cursor
            os._exit(128 + signal.SIGINT)
        stop.set()
        os.write(2, b"\nstopping as soon as all that runs is kept; once more to leave at once\n")

    if threading.current_thread() is not threading.main_thread():  # which alone may listen
        yield stop
        return
    before = {number: signal.signal(number, asked) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say_what_is_there(folder: Path) -> None:
    """Whether the run goes on, or is finished."""
    if not (folder / NAME).exists():
        return
    status = Store.open(folder).status()
    if status.finished == status.tiles:
        text = "finished before: nothing is run again, the report is written again"
    else:
        text = f"goes on: {status.lanes_done:,} of {count(status.lanes, 'run')} are finished"
    print(f"{folder}: {text}", file=sys.stderr)


def _say_what_is_left(job: SweepConfig, folder: Path, result: SweepResult, *, live: bool, interrupted: bool) -> None:
    """What a process that leaves before the end tells.

    Raises:
      KeyboardInterrupt: it was asked to.
    """
    lanes = result.lanes.sizes["lane"]
    text = f"{folder}: {lanes - result.missing:,} of {count(lanes, 'run')} are finished"
    _note(folder, text)
    if live:
        _write_meanwhile(job, folder, None if interrupted else watcher.REPORT_INTERVAL)
    if interrupted:
        command = to_go_on(folder)
        raise KeyboardInterrupt(f"interrupted. {text}, and the others kept as they stand. To go on:\n  {command}")
    print(f"{text}; the other shards are left. The last one writes the report.")


def _write(job: SweepConfig, result: SweepResult, folder: Path) -> None:
    """The answer on the terminal, the figures, the report."""
    console = Console(highlight=False)
    summary = summarize(result)
    console.print(f"{job.name}: {describe_run(result)}\n")
    terminal.print_summary(console, summary)
    drawn = figures.draw_figures(result, summary, folder / figures.FOLDER)
    page = report.write_report(job, result, summary, drawn, folder)
    _note(folder, f"finished\n{terminal.format_summary(summary)}")
    _where({"report": page, "figures": folder / figures.FOLDER, "results": folder / RESULTS})


def _where(places: dict[str, Path]) -> None:
    """Where everything is; plain, so that a path is never broken by the width of a terminal."""
    print()
    for name, path in places.items():
        print(f"{name:8} {path}")


@contextmanager
def _kept(config: Config, folder: Path) -> Generator[None]:
    """Makes the folder of a run, with the resolved config in it, and logs how the run begins and ends."""
    with _writing(folder, "the run cannot begin"):
        folder.mkdir(parents=True, exist_ok=True)
        publish(FILES, folder / CONFIG, [dump(config).encode()])  # whole, since another process may read it now
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES)
    _note(folder, f"started {config.name}: Python {platform.python_version()}, {versions}, {os.cpu_count()} cores")
    try:
        yield
    except BaseException as error:
        _note(folder, f"not finished: {type(error).__name__}: {error}")
        raise


@contextmanager
def _writing(folder: Path, problem: str) -> Generator[None]:
    """Says in a `StoreError` what the system refused to write."""
    try:
        yield
    except BrokenPipeError:  # of the terminal's, not of the folder's
        raise
    except OSError as error:
        raise failed(problem, folder, error) from error


@contextmanager
def _to_be_written(folder: Path) -> Generator[None]:
    """Says to who interrupts it how to write what is not written yet."""
    try:
        yield
    except KeyboardInterrupt:
        said = "interrupted. All runs are finished and kept; their report is not written yet. To write it:"
        raise KeyboardInterrupt(f"{said}\n  {to_go_on(folder)}") from None


def _note(folder: Path, text: str) -> None:
    """Adds a line to the log; one that cannot be written, on a full disk perhaps, hides no other error."""
    with suppress(OSError), (folder / "log.txt").open("a", encoding="utf-8") as file:
        file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {text}\n")


def _prune(cache: Path) -> None:
    """Removes the programs that were used longest ago, so that the cache stays bounded."""
    files = [(f.stat().st_atime, f.stat().st_size, f) for f in cache.glob("*") if f.is_file()]
    kept = 0
    for _, size, file in sorted(files, reverse=True):
        kept += size
        if kept > _CACHE_BYTES:
            file.unlink(missing_ok=True)


def _run_study(study: StudyConfig, folder: Path) -> None:
    """Calls the study's ``run(settings)``, and ``plot(result)`` and ``claims(result)`` where its module has them."""
    function = build.resolve(study, ("experiment",), study.experiment)
    if not callable(function):
        raise study.error(("experiment",), "not a function. Name one that takes the settings")
    module = sys.modules[study.experiment.partition(":")[0]]
    use_cache()
    with _kept(study, folder):
        begin = time.monotonic()
        with build.located(study, ("settings",)):
            result = function(study.settings)
        made_with = _made_with(time.monotonic() - begin)
        claims = list(module.claims(result)) if hasattr(module, "claims") else []
        listed = json.dumps(list(map(_listed, claims)), indent=1, ensure_ascii=False)
        (folder / CLAIMS).write_text(f"{listed}\n", encoding="utf-8")
        _tell(study, module, result, claims, folder, made_with)
        broken = [claim.text for claim in claims if not claim.holds]
        if broken:
            raise RunError(f"{study.name}: what does not hold: {'; '.join(broken)}")
        _note(folder, f"finished: {count(len(claims), 'claim')}, and all hold")


def _listed(claim: Any) -> dict[str, Any]:
    """A claim for other programs; what JSON has no number for as text."""
    numbers = {name: float(getattr(claim, name)) for name in ("expected", "tolerance", "measured")}
    shown = {name: value if math.isfinite(value) else str(value) for name, value in numbers.items()}
    return {"text": claim.text, "source": claim.source, **shown, "holds": bool(claim.holds)}


def _made_with(seconds: float) -> dict[str, str]:
    """What the numbers of a study were made with."""
    versions = [f"gdkit {gdkit.__version__}", *(f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES)]
    device = f"{jax.devices()[0].device_kind}, {count_visible_cores()} cores visible"
    return {"versions": ", ".join(versions), "device": device, "took": format_duration(seconds)}


def _tell(
    study: StudyConfig, module: Any, result: Any, claims: list[Any], folder: Path, made_with: Mapping[str, str]
) -> None:
    """What a study found: on the terminal, as figures, as a report."""
    console = Console(highlight=False)
    said = str(result) if type(result).__str__ is not object.__str__ else ""
    if said:
        console.print(said, markup=False)
        (folder / SAID).write_text(f"{said}\n", encoding="utf-8")
    terminal.print_claims(console, claims)
    drawn = _drawn(module, result, folder / figures.FOLDER)
    page = report.write_study_report(study, said, claims, drawn, folder, made_with)
    _where({"report": page, "figures": folder / figures.FOLDER})


def _drawn(module: Any, result: Any, folder: Path) -> list[figures.SavedFigure]:
    """The figures and animations of a study: `plot` returns one, or a mapping of names to them."""
    if not hasattr(module, "plot"):
        return []
    folder.mkdir(exist_ok=True)
    made = module.plot(result)
    named = made if isinstance(made, Mapping) else {module.__name__.rpartition(".")[2]: made}
    return [figures.save_figure(figure, folder / figures.slugify(name), name, "") for name, figure in named.items()]
