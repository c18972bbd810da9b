"""Networks that predict regrets approach an equilibrium; at tiny settings."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import deep_cfr
from experiments.problems import deep_regret, kuhn
from gdkit import descend, sgd
from gdkit.errors import InputTypeError, InputValueError

TINY = {
    "tabular_iterations": 300,
    "hidden": 16,
    "iterations": 40,
    "period": 80,
    "rows": 32,
    "sgd": {"from": 2e-2, "to": 1.0, "count": 2},
    "adam": {"from": 3e-3, "to": 1.0, "count": 2},
    "seeds": 2,
}
LOOSE = 0.06  # exploitability after so few iterations


@pytest.fixture(scope="module")
def tiny():
    return deep_cfr.run(TINY)


@pytest.fixture(scope="module")
def memory():
    """After three iterations with a learning rate of 0, so that every strategy is the first, even one."""
    return descend(deep_regret.regret_network(iterations=3, period=2, rows=4), sgd(0.0), 12)


@pytest.mark.full
def test_every_claim_holds_with_a_tolerance_for_few_iterations(tiny):
    for claim in deep_cfr.claims(tiny):
        assert claim._replace(tolerance=max(claim.tolerance, LOOSE * (claim.expected == 0))).holds, claim
    assert tiny.tabular[-1] < 1e-3 and tiny.equilibria < 1e-6


@pytest.mark.full
def test_claims_can_fail(tiny):
    swapped = tiny.deep.lanes.assign_coords(optimizer=("lane", tiny.deep.lanes["optimizer"].values[::-1]))
    worse = swapped.assign(exploitability=0.1 + 0 * swapped["exploitability"].fillna(0))
    deep = dataclasses.replace(tiny.deep, lanes=worse)
    wrong = tiny._replace(tabular_value=0.0, tabular=tiny.tabular + 0.01, equilibria=0.01, deep=deep)
    assert not any(claim.holds for claim in deep_cfr.claims(wrong))


@pytest.mark.full
def test_the_memory_holds_the_advantages_of_every_iteration(memory):
    even = jnp.full((*kuhn.SETS, 2), 0.5)
    np.testing.assert_allclose(memory.aux.advantages, np.tile(kuhn.advantages(even), (3, 1, 1, 1, 1)), atol=1e-6)


@pytest.mark.full
def test_strategies_add_up_weighted_by_iteration_and_reach(memory):
    even = jnp.full((*kuhn.SETS, 2), 0.5)
    np.testing.assert_allclose(memory.aux.total, 6 * kuhn.weighted(even), atol=1e-6)  # 1 + 2 + 3
    np.testing.assert_allclose(memory.aux.exploitability, 11 / 24, atol=1e-6)


def test_the_loss_is_least_where_networks_predict_the_weighted_mean():
    problem = deep_regret.regret_network(iterations=4, period=2, rows=20000)
    params, blank = problem.init(jax.random.key(0))
    held = jax.random.normal(jax.random.key(1), blank.advantages.shape)
    memory = blank._replace(advantages=held)
    draw = problem.sample(jax.random.key(2), 15, problem.data)  # all 4 iterations are in memory, no turn is due
    loss, _ = jax.jit(problem.loss)(params, draw, memory)
    weight = np.arange(1, 5) / 2.5  # of the networks, which predict 0 at first
    expected = np.mean(weight * np.sum(np.asarray(held) ** 2, axis=(2, 3, 4)).mean(axis=1))
    assert float(loss) == pytest.approx(expected, rel=0.03)


def test_before_the_second_players_turn_only_the_first_learns():
    problem = deep_regret.regret_network(iterations=4, period=2, rows=8)
    params, memory = problem.init(jax.random.key(0))
    batch = problem.sample(jax.random.key(0), 0, problem.data)
    grad, memory = jax.jit(jax.grad(problem.loss, has_aux=True))(params, batch, memory)
    assert np.any(grad[2][0]) and not np.any(grad[2][1])
    assert np.any(memory.advantages[0, 0]) and not np.any(memory.advantages[0, 1])
    assert np.isfinite(memory.exploitability[0]) and np.isnan(memory.exploitability[1:]).all()


@pytest.mark.full
def test_printed_table_has_one_line_per_learning_rate(tiny):
    first, *tables = str(tiny).split("\n\n")
    assert first.startswith("tabular: value -0.05")
    (_, _, *sgd), (_, _, *adam) = (part.splitlines() for part in tables)
    assert len(sgd) == len(adam) == 2
    assert "nan" in sgd[1] and "nan" not in sgd[0]


@pytest.mark.full
def test_figure_shows_tabular_regrets_and_networks(tiny):
    (figure,) = deep_cfr.plot(tiny).values()
    left, right = figure.axes
    table, *networks = left.lines
    np.testing.assert_allclose(table.get_ydata(), tiny.tabular)
    assert [len(line.get_xdata()) for line in networks] == [40, 40]
    assert [text.get_text().split(",")[0] for text in right.get_legend().get_texts()] == [
        "sgd",
        "sgd diverged",
        "adam",
        "tabular",
    ]
    crosses = [line for line in right.lines if line.get_marker() == "x"]
    assert [list(line.get_xdata()) for line in crosses] == [[1.0]]


@pytest.mark.parametrize(
    "settings, error, said",
    [
        ({"iteration": 3}, InputValueError, "Did you mean 'iterations'"),
        ({"period": 2.5}, InputTypeError, "settings.period=2.5: not an integer"),
        ({"adam": {"to": "1"}}, InputTypeError, "settings.adam.to='1': not a number"),
    ],
)
def test_bad_settings_are_named(settings, error, said):
    with pytest.raises(error, match=said):
        deep_cfr.run(settings)
