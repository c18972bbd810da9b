"""What JAX cannot trace in a function of the user is an error of gdkit that names the file, the line and the remedy."""

import inspect

import jax
import jax.experimental
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from shared import assert_refused, quick

from gdkit import Problem, critical_learning_rate, descend, problems, sgd, static, step_map, sweep, tune
from gdkit.types import State

RATES = {"learning_rate": [0.1, 0.3]}


def branch(x):
    return jnp.sum(x**2) if x[0] > 0 else jnp.sum(x)


def numpy_call(x):
    return jnp.sum(x**2) + np.sin(x[0])


def conversion(x):
    return jnp.sum(x**2) * float(x[0])


def python_index(x):
    return jnp.sum(x**2) * [1.0, 2.0][x[0].astype(int)]


def mask(x):
    return jnp.sum(x[x > 0] ** 2)


def callback(x):
    return jnp.sum(x**2) + jax.pure_callback(lambda v: v.sum(), jax.ShapeDtypeStruct((), jnp.float32), x)


def effect(x):
    still = jax.lax.stop_gradient(x)
    return jnp.sum(x**2) + jax.experimental.io_callback(lambda v: v.sum(), jax.ShapeDtypeStruct((), jnp.float32), still)


LOSSES = {
    branch: ("branches in Python on a traced value", "jnp.where"),
    numpy_call: ("passes a traced value to NumPy", "Use jax.numpy"),
    conversion: ("converts a traced value to a Python number", "Keep it an array"),
    python_index: ("uses a traced value as a Python integer", "Index a JAX array"),
    mask: ("selects entries by a traced mask", r"jnp.where\(mask, x, 0\)"),
    callback: ("function outside JAX, which has no derivative", "jax.custom_jvp"),
    effect: ("io_callback", "jax.debug.print"),
}


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.__name__)
def test_losses_that_cannot_be_traced_are_refused_with_their_line(loss):
    problem, remedy = LOSSES[loss]
    first = inspect.getsourcelines(loss)[1]
    where = "|".join(str(first + offset) for offset in (1, 2))
    match = rf"loss=.*{problem}.*\(.*test_user_code.py, line ({where})\).*{remedy}"
    for call in (
        lambda: descend(Problem(loss, jnp.ones(2)), sgd(0.1), 2),
        lambda: sweep(Problem(loss, jnp.ones(2)), sgd, RATES, steps=2),
    ):
        assert_refused(call, match)


def test_a_loss_that_stores_traced_values_is_refused():
    for call in (
        lambda loss: descend(Problem(loss, jnp.ones(2)), sgd(0.1), 2),
        lambda loss: sweep(Problem(loss, jnp.ones(2)), sgd, RATES, steps=2),
    ):
        stored = []
        loss = lambda x: (stored.append(x), jnp.sum(stored[0] * x))[1]  # noqa: B023
        assert_refused(lambda: call(loss), "uses a traced value that an earlier call has stored.*has_aux")  # noqa: B023


def test_other_entries_name_the_line_of_a_loss_too():
    problem, point = Problem(branch, jnp.ones(2)), {"learning_rate": 0.1}
    for call in (
        lambda: critical_learning_rate(problem, sgd, low=0.1, high=1.0, steps=2),
        lambda: tune(problem, sgd, point, 2),
        lambda: jax.eval_shape(lambda x: step_map(problem, sgd)(State(x, (), ()), point, 0, None, None), jnp.ones(2)),
    ):
        assert_refused(call, "loss=.*test_user_code.py, line")


def test_start_batches_and_optimizers_name_their_line_too():
    rows = jnp.ones((4, 2))
    loss = lambda x, batch: jnp.sum((x - batch) ** 2)
    sample = lambda key, t, data: data[:2] if t > 0 else data[2:]
    update = lambda grads, state, params: (grads if grads[0] > 0 else -grads, state)
    for argument, problem, optimizer in (
        ("sample", Problem(loss, jnp.ones(2), data=rows, sample=sample), sgd(0.1)),
        ("init", Problem(lambda x: jnp.sum(x**2), lambda key: jnp.ones(int(jax.random.bits(key)))), sgd(0.1)),
        ("optimizer", problems.quadratic([1.0, 4.0]), optax.GradientTransformation(lambda params: (), update)),
    ):
        assert_refused(lambda: descend(problem, optimizer, 2), f"{argument}=.*test_user_code.py, line")  # noqa: B023


def test_callbacks_that_only_observe_run():
    seen = []

    def watched(x):
        jax.debug.callback(lambda value: seen.append(float(value)), x[0])
        return jnp.sum(x**2)

    np.testing.assert_allclose(descend(Problem(watched, jnp.ones(2)), sgd(0.25), 2).params, 0.25)
    jax.effects_barrier()
    assert {1.0, 0.5, 0.25} <= set(seen)


# --- optax's schedules with a learning rate that is swept

SCHEDULES = {
    "warmup_cosine_decay_schedule": lambda rate: optax.warmup_cosine_decay_schedule(0.0, rate, 5, 20),
    "sgdr_schedule": lambda rate: optax.sgdr_schedule(
        [{"init_value": 0.0, "peak_value": rate, "warmup_steps": 2, "decay_steps": 10} for _ in range(2)]
    ),
    "cosine_onecycle_schedule": lambda rate: optax.cosine_onecycle_schedule(20, rate),
    "warmup_exponential_decay_schedule": lambda rate: optax.warmup_exponential_decay_schedule(0.0, rate, 5, 10, 0.5),
}


@pytest.mark.parametrize("name", quick(SCHEDULES, "warmup_cosine_decay_schedule", "sgdr_schedule"))
def test_schedules_of_a_swept_rate_run_or_the_error_has_the_form_that_does(name):
    make, problem = SCHEDULES[name], problems.quadratic([1.0, 4.0])
    factory = lambda learning_rate: optax.sgd(make(learning_rate))
    if name in ("warmup_cosine_decay_schedule", "sgdr_schedule"):  # they branch on their peak
        remedy = rf"optimizer=.*one of \['learning_rate'\].*optax.{name}.*learning_rate \* share\(count\).*static"
        assert_refused(lambda: descend(problem, factory, 20, hyperparameters={"learning_rate": 0.3}), remedy)
        share = make(1.0)
        factory = lambda learning_rate: optax.sgd(lambda count: learning_rate * share(count))
    run = descend(problem, factory, 20, hyperparameters={"learning_rate": 0.3})
    np.testing.assert_allclose(run.loss[-1], on_diagonal(make(0.3), 20), rtol=1e-3)


def on_diagonal(schedule, steps):
    """The loss after gradient descent on (x² + 4 y²) / 2 from (1, 1), in closed form."""
    curvature = np.array([1.0, 4.0])
    rates = np.array([float(schedule(t)) for t in range(steps)])
    end = np.prod(1 - rates[:, None] * curvature, axis=0)
    return float(np.sum(curvature * end**2) / 2)


def test_a_static_rate_runs_with_any_schedule_and_other_code_gets_the_static_remedy():
    factory = lambda learning_rate: optax.sgd(SCHEDULES["sgdr_schedule"](learning_rate))
    found = sweep(problems.quadratic([1.0, 4.0]), factory, {"learning_rate": static([0.1])}, steps=20)
    truth = on_diagonal(SCHEDULES["sgdr_schedule"](0.1), 20)
    np.testing.assert_allclose(found.lanes["final_loss"].values, truth, rtol=1e-3)
    for code in (lambda learning_rate: sgd(np.sqrt(learning_rate)), lambda learning_rate: sgd(float(learning_rate))):
        assert_refused(lambda: sweep(problems.parabola(), code, RATES, steps=2), r"optimizer=.*static")  # noqa: B023
