"""Laws of one step and exponents of runs, against NumPy and synthetic runs."""

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


@pytest.mark.full
def test_every_claim_holds(result):
    for claim in study.claims(result):
        assert claim.holds, claim


@pytest.mark.full
def test_claims_can_fail(result):
    flat = lambda best: best._replace(samples=np.ones_like(best.samples))
    steep = lambda best: best._replace(samples=np.broadcast_to(best.batch_sizes**2.0, best.samples.shape))
    wrong = result._replace(
        one_step=flat(result.one_step), runs={"sgd": steep(result.runs["sgd"]), "adam": flat(result.runs["adam"])}
    )
    assert not any(claim.holds for claim in study.claims(wrong))


@pytest.mark.full
def test_noise_is_that_of_numpy_by_hand(result):
    x, y = datasets.load("digits").train
    x, targets = np.c_[x, np.ones(len(x))].astype(float), np.eye(10)[y]
    hessian = 2 * x.T @ x / len(x)
    gradient = -2 * x.T @ targets / len(x)
    signal = np.sum(gradient * (hessian @ gradient))
    curvatures = 4 * np.einsum("ri,ij,rj->r", x, hessian, x) * np.sum(targets**2, axis=1)
    expected = GradientNoise(np.sum(gradient**2) / signal, (curvatures.mean() - signal) / signal)
    assert result.noise == pytest.approx(expected, rel=1e-4)


def test_best_rate_minimizes_the_expected_change_of_one_step():
    signal, squared, noise, batch = 3.0, 2.0, 7.0, 5  # GᵀHG, |G|², tr(HΣ)
    rates = np.linspace(0.01, 1, 10_000)
    change = -rates * squared + 0.5 * rates**2 * (signal + noise / batch)
    assert GradientNoise(squared / signal, noise / signal).best_rate(batch) == pytest.approx(
        rates[change.argmin()], abs=1e-4
    )
    assert GradientNoise(1.0, 8.0).best_rate(8) == 0.5
    assert GradientNoise(1.0, 1e9).best_rate(2) / GradientNoise(1.0, 1e9).best_rate(1) == pytest.approx(2)


def test_exponents_are_those_of_power_laws():
    sizes = np.array([1, 2, 4, 8])
    best = BestRates(sizes, np.stack([sizes**0.5, sizes**1.0, sizes**0.5]))
    assert best.exponent()[0] == pytest.approx(0.5)
    assert best.exponent(high=2)[2] == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize(("minimum", "expected"), [(0.02, 0.02), (0.033, 0.033), (1e-3, 0.01), (10.0, 0.1)])
def test_the_best_rate_is_between_the_rates_or_at_their_end(minimum, expected):
    rates = np.geomspace(0.01, 0.1, 8)
    losses = np.exp(np.log(rates / minimum) ** 2)
    assert best_rates.interpolate_best_rate(rates, losses) == pytest.approx(expected)
    assert best_rates.is_inside(rates, best_rates.interpolate_best_rate(rates, losses)) == (0.01 < expected < 0.1)
    assert best_rates.interpolate_best_rate(rates, np.where(rates > 0.05, np.inf, 1 / rates)) == pytest.approx(rates[4])


def test_adam_averages_over_the_same_number_of_rows_at_every_batch_size():
    adam = digits.scale_adam({"b1": 0.9, "b2": 0.99, "of": 8}, 32)
    assert (adam.keywords["b1"], adam.keywords["b2"]) == pytest.approx((0.6, 0.96))


@pytest.mark.full
def test_printed_table_has_one_line_per_batch_size_and_exponent(result):
    lines = str(result).splitlines()
    assert len(lines) == 4 + 1 + 4 + 2 + 3
    assert lines[-2].startswith("sgd from 128: exponent of the batch size")


@pytest.mark.full
def test_figure_shows_the_law_and_the_measurements(result):
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
        ({"rows": 100}, InputValueError, "settings.rows=100: less than the largest batch"),
        ({"sgd": {"linear_to": 1}}, InputValueError, "settings.sgd.linear_to=1: leaves fewer than two batch sizes"),
        ({"sgd": {"batch_sizes": [1, 2, 128]}}, InputValueError, "settings.sgd.level_from=128: leaves fewer"),
        ({"seeds": 1.5}, InputTypeError, "settings.seeds=1.5: not an integer"),
        ({"adam": {"of": 4}}, InputValueError, "settings.adam.b1=0.9: 1 − b1, scaled by 16, is above 1"),
    ],
)
def test_bad_settings_are_named(settings, error, said):
    with pytest.raises(error, match=said):
        study.run(settings)
