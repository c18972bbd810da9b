"""Successive halving: which lanes go on, how far, and that they do as in a sweep."""

import json

import numpy as np
import optax
import pytest

from gdkit import Plan, problems, sgd, successive_halving, sweep
from gdkit.errors import InputValueError

RATES = np.geomspace(1e-4, 100, 27)


@pytest.fixture(scope="module")
def iris():
    return problems.mlp("iris", widths=(5,), batch_size=16)


@pytest.fixture(scope="module")
def found(iris):
    axes = {"optimizer": {"sgd": sgd, "adam": (optax.adam, {"learning_rate": RATES / 10})}, "learning_rate": RATES}
    return successive_halving(iris, None, axes, seeds=2, steps=270, plan=Plan(width=8))


def rounds_of(result):
    return json.loads(result.lanes.attrs["rounds"])


def test_a_third_goes_on_three_times_as_far(found):
    assert rounds_of(found) == [[10, 54], [30, 18], [90, 6], [270, 2]]
    ends = found.lanes["end_step"].values.reshape(-1, 2).max(axis=1)
    assert [(ends == steps).sum() for steps in (30, 90, 270)] == [12, 4, 2]


def test_lanes_that_go_on_do_as_in_a_full_sweep(iris, found):
    axes = {"optimizer": {"sgd": sgd, "adam": (optax.adam, {"learning_rate": RATES / 10})}, "learning_rate": RATES}
    full = sweep(iris, None, axes, seeds=2, steps=270, plan=Plan(width=8))
    last = found.lanes["end_step"].values == 270
    assert last.sum() == 4
    for name in ("final_loss", "min_loss", "validation_loss", "late_mean"):
        np.testing.assert_array_equal(found.lanes[name].values[last], full.lanes[name].values[last], err_msg=name)


def test_the_best_of_each_round_goes_on(iris):
    result = successive_halving(iris, sgd, {"learning_rate": RATES}, steps=90, keep=1 / 3, least=10)
    first = sweep(iris, sgd, {"learning_rate": RATES}, steps=10)
    best = set(np.argsort(first.scores(), kind="stable")[:9])
    assert set(np.flatnonzero(result.lanes["end_step"].values > 10)) <= best
    assert len(best & set(np.flatnonzero(result.lanes["end_step"].values > 10))) >= 8


def test_it_finds_nearly_the_best_for_a_fraction_of_the_steps(iris):
    axes = {"learning_rate": RATES}
    full, halved = sweep(iris, sgd, axes, steps=270), successive_halving(iris, sgd, axes, steps=270)
    assert halved.best().score <= 1.3 * full.best().score
    assert halved.lanes["end_step"].values.sum() < 0.4 * full.lanes["end_step"].values.sum()


def test_when_everything_diverges_it_stops():
    result = successive_halving(problems.parabola(), sgd, {"learning_rate": [1e3, 1e4, 1e5]}, steps=90)
    assert len(rounds_of(result)) == 1
    assert set(result.regimes.values.ravel()) == {6}


@pytest.mark.parametrize(
    "options, said",
    [
        ({"keep": 1.0}, "keep=1.0: not a share"),
        ({"least": 91}, "least=91: more than steps=90"),
        ({"least": 0}, "least=0"),
        ({"steps": 0}, "steps=0"),
    ],
)
def test_bad_input_is_named(options, said):
    with pytest.raises(InputValueError, match=said):
        successive_halving(problems.parabola(), sgd, {"learning_rate": [0.1, 0.2]}, **{"steps": 90} | options)


def test_of_values_that_rounding_alone_tells_apart_the_middle_is_best():
    result = sweep(problems.parabola(), sgd, {"learning_rate": np.linspace(0.05, 0.95, 19)}, steps=2000)
    assert result.best().hyperparameters["learning_rate"] == pytest.approx(0.5)
    assert result.recommend().best == pytest.approx(0.5)
