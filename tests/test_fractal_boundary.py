"""A network trains where numpy by hand says so, and the study tells how rough the border is; at tiny settings."""

import jax
import numpy as np
import pytest

from experiments import fractal_boundary
from experiments.fractal_boundary import FractalBoundary
from gdkit.boundary import Frame, Trail, explore
from gdkit.errors import GdkitError, InputValueError

TINY = {
    "cases": ["linear middle"],
    "width": 2,
    "steps": 20,
    "last_losses": 5,
    "zoom": {"frames": 4, "factor": 4, "cells": 64},
}
NUMPY = {
    "tanh": (lambda z: np.tanh(2**0.5 * z), lambda z: 2**0.5 / np.cosh(2**0.5 * z) ** 2),
    "relu": (lambda z: 2**0.5 * np.maximum(z, 0), lambda z: 2**0.5 * (z > 0)),
    "linear": (lambda z: z, np.ones_like),
}


@pytest.fixture(scope="module")
def found():
    return fractal_boundary.run(TINY)


@np.errstate(over="ignore", invalid="ignore")
def trains(network, width, steps, late, point):
    """Gradient descent by hand on the problem's own numbers: whether its last losses are on average below its first."""
    problem = fractal_boundary.problem(network, width)
    (U, v), (x, y) = (jax.tree.map(lambda leaf: np.asarray(leaf, float), part) for part in (problem.init, problem.data))
    (phi, slope), (hidden, output), losses = NUMPY[network], 10.0**point, []
    for _ in range(steps + 1):
        z = x @ U / width**0.5
        error = phi(z) @ v / width - y
        losses.append(np.mean(error**2))
        of_v = 2 / len(y) * phi(z).T @ error / width
        of_U = 2 / len(y) * x.T @ (error[:, None] * v / width * slope(z)) / width**0.5
        U, v = U - hidden * of_U, v - output * of_v
    return bool(np.mean(losses[-late:]) < losses[0])  # NaN is not below


@pytest.mark.parametrize("network", fractal_boundary.ACTIVATIONS)
def test_a_network_trains_where_numpy_says_so(network):
    points = np.array([[a, b] for a in (-2.0, 0.5, 1.5, 4.0) for b in (-1.0, 0.8, 1.6, 3.0)])
    answers = fractal_boundary.is_trained(network, 4, 30, 7)(points)
    by_hand = [trains(network, 4, 30, 7, point) for point in points]
    assert answers.tolist() == by_hand
    assert 3 < sum(by_hand) < 13


def test_rows_are_as_many_as_parameters():
    problem = fractal_boundary.problem("tanh", 16)
    assert sum(leaf.size for leaf in problem.init) == len(problem.data[0]) == len(problem.data[1]) == 272


def test_windows_of_the_trail_are_answered_by_runs(found):
    trail = found.trails["linear middle"]
    assert [len(frame.x) for frame in trail.frames] == [65] * 4
    assert trail.frames[0].x[[0, -1]].tolist() == [-3, 6]
    frame = trail.frames[2]
    for row, column in np.argwhere(frame.evaluated)[::300]:
        point = np.array([frame.x[column], frame.y[row]])
        assert frame.answers[row, column] == trains("linear", 2, 20, 5, point)


def line(slope):
    return explore(lambda p: p[:, 1] > slope * p[:, 0], (-3.0, 6.0), (-3.0, 6.0))


def rough():
    """A random walk's graph, of dimension 1.5."""
    heights = 64 + np.cumsum(np.random.default_rng(0).choice([-6, 6], 129))
    answers = (np.arange(129)[:, None] > heights).astype(int)
    return Frame(np.arange(129.0), np.arange(129.0), answers, np.ones((129, 129), bool))


def borders(of_tanh, of_linear, steady):
    trails = {"tanh middle": of_tanh, "linear middle": of_linear, "linear roughest": of_tanh}
    made = {name: Trail((line(0.3), *[frame] * 4)) for name, frame in trails.items()}
    return FractalBoundary(fractal_boundary.DEFAULTS, made, dict.fromkeys(made, steady))


def test_claims_hold_where_tanh_is_rough_and_the_linear_network_smooth():
    claims = fractal_boundary.claims(borders(rough(), line(0.4), 1.0))
    assert len(claims) == 10 and all(claim.holds for claim in claims)


def test_claims_fail_where_it_is_the_other_way_round_and_rounding_decides():
    claims = fractal_boundary.claims(borders(line(0.4), rough(), 0.8))
    assert [claim.holds for claim in claims] == [False, False, False, True, False, False, False, False, False, False]


def test_table_has_a_row_a_window_and_the_median(found):
    _, _, *rows = str(found).splitlines()
    assert [row.split("|")[1].strip() for row in rows] == ["1", "4", "16", "64", "median"]
    counts = [int(row.split("|")[2]) for row in rows[:-1]]
    assert counts == [frame.border.sum() for frame in found.trails["linear middle"].frames]


def test_figure_shows_windows_dimensions_and_a_film(found):
    made = fractal_boundary.plot(found)
    figure, film = made["fractal_boundary"], made["fractal_boundary_zoom"]
    *windows, last = figure.axes
    trail = found.trails["linear middle"]
    for ax, depth in zip(windows, (0, 1, 2, 3), strict=True):
        np.testing.assert_array_equal(ax.images[0].get_array(), trail.frames[depth].answers)
    assert last.get_ylabel() == "box-counting dimension"
    film._draw_was_started = True  # else it warns that it was drawn nowhere
    assert sum(1 for _ in film.new_frame_seq()) == 4 * 15


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"cases": ["tan middle"]}, "settings.cases='tan': no such name. Did you mean 'tanh'"),
        ({"cases": ["tanh edge"]}, "toward='edge': no such name"),
        ({"last_losses": 600}, "settings.last_losses=600: more than the 500 steps"),
        ({"zoom": {"cells": 100}}, "cells=100: not a power of two"),
        ({"from": 7.0}, "x=.*: not two finite numbers low < high"),
    ],
)
def test_bad_settings_are_named(settings, said):
    with pytest.raises(InputValueError, match=said):
        fractal_boundary.run(settings)


def test_single_precision_is_refused_where_it_cannot_tell_learning_rates_apart():
    with pytest.raises(GdkitError, match="precision: float64"):
        fractal_boundary.run(TINY | {"zoom": {"frames": 6, "factor": 32, "cells": 64}})
