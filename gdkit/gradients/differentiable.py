"""Checks that a function and its inputs can be differentiated."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gdkit.checks import is_finite
from gdkit.errors import InputTypeError, bad_type, bad_value
from gdkit.types import PyTree


def gradient_of(function: Callable[..., Any], at: PyTree, *, name: str | None = None) -> PyTree:
    """``jax.grad(function)(at)``; `name` is what errors call the function.

    Raises:
      InputTypeError: `function` does not return one real float, or JAX cannot differentiate it.
      InputValueError: its value or its gradient is not finite.
    """
    name = name or name_of(function)
    check_scalar("f", function(at))
    try:
        gradient = jax.grad(function)(at)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise no_derivative("f", name, error) from error
    if not all(map(is_finite, jax.tree.leaves(gradient))):
        raise bad_value("f", name, "its derivative is not finite here", "Choose another point")
    return gradient


def name_of(function: Callable[..., Any]) -> Any:
    """What errors call a function: its name, or itself if it has none."""
    return getattr(function, "__name__", function)


def no_derivative(argument: str, name: Any, error: Exception) -> InputTypeError:
    """The error for a function that JAX cannot differentiate, with the first line of JAX's message."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return bad_type(argument, name, f"JAX cannot differentiate it: {reason}", "Write it with jax.numpy and jax.lax")


def check_scalar(argument: str, value: Any) -> None:
    """Raise unless `value`, which the function `argument` returned, is one finite real float."""
    shape, dtype = getattr(value, "shape", ()), getattr(value, "dtype", None)
    if shape != () or (dtype is None and not isinstance(value, int | float | complex)):
        remedy = "Reduce it, for example with jnp.sum, or select one entry"
        raise bad_type(argument, shape or type(value).__name__, "it does not return a scalar", remedy)
    dtype = jnp.result_type(value)
    if not jnp.issubdtype(dtype, jnp.floating):
        remedy = "Return a real float; integers and complex numbers have no derivative"
        raise bad_type(argument, str(dtype), "it does not return a float", remedy)
    if not is_finite(value):
        raise bad_value(argument, float(value), "its value is not finite here", "Choose another point")


def check_float(argument: str, value: Any) -> None:
    """Raise unless `value` is one finite real float."""
    check_floats(argument, value)
    if np.shape(value) != ():
        raise bad_type(argument, value, "not one number", "Pass one float")


def check_floats(argument: str, tree: PyTree) -> None:
    """Raise unless `tree` has leaves, and all of them are finite real float arrays."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    if not leaves:
        raise bad_value(argument, tree, "it has no leaves", "Pass floats, arrays of them, or a pytree of these")
    for path, leaf in leaves:
        where = argument + jax.tree_util.keystr(path)
        if not hasattr(leaf, "dtype") and not isinstance(leaf, int | float | complex):
            raise bad_type(where, leaf, "not a number or an array", "Pass floats, arrays of them, or a pytree of these")
        dtype = jnp.result_type(leaf)
        if not jnp.issubdtype(dtype, jnp.floating):
            problem = f"its dtype is {dtype}, which has no derivative"
            raise bad_type(where, leaf, problem, "Make it float, e.g. 3.0 for 3")
        if not is_finite(leaf):
            raise bad_value(where, leaf, "not finite", "Pass finite numbers")
