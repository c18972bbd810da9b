"""Synthetic results of sweeps, made without compiling anything."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from gdkit.monitors import EndKind, curve_steps
from gdkit.sweeps.description import LaneGrid
from gdkit.sweeps.result.result import SweepResult

STEPS = 200


def result(
    optimizers: Sequence[str] = ("sgd", "adam"),
    *,
    rates: int = 12,
    others: Mapping[str, Sequence] | None = None,
    seeds: int = 3,
    key: int = 0,
    edge: float = 1.0,
    shift: float = 0.0,
    points: int = 40,
) -> SweepResult:
    """Runs that are best at a fifth of `edge` and diverge above it; for adam both are a tenth of that."""
    axes = {"learning_rate": np.geomspace(1e-3, 10, rates)} | {n: np.asarray(v) for n, v in (others or {}).items()}
    coords = _coordinates(optimizers, axes, seeds)
    rate, seed = coords["learning_rate"], coords["seed"]
    edges = np.where(coords["optimizer"] == "adam", edge / 10, edge) * (1 + 0.01 * seed)
    noise = np.random.default_rng(key).normal(size=len(rate))
    reached = np.minimum(0.1 * np.log10(rate / (edges / 5)) ** 2 + 0.005 + 0.001 * noise**2 + shift, 2.9)
    columns = _columns(rate, reached, rate > edges)
    steps = curve_steps(points)
    steps = steps[steps <= STEPS]
    fall = reached[:, None] + (3 - reached[:, None]) / (1 + steps)
    curve = np.where((rate > edges)[:, None], 3.0 * 10.0 ** np.minimum(steps, 30), fall)
    curve = np.where(steps < columns["end_step"][:, None], curve, np.nan)
    narrow = lambda v: v.astype(np.int32 if v.dtype.kind == "i" else np.float32)
    variables: dict[str, Any] = {name: ("lane", narrow(v)) for name, v in columns.items()}
    variables |= {"curve_loss": (("lane", "point"), curve.astype(np.float32))}
    variables |= {"reference_loss": ("lane", np.zeros(len(rate)))}
    named: dict[str, Any] = {name: ("lane", v) for name, v in coords.items()}
    grids = tuple(LaneGrid(label, tuple((n, (n,), len(v)) for n, v in axes.items())) for label in optimizers)
    attributes = _attributes(seeds, key) | {"forms": json.dumps(grids)}
    return SweepResult(xr.Dataset(variables, named | {"curve_step": ("point", steps)}, attributes), grids)


def _coordinates(optimizers: Sequence[str], axes: Mapping[str, np.ndarray], seeds: int) -> dict[str, np.ndarray]:
    places = np.indices((*map(len, axes.values()), seeds)).reshape(len(axes) + 1, -1)
    at = np.tile(places, len(optimizers))
    coords = {name: values[at[i]] for i, (name, values) in enumerate(axes.items())}
    return coords | {"seed": at[-1], "optimizer": np.repeat(list(optimizers), places.shape[1])}


def _columns(rate: np.ndarray, reached: np.ndarray, lost: np.ndarray) -> dict[str, np.ndarray]:
    """Statistics of the default monitors, sharpness and Lyapunov exponent as on a quadratic; not finite if diverged."""
    at = lambda gone, here: np.where(lost, gone, here)
    even = lambda value: np.full(len(rate), value)
    return {
        "initial_loss": even(3.0),
        "final_loss": at(np.inf, reached),
        "min_loss": at(3.0, reached),
        "min_step": at(0, STEPS),
        "max_loss": at(1e8, 3.0),
        "max_step": at(6, 0),
        "late_mean": at(1e8, reached),
        "earlier_mean": at(1e4, reached + 0.1),
        "late_spread": even(0.01),
        "late_predicted": even(0.001),
        "increases": even(0.0),
        "reversal": even(0.5),
        "reversal_step": even(-1),
        "update_norm": at(np.nan, 0.01),
        "peak_update_norm": even(1.0),
        "end_step": at(7, STEPS),
        "end_kind": at(int(EndKind.NONFINITE), int(EndKind.STEPS)),
        "validation_loss": at(np.nan, reached * 1.1),
        "test_loss": at(np.nan, reached * 1.2),
        "test_accuracy": at(np.nan, 1 - reached / 4),
        "sharpness": 2 / np.maximum(rate, 0.5),
        "lyapunov_exponent": np.log(rate),
    }


def _attributes(seeds: int, key: int) -> dict[str, Any]:
    return {
        "steps": STEPS,
        "seeds": seeds,
        "key": json.dumps([0, key]),
        "stochastic": 0,
        "optimum_known": 1,
        "plan": json.dumps({"width": 8, "workers": 1}),
        "timings": json.dumps({"seconds": 1.5}),
        "device": "cpu",
        "cores": 1,
        "versions": json.dumps({"gdkit": "0"}),
    }
