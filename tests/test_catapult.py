"""Three phases with their borders at 2 and 4, and the map of one datum; at tiny settings."""

import numpy as np
import pytest
from shared import dense_hessian

import gdkit
from experiments import catapult
from experiments.problems.linear_network import network
from gdkit import Regime
from gdkit.errors import InputTypeError, InputValueError

SMALL = {"width": 512, "sweep": {"from": 1.52, "to": 4.52, "count": 13, "steps": 400}}
ONE = np.ones((1, 1), np.float32), np.zeros(1, np.float32)


@pytest.fixture(scope="module")
def study():
    return catapult.run(SMALL)


def test_descent_on_one_datum_is_the_map_of_distance_and_curvature():
    problem, kernel = network(*ONE, width=64, key=0)
    rate = 2.7 / kernel
    run = gdkit.descend(problem, gdkit.sgd, 25, hyperparameters={"learning_rate": rate}, record_params=True)
    u, v = run.params_history[0][:, 0].astype(float), run.params_history[1].astype(float)  # (26, 64)
    measured = np.stack([rate * np.sum(u * v, axis=1) / 64, rate * np.sum(u**2 + v**2, axis=1) / 64])
    gamma, k = measured[:, 0]
    for t in range(8):  # later, rounding has grown with the loss
        np.testing.assert_allclose(measured[:, t], (gamma, k), rtol=2e-3)
        gamma, k = gamma * (1 - k + gamma**2), k + gamma**2 * (k - 4)
    assert np.all(np.abs(measured[0]) <= measured[1] / 2 * (1 + 1e-5))
    np.testing.assert_allclose(kernel * rate, measured[1, 0], rtol=1e-5)


@pytest.mark.full
def test_tangent_kernel_is_the_sharpness_where_the_residual_is_zero():
    x = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    problem, kernel = network(x, np.zeros(6, np.float32), width=16, key=3)
    outputs = x @ problem.init[0] @ problem.init[1] / (16 * 3) ** 0.5
    exact = problem.data[0], outputs  # targets that the start already meets
    top = np.linalg.eigvalsh(dense_hessian(problem, problem.init, exact))[-1]
    np.testing.assert_allclose(kernel, top, rtol=1e-4)


@pytest.mark.full
def test_optimum_is_least_squares():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(20, 3)).astype(np.float32), rng.normal(size=20).astype(np.float32)
    problem, kernel = network(x, y, width=64, key=0)
    run = gdkit.descend(problem, gdkit.sgd, 2000, hyperparameters={"learning_rate": 1 / kernel}, record_every=2000)
    np.testing.assert_allclose(run.loss[-1], problem.optimum, rtol=1e-3)


@pytest.mark.full
def test_every_claim_holds(study):
    for claim in catapult.claims(study):
        assert claim.holds, claim


@pytest.mark.full
def test_claims_can_fail(study):
    shrunk = {name: phases._replace(kernel=0.7 * phases.kernel) for name, phases in study.phases.items()}
    broken = [claim.text for claim in catapult.claims(study._replace(phases=shrunk)) if not claim.holds]
    assert sum("times λ₀" in text for text in broken) == 6


@pytest.mark.full
def test_catapults_end_flatter_than_they_began_and_monotone_runs_do_not(study):
    for phases in study.phases.values():
        catapults = phases.runs.lane_regimes == Regime.CATAPULT
        assert phases.sharpness[catapults].max() < 1 and phases.scaled[catapults].min() > 2
        np.testing.assert_allclose(phases.sharpness[phases.scaled < 1.8], 1, atol=0.1)
        assert np.isnan(phases.sharpness[phases.scaled > 4.2]).all()


@pytest.mark.full
def test_table_has_a_row_for_each_network(study):
    _, _, *rows = str(study).splitlines()
    assert [row.split("|")[0].strip() for row in rows] == list(study.phases)


@pytest.mark.full
def test_figure_has_the_borders_in_every_panel_over_learning_rates(study):
    (figure,) = catapult.plot(study).values()
    rows = np.array(figure.axes).reshape(len(study.phases), 3)
    for ax in rows[:, 1:].ravel():
        verticals = {line.get_xdata()[0] for line in ax.lines if len(set(line.get_xdata())) == 1}
        assert {2, 4} <= verticals
    for ax in rows[:, 0]:
        shown = [float(text.get_text()) for text in ax.get_legend().get_texts()]
        np.testing.assert_allclose(shown[1:], list(catapult.EXAMPLES)[1:], atol=0.05)


@pytest.mark.parametrize(
    "settings, error, said",
    [
        ({"widht": 64}, InputValueError, "Did you mean 'width'"),
        ({"width": 64.0}, InputTypeError, "settings.width=64.0: not an integer"),
        ({"sweep": {"from": -1.0}}, InputValueError, "settings.sweep.from=-1.0: not a number above 0"),
    ],
)
def test_bad_settings_are_named(settings, error, said):
    with pytest.raises(error, match=said):
        catapult.run(settings)
