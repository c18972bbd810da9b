"""One run."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from gdkit import binding, checks, monitors
from gdkit.binding import Arrays
from gdkit.data import held_out
from gdkit.descent import evaluation, given_state
from gdkit.descent.first_step import check_first_step
from gdkit.descent.observed import Lane, StepInputs, check_observers, observe, roll_windows, start_lane
from gdkit.descent.start import raw_initial_state, split_key
from gdkit.descent.step import lane_step
from gdkit.errors import bad_type, bad_value
from gdkit.factories import cache_if_hashable
from gdkit.formatting import format_number, html
from gdkit.monitors import EndKind, Limits, Record, names
from gdkit.problems import Learner, ProblemLike
from gdkit.problems import learner as learners
from gdkit.tracing import user_code
from gdkit.trees import norm, select
from gdkit.types import (
    Array,
    Hyperparameters,
    Info,
    Key,
    Monitor,
    OptimizerLike,
    Params,
    PyTree,
    State,
    StaticHyperparameters,
)


class Trajectory(NamedTuple):
    """One run. With ``record_every=1`` there are ``steps + 1`` losses; loss t is that before update t."""

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
    observations, whose derivatives are zero. With a factory and `hyperparameters` one compiled program serves all float
    values.

    Args:
      problem: a Problem, or a factory of one whose hyperparameters are named ``problem.NAME``; or a Learner.
      optimizer: an optimizer, or a factory of one; None for a Learner.
      steps: the number of updates.
      hyperparameters: name to value, for the factories.
      key: the key of the run, or an integer for `jax.random.key`; decides the start and the batches.
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

    >>> from gdkit import optimizers, problems
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
    checks.check_flag("record_params", record_params)
    checks.check_instances("monitors", monitors, Monitor, "Pass for example [gdkit.monitors.time_to(0.1)]")
    if seed is not None:
        checks.check_integer("seed", seed, at_least=0, at_most=checks.MAX_KEY)
    chosen, optimizer = checks.as_hyperparameters(hyperparameters), learners.choose_optimizer(problem, optimizer)
    arrays, static, traced = binding.bind(problem, optimizer, chosen, reads_batches=True)
    if data is not None:
        arrays = binding.replace_data(problem, chosen, arrays, data)
    else:
        arrays = _read_batches(problem, chosen, arrays, key if seed is None else seed, steps)
    key = checks.as_key(key)
    binding.check_run(problem, optimizer, chosen, key, arrays)
    if evaluate_every is not None:
        evaluation.check_evaluate_every(evaluate_every, binding.resolve_problem(problem, chosen)[0])
    if start is not None:
        arrays = arrays._replace(start=given_state.as_state(start))
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
        raise bad_type("key", seed, "batches are read by seed, and a key does not contain one", remedy)
    size = (steps + 1) * sum(x.nbytes for x in jax.tree.leaves(source.first))
    if size > _MAX_BATCH_BYTES:
        remedy = "Use gdkit.sweep, which reads them along the run"
        raise bad_value("steps", steps, f"the batches of the run take {size / 2**30:.1f} GiB at once", remedy)
    return arrays._replace(data=source.read_window(int(seed), 0, 0, steps + 1, steps + 1))


_MAX_BATCH_BYTES = 2**31  # most bytes of batches that `descend` reads


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
    every = evaluate_every if len(evaluated_at) > 1 else None
    observe_if_due = _observe_every(every, evaluate, problem, watched, hyperparameters)

    def body(carry: tuple[State, Record, PyTree], t: Array) -> tuple[tuple[State, Record, PyTree], tuple[Any, ...]]:
        before, record, history = carry
        after, record, info = move(before, record, inputs(t), last=False)
        if record_params:
            history = _write(history, (before.params, info.grad), t, record_every)
        curves = info.loss, info.logs, norm(info.grad), norm(info.update)
        evaluated, record = observe_if_due(after, record, t + 1)
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
    evaluations = _append_last(evaluated, evaluate(end, steps), evaluated_at)
    return trajectory._replace(evaluation_step=jnp.asarray(evaluated_at), evaluations=evaluations)


def _observe_every(
    every: int | None,
    evaluate: Callable[[State, Array], dict[str, Array]],
    problem: ProblemLike,
    watched: tuple[Monitor, ...],
    hyperparameters: Hyperparameters,
) -> Callable[[State, Record, Array], tuple[dict[str, Array], Record]]:
    """A function that evaluates the state after each `every` updates: the values, and the record that has seen them.

    At other steps the values are zero, and the record stays as it is. If `every` is None there are no values at all.
    """
    if every is None:
        return lambda state, record, t: ({}, record)
    interval, observes = every, evaluation.observes_evaluations(watched)

    def observe(state: State, record: Record, t: Array) -> tuple[dict[str, Array], Record]:
        values = evaluate(state, t)
        seen = jax.lax.stop_gradient((state, record, values, t))
        return values, evaluation.observe_evaluation(problem, watched, hyperparameters, *seen) if observes else record

    def observe_if_due(state: State, record: Record, t: Array) -> tuple[dict[str, Array], Record]:
        shapes = jax.eval_shape(evaluate, state, t)
        skip = lambda state, record, t: (jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes), record)
        return jax.lax.cond(t % interval == 0, observe, skip, state, record, t)

    return observe_if_due


def _append_last(along: Mapping[str, Array], last: Mapping[str, Array], steps: np.ndarray) -> dict[str, Array]:
    """The evaluations after the updates `steps`: those along the run, one row per update, and the last one."""
    before = lambda name: along[name][steps[:-1] - 1] if along else jnp.zeros(0)
    return {name: jnp.append(before(name), value) for name, value in last.items()}


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
            after = select(lane.record.end_kind == EndKind.STOPPED, before, after)
        return after, lane.record, info

    return move


def _stop_derivatives(inputs: StepInputs) -> StepInputs:
    """`inputs` whose traced hyperparameters have no derivative."""
    stop = lambda x: jax.lax.stop_gradient(x) if isinstance(x, jax.Array) else x
    return inputs._replace(hyperparameters={name: stop(x) for name, x in inputs.hyperparameters.items()})


def _allocate(tree: PyTree, points: int) -> PyTree:
    return jax.tree.map(lambda x: jnp.zeros((points, *x.shape), x.dtype), tree)


def _write(history: PyTree, value: PyTree, t: Array, every: int) -> PyTree:
    """Write `value` into the slot of the next recorded step, where the value of that step itself is written last."""
    slot = -(-t // every)
    return jax.tree.map(lambda h, v: jax.lax.dynamic_update_index_in_dim(h, v, slot, 0), history, value)
