"""Axes: the values of hyperparameters, whether they are traced, and the grid of points that they span."""

import collections
import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from gdkit import factories, optimizers
from gdkit.checks import MAX_KEY, as_bounds, check_integer, check_named, check_representable
from gdkit.errors import bad_type, bad_value, without_addresses
from gdkit.problems import Learner, Problem, ProblemLike
from gdkit.problems.learner import check_no_optimizer, no_optimizer
from gdkit.types import OptimizerLike


class MarkedValues(NamedTuple):
    """Axis values marked as traced or static."""

    values: tuple[Any, ...]
    traced: bool


def lanes(values: Sequence[Any]) -> MarkedValues:
    """Mark axis values as traced: one compiled program serves all of them."""
    return MarkedValues(tuple(values), True)


def static(values: Sequence[Any]) -> MarkedValues:
    """Mark axis values as static: one compiled program per value."""
    return MarkedValues(tuple(values), False)


class Paired(dict[str, Any]):
    """Axes of equal length that vary together."""


def paired(axes: Mapping[str, Sequence[Any]]) -> Paired:
    """Pair axes: the k-th point takes the k-th value of each.

    Raises:
      InputValueError: the axes differ in length.

    >>> paired({"learning_rate": [0.1, 0.01], "momentum": [0.0, 0.9]})["momentum"]
    [0.0, 0.9]
    """
    check_named("axes", axes, 'Pass for example {"learning_rate": [0.1, 0.01], "momentum": [0.0, 0.9]}')
    lengths = {name: len(_plain_values(values)) for name, values in axes.items()}
    if not lengths or len(set(lengths.values())) > 1:
        raise bad_value("paired", lengths, "paired axes differ in length", "Give each axis the same number of values")
    return Paired(axes)


def random_axes(axes: Mapping[str, tuple[float, float]], n: int, *, key: int = 0) -> Paired:
    """Sample `n` points log-uniformly, each axis between its two bounds, as paired axes.

    >>> len(random_axes({"learning_rate": (1e-4, 1.0), "b1": (0.5, 0.99)}, 16)["b1"])
    16
    """
    check_named("axes", axes, 'Pass for example {"learning_rate": (1e-4, 1.0)}')
    check_integer("n", n)
    check_integer("key", key, at_least=0, at_most=MAX_KEY)
    generator = np.random.default_rng(key)
    sampled = {}
    for name, bounds in axes.items():
        low, high = as_bounds(f"axes[{name!r}]", bounds, above=0)
        sampled[name] = np.exp(generator.uniform(math.log(low), math.log(high), n)).tolist()
    return paired(sampled)


@dataclasses.dataclass(frozen=True)
class Axis:
    """One hyperparameter and its values."""

    name: str
    values: np.ndarray | tuple[Any, ...]  # (values,), an array of floats where traced
    traced: bool

    @property
    def labels(self) -> np.ndarray:
        """The values as a coordinate (values,): numbers unchanged, other values by name."""
        if isinstance(self.values, np.ndarray):
            return self.values
        if all(map(factories.is_number, self.values)):
            return np.asarray(self.values)
        return np.asarray([_label(v) for v in self.values], dtype=object)


@dataclasses.dataclass(frozen=True)
class Dimension:
    """One axis, or several paired axes."""

    name: str
    axes: tuple[Axis, ...]

    @property
    def size(self) -> int:
        """Number of values."""
        return len(self.axes[0].values)


@dataclasses.dataclass(frozen=True)
class Section:
    """The product of the dimensions of one optimizer."""

    label: str | None  # of the optimizer; None without an optimizer axis
    optimizer: OptimizerLike
    fixed: Mapping[str, Any]
    dimensions: tuple[Dimension, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Size of each dimension."""
        return tuple(d.size for d in self.dimensions)

    @property
    def point_count(self) -> int:
        """Number of points in the product."""
        return math.prod(self.shape)

    @property
    def axes(self) -> tuple[Axis, ...]:
        """The axes of all dimensions."""
        return tuple(axis for dimension in self.dimensions for axis in dimension.axes)


class Group(NamedTuple):
    """The points of a section that one program serves."""

    section: Section
    static: dict[str, Any]
    traced: dict[str, np.ndarray]  # name -> (points,)
    points: np.ndarray  # (points,) int, numbers of points in the section, in the order in which they run


def parse_axes(problem: ProblemLike, optimizer: OptimizerLike | str | None, axes: Any) -> tuple[Section, ...]:
    """The sections that `axes` describe: one, or one per optimizer where ``optimizer`` is an axis.

    Raises:
      InputValueError, InputTypeError: an axis is empty, has duplicates, or learning rates that are not finite or are
        negative; or no factory takes its name.
    """
    if isinstance(problem, Learner):
        check_no_optimizer(optimizer)
        return parse_free_axes(axes)
    parts = [axes] if isinstance(axes, Mapping) else list(axes) if isinstance(axes, list | tuple) else [axes]
    for part in parts:
        check_named("axes", part, 'Pass {"learning_rate": [0.1, 0.01]}, or a list of such mappings')
    single = [(name, values) for part in parts if not isinstance(part, Paired) for name, values in part.items()]
    pairs = [part for part in parts if isinstance(part, Paired)]
    choices = dict(single).get("optimizer")
    single = [(name, values) for name, values in single if name != "optimizer"]
    if choices is None:
        return (_make_section(None, problem, _resolve_optimizer(optimizer), single, pairs, {}),)
    if optimizer is not None:
        remedy = "Pass None for it, or leave the axis out"
        raise bad_value("optimizer", optimizer, "axes has an 'optimizer' axis as well", remedy)
    labeled = [(label, *_split_choice(choice)) for label, choice in _label_choices(choices)]
    sections = tuple(
        _make_section(label, problem, _resolve_optimizer(choice), single, pairs, own) for label, choice, own in labeled
    )
    for name, values in single:
        if all(name in section.fixed for section in sections):
            raise bad_value(f"axes[{name!r}]", values, "every optimizer has a fixed value for it", "Remove one of them")
    return sections


def parse_free_axes(axes: Any) -> tuple[Section, ...]:
    """The sections of axes whose values no factory takes: floats and learning rates are traced, other values static.

    The optimizer of each section is a placeholder; its label and its value in ``fixed`` are those of the axis.
    """
    parts = axes if isinstance(axes, list | tuple) else [axes]
    free = [_free_part(part) if isinstance(part, Mapping) else part for part in parts]
    has_optimizers = any(isinstance(part, Mapping) and "optimizer" in part for part in free)
    any_problem: Any = no_optimizer
    return parse_axes(any_problem, None if has_optimizers else no_optimizer, free)


def _free_part(part: Mapping[str, Any]) -> Mapping[str, Any]:
    """The axes of a mapping with integers marked as static, and ``optimizer`` as the label of a section."""
    free: dict[str, Any] = {}
    for name, values in part.items():
        if name == "optimizer" and not isinstance(part, Paired):
            labeled = [(label, *_split_choice(choice)) for label, choice in _label_choices(values)]
            free[name] = {label: (no_optimizer, {**_free_part(own), name: choice}) for label, choice, own in labeled}
            continue
        plain = values if isinstance(values, MarkedValues) else _plain_values(values, f"axes[{name!r}]")
        are_integers = not isinstance(plain, MarkedValues) and not any(map(factories.is_float, plain))
        free[name] = static(list(plain)) if are_integers and name != "learning_rate" else values
    return Paired(free) if isinstance(part, Paired) else free


def _split_choice(choice: Any) -> tuple[Any, Mapping[str, Any]]:
    """An optimizer, and its own values where it is paired with some."""
    if not isinstance(choice, tuple) or optimizers.is_optimizer(choice):
        return choice, {}
    if len(choice) != 2 or not isinstance(choice[1], Mapping):
        problem, remedy = "not an optimizer with its own values", "Pass a factory, or (factory, {name: values})"
        raise bad_type("axes['optimizer']", choice, problem, remedy)
    return choice


def group_points(section: Section) -> list[Group]:
    """One group of points per combination of static values, each in the order in which its points run.

    The learning rate varies fastest, so that points which diverge at similar steps run together.
    """
    points = _order_points(section)
    at = np.unravel_index(points, section.shape) if section.shape else ()  # one array (points,) per dimension
    codes = np.zeros(section.point_count, np.int64)
    for dimension, index in zip(section.dimensions, at, strict=True):
        if not all(axis.traced for axis in dimension.axes):
            codes = codes * dimension.size + _code_static_values(dimension)[index]
    groups, distinct_codes = [], np.flatnonzero(np.bincount(codes))
    for code in distinct_codes:
        mine = codes == code if len(distinct_codes) > 1 else slice(None)
        static, traced = dict(section.fixed), {}
        for dimension, index in zip(section.dimensions, at, strict=True):
            for axis in dimension.axes:
                if axis.traced:
                    traced[axis.name] = np.asarray(axis.values, float)[index[mine]]
                else:
                    value = axis.values[index[mine][0]]
                    static[axis.name] = value.item() if isinstance(value, np.generic) else value
        groups.append(Group(section, static, traced, points[mine]))
    return groups


def renumber_points(shape: tuple[int, ...], dimension: int, places: np.ndarray, size: int) -> np.ndarray:
    """The numbers of points in a product that is longer along one dimension.

    Args:
      shape: of the product that the points span, in the order in which they are numbered.
      dimension: the one that becomes longer.
      places: where its values are in the longer one, (shape[dimension],).
      size: of the longer one.

    >>> renumber_points((2, 2), 1, np.array([0, 2]), 3).tolist()
    [0, 2, 3, 5]
    """
    index = list(np.indices(shape).reshape(len(shape), -1))
    index[dimension] = places[index[dimension]]
    return np.ravel_multi_index(tuple(index), (*shape[:dimension], size, *shape[dimension + 1 :]))


def is_log(values: np.ndarray) -> bool:
    """Whether values are spaced more evenly on a log scale; of two values, whether they differ by a factor of ten.

    >>> is_log(np.geomspace(1e-3, 1, 5)), is_log(np.linspace(0.1, 0.9, 5)), is_log(np.array([0.01, 1.0]))
    (True, False, True)
    """
    values = np.unique(values)
    if len(values) < 2 or values[0] <= 0:
        return False
    if len(values) == 2:
        return bool(values[1] >= 10 * values[0])
    unevenness = lambda x: np.std(np.diff(x)) / np.mean(np.diff(x))
    return bool(unevenness(np.log(values)) < unevenness(values))


def _order_points(section: Section) -> np.ndarray:
    """The numbers of all points in the order in which they run, (points,)."""
    is_fast = [any(axis.name == "learning_rate" for axis in d.axes) for d in section.dimensions]
    slow_first = sorted(range(len(is_fast)), key=is_fast.__getitem__)
    return np.arange(section.point_count).reshape(section.shape).transpose(slow_first).ravel()


def _code_static_values(dimension: Dimension) -> np.ndarray:
    """One number per value of a dimension, equal where the static values are equal; (values,)."""
    numbers: dict[Any, int] = {}
    rows = zip(*(axis.values for axis in dimension.axes if not axis.traced), strict=True)
    codes = [numbers.setdefault(tuple(map(factories.hashable, row)), len(numbers)) for row in rows]
    return np.asarray(codes)


def _make_section(
    label: str | None,
    problem: ProblemLike,
    optimizer: OptimizerLike,
    single: list[tuple[str, Any]],
    pairs: list[Paired],
    own: Mapping[str, Any],
) -> Section:
    """The section of one optimizer; `own` are its fixed values, and axes that replace those of all optimizers."""
    fixed = {name: value for name, value in own.items() if not _is_axis(value)}
    varied = {name: values for name, values in {**dict(single), **own}.items() if name not in fixed}
    dimensions = [Dimension(name, (_make_axis(name, values, optimizer, problem),)) for name, values in varied.items()]
    for number, pair in enumerate(pairs):
        name = "pair" if number == 0 else f"pair_{number + 1}"
        axes = tuple(_make_axis(n, v, optimizer, problem, distinct=False) for n, v in pair.items())
        dimensions.append(Dimension(name, axes))
    section = Section(label, optimizer, fixed, tuple(dimensions))
    for name, times in collections.Counter(axis.name for axis in section.axes).items():
        if times > 1:
            raise bad_value("axes", name, "this axis is given twice", "Give it once")
    return section


def _make_axis(
    name: str, values: Any, optimizer: OptimizerLike, problem: ProblemLike, *, distinct: bool = True
) -> Axis:
    argument = f"axes[{name!r}]"
    plain = _plain_values(values, argument)
    if not len(plain):
        raise bad_value(argument, values, "the axis is empty", "Give it at least one value")
    _check_values(argument, plain, is_rate=name == "learning_rate", distinct=distinct)
    factory = _get_factory(name, optimizer, problem)
    short = name.removeprefix(factories.PROBLEM_PREFIX)
    factories.check_names("axes", factory, [short])
    traced = values.traced if isinstance(values, MarkedValues) else factories.is_traced(factory, short, plain)
    if traced and not all(map(factories.is_number, () if isinstance(plain, np.ndarray) else plain)):
        raise bad_type(argument, list(plain), "lanes must be numbers", "Use gdkit.static for other values")
    if traced:
        check_representable(argument, plain)
    return Axis(name, np.asarray(plain, float) if traced else plain, traced)


def _check_values(argument: str, values: np.ndarray | tuple[Any, ...], *, is_rate: bool, distinct: bool) -> None:
    """Raise for numbers that are not finite, negative learning rates, and duplicates."""
    own = values if isinstance(values, np.ndarray) else np.asarray([v for v in values if factories.is_number(v)], float)
    for value in own[~np.isfinite(own)]:
        raise bad_value(argument, value.item(), "not finite", "Remove it")
    if is_rate:
        for value in own[own < 0]:
            raise bad_value(argument, value.item(), "a learning rate is not negative", "Use gdkit.ascent to maximize")
        for value in values if len(own) < len(values) else ():
            if not factories.is_number(value) and not callable(value):
                raise bad_type(argument, value, "not a number", "Give numbers, or schedules as gdkit.static([...])")
    if distinct:
        _check_distinct(argument, values)


def _check_distinct(argument: str, values: np.ndarray | tuple[Any, ...]) -> None:
    if isinstance(values, np.ndarray):
        ordered = values if np.all(values[1:] > values[:-1]) else np.sort(values)  # most axes are in order
        duplicates = ordered[1:][ordered[1:] == ordered[:-1]].tolist()
    else:
        keys = [float(v) if factories.is_number(v) else repr(v) for v in values]
        counts = collections.Counter(keys)
        duplicates = [v for v, key in zip(values, keys, strict=True) if counts[key] > 1]
    if duplicates:
        raise bad_value(argument, duplicates[0], "this value occurs twice", "Give each value once")


def _get_factory(name: str, optimizer: OptimizerLike, problem: ProblemLike) -> Callable[..., Any]:
    """The factory that takes the hyperparameter `name`."""
    if not name.startswith(factories.PROBLEM_PREFIX):
        if optimizers.is_optimizer(optimizer) or not callable(optimizer):
            remedy = "Pass the factory, for example optax.adam, not optax.adam(0.1)"
            raise bad_value("axes", name, "a finished optimizer takes no hyperparameters", remedy)
        return optimizer
    if isinstance(problem, Problem | Learner):
        remedy = "Pass a factory, for example gdkit.problems.quadratic, not a finished Problem"
        raise bad_value("axes", name, "a finished Problem takes no hyperparameters", remedy)
    return problem


def _resolve_optimizer(optimizer: OptimizerLike | str | None) -> OptimizerLike:
    if isinstance(optimizer, str):
        return optimizers.by_name(optimizer)
    if not callable(optimizer) and not optimizers.is_optimizer(optimizer):
        remedy = "Pass a factory such as optax.adam, a name, or an 'optimizer' axis"
        raise bad_type("optimizer", optimizer, "not an optimizer factory", remedy)
    return optimizer


def _label_choices(choices: Any) -> list[tuple[str, Any]]:
    if isinstance(choices, Mapping):
        labeled = [(str(label), choice) for label, choice in choices.items()]
    else:
        labeled = [(_label(choice), choice) for choice in _plain_values(choices)]
    labels = [label for label, _ in labeled]
    if not labels or len(set(labels)) < len(labels):
        remedy = "Give at least one optimizer, each with its own label: {'label': factory, ...}"
        raise bad_value("axes['optimizer']", labels, "labels are missing or occur twice", remedy)
    return labeled


def _is_axis(value: Any) -> bool:
    return isinstance(value, MarkedValues | list | range) or (getattr(value, "ndim", 0) == 1)


def _plain_values(values: Any, argument: str = "axes") -> np.ndarray | tuple[Any, ...]:
    """The values of an axis: an array where all are integers or all are floats, else a tuple."""
    if isinstance(values, MarkedValues):
        return _plain_values(list(values.values), argument)
    has_values = hasattr(values, "__len__") and hasattr(values, "__iter__") and getattr(values, "ndim", 1) > 0
    if isinstance(values, str | bytes | Mapping | set | frozenset) or not has_values:
        raise bad_type(argument, values, "an axis is a sequence of values", "Put it in a list")
    if hasattr(values, "__array__") and getattr(values, "ndim", 0) == 1:  # of NumPy, JAX, pandas, xarray
        values = np.asarray(values)
        if values.dtype.kind in "fiu":
            return np.array(values)
    plain = tuple(v.item() if isinstance(v, np.generic) else v for v in values)
    for value in plain:
        if type(value) is int and not -(2**63) <= value < 2**63:
            raise bad_value(argument, value, "an integer of more than 64 bits", "Give floats, for example 1e30")
    return np.array(plain) if set(map(type, plain)) in ({int}, {float}) else plain


def _label(value: Any) -> str:
    return value if isinstance(value, str) else getattr(value, "__name__", None) or without_addresses(str(value))
