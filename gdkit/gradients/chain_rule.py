"""The chain rule, one row per operation of a program."""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Jaxpr, JaxprEqn, Literal

from gdkit import factories
from gdkit.checks import check_callable, check_floats, check_scalar
from gdkit.errors import bad_value
from gdkit.formatting import format_number, html, text_table
from gdkit.gradients.differentiable import derivative_error, get_name
from gdkit.tracing import jaxprs
from gdkit.types import Array, PyTree


class ChainRow(NamedTuple):
    """One operation: its inputs and outputs, its local derivatives, and the adjoint of its output."""

    operation: str  # "input" for the inputs of the function
    inputs: tuple[str, ...]  # names of rows, or the values of constants
    outputs: tuple[str, ...]  # nearly always one
    value: Any  # an array or a tuple of arrays
    derivative: tuple[float | None, ...]  # ∂output/∂input for each input; None where it is not one number
    adjoint: Any  # ∂result/∂output, like the value; None where that has no derivative

    @property
    def output(self) -> str:
        """The names of its outputs."""
        return ", ".join(self.outputs)


class Graph(NamedTuple):
    """A program as nodes and edges, from the inputs to the result."""

    nodes: dict[str, ChainRow]  # name of a value -> the row that computes it
    edges: list[tuple[str, str, float | None]]  # from, to, ∂to/∂from


_HEADS = ("", "operation", "value", "local derivative", "adjoint")


@dataclasses.dataclass(frozen=True)
class ChainRuleTrace:
    """The forward and the backward pass through a function; prints as a table whose last row is the result.

    Attributes:
      rows: the inputs, then the operations in the order of the forward pass.
      value: ().
      gradient: like the arguments: one pytree, or a tuple of them.
    """

    rows: tuple[ChainRow, ...]
    value: Array
    gradient: PyTree

    def __str__(self) -> str:
        return text_table(_HEADS, list(map(_format_row, self.rows)), "><><>")

    def _repr_html_(self) -> str:
        return html.table(_HEADS, map(_format_row, self.rows))

    def graph(self) -> Graph:
        """The nodes, and one edge for every use of a value."""
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
    """The operations of `f`, with their values from the forward pass and their adjoints from the backward pass.

    The adjoint of a value is the derivative of the result with respect to it. That of the result is 1; each operation
    passes to each of its inputs its own adjoint times its local derivative; a value that is used twice gets the sum.
    The adjoints of the inputs are the gradient. The inside of jit and checkpoint is traced; scan, cond, while and
    functions with their own derivative rule are one row each.

    Args:
      f: a function of pytrees of float arrays that returns one number.
      args: its arguments.

    Raises:
      InputValueError, InputTypeError: an argument cannot be used; the message names it and the remedy.

    >>> print(chain_rule_trace(lambda x: (2 * x + 1) ** 2, 1.0))
       | operation            | value | local derivative | adjoint
    --------------------------------------------------------------
     x | input                |     1 |                  |      12
    v1 | mul(2, x)            |     2 | 2                |       6
    v2 | add(v1, 1)           |     3 | 1                |       6
    v3 | integer_pow[y=2](v2) |     9 | 6                |       1
    """
    check_callable("f", f, "Pass a function of these arguments")
    named = _name_arguments(f, args)
    for name, value in named:
        check_floats(name, value, finite=True)
    args = jax.tree.map(jnp.asarray, args)
    check_scalar("f", f(*args), finite=True)
    try:
        program = jax.make_jaxpr(f)(*args)
    except (TypeError, ValueError) as error:
        raise derivative_error("f", get_name(f), error) from error
    leaves = ((name, path) for name, value in named for path, _ in jax.tree_util.tree_leaves_with_path(value))
    names = [name + jax.tree_util.keystr(path) for name, path in leaves]
    inputs = [_Node(name, leaf, True) for name, leaf in zip(names, jax.tree.leaves(args), strict=True)]
    operations: list[_Operation] = []
    try:
        (result,) = _forward(program.jaxpr, program.consts, inputs, operations, _unused_prefix(names))
        result.adjoint = jnp.ones_like(result.value)
        _backward(operations)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise derivative_error("f", get_name(f), error) from error
    if all(node.adjoint is None for node in inputs):
        raise bad_value("f", get_name(f), "it does not depend on its inputs", "Use them in it")
    gradient = jax.tree.unflatten(jax.tree.structure(args), [_get_adjoint(node) for node in inputs])
    rows = [ChainRow("input", (), (node.name,), node.value, (), _get_adjoint(node)) for node in inputs]
    return ChainRuleTrace(
        (*rows, *map(_make_row, operations)), result.value, gradient[0] if len(args) == 1 else gradient
    )


@dataclasses.dataclass(eq=False)
class _Node:
    """A value of the program, and the sum of the adjoints that its uses have passed to it so far."""

    name: str
    value: Any
    is_variable: bool  # whether it can depend on the inputs
    adjoint: Any = None


class _Operation(NamedTuple):
    """An operation of the forward pass, and its pullback."""

    name: str
    inputs: list[_Node]
    outputs: list[_Node]
    pullback: Callable[[list], list]  # adjoints of the outputs -> adjoints of the inputs, None for those without


def _name_arguments(f: Callable, args: Sequence[Any]) -> list[tuple[str, Any]]:
    """The arguments with the names of the parameters of `f`."""
    try:
        names = list(factories.parameters(f))
    except TypeError:  # some built-in functions have no signature
        names = []
    names += [f"x{i}" for i in range(len(names), len(args))]
    return list(zip(names, args, strict=False))


def _unused_prefix(names: Sequence[str]) -> str:
    """The first of v, vv, vvv, ... with which no name followed by a number is in `names`."""
    is_taken = lambda prefix: any(n.startswith(prefix) and n.removeprefix(prefix).isdecimal() for n in names)
    return next(prefix for prefix in itertools.accumulate(itertools.repeat("v")) if not is_taken(prefix))


def _forward(
    jaxpr: Jaxpr, consts: Sequence[Any], arguments: list[_Node], operations: list[_Operation], prefix: str
) -> list[_Node]:
    """The outputs of a program, named `prefix` and a number; appends its operations to `operations`."""
    nodes = dict(zip(jaxpr.invars, arguments, strict=True))
    nodes |= {var: _make_constant(value) for var, value in zip(jaxpr.constvars, consts, strict=True)}
    read = lambda atom: _make_constant(atom.val) if isinstance(atom, Literal) else nodes[atom]
    for equation in jaxpr.eqns:
        inputs = [read(atom) for atom in equation.invars]
        if equation.primitive.name in _INLINED:
            inner = equation.params.get("jaxpr", equation.params.get("call_jaxpr"))
            inner_jaxpr, inner_consts = getattr(inner, "jaxpr", inner), getattr(inner, "consts", ())
            outputs = _forward(inner_jaxpr, inner_consts, inputs, operations, prefix)
        else:
            values, pullback = _evaluate(equation, inputs)
            count = sum(len(operation.outputs) for operation in operations)
            is_variable = any(node.is_variable for node in inputs)
            outputs = [_Node(f"{prefix}{count + i}", value, is_variable) for i, value in enumerate(values, 1)]
            operations.append(_Operation(_name_operation(equation), inputs, outputs, pullback))
        nodes.update(zip(equation.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


_INLINED = ("jit", "pjit", "closed_call", "checkpoint", "remat2")


def _backward(operations: list[_Operation]) -> None:
    """Pass the adjoints from the result to the inputs."""
    for operation in reversed(operations):
        if all(node.adjoint is None for node in operation.outputs):
            continue
        adjoints = operation.pullback([_get_adjoint(node) for node in operation.outputs])
        for node, adjoint in zip(operation.inputs, adjoints, strict=True):
            if adjoint is not None:
                node.adjoint = adjoint if node.adjoint is None else node.adjoint + adjoint


def _evaluate(equation: JaxprEqn, inputs: list[_Node]) -> tuple[list, Callable[[list], list]]:
    """The outputs of one operation, and its pullback."""
    values = [node.value for node in inputs]
    places = [i for i, node in enumerate(inputs) if node.is_variable and _is_differentiable(node.value)]

    def apply(*variables: Array) -> tuple[list, list]:
        arguments = list(values)
        for i, value in zip(places, variables, strict=True):
            arguments[i] = value
        outputs = jaxprs.bind(equation, arguments)
        return [output for output in outputs if _is_differentiable(output)], outputs

    variables = [values[i] for i in places]
    if _contains_while(equation):  # only forward mode differentiates a while loop
        jacobian, outputs = jax.jacfwd(apply, argnums=tuple(range(len(variables))), has_aux=True)(*variables)
        transpose = lambda adjoints: _multiply_transposed(adjoints, jacobian)
    else:
        _, transpose, outputs = jax.vjp(apply, *variables, has_aux=True)

    def pullback(adjoints: list) -> list:
        of_floats = [a for a, output in zip(adjoints, outputs, strict=True) if _is_differentiable(output)]
        by_place = dict(zip(places, transpose(of_floats), strict=True))
        return [by_place.get(i) for i in range(len(values))]

    return outputs, pullback


def _contains_while(equation: JaxprEqn) -> bool:
    if equation.primitive.name not in ("while", "cond", "scan"):
        return False
    inner = (e for jaxpr in jaxprs.inner_jaxprs(equation) for e in jaxprs.equations(jaxpr))
    return any(e.primitive.name == "while" for e in (equation, *inner))


def _multiply_transposed(adjoints: list, jacobian: list) -> list:
    """The adjoints of the inputs, from those of the outputs and the Jacobian (outputs, inputs)."""
    products = [[jnp.tensordot(a, s, a.ndim) for s in row] for a, row in zip(adjoints, jacobian, strict=True)]
    return [sum(column) for column in zip(*products, strict=True)]


def _make_row(operation: _Operation) -> ChainRow:
    outputs = operation.outputs
    first, is_single = outputs[0], len(outputs) == 1
    local: list = [None] * len(operation.inputs)
    if is_single and _is_one_float(first.value):
        slopes = operation.pullback([jnp.ones_like(first.value)])
        local = [float(slope) if _is_one_float(slope) else None for slope in slopes]
    return ChainRow(
        operation.name,
        tuple(node.name for node in operation.inputs),
        tuple(node.name for node in outputs),
        first.value if is_single else tuple(node.value for node in outputs),
        tuple(local),
        _get_adjoint(first) if is_single else tuple(map(_get_adjoint, outputs)),
    )


def _get_adjoint(node: _Node) -> Any:
    """The sum of the adjoints passed to a node; zeros if there are none, None if it has no derivative."""
    if node.adjoint is None:
        return jnp.zeros_like(node.value) if node.is_variable and _is_differentiable(node.value) else None
    return node.adjoint


def _is_differentiable(value: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(value), jnp.inexact)  # intermediate values may be complex


def _is_one_float(value: Any) -> bool:
    return value is not None and np.shape(value) == () and jnp.issubdtype(jnp.result_type(value), jnp.floating)


def _is_number_or_bool(value: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(value), jnp.number) or jnp.result_type(value) == np.bool_


def _name_operation(equation: JaxprEqn) -> str:
    """The name of an operation, with the exponent of a power; for a function with its own rule, its name."""
    name, params = equation.primitive.name, equation.params
    if name == "integer_pow":
        return f"integer_pow[y={params['y']}]"
    inner = params.get("call_jaxpr") if name.startswith("custom_") else None
    if inner is None:
        return name
    return str(getattr(getattr(inner.jaxpr, "debug_info", None), "func_name", name))


def _make_constant(value: Any) -> _Node:
    is_plain = np.shape(value) == () and _is_number_or_bool(value)
    return _Node(format_value(value) if is_plain else f"const{_format_shape(value)}", value, False)


# The cells of the table


def _format_row(row: ChainRow) -> tuple[str, ...]:
    call = row.operation if row.operation == "input" else f"{row.operation}({', '.join(row.inputs)})"
    adjoint = "" if row.adjoint is None else format_value(row.adjoint)
    return row.output, call, format_value(row.value), _format_local(row), adjoint


def _format_local(row: ChainRow) -> str:
    slopes = [(name, slope) for name, slope in zip(row.inputs, row.derivative, strict=True) if slope is not None]
    if len(slopes) == 1:
        return format_number(slopes[0][1], 6)
    return ", ".join(f"{format_number(slope, 6)} in {name}" for name, slope in slopes)


def format_value(value: Any, digits: int = 6) -> str:
    """A number, the shape and norm of an array, or the values of a tuple, separated by commas."""
    if isinstance(value, tuple):
        return ", ".join("-" if v is None else format_value(v, digits) for v in value)
    if not _is_number_or_bool(value):
        return str(jnp.result_type(value))
    plain = np.asarray(value, complex if jnp.iscomplexobj(value) else float)
    if plain.shape != ():
        return f"{_format_shape(value)} |{format_number(np.linalg.norm(np.ravel(plain)))}|"
    return f"{plain[()]:.{digits}g}" if np.iscomplexobj(plain) else format_number(plain, digits)


def _format_shape(value: Any) -> str:
    return "(" + "×".join(map(str, np.shape(value))) + ")"
