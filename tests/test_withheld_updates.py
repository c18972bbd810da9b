"""Optimizers that withhold some of their updates: gradient accumulation, and skipping what is not finite."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from shared import quick

from gdkit import Problem, Regime, classify, descend, problems, sgd, sweep
from gdkit.descent import split_key


def regimes(result):
    return [Regime(int(code)).name for code in result.regimes.values.ravel()]


def scaled_loss(learning_rate):
    """Dynamic loss scaling written by hand: halves its scale and makes no step where a gradient is not finite."""

    def update(grads, scale, params=None):
        finite = jnp.all(jnp.stack([jnp.isfinite(g).all() for g in jax.tree.leaves(grads)]))
        step = lambda g: jnp.where(finite, -learning_rate * g, 0)
        return jax.tree.map(step, grads), jnp.where(finite, scale, scale / 2)

    return optax.GradientTransformation(lambda params: jnp.float32(2.0**15), update)


def averaged(learning_rate, every=4):
    """Gradient accumulation written by hand."""

    def update(grads, state, params=None):
        count, total = state[0] + 1, jax.tree.map(jnp.add, state[1], grads)
        emit = count % every == 0
        step = jax.tree.map(lambda s: jnp.where(emit, -learning_rate / every * s, jnp.zeros_like(s)), total)
        return step, (count, jax.tree.map(lambda s: jnp.where(emit, 0, s), total))

    return optax.GradientTransformation(lambda params: (0, jax.tree.map(jnp.zeros_like, params)), update)


# Accumulated gradients


ACCUMULATING = {
    "MultiSteps": lambda learning_rate: optax.MultiSteps(optax.sgd(learning_rate), every_k_schedule=4),
    "apply_every": lambda learning_rate: optax.chain(optax.sgd(learning_rate / 4), optax.apply_every(4)),
    "by hand": averaged,
}


@pytest.mark.parametrize("name", quick(ACCUMULATING, "MultiSteps"))
def test_accumulated_gradients_get_the_regimes_of_the_updates_that_they_make(name):
    rates = [1e-4, 0.2, 0.45, 0.5, 0.6]  # of sgd on curvatures 1 and 4: reverses from 1/4 on, diverges above 2/4
    result = sweep(problems.quadratic([1.0, 4.0]), ACCUMULATING[name], {"learning_rate": rates}, steps=800)
    assert regimes(result) == ["SLOW", "CONVERGED", "OSCILLATING", "BOUNCING", "DIVERGED"]
    assert not result.lanes["skipped_steps"].values.any()


def test_norms_and_reversals_are_those_of_the_updates_between_which_nothing_moves():
    problem = Problem(lambda x: jnp.sum(x**2), jnp.ones(2), optimum=0.0)
    run = descend(problem, ACCUMULATING["MultiSteps"](0.8), 60)
    sizes = np.asarray(run.update_norm)[48:]  # the last two windows
    assert float(run.statistics["update_norm"]) == pytest.approx(sizes[sizes > 0].mean(), rel=1e-5)
    assert float(run.statistics["reversal"]) == pytest.approx(-1, rel=1e-5)
    assert int(run.statistics["reversal_step"]) == 7, "the second update"


# Steps that are skipped


SKIPPING = {
    "apply_if_finite": lambda learning_rate: optax.apply_if_finite(optax.sgd(learning_rate), 100),
    "zero_nans": lambda learning_rate: optax.chain(optax.zero_nans(), optax.sgd(learning_rate)),
    "skip_not_finite": lambda learning_rate: optax.MultiSteps(
        optax.sgd(learning_rate), 2, should_skip_update_fn=optax.skip_not_finite
    ),
    "loss scaling": scaled_loss,
}
ROWS = np.where(np.arange(64) == 5, np.nan, 1 + 0.1 * np.random.default_rng(0).normal(size=64)).astype("f4")
WITH_NAN = Problem(
    lambda p, b: jnp.mean((p - b) ** 2), 3.0, data=ROWS, sample=problems.minibatches(4), validation=ROWS[6:]
)


@pytest.mark.parametrize("name", quick(SKIPPING, "apply_if_finite", "zero_nans"))
def test_a_skipped_step_does_not_end_a_run_and_is_counted(name):
    optimizer, steps = SKIPPING[name](0.1), 100
    _, key = split_key(0)
    batches = jax.vmap(lambda t: WITH_NAN.sample(key, t, jnp.asarray(ROWS)))(jnp.arange(steps))

    def step(carry, batch):
        params, state = carry
        update, state = optimizer.update(jax.grad(WITH_NAN.loss)(params, batch), state, params)
        return (optax.apply_updates(params, update), state), None

    start = jnp.float32(3.0)
    (params, _), _ = jax.lax.scan(step, (start, optimizer.init(start)), batches)
    run = descend(WITH_NAN, optimizer, steps)
    np.testing.assert_allclose(run.params, params, rtol=1e-6)
    assert int(run.statistics["skipped_steps"]) == np.isnan(batches).any(axis=1).sum() > 3
    assert int(run.statistics["end_step"]) == steps
    assert Regime(int(classify(run.statistics).regime)) != Regime.DIVERGED


@pytest.mark.full
def test_optimizers_that_do_not_skip_still_diverge_beside_those_that_do(tmp_path):
    adam = lambda learning_rate: optax.adam(learning_rate)
    factories = {"skip": SKIPPING["apply_if_finite"], "sgd": sgd, "adam": adam}
    result = sweep(WITH_NAN, None, {"optimizer": factories, "learning_rate": [0.1]}, steps=200, store=tmp_path / "run")
    skip, *through = regimes(result)
    assert skip != "DIVERGED" and through == ["DIVERGED", "DIVERGED"]
    assert result.lanes["skipped_steps"].values[0] > 5 and not result.lanes["skipped_steps"].values[1:].any()
    assert result.lanes["validation_loss"].values[0] < 0.1
    assert np.isfinite(result.lanes["final_loss"].values[0])


LEFT = {  # losses from 3 down to where the loss, or only its gradient, is not finite
    "loss": Problem(lambda x: jnp.where(x > 1, x**2, jnp.nan), 3.0, optimum=0.0),
    "gradient": Problem(lambda x: x**2 + 0 * jnp.sqrt(jnp.maximum(x - 1, 0)), 3.0, optimum=0.0),
}


@pytest.mark.parametrize(
    ("kind", "errors", "regime"),
    [("loss", 10_000, "DIVERGED"), ("loss", 5, "DIVERGED"), ("gradient", 10_000, "STALLED")],
)
def test_a_run_that_skips_for_ever_diverges_or_stalls(kind, errors, regime):
    run = descend(LEFT[kind], optax.apply_if_finite(optax.sgd(0.1), errors), 100)
    assert Regime(int(classify(run.statistics, optimum=0.0).regime)).name == regime


# Updates that rounding undoes


@pytest.mark.parametrize(
    ("dtype", "start", "optimizer"),
    [
        ("bfloat16", 512.0, optax.adam),
        ("float32", 1e8, sgd),
        *quick([("float16", 4096.0, optax.adam), ("float32", 1e8, optax.adam), ("float64", 1e17, optax.sgd)]),
    ],
)
def test_updates_that_are_lost_in_the_rounding_of_the_params_stall(dtype, start, optimizer):
    with jax.enable_x64(dtype == "float64"):
        problem = Problem(lambda x: jnp.sum(jnp.abs(x - 2 * start)), jnp.full(3, start, dtype), optimum=0.0)
        run = lambda rate: descend(problem, optimizer, 24, hyperparameters={"learning_rate": rate})
        stuck, free = run(1.0), run(start / 16)
    np.testing.assert_array_equal(stuck.params, problem.init)
    assert Regime(int(classify(stuck.statistics, optimum=0.0).regime)) == Regime.STALLED
    assert bool(stuck.statistics["rounded_away"]) and not bool(free.statistics["rounded_away"])


@pytest.mark.full
def test_a_stalled_lane_of_params_with_many_leaves():
    problem = Problem(lambda p: sum(jnp.sum((x - 300.0) ** 2) for x in p), [jnp.full(2, 256.0, "bfloat16")] * 20)
    result = sweep(problem, optax.adam, {"learning_rate": [0.1, 10.0]}, steps=30)
    assert result.lanes["rounded_away"].values.tolist() == [True, False]
    assert regimes(result)[0] == "STALLED"
