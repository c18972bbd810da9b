"""A model, a loss and data as a problem."""

import functools
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gdkit import datasets
from gdkit.datasets import SPLIT
from gdkit.errors import bad_type, bad_value
from gdkit.problems.losses import loss_of, metrics_of
from gdkit.problems.problem import Problem, check_metrics
from gdkit.types import Key, Params, PyTree


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
        metrics = metrics_of(dataset) if isinstance(loss, str) else {}
    check_metrics(metrics)
    judge = loss_of(loss, dataset)
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


def _read(metric: Callable[[Any, Any], Any], apply: Callable[[Params, Any], Any], params: Params, data: Any) -> Any:
    x, y = data
    return metric(apply(params, x), y)


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
