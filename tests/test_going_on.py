"""Sweeps that are extended, and lanes that are replayed."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from shared import run_sweep

import gdkit
from gdkit import Plan, Problem, optimizers, problems, sgd, sweep
from gdkit.errors import InputTypeError, InputValueError
from gdkit.sweeps.execution.settings import DEFAULT_SETTINGS
from gdkit.sweeps.sweep import run_request

RATES = [1e-3, 1e-2, 0.1, 1.0, 1e3]


@pytest.fixture(scope="module")
def iris():
    return problems.logistic_regression("iris", batch_size=16)


def noisy(learning_rate):  # its state holds a key
    return optax.noisy_sgd(learning_rate, key=jax.random.key(3))


AXES = {"optimizer": {"adam": optax.adam, "noisy": noisy}, "learning_rate": RATES}


@pytest.fixture(scope="module")
def short(iris):
    return sweep(iris, None, AXES, seeds=2, steps=37, plan=Plan(width=4))


@pytest.mark.parametrize("steps", [38, 64, 150])
def test_an_extended_sweep_equals_one_of_so_many_steps(iris, short, steps):
    extended = short.extend(steps)
    straight = sweep(iris, None, AXES, seeds=2, steps=steps, plan=Plan(width=4))
    assert set(extended.lanes.data_vars) == set(straight.lanes.data_vars)
    for name in straight.lanes.data_vars:
        np.testing.assert_array_equal(extended.lanes[name].values, straight.lanes[name].values, err_msg=name)
    assert extended.lanes.attrs["steps"] == steps
    assert (short.lanes["end_step"].values <= 37).all(), "the shorter result stays as it was"


def test_extending_twice_equals_extending_once(short):
    once, twice = short.extend(90), short.extend(50).extend(90)
    for name in once.lanes.data_vars:
        np.testing.assert_array_equal(once.lanes[name].values, twice.lanes[name].values, err_msg=name)


@pytest.mark.parametrize("lane", [0, 9, 13, 17])
def test_a_replayed_lane_ends_the_same(short, lane):
    replay = short.replay(lane, around=3)
    assert replay.same
    assert len(replay.watched["loss"]) == len(replay.watched["step"]) > 0
    assert "The end is the same, bit for bit." in str(replay)


def test_a_replay_shows_the_steps_of_the_run():
    result = sweep(problems.parabola(), sgd, {"learning_rate": [0.2, 1.5]}, steps=30)
    replay = result.replay(0, around=30)
    x = 3 - 3 * 0.6 ** np.arange(31)
    np.testing.assert_allclose(replay.watched["loss"], (x[:30] - 3) ** 2, rtol=1e-4, atol=1e-9)
    np.testing.assert_allclose(replay.watched["normparams"], np.abs(x[:30]), rtol=1e-5)
    np.testing.assert_allclose(replay.watched["updateparams"], np.abs(np.diff(x)), rtol=1e-3, atol=1e-6)
    diverging = result.replay(1, around=2)
    assert diverging.same and diverging.onset == result.verdicts["onset"].values.ravel()[1]


def test_a_replay_reports_a_lane_that_ends_otherwise(short):
    changed = short.lanes.assign(final_loss=short.lanes["final_loss"] * (1 + 1e-6))
    assert not gdkit.SweepResult(changed, short.grids, origin=short.origin).replay(0).same


@pytest.mark.parametrize(
    "call, said",
    [
        (lambda r: r.extend(37), "steps=37: the sweep has run 37 already"),
        (lambda r: r.extend(0), "steps=0"),
        (lambda r: r.select(optimizer="adam").extend(50), "its problem and optimizer are not known"),
        (lambda r: r.replay(99), "lane=99: no such lane"),
        (lambda r: r.replay(0, around=0), "around=0"),
    ],
)
def test_what_cannot_be_extended_or_replayed_is_refused(short, call, said):
    with pytest.raises((InputValueError, InputTypeError), match=said):
        call(short)


def test_a_result_from_a_file_cannot_be_extended(short, tmp_path):
    short.save(tmp_path / "r.nc")
    with pytest.raises(InputValueError, match=r"its problem and optimizer are not known.*gdkit\.open"):
        gdkit.open(tmp_path / "r.nc").extend(50)


def test_a_schedule_over_all_steps_is_not_extended():
    factory = optimizers.with_schedule(sgd, optimizers.schedule("cosine", 20))
    result = sweep(problems.parabola(), factory, {"learning_rate": [0.1]}, steps=20)
    with pytest.raises(InputValueError, match="the schedule depends on the total number of steps"):
        result.extend(40)


def test_lanes_too_large_to_keep_are_not_kept():
    settings = DEFAULT_SETTINGS._replace(lane_bytes=100)
    problem = Problem(lambda x: jnp.sum(x**2), jnp.ones(10))
    result = run_sweep(problem, sgd, {"learning_rate": [0.1, 0.2]}, steps=5, settings=settings)
    with pytest.raises(InputValueError, match="too large to be kept"):
        result.extend(10)


def test_only_the_points_named_are_continued(short):
    some = [np.array([1, 3]), np.array([], int)]
    earlier = short.origin.sweep
    result, _ = run_request(earlier.request._replace(steps=60), resumed=earlier, points=some)
    ends = result.lanes["end_step"].values.reshape(2, len(RATES), 2)
    ran = [set(np.flatnonzero((ends[g] > 37).any(axis=1))) for g in range(2)]
    assert ran[1] == set() and ran[0] and ran[0] <= {1, 3}
    full = short.extend(60)
    rows = np.flatnonzero(result.lanes["end_step"].values > 37)
    np.testing.assert_array_equal(result.lanes["final_loss"].values[rows], full.lanes["final_loss"].values[rows])
