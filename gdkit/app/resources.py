"""Whether a run fits the memory of this machine and the disk that it writes to. Imports no JAX."""

import math
import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from gdkit import formatting
from gdkit.errors import bad_value

REMEDY = "Lower sweep.curve_points, seeds or the count of an axis"
_DATA_FOLDERS = ("tiles", "carry", "lanes")  # of a run directory; a resumed run already uses their disk space
_STATISTICS_BYTES = 100  # per lane, at least: the monitors of every run compute 25 numbers or more
_ADDRESS_SPACE = 3 * 2**30  # a small run takes 2.2 GiB on two cores, and compiling more
_OPEN_FILES = 64  # a small run has 40 open
_REPORT_BYTES = 60  # per lane, of the numbers in the report: 18 MB for 300,000 lanes
_FIGURES_BYTES = 2**19  # of the figures, the report without its numbers and the log: of the smallest run 0.4 MB


class Resources(NamedTuple):
    """Bytes of memory and disk, needed or free."""

    memory: float
    disk: float


def check_limits() -> None:
    """Check that the limits of this process let JAX start; below them it crashes or hangs.

    Raises:
      InputValueError: the address space or the number of open files is limited to less.
    """
    try:
        import resource
    except ImportError:  # Windows has no such limits
        return
    for number, needed, command, what in (
        (resource.RLIMIT_AS, _ADDRESS_SPACE, "ulimit -v", "address space"),
        (resource.RLIMIT_NOFILE, _OPEN_FILES, "ulimit -n", "open files"),
    ):
        limit = resource.getrlimit(number)[0]
        if limit != resource.RLIM_INFINITY and limit < needed:
            shown = [format_bytes(n) if number == resource.RLIMIT_AS else str(n) for n in (limit, needed)]
            problem = f"JAX needs {what} of at least {shown[1]}"
            raise bad_value(command, shown[0], problem, f"Raise the limit, for example {command} unlimited")


def estimate_minimum(lanes: int, points: int) -> Resources:
    """The minimum of a run with `points` losses per lane: in memory its lanes once; on disk tiles, results, report."""
    results = lanes * (_STATISTICS_BYTES + 4 * points)
    return Resources(measure_peak_memory() + results, 2 * results + estimate_report(lanes))


def estimate_report(lanes: int) -> float:
    """Bytes of the report, the figures and the log."""
    return _REPORT_BYTES * lanes + _FIGURES_BYTES


def measure_free(folder: Path) -> Resources:
    """Free memory, that of this process included, and free disk where `folder` is or will be."""
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())
    used = sum(_count_folder_bytes(folder / name) for name in _DATA_FOLDERS)
    return Resources(_measure_free_memory() + measure_peak_memory(), shutil.disk_usage(existing).free + used)


def describe_shortage(needed: Resources, free: Resources) -> str:
    """The missing memory and disk, needed and free; empty if the run fits."""
    return " and ".join(
        f"{format_bytes(need)} of {name}, and {format_bytes(available)} are free"
        for name, need, available in zip(needed._fields, needed, free, strict=True)
        if need > available
    )


def check_minimum(lanes: int, needed: Resources, free: Resources, remedy: str = "") -> None:
    """Check that a run of so many lanes fits; `remedy` is appended to that of the message.

    Raises:
      InputValueError: the run does not fit.
    """
    shortage = describe_shortage(needed, free)
    if shortage:
        raise bad_value("sweep", formatting.count(lanes, "run"), f"it needs at least {shortage}", f"{REMEDY}{remedy}")


def format_bytes(size: float) -> str:
    """A number of bytes with three digits and its unit.

    >>> format_bytes(1536), format_bytes(12)
    ('1.5 KiB', '12 B')
    """
    for unit, factor in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size >= factor:
            return f"{size / factor:.3g} {unit}"
    return f"{size:.0f} B"


def measure_peak_memory() -> int:
    """Peak memory of this process so far, in bytes: what Python and JAX need before any lane exists."""
    try:
        import resource
    except ImportError:  # Windows; omitted from both the needed and the free memory
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _measure_free_memory() -> float:
    """Bytes that can still be allocated on the machine, or in the control group if its limit is lower."""
    return min(_measure_machine_memory(), measure_group_memory())


def _measure_machine_memory() -> float:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):  # not Linux: the whole memory of the machine
        known = "SC_PHYS_PAGES" in os.sysconf_names
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if known else math.inf


_V1, _V2 = ("memory.limit_in_bytes", "memory.usage_in_bytes"), ("memory.max", "memory.current")


def measure_group_memory(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float:
    """Bytes left under the memory limits of this process's control group and its ancestors; infinite without limits.

    https://docs.kernel.org/admin-guide/cgroup-v2.html, and cgroup-v1/memory.html.
    """
    with suppress(OSError, StopIteration):
        entries = (line.split(":", 2) for line in own.read_text(encoding="utf-8").splitlines())
        kind, path = next((k, p) for _, k, p in entries if k == "" or "memory" in k.split(","))
        root, names = (root / "memory", _V1) if kind else (root, _V2)
        group = root / path.lstrip("/")
        groups = [place for place in (group, *group.parents) if place.is_relative_to(root)]
        return min((_measure_group_memory(place, *names) for place in groups), default=math.inf)
    return math.inf


def _measure_group_memory(group: Path, limit_file: str, usage_file: str) -> float:
    try:
        limit, usage = (int((group / name).read_text(encoding="ascii")) for name in (limit_file, usage_file))
        return max(float(limit - usage + _count_reclaimable(group)), 0.0)
    except (OSError, ValueError):  # no such group; a limit of "max"
        return math.inf


def _count_reclaimable(group: Path) -> int:
    """Bytes of cached files, which count as used and are released when memory is needed."""
    try:
        lines = (group / "memory.stat").read_text(encoding="ascii").splitlines()
        values = {name: int(value) for name, value in map(str.split, lines)}
    except (OSError, ValueError):
        return 0
    return values.get("total_inactive_file", values.get("inactive_file", 0))


def _count_folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
