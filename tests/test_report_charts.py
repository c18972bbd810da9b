"""The charts of the report in a real browser: zoom and pan, means and smoothing, pinned curves, cards."""

import base64
import dataclasses
import json
import math
import re
from types import SimpleNamespace
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import scipy.stats
import synthetic
from matplotlib.figure import Figure
from report_pages import (
    CHROMIUM,
    CONFIG,
    card,
    choose,
    click,
    lane_named,
    ruler,
    settle,
    text,
    wait_for,
    write,
)
from shared import quick

from gdkit import SweepResult
from gdkit.app import report
from gdkit.app.config.loading import loads
from gdkit.app.report import write_result_report
from gdkit.app.summary import summarize

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


def spans(page, figure):
    """The ranges of both axes that lie between the ends of the grid of a figure, in decades."""
    ends = page.evaluate(
        f"""(() => {{
          const grid = document.querySelector("#scores .{figure} .grid").getBBox();
          const frame = document.querySelector("#scores .{figure} .picture").getBoundingClientRect();
          return [frame.x, frame.y, grid.x, grid.y, grid.width, grid.height];
        }})()"""
    )
    at = ruler(page, f".{figure}")
    slopes = [at(10.0, 10.0)[i] - at(1.0, 1.0)[i] for i in (0, 1)]
    return ends[4] / slopes[0], -ends[5] / slopes[1]


def zoomed(page):
    """Whether each of the two charts shows a part of it only."""
    return page.evaluate(
        '[...document.querySelectorAll("#scores .picture")].map((p) => p.classList.contains("zoomed"))'
    )


def turn(page, place, figure):
    page.turn_wheel(*place, -200, ctrl=True)


def pinch(page, place, figure):
    x, y = place
    page.touch([(x - 40, y), (x + 40, y)], [(x - 60, y), (x + 60, y)], [(x - 80, y), (x + 80, y)])


def press_plus(page, place, figure):
    page.move_mouse(*place)
    page.evaluate(f'document.querySelector("#scores .{figure} .picture").focus()')
    page.press_key("+")


@pytest.mark.parametrize(("figure", "point"), [("score", (0.05, 0.05)), ("curves", (10.0, 0.3))])
@pytest.mark.parametrize(("gesture", "factor"), quick([(turn, math.exp(0.6)), (pinch, 2.0)], (pinch, 2.0)))
def test_zooming_keeps_the_values_beneath_the_pointer_or_the_fingers(page, gesture, factor, figure, point):
    place, before = ruler(page, f".{figure}")(*point), spans(page, figure)
    gesture(page, place, figure)
    assert ruler(page, f".{figure}")(*point) == pytest.approx(place, abs=1.5)
    assert spans(page, figure) == pytest.approx([decades / factor for decades in before], rel=0.03)
    assert zoomed(page) == [figure == "score", figure == "curves"]


@pytest.mark.parametrize(
    ("low", "high"),
    [((0.01, 0.02), (0.3, 0.2)), *quick([((0.002, 0.01), (0.05, 0.3)), ((0.1, 0.006), (3.0, 0.09))])],
)
def test_dragging_selects_a_part_then_pans_and_a_double_click_shows_all(page, low, high):
    before = spans(page, "score")
    place = ruler(page, ".score")
    page.drag(place(*low), place(*high))
    shown = [math.log10(b / a) for a, b in zip(low, high, strict=True)]
    assert spans(page, "score") == pytest.approx(shown, rel=0.08)  # the grid has a margin for diverged runs
    at = ruler(page, ".score")
    middle = tuple(math.sqrt(a * b) for a, b in zip(low, high, strict=True))
    start = at(*middle)
    page.drag(start, (start[0] + 60, start[1] + 25))
    assert ruler(page, ".score")(*middle) == pytest.approx((start[0] + 60, start[1] + 25), abs=1.5)
    assert page.evaluate("document.querySelectorAll('#pins li').length") == 0  # a drag is no click
    page.double_click(*start)
    assert zoomed(page) == [False, False]
    assert spans(page, "score") == pytest.approx(before)


def test_keys_zoom_pan_and_show_all_and_are_announced(page):
    page.evaluate('document.querySelector("#scores .curves .picture").focus()')
    before = spans(page, "curves")
    page.press_key("+")
    assert spans(page, "curves") == pytest.approx([decades / 1.5 for decades in before], rel=0.03)
    assert text(page, "#announcement").startswith("horizontal ")
    at = ruler(page, ".curves")
    page.press_key("ArrowRight", shift=True)
    assert ruler(page, ".curves")(10.0, 0.3)[0] == pytest.approx(at(10.0, 0.3)[0] - 60, abs=1.5)
    page.press_key("-")
    page.press_key("-")
    assert zoomed(page) == [False, False]  # never more than all
    page.press_key("+")
    page.press_key("0")
    assert zoomed(page) == [False, False]


def test_the_wheel_alone_scrolls_the_page_unless_the_chart_has_the_focus(page):
    place = ruler(page, ".score")(0.05, 0.05)
    page.turn_wheel(*place, -100)
    assert zoomed(page) == [False, False]
    page.evaluate('document.querySelector("#scores .score .picture").focus({preventScroll: true})')
    page.turn_wheel(*ruler(page, ".score")(0.05, 0.05), -100)
    assert zoomed(page) == [True, False]


@pytest.mark.parametrize("figure", ["score", "curves"])
def test_a_zoom_is_in_the_address_and_on_the_saved_chart(page, made, figure):
    name = {"score": "scores", "curves": "curves"}[figure]
    for _ in range(3):
        click(page, f"#scores .{figure} .zoom button")
    settle(page)
    ticks = f"[...document.querySelectorAll('#scores .{figure} .ticks text')].map((t) => t.textContent)"
    shown, address = page.evaluate(ticks), page.evaluate("location.href")
    assert list(json.loads(page.evaluate("decodeURIComponent(location.hash.slice(6))"))["zoom"]) == [name]
    page.open("about:blank")
    page.open(address)
    page.requests[:] = [made.address]
    assert page.evaluate(ticks) == shown
    page.evaluate(f"[...document.querySelectorAll('#scores .{figure} .export')][0].click()")
    file = wait_for(page, f"made-{name}.svg")
    texts = [element.text for element in ET.fromstring(file.read_text()).iter("{http://www.w3.org/2000/svg}text")]
    file.unlink()
    assert texts[: len(shown)] == shown
    legend = {"score": ["sgd", "adam", "diverged"], "curves": ["end marker: outcome"]}[figure]
    assert set(legend) <= set(texts[len(shown) :])
    click(page, f"#scores .{figure} .zoom button", 2)
    settle(page)
    assert page.evaluate("location.hash") == "" and zoomed(page) == [False, False]


@pytest.mark.parametrize(
    "zoom",
    quick(['{"scores":{"x":[0,1],"y":[1,1]}}', '{"scores":{"x":"a"}}', '{"scores":{"x":[-5,1]}}', "[[1]]"], "[[1]]"),
)
def test_a_zoom_that_no_scale_can_show_is_ignored(tab, made, zoom):
    tab.open("about:blank")
    tab.open(made.address)
    before = spans(tab, "score")
    tab.open("about:blank")
    tab.open(f'{made.address}#view={{"chosen":[],"hidden":[],"pinned":[],"zoom":{zoom}}}')
    assert spans(tab, "score") == pytest.approx(before) and tab.problems == []


# Curves over seeds


def path_at(page, kind, number):
    """Corners of a path of the chart of curves, in the window."""
    path, x, y = page.evaluate(
        f"""(() => {{
          const frame = document.querySelector(".curves .picture").getBoundingClientRect();
          return [document.querySelectorAll("#scores .curves .{kind}")[{number}].getAttribute("d"), frame.x, frame.y];
        }})()"""
    )
    corners = path.strip("MZ").replace("L", "M").split("M")
    return np.array([corner.split() for corner in corners], float) + np.array([x, y])


def losses_of(made, number):
    """Steps, and losses of each seed (seeds, steps), at a learning rate of sgd and its best momentum."""
    one = made.result.select(optimizer="sgd")
    at = one.recommend().at["momentum"]
    frame = made.frame[(made.frame["optimizer"] == "sgd") & (made.frame["momentum"] == at)]
    rate = np.unique(frame["learning_rate"])[number]
    curves = [made.result.curve(int(lane)) for lane in frame.index[frame["learning_rate"] == rate]]
    return curves[0][0], np.stack([losses for _, losses in curves]).astype(float)


@pytest.mark.parametrize("number", quick([0, 4, 8], 4))
@pytest.mark.parametrize("kind", ["min–max", "95 % interval"])
def test_curves_are_drawn_as_mean_and_band_over_seeds(page, made, kind, number):
    choose(page, "Curves of", "sgd")
    choose(page, "Seed", f"mean, {kind}")
    steps, losses = losses_of(made, number)
    mean, error = losses.mean(0), losses.std(0, ddof=1) / math.sqrt(len(losses))
    half = scipy.stats.t.ppf(0.975, len(losses) - 1) * error
    low, high = (losses.min(0), losses.max(0)) if kind == "min–max" else (mean - half, mean + half)
    at = ruler(page, ".curves")
    later = steps > 0  # the axis of steps is linear below 1
    drawn = lambda values: np.array([at(step, value) for step, value in zip(steps[later], values[later], strict=True)])
    np.testing.assert_allclose(path_at(page, "curve", number)[later], drawn(mean), atol=1.0)
    band = path_at(page, "spread", number)
    np.testing.assert_allclose(band[: len(steps)][later], drawn(high), atol=1.0)
    np.testing.assert_allclose(band[len(steps) :][::-1][later], drawn(low), atol=1.0)
    assert "mean over seeds" in page.evaluate('document.querySelector(".curves .title ~ .title").textContent')


@pytest.mark.parametrize(("count", "number"), [(5, 0), (15, 4), (45, 8)])
def test_smoothing_is_a_moving_mean_that_narrows_at_the_ends(page, made, count, number):
    choose(page, "Curves of", "sgd")
    choose(page, "Smoothing", f"mean of {count} points")
    steps, losses = losses_of(made, number)
    reach = [min(count // 2, i, len(steps) - 1 - i) for i in range(len(steps))]
    mean = np.array([losses[0, i - r : i + r + 1].mean() for i, r in enumerate(reach)])
    at = ruler(page, ".curves")
    drawn = np.array([at(step, value) for step, value in zip(steps[1:], mean[1:], strict=True)])
    np.testing.assert_allclose(path_at(page, "curve", number)[1:], drawn, atol=1.0)


def test_pinned_curves_have_colors_and_numbers_of_their_own(page):
    for row in (0, 4, 9):
        click(page, ".runs td button", row)
    color = "(e) => getComputedStyle(e).stroke"
    curves = page.evaluate(f"[...document.querySelectorAll('#scores .curves .pinned')].map({color})")
    badges = page.evaluate(f"[...document.querySelectorAll('#pins li .line')].map({color})")
    assert len(curves) == 3 and len(set(badges)) == 3 and set(curves) <= set(badges)
    assert text(page, "#pins").count("learning rate") == 3


# Cards


@pytest.mark.parametrize("width", quick([1280, 1000, 700], 700))
def test_a_card_stays_within_its_own_chart(tab, made, width):
    tab.open(made.address, width=width)
    covered = """(() => {
      const card = document.getElementById("card").getBoundingClientRect();
      return [...document.querySelectorAll("#scores .picture")].map((picture) => {
        const frame = picture.getBoundingClientRect();
        return card.left < frame.right && card.right > frame.left && card.top < frame.bottom && card.bottom > frame.top;
      });
    })()"""
    for number, figure in enumerate(("score", "curves")):
        tab.evaluate(f"document.querySelector('#scores .{figure} .picture').scrollIntoView({{block: 'center'}})")
        tab.evaluate(f"document.querySelector('#scores .{figure} .picture').focus({{preventScroll: true}})")
        for key in ("ArrowRight", *["ArrowRight", "ArrowRight", "ArrowDown"] * 3):
            tab.press_key(key)
            assert tab.evaluate("document.getElementById('card').hidden") is False
            assert not tab.evaluate(covered)[1 - number]


def test_a_tap_shows_the_card_below_the_chart_of_a_phone_and_another_pins_the_run(tab, made):
    tab.open(made.address, width=390)
    tab.call("Emulation.setTouchEmulationEnabled", enabled=True)
    tab.evaluate("document.querySelector('#scores .chip').click()")
    place = ruler(tab, ".score")
    best = made.result.select(optimizer="sgd").recommend()
    frame = made.frame
    mine = frame[(frame["optimizer"] == "sgd") & (frame["momentum"] == best.at["momentum"]) & (frame["seed"] == 0)]
    row = mine.iloc[(np.log(mine["learning_rate"] / 0.02)).abs().argmin()]
    spot = place(row["learning_rate"], row["validation_loss"])
    tab.touch([spot])
    assert lane_named(made.frame, card(tab)["name"])["learning_rate"] == pytest.approx(row["learning_rate"])
    card_top = "document.getElementById('card').getBoundingClientRect().top"
    picture_end = "document.querySelector('.score .picture').getBoundingClientRect().bottom"
    assert tab.evaluate(f"{card_top} >= {picture_end}")
    assert tab.evaluate("document.querySelectorAll('#pins li').length") == 0
    tab.touch([spot])
    assert tab.evaluate("document.querySelectorAll('#pins li').length") == 1
    over = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert tab.evaluate(over) == 0
    tab.call("Emulation.setTouchEmulationEnabled", enabled=False)
    assert tab.problems == []


# Several axes


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A report of four axes whose seeds diverge at different learning rates, with its result."""
    others = {"momentum": [0.0, 0.5, 0.9, 0.99], "weight_decay": [1e-4, 1e-3, 1e-2], "kind": ["a", "b"]}
    result = synthetic.result(("sgd",), others=others, rates=8, seeds=3, edge=0.71)
    address = write(result, tmp_path_factory.mktemp("many")).as_uri()
    return SimpleNamespace(result=result, frame=result.to_dataframe(), address=address)


def medians(many):
    """The median over the seeds that did not diverge of each point; NaN where most diverged."""
    points = [many.frame[name] for name, values in many.result.axes.items() if len(values) > 1]
    lost = many.frame["regime"] == "DIVERGED"
    kept = many.frame["validation_loss"].where(~lost).groupby(points).median()
    return kept.where(lost.groupby(points).mean() < 0.5)


def test_maps_mark_the_best_and_color_the_median_of_what_did_not_diverge(tab, many):
    tab.open(many.address)
    best = many.result.recommend()
    panels = tab.evaluate(
        """[...document.querySelectorAll("#map .picture > g[transform]")].map((panel) => {
          const middle = (e) => { const r = e.getBoundingClientRect(); return r.y + r.height / 2; };
          const titles = [...panel.querySelectorAll(".title")].map((t) => t.textContent);
          const ticks = [...panel.querySelectorAll(".ticks text[text-anchor=end]")]
            .map((t) => [t.textContent, middle(t)]);
          return [titles.find((t) => t.includes("decay")), ticks, [...panel.querySelectorAll(".star")].map(middle)];
        })"""
    )
    ((title, ticks, (star,)),) = [panel for panel in panels if panel[2]]
    assert title == f"weight decay {best.at['weight_decay']:g}"
    distance, value = min((abs(at - star), float(value)) for value, at in ticks)
    assert distance < 3 and value == best.at["momentum"]
    choose(tab, "Color", "validation loss", within="#map")
    cells = '[...document.querySelectorAll("#map .cell.none")].map((c) => c.getAttribute("d").split("M").length - 1)'
    grey = tab.evaluate(cells)
    at_best = medians(many).xs(best.at["kind"], level="kind")
    assert sum(grey) == at_best.isna().sum() > 0
    ends = re.findall(r"[\d.e-]+(?= |$)", text(tab, "#map .key li"))
    assert float(ends[0]) == pytest.approx(at_best.min(), rel=5e-3)
    assert float(ends[1]) <= float(f"{at_best.max():.3g}")
    assert tab.problems == []


def test_parallel_coordinates_draw_every_point_and_select_ranges(tab, many):
    tab.open(many.address)
    count = """[...document.querySelectorAll("#parallel .thread")].map((t) =>
      [t.classList[2], t.getAttribute("d").split("M").length - 1])"""
    drawn = tab.evaluate(count)
    points = medians(many)
    assert sum(number for _, number in drawn) == len(points)
    assert dict(drawn)["none"] == points.isna().sum()
    titles = tab.evaluate('[...document.querySelectorAll("#parallel .title")].map((t) => t.textContent)')
    assert titles == ["learning rate", "momentum", "weight decay", "kind", "validation loss"]
    tab.evaluate('document.querySelector("#parallel .picture").scrollIntoView({block: "center"})')
    place = tab.evaluate("""[...document.querySelectorAll("#parallel .upright")].map((l) => {
      const r = l.getBoundingClientRect(); return [r.x, r.top, r.bottom]; })[3]""")
    tab.drag((place[0], place[1]), (place[0], (place[1] + place[2]) / 2))  # the upper half: the second kind
    drawn = dict(tab.evaluate(count))
    assert drawn["faint"] == len(points) / 2
    settle(tab)
    address = tab.evaluate("location.href")
    tab.open("about:blank")
    tab.open(address)
    assert dict(tab.evaluate(count)) == drawn
    click(tab, "#parallel .controls button:not(.fold)", 0)
    assert "faint" not in dict(tab.evaluate(count)) and tab.problems == []


# Runs of nothing


def with_losses(change):
    """A sweep whose losses and curves are changed by a function."""
    result = synthetic.result(("sgd",), rates=8, seeds=3)
    lanes = result.lanes
    names = ("final_loss", "validation_loss", "curve_loss")
    changed = {name: (lanes[name].dims, change(lanes[name].values)) for name in names}
    return dataclasses.replace(result, lanes=lanes.assign(changed))


def unfinished():
    result = synthetic.result(("sgd",), rates=8, seeds=3)
    kinds = np.where(np.arange(24) < 15, result.lanes["end_kind"].values, 0)
    return dataclasses.replace(result, lanes=result.lanes.assign(end_kind=("lane", kinds)))


NOTHING = {  # result -> what the answer says, whether the axis of losses is linear
    "all diverged": (lambda: synthetic.result(("sgd", "adam"), edge=1e-6), "Every run diverged", None),
    "one value": (lambda: synthetic.result(("sgd",), rates=1), "with learning rate 0.001 reaches", True),
    "one run": (lambda: synthetic.result(("sgd",), rates=1, seeds=1), "The run with|sgd with", True),
    "one seed": (lambda: synthetic.result(("sgd",), seeds=1), "Use learning rate|Use sgd", False),
    "unfinished": (unfinished, "15 of 24 runs", False),
    "zero": (lambda: with_losses(lambda v: np.where(v < 0.3, 0, v)), "Use", True),
    "all zero": (lambda: with_losses(lambda v: np.where(np.isfinite(v), 0, v)), "Use", True),
    "zero below many decades": (lambda: with_losses(lambda v: np.where(v < 0.01, 0, v**3)), "Use", False),
    "negative": (lambda: with_losses(lambda v: v - 5), "Use", True),
    "negative and positive": (lambda: with_losses(lambda v: v - 0.1), "Use", True),
}


@pytest.mark.parametrize("name", quick(NOTHING, "all diverged", "one run", "unfinished", "all zero", "negative"))
def test_runs_of_nothing_have_words_and_scales_that_suit_them(tab, tmp_path, name):
    make_result, answer, is_linear = NOTHING[name]
    result = make_result()
    tab.open(write_result_report(result, tmp_path / "a.html", figures=[]).as_uri())
    assert re.search(answer, tab.evaluate("document.body.innerText"))
    assert tab.evaluate("document.documentElement.dataset.drawn") == "yes" and tab.problems == []
    shown = tab.evaluate("document.querySelector('#scores select').selectedOptions[0].textContent")
    assert shown == "validation loss"
    ticks = tab.evaluate(
        "[...document.querySelectorAll('#scores .score .ticks text[text-anchor=end]')].map((t) => +t.textContent)"
    )
    assert (ticks == []) == (is_linear is None) and len(set(ticks)) == len(ticks)
    if is_linear is not None:
        steps = np.diff(sorted(ticks))
        assert (len(steps) > 1 and np.allclose(steps, steps[0], rtol=0.02)) == is_linear, ticks
        least = result.lanes["validation_loss"].min()
        assert least >= 0 or min(ticks) < 0
    rim = tab.evaluate("[...document.querySelectorAll('#scores .beyond')].map((t) => t.textContent)")
    assert rim == ([f"{(result.lanes['validation_loss'].values == 0).sum()} at 0 ↓"] if "decades" in name else [])
    said = "Every run diverged." in tab.evaluate("document.querySelector('#scores .picture').textContent")
    assert said == (is_linear is None)


@pytest.mark.parametrize("losses", [np.geomspace(1e3, 1e20, 8), np.geomspace(1e6, 1e9, 8), np.geomspace(300, 1e30, 8)])
def test_curves_that_leave_in_one_step_do_so_at_their_own_slope(tab, tmp_path, losses):
    curves = np.stack([np.full(8, 2.0), losses, np.full(8, np.inf)], axis=1)[:, None]  # (values, seeds, steps)
    result = SweepResult.from_arrays({"learning_rate": np.geomspace(1e-3, 1, 8)}, {"loss": curves})
    tab.open(write_result_report(result, tmp_path / "a.html", figures=[]).as_uri())
    ends = np.array(
        tab.evaluate(
            """[...document.querySelectorAll("#scores .curves .curve")].map((path) => {
          const at = (length) => path.getPointAtLength(length);
          const [first, last] = [at(0), at(path.getTotalLength())];
          return [last.x - first.x, last.y];
        })"""
        )
    )
    assert len(ends) == 8 and np.ptp(ends[:, 1]) < 0.1, "all leave at the top"
    slopes = 1 / ends[:, 0]  # on a log axis in proportion to the decades of the step
    assert slopes / slopes[-1] == pytest.approx(np.log(losses / 2) / np.log(losses[-1] / 2), rel=0.02)
    ticks = "document.querySelectorAll('#scores .curves .ticks text[text-anchor=middle]:not(.title)')"
    assert tab.evaluate(f"[...{ticks}].map((t) => t.textContent)") == ["0", "1", "2"] and tab.problems == []


@pytest.mark.parametrize("finished", [0, 5, 20])
def test_the_page_of_a_live_run_says_how_far_it_is(tab, tmp_path, finished):
    result = synthetic.result(("sgd",), rates=8, seeds=3)
    kinds = np.where(np.arange(24) < finished, result.lanes["end_kind"].values, 0)
    result = dataclasses.replace(result, lanes=result.lanes.assign(end_kind=("lane", kinds)))
    notice = report.Notice(f"{finished} of 24 runs finished.", 60)
    config = loads(CONFIG)
    if finished:
        path = report.write_report(config, result, summarize(result), [], tmp_path, notice)
    else:
        path = report.write_empty_report(config, tmp_path, notice)
    tab.open(path.as_uri())
    assert text(tab, ".standing") == f"{finished} of 24 runs finished."
    assert tab.evaluate("document.querySelectorAll('.score .mark').length > 0") == bool(finished)
    assert tab.problems == []


# A phone


def test_a_phone_folds_options_and_columns_until_they_are_asked_for(tab, made):
    tab.open(made.address, width=390)
    shown = lambda query: tab.evaluate(
        f"[...document.querySelectorAll({query!r})].filter((e) => e.getBoundingClientRect().height).length"
    )
    for folded, button, unfolded in (
        (".score .controls select", ".score .fold", 5),
        (".cards .more", ".wide + .fold", 3 * 5),
    ):
        assert shown(folded) == 0
        tab.evaluate(f"document.querySelector({button!r}).click()")
        assert shown(folded) == unfolded
        assert tab.evaluate(f"document.querySelector({button!r}).getAttribute('aria-expanded')") == "true"
    assert tab.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
    tab.set_display(width=1280)
    assert shown(".score .controls select") == 5 and shown(".score .fold") == 0
    assert tab.problems == []


def test_figures_for_readers_without_javascript_are_rounded_to_what_is_seen(tmp_path):
    figure = Figure(figsize=(4, 3))
    figure.subplots().plot(np.random.default_rng(0).normal(size=(200, 3)), label="a text")
    drawn = report.save_figure(figure, tmp_path / "figure", "A figure", "for readers without JavaScript")
    page = write_result_report(synthetic.result(("sgd",)), tmp_path / "a.html", figures=[drawn]).read_text()
    (image,) = re.findall(r"data:image/svg\+xml;base64,([^\"]+)", page)
    embedded = base64.b64decode(image).decode()
    numbers = lambda text: [float(x) for d in re.findall(r' d="([^"]*)', text) for x in re.findall(r"-?[\d.]+", d)]
    np.testing.assert_allclose(numbers(embedded), numbers(drawn.svg.read_text()), atol=0.0100001)
    assert len(embedded) < len(drawn.svg.read_text())
    assert re.findall(r"scale\([^)]*\)", embedded) == re.findall(r"scale\([^)]*\)", drawn.svg.read_text())
