"""Figures in print and on a dark page: widths, panels, lines that coincide, the best on maps."""

import functools
import itertools

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import synthetic
from shared import quick
from test_plots import SIGHT, lab

from gdkit import Regime, plots
from gdkit.errors import InputValueError

MAP = functools.partial(plots.regime_map, x="learning_rate", y="momentum")


@pytest.fixture
def ax():
    return plt.subplots(layout="constrained")[1]


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.mark.parametrize("columns", [1, 2])
@pytest.mark.parametrize(
    "draw", quick([plots.final_loss, plots.loss_curves, MAP, plots.regime_strip], plots.final_loss, MAP)
)
def test_figures_are_legible_at_the_width_of_a_paper(draw, columns):
    result = synthetic.result(("sgd", "momentum", "adam", "lion"), others={"momentum": [0.0, 0.9]}, rates=12)
    with mpl.rc_context(plots.paper(columns)):
        ax = draw(result)
    figure = ax.get_figure(root=True)
    assert figure.get_figwidth() == {1: 3.3, 2: 6.8}[columns]
    figure.draw_without_rendering()
    box = figure.get_tightbbox()  # inches
    assert box.x0 > -0.02 and box.x1 < figure.get_figwidth() + 0.02 and box.y0 > -0.02
    assert min(text.get_fontsize() for text in figure.findobj(mpl.text.Text) if text.get_text().strip()) >= 6.5
    assert ax.get_window_extent().height > 0.25 * figure.bbox.height


def test_a_paper_has_one_column_or_two():
    with pytest.raises(InputValueError, match=r"columns=3: no such width. Use 1 \(3.3 inches\) or 2 \(6.8 inches\)"):
        plots.paper(3)


@pytest.mark.parametrize("titles", [["", ""], ["one", ""], ["", "two", "three"]])
def test_panels_are_labelled_in_their_order_before_their_titles(titles):
    figure = plt.figure()
    for ax, title in zip(figure.subplots(1, len(titles)), titles, strict=True):
        ax.set_title(title)
    figure.colorbar(mpl.cm.ScalarMappable(), ax=figure.axes[0])
    assert plots.label_panels(figure) is figure
    shown = [ax.get_title() or ax.get_title("left") for ax in figure.axes[: len(titles)]]
    assert shown == [f"({letter}) {title}".strip() for letter, title in zip("abc", titles, strict=False)]
    assert figure.axes[-1].get_title("left") == ""
    alone = plots.label_panels(plots.regime_strip(synthetic.result(("sgd",))).get_figure())
    assert alone.axes[0].get_title("left") == ""


def test_optimizers_that_coincide_have_lines_of_different_dashes(ax):
    result = synthetic.result(("sgd", "momentum", "nesterov", "lion"), seeds=1, rates=5)
    plots.final_loss(result, ax=ax)
    lines = [line for line in ax.lines if line.get_linewidth() == 1.7 and len(line.get_xdata()) == 5]
    assert len({str(line._dash_pattern) for line in lines}) == len(lines) == 4


@pytest.mark.parametrize("sight", SIGHT)
def test_regime_colours_of_a_dark_page_are_told_apart_and_from_it(sight):
    seen = {regime: lab(color, SIGHT[sight]) for regime, color in plots.style.REGIME_COLORS_DARK.items()}
    for a, b in itertools.combinations(Regime, 2):
        assert np.linalg.norm(seen[a] - seen[b]) > 20, (a, b)
    assert min(color[0] for color in seen.values()) > lab("#1e2023", SIGHT[sight])[0] + 15


@pytest.mark.parametrize("at", [None, {"kind": "a"}, {"kind": "b"}])
@pytest.mark.parametrize(("x", "y"), [("learning_rate", "momentum"), ("momentum", "learning_rate")])
def test_maps_have_a_star_at_the_recommended_point_if_they_show_it(ax, x, y, at):
    result = synthetic.result(("sgd", "adam"), others={"momentum": [0.0, 0.5, 0.9], "kind": ["a", "b"]}, rates=6)
    best = result.select(optimizer="adam").recommend(x)
    point = {x: best.best} | best.at
    plots.regime_map(result, x=x, y=y, optimizer="adam", at=at, ax=ax)
    stars = [line.get_xydata()[0] for line in ax.lines if line.get_marker() == "*"]
    shown = at is None or at["kind"] == point["kind"]
    assert [tuple(star) for star in stars] == [(point[x], point[y])] * shown
    plots.regime_map(result, x=x, y=y, optimizer="adam", at=at, best=False, ax=ax)
    assert len([line for line in ax.lines if line.get_marker() == "*"]) == shown
