"""Linear complementarity in symmetric matrices: 0 ⪯ X ⊥ A + B[X] ⪰ 0.

A symmetric (k, k) matrix is a vector of its m = k (k + 1) / 2 coordinates in an orthonormal basis, `to_vector`, so that
the scalar product of matrices is that of vectors and B is a matrix (m, m).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gdkit.trees import select
from gdkit.types import Array

_ITERATIONS = 30
_LEAST_GAP = 1e-5  # at which ⟨X, S⟩ per row is small enough, relative to A's negative eigenvalue and the size of X
_REGULARIZATION = 1e-6  # relative; where B cannot lift a negative A the solution would be infinite


def pairs(k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The rows and columns of the coordinates, and their weights: 1 on the diagonal, √2 off it; each (m,)."""
    rows, columns = np.triu_indices(k)
    return rows, columns, np.where(rows == columns, 1.0, np.sqrt(2.0))


def to_vector(matrix: Array) -> Array:
    """The coordinates (m,) of a symmetric matrix (k, k)."""
    rows, columns, weights = pairs(len(matrix))
    return jnp.asarray(weights, matrix.dtype) * matrix[rows, columns]


def to_matrix(vector: Array, k: int) -> Array:
    """The symmetric matrix (k, k) of its coordinates (m,)."""
    rows, columns, weights = pairs(k)
    upper = jnp.zeros((k, k), vector.dtype).at[rows, columns].set(vector / jnp.asarray(weights, vector.dtype))
    return upper + jnp.triu(upper, 1).T


class _Iterate(NamedTuple):
    x: Array  # (k, k), positive definite
    s: Array  # (k, k), positive definite
    count: Array  # () int32


def solve_complementarity(a: Array, b: Array, k: int) -> Array:
    """The X ⪰ 0, (k, k), with A + B[X] ⪰ 0 and ⟨X, A + B[X]⟩ = 0, for a positive semidefinite B.

    A primal-dual interior-point method with the scaling of Nesterov and Todd (Self-scaled barriers and interior-point
    methods for convex programming, 1997) and Mehrotra's predictor and corrector; about ten iterations. Zero where
    A ⪰ 0.

    Args:
      a: (m,), the coordinates of A.
      b: (m, m), symmetric.
      k: the number of rows of X.
    """
    tiny, eps = jnp.finfo(a.dtype).tiny ** 0.5, jnp.finfo(a.dtype).eps
    size, scale = jnp.maximum(jnp.linalg.norm(a), tiny), jnp.maximum(jnp.max(jnp.diagonal(b)), tiny)
    a, b = a / size, 0.5 * (b + b.T) / scale + _REGULARIZATION * jnp.eye(len(a), dtype=a.dtype)
    excess = -jnp.linalg.eigvalsh(to_matrix(a, k))[0]  # X is of its size, which may be small beside that of A

    def is_unfinished(at: _Iterate) -> Array:
        gap = jnp.vdot(at.x, at.s) / k
        residual = jnp.linalg.norm(to_vector(at.s) - a - b @ to_vector(at.x))
        most = jnp.maximum(1, jnp.trace(at.x)) * (_LEAST_GAP * excess + 10 * eps)
        is_far = (gap > _LEAST_GAP * excess * jnp.trace(at.x)) | (residual > most)
        return is_far & (excess > 0) & (at.count < _ITERATIONS)

    def advance(at: _Iterate) -> _Iterate:
        after = _advance(at, a, b)  # not finite where rounding ends the progress
        is_finite = jnp.all(jnp.isfinite(after.x)) & jnp.all(jnp.isfinite(after.s))
        return select(is_finite, after, at._replace(count=jnp.int32(_ITERATIONS)))

    one = jnp.eye(k, dtype=a.dtype)
    found = jax.lax.while_loop(is_unfinished, advance, _Iterate(one, one, jnp.int32(0)))
    return jnp.where(excess > 0, found.x * size / scale, 0)


def _advance(at: _Iterate, a: Array, b: Array) -> _Iterate:
    """One step, solved for twice: to the solution, then with the terms that the first solution says are missing."""
    k = len(at.x)
    lower, upper = jnp.linalg.cholesky(at.x), jnp.linalg.cholesky(at.s).T
    columns, d, rows = jnp.linalg.svd(upper @ lower)
    scaling = (lower @ rows.T) / jnp.sqrt(d)[None]  # G of G⁻¹ X G⁻ᵀ = Gᵀ S G = diag(d)
    inverse = (columns.T @ upper) / jnp.sqrt(d)[:, None]
    unit = jnp.eye(len(a), dtype=a.dtype)
    outward = jax.vmap(lambda v: to_vector(scaling @ to_matrix(v, k) @ scaling.T), out_axes=1)(unit)
    residual = to_vector(scaling.T @ (to_matrix(a + b @ to_vector(at.x), k) - at.s) @ scaling)
    matrix, diagonal = unit + outward.T @ b @ outward, jnp.diag(d)

    def solve(target: Array) -> Array:
        """The scaled steps (2, k, k) of X and S for which the product of both is `target`, to first order."""
        total = 2 * target / (d[:, None] + d[None, :])
        dx = to_matrix(jnp.linalg.solve(matrix, to_vector(total) - residual), k)
        return jnp.stack([dx, total - dx])

    def measure(steps: Array) -> Array:
        """The shares (2,) of the steps, at most 1 / 0.95, after which X and S are still positive semidefinite."""
        least = jnp.linalg.eigvalsh(steps / jnp.sqrt(d[:, None] * d[None, :])[None])[:, 0]
        return jnp.where(least < -0.95, -1 / jnp.minimum(least, -0.95), 1 / 0.95)

    steps = solve(-(diagonal**2))
    reached = diagonal[None] + measure(steps)[:, None, None] * steps
    gap = jnp.mean(d**2)
    center = jnp.clip(jnp.vdot(reached[0], reached[1]) / (k * gap), 0, 1) ** 3 * gap
    missing = 0.5 * (steps[0] @ steps[1] + steps[1] @ steps[0])
    steps = solve(center * jnp.eye(k, dtype=a.dtype) - diagonal**2 - missing)
    reached = diagonal[None] + 0.95 * jnp.min(measure(steps)) * steps
    x, s = scaling @ reached[0] @ scaling.T, inverse.T @ reached[1] @ inverse
    return _Iterate(0.5 * (x + x.T), 0.5 * (s + s.T), at.count + 1)
