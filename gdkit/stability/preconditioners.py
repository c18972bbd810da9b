"""Optimizers that step by −P⁻¹ ∇L, where the diagonal P is constant, or depends on running means of squared gradients.

Gradient descent, RMSProp, its scalar form, and Adam without momentum are of this form. P and the means are computed by
the optimizer's own `update`, whatever library it is from, and compared with it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from gdkit.optimizers import states
from gdkit.types import Array, Optimizer, PyTree, State

_SMALL = 1e-12  # a gradient whose squares are far below all second moments
_LEAST_MOMENT = 1e-20  # the root of a second moment of zero has no derivative


class Preconditioner(NamedTuple):
    """An optimizer's update of vectors; second moments, (m,), are always those that include the step's gradient."""

    optimizer: Optimizer
    state: State  # gives the shapes
    places: tuple[int, ...]  # of the second moments among the leaves of the optimizer's state; () for gradient descent

    def update(self, gradient: Array, moments: Array, opt_state: PyTree) -> tuple[Array, Array, PyTree]:
        """The update (n,), the next second moments (m,), and the next state."""
        _, unravel = ravel_pytree(self.state.params)
        grad = unravel(gradient)
        before = self.with_moments(opt_state, moments)
        value = jnp.zeros((), gradient.dtype)
        moved, after = states.update(
            self.optimizer, grad, before, self.state.params, value=value, value_fn=lambda params: value
        )
        return ravel_pytree(moved)[0], self.get_moments(after), after

    def get_moments(self, opt_state: PyTree) -> Array:
        """The second moments (m,) in a state."""
        leaves = jax.tree.leaves(opt_state)
        return ravel_pytree([leaves[i] for i in self.places])[0].astype(ravel_pytree(self.state.params)[0].dtype)

    def with_moments(self, opt_state: PyTree, moments: Array) -> PyTree:
        """A state with other second moments."""
        leaves, treedef = jax.tree.flatten(opt_state)
        _, unravel = ravel_pytree([leaves[i] for i in self.places])
        new = dict(zip(self.places, unravel(moments), strict=True))
        return jax.tree.unflatten(treedef, [new.get(i, leaf) for i, leaf in enumerate(leaves)])

    def decay(self, opt_state: PyTree) -> Array:
        """The share of each second moment that a step keeps, (m,)."""
        size = self.get_moments(opt_state).size
        gradient = jnp.zeros_like(ravel_pytree(self.state.params)[0])
        return self.update(gradient, jnp.ones((size,), gradient.dtype), opt_state)[1]

    def inverse(self, moments: Array, opt_state: PyTree) -> Array:
        """The diagonal of P⁻¹ at these second moments, (n,)."""
        gradient = jnp.full_like(ravel_pytree(self.state.params)[0], _SMALL)
        # the second moments before a step of this gradient that makes them `moments`
        before = jnp.maximum(moments, _LEAST_MOMENT) - self.update(gradient, jnp.zeros_like(moments), opt_state)[1]
        return -self.update(gradient, before / self.decay(opt_state), opt_state)[0] / _SMALL

    def products(self, left: Array, right: Array, opt_state: PyTree) -> Array:
        """The second moments (m,) that a step adds for the products of two gradients, bilinear in them."""
        none = jnp.zeros_like(self.get_moments(opt_state))
        add = lambda gradient: self.update(gradient, none, opt_state)[1]
        return 0.25 * (add(left + right) - add(left - right))

    def describes(self, opt_state: PyTree, others: tuple[int, ...]) -> Array:
        """Whether the optimizer's update has this form, () bool, tested at random gradients and moments.

        Neither the params nor the leaves of its state at the places `others` may change its update.
        """
        vector, unravel = ravel_pytree(self.state.params)
        keys = jax.random.split(jax.random.key(0), 4)
        draw = lambda key, like: jax.random.normal(key, like.shape, vector.dtype)
        moments = jnp.abs(draw(keys[0], self.get_moments(opt_state)))
        leaves, treedef = jax.tree.flatten(opt_state)
        shifted = [leaf + 1 if i in others else leaf for i, leaf in enumerate(leaves)]
        shifted = jax.tree.unflatten(treedef, shifted)
        moved = self._replace(state=self.state._replace(params=unravel(vector + draw(keys[1], vector))))
        close = lambda x, y: jnp.linalg.norm(x - y) <= 1e-3 * jnp.linalg.norm(y)
        holds = [jnp.bool_(True)]
        for size in (0.01, 1.0, 100.0):
            gradient = size * draw(keys[2], vector)
            update, after, _ = moved.update(gradient, moments, shifted)
            holds += [close(update, -self.inverse(after, opt_state) * gradient)]
            holds += [close(after, self.decay(opt_state) * moments + self.products(gradient, gradient, opt_state))]
        return jnp.all(jnp.stack(holds))
