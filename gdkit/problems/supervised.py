"""A model, a loss and data as a problem."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gdkit import datasets
from gdkit.checks import check_flag, check_integer
from gdkit.datasets import SPLIT, DataLike
from gdkit.errors import bad_type, bad_value
from gdkit.problems.epochs import epoch_rows
from gdkit.problems.losses import ModelLoss, OutputLoss, accuracy, default_metrics, r2, resolve_loss
from gdkit.problems.problem import Metric, Problem, check_metrics, maximized_metrics
from gdkit.types import Key, Params, PyTree


def supervised(
    init: PyTree | Callable[[Key], Params],
    apply: Callable[[Params, Any], Any],
    loss: str | OutputLoss,
    data: DataLike,
    *,
    batch_size: int | None = None,
    replace: bool = True,
    split: Sequence[float] = SPLIT,
    split_key: int = 0,
    metrics: Mapping[str, OutputLoss] | None = None,
    name: str | None = None,
) -> Problem:
    """The problem of fitting a model to data.

    Args:
      init: ``key -> params``, or params.
      apply: ``(params, x) -> outputs`` for a batch x (rows, ...), such as flax's ``model.apply``, an equinox module
        after `partition`, haiku's apply without a key, or a plain function.
      loss: ``"cross_entropy"``, ``"squared_error"``, or ``(outputs, y) -> scalar``.
      data: what `datasets.load` takes: a name, ``{"file": ...}``, a pair of arrays ``(x, y)``, or a `Dataset`.
      batch_size: rows per minibatch; None: all rows at every step.
      replace: whether minibatches are drawn with replacement, or go through epochs; see `minibatches`.
      split, split_key: how rows are split into train, validation and test; see `datasets.load`.
      metrics: name to ``(outputs, y) -> scalar``, or to a `Metric` of it; None: accuracy or r2 if the loss is given by
        name. The functions `problems.accuracy` and `problems.r2` are better when larger under any name.

    Raises:
      GdkitError: the data cannot be loaded, the loss is unknown or does not suit the task, or the batch size is bad.

    >>> x, y = np.eye(8, dtype=np.float32), np.arange(8.0)
    >>> problem = supervised(np.zeros(8, np.float32), lambda w, x: x @ w, "squared_error", (x, y), split=(0.5, 0.5))
    >>> problem.data[0].shape, problem.test[0].shape, list(problem.metrics)
    ((4, 8), (4, 8), ['r2'])
    """
    if not callable(apply):
        raise bad_type("apply", apply, "not callable", "Pass apply(params, x) -> outputs")
    check_flag("replace", replace)
    dataset = datasets.load(data, split=split, split_key=split_key)
    train, validation, test = jax.tree.map(np.asarray, (dataset.train, dataset.validation, dataset.test))
    if metrics is None:
        metrics = default_metrics(dataset) if isinstance(loss, str) else {}
    check_metrics(metrics)
    output_loss, sample = resolve_loss(loss, dataset), None
    if batch_size is not None:
        sample = minibatches(_check_batch_size(batch_size, len(train[1])), replace=replace)
    return Problem(
        ModelLoss(lambda params, batch: apply(params, batch[0]), lambda outputs, batch: output_loss(outputs, batch[1])),
        init,
        data=train,
        sample=sample,
        validation=validation,
        test=test,
        metrics=_metrics_of_params(metrics, apply),
        name=name or dataset.name or "supervised",
        caveats=dataset.caveats,
    )


def minibatches(batch_size: int, *, replace: bool = True) -> Callable[[Key, Any, PyTree], PyTree]:
    """``sample(key, t, data)`` for a Problem: rows of every leaf.

    Args:
      batch_size: rows per minibatch.
      replace: draw rows uniformly with replacement. If False, go through epochs: each has every row once, in an order
        that the seed and the number of the epoch decide. Minibatches follow each other without gaps: the one at the end
        of an epoch is filled up with the first rows of the next. A row costs the same for data of any size.

    Raises:
      InputValueError, InputTypeError: `batch_size` is not an integer of at least 1, or `replace` not a bool.

    >>> sample = minibatches(4)
    >>> sample(jax.random.key(0), 0, np.arange(100.0)).shape
    (4,)
    """
    size = _check_batch_size(batch_size)
    check_flag("replace", replace)

    def sample(key: Key, t: Any, data: PyTree) -> PyTree:
        rows_of_data = jax.tree.leaves(data)[0].shape[0]
        if replace:
            rows = jax.random.randint(jax.random.fold_in(key, t), (size,), 0, rows_of_data)
        else:
            rows = epoch_rows(key, t, size, rows_of_data)
        return jax.tree.map(lambda leaf: jnp.take(leaf, rows, axis=0, mode="clip"), data)

    return sample


def _metrics_of_params(metrics: Mapping[str, OutputLoss], apply: Callable[[Params, Any], Any]) -> dict[str, Metric]:
    """Metrics of outputs as metrics of params, with their directions."""
    maximized = {*maximized_metrics(metrics), *(name for name, metric in metrics.items() if metric in (accuracy, r2))}
    return {
        name: Metric(functools.partial(_evaluate, metric, apply), maximize=name in maximized)
        for name, metric in metrics.items()
    }


def _evaluate(metric: OutputLoss, apply: Callable[[Params, Any], Any], params: Params, data: tuple[Any, Any]) -> Any:
    x, y = data
    return metric(apply(params, x), y)


def _check_batch_size(batch_size: int, rows: float = math.inf) -> int:
    check_integer("batch_size", batch_size)
    if batch_size > rows:
        problem = f"more than the {rows} rows of the training data"
        raise bad_value("batch_size", batch_size, problem, "Use a smaller size, or None for all rows")
    return int(batch_size)
