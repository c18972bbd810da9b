"""The lanes of a result from runs that were trained elsewhere: final values and curves, one per run."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

import gdkit
from gdkit import checks, monitors
from gdkit.errors import bad_type, bad_value, unknown_name
from gdkit.monitors import EndKind
from gdkit.monitors.names import built_in_names
from gdkit.regimes import check_curves, curve_statistics
from gdkit.sweeps.axes import Section, parse_free_axes
from gdkit.sweeps.description import Description, LaneGrid, list_grids
from gdkit.sweeps.result.labels import label_columns

_LOSSES = ("loss", "final_loss")  # the names of the training loss
_NO_CURVES = "no loss curves are given: only divergence is known, and the regime of all other runs is UNKNOWN."


class Judging(NamedTuple):
    """How runs that were trained elsewhere are compared and judged."""

    by: str | None = None
    maximize: bool | Sequence[str] = False
    optimum: float | None = None
    stochastic: bool = False
    diverged_above: float = 1e6
    curve_points: int = 200


def check_judging(judging: Judging) -> None:
    """Raise for settings that are no bool, number or name."""
    if isinstance(judging.maximize, str) or not isinstance(judging.maximize, bool | list | tuple | set | frozenset):
        raise bad_type("maximize", judging.maximize, "neither a bool nor a sequence of names", "Pass maximize=True")
    checks.check_flag("stochastic", judging.stochastic)
    checks.check_optimum(judging.optimum)
    checks.check_diverged_above(judging.diverged_above)
    checks.check_integer("curve_points", judging.curve_points, at_least=0)


def arrange_arrays(axes: Any, arrays: Mapping[str, Any], judging: Judging) -> tuple[xr.Dataset, tuple[LaneGrid, ...]]:
    """The lanes and grids of `SweepResult.from_arrays`."""
    check_judging(judging)
    sections = parse_free_axes(axes)
    shape = sections[0].shape
    if any(section.shape != shape for section in sections):
        shapes = {section.label: section.shape for section in sections}
        raise bad_value("axes", shapes, "the optimizers have axes of different sizes", "Make a result of each")
    place = 0
    if sections[0].label is not None:
        names = list(axes) if isinstance(axes, Mapping) else ["optimizer"]
        place = names.index("optimizer")
        shape = (*shape[:place], len(sections), *shape[place:])
    if not isinstance(arrays, Mapping) or not arrays:
        raise bad_type("arrays", arrays, "not a mapping of names to arrays", 'Pass for example {"loss": losses}')
    values = {name: _check_array(name, array, shape) for name, array in arrays.items()}
    counts = {name: array.shape[len(shape)] for name, array in values.items()}
    if len(set(counts.values())) > 1:
        raise bad_value("arrays", counts, "the arrays have different numbers of seeds", "Pass the same seeds in each")
    flat = {n: np.moveaxis(v, place, 0).reshape(-1, *v.shape[len(shape) + 1 :]) for n, v in values.items()}
    return arrange_lanes(sections, next(iter(counts.values())), flat, judging)


def arrange_lanes(
    sections: Sequence[Section], seeds: int, values: Mapping[str, np.ndarray], judging: Judging
) -> tuple[xr.Dataset, tuple[LaneGrid, ...]]:
    """The lanes and grids of a result, from final values, (lanes,), and curves, (lanes, steps + 1), by name."""
    check_value_names("arrays", values, [axis.name for s in sections for axis in s.axes])
    described = describe_lanes(sections, seeds, {name: v.shape[1:] for name, v in values.items()}, judging)
    return label_columns(described, judge_lanes(values, judging, described.curve_step), {}), described.grids


def describe_lanes(
    sections: Sequence[Section],
    seeds: int,
    shapes: Mapping[str, tuple[int, ...]],
    judging: Judging,
    settings: Mapping[str, Any] | None = None,
) -> Description:
    """The description of a result, from the shapes of the values of a lane, () or (steps + 1,), by name.

    `settings` are attributes that describe how the runs were made.
    """
    for name in () if isinstance(judging.maximize, bool) else judging.maximize:
        checks.check_choice("maximize", name, shapes)
    lengths = check_lengths("arrays", {name: shape[0] for name, shape in shapes.items() if shape})
    steps = next(iter(lengths.values()), 1) - 1
    at = monitors.curve_steps(judging.curve_points) if judging.curve_points and lengths else np.zeros(0, np.int32)
    grids, axes = zip(*list_grids(sections), strict=True)
    by, maximize = choose_score(shapes, judging.by), judging.maximize
    names = ([by] if maximize else []) if isinstance(maximize, bool) else list(maximize)
    asked = {"diverged_above": judging.diverged_above, "target": None, "curve_points": judging.curve_points}
    attrs = {
        "steps": steps,
        "seeds": seeds,
        "key": "null",
        "stochastic": int(judging.stochastic),
        "optimum_known": int(judging.optimum is not None),
        "maximized": json.dumps(names),
        "validation_rows": 0,
        "by": by,
        "forms": json.dumps(grids),
        "asked": json.dumps(asked),
        "plan": "{}",
        "versions": json.dumps({"gdkit": gdkit.__version__, "numpy": np.__version__}),
        **(settings or {}),
    }
    if _loss_name(shapes) not in lengths:
        attrs["regimes_known"], attrs["caveats"] = 0, json.dumps([_NO_CURVES])
    return Description(grids, axes, at[at <= steps], attrs)


def check_value_names(argument: str, names: Mapping[str, Any], axes: Sequence[str]) -> None:
    """Raise for a name that a result cannot hold, or that it uses for another value."""
    taken = built_in_names() - set(_LOSSES) | {"late_change", "peak_change", "late_variation"} | set(axes)
    for name in names:
        checks.check_variable_name(argument, name)
        if name in taken or name.startswith("curve_") or name.removeprefix("curve_") in axes:
            problem = "a statistic, an axis or a dimension of the result has this name"
            raise bad_value(argument, name, problem, "Choose another name")
    if all(name in names for name in _LOSSES):
        raise bad_value(argument, list(_LOSSES), "both are the training loss", "Pass one of them")


def check_lengths(argument: str, lengths: Mapping[str, int]) -> Mapping[str, int]:
    """The number of values of each curve, which must be the same."""
    if len(set(lengths.values())) > 1:
        raise bad_value(argument, dict(lengths), "curves differ in their number of steps", "Give all the same steps")
    return lengths


def _check_array(name: str, array: Any, shape: tuple[int, ...]) -> np.ndarray:
    """The values of one array as floats, (points..., seeds) or (points..., seeds, steps + 1)."""
    argument = f"arrays[{name!r}]"
    values = check_curves(argument, array)
    if values.shape[: len(shape)] != shape or not 0 <= values.ndim - len(shape) <= 2:
        expected = ", ".join(map(str, shape))
        remedy = f"Pass shape ({expected}, seeds), or ({expected}, seeds, steps + 1) for a curve"
        raise bad_value(argument, values.shape, "the shape does not fit the axes", remedy)
    return values[..., None] if values.ndim == len(shape) else values


def _loss_name(values: Mapping[str, Any]) -> str | None:
    return next((name for name in _LOSSES if name in values), None)


def choose_score(values: Mapping[str, Any], by: str | None) -> str:
    """The variable that runs are compared by."""
    loss = _loss_name(values)
    known = ["final_loss" if name == loss else name for name in values]
    if by is not None:
        by = "final_loss" if by == loss else by
        if by not in known:
            raise unknown_name("by", by, known)
        return by
    preferred = [name for name in ("validation_loss", "final_loss") if name in known] or known
    if len(preferred) > 1 and loss is None and "validation_loss" not in known:
        raise bad_value("by", None, f"there are {', '.join(known)}", "Name the one by which runs are compared")
    return preferred[0]


def judge_lanes(values: Mapping[str, np.ndarray], judging: Judging, at: np.ndarray) -> dict[str, np.ndarray]:
    """The columns of some lanes: final values, the statistics of losses, and the curves at the steps `at`."""
    lengths = {name: v.shape[1] for name, v in values.items() if v.ndim == 2}
    columns = _judge_ends(values, judging, steps=next(iter(lengths.values()), 1) - 1)
    for name in lengths:
        curve = values[name][:, at]
        columns[f"curve_{name}"] = np.where(at > columns["end_step"][:, None], np.nan, curve)
    return columns


def _judge_ends(values: Mapping[str, np.ndarray], judging: Judging, steps: int) -> dict[str, np.ndarray]:
    loss, lanes = _loss_name(values), len(next(iter(values.values())))
    final = {name: v if v.ndim == 1 else v[:, -1] for name, v in values.items() if name != loss}
    losses = np.full((lanes, 1), np.nan) if loss is None else values[loss].reshape(lanes, -1)
    optimum = judging.optimum
    known = optimum is not None
    found = curve_statistics(losses, is_optimum_known=known, diverged_above=judging.diverged_above)
    if losses.shape[1] == 1:
        score = losses[:, 0] if loss is not None else final[choose_score(values, judging.by)]
        found["end_kind"] = np.where(np.isfinite(score), EndKind.STEPS, EndKind.NONFINITE).astype(np.int32)
        found["end_step"] = np.full(lanes, steps, np.int32)
    return found | final | ({"optimum": np.full(lanes, optimum, float)} if known else {})


def is_of_arrays(lanes: xr.Dataset) -> bool:
    """Whether the lanes of a result come from arrays, such as those that a function returned, and not from a sweep."""
    return "statistics" not in json.loads(lanes.attrs["asked"])
