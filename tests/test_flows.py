"""The gradient flow and the central flow against closed forms, dense matrices and integrations by NumPy."""

import itertools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from shared import assert_refused, dense_hessian

from gdkit import Learner, Problem, central_flow, gradient_flow, optimizers, problems, sgd
from gdkit.errors import GdkitWarning
from gdkit.stability.flows import complementarity


def test_gradient_flow_of_a_quadratic_decays_exponentially():
    curvatures = np.array([0.5, 1.0, 40.0])  # the last is above 2/η: the flow is stable at every time
    start = np.array([1.0, -2.0, 3.0])
    flow = gradient_flow(
        problems.quadratic(curvatures.tolist()), 25, learning_rate=0.1, start=jnp.asarray(start),
        record_every=10, record_params=True,
    )  # fmt: skip
    assert flow.step.tolist() == [0, 10, 20, 25]
    expected = start * np.exp(-0.1 * np.asarray(flow.step)[:, None] * curvatures)
    np.testing.assert_allclose(flow.params_history, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(flow.loss, 0.5 * (curvatures * expected**2).sum(1), rtol=2e-4, atol=1e-8)
    np.testing.assert_allclose(flow.distance, np.linalg.norm(expected - start, axis=1), rtol=1e-4)


def test_gradient_flow_is_that_of_small_steps_of_numpy():
    end = gradient_flow(problems.rosenbrock(), 5, learning_rate=0.01, start=jnp.array([-0.5, 0.5])).params
    slope = lambda x, y: np.array([2 * (1 - x) + 400 * x * (y - x**2), -200 * (y - x**2)])
    at, dt = np.array([-0.5, 0.5]), 1e-5
    for _ in range(5000):  # the midpoint rule
        at = at + dt * slope(*(at + dt / 2 * slope(*at)))
    np.testing.assert_allclose(end, at, rtol=1e-4)


def valley(rise):
    """½ (4 + a) b² − rise a: sharpness 4 + a, which the slope raises until the oscillation b² = 2 rise balances it."""
    return Problem(lambda p: 0.5 * (4 + p[0]) * p[1] ** 2 - rise * p[0], init=jnp.array([-1.0, 0.0]))


def test_oscillation_balances_the_force_that_sharpens():
    for rise in (0.25, 1.0, 3.0):
        chosen = {"learning_rate": 0.4, "problem.rise": rise}
        flow = central_flow(valley, sgd, 40, hyperparameters=chosen, k=1)
        arrival = 2 / (0.4 * rise)  # steps, to a = 1
        at_edge, below = np.asarray(flow.step) > arrival + 1, np.asarray(flow.step) < arrival - 1
        np.testing.assert_allclose(flow.edge, 5.0, rtol=1e-5)
        np.testing.assert_allclose(flow.sharpness[at_edge, 0], 5.0, rtol=1e-4)
        np.testing.assert_allclose(flow.sharpness[below, 0], 3 + 0.4 * rise * np.asarray(flow.step)[below], rtol=1e-4)
        np.testing.assert_allclose(flow.covariance[at_edge, 0, 0], 2 * rise, rtol=1e-3)
        np.testing.assert_allclose(flow.loss[at_edge], -rise, rtol=1e-4)
        np.testing.assert_allclose(flow.predicted_loss[at_edge], -rise + 0.5 * 5 * 2 * rise, rtol=1e-3)
        np.testing.assert_allclose(flow.eigenvectors[0] ** 2, [0, 1], atol=1e-5)
        assert np.all(flow.covariance[below] == 0)


@pytest.mark.full
def test_two_oscillations_at_the_edge_have_the_covariance_of_theory():
    basis = jnp.asarray(np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0], jnp.float32)

    def loss(p):
        """Curvatures 4 + a and 3 + c of two coordinates, while a and c rise; the eigenvectors are no coordinates."""
        a, b, c, d = basis @ p
        return 0.5 * (4 + a) * b**2 + 0.5 * (3 + c) * d**2 - a - 0.5 * c

    ridge = Problem(loss, init=basis.T @ jnp.array([-1.0, 0.0, -1.0, 0.0]))
    flow = central_flow(ridge, optax.sgd, 60, hyperparameters={"learning_rate": 0.4}, k=2, record_every=60)
    np.testing.assert_allclose(flow.sharpness[-1], [5.0, 5.0], rtol=1e-4)
    u = np.asarray(flow.eigenvectors)
    np.testing.assert_allclose(u @ u.T, np.eye(2), atol=1e-5)
    sigma = np.asarray(basis) @ u.T @ np.asarray(flow.covariance[-1]) @ u @ np.asarray(basis).T
    # b and d have no third derivative in common, so that their covariance changes nothing
    np.testing.assert_allclose(np.diag(sigma), [0.0, 2.0, 0.0, 1.0], atol=0.01)


@pytest.mark.full
def test_too_few_eigenvectors_are_reported():
    bowl = lambda rise: Problem(
        lambda p: p[1] ** 2 + p[2] ** 2 - rise * p[0] + p[0] * (p[1] ** 2 + p[2] ** 2), jnp.zeros(3)
    )
    with pytest.warns(GdkitWarning, match="more than 1 eigenvalues are at 2/η. Raise k"):
        central_flow(bowl, sgd, 9, hyperparameters={"learning_rate": 0.5, "problem.rise": 1.0}, k=1)


@pytest.mark.full
@pytest.mark.parametrize(("substeps", "leaves"), [(1, True), (2, False), (4, False)])
def test_a_flow_that_leaves_the_edge_is_reported(substeps, leaves):
    """The curvature 4 + x of y rises so fast that one substep passes from below 2/η = 5 far beyond it."""
    valley = Problem(lambda p: 0.5 * (4 + p[0]) * p[1] ** 2 - 50 * p[0], jnp.array([-1.0, 0.0]))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        flow = central_flow(valley, sgd, 9, hyperparameters={"learning_rate": 0.4}, k=1, substeps=substeps)
    assert (float(flow.sharpness.max()) > 10) == leaves
    assert any("far above 2/η or not finite at step 1. Raise substeps" in str(w.message) for w in caught) == leaves


@pytest.fixture(scope="module")
def network():
    return problems.mlp("digits", widths=(3,), loss="squared_error", activation="tanh", split=(0.03, 0.0, 0.97))


@pytest.mark.full
def test_sharpness_on_the_flow_is_that_of_the_dense_hessian(network):
    flow = central_flow(network, sgd, 4, hyperparameters={"learning_rate": 0.02}, k=3, record_every=4)
    values = np.linalg.eigvalsh(dense_hessian(network, flow.params))[::-1][:3]
    np.testing.assert_allclose(flow.sharpness[-1], values, rtol=1e-3)
    stable = gradient_flow(network, 4, learning_rate=0.02, record_every=4)
    difference = ravel_pytree(jax.tree.map(jnp.subtract, flow.params, stable.params))[0]
    assert jnp.linalg.norm(difference) < 1e-4 * flow.distance[-1]  # nothing is at the edge
    np.testing.assert_allclose(flow.loss, stable.loss, rtol=1e-5)
    np.testing.assert_array_equal(flow.predicted_loss, flow.loss)


def adam_without_momentum(learning_rate, decay, eps):
    return optax.adam(learning_rate, b1=0.0, b2=decay, eps=eps)


@pytest.mark.parametrize(
    ("factory", "square", "is_corrected", "k"),
    [(optimizers.scalar_rmsprop, np.sum, False, 1), (adam_without_momentum, lambda x: x, True, 2)],
)
def test_second_moments_follow_their_flow_and_rest_at_the_edge(factory, square, is_corrected, k):
    curvatures, rate, decay, eps = np.array([1.0, 3.0]), 0.05, 0.8, 1e-3
    chosen, start = {"learning_rate": rate, "decay": decay, "eps": eps}, np.array([1.0, -2.0])
    bowl = problems.quadratic(curvatures.tolist())
    flow = central_flow(bowl, factory, 120, hyperparameters=chosen, k=k, start=jnp.asarray(start), record_params=True)
    w, nu, fine = start.copy(), (1 - decay) * square((curvatures * start) ** 2), 200
    for i in range(5 * fine):  # Euler's method; nothing is at the edge yet
        root = np.sqrt(nu / (1 - decay ** (i // fine + 1))) if is_corrected else np.sqrt(nu)
        g = curvatures * w
        w, nu = w - rate * g / (root + eps) / fine, nu + (1 - decay) / decay * (square(g**2) - nu) / fine
    np.testing.assert_allclose(flow.params_history[5], w, rtol=1e-3)
    root = np.sqrt(nu / (1 - decay**6)) if is_corrected else np.sqrt(nu)
    np.testing.assert_allclose(flow.sharpness[5, 0], np.max(curvatures / (root + eps)), rtol=2e-3)
    # at rest w = 0, and along the steep coordinate, or along each with its own second moment, 2 P = H with ν = (HΣH)
    np.testing.assert_allclose(flow.edge, 2 / rate, rtol=1e-5)
    np.testing.assert_allclose(flow.sharpness[-1], np.full(k, 2 / rate), rtol=1e-3)
    sigma = np.diag(np.einsum("ij,ia,jb->ab", flow.covariance[-1], flow.eigenvectors, flow.eigenvectors))
    rest = (rate * curvatures / 2 - eps) ** 2 / curvatures**2
    np.testing.assert_allclose(sigma[-k:], rest[-k:], rtol=0.03)


def dense_complementarity(a, b):
    """X ⪰ 0 ⊥ A + B[X] ⪰ 0 by projected gradient steps, in float64; b is (k², k²)."""
    k, x = len(a), np.zeros_like(a)
    for _ in range(5_000):
        x = x - (a + (b @ x.ravel()).reshape(k, k)) / np.linalg.norm(b, 2)
        values, vectors = np.linalg.eigh((x + x.T) / 2)
        x = (vectors * np.maximum(values, 0)) @ vectors.T
    return x


solve = jax.jit(complementarity.solve_complementarity, static_argnums=2)


@pytest.mark.parametrize("k", [2, 3])
def test_small_excess_beside_large_eigenvalues_is_held_exactly(k):
    """One eigenvalue is above the edge by `size`, the others are far below: X = size / b along it, as with k = 1."""
    rows, columns, weights = complementarity.pairs(k)
    for size, angle in itertools.product((1e-2, 1e-4, 1e-5), (0.0, 0.7, 2.0)):
        turn = np.eye(k)
        turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        a = turn @ np.diag([-size, *np.linspace(0.5, 1.0, k - 1)]) @ turn.T
        found = solve(jnp.asarray(weights * a[rows, columns], jnp.float32), 0.3 * jnp.eye(len(rows)), k)
        expected = size / 0.3 * np.outer(turn[:, 0], turn[:, 0])
        rounding = 10 * np.finfo(np.float32).eps  # of entries of about 1
        np.testing.assert_allclose(found, expected, atol=(1e-3 * size + rounding) / 0.3)


@pytest.mark.parametrize("k", [2, 3])
def test_complementarity_is_solved(k):
    rng, (rows, columns, weights) = np.random.default_rng(k), complementarity.pairs(k)
    unit = lambda i, j: np.outer(np.eye(k)[i], np.eye(k)[j])
    basis = [(unit(i, j) + unit(j, i)) * (0.5 if i == j else 0.5**0.5) for i, j in zip(rows, columns, strict=True)]
    tensor = np.reshape(basis, (len(rows), -1))
    for size in (1e-3, 1.0, 1e3):
        a, g = rng.normal(size=(k, k)), rng.normal(size=(len(rows), 2 * len(rows)))
        a, b = size * (a + a.T), g @ g.T / size
        found = solve(jnp.asarray(weights * a[rows, columns]), jnp.asarray(b), k)
        expected = dense_complementarity(a, tensor.T @ b @ tensor)
        np.testing.assert_allclose(found, expected, atol=2e-3 * max(np.abs(expected).max(), 1e-9 * size**2))


@pytest.mark.full
def test_what_has_no_central_flow_is_refused():
    bowl, rate = problems.quadratic([1.0, 2.0]), {"learning_rate": 0.1}
    flow = lambda problem, *arguments, **options: central_flow(problem, *arguments, 3, hyperparameters=rate, **options)
    said = "central flow is not known.*derived for gradient descent, for RMSProp"
    with_momentum = lambda learning_rate: sgd(learning_rate, momentum=0.9)
    with_clipping = lambda learning_rate: optax.chain(optax.clip(0.5), optax.sgd(learning_rate))
    with_decay = lambda learning_rate: optax.adamw(learning_rate, b1=0.0)
    assert_refused(lambda: flow(bowl, with_momentum), said)
    assert_refused(lambda: flow(bowl, with_clipping), said)
    assert_refused(lambda: flow(bowl, with_decay), said)
    noisy = problems.mlp("digits", widths=(2,), batch_size=8)
    assert_refused(lambda: flow(noisy, sgd), "it has sample")
    assert_refused(lambda: gradient_flow(noisy, 3, learning_rate=0.1), "it has sample")
    assert_refused(lambda: central_flow(bowl, sgd, 3, hyperparameters={"learning_rate": 3.0}), "above 2/η = 0.6667")
    assert_refused(lambda: flow(bowl, sgd, k=3), "k=3: there are only 2 params")
    assert_refused(lambda: flow(bowl, sgd, substeps=0), "substeps=0")
    assert_refused(lambda: gradient_flow(bowl, 3, learning_rate=-1.0), "learning_rate=-1.0")
    learner = Learner(lambda key, hyperparameters: jnp.ones(2), lambda state, hyperparameters, t, key, data: None)
    assert_refused(lambda: gradient_flow(learner, 3, learning_rate=0.1), "a Learner has no loss that is a function")
