"""Factories: callables that hyperparameters go into, and which of these can be traced."""

import functools
import inspect
import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from gdkit.errors import InputTypeError, bad_type, bad_value, unknown_name

PROBLEM_PREFIX = "problem."

P = ParamSpec("P")
R = TypeVar("R")


def cache_if_hashable(maxsize: int) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """``functools.lru_cache``, except that a call with arguments that cannot be hashed is made anew each time."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        cached: Any = functools.lru_cache(maxsize)(function)

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            return (cached if is_hashable(*args, *kwargs.values()) else function)(*args, **kwargs)

        return call

    return decorate


def is_hashable(*values: Any) -> bool:
    """Whether all values can be part of the key of a cache."""
    try:
        hash(values)
    except TypeError:
        return False
    return True


def parameters(factory: Callable) -> dict[str, inspect.Parameter]:
    """The named parameters of `factory`, without ``*args`` and ``**kwargs``."""
    return {n: p for n, p in _signature(factory).items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}


def takes_any_name(factory: Callable) -> bool:
    """Whether `factory` has ``**kwargs``, so that a misspelt name cannot be told from its signature."""
    return any(p.kind == p.VAR_KEYWORD for p in _signature(factory).values())


def check_names(argument: str, factory: Callable, names: Iterable[str]) -> None:
    """Raise for the first of `names` that `factory` does not take, with the nearest one that it does."""
    known = parameters(factory)
    for name in names:
        if name not in known and not takes_any_name(factory):
            raise unknown_name(argument, name, known)


def is_traced(factory: Callable, name: str, values: Sequence[Any] | np.ndarray) -> bool:
    """Whether `values` of the hyperparameter `name` can be traced (lanes) or must be static.

    Any float makes them lanes. Integers alone are lanes if the parameter's default or annotation is a float or it is
    the learning rate. Strings, booleans, callables and other integers are static.

    Raises:
      InputTypeError: it cannot be told; the message names ``gdkit.lanes`` and ``gdkit.static``.
    """
    if isinstance(values, np.ndarray):
        return values.dtype.kind == "f" or _is_float_parameter(factory, name, values.tolist())
    if all(is_number(v) for v in values):
        return any(is_float(v) for v in values) or _is_float_parameter(factory, name, values)
    if not any(is_float(v) for v in values):
        return False
    raise _undecided(name, values, "numbers and other values are mixed")


def is_number(value: Any) -> bool:
    """A real number or a scalar array of one, traced or not; a boolean is none."""
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        return value.shape == () and value.dtype != np.bool_ and jnp.issubdtype(value.dtype, jnp.number)
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def is_float(value: Any) -> bool:
    """A number that is not an integer by type."""
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        return is_number(value) and jnp.issubdtype(value.dtype, jnp.inexact)
    return is_number(value) and not isinstance(value, numbers.Integral)


def hashable(value: Any) -> Any:
    """`value` with lists as tuples, so that a static value can be the key of a program."""
    return tuple(map(hashable, value)) if isinstance(value, list | tuple) else value


def split_hyperparameters(hyperparameters: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Those of the optimizer factory and, without their prefix, those of the problem factory."""
    optimizer, problem = {}, {}
    for name, value in hyperparameters.items():
        inside = name.startswith(PROBLEM_PREFIX)
        (problem if inside else optimizer)[name.removeprefix(PROBLEM_PREFIX)] = value
    return optimizer, problem


def call(argument: str, factory: Callable, hyperparameters: Mapping[str, Any]) -> Any:
    """``factory(**hyperparameters)``, with a typed error where it branches in Python on a traced value."""
    try:
        return factory(**hyperparameters)
    except (jax.errors.TracerBoolConversionError, jax.errors.ConcretizationTypeError) as error:
        traced = sorted(n for n, v in hyperparameters.items() if isinstance(v, Tracer))
        raise bad_type(
            argument,
            getattr(factory, "__name__", factory),
            f"it branches in Python on a traced value, one of {traced}",
            f"Say that it is static, one program a value: gdkit.static([...]) for {' or '.join(traced)}",
        ) from error
    except TypeError as error:
        if "argument" not in str(error):
            raise
        name = getattr(factory, "__name__", repr(factory))
        raise bad_value(
            argument, name, str(error), f"It takes {', '.join(parameters(factory)) or 'nothing'}"
        ) from error


def _signature(factory: Callable) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(factory).parameters
    except (TypeError, ValueError) as error:
        raise bad_type("factory", factory, "not a callable with a signature", "Pass a function") from error


def _is_float_parameter(factory: Callable, name: str, values: Sequence[Any]) -> bool:
    if name == "learning_rate":
        return True
    parameter = parameters(factory).get(name)
    if parameter is None or (parameter.default in (parameter.empty, None) and parameter.annotation is parameter.empty):
        raise _undecided(name, values, "integers for a parameter without annotation or default")
    if isinstance(parameter.default, bool | int):
        return False
    return isinstance(parameter.default, float) or "float" in str(parameter.annotation)


def _undecided(name: str, values: Sequence[Any], why: str) -> InputTypeError:
    remedy = "Say gdkit.lanes([...]) for traced values of one program, or gdkit.static([...]) for one program a value"
    return bad_type(name, list(values), f"{why}: it cannot be told whether this axis is lanes or static", remedy)
