"""Sharpness in norms other than the Euclidean, which limits sign descent and descent in spectral norms.

Steepest descent in a norm steps by −η ‖g‖* d, where d has norm 1 and ⟨g, d⟩ = ‖g‖*, the dual norm of the gradient:
d is along the gradient for ℓ₂, its signs for ℓ∞, the orthogonal factor UVᵀ of each matrix for the spectral norm. The
loss changes by −η ‖g‖*² (1 − η D / 2), where D is the directional smoothness along the step, and D is at most the
largest ⟨d, Hd⟩ of any d of norm 1 on the way: the generalized sharpness, with the threshold 2/η (Islamov, Crawshaw,
Cohen and Gower, Non-Euclidean gradient descent operates at the edge of stability, 2026; Mishkin et al., Directional
smoothness and gradient methods, 2024). The normalized methods, sign descent and Muon without momentum, step by −η d, so
that their threshold is 2 ‖g‖* / η.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from gdkit import binding, checks
from gdkit.problems import Problem
from gdkit.stability.curvature import find_curvature
from gdkit.stability.dynamic_state import widen
from gdkit.stability.krylov import Operator, extreme_symmetric
from gdkit.types import Array, Key, Params, PyTree

NORMS = ("l2", "linf", "spectral")


class GeneralizedSharpness(NamedTuple):
    """The largest ⟨d, Hd⟩ over directions d of norm 1, between a value that is attained and a bound."""

    value: Array  # () of the best direction that was found
    bound: Array  # () that no direction exceeds, if `converged`
    direction: Params  # like the params, of norm 1
    converged: Array  # () bool, whether the search of the direction and the eigenvalue of the bound converged


def generalized_sharpness(
    problem: Problem,
    params: Params,
    norm: str = "l2",
    *,
    batch: PyTree = None,
    aux: PyTree = (),
    key: int | Key = 0,
    starts: int = 16,
    iterations: int = 64,
) -> GeneralizedSharpness:
    """The largest curvature ⟨d, Hd⟩ over directions d of norm 1: the sharpness of steepest descent in this norm.

    For ℓ₂ it is `sharpness`. For ℓ∞ it is the maximum of a quadratic form over signs, for the spectral norm over
    orthogonal matrices: the exact maximum is NP-hard. The value is a lower bound, the best of several ascents
    d ← argmax ⟨d', (H + cI) d⟩ over d' of norm 1 (the conditional gradient method), from the top eigenvector and from
    random starts, with c such that no step descends; more starts find better maxima where H has negative eigenvalues.
    The upper bound is λ_max(C^(−½) H C^(−½)) times the largest ⟨d, Cd⟩ of norm 1, for diagonal C: the lower one of
    equal weights and of the weights d·Hd of the best direction, which are the best where the semidefinite relaxation
    is tight.

    Args:
      problem, params, batch, aux, key: as in `sharpness`.
      norm: "l2"; "linf", the largest magnitude of a param; or "spectral", the largest spectral norm of a leaf, where a
        vector is a matrix of one column, and a leaf of more dimensions is one of as many columns as its last.
      starts: ascents, at least 1.
      iterations: most products per ascent and per eigenvalue.

    Returns:
      The value and the bound in units of loss per squared unit of the norm; for ℓ₂ they differ by the residual.

    Raises:
      InputTypeError, InputValueError: as `sharpness`; an unknown norm; `starts` or `iterations` below 1.

    >>> from gdkit import problems
    >>> found = generalized_sharpness(problems.quadratic([1.0, 4.0, 9.0]), jnp.ones(3), "linf")
    >>> round(float(found.value), 2), round(float(found.bound), 2)  # of a diagonal matrix: its trace
    (14.0, 14.0)
    """
    checks.check_choice("norm", norm, NORMS)
    checks.check_integer("starts", starts)
    checks.check_integer("iterations", iterations)
    product, vector, unravel = find_curvature(problem, params, "hessian", batch, aux)
    first, second = jax.random.split(checks.as_key(key))
    depth = min(vector.size, iterations)
    search = lambda apply: extreme_symmetric(apply, vector.size, 1, first, vector.dtype, 1e-4, depth)
    top = search(product)
    most = top.values[0] + top.residuals[0]
    if norm == "l2":
        return GeneralizedSharpness(top.values[0], most, unravel(top.vectors[0]), top.converged[0])
    least = search(lambda v: -product(v))  # the largest eigenvalue of −H
    shift = jnp.maximum(least.values[0] + least.residuals[0], 0)  # H + shift · I has no negative eigenvalue
    others = jax.random.normal(second, (starts - 1, vector.size), vector.dtype)
    steepest = lambda v: _steepest(norm, v, unravel)[0]
    climb = lambda start: _ascend(product, steepest, shift, start, iterations)
    directions, values, rested = jax.lax.map(climb, jnp.concatenate([top.vectors, others]))
    best = jnp.argmax(jnp.where(jnp.isfinite(values), values, -jnp.inf))
    direction, value = directions[best], values[best]
    caps = _compute_caps(norm, unravel(vector))
    gains = _share_leaves(norm, direction * product(direction), unravel) / caps
    weights = jnp.maximum(gains, 1e-3 * jnp.abs(value) / jnp.sum(caps))
    root = jax.lax.rsqrt(weights)
    scaled = search(lambda v: root * product(root * v))
    weighted = jnp.maximum(scaled.values[0] + scaled.residuals[0], 0) * jnp.sum(weights * caps)
    bound = jnp.fmin(jnp.maximum(most, 0) * jnp.sum(caps), weighted)
    converged = rested[best] & top.converged[0] & scaled.converged[0]
    return GeneralizedSharpness(value, jnp.maximum(bound, value), unravel(direction), converged)


def dual_norm(gradient: Params, norm: str = "l2") -> Array:
    """The dual norm ‖g‖* of a gradient: ℓ₂ of ℓ₂, ℓ₁ of ℓ∞, and the sum of nuclear norms of leaves of "spectral".

    Raises:
      InputValueError: an unknown norm.

    >>> dual_norm(jnp.array([3.0, -4.0]), "linf").tolist()
    7.0
    """
    checks.check_choice("norm", norm, NORMS)
    vector, unravel = ravel_pytree(gradient)
    return _steepest(norm, vector, unravel)[1]


def directional_smoothness(
    problem: Problem, params: Params, update: Params, norm: str = "l2", *, batch: PyTree = None, aux: PyTree = ()
) -> Array:
    """The exact curvature D along an update: 2 (L(x + u) − L(x) − ⟨∇L(x), u⟩) / ‖u‖².

    Steepest descent in the norm lowers the loss if and only if D < 2/η; the normalized methods if D < 2 ‖g‖* / η. On a
    quadratic it is ⟨u, Hu⟩ / ‖u‖². It is a difference of losses, with their rounding.

    Args:
      problem, params, norm, batch, aux: as in `generalized_sharpness`.
      update: u, like the params; not zero.

    Raises:
      InputTypeError, InputValueError: as `generalized_sharpness`.

    >>> from gdkit import problems
    >>> directional_smoothness(problems.quadratic([1.0, 4.0]), jnp.ones(2), jnp.array([0.5, -0.5]), "linf").tolist()
    5.0
    """
    checks.check_choice("norm", norm, NORMS)
    checks.check_floats("params", params)
    checks.check_floats("update", update)
    params, update, batch, aux = widen(params, update, problem.data if batch is None else batch, aux)
    loss = binding.objective(problem, None, batch, aux)
    value, gradient = jax.value_and_grad(lambda params: loss(params)[0])(params)
    after = loss(jax.tree.map(jnp.add, params, update))[0]
    slope = sum(jax.tree.leaves(jax.tree.map(jnp.vdot, gradient, update)))
    return 2 * (after - value - slope) / _norm(norm, update) ** 2


def _ascend(
    product: Operator, steepest: Operator, shift: Array, start: Array, iterations: int
) -> tuple[Array, Array, Array]:
    """The end of an ascent of ⟨d, Hd⟩, its value, and whether it converged."""

    def climb(old: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        count, direction, pushed, _ = old
        slope = pushed + shift * direction
        new = steepest(slope)
        return count + 1, new, product(new), slope @ (new - direction) <= 1e-5 * jnp.abs(slope @ new)

    first = steepest(product(start) + shift * start)
    begin = jnp.int32(1), first, product(first), jnp.bool_(False)
    _, direction, pushed, rests = jax.lax.while_loop(lambda now: (now[0] < iterations) & ~now[3], climb, begin)
    return direction, direction @ pushed, rests


def _steepest(norm: str, vector: Array, unravel: Callable[[Array], Params]) -> tuple[Array, Array]:
    """The direction of norm 1 with the largest product with `vector`, (n,), and this product, the dual norm."""
    if norm == "l2":
        length = jnp.linalg.norm(vector)
        return vector / jnp.where(length > 0, length, 1), length
    if norm == "linf":
        return jnp.where(vector >= 0, 1.0, -1.0).astype(vector.dtype), jnp.sum(jnp.abs(vector))

    def orthogonalize(leaf: Array) -> Array:
        left, _, right = _svd_one_by_one(_as_matrix(leaf))
        return (left @ right).reshape(leaf.shape)

    direction = ravel_pytree(jax.tree.map(orthogonalize, unravel(vector)))[0]
    return direction, direction @ vector


def _norm(norm: str, tree: Params) -> Array:
    vector, _ = ravel_pytree(tree)
    if norm == "l2":
        return jnp.linalg.norm(vector)
    if norm == "linf":
        return jnp.max(jnp.abs(vector))
    return jnp.max(jnp.stack([_svd_one_by_one(_as_matrix(leaf))[1][0] for leaf in jax.tree.leaves(tree)]))


def _as_matrix(leaf: Array) -> Array:
    return leaf.reshape(-1, leaf.shape[-1] if leaf.ndim > 1 else 1)


# One lane at a time, for the reason given at _eigh_one_by_one in krylov.py.
_svd_one_by_one = jax.custom_batching.sequential_vmap(lambda matrix: jnp.linalg.svd(matrix, full_matrices=False))


def _compute_caps(norm: str, params: Params) -> Array:
    """Caps (n,) such that Σ cᵢ dᵢ² ≤ Σ cᵢ · capᵢ for d of norm 1 and weights c that are equal within a matrix."""
    if norm == "linf":
        return jnp.ones_like(ravel_pytree(params)[0])
    share = lambda leaf: jnp.full(leaf.shape, min(_as_matrix(leaf).shape) / leaf.size, leaf.dtype)
    return ravel_pytree(jax.tree.map(share, params))[0]


def _share_leaves(norm: str, gains: Array, unravel: Callable[[Array], Params]) -> Array:
    """Gains (n,), for the spectral norm averaged over each leaf."""
    if norm == "linf":
        return gains
    return ravel_pytree(jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.mean(leaf)), unravel(gains)))[0]
