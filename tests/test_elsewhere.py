"""What was trained elsewhere is judged as what gdkit trained."""

import jax.numpy as jnp
import numpy as np
import pytest

from gdkit import GdkitError, Problem, Regime, classify, classify_curve, descend, problems, sgd


def names(codes):
    return [Regime(int(code)).name for code in np.ravel(codes)]


def curves_of(problem, rates):
    runs = [descend(problem, sgd, 300, hyperparameters={"learning_rate": rate}) for rate in rates]
    losses = np.stack([run.loss for run in runs])
    return losses, {name: np.stack([run.statistics[name] for run in runs]) for name in runs[0].statistics}


KINDS = [  # problems whose regimes show in the losses
    (problems.parabola(), (1e-3, 0.2, 1.01, 1.2), 0.0, ["SLOW", "CONVERGED", "DIVERGED", "DIVERGED"]),
    (Problem(lambda p: (p[0] * p[1]) ** 2 / 2, jnp.array([3.0, 0.3])), (0.1, 0.3, 0.4), 0.0,
     ["CONVERGED", "CATAPULT", "CATAPULT"]),
    (Problem(jnp.abs, 3.3), (1e-3, 0.3, 1.0), 0.0, ["SLOW", "BOUNCING", "BOUNCING"]),
    (Problem(lambda x: jnp.sin(3 * x) + x**2 / 10, 2.0), (1e-3, 0.1, 0.3), None, ["SLOW", "CONVERGED", "BOUNCING"]),
]  # fmt: skip


@pytest.mark.parametrize("problem, rates, optimum, expected", KINDS)
def test_a_curve_has_the_regime_of_its_run(problem, rates, optimum, expected):
    losses, statistics = curves_of(problem, rates)
    judged, own = classify_curve(losses, optimum=optimum), classify(statistics, optimum=optimum)
    assert names(judged.regime) == names(own.regime) == expected
    np.testing.assert_array_equal(judged.onset, own.onset)
    for name in ("gap", "rise", "falling", "clear"):
        np.testing.assert_allclose(judged.evidence[name], own.evidence[name], rtol=1e-5, atol=1e-6)


def test_what_losses_do_not_show_is_not_claimed():
    losses, statistics = curves_of(problems.parabola(), (0.8, 0.2, 0.0))
    assert names(classify(statistics, optimum=0.0).regime) == ["OSCILLATING", "CONVERGED", "STALLED"]
    judged = classify_curve(losses, optimum=0.0)
    assert names(judged.regime) == ["CONVERGED", "CONVERGED", "STALLED"]
    assert np.isnan(judged.evidence["reversal"]).all() and (judged.onset == -1).all()
    noise = 1 + 0.3 * np.random.default_rng(0).standard_normal(300)
    assert names([classify_curve(noise, optimum=0.0).regime]) == ["BOUNCING"]
    assert names([classify_curve(noise, optimum=0.0, stochastic=True).regime]) == ["SLOW"]


def test_a_curve_diverges_where_a_sweep_would_end_it():
    ended = classify_curve([[1.0, 2.0, np.nan, 0.0], [1.0, 3e6, 1.0, 0.0], [1.0, 0.1, -3e6, 0.0]])
    assert names(ended.regime) == ["DIVERGED"] * 3
    risen = classify_curve([[1.0, 3e6, 0.0, 0.0]] * 3, diverged_above=1e7, optimum=0.0)
    assert names(risen.regime) == ["CATAPULT"] * 3
    one, several = classify_curve([4.0, 2.0, 1.0, 0.0]), classify_curve(np.ones((3, 1, 4)))
    assert one.regime.shape == () and several.regime.shape == several.evidence["gap"].shape == (3, 1)


@pytest.mark.parametrize(
    "losses, match",
    [(["a"], "not an array of real numbers"), (1.0, "no loss along the last axis"), ([[], []], "no loss along")],
)
def test_what_is_no_curve_is_refused(losses, match):
    with pytest.raises(GdkitError, match=match):
        classify_curve(losses)
