"""Gates: optimizers that withhold some of their updates, by accumulating gradients or by skipping what is not finite.

Whether an optimizer does is found by tracing its update. Only then does a run count such steps, which takes passes over
gradient and update; the programs of other optimizers stay as they are.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Jaxpr, JaxprEqn, Literal

from gdkit.tracing.jaxprs import inner_jaxprs
from gdkit.types import Array, Info, PyTree


class Gate(NamedTuple):
    """Steps of an optimizer that withholds some updates: it accumulates gradients, or skips what is not finite."""

    skipped: Array  # () int32, number of steps with a loss or gradient that was not finite, and an update that was
    finite: Array  # () int32, the last step with a finite loss and gradient, -1 before
    moved: Array  # () int32, the last step with an update that was not zero, -1 before


def start_gate() -> Gate:
    """The gate of a run before its first step."""
    none = jnp.full((), -1, jnp.int32)
    return Gate(jnp.zeros((), jnp.int32), none, none)


def observe_gate(gate: Gate, info: Info, t: Array, moves: Array) -> tuple[Gate, Array]:
    """The gate after a step, and whether the optimizer skipped it."""
    finite = jnp.isfinite(info.loss) & all_entries(jnp.isfinite, info.grad)
    finite_update, is_zero = all_entries(jnp.isfinite, info.update), all_entries(lambda u: u == 0, info.update)
    # a nonzero step away from an infinite loss is no skip
    skips = finite_update & ~finite & (is_zero | ~jnp.isinf(info.loss))
    return Gate(
        skipped=gate.skipped + (moves & skips).astype(jnp.int32),
        finite=jnp.where(moves & finite, t, gate.finite),
        moved=jnp.where(moves & finite_update & ~is_zero, t, gate.moved),
    ), skips


def all_entries(test: Callable[[Array], Array], tree: PyTree) -> Array:
    """Whether all entries of all leaves pass a test; () bool."""
    return jnp.all(jnp.stack([jnp.all(test(leaf)) for leaf in jax.tree.leaves(tree)]))


def is_long_ago(step: Array, t: Array) -> Array:
    """Whether `step` is before the late steps, and before the eight last ones."""
    return t - step > jnp.maximum(t // 8, 8)


def has_gates(
    jaxpr: Jaxpr, shapes: Collection[tuple[int, ...]], grads: Collection[int], zeros: Collection[int] = ()
) -> bool:
    """Whether a program branches, tests if gradients are finite, or lets a boolean choose between floats and zero.

    Such a choice is a factor that was a scalar boolean, or by one of floats of the `shapes`; where the boolean depends
    on the gradient, as in adagrad's root of a sum that may be zero, it is none. `grads` and `zeros`
    are the places of the inputs that depend on the gradient or the loss, and of those that are known to be zero. Loops
    with a condition, as in a line search, are not entered.
    """
    known, tested = {jaxpr.invars[i] for i in zeros}, {jaxpr.invars[i] for i in grads}
    is_zero = lambda v: not np.any(v.val) if isinstance(v, Literal) else v in known
    places = lambda inputs, test: [i for i, v in enumerate(inputs) if test(v)]
    for equation in jaxpr.eqns:
        name, inputs = equation.primitive.name, equation.invars
        if name in ("broadcast_in_dim", "convert_element_type") and is_zero(inputs[0]):
            known.update(equation.outvars)
        of_grads = places(inputs, lambda v: not isinstance(v, Literal) and v in tested)
        tested.update(equation.outvars if of_grads else ())
        if _is_gate(equation, shapes, of_grads, is_zero):
            return True
        for inner in [] if name == "while" else inner_jaxprs(equation):
            alike = len(inner.invars) == len(inputs)
            every = range(len(inner.invars) if of_grads else 0)
            if has_gates(inner, shapes, of_grads if alike else every, places(inputs, is_zero) if alike else ()):
                return True
    return False


def _is_gate(
    equation: JaxprEqn, shapes: Collection[tuple[int, ...]], of_grads: Sequence[int], is_zero: Callable[[Any], bool]
) -> bool:
    name, inputs = equation.primitive.name, equation.invars
    if name in ("eq", "ne", "is_finite"):
        return bool(of_grads) and inputs[0] is inputs[-1]  # x != x tests whether x is NaN
    if name not in ("select_n", "convert_element_type") or 0 in of_grads:
        return name == "cond"
    chooser: Any = inputs[0].aval
    out: Any = equation.outvars[0].aval
    if chooser.dtype != bool or chooser.shape or not jnp.issubdtype(out.dtype, jnp.floating):
        return False
    return name == "convert_element_type" or (out.shape in shapes and any(map(is_zero, inputs[1:])))
