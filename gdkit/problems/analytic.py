"""Problems with a formula."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from gdkit.errors import bad_type, bad_value
from gdkit.factories import is_number
from gdkit.problems.problem import Problem
from gdkit.types import Array


def quadratic(
    eigenvalues: Sequence[float] | float | None = None,
    *,
    dimension: int | None = None,
    condition_number: float | None = None,
    start: float | Sequence[float] = 1.0,
) -> Problem:
    """½ Σ λᵢ xᵢ², whose Hessian is diagonal with the eigenvalues λ.

    Args:
      eigenvalues: λ, (n,), or one number for n = 1.
      dimension, condition_number: instead, n eigenvalues in equal ratios from 1 to the condition number.
      start: x at the start, (n,), or one number for all of it.

    The optimum is 0; where an eigenvalue is negative there is none (None, or NaN if the eigenvalues are traced).

    >>> round(float(quadratic(dimension=3, condition_number=100.0).loss(jnp.ones(3))), 4)  # ½ (1 + 10 + 100)
    55.5
    """
    curvatures = _curvatures(eigenvalues, dimension, condition_number)

    def loss(x: Array) -> Array:  # x: (n,)
        return 0.5 * jnp.sum(curvatures * x**2)

    if _is_traced(curvatures):
        optimum = jnp.where(jnp.all(curvatures >= 0), 0.0, jnp.nan)
    else:
        optimum = 0.0 if np.all(curvatures >= 0) else None
    return Problem(loss, _vector("start", start, len(curvatures)), optimum=optimum, name="quadratic")


def parabola(center: float = 3.0, start: float = 0.0) -> Problem:
    """(x − center)² of a scalar x: curvature 2, optimum 0 at the center.

    >>> float(parabola().loss(0.0))
    9.0
    """
    center = _number("center", center)

    def loss(x: Array) -> Array:  # x: ()
        return jnp.square(x - center)

    return Problem(loss, _floats("start", _number("start", start)), optimum=0.0, name="parabola")


def rosenbrock(a: float = 1.0, b: float = 100.0, start: float | Sequence[float] = (-1.2, 1.0)) -> Problem:
    """(a − x₀)² + b (x₁ − x₀²)²: a curved, narrow valley; optimum 0 at (a, a²).

    Rosenbrock, An automatic method for finding the greatest or least value of a function, 1960. b is 0 or more.
    """
    a, b = _number("a", a), _number("b", b, at_least=0)

    def loss(x: Array) -> Array:  # x: (2,)
        return jnp.square(a - x[0]) + b * jnp.square(x[1] - x[0] ** 2)

    return Problem(loss, _vector("start", start, 2), optimum=0.0, name="rosenbrock")


def himmelblau(start: float | Sequence[float] = (0.0, 0.0)) -> Problem:
    """(x₀² + x₁ − 11)² + (x₀ + x₁² − 7)²: four minima, all 0.

    Himmelblau, Applied nonlinear programming, 1972. One minimum is at (3, 2).
    """

    def loss(x: Array) -> Array:  # x: (2,)
        return jnp.square(x[0] ** 2 + x[1] - 11.0) + jnp.square(x[0] + x[1] ** 2 - 7.0)

    return Problem(loss, _vector("start", start, 2), optimum=0.0, name="himmelblau")


def beale(start: float | Sequence[float] = (1.0, 1.0)) -> Problem:
    """Σₖ (cₖ − x₀ (1 − x₁ᵏ))² with c = 1.5, 2.25, 2.625: flat, with steep walls; optimum 0 at (3, ½).

    Beale, On an iterative method for finding a local minimum of a function of more than one variable, 1958.
    """

    def loss(x: Array) -> Array:  # x: (2,)
        residuals = [c - x[0] * (1.0 - x[1] ** k) for k, c in enumerate((1.5, 2.25, 2.625), start=1)]
        return jnp.sum(jnp.square(jnp.stack(residuals)))

    return Problem(loss, _vector("start", start, 2), optimum=0.0, name="beale")


def _curvatures(eigenvalues: Any, dimension: int | None, condition_number: Any) -> Any:
    """The eigenvalues of a quadratic, (n,)."""
    if (eigenvalues is None) == (dimension is None and condition_number is None):
        problem = "eigenvalues and, or neither of them and, dimension with condition_number"
        raise bad_value(
            "eigenvalues", eigenvalues, problem, "Pass either eigenvalues, or dimension and condition_number"
        )
    if eigenvalues is not None:
        values = _floats("eigenvalues", eigenvalues)
        if values.ndim > 1 or values.size == 0:
            raise bad_value("eigenvalues", eigenvalues, f"of shape {values.shape}", "Pass a sequence of numbers")
        return values.reshape(-1)
    if dimension is None or condition_number is None:
        missing = "dimension" if dimension is None else "condition_number"
        raise bad_value(missing, None, "it goes with the other one", "Pass both dimension and condition_number")
    if isinstance(dimension, bool) or not isinstance(dimension, int | np.integer):
        raise bad_type("dimension", dimension, "not an integer", "Pass the number of eigenvalues")
    if dimension < 1:
        raise bad_value("dimension", dimension, "less than one eigenvalue", "Use 1 or more")
    condition_number = _number("condition_number", condition_number, at_least=1)
    return _floats("condition_number", condition_number ** np.linspace(0.0, 1.0, dimension))


def _is_traced(value: Any) -> bool:
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(value))


def _number(name: str, value: Any, *, at_least: float = -math.inf) -> Any:
    """`value`, a real number that is finite and not too small, as far as that can be known."""
    if not is_number(value):
        raise bad_type(name, value, "not a number", "Pass a real number")
    if _is_traced(value):
        return value
    if not abs(value) <= float(np.finfo(np.float64).max):
        raise bad_value(name, value, "not finite", "Pass a finite number")
    if value < at_least:
        raise bad_value(name, value, f"less than {at_least:g}", f"Use {at_least:g} or more")
    return value


def _floats(name: str, values: Any) -> Any:
    """An array of JAX's default float dtype: in NumPy, so that nothing is placed on a device, unless it is traced."""
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


def _vector(name: str, values: Any, size: int) -> Any:
    """`values` as a vector of that size; one number stands for all."""
    array = _floats(name, values)
    if array.shape not in ((), (size,)):
        raise bad_value(name, values, f"of shape {array.shape}", f"Pass one number, or {size} of them")
    return jnp.broadcast_to(array, (size,)) if _is_traced(array) else np.broadcast_to(array, (size,)).copy()
