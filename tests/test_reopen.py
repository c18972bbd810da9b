"""A result from disk can be extended and replayed once its code is known; otherwise the error says what is missing."""

import os
import pickle
import shutil
import warnings

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from shared import assert_same_bits, run_sweep

import gdkit
from gdkit import Plan, Problem, monitors, problems, sgd, static, sweep
from gdkit.app.cli import main
from gdkit.errors import GdkitWarning, InputValueError, OtherRunError
from gdkit.store import Store
from gdkit.sweeps.execution.settings import DEFAULT_SETTINGS
from gdkit.sweeps.sweep import run_request

RATES = [1e-3, 1e-2, 0.1, 1.0, 1e3]
PLAN = Plan(width=2, depth=1, tile=2)


def noisy(learning_rate):  # its state holds a key
    return optax.noisy_sgd(learning_rate, key=gdkit.checks.as_key(3))


OPTIMIZERS = {"sgd": (sgd, {"momentum": 0.5}), "noisy": noisy}
AXES = {"optimizer": {"sgd": (sgd, {"momentum": 0.5}), "noisy": (noisy, {})}, "learning_rate": RATES}


@pytest.fixture(scope="module")
def iris():
    return problems.logistic_regression("iris", batch_size=16)


@pytest.fixture(scope="module")
def folder(iris, tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "short"
    sweep(iris, None, AXES, seeds=3, steps=37, plan=PLAN, store=path)
    return path


@pytest.fixture(scope="module")
def longer(iris):
    return sweep(iris, None, AXES, seeds=3, steps=60, plan=PLAN)


@pytest.mark.full
def test_lanes_are_extended_from_a_directory_in_another_process(iris, folder, longer):
    opened = gdkit.open(folder, problem=iris, optimizer=OPTIMIZERS)
    assert_same_bits(opened.extend(60), longer)
    assert opened.replay(4).same
    assert_same_bits(opened.extend(50).extend(60), longer)


def test_the_same_call_finds_its_lanes_in_the_directory(iris, folder, longer):
    again = sweep(iris, None, AXES, seeds=3, steps=37, plan=PLAN, store=folder)
    assert again.origin.sweep.parts is None
    assert_same_bits(again.extend(60), longer)


def test_a_result_travels_to_another_process_as_its_numbers(iris, folder, longer):
    again = sweep(iris, None, AXES, seeds=3, steps=37, plan=PLAN, store=folder)
    restored = pickle.loads(pickle.dumps(again))
    assert_same_bits(restored, again)
    assert str(restored) == str(again)
    with pytest.raises(InputValueError, match=r"open one from disk by gdkit\.open"):
        restored.extend(60)
    assert_same_bits(again.extend(60), longer)


def test_a_file_lets_lanes_be_replayed_and_not_extended(iris, folder, tmp_path):
    gdkit.open(folder).save(tmp_path / "r.nc")
    opened = gdkit.open(tmp_path / "r.nc", problem=iris, optimizer=OPTIMIZERS)
    assert str(opened) == str(gdkit.open(folder))
    assert {n: type(v) for n, v in opened.lanes.attrs.items()} == {
        n: type(v) for n, v in gdkit.open(folder).lanes.attrs.items()
    }
    assert opened.replay(17).same
    with pytest.raises(InputValueError, match=r"its lanes.*too large to be kept, or another process ran them"):
        opened.extend(60)


@pytest.mark.full
def test_every_kind_of_axis_is_found_again(tmp_path):
    def quadratic(scale, power=2):
        return Problem(lambda x: scale * jnp.sum(jnp.abs(x) ** power), jnp.ones(2))

    pairs = gdkit.paired({"learning_rate": [0.1, 0.2, 0.3], "problem.scale": [1.0, 2.0, 1.0]})
    axes = [{"problem.power": static([2, 4]), "momentum": [0.1, 0.5]}, pairs]
    watched = [gdkit.monitors.time_to(0.5)]
    settings = {"steps": 7, "target": 1e-9, "diverged_above": 10.0, "curve_points": 5, "key": 3, "monitors": watched}
    whole = sweep(quadratic, sgd, axes, store=tmp_path, plan=Plan(width=2), **settings)
    opened = gdkit.open(tmp_path, problem=quadratic, optimizer=sgd, monitors=watched)
    assert opened.replay(0).same and opened.replay(11).same
    assert_same_bits(opened.extend(11), whole.extend(11))


def test_another_problem_is_refused_with_what_differs(iris, folder):
    other = problems.logistic_regression("wine", batch_size=16)
    with pytest.raises(OtherRunError, match="data"):
        gdkit.open(folder, problem=other, optimizer=OPTIMIZERS).replay(0)
    with pytest.raises(InputValueError, match=r"optimizer=.*not a mapping of the labels.*\['sgd', 'noisy'\]"):
        gdkit.open(folder, problem=iris, optimizer=sgd)
    with pytest.raises(InputValueError, match="optimizer=None: problem and optimizer belong together"):
        gdkit.open(folder, problem=iris)


def test_lanes_that_are_missing_or_damaged_start_again_and_large_ones_are_not_stored(iris, tmp_path):
    options = {"axes": {"learning_rate": RATES}, "steps": 20, "plan": PLAN}
    expected = sweep(iris, sgd, store=tmp_path / "a", **options).extend(30)
    files = sorted((tmp_path / "a" / "lanes").rglob("*.npz"))
    files[0].unlink()
    files[2].write_bytes(files[2].read_bytes()[:-100])
    begins = []

    def run_block(job, *arguments, **options):
        begins.append(job.first_step)
        return DEFAULT_SETTINGS.run_block(job, *arguments, **options)

    resumable = gdkit.open(tmp_path / "a", problem=iris, optimizer=sgd).origin.sweep
    settings = DEFAULT_SETTINGS._replace(run_block=run_block)
    with pytest.warns(GdkitWarning, match=f"{files[2].name}.*Its lanes start again from step 0"):
        extended, _ = run_request(resumable.request._replace(steps=30), resumed=resumable, settings=settings)
    assert_same_bits(extended, expected)
    assert sorted(begins) == [0, 0] + [20] * (len(files) - 2)
    for file in files:
        file.unlink(missing_ok=True)
    assert_same_bits(gdkit.open(tmp_path / "a", problem=iris, optimizer=sgd).extend(30), expected)
    settings = DEFAULT_SETTINGS._replace(stored_lane_bytes=100)
    run_sweep(iris, sgd, store=tmp_path / "b", settings=settings, **options)
    assert not list((tmp_path / "b" / "lanes").rglob("*.npz"))
    with pytest.raises(InputValueError, match="too large to be kept"):
        gdkit.open(tmp_path / "b", problem=iris, optimizer=sgd).extend(30)


@pytest.mark.full
def test_a_run_of_a_config_finds_its_code(tmp_path):
    config = tmp_path / "small.yaml"
    config.write_text(
        "name: small\nproblem: {name: mlp, data: iris, widths: [5], batch_size: 16}\noptimizer: {name: sgd}\n"
        "sweep: {axes: {learning_rate: [0.001, 0.01, 0.1, 1.0, 1000.0]}, seeds: 3, steps: 37}\n"
    )
    assert main(["run", str(config), "--output", str(tmp_path / "run")]) == 0
    opened = gdkit.open(tmp_path / "run")
    longer = opened.extend(60)
    assert set(np.unique(longer.lanes["end_step"])) >= {60}
    assert opened.replay(3).same
    assert Store.open(tmp_path / "run").manifest.plan["keeps_lanes"]


@pytest.fixture(scope="module")
def watched():
    """A problem, and monitors that report: one of the user, one that stops, one of the library."""
    problem = Problem(lambda w: jnp.sum(w**2), jnp.ones(2))
    largest = monitors.Monitor(
        lambda state: jnp.float32(0), lambda m, before, *_: jnp.maximum(m, before.params[0]), lambda m: {"largest": m}
    )
    return problem, [largest, monitors.patience("loss", checks=30), monitors.time_to(0.5)]


@pytest.fixture(scope="module")
def watched_run(watched, tmp_path_factory):
    problem, all_monitors = watched
    path = tmp_path_factory.mktemp("watched") / "run"
    axes = {"learning_rate": [0.1, 0.2, 0.3, 0.4]}
    sweep(problem, sgd, axes, steps=8, monitors=all_monitors, plan=Plan(width=1, tile=1), store=path)
    return path


@pytest.mark.parametrize(
    "missing, call",
    [
        ("largest", lambda result: result.extend(12)),
        ("patience_loss", lambda result: result.replay(0)),
        ("time_to_0.5", lambda result: result.refine("learning_rate")),
    ],
)
def test_monitors_that_the_run_had_are_asked_for_by_name(watched, watched_run, missing, call):
    problem, all_monitors = watched
    number = ["largest", "patience_loss", "time_to_0.5"].index(missing)
    opened = gdkit.open(
        watched_run, problem=problem, optimizer=sgd, monitors=[m for i, m in enumerate(all_monitors) if i != number]
    )
    with pytest.raises(InputValueError, match=rf"monitors=.* has {missing}, which none .*monitors=\[\.\.\.\]"):
        call(opened)
    assert float(opened.state(0).params[0]) == pytest.approx(0.8**8, rel=1e-5)


@pytest.mark.parametrize(
    "problem, optimizer",
    [
        (lambda problem: problem, optax.sign_sgd),
        (lambda problem: problem, optax.adam),
        (lambda problem: Problem(lambda w: jnp.sum(w**4), jnp.ones(2)), sgd),
    ],
)
def test_a_run_is_not_extended_by_what_computes_something_else(watched, watched_run, problem, optimizer):
    own, all_monitors = watched
    opened = gdkit.open(watched_run, problem=problem(own), optimizer=optimizer, monitors=all_monitors)
    with pytest.raises(OtherRunError, match=r"(?s)it holds another run.*computes.*Pass to gdkit\.open what"):
        opened.extend(12)


def test_files_of_lanes_that_cannot_be_read_are_one_warning(watched, watched_run, tmp_path):
    problem, all_monitors = watched
    shutil.copytree(watched_run, tmp_path / "run")
    for file in (tmp_path / "run" / "lanes").rglob("*.npz"):
        file.write_bytes(file.read_bytes()[:-100])
    opened = gdkit.open(tmp_path / "run", problem=problem, optimizer=sgd, monitors=all_monitors)
    with pytest.warns(GdkitWarning) as warned:
        longer = opened.extend(12)
    (text,) = [str(each.message) for each in warned]
    assert text.endswith("Its lanes start again from step 0, and so do those of 3 other files.")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_same_bits(
            longer, gdkit.open(watched_run, problem=problem, optimizer=sgd, monitors=all_monitors).extend(12)
        )


@pytest.mark.parametrize("call", [lambda r: r.extend(12), lambda r: r.replay(0), lambda r: r.refine("learning_rate")])
def test_states_are_read_in_an_environment_in_which_lanes_cannot_run_again(watched, watched_run, call, monkeypatch):
    problem, all_monitors = watched
    monkeypatch.setenv("XLA_FLAGS", os.environ.get("XLA_FLAGS", "") + " --xla_cpu_enable_fast_math=true")
    opened = gdkit.open(watched_run, problem=problem, optimizer=sgd, monitors=all_monitors)
    assert float(opened.state(1).params[0]) == pytest.approx(0.6**8, rel=1e-5)
    with pytest.raises(OtherRunError, match=r"(?s)xla_flags: .*under its XLA_FLAGS.*gdkit\.faster_cpu"):
        call(opened)
