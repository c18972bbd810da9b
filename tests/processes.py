"""Processes of gdkit's command line that can be held at an instant, told to stop, and killed."""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from gdkit.store import Store
from gdkit.store.files import FILES

ROOT = Path(__file__).parent.parent
PLANNED = ROOT / "tests" / "planned.py"
PLAN = {"width": 1, "tile": 1, "segment": 20, "workers": 2}
TILES, SEGMENTS = 24, 8  # of CONFIG under PLAN; its last lanes diverge
CONFIG = """\
name: small
problem: {name: parabola}
optimizer: {name: sgd}
sweep:
  axes: {learning_rate: {log: {from: 1e-3, to: 1.1, count: 24}}}
  steps: 160
"""
# A process that has given up root's right to write everywhere (CAP_DAC_OVERRIDE), as most have none.
PLAIN_USER = """
import ctypes, os, sys
if os.geteuid() == 0:
    assert ctypes.CDLL(None, use_errno=True).prctl(24, 1, 0, 0, 0) == 0  # PR_CAPBSET_DROP
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def environment():
    """That of this process, in which gdkit and the tests are found."""
    paths = [str(ROOT), str(ROOT / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}


class Process:
    """A process of ``tests/planned.py``; its output goes to files beside its trace."""

    def __init__(self, trace, *words, plan=None, **options):
        self.trace, self.err, self.out = (trace.with_suffix(end) for end in (".trace", ".err", ".out"))
        self.go = Path(f"{self.trace}.go")
        self.go.unlink(missing_ok=True)
        self._before = len(begun(self.trace))
        options |= {"plan": PLAN | (plan or {}), "trace": str(self.trace)}
        plain = ["-c", PLAIN_USER] if options.pop("plain_user", False) else []
        command = [sys.executable, *plain, str(PLANNED), json.dumps(options), *map(str, words)]
        with self.err.open("w") as err, self.out.open("w") as out:
            self.popen = subprocess.Popen(
                command, stdout=out, stderr=err, stdin=subprocess.DEVNULL, env=environment(), cwd=trace.parent
            )

    def until_begun(self, segments):
        """Wait until so many segments have begun."""
        self.until(lambda: len(begun(self.trace)) - self._before >= segments)

    def until_said(self, text):
        """Wait until it has said so on stderr."""
        self.until(lambda: text in self.err.read_text())

    def until(self, condition, seconds=120):
        """Wait for a condition, for as long as the process lives."""
        end = time.monotonic() + seconds
        while not condition():
            assert self.popen.poll() is None, f"it ended: {self.err.read_text()}"
            assert time.monotonic() < end, f"it took too long: {self.err.read_text()}"
            time.sleep(0.002)

    def signal(self, number):
        """Send a signal."""
        self.popen.send_signal(number)

    def ended(self):
        """Its exit code and what it said, once it has ended."""
        code = self.popen.wait(120)
        return code, self.err.read_text()


def here(*words, plan=None, files=FILES):
    """The same command line in this process, which has imported everything; its exit code."""
    import planned

    return planned.main({"plan": PLAN | (plan or {})}, [str(word) for word in words], files)


def begun(trace):
    """(process, block, step) of each segment that has begun."""
    if not trace.exists():
        return []
    whole, _, _ = trace.read_bytes().rpartition(b"\n")
    return [tuple(map(int, line.split())) for line in whole.splitlines()]


def count_repeated(trace):
    """For each process in turn, the number of its segments that an earlier one had begun."""
    seen, repeated = set(), Counter()
    for process, block, step in begun(trace):
        repeated[process] += (block, step) in seen
        seen.add((block, step))
    return list(repeated.values())


def count_lost(trace):
    """For each process in turn, the number of its segments that were lost: a later one began them again.

    Where several processes died one after the other, a single start may repeat what each of them lost.
    """
    latest, lost = {}, Counter()
    for process, block, step in begun(trace):
        lost[process] += 0
        if (block, step) in latest:
            lost[latest[block, step]] += 1
        latest[block, step] = process
    return list(lost.values())


def bits(folder):
    """The bytes of all columns of a run, and which lanes are finished."""
    values, finished, _ = Store.open(folder).columns()
    return {name: value.tobytes() for name, value in values.items()}, finished


def tiles(folder):
    """The bytes of each tile that is there, by its name."""
    return {path.name: path.read_bytes() for path in folder.glob("tiles/*/*.npz")}
