"""The lesson's closed forms."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from experiments import parabola
from experiments.common.claims import Claim
from gdkit import Regime, problems, sgd, training_table
from gdkit.errors import InputTypeError, InputValueError


@pytest.fixture(scope="module")
def lesson():
    return parabola.run({"sweep": {"count": 2000}})


def test_table_starts_as_worked_by_hand(lesson):
    rows = [(row.step, float(row.params), row.loss, float(row.gradient)) for row in lesson.table[:2]]
    np.testing.assert_allclose(rows, [(0, 0.0, 9.0, -6.0), (1, 1.2, 3.24, -3.6)], atol=1e-6)
    assert float(lesson.table[2].params) == pytest.approx(1.92)
    assert len(lesson.table) == 11


def test_printed_table_reads_as_in_the_lesson(lesson):
    head, _, first, second, *_ = str(lesson).splitlines()
    assert head.split() == ["Step", "|", "x", "|", "L(x)", "|", "dL/dx"]
    assert first.replace("|", "").split() == ["0", "0.0000", "9.0000", "-6.0000"]
    assert second.replace("|", "").split() == ["1", "1.2000", "3.2400", "-3.6000"]


@pytest.mark.parametrize("rate", [0.2, 0.5, 0.6, 1.0])
def test_iterates_are_the_closed_form(rate):
    table = training_table(problems.parabola(), sgd, 10, hyperparameters={"learning_rate": rate})
    t = np.arange(11)
    np.testing.assert_allclose([float(row.params) for row in table], 3 - 3 * (1 - 2 * rate) ** t, atol=1e-5)


def test_borders_are_those_of_curvature_two():
    at = parabola.borders(400)
    assert at == pytest.approx(((1 - 0.01 ** (1 / 800)) / 2, 0.5, 1.0))


def test_regimes_are_those_of_theory_but_within_one_percent_of_a_border(lesson):
    rates = lesson.sweep.lanes["learning_rate"].values
    near = np.abs(rates[:, None] / np.array(parabola.borders(400)) - 1).min(axis=1) < 0.01
    near &= rates != 1.0  # there theory is exact: 1 − λη = −1, and so is the arithmetic
    assert np.array_equal(lesson.sweep.lane_regimes[~near], parabola.predict_regimes(rates, 400)[~near])
    assert rates.size > 1990


def test_sweep_shows_every_regime_of_plain_descent(lesson):
    expected = {Regime.SLOW, Regime.CONVERGED, Regime.OSCILLATING, Regime.BOUNCING, Regime.DIVERGED}
    assert set(lesson.sweep.lane_regimes) == expected


def test_examples_show_the_regimes_they_are_named_for():
    rates = np.array(list(parabola.EXAMPLES.values()))
    assert list(parabola.predict_regimes(rates, 400)) == list(parabola.EXAMPLES)


def test_every_claim_holds(lesson):
    for claim in parabola.claims(lesson):
        assert claim.holds, claim


@pytest.mark.full
@pytest.mark.parametrize("settings", [{}, {"center": -1.0, "start": 4.0, "learning_rate": 0.6}])
def test_claims_hold_at_defaults_and_from_another_start_to_another_center(settings):
    for claim in parabola.claims(parabola.run(settings)):
        assert claim.holds, claim


def test_claims_can_fail(lesson):
    wrong = lesson._replace(settings=lesson.settings | {"learning_rate": 0.3})
    assert not all(claim.holds for claim in parabola.claims(wrong))
    assert not Claim("nothing was measured", "", 0.0, 1.0, float("nan")).holds


@pytest.mark.full
def test_one_figure_shows_a_walk_for_every_regime_and_the_borders(lesson):
    figures = parabola.plot(lesson)
    assert [type(figure) for figure in figures.values()] == [Figure]
    *walks, below = figures["parabola"].axes
    names = [f"({letter}) {r.name.lower()}" for letter, r in zip("abcde", parabola.EXAMPLES, strict=True)]
    assert [ax.get_title().split(",")[0] for ax in walks] == names
    verticals = {line.get_xdata()[0] for line in below.lines if len(set(line.get_xdata())) == 1}
    assert set(parabola.borders(400)) <= verticals


@pytest.mark.parametrize(
    "settings, error, said",
    [
        ({"learningrate": 0.2}, InputValueError, "Did you mean 'learning_rate'"),
        ({"sweep": {"too": 2.0}}, InputValueError, "Did you mean 'to'"),
        ({"sweep": 3}, InputTypeError, "settings.sweep=3: not a mapping"),
        ({"sweep": {"from": 0.0}}, InputValueError, "settings.sweep.from=0.0: not a number above 0"),
        ({"steps": 0}, InputValueError, "steps=0"),
    ],
)
def test_bad_settings_are_named(settings, error, said):
    with pytest.raises(error, match=said):
        parabola.run(settings)
