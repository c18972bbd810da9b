"""Named arrays in one file: an uncompressed .npz with a checksum, which numpy alone can read.

Members are ``.npy`` files of plain little-endian numbers in C order. Two members are added to the arrays: ``about``,
the bytes of a small JSON object, and ``checksum``, the SHA-256 of all others. Equal arrays make equal bytes.
"""

import functools
import hashlib
import json
import math
import re
import struct
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gdkit.errors import DamagedFileError, bad_type, bad_value
from gdkit.store.files import Files

PLAIN = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "complex64", "complex128"),
)
ABOUT, CHECKSUM = "about", "checksum"
_DTYPES = {np.dtype(name).newbyteorder("<").str: np.dtype(name).newbyteorder("<") for name in PLAIN}
_ABOUT_BYTES = 2**20  # most bytes of `about`
_MEMBER_BYTES = 1024  # most bytes of a member besides its numbers and two copies of its name


class Kind(NamedTuple):
    """Dtype and shape of an array."""

    dtype: str  # a name of PLAIN
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Bytes of its numbers."""
        return np.dtype(self.dtype).itemsize * math.prod(self.shape)


def pack_arrays(about: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> list[Any]:
    """The content of a file as pieces to write one after the other; large arrays are not copied."""
    text = np.frombuffer(json.dumps(about, sort_keys=True).encode(), np.uint8)
    members = {ABOUT: text} | {name: _as_plain(x) for name, x in arrays.items()}
    members[CHECKSUM] = np.frombuffer(checksum(members), np.uint8)
    pieces: Any = _Pieces()
    with zipfile.ZipFile(pieces, "w") as archive:
        for name, x in members.items():
            large = x.nbytes > 2**30
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=large) as member:
                member.write(_header(x.dtype.str, x.shape))
                member.write(_as_bytes(x))
    return pieces


class _Pieces(list):
    """A stream for `zipfile` that collects the pieces written to it."""

    def write(self, piece: Any) -> int:
        self.append(piece)
        return len(piece)

    def flush(self) -> None:
        pass


def checksum(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The SHA-256 over names, dtypes, shapes and numbers, in the order of the names."""
    sha = hashlib.sha256()
    for name in sorted(arrays):
        x = arrays[name]
        sha.update(json.dumps([name, x.dtype.str, x.shape]).encode() + b"\n")
        sha.update(_as_bytes(x))
    return sha.digest()


def digest(*things: Any) -> str:
    """The hexadecimal SHA-256 of texts, bytes and arrays of numbers, each with its kind and size.

    >>> digest("a", "b") == digest("ab"), digest(np.float32([0, 1])) == digest(np.float64([0, 1]))
    (False, False)
    """
    sha = hashlib.sha256()
    for thing in things:
        if isinstance(thing, str | bytes):
            data = thing.encode() if isinstance(thing, str) else thing
            kind = type(thing).__name__
        else:
            array = np.asarray(thing)
            if array.dtype.hasobject:
                raise bad_value("things", thing, "it has no fixed bytes", "Pass texts, bytes or arrays of numbers")
            data, kind = array.tobytes(), f"{array.dtype.name} {array.shape}"
        sha.update(f"{kind} {len(data)}\n".encode())
        sha.update(data)
    return sha.hexdigest()


def _as_plain(x: np.ndarray) -> np.ndarray:
    dtype = x.dtype.newbyteorder("<")
    if dtype.str not in _DTYPES:
        raise bad_type("dtype", x.dtype, "not a plain number", f"Pass one of {', '.join(PLAIN)}")
    return np.asarray(x, dtype, order="C")


def _as_bytes(x: np.ndarray) -> memoryview:
    return x.reshape(-1).view(np.uint8).data


@functools.lru_cache(maxsize=4096)
def _header(dtype: str, shape: tuple[int, ...]) -> bytes:
    """The header of a .npy file, padded to a multiple of 64 bytes (numpy.lib.format, version 1.0)."""
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


_HEADER = re.compile(
    rb"\{'descr': '([<|][a-z]\d{1,2})', 'fortran_order': False, 'shape': \(((?:\d{1,18}, ?)*(?:\d{1,18})?)\), \} *\n"
)


@functools.lru_cache(maxsize=4096)
def _read_header(text: bytes) -> tuple[np.dtype, tuple[int, ...]]:
    """Dtype and shape of a header in the form that `_header` writes; nothing is evaluated."""
    match = _HEADER.fullmatch(text)
    dtype = _DTYPES.get(match[1].decode()) if match else None
    if match is None or dtype is None:
        raise ValueError("not an array of plain numbers in C order")
    return dtype, tuple(int(size) for size in match[2].split(b",") if size.strip())


# Reading: a file is checked before memory is allocated for it.


def read_arrays(
    files: Files, path: Path, like: Mapping[str, Kind] | None = None, only: Sequence[str] | None = None
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The ``about`` and the arrays, read-only, of a file that `pack_arrays` made.

    Args:
      files: the file operations.
      path: the file.
      like: dtype and shape of every array that the file must have; by default any arrays are read.
      only: names of arrays to read, without verifying the checksum; by default all are read and verified.

    Raises:
      DamagedFileError: the file is not whole, not what was written, or its arrays are not `like` those.
      OSError: the system refused to open it.
    """
    with files.open(path) as file:
        try:
            return _unpack(file, like, only)
        except _READ_ERRORS as error:
            raise damage_error(path, error or type(error).__name__) from error


def damage_error(path: Path, cause: object) -> DamagedFileError:
    """The error for a tile or a checkpoint that is not what was written."""
    return DamagedFileError(f"{path}: it is damaged: {cause}. Run the same command again to compute it anew.")


_READ_ERRORS = (
    *(ValueError, OSError, EOFError, OverflowError, NotImplementedError, RuntimeError),
    *(struct.error, zipfile.BadZipFile),
)


def _unpack(file: Any, like: Mapping[str, Kind] | None, only: Sequence[str] | None) -> tuple[dict, dict]:
    size = file.seek(0, 2)
    most = sum(kind.bytes + 2 * len(name.encode()) + _MEMBER_BYTES for name, kind in like.items()) if like else size
    if size > most + 2 * _ABOUT_BYTES:
        raise ValueError(f"it has {size:,} bytes and should have {most:,}")
    file.seek(0)
    if file.read(4) != b"PK\x03\x04":  # zipfile would raise the same error for a disk that cannot be read
        raise ValueError("it does not begin like a zip file")
    places = _locate_members(file, size)
    names = places.keys() - {ABOUT, CHECKSUM}
    if len(names) + 2 != len(places) or (like is not None and names != like.keys()):
        known = {ABOUT, CHECKSUM} | (names if like is None else like.keys())
        raise ValueError(f"its arrays are not those of this run: {_list_names(known ^ places.keys())}")
    arrays = {}
    for name in places if only is None else (ABOUT, *only):
        arrays[name] = _read_member(file, name, *places[name], (like or {}).get(name))
    text = arrays[ABOUT] if only is not None else arrays.pop(ABOUT)
    if only is None:
        stored_checksum = arrays.pop(CHECKSUM)
        if stored_checksum.tobytes() != checksum({ABOUT: text, **arrays}):
            raise ValueError("its checksum does not match")
    return read_json(text.tobytes()), {name: arrays[name] for name in (arrays if only is None else only)}


def _locate_members(file: Any, size: int) -> dict[str, tuple[int, int]]:
    """Offset and bytes of each member."""
    with zipfile.ZipFile(file) as archive:
        infos = archive.infolist()
    places = {info.filename.removesuffix(".npy"): (info.header_offset, info.file_size) for info in infos}
    if len(places) < len(infos):
        raise ValueError("it has an array twice")
    for info in infos:
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 or info.file_size != info.compress_size:
            raise ValueError(f"{_list_names([info.filename])} is compressed or encrypted")
    if sum(info.file_size for info in infos) > size:
        raise ValueError("its arrays are larger than the file")
    return places


def _read_member(file: Any, name: str, begin: int, size: int, like: Kind | None) -> np.ndarray:
    if size > _ABOUT_BYTES and name in (ABOUT, CHECKSUM):
        raise ValueError(f"{name} has {size:,} bytes")
    file.seek(begin)
    local = file.read(30)
    file.seek(sum(struct.unpack_from("<HH", local, 26)), 1)  # the member's name and extra field
    start = file.read(min(10, size))
    if start[:8] != b"\x93NUMPY\x01\x00":
        raise ValueError(f"{_list_names([name])} is not an array")
    text = file.read(min(struct.unpack_from("<H", start, 8)[0], size - 10))
    dtype, shape = _read_header(text)
    if like is not None and (dtype.name, shape) != like:
        raise ValueError(f"{name} is {dtype.name} {shape} and should be {like.dtype} {like.shape}")
    count = math.prod(shape)
    if count * dtype.itemsize != size - 10 - len(text):
        raise ValueError(f"{_list_names([name])} has {size:,} bytes, which do not fit {dtype.name} {shape}")
    return np.frombuffer(file.read(count * dtype.itemsize), dtype, count).reshape(shape)


def read_json(text: bytes) -> dict[str, Any]:
    """Parse a JSON object.

    Raises:
      ValueError: it is not one.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is not JSON ({error})") from error
    if not isinstance(content, dict):
        raise ValueError("it is not a JSON object")
    return content


def _list_names(names: Any) -> str:
    """The first names, escaped and cut for a message."""
    return ", ".join(ascii(str(name))[1:-1][:40] for name in sorted(names, key=str)[:4])


# Dtypes that numpy itself does not have, such as bfloat16, are stored as their bits.


def encode_exotic(leaves: Sequence[np.ndarray]) -> tuple[list[np.ndarray], dict[str, str]]:
    """The leaves as arrays of plain numbers; and leaf number -> dtype name of those that are stored as their bits."""
    plain, names = [], {}
    for number, leaf in enumerate(leaves):
        if not isinstance(leaf, np.ndarray | np.generic):
            remedy = "Pass np.asarray(x), and of PRNG keys np.asarray(jax.random.key_data(x))"
            raise bad_type(f"leaves[{number}]", type(leaf), "not a numpy array", remedy)
        leaf = np.asarray(leaf)
        if leaf.dtype.name not in PLAIN:
            names[str(number)] = _check_exotic(f"leaves[{number}]", leaf.dtype).name
            leaf = leaf.view(f"u{leaf.dtype.itemsize}")
        plain.append(leaf)
    return plain, names


def decode_exotic(plain: Sequence[np.ndarray], names: Mapping[str, str]) -> list[np.ndarray]:
    """The leaves that `encode_exotic` was given.

    Raises:
      ValueError: a dtype is unknown on this machine, or has another size.
    """
    leaves = []
    for number, x in enumerate(plain):
        dtype = _find_exotic(names[str(number)]) if str(number) in names else x.dtype
        if dtype.itemsize != x.dtype.itemsize:
            raise ValueError(f"leaf {number} is {x.dtype} and cannot be {dtype}")
        leaves.append(x.view(dtype))
    return leaves


def stored_dtype(dtype: Any) -> str:
    """The plain dtype in which numbers of `dtype` are stored."""
    dtype = np.dtype(dtype)
    return dtype.name if dtype.name in PLAIN else np.dtype(f"u{_check_exotic('dtype', dtype).itemsize}").name


def _check_exotic(argument: str, dtype: np.dtype) -> np.dtype:
    try:
        return _find_exotic(dtype.name)
    except ValueError as error:
        raise bad_type(argument, dtype, "not an array of numbers", "Leave it out, or store its numbers") from error


def _find_exotic(name: Any) -> np.dtype:
    """A dtype of ml_dtypes, a dependency of JAX, by its name."""
    import ml_dtypes

    scalar = getattr(ml_dtypes, str(name), None)
    if not (isinstance(scalar, type) and issubclass(scalar, np.generic)):
        raise ValueError(f"no dtype is called {name!r}")
    return np.dtype(scalar)
