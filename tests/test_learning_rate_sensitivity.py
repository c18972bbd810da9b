"""The sensitivity is the paper's number, treatments are what they are named for, and claims can fail."""

import dataclasses

import numpy as np
import pytest
from matplotlib.figure import Figure

from experiments import learning_rate_sensitivity as study
from experiments.analysis.sensitivity import RateSensitivity, treat_optimizer
from gdkit import descend, problems, sgd
from gdkit.errors import InputTypeError, InputValueError

TINY = {
    "mlp": {"widths": [16], "batch_size": 16},
    "transformer": {"width": 8, "depth": 1, "batch_size": 16},
    "optimizers": ["sgd", "adam"],
    "lowest": {"sgd": 0.03, "adam": 1e-3},
    "count": 4,
    "warmup": 0.3,
    "steps": 60,
    "seeds": 3,
}


@pytest.fixture(scope="module")
def result():
    return study.run(TINY)


@pytest.mark.full
def test_claims_are_the_same_of_both_models_and_checks_hold(result):
    claims = study.claims(result)
    assert len(claims) == 11 and all(claim.holds for claim in claims[:2]), claims[:2]
    for of_mlp, of_transformer in zip(claims[2:6], claims[6:10], strict=True):
        assert of_mlp.text.replace("mlp", "transformer") == of_transformer.text


@pytest.mark.parametrize(
    ("each", "holds"),
    [([1.0, 1.1, 0.9], True), ([0.3, 0.1, 0.2], True), ([0.3, 0.05, 0.2], False), ([-1.0, -1.1, -0.9], False)],
)
def test_a_decrease_is_claimed_if_it_is_above_three_standard_errors(each, holds):
    error = np.sqrt(np.sum((np.array(each) - np.mean(each)) ** 2) / 2 / 3)
    claim = study._decrease("lower", "seeds", np.array(each))
    assert claim.measured == pytest.approx(3 * error / np.mean(each))
    assert claim.holds == holds == (np.mean(each) > 3 * error)


@pytest.mark.full
def test_claims_can_fail(result):
    def reversed_rates(runs):  # losses at other learning rates than they were found at, treatments exchanged
        lanes = runs.lanes.assign_coords({name: 1 - runs.lanes[name] for name in ("warmup", "clipping")}).assign(
            validation_loss=runs.lanes["validation_loss"] * 0 + np.arange(runs.lanes.sizes["lane"])
        )
        return dataclasses.replace(runs, lanes=lanes)

    wrong = result._replace(runs={name: reversed_rates(runs) for name, runs in result.runs.items()})
    assert [claim.holds for claim in study.claims(wrong)[:2]] == [True, False]
    assert sum(claim.holds for claim in study.claims(wrong)[2:]) < 3


@pytest.mark.full
def test_sensitivity_by_hand_is_that_of_the_library(result):
    for name, treatment in (("sgd", "plain"), ("adam", "both")):
        part = result.part("mlp", name, treatment)
        shape = (TINY["count"], TINY["seeds"])
        loss = np.nan_to_num(part.lanes["validation_loss"].values, nan=np.inf).reshape(shape)
        capped = np.minimum(loss, part.lanes["initial_loss"].values.reshape(shape))
        expected = capped.mean() - loss.mean(axis=1).min()
        assert part.recommend().sensitivity == pytest.approx(expected, rel=1e-6)
        assert result.sensitivity("mlp", name, treatment).sensitivity == pytest.approx(expected, rel=1e-6)


def test_a_run_that_ends_above_its_start_counts_as_one_that_stayed():
    one = RateSensitivity(np.array([1.0, 2.0, 3.0]), np.array([[3.0], [1.0], [np.inf]]), np.full((3, 1), 4.0))
    assert one.sensitivity == pytest.approx((3 + 1 + 4) / 3 - 1)
    assert one.best == 2.0
    assert one.mean_loss_above(1.0) == pytest.approx((1 + 4) / 2)
    np.testing.assert_allclose(one.interval, one.sensitivity)  # one seed


@pytest.mark.parametrize(
    ("treatment", "learning_rate"),
    [((0.0, 0.0), 0.1), ((1.0, 0.0), 0.1 / 5)],
)
def test_lanes_turn_warm_up_and_clipping_on(treatment, learning_rate):
    factory = treat_optimizer(sgd, steps=20, warmup=0.25, clip_norm=2.0)
    run = lambda clipping: descend(
        problems.parabola(), factory, 1,
        hyperparameters={"learning_rate": 0.1, "warmup": treatment[0], "clipping": clipping},
    )  # fmt: skip
    assert float(run(0.0).params) == pytest.approx(6 * learning_rate, rel=1e-6)  # of slope −6
    assert float(run(1.0).params) == pytest.approx(2 * learning_rate, rel=1e-6)


@pytest.mark.full
def test_the_table_ranks_the_optimizers_and_the_figure_draws_them_in_the_order_of_all_studies(result):
    *_, first, second = str(result).splitlines()
    assert [row.split(" | ")[0].strip() for row in (first, second)] == result.ranking("transformer")
    figures = study.plot(result)
    assert {name: type(figure) for name, figure in figures.items()} == {"learning_rate_sensitivity": Figure}
    left, right = figures["learning_rate_sensitivity"].axes[:2]
    names = [label.get_text() for label in right.get_yticklabels()]
    assert names == [name for name in study.OPTIMIZER_FACTORIES if name in result.ranking("mlp")]
    loss = np.minimum(*result.sensitivity("mlp", "sgd", "plain")[1:]).mean(axis=1)
    np.testing.assert_allclose(left.lines[0].get_ydata(), loss)


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"optimizers": ["adamv"]}, InputValueError, "settings.optimizers='adamv'.*Did you mean 'adam"),
        ({"lowest": {"sdg": 1.0}}, InputValueError, "Did you mean 'sgd'"),
        ({"seeds": 0}, InputValueError, "settings.seeds=0"),
        ({"transformer": {"heads": 3}}, InputValueError, "heads=3: it does not divide the 16"),
        ({"steps": 2.5}, InputTypeError, "settings.steps=2.5: not an integer"),
    ],
)
def test_bad_settings_are_named(settings, error, said):
    with pytest.raises(error, match=said):
        study.run(settings)
