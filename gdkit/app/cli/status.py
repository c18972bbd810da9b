"""``gdkit status``: how much of a run is finished. Imports no JAX."""

import shlex
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gdkit.app.directory import REPORT, find_report_damage, is_library_run, resume_command
from gdkit.errors import bad_value
from gdkit.formatting import count
from gdkit.store import RESULTS, Status, Store, load, open_with_extensions, run_digest
from gdkit.store.manifest import NAME

_MAX_SHOWN = 8


def describe_status(folder: Path) -> str:
    """The finished, running and missing tiles of the run in `folder`, and the command that continues it.

    Raises:
      InputValueError: it is not the folder of a run.
      StoreError: the run cannot be read.
    """
    if folder.is_file():
        return _describe_file(folder)
    _check_run(folder)
    run = open_with_extensions(folder)
    finished = [_describe_finished(part.path, part.status()) for part in run[:-1]]
    return "\n".join([*finished, *_describe(folder, run[-1], run_digest(run))])


def status_record(folder: Path) -> dict[str, Any]:
    """The same counts for other programs.

    Raises:
      InputValueError, StoreError: as `describe_status`.
    """
    if folder.is_file():
        ends = load(folder)["end_kind"].values
        return {"folder": str(folder), "runs": int(ends.size), "finished": int((ends != 0).sum())}
    _check_run(folder)
    run = open_with_extensions(folder)
    states = [store.status() for store in run]
    report = folder / REPORT
    return {
        "folder": str(folder),
        "runs": sum(state.lanes for state in states),
        "finished": sum(state.lanes_done for state in states),
        "tiles": {
            "all": sum(state.tiles for state in states),
            "finished": sum(state.finished for state in states),
            "running": sum(len(state.claims) for state in states),
            "not_started": sum(state.missing for state in states),
        },
        "steps": run[-1].manifest.steps,
        "checkpoints": sorted(step for step in states[-1].carries.values() if step is not None),
        "report": str(report) if report.is_file() else None,
        "resume": _describe_resuming(folder),
    }


def _describe_file(path: Path) -> str:
    """How many of the runs in a file of results are finished."""
    ends = load(path)["end_kind"].values
    report = shlex.join(["gdkit", "report", str(path)])
    return f"{path}: {int((ends != 0).sum()):,} of {count(ends.size, 'run')} are finished\nto write a report: {report}"


def _describe_finished(folder: Path, status: Status) -> str:
    finished = f"{status.finished:,} of {count(status.tiles, 'tile')}"
    return f"{folder}: {status.lanes_done:,} of {count(status.lanes, 'run')} are finished ({finished})"


def _describe(folder: Path, store: Store, digest: str) -> Iterator[str]:
    """The lines about the run in `folder`; `store` is its run directory, or that of its last extension."""
    status, steps = store.status(), store.manifest.steps
    yield _describe_finished(store.path, status)
    if status.narrower:
        tiles = f"{count(len(status.narrower), 'tile')} ({_join_first(status.narrower)})"
        yield f"ran in smaller blocks, after a device ran out of memory: {tiles}"
    if status.finished < status.tiles:
        yield from _describe_processes(status)
        yield from _describe_checkpoints(status, steps)
        if status.missing:
            yield f"not started: {count(status.missing, 'tile')}"
        yield f"to resume, or to add a process: {_describe_resuming(folder)}"
        return
    damage, is_library = find_report_damage(folder, digest), is_library_run(folder)
    if damage or not (is_library or (folder / RESULTS).exists()):
        command = shlex.join(["gdkit", "report", str(folder)]) if is_library else resume_command(folder)
        yield f"the report {damage or 'is not written'}; to write it: {command}"
    else:
        yield f"report: {folder / REPORT}"


def _describe_resuming(folder: Path) -> str:
    """How to resume a run: a command, or for a sweep in Python the call that started it."""
    return f"the same call in Python, with store={str(folder)!r}" if is_library_run(folder) else resume_command(folder)


def _describe_processes(status: Status) -> Iterator[str]:
    """The processes that work on tiles, and when each last renewed its claims."""
    ages: dict[tuple[str, int], list[float]] = defaultdict(list)
    for claim in status.claims.values():
        ages[claim.host, claim.process].append(claim.age)
    for (host, process), seconds in sorted(ages.items()):
        place = f"process {process} on {host or 'an unknown machine'}"
        yield f"running: {count(len(seconds), 'tile')} in {place}, last renewed {min(seconds):.0f} s ago"


def _describe_checkpoints(status: Status, steps: int) -> Iterator[str]:
    """The steps of the blocks that a resumed run continues."""
    done = [step for step in status.carries.values() if step is not None]
    if done:
        yield f"checkpointed: {count(len(done), 'block')}, at steps {min(done):,} to {max(done):,} of {steps:,}"


def _check_run(folder: Path) -> None:
    if not (folder / NAME).exists():
        raise bad_value("DIR", str(folder), "not the folder of a run", _suggest_runs(folder))


def _suggest_runs(folder: Path) -> str:
    runs = sorted(path.parent for path in folder.glob(f"*/{NAME}"))
    if not runs:
        return "Give a folder that gdkit run has written to"
    return f"It contains the runs {_join_first(runs)}. Give one"


def _join_first(values: Sequence[object]) -> str:
    return ", ".join(map(str, values[:_MAX_SHOWN])) + (", ..." if len(values) > _MAX_SHOWN else "")
