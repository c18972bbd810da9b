"""Checks of the arguments of questions to a result."""

import numpy as np
import xarray as xr

from gdkit.errors import bad_value, unknown_name
from gdkit.formatting import count
from gdkit.sweeps.scoring.lane_values import SweepLike, end_values


def check_lane(result: SweepLike, lane: int) -> int:
    """The place of a lane as an integer, which must be on ``lane``."""
    if isinstance(lane, bool) or not isinstance(lane, int | np.integer) or not 0 <= lane < result.lanes.sizes["lane"]:
        raise bad_value("lane", lane, "no such lane", f"Pass 0 to {result.lanes.sizes['lane'] - 1}")
    return int(lane)


def check_finished(result: SweepLike) -> None:
    """Raise unless some lane has finished."""
    if not result.finished.any():
        lanes = count(result.finished.size, "lane")
        raise bad_value("result", lanes, "none has finished, so that none is the best", "Resume the sweep first")


def check_score_name(result: SweepLike, by: str) -> str:
    """The name of a variable that has one value per lane."""
    names = [str(name) for name, values in end_values(result.lanes).data_vars.items() if values.dims == ("lane",)]
    if isinstance(by, str) and by not in names and (by in result.lanes or f"curve_{by}" in result.lanes):
        problem = "a curve, an array or a coordinate, of which a run has no value at its end"
        raise bad_value("by", by, problem, f"Name a variable with one value per run: {', '.join(sorted(names))}")
    if by not in names:
        raise unknown_name("by", by, names)
    return by


def check_axis(result: SweepLike, axis: str | None, array: xr.Dataset | xr.DataArray) -> str:
    """The name of a numeric axis of `array`: `axis`, or by default the main axis of the result."""
    axis = result.main_axis if axis is None else axis
    if axis is None:
        raise bad_value("axis", None, "the sweep has no numeric axis", "Sweep one, for example learning_rate")
    if not isinstance(axis, str) or axis not in result.axes or axis not in array.coords:
        raise unknown_name("axis", axis, result.axes)
    if array[axis].dtype.kind not in "fiu":
        raise bad_value("axis", axis, "its values are not numbers", "Choose a numeric axis")
    return axis
