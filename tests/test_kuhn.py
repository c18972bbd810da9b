"""Kuhn poker against an explicit walk of its tree, and against Kuhn's solution."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.problems import kuhn

# Compiled as wholes: one operation at a time, each would be compiled on its own.
kuhn_value, exploitability = jax.jit(kuhn.value), jax.jit(kuhn.exploitability)
PLACES = {"": (0, 0), "p": (1, 0), "b": (1, 1), "pb": (0, 1)}


def expected(strategy, cards, history="", fixed=()):
    """Expected gain of the first player; `fixed` may hold an action for ``(player, history, card)``."""
    stake = 2 if history.endswith("bb") else 1
    if history in ("pp", "bb", "pbb"):
        return stake * np.sign(cards[0] - cards[1])
    if history in ("bp", "pbp"):
        return 1 if history == "bp" else -1
    player, row = PLACES[history]
    bet = dict(fixed).get((player, row, cards[player]), strategy[player, row, cards[player], 1])
    branches = [(1 - bet, "p"), (bet, "b")]
    return sum(share * expected(strategy, cards, history + action, fixed) for share, action in branches if share)


def value(strategy, fixed=()):
    return np.mean([expected(strategy, cards, "", fixed) for cards in itertools.permutations(range(3), 2)])


@pytest.fixture(scope="module")
def strategy():
    bets = np.random.default_rng(0).uniform(size=kuhn.SETS)
    return np.stack([1 - bets, bets], axis=-1).astype(np.float32)


def test_value_is_that_of_the_tree(strategy):
    assert float(kuhn_value(jnp.asarray(strategy))) == pytest.approx(value(strategy), abs=1e-6)


def test_advantages_are_what_an_action_gains_over_the_tree_by_the_reach_of_its_player(strategy):
    found = np.asarray(jax.jit(kuhn.advantages)(jnp.asarray(strategy)))
    for player, row, card in itertools.product(range(2), range(2), range(3)):
        sign = 1 if player == 0 else -1
        reach = strategy[0, 0, card, 0] if (player, row) == (0, 1) else 1.0
        gains = [sign * (value(strategy, (((player, row, card), a),)) - value(strategy)) for a in (0.0, 1.0)]
        np.testing.assert_allclose(found[player, row, card] * reach, gains, atol=1e-6)


def test_weighted_strategies_carry_the_players_own_reach(strategy):
    found = kuhn.weighted(jnp.asarray(strategy))
    np.testing.assert_allclose(found[0, 1], strategy[0, 1] * strategy[0, 0, :, :1])
    np.testing.assert_allclose(found[1], strategy[1])
    np.testing.assert_allclose(found[0, 0], strategy[0, 0])


@pytest.mark.parametrize("bluff", [0.0, 0.1, 1 / 3])
def test_kuhns_equilibria_cannot_be_exploited_and_have_his_value(bluff):
    solution = jnp.asarray(kuhn.equilibrium(bluff))
    assert float(kuhn_value(solution)) == pytest.approx(-1 / 18, abs=1e-6)
    assert float(exploitability(solution)) == pytest.approx(0, abs=1e-6)


def test_best_response_is_the_best_pure_strategy_on_the_tree(strategy):
    gains = []
    for bets in itertools.product((0.0, 1.0), repeat=6):
        fixed = {(1, row, card): bets[3 * row + card] for row in range(2) for card in range(3)}
        gains.append(-value(strategy, tuple(fixed.items())))
    assert float(jax.jit(kuhn.best_response, static_argnums=1)(jnp.asarray(strategy), 1)) == pytest.approx(
        max(gains), abs=1e-6
    )


def test_the_uniform_strategy_loses_eleven_twenty_fourths_to_best_responses():
    even = jnp.full((*kuhn.SETS, 2), 0.5)
    assert float(exploitability(even)) == pytest.approx(11 / 24, abs=1e-6)


def test_regret_matching_follows_positive_regrets_or_else_the_largest():
    regrets = jnp.array([[3.0, 1.0], [2.0, -5.0], [-2.0, -1.0], [0.0, 0.0]])
    found = kuhn.regret_matching(regrets)
    np.testing.assert_allclose(found, [[0.75, 0.25], [1, 0], [0, 1], [0.5, 0.5]])


def test_tabular_regret_minimization_converges_to_an_equilibrium():
    strategy, exploitable = jax.jit(kuhn.tabular_cfr, static_argnums=0)(300)
    assert float(exploitable[-1]) < 1e-3 < float(exploitable[0])
    assert float(exploitability(strategy)) == pytest.approx(float(exploitable[-1]), abs=1e-6)
    bets = np.asarray(strategy[..., 1])
    np.testing.assert_allclose(bets[1], [[1 / 3, 0, 1], [0, 1 / 3, 1]], atol=0.02)  # the second player has one only
    np.testing.assert_allclose(bets, kuhn.equilibrium(bets[0, 0, 0])[..., 1], atol=0.05)
