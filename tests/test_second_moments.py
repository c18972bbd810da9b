"""Optimizers with other second moments than those of optax, against their recursions in NumPy."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from shared import assert_refused

from gdkit import descend, optimizers, problems, sgd

CURVATURES, START = np.array([1.0, 4.0]), np.array([1.0, -0.5])


def path(optimizer, steps=5, **hyperparameters):
    bowl = problems.quadratic(CURVATURES.tolist())
    options = {"hyperparameters": hyperparameters, "start": jnp.asarray(START), "record_params": True}
    return np.asarray(descend(bowl, optimizer, steps, **options).params_history)


def test_scalar_rmsprop_divides_by_the_root_of_a_mean_squared_norm():
    w, nu, expected = START, 0.3, [START]
    for _ in range(5):
        g = CURVATURES * w
        nu = 0.8 * nu + 0.2 * np.sum(g**2)
        w = w - 0.1 * g / (np.sqrt(nu) + 1e-3)
        expected.append(w)
    found = path(optimizers.scalar_rmsprop, learning_rate=0.1, decay=0.8, eps=1e-3, initial_scale=0.3)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("b1", [0.0, 0.9])
def test_gradient_initialized_adam_starts_at_the_squares_of_the_first_gradient(b1):
    w, mean, expected = START, np.zeros(2), [START]
    nu = (CURVATURES * w) ** 2
    for t in range(1, 6):
        g = CURVATURES * w
        mean, nu = b1 * mean + (1 - b1) * g, 0.95 * nu + 0.05 * g**2
        w = w - 0.1 * mean / (1 - b1**t) / (np.sqrt(nu / (1 - 0.95**t)) + 1e-8)
        expected.append(w)
    found = path(optimizers.gradient_initialized(optax.adam), learning_rate=0.1, b1=b1, b2=0.95)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_an_optimizer_without_second_moments_is_refused():
    for optimizer in (sgd, optax.sgd, optax.adagrad, optimizers.scalar_rmsprop):
        started = optimizers.gradient_initialized(optimizer)(learning_rate=0.1)
        assert_refused(
            lambda started=started: started.init(jnp.zeros(2)), "(tuple|State)': its state has no second mom"
        )
    assert_refused(lambda: optimizers.gradient_initialized(optax.adam(0.1)), "not a factory of optimizers")
