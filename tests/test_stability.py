"""Curvature, multipliers and critical learning rates equal dense linear algebra and closed forms."""

import dataclasses
import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from shared import dense_hessian, quick

from gdkit import Problem, Regime, descend, problems, sgd, stability, sweep
from gdkit.binding import get_arrays
from gdkit.descent import initial_state, split_key, step_map
from gdkit.errors import InputTypeError, InputValueError


def matrix_problem(matrix):
    """½ xᵀ A x, as a problem whose data is A."""
    return Problem(lambda x, a: 0.5 * x @ (a @ x), jnp.ones(len(matrix)), data=jnp.asarray(matrix, jnp.float32))


def random_symmetric(eigenvalues, seed):
    n = len(eigenvalues)
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(n, n)))
    return (q * np.asarray(eigenvalues)) @ q.T


@pytest.fixture(scope="module")
def network():
    """A tanh network of 99 params on real data, three starts of it as lanes, and what sharpness finds at each."""
    problem = problems.mlp("iris", widths=(12,), activation="tanh")
    start = problem.init(jax.random.key(0))
    lanes = jax.tree.map(lambda p: jnp.stack([0.5 * p, p, 1.5 * p]), start)
    return problem, lanes, jax.jit(jax.vmap(lambda p: stability.sharpness(problem, p, 2, tolerance=1e-5)))(lanes)


# Sharpness


@jax.jit
def _top_three(matrix, key):
    problem = Problem(lambda x: 0.5 * x @ (matrix @ x), np.ones(6, np.float32))
    return stability.sharpness(problem, jnp.ones(6), 3, key=key)


spectra = st.one_of(
    st.lists(st.floats(-8, 8, width=32), min_size=6, max_size=6),
    st.lists(st.sampled_from([-2.0, 0.0, 0.0, 1.0, 3.0]), min_size=6, max_size=6),  # multiple eigenvalues
    st.lists(st.floats(-8, -0.125, width=32), min_size=6, max_size=6),  # a maximum
)


@settings(max_examples=60, deadline=None)
@given(spectra, st.integers(0, 99))
@example([0.0] * 6, 0)
@example([-1.0] * 6, 1)
@example([3.0, 3.0, 2.0, 0.0, 0.0, 0.0], 2)
@example([5.0, 0.0, 0.0, 0.0, 0.0, 0.0], 3)
def test_sharpness_equals_dense_eigenvalues_with_their_multiplicity(eigenvalues, seed):
    matrix = random_symmetric(eigenvalues, seed).astype(np.float32)
    spectrum = _top_three(matrix, jax.random.key(seed))
    true = np.linalg.eigvalsh(matrix.astype(np.float64))
    scale = np.abs(true).max()
    np.testing.assert_allclose(spectrum.values, true[::-1][:3], atol=2e-4 * scale + 1e-30)
    assert spectrum.converged.all() and spectrum.products <= 6


_sharpness_of_one_dimension = jax.jit(lambda c: stability.sharpness(Problem(lambda x: c / 2 * x**2, 1.0), 3.0))


@pytest.mark.parametrize("curvature", [7.0, -7.0, 0.0, 1e-6])
def test_sharpness_of_one_dimension_is_its_second_derivative(curvature):
    spectrum = _sharpness_of_one_dimension(curvature)
    np.testing.assert_allclose(spectrum.values, [curvature], rtol=1e-6)
    assert spectrum.converged.all() and spectrum.products == 1


@pytest.mark.parametrize("lane", quick([0, 2], 2))
def test_sharpness_of_a_network_equals_the_dense_hessian_of_each_lane(network, lane):
    problem, lanes, spectra = network
    true = np.linalg.eigvalsh(dense_hessian(problem, jax.tree.map(lambda p: p[lane], lanes)))[::-1]
    np.testing.assert_allclose(spectra.values[lane], true[:2], rtol=1e-4)
    assert spectra.converged.all() and (spectra.products < 64).all()


def test_sharpness_says_that_it_did_not_converge():
    close = problems.quadratic(list(1 + np.arange(400) / 400))
    spectrum = stability.sharpness(close, close.init, tolerance=1e-6, max_iterations=5)
    assert not spectrum.converged.any() and spectrum.products == 5
    assert spectrum.residuals[0] > 1e-6 * 2


def test_sharpness_of_a_loss_that_is_not_finite_is_not_converged():
    spectrum = stability.sharpness(Problem(lambda x: jnp.sum(jnp.log(x)), jnp.ones(3)), -jnp.zeros(3))
    assert not spectrum.converged.any()


@pytest.mark.full
def test_sharpness_of_lanes_takes_eigenvalues_of_one_matrix_after_the_other():
    # LAPACK's batched eigh on CPU can make two programs that run side by side wait for each other
    lanes = jax.vmap(lambda x: stability.sharpness(problems.quadratic([1.0, 4.0, 9.0]), x).values[0])
    lowered = jax.jit(lanes).lower(jnp.ones((64, 3))).as_text()
    assert re.findall(r'syevd.*?num_batch_dims = "(\d+)"', lowered) == ["0"]
    np.testing.assert_allclose(lanes(jnp.ones((64, 3))), 9.0, rtol=1e-5)


@pytest.mark.full
def test_sharpness_equals_that_of_matfree():
    decomp = pytest.importorskip("matfree.decomp", reason="matfree is the cross-check of the Lanczos iteration")
    matrix = jnp.asarray(random_symmetric(np.linspace(-3, 10, 40), 0), jnp.float32)
    lanczos = decomp.tridiag_sym(30)
    T = lanczos(lambda v: matrix @ v, jnp.ones(40)).J_small
    peer = jnp.linalg.eigvalsh(T)[-1]
    ours = stability.sharpness(matrix_problem(matrix), jnp.ones(40), max_iterations=30)
    np.testing.assert_allclose(ours.values[0], peer, rtol=1e-4)


@pytest.mark.parametrize(
    ("problem", "params", "options", "error", "message"),
    [
        (problems.parabola(), 3, {}, InputTypeError, "has no derivative"),
        (problems.parabola(), 3j, {}, InputTypeError, "has no derivative"),
        (problems.parabola(), {}, {}, InputValueError, "no leaves"),
        (problems.parabola(), 3.0, {"k": 2}, InputValueError, "only 1 eigenvalues"),
        (problems.parabola(), 3.0, {"k": 0}, InputValueError, "k=0: must be at least 1"),
        (
            problems.parabola(),
            3.0,
            {"tolerance": 0.0},
            InputValueError,
            "tolerance=0.0: must be a finite number",
        ),
        (problems.parabola(), 3.0, {"tolerance": float("nan")}, InputValueError, "tolerance=nan"),
        (problems.parabola(), 3.0, {"tolerance": "x"}, InputTypeError, "tolerance='x': not a number"),
        (problems.beale(), jnp.ones(2), {"k": 2, "max_iterations": 1}, InputValueError, "too few for 2"),
        (problems.parabola, 3.0, {}, InputTypeError, "not a Problem"),
    ],
)
def test_sharpness_names_bad_input(problem, params, options, error, message):
    with pytest.raises(error, match=message):
        stability.sharpness(problem, params, **options)


# Thresholds


def spectral_radius_by_hand(family, rate, curvature, beta):
    """The step map of a quadratic, written out as a matrix on (x, velocity)."""
    if family == "sgd":
        return abs(1 - rate * curvature)
    if family == "momentum":
        matrix = [[1 - rate * curvature, -rate * beta], [curvature, beta]]
    elif family == "nesterov":
        matrix = [[1 - rate * curvature * (1 + beta), -rate * beta**2], [curvature, beta]]
    else:
        matrix = [[1 - rate * (1 - beta) * curvature, -rate * beta], [(1 - beta) * curvature, beta]]
    return np.abs(np.linalg.eigvals(matrix)).max()


@pytest.mark.parametrize("family", ["sgd", "momentum", "nesterov", "adam"])
@pytest.mark.parametrize("curvature", [0.5, 20.0])
@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9])
def test_stability_threshold_is_where_the_spectral_radius_leaves_one(family, curvature, beta):
    options = {"sgd": {}, "adam": {"b1": beta}}.get(family, {"momentum": beta})
    rate = stability.stability_threshold(family, curvature, **options)
    np.testing.assert_allclose(spectral_radius_by_hand(family, rate, curvature, beta), 1, rtol=1e-9)
    assert spectral_radius_by_hand(family, rate * 1.01, curvature, beta) > 1


def test_stability_threshold_takes_arrays_and_knows_no_border_without_curvature():
    np.testing.assert_array_equal(stability.stability_threshold("sgd", np.array([2.0, 0.0, -1.0])), [1, np.inf, np.nan])
    traced = jax.jit(lambda c: stability.stability_threshold("momentum", c, momentum=0.9))(jnp.asarray([2.0, -1.0]))
    np.testing.assert_allclose(traced, [1.9, np.nan], rtol=1e-6)


@pytest.mark.parametrize(
    ("family", "options", "message"),
    [
        ("sdg", {}, "Did you mean 'sgd'"),
        ("sgd", {"momentum": 0.9}, "momentum"),
        ("momentum", {}, "its threshold depends on momentum"),
        ("adam", {"b3": 0.9}, "Did you mean 'b1'"),
    ],
)
def test_stability_threshold_names_bad_input(family, options, message):
    with pytest.raises(InputValueError, match=message):
        stability.stability_threshold(family, 1.0, **options)


# Multipliers


def state_at(problem, factory, hyperparameters, params=None):
    """The first state of a run, at other params."""
    state = initial_state(problem, factory, hyperparameters, split_key(0)[0], get_arrays(problem))
    return state if params is None else state._replace(params=params)


FAMILIES = {"sgd": {}, "momentum": {"momentum": 0.9}, "nesterov": {"momentum": 0.9}}


def sgd_of(family):
    return functools.partial(sgd, nesterov=True) if family == "nesterov" else sgd


@pytest.mark.parametrize(
    ("dimension", "family"),  # the whole Jacobian, and Arnoldi
    quick(
        list(itertools.product([5, 120], FAMILIES)),
        *[(5, "momentum"), (5, "nesterov"), (120, "sgd"), (120, "nesterov")],
    ),
)
def test_spectral_radius_is_one_at_the_threshold_of_theory(family, dimension):
    problem = problems.quadratic(dimension=dimension, condition_number=20.0)
    rate = stability.stability_threshold(family, 20.0, **FAMILIES[family])
    chosen = {"learning_rate": rate, **FAMILIES[family]}
    state = state_at(problem, sgd_of(family), chosen)
    spectra = stability.multipliers(problem, sgd_of(family), state, hyperparameters=chosen)
    assert spectra.farthest.converged.all() and spectra.frozen == ()
    np.testing.assert_allclose(spectra.farthest.values, [-1], rtol=1e-4)
    if spectra.largest.converged.all():
        np.testing.assert_allclose(np.abs(spectra.largest.values), [1], rtol=1e-4)
    assert dimension > 64 or spectra.largest.converged.all()


def adam_state(problem, chosen, second_moment):
    """Adam at the minimum of a quadratic after so many steps that its bias correction is gone."""
    start = state_at(problem, optax.adam, chosen, jnp.zeros_like(problem.init))
    moments = start.opt_state[0]._replace(count=jnp.int32(10**6), nu=jnp.asarray(second_moment, jnp.float32))
    return start._replace(opt_state=(moments, *start.opt_state[1:]))


def test_adam_leaves_the_unit_circle_at_the_threshold_of_its_frozen_preconditioner():
    curvatures, second_moment = np.array([1.0, 3.0, 8.0]), np.array([0.5, 2.0, 1.0])
    problem = problems.quadratic(list(curvatures))
    # at the minimum the gradient is zero, so that the next second moment is b2 times this one
    top = (curvatures / (np.sqrt(0.999 * second_moment) + 1e-8)).max()
    chosen = {"learning_rate": stability.stability_threshold("adam", top, b1=0.9)}
    state = adam_state(problem, chosen, second_moment)
    spectra = stability.multipliers(problem, optax.adam, state, hyperparameters=chosen)
    assert [name.rpartition(".")[2] for name in spectra.frozen] == ["nu"]
    np.testing.assert_allclose(spectra.farthest.values, [-1], rtol=1e-4)
    np.testing.assert_allclose(np.abs(spectra.largest.values), [1], rtol=1e-4)


@pytest.mark.parametrize("factory", [optax.adam, optax.adamw, optax.rmsprop, optax.adagrad, optax.amsgrad, optax.yogi])
def test_multipliers_are_finite_at_a_second_moment_of_zero(factory):
    problem = Problem(lambda x: 0.5 * jnp.sum(jnp.array([2.0, 0.0]) * x**2), jnp.ones(2))  # one slope is always zero
    chosen = {"learning_rate": 0.1} | ({"initial_accumulator_value": 0.0} if factory is optax.adagrad else {})
    spectra = stability.multipliers(problem, factory, state_at(problem, factory, chosen), hyperparameters=chosen)
    assert np.isfinite(spectra.farthest.values).all() and spectra.frozen


def test_multipliers_that_are_not_finite_say_so():
    problem = Problem(lambda x: jnp.sum(jnp.log(x)), jnp.zeros(2))
    lost = stability.multipliers(problem, sgd(0.1), state_at(problem, sgd(0.1), {}))
    assert np.isnan(lost.farthest.values).all() and not lost.largest.converged.any()


def test_unfrozen_multipliers_of_rmsprop_are_those_of_the_whole_state():
    problem, decay, rate = problems.quadratic([2.0]), 0.9, 0.05
    chosen = {"learning_rate": rate, "decay": decay}
    state = state_at(problem, optax.rmsprop, chosen)
    state = jax.tree.map(lambda x: jnp.full_like(x, 0.7) if x.dtype == jnp.float32 else x, state)
    spectra = stability.multipliers(problem, optax.rmsprop, state, 2, hyperparameters=chosen, freeze=False)
    x = v = 0.7

    def step(x, v):
        v = decay * v + (1 - decay) * (2 * x) ** 2
        return np.array([x - rate * 2 * x / np.sqrt(v + 1e-8), v])

    h = 1e-5
    jacobian = np.stack([step(x + h, v) - step(x - h, v), step(x, v + h) - step(x, v - h)], axis=1) / (2 * h)
    np.testing.assert_allclose(np.sort(spectra.largest.values.real), np.sort(np.linalg.eigvals(jacobian)), rtol=1e-4)
    assert spectra.frozen == ()


def test_most_negative_multiplier_of_sgd_on_a_network_is_one_minus_rate_times_sharpness(network):
    problem, lanes, sharp = network
    params, rate = jax.tree.map(lambda p: p[1], lanes), 0.3
    chosen = {"learning_rate": rate}
    spectra = stability.multipliers(
        problem, sgd, state_at(problem, sgd, chosen, params), 2, hyperparameters=chosen, max_iterations=64
    )
    assert spectra.farthest.converged.all()
    np.testing.assert_allclose(spectra.farthest.values, 1 - rate * sharp.values[1], rtol=1e-3)


@pytest.mark.parametrize("dimension", [30, 60])  # states of 60 numbers, whose whole Jacobian is formed, and of 120
def test_multipliers_of_heavy_ball_are_the_roots_of_its_polynomials(dimension):
    curvatures = np.geomspace(1.0, 50.0, dimension)
    problem, chosen = problems.quadratic(curvatures), {"learning_rate": 0.03, "momentum": 0.5}
    spectra = stability.multipliers(problem, sgd, state_at(problem, sgd, chosen), 3, hyperparameters=chosen)
    roots = np.concatenate([np.roots([1, -(1.5 - 0.03 * curvature), 0.5]) for curvature in curvatures])
    for spectrum, size in ((spectra.farthest, np.abs(roots - 1)), (spectra.largest, np.abs(roots))):
        assert spectrum.converged.all()
        np.testing.assert_allclose(np.abs(spectrum.values), np.abs(roots[np.argsort(-size)[:3]]), atol=2e-3)


@pytest.mark.parametrize(
    ("state", "options", "error", "message"),
    [
        (None, {}, InputTypeError, "state=None: not a State"),
        ("momentum", {}, InputValueError, "not the state of this optimizer"),
        ("plain", {"k": 3}, InputValueError, "only 2 eigenvalues"),
        ("plain", {"hyperparameters": {"learning_rat": 0.1}}, InputValueError, "Did you mean 'learning_rate'"),
    ],
)
def test_multipliers_name_bad_input(state, options, error, message):
    problem = problems.quadratic([1.0, 2.0])
    chosen = {"momentum": {"momentum": 0.9}}.get(state, {})
    if state is not None:
        state = state_at(problem, sgd, {"learning_rate": 0.1, **chosen})
    with pytest.raises(error, match=message):
        stability.multipliers(problem, sgd, state, **{"hyperparameters": {"learning_rate": 0.1}, **options})


# Monitors


QUADRATIC = problems.quadratic([0.2, 1.0, 3.0])


@pytest.mark.parametrize("rate", [0.001, 0.1, 0.5, 0.6, 0.66])
def test_lyapunov_exponent_of_a_quadratic_is_the_log_of_its_largest_multiplier(rate):
    watched = [stability.lyapunov_exponent(QUADRATIC, sgd)]
    run = descend(QUADRATIC, sgd, 2000, hyperparameters={"learning_rate": rate}, monitors=watched)
    true = np.log(np.abs(1 - rate * np.array([0.2, 1.0, 3.0])).max())
    np.testing.assert_allclose(run.statistics["lyapunov_exponent"], true, atol=1e-3)


@pytest.mark.parametrize("momentum", [0.5, 0.9])
def test_lyapunov_exponent_counts_the_optimizers_state(momentum):
    chosen = {"learning_rate": 0.1, "momentum": momentum}
    watched = [stability.lyapunov_exponent(QUADRATIC, sgd, burn_in=500)]
    run = descend(QUADRATIC, sgd, 4000, hyperparameters=chosen, monitors=watched)
    true = np.log(max(spectral_radius_by_hand("momentum", 0.1, c, momentum) for c in (0.2, 1.0, 3.0)))
    np.testing.assert_allclose(run.statistics["lyapunov_exponent"], true, atol=1e-3)


def test_lyapunov_exponent_of_a_step_that_forgets_everything_is_minus_infinity():
    watched = [stability.lyapunov_exponent(problems.parabola(), sgd, burn_in=0)]
    run = descend(problems.parabola(), sgd, 5, hyperparameters={"learning_rate": 0.5}, monitors=watched)
    assert run.statistics["lyapunov_exponent"] == -np.inf


def test_lyapunov_exponent_is_not_a_number_before_its_burn_in():
    watched = [stability.lyapunov_exponent(problems.parabola(), sgd)]
    run = descend(problems.parabola(), sgd, 5, hyperparameters={"learning_rate": 0.5}, monitors=watched)
    assert np.isnan(run.statistics["lyapunov_exponent"])


def test_sharpness_every_is_that_of_the_params_at_its_steps():
    problem, every = problems.rosenbrock(), 7
    watched = [stability.sharpness_every(problem, every)]
    chosen = {"learning_rate": 1e-3}
    run = descend(problem, sgd, 40, hyperparameters=chosen, monitors=watched, record_params=True)
    hessians = [dense_hessian(problem, run.params_history[t]) for t in range(0, 41, every)]
    tops = [np.linalg.eigvalsh(h)[-1] for h in hessians]
    np.testing.assert_allclose(run.statistics["sharpness"], tops[-1], rtol=1e-4)
    np.testing.assert_allclose(run.statistics["sharpness_max"], max(tops), rtol=1e-4)
    assert "sharpness_curve" not in run.statistics


@pytest.mark.full
@pytest.mark.parametrize("record", quick([3, 8], 3))  # of 6 that are taken
def test_sharpness_every_records_the_first_of_its_curve(record):
    problem, every, chosen = problems.rosenbrock(), 7, {"learning_rate": 1e-3}
    watched = [stability.sharpness_every(problem, every, record=record)]
    run = descend(problem, sgd, 40, hyperparameters=chosen, monitors=watched, record_params=True, record_every=every)
    tops = [np.linalg.eigvalsh(dense_hessian(problem, params))[-1] for params in run.params_history[:6]]
    expected = np.append(tops, [np.nan, np.nan])[:record]
    np.testing.assert_allclose(run.statistics["sharpness_curve"], expected, rtol=1e-4)
    np.testing.assert_allclose(run.statistics["sharpness"], tops[-1], rtol=1e-4)


def test_monitors_of_a_sweep_are_those_of_each_lane():
    rates = np.array([0.1, 0.6])
    watched = [stability.sharpness_every(QUADRATIC, 10), stability.lyapunov_exponent(QUADRATIC, sgd, burn_in=50)]
    result = sweep(QUADRATIC, sgd, {"learning_rate": list(rates)}, steps=99, monitors=watched)
    true = np.log(np.abs(1 - rates[:, None] * [0.2, 1.0, 3.0]).max(axis=1))
    np.testing.assert_allclose(np.ravel(result.data["lyapunov_exponent"]), true, atol=1e-3)
    np.testing.assert_allclose(np.ravel(result.data["sharpness"]), [3.0, 3.0], rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: stability.sharpness_every(QUADRATIC, 0), InputValueError, "every=0: must be at least 1"),
        (lambda: stability.sharpness_every(QUADRATIC, 5, iterations=2.5), InputTypeError, "iterations=2.5"),
        (lambda: stability.sharpness_every(QUADRATIC, 5, record=-1), InputValueError, "record=-1: must be at least 0"),
        (lambda: stability.preconditioned_sharpness_every(QUADRATIC, sgd, 0), InputValueError, "every=0"),
        (lambda: stability.lyapunov_exponent(QUADRATIC, sgd, burn_in=-1), InputValueError, "burn_in=-1"),
    ],
)
def test_monitors_name_bad_input(make, error, message):
    with pytest.raises(error, match=message):
        make()


# The critical learning rate


def quadratic_of(largest: float = 1.0, log_condition: float = 0.0):
    ratios = 10.0 ** (-log_condition * jnp.linspace(0.0, 1.0, 20))
    return Problem(lambda x: 0.5 * jnp.sum(largest * ratios * x**2), jnp.ones(20), optimum=0.0)


@settings(max_examples=20, deadline=None)
@given(st.floats(0.125, 64, width=32), st.floats(0, 4, width=32))
def test_critical_learning_rate_of_a_quadratic_is_two_over_its_curvature(largest, log_condition):
    critical = stability.critical_learning_rate(
        quadratic_of,
        sgd,
        low=0.01 / largest,
        high=30 / largest,
        steps=1500,
        rtol=5e-3,
        hyperparameters={"problem.largest": largest, "problem.log_condition": log_condition},
    )
    assert critical.value == pytest.approx(2 / largest, rel=5e-3)
    assert critical.simple and critical.bracket[0] < critical.bracket[1] <= critical.bracket[0] * 1.005 * (1 + 1e-6)


@pytest.mark.parametrize(("family", "dimension"), [("momentum", 1), ("nesterov", 7)])
def test_critical_learning_rate_with_momentum_is_that_of_theory(family, dimension):
    problem = problems.quadratic(list(np.geomspace(3.0, 0.01, dimension)))
    chosen = {"momentum": 0.5}
    critical = stability.critical_learning_rate(
        problem, sgd_of(family), low=0.01, high=10.0, steps=1500, rtol=5e-3, hyperparameters=chosen
    )
    assert critical.value == pytest.approx(stability.stability_threshold(family, 3.0, **chosen), rel=5e-3)


@pytest.mark.full
def test_critical_learning_rate_of_a_network_is_that_of_a_brute_force_sweep(key):
    problem = problems.mlp("iris", widths=(4,), activation="tanh", loss="squared_error")
    problem = dataclasses.replace(problem, init=problem.init(key))  # the same start in both
    critical = stability.critical_learning_rate(problem, sgd, low=0.01, high=100.0, steps=200, rtol=0.02)
    rates = critical.value * np.geomspace(0.9, 1.2, 24)
    result = sweep(problem, sgd, {"learning_rate": list(rates)}, steps=200)
    border = rates[np.flatnonzero(np.ravel(result.regimes) != Regime.DIVERGED)[-1]]
    assert critical.value == pytest.approx(border, rel=0.02)


def test_critical_learning_rate_compiles_one_program():
    traces = []

    def loss(x):
        traces.append(None)
        return 0.5 * jnp.sum(x**2)

    problem = Problem(loss, jnp.ones(3))
    find = lambda high, rtol: stability.critical_learning_rate(
        problem, sgd, low=0.01, high=high, steps=300, rtol=rtol, lanes=4
    )
    assert len(find(10.0, 0.5).profile.learning_rate) < 16
    once = len(traces)
    assert len(find(20.0, 1e-3).profile.learning_rate) > 16
    assert len(traces) - once <= 2  # the checks of the border trace the loss; no round does


def test_critical_learning_rate_says_when_the_border_is_not_one_point():
    """A loss that diverges between two learning rates: its slope is large just where a step from 0 then lands."""
    problem = Problem(lambda x: jnp.where((x > 1) & (x < 2), jnp.nan, jnp.where(x > 8, jnp.nan, -x)), 0.0)
    critical = stability.critical_learning_rate(problem, sgd, low=0.25, high=32.0, steps=1, rtol=0.01)
    assert not critical.simple
    assert critical.value == pytest.approx(8, rel=0.01)
    tried = critical.profile
    np.testing.assert_array_equal(
        tried.diverged, ((tried.learning_rate > 1) & (tried.learning_rate < 2)) | (tried.learning_rate > 8)
    )


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"low": 2.0}, InputValueError, "high=1.0: not above low=2.0"),
        ({"low": 0.0}, InputValueError, "low=0.0: must be a finite number above 0"),
        ({"high": float("inf")}, InputValueError, "high=inf"),
        ({"low": "a"}, InputTypeError, "low='a': not a number"),
        ({"rtol": 1e-9}, InputValueError, "rtol=1e-09: below the rounding"),
        ({"steps": 0}, InputValueError, "steps=0"),
        ({"lanes": 2}, InputValueError, "lanes=2: must be at least 3"),
        ({"high": 0.2}, InputValueError, "high=.*does not diverge"),
        ({"low": 3.0, "high": 9.0}, InputValueError, "low=.*diverges"),
        ({"hyperparameters": {"momentun": 0.5}}, InputValueError, "Did you mean 'momentum'"),
    ],
)
def test_critical_learning_rate_names_bad_input(options, error, message):
    with pytest.raises(error, match=message):
        stability.critical_learning_rate(
            problems.parabola(), sgd, **{"low": 0.1, "high": 1.0, "steps": 50, "rtol": 0.1, **options}
        )


# Preconditioned sharpness


def adam_by_hand(state, grad, b1=0.9, b2=0.999, eps=1e-8):
    """P of the coming step, from Cohen et al. 2022."""
    moments = state[0]
    t = int(moments.count) + 1
    second = b2 * np.asarray(moments.nu) + (1 - b2) * grad**2
    return (1 - b1**t) * (np.sqrt(second / (1 - b2**t)) + eps)


PRECONDITIONERS = {
    optax.adam: adam_by_hand,
    optax.adamw: adam_by_hand,
    optax.rmsprop: lambda state, g: np.sqrt(0.9 * np.asarray(state[0].nu) + 0.1 * g**2 + 1e-8),
    optax.adagrad: lambda state, g: np.sqrt(np.asarray(state[0].sum_of_squares) + g**2 + 1e-7),
}


def mid_run(problem, factory):
    """A state such as a run may have: positive moments, a few steps counted."""
    fill = lambda x: jnp.asarray([40.0, 700.0]) if x.shape == (2,) else jnp.full_like(x, 7)
    start = state_at(problem, factory, {"learning_rate": 1e-2})
    return start._replace(opt_state=jax.tree.map(fill, start.opt_state))


@pytest.mark.parametrize("factory", quick(PRECONDITIONERS, optax.adam, optax.rmsprop, optax.adagrad))
def test_preconditioned_sharpness_is_that_of_the_preconditioner_by_hand(factory):
    problem, chosen = problems.rosenbrock(), {"learning_rate": 1e-2}
    state = mid_run(problem, factory)
    spectrum = stability.preconditioned_sharpness(problem, factory, state, 2, hyperparameters=chosen)
    inverse = 1 / PRECONDITIONERS[factory](state.opt_state, np.asarray(jax.grad(problem.loss)(state.params)))
    true = np.linalg.eigvals(inverse[:, None] * dense_hessian(problem, state.params)).real
    np.testing.assert_allclose(spectrum.values, np.sort(true)[::-1], rtol=2e-4, atol=1e-4 * np.abs(true).max())
    assert spectrum.converged.all()


@pytest.mark.parametrize("factory", [optax.amsgrad, optax.adabelief, optax.nadam])
def test_preconditioned_sharpness_does_not_depend_on_the_learning_rate(factory):
    problem = problems.rosenbrock()
    run = mid_run(problem, factory)
    one, other = (
        stability.preconditioned_sharpness(problem, factory, run, hyperparameters={"learning_rate": rate})
        for rate in (0.01, 0.5)  # one program
    )
    assert one.values[0] > 0
    np.testing.assert_allclose(one.values, other.values, rtol=1e-4)


def test_preconditioned_sharpness_gives_the_multiplier_that_leaves_the_unit_circle():
    problem, chosen = problems.quadratic([1.0, 3.0, 8.0]), {"learning_rate": 1.0}
    state = adam_state(problem, chosen, [0.5, 2.0, 1.0])
    top = stability.preconditioned_sharpness(problem, optax.adam, state, hyperparameters=chosen).values[0]
    chosen = {"learning_rate": float(stability.stability_threshold("adam", top))}
    spectra = stability.multipliers(problem, optax.adam, state, hyperparameters=chosen)
    np.testing.assert_allclose(spectra.farthest.values, [-1], rtol=1e-4)


@pytest.mark.parametrize(
    ("factory", "options", "error", "message"),
    [
        (sgd, {}, InputTypeError, "no second moment"),
        (optax.adafactor, {}, InputTypeError, "no second moment"),
        (optax.novograd, {}, InputTypeError, "no second moment"),
        (functools.partial(optax.rmsprop, momentum=0.9), {}, InputTypeError, "more than second moments"),
        (optax.lamb, {}, InputTypeError, "not diagonal"),
        (optax.adam, {"hyperparameters": {}}, InputValueError, "learning_rate|missing"),
        (optax.adam, {"k": 3}, InputValueError, "only 2 eigenvalues"),
    ],
)
def test_preconditioned_sharpness_names_bad_input(factory, options, error, message):
    problem, chosen = problems.rosenbrock(), {"learning_rate": 0.1}
    state = state_at(problem, factory, chosen)
    with pytest.raises(error, match=message):
        stability.preconditioned_sharpness(problem, factory, state, **{"hyperparameters": chosen, **options})


def test_preconditioned_sharpness_of_a_finished_optimizer_wants_its_learning_rate():
    problem, optimizer = problems.rosenbrock(), optax.adam(0.01)
    run = mid_run(problem, optax.adam)
    with pytest.raises(InputValueError, match="learning_rate=None: unknown"):
        stability.preconditioned_sharpness(problem, optimizer, run)
    spectrum = stability.preconditioned_sharpness(problem, optimizer, run, learning_rate=0.01)
    inverse = 1 / adam_by_hand(run.opt_state, np.asarray(jax.grad(problem.loss)(run.params)))
    true = np.linalg.eigvals(inverse[:, None] * dense_hessian(problem, run.params)).real
    np.testing.assert_allclose(spectrum.values, [true.max()], rtol=1e-4)


ROSENBROCK = problems.rosenbrock()
EVERY_FOURTH = {
    factory: stability.preconditioned_sharpness_every(ROSENBROCK, factory, 4, record=4)
    for factory in (optax.adam, optax.rmsprop)
}


def watched_run(factory, rate):
    """Nine steps, of which 0, 4 and 8 are watched; one program for all learning rates."""
    return descend(ROSENBROCK, factory, 9, hyperparameters={"learning_rate": rate}, monitors=[EVERY_FOURTH[factory]])


@pytest.mark.parametrize("factory", quick(EVERY_FOURTH, optax.adam))
def test_preconditioned_sharpness_every_is_that_of_the_states_at_its_steps(factory):
    problem, chosen, run = ROSENBROCK, {"learning_rate": 1e-2}, watched_run(factory, 1e-2)
    step, states = jax.jit(step_map(problem, factory)), [state_at(problem, factory, chosen)]
    for t in range(8):
        states.append(step(states[-1], chosen, t, split_key(0)[1], None)[0])
    measure = functools.partial(stability.preconditioned_sharpness, problem, factory, hyperparameters=chosen)
    expected = [measure(state).values[0] for state in states[::4]]
    read = {name: run.statistics[f"preconditioned_sharpness{name}"] for name in ("", "_max", "_curve", "_residual")}
    np.testing.assert_allclose(read["_curve"], [*expected, np.nan], rtol=1e-4)
    np.testing.assert_allclose([read[""], read["_max"]], [expected[-1], max(expected)], rtol=1e-4)
    assert 0 <= read["_residual"] < 1e-3 * read[""]


@pytest.mark.full
def test_preconditioned_sharpness_every_of_a_sweep_is_that_of_each_lane():
    rates, watched = [0.01, 0.03], [EVERY_FOURTH[optax.adam]]
    result = sweep(ROSENBROCK, optax.adam, {"learning_rate": rates}, steps=9, monitors=watched)
    for rate, curve in zip(rates, result.lanes["preconditioned_sharpness_curve"].values, strict=True):
        alone = watched_run(optax.adam, rate).statistics["preconditioned_sharpness_curve"]
        np.testing.assert_allclose(curve, alone, rtol=1e-3)
    assert not np.allclose(*result.lanes["preconditioned_sharpness_curve"].values)


@pytest.mark.full
def test_preconditioned_sharpness_every_is_not_a_number_where_the_preconditioner_is_not_diagonal():
    problem, chosen = problems.rosenbrock(), {"learning_rate": 0.01}
    watched = [stability.preconditioned_sharpness_every(problem, optax.lamb, 2)]
    run = descend(problem, optax.lamb, 4, hyperparameters=chosen, monitors=watched)
    assert np.isnan(run.statistics["preconditioned_sharpness"])


def test_preconditioned_sharpness_every_names_bad_input_when_the_run_begins():
    problem, chosen = ROSENBROCK, {"learning_rate": 0.01}
    watched = [stability.preconditioned_sharpness_every(problem, sgd, 2)]
    with pytest.raises(InputTypeError, match="no second moment"):
        descend(problem, sgd, 4, hyperparameters=chosen, monitors=watched)
    optimizer = optax.adam(0.01)
    with pytest.raises(InputValueError, match="learning_rate=None: unknown"):
        descend(problem, optimizer, 4, monitors=[stability.preconditioned_sharpness_every(problem, optimizer, 2)])
    watched = [stability.preconditioned_sharpness_every(problem, optimizer, 4, learning_rate=0.01)]
    values = descend(problem, optimizer, 9, monitors=watched).statistics["preconditioned_sharpness"]
    expected = watched_run(optax.adam, 0.01).statistics["preconditioned_sharpness"]
    np.testing.assert_allclose(values, expected, rtol=1e-5)


def test_sharpness_is_right_where_squares_of_curvatures_underflow():
    curvatures = jnp.array([8e-24, 4e-24, 1e-25, 0.0])
    problem = Problem(lambda x: 0.5 * jnp.sum(curvatures * x**2), jnp.ones(4))
    spectrum = stability.sharpness(problem, jnp.ones(4), k=2)
    np.testing.assert_allclose(spectrum.values, [8e-24, 4e-24], rtol=1e-3)
    assert spectrum.converged.all()
