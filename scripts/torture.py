"""Kill runs, start them together, crash them at every operation and damage what they wrote, at full counts; write
docs/reliability.md from what was found: ``make torture``.

With names as arguments (kills, races, crashes, damage) only those are done; the page is written from all that were
done so far. ``--quick`` takes small counts and writes no page. What does not hold ends this program with exit code 1.
"""

import contextlib
import importlib.metadata
import io
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".jax_cache"))  # or every start would compile
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

import processes  # noqa: E402

PAGE = ROOT / "docs" / "reliability.md"
FOUND = ROOT / "docs" / "reliability.json"  # what the page is written from
SEED = 20_240
TILES, SEGMENTS, WORKERS = 48, 16, 2
CONFIG = processes.CONFIG.replace("count: 24", f"count: {TILES}").replace("steps: 160", f"steps: {20 * SEGMENTS}")


def straight(root: Path) -> Path:
    """A run that nothing disturbs."""
    (root / "small.yaml").write_text(CONFIG)
    process = processes.Process(root / "straight.trace", "run", "small.yaml", "--output", root / "straight")
    assert process.ended()[0] == 0, process.ended()[1]
    times = Counter((block, step) for _, block, step in processes.begun(process.trace))
    assert len(times) == times.total() and max(Counter(block for block, _ in times).values()) == SEGMENTS
    return root / "straight"


# SIGKILL


def kills(root: Path, quick: bool) -> dict[str, Any]:
    """Runs that are killed at random instants and started again until they are finished."""
    wanted, instants = 6 if quick else 100, random.Random(SEED)
    whole, before = straight(root), time.monotonic()
    found = Counter(asked=wanted)
    most = 0
    while found["kills"] < wanted:
        folder, trace = root / f"life{found['runs']}", root / f"life{found['runs']}.trace"
        own = found["kills"]
        while _killed(folder, trace, instants, found, last=found["kills"] == wanted):
            assert processes.tiles(folder).items() <= processes.tiles(whole).items(), f"{folder}: a tile is wrong"
            found["left"] += len(list(folder.rglob("*.tmp")))
        equal = processes.bits(folder)[1].all() and processes.bits(folder)[0] == processes.bits(whole)[0]
        again = _begun_again(trace)
        most = max(most, *again)
        found.update(runs=1, equal=(found["kills"] - own) * bool(equal), again=sum(again))
        found["segments"] += len({(block, step) for _, block, step in processes.begun(trace)})
        found["not_tidied"] += len(list(folder.rglob("*.tmp")))
        print(f"kills: {found['kills']} of {wanted}, {found['equal']} equal", flush=True)
        shutil.rmtree(folder)
    shape = {"tiles": TILES, "segments_a_tile": SEGMENTS, "workers": WORKERS}
    return {**found, "most_again": most, **shape, "seed": SEED, "seconds": round(time.monotonic() - before)}


def _killed(folder: Path, trace: Path, instants: random.Random, found: Counter, *, last: bool) -> bool:
    """Start a run and kill it at a random instant; False if it ended before, or is the last and need not be."""
    process = processes.Process(trace, "run", "small.yaml", "--output", folder)
    first = len(processes.begun(trace))
    early = instants.random() < 0.1  # while it starts, perhaps
    segments, pause = 0 if early else instants.randrange(1, 150), instants.uniform(0, 2.0 if early else 0.02)
    while not last and process.popen.poll() is None and len(processes.begun(trace)) - first < segments:
        time.sleep(0.001)
    time.sleep(pause)
    if last or process.popen.poll() is not None:
        code, said = process.ended()
        assert code == 0, said
        return False
    process.signal(signal.SIGKILL)
    if process.ended()[0] != -signal.SIGKILL:  # it ended at that moment
        return False
    found.update(kills=1, before_work=int(len(processes.begun(trace)) == first))
    return True


def _begun_again(trace: Path) -> list[int]:
    """For each process in turn, how many segments it began that one before it had begun."""
    seen: set[tuple[int, int]] = set()
    again: Counter = Counter()
    for process, block, step in processes.begun(trace):
        again[process] += (block, step) in seen
        seen.add((block, step))
    return list(again.values())


# Two at once


RACER = """
import json, sys, time
import planned
for line in sys.stdin:
    start, words, options = json.loads(line)
    while time.time() < start:
        pass
    begin = time.time()
    code = planned.main(options, words)
    print(json.dumps([code, begin]), flush=True)
"""


def races(root: Path, quick: bool) -> dict[str, Any]:
    """Two processes that begin the same command on one directory at the same time; every second one has a run in it."""
    wanted, whole = 2 if quick else 50, straight(root)
    half, before = _half(root), time.monotonic()
    racers = [_racer(root, n) for n in range(2)]
    found, apart = Counter(asked=wanted), []
    for race in range(wanted):
        folder = root / f"race{race}"
        if race % 2:
            shutil.copytree(half, folder)
        said = _race(racers, folder, segments=(20, 35))
        apart.append(abs(said[0][1] - said[1][1]))
        equal = processes.tiles(folder) == processes.tiles(whole) and processes.bits(folder)[1].all()
        found.update(races=1, exited=[code for code, _ in said] == [0, 0], equal=int(equal))
        found["left"] += len(list(folder.rglob("*.tmp"))) + len(list(folder.glob("c*/*.json")))
        found.update(_shared(root, folder))
        print(f"races: {race + 1} of {wanted}, {found['equal']} equal", flush=True)
        shutil.rmtree(folder)
    for racer in racers:
        racer.stdin.close()
        racer.wait(60)
    apart_ms = [round(1000 * x, 3) for x in (sorted(apart)[len(apart) // 2], max(apart))]
    return {**found, "apart_ms": apart_ms, "tiles": TILES, "seconds": round(time.monotonic() - before)}


def _half(root: Path) -> Path:
    """A run that was killed in the middle."""
    process = processes.Process(root / "half.trace", "run", "small.yaml", "--output", root / "half")
    process.until_begun(TILES * SEGMENTS // 2)
    process.signal(signal.SIGKILL)
    process.ended()
    return root / "half"


def _racer(root: Path, number: int) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", RACER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root,
        stderr=(root / f"racer{number}.err").open("w"), env=processes.environment(),
    )  # fmt: skip


def _race(racers: list[Any], folder: Path, segments: tuple[int, int]) -> list[tuple[int, float]]:
    """Exit code and beginning of each."""
    start = time.time() + 0.05
    for number, racer in enumerate(racers):
        options = {"plan": processes.PLAN | {"segment": segments[number]}, "trace": f"{folder}.{number}.trace"}
        racer.stdin.write(json.dumps([start, ["run", "small.yaml", "--output", str(folder)], options]) + "\n")
        racer.stdin.flush()
    return [json.loads(next(line for line in racer.stdout if line.startswith("["))) for racer in racers]


def _shared(root: Path, folder: Path) -> dict[str, int]:
    """How many blocks each of two processes began, and how many both did."""
    one, other = ({block for _, block, _ in processes.begun(Path(f"{folder}.{n}.trace"))} for n in range(2))
    return {"blocks": len(one | other), "blocks_of_both": len(one & other), "alone": int(not one or not other)}


# Crashes, and damage


def crashes(root: Path, quick: bool) -> dict[str, Any]:
    """After every operation of a publication the machine stops, and the disk keeps only what it promised, or more."""
    import test_store

    rows = []
    for publication in test_store.PUBLICATIONS[: 1 if quick else None]:
        folder = root / publication.__name__
        folder.mkdir()
        walked = list(test_store.crashes(folder, publication))
        stopped = [state for _, returned, state in walked if not returned]
        rows.append({
            "what": publication.__name__.replace("_", " "),
            "operations": len(stopped) // 8,
            "disks": len(walked),
            "old": stopped.count("old"),
            "new": stopped.count("new"),
            "kept": all(state == "new" for _, returned, state in walked if returned),
        })  # fmt: skip
    return {"rows": rows}


WAYS: dict[str, Callable[[bytes], bytes]] = {
    "cut short": lambda data: data[: len(data) * 2 // 3],
    "emptied": lambda data: b"",
    "one bit flipped": lambda data: _flipped(data, len(data) * 2 // 3),
}


def _flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 16]) + data[at + 1 :]


def damage(root: Path, quick: bool) -> dict[str, Any]:
    """Each file that a run has published, damaged in each way, one at a time, and the run started again."""
    whole, half, rows = straight(root), _stopped(root), []
    for what, source, pattern in (("tile", whole, "tiles/*/*.npz"), ("carry", half, "carry/*/*.npz")):
        files = sorted(source.glob(pattern))[: 2 if quick else None]
        for way, change in WAYS.items():
            row = Counter(files=len(files))
            for file in files:
                row.update(_mended(root, source, file.relative_to(source), change, whole))
            rows.append({"what": what, "way": way, **row})
            print(f"damage: {rows[-1]}", flush=True)
    return {"rows": rows, "manifest": [_refused(root, whole, way) for way in [*WAYS, "lost"]]}


def _stopped(root: Path) -> Path:
    """A run that was interrupted, with the lanes of both workers kept."""
    process = processes.Process(root / "stopped.trace", "run", "small.yaml", "--output", root / "stopped", hold=101)
    process.until_begun(103)
    process.signal(signal.SIGINT)
    process.until_said("stopping")
    process.go.touch()
    assert process.ended()[0] == 130
    return root / "stopped"


def _again(folder: Path, root: Path, **plan: int) -> tuple[int, str]:
    """The command once more, in this process: exit code, and what it said on stderr."""
    import planned

    with contextlib.redirect_stderr(io.StringIO()) as said, contextlib.redirect_stdout(io.StringIO()):
        options = {"plan": processes.PLAN | plan}
        code = planned.main(options, ["run", str(root / "small.yaml"), "--output", str(folder)])
    return code, said.getvalue()


def _mended(root: Path, source: Path, file: Path, change: Any, whole: Path) -> dict[str, int]:
    """Whether a damaged file was named, and what came of it in the end."""
    folder = root / "damaged"
    shutil.copytree(source, folder)
    (folder / file).write_bytes(change((folder / file).read_bytes()))
    code, said = _again(folder, root)
    named = f"{file.name}: it is damaged" in said
    equal = code == 0 and processes.tiles(folder) == processes.tiles(whole)
    shutil.rmtree(folder)
    return {"named": int(named), "equal": int(equal)}


def _refused(root: Path, whole: Path, way: str) -> dict[str, Any]:
    """What becomes of a run whose manifest is damaged or gone."""
    folder = root / "damaged"
    shutil.copytree(whole, folder)
    path = folder / "manifest.json"
    path.write_bytes(WAYS[way](path.read_bytes())) if way in WAYS else path.unlink()
    other = _again(folder, root, width=2)[0] if way == "lost" else None
    code, said = _again(folder, root)
    kept = processes.tiles(folder) == processes.tiles(whole)
    shutil.rmtree(folder)
    line = next((line for line in said.splitlines() if line.startswith("error:")), "")
    return {"way": way, "code": code, "code_of_another_plan": other, "tiles_stay": kept,
            "said": line.replace(f"error: {path}: ", "")}  # fmt: skip


# The page

PARTS: dict[str, Callable[[Path, bool], dict[str, Any]]] = {
    "kills": kills, "races": races, "crashes": crashes, "damage": damage,
}  # fmt: skip


def holds(name: str, result: dict[str, Any]) -> bool:
    """Whether a part found what gdkit promises."""
    if name == "kills":
        return result["equal"] == result["kills"] == result["asked"] and result["most_again"] <= result["workers"]
    if name == "races":
        return result["equal"] == result["exited"] == result["asked"] and not result.get("left")
    if name == "crashes":
        return all(row["kept"] and row["old"] + row["new"] > 0 for row in result["rows"])
    mended = all(row["named"] == row["equal"] == row["files"] > 0 for row in result["rows"])
    refused = all((row["code"] != 0) == (row["way"] != "lost") for row in result["manifest"])
    return mended and refused and all(row["tiles_stay"] for row in result["manifest"])


def page(found: dict[str, Any]) -> str:
    """The document."""
    parts = [HEAD.format(**found["machine"])]
    parts += [SECTIONS[name](found[name]) + _verdict(name, found[name]) for name in PARTS if name in found]
    return "\n".join(parts)


def _verdict(name: str, result: dict[str, Any]) -> str:
    return f"\n`python scripts/torture.py {name}`: {'holds' if holds(name, result) else '**does not hold**'}.\n"


HEAD = """# Reliability

What becomes of a run directory when processes are killed, started together, or stopped by a loss of power, and when
files in it are damaged. A program did all of it and wrote this page (`make torture`); no number here was typed.
Measured with Python {python}, jax {jax}, numpy {numpy} on {system}, {cores} cores.

The promise: kill it anywhere and start it again, as often and by as many processes as you like; the arrays are those of
a run that nothing disturbed, bit for bit, and no more is computed twice than the segments in flight. It holds because a
tile is a pure function of the manifest, is published whole under its name or not at all, and does not change then.
"""


def _kills_told(r: dict[str, Any]) -> str:
    return f"""## Killed at random instants

A run of {r["tiles"]} tiles of one block, {r["segments_a_tile"]} segments each, by {r["workers"]} workers, is killed
with SIGKILL at a random instant (seed {r["seed"]}) and started again, until it comes to its end; then the next run
begins. After each kill every tile that is there is compared with that of a run that nothing disturbed, byte for byte;
at the end of each run, all arrays.

| what | measured |
|---|---|
| kills, in so many runs | {r["kills"]} in {r["runs"]} |
| of these, before the process had begun to work | {r.get("before_work", 0)} |
| kills after which the run ended with the same bits | {r["equal"]} of {r["kills"]} |
| segments computed, in all runs | {r["segments"]:,} |
| segments begun again | {r["again"]}, {r["again"] / r["kills"]:.2f} a kill |
| most that one start began again | {r["most_again"]}, with {r["workers"]} workers |
| temporary files left by kills, and after the end | {r.get("left", 0)}, {r.get("not_tidied", 0)} |

In a tile of several blocks the last segment of each block that had finished is computed again too, since a tile is
published as a whole; tiles are made to take about a second.
"""


def _races_told(r: dict[str, Any]) -> str:
    median, most = r["apart_ms"]
    return f"""## Two at once

Two processes begin the same command on one directory, {median} ms apart in the median and {most} ms at most, with
segments of different lengths. Every second directory holds a run that was killed half way.

| what | measured |
|---|---|
| pairs that both ended with exit code 0 | {r["exited"]} of {r["races"]} |
| directories with every tile, and the same bytes in each | {r["equal"]} of {r["races"]} |
| blocks computed by both of them | {r["blocks_of_both"]} of {r["blocks"]:,} |
| temporary files and claims left | {r.get("left", 0)} |

The manifest is made exclusively by a hard link, so one of them makes it and both read that one. Claims share the work:
they are files that say who works on a tile. One that is lost or stale costs a tile computed twice. While a process
lives it renews its claims, however long a segment takes; those of a process of the same machine that has ended no
longer count, nor do those that nobody has renewed for five minutes. Where a number of a process that was killed has
gone to another program meanwhile, its claims count for those five minutes.
"""


def _crashes_told(r: dict[str, Any]) -> str:
    columns = ("what", "operations", "disks", "old", "new")
    rows = ["| " + " | ".join(str(row[name]) for name in columns) + " |" for row in r["rows"]]
    return "\n".join([
        "## Every crash point\n",
        "The file system of the tests stops before each operation (create, write, sync, close, rename or link, sync",
        "of the folder) of a publication in turn; a write still puts half its bytes there. Then the disk is brought",
        "into each state in which a loss of power may leave it: names that were not synced kept or lost, bytes that",
        "were not synced kept, lost, cut in half or zeros. What is found must be as it was before or whole, the run",
        "must go on from there, and what had returned must have stayed.\n",
        "| published | operations | disks looked at | as before | whole |",
        "|---|---|---|---|---|",
        *rows,
        "\nThe same walk with the sync of files, or of folders, left out finds the fault; a test holds that.\n",
    ])  # fmt: skip


def _damage_told(r: dict[str, Any]) -> str:
    rows = [f"| {row['what']} | {row['way']} | {row['files']} | {row['named']} | {row['equal']} |" for row in r["rows"]]
    manifest = [f"| {row['way']} | {row['code']} | {_cell(row)} |" for row in r["manifest"]]
    return "\n".join([
        "## Damaged files\n",
        "Each file, one at a time; then the same command again.\n",
        "| file | damage | files | named in a warning | same bits in the end |",
        "|---|---|---|---|---|",
        *rows,
        "\n| the manifest | exit code | what it says |",
        "|---|---|---|",
        *manifest,
        "\nTiles stay as they are in each of these.\n",
    ])  # fmt: skip


def _cell(row: dict[str, Any]) -> str:
    if row["way"] != "lost":
        return row["said"].replace("|", "\\|")
    return f"made anew, since the plan is the same; with another plan refused, exit code {row['code_of_another_plan']}"


SECTIONS = {"kills": _kills_told, "races": _races_told, "crashes": _crashes_told, "damage": _damage_told}


def machine() -> dict[str, Any]:
    """What the numbers were measured with."""
    versions = {name: importlib.metadata.version(name) for name in ("jax", "numpy")}
    cores = len(os.sched_getaffinity(0))
    return {"python": platform.python_version(), **versions, "system": platform.system(), "cores": cores}


def main(words: list[str]) -> int:
    """Do the parts named, or all, and write the page."""
    quick, names = "--quick" in words, [word for word in words if word != "--quick"] or list(PARTS)
    for name in names:
        if name not in PARTS:
            raise SystemExit(f"{name}: no such part. There are {', '.join(PARTS)}")
    found = json.loads(FOUND.read_text(encoding="utf-8")) if FOUND.is_file() else {}
    for name in names:
        with tempfile.TemporaryDirectory() as root, warnings.catch_warnings():
            print(f"{name}, seed {SEED}", flush=True)
            found[name] = PARTS[name](Path(root), quick)
        found["machine"] = machine()
        if not quick:
            FOUND.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            PAGE.write_text(page(found), encoding="utf-8")
    return 0 if all(holds(name, found[name]) for name in names) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
