"""Finite differences, partial derivatives, and gradients compared with finite differences."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gdkit import checks, factories
from gdkit.environment import enable_x64
from gdkit.errors import bad_type, bad_value, unknown_name
from gdkit.formatting import format_number, html, text_table
from gdkit.gradients.differentiable import check_float, derivative_error, get_name, gradient_of
from gdkit.tracing import jaxprs
from gdkit.types import Array, Key, Params, PyTree

# Slopes from finite differences


class FiniteDifference(NamedTuple):
    """Finite differences of a function for several step sizes, and its derivative; prints as a table."""

    derivative: float  # by jax.grad
    step: np.ndarray  # (n,)
    estimate: np.ndarray  # (n,)
    error: np.ndarray  # (n,) |estimate − derivative|

    @property
    def best(self) -> float:
        """The step size with the smallest error."""
        return float(self.step[np.argmin(self.error)])

    def __str__(self) -> str:
        rows = [_format_row(row) for row in zip(self.step, self.estimate, self.error, strict=True)]
        return text_table(("step", "estimate", "error"), [*rows, ("jax.grad", *_format_row([self.derivative]), "")])

    _repr_html_ = html.preformat


def finite_difference(
    f: Callable[[Array], Any],
    x: float,
    step_sizes: Sequence[float],
    method: str = "forward",
    *,
    dtype: str = "float64",
) -> FiniteDifference:
    """Finite differences of `f` at `x` for each step size, and their errors against ``jax.grad``.

    A large step has a truncation error, a small one a rounding error. The error of forward differences is smallest
    near a step of √ε, that of central differences near ε^(1/3), where ε is the machine epsilon of the dtype (Press et
    al., Numerical Recipes, 5.7).

    Args:
      f: a function from one number to one number.
      x: the point.
      step_sizes: the steps h, all positive.
      method: ``"forward"``: (f(x + h) − f(x)) / h; ``"central"``: (f(x + h) − f(x − h)) / 2h.
      dtype: ``"float64"`` or ``"float32"``; no setting of JAX is changed outside this call.

    Raises:
      InputValueError, InputTypeError: an argument cannot be used; the message names it and the remedy.

    >>> print(finite_difference(lambda t: t**2, 3.0, [1.0, 0.01, 0.001]))
        step | estimate | error
    ---------------------------
           1 |        7 |     1
        0.01 |     6.01 |  0.01
       0.001 |    6.001 | 0.001
    jax.grad |        6 |
    """
    checks.check_choice("method", method, ("forward", "central"))
    checks.check_choice("dtype", dtype, ("float32", "float64"))
    checks.check_call("f", f, ("x",), "Pass a function of one number")
    check_float("x", x)
    steps = _check_steps(step_sizes)
    with enable_x64(dtype == "float64"):
        at = jnp.asarray(x, dtype)
        derivative = float(gradient_of(f, at))
        estimates = np.array([_estimate_slope(f, at, jnp.asarray(h, dtype), method) for h in steps])
    return FiniteDifference(derivative, steps, estimates, np.abs(estimates - derivative))


def _format_row(values: Sequence[float]) -> tuple[str, ...]:
    return tuple(format_number(value, 6) for value in values)


def _estimate_slope(f: Callable, x: Array, h: Array, method: str) -> float:
    ends = (x - h if method == "central" else x), x + h
    low, high = (f(end) for end in ends)
    if not (jnp.isfinite(low) and jnp.isfinite(high)):
        raise bad_value("step_sizes", float(h), "the function is not finite that far from x", "Use smaller steps")
    return float((high - low) / (2 * h if method == "central" else h))


def _check_steps(step_sizes: Any) -> np.ndarray:
    if isinstance(step_sizes, str) or np.ndim(step_sizes) != 1 or np.size(step_sizes) == 0:
        raise bad_value("step_sizes", step_sizes, "not a sequence of step sizes", "Pass for example [1.0, 0.1, 0.01]")
    for h in step_sizes:
        checks.check_number("step_sizes", h, above=0)
    return np.asarray(step_sizes, np.float64)


# Partial derivatives


def partial_derivative(f: Callable, argnum: int | str, at: Sequence[Any] | Mapping[str, Any]) -> Array:
    """The partial derivative of `f` with respect to one of its inputs.

    Args:
      f: a function of several inputs that returns one number.
      argnum: the input, by position or by name.
      at: the values of all inputs, in order or by name.

    Returns:
      ∂f/∂(input), of the shape of that input.

    Raises:
      InputValueError, InputTypeError: an argument cannot be used; the message names it and the remedy.

    >>> f = lambda c, d: c**2 + 2 * c * d + d
    >>> [round(float(partial_derivative(f, name, (0.5, 0.3))), 4) for name in ("c", "d")]
    [1.6, 2.0]
    """
    if not isinstance(at, list | tuple | Mapping):
        raise bad_type("at", at, "neither a tuple nor a mapping of inputs", "Pass for example (0.5, 0.3)")
    checks.check_callable("f", f, "Pass a function of these inputs")
    position = _find_position(f, argnum, at)
    names, inputs = (list(at), list(at.values())) if isinstance(at, Mapping) else (None, list(at))
    checks.check_floats(f"at[{position if names is None else names[position]!r}]", inputs[position], finite=True)

    def along(value: PyTree) -> Any:
        moved = [*inputs[:position], value, *inputs[position + 1 :]]
        return f(*moved) if names is None else f(**dict(zip(names, moved, strict=True)))

    return gradient_of(along, jax.tree.map(jnp.asarray, inputs[position]), name=get_name(f))


def _find_position(f: Callable, argnum: Any, at: Sequence[Any] | Mapping[str, Any]) -> int:
    """The position in `at` of the input that `argnum` stands for."""
    if isinstance(argnum, bool) or not isinstance(argnum, int | np.integer | str):
        raise bad_type("argnum", argnum, "neither a position nor a name", "Pass for example 0 or 'c'")
    if isinstance(argnum, str):
        names = list(at) if isinstance(at, Mapping) else list(factories.parameters(f))[: len(at)]
        if argnum not in names:
            raise unknown_name("argnum", argnum, names)
        return names.index(argnum)
    if not -len(at) <= argnum < len(at):
        raise bad_value("argnum", argnum, f"there are {len(at)} inputs", f"Pass a position from 0 to {len(at) - 1}")
    position = int(argnum) % len(at)
    return list(at).index(list(factories.parameters(f))[position]) if isinstance(at, Mapping) else position


class SensitivityRow(NamedTuple):
    """One input of a function, and the partial derivative with respect to it."""

    name: str
    value: float
    derivative: float


class Sensitivity(tuple[SensitivityRow, ...]):
    """The inputs of a function, the one with the steepest slope first; prints as a table."""

    def __str__(self) -> str:
        rows = [(row.name, *_format_row([row.value, row.derivative])) for row in self]
        return text_table(("input", "value", "derivative"), rows, "<>>")

    _repr_html_ = html.preformat


def sensitivity(f: Callable, /, **inputs: float) -> Sensitivity:
    """The partial derivatives of `f` at named inputs, steepest first.

    Raises:
      InputValueError, InputTypeError: an input is unknown or not one float, or `f` cannot be differentiated.

    >>> print(sensitivity(lambda c, d: c**2 + 2 * c * d + d, c=0.5, d=0.3))
    input | value | derivative
    --------------------------
    d     |   0.3 |          2
    c     |   0.5 |        1.6
    """
    factories.check_names("inputs", f, inputs)
    for name, value in inputs.items():
        check_float(name, value)
    at = {name: jnp.asarray(value) for name, value in inputs.items()}
    slopes = gradient_of(lambda at: f(**at), at, name=get_name(f))
    rows = [SensitivityRow(name, float(at[name]), float(slopes[name])) for name in inputs]
    return Sensitivity(sorted(rows, key=lambda row: -abs(row.derivative)))


# Checking a gradient


class LeafCheck(NamedTuple):
    """The gradient in one leaf against central differences, along the direction with the worst agreement."""

    leaf: str
    size: int
    directions: int  # number of directions that were compared
    gradient: float  # slope by jax.grad
    difference: float  # slope by central differences
    error: float  # |gradient − difference|
    allowed: float  # error that rounding and truncation explain

    @property
    def ok(self) -> bool:
        """Whether rounding and truncation explain the error; False for a NaN."""
        return bool(self.error <= self.allowed)


class GradientCheck(NamedTuple):
    """A gradient against central differences, one row per leaf; prints as a table."""

    leaves: tuple[LeafCheck, ...]
    dtype: str  # of both computations

    @property
    def ok(self) -> bool:
        """Whether the gradient is right in every leaf."""
        return all(leaf.ok for leaf in self.leaves)

    def __str__(self) -> str:
        heads = ("leaf", "size", "directions", "jax.grad", "difference", "error", "allowed", "verdict")
        return text_table(heads, list(map(_format_leaf, self.leaves)), "<>>>>>><")

    _repr_html_ = html.preformat


def _format_leaf(row: LeafCheck) -> tuple[str, ...]:
    slopes = _format_row([row.gradient, row.difference])
    errors = f"{row.error:.1e}", f"{row.allowed:.1e}"
    return row.leaf, str(row.size), str(row.directions), *slopes, *errors, "right" if row.ok else "WRONG"


def check_gradient(
    loss: Callable[..., Any], params: Params, *args: PyTree, limit: int = 32, directions: int = 8, key: int | Key = 0
) -> GradientCheck:
    """Compare ``jax.grad(loss)`` with central differences, leaf by leaf.

    Both are computed in float64 if with params and args cast to it the loss computes in no smaller float type, else in
    float32 on the same condition, else in the given dtypes, with larger tolerances. Errors that rounding, truncation or
    a kink explain are allowed; a custom_vjp that is wrong by a factor is not. Along the gradient of a large leaf the
    step is as long in its largest coordinate as along one coordinate, so that rounding of the loss, which grows with
    the number of params, does not hide the slope. Along random directions, in which slopes cancel and kinks do not, the
    whole step is that short.

    Args:
      loss: ``loss(params, *args) -> scalar``.
      params: any pytree of float arrays.
      args: further arguments of the loss, for example a batch.
      limit: leaves up to this size are compared in every coordinate.
      directions: larger leaves are compared along their gradient and along this many random directions.
      key: seed of the random directions.

    Raises:
      InputValueError, InputTypeError: an argument cannot be used; the message names it and the remedy.

    >>> check = check_gradient(lambda p: jnp.sum(p["w"] ** 2) + 3 * p["b"], {"w": jnp.ones(2), "b": 1.0})
    >>> check.ok, [leaf.leaf for leaf in check.leaves]
    (True, ["['b']", "['w']"])
    """
    if not callable(loss):
        raise bad_type("loss", loss, "not callable", "Pass loss(params, *args), for example problem.loss")
    checks.check_floats("params", params, finite=True)
    checks.check_integer("limit", limit)
    checks.check_integer("directions", directions)
    compared = _draw_directions(params, limit, directions, checks.as_key(key))
    for dtype in (np.float64, np.float32):
        with enable_x64(np.float64 in (dtype, jax.dtypes.canonicalize_dtype(np.float64))):
            cast_params, cast_args = _cast_floats((params, args), dtype)
            if _find_rounding(loss, cast_params, cast_args) <= jnp.finfo(dtype).eps:
                return _compare_leaves(loss, cast_params, cast_args, compared)
    return _compare_leaves(loss, jax.tree.map(jnp.asarray, params), args, compared)


def _draw_directions(params: Params, limit: int, directions: int, key: Key) -> list[np.ndarray]:
    """Directions per leaf, (count, size): the coordinates of a small leaf, random ones in a large leaf."""
    sizes = map(np.size, jax.tree.leaves(params))
    draw = lambda i, size: np.asarray(jax.random.normal(jax.random.fold_in(key, i), (directions, size)))
    return [np.eye(size) if size <= limit else draw(i, size) for i, size in enumerate(sizes)]


def _cast_floats(tree: PyTree, dtype: Any) -> PyTree:
    is_float = lambda x: jnp.issubdtype(getattr(x, "dtype", type(x)), jnp.floating)
    return jax.tree.map(lambda x: jnp.asarray(x, dtype) if is_float(x) else x, tree)


def _find_rounding(loss: Callable, params: Params, args: PyTree) -> float:
    """The largest rounding unit among the float types of the params, and of the loss and its gradient."""
    try:
        program = jax.make_jaxpr(jax.value_and_grad(loss))(params, *args).jaxpr
    except (TypeError, ValueError, NotImplementedError):
        return math.inf
    computed = [v for equation in jaxprs.equations(program) for v in equation.outvars]
    dtypes = {getattr(v.aval, "dtype", None) for v in computed} | {x.dtype for x in jax.tree.leaves(params)}
    return max(float(jnp.finfo(x).eps) for x in dtypes if x is not None and jnp.issubdtype(x, jnp.floating))


def _compare_leaves(loss: Callable, params: Params, args: PyTree, directions: list[np.ndarray]) -> GradientCheck:
    at, tree = jax.tree.flatten(params)
    compiled = jax.jit(lambda leaves, args: loss(jax.tree.unflatten(tree, leaves), *args))
    value = compiled(at, args)
    checks.check_scalar("loss", value, finite=True)
    if not any(jaxprs.depends_on(jax.make_jaxpr(loss)(params, *args).jaxpr)[: len(at)]):
        raise bad_value("loss", get_name(loss), "it does not depend on the params", "Use the params in it")
    try:
        gradient = jax.jit(jax.grad(loss))(params, *args)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise derivative_error("loss", get_name(loss), error) from error
    eps = _find_rounding(loss, params, args)
    rows = []
    for i, (path, slope) in enumerate(jax.tree_util.tree_leaves_with_path(gradient)):
        slope = np.ravel(np.asarray(slope, np.float64))
        of_leaf = lambda x, i=i: float(compiled([*at[:i], x, *at[i + 1 :]], args))
        worst = _compare_leaf(of_leaf, np.asarray(at[i]), slope, directions[i], eps)
        rows.append(LeafCheck(jax.tree_util.keystr(path) or "params", slope.size, *worst))
    return GradientCheck(tuple(rows), str(value.dtype))


def _compare_leaf(
    f: Callable[[np.ndarray], float], leaf: np.ndarray, slope: np.ndarray, directions: np.ndarray, eps: float
) -> tuple[int, float, float, float, float]:
    """The number of directions, and gradient, difference, error and allowed error along the worst of them."""
    scale = float(np.max(np.abs(leaf), initial=0.0)) or 1.0
    lengths = np.full(len(directions), scale)
    if len(directions) < slope.size and np.any(slope) and np.all(np.isfinite(slope)):
        directions = np.vstack([slope, directions])  # an error in the gradient's size shows most along itself
        lengths = np.append(scale * np.linalg.norm(slope) / np.max(np.abs(slope)), lengths)
    compared = []
    units = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    for direction, length in zip(units, lengths, strict=True):
        along = np.dot(slope, direction)
        compared.append((along, *_compare_direction(f, leaf, along, direction.reshape(leaf.shape), length, eps)))
    if not compared:
        return 0, 0.0, 0.0, 0.0, 0.0
    worst = max(compared, key=lambda row: row[2] / row[3] if np.isfinite(row[2]) else math.inf)
    return len(compared), *worst


def _compare_direction(
    f: Callable[[np.ndarray], float], leaf: np.ndarray, along: float, direction: np.ndarray, length: float, eps: float
) -> tuple[float, float, float]:
    """The central difference of `f`, its distance from the slope `along`, and the largest distance allowed."""
    middle, relative = f(leaf), eps ** (1 / 3)
    steps = relative * length / 8.0 ** np.arange(8)
    rounding = 16 * eps * max(abs(middle), eps) / steps
    sides = np.array([_one_sided_slopes(f, leaf, direction, steps[0], middle)])
    central, unexplained = sides[0].mean(), rounding[0]
    if not abs(central - along) <= relative * max(abs(along), abs(central)) + unexplained:
        # curvature or the end of the domain may explain it: use the step that differs least from the next smaller one
        sides = np.array([_one_sided_slopes(f, leaf, direction, step, middle) for step in steps])
        changes = np.abs(np.diff(sides.mean(axis=1))) + rounding[:-1]
        best = int(np.argmin(np.where(np.isfinite(changes), changes, np.inf)))
        central, unexplained = sides[best].mean(), changes[best]
        gap = np.abs(sides[best : best + 2, 0] - sides[best : best + 2, 1])
        if gap[1] > gap[0] / 2:  # a kink, which no step smooths: any slope between those of the two sides is allowed
            unexplained += gap[1] / 2
    return central, abs(central - along), relative * max(abs(along), abs(central)) + unexplained


def _one_sided_slopes(
    f: Callable, leaf: np.ndarray, direction: np.ndarray, step: float, middle: float
) -> tuple[float, float]:
    """The slopes on the side of `direction` and on the opposite side."""
    above, below = (f((leaf + sign * step * direction).astype(leaf.dtype)) for sign in (1, -1))
    return (above - middle) / step, (middle - below) / step
