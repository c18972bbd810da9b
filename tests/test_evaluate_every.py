"""Evaluation along the run: the right values at the right steps, and nothing of the training depends on it."""

import json
import threading
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gdkit
from gdkit import Problem, descend, problems, sgd, sweep
from gdkit.store import Store
from gdkit.sweeps.execution.settings import ExecutionSettings
from gdkit.sweeps.request import check_request
from gdkit.sweeps.rundir.manifest import RunDirectory
from gdkit.sweeps.sweep import run_request
from tests.shared import quick

X = np.asarray(np.random.default_rng(0).normal(size=(12, 3)), np.float32)
Y = X @ np.array([1.0, -2.0, 0.5], np.float32)
HELD_OUT = (X[:5], Y[:5])
STEPS, EVERY = 25, 10
AT = [10, 20, 25]
AXES = {"learning_rate": [0.01, 0.1, 3.0]}


def squares(w, batch):
    return jnp.mean((batch[0] @ w - batch[1]) ** 2)


def worst(w, data):
    return jnp.max(jnp.abs(data[0] @ w - data[1]))


def with_mean(w, batch, aux):
    return squares(w, batch), 0.9 * aux + 0.1 * jnp.mean(batch[0], axis=0)


PLAIN = Problem(squares, jnp.zeros(3), data=(X, Y), sample=problems.minibatches(4), validation=HELD_OUT,
                test=HELD_OUT, metrics={"worst": worst})  # fmt: skip
AVERAGED = Problem(with_mean, lambda key: (jax.random.normal(key, (3,)), jnp.zeros(3)), data=(X, Y), has_aux=True,
                   sample=problems.minibatches(4), validation=HELD_OUT,
                   evaluate=lambda w, d, aux: {"loss": squares(w, (d[0] - aux[None], d[1]))})  # fmt: skip
TRAINED = Problem(squares, jnp.zeros(3), data=(X, Y), sample=problems.minibatches(4),
                  metrics={"count": lambda w, d: jnp.sum(d[0] @ w > 0)})  # fmt: skip


def schedule_free(learning_rate):
    return optax.contrib.schedule_free_sgd(learning_rate, warmup_steps=3)


CASES = {
    "held out": (PLAIN, sgd, lambda run: {"loss": squares(run.params, HELD_OUT), "worst": worst(run.params, HELD_OUT)}),
    "evaluate with aux": (
        AVERAGED, optax.adam, lambda run: {"loss": squares(run.params, (X[:5] - run.aux[None], Y[:5]))}),
    "schedule free": (
        PLAIN, schedule_free,
        lambda run: {"loss": squares(optax.contrib.schedule_free_eval_params(run.opt_state, run.params), HELD_OUT)}),
    "training data": (TRAINED, sgd, lambda run: {"count": np.sum(X @ np.asarray(run.params) > 0)}),
}  # fmt: skip


class Run(NamedTuple):
    params: Any
    opt_state: Any
    aux: Any


def run_by_hand(problem, optimizer, rate, seed):
    """The run after each of `AT` updates, by a loop over optax."""
    start, sampling = jax.random.split(jax.random.fold_in(jax.random.key(0), seed))
    initial = problem.init(start) if callable(problem.init) else problem.init
    params, aux = initial if problem.has_aux else (initial, ())
    built = optimizer(rate)

    @jax.jit
    def step(run, t):
        batch = problem.sample(sampling, t, problem.data)
        loss = lambda w: problem.loss(w, batch, run.aux) if problem.has_aux else (problem.loss(w, batch), ())
        grad, new_aux = jax.grad(loss, has_aux=True)(run.params)
        update, opt_state = built.update(grad, run.opt_state, run.params)
        return Run(optax.apply_updates(run.params, update), opt_state, new_aux)

    run, seen = Run(params, built.init(params), aux), []
    for t in range(STEPS):
        run = step(run, t)
        seen += [run] if t + 1 in AT else []
    return seen


@pytest.mark.parametrize("case", quick(CASES, "held out"))
def test_values_are_those_of_a_plain_loop_at_the_step_and_no_bit_of_the_training_changes(case):
    problem, optimizer, expected = CASES[case]
    axes = {"learning_rate": [0.1]}
    lanes = sweep(problem, optimizer, axes, steps=STEPS, seeds=2, evaluate_every=EVERY).lanes
    plain = sweep(problem, optimizer, axes, steps=STEPS, seeds=2).lanes
    assert lanes["evaluation_step"].values.tolist() == AT
    part = "train" if problem is TRAINED else "validation"
    for name in map(str, plain.data_vars):
        own = lanes[name].values[:, -1] if name.startswith(part) else lanes[name].values
        np.testing.assert_array_equal(own, plain[name].values, err_msg=name)
    for seed in range(2):
        for place, run in enumerate(run_by_hand(problem, optimizer, 0.1, seed)):
            for name, value in expected(run).items():
                found = lanes[f"{part}_{name}"].values[seed, place]
                np.testing.assert_allclose(found, value, rtol=1e-4, err_msg=f"{name} at {AT[place]}")


@pytest.mark.parametrize("case", quick(["held out", "evaluate with aux", "schedule free"], "evaluate with aux"))
def test_descend_evaluates_at_the_same_steps(case):
    problem, optimizer, expected = CASES[case]
    key, chosen = jax.random.fold_in(jax.random.key(0), 1), {"learning_rate": 0.1}
    run = descend(problem, optimizer, STEPS, hyperparameters=chosen, key=key, evaluate_every=EVERY)
    assert run.evaluation_step.tolist() == AT
    for place, by_hand in enumerate(run_by_hand(problem, optimizer, 0.1, 1)):
        for name, value in expected(by_hand).items():
            np.testing.assert_allclose(run.evaluations[f"validation_{name}"][place], value, rtol=1e-4)
    plain = descend(problem, optimizer, STEPS, hyperparameters=chosen, key=key)
    np.testing.assert_allclose(run.params, plain.params, rtol=1e-6)
    assert plain.evaluation_step is plain.evaluations is None


def test_runs_shorter_than_the_interval_are_evaluated_at_their_end():
    run = descend(PLAIN, sgd(0.1), 3, key=jax.random.fold_in(jax.random.key(0), 0), evaluate_every=EVERY)
    lanes = sweep(PLAIN, sgd, {"learning_rate": [0.1]}, steps=3, evaluate_every=EVERY).lanes
    assert run.evaluation_step.tolist() == lanes["evaluation_step"].values.tolist() == [3]
    np.testing.assert_allclose(run.evaluations["validation_worst"], lanes["validation_worst"].values[0], rtol=1e-5)


@pytest.fixture(scope="module")
def longer():
    return sweep(PLAIN, sgd, AXES, steps=40, seeds=2, evaluate_every=EVERY)


def test_a_lane_that_ended_is_nan_from_its_end_on_except_in_the_last_place(longer):
    values, ended = longer.lanes["validation_loss"].values, longer.lanes["end_step"].values < 10
    assert ended.tolist() == [False] * 4 + [True] * 2
    assert np.isnan(values[ended, :-1]).all() and np.isfinite(values[ended, -1]).all()
    assert np.isfinite(values[~ended]).all()
    steps, curve = longer.curve(4, "validation_loss")
    assert steps.tolist() == [longer.lanes["end_step"].values[4]] and curve.tolist() == [values[4, -1]]
    assert longer.curve(0, "validation_loss")[0].tolist() == longer.lanes["evaluation_step"].values.tolist()
    with pytest.raises(gdkit.GdkitError, match=r"name='validation_los'.*'validation_loss'"):
        longer.curve(0, "validation_los")


@pytest.mark.parametrize("lane", [0, 3, 4])  # the last one diverged
def test_an_exported_file_has_the_score_at_the_end(lane, longer, tmp_path):
    safetensors = pytest.importorskip("safetensors", reason="safetensors is not installed")
    longer.export(lane, tmp_path / "params.safetensors")
    with safetensors.safe_open(tmp_path / "params.safetensors", "numpy") as file:
        score = json.loads(file.metadata()["validation_loss"])
    np.testing.assert_equal(np.float32(score), longer.lanes["validation_loss"].values[lane, -1])


@pytest.mark.parametrize("first", [5, 20, 25])
def test_an_extended_sweep_equals_a_longer_one(first, longer, tmp_path):
    store = tmp_path / "run" if first == 25 else None
    short = sweep(PLAIN, sgd, AXES, steps=first, seeds=2, evaluate_every=EVERY, store=store)
    opened = gdkit.open(store, problem=PLAIN, optimizer=sgd) if store else short
    for name in short.lanes.variables:
        np.testing.assert_array_equal(opened.lanes[name].values, short.lanes[name].values)
    extended = opened.extend(40)
    for name in longer.lanes.data_vars:
        np.testing.assert_array_equal(extended.lanes[name].values, longer.lanes[name].values, err_msg=str(name))


@pytest.mark.parametrize("segment", [1, 7, 10])
def test_an_interrupted_run_resumes_with_the_same_bits(segment, tmp_path):
    request = check_request(PLAIN, sgd, AXES, steps=40, seeds=2, evaluate_every=EVERY, plan=gdkit.Plan(
        width=3, depth=2, segment=segment, workers=1))  # fmt: skip
    stop = threading.Event()
    stop_midway = lambda progress: stop.set() if progress.done > progress.total / 3 else None
    run = lambda **options: run_request(
        request, directory=RunDirectory(tmp_path / "run"), settings=ExecutionSettings(progress_seconds=0.0), **options
    )[0]
    part = run(report_progress=stop_midway, stop=stop)
    assert part.missing and Store.open(tmp_path / "run").has_carry(0)
    opened = gdkit.open(tmp_path / "run")
    whole = run()
    plain = run_request(request)[0]
    for name in plain.lanes.data_vars:
        np.testing.assert_array_equal(whole.lanes[name].values, plain.lanes[name].values, err_msg=str(name))
    assert (opened.lanes["end_step"] < 30).all() and (opened.lanes["end_step"].values[:4] >= 10).all()
    for unfinished in (part, opened):
        assert_has_curves_so_far(unfinished, whole)


def assert_has_curves_so_far(unfinished, whole):
    """Losses and evaluations of lanes that have not finished are those of the whole run, up to the step reached."""
    steps, at = whole.lanes["curve_step"].values, whole.lanes["evaluation_step"].values
    for lane in np.flatnonzero(~unfinished.finished):
        own, full = unfinished.lanes.isel(lane=lane), whole.lanes.isel(lane=lane)
        end, has_ended, has_begun = int(own["end_step"]), int(full["end_step"]) < 40, own["curve_loss"].notnull().any()
        assert not has_begun or (end == full["end_step"] if has_ended else end < full["end_step"])
        known, evaluated = steps <= end, at <= (end if has_ended else end + 1)
        known, evaluated = known & bool(has_begun), evaluated & bool(has_begun)
        np.testing.assert_array_equal(own["curve_loss"], np.where(known, full["curve_loss"], np.nan))
        for name in ("validation_loss", "validation_worst"):
            np.testing.assert_array_equal(own[name], np.where(evaluated, full[name], np.nan))
            assert unfinished.curve(lane, name)[0].tolist() == at[evaluated].tolist()
        assert unfinished.curve(lane)[0].tolist() == steps[known].tolist()


@pytest.mark.full
def test_curves_so_far_of_blocks_that_have_finished_begun_or_neither(tmp_path):
    axes = {"learning_rate": [0.01, 0.1, 0.2, 3.0], "momentum": [0.5], "nesterov": [False, True]}
    optimizer = lambda learning_rate, momentum, nesterov: optax.sgd(learning_rate, momentum, nesterov)
    request = check_request(PLAIN, optimizer, axes, steps=40, seeds=3, evaluate_every=EVERY, plan=gdkit.Plan(
        width=2, depth=2, segment=16, workers=1))  # fmt: skip
    stop, settings = threading.Event(), ExecutionSettings(progress_seconds=0.0)
    stop_late = lambda progress: stop.set() if progress.done > 0.55 * progress.total else None
    directory = RunDirectory(tmp_path / "run")
    run_request(request, directory=directory, settings=settings, report_progress=stop_late, stop=stop)
    opened, (whole, _) = gdkit.open(tmp_path / "run"), run_request(request)
    begun = ~opened.lanes["curve_loss"].isnull().all("point").values
    assert opened.finished.any() and (begun & ~opened.finished).any() and not begun.all()
    assert_has_curves_so_far(opened, whole)
    best = opened.best(at="best").hyperparameters
    assert opened.finished[np.all([opened.lanes[name] == value for name, value in best.items()], axis=0)].any()
    gdkit.plots.curves(opened, "validation_loss")
    gdkit.plots.curves(opened, "loss", seed=2)


def test_best_and_recommend_choose_among_evaluations_of_the_means_over_seeds():
    """Params x = t·rate pass the target 1 at different steps, and its sign decides between two evaluations."""
    evaluate = lambda x, b: {"loss": (x - b) ** 2, "near": -jnp.abs(x - b)}
    problem = Problem(lambda x, b: -x * b, jnp.zeros(()), data=jnp.ones(()), validation=jnp.ones(()), evaluate=evaluate,
                      maximize=["near"])  # fmt: skip
    rates = np.array([0.03, 0.05, 0.09])
    result = sweep(problem, sgd, {"learning_rate": rates}, steps=40, evaluate_every=10)
    x = rates[:, None] * np.array([10, 20, 30, 40])
    for by, values in (("validation_loss", (x - 1) ** 2), ("validation_near", np.abs(x - 1))):
        end, best = result.best(by), result.best(by, at="best")
        assert end.hyperparameters["learning_rate"] == rates[np.argmin(values[:, -1])] == 0.03
        assert best.hyperparameters["learning_rate"] == rates[np.argmin(values.min(axis=1))] == 0.05
        assert best.lanes["evaluation_step"].values.tolist() == [20]
        found = result.recommend(by=by, at="best")
        assert (found.best, result.recommend(by=by).best) == (0.05, 0.03)
        assert found.metrics["validation_loss"] == pytest.approx(0.0, abs=1e-9) == best.mean("validation_loss")
    with pytest.raises(gdkit.GdkitError, match="at='best': final_loss was not evaluated along the run"):
        result.best("final_loss", at="best")
    with pytest.raises(gdkit.GdkitError, match="at='first': no such name"):
        result.recommend(at="first")


def test_all_that_reads_one_value_per_lane_reads_that_at_the_end(longer):
    plain = sweep(PLAIN, sgd, AXES, steps=40, seeds=2)
    assert str(longer) == str(plain)
    read = longer.to_dataframe().drop(columns="best_evaluation")  # which a run without evaluations along it lacks
    assert read.equals(plain.to_dataframe()[read.columns])
    assert longer.best().mean("validation_worst") == plain.best().mean("validation_worst")
    assert longer.data["validation_loss"].dims == ("learning_rate", "seed", "evaluation")
    assert longer.data["evaluation_step"].values.tolist() == [10, 20, 30, 40]


@pytest.mark.parametrize("change, form", [
    ({"validation": None}, "evaluate_every=10: there are no validation data"),
    ({"validation": None, "metrics": None, "test": None}, "evaluate_every=10: there are no validation data"),
    ({"every": 0}, "evaluate_every=0"),
    ({"every": 2.5}, "evaluate_every=2.5"),
])  # fmt: skip
def test_intervals_that_cannot_be_used_are_refused(change, form):
    every = change.pop("every", EVERY)
    problem = gdkit.Problem(**{name: getattr(PLAIN, name) for name in ("loss", "init", "data", "sample")} | {
        "validation": HELD_OUT, "test": HELD_OUT, "metrics": {"worst": worst}} | change)  # fmt: skip
    for run in (lambda: sweep(problem, sgd, AXES, steps=2, evaluate_every=every),
                lambda: descend(problem, sgd(0.1), 2, evaluate_every=every)):  # fmt: skip
        with pytest.raises(gdkit.GdkitError, match=form):
            run()
