"""What the first step of a run shows: a start that is not finite, and hyperparameters that nothing uses.

A gradient that is not finite at a finite loss is a fault of the loss at this start, which no learning rate repairs. It
is looked for only if a run ends at step 0, since this requires compiling the gradient.
"""

from typing import Any

import jax
import jax.numpy as jnp

from gdkit import binding
from gdkit.binding import Arrays
from gdkit.descent.start import initial_state, split_key
from gdkit.descent.step import lane_step
from gdkit.errors import bad_value
from gdkit.problems import ProblemLike
from gdkit.tracing import jaxprs
from gdkit.types import Array, Hyperparameters, Info, Key, OptimizerLike, State

LOSS_REMEDY = "Look at init and at the data"
GRADIENT_REMEDY = (
    "Guard the operation whose derivative is not finite there, such as a root, a norm, a logarithm or a quotient at 0: "
    "jnp.sqrt(jnp.where(x > 0, x, 1)) where x > 0; or start elsewhere"
)


def find_bad_start(
    problem: ProblemLike, optimizer: OptimizerLike, hyperparameters: Hyperparameters, key: Key, arrays: Arrays
) -> tuple[str, str] | None:
    """What is not finite at the start of the run of `key`, the loss or its gradient, and the remedy.

    None if both are finite, or if the optimizer skips such an update, so that everything in the state that was finite
    stays finite.
    """
    init_key, sample_key = split_key(key)

    def first_step(arrays: Arrays) -> tuple[State, State, Info]:
        state = initial_state(problem, optimizer, hyperparameters, init_key, arrays)
        return state, *lane_step(problem, optimizer)(state, hyperparameters, jnp.int32(0), sample_key, arrays.data)

    before, after, info = jax.jit(first_step)(arrays)
    is_float = lambda x: jnp.issubdtype(x.dtype, jnp.floating)
    pairs = zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
    skips = all(bool(jnp.all(jnp.isfinite(y) | ~jnp.isfinite(x))) for x, y in pairs if is_float(x))
    if skips:
        return None
    if not jnp.isfinite(info.loss):
        return f"the loss is not finite at the start: {float(info.loss)}", LOSS_REMEDY
    leaves = jax.tree_util.tree_leaves_with_path(info.grad)
    bad = [jax.tree_util.keystr(path) for path, leaf in leaves if not jnp.all(jnp.isfinite(leaf))]
    where = f" with respect to {', '.join(bad[:4])}{' and others' if len(bad) > 4 else ''}" if any(bad) else ""
    text = f"the gradient is not finite at the start{where}, where the loss is {float(info.loss):.4g}"
    return (text, GRADIENT_REMEDY) if bad else None


def check_first_step(
    problem: ProblemLike, optimizer: OptimizerLike, hyperparameters: Hyperparameters, key: Key, arrays: Arrays
) -> None:
    """Raise if loss or gradient is not finite at the start of the run of `key`, unless the optimizer skips it."""
    found = find_bad_start(problem, optimizer, hyperparameters, key, arrays)
    if found is not None:
        concrete, _ = binding.resolve_problem(problem, hyperparameters)
        raise bad_value("problem", concrete.name or concrete.loss, *found)


def is_used(
    problem: ProblemLike, optimizer: OptimizerLike, point: dict[str, Any], name: str, key: Key, arrays: Arrays
) -> bool:
    """Whether the start or the step map depends on the traced hyperparameter `name` of `point`."""
    step = lane_step(problem, optimizer)

    def two_steps(value: Array, arrays: Arrays) -> State:  # arrays of NumPy take no traced index
        state = initial_state(problem, optimizer, point | {name: value}, key, arrays)
        return step(state, point | {name: value}, jnp.int32(1), key, arrays.data)[0]

    return jaxprs.depends_on(jax.make_jaxpr(two_steps)(1.0, arrays).jaxpr)[0]
