"""The step map, and one run of it."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer

from gdkit import (
    binding,
    checks,
    evaluation,
    gates,
    held_out,
    html,
    jaxprs,
    monitors,
    names,
    optimizers,
    starts,
    user_code,
)
from gdkit.binding import Arrays
from gdkit.errors import bad_type, bad_value
from gdkit.factories import cache_if_hashable
from gdkit.monitors import EndKind, Limits, Record
from gdkit.optimizers import states
from gdkit.problems import Learner, Problem, ProblemLike
from gdkit.problems import learner as learners
from gdkit.tables import format_number
from gdkit.types import (
    Array,
    Context,
    Hyperparameters,
    Info,
    Key,
    Monitor,
    Optimizer,
    OptimizerLike,
    Params,
    PyTree,
    State,
    StaticHyperparameters,
)

Step = Callable[[State, Hyperparameters, Array, Key, PyTree], tuple[State, Info]]


def step_map(problem: ProblemLike, optimizer: OptimizerLike | None) -> Step:
    """One step of an optimizer on a problem, as a map: ``(state, hyperparameters, t, key, data) -> (state, info)``.

    Args:
      problem: a Problem, or a factory of one, whose hyperparameters are then named ``problem.NAME``; or a Learner,
        whose states are those of its `init`.
      optimizer: an optimizer factory, or a finished optimizer; None for a Learner.

    Returns:
      A pure function. `info` holds the loss and the gradient at the params before the update, and the update.

    >>> from gdkit import problems
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
    params = optax.apply_updates(state.params, update)
    return State(params, aux, opt_state), Info(value, grad, update, logs)


def withholds_updates(
    problem: ProblemLike, optimizer: OptimizerLike, hyperparameters: Hyperparameters, state: State
) -> bool:
    """Whether the optimizer may give zero in place of an update, or tests whether gradients are finite.

    Gradient accumulation and transforms that skip what is not finite do; found by tracing its update.
    """
    _, built = binding.resolve(problem, optimizer, hyperparameters)
    if isinstance(built, optimizers.Plain):
        return False

    def update(grad: Params, value: Array, state: State) -> Params:
        given = {"value": value, "value_fn": lambda params: value}
        return states.update(built, grad, state.opt_state, state.params, **given)[0]

    value = jax.ShapeDtypeStruct((), monitors.statistics_dtype(state.params))
    traced = jax.make_jaxpr(update)(state.params, value, state).jaxpr
    leaves = jax.tree.leaves(state.params)
    return gates.has_gates(traced, {jnp.shape(leaf) for leaf in leaves}, range(len(leaves) + 1))


def initial_state(
    problem: ProblemLike, optimizer: OptimizerLike, hyperparameters: Hyperparameters, key: Key, arrays: Arrays
) -> State:
    """The state before step 0, cast once to the dtypes that the step map returns.

    Some optimizers (lars, cocob, schedule_free, lbfgs) return other dtypes than they start with, which a scan refuses.
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
    params = starts.fit("start.params", given.params, params)
    aux = aux if given.aux is None else starts.fit("start.aux", given.aux, aux, same_precision=False)
    opt_state = states.start(built, params)
    if given.opt_state is None:
        return State(params, aux, opt_state)
    fitted = starts.fit("start.opt_state", given.opt_state, opt_state, same_precision=False)
    leaves = zip(jax.tree.leaves(fitted), jax.tree.leaves(opt_state), strict=True)
    own = _find_hyperparameters(problem, optimizer, hyperparameters, params)
    chosen = [old if is_own else new for (new, old), is_own in zip(leaves, own, strict=True)]
    return State(params, aux, jax.tree.unflatten(jax.tree.structure(opt_state), chosen))


def _continue_learner(state: State, given: State) -> State:
    """The state of a lane with the numbers of `given`, the state of a learner; what is None in it stays as it is."""
    own = learners.join_state(state)
    if isinstance(own, State):
        pairs = zip(State._fields, given, own, strict=True)
        own = State(*(old if part is None else starts.fit(f"start.{name}", part, old) for name, part, old in pairs))
    else:
        own = starts.fit("start", given.params, own)
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


def strip_weak_types(tree: PyTree) -> PyTree:
    """Make every leaf an array without a weak type, which would compile a second program."""
    return jax.tree.map(lambda x: jax.lax.convert_element_type(x, jnp.asarray(x).dtype), tree)


def split_key(key: int | Key) -> tuple[Key, Key]:
    """The key that initializes and the key that samples, from a run's key or the integer that seeds it."""
    init_key, sample_key = jax.random.split(checks.as_key(key))
    return init_key, sample_key


# The observed step: a run with its record


class Lane(NamedTuple):
    """A run and the record of its observations; after its end it stays as it is."""

    state: State
    record: Record


class StepInputs(NamedTuple):
    """The inputs of a step besides the state."""

    hyperparameters: Hyperparameters
    t: Array  # () int32, the step
    key: Key  # the key that samples, from `split_key`
    data: PyTree


def start_lane(
    problem: ProblemLike,
    optimizer: OptimizerLike,
    watched: Sequence[Monitor],
    hyperparameters: Hyperparameters,
    key: Key,
    arrays: Arrays,
) -> Lane:
    """The lane before step 0; `key` is the key that initializes, from `split_key`."""
    state = initial_state(problem, optimizer, hyperparameters, key, arrays)
    is_gated = withholds_updates(problem, optimizer, hyperparameters, state)
    return Lane(state, monitors.start_record(watched, state, is_gated=is_gated))


def observed_step(
    problem: ProblemLike, optimizer: OptimizerLike, watched: Sequence[Monitor]
) -> Callable[[Lane, StepInputs, Limits, Array], tuple[Lane, Array]]:
    """The step map with its observation: ``(lane, inputs, limits, last) -> (lane, loss)``.

    With `last` the loss is observed and no update is made.
    """
    step = lane_step(problem, optimizer)

    def advance(lane: Lane, inputs: StepInputs, limits: Limits, last: Array) -> tuple[Lane, Array]:
        lane = roll_windows(watched, lane, inputs.t)
        after, info = step(lane.state, *inputs)
        return observe(watched, optimizer, lane, after, info, inputs, limits, last)

    return advance


def roll_windows(watched: Sequence[Monitor], lane: Lane, t: Array, *, batch_dimensions: int = 0) -> Lane:
    """The lane, or a batch of them, with the windows of its monitors moved up by one if a window starts at step `t`."""
    roll = lambda lane: monitors.roll(watched, lane.record, lane.state)
    for _ in range(batch_dimensions):
        roll = jax.vmap(roll)
    record = jax.lax.cond(monitors.starts_window(t), roll, lambda lane: lane.record, lane)
    return lane._replace(record=record)


def observe(
    watched: Sequence[Monitor],
    optimizer: OptimizerLike,
    lane: Lane,
    after: State,
    info: Info,
    inputs: StepInputs,
    limits: Limits,
    last: Array,
) -> tuple[Lane, Array]:
    """The lane after a step to `after`, and the loss; a lane that has ended, or ends at this step, keeps its state."""
    hyperparameters, t, key, data = inputs
    going = lane.record.end_kind == EndKind.RUNNING
    record = monitors.end_record(lane.record, info, t, limits, last)
    moves = record.end_kind == EndKind.RUNNING
    after = monitors.select(moves, after, lane.state)
    context = Context(t, key, hyperparameters, data, moves, going)
    if any(monitor.stop for monitor in watched):
        record = monitors.apply_stops(watched, optimizer, record, lane.state, after, info, context)
        moves = record.end_kind == EndKind.RUNNING
        after, context = monitors.select(moves, after, lane.state), context._replace(moves=moves)
    record = monitors.fold(watched, optimizer, record, lane.state, after, info, context)
    return Lane(after, record), info.loss.astype(record.initial_loss.dtype)


# One run


class Trajectory(NamedTuple):
    """One run. With ``record_every=1`` there are ``steps + 1`` losses; loss t is the one before update t."""

    params: Params  # after the last update; of a Learner, its whole state, while aux and opt_state are None
    aux: PyTree
    opt_state: PyTree
    step: Array  # (points,) int32, the steps of `loss`
    loss: Array  # (points,), the last at the final params
    grad_norm: Array  # (points - 1,)
    update_norm: Array  # (points - 1,)
    statistics: dict[str, Array]  # what the monitors read, and the end
    params_history: Params | None = None  # (points, ...)
    grad_history: Params | None = None  # (points, ...)
    logs: dict[str, Array] | None = None  # name -> (points,), of a loss with `has_logs`
    evaluation_step: Array | None = None  # (evaluations,) int32, updates made; None without `evaluate_every`
    evaluations: dict[str, Array] | None = None  # name -> (evaluations,), the values on validation data

    @property
    def state(self) -> State:
        """The state after the last update, from which `descend` continues by ``start=``."""
        is_of_learner = self.aux is None and self.opt_state is None
        return self.params if is_of_learner else State(self.params, self.aux, self.opt_state)

    def _repr_html_(self) -> str | None:
        """A table of about 12 points for notebooks; None for a trajectory that is traced, or of many runs."""
        if isinstance(self.loss, Tracer) or np.ndim(self.loss) != 1:
            return None
        last = len(self.loss) - 1
        shown = np.unique(np.concatenate([[0], np.geomspace(1, max(last, 1), 11)]).round().astype(int).clip(0, last))
        cell = lambda values, i: format_number(values[i]) if i < len(values) else ""
        columns = (self.loss, self.grad_norm, self.update_norm)
        rows = [(f"{int(self.step[i])}", *(cell(values, i) for values in columns)) for i in shown]
        return html.table(("step", "loss", "gradient norm", "update norm"), rows)


def descend(
    problem: ProblemLike,
    optimizer: OptimizerLike | None,
    steps: int,
    *,
    hyperparameters: Hyperparameters | None = None,
    key: int | Key = 0,
    start: State | PyTree = None,
    data: PyTree = None,
    seed: int | None = None,
    record_every: int = 1,
    record_params: bool = False,
    monitors: Sequence[Monitor] = (),
    evaluate_every: int | None = None,
) -> Trajectory:
    """Run `steps` steps of gradient descent as one compiled scan.

    Pure, and differentiable forward and backward in the hyperparameters and the initial params. The statistics are
    observations, whose derivatives are zero. Given a factory and `hyperparameters`, one
    compiled program serves all their float values.

    Args:
      problem: a Problem, or a factory of one whose hyperparameters are named ``problem.NAME``; or a Learner.
      optimizer: an optimizer, or a factory of one; None for a Learner.
      steps: the number of updates.
      hyperparameters: name to value, for the factories.
      key: the seed's key, or the integer that makes it; decides the start and the batches.
      start: a `State` to continue from, or params alone, in place of those of `Problem.init`. Without optimizer state
        or aux (None) they are initialized as usual. Steps are counted from 0 again, so that batches of `Problem.sample`
        repeat, while counts in the optimizer state, and so its schedules, continue; numbers in it that are
        hyperparameters are those of this run.
      data: data in place of the problem's.
      seed: the seed for which `Problem.batches` is read, where `key` is not an integer. The batches of the whole run
        are read first, unlike in sweeps.
      record_every: record each n-th step, and the last.
      record_params: record params and gradients too.
      monitors: further statistics.
      evaluate_every: evaluate the validation data after every n-th update, and after the last.

    Returns:
      A Trajectory: losses, norms, the last params and optimizer state, the statistics of the monitors (among them those
      that `gdkit.classify` reads), and with `record_params` the params and gradients at the recorded steps.

    Raises:
      InputValueError, InputTypeError: an argument cannot be used; the message names it and the remedy.

    >>> from gdkit import problems
    >>> run = descend(problems.parabola(), optimizers.sgd, 10, hyperparameters={"learning_rate": 0.2})
    >>> [round(float(loss), 4) for loss in run.loss[:3]]
    [9.0, 3.24, 1.1664]
    """
    for argument, value in (
        ("steps", steps),
        ("record_every", record_every),
        ("evaluate_every", 1 if evaluate_every is None else evaluate_every),
    ):
        checks.check_integer(argument, value)
    chosen, optimizer = dict(hyperparameters or {}), learners.choose_optimizer(problem, optimizer)
    arrays, static, traced = binding.bind(problem, optimizer, chosen, reads_batches=True)
    if data is not None:
        arrays = arrays._replace(data=data)
    else:
        arrays = _read_batches(problem, chosen, arrays, key if seed is None else seed, steps)
    key = checks.as_key(key)
    binding.check_run(problem, optimizer, chosen, key, arrays)
    if evaluate_every is not None:
        evaluation.check_evaluate_every(evaluate_every, binding.resolve_problem(problem, chosen)[0])
    if start is not None:
        arrays = arrays._replace(start=starts.as_state(start))
    make_start = functools.partial(raw_initial_state, problem, optimizer, chosen, key, arrays)
    if start is not None:
        jax.eval_shape(make_start)  # checks its leaves, before JAX casts them to the precision of the run
    names.check_monitor_names(monitors, names.built_in_names() - {"curve_loss"} if monitors else (), make_start)
    check_observers(problem, optimizer, chosen, key, arrays, tuple(monitors), evaluate_every)
    run = _compile_run(problem, optimizer, static, steps, record_every, record_params, tuple(monitors), evaluate_every)
    with user_code.translate_errors("problem", problem), held_out.raise_source_errors():
        trajectory = run(traced, key, arrays)
        first = (trajectory.loss,) if isinstance(problem, Learner) else (trajectory.loss, trajectory.grad_norm)
        is_traced = any(isinstance(x, Tracer) for x in first)
        is_finite = is_traced or all(np.isfinite(np.asarray(x)[0]) for x in first)  # waits for the run
    if not is_finite:
        check_first_step(problem, optimizer, chosen, key, arrays)
    return trajectory


def _read_batches(problem: ProblemLike, chosen: Hyperparameters, arrays: Arrays, seed: Any, steps: int) -> Arrays:
    """`arrays` with the batches of a whole run, where the problem has its data on the host."""
    source = binding.resolve_problem(problem, chosen)[0].source
    if source is None:
        return arrays
    if not isinstance(seed, int | np.integer):
        remedy = "Pass the seed for which batches are read as seed=, or an integer key"
        raise bad_type("key", seed, "batches are read for a seed, which a key does not tell", remedy)
    size = (steps + 1) * sum(x.nbytes for x in jax.tree.leaves(source.first))
    if size > _MAX_BATCH_BYTES:
        remedy = "Use gdkit.sweep, which reads them along the run"
        raise bad_value("steps", steps, f"the batches of the run take {size / 2**30:.1f} GiB at once", remedy)
    return arrays._replace(data=source.read_window(int(seed), 0, 0, steps + 1, steps + 1))


def check_observers(
    problem: ProblemLike,
    optimizer: OptimizerLike,
    chosen: Hyperparameters,
    key: Key,
    arrays: Arrays,
    watched: tuple[Monitor, ...],
    evaluate_every: int | None,
) -> None:
    """Raise unless the monitors that observe evaluations can use what is evaluated along the run."""

    def observe() -> Record:
        lane, t = start_lane(problem, optimizer, watched, chosen, key, arrays), jnp.int32(0)
        values = evaluation.evaluate_along(problem, optimizer, chosen, lane.state, arrays, t, key)
        return evaluation.observe_evaluation(problem, watched, chosen, lane.state, lane.record, values, t)

    evaluation.check_observers(watched, evaluate_every, observe)


_MAX_BATCH_BYTES = 2**31  # that `descend` reads


@cache_if_hashable(maxsize=128)
def _compile_run(*settings: Any) -> Callable[[dict[str, Array], Key, Arrays], Trajectory]:
    """One run as a compiled program of its traced hyperparameters, key and arrays."""
    return jax.jit(functools.partial(_run, *settings))


def _run(
    problem: ProblemLike,
    optimizer: OptimizerLike,
    static: StaticHyperparameters,
    steps: int,
    record_every: int,
    record_params: bool,
    watched: tuple[Monitor, ...],
    evaluate_every: int | None,
    traced: dict[str, Array],
    key: Key,
    arrays: Arrays,
) -> Trajectory:
    hyperparameters = dict(static) | traced
    init_key, sample_key = split_key(key)
    has_gradient, is_stochastic = binding.describe_steps(problem, hyperparameters, sample_key, arrays)
    watched = monitors.built_in("all", has_gradient=has_gradient) + watched
    start, record = start_lane(problem, optimizer, watched, hyperparameters, init_key, arrays)
    inputs = lambda t: StepInputs(hyperparameters, t, sample_key, arrays.data)
    move = _differentiable_step(problem, optimizer, watched)
    evaluated_at = evaluation.select_steps(evaluate_every, steps)
    evaluate = lambda state, t: evaluation.evaluate_along(
        problem, optimizer, hyperparameters, state, arrays, jnp.int32(t), sample_key
    )
    observes = evaluation.observes_evaluations(watched)

    def observe_evaluation(state: State, record: Record, t: Array) -> tuple[dict[str, Array], Record]:
        values = evaluate(state, t)
        seen = jax.lax.stop_gradient((state, record, values, t))
        return values, evaluation.observe_evaluation(problem, watched, hyperparameters, *seen) if observes else record

    def evaluate_if_due(state: State, record: Record, t: Array) -> tuple[dict[str, Array], Record]:
        if evaluate_every is None or len(evaluated_at) < 2:
            return {}, record
        shapes = jax.eval_shape(evaluate, state, t)
        skip = lambda state, record, t: (jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes), record)
        return jax.lax.cond(t % evaluate_every == 0, observe_evaluation, skip, state, record, t)

    def body(carry: tuple[State, Record, PyTree], t: Array) -> tuple[tuple[State, Record, PyTree], tuple[Any, ...]]:
        before, record, history = carry
        after, record, info = move(before, record, inputs(t), last=False)
        if record_params:
            history = _write(history, (before.params, info.grad), t, record_every)
        curves = info.loss, info.logs, monitors.norm(info.grad), monitors.norm(info.update)
        evaluated, record = evaluate_if_due(after, record, t + 1)
        return (after, record, history), (curves, evaluated)

    at = np.append(np.arange(0, steps, record_every), steps).astype(np.int32)
    history = _allocate((start.params, start.params), len(at)) if record_params else (None, None)
    carry = start, record, history
    (end, record, history), (curves, evaluated) = jax.lax.scan(body, carry, jnp.arange(steps, dtype=jnp.int32))
    losses, logs, grads, updates = jax.tree.map(lambda curve: curve[at[:-1]], curves)
    _, record, info = move(end, record, inputs(jnp.int32(steps)), last=True)
    if record_params:
        history = _write(history, (end.params, info.grad), jnp.int32((len(at) - 1) * record_every), record_every)
    statistics = monitors.read(watched, record) | {"stochastic": jnp.bool_(is_stochastic)}
    losses, logs = jax.tree.map(jnp.append, (losses, logs), (info.loss, info.logs))
    own = learners.own_state(problem, end)
    parts = own if isinstance(own, State) else State(own, None, None)
    trajectory = Trajectory(*parts, jnp.asarray(at), losses, grads, updates, statistics, *history, logs or None)
    if not evaluate_every:
        return trajectory
    along = lambda name, last: jnp.append(evaluated[name][evaluated_at[:-1] - 1] if evaluated else jnp.zeros(0), last)
    evaluations = {name: along(name, last) for name, last in evaluate(end, steps).items()}
    return trajectory._replace(evaluation_step=jnp.asarray(evaluated_at), evaluations=evaluations)


def _differentiable_step(
    problem: ProblemLike, optimizer: OptimizerLike, watched: Sequence[Monitor]
) -> Callable[..., tuple[State, Record, Info]]:
    """`observed_step` without derivatives of the record; the state moves on after the end of a run, unless stopped."""
    step = lane_step(problem, optimizer)
    has_stop = any(monitor.stop for monitor in watched)

    def move(before: State, record: Record, inputs: StepInputs, last: bool) -> tuple[State, Record, Info]:
        after, info = step(before, *inputs)
        lane, end, seen = jax.lax.stop_gradient((Lane(before, record), after, info))
        lane = roll_windows(watched, lane, inputs.t)
        lane, _ = observe(watched, optimizer, lane, end, seen, _stop_derivatives(inputs), Limits(), jnp.bool_(last))
        if has_stop:
            after = monitors.select(lane.record.end_kind == EndKind.STOPPED, before, after)
        return after, lane.record, info

    return move


def _stop_derivatives(inputs: StepInputs) -> StepInputs:
    """`inputs` whose traced hyperparameters have no derivative."""
    stop = lambda x: jax.lax.stop_gradient(x) if isinstance(x, jax.Array) else x
    return inputs._replace(hyperparameters={name: stop(x) for name, x in inputs.hyperparameters.items()})


def _allocate(tree: PyTree, points: int) -> PyTree:
    return jax.tree.map(lambda x: jnp.zeros((points, *x.shape), x.dtype), tree)


def _write(history: PyTree, value: PyTree, t: Array, every: int) -> PyTree:
    """`value` in the slot of the next recorded step; the value of that step itself is written last."""
    slot = -(-t // every)
    return jax.tree.map(lambda h, v: jax.lax.dynamic_update_index_in_dim(h, v, slot, 0), history, value)


# The first gradient. A gradient that is not finite at a finite loss is a fault of the loss at this start, and no
# learning rate mends it. It is looked for where a run ends at once, since that takes a compiled gradient.

LOSS_REMEDY = "Look at init and at the data"
GRADIENT_REMEDY = (
    "Guard the operation whose derivative is not finite there, such as a root, a norm, a logarithm or a quotient at 0: "
    "jnp.sqrt(jnp.where(x > 0, x, 1)) where x > 0; or start elsewhere"
)


def find_bad_start(
    problem: ProblemLike, optimizer: OptimizerLike, hyperparameters: Hyperparameters, key: Key, arrays: Arrays
) -> tuple[str, str] | None:
    """What is not finite at the start of the run of `key`, the loss or its gradient, and the remedy.

    None if both are finite, and if the optimizer skips such an update: all that was finite in the state is finite
    after it.
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

    def two_steps(value: Array) -> State:
        state = initial_state(problem, optimizer, point | {name: value}, key, arrays)
        return step(state, point | {name: value}, jnp.int32(1), key, arrays.data)[0]

    return any(jaxprs.depends_on(jax.make_jaxpr(two_steps)(1.0).jaxpr))
