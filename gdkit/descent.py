"""The step map, and one run of it."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer
from jax.extend.core import Literal

from gdkit import factories, html, monitors, optimizers
from gdkit.errors import bad_type, bad_value
from gdkit.monitors import EndKind, Limits, Record
from gdkit.problems import Problem
from gdkit.types import Array, Context, Hyperparameters, Info, Key, Monitor, Optimizer, Params, PyTree, State

Step = Callable[[State, Hyperparameters, Array, Key, PyTree], tuple[State, Info]]


class Arrays(NamedTuple):
    """The arrays of a problem: what a compiled program takes as arguments rather than as constants."""

    init: PyTree  # the initial params where they are given, else ()
    data: PyTree
    validation: PyTree
    test: PyTree


def arrays_of(problem: Problem) -> Arrays:
    """The arrays of `problem`, its validation and test data with ``None`` for what it lacks."""
    init = () if problem.init_is_function else problem.init
    return Arrays(init, problem.data, problem.validation, problem.test)


def step_map(problem: Problem | Callable[..., Problem], factory: Any) -> Step:
    """One step of an optimizer on a problem, as a map: ``(state, hyperparameters, t, key, data) -> (state, info)``.

    Args:
      problem: a Problem, or a factory of one, whose hyperparameters are then named ``problem.NAME``.
      factory: an optimizer factory, or a finished optimizer.

    Returns:
      A pure function. `info` holds the loss and the gradient at the params before the update, and the update.

    >>> from gdkit import problems
    >>> step = step_map(problems.parabola(), optimizers.sgd)
    >>> state, info = step(State(0.0, (), optimizers.SgdState((), ())), {"learning_rate": 0.2}, 0, None, None)
    >>> [round(float(x), 4) for x in (info.loss, info.grad, info.update, state.params)]
    [9.0, -6.0, 1.2, 1.2]
    """

    def step(state: State, hyperparameters: Hyperparameters, t: Array, key: Key, data: PyTree) -> tuple[State, Info]:
        judged, optimizer = resolve(problem, factory, hyperparameters)
        loss = objective(judged, optimizer, batch_of(judged, t, key, data), state.aux)
        (value, aux), grad = jax.value_and_grad(loss, has_aux=True)(state.params)
        extra = {"value": value, "grad": grad, "value_fn": lambda params: loss(params)[0]}
        wanted = {name: extra[name] for name in optimizers.extra_arguments(optimizer)}
        update, opt_state = optimizer.update(grad, state.opt_state, state.params, **wanted)
        params = optax.apply_updates(state.params, update)
        return State(params, aux, opt_state), Info(value, grad, update)

    return step


def resolve(
    problem: Problem | Callable[..., Problem], factory: Any, hyperparameters: Hyperparameters
) -> tuple[Problem, Optimizer]:
    """The problem and the optimizer of these hyperparameters."""
    of_optimizer, of_problem = factories.split_hyperparameters(hyperparameters)
    if not isinstance(problem, Problem):
        problem = factories.call("problem", problem, of_problem)
    return problem, optimizers.build(factory, of_optimizer)


def objective(problem: Problem, optimizer: Optimizer, batch: PyTree, aux: PyTree) -> Callable[[Params], Any]:
    """``params -> (loss, aux)`` on `batch`; negated under ascent."""
    sign = -1 if isinstance(optimizer, optimizers.Ascent) else 1

    def loss(params: Params) -> tuple[Array, PyTree]:
        if problem.has_aux:
            value, new_aux = problem.loss(params, batch, aux)
        else:
            value, new_aux = problem.loss(params) if batch is None else problem.loss(params, batch), aux
        return (value if sign == 1 else -value), new_aux

    return loss


def batch_of(problem: Problem, t: Array, key: Key, data: PyTree) -> PyTree:
    """What the loss sees at step `t`: a sample, or all the data, or None where there are none."""
    return data if problem.sample is None else problem.sample(key, t, data)


def initial_state(
    problem: Problem | Callable[..., Problem], factory: Any, hyperparameters: Hyperparameters, key: Key, arrays: Arrays
) -> State:
    """The state before step 0, cast once to the dtypes that the step map returns.

    Some optimizers (lars, cocob, schedule_free, lbfgs) return other dtypes than they start with, which a scan refuses.
    """
    judged, optimizer = resolve(problem, factory, hyperparameters)
    made = judged.init(key) if judged.init_is_function else _moved(judged.init, arrays.init)
    params, aux = made if judged.has_aux else (made, ())
    params = jax.tree.map(jnp.asarray, params)
    state = strong(State(params, aux, optimizer.init(params)))
    step = step_map(problem, factory)
    out, _ = jax.eval_shape(lambda state: step(state, hyperparameters, jnp.int32(0), key, arrays.data), state)
    return jax.tree.map(lambda x, like: jnp.asarray(x, like.dtype), state, out)


def _moved(init: PyTree, given: PyTree) -> PyTree:
    """The leaves of `given`, but of `init` where they depend on a traced hyperparameter."""
    return jax.tree.map(lambda made, array: made if isinstance(made, Tracer) else array, init, given)


def strong(tree: PyTree) -> PyTree:
    """Every leaf as an array without a weak type; weak types would compile a second program."""
    return jax.tree.map(lambda x: jax.lax.convert_element_type(x, jnp.asarray(x).dtype), tree)


def key_of(key: Any) -> Key:
    """`key` itself, or the key that an integer makes."""
    if isinstance(key, int | np.integer) and not isinstance(key, bool):
        return jax.random.key(key)
    if not isinstance(key, jax.Array):
        raise bad_type("key", key, "neither an integer nor a JAX key", "Pass an integer, or jax.random.key(0)")
    return key


def keys_of(key: int | Key) -> tuple[Key, Key]:
    """The key that initialises and the key that samples, from a run's key or the integer that seeds it."""
    init_key, sample_key = jax.random.split(key_of(key))
    return init_key, sample_key


# Lanes: one run with its record, which stays where it ended


class Lane(NamedTuple):
    """A run, and what has been observed of it."""

    state: State
    record: Record


def start_lane(
    problem: Any, factory: Any, watched: Sequence[Monitor], hyperparameters: Hyperparameters, key: Key, arrays: Arrays
) -> Lane:
    """The lane before step 0; `key` is the first that `keys_of` makes of the seed's."""
    state = initial_state(problem, factory, hyperparameters, key, arrays)
    return Lane(state, monitors.start_record(watched, state))


def lane_map(problem: Any, factory: Any, watched: Sequence[Monitor]) -> Callable[..., tuple[Lane, Array]]:
    """The step map with eyes: ``(lane, hyperparameters, t, key, data, limits, last) -> (lane, loss)``.

    A lane that has ended, or ends at this step, stays where it stands. With `last`, the loss is observed and no update
    is made. `key` is the second that `keys_of` makes of the seed's.
    """
    step, observe = step_map(problem, factory), observation(factory, watched)

    def advance(
        lane: Lane, hyperparameters: Hyperparameters, t: Array, key: Key, data: PyTree, limits: Limits, last: Array
    ) -> tuple[Lane, Array]:
        after, info = step(lane.state, hyperparameters, t, key, data)
        return observe(lane, after, info, hyperparameters, t, key, data, limits, last)

    return advance


def observation(factory: Any, watched: Sequence[Monitor]) -> Callable[..., tuple[Lane, Array]]:
    """What `lane_map` does after the step: ``(lane, after, info, hyperparameters, t, ..., last) -> (lane, loss)``."""

    def observe(
        lane: Lane,
        after: State,
        info: Info,
        hyperparameters: Hyperparameters,
        t: Array,
        key: Key,
        data: PyTree,
        limits: Limits,
        last: Array,
    ) -> tuple[Lane, Array]:
        going = lane.record.end_kind == EndKind.RUNNING
        record = monitors.end_of(lane.record, info.loss, t, limits, last)
        moves = record.end_kind == EndKind.RUNNING
        after = monitors.select(moves, after, lane.state)
        multiple = optimizers.multiple_of(factory, hyperparameters)
        context = Context(t, key, hyperparameters, data, moves, going, multiple)
        record = monitors.fold(watched, record, lane.state, after, info, context)
        return Lane(after, record), info.loss.astype(record.initial_loss.dtype)

    return observe


def evaluate(problem: Any, factory: Any, hyperparameters: Hyperparameters, state: State, arrays: Arrays) -> dict:
    """Loss and metrics on validation and test data, at the params where the optimizer is judged; a known optimum."""
    judged, optimizer = resolve(problem, factory, hyperparameters)
    params = optimizers.evaluation_params(state.opt_state, state.params)
    found = {}
    if judged.optimum is not None:
        sign = -1 if isinstance(optimizer, optimizers.Ascent) else 1
        found["optimum"] = jnp.asarray(sign * judged.optimum, dtype_of(params))
    for part, data in (("validation", arrays.validation), ("test", arrays.test)):
        if data is None:
            continue
        found[f"{part}_loss"], _ = objective(judged, optimizer, data, state.aux)(params)
        for name, metric in (judged.metrics or {}).items():
            found[f"{part}_{name}"] = metric(params, data)
    return found


# One run


class Trajectory(NamedTuple):
    """One run. With ``record_every=1`` there are ``steps + 1`` losses; loss t is the one before update t."""

    params: Params  # after the last update
    aux: PyTree
    opt_state: PyTree
    step: Array  # (points,) int32, the steps of `loss`
    loss: Array  # (points,), the last at the final params
    grad_norm: Array  # (points - 1,)
    update_norm: Array  # (points - 1,)
    statistics: dict[str, Array]  # what the monitors read, and the end
    params_history: Params | None = None  # (points, ...)
    grad_history: Params | None = None  # (points, ...)

    def _repr_html_(self) -> str | None:
        """A dozen of its points for notebooks; nothing of its own for a trajectory that is traced or of many runs."""
        if isinstance(self.loss, Tracer) or np.ndim(self.loss) != 1:
            return None
        last = len(self.loss) - 1
        shown = np.unique(np.concatenate([[0], np.geomspace(1, max(last, 1), 11)]).round().astype(int).clip(0, last))
        cell = lambda values, i: f"{float(values[i]):.4g}" if i < len(values) else ""
        columns = (self.loss, self.grad_norm, self.update_norm)
        rows = [(f"{int(self.step[i])}", *(cell(values, i) for values in columns)) for i in shown]
        return html.table(("step", "loss", "gradient norm", "update norm"), rows)


def descend(
    problem: Problem | Callable[..., Problem],
    optimizer: Any,
    steps: int,
    *,
    hyperparameters: Hyperparameters | None = None,
    key: int | Key = 0,
    data: PyTree = None,
    record_every: int = 1,
    record_params: bool = False,
    monitors: Sequence[Monitor] = (),
) -> Trajectory:
    """Run `steps` steps of gradient descent as one compiled scan.

    Pure, and differentiable forward and backward in the hyperparameters and the initial params, but for the
    statistics: they are observations, and their derivatives are zero. Given a factory and `hyperparameters`, one
    compiled program serves all their float values.

    Args:
      problem: a Problem, or a factory of one whose hyperparameters are named ``problem.NAME``.
      optimizer: an optimizer, or a factory of one.
      steps: how many updates.
      hyperparameters: name to value, for the factories.
      key: the seed's key, or the integer that makes it; decides the start and the batches.
      data: data in place of the problem's.
      record_every: record each n-th step, and the last.
      record_params: record params and gradients too.
      monitors: further statistics.

    Returns:
      A Trajectory: losses, norms, the last params and optimizer state, the statistics of the monitors (those that
      `gdkit.classify` reads among them), and the params and gradients on the way where they were asked for.

    Raises:
      InputValueError, InputTypeError: an argument cannot be used; the message says which, and what to do.

    >>> from gdkit import problems
    >>> run = descend(problems.parabola(), optimizers.sgd, 10, hyperparameters={"learning_rate": 0.2})
    >>> [round(float(loss), 4) for loss in run.loss[:3]]
    [9.0, 3.24, 1.1664]
    """
    for argument, value in (("steps", steps), ("record_every", record_every)):
        check_positive(argument, value)
    chosen = dict(hyperparameters or {})
    check_hyperparameters(problem, optimizer, chosen)
    arrays, static, traced = bind(problem, optimizer, chosen)
    if data is not None:
        arrays = arrays._replace(data=data)
    key = key_of(key)
    check_run(problem, optimizer, chosen, key, arrays)
    run = _descend if is_hashable(problem, optimizer, static, tuple(monitors)) else _one_run
    return run(problem, optimizer, static, steps, record_every, record_params, tuple(monitors), traced, key, arrays)


def _one_run(
    problem: Any,
    optimizer: Any,
    static: tuple[tuple[str, Any], ...],
    steps: int,
    record_every: int,
    record_params: bool,
    watched: tuple[Monitor, ...],
    traced: dict[str, Array],
    key: Key,
    arrays: Arrays,
) -> Trajectory:
    hyperparameters = dict(static) | traced
    watched = monitors.DEFAULT + watched
    init_key, sample_key = keys_of(key)
    step, limits = step_map(problem, optimizer), Limits()
    start = initial_state(problem, optimizer, hyperparameters, init_key, arrays)
    multiple = jax.lax.stop_gradient(optimizers.multiple_of(optimizer, hyperparameters))
    record = monitors.start_record(watched, start)

    def observe(record: Record, before: State, after: State, info: Info, t: Array, last: bool) -> Record:
        going = record.end_kind == EndKind.RUNNING
        record, before, after, info = jax.lax.stop_gradient((record, before, after, info))
        starts = monitors.starts_window(t)
        record = jax.lax.cond(starts, lambda r: monitors.roll(watched, r, before), lambda r: r, record)
        record = monitors.end_of(record, info.loss, t, limits, jnp.bool_(last))
        moves = record.end_kind == EndKind.RUNNING
        context = Context(t, sample_key, hyperparameters, arrays.data, moves, going, multiple)
        return monitors.fold(watched, record, before, after, info, context)

    def body(carry: tuple[State, Record, PyTree], t: Array) -> tuple[tuple[State, Record, PyTree], tuple]:
        before, record, history = carry
        after, info = step(before, hyperparameters, t, sample_key, arrays.data)
        if record_params:
            history = _write(history, (before.params, info.grad), t, record_every)
        norms = monitors.norm(info.grad), monitors.norm(info.update)
        return (after, observe(record, before, after, info, t, False), history), (info.loss, *norms)

    at = np.append(np.arange(0, steps, record_every), steps).astype(np.int32)
    history = _blank((start.params, start.params), len(at)) if record_params else (None, None)
    carry, (losses, grads, updates) = jax.lax.scan(body, (start, record, history), jnp.arange(steps, dtype=jnp.int32))
    end, record, history = carry
    last = jnp.int32(steps)
    _, info = step(end, hyperparameters, last, sample_key, arrays.data)
    info = info._replace(update=jax.tree.map(jnp.zeros_like, info.update))
    record = observe(record, end, end, info, last, True)
    if record_params:
        history = _write(history, (end.params, info.grad), jnp.int32((len(at) - 1) * record_every), record_every)
    statistics = monitors.read(watched, record) | {"stochastic": jnp.bool_(is_stochastic(problem, hyperparameters))}
    return Trajectory(
        *end,
        step=jnp.asarray(at),
        loss=jnp.append(losses[at[:-1]], info.loss),
        grad_norm=grads[at[:-1]],
        update_norm=updates[at[:-1]],
        statistics=statistics,
        params_history=history[0],
        grad_history=history[1],
    )


_descend = jax.jit(_one_run, static_argnums=range(7))


def _blank(tree: PyTree, points: int) -> PyTree:
    return jax.tree.map(lambda x: jnp.zeros((points, *x.shape), x.dtype), tree)


def _write(history: PyTree, value: PyTree, t: Array, every: int) -> PyTree:
    """`value` in the slot of the next recorded step; the value of that step itself is written last."""
    slot = -(-t // every)
    return jax.tree.map(lambda h, v: jax.lax.dynamic_update_index_in_dim(h, v, slot, 0), history, value)


# The border: what bad input gets, and values as arrays of one dtype


def bind(
    problem: Any, optimizer: Any, hyperparameters: Mapping[str, Any]
) -> tuple[Arrays, tuple[tuple[str, Any], ...], dict[str, Array]]:
    """The arrays of the problem, the static hyperparameters, and the traced ones as strong arrays of its dtype."""
    static, traced = {}, {}
    for name, value in hyperparameters.items():
        factory = problem if name.startswith(factories.PROBLEM_PREFIX) else optimizer
        short = name.removeprefix(factories.PROBLEM_PREFIX)
        (traced if factories.is_traced(factory, short, [value]) else static)[name] = value
    concrete, _ = resolve_problem(problem, hyperparameters)
    dtype = params_dtype(concrete)
    traced = {name: jnp.asarray(value, dtype) for name, value in traced.items()}
    return arrays_of(concrete), tuple((n, factories.hashable(v)) for n, v in sorted(static.items())), traced


def resolve_problem(problem: Any, hyperparameters: Hyperparameters) -> tuple[Problem, dict[str, Any]]:
    """The concrete problem, and the hyperparameters that are the optimizer's."""
    of_optimizer, of_problem = factories.split_hyperparameters(hyperparameters)
    if isinstance(problem, Problem):
        return problem, of_optimizer
    made = factories.call("problem", problem, of_problem)
    if not isinstance(made, Problem):
        raise bad_type("problem", made, "the factory returned no Problem", "Return gdkit.Problem(loss, init, ...)")
    return made, of_optimizer


def is_stochastic(problem: Any, hyperparameters: Hyperparameters) -> bool:
    """Whether the loss is that of a sample."""
    return resolve_problem(problem, hyperparameters)[0].sample is not None


def params_dtype(problem: Problem) -> Any:
    """The dtype of a run: that of the params."""
    return dtype_of(params_shape(problem))


def params_shape(problem: Problem) -> Params:
    """The params as shapes and dtypes."""
    made = jax.eval_shape(problem.init, _abstract_key()) if problem.init_is_function else problem.init
    params = _with_aux(made)[0] if problem.has_aux else made
    check_params(params)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x)), params)


@functools.cache
def _abstract_key() -> Any:
    return jax.eval_shape(jax.random.key, 0)


def dtype_of(params: Params) -> Any:
    """The dtype that the leaves of `params` promote to, canonical."""
    return jax.dtypes.canonicalize_dtype(jnp.result_type(*jax.tree.leaves(params)))


def _loss_arguments(problem: Problem) -> tuple[str, ...]:
    if problem.has_aux:
        return ("params", "batch", "aux")
    return ("params",) if problem.data is None else ("params", "batch")


def _check_call(argument: str, function: Callable, names: tuple[str, ...]) -> None:
    try:
        inspect.signature(function).bind(*names)
    except TypeError as error:
        form = f"{argument}({', '.join(names)})"
        remedy = "Give it these arguments; a loss takes a batch where the Problem has data, and aux with has_aux"
        raise bad_type(argument, function, f"it cannot be called as {form} ({error})", remedy) from error
    except ValueError:
        pass  # a builtin without a signature


def _with_aux(made: Any) -> tuple[Params, PyTree]:
    if not isinstance(made, tuple) or len(made) != 2:
        raise bad_type("init", made, "has_aux wants params and aux", "Return (params, aux) from init(key)")
    return made


def check_params(params: Params) -> None:
    """Raise for params without leaves, or with leaves that are not float."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    if not leaves:
        raise bad_value("init", params, "the params have no leaves", "Return a pytree of float arrays")
    for path, leaf in leaves:
        where = "params" + jax.tree_util.keystr(path)
        if not hasattr(leaf, "dtype") and not isinstance(leaf, int | float | complex):
            raise bad_type(where, leaf, "not an array", "Keep in params only float arrays; use closures for the rest")
        dtype = jnp.result_type(leaf)
        if not jnp.issubdtype(dtype, jnp.floating):
            raise bad_type(where, leaf, f"its dtype is {dtype}, which has no gradient", "Make it float, e.g. 3.0 for 3")


def check_hyperparameters(problem: Any, optimizer: Any, names: Sequence[str] | Mapping[str, Any]) -> None:
    """Raise for names that the factories do not take."""
    of_optimizer, of_problem = factories.split_hyperparameters(dict.fromkeys(names))
    if of_problem and isinstance(problem, Problem):
        name = factories.PROBLEM_PREFIX + next(iter(of_problem))
        remedy = "Pass a factory, for example gdkit.problems.quadratic, not a finished Problem"
        raise bad_value("hyperparameters", name, "a finished Problem takes no hyperparameters", remedy)
    if not isinstance(problem, Problem) and not callable(problem):
        raise bad_type("problem", problem, "neither a Problem nor a factory of one", "Pass gdkit.Problem(loss, init)")
    if optimizers.is_optimizer(optimizer):
        optimizers.build(optimizer, of_optimizer)
    elif callable(optimizer):
        factories.check_names("hyperparameters", optimizer, of_optimizer)
    else:
        raise bad_type("optimizer", optimizer, "neither an optimizer nor a factory", "Pass for example optax.adam")
    if not isinstance(problem, Problem):
        factories.check_names("hyperparameters", problem, of_problem)


def check_positive(argument: str, value: Any) -> None:
    """Raise unless `value` is an integer of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise bad_type(argument, value, "not an integer", "Pass a whole number of at least 1")
    if value < 1:
        raise bad_value(argument, value, "must be at least 1", "Pass a whole number of at least 1")


def check_run(problem: Any, optimizer: Any, hyperparameters: Hyperparameters, key: Key, arrays: Arrays) -> Any:
    """The loss as a program; raises if it is not a float scalar, is constant, or its batch changes shape."""
    concrete, of_optimizer = resolve_problem(problem, hyperparameters)
    jaxpr, out, leaves = _traced_loss(concrete, optimizers.build(optimizer, of_optimizer), key, arrays)
    shape, dtype = getattr(out, "shape", None), getattr(out, "dtype", None)
    if shape != ():
        raise bad_type("loss", shape or type(out).__name__, "not a scalar", "Reduce it, for example with jnp.mean")
    if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
        raise bad_type(
            "loss", dtype, "not a float", "Return a float scalar; integers and complex numbers have no slope"
        )
    if not any(depends_on(jaxpr.jaxpr)[:leaves]):
        remedy = "Use the params in it; an array made of them before the call is a constant"
        raise bad_value("loss", concrete.name or concrete.loss, "it does not depend on the params", remedy)
    return jaxpr.jaxpr


def _traced_loss(problem: Problem, optimizer: Any, key: Key, arrays: Arrays) -> tuple[Any, Any, int]:
    """The loss as a program of params, batch and aux; the shape it returns; and the number of leaves of the params."""
    made = jax.eval_shape(problem.init, key) if problem.init_is_function else arrays.init
    params, aux = _with_aux(made) if problem.has_aux else (made, ())
    check_params(params)
    _check_call("loss", problem.loss, _loss_arguments(problem))
    batch = check_batch(problem, key, arrays.data)

    def loss(params: Params, batch: PyTree, aux: PyTree) -> Array:  # a new function: JAX remembers those it traced
        return objective(problem, optimizer, batch, aux)(params)[0]

    jaxpr, out = jax.make_jaxpr(loss, return_shape=True)(params, batch, aux)
    return jaxpr, out, len(jax.tree.leaves(params))


def check_batch(problem: Problem, key: Key, data: PyTree) -> PyTree:
    """Shapes of a batch; raise if they change with the step."""
    if problem.sample is None:
        return data
    _check_call("sample", problem.sample, ("key", "t", "data"))
    first, second = (jax.eval_shape(problem.sample, key, np.int32(t), data) for t in (0, 1))
    if jax.tree.map(lambda x: x.shape, first) != jax.tree.map(lambda x: x.shape, second):
        remedy = "Return batches of one shape at every step"
        raise bad_value("sample", problem.sample, "the batch's shape changes with the step", remedy)
    return first


def depends_on(jaxpr: Any) -> list[bool]:
    """For each input of a program, whether an output can depend on it; a call counts as using all it is given."""
    needed = {v for v in jaxpr.outvars if not isinstance(v, Literal)}
    for equation in reversed(jaxpr.eqns):
        if any(v in needed for v in equation.outvars):
            needed.update(v for v in equation.invars if not isinstance(v, Literal))
    return [v in needed for v in jaxpr.invars]


def is_used(problem: Any, factory: Any, point: dict[str, Any], name: str, key: Key, arrays: Arrays) -> bool:
    """Whether the start or the step map depends on the traced hyperparameter `name` of `point`."""
    step = step_map(problem, factory)

    def two_steps(value: Array) -> State:
        state = initial_state(problem, factory, point | {name: value}, key, arrays)
        return step(state, point | {name: value}, jnp.int32(1), key, arrays.data)[0]

    return any(depends_on(jax.make_jaxpr(two_steps)(1.0).jaxpr))


def is_impure(problem: Problem, key: Key) -> bool:
    """Whether two traces of the loss hold different constants, as they do when it draws numbers outside JAX."""

    def constants() -> list:
        closed, _, _ = _traced_loss(problem, None, key, arrays_of(problem))
        return [np.asarray(c) for c in (*closed.consts, *_literals(closed.jaxpr))]

    first, second = constants(), constants()
    return len(first) != len(second) or not all(map(_same, first, second))


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and bool(np.array_equal(a, b, equal_nan=np.issubdtype(a.dtype, np.inexact)))


def _literals(jaxpr: Any) -> list:
    """The numbers written into a program, those of its inner programs too."""
    return [v.val for equation in _equations(jaxpr) for v in equation.invars if isinstance(v, Literal)]


def has_convolutions(jaxpr: Any) -> bool:
    """Whether a program convolves."""
    return any(equation.primitive.name == "conv_general_dilated" for equation in _equations(jaxpr))


def _equations(jaxpr: Any) -> list:
    """The operations of a program and of its inner programs."""
    found = []
    for equation in jaxpr.eqns:
        found.append(equation)
        for inner in jax.tree.leaves(equation.params, is_leaf=lambda p: hasattr(p, "eqns") or hasattr(p, "jaxpr")):
            inner = getattr(inner, "jaxpr", inner)
            found += _equations(inner) if hasattr(inner, "eqns") else []
    return found


def is_hashable(*values: Any) -> bool:
    """Whether all values can be part of the key of a program."""
    try:
        hash(values)
    except TypeError:
        return False
    return True


# The table of the lesson


class TrainingRow(NamedTuple):
    """One line of a training table."""

    step: int
    params: Any
    loss: float
    gradient: Any
    predicted: float  # the decrease that the slope predicted: −⟨gradient, update⟩
    actual: float  # the decrease that happened


class TrainingTable(tuple[TrainingRow, ...]):
    """The rows of a short run; prints as Step | params | loss | gradient | predicted | actual."""

    def __str__(self) -> str:
        head = f"{'Step':>4} | {'params':>10} | {'loss':>10} | {'gradient':>10} | {'predicted':>10} | {'actual':>10}"
        return "\n".join([head, "-" * len(head), *(_format_row(row).rstrip() for row in self)])

    _repr_html_ = html.printed


def training_table(
    problem: Problem, optimizer: Any, steps: int, *, hyperparameters: Hyperparameters | None = None, key: int | Key = 0
) -> TrainingTable:
    """Step by step: params, loss, gradient, and the decrease that the slope predicted against what happened.

    >>> from gdkit import problems
    >>> print(training_table(problems.parabola(), optimizers.sgd(0.2), 2))
    Step |     params |       loss |   gradient |  predicted |     actual
    ---------------------------------------------------------------------
       0 |     0.0000 |     9.0000 |    -6.0000 |     7.2000 |     5.7600
       1 |     1.2000 |     3.2400 |    -3.6000 |     2.5920 |     2.0736
       2 |     1.9200 |     1.1664 |    -2.1600 |            |
    """
    run = descend(problem, optimizer, steps, hyperparameters=hyperparameters, key=key, record_params=True)
    at = lambda tree, t: jax.tree.map(lambda x: np.asarray(x[t]), tree)
    rows = []
    for t in range(steps + 1):
        params, gradient = at(run.params_history, t), at(run.grad_history, t)
        predicted = actual = float("nan")
        if t < steps:
            move = jax.tree.map(np.subtract, at(run.params_history, t + 1), params)
            predicted = -float(np.asarray(optax.tree.vdot(gradient, move)))
            actual = float(run.loss[t] - run.loss[t + 1])
        rows.append(TrainingRow(t, params, float(run.loss[t]), gradient, predicted, actual))
    return TrainingTable(rows)


def _format_row(row: TrainingRow) -> str:
    cells = (_format(row.params), _format(row.loss), _format(row.gradient), _format(row.predicted), _format(row.actual))
    return f"{row.step:>4} | " + " | ".join(f"{c:>10}" for c in cells)


def _format(value: Any) -> str:
    """A number, a short vector, or the norm of anything larger."""
    flat = np.concatenate([np.ravel(x) for x in jax.tree.leaves(value)])
    if flat.size == 1:
        return "" if np.isnan(flat[0]) else f"{flat[0]:.4f}"
    if flat.size <= 3:
        return "(" + ", ".join(f"{x:.4g}" for x in flat) + ")"
    return f"|.|={np.linalg.norm(flat):.4g}"
