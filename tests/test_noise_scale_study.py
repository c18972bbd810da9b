"""The hyperbola of steps and batch sizes is found; the study runs at tiny settings, and its claims can fail."""

import numpy as np
import pytest
from shared import quick
from tiny import SETTINGS

from experiments import noise_scale as study
from gdkit.errors import InputTypeError, InputValueError

SIZES = (4, 8, 128, 256)


def synthetic(critical=20.0, noise=20.0, power=-1.0):
    """Runs that need 10 (1 + (critical/B)^−power) steps at the second of two rates, with some scatter over keys."""
    needed = lambda size: 10 * (1 + (size / critical) ** power)
    steps = lambda size: np.array([[2.0, 2.0, 2.0], [0.99, 1.0, 1.01]]) * needed(size)
    runs = [study.BatchRuns(size, np.array([0.1, 0.2]), steps(size), np.full(3, noise)) for size in SIZES]
    return study.NoiseScale(study.DEFAULTS, runs, study.fit_runs(runs))


@pytest.mark.full
def test_the_study_runs_and_shows_every_batch_size():
    result = study.run(SETTINGS["noise_scale"])
    assert [one.steps.shape for one in result.runs] == [(2, 2), (2, 2)]
    assert all(np.isfinite(one.steps[one.best]).all() and (one.noise > 0).all() for one in result.runs)
    assert len(str(result).splitlines()) == 2 + 2 + 1
    assert len(study.plot(result)["noise_scale"].axes) == 3


@pytest.mark.parametrize("critical", [3.0, 20.0, 300.0])
def test_the_critical_batch_size_is_that_of_the_hyperbola(critical):
    least, found = study.fit_hyperbola(np.array(SIZES, float), 7 * (1 + critical / np.array(SIZES)))
    assert (least, found) == pytest.approx((7, critical), rel=1e-4)


@pytest.mark.parametrize(
    ("changes", "failing"),
    [({}, 0), ({"power": -0.4}, 2), *quick([({"noise": 70.0}, 1), ({"critical": 1.0, "noise": 1.0}, 1)])],
)
def test_claims_fail_for_another_law_and_another_noise(changes, failing):
    assert sum(not claim.holds for claim in study.claims(synthetic(**changes))) >= failing
    assert bool(failing) == any(not claim.holds for claim in study.claims(synthetic(**changes)))


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"traget": 0.1}, InputValueError, "Did you mean 'target'"),
        ({"batch_sizes": []}, InputTypeError, r"batch_sizes=\[\]: not a list"),
        ({"rows": -1}, InputValueError, "settings.rows=-1"),
    ],
)
def test_bad_settings_are_named(settings, error, said):
    with pytest.raises(error, match=said):
        study.run(settings)
