"""Results from columns of lanes, from files and from run directories."""

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from gdkit import store
from gdkit.errors import DamagedFileError, GdkitError, StoreError, bad_value, warn
from gdkit.monitors import EndKind
from gdkit.regimes import Thresholds
from gdkit.sweeps.description import Description, extend_grids, read_grids
from gdkit.sweeps.result.labels import label_columns
from gdkit.sweeps.result.result import SweepResult
from gdkit.sweeps.rundir.unfinished import read_columns


def assemble(
    described: Description,
    columns: Mapping[str, np.ndarray],
    timings: Mapping[str, Any],
    narrower: Mapping[int, Any] | None = None,
) -> SweepResult:
    """The result of a sweep, from its description and the columns that its lanes report, name to (lanes, ...).

    ``end_kind`` is 0 in lanes that have not ended; `timings` are seconds by what they were spent on; `narrower` has the
    widths and depths of the blocks that ran with fewer lanes than planned, by the tiles of a run directory.
    """
    lanes = label_columns(described, columns, timings, narrower)
    return SweepResult(lanes, described.grids)


def read_result(path: str | Path, read_thresholds: Callable[[str], Thresholds] | None = None) -> SweepResult:
    """The result in a file or a run directory, without its code, which `gdkit.open` adds so that it can be resumed.

    In a run directory the file of results is read if it is complete and belongs to this run; else a warning names it,
    and the tiles are read. Tiles do not have thresholds: `read_thresholds` finds those in the text of a config.

    Raises:
      GdkitError: there is no result, or it is damaged or of another run.
    """
    path = Path(path)
    if not (path / store.manifest.NAME).is_file():
        is_beside = path.name == store.RESULTS and (path.parent / store.manifest.NAME).is_file()
        return _read_file(path, _open_run(path.parent) if is_beside else None)
    run = _open_run(path)
    if run is None or (path / store.RESULTS).is_file():
        try:
            return _read_file(path, run, "The tiles are read instead; gdkit report writes it again")
        except DamagedFileError as error:
            if run is None:
                raise
            warn(str(error))
    result, config = _read_tiles(run), run[0].manifest.config
    return dataclasses.replace(result, thresholds=read_thresholds(config)) if read_thresholds and config else result


def name_run(result: SweepResult, path: Path) -> SweepResult:
    """The result with the digest of the run in the directory `path`, which files derived from it carry."""
    run = store.run_digest(store.open_with_extensions(path))
    return dataclasses.replace(result, lanes=result.lanes.assign_attrs(run=run))


def has_results(path: Path) -> bool:
    """Whether the run directory `path` has a whole file of results, of its own run where its manifest can be read."""
    try:
        run = store.open_with_extensions(path)
    except StoreError:
        return _is_readable(path)
    lanes = sum(part.partition.lanes for part in run)
    return store.holds_run(path / store.RESULTS, store.run_digest(run), lanes)


def _is_readable(path: Path) -> bool:
    try:
        _read_file(path, None)
    except GdkitError:
        return False
    return True


def _open_run(path: Path) -> Sequence[store.Store] | None:
    """A run and its extensions; None, with a warning, if a manifest is damaged and there are results to read."""
    try:
        return store.open_with_extensions(path)
    except DamagedFileError as error:
        if not (path / store.RESULTS).is_file():
            raise
        warn(f"{error} Its results are read: {path / store.RESULTS}.")
        return None


def _read_file(path: Path, run: Sequence[store.Store] | None, remedy: str = store.REMEDY) -> SweepResult:
    """The result in a file, or in that of a directory, which must be that of a whole run if one is given."""
    lanes = store.load(path, remedy=remedy)
    try:
        if run is not None:
            _check_is_of_run(lanes, run)
        saved = json.loads(lanes.attrs.pop("thresholds"))
        names = {f.name for f in dataclasses.fields(Thresholds)}
        thresholds = Thresholds(**{name: value for name, value in saved.items() if name in names})
        return SweepResult(lanes, read_grids(json.loads(lanes.attrs["forms"])), thresholds)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        file = path / store.RESULTS if path.is_dir() else path
        raise store.unusable_results(file, error, remedy) from error


def _check_is_of_run(lanes: xr.Dataset, run: Sequence[store.Store]) -> None:
    """Raise ValueError unless the lanes are those of a run, all of them and finished."""
    if lanes.attrs.get("run") != store.run_digest(run):
        raise ValueError("it holds another run")
    count = sum(part.partition.lanes for part in run)
    if lanes.sizes["lane"] != count or not (lanes["end_kind"] != EndKind.RUNNING).all():
        raise ValueError("it holds a part of the run")


def _read_tiles(run: Sequence[store.Store]) -> SweepResult:
    """The result in the tiles of a run and of its extensions."""
    described, columns = _read_part(run[0])
    timings, values = Counter(_read_timings(run[0])), columns.values
    for extension in run[1:]:
        more, added = _read_part(extension)
        listed = [zip(one.grids, one.axes, strict=True) for one in (described, more)]
        extended, old, new = extend_grids(*listed)
        grids, axes = zip(*extended, strict=True)
        described = described._replace(grids=grids, axes=axes, attrs=described.attrs | {"forms": json.dumps(grids)})
        values = merge_columns(described, [(values, old), (added.values, new)])
        timings.update(_read_timings(extension))
    return name_run(assemble(described, values, timings, columns.narrower), run[0].path)


def merge_columns(
    described: Description, parts: Iterable[tuple[Mapping[str, np.ndarray], np.ndarray]]
) -> dict[str, np.ndarray]:
    """The columns of a sweep from those of its parts, each with the numbers of its points, (points,)."""
    seeds, columns = int(described.attrs["seeds"]), {}
    lanes = sum(grid.points for grid in described.grids) * seeds
    for values, points in parts:
        rows = (points[:, None] * seeds + np.arange(seeds)).ravel()
        for name, column in values.items():
            columns.setdefault(name, np.empty((lanes, *column.shape[1:]), column.dtype))[rows] = column
    return columns


def _read_part(run: store.Store) -> tuple[Description, store.Columns]:
    """The sweep of a run directory, and its columns."""
    try:
        described = Description.from_json(run.manifest.plan["result"])
    except (KeyError, TypeError, ValueError) as error:
        raise bad_value(
            "path", str(run.path), f"its manifest describes no sweep ({error!r})", "Run it again"
        ) from error
    return described, read_columns(run)


def _read_timings(run: store.Store) -> Mapping[str, float]:
    """Seconds of a run by what they were spent on."""
    return run.timings() or {"seconds": seconds_of(run.path)}


def seconds_of(run: Path) -> float:
    """Seconds from the manifest of a run to its last tile, over all processes, pauses included."""
    begin = (run / store.manifest.NAME).stat().st_mtime
    ends = (folder.stat().st_mtime for folder in (run / "tiles").iterdir())
    return max(begin, max(ends, default=begin)) - begin  # a copy may have other times
