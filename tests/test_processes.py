"""Processes that are told to stop, killed, or started together on one directory lose nothing and change no bit."""

import random
import re
import shlex
import signal
import subprocess
import sys
from collections import Counter

import pytest
from processes import CONFIG, PLAN, SEGMENTS, TILES, Process, begun, bits, environment, here, tiles

from gdkit.store import Store


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    (folder / "small.yaml").write_text(CONFIG)
    return folder


@pytest.fixture(scope="module")
def straight(root):
    """A run that nothing interrupted."""
    assert here("run", root / "small.yaml", "--output", root / "straight") == 0
    status = Store.open(root / "straight").status(verify=True)
    assert (status.tiles, status.finished, status.carries, status.damaged) == (TILES, TILES, {}, ())
    return root / "straight"


def assert_finished_as(folder, straight):
    assert bits(folder)[1].all()
    assert bits(folder)[0] == bits(straight)[0]
    assert tiles(folder) == tiles(straight)
    left = (*folder.rglob("*.tmp"), *folder.glob("claims/*"), *folder.glob("carry/*/*"))
    assert left == ()


def status_of(folder):
    """What ``gdkit status`` says, in a process that cannot import JAX."""
    code = """
import sys
sys.modules["jax"] = None
from gdkit.app.cli import main
sys.exit(main(sys.argv[1:]))
"""
    command = [sys.executable, "-c", code, "status", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, env=environment(), check=True).stdout


@pytest.fixture(scope="module")
def interrupted(root, straight):
    """A run that was told to stop, told twice, and killed: its folder, trace, and what was said."""
    folder, name, said = root / "interrupted", root / "life.trace", {}
    words = ["run", root / "small.yaml", "--output", folder]

    first = Process(name, *words, hold=7)
    first.until_begun(7)
    said["status"] = status_of(folder)
    first.signal(signal.SIGINT)
    first.until_said("stopping")
    first.go.touch()
    said["interrupt"] = (*first.ended(), status_of(folder), (folder / "log.txt").read_text())

    words = shlex.split(said["interrupt"][1].splitlines()[-1])[1:]  # as it was told to go on
    second = Process(name, *words, hold=30)
    second.until_begun(30)
    second.signal(signal.SIGTERM)
    second.until_said("stopping")
    second.go.touch()
    said["terminate"] = (*second.ended(), list((folder / "claims").iterdir()))

    third = Process(name, *words, hold=20)
    third.until_begun(20)
    third.signal(signal.SIGINT)
    third.until_said("stopping")
    third.signal(signal.SIGTERM)
    said["twice"] = third.ended()  # though its workers are held

    before, killed = len(begun(name)), Process(name, *words)
    killed.until_begun(random.Random(0).randrange(5, 25))
    killed.signal(signal.SIGKILL)
    assert killed.ended()[0] == -signal.SIGKILL
    whole = tiles(folder).items() <= tiles(straight).items()
    said["killed"] = whole, Store.open(folder).status(verify=True).damaged, len(begun(name)) - before
    assert here(*words) == 0
    return folder, name, said


def test_a_first_interrupt_keeps_the_segments_and_says_how_to_go_on(interrupted):
    folder, _, said = interrupted
    code, error, status, log = said["interrupt"]
    assert code == 130
    assert re.search(r"stopping once the current segments are checkpointed; interrupt again to stop immediately", error)
    assert re.search(rf"interrupted\. .*\d of 24 runs are finished; the others are checkpointed\. To resume:\n"
                     rf"  gdkit run {folder}/config\.yaml --output {folder}\n$", error)  # fmt: skip
    assert "running" not in status, "its claims are given back"
    assert re.search(r"checkpointed: 2 blocks, at steps \d+ to \d+ of 160", status)
    assert re.search(r"started small: .*\n.*: \d of 24 runs are finished\n.*not finished: KeyboardInterrupt", log)


def test_sigterm_does_the_same(interrupted):
    _, _, said = interrupted
    code, error, claims = said["terminate"]
    assert code == 130 and "To resume:\n  gdkit run" in error and claims == []
    assert re.search(r"resuming: \d+ of 24 runs are finished", error)


def test_a_second_signal_leaves_at_once(interrupted):
    code, error = interrupted[2]["twice"]
    assert code == 130 and "To resume" not in error


def test_a_killed_run_leaves_whole_tiles_and_goes_on(interrupted):
    whole, damaged, segments = interrupted[2]["killed"]
    assert whole and damaged == () and segments >= 5


def test_after_all_that_the_bits_are_those_of_a_run_that_nothing_interrupted(interrupted, straight):
    assert_finished_as(interrupted[0], straight)


def test_of_four_interruptions_only_the_segments_in_flight_are_computed_twice(interrupted):
    _, trace, _ = interrupted
    times = Counter((block, step) for _, block, step in begun(trace))
    processes = list(dict.fromkeys(process for process, *_ in begun(trace)))
    assert len(processes) == 4
    assert max(Counter(block for block, _ in times).values()) == SEGMENTS
    again = sum(count - 1 for count in times.values())
    assert again <= PLAN["workers"] * len(processes)


def test_the_status_of_a_running_a_stopped_and_a_finished_run_needs_no_jax(interrupted):
    folder, _, said = interrupted
    assert re.search(r"running: 2 tiles in process \d+ on \S+, last renewed \d+ s ago\ncheckpointed: \d blocks, "
                     r"at steps \d+ to \d+ of 160\nnot started: \d+ tiles", said["status"])  # fmt: skip
    assert "to resume, or to add a process: gdkit run" in said["interrupt"][2]
    all_is_run = f"{folder}: 24 of 24 runs are finished (24 of 24 tiles)\n"
    command = f"gdkit run {folder}/config.yaml --output {folder}"  # writes the report, which is left out here
    assert status_of(folder) == f"{all_is_run}the report is not written; to write it: {command}\n"
    (folder / "report.html").write_text("<html>another page")
    damaged = "the report is damaged (it has no checksum, or is cut short)"
    assert status_of(folder) == f"{all_is_run}{damaged}; to write it: {command}\n"
    (folder / "report.html").unlink()


# Several on one directory


def together(root, name, words):
    """Two processes that have both begun a first segment; then they go on. Exit codes, and the blocks of each."""
    crew = [Process(root / f"{name}{n}.trace", *more, hold=1) for n, more in enumerate(words)]
    for process in crew:
        process.until_begun(2)
    claims = Store.open(root / name).claims()
    for process in crew:
        process.go.touch()
    ends = [process.ended() for process in crew]
    assert [code for code, _ in ends] == [0, 0], ends
    return claims, [{block for _, block, _ in begun(process.trace)} for process in crew]


def test_two_runs_at_once_share_the_work_and_come_to_the_same_bits(root, straight):
    words = ["run", root / "small.yaml", "--output", root / "two"]
    claims, blocks = together(root, "two", [words, words])
    assert len({claim.process for claim in claims.values()}) == 2
    assert all(blocks) and blocks[0] | blocks[1] == set(range(TILES))
    assert blocks[0] & blocks[1] == set(), "nothing is computed twice"
    assert_finished_as(root / "two", straight)


@pytest.mark.full
def test_two_shards_at_once_come_to_the_same_bits(root, straight):
    words = ["run", root / "small.yaml", "--output", root / "shards", "--shard"]
    _, blocks = together(root, "shards", [[*words, "1/2"], [*words, "2/2"]])
    assert blocks == [set(range(0, TILES, 2)), set(range(1, TILES, 2))]
    assert_finished_as(root / "shards", straight)


def test_two_shards_one_after_the_other_come_to_the_same_bits(root, straight, capsys):
    folder = root / "sharded"
    assert here("run", root / "small.yaml", "--output", folder, "--shard", "2/2") == 0
    said = capsys.readouterr().out
    assert (
        "12 of 24 runs are finished; other shards have not finished. The last one to finish writes the report" in said
    )
    assert not (folder / "results.nc").exists()
    assert Store.open(folder).finished().tolist() == [False, True] * (TILES // 2)
    assert here("run", root / "small.yaml", "--output", folder, "--shard", "1/2") == 0
    assert (folder / "results.nc").exists()
    assert_finished_as(folder, straight)
