"""Extend an axis beyond its ends until the best value lies inside it."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gdkit.errors import bad_value
from gdkit.regimes import Regime
from gdkit.store import extension_folder
from gdkit.sweeps.axes import Axis, Dimension, Section, is_log
from gdkit.sweeps.description import extend_grids, list_grids
from gdkit.sweeps.execution.lanes import ResumableSweep
from gdkit.sweeps.request import SweepRequest
from gdkit.sweeps.result.result import SweepResult
from gdkit.sweeps.resume.merge import PartialSweep, merge_sweeps
from gdkit.sweeps.resume.refine import RunRequest
from gdkit.sweeps.rundir.manifest import RunDirectory

_ROUNDS = 8  # most extensions, each half as long as the axis, so that the best value may lie four lengths away


class _Extension(NamedTuple):
    """More values for the axis of one section."""

    section: Section
    dimension: int
    values: np.ndarray  # (values,)

    @property
    def part(self) -> Section:
        """The section with these values only."""
        return _with_values(self.section, self.dimension, self.values)

    @property
    def whole(self) -> Section:
        """The section with these values and those that it has."""
        values = np.union1d(_axis_values(self.section, self.dimension), self.values)
        return _with_values(self.section, self.dimension, values)


def check_bracketable(request: SweepRequest) -> None:
    """Check that each section has an axis of numbers that varies by itself.

    Raises:
      InputValueError: some section has none.
    """
    for section in request.sections:
        _find_axis(section)


def extend_until_bracketed(
    result: SweepResult, lanes: ResumableSweep | None, run: RunRequest, directory: RunDirectory | None = None
) -> tuple[SweepResult, ResumableSweep | None]:
    """Extend the main axis of a result beyond its ends until the best value lies inside it, or the next one diverges.

    Nothing is extended without `lanes`, as where some have not finished. Each extension has its own run directory
    inside `directory`. Returns the result and its lanes; lanes are missing where a run was interrupted.
    """
    for number in range(1, _ROUNDS + 1):
        extensions = _choose_extensions(result, lanes.request) if lanes is not None else []
        if lanes is None or not extensions:
            break
        own = None
        if directory is not None:
            own = dataclasses.replace(directory, path=extension_folder(directory.path, number))
        more = run(lanes.request._replace(sections=tuple(e.part for e in extensions)), directory=own)
        result, lanes = _merge(result, lanes, extensions, *more)
    return result, lanes


def adopt_extensions(request: SweepRequest, result: SweepResult) -> SweepRequest:
    """The request with the values of the axes of its extended result."""
    sections, first = [], 0
    for section, grid in zip(request.sections, result.grids, strict=True):
        rows = slice(first * result.seeds, (first + grid.points) * result.seeds)
        for i, (dimension, (_, names, size)) in enumerate(zip(section.dimensions, grid.dimensions, strict=True)):
            if size != dimension.size:
                section = _with_values(section, i, np.unique(result.lanes[names[0]].values[rows].astype(float)))
        sections.append(section)
        first += grid.points
    return request._replace(sections=tuple(sections))


def _merge(
    result: SweepResult,
    lanes: ResumableSweep,
    extensions: Sequence[_Extension],
    more: SweepResult,
    more_lanes: ResumableSweep | None,
) -> tuple[SweepResult, ResumableSweep | None]:
    """The sweep of all values; without lanes where some have not finished."""
    whole = {extension.section.label: extension.whole for extension in extensions}
    sections = tuple(whole.get(section.label, section) for section in lanes.request.sections)
    _, old, new = extend_grids(list_grids(lanes.request.sections), list_grids(e.part for e in extensions))
    parts = [PartialSweep(result, lanes, old), PartialSweep(more, more_lanes, new)]
    merged, merged_lanes = merge_sweeps(lanes.request._replace(sections=sections), parts)
    return merged, None if merged.missing else merged_lanes


def _choose_extensions(result: SweepResult, request: SweepRequest) -> list[_Extension]:
    """The extensions that are due; optimizers with the same values of the axis get the same ones."""
    extensions = []
    for section in request.sections:
        dimension = _find_axis(section)
        one = result.select(optimizer=section.label) if section.label is not None else result
        axis, values = _axis(section, dimension).name, np.sort(_axis_values(section, dimension))
        extensions.append(_Extension(section, dimension, _values_beyond(one, axis, values)))
    if len({_axis_values(e.section, e.dimension).tobytes() for e in extensions}) == 1:
        union = np.unique(np.concatenate([extension.values for extension in extensions]))
        extensions = [extension._replace(values=union) for extension in extensions]
    return [extension for extension in extensions if extension.values.size]


def _values_beyond(one: SweepResult, axis: str, values: np.ndarray) -> np.ndarray:
    """Values beyond the end at which the best one lies; below the axis where every value diverged."""
    all_diverged = (one.lane_regimes == Regime.DIVERGED).all()
    at = values[0] if all_diverged else float(one.best().lanes[axis].values[0])
    count = max(2, len(values) // 2)
    if at == values[-1] and at != values[0]:
        return _continue(values, count)
    return _continue(values[::-1], count) if at == values[0] else np.zeros(0)


def _continue(values: np.ndarray, count: int) -> np.ndarray:
    """The next `count` values of an axis, increasing or decreasing, with the spacing of its end; all positive."""
    steps = np.arange(1, count + 1)
    last, before = (float(values[-1]), float(values[-2])) if len(values) > 1 else (float(values[0]), 0.0)
    if len(values) > 1 and last > before and not is_log(values):
        more = last + (last - before) * steps
    else:  # also below a linear axis, which would soon reach zero
        more = last * (last / before if last > 0 and before > 0 else 0.5) ** steps
    return np.asarray([float(f"{value:.12g}") for value in more if value > 0])  # 0.3, not 0.30000000000000004


def _find_axis(section: Section) -> int:
    """The dimension of the main axis of a section: the learning rate, else the first traced one that is not paired."""
    single = [i for i, d in enumerate(section.dimensions) if len(d.axes) == 1 and d.axes[0].traced]
    rates = [i for i in single if section.dimensions[i].axes[0].name == "learning_rate"]
    if not single:
        remedy = "Sweep the learning rate, or another number, unpaired; or leave until_bracketed out"
        raise bad_value("until_bracketed", True, "there is no axis of numbers that varies by itself", remedy)
    return [*rates, *single][0]


def _axis(section: Section, dimension: int) -> Axis:
    return section.dimensions[dimension].axes[0]


def _axis_values(section: Section, dimension: int) -> np.ndarray:
    return np.asarray(_axis(section, dimension).values, float)


def _with_values(section: Section, dimension: int, values: np.ndarray) -> Section:
    """The section with other values of one axis."""
    axis = dataclasses.replace(_axis(section, dimension), values=values)
    replaced = Dimension(section.dimensions[dimension].name, (axis,))
    dimensions = tuple(replaced if i == dimension else d for i, d in enumerate(section.dimensions))
    return dataclasses.replace(section, dimensions=dimensions)
