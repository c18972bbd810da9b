"""What runs are evaluated on: validation and test data, metrics, and the training data in their absence."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from shared import quick

import gdkit
from gdkit import Metric, Problem, sgd, sweep
from gdkit.types import Monitor

RATES = {"learning_rate": [0.1]}
STEPS = 12
X = np.asarray(np.random.default_rng(0).normal(size=(12, 3)), np.float32)
Y = X @ np.array([1.0, -2.0, 0.5], np.float32)


def squares(w, batch):
    return jnp.mean((batch[0] @ w - batch[1]) ** 2)


def rows(key, t, data):
    x, y, noise = data["x"], data["y"], jax.random.normal(key, (4, 3))
    at = (4 * t + jnp.arange(4)) % 12
    return x[at] + 0 * noise, y[at]


def worst(w, data):
    return jnp.max(jnp.abs(data[0] @ w - data[1]))


def trained(steps=STEPS):
    """The params after plain gradient descent on all rows."""
    w = jnp.zeros(3)
    for _ in range(steps):
        w = w - 0.1 * jax.grad(squares)(w, (X, Y))
    return w


# Metrics that take aux


def pulled(p, b, aux):
    return jnp.mean((p * (b - aux)) ** 2), 0.5 * aux + 0.5 * jnp.mean(b)


SEEN = {
    "third": lambda p, d, aux: jnp.mean(d - aux),
    "marked": Metric(lambda p, d, mean: jnp.mean(d - mean), maximize=True),
    "named": lambda p, d, aux=None: jnp.mean(d - aux),
    "optional": lambda p, d, scale=2.0: scale * jnp.mean(d),
    "two": lambda p, d: jnp.mean(d),
}


def test_metrics_of_problems_with_aux_get_the_last_aux_if_they_ask_for_it():
    problem = Problem(
        pulled, lambda key: (jnp.ones(()), jnp.zeros(())), data=np.ones(8, "f4"), validation=3 * np.ones(4, "f4"),
        has_aux=True, metrics=SEEN,
    )  # fmt: skip
    lanes = sweep(problem, sgd, RATES, steps=STEPS).lanes
    left = 3 - (1 - 0.5**STEPS)  # the aux after n steps is 1 − 2⁻ⁿ
    expected = {"third": left, "marked": left, "named": left, "optional": 6.0, "two": 3.0}
    for name, value in expected.items():
        np.testing.assert_allclose(lanes[f"validation_{name}"].values, [value], rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("metric, form", [
    (lambda params, data, aux, more: 0.0, r"metrics\['off'\].*cannot be called as .*\(params, data, aux\)"),
    (lambda params: 0.0, r"metrics\['off'\].*cannot be called as .*\(params, data\)"),
    (Metric(lambda: 0.0), r"metrics\['off'\].*cannot be called as .*\(params, data\)"),
])  # fmt: skip
def test_metrics_that_cannot_be_called_are_refused_before_the_run(metric, form):
    problem = Problem(
        pulled, lambda key: (jnp.ones(()), jnp.zeros(())), data=np.ones(8, "f4"), has_aux=True, metrics={"off": metric}
    )
    with pytest.raises(gdkit.GdkitError, match=form):
        sweep(problem, sgd, RATES, steps=2)


# Metrics without validation and test data


@pytest.mark.parametrize("problem, expected", [
    (Problem(squares, jnp.zeros(3), data=(X, Y), metrics={"worst": worst}), lambda: worst(trained(), (X, Y))),
    (Problem(lambda w: jnp.sum((w - 3) ** 2), jnp.zeros(()), metrics={"worst": lambda w, data: jnp.abs(w - 3)}),
     lambda: 3 * 0.8**STEPS),
    pytest.param(
        Problem(squares, jnp.zeros(3), data=(X, Y), sample=lambda key, t, data: (data[0][:3], data[1][:3]),
                metrics={"worst": lambda w, data: float(len(data[1])) + 0 * w[0]}),
        lambda: 12.0, marks=pytest.mark.full),
    (Problem(squares, jnp.zeros(3), data={"x": X, "y": Y}, sample=rows,
             metrics={"worst": lambda w, data: jnp.sum(data[1]) + 0 * w[0]}),
     lambda: np.sum(Y[(4 * STEPS + np.arange(4)) % 12])),
], ids=["all rows", "no data", "minibatches", "batches of another structure than the data"])  # fmt: skip
def test_metrics_without_held_out_data_are_read_on_the_training_data(problem, expected):
    result = sweep(problem, sgd, RATES, steps=STEPS)
    np.testing.assert_allclose(result.lanes["train_worst"].values, [expected()], rtol=1e-4)
    assert result.best("train_worst").score == pytest.approx(float(expected()), rel=1e-4)
    assert not any(str(name).startswith(("validation_", "test_")) for name in result.lanes)


def test_with_held_out_data_metrics_are_not_read_on_the_training_data():
    problem = Problem(squares, jnp.zeros(3), data=(X, Y), test=(X[:2], Y[:2]), metrics={"worst": worst})
    names = set(map(str, sweep(problem, sgd, RATES, steps=2).lanes))
    assert {"test_loss", "test_worst"} <= names and not any(
        name.startswith(("train_", "validation_")) for name in names
    )


# The structure of validation and test data

DROPOUT = Problem(
    lambda w, b: squares(w, b[:2]) + (0.0 if b[2] is None else 0 * jax.random.normal(b[2])),
    jnp.zeros(3), data=(X, Y), sample=lambda key, t, data: (*data, key), validation=(X[:4], Y[:4], None),
)  # fmt: skip


def test_none_stands_for_a_leaf_of_a_batch_and_rows_may_be_any_number():
    lanes = sweep(DROPOUT, sgd, RATES, steps=STEPS).lanes
    np.testing.assert_allclose(lanes["validation_loss"].values, [squares(trained(), (X[:4], Y[:4]))], rtol=1e-4)
    precise = Problem(squares, jnp.zeros(3), data=(X, Y), validation=(X.astype("f8"), Y.astype("f2")))
    assert np.isfinite(sweep(precise, sgd, RATES, steps=2).lanes["validation_loss"].values).all()


@pytest.mark.parametrize("part", ["validation", "test"])
@pytest.mark.parametrize("data, difference", [
    (X, r"float32\[12,3\].*a batch has \(float32\[12,3\], float32\[12\]\) there"),
    ({"x": X, "y": Y}, r"its structure is not that of a batch, \(float32\[12,3\], float32\[12\]\)"),
    ((X, Y, Y), "its structure is not that of a batch"),
    ((X[:, :2], Y), r"\[0\]=.*a batch has float32\[12,3\] there"),
    ((X, Y[:, None]), r"\[1\]=.*a batch has float32\[12\] there"),
    ((X, (Y > 0).astype("i4")), r"\[1\]=.*a batch has float32\[12\] there"),
    (((X, Y), Y), r"its structure is not that of a batch"),
])  # fmt: skip
def test_data_of_another_structure_than_a_batch_are_refused(part, data, difference):
    problem = Problem(squares, jnp.zeros(3), data=(X, Y), **{part: data})
    with pytest.raises(gdkit.GdkitError, match=f"{part}.*{difference}"):
        sweep(problem, sgd, RATES, steps=2)


def test_held_out_data_of_a_loss_without_data_are_refused():
    with pytest.raises(gdkit.GdkitError, match=r"validation=.*a batch has None there"):
        sweep(Problem(lambda w: jnp.sum(w**2), jnp.ones(3), validation=X), sgd, RATES, steps=2)


# evaluate in place of the loss and metrics


def dropped(p, b, aux):
    """A loss of x·w with noise in place of dropout and a running mean of the data."""
    noise = 0.01 * jax.random.normal(jax.random.key(0), p.shape)
    return jnp.mean((b * (p + noise) - 1) ** 2), 0.5 * aux + 0.5 * jnp.mean(b)


def with_aux(p, d, aux):
    return {"loss": jnp.mean((p * d - 1) ** 2), "count": jnp.sum(d > 0), "shift": jnp.mean(d) - aux}


def without_loss(p, d):
    return {"f1": jnp.mean(p) * d.size, "error": jnp.mean(p * 0 + d)}


VALID, TEST = 2 * np.ones(4, "f4"), 3 * np.ones(2, "f4")
START = {"init": lambda key: (0.3 * jnp.ones(()), jnp.zeros(())), "data": np.ones(8, "f4"), "has_aux": True}


def test_evaluate_replaces_the_loss_and_metrics_on_held_out_data_and_leaves_the_training_alone():
    plain = sweep(Problem(dropped, **START, validation=VALID), sgd, RATES, steps=STEPS).lanes
    lanes = sweep(
        Problem(dropped, **START, validation=VALID, test=TEST, evaluate=with_aux), sgd, RATES, steps=STEPS
    ).lanes
    assert lanes["final_loss"].values == plain["final_loss"].values
    assert lanes["validation_loss"].values != plain["validation_loss"].values
    end = gdkit.descend(Problem(dropped, **START), sgd(0.1), STEPS)
    for part, data in (("validation", VALID), ("test", TEST)):
        for name, value in with_aux(end.params, data, 1 - 0.5**STEPS).items():
            np.testing.assert_allclose(lanes[f"{part}_{name}"].values, [value], rtol=1e-6, err_msg=name)


def test_evaluate_without_held_out_data_gets_the_training_data_and_two_arguments_suffice():
    problem = Problem(squares, jnp.zeros(3), data=(X, Y), evaluate=lambda w, d: {"worst": worst(w, d)})
    result = sweep(problem, sgd, RATES, steps=STEPS)
    np.testing.assert_allclose(result.lanes["train_worst"].values, [worst(trained(), (X, Y))], rtol=1e-4)
    assert result.score_name() == "final_loss"


@pytest.mark.parametrize("maximize, by", [((), "validation_error"), (("f1",), "validation_f1")])
def test_without_a_loss_runs_are_compared_by_what_is_maximized_or_the_first_name(maximize, by, tmp_path):
    problem = Problem(lambda w, d: jnp.mean((w - d) ** 2), jnp.zeros(()), data=np.ones(8, "f4"), validation=VALID,
                      evaluate=without_loss, maximize=maximize)  # fmt: skip
    result = sweep(problem, sgd, {"learning_rate": [0.05, 0.1, 0.2]}, steps=4, store=tmp_path / "run")
    assert result.score_name() == result.recommend().by == by and result.is_maximized() == bool(maximize)
    values = result.lanes[by].values
    assert result.best().score == (values.max() if maximize else values.min())
    assert gdkit.open(tmp_path / "run").best().hyperparameters == result.best().hyperparameters


@pytest.mark.parametrize("name, best", quick([("accuracy", max), ("recall", max), ("error", min)], ("error", min)))
def test_maximize_names_what_is_better_when_larger_of_metrics_and_of_evaluate(name, best):
    value = lambda w, d: jnp.mean(w) * 1.0
    problem = Problem(lambda w, d: jnp.mean((w - d) ** 2), jnp.zeros(()), data=np.ones(8, "f4"), validation=VALID)
    changes = {"metrics": {name: value}}, {"evaluate": lambda w, d: {name: value(w, d)}}
    for change in changes:
        chosen = dataclasses.replace(problem, **change, maximize=["recall"] * (name == "recall"))
        result = sweep(chosen, sgd, {"learning_rate": [0.05, 0.1]}, steps=2)
        assert result.best(f"validation_{name}").score == best(result.lanes[f"validation_{name}"].values)


@pytest.mark.parametrize("change, form", [
    ({"metrics": {"worst": worst}, "evaluate": without_loss}, "metrics=.*evaluate replaces the loss and the metrics"),
    ({"evaluate": 3}, "evaluate=3: not callable"),
    ({"metrics": {"accuracy": worst}, "maximize": ["acuracy"]}, "maximize='acuracy'.*'accuracy'"),
    ({"metrics": {"accuracy": worst}, "maximize": "accuracy"}, "maximize='accuracy': not a sequence of strings"),
    ({"evaluate": lambda w, d: {"f1": worst(w, d)}, "maximize": ["f2"]}, "maximize='f2'.*'f1'"),
    ({"evaluate": lambda w: {"a": 0.0}}, r"evaluate=.*cannot be called as evaluate\(params, data\)"),
    ({"evaluate": lambda w, d, aux, more: {}}, r"evaluate=.*cannot be called as evaluate\(params, data, aux\)"),
    ({"evaluate": lambda w, d: jnp.mean(w)}, "evaluate=.*does not return a mapping"),
    ({"evaluate": lambda w, d: {}}, "evaluate=.*does not return a mapping"),
    ({"evaluate": lambda w, d: {"each": d[1]}}, r"evaluate\(\)\['each'\]=.*not a scalar"),
    ({"evaluate": lambda w, d: {"word": "good"}}, r"evaluate\(\)\['word'\]=.*not a scalar"),
    ({"evaluate": lambda w, d: {"phase": 1j * w[0]}}, r"evaluate\(\)\['phase'\]=.*not a scalar"),
    ({"evaluate": lambda w, d: {1: 0.0}}, "evaluate=1: not a string"),
    ({"evaluate": lambda w, d: {"a/b": 0.0}}, "evaluate='a/b': a file cannot hold"),
    ({"evaluate": lambda w, d: {"a": float(w[0])}}, "evaluate=.*converts a traced value"),
])  # fmt: skip
def test_evaluate_and_maximize_that_cannot_be_used_are_refused_before_the_run(change, form):
    with pytest.raises(gdkit.GdkitError, match=form):
        sweep(Problem(squares, jnp.zeros(3), data=(X, Y), validation=(X, Y), **change), sgd, RATES, steps=2)


def test_a_monitor_may_not_be_called_like_a_value_of_evaluate():
    monitor = Monitor(lambda state: 0.0, lambda memory, *_: memory, lambda memory: {"validation_f1": memory})
    problem = Problem(squares, jnp.zeros(3), data=(X, Y), validation=(X, Y), evaluate=lambda w, d: {"f1": 0.0 * w[0]})
    with pytest.raises(gdkit.GdkitError, match=r"monitors='validation_f1'.*has this name"):
        sweep(problem, sgd, RATES, steps=2, monitors=[monitor])
