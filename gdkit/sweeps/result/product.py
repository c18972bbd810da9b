"""Conversion between the lanes of a sweep in a row and their product over axes and seeds."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from gdkit.sweeps.description import LaneGrid


def lane_coordinates(
    grids: Sequence[LaneGrid], values: Sequence[Mapping[str, np.ndarray]], seeds: int
) -> dict[str, Any]:
    """Axes, optimizer and seed as coordinates on ``lane``; NaN or "" where an optimizer lacks the axis."""
    names = dict.fromkeys(name for own in values for name in own)
    parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for grid, axes in zip(grids, values, strict=True):
        places = np.indices(grid.shape).reshape(len(grid.shape), grid.points)
        along = zip(grid.dimensions, places, strict=True)
        own = {name: axes[name][place] for (_, listed, _), place in along for name in listed}
        for name in names:
            missing = np.full(grid.points, np.nan)
            parts[name].append(np.repeat(own.get(name, missing), seeds))
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
        return np.concatenate(parts)
    lacks = lambda part: part.dtype.kind == "f" and np.isnan(part).all()
    return np.concatenate([np.full(len(part), "") if lacks(part) else part.astype(str) for part in parts])
