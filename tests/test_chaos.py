"""Period doubling and chaos of gradient descent on a quartic, against closed forms."""

import jax
import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy.optimize import brentq

from experiments import chaos
from experiments.analysis import period_doubling as theory
from gdkit import descend, sgd
from gdkit.errors import InputTypeError, InputValueError

TINY = {
    "learning_rates": {"count": 505},
    "steps": 3000,
    "doublings": {"count": 4, "learning_rates": 64, "steps": 15000},
}


@pytest.fixture(scope="module")
def result():
    return chaos.run(TINY)


def multiplier(rate, period):
    """Of the attracting cycle, by hand: Newton's method on the map applied `period` times."""
    x = ((1 + rate) / (3 * rate)) ** 0.5  # the critical point, which every attracting cycle attracts
    for _ in range(3000 * period):
        x = (1 + rate) * x - rate * x**3
    for _ in range(30):
        y, slope = x, 1.0
        for _ in range(period):
            y, slope = (1 + rate) * y - rate * y**3, slope * (1 + rate - 3 * rate * y**2)
        x -= (y - x) / (slope - 1)
    return slope


@pytest.mark.full
def test_every_claim_holds(result):
    for claim in chaos.claims(result):
        assert claim.holds, claim


@pytest.mark.full
def test_claims_can_fail(result):
    shifted = result._replace(doublings=result.doublings + 0.003 * np.arange(4))
    failed = [not claim.holds for claim in chaos.claims(shifted)]
    assert sum(failed) >= 2
    lanes = result.runs.lanes
    off = lanes.assign(lyapunov_exponent=lanes["lyapunov_exponent"] + 0.05, iterates=-lanes["iterates"])
    wrong = result._replace(runs=type(result.runs)(off, result.runs.grids))
    assert sum(not claim.holds for claim in chaos.claims(wrong)) >= 6


@pytest.mark.full
def test_doublings_are_where_the_multiplier_found_by_newton_is_minus_one(result):
    brackets = [(0.9, 1.1, 1), (1.15, 1.28, 2), (1.27, 1.295, 4), (1.295, 1.301, 8)]
    exact = [brentq(lambda rate, p=period: multiplier(rate, p) + 1, low, high) for low, high, period in brackets]
    np.testing.assert_allclose(exact[:2], theory.DOUBLINGS, rtol=1e-8)
    np.testing.assert_allclose(result.doublings, exact, atol=1e-3)


def test_closed_form_of_the_cycle_is_the_multiplier_found_by_newton():
    rates = np.array([1.02, 1.1, 1.2])
    np.testing.assert_allclose(theory.closed_form(rates), [np.log(abs(multiplier(r, 2))) / 2 for r in rates], rtol=1e-6)


def test_curvature_at_the_minimum_is_the_one_that_the_borders_use():
    problem = theory.double_well(0.5)
    assert float(jax.hessian(problem.loss)(1.0)) == theory.CURVATURE
    assert float(problem.loss(1.0)) == 0


def test_recorded_iterates_are_the_last_of_the_run_oldest_first():
    options = {"hyperparameters": {"learning_rate": 1.5}, "record_params": True}
    run = descend(theory.double_well(0.5), sgd, 25, monitors=[theory.last_iterates(10)], **options)
    np.testing.assert_array_equal(run.statistics["iterates"], run.params_history[-10:])


def test_periods_are_the_smallest_powers_of_two():
    rows = np.stack([np.arange(100) % p for p in (1, 2, 4, 8, 3)])
    np.testing.assert_array_equal(theory.periods(rows), [1, 2, 4, 8, np.inf])


@pytest.mark.full
def test_printed_table_has_one_line_per_doubling(result):
    _, _, *rows = str(result).splitlines()
    assert [row.split("|")[0].strip() for row in rows] == ["1 → 2", "2 → 4", "4 → 8", "8 → 16"]


@pytest.mark.full
def test_figure_shows_iterates_exponents_and_intervals(result):
    figures = chaos.plot(result)
    assert {name: type(figure) for name, figure in figures.items()} == {"chaos": Figure}
    above, below, beside = figures["chaos"].axes
    alive = int(np.isfinite(result.exponents).sum())
    assert above.lines[0].get_xdata().size == alive * theory.ITERATES
    assert {*theory.DOUBLINGS, theory.BOTH_WELLS, theory.DIVERGENCE} <= {line.get_xdata()[0] for line in below.lines}
    np.testing.assert_array_equal(beside.lines[1].get_ydata(), np.diff(result.doublings))


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"learning_rate": 1.0}, InputValueError, "Did you mean 'learning_rates'"),
        ({"doublings": {"count": 1.5}}, InputTypeError, "settings.doublings.count=1.5: not an integer"),
        ({"doublings": {"count": 2}}, InputValueError, "settings.doublings.count=2"),
        ({"learning_rates": {"to": 0.9}}, InputValueError, "settings.learning_rates.to=0.9"),
        ({"steps": 1000}, InputValueError, "settings.burn_in=1000"),
    ],
)
def test_bad_settings_are_named(settings, error, said):
    with pytest.raises(error, match=said):
        chaos.run(settings)
