"""Sharpness along runs: through a warm-up, and its maximum at each learning rate of a grid."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from gdkit import Problem, descend, optimizers, sgd
from gdkit.errors import bad_value
from gdkit.stability import sharpness_every
from gdkit.types import Key


class WarmupRun(NamedTuple):
    """A full-batch run with linear warm-up to a learning rate above the edge of a constant one."""

    step: np.ndarray  # (points,)
    rate: np.ndarray  # (points,) η at these steps
    sharpness: np.ndarray  # (points,)
    warmup_steps: int


def record_warmup(problem: Problem, rate: float, warmup: float, steps: int, every: int, *, key: int = 0) -> WarmupRun:
    """Full-batch gradient descent that warms up to `rate` in a share of its steps, with its sharpness."""
    full_batch = dataclasses.replace(problem, sample=None)
    share = optimizers.schedule("warmup", steps, warmup=warmup)
    monitor = sharpness_every(full_batch, every, record=steps // every + 1)
    options: dict[str, Any] = {"hyperparameters": {"learning_rate": rate}, "monitors": [monitor], "key": key}
    end = descend(full_batch, optimizers.with_schedule(sgd, share), steps, **options)
    curve = np.asarray(end.statistics["sharpness_curve"])
    step = every * np.arange(len(curve))
    return WarmupRun(step, rate * np.asarray(share(jnp.asarray(step))), curve, round(warmup * steps))


def largest_sharpness(problem: Problem, settings: Mapping[str, Any], ends: np.ndarray, key: Key) -> np.ndarray:
    """Learning rates between `ends`, and η/2 times the largest sharpness of a run at each: (2, count)."""
    rates = np.geomspace(*ends, settings["sharpness"]["count"])
    monitor = sharpness_every(problem, settings["sharpness"]["every"])
    options: dict[str, Any] = {"key": key, "monitors": [monitor]}
    run = lambda rate: descend(problem, sgd, settings["steps"], hyperparameters={"learning_rate": rate}, **options)
    return np.array([rates, [rate * float(run(rate).statistics["sharpness_max"]) / 2 for rate in rates]])


def find_edge(sharpness: np.ndarray, steps: int) -> float:
    """The learning rate at which η/2 times the largest sharpness first reaches 1."""
    rates, scaled = np.log(sharpness)
    after = int(np.argmax(scaled > 0))
    if after == 0:
        remedy = "Take more steps, or begin the grid lower"
        raise bad_value("settings.steps", steps, "the grid does not cross the edge of stability", remedy)
    return float(np.exp(np.interp(0, scaled[after - 1 : after + 1], rates[after - 1 : after + 1])))
