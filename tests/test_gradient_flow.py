"""Descent and its flow: the integration, the distances, and the times at which runs leave the flow."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from experiments import gradient_flow
from experiments.analysis.continuous_flow import FlowSharpness, distance_monitor, runge_kutta
from gdkit import descend, problems, sgd, sweep
from gdkit.errors import InputTypeError, InputValueError

TINY = {"intervals": {"count": 18}, "descent_steps": [4, 5, 6, 8, 10, 32, 40], "flow_steps": 20, "key": 805, "keys": 1}
SHORT = {"network": {"widths": [4]}, "intervals": {"count": 3}, "descent_steps": [4, 8, 16], "keys": 2}


def replace(result, **fields):
    """The result with other fields of its first key."""
    return result._replace(starts=[result.starts[0]._replace(**fields), *result.starts[1:]])


def flat_curve(level, *, end=60.0, slope=0.0, rounding=1e-9):
    """A sharpness that stays at a level."""
    time = np.linspace(0, end, 31)
    return FlowSharpness(time, np.full(31, level), np.full(31, slope), np.full(31, rounding))


@pytest.fixture(scope="module")
def result():
    return gradient_flow.run(TINY)


@pytest.mark.full
def test_every_claim_holds(result):
    for claim in gradient_flow.claims(result):
        assert claim.holds, claim


@pytest.mark.full
def test_claims_can_fail(result):
    one = result.starts[0]
    further = one.distance * (one.rates / one.rates[-1])[:, None] ** 0.2
    shaken = one.curve._replace(rounding=100 * one.curve.rounding)
    cases = [
        replace(result, distance=further, error=1.0),  # not first order, and a flow with a large error
        replace(result, curve=shaken),  # runs should leave earlier
        replace(result, curve=one.curve._replace(values=0.7 * one.curve.values)),  # or much later
    ]
    failed = [[not claim.holds for claim in gradient_flow.claims(case)] for case in cases]
    assert failed[0][0] and failed[0][-1]
    assert failed[1][2]
    assert failed[2][3]


@pytest.mark.full
def test_every_key_has_a_start_of_its_own():
    first, second = gradient_flow.run(SHORT).starts
    assert second.key == first.key + 1
    assert np.abs(first.distance[:, 0]).max() < 1e-6  # runs begin where the flow does
    assert not np.allclose(first.distance[:, -1], second.distance[:, -1], rtol=1e-3)


@pytest.mark.full
def test_runge_kutta_is_of_order_four():
    curvatures = np.array([0.5, 2.0])
    problem = problems.quadratic(curvatures.tolist())
    exact = np.exp(-2.0 * curvatures)  # after the time 2
    errors = [
        np.abs(
            np.asarray(descend(problem, runge_kutta, n, hyperparameters={"learning_rate": 2 / n}).params) - exact
        ).max()
        for n in (4, 8)
    ]
    assert 12 < errors[0] / errors[1] < 30  # 2⁴, and a little more
    assert errors[1] < 5e-3


def test_distances_are_those_at_the_ends_of_intervals():
    problem = problems.quadratic([0.5, 2.0])
    flow = np.exp(-np.arange(4)[:, None] * np.array([0.5, 2.0], np.float32), dtype=np.float32)
    rates = np.array([0.25, 0.5])
    result = sweep(problem, sgd, {"learning_rate": rates}, steps=20, monitors=[distance_monitor(flow, 1.0)])
    params = [[(1 - rate * np.array([0.5, 2.0])) ** (n / rate) for n in range(4)] for rate in rates]
    expected = np.linalg.norm(np.array(params) - flow, axis=2)
    np.testing.assert_allclose(result.lanes["distance"].values, expected, atol=1e-6)


@pytest.mark.parametrize(("level", "slope"), [(1.0, 0.0), (1.8, -0.4), (6.0, 0.0)])
def test_an_oscillation_has_the_variance_of_its_recursion(level, slope):
    """In closed form σ² (m²ⁿ − 1)/(m² − 1), against a sum over the roundings of all steps."""
    curve, factor = flat_curve(level, slope=slope), 0.5 * (level + 0.5 * slope) - 1
    np.testing.assert_allclose(curve.growth(0.5), np.arange(121) * np.log(abs(factor)), rtol=1e-9)
    powers = factor ** (2.0 * np.arange(120))
    np.testing.assert_allclose(curve.oscillation(0.5)[1:], 1e-9 * np.sqrt(np.cumsum(powers)), rtol=1e-9)


@pytest.mark.parametrize(("rate", "left"), [(0.5, 7.5), (0.25, np.inf), (0.2, np.inf)])
def test_a_run_should_leave_when_its_oscillation_is_at_the_limit(rate, left):
    """By a factor of 3 per step, it is 1e-9 · √((9ⁿ − 1)/8) after n steps, and above 0.5 · 0.01 from the 15th on."""
    curve = flat_curve(8.0)
    np.testing.assert_allclose(curve.predicted_departures(np.array([rate]), np.full(31, 0.01)), left)


def test_a_first_order_of_the_sharpness_moves_the_departure_but_not_the_crossing():
    rates, limit = np.array([0.3]), np.full(31, 0.01)
    straight, lower = flat_curve(8.0), flat_curve(8.0, slope=-2.0)
    assert straight.crossing_times(rates) == lower.crossing_times(rates) == 0.0
    assert straight.predicted_departures(rates, limit) < lower.predicted_departures(rates, limit)


@pytest.mark.full
def test_printed_tables_have_one_line_per_run_and_per_key(result):
    runs, keys = str(result).split("\n\n")
    assert runs.splitlines()[3].split()[0] == "0.5000"
    assert len(runs.splitlines()) == 3 + 7
    assert len(keys.splitlines()) == 3


@pytest.mark.full
def test_figure_shows_distances_and_departures(result):
    figures, one = gradient_flow.plot(result), result.starts[0]
    assert {name: type(figure) for name, figure in figures.items()} == {"gradient_flow": Figure}
    along, across, when = figures["gradient_flow"].axes
    np.testing.assert_allclose(along.lines[0].get_ydata(), one.distance[0, 1:])
    assert 2 / one.curve.values.max() in [line.get_xdata()[0] for line in across.lines if len(line.get_xdata())]
    np.testing.assert_array_equal(when.lines[0].get_ydata(), one.curve.values)
    assert len(when.containers) == 1


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"descent_step": [4]}, InputValueError, "Did you mean 'descent_steps'"),
        ({"descent_steps": [4, 8]}, InputValueError, "settings.descent_steps"),
        ({"descent_steps": [4.5, 8, 9]}, InputTypeError, "not an integer"),
        ({"intervals": {"length": 0.0}}, InputValueError, "settings.intervals.length=0.0"),
    ],
)
def test_bad_settings_are_named(settings, error, said):
    with pytest.raises(error, match=said):
        gradient_flow.run(settings)
