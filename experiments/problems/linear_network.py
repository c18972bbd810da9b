"""A two-layer linear network, and the largest eigenvalue of its tangent kernel."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gdkit import Problem


def network(x: np.ndarray, y: np.ndarray, width: int, key: int) -> tuple[Problem, float]:
    """The two-layer linear network on rows x (rows, d) and targets y (rows,), and its λ₀."""
    first, second = jax.random.split(jax.random.key(key))
    params = jax.random.normal(first, (x.shape[1], width)), jax.random.normal(second, (width,))
    outputs = lambda params, x: x @ params[0] @ params[1] / (width * x.shape[1]) ** 0.5
    loss = lambda params, batch: 0.5 * jnp.mean(jnp.square(outputs(params, batch[0]) - batch[1]))
    best = x @ np.linalg.lstsq(x, y)[0]
    problem = Problem(loss, params, data=(x, y), optimum=float(0.5 * np.mean((best - y) ** 2)), name="linear network")
    return problem, tangent_kernel(lambda params: outputs(params, x), params)


def tangent_kernel(outputs: Callable, params: Any) -> float:
    """The largest eigenvalue of J Jᵀ / rows: the sharpness of ½ · mean squared error where outputs are linear.

    >>> tangent_kernel(lambda w: jnp.asarray([[3.0, 0.0], [0.0, 1.0]]) @ w, jnp.ones(2))
    4.5
    """
    slopes = jax.tree.leaves(jax.jit(jax.jacobian(outputs))(params))
    rows = np.concatenate([np.reshape(slope, (len(slope), -1)) for slope in slopes], axis=1)
    return float(np.linalg.eigvalsh(rows @ rows.T / len(rows))[-1])
