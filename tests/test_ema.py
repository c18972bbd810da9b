"""Runs of `gdkit.ema` train as without it, and are evaluated at an average of their params."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from shared import quick

import gdkit
from gdkit import Problem, descend, ema, optimizers, sgd, sweep
from gdkit.app.cli import main
from gdkit.errors import InputValueError

STEPS = 8
PROBLEM = Problem(
    lambda p, batch: jnp.sum((p["w"] - batch) ** 2) + p["b"] ** 2,
    {"w": jnp.zeros(3), "b": jnp.ones(())},
    data=jnp.arange(3.0),
    validation=jnp.arange(3.0),
    metrics={"b": lambda p, data: p["b"]},
)


def averaged(history, decay):
    """The average of params, (steps + 1, ...), by NumPy."""
    average = np.asarray(history[0], np.float64)
    for params in history[1:]:
        average = decay * average + (1 - decay) * np.asarray(params, np.float64)
    return average


FACTORIES = {
    "sgd": sgd,
    "momentum": lambda learning_rate: sgd(learning_rate, 0.5),
    "adam": optax.adam,
    "polyak": lambda learning_rate: optax.chain(optax.clip_by_global_norm(1.0), optax.polyak_sgd(learning_rate)),
}


@pytest.mark.parametrize("name", quick(FACTORIES, "momentum", "adam", "polyak"))
@pytest.mark.parametrize("decay", quick([0.0, 0.9], 0.9))
def test_the_average_is_that_of_the_history_and_the_training_is_unchanged(name, decay):
    factory, given = FACTORIES[name], {"hyperparameters": {"learning_rate": 0.1}, "record_params": True}
    plain, run = (descend(PROBLEM, one, STEPS, **given) for one in (factory, ema(factory, decay)))
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)
    jax.tree.map(close, run.params_history, plain.params_history)
    found = optimizers.evaluation_params(run.opt_state, run.params)
    right = jax.tree.map(lambda history: averaged(history, decay), plain.params_history)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found, right)


def test_a_sweep_evaluates_at_the_average_and_varies_the_decay():
    axes = {"learning_rate": [0.1, 0.2], "ema_decay": [0.0, 0.5, 0.9]}
    result = sweep(PROBLEM, ema(sgd), axes, steps=STEPS)
    for lane in range(6):
        rate, decay = (float(result.lanes[name][lane]) for name in axes)
        given = {"hyperparameters": {"learning_rate": rate}, "record_params": True}
        history = descend(PROBLEM, sgd, STEPS, **given).params_history
        assert float(result.lanes["validation_b"][lane]) == pytest.approx(averaged(history["b"], decay), rel=1e-5)


WRAPPERS = {
    "chain": lambda inner: optax.chain(optax.identity(), inner),
    "MultiSteps": lambda inner: optax.MultiSteps(inner, 2).gradient_transformation(),
    "multi_transform": lambda inner: optax.multi_transform(
        {"mean": inner, "plain": optax.sgd(0.1)}, {"w": "mean", "b": "plain"}
    ),
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_the_average_is_found_within_wrappers(name):
    run = descend(PROBLEM, WRAPPERS[name](ema(sgd, 0.5)(learning_rate=0.1)), STEPS, record_params=True)
    found = optimizers.evaluation_params(run.opt_state, run.params)
    history = np.asarray(run.params_history["w"])
    history = history[::2] if name == "MultiSteps" else history  # it updates at every second step
    np.testing.assert_allclose(found["w"], averaged(history, 0.5), rtol=1e-5)
    if name == "multi_transform":
        np.testing.assert_array_equal(found["b"], run.params["b"])


def test_the_average_is_no_direction_of_the_dynamics():
    given = {"hyperparameters": {"learning_rate": 0.1}}
    ends = {factory: descend(PROBLEM, factory, STEPS, **given) for factory in (ema(sgd), sgd)}
    found, right = (gdkit.multipliers(PROBLEM, factory, end, 4, **given) for factory, end in ends.items())
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, right)


@pytest.mark.parametrize("factory", [sgd, optax.adam, optax.adamw])
def test_arguments_by_position_are_those_of_the_optimizer(factory):
    by_position, by_name = (descend(PROBLEM, one, 3) for one in (ema(factory)(0.1), ema(factory)(learning_rate=0.1)))
    np.testing.assert_array_equal(by_position.loss, by_name.loss)
    assert by_position.loss[-1] < by_position.loss[0]


@pytest.mark.parametrize("decay", [-0.1, 1.5, float("nan"), "much"])
def test_a_decay_that_is_no_share_is_refused(decay):
    with pytest.raises(InputValueError, match=r"decay.*Pass for example 0\.999"):
        ema(sgd, decay)


@pytest.mark.full
def test_a_config_sets_the_decay_and_varies_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = "name: a\nproblem: {name: mlp, data: iris, widths: [2]}\n"
    text += "optimizer: {name: sgd, ema: 0.5, ema_decay: [0.1, 0.9]}\n"
    (tmp_path / "a.yaml").write_text(text + "sweep: {axes: {learning_rate: [0.1, 0.2]}, steps: 3}\n")
    assert main(["run", "a.yaml"]) == 0, capsys.readouterr().err
    assert {"learning_rate", "ema_decay"} <= set(gdkit.open("runs/a").axes)
