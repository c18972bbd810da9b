"""A network trains where numpy by hand says so, and the study tells how rough the border is; at tiny settings."""

import jax
import numpy as np
import pytest
from shared import quick

import gdkit
from experiments import fractal_boundary
from experiments.fractal_boundary import FractalBoundary
from experiments.problems.mean_field import CONDITIONS
from gdkit.boundary import Frame, Trail, explore
from gdkit.errors import GdkitError, InputValueError

TINY = {
    "conditions": ["linear"],
    "width": 2,
    "steps": 20,
    "last_losses": 5,
    "zoom": {"frames": 4, "factor": 4, "cells": 64},
    "seeds": 2,
    "key": 0,
}
MORE = ["relu", "tanh, one row"]
NUMPY = {
    "tanh": (lambda z: np.tanh(2**0.5 * z), lambda z: 2**0.5 / np.cosh(2**0.5 * z) ** 2),
    "relu": (lambda z: 2**0.5 * np.maximum(z, 0), lambda z: 2**0.5 * (z > 0)),
    "linear": (lambda z: z, np.ones_like),
}


@pytest.fixture(scope="module")
def found():
    return fractal_boundary.run(TINY)


@np.errstate(over="ignore", invalid="ignore")
def trains(name, width, steps, late, point, key=0):
    """Gradient descent by hand on the problem's own numbers: whether its last losses are on average below its first."""
    problem = fractal_boundary.problem(name, width, key)
    (U, v), (x, y) = (jax.tree.map(lambda leaf: np.asarray(leaf, float), part) for part in (problem.init, problem.data))
    (phi, slope), (hidden, output), losses = NUMPY[CONDITIONS[name].activation], 10.0**point, []
    batch_key = gdkit.descent.split_key(jax.random.fold_in(jax.random.key(0), 0))[1]  # of seed 0
    for t in range(steps + 1):
        losses.append(np.mean((phi(x @ U / width**0.5) @ v / width - y) ** 2))
        drawn = np.asarray(problem.sample(batch_key, t, problem.data)[2]) if problem.sample else np.arange(len(y))
        z = x[drawn] @ U / width**0.5
        error = phi(z) @ v / width - y[drawn]
        of_v = 2 / len(drawn) * phi(z).T @ error / width
        of_U = 2 / len(drawn) * x[drawn].T @ (error[:, None] * v / width * slope(z)) / width**0.5
        U, v = U - hidden * of_U, v - output * of_v
    return bool(np.mean(losses[-late:]) < losses[0])  # NaN is not below


@pytest.mark.parametrize("name", quick(["tanh", "linear", "tanh, minibatches", *MORE], "tanh, minibatches"))
def test_a_network_trains_where_numpy_says_so(name):
    points = np.array([[a, b] for a in (-2.0, 0.5, 1.5, 4.0) for b in (-1.0, 0.8, 1.6, 3.0)])
    answers = fractal_boundary.is_trained(name, 4, 30, 7, 1)(points)
    by_hand = [trains(name, 4, 30, 7, point, 1) for point in points]
    assert answers.tolist() == by_hand
    assert 2 < sum(by_hand) < 13


@pytest.mark.parametrize(("name", "rows"), [("tanh", 272), ("linear", 16), ("tanh, one row", 1), ("relu", 272)])
def test_rows_are_those_of_the_paper(name, rows):
    problem = fractal_boundary.problem(name, 16)
    assert len(problem.data[0]) == len(problem.data[1]) == rows
    assert sum(leaf.size for leaf in problem.init) == 272


@pytest.mark.full
def test_windows_of_the_trails_are_answered_by_runs(found):
    for key, trail in enumerate(found.trails["linear"]):
        assert [len(frame.x) for frame in trail.frames] == [65] * 4
        assert trail.frames[0].x[[0, -1]].tolist() == [-3, 6]
        frame = trail.frames[2]
        for row, column in np.argwhere(frame.evaluated)[::500]:
            point = np.array([frame.x[column], frame.y[row]])
            assert frame.answers[row, column] == trains("linear", 2, 20, 5, point, key)


def line(slope):
    return explore(lambda p: p[:, 1] > slope * p[:, 0], (-3.0, 6.0), (-3.0, 6.0))


def rough():
    """A random walk's graph, reflected at the sides, about as rough as the border of tanh."""
    heights = np.abs((64 + np.cumsum(np.random.default_rng(0).choice([-10, 10], 129))) % 256 - 128)
    answers = (np.arange(129)[:, None] > heights).astype(int)
    return Frame(np.arange(129.0), np.arange(129.0), answers, np.ones((129, 129), bool))


def borders(of_tanh, of_linear, steady):
    frames = {"tanh": of_tanh, "tanh, one row": line(0.4), "linear": of_linear}
    made = {name: [Trail((line(0.3), *[frame] * 4))] * 2 for name, frame in frames.items()}
    return FractalBoundary(fractal_boundary.DEFAULTS, made, dict.fromkeys(made, steady))


def test_claims_hold_where_borders_are_rough():
    claims = fractal_boundary.claims(borders(rough(), rough(), 1.0))
    assert len(claims) == 5 and all(claim.holds for claim in claims)


def test_claims_fail_where_they_are_smooth_and_rounding_decides():
    claims = fractal_boundary.claims(borders(line(0.4), rough(), 0.8))
    assert [claim.holds for claim in claims] == [False, False, False, False, False]


@pytest.mark.full
def test_table_has_a_row_a_network_and_the_mean_beside_the_published_number(found):
    _, _, *rows = str(found).splitlines()
    cells = [[cell.strip() for cell in row.split("|")] for row in rows]
    assert [row[1] for row in cells] == ["0", "1", "mean"] and cells[-1][-1] == "1.17"
    medians = [np.median([one.value for one in t.dimensions[1:] if one]) for t in found.trails["linear"]]
    assert [row[-2] for row in cells[:2]] == [f"{one:.2f}" for one in medians]
    assert cells[2][-2].startswith(f"{np.mean(medians):.2f} ± ")


@pytest.mark.full
def test_figure_shows_windows_dimensions_and_a_film(found):
    made = fractal_boundary.plot(found)
    figure, film = made["fractal_boundary"], made["fractal_boundary_zoom"]
    *windows, last = figure.axes
    trail = found.trails["linear"][0]
    for ax, depth in zip(windows, (0, 1, 2, 3), strict=True):
        np.testing.assert_array_equal(ax.images[0].get_array(), trail.frames[depth].answers)
    assert last.get_ylabel() == "box-counting dimension"
    film._draw_was_started = True  # else it warns that it was drawn nowhere
    assert sum(1 for _ in film.new_frame_seq()) == 4 * 15


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"conditions": ["tan"]}, "settings.conditions='tan': no such name. Did you mean 'tanh'"),
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
