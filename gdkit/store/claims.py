"""Claims: hints about which process works on which tiles, so that processes share the work.

A claim is a small file that is created exclusively. Where it is lost, stale or wrong, tiles are computed twice, with
the same bits. So nothing here fails a run, and nothing is synced.
"""

import contextlib
import json
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

from gdkit.store.files import Files, host, is_alive

STALE = 300.0  # seconds after which a claim that was not renewed is ignored
_UNREADABLE_STALE = 10.0  # the same for a claim without an owner, whose writer is at work or was killed
_SUFFIX = ".json"
_MOST_CLAIMS = 10_000  # of a run; with more tiles, several share a claim


class Claim(NamedTuple):
    """The process that works on some tiles, and the age of its claim."""

    host: str  # empty where the file cannot be read
    process: int
    age: float  # seconds since it was created or renewed, by this machine's clock

    @property
    def is_mine(self) -> bool:
        """Whether this process created it."""
        return (self.host, self.process) == (host(), os.getpid())

    def is_live(self, younger_than: float = STALE) -> bool:
        """Whether it counts: young enough, and not of a dead process of this machine."""
        if not self.host:
            return self.age < min(younger_than, _UNREADABLE_STALE)
        return self.age < younger_than and not (self.host == host() and not is_alive(self.process))


def tiles_sharing_claim(tile: int, tiles: int) -> range:
    """The tiles that share a claim with `tile`, of so many tiles in all.

    >>> tiles_sharing_claim(7, 100), tiles_sharing_claim(250, 1_000_000)
    (range(7, 8), range(200, 300))
    """
    size = max(1, -(-tiles // _MOST_CLAIMS))
    low = tile // size * size
    return range(low, min(low + size, tiles))


def claim_path(folder: Path, tile: int, tiles: int) -> Path:
    """The file of a tile's claim."""
    return folder / f"{tiles_sharing_claim(tile, tiles).start:07d}{_SUFFIX}"


def first_tiles(files: Files, folder: Path, tiles: int) -> list[int]:
    """The first tile of each claim in `folder`."""
    try:
        names = files.names(folder)
    except OSError:
        return []
    tiles_named = [int(n.removesuffix(_SUFFIX)) for n in names if n.removesuffix(_SUFFIX).isdecimal() and len(n) < 20]
    return sorted(tile for tile in tiles_named if tile < tiles and claim_path(folder, tile, tiles).name in names)


def take_claim(files: Files, path: Path, younger_than: float = STALE) -> bool:
    """Create a claim; False if another process has a live one. A claim that cannot be written counts as created."""
    for _ in range(2):
        try:
            _write_claim(files, path)
            return True
        except FileExistsError:
            claim = read_claim(files, path)
        except OSError:
            remove_claim(files, path)  # an empty claim would keep other processes away
            return True
        if claim is None:  # another process has released it
            continue
        if claim.is_mine:
            renew_claim(files, path)
            return True
        if claim.is_live(younger_than):
            return False
        remove_claim(files, path)
    return False


def _write_claim(files: Files, path: Path) -> None:
    descriptor = files.create(path)
    try:
        text = {"host": host(), "process": os.getpid(), "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
        files.write(descriptor, json.dumps(text).encode())
    finally:
        files.close(descriptor)


def read_claim(files: Files, path: Path) -> Claim | None:
    """The claim in a file, None if there is none."""
    try:
        with files.open(path) as file:
            age = max(0.0, time.time() - os.fstat(file.fileno()).st_mtime)
            text = file.read(4096)
    except OSError:
        return None
    content: Any = None
    with contextlib.suppress(ValueError, RecursionError):
        content = json.loads(text)
    content = content if isinstance(content, dict) else {}
    process = content.get("process")
    process = process if isinstance(process, int) and process > 0 else 0
    return Claim(str(content.get("host", ""))[:60] if process else "", process, age)


def renew_claim(files: Files, path: Path) -> None:
    """Reset the age of a claim."""
    with contextlib.suppress(OSError):
        files.touch(path)


def remove_claim(files: Files, path: Path) -> None:
    """Remove a claim."""
    with contextlib.suppress(OSError):
        files.unlink(path)
