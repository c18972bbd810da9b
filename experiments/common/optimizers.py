"""Optimizers that several studies compare, as factories that take a learning rate."""

import functools

import optax

from gdkit import sgd
from gdkit.types import OptimizerFactory

OPTIMIZER_FACTORIES: dict[str, OptimizerFactory] = {
    "sgd": sgd,
    "momentum": functools.partial(sgd, momentum=0.9),
    "nesterov": functools.partial(sgd, momentum=0.9, nesterov=True),
    "rmsprop": optax.rmsprop,
    "adagrad": optax.adagrad,
    "adam": optax.adam,
    "adamw": optax.adamw,
    "nadam": optax.nadam,
    "lion": optax.lion,
}
