"""A gradient with checks that the function and its inputs can be differentiated."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from gdkit.checks import check_floats, check_scalar, is_finite
from gdkit.errors import InputTypeError, bad_type, bad_value
from gdkit.types import PyTree


def gradient_of(function: Callable[..., Any], at: PyTree, *, name: str | None = None) -> PyTree:
    """``jax.grad(function)(at)``; `name` is what errors call the function.

    Raises:
      InputTypeError: `function` does not return one real float, or JAX cannot differentiate it.
      InputValueError: its value or its gradient is not finite.
    """
    name = name or get_name(function)
    check_scalar("f", function(at), finite=True)
    try:
        gradient = jax.grad(function)(at)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise derivative_error("f", name, error) from error
    if not all(map(is_finite, jax.tree.leaves(gradient))):
        raise bad_value("f", name, "its derivative is not finite here", "Choose another point")
    return gradient


def get_name(function: Callable[..., Any]) -> Any:
    """What errors call a function: its name, or itself if it has none."""
    return getattr(function, "__name__", function)


def derivative_error(argument: str, name: Any, error: Exception) -> InputTypeError:
    """The error for a function that JAX cannot differentiate, with the first line of JAX's message."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return bad_type(argument, name, f"JAX cannot differentiate it: {reason}", "Write it with jax.numpy and jax.lax")


def check_float(argument: str, value: Any) -> None:
    """Raise unless `value` is one finite real float."""
    check_floats(argument, value, finite=True)
    if np.shape(value) != ():
        raise bad_type(argument, value, "not one number", "Pass one float")
