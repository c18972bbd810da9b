"""Results, reports and figures are what was written, or are named: no damage gives other numbers."""

import contextlib
import dataclasses
import functools
import hashlib
import io
import json
import os
import pickle
import re
import resource
import shutil
import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest
import synthetic
import xarray as xr
from faults import filling
from matplotlib.figure import Figure

import gdkit
from gdkit import plots, store
from gdkit.app.cli import main
from gdkit.app.report import figures
from gdkit.app.run.hooks import Hooks
from gdkit.app.run.outputs import write_report
from gdkit.errors import DamagedFileError, GdkitWarning, StoreError
from gdkit.store.netcdf import SEAL

UNDRAWN = Hooks(write_report=functools.partial(write_report, draw=lambda *_: []))
CONFIG = """\
name: small
problem: {name: parabola}
optimizer: {name: sgd, label: one}
thresholds: {converged_gap: 0.5}
sweep: {axes: {learning_rate: [0.01, 0.1, 0.5, 1.1]}, steps: 20}
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The folder of two finished runs, with reports, the first with figures."""
    folder = tmp_path_factory.mktemp("integrity")
    for name, steps in {"run": 20, "other": 30}.items():
        (folder / f"{name}.yaml").write_text(CONFIG.replace("steps: 20", f"steps: {steps}"))
        hooks = None if name == "run" else UNDRAWN
        assert main(["run", str(folder / f"{name}.yaml"), "--output", str(folder / name)], hooks) == 0
    return folder


@pytest.fixture
def run(root, tmp_path):
    return Path(shutil.copytree(root / "run", tmp_path / "run"))


@pytest.fixture(scope="module")
def truth(root):
    """The columns as the tiles have them."""
    return store.Store.open(root / "run").columns().values


def assert_true(result, truth):
    for name, values in truth.items():
        np.testing.assert_array_equal(result.lanes[name], values)
    assert result.lanes.sizes["lane"] == 4 and result.thresholds.converged_gap == 0.5


def flip(at):
    return lambda raw: raw[: at % len(raw)] + bytes([raw[at % len(raw)] ^ 16]) + raw[at % len(raw) + 1 :]


def hdf5(**content):
    """Bytes of a file of HDF5."""
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        for name, value in content.items():
            file[name] = value
    return stream.getvalue()


DAMAGES = {
    **{f"bit {at} flipped": flip(at) for at in (3, 40, 700, 2_500, 9_000, -1, -10, -66, -75, -200)},
    **{f"cut to {n} bytes": lambda raw, n=n: raw[:n] for n in (0, 7, 513, 5_000, -1, -65, -90)},
    "zeros in the middle": lambda raw: raw[:3000] + bytes(2000) + raw[5000:],
    "zeros at the end": lambda raw: raw[:-1000] + bytes(1000),
    "zeros throughout": lambda raw: bytes(len(raw)),
    "bytes appended": lambda raw: raw + b"\n",
    "checksum removed": lambda raw: raw[: raw.rindex(SEAL.before)],
    "a pickle": lambda raw: pickle.dumps(os.getcwd),
    "HDF5 of another program": lambda raw: hdf5(final_loss=np.zeros(4)),
    "HDF5 of another program, signed": lambda raw: b"".join(SEAL.sign([hdf5(final_loss=np.zeros(4))])),
    "no HDF5, signed": lambda raw: b"".join(SEAL.sign([b"nothing"])),
}


@pytest.mark.parametrize("way", DAMAGES)
def test_damaged_results_are_named_and_the_tiles_are_read(run, truth, way):
    file = run / "results.nc"
    file.write_bytes(DAMAGES[way](file.read_bytes()))
    with pytest.raises(DamagedFileError, match=r"results\.nc: it cannot be used: .*Open the folder of its run"):
        gdkit.open(file)
    with pytest.warns(GdkitWarning, match=r"results\.nc: it cannot be used: .*The tiles are read instead"):
        assert_true(gdkit.open(run), truth)
    lone = shutil.copy(file, run.parent / "lone.nc")
    with pytest.raises(DamagedFileError, match=r"lone\.nc: it cannot be used"):
        gdkit.open(lone)


@pytest.mark.full
def test_results_of_another_run_or_of_a_part_are_named_and_the_tiles_are_read(root, run, truth):
    other, running, memory = gdkit.open(root / "other"), gdkit.open(run), synthetic.result()
    half = dataclasses.replace(running, lanes=running.lanes.isel(lane=[0, 1]))
    running.lanes["end_kind"][1] = 0
    for cause, results in {"it holds another run": [other, memory], "a part of the run": [half, running]}.items():
        for result in results:
            result.save(run / "results.nc")
            with pytest.warns(GdkitWarning, match=cause):
                assert_true(gdkit.open(run), truth)
            with pytest.raises(DamagedFileError, match=cause):
                gdkit.open(run / "results.nc")


def test_whole_results_are_read_without_a_word_and_without_the_tiles(run, truth):
    shutil.rmtree(run / "tiles")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_true(gdkit.open(run), truth)
        assert_true(gdkit.open(run / "results.nc"), truth)
    (run / "manifest.json").write_text("{")
    with pytest.warns(GdkitWarning, match=r"manifest\.json: it is damaged.*Its results are read"):
        assert_true(gdkit.open(run), truth)


def test_other_programs_can_read_and_verify_the_file(run, truth):
    raw = (run / "results.nc").read_bytes()
    digits = raw.rstrip(b"\n")[-64:]
    assert hashlib.sha256(raw[: raw.rindex(digits)]).hexdigest().encode() == digits
    with xr.open_dataset(run / "results.nc") as lanes:
        assert lanes.attrs["run"] == store.Store.open(run).run
        for name, values in truth.items():
            np.testing.assert_array_equal(lanes[name], values)
            text = f"{values.dtype.name} {values.shape} {values.nbytes}\n".encode()
            assert lanes[name].attrs["sha256"] == hashlib.sha256(text + values.tobytes()).hexdigest()


def test_bits_of_nan_and_texts_survive_a_file(tmp_path):
    result = synthetic.result(("a", "β"))
    lanes = result.lanes.sizes["lane"]
    nans = np.resize(np.array([0x7FC00000, 0xFFC00000, 0x7F800001, 0xFFFFFFFF], np.uint32), lanes).view(np.float32)
    result.lanes["final_loss"] = ("lane", nans)
    result.save(tmp_path / "r.nc")
    opened = gdkit.open(tmp_path / "r.nc").lanes
    assert opened["final_loss"].values.tobytes() == nans.tobytes()
    assert opened["optimizer"].values.tolist() == ["a"] * (lanes // 2) + ["β"] * (lanes // 2)
    assert "sha256" not in result.lanes["final_loss"].attrs and opened["final_loss"].attrs == {}


# A full disk


@pytest.mark.parametrize("room", [0, 1, 8_192])
def test_a_full_disk_leaves_the_old_results_and_names_the_file(run, truth, room):
    result, path = gdkit.open(run), run / "results.nc"
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"results\.nc: it cannot be written \(No space left on device\)\. Make room"):
        store.save(result.lanes, path, files=filling(room))
    assert path.read_bytes() == before and not list(run.rglob("*.tmp"))


@contextlib.contextmanager
def short_files(most):
    """No file may grow beyond so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("most", [100, 9_000, 30_000])
def test_a_full_disk_leaves_the_old_report_and_names_the_file(run, capsys, most):
    page = run / "report.html"
    before = page.read_bytes()
    with short_files(most):
        assert main(["report", str(run)], UNDRAWN) == 1
    said = f"{page}: it cannot be written (File too large). Make room and run the same command again."
    assert said in capsys.readouterr().err
    assert page.read_bytes() == before and not list(run.rglob("*.tmp"))


def test_a_full_disk_leaves_the_old_figure_and_names_the_file(tmp_path):
    figure = Figure(figsize=(1, 1))
    figure.subplots()
    files = plots.save(figure, tmp_path / "small")
    before = [file.read_bytes() for file in files]
    with short_files(100), pytest.raises(StoreError, match=r"small\.png: it cannot be written \(File too large\)"):
        plots.save(figure, tmp_path / "small")
    assert [file.read_bytes() for file in files] == before and len(list(tmp_path.iterdir())) == 2


# Reports and figures


def test_report_of_damaged_results_is_that_of_the_run_and_writes_them_again(run, truth, capsys):
    assert main(["report", str(run)], UNDRAWN) == 0
    answer, page = capsys.readouterr().out, (run / "report.html").read_bytes()
    file = run / "results.nc"
    raw = file.read_bytes()
    for damaged in (flip(2_500)(raw), raw[:4_000], b""):
        file.write_bytes(damaged)
        assert main(["report", str(run)], UNDRAWN) == 0
        said = capsys.readouterr()
        assert said.out == answer and (run / "report.html").read_bytes() == page
        assert "results.nc: it cannot be used" in said.err and "results.nc: rebuilt from the tiles" in said.err
        assert_true(gdkit.open(file), truth)


def test_report_and_figures_carry_the_digest_of_their_run(root):
    for name in ("run", "other"):
        digest = store.Store.open(root / name).run
        page = (root / name / "report.html").read_text()
        assert f'<meta name="gdkit-run" content="{digest}">' in page
    drawn = sorted((root / "run" / "figures").iterdir())
    digest = store.Store.open(root / "run").run
    assert len(drawn) == 4 and all(digest.encode() in path.read_bytes() for path in drawn)


def test_status_names_a_damaged_report_and_that_of_another_run(root, run, capsys):
    page = run / "report.html"
    whole = page.read_bytes()
    other = (root / "other" / "report.html").read_bytes()
    wrong = {"is damaged": [flip(5_000)(whole), flip(-20)(whole), whole[:9_000]], "is that of another run": [other]}
    for said, contents in wrong.items():
        for content in contents:
            page.write_bytes(content)
            assert main(["status", str(run)]) == 0
            assert f"the report {said}" in capsys.readouterr().out
    page.write_bytes(whole)
    assert main(["status", str(run)]) == 0
    assert f"report: {page}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "old, new", [("converged_gap: 0.5", "converged_gap: 0.4"), ("label: one", "label: ond"), ("optimizer:", "opti\0")]
)
def test_report_of_a_damaged_config_is_that_of_the_run(run, capsys, old, new):
    assert main(["report", str(run)], UNDRAWN) == 0
    answer = capsys.readouterr().out
    file = run / "config.yaml"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
    assert main(["report", str(run)], UNDRAWN) == 0
    said = capsys.readouterr()
    assert said.out == answer
    assert re.search(r"config\.yaml.*manifest\.json", said.err, re.DOTALL)


def test_time_of_the_run_is_stored_and_verified(run):
    results = run / "results.nc"
    timings = json.loads(gdkit.open(results).lanes.attrs["timings"])
    results.unlink()
    assert json.loads(gdkit.open(run).lanes.attrs["timings"]) == timings and timings["compile_seconds"] > 0
    for content in (flip(300)((run / "timings.npz").read_bytes()), b""):
        (run / "timings.npz").write_bytes(content)
        assert list(json.loads(gdkit.open(run).lanes.attrs["timings"])) == ["seconds"]


def test_temporary_files_of_killed_processes_are_removed_from_the_figures(run):
    left = run / "figures" / f".final_loss.png.{store.files.host()}.{2**22 + 1}.1-ab.tmp"
    left.write_bytes(b"half")
    figures.make_folder(run / "figures")
    assert not left.exists() and len(list((run / "figures").iterdir())) == 4
