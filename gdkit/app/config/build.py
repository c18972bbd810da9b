"""From a validated config to the arguments of `gdkit.sweep`; all names are looked up before anything is compiled."""

import functools
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from gdkit import factories, monitors, optimizers, problems, stability
from gdkit.app.config.schema import (
    Config,
    ConfigAxis,
    ConfigFactory,
    ConfigMonitor,
    ConfigOptimizer,
    LearnerConfig,
    SweepConfig,
)
from gdkit.app.config.source import ConfigError, KeyPath
from gdkit.app.examples import example_names
from gdkit.errors import InputTypeError, InputValueError, MissingPackageError, OtherRunError, nearest
from gdkit.factories import PROBLEM_PREFIX
from gdkit.monitors import patience
from gdkit.problems import Learner, Problem, ProblemLike
from gdkit.regimes import Thresholds
from gdkit.sweeps.axes import Paired, paired, random_axes, static
from gdkit.types import Monitor, OptimizerFactory

MONITORS: dict[str, Callable[..., Any]] = {
    "lyapunov_exponent": stability.lyapunov_exponent,
    "preconditioned_sharpness_every": stability.preconditioned_sharpness_every,
    "sharpness_every": stability.sharpness_every,
    "time_to": monitors.time_to,
}
# arguments of the library whose errors belong to the section of the problem
_PROBLEM_PARTS = ("problem", "loss", "init", "step", "evaluate", "params", "sample", "data")
_RUN_PARAMETERS = ("problem", "optimizer")  # of a monitor: the run sets them, not the config


def build_arguments(config: SweepConfig) -> dict[str, Any]:
    """The arguments of `gdkit.sweep` for `config`.

    Raises:
      ConfigError: a name, an argument or a value that a factory does not accept, with its line.
    """
    sweep, problem, axes = config.sweep, build_problem(config), build_axes(config)
    return {
        "problem": problem,
        "optimizer": None,
        "axes": axes,
        "monitors": build_monitors(config, problem, _list_optimizers(axes)),
        "seeds": sweep.seeds,
        "steps": sweep.steps,
        "key": sweep.key,
        "target": sweep.target,
        "statistics": sweep.statistics,
        "evaluate_every": sweep.evaluate_every,
        "curve_points": sweep.curve_points,
        "diverged_above": sweep.diverged_above,
        "keep_states": sweep.keep_states,
        "start": sweep.start,
    }


def _list_optimizers(axes: Sequence[Mapping[str, Any]]) -> list[OptimizerFactory]:
    """The factories of all optimizers; none of a learner."""
    choices = axes[0].get("optimizer")
    return [factory for factory, _ in choices.values()] if isinstance(choices, dict) else []


def build_problem(config: SweepConfig) -> ProblemLike:
    """The Problem, or a factory of it where the sweep varies its arguments; or the Learner in its place."""
    key, kind, form = ("problem", Problem, "gdkit.Problem(loss, init)")
    varied = [name.removeprefix(PROBLEM_PREFIX) for name in _get_shared_axes(config) if name.startswith(PROBLEM_PREFIX)]
    if isinstance(config, LearnerConfig):
        key, kind, form, varied = "learner", Learner, "gdkit.Learner(init, step)", []
    section, use = config.problem, (key, "use")
    factory = _find_factory(config, (key,), section, problems.names(), "problems")
    if isinstance(factory, kind):
        if section.arguments or varied:
            raise config.error(use, f"a {kind.__name__} takes no arguments. Name a function that returns one")
        return factory
    if not callable(factory):
        raise config.error(use, f"neither a {kind.__name__} nor a function. Name a function that returns {form}")
    _check_arguments(config, (key,), factory, section.arguments)
    for name in varied:
        _check_arguments(config, _get_axis_path(config, PROBLEM_PREFIX + name), factory, {name: None})
    if varied:
        partial: Any = functools.partial(factory, **section.arguments)
        return partial
    with locate_errors(config, (key,)):
        problem = factories.call(key, factory, section.arguments)
    if not isinstance(problem, kind):
        raise config.error(use, f"it returned {type(problem).__name__}, not {form}")
    return problem


def build_axes(config: SweepConfig) -> list[Mapping[str, Any]]:
    """The axes of the sweep: those of the product, the optimizer included, then those that vary jointly."""
    sweep = config.sweep
    random = {name: axis.random for name, axis in sweep.axes.items() if axis.random}
    samples = Paired()
    if random:
        count = max(bounds.count or 1 for bounds in random.values())
        samples = random_axes({name: (b.from_, b.to) for name, b in random.items()}, count, key=sweep.key)
    choices = {o.title: _build_optimizer(config, i, o) for i, o in enumerate(config.optimizer)}
    product: dict[str, Any] = {"optimizer": choices} if choices else {}
    product |= {name: _convert_axis(axis) for name, axis in sweep.axes.items() if not axis.random}
    if len(samples) == 1:  # a single random axis is part of the product
        product |= {name: sorted(values) for name, values in samples.items()}
        samples = Paired()
    joint = paired({name: _convert_axis(axis) for name, axis in sweep.paired.items()}) if sweep.paired else Paired()
    return [product, *(axes for axes in (joint, samples) if axes)]


def build_monitors(
    config: SweepConfig, problem: ProblemLike, optimizers: Sequence[OptimizerFactory]
) -> tuple[Monitor, ...]:
    """The monitors of the sweep, with its stopping rules; a monitor that asks for the optimizer needs a single one."""
    monitors: dict[str, Monitor] = {}
    for i, section in enumerate(config.sweep.monitors):
        path: KeyPath = ("sweep", "monitors", i)
        factory = _find_monitor_factory(config, path, section)
        title = section.name or section.use
        identity = f"{title} {section.arguments}" if section.name == "time_to" else str(title)
        if identity in monitors:
            raise config.error(path, f"a second {title} would compute the same statistics. Remove one")
        parameters = factories.parameters(factory)
        if "optimizer" in parameters and len(optimizers) > 1:
            remedy = "Keep one and run the others with other configs; sharpness_every works with several"
            raise config.error(path, f"{title} needs a single optimizer, and there are {len(optimizers)}. {remedy}")
        arguments = _check_monitor_arguments(config, path, section, factory) | {
            "problem": problem,
            "optimizer": optimizers[0] if optimizers else None,
        }
        accepted = {n: v for n, v in arguments.items() if n in parameters or n in section.arguments}
        with locate_errors(config, path):
            monitor = factories.call("monitors", factory, accepted)
        if not isinstance(monitor, Monitor):
            raise config.error(path, f"it returned {type(monitor).__name__}, not a gdkit.monitors.Monitor")
        monitors[identity] = monitor
    if config.sweep.stop is not None:
        with locate_errors(config, ("sweep", "stop", "patience")):
            monitors["stop"] = patience(**config.sweep.stop.patience.model_dump())
    return tuple(monitors.values())


def get_monitor_parameters(factory: Callable[..., Monitor]) -> dict[str, inspect.Parameter]:
    """The parameters of a monitor that a config can set; its problem and its optimizer are those of the run."""
    return {n: p for n, p in factories.parameters(factory).items() if n not in _RUN_PARAMETERS}


def _find_monitor_factory(config: SweepConfig, path: KeyPath, section: ConfigMonitor) -> Callable[..., Monitor]:
    factory = _find_factory(config, path, section, MONITORS, "monitors")
    if isinstance(factory, Monitor) or not callable(factory):
        raise config.error((*path, "use"), "not a function. Name one that returns a gdkit.monitors.Monitor")
    return factory


def _check_monitor_arguments(
    config: SweepConfig, path: KeyPath, section: ConfigMonitor, factory: Callable[..., Monitor]
) -> dict[str, Any]:
    """The checked arguments; a recorded curve covers the run with at most as many points as the loss curve."""
    _check_arguments(config, path, factory, section.arguments, reserved=_RUN_PARAMETERS)
    for name, parameter in get_monitor_parameters(factory).items():
        if parameter.default is parameter.empty and name not in section.arguments:
            raise config.error(path, f"{section.name or section.use} needs {name}. Give it here")
    every = section.arguments.get("every")
    if section.use or "record" in section.arguments or not isinstance(every, int) or every < 1:
        return section.arguments
    return section.arguments | {"record": min(config.sweep.steps // every + 1, config.sweep.curve_points)}


def build_thresholds(config: SweepConfig) -> Thresholds:
    """The thresholds between regimes."""
    known = inspect.signature(Thresholds).parameters
    for name in config.thresholds:
        if name not in known:
            raise config.error(("thresholds", name), _describe_unknown_key(name, known))
    with locate_errors(config, ("thresholds",)):
        return Thresholds(**config.thresholds)


def resolve(config: Config, path: KeyPath, reference: str) -> Any:
    """The object that ``module:attribute`` names; the current folder comes first on the module path.

    Raises:
      ConfigError: the module or the attribute does not exist. Exceptions of the module itself pass through.
    """
    module_name, _, attribute = reference.partition(":")
    folder = str(Path.cwd())
    if sys.path[0] != folder:
        sys.path.insert(0, folder)
    try:
        value: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the module exists, and imports another that does not
        example = module_name.removeprefix("experiments.")
        remedy = f". Copy the example: gdkit new --example {example}" if example in example_names() else ""
        message = f"no module {error.name!r} in {folder} or among the installed packages{remedy}"
        raise config.error(path, message) from None
    for part in attribute.split("."):
        if not hasattr(value, part):
            names = [name for name in vars(value) if not name.startswith("_")] if hasattr(value, "__dict__") else []
            raise config.error(path, f"{module_name} has no {part!r}. {nearest(part, names)}".strip())
        value = getattr(value, part)
    return value


@contextmanager
def locate_errors(config: Config, path: KeyPath) -> Generator[None]:
    """Prefix gdkit's errors with the line of the argument that they name, or of `path`."""
    try:
        yield
    except (ConfigError, OtherRunError):
        raise
    except (InputValueError, InputTypeError, MissingPackageError) as error:
        raise ConfigError(f"{config.location(_find_error_path(config, path, str(error)))}: {error}") from error


def _find_error_path(config: Config, path: KeyPath, message: str) -> KeyPath:
    """The path of the argument in a message of the form ``argument='value': ...``."""
    match = re.match(r"axes\['([^']+)'\]|([\w.]+)(?:='([^']*)')?", message)
    if not match:
        return path
    axis, argument, value = match.groups()
    if axis:
        return ("sweep", "axes", axis)
    parts = tuple(argument.split("."))
    if path == ("sweep",) and parts[0] in _PROBLEM_PARTS:
        return ("learner",) if isinstance(config, LearnerConfig) else ("problem",)
    inner = (*path, *(parts[1:] if parts[:1] == path[:1] else parts))
    if not config.has(inner) and config.has((*path, "data", *parts)):  # an option of a data file
        inner = (*path, "data", *parts)
    return (*inner, value) if config.has((*inner, str(value))) else inner


def _build_optimizer(
    config: SweepConfig, number: int, section: ConfigOptimizer
) -> tuple[OptimizerFactory, dict[str, Any]]:
    """The factory with its schedule and clipping, and the values and axes of this optimizer alone."""
    path: KeyPath = ("optimizer", number)
    factory = _find_factory(config, path, section, optimizers.names(), "optimizers")
    if not callable(factory):
        raise config.error((*path, "use"), "not a function. Name one that returns an optax optimizer")
    if section.name:
        with locate_errors(config, (*path, "name")):
            factory = optimizers.by_name(section.name)
    if section.ema is not None:
        factory = optimizers.ema(factory, section.ema)
    _check_arguments(config, path, factory, section.fixed | dict(section.axes))
    _check_shared_axes(config, section, path, factory)
    if section.schedule:
        if "learning_rate" not in factories.parameters(factory) and not factories.takes_any_name(factory):
            raise config.error((*path, "schedule"), f"{section.title} takes no learning_rate. Remove the schedule")
        options = section.schedule.model_dump(exclude={"name"})
        schedule = optimizers.schedule(section.schedule.name, config.sweep.steps, **options)
        factory = optimizers.with_schedule(factory, schedule)
    if section.clip_norm is not None:
        factory = optimizers.with_clipping(factory, section.clip_norm)
    return factory, section.fixed | {name: _convert_axis(axis) for name, axis in section.axes.items()}


def _check_shared_axes(config: SweepConfig, section: ConfigOptimizer, path: KeyPath, factory: OptimizerFactory) -> None:
    """Check that the optimizer accepts each axis of the sweep that it does not set, and that no argument is missing."""
    known, axes = factories.parameters(factory), _get_shared_axes(config)
    shared = [name for name in axes if not name.startswith(PROBLEM_PREFIX) and name not in section.arguments]
    for name in shared:
        if name not in known and not factories.takes_any_name(factory):
            remedy = nearest(name, known) or "Move the axis to the optimizers that accept it"
            raise config.error(_get_axis_path(config, name), f"{section.title} takes no {name}. {remedy}")
        _check_value(config, _get_axis_path(config, name), known.get(name), axes[name])
    for name, parameter in known.items():
        if parameter.default is parameter.empty and name not in section.arguments and name not in shared:
            raise config.error(path, f"{section.title} needs {name}. Give it here, or as an axis of the sweep")


def _check_arguments(
    config: SweepConfig,
    path: KeyPath,
    factory: Callable[..., Any],
    arguments: Mapping[str, Any],
    *,
    reserved: Sequence[str] = (),
) -> None:
    """Check the names and the kinds of the arguments of a factory; a config cannot set those that are `reserved`."""
    known = {name: p for name, p in factories.parameters(factory).items() if name not in reserved}
    for name, value in arguments.items():
        if name not in known and (name in reserved or not factories.takes_any_name(factory)):
            key = path if path[-1] == PROBLEM_PREFIX + name else (*path, name)
            raise config.error(key, _describe_unknown_key(name, known))
        _check_value(config, (*path, name), known.get(name), value)


def _check_value(config: SweepConfig, path: KeyPath, parameter: inspect.Parameter | None, value: Any) -> None:
    """Refuse a string for a number or a boolean here: elsewhere it fails obscurely or passes, as "no" is true."""
    if isinstance(value, ConfigAxis):
        for i, entry in enumerate(value.list_values()):
            _check_value(config, (*path, value.kind, i), parameter, entry)
        return
    if parameter is None or not isinstance(value, str):
        return
    default, annotation = parameter.default, str(parameter.annotation)
    if isinstance(default, bool) or annotation in ("bool", "<class 'bool'>"):
        raise config.error(path, "must be true or false")
    numeric = isinstance(default, int | float) or re.search(r"\b(float|int)\b", annotation)
    if parameter.name == "learning_rate" or (numeric and "str" not in annotation):
        raise config.error(path, f"must be a number{'. Remove the quotes' if _is_numeric(value) else ''}")


def _is_numeric(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False


def _find_factory(
    config: SweepConfig, path: KeyPath, section: ConfigFactory, known: Mapping[str, Callable[..., Any]], kind: str
) -> Any:
    """What the section at `path` names: an object of the user, or a built-in factory."""
    if section.use:
        return resolve(config, (*path, "use"), section.use)
    name = str(section.name)
    if name not in known:
        remedy = nearest(name, known) or f"gdkit list {kind} shows all"
        raise config.error((*path, "name"), f"no such name. {remedy}")
    return known[name]


def _describe_unknown_key(name: str, known: Mapping[str, Any]) -> str:
    return f"unknown key. {nearest(name, known) or 'Known: ' + (', '.join(known) or 'none')}"


def _get_shared_axes(config: SweepConfig) -> dict[str, ConfigAxis]:
    return config.sweep.axes | config.sweep.paired


def _get_axis_path(config: SweepConfig, name: str) -> KeyPath:
    return ("sweep", "axes" if name in config.sweep.axes else "paired", name)


def _convert_axis(axis: ConfigAxis) -> Any:
    return static(axis.list_values()) if axis.kind == "static" else axis.list_values()
