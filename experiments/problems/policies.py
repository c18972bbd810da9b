"""Policies trained by gradient ascent on their return: a contextual bandit, and a pole on a cart.

The gradient of the return J(θ) = E[R] is E[(R − b) ∇ log π(action)], for every baseline b that does not depend on
the action (Williams, Simple statistical gradient-following algorithms for connectionist reinforcement learning, 1992).
The random numbers of a step come with the batch, and the baseline, a running mean of returns, is `aux`.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.problems import environments
from experiments.problems.environments import CartPole
from gdkit import Problem
from gdkit.types import Array, Key, Params

VALIDATION_EPISODES = 64  # the same for all policies


class Pulls(NamedTuple):
    """Random numbers of one step of the bandit."""

    rewards: Array  # (contexts, arms), their mean values
    context: Array  # (pulls,) int
    gumbel: Array  # (pulls, arms): the arm is where logits plus these are largest
    noise: Array  # (pulls,)


class Episodes(NamedTuple):
    """Random numbers of one step of the cart with a pole."""

    constants: CartPole
    start: Array  # (episodes, 4)
    uniform: Array  # (episodes, horizon): the push goes right where this is below the probability of doing so


def reinforce(value: Array, surrogate: Array) -> Array:
    """`value`, with the gradient of `surrogate`.

    >>> [float(x) for x in jax.value_and_grad(lambda x: reinforce(x, 5 * x))(1.0)]
    [1.0, 5.0]
    """
    return jax.lax.stop_gradient(value - surrogate) + surrogate


def mean_rewards(contexts: int, arms: int) -> np.ndarray:
    """Mean rewards (contexts, arms), evenly spaced from 1 to 2, rotated by one arm per context."""
    places = (np.arange(arms)[None, :] + np.arange(contexts)[:, None]) % arms
    return (1 + places / (arms - 1)).astype(np.float32)


def bandit(
    contexts: int = 5, arms: int = 4, noise: float = 0.5, pulls: int = 16, baseline_rate: float = 0.1
) -> Problem:
    """Mean reward of a softmax policy, whose logits (contexts, arms) start at 0; the best value is 2.

    Args:
      contexts, arms: their numbers.
      noise: standard deviation of a reward.
      pulls: per step, each in a uniformly drawn context.
      baseline_rate: rate at which the baseline of a context follows its rewards; 0 for no baseline.
    """
    rewards = mean_rewards(contexts, arms)

    def sample(key: Key, t: Any, rewards: Any) -> Pulls:
        which, arm, deviation = jax.random.split(jax.random.fold_in(key, t), 3)
        context = jax.random.randint(which, (pulls,), 0, contexts)
        gumbel = jax.random.gumbel(arm, (pulls, arms))
        return Pulls(rewards, context, gumbel, noise * jax.random.normal(deviation, (pulls,)))

    def loss(logits: Array, batch: Pulls, baseline: Array) -> tuple[Array, Array]:
        arm = jnp.argmax(jax.lax.stop_gradient(logits)[batch.context] + batch.gumbel, axis=1)
        reward = batch.rewards[batch.context, arm] + batch.noise
        score = jax.nn.log_softmax(logits)[batch.context, arm]
        advantage = reward - baseline[batch.context]
        total = jnp.zeros_like(baseline).at[batch.context].add(advantage)
        new_baseline = baseline + baseline_rate * contexts / pulls * total
        return reinforce(jnp.mean(reward), jnp.mean(score * advantage)), new_baseline

    return Problem(
        loss,
        lambda key: (jnp.zeros((contexts, arms)), jnp.zeros(contexts)),
        data=rewards,
        sample=sample,
        validation=sample(jax.random.key(0), 0, rewards),
        metrics={"value": lambda logits, batch: environments.bandit_value(logits, batch.rewards)},
        optimum=float(rewards.max(axis=1).mean()),
        has_aux=True,
        name="contextual bandit",
    )


def cartpole(hidden: int = 16, episodes: int = 8, horizon: int = 500, baseline_rate: float = 0.1) -> Problem:
    """Mean steps until the pole falls; a network with one hidden layer decides where to push.

    Args:
      hidden: width of the hidden layer.
      episodes: per step.
      horizon: steps of the longest episode.
      baseline_rate: rate at which the baseline, one per step of an episode, follows the remaining return.
    """

    def init(key: Key) -> tuple[Params, Array]:
        weight = jax.random.normal(key, (4, hidden)) / 2
        return (weight, jnp.zeros(hidden), jnp.zeros(hidden)), jnp.zeros(
            horizon
        )  # both pushes are equally likely at the start

    def draw(key: Key, constants: CartPole, episodes: int) -> Episodes:
        start_key, push = jax.random.split(key)
        start = jax.random.uniform(start_key, (episodes, 4), minval=-0.05, maxval=0.05)
        return Episodes(constants, start, jax.random.uniform(push, (episodes, horizon)))

    def loss(params: Params, batch: Episodes, baseline: Array) -> tuple[Array, Array]:
        frozen = functools.partial(push_logit, jax.lax.stop_gradient(params))
        roll = functools.partial(environments.cartpole_episode, frozen, constants=batch.constants)
        states, right, alive = jax.vmap(roll)(batch.start, batch.uniform)
        to_go = jnp.cumsum(alive[:, ::-1], axis=1)[:, ::-1]  # (episodes, horizon), the remaining return
        logit = push_logit(params, states)
        score = alive * jax.nn.log_sigmoid(jnp.where(right, logit, -logit))
        surrogate = jnp.mean(jnp.sum(score * (to_go - baseline[None]), axis=1))
        new_baseline = baseline + baseline_rate * (jnp.mean(to_go, axis=0) - baseline)
        return reinforce(jnp.mean(to_go[:, 0]), surrogate), new_baseline

    constants = jax.tree.map(np.float32, CartPole())
    return Problem(
        loss,
        init,
        data=constants,
        sample=lambda key, t, constants: draw(jax.random.fold_in(key, t), constants, episodes),
        validation=draw(jax.random.key(0), constants, VALIDATION_EPISODES),
        has_aux=True,
        name="cart with a pole",
    )


def push_logit(params: Params, states: Array) -> Array:
    """Logit of a push to the right for states (..., 4)."""
    weight, bias, out = params
    hidden = states @ weight
    return jnp.tanh(hidden + jnp.broadcast_to(bias, hidden.shape)) @ out
