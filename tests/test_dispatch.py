"""Tiles while they run: workers share the blocks of one, and the worker that finishes the last block writes it."""

import dataclasses
import threading

import numpy as np
import pytest
from shared import RecordingRunBlock, assert_same_bits, fail_for_memory, run_sweep

from gdkit import Plan, problems, sgd, sweep
from gdkit.store import Store
from gdkit.sweeps.execution.settings import DEFAULT_SETTINGS

RATES = np.geomspace(0.01, 1.2, 12)
PLAN = Plan(width=1, depth=1, tile=6, workers=2)


@pytest.fixture(scope="module")
def straight():
    return run()


def run(plan=PLAN, store=None, stop=None, **settings):
    settings = DEFAULT_SETTINGS._replace(**settings)
    axes = {"learning_rate": RATES}
    return run_sweep(problems.parabola(), sgd, axes, steps=30, plan=plan, store=store, stop=stop, settings=settings)


def no_threads_left():
    return not [t for t in threading.enumerate() if t.name.startswith("gdkit")]


def test_workers_share_the_blocks_of_a_tile_and_it_is_written_once(straight, tmp_path):
    both, written = threading.Barrier(2), []  # no worker runs a block without the other
    recording = RecordingRunBlock(lambda *_: both.wait(30))

    class RecordingStore(Store):
        def write_tile(self, tile, *rest):
            written.append(tile)
            return super().write_tile(tile, *rest)

    assert_same_bits(run(store=tmp_path, run_block=recording, store_class=RecordingStore), straight)
    assert sorted(written) == [0, 1]
    for tile in (range(6), range(6, 12)):
        workers = [thread for thread, point, _ in recording.blocks if point in tile]
        assert len(workers) == 6 and len(set(workers)) == 2


@pytest.mark.parametrize("directory", [False, True])
def test_of_a_tile_only_blocks_that_lacked_memory_run_again(directory, tmp_path):
    def fail(job, block):
        if job.lanes_per_block == 4 and block.points[0] == 4:
            fail_for_memory()

    recording = RecordingRunBlock(fail)
    plan = Plan(width=4, depth=1, tile=3, workers=2)
    result = run(plan, store=tmp_path if directory else None, run_block=recording)
    assert sorted(point for _, point, _ in recording.blocks) == [0, 4, 6, 8]
    whole = run(plan=Plan(width=2))
    np.testing.assert_allclose(result.lanes["min_loss"], whole.lanes["min_loss"], rtol=1e-5)
    np.testing.assert_array_equal(result.lanes["learning_rate"], whole.lanes["learning_rate"])


def test_another_error_in_a_block_ends_all_at_once():
    def fail(job, block):
        if block.points[0] == 1:
            raise RuntimeError("a block broke")

    with pytest.raises(RuntimeError, match="a block broke"):
        run(run_block=RecordingRunBlock(fail))
    assert no_threads_left()


@pytest.mark.parametrize("method", ["claim", "write_tile", "name_tile"])
def test_an_error_of_the_archive_reaches_the_caller(method, tmp_path):
    def fail(*_):
        raise OSError("no room")

    failing = type("FailingStore", (Store,), {method: fail})
    with pytest.raises(OSError, match="no room"):
        run(store=tmp_path, store_class=failing)
    assert no_threads_left()


def test_a_tile_that_is_stopped_between_its_blocks_is_not_written(straight, tmp_path):
    stop = threading.Event()

    def run_and_stop(job, block, **options):
        finished = DEFAULT_SETTINGS.run_block(job, block, **options)
        if block.points[0] == 3:
            stop.set()
        return finished

    one_worker = dataclasses.replace(PLAN, workers=1)
    result = run(one_worker, store=tmp_path, stop=stop, run_block=run_and_stop)
    assert result.missing == len(RATES) and not Store.open(tmp_path).finished().any()
    assert_same_bits(sweep(problems.parabola(), sgd, {"learning_rate": RATES}, steps=30, store=tmp_path), straight)


def test_a_tile_that_another_process_works_on_comes_last(tmp_path, straight):
    refused, recording = [], RecordingRunBlock()

    class RefusingStore(Store):
        def claim(self, tile, *rest):
            if tile == 0 and not refused:
                refused.append(tile)
                return False
            return super().claim(tile, *rest)

    result = run(store=tmp_path, run_block=recording, store_class=RefusingStore, claim_poll_seconds=0.01)
    assert_same_bits(result, straight)
    assert refused == [0] and {point for _, point, _ in recording.blocks[:6]} == set(range(6, 12))
