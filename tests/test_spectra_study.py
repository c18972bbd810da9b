"""Matrices written down whole are those of JAX; the study runs at tiny settings, and its claims can fail."""

import jax
import numpy as np
import pytest
from shared import dense_hessian
from tiny import SETTINGS

from experiments import spectra as study
from gdkit.errors import InputTypeError, InputValueError


@pytest.fixture(scope="module")
def result():
    return study.run(SETTINGS["spectra"])


def test_the_matrix_written_down_whole_is_that_of_jax():
    problem = study.network(2, 40, "squared_error")
    params = problem.init(jax.random.key(0))
    found = np.asarray(study.dense(problem, "hessian")(params))
    np.testing.assert_allclose(found, dense_hessian(problem, params), atol=1e-4)


@pytest.mark.full
def test_the_study_runs_and_shows_every_network(result):
    (network,) = result.networks
    assert network.loss.shape == network.difference.shape == (3,) and network.loss[-1] < network.loss[0]
    assert network.outer.shape == (30,) and np.all(np.diff(network.outer) <= 0)
    assert len(str(result).splitlines()) == 3
    assert len(study.plot(result)["spectra"].axes) == 3


@pytest.mark.parametrize(
    ("changes", "failing"),
    [
        ({}, []),
        ({"difference": np.array([0.2, 0.1, 0.09])}, ["exponent", "largest"]),
        ({"traces": np.full((40, 2), [9.0, 1.0])}, ["two standard errors"]),
        ({"counts": (3.0, 9.0, 1.0)}, ["number of eigenvalues"]),
        ({"mean_square": (3.0, 9.0, 1.0)}, ["mean square"]),
    ],
)
def test_claims_fail_where_a_number_is_wrong(changes, failing):
    loss, outer = np.array([1.0, 1e-2, 1e-4]), np.where(np.arange(30) < 10, 9.0, 1.0)
    off = np.where(np.arange(40) < 38, 1.0, 3.0)  # 95 % of estimates within two standard errors
    traces = np.stack([5 + off, np.ones(40)], axis=1)
    network = study.Network("squared_error", 0, loss, 0.3 * loss**0.5, np.ones(5), outer, traces, (3.0, 3.5, 1.0),
                            (3.0, 2.5, 1.0))  # fmt: skip
    made = study.Spectra(study.DEFAULTS, [network._replace(**changes)])
    assert made.networks[0].outliers == 10  # above the widest gap
    found = [claim.text for claim in study.claims(made) if not claim.holds]
    assert len(found) == len(failing) and all(part in text for part, text in zip(failing, found, strict=True))


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"widht": 3}, InputValueError, "Did you mean 'width'"),
        ({"probes": 0}, InputValueError, "settings.probes=0"),
        ({"losses": "squared_error"}, InputTypeError, "settings.losses='squared_error': not a list"),
    ],
)
def test_bad_settings_are_named(settings, error, said):
    with pytest.raises(error, match=said):
        study.run(settings)
