"""The columns of lanes as one labelled dataset, in a row or as a product over axes and seeds."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from gdkit.descent.evaluation import default_score, is_along, is_maximized
from gdkit.monitors import EndKind
from gdkit.regimes import least_loss
from gdkit.sweeps.description import Description, LaneGrid
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
    optimum = columns.get("optimum")
    if optimum is not None and not np.isnan(optimum).any():
        return optimum.astype(float)
    codes = np.zeros(len(columns["final_loss"]), np.int64)
    for name in problem_axes:
        values, index = np.unique(coords[name][1], return_inverse=True)
        codes = codes * len(values) + index
    lowest = np.zeros(codes.shape)
    for code in np.unique(codes):
        mine = (codes == code) & (columns["end_kind"] != EndKind.RUNNING)
        seen = {n: columns[n][mine] for n in ("late_mean", "min_loss", "end_kind") if n in columns}
        lowest[codes == code] = least_loss(seen | {"stochastic": stochastic})
    return lowest if optimum is None else np.where(np.isnan(optimum), lowest, optimum)


def lane_coordinates(
    grids: Sequence[LaneGrid], values: Sequence[Mapping[str, np.ndarray]], seeds: int
) -> dict[str, Any]:
    """Axes, optimizer and seed as coordinates on ``lane``; NaN or "" where an optimizer lacks the axis."""
    names = dict.fromkeys(name for own in values for name in own)
    parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for grid, axes in zip(grids, values, strict=True):
        own = {}
        for dimension, (_, axis_names, size) in enumerate(grid.dimensions):
            along = (size, *(1 for _ in grid.shape[dimension + 1 :]))
            own |= {name: np.broadcast_to(axes[name].reshape(along), grid.shape).flatten() for name in axis_names}
        for name in names:
            of_points = own[name] if name in own else np.full(grid.points, np.nan)
            parts[name].append(np.repeat(of_points, seeds) if seeds > 1 else of_points)
    coords: dict[str, Any] = {name: ("lane", _concatenate(values)) for name, values in parts.items()}
    coords["seed"] = ("lane", np.tile(np.arange(seeds), sum(grid.points for grid in grids)))
    if grids[0].label is not None:
        labels = [np.full(grid.points * seeds, grid.label, dtype=object) for grid in grids]
        coords["optimizer"] = ("lane", np.concatenate(labels).astype(str))
    return coords


def unstack(lanes: xr.Dataset, grids: tuple[LaneGrid, ...], seeds: int) -> xr.Dataset:
    """`lanes` reshaped to the product over axes and seeds; unchanged where the optimizers have different axes."""
    first = grids[0]
    rows = first.points * seeds
    for number, grid in enumerate(grids):
        mine = slice(number * rows, (number + 1) * rows)
        has_values = lambda name, mine=mine: np.array_equal(lanes[name].values[mine], lanes[name].values[:rows])
        if grid.dimensions != first.dimensions or not all(map(has_values, first.axes)):
            return lanes
    sizes = {name: size for name, _, size in first.dimensions} | {"seed": seeds}
    several = len(grids) > 1
    if several:
        sizes = {"optimizer": len(grids)} | sizes
    coords: dict[str, Any] = {"seed": ("seed", np.arange(seeds))}
    if first.label is not None:
        coords["optimizer"] = ("optimizer", [grid.label for grid in grids]) if several else first.label
    places = np.arange(rows).reshape(*first.shape, seeds)
    for i, (dimension, axes, _) in enumerate(first.dimensions):
        along = np.moveaxis(places, i, 0).reshape(places.shape[i], -1)[:, 0]
        coords |= {axis: (dimension, lanes[axis].values[along]) for axis in axes}
    shape = tuple(sizes.values())
    variables = {
        name: ((*sizes, *v.dims[1:]), v.values.reshape(*shape, *v.shape[1:])) for name, v in lanes.data_vars.items()
    }
    coords |= {name: lanes[name] for name in ("curve_step", "evaluation_step") if name in lanes.coords}
    return xr.Dataset(variables, coords, lanes.attrs)


def find_rows(lanes: xr.Dataset, values: Mapping[str, Any]) -> np.ndarray:
    """The places of the lanes that have these values of coordinates."""
    mine = np.ones(lanes.sizes["lane"], bool)
    for name, value in values.items():
        mine &= lanes[name].values == value
    return np.flatnonzero(mine)


def distinct(values: np.ndarray) -> np.ndarray:
    """Distinct values in order of appearance, without NaN and empty text."""
    return np.asarray([v for v in dict.fromkeys(values.tolist()) if v == v and v != ""])


def _concatenate(parts: list[np.ndarray]) -> np.ndarray:
    """One coordinate from those of several optimizers; text where any is, empty where an optimizer lacks the axis."""
    if all(part.dtype.kind in "fiu" for part in parts):
        return np.concatenate(parts) if len(parts) > 1 else parts[0]
    lacks = lambda part: part.dtype.kind == "f" and np.isnan(part).all()
    return np.concatenate([np.full(len(part), "") if lacks(part) else part.astype(str) for part in parts])
