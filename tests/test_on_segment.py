"""What `on_segment` receives while a sweep runs."""

import concurrent.futures
import multiprocessing
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gdkit
from gdkit import GdkitError, Plan, Problem, sgd, sweep
from gdkit.sweeps.sweep import SegmentUpdate

AXES = {"learning_rate": np.geomspace(0.01, 1.5, 5).tolist(), "momentum": [0.0, 0.5]}
PROBLEM = Problem(lambda x: jnp.sum(x**2 * jnp.array([1.0, 0.1])), lambda key: jax.random.normal(key, (2,)))
SETTINGS = {"steps": 40, "seeds": 3, "plan": Plan(width=4, depth=2, segment=10, workers=2)}


def run(on_segment=None, **options):
    return sweep(PROBLEM, sgd, AXES, **SETTINGS | options, on_segment=on_segment)


@pytest.fixture(scope="module")
def watched():
    seen = []
    result = run(lambda update: seen.append((threading.current_thread(), update)))
    return result, seen


def test_updates_arrive_in_the_callers_thread_as_columns(watched):
    result, seen = watched
    assert {thread for thread, _ in seen} == {threading.current_thread()}
    for _, update in seen:
        assert isinstance(update, SegmentUpdate) and update.step in (10, 20, 30, 40)
        assert set(update.hyperparameters) == {"learning_rate", "momentum", "seed"}
        for name, values in update.hyperparameters.items():
            np.testing.assert_array_equal(values, result.lanes[name].values[update.lanes])
        assert {v.shape for v in update.values.values()} == {update.lanes.shape}


def test_every_lane_is_reported_after_each_segment_with_the_loss_of_that_step(watched):
    result, seen = watched
    at = {step: np.full(30, np.nan) for step in (10, 20, 30, 40)}
    for _, update in seen:
        assert np.isnan(at[update.step][update.lanes]).all()  # once
        at[update.step][update.lanes] = update.values["loss"]
    np.testing.assert_array_equal(at[40], result.lanes["final_loss"])
    losses = result.lanes["curve_loss"].values
    for step in (10, 20, 30):
        place = int(np.flatnonzero(result.lanes["curve_step"].values == step - 1)[0])
        last = np.where(result.lanes["end_step"] < step - 1, result.lanes["final_loss"], losses[:, place])
        np.testing.assert_array_equal(at[step], last)


def test_a_callback_changes_no_bits(watched):
    assert run().lanes.drop_attrs().identical(watched[0].lanes.drop_attrs())


def test_an_exception_stops_the_sweep_which_can_be_resumed(watched, tmp_path):
    class EnoughError(Exception):
        pass

    calls = []

    def stop(update):
        calls.append(update)
        if len(calls) == 3:
            raise EnoughError("seen enough")

    with pytest.raises(EnoughError, match="seen enough") as caught:
        run(stop, store=tmp_path)
    assert "raised by on_segment" in caught.value.__notes__[0]
    assert len(calls) == 3 and not [t for t in threading.enumerate() if t.name.startswith("gdkit")]
    assert gdkit.open(tmp_path).missing > 0
    assert run(store=tmp_path).lanes.drop_attrs().identical(watched[0].lanes.drop_attrs())


def test_threads_of_an_executor_report_and_processes_are_refused():
    seen = []
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        run(seen.append, executor=pool)
    assert np.unique(np.concatenate([update.lanes for update in seen])).tolist() == list(range(30))
    with (
        concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as processes,
        pytest.raises(GdkitError, match="do not send values meanwhile"),
    ):
        run(print, executor=processes)
    with pytest.raises(GdkitError, match="on_segment=3: not a callback"):
        run(3)
