"""The same command on a finished run: it compiles and draws nothing, and notices what has changed."""

import functools
import os
import sys
from collections import Counter
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gdkit
from gdkit.app.cli import main
from gdkit.app.run.hooks import Hooks
from gdkit.app.run.outputs import write_report
from gdkit.errors import OtherRunError
from gdkit.sweeps.programs.groups import hash_lane, trace_groups
from gdkit.sweeps.request import check_request

CONFIG = """
name: mine
problem: {use: "mine_problem:bowl"}
optimizer: {name: sgd, momentum: 0.1}
sweep: {axes: {learning_rate: [0.1, 0.3, 2.5]}, seeds: 2, steps: 12}
"""
PROBLEM = """
import jax, jax.numpy as jnp
from gdkit import Problem

def bowl():
    rows = jnp.linspace(0.5, 2.0, 8)
    return Problem(lambda w, batch: jnp.mean(batch * w**2){more}, lambda key: jax.random.normal(key, (2,))[0],
                   data=rows{scale}, sample=lambda key, t, data: jax.random.choice(key, data, (3,)),
                   validation=rows)
"""
UNDRAWN = Hooks(write_report=functools.partial(write_report, draw=lambda *_: []))
COMPILED = Counter()


@pytest.fixture(scope="module", autouse=True)
def _count_compiled_programs():
    count = lambda event, seconds, **_: COMPILED.update([event])
    jax.monitoring.register_event_duration_secs_listener(count)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    Path("mine.yaml").write_text(CONFIG)
    return tmp_path


def run(monkeypatch, capsys, *words, more="", scale="", hooks=None):
    """Exit code, answer and messages of one command, with a problem that is imported anew; and programs compiled."""
    Path("mine_problem.py").write_text(PROBLEM.format(more=more, scale=scale))
    monkeypatch.delitem(sys.modules, "mine_problem", raising=False)
    before = COMPILED["/jax/core/compile/backend_compile_duration"]
    code = main(["run", "mine.yaml", *words], hooks)
    shown = capsys.readouterr()
    return code, shown.out, shown.err, COMPILED["/jax/core/compile/backend_compile_duration"] - before


def outputs(path=Path("runs/mine")):
    files = [path / "report.html", path / "results.nc", *sorted(path.glob("figures/*"))]
    return {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in files}


def test_a_finished_run_compiles_nothing_writes_nothing_and_answers_alike(folder, monkeypatch, capsys):
    code, answer, said, compiled = run(monkeypatch, capsys)
    assert code == 0 and compiled > 2, said
    before, lanes = outputs(), gdkit.open("runs/mine").lanes
    code, again, said, compiled = run(monkeypatch, capsys)
    assert (code, again) == (0, answer) and "already finished" in said
    assert compiled <= 2  # of the traced start, not of programs
    assert outputs() == before and len(before) >= 4
    assert gdkit.open("runs/mine").lanes.identical(lanes)

    # Outputs that are damaged or missing are written again, as they were
    cut, flip, files = (lambda x: x[: len(x) // 2]), (lambda x: x.replace(b"e", b"f", 1)), list(before)
    report, results, png, svg = files[:4]
    for damages in ({report: cut, results: flip}, {png: flip, svg: None}):
        for file, damage in damages.items():
            file.write_bytes(damage(before[file][1])) if damage else file.unlink()
        assert run(monkeypatch, capsys)[:2] == (0, answer)
        assert all(file.read_bytes() == before[file][1] for file in files if file != results)
        assert gdkit.open("runs/mine").lanes.equals(lanes)

    # A process that was killed before it stored the time of the run
    (timings := Path("runs/mine/timings.npz")).unlink()
    results.unlink()
    assert run(monkeypatch, capsys, hooks=UNDRAWN)[0] == 0 and timings.is_file()

    # A damaged tile is computed again, with the same bits
    tile = next(path for path in sorted(Path("runs/mine/tiles").rglob("*")) if path.is_file())
    os.truncate(tile, tile.stat().st_size // 2)
    results.unlink()
    code, again, said, _ = run(monkeypatch, capsys, hooks=UNDRAWN)
    after_time = answer.index(" on cpu")
    assert code == 0 and again.endswith(answer[after_time:]) and "It is computed again" in said
    assert gdkit.open("runs/mine").lanes.equals(lanes)


@pytest.mark.parametrize(
    ("changes", "words", "expected"),
    [
        ({"more": " + 1e-3 * w"}, (), "program of group 0"),
        ({"scale": " * 2"}, (), "data"),
        ({}, ("sweep.steps=13",), "sweep.steps is 12 there and 13 here"),
    ],
)
def test_a_finished_run_of_another_loss_other_data_or_another_config_is_refused(
    folder, monkeypatch, capsys, changes, words, expected
):
    assert run(monkeypatch, capsys, hooks=UNDRAWN)[0] == 0
    before = outputs()
    code, _, said, _ = run(monkeypatch, capsys, *words, hooks=UNDRAWN, **changes)
    assert code == 2 and expected in said
    assert outputs() == before


def test_a_sweep_that_is_finished_is_read_and_can_be_extended(tmp_path):
    problem, axes = gdkit.problems.parabola(), {"learning_rate": [0.1, 0.2, 0.9]}
    first = gdkit.sweep(problem, gdkit.sgd, axes, steps=10, store=tmp_path / "run")
    before = COMPILED["/jax/core/compile/backend_compile_duration"]
    again = gdkit.sweep(problem, lambda learning_rate: gdkit.sgd(learning_rate), axes, steps=10, store=tmp_path / "run")
    assert COMPILED["/jax/core/compile/backend_compile_duration"] - before <= 2
    assert again.lanes.equals(first.lanes)
    longer = gdkit.sweep(problem, gdkit.sgd, axes, steps=15)
    np.testing.assert_array_equal(again.extend(15).lanes["final_loss"], longer.lanes["final_loss"])


def test_a_lane_is_traced_once_and_has_another_hash_where_it_computes_something_else():
    traced = []

    def loss(x):
        traced.append(x)
        return jnp.sum(x**2)

    problem = gdkit.Problem(loss, jnp.ones(2))

    def hash_of(optimizer=gdkit.sgd, rates=(0.1, 0.2), steps=10, **options):
        request = check_request(problem, optimizer, {"learning_rate": list(rates)}, steps=steps, **options)
        (group,) = trace_groups(request)
        return hash_lane(request, group)

    first, count = hash_of(), len(traced)
    assert hash_of() == hash_of(rates=(0.3, 0.4, 0.5)) == first and len(traced) == count
    momentum = lambda learning_rate: gdkit.sgd(learning_rate, momentum=0.9)
    others = [
        hash_of(steps=11),
        hash_of(optax.adam),
        hash_of(momentum),
        hash_of(statistics="ends"),
        hash_of(monitors=[gdkit.monitors.time_to(0.1)]),
    ]
    assert len({first, *others}) == 6
    with jax.enable_x64(True):
        assert hash_of() not in (first, *others)


def test_a_loss_that_has_changed_is_noticed_when_its_run_is_opened_and_extended(tmp_path):
    settings = {"scale": 1.0}
    problem = gdkit.Problem(lambda x: settings["scale"] * jnp.sum(x**2), jnp.ones(2))
    gdkit.sweep(problem, gdkit.sgd, {"learning_rate": [0.1, 0.2]}, steps=10, store=tmp_path / "run")
    settings["scale"] = 3.0
    with pytest.raises(OtherRunError):
        gdkit.open(tmp_path / "run", problem=problem, optimizer=gdkit.sgd).extend(12)


def test_equal_static_values_of_different_types_have_programs_of_their_own():
    def factory(learning_rate, kind):
        return gdkit.sgd(learning_rate * (2.0 if kind is True else 1.0))

    run = lambda kind: gdkit.sweep(
        gdkit.problems.parabola(), factory, {"learning_rate": [0.1], "kind": gdkit.static([kind])}, steps=3
    )
    once, twice = (run(kind).lanes["final_loss"].item() for kind in (1, True))
    np.testing.assert_allclose([once, twice], [9 * 0.8**6, 9 * 0.6**6], rtol=1e-5)
