"""statistics="ends": what is recorded equals what is recorded with all statistics, and what needs more says so."""

import numpy as np
import optax
import pytest
from shared import assert_same_bits, quick

import gdkit
from gdkit import Regime, descend, monitors, plots, problems, sgd, sweep
from gdkit.app.answers import format_answer
from gdkit.app.config.build import build_arguments
from gdkit.app.config.loading import loads
from gdkit.app.config.source import ConfigError
from gdkit.app.summary import summarize
from gdkit.app.terminal.tables import format_summary
from gdkit.errors import InputValueError, OtherRunError
from gdkit.monitors import EndKind
from gdkit.sweeps.result.exports.trackers import tracked_lanes

CASES = {
    "parabola": (problems.parabola(), sgd, [0.01, 0.3, 0.9, 1.2, 30.0], 1),
    "rosenbrock": (problems.rosenbrock(), optax.adam, [1e-3, 0.1, 3.0], 1),
    "minibatches": (problems.mlp("iris", widths=(3,), batch_size=16), sgd, [1e-2, 0.3, 1e3], 2),
}
STEPS = 60


@pytest.fixture(scope="module", params=quick(CASES, "minibatches"))
def both(request):
    problem, factory, rates, seeds = CASES[request.param]
    run = lambda statistics: sweep(
        problem, factory, {"learning_rate": rates}, steps=STEPS, seeds=seeds, curve_points=2000, statistics=statistics
    )
    return run("all"), run("ends")


def test_the_ends_are_those_with_all_statistics(both):
    full, ends = both
    names = {"initial_loss", "final_loss", "min_loss", "end_step", "end_kind", "curve_loss"}
    assert names <= set(ends.lanes.data_vars) < set(full.lanes.data_vars)
    for name in set(ends.lanes.data_vars) - {"reference_loss"}:
        # to rounding: XLA compiles the loops differently
        np.testing.assert_allclose(ends.lanes[name], full.lanes[name], rtol=1e-4, err_msg=name)
    assert not {"late_mean", "reversal", "update_norm"} & set(ends.lanes.data_vars)


def test_the_ends_are_those_of_the_losses_at_every_step(both):
    lanes = both[1].lanes
    for lane, losses in enumerate(lanes["curve_loss"].values):
        seen = losses[: int(lanes["end_step"][lane]) + 1]
        assert lanes["initial_loss"][lane] == seen[0]
        np.testing.assert_array_equal(lanes["final_loss"][lane], seen[-1])
        assert lanes["min_loss"][lane] == np.nanmin(seen)


def test_best_edge_and_recommendation_need_no_regimes(both):
    full, ends = both
    left = np.isin(full.lanes["end_kind"], (EndKind.NONFINITE, EndKind.EXCEEDED))
    np.testing.assert_array_equal(ends.lane_regimes, np.where(left, Regime.DIVERGED, Regime.UNKNOWN))
    assert ends.best().hyperparameters == full.best().hyperparameters and ends.best().score == full.best().score
    if (left == (full.lane_regimes == Regime.DIVERGED)).all():
        for name in ("low", "high", "edge", "simple", "median"):
            np.testing.assert_array_equal(ends.edge()[name], full.edge()[name])
    found, expected = ends.recommend(), full.recommend()
    assert (found.best, found.mean, found.plateau) == (expected.best, expected.mean, expected.plateau)
    assert any("regimes are not available with statistics='ends'" in text for text in found.caveats)
    assert not any("no run converged" in text for text in found.caveats)
    assert not any("regimes are not available" in text for text in expected.caveats)


def test_what_needs_regimes_names_the_remedy(both):
    ends = both[1]
    for ask in (lambda: ends.regimes, lambda: ends.verdicts, lambda: ends.with_thresholds(reversal=0.1).regimes):
        with pytest.raises(InputValueError, match=r"statistics='ends': regimes are not available.*statistics='all'"):
            ask()


def test_exports_answers_and_figures_show_what_is_known(both):
    ends = both[1]
    assert set(ends.to_dataframe()["regime"]) <= {"UNKNOWN", "DIVERGED"}
    assert {lane.tags["regime"] for lane in tracked_lanes(ends)} <= {"UNKNOWN", "DIVERGED"}
    assert "UNKNOWN" in str(ends) and "UNKNOWN" in ends._repr_html_()
    summary = summarize(ends)
    assert "Use learning rate" in format_answer(summary) and "No run converged" not in format_answer(summary)
    assert "regimes need statistics: all" in format_summary(summary)
    plots.final_loss(ends)
    plots.loss_curves(ends)


def test_ends_with_further_monitors_resume_extend_refine_and_replay(tmp_path):
    problem, rates = problems.parabola(), {"learning_rate": [0.1, 0.9, 1.2]}
    settings = {"statistics": "ends", "monitors": [monitors.time_to(1.0), monitors.patience(checks=3)]}
    stored = sweep(problem, sgd, rates, steps=40, store=tmp_path / "run", **settings)
    run = descend(problem, sgd, 40, hyperparameters={"learning_rate": 0.1}, monitors=settings["monitors"])
    for name in ("time_to_1", "final_loss", "end_kind", "end_step"):
        np.testing.assert_allclose(stored.lanes[name][0], run.statistics[name], rtol=1e-5)
    again = gdkit.open(tmp_path / "run", problem=problem, optimizer=sgd, monitors=settings["monitors"])
    for result in (stored, again):
        assert not result.has_all_statistics
        assert_same_bits(result.extend(70), sweep(problem, sgd, rates, steps=70, **settings))
    assert again.replay(0).same
    assert again.refine(around=(0.2, 0.4), count=2).lanes.sizes["lane"] == 5
    with pytest.raises(OtherRunError, match=r"statistics"):
        sweep(problem, sgd, rates, steps=40, store=tmp_path / "run", **settings | {"statistics": "all"})


@pytest.mark.parametrize("value", ["end", "none", ""])
def test_other_words_are_refused(value):
    with pytest.raises(InputValueError, match=f"statistics={value!r}: no such name"):
        sweep(problems.parabola(), sgd, {"learning_rate": [0.1]}, steps=3, statistics=value)


CONFIG = """\
name: small
problem: {name: parabola}
optimizer: {name: sgd}
sweep: {axes: {learning_rate: [0.1, 1.0]}, steps: 10, statistics: ends}
"""


def test_a_config_chooses_the_statistics():
    assert build_arguments(loads(CONFIG))["statistics"] == "ends"
    assert build_arguments(loads(CONFIG.replace(", statistics: ends", "")))["statistics"] == "all"
    with pytest.raises(ConfigError, match=r"c.yaml:4: sweep.statistics = 'some': must be 'all' or 'ends'"):
        loads(CONFIG.replace("ends", "some"), file="c.yaml")
