"""Runs of params in half precision: hyperparameters keep theirs, and the state keeps its dtypes, as in optax."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gdkit
from gdkit import Problem

FACTORIES = {
    "adam": (optax.adam, {"learning_rate": 0.1, "b2": 0.999}),
    "momentum": (gdkit.sgd, {"learning_rate": 0.01, "momentum": 0.9}),
    "adamw, cosine": (
        gdkit.optimizers.with_schedule(optax.adamw, optax.cosine_decay_schedule(1.0, 20)),
        {"learning_rate": 0.1, "b2": 0.9999, "weight_decay": 0.01},
    ),
}


def parabola(dtype, center=3.0):
    return Problem(lambda x: jnp.sum((x - center) ** 2), jnp.zeros(2, dtype), optimum=0.0)


def plain(optimizer, problem, steps):
    """The params and the state of a loop of optax whose hyperparameters are Python's numbers."""

    @jax.jit
    def step(params, state):
        updates, state = optimizer.update(jax.grad(problem.loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    params, state = problem.init, optimizer.init(problem.init)
    for _ in range(steps):
        params, state = step(params, state)
    return params, state


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("adam", jnp.bfloat16), ("momentum", jnp.float16), ("adamw, cosine", jnp.bfloat16)],
)
def test_traced_hyperparameters_act_as_numbers_do_in_a_plain_loop_with_optax(name, dtype):
    factory, hyperparameters = FACTORIES[name]
    problem = parabola(dtype)
    params, state = plain(factory(**hyperparameters), problem, 12)
    run = gdkit.descend(problem, factory, 12, hyperparameters=hyperparameters)
    np.testing.assert_array_equal(run.params, params)
    dtypes = lambda *trees: [leaf.dtype for leaf in jax.tree.leaves(trees)]
    assert dtypes(run.params, run.opt_state) == dtypes(params, state)


def test_a_swept_hyperparameter_that_half_precision_cannot_hold():
    axes = {"learning_rate": [0.1], "b2": [0.99, 0.999, 0.9999]}
    result = gdkit.sweep(parabola(jnp.bfloat16), optax.adam, axes, steps=12)
    truth = [plain(optax.adam(0.1, b2=b2), parabola(jnp.bfloat16), 12)[0] for b2 in axes["b2"]]
    losses = [parabola(jnp.bfloat16).loss(params) for params in truth]
    np.testing.assert_array_equal(result.lanes["final_loss"].values, np.asarray(losses, np.float32))


def test_derivatives_and_searches_take_hyperparameters_of_full_precision():
    problem = parabola(jnp.float16, center=1.0)
    slopes = gdkit.hypergradient(problem, gdkit.sgd, {"learning_rate": 0.1234567}, 1)
    assert slopes["learning_rate"].dtype == jnp.float32
    np.testing.assert_allclose(slopes["learning_rate"], -8 * (1 - 2 * 0.1234567), rtol=2e-3)  # of 2 (1 − 2η)²
    critical = gdkit.critical_learning_rate(problem, gdkit.sgd, low=0.1, high=10.0, steps=40, rtol=1e-3)
    np.testing.assert_allclose(critical.value, 1.0, rtol=2e-2)


def test_hyperparameters_are_float64_under_x64_whatever_the_params():
    seen = []

    def factory(learning_rate):
        seen.append(jnp.result_type(learning_rate))
        return optax.sgd(learning_rate)

    with jax.enable_x64(True):
        run = gdkit.descend(parabola(jnp.float32), factory, 2, hyperparameters={"learning_rate": 0.1})
    assert set(seen[1:]) == {np.dtype("float64")}
    assert run.params.dtype == run.loss.dtype == np.dtype("float32")


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_updates_may_be_of_higher_precision_than_the_params(dtype):
    widen = lambda grads, params: jax.tree.map(lambda x: -0.1 * x.astype(jnp.float64), grads)
    with jax.enable_x64(True):
        run = gdkit.descend(parabola(dtype), optax.stateless(widen), 3)
        statistics = run.statistics["peak_update_norm"], run.statistics["late_predicted"]
    assert run.params.dtype == dtype
    np.testing.assert_allclose(statistics[0], 0.6 * np.sqrt(2), rtol=1e-2)  # the first update is 0.6 in both entries
    assert {x.dtype for x in statistics} == {np.dtype("float32")}
