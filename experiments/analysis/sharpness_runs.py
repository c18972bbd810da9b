"""The sharpness of runs on their way."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from gdkit import Problem, descend, optimizers, sgd
from gdkit.errors import bad_value
from gdkit.stability import sharpness_every
from gdkit.types import Key


class Watched(NamedTuple):
    """A run by all data, with linear warm-up to a learning rate past the constant edge."""

    step: np.ndarray  # (points,)
    rate: np.ndarray  # (points,) η at these steps
    sharpness: np.ndarray  # (points,)
    warm: int  # steps of the warm-up


def watch(problem: Problem, rate: float, warmup: float, steps: int, every: int) -> Watched:
    """A run of gradient descent that warms up to `rate` in a share of its steps, its sharpness measured on the way."""
    whole = dataclasses.replace(problem, sample=None)
    share = optimizers.schedule("warmup", steps, warmup=warmup)
    monitor = sharpness_every(whole, every, record=steps // every + 1)
    options: dict[str, Any] = {"hyperparameters": {"learning_rate": rate}, "monitors": [monitor]}
    end = descend(whole, optimizers.with_schedule(sgd, share), steps, **options)
    curve = np.asarray(end.statistics["sharpness_curve"])
    step = every * np.arange(len(curve))
    return Watched(step, rate * np.asarray(share(jnp.asarray(step))), curve, round(warmup * steps))


def largest(problem: Problem, chosen: Mapping[str, Any], ends: np.ndarray, key: Key) -> np.ndarray:
    """Learning rates between `ends`, and η/2 times the largest sharpness on the way."""
    rates = np.geomspace(*ends, chosen["sharpness"]["count"])
    watched = sharpness_every(problem, chosen["sharpness"]["every"])
    options: dict[str, Any] = {"key": key, "monitors": [watched]}
    walk = lambda rate: descend(problem, sgd, chosen["steps"], hyperparameters={"learning_rate": rate}, **options)
    return np.array([rates, [rate * float(walk(rate).statistics["sharpness_max"]) / 2 for rate in rates]])


def edge(sharpness: np.ndarray, steps: int) -> float:
    """The learning rate at which η/2 times the sharpness first rises to 1."""
    rates, reached = np.log(sharpness)
    after = int(np.argmax(reached > 0))
    if after == 0:
        remedy = "Take more steps, or begin the grid lower"
        raise bad_value(
            "settings.steps", steps, "the grid does not reach from below to above the edge of stability", remedy
        )
    return float(np.exp(np.interp(0, reached[after - 1 : after + 1], rates[after - 1 : after + 1])))
