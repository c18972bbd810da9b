"""Sampled policy gradients of a bandit, compared with the exact gradient."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.problems import environments, policies

NO_BASELINE, BASELINE = "no baseline", "baseline"


class GradientEstimate(NamedTuple):
    """Mean and variance of many samples of the bandit's gradient, against their closed forms."""

    error: float  # the largest error of their mean, in standard errors
    variance: float  # of one sample, summed over params
    predicted_variance: float  # its closed form


def estimate_gradients(settings: Mapping[str, Any]) -> dict[str, GradientEstimate]:
    """REINFORCE's gradient of single pulls against the exact one, at a random policy, by baseline."""
    problem = policies.bandit(settings["contexts"], settings["arms"], settings["noise"], pulls=1)
    rewards = np.asarray(problem.data, np.float64)
    logits = np.asarray(jax.random.normal(jax.random.key(1), rewards.shape))
    exact = environments.bandit_gradient(logits, rewards)
    true_value = np.sum(environments.bandit_policy(logits) * rewards, axis=1)
    keys = jax.random.split(jax.random.key(2), settings["samples"])
    draw = lambda key: problem.sample(key, 0, jnp.asarray(problem.data))
    gradient = lambda key, baseline: jax.grad(problem.loss, has_aux=True)(logits, draw(key), baseline)
    all_gradients = jax.jit(jax.vmap(gradient, in_axes=(0, None)))
    estimates = {}
    for name, baseline in ((NO_BASELINE, np.zeros_like(true_value)), (BASELINE, true_value)):
        grads, _ = all_gradients(keys, jnp.asarray(baseline, jnp.float32))
        samples = np.asarray(grads, np.float64)
        deviation = samples.std(axis=0)
        error = np.abs(samples.mean(axis=0) - exact) / (deviation / len(samples) ** 0.5)
        predicted = environments.bandit_variance(logits, rewards, settings["noise"], baseline)
        estimates[name] = GradientEstimate(float(error.max()), float(np.sum(deviation**2)), predicted)
    return estimates
