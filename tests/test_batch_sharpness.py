"""The study of the batch sharpness runs at tiny settings; its claims hold for its shape of result, and can fail."""

import numpy as np
import pytest
from tiny import SETTINGS

from experiments import batch_sharpness as study
from gdkit.errors import InputTypeError, InputValueError


def synthetic(batch=(1.0, 1.0), full=(0.4, 0.7), start=0.4):
    """Two cases whose curves rise linearly from `start` to a level in the first half, in units of 2/η."""
    rise = np.minimum(np.linspace(0, 2, 31), 1)
    curve = lambda level: np.tile((start + (level - start) * rise) * 2 / 0.1, (2, 1))
    cases = [
        study.SharpnessCurves(size, 0.1, np.arange(31), curve(b), curve(f))
        for size, b, f in zip((4, 8), batch, full, strict=True)
    ]
    return study.BatchSharpness(study.DEFAULTS, cases)


@pytest.mark.full
def test_the_study_runs_and_shows_every_case():
    result = study.run(SETTINGS["batch_sharpness"])
    for case in result.cases:
        assert case.batch.shape == case.full.shape == (2, 4) and np.isfinite(case.batch).all()
    assert len(str(result).splitlines()) == 3 + len(result.cases)
    axes = study.plot(result)["batch_sharpness"].axes
    assert [len(ax.lines) for ax in axes] == [2 + 2 + 1] * len(result.cases)


@pytest.mark.parametrize(
    ("changes", "failing"),
    [
        ({}, 0),
        ({"batch": (0.8, 1.0)}, 1),
        ({"full": (0.8, 0.9)}, 1),
        ({"full": (0.7, 0.4)}, 1),
        ({"full": (0.4, 1.05)}, 1),
        ({"start": 0.7}, 1),
        ({"batch": (np.nan, 1.0)}, 3),
    ],
)
def test_claims_fail_where_the_curvature_is_elsewhere(changes, failing):
    assert sum(not claim.holds for claim in study.claims(synthetic(**changes))) == failing


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"batchs": 3}, InputValueError, "Did you mean 'batches'"),
        ({"every": 0}, InputValueError, "settings.every=0"),
        ({"batch_sizes": 4}, InputTypeError, "settings.batch_sizes=4: not a list"),
    ],
)
def test_bad_settings_are_named(settings, error, said):
    with pytest.raises(error, match=said):
        study.run(settings)
