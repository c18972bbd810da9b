"""Factories: callables that take hyperparameters, and the hyperparameters that can be traced."""

import functools
import inspect
import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend.core import primitives

from gdkit.errors import InputTypeError, bad_type, bad_value, unknown_name
from gdkit.tracing import user_code

PROBLEM_PREFIX = "problem."

P = ParamSpec("P")
R = TypeVar("R")


def cache_if_hashable(maxsize: int) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """``functools.lru_cache``, except that calls with arguments that cannot be hashed are not cached.

    Equal arguments of different types, such as 1 and True, are different ones, in tuples too.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        cached: Any = functools.lru_cache(maxsize)(lambda types, *args, **kwargs: function(*args, **kwargs))

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            if not is_hashable(*args, *kwargs.values()):
                return function(*args, **kwargs)
            return cached(nested_types((*args, *kwargs.values())), *args, **kwargs)

        return call

    return decorate


def nested_types(value: Any) -> Any:
    """The type of a value, or of each value in a tuple; with it a key tells 1 from True."""
    return tuple(map(nested_types, value)) if type(value) is tuple else type(value)


def cache_plain_calls(maxsize: int) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Calls with equal numbers, strings and sequences of these return one object, and so share its compiled programs.

    The objects of the last `maxsize` of these calls are kept; calls with other arguments are not. The function depends
    on nothing but its arguments and the precision of JAX.

    >>> make = cache_plain_calls(8)(lambda *widths: object())
    >>> make(3, (4,)) is make(3, (4,)), make(3, (4,)) is make(3, (4.0,)), make(np.ones(2)) is make(np.ones(2))
    (True, False, False)
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        made: dict[tuple[str, Any], R] = {}

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            if not all(map(_is_plain, (*args, *kwargs.values()))):
                return function(*args, **kwargs)
            key = repr((args, sorted(kwargs.items()))), jnp.result_type(float)  # the text distinguishes 1 from 1.0
            found = made.pop(key, None) or function(*args, **kwargs)
            made[key] = found  # the most recent one is last
            while len(made) > maxsize:
                made.pop(next(iter(made)), None)
            return found

        return call

    return decorate


def _is_plain(value: Any) -> bool:
    return type(value) in (bool, int, float, str, type(None)) or (
        type(value) in (list, tuple) and all(map(_is_plain, value))
    )


def is_hashable(*values: Any) -> bool:
    """Whether all values can be in the key of a cache."""
    try:
        hash(values)
    except TypeError:
        return False
    return True


def parameters(factory: Callable) -> dict[str, inspect.Parameter]:
    """The named parameters of `factory`, without ``*args`` and ``**kwargs``."""
    return {n: p for n, p in _signature(factory).items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}


def takes_any_name(factory: Callable) -> bool:
    """Whether `factory` has ``**kwargs``, so that its signature does not reveal a misspelled name."""
    return any(p.kind == p.VAR_KEYWORD for p in _signature(factory).values())


def check_names(argument: str, factory: Callable, names: Iterable[str]) -> None:
    """Raise for a name that is no parameter of `factory`, with the nearest parameter."""
    known = parameters(factory)
    for name in names:
        if name not in known and not takes_any_name(factory):
            raise unknown_name(argument, name, known)


def is_traced(factory: Callable, name: str, values: Sequence[Any] | np.ndarray) -> bool:
    """Whether `values` of the hyperparameter `name` are traced (lanes) rather than static.

    Numbers with a float among them are traced. Integers alone are traced if the parameter is the learning rate or its
    default or annotation is a float. Strings, booleans, callables and other integers are static.

    Raises:
      InputTypeError: the values do not decide it; the message names ``gdkit.lanes`` and ``gdkit.static``.
    """
    if isinstance(values, np.ndarray):
        return values.dtype.kind == "f" or _is_float_parameter(factory, name, values.tolist())
    if all(is_number(v) for v in values):
        return any(is_float(v) for v in values) or _is_float_parameter(factory, name, values)
    if not any(is_float(v) for v in values):
        return False
    raise _undecided_error(name, values, "it mixes numbers with other values")


def is_number(value: Any) -> bool:
    """Whether `value` is a real number or a scalar array, traced or not; False for a boolean."""
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        return value.shape == () and value.dtype != np.bool_ and jnp.issubdtype(value.dtype, jnp.number)
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def is_float(value: Any) -> bool:
    """Whether `value` is a number of a type that is not an integer type."""
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        return is_number(value) and jnp.issubdtype(value.dtype, jnp.inexact)
    return is_number(value) and not isinstance(value, numbers.Integral)


def hashable(value: Any) -> Any:
    """`value` with lists as tuples, so that a static value can be in the key of a program."""
    return tuple(map(hashable, value)) if isinstance(value, list | tuple) else value


def as_python_number(value: Any) -> Any:
    """A traced float with the weak type of a Python number; other values unchanged.

    Factories then compute with it as optax does with Python's floats: alone it keeps its precision (1 − b2 with b2 =
    0.999, which bfloat16 rounds to 1), and an array that it multiplies keeps its dtype.
    """
    if not isinstance(value, jax.Array) or value.ndim or not jnp.issubdtype(value.dtype, jnp.floating):
        return value
    convert: Any = primitives.convert_element_type_p
    return convert.bind(value, new_dtype=value.dtype, weak_type=True, sharding=None)


def split_hyperparameters(hyperparameters: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The hyperparameters of the optimizer factory and, without their prefix, those of the problem factory."""
    optimizer, problem = {}, {}
    for name, value in hyperparameters.items():
        (problem if name.startswith(PROBLEM_PREFIX) else optimizer)[name.removeprefix(PROBLEM_PREFIX)] = value
    return optimizer, problem


def call(argument: str, factory: Callable, hyperparameters: Mapping[str, Any]) -> Any:
    """``factory(**hyperparameters)``, with a typed error if it uses a traced value in a way that JAX cannot trace."""
    traced = sorted(n for n, v in hyperparameters.items() if isinstance(v, Tracer))
    try:
        return factory(**hyperparameters)
    except Exception as error:
        explanation = user_code.explain(error) if traced else None
        if explanation:
            problem = f"{explanation.problem}, one of {traced}"
            remedy = _suggest_traceable(user_code.functions(error, "optax.schedules"), traced)
            raise bad_type(argument, getattr(factory, "__name__", factory), problem, remedy) from error
        if not isinstance(error, TypeError) or "argument" not in str(error):
            raise
        remedy = f"It takes {', '.join(parameters(factory)) or 'nothing'}"
        raise bad_value(argument, getattr(factory, "__name__", factory), str(error), remedy) from error


def _suggest_traceable(schedules: Sequence[str], traced: Sequence[str]) -> str:
    """The remedy for a factory that cannot be traced; `schedules` are those of optax that it was making."""
    static = f"gdkit.static([...]) for {' or '.join(traced)}"
    if not schedules:
        return f"Make it static, with one program per value: {static}"
    share = f"Make the schedule with peak 1, share = optax.{schedules[0]}(...), and pass the learning rate as"
    return f"{share} lambda count: learning_rate * share(count); or make it static, one program per value: {static}"


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
        raise _undecided_error(name, values, "it has integers for a parameter without annotation or default")
    if isinstance(parameter.default, bool | int):
        return False
    return isinstance(parameter.default, float) or "float" in str(parameter.annotation)


def _undecided_error(name: str, values: Sequence[Any], reason: str) -> InputTypeError:
    problem = f"{reason}, which does not decide whether this axis is lanes or static"
    remedy = "Pass gdkit.lanes([...]) to trace the values in one program, or gdkit.static([...]) for one per value"
    return bad_type(name, list(values), problem, remedy)
