"""The landscape of the final loss: its claims at small settings, and that they can fail."""

import numpy as np
import pytest

from experiments import hypergradient_landscape as study
from gdkit import sgd, sweep
from gdkit.errors import InputTypeError, InputValueError
from gdkit.hypergradients import Round, Tuned

TINY = {
    "share": 0.1,
    "key": 2,
    "keys": 1,
    "grid": {"from": 0.1, "count": 60},  # most of it above the edge, where only many points tell
    "sharpness": {"count": 6, "every": 60},
    "tune": {"rounds": 6},
}


@pytest.fixture(scope="module")
def found():
    return study.run(TINY)


def made(slope_of, *, loss_of=np.cos, edge=1.0):
    """A landscape of given functions of log η."""
    logs = np.linspace(-1.0, 1.0, 2000)
    rates, tuned = np.exp(logs), Tuned({"learning_rate": 1.0}, 1.0, (Round({"learning_rate": 1.0}, 1.0, {}, True),))
    settings = study.DEFAULTS
    return study.Landscape(
        settings, rates, loss_of(logs), slope_of(logs), np.ones((2, 2)), edge, np.e, tuned, (50, 100)
    )


@pytest.mark.full
def test_every_claim_holds(found):
    for claim in study.claims(found):
        assert claim.holds, claim


@pytest.mark.full
def test_claims_fail_of_a_slope_that_is_wrong_below_the_edge_or_right_above_it(found):
    failed = lambda result: {claim.text.split(":")[0] for claim in study.claims(result) if not claim.holds}
    assert "below the edge" in failed(found._replace(slope=1.1 * found.slope))
    assert failed(found._replace(slope=found.slope[::-1])) >= {"below the edge", study.claims(found)[-2].text}
    assert "above the edge" in failed(made(lambda x: -np.sin(x), loss_of=np.cos))
    worse = found.tuned._replace(final_loss=2 * found.tuned.final_loss)
    assert failed(found._replace(tuned=worse)) == {claim.text for claim in study.claims(found)[-1:]}


def test_a_smooth_function_is_told_from_noise():
    right = study.measure_slope(made(lambda x: -np.sin(x)), 0, np.inf)
    assert right.points == 1998 and right.sign_changes == 1 and right.error < 1e-4 and right.sign_agreement > 0.99
    noise = np.random.default_rng(0).normal(size=2000)
    wrong = study.measure_slope(made(lambda x: 1e3 * noise), 0, np.inf)
    assert 900 < wrong.sign_changes < 1100 and 0.9 < wrong.error < 1.1 and 0.45 < wrong.sign_agreement < 0.55


def test_parts_lie_on_their_sides_of_the_edge():
    result = made(np.sin)
    below, above = study.measure_slope(result, 0, 1), study.measure_slope(result, 1, np.inf)
    assert below.points == above.points == 998 and below.sign_changes == above.sign_changes == 0


@pytest.mark.full
def test_edge_is_where_the_sharpness_on_the_way_reaches_two_over_the_learning_rate(found):
    rates, reached = found.sharpness
    assert np.interp(np.log(found.edge), np.log(rates), np.log(reached)) == pytest.approx(0.0, abs=1e-9)
    assert found.learning_rate[0] < found.edge < found.critical


@pytest.mark.full
def test_runs_of_the_grid_are_those_of_a_sweep(found):
    rates = found.learning_rate[[0, 20]]
    problem = study._problem(TINY["share"], study.DEFAULTS["width"], study.DEFAULTS["init_scale"])
    lanes = sweep(problem, sgd, {"learning_rate": rates}, steps=600, key=2).data["final_loss"].values.ravel()
    np.testing.assert_allclose(found.loss[[0, 20]], lanes, rtol=1e-4)


@pytest.mark.full
def test_terminal_table_has_one_row_per_side(found):
    lines = str(found).splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split(" | ")[0].strip() for line in lines[2:4]] == ["below the edge", "above the edge"]
    assert lines[-2].startswith("edge of stability") and "keys: sign agrees at" in lines[-1]


@pytest.mark.full
def test_one_figure_marks_the_edge_in_every_part(found):
    (figure,) = study.plot(found).values()
    assert len(figure.axes) == 3
    for ax in figure.axes:
        assert any(set(line.get_xdata()) == {found.edge} for line in ax.lines)
        assert ax.get_ylabel()
    assert figure.axes[-1].get_xlabel().startswith("learning rate")


@pytest.mark.parametrize(
    "settings, error, said",
    [
        ({"step": 5}, InputValueError, "Did you mean 'steps'"),
        ({"grid": {"count": 0}}, InputValueError, "settings.grid.count=0"),
        ({"tune": 3}, InputTypeError, "settings.tune=3: not a mapping"),
        pytest.param(
            TINY | {"steps": 20, "grid": {"from": 0.02, "to": 0.05, "count": 3}},
            InputValueError,
            "the grid does not cross the edge of stability",
            marks=pytest.mark.full,
        ),
    ],
)
def test_bad_settings_are_named(settings, error, said):
    with pytest.raises(error, match=said):
        study.run(settings)
