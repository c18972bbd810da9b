"""The answer, the figures and the report of a sweep: of a finished one, and of one that is still running."""

import dataclasses
import functools
import math
import shlex
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from rich.console import Console

from gdkit.app import records, report, terminal
from gdkit.app.config.build import build_thresholds
from gdkit.app.config.schema import Config, StudyConfig, SweepConfig
from gdkit.app.config.source import ConfigError
from gdkit.app.directory import REPORT, find_report_damage, resume_command
from gdkit.app.report import figures
from gdkit.app.run.hooks import WriteReport
from gdkit.app.run.log import write_log
from gdkit.app.summary import Summary, describe_run, summarize
from gdkit.errors import bad_value
from gdkit.formatting import count
from gdkit.store import RESULTS
from gdkit.store.manifest import NAME
from gdkit.sweeps.result.assemble import has_results, read_result
from gdkit.sweeps.result.result import SweepResult

Draw = Callable[[SweepResult, Summary, Path], list[figures.SavedFigure]]
Show = Literal["all", "line", "json"]  # of the answer: tables and sentences, one line, or a record for programs


def write_report(
    config: SweepConfig,
    result: SweepResult,
    folder: Path,
    *,
    draw: Draw = figures.draw_figures,
    keep: bool = False,
    show: Show = "all",
) -> None:
    """Print the answer; write figures and report, with `keep` only if they are damaged or of another run."""
    summary = summarize(result)
    if show == "all":
        console = Console(highlight=False)
        console.print(f"{config.name}: {describe_run(result)}\n")
        terminal.print_summary(console, summary)
        sys.stdout.flush()  # for pipes: figures and report take seconds
    if not (keep and _are_written(result, summary, folder)):
        report.write_report(config, result, summary, draw(result, summary, folder / figures.FOLDER), folder)
    write_log(folder, f"finished\n{terminal.format_summary(summary)}")
    paths = {"report": folder / REPORT, "figures": folder / figures.FOLDER, "results": folder / RESULTS}
    _print_end(config.name, summary, paths, show)


def _print_end(name: str, summary: Summary, paths: Mapping[str, Path], show: Show) -> None:
    """Print the paths of the outputs, or the whole answer as one line or as a record."""
    if show == "all":
        print_paths(paths)
    else:
        record = records.answer_record(name, summary, paths)
        print(records.dump(record) if show == "json" else records.format_line(name, summary, paths["report"]))


def _are_written(result: SweepResult, summary: Summary, folder: Path) -> bool:
    """Whether the report and the figures of a finished run exist and are undamaged."""
    digest = figures.digest_figures(figures.list_figures(result, summary, folder / figures.FOLDER))
    run = result.lanes.attrs.get("run")
    return bool(run and digest) and find_report_damage(folder, str(run), str(digest)) is None


def rewrite_report(config: Config, folder: Path, write: WriteReport | None = None, *, show: Show = "all") -> None:
    """Write the figures and the report of a run again; of an unfinished run, a report on its finished lanes.

    Args:
      config: the config of the run.
      folder: its folder.
      write: replaces `write_report`.
      show: what to print.

    Raises:
      ConfigError: a study, or a run without finished lanes.
    """
    if isinstance(config, StudyConfig):
        raise config.error(("experiment",), "the report of a study is written when it runs: use gdkit run")
    result = dataclasses.replace(read_result(folder), thresholds=build_thresholds(config))
    if not result.missing:
        if not has_results(folder):
            result.save(folder / RESULTS)
            print(f"{folder / RESULTS}: rebuilt from the tiles", file=sys.stderr)
        (write or functools.partial(write_report, show=show))(config, result, folder)
        return
    if not _has_finished_lanes(result):
        raise ConfigError(f"{folder}: no run has finished yet. To resume: {resume_command(folder)}")
    summary = summarize(result)
    text = (
        f"As of {_format_time()}: {_describe_missing(result)} To resume, or to add a process: {resume_command(folder)}"
    )
    if show == "all":
        print(f"{text}\n")
        terminal.print_summary(Console(highlight=False), summary)
    page = report.write_report(config, result, summary, [], folder, report.Notice(text))
    _print_end(config.name, summary, {"report": page}, show)


def link_explanations(config: Config, folder: Path) -> None:
    """Write the report of a finished sweep again, with links to the explanations of its runs and the same figures."""
    if isinstance(config, SweepConfig):
        result = dataclasses.replace(read_result(folder), thresholds=build_thresholds(config))
        summary = summarize(result)
        drawn = figures.list_figures(result, summary, folder / figures.FOLDER)
        if figures.digest_figures(drawn) is None:
            drawn = figures.draw_figures(result, summary, folder / figures.FOLDER)
        report.write_report(config, result, summary, drawn, folder)


def write_library_report(path: Path, output: Path | None = None, *, show: Show = "all") -> None:
    """Print the answer, and write the report, of a run directory without a config or of a file of results.

    Args:
      path: the directory or the file.
      output: the file of the report; by default ``report.html`` in the directory, or beside the file under its name.
      show: what to print.

    Raises:
      GdkitError: there is no result, it is damaged, or no lane has finished.
    """
    result = read_result(path)
    if not _has_finished_lanes(result):
        raise bad_value("path", str(path), "no run has finished yet", "Resume it by the same call in Python")
    summary = summarize(result)
    text = f"As of {_format_time()}: {_describe_missing(result)}" if result.missing else ""
    if show == "all":
        Console(highlight=False).print(f"{text or f'{path}: {describe_run(result)}'}\n", soft_wrap=True)
        terminal.print_summary(Console(highlight=False), summary)
    target = output or (path if path.is_dir() else path.with_suffix(".html"))
    name = path.absolute().name if path.is_dir() else path.stem
    drawn = [] if result.missing else None  # figures only of a finished sweep
    page = report.write_result_report(result, target, title=name, figures=drawn, notice=report.Notice(text))
    _print_end(name, summary, {"report": page}, show)


def write_partial_report(config: SweepConfig, folder: Path, reload_seconds: float | None) -> None:
    """Write the report on the finished lanes of a run.

    Args:
      config: the config of the run.
      folder: its folder.
      reload_seconds: after which the page reloads itself; None if the run was interrupted.
    """
    result = _read_run(config, folder)
    if result is None or not _has_finished_lanes(result):
        notice = _make_notice(folder, "No run has finished yet.", reload_seconds)
        report.write_empty_report(config, folder, notice, result)
        return
    notice = _make_notice(folder, _describe_missing(result), reload_seconds)
    if not (folder / RESULTS).exists():  # else another process has written the final report
        report.write_report(config, result, summarize(result), [], folder, notice)


def render_partial_report(config: SweepConfig, folder: Path, reload_seconds: float) -> str:
    """The page on the finished lanes of a run, which reloads itself while others have not finished."""
    result = _read_run(config, folder)
    if result is None or not _has_finished_lanes(result):
        notice = _make_notice(folder, "No run has finished yet.", reload_seconds)
        return report.render_empty_report(config, folder, notice, result)
    is_partial = result.missing > 0
    notice = _make_notice(folder, _describe_missing(result), reload_seconds) if is_partial else report.Notice()
    return report.render_report(config, result, summarize(result), [], folder, notice)


def _read_run(config: SweepConfig, folder: Path) -> SweepResult | None:
    """The result of a run, finished or not; None before its programs are compiled."""
    if not (folder / NAME).exists():
        return None
    return dataclasses.replace(read_result(folder), thresholds=build_thresholds(config))


def print_paths(paths: Mapping[str, Path]) -> None:
    """Print the paths of the outputs as plain text, so that no path is wrapped at the width of the terminal."""
    print()
    for name, path in paths.items():
        print(f"{name:8} {path}")


def _has_finished_lanes(result: SweepResult) -> bool:
    return result.missing < result.lanes.sizes["lane"]


def _describe_missing(result: SweepResult) -> str:
    runs = count(result.lanes.sizes["lane"], "run")
    return f"{result.missing:,} of {runs} have not finished; this report covers the others."


def _make_notice(folder: Path, text: str, reload_seconds: float | None) -> "report.Notice":
    if reload_seconds is None:
        return report.Notice(f"Interrupted at {_format_time()}. {text} To resume: {resume_command(folder)}")
    status = shlex.join(["gdkit", "status", str(folder)])
    text = f"As of {_format_time()}: {text} This page reloads itself; {status} lists the processes that run it."
    return report.Notice(text, math.ceil(reload_seconds))


def _format_time() -> str:
    return time.strftime("%H:%M:%S")
