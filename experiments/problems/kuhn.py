"""Kuhn poker (Kuhn, A simplified two-person poker, 1950), with its equilibria and counterfactual regret minimization.

Each of two players antes 1 and receives one of three cards. The first passes or bets 1; the second answers, and if it
bets after a pass the first answers again. A pass after a bet folds. So each player has six information sets: its card,
and one of two histories, "" or "pb" for the first player, "p" or "b" for the second. A strategy is (2, 2, 3, 2):
probabilities by player, history, card and action (pass or bet).
"""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gdkit.types import Array

VALUE = -1 / 18  # of the game, to the first player
SETS = (2, 2, 3)  # player, history, card
_CARDS = np.arange(3)
_DEALS = (1 - np.eye(3, dtype=np.float32)) / 6  # (first's card, second's card), probabilities
_SHOWDOWN = np.sign(_CARDS[:, None] - _CARDS[None, :]).astype(np.float32)  # gain of the first player at stake 1
PURE = np.array(list(itertools.product((0, 1), repeat=6)), np.float32).reshape(-1, 2, 3)  # (64, 2, 3), bets


class _Play(NamedTuple):
    """Probabilities of a bet, with one axis per card."""

    opens: Array  # (3, 1), the first player at ""
    calls: Array  # (3, 1), the first player at "pb"
    bets: Array  # (1, 3), the second player at "p"
    answers: Array  # (1, 3), the second player at "b"


def _play(strategy: Array) -> _Play:
    bet = strategy[..., 1]
    return _Play(bet[0, 0][:, None], bet[0, 1][:, None], bet[1, 0][None, :], bet[1, 1][None, :])


def _values(play: _Play) -> tuple[Array, Array, Array]:
    """Expected gain of the first player after "pb", "p" and "b", by the two cards; each (3, 3)."""
    after_pass_bet = (play.calls - 1) + play.calls * 2 * _SHOWDOWN
    after_pass = (1 - play.bets) * _SHOWDOWN + play.bets * after_pass_bet
    after_bet = (1 - play.answers) + play.answers * 2 * _SHOWDOWN
    return after_pass_bet, after_pass, after_bet


def value(strategy: Array) -> Array:
    """Expected gain of the first player under `strategy` (2, 2, 3, 2).

    >>> round(float(value(jnp.full((2, 2, 3, 2), 0.5))), 4)
    0.125
    """
    play = _play(strategy)
    _, after_pass, after_bet = _values(play)
    return jnp.sum(_DEALS * ((1 - play.opens) * after_pass + play.opens * after_bet))


def counterfactual_values(strategy: Array) -> Array:
    """Counterfactual value of each action, (2, 2, 3, 2): weighted by the probability that all others lead there.

    Zinkevich et al., Regret minimization in games with incomplete information, 2007.
    """
    play, one, showdown = _play(strategy), jnp.ones((3, 3)), 2 * _SHOWDOWN
    after_pass_bet, after_pass, after_bet = _values(play)
    passes = 1 - play.opens
    first = [[after_pass, after_bet], [-play.bets * one, play.bets * showdown]]  # by history and action, each (3, 3)
    second = [[passes * _SHOWDOWN, passes * after_pass_bet], [play.opens * one, play.opens * showdown]]
    of_first = jnp.einsum("haij,ij->hia", jnp.array(first), _DEALS)
    of_second = jnp.einsum("haij,ij->hja", jnp.array(second), _DEALS)
    return jnp.stack([of_first, -of_second])


def advantages(strategy: Array) -> Array:
    """Counterfactual regrets of one round, (2, 2, 3, 2): each action's value minus that of the strategy there."""
    worth = counterfactual_values(strategy)
    return worth - jnp.sum(strategy * worth, axis=-1, keepdims=True)


def weighted(strategy: Array) -> Array:
    """`strategy` times the probability that a player's own actions lead to each information set, (2, 2, 3, 2)."""
    return strategy.at[0, 1].multiply(strategy[0, 0, :, :1])


def regret_matching(regrets: Array) -> Array:
    """Probabilities proportional to positive regrets, (..., actions); where none is positive, the largest regret.

    The latter is the choice of Brown et al., Deep counterfactual regret minimization, 2019.
    """
    positive = jnp.maximum(regrets, 0)
    total = jnp.sum(positive, axis=-1, keepdims=True)
    greatest = (regrets == jnp.max(regrets, axis=-1, keepdims=True)).astype(regrets.dtype)
    greatest = greatest / jnp.sum(greatest, axis=-1, keepdims=True)
    return jnp.where(total > 0, positive / jnp.where(total > 0, total, 1), greatest)


def best_response(strategy: Array, player: int) -> Array:
    """Largest expected gain of `player` against the other's part of `strategy`, over all 64 pure strategies."""

    def against(bets: Array) -> Array:
        pure = jnp.stack([1 - bets, bets], axis=-1)
        return value(strategy.at[player].set(pure))

    worth = jax.vmap(against)(jnp.asarray(PURE))
    return jnp.max(worth if player == 0 else -worth)


def exploitability(strategy: Array) -> Array:
    """Mean gain of the two best responses against `strategy`; 0 at an equilibrium."""
    return (best_response(strategy, 0) + best_response(strategy, 1)) / 2


def equilibrium(bluff: float) -> np.ndarray:
    """Kuhn's equilibrium for a `bluff` in [0, 1/3], the first player's probability of a bet with the worst card.

    >>> abs(float(exploitability(jnp.asarray(equilibrium(0.2))))) < 1e-6
    True
    """
    first = [[bluff, 0, 3 * bluff], [0, bluff + 1 / 3, 1]]
    second = [[1 / 3, 0, 1], [0, 1 / 3, 1]]
    bets = np.array([first, second], np.float32)
    return np.stack([1 - bets, bets], axis=-1)


def average(total: Array) -> Array:
    """A strategy from sums of strategies, (..., actions); uniform where the sum is 0."""
    weight = jnp.sum(total, axis=-1, keepdims=True)
    return jnp.where(weight > 0, total / jnp.where(weight > 0, weight, 1), 1 / total.shape[-1])


def tabular_cfr(iterations: int) -> tuple[Array, Array]:
    """Counterfactual regret minimization with alternating players and weight t for iteration t.

    Zinkevich et al. 2007; Brown and Sandholm, Solving imperfect-information games via discounted regret minimization,
    2019, for the weights.

    Returns:
      The average strategy (2, 2, 3, 2), and its exploitability after each iteration (iterations,).
    """

    def iterate(carry: tuple[Array, Array], t: Array) -> tuple[tuple[Array, Array], Array]:
        regrets, total = carry
        for player in (0, 1):
            strategy = regret_matching(regrets)
            regrets = regrets.at[player].add(t * advantages(strategy)[player])
            total = total.at[player].add(t * weighted(strategy)[player])
        return (regrets, total), exploitability(average(total))

    start = jnp.zeros((*SETS, 2))
    (_, total), history = jax.lax.scan(iterate, (start, start), jnp.arange(1.0, iterations + 1))
    return average(total), history
