"""Under strict promotion of dtypes everything runs, and computes what it computes otherwise."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gdkit
from gdkit import monitors, optimizers, problems, sgd, stability
from gdkit.types import State

QUADRATIC = problems.quadratic([1.0, 4.0])
SCHEDULED = optimizers.with_schedule(sgd, optimizers.schedule("warmup_cosine", 20, warmup=0.5))
WATCHED = {
    "sgd": (sgd, [stability.sharpness_every(QUADRATIC, 5, record=3), monitors.time_to(0.1), monitors.curve(20)]),
    "schedule": (SCHEDULED, [stability.lyapunov_exponent(QUADRATIC, SCHEDULED)]),
    "rmsprop": (optax.rmsprop, [stability.preconditioned_sharpness_every(QUADRATIC, optax.rmsprop, 5)]),
}


@pytest.mark.parametrize("name", WATCHED)
def test_a_run_with_its_monitors_is_the_same_program_under_strict_promotion(name):
    factory, watched = WATCHED[name]
    start = lambda rate: gdkit.descend(QUADRATIC, factory, 9, hyperparameters={"learning_rate": rate}, monitors=watched)
    programs = []
    for promotion in ("strict", "standard"):
        with jax.numpy_dtype_promotion(promotion):
            programs.append(str(jax.make_jaxpr(start)(jnp.float32(0.1))))
    assert programs[0] == programs[1]


@pytest.mark.parametrize(("name", "data"), [("mlp", "digits"), ("mlp", "diabetes"), ("transformer", "digits")])
def test_steps_and_metrics_of_built_in_problems_trace_under_strict_promotion(name, data):
    problem = problems.names()[name](data, batch_size=8)
    step = gdkit.step_map(problem, sgd)

    def run(key):
        start = State(problem.init(key), (), optimizers.SgdState((), ()))
        end, _ = step(start, {"learning_rate": 0.1}, jnp.int32(0), key, problem.data)
        return [metric(end.params, problem.validation) for metric in problem.metrics.values()]

    with jax.numpy_dtype_promotion("strict"):
        assert all(metric.dtype == jnp.float32 for metric in jax.eval_shape(run, jax.random.key(0)))


@pytest.mark.full
def test_what_compiles_its_own_programs_runs_under_strict_promotion():
    with jax.numpy_dtype_promotion("strict"):
        result = gdkit.sweep(QUADRATIC, sgd, {"learning_rate": [0.1, 0.2]}, steps=3)
        closed_form = [0.5 * (1 - rate) ** 6 + 2 * (1 - 4 * rate) ** 6 for rate in (0.1, 0.2)]
        np.testing.assert_allclose(result.lanes["final_loss"], closed_form, rtol=1e-5)
        np.testing.assert_allclose(stability.sharpness(QUADRATIC, jnp.ones(2), 2).values, [4, 1], rtol=1e-5)
        end = State(jnp.ones(2), (), optimizers.SgdState((), ()))
        np.testing.assert_allclose(stability.multipliers(QUADRATIC, sgd(0.1), end).farthest.values, [0.6], rtol=1e-5)
        critical = stability.critical_learning_rate(QUADRATIC, sgd, low=0.1, high=1.0, steps=300, rtol=0.1)
        np.testing.assert_allclose(critical.value, 0.5, rtol=0.1)
        assert gdkit.check_gradient(QUADRATIC.loss, jnp.ones(2)).ok
        found = gdkit.lr_range_test(QUADRATIC, sgd, low=1e-3, high=10.0, steps=30, trials=2)
        assert 1e-3 < found.best < 0.5
