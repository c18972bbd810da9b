"""Sampled policy gradients of a bandit beside the exact one."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.problems import environments, policies

NONE, RUNNING = "no baseline", "baseline"


class Estimate(NamedTuple):
    """What many samples of the bandit's gradient say."""

    error: float  # the largest of their mean, in standard errors
    variance: float  # of one sample, summed over params
    foretold: float  # the closed form of that variance


def estimates(arms: Mapping[str, Any]) -> dict[str, Estimate]:
    """REINFORCE's gradient of single pulls against the exact one, at a policy that is neither new nor learned."""
    problem = policies.bandit(arms["contexts"], arms["arms"], arms["noise"], pulls=1)
    rewards = np.asarray(problem.data, np.float64)
    logits = np.asarray(jax.random.normal(jax.random.key(1), rewards.shape))
    exact = environments.bandit_gradient(logits, rewards)
    true_value = np.sum(environments.bandit_policy(logits) * rewards, axis=1)
    keys = jax.random.split(jax.random.key(2), arms["samples"])
    draw = lambda key: problem.sample(key, 0, jnp.asarray(problem.data))
    one = lambda key, baseline: jax.grad(problem.loss, has_aux=True)(logits, draw(key), baseline)
    every = jax.jit(jax.vmap(one, in_axes=(0, None)))
    found = {}
    for name, baseline in ((NONE, np.zeros_like(true_value)), (RUNNING, true_value)):
        grads, _ = every(keys, jnp.asarray(baseline, jnp.float32))
        samples = np.asarray(grads, np.float64)
        spread = samples.std(axis=0)
        error = np.abs(samples.mean(axis=0) - exact) / (spread / len(samples) ** 0.5)
        foretold = environments.bandit_variance(logits, rewards, arms["noise"], baseline)
        found[name] = Estimate(float(error.max()), float(np.sum(spread**2)), foretold)
    return found
