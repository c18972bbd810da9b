"""Successive halving resumes the best lanes with the same bits as a sweep; rules of the learning-rate range test."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import optax
import pytest
import synthetic

from gdkit import Plan, Problem, lr_range_test, problems, sgd, successive_halving, sweep
from gdkit.errors import InputValueError
from gdkit.sweeps.description import LaneGrid
from gdkit.sweeps.request import check_request
from gdkit.sweeps.search.halving import narrow_plan
from gdkit.sweeps.search.range_test import RULES, smoothed

RATES = np.geomspace(1e-4, 100, 27)


@pytest.fixture(scope="module")
def iris():
    return problems.logistic_regression("iris", batch_size=16)


@pytest.fixture(scope="module")
def found(iris):
    axes = {"optimizer": {"sgd": sgd, "adam": (optax.adam, {"learning_rate": RATES / 10})}, "learning_rate": RATES}
    return successive_halving(iris, None, axes, seeds=2, steps=270, plan=Plan(width=8))


def rounds_of(result):
    return json.loads(result.lanes.attrs["rounds"])


def test_each_round_resumes_a_third_of_the_points_for_three_times_the_steps(found):
    assert rounds_of(found) == [[10, 54], [30, 18], [90, 6], [270, 2]]
    ends = found.lanes["end_step"].values.reshape(-1, 2).max(axis=1)
    assert [(ends == steps).sum() for steps in (30, 90, 270)] == [12, 4, 2]


def test_resumed_lanes_have_the_bits_of_a_full_sweep(iris, found):
    axes = {"optimizer": {"sgd": sgd, "adam": (optax.adam, {"learning_rate": RATES / 10})}, "learning_rate": RATES}
    full = sweep(iris, None, axes, seeds=2, steps=270, plan=Plan(width=8))
    last = found.lanes["end_step"].values == 270
    assert last.sum() == 4
    for name in ("final_loss", "min_loss", "validation_loss", "late_mean"):
        np.testing.assert_array_equal(found.lanes[name].values[last], full.lanes[name].values[last], err_msg=name)


@pytest.mark.full
def test_the_best_points_of_each_round_are_resumed(iris):
    result = successive_halving(iris, sgd, {"learning_rate": RATES}, steps=90, keep=1 / 3, least=10)
    first = sweep(iris, sgd, {"learning_rate": RATES}, steps=10)
    best = set(np.argsort(first.scores(), kind="stable")[:9])
    assert set(np.flatnonzero(result.lanes["end_step"].values > 10)) <= best
    assert len(best & set(np.flatnonzero(result.lanes["end_step"].values > 10))) >= 8


@pytest.mark.full
def test_it_finds_one_of_the_best_quarter_for_a_fraction_of_the_steps(iris):
    axes = {"learning_rate": RATES}
    full, halved = sweep(iris, sgd, axes, steps=270), successive_halving(iris, sgd, axes, steps=270)
    better = full.scores() < halved.best().score * (1 - 1e-6)
    assert better.sum() < len(RATES) / 4  # few rows validate, so the best score itself may be luck
    assert halved.lanes["end_step"].values.sum() < 0.4 * full.lanes["end_step"].values.sum()


def test_halving_stops_when_all_lanes_diverge():
    result = successive_halving(problems.parabola(), sgd, {"learning_rate": [1e3, 1e4, 1e5]}, steps=90)
    assert len(rounds_of(result)) == 1
    assert set(result.regimes.values.ravel()) == {6}


def test_blocks_are_narrow_if_a_lane_occupies_a_core_and_few_lanes_are_resumed():
    lengths, axes = [10, 30, 90, 270], {"learning_rate": RATES}
    width = lambda problem, **given: (
        narrow_plan(check_request(problem, sgd, axes, steps=270, **given), lengths, 1 / 3).width
    )
    network = problems.mlp("digits", widths=(64, 64), batch_size=128)
    assert width(network) == 1, "a step of a block costs half a lane of it"
    assert width(network, plan=Plan(width=8)) == 8
    assert width(problems.parabola()) >= 48, "a call for every lane would cost more than the lane"


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


@pytest.mark.full
def test_the_middle_of_values_that_differ_by_rounding_is_best():
    result = sweep(problems.parabola(), sgd, {"learning_rate": np.linspace(0.05, 0.95, 19)}, steps=2000)
    assert result.best().hyperparameters["learning_rate"] == pytest.approx(0.5)
    assert result.recommend().best == pytest.approx(0.5)


@pytest.mark.parametrize("swapped", [False, True])
def test_best_and_recommend_agree_on_tied_points_over_two_axes(swapped):
    made = synthetic.result((None,), others={"momentum": np.arange(5) / 8}, rates=9, edge=100.0)
    rate, momentum = np.unravel_index(np.arange(made.lanes.sizes["lane"]) // 3, (9, 5))
    tied = (rate >= 1) & (rate <= 2 + momentum)  # a wedge
    noise = 1e-9 * np.random.default_rng(0).normal(size=len(rate))  # losses begin at 3: less than float32 tells apart
    made.lanes["validation_loss"] = ("lane", np.where(tied, 0.1 + noise, 0.2))
    order = np.arange(len(rate)).reshape(9, 5, 3).swapaxes(0, 1).ravel() if swapped else np.arange(len(rate))
    grid = LaneGrid(None, made.grids[0].dimensions[:: -1 if swapped else 1])
    result = dataclasses.replace(made, lanes=made.lanes.isel(lane=order), grids=(grid,))
    best = result.best().hyperparameters
    found = {axis: result.recommend(axis) for axis in best}
    assert {axis: one.best for axis, one in found.items()} == best
    assert all(one.interval == (one.best, one.best) for one in found.values())
    assert found["learning_rate"].at == {"momentum": best["momentum"]}
    line = np.unique(made.lanes["learning_rate"].values[tied & (momentum == 8 * best["momentum"])])
    assert best["learning_rate"] == line[(len(line) - 1) // 2]


# The learning-rate range test


def curve(rates, center=3e-3, noise=0.0):
    """Losses that fall most steeply, against log learning rate, at `center`."""
    random = np.random.default_rng(0).normal(size=len(rates))
    return 1 / (1 + rates / center) + noise * random


def test_steepest_is_where_the_slope_in_log_learning_rate_is():
    rates = np.geomspace(1e-7, 1, 200)
    assert RULES["steepest"](rates, curve(rates)) == pytest.approx(3e-3, rel=0.05)


def test_the_slope_against_the_raw_learning_rate_suggests_the_smallest_of_a_noisy_curve():
    rates = np.geomspace(1e-7, 1, 200)
    assert RULES["linear"](rates, curve(rates, noise=1e-3)) < 1e-6
    assert RULES["linear"](rates, curve(rates)) < 1e-6, "it falls all the way, most per learning rate at the left"


def test_valley_lies_within_the_longest_way_down():
    rates = np.geomspace(1e-4, 1, 9)
    loss = np.array([1.0, 1.1, 1.0, 0.9, 0.8, 0.7, 0.6, 0.9, 2.0])  # the way down: places 1 to 6, six long
    assert RULES["valley"](rates, loss) == rates[0 + 2 + 1]
    assert RULES["minimum"](rates, loss) == pytest.approx(rates[6] / 10)


def test_smoothed_losses_are_bias_corrected_means():
    loss = np.array([4.0, 2.0, 1.0])
    weights = [[1.0], [0.5, 1.0], [0.25, 0.5, 1.0]]
    expected = [np.average(loss[: i + 1], weights=w) for i, w in enumerate(weights)]
    np.testing.assert_allclose(smoothed(loss, 0.5), expected)


def test_a_range_test_records_every_step_and_ends_above_the_edge():
    found = lr_range_test(problems.quadratic([1.0, 4.0]), sgd, low=1e-4, high=100.0, steps=80, seeds=1)
    assert found.loss.shape == (1, 80)
    assert found.learning_rate[0] == pytest.approx(1e-4) and found.learning_rate[-1] == pytest.approx(100.0)
    x, losses = np.ones(2), []
    for rate in found.learning_rate[: len(found.smooth)]:
        losses.append(0.5 * np.sum(np.array([1.0, 4.0]) * x**2))
        x = x - rate * np.array([1.0, 4.0]) * x
    np.testing.assert_allclose(found.loss[0, : len(found.smooth)], losses, rtol=1e-3)
    assert found.learning_rate[len(found.smooth) - 1] > 0.5, "the edge is 2/4"
    assert found.trial.best().hyperparameters["learning_rate"] < 0.5
    assert found.limit.value == pytest.approx(2 / 4, rel=0.03), "in so few steps a little above"
    assert found.best < found.limit.value and found.limit.simple
    assert found.trial.axes["learning_rate"][0] <= found.suggestions["valley"] * (1 + 1e-6)
    assert "trial" in str(found) and "limit" in str(found)


@pytest.mark.full
def test_a_range_test_in_which_no_trial_diverges_has_no_limit():
    found = lr_range_test(problems.quadratic([1.0]), optax.adam, low=1e-4, high=1e-2, steps=20, seeds=1, trials=3)
    assert found.limit is None and "no divergence found" in str(found)


@pytest.mark.full
def test_a_constant_added_to_the_loss_changes_no_suggestion():
    rows = np.random.default_rng(0).normal(size=(64, 2)).astype("f4")
    loss = lambda w, b, c: c - jnp.mean(b[:, 0] * w + b[:, 1]) + 0.5 * (w - 1) ** 2
    found = []
    for c in (0.0, -7.0, 1e3):
        problem = Problem(lambda w, b, c=c: loss(w, b, c), 0.0, data=rows, sample=problems.minibatches(8))
        found.append(lr_range_test(problem, sgd, low=1e-3, steps=40, trials=1, seeds=1))
    for other in found[1:]:
        assert len(other.smooth) == len(found[0].smooth) < 40
        for rule in ("steepest", "valley", "minimum"):
            assert other.suggestions[rule] == pytest.approx(found[0].suggestions[rule], rel=0.3), rule  # a point


@pytest.mark.parametrize(
    "options, said",
    [
        ({"low": 1.0, "high": 0.1}, "high=0.1: not above low=1.0"),
        ({"low": -1.0}, "low=-1.0: must be a finite number above 0"),
        ({"steps": 3}, "steps=3: too few for a curve"),
        ({"stop": 0.5}, "stop=0.5"),
        ({"smoothing": 1.0}, "smoothing=1.0"),
        ({"seeds": 0}, "seeds=0"),
        ({"low": 1e3, "high": 1e4}, "the loss blows up within four steps"),
    ],
)
def test_bad_input_of_a_range_test_is_named(options, said):
    with pytest.raises(InputValueError, match=said):
        lr_range_test(problems.parabola(), sgd, **options)
