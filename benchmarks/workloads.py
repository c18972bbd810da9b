"""Workloads of the benchmark: small and large problems, each with learning rates below the edge of stability.

Below the edge runs are not chaotic, so every peer must reach the same final losses.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gdkit import Problem, problems
from gdkit.types import Array, Key


class Workload(NamedTuple):
    """One problem, and the learning rates at which all peers run gradient descent."""

    name: str
    title: str
    problem: Problem
    rates: np.ndarray  # (lanes,) float32
    steps: int
    rtol: float  # of final losses, with a floor of 1e-6 of the initial loss
    flavours: tuple[str, ...]  # of the peers in JAX and NumPy; see peers.py
    some: int  # number of lanes for timing a loop over lanes
    rows: int = 0  # of a batch
    sizes: tuple[int, ...] = ()  # of an MLP's layers, including inputs and outputs; () for other models


BOTH = ("bare", "all")


def make(name: str, *, quick: bool = False) -> Workload:
    """The workload of that name; with `quick` reduced to a few lanes and steps."""
    work = WORKLOADS[name]()
    if not quick:
        return work
    lanes, steps = (256, 20) if name == "scalar" else (4, 6)
    return work._replace(rates=work.rates[:: len(work.rates) // lanes][:lanes], steps=steps)


def _scalar() -> Workload:
    rates = _rates(1e-5, 1e-3, 131_072)
    return Workload("scalar", "(x − 3)² of a scalar", problems.parabola(), rates, 1000, 1e-3, BOTH, 64)


def _small_mlp() -> Workload:
    problem = problems.mlp("digits", widths=(16,), batch_size=16)
    rates = _rates(1e-4, 0.03, 64)
    sizes = (64, 16, 10)
    return Workload("small_mlp", "MLP 64-16-10", _train_only(problem), rates, 1000, 1e-2, BOTH, 16, 16, sizes)


def _digits_mlp() -> Workload:
    problem = problems.mlp("digits", widths=(64, 64), batch_size=128)
    rates = _rates(1e-4, 0.03, 64)
    sizes = (64, 64, 64, 10)
    return Workload("digits_mlp", "MLP 64-64-64-10", _train_only(problem), rates, 300, 1e-2, BOTH, 16, 128, sizes)


def _wide_mlp() -> Workload:
    """784 inputs of Gaussian noise; a random linear map gives the labels."""
    generator = np.random.default_rng(0)
    x = generator.standard_normal((4096, 784), np.float32)
    y = np.argmax(x @ generator.standard_normal((784, 10)), axis=1)
    problem = problems.mlp((x, y), widths=(256, 256), batch_size=256, split=(0.9, 0.1))
    rates, sizes = _rates(1e-4, 0.01, 16), (784, 256, 256, 10)
    return Workload("wide_mlp", "MLP 784-256-256-10", _train_only(problem), rates, 40, 1e-2, ("bare",), 4, 256, sizes)


def _logistic() -> Workload:
    problem = _train_only(problems.logistic_regression("breast_cancer"))
    rates = _rates(1e-3, 0.3, 64)
    return Workload("logistic", "logistic regression", problem, rates, 1000, 1e-3, BOTH, 16)


def _cnn() -> Workload:
    problem = problems.supervised(_init_cnn, apply_cnn, "cross_entropy", "digits", batch_size=64)
    return Workload("cnn", "CNN on 8 × 8 pixels", _train_only(problem), _rates(1e-4, 0.03, 16), 50, 1e-2, ("bare",), 4)


def _attention() -> Workload:
    """Classification of sequences by their most frequent token."""
    x = np.random.default_rng(0).integers(0, TOKENS, (2048, LENGTH))
    y = np.argmax((x[:, :, None] == np.arange(TOKENS)).sum(axis=1), axis=1)
    problem = Problem(
        lambda params, batch: problems.cross_entropy(apply_attention(params, batch[0]), batch[1]),
        _init_attention,
        data=(x.astype(np.int32), y.astype(np.int32)),
        sample=problems.minibatches(32),
    )
    return Workload("attention", "attention, 2 layers", problem, _rates(1e-4, 0.03, 16), 50, 1e-2, ("bare",), 4)


WORKLOADS: dict[str, Callable[[], Workload]] = {
    "scalar": _scalar,
    "small_mlp": _small_mlp,
    "digits_mlp": _digits_mlp,
    "wide_mlp": _wide_mlp,
    "cnn": _cnn,
    "logistic": _logistic,
    "attention": _attention,
}


def _rates(low: float, high: float, count: int) -> np.ndarray:
    return np.geomspace(low, high, count).astype(np.float32)


def _train_only(problem: Problem) -> Problem:
    """Without the validation and test rows, which only gdkit would evaluate."""
    return dataclasses.replace(problem, validation=None, test=None, metrics=None)


# --- models


class Cnn(NamedTuple):
    """Two convolutions, the second with stride 2, and a linear map."""

    first: Array  # (3, 3, 1, 8)
    second: Array  # (3, 3, 8, 16)
    weight: Array  # (256, 10)


def _init_cnn(key: Key) -> Cnn:
    shapes = ((3, 3, 1, 8), (3, 3, 8, 16), (256, 10))
    return Cnn(*_normal(key, shapes, gain=2.0))


def apply_cnn(params: Cnn, x: Array) -> Array:  # (rows, 64) -> (rows, 10)
    h = jax.nn.relu(_convolve(x.reshape(-1, 8, 8, 1), params.first, 1))
    h = jax.nn.relu(_convolve(h, params.second, 2))
    return h.reshape(len(x), -1) @ params.weight


def _convolve(x: Array, kernel: Array, stride: int) -> Array:
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (stride, stride), ((1, 1), (1, 1)), dimension_numbers=layout)


TOKENS, LENGTH, WIDTH, HEADS = 8, 16, 32, 4


class AttentionBlock(NamedTuple):
    """An attention layer and an MLP layer, each with a residual connection."""

    query: Array  # (WIDTH, WIDTH)
    key: Array  # (WIDTH, WIDTH)
    value: Array  # (WIDTH, WIDTH)
    out: Array  # (WIDTH, WIDTH)
    up: Array  # (WIDTH, 4 WIDTH)
    down: Array  # (4 WIDTH, WIDTH)


class Attention(NamedTuple):
    """A transformer with a mean over positions."""

    token: Array  # (TOKENS, WIDTH)
    position: Array  # (LENGTH, WIDTH)
    blocks: tuple[AttentionBlock, AttentionBlock]
    head: Array  # (WIDTH, TOKENS)


def _init_attention(key: Key) -> Attention:
    square, wide = (WIDTH, WIDTH), (WIDTH, 4 * WIDTH)
    block = (square, square, square, square, wide, wide[::-1])
    shapes = ((TOKENS, WIDTH), (LENGTH, WIDTH), *block, *block, (WIDTH, TOKENS))
    token, position, *inner, head = _normal(key, shapes, gain=1.0)
    return Attention(token, position, (AttentionBlock(*inner[:6]), AttentionBlock(*inner[6:])), head)


def apply_attention(params: Attention, x: Array) -> Array:  # (rows, LENGTH) -> (rows, TOKENS)
    h = params.token[x] + params.position[None]
    for block in params.blocks:
        split = lambda w, h=h: (h @ w).reshape(-1, LENGTH, HEADS, WIDTH // HEADS).transpose(0, 2, 1, 3)
        query, key, value = split(block.query), split(block.key), split(block.value)
        scores = query @ key.transpose(0, 1, 3, 2) / (WIDTH // HEADS) ** 0.5
        mixed = jax.nn.softmax(scores, axis=-1) @ value  # (rows, HEADS, LENGTH, WIDTH / HEADS)
        h = h + mixed.transpose(0, 2, 1, 3).reshape(-1, LENGTH, WIDTH) @ block.out
        h = h + jax.nn.relu(h @ block.up) @ block.down
    return jnp.mean(h, axis=1) @ params.head


def _normal(key: Key, shapes: Sequence[tuple[int, ...]], gain: float) -> list[Any]:
    """Normal weights with variance gain / inputs."""
    keys = jax.random.split(key, len(shapes))
    scale = lambda shape: (gain / np.prod(shape[:-1])) ** 0.5
    return [jax.random.normal(k, s) * scale(s) for k, s in zip(keys, shapes, strict=True)]
