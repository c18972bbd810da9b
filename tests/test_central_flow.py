"""The study of the central flow: what it claims of paths holds at tiny settings; claims fail for other flows."""

import jax
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from experiments import central_flow
from experiments.central_flow import FlowComparison
from gdkit.errors import InputTypeError, InputValueError

TINY = {
    "widths": [12], "degrees": [3], "learning_rates": [0.2], "starts": 1, "key": 0, "approach": 400, "steps": 300,
    "transient": 100, "k": 1, "substeps": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def result():
    return central_flow.run(TINY)


def synthetic(**changes):
    """A run whose loss alternates around 2, at the edge 10, and a flow that predicts it."""
    step = np.arange(0, 101, 10)
    loss, flat = 2 + (-1.0) ** np.arange(101), np.full(11, 2.0)
    paths = flat, 0.5 * flat, 5 * flat, 5 * flat[:, None]
    case = FlowComparison(3, 0, 10.0, 40, step, loss, *paths, 0.01 * flat, 0.5 * flat)
    return central_flow.CentralFlowStudy(
        central_flow.DEFAULTS | {"degrees": [3], "starts": 1, "transient": 50}, [case._replace(**changes)]
    )


@pytest.mark.full
def test_claims_on_paths_hold(result):
    loss, *paths = central_flow.claims(result)
    assert "predicted mean loss" in loss.text
    for claim in paths:  # the mean of a loss takes more of its cycles than these few steps
        assert claim.holds, claim


@pytest.mark.full
def test_flows_start_where_the_sharpness_nears_the_edge(result):
    (case,) = result.cases
    assert case.edge == 10
    assert 0.95 * case.edge <= case.measured[0] < 1.05 * case.edge
    assert case.central[0] == case.gradient[0] == 0


def test_network_fits_the_polynomial_of_its_degree():
    x = np.linspace(-1, 1, 7)
    for degree, polynomial in ((2, 2 * x**2 - 1), (3, 4 * x**3 - 3 * x), (4, 8 * x**4 - 8 * x**2 + 1)):
        problem = central_flow.chebyshev((2,), 7)(degree)
        vector, unravel = ravel_pytree(problem.init(jax.random.key(0)))
        np.testing.assert_allclose(problem.loss(unravel(0 * vector)), np.mean(polynomial**2), rtol=1e-4)


@pytest.mark.parametrize(
    ("changes", "failing"),
    [
        ({}, []),
        ({"predicted": np.full(11, 2.2)}, ["after 50 steps"]),
        ({"predicted": np.ones(11)}, ["after 50 steps", "share of cases"]),
        ({"central": np.full(11, 0.3)}, ["distance"]),
        ({"sharpness": np.full((11, 1), 10.3)}, ["largest sharpness"]),
        ({"loss": np.full(101, np.nan)}, ["after 50 steps", "share of cases"]),
    ],
)
def test_claims_fail_where_a_flow_does_not_predict_the_run(changes, failing):
    found = [claim.text for claim in central_flow.claims(synthetic(**changes)) if not claim.holds]
    assert len(found) == len(failing)
    assert all(any(part in text for text in found) for part in failing)


@pytest.mark.full
def test_table_and_figure_show_every_network(result):
    assert len(str(result).splitlines()) == 3
    axes = central_flow.plot(result)["central_flow"].axes
    assert [len(ax.lines) for ax in axes] == [3, 3, 2]
    np.testing.assert_array_equal(axes[2].lines[0].get_ydata(), result.cases[0].central)


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"widht": [3]}, InputValueError, "Did you mean 'widths'"),
        ({"degrees": []}, InputTypeError, r"degrees=\[\]: not a list"),
        ({"every": 0}, InputValueError, "settings.every=0"),
    ],
)
def test_bad_settings_are_named(settings, error, said):
    with pytest.raises(error, match=said):
        central_flow.run(settings)
