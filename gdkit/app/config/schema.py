"""Configs: what a YAML file may say, checked, with every complaint at its file and line. Imports no JAX."""

import functools
import io
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, WithJsonSchema
from ruamel.yaml import YAML
from ruamel.yaml.representer import SafeRepresenter

from gdkit.app.config.source import ConfigError, KeyPath, Source, dotted, override, parse, read, short
from gdkit.errors import nearest

__all__ = [
    "Config",
    "ConfigAxis",
    "ConfigError",
    "StudyConfig",
    "SweepConfig",
    "axis_values",
    "dump",
    "json_schema",
    "lanes",
    "load",
    "loads",
]

MAX_LANES = 100_000_000  # a row of statistics each: what a disk holds, not yet what a mistake asks for
MAX_NUMBER = 1e38  # float32 ends at 3.4e38
_SHOWN_ERRORS = 20


class _PathError(ValueError):
    """A complaint about what stands at `path` below the value that is checked."""

    def __init__(self, path: KeyPath, message: str):
        super().__init__(message)
        self.path = path


def _whole(value: Any) -> Any:
    """1e3 is a float in YAML and a whole number to its writer."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _scalar(value: Any) -> Any:
    if not isinstance(value, str | int | float | bool | None):
        raise _PathError((), "a fixed value is a number, a word, true, false or null")
    return value


def _small(value: float) -> float:
    if abs(value) > MAX_NUMBER:
        raise ValueError(f"at most {MAX_NUMBER:g}, which float32 can hold")
    return value


Int = Annotated[int, BeforeValidator(_whole)]
Number = Annotated[float, AfterValidator(_small)]
Fixed = Annotated[Any, AfterValidator(_scalar), WithJsonSchema({"type": ["number", "string", "boolean", "null"]})]
_REFERENCE = r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$"
_NAME = r"^\.*[A-Za-z0-9_-][A-Za-z0-9._-]*$"  # not of dots alone: it becomes a folder
_AXIS = r"^(problem\.)?[A-Za-z_]\w*$"
_LABEL = r"^[^\x00-\x1f\x7f/\\]+$"
Reference = Annotated[str, Field(pattern=_REFERENCE)]
Name = Annotated[str, Field(pattern=_NAME, max_length=100)]
AxisName = Annotated[str, Field(pattern=_AXIS)]


class _Model(pydantic.BaseModel):
    """A mapping that refuses unknown keys and takes no value for another: the word "3" is not a number."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    @pydantic.model_serializer(mode="wrap")
    def _without_nothing(self, handler: pydantic.SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Fields left at None are left out; a hyperparameter that was set to null is not."""
        fields = type(self).model_fields
        return {k: v for k, v in handler(self).items() if v is not None or k not in fields}


class _Spaced(_Model):
    from_: Number = Field(alias="from", description="the first value")
    to: Number = Field(description="the last value, above the first")
    count: Int = Field(ge=2, le=1_000_000, description="how many values, both ends included")

    @pydantic.model_validator(mode="after")
    def _rising(self) -> "_Spaced":
        if not self.from_ < self.to:
            raise ValueError(f"from must be below to, and {self.from_:g} is not below {self.to:g}")
        return self


class Linear(_Spaced):
    """Values at equal distances."""


class Log(_Spaced):
    """Values at equal ratios."""

    from_: Number = Field(alias="from", gt=0, description="the first value, above 0")


class Random(_Model):
    """Values drawn log-uniformly; all random axes of a sweep are drawn together, point by point."""

    from_: Number = Field(alias="from", gt=0, description="the smallest value, above 0")
    to: Number = Field(description="the largest value, above the smallest")
    count: Int | None = Field(
        None, ge=1, le=1_000_000, description="how many points; once for all random axes is enough"
    )

    @pydantic.model_validator(mode="after")
    def _rising(self) -> "Random":
        if not self.from_ < self.to:
            raise ValueError(f"from must be below to, and {self.from_:g} is not below {self.to:g}")
        return self


class ConfigAxis(_Model):
    """The values of one hyperparameter: exactly one of log, linear, values, random, static; or a plain list."""

    log: Log | None = Field(None, description="from, to, count: equal ratios, ends included")
    linear: Linear | None = Field(None, description="from, to, count: equal distances, ends included")
    values: list[Fixed] | None = Field(None, min_length=1, max_length=1_000_000, description="the values themselves")
    random: Random | None = Field(None, description="from, to, count: drawn log-uniformly")
    static: list[Any] | None = Field(
        None, min_length=1, max_length=10_000, description="values that each need a program"
    )

    @pydantic.model_validator(mode="before")
    @classmethod
    def _from_list(cls, value: Any) -> Any:
        return {"values": value} if isinstance(value, list) else value

    @pydantic.model_validator(mode="after")
    def _one_kind(self) -> "ConfigAxis":
        if len(self.model_fields_set) != 1 or getattr(self, self.kind) is None:
            raise ValueError("an axis is a list, or one of log, linear, values, random, static")
        repeated = _repeated(self.values or self.static or [])
        if repeated is not None:
            raise ValueError(f"the value {short(repeated)} is there twice. Write it once; repeat a run with seeds")
        return self

    @property
    def kind(self) -> str:
        """log, linear, values, random or static."""
        return next(iter(self.model_fields_set))


_AXIS_TAG, _FIXED_TAG = "(axis)", "(fixed)"


def _axis_or_fixed(value: Any) -> str:
    return _AXIS_TAG if isinstance(value, dict | list | ConfigAxis) else _FIXED_TAG


Hyperparameter = Annotated[
    Annotated[ConfigAxis, Tag(_AXIS_TAG)] | Annotated[Fixed, Tag(_FIXED_TAG)],
    Discriminator(_axis_or_fixed),
]


class Schedule(_Model):
    """How the learning rate changes along a run; the axis is its peak."""

    name: Literal["constant", "linear", "cosine", "warmup", "warmup_linear", "warmup_cosine"] = Field(
        description="its shape; those with warmup rise to the peak first"
    )
    warmup: float | None = Field(None, ge=0, lt=1, description="the part of the steps in which it rises; default: 0.1")
    final: float | None = Field(None, ge=0, le=1, description="where it ends, as a part of the peak; default: 0")

    @pydantic.model_validator(mode="after")
    def _taken(self) -> "Schedule":
        if self.warmup is not None and not self.name.startswith("warmup"):
            raise _PathError(("warmup",), f"a {self.name} schedule does not rise. Name warmup_linear or warmup_cosine")
        if self.final is not None and self.name in ("constant", "warmup"):
            raise _PathError(("final",), f"a {self.name} schedule does not fall. Name one with linear or cosine")
        return self


class _Named(_Model):
    """Something by its name, or the user's own by ``module:function``; every other key is an argument for it."""

    model_config = pydantic.ConfigDict(extra="allow")

    name: str | None = Field(None, min_length=1, max_length=200, description="a built-in name")
    use: Reference | None = Field(None, description="module:function of your own, found from the current folder")

    @pydantic.model_validator(mode="after")
    def _one_of(self) -> "_Named":
        if (self.name is None) == (self.use is None):
            raise ValueError("give one of name (built-in) and use (module:function of your own)")
        for argument in self.arguments:
            if not argument.isidentifier():
                raise _PathError((argument,), "not a name that an argument can have")
        return self

    @property
    def arguments(self) -> dict[str, Any]:
        """What is handed to the factory."""
        return dict(self.__pydantic_extra__ or {})


class ConfigProblem(_Named):
    """What is minimised; keys besides name and use are arguments of its factory."""


class ConfigOptimizer(_Named):
    """What minimises; keys besides those listed are hyperparameters, fixed or axes of this optimizer alone."""

    __pydantic_extra__: dict[str, Hyperparameter]  # ty: ignore[incompatible-mutable-override]  # how pydantic reads it

    label: str | None = Field(None, pattern=_LABEL, max_length=60, description="its name in tables; default: its name")
    schedule: Schedule | None = Field(None, description="how the learning rate changes along a run")
    clip_norm: float | None = Field(None, gt=0, description="gradients longer than this are shortened to it")

    @property
    def title(self) -> str:
        """What tables and figures call it."""
        return self.label or self.name or str(self.use).partition(":")[2]

    @property
    def axes(self) -> dict[str, ConfigAxis]:
        """The axes of this optimizer alone."""
        return {name: value for name, value in self.arguments.items() if isinstance(value, ConfigAxis)}

    @property
    def fixed(self) -> dict[str, Any]:
        """The hyperparameters that do not vary."""
        return {name: value for name, value in self.arguments.items() if not isinstance(value, ConfigAxis)}


class ConfigMonitor(_Named):
    """What is watched along each run; keys besides name and use are its arguments."""


class ConfigSweep(_Model):
    """Which runs: every combination of the axes, for every seed."""

    axes: dict[AxisName, ConfigAxis] = Field(
        default_factory=dict, description="hyperparameter, or problem.NAME, to its values; the grid is their product"
    )
    paired: dict[AxisName, ConfigAxis] = Field(
        default_factory=dict, description="axes of equal length that go together, point by point"
    )
    seeds: Int = Field(
        1, ge=1, le=1_000_000, description="how many starts and batch orders each combination is run with"
    )
    steps: Int = Field(ge=1, le=2**31 - 2, description="how many updates a run makes")
    key: Int = Field(0, ge=0, le=2**32 - 1, description="the number that all random choices follow from")
    target: float | None = Field(None, description="a loss at which a run ends early")
    curve_points: Int = Field(200, ge=2, le=100_000, description="points of each loss curve, at steps of equal ratio")
    diverged_above: float = Field(
        1e6, gt=0, description="a run ends as diverged above start + this times max(|start|, 1)"
    )
    monitors: list[ConfigMonitor] = Field(default_factory=list, max_length=100, description="what is watched besides")

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> "ConfigSweep":
        twice = self.axes.keys() & self.paired.keys()
        if twice:
            raise _PathError(("paired", min(twice)), "stands under axes too. Keep one")
        for name, axis in self.paired.items():
            if axis.random:
                raise _PathError(("paired", name), "paired axes have values of their own. Move it to axes")
        counts = {name: axis.random.count for name, axis in self.axes.items() if axis.random}
        if counts and len({count for count in counts.values() if count}) != 1:
            raise _PathError(
                ("axes", min(counts)), "random axes are drawn together. Give one of them a count, and no other"
            )
        lengths = {name: _length(axis) for name, axis in self.paired.items()}
        if len(set(lengths.values())) > 1:
            raise _PathError(("paired",), f"paired axes must be equally long, and these are not: {_listed(lengths)}")
        return self


class _Config(_Model):
    _source: Source = pydantic.PrivateAttr(Source("<config>", {}, {}))

    def error(self, path: KeyPath, message: str) -> ConfigError:
        """The error for the value at `path`, with its file and line."""
        return ConfigError(_complaint(self._source, path, message))

    def has(self, path: KeyPath) -> bool:
        """Whether something is written at `path`."""
        return self._source.written(path) in self._source.places

    def place(self, path: KeyPath) -> str:
        """The file and line at which the value at `path` stands."""
        return self._source.place(path)


_PRECISION = "float64 switches x64 on for this process before JAX starts"
_OUTPUT = "the folder to write to; default: runs/NAME"


class SweepConfig(_Config):
    """A sweep: a problem, one or several optimizers, and which runs."""

    name: Name = Field(description="what the run and its folder are called: letters, digits, . _ -")
    problem: ConfigProblem = Field(description="what is minimised")
    optimizer: list[ConfigOptimizer] = Field(
        min_length=1, max_length=1000, description="what minimises: one, or a list"
    )
    sweep: ConfigSweep = Field(description="which runs")
    precision: Literal["float32", "float64"] = Field("float32", description=_PRECISION)
    thresholds: dict[str, float] = Field(default_factory=dict, description="borders between regimes other than gdkit's")
    output: str | None = Field(None, min_length=1, max_length=1000, description=_OUTPUT)

    @pydantic.model_validator(mode="before")
    @classmethod
    def _several(cls, value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("optimizer"), dict):
            return value | {"optimizer": [value["optimizer"]]}
        return value

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> "SweepConfig":
        titles = [optimizer.title for optimizer in self.optimizer]
        for i, title in enumerate(titles):
            if title in titles[:i]:
                raise _PathError(("optimizer", i), f"a second optimizer called {title!r}. Give it a label of its own")
        for i, optimizer in enumerate(self.optimizer):
            _check_own_axes(self.sweep, i, optimizer)
        for name in (*self.sweep.axes, *self.sweep.paired):
            argument = name.removeprefix("problem.")
            if name != argument and argument in self.problem.arguments:
                raise _PathError(("problem", argument), f"both fixed here and an axis of the sweep ({name}). Keep one")
        if sum(lanes(self)) > MAX_LANES:
            raise _PathError(("sweep",), f"{sum(lanes(self)):,} runs. At most {MAX_LANES:,}; lower count or seeds")
        return self


def _check_own_axes(sweep: ConfigSweep, number: int, optimizer: ConfigOptimizer) -> None:
    """What belongs together for all optimizers cannot be taken apart for one."""
    random = [name for name, axis in sweep.axes.items() if axis.random]
    together = {*sweep.paired, *(random if len(random) > 1 else ())}
    for name, value in optimizer.arguments.items():
        if isinstance(value, ConfigAxis) and value.random:
            raise _PathError(
                ("optimizer", number, name), "random axes are those of the whole sweep. Move it to sweep.axes"
            )
        if name in together:
            raise _PathError(
                ("optimizer", number, name), "an axis that goes together with others in the sweep. Keep one"
            )


class StudyConfig(_Config):
    """An experiment that is a program of its own."""

    name: Name = Field(description="what the run and its folder are called; default: the module's name")
    experiment: Reference = Field(description="module:function, called with the settings")
    settings: dict[str, Any] = Field(default_factory=dict, description="what the experiment is told")
    precision: Literal["float32", "float64"] = Field("float32", description=_PRECISION)
    output: str | None = Field(None, min_length=1, max_length=1000, description=_OUTPUT)

    @pydantic.model_validator(mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("experiment"), str) and "name" not in value:
            return value | {"name": value["experiment"].partition(":")[0].rpartition(".")[2]}
        return value


Config = SweepConfig | StudyConfig


def load(path: str | Path, overrides: Iterable[str] = ()) -> Config:
    """The config in a file, with ``key.path=value`` overrides applied in their order.

    Raises:
      ConfigError: the file cannot be read, is not YAML, or says something that gdkit does not know.
    """
    return loads(read(path), overrides, file=str(path))


def loads(text: str, overrides: Iterable[str] = (), *, file: str = "<config>") -> Config:
    """The config in a text; as `load`."""
    source = parse(text, file)
    if source.tree is None:
        raise ConfigError(f"{file}: empty. gdkit new NAME writes a config to start from.")
    if not isinstance(source.tree, dict):
        raise ConfigError(f"{file}: a config is a mapping of keys to values, not a {type(source.tree).__name__}.")
    for assignment in overrides:
        source = override(source, assignment)
    model = StudyConfig if "experiment" in source.tree else SweepConfig
    try:
        config = model.model_validate(source.tree)
    except pydantic.ValidationError as error:
        complaints = [_explain(source, model, e) for e in error.errors(include_url=False)]
        raise ConfigError(_listed_lines(complaints)) from None
    config._source = source
    return config


def dump(config: Config) -> str:
    """YAML that loads to the same config again, defaults and overrides written out."""
    yaml = YAML(typ="safe", pure=True)
    yaml.Representer = _Representer
    yaml.width = 120
    yaml.allow_unicode = True
    stream = io.StringIO()
    yaml.dump(config.model_dump(by_alias=True), stream)
    return stream.getvalue()


class _Representer(SafeRepresenter):
    """Keeps the order of keys, writes shared values out, and quotes what is not plainly a word."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.sort_base_mapping_type_on_output = False

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def word(self, text: str) -> Any:
        plain = re.fullmatch(r"[A-Za-z_][\w./ -]*(:\w[\w.]*)?", text, re.ASCII) and text == text.strip()
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else '"')


_Representer.add_representer(str, _Representer.word)


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a config, for editors that complete and check YAML."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "gdkit config"} | _schema(Config)


def axis_values(axis: ConfigAxis) -> list[Any]:
    """The values of an axis that is not random, ends exact."""
    import numpy as np  # a tenth of a second that --help and most errors can do without

    if axis.log:
        return np.geomspace(axis.log.from_, axis.log.to, axis.log.count).tolist()
    if axis.linear:
        return np.linspace(axis.linear.from_, axis.linear.to, axis.linear.count).tolist()
    return list(axis.values or axis.static or [])


def lanes(job: SweepConfig) -> list[int]:
    """How many runs each optimizer makes, seeds included."""
    return [math.prod(_lengths(job.sweep, optimizer)) * job.sweep.seeds for optimizer in job.optimizer]


def _lengths(sweep: ConfigSweep, optimizer: ConfigOptimizer) -> Iterator[int]:
    own = optimizer.arguments
    axes = {name: axis for name, axis in sweep.axes.items() if name not in own} | optimizer.axes
    yield from (_length(axis) for axis in axes.values() if axis.random is None)
    random = [_length(axis) for axis in axes.values() if axis.random is not None]
    yield max(random, default=1)  # drawn together
    paired = [_length(axis) for name, axis in sweep.paired.items() if name not in own]
    yield max(paired, default=1)


def _length(axis: ConfigAxis) -> int:
    spaced = axis.log or axis.linear or axis.random
    return (spaced.count or 1) if spaced else len(axis.values or axis.static or [])


def _repeated(values: list[Any]) -> Any:
    """The first value that is there twice, or None; 1, 1.0 and True are three values."""
    seen = set()
    for value in values:
        mark = repr(float(value)) if isinstance(value, int | float) and not isinstance(value, bool) else repr(value)
        if mark in seen:
            return value
        seen.add(mark)
    return None


_WORDS = {
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "string_type": "must be a word",
}
_SHAPES = {"list_type": "a list", "dict_type": "a mapping", "model_type": "a mapping"}
_NAMED = ("problem", "optimizer", "monitors", "schedule")  # what has a name
_EXAMPLES = {
    "sweep": "{axes: {learning_rate: [0.01, 0.1]}, steps: 100}",
    "axes": "{learning_rate: [0.01, 0.1]}",
    "paired": "{learning_rate: [0.01, 0.1], momentum: [0.0, 0.9]}",
    "log": "{from: 1e-4, to: 1, count: 9}",
    "linear": "{from: 0, to: 0.9, count: 10}",
    "random": "{from: 1e-4, to: 1, count: 20}",
    "values": "[0.01, 0.1]",
    "static": "[false, true]",
}
_PATTERNS = {
    _REFERENCE: "must be module:function",
    _NAME: "must be letters, digits and . _ - only",
    _AXIS: "must be the name of a hyperparameter, or problem.NAME",
    _LABEL: "must be on one line, without / and \\",
}


def _explain(source: Source, model: type[_Config], error: Mapping[str, Any]) -> str:
    """One of pydantic's errors in our words, where the user wrote it."""
    path = tuple(part for part in error["loc"] if part not in ("[key]", _AXIS_TAG, _FIXED_TAG))
    fault = error.get("ctx", {}).get("error")
    path += fault.path if isinstance(fault, _PathError) else ()
    written = source.written(path)
    if error["type"] == "extra_forbidden":
        return f"{source.place(written)}: {dotted(written)}: unknown key. {_mend(path, model)}"
    if error["type"] == "missing":
        return f"{source.place(written)}: {dotted(written)}: missing. {_description(path, model)}".strip()
    message = error["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    message = _WORDS.get(error["type"], message)
    message = _shape(path, error) if error["type"] in _SHAPES else message
    if error["type"] == "string_pattern_mismatch":
        message = _PATTERNS.get(error["ctx"]["pattern"], message)
    return _complaint(source, written, message)


def _shape(path: KeyPath, error: Mapping[str, Any]) -> str:
    """What must stand at `path` instead of one value, with an example made of that value."""
    value = error["input"] if isinstance(error["input"], str | int | float) else None
    names = [str(part) for part in path if not isinstance(part, int)]
    if names[-2:-1] == ["axes"] or names[-2:-1] == ["paired"]:
        fixed = f"optimizer.0.{names[-1]}={_as_yaml(value)}"
        remedy = "" if value is None else f". If it is not to vary, give it to the optimizer: {fixed}."
        example = f"[{'0.01, 0.1' if value is None else _as_yaml(value)}]"
        return f"must be a list of values, for example {example}, or one of log, linear, random, static{remedy}"
    example = _EXAMPLES.get(names[-1], "") if names else ""
    if names and names[-1] in _NAMED:
        example = f"{{name: {value if isinstance(value, str) else '...'}}}"
        example = f"[{example}]" if names[-1] == "monitors" and path[-1] == "monitors" else example
    what = "a mapping, or a list of them" if path == ("optimizer",) else _SHAPES[error["type"]]
    return f"must be {what}" + (f", for example {example}" if example else "")


def _complaint(source: Source, path: KeyPath, message: str) -> str:
    path = source.written(path)
    try:
        value = source.value(path)
        shown = "" if isinstance(value, dict | list) else f" = {_as_yaml(value)}"
    except (KeyError, IndexError, TypeError):
        shown = ""
    name = f"{dotted(path)}{shown}: " if path else ""
    return f"{source.place(path)}: {name}{message}{'' if message.endswith(('.', '?')) else '.'}"


def _as_yaml(value: Any) -> str:
    words: dict[Any, str] = {None: "null", True: "true", False: "false"}
    return words[value] if value is None or isinstance(value, bool) else short(repr(value))


def _mend(path: KeyPath, model: type[_Config]) -> str:
    known = [key for node in _nodes(path[:-1], model) for key in node.get("properties", ())]
    home = _home(str(path[-1]), model)
    close = f"It belongs under {home[0]}: {dotted(home)}" if home else nearest(str(path[-1]), known)
    if close or path[:-1] not in ((), ("sweep",)) or model is not SweepConfig:
        return close or f"Known: {', '.join(known)}."
    name = str(path[-1])
    remedy = f" If {name} is a hyperparameter: sweep.axes.{name}=[...] for its values, optimizer.0.{name}=... for one."
    return f"Known: {', '.join(known)}.{remedy if name.isidentifier() else ''}"


def _home(name: str, model: type[_Config]) -> KeyPath | None:
    """Where a key of this name does belong, if it is one of a part of a config."""
    for part in _schema(model).get("properties", ()):
        for path in ((part,), (part, 0)):
            if any(name in node.get("properties", ()) for node in _nodes(path, model)) and name not in ("name", "use"):
                return (*path, name)
    return None


def _description(path: KeyPath, model: type[_Config]) -> str:
    found = [node["description"] for node in _nodes(path, model) if "description" in node]
    return f"It says {found[0]}." if found else ""


def _nodes(path: KeyPath, model: type[_Config]) -> list[dict[str, Any]]:
    """The parts of the model's JSON Schema that the value at `path` may have to meet."""
    schema = _schema(model)
    nodes = _branches(schema, schema)
    for part in path:
        below = [n["properties"][part] for n in nodes if part in n.get("properties", {})]
        below += [n["items"] for n in nodes if isinstance(part, int) and "items" in n]
        below = below or [free for node in nodes for free in _free(node)]
        nodes = [branch for node in below for branch in _branches(node, schema)] or nodes  # a union's tag leads nowhere
    return nodes


def _free(node: dict[str, Any]) -> list[dict[str, Any]]:
    """What keys of any name have to meet."""
    rest = node.get("additionalProperties")
    return [*node.get("patternProperties", {}).values(), *([rest] if isinstance(rest, dict) else [])]


def _branches(node: dict[str, Any], schema: dict[str, Any]) -> list[dict[str, Any]]:
    """`node` and what it refers to and offers as alternatives."""
    below = [*node.get("anyOf", ()), *node.get("oneOf", ())]
    if "$ref" in node:
        below.append(schema["$defs"][node["$ref"].rpartition("/")[2]])
    return [node, *(branch for part in below for branch in _branches(part, schema))]


@functools.cache
def _schema(model: Any) -> dict[str, Any]:
    return pydantic.TypeAdapter(model).json_schema(by_alias=True, mode="validation")


def _listed(lengths: Mapping[str, int]) -> str:
    return ", ".join(f"{name} has {n}" for name, n in lengths.items())


def _listed_lines(complaints: list[str]) -> str:
    if len(complaints) == 1:
        return complaints[0]
    more = len(complaints) - _SHOWN_ERRORS
    shown = complaints[:_SHOWN_ERRORS] + ([f"and {more} more"] if more > 0 else [])
    return "\n".join([f"{len(complaints)} things to fix:", *(f"  {line}" for line in shown)])
