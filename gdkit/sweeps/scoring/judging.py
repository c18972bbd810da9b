"""The regimes of the lanes of a result, and where divergence begins."""

import json
import math
from typing import Any

import numpy as np
import xarray as xr

from gdkit.errors import bad_value
from gdkit.monitors import EndKind
from gdkit.regimes import Regime, Thresholds, Verdict, classify, has_left_bounds
from gdkit.sweeps.scoring.scores import find_bracket


def has_all_statistics(lanes: xr.Dataset) -> bool:
    """Whether the statistics that regimes need were recorded, not only those of the ends."""
    return _asked(lanes).get("statistics", "all") == "all"


def has_regimes(lanes: xr.Dataset) -> bool:
    """Whether the regimes of runs that did not diverge are known too."""
    return bool(lanes.attrs.get("regimes_known", 1))


def judge_lanes(lanes: xr.Dataset, thresholds: Thresholds) -> Verdict:
    """The verdict on every lane, each array (lanes,); an unfinished lane counts as SLOW.

    Raises:
      InputValueError: the sweep recorded the ends alone.
    """
    if not has_all_statistics(lanes):
        problem = "regimes are not available: the statistics that they need were not recorded"
        raise bad_value("statistics", "ends", problem, "Run the sweep with statistics='all'")
    statistics: dict[str, Any] = {str(n): v.values for n, v in lanes.data_vars.items() if v.dims == ("lane",)}
    statistics["stochastic"] = bool(lanes.attrs["stochastic"])
    optimum = lanes["reference_loss"].values if lanes.attrs["optimum_known"] else None
    above = _asked(lanes).get("diverged_above", 1e6)
    above = math.inf if above is None else above  # JSON has no infinity
    verdict = classify(statistics, optimum=optimum, thresholds=thresholds, diverged_above=above)
    is_finished = lanes["end_kind"].values != EndKind.RUNNING
    return verdict._replace(regime=np.where(is_finished, verdict.regime, np.int8(Regime.SLOW)))


def judge_ends(lanes: xr.Dataset) -> np.ndarray:
    """DIVERGED where the loss left its bounds and UNKNOWN elsewhere, by the ends of lanes alone; (lanes,)."""
    diverged = has_left_bounds({"end_kind": lanes["end_kind"].values})
    return np.where(diverged, Regime.DIVERGED, Regime.UNKNOWN).astype(np.int8)


def find_edges(diverged: xr.DataArray, finished: xr.DataArray, axis: str) -> xr.Dataset:
    """The bracket of divergence along a numeric axis, as `SweepResult.edge` describes it.

    Whether lanes diverged and finished is given along a dimension of `axis` and ``seed``.
    """
    diverged, finished = diverged.sortby(axis), finished.sortby(axis)
    values, dimension = diverged[axis].values.astype(float), diverged[axis].dims[0]
    low, high, simple = xr.apply_ufunc(
        lambda diverged, finished: find_bracket(values[finished], diverged[finished]),
        diverged,
        finished,
        input_core_dims=[[dimension], [dimension]],
        output_core_dims=[[], [], []],
        vectorize=True,
    )
    middle = xr.where((low > 0) & np.isfinite(high), np.sqrt(low * high), (low + high) / 2)
    edges = xr.Dataset({"low": low, "high": high, "edge": xr.where(low > 0, middle, low), "simple": simple})
    return edges.assign(median=edges["edge"].median("seed"))


def _asked(lanes: xr.Dataset) -> dict[str, Any]:
    """Arguments of the sweep that are in no other attribute."""
    return json.loads(lanes.attrs.get("asked", "{}"))
