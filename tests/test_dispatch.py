"""Tiles on their way: workers share the blocks of one, and whoever runs the last hands it in."""

import dataclasses
import threading

import jax
import numpy as np
import pytest

from gdkit import Plan, problems, sgd, sweep
from gdkit.store import Store
from gdkit.sweeps.execution import threads
from gdkit.sweeps.request import check_request
from gdkit.sweeps.rundir.manifest import RunDirectory
from gdkit.sweeps.sweep import run_request as run_checked

RATES = np.geomspace(0.01, 1.2, 12)
PLAN = Plan(width=1, depth=1, tile=6, workers=2)


@pytest.fixture(scope="module")
def straight():
    return run()


def run(plan=PLAN, **options):
    return sweep(problems.parabola(), sgd, {"learning_rate": RATES}, steps=30, plan=plan, **options)


def assert_same_bits(a, b):
    for name in a.lanes.data_vars:
        np.testing.assert_array_equal(a.lanes[name].values, b.lanes[name].values, err_msg=name)


@pytest.fixture
def blocks(monkeypatch):
    """(thread, first point, lanes) of every block that was run."""
    run_block, seen = threads.run_block, []

    def noted(job, block, *rest):
        seen.append((threading.get_ident(), int(block.points[0]), job.lanes_per_block))
        return run_block(job, block, *rest)

    monkeypatch.setattr(threads, "run_block", noted)
    return seen


def test_workers_share_the_blocks_of_a_tile_and_it_is_written_once(straight, blocks, tmp_path, monkeypatch):
    meet = threading.Barrier(2)  # nobody goes on alone
    run_block, write, written = threads.run_block, Store.write_tile, []
    monkeypatch.setattr(threads, "run_block", lambda *a: (meet.wait(30), run_block(*a))[1])
    monkeypatch.setattr(
        Store, "write_tile", lambda self, tile, *rest: (written.append(tile), write(self, tile, *rest))[1]
    )
    assert_same_bits(run(store=tmp_path), straight)
    assert sorted(written) == [0, 1]
    for tile in (range(6), range(6, 12)):
        workers = [thread for thread, point, _ in blocks if point in tile]
        assert len(workers) == 6 and len(set(workers)) == 2


@pytest.mark.parametrize("directory", [False, True])
def test_of_a_tile_only_blocks_that_lacked_memory_run_again(directory, blocks, tmp_path, monkeypatch):
    plan, noted = Plan(width=4, depth=1, tile=3, workers=2), threads.run_block

    def small(job, block, *rest):
        if job.lanes_per_block == 4 and block.points[0] == 4:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes.")
        return noted(job, block, *rest)

    monkeypatch.setattr(threads, "run_block", small)
    result = run(plan, store=tmp_path if directory else None)
    assert sorted(point for _, point, _ in blocks) == [0, 4, 6, 8]
    blocks.clear()
    whole = run(plan=Plan(width=2))
    np.testing.assert_allclose(result.lanes["min_loss"], whole.lanes["min_loss"], rtol=1e-5)
    np.testing.assert_array_equal(result.lanes["learning_rate"], whole.lanes["learning_rate"])


def test_another_error_in_a_block_ends_all_at_once(blocks, monkeypatch):
    noted = threads.run_block

    def broken(job, block, *rest):
        if block.points[0] == 1:
            raise RuntimeError("a block broke")
        return noted(job, block, *rest)

    monkeypatch.setattr(threads, "run_block", broken)
    with pytest.raises(RuntimeError, match="a block broke"):
        run()
    assert not [t for t in threading.enumerate() if t.name.startswith("gdkit")]


@pytest.mark.parametrize("broken", ["take", "write", "publish"])
def test_an_error_of_the_archive_reaches_the_caller(broken, tmp_path, monkeypatch):
    def fails(*args):
        raise OSError("no room")

    name = {"take": "claim", "write": "write_tile", "publish": "name_tile"}[broken]
    monkeypatch.setattr(Store, name, fails)
    with pytest.raises(OSError, match="no room"):
        run(store=tmp_path)
    assert not [t for t in threading.enumerate() if t.name.startswith("gdkit")]


def test_a_tile_that_is_stopped_between_its_blocks_is_not_written(straight, tmp_path, monkeypatch):
    stop, run_block = threading.Event(), threads.run_block

    def stopping(job, block, *rest):
        found = run_block(job, block, *rest)
        if block.points[0] == 3:
            stop.set()
        return found

    monkeypatch.setattr(threads, "run_block", stopping)
    alone = dataclasses.replace(PLAN, workers=1)
    request = check_request(problems.parabola(), sgd, {"learning_rate": RATES}, steps=30, plan=alone)
    result, _ = run_checked(request, where=RunDirectory(tmp_path), stop=stop)
    assert result.missing == len(RATES) and not Store.open(tmp_path).finished().any()
    monkeypatch.undo()
    assert_same_bits(run(store=tmp_path), straight)


def test_a_tile_that_somebody_else_has_taken_comes_last(tmp_path, blocks, straight, monkeypatch):
    claim, refused = Store.claim, []

    def once(self, tile, *rest):
        if tile == 0 and not refused:
            refused.append(tile)
            return False
        return claim(self, tile, *rest)

    monkeypatch.setattr(Store, "claim", once)
    monkeypatch.setattr(threads, "_PATIENCE", 0.01)
    assert_same_bits(run(store=tmp_path), straight)
    assert refused == [0] and {point for _, point, _ in blocks[:6]} == set(range(6, 12))
