"""Derivatives and finite differences: slopes, sensitivities, and whether a gradient is right."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gdkit import checks, factories, html, jaxprs
from gdkit.errors import bad_type, bad_value, unknown_name
from gdkit.gradients.differentiable import (
    check_choice,
    check_floats,
    check_number,
    check_scalar,
    equations,
    gradient_of,
    no_derivative,
)
from gdkit.tables import format_number, text_table
from gdkit.types import Array, Key, Params, PyTree

# Slopes from finite differences


class FiniteDifference(NamedTuple):
    """Slopes estimated with smaller and smaller steps, beside the derivative; prints as a table."""

    derivative: float  # what jax.grad says
    step: np.ndarray  # (n,)
    estimate: np.ndarray  # (n,)
    error: np.ndarray  # (n,) |estimate − derivative|

    @property
    def best(self) -> float:
        """The step with the least error."""
        return float(self.step[np.argmin(self.error)])

    def __str__(self) -> str:
        rows = [_cells(*row) for row in zip(self.step, self.estimate, self.error, strict=True)]
        return text_table(("step", "estimate", "error"), [*rows, ("jax.grad", *_cells(self.derivative), "")])

    _repr_html_ = html.printed


def finite_difference(
    f: Callable[[Array], Any],
    x: float,
    step_sizes: Sequence[float],
    method: str = "forward",
    *,
    dtype: str = "float64",
) -> FiniteDifference:
    """The slope of `f` at `x`, estimated with each step size, and how far that is from ``jax.grad``.

    A large step errs because the function bends, a small one because its values are rounded. The least error of
    forward differences is near a step of √ε, that of central ones near ε^(1/3), where ε is the dtype's (Press et al.,
    Numerical Recipes, 5.7).

    Args:
      f: a function of one number that returns one number.
      x: where.
      step_sizes: the steps h, all positive.
      method: ``"forward"``: (f(x + h) − f(x)) / h; ``"central"``: (f(x + h) − f(x − h)) / 2h.
      dtype: ``"float64"`` or ``"float32"``; no setting of JAX is changed outside this call.

    Raises:
      InputValueError, InputTypeError: an argument cannot be used; the message says which, and what to do.

    >>> print(finite_difference(lambda t: t**2, 3.0, [1.0, 0.01, 0.001]))
        step | estimate | error
    ---------------------------
           1 |        7 |     1
        0.01 |     6.01 |  0.01
       0.001 |    6.001 | 0.001
    jax.grad |        6 |
    """
    check_choice("method", method, ("forward", "central"))
    check_choice("dtype", dtype, ("float32", "float64"))
    check_number("x", x)
    steps = _checked_steps(step_sizes)
    with jax.enable_x64(dtype == "float64"):
        at = jnp.asarray(x, dtype)
        derivative = float(gradient_of("f", f, at))
        slopes = np.array([_slope(f, at, jnp.asarray(h, dtype), method) for h in steps])
    return FiniteDifference(derivative, steps, slopes, np.abs(slopes - derivative))


def _cells(*values: float) -> tuple[str, ...]:
    return tuple(format_number(value, 6) for value in values)


def _slope(f: Callable, x: Array, h: Array, method: str) -> float:
    ends = (x - h if method == "central" else x), x + h
    low, high = (f(end) for end in ends)
    if not (jnp.isfinite(low) and jnp.isfinite(high)):
        raise bad_value("step_sizes", float(h), "the function is not finite that far from x", "Use smaller steps")
    return float((high - low) / (2 * h if method == "central" else h))


def _checked_steps(step_sizes: Any) -> np.ndarray:
    if isinstance(step_sizes, str) or np.ndim(step_sizes) != 1 or np.size(step_sizes) == 0:
        raise bad_value("step_sizes", step_sizes, "not a sequence of step sizes", "Pass for example [1.0, 0.1, 0.01]")
    for h in step_sizes:
        if not factories.is_number(h):
            raise bad_type("step_sizes", h, "not a real number", "Pass positive numbers")
        if not (np.isfinite(h) and h > 0):
            raise bad_value("step_sizes", float(h), "not positive and finite", "Pass positive numbers")
    return np.asarray(step_sizes, np.float64)


# Several inputs


def partial_derivative(f: Callable, argnum: int | str, at: Sequence[Any] | Mapping[str, Any]) -> Array:
    """The derivative of `f` in one of its inputs, the others held still.

    Args:
      f: a function of several inputs that returns one number.
      argnum: which input, by position or by name.
      at: the inputs, in order or by name.

    Returns:
      ∂f/∂(input), of the shape of that input.

    Raises:
      InputValueError, InputTypeError: an argument cannot be used; the message says which, and what to do.

    >>> f = lambda c, d: c**2 + 2 * c * d + d
    >>> [round(float(partial_derivative(f, name, (0.5, 0.3))), 4) for name in ("c", "d")]
    [1.6, 2.0]
    """
    if not isinstance(at, list | tuple | Mapping):
        raise bad_type("at", at, "neither a tuple of inputs nor names with inputs", "Pass for example (0.5, 0.3)")
    place = _place_of(f, argnum, at)
    names, inputs = (list(at), list(at.values())) if isinstance(at, Mapping) else (None, list(at))
    check_floats(f"at[{place if names is None else names[place]!r}]", inputs[place])

    def along(value: PyTree) -> Any:
        moved = [*inputs[:place], value, *inputs[place + 1 :]]
        return f(*moved) if names is None else f(**dict(zip(names, moved, strict=True)))

    return gradient_of("f", along, jax.tree.map(jnp.asarray, inputs[place]), name=f)


def _place_of(f: Callable, argnum: Any, at: Sequence[Any] | Mapping[str, Any]) -> int:
    """The position in `at` of the input that `argnum` means."""
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
    """One input of a function, and the derivative in it."""

    name: str
    value: float
    derivative: float


class Sensitivity(tuple[SensitivityRow, ...]):
    """The inputs of a function, the one it answers to most steeply first; prints as a table."""

    def __str__(self) -> str:
        rows = [(row.name, *_cells(row.value, row.derivative)) for row in self]
        return text_table(("input", "value", "derivative"), rows, "<>>")

    _repr_html_ = html.printed


def sensitivity(f: Callable, /, **inputs: float) -> Sensitivity:
    """The partial derivatives of `f` at named inputs, steepest first.

    >>> print(sensitivity(lambda c, d: c**2 + 2 * c * d + d, c=0.5, d=0.3))
    input | value | derivative
    --------------------------
    d     |   0.3 |          2
    c     |   0.5 |        1.6
    """
    factories.check_names("inputs", f, inputs)
    for name, value in inputs.items():
        check_number(name, value)
    at = {name: jnp.asarray(value) for name, value in inputs.items()}
    slopes = gradient_of("f", lambda at: f(**at), at, name=f)
    rows = [SensitivityRow(name, float(at[name]), float(slopes[name])) for name in inputs]
    return Sensitivity(sorted(rows, key=lambda row: -abs(row.derivative)))


# Whether a gradient is right


class LeafCheck(NamedTuple):
    """The gradient in one leaf against central differences, where they agree least."""

    leaf: str
    size: int
    directions: int  # how many were compared
    gradient: float  # what jax.grad says along the worst direction
    difference: float  # what central differences say
    error: float  # |gradient − difference|
    allowed: float  # what rounding and truncation explain

    @property
    def ok(self) -> bool:
        """Whether rounding and truncation explain the error; NaN they do not."""
        return bool(self.error <= self.allowed)

    def cells(self) -> tuple[str, ...]:
        """The row of this leaf in the table of a `GradientCheck`."""
        slopes = _cells(self.gradient, self.difference)
        errors = f"{self.error:.1e}", f"{self.allowed:.1e}"
        return self.leaf, str(self.size), str(self.directions), *slopes, *errors, "right" if self.ok else "WRONG"


class GradientCheck(NamedTuple):
    """A gradient against central differences, leaf by leaf; prints as a table."""

    leaves: tuple[LeafCheck, ...]
    dtype: str  # in which both were computed

    @property
    def ok(self) -> bool:
        """Whether the gradient is right in every leaf."""
        return all(leaf.ok for leaf in self.leaves)

    def __str__(self) -> str:
        heads = ("leaf", "size", "directions", "jax.grad", "difference", "error", "allowed", "verdict")
        return text_table(heads, [leaf.cells() for leaf in self.leaves], "<>>>>>><")

    _repr_html_ = html.printed


def check_gradient(
    loss: Callable[..., Any], params: Params, *args: PyTree, limit: int = 32, directions: int = 8, key: int | Key = 0
) -> GradientCheck:
    """Compare ``jax.grad(loss)`` with central differences, leaf by leaf.

    Both are computed in float64 if the loss does all its work in it when params and args are cast, else in the dtypes
    they have, with a tolerance to match. An error that rounding, truncation or a kink explains is allowed; a
    custom_vjp that is wrong by a factor is not.

    Args:
      loss: ``loss(params, *args) -> scalar``.
      params: any pytree of float arrays.
      args: what else the loss takes, for example a batch.
      limit: leaves up to this size are compared in every coordinate.
      directions: larger ones are compared along their gradient and along this many random directions.
      key: decides the random directions.

    Raises:
      InputValueError, InputTypeError: an argument cannot be used; the message says which, and what to do.

    >>> check = check_gradient(lambda p: jnp.sum(p["w"] ** 2) + 3 * p["b"], {"w": jnp.ones(2), "b": 1.0})
    >>> check.ok, [leaf.leaf for leaf in check.leaves]
    (True, ["['b']", "['w']"])
    """
    check_floats("params", params)
    for argument, value in (("limit", limit), ("directions", directions)):
        checks.check_integer(argument, value)
    key = jax.random.key(key) if isinstance(key, int | np.integer) else key
    drawn = _directions(params, limit, directions, key)
    with jax.enable_x64(True):
        doubled, others = _cast((params, args), np.float64)
        if _computes_in_double(loss, doubled, others):
            return _compare_leaves(loss, doubled, others, drawn)
    return _compare_leaves(loss, jax.tree.map(jnp.asarray, params), args, drawn)


def _directions(params: Params, limit: int, directions: int, key: Key) -> list[np.ndarray]:
    """Unit vectors of each leaf, (count, size): every coordinate of a small leaf, random ones of a large one."""
    drawn = []
    for i, leaf in enumerate(jax.tree.leaves(params)):
        if np.size(leaf) <= limit:
            drawn.append(np.eye(np.size(leaf)))
        else:
            drawn.append(np.asarray(jax.random.normal(jax.random.fold_in(key, i), (directions, np.size(leaf)))))
    return drawn


def _cast(tree: PyTree, dtype: Any) -> PyTree:
    """The float leaves of `tree` as `dtype`."""
    is_float = lambda x: jnp.issubdtype(getattr(x, "dtype", type(x)), jnp.floating)
    return jax.tree.map(lambda x: jnp.asarray(x, dtype) if is_float(x) else x, tree)


def _computes_in_double(loss: Callable, params: Params, args: PyTree) -> bool:
    """Whether the loss and its gradient, given float64, make nothing of a smaller float type on the way."""
    try:
        program = jax.make_jaxpr(jax.value_and_grad(loss))(params, *args).jaxpr
    except (TypeError, ValueError, NotImplementedError):
        return False
    return all(
        dtype.itemsize >= 8
        for equation in equations(program)
        for dtype in (getattr(v.aval, "dtype", None) for v in equation.outvars)
        if dtype is not None and jnp.issubdtype(dtype, jnp.floating)
    )


def _compare_leaves(loss: Callable, params: Params, args: PyTree, drawn: list[np.ndarray]) -> GradientCheck:
    shown = getattr(loss, "__name__", loss)
    at, tree = jax.tree.flatten(params)
    compiled = jax.jit(lambda leaves, args: loss(jax.tree.unflatten(tree, leaves), *args))
    value = compiled(at, args)
    check_scalar("loss", value)
    if not any(jaxprs.depends_on(jax.make_jaxpr(loss)(params, *args).jaxpr)[: len(at)]):
        raise bad_value("loss", shown, "it does not depend on the params", "Use the params in it")
    try:
        gradient = jax.jit(jax.grad(loss))(params, *args)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise no_derivative("loss", shown, error) from error
    eps = max(float(jnp.finfo(x.dtype).eps) for x in (*at, value))
    checks = []
    for i, (path, slope) in enumerate(jax.tree_util.tree_leaves_with_path(gradient)):
        slope = np.ravel(np.asarray(slope, np.float64))
        leaf = _compare_leaf(
            lambda x, i=i: float(compiled([*at[:i], x, *at[i + 1 :]], args)), np.asarray(at[i]), slope, drawn[i], eps
        )
        checks.append(LeafCheck(jax.tree_util.keystr(path) or "params", slope.size, *leaf))
    return GradientCheck(tuple(checks), str(value.dtype))


def _compare_leaf(f: Callable, leaf: np.ndarray, slope: np.ndarray, drawn: np.ndarray, eps: float) -> tuple:
    """Count, gradient, difference, error and what is allowed, along the direction that is worst."""
    if len(drawn) < slope.size and np.any(slope) and np.all(np.isfinite(slope)):
        drawn = np.vstack([slope, drawn])  # along the gradient its own size is seen best
    scale = float(np.max(np.abs(leaf), initial=0.0)) or 1.0
    found = []
    for direction in drawn / np.linalg.norm(drawn, axis=1, keepdims=True):
        along = np.dot(slope, direction)
        found.append((along, *_difference(f, leaf, along, direction.reshape(leaf.shape), scale, eps)))
    if not found:
        return 0, 0.0, 0.0, 0.0, 0.0
    worst = max(found, key=lambda row: row[2] / row[3] if np.isfinite(row[2]) else np.inf)
    return len(found), *worst


def _difference(
    f: Callable, leaf: np.ndarray, along: float, direction: np.ndarray, scale: float, eps: float
) -> tuple[float, float, float]:
    """The central difference of `f`, how far `along` is from it, and how far it may be."""
    middle, relative = f(leaf), eps ** (1 / 3)
    steps = relative * scale / 8.0 ** np.arange(8)
    rounding = 16 * eps * max(abs(middle), eps) / steps
    sides = np.array([_one_sided(f, leaf, direction, steps[0], middle)])
    central, unexplained = sides[0].mean(), rounding[0]
    if not abs(central - along) <= relative * max(abs(along), abs(central)) + unexplained:
        # a bend or an edge of the domain? Take the step at which the next smaller one changes least
        sides = np.array([_one_sided(f, leaf, direction, step, middle) for step in steps])
        changes = np.abs(np.diff(sides.mean(axis=1))) + rounding[:-1]
        best = int(np.argmin(np.where(np.isfinite(changes), changes, np.inf)))
        central, unexplained = sides[best].mean(), changes[best]
        gap = np.abs(sides[best : best + 2, 0] - sides[best : best + 2, 1])
        if gap[1] > gap[0] / 2:  # a kink, which no step smooths: any slope between the two sides will do
            unexplained += gap[1] / 2
    return central, abs(central - along), relative * max(abs(along), abs(central)) + unexplained


def _one_sided(f: Callable, leaf: np.ndarray, direction: np.ndarray, step: float, middle: float) -> tuple[float, float]:
    """The slopes to the side of `direction`, and to the other."""
    above, below = (f((leaf + way * step * direction).astype(leaf.dtype)) for way in (1, -1))
    return (above - middle) / step, (middle - below) / step
