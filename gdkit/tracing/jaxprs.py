"""Walks of traced programs: their operations, their constants, and how their outputs depend on their inputs."""

import hashlib
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal
from jax.sharding import Mesh

from gdkit.types import Array


def depends_on(jaxpr: Jaxpr) -> list[bool]:
    """For each input of a program, whether an output can depend on it; a call counts as using all its arguments."""
    needed = {v for v in jaxpr.outvars if not isinstance(v, Literal)}
    for equation in reversed(jaxpr.eqns):
        if any(v in needed for v in equation.outvars):
            needed.update(v for v in equation.invars if not isinstance(v, Literal))
    return [v in needed for v in jaxpr.invars]


def find_sources(jaxpr: Jaxpr) -> list[set[int]]:
    """For each output of a program, the places of the inputs on which it can depend."""
    return _spread(jaxpr, [{i} for i in range(len(jaxpr.invars))])


def _spread(jaxpr: Jaxpr, inputs: Sequence[set[int]]) -> list[set[int]]:
    """The sources of the outputs of a program, given those of its inputs."""
    sources: dict[Any, set[int]] = dict(zip(jaxpr.invars, inputs, strict=True))
    read = lambda v: set() if isinstance(v, Literal) else sources.get(v, set())
    for equation in jaxpr.eqns:
        outputs = _spread_equation(equation, [read(v) for v in equation.invars])
        sources.update(zip(equation.outvars, outputs, strict=True))
    return [read(v) for v in jaxpr.outvars]


def _spread_equation(equation: JaxprEqn, inputs: list[set[int]]) -> list[set[int]]:
    params, programs = equation.params, inner_jaxprs(equation)
    if equation.primitive.name == "cond":
        branches = [_spread(branch, inputs[1:]) for branch in programs]
        return [inputs[0].union(*outputs) for outputs in zip(*branches, strict=True)]
    if equation.primitive.name == "while":
        skipped, fixed = params["cond_nconsts"], params["body_nconsts"]
        body = params["body_jaxpr"].jaxpr
        return _spread_loop(body, inputs[skipped : skipped + fixed], inputs[skipped + fixed :], [])
    if equation.primitive.name == "scan":
        fixed, carried = params["num_consts"], params["num_carry"]
        return _spread_loop(programs[0], inputs[:fixed], inputs[fixed : fixed + carried], inputs[fixed + carried :])
    if len(programs) == 1 and len(programs[0].invars) == len(inputs):
        return _spread(programs[0], inputs)
    return [set().union(*inputs)] * len(equation.outvars)


def _spread_loop(body: Jaxpr, fixed: list[set[int]], carry: list[set[int]], stacked: list[set[int]]) -> list[set[int]]:
    """The sources of the outputs of a loop: the carry's grow until an iteration adds none."""
    while True:
        outputs = _spread(body, [*fixed, *carry, *stacked])
        grown = [old | new for old, new in zip(carry, outputs, strict=False)]
        if grown == carry:
            return [*carry, *outputs[len(carry) :]]
        carry = grown


def equations(jaxpr: Jaxpr) -> Iterator[JaxprEqn]:
    """The operations of a program and of its inner programs, in the order in which they are written."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in inner_jaxprs(equation):
            yield from equations(inner)


def is_small(jaxpr: Jaxpr, most: int) -> bool:
    """Whether a program has no loop, and no array of more than `most` numbers."""
    size = lambda variable: math.prod(getattr(variable.aval, "shape", ()))
    operations = list(equations(jaxpr))
    made = [variable for operation in operations for variable in operation.outvars]
    arrays = [*jaxpr.invars, *jaxpr.constvars, *made]
    has_loop = any(operation.primitive.name in ("scan", "while") for operation in operations)
    return not has_loop and max(map(size, arrays), default=0) <= most


def find_mesh(jaxpr: Jaxpr) -> Mesh | None:
    """The mesh of several devices among which a program divides arrays; None where it divides none."""
    for equation in equations(jaxpr):
        mesh = getattr(equation.params.get("sharding"), "mesh", equation.params.get("mesh"))
        if isinstance(mesh, Mesh) and mesh.size > 1:
            return mesh
    return None


def get_lines(equation: JaxprEqn) -> list[tuple[str, int]]:
    """The lines (file, line) that wrote an operation, from the outermost; empty where JAX has not recorded them."""
    recorded = equation.source_info.traceback
    return [(frame.file_name, frame.line_num) for frame in recorded.frames[::-1]] if recorded else []


def inner_jaxprs(equation: JaxprEqn) -> list[Jaxpr]:
    """The programs that an operation runs: branches, the body of a loop, the function that is called."""
    is_program = lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")
    jaxprs = [getattr(x, "jaxpr", x) for x in jax.tree.leaves(equation.params, is_leaf=is_program)]
    return [x for x in jaxprs if hasattr(x, "eqns")]


def constants(closed: ClosedJaxpr) -> list[np.ndarray]:
    """Every constant of a program: its arrays, and the numbers written into it and its inner programs."""
    literals = [v.val for equation in equations(closed.jaxpr) for v in equation.invars if isinstance(v, Literal)]
    return [np.asarray(constant) for constant in (*closed.consts, *literals)]


def digest_program(closed: ClosedJaxpr) -> str:
    """A hash of what a program computes: its operations with their parameters, its constants and how they are combined.

    Names of functions, source lines and addresses do not count. Of Python functions that an operation calls, such as
    callbacks, only the names count.

    >>> import jax.numpy as jnp
    >>> digest = lambda f: digest_program(jax.make_jaxpr(f)(1.0))
    >>> digest(lambda x: jnp.sin(2 * x)) == digest(lambda y: jnp.sin(2 * y)) != digest(lambda x: jnp.sin(3 * x))
    True
    """
    return _digest_jaxpr(closed.jaxpr, closed.consts, {})


def _digest_jaxpr(jaxpr: Jaxpr, constants: Sequence[Any], known: dict[int, str]) -> str:
    """The hash of a program with its constants; `known` has those of programs without constants, by identity."""
    if not constants and id(jaxpr) in known:
        return known[id(jaxpr)]
    numbers: dict[Any, int] = {}
    name = lambda v: _describe(v.val) if isinstance(v, Literal) else f"{numbers.setdefault(v, len(numbers))}:{v.aval}"
    lines = [" ".join(map(name, [*jaxpr.constvars, *jaxpr.invars])), *map(_describe, constants)]
    for equation in jaxpr.eqns:
        params = {n: _describe(x, known) for n, x in sorted(equation.params.items()) if n != "name"}
        lines.append(f"{equation.primitive} {params} {[*map(name, equation.invars)]} {[*map(name, equation.outvars)]}")
    lines.append(" ".join(map(name, jaxpr.outvars)))
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    if not constants:
        known[id(jaxpr)] = digest
    return digest


def _describe(value: Any, known: dict[int, str] | None = None) -> str:
    """A constant or a parameter of an operation as text that is equal in all processes."""
    known = {} if known is None else known
    if hasattr(value, "eqns"):
        return _digest_jaxpr(value, (), known)
    if hasattr(value, "jaxpr"):
        return _digest_jaxpr(value.jaxpr, value.consts, known)
    if isinstance(value, jax.Array) and jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
        value = jax.random.key_data(value)
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        array = np.asarray(value)
        return f"{array.dtype}{array.shape} {hashlib.sha256(array.tobytes()).hexdigest()}"
    if isinstance(value, Mapping):
        return str({str(n): _describe(x, known) for n, x in value.items()})
    if isinstance(value, tuple | list):
        return str([_describe(x, known) for x in value])
    return re.sub(r"0x[0-9a-f]+", "", str(value))


def has_convolutions(jaxpr: Jaxpr) -> bool:
    """Whether a program convolves."""
    return any(equation.primitive.name == "conv_general_dilated" for equation in equations(jaxpr))


def hold_outputs(f: Callable[[Any], list[Array]], held: Sequence[int]) -> Callable[[Any], list[Array]]:
    """`f` whose derivative takes the outputs at the places `held` as constants, also where `f` uses them."""

    def evaluate(x: Any) -> list[Array]:
        closed = jax.make_jaxpr(f)(x)
        return _run(closed, jax.tree.leaves(x), set(held))

    return evaluate if held else f


def _run(closed: ClosedJaxpr, inputs: Sequence[Array], held: set[int]) -> list[Array]:
    """Run a program; a derivative takes the outputs at the places `held` as constants once they are computed."""
    jaxpr = closed.jaxpr
    values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*closed.consts, *inputs), strict=True))
    cut = {jaxpr.outvars[i] for i in held if not isinstance(jaxpr.outvars[i], Literal)}
    read = lambda v: v.val if isinstance(v, Literal) else values[v]
    for equation in jaxpr.eqns:
        inner = {i for i, v in enumerate(equation.outvars) if v in cut}
        arguments = [read(v) for v in equation.invars]
        if inner and equation.primitive.name in ("jit", "pjit"):
            outputs = _run(equation.params["jaxpr"], arguments, inner)
        else:
            outputs = bind(equation, arguments)
        for i, (variable, value) in enumerate(zip(equation.outvars, outputs, strict=True)):
            values[variable] = jax.lax.stop_gradient(value) if i in inner else value
    return [read(v) for v in jaxpr.outvars]


def bind(equation: JaxprEqn, arguments: Sequence[Any]) -> list[Any]:
    """Apply an operation to `arguments`."""
    bound = equation.primitive.get_bind_params(equation.params)
    functions, params = bound if isinstance(bound, tuple) else ((), bound)  # a pair before JAX 0.9
    outputs = equation.primitive.bind(*functions, *arguments, **params)
    return list(outputs) if equation.primitive.multiple_results else [outputs]
