"""Traced programs, read: their operations, their constants, and which inputs their outputs depend on."""

from collections.abc import Iterator

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal


def depends_on(jaxpr: Jaxpr) -> list[bool]:
    """For each input of a program, whether an output can depend on it; a call counts as using all its arguments."""
    needed = {v for v in jaxpr.outvars if not isinstance(v, Literal)}
    for equation in reversed(jaxpr.eqns):
        if any(v in needed for v in equation.outvars):
            needed.update(v for v in equation.invars if not isinstance(v, Literal))
    return [v in needed for v in jaxpr.invars]


def equations(jaxpr: Jaxpr) -> Iterator[JaxprEqn]:
    """The operations of a program and of its inner programs, in the order in which they are written."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in inner_jaxprs(equation):
            yield from equations(inner)


def inner_jaxprs(equation: JaxprEqn) -> list[Jaxpr]:
    """The programs that an operation runs: branches, the body of a loop, the function that is called."""
    is_program = lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")
    found = [getattr(x, "jaxpr", x) for x in jax.tree.leaves(equation.params, is_leaf=is_program)]
    return [x for x in found if hasattr(x, "eqns")]


def constants(closed: ClosedJaxpr) -> list[np.ndarray]:
    """Every constant of a program: those given with it, and the numbers written into it and its inner programs."""
    literals = [v.val for equation in equations(closed.jaxpr) for v in equation.invars if isinstance(v, Literal)]
    return [np.asarray(constant) for constant in (*closed.consts, *literals)]


def has_convolutions(jaxpr: Jaxpr) -> bool:
    """Whether a program convolves."""
    return any(equation.primitive.name == "conv_general_dilated" for equation in equations(jaxpr))
