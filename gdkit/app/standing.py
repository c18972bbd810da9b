"""How far a run is, as text. Imports no JAX."""

import shlex
from pathlib import Path

from gdkit.app.folder import CONFIG
from gdkit.sweeps.store import RESULTS, Status, Store


def told(folder: Path) -> str:
    """What is finished, running and left of the run in `folder`.

    Raises:
      StoreError: there is none, or what is there cannot be read.
    """
    run = Store.open(folder)
    status = run.status()
    lines = [f"{folder}: {status.lanes_done:,} of {status.lanes:,} runs are finished, in {_tiles(status)}"]
    if status.finished < status.tiles:
        lines += [*_working(status), *_kept(status, run.manifest.steps)]
        lines.append(f"left: {status.missing:,} tiles that nobody has begun")
        command = shlex.join(["gdkit", "run", str(folder / CONFIG), "--output", str(folder)])
        lines.append(f"to go on, or to help: {command}")
    elif not (folder / RESULTS).exists():
        lines.append("all is run, and the report not written yet")
    return "\n".join(lines)


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


def _kept(status: Status, steps: int) -> list[str]:
    """How far the blocks are whose lanes are kept."""
    known = [step for step in status.carries.values() if step is not None]
    if not known:
        return []
    return [f"kept on their way: {len(known):,} blocks, at steps {min(known):,} to {max(known):,} of {steps:,}"]
