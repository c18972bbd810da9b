"""The study of schedules' bounds runs at tiny settings; claims of theory hold there, and the others can fail."""

import numpy as np
import pytest

from experiments import schedule_bounds as study
from gdkit.errors import InputTypeError, InputValueError

TINY = {
    "convex": {"dimension": 4, "rows": 8, "steps": 40, "peaks": 3},
    "network": {"widths": [4]},
    "learning_rates": {"from": 0.02, "to": 2.0, "count": 5},
    "steps": 40,
    "every": 20,
    "seeds": 2,
}


@pytest.fixture(scope="module")
def result():
    return study.run(TINY)


@pytest.mark.full
def test_what_theory_says_holds(result):
    found = [claim for claim in study.claims(result) if claim.kind == "theory"]
    assert len(found) == 3
    for claim in found:
        assert claim.holds, claim
    assert result.kept.shape == (4, 3, 40) and np.all(result.kept > 0)


def test_schedules_end_as_named():
    shares = study.make_schedules(100, 0.2)
    at = lambda name, step: float(shares[name](step))
    assert at(study.CONSTANT, 99) == 1 and at(study.STABLE, 80) == 1
    assert at(study.STABLE, 90) == pytest.approx(0.5) and at(study.LINEAR, 50) == pytest.approx(0.5)
    assert at(study.COSINE, 25) == pytest.approx((1 + np.cos(np.pi / 4)) / 2)


@pytest.mark.full
def test_claims_fail_where_schedules_are_named_as_others(result):
    lanes = result.runs.lanes
    names = {study.COSINE: study.CONSTANT, study.CONSTANT: study.COSINE}
    swapped = lanes.assign_coords(optimizer=("lane", [names.get(n, n) for n in lanes["optimizer"].values]))
    wrong = result._replace(
        kept=2 * result.kept / result.kept.max(),
        runs=type(result.runs)(swapped.assign_coords(learning_rate=lanes["learning_rate"] ** 2), result.runs.grids),
    )
    assert not study.claims(wrong)[0].holds
    assert [c.measured for c in study.claims(wrong)[3:]] != [c.measured for c in study.claims(result)[3:]]


@pytest.mark.full
def test_table_and_figure_show_every_schedule(result):
    assert len(str(result).splitlines()) == 2 + 4 + 1
    assert [len(ax.lines) for ax in study.plot(result)["schedule_bounds"].axes] == [4, 4, 4]


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"cooldwn": 0.1}, InputValueError, "Did you mean 'cooldown'"),
        ({"seeds": 0}, InputValueError, "settings.seeds=0"),
        ({"convex": {"rows": "many"}}, InputTypeError, "settings.convex.rows='many'"),
    ],
)
def test_bad_settings_are_named(settings, error, said):
    with pytest.raises(error, match=said):
        study.run(settings)
