"""Stability: curvature, the multipliers of the step map, and the learning rate at which they leave the unit circle."""

from gdkit.stability.batch import batch_sharpness_every, gradient_noise_scale, step_alpha_every
from gdkit.stability.catapult import catapult_rate
from gdkit.stability.critical import CriticalLearningRate, Profile, critical_learning_rate
from gdkit.stability.curvature import curvature_product
from gdkit.stability.flows.flow import CentralFlow, GradientFlow, central_flow, gradient_flow
from gdkit.stability.krylov import Spectrum
from gdkit.stability.monitors import (
    gauss_newton_every,
    generalized_sharpness_every,
    lyapunov_exponent,
    preconditioned_sharpness_every,
    sharpness_every,
    spectral_density_every,
    trace_every,
)
from gdkit.stability.multipliers import Multipliers, multipliers
from gdkit.stability.norms import GeneralizedSharpness, directional_smoothness, dual_norm, generalized_sharpness
from gdkit.stability.sharpness import gauss_newton, preconditioned_sharpness, sharpness, stability_threshold
from gdkit.stability.spectrum import SpectralDensity, Trace, spectral_density, trace

__all__ = [
    "CentralFlow", "CriticalLearningRate", "GeneralizedSharpness", "GradientFlow", "Multipliers", "Profile",
    "SpectralDensity", "Spectrum", "Trace", "batch_sharpness_every", "catapult_rate", "central_flow",
    "critical_learning_rate", "curvature_product", "directional_smoothness", "dual_norm", "gauss_newton",
    "gauss_newton_every", "generalized_sharpness", "generalized_sharpness_every", "gradient_flow",
    "gradient_noise_scale", "lyapunov_exponent", "multipliers", "preconditioned_sharpness",
    "preconditioned_sharpness_every", "sharpness", "sharpness_every", "spectral_density", "spectral_density_every",
    "stability_threshold", "step_alpha_every", "trace", "trace_every",
]  # fmt: skip
