"""A finished result as one netCDF file, written whole or not at all, and verified before it is read.

The file is built in memory, since HDF5 crashes the process where a disk is full, and published like a tile. Its last
bytes hold the SHA-256 of all bytes before; readers of HDF5 ignore what follows the data. HDF5 never sees bytes that
this checksum does not confirm: on damaged files it may hang, exhaust memory, crash, or give other numbers.
"""

import io
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gdkit.errors import DamagedFileError, bad_value, import_package
from gdkit.seals import Seal
from gdkit.store.arrays import digest
from gdkit.store.files import FILES, Files, failed, publish_output
from gdkit.store.paths import as_path

if TYPE_CHECKING:
    import xarray as xr

FORMAT = 2
RESULTS = "results.nc"
SEAL = Seal(b"\ngdkit results 2\nsha256 ", b"\n")
_CHECKSUM = "sha256"  # attribute of each variable
REMEDY = "Open the folder of its run instead, which has the tiles, or save the result again"


def save(lanes: "xr.Dataset", path: str | os.PathLike[str], *, files: Files = FILES) -> None:
    """Publish a dataset as `path`: at every instant the file there is the old one or the new one, whole.

    Raises:
      InputValueError: `path` is a directory, or its folder does not exist.
      StoreError: the system refused, for example since the disk is full; a file there is as before.
    """
    import_package("h5netcdf", "app", "Saving and opening results")
    path = as_path("path", path)
    if path.is_dir():
        raise bad_value("path", str(path), "it is a directory", f"Name a file, for example {path / RESULTS}")
    if not path.parent.is_dir():
        raise bad_value("path", str(path), "its folder does not exist", f"Make it first: mkdir -p {path.parent}")
    publish_output(path, SEAL.sign([_encode(lanes)]), files=files)


def load(path: str | os.PathLike[str], *, remedy: str = REMEDY) -> "xr.Dataset":
    """Read what `save` wrote; `path` is the file or the directory of a run.

    Raises:
      InputValueError: there is no file.
      DamagedFileError: the file is not what `save` wrote; the message ends with `remedy`.
    """
    import_package("h5netcdf", "app", "Saving and opening results")
    path = as_path("path", path)
    if path.is_dir() and not (path / RESULTS).is_file():
        remedy = "Run the config or the sweep first, or wait until its programs are compiled"
        raise bad_value("path", str(path), "there is no result: no run has begun in this folder", remedy)
    path = path / RESULTS if path.is_dir() else path
    if not path.is_file():
        raise bad_value(
            "path", str(path), "there is no result", "Name a file that SweepResult.save wrote, or a run directory"
        )
    try:
        content = path.read_bytes()
    except OSError as error:
        raise failed("it cannot be read", path, error, saved="") from error
    damage = SEAL.find_damage(content)
    if damage:
        raise unusable_results(path, f"{damage}, and nothing else can tell whether its numbers are right", remedy)
    try:
        return _decode(content)
    except (OSError, ValueError, KeyError, RuntimeError, TypeError) as error:
        raise unusable_results(path, error, remedy) from error


def holds_run(path: Path, run: str, lanes: int) -> bool:
    """Whether a file is whole, and has all `lanes` of the run with the digest `run`; faster than `load`."""
    import h5netcdf

    try:
        content = path.read_bytes()
        if SEAL.find_damage(content):
            return False
        with h5netcdf.File(io.BytesIO(content), "r") as file:
            ended = file.variables["end_kind"][...]
            return file.attrs.get("run") == run and len(ended) == lanes and bool(np.all(ended))
    except (OSError, ValueError, KeyError, RuntimeError, TypeError):
        return False


def unusable_results(path: Path, cause: object, remedy: str) -> DamagedFileError:
    """The error for a file that is not a result, or not the one that belongs there."""
    return DamagedFileError(f"{path}: it cannot be used: {cause}. {remedy}.")


def _encode(lanes: "xr.Dataset") -> Any:
    """The bytes of a netCDF file, each variable with its checksum."""
    import h5netcdf
    from xarray.backends import H5NetCDFStore

    # xarray cannot write a dimension-less object or a boolean through h5netcdf; texts become plain strings
    texts = {n: (c.dims, c.values.astype(str)) for n, c in lanes.coords.items() if c.dtype.kind == "O"}
    lanes = lanes.assign_coords(texts).assign_attrs(format=FORMAT)
    for variable in lanes.variables.values():
        variable.encoding = {"_FillValue": None}  # otherwise readers replace each NaN by another
        variable.attrs = variable.attrs | {_CHECKSUM: checksum(variable.values)}
    stream = io.BytesIO()
    with h5netcdf.File(stream, "w") as file:
        lanes.dump_to_store(H5NetCDFStore(file))
    return stream.getbuffer()


def _decode(content: bytes) -> "xr.Dataset":
    """The dataset in the verified bytes of a file.

    Raises:
      ValueError: it is not one that `_encode` wrote.
    """
    import xarray as xr

    with xr.open_dataset(io.BytesIO(content), engine="h5netcdf", phony_dims="sort") as dataset:
        if dataset.attrs.get("format") != FORMAT:
            raise ValueError(f"it is no result of format {FORMAT}")
        if dataset.nbytes > len(content):  # impossible, since nothing is compressed
            raise ValueError("its arrays are larger than the file")
        lanes = dataset.load()
    for name, variable in lanes.variables.items():
        if variable.attrs.pop(_CHECKSUM, None) != checksum(variable.values):
            raise ValueError(f"the checksum of {name} does not match")
    del lanes.attrs["format"]
    plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in lanes.attrs.items()}
    return lanes.assign_attrs(plain)  # the Python values that were saved


def checksum(values: np.ndarray) -> str:
    """The checksum of a variable: `digest` of its numbers, or of its texts as a JSON list.

    >>> checksum(np.array(["sgd"])) == digest('["sgd"]'), checksum(np.float32([1])) == digest(np.float32([1]))
    (True, True)
    """
    return digest(json.dumps(values.astype(str).tolist()) if values.dtype.kind in "OUS" else values)
