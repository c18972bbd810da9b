"""Borders are found where they are, their dimension is the one that is known, and a zoom never loses them."""

import numpy as np
import pytest
from PIL import Image

from gdkit import boundary, optimizers, plots, problems
from gdkit.boundary import FractalDimension, Frame, Trail, by_runs, dimension, explore, zoom
from gdkit.errors import InputTypeError, InputValueError

SQUARE = {"x": (-1.0, 1.0), "y": (-1.0, 1.0)}
SNOW = np.log(4) / np.log(3)


def disc(points, radius=0.7):
    return np.hypot(*points.T) < radius


def koch(turn):
    """Below Koch's curve over the segment from 0 to 1, of dimension log 4 / log 3, turned around 0."""
    corners = np.array([0, 1 / 3, 0.5 + 1j * 3**0.5 / 6, 2 / 3, 1])
    within = lambda z: (z.imag >= 0) & (z.imag <= np.minimum(z.real, 1 - z.real) / 3**0.5)  # the triangle of the curve

    def below(points):
        z = (points[:, 0] + 1j * points[:, 1]) * np.exp(-1j * turn)
        inside, open_ = z.imag < 0, within(z)
        for _ in range(36):  # each time three times as fine
            middle = np.minimum(z.real - 1 / 3, 2 / 3 - z.real) * 3**0.5 >= z.imag
            inside |= open_ & middle
            parts = (z[None] - corners[:-1, None]) / np.diff(corners)[:, None]
            which = within(parts).argmax(axis=0)
            z = np.take_along_axis(parts, which[None], axis=0)[0]
            open_ &= ~middle & within(z)
        return inside

    return below


KOCH = koch(0.2)


def asked(ask):
    """The function, and the list of all points that it is asked."""
    seen = []

    def listed(points):
        seen.extend(map(tuple, points.tolist()))
        return ask(points)

    return listed, seen


# --- refining


@pytest.mark.parametrize("ask", [disc, koch(0.3), lambda p: 2 * (p[:, 1] > np.sin(3 * p[:, 0])) + disc(p)])
def test_refining_finds_what_asking_everywhere_finds_cell_by_cell(ask):
    fine, dense = (explore(ask, **SQUARE, cells=128, coarse=coarse) for coarse in (16, 128))
    np.testing.assert_array_equal(fine.border, dense.border)
    np.testing.assert_array_equal(fine.answers, dense.answers)
    assert dense.evaluated.all() and fine.evaluated.mean() < 0.4


def test_answers_are_those_of_the_function_and_a_cell_holds_border_where_its_corners_disagree():
    found = explore(disc, **SQUARE, cells=32, coarse=32)
    want = np.array([[disc(np.array([[a, b]]))[0] for a in found.x] for b in found.y])
    np.testing.assert_array_equal(found.answers, want)
    for row, column in np.ndindex(32, 32):
        assert found.border[row, column] == (len(set(want[row : row + 2, column : column + 2].ravel())) > 1)


def test_no_point_is_asked_twice():
    ask, seen = asked(disc)
    found = explore(ask, **SQUARE, cells=64)
    assert len(seen) == len(set(seen)) == found.evaluated.sum()


def test_islands_that_coarse_points_step_over_are_missed_and_a_finer_lattice_finds_them():
    island = lambda points: disc(points - 0.53, radius=0.04)
    assert not explore(island, **SQUARE, cells=128, coarse=16).border.any()
    assert explore(island, **SQUARE, cells=128, coarse=64).border.any()


def test_a_border_is_followed_through_cells_whose_coarse_corners_agree():
    # a thin tongue from a half-plane, which the coarse points see no more of than its root
    tongue = lambda p: (p[:, 1] < -0.4) | ((np.abs(p[:, 0] - 0.06) < 0.03) & (p[:, 1] < 0.9))
    fine, dense = (explore(tongue, **SQUARE, cells=128, coarse=coarse) for coarse in (16, 128))
    assert fine.border[110].any()
    np.testing.assert_array_equal(fine.border, dense.border)


# --- dimension


@pytest.mark.parametrize("shift", [0.0, 0.137])
@pytest.mark.parametrize("ask", [disc, lambda p: p @ [0.6, 0.8] > 0.1, lambda p: p[:, 1] > 0.3 * np.sin(4 * p[:, 0])])
def test_a_smooth_border_has_dimension_one(ask, shift):
    found = dimension(explore(lambda p: ask(p - shift), **SQUARE, cells=256))
    assert found.value == pytest.approx(1, abs=0.04)
    assert found.low < 1 < found.high


@pytest.mark.parametrize("turn", [0.0, 0.3, 1.0])
def test_the_curve_of_koch_has_its_dimension(turn):
    found = dimension(explore(koch(turn), (0.0, 0.8), (-0.1, 0.7), cells=256))
    assert found.value == pytest.approx(SNOW, abs=0.04)
    assert found.low < SNOW < found.high
    assert found.low > 1


@pytest.mark.parametrize("known", [1.2, 1.5, 1.8])
@pytest.mark.parametrize("along", ["x", "y"])
def test_a_graph_that_is_rough_along_one_direction_has_its_dimension(known, along):
    terms = np.arange(40)[:, None]  # Weierstrass's function: f(x + s) − f(x) is like s^(2 − D)
    scale = 0.5 * (1 - 2.0 ** (known - 2))
    graph = lambda x: scale * np.sum(2.0 ** ((known - 2) * terms) * np.cos(2.0**terms * 2 * np.pi * x), axis=0)
    windows = (0.03, 1.03), (-0.5, 0.5)
    below = lambda p: p[:, 1] < graph(p[:, 0]) if along == "x" else p[:, 0] < graph(p[:, 1])
    found = dimension(explore(below, *(windows if along == "x" else windows[::-1]), cells=256, coarse=256))
    assert found.value == pytest.approx(known, abs=0.08)
    assert found.low < known < found.high and found.rougher_along == along
    assert found.high - found.low < 0.4


def test_no_direction_is_chosen_for_a_boundary_that_is_as_rough_along_both():
    assert dimension(explore(KOCH, (0.0, 0.8), (-0.1, 0.7), cells=256)).rougher_along is None
    assert dimension(explore(lambda p: p[:, 1] > 0.013, **SQUARE, cells=64)).rougher_along is None  # no side along x


def test_what_fills_the_plane_has_dimension_two():
    noise = np.random.default_rng(0).integers(2, size=(129, 129))
    assert dimension(noise).value == pytest.approx(2, abs=0.01)


def test_boxes_of_all_sizes_are_counted_by_their_corners_around_the_same_middles():
    answers = explore(koch(0.3), (0.0, 0.8), (-0.1, 0.7), cells=64).answers
    found = dimension(answers)
    assert found.sizes.tolist() == [1, 2, 4, 8]
    for size, count in zip(found.sizes, found.counts, strict=True):
        starts = np.array(list(np.ndindex(56, 56))) + (8 - size) // 2
        corners = [answers[j : j + size + 1 : size, i : i + size + 1 : size] for j, i in starts]
        assert count == pytest.approx(sum(len(np.unique(c)) > 1 for c in corners) / size**2)
    slope = np.polyfit(np.log(found.sizes), np.log(found.counts), 1)[0]
    assert found.value == pytest.approx(-slope)


@pytest.mark.parametrize(
    ("frame", "error", "said"),
    [
        (explore(disc, **SQUARE, cells=32), InputValueError, "frame='32² cells': fewer than 4 sizes.*with 64 cells"),
        (
            explore(lambda p: disc(p + 1, 0.3), **SQUARE),
            InputValueError,
            "boundary is in . of 8².*that the boundary",
        ),
        (np.zeros((129, 129), int), InputValueError, "the boundary is in 0 of"),
        (np.zeros((129, 128), int), InputTypeError, "not a square array of answers"),
        (np.zeros((129, 129)), InputTypeError, "not a square array of answers"),
    ],
)
def test_a_border_too_coarse_is_refused(frame, error, said):
    with pytest.raises(error, match=said):
        dimension(frame)


# --- zooming


@pytest.fixture(scope="module")
def trail():
    return zoom(KOCH, (0.2, 1.0), (-0.2, 0.6), frames=9)


def test_every_window_lies_in_the_one_before_and_has_its_points_and_their_answers(trail):
    for outer, inner in zip(trail.frames[:-1], trail.frames[1:], strict=True):
        for one, two in ((outer.x, inner.x), (outer.y, inner.y)):
            assert np.isin(two[::8], one).all()  # the same numbers, bit by bit
            assert two[-1] - two[0] == pytest.approx((one[-1] - one[0]) / 8)
        rows, columns = np.searchsorted(outer.y, inner.y[::8]), np.searchsorted(outer.x, inner.x[::8])
        np.testing.assert_array_equal(inner.answers[::8, ::8], outer.answers[np.ix_(rows, columns)])
        assert inner.border.any()


def test_no_point_is_asked_again_in_a_smaller_window():
    ask, seen = asked(KOCH)
    zoom(ask, (0.2, 1.0), (-0.2, 0.6), frames=3)
    assert len(seen) == len(set(seen))


def test_the_next_window_is_around_the_cell_with_most_border():
    first, second = zoom(KOCH, (0.2, 1.0), (-0.2, 0.6), frames=2).frames
    row, column = np.searchsorted(first.y, second.y[0]), np.searchsorted(first.x, second.x[0])
    most = 0
    for j, i in np.argwhere(first.border):
        top, left = (int(np.clip(k - 8, 0, 112)) for k in (j, i))
        most = max(most, first.border[top : top + 16, left : left + 16].sum())
    assert first.border[row : row + 16, column : column + 16].sum() == most


def test_the_next_window_may_be_around_the_middle_cell_with_border():
    first, second = zoom(KOCH, (0.2, 1.0), (-0.2, 0.6), frames=2, toward="middle").frames
    rows, columns = np.nonzero(first.border)
    nearest = np.hypot(rows - 63.5, columns - 63.5).min()
    middle = np.searchsorted(first.y, second.y[0]) + 8, np.searchsorted(first.x, second.x[0]) + 8
    assert first.border[middle] and np.hypot(middle[0] - 63.5, middle[1] - 63.5) == pytest.approx(nearest)


def test_dimension_along_a_zoom_is_the_one_that_is_known(trail):
    value, low, high = trail.median()
    assert value == np.median([found.value for found in trail.dimensions])
    assert low < SNOW < high
    assert value == pytest.approx(SNOW, abs=0.05)


def test_a_smooth_border_grows_straight():
    trail = zoom(disc, **SQUARE, frames=4)
    assert [found.value for found in trail.dimensions] == pytest.approx([1] * 4, abs=0.08)
    assert all(frame.border.sum() <= 2 * 128 - 1 for frame in trail.frames[1:])  # what a straight line can meet


def test_windows_that_are_too_coarse_have_no_dimension_and_too_few_no_median():
    trail = zoom(disc, **SQUARE, frames=2, cells=32)
    assert trail.dimensions == [None, None]
    with pytest.raises(InputValueError, match="frames=0: too few windows could be measured"):
        trail.median()


# --- runs


def heavy_ball(**options):
    problem = problems.quadratic([1.0])
    factory = lambda learning_rate, momentum: optimizers.sgd(learning_rate, momentum)
    return by_runs(problem, factory, ("learning_rate", "momentum"), steps=300, log=(True, False), **options)


def test_runs_answer_as_theory_does_on_either_side_of_the_edge_of_the_heavy_ball():
    found = explore(heavy_ball(), (-1.0, 1.0), (0.0, 0.6), cells=64)
    border = np.log10(2 + 2 * found.y)  # of curvature 1
    away = found.x[None, :] - border[:, None]
    clear = np.abs(away) > 0.05
    np.testing.assert_array_equal(found.answers[clear] == 1, (away < 0)[clear])
    assert dimension(found).value == pytest.approx(1, abs=0.05)


def test_an_answer_is_the_same_whoever_asks_beside_it():
    ask, some = heavy_ball(), np.stack([np.linspace(0.29, 0.32, 37), np.zeros(37)], axis=1)
    alone = np.concatenate([ask(some[k : k + 1]) for k in range(0, 37, 6)])
    np.testing.assert_array_equal(ask(some)[::6], alone)
    assert ask(some).shape == (37,) and 0 < alone.sum() < len(alone)


def test_what_is_asked_of_runs_can_be_chosen():
    steps = heavy_ball(answer=lambda result: result.lanes["end_step"].values)(np.array([[0.0, 0.0], [1.0, 0.0]]))
    assert steps[0] == 300 > steps[1]


# --- figures


def test_every_pixel_of_the_figure_is_an_answer_at_its_place_and_the_next_window_is_outlined():
    first, second = zoom(disc, **SQUARE, frames=2).frames
    ax = plots.answers(first, names=("out", "in"), inner=second)
    (image,) = ax.images
    np.testing.assert_array_equal(image.get_array(), first.answers)
    left, right, low, high = image.get_extent()
    half = (first.x[1] - first.x[0]) / 2
    assert (left, right, low, high) == pytest.approx((-1 - half, 1 + half, -1 - half, 1 + half))
    box = ax.patches[-1]
    assert box.get_xy() == (second.x[0], second.y[0]) and box.get_width() == pytest.approx(0.25)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["out", "in"]
    dark, light = (sum(patch.get_facecolor()[:3]) for patch in plots.answer_handles(("out", "in")))
    assert light - dark > 1.5  # told apart in grey


def test_the_way_in_is_magnified_at_a_constant_rate_and_ends_at_the_last_window(tmp_path):
    trail = zoom(disc, **SQUARE, frames=3)
    film = plots.zoom(trail, names=("out", "in"), labels=("a", "b"), seconds=0.4)
    film.save(tmp_path / "zoom.gif", dpi=40)
    with Image.open(tmp_path / "zoom.gif") as gif:
        assert gif.n_frames > 8  # equal pictures are one
    ax, shown = film._fig.axes[0], []
    for number in range(12):
        film._draw_frame(number)
        shown.append((*ax.get_xlim(), *ax.get_ylim(), ax.get_title()))
    sides = np.diff(np.array([row[:2] for row in shown]))[:, 0]
    np.testing.assert_allclose(sides[1:9] / sides[:8], 8 ** (-1 / 4))
    np.testing.assert_allclose(shown[4][:4], [*trail.frames[1].x[[0, -1]], *trail.frames[1].y[[0, -1]]])
    np.testing.assert_allclose(shown[-1][:4], [*trail.frames[2].x[[0, -1]], *trail.frames[2].y[[0, -1]]])
    assert [row[-1] for row in shown[::4]] == ["× 1", "× 8", "× 64"]


@pytest.mark.parametrize(
    ("draw", "said"),
    [
        (lambda: plots.answers(3), "frame=3: not a Frame"),
        (lambda: plots.zoom(3), "trail=3: not a Trail"),
        (lambda: plots.zoom(Trail((explore(disc, **SQUARE),)), seconds=0), "seconds=0: must be a finite number above"),
    ],
)
def test_bad_input_of_figures_is_named(draw, said):
    with pytest.raises((InputTypeError, InputValueError), match=said):
        draw()


# --- bad input


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"x": (1.0, -1.0)}, InputValueError, "x=.*: not two finite numbers low < high"),
        ({"y": 3}, InputTypeError, "y=3: not a pair of numbers"),
        ({"cells": 100}, InputValueError, "cells=100: not a power of two. Pass 64, 128"),
        ({"coarse": 256}, InputValueError, "coarse=256: more than the 128 cells"),
        ({"coarse": 1}, InputValueError, "coarse=1: not a power of two"),
        ({"ask": lambda p: p}, InputTypeError, r"ask=.*float64 of shape \(289, 2\).*not one answer for each of 289"),
        ({"ask": lambda p: -(p[:, 0] > 0).astype(int)}, InputValueError, "ask=-1: a negative answer"),
    ],
)
def test_bad_input_of_a_window_is_named(change, error, said):
    with pytest.raises(error, match=said):
        explore(**({"ask": disc} | SQUARE | change))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"frames": 0}, "frames=0: must be at least 1"),
        ({"toward": "edge"}, "toward='edge': no such name"),
        ({"factor": 3}, "factor=3: not a power of two from 2 to 64"),
        ({"factor": 128}, "factor=128: not a power of two from 2 to 64"),
        ({"frames": 17}, "frames=17: float64 cannot distinguish the points of the last window"),
        ({"ask": lambda p: p[:, 0] > 3}, "x, y=.*: all points have the same answer"),
    ],
)
def test_bad_input_of_a_zoom_is_named(change, said):
    with pytest.raises(InputValueError, match=said):
        zoom(**({"ask": disc, "frames": 2} | SQUARE | change))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"axes": ("learning_rate",)}, "axes=.*: not two names"),
        ({"axes": "ab"}, "axes='ab': not two names"),
        ({"axes": {"learning_rate": [0.1], "momentum": [0.9]}}, "axes=.*: not two names"),
        ({"seeds": 3}, "seeds=3: a point is one run"),
    ],
)
def test_bad_input_of_runs_is_named(change, said):
    with pytest.raises(InputValueError, match=said):
        by_runs(problems.parabola(), optimizers.sgd, **({"axes": ("learning_rate", "momentum"), "steps": 3} | change))


@pytest.mark.parametrize("points", [np.zeros(2), np.zeros((3, 3)), np.zeros((0, 2))])
def test_points_of_another_shape_are_refused(points):
    with pytest.raises(InputValueError, match=r"points=.*not the shape \(n, 2\)"):
        heavy_ball()(points)


def test_points_that_single_precision_cannot_tell_apart_are_refused():
    with pytest.raises(
        InputValueError, match=r"float32 cannot distinguish hyperparameters this close.*precision: float64"
    ):
        heavy_ball()(np.array([[0.1, 0.0], [0.1 + 1e-9, 0.0]]))


def test_what_is_printed():
    found = explore(disc, **SQUARE)
    assert str(found) == "[-1, 1] × [-1, 1]: 356 of 128² cells are on the boundary; 2169 of 16641 points evaluated"
    assert str(FractalDimension(1.25, 1.2, 1.31, np.array([1]), np.array([1]))) == "1.250 (95 %: 1.200 to 1.310)"
    assert isinstance(found, Frame) and isinstance(Trail((found,)), boundary.Trail)
