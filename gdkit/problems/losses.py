"""Losses and metrics of the outputs of a model and their targets."""

import dataclasses
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gdkit.datasets import Dataset
from gdkit.errors import bad_type, bad_value, unknown_name
from gdkit.types import Array

OutputLoss: TypeAlias = Callable[[Any, Any], Any]  # (outputs, y) -> scalar


@dataclasses.dataclass(frozen=True, eq=False)
class ModelLoss:
    """A loss as a model and a function of its outputs, so that the two can be differentiated apart.

    The loss of a `Problem`: ``loss(outputs(params, batch), batch) + penalty(params)``. The generalized Gauss-Newton
    matrix (`stability.gauss_newton`) needs this form; the problems of `supervised` have it.

    Args:
      outputs: ``(params, batch) -> outputs``, any pytree of float arrays; ``params -> outputs`` without data.
      loss: ``(outputs, batch) -> scalar``, convex in the outputs where the Gauss-Newton matrix shall be positive.
      penalty: ``params -> scalar``, added to the loss; None: no penalty.

    >>> line = ModelLoss(lambda w, batch: w * batch[0], lambda outputs, batch: squared_error(outputs, batch[1]))
    >>> float(line(2.0, (jnp.ones(4), jnp.zeros(4))))
    4.0
    """

    outputs: Callable[..., Any]
    loss: Callable[..., Any]
    penalty: Callable[[Any], Any] | None = None

    def __call__(self, params: Any, *batch: Any) -> Any:
        """The loss of params on a batch."""
        value = self.loss(self.outputs(params, *batch), *batch)
        return value if self.penalty is None else value + self.penalty(params)


def cross_entropy(outputs: Array, y: Array) -> Array:
    """Mean cross-entropy in nats.

    Args:
      outputs: logits (..., classes); for two classes also one logit, (...) or (..., 1).
      y: labels (...).

    >>> round(float(cross_entropy(jnp.zeros((5, 8)), jnp.zeros(5, jnp.int32))), 4)  # the logarithm of 8
    2.0794
    """
    if _is_single(outputs, y):
        return jnp.mean(optax.sigmoid_binary_cross_entropy(outputs.reshape(y.shape), y))
    labels = y.reshape(outputs.shape[:-1])
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(outputs, labels))


def squared_error(outputs: Array, y: Array) -> Array:
    """Mean over rows of ‖outputs − y‖². Labels stand for their one-hot vectors, or for ±1 with a single output.

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
    """The fraction of labels y (...) that are the index of the largest output, or the sign of a single one.

    >>> float(accuracy(jnp.eye(4), jnp.array([0, 1, 2, 0])))
    0.75
    """
    if _is_single(outputs, y):
        return jnp.mean((outputs.reshape(y.shape) > 0) == (y > 0))
    return jnp.mean(jnp.argmax(outputs, axis=-1) == y.reshape(outputs.shape[:-1]))


def r2(outputs: Array, y: Array) -> Array:
    """The coefficient of determination, 1 − Σ (y − outputs)² / Σ (y − mean of y)²; 1 is exact, 0 equals the mean.

    >>> float(r2(jnp.full(2, 2.0), jnp.array([1.0, 3.0])))
    0.0
    """
    y = y.reshape(outputs.shape)
    return 1.0 - jnp.sum(jnp.square(y - outputs)) / jnp.sum(jnp.square(y - jnp.mean(y, axis=0, keepdims=True)))


_LOSSES: dict[str, OutputLoss] = {"cross_entropy": cross_entropy, "squared_error": squared_error}


def resolve_loss(loss: str | OutputLoss, dataset: Dataset) -> OutputLoss:
    """The loss function for a name, with a check that outputs suit the data; a function is returned unchanged."""
    if callable(loss):
        return loss
    if loss not in _LOSSES:
        raise unknown_name("loss", loss, _LOSSES)
    if loss == "cross_entropy" and dataset.task != "classification":
        raise bad_value("loss", loss, "the targets are not classes", "Use loss='squared_error', or integer labels")

    def checked_loss(outputs: Any, y: Any) -> Array:
        _check_outputs(outputs, y, dataset)
        return _LOSSES[loss](outputs, y)

    return checked_loss


def default_loss(dataset: Dataset) -> str:
    """The name of the usual loss of a task."""
    return "cross_entropy" if dataset.task == "classification" else "squared_error"


def default_metrics(dataset: Dataset) -> dict[str, OutputLoss]:
    """The usual metric of a task, accuracy or r2, by name."""
    return {"accuracy": accuracy} if dataset.task == "classification" else {"r2": r2}


def _is_single(outputs: Array, y: Array) -> bool:
    """Whether there is one output per label, and so two classes."""
    return outputs.size == y.size


def _check_outputs(outputs: Any, y: Any, dataset: Dataset) -> None:
    """Raise unless the shape of the outputs suits the data; runs while the loss is traced."""
    if not hasattr(outputs, "shape"):
        raise bad_type("apply", outputs, "it did not return an array", "Return the outputs alone")
    shape, single = np.shape(outputs), np.size(outputs) == np.size(y)
    if dataset.task == "regression":
        suits, expected = single and shape[:1] == y.shape[:1], f"outputs of the shape of y, {y.shape}"
    else:
        rows = y.shape[:-1] if y.ndim > 1 and y.shape[-1] == 1 else y.shape
        many = shape[:-1] == rows and shape[-1] >= dataset.outputs
        suits = many or (single and dataset.outputs == 2 and shape[:1] == y.shape[:1])
        expected = f"logits of shape {(*rows, dataset.outputs)} for y of shape {y.shape}"
    if not suits:
        raise bad_value("apply", shape, "the shape of its outputs does not suit the data", f"Return {expected}")
