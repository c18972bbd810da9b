"""Models on data sets: logistic regression, a fully connected network, a transformer."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gdkit import datasets
from gdkit.checks import check_choice, check_flag, check_integer, check_number
from gdkit.datasets import SPLIT, DataLike, Dataset
from gdkit.errors import bad_type, bad_value
from gdkit.factories import cache_plain_calls
from gdkit.problems.losses import ModelLoss, default_loss
from gdkit.problems.problem import Problem
from gdkit.problems.supervised import supervised
from gdkit.types import Array, Key, Params

_HE = math.sqrt(2.0)  # gain of He et al. 2015: makes up for the half of the inputs that a rectifier sets to 0
ACTIVATIONS: dict[str, tuple[Callable[[Any], Any], float]] = {  # function and gain
    "relu": (jax.nn.relu, _HE),
    "gelu": (jax.nn.gelu, _HE),
    "silu": (jax.nn.silu, _HE),
    "elu": (jax.nn.elu, _HE),
    "tanh": (jnp.tanh, 1.0),
    "sigmoid": (jax.nn.sigmoid, 1.0),
    "linear": (lambda x: x, 1.0),
}


class Layer(NamedTuple):
    """The params of one affine map."""

    weight: Array  # (inputs, outputs), or (inputs,) for a single output
    bias: Array  # (outputs,), or ()


@cache_plain_calls(maxsize=16)
def logistic_regression(
    data: DataLike = "breast_cancer",
    *,
    l2: float = 0.0,
    batch_size: int | None = None,
    replace: bool = True,
    split: Sequence[float] = SPLIT,
    split_key: int = 0,
) -> Problem:
    """Mean cross-entropy of an affine map, plus ½ l2 ‖weight‖²: a convex loss, started at zero weights.

    Two classes have one logit, more classes have one each (softmax). The penalty is part of the validation and test
    losses too.

    Args:
      data, batch_size, replace, split, split_key: as in `supervised`.
      l2: weight of the penalty, 0 or more; it may be traced.

    Raises:
      GdkitError: as `supervised`; the data are a regression; `l2` is negative.

    >>> problem = logistic_regression("iris")
    >>> round(float(problem.loss(problem.init, problem.data)), 4)  # the logarithm of 3 classes
    1.0986
    """
    check_number("l2", l2, at_least=0)
    dataset = _load_rows(data, split, split_key)
    if dataset.task != "classification":
        remedy = "Use data of task classification, or problems.mlp with widths=() for linear regression"
        raise bad_value("data", dataset.name or data, "logistic regression needs classes", remedy)
    outputs = () if dataset.outputs == 2 else (dataset.outputs,)
    init = Layer(_zeros(_count_features(dataset), *outputs), _zeros(*outputs))
    name = f"logistic regression on {dataset.name or 'data'}"
    unpenalized = supervised(init, _affine, "cross_entropy", dataset, batch_size=batch_size, replace=replace, name=name)
    penalty = lambda params: 0.5 * l2 * jnp.sum(jnp.square(params.weight))
    assert isinstance(unpenalized.loss, ModelLoss)
    return dataclasses.replace(unpenalized, loss=dataclasses.replace(unpenalized.loss, penalty=penalty))


@cache_plain_calls(maxsize=16)
def mlp(
    data: DataLike = "digits",
    *,
    widths: Sequence[int] = (64, 64),
    activation: str = "relu",
    loss: str | None = None,
    batch_size: int | None = None,
    replace: bool = True,
    init_scale: float = 1.0,
    zero_last: bool = False,
    split: Sequence[float] = SPLIT,
    split_key: int = 0,
) -> Problem:
    """A fully connected network; its params are a tuple of `Layer`.

    Args:
      data, batch_size, replace, split, split_key: as in `supervised`. Features of several dimensions are flattened.
      widths: of the hidden layers; ``()`` leaves an affine map.
      activation: one of relu, gelu, silu, elu, tanh, sigmoid, linear.
      loss: "cross_entropy" or "squared_error"; None: by the task.
      init_scale: factor of every initial weight. Weights are normal with variance g²/inputs, where g² is 2 in hidden
        layers with relu, gelu, silu or elu (He et al. 2015), and 1 in other hidden layers (LeCun et al. 1998) and in
        the last; biases are 0.
      zero_last: whether the last layer's weights start at 0, so that networks of all widths start with equal outputs,
        as in maximal update parametrization (μP; Yang et al. 2022, D.2). `gdkit.optimizers.mup` has its steps.

    Raises:
      GdkitError: as `supervised`; an unknown activation; a width or scale that cannot be used.

    >>> problem = mlp("iris", widths=[16])
    >>> [layer.weight.shape for layer in problem.init(jax.random.key(0))]
    [(4, 16), (16, 3)]
    """
    widths = _check_widths(widths)
    check_choice("activation", activation, ACTIVATIONS)
    check_number("init_scale", init_scale, at_least=0)
    check_flag("zero_last", zero_last)
    _, gain = ACTIVATIONS[activation]
    dataset = _load_rows(data, split, split_key)
    sizes = (_count_features(dataset), *widths, dataset.outputs)
    gains = (*(gain for _ in widths), 0.0 if zero_last else 1.0)

    def init(key: Key) -> tuple[Layer, ...]:
        keys = jax.random.split(key, len(gains))
        shapes = itertools.pairwise(sizes)
        return tuple(_init_layer(k, *shape, g * init_scale) for k, shape, g in zip(keys, shapes, gains, strict=True))

    def apply(params: Sequence[Layer], x: Array) -> Array:  # (rows, ...) -> (rows, outputs)
        return mlp_layers(params, x, activation)[-1]

    name = f"mlp on {dataset.name or 'data'}"
    return supervised(
        init, apply, loss or default_loss(dataset), dataset, batch_size=batch_size, replace=replace, name=name
    )


def mlp_layers(params: Sequence[Layer], x: Array, activation: str = "relu") -> list[Array]:
    """The outputs of every layer of an `mlp` for rows x (rows, ...), before the activation: (rows, units) each.

    >>> [h.shape for h in mlp_layers(mlp("iris", widths=[16]).init(jax.random.key(0)), jnp.ones((5, 4)))]
    [(5, 16), (5, 3)]
    """
    activate, _ = ACTIVATIONS[activation]
    layers = [_affine(params[0], x)]
    for layer in params[1:]:
        layers.append(_affine(layer, activate(layers[-1])))
    return layers


def layer_changes(layers: Callable[[Params, Any], Sequence[Array]], history: Params, x: Any) -> Array:
    """Mean change |h_t − h_0| of the outputs of each layer during training, over rows and units: (points, layers).

    Plotted against width it is the coordinate check of Yang et al. (2022), appendix D.1.

    Args:
      layers: ``(params, x) -> outputs of each layer``, for example `mlp_layers`.
      history: params at recorded steps, as of ``descend(..., record_params=True)``; every leaf (points, ...).
      x: the rows to evaluate.

    >>> problem = mlp("iris", widths=[16])
    >>> history = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf + 0.1]), problem.init(jax.random.key(0)))
    >>> layer_changes(mlp_layers, history, problem.data[0]).shape
    (2, 2)
    """
    start = layers(jax.tree.map(lambda leaf: leaf[0], history), x)
    change = lambda params: jnp.stack(
        [jnp.mean(jnp.abs(h - h0)) for h, h0 in zip(layers(params, x), start, strict=True)]
    )
    return jax.lax.map(change, history)


class TransformerBlock(NamedTuple):
    """The params of one block of a transformer; it has no biases."""

    query: Array  # (width, width)
    key: Array  # (width, width)
    value: Array  # (width, width)
    out: Array  # (width, width)
    up: Array  # (width, 4 width)
    down: Array  # (4 width, width)


class Transformer(NamedTuple):
    """The params of a transformer."""

    token: Array  # (features / tokens, width)
    position: Array  # (tokens, width)
    blocks: tuple[TransformerBlock, ...]
    head: Layer  # width to outputs


@cache_plain_calls(maxsize=16)
def transformer(
    data: DataLike = "digits",
    *,
    tokens: int = 8,
    width: int = 16,
    heads: int = 2,
    depth: int = 2,
    loss: str | None = None,
    batch_size: int | None = None,
    replace: bool = True,
    split: Sequence[float] = SPLIT,
    split_key: int = 0,
) -> Problem:
    """A small transformer that reads the features of a row as a sequence, for example the 8 lines of a digit's image.

    The features are cut into tokens of equal size, each mapped to `width` numbers and added to its position
    (Dosovitskiy et al. 2021). Each block has attention over all positions (Vaswani et al. 2017) and a gelu network of
    four times the width, both after a layer norm without params (Xiong et al. 2020). The outputs are an affine map of
    the mean over positions of the normalized last block. Weights are normal with variance 1/inputs, positions with
    1/width; the last bias is 0.

    Args:
      tokens: number of tokens, a divisor of the number of features.
      width: numbers per position.
      heads: number of attention heads, a divisor of `width`.
      depth: number of blocks.
      loss, data, batch_size, replace, split, split_key: as in `mlp`.

    Raises:
      GdkitError: as `supervised`; a number that is not an integer of at least 1, or not a divisor.

    >>> problem = transformer()
    >>> sum(leaf.size for leaf in jax.tree.leaves(problem.init(jax.random.key(0))))
    6570
    """
    for name, value in (("tokens", tokens), ("width", width), ("heads", heads), ("depth", depth)):
        check_integer(name, value)
    dataset = _load_rows(data, split, split_key)
    features = _count_features(dataset)
    _check_divisor("tokens", tokens, features, "features")
    _check_divisor("heads", heads, width, "numbers of the width")
    square, wide = (width, width), (width, 4 * width)
    shapes = (square, square, square, square, wide, wide[::-1])

    def init(key: Key) -> Transformer:
        first, second, last, *inner = jax.random.split(key, 3 + depth)
        normal = lambda key, shape, inputs: jax.random.normal(key, shape) / math.sqrt(inputs)
        weights = lambda key: (normal(k, s, s[0]) for k, s in zip(jax.random.split(key, 6), shapes, strict=True))
        token = normal(first, (features // tokens, width), features // tokens)
        position = normal(second, (tokens, width), width)
        blocks = tuple(TransformerBlock(*weights(k)) for k in inner)
        return Transformer(token, position, blocks, _init_layer(last, width, dataset.outputs, 1.0))

    def apply(params: Transformer, x: Array) -> Array:  # (rows, ...) -> (rows, outputs)
        h = x.reshape(x.shape[0], tokens, -1) @ params.token + params.position[None]
        for block in params.blocks:
            h = h + _attend(block, _normalize(h), heads)
            h = h + jax.nn.gelu(_normalize(h) @ block.up) @ block.down
        return _affine(params.head, jnp.mean(_normalize(h), axis=1))

    name = f"transformer on {dataset.name or 'data'}"
    return supervised(
        init, apply, loss or default_loss(dataset), dataset, batch_size=batch_size, replace=replace, name=name
    )


def _affine(layer: Layer, x: Array) -> Array:
    return x.reshape(x.shape[0], -1) @ layer.weight + layer.bias[None]


def _init_layer(key: Key, inputs: int, outputs: int, gain: float | Array) -> Layer:
    weight = jax.random.normal(key, (inputs, outputs)) * (gain / math.sqrt(inputs))
    return Layer(weight, jnp.zeros(outputs))


def _zeros(*shape: int) -> Any:
    """Zeros of JAX's default float dtype, in NumPy, so that they are not on a device yet."""
    return np.zeros(shape, jax.dtypes.canonicalize_dtype(float))


def _attend(block: TransformerBlock, h: Array, heads: int) -> Array:
    """Attention of every position to all positions, without a mask: (rows, tokens, width) to the same."""
    split = lambda weight: (h @ weight).reshape(*h.shape[:2], heads, -1)
    mixed = jax.nn.dot_product_attention(split(block.query), split(block.key), split(block.value))
    return mixed.reshape(h.shape) @ block.out


def _normalize(h: Array) -> Array:
    """`h` (..., width) with mean 0 and variance 1 at every position."""
    return jax.nn.standardize(h, axis=-1)


def _count_features(dataset: Dataset) -> int:
    return math.prod(np.shape(dataset.train[0])[1:])


def _load_rows(data: DataLike, split: Sequence[float], split_key: int) -> Dataset:
    """The data set, for a model that predicts one label or one vector per row."""
    dataset = datasets.load(data, split=split, split_key=split_key)
    if np.ndim(dataset.train[1]) > (1 if dataset.task == "classification" else 2):
        shape = np.shape(dataset.train[1])
        raise bad_value("data", shape, "y has too many dimensions", "Give one label or one vector of targets per row")
    return dataset


def _check_widths(widths: Sequence[int]) -> tuple[int, ...]:
    if not isinstance(widths, Sequence) or isinstance(widths, str):
        raise bad_type("widths", widths, "not a sequence", "Pass the width of every hidden layer, such as (64, 64)")
    for layer, width in enumerate(widths):
        check_integer(f"widths[{layer}]", width)
    return tuple(map(int, widths))


def _check_divisor(name: str, value: int, total: int, what: str) -> None:
    if total % value:
        raise bad_value(name, value, f"it does not divide the {total} {what}", "Use a divisor")
