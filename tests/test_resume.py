"""An interrupted sweep in a run directory resumes with the same bits, whatever resumes it and however."""

import contextlib
import dataclasses
import json
import shutil
import threading
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from shared import RecordingRunBlock, assert_same_bits, fail_for_memory, quick, run_sweep

import gdkit
from gdkit import Plan, Problem, problems, sgd, sweep
from gdkit.app.cli.status import describe_status
from gdkit.errors import GdkitWarning, OtherRunError
from gdkit.store import Store
from gdkit.sweeps.execution.block import SegmentSettings
from gdkit.sweeps.execution.settings import DEFAULT_SETTINGS
from gdkit.sweeps.programs.timing import seconds_per_step

RATES = [1e-3, 1e-2, 0.1, 1.0, 1e3]
STEPS = 60


def noisy(learning_rate):  # its state holds a key
    return optax.noisy_sgd(learning_rate, key=gdkit.checks.as_key(3))


AXES = {"optimizer": {"sgd": sgd, "noisy": (noisy, {})}, "learning_rate": RATES}


@pytest.fixture(scope="module")
def iris():
    return problems.logistic_regression("iris", batch_size=16)


PLAN = Plan(width=2, depth=1, tile=2)


def run(problem, store=None, plan=PLAN, *, progress=None, stop=None, **settings):
    options = {"seeds": 3, "steps": STEPS, "plan": plan, "store": store, "progress": progress, "stop": stop}
    return run_sweep(problem, None, AXES, **options, settings=DEFAULT_SETTINGS._replace(**settings))


@pytest.fixture(scope="module")
def straight(iris):
    return run(iris)


class InterruptError(Exception):
    pass


def interrupt(iris, folder, after, **plan):
    """A run that an exception ends once so many checkpoints are written."""
    written = []

    class InterruptingStore(Store):
        def put_carry(self, *arguments, last=False):
            super().put_carry(*arguments, last=last)
            written.extend([] if last else [arguments])
            if len(written) >= after:
                raise InterruptError

    with pytest.raises(InterruptError):
        run(iris, folder, Plan(width=2, depth=1, tile=2, **plan), store_class=InterruptingStore)


# The directory


def test_a_sweep_in_a_directory_equals_one_without(iris, straight, tmp_path):
    result = run(iris, tmp_path / "run")
    assert_same_bits(result, straight)
    assert_same_bits(gdkit.open(tmp_path / "run"), straight)
    longer = result.extend(70)
    assert longer.missing == 0
    status = Store.open(tmp_path / "run").status(verify=True)
    assert (status.finished, status.missing, status.damaged, status.carries) == (status.tiles, 0, (), {})
    assert not Store.open(tmp_path / "run").claims()
    recording = RecordingRunBlock()
    again = run(iris, tmp_path / "run", Plan(width=4, workers=1), run_block=recording)  # with the directory's plan
    assert_same_bits(again, straight)
    assert not recording.blocks, "a finished tile is not run again"
    assert_same_bits(again.extend(70), longer)


def test_a_file_is_written_at_the_end(iris, tmp_path):
    result = sweep(problems.parabola(), sgd, {"learning_rate": [0.1, 0.2]}, steps=5, store=tmp_path / "r.nc")
    assert_same_bits(gdkit.open(tmp_path / "r.nc"), result)


def test_a_damaged_tile_is_named_and_computed_again(iris, straight, tmp_path):
    run(iris, tmp_path)
    path = sorted(tmp_path.glob("tiles/*/*.npz"))[2]
    path.write_bytes(path.read_bytes()[:-100])
    recording = RecordingRunBlock()
    with pytest.warns(GdkitWarning, match=rf"{path.name}.*It is computed again"):
        again = run(iris, tmp_path, run_block=recording)
    assert_same_bits(again, straight)
    assert len(recording.blocks) == 2, "one tile of two blocks"


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
    problem = bowl()
    small(problem, tmp_path)
    small(bowl_with_other_words(), tmp_path)
    changed = {
        r"program of group 0: hash \w{10}… in this directory, hash \w{10}… now\n  What the loss": lambda: small(
            bowl(2.0), tmp_path
        ),
        r"another run:\n  program of group 0": lambda: small(bowl(shift=jnp.array([0.0, 1.0])), tmp_path),
        "data: hash": lambda: small(dataclasses.replace(problem, data=jnp.ones(3)), tmp_path),
        "steps: 5 in this directory, 6 now": lambda: small(problem, tmp_path, steps=6),
        "seeds: 1 in": lambda: small(problem, tmp_path, seeds=2),
        r"key: '.*\[0, 0\]' in this directory, '.*\[0, 1\]' now": lambda: small(problem, tmp_path, key=1),
        "learning_rate: '2 values, 0.1 to 0.2": lambda: small(problem, tmp_path, (0.1, 0.3)),
        "target: null in this directory, 0.5 now": lambda: small(problem, tmp_path, target=0.5),
        "curve_points: 200 in": lambda: small(problem, tmp_path, curve_points=3),
    }
    for said, call in changed.items():
        alike = pytest.warns(GdkitWarning, match="seeds=2") if "seeds" in said else contextlib.nullcontext()
        with alike, pytest.raises(OtherRunError, match=said):
            call()


# Resuming


@pytest.mark.parametrize(
    ("after", "first", "then"),
    [
        (9, {"segment": 7, "workers": 2}, {"segment": 3, "workers": 1}),
        *quick(
            [
                (1, {"segment": 7, "workers": 1}, {"segment": 25, "workers": 2}),
                (20, {"segment": 7, "workers": 2}, {"workers": 2}),
            ]
        ),
    ],
)
def test_an_interrupted_run_resumes_with_the_same_bits(iris, straight, tmp_path, after, first, then):
    interrupt(iris, tmp_path, after, **first)
    partial = gdkit.open(tmp_path)
    there = Store.open(tmp_path)
    finished, carries = there.finished(), list(there.carries())
    assert carries and not finished.all()
    assert max(there.step(block) for block in carries) >= 7
    assert partial.missing == partial.lanes.sizes["lane"] - there.status().lanes_done
    recording = RecordingRunBlock()
    result = run(iris, tmp_path, Plan(**then), run_block=recording)
    assert_same_bits(result, straight)
    blocks = there.partition.blocks_of
    assert len(recording.blocks) == sum(len(blocks(tile)) for tile in np.flatnonzero(~finished))
    assert not list(there.carries()), "a finished tile needs none"


def test_lanes_resume_from_their_checkpoints(iris, tmp_path):
    interrupt(iris, tmp_path, 3, segment=7, workers=1)
    there, loaded = Store.open(tmp_path), {}
    steps = {block: there.step(block) for block in there.carries()}

    class RecordingStore(Store):
        def carry(self, block, like=None, *, last=False):
            stored = super().carry(block, like, last=last)
            loaded[block] = stored.step
            return stored

    run(iris, tmp_path, store_class=RecordingStore)
    assert loaded == steps
    assert max(steps.values()) == 21, "three segments of seven steps"


@pytest.mark.full
def test_short_segments_are_saved_when_the_run_is_interrupted_and_not_before(iris, straight, tmp_path):
    saved, stop = [], threading.Event()

    class RecordingStore(Store):
        def put_carry(self, block, step, leaves, *, last=False):
            super().put_carry(block, step, leaves, last=last)
            if not last:
                saved.append(step)

    segments = SegmentSettings(first_steps=7, checkpoint_seconds=1e6)
    seconds_per_step.clear()  # so that the first segment of a program has `first_steps`
    unmeasured = lambda job, workers: 1.0  # planning measures no speed
    settings = {"store_class": RecordingStore, "segments": segments, "progress_seconds": 0.0}
    settings["seconds_per_lane_step"] = unmeasured
    plan = Plan(width=2, depth=1, workers=1)
    run(iris, tmp_path / "whole", plan, **settings)
    assert saved == []
    seconds_per_step.clear()
    interrupt_soon = lambda progress: progress.done and stop.set()
    run(iris, tmp_path / "interrupted", plan, progress=interrupt_soon, stop=stop, **settings)
    assert saved == [7]
    assert_same_bits(run(iris, tmp_path / "interrupted"), straight)


@pytest.mark.full
def test_the_lanes_of_a_damaged_checkpoint_start_again(iris, straight, tmp_path):
    interrupt(iris, tmp_path, 2, segment=7, workers=1)
    for path in tmp_path.glob("carry/*/*.npz"):
        path.write_bytes(path.read_bytes()[:-100])
    with pytest.warns(GdkitWarning, match="Its lanes start again from step 0"):
        assert_same_bits(run(iris, tmp_path), straight)


@pytest.mark.full
def test_blocks_that_ran_out_of_memory_are_stored_with_the_others(iris, straight, tmp_path):
    fail = lambda job, block: fail_for_memory() if job.lanes_per_block > 1 else None
    result = run(iris, tmp_path, run_block=RecordingRunBlock(fail))
    np.testing.assert_allclose(result.lanes["final_loss"], straight.lanes["final_loss"], rtol=1e-3)
    assert result.missing == 0
    tiles = Store.open(tmp_path).partition.tiles
    assert Store.open(tmp_path).status().narrower == tuple(range(tiles))
    assert f"ran out of memory: {tiles} tiles (0, 1, 2, " in describe_status(tmp_path)
    said = {str(tile): [[1, 1]] for tile in range(tiles)}
    assert json.loads(result.lanes.attrs["narrower"]) == said
    assert json.loads(gdkit.open(tmp_path).lanes.attrs["narrower"]) == said


def test_an_interrupted_run_keeps_its_checkpoints(iris, straight, tmp_path):
    stop = threading.Event()

    class StoppingStore(Store):
        def put_carry(self, *arguments, last=False):
            super().put_carry(*arguments, last=last)
            if not last:  # blocks that ran while programs were compiled may be finished
                stop.set()

    result = run(iris, tmp_path, Plan(width=2, depth=1, segment=7), stop=stop, store_class=StoppingStore)
    assert result.origin is None
    assert result.missing > 0
    assert list(Store.open(tmp_path).carries())
    assert_same_bits(run(iris, tmp_path), straight)


@pytest.mark.full
def test_progress_counts_what_other_processes_finish(iris, tmp_path):
    run(iris, tmp_path / "theirs")
    first, reports = Path("tiles", "0000", "0000000.npz"), []

    class RefusingStore(Store):
        def claim(self, tile, *rest):
            if tile:
                return super().claim(tile, *rest)
            (self.path / first).parent.mkdir(exist_ok=True)
            shutil.copy(tmp_path / "theirs" / first, self.path / first)
            return False

    settings = {"store_class": RefusingStore, "claim_poll_seconds": 0.01}
    result = run(iris, tmp_path / "ours", progress=reports.append, **settings)
    assert result.missing == 0
    assert (reports[-1].lanes_done, reports[-1].done) == (reports[-1].lanes, reports[-1].total)


# Unfinished results


def test_the_views_of_a_partial_result_ignore_missing_lanes(tmp_path):
    rates = {"learning_rate": np.geomspace(0.01, 10, 8)}

    class ForgettingStore(Store):
        def write_tile(self, tile, *rest):
            return None if tile in (2, 5) else super().write_tile(tile, *rest)

    plan, settings = Plan(width=1, tile=1), DEFAULT_SETTINGS._replace(store_class=ForgettingStore)
    whole = sweep(problems.parabola(), sgd, rates, steps=50, plan=plan)
    part = run_sweep(problems.parabola(), sgd, rates, steps=50, plan=plan, store=tmp_path, settings=settings)
    assert (part.missing, whole.missing) == (2, 0)
    there = part.lanes["end_kind"].values != 0
    assert list(np.flatnonzero(~there)) == [2, 5]
    assert np.isnan(part.lanes["final_loss"].values[~there]).all()
    assert not (part.lane_regimes[~there] == gdkit.Regime.DIVERGED).any()
    np.testing.assert_array_equal(part.lane_regimes[there], whole.lane_regimes[there])
    low, high = (float(part.edge()[name].squeeze()) for name in ("low", "high"))
    assert low in rates["learning_rate"][there] and high in rates["learning_rate"][there] and low < 1 <= high
    assert part.best().hyperparameters["learning_rate"] in rates["learning_rate"][there]
    assert any("2 of 8 runs not finished yet" in text for text in part.recommend().caveats)
    assert "2 not finished" in str(part).splitlines()[1]


# Tiles


@pytest.mark.full
def test_tiles_take_about_a_second_and_every_process_has_some(tmp_path):
    folders = (tmp_path / str(number) for number in range(9))

    def tiles(seconds, shard=(0, 1)):
        settings = DEFAULT_SETTINGS._replace(seconds_per_lane_step=lambda job, workers: seconds)
        rates, folder = {"learning_rate": np.geomspace(0.01, 1, 64)}, next(folders)
        options = {"steps": 5, "plan": Plan(width=1, workers=2), "store": folder, "shard": shard}
        run_sweep(problems.parabola(), sgd, rates, **options, settings=settings)
        return Store.open(folder).partition.tiles

    assert (tiles(1e-9), tiles(1.0), tiles(0.025)) == (4, 64, 16)  # two threads share a tile
    assert tiles(1e-9, shard=(0, 2)) == 8
