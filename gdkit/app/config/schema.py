"""The pydantic models of a config: which keys it has, and which values they take. Imports no JAX."""

import functools
import math
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import pydantic
from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, WithJsonSchema
from pydantic.json_schema import SkipJsonSchema

from gdkit.app.config.source import ConfigError, ConfigSource, KeyPath, shorten

MAX_LANES = 100_000_000  # one row of statistics each: the limit of a disk
MAX_NUMBER = 1e38  # float32 ends at 3.4e38


class PathError(ValueError):
    """An error about the value at `path` below the value that is validated."""

    def __init__(self, path: KeyPath, message: str):
        super().__init__(message)
        self.path = path


def _to_int(value: Any) -> Any:
    """YAML reads 1e3 as a float, and its writer means an integer."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _check_scalar(value: Any) -> Any:
    if not isinstance(value, str | int | float | bool | None):
        raise PathError((), "must be a number, a string, true, false or null")
    return value


def _check_magnitude(value: float) -> float:
    if abs(value) > MAX_NUMBER:
        raise ValueError(f"at most {MAX_NUMBER:g}, which float32 can represent")
    return value


_REFERENCE = r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$"
_NAME = r"^\.*[A-Za-z0-9_-][A-Za-z0-9._-]*$"  # not only dots: it becomes a folder
_AXIS = r"^(problem\.)?[A-Za-z_]\w*$"
_LABEL = r"^[^\x00-\x1f\x7f/\\]+$"
PATTERNS = {
    _REFERENCE: "must be module:function",
    _NAME: "must consist of letters, digits and . _ -",
    _AXIS: "must be the name of a hyperparameter, or problem.NAME",
    _LABEL: "must be on one line, without / and \\",
}
Int = Annotated[int, BeforeValidator(_to_int)]
Number = Annotated[float, AfterValidator(_check_magnitude)]
Scalar = Annotated[
    Any, AfterValidator(_check_scalar), WithJsonSchema({"type": ["number", "string", "boolean", "null"]})
]
Reference = Annotated[str, Field(pattern=_REFERENCE)]
Name = Annotated[str, Field(pattern=_NAME, max_length=100)]
AxisName = Annotated[str, Field(pattern=_AXIS)]


class _Model(pydantic.BaseModel):
    """A mapping that rejects unknown keys and converts no types: the string "3" is not a number."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    @pydantic.model_serializer(mode="wrap")
    def _drop_unset(self, handler: pydantic.SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Fields that are None are omitted; a hyperparameter that was set to null is not."""
        fields = type(self).model_fields
        return {k: v for k, v in handler(self).items() if v is not None or k not in fields}


class _Range(_Model):
    from_: Number = Field(alias="from", description="first value")
    to: Number = Field(description="last value, larger than the first")

    @pydantic.model_validator(mode="after")
    def _check_order(self) -> "_Range":
        if not self.from_ < self.to:
            raise ValueError(f"from must be below to, and {self.from_:g} is not below {self.to:g}")
        return self


class Linear(_Range):
    """Equally spaced values."""

    count: Int = Field(ge=2, le=1_000_000, description="number of values, both ends included")


class Log(_Range):
    """Logarithmically spaced values."""

    from_: Number = Field(alias="from", gt=0, description="first value, above 0")
    count: Int = Field(ge=2, le=1_000_000, description="number of values, both ends included")


class Random(_Range):
    """Log-uniform samples; all random axes of a sweep are sampled jointly, point by point."""

    from_: Number = Field(alias="from", gt=0, description="smallest value, above 0")
    to: Number = Field(description="largest value, above the smallest")
    count: Int | None = Field(None, ge=1, le=1_000_000, description="number of points; give it for one random axis")


class ConfigAxis(_Model):
    """The values of one hyperparameter: exactly one of log, linear, values, random, static; or a plain list."""

    log: Log | None = Field(None, description="from, to, count: logarithmically spaced, ends included")
    linear: Linear | None = Field(None, description="from, to, count: equally spaced, ends included")
    values: list[Scalar] | None = Field(None, min_length=1, max_length=1_000_000, description="a list of values")
    random: Random | None = Field(None, description="from, to, count: sampled log-uniformly")
    static: list[Any] | None = Field(
        None, min_length=1, max_length=10_000, description="values that each need a compiled program"
    )

    @pydantic.model_validator(mode="before")
    @classmethod
    def _from_list(cls, value: Any) -> Any:
        return {"values": value} if isinstance(value, list) else value

    @pydantic.model_validator(mode="after")
    def _check_kind(self) -> "ConfigAxis":
        if len(self.model_fields_set) != 1 or getattr(self, self.kind) is None:
            raise ValueError("an axis is a list, or one of log, linear, values, random, static")
        duplicate = _find_duplicate(self.values or self.static or [])
        if duplicate is not None:
            raise ValueError(f"duplicate value {shorten(duplicate)}. Remove one; use seeds to repeat runs")
        return self

    @property
    def kind(self) -> str:
        """log, linear, values, random or static."""
        return next(iter(self.model_fields_set))

    @property
    def length(self) -> int:
        """Number of values; of a random axis without a count, 1."""
        spaced = self.log or self.linear or self.random
        return (spaced.count or 1) if spaced else len(self.values or self.static or [])

    def list_values(self) -> list[Any]:
        """The values of an axis that is not random; the ends are exact."""
        import numpy as np  # a tenth of a second that --help and most errors do not need

        if self.log:
            return np.geomspace(self.log.from_, self.log.to, self.log.count).tolist()
        if self.linear:
            return np.linspace(self.linear.from_, self.linear.to, self.linear.count).tolist()
        return list(self.values or self.static or [])


AXIS_TAG, SCALAR_TAG = "(axis)", "(fixed)"


def _tag_hyperparameter(value: Any) -> str:
    return AXIS_TAG if isinstance(value, dict | list | ConfigAxis) else SCALAR_TAG


Hyperparameter = Annotated[
    Annotated[ConfigAxis, Tag(AXIS_TAG)] | Annotated[Scalar, Tag(SCALAR_TAG)],
    Discriminator(_tag_hyperparameter),
]


class Schedule(_Model):
    """How the learning rate changes during a run; the axis gives its peak."""

    name: Literal["constant", "linear", "cosine", "warmup", "warmup_linear", "warmup_cosine"] = Field(
        description="shape of the schedule; those with warmup first rise to the peak"
    )
    warmup: float | None = Field(None, ge=0, lt=1, description="fraction of the steps spent on warmup; default: 0.1")
    final: float | None = Field(None, ge=0, le=1, description="final value as a fraction of the peak; default: 0")

    @pydantic.model_validator(mode="after")
    def _check_arguments(self) -> "Schedule":
        if self.warmup is not None and not self.name.startswith("warmup"):
            raise PathError(("warmup",), f"a {self.name} schedule has no warmup. Use warmup_linear or warmup_cosine")
        if self.final is not None and self.name in ("constant", "warmup"):
            raise PathError(("final",), f"a {self.name} schedule has no decay. Use one with linear or cosine")
        return self


class ConfigFactory(_Model):
    """A built-in name, or ``module:function`` of the user; every other key is an argument of that factory."""

    model_config = pydantic.ConfigDict(extra="allow")

    name: str | None = Field(None, min_length=1, max_length=200, description="built-in name")
    use: Reference | None = Field(None, description="your own module:function, looked up from the current folder")

    @pydantic.model_validator(mode="after")
    def _check_reference(self) -> "ConfigFactory":
        if (self.name is None) == (self.use is None):
            raise ValueError("give either name (built-in) or use (your own module:function)")
        for argument in self.arguments:
            if not argument.isidentifier():
                raise PathError((argument,), "not a valid name of an argument")
        return self

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of the factory."""
        return dict(self.__pydantic_extra__ or {})


class ConfigProblem(ConfigFactory):
    """The problem to minimize; keys besides name and use are arguments of its factory."""


class ConfigLearner(ConfigProblem):
    """A step map of your own, in place of problem and optimizer: ``module:function``; other keys are its settings."""

    @pydantic.model_validator(mode="before")
    @classmethod
    def _from_reference(cls, value: Any) -> Any:
        return {"use": value} if isinstance(value, str) else value

    @pydantic.model_validator(mode="after")
    def _check_use(self) -> "ConfigLearner":
        if self.use is None:
            raise PathError(("name",), "there are no built-in learners. Give use: module:function")
        return self


class ConfigOptimizer(ConfigFactory):
    """An optimizer; keys besides those listed are its hyperparameters, fixed values or axes of its own."""

    __pydantic_extra__: dict[str, Hyperparameter]  # ty: ignore[incompatible-mutable-override]  # how pydantic reads it

    label: str | None = Field(None, pattern=_LABEL, max_length=60, description="name in tables; default: its name")
    schedule: Schedule | None = Field(None, description="how the learning rate changes during a run")
    clip_norm: float | None = Field(None, gt=0, description="gradients are clipped to this global norm")
    ema: float | None = Field(
        None, ge=0, le=1, description="decay of a moving average of the params, at which runs are evaluated"
    )

    @property
    def title(self) -> str:
        """Name in tables and figures."""
        return self.label or self.name or str(self.use).partition(":")[2]

    @property
    def axes(self) -> dict[str, ConfigAxis]:
        """The axes that only this optimizer has."""
        return {name: value for name, value in self.arguments.items() if isinstance(value, ConfigAxis)}

    @property
    def fixed(self) -> dict[str, Any]:
        """The hyperparameters that do not vary."""
        return {name: value for name, value in self.arguments.items() if not isinstance(value, ConfigAxis)}


class ConfigMonitor(ConfigFactory):
    """A monitor; keys besides name and use are arguments of its factory."""


class ConfigPatience(_Model):
    """A run ends where a value has not improved for some checks."""

    name: str = Field(
        "loss", min_length=1, max_length=200, description="loss (the training loss), or a value on validation data"
    )
    checks: Int = Field(ge=1, le=2**31 - 2, description="checks without improvement after which a run ends")
    every: Int = Field(1, ge=1, le=2**31 - 2, description="steps between checks of the mean loss")
    min_delta: float = Field(0.0, ge=0, description="smallest change that counts as an improvement")


class ConfigStop(_Model):
    """The stopping rules of the runs."""

    patience: ConfigPatience = Field(description="end a run that no longer improves")


class ConfigSweep(_Model):
    """Which runs: every combination of the axes, for every seed."""

    axes: dict[AxisName, ConfigAxis] = Field(
        default_factory=dict, description="values by hyperparameter, or by problem.NAME; the grid is their product"
    )
    paired: dict[AxisName, ConfigAxis] = Field(
        default_factory=dict, description="axes of equal length that vary jointly, point by point"
    )
    seeds: Int = Field(1, ge=1, le=1_000_000, description="number of initial points and batch orders per combination")
    steps: Int = Field(ge=1, le=2**31 - 2, description="number of updates per run")
    key: Int = Field(0, ge=0, le=2**32 - 1, description="seed of all random choices")
    target: float | None = Field(None, description="a run ends early at this loss")
    statistics: Literal["all", "ends"] = Field(
        "all", description="ends: only the initial, final and lowest loss and the end; faster, and without regimes"
    )
    evaluate_every: Int | None = Field(
        None, ge=1, description="steps between evaluations on validation data; default: only at the end"
    )
    curve_points: Int = Field(200, ge=2, le=100_000, description="points per loss curve, logarithmic in the step")
    diverged_above: float = Field(
        1e6,
        gt=0,
        description="a run ends as diverged if its loss exceeds start + this · max(|start|, 1); start: initial loss",
    )
    until_bracketed: bool = Field(
        False, description="extend the learning rate beyond its end until the best value lies inside the axis"
    )
    monitors: list[ConfigMonitor] = Field(default_factory=list, max_length=100, description="additional statistics")
    keep_states: Literal["auto", "last", "best"] | None = Field(
        "auto",
        description="stored params and optimizer states: last; best, last included; auto, last if small; null, none",
    )
    start: str | None = Field(
        None,
        min_length=1,
        description="a .safetensors or .npz file of params, or an Orbax checkpoint, that all runs start from",
    )
    stop: ConfigStop | None = Field(None, description="when a run ends before its steps are used up")

    @pydantic.model_validator(mode="after")
    def _check_axes(self) -> "ConfigSweep":
        duplicates = self.axes.keys() & self.paired.keys()
        if duplicates:
            raise PathError(("paired", min(duplicates)), "also given under axes. Remove one")
        for name, axis in self.paired.items():
            if axis.random:
                raise PathError(("paired", name), "a paired axis cannot be random. Move it to axes")
        counts = {name: axis.random.count for name, axis in self.axes.items() if axis.random}
        if counts and len({count for count in counts.values() if count}) != 1:
            problem = "random axes are sampled jointly. Give one of them a count, and no other"
            raise PathError(("axes", min(counts)), problem)
        lengths = {name: axis.length for name, axis in self.paired.items()}
        if len(set(lengths.values())) > 1:
            listed = ", ".join(f"{name} has {length}" for name, length in lengths.items())
            raise PathError(("paired",), f"paired axes must have equal lengths: {listed}")
        return self


class _Config(_Model):
    _source: ConfigSource = pydantic.PrivateAttr(ConfigSource("<config>", {}, {}))

    def attach_source(self, source: ConfigSource) -> None:
        """Set the text whose lines the errors of this config name."""
        self._source = source

    def error(self, path: KeyPath, message: str) -> ConfigError:
        """The error for the value at `path`, with its file and line."""
        return ConfigError(self._source.describe(path, message))

    def has(self, path: KeyPath) -> bool:
        """Whether the text has a value at `path`."""
        return self._source.written_path(path) in self._source.locations

    def location(self, path: KeyPath) -> str:
        """``file:line`` of the value at `path`."""
        return self._source.location(path)


_PRECISION = "float64 enables x64 for this process before JAX starts"
_OUTPUT = "folder to write to; default: runs/NAME"


class SweepConfig(_Config):
    """A sweep: a problem, one or several optimizers, and the runs."""

    name: Name = Field(description="name of the run and of its folder: letters, digits and . _ -")
    problem: ConfigProblem = Field(description="the problem to minimize")
    optimizer: list[ConfigOptimizer] = Field(min_length=1, max_length=1000, description="one optimizer, or a list")
    sweep: ConfigSweep = Field(description="which runs")
    precision: Literal["float32", "float64"] = Field("float32", description=_PRECISION)
    thresholds: dict[str, float] = Field(
        default_factory=dict, description="thresholds between regimes that differ from the defaults"
    )
    output: str | None = Field(None, min_length=1, max_length=1000, description=_OUTPUT)

    @pydantic.model_validator(mode="before")
    @classmethod
    def _wrap_optimizer(cls, value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("optimizer"), dict):
            return value | {"optimizer": [value["optimizer"]]}
        return value

    @pydantic.model_validator(mode="after")
    def _check_names_and_size(self) -> "SweepConfig":
        titles = [optimizer.title for optimizer in self.optimizer]
        for i, title in enumerate(titles):
            if title in titles[:i]:
                raise PathError(("optimizer", i), f"another optimizer is called {title!r}, too. Give it a label")
        for i, optimizer in enumerate(self.optimizer):
            _check_own_axes(self.sweep, i, optimizer)
        for name in (*self.sweep.axes, *self.sweep.paired):
            argument = name.removeprefix("problem.")
            if name != argument and argument in self.problem.arguments:
                raise PathError(("problem", argument), f"both fixed here and an axis of the sweep ({name}). Remove one")
        lanes = sum(self.lanes_per_optimizer)
        if lanes > MAX_LANES:
            raise PathError(("sweep",), f"{lanes:,} runs are more than {MAX_LANES:,}. Lower count or seeds")
        return self

    @property
    def lanes_per_optimizer(self) -> list[int]:
        """Number of runs of each optimizer, or of the learner, seeds included."""
        arguments = [optimizer.arguments for optimizer in self.optimizer] or [{}]
        return [math.prod(_list_axis_lengths(self.sweep, own)) * self.sweep.seeds for own in arguments]


def _check_own_axes(sweep: ConfigSweep, number: int, optimizer: ConfigOptimizer) -> None:
    """Axes that vary jointly for all optimizers cannot be replaced for one."""
    random = [name for name, axis in sweep.axes.items() if axis.random]
    joint = {*sweep.paired, *(random if len(random) > 1 else ())}
    for name, value in optimizer.arguments.items():
        path = ("optimizer", number, name)
        if isinstance(value, ConfigAxis) and value.random:
            raise PathError(path, "a random axis must be one of the sweep. Move it to sweep.axes")
        if name in joint:
            raise PathError(path, "also an axis that varies jointly with others in the sweep. Remove one")


def _list_axis_lengths(sweep: ConfigSweep, own: dict[str, Any]) -> Iterator[int]:
    """The lengths of the axes of one optimizer; `own` are its arguments, among them axes of its own."""
    axes = {name: axis for name, axis in sweep.axes.items() if name not in own}
    axes |= {name: axis for name, axis in own.items() if isinstance(axis, ConfigAxis)}
    yield from (axis.length for axis in axes.values() if axis.random is None)
    yield max((axis.length for axis in axes.values() if axis.random), default=1)  # sampled jointly
    yield max((axis.length for name, axis in sweep.paired.items() if name not in own), default=1)


def _find_duplicate(values: list[Any]) -> Any:
    """The first value that occurs twice, or None; 1 and 1.0 are equal, 1 and true are not."""
    seen = set()
    for value in values:
        mark = repr(float(value)) if isinstance(value, int | float) and not isinstance(value, bool) else repr(value)
        if mark in seen:
            return value
        seen.add(mark)
    return None


class LearnerConfig(SweepConfig):
    """A sweep over a learner: a step map of your own, and the runs."""

    problem: ConfigLearner = Field(
        alias="learner", description="your own module:function that returns a gdkit.Learner, with its settings"
    )
    optimizer: SkipJsonSchema[list[ConfigOptimizer]] = Field([], exclude=True)  # a learner has none

    @pydantic.model_validator(mode="before")
    @classmethod
    def _refuse_replaced_sections(cls, value: Any) -> Any:
        for name in ("problem", "optimizer"):
            if isinstance(value, dict) and name in value:
                raise PathError((name,), f"a learner stands in place of problem and optimizer. Remove {name}")
        return value


class StudyConfig(_Config):
    """A study: a Python function that runs an experiment."""

    name: Name = Field(description="name of the run and of its folder; default: the name of the module")
    experiment: Reference = Field(description="module:function, called with the settings")
    settings: dict[str, Any] = Field(default_factory=dict, description="settings of the experiment")
    precision: Literal["float32", "float64"] = Field("float32", description=_PRECISION)
    output: str | None = Field(None, min_length=1, max_length=1000, description=_OUTPUT)

    @pydantic.model_validator(mode="before")
    @classmethod
    def _default_name(cls, value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("experiment"), str) and "name" not in value:
            return value | {"name": value["experiment"].partition(":")[0].rpartition(".")[2]}
        return value


Config = SweepConfig | LearnerConfig | StudyConfig


def build_json_schema() -> dict[str, Any]:
    """The JSON Schema of configs, for editors that complete and check YAML."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "gdkit config"} | build_schema(Config)


@functools.cache
def build_schema(model: Any) -> dict[str, Any]:
    """The JSON Schema of a model."""
    return pydantic.TypeAdapter(model).json_schema(by_alias=True, mode="validation")
