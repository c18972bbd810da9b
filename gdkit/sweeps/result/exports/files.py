"""A result as a table, a report and a file, and the params of a lane as a file."""

import dataclasses
import importlib
import json
from pathlib import Path
from typing import Any

import pandas as pd

from gdkit import store
from gdkit.errors import missing_package
from gdkit.regimes import Regime
from gdkit.store.paths import as_path
from gdkit.sweeps import checkpoints
from gdkit.sweeps.result.arguments import check_finished, check_lane
from gdkit.sweeps.scoring.lane_values import At, SweepLike, end_values, plain_values


def to_dataframe(result: SweepLike) -> pd.DataFrame:
    """A pandas DataFrame: one row per lane, its regime by name, without curves."""
    lanes = end_values(result.lanes)
    flat = lanes.drop_dims([dim for dim in lanes.dims if dim != "lane"])
    frame = flat.to_dataframe().reset_index(drop=True)
    names = [n for n in ("optimizer", *result.axes, "seed") if n in frame]
    frame.insert(0, "regime", [Regime(int(code)).name for code in result.lane_regimes])
    return frame[[*names, *(c for c in frame if c not in names)]]


def export(result: SweepLike, lane: int, path: str | Path, *, at: At = "end") -> None:
    """Write the trained params of a lane to a file that other libraries read; its state is that of `state`.

    A ``.safetensors`` file holds the params by their paths, such as ``layers/0/w``, and aux by names that begin
    with ``aux/``; a path without a suffix becomes the folder of an Orbax checkpoint, with the items ``params``,
    ``aux``, ``opt_state`` and ``metadata``. Metadata are hyperparameters, seed, step, loss and score.
    `sweep` starts from either by ``start=``.

    Raises:
      MissingPackageError: safetensors, or orbax-checkpoint, is not installed.
      InputValueError: no such lane or state, or the path cannot be used.
      StoreError: the system refused.
    """
    lane, path = check_lane(result, lane), as_path("path", path)
    state, row, by = result.state(lane, at=at), end_values(result.lanes).isel(lane=lane), result.score_name()
    names = [name for name in ("optimizer", *result.axes, "seed") if name in row.coords]
    values = plain_values({name: row[name].values[()] for name in names})
    numbers = {name: row[name].values.item() for name in dict.fromkeys(("end_step", "final_loss", by))}
    numbers |= {"best_evaluation": row["best_evaluation"].values.item()} if at == "best" else {}
    checkpoints.write_params(path, state, values | numbers)


def report(result: SweepLike, path: str | Path, *, title: str | None = None, by: str | None = None) -> Path:
    """Write the report: one HTML file with the answer, figures and a table of runs, which works offline.

    Args:
      path: the file, or an existing folder, where it is ``report.html``.
      title: at its top; by default the name of the file or the folder.
      by: the variable that points are compared by, as in `best`.

    Returns:
      The path of the file.

    Raises:
      InputValueError: no lane has finished; `by` is not a variable.
      MissingPackageError: the packages of the extra ``app`` are not installed.
    """
    check_finished(result)
    try:
        # by name, since reports rest on results, and not the other way
        app: Any = importlib.import_module("gdkit.app.report.write")
    except ModuleNotFoundError as error:
        raise missing_package(str(error.name), "app", "A report") from error
    return app.write_result_report(result, path, title=title, by=by)


def save(result: SweepLike, path: str | Path) -> None:
    """Write the result to one netCDF file, atomically; `gdkit.open` reads it."""
    store.save(result.lanes.assign_attrs(thresholds=json.dumps(dataclasses.asdict(result.thresholds))), path)
