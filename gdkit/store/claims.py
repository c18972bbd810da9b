"""Claims: hints about who works on what, so that processes share the work.

A claim is a small file that is made exclusively. It may be lost, stale or wrong: then tiles are computed twice, with
the same bits. So nothing here fails a run, and nothing is synced.
"""

import contextlib
import json
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

from gdkit.store.files import Files, host, is_alive

STALE = 300.0  # seconds after which a claim that nobody renewed no longer counts
_UNREADABLE = 10.0  # the same of one that does not say whose it is: its writer has just made it, or is no more
_SUFFIX = ".json"
_MOST = 10_000  # claims a run: where there are more tiles, each stands for several


class Claim(NamedTuple):
    """Who said that they work on something, and how long ago."""

    host: str  # empty where the file cannot be read
    process: int
    age: float  # seconds since it was made or renewed, by this machine's clock

    @property
    def is_mine(self) -> bool:
        """Whether this process made it."""
        return (self.host, self.process) == (host(), os.getpid())

    def is_live(self, younger_than: float = STALE) -> bool:
        """Whether it counts: young enough, and not of a process of this machine that is no more."""
        if not self.host:
            return self.age < min(younger_than, _UNREADABLE)
        return self.age < younger_than and not (self.host == host() and not is_alive(self.process))


def shared(tile: int, tiles: int) -> range:
    """The tiles, of so many in all, that share a claim with one of them.

    >>> shared(7, 100), shared(250, 1_000_000)
    (range(7, 8), range(200, 300))
    """
    size = max(1, -(-tiles // _MOST))
    low = tile // size * size
    return range(low, min(low + size, tiles))


def place(folder: Path, tile: int, tiles: int) -> Path:
    """The claim's file."""
    return folder / f"{shared(tile, tiles).start:07d}{_SUFFIX}"


def firsts(files: Files, folder: Path, tiles: int) -> list[int]:
    """The first tile of each claim that is there."""
    try:
        names = files.names(folder)
    except OSError:
        return []
    found = [int(n.removesuffix(_SUFFIX)) for n in names if n.removesuffix(_SUFFIX).isdecimal() and len(n) < 20]
    return sorted(tile for tile in found if tile < tiles and place(folder, tile, tiles).name in names)


def take(files: Files, path: Path, younger_than: float = STALE) -> bool:
    """Claim something: True unless somebody else's claim counts. One that cannot be written is no reason to wait."""
    for _ in range(2):
        try:
            _make(files, path)
            return True
        except FileExistsError:
            held = look(files, path)
        except OSError:
            drop(files, path)  # where it was made and could not be filled, it would keep others away
            return True
        if held is None:  # given back meanwhile
            continue
        if held.is_mine:
            renew(files, path)
            return True
        if held.is_live(younger_than):
            return False
        drop(files, path)
    return False


def _make(files: Files, path: Path) -> None:
    descriptor = files.create(path)
    try:
        text = {"host": host(), "process": os.getpid(), "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
        files.write(descriptor, json.dumps(text).encode())
    finally:
        files.close(descriptor)


def look(files: Files, path: Path) -> Claim | None:
    """The claim in a file, if there is one."""
    try:
        with files.open(path) as file:
            age = max(0.0, time.time() - os.fstat(file.fileno()).st_mtime)
            text = file.read(4096)
    except OSError:
        return None
    said: Any = None
    with contextlib.suppress(ValueError, RecursionError):
        said = json.loads(text)
    said = said if isinstance(said, dict) else {}
    process = said.get("process")
    process = process if isinstance(process, int) and process > 0 else 0
    return Claim(str(said.get("host", ""))[:60] if process else "", process, age)


def renew(files: Files, path: Path) -> None:
    """Make a claim young again."""
    with contextlib.suppress(OSError):
        files.touch(path)


def drop(files: Files, path: Path) -> None:
    """Give a claim back."""
    with contextlib.suppress(OSError):
        files.unlink(path)
