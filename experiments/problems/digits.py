"""Problems on the digits at a given batch size, and Adam with its memory scaled to the batch."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax

from gdkit import Problem, problems
from gdkit.errors import bad_value


def scale_adam(settings: Mapping[str, Any], batch_size: int) -> Callable[..., optax.GradientTransformation]:
    """Adam with 1 − β₁ and 1 − β₂ in proportion to the batch size.

    Raises:
      InputValueError: one of them would exceed 1.
    """
    factor = batch_size / settings["of"]
    for name in ("b1", "b2"):
        if factor * (1 - settings[name]) > 1:
            why = f"1 − {name}, scaled by {factor:g}, is above 1"
            raise bad_value(f"settings.adam.{name}", settings[name], why, "Use a larger value, or smaller batches")
    return functools.partial(optax.adam, **{name: 1 - factor * (1 - settings[name]) for name in ("b1", "b2")})


@functools.cache  # compiled programs belong to one problem
def affine(batch_size: int | None) -> Problem:
    """An affine map on the digits with squared error, a quadratic; it starts at 0."""
    options: dict[str, Any] = {"loss": "squared_error", "init_scale": 0.0, "batch_size": batch_size}
    return validate_on_training_rows(problems.mlp("digits", widths=(), **options))


@functools.cache
def network(width: int, batch_size: int) -> Problem:
    """A network on the digits with one hidden layer."""
    return validate_on_training_rows(problems.mlp("digits", widths=(width,), batch_size=batch_size))


def validate_on_training_rows(problem: Problem) -> Problem:
    """The same problem with all training rows as validation data: theory is about the training loss."""
    return dataclasses.replace(problem, validation=problem.data, test=None, metrics=None)


def flip_labels(problem: Problem, share: float) -> Problem:
    """The same problem with a share of random labels, so that the noise of its gradients does not vanish."""
    x, y = problem.data
    generator = np.random.default_rng(0)
    labels = np.where(generator.random(len(y)) < share, generator.integers(10, size=len(y)), y)
    return dataclasses.replace(problem, data=(x, jnp.asarray(labels, jnp.int32)))
