"""Laws of one step and exponents of runs, against NumPy by hand and made-up runs."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from experiments import batch_size as study
from experiments.analysis.gradient_noise import GradientNoise
from experiments.common import best_rates
from experiments.common.best_rates import BestRates
from experiments.problems import digits
from gdkit import datasets
from gdkit.errors import InputTypeError, InputValueError

TINY = {
    "one_step": {"batch_sizes": [16], "seeds": 512},
    "rows": 2048,
    "seeds": 4,
    "sgd": {"batch_sizes": [4, 16, 128, 512], "from": 0.06, "to": 6.0, "count": 12},
    "adam": {"batch_sizes": [4, 64], "from": 3e-3, "to": 0.1, "count": 9},
}


@pytest.fixture(scope="module")
def result():
    return study.run(TINY)


def test_every_claim_holds(result):
    for claim in study.claims(result):
        assert claim.holds, claim


def test_claims_can_fail(result):
    flat = lambda found: found._replace(drawn=np.ones_like(found.drawn))
    steep = lambda found: found._replace(drawn=np.broadcast_to(found.batch_sizes**2.0, found.drawn.shape))
    wrong = result._replace(
        one_step=flat(result.one_step), runs={"sgd": steep(result.runs["sgd"]), "adam": flat(result.runs["adam"])}
    )
    assert not any(claim.holds for claim in study.claims(wrong))


def test_noise_is_that_of_numpy_by_hand(result):
    x, y = datasets.load("digits").train
    x, targets = np.c_[x, np.ones(len(x))].astype(float), np.eye(10)[y]
    hessian = 2 * x.T @ x / len(x)
    gradient = -2 * x.T @ targets / len(x)
    signal = np.sum(gradient * (hessian @ gradient))
    bends = 4 * np.einsum("ri,ij,rj->r", x, hessian, x) * np.sum(targets**2, axis=1)
    expected = GradientNoise(np.sum(gradient**2) / signal, (bends.mean() - signal) / signal)
    assert result.noise == pytest.approx(expected, rel=1e-4)


def test_the_law_of_one_step_is_least_where_it_says():
    signal, squared, noise, batch = 3.0, 2.0, 7.0, 5  # GᵀHG, |G|², tr(HΣ)
    rates = np.linspace(0.01, 1, 10_000)
    change = -rates * squared + 0.5 * rates**2 * (signal + noise / batch)
    assert GradientNoise(squared / signal, noise / signal).best(batch) == pytest.approx(
        rates[change.argmin()], abs=1e-4
    )
    assert GradientNoise(1.0, 8.0).best(8) == 0.5
    assert GradientNoise(1.0, 1e9).best(2) / GradientNoise(1.0, 1e9).best(1) == pytest.approx(2)


def test_exponents_are_those_of_power_laws():
    sizes = np.array([1, 2, 4, 8])
    found = BestRates(sizes, np.stack([sizes**0.5, sizes**1.0, sizes**0.5]))
    assert found.slope()[0] == pytest.approx(0.5)
    assert found.slope(most=2)[2] == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize(("least", "expected"), [(0.02, 0.02), (0.033, 0.033), (1e-3, 0.01), (10.0, 0.1)])
def test_the_best_rate_is_between_the_rates_or_at_their_end(least, expected):
    rates = np.geomspace(0.01, 0.1, 8)
    losses = np.exp(np.log(rates / least) ** 2)
    assert best_rates.interpolate_best_rate(rates, losses) == pytest.approx(expected)
    assert best_rates.is_inside(rates, best_rates.interpolate_best_rate(rates, losses)) == (0.01 < expected < 0.1)
    assert best_rates.interpolate_best_rate(rates, np.where(rates > 0.05, np.inf, 1 / rates)) == pytest.approx(rates[4])


def test_adam_averages_over_as_many_rows_whatever_the_batch():
    made = digits.scale_adam({"b1": 0.9, "b2": 0.99, "of": 8}, 32)
    assert (made.keywords["b1"], made.keywords["b2"]) == pytest.approx((0.6, 0.96))


def test_printed_table_has_a_line_a_batch_size_and_the_exponents(result):
    lines = str(result).splitlines()
    assert len(lines) == 4 + 1 + 4 + 2 + 3
    assert lines[-2].startswith("sgd from 128: exponent of the batch size")


def test_figure_shows_the_law_and_what_was_measured(result):
    figures = study.plot(result)
    assert {name: type(figure) for name, figure in figures.items()} == {"batch_size": Figure}
    one, sgd, adam = figures["batch_size"].axes
    law = one.lines[0]
    np.testing.assert_allclose(law.get_ydata(), result.noise.best_rate(law.get_xdata()))
    for line, power in ((sgd.lines[0], 1.0), (adam.lines[0], 0.5)):
        x, y = line.get_data()
        np.testing.assert_allclose(np.diff(np.log(y)) / np.diff(np.log(x)), power)


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"row": 10}, InputValueError, "Did you mean 'rows'"),
        ({"rows": 100}, InputValueError, "settings.rows=100: not one batch of the largest"),
        ({"sgd": {"linear_to": 1}}, InputValueError, "settings.sgd.linear_to=1: it leaves fewer than two batch sizes"),
        ({"sgd": {"batch_sizes": [1, 2, 128]}}, InputValueError, "settings.sgd.level_from=128: it leaves fewer"),
        ({"seeds": 1.5}, InputTypeError, "settings.seeds=1.5: not an integer"),
        ({"adam": {"of": 4}}, InputValueError, "settings.adam.b1=0.9: 1 − it, 16 times, is more than 1"),
    ],
)
def test_bad_settings_are_named(settings, error, said):
    with pytest.raises(error, match=said):
        study.run(settings)
