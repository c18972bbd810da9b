"""The parts of ``make torture`` on the whole command: full disks, damaged and foreign files, disturbed runs, signals.

``scripts/torture.py`` runs them and writes the page.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import processes
from torture_files import EXCHANGES, Spoiled, spoiled_files

import gdkit

SEED = 20_241
SERVER = Path(__file__).with_name("torture_server.py")
TILES, STEPS = 3, 40
PLAN = {"width": 1, "tile": 1, "segment": 20, "workers": 1}
CONFIG = processes.CONFIG.replace("count: 24", f"count: {TILES}").replace("steps: 160", f"steps: {STEPS}")
OUTPUTS = ("results.nc", "report.html", "timings.npz", "figures/final_loss.png", "figures/final_loss.svg")


class Server:
    """A process that runs the command, or opens results, in forked children: `torture_server`."""

    def __init__(self, root: Path):
        self.root = root
        (root / "small.yaml").write_text(CONFIG)
        self._popen = subprocess.Popen(
            [sys.executable, str(SERVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root,
            stderr=(root / "server.err").open("w"), env=processes.environment(),
        )  # fmt: skip

    def ask(self, do: str, *words: Any, **options: Any) -> dict[str, Any]:
        """The outcome of a child: `code`, `out`, `err`, and `done`, the number of its operations in `folder`."""
        request = {"do": do, "words": list(map(str, words)), "reply": str(self.root / "reply.json"), **options}
        assert self._popen.stdin and self._popen.stdout
        self._popen.stdin.write(json.dumps(request) + "\n")
        self._popen.stdin.flush()
        return json.loads(self._popen.stdout.readline())

    def run(self, folder: Path, *words: str, plan: dict[str, int] = PLAN, **options: Any) -> dict[str, Any]:
        """`gdkit run` to a folder, in which its operations count."""
        options = {"plan": plan, "folder": str(folder)} | options
        return self.ask("run", "run", self.root / "small.yaml", "--output", folder, *words, **options)

    def reference(self, plan: dict[str, int] = PLAN) -> tuple[Path, int]:
        """A run that nothing disturbs, and the number of its operations."""
        done = self.run(self.root / "reference", plan=plan)
        assert done["code"] == 0, done
        return self.root / "reference", done["done"]

    def close(self) -> None:
        """End the process."""
        assert self._popen.stdin
        self._popen.stdin.close()
        self._popen.wait(60)


def is_equal(folder: Path, reference: Path) -> bool:
    """Whether a run has finished with the bits of another one, and all its outputs are whole."""
    if processes.tiles(folder) != processes.tiles(reference) or list(folder.rglob("*.tmp")):
        return False
    values, _ = processes.bits(reference)
    lanes = gdkit.open(folder / "results.nc").lanes
    same = all(lanes[name].values.tobytes() == value for name, value in values.items())
    return same and all((folder / name).stat().st_size for name in OUTPUTS)


def _add(row: Counter, **counts: int) -> None:
    """Add to counts; true counts as one."""
    for name, value in counts.items():
        row[name] += int(value)


# Full disks


def full(root: Path, quick: bool) -> dict[str, Any]:
    """The disk is full from each operation of the command on, and at each size of a small file system."""
    server, start = Server(root), time.monotonic()
    reference, operations = server.reference()
    rows: dict[str, Counter] = {}
    for at in range(0, operations, operations // 4 if quick else 1):
        folder = root / "full"
        done = server.run(folder, at=at, act="full")
        _count_full(rows.setdefault(_find_named_file(done["err"], folder), Counter()), done)
        _count_resumed(rows[_find_named_file(done["err"], folder)], server.run(folder), folder, reference)
        shutil.rmtree(folder, ignore_errors=True)
        print(f"full: {at + 1} of {operations}", flush=True)
    small = list(_small_file_systems(server, reference, range(20, 420, 200 if quick else 20)))
    server.close()
    table = [{"what": what, **counts} for what, counts in sorted(rows.items())]
    return {"operations": operations, "rows": table, "small": small, "seconds": round(time.monotonic() - start)}


def _find_named_file(err: str, folder: Path) -> str:
    """What an error names: a kind of file, or nothing."""
    line = next((line for line in err.splitlines() if line.startswith("error: ")), "")
    name = line.removeprefix(f"error: {folder}").partition(":")[0].strip("/")
    first = name.partition("/")[0]
    return first if line.startswith(f"error: {folder}") and first else ("the folder" if line else "nothing")


def _count_full(row: Counter, done: dict[str, Any]) -> None:
    code, err = done["code"], done["err"]
    _add(row, times=1, exit_1=code == 1, crashes=code is None or code < 0)
    _add(row, remedy="No space left on device" in err and "Make room" in err, traceback="Traceback" in err)


def _count_resumed(row: Counter, again: dict[str, Any], folder: Path, reference: Path) -> None:
    _add(row, resumed=again["code"] == 0 and is_equal(folder, reference))


def _small_file_systems(server: Server, reference: Path, sizes: Sequence[int]) -> Iterator[dict[str, Any]]:
    """A run on a file system of each size in KiB, and again once there is room; nothing without the right to mount."""
    place = server.root / "mounted"
    place.mkdir()
    for size in sizes:
        if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", place], check=False).returncode:
            return
        try:
            row: Counter = Counter()
            done = server.run(place / "run", "--anyway")
            _count_full(row, done)
            subprocess.run(["mount", "-o", "remount,size=64m", place], check=True)
            _count_resumed(row, server.run(place / "run"), place / "run", reference)
            yield {"kib": size, "code": done["code"], **row}
        finally:
            subprocess.run(["umount", place], check=True)


# Damaged and foreign files

_BATCH = 50  # files per child


def opened(root: Path, quick: bool) -> dict[str, Any]:
    """Results and run directories are opened, with one of their files damaged or exchanged."""
    server, chance, start = Server(root), random.Random(SEED), time.monotonic()
    reference, _ = server.reference()
    (root / "small.yaml").write_text(CONFIG.replace(f"steps: {STEPS}", f"steps: {STEPS + 10}"))
    other = root / "other"
    assert server.run(other)["code"] == 0
    lanes = gdkit.open(reference / "results.nc").lanes
    np.savez(root / "truth.npz", **{n: v.values.astype(str) if v.dtype.kind in "OU" else v.values
                                   for n, v in lanes.variables.items()})  # fmt: skip
    rows: dict[tuple[str, str], Counter] = {}
    spoiled = list(spoiled_files(reference, other, chance, quick))
    for first in range(0, len(spoiled), _BATCH):
        listed = [entry for i, one in enumerate(spoiled[first : first + _BATCH]) for entry in _spoil(root, i, one)]
        for (one, _), done in zip(listed, _open(server, [path for _, path in listed]), strict=True):
            row = rows.setdefault((one.file.partition("/")[0], one.way), Counter())
            _count_opened(row, done, Path(one.file).name)
        shutil.rmtree(root / "spoiled")
        print(f"opened: {sum(row['opened'] for row in rows.values())}", flush=True)
    server.close()
    table = [{"what": what, "way": way, **counts} for (what, way), counts in sorted(rows.items())]
    return {"rows": table, "seconds": round(time.monotonic() - start), "seed": SEED}


def _spoil(root: Path, number: int, spoiled: Spoiled) -> list[tuple[Spoiled, Path]]:
    """A copy of the run with the spoiled file, and each path of it that is to be opened."""
    folder = root / "spoiled" / str(number)
    shutil.copytree(root / "reference", folder, copy_function=os.link)
    (folder / spoiled.file).unlink()
    (folder / spoiled.file).write_bytes(spoiled.content)
    if not spoiled.keeps_results:
        (folder / "results.nc").unlink()
    paths = [folder / "results.nc", folder] if spoiled.file == "results.nc" else [folder]
    return [(spoiled, path) for path in paths]


def _open(server: Server, paths: Sequence[Path]) -> list[dict[str, Any]]:
    """The outcome of opening each path; after a crash or a hang, the next child opens the rest."""
    outcomes: list[dict[str, Any]] = []
    lines = server.root / "lines"
    while len(outcomes) < len(paths):
        lines.write_text("")
        limits = {"truth": str(server.root / "truth.npz"), "lines": str(lines), "seconds": 10 * len(paths)}
        done = server.ask("open", *paths[len(outcomes) :], **limits)
        outcomes += map(json.loads, lines.read_text().splitlines())
        if done["code"] != 0:
            outcomes.append({"code": done["code"], "err": ""})
    return outcomes


def _count_opened(row: Counter, done: dict[str, Any], name: str) -> None:
    code = done["code"]
    _add(row, opened=1, true=code == 0, refused=code == 2, silent=code == 1, hangs=code is None)
    _add(row, other_errors=code is not None and code not in (0, 1, 2), named=code in (0, 2) and name in done["err"])


# Disturbed runs


def disturbed(root: Path, quick: bool) -> dict[str, Any]:
    """Runs whose directory, clock or process is disturbed in the middle."""
    server, start = Server(root), time.monotonic()
    reference, operations = server.reference()
    rows = []
    for scenario, count in SCENARIOS.items():
        row = Counter(runs=1 if quick else count)
        for number in range(row["runs"]):
            folder = root / f"run{number}"
            expected, end = scenario(server, folder, operations, number)
            _add(row, expected=expected, equal=is_equal(end, reference))
            for path in root.glob("run*"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        rows.append({"what": str(scenario.__doc__).rstrip("."), **row})
        print(f"disturbed: {rows[-1]}", flush=True)
    server.close()
    return {"rows": rows, "seconds": round(time.monotonic() - start)}


# Each scenario returns whether the processes ended as they should, and the directory in which the run was resumed.


def _start_held(server: Server, folder: Path, **options: Any) -> processes.Process:
    """Start a run in a process of its own, which waits in the middle."""
    words = ("run", server.root / "small.yaml", "--output", folder)
    process = processes.Process(folder.with_suffix(".trace"), *words, plan=PLAN, hold=2, **options)
    process.until_begun(4)
    return process


def _release(process: processes.Process) -> tuple[int, str]:
    process.go.touch()
    return process.ended()


def _rename_folder(server: Server, folder: Path, operations: int, number: int) -> tuple[bool, Path]:
    """The directory is renamed while a process writes to it."""
    process, moved = _start_held(server, folder), folder.with_name(f"{folder.name}-moved")
    folder.rename(moved)
    code, stderr = _release(process)
    shutil.rmtree(folder, ignore_errors=True)
    return code == 1 and "removed or renamed" in stderr and server.run(moved)["code"] == 0, moved


def _copy_if_there(source: str, target: str) -> None:
    """Copy a file, as `cp` does: temporary files and old checkpoints may be gone since the folder was listed."""
    with contextlib.suppress(FileNotFoundError):
        shutil.copy2(source, target)


def _copy_folder(server: Server, folder: Path, operations: int, number: int) -> tuple[bool, Path]:
    """The directory is copied while a process writes to it, and the copy is resumed elsewhere."""
    process, copy = _start_held(server, folder), folder.with_name(f"{folder.name}-copy")
    shutil.copytree(folder, copy, copy_function=_copy_if_there)
    shutil.rmtree(copy / "claims")  # of a process that does not work on the copy
    (copy / "claims").mkdir()
    code, _ = _release(process)
    return code == 0 and server.run(copy)["code"] == 0, copy


def _make_read_only(server: Server, folder: Path, operations: int, number: int) -> tuple[bool, Path]:
    """The directory is made read-only while a process writes to it, and writable again."""
    process = _start_held(server, folder, plain_user=True)
    folders = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    for path in folders:
        path.chmod(0o555)
    code, stderr = _release(process)
    for path in folders:
        path.chmod(0o755)
    return code == 1 and "Make it writable" in stderr and server.run(folder)["code"] == 0, folder


def _stop_process(server: Server, folder: Path, operations: int, number: int) -> tuple[bool, Path]:
    """A process is stopped for longer than its claims live; another one finishes the run, and the first continues."""
    process = _start_held(server, folder)
    process.signal(signal.SIGSTOP)
    late = server.run(folder, clock=3600.0)  # for this run the claims are an hour old
    process.signal(signal.SIGCONT)
    code, _ = _release(process)
    return code == 0 and late["code"] == 0 and server.run(folder)["code"] == 0, folder


def _change_clock(server: Server, folder: Path, operations: int, number: int) -> tuple[bool, Path]:
    """The clock jumps by a day, forwards or backwards, while another process runs the same."""
    process = _start_held(server, folder)
    jumped = server.run(folder.with_name(f"{folder.name}-jump"), clock=86_400.0 * (-1) ** number)
    code, _ = _release(process)
    again = server.run(folder, clock=-86_400.0 * (-1) ** number)
    return code == jumped["code"] == again["code"] == 0, folder


def _write_two_reports(server: Server, folder: Path, operations: int, number: int) -> tuple[bool, Path]:
    """Two processes write the report of one run at the same time, without its results."""
    first = server.run(folder)["code"]
    (folder / "results.nc").unlink()
    command = [sys.executable, "-m", "gdkit", "report", str(folder)]
    both = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                             env=processes.environment()) for _ in range(2)]  # fmt: skip
    return [first, *(process.wait(120) for process in both)] == [0, 0, 0], folder


def _kill_process(server: Server, folder: Path, operations: int, number: int) -> tuple[bool, Path]:
    """The process is killed by SIGKILL at an operation on results, figures or report."""
    outputs = 30  # operations at the end, five per file
    done = server.run(folder, at=operations - outputs + number % outputs, act="kill")
    return done["code"] == -signal.SIGKILL and server.run(folder)["code"] == 0, folder


SCENARIOS: dict[Callable[..., tuple[bool, Path]], int] = {
    _rename_folder: 3, _copy_folder: 3, _make_read_only: 3, _stop_process: 3, _change_clock: 4,
    _write_two_reports: 3, _kill_process: 30,
}  # fmt: skip


# Signals


def signals(root: Path, quick: bool) -> dict[str, Any]:
    """SIGINT and SIGTERM at random instants of the whole command, its start and its report included."""
    server, chance, start = Server(root), random.Random(SEED), time.monotonic()
    reference, _ = server.reference(plan={})  # the command of users, which chooses the plan itself
    (root / "runs").mkdir()
    for warm in ("first", "second"):  # the next ones take as long as the second, which finds compiled programs
        begin = time.monotonic()
        _signal_command(root, root / "runs" / warm, None, 0.0)
    length, count = time.monotonic() - begin, 4 if quick else 200
    codes: Counter = Counter()
    row = Counter(asked=count)
    for number in range(count):
        folder = root / "runs" / str(number)
        kind = (signal.SIGINT, signal.SIGTERM)[number % 2]
        code, stderr = _signal_command(root, folder, kind, chance.uniform(0, length))
        codes[str(code)] += 1
        _add(row, signals=1, traceback="Traceback" in stderr)
        _add(row, equal=server.run(folder, plan={})["code"] == 0 and is_equal(folder, reference))
        shutil.rmtree(folder)
        print(f"signals: {number + 1} of {count}, {row['equal']} equal, exit codes {dict(codes)}", flush=True)
    server.close()
    seconds = {"length": round(length, 1), "seconds": round(time.monotonic() - start)}
    return {**row, "codes": dict(codes), "seed": SEED, **seconds}


def _signal_command(root: Path, folder: Path, number: int | None, after: float) -> tuple[int, str]:
    """Run the command and signal it some seconds after its first line; its exit code and stderr."""
    command = [sys.executable, "-m", "gdkit", "run", str(root / "small.yaml"), "--output", str(folder)]
    popen = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=root,
                             env=processes.environment())  # fmt: skip
    while not _handles_signals(popen.pid) and popen.poll() is None:
        time.sleep(0.001)
    if number is not None:
        time.sleep(after)
        popen.send_signal(number)
    _, stderr = popen.communicate(timeout=300)
    return popen.returncode, stderr


def _handles_signals(pid: int) -> bool:
    """Whether a process handles SIGTERM, which Python itself does not: from the first line of gdkit on."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt:")).split()[1]
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


# The page


def holds(name: str, r: dict[str, Any]) -> bool:
    """Whether the results of a part are as promised."""
    if name == "full":
        rows = [*r["rows"], *({**row, "exit_1": 1, "remedy": 1} if row["code"] == 0 else row for row in r["small"])]
        return bool(rows) and all(
            row["exit_1"] == row["remedy"] == row["resumed"] == row["times"] and not row["crashes"] + row["traceback"]
            for row in rows
        )
    if name == "opened":
        return all(row["true"] + row["refused"] == row["opened"] for row in r["rows"])
    if name == "disturbed":
        return all(row["expected"] == row["equal"] == row["runs"] for row in r["rows"])
    return r["equal"] == r["signals"] == r["asked"] and set(r["codes"]) <= {"0", "130"} and not r["traceback"]


def _table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    cells = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in row) + " |" for row in cells)


def _full_section(r: dict[str, Any]) -> str:
    heads = ("the error names", "times", "exit code 1, with the remedy", "crashes", "resumed to the same bits")
    keys = ("what", "times", "exit_1", "crashes", "resumed")
    sums = {key: sum(row[key] for row in r["small"]) for key in (*keys[1:], "remedy")}
    sizes = f"{r['small'][0]['kib']} to {r['small'][-1]['kib']} KiB" if r["small"] else "none: mounting needs a right"
    return f"""## A full disk at every write

The whole command, from its config to its report, does {r["operations"]} operations that need room (create, write,
sync, rename, link, make a folder). The disk is full from each of them on, in turn; then the same command runs again
with room.

{_table(heads, [[row[key] for key in keys] for row in r["rows"]])}

The same on {sums["times"]} small file systems ({sizes}): {sums["exit_1"]} runs ended with exit code 1,
{sums["crashes"]} crashed, and {sums["resumed"]} finished with the same bits once there was room.
"""


def _opened_section(r: dict[str, Any]) -> str:
    heads = ("file", "change", "opened", "right numbers", "refused", "other numbers", "other errors", "hangs")
    keys = ("opened", "true", "refused", "silent", "other_errors", "hangs")
    sums: dict[tuple[str, str], Counter] = {}
    for row in r["rows"]:
        way = "replaced" if row["way"] in EXCHANGES else row["way"]
        for place in ((row["what"], way), ("**all**", "")):
            _add(sums.setdefault(place, Counter()), **{key: row[key] for key in keys})
    total = sums.pop(("**all**", ""))
    rows = [(*place, *(f"{row[key]:,}" for key in keys)) for place, row in [*sums.items(), (("**all**", ""), total)]]
    return f"""## Damaged and foreign files, opened

One file of a finished run is damaged at a random place (seed {r["seed"]}), or replaced, and `gdkit.open` reads the file
or the directory, in a process of its own with ten seconds per file. Either the numbers are right, to the bit, or an
error refuses them. A file is replaced by that of another run, by a tile of another number, by an empty file, a pickle,
an archive with a pickle, an archive that unpacks to 1 GiB, and HDF5 of another program; and by HDF5 that claims 8 TiB,
HDF5 of another program, and a text, which have a checksum that fits.

{_table(heads, rows)}
"""


def _disturbed_section(r: dict[str, Any]) -> str:
    rows = [[row["what"], row["runs"], row["expected"], row["equal"]] for row in r["rows"]]
    return f"""## Disturbed runs

{_table(("disturbance", "runs", "exit codes and messages as they should be", "same bits at the end"), rows)}
"""


def _signals_section(r: dict[str, Any]) -> str:
    codes = ", ".join(f"{code} ({times})" for code, times in sorted(r["codes"].items()))
    return f"""## Signals at random instants of the command

SIGINT and SIGTERM reach the command in turn, at instants drawn uniformly (seed {r["seed"]}) from the {r["length"]}
seconds that it takes, from the first line of gdkit to the printed answer. (Before that,
for some hundredths of a second, Python starts, and a signal ends it like any other program.) Then the same command
runs again.

| quantity | measured |
|---|---|
| signals | {r["signals"]} |
| exit codes | {codes} |
| tracebacks | {r["traceback"]} |
| resumed to the same bits, with all outputs | {r["equal"]} of {r["signals"]} |
"""


PARTS: dict[str, Callable[[Path, bool], dict[str, Any]]] = {
    "full": full, "opened": opened, "disturbed": disturbed, "signals": signals,
}  # fmt: skip
SECTIONS = {
    "full": _full_section, "opened": _opened_section, "disturbed": _disturbed_section, "signals": _signals_section,
}  # fmt: skip
