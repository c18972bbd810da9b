"""Kill runs, race them, crash them at every operation, damage their files: ``make torture``.

The results are written to docs/reliability.md. Arguments select parts (kills, streams, races, crashes, damage, and
those of ``torture_command``: full, opened, disturbed, signals); the page covers all parts that have run so far.
``--quick`` uses small counts and writes no page. The exit code is 1 if a part does not hold.
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
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "scripts")]
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".jax_cache"))  # so that only the first start compiles
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

import processes  # noqa: E402
import torture_command  # noqa: E402
import torture_stream  # noqa: E402

PAGE = ROOT / "docs" / "reliability.md"
RESULTS = ROOT / "docs" / "reliability.json"  # source of the page
SEED = 20_240
TILES, SEGMENTS, WORKERS = 48, 16, 2
CONFIG = processes.CONFIG.replace("count: 24", f"count: {TILES}").replace("steps: 160", f"steps: {20 * SEGMENTS}")


def run_undisturbed(root: Path) -> Path:
    """A run without interruption."""
    (root / "small.yaml").write_text(CONFIG)
    process = processes.Process(root / "straight.trace", "run", "small.yaml", "--output", root / "straight")
    assert process.ended()[0] == 0, process.ended()[1]
    times = Counter((block, step) for _, block, step in processes.begun(process.trace))
    assert len(times) == times.total() and max(Counter(block for block, _ in times).values()) == SEGMENTS
    return root / "straight"


# SIGKILL


def kills(root: Path, quick: bool) -> dict[str, Any]:
    """Runs that are killed at random instants and restarted until they finish."""
    count, instants = 6 if quick else 100, random.Random(SEED)
    reference, start = run_undisturbed(root), time.monotonic()
    results = Counter(asked=count)
    most = 0
    while results["kills"] < count:
        folder, trace = root / f"run{results['runs']}", root / f"run{results['runs']}.trace"
        earlier = results["kills"]
        while _kill_run(folder, trace, instants, results, last=results["kills"] == count):
            assert processes.tiles(folder).items() <= processes.tiles(reference).items(), f"{folder}: a tile differs"
            results["left"] += len(list(folder.rglob("*.tmp")))
        equal = processes.bits(folder)[1].all() and processes.bits(folder)[0] == processes.bits(reference)[0]
        repeated = processes.count_repeated(trace)
        most = max(most, *repeated)
        results.update(runs=1, equal=(results["kills"] - earlier) * bool(equal), again=sum(repeated))
        results["segments"] += len({(block, step) for _, block, step in processes.begun(trace)})
        results["not_tidied"] += len(list(folder.rglob("*.tmp")))
        print(f"kills: {results['kills']} of {count}, {results['equal']} equal", flush=True)
        shutil.rmtree(folder)
    shape = {"tiles": TILES, "segments_a_tile": SEGMENTS, "workers": WORKERS}
    return {**results, "most_again": most, **shape, "seed": SEED, "seconds": round(time.monotonic() - start)}


def _kill_run(folder: Path, trace: Path, instants: random.Random, results: Counter, *, last: bool) -> bool:
    """Start a run and kill it at a random instant; False if it ended before, or is the `last`, which is not killed."""
    process = processes.Process(trace, "run", "small.yaml", "--output", folder)
    first = len(processes.begun(trace))
    early = instants.random() < 0.1  # possibly during its start
    segments, pause = 0 if early else instants.randrange(1, 150), instants.uniform(0, 2.0 if early else 0.02)
    while not last and process.popen.poll() is None and len(processes.begun(trace)) - first < segments:
        time.sleep(0.001)
    time.sleep(pause)
    if last or process.popen.poll() is not None:
        code, output = process.ended()
        assert code == 0, output
        return False
    process.signal(signal.SIGKILL)
    if process.ended()[0] != -signal.SIGKILL:  # it ended at the same moment
        return False
    results.update(kills=1, before_work=int(len(processes.begun(trace)) == first))
    return True


# Races


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
    """Pairs of processes start the same command on one directory; every second directory holds an interrupted run."""
    count, reference = 2 if quick else 50, run_undisturbed(root)
    interrupted, start = _kill_halfway(root), time.monotonic()
    racers = [_start_racer(root, n) for n in range(2)]
    results, delays = Counter(asked=count), []
    for race in range(count):
        folder = root / f"race{race}"
        if race % 2:
            shutil.copytree(interrupted, folder)
        answers = _race(racers, folder, segments=(20, 35))
        delays.append(abs(answers[0][1] - answers[1][1]))
        equal = processes.tiles(folder) == processes.tiles(reference) and processes.bits(folder)[1].all()
        results.update(races=1, exited=[code for code, _ in answers] == [0, 0], equal=int(equal))
        results["left"] += len(list(folder.rglob("*.tmp"))) + len(list(folder.glob("c*/*.json")))
        results.update(_count_blocks(folder))
        print(f"races: {race + 1} of {count}, {results['equal']} equal", flush=True)
        shutil.rmtree(folder)
    for racer in racers:
        racer.stdin.close()
        racer.wait(60)
    delays_ms = [round(1000 * x, 3) for x in (sorted(delays)[len(delays) // 2], max(delays))]
    return {**results, "apart_ms": delays_ms, "tiles": TILES, "seconds": round(time.monotonic() - start)}


def _kill_halfway(root: Path) -> Path:
    """A run that was killed after half of its segments."""
    process = processes.Process(root / "half.trace", "run", "small.yaml", "--output", root / "half")
    process.until_begun(TILES * SEGMENTS // 2)
    process.signal(signal.SIGKILL)
    process.ended()
    return root / "half"


def _start_racer(root: Path, number: int) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", RACER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root,
        stderr=(root / f"racer{number}.err").open("w"), env=processes.environment(),
    )  # fmt: skip


def _race(racers: list[Any], folder: Path, segments: tuple[int, int]) -> list[tuple[int, float]]:
    """Exit code and start time of each process."""
    start = time.time() + 0.05
    for number, racer in enumerate(racers):
        options = {"plan": processes.PLAN | {"segment": segments[number]}, "trace": f"{folder}.{number}.trace"}
        racer.stdin.write(json.dumps([start, ["run", "small.yaml", "--output", str(folder)], options]) + "\n")
        racer.stdin.flush()
    return [json.loads(next(line for line in racer.stdout if line.startswith("["))) for racer in racers]


def _count_blocks(folder: Path) -> dict[str, int]:
    """Numbers of blocks that either process began, and that both began."""
    one, other = ({block for _, block, _ in processes.begun(Path(f"{folder}.{n}.trace"))} for n in range(2))
    return {"blocks": len(one | other), "blocks_of_both": len(one & other), "alone": int(not one or not other)}


# Crashes, and damage


def crashes(root: Path, quick: bool) -> dict[str, Any]:
    """The machine stops before every operation of a publication, and the disk keeps synced data and possibly more."""
    import test_store

    rows = []
    for publication in test_store.PUBLICATIONS[: 1 if quick else None]:
        folder = root / publication.__name__
        folder.mkdir()
        outcomes = list(test_store.crashes(folder, publication))
        crashed = [state for _, returned, state in outcomes if not returned]
        rows.append({
            "what": publication.__name__.replace("_", " "),
            "operations": len(crashed) // 8,
            "disks": len(outcomes),
            "old": crashed.count("old"),
            "new": crashed.count("new"),
            "kept": all(state == "new" for _, returned, state in outcomes if returned),
        })  # fmt: skip
    return {"rows": rows}


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut short": lambda data: data[: len(data) * 2 // 3],
    "emptied": lambda data: b"",
    "one bit flipped": lambda data: _flip_bit(data, len(data) * 2 // 3),
}


def _flip_bit(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 16]) + data[at + 1 :]


def damage(root: Path, quick: bool) -> dict[str, Any]:
    """Each published file of a run, damaged in each way, one at a time, and the run restarted."""
    reference, interrupted, rows = run_undisturbed(root), _interrupt_run(root), []
    for what, source, pattern in (("tile", reference, "tiles/*/*.npz"), ("carry", interrupted, "carry/*/*.npz")):
        files = sorted(source.glob(pattern))[: 2 if quick else None]
        for way, change in DAMAGES.items():
            row = Counter(files=len(files))
            for file in files:
                row.update(_repair_file(root, source, file.relative_to(source), change, reference))
            rows.append({"what": what, "way": way, **row})
            print(f"damage: {rows[-1]}", flush=True)
    return {"rows": rows, "manifest": [_damage_manifest(root, reference, way) for way in [*DAMAGES, "lost"]]}


def _interrupt_run(root: Path) -> Path:
    """An interrupted run with the stored carries of both workers."""
    process = processes.Process(root / "stopped.trace", "run", "small.yaml", "--output", root / "stopped", hold=101)
    process.until_begun(103)
    process.signal(signal.SIGINT)
    process.until_said("stopping")
    process.go.touch()
    assert process.ended()[0] == 130
    return root / "stopped"


def _run_again(folder: Path, root: Path, **plan: int) -> tuple[int, str]:
    """The same command in this process: its exit code and stderr."""
    import planned

    with contextlib.redirect_stderr(io.StringIO()) as stderr, contextlib.redirect_stdout(io.StringIO()):
        options = {"plan": processes.PLAN | plan}
        code = planned.main(options, ["run", str(root / "small.yaml"), "--output", str(folder)])
    return code, stderr.getvalue()


def _repair_file(root: Path, source: Path, file: Path, change: Any, reference: Path) -> dict[str, int]:
    """Whether a warning named the damaged file, and whether the run ended with the same tiles."""
    folder = root / "damaged"
    shutil.copytree(source, folder)
    (folder / file).write_bytes(change((folder / file).read_bytes()))
    code, stderr = _run_again(folder, root)
    named = f"{file.name}: it is damaged" in stderr
    equal = code == 0 and processes.tiles(folder) == processes.tiles(reference)
    shutil.rmtree(folder)
    return {"named": int(named), "equal": int(equal)}


def _damage_manifest(root: Path, reference: Path, way: str) -> dict[str, Any]:
    """Outcome of a run whose manifest is damaged or missing."""
    folder = root / "damaged"
    shutil.copytree(reference, folder)
    path = folder / "manifest.json"
    path.write_bytes(DAMAGES[way](path.read_bytes())) if way in DAMAGES else path.unlink()
    other = _run_again(folder, root, width=2)[0] if way == "lost" else None
    code, stderr = _run_again(folder, root)
    unchanged = processes.tiles(folder) == processes.tiles(reference)
    shutil.rmtree(folder)
    line = next((line for line in stderr.splitlines() if line.startswith("error:")), "")
    return {"way": way, "code": code, "code_of_another_plan": other, "tiles_stay": unchanged,
            "said": line.replace(f"error: {path}: ", "")}  # fmt: skip


# The page

PARTS: dict[str, Callable[[Path, bool], dict[str, Any]]] = {
    "kills": kills, **torture_stream.PARTS, "races": races, "crashes": crashes, "damage": damage,
    **torture_command.PARTS,
}  # fmt: skip


def holds(name: str, result: dict[str, Any]) -> bool:
    """Whether the results of a part are as promised."""
    if name in torture_stream.PARTS:
        return torture_stream.holds(name, result)
    if name in torture_command.PARTS:
        return torture_command.holds(name, result)
    if name == "kills":
        return result["equal"] == result["kills"] == result["asked"] and result["most_again"] <= result["workers"]
    if name == "races":
        return result["equal"] == result["exited"] == result["asked"] and not result.get("left")
    if name == "crashes":
        return all(row["kept"] and row["old"] + row["new"] > 0 for row in result["rows"])
    repaired = all(row["named"] == row["equal"] == row["files"] > 0 for row in result["rows"])
    refused = all((row["code"] != 0) == (row["way"] != "lost") for row in result["manifest"])
    return repaired and refused and all(row["tiles_stay"] for row in result["manifest"])


def page(results: dict[str, Any]) -> str:
    """Text of the page."""
    parts = [HEAD.format(**results["machine"])]
    parts += [SECTIONS[name](results[name]) + _verdict(name, results[name]) for name in PARTS if name in results]
    return "\n".join(parts)


def _verdict(name: str, result: dict[str, Any]) -> str:
    return f"\n`python scripts/torture.py {name}`: {'holds' if holds(name, result) else '**does not hold**'}.\n"


HEAD = """# Reliability

What happens to a run directory when processes are killed, run at the same time, or lose power, and when its files are
damaged. A program tested all of this and wrote this page (`make torture`); no number here was typed.
Measured with Python {python}, jax {jax}, numpy {numpy} on {system}, {cores} cores.

The promise: kill a run at any time and restart it, any number of times and with any number of processes. The arrays
are those of an undisturbed run, bit for bit, and at most the segments in flight are computed twice. It holds because a
tile is a pure function of the manifest, is published completely under its name or not at all, and never changes
afterwards.
"""


def _kills_section(r: dict[str, Any]) -> str:
    return f"""## Killed at random instants

A run of {r["tiles"]} tiles, each with one block and {r["segments_a_tile"]} segments, on {r["workers"]} workers is
killed with SIGKILL at a random instant (seed {r["seed"]}) and restarted until it finishes; then the next run begins.
After each kill every published tile is compared with that of an undisturbed run, byte for byte; after each run, all
arrays.

| quantity | measured |
|---|---|
| kills and runs | {r["kills"]} in {r["runs"]} |
| kills before the process began to work | {r.get("before_work", 0)} |
| kills after which the run finished with the same bits | {r["equal"]} of {r["kills"]} |
| segments computed in all runs | {r["segments"]:,} |
| segments repeated | {r["again"]}, {r["again"] / r["kills"]:.2f} per kill |
| most segments repeated by one start | {r["most_again"]}, with {r["workers"]} workers |
| temporary files after kills, and after the last start | {r.get("left", 0)}, {r.get("not_tidied", 0)} |

In a tile with several blocks the last segment of each finished block is repeated as well, since a tile is published as
a whole; a tile takes about one second.
"""


def _races_section(r: dict[str, Any]) -> str:
    median, most = r["apart_ms"]
    return f"""## Two processes at once

Two processes start the same command on one directory, with a delay of {median} ms (median) and at most {most} ms,
and with segments of different lengths. Every second directory holds a run that was killed halfway.

| quantity | measured |
|---|---|
| pairs with exit code 0 from both | {r["exited"]} of {r["races"]} |
| directories with all tiles and the same bytes | {r["equal"]} of {r["races"]} |
| blocks computed by both | {r["blocks_of_both"]} of {r["blocks"]:,} |
| remaining temporary files and claims | {r.get("left", 0)} |

The manifest is created exclusively by a hard link, so one process creates it and both read it. Claims divide the work:
a claim is a file that names the process working on a tile. A lost or stale claim costs one tile computed twice. A
running process renews its claims, however long a segment takes. Claims of an ended process on the same machine are
ignored, and so are claims that were not renewed for five minutes. If another program has received the process number
of a killed process, its claims are respected for these five minutes.
"""


def _crashes_section(r: dict[str, Any]) -> str:
    columns = ("what", "operations", "disks", "old", "new")
    rows = ["| " + " | ".join(str(row[name]) for name in columns) + " |" for row in r["rows"]]
    return "\n".join([
        "## Every crash point\n",
        "The file system of the tests stops before each operation (create, write, sync, close, rename or link, sync",
        "of the folder) of a publication in turn; an interrupted write leaves half its bytes. Then the disk is set to",
        "each state that a loss of power may leave: unsynced names kept or lost, unsynced bytes kept, lost, cut in",
        "half or zeros. The directory must hold the old or the complete new data, the run must resume from there, and",
        "data must persist once the publication has returned.\n",
        "| published | operations | disk states | old data | new data |",
        "|---|---|---|---|---|",
        *rows,
        "\nWithout the sync of files or of folders the same procedure finds the fault, as a test checks.\n",
    ])  # fmt: skip


def _damage_section(r: dict[str, Any]) -> str:
    rows = [f"| {row['what']} | {row['way']} | {row['files']} | {row['named']} | {row['equal']} |" for row in r["rows"]]
    manifest = [f"| {row['way']} | {row['code']} | {_cell(row)} |" for row in r["manifest"]]
    return "\n".join([
        "## Damaged files\n",
        "Each file is damaged, one at a time; then the same command runs again.\n",
        "| file | damage | files | named in a warning | same bits at the end |",
        "|---|---|---|---|---|",
        *rows,
        "\n| manifest | exit code | message |",
        "|---|---|---|",
        *manifest,
        "\nThe tiles stay unchanged in each case.\n",
    ])  # fmt: skip


def _cell(row: dict[str, Any]) -> str:
    if row["way"] != "lost":
        return row["said"].replace("|", "\\|")
    refusal = f"another plan is refused with exit code {row['code_of_another_plan']}"
    return f"created again, since the plan is the same; {refusal}"


SECTIONS = {
    "kills": _kills_section, **torture_stream.SECTIONS, "races": _races_section, "crashes": _crashes_section,
    "damage": _damage_section, **torture_command.SECTIONS,
}  # fmt: skip


def machine() -> dict[str, Any]:
    """Versions and cores of the measurement."""
    versions = {name: importlib.metadata.version(name) for name in ("jax", "numpy")}
    cores = len(os.sched_getaffinity(0))
    return {"python": platform.python_version(), **versions, "system": platform.system(), "cores": cores}


def main(words: list[str]) -> int:
    """Run the named parts, or all, and write the page."""
    quick, names = "--quick" in words, [word for word in words if word != "--quick"] or list(PARTS)
    for name in names:
        if name not in PARTS:
            raise SystemExit(f"{name}: no such part. Available: {', '.join(PARTS)}")
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    for name in names:
        with tempfile.TemporaryDirectory() as root, warnings.catch_warnings():
            print(f"{name}, seed {SEED}", flush=True)
            results[name] = PARTS[name](Path(root), quick)
        results["machine"] = machine()
        if not quick:
            RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            PAGE.write_text(page(results), encoding="utf-8")
    return 0 if all(holds(name, results[name]) for name in names) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
