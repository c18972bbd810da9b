"""From a checked config to the arguments of `gdkit.sweep`; what it names is found before anything is compiled."""

import functools
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gdkit import factories, monitors, optimizers, problems, stability
from gdkit.app.config.schema import Config, ConfigAxis, ConfigError, ConfigOptimizer, SweepConfig, axis_values
from gdkit.app.config.schema import ConfigMonitor as MonitorSpec
from gdkit.app.config.source import KeyPath
from gdkit.errors import InputTypeError, InputValueError, MissingPackageError, OtherRunError, nearest
from gdkit.factories import PROBLEM_PREFIX
from gdkit.problems import Problem
from gdkit.regimes import Thresholds
from gdkit.sweeps.axes import Paired, paired, random_axes, static
from gdkit.types import Monitor

MONITORS: dict[str, Callable[..., Any]] = {
    "lyapunov_exponent": stability.lyapunov_exponent,
    "preconditioned_sharpness_every": stability.preconditioned_sharpness_every,
    "sharpness_every": stability.sharpness_every,
    "time_to": monitors.time_to,
}
_OF_PROBLEM = ("problem", "loss", "init", "params", "sample", "data")  # what errors of the engine call its parts


def arguments(job: SweepConfig) -> dict[str, Any]:
    """The arguments of `gdkit.sweep` that `job` asks for.

    Raises:
      ConfigError: a name, an argument or a value that the factories do not take, with its line.
    """
    sweep, problem, axes = job.sweep, problem_of(job), axes_of(job)
    return {
        "problem": problem,
        "optimizer": None,
        "axes": axes,
        "monitors": monitors_of(job, problem, [factory for factory, _ in axes[0]["optimizer"].values()]),
        "seeds": sweep.seeds,
        "steps": sweep.steps,
        "key": sweep.key,
        "target": sweep.target,
        "curve_points": sweep.curve_points,
        "diverged_above": sweep.diverged_above,
    }


def problem_of(job: SweepConfig) -> Any:
    """The Problem, or a factory of it where the sweep varies its arguments."""
    spec = job.problem
    varied = [name.removeprefix(PROBLEM_PREFIX) for name in _shared(job) if name.startswith(PROBLEM_PREFIX)]
    if spec.use:
        factory = resolve(job, ("problem", "use"), spec.use)
    else:
        factory = _lookup(job, ("problem", "name"), str(spec.name), problems.names(), "gdkit list problems shows all")
    if isinstance(factory, Problem):
        if spec.arguments or varied:
            raise job.error(("problem", "use"), "a finished Problem takes no arguments. Name a function that makes one")
        return factory
    if not callable(factory):
        raise job.error(("problem", "use"), "not a function. Name one that returns gdkit.Problem(loss, init)")
    _check_arguments(job, ("problem",), factory, spec.arguments)
    for name in varied:
        _check_arguments(job, _axis_path(job, PROBLEM_PREFIX + name), factory, {name: None})
    bound = functools.partial(factory, **spec.arguments)
    if varied:
        return bound
    with located(job, ("problem",)):
        made = factories.call("problem", factory, spec.arguments)
    if not isinstance(made, Problem):
        raise job.error(("problem", "use"), f"it returned {type(made).__name__}, not gdkit.Problem(loss, init)")
    return made


def axes_of(job: SweepConfig) -> list[Mapping[str, Any]]:
    """The axes of the sweep, the optimizers one of them, and those that go together."""
    sweep = job.sweep
    random = {name: axis.random for name, axis in sweep.axes.items() if axis.random}
    drawn = (
        random_axes(
            {name: (bounds.from_, bounds.to) for name, bounds in random.items()},
            max((bounds.count or 1 for bounds in random.values()), default=1),
            key=sweep.key,
        )
        if random
        else Paired()
    )
    product: dict[str, Any] = {"optimizer": {o.title: _optimizer(job, i, o) for i, o in enumerate(job.optimizer)}}
    product |= {name: _values(axis) for name, axis in sweep.axes.items() if not axis.random}
    if len(drawn) == 1:  # alone it is an axis like any other
        product |= {name: sorted(values) for name, values in drawn.items()}
        drawn = Paired()
    together = paired({name: _values(axis) for name, axis in sweep.paired.items()}) if sweep.paired else Paired()
    return [product, *(part for part in (together, drawn) if part)]


def monitors_of(job: SweepConfig, problem: Any, optimizers: Sequence[Any]) -> tuple[Monitor, ...]:
    """The monitors that the sweep asks for.

    Args:
      job: the config.
      problem: what is minimised, which monitors may look into.
      optimizers: the factories of all of them; a monitor that looks into the optimizer's step wants just one.
    """
    found: dict[str, Monitor] = {}
    for i, spec in enumerate(job.sweep.monitors):
        path: KeyPath = ("sweep", "monitors", i)
        factory = _monitor_factory(job, path, spec)
        mark = f"{spec.name} {spec.arguments}" if spec.name == "time_to" else str(spec.name or spec.use)
        if mark in found:
            raise job.error(path, f"a second {spec.name or spec.use}, which would read the same numbers. Keep one")
        if "factory" in factories.parameters(factory) and len(optimizers) > 1:
            remedy = "Keep one, and run the others with configs of their own; sharpness_every suits them all"
            raise job.error(path, f"it looks into the step of one optimizer, and here are {len(optimizers)}. {remedy}")
        arguments = _monitor_arguments(job, path, spec, factory) | {"problem": problem, "factory": optimizers[0]}
        taken = {n: v for n, v in arguments.items() if n in factories.parameters(factory) or n in spec.arguments}
        with located(job, path):
            made = factories.call("monitors", factory, taken)
        if not isinstance(made, Monitor):
            raise job.error(path, f"it returned {type(made).__name__}, not a gdkit.monitors.Monitor")
        found[mark] = made
    return tuple(found.values())


def own_parameters(factory: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """What a config may say of a monitor; its problem and its optimizer are those of the run."""
    return {n: p for n, p in factories.parameters(factory).items() if n not in ("problem", "factory")}


def _monitor_factory(job: SweepConfig, path: KeyPath, spec: MonitorSpec) -> Callable[..., Any]:
    if not spec.use:
        return _lookup(job, (*path, "name"), str(spec.name), MONITORS, "gdkit list monitors shows all")
    factory = resolve(job, (*path, "use"), spec.use)
    if isinstance(factory, Monitor) or not callable(factory):
        raise job.error((*path, "use"), "not a function. Name one that returns a gdkit.monitors.Monitor")
    return factory


def _monitor_arguments(
    job: SweepConfig, path: KeyPath, spec: MonitorSpec, factory: Callable[..., Any]
) -> dict[str, Any]:
    """What a config says, checked; a curve is as long as the run, but no longer than that of the loss."""
    known = own_parameters(factory)
    for name, value in spec.arguments.items():
        if name not in known and (name in ("problem", "factory") or not factories.takes_any_name(factory)):
            raise job.error((*path, name), _unknown(name, known))
        _check_value(job, (*path, name), known.get(name), value)
    for name, parameter in known.items():
        if parameter.default is parameter.empty and name not in spec.arguments:
            raise job.error(path, f"{spec.name or spec.use} needs {name}. Give it here")
    every = spec.arguments.get("every")
    if spec.use or "record" in spec.arguments or not isinstance(every, int) or every < 1:
        return spec.arguments
    return spec.arguments | {"record": min(job.sweep.steps // every + 1, job.sweep.curve_points)}


def thresholds_of(job: SweepConfig) -> Thresholds:
    """The borders between regimes."""
    known = inspect.signature(Thresholds).parameters
    for name in job.thresholds:
        if name not in known:
            raise job.error(("thresholds", name), _unknown(name, known))
    with located(job, ("thresholds",)):
        return Thresholds(**job.thresholds)


def resolve(config: Config, path: KeyPath, reference: str) -> Any:
    """What ``module:attribute`` names, the module looked for in the current folder first.

    Raises:
      ConfigError: no such module or attribute. An exception of the module itself goes through.
    """
    module_name, _, attribute = reference.partition(":")
    here = str(Path.cwd())
    if sys.path[0] != here:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the module is there, and misses another
        raise config.error(path, f"no module {error.name!r} in {here} or among the installed packages") from None
    for part in attribute.split("."):
        if not hasattr(found, part):
            known = [name for name in vars(found) if not name.startswith("_")] if hasattr(found, "__dict__") else []
            raise config.error(path, f"{module_name} has no {part!r}. {nearest(part, known)}".strip())
        found = getattr(found, part)
    return found


@contextmanager
def located(config: Config, path: KeyPath) -> Generator[None]:
    """gdkit's errors with the line in the config of what they are about: an argument that stands there, or `path`."""
    try:
        yield
    except (ConfigError, OtherRunError):
        raise
    except (InputValueError, InputTypeError, MissingPackageError) as error:
        raise ConfigError(f"{config.place(_about(config, path, str(error)))}: {error}") from error


def _about(config: Config, path: KeyPath, message: str) -> KeyPath:
    """The path that a message of the form ``argument='value': ...`` is about, as far as it stands in the config."""
    found = re.match(r"axes\['([^']+)'\]|([\w.]+)(?:='([^']*)')?", message)
    if not found:
        return path
    if found[1]:
        return ("sweep", "axes", found[1])
    steps = tuple(found[2].split("."))
    if path == ("sweep",) and steps[0] in _OF_PROBLEM:
        return ("problem",)
    inner = (*path, *(steps[1:] if steps[:1] == path[:1] else steps))
    return (*inner, found[3]) if config.has((*inner, str(found[3]))) else inner


def _optimizer(job: SweepConfig, number: int, spec: ConfigOptimizer) -> tuple[Callable[..., Any], dict[str, Any]]:
    """A factory with its schedule and clipping, and what is its own."""
    path: KeyPath = ("optimizer", number)
    if spec.use:
        factory = resolve(job, (*path, "use"), spec.use)
        if not callable(factory):
            raise job.error((*path, "use"), "not a function. Name one that returns an optax optimizer")
    else:
        known = optimizers.names()
        _lookup(job, (*path, "name"), str(spec.name), known, "gdkit list optimizers shows all")
        with located(job, (*path, "name")):
            factory = optimizers.by_name(str(spec.name))
    _check_arguments(job, path, factory, spec.fixed | {n: v for n, a in spec.axes.items() for v in axis_values(a)[:1]})
    _check_shared(job, spec, path, factory)
    if spec.schedule:
        if "learning_rate" not in factories.parameters(factory) and not factories.takes_any_name(factory):
            raise job.error((*path, "schedule"), f"{spec.title} takes no learning_rate. Leave the schedule out")
        options = spec.schedule.model_dump(exclude={"name"})
        factory = optimizers.scheduled(factory, optimizers.schedule(spec.schedule.name, job.sweep.steps, **options))
    if spec.clip_norm is not None:
        factory = optimizers.clipped(factory, spec.clip_norm)
    return factory, spec.fixed | {name: _values(axis) for name, axis in spec.axes.items()}


def _check_shared(job: SweepConfig, spec: ConfigOptimizer, path: KeyPath, factory: Callable[..., Any]) -> None:
    """Every optimizer takes every axis of the sweep that it does not set itself, and lacks nothing."""
    known = factories.parameters(factory)
    shared = [name for name in _shared(job) if not name.startswith(PROBLEM_PREFIX) and name not in spec.arguments]
    for name in shared:
        if name not in known and not factories.takes_any_name(factory):
            remedy = nearest(name, known) or "Move the axis to the optimizers that take it"
            raise job.error(_axis_path(job, name), f"{spec.title} takes no {name}. {remedy}")
        for value in axis_values(_axis_at(job, name))[:1]:
            _check_value(job, _axis_path(job, name), known.get(name), value)
    for name, parameter in known.items():
        if parameter.default is parameter.empty and name not in spec.arguments and name not in shared:
            raise job.error(path, f"{spec.title} needs {name}. Give it here, or as an axis of the sweep")


def _check_arguments(job: SweepConfig, path: KeyPath, factory: Callable[..., Any], given: Mapping[str, Any]) -> None:
    known = factories.parameters(factory)
    for name, value in given.items():
        if name not in known and not factories.takes_any_name(factory):
            raise job.error(path if path[-1] == PROBLEM_PREFIX + name else (*path, name), _unknown(name, known))
        _check_value(job, (*path, name), known.get(name), value)


def _check_value(job: SweepConfig, path: KeyPath, parameter: inspect.Parameter | None, value: Any) -> None:
    """A word where a number or true/false is taken would otherwise fail far away, or pass: "no" is true in Python."""
    if parameter is None or not isinstance(value, str):
        return
    default, annotation = parameter.default, str(parameter.annotation)
    if isinstance(default, bool) or annotation in ("bool", "<class 'bool'>"):
        raise job.error(path, "must be true or false")
    numeric = isinstance(default, int | float) or re.search(r"\b(float|int)\b", annotation)
    if parameter.name == "learning_rate" or (numeric and "str" not in annotation):
        raise job.error(path, "must be a number")


def _lookup(job: SweepConfig, path: KeyPath, name: str, known: Mapping[str, Any], remedy: str) -> Any:
    if name not in known:
        raise job.error(path, f"no such name. {nearest(name, known) or remedy}")
    return known[name]


def _unknown(name: str, known: Mapping[str, Any]) -> str:
    return f"unknown key. {nearest(name, known) or 'Known: ' + (', '.join(known) or 'none')}"


def _shared(job: SweepConfig) -> dict[str, ConfigAxis]:
    return job.sweep.axes | job.sweep.paired


def _axis_at(job: SweepConfig, name: str) -> ConfigAxis:
    return _shared(job)[name]


def _axis_path(job: SweepConfig, name: str) -> KeyPath:
    return ("sweep", "axes" if name in job.sweep.axes else "paired", name)


def _values(axis: ConfigAxis) -> Any:
    return static(axis_values(axis)) if axis.kind == "static" else axis_values(axis)
