"""Maximal update parametrization (μP)."""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gdkit.checks import check_choice
from gdkit.errors import bad_type, bad_value
from gdkit.types import Optimizer, OptimizerFactory, Params, PyTree


def mup(optimizer: OptimizerFactory, base: Params, rule: str, *, axes: PyTree = None) -> OptimizerFactory:
    """The factory `optimizer` with the steps of maximal update parametrization (μP).

    Under μP the best learning rate does not depend on the width. The update of a leaf is multiplied by 1/rᵢ with the
    rule ``"adam"``, for optimizers whose step does not grow with the gradient, and by rₒ/rᵢ with ``"sgd"``. Here rₒ is
    the ratio of the number of outputs of the leaf to that in `base`, and rᵢ the ratio of the number of inputs (1 for a
    vector, such as a bias). With Adam, the steps of input weights and biases do not depend on the width, and
    those of hidden and output weights go as 1/width; with gradient descent, those of input weights and biases go as
    width, those of hidden weights do not depend on it, and those of output weights go as 1/width.

    Which dimensions are inputs and which outputs is declared by `axes`, or found by comparison with `base`, where it
    decides: no dimension has grown; the layer has a bias (a leaf beside the kernel that is named ``bias`` or ``b``, or
    follows it in a pair), whose dimensions are the outputs; or two have grown by the same ratio, in a matrix, whose
    other reading has the same factors, or in a kernel of four dimensions or more, a convolution. Otherwise it is an
    error, since (inputs, outputs) and (outputs, inputs) have the same shapes and other factors.

    Weights must be initialized accordingly, output weights with a standard deviation of 1/width or at 0, as
    `gdkit.problems.mlp` does with `zero_last`. At the base width nothing changes. Weight decay that is part of the
    update is scaled with it. Yang et al., Tensor Programs V, 2022, table 3.

    Args:
      optimizer: an optimizer factory.
      base: params of the same model at the base width, or ``jax.eval_shape(init, key)`` of it.
      rule: "adam" or "sgd".
      axes: one letter per dimension of a leaf: i for inputs, o for outputs, - for neither. ``"io"`` is (inputs,
        outputs), ``"oi"`` (outputs, inputs), ``"--io"`` a convolution, ``"ioo"`` a query of attention (width, heads,
        size). A text holds for all leaves of its number of dimensions; a pytree like `base`, or a prefix of it, has a
        text for each leaf or part, and "" where the comparison shall decide. Vectors are outputs.

    Raises:
      InputValueError: an unknown rule. On update: params with leaves of another number of dimensions than `base`, a
        leaf whose inputs and outputs cannot be told, or axes that do not fit it.
      InputTypeError: on update: params of another structure than `base`.

    >>> from gdkit import sgd
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
        factors = _compute_factors(updates, base, _broadcast_axes(axes, base), rule)
        return jax.tree.unflatten(
            jax.tree.structure(updates), [u * f for u, f in zip(jax.tree.leaves(updates), factors, strict=True)]
        )

    @functools.wraps(optimizer)
    def scaled(**hyperparameters: Any) -> Optimizer:
        inner: Any = optimizer(**hyperparameters)
        return optax.chain(inner, optax.stateless(scale))

    return scaled


class _ShapedLeaf(NamedTuple):
    """A leaf of the params beside that of the base."""

    path: tuple[Any, ...]
    wide: tuple[int, ...]
    base: tuple[int, ...]

    @property
    def ratios(self) -> list[float]:
        return [wide / narrow for wide, narrow in zip(self.wide, self.base, strict=True)]


def _broadcast_axes(axes: PyTree, base: Params) -> list[str]:
    """The declared axes of each leaf, empty where there are none."""
    if axes is None or isinstance(axes, str):
        return [axes if axes and len(axes) == jnp.ndim(leaf) else "" for leaf in jax.tree.leaves(base)]
    try:
        return jax.tree.leaves(jax.tree.map(lambda text, part: jax.tree.map(lambda _: text, part), axes, base))
    except ValueError as error:
        raise bad_value(
            "axes", axes, "its structure is not a prefix of that of base", "Pass a text per leaf"
        ) from error


def _compute_factors(updates: Params, base: Params, axes: list[str], rule: str) -> list[float]:
    pairs = zip(jax.tree_util.tree_leaves_with_path(updates), jax.tree.leaves(base), strict=True)
    leaves = [_ShapedLeaf(path, jnp.shape(update), jnp.shape(narrow)) for (path, update), narrow in pairs]
    for leaf in leaves:
        if len(leaf.wide) != len(leaf.base):
            remedy = "Pass params of the same model"
            raise bad_value("base", leaf.base, f"a leaf of the params is of shape {leaf.wide}", remedy)
    sides = [_split_ratios(leaf, letters, leaves) for leaf, letters in zip(leaves, axes, strict=True)]
    return [(r_out if rule == "sgd" else 1.0) / r_in for r_in, r_out in sides]


def _split_ratios(leaf: _ShapedLeaf, letters: Any, leaves: list[_ShapedLeaf]) -> tuple[float, float]:
    """The ratios (inputs, outputs) of a leaf."""
    ratios, grown = leaf.ratios, [ratio for ratio in leaf.ratios if ratio != 1]
    if len(ratios) < 2:
        return 1.0, math.prod(ratios)
    if letters:
        _check_axes(letters, leaf)
        r_in, r_out = (math.prod(r for r, at in zip(ratios, letters, strict=True) if at == side) for side in "io")
        return r_in, r_out
    outputs = _find_outputs(leaf, leaves)
    if outputs is not None:
        r_out = math.prod(ratios[outputs])
        return math.prod(ratios) / r_out, r_out
    if not grown:
        return 1.0, 1.0
    if len(grown) == 2 and grown[0] == grown[1] and len(ratios) != 3:
        return grown[0], grown[1]
    problem = f"its leaf {_name(leaf)} becomes {leaf.wide}, which does not tell inputs from outputs"
    examples = " or ".join(f'axes="{one + other * (len(ratios) - 1)}"' for one, other in ("io", "oi"))
    raise bad_value("base", leaf.base, problem, f"Declare them, a letter per dimension, for example {examples}")


def _check_axes(letters: Any, leaf: _ShapedLeaf) -> None:
    if not isinstance(letters, str) or set(letters) - set("io-"):
        raise bad_value("axes", letters, "not a text of the letters i, o and -", 'Pass for example "io"')
    if len(letters) != len(leaf.base):
        problem = f"the leaf {_name(leaf)} has {len(leaf.base)} dimensions"
        raise bad_value("axes", letters, problem, "Pass a letter for each")


def _find_outputs(leaf: _ShapedLeaf, leaves: list[_ShapedLeaf]) -> slice | None:
    """The dimensions of a leaf that its bias has too, or all those of a bias; None where the bias does not tell."""
    layer = [other for other in leaves if other.path[:-1] == leaf.path[:-1]]
    keys = {_last_key(other): other for other in layer}
    bias = keys.get("bias", keys.get("b", keys.get(1) if set(keys) == {0, 1} else None))
    kernels = [] if bias is None else [other for other in layer if len(other.base) > len(bias.base)]
    if bias is None or len(kernels) != 1 or len(layer) > 3:
        return None
    sizes = list(zip(bias.wide, bias.base, strict=True))
    while len(sizes) > 1 and sizes[-1] == (1, 1):  # a bias with dimensions for its broadcast
        del sizes[-1]
    own = list(zip(kernels[0].wide, kernels[0].base, strict=True))
    places = [at for at in range(len(own) - len(sizes) + 1) if own[at : at + len(sizes)] == sizes]
    if len(places) != 1 or leaf not in (bias, kernels[0]):
        return None
    return slice(None) if leaf is bias else slice(places[0], places[0] + len(sizes))


def _last_key(leaf: _ShapedLeaf) -> Any:
    """The name or index of a leaf in its layer."""
    key = leaf.path[-1] if leaf.path else None
    return next((getattr(key, field) for field in ("key", "name", "idx") if hasattr(key, field)), None)


def _name(leaf: _ShapedLeaf) -> str:
    return jax.tree_util.keystr(leaf.path) or "params"
