"""Descent and its flow: the integration, the distances, and the times at which runs leave the flow."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from experiments import gradient_flow
from experiments.analysis.continuous_flow import FlowSharpness, distance_monitor, runge_kutta
from gdkit import descend, problems, sgd, sweep
from gdkit.errors import InputTypeError, InputValueError

TINY = {"intervals": {"count": 15}, "descent_steps": [4, 6, 7, 8, 10, 32, 40], "flow_steps": 20}


@pytest.fixture(scope="module")
def result():
    return gradient_flow.run(TINY)


@pytest.mark.full
def test_every_claim_holds(result):
    for claim in gradient_flow.claims(result):
        assert claim.holds, claim


@pytest.mark.full
def test_claims_can_fail(result):
    further = result.distance * (result.rates / result.rates[-1])[:, None] ** 0.2
    cases = [
        result._replace(distance=further, error=1.0),  # not first order, and a flow with a large error
        result._replace(sharpness=0.7 * result.sharpness),  # the flow reaches 2/η after runs have left
        result._replace(sharpness=np.full_like(result.sharpness, 3.0)),  # nothing should ever leave
    ]
    failed = [[not claim.holds for claim in gradient_flow.claims(case)] for case in cases]
    assert failed[0][0] and failed[0][-1]
    assert failed[1][2] or failed[1][3]
    assert np.any(failed, axis=0).sum() >= 4


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


@pytest.mark.full
def test_oscillation_is_the_product_of_its_factors_down_to_rounding(result):
    flat = FlowSharpness(np.arange(0, 4.0), np.ones(4), result.curve.rounding)
    growth = flat.growth(0.5)  # two steps per unit of time, each with factor ½
    np.testing.assert_allclose(growth[-1], 6 * np.log(0.5), rtol=1e-9)
    np.testing.assert_allclose(flat.oscillation(0.5), growth)
    long = flat._replace(time=100 * flat.time)
    assert long.growth(0.5)[-1] < 2 * np.log(np.finfo(np.float32).eps)
    assert long.oscillation(0.5).min() == pytest.approx(np.log(np.finfo(np.float32).eps))


@pytest.mark.full
def test_a_run_that_oscillates_from_the_start_is_predicted_to_leave_at_once(result):
    steep = result._replace(sharpness=np.full_like(result.sharpness, 9.0))
    assert list(steep.curve.predicted_departures(np.array([0.5, 0.2]))) == [0.0, np.inf]


@pytest.mark.full
def test_printed_table_has_one_line_per_run(result):
    _, _, first, *rest = str(result).splitlines()
    assert first.split()[0] == "0.5000"
    assert len(rest) == 6
    assert rest[-1].count("never") == 3


@pytest.mark.full
def test_figure_shows_distances_and_departures(result):
    figures = gradient_flow.plot(result)
    assert {name: type(figure) for name, figure in figures.items()} == {"gradient_flow": Figure}
    along, across, when = figures["gradient_flow"].axes
    np.testing.assert_allclose(along.lines[0].get_ydata(), result.distance[0, 1:])
    assert 2 / result.sharpness.max() in [line.get_xdata()[0] for line in across.lines if len(line.get_xdata())]
    np.testing.assert_array_equal(when.lines[0].get_ydata(), result.sharpness)
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
