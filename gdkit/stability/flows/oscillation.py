"""One substep of a central flow: the top eigenvectors, the covariance of the oscillation along them, and the motion."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gdkit.stability.flows import complementarity
from gdkit.stability.preconditioners import Preconditioner
from gdkit.types import Array, PyTree


class Flow(NamedTuple):
    """What a substep moves."""

    vector: Array  # (n,), the params
    moments: Array  # (m,), second moments, the coming step's gradient included
    opt_state: PyTree  # with the counts of the coming step
    directions: Array  # (b, n), the top eigenvectors of P^-½ H P^-½, orthonormal


class Point(NamedTuple):
    """What is recorded at the start of a substep."""

    loss: Array
    predicted_loss: Array
    sharpness: Array
    covariance: Array
    edge: Array
    outside: Array  # () the next eigenvalue, which the flow does not hold
    eigenvectors: Array


class System(NamedTuple):
    """The functions of a central flow."""

    loss: Callable[[Array], Array]  # params (n,) -> ()
    preconditioner: Preconditioner
    rate: Array  # () η of the optimizer with second moments

    def velocity(self, flow: Flow, push: Array, source: Array) -> tuple[Array, Array]:
        """The derivatives of params and second moments, with the force and the moments that the oscillation adds."""
        gradient = jax.grad(self.loss)(flow.vector)
        average = self.preconditioner.update(gradient, flow.moments, flow.opt_state)[1]
        relax = (average - flow.moments) / self.preconditioner.decay(flow.opt_state)
        return -self.preconditioner.inverse(flow.moments, flow.opt_state) * (gradient + push), relax + source


_ROUNDS = 3  # of products per refinement


def find_directions(system: System, vector: Array, inverse: Array, starts: Array) -> tuple[Array, Array]:
    """The top eigenvalues (b,) of P^-½ H P^-½, descending, and their orthonormal vectors (b, n).

    By the Rayleigh-Ritz method in the block Krylov space of `starts`, (b, n), which are orthonormal.
    """
    root = jnp.sqrt(inverse)[:, None]
    _, curved = jax.linearize(jax.grad(system.loss), vector)
    product = lambda columns: root * jax.vmap(curved, in_axes=1, out_axes=1)(root * columns)
    basis = starts.T
    images = product(basis)
    for _ in range(_ROUNDS - 1):
        known = basis.shape[1]
        added = jnp.linalg.qr(jnp.concatenate([basis, images[:, -len(starts) :]], axis=1))[0][:, known:]
        if added.shape[1] == 0:
            break
        basis, images = jnp.concatenate([basis, added], 1), jnp.concatenate([images, product(added)], 1)
    inside = basis.T @ images
    values, rows = jnp.linalg.eigh(0.5 * (inside + inside.T))
    # orthonormal again: rounding would grow from step to step
    vectors, _ = jnp.linalg.qr(basis @ rows[:, ::-1][:, : len(starts)])
    return values[::-1][: len(starts)], vectors.T


def advance(system: System, flow: Flow, k: int, dt: float) -> tuple[Flow, Point]:
    """The flow after a substep, and what is recorded at its start."""
    inverse = system.preconditioner.inverse(flow.moments, flow.opt_state)
    values, directions = find_directions(system, flow.vector, inverse, flow.directions)
    outside = values[k] if len(values) > k else -jnp.inf
    values, vectors = values[:k], jnp.sqrt(inverse)[None] * directions[:k]  # uᵢᵀ P uⱼ = 1 for i = j, else 0
    none = jnp.zeros((k, k), inverse.dtype), jnp.zeros_like(flow.vector), jnp.zeros_like(flow.moments)
    oscillate = lambda: _find_oscillation(system, flow, values, vectors, inverse, dt)
    covariance, push, source = jax.lax.cond(values[0] > _NEAR_EDGE, oscillate, lambda: none)
    vector, moments = _runge_kutta(lambda flow: system.velocity(flow, push, source), flow, dt)
    has_moments = bool(system.preconditioner.places)
    rate = system.rate if has_moments else inverse[0]
    loss = system.loss(flow.vector)
    predicted = loss + 0.5 * jnp.vdot(jnp.diagonal(covariance), values)
    point = Point(loss, predicted, values / rate, rate * covariance, 2 / rate, outside / rate, vectors / jnp.sqrt(rate))
    return Flow(vector, moments, flow.opt_state, directions), point


_NEAR_EDGE = 1.9  # an eigenvalue of P⁻¹H from which it counts as near the edge, 2


def _runge_kutta(velocity: Callable[[Flow], tuple[Array, Array]], flow: Flow, dt: float) -> tuple[Array, Array]:
    """Params and second moments after a substep, by the classical Runge-Kutta method of order 4."""
    state = flow.vector, flow.moments
    move = lambda share, slope: tuple(x + share * dt * v for x, v in zip(state, slope, strict=True))

    def stage(carry: tuple[Any, Any], shares: Array) -> tuple[tuple[Any, Any], None]:
        vector, moments = move(shares[0], carry[0])
        slope = velocity(flow._replace(vector=vector, moments=moments))
        return (slope, jax.tree.map(lambda total, v: total + shares[1] * v, carry[1], slope)), None

    nothing = jax.tree.map(jnp.zeros_like, state)
    shares = jnp.array([[0.0, 1 / 6], [0.5, 1 / 3], [0.5, 1 / 3], [1.0, 1 / 6]], flow.vector.dtype)
    (_, mean), _ = jax.lax.scan(stage, (nothing, nothing), shares)  # a loop compiles one stage
    return move(1, mean)


def _find_oscillation(
    system: System, flow: Flow, values: Array, vectors: Array, inverse: Array, dt: float
) -> tuple[Array, Array, Array]:
    """The covariance X (k, k) in the basis of `vectors`, and the force and second moments that it adds.

    X is such that at the end of the substep, to first order, 2P − H is positive semidefinite in the space of `vectors`
    and vanishes where X does not.
    """
    rows, columns, weights = complementarity.pairs(len(values))
    weights, preconditioner = jnp.asarray(weights, inverse.dtype), system.preconditioner
    curvature = lambda x, u, v: jax.jvp(lambda x: jax.jvp(system.loss, (x,), (u,))[1], (x,), (v,))[1]
    bend = jax.vmap(jax.grad(curvature), in_axes=(None, 0, 0))
    slopes = weights[:, None] * bend(flow.vector, vectors[rows], vectors[columns])  # (pairs, n), of uᵢᵀ H uⱼ
    forces = 2 * vectors / inverse[None]  # H u = 2 P u at the edge, the change of the gradient along u
    product = lambda u, v: preconditioner.products(u, v, flow.opt_state) / preconditioner.decay(flow.opt_state)
    sources = weights[:, None] * jax.vmap(product)(forces[rows], forces[columns])  # (pairs, m)

    def stiffen(change: Array) -> Array:
        """The change (pairs,) of P in the basis, for a change of the second moments (m,)."""
        respond = lambda nu: 1 / preconditioner.inverse(nu, flow.opt_state)
        return weights * ((vectors[rows] * vectors[columns]) @ jax.jvp(respond, (flow.moments,), (change,))[1])

    nothing = jnp.zeros_like(flow.vector), jnp.zeros_like(flow.moments)
    stable, relax = system.velocity(flow, *nothing)
    start = complementarity.to_vector(jnp.diag(2 - values))
    a = start + dt * (2 * stiffen(relax) - slopes @ stable)
    b = dt * (2 * jax.vmap(stiffen, out_axes=1)(sources) + 0.5 * slopes @ (inverse[None] * slopes).T)
    covariance = complementarity.solve_complementarity(a, b, len(values))
    x = complementarity.to_vector(covariance)
    return covariance, 0.5 * x @ slopes, x @ sources
