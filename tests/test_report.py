"""The report: sentences that follow from the numbers, exact embedded numbers, and nothing else that loads or runs."""

import dataclasses
import json
import math
import re
from types import SimpleNamespace

import numpy as np
import pytest
import synthetic
from shared import quick

from gdkit.app import answers, report, terminal
from gdkit.app.cli import main
from gdkit.app.config.loading import dump, loads
from gdkit.app.config.source import ConfigError
from gdkit.app.labels import humanize_names, labels_of
from gdkit.app.report import embed, sections, write
from gdkit.app.report.comparison import write_comparison
from gdkit.app.report.differences import compare_scores
from gdkit.app.summary import RegimeCell, Summary, SummaryRow, describe_provenance, describe_run, summarize
from gdkit.plots import REGIME_COLORS
from gdkit.regimes import Regime

CONFIG = """\
name: made
problem: {name: parabola}
optimizer: [{name: sgd}, {name: adam}]
sweep:
  axes: {learning_rate: {log: {from: 1e-3, to: 10, count: 12}}}
  seeds: 3
  steps: 200
"""


@pytest.fixture(scope="module")
def made():
    return synthetic.result()


@pytest.fixture(scope="module")
def page(made, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return report.write_report(loads(CONFIG), made, summarize(made), [], folder).read_text()


def embedded(page: str) -> dict:
    """The embedded numbers of a page, as its program reads them."""
    return json.loads(page.partition('id="sweep">')[2].partition("</script>")[0])


def numbers(data: dict, name: str) -> np.ndarray:
    """A column of the embedded numbers."""
    column = next(c for c in data["columns"] if c["name"] == name)
    raw = np.frombuffer(embed.base64.b64decode(column["data"]), f"<{column['type']}")
    return np.array(column["texts"])[raw] if "texts" in column else raw


# Sentences


def test_the_answer_names_value_interval_edge_and_least_sensitive_optimizer(made):
    summary = summarize(made)
    found = summary.best.recommendation
    details = answers.format_details(summary)
    assert found is not None
    assert answers.format_headline(summary).startswith(
        f"Use {summary.best.optimizer} with learning rate {found.best:.3g}"
    )
    ratio = f"{found.edge / found.best:.3g} × the best learning rate"
    bracket = f"no run diverged up to {found.safe:.3g}, some did at {found.unsafe:.3g}"
    assert f"Training diverges above about {found.edge:.3g}, {ratio} ({bracket})." in details
    least = min(summary.window.excess, key=summary.window.excess.get)
    assert f"of {least} averages" in details
    assert details.endswith("Next: train with it, or sweep 0.0658–0.351 for a closer value.")


@pytest.mark.parametrize(
    ("change", "step"),
    [
        ({"seeds": 1}, "Next: at least 3 seeds, which give an interval."),
        ({"edge": 100.0}, "Next: a learning rate of 10–285."),  # as wide as the last four steps
        ({"edge": 1e-3}, "Next: a learning rate of 3.51e-5–0.001."),
        ({"rates": 1}, "Next: a learning rate of 0.0001–0.01."),
    ],
)
def test_the_first_screen_names_the_next_step(change, step):
    assert answers.format_details(summarize(synthetic.result(("sgd",), **change))).endswith(step)


@pytest.mark.parametrize(
    ("change", "headline"),
    [
        ({"edge": 1e-5}, "Every run diverged. Try a learning rate of 5e-6–0.0005, below all that diverged."),
        ({"shift": 2.0}, "No run converged. The best is sgd with learning rate"),
        ({"edge": 50}, ", the largest value tried."),
        ({"edge": 4e-2, "optimizers": ("sgd",)}, "Use sgd with learning rate"),
        ({"others": {"momentum": [0.5, 0.9]}}, "and momentum 0."),
    ],
)
def test_a_report_states_caveats_and_prints_no_number_that_is_missing(change, headline, tmp_path):
    result = synthetic.result(**{"seeds": 1, "rates": 9, "optimizers": ("sgd",)} | change)
    summary = summarize(result)
    assert headline in answers.format_headline(summary)
    page = report.write_report(loads(CONFIG), result, summary, [], tmp_path).read_text()
    words = re.sub(r"<(style|script|svg)\b.*?</\1>|<[^>]*>", " ", page, flags=re.DOTALL)
    assert not re.search(r"\b(nan|none|inf|null|undefined)\b(?! found)", words, re.IGNORECASE)
    assert "Caveats" in words


def test_every_axis_of_the_recommended_point_is_named():
    result = synthetic.result(("sgd",), others={"momentum": [0.5, 0.9], "kind": ["a", "b"]}, rates=6, seeds=1)
    found = summarize(result).best.recommendation
    assert found is not None
    at = {name: value for name, value in found.at.items() if name != "optimizer"}
    headline = answers.format_headline(summarize(result))
    assert all(f"{name} {value}" in headline for name, value in at.items())
    assert at.keys() == {"momentum", "kind"}


# Embedded numbers


def test_the_embedded_columns_are_the_lanes_bit_for_bit(made, page):
    data = embedded(page)
    frame = made.to_dataframe()
    names = [column["name"] for column in data["columns"]]
    assert names == ["lane", *frame.columns]
    for name in frame.columns:
        np.testing.assert_array_equal(numbers(data, name), frame[name].to_numpy())


def test_the_embedded_curves_equal_those_of_the_result(made, page):
    curves = embedded(page)["curves"]
    for curve in curves:
        rows = np.frombuffer(embed.base64.b64decode(curve["rows"]), "<i4")
        losses = np.frombuffer(embed.base64.b64decode(curve["values"]), "<f4").reshape(len(rows), -1)
        np.testing.assert_array_equal(losses, made.lanes["curve_loss"].values[rows])
    assert sum(len(np.frombuffer(embed.base64.b64decode(c["rows"]), "<i4")) for c in curves) == made.lanes.sizes["lane"]


@pytest.mark.full
def test_a_large_sweep_is_thinned_evenly_with_its_best_and_says_so(tmp_path):
    result = synthetic.result(("sgd",), rates=3000, others={"momentum": np.linspace(0, 0.99, 100)}, seeds=1, points=2)
    summary = summarize(result)
    path = report.write_report(loads(CONFIG), result, summary, [], tmp_path)
    assert path.stat().st_size < 8e6
    data = embedded(path.read_text())
    kept = numbers(data, "lane")
    assert len(kept) < data["lanes"] == 300_000
    assert f"This page draws and lists {len(kept):,} of 300,000 runs" in path.read_text()
    best = summary.best.recommendation
    assert best is not None
    assert best.best in numbers(data, "learning_rate")
    np.testing.assert_array_equal(numbers(data, "final_loss"), result.lanes["final_loss"].values[kept])
    gaps = np.diff(np.unique(numbers(data, "learning_rate")))
    assert len(gaps) > 50


@pytest.mark.parametrize("table_bytes", [embed.TABLE_BYTES, 20_000])
def test_the_embedded_edges_are_computed_from_all_lanes_however_few_are_embedded(table_bytes):
    result = synthetic.result(("sgd", "adam"), rates=60, others={"momentum": [0.0, 0.5, 0.9]}, seeds=3)
    data = embed.embed_sweeps(
        embed.split_by_optimizer(result, summarize(result, "final_loss")), "final_loss", table_bytes=table_bytes
    )
    kept = numbers(data, "lane")
    assert (len(kept) < result.lanes.sizes["lane"]) == (table_bytes < embed.TABLE_BYTES)
    edges = np.frombuffer(embed.base64.b64decode(data["edges"]["learning_rate"]), "<f4")
    for optimizer in result.optimizers:
        own = numbers(data, "optimizer") == optimizer
        expected = result.select(optimizer=optimizer).edge("learning_rate")["median"]
        for momentum in (0.0, 0.5, 0.9):
            here = own & (numbers(data, "momentum") == momentum)
            np.testing.assert_allclose(edges[here], expected.sel(momentum=momentum), rtol=1e-6)
    along_momentum = np.frombuffer(embed.base64.b64decode(data["edges"]["momentum"]), "<f4")
    assert np.isnan(along_momentum).all()  # momentum has no edge here


def test_a_strip_shows_the_shares_of_regimes_at_each_value():
    made = synthetic.result(("sgd",), rates=16, edge=0.85)  # at one value seed 0 diverges, seeds 1 and 2 do not
    drawn = re.findall(r"<g><title>([^<]*)</title>(.*?)</g>", sections.render_outcomes(summarize(made)))
    codes = made.regimes.values.reshape(16, 3)  # lanes by value and seed
    columns = []
    for _, rects in drawn:
        shape = r'class="fill r(\d)" x="[\d.]+" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)"'
        cells = [(int(code), float(y), float(w) / 240 * 16, float(h)) for code, y, w, h in re.findall(shape, rects)]
        assert sorted(cells) == sorted(cells, key=lambda cell: -cell[1])  # diverged runs on top
        columns += [[round(3 * {c[0]: c[3] for c in cells}.get(code, 0)) for code in Regime]] * round(cells[0][2])
    assert columns == [[int((row == code).sum()) for code in Regime] for row in codes]
    (divided,) = [title for title, _ in drawn if "33 % diverged" in title]
    assert divided.startswith("0.858: ")
    shown = terminal.format_summary(summarize(made))
    assert len(re.findall("[·█≈^~x×-]*", shown.split("sgd 0.001 ")[1])[0]) == 16
    assert shown.split("sgd 0.001 ")[1][11:13] == "x×"
    assert "x split" in shown


@pytest.mark.parametrize(
    ("values", "expected"),  # of two optimizers, and the shares of the width that their strips take
    [
        (([0.001, 0.01, 0.1], [0.1, 1.0, 10.0]), [(0, 0.6), (0.4, 1)]),  # cells of a decade, from 10^-3.5 to 10^1.5
        (([1.0, 2.0, 3.0, 4.0], [4.0, 5.0, 6.0]), [(0, 4 / 6), (0.5, 1)]),
        (([0.5], [0.5]), [(0, 1), (0, 1)]),
    ],
)
def test_strips_of_all_optimizers_have_one_scale(values, expected):
    cell = lambda value: RegimeCell(value, tuple(int(code == Regime.CONVERGED) for code in Regime))
    rows = tuple(
        SummaryRow(name, None, tuple(map(cell, own)), {Regime.CONVERGED: len(own)}, 1.0, (1.0,))
        for name, own in zip(("sgd", "adam"), values, strict=True)
    )
    page = sections.render_outcomes(Summary("learning_rate", "final_loss", None, rows, ()))
    drawn = [re.findall(r'x="([\d.]+)" y="[\d.]+" width="([\d.]+)"', strip) for strip in page.split("<dt>")[1:]]
    ends = [(float(own[0][0]) / 240, sum(map(float, own[-1])) / 240) for own in drawn]
    np.testing.assert_allclose(ends, expected, atol=1e-3)


def test_caveats_are_capitalized_unless_they_begin_with_a_label():
    result = synthetic.result(("sgd", "adam"), edge=50, seeds=1)
    section = sections.render_caveats(summarize(result))
    assert "<li>sgd: no divergence found up to 10." in section and "<li>Sgd" not in section
    summary = summarize(result)._replace(caveats=("validation_loss is over 30 rows only.",))
    assert "<li>validation_loss is" in sections.render_caveats(summary)
    assert "<li>No divergence found up to 10." in sections.render_caveats(summarize(result.select(optimizer="sgd")))


def test_provenance_states_the_time_and_how_much_of_it_was_compiling(made):
    assert describe_provenance(made)["time"] == "1.5 s"
    timings = json.dumps({"seconds": 100.0, "compile_seconds": 12.3, "plan_seconds": 0.0})
    longer = dataclasses.replace(made, lanes=made.lanes.assign_attrs(timings=timings))
    assert describe_provenance(longer)["time"] == "2 min, of which 12 s compiling"
    plan = json.dumps({"width": [8, 4], "chosen": "rule", "tile": None})
    assert describe_provenance(made.__class__(made.lanes.assign_attrs(plan=plan), made.grids))["plan"] == (
        "width [8, 4], chosen by rule"
    )


def test_colors_of_regimes_are_those_of_the_figures(page):
    for regime in Regime:
        assert f".r{int(regime)} {{ --own: {REGIME_COLORS[regime]}; }}" in page


# Runs of nothing


@pytest.mark.parametrize(
    ("sharpness", "answer"),
    [
        (None, "Every run diverged. Try a learning rate of 0.15–15, below all that diverged."),
        (4.0, "Every run diverged. Try a learning rate of 0.005–0.5: gradient descent is stable below 2/λ = 0.5."),
        # 2/λ lies above what diverged
        (0.01, "Every run diverged. Try a learning rate of 0.15–15, below all that diverged."),
    ],
)
def test_where_every_run_diverged_the_next_range_is_named(sharpness, answer, tmp_path):
    made = synthetic.result(("sgd",), edge=1e-5)
    lanes = made.lanes.assign_coords(learning_rate=made.lanes["learning_rate"] * 3e4)
    measured = np.full(lanes.sizes["lane"], np.nan if sharpness is None else sharpness)
    result = dataclasses.replace(made, lanes=lanes.assign(sharpness=("lane", measured)))
    summary = summarize(result)
    assert answers.format_headline(summary) == answer
    assert not any("more steps" in text for text in summary.caveats)
    page = report.write_result_report(result, tmp_path, figures=[]).read_text()
    assert "<h2>Summary</h2>" not in page  # a table of dashes


@pytest.mark.parametrize(("finished", "part"), [(2, "sgd with"), (5, "sgd"), (15, "The best is|Use")])
def test_a_partial_answer_says_so_and_to_finish_the_other_runs(finished, part):
    made = synthetic.result(("sgd",), rates=8, seeds=3)
    kinds = np.where(np.arange(24) < finished, made.lanes["end_kind"].values, 0)
    summary = summarize(dataclasses.replace(made, lanes=made.lanes.assign(end_kind=("lane", kinds))))
    assert re.match(f"Partial: {finished} of 24 runs finished. .*({part})", answers.format_headline(summary))
    assert answers.format_details(summary).endswith("Next: finish the other runs.")


def test_one_value_is_reported_as_what_it_is():
    made = synthetic.result(("sgd",), rates=1, seeds=1)
    assert answers.format_headline(summarize(made)).startswith(
        "sgd with learning rate 0.001 reaches a validation loss of "
    )
    assert describe_run(made).startswith("1 run of 200 steps")


# Several axes, studies


def test_the_best_value_of_every_axis_is_in_every_table():
    made = synthetic.result(("sgd", "adam"), others={"momentum": [0.5, 0.9]}, rates=6)
    summary = summarize(made)
    for row in summary.rows:
        assert row.recommendation is not None
        setting = f"momentum {row.recommendation.at['momentum']}"
        assert f'data-name="with">{setting}<' in sections.render_optimizers(summary)
        assert setting.split()[1] in terminal.format_summary(summary).partition("█")[0]
    assert 'data-name="with"' not in sections.render_optimizers(summarize(synthetic.result(rates=6)))


@pytest.mark.parametrize(
    ("expected", "tolerance", "measured", "cells"),
    [(1.0, 0.05, 1.025, ("1 ± 0.05", "1.02", "+0.50")), (2.0, 0.5, 1.0, ("2 ± 0.5", "1", "−2.00")),
     (0.0, 0.0, 0.0, ("0 ± 0", "0", "–")), (0.9, float("inf"), 1.0, ("0.9", "1", "+0.00"))],
)  # fmt: skip
def test_a_claim_is_shown_with_its_tolerance_and_its_deviation(expected, tolerance, measured, cells):
    source = "Doe, arXiv:2103.00065, https://example.org/a?b=1"
    claim = SimpleNamespace(
        text="<b>", source=source, expected=expected, tolerance=tolerance, measured=measured, holds=True
    )
    page = sections.render_claims([claim])
    assert tuple(re.findall(r'data-name="(?:expected|measured|error / tolerance)">([^<]*)<', page)) == cells
    assert '<a href="https://arxiv.org/abs/2103.00065">arXiv:2103.00065</a>' in page and "&lt;b&gt;" in page
    assert '<a href="https://example.org/a?b=1">' in page


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("by `a.b_c` and", "by <code>a.b_c</code> and"),
        ("``x``: one", "<code>x</code>: one"),
        ("5`<b>`", "5<code>&lt;b&gt;</code>"),
    ],
)
def test_code_in_the_abstract_of_a_study_is_shown_as_code(text, shown):
    assert f"<p>{shown}</p>" in sections.render_abstract(text)
    assert sections.render_abstract(f"a ` tick\n\n{text}").count("<p>") == 2


# Safety


def test_labels_are_escaped(tmp_path):
    bad = "<script>alert(1)</script>"
    result = synthetic.result((bad, 'a"b&c'), rates=4)
    label = "optimizer: [{name: sgd}]"
    config = loads(CONFIG.replace("optimizer: [{name: sgd}, {name: adam}]", label))
    page = report.write_report(config, result, summarize(result), [], tmp_path).read_text()
    assert bad not in page
    assert page.count("<script") == 2  # the numbers and the program
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert numbers(embedded(page), "optimizer")[0] == bad


def test_the_policy_allows_this_program_and_style_and_no_address(page):
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert policy
    assert policy[1].startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in policy[1]
    assert not re.search(r"style=|\bon\w+=|(?:src|href)=", page.partition("<script")[0])


def test_stability_thresholds_exist_for_gradient_descent_with_and_without_momentum_only():
    text = CONFIG.replace(
        "[{name: sgd}, {name: adam}]",
        "[{name: sgd}, {name: sgd, momentum: 0.5, label: m}, {name: sgd, momentum: 0.5, nesterov: true, label: n}, "
        "{name: adam}, {name: sgd, clip_norm: 1.0, label: c}, {name: sgd, momentum: [0.1, 0.2], label: axis}]",
    )
    assert write.stability_thresholds(loads(text)) == {"sgd": 2.0, "m": 3.0, "n": 1.5}


# Comparisons


def test_differences_need_an_interval_without_zero_and_enough_seeds():
    ours, theirs = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]) + 0.1, np.arange(1.0, 7.0)
    assert compare_scores(ours, theirs, paired=True).is_significant
    assert compare_scores(ours, theirs, paired=False).objection == "6 and 6 seeds; p = 0.87"
    assert compare_scores([1.0, 2.0], [0.0, 1.0], paired=True).objection == "2 seeds; p = 0.5"
    for seeds in (3, 4, 5):  # of complete separation: two of all ways to choose the seeds of one run
        p = 2 / math.comb(2 * seeds, seeds)
        found = compare_scores(np.arange(seeds) + 9.0, np.arange(seeds), paired=False)
        assert found.objection == ("" if p <= 0.05 else f"{seeds} and {seeds} seeds; p = {p:.2g}")
    assert compare_scores(ours[:3], theirs[:3], paired=True).objection == "3 seeds; p = 0.25"
    assert compare_scores([1.0], [2.0], paired=True) == (-1.0, None, "one seed")
    assert compare_scores([np.inf, 1.0], [2.0, 1.0], paired=True).objection == "some seed diverged"
    assert compare_scores(ours, theirs, paired=True).interval == pytest.approx((0.1, 0.1))


@pytest.mark.full
def test_the_bootstrap_interval_covers_a_known_difference():
    generator = np.random.default_rng(1)
    draws = [generator.normal(0.3, 1.0, 20) for _ in range(200)]
    inside = [(d := compare_scores(draw, np.zeros(20), paired=True).interval) and d[0] <= 0.3 <= d[1] for draw in draws]
    assert 0.88 <= np.mean(inside) <= 0.98


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two finished runs; the second is worse by 0.02 for every seed."""
    root = tmp_path_factory.mktemp("runs")
    for name, shift in {"first": 0.0, "second": 0.02}.items():
        (root / name).mkdir()
        (root / name / "config.yaml").write_text(dump(loads(CONFIG.replace("made", name))))
        synthetic.result(("sgd",), seeds=6, rates=7, shift=shift).save(root / name / "results.nc")
    return [root / "first", root / "second"]


def test_runs_are_compared_by_their_seeds(folders, tmp_path):
    page = write_comparison(folders, tmp_path / "both.html").read_text()
    words = re.sub(r"<(style|script)\b.*?</\1>|<[^>]*>", " ", page, flags=re.DOTALL)
    assert "first, second" in words
    assert "first · sgd has the lowest validation loss, significantly below the other." in words
    data = embedded(page)
    assert [optimizer["label"] for optimizer in data["optimizers"]] == ["first · sgd", "second · sgd"]
    assert data["lanes"] == len(numbers(data, "lane")) == 2 * 7 * 6
    assert "The configs differ only in their names." in words
    assert re.findall(r'data-name="significant\?"[^>]*>([^<]*)<', page) == ["–", "yes"]
    more = re.findall(r'data-name="above the first"[^>]*>([\d.]+) ', page)
    assert [float(value) for value in more] == pytest.approx([0.02 * 1.1])  # of the validation loss


@pytest.mark.parametrize(
    ("change", "row"),
    [
        (("{name: adam}", "{name: adam, b1: 0.5}"), ["optimizer.1.b1", "–", "0.5"]),
        *quick(
            [
                (("steps: 200", "steps: 300"), ["sweep.steps", "200", "300"]),
                (("{name: parabola}", "{name: rosenbrock}"), ["problem.name", "parabola", "rosenbrock"]),
            ]
        ),
    ],
)
def test_a_comparison_begins_with_what_differs_between_the_configs(change, row, folders, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.yaml").write_text(dump(loads(CONFIG.replace(*change))))
    (other / "results.nc").write_bytes((folders[1] / "results.nc").read_bytes())
    page = write_comparison([folders[0], other], tmp_path / "both.html").read_text()
    section = page.partition("<h2>What differs</h2>")[2].partition("</section>")[0]
    cells = [re.findall(r"<t[hd][^>]*>([^<]*)</t[hd]>", line) for line in section.split("<tr>")[2:]]
    assert cells == [row]
    assert page.index("What differs") < page.index("Runs by score")
    regions = re.findall(r'role="region" aria-label="([^"]*)"', page)
    assert regions == ["What differs", "Runs by score"]


def test_optimizers_of_several_runs_have_one_color_each_and_later_runs_are_dashed():
    split = lambda result: embed.split_by_optimizer(result, summarize(result, "validation_loss"))
    of = lambda run, *labels: [
        part._replace(run=run, label=f"{run} · {part.label}")
        for part in split(synthetic.result(labels, rates=3, seeds=1))
    ]
    few = of(0, "sgd", "adam", "b") + of(1, "sgd", "adam", "b")
    assert embed.assign_styles(few) == [(i, False) for i in range(6)]
    many = of(0, "sgd", "adam", "b", "c") + of(1, "adam", "sgd", "b", "d")
    assert embed.assign_styles(many) == [(i, False) for i in (0, 1, 2, 3)] + [(i, True) for i in (1, 0, 2, 4)]
    single = of(0, *"abcdefgh")
    assert embed.assign_styles(single)[6:] == [(6, False), (7, True)]


def test_the_command_line_compares_runs_and_prints_the_path(folders, tmp_path, capsys):
    out = tmp_path / "both.html"
    assert main(["report", *map(str, folders), "-o", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    assert "first · sgd has the lowest validation loss" in out.read_text()
    assert main(["report", str(folders[0]), "-o", str(out)]) == 2
    assert "Give several runs to compare" in capsys.readouterr().err
    assert main(["report", *map(str, folders), "-o", str(tmp_path / "nowhere" / "both.html")]) == 2
    assert f"its folder does not exist. Make it first: mkdir -p {tmp_path / 'nowhere'}" in capsys.readouterr().err


def test_a_study_cannot_be_compared(tmp_path):
    (tmp_path / "config.yaml").write_text("experiment: experiments.parabola:run\n")
    with pytest.raises(ConfigError, match="this is a study, not a sweep"):
        write_comparison([tmp_path, tmp_path], tmp_path / "out.html")


# Labels


def test_columns_are_named_by_labels_everywhere(page, made):
    labels = embedded(page)["labels"]
    assert labels.keys() >= set(made.to_dataframe().columns) | {"lane", "loss"}
    assert not any("_" in text for text, *_ in labels.values())
    assert len({(text, unit) for text, unit, _ in labels.values()}) == len(labels)
    assert labels["final_loss"][1] == "training"  # there are validation losses beside it
    assert labels["validation_loss"][2] == "Loss on validation data."


@pytest.mark.parametrize(
    ("stochastic", "columns", "unit"),
    [(1, ["final_loss"], "training minibatch"), (0, ["final_loss", "test_loss"], "training"), (0, ["final_loss"], "")],
)
def test_a_training_loss_says_what_it_is_measured_on(stochastic, columns, unit):
    assert labels_of(columns, {"stochastic": stochastic})["final_loss"].unit == unit


def test_caveats_name_columns_by_their_labels():
    assert humanize_names("no best learning_rate, see mean_loss", ["learning_rate", "loss"]) == (
        "no best learning rate, see mean_loss"
    )
    assert "the best learning rate is at the end" in " ".join(summarize(synthetic.result(edge=50, seeds=1)).caveats)
