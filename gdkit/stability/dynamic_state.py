"""The state of a run as a vector: its float leaves, except those that are held constant."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from gdkit import descent, jaxprs
from gdkit.binding import Arrays
from gdkit.descent import Trajectory
from gdkit.errors import bad_type, bad_value
from gdkit.problems import ProblemLike
from gdkit.types import Array, Hyperparameters, Key, OptimizerLike, PyTree, State

# The names of running means or sums of squared gradients in optax.
SECOND_MOMENTS = frozenset({"nu", "nu_max", "sum_of_squares", "exp_avg_sq", "grad_sum_sq"})


class DynamicState(NamedTuple):
    """The places of leaves in a flattened State."""

    moving: tuple[int, ...]  # leaves in the vector
    held: tuple[int, ...]  # second moments that are held constant
    frozen: tuple[str, ...]  # names of the held leaves


def split_state(state: State, freeze: bool) -> DynamicState:
    """The float leaves of `state`; with `freeze` its second moments are held constant."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    floats = [i for i, (_, leaf) in enumerate(leaves) if jnp.issubdtype(jnp.result_type(leaf), jnp.floating)]
    held = [i for i in floats if freeze and _is_second_moment(leaves[i][0])]
    names = tuple(jax.tree_util.keystr(leaves[i][0]).removeprefix(".") for i in held)
    return DynamicState(tuple(i for i in floats if i not in held), tuple(held), names)


def _is_second_moment(path: tuple[Any, ...]) -> bool:
    return path[0].name == "opt_state" and not SECOND_MOMENTS.isdisjoint(get_field_names(path))


def get_field_names(path: tuple[Any, ...]) -> list[str]:
    """The names of the fields on the path to a leaf."""
    return [entry.name for entry in path if isinstance(entry, jax.tree_util.GetAttrKey)]


def vector_map(
    problem: ProblemLike,
    optimizer: OptimizerLike,
    freeze: bool,
    state: State,
    hyperparameters: Hyperparameters,
    t: Array,
    key: Key,
    data: PyTree,
) -> tuple[Callable[[Array], Array], Array]:
    """The step map from vector to vector, and the vector of `state`."""
    step, dynamic = descent.step_map(problem, optimizer), split_state(state, freeze)
    leaves, treedef = jax.tree.flatten(state)
    vector, unravel = ravel_pytree([leaves[i] for i in dynamic.moving])

    def step_leaves(x: Array) -> list[Array]:
        new = dict(zip(dynamic.moving, unravel(x), strict=True))
        before = jax.tree.unflatten(treedef, [new.get(i, leaf) for i, leaf in enumerate(leaves)])
        return jax.tree.leaves(step(before, hyperparameters, t, key, data)[0])

    def advance(x: Array) -> Array:
        after = jaxprs.hold_outputs(step_leaves, dynamic.held)(x)
        return ravel_pytree([after[i] for i in dynamic.moving])[0]

    return advance, vector


def as_state(
    problem: ProblemLike,
    optimizer: OptimizerLike,
    hyperparameters: Hyperparameters,
    state: State | Trajectory,
    arrays: Arrays,
) -> State:
    """`state`, or the last state of a Trajectory, with the dtypes of the step map.

    Raises:
      InputTypeError, InputValueError: it is neither, or the state of another optimizer.
    """
    if not all(hasattr(state, name) for name in State._fields):
        raise bad_type("state", state, "not a State", "Pass a State(params, aux, opt_state), or a Trajectory")
    state = State(state.params, state.aux, state.opt_state)
    start = functools.partial(descent.initial_state, problem, optimizer, hyperparameters)
    like = jax.eval_shape(lambda: start(jax.random.key(0), arrays))
    if jax.tree.structure(state) != jax.tree.structure(like):
        remedy = f"This optimizer's has the structure {jax.tree.structure(like)}"
        raise bad_value("state", state, "it is not the state of this optimizer on this problem", remedy)
    return jax.tree.map(lambda x, model: jnp.asarray(x, model.dtype), state, like)
