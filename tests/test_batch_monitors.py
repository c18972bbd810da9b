"""Monitors of minibatches against dense Hessians, gradients of single examples in NumPy, and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from shared import assert_refused, dense_hessian

from gdkit import Problem, descend, problems, sgd, stability

ROWS, BATCH = 12, 4
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(ROWS, 3)).astype(np.float32), RNG.normal(size=ROWS).astype(np.float32)


def squares(params, batch):
    """Half the mean of squares of a regression that is linear in three params."""
    x, y = batch
    return 0.5 * jnp.mean((x @ params - y) ** 2)


def draw(key, t, data):
    rows = jax.random.randint(key, (BATCH,), 0, ROWS)
    return jax.tree.map(lambda x: x[rows], data)


def regression(sample=draw):
    return Problem(squares, init=jnp.array([1.0, -1.0, 0.5]), data=(X, Y), sample=sample)


def test_batch_sharpness_is_that_of_dense_hessians_of_the_batches():
    def loss(params, batch):
        x, y = batch
        return 0.5 * jnp.mean((jnp.tanh(x @ params["w"]) @ params["v"] - y) ** 2)

    start = {"w": jnp.asarray(RNG.normal(size=(3, 2)), jnp.float32), "v": jnp.asarray(RNG.normal(size=2), jnp.float32)}
    halves = lambda key, t, data: jax.tree.map(lambda x: jnp.where(jax.random.bernoulli(key), x[:6], x[6:]), data)
    problem = Problem(loss, init=start, data=(X, Y), sample=halves)
    monitor = stability.batch_sharpness_every(problem, 2, batches=400, record=3)
    found = descend(problem, sgd(0.0), 3, monitors=[monitor]).statistics
    ratios = []
    for half in (slice(0, 6), slice(6, 12)):
        g = np.asarray(ravel_pytree(jax.grad(loss)(start, (X[half], Y[half])))[0], float)
        ratios.append(g @ dense_hessian(problem, start, (X[half], Y[half])) @ g / (g @ g))
    spread = abs(ratios[0] - ratios[1]) / 2  # of a ratio, with even chances
    np.testing.assert_allclose(found["batch_sharpness_error"], spread / 400**0.5, rtol=0.1)
    np.testing.assert_allclose(found["batch_sharpness"], np.mean(ratios), atol=4 * spread / 400**0.5)
    np.testing.assert_array_equal(np.isnan(found["batch_sharpness_curve"]), [False, False, True])


def test_without_minibatches_it_is_the_curvature_along_the_gradient():
    curvatures, at = np.array([1.0, 2.0, 5.0]), np.array([1.0, -1.0, 0.5])
    bowl = problems.quadratic(curvatures.tolist())
    found = descend(bowl, sgd(0.0), 1, start=jnp.asarray(at), monitors=[stability.batch_sharpness_every(bowl, 1)])
    g = curvatures * at
    np.testing.assert_allclose(found.statistics["batch_sharpness"], np.sum(curvatures * g**2) / np.sum(g**2), rtol=1e-5)
    assert np.isnan(found.statistics["batch_sharpness_error"])


def test_noise_scale_is_that_of_the_gradients_of_single_examples():
    problem, w = regression(), np.array([1.0, -1.0, 0.5])
    monitor = stability.gradient_noise_scale(problem, 1, batches=500, memory=50.0)
    found = descend(problem, sgd(0.0), 40, monitors=[monitor]).statistics
    each = (X @ w - Y)[:, None] * X  # (rows, params)
    mean = each.mean(0)
    noise, square = np.mean(np.sum((each - mean) ** 2, axis=1)), mean @ mean
    np.testing.assert_allclose(found["gradient_noise_trace"], noise, rtol=0.02)
    np.testing.assert_allclose(found["gradient_square"], square, rtol=0.05)
    np.testing.assert_allclose(found["gradient_noise_scale"], noise / square, rtol=0.05)


@pytest.mark.full
def test_noise_scale_does_not_depend_on_the_batch_size():
    for size in (2, 6):  # the estimates are unbiased at any size
        rows = lambda key, t, data, size=size: jax.tree.map(
            lambda x: x[jax.random.randint(key, (size,), 0, ROWS)], data
        )
        problem = regression(rows)
        monitor = stability.gradient_noise_scale(problem, 1, batches=500, memory=50.0)
        found = descend(problem, sgd(0.0), 40, monitors=[monitor]).statistics
        each = (X @ np.array([1.0, -1.0, 0.5]) - Y)[:, None] * X
        np.testing.assert_allclose(found["gradient_square"], np.sum(each.mean(0) ** 2), rtol=0.05)


@pytest.mark.parametrize("rate", [0.1, 0.4, 0.9])
def test_alpha_of_a_quadratic_is_its_closed_form(rate):
    curvatures, at = np.array([0.5, 2.0]), np.array([1.0, -1.0])
    bowl = problems.quadratic(curvatures.tolist())
    monitor = stability.step_alpha_every(bowl, 1, record=4)
    found = descend(bowl, sgd, 3, hyperparameters={"learning_rate": rate}, start=jnp.asarray(at), monitors=[monitor])
    expected = []
    for _ in range(3):
        g = curvatures * at
        expected.append(rate * np.sum(curvatures * g**2) / np.sum(g**2) - 1)
        at = at - rate * g
    np.testing.assert_allclose(found.statistics["step_alpha_curve"][:3], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.statistics["step_alpha_mean"], np.mean(expected), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.statistics["step_alpha"], expected[-1], rtol=1e-4, atol=1e-5)
    assert np.isnan(found.statistics["step_alpha_curve"][3])  # no update is made at the last loss


def test_alpha_of_adam_is_that_of_the_slopes_along_its_update():
    problem = regression(sample=None)
    run = descend(
        problem, optax.adam, 3, hyperparameters={"learning_rate": 0.3}, record_params=True,
        monitors=[stability.step_alpha_every(problem, 2, record=2)],
    )  # fmt: skip
    w, slope = np.asarray(run.params_history, float), lambda w: X.T @ (X @ w - Y) / ROWS
    expected = [-(slope(w[t + 1]) @ (w[t + 1] - w[t])) / (slope(w[t]) @ (w[t + 1] - w[t])) for t in (0, 2)]
    np.testing.assert_allclose(run.statistics["step_alpha_curve"], expected, rtol=1e-3)


def test_what_cannot_be_measured_is_refused():
    bowl = problems.quadratic([1.0])
    assert_refused(lambda: stability.batch_sharpness_every(bowl, 0), "every=0")
    assert_refused(lambda: stability.batch_sharpness_every(bowl, 1, batches=0), "batches=0")
    assert_refused(lambda: stability.gradient_noise_scale(bowl, 1, batches=1), "batches=1")
    assert_refused(lambda: stability.gradient_noise_scale(bowl, 1, memory=0.5), "memory=0.5")
    assert_refused(lambda: stability.step_alpha_every(bowl, 1, record=-1), "record=-1")
    watched = [stability.gradient_noise_scale(bowl, 1)]
    assert_refused(lambda: descend(bowl, sgd(0.1), 2, monitors=watched), "it has no minibatches. Pass a Problem with")
