"""The run directory: what is published is whole and stays, what is damaged is told, and nobody waits for anybody."""

import errno
import hashlib
import io
import itertools
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import textwrap
import threading
import time
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import optax
import pytest
from faults import Crash, Faults

from gdkit import problems
from gdkit.errors import DamagedFileError, GdkitError, InputTypeError, InputValueError, OtherRunError, StoreError
from gdkit.store import (
    Kind,
    Manifest,
    Partition,
    Store,
    StoredGroup,
    arrays,
    differences,
    digest,
    lists,
    make_group,
    manifest,
)
from gdkit.store.files import FILES
from gdkit.sweeps import axes
from gdkit.sweeps.plan.blocks import cut_blocks
from gdkit.sweeps.plan.shapes import Shape

QUICK = FILES._replace(fsync=lambda _: None, fsync_folder=lambda _: None)  # where nothing is to survive a crash
ROOT = Path(__file__).parent.parent
COLUMNS = {"final_loss": Kind("float32", ()), "end_step": Kind("int32", ()), "curve_loss": Kind("float64", (3,))}


def a_partition(width=2, tile=1):
    """Two optimizers, 5 learning rates × 2 and 4, 2 seeds: 28 lanes, with padding in both."""
    first = StoredGroup(0, (5, 2), (1, 0), (None, None), 2, width, 2, tile)
    return Partition((first, StoredGroup(20, (4,), (0,), (None,), 2, 3, 1, tile)))


def a_manifest(**changes):
    fields = {
        "fingerprint": {"config": digest("name: mine"), "steps": 600, "data": None},
        "partition": a_partition(),
        "columns": COLUMNS,
        "seeds": 2,
        "steps": 600,
        "dtype": "float32",
        "plan": {"width": [2, 3]},
        "config": "name: mine\n",
    }
    return Manifest(**fields | changes)


def of_lanes(lanes):
    """What is stored of lanes: numbers that tell the lane."""
    lanes = np.asarray(lanes)
    curve = lanes[:, None] + np.array([0.25, 0.5, np.nan])
    return {"final_loss": lanes.astype(np.float32), "end_step": lanes.astype(np.int32) * 2, "curve_loss": curve}


def put(store, tile):
    return store.put_tile(tile, of_lanes(store.partition.lanes_of(tile)))


def same(found, wanted):
    return found.keys() == wanted.keys() and all(np.array_equal(found[n], x, equal_nan=True) for n, x in wanted.items())


def path_of(store, tile):
    return store.path / "tiles" / "0000" / f"{tile:07d}.npz"


@pytest.fixture
def store(tmp_path):
    return Store.create(tmp_path / "run", a_manifest(), files=QUICK)


@pytest.fixture
def full(store):
    for tile in range(store.partition.tiles):
        put(store, tile)
    return store


# The partition


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("tile", [1, 2, 5])
def test_a_tile_number_tells_the_lanes_of_the_engines_blocks(seeds, tile):
    choices = {"sgd": (optax.sgd, {"momentum": [0.0, 0.5, 0.9], "nesterov": [True, False]}), "adam": optax.adam}
    rates = {"learning_rate": [0.1, 0.2, 0.3, 0.4, 0.5]}
    sections = axes.parse_axes(problems.parabola(), None, {"optimizer": choices} | rates)
    for width, depth in itertools.product((1, 2, 4, 7), (1, 2, 3)):
        groups, rows, first = [], [], 0
        for section in sections:
            for group in axes.group_points(section):
                options = {"first": first, "seeds": seeds, "width": width, "depth": depth, "tile": tile}
                groups.append(make_group(group.points, section.shape, **options))
                blocks = cut_blocks(len(group.points), seeds, Shape(width, depth))
                lanes = [
                    [first + int(group.points[p]) * seeds + int(s) for p in np.unique(b.points) for s in set(b.seeds)]
                    for b in blocks
                ]
                rows += [[*itertools.chain(*lanes[low : low + tile])] for low in range(0, len(blocks), tile)]
            first += section.point_count * seeds
        partition = Partition(tuple(groups))
        assert partition.lanes == first and partition.tiles == len(rows)
        assert [partition.lanes_of(t).tolist() for t in range(partition.tiles)] == rows
        assert partition.rows_per_tile().tolist() == [partition.rows(t) for t in range(partition.tiles)]
        places = zip(*partition.tiles_of(np.arange(first)), strict=True)
        assert all(rows[t][row] == lane for lane, (t, row) in enumerate(places))
        owners = [partition.tile_of_block(b) for t in range(partition.tiles) for b in partition.blocks_of(t)]
        assert len(owners) == partition.blocks and owners == sorted(owners)


def test_points_that_are_no_product_are_refused():
    with pytest.raises(InputValueError, match="not a product of indices"):
        make_group(np.array([0, 1, 3]), (2, 2), first=0, seeds=1, width=2, depth=1)


# What is stored is what is read


def test_tiles_come_back_and_numpy_alone_reads_them(full):
    for tile in range(full.partition.tiles):
        wanted = of_lanes(full.partition.lanes_of(tile))
        assert same(full.tile(tile), wanted)
        with np.load(path_of(full, tile), allow_pickle=False) as alone:
            assert same({name: alone[name] for name in wanted}, wanted)
    assert list(full.tile(3, ["end_step"])) == ["end_step"]
    assert full.finished().all()


def test_equal_tiles_are_equal_files_and_the_first_one_stays(full):
    before = path_of(full, 2).read_bytes()
    assert put(full, 2) is False
    path_of(full, 2).unlink()
    assert put(full, 2) is True
    assert path_of(full, 2).read_bytes() == before


LEAVES = [
    np.float32(2.5),
    np.arange(6.0).reshape(2, 3).T,
    np.zeros((0, 4), np.int8),
    np.array([True, False]),
    np.arange(4, dtype=">u4"),
    np.array([1 + 2j], np.complex64),
    np.array([0.1, np.inf, np.nan], ml_dtypes.bfloat16),
    np.array([[0.5], [448]], ml_dtypes.float8_e4m3fn),
    np.array(3, ml_dtypes.int4),
    np.array([[1, 2], [3, 4]], np.uint32),  # a PRNG key's data
]


def test_carries_come_back_with_their_step_bits_and_dtypes_and_the_last_one_wins(store):
    assert store.carry(5) is None
    for step in (100, 250):
        store.put_carry(5, step, LEAVES)
    for like in (None, LEAVES):
        step, leaves = store.carry(5, like)
        assert step == store.step(5) == 250
        for leaf, wanted in zip(leaves, LEAVES, strict=True):
            assert leaf.dtype == wanted.dtype.newbyteorder("<") and leaf.shape == wanted.shape
            assert leaf.tobytes() == wanted.astype(leaf.dtype).tobytes()
    store.remove_carry(5)
    assert store.carry(5) is None
    store.put_carry(5, 0, [])
    assert store.carry(5) == (0, [])


@pytest.mark.parametrize(
    "name, write",
    [
        ("tiles", lambda store: put(store, 0)),
        ("carry", lambda store: store.put_carry(0, 1, [np.zeros(1)])),
        ("lanes", lambda store: store.put_carry(0, 600, [np.zeros(1)], last=True)),
    ],
)
def test_a_folder_that_was_removed_is_made_again_within_the_directory(store, name, write):
    shutil.rmtree(store.path / name)
    write(store)
    assert len(list((store.path / name).rglob("*.npz"))) == 1
    shutil.rmtree(store.path)
    store.made.clear()
    with pytest.raises(StoreError, match="It was removed or renamed: put it back"):
        write(store)
    assert not store.path.exists()


@pytest.mark.parametrize("leaf", [[1.0], np.array(["a"]), np.array([{}]), np.zeros(2, "f4,i4"), np.zeros(1, "M8[s]")])
def test_what_is_no_array_of_numbers_is_no_leaf(store, leaf):
    with pytest.raises(InputTypeError, match=r"leaves\[1\].*not a"):
        store.put_carry(0, 1, [np.zeros(1), leaf])
    assert store.carry(0) is None


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda c: c.pop("end_step"), r"columns='end_step': not the names in the manifest"),
        (lambda c: c.update(more=np.zeros(4)), r"columns='more'"),
        (lambda c: c.update(end_step=np.zeros(4, np.int64)), r"columns\['end_step'\].*Pass \('int32', \(4,\)\)"),
        (lambda c: c.update(end_step=np.zeros(3, np.int32)), r"columns\['end_step'\].*\(3,\)"),
    ],
)
def test_columns_are_those_of_the_manifest(store, change, message):
    columns = of_lanes(store.partition.lanes_of(0))
    change(columns)
    with pytest.raises(InputValueError, match=message):
        store.put_tile(0, columns)
    with pytest.raises(InputValueError, match=r"tile=99: there is no such tile. Pass 0 to \d+"):
        store.tile(99)
    with pytest.raises(InputValueError, match="block=-1: there is no such block"):
        store.carry(-1)


def test_a_file_of_many_large_pieces_is_written_as_it_is(store):
    leaves = [np.arange(n, dtype=np.int64) for n in (0, 1, 131_071, 131_072, 131_073, 400_000, 3)]
    store.put_carry(0, 1, leaves)
    assert all(map(np.array_equal, store.carry(0).leaves, leaves))


# Every crash and every failure while something is published


def the_manifest(path, files):
    Store.create(path / "run", a_manifest(), files=files)


def a_tile(path, files):
    put(Store.open(path / "run", files=files), 0)


def a_carry(path, files):
    Store.open(path / "run", files=files).put_carry(0, 200, [np.full(40, 200.0)])


def prepare(path, publication):
    """The state before: nothing, a directory without tiles, or one with an older carry."""
    path.mkdir()
    if publication is not the_manifest:
        store = Store.create(path / "run", a_manifest(), files=QUICK)
        if publication is a_carry:
            store.put_carry(0, 100, [np.full(40, 100.0)])


def state(path, publication):
    """``"old"`` or ``"new"``; raises where something damaged lies under a name that counts."""
    try:
        store = Store.open(path / "run")
    except StoreError as error:
        if publication is the_manifest and "no run is stored here" in str(error):
            return "old"
        raise
    if publication is the_manifest:
        assert store.manifest == Store.create(path / "run", a_manifest()).manifest
        return "new"
    if publication is a_tile:
        if not store.finished()[0]:
            return "old"
        assert same(store.tile(0), of_lanes(store.partition.lanes_of(0)))
        return "new"
    step, (leaf,) = store.carry(0)
    assert np.array_equal(leaf, np.full(40, step))
    return {100: "old", 200: "new"}[step]


def crashes(tmp_path, publication, change=lambda files: files):
    """After every crash: the operation, whether it had returned, and the state in which the power loss left it."""
    for number in itertools.count():
        for names, data in itertools.product((False, True), ("kept", "lost", "cut", "zeros")):
            path = tmp_path / "crash"
            shutil.rmtree(path, ignore_errors=True)
            prepare(path, publication)
            faults = Faults(crash_at=number)
            try:
                publication(path, change(faults.files))
                returned = True
            except Crash:
                returned = False
            faults.settle(path, names=names, data=data)
            yield (None if returned else faults.done[number]), returned, state(path, publication)
            publication(path, QUICK)  # and it goes on
            assert state(path, publication) == "new"
        if returned:
            return


PUBLICATIONS = (the_manifest, a_tile, a_carry)


@pytest.mark.parametrize("publication", PUBLICATIONS)
def test_after_a_crash_at_any_operation_there_is_the_old_or_the_new(tmp_path, publication):
    found = list(crashes(tmp_path, publication))
    assert {s for _, returned, s in found if returned} == {"new"}  # what has returned stays
    assert {s for _, returned, s in found if not returned} == {"old", "new"}
    crashed = {operation for operation, *_ in found}
    needed = {"create", "write", "fsync", "close", "fsync_folder", "link" if publication is the_manifest else "replace"}
    assert needed <= crashed


@pytest.mark.parametrize("publication", PUBLICATIONS)
def test_the_walk_over_crashes_finds_a_missing_fsync(tmp_path, publication):
    with pytest.raises((GdkitError, AssertionError)):
        list(crashes(tmp_path, publication, lambda files: files._replace(fsync=lambda _: None)))


@pytest.mark.parametrize("publication", PUBLICATIONS)
def test_the_walk_over_crashes_finds_a_missing_fsync_of_the_folder(tmp_path, publication):
    found = crashes(tmp_path, publication, lambda files: files._replace(fsync_folder=lambda _: None))
    assert any(returned and s == "old" for _, returned, s in found)


MENDS = {
    errno.ENOSPC: "No space left on device.*Make room and run the same command again",
    errno.EIO: "Input/output error.*Check the disk, then run the same command again",
    errno.EROFS: "Read-only file system.*Make it writable, or name another directory",
    errno.ENOENT: "No such file or directory.*put it back, or name another directory",
}


@pytest.mark.parametrize("error", MENDS)
@pytest.mark.parametrize("publication", PUBLICATIONS)
def test_a_failure_of_any_operation_is_told_and_leaves_the_old_or_the_new(tmp_path, publication, error):
    for number in itertools.count():
        path = tmp_path / str(number)
        prepare(path, publication)
        faults = Faults(fail_at=number, error=error)
        said = error_of(publication, path, faults.files)
        failed = faults.done[number] if number < len(faults.done) else None
        assert (said is None) == (failed in (None, "unlink"))  # a temporary name that stays does no harm
        assert said is None or re.search(MENDS[error], str(said))
        named = {"replace", "link"} & set(faults.done[:number])  # then the last sync failed at most
        assert state(path, publication) == ("new" if named else "old")
        left = [p.name for p in path.rglob("*.tmp")]
        assert not left or failed == "unlink"
        publication(path, QUICK)
        assert state(path, publication) == "new"
        if failed is None:
            return


def error_of(publication, path, files):
    try:
        publication(path, files)
    except StoreError as error:
        return error
    return None


def test_short_writes_make_the_same_file(tmp_path, full):
    store = Store.create(tmp_path / "short", a_manifest(), files=Faults(short=True).files)
    put(store, 1)
    assert path_of(store, 1).read_bytes() == path_of(full, 1).read_bytes()


def test_the_hard_link_that_a_file_system_lacks_is_told(tmp_path):
    def link(*_):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    with pytest.raises(StoreError, match="on a file system that has hard links"):
        Store.create(tmp_path / "run", a_manifest(), files=FILES._replace(link=link))


def test_a_disk_that_is_full_is_told_and_the_run_goes_on_once_there_is_room(tmp_path):
    code = """
        import resource, sys, numpy as np
        from gdkit.errors import StoreError
        from gdkit.store import Store
        store = Store.open(sys.argv[1])
        store.put_carry(0, 1, [np.zeros(10)])
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
        try:
            store.put_carry(0, 2, [np.zeros(100_000)])
        except StoreError as error:
            print(error)
        assert store.carry(0).step == 1
        store.put_carry(1, 1, [np.zeros(10)])  # the small still fits
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        store.put_carry(0, 2, [np.zeros(100_000)])
        print(store.carry(0).step, "jax" in sys.modules, "xarray" in sys.modules)
    """
    said = in_a_process(code, Store.create(tmp_path / "run", a_manifest()).path)
    assert re.search(
        r"block 0 cannot be written \(File too large\).*Make room and run the same command again\.\n2 False False", said
    )


def in_a_process(code, *arguments):
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_directory_that_is_removed_in_mid_run_is_told_and_not_made_again(full):
    shutil.rmtree(full.path)
    with pytest.raises(StoreError, match=r"tile 1 cannot be written \(No such file.*removed or renamed"):
        put(full, 1)
    with pytest.raises(StoreError, match="tile 1 is not finished"):
        full.tile(1)
    assert not full.path.exists() and not full.finished().any()


def test_a_directory_that_cannot_be_written_can_be_read(full):
    def refuse(*_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    read_only = FILES._replace(**dict.fromkeys(("create", "make_folder", "replace", "link", "unlink"), refuse))
    store = Store.create(full.path, a_manifest(), files=read_only)
    assert store.columns().finished.all() and store.status(verify=True).damaged == ()
    with pytest.raises(StoreError, match=r"Read-only file system.*Make it writable, or name another"):
        store.put_carry(0, 1, [])
    with pytest.raises(StoreError, match=r"the manifest cannot be written \(Read-only"):
        Store.create(full.path.parent / "other", a_manifest(), files=read_only)


# Damage, and files that somebody made


def test_a_flipped_byte_is_told_or_changes_nothing_and_a_cut_file_is_told(full):
    path, wanted = path_of(full, 1), full.tile(1)
    whole, unharmed = path.read_bytes(), 0
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << at % 8)]) + whole[at + 1 :])
        try:
            found = full.tile(1)
        except DamagedFileError:
            continue
        assert same(found, wanted)  # a time of day, say, in the zip's own records
        unharmed += 1
    assert unharmed < len(whole) / 2
    for size in range(0, len(whole) - 2, 7):  # the last two are zeros
        for filler in (b"", bytes(len(whole) - size)):
            path.write_bytes(whole[:size] + filler)
            with pytest.raises(DamagedFileError, match=r"0000001\.npz: it is damaged"):
                full.tile(1)


def test_a_damaged_tile_is_found_and_written_anew(full):
    path_of(full, 1).write_bytes(b"")
    path_of(full, 4).write_bytes(path_of(full, 3).read_bytes())
    assert full.status().damaged is None and full.status().finished == full.partition.tiles
    status = full.status(verify=True)
    assert status.damaged == (1, 4) and status.missing == 2
    with pytest.raises(DamagedFileError, match="its number is 3 and should be 4"):
        full.read_tile(4)
    with pytest.raises(DamagedFileError, match="damaged"):
        full.columns()
    assert put(full, 1) and put(full, 4)
    assert full.status(verify=True).damaged == ()


def stored(members, compression=zipfile.ZIP_STORED):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return stream.getvalue()


def npy(x, **options):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, x, **options)
    return stream.getvalue()


def lying(shape, descr="<f4", data=b""):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": descr, "fortran_order": False, "shape": shape})
    return stream.getvalue() + data


def members_of(path):
    with zipfile.ZipFile(path) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


HOSTILE = {
    "an object": (
        {"end_step.npy": npy(np.array([{}] * 4), allow_pickle=True)},
        "end_step is not an array|plain numbers",
    ),
    "another dtype": ({"end_step.npy": npy(np.zeros(4))}, "end_step is float64 .4,. and should be int32"),
    "another shape": (
        {"end_step.npy": npy(np.zeros(5, np.int32))},
        r"end_step is int32 \(5,\) and should be int32 \(4,\)",
    ),
    "Fortran order": ({"curve_loss.npy": npy(np.asfortranarray(np.ones((4, 3))))}, "plain numbers in C order"),
    "a shape without bytes": ({"end_step.npy": lying((4,), "<i4")}, "which do not fit"),
    "an absurd shape": ({"end_step.npy": lying((10**17,), "<i4")}, "should be int32"),
    "a negative shape": ({"end_step.npy": lying((-4,), "<i4", bytes(16))}, "plain numbers"),
    "no array": ({"end_step.npy": b"hello"}, "end_step is not an array"),
    "nothing": ({"end_step.npy": b""}, "end_step is not an array"),
    "an unknown name": ({"../../evil.npy": npy(np.zeros(1))}, r"not those of this run: \.\./\.\./evil"),
    "a missing name": ({"end_step.npy": None}, "not those of this run: end_step"),
    "no checksum": ({"checksum.npy": None}, "not those of this run: checksum"),
    "another checksum": ({"checksum.npy": npy(np.zeros(32, np.uint8))}, "checksum does not match"),
    "other numbers": ({"end_step.npy": npy(np.zeros(4, np.int32))}, "checksum does not match"),
    "a large about": ({"about.npy": npy(np.zeros(2**20, np.uint8))}, "about has"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_file_that_somebody_made_is_refused(full, case):
    changes, message = HOSTILE[case]
    members = {name: data for name, data in (members_of(path_of(full, 0)) | changes).items() if data is not None}
    path_of(full, 0).write_bytes(stored(members.items()))
    with pytest.raises(DamagedFileError, match=message):
        full.tile(0)


@pytest.mark.parametrize(
    "text", [b"[" * 90_000, b"[1]", b'{"number": 1e999}', b"\xff", b'{"number": ' + b"9" * 9000 + b"}"]
)
def test_what_a_file_says_about_itself_is_not_believed(full, text):
    members = {n.removesuffix(".npy"): np.load(io.BytesIO(d)) for n, d in members_of(path_of(full, 0)).items()}
    members["about"] = np.frombuffer(text, np.uint8)
    del members["checksum"]
    members["checksum"] = np.frombuffer(arrays.checksum(members), np.uint8)
    path_of(full, 0).write_bytes(stored((f"{name}.npy", npy(x)) for name, x in members.items()))
    with pytest.raises(DamagedFileError, match=r"not JSON|not a JSON object|its format is"):
        full.tile(0)


def test_a_zip_bomb_is_refused_before_it_is_unpacked(full):
    members = members_of(path_of(full, 0))
    bomb = members | {"end_step.npy": npy(np.zeros(10**8 // 4, np.int32))}
    path_of(full, 0).write_bytes(stored(bomb.items(), zipfile.ZIP_DEFLATED))
    with pytest.raises(DamagedFileError, match="is compressed"):
        full.tile(0)
    full.put_carry(0, 1, [np.zeros(4)])
    carry = full.path / "carry" / "0000" / "0000000.npz"
    carry.write_bytes(path_of(full, 0).read_bytes())
    with pytest.raises(DamagedFileError, match="is compressed"):
        full.carry(0)


def test_a_file_that_is_far_too_large_and_names_that_are_there_twice_are_refused(full):
    members = members_of(path_of(full, 0))
    with pytest.warns(UserWarning, match="Duplicate"):
        path_of(full, 0).write_bytes(stored([*members.items(), ("end_step.npy", npy(np.zeros(4, np.int32)))]))
    with pytest.raises(DamagedFileError, match="twice"):
        full.tile(0)
    os.truncate(path_of(full, 0), 2**40)  # sparse
    with pytest.raises(DamagedFileError, match=r"it has 1,099,511,627,776 bytes and should have"):
        full.tile(0)


def test_a_carry_that_is_not_like_what_goes_on_is_refused(store):
    store.put_carry(0, 1, [np.zeros((2, 2), ml_dtypes.bfloat16), np.zeros(3)])
    for like, message in (
        ([np.zeros((2, 2), np.uint16), np.zeros(3)], "leaf 0 is bfloat16 and should be uint16"),
        (
            [np.zeros((2, 3), ml_dtypes.bfloat16), np.zeros(3)],
            r"leaf0 is uint16 \(2, 2\) and should be uint16 \(2, 3\)",
        ),
        ([np.zeros((2, 2), ml_dtypes.bfloat16)], "not those of this run: leaf1"),
    ):
        with pytest.raises(DamagedFileError, match=message):
            store.carry(0, like)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"bits": {"0": "bfloat16"}}, "leaf 0 is float64 and cannot be bfloat16"),
        ({"bits": {"0": "float64"}}, "no dtype is called 'float64'"),
        ({"bits": {"0": "__name__"}}, "no dtype is called"),
        ({"bits": {"0": []}}, "no dtype is called"),
        ({"bits": ["0"]}, "TypeError"),
        ({"bits": None}, "TypeError"),
        ({"step": None}, "it has no step"),
        ({"step": 1e99}, "it has no step"),
        ({"kind": "tile"}, "its kind is 'tile' and should be 'carry'"),
    ],
)
def test_a_carry_that_somebody_made_is_refused(store, change, message):
    store.put_carry(0, 1, [np.zeros(3)])
    path = store._carry_path(0)
    about = store._about("carry", 0) | {"step": 1, "bits": {}} | change
    path.write_bytes(b"".join(arrays.pack_arrays(about, {"leaf0": np.zeros(3)})))
    with pytest.raises(DamagedFileError, match=rf"0000000\.npz: it is damaged: .*{message}.*Run the same command"):
        store.carry(0)


def test_what_the_system_will_not_list_open_or_read_is_told(full):
    def refuse(error):
        def refused(*_):
            raise OSError(error, os.strerror(error))

        return refused

    with pytest.raises(StoreError, match=r"tiles: it cannot be listed \(Permission denied\).*Make it writable"):
        full._replace(files=FILES._replace(names=refuse(errno.EACCES))).finished()
    with pytest.raises(StoreError, match=r"0000000\.npz: it cannot be read \(Permission denied\)"):
        full._replace(files=FILES._replace(open=refuse(errno.EACCES))).tile(0)
    with pytest.raises(StoreError, match="the manifest cannot be read"):
        Store.open(full.path, files=FILES._replace(open=refuse(errno.EIO)))

    class BadSector(io.BytesIO):
        read = refuse(errno.EIO)

    with pytest.raises(DamagedFileError, match="Input/output error"):
        full._replace(files=FILES._replace(open=lambda path: BadSector(path.read_bytes()))).tile(0)


def test_a_tile_of_another_run_is_not_taken_for_ours(tmp_path, full):
    other = Store.create(tmp_path / "other", a_manifest(fingerprint={"steps": 1}))
    put(other, 0)
    shutil.copy(path_of(other, 0), path_of(full, 0))
    with pytest.raises(DamagedFileError, match="its run is"):
        full.tile(0)


# The manifest


def test_the_manifest_comes_back(tmp_path):
    wanted = a_manifest(versions={"jax": "0.10"}, device={"kind": "cpu", "cores": 2})
    assert Store.create(tmp_path / "run", wanted).manifest == wanted == Store.open(tmp_path / "run").manifest
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["lanes"] == 28


def test_who_comes_second_takes_the_partition_of_the_first(store):
    second = Store.create(store.path, a_manifest(partition=a_partition(width=5), plan={"width": [5]}))
    assert second.manifest == store.manifest and second.run == store.run


def test_another_run_is_refused_part_by_part(store):
    now = {"config": digest("name: other"), "steps": 300, "precision": "float64"}
    with pytest.raises(OtherRunError, match=r"(?s)it holds another run.*Name another directory.*--new") as error:
        Store.create(store.path, a_manifest(fingerprint=now))
    config, steps, data, precision = error.value.lines
    assert re.fullmatch(r"config: hash \w{10}… in this directory, hash \w{10}… now", config)
    assert steps == "steps: 600 in this directory, 300 now"
    assert data == "data: null in this directory, not recorded now"
    assert precision == "precision: not recorded in this directory, 'float64' now"
    assert all(line in str(error.value) for line in error.value.lines)
    assert differences(now, now) == []
    back = pickle.loads(pickle.dumps(error.value))
    assert back.lines == error.value.lines and str(back) == str(error.value)


def test_a_store_can_be_sent_to_another_process(tmp_path):
    store = pickle.loads(pickle.dumps(Store.create(tmp_path / "run", a_manifest())))
    assert put(store, 0) and store.status().finished == 1


def test_a_digest_tells_dtypes_shapes_and_where_things_end():
    things = [("ab",), ("a", "b"), (b"ab",), (np.zeros(2),), (np.zeros((2, 1)),), (np.zeros(2, np.int64),), ()]
    assert len({digest(*each) for each in things}) == len(things)
    assert digest(np.arange(4)[::2]) == digest(np.array([0, 2]))
    with pytest.raises(InputValueError, match="no fixed bytes"):
        digest([{}])


@pytest.mark.parametrize(
    "change, message",
    [
        ({"fingerprint": {"a": [1]}}, "fingerprint.a is list"),
        ({"fingerprint": {"a": float("nan")}}, "cannot be stored"),
        ({"columns": {"a/b": Kind("float32", ())}}, "cannot be a name"),
        ({"columns": {"checksum": Kind("float32", ())}}, "cannot be a name"),
        ({"columns": {"a": Kind("object", ())}}, "columns.a.dtype is none of"),
        ({"steps": np.int64(3)}, "cannot be stored"),
        ({"seeds": 0}, "seeds is not a whole number from 1"),
        ({"partition": Partition((StoredGroup(3, (4,), (0,), (None,), 1, 2, 1, 1),))}, "every lane once"),
    ],
)
def test_what_a_manifest_cannot_hold_is_told(tmp_path, change, message):
    with pytest.raises(InputValueError, match=message):
        Store.create(tmp_path / "run", a_manifest(**change))
    assert not (tmp_path / "run").exists()


def edited(store, change, sign=True):
    path = store.path / "manifest.json"
    content = json.loads(path.read_text())
    change(content)
    if sign:
        content.pop("checksum", None)
        content["checksum"] = digest(manifest._canonical(content))
    path.write_text(json.dumps(content))


FORGED = {
    "too many lanes": (lambda c: c["groups"][0].update(sizes=[2**39, 8]), "lanes"),
    "too many tiles": (lambda c: c["groups"][0].update(sizes=[2**29, 2]), "tiles"),
    "a wrong count": (lambda c: c.update(tiles=3), "tiles is 3, and the groups have"),
    "a text": (lambda c: c["groups"][0].update(width="2"), r"groups\[0\].width is not a whole number"),
    "a bool": (lambda c: c.update(seeds=True), "seeds is not a whole number"),
    "a huge number": (lambda c: c.update(steps=10**30), "steps is not a whole number"),
    "no groups": (lambda c: c.update(groups=[]), "no groups"),
    "a list": (lambda c: c.update(groups={}), "groups is not a list"),
    "an order": (lambda c: c["groups"][0].update(order=[0, 0]), "order does not name each dimension once"),
    "many dimensions": (lambda c: c["groups"][0].update(sizes=[1] * 99, order=list(range(99))), "order does not"),
    "places": (lambda c: c["groups"][0].update(chosen=[[9], None]), "chosen is not in rising order below 5"),
    "no place": (lambda c: c["groups"][0].update(chosen=[None]), "chosen does not have one entry"),
    "a dtype": (lambda c: c["columns"].update(a={"dtype": "O", "shape": []}), "columns.a.dtype"),
    "an unhashable dtype": (lambda c: c["columns"].update(a={"dtype": [], "shape": []}), "columns.a.dtype"),
    "a shape": (lambda c: c["columns"].update(a={"dtype": "bool", "shape": [2**30, 2**30]}), "shape is too large"),
    "a config": (lambda c: c.update(config=3), "config is not a text"),
    "a params dtype": (lambda c: c.update(dtype=None), "dtype is not a text"),
    "no format": (lambda c: c.update(format="1"), "it has no format"),
}


@pytest.mark.parametrize("case", FORGED)
def test_a_manifest_that_somebody_made_is_refused(store, case):
    change, message = FORGED[case]
    edited(store, change)
    with pytest.raises(DamagedFileError, match=rf"manifest.json: it is damaged: .*{message}.*start a new run beside"):
        Store.open(store.path)


@pytest.mark.parametrize("text", [b"", b"{", b"[" * 10**6, b"[]", b"\xff", b"{}", b'{"format": ' + b"9" * 10**4])
def test_a_manifest_that_is_not_one_is_refused(store, text):
    (store.path / "manifest.json").write_bytes(text)
    with pytest.raises(DamagedFileError, match=r"manifest\.json: it is damaged"):
        Store.open(store.path)


def test_a_huge_manifest_is_not_read(store):
    os.truncate(store.path / "manifest.json", 2**40)
    with pytest.raises(DamagedFileError, match="it has more than 67,108,864 bytes"):
        Store.open(store.path)


def test_an_edited_manifest_is_refused(store):
    edited(store, lambda c: c.update(steps=601), sign=False)
    with pytest.raises(DamagedFileError, match="checksum does not match; do not edit it"):
        Store.create(store.path, a_manifest())


# Long lists


LONG = 5000


def a_long_manifest(rates=None, points=LONG):
    """Two seeds of paired axes, of which one program has the even points and another the odd ones."""
    even, odd = (tuple(range(first, points, 2)) for first in (0, 1))
    cut = {"width": 64, "depth": 2, "tile": 4}
    groups = (StoredGroup(0, (points,), (0,), (places,), 2, **cut) for places in (even, odd))
    rates = np.geomspace(1e-3, 1, points) if rates is None else rates
    axes = [{"learning_rate": {"dtype": "float64", "values": rates}, "of": {"values": np.arange(3)}}]
    return a_manifest(partition=Partition(tuple(groups)), plan={"result": {"axes": axes}})


@pytest.fixture
def long(tmp_path):
    return Store.create(tmp_path / "run", a_long_manifest(), files=QUICK)


def lists_of(store):
    (path,) = store.path.glob("lists-*.npz")
    return path


def axes_of(store):
    return Store.open(store.path).manifest.plan["result"]["axes"][0]


def test_long_lists_lie_beside_a_small_manifest_and_come_back(long):
    assert axes_of(long)["of"]["values"] == [0, 1, 2]
    found = axes_of(long)["learning_rate"]["values"]
    assert (
        np.array_equal(np.asarray(found), np.geomspace(1e-3, 1, LONG)) and np.asarray(found, np.float32).dtype == "f4"
    )
    assert long.partition == a_long_manifest().partition and long.run == a_long_manifest().run
    longer = a_long_manifest(points=2 * LONG)
    far = Store.create(long.path.with_name("far"), longer, files=QUICK)
    assert (far.path / "manifest.json").stat().st_size < 5_000
    assert far.partition == longer.partition and Store.open(far.path).run == far.run == longer.run != long.run
    with np.load(lists_of(far), allow_pickle=False) as file:
        assert sorted(map(len, (file[name] for name in file.files if len(name) == 64))) == [LONG, LONG, 2 * LONG]


def test_the_lists_come_before_the_manifest_and_a_run_of_others_leaves_them_alone(tmp_path, long):
    events = []
    link, replace = FILES.link, FILES.replace
    files = QUICK._replace(
        link=lambda a, b: (events.append(b.name), link(a, b)),
        replace=lambda a, b: (events.append(b.name), replace(a, b)),
    )
    Store.create(tmp_path / "new", a_long_manifest(), files=files)
    assert events == [lists_of(long).name, "manifest.json"]
    first = (lists_of(long).stat().st_mtime_ns, np.asarray(axes_of(long)["learning_rate"]["values"])[0])
    second = Store.create(long.path, a_long_manifest(np.geomspace(1e-5, 1, LONG)))
    assert (lists_of(second).stat().st_mtime_ns, np.asarray(axes_of(second)["learning_rate"]["values"])[0]) == first


def other_lists(path):
    """A whole file of lists, but of others, under the names of these."""
    with np.load(path) as file:
        (name,) = set(file.files) - {"about", "checksum"}
    return b"".join(bytes(piece) for piece in arrays.pack_arrays({"kind": "lists"}, {name: np.zeros(LONG)}))


DAMAGE = {
    "gone": (lambda path: path.unlink(), "it is missing"),
    "cut": (lambda path: os.truncate(path, 5_000), "is damaged"),
    "others": (lambda path: path.write_bytes(other_lists(path)), "its checksum does not match"),
    "of another size": (lambda path: path.write_bytes(other_lists(path)[:0]), "is damaged"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_lists_that_are_lost_are_told_when_they_are_read_and_made_anew(long, case):
    change, message = DAMAGE[case]
    put(long, 0)
    path = lists_of(long)
    change(path)
    assert Store.open(long.path).status().finished == 1  # which needs none of them
    with pytest.raises(DamagedFileError, match=rf"lists-.*npz.*{message}.*Remove it and manifest\.json, and run"):
        np.asarray(axes_of(long)["learning_rate"]["values"])
    path.unlink(missing_ok=True)
    (long.path / "manifest.json").unlink()
    again = Store.create(long.path, a_long_manifest())
    assert np.asarray(axes_of(again)["learning_rate"]["values"])[-1] == 1 and again.status(verify=True).damaged == ()


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda c: c["lists"].update(file="../elsewhere.npz"), "lists.file is not the name"),
        (lambda c: c["lists"].update(kinds={}, file=lists.lists_name([])), "names a list that it does not have"),
        (lambda c: c["plan"].update(result={"$list": [1]}), "names a list that it does not have"),
        (lambda c: c["lists"]["kinds"][next(iter(c["lists"]["kinds"]))].update(dtype="O"), "dtype is none of"),
        (lambda c: c.pop("lists"), "lists is not a table"),
        (lambda c: c.update(format=1), "names a list that it does not have"),
    ],
)
def test_a_manifest_whose_lists_somebody_made_is_refused(long, change, message):
    edited(long, change)
    with pytest.raises(DamagedFileError, match=rf"manifest.json: it is damaged: .*{message}"):
        Store.open(long.path)


def test_a_manifest_is_of_the_least_format_that_holds_it(store, tmp_path):
    short = json.loads((store.path / "manifest.json").read_text())
    far = Store.create(tmp_path / "far", a_long_manifest(), files=QUICK)
    assert (short["format"], "lists" in short) == (1, False)
    assert json.loads((far.path / "manifest.json").read_text())["format"] == 2
    with np.load(path_of(far, 0) if put(far, 0) else "") as file:
        assert json.loads(file["about"].tobytes())["format"] == 1, "tiles are the same in both"


# Blocks that ran smaller


def test_tiles_that_ran_narrower_say_so_and_the_status_finds_them_without_reading_others(full):
    path_of(full, 4).unlink()
    rows = of_lanes(full.partition.lanes_of(4))
    plain = full._replace(path=full.path)
    assert full.put_tile(4, rows, {(1, 1), (1, 2)}) and full.read_tile(4).narrower == ((1, 1), (1, 2))
    path_of(full, 5).with_suffix(".narrower").write_bytes(b"")  # of a writer that died, before another wrote the tile
    path_of(full, 6).unlink()
    path_of(full, 6).with_suffix(".narrower").write_bytes(b"")
    store, read = counting(plain)
    assert store.status().narrower == (4,) and set(read) == {4, 5, 6}
    assert full.columns().narrower == {4: ((1, 1), (1, 2))}
    assert full.put_tile(6, of_lanes(full.partition.lanes_of(6)), [(1, 1)])  # the name is there already
    assert full.status().narrower == (4, 6)


def test_what_a_tile_says_of_smaller_blocks_is_not_believed(full):
    about = full._about("tile", 2) | {"narrower": [["a", 1], 3, [True, 1], [2, 1]]}
    pieces = arrays.pack_arrays(about, of_lanes(full.partition.lanes_of(2)))
    path_of(full, 2).write_bytes(b"".join(map(bytes, pieces)))
    assert full.read_tile(2).narrower == ((2, 1),)


def test_the_checksum_and_the_digest_are_what_the_document_says(store):
    content = json.loads((store.path / "manifest.json").read_text())
    said = content.pop("checksum")

    def text(part):
        found = json.dumps(part, sort_keys=True, separators=(",", ":"))
        return f"str {len(found)}\n{found}".encode()

    assert hashlib.sha256(text(content)).hexdigest() == said
    parts = [text(content[name]) for name in ("fingerprint", "groups", "columns")]
    assert hashlib.sha256(b"".join(parts)).hexdigest() == store.run


def test_newer_and_older_formats_are_told_and_added_parts_are_left_alone(store):
    edited(store, lambda c: c.update(later={"added": [1]}))
    assert Store.open(store.path).manifest == store.manifest
    edited(store, lambda c: c.update(format=3, gdkit="9.9", groups="otherwise"))
    with pytest.raises(
        StoreError, match=r"has format 3 and this gdkit reads formats 1 to 2; gdkit 9\.9 wrote it\. Install a newer"
    ):
        Store.open(store.path)
    edited(store, lambda c: c.update(format=0, gdkit="0.0"))
    with pytest.raises(StoreError, match=r"has format 0.*Open it with that version, or name another directory"):
        Store.create(store.path, a_manifest())


def test_a_missing_manifest_is_made_anew_only_where_it_fits_the_tiles(full):
    (full.path / "manifest.json").unlink()
    with pytest.raises(StoreError, match="it is missing, and the tiles cannot be read without it"):
        Store.open(full.path)
    with pytest.raises(StoreError, match=r"it is missing, and the tiles.*Run again with the same config, plan"):
        Store.create(full.path, a_manifest(partition=a_partition(width=1)))
    assert not (full.path / "manifest.json").exists()
    again = Store.create(full.path, a_manifest())
    assert again.run == full.run and again.status(verify=True).damaged == ()


def test_where_there_is_no_run_it_is_told(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(StoreError, match=r"no run is stored here\. Name a directory that `gdkit run` or"):
            Store.open(path)
    assert not (tmp_path / "nowhere").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="the manifest cannot be written"):
        Store.create(tmp_path / "file", a_manifest())


# All tiles together


def counting(store):
    """The store, and a list of the tiles that are read from it."""
    read = []

    def opening(path):
        if path.suffix == ".npz":
            read.append(int(path.stem))
        return FILES.open(path)

    return store._replace(files=FILES._replace(open=opening)), read


def test_columns_are_in_the_order_of_lanes_and_each_tile_is_read_once(full):
    store, read = counting(full)
    values, finished, narrower = store.columns()
    assert finished.all() and not narrower and same(values, of_lanes(np.arange(28)))
    assert sorted(read) == list(range(full.partition.tiles))
    assert list(store.columns(["end_step"]).values) == ["end_step"]
    with pytest.raises(InputValueError, match="Did you mean 'end_step'"):
        store.columns(["end_stop"])


def test_lanes_that_are_not_finished_are_told_from_those_that_are(full):
    lost = full.partition.lanes_of(2)
    path_of(full, 2).unlink()
    values, finished, _ = full.columns()
    assert np.flatnonzero(~finished).tolist() == sorted(lost)
    assert np.isnan(values["final_loss"][lost]).all() and not values["end_step"][lost].any()
    assert np.isnan(full.lazy_columns()["final_loss"].values[lost]).all()


def test_columns_that_no_memory_holds_are_refused_before_it_is_taken_and_read_lazily(tmp_path):
    wide = StoredGroup(0, (2**38,), (0,), (None,), seeds=1, width=1024, depth=1, tile=2**14)
    store = Store.create(tmp_path, a_manifest(partition=Partition((wide,))))
    with pytest.raises(StoreError, match=r"274,877,906,944 lanes take 8,192\.0 GiB.*lazy_columns"):
        store.columns()
    with pytest.raises(StoreError, match=r"1,024\.0 GiB"):
        store.columns(["end_step"])
    assert np.isnan(store.lazy_columns()["final_loss"].isel(lane=-1))


def test_lazy_columns_read_only_the_tiles_that_are_asked_for(full):
    store, read = counting(full)
    lazy, wanted = store.lazy_columns(), of_lanes(np.arange(28))
    assert lazy.sizes == {"lane": 28, "point": 3} and lazy["end_step"].dtype == np.int32 and not read
    assert same({str(n): v.values for n, v in lazy.isel(lane=[7]).items()}, of_lanes([7]))
    assert set(read) == {int(full.partition.tiles_of([7])[0][0])} and len(read) == 3  # once a column
    read.clear()
    lanes = full.partition.lanes_of(3)
    found = lazy["curve_loss"].isel(lane=lanes).isel(point=slice(None, None, -2)).values
    assert np.array_equal(found, wanted["curve_loss"][lanes][:, ::-2], equal_nan=True) and read == [3]
    for key in (slice(3, 20, 4), 5, -1, np.array([20, 3, 3, 27]), slice(0, 0), slice(None, None, -1)):
        assert np.array_equal(lazy["final_loss"].isel(lane=key), wanted["final_loss"][key])
        assert np.array_equal(lazy["curve_loss"].isel(lane=key, point=[1, 0]), wanted["curve_loss"][key][..., [1, 0]])
    read.clear()
    assert np.array_equal(lazy["final_loss"].values, wanted["final_loss"])
    assert sorted(read) == list(range(full.partition.tiles))


# Claims, and how far a run is


def test_a_claim_keeps_others_away_until_it_is_stale_or_its_process_dead(store):
    other = store._claim_path(3)
    assert store.claim(3) and store.claim(3) and not store.claimed(3)  # one's own
    mine = json.loads(other.read_text())
    other.write_text(json.dumps(mine | {"host": "elsewhere"}))
    assert store.claimed(3) and not store.claim(3)
    os.utime(other, (time.time() - 100,) * 2)
    assert store.claimed(3) and not store.claimed(3, younger_than=99)
    store.renew(3)
    assert store.claimed(3, younger_than=99)
    os.utime(other, (time.time() - 100,) * 2)
    assert store.claim(3, younger_than=99) and json.loads(other.read_text())["host"] == mine["host"]
    other.write_text(json.dumps(mine | {"process": 2**22 + 1}))  # beyond the largest that Linux gives
    assert not store.claimed(3) and store.claim(3)
    other.write_text(json.dumps(mine | {"process": 1}))  # alive, and another's
    assert not store.claim(3)
    store.release(3)
    assert store.claim(3)


@pytest.mark.parametrize(
    "text", ["", "{", "[" * 4000, "[]", '{"process": "1"}', '{"host": [], "process": 1e99}', "\x00"]
)
def test_a_claim_that_cannot_be_read_counts_by_its_age_alone(store, text):
    path = store._claim_path(0)
    path.write_text(text)
    assert store.claimed(0) and not store.claim(0)
    os.utime(path, (0, 0))
    assert store.claim(0) and not store.claimed(0)


def test_a_claim_that_cannot_be_made_stops_nobody(store):
    for fail in range(3):
        faults = Faults(fail_at=fail)
        broken = store._replace(files=faults.files)
        assert broken.claim(0)
        store.release(0)
    store._claim_path(0).write_text(json.dumps({"host": "elsewhere", "process": 1}))
    shutil.rmtree(store.path / "claims")
    store.renew(0)
    store.release(0)
    assert store.claim(0) and not store.claimed(0) and store.claims() == {}


def test_a_million_tiles_have_ten_thousand_claims(tmp_path):
    many = Partition((StoredGroup(0, (10**6,), (0,), (None,), 1, 1, 1, 1),))
    store = Store.create(tmp_path / "run", a_manifest(partition=many))
    shared = store.tiles_of_claim(123_456)
    assert shared == range(123_400, 123_500) and store.claim(123_456) and list(store.claims()) == [123_400]
    status = store.status()
    assert (status.in_flight, status.missing) == (100, 10**6 - 100)
    put(store, 999_999)
    assert (store.path / "tiles" / "0999" / "0999999.npz").exists() and np.flatnonzero(store.finished()) == [999_999]


def test_the_status_comes_from_names_alone(store):
    for tile in (0, 2):
        put(store, tile)
    store.put_carry(store.partition.blocks_of(2)[0], 600, [np.zeros(2)])  # of a finished tile
    store.put_carry(store.partition.blocks_of(3)[0], 128, [np.zeros(2)])
    store.put_carry(store.partition.blocks_of(4)[0], 64, [np.zeros(2)])
    (store.path / "carry" / "0000" / f"{store.partition.blocks_of(4)[0]:07d}.npz").write_bytes(b"")
    store.claim(5)
    for name in ("tiles/0000/.0000001.npz.host.1.2-3.tmp", "tiles/0000/0005001.npz", "tiles/0000/7.npz", "tiles/x"):
        (store.path / name).write_bytes(b"")
    counted, read = counting(store)
    status = counted.status()
    assert status[:5] == (store.partition.tiles, 2, 3, store.partition.tiles - 5, None)
    assert status.lanes == 28 and status.lanes_done == store.partition.rows_per_tile()[[0, 2]].sum()
    assert status.carries == {3: 128, 4: None} and list(status.claims) == [5] and status.claims[5].is_mine
    assert sorted(read) == [3, 4]


def test_what_interrupted_writers_left_behind_is_finished_or_removed_and_that_of_others_is_not(store):
    whole, half, known = (written_by_the_dead(store, tile) for tile in (0, 2, 3))
    half.write_bytes(half.read_bytes()[:-1])
    put(store, 3)
    store.put_carry(store.partition.blocks_of(0)[0], 64, [np.zeros(2)])
    for tile in (3, 5):  # the first was named by a process that was killed before it could forget its lanes
        store.put_carry(store.partition.blocks_of(tile)[0], 64, [np.zeros(2)])
    mine = store.write_tile(4, of_lanes(store.partition.lanes_of(4)))
    claimed_by_the_dead(store, 3)
    claimed_by_the_dead(store, 5)
    store.claim(4)
    assert store.clean_up() == 3
    assert store.finished().nonzero()[0].tolist() == [0, 3] and list(store.claims()) == [4]
    assert list(store.carries()) == [store.partition.blocks_of(5)[0]]
    assert same(store.tile(0), of_lanes(store.partition.lanes_of(0)))
    assert mine.exists()  # of this process, which lives
    store.name_tile(4, mine)
    foreign, old = (mine.with_name(f".0000001.npz.elsewhere.7.8-{n}.tmp") for n in "ab")
    foreign.write_bytes(b"")
    old.write_bytes(b"")
    os.utime(old, (0, 0))
    assert store.clean_up() == 1 and list(foreign.parent.glob("*.tmp")) == [foreign]
    assert store.finished().nonzero()[0].tolist() == [0, 3, 4] and not (
        whole.exists() or half.exists() or known.exists()
    )


def written_by_the_dead(store, tile):
    """A tile that a process wrote and was killed before it could name it."""
    left = store.write_tile(tile, of_lanes(store.partition.lanes_of(tile)))
    return left.rename(left.with_name(left.name.replace(f".{os.getpid()}.", f".{2**22 + 1}.")))


def claimed_by_the_dead(store, tile):
    """A tile that a process worked on which is no more."""
    store.claim(tile)
    path = store.path / "claims" / f"{tile:07d}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"process": 2**22 + 1}))


@pytest.mark.parametrize("change", ["another tile's name", "no tile's name", "of another run", "a tile elsewhere"])
def test_what_only_looks_like_a_tile_that_was_left_behind_gets_no_name(store, tmp_path, change):
    if change == "of another run":
        other = Store.create(tmp_path / "other", a_manifest(fingerprint={"steps": 999}))
        left = written_by_the_dead(other, 0)
        (store.path / "tiles" / "0000").mkdir()
        left.rename(store.path / "tiles" / "0000" / left.name)
    else:
        left = written_by_the_dead(store, 0)
        if change.endswith("name"):
            number = "0000001" if change == "another tile's name" else "0000999"
            left.rename(left.with_name(left.name.replace("0000000", number)))
        else:
            (store.path / "carry" / "0000").mkdir()
            left.rename(store.path / "carry" / "0000" / left.name)
    assert store.clean_up() == 1
    assert not store.finished().any() and not list(store.path.rglob("*.tmp"))


# Several at once


def test_threads_that_write_everything_at_once_agree(tmp_path):
    def work(number, barrier, path, found):
        barrier.wait()
        store = Store.create(path, a_manifest(partition=a_partition(width=number + 1)))
        found.append(store.run)
        for tile in range(store.partition.tiles):
            put(store, tile)

    for race in range(10):
        path, barrier, found = tmp_path / str(race), threading.Barrier(3), []
        crew = [threading.Thread(target=work, args=(n, barrier, path, found)) for n in range(3)]
        for thread in crew:
            thread.start()
        for thread in crew:
            thread.join()
        assert len(found) == 3 and len(set(found)) == 1
        assert same(Store.open(path).columns().values, of_lanes(np.arange(28)))


RACES = """
    import os, signal, sys, time
    from pathlib import Path
    import numpy as np
    from gdkit.store import Kind, Manifest, Partition, Store, StoredGroup

    def wanted(width):
        group = StoredGroup(0, (20,), (0,), (None,), 3, width, 2, 1)
        return Manifest({"steps": 1}, Partition((group,)), {"x": Kind("float64", (5,))}, 3, 1, "float32")

    def put_all(store):
        for tile in range(store.partition.tiles):
            lanes = store.partition.lanes_of(tile).astype(float)
            store.put_tile(tile, {"x": np.repeat(lanes[:, None], 5, 1)})

    def forked(work):
        child = os.fork()
        if not child:
            code = 1
            try:
                work()
                code = 0
            finally:
                os._exit(code)
        return child

    def right(store):
        values, finished, _ = store.columns()
        return np.array_equal(values["x"][finished, 0], np.flatnonzero(finished)), finished

    root, firsts = Path(sys.argv[1]), set()
    for race in range(int(sys.argv[2])):
        path, start = root / str(race), time.monotonic() + 0.005
        def work(width):
            while time.monotonic() < start:
                pass
            put_all(Store.create(path, wanted(width)))
        children = [forked(lambda: work(2)), forked(lambda: work(5))]
        assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
        store = Store.open(path)
        ok, finished = right(store)
        assert ok and finished.all() and store.status(verify=True).damaged == ()
        assert not list(path.rglob("*.tmp"))
        firsts.add(store.partition.groups[0].width)

    killed = 0
    for race in range(int(sys.argv[3])):
        path = root / f"killed{race}"
        Store.create(path, wanted(1))
        child = forked(lambda: put_all(Store.open(path)))
        time.sleep(0.03 * race / int(sys.argv[3]))
        os.kill(child, signal.SIGKILL)
        killed += os.waitpid(child, 0)[1] == signal.SIGKILL
        store = Store.open(path)
        ok, finished = right(store)
        assert ok and store.status(verify=True).damaged == ()
        put_all(store)
        store.clean_up()
        assert right(store)[1].all() and not list(path.rglob("*.tmp"))
    print(sorted(firsts), killed)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(("races", "kills"), [(8, 5), pytest.param(50, 30, marks=pytest.mark.full)])
def test_races_of_two_processes_and_kills_end_in_whole_directories(tmp_path, races, kills):
    said = in_a_process(RACES, tmp_path, races, kills)
    assert re.match(r"\[.*[25].*\] [1-9]", said), said


# The document


def test_the_code_in_the_document_reads_long_lists(tmp_path, monkeypatch):
    store = Store.create(tmp_path / "runs" / "mine", a_long_manifest(points=2 * LONG), files=QUICK)
    for tile in range(store.partition.tiles):
        put(store, tile)
    monkeypatch.chdir(tmp_path)
    namespace = {}
    exec(compile(the_code(), "format.md", "exec"), namespace)
    assert same(namespace["columns"], of_lanes(np.arange(4 * LONG)))
    found = namespace["manifest"]["plan"]["result"]["axes"][0]["learning_rate"]["values"]
    assert np.array_equal(found, np.geomspace(1e-3, 1, 2 * LONG))


def the_code():
    text = (ROOT / "docs" / "format.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    return block


def test_the_code_in_the_document_reads_a_run_with_numpy_and_json_alone(tmp_path, full, monkeypatch):
    block = the_code()
    assert set(re.findall(r"^(?:import|from) (\w+)", block, re.MULTILINE)) <= {
        "hashlib",
        "json",
        "pathlib",
        "numpy",
        "math",
    }
    (tmp_path / "runs").mkdir()
    full.path.rename(tmp_path / "runs" / "mine")
    monkeypatch.chdir(tmp_path)
    namespace = {}
    exec(compile(block, "format.md", "exec"), namespace)
    assert same(namespace["columns"], of_lanes(np.arange(28)))
    path = next((tmp_path / "runs" / "mine" / "tiles").rglob("0000003.npz"))
    members = members_of(path) | {"end_step.npy": npy(np.zeros(len(full.partition.lanes_of(3)), np.int32))}
    path.write_bytes(stored(members.items()))
    with pytest.raises(AssertionError, match="damaged"):
        exec(compile(block, "format.md", "exec"), {})


def test_the_document_tells_the_format_and_every_field_of_the_manifest(long):
    text = (ROOT / "docs" / "format.md").read_text(encoding="utf-8")
    content = json.loads((long.path / "manifest.json").read_text())
    names = [*content, *content["lists"], *content["groups"][0], "kind", "number", "run", "step", "bits", "narrower"]
    assert [name for name in names if f"`{name}`" not in text] == []
    assert f"format {manifest.FORMAT}" in text
