"""Recommendations on synthetic curves with known truth, and what is said of partial, tied and single values."""

import dataclasses

import numpy as np
import pytest
import synthetic

from gdkit import GdkitError, Problem, Regime, sgd, sweep
from gdkit.app import answers
from gdkit.app.summary import summarize
from gdkit.formatting import format_number
from gdkit.monitors import EndKind

RATES = np.geomspace(1e-3, 10, 25)
OFFSETS = np.log10(RATES / 0.1)


def made(scores, *, rates=None, others=None, by="validation_loss", optimizers=(None,), **columns):
    """A result with these scores, (points, seeds); infinite ones diverged."""
    scores = np.atleast_2d(np.asarray(scores, float))
    rates = RATES if rates is None else np.asarray(rates, float)
    found = synthetic.result(optimizers, rates=len(rates), others=others, seeds=scores.shape[1], edge=1e9, points=2)
    lanes = found.lanes.copy(deep=True)
    _, places = np.unique(lanes["learning_rate"].values, return_inverse=True)
    lanes = lanes.assign_coords(learning_rate=("lane", rates[places]))
    flat = scores.ravel()
    lanes[by] = ("lane", np.where(np.isfinite(flat), flat, np.nan))
    lanes["final_loss"] = ("lane", flat)
    lanes["end_kind"].values[~np.isfinite(flat)] = EndKind.NONFINITE
    for name, values in columns.items():
        lanes[name] = ("lane", np.broadcast_to(values, flat.shape).copy())
    return dataclasses.replace(found, lanes=lanes)


def column(values, seeds=3, noise=0.0, key=0):
    """Scores of seeds around values, (points, seeds)."""
    random = np.random.default_rng(key).normal(size=(len(values), seeds))
    return np.asarray(values, float)[:, None] * np.exp(noise * random)


def index(value):
    """The place of a value of RATES."""
    return int(np.argmin(np.abs(np.log(RATES / value))))


CURVES = {
    "a bowl": 0.05 * np.exp(0.5 * OFFSETS**2),
    "a slope to a cliff": np.where(OFFSETS < 1, 0.1 * 10.0 ** (-0.3 * OFFSETS), np.inf),
    "a flat valley": 0.1 + 0.3 * np.maximum(np.abs(OFFSETS) - 0.8, 0) ** 2,
}


# The rule


@pytest.mark.parametrize("name", CURVES)
def test_the_recommended_value_is_nearer_to_the_true_optimum_than_those_of_other_rules(name):
    truth = CURVES[name]
    regrets = {"robust": 0.0, "plain": 0.0, "one standard error": 0.0}
    for key in range(20):
        scores = column(truth, noise=0.4, key=key)
        result = made(scores)
        mean, error = scores.mean(axis=1), np.where(np.isfinite(scores), scores, 0).std(axis=1, ddof=1) / np.sqrt(3)
        least = int(np.nanargmin(np.where(np.isfinite(mean), mean, np.nan)))
        within = int(np.flatnonzero(mean <= mean[least] + error[least])[0])  # the smallest rate of those
        regrets["robust"] += truth[index(result.recommend().best)] - truth.min()
        regrets["plain"] += truth[least] - truth.min()
        regrets["one standard error"] += truth[within] - truth.min()
        assert result.best().hyperparameters["learning_rate"] == pytest.approx(RATES[least])
    assert regrets["robust"] < 0.75 * regrets["plain"], regrets
    assert regrets["robust"] < regrets["one standard error"], regrets


@pytest.mark.parametrize("name", CURVES)
def test_the_score_is_corrected_for_being_the_best_of_many(name):
    corrected, plain = [], []
    for key in range(20):
        result = made(column(CURVES[name], noise=0.4, key=key))
        found = result.recommend()
        true = CURVES[name] * np.exp(0.4**2 / 2)  # the mean of lognormal noise
        corrected.append(found.score / true[index(found.best)])
        rate = result.best().hyperparameters["learning_rate"]
        plain.append(result.best().score / true[index(rate)])
    assert np.mean(plain) < 0.9, "the winner's mean is optimistic"
    assert abs(np.mean(corrected) - 1) < 0.8 * abs(np.mean(plain) - 1)


def test_without_noise_the_recommended_value_and_its_score_are_the_plain_ones():
    for truth in CURVES.values():
        result = made(column(truth))
        found, best = result.recommend(), result.best()
        assert found.score == found.mean == pytest.approx(best.score) == pytest.approx(truth.min())
        assert found.plain_best == best.hyperparameters["learning_rate"]


DIPS = {
    "at the end": [0.5, 0.2, 0.06, 0.05, 0.08, 2.0, 6e-6],
    "inside": [0.5, 0.2, 0.06, 0.05, 0.08, 0.9, 1e-5, 1.5],
    "at the start": [1e-6, 1.5, 0.5, 0.2, 0.06, 0.05, 0.08],
    "between divergences": [0.5, 0.2, 0.06, 0.05, 0.08, np.inf, 1e-5, np.inf],
}


@pytest.mark.parametrize("where", DIPS)
@pytest.mark.parametrize("seeds", [1, 3])
def test_an_isolated_dip_is_not_recommended_and_the_caveat_says_so(where, seeds):
    rates = np.geomspace(1e-3, 1, len(DIPS[where]))
    result = made(column(DIPS[where], seeds), rates=rates)
    found = result.recommend()
    assert found.mean == pytest.approx(0.05) and found.plain_best == rates[np.argmin(DIPS[where])]
    assert result.best().score == pytest.approx(min(DIPS[where]))
    assert any("is isolated: its neighbors are far worse" in text for text in found.caveats)


def test_neighbors_along_every_numeric_axis_count():
    b1, b2 = [0.5, 0.8, 0.9, 0.95], [0.9, 0.99, 0.999]
    rate, first, second = np.indices((7, 4, 3))
    scores = 0.05 * np.exp(0.4 * (rate - 3) ** 2 + 0.2 * (first - 1) ** 2 + 0.1 * (second - 1) ** 2)
    scores[6, 3, 2] = 6e-6  # a lucky corner
    result = made(column(scores.ravel(), 2), rates=np.geomspace(1e-3, 1, 7), others={"b1": b1, "b2": b2})
    assert result.best().hyperparameters["b1"] == 0.95
    found = result.recommend()
    assert (found.best, found.at) == (pytest.approx(10**-1.5), {"b1": 0.8, "b2": 0.99})
    assert [found.caveats[0].count(part) for part in ("learning_rate 1", "b1 0.95", "b2 0.999", "isolated")] == [1] * 4


def test_a_sharp_optimum_of_a_coarse_axis_is_kept():
    for values in ([1.0, 0.05, np.inf], [0.9, 0.4, 0.02, np.inf], [2.0, 0.01, 2.0]):
        result = made(column(values, 1), rates=np.geomspace(1e-2, 1, len(values)))
        assert result.recommend().mean == pytest.approx(min(values))


@pytest.mark.parametrize(("better", "bounces"), [(1.02, False), (1.05, False), (1.3, True)])
def test_a_bouncing_point_has_to_be_a_tenth_better(better, bounces):
    scores = column([0.3, 0.2, 0.1, 0.1 / better, 0.2, 0.4], 1)
    rates = np.geomspace(1e-3, 1, 6)
    calm = made(scores, rates=rates)
    place = np.isclose(calm.lanes["learning_rate"].values, rates[3])
    wild = {"final_loss": 1.0, "late_mean": 1.0, "earlier_mean": 1.0, "late_predicted": 30.0, "late_spread": 0.01}
    changed = {name: np.where(place, value, calm.lanes[name].values) for name, value in wild.items()}
    result = made(scores, rates=rates, **changed)
    assert Regime(int(result.lane_regimes[place][0])) is Regime.BOUNCING
    found = result.recommend()
    assert (found.best == pytest.approx(rates[3])) == bounces
    assert any("bouncing" in text for text in found.caveats)


def test_test_data_change_a_caveat_and_never_the_choice():
    scores = column(CURVES["a bowl"], noise=0.1)
    found = {}
    for name, test in (("alike", scores), ("far worse", 10 * scores[::-1] + 3), ("not finite", scores * np.nan)):
        result = made(scores, test_loss=test.ravel())
        found[name] = result.recommend()
        worse = any("test_loss at the recommended point is far worse" in text for text in found[name].caveats)
        assert worse == (name != "alike")
    assert len({one.best for one in found.values()}) == 1


@pytest.mark.parametrize(("rows", "few"), [(27, True), (99, True), (100, False), (0, False)])
def test_few_validation_rows_are_a_caveat(rows, few):
    result = made(column(CURVES["a bowl"]))
    result = dataclasses.replace(result, lanes=result.lanes.assign_attrs(validation_rows=rows))
    assert any(f"over {rows} rows only" in text for text in result.recommend().caveats) == few
    accuracy = made(column(1 - 0.3 * CURVES["a bowl"]), by="validation_accuracy")
    accuracy = dataclasses.replace(accuracy, lanes=accuracy.lanes.assign_attrs(validation_rows=rows))
    found = accuracy.recommend(by="validation_accuracy")
    assert found.mean == pytest.approx(1 - 0.3 * 0.05)
    assert any(f"over {rows} rows only" in text for text in found.caveats) == few


# What is as good


@pytest.mark.parametrize("factors", [(15, 28, 30), (4, 9, 4), (60, 20, 9)])
def test_a_value_many_times_the_best_for_every_seed_is_not_as_good(factors):
    best = np.array([0.9, 0.16, 0.25])
    scores = np.full((25, 3), 200.0)
    scores[11:14] = best * np.array(factors), best, best * np.array(factors)
    result = made(scores, initial_loss=20.0)
    result = dataclasses.replace(result, lanes=result.lanes.assign_attrs(optimum_known=0))
    found = result.recommend()
    assert found.plateau == (pytest.approx(RATES[12]), pytest.approx(RATES[12]))
    card = answers.answer_cards(summarize(result))[1]
    assert (card.value, card.detail) == ("no other value", "its neighbors: beyond the noise of the seeds")


def test_the_plateau_is_within_the_paired_noise_of_the_seeds():
    random = np.random.default_rng(0)
    common, own = random.normal(size=(1, 5)), random.normal(size=(25, 5))
    scores = CURVES["a bowl"][:, None] + 0.02 * common + 0.0005 * own  # seeds differ, values hardly do
    found = made(scores).recommend()
    difference = scores - scores[index(found.best)]
    alike = difference.mean(axis=1) <= 2.776 * difference.std(axis=1, ddof=1) / np.sqrt(5) + 1e-6
    low, high = (index(bound) for bound in found.plateau)
    assert alike[low : high + 1].all() and not alike[low - 1] and not alike[high + 1]
    assert np.max(CURVES["a bowl"][low : high + 1]) < 1.1 * 0.05


NOISY = np.array([[1.6, 0.9, 0.5], [1.0, 0.4, 1.6], [0.7, 1.9, 0.4]])  # seeds that disagree by far, (values, seeds)


@pytest.mark.parametrize(
    ("by", "scores"),
    [
        ("validation_loss", 0.2 * NOISY * [[2.1], [1.0], [1.6]]),
        ("validation_loss", 0.2 * NOISY),
        ("validation_loss", 0.2 * NOISY * [[1.0], [1.0], [1.6]]),
        ("validation_accuracy", 1 - 0.1 * NOISY * [[1.0], [0.9], [1.6]]),
        ("validation_accuracy", 1 - 0.001 * (300 + 10 * NOISY)),
    ],
)
def test_a_mean_that_noise_hides_to_be_a_quarter_worse_is_not_called_as_good(by, scores):
    accuracy = by == "validation_accuracy"
    rates, bad = np.geomspace(1e-2, 1, 5), np.full((1, 3), 0.0 if accuracy else 9.0)
    result = made(np.vstack([bad, scores, bad]), rates=rates, by=by)
    result = dataclasses.replace(result, lanes=result.lanes.assign_attrs(optimum_known=0))
    found, shown = result.recommend(by=by), summarize(result, by)
    assert found.plateau == pytest.approx((rates[1], rates[3])), "the noise hides the differences of all three"
    means = scores.mean(axis=1)
    distance = 1 - means if accuracy else means
    alike = distance <= 1.25 * (1 - found.mean if accuracy else found.mean)
    place = int(np.argmin(np.abs(rates - found.best))) - 1
    low = next((i + 1 for i in range(place - 1, -1, -1) if not alike[i]), 0)
    high = next((i - 1 for i in range(place + 1, 3) if not alike[i]), 2)
    assert found.as_good == pytest.approx((rates[1 + low], rates[1 + high]))
    assert found.worst_mean == pytest.approx(means[np.argmax(distance)])
    words = f"mean {by.replace('_', ' ')} {'down' if accuracy else 'up'} to {format_number(found.worst_mean, 3)}"
    hidden = f"3 seeds do not distinguish 0.0316–0.316 ({words})"
    for text in (answers.answer_cards(shown)[1].detail, answers.format_details(shown)):
        assert (hidden in text) == (low > 0 or high < 2)
    assert ("Not distinguished by 3 seeds: 0.03162 to 0.3162" in str(found)) == (low > 0 or high < 2)


@pytest.mark.parametrize(("optimum", "seeds", "known"), [(1, 1, True), (0, 1, False), (0, 2, False), (0, 3, True)])
def test_the_plateau_needs_three_seeds_or_a_known_optimum(optimum, seeds, known):
    result = made(column(CURVES["a bowl"], seeds, noise=1e-4))
    result = dataclasses.replace(result, lanes=result.lanes.assign_attrs(optimum_known=optimum))
    found = result.recommend()
    assert (found.plateau is not None) == known and (found.interval is not None) == (seeds >= 3)
    if optimum:
        good = RATES[CURVES["a bowl"] <= 1.05 * 0.05 + 1e-6]
        assert found.plateau == (pytest.approx(good.min()), pytest.approx(good.max()))


def test_of_an_accuracy_the_optimum_is_known():
    errors = 1e-2 * np.exp(0.3 * OFFSETS**2)
    found = made(column(1 - errors, 1), by="validation_accuracy").recommend(by="validation_accuracy")
    good = RATES[errors <= 1.05 * 1e-2 + 1e-6]
    assert found.plateau == (pytest.approx(good.min()), pytest.approx(good.max()))


# What there is to say


@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_one_value_is_no_choice(seeds):
    found = made(column([0.1], seeds), rates=[1e-3]).recommend()
    assert found.best is None and "only one learning_rate was run to its end, 0.001" in found.caveats[0]
    assert "no value can be recommended" in str(found)


@pytest.mark.parametrize("tied", [slice(8, 11), slice(0, 5), slice(20, 25)])
def test_ties_are_named_and_their_middle_is_recommended(tied):
    scores = np.full((25, 2), 0.3)
    scores[tied] = 0.1
    found = made(scores).recommend()
    assert found.best == pytest.approx(np.median(RATES[tied]))
    assert any("tie; the middle one is recommended" in text for text in found.caveats)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_equal_seeds_tell_no_noise(seeds):
    result = made(column(CURVES["a bowl"], seeds))
    result = dataclasses.replace(result, lanes=result.lanes.assign_attrs(optimum_known=0))
    found, (best, *_) = result.recommend(), answers.answer_cards(summarize(result))
    assert best.detail == ("all seeds have the same score" if seeds > 2 else f"{seeds} seeds: no interval")
    assert found.best == pytest.approx(0.1) and found.interval is None and found.plateau is None
    assert any("all seeds have the same scores" in text for text in found.caveats) == (seeds > 2)


@pytest.mark.parametrize("first", [3, 10, 18])
def test_of_two_that_tie_the_smaller_is_recommended_and_is_not_called_worse(first):
    scores = np.full((25, 1), 0.3)
    scores[first : first + 2] = [[0.1], [0.1 - 1e-9]]
    found = made(scores).recommend()
    assert found.best == pytest.approx(RATES[first])
    assert any("tie; the smaller one is recommended" in text for text in found.caveats)


@pytest.mark.parametrize("lowest", [4, 12, 20])
def test_a_lowest_mean_that_ties_with_the_recommended_one_is_no_caveat(lowest):
    scores = np.full((25, 1), 1e-9)
    scores[lowest] = 0.0
    found = made(scores).recommend()
    assert not any("the best mean" in text for text in found.caveats)


@pytest.mark.parametrize("diverged", [[0], [1, 2], [0, 1, 2]])
def test_runs_of_some_seeds_that_diverged_are_not_called_every_run(diverged):
    scores = column(CURVES["a bowl"])
    scores[:, diverged] = np.inf
    headline = answers.format_headline(summarize(made(scores)))
    assert headline.startswith("Every run diverged." if len(diverged) == 3 else "No value can be recommended: at every")


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_score_that_is_not_finite_without_divergence_is_not_called_divergence(seed):
    result = made(column(CURVES["a bowl"]))
    result.lanes["validation_loss"].values[seed::3] = np.nan
    assert result.recommend().caveats[0].endswith("at every value some seed has no finite validation_loss.")
    assert "has no finite validation loss" in answers.format_headline(summarize(result))


def test_equal_sensitivities_have_no_least():
    scores = np.concatenate([column(0.1 * np.exp(0.3 * OFFSETS**2))] * 2)
    summary = summarize(made(scores, optimizers=("sgd", "adam")))
    assert answers.least_sensitive(summary) is None and "sensitive" not in answers.format_details(summary)


@pytest.mark.parametrize("distance", [0.0, 1e-9, 1e-3])
def test_optimizers_that_tie_to_rounding_are_named(distance):
    scores = np.concatenate([column(0.1 + 0.01 * OFFSETS**2), column(0.1 + distance + 0.01 * OFFSETS**2)])
    texts = summarize(made(scores, optimizers=("sgd", "adam"))).caveats
    assert ("for some seed, adam is as good as sgd or better." in texts) == (distance < 1e-6)


@pytest.mark.parametrize("noise", [0.0, 0.02, 0.2])
def test_the_terminal_tells_the_mean_from_the_corrected_score(noise):
    result = made(column(CURVES["a bowl"], noise=noise, key=3))
    found, answer = result.recommend(), answers.format_answer(summarize(result))
    assert f"validation loss {found.mean:.3g}" in answer
    assert ("when corrected for choosing the best" in answer) == (f"{found.mean:.3g}" != f"{found.score:.3g}")


@pytest.mark.parametrize(("values", "side"), [(OFFSETS + 4, "below"), (4 - OFFSETS, "above"), (OFFSETS**2 + 1, None)])
def test_a_best_at_the_end_of_the_axis_names_the_next_range(values, side):
    found = made(column(0.1 * values)).recommend()
    text = next((text for text in found.caveats if "end of the axis" in text), None)
    assert (text is None) == (side is None)
    if text is not None:
        assert ("below 0.001; try 0.0002154 to 0.001" if side == "below" else "above 10; try 10 to 46.42") in text


@pytest.mark.parametrize("first", [5, 12, 20])
def test_the_edge_is_given_with_its_bracket(first):
    scores = column(0.1 + 0.01 * (np.arange(25) - 3) ** 2)
    scores[first, 0] = np.inf  # one seed
    scores[first + 2 :] = np.inf
    result = made(scores)
    found, summary = result.recommend(), summarize(result)
    assert (found.safe, found.unsafe) == (pytest.approx(RATES[first - 1]), pytest.approx(RATES[first]))
    assert found.edge == pytest.approx(np.sqrt(RATES[first + 1] * RATES[first + 2]))
    bracket = f"no run diverged up to {RATES[first - 1]:.3g}, some did at {RATES[first]:.3g}"
    ratio = format_number(found.edge / found.best, 3)
    sentence = f"diverges above about {found.edge:.3g}, {ratio} × the best learning rate ({bracket})."
    assert sentence in answers.format_details(summary) and sentence in answers.format_answer(summary)
    card = next(card for card in answers.answer_cards(summary) if card.name == "diverges above about")
    assert card.value == f"{found.edge:.3g}" and card.detail == bracket


@pytest.mark.parametrize(("end", "first"), [(0.05, None), (0.05, 22), (0.5, None), (0.02, None)])
def test_the_value_from_which_on_no_run_converges_is_named(end, first):
    losses = 0.01 + (end - 0.01) * np.maximum(OFFSETS / 2, 0)  # of a start at 3: up to 0.03, the gap is at most 1 %
    scores = column(losses)
    scores[first:] = np.inf if first else scores[first:]
    finite = np.where(np.isfinite(scores), scores, 3).ravel()
    summary = summarize(made(scores, by="final_loss", late_mean=finite, min_loss=finite), "final_loss")
    beyond = RATES[np.argmax(losses > 0.03)] if end > 0.03 else None
    sentence = f"No run converges from {beyond:.3g} on" if beyond else "No run converges from"
    ending = "." if first else ", and none diverged up to 10."
    for text in (answers.format_details(summary), answers.format_answer(summary)):
        assert (f"{sentence}{ending}" in text) if beyond else (sentence not in text)
    cards = {card.name: (card.value, card.detail) for card in answers.answer_cards(summary)}
    if not first:
        found = ("no run converges from", f"{beyond:.3g}") if beyond else ("no divergence up to", "10")
        assert cards[found[0]][0] == found[1]


@pytest.mark.parametrize("optimizers", [(None,), ("sgd", "adam")])
def test_where_no_run_converges_divergence_at_other_settings_is_not_denied(optimizers):
    losses = 0.01 + 0.04 * np.maximum(OFFSETS / 2, 0)  # with momentum 0; up to 0.03, the gap is at most 1 %
    other = np.where(np.arange(25) < 20, 1.5 * losses, np.inf)  # with momentum 0.9
    scores = np.stack([column(losses), column(other)], axis=1).reshape(-1, 3)
    parts = [scores, np.full_like(scores, 0.5)][: len(optimizers)]  # adam converges nowhere
    scores = np.concatenate(parts)
    finite = np.where(np.isfinite(scores), scores, 3).ravel()
    options = {"by": "final_loss", "others": {"momentum": [0.0, 0.9]}, "optimizers": optimizers}
    summary = summarize(made(scores, late_mean=finite, min_loss=finite, **options), "final_loss")
    beyond = f"{RATES[np.argmax(losses > 0.03)]:.3g}"
    subject = "No run of sgd" if optimizers[0] else "No run"
    for text in (answers.format_details(summary), answers.format_answer(summary)):
        assert f"{subject} converges from {beyond} on." in text and "none diverged" not in text
    card = next(card for card in answers.answer_cards(summary) if card.name == "no run converges from")
    assert (card.value, card.detail) == (beyond, "none diverged with the other settings of the best up to 10")


@pytest.mark.parametrize("question", ["best", "recommend"])
def test_a_result_without_finished_lanes_has_neither_best_nor_recommendation(question):
    result = made(column(CURVES["a bowl"]), end_kind=int(EndKind.RUNNING))
    with pytest.raises(GdkitError, match=r"75 lanes.*none has finished"):
        getattr(result, question)()
    assert "75 not finished" in repr(result) and "75 not finished" in result._repr_html_()


@pytest.mark.parametrize("values", [4, 9, 16])
def test_statements_about_a_part_say_how_much_of_it_there_is(values):
    kinds = np.where(np.arange(75) < 3 * values, int(EndKind.STEPS), int(EndKind.RUNNING))
    result = made(column(0.1 + 0.01 * (np.arange(25) - 20) ** 2), end_kind=kinds, final_loss=1e-3)
    found, summary = result.recommend(), summarize(result)
    assert (found.finished, found.runs) == (3 * values, 75)
    assert str(found).startswith(f"Of {3 * values} finished of 75 runs: learning_rate: use")
    headline = answers.format_headline(summary)
    assert headline.startswith(f"Partial: {3 * values} of 75 runs finished. ")
    assert headline.endswith("the largest value that has finished.")
    assert any("in the runs that have finished" in text for text in found.caveats)


# Sensitivity


def test_sensitivities_are_compared_over_windows_of_equal_width():
    wide = 0.1 * np.exp(0.3 * np.log10(np.geomspace(1e-3, 10, 13) / 0.1) ** 2)
    lanes = {"sgd": wide, "adam": 0.1 * np.exp(0.6 * np.log10(np.geomspace(1e-3, 10, 13) / 1.0) ** 2)}
    scores = np.concatenate([column(values) for values in lanes.values()])
    summary = summarize(made(scores, rates=np.geomspace(1e-3, 10, 13), optimizers=("sgd", "adam")))
    assert summary.window.factor == pytest.approx(10.0)  # from adam's best to the end of the axis
    x = np.linspace(-1, 1, 20001)
    for name, curvature in (("sgd", 0.3), ("adam", 0.6)):
        exact = np.trapezoid(0.1 * np.exp(curvature * x**2) - 0.1, x) / 2
        assert summary.window.excess[name] == pytest.approx(exact, rel=0.15)  # lines between the values
    assert answers.least_sensitive(summary) == "sgd"
    assert "within a factor of 10 of its best" in answers.format_details(summary)


@pytest.mark.parametrize("center", [1e-3, 10.0, 1e-4])
def test_nothing_is_said_of_sensitivity_where_an_axis_ends_at_the_best(center):
    rates = np.geomspace(1e-3, 10, 13)
    ends = [0.1 * np.exp(0.3 * np.log10(rates / 0.1) ** 2), 0.1 * np.exp(0.3 * np.log10(rates / center) ** 2)]
    scores = np.concatenate([column(values) for values in ends])
    summary = summarize(made(scores, rates=rates, optimizers=("sgd", "adam")))
    assert summary.window is None and "sensitive" not in answers.format_details(summary)


# A loss without a floor


def test_a_loss_that_keeps_falling_is_not_converged():
    import jax.numpy as jnp

    def problem(kind=0.0):  # a number, so that one program has them all
        falling = lambda x: (-x, -jnp.log(1 + jnp.abs(x)), -jnp.sqrt(1 + jnp.abs(x)))
        return Problem(lambda x: jnp.stack([*falling(x), (x - 3) ** 2])[jnp.int32(kind)], 1.0)

    result = sweep(problem, sgd, {"problem.kind": [0.0, 1.0, 2.0, 3.0], "learning_rate": [0.2]}, steps=100)
    assert [Regime(int(code)).name for code in result.regimes.values.ravel()] == ["SLOW"] * 3 + ["CONVERGED"]
