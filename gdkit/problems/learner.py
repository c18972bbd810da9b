"""Learner: a step map of the user's own, in place of a problem and an optimizer."""

import contextlib
import dataclasses
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.extend.core import ClosedJaxpr

from gdkit import checks, factories
from gdkit.errors import bad_type, bad_value, name_type
from gdkit.problems.problem import Problem
from gdkit.tracing import jaxprs, user_code
from gdkit.trees import children, get_name, name_leaves
from gdkit.types import Array, Hyperparameters, Info, Key, Optimizer, PyTree, State

_INIT, _STEP = ("key", "hyperparameters"), ("state", "hyperparameters", "t", "key", "data")
_RETURNS = 'Return (state, {"loss": scalar}) from step; other scalars in the dictionary are recorded as curves'


@dataclasses.dataclass(frozen=True, eq=False)
class Learner:
    """A step map of the user's own: what `sweep` and `descend` take in place of a problem and an optimizer.

    Meta-learning, reinforcement learning, alternating updates: whatever trains in steps and reports a loss. A problem
    with an optimizer is one learner among others, ``Learner(init, gdkit.step_map(problem, optimizer))``.

    The params of a state are its entry or field ``params`` if it has one, else the whole state; of these the floats
    are what monitors watch, and what makes a run diverge where it is not finite. Whether updates reverse is seen in
    them. Gradients are not known, so that regimes rest on the changes of the loss where those of a problem rest on
    slopes, as in `classify_curve`; a step that returns the `Info` of a step map instead of a dictionary has them.

    Args:
      init: ``init(key, hyperparameters) -> state``, a pytree of arrays of any kind, typed keys included.
      step: ``step(state, hyperparameters, t, key, data) -> (state, {"loss": scalar, NAME: scalar, ...})``, pure. The
        loss is that at the state before the step; other scalars are recorded beside it, as ``curve_NAME``. `key` is
        that of the seed, the same at every step: fold in `t`, as in ``jax.random.fold_in(key, t)``. The structure,
        shapes and dtypes of the state do not change.
      data: a pytree, passed to the compiled program as an argument.
      evaluate: ``evaluate(state, data) -> {NAME: scalar}``, read at the end of a run and along it with
        ``evaluate_every``, as ``validation_NAME``: it chooses which part of `data` it looks at. Runs are compared by
        ``loss`` if it is among them, else by the first of `maximize`, else by the first name in the order of the
        alphabet, as with `Problem`.
      maximize: the names of `evaluate` that are better when larger.
      optimum: the lowest possible loss, where it is known.

    `hyperparameters` is a dictionary with the value of each axis. Floats and learning rates are traced; strings,
    booleans, functions and integers are static, with one program per combination (`gdkit.lanes` makes integers lanes).

    Raises:
      InputTypeError: `init`, `step` or `evaluate` is not callable with these arguments.
      InputValueError: `maximize` names something without `evaluate`.

    >>> from gdkit import sweep
    >>> def step(x, hyperparameters, t, key, data):
    ...     return x - hyperparameters["learning_rate"] * 2 * x, {"loss": x**2}
    >>> learner = Learner(lambda key, hyperparameters: jax.random.normal(key), step)
    >>> result = sweep(learner, None, {"learning_rate": [0.01, 0.3, 1.2]}, steps=100, seeds=3)
    >>> result.best().hyperparameters, result.recommend().unsafe
    ({'learning_rate': 0.3}, 1.2)
    """

    init: Callable[[Key, Hyperparameters], PyTree]
    step: Callable[..., tuple[PyTree, Any]]
    _: dataclasses.KW_ONLY
    data: PyTree = None
    evaluate: Callable[..., Mapping[str, Any]] | None = None
    maximize: Sequence[str] = ()
    optimum: float | Array | None = None

    def __post_init__(self):
        required: tuple[Any, ...] = (("init", self.init, _INIT), ("step", self.step, _STEP))
        for name, function, arguments in (*required, ("evaluate", self.evaluate, ("state", "data"))):
            if function is None and name == "evaluate":
                continue
            if not callable(function):
                raise bad_type(name, function, "not callable", f"Pass {name}({', '.join(arguments)})")
            checks.check_call(name, function, arguments, "Give it these arguments")
        self.as_problem({})

    def as_problem(self, hyperparameters: Hyperparameters) -> "LearnerProblem":
        """A problem with the start, the data and the evaluation of this learner; its loss cannot be differentiated."""

        def init(key: Key) -> tuple[PyTree, PyTree]:
            state = split_state(_start(self, hyperparameters, key))
            return state.params, state.aux

        def loss(*arguments: Any) -> Array:
            problem = "a Learner has no loss that is a function of params alone"
            raise bad_type("problem", self, problem, "Pass a Problem, or use sweep, descend and step_map")

        own: Any = self.evaluate
        evaluate = None if own is None else lambda params, data, aux: own(join_state(State(params, aux, ())), data)
        name = getattr(self.step, "__name__", None)
        return LearnerProblem(
            loss, init, data=self.data, evaluate=evaluate, maximize=self.maximize, optimum=self.optimum, has_aux=True,
            name=name,
        )  # fmt: skip


class LearnerProblem(Problem):
    """A problem that stands for a Learner, whose own `evaluate` says which data are for validation."""

    training_part = "validation"


ProblemLike = Problem | Learner | Callable[..., Problem]  # Callable: a factory, (**hyperparameters) -> Problem


def no_optimizer(**hyperparameters: Any) -> Optimizer:
    """The optimizer factory beside a Learner: it takes every hyperparameter, and leaves gradients as they are."""
    return optax.identity()


def check_no_optimizer(optimizer: Any) -> None:
    """Raise for an optimizer that is given with a Learner."""
    if optimizer is not None and optimizer is not no_optimizer:
        raise bad_value("optimizer", optimizer, "a Learner makes its own updates", "Pass None for it")


def choose_optimizer(problem: Any, optimizer: Any) -> Any:
    """The optimizer of a run: `no_optimizer` for a Learner, which must come without one.

    Raises:
      InputTypeError, InputValueError: there is none, or one beside a Learner.
    """
    if isinstance(problem, Learner):
        check_no_optimizer(optimizer)
        return no_optimizer
    if optimizer is None:
        remedy = "Pass a factory such as optax.adam; only a Learner needs none"
        raise bad_type("optimizer", optimizer, "neither an optimizer nor a factory", remedy)
    return optimizer


# States: lanes hold the floats of the params apart from the rest, so that monitors can watch them


def split_state(own: PyTree) -> State:
    """The state of a learner as that of a lane: `params` and `aux` are trees like it, each with None for the other."""
    has_params = any(name == "params" for name, _ in children(own))
    leaves, structure = jax.tree_util.tree_flatten_with_path(own)
    is_param = lambda path, leaf: (
        jnp.issubdtype(leaf.dtype, jnp.floating) and (not has_params or get_name(path[0]) == "params")
    )
    params = structure.unflatten([leaf if is_param(path, leaf) else None for path, leaf in leaves])
    rest = structure.unflatten([None if is_param(path, leaf) else leaf for path, leaf in leaves])
    return State(params, rest, optax.EmptyState())


def join_state(state: State) -> PyTree:
    """The state of a learner from that of a lane."""
    is_none = lambda x: x is None
    return jax.tree.map(lambda x, other: other if is_none(x) else x, state.params, state.aux, is_leaf=is_none)


def own_state(problem: Any, state: State) -> PyTree:
    """The state that users see: that of a learner as its `init` makes it, or that of a lane."""
    return join_state(state) if isinstance(problem, Learner) else state


# Steps


def own_step_map(learner: Learner) -> Callable[..., tuple[PyTree, Info]]:
    """The step map over states as the learner has them."""
    split = split_step_map(learner)

    def step(state: PyTree, hyperparameters: Hyperparameters, t: Array, key: Key, data: PyTree) -> tuple[PyTree, Info]:
        after, info = split(split_state(jax.tree.map(jnp.asarray, state)), hyperparameters, t, key, data)
        return join_state(after), info

    return step


def split_step_map(learner: Learner) -> Callable[..., tuple[State, Info]]:
    """The step map over states as lanes hold them."""

    def step(state: State, hyperparameters: Hyperparameters, t: Array, key: Key, data: PyTree) -> tuple[State, Info]:
        own, reported = _move(learner, join_state(state), hyperparameters, t, key, data)
        after = split_state(own)._replace(opt_state=state.opt_state)
        if isinstance(reported, Info):
            fit = lambda part, tree: _fit_like(part, tree, state.params)
            return after, reported._replace(grad=fit("grad", reported.grad), update=fit("update", reported.update))
        update = jax.tree.map(jnp.subtract, after.params, state.params)
        unknown = jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), state.params)
        logs = {name: value for name, value in reported.items() if name != "loss"}
        return after, Info(reported["loss"], unknown, update, logs)

    return step


def _start(learner: Learner, hyperparameters: Hyperparameters, key: Key) -> PyTree:
    """The state before step 0, as the learner makes it."""
    with _explain_errors("init", learner.init, hyperparameters):
        state = learner.init(key, _plain(hyperparameters))
    for path, leaf in name_leaves(state).items():
        if not hasattr(leaf, "dtype") and not isinstance(leaf, bool | int | float | complex):
            remedy = "Return a pytree of arrays, and read other values from the hyperparameters"
            raise bad_type(f"init()[{path}]", leaf, "not a number or an array", remedy)
    state = jax.tree.map(jnp.asarray, state)
    if not jax.tree.leaves(split_state(state).params):
        remedy = "Make the params float, or give the state a float that changes with them"
        raise bad_value("init", list(name_leaves(state)), "its state has no floats among its params", remedy)
    return state


def _move(
    learner: Learner, own: PyTree, hyperparameters: Hyperparameters, t: Array, key: Key, data: PyTree
) -> tuple[PyTree, Info | dict[str, Array]]:
    """The next state and what the step reports: an `Info`, or its scalars by name."""
    step = learner.step
    with _explain_errors("step", step, hyperparameters):
        returned = step(own, _plain(hyperparameters), t, key, data)
    if not isinstance(returned, tuple) or len(returned) != 2:
        raise bad_type("step", step, f"it returns {name_type(returned)}, not a pair", _RETURNS)
    after, reported = returned
    if isinstance(reported, Info):
        checks.check_scalar("loss", reported.loss)
        logs = checks.check_logs("step", reported.logs) if reported.logs else reported.logs
        return jax.tree.map(jnp.asarray, after), reported._replace(loss=jnp.asarray(reported.loss), logs=logs)
    if not isinstance(reported, Mapping):
        raise bad_type(
            "step", step, f"the second value that it returns is {name_type(reported)}, no dictionary", _RETURNS
        )
    if "loss" not in reported:
        raise bad_value("step", list(reported), "it returns no 'loss'", _RETURNS)
    checks.check_scalar("loss", reported["loss"])
    others = {name: value for name, value in reported.items() if name != "loss"}
    logs = checks.check_logs("step", others) if others else {}
    return jax.tree.map(jnp.asarray, after), {"loss": jnp.asarray(reported["loss"]), **logs}


def _plain(hyperparameters: Hyperparameters) -> dict[str, Any]:
    """The hyperparameters with floats that, like Python's, keep the precision of what they multiply."""
    as_float = lambda value: float(value) if isinstance(value, np.floating) else factories.as_python_number(value)
    return {name: as_float(value) for name, value in hyperparameters.items()}


@contextlib.contextmanager
def _explain_errors(argument: str, function: object, hyperparameters: Hyperparameters) -> Generator[None]:
    """Raise errors about the code of `function` with their cause: what JAX cannot trace, or a name that is no axis."""
    with user_code.translate_errors(argument, function):
        try:
            yield
        except KeyError as error:
            name = error.args[0] if error.args else None
            if not isinstance(name, str) or name in hyperparameters:
                raise
            problem = f"{argument} looks up {name!r}, which is not among them"
            raise bad_value("hyperparameters", sorted(hyperparameters), problem, "Give it as an axis") from error


def _fit_like(part: str, tree: PyTree, params: PyTree) -> PyTree:
    """A gradient or an update in the structure in which lanes hold the params."""
    leaves, like = jax.tree.leaves(tree), jax.tree.leaves(params)
    if [jnp.shape(x) for x in leaves] != [jnp.shape(x) for x in like]:
        remedy = "Return a dictionary of scalars, or name the part of the state that is trained params"
        raise bad_type("step", part, f"the {part} of its Info is not shaped like the params of the state", remedy)
    return jax.tree.unflatten(jax.tree.structure(params), leaves)


# Checks before a run


class LearnerFacts(NamedTuple):
    """Properties of a learner, found by tracing its first two steps."""

    program: ClosedJaxpr  # key, state, data -> the two losses
    logs: tuple[str, ...]  # names of what a step reports beside the loss
    has_gradient: bool  # whether a step returns an `Info`
    is_stochastic: bool  # whether a loss depends on the key, or on a key in the state


def inspect_learner(learner: Learner, hyperparameters: Hyperparameters, key: Key, data: PyTree) -> LearnerFacts:
    """Trace the first two steps, and check what they return.

    Raises:
      InputValueError, InputTypeError: a step returns no pair, or no loss; its loss or another value is no scalar; the
        state changes its structure, or the shape or dtype of a leaf; `init` or `step` looks up a name that is no axis.
    """
    own = jax.eval_shape(lambda key: _start(learner, hyperparameters, key), key)
    reports: list[Any] = []

    def two_losses(key: Key, own: PyTree, data: PyTree) -> list[Array]:
        losses, state = [], own
        for t in range(2):
            state, reported = _move(learner, state, hyperparameters, jnp.int32(t), key, data)
            _check_state(own, state)
            reports.append(reported)
            losses.append(reported.loss if isinstance(reported, Info) else reported["loss"])
        return losses

    program = jax.make_jaxpr(two_losses)(key, own, data)
    reported = reports[0]
    has_gradient = isinstance(reported, Info)
    logs = tuple(reported.logs) if has_gradient else tuple(name for name in reported if name != "loss")
    random = {0} | {1 + place for place, leaf in enumerate(jax.tree.leaves(own)) if _holds_keys(leaf)}
    is_stochastic = any(random & sources for sources in jaxprs.find_sources(program.jaxpr))
    return LearnerFacts(program, logs, has_gradient, is_stochastic)


def _check_state(before: PyTree, after: PyTree) -> None:
    """Raise if a step changes the structure of a state, or the shape or dtype of a leaf."""
    old, new = name_leaves(before), name_leaves(after)
    remedy = "Return from step a state like that of init, with the same shapes and dtypes"
    for name in (*old, *new):
        if name not in old or name not in new:
            text = "a step adds this leaf to the state" if name in new else "a step removes this leaf from the state"
            raise bad_type("step", name or "state", text, remedy)
        (was, now) = (f"{leaf.dtype}{list(leaf.shape)}" for leaf in (old[name], new[name]))
        if was != now:
            raise bad_type(
                "step", name or "state", f"a step changes this leaf of the state from {was} to {now}", remedy
            )
    if jax.tree.structure(before) != jax.tree.structure(after):
        raise bad_type("step", str(jax.tree.structure(after)), "a step changes the structure of the state", remedy)


def _holds_keys(leaf: Any) -> bool:
    """Whether a leaf holds keys, typed or as pairs of uint32."""
    is_raw = leaf.dtype == jnp.uint32 and leaf.shape[-1:] == (2,)
    return is_raw or jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
