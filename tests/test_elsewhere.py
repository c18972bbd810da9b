"""What was trained elsewhere is judged as what gdkit trained."""

import json
import os
import shutil
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from shared import quick

import gdkit
from gdkit import (
    GdkitError,
    Plan,
    Problem,
    Regime,
    SweepResult,
    classify,
    classify_curve,
    descend,
    problems,
    sgd,
    sweep,
    sweep_function,
)
from gdkit.store import Store
from gdkit.store.files import host


def names(codes):
    return [Regime(int(code)).name for code in np.ravel(codes)]


def curves_of(problem, rates):
    runs = [descend(problem, sgd, 300, hyperparameters={"learning_rate": rate}) for rate in rates]
    losses = np.stack([run.loss for run in runs])
    return losses, {name: np.stack([run.statistics[name] for run in runs]) for name in runs[0].statistics}


KINDS = [  # problems whose regimes show in the losses
    (problems.parabola(), (1e-3, 0.2, 1.01, 1.2), 0.0, ["SLOW", "CONVERGED", "DIVERGED", "DIVERGED"]),
    (Problem(lambda p: (p[0] * p[1]) ** 2 / 2, jnp.array([3.0, 0.3])), (0.1, 0.3, 0.4), 0.0,
     ["CONVERGED", "CATAPULT", "CATAPULT"]),
    (Problem(jnp.abs, 3.3), (1e-3, 0.3, 1.0), 0.0, ["SLOW", "BOUNCING", "BOUNCING"]),
    (Problem(lambda x: jnp.sin(3 * x) + x**2 / 10, 2.0), (1e-3, 0.1, 0.3), None, ["SLOW", "CONVERGED", "BOUNCING"]),
]  # fmt: skip


@pytest.mark.parametrize("problem, rates, optimum, expected", quick(KINDS, KINDS[0], KINDS[1], KINDS[3]))
def test_a_curve_has_the_regime_of_its_run(problem, rates, optimum, expected):
    losses, statistics = curves_of(problem, rates)
    judged, own = classify_curve(losses, optimum=optimum), classify(statistics, optimum=optimum)
    assert names(judged.regime) == names(own.regime) == expected
    np.testing.assert_array_equal(judged.onset, own.onset)
    for name in ("gap", "rise", "falling", "clear"):
        np.testing.assert_allclose(judged.evidence[name], own.evidence[name], rtol=1e-5, atol=1e-6)


def test_what_losses_do_not_show_is_not_claimed():
    losses, statistics = curves_of(problems.parabola(), (0.8, 0.2, 0.0))
    assert names(classify(statistics, optimum=0.0).regime) == ["OSCILLATING", "CONVERGED", "STALLED"]
    judged = classify_curve(losses, optimum=0.0)
    assert names(judged.regime) == ["CONVERGED", "CONVERGED", "STALLED"]
    assert np.isnan(judged.evidence["reversal"]).all() and (judged.onset == -1).all()
    noise = 1 + 0.3 * np.random.default_rng(0).standard_normal(300)
    assert names([classify_curve(noise, optimum=0.0).regime]) == ["BOUNCING"]
    assert names([classify_curve(noise, optimum=0.0, stochastic=True).regime]) == ["SLOW"]


def test_a_curve_diverges_where_a_sweep_would_end_it():
    ended = classify_curve([[1.0, 2.0, np.nan, 0.0], [1.0, 3e6, 1.0, 0.0], [1.0, 0.1, -3e6, 0.0]])
    assert names(ended.regime) == ["DIVERGED"] * 3
    risen = classify_curve([[1.0, 3e6, 0.0, 0.0]] * 3, diverged_above=1e7, optimum=0.0)
    assert names(risen.regime) == ["CATAPULT"] * 3
    one, several = classify_curve([4.0, 2.0, 1.0, 0.0]), classify_curve(np.ones((3, 1, 4)))
    assert one.regime.shape == () and several.regime.shape == several.evidence["gap"].shape == (3, 1)


@pytest.mark.parametrize(
    "losses, match",
    [(["a"], "not an array of real numbers"), (1.0, "no loss along the last axis"), ([[], []], "no loss along")],
)
def test_what_is_no_curve_is_refused(losses, match):
    with pytest.raises(GdkitError, match=match):
        classify_curve(losses)


RATES = [1e-3, 0.1, 0.3, 0.8, 1.2]


@pytest.fixture(scope="module")
def trained():
    """A sweep, and the result of its losses alone."""
    problem = Problem(lambda x: (x - 3) ** 2, lambda key: jax.random.normal(key, ()), optimum=0.0)
    own = sweep(problem, sgd, {"learning_rate": RATES}, steps=100, seeds=3, curve_points=4000)
    steps = own.lanes["curve_step"].values
    assert (steps == np.arange(101)).all()  # every loss is recorded
    losses = own.lanes["curve_loss"].values.reshape(5, 3, 101)
    return own, SweepResult.from_arrays({"learning_rate": RATES}, {"loss": losses}, optimum=0.0, curve_points=4000)


@pytest.mark.full
def test_losses_from_elsewhere_answer_as_the_sweep_does(trained):
    own, other = trained
    assert other.axes["learning_rate"].tolist() == RATES and other.seeds == 3
    assert other.recommend().best == own.recommend().best == 0.3
    assert other.best().score == pytest.approx(own.best().score, abs=1e-9)
    assert other.recommend().edge == own.recommend().edge
    np.testing.assert_array_equal(other.edge()["edge"], own.edge()["edge"])
    shown = np.where(own.regimes == Regime.OSCILLATING, Regime.CONVERGED, own.regimes)
    np.testing.assert_array_equal(other.regimes, shown)
    for lane in (0, 5, 14):
        np.testing.assert_array_equal(other.curve(lane), own.curve(lane))
    assert "15 lanes of 100 steps" in repr(other)


def test_a_result_from_elsewhere_is_saved_and_exported(trained, tmp_path):
    other = trained[1]
    other.save(tmp_path / "other.nc")
    again = gdkit.open(tmp_path / "other.nc")
    assert again.recommend() == other.recommend()
    assert len(other.to_dataframe()) == 15
    for call in (lambda: other.extend(200), lambda: again.replay(0), lambda: other.refine("learning_rate")):
        with pytest.raises(GdkitError, match=r"come from a function or from arrays.*Call sweep_function again"):
            call()


def test_final_values_are_compared_in_their_direction():
    axes = {"optimizer": ["adam", "sgd"], "width": [8, 16], "learning_rate": [0.1, 0.2, 0.3]}
    accuracy = np.random.default_rng(0).uniform(size=(2, 2, 3, 4))
    accuracy[1, 0, 2, 3] = np.nan  # a run that failed
    result = SweepResult.from_arrays(axes, {"accuracy": accuracy}, maximize=True)
    means = np.where(np.isfinite(accuracy).all(-1), accuracy.mean(-1), -np.inf)
    i, j, k = np.unravel_index(np.argmax(means), means.shape)
    best = result.best()
    assert best.hyperparameters == {
        "optimizer": axes["optimizer"][i], "width": axes["width"][j], "learning_rate": axes["learning_rate"][k],
    }  # fmt: skip
    assert best.score == pytest.approx(means.max())
    np.testing.assert_array_equal(result.data["accuracy"], accuracy)
    np.testing.assert_array_equal(result.regimes == Regime.DIVERGED, np.isnan(accuracy))
    found = result.recommend()
    assert any("only divergence is known" in text for text in found.caveats)
    assert found.sensitivity is None


def test_the_optimizer_may_be_any_dimension_and_seeds_may_be_left_out():
    error = np.array([[3.0, 1.0], [2.0, 4.0], [5.0, 6.0]])  # (rates, optimizers)
    axes = {"learning_rate": [0.1, 0.2, 0.3], "optimizer": ["adam", "sgd"]}
    result = SweepResult.from_arrays(axes, {"error": error, "seconds": 10 * error}, by="error")
    assert result.best().hyperparameters == {"learning_rate": 0.1, "optimizer": "sgd"}
    np.testing.assert_array_equal(result.data["seconds"].squeeze("seed"), 10 * error.T)
    assert np.isfinite(result.select(optimizer="sgd").recommend().sensitivity)


def test_curves_of_other_values_are_recorded_beside_the_loss(trained):
    losses = np.geomspace(1, 1e-3, 21) * np.ones((2, 1, 1))
    arrays = {"loss": losses, "validation_loss": 2 * losses, "grad": losses[..., 0]}
    result = SweepResult.from_arrays({"learning_rate": [0.1, 0.2]}, arrays, optimum=0.0)
    assert result.score_name() == "validation_loss" and result.best().score == pytest.approx(2e-3)
    np.testing.assert_allclose(result.lanes["curve_validation_loss"], 2 * result.lanes["curve_loss"])
    assert names(result.regimes) == ["CONVERGED"] * 2


@pytest.mark.parametrize(
    "arrays, options, match",
    [
        ({}, {}, "not a mapping of names to arrays"),
        ({"loss": np.ones((2, 5))}, {}, r"the shape does not fit the axes.*\(3, seeds\)"),
        ({"loss": np.ones((3, 1, 5, 1))}, {}, "the shape does not fit the axes"),
        ({"a": np.ones((3, 2)), "b": np.ones((3, 1))}, {"by": "a"}, "different numbers of seeds"),
        ({"a": np.ones((3, 2, 5)), "b": np.ones((3, 2, 4))}, {"by": "a"}, "differ in their number of steps"),
        ({"a": np.ones(3), "b": np.ones(3)}, {}, "Name the one by which runs are compared"),
        ({"loss": np.ones(3)}, {"by": "lass"}, "no such name"),
        ({"seed": np.ones(3)}, {}, "has this name"),
        ({"learning_rate": np.ones(3)}, {}, "has this name"),
        ({"late_mean": np.ones(3)}, {}, "has this name"),
        ({"loss": np.ones(3), "final_loss": np.ones(3)}, {}, "both are the training loss"),
    ],
)
def test_arrays_that_fit_no_grid_are_refused(arrays, options, match):
    with pytest.raises(GdkitError, match=match):
        SweepResult.from_arrays({"learning_rate": [0.1, 0.2, 0.3]}, arrays, **options)


def train(hyperparameters, key):
    """Gradient descent on a random quadratic, and how far it went."""
    rate, power = hyperparameters["learning_rate"], hyperparameters.get("power", 2)
    start = jax.random.uniform(key, (), minval=0.5, maxval=1.5)
    step = lambda x, _: (x - rate * power * jnp.abs(x) ** (power - 1) * jnp.sign(x), jnp.abs(x) ** power)
    end, losses = jax.lax.scan(step, start, length=101)
    return {"loss": losses, "distance": jnp.abs(end - start)}


def test_a_swept_function_is_called_at_every_point_with_the_key_of_the_seed():
    axes = {"power": [2, 4], "learning_rate": [0.01, 0.1, 1.2]}
    result = sweep_function(train, axes, seeds=3, key=5, optimum=0.0, plan=Plan(width=4, workers=2))
    keys = [jax.random.fold_in(jax.random.key(5), seed) for seed in range(3)]
    for i, power in enumerate(axes["power"]):
        for j, rate in enumerate(axes["learning_rate"]):
            for s, key in enumerate(keys):
                own = train({"power": power, "learning_rate": rate}, key)
                row = result.data.isel(power=i, learning_rate=j, seed=s)
                np.testing.assert_allclose(row["initial_loss"], own["loss"][0], rtol=1e-6)
                np.testing.assert_allclose(row["distance"], own["distance"], rtol=2e-5)
    twin = SweepResult.from_arrays(axes, {"loss": full_losses(axes, keys)}, optimum=0.0)
    np.testing.assert_array_equal(result.regimes, twin.regimes)
    assert names(result.regimes[0, :, 0]) == ["SLOW", "CONVERGED", "DIVERGED"]
    assert result.best().hyperparameters == {"power": 2, "learning_rate": 0.1}
    other = sweep_function(train, axes, seeds=3, key=5, optimum=0.0, plan=Plan(width=4, workers=1))
    assert other.lanes.drop_attrs().identical(result.lanes.drop_attrs())  # whatever the number of workers


def full_losses(axes, keys):
    rows = [
        [[train({"power": p, "learning_rate": r}, key)["loss"] for key in keys] for r in axes["learning_rate"]]
        for p in axes["power"]
    ]
    return np.array(rows)


def test_static_values_have_one_program_each_and_floats_share_one():
    seen = []

    def count(hyperparameters, key):
        seen.append(hyperparameters["shape"])
        shift = {"square": jnp.square, "abs": jnp.abs}[hyperparameters["shape"]]
        sign = hyperparameters["optimizer"](1.0)
        return {"error": shift(hyperparameters["x"]) * sign + hyperparameters["flag"]}

    axes = {
        "optimizer": {"plus": lambda x: x, "minus": lambda x: -x}, "shape": ["square", "abs"], "flag": [False, True],
        "x": [0.1, 0.2, 0.3, 0.4],
    }  # fmt: skip
    result = sweep_function(count, axes)
    assert len(seen) == 2 * 8  # each traced once to be checked and once to be compiled
    assert result.optimizers == ("plus", "minus")
    x = np.array(axes["x"])
    expected = [[[x**2, x], [x**2 + 1, x + 1]], [[-(x**2), -x], [1 - x**2, 1 - x]]]  # optimizer, flag, shape
    found = result.data["error"].squeeze("seed").transpose("optimizer", "flag", "shape", "x")
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_maximized_value_and_failed_runs():
    def play(hyperparameters, key):
        rate = hyperparameters["learning_rate"]
        return {"reward": jnp.where(rate > 0.5, jnp.nan, 1 - (rate - 0.2) ** 2) * jnp.linspace(0, 1, 30), "length": 7}

    result = sweep_function(play, {"learning_rate": [0.1, 0.2, 0.4, 1.0]}, by="reward", maximize=True)
    assert result.best().hyperparameters == {"learning_rate": 0.2} and result.best().score == pytest.approx(1.0)
    assert names(result.regimes) == ["UNKNOWN"] * 3 + ["DIVERGED"]
    assert float(result.edge()["low"].squeeze()) == pytest.approx(0.4)
    assert int(result.lanes.attrs["steps"]) == 29 and result.lanes["length"].values.tolist() == [7] * 4
    np.testing.assert_allclose(result.lanes["curve_reward"][1], np.linspace(0, 1, 30), atol=1e-6)


@pytest.mark.parametrize(
    "function, match",
    [
        ("train", "not a function"),
        (lambda hyperparameters, key: 1.0, "it returns .*, not a mapping"),
        (lambda hyperparameters, key: {}, "not a mapping with values"),
        (lambda hyperparameters, key: {"a": jnp.ones((2, 2))}, r"'a' is float32 of shape \(2, 2\)"),
        (lambda hyperparameters, key: {"a": 1j}, "'a' is complex64"),
        (lambda hyperparameters, key: {"a": "high"}, "'a' is no array: 'high'"),
        (lambda hyperparameters, key: {"learning_rate": 1.0}, "has this name"),
        (lambda hyperparameters, key: {"end_step": 1.0}, "has this name"),
        (lambda hyperparameters, key: {"a/b": 1.0}, "train='a/b'"),
        (lambda hyperparameters, key: {"a": float(hyperparameters["learning_rate"])}, "test_elsewhere.py, line"),
        (lambda hyperparameters, key: {"a": jnp.ones(3), "b": jnp.ones(4)}, "differ in their number of steps"),
    ],
)
def test_functions_that_return_no_values_are_refused(function, match):
    with pytest.raises(GdkitError, match=match):
        sweep_function(function, {"learning_rate": [0.1, 0.2]}, by=None if "train" in match else "a")


class Fuse:
    """A function of the host that every run calls; it raises after some calls."""

    def __init__(self):
        self.reset()

    def reset(self, left=10**6):
        self.left, self.calls = left, 0

    def __call__(self, x):
        self.calls, self.left = self.calls + 1, self.left - 1
        if self.left < 0:
            raise ValueError("the fuse has blown")
        return np.float32(x)


FUSE = Fuse()


def fragile(hyperparameters, key):
    like, rate = jax.ShapeDtypeStruct((), jnp.float32), hyperparameters["learning_rate"]
    rate = jax.pure_callback(FUSE, like, rate, vmap_method="sequential")
    return train({**hyperparameters, "learning_rate": rate}, key)


def sweep_fragile(function=fragile, **options):
    axes = {"power": [2, 4], "learning_rate": [0.01, 0.1, 1.2, 0.3]}
    options = {"seeds": 2, "optimum": 0.0, "plan": Plan(width=3, workers=2)} | options
    return sweep_function(function, axes, **options)


def numbers(result):
    return result.lanes.drop_attrs()


@pytest.mark.full
def test_a_function_resumes_from_its_directory_with_the_same_bits(tmp_path):
    FUSE.reset()
    path = tmp_path / "run"
    straight = sweep_fragile()
    assert FUSE.calls == 2 * 9  # two programs of three blocks of three lanes, the last of which is filled up
    FUSE.left = 8
    with pytest.raises(Exception, match="the fuse has blown"):
        sweep_fragile(store=path)
    opened = gdkit.open(path)
    assert 0 < opened.missing < 16
    kept = np.flatnonzero(opened.finished)
    assert numbers(opened).isel(lane=kept).equals(numbers(straight).isel(lane=kept).assign(
        reference_loss=numbers(opened)["reference_loss"][kept]
    ))  # fmt: skip
    FUSE.reset()
    assert numbers(sweep_fragile(store=path)).identical(numbers(straight)) and FUSE.calls < 18 - len(kept) + 6
    assert numbers(gdkit.open(path)).identical(numbers(straight)) and gdkit.open(path).best() == straight.best()
    FUSE.calls = 0
    assert numbers(sweep_fragile(store=path, plan=Plan(width=5))).identical(numbers(straight)) and FUSE.calls == 0
    for options, match in (
        ({"seeds": 3}, "seeds: 2 in this directory, 3 now"),
        ({"key": 1}, "key: .* in this directory"),
        ({"function": lambda hyperparameters, key: train(hyperparameters, key)}, "program of group 0: hash .* now"),
    ):
        with pytest.raises(GdkitError, match=match):
            sweep_fragile(store=path, **options)
    sweep_fragile(store=tmp_path / "result.nc")
    assert numbers(gdkit.open(tmp_path / "result.nc")).identical(numbers(straight))
    with pytest.raises(GdkitError, match="store=3: not a path"):
        sweep_fragile(store=3)


def test_processes_that_sweep_a_function_share_its_tiles(tmp_path):
    """A process that lives has claimed two tiles, of which it finishes one; one that is dead had claimed a third."""
    straight, path = sweep_fragile(store=tmp_path / "straight"), tmp_path / "run"
    FUSE.reset(left=4)
    with pytest.raises(Exception, match="the fuse has blown"):
        sweep_fragile(store=path)
    left = np.flatnonzero(~Store.open(path).finished())
    assert not list((path / "claims").iterdir())
    for tile, process in zip(left[-3:], (os.getppid(), os.getppid(), 2**22 + 1), strict=True):
        claim = json.dumps({"host": host(), "process": process})
        (path / "claims" / f"{tile:07}.json").write_text(claim)

    def work_elsewhere():
        finished, given_up = (f"{tile:07}" for tile in left[-3:-1])
        while FUSE.calls < 3 * (len(left) - 2):  # all others are run here first
            time.sleep(0.01)
        shutil.copy(tmp_path / "straight" / "tiles" / "0000" / f"{finished}.npz", path / "tiles" / "0000")
        (path / "claims" / f"{finished}.json").unlink()
        (path / "claims" / f"{given_up}.json").unlink()

    FUSE.reset()
    other = threading.Thread(target=work_elsewhere)
    other.start()
    assert numbers(sweep_fragile(store=path)).identical(numbers(straight))
    other.join()
    assert FUSE.calls == 3 * (len(left) - 1) and not list((path / "claims").iterdir())
