"""64-bit numbers within `jax.enable_x64` in every thread that a sweep starts."""

from concurrent.futures import ThreadPoolExecutor

import jax.numpy as jnp
import numpy as np
import pytest

from gdkit import Problem, problems, sgd, sweep, sweep_function
from gdkit.environment import enable_x64

RATES = np.array([0.1, 0.2, 0.45])
STEPS = 6


def losses_by_hand():
    """½ (x² + 4 y²) after gradient descent from (1, 1), one per rate."""
    return 0.5 * ((1 - RATES) ** (2 * STEPS) + 4 * (1 - 4 * RATES) ** (2 * STEPS))


def by_sweep(**options):
    return sweep(problems.quadratic([1.0, 4.0]), sgd, {"learning_rate": RATES}, steps=STEPS, **options)


def by_host_batches(make=np.array):
    loss = lambda x, batch: 0.5 * jnp.sum(batch * x**2)
    problem = Problem(loss, np.ones(2), batches=lambda seed, t: make([1.0, 4.0]))
    return sweep(problem, sgd, {"learning_rate": RATES}, steps=STEPS)


def by_jax_batches():
    return by_host_batches(jnp.array)


def by_function():
    eigenvalues = np.array([1.0, 4.0])

    def train(hyperparameters, key):
        shrunk = (1 - hyperparameters["learning_rate"] * eigenvalues) ** STEPS
        return {"loss": 0.5 * jnp.sum(eigenvalues * shrunk**2)}

    return sweep_function(train, {"learning_rate": RATES})


def by_executor():
    with ThreadPoolExecutor(2) as executor:
        return by_sweep(executor=executor)


@pytest.mark.parametrize("run", [by_sweep, by_host_batches, by_jax_batches, by_function, by_executor])
def test_sweeps_within_enable_x64_are_in_float64(run):
    narrow = run().lanes["final_loss"].values
    with enable_x64():
        wide = run().lanes["final_loss"].values
    assert (narrow.dtype, wide.dtype) == (np.float32, np.float64)
    np.testing.assert_allclose(narrow, losses_by_hand(), rtol=1e-4)
    np.testing.assert_allclose(wide, losses_by_hand(), rtol=1e-12)
