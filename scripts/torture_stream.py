"""The part of ``make torture`` on streaming sweeps: killed while they read batches, evaluate, stop and keep states.

``scripts/torture.py`` runs it and writes the page.
"""

import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import processes
import streaming

SEED = 20_242


def content(folder: Path) -> dict[str, bytes]:
    """The bytes of the tiles and of the last and best states of a run, by their names."""
    files = [path for part in ("tiles", "lanes") for path in folder.glob(f"{part}/*/*.npz")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def streams(root: Path, quick: bool) -> dict[str, Any]:
    """Streaming sweeps that are killed at random instants and restarted until they finish."""
    count, instants, begin = 3 if quick else 30, random.Random(SEED), time.monotonic()
    straight, results, most = root / "straight", Counter(asked=count), 0
    process = _start(straight, root / "straight.trace")
    assert process.wait(300) == 0
    expected, segments = content(straight), len(processes.begun(root / "straight.trace"))
    while results["kills"] < count:
        folder, trace = root / f"run{results['runs']}", root / f"run{results['runs']}.trace"
        kills = 0
        while results["kills"] + kills < count and _kill(folder, trace, instants, segments):
            kills += 1
            assert content(folder).items() <= expected.items(), f"{folder}: a file differs"
        assert _start(folder, trace).wait(300) == 0
        lost = processes.count_lost(trace)
        most = max(most, *lost)
        results.update(runs=1, kills=kills, equal=kills * (content(folder) == expected), again=sum(lost))
        print(f"streams: {results['kills']} of {count}, {results['equal']} equal", flush=True)
        shutil.rmtree(folder)
    shape = {"segments": segments, "workers": streaming.WORKERS, "blocks": len(list(straight.glob("tiles/*/*.npz")))}
    return {**results, "most_again": most, **shape, "seed": SEED, "seconds": round(time.monotonic() - begin)}


def _start(folder: Path, trace: Path) -> subprocess.Popen:
    command = [sys.executable, streaming.__file__, str(folder), str(trace)]
    return subprocess.Popen(command, env=processes.environment(), cwd=folder.parent)


def _kill(folder: Path, trace: Path, instants: random.Random, segments: int) -> bool:
    """Start a run and kill it after a random number of segments and a moment more; False if it ended before."""
    first, after = len(processes.begun(trace)), instants.randrange(0, segments // 2)
    process = _start(folder, trace)
    while process.poll() is None and len(processes.begun(trace)) - first < after:
        time.sleep(0.001)
    time.sleep(instants.uniform(0, 0.05))
    process.send_signal(signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


def holds(_: str, result: dict[str, Any]) -> bool:
    """Whether the results are as promised."""
    return result["equal"] == result["kills"] == result["asked"] and result["most_again"] <= result["workers"]


def _section(r: dict[str, Any]) -> str:
    return f"""## Streaming sweeps, killed at random instants

A sweep over batches from the host evaluates validation data along the run, stops lanes by patience and keeps the
best states. Its {r["blocks"]} blocks advance in step on {r["workers"]} workers, {r["segments"]} segments in all.
It is killed with SIGKILL (seed {r["seed"]}) and restarted until it finishes. Tiles and states are compared with those
of an undisturbed run, byte for byte.

| quantity | measured |
|---|---|
| kills and runs | {r["kills"]} in {r["runs"]} |
| kills after which the run finished with the same bytes | {r["equal"]} of {r["kills"]} |
| segments repeated | {r["again"]}, {r["again"] / max(r["kills"], 1):.2f} per kill |
| most segments lost by one kill | {r["most_again"]}, with {r["workers"]} workers |
"""


PARTS: dict[str, Callable[[Path, bool], dict[str, Any]]] = {"streams": streams}
SECTIONS = {"streams": _section}
