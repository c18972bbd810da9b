"""A sweep in a run directory goes on where it was stopped, with the same bits, whoever goes on and however."""

import contextlib
import dataclasses
import json
import shutil
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gdkit
from gdkit import Plan, Problem, problems, sgd, sweep
from gdkit.app.command_line.status import describe_status
from gdkit.errors import GdkitWarning, OtherRunError
from gdkit.store import Store
from gdkit.sweeps.execution import block, threads
from gdkit.sweeps.execution.progress import Meter
from gdkit.sweeps.request import check_request
from gdkit.sweeps.rundir import archive, manifest
from gdkit.sweeps.sweep import run_request as run_checked

RATES = [1e-3, 1e-2, 0.1, 1.0, 1e3]
STEPS = 60


def noisy(learning_rate):  # its state holds a key
    return optax.noisy_sgd(learning_rate, key=gdkit.checks.as_key(3))


AXES = {"optimizer": {"sgd": sgd, "noisy": (noisy, {})}, "learning_rate": RATES}


@pytest.fixture(scope="module")
def iris():
    return problems.mlp("iris", widths=(5,), batch_size=16)


PLAN = Plan(width=2, depth=1, tile=2)


def run(problem, store=None, plan=PLAN):
    return sweep(problem, None, AXES, seeds=3, steps=STEPS, plan=plan, store=store)


@pytest.fixture(scope="module")
def straight(iris):
    return run(iris)


def assert_same_bits(a, b):
    assert set(a.lanes.data_vars) == set(b.lanes.data_vars)
    for name in a.lanes.variables:
        np.testing.assert_array_equal(a.lanes[name].values, b.lanes[name].values, err_msg=str(name))
        assert a.lanes[name].dtype == b.lanes[name].dtype


@pytest.fixture
def calls(monkeypatch):
    """Every block that was begun."""
    run_block, begun = threads.run_block, []

    def counted(job, block, *rest):
        begun.append((job.group, block.points[0], block.seeds[0]))
        return run_block(job, block, *rest)

    monkeypatch.setattr(threads, "run_block", counted)
    return begun


class StoppedError(Exception):
    pass


def interrupted(iris, folder, monkeypatch, after, **plan):
    """A run that an exception ends after so many segments are kept."""
    kept = [0]
    put = Store.put_carry

    def failing(self, *rest, **options):
        put(self, *rest, **options)
        kept[0] += 1
        if kept[0] >= after:
            raise StoppedError

    with monkeypatch.context() as patch:
        patch.setattr(Store, "put_carry", failing)
        with pytest.raises(StoppedError):
            run(iris, folder, Plan(width=2, depth=1, tile=2, **plan))


# The directory


def test_a_sweep_in_a_directory_equals_one_without(iris, straight, tmp_path, calls):
    result = run(iris, tmp_path / "run")
    assert_same_bits(result, straight)
    assert_same_bits(gdkit.open(tmp_path / "run"), straight)
    longer = result.extend(70)
    assert longer.missing == 0
    status = Store.open(tmp_path / "run").status(verify=True)
    assert (status.finished, status.missing, status.damaged, status.carries) == (status.tiles, 0, (), {})
    assert not Store.open(tmp_path / "run").claims()
    calls.clear()
    again = run(iris, tmp_path / "run", Plan(width=4, workers=1))  # the plan is that of the directory
    assert_same_bits(again, straight)
    assert not calls, "a finished tile is not run again"
    assert_same_bits(again.extend(70), longer)


def test_a_file_is_written_at_the_end(iris, tmp_path):
    result = sweep(problems.parabola(), sgd, {"learning_rate": [0.1, 0.2]}, steps=5, store=tmp_path / "r.nc")
    assert_same_bits(gdkit.open(tmp_path / "r.nc"), result)


def test_a_damaged_tile_is_said_and_computed_again(iris, straight, tmp_path, calls):
    run(iris, tmp_path)
    path = sorted(tmp_path.glob("tiles/*/*.npz"))[2]
    path.write_bytes(path.read_bytes()[:-100])
    calls.clear()
    with pytest.warns(GdkitWarning, match=rf"{path.name}.*It is computed again"):
        again = run(iris, tmp_path)
    assert_same_bits(again, straight)
    assert len(calls) == 2, "one tile of two blocks"


def bowl(scale=1.0, shift=None):
    shift = jnp.zeros(2) if shift is None else shift

    def loss(x, batch):
        # the same program, whatever this says
        return scale * jnp.sum((x - shift) ** 2) + 0 * jnp.sum(batch)

    return Problem(loss, jnp.ones(2), data=jnp.zeros(3))


def bowl_with_other_words(scale=1.0):
    shift = jnp.zeros(2)

    def loss(x, batch):
        """Otherwise commented, and in other lines."""
        inside = (x - shift) ** 2

        # a comment
        return scale * jnp.sum(inside) + 0 * jnp.sum(batch)

    return Problem(loss, jnp.ones(2), data=jnp.zeros(3))


def small(problem, folder, rates=(0.1, 0.2), **options):
    return sweep(problem, sgd, {"learning_rate": list(rates)}, **({"steps": 5} | options), store=folder)


def test_a_changed_comment_changes_nothing_and_all_else_is_named(tmp_path):
    small(bowl(), tmp_path)
    small(bowl_with_other_words(), tmp_path)
    changed = {
        r"program of group 0: hash \w{10}… in this directory, hash \w{10}… now\n  What the loss": lambda: small(
            bowl(2.0), tmp_path
        ),
        r"another run:\n  program of group 0": lambda: small(bowl(shift=jnp.array([0.0, 1.0])), tmp_path),
        "data: hash": lambda: small(dataclasses.replace(bowl(), data=jnp.ones(3)), tmp_path),
        "steps: 5 in this directory, 6 now": lambda: small(bowl(), tmp_path, steps=6),
        "seeds: 1 in": lambda: small(bowl(), tmp_path, seeds=2),
        r"key: '.*\[0, 0\]' in this directory, '.*\[0, 1\]' now": lambda: small(bowl(), tmp_path, key=1),
        "learning_rate: '2 values, 0.1 to 0.2": lambda: small(bowl(), tmp_path, (0.1, 0.3)),
        "target: null in this directory, 0.5 now": lambda: small(bowl(), tmp_path, target=0.5),
        "curve_points: 200 in": lambda: small(bowl(), tmp_path, curve_points=3),
    }
    for said, call in changed.items():
        alike = pytest.warns(GdkitWarning, match="seeds=2") if "seeds" in said else contextlib.nullcontext()
        with alike, pytest.raises(OtherRunError, match=said):
            call()


# Going on


@pytest.mark.parametrize(
    ("after", "first", "then"),
    [
        (1, {"segment": 7, "workers": 1}, {"segment": 25, "workers": 2}),
        (9, {"segment": 7, "workers": 2}, {"segment": 3, "workers": 1}),
        (20, {"segment": 7, "workers": 2}, {"workers": 2}),
    ],
)
def test_a_stopped_run_goes_on_with_the_same_bits(iris, straight, tmp_path, monkeypatch, calls, after, first, then):
    interrupted(iris, tmp_path, monkeypatch, after, **first)
    partial = gdkit.open(tmp_path)
    there = Store.open(tmp_path)
    finished, carries = there.finished(), list(there.carries())
    assert carries and not finished.all()
    assert max(there.step(block) for block in carries) >= 7
    assert partial.missing == partial.lanes.sizes["lane"] - there.status().lanes_done
    calls.clear()
    result = run(iris, tmp_path, Plan(**then))
    assert_same_bits(result, straight)
    blocks = there.partition.blocks_of
    assert len(calls) == sum(len(blocks(tile)) for tile in np.flatnonzero(~finished))
    assert not list(there.carries()), "a finished tile needs none"


def test_lanes_go_on_from_where_they_were_kept(iris, tmp_path, monkeypatch):
    interrupted(iris, tmp_path, monkeypatch, 3, segment=7, workers=1)
    there = Store.open(tmp_path)
    steps = {block: there.step(block) for block in there.carries()}
    load, begun = archive.RunArchive._carry, {}

    def watched(self, job, device, number):
        found = load(self, job, device, number)
        begun[number] = None if found is None else int(found.t)
        return found

    monkeypatch.setattr(archive.RunArchive, "_carry", watched)
    run(iris, tmp_path)
    assert {block: step for block, step in begun.items() if step is not None} == steps
    assert max(steps.values()) == 21, "three segments of seven steps"


def test_what_short_segments_reached_is_kept_as_the_run_stops_and_not_before(iris, straight, tmp_path, monkeypatch):
    put, kept, stop = Store.put_carry, [], threading.Event()

    def noted(self, block, step, leaves, *, last=False):
        put(self, block, step, leaves, last=last)
        if not last:
            kept.append(step)

    monkeypatch.setattr(Store, "put_carry", noted)
    monkeypatch.setattr(block, "_fitting", lambda program, seconds: 7)
    monkeypatch.setattr(block, "_KEPT_SECONDS", 1e6)
    monkeypatch.setattr(Meter.__init__, "__defaults__", (0.0,))
    request = check_request(iris, None, AXES, seeds=3, steps=STEPS, plan=Plan(width=2, depth=1, workers=1))
    run_checked(request, where=manifest.RunDirectory(tmp_path / "whole"))
    assert kept == []
    run_checked(request, lambda p: p.done and stop.set(), where=manifest.RunDirectory(tmp_path / "stopped"), stop=stop)
    assert kept == [7]
    assert_same_bits(run(iris, tmp_path / "stopped"), straight)


def test_a_damaged_carry_starts_anew(iris, straight, tmp_path, monkeypatch):
    interrupted(iris, tmp_path, monkeypatch, 2, segment=7, workers=1)
    for path in tmp_path.glob("carry/*/*.npz"):
        path.write_bytes(path.read_bytes()[:-100])
    with pytest.warns(GdkitWarning, match="Its lanes start anew"):
        assert_same_bits(run(iris, tmp_path), straight)


def test_blocks_that_ran_out_of_memory_are_stored_with_the_others(iris, straight, tmp_path, monkeypatch):
    run_block = threads.run_block

    def small(job, *rest):
        if job.lanes_per_block > 1:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes.")
        return run_block(job, *rest)

    monkeypatch.setattr(threads, "run_block", small)
    result = run(iris, tmp_path)
    np.testing.assert_allclose(result.lanes["final_loss"], straight.lanes["final_loss"], rtol=1e-3)
    assert result.missing == 0
    tiles = Store.open(tmp_path).partition.tiles
    assert Store.open(tmp_path).status().narrower == tuple(range(tiles))
    assert f"ran out of memory: {tiles} tiles (0, 1, 2, " in describe_status(tmp_path)
    said = {str(tile): [[1, 1]] for tile in range(tiles)}
    assert json.loads(result.lanes.attrs["narrower"]) == said
    assert json.loads(gdkit.open(tmp_path).lanes.attrs["narrower"]) == said


def test_a_run_that_is_asked_to_stop_keeps_what_it_has(iris, straight, tmp_path, monkeypatch):
    stop, put = threading.Event(), Store.put_carry
    monkeypatch.setattr(Store, "put_carry", lambda *a, **k: (put(*a, **k), stop.set()))
    request = check_request(iris, None, AXES, seeds=3, steps=STEPS, plan=Plan(width=2, depth=1, segment=7))
    result, kept = run_checked(request, where=manifest.RunDirectory(tmp_path), stop=stop)
    assert kept is None
    assert result.missing > 0
    assert list(Store.open(tmp_path).carries())
    assert_same_bits(run(iris, tmp_path), straight)


def test_what_others_finish_meanwhile_counts_in_the_end(iris, tmp_path, monkeypatch):
    run(iris, tmp_path / "theirs")
    first, claim, told = Path("tiles", "0000", "0000000.npz"), Store.claim, []

    def claimed(self, tile, *rest):
        if tile:
            return claim(self, tile, *rest)
        (self.path / first).parent.mkdir(exist_ok=True)
        shutil.copy(tmp_path / "theirs" / first, self.path / first)
        return False

    monkeypatch.setattr(Store, "claim", claimed)
    monkeypatch.setattr(threads, "_PATIENCE", 0.01)
    result = sweep(iris, None, AXES, seeds=3, steps=STEPS, plan=PLAN, store=tmp_path / "ours", progress=told.append)
    assert result.missing == 0
    assert (told[-1].lanes_done, told[-1].done) == (told[-1].lanes, told[-1].total)


# Unfinished results


def test_questions_are_asked_of_what_is_there(tmp_path, monkeypatch):
    rates = {"learning_rate": np.geomspace(0.01, 10, 8)}
    write = Store.write_tile
    some = lambda self, tile, *rest: None if tile in (2, 5) else write(self, tile, *rest)
    monkeypatch.setattr(Store, "write_tile", some)
    plan = Plan(width=1, tile=1)
    whole = sweep(problems.parabola(), sgd, rates, steps=50, plan=plan)
    part = sweep(problems.parabola(), sgd, rates, steps=50, plan=plan, store=tmp_path)
    assert (part.missing, whole.missing) == (2, 0)
    there = part.lanes["end_kind"].values != 0
    assert list(np.flatnonzero(~there)) == [2, 5]
    assert np.isnan(part.lanes["final_loss"].values[~there]).all()
    assert not (part.lane_regimes[~there] == gdkit.Regime.DIVERGED).any()
    np.testing.assert_array_equal(part.lane_regimes[there], whole.lane_regimes[there])
    low, high = (float(part.edge()[name].squeeze()) for name in ("low", "high"))
    assert low in rates["learning_rate"][there] and high in rates["learning_rate"][there] and low < 1 <= high
    assert part.best().hyperparameters["learning_rate"] in rates["learning_rate"][there]
    assert any("2 runs not finished yet" in text for text in part.recommend().caveats)
    assert "2 not finished" in str(part).splitlines()[1]


# Tiles


def test_tiles_take_about_a_second_and_every_process_has_some(tmp_path, monkeypatch):
    folders = (tmp_path / str(number) for number in range(9))

    def tiles(seconds, **where):  # that a step of a lane takes
        monkeypatch.setattr(manifest.timing, "measure_pace", lambda job, workers: seconds)
        rates, folder = {"learning_rate": np.geomspace(0.01, 1, 64)}, next(folders)
        request = check_request(problems.parabola(), sgd, rates, steps=5, plan=Plan(width=1, workers=2))
        run_checked(request, where=manifest.RunDirectory(folder, **where))
        return Store.open(folder).partition.tiles

    assert (tiles(1e-9), tiles(1.0), tiles(0.025)) == (4, 64, 16)  # two threads share a tile
    assert tiles(1e-9, shard=(0, 2)) == 8
