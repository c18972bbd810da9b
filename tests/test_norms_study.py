"""Steepest descent in norms has the steps of its definition; the study runs small, and its claims can fail."""

import jax.numpy as jnp
import numpy as np
import pytest
from tiny import SETTINGS

from experiments import norms as study
from gdkit.errors import InputTypeError, InputValueError

GRADIENT = {"weight": jnp.array([[3.0, 0.0], [0.0, -4.0]]), "bias": jnp.array([0.0, 12.0])}


@pytest.fixture(scope="module")
def result():
    return study.run(SETTINGS["norms"])


@pytest.mark.parametrize(
    ("norm", "weight", "bias"),
    [
        ("l2", np.array([[3.0, 0.0], [0.0, -4.0]]), np.array([0.0, 12.0])),  # ‖g‖ · g/‖g‖
        ("linf", 19 * np.array([[1.0, 0.0], [0.0, -1.0]]), 19 * np.array([0.0, 1.0])),  # ‖g‖₁ = 3 + 4 + 12
        ("spectral", 19 * np.array([[1.0, 0.0], [0.0, -1.0]]), 19 * np.array([0.0, 1.0])),  # nuclear norms 7 and 12
    ],
)
def test_a_step_is_the_dual_norm_times_the_steepest_direction(norm, weight, bias):
    updates, _ = study.steepest(norm)(learning_rate=0.5).update(GRADIENT, ())
    np.testing.assert_allclose(updates["weight"], -0.5 * weight, atol=1e-5)
    np.testing.assert_allclose(updates["bias"], -0.5 * bias, atol=1e-5)


@pytest.mark.full
def test_thresholds_are_those_of_the_closed_form_and_runs_are_recorded(result):
    for claim in study.claims(result)[:1]:
        assert claim.kind == "theory" and claim.holds, claim
    for run in result.runs:
        assert run.sharpness.shape == run.smoothness.shape == (3,)
        # no step is steeper than the steepest direction, up to the change of the Hessian on the way
        assert np.isfinite(run.sharpness).all() and np.isfinite(run.smoothness).all()
    assert len(str(result).splitlines()) == 3 + len(result.runs)
    assert len(study.plot(result)["norms"].axes) == 2


@pytest.mark.full
@pytest.mark.parametrize(("smoothness", "sharpness", "failing"), [(1.0, 1.0, 0), (0.8, 1.0, 1), (1.0, 1.4, 1)])
def test_claims_fail_away_from_the_edge(result, smoothness, sharpness, failing):
    rise = np.linspace(0.5, 1, 4)
    runs = [
        study.NormRun(norm, 0, 20.0, np.ones(5), np.arange(13), np.full(13, 20 * sharpness),
                      20 * smoothness * np.concatenate([rise, np.ones(9)]))
        for norm in ("linf",)
    ]  # fmt: skip
    assert sum(not claim.holds for claim in study.claims(result._replace(runs=runs))) == failing


@pytest.mark.parametrize(("lower", "holds"), [(0, True), (2, True), (3, False)])
def test_the_smoothness_is_that_of_the_median_key(lower, holds):
    at_edge, curve = np.full(9, 20.0), np.arange(9)
    runs = [
        study.NormRun("linf", key, 20.0, np.ones(9), curve, at_edge, at_edge * (0.2 if key < lower else 1))
        for key in range(5)
    ]
    claims = study.claims(study.Norms({}, runs, {"linf": (0.5, 0.5)}))
    assert [claim.holds for claim in claims if "smoothness" in claim.text] == [holds]


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"start": 3}, InputValueError, "Did you mean 'starts'"),
        ({"norms": ["l1"]}, InputValueError, "settings.norms='l1': no such name"),
        ({"steps": 1.5}, InputTypeError, "settings.steps=1.5: not an integer"),
    ],
)
def test_bad_settings_are_named(settings, error, said):
    with pytest.raises(error, match=said):
        study.run(settings)
