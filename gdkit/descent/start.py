"""The state that a run starts from."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from gdkit import binding, checks, optimizers
from gdkit.binding import Arrays
from gdkit.descent import given_state
from gdkit.descent.step import lane_step, strip_weak_types
from gdkit.errors import bad_type
from gdkit.optimizers import gates, states
from gdkit.problems import Learner, ProblemLike
from gdkit.problems import learner as learners
from gdkit.tracing import jaxprs
from gdkit.trees import statistics_dtype
from gdkit.types import Array, Hyperparameters, Key, OptimizerLike, Params, PyTree, State


def withholds_updates(
    problem: ProblemLike, optimizer: OptimizerLike, hyperparameters: Hyperparameters, state: State
) -> bool:
    """Whether the optimizer may return zero instead of an update, or tests whether gradients are finite.

    Gradient accumulation and transforms that skip non-finite updates do. It is found by tracing the update.
    """
    _, built = binding.resolve(problem, optimizer, hyperparameters)
    if isinstance(built, optimizers.Plain):
        return False

    def update(grad: Params, value: Array, state: State) -> Params:
        given = {"value": value, "value_fn": lambda params: value}
        return states.update(built, grad, state.opt_state, state.params, **given)[0]

    value = jax.ShapeDtypeStruct((), statistics_dtype(state.params))
    traced = jax.make_jaxpr(update)(state.params, value, state).jaxpr
    leaves = jax.tree.leaves(state.params)
    return gates.has_gates(traced, {jnp.shape(leaf) for leaf in leaves}, range(len(leaves) + 1))


def initial_state(
    problem: ProblemLike, optimizer: OptimizerLike, hyperparameters: Hyperparameters, key: Key, arrays: Arrays
) -> State:
    """The state before step 0, cast once to the dtypes that the step map returns.

    Some optimizers (lars, cocob, schedule_free, lbfgs) return other dtypes than those of `init`, which a scan refuses.
    """
    state = strip_weak_types(raw_initial_state(problem, optimizer, hyperparameters, key, arrays))
    step = lane_step(problem, optimizer)
    first = lambda state, data: step(state, hyperparameters, jnp.int32(0), key, data)
    out, _ = jax.eval_shape(first, state, arrays.data)  # arrays of NumPy take no traced index
    if not isinstance(problem, Learner):  # whose state `binding.check_run` checks
        _check_state(optimizer, state, out)
    return jax.tree.map(lambda x, like: jnp.asarray(x, like.dtype), state, out)


def raw_initial_state(
    problem: ProblemLike, optimizer: OptimizerLike, hyperparameters: Hyperparameters, key: Key, arrays: Arrays
) -> State:
    """The state as the problem and the optimizer initialize it, in their own dtypes."""
    concrete, built = binding.resolve(problem, optimizer, hyperparameters)
    start = concrete.init(key) if concrete.init_is_function else _take_given(concrete.init, arrays.init)
    params, aux = binding.split_aux(concrete, start)
    params, given = jax.tree.map(jnp.asarray, params), arrays.start
    if given is None:
        return State(params, aux, states.start(built, params))
    if isinstance(problem, Learner):
        return _continue_learner(State(params, aux, states.start(built, params)), given)
    params = given_state.fit("start.params", given.params, params)
    aux = aux if given.aux is None else given_state.fit("start.aux", given.aux, aux, same_precision=False)
    opt_state = states.start(built, params)
    if given.opt_state is None:
        return State(params, aux, opt_state)
    fitted = given_state.fit("start.opt_state", given.opt_state, opt_state, same_precision=False)
    leaves = zip(jax.tree.leaves(fitted), jax.tree.leaves(opt_state), strict=True)
    own = _find_hyperparameters(problem, optimizer, hyperparameters, params)
    chosen = [old if is_own else new for (new, old), is_own in zip(leaves, own, strict=True)]
    return State(params, aux, jax.tree.unflatten(jax.tree.structure(opt_state), chosen))


def _continue_learner(state: State, given: State) -> State:
    """The state of a lane with the numbers of `given`, the state of a learner, where these are not None."""
    own = learners.join_state(state)
    if isinstance(own, State):
        pairs = zip(State._fields, given, own, strict=True)
        own = State(
            *(old if part is None else given_state.fit(f"start.{name}", part, old) for name, part, old in pairs)
        )
    else:
        own = given_state.fit("start", given.params, own)
    return learners.split_state(jax.tree.map(jnp.asarray, own))._replace(opt_state=state.opt_state)


def _find_hyperparameters(
    problem: ProblemLike, optimizer: OptimizerLike, hyperparameters: Hyperparameters, params: Params
) -> list[bool]:
    """For each leaf of an optimizer state, whether it stores a hyperparameter, as `optax.inject_hyperparams` does."""
    numbers = {n: jnp.asarray(v) for n, v in hyperparameters.items() if isinstance(v, float | jax.Array | np.generic)}

    def start(values: dict[str, Array]) -> PyTree:
        return states.start(binding.resolve(problem, optimizer, {**hyperparameters, **values})[1], params)

    return [bool(sources) for sources in jaxprs.find_sources(jax.make_jaxpr(start)(numbers).jaxpr)]


def _check_state(optimizer: OptimizerLike, before: State, after: State) -> None:
    """Raise if a step changes the structure of a state, or the shape of a leaf."""
    try:
        chex.assert_trees_all_equal_shapes(before, after)
    except AssertionError as error:
        remedy = "Return from update a state like that of init, and from the loss an aux like that of Problem.init"
        raise bad_type("optimizer", optimizer, "a step changes the structure or shapes of the state", remedy) from error


def _take_given(init: PyTree, given: PyTree) -> PyTree:
    """The leaves of `given`, except where those of `init` depend on a traced hyperparameter."""
    return jax.tree.map(lambda leaf, array: leaf if isinstance(leaf, Tracer) else array, init, given)


def split_key(key: int | Key) -> tuple[Key, Key]:
    """The key that initializes and the key that samples, from a run's key or the integer that seeds it."""
    init_key, sample_key = jax.random.split(checks.as_key(key))
    return init_key, sample_key
