"""A gradient that is not finite at the start is named as the cause, unless the optimizer skips such updates."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from shared import assert_refused, quick

import gdkit
from gdkit import GdkitWarning, Problem, Regime, hypergradients, problems, sgd

RATES = {"learning_rate": [1e-3, 0.1]}
LOSSES = {  # with a gradient of NaN or inf at 0, where they are finite
    "norm": lambda p: jnp.linalg.norm(p["w"]) ** 2 + jnp.sum((p["w"] - p["v"]) ** 2),
    "root": lambda p: jnp.sum(jnp.sqrt(p["w"])) + jnp.sum((p["w"] - p["v"]) ** 2),
    "root behind a where": lambda p: jnp.sum(jnp.where(p["w"] > 0, jnp.sqrt(p["w"]), p["w"]) + p["v"] ** 2),
}
START = {"v": jnp.ones(2), "w": jnp.zeros(2)}
ENTRIES = {
    "descend": lambda problem: gdkit.descend(problem, sgd(0.1), 3),
    "sweep": lambda problem: gdkit.sweep(problem, sgd, RATES, steps=3),
    "lr_range_test": lambda problem: gdkit.lr_range_test(problem, sgd, steps=8, seeds=1),
    "critical": lambda problem: gdkit.critical_learning_rate(problem, sgd, low=1e-3, high=10.0, steps=3),
    "tune": lambda problem: gdkit.tune(problem, sgd, {"learning_rate": 1e-3}, 3),
    "hypergradient": lambda problem: hypergradients.hypergradient(problem, sgd, {"learning_rate": 1e-3}, 3),
}
EVERY_TIME = ("descend", "sweep", "tune")  # the others in `make test-full`
CAUSE = r"problem=.*the gradient is not finite at the start with respect to \['w'\], where the loss is.*jnp.where"


@pytest.mark.parametrize("entry", quick(ENTRIES, *EVERY_TIME))
def test_every_entry_names_the_leaf_and_the_guard(entry):
    assert_refused(lambda: ENTRIES[entry](Problem(LOSSES["norm"], START)), CAUSE)


@pytest.mark.parametrize("entry", quick(ENTRIES, *EVERY_TIME))
@pytest.mark.parametrize("value", quick([np.nan, np.inf], np.nan))
def test_every_entry_names_a_loss_that_is_not_finite_at_the_start(entry, value):
    problem = Problem(lambda p: jnp.sum(p["v"] ** 2) * value + jnp.sum(p["w"]), START)
    assert_refused(lambda: ENTRIES[entry](problem), "the loss is not finite at the start")


@pytest.mark.parametrize("loss", ["root", "root behind a where"])
def test_other_gradients_are_named_too(loss):
    assert_refused(lambda: ENTRIES["descend"](Problem(LOSSES[loss], START)), CAUSE)


def test_optimizers_that_accumulate_a_bad_gradient_do_not_skip_it_and_large_gradients_are_finite():
    accumulating = optax.MultiSteps(optax.sgd(0.1), 2)
    assert_refused(lambda: gdkit.descend(Problem(LOSSES["norm"], START), accumulating, 3), CAUSE)
    run = gdkit.descend(Problem(lambda x: 1e25 * jnp.sum(x), jnp.ones(2)), sgd(1e-30), 3)
    assert np.isinf(run.grad_norm[0]) and np.isfinite(run.loss).all()  # squares overflow, the gradient does not


SKIPPING = {
    "apply_if_finite": lambda learning_rate: optax.apply_if_finite(optax.sgd(learning_rate), 10),
    "zero_nans": lambda learning_rate: optax.chain(optax.zero_nans(), optax.sgd(learning_rate)),
    "skip_not_finite": lambda learning_rate: optax.MultiSteps(
        optax.sgd(learning_rate), 1, should_skip_update_fn=optax.skip_not_finite
    ),
}


@pytest.mark.parametrize("name", SKIPPING)
def test_optimizers_that_skip_it_run(name):
    run = gdkit.descend(Problem(LOSSES["norm"], START), SKIPPING[name](0.1), 3)
    assert np.isfinite(run.loss).all()


@pytest.fixture(scope="module")
def of_some():
    """A sweep in which the gradient of seed 1 is not finite, and what it warns of."""
    init = lambda key: jnp.where(jax.random.bernoulli(key), 0.0, 1.0) + jnp.zeros(2)
    problem = Problem(lambda x: jnp.linalg.norm(x) + jnp.sum((x - 1) ** 2), init)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = gdkit.sweep(problem, sgd, RATES, steps=20, seeds=4)
    starts = [init(gdkit.descent.split_key(jax.random.fold_in(jax.random.key(0), seed))[0]) for seed in range(4)]
    return result, np.array([float(start[0]) == 0 for start in starts]), [str(w.message) for w in caught]


def test_lanes_whose_gradient_is_not_finite_end_at_step_0_and_the_others_run(of_some):
    result, is_bad, _ = of_some
    assert 0 < is_bad.sum() < 4
    lanes = {name: result.lanes[name].values.reshape(2, 4) for name in ("end_step", "end_kind", "initial_loss")}
    np.testing.assert_array_equal(lanes["end_step"], np.broadcast_to(np.where(is_bad, 0, 20), (2, 4)))
    regimes = np.asarray(result.regimes.transpose("learning_rate", "seed"))
    np.testing.assert_array_equal(regimes == Regime.DIVERGED, np.broadcast_to(is_bad, (2, 4)))
    assert np.isfinite(lanes["initial_loss"]).all()


def test_a_warning_counts_them_and_names_the_cause(of_some):
    result, is_bad, messages = of_some
    assert any(f"{2 * is_bad.sum()} runs ended at step 0" in text for text in result.recommend().caveats)
    expected = f"{2 * is_bad.sum()} of 8 runs end at step 0: the gradient is not finite at the start"
    assert any(expected in message for message in messages)


def test_lanes_that_differ_in_a_problem_axis_are_told_apart():
    factory = lambda shift=0.0: Problem(lambda x: jnp.sqrt(jnp.sum(x**2)) + jnp.sum(x**2), shift + jnp.zeros(2))
    axes = {"learning_rate": [0.1], "problem.shift": [0.0, 1.0]}
    with pytest.warns(GdkitWarning, match="1 of 2 runs end at step 0: the gradient is not finite at the start"):
        result = gdkit.sweep(factory, sgd, axes, steps=5)
    np.testing.assert_array_equal(result.lanes["end_step"].values, [0, 5])
    assert any("1 run ended at step 0" in text for text in result.recommend("learning_rate").caveats)


def test_a_run_that_leaves_all_bounds_in_its_first_step_is_no_fault_of_its_gradient():
    result = gdkit.sweep(problems.quadratic([1.0, 4.0]), sgd, {"learning_rate": [1e30, 0.1]}, steps=5)
    np.testing.assert_array_equal(result.lanes["end_step"].values, [1, 5])
    assert not any("ended at step 0" in text for text in result.recommend().caveats)
