"""The noise of a batch's gradient, and the best learning rate of one step that follows from it.

McCandlish et al., An empirical model of large-batch training, 2018. With the gradient G, the Hessian H and the
covariance Σ of one row's gradient, a step on a batch of B rows changes a quadratic loss by
−η |G|² + ½ η² (GᵀHG + tr(HΣ)/B) in expectation. The minimum is at η_max / (1 + B_noise/B), proportional to B where
noise dominates, and constant above B_noise = tr(HΣ) / GᵀHG.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from gdkit import Problem
from gdkit.types import Params


class GradientNoise(NamedTuple):
    """The two numbers that determine the best step on a quadratic."""

    full_batch_rate: float  # η_max = |G|² / GᵀHG, the best learning rate of the full batch
    scale: float  # B_noise = tr(HΣ) / GᵀHG

    def best_rate(self, batch_size: Any) -> Any:
        """The best learning rate of one step."""
        return self.full_batch_rate / (1 + self.scale / batch_size)


def measure_noise(problem: Problem, params: Params) -> GradientNoise:
    """The noise of a batch drawn with replacement, from the gradients of single rows.

    tr(HΣ) is the mean of gᵀHg over the rows' gradients g, minus GᵀHG.
    """
    vector, unravel = ravel_pytree(params)
    gradient = jax.grad(lambda vector, batch: problem.loss(unravel(vector), batch))
    hessian_product = lambda direction: jax.jvp(lambda v: gradient(v, problem.data), (vector,), (direction,))[1]
    rows = jax.tree.map(lambda leaf: jnp.asarray(leaf)[:, None], problem.data)
    row_gradients = jax.jit(jax.vmap(lambda row: gradient(vector, row)))(rows)  # (rows, params)
    mean = row_gradients.mean(axis=0)
    curvatures = jax.jit(lambda g: jax.lax.map(lambda one: one @ hessian_product(one), g, batch_size=64))
    signal, total = float(curvatures(mean[None])[0]), float(curvatures(row_gradients).mean())
    return GradientNoise(float(mean @ mean) / signal, (total - signal) / signal)
