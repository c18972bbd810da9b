"""The page that lists all runs of a folder with their answers."""

import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from gdkit.app import directory
from gdkit.app.answers import format_headline
from gdkit.app.config.build import build_thresholds
from gdkit.app.config.schema import SweepConfig
from gdkit.app.directory import REPORT
from gdkit.app.records import CLAIMS, RunRecord, find_runs
from gdkit.app.report.page import escape, fill_page
from gdkit.app.summary import summarize
from gdkit.errors import GdkitError, bad_value
from gdkit.formatting import count
from gdkit.store import Store
from gdkit.store.files import publish_output
from gdkit.store.manifest import NAME as MANIFEST
from gdkit.sweeps.result.assemble import read_result

INDEX = "index.html"


def write_index(folder: Path) -> Path:
    """Write ``index.html`` with all runs in `folder`; return its path.

    Raises:
      InputValueError: there are no runs in it.
    """
    runs = [read_record(run) for run in find_runs(folder)]
    if not runs:
        remedy = "Give the folder of a run, or one that contains folders of runs"
        raise bad_value("DIR", str(folder), "it contains no run", remedy)
    publish_output(folder / INDEX, [render_index(folder, runs).encode()])
    return folder / INDEX


def read_record(folder: Path) -> RunRecord:
    """The record of the run in `folder`; if it cannot be read, the error is its answer."""
    newest = max((folder / name for name in (MANIFEST, CLAIMS, REPORT, "results.nc", "tiles")), key=_get_change_time)
    try:
        kind, status, answer, is_finished = _read_answer(folder)
    except (GdkitError, ValueError, LookupError) as error:  # the last two: a damaged file of claims
        kind, status, answer, is_finished = "run", "cannot be read", str(error).partition("\n")[0], True
    return RunRecord(folder, kind, status, answer, is_finished, _get_change_time(newest))


def render_index(
    folder: Path, runs: Sequence[RunRecord], *, live: bool = False, reload_seconds: int | None = None
) -> str:
    """The page; with `live`, unfinished runs without a report have links too, since a server renders their pages."""
    head = "".join(f'<th scope="col"{_TEXT}>{name}</th>' for name in ("run", *_COLUMNS))
    body = "".join(_render_run(folder, run, live) for run in sorted(runs, key=lambda run: -run.changed))
    table = f'<table class="cards index"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    table = f'<div class="wide" tabindex="0" role="region" aria-label="Runs">{table}</div>'
    finished = sum(run.is_finished for run in runs)
    subtitle = f"{count(len(runs), 'run folder')}, {finished:,} finished"
    body = [f"<section>{table}</section>"]
    return fill_page("Runs", folder.absolute().name, subtitle, body, reload_seconds=reload_seconds)


_TEXT = ' class="text"'
_COLUMNS = ("status", "answer", "changed")


def _render_run(folder: Path, run: RunRecord, live: bool) -> str:
    name = run.folder.relative_to(folder).as_posix()
    has_page = (run.folder / REPORT).is_file() or (live and run.kind == "sweep")
    title = f'<a href="{escape(quote(f"{name}/{REPORT}"))}">{escape(name)}</a>' if has_page else escape(name)
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(run.changed))
    cells = zip(_COLUMNS, (run.status, run.answer, when), strict=True)
    rest = "".join(f'<td class="text long" data-name="{name}">{escape(text)}</td>' for name, text in cells)
    return f'<tr><th scope="row"{_TEXT}>{title}</th>{rest}</tr>'


def _read_answer(folder: Path) -> tuple[str, str, str, bool]:
    """Kind, status and answer of a run, and whether it has finished."""
    if (folder / CLAIMS).is_file():
        claims = json.loads((folder / CLAIMS).read_text(encoding="utf-8"))
        held = sum(bool(claim["holds"]) for claim in claims)
        return "study", "finished", f"{held} of {count(len(claims), 'claim')} hold.", True
    config = None if directory.is_library_run(folder) else directory.load_config(folder)
    if config is not None and not isinstance(config, SweepConfig):
        return "study", "finished", "–", True
    if (folder / MANIFEST).is_file():
        status = Store.open(folder).status()
        if not status.lanes_done:
            return "sweep", f"0 of {count(status.lanes, 'run')} finished", "–", False
    result = read_result(folder)
    if config is not None:
        result = dataclasses.replace(result, thresholds=build_thresholds(config))
    runs = result.finished.size
    if result.missing == runs:
        return "sweep", f"0 of {count(runs, 'run')} finished", "–", False
    finished = count(runs, "run") if not result.missing else f"{runs - result.missing:,} of {count(runs, 'run')}"
    return "sweep", f"{finished} finished", format_headline(summarize(result)), not result.missing


def _get_change_time(path: Path) -> float:
    """When `path` last changed; 0 if it does not exist."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
