"""Optimizers on a quadratic, each with the threshold that theory gives."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import optax

import gdkit
from experiments.analysis import linear_steps
from gdkit import Problem, Trajectory


class QuadraticCase(NamedTuple):
    """An optimizer on a quadratic."""

    name: str  # as `gdkit.stability_threshold` has it
    curvatures: np.ndarray  # (n,) λ, for adam λ / P
    threshold: float  # theory's learning rate
    optimizers: dict[str, Callable]  # by label; theory is about the first
    optimizer: Callable  # whose multipliers are measured
    state: Trajectory  # where they are measured


def linear_case(
    name: str, problem: Problem, curvatures: np.ndarray, optimizer: Callable, **options: float
) -> QuadraticCase:
    """An optimizer whose step map is linear from the first step on."""
    threshold = gdkit.stability_threshold(name, curvatures.max(), **options)
    state = gdkit.descend(problem, optimizer, 1, hyperparameters={"learning_rate": threshold})
    return QuadraticCase(name, curvatures, threshold, {name: optimizer}, optimizer, state)


def adam_case(problem: Problem, curvatures: np.ndarray, b1: float, learning_rate: float, steps: int) -> QuadraticCase:
    """Adam after a run of `steps`; its preconditioner is that of the following step."""
    optimizer, rate = functools.partial(optax.adam, b1=b1), {"learning_rate": learning_rate}
    state = gdkit.descend(problem, optimizer, steps, hyperparameters=rate)
    sharpness = gdkit.preconditioned_sharpness(problem, optimizer, state, hyperparameters=rate).values[0]
    next_state = gdkit.descend(problem, optimizer, steps + 1, hyperparameters=rate)
    preconditioner = linear_steps.preconditioner(next_state, b1)
    frozen = functools.partial(linear_steps.frozen_adam, preconditioner, b1=b1)
    threshold = gdkit.stability_threshold("adam", float(sharpness), b1=b1)
    optimizers = {"held fixed": frozen, "adapting": optimizer}
    return QuadraticCase("adam", curvatures / preconditioner, threshold, optimizers, optimizer, state)
