"""Problems given by a formula."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from gdkit.checks import check_integer, check_number
from gdkit.errors import bad_type, bad_value
from gdkit.factories import cache_plain_calls
from gdkit.problems.problem import Problem
from gdkit.types import Array


@cache_plain_calls(maxsize=16)
def quadratic(
    eigenvalues: Sequence[float] | float | None = None,
    *,
    dimension: int | None = None,
    condition_number: float | None = None,
    start: float | Sequence[float] = 1.0,
) -> Problem:
    """½ Σ λᵢ xᵢ², whose Hessian is diagonal with the eigenvalues λ.

    The optimum is 0; with a negative eigenvalue there is none (None, or NaN if the eigenvalues are traced).

    Args:
      eigenvalues: λ, (n,), or one number for n = 1.
      dimension, condition_number: in place of `eigenvalues`: n eigenvalues in equal ratios, from 1 to the condition
        number.
      start: the initial x, (n,), or one number for all entries.

    Raises:
      InputValueError, InputTypeError: an argument cannot be used, or both forms are given, or neither.

    >>> round(float(quadratic(dimension=3, condition_number=100.0).loss(jnp.ones(3))), 4)  # ½ (1 + 10 + 100)
    55.5
    """
    curvatures = _make_eigenvalues(eigenvalues, dimension, condition_number)

    def loss(x: Array) -> Array:  # x: (n,)
        return 0.5 * jnp.sum(curvatures * x**2)

    if _is_traced(curvatures):
        optimum = jnp.where(jnp.all(curvatures >= 0), 0.0, jnp.nan)
    else:
        optimum = 0.0 if np.all(curvatures >= 0) else None
    return Problem(loss, _as_vector("start", start, len(curvatures)), optimum=optimum, name="quadratic")


@cache_plain_calls(maxsize=16)
def parabola(center: float = 3.0, start: float = 0.0) -> Problem:
    """(x − center)² of a scalar x: curvature 2, optimum 0 at the center.

    >>> float(parabola().loss(0.0))
    9.0
    """
    check_number("center", center)
    check_number("start", start)

    def loss(x: Array) -> Array:  # x: ()
        return jnp.square(x - center)

    return Problem(loss, _as_float_array("start", start), optimum=0.0, name="parabola")


@cache_plain_calls(maxsize=16)
def rosenbrock(a: float = 1.0, b: float = 100.0, start: float | Sequence[float] = (-1.2, 1.0)) -> Problem:
    """(a − x₀)² + b (x₁ − x₀²)² with b ≥ 0: a curved, narrow valley; optimum 0 at (a, a²).

    Rosenbrock, An automatic method for finding the greatest or least value of a function, 1960.

    >>> float(rosenbrock().loss(jnp.array([1.0, 1.0])))
    0.0
    """
    check_number("a", a)
    check_number("b", b, at_least=0)

    def loss(x: Array) -> Array:  # x: (2,)
        return jnp.square(a - x[0]) + b * jnp.square(x[1] - x[0] ** 2)

    return Problem(loss, _as_vector("start", start, 2), optimum=0.0, name="rosenbrock")


@cache_plain_calls(maxsize=16)
def himmelblau(start: float | Sequence[float] = (0.0, 0.0)) -> Problem:
    """(x₀² + x₁ − 11)² + (x₀ + x₁² − 7)²: four minima, all 0, one of them at (3, 2).

    Himmelblau, Applied nonlinear programming, 1972.

    >>> float(himmelblau().loss(jnp.array([3.0, 2.0])))
    0.0
    """

    def loss(x: Array) -> Array:  # x: (2,)
        return jnp.square(x[0] ** 2 + x[1] - 11.0) + jnp.square(x[0] + x[1] ** 2 - 7.0)

    return Problem(loss, _as_vector("start", start, 2), optimum=0.0, name="himmelblau")


@cache_plain_calls(maxsize=16)
def beale(start: float | Sequence[float] = (1.0, 1.0)) -> Problem:
    """Σₖ (cₖ − x₀ (1 − x₁ᵏ))² with c = 1.5, 2.25, 2.625: flat, with steep walls; optimum 0 at (3, ½).

    Beale, On an iterative method for finding a local minimum of a function of more than one variable, 1958.

    >>> float(beale().loss(jnp.array([3.0, 0.5])))
    0.0
    """

    def loss(x: Array) -> Array:  # x: (2,)
        residuals = [c - x[0] * (1.0 - x[1] ** k) for k, c in enumerate((1.5, 2.25, 2.625), start=1)]
        return jnp.sum(jnp.square(jnp.stack(residuals)))

    return Problem(loss, _as_vector("start", start, 2), optimum=0.0, name="beale")


# Checks; the value of a traced argument cannot be checked, only its shape


def _make_eigenvalues(eigenvalues: Any, dimension: int | None, condition_number: float | None) -> np.ndarray | Array:
    """The eigenvalues of a quadratic, (n,)."""
    if (eigenvalues is None) == (dimension is None and condition_number is None):
        remedy = "Pass either eigenvalues, or dimension and condition_number"
        raise bad_value("eigenvalues", eigenvalues, "eigenvalues are given in two ways, or in none", remedy)
    if eigenvalues is not None:
        values = _as_float_array("eigenvalues", eigenvalues)
        if values.ndim > 1 or values.size == 0:
            raise bad_value("eigenvalues", eigenvalues, f"of shape {values.shape}", "Pass a sequence of numbers")
        return values.reshape(-1)
    if dimension is None or condition_number is None:
        missing = "dimension" if dimension is None else "condition_number"
        raise bad_value(missing, None, "only one of the two is given", "Pass both dimension and condition_number")
    check_integer("dimension", dimension)
    check_number("condition_number", condition_number, at_least=1)
    return _as_float_array("condition_number", condition_number ** np.linspace(0.0, 1.0, dimension))


def _is_traced(value: Any) -> bool:
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(value))


def _as_float_array(name: str, values: Any) -> Any:
    """An array of JAX's default float dtype; a NumPy array, not on a device yet, unless it is traced."""
    dtype = jax.dtypes.canonicalize_dtype(float)
    if _is_traced(values):
        return jnp.asarray(values, dtype)
    try:
        with np.errstate(over="ignore"):
            array = np.asarray(values, dtype)
    except (TypeError, ValueError, OverflowError) as error:
        raise bad_type(name, values, "not numbers", "Pass a number, or a sequence of numbers") from error
    if not np.isfinite(array).all():
        raise bad_value(name, values, f"not finite in {dtype.name}", "Pass finite numbers")
    return array


def _as_vector(name: str, values: Any, size: int) -> np.ndarray | Array:
    """`values` as a vector of that size; one number stands for all entries."""
    array = _as_float_array(name, values)
    if array.shape not in ((), (size,)):
        raise bad_value(name, values, f"of shape {array.shape}", f"Pass one number, or {size} of them")
    return jnp.broadcast_to(array, (size,)) if _is_traced(array) else np.broadcast_to(array, (size,)).copy()
