"""What a run is evaluated by: the optimum, and loss, metrics or values of `Problem.evaluate` on held-out data."""

import jax
import jax.numpy as jnp

from gdkit import binding, monitors, optimizers, user_code
from gdkit.binding import Arrays
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
) -> dict:
    """The optimum where it is known, and loss and metrics on validation and test data, at the params to evaluate.

    Without these data metrics are read on the training data: all of them, or where they have another structure than a
    batch, the batch of step `t`.
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
    """A value of `Problem.evaluate`; a count or a truth value as a float."""
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
