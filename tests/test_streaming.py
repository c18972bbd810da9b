"""A streaming sweep with evaluation, patience and best states survives the death of its process at any operation."""

import errno
import os

import pytest
import streaming
from faults import CHANGES, Crash, Faults

import gdkit
from gdkit.monitors import EndKind
from gdkit.store.files import FILES

# What a process does last: (operation, folder of its file), and how often it has done it before.
INSTANTS = {
    "blocks have made some segments": ("replace", "carry", 9),
    "the states of a tile are written": ("create", "lanes", 0),
    "the tile is written, and not synced": ("fsync", "tiles", 0),
    "the tile has its name": ("unlink", "carry", 0),
}


def dying_files(operation="", folder="", earlier=0):
    """File operations that end with the one of this name and folder: what follows has no effect, as after SIGKILL."""
    faults = Faults()
    left = [earlier]

    def guarded(name):
        def call(*arguments):
            if name == operation and f"/{folder}" in str(arguments[0]):
                left[0] -= 1
                if left[0] < 0 and not faults.dead:
                    faults.crash_at = len(faults.done)
            try:
                return getattr(files, name)(*arguments)
            except Crash as error:
                raise OSError(errno.EIO, "the process has died") from error

        return call

    files = faults.files
    return FILES._replace(**{name: guarded(name) for name in CHANGES}), faults


def content(folder):
    """The bytes of the tiles and of the states of a run, by their names."""
    files = [path for part in ("tiles", "lanes") for path in folder.glob(f"{part}/*/*.npz")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    folder, segments = tmp_path_factory.mktemp("streaming") / "run", []
    result = streaming.run(folder, lambda *segment: segments.append(segment))
    assert set(result.lanes["end_kind"].values) == {EndKind.STEPS, EndKind.STOPPED, EndKind.EXCEEDED}
    return folder, content(folder), segments


def test_a_process_that_dies_at_any_instant_leaves_what_ends_with_the_same_bytes(straight, tmp_path):
    _, expected, segments = straight
    folder, runs = tmp_path / "run", []
    for instant in INSTANTS.values():
        files, faults = dying_files(*instant)
        runs.append(seen := [])
        record = lambda *segment, faults=faults, seen=seen: None if faults.dead else seen.append(segment)
        with pytest.raises(gdkit.errors.StoreError, match="the process has died"):
            streaming.run(folder, record, files)
        assert content(folder).items() <= expected.items()
        for path in folder.rglob(f"*.{os.getpid()}.*.tmp"):  # its process is dead, but this one lives
            path.rename(path.with_name(path.name.replace(f".{os.getpid()}.", f".{2**22 + 1}.")))
    runs.append([])
    assert not streaming.run(folder, lambda *segment: runs[-1].append(segment)).missing
    assert content(folder) == expected and {segment for run in runs for segment in run} == set(segments)
    latest = {segment: number for number, run in enumerate(runs) for segment in run}
    for number, run in enumerate(runs):  # those that it had begun, and a later one began again
        assert sum(latest[segment] > number for segment in run) <= streaming.WORKERS


def test_states_that_are_lost_or_damaged_are_restored_by_the_same_command(straight):
    folder, expected, _ = straight
    first, second, third = sorted((folder / "lanes" / "0000").iterdir())[:3]
    first.unlink()
    second.write_bytes(b"")
    third.write_bytes(third.read_bytes()[:-100])
    begun = []
    with pytest.warns(gdkit.errors.GdkitWarning, match=r"tile [012], block [012], are missing or damaged\. It"):
        streaming.run(folder, lambda *segment: begun.append(segment))
    assert content(folder) == expected and len({block for block, _ in begun}) == 3
