"""The values of the lanes of a sweep that exports and searches read, and the part of a result that they need."""

from collections.abc import Mapping
from typing import Any, Literal, Protocol

import numpy as np
import xarray as xr

from gdkit.monitors import EndKind
from gdkit.regimes import Regime, Thresholds
from gdkit.sweeps.description import LaneGrid
from gdkit.sweeps.scoring.direction import orient
from gdkit.types import State

At = Literal["end", "best"]  # of the evaluations along a run


class SweepLike(Protocol):
    """The views of a `SweepResult` on which recommendations, exports and searches rest."""

    @property
    def lanes(self) -> xr.Dataset: ...
    @property
    def grids(self) -> tuple[LaneGrid, ...]: ...
    @property
    def thresholds(self) -> Thresholds: ...
    @property
    def axes(self) -> dict[str, np.ndarray]: ...
    @property
    def main_axis(self) -> str | None: ...
    @property
    def optimizers(self) -> tuple[str, ...]: ...
    @property
    def seeds(self) -> int: ...
    @property
    def finished(self) -> np.ndarray: ...
    @property
    def has_all_statistics(self) -> bool: ...
    @property
    def lane_regimes(self) -> np.ndarray: ...
    def state(self, lane: int, *, at: At = ...) -> State: ...
    def curve(self, lane: int, name: str = ...) -> tuple[np.ndarray, np.ndarray]: ...
    def score_name(self, by: str | None = None) -> str: ...
    def is_maximized(self, by: str | None = None, maximize: bool | None = None) -> bool: ...
    def scores(self, by: str | None = None, maximize: bool | None = None) -> np.ndarray: ...


EVALUATION = "evaluation"  # the dimension of values on validation data along the run


def end_values(lanes: xr.Dataset) -> xr.Dataset:
    """The lanes with the value at their end in place of several evaluations along the run.

    All that ranks, tabulates or exports lanes uses these.
    """
    if EVALUATION not in lanes.dims:
        return lanes
    return lanes.isel({EVALUATION: -1}).drop_vars("evaluation_step", errors="ignore")


def find_best_steps(values: np.ndarray, steps: np.ndarray, end_step: np.ndarray, maximize: bool) -> np.ndarray:
    """The step of the best of the values of lanes, (lanes, evaluations), the first of equal ones; -1 if none is finite.

    >>> values, end_step = np.array([[3, 1, 2], [np.nan] * 3, [3, np.nan, 1]]), np.array([15, 0, 7])
    >>> find_best_steps(values, np.array([5, 10, 15]), end_step, False).tolist()
    [10, -1, 7]
    """
    scores = np.where(np.isfinite(values), orient(values, maximize), np.inf)
    found = np.minimum(steps[np.argmin(scores, axis=-1)], end_step)
    return np.where(np.isfinite(scores).any(axis=-1), found, -1)


def read_curve(lanes: xr.Dataset, lane: int, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of one of `curve_names` of a lane up to its end, that at the end included; (points,) each."""
    of_lane = lambda name: lanes[name].values[lane]  # `lanes.isel` would take each of the many variables
    end = int(of_lane("end_step"))
    if name in lanes and EVALUATION in lanes[name].dims:
        steps, values, last = lanes["evaluation_step"].values, of_lane(name), of_lane(name)[-1]
    elif name != "loss":  # what the loss logs has no value of its own at the end
        is_reached = lanes["curve_step"].values <= end
        return lanes["curve_step"].values[is_reached], of_lane(f"curve_{name}")[is_reached]
    else:
        has_curve, last = "curve_loss" in lanes, of_lane("final_loss")
        steps = lanes["curve_step"].values if has_curve else np.zeros(0, np.int32)
        values = of_lane("curve_loss") if has_curve else np.zeros(0)
    if of_lane("end_kind") == EndKind.RUNNING:  # it has no value at its end yet
        is_reached = (steps <= end + 1) & ~np.isnan(values)
        return steps[is_reached], values[is_reached]
    before = steps < end
    return np.append(steps[before], end), np.append(values[before], last)


def curve_names(lanes: xr.Dataset) -> list[str]:
    """The curves of a lane: ``loss``, values on validation data along the run, and what the loss logs."""
    evaluated = [str(name) for name, v in lanes.data_vars.items() if v.dims == ("lane", EVALUATION)]
    recorded = [str(name).removeprefix("curve_") for name in lanes.data_vars if str(name).startswith("curve_")]
    return list(dict.fromkeys(["loss", *evaluated, *recorded]))


def hyperparameters_of(result: SweepLike, lane: int) -> dict[str, Any]:
    """The hyperparameters that the optimizer of a lane has; the optimizer itself too, if it is an axis."""
    names = [*(["optimizer"] if result.optimizers else []), *result.axes]
    return plain_values({name: result.lanes[name].values[lane] for name in names})


def outcome_of(result: SweepLike, lane: int) -> dict[str, Any]:
    """The regime of a lane, its seed, its end and its final loss."""
    row = {name: result.lanes[name].values[lane].item() for name in ("seed", "end_step", "end_kind", "final_loss")}
    kind = EndKind(int(row["end_kind"])).name.lower()
    return {"regime": Regime(int(result.lane_regimes[lane])).name} | row | {"end_kind": kind, "lane": int(lane)}


def finite_curve(result: SweepLike, lane: int, name: str = "loss") -> dict[int, float]:
    """Step to value, finite values only."""
    steps, values = result.curve(lane, name)
    return {int(step): float(value) for step, value in zip(steps, values, strict=True) if np.isfinite(value)}


def finite_scores(result: SweepLike, by: str | None = None, maximize: bool | None = None) -> np.ndarray:
    """The variable `by` of every lane, with a finite value for diverged lanes where there is one; (lanes,).

    A loss is capped at the initial loss, min(loss, loss₀), as in the learning-rate sensitivity of Wortsman et al. 2023.
    Of other variables a diverged lane gets the worst value of a lane that did not diverge; if every lane diverged, no
    value is finite.
    """
    by, maximize = result.score_name(by), result.is_maximized(by, maximize)
    scores = result.scores(by, maximize)
    if by.endswith("_loss") and not maximize:
        start = result.lanes["initial_loss"].values.astype(float)
        cap = np.where(np.isfinite(start), start, np.max(start, where=np.isfinite(start), initial=-np.inf))
    else:
        cap = np.max(scores, where=np.isfinite(scores), initial=-np.inf)
    return orient(np.minimum(scores, cap), maximize)


def plain_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values as Python objects, without those that stand for an axis the optimizer lacks: NaN and empty text."""
    plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in values.items()}
    return {name: value for name, value in plain.items() if value == value and value != ""}
