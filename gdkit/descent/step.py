"""The step map: one step of an optimizer on a problem."""

import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from gdkit import binding
from gdkit.errors import bad_value
from gdkit.optimizers import states
from gdkit.problems import Learner, Problem, ProblemLike
from gdkit.problems import learner as learners
from gdkit.tracing import user_code
from gdkit.types import Array, Hyperparameters, Info, Key, Optimizer, OptimizerLike, Params, PyTree, State

Step = Callable[[State, Hyperparameters, Array, Key, PyTree], tuple[State, Info]]


def step_map(problem: ProblemLike, optimizer: OptimizerLike | None) -> Step:
    """One step of an optimizer on a problem, as a map: ``(state, hyperparameters, t, key, data) -> (state, info)``.

    Args:
      problem: a Problem, or a factory of one, whose hyperparameters are then named ``problem.NAME``; or a Learner,
        whose states are those of its `init`.
      optimizer: an optimizer factory, or a finished optimizer; None for a Learner.

    Returns:
      A pure function. `info` holds the loss and the gradient at the params before the update, and the update.

    >>> from gdkit import optimizers, problems
    >>> step = step_map(problems.parabola(), optimizers.sgd)
    >>> state, info = step(State(0.0, (), optimizers.SgdState((), ())), {"learning_rate": 0.2}, 0, None, None)
    >>> [round(float(x), 4) for x in (info.loss, info.grad, info.update, state.params)]
    [9.0, -6.0, 1.2, 1.2]
    """
    if isinstance(problem, Learner):
        learners.check_no_optimizer(optimizer)
        return learners.own_step_map(problem)
    optimizer = learners.choose_optimizer(problem, optimizer)

    def step(state: State, hyperparameters: Hyperparameters, t: Array, key: Key, data: PyTree) -> tuple[State, Info]:
        concrete, built = binding.resolve(problem, optimizer, hyperparameters)
        return _move(concrete, built, optimizer, state, binding.get_batch(concrete, t, key, data))

    return step


def lane_step(problem: ProblemLike, optimizer: OptimizerLike) -> Step:
    """The step map over states as lanes hold them: of a Learner, split into params and the rest."""
    return learners.split_step_map(problem) if isinstance(problem, Learner) else step_map(problem, optimizer)


def batch_step(
    problem: ProblemLike, optimizer: OptimizerLike
) -> Callable[[State, Hyperparameters, PyTree], tuple[State, Info]]:
    """The step map on a batch that is sampled already: ``(state, hyperparameters, batch) -> (state, info)``."""

    def step(state: State, hyperparameters: Hyperparameters, batch: PyTree) -> tuple[State, Info]:
        return _move(*binding.resolve(problem, optimizer, hyperparameters), optimizer, state, batch)

    return step


def _move(
    problem: Problem, built: Optimizer, optimizer: OptimizerLike, state: State, batch: PyTree
) -> tuple[State, Info]:
    """The state after a step on `batch`; `built` is `optimizer` for its hyperparameters."""
    loss = binding.logged_objective(problem, built, batch, state.aux)
    (value, (aux, logs)), grad = jax.value_and_grad(loss, has_aux=True)(state.params)
    with user_code.translate_errors("optimizer", optimizer):
        given = {"value": value, "value_fn": lambda params: loss(params)[0]}
        update, opt_state = states.update(built, grad, state.opt_state, state.params, **given)
    _check_shapes(optimizer, update, state.params)
    params = optax.apply_updates(state.params, update)
    return State(params, aux, opt_state), Info(value, grad, update, logs)


def _check_shapes(optimizer: OptimizerLike, update: Params, params: Params) -> None:
    """Raise unless updates have the shapes of the params: JAX would broadcast others."""
    shapes = ([jnp.shape(x) for x in jax.tree.leaves(tree)] for tree in (update, params))
    for found, expected in itertools.zip_longest(*shapes):
        if found != expected:
            problem = f"an update has the shape {found}, and its params have {expected}"
            remedy = "Return updates of the shapes of the params; optimizers of per-example gradients are not supported"
            raise bad_value("optimizer", optimizer, problem, remedy)


def strip_weak_types(tree: PyTree) -> PyTree:
    """Make every leaf an array without a weak type, which would compile a second program."""
    return jax.tree.map(lambda x: jax.lax.convert_element_type(x, jnp.asarray(x).dtype), tree)
