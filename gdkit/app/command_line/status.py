"""How far a run is, as text. Imports no JAX."""

from collections.abc import Sequence
from pathlib import Path

from gdkit.app.directory import REPORT, UNFINISHED, to_go_on
from gdkit.errors import StoreError
from gdkit.store import RESULTS, Status, Store
from gdkit.store.manifest import NAME


def told(folder: Path) -> str:
    """What is finished, running and left of the run in `folder`.

    Raises:
      StoreError: there is none, or what is there cannot be read.
    """
    if folder.is_dir() and not (folder / NAME).exists():
        raise StoreError(f"{folder}: there is no run here. {_runs_in(folder)}")
    if folder.is_file():
        raise StoreError(f"{folder}: this is a file. Name the folder of a run, for example runs/digits_mlp.")
    run = Store.open(folder)
    status = run.status()
    lines = [f"{folder}: {status.lanes_done:,} of {status.lanes:,} runs are finished, in {_tiles(status)}"]
    if status.narrower:
        lines.append(_narrower(status.narrower))
    if status.finished < status.tiles:
        lines += [*_working(status), *_kept(status, run.manifest.steps)]
        lines.append(f"left: {status.missing:,} tiles that nobody has begun")
        lines.append(f"to go on, or to help: {to_go_on(folder)}")
    elif not (folder / RESULTS).exists() or not _is_whole(folder / REPORT):
        lines.append(f"all is run, and the report not written yet: {to_go_on(folder)} writes it")
    else:
        lines.append(f"its report: {folder / REPORT}")
    return "\n".join(lines)


def _is_whole(page: Path) -> bool:
    """Whether a report is there, and not one that was written while the run went on."""
    return page.exists() and UNFINISHED not in page.read_text(encoding="utf-8")


def _runs_in(folder: Path) -> str:
    """Which runs a folder of runs holds."""
    runs = sorted(path.parent for path in folder.glob(f"*/{NAME}"))
    shown = ", ".join(map(str, runs[:8])) + (", ..." if len(runs) > 8 else "")
    return f"In it are {shown}. Name one." if runs else "Name a folder that gdkit run has written to."


def _tiles(status: Status) -> str:
    return f"{status.finished:,} of {status.tiles:,} tiles"


def _working(status: Status) -> list[str]:
    """Who works on how many tiles, and when they last said so."""
    by: dict[tuple[str, int], list[float]] = {}
    for claim in status.claims.values():
        by.setdefault((claim.host, claim.process), []).append(claim.age)
    return [
        f"running: {len(ages):,} tiles by process {process} on {host or 'an unknown machine'}, "
        f"last heard of {min(ages):.0f} s ago"
        for (host, process), ages in sorted(by.items())
    ]


def _narrower(tiles: Sequence[int]) -> str:
    """Which tiles ran in smaller blocks."""
    shown = ", ".join(map(str, tiles[:8])) + (", …" if len(tiles) > 8 else "")
    return f"in smaller blocks than planned, after a device ran out of memory: {len(tiles):,} tiles ({shown})"


def _kept(status: Status, steps: int) -> list[str]:
    """How far the blocks are whose lanes are kept."""
    known = [step for step in status.carries.values() if step is not None]
    if not known:
        return []
    return [f"kept on their way: {len(known):,} blocks, at steps {min(known):,} to {max(known):,} of {steps:,}"]
