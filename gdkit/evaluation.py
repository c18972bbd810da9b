"""What a run is evaluated by: the optimum, and loss, metrics or values of `Problem.evaluate` on held-out data."""

import jax
import jax.numpy as jnp
import numpy as np

from gdkit import binding, monitors, optimizers, user_code
from gdkit.binding import Arrays
from gdkit.errors import bad_value
from gdkit.problems import Problem, ProblemLike
from gdkit.problems.problem import takes_aux
from gdkit.types import Array, Hyperparameters, Key, OptimizerLike, Params, State


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
    batch, the batch of step `t`. What is not used of the values is not computed, under `jax.jit`.
    """
    concrete, built = binding.resolve(problem, optimizer, hyperparameters)
    params = optimizers.evaluation_params(state.opt_state, state.params)
    values = {}
    if concrete.optimum is not None:
        sign = -1 if isinstance(built, optimizers.Ascent) else 1
        values["optimum"] = jnp.asarray(sign * concrete.optimum, monitors.statistics_dtype(params))
    parts = {"validation": arrays.validation, "test": arrays.test}
    parts = {part: data for part, data in parts.items() if data is not None}
    if not parts and (concrete.metrics or concrete.evaluate):
        parts["train"] = binding.get_training_data(concrete, t, key, arrays.data)
    for part, data in parts.items():
        if concrete.evaluate is not None:
            own = binding.call_evaluate(concrete, params, data, state.aux)
            values |= {f"{part}_{name}": _as_float(value, params) for name, value in sorted(own.items())}
            continue
        if part != "train":
            values[f"{part}_loss"], _ = binding.objective(concrete, built, data, state.aux)(params)
        for name, metric in (concrete.metrics or {}).items():
            aux = (state.aux,) if concrete.has_aux and takes_aux(metric) else ()
            with user_code.translate_errors(f"metrics[{name!r}]", metric):
                values[f"{part}_{name}"] = metric(params, data, *aux)
    return values


def _as_float(value: Array, params: Params) -> Array:
    """A value; a count or a truth value as a float."""
    is_float = jnp.issubdtype(value.dtype, jnp.floating)
    return value if is_float else value.astype(monitors.statistics_dtype(params))


def evaluation_names(problem: Problem) -> list[str]:
    """The names that `evaluate` returns for a problem."""
    held_out = [part for part in ("validation", "test") if getattr(problem, part) is not None]
    losses, metrics = [f"{part}_loss" for part in held_out], list(problem.metrics or {})
    if problem.evaluate is not None:
        key = jax.eval_shape(jax.random.key, 0)
        losses, metrics = [], list(binding.get_evaluated_shapes(problem, key, binding.get_arrays(problem)))
    optimum = ["optimum"] * (problem.optimum is not None)
    return optimum + losses + [f"{part}_{name}" for part in held_out or ["train"] for name in metrics]


def is_along(name: str) -> bool:
    """Whether ``evaluate_every`` evaluates the value `name` along the run; never on test data, which choose nothing.

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
    """Those values of `evaluate` that are evaluated along the run, as floats; `t` is the number of updates made."""
    values = evaluate(problem, optimizer, hyperparameters, state, arrays, t, key)
    return {name: _as_float(jnp.asarray(value), state.params) for name, value in values.items() if is_along(name)}


def select_steps(every: int | None, steps: int) -> np.ndarray:
    """The steps at which a run is evaluated along the way, (evaluations,) int32; the last is its end.

    >>> select_steps(10, 25).tolist(), select_steps(10, 20).tolist(), select_steps(None, 20).tolist()
    ([10, 20, 25], [10, 20], [])
    """
    return np.append(np.arange(every, steps, every), steps).astype(np.int32) if every else np.zeros(0, np.int32)


def check_evaluate_every(evaluate_every: int, problem: Problem) -> None:
    """Raise unless there is something to evaluate along the run."""
    if not any(map(is_along, evaluation_names(problem))):
        remedy = "Pass Problem(validation=...); test data are evaluated at the end only"
        raise bad_value("evaluate_every", evaluate_every, "there are no validation data", remedy)
