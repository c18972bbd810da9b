"""The best learning rate of a longer run is within the interval, for laws that are known in closed form."""

import re

import numpy as np
import pytest
from shared import assert_refused, quick

from gdkit import SweepResult, optimizers, problems, schedules, sgd, sweep

RATES = np.geomspace(1e-3, 10, 25)
STEPS = 400
T = np.arange(STEPS + 1.0).clip(1)

LAWS = {
    "constant": lambda t: 0.3 * np.ones_like(t),
    "t^-1/2": lambda t: 3 / np.sqrt(t),
    "t^-1": lambda t: 30 / t,
    "log t / t": lambda t: 6 * np.log(1 + t) / t,
    "t^0.3": lambda t: 0.05 * t**0.3,
}


def result(law, *, seeds=5, noise=0.0, key=0, rates=RATES):
    """Runs whose best rate after t steps is law(t), up to noise per seed, half of it common to all steps."""
    generator = np.random.default_rng(key)
    octave = np.log2(T).astype(int)
    noises = noise * generator.normal(size=(2, seeds, octave.max() + 1)) / np.sqrt(2)
    best = np.log(law(T)) + noises[0, :, :1] + noises[1][:, octave]  # (seeds, steps + 1)
    away = np.log(rates)[:, None, None] - best
    return SweepResult.from_arrays({"learning_rate": rates}, {"error": np.cosh(away) - 1 + 1 / T})


@pytest.mark.parametrize("times", [1, 4, 16])
@pytest.mark.parametrize("law", ["constant", "t^-1/2", "t^0.3"])
def test_a_power_law_is_found_and_extended(law, times):
    found = result(LAWS[law]).recommend(horizon=times * STEPS)
    assert found.best == pytest.approx(LAWS[law](np.float64(times * STEPS)), rel=0.03)
    assert found.horizon.drift == pytest.approx(1, abs=0.05)
    assert found.interval[1] / found.interval[0] < 1.2 * (RATES[1] / RATES[0]) ** 2  # the spacing to both sides


@pytest.mark.full
def test_the_interval_holds_the_truth_at_least_as_often_as_it_says():
    """95 %, three standard errors below at the lowest; and it is narrower than a guess within a factor of 10."""
    keys, laws, times = 10, ["constant", "t^-1/2", "t^-1", "log t / t"], [4, 16]
    inside, widths = np.zeros((2, len(laws), len(times), keys))
    for i, law in enumerate(laws):
        for key in range(keys):
            runs = result(LAWS[law], key=key, noise=0.15)
            for j, factor in enumerate(times):
                low, high = runs.recommend(horizon=factor * STEPS).interval or (np.nan, np.nan)
                inside[i, j, key] = low <= LAWS[law](np.float64(factor * STEPS)) <= high if low > 0 else np.nan
                widths[i, j, key] = high / low if low > 0 else np.inf  # nothing was predicted
    least = lambda count: 0.95 - 3 * np.sqrt(0.95 * 0.05 / count)
    count = np.isfinite(inside).sum(axis=2)
    assert (np.nanmean(inside, axis=2) >= least(count)).all() and np.nanmean(inside) >= least(count.sum())
    assert (np.median(widths, axis=2) < [5, 10]).all()


def noisy_quadratic(rates, steps, curvature, noise):
    """The mean loss of sgd with gradient noise on ½ λ x² from 1, in closed form: (rates, steps)."""
    shrink = (1 - rates[:, None] * curvature) ** (2 * steps[None, :])
    level = rates[:, None] * noise**2 / (curvature * (2 - rates[:, None] * curvature))
    return 0.5 * curvature * (shrink + level * (1 - shrink))


@pytest.mark.parametrize("values", quick([15, 60], 60))
@pytest.mark.parametrize(("curvature", "noise"), [(1.0, 0.3), (0.2, 0.1), (5.0, 3.0)])
def test_the_best_rate_of_a_noisy_quadratic_is_predicted_from_shorter_runs(curvature, noise, values):
    """Its law, about log t / t, bends."""
    rates = np.geomspace(1e-4, 1.9, values) / curvature
    losses = noisy_quadratic(rates, np.arange(STEPS + 1.0), curvature, noise)
    runs = SweepResult.from_arrays({"learning_rate": rates}, {"error": np.repeat(losses[:, None], 3, axis=1)})
    dense = np.geomspace(1e-4, 1.9, 4_000) / curvature
    for times in (4, 16):
        at, found = np.array([times * STEPS]), runs.recommend(horizon=times * STEPS)
        true = dense[np.argmin(noisy_quadratic(dense, at, curvature, noise)[:, 0])]
        assert found.interval[0] < true < found.interval[1]
        assert -1 < found.horizon.exponent < -0.6 and found.horizon.drift < 1
        if values == 60:
            kept = noisy_quadratic(np.array([found.best, true]), at, curvature, noise)
            assert abs(np.log(found.best / true)) < 0.1 and kept[0, 0] < 1.1 * kept[1, 0]


@pytest.mark.parametrize("values", [11, 13, 19])
def test_the_interval_holds_the_truth_wherever_the_values_of_a_coarse_axis_lie(values):
    """The parabola through three of them is off to one side, by up to most of their spacing."""
    dense, predicted = np.geomspace(1e-4, 1.9, 4_000), 0
    for shift in np.linspace(0, 1, 5, endpoint=False):
        rates = np.geomspace(1e-4, 1.9, values)[:-1]
        rates = rates * (rates[1] / rates[0]) ** shift
        losses = np.repeat(noisy_quadratic(rates, np.arange(STEPS + 1.0), 1.0, 0.3)[:, None], 3, axis=1)
        runs = SweepResult.from_arrays({"learning_rate": rates}, {"error": losses})
        for times in (4, 16):
            found = runs.recommend(horizon=times * STEPS)
            if found.horizon is not None:  # too coarse an axis has no prediction
                truth = dense[np.argmin(noisy_quadratic(dense, np.array([times * STEPS]), 1.0, 0.3)[:, 0])]
                assert found.interval[0] < truth < found.interval[1]
                predicted += 1
    assert predicted >= 5


def test_bounds_do_not_convert_to_a_schedule():
    """Why a prediction is for a constant rate: the ratio of the best rates of a linear decay and a constant rate."""
    rates, measured, bounds = np.geomspace(1e-3, 1, 1000), [], []
    for steps in (200, 1600):
        shares = [1 - np.arange(steps) / steps, np.ones(steps)]
        best = [rates[np.argmin(mean_square(rates, share, noise=0.3))] for share in shares]
        measured.append(best[0] / best[1])
        bounds.append(np.divide(*(schedules.best_rate(share, steps).learning_rate for share in shares)))
    assert measured[1] / measured[0] < 1.02 and bounds[1] / bounds[0] > 1.1


def mean_square(rates, shares, noise):
    """The mean of x² after sgd with gradient noise on ½ x² from 1."""
    mean = np.ones_like(rates)
    for share in shares:
        mean = (1 - rates * share) ** 2 * mean + (rates * share * noise) ** 2
    return mean


def test_the_interval_is_wider_for_few_values():
    """The vertex of a parabola is off on a coarse axis where the loss rises at different speeds to both sides."""
    widths = []
    for values in (12, 17, 33):
        rates = np.geomspace(1e-4, 1.9, values)
        losses = np.repeat(noisy_quadratic(rates, np.arange(STEPS + 1.0), 1.0, 1.0)[:, None], 3, axis=1)
        found = SweepResult.from_arrays({"learning_rate": rates}, {"error": losses}).recommend(horizon=4 * STEPS)
        widths.append(found.interval[1] / found.interval[0])
    assert widths[0] > widths[1] > widths[2]


@pytest.mark.parametrize(
    ("runs", "reason"),
    [
        (lambda: result(lambda t: 1e-5 / t), "at 0 of .* lies inside the axis"),
        (lambda: result(lambda t: 30 / t**2), "the last included"),
        (lambda: result(LAWS["t^-1/2"], noise=3.0), "seeds disagree|lies between|drifts"),
        (lambda: result(lambda t: 0.1 * np.exp(-(np.log(t / 5) ** 2) / 8)), "exponent drifts"),
        (lambda: result(LAWS["constant"], rates=RATES[::8]), "values of the axis are few"),
        (lambda: result(LAWS["t^-1/2"], rates=RATES[::24]), "fewer than three"),
    ],
)
def test_what_cannot_be_told_has_no_value_and_its_reason(runs, reason):
    found = runs().recommend(horizon=16 * STEPS)
    assert found.best is None and found.interval is None and found.horizon is None
    assert_matches(found.caveats, f"is not known: .*({reason})")
    assert "no value can be recommended" in str(found)


def assert_matches(caveats, pattern):
    assert any(re.search(pattern, text) for text in caveats), caveats


def test_what_is_uncertain_has_a_caveat():
    few = result(LAWS["t^-1/2"], seeds=2).recommend(horizon=1600)
    assert few.best is not None and few.interval is None
    assert_matches(few.caveats, "Fewer than 3 seeds")
    far = result(LAWS["t^-1/2"]).recommend(horizon=100 * STEPS)
    assert_matches(far.caveats, "times the longest measured run; predictions were tested up to 16 times")
    assert "for 40,000 steps at a constant learning rate" in str(far)
    assert_matches(result(LAWS["t^-1"]).recommend(horizon=100 * STEPS).caveats, "outside of the axis")


def test_runs_that_stop_are_compared_before_that_alone():
    runs = sweep(problems.parabola(), sgd, {"learning_rate": np.geomspace(0.01, 1, 9)}, steps=64, target=1e-3)
    stopped = runs.lanes["end_step"].values.min()
    found = runs.recommend(by="final_loss", horizon=256)
    assert stopped < 64 and (found.horizon is None or found.horizon.measured[-1][0] <= stopped)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda runs: runs.recommend(horizon=0), "horizon=0"),
        (lambda runs: runs.recommend(horizon=2.5), "horizon"),
        (lambda runs: runs.recommend(horizon=9, at="best"), "at="),
        (lambda runs: from_values(RATES).recommend(horizon=9), "not evaluated"),
        (lambda runs: scheduled(sgd).recommend(horizon=9, by="final_loss"), "has a schedule"),
        (lambda runs: scheduled([sgd]).recommend(horizon=9, by="final_loss"), "learning rate of sgd has a schedule"),
    ],
)
def test_bad_input_is_named(call, message):
    assert_refused(lambda: call(result(LAWS["t^-1/2"])), message)


def from_values(values):
    return SweepResult.from_arrays({"learning_rate": RATES}, {"error": values})


def scheduled(factory):
    """A sweep of one optimizer with a schedule, alone or as the axis of optimizers."""
    share = optimizers.schedule("linear", 20)
    axes = {"learning_rate": [0.01, 0.1, 1.0]}
    if factory is sgd:
        return sweep(problems.parabola(), optimizers.with_schedule(sgd, share), axes, steps=20)
    return sweep(
        problems.parabola(), None, {"optimizer": {"sgd": optimizers.with_schedule(sgd, share)}, **axes}, steps=20
    )
