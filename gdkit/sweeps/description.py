"""The description of a sweep: its axes, its arguments, and where it ran."""

import json
import math
import os
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

import gdkit
from gdkit import monitors
from gdkit.optimizers import depends_on_steps
from gdkit.problems import Problem
from gdkit.sweeps import checkpoints
from gdkit.sweeps.axes import Section, renumber_points
from gdkit.sweeps.plan.shapes import count_visible_cores
from gdkit.sweeps.request import SweepRequest
from gdkit.types import Key


class LaneGrid(NamedTuple):
    """The lanes of one optimizer as a product of dimensions; the seed is the last dimension, which is not listed."""

    label: str | None
    dimensions: tuple[tuple[str, tuple[str, ...], int], ...]  # name, axes, size

    @property
    def shape(self) -> tuple[int, ...]:
        """Size of each dimension."""
        return tuple(size for _, _, size in self.dimensions)

    @property
    def points(self) -> int:
        """Points of the product, seeds not counted."""
        return math.prod(self.shape)

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the axes of all dimensions."""
        return tuple(axis for _, axes, _ in self.dimensions for axis in axes)

    def find_dimension(self, axis: str) -> int:
        """The number of the dimension that has `axis`, one of `axes`."""
        return [axis in axes for _, axes, _ in self.dimensions].index(True)


GridAxes = tuple[LaneGrid, dict[str, np.ndarray]]  # the values of its axes by name


class Description(NamedTuple):
    """A sweep without the columns of its lanes."""

    grids: tuple[LaneGrid, ...]
    axes: tuple[dict[str, np.ndarray], ...]  # per grid, name -> values along the axis' dimension
    curve_step: np.ndarray  # (points,), the recorded steps
    attrs: dict[str, Any]
    evaluation_step: np.ndarray = np.zeros(0, np.int32)  # (evaluations,), empty without evaluations along the run

    def as_json(self) -> dict[str, Any]:
        """The description as JSON values, except that numeric axes stay arrays."""
        axes = [{name: _column_as_json(values) for name, values in own.items()} for own in self.axes]
        steps = {"curve_step": self.curve_step.tolist()}
        steps |= {"evaluation_step": self.evaluation_step.tolist()} if self.evaluation_step.size else {}
        return {"forms": self.grids, "axes": axes, **steps, "attrs": self.attrs}

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> "Description":
        """The description that `as_json` wrote."""
        read = lambda column: np.asarray(column["values"], column["dtype"])
        axes = tuple({name: read(column) for name, column in own.items()} for own in content["axes"])
        steps = np.asarray(content["curve_step"], np.int32)
        evaluation_step = np.asarray(content.get("evaluation_step", []), np.int32)
        return Description(read_grids(content["forms"]), axes, steps, dict(content["attrs"]), evaluation_step)


def describe(
    request: SweepRequest,
    *,
    stochastic: bool,
    optimum_known: bool,
    maximized: Iterable[str],
    plan: Mapping[str, Any],
    validation_rows: int = 0,
) -> Description:
    """The description of the sweep that `request` asks for.

    `maximized` are the metrics that are better when larger; `validation_rows` is 0 if it is unknown.
    """
    grids, axes = zip(*list_grids(request.sections), strict=True)
    steps = monitors.curve_steps(request.curve_points) if request.curve_points else np.zeros(0, np.int32)
    attrs = {
        "steps": request.steps,
        "seeds": request.seeds,
        "stochastic": int(stochastic),
        "regimes_known": int(request.statistics == "all"),
        "optimum_known": int(optimum_known),
        "maximized": json.dumps(list(maximized)),
        "validation_rows": validation_rows,
        "forms": json.dumps(grids),
        "asked": json.dumps(_get_settings(request)),
        **describe_origin(request.key, plan),
    }
    if isinstance(request.problem, Problem) and request.problem.caveats:
        attrs["caveats"] = json.dumps(request.problem.caveats)
    scheduled = [section.label or "" for section in request.sections if depends_on_steps(section.optimizer)]
    if scheduled:
        attrs["scheduled"] = json.dumps(scheduled)
    return Description(grids, axes, steps[steps <= request.steps], attrs, request.evaluation_steps)


def describe_origin(key: Key, plan: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes of a result that say from which key, how and where its lanes ran."""
    return {
        "key": json.dumps(np.asarray(jax.random.key_data(key)).tolist()),
        "plan": json.dumps(plan),
        "device": str(jax.devices()[0].device_kind),
        "cores": count_visible_cores(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "versions": json.dumps({"gdkit": gdkit.__version__, "jax": jax.__version__, "numpy": np.__version__}),
    }


def list_grids(sections: Iterable[Section]) -> list[GridAxes]:
    """The lanes of each section as a product, and the values of its axes."""
    dimensions = lambda s: tuple((d.name, tuple(a.name for a in d.axes), d.size) for d in s.dimensions)
    return [(LaneGrid(s.label, dimensions(s)), {axis.name: axis.labels for axis in s.axes}) for s in sections]


def extend_grids(grids: Iterable[GridAxes], more: Iterable[GridAxes]) -> tuple[list[GridAxes], np.ndarray, np.ndarray]:
    """The grids of a sweep with further values of one axis of some of its optimizers.

    Args:
      grids: those of the sweep.
      more: those of the further values, for the optimizers concerned only, with all other axes equal.

    Returns:
      The grids of all values, which are in increasing order, and the numbers of the points of `grids` and of `more` in
      them, (points,) each.
    """
    added = {grid.label: (grid, own) for grid, own in more}
    extended, old, new, offset = [], [], [], 0
    for grid, own in grids:
        if grid.label not in added:
            old.append(offset + np.arange(grid.points))
        else:
            (grid, own), mine, others = _extend_grid(grid, own, *added[grid.label])
            old.append(offset + mine)
            new.append(offset + others)
        extended.append((grid, own))
        offset += grid.points
    return extended, np.concatenate(old), np.concatenate(new)


def _extend_grid(
    grid: LaneGrid, own: dict[str, np.ndarray], more: LaneGrid, added: Mapping[str, np.ndarray]
) -> tuple[GridAxes, np.ndarray, np.ndarray]:
    """The product of all values with its axes, and where the points of either product are in it."""
    axis = next(name for name in own if not np.array_equal(own[name], added[name]))
    dimension, dimensions = grid.find_dimension(axis), list(grid.dimensions)
    union = np.union1d(own[axis], added[axis])
    dimensions[dimension] = (*dimensions[dimension][:2], len(union))
    renumber = lambda shape, values: renumber_points(shape, dimension, np.searchsorted(union, values), len(union))
    extended = LaneGrid(grid.label, tuple(dimensions)), own | {axis: union}
    return extended, renumber(grid.shape, own[axis]), renumber(more.shape, added[axis])


def read_grids(content: Iterable[Any]) -> tuple[LaneGrid, ...]:
    """The grids from JSON: a label and dimensions each."""
    dimensions = lambda listed: tuple((name, tuple(axes), size) for name, axes, size in listed)
    return tuple(LaneGrid(label, dimensions(listed)) for label, listed in content)


def _get_settings(request: SweepRequest) -> dict[str, Any]:
    """Arguments of the sweep that are in no other attribute, but are needed to run its lanes again."""
    limits = {name: float(getattr(request.limits, name)) for name in ("diverged_above", "target")}
    settings: dict[str, Any] = {name: value if math.isfinite(value) else None for name, value in limits.items()}
    if request.keep_states != "auto":
        settings["keep_states"] = request.keep_states or "none"
    if request.evaluate_every is not None:
        settings["evaluate_every"] = request.evaluate_every
    if request.start is not None:
        settings["start"] = checkpoints.digest_start(request.start)
    settings |= {"statistics": request.statistics, "curve_points": request.curve_points}
    return settings | {"impl": str(jax.random.key_impl(request.key))}


def _column_as_json(values: np.ndarray) -> dict[str, Any]:
    if values.dtype.kind == "O":
        return {"dtype": "str", "values": values.astype(str).tolist()}
    return {"dtype": values.dtype.name, "values": values}
