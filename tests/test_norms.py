"""Sharpness in other norms is the maximum over the unit ball, and limits descent in them."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from shared import assert_refused, dense_hessian, quick

from gdkit import Problem, descend, problems, sgd, stability
from gdkit.stability import directional_smoothness, dual_norm, generalized_sharpness


def quadratic_form(matrix, shape=None):
    """½ ⟨x, A x⟩ of params of a shape, from a start that is not its minimum."""
    matrix = jnp.asarray(matrix, jnp.float32)
    start = jnp.linspace(-1, 2, len(matrix)).reshape(shape or (-1,))
    return Problem(lambda x: 0.5 * x.ravel() @ matrix @ x.ravel(), start)


def random_form(size, seed, rank=None):
    factor = np.random.default_rng(seed).normal(size=(size, rank or size))
    return factor @ factor.T if rank else factor + factor.T


def over_signs(matrix):
    signs = np.array(list(itertools.product([-1, 1], repeat=len(matrix))))
    return np.einsum("si,ij,sj->s", signs, matrix, signs).max()


def over_rotations(matrix):
    """The maximum over orthogonal matrices of 2 × 2, by a grid of angles."""
    angle = np.linspace(0, 2 * np.pi, 20001)
    c, s = np.cos(angle), np.sin(angle)
    factors = np.concatenate([np.stack([c, -s, s, c], 1), np.stack([c, s, s, -c], 1)])
    return np.einsum("si,ij,sj->s", factors, matrix, factors).max()


MATRICES = {
    "positive": random_form(8, 0, rank=3), "indefinite": random_form(8, 1), "diagonal": np.diag(np.arange(1.0, 9)),
    "negative part": random_form(8, 2) - 3 * np.eye(8),
}  # fmt: skip


@pytest.fixture(scope="module")
def search():
    """The search in ℓ∞ as one program for all matrices of 8 params."""
    find = lambda matrix: generalized_sharpness(quadratic_form(matrix), jnp.ones(8), "linf")
    return jax.jit(find)


@pytest.mark.parametrize("name", MATRICES)
def test_linf_is_the_maximum_over_all_signs_between_value_and_bound(name, search):
    matrix = MATRICES[name]
    found, true = search(jnp.asarray(matrix, jnp.float32)), over_signs(matrix)
    share = 0.85 if np.linalg.eigvalsh(matrix)[0] < -1e-6 else 1  # ascents end in local maxima of indefinite forms
    assert share * true * (1 - 1e-4) <= found.value <= true * (1 + 1e-4) and found.converged
    assert true * (1 - 1e-4) <= found.bound <= np.linalg.eigvalsh(matrix)[-1] * 8 * 1.01
    direction = np.asarray(found.direction)
    assert set(np.abs(direction)) == {1.0} and direction @ matrix @ direction == pytest.approx(
        float(found.value), rel=1e-4
    )


def test_the_bound_of_linf_is_tight_where_weights_explain_the_form(search):
    for matrix in (np.diag([9.0, 1, 1, 1, 1, 1, 1, 1]), np.outer(np.arange(1, 9), np.arange(1, 9))):
        found = search(jnp.asarray(matrix, jnp.float32))
        assert found.bound == pytest.approx(float(found.value), rel=0.01)
        assert np.linalg.eigvalsh(matrix)[-1] * 8 > 1.2 * found.bound


@pytest.mark.full
@pytest.mark.parametrize("seed", quick(range(3), 0))
def test_spectral_is_the_maximum_over_orthogonal_matrices(seed):
    matrix = random_form(4, seed, rank=2)
    problem = quadratic_form(matrix, (2, 2))
    found, true = generalized_sharpness(problem, problem.init, "spectral"), over_rotations(matrix)
    assert found.value == pytest.approx(true, rel=1e-3)
    assert true * (1 - 1e-4) <= found.bound <= 2 * np.linalg.eigvalsh(matrix)[-1] * 1.01
    np.testing.assert_allclose(np.linalg.svd(found.direction)[1], 1, rtol=1e-5)


def test_l2_is_the_sharpness_and_the_norms_are_ordered_on_a_network():
    x, y, up, down = np.random.default_rng(0).normal(size=(4, 4, 3, 3)).astype(np.float32)[:, 0]
    problem = Problem(lambda p: jnp.mean((jnp.tanh(x @ p["up"]) @ p["down"] - y) ** 2), {"up": up, "down": down})
    params = problem.init
    find = lambda norm: jax.jit(lambda p: generalized_sharpness(problem, p, norm)[:2])(params)
    (l2, _), (linf, above), (spectral, over) = (find(norm) for norm in ("l2", "linf", "spectral"))
    true = np.linalg.eigvalsh(dense_hessian(problem, params))[-1]
    assert l2 == pytest.approx(true, rel=1e-4)
    assert true < spectral <= over and true < linf <= above  # both balls contain that of the Euclidean norm
    assert spectral < above  # the ball of signs contains the matrices of spectral norm 1


NORMS = {
    "l2": lambda g: g / np.linalg.norm(g),
    "linf": np.sign,
    "spectral": lambda g: (lambda svd: svd[0] @ svd[2])(np.linalg.svd(g, full_matrices=False)),
}


@pytest.mark.parametrize("norm", quick(NORMS, "spectral"))
def test_a_step_lowers_a_loss_below_the_threshold_of_its_smoothness_and_not_above(norm):
    problem = quadratic_form(random_form(6, 3, rank=6), (2, 3))
    x = np.asarray(problem.init, np.float64)
    gradient = np.asarray(jax.grad(problem.loss)(problem.init), np.float64)
    direction = NORMS[norm](gradient)
    dual = float(np.sum(gradient * direction))
    assert dual_norm(jnp.asarray(gradient, jnp.float32), norm) == pytest.approx(dual, rel=1e-5)
    smooth = float(directional_smoothness(problem, problem.init, jnp.asarray(-direction, jnp.float32), norm))
    assert smooth <= generalized_sharpness(problem, problem.init, norm).bound * 1.001
    normalized = stability.stability_threshold({"l2": "normalized", "linf": "sign", "spectral": "muon"}[norm], smooth,
                                               dual_norm=dual)  # fmt: skip
    steepest = stability.stability_threshold("steepest", smooth)
    loss = lambda y: float(problem.loss(jnp.asarray(y, jnp.float32)))
    for rate, length in ((normalized, 1.0), (steepest, dual)):
        assert loss(x - 0.99 * rate * length * direction) < loss(x) < loss(x - 1.01 * rate * length * direction)


@pytest.mark.full
@pytest.mark.parametrize("curvature", quick([0.5, 2.0, 8.0], 2.0))
def test_sign_descent_ends_where_its_rate_is_at_the_threshold(curvature):
    problem, rate, x = problems.quadratic([curvature]), 0.1, 3.03
    for _ in range(60):
        x -= rate * np.sign(x)
    hop = np.mean([abs(x), abs(x - rate * np.sign(x))])  # it hops between two points, of mean distance η/2
    dual = float(dual_norm(jnp.array([curvature * hop]), "linf"))
    sharp = float(generalized_sharpness(problem, jnp.ones(1), "linf").value)
    assert stability.stability_threshold("sign", sharp, dual_norm=dual) == pytest.approx(rate, rel=1e-4)


def test_the_monitor_measures_the_params_of_its_step():
    problem = Problem(lambda x: jnp.sum(x**4) / 12, jnp.array([1.0, 2.0]))  # the Hessian is diag(x²)
    watched = [stability.generalized_sharpness_every(problem, 2, "linf", record=2)]
    run = descend(problem, sgd(0.0), 3, monitors=watched)
    np.testing.assert_allclose(run.statistics["sharpness_linf_curve"], [5.0, 5.0], rtol=1e-4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: generalized_sharpness(problems.beale(), jnp.ones(2), "l1"), "norm='l1'"),
        (lambda: generalized_sharpness(problems.beale(), jnp.ones(2), starts=0), "starts=0"),
        (lambda: dual_norm(jnp.ones(2), "max"), "norm='max'"),
        (lambda: directional_smoothness(problems.beale(), jnp.ones(2), jnp.ones(2), "l3"), "norm='l3'"),
        (lambda: stability.stability_threshold("sign", 1.0), "dual_norm"),
        (lambda: stability.generalized_sharpness_every(problems.beale(), 2, "l7"), "norm='l7'"),
    ],
)
def test_bad_input_is_named(call, message):
    assert_refused(call, message)
