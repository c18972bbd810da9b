"""Models on data sets."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gdkit import datasets
from gdkit.datasets import SPLIT, Dataset
from gdkit.errors import bad_type, bad_value, unknown_name
from gdkit.problems.analytic import _floats, _number
from gdkit.problems.problem import Problem
from gdkit.problems.supervised import supervised
from gdkit.types import Array, Key, Params, PyTree

_HE = math.sqrt(2.0)  # makes up for the half of the inputs that a rectifier cuts off
ACTIVATIONS: dict[str, tuple[Callable[[Any], Any], float]] = {
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


def logistic_regression(
    data: Any = "breast_cancer",
    *,
    l2: float = 0.0,
    batch_size: int | None = None,
    split: Sequence[float] = SPLIT,
    split_key: int = 0,
) -> Problem:
    """Mean cross-entropy of an affine map, plus ½ l2 ‖weight‖²; convex, from zero weights on.

    Two classes have one logit, more have one each (softmax). The penalty counts in the loss on validation and test
    rows too. `data`, `batch_size`, `split`, `split_key` as in `supervised`.

    >>> problem = logistic_regression("iris")
    >>> round(float(problem.loss(problem.init, problem.data)), 4)  # the logarithm of 3 classes
    1.0986
    """
    l2 = _number("l2", l2, at_least=0)
    dataset = _load_rows(data, split, split_key)
    if dataset.task != "classification":
        remedy = "Use data of task classification, or problems.mlp with widths=() for linear regression"
        raise bad_value("data", dataset.name or data, "logistic regression needs classes", remedy)
    outputs = () if dataset.outputs == 2 else (dataset.outputs,)
    init = Layer(_floats("init", np.zeros((_inputs(dataset), *outputs))), _floats("init", np.zeros(outputs)))
    name = f"logistic regression on {dataset.name or 'data'}"
    plain = supervised(init, _affine, "cross_entropy", dataset, batch_size=batch_size, name=name)

    def loss(params: Layer, batch: PyTree) -> Array:
        return plain.loss(params, batch) + 0.5 * l2 * jnp.sum(jnp.square(params.weight))

    return dataclasses.replace(plain, loss=loss)


def mlp(
    data: Any = "digits",
    *,
    widths: Sequence[int] = (64, 64),
    activation: str = "relu",
    loss: str | None = None,
    batch_size: int | None = None,
    init_scale: float = 1.0,
    zero_last: bool = False,
    split: Sequence[float] = SPLIT,
    split_key: int = 0,
) -> Problem:
    """A fully connected network; its params are a tuple of `Layer`.

    Args:
      widths: of the hidden layers; ``()`` leaves an affine map.
      activation: one of relu, gelu, silu, elu, tanh, sigmoid, linear.
      loss: "cross_entropy" or "squared_error"; None: by the task.
      init_scale: a factor of every initial weight. Weights are normal with variance g²/inputs, where g² is 2 in hidden
        layers of the relu kind (He et al. 2015) and 1 in others (LeCun et al. 1998) and in the last; biases are 0.
      zero_last: whether the last layer's weights start at 0, so that networks of all widths start with equal outputs,
        as maximal update parametrisation (μP) has it (Yang et al. 2022, D.2). `gdkit.optimizers.mup` has its steps.
      data, batch_size, split, split_key: as in `supervised`. More than one dimension of features is flattened.

    >>> problem = mlp("iris", widths=[16])
    >>> [layer.weight.shape for layer in problem.init(jax.random.key(0))]
    [(4, 16), (16, 3)]
    """
    widths = _widths(widths)
    if activation not in ACTIVATIONS:
        raise unknown_name("activation", activation, ACTIVATIONS)
    _, gain = ACTIVATIONS[activation]
    init_scale = _number("init_scale", init_scale, at_least=0)
    dataset = _load_rows(data, split, split_key)
    sizes = (_inputs(dataset), *widths, dataset.outputs)
    gains = (*(gain for _ in widths), 0.0 if zero_last else 1.0)

    def init(key: Key) -> tuple[Layer, ...]:
        keys = jax.random.split(key, len(gains))
        shapes = itertools.pairwise(sizes)
        return tuple(_layer(k, *shape, g * init_scale) for k, shape, g in zip(keys, shapes, gains, strict=True))

    def apply(params: Sequence[Layer], x: Array) -> Array:  # (rows, ...) -> (rows, outputs)
        return mlp_layers(params, x, activation)[-1]

    name = f"mlp on {dataset.name or 'data'}"
    return supervised(init, apply, loss or _usual_loss(dataset), dataset, batch_size=batch_size, name=name)


def mlp_layers(params: Sequence[Layer], x: Array, activation: str = "relu") -> list[Array]:
    """What every layer of an `mlp` makes of rows x (rows, ...), before its activation: (rows, units) each.

    >>> [h.shape for h in mlp_layers(mlp("iris", widths=[16]).init(jax.random.key(0)), jnp.ones((5, 4)))]
    [(5, 16), (5, 3)]
    """
    activate, _ = ACTIVATIONS[activation]
    layers = [_affine(params[0], x)]
    for layer in params[1:]:
        layers.append(_affine(layer, activate(layers[-1])))
    return layers


def layer_changes(layers: Callable[[Params, Any], Sequence[Array]], history: Params, x: Any) -> Array:
    """How far training has moved the outputs of each layer: mean |h_t − h_0| over rows and units, (points, layers).

    Args:
      layers: ``(params, x) -> outputs of each layer``, for example `mlp_layers`.
      history: params at recorded steps, as of ``descend(..., record_params=True)``; every leaf (points, ...).
      x: rows to look at.

    Drawn against width it is the coordinate check of Yang et al. (2022), appendix D.1.

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

    query: Array  # (width, width), as are the next three
    key: Array
    value: Array
    out: Array
    up: Array  # (width, 4 width)
    down: Array  # (4 width, width)


class Transformer(NamedTuple):
    """The params of a transformer."""

    token: Array  # (features / tokens, width)
    position: Array  # (tokens, width)
    blocks: tuple[TransformerBlock, ...]
    head: Layer  # width to outputs


def transformer(
    data: Any = "digits",
    *,
    tokens: int = 8,
    width: int = 16,
    heads: int = 2,
    depth: int = 2,
    loss: str | None = None,
    batch_size: int | None = None,
    split: Sequence[float] = SPLIT,
    split_key: int = 0,
) -> Problem:
    """A small transformer that reads a row as a sequence of equal pieces, as of the digits the 8 lines of an image.

    Each piece is mapped to `width` numbers, and its position added (Dosovitskiy et al. 2021); blocks of attention over
    all positions (Vaswani et al. 2017) and of a gelu network four times as wide, each behind a layer norm without
    params (Xiong et al. 2020); the outputs are an affine map of the mean over positions, normed too.

    Args:
      tokens: into how many pieces the features are cut; it divides their number.
      width, heads: numbers a position, and how many heads share them; heads divides width.
      depth: blocks.
      loss, data, batch_size, split, split_key: as in `mlp`.

    Weights are normal with variance 1/inputs, positions with 1/width; the last bias is 0.

    >>> problem = transformer()
    >>> sum(leaf.size for leaf in jax.tree.leaves(problem.init(jax.random.key(0))))
    6570
    """
    for name, value in (("tokens", tokens), ("width", width), ("heads", heads), ("depth", depth)):
        _whole(name, value)
    dataset = _load_rows(data, split, split_key)
    for name, value, whole, what in (
        ("tokens", tokens, _inputs(dataset), "features"), ("heads", heads, width, "numbers of the width"),
    ):  # fmt: skip
        if whole % value:
            raise bad_value(name, value, f"it does not divide the {whole} {what}", "Use a divisor")
    square, wide = (width, width), (width, 4 * width)
    shapes = (square, square, square, square, wide, wide[::-1])

    def init(key: Key) -> Transformer:
        first, second, last, *inner = jax.random.split(key, 3 + depth)
        normal = lambda key, shape, inputs: jax.random.normal(key, shape) / math.sqrt(inputs)
        weights = lambda key: (normal(k, s, s[0]) for k, s in zip(jax.random.split(key, 6), shapes, strict=True))
        token = normal(first, (_inputs(dataset) // tokens, width), _inputs(dataset) // tokens)
        position = normal(second, (tokens, width), width)
        return Transformer(
            token,
            position,
            tuple(TransformerBlock(*weights(k)) for k in inner),
            _layer(last, width, dataset.outputs, 1.0),
        )

    def apply(params: Transformer, x: Array) -> Array:  # (rows, ...) -> (rows, outputs)
        h = x.reshape(x.shape[0], tokens, -1) @ params.token + params.position[None]
        for block in params.blocks:
            h = h + _attention(block, _normed(h), heads)
            h = h + jax.nn.gelu(_normed(h) @ block.up) @ block.down
        return _affine(params.head, jnp.mean(_normed(h), axis=1))

    name = f"transformer on {dataset.name or 'data'}"
    return supervised(init, apply, loss or _usual_loss(dataset), dataset, batch_size=batch_size, name=name)


def _affine(layer: Layer, x: Array) -> Array:
    return x.reshape(x.shape[0], -1) @ layer.weight + layer.bias[None]


def _layer(key: Key, inputs: int, outputs: int, gain: Any) -> Layer:
    weight = jax.random.normal(key, (inputs, outputs)) * (gain / math.sqrt(inputs))
    return Layer(weight, jnp.zeros(outputs))


def _attention(block: TransformerBlock, h: Array, heads: int) -> Array:  # (rows, tokens, width)
    """Every position looks at all."""
    split = lambda weight: (h @ weight).reshape(*h.shape[:2], heads, -1)
    seen = jax.nn.dot_product_attention(split(block.query), split(block.key), split(block.value))
    return seen.reshape(h.shape) @ block.out


def _normed(h: Array) -> Array:
    """Of mean 0 and variance 1 at every position."""
    return jax.nn.standardize(h, axis=-1)


def _usual_loss(dataset: Dataset) -> str:
    return "cross_entropy" if dataset.task == "classification" else "squared_error"


def _inputs(dataset: Dataset) -> int:
    return math.prod(np.shape(dataset.train[0])[1:])


def _load_rows(data: Any, split: Sequence[float], split_key: int) -> Dataset:
    """The data set, for a model that takes rows of numbers."""
    dataset = datasets.load(data, split=split, split_key=split_key)
    if np.ndim(dataset.train[1]) > (1 if dataset.task == "classification" else 2):
        shape = np.shape(dataset.train[1])
        raise bad_value("data", shape, "y has too many dimensions", "Give one label, or a vector of targets, a row")
    return dataset


def _whole(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise bad_type(name, value, "not an integer", "Pass an integer")
    if value < 1:
        raise bad_value(name, value, "less than 1", "Use 1 or more")


def _widths(widths: Any) -> tuple[int, ...]:
    if not isinstance(widths, Sequence) or isinstance(widths, str):
        raise bad_type("widths", widths, "not a sequence", "Pass the width of every hidden layer, such as (64, 64)")
    for width in widths:
        if isinstance(width, bool) or not isinstance(width, int | np.integer):
            raise bad_type("widths", widths, f"{width!r} is not an integer", "Pass integers, such as (64, 64)")
        if width < 1:
            raise bad_value("widths", widths, f"a layer {width} wide", "Use widths of 1 or more")
    return tuple(map(int, widths))
