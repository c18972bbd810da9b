"""Regimes agree with what theory says of quadratics, and with common sense elsewhere."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from shared import quick

from gdkit import GdkitError, Problem, Regime, Thresholds, classify, descend, problems, sgd, sweep

STEPS = 400


def names(result):
    return [Regime(int(code)).name for code in result.regimes.values.ravel()]


@pytest.fixture(scope="module")
def quadratic_sweep():
    # around 1/λ = 0.5 and 2/λ = 1, and down to where 400 steps are too few
    rates = np.geomspace(1e-4, 4.0, 2000)
    return sweep(problems.parabola(), sgd, {"learning_rate": rates}, steps=STEPS, curve_points=0)


def theory_of(rates, curvature, gap):
    """The regime of plain gradient descent on a quadratic after STEPS steps, and the borders."""
    slow = (1 - gap ** (1 / (2 * STEPS))) / curvature
    borders = np.array([slow, 1 / curvature, 2 / curvature])
    order = np.array([Regime.SLOW, Regime.CONVERGED, Regime.OSCILLATING, Regime.DIVERGED])
    return order[np.searchsorted(borders, rates)], borders


def test_regimes_of_2000_learning_rates_agree_with_theory_on_a_quadratic(quadratic_sweep):
    rates = quadratic_sweep.axes["learning_rate"]
    expected, borders = theory_of(rates, 2.0, Thresholds().converged_gap)
    away = np.all(np.abs(rates[:, None] / borders[None] - 1) > 0.01, axis=1)
    assert away.sum() > 1900
    np.testing.assert_array_equal(quadratic_sweep.regimes.values.ravel()[away], expected[away])


def test_edge_is_two_over_curvature_to_grid_resolution(quadratic_sweep):
    edge = quadratic_sweep.edge().squeeze("seed")
    rates = quadratic_sweep.axes["learning_rate"]
    ratio = rates[1] / rates[0]
    assert float(edge["low"]) <= 1.0 * ratio and float(edge["high"]) >= 1.0 / ratio
    assert abs(np.log(float(edge["edge"]))) <= np.log(ratio)
    assert bool(edge["simple"])


def test_bouncing_at_exactly_two_over_curvature():
    result = sweep(problems.parabola(), sgd, {"learning_rate": [0.99, 1.0, 1.01]}, steps=STEPS)
    assert names(result) == ["OSCILLATING", "BOUNCING", "DIVERGED"]


def test_ten_dimensional_quadratic_has_its_edge_and_its_first_reversal_where_theory_says():
    problem = problems.quadratic(dimension=10, condition_number=100.0)
    low, high = 1.0, 100.0
    edge, reversing = 2 / high, 2 / (low + high)
    rates = np.array([0.5, 0.9, 0.985, 1.0, 1.0]) * reversing
    rates[3:] = [1.003 * reversing, 0.995 * edge]
    result = sweep(problem, sgd, {"learning_rate": rates}, steps=4000)
    reversal = result.data["reversal"].values.ravel()
    assert (reversal[:3] > 0.9).all() and (reversal[3:] < -0.9).all()
    assert names(result) == ["CONVERGED"] * 3 + ["OSCILLATING"] * 2
    grid = np.linspace(0.9, 1.1, 81) * edge
    measured = sweep(problem, sgd, {"learning_rate": grid}, steps=1000).edge().squeeze("seed")
    assert float(measured["low"]) <= edge * 1.0026 and float(measured["high"]) >= edge * 0.9974


def test_zero_learning_rate_stalls():
    assert names(sweep(problems.parabola(), sgd, {"learning_rate": [0.0, 0.2]}, steps=50)) == ["STALLED", "CONVERGED"]


def test_dead_network_is_stalled(key):
    def init(key):
        return {"w": jax.random.normal(key, (3, 4)), "v": jnp.ones(4)}

    x = jax.random.normal(key, (16, 3))

    def loss(params, x):
        return jnp.mean((jax.nn.relu(x @ params["w"] - 100.0) @ params["v"] - 1.0) ** 2)

    result = sweep(Problem(loss, init, data=x, optimum=0.0), sgd, {"learning_rate": [0.01, 0.1]}, steps=100)
    assert names(result) == ["STALLED", "STALLED"]


def test_negative_losses_are_judged_by_their_gap():
    problem = Problem(lambda x: (x - 3.0) ** 2 - 1000.0, 0.0, optimum=-1000.0)
    result = sweep(problem, sgd, {"learning_rate": [1e-4, 0.2, 0.8, 1.2]}, steps=STEPS)
    assert names(result) == ["SLOW", "CONVERGED", "OSCILLATING", "DIVERGED"]


CONSTANTS = [0.0, -0.5, 5.0, -7.0, 1e3]  # −0.5: the first loss is 0


def saturating(c):
    """Near x² / 2 from x = 1, and at most 1e7: large steps end on its plateau."""
    return Problem(lambda x: c + 0.5 * x**2 / (1 + x**2 / 2e7), 1.0)


def noisy(c):
    loss = lambda w, b: c - jnp.mean(b[:, 0] * w) + 0.5 * jnp.sum((w - 1) ** 2)
    return Problem(loss, 0.0, data=jax.random.normal(jax.random.key(0), (64, 1)), sample=problems.minibatches(8))


def log_likelihood(c):
    return Problem(lambda x: c + jnp.log(jnp.cosh(x)) - 0.1 * x, 3.0)


@pytest.mark.parametrize("problem", quick([saturating, noisy, log_likelihood], log_likelihood))
def test_a_constant_added_to_the_loss_changes_no_regime(problem):
    rates = [1e-3, 0.1, 0.9, 1.6, 1.99, 2.2, 4.0, 1e3]
    result = sweep(problem, sgd, {"problem.c": CONSTANTS, "learning_rate": rates}, steps=200)
    regimes = result.regimes.transpose("problem.c", ...).values.reshape(len(CONSTANTS), -1)
    assert len(set(regimes[0])) >= 3
    np.testing.assert_array_equal(regimes, np.broadcast_to(regimes[0], regimes.shape))


def test_starting_at_the_optimum_is_converged_and_leaving_it_is_not():
    at_optimum = Problem(lambda x: (x - 3.0) ** 2, 3.0, optimum=0.0)
    assert names(sweep(at_optimum, sgd, {"learning_rate": [0.1, 0.9]}, steps=50)) == ["CONVERGED", "CONVERGED"]
    unstable = Problem(lambda x: x**2 + 1e-3 * x, 0.0, optimum=-2.5e-7)
    assert names(sweep(unstable, sgd, {"learning_rate": [1.5]}, steps=60)) == ["DIVERGED"]


@pytest.mark.full
def test_minibatch_noise_alone_never_earns_oscillating():
    problem = problems.logistic_regression("iris", batch_size=4)
    result = sweep(problem, sgd, {"learning_rate": np.geomspace(1e-3, 30.0, 24)}, seeds=4, steps=300)
    reversal = result.data["reversal"].values
    assert (reversal < 0).any(), "noise is expected to reverse some updates"
    assert "OSCILLATING" not in names(result)


def test_catapult_rises_and_then_converges():
    # f = u·v / √n (Lewkowycz et al. 2020): above 2/λ₀ the loss rises, the curvature falls, and it converges
    def loss(p):
        return 0.5 * (p["u"] @ p["v"] / 8.0) ** 2

    key = jax.random.key(1)
    start = {"u": jax.random.normal(key, (64,)), "v": jax.random.normal(jax.random.fold_in(key, 1), (64,))}
    curvature = float((start["u"] @ start["u"] + start["v"] @ start["v"]) / 64)
    problem = Problem(loss, start, optimum=0.0)
    result = sweep(problem, sgd, {"learning_rate": np.array([0.5, 3.0, 6.0]) / curvature}, steps=2000)
    assert names(result) == ["CONVERGED", "CATAPULT", "DIVERGED"]


def test_thresholds_change_the_view_and_not_the_run(quadratic_sweep):
    strict = quadratic_sweep.with_thresholds(converged_gap=1e-6)
    assert strict.lanes is quadratic_sweep.lanes
    assert (strict.regimes == Regime.SLOW).sum() > (quadratic_sweep.regimes == Regime.SLOW).sum()


def test_a_run_and_a_lane_get_the_same_verdict():
    rates = [1e-4, 0.2, 0.8, 1.0, 1.2]
    lanes = sweep(problems.parabola(), sgd, {"learning_rate": rates}, steps=STEPS)
    for rate, regime in zip(rates, names(lanes), strict=True):
        run = descend(problems.parabola(), sgd, STEPS, hyperparameters={"learning_rate": rate})
        assert Regime(int(classify(run.statistics, optimum=0.0).regime)).name == regime


def test_missing_optimum_is_replaced_by_the_least_loss_seen_on_the_same_problem():
    def shifted(level=0.0):
        return Problem(lambda x: (x - 3.0) ** 2 + level, 0.0)

    axes = {"problem.level": [0.0, 100.0], "learning_rate": [1e-4, 0.2]}
    result = sweep(shifted, sgd, axes, steps=STEPS)
    assert names(result) == ["SLOW", "CONVERGED", "SLOW", "CONVERGED"]
    np.testing.assert_allclose(result.lanes["reference_loss"], [0, 0, 100, 100], atol=1e-3)


def test_onset_of_divergence_is_the_last_low_and_of_oscillation_the_first_reversal():
    result = sweep(problems.parabola(), sgd, {"learning_rate": [0.8, 1.2]}, steps=STEPS)
    assert result.verdicts["onset"].values.ravel().tolist() == [1, 0]


def test_bad_threshold_is_refused():
    with pytest.raises(GdkitError, match=r"thresholds\.falling=nan: must be a finite number"):
        Thresholds(falling=float("nan"))
