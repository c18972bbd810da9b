"""The chain rule, operation by operation."""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from gdkit import factories, html
from gdkit.errors import bad_value
from gdkit.gradients.differentiable import check_floats, check_scalar, inner_equations, no_derivative
from gdkit.tables import format_number, text_table
from gdkit.types import Array, PyTree


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
        return text_table(_TRACED, self._cells(), "><><>")

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
        check_floats(name, value)
    args = jax.tree.map(jnp.asarray, args)
    shown = getattr(f, "__name__", f)
    check_scalar("f", f(*args))
    try:
        program = jax.make_jaxpr(f)(*args)
    except (TypeError, ValueError) as error:
        raise no_derivative("f", shown, error) from error
    names = [name + jax.tree_util.keystr(path) for name, value in _named(f, args) for path, _ in _leaves(value)]
    inputs = [_Node(name, leaf, True) for name, leaf in zip(names, jax.tree.leaves(args), strict=True)]
    steps: list[_Operation] = []
    letter = next(letter for letter in itertools.accumulate(itertools.repeat("v")) if not _begins(names, letter))
    try:
        (result,) = _walk_forward(program.jaxpr, program.consts, inputs, steps, letter)
        result.adjoint = jnp.ones_like(result.value)
        _walk_back(steps)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise no_derivative("f", shown, error) from error
    if all(node.adjoint is None for node in inputs):
        raise bad_value("f", shown, "it does not depend on its inputs", "Use them in it")
    gradient = jax.tree.unflatten(jax.tree.structure(args), [_adjoint(node) for node in inputs])
    rows = [ChainRow("input", (), (node.name,), node.value, (), _adjoint(node)) for node in inputs]
    return ChainRuleTrace((*rows, *map(_row, steps)), result.value, gradient[0] if len(args) == 1 else gradient)


@dataclasses.dataclass(eq=False)
class _Node:
    """A value of the program, and what has arrived of its adjoint."""

    name: str
    value: Any
    moves: bool  # whether it can depend on the inputs
    adjoint: Any = None


class _Operation(NamedTuple):
    """An operation that was carried out, and how it hands adjoints back."""

    operation: str
    inputs: list[_Node]
    outputs: list[_Node]
    pull: Callable[[list], list]  # adjoints of the outputs -> adjoints of the inputs, None for those without


def _begins(names: Sequence[str], letter: str) -> bool:
    """Whether one of `names` might be mistaken for `letter` and a number."""
    return any(name.removeprefix(letter).isdecimal() for name in names if name.startswith(letter))


def _walk_forward(
    jaxpr: Any, consts: Sequence[Any], arguments: list[_Node], steps: list[_Operation], letter: str
) -> list[_Node]:
    """Carry out a program, note every operation in `steps`, and return its outputs, named `letter` and a number."""
    nodes = dict(zip(jaxpr.invars, arguments, strict=True))
    nodes |= {var: _constant(value) for var, value in zip(jaxpr.constvars, consts, strict=True)}
    read = lambda atom: _constant(atom.val) if isinstance(atom, Literal) else nodes[atom]
    for equation in jaxpr.eqns:
        inputs = [read(atom) for atom in equation.invars]
        if equation.primitive.name in _INLINED:
            inner = equation.params.get("jaxpr", equation.params.get("call_jaxpr"))
            outputs = _walk_forward(getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), inputs, steps, letter)
        else:
            values, pull = _carry_out(equation, inputs)
            count = sum(len(step.outputs) for step in steps)
            moves = any(node.moves for node in inputs)
            outputs = [_Node(f"{letter}{count + i}", value, moves) for i, value in enumerate(values, 1)]
            steps.append(_Operation(_operation(equation), inputs, outputs, pull))
        nodes.update(zip(equation.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


_INLINED = ("jit", "pjit", "closed_call", "checkpoint", "remat2")


def _walk_back(steps: list[_Operation]) -> None:
    """Hand the adjoints back from the result to the inputs."""
    for step in reversed(steps):
        if all(node.adjoint is None for node in step.outputs):
            continue
        for node, adjoint in zip(step.inputs, step.pull([_adjoint(node) for node in step.outputs]), strict=True):
            if adjoint is not None:
                node.adjoint = adjoint if node.adjoint is None else node.adjoint + adjoint


def _carry_out(equation: Any, inputs: list[_Node]) -> tuple[list, Callable[[list], list]]:
    """The outputs of one operation, and its pullback."""
    values = [node.value for node in inputs]
    places = [i for i, node in enumerate(inputs) if node.moves and _has_slope(node.value)]

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
        inner.primitive.name == "while" for inner in (equation, *inner_equations(equation))
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


def _row(step: _Operation) -> ChainRow:
    only = step.outputs[0]
    several = len(step.outputs) > 1
    local: list = [None] * len(step.inputs)
    if not several and _is_real(only.value):
        local = [float(x) if _is_real(x) else None for x in step.pull([jnp.ones_like(only.value)])]
    return ChainRow(
        step.operation,
        tuple(node.name for node in step.inputs),
        tuple(node.name for node in step.outputs),
        tuple(node.value for node in step.outputs) if several else only.value,
        tuple(local),
        tuple(map(_adjoint, step.outputs)) if several else _adjoint(only),
    )


def _adjoint(node: _Node) -> Any:
    """What arrived, zeros where nothing did, None where nothing can."""
    if node.adjoint is None:
        return jnp.zeros_like(node.value) if node.moves and _has_slope(node.value) else None
    return node.adjoint


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


def _constant(value: Any) -> _Node:
    return _Node(_show(value) if np.shape(value) == () and _is_plain(value) else f"const{_shape(value)}", value, False)


def _is_plain(value: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(value), jnp.number) or jnp.result_type(value) == np.bool_


def _call(row: ChainRow) -> str:
    return row.operation if row.operation == "input" else f"{row.operation}({', '.join(row.inputs)})"


def _show_local(row: ChainRow) -> str:
    known = [(name, slope) for name, slope in zip(row.inputs, row.derivative, strict=True) if slope is not None]
    if len(known) == 1:
        return format_number(known[0][1], 6)
    return ", ".join(f"{format_number(slope, 6)} in {name}" for name, slope in known)


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
