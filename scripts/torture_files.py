"""Files of a finished run with other contents: damaged, of another run, or hostile."""

import functools
import io
import os
import pickle
import random
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from gdkit.store.netcdf import SEAL


class Spoiled(NamedTuple):
    """A file of a run with another content."""

    file: str
    way: str
    content: bytes
    keeps_results: bool  # whether results.nc stays beside it


def spoiled_files(reference: Path, other: Path, chance: random.Random, quick: bool) -> Iterator[Spoiled]:
    """Files of `reference`, damaged at random places, exchanged for those of `other`, or replaced by hostile ones."""
    tile, last = "tiles/0000/0000001.npz", "tiles/0000/0000002.npz"
    times = {"results.nc": 60, "manifest.json": 40, tile: 60, "timings.npz": 15, "lanes/0000/0000001.npz": 10}
    for file, count in times.items():
        raw, foreign = (reference / file).read_bytes(), (other / file).read_bytes()
        ways = dict(_damages(chance)) | dict(_foreign(foreign, (reference / last).read_bytes()))
        for way, spoil in ways.items():
            for number in range(1 if quick or way in EXCHANGES else count):
                keeps = file == "results.nc" or (file == "manifest.json" and number % 2 == 0)
                yield Spoiled(file, way, spoil(raw), keeps)


EXCHANGES = {
    "of another run", "another tile", "a pickle", "emptied", "an archive with a pickle",
    "an archive that unpacks to 1 GiB", "HDF5 of another program", "HDF5 of another program, signed",
    "HDF5 that claims 8 TiB, signed", "a text, signed",
}  # fmt: skip


def _damages(chance: random.Random) -> Iterator[tuple[str, Callable[[bytes], bytes]]]:
    place = lambda raw: chance.randrange(len(raw))

    def overwrite(raw: bytes, lengths: tuple[int, ...], make: Callable[[int], bytes]) -> bytes:
        at, length = place(raw), chance.choice(lengths)
        return raw[:at] + make(len(raw[at : at + length])) + raw[at + length :]

    def flip(raw: bytes) -> bytes:
        at = place(raw)
        return raw[:at] + bytes([raw[at] ^ (1 << chance.randrange(8))]) + raw[at + 1 :]

    yield "a bit flipped", flip
    yield "zeros", lambda raw: overwrite(raw, (1, 16, 512, 4096), bytes)
    yield "noise", lambda raw: overwrite(raw, (4, 64, 512), chance.randbytes)
    yield "cut short", lambda raw: raw[: place(raw)]
    yield "appended to", lambda raw: raw + chance.randbytes(1 + chance.randrange(600))
    yield "emptied", lambda raw: b""


def _foreign(foreign: bytes, another: bytes) -> Iterator[tuple[str, Callable[[bytes], bytes]]]:
    hdf5, huge = _hdf5(), _hdf5(huge=True)
    yield "of another run", lambda _: foreign
    yield "another tile", lambda _: another
    yield "a pickle", lambda _: pickle.dumps(os.getcwd)
    yield "an archive with a pickle", lambda _: _archive(np.array([os.getcwd], object))
    yield "an archive that unpacks to 1 GiB", lambda _: _bomb()
    yield "HDF5 of another program", lambda _: hdf5
    yield "HDF5 of another program, signed", lambda _: b"".join(SEAL.sign([hdf5]))
    yield "HDF5 that claims 8 TiB, signed", lambda _: b"".join(SEAL.sign([huge]))
    yield "a text, signed", lambda _: b"".join(SEAL.sign([b"text"]))


def _hdf5(*, huge: bool = False) -> bytes:
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        file.attrs["format"] = 2
        file.create_dataset("final_loss", (2**40,) if huge else (3,), "f8", chunks=(1024,) if huge else None)
    return stream.getvalue()


def _archive(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, about=array, checksum=array)
    return stream.getvalue()


@functools.cache
def _bomb() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file, file.open("about.npy", "w") as member:
        for _ in range(64):
            member.write(bytes(2**24))
    return stream.getvalue()
