"""Spectra of the Hessian and of the Gauss-Newton matrix are those of dense linear algebra."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from shared import assert_refused, dense_hessian, quick

from gdkit import Problem, descend, problems, sgd, stability, sweep
from gdkit.problems import ModelLoss

QUADRATIC = problems.quadratic([-3.0, -3.0, 0.5, 1.0, 4.0, 4.0])


def dense_gauss_newton(problem, params):
    """JᵀH_outJ with J and H_out written down whole, and the Hessian of the penalty, (n, n) float64."""
    vector, unravel = ravel_pytree(params)
    outputs = lambda v: ravel_pytree(problem.loss.outputs(unravel(v), problem.data))[0]
    shape = jax.eval_shape(lambda v: problem.loss.outputs(unravel(v), problem.data), vector)
    loss = lambda flat: problem.loss.loss(flat.reshape(shape.shape), problem.data)
    jacobian, bend = np.asarray(jax.jacobian(outputs)(vector)), np.asarray(jax.hessian(loss)(outputs(vector)))
    penalty = problem.loss.penalty or (lambda params: 0.0)
    return jacobian.T @ bend @ jacobian + np.asarray(jax.hessian(lambda v: penalty(unravel(v)))(vector))


@pytest.fixture(scope="module", params=quick(["squared_error", "penalty"], "penalty"))
def network(request):
    """A problem, a start of it, and its dense matrices by name."""
    if request.param == "penalty":
        problem = problems.logistic_regression("iris", l2=0.3)
        params = jax.tree.map(lambda x: jnp.asarray(x) + 0.1, problem.init)
    else:
        problem = problems.mlp("iris", widths=(4,), activation="tanh", loss="squared_error")
        params = problem.init(jax.random.key(1))
    dense = {"hessian": dense_hessian(problem, params), "gauss_newton": dense_gauss_newton(problem, params)}
    return problem, params, dense


def rows_of(vectors):
    return np.concatenate([np.asarray(leaf).reshape(len(leaf), -1) for leaf in jax.tree.leaves(vectors)], axis=1)


@pytest.mark.parametrize(
    ("which", "expected"),
    [("largest", [4, 4, 1]), ("smallest", [-3, -3, 0.5]), ("both", [4, 4, 1, 0.5, -3, -3])],
)
def test_either_end_has_its_multiplicities_and_orthonormal_vectors(which, expected):
    found = stability.sharpness(QUADRATIC, jnp.ones(6), 3, which=which)
    np.testing.assert_allclose(found.values, expected, atol=1e-3)
    vectors = np.asarray(found.vectors)
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(len(expected)), atol=1e-5)
    curvature = np.array([-3.0, -3.0, 0.5, 1.0, 4.0, 4.0])
    left_over = np.linalg.norm(vectors * curvature - np.asarray(found.values)[:, None] * vectors, axis=1)
    np.testing.assert_allclose(left_over, found.residuals, atol=1e-4)
    assert found.converged.all()


def test_values_and_vectors_of_both_matrices_are_the_dense_ones(network):
    problem, params, dense = network
    search = lambda find: jax.jit(lambda params: find(problem, params, 2, which="both"))(params)
    for name, find in (("hessian", stability.sharpness), ("gauss_newton", stability.gauss_newton)):
        found, true = search(find), np.linalg.eigvalsh(dense[name])[::-1]
        np.testing.assert_allclose(found.values, true[[0, 1, -2, -1]], atol=1e-3 * true[0])
        rows = rows_of(found.vectors)
        left_over = np.linalg.norm(dense[name] @ rows.T - rows.T * np.asarray(found.values), axis=0)
        np.testing.assert_allclose(left_over, found.residuals, atol=1e-4 * true[0])


def test_products_are_those_of_the_dense_matrices(network):
    problem, params, dense = network
    tangent = jax.tree.map(lambda x: jnp.linspace(-1, 1, x.size).reshape(x.shape), params)
    for name, matrix in dense.items():
        pushed = stability.curvature_product(problem, params, matrix=name)(tangent)
        assert jax.tree.map(jnp.shape, pushed) == jax.tree.map(jnp.shape, params)
        expected = matrix @ np.asarray(ravel_pytree(tangent)[0])
        np.testing.assert_allclose(ravel_pytree(pushed)[0], expected, atol=2e-5 * np.abs(expected).max())


def test_the_trace_is_within_its_standard_error_and_exact_with_a_product_per_param(network):
    problem, params, dense = network
    size = len(dense["hessian"])
    for name, matrix in dense.items():
        exact = stability.trace(problem, params, matrix=name, products=size)
        np.testing.assert_allclose(exact.value, np.trace(matrix), rtol=1e-4)
        assert exact.error == 0 and exact.products == size


def test_the_trace_is_within_two_standard_errors_as_often_as_it_says():
    diagonal = np.linspace(-1, 1, 120) + np.where(np.arange(120) < 3, 50.0, 0.0)
    problem = problems.quadratic(diagonal.tolist())
    estimate = jax.jit(jax.vmap(lambda key: stability.trace(problem, jnp.ones(120), products=48, key=key)[:2]))
    # signs give a diagonal matrix exactly: turn it
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(120, 120)))[0]
    matrix = jnp.asarray((turn * diagonal) @ turn.T, jnp.float32)
    problem = Problem(lambda x: 0.5 * x @ (matrix @ x), jnp.ones(120))
    value, error = estimate(jax.random.split(jax.random.key(0), 200))
    within = np.abs(np.asarray(value) - diagonal.sum()) <= 2 * np.asarray(error)
    assert within.mean() > 0.95 - 3 * np.sqrt(0.95 * 0.05 / 200) - 0.02  # of Student's t at 15 degrees of freedom
    hutchinson = np.sqrt(2 * (np.linalg.norm(matrix) ** 2 - np.sum(np.diag(matrix) ** 2)) / 48)
    assert np.median(error) < hutchinson / 3  # the three large eigenvalues count exactly


@pytest.mark.full
@pytest.mark.parametrize("network", ["squared_error"], indirect=True)
def test_spectral_density_has_the_moments_and_counts_of_the_dense_matrix(network):
    problem, params, dense = network
    size = len(dense["hessian"])
    find = jax.jit(lambda params: stability.spectral_density(problem, params, probes=64, depth=min(size, 16))[:2])
    found, true = stability.SpectralDensity(*find(params), size), np.linalg.eigvalsh(dense["hessian"])
    for power in (0, 1, 2):
        mean, error = found.moment(power)
        assert abs(mean - np.mean(true**power)) <= 3 * error + 1e-5
    above, error = found.count_above(float(true[-3] + true[-2]) / 2)
    assert abs(above - 2) <= 3 * error
    points = np.linspace(true[0] - 1, true[-1] + 1, 2001)
    assert np.trapezoid(found.density(points, width=0.05), points) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("depth", [{}, {"depth": 3}, {"depth": 20}])  # no more than the params are used
def test_lanczos_as_deep_as_the_matrix_finds_every_eigenvalue(depth):
    found = stability.spectral_density(problems.quadratic([-2.0, 1.0, 5.0]), jnp.ones(3), probes=2, **depth)
    np.testing.assert_allclose(found.nodes, [[-2, 1, 5]] * 2, atol=1e-4)
    np.testing.assert_allclose(found.weights.sum(axis=1), 1, rtol=1e-5)


def test_hessian_and_gauss_newton_agree_as_the_loss_vanishes():
    x, y = np.eye(4, dtype=np.float32), np.arange(4.0, dtype=np.float32)
    model = ModelLoss(lambda w, b: jnp.tanh(b[0] @ w), lambda out, b: jnp.mean((out - b[1]) ** 2))
    fit = np.arctanh(y / 5)
    problem = Problem(model, jnp.asarray(fit), data=(x, np.tanh(fit)))
    for off, share in ((0.1, 0.2), (0.01, 0.02), (0.0, 1e-5)):
        at = jnp.asarray(fit + off)
        hessian, newton = dense_hessian(problem, at), dense_gauss_newton(problem, at)
        assert np.linalg.norm(hessian - newton) <= share * np.linalg.norm(hessian) * 2


@pytest.mark.full
def test_monitors_measure_every_lane():
    monitors = [
        stability.sharpness_every(QUADRATIC, 2, which="smallest", iterations=6),
        stability.trace_every(QUADRATIC, 2),
        stability.spectral_density_every(QUADRATIC, 2),
    ]
    result = sweep(QUADRATIC, sgd, {"learning_rate": [0.01, 0.02]}, steps=3, monitors=monitors, curve_points=0)
    np.testing.assert_allclose(result.lanes["smallest_curvature"].values, -3, rtol=1e-3)
    np.testing.assert_allclose(result.lanes["trace"].values, 3.5, rtol=1e-5)
    whole = np.broadcast_to([-3, -3, 0.5, 1, 4, 4], (2, 2, 6))
    np.testing.assert_allclose(result.lanes["spectral_nodes"].values, whole, atol=2e-3)


@pytest.mark.parametrize("network", ["penalty"], indirect=True)
def test_the_gauss_newton_monitor_measures_the_batch_of_the_step(network):
    problem, params, dense = network
    problem = dataclasses.replace(problem, init=params)
    watched = [stability.gauss_newton_every(problem, 5), stability.trace_every(problem, 5, matrix="gauss_newton")]
    run = descend(problem, sgd(0.0), 2, monitors=watched)
    assert run.statistics["gauss_newton"] == pytest.approx(np.linalg.eigvalsh(dense["gauss_newton"])[-1], rel=1e-3)
    assert run.statistics["gauss_newton_trace"] == pytest.approx(np.trace(dense["gauss_newton"]), rel=1e-3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: stability.sharpness(QUADRATIC, jnp.ones(6), which="top"), "which='top'"),
        (
            lambda: stability.sharpness(QUADRATIC, jnp.ones(6), 4, which="both"),
            "6 eigenvalues, and both ends take k",
        ),
        (lambda: stability.gauss_newton(QUADRATIC, jnp.ones(6)), "not a model and a loss of its outputs.*ModelLoss"),
        (lambda: stability.trace(QUADRATIC, jnp.ones(6), matrix="fisher"), "matrix='fisher'"),
        (lambda: stability.trace(QUADRATIC, jnp.ones(6), products=5), "products=5"),
        (lambda: stability.spectral_density(QUADRATIC, jnp.ones(6), probes=1, depth=2), "probes=1"),
        (lambda: stability.curvature_product(problems.quadratic, jnp.ones(6)), "not a Problem"),
        (lambda: stability.sharpness_every(QUADRATIC, 2, which="both"), "which='both'"),
        (lambda: stability.trace_every(QUADRATIC, 2, products=1), "products=1"),
        (lambda: stability.spectral_density_every(QUADRATIC, 0), "every=0"),
    ],
)
def test_bad_input_is_named(call, message):
    assert_refused(call, message)
