"""Keys and counts that 32 bits cannot hold are refused before anything is compiled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from shared import assert_refused

import gdkit
from gdkit import Problem, checks, hypergradients, problems, sgd

RANDOM = Problem(lambda x: jnp.sum(x**2), lambda key: jax.random.normal(key, (2,)))
RATES = {"learning_rate": [0.1, 0.2]}
BRACKET = {"low": 0.01, "high": 10.0, "steps": 4}

TAKES_KEY = {
    "descend": lambda key: gdkit.descend(RANDOM, sgd(0.1), 2, key=key),
    "sweep": lambda key: gdkit.sweep(RANDOM, sgd, RATES, steps=2, key=key),
    "tune": lambda key: gdkit.tune(RANDOM, sgd, {"learning_rate": 0.1}, 2, key=key),
    "hypergradient": lambda key: hypergradients.hypergradient(RANDOM, sgd, {"learning_rate": 0.1}, 2, key=key),
    "successive_halving": lambda key: gdkit.successive_halving(RANDOM, sgd, RATES, steps=4, key=key),
    "critical_learning_rate": lambda key: gdkit.critical_learning_rate(RANDOM, sgd, **BRACKET, key=key),
    "lr_range_test": lambda key: gdkit.lr_range_test(RANDOM, sgd, steps=8, key=key),
    "check_gradient": lambda key: gdkit.gradients.check_gradient(lambda x: x**2, 1.0, key=key),
    "random_axes": lambda key: gdkit.random_axes({"learning_rate": (0.1, 1.0)}, 3, key=key),
}


@pytest.mark.parametrize("name", TAKES_KEY)
@pytest.mark.parametrize("key", [2**32, 2**63, -1, np.int64(2**32), np.int64(-3), True, np.bool_(True), 1.0, "0"])
def test_keys_that_would_be_those_of_other_integers_are_refused(name, key):
    assert_refused(lambda: TAKES_KEY[name](key), "key=")


@pytest.mark.parametrize("key", [jnp.ones(2), jax.random.split(jax.random.key(0), 3), jnp.float32(1), jnp.int32(-1)])
def test_arrays_that_are_not_one_key_are_refused(key):
    assert_refused(lambda: TAKES_KEY["descend"](key), "key=")


def test_equal_integers_of_all_types_are_one_key_and_others_are_not():
    run = jax.jit(lambda key: gdkit.descend(RANDOM, sgd(0.1), 1, key=key).loss[0])  # takes traced keys
    start = lambda key: run(checks.as_key(key))
    equal = 7, np.int64(7), np.uint32(7), jnp.int32(7), jax.random.key(7), jax.random.PRNGKey(7)
    same = [start(key) for key in equal]
    assert len({float(x) for x in same}) == 1
    assert len({float(start(key)) for key in (0, 1, 2**31, 2**32 - 1)}) == 4


TAKES_STEPS = {
    "descend": lambda steps: gdkit.descend(RANDOM, sgd(0.1), steps),
    "sweep": lambda steps: gdkit.sweep(RANDOM, sgd, RATES, steps=steps, target=1e9),
    "tune": lambda steps: gdkit.tune(RANDOM, sgd, {"learning_rate": 0.1}, steps),
    "hypergradient": lambda steps: hypergradients.hypergradient(RANDOM, sgd, {"learning_rate": 0.1}, steps),
    "successive_halving": lambda steps: gdkit.successive_halving(RANDOM, sgd, RATES, steps=steps),
    "critical_learning_rate": lambda steps: gdkit.critical_learning_rate(RANDOM, sgd, **{**BRACKET, "steps": steps}),
    "lr_range_test": lambda steps: gdkit.lr_range_test(RANDOM, sgd, steps=steps),
    "schedule": lambda steps: gdkit.optimizers.schedule("cosine", steps),
}


@pytest.mark.parametrize("name", TAKES_STEPS)
@pytest.mark.parametrize("steps", [2**31 - 1, 2**40, np.int64(2**31), 2.0, True])
def test_steps_that_int32_cannot_count_are_refused(name, steps):
    assert_refused(lambda: TAKES_STEPS[name](steps), "steps=.*(at most 2147483646|not an integer)")


def test_extensions_beyond_int32_are_refused():
    result = gdkit.sweep(problems.parabola(), sgd, RATES, steps=2)
    assert_refused(lambda: result.extend(2**31), "steps=2147483648: must be at most 2147483646")


def test_the_largest_number_of_steps_runs_to_its_target():
    found = gdkit.sweep(problems.parabola(), sgd, RATES, steps=2**31 - 2, target=1e-3, curve_points=0)
    rates = np.array(RATES["learning_rate"])
    expected = np.ceil(np.log(1e-3 / 9) / (2 * np.log(1 - 2 * rates)))  # 9 (1 − 2η)²ᵗ
    np.testing.assert_array_equal(found.lanes["end_step"].values, expected)
