"""Results that were read, and can run again once their problem and optimizer are known."""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gdkit.errors import bad_value
from gdkit.store import Store, manifest
from gdkit.sweeps.axes import paired
from gdkit.sweeps.description import LaneGrid
from gdkit.sweeps.execution.lanes import ResumableSweep
from gdkit.sweeps.plan.shapes import Shape
from gdkit.sweeps.programs.groups import trace_groups
from gdkit.sweeps.request import SweepRequest, check_request
from gdkit.sweeps.result.result import SweepResult
from gdkit.sweeps.resume.origin import Origin
from gdkit.sweeps.resume.refine import RunRequest
from gdkit.sweeps.rundir.archive import last_lanes
from gdkit.sweeps.rundir.manifest import RunDirectory, shapes_there
from gdkit.types import Monitor


def request_of(result: SweepResult, problem: Any, optimizer: Any, monitors: Sequence[Monitor] = ()) -> SweepRequest:
    """What a result was asked for, by its own axes.

    Args:
      result: one with all its lanes.
      problem: as `sweep` was given it.
      optimizer: a factory, or for several optimizers a mapping of labels to factories or (factory, fixed values).
      monitors: as `sweep` was given them.

    Raises:
      InputValueError: the optimizers are not those of the result.
    """
    attrs = result.lanes.attrs
    if result.grids[0].label is None:
        axes, factory = _axes(result, result.grids[0], 0), optimizer
    else:
        axes, factory = [{"optimizer": _labelled(result, optimizer)}], None
    asked = json.loads(attrs["asked"])
    key = jax.random.wrap_key_data(jnp.asarray(json.loads(attrs["key"]), jnp.uint32), impl=asked.pop("impl"))
    given = {name: value for name, value in asked.items() if value is not None}
    seeds, steps = int(attrs["seeds"]), int(attrs["steps"])
    return check_request(problem, factory, axes, seeds=seeds, steps=steps, key=key, monitors=monitors, **given)


def _labelled(result: SweepResult, optimizer: Any) -> dict[str, Any]:
    """The optimizers by label, with the axes that each has."""
    labels = [grid.label for grid in result.grids]
    if not isinstance(optimizer, Mapping) or set(optimizer) != set(labels):
        raise bad_value("optimizer", optimizer, "not a mapping of the labels", f"Pass one for each of {labels}")
    found, first = {}, 0
    for grid in result.grids:
        choice = optimizer[grid.label]
        factory, fixed = choice if isinstance(choice, tuple) else (choice, {})
        own = {name: values for part in _axes(result, grid, first) for name, values in part.items()}
        found[grid.label] = (factory, {**own, **fixed})
        first += grid.points
    return found


def _axes(result: SweepResult, grid: LaneGrid, first: int) -> list[Any]:
    """The axes of one optimizer's points, the first of which is at place `first`."""
    seeds, sizes = result.seeds, [size for *_, size in grid.dimensions]
    rows = slice(first * seeds, (first + grid.points) * seeds, seeds)
    parts = []
    for place, (_, names, _) in enumerate(grid.dimensions):
        along = tuple(slice(None) if i == place else 0 for i in range(len(sizes)))
        values = {n: _plain(result.lanes[n].values[rows].reshape(sizes)[along]) for n in names}
        parts.append(paired(values) if len(names) > 1 else values)
    return parts


def _plain(values: np.ndarray) -> Any:
    if values.dtype.kind not in "UO":
        return values
    return [str(value) for value in values]


def reopened(result: SweepResult, path: Path, make: Callable[[], SweepRequest], run: RunRequest) -> SweepResult:
    """A result that was read from `path`, which can go on and replay lanes by the request that `make` makes.

    The first time that this is asked for, the request is compared with what is there.
    """

    def find() -> ResumableSweep:
        request = make()
        prepared = list(trace_groups(request))
        names = [name for name in result.lanes.data_vars if name != "reference_loss"]
        columns = {str(name): result.lanes[name].values for name in names}
        if not (path / manifest.NAME).is_file():
            return ResumableSweep(request, prepared, _shapes(result, len(prepared)), columns, None)
        run = Store.open(path)
        there = shapes_there(RunDirectory(path, run.manifest.config), request, prepared)
        load = lambda job: last_lanes(run, job)
        return ResumableSweep(
            request, prepared, there or [], columns, None, load if run.manifest.plan["keeps_lanes"] else None
        )

    return dataclasses.replace(result, origin=Origin(find, run))


def _shapes(result: SweepResult, groups: int) -> list[Shape]:
    plan = result.plan
    each = lambda value: value if isinstance(value, list) else [value] * groups
    return [Shape(*numbers) for numbers in zip(*(each(plan[name]) for name in Shape._fields), strict=True)][:groups]
