"""Steps on a quadratic as linear maps: their multipliers in closed form, and Adam with a fixed preconditioner."""

from typing import NamedTuple

import numpy as np
import optax

from gdkit import Trajectory

THRESHOLDS = {  # formulas of the learning rates that `gdkit.stability_threshold` returns
    "sgd": "2 / λ",
    "momentum": "(2 + 2β) / λ",
    "nesterov": "(2 + 2β) / (λ (1 + 2β))",
    "adam": "(2 + 2β₁) / ((1 − β₁) λₚ)",
}
POLYNOMIALS = {  # their roots are the multipliers; h = ηλ, for adam ηλ/P
    "sgd": "z − (1 − h)",
    "momentum": "z² − (1 + β − h) z + β",
    "nesterov": "z² − (1 + β)(1 − h) z + β (1 − h)",
    "adam": "z² − (1 + β₁ − (1 − β₁) h) z + β₁",
}


def multipliers_of_step(
    family: str, rates: np.ndarray, curvatures: np.ndarray, beta: float | np.ndarray = 0.0
) -> np.ndarray:
    """Multipliers of a step on ½ Σ λᵢ xᵢ², the roots of `POLYNOMIALS`; complex (..., roots).

    Args:
      family: as in `gdkit.stability_threshold`.
      rates: η, (...).
      curvatures: λ, (n,); for adam λ / P, with its preconditioner P held fixed.
      beta: β, or β₁ for adam; a number, or (...).

    >>> multipliers_of_step("momentum", np.array([0.5]), np.array([4.0]), 0.0).real.tolist()
    [[0.0, -1.0]]
    """
    h, beta = rates[..., None] * curvatures, np.asarray(beta, float)[..., None]
    if family == "sgd":
        return 1 - h + 0j
    total, product = {
        "momentum": (1 + beta - h, beta + 0 * h),
        "nesterov": ((1 + beta) * (1 - h), beta * (1 - h)),
        "adam": (1 + beta - (1 - beta) * h, beta + 0 * h),
    }[family]
    root = np.sqrt(total**2 - 4 * product + 0j)
    return np.concatenate([(total + root) / 2, (total - root) / 2], axis=-1)


def spectral_radius(
    family: str, rates: np.ndarray, curvatures: np.ndarray, beta: float | np.ndarray = 0.0
) -> np.ndarray:
    """The largest modulus of a multiplier, (...)."""
    return np.abs(multipliers_of_step(family, rates, curvatures, beta)).max(axis=-1)


def farthest_multiplier(
    family: str, rates: np.ndarray, curvatures: np.ndarray, beta: float | np.ndarray = 0.0
) -> np.ndarray:
    """The real part of the multiplier farthest from 1, (...)."""
    multipliers = multipliers_of_step(family, rates, curvatures, beta)
    at = np.abs(multipliers - 1).argmax(axis=-1)[..., None]
    return np.take_along_axis(multipliers, at, axis=-1)[..., 0].real


class RateAndMomentum(NamedTuple):
    """A learning rate with a momentum."""

    learning_rate: float
    momentum: float


def polyak_optimum(condition_number: float) -> RateAndMomentum:
    """The fastest learning rate and momentum for curvatures from 1 to `condition_number`.

    >>> polyak_optimum(9.0)
    RateAndMomentum(learning_rate=0.25, momentum=0.25)
    """
    root = condition_number**0.5
    return RateAndMomentum(4 / (root + 1) ** 2, ((root - 1) / (root + 1)) ** 2)


def preconditioner(run: Trajectory, b1: float, b2: float = 0.999, eps: float = 1e-8) -> np.ndarray:
    """P at the last step of a run of ``optax.adam``, (n,): (1 − β₁ᵗ) (√(ν / (1 − β₂ᵗ)) + ε)."""
    moments = run.opt_state[0]
    t = int(moments.count)
    return ((1 - b1**t) * (np.sqrt(np.asarray(moments.nu, float) / (1 - b2**t)) + eps)).astype(moments.nu.dtype)


def frozen_adam(preconditioner: np.ndarray, learning_rate: float, b1: float) -> optax.GradientTransformation:
    """Adam that always divides the mean of its gradients by `preconditioner`, (n,)."""
    precondition = optax.stateless(lambda updates, _: updates / preconditioner)
    return optax.chain(optax.ema(b1, debias=False), precondition, optax.scale_by_learning_rate(learning_rate))
