"""Make results from disk resumable, once their problem and optimizer are known."""

import dataclasses
import functools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from gdkit.errors import OtherRunError, bad_value
from gdkit.problems import Learner, ProblemLike
from gdkit.store import Store, extension_folders, manifest
from gdkit.sweeps import checkpoints
from gdkit.sweeps.axes import paired
from gdkit.sweeps.description import LaneGrid
from gdkit.sweeps.execution.lanes import ResumableSweep
from gdkit.sweeps.plan.shapes import Shape
from gdkit.sweeps.programs.groups import TracedGroup, trace_groups, trace_lane
from gdkit.sweeps.request import SweepRequest, check_request
from gdkit.sweeps.result.result import SweepResult
from gdkit.sweeps.resume.bracket import adopt_extensions
from gdkit.sweeps.resume.origin import Origin
from gdkit.sweeps.resume.refine import RunRequest
from gdkit.sweeps.rundir.archive import make_lane_loader
from gdkit.sweeps.rundir.manifest import RunDirectory, shapes_of, stored_shapes
from gdkit.sweeps.rundir.states import StoredStates, open_states
from gdkit.types import Monitor, OptimizerLike

_ENVIRONMENT = "versions: ", "device: ", "cores: ", "xla_flags: "  # parts that decide bits, but not what is computed
_SAME_ENVIRONMENT = (
    "Its lanes run again with the same bits only as they ran: with its versions, on its device, under its XLA_FLAGS. "
    "Those of `gdkit run` are set by gdkit.faster_cpu(), called before JAX computes anything."
)
_SAME_AS_SWEEP = "Pass to gdkit.open what was passed to sweep: problem=, optimizer=, monitors= and start=."

# One optimizer; or for several, label -> optimizer or (optimizer, fixed values).
Optimizers = OptimizerLike | Mapping[str, Any]


def rebuild_request(
    result: SweepResult,
    problem: ProblemLike,
    optimizer: Optimizers | None,
    monitors: Sequence[Monitor] = (),
    start: Any = None,
) -> SweepRequest:
    """The request of a whole result, from its axes and settings, and from the code, which a file cannot store.

    Raises:
      InputValueError: the optimizers or the start are not those of the result.
    """
    attrs = result.lanes.attrs
    one: OptimizerLike | None = None
    if isinstance(problem, Learner) and optimizer is None:
        optimizer = {label: (label, {}) for label in result.optimizers} or None
    if result.optimizers:
        axes: list[Any] = [{"optimizer": _labeled_optimizers(result, optimizer)}]
    else:
        axes, one = _axes_of(result, result.grids[0], 0), cast(OptimizerLike, optimizer)
    asked = json.loads(attrs["asked"])
    key = jax.random.wrap_key_data(jnp.asarray(json.loads(attrs["key"]), jnp.uint32), impl=asked.pop("impl"))
    settings: dict[str, Any] = {"diverged_above": math.inf}  # JSON has no infinity
    settings |= {name: value for name, value in asked.items() if value is not None}
    if settings.get("keep_states") == "none":
        settings["keep_states"] = None
    seeds, steps = int(attrs["seeds"]), int(attrs["steps"])
    began = settings.pop("start", None)
    request = check_request(
        problem, one, axes, seeds=seeds, steps=steps, key=key, monitors=monitors, start=start, **settings
    )
    if began != (None if request.start is None else checkpoints.digest_start(request.start)):
        shown = type(start).__name__
        raise bad_value("start", shown, "the sweep started from something else", "Pass what was passed to sweep")
    return request


def make_resumable(
    result: SweepResult, path: Path, make_request: Callable[[], SweepRequest], run: RunRequest
) -> SweepResult:
    """The result that was read from `path`, with its origin, which continues it.

    `make_request` is called when the origin is first needed, and its request is compared with the one on disk.
    """

    def load() -> ResumableSweep:
        request, is_extended = make_request(), any(extension_folders(path))
        if is_extended:
            request = adopt_extensions(request, result)
        groups = list(trace_groups(request))
        names = [name for name in result.lanes.data_vars if name != "reference_loss"]
        columns = {str(name): result.lanes[name].values for name in names}
        if is_extended or not (path / manifest.NAME).is_file():
            states = open_states(path) if is_extended else None
            shapes = _planned_shapes(result, len(groups))
            return ResumableSweep(request, groups, shapes, columns, None, states=states)
        store = Store.open(path)
        other_environment = None
        try:
            stored_shapes(RunDirectory(path, store.manifest.config), request, groups)
        except OtherRunError as error:
            if not all(line.startswith(_ENVIRONMENT) for line in error.lines):
                raise OtherRunError(path, error.lines, _SAME_AS_SWEEP) from error
            other_environment = OtherRunError(path, error.lines, _SAME_ENVIRONMENT)  # its states can be read
        load, states = make_lane_loader(store), StoredStates(store)
        check = functools.partial(_check_same, store, request, groups, other_environment)
        return ResumableSweep(request, groups, shapes_of(store), columns, None, load, states, check)

    origin = Origin(load, run)
    return dataclasses.replace(result, origin=origin, states=origin.state)


def _check_same(
    store: Store, request: SweepRequest, groups: Sequence[TracedGroup], other_environment: OtherRunError | None
) -> None:
    """Raise unless the lanes of the groups compute what those in a run directory have computed, with the same bits.

    Raises:
      InputValueError: monitors are missing.
      OtherRunError: the problem, an optimizer, a monitor or the environment is another one.
    """
    if other_environment is not None:
        raise other_environment
    lanes = [trace_lane(request, group) for group in groups]
    if store.manifest.plan.get("code") in (None, [code for code, _ in lanes]):
        return
    known = set.union(*(names for _, names in lanes))
    missing = sorted(n for n in store.manifest.columns if n not in known and not n.startswith("curve_"))
    if missing:
        problem = f"the run in {store.path} has {', '.join(missing)}, which none of them reports"
        remedy = "Pass the monitors that were passed to sweep, as gdkit.open(path, ..., monitors=[...])"
        raise bad_value("monitors", list(request.monitors), problem, remedy)
    line = "what the loss, an optimizer or a monitor computes is not what this directory has"
    raise OtherRunError(store.path, [line], _SAME_AS_SWEEP)


def _labeled_optimizers(
    result: SweepResult, optimizer: Optimizers | None
) -> dict[str, tuple[OptimizerLike, dict[str, Any]]]:
    """The optimizers by label, each with its axes and fixed values."""
    labels = list(result.optimizers)
    if not isinstance(optimizer, Mapping) or set(optimizer) != set(labels):
        raise bad_value("optimizer", optimizer, "not a mapping of the labels", f"Pass one for each of {labels}")
    optimizers, first = {}, 0
    for label, grid in zip(labels, result.grids, strict=True):
        choice = optimizer[label]
        factory, fixed = choice if isinstance(choice, tuple) else (choice, {})
        axes = {name: values for part in _axes_of(result, grid, first) for name, values in part.items()}
        optimizers[label] = (factory, {**axes, **fixed})
        first += grid.points
    return optimizers


def _axes_of(result: SweepResult, grid: LaneGrid, first: int) -> list[dict[str, Any]]:
    """The axes of one optimizer, as `sweep` takes them; `first` is the place of its first point."""
    rows = slice(first * result.seeds, (first + grid.points) * result.seeds, result.seeds)
    axes = []
    for place, (_, names, _) in enumerate(grid.dimensions):
        along = tuple(slice(None) if i == place else 0 for i in range(len(grid.shape)))
        values = {n: _as_axis(result.lanes[n].values[rows].reshape(grid.shape)[along]) for n in names}
        axes.append(paired(values) if len(names) > 1 else values)
    return axes


def _as_axis(values: np.ndarray) -> Any:
    return [str(value) for value in values] if values.dtype.kind in "UO" else values


def _planned_shapes(result: SweepResult, groups: int) -> list[Shape]:
    """The shape of the blocks of each group, from the plan in the result."""
    per_group = lambda value: value if isinstance(value, list) else [value] * groups
    plan = Shape._field_defaults | result.plan  # runs of earlier versions have no chunk
    shapes = zip(*(per_group(plan[name]) for name in Shape._fields), strict=True)
    return [Shape(*numbers) for numbers in shapes][:groups]
