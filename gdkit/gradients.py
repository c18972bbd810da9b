"""How a derivative comes about, and whether it is right."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend.core import Literal

from gdkit import descent, factories, html
from gdkit.errors import bad_type, bad_value, unknown_name
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
        rows = [tuple(map(_number, row)) for row in zip(self.step, self.estimate, self.error, strict=True)]
        return _table(("step", "estimate", "error"), [*rows, ("jax.grad", _number(self.derivative), "")], ">>>")

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
    _check_choice("method", method, ("forward", "central"))
    _check_choice("dtype", dtype, ("float32", "float64"))
    _check_number("x", x)
    steps = _checked_steps(step_sizes)
    with jax.enable_x64(dtype == "float64"):
        at = jnp.asarray(x, dtype)
        derivative = float(_gradient_of("f", f, at))
        slopes = np.array([_slope(f, at, jnp.asarray(h, dtype), method) for h in steps])
    return FiniteDifference(derivative, steps, slopes, np.abs(slopes - derivative))


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
    _check_floats(f"at[{place if names is None else names[place]!r}]", inputs[place])

    def along(value: PyTree) -> Any:
        moved = [*inputs[:place], value, *inputs[place + 1 :]]
        return f(*moved) if names is None else f(**dict(zip(names, moved, strict=True)))

    return _gradient_of("f", along, jax.tree.map(jnp.asarray, inputs[place]), name=f)


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
        rows = [(row.name, _number(row.value), _number(row.derivative)) for row in self]
        return _table(("input", "value", "derivative"), rows, "<>>")

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
        _check_number(name, value)
    at = {name: jnp.asarray(value) for name, value in inputs.items()}
    slopes = _gradient_of("f", lambda at: f(**at), at, name=f)
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


class GradientCheck(NamedTuple):
    """A gradient against central differences, leaf by leaf; prints as a table."""

    leaves: tuple[LeafCheck, ...]
    dtype: str  # in which both were computed

    @property
    def ok(self) -> bool:
        """Whether the gradient is right in every leaf."""
        return all(leaf.ok for leaf in self.leaves)

    def __str__(self) -> str:
        head = ("leaf", "size", "directions", "jax.grad", "difference", "error", "allowed", "verdict")
        rows = [
            (r.leaf, str(r.size), str(r.directions), *map(_number, r[3:5]), f"{r.error:.1e}", f"{r.allowed:.1e}")
            for r in self.leaves
        ]
        verdicts = ["right" if leaf.ok else "WRONG" for leaf in self.leaves]
        return _table(head, [(*row, verdict) for row, verdict in zip(rows, verdicts, strict=True)], "<>>>>>><")

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
    _check_floats("params", params)
    for argument, value in (("limit", limit), ("directions", directions)):
        descent.check_positive(argument, value)
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
        for equation in _equations(program)
        for dtype in (getattr(v.aval, "dtype", None) for v in equation.outvars)
        if dtype is not None and jnp.issubdtype(dtype, jnp.floating)
    )


def _equations(jaxpr: Any) -> Iterator[Any]:
    """The equations of a program, those of its inner programs too."""
    for equation in jaxpr.eqns:
        yield equation
        yield from _inner_equations(equation)


def _inner_equations(equation: Any) -> Iterator[Any]:
    for inner in jax.tree.leaves(equation.params, is_leaf=lambda p: hasattr(p, "eqns") or hasattr(p, "jaxpr")):
        inner = getattr(inner, "jaxpr", inner)
        if hasattr(inner, "eqns"):
            yield from _equations(inner)


def _compare_leaves(loss: Callable, params: Params, args: PyTree, drawn: list[np.ndarray]) -> GradientCheck:
    shown = getattr(loss, "__name__", loss)
    at, tree = jax.tree.flatten(params)
    compiled = jax.jit(lambda leaves, args: loss(jax.tree.unflatten(tree, leaves), *args))
    value = compiled(at, args)
    _check_scalar("loss", value)
    if not any(descent.depends_on(jax.make_jaxpr(loss)(params, *args).jaxpr)[: len(at)]):
        raise bad_value("loss", shown, "it does not depend on the params", "Use the params in it")
    try:
        gradient = jax.jit(jax.grad(loss))(params, *args)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise _no_derivative("loss", shown, error) from error
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


# The chain rule, operation by operation


class ChainRow(NamedTuple):
    """One operation of a program: what it makes of what, and what the chain rule says of it."""

    operation: str  # "input" for the inputs of the function
    inputs: tuple[str, ...]  # names of rows, or the values of constants
    outputs: tuple[str, ...]  # what it makes, nearly always one
    value: Any  # an array, or a tuple of them
    derivative: tuple[float | None, ...]  # ∂output/∂input for each input; None where it is not one number
    adjoint: Any  # ∂result/∂output, like the value; None where that has no derivative

    @property
    def output(self) -> str:
        """The name of what it makes."""
        return ", ".join(self.outputs)


class Graph(NamedTuple):
    """A program as nodes and edges, from the inputs to the result."""

    nodes: dict[str, ChainRow]  # name of a value -> the row that makes it
    edges: list[tuple[str, str, float | None]]  # from, to, ∂to/∂from


_TRACED = ("", "operation", "value", "local derivative", "adjoint")


@dataclasses.dataclass(frozen=True)
class ChainRuleTrace:
    """The forward and the backward walk through a function; prints as a table, read back from its last line."""

    rows: tuple[ChainRow, ...]  # the inputs first, then the operations in their order
    value: Array  # ()
    gradient: Any  # like the arguments: one pytree, or a tuple of them

    def __str__(self) -> str:
        return _table(_TRACED, self._cells(), "><><>")

    def _repr_html_(self) -> str:
        return html.table(_TRACED, self._cells())

    def _cells(self) -> list[tuple[str, ...]]:
        adjoint = lambda row: "" if row.adjoint is None else _show(row.adjoint)
        return [(row.output, _call(row), _show(row.value), _show_local(row), adjoint(row)) for row in self.rows]

    def graph(self) -> Graph:
        """Nodes and edges, for drawing; an edge for every use of a value."""
        nodes = {name: row for row in self.rows for name in row.outputs}
        edges = [
            (source, target, slope)
            for row in self.rows
            for source, slope in zip(row.inputs, row.derivative, strict=True)
            for target in row.outputs
            if source in nodes
        ]
        return Graph(nodes, edges)


def chain_rule_trace(f: Callable[..., Any], *args: PyTree) -> ChainRuleTrace:
    """Walk through the operations of `f` forward, for the values, and back, for the adjoints.

    The adjoint of a value is the derivative of the result in it. That of the result is 1; each operation hands to each
    of its inputs its own adjoint times its local derivative; a value used twice gets the sum. What the inputs get is
    the gradient. What jit and checkpoint wrap is walked through; scan, cond, while and functions with their own
    derivative rule are one row each.

    Args:
      f: a function of pytrees of float arrays that returns one number.
      args: where.

    Raises:
      InputValueError, InputTypeError: an argument cannot be used; the message says which, and what to do.

    >>> print(chain_rule_trace(lambda x: (2 * x + 1) ** 2, 1.0))
       | operation            | value | local derivative | adjoint
    --------------------------------------------------------------
     x | input                |     1 |                  |      12
    v1 | mul(2, x)            |     2 | 2                |       6
    v2 | add(v1, 1)           |     3 | 1                |       6
    v3 | integer_pow[y=2](v2) |     9 | 6                |       1
    """
    for name, value in _named(f, args):
        _check_floats(name, value)
    args = jax.tree.map(jnp.asarray, args)
    shown = getattr(f, "__name__", f)
    _check_scalar("f", f(*args))
    try:
        program = jax.make_jaxpr(f)(*args)
    except (TypeError, ValueError) as error:
        raise _no_derivative("f", shown, error) from error
    names = [name + jax.tree_util.keystr(path) for name, value in _named(f, args) for path, _ in _leaves(value)]
    inputs = [_Cell(name, leaf, True) for name, leaf in zip(names, jax.tree.leaves(args), strict=True)]
    steps: list[_Step] = []
    letter = next(letter for letter in itertools.accumulate(itertools.repeat("v")) if not _begins(names, letter))
    try:
        (result,) = _walk_forward(program.jaxpr, program.consts, inputs, steps, letter)
        result.adjoint = jnp.ones_like(result.value)
        _walk_back(steps)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise _no_derivative("f", shown, error) from error
    if all(cell.adjoint is None for cell in inputs):
        raise bad_value("f", shown, "it does not depend on its inputs", "Use them in it")
    gradient = jax.tree.unflatten(jax.tree.structure(args), [_adjoint(cell) for cell in inputs])
    rows = [ChainRow("input", (), (cell.name,), cell.value, (), _adjoint(cell)) for cell in inputs]
    return ChainRuleTrace((*rows, *map(_row, steps)), result.value, gradient[0] if len(args) == 1 else gradient)


@dataclasses.dataclass(eq=False)
class _Cell:
    """A value of the program, and what has arrived of its adjoint."""

    name: str
    value: Any
    moves: bool  # whether it can depend on the inputs
    adjoint: Any = None


class _Step(NamedTuple):
    """An operation that was carried out, and how it hands adjoints back."""

    operation: str
    inputs: list[_Cell]
    outputs: list[_Cell]
    pull: Callable[[list], list]  # adjoints of the outputs -> adjoints of the inputs, None for those without


def _begins(names: Sequence[str], letter: str) -> bool:
    """Whether one of `names` might be mistaken for `letter` and a number."""
    return any(name.removeprefix(letter).isdecimal() for name in names if name.startswith(letter))


def _walk_forward(
    jaxpr: Any, consts: Sequence[Any], arguments: list[_Cell], steps: list[_Step], letter: str
) -> list[_Cell]:
    """Carry out a program, note every operation in `steps`, and return its outputs, named `letter` and a number."""
    cells = dict(zip(jaxpr.invars, arguments, strict=True))
    cells |= {var: _constant(value) for var, value in zip(jaxpr.constvars, consts, strict=True)}
    read = lambda atom: _constant(atom.val) if isinstance(atom, Literal) else cells[atom]
    for equation in jaxpr.eqns:
        inputs = [read(atom) for atom in equation.invars]
        if equation.primitive.name in _INLINED:
            inner = equation.params.get("jaxpr", equation.params.get("call_jaxpr"))
            outputs = _walk_forward(getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), inputs, steps, letter)
        else:
            values, pull = _carry_out(equation, inputs)
            count = sum(len(step.outputs) for step in steps)
            moves = any(cell.moves for cell in inputs)
            outputs = [_Cell(f"{letter}{count + i}", value, moves) for i, value in enumerate(values, 1)]
            steps.append(_Step(_operation(equation), inputs, outputs, pull))
        cells.update(zip(equation.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


_INLINED = ("jit", "pjit", "closed_call", "checkpoint", "remat2")


def _walk_back(steps: list[_Step]) -> None:
    """Hand the adjoints back from the result to the inputs."""
    for step in reversed(steps):
        if all(cell.adjoint is None for cell in step.outputs):
            continue
        for cell, adjoint in zip(step.inputs, step.pull([_adjoint(cell) for cell in step.outputs]), strict=True):
            if adjoint is not None:
                cell.adjoint = adjoint if cell.adjoint is None else cell.adjoint + adjoint


def _carry_out(equation: Any, inputs: list[_Cell]) -> tuple[list, Callable[[list], list]]:
    """The outputs of one operation, and its pullback."""
    values = [cell.value for cell in inputs]
    places = [i for i, cell in enumerate(inputs) if cell.moves and _has_slope(cell.value)]

    def apply(*moving: Array) -> tuple[list, list]:
        given = list(values)
        for i, value in zip(places, moving, strict=True):
            given[i] = value
        out = equation.primitive.bind(*given, **equation.primitive.get_bind_params(equation.params))
        out = list(out) if equation.primitive.multiple_results else [out]
        return [o for o in out if _has_slope(o)], out

    moving = [values[i] for i in places]
    slopes: Any = None
    if equation.primitive.name in ("while", "cond", "scan") and any(
        inner.primitive.name == "while" for inner in (equation, *_inner_equations(equation))
    ):  # only forward mode goes through a while
        slopes, outputs = jax.jacfwd(apply, argnums=tuple(range(len(moving))), has_aux=True)(*moving)
    else:
        _, transposed, outputs = jax.vjp(apply, *moving, has_aux=True)

    def pull(adjoints: list) -> list:
        arrived = [a for a, o in zip(adjoints, outputs, strict=True) if _has_slope(o)]
        if slopes is None:
            back = transposed(arrived)
        else:
            products = [[jnp.tensordot(a, s, a.ndim) for s in row] for a, row in zip(arrived, slopes, strict=True)]
            back = [sum(column) for column in zip(*products, strict=True)]
        handed = dict(zip(places, back, strict=True))
        return [handed.get(i) for i in range(len(values))]

    return outputs, pull


def _row(step: _Step) -> ChainRow:
    only = step.outputs[0]
    several = len(step.outputs) > 1
    local: list = [None] * len(step.inputs)
    if not several and _is_real(only.value):
        local = [float(x) if _is_real(x) else None for x in step.pull([jnp.ones_like(only.value)])]
    return ChainRow(
        step.operation,
        tuple(cell.name for cell in step.inputs),
        tuple(cell.name for cell in step.outputs),
        tuple(cell.value for cell in step.outputs) if several else only.value,
        tuple(local),
        tuple(map(_adjoint, step.outputs)) if several else _adjoint(only),
    )


def _adjoint(cell: _Cell) -> Any:
    """What arrived, zeros where nothing did, None where nothing can."""
    if cell.adjoint is None:
        return jnp.zeros_like(cell.value) if cell.moves and _has_slope(cell.value) else None
    return cell.adjoint


def _has_slope(value: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(value), jnp.inexact)  # complex numbers may occur on the way


def _is_real(value: Any) -> bool:
    """One float."""
    return value is not None and np.shape(value) == () and jnp.issubdtype(jnp.result_type(value), jnp.floating)


def _named(f: Callable, args: Sequence[Any]) -> list[tuple[str, Any]]:
    """The arguments with the names that `f` gives them."""
    try:
        names = list(factories.parameters(f))
    except TypeError:  # some built-in functions have no signature
        names = []
    names += [f"x{i}" for i in range(len(names), len(args))]
    return list(zip(names, args, strict=False))


def _leaves(tree: PyTree) -> list:
    return jax.tree_util.tree_leaves_with_path(tree)


def _operation(equation: Any) -> str:
    """The name of an operation, with the exponent of a power and the name of a function with its own rule."""
    name, params = equation.primitive.name, equation.params
    if name == "integer_pow":
        return f"integer_pow[y={params['y']}]"
    inner = params.get("call_jaxpr") if name.startswith("custom_") else None
    if inner is None:
        return name
    return str(getattr(getattr(inner.jaxpr, "debug_info", None), "func_name", name))


def _constant(value: Any) -> _Cell:
    return _Cell(_show(value) if np.shape(value) == () and _is_plain(value) else f"const{_shape(value)}", value, False)


def _is_plain(value: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(value), jnp.number) or jnp.result_type(value) == np.bool_


def _call(row: ChainRow) -> str:
    return row.operation if row.operation == "input" else f"{row.operation}({', '.join(row.inputs)})"


def _show_local(row: ChainRow) -> str:
    known = [(name, slope) for name, slope in zip(row.inputs, row.derivative, strict=True) if slope is not None]
    return ", ".join(f"{_number(slope)} in {name}" if len(known) > 1 else _number(slope) for name, slope in known)


def _show(value: Any) -> str:
    """A number as it is, an array by its shape and norm, several joined."""
    if isinstance(value, tuple):
        return ", ".join("-" if v is None else _show(v) for v in value)
    if not _is_plain(value):
        return str(jnp.result_type(value))
    plain = np.asarray(value, complex if jnp.iscomplexobj(value) else float)
    if plain.shape == ():
        return f"{plain[()]:.6g}"
    return f"{_shape(value)} |{np.linalg.norm(np.ravel(plain)):.4g}|"


def _shape(value: Any) -> str:
    return "(" + "×".join(map(str, np.shape(value))) + ")"


# The shared border: what can be differentiated


def _gradient_of(argument: str, f: Callable, at: PyTree, *, name: Any = None) -> Any:
    """``jax.grad(f)(at)``, with a typed error where `f` is no finite real scalar or has no finite derivative."""
    shown = getattr(name or f, "__name__", f)
    _check_scalar(argument, f(at))
    try:
        slope = jax.grad(f)(at)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise _no_derivative(argument, shown, error) from error
    if not all(map(_is_finite, jax.tree.leaves(slope))):
        raise bad_value(argument, shown, "its derivative is not finite here", "Choose another point")
    return slope


def _no_derivative(argument: str, shown: Any, error: Exception) -> Exception:
    why = (str(error).strip() or type(error).__name__).splitlines()[0]
    return bad_type(argument, shown, f"JAX cannot differentiate it: {why}", "Write it with jax.numpy and jax.lax")


def _check_scalar(argument: str, value: Any) -> None:
    """Raise unless `value`, which a function returned, is one finite real float."""
    shape, dtype = getattr(value, "shape", ()), getattr(value, "dtype", None)
    if shape != () or (dtype is None and not isinstance(value, int | float | complex)):
        remedy = "Reduce it, for example with jnp.sum, or choose one entry"
        raise bad_type(argument, shape or type(value).__name__, "it does not return a scalar", remedy)
    dtype = jnp.result_type(value)
    if not jnp.issubdtype(dtype, jnp.floating):
        remedy = "Return a real float; integers and complex numbers have no slope"
        raise bad_type(argument, str(dtype), "it does not return a float", remedy)
    if not _is_finite(value):
        raise bad_value(argument, float(value), "its value is not finite here", "Choose another point")


def _check_number(argument: str, value: Any) -> None:
    """Raise unless `value` is one finite real float."""
    _check_floats(argument, value)
    if np.shape(value) != ():
        raise bad_type(argument, value, "not one number", "Pass one float")


def _check_floats(argument: str, tree: PyTree) -> None:
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
        if not _is_finite(leaf):
            raise bad_value(where, leaf, "not finite", "Pass finite numbers")


def _check_choice(argument: str, value: Any, known: Sequence[str]) -> None:
    if value not in known:
        raise unknown_name(argument, value, known)


def _is_finite(value: Any) -> bool:
    return isinstance(value, Tracer) or bool(np.all(np.isfinite(np.asarray(value))))


# Tables


def _number(value: Any) -> str:
    return f"{float(value):.6g}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], align: str) -> str:
    """Columns as wide as they need to be, each aligned as its character of `align` says."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [" | ".join(f"{c:{a}{w}}" for c, a, w in zip(row, align, widths, strict=True)) for row in (head, *rows)]
    return "\n".join([lines[0].rstrip(), "-" * len(lines[0]), *(line.rstrip() for line in lines[1:])])
