"""The values of lanes at their best evaluation along the run."""

from collections.abc import Hashable

import numpy as np
import xarray as xr

from gdkit.errors import bad_value
from gdkit.monitors import EndKind
from gdkit.sweeps.scoring.direction import orient
from gdkit.sweeps.scoring.lane_values import EVALUATION, find_best_steps
from gdkit.sweeps.scoring.scores import mean_scores


def best_values(lanes: xr.Dataset, seeds: int, by: str, maximize: bool) -> xr.Dataset:
    """The lanes with the values at the evaluation at which their point has the best mean of `by` over its seeds.

    A lane that ended before an evaluation counts there with its value at the end. Among equal evaluations the first is
    chosen. The variable ``evaluation_step`` is its step for each lane, at most the last step of the lane.

    Raises:
      InputValueError: `by` was not evaluated along the run.
    """
    check_along(lanes, by)
    steps, end = lanes["evaluation_step"].values, lanes["end_step"].values
    scores = orient(_hold_end(lanes[by].values, steps, end).astype(float), maximize)
    scores = np.where(np.isfinite(scores), scores, np.inf).reshape(-1, seeds, len(steps))
    finished = (lanes["end_kind"].values != EndKind.RUNNING).reshape(-1, seeds)
    means = np.stack([mean_scores(scores[..., i], finished) for i in range(len(steps))], axis=-1)
    place = np.repeat(np.argmin(means, axis=-1), seeds)
    chosen = {"evaluation_step": ("lane", np.minimum(steps[place], end))}
    along: list[Hashable] = [name for name, v in lanes.data_vars.items() if v.dims == ("lane", EVALUATION)]
    for name in along:
        values = _hold_end(lanes[name].values, steps, end)
        chosen[str(name)] = ("lane", values[np.arange(len(place)), place])
    return lanes.drop_vars([*along, "evaluation_step"]).assign(chosen)


def best_step(lanes: xr.Dataset, lane: int, by: str, maximize: bool) -> int:
    """The step of the best evaluation of a lane by `by`, at most its last step; the first among equal evaluations.

    Raises:
      InputValueError: `by` was not evaluated along the run, or no evaluation is finite.
    """
    check_along(lanes, by)
    row = lanes.isel(lane=[lane])
    step = int(find_best_steps(row[by].values, row["evaluation_step"].values, row["end_step"].values, maximize)[0])
    if step < 0:
        raise bad_value("lane", lane, f"no evaluation of {by} is finite", 'Take its state at="end"')
    return step


def check_along(lanes: xr.Dataset, by: str) -> None:
    """Raise unless the variable `by` was evaluated along the run."""
    if EVALUATION not in lanes[by].dims:
        remedy = "Pass evaluate_every= to sweep and compare by a value on validation data, or leave it out for the end"
        raise bad_value("at", "best", f"{by} was not evaluated along the run", remedy)


def _hold_end(values: np.ndarray, steps: np.ndarray, end_step: np.ndarray) -> np.ndarray:
    """Values (lanes, evaluations) with that at the end in the place of those after it."""
    return np.where(end_step[:, None] < steps, values[:, -1:], values)
