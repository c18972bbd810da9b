"""The table of a short run: the decrease of the loss that each gradient predicts, and the actual one."""

import math
from typing import NamedTuple

import jax
import numpy as np
import optax

from gdkit.descent import descend
from gdkit.formatting import format_number, html, text_table
from gdkit.problems import ProblemLike
from gdkit.types import Hyperparameters, Key, OptimizerLike, Params, PyTree


class TrainingRow(NamedTuple):
    """One step of a run."""

    step: int
    params: Params
    loss: float
    gradient: Params
    predicted: float  # decrease of the loss to first order: −⟨gradient, update⟩; NaN in the last row
    actual: float  # decrease of the loss by the update; NaN in the last row


class TrainingTable(tuple[TrainingRow, ...]):
    """The rows of a short run, one per step; prints as a table."""

    def __str__(self) -> str:
        heads = ("step", "params", "loss", "gradient", "predicted", "actual")
        return text_table(heads, [(str(row.step), *map(_format_cell, row[1:])) for row in self])

    _repr_html_ = html.preformat


def training_table(
    problem: ProblemLike,
    optimizer: OptimizerLike,
    steps: int,
    *,
    hyperparameters: Hyperparameters | None = None,
    key: int | Key = 0,
) -> TrainingTable:
    """Params, loss and gradient at each step, and the decrease of the loss: predicted by the gradient, and actual.

    Args:
      problem, optimizer, hyperparameters, key: as in `gdkit.descend`.
      steps: updates of the run; the table has one row more.

    Raises:
      GdkitError: as `gdkit.descend`.

    >>> from gdkit import optimizers, problems
    >>> print(training_table(problems.parabola(), optimizers.sgd(0.2), 2))
    step | params |   loss | gradient | predicted | actual
    ------------------------------------------------------
       0 | 0.0000 | 9.0000 |  -6.0000 |    7.2000 | 5.7600
       1 | 1.2000 | 3.2400 |  -3.6000 |    2.5920 | 2.0736
       2 | 1.9200 | 1.1664 |  -2.1600 |           |
    """
    run = descend(problem, optimizer, steps, hyperparameters=hyperparameters, key=key, record_params=True)
    at = lambda tree, t: jax.tree.map(lambda x: np.asarray(x[t]), tree)
    rows = []
    for t in range(steps + 1):
        params, gradient = at(run.params_history, t), at(run.grad_history, t)
        predicted = actual = math.nan
        if t < steps:
            update = jax.tree.map(np.subtract, at(run.params_history, t + 1), params)
            predicted = -float(np.asarray(optax.tree.vdot(gradient, update)))
            actual = float(run.loss[t] - run.loss[t + 1])
        rows.append(TrainingRow(t, params, float(run.loss[t]), gradient, predicted, actual))
    return TrainingTable(rows)


def _format_cell(value: PyTree) -> str:
    """A number, a vector of up to three entries, or the norm of a larger one; an empty cell for NaN."""
    flat = np.concatenate([np.ravel(x) for x in jax.tree.leaves(value)])
    if flat.size == 1:
        return "" if np.isnan(flat[0]) else f"{flat[0]:.4f}"
    if flat.size <= 3:
        return "(" + ", ".join(map(format_number, flat)) + ")"
    return f"|{format_number(np.linalg.norm(flat))}|"
