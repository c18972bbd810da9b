"""Whether a run has room: in the memory of this machine, and on the disk that it writes to."""

import math
import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from gdkit.errors import InputValueError, bad_value
from gdkit.tables import count

SMALLER = "Lower sweep.curve_points, seeds or the count of an axis"
_PARTS = ("tiles", "carry", "lanes")  # of a run directory: what a run that goes on has already
_STATISTICS = 100  # bytes of a lane's statistics, at least: the monitors that every run has read 25 numbers or more


class Resources(NamedTuple):
    """Bytes, that are needed or that there are."""

    memory: float
    disk: float


def least(lanes: int, points: int) -> Resources:
    """What a run needs at the very least: the results of all lanes once, in memory as well as in tiles.

    Args:
      lanes: how many.
      points: recorded losses of each.
    """
    rows = lanes * (_STATISTICS + 4 * points)
    return Resources(peak() + rows, rows)


def there(folder: Path) -> Resources:
    """What is free: memory, of which this process has its part already, and disk where `folder` is or will be."""
    place = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())
    return Resources(
        _free_memory() + peak(), shutil.disk_usage(place).free + sum(_size(folder / part) for part in _PARTS)
    )


def shortage(need: Resources, free: Resources) -> str:
    """What there is too little of, with the numbers; nothing where there is enough."""
    short = [
        f"{amount(wanted)} of {name}, and {amount(has)} are free"
        for name, wanted, has in zip(need._fields, need, free, strict=True)
        if wanted > has
    ]
    return " and ".join(short)


def refused(lanes: int, short: str, remedy: str = "") -> InputValueError:
    """The error for a run that has no room, with what it is short of."""
    return bad_value("sweep", count(lanes, "run"), f"it needs at least {short}", f"{SMALLER}{remedy}")


def amount(size: float) -> str:
    """Bytes as a person would say them."""
    for unit, factor in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size >= factor:
            return f"{size / factor:.3g} {unit}"
    return f"{size:.0f} B"


def peak() -> int:
    """Bytes that this process has had at most: what a run has, with JAX at work, before it holds any lanes."""
    try:
        import resource
    except ImportError:  # Windows: what it has taken is then missing on both sides
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _free_memory() -> float:
    """Bytes that may still be taken: of the machine, or of the group of processes where that is given less."""
    return min(_of_machine(), _of_group())


def _of_machine() -> float:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):  # no Linux: all there is
        known = "SC_PHYS_PAGES" in os.sysconf_names
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if known else math.inf


def _of_group(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float:
    """What the group of this process, and those that it is in, leave of the memory that they are given.

    https://docs.kernel.org/admin-guide/cgroup-v2.html, and cgroup-v1/memory.html; infinite where nothing is set.
    """
    with suppress(OSError, StopIteration):
        entries = (line.split(":", 2) for line in own.read_text(encoding="utf-8").splitlines())
        kind, path = next((k, p) for _, k, p in entries if k == "" or "memory" in k.split(","))
        root, names = (root / "memory", _FIRST) if kind else (root, _SECOND)
        inside = root / path.lstrip("/")
        above = [place for place in (inside, *inside.parents) if place.is_relative_to(root)]
        return min((_left(place, *names) for place in above), default=math.inf)
    return math.inf


_FIRST, _SECOND = ("memory.limit_in_bytes", "memory.usage_in_bytes"), ("memory.max", "memory.current")  # versions


def _left(group: Path, most: str, used: str) -> float:
    try:
        limit, taken = ((group / name).read_text(encoding="ascii").strip() for name in (most, used))
        return max(float(int(limit) - int(taken) + _given_back(group)), 0.0)
    except (OSError, ValueError):  # no such group; "max"
        return math.inf


def _given_back(group: Path) -> int:
    """Bytes of files that were read and are kept until somebody needs the memory; they count as taken."""
    try:
        lines = (group / "memory.stat").read_text(encoding="ascii").splitlines()
        known = {name: int(value) for name, value in map(str.split, lines)}
    except (OSError, ValueError):
        return 0
    return known.get("total_inactive_file", known.get("inactive_file", 0))


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
