"""A finished result as one netCDF file, written whole or not at all."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gdkit.errors import bad_value, missing_package
from gdkit.store.files import FILES, Files, temporary_for

if TYPE_CHECKING:
    import xarray as xr

FORMAT = 1
RESULTS = "results.nc"


def save(lanes: "xr.Dataset", path: str | os.PathLike[str], *, files: Files = FILES) -> None:
    """Write a dataset to `path` under a temporary name, synced and then renamed, so that a file there is whole."""
    _require()
    path = Path(path)
    if path.is_dir():
        raise bad_value("path", str(path), "it is a directory", f"Name a file, for example {path / RESULTS}")
    if not path.parent.is_dir():
        raise bad_value("path", str(path), "its folder does not exist", f"Make it first: mkdir -p {path.parent}")
    # xarray cannot write a dimension-less object or a boolean through h5netcdf; texts become plain strings
    texts = {n: (c.dims, c.values.astype(str)) for n, c in lanes.coords.items() if c.dtype.kind == "O"}
    lanes = lanes.assign_coords(texts).assign_attrs(format=FORMAT)
    temporary = temporary_for(path)
    try:
        lanes.to_netcdf(temporary, engine="h5netcdf")
        files.fsync(temporary)
        files.replace(temporary, path)
        files.fsync_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def load(path: str | os.PathLike[str]) -> "xr.Dataset":
    """Read what `save` wrote; `path` is the file or the directory of a run."""
    _require()
    path = Path(path)
    if path.is_dir():
        path = path / RESULTS
    if not path.is_file():
        raise bad_value(
            "path", str(path), "there is no result", "Name a file that SweepResult.save wrote, or a run directory"
        )
    import xarray as xr

    try:
        with xr.open_dataset(path, engine="h5netcdf") as dataset:
            lanes = dataset.load()
    except (OSError, ValueError, KeyError) as error:
        raise bad_value("path", str(path), f"it cannot be read ({error})", "It may be damaged: run again") from error
    if lanes.attrs.pop("format", None) != FORMAT:
        raise bad_value("path", str(path), f"not a result of format {FORMAT}", "Open it with the gdkit that wrote it")
    plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in lanes.attrs.items()}
    return lanes.assign_attrs(plain)  # the Python values that were saved


def _require() -> None:
    try:
        import h5netcdf  # noqa: F401
    except ImportError as error:
        raise missing_package("h5netcdf", "app", "Saving and opening results") from error
