"""Every study runs from end to end: it prints its result, judges its claims and draws its figures."""

import importlib
import math
from pathlib import Path

import pytest
import tiny
from matplotlib.animation import Animation
from matplotlib.figure import Figure

from gdkit.app.config.loading import load
from gdkit.app.config.schema import StudyConfig

ROOT = Path(__file__).parents[1]
WITHOUT_VALUE = {  # studies whose claims need not have a finite value at these settings
    "gradient_flow": "no run leaves the flow in so few steps",
    "learning_rate_sensitivity": "a treatment that does not lower the loss counts as infinite",
    "quadratic_regimes": "no run reverses in so few steps",
}


def test_every_study_has_tiny_settings():
    configs = map(load, sorted((ROOT / "configs").glob("*.yaml")))
    studies = {config.experiment for config in configs if isinstance(config, StudyConfig)}
    assert studies == {f"experiments.{name}:run" for name in tiny.SETTINGS}
    assert set(tiny.SETTINGS) == {path.stem for path in (ROOT / "experiments").glob("*.py")} - {"__init__"}


@pytest.mark.parametrize("name", tiny.SETTINGS)
def test_a_study_runs_prints_its_result_judges_its_claims_and_draws(name):
    study = importlib.import_module(f"experiments.{name}")
    result = study.run(tiny.SETTINGS[name])
    assert len(str(result).splitlines()) > 2
    claims = study.claims(result)
    assert claims
    for claim in claims:
        assert claim.text and claim.source and claim.kind in ("published", "theory", "check")
        assert math.isfinite(claim.expected) and claim.tolerance >= 0
        assert math.isfinite(claim.measured) or name in WITHOUT_VALUE, claim
        assert claim.holds in (True, False)
    figures = study.plot(result)
    assert name in figures
    for figure in figures.values():
        assert isinstance(figure, Figure | Animation)
        if isinstance(figure, Animation):
            figure._draw_was_started = True  # else it warns that it was drawn nowhere
