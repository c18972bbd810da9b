"""Rules of learning-rate finders on curves worked out by hand, the effect of noise on Lightning's, and the claims."""

import jax
import numpy as np
import pytest
from matplotlib.figure import Figure

from experiments import lr_range_test
from experiments.analysis import rate_finders
from experiments.problems import suite
from gdkit.errors import InputTypeError, InputValueError
from gdkit.sweeps.search.range_test import RULES

TINY = {"problems": ["quadratic"], "optimizers": ["sgd"], "seeds": 2, "sweep": {"count": 9, "steps": 100}}
NOISY = lr_range_test.DEFAULTS["noisy"] | {"steepest": 1e-2}
RATES = np.geomspace(1e-7, 10, 100)


@pytest.fixture(scope="module")
def found():
    return lr_range_test.run(TINY)


def raw(smooth, share=rate_finders.SMOOTHING):
    """Losses whose bias-corrected running mean is `smooth`."""
    means = np.asarray(smooth) * (1 - share ** np.arange(1, len(smooth) + 1))
    return (means - share * np.append(0.0, means[:-1])) / (1 - share)


def test_raw_losses_of_these_tests_are_smoothed_to_the_intended_curve():
    smooth = np.linspace(2.0, 1.0, 30)
    np.testing.assert_allclose(rate_finders.smooth_until_stop(raw(smooth)), smooth)


def test_a_run_ends_with_the_point_above_four_times_the_minimum():
    assert len(rate_finders.smooth_until_stop(raw([3.0, 1.0, 3.9, 4.1, 1.0]))) == 4
    assert len(rate_finders.smooth_until_stop(np.array([3.0, 1.0, 2.0, np.nan, 1.0]))) == 4


def test_fastai_leaves_out_the_first_tenth_and_the_last_five():
    smooth = np.full(100, 2.0)
    smooth[[9, 95]] = 1.0  # outside of what it looks at
    smooth[[20, 50]] = 1.7, 1.2
    found = rate_finders.suggest_fastai(RATES, raw(smooth))
    assert found["minimum"] == pytest.approx(RATES[50] / 10)
    assert found["steep"] == pytest.approx(RATES[49]), "the drop to the least, by its left end"


def test_valley_is_halfway_through_the_middle_third_of_the_longest_way_down():
    smooth = np.concatenate([np.linspace(1.95, 2.0, 30), np.linspace(1.9, 1.0, 30), np.linspace(1.01, 1.2, 40)])
    assert rate_finders.suggest_fastai(RATES, raw(smooth))["valley"] == RATES[59 - 31 + 10 + 5], (
        "31 long: one above, and the way"
    )


def fastai_valley(losses):
    """The index of fastai's rule, in loops over pairs as in fastai/callback/schedule.py."""
    start, end, lengths = 0, 0, [1] * len(losses)
    for i in range(1, len(losses)):
        for j in range(i):
            if losses[i] < losses[j] and lengths[i] < lengths[j] + 1:
                lengths[i] = lengths[j] + 1
            if lengths[end] < lengths[i]:
                end, start = i, i - lengths[i]
    third = (end - start) / 3
    return start + int(third) + int(third / 2)


CURVES = {
    "from the first point without gaps": np.linspace(2.0, 1.0, 12),
    "without gaps, then up": np.concatenate([np.linspace(2.0, 1.0, 9), np.linspace(1.1, 3.0, 6)]),
    "with a gap": np.concatenate([np.linspace(2.0, 1.5, 6), [1.9], np.linspace(1.4, 1.0, 8)]),
    "rising alone": np.linspace(1.0, 2.0, 8),
    "constant": np.ones(8),
    **{f"noise {i}": np.random.default_rng(i).normal(size=30) - 0.05 * i * np.arange(30) for i in range(12)},
}


@pytest.mark.parametrize("name", CURVES)
def test_valley_is_at_the_index_of_fastai(name):
    loss = CURVES[name]
    assert RULES["valley"](RATES[: len(loss)], loss) == RATES[fastai_valley(loss)]


def test_valley_of_two_falling_points_is_the_first_and_not_the_last_rate():
    loss = np.array([2.0, 1.0, 3.0, 4.0])
    assert fastai_valley(loss) == -1
    assert RULES["valley"](RATES[:4], loss) == RATES[0]


def test_slide_stops_where_a_window_of_fifteen_has_like_slopes_at_both_ends():
    loss = np.full(100, 2.0)
    loss[60:] = 2.0 - 0.1 * np.arange(40)  # the slope is 0 up to 59, −0.05 at it, −0.1 from 60 on
    loss[80:] = loss[80] + 0.3 * np.arange(20)  # and 0.3 after 80
    # from the right: slopes at 99 and 84 are alike, so it does not slide at all
    assert RULES["slide"](RATES, loss) == RATES[84]
    # cut at 90: 89 and 74 differ, and so does every pair down to 81 and 66; 80 has half of both slopes, 79 and 64 agree
    assert RULES["slide"](RATES[:90], loss[:90]) == RATES[65]
    assert np.isnan(RULES["slide"](RATES[:15], loss[:15]))


def test_lightning_leaves_out_ten_points_and_the_last_and_takes_the_slope_against_the_raw_rate():
    smooth = np.full(100, 2.0)
    smooth[5], smooth[30:] = 1.9, 1.999  # a tiny drop far left beats a large one far right
    smooth[80:] = 1.0
    assert rate_finders.suggest_lightning(RATES, raw(smooth)) in (RATES[29], RATES[30])
    assert rate_finders.suggest_fastai(RATES, raw(smooth))["steep"] == RATES[79]


def test_too_short_a_run_gets_no_suggestion():
    leaves = np.append(np.full(8, 1.0), np.full(92, np.nan))
    assert np.isnan(rate_finders.suggest_lightning(RATES, leaves))
    assert all(np.isnan(rate) for rate in rate_finders.suggest_fastai(RATES, leaves).values())


def test_without_noise_the_slope_in_log_rate_finds_the_steepest_point_and_noise_drives_lightning_to_the_left_end():
    clean = rate_finders.suggest_on_noisy_curves(NOISY | {"noise": 0.0, "curves": 1})
    assert clean[lr_range_test.SLOPE] == pytest.approx(1e-2, rel=0.1)
    noisy = rate_finders.suggest_on_noisy_curves(NOISY | {"curves": 50})
    assert np.median(noisy[lr_range_test.LIGHTNING]) < 3e-7
    assert np.median(noisy[lr_range_test.SLOPE]) == pytest.approx(1e-2, rel=0.3)


# The study


@pytest.mark.full
def test_every_claim_holds_on_one_case(found):
    holds = [claim.holds for claim in lr_range_test.claims(found)]
    assert all(holds), lr_range_test.claims(found)


@pytest.mark.full
def test_regret_is_zero_for_the_best_of_the_sweep_and_a_share_of_the_decrease_for_others(found):
    case = found.cases[0]
    assert case.sweep_regret.min() == 0 and case.best == case.rates[np.argmin(case.sweep_regret)]
    assert np.isinf(case.sweep_regret[-1]), "10 diverges, far above 2/100"
    assert 0.5 < case.sweep_regret[0] < 1, "1e-5 learns next to nothing in so few steps"
    assert all(np.all(regret > -0.2) for regret in case.regret.values())


@pytest.mark.full
def test_claims_can_fail(found):
    noisy = {rule: 1e-5 * np.ones(3) for rule in found.noisy}
    test = found.cases[0].test
    case = found.cases[0]._replace(test=test._replace(limit=test.limit._replace(value=1e-4)))
    suggestions = {rule: np.array([case.best]) for rule in case.suggestions}
    regret = {rule: np.zeros(1) for rule in case.regret}
    wrong = found._replace(noisy=noisy, cases=[case._replace(suggestions=suggestions, regret=regret)])
    assert not any(claim.holds for claim in lr_range_test.claims(wrong))


@pytest.mark.full
def test_printed_table_has_one_line_per_case(found):
    off, lost = (part.splitlines() for part in str(found).split("\n\n"))
    numbers = lambda line: [float(cell) for cell in line.split("|")[1:]]
    (case,) = found.cases
    assert numbers(off[2]) == pytest.approx(list(case.distance.values()), abs=0.006)
    assert [line.split("|")[0].strip() for line in lost[2:]] == ["quadratic, sgd", "median", "worst"]
    for line in lost[2:]:  # of one case, both
        assert numbers(line) == pytest.approx(list(case.regrets.values()), abs=0.006)


@pytest.mark.full
def test_figure_shows_curve_noise_and_both_regrets(found):
    figures = lr_range_test.plot(found)
    assert [type(figure) for figure in figures.values()] == [Figure]
    curve, noisy, off, cost = figures["lr_range_test"].axes
    assert len(curve.lines) == 2 + 1 + 4, "seeds, median, marks"
    assert len(noisy.patches) == 2 * 64
    rules = set(found.cases[0].suggestions)
    for ax in (off, cost):
        assert rules <= {line.get_label() for line in ax.lines}


def test_attention_is_a_problem_with_losses_near_that_of_chance():
    problem = suite.attention()
    batch = jax.tree.map(lambda rows: rows[:64], problem.data)
    loss = float(jax.jit(lambda key, batch: problem.loss(problem.init(key), batch))(jax.random.key(0), batch))
    assert 0.5 * np.log(10) < loss < 3 * np.log(10)


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"problems": ["quadratics"]}, InputValueError, "Did you mean 'quadratic'"),
        ({"optimizers": ["adm"]}, InputValueError, "Did you mean 'adam'"),
        ({"finder": {"stepps": 3}}, InputValueError, "Did you mean 'steps'"),
        ({"seeds": 0}, InputValueError, "settings.seeds=0"),
        ({"noisy": 3}, InputTypeError, "settings.noisy=3: not a mapping"),
    ],
)
def test_bad_settings_are_named(given, error, said):
    with pytest.raises(error, match=said):
        lr_range_test.run(given)
