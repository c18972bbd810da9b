"""Stability: curvature, the multipliers of the step map, and the learning rate at which they leave the unit circle."""

from gdkit.stability.critical import CriticalLearningRate, Profile, critical_learning_rate
from gdkit.stability.krylov import Spectrum
from gdkit.stability.monitors import lyapunov_exponent, preconditioned_sharpness_every, sharpness_every
from gdkit.stability.multipliers import Multipliers, multipliers
from gdkit.stability.sharpness import preconditioned_sharpness, sharpness, stability_threshold

__all__ = [
    "CriticalLearningRate", "Multipliers", "Profile", "Spectrum", "critical_learning_rate", "lyapunov_exponent",
    "multipliers", "preconditioned_sharpness", "preconditioned_sharpness_every", "sharpness", "sharpness_every",
    "stability_threshold",
]  # fmt: skip
