"""Explained runs against closed forms, dense Hessians and the lanes of the sweep; edges against theory's formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from matplotlib.figure import Figure
from shared import assert_refused, dense_hessian

import gdkit
from gdkit import Learner, Problem, Regime, SweepResult, optimizers, plots, sgd, stability_threshold, sweep
from gdkit.app.cli import main
from gdkit.app.directory import find_explanations, find_report_damage
from gdkit.app.report import write_report
from gdkit.app.report.figures import list_figures
from gdkit.app.report.sections import render_explanations
from gdkit.app.run.hooks import Hooks
from gdkit.app.summary import summarize
from gdkit.stability.edges import find_edge

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(12, 3)).astype(np.float32), RNG.normal(size=12).astype(np.float32)
CONFIG = """\
name: small
problem: {name: quadratic, eigenvalues: [1.0, 4.0]}
optimizer: {name: sgd}
sweep: {axes: {learning_rate: [0.1, 0.45, 0.55]}, steps: 20}
"""
EDGE = {"rtol": 4e-3}  # the spacing of the last search


@pytest.mark.parametrize(
    ("optimizer", "family", "others"),
    [
        (sgd, "sgd", {}),
        (sgd, "momentum", {"momentum": 0.7}),
        (optax.adam, "adam", {"b1": 0.8}),
        (optax.rmsprop, "adam", {"b1": 0.0}),
    ],
)
def test_the_edge_of_an_optimizer_is_that_of_theory(optimizer, family, others):
    expected = stability_threshold(family, 1.0, **others) / 0.03
    own = {} if optimizer is optax.rmsprop else others
    np.testing.assert_allclose(find_edge(optimizer, {"learning_rate": 0.03} | own, [0, 7, 2000]), expected, **EDGE)


def test_the_edge_follows_a_schedule_and_is_unknown_for_signs():
    halving = optimizers.with_schedule(sgd, lambda t: jnp.where(t < 30, 0.5 ** (t // 10), 0.0))
    np.testing.assert_allclose(
        find_edge(halving, {"learning_rate": 0.1}, [0, 10, 20, 30]), [20, 40, 80, np.inf], **EDGE
    )
    assert find_edge(optax.sign_sgd, {"learning_rate": 0.1}) is None


@pytest.fixture(scope="module")
def bowl():
    """Gradient descent on a quadratic, whose edge is 2/4."""
    start = lambda key: 1 + jax.random.uniform(key, (4,))
    problem = Problem(lambda x: 0.5 * jnp.sum(jnp.array([0.1, 0.2, 3.9, 4.0]) * x**2), start, optimum=0.0)
    return sweep(problem, sgd, {"learning_rate": [0.1, 0.45, 0.55, 0.6]}, steps=20, seeds=2)


@pytest.mark.full
def test_a_quadratic_is_stable_below_two_over_its_curvature(bowl):
    found = bowl.explain(1, points=5, flow_steps=0)
    places = [(run.lane, run.place) for run in found.runs]
    assert places == [(1, ""), (3, "just below divergence"), (5, "just above divergence")]
    for run in found.runs:
        np.testing.assert_allclose(run.sharpness, 4, rtol=1e-4)
        np.testing.assert_allclose(run.ratio, 4 * run.value / 2, **EDGE)
        np.testing.assert_allclose(run.loss[-1], bowl.lanes["final_loss"].values[run.lane], rtol=1e-4)
    np.testing.assert_allclose(found.eigenvalues, [4.0, 3.9, 0.2, 0.1], rtol=1e-3)
    assert found.outliers == 2 and not found.flow_note
    assert "It stays below the edge" in found.text and "starts above the edge" in found.text


def test_a_run_beside_the_divergence_is_its_own_neighbor(bowl):
    found = bowl.explain(4, points=5, flow_steps=0)
    assert found.runs[0].regime == Regime.DIVERGED and found.runs[0].place == "just above divergence"
    assert [run.lane for run in found.runs] == [4, 2]


@pytest.mark.full
def test_a_run_that_reaches_the_edge_is_held_there_as_its_central_flow_predicts():
    valley = Problem(lambda p: 0.5 * (4 + p[0]) * p[1] ** 2 - 0.02 * p[0], init=jnp.array([0.95, 0.2]))
    result = sweep(valley, sgd, {"learning_rate": [0.2, 0.4]}, steps=200)
    found = result.explain(1, points=20, flow_steps=200)
    (run,) = found.runs
    np.testing.assert_allclose(run.edge, 5, **EDGE)
    assert run.arrival_step < 200 and "hold it: the run is at the edge of stability" in found.text
    dense = np.linalg.eigvalsh(dense_hessian(valley, result.state(1).params))
    np.testing.assert_allclose(found.eigenvalues[0], dense[-1], rtol=1e-3)
    # the mean of ½ · 5 · x² is 0.1, since ½ E x² balances the slope of 0.02
    np.testing.assert_allclose((run.flow.predicted - run.flow.flow_loss)[-5:], 0.1, rtol=0.02)
    np.testing.assert_allclose(run.flow.predicted.mean(), run.flow.loss.mean(), atol=0.01)


@pytest.mark.full
def test_adam_on_minibatches_has_its_batch_sharpness_beside_that_of_all_data():
    draw = lambda key, t, data: jax.tree.map(lambda part: part[jax.random.randint(key, (4,), 0, 12)], data)
    loss = lambda params, batch: 0.5 * jnp.mean((batch[0] @ params - batch[1]) ** 2)
    problem = Problem(loss, jnp.zeros(3), data=(X, Y), sample=draw)
    found = sweep(problem, optax.adam, {"learning_rate": [0.01, 0.02]}, steps=30).explain(1, points=3)
    run = found.runs[0]
    assert found.is_preconditioned
    np.testing.assert_allclose(run.edge, 38 / 0.02, **EDGE)
    np.testing.assert_allclose(found.eigenvalues, np.linalg.eigvalsh(X.T @ X / 12)[::-1], rtol=1e-3)
    assert np.all((run.batch_sharpness > 0) & (run.batch_sharpness < np.linalg.norm(X, axis=1).max() ** 2))
    assert "batch sharpness" in found.text and "batches are random" in found.text
    assert len(plots.curvature(run, ax=Figure().subplots()).lines) == 3
    assert plots.flow(run, ax=Figure().subplots()).get_yscale() == "log"


def test_bad_arguments_are_named(bowl):
    assert_refused(lambda: bowl.explain(99), "lane=99: no such lane")
    assert_refused(lambda: bowl.explain(0, points=0), "points=0")
    assert_refused(lambda: bowl.explain(0, flow_steps=-1), "flow_steps=-1")
    elsewhere = SweepResult.from_arrays({"learning_rate": [0.1, 0.2]}, {"loss": np.ones((2, 1, 5))})
    assert_refused(lambda: elsewhere.explain(0), "they come from a function or from arrays")
    step = lambda state, hyperparameters, t, key, data: (hyperparameters["rate"] * state, {"loss": jnp.sum(state)})
    walk = sweep(Learner(lambda key, h: jnp.ones(2), step), None, {"rate": [0.1, 0.2]}, steps=3)
    assert_refused(lambda: walk.explain(0), "a Learner has no loss with a curvature")


def write_plain_report(config, result, folder):
    """The report with empty figures: drawing them takes seconds."""
    summary = summarize(result)
    drawn = list_figures(result, summary, folder / "figures")
    (folder / "figures").mkdir()
    for file in (file for figure in drawn for file in (figure.png, figure.svg)):
        file.write_text("<svg></svg>")
    write_report(config, result, summary, drawn, folder)


def test_the_command_prints_the_paragraph_and_writes_a_page(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(CONFIG)
    assert main(["run", "small.yaml", "--quiet"], Hooks(write_report=write_plain_report)) == 0
    report, command = tmp_path / "runs/small/report.html", "<code>gdkit explain runs/small --lane N</code>"
    assert command in report.read_text() and "explain-2.html" not in report.read_text()
    assert main(["explain", "runs/small", "--lane", "2", "--points", "5", "--flow-steps", "0"]) == 0
    printed = capsys.readouterr().out
    assert "Run 2" in printed and "starts above the edge" in printed
    page = (tmp_path / "runs/small/explain-2.html").read_text()
    assert "starts above the edge" in page and "<img" in page
    assert 'Why a run ended as it did: <a href="explain-2.html">run 2</a>. ' in report.read_text()
    assert find_report_damage(report.parent, gdkit.open("runs/small").lanes.attrs["run"]) is None
    assert main(["explain", "."]) == 2
    assert "not the folder of a sweep" in capsys.readouterr().err


def test_only_explanations_of_the_same_run_are_linked_in_the_order_of_their_lanes(tmp_path):
    for lane, run in (("10", "abc"), ("9", "abc"), ("3", "other"), ("x", "abc")):
        (tmp_path / f"explain-{lane}.html").write_text(f'<meta name="gdkit-run" content="{run}">')
    found = find_explanations(tmp_path, "abc")
    assert list(found) == [9, 10]
    section = render_explanations(found, "gdkit explain 'a & b' --lane N")
    assert section.index("explain-9.html") < section.index("explain-10.html") and "a &amp; b" in section


@pytest.mark.full
def test_the_sharpness_is_that_of_all_data_of_a_problem_with_hyperparameters():
    draw = lambda key, t, data: data[jax.random.randint(key, (2,), 0, 3)]
    make = lambda scale: Problem(
        lambda x, rows: 0.5 * scale * jnp.mean(rows * x) * jnp.sum(x), jnp.ones(()), data=jnp.ones(3), sample=draw
    )
    found = sweep(make, sgd, {"learning_rate": [0.1, 0.2], "problem.scale": [1.0, 3.0]}, steps=6).explain(1, points=2)
    assert [run.lane for run in found.runs] == [1] and found.runs[0].hyperparameters["problem.scale"] == 3.0
    np.testing.assert_allclose(found.runs[0].ratio, 0.1 * 3 / 2, **EDGE)
