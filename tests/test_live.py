"""An unfinished run: the counts of its finished tiles, its page, and how rarely the page is written."""

import base64
import dataclasses
import functools
import io
import json
import threading
from pathlib import Path

import jax
import numpy as np
import pytest
import synthetic
from rich.console import Console

import gdkit
from gdkit import problems, sgd
from gdkit.app import answers, tally, watcher
from gdkit.app.cli import main
from gdkit.app.config.loading import dump, load, loads
from gdkit.app.directory import CONFIG
from gdkit.app.report import embed
from gdkit.app.report.differences import compare_scores
from gdkit.app.run.hooks import Hooks
from gdkit.app.run.outputs import write_partial_report, write_report
from gdkit.app.summary import summarize
from gdkit.app.terminal.progress import ProgressBoard
from gdkit.monitors import EndKind
from gdkit.store import Store
from gdkit.sweeps.execution.progress import Progress
from gdkit.sweeps.execution.settings import DEFAULT_SETTINGS
from gdkit.sweeps.plan.shapes import Plan
from gdkit.sweeps.request import check_request
from gdkit.sweeps.rundir.manifest import RunDirectory
from gdkit.sweeps.sweep import run_request as sweep

CONFIG_TEXT = """\
name: half
problem: {name: parabola}
optimizer: [{name: sgd}, {name: sgd, momentum: 0.5, label: momentum}]
sweep:
  axes: {learning_rate: {log: {from: 1e-2, to: 10, count: 16}}}
  steps: 20
"""
AXES = {"optimizer": {"sgd": sgd, "momentum": (sgd, {"momentum": 0.5})}, "learning_rate": np.geomspace(1e-2, 10, 16)}


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    """A run directory with every second tile finished."""
    folder = tmp_path_factory.mktemp("half") / "run"
    config = loads(CONFIG_TEXT)
    folder.mkdir()
    (folder / CONFIG).write_text(dump(config))
    request = check_request(problems.parabola(), None, AXES, steps=20, plan=Plan(width=2, tile=1))
    result, _ = sweep(request, directory=RunDirectory(folder, dump(config), (0, 2)))
    assert 0 < result.missing < 32
    return folder


@pytest.fixture
def page(half):
    """The report of the half-finished run, and its embedded numbers."""
    write_partial_report(load(half / CONFIG), half, 7.2)
    text = (half / "report.html").read_text()
    return text, json.loads(text.partition('id="sweep">')[2].partition("</script>")[0])


def test_the_tally_counts_the_runs_of_finished_tiles(half):
    counted, result = tally.Tally(Store.open(half)), gdkit.open(half)
    counted.update()
    counted.update()  # a tile is counted once
    for part in counted.optimizers:
        lanes = result.select(optimizer=part.label).lanes
        kinds = lanes["end_kind"].values
        assert part.lanes == len(kinds)
        assert part.finished == np.sum(kinds != EndKind.RUNNING)
        assert part.diverged == np.sum((kinds == EndKind.NONFINITE) | (kinds == EndKind.EXCEEDED)) > 0
        stayed = np.where(kinds == EndKind.STEPS, lanes["final_loss"].values, np.inf)
        assert part.best == pytest.approx(stayed.min())
        assert part.best_at["learning_rate"] == lanes["learning_rate"].values[stayed.argmin()]


@pytest.mark.parametrize("shard", [(0, 1), (0, 2), (1, 2)])
def test_the_tally_ranks_points_by_the_mean_over_their_seeds(shard, tmp_path):
    problem = gdkit.Problem(lambda x: (x * x).sum(), lambda key: jax.random.normal(key, (2,)))
    plan = Plan(width=1, depth=1, tile=4)  # of three seeds: tiles divide points
    axes = {"learning_rate": np.array([0.01, 0.1, 0.2, 0.5, 1.5])}
    request = check_request(problem, sgd, axes, steps=5, seeds=3, plan=plan)
    result, _ = sweep(request, directory=RunDirectory(tmp_path / "run", "", shard))
    counted = tally.Tally(Store.open(tmp_path / "run"))
    counted.update()
    losses = np.where(result.finished, result.lanes["final_loss"].values, np.nan).reshape(5, 3)
    means = np.where(np.isnan(losses).any(axis=1), np.inf, losses.mean(axis=1))
    assert counted.optimizers[0].best == pytest.approx(means.min())
    assert counted.optimizers[0].best_at == {"learning_rate": axes["learning_rate"][means.argmin()]}


def test_the_page_of_an_unfinished_run_says_so_and_embeds_finished_runs_only(half, page):
    text, data = page
    result = gdkit.open(half)
    assert f"{result.missing} of 32 runs have not finished" in text
    assert sum(optimizer["count"] for optimizer in data["optimizers"]) == 32 - result.missing
    assert "still running" not in text.partition("<script")[0]
    kinds = next(column for column in data["columns"] if column["name"] == "end_kind")
    ends = np.frombuffer(base64.b64decode(kinds["data"]), "<i4")
    assert EndKind.RUNNING not in ends


def test_the_page_reloads_itself_within_its_policy(page):
    text, _ = page
    assert '<noscript><meta http-equiv="refresh" content="8"></noscript>' in text
    assert 'data-reload="8"' in text
    assert "default-src 'none'" in text


def test_a_run_without_finished_lanes_has_a_page(tmp_path):
    write_partial_report(loads(CONFIG_TEXT), tmp_path, 5)
    text = (tmp_path / "report.html").read_text()
    assert "No run has finished yet" in text and 'data-reload="5"' in text
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]  # no temporary file is left


def test_a_run_that_has_begun_has_a_page_with_its_curves_so_far(tmp_path):
    config, stop = loads(CONFIG_TEXT), threading.Event()
    (tmp_path / CONFIG).write_text(dump(config))
    request = check_request(problems.parabola(), None, AXES, steps=20, plan=Plan(width=2, tile=8, segment=4, workers=1))
    directory, at_once = RunDirectory(tmp_path, dump(config)), DEFAULT_SETTINGS._replace(progress_seconds=0.0)
    stop_soon = lambda progress: stop.set() if progress.done >= 8 else None
    result, _ = sweep(request, stop_soon, directory=directory, stop=stop, settings=at_once)
    assert result.missing == 32 and list(Store.open(tmp_path).carries())
    write_partial_report(config, tmp_path, 5)
    text = (tmp_path / "report.html").read_text()
    assert "No run has finished yet" in text and text.count("Curves so far of sgd</h2>") == 1
    assert "Curves so far of momentum" not in text  # which has not begun


def test_the_page_of_an_interrupted_run_says_how_to_resume_and_does_not_reload(half):
    write_partial_report(load(half / CONFIG), half, None)
    text = (half / "report.html").read_text()
    assert f"To resume: gdkit run {half / CONFIG} --output {half}" in text
    assert "data-reload" not in text and 'http-equiv="refresh"' not in text


@pytest.fixture
def partial():
    """A result and an unfinished copy: seed 2 and learning rates above 0.2 have not finished."""
    made = synthetic.result(("sgd",), rates=8, edge=1.0)
    lanes = made.lanes.copy(deep=True)
    running = (lanes["seed"].values == 2) | (lanes["learning_rate"].values > 0.2)
    for name, values in lanes.data_vars.items():
        if values.dtype.kind == "f" and name != "reference_loss":
            values.values[running] = np.nan
    lanes["end_kind"].values[running] = EndKind.RUNNING
    return made, dataclasses.replace(made, lanes=lanes)


def test_the_answer_of_an_unfinished_run_uses_its_finished_seeds(partial):
    whole, found = partial
    scores = whole.lanes["validation_loss"].values.reshape(8, 3)[:, :2].mean(axis=1)
    rates = np.geomspace(1e-3, 10, 8)
    place = int(np.argmin(np.where(rates <= 0.2, scores, np.inf)))
    best, recommended = found.best(), found.recommend()
    assert best.score == recommended.mean == pytest.approx(scores[place])
    assert best.hyperparameters["learning_rate"] == recommended.best == pytest.approx(rates[place])
    assert recommended.interval is None and recommended.unsafe is None
    assert not any("diverged" in text for text in recommended.caveats)
    summary = summarize(found)
    assert answers.format_headline(summary).startswith("Partial: 10 of 24 runs finished. Use sgd with learning rate")
    assert "Mean over 2 seeds: " in answers.format_details(summary)
    assert answers.answer_cards(summary)[0].detail == "no interval until all seeds finish"
    assert summary.caveats[0] == f"{found.missing} of 24 runs have not finished and are not included."
    assert sum("not finished" in text for text in summary.caveats) == 1
    content = embed.embed_sweeps(embed.split_by_optimizer(found, summary), summary.by)
    assert content["lanes"] == 24 - found.missing == sum(part["count"] for part in content["optimizers"])
    seeds = summary.best.seeds
    assert compare_scores(seeds, seeds, paired=True).objection == "some seed has not finished"


def test_points_with_all_seeds_finished_rank_before_others(partial):
    whole, found = partial
    lanes = found.lanes.copy(deep=True)
    done = np.isclose(lanes["learning_rate"].values, 1e-3)  # the worst point, but the only one with all seeds
    for name, values in lanes.data_vars.items():
        values.values[done] = whole.lanes[name].values[done]
    found = dataclasses.replace(found, lanes=lanes)
    recommended = found.recommend()
    assert found.best().hyperparameters["learning_rate"] == recommended.plain_best == 1e-3
    assert recommended.best is None and "only one learning_rate was run to its end" in recommended.caveats[0]


def test_an_unfinished_run_speaks_of_its_finished_runs_only_where_all_diverged(partial):
    _, found = partial
    lanes = found.lanes.copy(deep=True)
    lanes["end_kind"].values[lanes["end_kind"].values != EndKind.RUNNING] = EndKind.NONFINITE
    summary = summarize(dataclasses.replace(found, lanes=lanes))
    assert answers.format_headline(summary) == "Every finished run diverged."


def test_the_report_command_on_an_unfinished_run_says_what_is_missing_and_how_to_resume(half, tmp_path, capsys):
    assert main(["report", str(half)]) == 0
    output = capsys.readouterr().out
    resume = f"To resume, or to add a process: gdkit run {half / CONFIG} --output {half}"
    assert "16 of 32 runs have not finished" in output and resume in output
    assert "results.nc" not in output  # there is none
    text = (half / "report.html").read_text()
    assert f"16 of 32 runs have not finished; this report covers the others. {resume}" in text
    assert main(["report", str(half), str(half), "-o", str(tmp_path / "both.html")]) == 0
    page = (tmp_path / "both.html").read_text()
    assert f"{half}: 16 of 32 runs have not finished and are not included." in page
    empty = tmp_path / "empty"
    empty.mkdir()
    for name in (CONFIG, "manifest.json"):
        (empty / name).write_bytes((half / name).read_bytes())
    (empty / "tiles").mkdir()
    for words in (["report", str(empty)], ["report", str(half), str(empty), "-o", str(tmp_path / "none.html")]):
        assert main(words) == 2
        assert f"{empty}: no run has finished yet. To resume: gdkit run" in capsys.readouterr().err


def test_writing_the_report_takes_at_most_a_fiftieth_of_the_time():
    now, spent, written = [0.0], [0.4, 2.0, 0.01], []
    measure = lambda work: (work(), spent[min(len(written), 3) - 1])[1]
    write = lambda pause: written.append((now[0], pause))
    report = watcher.LiveReport(write, clock=lambda: now[0], measure=measure)
    for now[0] in np.arange(0.0, 200.0, 1.0):
        report.update(finished=int(now[0]) + 1)
    times = [at for at, _ in written]
    assert times[0] == watcher.REPORT_SHARE * watcher.FIRST_REPORT
    assert times[1] - times[0] == 20 and times[2] - times[1] == 100
    assert np.diff(times[2:]) == pytest.approx(watcher.REPORT_INTERVAL)
    assert [pause for _, pause in written[1:3]] == [20, 100]


def test_the_report_is_not_written_without_newly_finished_runs():
    now, written = [0.0], []
    report = watcher.LiveReport(written.append, clock=lambda: now[0])
    for now[0], finished in ((100.0, 0), (200.0, 2), (300.0, 2), (400.0, 3)):
        report.update(finished)
    assert len(written) == 2
    report = watcher.LiveReport(written.append, clock=lambda: now[0])
    for now[0] in (500.0, 501.0, 600.0):  # before the first run has finished there may be curves
        report.update(0, has_begun=now[0] > 500)
    assert len(written) == 4


def test_a_watcher_that_cannot_read_warns_and_the_run_continues(tmp_path):
    (tmp_path / "manifest.json").write_text("{")
    watch = watcher.TileWatcher(tmp_path, lambda tally: None)
    watch.news.set()
    with pytest.warns(gdkit.errors.GdkitWarning, match="The run continues"):
        watch.run()


def test_progress_is_forwarded_and_newly_finished_lanes_wake_the_watcher(half):
    received, read, reported = [], threading.Event(), []
    with watcher.watch_tiles(half, received.append, lambda tally: read.set(), reported.append) as callback:
        callback(Progress(1, 2, 1, 2, 1.0))
        assert read.wait(60)
    assert len(received) == 1 and reported == []  # the first report comes later


UNDRAWN = Hooks(write_report=functools.partial(write_report, draw=lambda *_: []))


@pytest.mark.full
def test_a_live_run_ends_with_the_report_of_the_whole(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("half.yaml").write_text(CONFIG_TEXT)
    assert main(["run", "half.yaml", "--live"], UNDRAWN) == 0
    text = Path("runs/half/report.html").read_text()
    assert "data-reload" not in text and "have not finished" not in text
    output = capsys.readouterr().err
    assert "half: 32 runs of 20 steps: sgd 16, momentum 16" in output
    assert "2 programs" in output and "live report: runs/half/report.html" in output
    assert "100 %  32 runs in" in output and "\x1b" not in output


@pytest.mark.full
def test_an_interrupted_report_says_how_to_write_it_and_status_says_that_it_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("half.yaml").write_text(CONFIG_TEXT)
    interrupt = Hooks(write_report=lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    assert main(["run", "half.yaml", "--live"], interrupt) == 130
    assert Path("runs/half/results.nc").exists()
    command = "gdkit run runs/half/config.yaml --output runs/half"
    assert f"the report is not written. To write it:\n  {command}\n" in capsys.readouterr().err
    assert main(["status", "runs/half"]) == 0
    assert f"the report is not written; to write it: {command}" in capsys.readouterr().out
    assert main(command.split()[1:], UNDRAWN) == 0
    capsys.readouterr()
    assert main(["status", "runs/half"]) == 0
    assert "report: runs/half/report.html" in capsys.readouterr().out


@pytest.mark.parametrize("width", [50, 80, 120])
def test_the_board_has_one_line_per_optimizer_that_fits_the_terminal(width):
    console = Console(width=width, file=io.StringIO())
    board = ProgressBoard(console)
    board.update_progress(Progress(3_000_000, 9_000_000, 124, 279, 12.0))
    board.update_optimizers(
        [
            tally.OptimizerTally("sgd", 93, 93, 22, 0.0969, {"learning_rate": 0.398}, by="test_loss"),
            tally.OptimizerTally("a-label-that-is-longer-than-its-column", 31, 31, 31, None, {}),
            tally.OptimizerTally("adam", 93, 0, 0, None, {}),
        ]
    )
    with console.capture() as captured:
        console.print(board.table())
    lines = captured.get().splitlines()
    assert [line.split()[0][:7] for line in lines] == ["sgd", "a-label", "adam", "all"]
    assert all(len(line) <= width for line in lines)
    for line, text in zip(lines, ["0.0969 at 0.398", "no finite score", "0/93", "24 s left"], strict=True):
        assert text in line and "…" not in line.partition(" ")[2]
    if width > 50:
        assert "93/93  22 diverged  test loss 0.0969 at 0.398" in lines[0]
        assert "124/279  53 diverged  3 M of 9 M steps, " in lines[-1] and ("250 k steps/s" in lines[-1]) == (
            width > 80
        )
