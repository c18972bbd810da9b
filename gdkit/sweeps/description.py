"""The description of a sweep: everything but the values that its lanes report."""

import json
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

import gdkit
from gdkit import monitors
from gdkit.sweeps.plan.shapes import count_visible_cores


class LaneGrid(NamedTuple):
    """How the lanes of one optimizer make a product; the seed is its last, unlisted dimension."""

    label: str | None
    dimensions: tuple[tuple[str, tuple[str, ...], int], ...]  # name, its axes, size

    @property
    def points(self) -> int:
        """Points without the seeds."""
        return int(np.prod([size for _, _, size in self.dimensions], dtype=np.int64))


class Description(NamedTuple):
    """What a sweep is, apart from what its lanes read."""

    forms: tuple[LaneGrid, ...]
    axes: tuple[dict[str, np.ndarray], ...]  # for each form, name -> values along its dimension
    curve_step: np.ndarray  # (points,), the recorded steps
    attrs: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """All of it as JSON holds it, but numbers of axes as arrays."""
        listed = lambda values: (
            {"dtype": "str" if values.dtype.kind == "O" else values.dtype.name}
            | {"values": values.astype(str).tolist() if values.dtype.kind == "O" else values}
        )
        axes = [{name: listed(values) for name, values in own.items()} for own in self.axes]
        return {"forms": self.forms, "axes": axes, "curve_step": self.curve_step.tolist(), "attrs": self.attrs}

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> "Description":
        """What `as_json` made."""
        read = lambda column: np.asarray(column["values"], column["dtype"])
        axes = tuple({name: read(column) for name, column in own.items()} for own in content["axes"])
        steps = np.asarray(content["curve_step"], np.int32)
        return Description(_forms(content["forms"]), axes, steps, dict(content["attrs"]))


def describe(request: Any, *, stochastic: bool, optimum_known: bool, plan: Mapping) -> Description:
    """The description of a sweep, from its request."""
    dims = lambda s: tuple((d.name, tuple(a.name for a in d.axes), d.size) for d in s.dimensions)
    forms = tuple(LaneGrid(section.label, dims(section)) for section in request.sections)
    axes = tuple({a.name: a.labels for d in s.dimensions for a in d.axes} for s in request.sections)
    steps = monitors.curve_steps(request.curve_points) if request.curve_points else np.zeros(0, np.int32)
    attrs = {
        "steps": request.steps,
        "seeds": request.seeds,
        "key": json.dumps(np.asarray(jax.random.key_data(request.key)).tolist()),
        "stochastic": int(stochastic),
        "optimum_known": int(optimum_known),
        "forms": json.dumps(forms),
        "asked": json.dumps(_asked(request)),
        "plan": json.dumps(plan),
        "device": str(jax.devices()[0].device_kind),
        "cores": count_visible_cores(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "versions": json.dumps({"gdkit": gdkit.__version__, "jax": jax.__version__, "numpy": np.__version__}),
    }
    return Description(forms, axes, steps[steps <= request.steps], attrs)


def _asked(request: Any) -> dict[str, Any]:
    """What else it takes to ask for a sweep again."""
    limits = {name: float(getattr(request.limits, name)) for name in ("diverged_above", "target")}
    finite = {name: value if np.isfinite(value) else None for name, value in limits.items()}
    return finite | {"curve_points": request.curve_points, "impl": str(jax.random.key_impl(request.key))}


def _forms(content: Any) -> tuple[LaneGrid, ...]:
    """Forms from JSON."""
    dimensions = lambda form: tuple((name, tuple(axes), size) for name, axes, size in form)
    return tuple(LaneGrid(label, dimensions(form)) for label, form in content)
