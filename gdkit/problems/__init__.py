"""Problem, and the built-in problems: analytic test functions and models on data sets.

A problem factory is a callable ``(**hyperparameters) -> Problem``. Its float hyperparameters can be traced, so that a
sweep over them is one program; the others are static. Data never depend on a traced value. Equal calls of a built-in
factory with plain values return one Problem, since compiled programs belong to a problem.
"""

from collections.abc import Callable

from gdkit import datasets
from gdkit.problems.analytic import beale, himmelblau, parabola, quadratic, rosenbrock
from gdkit.problems.learner import Learner, ProblemLike
from gdkit.problems.losses import ModelLoss, accuracy, cross_entropy, r2, squared_error
from gdkit.problems.models import (
    Layer,
    Transformer,
    TransformerBlock,
    layer_changes,
    logistic_regression,
    mlp,
    mlp_layers,
    transformer,
)
from gdkit.problems.problem import Metric, Problem
from gdkit.problems.supervised import minibatches, supervised

__all__ = [
    "Layer", "Learner", "Metric", "ModelLoss", "Problem", "ProblemLike", "Transformer", "TransformerBlock", "accuracy",
    "beale", "cross_entropy", "data_names", "himmelblau", "layer_changes", "logistic_regression", "minibatches", "mlp",
    "mlp_layers", "names", "parabola", "quadratic", "r2", "rosenbrock", "squared_error", "supervised", "transformer",
]  # fmt: skip


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
