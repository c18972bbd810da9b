"""A streaming sweep with evaluation, patience and best states survives the death of its process at any operation."""

import errno

import pytest
import streaming
from faults import CHANGES, Crash, Faults

import gdkit
from gdkit.monitors import EndKind
from gdkit.store.files import FILES


def dying_files(number):
    """File operations of which that of this number is the last one: what follows has no effect, as after SIGKILL."""
    faults = Faults(crash_at=number)

    def guarded(operation):
        def call(*arguments):
            try:
                return operation(*arguments)
            except Crash as error:
                raise OSError(errno.EIO, "the process has died") from error

        return call

    return FILES._replace(**{name: guarded(getattr(faults.files, name)) for name in CHANGES}), faults


def content(folder):
    """The bytes of the tiles and of the states of a run, by their names."""
    return {path.name: path.read_bytes() for part in ("tiles", "lanes") for path in folder.glob(f"{part}/*/*.npz")}


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    folder, segments = tmp_path_factory.mktemp("streaming") / "run", []
    files, faults = dying_files(-1)
    result = streaming.run(folder, lambda *segment: segments.append(segment), files)
    assert set(result.lanes["end_kind"].values) == {EndKind.STEPS, EndKind.STOPPED, EndKind.EXCEEDED}
    return content(folder), segments, len(faults.done)


def test_a_process_that_dies_repeatedly_ends_with_the_same_bits(straight, tmp_path):
    expected, segments, operations = straight
    folder, begun = tmp_path / "run", set()
    for share in (0.01, 0.3, 0.35):  # while the directory is made, blocks are advanced and tiles are published
        files, faults = dying_files(int(share * operations))
        seen = []
        record = lambda *segment, faults=faults, seen=seen: None if faults.dead else seen.append(segment)
        with pytest.raises(gdkit.errors.StoreError, match="the process has died"):
            streaming.run(folder, record, files)
        assert content(folder).items() <= expected.items()
        assert len(begun & set(seen)) <= streaming.WORKERS  # segments that are repeated
        begun |= set(seen)
        for path in folder.rglob("*.tmp"):  # those of a dead process are removed, but this one lives
            path.unlink()
    seen = []
    assert not streaming.run(folder, lambda *segment: seen.append(segment)).missing
    assert content(folder) == expected
    assert len(begun & set(seen)) <= streaming.WORKERS and begun | set(seen) >= set(segments)
