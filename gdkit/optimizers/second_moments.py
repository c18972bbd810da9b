"""Optimizers that differ from those of optax in their second moments: one for all params, or another start."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gdkit.errors import bad_type
from gdkit.types import Array, Optimizer, OptimizerFactory, Params, PyTree


class ScalarRmsState(NamedTuple):
    """The state of scalar_rmsprop."""

    nu: Array  # () mean squared norm of the gradients
    count: Array  # () int32


def scalar_rmsprop(
    learning_rate: float | Array | Callable[[Array], Array],
    decay: float | Array = 0.9,
    eps: float | Array = 1e-8,
    initial_scale: float | Array = 0.0,
) -> optax.GradientTransformation:
    """RMSProp with one second moment for all params: −η g / (√ν + ε), where ν is a running mean of ‖g‖².

    It divides by a length, so that its path does not depend on the coordinates (Cohen et al., Understanding
    optimization in deep learning with central flows, 2025; β₂ there is `decay`).

    Args:
      learning_rate: η, a number or a schedule ``count -> η``.
      decay: of the mean.
      eps: ε.
      initial_scale: ν at the start.

    >>> optimizer = scalar_rmsprop(0.5, decay=0.0)
    >>> updates, _ = optimizer.update(jnp.array([3.0, 4.0]), optimizer.init(jnp.zeros(2)))
    >>> [round(float(x), 3) for x in updates]
    [-0.3, -0.4]
    """

    def init(params: Params) -> ScalarRmsState:
        dtype = jnp.result_type(*jax.tree.leaves(params))
        return ScalarRmsState(jnp.asarray(initial_scale, dtype), jnp.zeros((), jnp.int32))

    def update(updates: Params, state: Any, params: Params | None = None) -> tuple[Params, ScalarRmsState]:
        square = jnp.asarray(optax.tree.norm(updates, squared=True), state.nu.dtype)
        nu = (decay * state.nu + (1 - decay) * square).astype(state.nu.dtype)
        rate: Any = learning_rate(state.count) if callable(learning_rate) else learning_rate
        moved = jax.tree.map(lambda g: (-rate * g / (jnp.sqrt(nu) + eps)).astype(g.dtype), updates)
        return moved, ScalarRmsState(nu, jnp.asarray(optax.safe_increment(state.count)))

    return optax.GradientTransformation(init, update)


class GradientInitializedState(NamedTuple):
    """The state of an optimizer whose second moments start at the first gradient's squares."""

    inner: PyTree
    count: Array  # () int32, up to 1: whether the first gradient has been seen


def gradient_initialized(optimizer: OptimizerFactory) -> OptimizerFactory:
    """A factory of the same optimizer whose second moments start at the squares of the first gradient: GI-Adam.

    Adam's start at zero; its bias correction then makes the first steps as large as all others, while the
    preconditioned sharpness is at its highest. Started at g², the corrected second moment is about g² / (1 − β₂ᵗ), so
    that the steps rise like √(1 − β₂ᵗ): a warm-up of about 1 / (1 − β₂) steps, without further hyperparameters (Kalra
    and Barkeshli, Why warmup the learning rate? Underlying mechanisms and improvements, 2024).

    Args:
      optimizer: a factory such as ``optax.adam``, whose state has second moments ``nu`` like the params.

    Raises:
      InputTypeError: it is not a factory, or its state has no second moments.

    >>> optimizer = gradient_initialized(optax.adam)(learning_rate=1.0, b2=0.99)
    >>> updates, _ = optimizer.update(jnp.float32(3.0), optimizer.init(jnp.float32(0.0)))
    >>> round(float(updates), 4)  # −√(1 − 0.99)
    -0.1
    """

    if not callable(optimizer):
        raise bad_type("optimizer", optimizer, "not a factory of optimizers", "Pass for example optax.adam")

    @functools.wraps(optimizer)
    def initialized(*arguments: Any, **hyperparameters: Any) -> Optimizer:
        given: Any = optimizer(*arguments, **hyperparameters)
        return _initialize(optax.with_extra_args_support(given))

    return initialized


def _initialize(inner: optax.GradientTransformationExtraArgs) -> optax.GradientTransformationExtraArgs:
    def init(params: Params) -> GradientInitializedState:
        state = inner.init(params)
        shapes = lambda tree: (jax.tree.structure(tree), [jnp.shape(leaf) for leaf in jax.tree.leaves(tree)])
        if [shapes(nu) for _, nu in optax.tree.get_all_with_path(state, "nu")] != [shapes(params)]:
            problem = "its state has no second moments nu like the params"
            raise bad_type("optimizer", type(state).__name__, problem, "Pass for example optax.adam")
        return GradientInitializedState(state, jnp.zeros((), jnp.int32))

    def update(updates: Params, state: Any, params: Params | None = None, **extra: Any) -> tuple[Params, Any]:
        old = optax.tree.get(state.inner, "nu")
        first = jax.tree.map(lambda nu, g: jnp.where(state.count == 0, (g * g).astype(nu.dtype), nu), old, updates)
        updates, after = inner.update(updates, optax.tree.set(state.inner, nu=first), params, **extra)
        return updates, GradientInitializedState(after, jnp.ones_like(state.count))

    return optax.GradientTransformationExtraArgs(init, update)
