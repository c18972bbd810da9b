"""Reports and the status of results that no config made: from Python, from run directories, from files."""

import html
import json
import re

import numpy as np
import pytest

import gdkit
from gdkit import GdkitError, SweepResult, problems, sgd, sweep
from gdkit.app.cli import main

RATES = np.geomspace(0.01, 2.0, 6)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A sweep with its run directory, and its file of results."""
    folder = tmp_path_factory.mktemp("made")
    result = sweep(problems.parabola(), sgd, {"learning_rate": RATES}, steps=60, store=folder / "run")
    result.save(folder / "sweep.nc")
    return folder, result


def embedded(path):
    """The numbers in a report, which the page's program reads, and its text."""
    page = path.read_text(encoding="utf-8")
    data = re.search(r'<script type="application/json" id="sweep">(.*?)</script>', page, re.DOTALL)
    return json.loads(html.unescape(data[1])), page


def elsewhere(**arrays):
    return SweepResult.from_arrays({"learning_rate": [0.1, 0.2, 0.3]}, arrays)


def test_a_result_writes_its_report(made, tmp_path):
    _, result = made
    assert result.report(tmp_path, title="<b>first") == tmp_path / "report.html"
    data, page = embedded(tmp_path / "report.html")
    assert data["lanes"] == len(RATES) and data["by"] == "final_loss" and data["name"] == "<b>first"
    assert "&lt;b&gt;first</h1>" in page and "6 runs of 60 steps" in page
    assert f"learning rate {result.recommend().best:.3g}" in page
    assert "<img" in page  # figures for readers without JavaScript


@pytest.mark.full
def test_results_from_elsewhere_have_reports(tmp_path):
    values = np.array([[0.3, 0.2, 0.25], [0.1, 0.15, 0.1], [0.4, 0.5, 0.45]])
    data, page = embedded(elsewhere(error=values).report(tmp_path / "b.html"))
    assert data["by"] == "error" and data["lanes"] == 9 and data["name"] == "b"
    assert "Use learning rate 0.2" in page and "trained elsewhere" in page
    assert "<h2>Outcome by" not in page  # of regimes nothing is known
    data, page = embedded(elsewhere(loss=values[..., None] * np.linspace(2, 1, 20)).report(tmp_path / "c.html"))
    assert data["curves"] and "9 runs of 19 steps" in page and "<h2>Outcome by" in page


def test_a_result_without_finished_runs_or_without_the_variable_has_no_report(made, tmp_path):
    result = made[1]
    with pytest.raises(GdkitError, match="no such name"):
        result.report(tmp_path / "a.html", by="lass")
    unfinished = SweepResult(result.lanes.assign(end_kind=0 * result.lanes["end_kind"]), result.grids)
    with pytest.raises(GdkitError, match="none has finished"):
        unfinished.report(tmp_path / "a.html")
    assert not list(tmp_path.iterdir())


@pytest.mark.full
def test_report_and_status_take_run_directories_of_the_library(made, capsys):
    folder, result = made
    run = str(folder / "run")
    assert main(["status", run]) == 0
    shown = capsys.readouterr().out
    assert "6 of 6 runs are finished" in shown and f"gdkit report {run}" in shown
    assert main(["report", run]) == 0
    assert f"report   {run}/report.html" in capsys.readouterr().out.replace("\\", "/")
    data, page = embedded(folder / "run" / "report.html")
    assert data["lanes"] == 6 and data["name"] == "run" and gdkit.open(run).lanes.attrs["run"] in page
    assert main(["status", run]) == 0
    assert f"report: {run}/report.html" in capsys.readouterr().out
    again = sweep(problems.parabola(), sgd, {"learning_rate": RATES}, steps=60, store=run)
    assert again.lanes["final_loss"].identical(result.lanes["final_loss"])  # the report is not in the way


@pytest.mark.full
def test_report_and_status_take_files_of_results(made, tmp_path, capsys):
    folder, file = made[0], tmp_path / "saved.nc"
    file.write_bytes((folder / "sweep.nc").read_bytes())
    assert main(["status", str(file)]) == 0
    assert f"gdkit report {file}" in capsys.readouterr().out
    assert main(["report", str(file)]) == 0
    assert f"report   {tmp_path / 'saved.html'}" in capsys.readouterr().out
    data, _ = embedded(tmp_path / "saved.html")
    assert data["lanes"] == 6 and data["name"] == "saved"
    file.write_bytes(file.read_bytes()[:-200])
    for command in ("report", "status"):
        assert main([command, str(file), *["-o", str(tmp_path / "other.html")] * (command == "report")]) == 1
        assert "it cannot be used" in capsys.readouterr().err
    assert not (tmp_path / "other.html").exists()


def test_the_status_of_what_is_no_run_is_bad_input(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for words in (["nope"], ["empty"], ["nope", "--json"]):
        assert main(["status", str(tmp_path / words[0]), *words[1:]]) == 2
        assert f"DIR='{tmp_path / words[0]}': not the folder of a run. Give a folder" in capsys.readouterr().err


def test_an_unfinished_run_of_the_library_is_reported_as_such(tmp_path, capsys):
    run = tmp_path / "part"
    sweep(problems.parabola(), sgd, {"learning_rate": RATES}, steps=60, store=run, plan=gdkit.Plan(width=2, tile=1))
    next((run / "tiles").rglob("0000001.npz")).unlink()
    assert main(["status", str(run)]) == 0
    assert f"the same call in Python, with store={str(run)!r}" in capsys.readouterr().out
    assert main(["report", str(run)]) == 0
    assert "have not finished; this report covers the others" in capsys.readouterr().out
    data, page = embedded(run / "report.html")
    assert data["lanes"] == 4 and "2 of 6 runs have not finished" in page
