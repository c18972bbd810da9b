"""The spectrum of a matrix of second derivatives as a whole: its trace, and the density of its eigenvalues."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gdkit import checks
from gdkit.problems import Problem
from gdkit.stability.curvature import find_curvature
from gdkit.stability.krylov import Operator, extend, ritz_pairs, start_krylov
from gdkit.types import Array, Key, Params, PyTree

_LEAST_PRODUCTS = 6  # two that find the range, two for the trace within it, two for the rest


class Trace(NamedTuple):
    """An estimate of a trace."""

    value: Array  # ()
    error: Array  # () its standard error; 0 where the value is exact
    products: int  # number of products with the matrix


class SpectralDensity(NamedTuple):
    """The density of eigenvalues by stochastic Lanczos quadrature: nodes, and the share of all eigenvalues at each."""

    nodes: Array  # (probes, depth) Ritz values, ascending
    weights: Array  # (probes, depth), the sum over depth is 1
    size: int  # number of eigenvalues

    def moment(self, power: int) -> tuple[Array, Array]:
        """The mean of λ to `power` over all eigenvalues, and its standard error; `power` is at most 2 · depth − 1."""
        return _mean(jnp.sum(self.weights * self.nodes**power, axis=1))

    def count_above(self, value: float | Array) -> tuple[Array, Array]:
        """The number of eigenvalues above `value`, and its standard error."""
        mean, error = _mean(jnp.sum(self.weights * (self.nodes > value), axis=1))
        return self.size * mean, self.size * error

    def density(self, points: Array | np.ndarray, *, width: float | None = None) -> Array:
        """The share of eigenvalues per unit at `points`, (points,): a normal density around each node.

        `width` is its standard deviation; None for a hundredth of the range of the nodes.
        """
        nodes, weights = self.nodes.ravel(), self.weights.ravel() / len(self.nodes)
        spread = jnp.max(nodes) - jnp.min(nodes)
        scale = jnp.where(spread > 0, spread / 100, 1.0) if width is None else width
        kernel = jnp.exp(-0.5 * ((jnp.asarray(points)[:, None] - nodes[None, :]) / scale) ** 2)
        return kernel @ weights / (scale * jnp.sqrt(2 * jnp.pi))


def trace(
    problem: Problem,
    params: Params,
    *,
    matrix: str = "hessian",
    products: int = 48,
    batch: PyTree = None,
    aux: PyTree = (),
    key: int | Key = 0,
) -> Trace:
    """The trace of the Hessian or of the Gauss-Newton matrix, by Hutch++ (Meyer, Musco, Musco and Woodruff 2021).

    A third of the products finds the range of the outermost eigenvalues, a third their trace exactly, and a third the
    trace of what is left by Hutchinson's estimator. The error falls with the number of products, not its root, where
    few eigenvalues dominate. With as many products as params the trace is exact.

    Args:
      problem, params, batch, aux, key: as in `sharpness`.
      matrix: "hessian" or "gauss_newton".
      products: matrix-vector products, at least 6.

    Returns:
      The trace, in units of loss per squared param, and its standard error.

    Raises:
      InputTypeError, InputValueError: as `curvature_product`; `products` is not an integer of at least 6.

    >>> from gdkit import problems
    >>> trace(problems.quadratic([1.0, 4.0, 9.0]), jnp.ones(3)).value.tolist()
    14.0
    """
    checks.check_integer("products", products, at_least=_LEAST_PRODUCTS)
    product, vector, _ = find_curvature(problem, params, matrix, batch, aux)
    if vector.size <= products:
        diagonal = jax.lax.map(lambda row: row @ product(row), jnp.eye(vector.size, dtype=vector.dtype))
        return Trace(jnp.sum(diagonal), jnp.zeros((), vector.dtype), vector.size)
    return _estimate_trace(product, vector.size, products // 3, checks.as_key(key), vector.dtype)


def _estimate_trace(product: Operator, size: int, third: int, key: Key, dtype: jnp.dtype) -> Trace:
    first, second = jax.random.split(key)
    signs = jax.random.rademacher(first, (third, size), dtype)
    basis = _orthonormalize(jax.lax.map(product, signs))
    within = jnp.sum(jax.lax.map(lambda q: q @ product(q), basis))

    def sample(signs: Array) -> Array:
        rest = signs - (basis @ signs) @ basis
        return rest @ product(rest)

    mean, error = _mean(jax.lax.map(sample, jax.random.rademacher(second, (third, size), dtype)))
    return Trace(within + mean, error, 3 * third)


def _orthonormalize(rows: Array) -> Array:
    """An orthonormal basis of the span of `rows`, (m, n); rows that depend on others become zero."""

    def orthonormalize(i: Array, rows: Array) -> Array:
        vector = rows[i]
        before = jnp.linalg.norm(vector)
        for _ in range(2):
            vector = vector - jnp.where(jnp.arange(len(rows)) < i, rows @ vector, 0) @ rows
        after = jnp.linalg.norm(vector)
        independent = after > 32 * jnp.finfo(rows.dtype).eps * before
        return rows.at[i].set(jnp.where(independent, vector / jnp.where(independent, after, 1), 0))

    return jax.lax.fori_loop(0, len(rows), orthonormalize, rows)


def _mean(samples: Array) -> tuple[Array, Array]:
    """The mean of samples (m,), and its standard error; NaN of one sample."""
    return jnp.mean(samples), jnp.std(samples, ddof=1) / jnp.sqrt(len(samples))


def spectral_density(
    problem: Problem,
    params: Params,
    *,
    matrix: str = "hessian",
    probes: int = 8,
    depth: int = 48,
    batch: PyTree = None,
    aux: PyTree = (),
    key: int | Key = 0,
) -> SpectralDensity:
    """The density of all eigenvalues of the Hessian or of the Gauss-Newton matrix, by stochastic Lanczos quadrature.

    From each random unit vector, `depth` Lanczos steps with full reorthogonalization give the Gauss quadrature of its
    spectral measure, whose mean over vectors is the density of eigenvalues (Ghorbani, Krishnan and Xiao, An
    investigation into neural net optimization via Hessian eigenvalue density, 2019; Golub and Welsch 1969).

    Args:
      problem, params, batch, aux, key: as in `sharpness`.
      matrix: "hessian" or "gauss_newton".
      probes: random vectors, at least 2.
      depth: products per vector, and rows of (params,) in memory at once. With as many as params the quadrature is
        exact; more are not used.

    Raises:
      InputTypeError, InputValueError: as `curvature_product`; `probes` or `depth` is not an integer in range.

    >>> from gdkit import problems
    >>> found = spectral_density(problems.quadratic([1.0, 4.0, 4.0]), jnp.ones(3), depth=3, probes=64)
    >>> mean, error = found.moment(1)
    >>> bool(abs(mean - 3.0) < 3 * error), float(found.count_above(5.0)[0])
    (True, 0.0)
    """
    checks.check_integer("probes", probes, at_least=2)
    checks.check_integer("depth", depth)
    product, vector, _ = find_curvature(problem, params, matrix, batch, aux)
    depth = min(depth, vector.size)

    def measure(key: Key) -> tuple[Array, Array]:
        start = start_krylov(vector.size, depth, 1, key, vector.dtype)
        values, _, vectors = ritz_pairs(jax.lax.fori_loop(0, depth, lambda _, old: extend(product, old), start))
        return values, vectors[:, 0] ** 2

    nodes, weights = jax.lax.map(measure, jax.random.split(checks.as_key(key), probes))
    return SpectralDensity(nodes, weights, vector.size)
