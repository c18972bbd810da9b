"""The direction of a metric, from its declaration to everything that ranks by it."""

import dataclasses
import json

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest

import gdkit
from gdkit import Metric, Problem, plots, problems, sgd, sweep
from gdkit.app.answers import format_headline
from gdkit.app.report.embed import embed_sweeps, split_by_optimizer
from gdkit.app.summary import summarize
from tests import synthetic

RATES = np.array([1e-3, 0.01, 0.05, 0.1, 0.45])  # x after n steps: 1 − (1 − 2η)ⁿ, nearer to 1 for each larger rate
STEPS = 20
METRICS = {
    "accuracy": lambda x, d: x / d,  # large by its name
    "near": Metric(lambda x, d: -jnp.abs(x - d), maximize=True),
    "gap": Metric(lambda x, d: jnp.abs(x - d)),
    "r2": Metric(lambda x, d: (x - d) ** 2, maximize=False),  # small, as it says
}
PROBLEM = Problem(
    lambda x, b: (x - b) ** 2, jnp.zeros(()), data=jnp.ones(()), validation=jnp.ones(()), metrics=METRICS
)  # fmt: skip
LARGE = ("validation_accuracy", "validation_near")
SMALL = ("validation_gap", "validation_r2", "validation_loss", "final_loss")


@pytest.fixture(scope="module")
def result():
    return sweep(PROBLEM, sgd, {"learning_rate": RATES}, steps=STEPS)


@pytest.mark.parametrize("by", LARGE + SMALL)
def test_best_and_recommend_choose_the_largest_or_the_smallest_mean_and_report_it_as_it_is(result, by):
    values = result.lanes[by].values
    extreme, opposite = (np.argmax, np.argmin) if by in LARGE else (np.argmin, np.argmax)
    best, found = result.best(by), result.recommend(by=by)
    assert best.hyperparameters["learning_rate"] == found.best == RATES[extreme(values)]
    assert best.score == found.score == pytest.approx(values[extreme(values)])
    other = result.recommend(by=by, maximize=by not in LARGE)
    assert other.best == RATES[opposite(values)] and other.score == pytest.approx(values[opposite(values)])


def test_the_direction_survives_saving_extending_refining_and_resuming(result, tmp_path):
    result.save(tmp_path / "result.nc")
    run = sweep(PROBLEM, sgd, {"learning_rate": RATES}, steps=STEPS, store=tmp_path / "run")
    opened = gdkit.open(tmp_path / "run", problem=PROBLEM, optimizer=sgd)
    later = [result.extend(STEPS + 1), opened.refine(count=1), gdkit.open(tmp_path / "result.nc"), run, opened]
    assert all(one.recommend(by="validation_near").best >= RATES[-1] for one in later)
    for one in later:
        assert [by for by in LARGE + SMALL if one.is_maximized(by)] == list(LARGE)


def test_results_of_earlier_versions_maximize_accuracy_and_r2_only():
    earlier = synthetic.result(("sgd",))
    assert "maximized" not in earlier.lanes.attrs
    lanes = earlier.lanes.assign(test_r2=earlier.lanes["test_accuracy"], test_recall=earlier.lanes["test_accuracy"])
    earlier = dataclasses.replace(earlier, lanes=lanes)
    names = ("test_accuracy", "test_r2", "test_recall", "test_loss", "validation_loss")
    assert [name for name in names if earlier.is_maximized(name)] == ["test_accuracy", "test_r2"]
    means = lanes["test_accuracy"].values.reshape(-1, 3).mean(axis=1)
    assert earlier.best("test_accuracy").score == pytest.approx(np.nanmax(means))
    assert earlier.best("test_recall").score == pytest.approx(np.nanmin(means))


@pytest.mark.parametrize("name, metric, maximized", [
    ("accuracy", lambda outputs, y: jnp.mean(outputs), True),
    ("top", problems.accuracy, True),
    ("fit", problems.r2, True),
    ("recall", Metric(lambda outputs, y: jnp.mean(outputs), maximize=True), True),
    ("error", lambda outputs, y: jnp.mean(outputs), False),
    ("r2", Metric(problems.r2, maximize=True), True),
])  # fmt: skip
def test_supervised_keeps_the_direction_of_its_metrics(name, metric, maximized):
    x, y = np.eye(8, dtype=np.float32), np.arange(8.0)
    problem = problems.supervised(
        np.zeros(8, "f4"), lambda w, x: x @ w, "squared_error", (x, y), metrics={name: metric}
    )
    assert problem.metrics[name].maximize is maximized
    assert float(problem.metrics[name](jnp.ones(8), (x, y))) == float(metric(jnp.ones(8), y.astype("f4")))


@pytest.mark.parametrize("by", ["validation_near", "validation_accuracy", "validation_gap"])
def test_successive_halving_keeps_the_best_points_by_a_metric(by):
    axes = {"learning_rate": RATES}
    longest = lambda **direction: RATES[np.argmax(
        gdkit.successive_halving(PROBLEM, sgd, axes, steps=STEPS, least=5, by=by, **direction).lanes["end_step"].values
    )]  # fmt: skip
    assert longest() == RATES[-1]
    assert longest(maximize=by not in LARGE) == RATES[0]


def test_refine_adds_values_around_the_best_by_a_metric(result):
    finer = result.refine(count=2, by="validation_near", maximize=False)  # the worst is the smallest rate
    assert set(finer.axes["learning_rate"]) - set(RATES) and finer.axes["learning_rate"].max() == RATES[-1]
    assert finer.axes["learning_rate"].min() < RATES[0]


def test_studies_of_optuna_have_the_direction_of_the_metric(result):
    optuna = pytest.importorskip("optuna")
    for by in LARGE + SMALL[:2]:
        study, values = result.to_optuna(by=by), result.lanes[by].values
        assert study.direction.name == ("MAXIMIZE" if by in LARGE else "MINIMIZE")
        assert study.best_params["learning_rate"] == RATES[np.argmax(values) if by in LARGE else np.argmin(values)]
        search = gdkit.optuna_search(PROBLEM, sgd, {"learning_rate": (1e-3, 0.4)}, steps=2, trials=2, batch=2, by=by)
        assert search.study.direction == study.direction
    with pytest.raises(gdkit.GdkitError, match=r"study='minimize': it has other directions"):
        result.to_optuna(optuna.create_study(), by="validation_near")


def test_a_metric_is_a_function_with_a_direction():
    assert Metric(lambda a, b: a - b)(3, 1) == 2 and Metric(max).maximize is False
    with pytest.raises(gdkit.GdkitError, match=r"function=0\.5: not callable"):
        Metric(0.5)
    assert json.loads(sweep(PROBLEM, sgd, {"learning_rate": RATES}, steps=STEPS).lanes.attrs["maximized"]) == [
        "accuracy", "near",
    ]  # fmt: skip


@pytest.mark.parametrize("by", ["validation_accuracy", "validation_near", "validation_gap"])
def test_figures_mark_the_best_point_by_a_metric(result, by):
    ax = plots.final_loss(result, by=by)
    stars = [line for line in ax.lines if line.get_marker() == "*"]
    assert [float(star.get_xdata()[0]) for star in stars] == [RATES[-1]]
    assert ax.get_ylabel().endswith("(higher is better)") == (by in LARGE)
    reverse = plots.final_loss(result, by=by, maximize=by not in LARGE)
    assert [float(line.get_xdata()[0]) for line in reverse.lines if line.get_marker() == "*"] == [RATES[0]]
    plt.close("all")


def test_a_median_that_diverged_leaves_the_figure_on_the_bad_side():
    seen = synthetic.result(("sgd",), rates=8)
    for by, end in (("test_accuracy", 0), ("test_loss", 1)):
        ax = plots.final_loss(seen, by=by)
        median = next(line for line in ax.lines if line.get_linewidth() == 1.7)
        heights = median.get_ydata()[~np.isnan(median.get_ydata())]
        assert heights[-1] == ax.get_ylim()[end]
    plt.close("all")


@pytest.mark.parametrize("by, chosen", [("test_accuracy", "adam"), ("validation_loss", "adam"), ("test_loss", "adam")])
def test_summaries_choose_the_optimizer_with_the_best_metric(by, chosen):
    seen = synthetic.result(("sgd", "adam"))
    sign = 1 if by == "test_accuracy" else -1
    lanes = seen.lanes.assign({by: seen.lanes[by] - sign * 0.05 * (seen.lanes["optimizer"] == "sgd")})
    found = summarize(dataclasses.replace(seen, lanes=lanes), by)
    assert found.best.optimizer == chosen and not any("for some seed" in text for text in found.caveats)
    assert format_headline(found).startswith("Use adam with")
    extreme = np.nanmax if sign > 0 else np.nanmin
    assert found.best.score == pytest.approx(extreme(lanes[by].values.reshape(-1, 3).mean(axis=1)), abs=0.01)


def test_reports_embed_which_measures_are_maximized(result):
    data = embed_sweeps(split_by_optimizer(result, summarize(result, "validation_near")), "validation_near")
    assert data["maximized"] == list(LARGE)
    (optimizer,) = data["optimizers"]
    assert optimizer["score"] == pytest.approx(result.lanes["validation_near"].values.max())
    assert optimizer["best"] == len(RATES) - 1
