"""The heavy ball's border and its fastest point are theory's; at tiny settings."""

import numpy as np
import pytest

from experiments import phase_diagram
from experiments.analysis import linear_steps
from gdkit.errors import InputTypeError, InputValueError

SMALL = {
    "condition_number": 16.0,
    "dimension": 3,
    "momentum": {"to": 0.9, "count": 7},
    "learning_rate": {"from": 0.5, "count": 16},
    "steps": 300,
}


@pytest.fixture(scope="module")
def plane():
    return phase_diagram.run(SMALL)


@pytest.mark.parametrize("ratio", [2.0, 16.0, 100.0])
def test_no_other_point_is_as_fast_as_polyaks(ratio):
    curvatures, best = np.geomspace(1, ratio, 7), linear_steps.polyak_optimum(ratio)
    rates = best.learning_rate * np.linspace(0.5, 1.5, 201)
    momenta = best.momentum + np.linspace(-1, 1, 201) * min(best.momentum, 1 - best.momentum)
    radius = linear_steps.spectral_radius("momentum", rates[None, :], curvatures, momenta[:, None])
    row, column = np.unravel_index(radius.argmin(), radius.shape)
    assert (row, column) == (100, 100)
    np.testing.assert_allclose(radius.min(), (ratio**0.5 - 1) / (ratio**0.5 + 1), rtol=1e-6)


def test_every_claim_holds(plane):
    for claim in phase_diagram.claims(plane):
        assert claim.holds, claim


def test_claims_can_fail(plane):
    other = plane.settings | {"condition_number": 160.0}
    assert not any(claim.holds for claim in phase_diagram.claims(plane._replace(settings=other)))


def test_polyaks_point_is_on_both_axes_and_the_plane_holds_all_others_but_what_lies_next_to_it(plane):
    best, axes = linear_steps.polyak_optimum(16.0), plane.runs.axes
    assert best.momentum in axes["momentum"] and best.learning_rate in axes["learning_rate"]
    assert plane.exponents.shape == (8, 17)


def test_table_puts_theory_beside_the_edge_of_every_momentum(plane):
    _, _, *rows, fastest, ideal = str(plane).splitlines()
    found = np.array([[float(cell) for cell in row.split("|")] for row in rows])
    np.testing.assert_allclose(found[:, 2], (2 + 2 * found[:, 0]) / 16, rtol=1e-3)
    np.testing.assert_allclose(found[:, 1], found[:, 2], rtol=0.15)
    assert fastest.split("rate")[1] == ideal.split("rate")[1]


def test_figure_draws_theory_in_both_panels_and_marks_the_fastest(plane):
    (figure,) = phase_diagram.plot(plane).values()
    left, right, bar = figure.axes
    for ax in (left, right):
        rates, momenta = ax.lines[-1].get_data()
        np.testing.assert_allclose(rates, (2 + 2 * np.asarray(momenta)) / 16)
    assert [text.get_text() for text in right.get_legend().get_texts()][1:] == ["fastest measured", "Polyak's optimum"]
    assert "edge of divergence" in [text.get_text() for text in left.get_legend().get_texts()]
    assert bar.get_ylabel()


@pytest.mark.parametrize(
    "settings, error, said",
    [
        ({"momentums": {}}, InputValueError, "Did you mean 'momentum'"),
        ({"momentum": {"to": 1.0}}, InputValueError, "settings.momentum.to=1.0: not below 1"),
        ({"condition_number": 0.5}, InputValueError, "settings.condition_number=0.5: below 1"),
        ({"learning_rate": {"count": "many"}}, InputTypeError, "settings.learning_rate.count='many'"),
    ],
)
def test_bad_settings_are_named(settings, error, said):
    with pytest.raises(error, match=said):
        phase_diagram.run(settings)
