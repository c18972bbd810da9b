"""Schedules have their shapes, and the claims about them hold and can fail."""

import jax
import numpy as np
import pytest
from matplotlib.figure import Figure

from experiments import schedules
from gdkit.errors import InputTypeError, InputValueError

TINY = {
    "network": {"widths": [32]},
    "learning_rates": {"from": 0.05, "to": 3.0, "count": 8},
    "steps": 300,
    "seeds": 3,
    "warmup_run": {"steps": 200, "every": 10},
}


@pytest.fixture(scope="module")
def result():
    return schedules.run(TINY)


@pytest.mark.full
def test_every_claim_holds(result):
    for claim in schedules.claims(result):
        assert claim.holds, claim


@pytest.mark.full
def test_claims_can_fail(result):
    lanes = result.runs.lanes  # the constant schedule's runs named one-cycle, and so on
    names = {"constant": "one-cycle", "one-cycle": "constant", "cosine": "warm-up cosine", "warm-up cosine": "cosine"}
    swapped = lanes.assign_coords(optimizer=("lane", [names.get(n, n) for n in lanes["optimizer"].values]))
    wrong = result._replace(
        runs=type(result.runs)(swapped, result.runs.grids),
        quadratic=type(result.quadratic)(
            result.quadratic.lanes.assign_coords(learning_rate=1.1 * result.quadratic.lanes["learning_rate"]),
            result.quadratic.grids,
        ),
        warmup_run=result.warmup_run._replace(sharpness=4 * result.warmup_run.sharpness),
    )
    assert not any(claim.holds for claim in schedules.claims(wrong)), schedules.claims(wrong)


def test_schedules_rise_hold_and_fall_as_named():
    steps = np.arange(101)
    at = lambda name: np.asarray(jax.jit(jax.vmap(schedules.shares(100, 0.1, 0.2)[name]))(steps))
    assert np.all(at("constant") == 1)
    np.testing.assert_allclose(at("cosine"), (1 + np.cos(np.pi * np.arange(101) / 100)) / 2, atol=1e-6)
    stable = at("warm-up, stable, decay")
    np.testing.assert_allclose(stable[:11], np.arange(11) / 10, atol=1e-6)
    assert np.all(stable[10:81] == 1)
    np.testing.assert_allclose(stable[80:], np.linspace(1, 0, 21), atol=1e-6)
    warm = at("warm-up cosine")
    assert (warm[0], warm[10]) == (0, 1)
    assert warm[99] < 0.01
    assert at("one-cycle").argmax() == 30
    assert at("one-cycle").max() == 1


@pytest.mark.full
def test_warmup_run_reaches_a_rate_above_the_constant_edge(result):
    run = result.warmup_run
    assert run.warmup_steps == 80
    assert run.rate[0] == 0
    np.testing.assert_allclose(run.rate[run.step >= 80], 1.5 * np.median(result.edges["constant"]), rtol=1e-5)
    np.testing.assert_allclose(run.rate[3], run.rate[-1] * 30 / 80, rtol=1e-5)


@pytest.mark.full
def test_printed_table_has_one_line_per_schedule(result):
    _, _, *rows = str(result).splitlines()
    rows = [[cell.strip() for cell in row.split(" | ")] for row in rows]
    assert [row[0] for row in rows] == list(schedules.shares(10, 0.1, 0.2))
    assert rows[0][-1] == "1.0"


@pytest.mark.full
def test_figure_shows_scores_edges_and_sharpness(result):
    figures = schedules.plot(result)
    assert {name: type(figure) for name, figure in figures.items()} == {"schedules": Figure}
    scores, edges, warmup_run = figures["schedules"].axes
    assert [text.get_text() for text in scores.get_legend().texts] == list(result.edges)
    np.testing.assert_array_equal(edges.lines[0].get_xdata(), result.edges["constant"])
    np.testing.assert_array_equal(warmup_run.lines[0].get_ydata(), result.warmup_run.sharpness)


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"warm_up": 0.1}, InputValueError, "Did you mean 'warmup'"),
        ({"warmup": 0.9, "decay": 0.3}, InputValueError, "settings.warmup=0.9: warm-up and decay take more"),
        ({"seeds": 2.5}, InputTypeError, "settings.seeds=2.5: not an integer"),
        ({"network": {"batch_size": 10**6}}, InputValueError, "batch_size"),
    ],
)
def test_bad_settings_are_named(settings, error, said):
    with pytest.raises(error, match=said):
        schedules.run(settings)
