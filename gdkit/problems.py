"""Problem, and the built-in problems: analytic test functions and models on data sets.

A problem factory is a callable ``(**hyperparameters) -> Problem``. Its float hyperparameters can be traced, so that a
sweep over them is one program; the others are static. Data never depend on a traced value.
"""

import dataclasses
import functools
import itertools
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer

from gdkit import datasets
from gdkit.datasets import SPLIT, Dataset
from gdkit.errors import bad_type, bad_value, unknown_name
from gdkit.factories import is_number
from gdkit.types import Array, Key, Params, PyTree


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """A pure loss, where it starts, and the data it is judged on.

    Args:
      loss: ``loss(params) -> scalar``, or ``loss(params, batch) -> scalar`` with `data`; with `has_aux`,
        ``loss(params, batch, aux) -> (scalar, aux)``. Pure.
      init: a pytree of float arrays, or ``key -> params`` (``key -> (params, aux)`` with `has_aux`). It is called
        if it is callable and its own pytree leaf.
      data: a pytree handed to the compiled program as an argument.
      sample: ``sample(key, t, data) -> batch``, pure, of one shape at every step; absent: the full batch.
      validation, test: data like `data`, on which the loss and `metrics` are read at the end.
      metrics: name to ``f(params, data) -> scalar``.
      optimum: the known minimum of the loss, if any.
      has_aux: whether state that is not trained goes through the loss.
      name: what tables and figures call it.
    """

    loss: Callable[..., Any]
    init: Any
    _: dataclasses.KW_ONLY
    data: PyTree = None
    sample: Callable[..., PyTree] | None = None
    validation: PyTree = None
    test: PyTree = None
    metrics: Mapping[str, Callable[..., Any]] | None = None
    optimum: Any = None
    has_aux: bool = False
    name: str | None = None

    def __post_init__(self):
        if not callable(self.loss):
            raise bad_type("loss", self.loss, "not callable", "Pass a pure function of the params")
        if self.sample is not None and self.data is None:
            raise bad_type("sample", self.sample, "there is no data to sample from", "Pass data= as well")
        if self.sample is not None and not callable(self.sample):
            raise bad_type("sample", self.sample, "not callable", "Pass sample(key, t, data) -> batch")
        _check_metrics(self.metrics)

    @property
    def init_is_function(self) -> bool:
        """Whether `init` is called with a key; an equinox module is callable too, and is params.

        >>> Problem(jnp.sum, jnp.zeros).init_is_function, Problem(jnp.sum, np.zeros(3)).init_is_function
        (True, False)
        """
        return callable(self.init) and jax.tree_util.all_leaves([self.init])


def names() -> dict[str, Callable[..., Problem]]:
    """The built-in problem factories that need nothing but plain values.

    >>> sorted(names())
    ['beale', 'himmelblau', 'logistic_regression', 'mlp', 'parabola', 'quadratic', 'rosenbrock', 'transformer']
    """
    factories = (quadratic, parabola, rosenbrock, himmelblau, beale, logistic_regression, mlp, transformer)
    return {factory.__name__: factory for factory in factories}


def data_names() -> tuple[str, ...]:
    """The built-in data sets."""
    return datasets.names()


# --- analytic problems


def quadratic(
    eigenvalues: Sequence[float] | float | None = None,
    *,
    dimension: int | None = None,
    condition_number: float | None = None,
    start: float | Sequence[float] = 1.0,
) -> Problem:
    """½ Σ λᵢ xᵢ², whose Hessian is diagonal with the eigenvalues λ.

    Args:
      eigenvalues: λ, (n,), or one number for n = 1.
      dimension, condition_number: instead, n eigenvalues in equal ratios from 1 to the condition number.
      start: x at the start, (n,), or one number for all of it.

    The optimum is 0; where an eigenvalue is negative there is none (None, or NaN if the eigenvalues are traced).

    >>> round(float(quadratic(dimension=3, condition_number=100.0).loss(jnp.ones(3))), 4)  # ½ (1 + 10 + 100)
    55.5
    """
    curvatures = _curvatures(eigenvalues, dimension, condition_number)

    def loss(x: Array) -> Array:  # x: (n,)
        return 0.5 * jnp.sum(curvatures * x**2)

    if _is_traced(curvatures):
        optimum = jnp.where(jnp.all(curvatures >= 0), 0.0, jnp.nan)
    else:
        optimum = 0.0 if np.all(curvatures >= 0) else None
    return Problem(loss, _vector("start", start, len(curvatures)), optimum=optimum, name="quadratic")


def parabola(center: float = 3.0, start: float = 0.0) -> Problem:
    """(x − center)² of a scalar x: curvature 2, optimum 0 at the center.

    >>> float(parabola().loss(0.0))
    9.0
    """
    center = _number("center", center)

    def loss(x: Array) -> Array:  # x: ()
        return jnp.square(x - center)

    return Problem(loss, _floats("start", _number("start", start)), optimum=0.0, name="parabola")


def rosenbrock(a: float = 1.0, b: float = 100.0, start: float | Sequence[float] = (-1.2, 1.0)) -> Problem:
    """(a − x₀)² + b (x₁ − x₀²)²: a curved, narrow valley; optimum 0 at (a, a²).

    Rosenbrock, An automatic method for finding the greatest or least value of a function, 1960. b is 0 or more.
    """
    a, b = _number("a", a), _number("b", b, at_least=0)

    def loss(x: Array) -> Array:  # x: (2,)
        return jnp.square(a - x[0]) + b * jnp.square(x[1] - x[0] ** 2)

    return Problem(loss, _vector("start", start, 2), optimum=0.0, name="rosenbrock")


def himmelblau(start: float | Sequence[float] = (0.0, 0.0)) -> Problem:
    """(x₀² + x₁ − 11)² + (x₀ + x₁² − 7)²: four minima, all 0.

    Himmelblau, Applied nonlinear programming, 1972. One minimum is at (3, 2).
    """

    def loss(x: Array) -> Array:  # x: (2,)
        return jnp.square(x[0] ** 2 + x[1] - 11.0) + jnp.square(x[0] + x[1] ** 2 - 7.0)

    return Problem(loss, _vector("start", start, 2), optimum=0.0, name="himmelblau")


def beale(start: float | Sequence[float] = (1.0, 1.0)) -> Problem:
    """Σₖ (cₖ − x₀ (1 − x₁ᵏ))² with c = 1.5, 2.25, 2.625: flat, with steep walls; optimum 0 at (3, ½).

    Beale, On an iterative method for finding a local minimum of a function of more than one variable, 1958.
    """

    def loss(x: Array) -> Array:  # x: (2,)
        residuals = [c - x[0] * (1.0 - x[1] ** k) for k, c in enumerate((1.5, 2.25, 2.625), start=1)]
        return jnp.sum(jnp.square(jnp.stack(residuals)))

    return Problem(loss, _vector("start", start, 2), optimum=0.0, name="beale")


# --- problems on data


def supervised(
    init: Any,
    apply: Callable[[Params, Any], Any],
    loss: str | Callable[[Any, Any], Any],
    data: Any,
    *,
    batch_size: int | None = None,
    split: Sequence[float] = SPLIT,
    split_key: int = 0,
    metrics: Mapping[str, Callable[[Any, Any], Any]] | None = None,
    name: str | None = None,
) -> Problem:
    """A model in the usual form, on data.

    Args:
      init: ``key -> params``, or params.
      apply: ``(params, x) -> outputs`` for a batch x (rows, ...), as it comes from flax, equinox after `partition`,
        haiku without the key of apply, or a plain function.
      loss: ``"cross_entropy"``, ``"squared_error"``, or ``(outputs, y) -> scalar``.
      data: what `datasets.load` takes: a name, ``{"file": ...}``, a pair of arrays ``(x, y)``, or a `Dataset`.
      batch_size: rows of a minibatch, drawn anew at every step, with replacement; None: all rows at every step.
      split, split_key: how the rows are cut into train, validation and test.
      metrics: name to ``(outputs, y) -> scalar``; None: with a loss by name, accuracy or r2.

    Raises:
      GdkitError: data that cannot be loaded; a loss that is unknown or does not suit the task; a bad batch size.

    >>> x, y = np.eye(8, dtype=np.float32), np.arange(8.0)
    >>> problem = supervised(np.zeros(8, np.float32), lambda w, x: x @ w, "squared_error", (x, y), split=(0.5, 0.5))
    >>> problem.data[0].shape, problem.test[0].shape, list(problem.metrics)
    ((4, 8), (4, 8), ['r2'])
    """
    if not callable(apply):
        raise bad_type("apply", apply, "not callable", "Pass apply(params, x) -> outputs")
    dataset = datasets.load(data, split=split, split_key=split_key)
    train, validation, test = jax.tree.map(np.asarray, (dataset.train, dataset.validation, dataset.test))
    if metrics is None:
        metrics = _metrics_of(dataset) if isinstance(loss, str) else {}
    _check_metrics(metrics)
    judge = _loss_of(loss, dataset)
    return Problem(
        lambda params, batch: judge(apply(params, batch[0]), batch[1]),
        init,
        data=train,
        sample=None if batch_size is None else minibatches(_rows_of_batch(batch_size, len(train[1]))),
        validation=validation,
        test=test,
        metrics={key: functools.partial(_read, metric, apply) for key, metric in metrics.items()},
        name=name or dataset.name or "supervised",
    )


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
    if activation not in _ACTIVATIONS:
        raise unknown_name("activation", activation, _ACTIVATIONS)
    _, gain = _ACTIVATIONS[activation]
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
    activate, _ = _ACTIVATIONS[activation]
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


class Block(NamedTuple):
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
    blocks: tuple[Block, ...]
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
        block = lambda key: Block(*(normal(k, s, s[0]) for k, s in zip(jax.random.split(key, 6), shapes, strict=True)))
        token = normal(first, (_inputs(dataset) // tokens, width), _inputs(dataset) // tokens)
        position = normal(second, (tokens, width), width)
        return Transformer(token, position, tuple(map(block, inner)), _layer(last, width, dataset.outputs, 1.0))

    def apply(params: Transformer, x: Array) -> Array:  # (rows, ...) -> (rows, outputs)
        h = x.reshape(x.shape[0], tokens, -1) @ params.token + params.position[None]
        for block in params.blocks:
            h = h + _attention(block, _normed(h), heads)
            h = h + jax.nn.gelu(_normed(h) @ block.up) @ block.down
        return _affine(params.head, jnp.mean(_normed(h), axis=1))

    name = f"transformer on {dataset.name or 'data'}"
    return supervised(init, apply, loss or _usual_loss(dataset), dataset, batch_size=batch_size, name=name)


def minibatches(batch_size: int) -> Callable[[Key, Any, PyTree], PyTree]:
    """``sample(key, t, data)`` for a Problem: rows of every leaf, drawn uniformly and with replacement.

    >>> sample = minibatches(4)
    >>> sample(jax.random.key(0), 0, np.arange(100.0)).shape
    (4,)
    """
    size = _rows_of_batch(batch_size)

    def sample(key: Key, t: Any, data: PyTree) -> PyTree:
        rows_of_data = jax.tree.leaves(data)[0].shape[0]
        rows = jax.random.randint(jax.random.fold_in(key, t), (size,), 0, rows_of_data)
        return jax.tree.map(lambda leaf: jnp.take(leaf, rows, axis=0, mode="clip"), data)

    return sample


# --- losses and metrics of (outputs, y)


def cross_entropy(outputs: Array, y: Array) -> Array:
    """Mean cross-entropy in nats of labels y (...), by logits (..., classes), or one logit (...) or (..., 1) for two.

    >>> round(float(cross_entropy(jnp.zeros((5, 8)), jnp.zeros(5, jnp.int32))), 4)  # the logarithm of 8
    2.0794
    """
    if _is_single(outputs, y):
        return jnp.mean(optax.sigmoid_binary_cross_entropy(outputs.reshape(y.shape), y))
    labels = y.reshape(outputs.shape[:-1])
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(outputs, labels))


def squared_error(outputs: Array, y: Array) -> Array:
    """Mean over rows of ‖outputs − y‖². Labels stand for their one-hot vectors, or ±1 with a single output.

    >>> float(squared_error(jnp.zeros((4, 10)), jnp.arange(4)))
    1.0
    """
    if jnp.issubdtype(y.dtype, jnp.floating):
        targets = y.reshape(outputs.shape)
    elif _is_single(outputs, y):
        targets = (2 * y - 1).reshape(outputs.shape)
    else:
        targets = jax.nn.one_hot(y.reshape(outputs.shape[:-1]), outputs.shape[-1])
    return jnp.sum(optax.squared_error(outputs, targets.astype(outputs.dtype))) / y.shape[0]


def accuracy(outputs: Array, y: Array) -> Array:
    """The fraction of labels y (...) where the largest output is, or the sign of a single one, 0 to 1.

    >>> float(accuracy(jnp.eye(4), jnp.array([0, 1, 2, 0])))
    0.75
    """
    if _is_single(outputs, y):
        return jnp.mean((outputs.reshape(y.shape) > 0) == (y > 0))
    return jnp.mean(jnp.argmax(outputs, axis=-1) == y.reshape(outputs.shape[:-1]))


def r2(outputs: Array, y: Array) -> Array:
    """1 − Σ (y − outputs)² / Σ (y − mean of y)²: 1 is exact, 0 is no better than the mean.

    >>> float(r2(jnp.full(2, 2.0), jnp.array([1.0, 3.0])))
    0.0
    """
    y = y.reshape(outputs.shape)
    return 1.0 - jnp.sum(jnp.square(y - outputs)) / jnp.sum(jnp.square(y - jnp.mean(y, axis=0, keepdims=True)))


_LOSSES = {"cross_entropy": cross_entropy, "squared_error": squared_error}

_HE = math.sqrt(2.0)  # makes up for the half of the inputs that a rectifier cuts off
_ACTIVATIONS: dict[str, tuple[Callable[[Any], Any], float]] = {
    "relu": (jax.nn.relu, _HE),
    "gelu": (jax.nn.gelu, _HE),
    "silu": (jax.nn.silu, _HE),
    "elu": (jax.nn.elu, _HE),
    "tanh": (jnp.tanh, 1.0),
    "sigmoid": (jax.nn.sigmoid, 1.0),
    "linear": (lambda x: x, 1.0),
}


# --- models


def _affine(layer: Layer, x: Array) -> Array:
    return x.reshape(x.shape[0], -1) @ layer.weight + layer.bias[None]


def _layer(key: Key, inputs: int, outputs: int, gain: Any) -> Layer:
    weight = jax.random.normal(key, (inputs, outputs)) * (gain / math.sqrt(inputs))
    return Layer(weight, jnp.zeros(outputs))


def _attention(block: Block, h: Array, heads: int) -> Array:  # (rows, tokens, width)
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


def _loss_of(loss: str | Callable[[Any, Any], Any], dataset: Dataset) -> Callable[[Any, Any], Any]:
    if callable(loss):
        return loss
    if loss not in _LOSSES:
        raise unknown_name("loss", loss, _LOSSES)
    if loss == "cross_entropy" and dataset.task != "classification":
        raise bad_value("loss", loss, "the targets are no classes", "Use loss='squared_error', or integer labels")

    def checked(outputs: Any, y: Any) -> Array:
        _check_outputs(outputs, y, dataset)
        return _LOSSES[loss](outputs, y)

    return checked


def _metrics_of(dataset: Dataset) -> dict[str, Callable[[Any, Any], Any]]:
    return {"accuracy": accuracy} if dataset.task == "classification" else {"r2": r2}


def _read(metric: Callable[[Any, Any], Any], apply: Callable[[Params, Any], Any], params: Params, data: Any) -> Any:
    x, y = data
    return metric(apply(params, x), y)


def _is_single(outputs: Array, y: Array) -> bool:
    """Whether there is one output a label, and so two classes."""
    return outputs.size == y.size


# --- checks; a traced value is let through, since only the program knows it


def _check_outputs(outputs: Any, y: Any, dataset: Dataset) -> None:
    """Shapes alone, so that this runs once, while the loss is traced."""
    if not hasattr(outputs, "shape"):
        raise bad_type("apply", outputs, "it returned no array", "Return the outputs alone")
    shape, single = np.shape(outputs), np.size(outputs) == np.size(y)
    if dataset.task == "regression":
        fits, expected = single and shape[:1] == y.shape[:1], f"outputs of the shape of y, {y.shape}"
    else:
        rows = y.shape[:-1] if y.ndim > 1 and y.shape[-1] == 1 else y.shape
        many = shape[:-1] == rows and shape[-1] >= dataset.outputs
        fits = many or (single and dataset.outputs == 2 and shape[:1] == y.shape[:1])
        expected = f"logits of shape {(*rows, dataset.outputs)} for y of shape {y.shape}"
    if not fits:
        raise bad_value("apply", shape, "the shape of its outputs does not suit the data", f"Return {expected}")


def _check_metrics(metrics: Any) -> None:
    if metrics is not None and not (isinstance(metrics, Mapping) and all(map(callable, metrics.values()))):
        raise bad_type("metrics", metrics, "not a mapping of functions", "Pass metrics={'name': function}")


def _rows_of_batch(batch_size: Any, rows: float = math.inf) -> int:
    try:
        size = operator.index(batch_size)
    except TypeError:
        size = None
    if size is None or isinstance(batch_size, bool):
        raise bad_type("batch_size", batch_size, "not an integer", "Pass a number of rows, or None for all of them")
    if not 1 <= size <= rows:
        problem = "less than one row" if size < 1 else f"more than the {rows} rows there are to train on"
        raise bad_value(
            "batch_size", batch_size, problem, "Use fewer, or None for all rows" if size > 1 else "Use 1 or more"
        )
    return size


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


def _curvatures(eigenvalues: Any, dimension: int | None, condition_number: Any) -> Any:
    """The eigenvalues of a quadratic, (n,)."""
    if (eigenvalues is None) == (dimension is None and condition_number is None):
        problem = "eigenvalues and, or neither of them and, dimension with condition_number"
        raise bad_value(
            "eigenvalues", eigenvalues, problem, "Pass either eigenvalues, or dimension and condition_number"
        )
    if eigenvalues is not None:
        values = _floats("eigenvalues", eigenvalues)
        if values.ndim > 1 or values.size == 0:
            raise bad_value("eigenvalues", eigenvalues, f"of shape {values.shape}", "Pass a sequence of numbers")
        return values.reshape(-1)
    if dimension is None or condition_number is None:
        missing = "dimension" if dimension is None else "condition_number"
        raise bad_value(missing, None, "it goes with the other one", "Pass both dimension and condition_number")
    if isinstance(dimension, bool) or not isinstance(dimension, int | np.integer):
        raise bad_type("dimension", dimension, "not an integer", "Pass the number of eigenvalues")
    if dimension < 1:
        raise bad_value("dimension", dimension, "less than one eigenvalue", "Use 1 or more")
    condition_number = _number("condition_number", condition_number, at_least=1)
    return _floats("condition_number", condition_number ** np.linspace(0.0, 1.0, dimension))


def _is_traced(value: Any) -> bool:
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(value))


def _number(name: str, value: Any, *, at_least: float = -math.inf) -> Any:
    """`value`, a real number that is finite and not too small, as far as that can be known."""
    if not is_number(value):
        raise bad_type(name, value, "not a number", "Pass a real number")
    if _is_traced(value):
        return value
    if not abs(value) <= float(np.finfo(np.float64).max):
        raise bad_value(name, value, "not finite", "Pass a finite number")
    if value < at_least:
        raise bad_value(name, value, f"less than {at_least:g}", f"Use {at_least:g} or more")
    return value


def _floats(name: str, values: Any) -> Any:
    """An array of JAX's default float dtype: in NumPy, so that nothing is placed on a device, unless it is traced."""
    dtype = jax.dtypes.canonicalize_dtype(float)
    if _is_traced(values):
        return jnp.asarray(values, dtype)
    try:
        with np.errstate(over="ignore"):
            array = np.asarray(values, dtype)
    except (TypeError, ValueError, OverflowError) as error:
        raise bad_type(name, values, "not numbers", "Pass a number, or a sequence of numbers") from error
    if not np.isfinite(array).all():
        raise bad_value(name, values, f"not finite in {dtype.name}", "Pass finite numbers")
    return array


def _vector(name: str, values: Any, size: int) -> Any:
    """`values` as a vector of that size; one number stands for all."""
    array = _floats(name, values)
    if array.shape not in ((), (size,)):
        raise bad_value(name, values, f"of shape {array.shape}", f"Pass one number, or {size} of them")
    return jnp.broadcast_to(array, (size,)) if _is_traced(array) else np.broadcast_to(array, (size,)).copy()
