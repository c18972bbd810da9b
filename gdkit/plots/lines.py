"""The lines of a figure of a sweep: the lanes of one optimizer along an axis."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes

from gdkit.errors import bad_type, bad_value, unknown_name
from gdkit.plots import style
from gdkit.regimes import Regime
from gdkit.sweeps.result.result import SweepResult


class Line(NamedTuple):
    """The lanes of one optimizer along one axis."""

    result: SweepResult
    values: np.ndarray  # (values,), increasing
    rows: np.ndarray  # (values, seeds), lanes of `result`

    @property
    def label(self) -> str:
        return self.result.grids[0].label or ""

    @property
    def shown_label(self) -> str:
        """The label for matplotlib."""
        return style.escape_math(self.label)

    @property
    def regimes(self) -> np.ndarray:
        """Codes, (values, seeds)."""
        return self.result.lane_regimes[self.rows]


def select_lines(result: SweepResult, axis: str, optimizer: str | None, at: Mapping[str, Any] | None) -> list[Line]:
    """One line per optimizer that has the axis."""
    check_result(result)
    if optimizer is not None or not result.optimizers:
        return [select_line(result, axis, optimizer, at)]
    check_axis(result, axis)
    labels = [label for label in result.optimizers if axis in result.select(optimizer=label).axes]
    return [select_line(result, axis, label, at) for label in labels]


def select_line(result: SweepResult, axis: str, optimizer: str | None, at: Mapping[str, Any] | None) -> Line:
    """The line of one optimizer along `axis`, at the values `at` of the other axes."""
    check_result(result)
    check_axis(result, axis)
    one = result.along(axis, optimizer=optimizer, at=at)
    values = one.lanes[axis].values.astype(float).reshape(-1, one.seeds)[:, 0]
    order = np.argsort(values, kind="stable")
    return Line(one, values[order], np.arange(values.size * one.seeds).reshape(-1, one.seeds)[order])


def find_most_frequent(regimes: np.ndarray) -> np.ndarray:
    """The most frequent code over the last dimension; of equally frequent codes the lowest."""
    return (regimes[..., None] == np.arange(len(Regime))).sum(axis=-2).argmax(axis=-1)


def add_title(ax: Axes, result: SweepResult, line: Line, *, named: bool = True) -> Axes:
    """Add a title with the optimizer and the fixed values, if not all lanes of the sweep are drawn."""
    varying = {name for _, axes, _ in line.result.grids[0].dimensions for name in axes}
    coords = line.result.lanes.coords  # without the axes of other optimizers
    fixed = [n for n, values in result.axes.items() if n in coords and n not in varying and len(values) > 1]
    parts = [line.shown_label] if named and len(result.optimizers) > 1 else []
    parts += [f"{style.format_name(name)} {style.format_short(line.result.lanes[name].values[0])}" for name in fixed]
    if parts:
        ax.set_title(", ".join(parts), loc="left", fontsize="medium")
    return ax


def check_result(result: object) -> None:
    """Raise unless it is a SweepResult."""
    if not isinstance(result, SweepResult):
        raise bad_type("result", result, "not a SweepResult", "Pass the result of gdkit.sweep or gdkit.open")


def check_axis(result: SweepResult, axis: str) -> None:
    """Raise unless the result has this axis."""
    if axis not in result.axes:
        raise unknown_name("axis", axis, result.axes)
    if result.axes[axis].dtype.kind not in "fiu":
        raise bad_value("axis", axis, "its values are not numbers", "Choose a numeric axis")
