"""The columns of lanes as one labelled dataset."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from gdkit.descent.evaluation import default_score, is_along, is_maximized
from gdkit.monitors import EndKind
from gdkit.regimes import least_loss
from gdkit.sweeps.description import Description
from gdkit.sweeps.result.product import lane_coordinates
from gdkit.sweeps.scoring.direction import maximized_names
from gdkit.sweeps.scoring.lane_values import EVALUATION, find_best_steps


def import_array_types() -> None:
    """Import what xarray imports before it makes its first array: dask, if it is installed, which takes a second."""
    xr.Variable((), 0)


def label_columns(
    described: Description,
    columns: Mapping[str, np.ndarray],
    timings: Mapping[str, Any],
    narrower: Mapping[int, Any] | None = None,
) -> xr.Dataset:
    """The lanes of a sweep, each variable on the dimension ``lane``; the arguments are those of `assemble`."""
    coords = lane_coordinates(described.grids, described.axes, described.attrs["seeds"])
    variables: dict[str, Any] = {name: ("lane", v) for name, v in columns.items() if v.ndim == 1}
    variables |= {
        name: (("lane", *(f"{name}_{i}" for i in range(1, v.ndim))), v) for name, v in columns.items() if v.ndim > 1
    }
    curves = [n for n, v in columns.items() if n.startswith("curve_") and v.shape[1:] == described.curve_step.shape]
    if curves:
        variables |= {name: (("lane", "point"), columns[name]) for name in curves}
        coords["curve_step"] = ("point", described.curve_step)
    if described.evaluation_step.size:
        shape = described.evaluation_step.shape
        along = [name for name, v in columns.items() if is_along(name) and v.shape[1:] == shape]
        variables |= {name: (("lane", EVALUATION), columns[name]) for name in along}
        coords["evaluation_step"] = (EVALUATION, described.evaluation_step)
        names = maximized_names(described.attrs)
        if (by := default_score(along, names)) in along:
            given = columns[by], described.evaluation_step, columns["end_step"], is_maximized(names, by)
            variables["best_evaluation"] = ("lane", find_best_steps(*given))
    problem_axes = [n for n in coords if n.startswith("problem.")]
    stochastic = bool(described.attrs["stochastic"])
    variables["reference_loss"] = ("lane", _reference_loss(columns, coords, problem_axes, stochastic))
    attrs = described.attrs | {"timings": json.dumps(timings)}
    attrs |= {"narrower": json.dumps(narrower)} if narrower else {}
    return xr.Dataset(variables, coords, attrs)


def _reference_loss(
    columns: Mapping[str, np.ndarray], coords: Mapping[str, Any], problem_axes: list[str], stochastic: bool
) -> np.ndarray:
    """The loss that regimes are judged against: the optimum, or the lowest loss observed on the same problem."""
    lanes = len(columns["final_loss"])
    optimum = columns.get("optimum", np.full(lanes, np.nan)).astype(float)
    codes = np.zeros(lanes, np.int64)
    for name in problem_axes:
        values, index = np.unique(coords[name][1], return_inverse=True)
        codes = codes * len(values) + index
    lowest = np.zeros(lanes)
    for code in np.unique(codes):
        mine = (codes == code) & (columns["end_kind"] != EndKind.RUNNING)
        seen = {n: columns[n][mine] for n in ("late_mean", "min_loss", "end_kind") if n in columns}
        lowest[codes == code] = least_loss(seen | {"stochastic": stochastic})
    return np.where(np.isnan(optimum), lowest, optimum)
