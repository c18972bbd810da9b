"""What `on_segment` receives while a sweep runs."""

import concurrent.futures
import multiprocessing
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gdkit
from gdkit import GdkitError, Plan, Problem, live, sgd, sweep
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
        pytest.raises(GdkitError, match="send no values while they run"),
    ):
        run(print, executor=processes)
    with pytest.raises(GdkitError, match="on_segment=3: not a callback"):
        run(3)


# Live trackers


class Recorded:
    """A stand-in for a tracker: what was logged by run, and which runs were closed."""

    def __init__(self):
        self.params, self.logged, self.closed = {}, {}, []

    def start(self, name, params):
        self.params[name], own = params, self.logged.setdefault(name, [])
        return live.LaneLog(lambda values, step: own.append((step, values)), lambda: self.closed.append(name))


def test_live_trackers_log_each_lane_at_its_steps_and_close_it_at_its_end(watched):
    seen = Recorded()
    with live.LiveTracker(seen.start) as log:
        result = run(log)
    assert len(seen.logged) == 30 and sorted(seen.closed) == sorted(seen.logged)
    for name, logged in seen.logged.items():
        lane = int(name.split("-")[0])
        row = result.lanes.isel(lane=lane)
        assert seen.params[name] == {n: row[n].item() for n in ("learning_rate", "momentum", "seed")}
        steps = [step for step, _ in logged]
        assert steps == sorted(set(steps)) and steps[-1] == row["end_step"]
        assert logged[-1][1]["max_loss"] == row["max_loss"] and "max_loss" not in logged[0][1]
        curve = dict(zip(*result.curve(lane), strict=True))
        assert all(values["loss"] == curve[step] for step, values in logged[:-1])


def test_an_interrupted_sweep_leaves_closed_runs():
    seen, updates = Recorded(), []

    def stop(update):
        log(update)
        updates.append(update)
        if len(updates) == 2:
            raise RuntimeError("enough")

    with live.LiveTracker(seen.start) as log, pytest.raises(RuntimeError, match="enough"):
        run(stop)
    assert seen.logged and sorted(seen.closed) == sorted(seen.logged)


@pytest.mark.full
def test_tensorboard_has_the_runs_while_the_sweep_goes_on(tmp_path):
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed: pip install 'gdkit[tensorboard]'")
    folder, counts = tmp_path / "logs", []
    with live.tensorboard(folder) as log:
        run(lambda update: counts.append(len(list(folder.iterdir()))) if not log(update) else None)
    assert counts[0] < counts[-1] == 30


@pytest.mark.full
@pytest.mark.filterwarnings("ignore")  # of its own packages
def test_mlflow_has_one_run_per_lane_nested_in_that_of_the_sweep(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="MLflow is not installed: pip install 'gdkit[mlflow]'")
    pytest.importorskip("alembic", reason="its store in a file needs alembic: pip install 'gdkit[mlflow]'")
    monkeypatch.chdir(tmp_path)
    store = f"sqlite:///{tmp_path}/live.db"  # MLflow keeps a store for each address
    with live.mlflow(store, experiment="rates") as log:
        result = sweep(PROBLEM, sgd, {"learning_rate": [0.1, 2.0]}, steps=40, on_segment=log)
    client = mlflow.MlflowClient(store)
    runs = client.search_runs([client.get_experiment_by_name("rates").experiment_id])
    assert len(runs) == 3 and {one.info.status for one in runs} == {"FINISHED"}
    own = {one.info.run_name: one.data.metrics for one in runs if "mlflow.parentRunId" in one.data.tags}
    assert own["0-learning_rate=0.1-seed=0"]["loss"] == result.lanes["final_loss"][0]


def test_a_missing_package_of_a_live_tracker_is_named_with_its_extra(monkeypatch):
    for package, start in (
        ("tensorboardX", lambda: live.tensorboard("nowhere")),
        ("mlflow", live.mlflow),
        ("wandb", lambda: live.wandb("nowhere")),
    ):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(GdkitError, match=f"needs {package}, which is not installed"):
            start()
