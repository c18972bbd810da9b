"""A file system that fails, or stops and forgets, at any operation: for tests of what is published on it."""

import contextlib
import errno
import os
import secrets
from collections.abc import Callable
from pathlib import Path

from gdkit.store.files import FILES, Files

CHANGES = ("create", "write", "fsync", "close", "replace", "link", "unlink", "touch", "make_folder", "fsync_folder")


class Crash(BaseException):
    """The machine stopped: nothing that a program does after it has any effect."""


class Faults:
    """File operations that count, and of which one can fail, write short, or be the last.

    It knows what a disk has promised to keep: bytes that were synced, and names whose folder was synced after they were
    made. `settle` takes away what was not promised.

    Args:
      crash_at: the operation, by its number, before which the machine stops; a write still puts half its bytes there.
      fail_at: the operation that fails with `error`; a write still puts half its bytes there.
      error: an errno.
      short: whether every write takes one byte, or half of what it is given.
    """

    def __init__(self, *, crash_at: int = -1, fail_at: int = -1, error: int = errno.ENOSPC, short: bool = False):
        self.crash_at, self.fail_at, self.error, self.short = crash_at, fail_at, error, short
        self.done: list[str] = []  # names of operations so far
        self.dead = False
        self._paths: dict[int, Path] = {}  # descriptor -> path
        self._unsynced: set[int] = set()  # inodes
        self._names: list[tuple[Path, Callable[[], None]]] = []  # folder, how to undo a change of names in it

    @property
    def files(self) -> Files:
        """The operations."""
        return FILES._replace(**{name: self._guarded(name) for name in CHANGES})

    def _guarded(self, name: str) -> Callable:
        do = getattr(self, f"_{name}", getattr(FILES, name))

        def operation(*args):
            number = len(self.done)
            self.done.append(name)
            if self.dead or number == self.crash_at:
                if name == "write" and not self.dead:
                    self._write(args[0], args[1][: len(args[1]) // 2])
                self.dead = True
                if name == "close":  # so that the test process does not run out of descriptors
                    os.close(args[0])
                raise Crash
            if number == self.fail_at:
                if name == "write":
                    self._write(args[0], args[1][: len(args[1]) // 2])
                if name == "close":
                    os.close(args[0])
                raise OSError(self.error, os.strerror(self.error))
            return do(*args)

        return operation

    def _create(self, path: Path) -> int:
        descriptor = FILES.create(path)
        self._paths[descriptor] = path
        self._unsynced.add(path.stat().st_ino)
        self._names.append((path.parent, lambda: _remove(path)))
        return descriptor

    def _write(self, descriptor: int, data) -> int:
        self._unsynced.add(os.fstat(descriptor).st_ino)
        return os.write(descriptor, data[: max(1, len(data) // 2)] if self.short else data)

    def _fsync(self, path: Path) -> None:
        self._unsynced.discard(path.stat().st_ino)

    def _replace(self, source: Path, target: Path) -> None:
        old = self._name_before(target)  # the inode that a lost rename brings back
        with contextlib.suppress(FileNotFoundError):
            os.link(target, old)
        os.replace(source, target)

        def undo() -> None:
            os.replace(target, source)
            with contextlib.suppress(FileNotFoundError):
                os.replace(old, target)

        self._names.append((target.parent, undo))

    def _name_before(self, path: Path) -> Path:
        """A name for what is there now; unique, since several of these objects may see one folder."""
        return path.with_name(f"{path.name}.before{secrets.token_hex(4)}")

    def _link(self, source: Path, target: Path) -> None:
        os.link(source, target)
        self._names.append((target.parent, lambda: _remove(target)))

    def _unlink(self, path: Path) -> None:
        old = self._name_before(path)
        os.rename(path, old)
        self._names.append((path.parent, lambda: os.replace(old, path)))

    def _make_folder(self, path: Path) -> None:
        os.mkdir(path)
        self._names.append((path.parent, lambda: _remove_folder(path)))

    def _fsync_folder(self, path: Path) -> None:
        self._names = [(folder, undo) for folder, undo in self._names if folder != path]

    def settle(self, root: Path, *, names: bool, data: str) -> None:
        """Bring the disk into a state in which a loss of power may have left it.

        Args:
          root: the folder that everything lies in.
          names: whether changes of names whose folder was not synced were kept.
          data: what became of bytes that were not synced: ``"kept"``, ``"lost"``, ``"cut"`` in half or ``"zeros"``.
        """
        if not names:
            for _, undo in reversed(self._names):
                with contextlib.suppress(FileNotFoundError):
                    undo()
        for path in [p for p in root.rglob("*") if p.is_file()]:
            if ".before" in path.name:
                path.unlink()
            elif path.stat().st_ino in self._unsynced and data != "kept":
                size = path.stat().st_size
                os.truncate(path, 0 if data != "cut" else size // 2)
                os.truncate(path, size if data == "zeros" else path.stat().st_size)


def filling(room: int) -> Files:
    """File operations on a disk that takes so many bytes, and then is full."""
    left = [room]

    def write(descriptor: int, data) -> int:
        fits = data[: left[0]]
        left[0] -= len(fits)
        if not len(fits):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return os.write(descriptor, fits)

    return FILES._replace(write=write)


def _remove(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        path.unlink()


def _remove_folder(path: Path) -> None:
    for inside in sorted(path.rglob("*"), reverse=True):
        inside.rmdir() if inside.is_dir() else inside.unlink()
    path.rmdir()
