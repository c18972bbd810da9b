"""The noise of a batch's gradient, and the best learning rate of one step that follows from it.

McCandlish et al., An empirical model of large-batch training, 2018. With the gradient G, the Hessian H and the
covariance Σ of one row's gradient, a step on a batch of B rows changes a quadratic loss by
−η |G|² + ½ η² (GᵀHG + tr(HΣ)/B) in expectation, least at η_max / (1 + B_noise/B): in proportion to B where noise
dominates, and level above B_noise = tr(HΣ) / GᵀHG.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from gdkit import Problem
from gdkit.types import Params


class Noise(NamedTuple):
    """What one step on a quadratic depends on."""

    highest: float  # η_max = |G|² / GᵀHG, the best learning rate of all rows
    scale: float  # B_noise = tr(HΣ) / GᵀHG

    def best(self, batch_size: Any) -> Any:
        """The best learning rate of one step."""
        return self.highest / (1 + self.scale / batch_size)


def measure(problem: Problem, params: Params) -> Noise:
    """The noise of a batch drawn with replacement, from the gradients of single rows.

    tr(HΣ) is the mean of gᵀHg over rows' gradients g, less GᵀHG.
    """
    vector, unravel = ravel_pytree(params)
    gradient = jax.grad(lambda vector, batch: problem.loss(unravel(vector), batch))
    curved = lambda direction: jax.jvp(lambda v: gradient(v, problem.data), (vector,), (direction,))[1]
    rows = jax.tree.map(lambda leaf: jnp.asarray(leaf)[:, None], problem.data)
    each = jax.jit(jax.vmap(lambda row: gradient(vector, row)))(rows)  # (rows, params)
    mean = each.mean(axis=0)
    bends = jax.jit(lambda g: jax.lax.map(lambda one: one @ curved(one), g, batch_size=64))
    signal, total = float(bends(mean[None])[0]), float(bends(each).mean())
    return Noise(float(mean @ mean) / signal, (total - signal) / signal)
