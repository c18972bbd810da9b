"""A Learner is swept, stored, resumed and judged like a problem with an optimizer; its mistakes are named."""

import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gdkit
from gdkit import Learner, Problem, State, descend, problems, sgd, step_map, sweep
from gdkit.app.config.build import build_arguments
from gdkit.app.config.loading import dump, loads
from gdkit.app.config.source import ConfigError
from gdkit.errors import InputTypeError, InputValueError
from gdkit.monitors import EndKind
from tests.shared import quick

X = np.asarray(np.random.default_rng(0).normal(size=(64, 3)), np.float32)
Y = X @ np.array([1.0, 2.0, 3.0], np.float32) + 0.1 * X[::-1, 0]
NOISY = Problem(
    lambda w, batch: jnp.mean((batch[0] @ w - batch[1]) ** 2),
    lambda key: jax.random.normal(key, (3,)),
    data=(X, Y),
    sample=problems.minibatches(8),
)
momentum = functools.partial(optax.sgd, momentum=0.9)
CASES = {  # problem, optimizer, rates of several regimes, steps
    "parabola": (problems.parabola(), sgd, [0.001, 0.2, 0.8, 1.0, 1.2], 400),
    "rosenbrock": (problems.rosenbrock(), optax.adam, [1e-3, 0.1, 1.0, 10.0], 300),
    "minibatches": (NOISY, momentum, [0.001, 0.01, 1.0], 200),
}


def start(problem, key):
    return jax.tree.map(jnp.asarray, problem.init(key) if problem.init_is_function else problem.init)


def from_step_map(problem, factory):
    def init(key, hyperparameters):
        params = start(problem, key)
        return State(params, (), factory(**hyperparameters).init(params))

    return Learner(init, step_map(problem, factory), data=problem.data, optimum=problem.optimum)


def by_hand(problem, factory):
    def init(key, hyperparameters):
        params = start(problem, key)
        return {"params": params, "optimizer": factory(**hyperparameters).init(params)}

    def step(state, hyperparameters, t, key, data):
        batch = () if data is None else (problem.sample(key, t, data),)
        loss, grad = jax.value_and_grad(problem.loss)(state["params"], *batch)
        update, optimizer = factory(**hyperparameters).update(grad, state["optimizer"], state["params"])
        after = {"params": optax.apply_updates(state["params"], update), "optimizer": optimizer}
        return after, {"loss": loss, "size": optax.tree.norm(grad)}

    return Learner(init, step, data=problem.data, optimum=problem.optimum)


@functools.cache
def swept(name):
    problem, factory, rates, steps = CASES[name]
    return sweep(problem, factory, {"learning_rate": rates}, steps=steps)


@pytest.mark.parametrize(
    ("name", "make"),
    quick(
        [*((name, by_hand) for name in CASES), ("rosenbrock", from_step_map)],
        ("minibatches", by_hand),
    ),
)
def test_a_learner_written_as_a_problems_own_step_map_has_its_losses_and_regimes(name, make):
    problem, factory, rates, steps = CASES[name]
    result, right = sweep(make(problem, factory), None, {"learning_rate": rates}, steps=steps), swept(name)
    for loss in ("initial_loss", "final_loss", "min_loss", "curve_loss"):
        np.testing.assert_array_equal(result.lanes[loss].values, right.lanes[loss].values)
    np.testing.assert_array_equal(result.regimes.values, right.regimes.values)
    assert result.lanes.attrs["stochastic"] == right.lanes.attrs["stochastic"]
    if make is by_hand:
        steps, sizes = result.curve(1, "size")
        run = descend(problem, factory, 3, hyperparameters={"learning_rate": rates[1]}, key=seed_key(0))
        np.testing.assert_allclose(sizes[:3], run.grad_norm, rtol=1e-5)
        state = result.state(0)
        assert set(state) == {"params", "optimizer"}
        np.testing.assert_array_equal(state["params"], right.state(0).params)


def seed_key(seed):
    return jax.random.fold_in(jax.random.key(0), seed)


# States of every kind: integers, typed keys, a buffer; two steps of noise per step


def init_walk(key, hyperparameters):
    return {"x": jnp.ones(2), "count": 0, "key": key, "seen": jnp.zeros(3, jnp.int32)}


def step_walk(state, hyperparameters, t, key, data):
    own, drawn = jax.random.split(state["key"])
    noise = 0.01 * jax.random.normal(drawn, (2,))
    x = state["x"] - hyperparameters["rate"] * (state["x"] + noise)
    loss = jnp.sum((state["x"] + noise) ** 2)
    seen = state["seen"].at[state["count"] % 3].set(t)
    return {"x": x, "count": state["count"] + 1, "key": own, "seen": seen}, {"loss": loss, "first": x[0]}


def evaluate_walk(state, data):
    return {"size": jnp.sum(state["x"] ** 2), "count": state["count"]}


WALK = Learner(init_walk, step_walk, evaluate=evaluate_walk, maximize=("count",))
RATES = {"rate": [0.1, 0.5, 2.5]}


@functools.cache
def walked(steps=40):
    return sweep(WALK, None, RATES, steps=steps, seeds=2)


def walk_by_hand(rate, seed, steps):
    key, _ = jax.random.split(seed_key(seed))
    state, losses = init_walk(key, {}), []
    for t in range(steps + 1):
        after, report = step_walk(state, {"rate": rate}, t, None, None)
        losses.append(float(report["loss"]))
        state = after if t < steps else state
    return state, losses


def test_states_of_any_kind_and_losses_are_those_of_a_loop():
    result = walked()
    state, losses = walk_by_hand(0.5, 1, 40)
    lane = 3  # rate 0.5, seed 1
    own = result.state(lane)
    assert int(own["count"]) == 40 and own["seen"].tolist() == [39, 37, 38]
    np.testing.assert_allclose(own["x"], state["x"], rtol=1e-4, atol=1e-6)
    assert jax.random.key_data(own["key"]).tolist() == jax.random.key_data(state["key"]).tolist()
    at, curve = result.curve(lane)
    np.testing.assert_allclose(curve, np.array(losses)[at], rtol=1e-4, atol=1e-7)
    assert result.lanes.attrs["stochastic"] == 1  # by the key in the state
    assert result.lanes["end_kind"].values[4:].tolist() == [EndKind.EXCEEDED] * 2
    run = descend(WALK, None, 40, hyperparameters={"rate": 0.5}, key=seed_key(1))
    np.testing.assert_allclose(run.loss, losses, rtol=1e-4, atol=1e-7)
    assert int(run.state["count"]) == 40 and np.isnan(run.grad_norm).all() and run.logs["first"].shape == (41,)


def test_values_of_evaluate_are_read_at_the_end_and_along_the_run():
    result = sweep(WALK, None, RATES, steps=40, seeds=2, evaluate_every=15)
    np.testing.assert_array_equal(result.lanes["final_loss"], walked().lanes["final_loss"])
    assert result.lanes["validation_count"].values[0].tolist() == [15, 30, 40]
    assert walked().lanes["validation_count"].values[:2].tolist() == [40, 40]
    size = float(jnp.sum(result.state(3)["x"] ** 2))
    assert result.lanes["validation_size"].values[3, -1] == np.float32(size)
    assert result.score_name() == "validation_count" and not result.is_maximized("validation_size")


def test_a_run_directory_resumes_extends_and_opens_with_the_same_bits(tmp_path):
    short = sweep(WALK, None, RATES, steps=25, seeds=2, store=tmp_path / "run")
    opened = gdkit.open(tmp_path / "run")
    assert int(opened.state(1)["count"]) == 25
    longer = gdkit.open(tmp_path / "run", problem=WALK).extend(40)
    for result in (longer, short.extend(40)):
        np.testing.assert_array_equal(result.lanes["final_loss"], walked().lanes["final_loss"])
        np.testing.assert_array_equal(result.lanes["curve_first"], walked().lanes["curve_first"])
        assert jax.tree.all(jax.tree.map(lambda x, y: bool((x == y).all()), result.state(2), walked().state(2)))
    assert walked().replay(1).same
    with pytest.raises(InputValueError, match="it holds another run"):
        sweep(WALK, None, RATES, steps=26, seeds=2, store=tmp_path / "run")


@pytest.mark.full
def test_runs_continue_from_a_state_and_from_a_file(tmp_path):
    state = walked().state(2)
    result = sweep(WALK, None, {"rate": [0.5]}, steps=5, start=state)
    run = descend(WALK, None, 5, hyperparameters={"rate": 0.5}, start=state)
    assert int(result.state(0)["count"]) == 45 == int(run.state["count"])
    walked().export(2, tmp_path / "state.safetensors")
    again = sweep(WALK, None, {"rate": [0.5]}, steps=5, start=tmp_path / "state.safetensors")
    np.testing.assert_array_equal(again.lanes["curve_loss"], result.lanes["curve_loss"])
    with pytest.raises(InputValueError, match=r"start\[seen\]='shape \(4,\)'"):
        sweep(WALK, None, {"rate": [0.5]}, steps=5, start={**state, "seen": jnp.zeros(4, jnp.int32)})


def test_static_hyperparameters_and_labels_reach_init_and_step():
    def init(key, hyperparameters):
        return jnp.ones(hyperparameters["size"])

    def step(x, hyperparameters, t, key, data):
        sign = {"down": 1.0, "up": -1.0}[hyperparameters["optimizer"]]
        return x - sign * hyperparameters["rate"] * x, {"loss": jnp.sum(x**2)}

    axes = {"optimizer": ["down", "up"], "size": [4], "rate": [0.1, 0.2]}
    result = sweep(Learner(init, step), None, axes, steps=3)
    np.testing.assert_allclose(result.lanes["final_loss"].values, 4 * np.array([0.9, 0.8, 1.1, 1.2]) ** 6, rtol=1e-5)


# Configs

MODULE = """
import gdkit
from gdkit import Learner

def make(size: int = 2, noise: float = 0.0):
    def step(x, hyperparameters, t, key, data):
        return x * hyperparameters["rate"] + noise, {"loss": x * x * size}
    return Learner(lambda key, hyperparameters: 1.0, step)

finished = make()
"""
CONFIG = "name: own\nlearner: {use: 'own_steps:make', size: 3}\nsweep: {axes: {rate: [0.5, 0.6]}, steps: 4}\n"


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    (tmp_path / "own_steps.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [str(tmp_path), *sys.path])
    yield
    sys.modules.pop("own_steps", None)


@pytest.mark.parametrize("text", [CONFIG, CONFIG.replace("{use: 'own_steps:make', size: 3}", "own_steps:finished")])
def test_a_config_names_a_learner_in_place_of_problem_and_optimizer(text, own_module):
    config = loads(text)
    assert dump(loads(dump(config))) == dump(config) and config.lanes_per_optimizer == [2]
    result = sweep(**build_arguments(config))
    size = 3 if "size" in text else 2
    np.testing.assert_allclose(result.lanes["final_loss"].values, size * np.array([0.5, 0.6]) ** 8, rtol=1e-5)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("size: 3", "sise: 3", "line 2|:2: learner.sise = 3: unknown key. Did you mean 'size'"),
        ("size: 3", "size: three", ":2: learner.size = 'three': must be a number"),
        ("own_steps:make", "own_steps:make_it", "own_steps has no 'make_it'"),
        ("own_steps:make", "own_steps:finished", "a Learner takes no arguments"),
        ("own_steps:make", "own_steps:gdkit", "neither a Learner nor a function"),
        ("use: 'own_steps:make'", "name: make", "there are no built-in learners"),
        ("name: own", "name: own\noptimizer: {name: adam}", "Remove optimizer"),
        ("name: own", "name: own\nproblem: {name: parabola}", "Remove problem"),
    ],
)
def test_a_mistake_about_a_learner_is_named_in_its_config(old, new, message, own_module):
    with pytest.raises(ConfigError, match=message):
        build_arguments(loads(CONFIG.replace(old, new)))


# Mistakes


def init(key, hyperparameters):
    return jnp.ones(2)


def good_step(x, hyperparameters, t, key, data):
    return x * (1 - hyperparameters["rate"]), {"loss": jnp.sum(x)}


def reporting(report):
    return lambda x, hyperparameters, t, key, data: (x * hyperparameters["rate"], report(x))


MISTAKES = {
    "no pair": (lambda x, hp, t, key, data: x * hp["rate"], r"it returns float32\[2\], not a pair.*Return"),
    "loss alone": (lambda x, hp, t, key, data: jnp.sum(x) * hp["rate"], r"it returns float32\[\], not a pair"),
    "state alone": (lambda x, hp, t, key, data: [x, x * hp["rate"]], "it returns list, not a pair"),
    "no dictionary": (reporting(jnp.sum), r"the second value that it returns is float32\[\], no dictionary"),
    "no loss": (reporting(lambda x: {"cost": jnp.sum(x)}), "it returns no 'loss'"),
    "loss of a shape": (reporting(lambda x: {"loss": x}), "loss=.*does not return a scalar"),
    "integer loss": (reporting(lambda x: {"loss": jnp.int32(1)}), "does not return a float"),
    "value of a shape": (reporting(lambda x: {"loss": jnp.sum(x), "norm": x}), r"logs\['norm'\].*not a scalar"),
    "reserved name": (reporting(lambda x: {"loss": jnp.sum(x), "step": 1.0}), "step='step': curve_step is a variable"),
    "shape": (lambda x, hp, t, key, data: (jnp.append(x, hp["rate"]), {"loss": x[0]}), r"float32\[2\] to float32\[3\]"),
    "dtype": (lambda x, hp, t, key, data: ((x * hp["rate"]).astype(jnp.bfloat16), {"loss": x[0]}), "to bfloat16"),
    "structure": (lambda x, hp, t, key, data: ((x, hp["rate"]), {"loss": x[0]}), "a step (adds|removes) this leaf"),
    "another axis": (lambda x, hp, t, key, data: (x * hp["speed"], {"loss": x[0]}), "step looks up 'speed'.*axis"),
    "unused axis": (lambda x, hp, t, key, data: (x / 2, {"loss": x[0]}), "axes='rate': neither init nor step"),
    "branch": (lambda x, hp, t, key, data: (x if hp["rate"] > 0 else -x, {"loss": x[0]}), "branches in Python"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_step_with_a_mistake_is_named(name):
    step, message = MISTAKES[name]
    with pytest.raises((InputValueError, InputTypeError), match=message):
        sweep(Learner(init, step), None, {"rate": [0.1, 0.2]}, steps=3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Learner(lambda key: 1.0, good_step), r"init.*cannot be called as init\(key, hyperparameters\)"),
        (lambda: Learner(init, lambda x, t: x), r"step.*cannot be called as step\(state, hyperparameters, t, key"),
        (lambda: Learner(init, good_step, evaluate=lambda x: {}), r"cannot be called as evaluate\(state, data\)"),
        (lambda: Learner(jnp.ones(2), good_step), "init.*not callable"),
        (lambda: Learner(init, good_step, maximize=("size",)), "maximize='size'"),
        (lambda: Learner(init, good_step, data={"names": ["a"]}), r"data\['names'\]\[0\]='a': not an array of numbers"),
        (lambda: sweep(Learner(init, good_step), sgd, {"rate": [0.1]}, steps=3), "optimizer=.*Pass None for it"),
        (lambda: descend(Learner(init, good_step), sgd, 3), "optimizer=.*Pass None for it"),
        (lambda: step_map(Learner(init, good_step), sgd), "optimizer=.*Pass None for it"),
        (
            lambda: descend(Learner(init, good_step), None, 3, hyperparameters={"rate": 0.1}, evaluate_every=2),
            "the Learner has no evaluate",
        ),
        (
            lambda: sweep(
                Learner(init, good_step), None, {"rate": [0.1]}, steps=3, evaluate_every=2, keep_states="best"
            ),
            r"the Learner has no evaluate\. Pass Learner\(evaluate=",
        ),
        (lambda: descend(problems.parabola(), None, 3), "optimizer=None.*only a Learner needs none"),
        (lambda: descend(Learner(init, good_step), None, 3), "hyperparameters=.*step looks up 'rate'"),
        (lambda: descend(Learner(lambda key, hp: 0, good_step), None, 3), "no floats among its params"),
        (lambda: gdkit.sharpness(Learner(init, good_step), 1.0), "not a Problem"),
        (
            lambda: gdkit.hypergradient(Learner(init, good_step), None, {"rate": 0.1}, 3),
            "a Learner has no loss that is",
        ),
        (
            lambda: gdkit.critical_learning_rate(Learner(init, good_step), None, low=0.1, high=1.0, steps=5),
            "a Learner has no loss that is",
        ),
    ],
)
def test_a_learner_that_cannot_be_used_is_named(make, message):
    with pytest.raises((InputValueError, InputTypeError), match=message):
        make()


def test_the_step_map_of_a_learner_takes_its_states():
    step = step_map(Learner(init, good_step), None)
    after, info = step(jnp.ones(2), {"rate": 0.25}, 0, None, None)
    assert after.tolist() == [0.75, 0.75] and float(info.loss) == 2 and info.update.tolist() == [-0.25, -0.25]


def test_hyperparameters_keep_the_precision_of_the_state():
    learner = Learner(lambda key, hyperparameters: jnp.ones(2, jnp.bfloat16), good_step)
    run = descend(learner, None, 2, hyperparameters={"rate": np.float64(0.5)})
    assert run.state.dtype == jnp.bfloat16 and run.state.tolist() == [0.25, 0.25]
