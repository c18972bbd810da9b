"""Evaluation of a run: the optimum, and loss, metrics or values of `Problem.evaluate` on held-out data."""

import functools
from collections.abc import Callable, Collection, Container, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from gdkit import binding, factories, optimizers
from gdkit.binding import Arrays
from gdkit.descent import chunks
from gdkit.errors import bad_value
from gdkit.monitors import EndKind, Record
from gdkit.problems import Learner, Problem, ProblemLike
from gdkit.problems.learner import LearnerProblem
from gdkit.problems.problem import maximized_names, takes_aux
from gdkit.tracing import user_code
from gdkit.trees import select, statistics_dtype
from gdkit.types import (
    Array,
    Evaluation,
    Hyperparameters,
    Key,
    Monitor,
    Optimizer,
    OptimizerLike,
    Params,
    PyTree,
    State,
)


def evaluate(
    problem: ProblemLike,
    optimizer: OptimizerLike,
    hyperparameters: Hyperparameters,
    state: State,
    arrays: Arrays,
    t: Array,
    key: Key,
) -> dict[str, Array]:
    """The optimum where it is known, and loss and metrics on validation and test data, at the params to evaluate.

    Without these data metrics are read on the training data: all of them, or where they have another structure than a
    batch, the batch of step `t`. Under `jax.jit` values that are not used are not computed.
    """
    concrete, built = binding.resolve(problem, optimizer, hyperparameters)
    params = optimizers.evaluation_params(state.opt_state, state.params)
    values = {}
    if concrete.optimum is not None:
        sign = -1 if isinstance(built, optimizers.Ascent) else 1
        values["optimum"] = jnp.asarray(sign * concrete.optimum, statistics_dtype(params))
    parts = {"validation": arrays.validation, "test": arrays.test}
    parts = {part: data for part, data in parts.items() if data is not None}
    if not parts and (concrete.metrics or concrete.evaluate):
        parts[concrete.training_part] = binding.get_training_data(concrete, t, key, arrays.data)
    for part, data in parts.items():
        values_on = functools.partial(_evaluate_part, concrete, built, params, state.aux, part)
        source = concrete.held_out_sources.get(part)
        if source is not None:
            values |= values_on(data) if source.chunks == 1 else chunks.average_chunks(values_on, source)
        elif part == concrete.training_part:
            values |= values_on(data)
        else:
            values |= _evaluate_rows(problem, hyperparameters, part, values_on, data)
    return values


def _evaluate_part(
    problem: Problem, optimizer: Optimizer | None, params: Params, aux: PyTree, part: str, data: PyTree
) -> dict[str, Array]:
    """Loss and metrics, or the values of `Problem.evaluate`, on the training, validation or test data."""
    if problem.evaluate is not None:
        own = binding.call_evaluate(problem, params, data, aux)
        return {f"{part}_{name}": _as_float(value, params) for name, value in sorted(own.items())}
    values = {}
    if part != "train":
        values[f"{part}_loss"], _ = binding.objective(problem, optimizer, data, aux)(params)
    for name, metric in (problem.metrics or {}).items():
        own_aux = (aux,) if problem.has_aux and takes_aux(metric) else ()
        with user_code.translate_errors(f"metrics[{name!r}]", metric):
            values[f"{part}_{name}"] = metric(params, data, *own_aux)
    return values


def _evaluate_rows(
    problem: ProblemLike,
    hyperparameters: Hyperparameters,
    part: str,
    values_on: Callable[[PyTree], dict[str, Array]],
    data: PyTree,
) -> dict[str, Array]:
    """The values on held-out data on the device; those that are means over rows in chunks where memory needs it."""
    rows = chunks.choose_rows(values_on, data)
    means = _find_means(problem, hyperparameters, part) if rows else frozenset()
    if not rows or not means:
        return values_on(data)
    only_means = lambda data: {name: value for name, value in values_on(data).items() if name in means}
    averaged = chunks.average_chunks(only_means, chunks.RowChunks(data, rows))
    names = jax.eval_shape(values_on, data)
    whole = values_on(data) if names.keys() - means else {}  # under jit, the means among these are not computed
    return {name: averaged[name] if name in means else whole[name] for name in names}


def _find_means(problem: ProblemLike, hyperparameters: Hyperparameters, part: str) -> frozenset[str]:
    """The values on held-out data that are means over rows; none if the problem depends on swept values."""
    _, of_problem = factories.split_hyperparameters(hyperparameters)
    if isinstance(problem, Learner) or any(isinstance(value, Tracer) for value in of_problem.values()):
        return frozenset()
    return _test_means(problem, part, **({} if isinstance(problem, Problem) else of_problem))


@factories.cache_if_hashable(maxsize=8)
def _test_means(problem: Problem | Callable[..., Problem], part: str, **of_problem: Any) -> frozenset[str]:
    with jax.ensure_compile_time_eval():
        prefixed = {factories.PROBLEM_PREFIX + name: value for name, value in of_problem.items()}
        concrete, _ = binding.resolve_problem(problem, prefixed)
        start = jax.jit(concrete.init)(jax.random.key(0)) if concrete.init_is_function else concrete.init
        params, aux = binding.split_aux(concrete, jax.tree.map(jnp.asarray, start))
        values_on = lambda params, data: _evaluate_part(concrete, None, params, aux, part, data)
        return chunks.find_means(values_on, params, getattr(concrete, part))


def _as_float(value: Array, params: Params) -> Array:
    """A value; a count or a truth value as a float."""
    is_float = jnp.issubdtype(value.dtype, jnp.floating)
    return value if is_float else value.astype(statistics_dtype(params))


def evaluation_names(problem: Problem) -> list[str]:
    """The names that `evaluate` returns for a problem."""
    held_out = [part for part in ("validation", "test") if getattr(problem, part) is not None]
    losses, metrics = [f"{part}_loss" for part in held_out], list(problem.metrics or {})
    if problem.evaluate is not None:
        key = jax.eval_shape(jax.random.key, 0)
        losses, metrics = [], list(binding.get_evaluated_shapes(problem, key, binding.get_arrays(problem)))
    optimum = ["optimum"] * (problem.optimum is not None)
    return optimum + losses + [f"{part}_{name}" for part in held_out or [problem.training_part] for name in metrics]


def is_along(name: str) -> bool:
    """Whether ``evaluate_every`` evaluates the value `name` along the run; never on test data.

    >>> [is_along(name) for name in ("validation_loss", "train_accuracy", "test_loss", "optimum")]
    [True, True, False, False]
    """
    return name.startswith(("validation_", "train_"))


def evaluate_along(
    problem: ProblemLike,
    optimizer: OptimizerLike,
    hyperparameters: Hyperparameters,
    state: State,
    arrays: Arrays,
    t: Array,
    key: Key,
) -> dict[str, Array]:
    """The values of `evaluate` along the run, as floats; `t` is the number of updates made."""
    values = evaluate(problem, optimizer, hyperparameters, state, arrays, t, key)
    return {name: _as_float(jnp.asarray(value), state.params) for name, value in values.items() if is_along(name)}


def observes_evaluations(watched: Sequence[Monitor]) -> bool:
    """Whether any of the monitors observes the evaluations along a run."""
    return any(monitor.on_evaluation for monitor in watched)


def observe_evaluation(
    problem: ProblemLike,
    watched: Sequence[Monitor],
    hyperparameters: Hyperparameters,
    state: State,
    record: Record,
    values: Mapping[str, Array],
    t: Array,
) -> Record:
    """The record after the monitors have observed the values of `evaluate_along`; that of an ended run stays as it is.

    If a stopping rule then holds, the next step ends the run, with the state that was evaluated.
    """
    names = maximized_names(binding.resolve_problem(problem, hyperparameters)[0])
    evaluation = Evaluation(t, values, frozenset(name for name in values if is_maximized(names, name)))
    going, states = record.end_kind == EndKind.RUNNING, []
    for monitor, memory in zip(watched, record.monitors, strict=True):
        if observe := monitor.on_evaluation:
            with user_code.translate_errors("monitors", observe):
                memory = select(going, observe(memory, state, evaluation), memory)
        states.append(memory)
    return record._replace(monitors=tuple(states))


class BestState(NamedTuple):
    """What `keep_best` remembers: the state at the best evaluation so far, except the one at the end of a run."""

    value: Array  # () at that evaluation; of a value that is maximized, the negative one
    step: Array  # () int32, updates made; -1 before an evaluation whose value is finite
    state: State


@functools.cache
def keep_best(name: str) -> Monitor:
    """A monitor that keeps the state at the best evaluation of `name`, the first of several equal ones."""

    def init(state: State) -> BestState:
        dtype = statistics_dtype(state.params)
        return BestState(jnp.full((), jnp.inf, dtype), jnp.full((), -1, jnp.int32), state)

    def on_evaluation(m: BestState, state: State, evaluation: Evaluation) -> BestState:
        value = evaluation.values[name].astype(m.value.dtype)
        value = -value if name in evaluation.maximized else value
        improved = jnp.isfinite(value) & (value < m.value)
        return select(improved, BestState(value, evaluation.t, state), m)

    return Monitor(init, update=lambda m, *_: m, read=lambda m: {}, on_evaluation=on_evaluation)


def find_best(record: Record) -> BestState | None:
    """The memory of `keep_best` in the record of a lane, or of lanes; None without."""
    return next((memory for memory in record.monitors if isinstance(memory, BestState)), None)


def set_best_aside(record: Record) -> Record:
    """The record without the memory of `keep_best`, which no step changes: a loop that carries it copies it."""
    kept = tuple(() if isinstance(memory, BestState) else memory for memory in record.monitors)
    return record._replace(monitors=kept)


def put_best_back(record: Record, before: Record) -> Record:
    """The record with the memory of `keep_best` that `before` has."""
    pairs = zip(record.monitors, before.monitors, strict=True)
    return record._replace(monitors=tuple(old if isinstance(old, BestState) else new for new, old in pairs))


def watched_value(problem: Problem) -> str | None:
    """The name of the value on validation data that runs of a problem are compared by; None without such data."""
    names = [name for name in evaluation_names(problem) if is_along(name)]
    name = default_score(names, maximized_names(problem))
    return name if name in names else None


def check_observers(
    watched: Sequence[Monitor], evaluate_every: int | None, observe: Callable[[Arrays], Record], arrays: Arrays
) -> None:
    """Raise for monitors that observe evaluations where there are none, or which cannot use their values.

    Args:
      watched: monitors of the user.
      evaluate_every: of the run.
      observe: returns a record after its first evaluation; it is only traced.
      arrays: of the problem.
    """
    if not observes_evaluations(watched):
        return
    if evaluate_every is None:
        remedy = "Pass the steps from one evaluation to the next, for example evaluate_every=100"
        raise bad_value("evaluate_every", None, "a monitor observes the evaluations along the run", remedy)
    jax.eval_shape(observe, arrays)


def select_steps(every: int | None, steps: int) -> np.ndarray:
    """The steps at which a run is evaluated along the way, (evaluations,) int32; the last is its end.

    >>> select_steps(10, 25).tolist(), select_steps(10, 20).tolist(), select_steps(None, 20).tolist()
    ([10, 20, 25], [10, 20], [])
    """
    return np.append(np.arange(every, steps, every), steps).astype(np.int32) if every else np.zeros(0, np.int32)


def check_evaluate_every(evaluate_every: int, problem: Problem) -> None:
    """Raise unless there is something to evaluate along the run."""
    if any(map(is_along, evaluation_names(problem))):
        return
    text = "there are no validation data"
    remedy = "Pass Problem(validation=...); test data are evaluated at the end only"
    if isinstance(problem, LearnerProblem):
        text, remedy = "the Learner has no evaluate", "Pass Learner(evaluate=...)"
    raise bad_value("evaluate_every", evaluate_every, text, remedy)


def default_score(names: Collection[str], maximized: Sequence[str]) -> str:
    """The variable that lanes are compared by unless another is named.

    ``validation_loss`` if there is one; else, as `Problem.evaluate` may return no loss, another value on validation
    data: the first that is `maximized`, or the first by name. ``final_loss`` without validation data.

    >>> default_score(["final_loss", "validation_error", "validation_f1"], ["f1"]), default_score(["test_loss"], [])
    ('validation_f1', 'final_loss')
    """
    known = ["validation_loss", *(f"validation_{name}" for name in maximized)]
    others = sorted(name for name in names if str(name).startswith("validation_"))
    return next((name for name in (*known, *others) if name in names), "final_loss")


def is_maximized(names: Container[str], variable: str) -> bool:
    """Whether a variable is better when larger: a metric in `names`, on training, validation or test data.

    >>> [is_maximized(["recall"], name) for name in ("validation_recall", "recall", "test_loss", "late_recall")]
    [True, True, False, False]
    """
    part, _, metric = variable.partition("_")
    return variable in names or (part in ("train", "validation", "test") and metric in names)
