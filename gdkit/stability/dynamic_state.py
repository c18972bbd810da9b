"""The state of a run as a vector: the float leaves that take part in its dynamics."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from gdkit import descent
from gdkit.binding import Arrays
from gdkit.descent import StepInputs, Trajectory
from gdkit.errors import bad_type, bad_value
from gdkit.factories import cache_if_hashable
from gdkit.problems import ProblemLike
from gdkit.tracing import jaxprs
from gdkit.types import Array, Hyperparameters, OptimizerLike, PyTree, State, StaticHyperparameters

# The names of running means or sums of squared gradients in optax.
SECOND_MOMENTS = frozenset({"nu", "nu_max", "sum_of_squares", "exp_avg_sq", "grad_sum_sq"})


class DynamicState(NamedTuple):
    """The places of leaves in a flattened State."""

    moving: tuple[int, ...]  # leaves in the vector
    held: tuple[int, ...]  # second moments that are held constant
    frozen: tuple[str, ...]  # names of the held leaves


def split_floats(state: State, freeze: bool) -> DynamicState:
    """The float leaves of `state`; with `freeze` its second moments are held constant."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    floats = [i for i, (_, leaf) in enumerate(leaves) if _is_float(leaf)]
    held = [i for i in floats if freeze and _is_second_moment(leaves[i][0])]
    names = tuple(jax.tree_util.keystr(leaves[i][0]).removeprefix(".") for i in held)
    return DynamicState(tuple(i for i in floats if i not in held), tuple(held), names)


def _is_float(leaf: Any) -> bool:
    return bool(jnp.issubdtype(getattr(leaf, "dtype", type(leaf)), jnp.floating))


def find_dynamic_state(
    problem: ProblemLike, optimizer: OptimizerLike, freeze: bool, state: State, inputs: StepInputs
) -> DynamicState:
    """The params, and the float leaves of `state` that params move and that move params, by the derivative of a step.

    It excludes numbers that a state only stores, such as hyperparameters, and averages that no update reads.
    """
    floats, leaves = split_floats(state, freeze), jax.tree.leaves(state)
    step = _step_of_leaves(problem, optimizer, floats, state, inputs)
    at = [leaves[i] for i in floats.moving]
    push = lambda tangents: jax.jvp(step, (at,), (tangents,))[1]
    sources = jaxprs.find_sources(jax.make_jaxpr(push)(at).jaxpr)  # of each leaf after the step: places before it
    params = set(range(len(jax.tree.leaves(state.params))))
    moves = _reach(params, [{j for j, inputs in enumerate(sources) if i in inputs} for i in range(len(at))])
    kept = params | (moves & _reach(params, sources))
    return floats._replace(moving=tuple(place for i, place in enumerate(floats.moving) if i in kept))


def cached_dynamic_state(
    problem: ProblemLike, optimizer: OptimizerLike, static: StaticHyperparameters, freeze: bool, *at: State | StepInputs
) -> DynamicState:
    """`find_dynamic_state` at a state and inputs without `static`; only their shapes and dtypes count."""
    shape = lambda x: jax.ShapeDtypeStruct(jnp.shape(x), x.dtype if hasattr(x, "dtype") else jnp.result_type(x))
    leaves, treedef = jax.tree.flatten(jax.tree.map(shape, at))
    return _find_by_shapes(problem, optimizer, static, freeze, treedef, tuple(leaves))


@cache_if_hashable(maxsize=64)
def _find_by_shapes(
    problem: ProblemLike, optimizer: OptimizerLike, static: StaticHyperparameters, freeze: bool, tree: Any, shapes: Any
) -> DynamicState:
    found: list[DynamicState] = []

    def trace(state: State, inputs: StepInputs) -> None:
        found.append(find_dynamic_state(problem, optimizer, freeze, state, inputs.with_static(static)))

    jax.eval_shape(trace, *jax.tree.unflatten(tree, shapes))
    return found[0]


def _reach(start: set[int], edges: list[set[int]]) -> set[int]:
    """The places that can be reached from `start`, itself included."""
    reached, new = set(start), set(start)
    while new:
        new = set().union(*(edges[i] for i in new)) - reached
        reached |= new
    return reached


def _is_second_moment(path: tuple[Any, ...]) -> bool:
    return path[0].name == "opt_state" and not SECOND_MOMENTS.isdisjoint(get_field_names(path))


def get_field_names(path: tuple[Any, ...]) -> list[str]:
    """The names of the fields on the path to a leaf."""
    return [entry.name for entry in path if isinstance(entry, jax.tree_util.GetAttrKey)]


def vector_map(
    problem: ProblemLike, optimizer: OptimizerLike, dynamic: DynamicState, state: State, inputs: StepInputs
) -> tuple[Callable[[Array], Array], Array]:
    """The step map from vector to vector, and the vector of `state`."""
    step = _step_of_leaves(problem, optimizer, dynamic, state, inputs)
    leaves = jax.tree.leaves(state)
    vector, unravel = ravel_pytree([leaves[i] for i in dynamic.moving])
    return (lambda x: ravel_pytree(step(unravel(x)))[0]), vector


def _step_of_leaves(
    problem: ProblemLike, optimizer: OptimizerLike, dynamic: DynamicState, state: State, inputs: StepInputs
) -> Callable[[list[Array]], list[Array]]:
    """The step map from the moving leaves to the moving leaves."""
    step = descent.step_map(problem, optimizer)
    leaves, treedef = jax.tree.flatten(state)

    def advance(moving: list[Array]) -> list[Array]:
        new = dict(zip(dynamic.moving, moving, strict=True))
        before = jax.tree.unflatten(treedef, [new.get(i, leaf) for i, leaf in enumerate(leaves)])
        return jax.tree.leaves(step(before, *inputs)[0])

    held = jaxprs.hold_outputs(advance, dynamic.held)
    return lambda moving: [after for i, after in enumerate(held(moving)) if i in dynamic.moving]


def widen(*trees: PyTree) -> tuple[Any, ...]:
    """`trees` with float32 in place of half precision if the first has any: Krylov spaces need the digits."""
    is_half = lambda x: _is_float(x) and jnp.finfo(jnp.result_type(x)).bits < 32
    if not any(map(is_half, jax.tree.leaves(trees[0]))):
        return trees
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32) if is_half(x) else x, trees)


def as_state(
    problem: ProblemLike, optimizer: OptimizerLike, chosen: Hyperparameters, state: State | Trajectory, arrays: Arrays
) -> State:
    """`state`, or the last state of a Trajectory, with the dtypes of the step map.

    Raises:
      InputTypeError, InputValueError: it is neither, or the state of another optimizer.
    """
    if not all(hasattr(state, name) for name in State._fields):
        raise bad_type("state", state, "not a State", "Pass a State(params, aux, opt_state), or a Trajectory")
    state = State(state.params, state.aux, state.opt_state)
    start = functools.partial(descent.initial_state, problem, optimizer, chosen)
    like = jax.eval_shape(lambda: start(jax.random.key(0), arrays))
    if jax.tree.structure(state) != jax.tree.structure(like):
        remedy = f"This optimizer's has the structure {jax.tree.structure(like)}"
        raise bad_value("state", state, "it is not the state of this optimizer on this problem", remedy)
    return jax.tree.map(lambda x, model: jnp.asarray(x, model.dtype), state, like)
