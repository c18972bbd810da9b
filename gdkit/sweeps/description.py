"""The description of a sweep: its axes, its arguments, and where it ran."""

import json
import os
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

import gdkit
from gdkit import monitors
from gdkit.sweeps.plan.shapes import count_visible_cores
from gdkit.sweeps.request import SweepRequest


class LaneGrid(NamedTuple):
    """The lanes of one optimizer as a product of dimensions; the seed is the last dimension, which is not listed."""

    label: str | None
    dimensions: tuple[tuple[str, tuple[str, ...], int], ...]  # name, axes, size

    @property
    def points(self) -> int:
        """Points of the product, seeds not counted."""
        return int(np.prod([size for _, _, size in self.dimensions], dtype=np.int64))


class Description(NamedTuple):
    """A sweep without the columns of its lanes."""

    grids: tuple[LaneGrid, ...]
    axes: tuple[dict[str, np.ndarray], ...]  # per grid, name -> values along the axis' dimension
    curve_step: np.ndarray  # (points,), the recorded steps
    attrs: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """The description as JSON values, except that numeric axes stay arrays."""
        axes = [{name: _column_as_json(values) for name, values in own.items()} for own in self.axes]
        return {"forms": self.grids, "axes": axes, "curve_step": self.curve_step.tolist(), "attrs": self.attrs}

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> "Description":
        """The description that `as_json` wrote."""
        read = lambda column: np.asarray(column["values"], column["dtype"])
        axes = tuple({name: read(column) for name, column in own.items()} for own in content["axes"])
        steps = np.asarray(content["curve_step"], np.int32)
        return Description(read_grids(content["forms"]), axes, steps, dict(content["attrs"]))


def describe(
    request: SweepRequest, *, stochastic: bool, optimum_known: bool, maximized: Iterable[str], plan: Mapping[str, Any]
) -> Description:
    """The description of the sweep that `request` asks for; `maximized` are the metrics that are to be large."""
    dims = lambda s: tuple((d.name, tuple(a.name for a in d.axes), d.size) for d in s.dimensions)
    grids = tuple(LaneGrid(section.label, dims(section)) for section in request.sections)
    axes = tuple({a.name: a.labels for d in s.dimensions for a in d.axes} for s in request.sections)
    steps = monitors.curve_steps(request.curve_points) if request.curve_points else np.zeros(0, np.int32)
    attrs = {
        "steps": request.steps,
        "seeds": request.seeds,
        "key": json.dumps(np.asarray(jax.random.key_data(request.key)).tolist()),
        "stochastic": int(stochastic),
        "optimum_known": int(optimum_known),
        "maximized": json.dumps(list(maximized)),
        "forms": json.dumps(grids),
        "asked": json.dumps(_get_settings(request)),
        "plan": json.dumps(plan),
        "device": str(jax.devices()[0].device_kind),
        "cores": count_visible_cores(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "versions": json.dumps({"gdkit": gdkit.__version__, "jax": jax.__version__, "numpy": np.__version__}),
    }
    return Description(grids, axes, steps[steps <= request.steps], attrs)


def read_grids(content: Iterable[Any]) -> tuple[LaneGrid, ...]:
    """The grids from JSON: a label and dimensions each."""
    dimensions = lambda listed: tuple((name, tuple(axes), size) for name, axes, size in listed)
    return tuple(LaneGrid(label, dimensions(listed)) for label, listed in content)


def _get_settings(request: SweepRequest) -> dict[str, Any]:
    """Arguments of the sweep that are in no other attribute, but are needed to run its lanes again."""
    limits = {name: float(getattr(request.limits, name)) for name in ("diverged_above", "target")}
    finite = {name: value if np.isfinite(value) else None for name, value in limits.items()}
    return finite | {"curve_points": request.curve_points, "impl": str(jax.random.key_impl(request.key))}


def _column_as_json(values: np.ndarray) -> dict[str, Any]:
    if values.dtype.kind == "O":
        return {"dtype": "str", "values": values.astype(str).tolist()}
    return {"dtype": values.dtype.name, "values": values}
