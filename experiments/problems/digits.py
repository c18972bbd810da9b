"""Problems and Adam at a batch size, so that batch sizes can be compared."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import optax

from gdkit import Problem, problems
from gdkit.errors import bad_value


def adam_of(settings: Mapping[str, Any], batch_size: int) -> Callable[..., optax.GradientTransformation]:
    """Adam with 1 − β₁ and 1 − β₂ in proportion to the batch size.

    Raises:
      InputValueError: one of them comes to more than 1.
    """
    times = batch_size / settings["of"]
    for name in ("b1", "b2"):
        if times * (1 - settings[name]) > 1:
            remedy = "Use more, or smaller batches"
            raise bad_value(f"settings.adam.{name}", settings[name], f"1 − it, {times:g} times, is more than 1", remedy)
    return functools.partial(optax.adam, **{name: 1 - times * (1 - settings[name]) for name in ("b1", "b2")})


@functools.cache  # compiled programs belong to one problem
def affine(batch_size: int | None) -> Problem:
    """An affine map on the digits by squared error, from 0: a quadratic."""
    made = problems.mlp("digits", widths=(), loss="squared_error", init_scale=0.0, batch_size=batch_size)
    return judged_on_training_rows(made)


@functools.cache
def network(width: int, batch_size: int) -> Problem:
    """A network on the digits with one hidden layer."""
    return judged_on_training_rows(problems.mlp("digits", widths=(width,), batch_size=batch_size))


def judged_on_training_rows(problem: Problem) -> Problem:
    """All of them: the loss that theory is about."""
    return dataclasses.replace(problem, validation=problem.data, test=None, metrics=None)
