"""The curvature stays at the edge that theory gives, and the measured curvature is correct."""

import jax
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from matplotlib.figure import Figure
from shared import dense_hessian

from experiments import adaptive_edge_of_stability, edge_of_stability
from experiments.analysis import edge_runs
from experiments.analysis.edge_runs import CurvatureRun
from gdkit import descend, problems, sgd
from gdkit.errors import InputTypeError, InputValueError

SMALL = {"widths": [16, 16], "share": 0.05}  # a network small enough for its dense Hessian
TINY = {
    "network": SMALL,
    "learning_rates": [0.3],
    "heavy_ball": {"learning_rates": [0.6]},
    "steps": 600,
    "every": 50,
    "key": 0,
    "keys": 1,
}
TINY_ADAM = {"network": SMALL, "learning_rates": [3e-3], "steps": 800, "every": 40, "key": 0, "keys": 1}


@pytest.fixture(scope="module")
def plain():
    return edge_of_stability.run(TINY)


@pytest.fixture(scope="module")
def adaptive():
    return adaptive_edge_of_stability.run(TINY_ADAM)


@pytest.fixture(scope="module")
def bowl():
    """Any finished run."""
    return descend(problems.parabola(), sgd, 9, hyperparameters={"learning_rate": 0.1})


def synthetic_run(end, curvature, loss=None):
    """A run with an edge at 10 that is measured at every step."""
    loss = np.linspace(1.0, 0.1, len(curvature)) if loss is None else np.asarray(loss)
    return CurvatureRun(0.2, 10.0, end._replace(loss=loss), np.arange(len(curvature)), np.asarray(curvature, float))


@pytest.mark.full
def test_every_claim_of_gradient_descent_holds(plain):
    for claim in edge_of_stability.claims(plain):
        assert claim.holds, claim


@pytest.mark.full
def test_every_claim_of_adam_holds(adaptive):
    for claim in adaptive_edge_of_stability.claims(adaptive):
        assert claim.holds, claim


@pytest.mark.full
def test_edges_are_those_of_the_papers(plain, adaptive):
    found = [r.edge for group in plain.runs.values() for r in group]
    np.testing.assert_allclose(found, [2 / 0.3, 3.6 / 0.6])
    np.testing.assert_allclose([r.edge for r in adaptive.runs], [38 / 3e-3])


@pytest.mark.full
def test_claims_fail_if_the_curvature_stays_elsewhere(plain, adaptive):
    off = lambda r: r._replace(curvature=1.04 * r.edge / r.plateau * r.curvature)
    wrong = plain._replace(runs={name: [off(r) for r in group] for name, group in plain.runs.items()})
    assert [claim.holds for claim in edge_of_stability.claims(wrong)][:2] == [False] * 2
    wrong = adaptive._replace(runs=[off(r) for r in adaptive.runs])
    assert [claim.holds for claim in adaptive_edge_of_stability.claims(wrong)][:1] == [False]


@pytest.mark.full
def test_claims_fail_if_no_run_reaches_the_edge(plain):
    below = lambda r: r._replace(curvature=0.99 * np.minimum(r.curvature, r.edge))
    wrong = plain._replace(runs={name: [below(r) for r in group] for name, group in plain.runs.items()}, predicted=0.0)
    assert [claim.holds for claim in edge_of_stability.claims(wrong)][-3:] == [False] * 3


@pytest.mark.parametrize(
    ("curvature", "arrival_step", "has_sharpened"),
    [
        ([3, 6, 9, 10.5, 10, 10], 3, True),
        ([20, 3, 6, 9, 12, 10], 4, True),  # above at first, as with adam's first gradients
        ([8, 9, 10, 10], 2, False),  # not from well below
        ([3, 6, 9, 9], None, False),
        ([3, 6, np.nan, np.nan], None, False),
    ],
)
def test_a_run_arrives_at_the_first_point_at_the_edge_after_its_minimum(bowl, curvature, arrival_step, has_sharpened):
    run = synthetic_run(bowl, curvature)
    assert (run.arrival_step, run.has_sharpened) == (arrival_step, has_sharpened)


def test_plateau_is_the_median_of_the_last_third(bowl):
    assert synthetic_run(bowl, [1, 2, 3, 4, 5, 6, 9, 50, 10]).plateau == 10


@pytest.mark.parametrize(
    ("plateaus", "holds"),
    [
        ([10, 10.1, np.nan], True),  # one diverged
        ([10, np.nan, np.nan], False),
        ([10.2, 10.4, 10.5], False),  # the median is more than 3 % off
    ],
)
def test_the_level_is_claimed_of_the_median_key(bowl, plateaus, holds):
    runs = [synthetic_run(bowl, [3, 6, *[level] * 7])._replace(key=key) for key, level in enumerate(plateaus)]
    claims = edge_runs.edge_claims({"sgd": runs}, "sharpness", ["2/η"], "")
    assert [claim.holds for claim in claims if "plateau" in claim.text] == [holds]


@pytest.mark.parametrize("rates", [[0.1], [0.1, 0.2], [0.2, 0.1, 0.3]])
def test_runs_are_grouped_by_their_learning_rate(bowl, rates):
    run = synthetic_run(bowl, [3, 6, 10])
    groups = edge_runs.group_by_rate([run._replace(learning_rate=rate, key=key) for rate in rates for key in (4, 5)])
    assert [[(one.learning_rate, one.key) for one in group] for group in groups] == [
        [(rate, 4), (rate, 5)] for rate in rates
    ]


@pytest.mark.parametrize(
    ("loss", "has_descended"),
    [
        ([9, 8, 7, 8, 5, 6, 3, 4, 2], True),
        ([9, 8, 7, 6, 5, 4, 3, 2, 1], False),  # never rises
        ([9, 8, 7, 8, 5, 6, 5, 6, 7], False),  # rises in the long run
    ],
)
def test_loss_at_the_edge_rises_at_times_and_falls_in_the_long_run(bowl, loss, has_descended):
    assert synthetic_run(bowl, [1, *[10] * 8], loss=loss).has_descended == has_descended
    assert not synthetic_run(bowl, [1] * 9, loss=loss).has_descended


@pytest.mark.full
def test_recorded_sharpness_is_that_of_the_dense_hessian(plain):
    problem, (run,) = edge_runs.network(plain.settings["network"]), plain.runs[edge_of_stability.HEAVY]
    top = np.linalg.eigvalsh(dense_hessian(problem, run.end.params))[-1]
    assert list(run.step) == list(range(0, 601, 50))
    np.testing.assert_allclose(run.curvature[-1], top, rtol=1e-3)


@pytest.mark.full
def test_recorded_preconditioned_sharpness_is_that_of_a_dense_matrix(adaptive):
    problem, end = edge_runs.network(adaptive.settings["network"]), adaptive.runs[0].end
    grad, _ = ravel_pytree(jax.jit(jax.grad(problem.loss))(end.params, problem.data))
    second = 0.99 * np.asarray(ravel_pytree(end.opt_state[0].nu)[0]) + 0.01 * np.asarray(grad) ** 2  # of step 801
    p = ((1 - 0.9**801) * (np.sqrt(second / (1 - 0.99**801)) + 1e-7)).astype(np.float64)
    root = np.sqrt(1 / p)
    top = np.linalg.eigvalsh(root[:, None] * dense_hessian(problem, end.params) * root)[-1]
    np.testing.assert_allclose(adaptive.runs[0].curvature[-1], top, rtol=1e-3)


@pytest.mark.full
def test_printed_tables_have_one_line_per_run(plain, adaptive):
    _, _, *rows, last = str(plain).splitlines()
    assert [row.split("|")[0].strip() for row in rows] == ["gradient descent", "heavy ball"]
    assert "multiplier -" in last
    assert [row.split()[:3:2] for row in str(adaptive).splitlines()[2:]] == [["adam", "0.003"]]


@pytest.mark.full
def test_figures_show_curvature_edge_and_loss_of_every_run(plain, adaptive):
    figures = edge_of_stability.plot(plain) | adaptive_edge_of_stability.plot(adaptive)
    assert {name: type(figure) for name, figure in figures.items()} == {
        "edge_of_stability": Figure,
        "adaptive_edge_of_stability": Figure,
    }
    columns = {
        "edge_of_stability": (plain.runs.values(), TINY["steps"]),
        "adaptive_edge_of_stability": ([adaptive.runs], TINY_ADAM["steps"]),
    }
    for name, (groups, steps) in columns.items():
        axes = figures[name].axes
        for above, below, runs in zip(axes[: len(axes) // 2], axes[len(axes) // 2 :], groups, strict=True):
            level = {line.get_ydata()[0] for line in above.lines if len(set(line.get_ydata())) == 1}
            assert level == {r.edge for r in runs}
            assert [len(line.get_ydata()) for line in below.lines] == [steps + 1] * len(runs)
            assert len(below.get_legend().texts) == len(runs)


@pytest.mark.parametrize(
    ("study", "settings", "error", "said"),
    [
        (edge_of_stability, {"learningrates": [0.1]}, InputValueError, "Did you mean 'learning_rates'"),
        (edge_of_stability, {"learning_rates": [0.1, -1.0]}, InputValueError, r"learning_rates\[1\]=-1.0"),
        (edge_of_stability, {"learning_rates": []}, InputTypeError, r"learning_rates=\[\]: not a list"),
        (edge_of_stability, {"heavy_ball": {"momentun": 0.9}}, InputValueError, "Did you mean 'momentum'"),
        (edge_of_stability, {"network": {"activation": "tan"}}, InputValueError, "Did you mean 'tanh'"),
        (adaptive_edge_of_stability, {"b2": "0.99"}, InputTypeError, "settings.b2"),
        (adaptive_edge_of_stability, {"every": 0}, InputValueError, "settings.every=0"),
    ],
)
def test_bad_settings_are_named(study, settings, error, said):
    with pytest.raises(error, match=said):
        study.run(settings)
