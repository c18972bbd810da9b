"""What the disk does to a run: it fills up, goes away, cannot be written, or damages what is on it."""

import contextlib
import functools
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from faults import filling
from processes import CONFIG, PLAIN_USER, PLAN, TILES, Process, bits, environment, here, tiles

import gdkit
from gdkit.app import cli
from gdkit.app.run.hooks import Hooks
from gdkit.store import Kind, Manifest, Partition, Store, StoredGroup
from gdkit.sweeps.plan.blocks import Block
from gdkit.sweeps.programs.tiles import FinishedBlock, Tile
from gdkit.sweeps.rundir import archive
from tests.shared import quick


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults")
    (folder / "small.yaml").write_text(CONFIG)
    return folder


def run(root, folder, *words, plan=None):
    return here("run", root / "small.yaml", "--output", folder, *words, plan=plan)


@pytest.fixture(scope="module")
def straight(root):
    """A run that nothing disturbed."""
    assert run(root, root / "straight") == 0
    return root / "straight"


def full_after(root, folder, room):
    """A run on a disk that is full after so many bytes."""
    return here("run", root / "small.yaml", "--output", folder, files=filling(room))


@pytest.fixture(scope="module")
def half(root, straight):
    """A run that ended in the middle, with lanes kept on their way."""
    assert full_after(root, root / "half", 350_000) == 1
    status = Store.open(root / "half").status(verify=True)
    assert 0 < status.finished < TILES and status.carries and status.damaged == ()
    return root / "half"


@pytest.fixture
def copy(tmp_path):
    def copied(folder):
        return Path(shutil.copytree(folder, tmp_path / "run"))

    return copied


# Room


@pytest.mark.parametrize("room", quick([3_000, 9_000, 30_000, 120_000], 3_000, 30_000))
def test_on_a_full_disk_a_run_ends_keeps_what_it_has_and_goes_on(root, straight, tmp_path, capsys, room):
    folder = tmp_path / "run"
    assert full_after(root, folder, room) == 1
    error = capsys.readouterr().err
    assert "(No space left on device). Finished tiles can be read. Make room and run the same command again." in error
    assert tiles(folder).items() <= tiles(straight).items()
    assert not list(folder.rglob("*.tmp"))
    if room > 5_000:  # that of the manifest
        status = Store.open(folder).status(verify=True)
        assert status.damaged == () and None not in status.carries.values()
        assert gdkit.open(folder).missing == TILES - status.lanes_done
    assert run(root, folder) == 0
    assert bits(folder)[0] == bits(straight)[0] and tiles(folder) == tiles(straight)


@pytest.mark.full
def test_files_that_may_not_grow_end_a_run_in_the_same_way(root, straight, half, copy):
    folder = copy(half)
    process = Process(folder.parent / "limit.trace", "run", root / "small.yaml", "--output", folder, bytes=5_500)
    code, error = process.ended()
    assert code == 1
    assert "(File too large). Finished tiles can be read. Make room and run the same command again." in error
    assert "not finished: StoreError" in (folder / "log.txt").read_text()
    assert Store.open(folder).status(verify=True).damaged == ()
    assert run(root, folder) == 0
    assert tiles(folder) == tiles(straight)


def test_a_result_or_a_report_that_cannot_be_written_is_told(root, straight, copy, capsys):
    folder = copy(straight)
    (folder / "results.nc").unlink()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))  # less than the result takes
    try:
        assert run(root, folder) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "results.nc: it cannot be written (File too large). Make room" in capsys.readouterr().err

    def write_report(*_):
        raise OSError(28, os.strerror(28))

    words = ["run", str(root / "small.yaml"), "--output", str(folder)]
    assert cli.main(words, Hooks(PLAN, write_report=write_report)) == 1
    assert "results, figures and report cannot be written (No space left on device)" in capsys.readouterr().err
    assert tiles(folder) == tiles(straight)


# The directory


@pytest.mark.full
def test_a_directory_that_is_removed_in_mid_run_ends_it(root, tmp_path):
    folder = tmp_path / "run"
    process = Process(tmp_path / "removed.trace", "run", root / "small.yaml", "--output", folder, hold=5)
    process.until_begun(5)
    folder.rename(tmp_path / "away")  # at once: the process may be writing
    shutil.rmtree(tmp_path / "away")
    process.go.touch()
    code, error = process.ended()
    assert code == 1
    assert "(No such file or directory)" in error and "It was removed or renamed: put it back, or name another" in error
    assert "Traceback" not in error and "log.txt" not in error
    assert not folder.exists()


@pytest.mark.full
@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's capabilities, or a user who is not root")
def test_a_directory_that_cannot_be_written_is_told_and_can_be_read(root, straight, copy):
    folder = copy(straight)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    folders = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    for path in folders:
        path.chmod(0o555)
    command = [sys.executable, "-c", PLAIN_USER, "-m", "gdkit"]
    try:
        words = ["run", str(root / "small.yaml"), "--output", str(folder)]
        in_a_process = functools.partial(subprocess.run, capture_output=True, text=True, env=environment(), check=False)
        done = in_a_process([*command, *words])
        read = in_a_process([*command, "status", str(folder)])
    finally:
        for path in folders:
            path.chmod(0o755)
    assert done.returncode == 1
    assert done.stderr == (
        f"error: {folder / 'config.yaml'}: it cannot be written (Permission denied). "
        "Make it writable, or name another directory.\n"
    )
    assert "24 of 24 runs are finished" in read.stdout
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_a_directory_that_cannot_be_made_is_told(root, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert run(root, tmp_path / "file" / "run") == 2
    assert "file is a file, and a run needs a folder" in capsys.readouterr().err


# Damage

WAYS = {
    "cut short": lambda data: data[: len(data) * 2 // 3],
    "emptied": lambda data: b"",
    "one bit flipped": lambda data: data[:1500] + bytes([data[1500] ^ 16]) + data[1501:],
}


@pytest.mark.parametrize("way", WAYS)
def test_damaged_tiles_and_carries_are_named_and_computed_again(root, straight, half, copy, capsys, way):
    folder = copy(half)
    going = Store.open(folder).status().carries  # a disk that is full once a tile is there leaves its carry too
    damaged = [*sorted(folder.glob("tiles/*/*.npz"))[::3], *(folder / f"carry/0000/{block:07}.npz" for block in going)]
    for path in damaged:
        path.write_bytes(WAYS[way](path.read_bytes()))
    assert run(root, folder) == 0
    error = capsys.readouterr().err
    for path in damaged:
        remedy = "It is computed again." if "tiles" in path.parts else "Its lanes start again from step 0."
        assert sum(f"{path}: it is damaged" in line and line.endswith(remedy) for line in error.splitlines()) == 1
    assert tiles(folder) == tiles(straight)


@pytest.mark.parametrize("way", WAYS)
def test_a_damaged_manifest_is_refused_and_new_begins_beside_it(root, straight, copy, capsys, way):
    folder = copy(straight)
    path = folder / "manifest.json"
    path.write_bytes(WAYS[way](path.read_bytes()))
    assert run(root, folder) == 1
    assert "manifest.json: it is damaged" in capsys.readouterr().err
    assert tiles(folder) == tiles(straight)
    if way == "emptied":
        assert run(root, folder, "--new") == 0
        assert tiles(folder.with_name("run-2")) == tiles(straight)


def test_a_lost_manifest_is_made_anew_by_the_same_plan_and_refused_by_another(root, straight, half, copy, capsys):
    folder = copy(half)
    (folder / "manifest.json").unlink()
    assert run(root, folder, plan={"width": 2}) == 1
    error = capsys.readouterr().err
    assert (
        "it is missing, and the tiles cannot be read" in error
        and "Run again with the same config, plan and version" in error
    )
    assert run(root, folder) == 0
    assert tiles(folder) == tiles(straight)


def test_a_damaged_config_of_a_run_is_refused_with_what_to_do(root, straight, copy, capsys):
    folder = copy(straight)
    (folder / "config.yaml").write_bytes(b"")
    assert run(root, folder) == 2
    assert "whose config cannot be read" in capsys.readouterr().err


LOSS = """
import jax.numpy as jnp
from gdkit import Problem


def mine():
    {comment}
    return Problem(lambda x: {loss}, jnp.ones(2))
"""
MINE = CONFIG.replace("{name: parabola}", '{use: "mine_loss:mine"}').replace("small", "mine")


@pytest.mark.full
def test_a_changed_comment_is_the_same_run_and_a_changed_loss_another(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "mine.yaml").write_text(MINE)

    def run_with(comment, loss, *words):
        monkeypatch.delitem(sys.modules, "mine_loss", raising=False)
        (tmp_path / "mine_loss.py").write_text(LOSS.format(comment=comment, loss=loss))
        return here("run", "mine.yaml", *words), capsys.readouterr().err

    assert run_with("# a bowl", "jnp.sum(x**2)")[0] == 0
    first = tiles(tmp_path / "runs" / "mine")
    code, error = run_with('"""A bowl, in other words."""\n', "jnp.sum(\n        x**2)")
    assert code == 0 and "runs/mine: already finished; only missing or damaged outputs are written" in error
    code, error = run_with("# a bowl", "2 * jnp.sum(x**2)")
    assert code == 2
    assert "runs/mine: it holds another run:\n  program of group 0: hash" in error and "beside it with --new" in error
    assert "What the loss, an optimizer or a monitor computes has changed. Comments" in error
    assert run_with("# a bowl", "2 * jnp.sum(x**2)", "--new")[0] == 0
    assert tiles(tmp_path / "runs" / "mine") == first
    assert tiles(tmp_path / "runs" / "mine-2") != first


# Claims


@pytest.fixture
def an_archive(tmp_path):
    with contextlib.ExitStack() as over:

        def make(tiles=3, **options):
            partition = Partition((StoredGroup(0, (tiles,), (0,), (None,), 1, 1, 1, 1),))
            run = Store.create(tmp_path / "run", Manifest({}, partition, {"x": Kind("float32", ())}, 1, 1, "float32"))
            shelf = archive.RunArchive(run, 0, archive.Claims(run, **options))
            over.callback(shelf.close)
            return run, shelf

        yield make


def until(condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def test_claims_are_renewed_while_their_run_lives_and_released_after_it(an_archive):
    run, shelf = an_archive(renew_seconds=0.005)
    assert shelf.take(0) and shelf.take(1)
    for _ in range(2):
        for number in (0, 1):
            os.utime(run._claim_path(number), (0, 0))  # a segment that takes long
        until(lambda: all(claim.is_live() for claim in run.claims().values()))
    assert set(run.claims()) == {0, 1}
    shelf.close()
    assert run.claims() == {}


def test_a_tile_that_another_process_has_finished_meanwhile_is_left_alone(an_archive):
    run, shelf = an_archive()
    run.put_tile(1, {"x": np.zeros(1, np.float32)})
    assert shelf.take(0) and not shelf.take(1) and shelf.is_done(1)
    assert set(run.claims()) == {0}
    path = next(run.path.glob("tiles/*/*.npz"))
    path.write_bytes(b"")  # then it is not finished
    assert not shelf.is_done(1) and shelf.take(1)


def test_a_claim_for_many_tiles_is_kept_until_none_of_them_is_worked_on(an_archive):
    run, shelf = an_archive(tiles=20_000)
    assert run.tiles_of_claim(0) == range(2)
    run.put_tile(1, {"x": np.zeros(1, np.float32)})
    assert shelf.take(0) and not shelf.take(1)
    assert set(run.claims()) == {0}
    block = Block(np.arange(1), np.arange(1))
    shelf.write(Tile([], 0), [FinishedBlock(None, block, {"x": np.zeros((1, 1), np.float32)}, None)])()
    assert run.claims() == {}


def test_a_claim_that_could_not_be_filled_keeps_nobody_away_for_long(an_archive):
    run, _ = an_archive()
    assert run._replace(files=filling(0)).claim(0)
    assert run.claims() == {}, "the disk is full, and the file taken away"
    claim = run._claim_path(0)
    claim.write_bytes(b"")  # its writer was killed at that moment, or is writing
    assert not run.claim(0)
    os.utime(claim, (time.time() - 11,) * 2)
    assert run.claim(0)


def test_a_process_that_has_ended_is_not_alive_though_nobody_asked_how(an_archive):
    run, shelf = an_archive()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)  # it stays a zombie
    assert shelf.take(0)
    claim = run._claim_path(0)
    claim.write_text(claim.read_text().replace(str(os.getpid()), str(ended.pid)))
    assert not run.claimed(0) and shelf.take(0)
    ended.wait()
