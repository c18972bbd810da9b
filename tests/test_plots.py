"""Properties of the figures; what they look like is for eyes."""

import itertools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import optax
import pytest
import synthetic
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.path import Path
from shared import quick

import gdkit
from gdkit import Problem, Regime, descend, plots, problems, sgd, sweep
from gdkit.errors import GdkitError, InputTypeError, InputValueError
from gdkit.gradients import chain_rule_trace, finite_difference

RATES = [0.001, 0.01, 0.2, 0.8, 1.0, 1.2, 1.5]


@pytest.fixture(scope="module")
def parabola():
    return sweep(problems.parabola(), sgd, {"learning_rate": RATES}, steps=60)


@pytest.fixture(scope="module")
def noisy():
    """Three seeds that start apart, two optimizers with axes of their own."""
    problem = Problem(lambda x: jnp.sum(x**2), lambda key: jax.random.normal(key, (2,)), optimum=0.0)
    axes = {"optimizer": {"sgd": sgd, "adam": (optax.adam, {"learning_rate": [1e-3, 1e-2, 0.1]})}}
    return sweep(problem, None, axes | {"learning_rate": RATES}, seeds=3, steps=60)


@pytest.fixture(scope="module")
def plane():
    axes = {"learning_rate": [0.2, 0.01, 0.8, 2.5, 4.5], "momentum": [0.0, 0.5, 0.9]}
    return sweep(problems.quadratic([1.0]), sgd, axes, steps=60)


@pytest.fixture(scope="module")
def walks():
    """A run that arrives and one that leaves, of one and of two params."""
    problem = SimpleNamespace(one=problems.parabola(), two=problems.quadratic([1.0, 10.0]))
    rates = {"learning_rate": 0.05}, {"learning_rate": 1.3}
    go = lambda p: [descend(p, sgd, 20, hyperparameters=r, record_params=True) for r in rates]
    return SimpleNamespace(problem=problem, one=go(problem.one), two=go(problem.two))


@pytest.fixture
def ax():
    return plt.subplots(layout="constrained")[1]


@pytest.fixture(autouse=True)
def settings_stay():
    before = dict(mpl.rcParams)
    yield
    assert dict(mpl.rcParams) == before
    plt.close("all")


def every(parabola, noisy, plane, walks):
    return {
        "loss_curves": lambda **k: plots.loss_curves(parabola, **k),
        "final_loss": lambda **k: plots.final_loss(noisy, **k),
        "regime_map": lambda **k: plots.regime_map(plane, x="learning_rate", y="momentum", **k),
        "regime_strip": lambda **k: plots.regime_strip(noisy, **k),
        "trajectories": lambda **k: plots.trajectories(walks.problem.two, walks.two, **k),
        "descent_1d": lambda **k: plots.descent_1d(walks.problem.one, walks.one[0], **k),
    }


NAMES = ["loss_curves", "final_loss", "regime_map", "regime_strip", "trajectories", "descent_1d"]


# Every figure


@pytest.mark.parametrize("name", NAMES)
def test_figure_is_drawn_on_the_axes_given_and_on_new_ones(name, ax, parabola, noisy, plane, walks):
    draw = every(parabola, noisy, plane, walks)[name]
    assert draw(ax=ax) is ax
    made = draw()
    assert isinstance(made, Axes)
    assert made is not ax
    assert made.get_xlabel()


@pytest.mark.parametrize("name", NAMES)
def test_figure_refuses_what_is_no_axes(name, parabola, noisy, plane, walks):
    with pytest.raises(InputTypeError, match="ax=3: not matplotlib Axes"):
        every(parabola, noisy, plane, walks)[name](ax=3)


@pytest.mark.parametrize("layout", ["constrained", None])
@pytest.mark.parametrize("name", quick(NAMES, "loss_curves", "final_loss", "regime_map"))
def test_legend_overlaps_neither_axes_nor_label(name, layout, parabola, noisy, plane, walks):
    ax = plt.figure(layout=layout).add_subplot()
    every(parabola, noisy, plane, walks)[name](ax=ax)
    ax.figure.draw_without_rendering()
    label = ax.xaxis.label.get_window_extent()
    legends = [a for a in ax.get_children() if isinstance(a, mpl.legend.Legend)]
    assert legends or name == "descent_1d"
    boxes = [legend.get_window_extent() for legend in legends]
    for box in boxes:
        assert box.y1 <= label.y0 + 0.1  # pixels: text is measured to a fraction of one
        assert box.y0 >= 0
    assert not any(a.y0 < b.y1 and b.y0 < a.y1 for a, b in itertools.combinations(boxes, 2))


# Colours


def test_every_regime_has_a_colour_a_label_and_a_marker_of_its_own():
    for table in (plots.REGIME_COLORS, plots.REGIME_LABELS, plots.REGIME_MARKERS):
        assert set(table) == set(Regime)
        assert len(set(table.values())) == len(Regime)


# Machado, Oliveira and Fernandes, A physiologically-based model for simulation of color vision deficiency, 2009
SIGHT = {
    "full": np.eye(3),
    "protanopia": [[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]],
    "deuteranopia": [[0.3673, 0.8606, -0.2280], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]],
    "tritanopia": [[1.2555, -0.0767, -0.1788], [-0.0784, 0.9308, 0.1476], [0.0047, 0.6914, 0.3039]],
}


def lab(color, sight):
    """CIE L*a*b* of a colour as it is seen."""
    color = np.array(to_rgb(color))
    linear = np.where(color <= 0.04045, color / 12.92, ((color + 0.055) / 1.055) ** 2.4)
    linear = np.clip(np.array(sight) @ linear, 0, 1)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = np.cbrt(np.maximum(to_xyz @ linear / [0.9505, 1.0, 1.089], 0.008856))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("sight", SIGHT)
def test_regime_colours_are_told_apart(sight):
    seen = {regime: lab(color, SIGHT[sight]) for regime, color in plots.REGIME_COLORS.items()}
    for a, b in itertools.combinations(Regime, 2):
        assert np.linalg.norm(seen[a] - seen[b]) > 20, (a, b)


def test_regime_colours_are_told_apart_in_grey():
    lightness = sorted(lab(color, SIGHT["full"])[0] for color in plots.REGIME_COLORS.values())
    assert np.diff(lightness).min() > 7


# Loss curves


def crosses(ax):
    """Where the marks of diverged lanes stand, on the scale of the axes (0 to 1)."""
    marks = [line for line in ax.lines if line.get_marker() == plots.REGIME_MARKERS[Regime.DIVERGED]]
    at = [point for line in marks for point in line.get_xydata()]
    return ax.transLimits.transform(ax.transScale.transform(np.array(at).reshape(-1, 2)))


def test_diverged_lanes_are_drawn_to_the_top_of_the_axes(ax, parabola):
    plots.loss_curves(parabola, ax=ax)
    at = crosses(ax)
    assert len(at) == int((parabola.regimes == Regime.DIVERGED).sum()) == 2
    np.testing.assert_allclose(at[:, 1], 1.0, atol=1e-6)
    assert ((at[:, 0] > 0) & (at[:, 0] < 1)).all()


def test_loss_axis_is_that_of_the_lanes_that_did_not_diverge(ax, parabola):
    plots.loss_curves(parabola, ax=ax)
    assert ax.get_yscale() == "log"
    assert 9 < ax.get_ylim()[1] < 1000


@pytest.mark.parametrize("value", [1e-3, 1.0, np.float64(-100.0), 1e12])
def test_powers_of_ten_are_formulas_where_latex_draws_text(value):
    plain, bare = plots.style.format_power(value), str.maketrans("", "", "{}")
    with mpl.rc_context({"text.usetex": True}):
        formula = mpl.ticker.LogFormatterMathtext()(value).replace("\\mathdefault", "")
        assert plots.style.format_power(value).translate(bare) == formula.translate(bare) and not plain.isascii()


def test_every_lane_has_a_line_and_a_mark(ax, parabola):
    plots.loss_curves(parabola, ax=ax)
    marks = [line for line in ax.lines if line.get_linestyle() == "None"]
    assert sum(len(line.get_xdata()) for line in marks) == len(RATES)
    assert len(ax.lines) == len(RATES) + len(marks)


def test_lines_without_recorded_curves_join_the_first_and_the_last_loss(ax):
    result = sweep(problems.parabola(), sgd, {"learning_rate": [0.01, 0.1]}, steps=20, curve_points=0)
    plots.loss_curves(result, ax=ax)
    lines = [line.get_xydata() for line in ax.lines if line.get_linestyle() != "None"]
    np.testing.assert_allclose([line[0] for line in lines], [(0, 9.0)] * 2, rtol=1e-5)
    np.testing.assert_allclose([line[-1, 1] for line in lines], result.lanes["final_loss"].values, rtol=1e-5)


def test_step_axis_is_linear_on_request(ax, parabola):
    assert plots.loss_curves(parabola, log_steps=False, ax=ax).get_xscale() == "linear"


@pytest.fixture(scope="module")
def watched():
    loss = lambda x, batch: (jnp.mean((x - batch) ** 2), {"size": jnp.abs(x)})
    fit = gdkit.Metric(lambda x, data: -jnp.mean((x - data) ** 2), maximize=True)
    problem = Problem(loss, 0.0, data=jnp.ones(2), validation=2 * jnp.ones(3), metrics={"fit": fit}, has_logs=True)
    return sweep(problem, sgd, {"learning_rate": [0.01, 0.1, 1.5]}, steps=40, evaluate_every=10)


@pytest.mark.parametrize("name", ["validation_loss", "validation_fit", "size", None])
def test_curves_of_any_recorded_value_are_drawn_up_to_the_end_of_each_lane(ax, watched, name):
    plots.curves(watched, name, log_steps=False, ax=ax)
    lines = [line.get_xydata() for line in ax.lines if len(line.get_xdata()) > 1]
    for lane in range(2):
        steps, values = watched.curve(lane, name or "validation_loss")
        seen = np.maximum(values, ax.get_ylim()[0])  # a log axis has no zero
        np.testing.assert_allclose(lines[lane], np.stack([steps, seen], axis=1), rtol=1e-5)
    assert ax.get_ylabel() == (name or "validation_loss").replace("_", " ")
    assert (ax.get_yscale() == "linear") == (name in ("validation_fit", "size"))  # the size begins at 0


@pytest.mark.full
def test_curves_and_reports_name_and_embed_what_was_recorded(watched, tmp_path):
    with pytest.raises(InputValueError, match="name='validation_los': no such name"):
        plots.curves(watched, "validation_los")
    page = watched.report(tmp_path / "report.html").read_text(encoding="utf-8")
    assert all(f'"what":"{name}","steps":[10,20,30,40]' in page for name in ("validation_loss", "validation_fit"))


# Final loss


def test_both_axes_are_logarithmic_and_the_edge_is_drawn(ax, parabola):
    plots.final_loss(parabola, threshold=1.0, ax=ax)
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    labels = [text.get_text() for legend in ax.findobj(mpl.legend.Legend) for text in legend.get_texts()]
    assert f"edge {np.sqrt(1.0 * 1.2):.3g}" in labels
    assert "theory 1" in labels


def test_every_diverged_seed_has_a_cross_at_the_top(ax, noisy):
    plots.final_loss(noisy, optimizer="sgd", ax=ax)
    drawn = [line for line in ax.lines if line.get_marker() == "x"]
    height = np.concatenate([line.get_ydata() for line in drawn])
    assert height.size == int((noisy.select(optimizer="sgd").regimes == Regime.DIVERGED).sum()) > 0
    assert (height > 0.8).all()
    assert (height < 1).all()


def test_several_optimizers_each_get_a_colour_and_a_row_of_the_strip(ax, noisy):
    plots.final_loss(noisy, ax=ax)
    (strip,) = ax.child_axes
    assert [text.get_text() for text in strip.get_yticklabels()] == ["sgd", "adam"]
    assert {line.get_color() for line in ax.lines} >= set(plots.SERIES_COLORS[:2])


@pytest.mark.parametrize("size", [(6.4, 4.0), (4.0, 2.5)])
def test_the_strip_is_within_the_figure_once_it_is_drawn(noisy, size):
    ax = plots.final_loss(noisy, ax=plt.subplots(figsize=size, layout="constrained")[1])
    ax.figure.draw_without_rendering()
    (strip,) = ax.child_axes
    box, above = strip.get_tightbbox(), ax.get_window_extent()
    assert box.y1 <= ax.figure.bbox.y1
    assert strip.get_window_extent().y0 > above.y1
    assert strip.get_window_extent().x0 == pytest.approx(above.x0)
    assert strip.get_window_extent().width == pytest.approx(above.width)


def test_a_row_of_the_strip_is_divided_among_the_regimes_of_the_seeds(ax):
    made = synthetic.result(("sgd",), rates=16, edge=0.85)  # one value is too much for seed 0 alone
    plots.regime_strip(made, ax=ax)
    codes = made.regimes.values.reshape(16, 3)
    for regime in map(Regime, np.unique(codes)):
        (drawn,) = [c for c in ax.collections if mpl.colors.to_hex(c.get_facecolor()[0]) == plots.REGIME_COLORS[regime]]
        x, y = drawn.get_paths()[0].vertices.T
        area = 0.5 * abs(np.sum(np.log10(x) * np.roll(y, -1) - np.log10(np.roll(x, -1)) * y))
        assert area == pytest.approx(0.88 * 4 / 15 * (codes == regime).mean(axis=1).sum(), rel=1e-6)


def test_bands_cover_the_axis_without_gaps(ax, parabola):
    plots.final_loss(parabola, ax=ax)
    bands = sorted((patch.get_x(), patch.get_x() + patch.get_width()) for patch in ax.patches)
    assert (bands[0][0], bands[-1][1]) == pytest.approx(ax.get_xlim())
    assert [end for _, end in bands[:-1]] == pytest.approx([start for start, _ in bands[1:]])


# Maps


def test_map_shows_the_regime_of_every_cell_in_increasing_order(ax, plane):
    plots.regime_map(plane, x="learning_rate", y="momentum", ax=ax)
    drawn = ax.collections[0].get_array().reshape(3, 5)
    expected = plane.regimes.sortby("learning_rate").transpose("momentum", "learning_rate", "seed").values[..., 0]
    assert np.array_equal(drawn, expected)


def test_map_of_paired_axes_is_drawn_as_points(ax):
    axes = [gdkit.paired({"learning_rate": [0.1, 0.2, 5.0], "momentum": [0.0, 0.5, 0.3]})]
    result = sweep(problems.quadratic([1.0]), sgd, axes, steps=30)
    plots.regime_map(result, x="learning_rate", y="momentum", best=False, ax=ax)
    assert sum(len(line.get_xdata()) for line in ax.lines) == 3


def test_map_over_optimizers_names_them(ax):
    axes = {"optimizer": {"sgd": sgd, "adam": optax.adam}, "learning_rate": [0.01, 0.1, 3.0]}
    result = sweep(problems.parabola(), None, axes, steps=30)
    plots.regime_map(result, x="learning_rate", y="optimizer", ax=ax)
    assert [text.get_text() for text in ax.get_yticklabels()] == ["sgd", "adam"]
    assert ax.yaxis.get_inverted()  # reads from the top


def test_other_axes_are_held_where_at_says(ax, plane):
    plots.final_loss(plane, at={"momentum": 0.9}, ax=ax)
    assert ax.get_title(loc="left") == "momentum 0.9"


# Single runs


def test_run_that_leaves_is_drawn_to_the_frame(ax, walks):
    plots.trajectories(walks.problem.two, walks.two, ax=ax)
    (at,) = crosses(ax)
    assert np.isclose(at, [0.0, 1.0], atol=1e-6).any() or np.isclose(at, [1.0, 0.0], atol=1e-6).any()
    assert ((at > -1e-6) & (at < 1 + 1e-6)).all()


def test_walk_stands_on_the_loss(ax, walks):
    plots.descent_1d(walks.problem.one, walks.one[0], ax=ax)
    dots = next(line for line in ax.lines if line.get_marker() == "o")
    np.testing.assert_allclose(dots.get_ydata(), (np.array(dots.get_xdata()) - 3) ** 2, atol=1e-4)


def test_params_of_two_leaves_are_drawn(ax):
    problem = Problem(lambda p: p["w"] ** 2 + 3 * p["b"] ** 2, {"w": 1.0, "b": -1.0}, optimum=0.0)
    run = descend(problem, sgd(0.1), 5, record_params=True)
    plots.trajectories(problem, run, labels=["both"], limits=((-2, 2), (-2, 2)), ax=ax)
    assert ax.get_xlim() == (-2, 2)


# Degenerate sweeps


ODD = {
    "scalar": Problem(lambda x: (x - 3) ** 2, 0.0),
    "negative": Problem(lambda x: (x - 3) ** 2 - 20, 0.0),
    "dead": Problem(lambda x: 1.0 + 0.0 * x, 0.0),
    "nan": Problem(lambda x: jnp.where(x > 0.5, jnp.nan, (x - 3) ** 2), 0.0),
}


@pytest.mark.parametrize(
    "kind, rates, options",
    [
        ("scalar", [0.1], {}),  # one value
        ("scalar", [5.0, 50.0], {}),  # all diverges
        ("negative", RATES, {}),
        *quick(
            [
                ("scalar", [0.1, 0.2], {}),  # nothing diverges
                ("scalar", [0.0, 0.01, 0.1, 1.0], {}),  # a learning rate of 0
                ("scalar", [0.5], {}),  # arrives at a loss of exactly 0
                ("dead", RATES, {}),
                ("nan", RATES, {}),
                ("scalar", RATES, {"curve_points": 0}),
                ("scalar", [0.1, 1e20], {}),  # overflows at once
            ]
        ),
    ],
)
def test_degenerate_sweeps_are_drawn(kind, rates, options):
    result = sweep(ODD[kind], sgd, {"learning_rate": rates}, steps=8, **options)
    figure, axes = plt.subplots(1, 3)
    for draw, ax in zip((plots.loss_curves, plots.final_loss, plots.regime_strip), axes, strict=True):
        draw(result, ax=ax)
        assert np.isfinite([*ax.get_xlim(), *ax.get_ylim()]).all()
    figure.draw_without_rendering()


# Files


def test_files_are_the_same_bytes_twice(tmp_path, noisy):
    written = []
    for name in ("a", "b"):
        figure = plt.figure(layout="constrained")
        plots.final_loss(noisy, ax=figure.add_subplot())
        written.append([path.read_bytes() for path in plots.save(figure, tmp_path / f"{name}.1e-3", dpi=40)])
    assert written[0] == written[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{n}.1e-3.{e}" for n in "ab" for e in ("png", "svg")]


def test_saving_a_figure_leaves_its_canvas_resolution_and_window(tmp_path):
    figure, sizes = plt.figure(dpi=50), []
    canvas = figure.canvas
    canvas.manager = SimpleNamespace(resize=lambda *size: sizes.append(size))
    plots.save(figure, tmp_path / "a", dpi=40)
    assert (figure.canvas, figure.dpi, sizes) == (canvas, 50, [])


@pytest.mark.full
def test_very_many_points_are_an_image_within_the_svg_and_few_are_not(tmp_path):
    sizes = []
    for count, is_image in ((500, False), (50_001, True)):
        figure = plt.figure()
        ax = figure.subplots()
        ax.plot(np.linspace(0, 1, count), np.random.default_rng(0).random(count))
        ax.scatter(np.linspace(0, 1, count), np.random.default_rng(1).random(count))
        _, svg = plots.save(figure, tmp_path / f"{count}")
        assert ("<image" in svg.read_text()) == is_image
        sizes.append(svg.stat().st_size)
    assert sizes[1] < 3e6, "as paths it would be a hundred times the first"


def test_file_in_no_folder_is_refused(tmp_path):
    with pytest.raises(InputValueError, match="its folder does not exist"):
        plots.save(plt.figure(), tmp_path / "none" / "figure")


# Bad input


@pytest.mark.parametrize(
    "draw, said",
    [
        (lambda f: plots.loss_curves(3), "result=3: not a SweepResult"),
        (lambda f: plots.loss_curves(f.sweep, axis="learning_rat"), "Did you mean 'learning_rate'"),
        (lambda f: plots.loss_curves(f.sweep, seed=3), "seed=3: no such seed"),
        (lambda f: plots.loss_curves(f.sweep, at={"beta": 1}), "at='beta': no such name"),
        (lambda f: plots.final_loss(f.sweep, by="losses"), "by='losses': no such name"),
        (lambda f: plots.final_loss(f.sweep, optimizer="adam"), "optimizer='adam'"),
        (lambda f: plots.final_loss(f.sweep, threshold="1"), "threshold='1': not a number"),
        (lambda f: plots.final_loss(f.plane, at={"momentum": 0.7}), "the sweep has no such point"),
        (lambda f: plots.regime_map(f.plane, x="momentum", y="momentum"), "the same axis as x"),
        (lambda f: plots.regime_map(f.noisy, x="learning_rate", y="optimizer"), "Use regime_strip"),
        (lambda f: plots.trajectories(f.walks.problem.two, []), "runs=.*: it is empty"),
        (lambda f: plots.trajectories(f.walks.problem.two, f.walks.two, labels=["a"]), "1 label for 2 runs"),
        (lambda f: plots.trajectories(f.walks.problem.two, f.walks.one), "its params are 1 numbers"),
        (lambda f: plots.trajectories(problems.rosenbrock, f.walks.two), "not a Problem"),
        (lambda f: plots.trajectories(f.walks.problem.two, f.walks.two, limits=(0, 1)), "not increasing pairs"),
        (lambda f: plots.descent_1d(f.walks.problem.one, f.walks.one[0], limits=(1, 0)), "not increasing pairs"),
        (lambda f: plots.descent_1d(f.walks.problem.one, 3), "not a Trajectory"),
        (
            lambda f: plots.descent_1d(f.walks.problem.one, f.walks.one[0]._replace(params_history=None)),
            "its params were not recorded",
        ),
    ],
)
def test_bad_input_is_named(draw, said, parabola, plane, noisy, walks):
    with pytest.raises(GdkitError, match=said):
        draw(SimpleNamespace(sweep=parabola, plane=plane, noisy=noisy, walks=walks))


# Derivatives


def texts(ax):
    return [text.get_text() for text in ax.texts]


def test_tangent_touches_the_curve_with_the_slope_of_the_derivative(ax):
    ax = plots.tangent(lambda t: t**2, 3.0, limits=(0.0, 6.0), ax=ax)
    curve, line, point = ax.get_lines()
    np.testing.assert_allclose(line.get_ydata(), 6 * line.get_xdata() - 9, atol=1e-4)
    np.testing.assert_allclose(curve.get_ydata(), curve.get_xdata() ** 2, rtol=1e-5)
    assert (point.get_xdata()[0], point.get_ydata()[0]) == pytest.approx((3.0, 9.0))


def test_rings_mark_the_steps_of_least_error(ax):
    table = finite_difference(lambda t: t**3, 3.1, 10.0 ** -np.arange(1, 13))
    ax = plots.difference_error(table, ax=ax)
    line, ring = ax.get_lines()
    assert ring.get_xdata()[0] == table.best
    assert ring.get_ydata()[0] == pytest.approx(min(line.get_ydata()))


def test_graph_shows_every_value_adjoint_and_local_derivative(ax):
    trace = chain_rule_trace(lambda x: (2 * x + 1) ** 2, 1.0)
    ax = plots.chain_rule(trace, ax=ax)
    said = "\n".join(texts(ax))
    for row in trace.rows:
        assert f"value {float(row.value):.4g}" in said and f"adjoint {float(row.adjoint):.4g}" in said
    slopes = [text for text in texts(ax) if text.startswith("·")]
    assert slopes == [f"· {slope:.4g}" for *_, slope in trace.graph().edges]


def test_arrows_of_a_graph_avoid_the_boxes_they_pass(ax):
    ax = plots.chain_rule(chain_rule_trace(lambda c, d: c**2 + 2 * c * d + d, 0.5, 0.3), ax=ax)
    ax.figure.canvas.draw()
    boxes = [text for text in ax.texts if text.get_bbox_patch() is not None and "value" in text.get_text()]
    frames = [box.get_bbox_patch().get_window_extent() for box in boxes]
    assert not any(a.overlaps(b) for i, a in enumerate(frames) for b in frames[:i])
    shafts = [text.arrow_patch.get_path().vertices[:3] for text in ax.texts if getattr(text, "arrow_patch", None)]
    arrows = [Path(shaft) for shaft in shafts]
    assert len(arrows) > len(boxes)
    inner = [frame.padded(-4) for frame in frames]
    assert not any(arrow.intersects_bbox(frame, filled=False) for arrow in arrows for frame in inner)


@pytest.mark.parametrize(
    "call, said",
    [
        (lambda: plots.tangent(lambda t: t, "3"), "at='3': not a number"),
        (lambda: plots.difference_error([1]), "table=.*not a FiniteDifference"),
        (lambda: plots.chain_rule("trace"), "trace='trace': not a ChainRuleTrace"),
        (
            lambda: plots.chain_rule(chain_rule_trace(lambda x: sum(x**i for i in range(2, 50)), 1.0)),
            "60 are not readable",
        ),
    ],
)
def test_bad_input_of_derivative_figures_is_named(call, said):
    with pytest.raises((InputTypeError, InputValueError), match=said):
        call()
