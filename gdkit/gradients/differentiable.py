"""What can be differentiated, and by which derivative."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from gdkit.errors import InputTypeError, bad_type, bad_value, unknown_name
from gdkit.types import PyTree


def gradient_of(argument: str, f: Callable, at: PyTree, *, name: Any = None) -> Any:
    """``jax.grad(f)(at)``, with a typed error where `f` is no finite real scalar or has no finite derivative."""
    shown = getattr(name or f, "__name__", f)
    check_scalar(argument, f(at))
    try:
        slope = jax.grad(f)(at)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise no_derivative(argument, shown, error) from error
    if not all(map(is_finite, jax.tree.leaves(slope))):
        raise bad_value(argument, shown, "its derivative is not finite here", "Choose another point")
    return slope


def no_derivative(argument: str, shown: Any, error: Exception) -> InputTypeError:
    """The error for a function that JAX cannot differentiate, with the first line of JAX's own."""
    why = (str(error).strip() or type(error).__name__).splitlines()[0]
    return bad_type(argument, shown, f"JAX cannot differentiate it: {why}", "Write it with jax.numpy and jax.lax")


def check_scalar(argument: str, value: Any) -> None:
    """Raise unless `value`, which a function returned, is one finite real float."""
    shape, dtype = getattr(value, "shape", ()), getattr(value, "dtype", None)
    if shape != () or (dtype is None and not isinstance(value, int | float | complex)):
        remedy = "Reduce it, for example with jnp.sum, or choose one entry"
        raise bad_type(argument, shape or type(value).__name__, "it does not return a scalar", remedy)
    dtype = jnp.result_type(value)
    if not jnp.issubdtype(dtype, jnp.floating):
        remedy = "Return a real float; integers and complex numbers have no slope"
        raise bad_type(argument, str(dtype), "it does not return a float", remedy)
    if not is_finite(value):
        raise bad_value(argument, float(value), "its value is not finite here", "Choose another point")


def check_number(argument: str, value: Any) -> None:
    """Raise unless `value` is one finite real float."""
    check_floats(argument, value)
    if np.shape(value) != ():
        raise bad_type(argument, value, "not one number", "Pass one float")


def check_floats(argument: str, tree: PyTree) -> None:
    """Raise unless every leaf of `tree`, and at least one, is a finite real float array."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    if not leaves:
        raise bad_value(argument, tree, "it has no leaves", "Pass floats, arrays of them, or a pytree of these")
    for path, leaf in leaves:
        where = argument + jax.tree_util.keystr(path)
        if not hasattr(leaf, "dtype") and not isinstance(leaf, int | float | complex):
            raise bad_type(where, leaf, "not a number or an array", "Pass floats, arrays of them, or a pytree of these")
        dtype = jnp.result_type(leaf)
        if not jnp.issubdtype(dtype, jnp.floating):
            remedy = "Make it float, e.g. 3.0 for 3"
            raise bad_type(where, leaf, f"its dtype is {dtype}, which has no derivative", remedy)
        if not is_finite(leaf):
            raise bad_value(where, leaf, "not finite", "Pass finite numbers")


def check_choice(argument: str, value: Any, known: Sequence[str]) -> None:
    """Raise unless `value` is one of the known names."""
    if value not in known:
        raise unknown_name(argument, value, known)


def is_finite(value: Any) -> bool:
    """Whether every entry is finite; a traced value counts as finite."""
    return isinstance(value, Tracer) or bool(np.all(np.isfinite(np.asarray(value))))


def equations(jaxpr: Any) -> Iterator[Any]:
    """The equations of a program, those of its inner programs too."""
    for equation in jaxpr.eqns:
        yield equation
        yield from inner_equations(equation)


def inner_equations(equation: Any) -> Iterator[Any]:
    """The equations of the programs within an equation."""
    for inner in jax.tree.leaves(equation.params, is_leaf=lambda p: hasattr(p, "eqns") or hasattr(p, "jaxpr")):
        inner = getattr(inner, "jaxpr", inner)
        if hasattr(inner, "eqns"):
            yield from equations(inner)
