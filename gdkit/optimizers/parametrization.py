"""Maximal update parametrization (μP)."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from gdkit.checks import check_choice
from gdkit.errors import bad_type, bad_value
from gdkit.types import Optimizer, OptimizerFactory, Params


def mup(optimizer: OptimizerFactory, base: Params, rule: str) -> OptimizerFactory:
    """The factory `optimizer` with the steps of maximal update parametrization (μP).

    Under μP the best learning rate does not depend on the width. The update of a leaf is multiplied by 1/rᵢ with the
    rule ``"adam"``, for optimizers whose step does not grow with the gradient, and by rₒ/rᵢ with ``"sgd"``. Here rₒ is
    the ratio of the last dimension of the leaf, its outputs, to that in `base`, and rᵢ the ratio of the dimension
    before, its inputs (1 for a bias). With Adam, the steps of input weights and biases do not depend on the width, and
    those of hidden and output weights go as 1/width; with gradient descent, those of input weights and biases go as
    width, those of hidden weights do not depend on it, and those of output weights go as 1/width.

    Weights must be initialized accordingly, output weights with a standard deviation of 1/width or at 0, as
    `gdkit.problems.mlp` does with `zero_last`. At the base width nothing changes. Weight decay that is part of the
    update is scaled with it. Yang et al., Tensor Programs V, 2022, table 3.

    Args:
      optimizer: an optimizer factory.
      base: params of the same model at the base width, or ``jax.eval_shape(init, key)`` of it; weights
        are (inputs, outputs).
      rule: "adam" or "sgd".

    Raises:
      InputValueError: an unknown rule. On update: params with leaves of another number of dimensions than `base`.
      InputTypeError: on update: params of another structure than `base`.

    >>> wide = mup(sgd, [jnp.zeros((4, 2)), jnp.zeros(2)], "sgd")(learning_rate=1.0)
    >>> updates, _ = wide.update([jnp.ones((4, 6)), jnp.ones(6)], wide.init(None))
    >>> [float(update.min()) for update in updates]
    [-3.0, -3.0]
    """
    check_choice("rule", rule, ("adam", "sgd"))

    def scale(updates: Params, params: Params | None = None) -> Params:
        if jax.tree.structure(updates) != jax.tree.structure(base):
            remedy = "Pass params of the same model at another width"
            raise bad_type("base", jax.tree.structure(base), "its structure is not that of the params", remedy)
        return jax.tree.map(
            lambda update, base: update * _mup_factor(update.shape, jnp.shape(base), rule), updates, base
        )

    @functools.wraps(optimizer)
    def scaled(**hyperparameters: Any) -> Optimizer:
        inner: Any = optimizer(**hyperparameters)
        return optax.chain(inner, optax.stateless(scale))

    return scaled


def _mup_factor(shape: tuple[int, ...], base: tuple[int, ...], rule: str) -> float:
    if len(shape) != len(base):
        raise bad_value("base", base, f"a leaf of the params is of shape {shape}", "Pass params of the same model")
    ratios = [1.0, 1.0, *(wide / narrow for wide, narrow in zip(shape, base, strict=True))]
    return (ratios[-1] if rule == "sgd" else 1.0) / ratios[-2]
