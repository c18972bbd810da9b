"""Krylov spaces. One factorization serves Lanczos (its projection is tridiagonal up to rounding) and Arnoldi."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from gdkit.checks import check_integer, check_number
from gdkit.errors import bad_value
from gdkit.types import Array, Key, Numeric

Operator = Callable[[Array], Array]  # (n,) -> (n,), linear


class Spectrum(NamedTuple):
    """Some eigenvalues of an operator, each with its accuracy."""

    values: Array | np.ndarray  # (k,)
    residuals: Array | np.ndarray  # (k,) ‖Av − λv‖ for the value λ and its unit vector v
    converged: Array | np.ndarray  # (k,) bool, whether the residual is within the tolerance
    products: Array | int  # () int32, number of products with the operator


class Krylov(NamedTuple):
    """A Krylov space of depth m in n dimensions, and the operator projected on it."""

    basis: Array  # (m, n), orthonormal rows, zero from `count` on
    projected: Array  # (m, m), the operator within the basis; column j is of A·basis[j]
    direction: Array  # (n,), the next row of the basis
    coupling: Array  # (), the norm of the last product outside the basis; 0 after a breakdown
    count: Array  # () int32, rows in use
    breakdowns: Array  # () int32, how often the space was invariant and continued in a random direction
    scale: Array  # (), largest ‖A·basis[j]‖: a lower bound of the operator's norm
    key: Key


def check_search(k: int, size: int, tolerance: float, max_iterations: int) -> None:
    """Raise for a number of eigenvalues, a tolerance or a number of products that cannot be used."""
    check_integer("k", k)
    check_integer("max_iterations", max_iterations)
    if k > size:
        raise bad_value("k", k, f"there are only {size} eigenvalues", f"Ask for at most {size}")
    if max_iterations < k:
        raise bad_value("max_iterations", max_iterations, f"too few for {k} eigenvalues", f"Allow at least {k}")
    check_number("tolerance", tolerance, above=0)


def start_krylov(size: int, depth: int, key: Key, dtype: DTypeLike) -> Krylov:
    """An empty space whose first direction is random."""
    key, draw = jax.random.split(key)
    direction = jax.random.normal(draw, (size,), dtype)
    zero, none = jnp.zeros((), dtype), jnp.zeros((), jnp.int32)
    blank = jnp.zeros((depth, size), dtype), jnp.zeros((depth, depth), dtype)
    return Krylov(*blank, direction / jnp.linalg.norm(direction), zero, none, none, zero, key)


def extend(apply: Operator, krylov: Krylov, negligible: Numeric = 0.0) -> Krylov:
    """The space with one more product; Gram-Schmidt twice against the whole basis (Daniel et al. 1976).

    The part of the product outside the basis is dropped as rounding if it is less than `negligible` times the
    operator's norm; the space then counts as invariant.
    """
    depth, size = krylov.basis.shape
    j = krylov.count
    basis = krylov.basis.at[j].set(krylov.direction)
    product = apply(krylov.direction)
    scale = jnp.maximum(krylov.scale, _safe_norm(product))
    first, rest = _project(basis, product, j + 1)
    length = _safe_norm(rest)
    least = jnp.maximum(32 * jnp.finfo(rest.dtype).eps, negligible) * scale
    broken = (length <= least) | (j + 1 == size)
    key, draw = jax.random.split(krylov.key)
    rest = jnp.where(broken, jax.random.normal(draw, rest.shape, rest.dtype), rest / jnp.where(broken, 1, length))
    second, rest = _project(basis, rest, j + 1)
    remaining = jnp.linalg.norm(rest)
    coupling = jnp.where(broken, 0, length * remaining)
    column = first + jnp.where(broken, 0, length * second)
    column = jnp.where(jnp.arange(depth) == j + 1, coupling, column)
    projected = krylov.projected.at[:, j].set(column)
    direction = rest / jnp.where(remaining > 0, remaining, 1)
    return Krylov(
        basis, projected, direction, coupling, j + 1, krylov.breakdowns + broken.astype(jnp.int32), scale, key
    )


def _project(basis: Array, vector: Array, count: Array) -> tuple[Array, Array]:
    """The coefficients of `vector` in the rows in use, (m,), zero for others, and its part outside their span, (n,).

    Only blocks of rows in use are read: most rows of a deep basis are empty, and reading them would take most of the
    time.
    """
    rows = math.gcd(len(basis), 8)

    def subtract(block: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        part = jax.lax.dynamic_slice_in_dim(basis, block * rows, rows)
        along = part @ vector
        return jax.lax.dynamic_update_slice_in_dim(carry[0], along, block * rows, 0), carry[1] - along @ part

    return jax.lax.fori_loop(0, (count + rows - 1) // rows, subtract, (jnp.zeros(len(basis), vector.dtype), vector))


def _safe_norm(vector: Array) -> Array:
    """Euclidean norm, without overflow of the squares."""
    most = jnp.max(jnp.abs(vector))
    unit = jnp.where((most > 0) & jnp.isfinite(most), most, 1)
    return unit * jnp.linalg.norm(vector / unit)


def largest_symmetric(
    apply: Operator, size: int, k: int, key: Key, dtype: DTypeLike, tolerance: Numeric, depth: int
) -> Spectrum:
    """The k algebraically largest eigenvalues of a symmetric operator on vectors (size,), by Lanczos."""

    def top(krylov: Krylov) -> tuple[Array, Array]:
        values, residuals = _ritz_values(krylov)
        return values[-k:][::-1], residuals[-k:][::-1]

    def is_unfinished(krylov: Krylov) -> Array:
        # an invariant space has each eigenvalue once: a multiple one is in the next space, or in a complete basis
        complete = (krylov.breakdowns >= k) | (k == 1) | ((krylov.breakdowns == 0) & (size > depth))
        finished = jnp.all(top(krylov)[1] <= tolerance * krylov.scale) & (krylov.count >= k) & complete
        return (krylov.count < krylov.basis.shape[0]) & ~finished

    krylov = start_krylov(size, depth, key, dtype)
    krylov = jax.lax.while_loop(is_unfinished, lambda old: extend(apply, old, 0.1 * tolerance), krylov)
    values, residuals = top(krylov)
    return Spectrum(values, residuals, residuals <= tolerance * krylov.scale, krylov.count)


_FEW = 16  # rows; the eigenvalues of 64 rows at each step took as long as the products of 100,000 params


def _ritz_values(krylov: Krylov) -> tuple[Array, Array]:
    """Eigenvalues of the projection, ascending, and their residuals; unused rows come first."""
    depth = len(krylov.projected)

    def within(size: int) -> tuple[Array, Array]:
        used = jnp.arange(size) < krylov.count
        inside = jnp.where(used[:, None] & used[None, :], krylov.projected[:size, :size], 0)
        inside = 0.5 * (inside + inside.T)
        # a padding of zeros would be the top of a negative spectrum
        below = -2 * jnp.max(jnp.sum(jnp.abs(inside), axis=1))
        padded = inside + jnp.diag(jnp.where(used, 0, below))
        values, vectors = jax.lax.platform_dependent(padded, cpu=_eigh_one_by_one, default=_eigh)
        unused = jnp.full((depth - size,), below)
        last = vectors[jnp.minimum(krylov.count, size) - 1]
        return jnp.append(unused, values), jnp.append(jnp.zeros_like(unused), last)

    few = min(_FEW, depth)
    values, last = jax.lax.cond(krylov.count <= few, lambda: within(few), lambda: within(depth))
    return values, krylov.coupling * jnp.abs(last)


def _eigh(matrix: Array) -> tuple[Array, Array]:
    values, vectors = jnp.linalg.eigh(matrix)
    return values, vectors


# On CPU, eigh of a batch is distributed over the threads that run the program and blocks one of them meanwhile: two
# programs side by side, as in a sweep, each block one and wait forever (jaxlib 0.10's ParallelBatchMap, on two cores).
_eigh_one_by_one = jax.custom_batching.sequential_vmap(_eigh)
