"""Optuna, TensorBoard, MLflow and W&B get the values of the sweep."""

import dataclasses
import struct
import sys

import numpy as np
import pytest
import synthetic
from shared import assert_refused

from gdkit import plots
from gdkit.sweeps.axes import is_log
from gdkit.sweeps.description import LaneGrid


@pytest.fixture(scope="module")
def optuna():
    package = pytest.importorskip("optuna", reason="Optuna is not installed: pip install 'gdkit[optuna]'")
    package.logging.set_verbosity(package.logging.ERROR)
    return package


@pytest.fixture(scope="module")
def result():
    """sgd with an axis that adam lacks, momentum, and adam; three seeds."""
    made = synthetic.result(rates=6)
    sgd = made.lanes["optimizer"].values == "sgd"
    lanes = made.lanes.assign_coords(momentum=("lane", np.where(sgd, 0.9, np.nan)))
    first, second = made.grids
    return dataclasses.replace(
        made, lanes=lanes, grids=(LaneGrid("sgd", (*first.dimensions, ("momentum", ("momentum",), 1))), second)
    )


# Optuna


@pytest.fixture(scope="module")
def study(optuna, result):
    return result.to_optuna()


def test_every_lane_is_a_complete_trial_with_its_outcome(optuna, result, study):
    assert len(study.trials) == result.lanes.sizes["lane"] == 36
    assert {t.state for t in study.trials} == {optuna.trial.TrialState.COMPLETE}
    for lane in (0, 17, 20, 35):
        trial, row = study.trials[lane], result.lanes.isel(lane=lane)
        assert trial.params["learning_rate"] == row["learning_rate"]
        assert trial.params["optimizer"] == row["optimizer"]
        assert trial.user_attrs["regime"] == result.regime_names[int(result.lane_regimes[lane])]
        assert [trial.user_attrs[name] for name in ("seed", "end_step", "lane")] == [row["seed"], row["end_step"], lane]
        steps, losses = result.curve(lane)
        finite = np.isfinite(losses)
        assert trial.intermediate_values == dict(zip(steps[finite].tolist(), losses[finite].tolist(), strict=True))
    assert {t.user_attrs["end_kind"] for t in study.trials} == {"steps", "nonfinite"}


def test_a_trial_has_the_params_of_its_optimizer_only(study):
    has = {t.params["optimizer"]: "momentum" in t.params for t in study.trials}
    assert has == {"sgd": True, "adam": False}


def test_distributions_are_those_of_the_axes(optuna, study):
    own = study.trials[0].distributions
    assert own["learning_rate"] == optuna.distributions.FloatDistribution(1e-3, 10.0, log=True)
    assert own["optimizer"] == optuna.distributions.CategoricalDistribution(["sgd", "adam"])


def test_values_are_capped_as_in_the_sensitivity_to_the_learning_rate(result, study):
    one = result.select(optimizer="sgd")
    found = one.recommend()
    values = np.array([t.value for t in study.trials if t.params["optimizer"] == "sgd"])
    assert values.mean() - one.best().score == pytest.approx(found.sensitivity)
    diverged = one.regimes.values.ravel() == 6
    assert diverged.any() and set(values[diverged]) == {3.0}, "the initial loss"


def test_a_diverged_lane_gets_the_worst_finite_value_of_a_metric(optuna, result):
    finite = np.isfinite(result.lanes["validation_loss"].values)
    accuracy = np.where(finite, 1 - result.lanes["validation_loss"].values / 5, np.nan)
    scored = dataclasses.replace(result, lanes=result.lanes.assign(accuracy=("lane", accuracy)))
    study = scored.to_optuna(by="accuracy", maximize=True)
    assert study.best_value == pytest.approx(accuracy[finite].max())
    assert study.trials[int(np.flatnonzero(~finite)[0])].value == pytest.approx(accuracy[finite].min())
    assert scored.to_optuna(optuna.create_study(direction="maximize"), by="accuracy").best_value == study.best_value


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize(
    "name",
    ["optimization_history", "parallel_coordinate", "slice", "contour", "edf", "intermediate_values", "rank"],
)
def test_figures_of_optuna_draw_the_study(optuna, study, name):
    import matplotlib.pyplot as plt

    shown = {"params": ["learning_rate", "optimizer"]} if name in ("contour", "rank", "slice") else {}
    assert getattr(optuna.visualization.matplotlib, f"plot_{name}")(study, **shown) is not None
    plt.close("all")


def test_a_sampler_continues_the_study(optuna, result):
    study = result.to_optuna(optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0)))

    def objective(trial):
        assert trial.suggest_categorical("optimizer", ["sgd", "adam"]) in ("sgd", "adam")
        return np.log10(trial.suggest_float("learning_rate", 1e-3, 10.0, log=True) / 0.1) ** 2

    study.optimize(objective, n_trials=12)
    proposed = [t.params["learning_rate"] for t in study.trials[36:]]
    assert np.mean([1e-2 < rate < 1 for rate in proposed]) > 0.75, "its prior would be half"


def test_is_log_detects_logarithmic_spacing():
    assert is_log(np.geomspace(1e-4, 1, 7)) and is_log(np.array([0.01, 0.1]))
    assert not is_log(np.linspace(0.1, 1, 7)) and not is_log(np.array([0.0, 0.1, 1.0])) and not is_log(np.ones(1))
    random = np.random.default_rng(0)
    assert is_log(np.exp(random.uniform(np.log(1e-4), 0, 40))) and not is_log(random.uniform(0.1, 1, 40))


def test_unsuitable_studies_are_refused(optuna, result):
    assert_refused(lambda: result.to_optuna("study"), "study='study': not a study")
    other = optuna.create_study(direction="maximize")
    assert_refused(lambda: result.to_optuna(other, maximize=False), "study='maximize': it has other directions")
    lost = synthetic.result(("sgd",), edge=1e-6)
    assert_refused(lambda: lost.to_optuna(by="late_mean"), "by='late_mean': every lane diverged")


@pytest.mark.parametrize(
    "package, call",
    [
        ("optuna", lambda result: result.to_optuna()),
        ("tensorboardX", lambda result: result.log_to_tensorboard("nowhere")),
        ("mlflow", lambda result: result.log_to_mlflow()),
        ("wandb", lambda result: result.log_to_wandb("nowhere")),
    ],
)
def test_a_missing_package_is_named_with_its_extra(monkeypatch, result, package, call):
    monkeypatch.setitem(sys.modules, package, None)
    extra = package.lower().removesuffix("x")
    assert_refused(
        lambda: call(result), rf"needs {package}, which is not installed. Run: pip install 'gdkit\[{extra}\]'"
    )


# Trackers


@pytest.fixture(scope="module")
def run(tmp_path_factory, result):
    """A run directory with a report and a figure."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "figures").mkdir()
    (folder / "report.html").write_text("<p>a report</p>")
    plots.final_loss(result).figure.savefig(folder / "figures" / "final_loss.png", dpi=20)
    return folder


@pytest.fixture(scope="module")
def few(result):
    """Two lanes of one seed: one that converged, one that diverged."""
    return synthetic.result(("sgd",), rates=2, seeds=1)


def events(folder):
    """The events in the files of a folder: the framing of TFRecord, parsed here without its checksums."""
    from tensorboardX.proto.event_pb2 import Event

    for file in folder.iterdir():
        content, at = file.read_bytes(), 0
        while at < len(content):
            (size,) = struct.unpack_from("<Q", content, at)
            yield Event.FromString(content[at + 12 : at + 12 + size])
            at += size + 16


@pytest.mark.full
def test_tensorboard_holds_curves_numbers_hyperparameters_and_figures(tmp_path, few, run):
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed: pip install 'gdkit[tensorboard]'")
    few.log_to_tensorboard(tmp_path, run=run)
    names = ["0-sgd-learning_rate=0.001-seed=0", "1-sgd-learning_rate=10-seed=0"]
    assert sorted(p.name for p in tmp_path.iterdir()) == [*names, "sweep"]
    for lane, name in enumerate(names):
        values = [(e.step, v) for e in events(tmp_path / name) for v in e.summary.value]
        logged = {step: v.simple_value for step, v in values if v.tag == "loss"}
        steps, losses = few.curve(lane)
        assert logged == {
            s: x for s, x in zip(steps.tolist(), np.float32(losses).tolist(), strict=True) if np.isfinite(x)
        }
        numbers = {v.tag: (step, v.simple_value) for step, v in values}
        last = int(few.lanes["end_step"][lane])
        assert numbers["max_loss"] == (last, few.lanes["max_loss"][lane])
        assert ("validation_loss" in numbers) == bool(np.isfinite(few.lanes["validation_loss"][lane]))
        info = b"".join(v.metadata.plugin_data.content for _, v in values if v.tag == "_hparams_/session_start_info")
        regime = few.regime_names[int(few.lane_regimes[lane])]
        assert b"learning_rate" in info and regime.encode() in info
    shown = {v.tag: v for e in events(tmp_path / "sweep") for v in e.summary.value}
    assert shown["final_loss"].image.encoded_image_string == (run / "figures" / "final_loss.png").read_bytes()
    assert b"learning_rate: use 0.001" in shown["recommendation/text_summary"].tensor.string_val[0]


@pytest.mark.full
@pytest.mark.filterwarnings("ignore")  # of its own packages
def test_mlflow_holds_one_run_per_lane_nested_in_that_of_the_sweep(tmp_path, monkeypatch, few, run):
    mlflow = pytest.importorskip("mlflow", reason="MLflow is not installed: pip install 'gdkit[mlflow]'")
    pytest.importorskip("alembic", reason="its store in a file needs alembic: pip install 'gdkit[mlflow]'")
    monkeypatch.chdir(tmp_path)  # where artifacts go
    parent = few.log_to_mlflow("sqlite:///runs.db", experiment="rates", name="few", run=run)
    client = mlflow.MlflowClient("sqlite:///runs.db")
    assert sorted(a.path for a in client.list_artifacts(parent)) == ["final_loss.png", "report.html"]
    assert "learning_rate: use 0.001" in client.get_run(parent).data.tags["mlflow.note.content"]
    found = client.search_runs([client.get_experiment_by_name("rates").experiment_id])
    own = {r.info.run_name: r for r in found if r.data.tags.get("mlflow.parentRunId") == parent}
    assert len(found) == 3 and {r.info.status for r in found} == {"FINISHED"}
    diverged = own["1-sgd-learning_rate=10-seed=0"]
    assert diverged.data.params == {"optimizer": "sgd", "learning_rate": "10.0", "seed": "0"}
    assert (diverged.data.tags["regime"], diverged.data.tags["end_kind"]) == ("DIVERGED", "nonfinite")
    logged = {
        m.step: m.value for m in client.get_metric_history(own["0-sgd-learning_rate=0.001-seed=0"].info.run_id, "loss")
    }
    assert logged == pytest.approx(dict(zip(*(x.tolist() for x in few.curve(0)), strict=True)))
    assert diverged.data.metrics["max_loss"] == few.lanes["max_loss"][1]


def wandb_records(path):
    """The records in the file of an offline run: blocks of the LevelDB log, parsed here without its checksums."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, at, whole = path.read_bytes(), 7, b""
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, size, kind = struct.unpack_from("<IHB", content, at)
        whole += content[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # a whole record, or its last part
            yield Record.FromString(whole)
            whole = b""


@pytest.mark.filterwarnings("ignore")  # of its own packages
def test_wandb_holds_one_run_per_lane_offline(tmp_path, monkeypatch, few):
    pytest.importorskip("wandb", reason="wandb is not installed: pip install 'gdkit[wandb]'")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    few.log_to_wandb("rates", name="few", mode="offline", dir=str(tmp_path))
    logged = {}
    for file in tmp_path.glob("wandb/offline-run-*/*.wandb"):
        records = list(wandb_records(file))
        run = next(r.run for r in records if r.HasField("run"))
        losses = [
            i.value_json for r in records if r.HasField("history") for i in r.history.item if i.nested_key == ["loss"]
        ]
        logged[run.display_name] = run.run_group, list(run.tags), [float(x) for x in losses]
    assert set(logged) == {"0-sgd-learning_rate=0.001-seed=0", "1-sgd-learning_rate=10-seed=0", "few"}
    group, tags, losses = logged["1-sgd-learning_rate=10-seed=0"]
    finite = few.curve(1)[1][np.isfinite(few.curve(1)[1])]
    assert (group, tags) == ("few", ["DIVERGED", "nonfinite"]) and losses == pytest.approx(finite.tolist())


@pytest.mark.full
def test_a_missing_run_directory_is_refused(tmp_path, few):
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed: pip install 'gdkit[tensorboard]'")
    assert_refused(lambda: few.log_to_tensorboard(tmp_path, run=tmp_path / "gone"), "no such directory")
