"""Predictions of longer runs are compared with the truth as they should be; the study runs at tiny settings."""

import numpy as np
import pytest

from experiments import longer_runs as study
from gdkit.errors import InputTypeError, InputValueError

TINY = {"problems": ["quadratic"], "steps": 60, "evaluations": 20, "seeds": 3, "repeats": 1, "truth_seeds": 3,
        "quadratic": {"count": 13}}  # fmt: skip
RATES = np.geomspace(0.01, 1, 21)


def synthetic(value=0.1, interval=(0.05, 0.2), made=12):
    """Long runs whose best rate is 0.1, with some scatter over seeds, and predictions of all sweeps."""
    losses = np.cosh(np.log(RATES[:, None] / np.array([0.09, 0.1, 0.11])))
    truths = {("quadratic", times): study.Truth(RATES, losses) for times in study.TIMES}
    missing = study.Prediction("quadratic", 4, np.nan, (np.nan, np.nan), 0.3)
    found = [study.Prediction("quadratic", 4 if i % 2 else 16, value, interval, 0.3) for i in range(made)]
    return study.LongerRuns(study.DEFAULTS, truths, [*found, *[missing] * (12 - made)])


@pytest.fixture(scope="module")
def result():
    return study.run(TINY)


@pytest.mark.full
def test_the_truth_moves_with_the_steps_and_the_table_shows_it(result):
    truths = [result.truths["quadratic", times].best[0] for times in study.TIMES]
    assert truths[1] < truths[0]  # about log T / T
    assert len(result.predictions) == 2 and len(str(result).splitlines()) == 2 + 2
    assert len(study.plot(result)["longer_runs"].axes) == 1


def test_excess_is_that_of_the_interpolated_loss():
    truth = synthetic().truths["quadratic", 4]
    assert truth.best[0] == pytest.approx(0.1, rel=0.01) and truth.excess(truth.best[0]) == 0
    assert truth.excess(0.2) == pytest.approx(np.log(np.cosh(np.log(2))), rel=0.05)
    low, high = truth.interval
    assert 0.085 < low < 0.1 < high < 0.115


@pytest.mark.parametrize(
    ("changes", "failing"),
    [({}, 0), ({"interval": (0.2, 0.4)}, 1), ({"value": 0.25}, 2), ({"made": 4}, 1), ({"value": 0.35}, 3)],
)
def test_claims_fail_for_predictions_that_are_off_or_few(changes, failing):
    assert sum(not claim.holds for claim in study.claims(synthetic(**changes))) == failing


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"repeat": 3}, InputValueError, "Did you mean 'repeats'"),
        ({"problems": ["lasso"]}, InputValueError, "settings.problems='lasso': no such name"),
        ({"quadratic": {"count": 2.5}}, InputTypeError, "settings.quadratic.count=2.5: not an integer"),
    ],
)
def test_bad_settings_are_named(settings, error, said):
    with pytest.raises(error, match=said):
        study.run(settings)
