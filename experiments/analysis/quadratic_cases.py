"""Optimizers on a quadratic, each with its theory."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import optax

import gdkit
from experiments.analysis import linear_steps
from gdkit import Problem, Trajectory


class Case(NamedTuple):
    """An optimizer on a quadratic."""

    name: str  # as `gdkit.stability_threshold` has it
    curvatures: np.ndarray  # (n,) λ, of adam λ / P
    threshold: float  # theory's learning rate
    factories: dict[str, Callable]  # label to factory; the first is the one that theory is about
    judged: Callable  # the factory whose multipliers are taken
    state: Trajectory  # and where


def plain(name: str, problem: Problem, curvatures: np.ndarray, factory: Callable, **options: float) -> Case:
    """One whose map is linear from the first step on."""
    threshold = gdkit.stability_threshold(name, curvatures.max(), **options)
    state = gdkit.descend(problem, factory, 1, hyperparameters={"learning_rate": threshold})
    return Case(name, curvatures, threshold, {name: factory}, factory, state)


def adam(problem: Problem, curvatures: np.ndarray, b1: float, learning_rate: float, steps: int) -> Case:
    """Adam where a run of it has come to; its preconditioner is that of the step which follows."""
    factory, rate = functools.partial(optax.adam, b1=b1), {"learning_rate": learning_rate}
    state = gdkit.descend(problem, factory, steps, hyperparameters=rate)
    sharp = gdkit.preconditioned_sharpness(problem, factory, state, hyperparameters=rate).values[0]
    held = linear_steps.preconditioner(gdkit.descend(problem, factory, steps + 1, hyperparameters=rate), b1)
    factories = {"held fixed": functools.partial(linear_steps.frozen_adam, held, b1=b1), "adapting": factory}
    threshold = gdkit.stability_threshold("adam", float(sharp), b1=b1)
    return Case("adam", curvatures / held, threshold, factories, factory, state)
