"""Krylov spaces of several starts: one factorization serves block Lanczos and block Arnoldi.

From one start a Krylov space has one vector of each eigenspace, however often its eigenvalue occurs. From k random
starts it has as many as the eigenvalue occurs, up to k, so that the k outermost values have their multiplicities (Golub
and Underwood, The block Lanczos method, 1977). Rows are added one product at a time, as in band Lanczos (Ruhe,
Implementation aspects of band Lanczos algorithms, 1979), with Gram-Schmidt against all of them.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from gdkit.checks import check_integer, check_number
from gdkit.errors import bad_value
from gdkit.types import Array, Key, Numeric, PyTree

Operator = Callable[[Array], Array]  # (n,) -> (n,), linear


class Spectrum(NamedTuple):
    """Some eigenvalues of an operator, each with its accuracy."""

    values: Array | np.ndarray  # (k,)
    residuals: Array | np.ndarray  # (k,) ‖Av − λv‖ for the value λ and its unit vector v
    converged: Array | np.ndarray  # (k,) bool, whether the residual is within the tolerance
    products: Array | int  # () int32, number of products with the operator
    vectors: PyTree = None  # like the params, (k, ...) each: the unit vectors v; None where they are not computed


class Krylov(NamedTuple):
    """A Krylov space of m rows from b starts in n dimensions, and the operator projected on it."""

    basis: Array  # (m, n), orthonormal rows, zero from `count` on
    projected: Array  # (m, m), the operator within the basis; column j is A·basis[j]
    pending: Array  # (b, n), the next rows of the basis, orthonormal to all others
    coupling: Array  # (b, m), the part of A·basis[j] along each pending row
    count: Array  # () int32, rows in use
    scale: Array  # (), largest ‖A·basis[j]‖: a lower bound of the operator's norm
    key: Key


def check_search(k: int, size: int, tolerance: float, max_iterations: int | None, *, ends: int = 1) -> int:
    """The most products of a search; raise for arguments that cannot be used.

    `ends` is the number of ends of the spectrum, 1 or 2; k eigenvalues are searched at each.
    """
    check_integer("k", k)
    max_iterations = max(64, 16 * ends * k) if max_iterations is None else max_iterations
    check_integer("max_iterations", max_iterations)
    if ends * k > size:
        found = f"there are only {size} eigenvalues" + ", and both ends take k each" * (ends > 1)
        raise bad_value("k", k, found, f"Ask for at most {size // ends}")
    if max_iterations < ends * k:
        remedy = f"Allow at least {ends * k}"
        raise bad_value("max_iterations", max_iterations, f"too few for {ends * k} eigenvalues", remedy)
    check_number("tolerance", tolerance, above=0)
    return min(max_iterations, size)


def start_krylov(size: int, depth: int, starts: int, key: Key, dtype: DTypeLike) -> Krylov:
    """An empty space whose first `starts` rows, at most `size`, will be random."""
    key, draw = jax.random.split(key)

    def orthonormalize(i: Array, rows: Array) -> Array:
        vector = rows[i]
        for _ in range(2):
            vector = vector - jnp.where(jnp.arange(starts) < i, rows @ vector, 0) @ rows
        return rows.at[i].set(vector / jnp.linalg.norm(vector))

    pending = jax.lax.fori_loop(0, starts, orthonormalize, jax.random.normal(draw, (starts, size), dtype))
    zeros = lambda *shape: jnp.zeros(shape, dtype)
    none = jnp.zeros((), jnp.int32)
    return Krylov(zeros(depth, size), zeros(depth, depth), pending, zeros(starts, depth), none, zeros(), key)


def extend(apply: Operator, krylov: Krylov, negligible: Numeric = 0.0) -> Krylov:
    """The space with one more product; Gram-Schmidt twice against all rows (Daniel et al. 1976).

    The part of the product outside the rows is dropped as rounding if it is less than `negligible` times the
    operator's norm; a random row then takes its place.
    """
    j, (starts, size) = krylov.count, krylov.pending.shape
    basis, waiting = krylov.basis.at[j].set(krylov.pending[0]), krylov.pending[1:]
    product = apply(krylov.pending[0])
    scale = jnp.maximum(krylov.scale, _safe_norm(product))
    first, first_waiting, rest = _project_on_both(basis, waiting, product, j + 1)
    length = _safe_norm(rest)
    least = jnp.maximum(32 * jnp.finfo(rest.dtype).eps, negligible) * scale
    complete = j + starts >= size
    broken = (length <= least) | complete
    key, draw = jax.random.split(krylov.key)
    rest = jnp.where(broken, jax.random.normal(draw, rest.shape, rest.dtype), rest / jnp.where(broken, 1, length))
    second, second_waiting, rest = _project_on_both(basis, waiting, rest, j + 1)
    remaining = jnp.linalg.norm(rest)
    length = jnp.where(broken, 0, length)
    added = jnp.where(complete, 0, rest / jnp.where(remaining > 0, remaining, 1))
    pending = jnp.concatenate([waiting, added[None]])
    column = jnp.append(first_waiting + length * second_waiting, length * remaining)
    coupling = jnp.concatenate([krylov.coupling[1:], jnp.zeros_like(krylov.coupling[:1])]).at[:, j].set(column)
    projected = krylov.projected.at[j].set(krylov.coupling[0]).at[:, j].set(first + length * second)
    return Krylov(basis, projected, pending, coupling, j + 1, scale, key)


def _project_on_both(basis: Array, waiting: Array, vector: Array, count: Array) -> tuple[Array, Array, Array]:
    """The coefficients of `vector` in the rows of the basis and in the waiting rows, and its part outside both."""
    inside, rest = _project(basis, vector, count)
    along = waiting @ rest
    return inside, along, rest - along @ waiting


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


def _safe_norm(vector: Array, axis: int | None = None) -> Array:
    """Euclidean norm, without overflow of the squares."""
    most = jnp.max(jnp.abs(vector))
    unit = jnp.where((most > 0) & jnp.isfinite(most), most, 1)
    return unit * jnp.linalg.norm(vector / unit, axis=axis)


def extreme_symmetric(
    apply: Operator,
    size: int,
    k: int,
    key: Key,
    dtype: DTypeLike,
    tolerance: Numeric,
    depth: int,
    which: str = "largest",
) -> Spectrum:
    """The k outermost eigenvalues of a symmetric operator on vectors (size,), and their vectors, by block Lanczos.

    The largest in descending order, the smallest in ascending order, or both, the k largest before the k smallest, in
    descending order.
    """
    sign = -1 if which == "smallest" else 1
    count = 2 * k if which == "both" else k

    def pick(krylov: Krylov, pairs: tuple[Array, ...]) -> tuple[Array, ...]:
        top = tuple(x[-k:][::-1] for x in pairs)
        if which != "both":
            return top
        lowest = (depth - krylov.count + jnp.arange(k))[::-1]  # unused rows come first
        return tuple(jnp.concatenate([x, y[lowest]]) for x, y in zip(top, pairs, strict=True))

    def is_unfinished(krylov: Krylov) -> Array:
        _, residuals = pick(krylov, ritz_pairs(krylov)[:2])
        finished = jnp.all(residuals <= tolerance * krylov.scale) & (krylov.count >= count)
        return (krylov.count < krylov.basis.shape[0]) & ~finished

    signed = apply if sign == 1 else lambda v: -apply(v)
    krylov = start_krylov(size, depth, k, key, dtype)
    krylov = jax.lax.while_loop(is_unfinished, lambda old: extend(signed, old, 0.1 * tolerance), krylov)
    values, residuals, within = pick(krylov, ritz_pairs(krylov))
    vectors = jnp.where(jnp.arange(depth)[:, None] < krylov.count, krylov.basis, 0)
    return Spectrum(sign * values, residuals, residuals <= tolerance * krylov.scale, krylov.count, within @ vectors)


_FEW = 16  # rows of a small projection; eigenvalues of 64 rows at each step took as long as products for 100,000 params


def ritz_pairs(krylov: Krylov) -> tuple[Array, Array, Array]:
    """Eigenvalues of the projection, ascending, their residuals, and their vectors as rows; unused rows come first."""
    depth = len(krylov.projected)

    def within(size: int) -> tuple[Array, Array, Array]:
        used = jnp.arange(size) < krylov.count
        inside = jnp.where(used[:, None] & used[None, :], krylov.projected[:size, :size], 0)
        inside = 0.5 * (inside + inside.T)
        # a padding of zeros would be the top of a negative spectrum
        below = -2 * jnp.max(jnp.sum(jnp.abs(inside), axis=1))
        padded = inside + jnp.diag(jnp.where(used, 0, below))
        values, vectors = jax.lax.platform_dependent(padded, cpu=_eigh_one_by_one, default=_eigh)
        unused = jnp.full((depth - size,), below)
        outside = jnp.where(used, krylov.coupling[:, :size], 0) @ vectors
        residuals = _safe_norm(outside, axis=0) if len(outside) > 1 else jnp.abs(outside[0])
        rows = jnp.zeros((depth, depth), vectors.dtype).at[depth - size :, :size].set(vectors.T)
        return jnp.append(unused, values), jnp.append(jnp.zeros_like(unused), residuals), rows

    few = min(_FEW, depth)
    return jax.lax.cond(krylov.count <= few, lambda: within(few), lambda: within(depth))


def _eigh(matrix: Array) -> tuple[Array, Array]:
    values, vectors = jnp.linalg.eigh(matrix)
    return values, vectors


# On CPU, eigh of a batch is distributed over the threads that run the program and blocks one of them meanwhile: two
# programs side by side, as in a sweep, each block one and wait forever (jaxlib 0.10's ParallelBatchMap, on two cores).
_eigh_one_by_one = jax.custom_batching.sequential_vmap(_eigh)
