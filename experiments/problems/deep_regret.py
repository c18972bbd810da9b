"""Deep counterfactual regret minimization (Brown et al. 2019) on Kuhn poker, as the descent of one loss.

Periodically the networks' strategy is played through the whole tree: its advantages, which are its regrets in this
iteration, are stored in the memory, and the strategy is added to the sum that the average strategy is computed from.
Between these turns the networks learn to predict the mean of all advantages in memory, iteration t with weight t. Two
things are simpler than in the paper: the tree is small enough to be traversed completely, so the memory is complete;
and the average strategy is stored directly instead of in a network. Networks are not retrained from scratch.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.problems import kuhn
from gdkit import Problem
from gdkit.types import Array, Context, Info, Key, Monitor, Params, State

FEATURES = np.array([[*np.eye(2)[history], *np.eye(3)[card]] for history in range(2) for card in range(3)], np.float32)


class RegretBatch(NamedTuple):
    """The batch of one step."""

    t: Array  # () int32, the step
    features: Array  # (6, 5), of a player's information sets
    uniform: Array  # (rows,), selects the iterations whose advantages are learned


class RegretMemory(NamedTuple):
    """State that is not trained."""

    advantages: Array  # (iterations, 2, 2, 3, 2), by iteration; 0 for future iterations
    total: Array  # (2, 2, 3, 2), the sum of strategies
    exploitability: Array  # (iterations,), of the average strategy after each iteration


def predict(params: Params, features: Array) -> Array:
    """Advantages (2, 2, 3, 2) from one network per player, each with one hidden layer."""
    weight, bias, out = params
    hidden = jnp.tanh(jnp.einsum("if,pfh->pih", features, weight) + bias)
    return jnp.einsum("pih,pha->pia", hidden, out).reshape(*kuhn.SETS, 2)


def regret_network(hidden: int = 32, iterations: int = 100, period: int = 100, rows: int = 64) -> Problem:
    """Mean squared error of predicted advantages, weighted by iteration.

    Args:
      hidden: width of a network.
      iterations: of counterfactual regret minimization; each has one turn per player.
      period: gradient steps between two turns.
      rows: iterations drawn from memory per step.
    """

    def init(key: Key) -> tuple[Params, RegretMemory]:
        weight = jax.random.normal(key, (2, FEATURES.shape[1], hidden))
        params = (weight, jnp.zeros((2, 1, hidden)), jnp.zeros((2, hidden, 2)))  # the first strategy is uniform
        blank = jnp.zeros((iterations, *kuhn.SETS, 2))
        return params, RegretMemory(blank, blank[0], jnp.full(iterations, jnp.nan))

    def sample(key: Key, t: Any, features: Any) -> RegretBatch:
        return RegretBatch(jnp.asarray(t, jnp.int32), features, jax.random.uniform(jax.random.fold_in(key, t), (rows,)))

    def turn(memory: RegretMemory, params: Params, draw: RegretBatch) -> RegretMemory:
        """One player's turn in one iteration."""
        number, player = draw.t // (2 * period), draw.t // period % 2
        strategy = kuhn.regret_matching(predict(params, draw.features))
        total = memory.total.at[player].add((number + 1.0) * kuhn.weighted(strategy)[player])
        return RegretMemory(
            memory.advantages.at[number, player].set(kuhn.advantages(strategy)[player]),
            total,
            memory.exploitability.at[number].set(kuhn.exploitability(kuhn.average(total))),
        )

    def loss(params: Params, draw: RegretBatch, memory: RegretMemory) -> tuple[Array, RegretMemory]:
        is_turn = (draw.t % period == 0) & (draw.t < 2 * period * iterations)  # the last observation has no turn
        memory = jax.lax.cond(is_turn, turn, lambda memory, *_: memory, memory, jax.lax.stop_gradient(params), draw)
        turns = jnp.minimum(draw.t // period + 1, 2 * iterations)
        stored = jnp.stack([(turns + 1) // 2, turns // 2])[None]  # iterations in memory, by player
        at = (draw.uniform[:, None] * stored).astype(jnp.int32)  # (rows, player)
        drawn = memory.advantages[at, jnp.arange(2)[None]]  # (rows, player, history, card, action)
        weight = 2 * (at + 1) / (stored + 1)  # t, over its mean
        weight = jnp.where(stored > 0, weight, 0)
        error = jnp.sum((drawn - predict(params, draw.features)[None]) ** 2, axis=(2, 3, 4))
        return jnp.mean(weight * error), memory

    return Problem(loss, init, data=FEATURES, sample=sample, has_aux=True, name="Deep CFR on Kuhn poker")


def exploitability(iterations: int) -> Monitor:
    """A monitor of the memory's ``exploitability``, (iterations,)."""

    def update(m: Array, before: State, after: State, info: Info, context: Context) -> Array:
        return after.aux.exploitability

    return Monitor(lambda state: jnp.full(iterations, jnp.nan), update, lambda m: {"exploitability": m})
