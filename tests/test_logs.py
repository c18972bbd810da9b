"""What a loss logs is recorded beside it: in single runs, sweeps, files, and longer sweeps."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from shared import quick

import gdkit
from gdkit import Problem, descend, sgd, sweep
from gdkit.errors import InputTypeError, InputValueError
from gdkit.types import Monitor

RATES = [0.1, 0.3, 5.0]  # the last one diverges
X = np.asarray(np.random.default_rng(0).normal(size=(16, 3)), np.float32)


def loss(w, batch):
    error, size = jnp.mean((batch @ w - 1) ** 2), 0.01 * jnp.sum(w**2)
    return error + size, {"error": error, "size": size}


def loss_with_aux(w, batch, aux):
    value, logs = loss(w, batch)
    return value, aux + 1, {**logs, "calls": aux}


def first_rows(key, t, data):
    return data[(t % 4) + jnp.arange(8)]


PLAIN = Problem(loss, jnp.zeros(3), data=X, sample=first_rows, has_logs=True)
PROBLEMS = {
    "plain": PLAIN,
    "all data": dataclasses.replace(PLAIN, sample=None),
    "aux": dataclasses.replace(PLAIN, loss=loss_with_aux, init=lambda key: (jnp.zeros(3), jnp.zeros(())), has_aux=True),
}


def logged_by_hand(problem, optimizer, steps):
    """The logs along a plain optax loop, name -> (steps + 1,)."""
    w, aux, logs = jnp.zeros(3), jnp.zeros(()), []
    state = optimizer.init(w)
    for t in range(steps + 1):
        batch = X if problem.sample is None else first_rows(None, t, X)
        logs.append(loss_with_aux(w, batch, aux)[2])
        grad = jax.grad(lambda w, batch=batch: loss(w, batch)[0])(w)
        updates, state = optimizer.update(grad, state, w)
        w, aux = optax.apply_updates(w, updates), aux + 1
    names = logs[0] if problem.has_aux else ("error", "size")
    return {name: np.array([float(log[name]) for log in logs]) for name in names}


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("factory", quick([sgd, optax.adam], sgd))
def test_logs_of_a_run_are_those_of_a_loop_by_hand(name, factory):
    run = descend(PROBLEMS[name], factory, 6, hyperparameters={"learning_rate": 0.1}, record_every=4)
    right = logged_by_hand(PROBLEMS[name], factory(0.1), 6)
    assert run.logs.keys() == right.keys()
    for log, values in right.items():
        np.testing.assert_allclose(run.logs[log], values[[0, 4, 6]], rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("name", quick(PROBLEMS, "aux"))
def test_logs_of_a_sweep_are_curves_at_the_recorded_steps(name):
    result = sweep(PROBLEMS[name], sgd, {"learning_rate": RATES}, steps=12, curve_points=8)
    right = logged_by_hand(PROBLEMS[name], sgd(0.3), 12)
    for log, values in right.items():
        steps, found = result.curve(1, log)
        np.testing.assert_array_equal(steps, result.lanes["curve_step"])
        np.testing.assert_allclose(found, values[steps], rtol=2e-5, atol=1e-6)
    assert result.lanes["curve_error"].dims == ("lane", "point")
    for by in ("error", "curve_error", "loss", "learning_rate"):
        with pytest.raises(InputValueError, match=f"by='{by}': a curve, .*one value per run: .*final_loss"):
            result.best(by)
    assert "Dataset" not in repr(result.best("min_loss"))
    end = int(result.lanes["end_step"][2])
    steps, found = result.curve(2, "error")
    assert end < 12 and steps[-1] <= end and np.isfinite(found).all()
    assert np.isnan(result.lanes["curve_error"][2].values[result.lanes["curve_step"] > end]).all()


def test_logs_do_not_change_the_training():
    silent = Problem(lambda w, batch: loss(w, batch)[0], jnp.zeros(3), data=X, sample=first_rows)
    logged, plain = (sweep(one, sgd, {"learning_rate": RATES}, steps=12, seeds=2) for one in (PLAIN, silent))
    for name in ("final_loss", "curve_loss", "late_mean", "end_kind"):
        np.testing.assert_allclose(logged.lanes[name], plain.lanes[name], rtol=1e-6)


def test_logs_of_an_extended_sweep_and_of_its_directory_are_those_of_a_longer_one(tmp_path):
    short = sweep(PLAIN, sgd, {"learning_rate": RATES}, steps=5, curve_points=8, store=tmp_path / "short")
    long = sweep(PLAIN, sgd, {"learning_rate": RATES}, steps=12, curve_points=8, store=tmp_path / "long")
    found = [short.extend(12), gdkit.open(tmp_path / "long")]
    for result in found:
        np.testing.assert_array_equal(result.lanes["curve_size"], long.lanes["curve_size"])


BAD = {
    "no pair": (lambda w: jnp.sum(w), InputTypeError, r"does not return \(scalar, logs\)"),
    "a list": (lambda w: (jnp.sum(w), [1.0]), InputTypeError, "not a dictionary of scalars"),
    "nothing": (lambda w: (jnp.sum(w), {}), InputTypeError, "not a dictionary of scalars"),
    "an array": (lambda w: (jnp.sum(w), {"w": w}), InputTypeError, r"logs\['w'\].*not a scalar"),
    "the loss": (lambda w: (jnp.sum(w), {"loss": 1.0}), InputValueError, "curve_loss is a variable"),
    "a bad name": (lambda w: (jnp.sum(w), {"a/b": 1.0}), InputValueError, "a/b.*letters, digits and _"),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize(
    "run",
    [
        lambda problem: descend(problem, sgd, 2, hyperparameters={"learning_rate": 0.1}),
        lambda problem: sweep(problem, sgd, {"learning_rate": [0.1]}, steps=2),
    ],
    ids=["descend", "sweep"],
)
def test_logs_that_cannot_be_recorded_are_refused(name, run):
    bad, error, words = BAD[name]
    problem = Problem(bad, jnp.ones(3), has_logs=True)
    with pytest.raises(error, match=words):
        run(problem)


def test_names_of_curves_are_those_of_logs_alone():
    counter = Monitor(lambda state: 0, lambda m, *_: m + 1, lambda m: {"curve_calls": m})
    with pytest.raises(InputValueError, match=r"curve_calls.*curves over steps"):
        sweep(PLAIN, sgd, {"learning_rate": [0.1]}, steps=2, monitors=[counter])
    result = sweep(PLAIN, sgd, {"learning_rate": [0.1]}, steps=2)
    with pytest.raises(InputValueError, match="error"):
        result.curve(0, "eror")
