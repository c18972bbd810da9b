"""Named arrays in one file: an uncompressed .npz that numpy alone reads, with a checksum inside.

Members are ``.npy`` files of plain little-endian numbers in C order. Two come on top of the arrays: ``about``, the
bytes of a small JSON object, and ``checksum``, the SHA-256 of all the others. Equal arrays make equal bytes.
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
_PLACES = {np.dtype(name).newbyteorder("<").str: np.dtype(name).newbyteorder("<") for name in PLAIN}
_SMALL = 2**20  # bytes that `about` has at most
_FRAME = 1024  # bytes at most that a member takes besides its numbers and, twice, its name


class Kind(NamedTuple):
    """What an array is."""

    dtype: str  # a name of PLAIN
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """How many its numbers take."""
        return np.dtype(self.dtype).itemsize * math.prod(self.shape)


def packed(about: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> list[Any]:
    """The content of a file, as pieces to be written one after the other; large arrays are not copied."""
    text = np.frombuffer(json.dumps(about, sort_keys=True).encode(), np.uint8)
    members = {ABOUT: text} | {name: _plain(x) for name, x in arrays.items()}
    members[CHECKSUM] = np.frombuffer(checksum(members), np.uint8)
    pieces: Any = _Pieces()
    with zipfile.ZipFile(pieces, "w") as archive:
        for name, x in members.items():
            large = x.nbytes > 2**30
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=large) as member:
                member.write(_header(x.dtype.str, x.shape))
                member.write(_bytes(x))
    return pieces


class _Pieces(list):
    """A stream, as far as `zipfile` asks for one, that keeps what is written to it."""

    def write(self, piece: Any) -> int:
        self.append(piece)
        return len(piece)

    def flush(self) -> None:
        pass


def checksum(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The SHA-256 over names, dtypes, shapes and numbers, in the order of the names."""
    found = hashlib.sha256()
    for name in sorted(arrays):
        x = arrays[name]
        found.update(json.dumps([name, x.dtype.str, x.shape]).encode() + b"\n")
        found.update(_bytes(x))
    return found.digest()


def digest(*things: Any) -> str:
    """The SHA-256, in hexadecimal, of texts, bytes and arrays of numbers, each with its kind and size.

    >>> digest("a", "b") == digest("ab"), digest(np.float32([0, 1])) == digest(np.float64([0, 1]))
    (False, False)
    """
    found = hashlib.sha256()
    for thing in things:
        if isinstance(thing, str | bytes):
            data = thing.encode() if isinstance(thing, str) else thing
            kind = type(thing).__name__
        else:
            array = np.asarray(thing)
            if array.dtype.hasobject:
                raise bad_value("things", thing, "it has no fixed bytes", "Pass texts, bytes or arrays of numbers")
            data, kind = array.tobytes(), f"{array.dtype.name} {array.shape}"
        found.update(f"{kind} {len(data)}\n".encode())
        found.update(data)
    return found.hexdigest()


def _plain(x: np.ndarray) -> np.ndarray:
    dtype = x.dtype.newbyteorder("<")
    if dtype.str not in _PLACES:
        raise bad_type("dtype", x.dtype, "not a plain number", f"Pass one of {', '.join(PLAIN)}")
    return np.asarray(x, dtype, order="C")


def _bytes(x: np.ndarray) -> memoryview:
    return x.reshape(-1).view(np.uint8).data


@functools.lru_cache(maxsize=4096)
def _header(dtype: str, shape: tuple[int, ...]) -> bytes:
    """What comes before the numbers of a .npy file, to a multiple of 64 bytes (numpy.lib.format, version 1.0)."""
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


_HEADER = re.compile(
    rb"\{'descr': '([<|][a-z]\d{1,2})', 'fortran_order': False, 'shape': \(((?:\d{1,18}, ?)*(?:\d{1,18})?)\), \} *\n"
)


@functools.lru_cache(maxsize=4096)
def _read_header(text: bytes) -> tuple[np.dtype, tuple[int, ...]]:
    """Dtype and shape; the one form that is written is read, and nothing is evaluated."""
    found = _HEADER.fullmatch(text)
    dtype = _PLACES.get(found[1].decode()) if found else None
    if found is None or dtype is None:
        raise ValueError("not an array of plain numbers in C order")
    return dtype, tuple(int(size) for size in found[2].split(b",") if size.strip())


# Reading: what is wrong with a file is found before memory is taken for it.


def read(
    files: Files, path: Path, like: Mapping[str, Kind] | None = None, only: Sequence[str] | None = None
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What `packed` wrote: what it says about itself, and its arrays, which are read-only.

    Args:
      files: the file operations.
      path: the file.
      like: the arrays that must be there, and none besides; by default any.
      only: names of arrays that are wanted; by default all. Then the checksum is not looked at.

    Raises:
      DamagedFileError: the file is not whole, not what was written, or not `like` what it should be.
      OSError: the system will not open it.
    """
    with files.open(path) as file:
        try:
            return _unpacked(file, like, only)
        except _NOT_WHOLE as error:
            raise damaged(path, error or type(error).__name__) from error


def damaged(path: Path, what: object) -> DamagedFileError:
    """The error for a tile or a carry that is not what was written."""
    return DamagedFileError(f"{path}: it is damaged: {what}. Run the same again: it is computed anew.")


_NOT_WHOLE = (
    *(ValueError, OSError, EOFError, OverflowError, NotImplementedError, RuntimeError),
    *(struct.error, zipfile.BadZipFile),
)


def _unpacked(file: Any, like: Mapping[str, Kind] | None, only: Sequence[str] | None) -> tuple[dict, dict]:
    size = file.seek(0, 2)
    most = sum(kind.bytes + 2 * len(name.encode()) + _FRAME for name, kind in like.items()) if like else size
    if size > most + 2 * _SMALL:
        raise ValueError(f"it has {size:,} bytes and should have {most:,}")
    file.seek(0)
    if file.read(4) != b"PK\x03\x04":  # zipfile would say the same of a disk that cannot be read
        raise ValueError("it does not begin as a zip file")
    places = _members(file, size)
    names = places.keys() - {ABOUT, CHECKSUM}
    if len(names) + 2 != len(places) or (like is not None and names != like.keys()):
        known = {ABOUT, CHECKSUM} | (names if like is None else like.keys())
        raise ValueError(f"its arrays are not those of this run: {_some(known ^ places.keys())}")
    arrays = {}
    for name in places if only is None else (ABOUT, *only):
        arrays[name] = _array(file, name, *places[name], (like or {}).get(name))
    text = arrays[ABOUT] if only is not None else arrays.pop(ABOUT)
    if only is None:
        said = arrays.pop(CHECKSUM)
        if said.tobytes() != checksum({ABOUT: text, **arrays}):
            raise ValueError("its checksum does not match")
    return read_json(text.tobytes()), {name: arrays[name] for name in (arrays if only is None else only)}


def _members(file: Any, size: int) -> dict[str, tuple[int, int]]:
    """Where each member begins, and how many bytes it has."""
    with zipfile.ZipFile(file) as archive:
        infos = archive.infolist()
    places = {info.filename.removesuffix(".npy"): (info.header_offset, info.file_size) for info in infos}
    if len(places) < len(infos):
        raise ValueError("an array is there twice")
    for info in infos:
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 or info.file_size != info.compress_size:
            raise ValueError(f"{_some([info.filename])} is compressed or encrypted")
    if sum(info.file_size for info in infos) > size:
        raise ValueError("its arrays are larger than the file")
    return places


def _array(file: Any, name: str, begin: int, size: int, like: Kind | None) -> np.ndarray:
    if size > _SMALL and name in (ABOUT, CHECKSUM):
        raise ValueError(f"{name} has {size:,} bytes")
    file.seek(begin)
    local = file.read(30)
    file.seek(sum(struct.unpack_from("<HH", local, 26)), 1)  # the member's name, and what zip adds to it
    start = file.read(min(10, size))
    if start[:8] != b"\x93NUMPY\x01\x00":
        raise ValueError(f"{_some([name])} is not an array")
    text = file.read(min(struct.unpack_from("<H", start, 8)[0], size - 10))
    dtype, shape = _read_header(text)
    if like is not None and (dtype.name, shape) != like:
        raise ValueError(f"{name} is {dtype.name} {shape} and should be {like.dtype} {like.shape}")
    count = math.prod(shape)
    if count * dtype.itemsize != size - 10 - len(text):
        raise ValueError(f"{_some([name])} has {size:,} bytes and says that it is {dtype.name} {shape}")
    return np.frombuffer(file.read(count * dtype.itemsize), dtype, count).reshape(shape)


def read_json(text: bytes) -> dict[str, Any]:
    """A JSON object.

    Raises:
      ValueError: it is not.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is not JSON ({error})") from error
    if not isinstance(found, dict):
        raise ValueError("it is not a JSON object")
    return found


def _some(names: Any) -> str:
    """A few names, as they may be shown."""
    return ", ".join(ascii(str(name))[1:-1][:40] for name in sorted(names, key=str)[:4])


# Numbers that numpy itself does not know, as their bits.


def to_bits(leaves: Sequence[np.ndarray]) -> tuple[list[np.ndarray], dict[str, str]]:
    """Arrays of plain numbers; those of bfloat16 and its like as their bits, with the name of each dtype by place."""
    plain, names = [], {}
    for number, leaf in enumerate(leaves):
        if not isinstance(leaf, np.ndarray | np.generic):
            remedy = "Pass np.asarray(x), and of PRNG keys np.asarray(jax.random.key_data(x))"
            raise bad_type(f"leaves[{number}]", type(leaf), "not a numpy array", remedy)
        leaf = np.asarray(leaf)
        if leaf.dtype.name not in PLAIN:
            names[str(number)] = _known(f"leaves[{number}]", leaf.dtype).name
            leaf = leaf.view(f"u{leaf.dtype.itemsize}")
        plain.append(leaf)
    return plain, names


def from_bits(plain: Sequence[np.ndarray], names: Mapping[str, str]) -> list[np.ndarray]:
    """The arrays that `to_bits` was given.

    Raises:
      ValueError: a dtype that this machine does not know, or that has other bits.
    """
    leaves = []
    for number, x in enumerate(plain):
        dtype = _exotic(names[str(number)]) if str(number) in names else x.dtype
        if dtype.itemsize != x.dtype.itemsize:
            raise ValueError(f"leaf {number} is {x.dtype} and cannot be {dtype}")
        leaves.append(x.view(dtype))
    return leaves


def bits_of(dtype: Any) -> str:
    """The plain dtype that numbers of `dtype` are stored in."""
    dtype = np.dtype(dtype)
    return dtype.name if dtype.name in PLAIN else np.dtype(f"u{_known('dtype', dtype).itemsize}").name


def _known(argument: str, dtype: np.dtype) -> np.dtype:
    try:
        return _exotic(dtype.name)
    except ValueError as error:
        raise bad_type(argument, dtype, "not an array of numbers", "Leave it out, or store its numbers") from error


def _exotic(name: Any) -> np.dtype:
    """A dtype of ml_dtypes, which JAX brings along, by its name."""
    import ml_dtypes

    found = getattr(ml_dtypes, str(name), None)
    if not (isinstance(found, type) and issubclass(found, np.generic)):
        raise ValueError(f"no dtype is called {name!r}")
    return np.dtype(found)
