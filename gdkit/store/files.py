"""The file operations of a run directory, and the publication of whole files."""

import contextlib
import errno
import functools
import os
import secrets
import socket
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from gdkit.errors import StoreError

_CHUNK = 2**20  # bytes: smaller pieces are joined before they are written


class Files(NamedTuple):
    """Every file operation of a store; tests replace them to make one fail, or to stop the machine before one."""

    create: Callable[[Path], int]  # exclusively, for writing
    write: Callable[[int, Any], int]
    close: Callable[[int], None]
    fsync: Callable[[Path], None]
    replace: Callable[[Path, Path], None]
    link: Callable[[Path, Path], None]
    unlink: Callable[[Path], None]
    touch: Callable[[Path], None]
    make_folder: Callable[[Path], None]
    fsync_folder: Callable[[Path], None]
    names: Callable[[Path], list[str]]
    open: Callable[[Path], BinaryIO]  # for reading


def _create(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)


def _fsync(path: Path, flags: int = os.O_RDWR | getattr(os, "O_BINARY", 0)) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _fsync_folder(path: Path) -> None:
    if hasattr(os, "O_DIRECTORY"):  # Windows cannot open directories, and makes renames durable itself
        _fsync(path, os.O_RDONLY | os.O_DIRECTORY)


def _open(path: Path) -> BinaryIO:
    return open(path, "rb", buffering=_CHUNK)


FILES = Files(
    _create, os.write, os.close, _fsync, os.replace, os.link, os.unlink, os.utime, os.mkdir, _fsync_folder,
    os.listdir, _open,
)  # fmt: skip


def publish(files: Files, path: Path, pieces: Iterable[Any], *, exclusive: bool = False, lasting: bool = True) -> None:
    """Write the file `path` atomically and durably.

    The bytes are written to a temporary file in the same folder, which is synced and then gets the name; the folder is
    synced last. So at every instant, even after a loss of power, `path` is as before or whole.

    Args:
      files: the file operations.
      path: the file.
      pieces: its content, bytes or arrays of them.
      exclusive: whether an existing file is an error. A hard link never replaces one, unlike a rename, and never shows
        a file that is still being written, unlike exclusive creation.
      lasting: whether the file must survive a loss of power. If not, nothing is synced, and any bytes may remain.

    Raises:
      FileExistsError: with `exclusive`, the file exists.
      OSError: the system refused; nothing has changed, or only the sync of the folder failed.
    """
    give_name(files, write_temporary(files, path, pieces), path, exclusive=exclusive, lasting=lasting)


def publish_output(path: Path, pieces: Iterable[Any], *, files: Files = FILES) -> None:
    """`publish` a file that is derived from a run, such as its results, a figure or a report.

    Raises:
      StoreError: the system refused; the error names the file and the remedy.
    """
    try:
        publish(files, path, pieces)
    except OSError as error:
        raise failed("it cannot be written", path, error, saved="") from error


def write_temporary(files: Files, path: Path, pieces: Iterable[Any]) -> Path:
    """The first half of `publish`, which does not wait for the disk: write the temporary file for `give_name`.

    Raises:
      OSError: the system refused; nothing has changed.
    """
    temporary = temporary_for(path)
    try:
        _write_whole(files, temporary, pieces)
    except BaseException:
        with contextlib.suppress(OSError):
            files.unlink(temporary)
        raise
    return temporary


def give_name(files: Files, temporary: Path, path: Path, *, exclusive: bool = False, lasting: bool = True) -> None:
    """The second half of `publish`: sync the temporary file and give it its name."""
    try:
        if lasting:
            files.fsync(temporary)
        (files.link if exclusive else files.replace)(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            files.unlink(temporary)
        raise
    if exclusive:
        with contextlib.suppress(OSError):
            files.unlink(temporary)
    if lasting:
        files.fsync_folder(path.parent)


def temporary_for(path: Path) -> Path:
    """A unique name beside `path` that names the writing process, for `paths.list_left_behind`."""
    writer = f"{host()}.{os.getpid()}.{threading.get_ident()}-{secrets.token_hex(4)}"
    return path.with_name(f".{path.name}.{writer}.tmp")


def _write_whole(files: Files, path: Path, pieces: Iterable[Any]) -> None:
    descriptor = files.create(path)
    try:
        for piece in _join_pieces(pieces):
            view = memoryview(piece)
            while view:  # a write may take only part of what it gets
                view = view[files.write(descriptor, view) :]
    finally:
        files.close(descriptor)


def _join_pieces(pieces: Iterable[Any]) -> Iterable[Any]:
    """The same bytes in fewer pieces: small ones are joined, large ones are not copied."""
    small, size = [], 0
    for piece in pieces:
        if len(piece) >= _CHUNK or size >= _CHUNK:
            yield b"".join(small)
            small, size = [], 0
        if len(piece) >= _CHUNK:
            yield piece
        else:
            small.append(piece)
            size += len(piece)
    yield b"".join(small)


def make_folder(files: Files, path: Path) -> None:
    """Create a folder durably in an existing one; it may exist already."""
    with contextlib.suppress(FileExistsError):
        files.make_folder(path)
    files.fsync_folder(path.parent)


@functools.cache
def host() -> str:
    """The scope of process numbers: this machine's name, with the process namespace in a container that has its own."""
    name = "".join(c if c.isalnum() or c == "-" else "_" for c in socket.gethostname())[:40]
    try:
        space = os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return name
    return name if space == _FIRST_SPACE else f"{name}-{space}"


_FIRST_SPACE = 0xEFFFFFFC  # of the machine itself (Linux, include/linux/proc_ns.h, PROC_PID_INIT_INO)


def is_alive(process: int) -> bool:
    """Whether a process of this machine has not ended; True where that is unknown."""
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it belongs to another user
        return True
    return not _is_zombie(process)


def _is_zombie(process: int) -> bool:
    """Whether a process has ended and its parent has not collected its exit code; False where that is unknown."""
    try:
        return Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].split()[0] in (b"Z", b"X")
    except (OSError, IndexError):
        return False


_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_PERMISSION = {errno.EACCES, errno.EPERM, errno.EROFS}
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


def failed(what: str, path: Path, error: OSError, *, saved: str = "Finished tiles can be read. ") -> StoreError:
    """The error for an operation that the system refused, with what is `saved` and a remedy by its reason."""
    remedy = "Check the disk, then run the same command again"
    if error.errno in _NO_SPACE:
        remedy = "Make room and run the same command again"
    if error.errno in _NO_PERMISSION:
        remedy = "Make it writable, or name another directory"
    if error.errno in _NO_LINKS:
        remedy = "Make it writable, or name a directory on a file system that has hard links"
    if error.errno == errno.ENOENT:
        remedy = "It was removed or renamed: put it back, or name another directory"
    return StoreError(f"{path}: {what} ({error.strerror or error}). {saved}{remedy}.")
