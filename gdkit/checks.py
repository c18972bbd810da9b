"""What bad arguments get: one check for each kind of argument, for the whole library."""

import inspect
import math
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from gdkit.errors import bad_type, bad_value, unknown_name
from gdkit.factories import is_number
from gdkit.types import Key, Params


def check_integer(argument: str, value: Any, *, at_least: int = 1) -> None:
    """Raise unless `value` is an integer of at least `at_least`; a boolean is none."""
    remedy = f"Pass an integer of at least {at_least}"
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise bad_type(argument, value, "not an integer", remedy)
    if value < at_least:
        raise bad_value(argument, value, f"must be at least {at_least}", remedy)


def check_number(argument: str, value: Any, *, above: float = -math.inf, at_least: float = -math.inf) -> None:
    """Raise unless `value` is a finite real number within its bounds; of a traced one only the type is checked."""
    bound = f" above {above:g}" if above > -math.inf else f" of at least {at_least:g}" if at_least > -math.inf else ""
    if not is_number(value):
        raise bad_type(argument, value, "not a number", f"Pass a finite number{bound}")
    if isinstance(value, Tracer):
        return
    if not (abs(value) <= float(np.finfo(np.float64).max) and value > above and value >= at_least):
        raise bad_value(argument, value, f"must be a finite number{bound}", f"Pass a finite number{bound}")


def check_choice(argument: str, value: Any, choices: Iterable[str]) -> None:
    """Raise unless `value` is one of `choices`, with the nearest one."""
    if value not in choices:
        raise unknown_name(argument, value, choices)


def is_finite(value: Any) -> bool:
    """Whether every entry of an array or a number is finite; a traced one counts as finite."""
    return isinstance(value, Tracer) or bool(np.all(np.isfinite(np.asarray(value))))


def as_key(key: int | Key, argument: str = "key") -> Key:
    """`key` itself, or the key that an integer makes.

    Raises:
      InputTypeError: it is neither.
    """
    if isinstance(key, int | np.integer) and not isinstance(key, bool):
        return jax.random.key(key)
    if not isinstance(key, jax.Array):
        raise bad_type(argument, key, "neither an integer nor a JAX key", "Pass an integer, or jax.random.key(0)")
    return key


def check_params(params: Params) -> None:
    """Raise for params without leaves, or with leaves that are not float."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    if not leaves:
        raise bad_value("init", params, "the params have no leaves", "Return a pytree of float arrays")
    for path, leaf in leaves:
        where = "params" + jax.tree_util.keystr(path)
        if not hasattr(leaf, "dtype") and not isinstance(leaf, int | float | complex):
            raise bad_type(where, leaf, "not an array", "Put only float arrays into params; use closures for the rest")
        dtype = jnp.result_type(leaf)
        if not jnp.issubdtype(dtype, jnp.floating):
            raise bad_type(where, leaf, f"its dtype is {dtype}, which has no gradient", "Make it float, e.g. 3.0 for 3")


def check_call(argument: str, function: Callable[..., Any], names: tuple[str, ...], remedy: str) -> None:
    """Raise unless `function` can be called with these positional arguments, as far as its signature tells."""
    try:
        inspect.signature(function).bind(*names)
    except TypeError as error:
        form = f"{argument}({', '.join(names)})"
        raise bad_type(argument, function, f"it cannot be called as {form} ({error})", remedy) from error
    except ValueError:
        pass  # a builtin without a signature
