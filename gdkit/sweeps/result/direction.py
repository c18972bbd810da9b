"""The direction of a variable: whether small or large values are good. Scores are small where they are good."""

import json
from collections.abc import Collection, Container, Mapping, Sequence
from typing import Any, overload

import numpy as np

from gdkit.problems.problem import MAXIMIZED


@overload
def orient(values: float, maximize: bool) -> float: ...
@overload
def orient(values: np.ndarray, maximize: bool) -> np.ndarray: ...
def orient(values: float | np.ndarray, maximize: bool) -> float | np.ndarray:
    """Values of a variable as scores, small where it is good; and scores as values of the variable."""
    return 0 - values if maximize else values  # not −values: no negative zeros


def maximized_names(attrs: Mapping[str, Any]) -> tuple[str, ...]:
    """The metrics that are better when larger, from the attributes of the lanes; older files do not list them."""
    return tuple(json.loads(attrs["maximized"])) if "maximized" in attrs else MAXIMIZED


def default_score(names: Collection[str], maximized: Sequence[str]) -> str:
    """The variable that lanes are compared by unless another is named.

    ``validation_loss`` if there is one; else, as `Problem.evaluate` may return no loss, another value on validation
    data: the first that is `maximized`, or the first by name. ``final_loss`` without validation data.

    >>> default_score(["final_loss", "validation_error", "validation_f1"], ["f1"]), default_score(["test_loss"], [])
    ('validation_f1', 'final_loss')
    """
    known = ["validation_loss", *(f"validation_{name}" for name in maximized)]
    others = sorted(name for name in names if str(name).startswith("validation_"))
    return next((name for name in (*known, *others) if name in names), "final_loss")


def is_maximized(names: Container[str], variable: str) -> bool:
    """Whether a variable is better when larger: a metric in `names`, on training, validation or test data.

    >>> [is_maximized(["recall"], name) for name in ("validation_recall", "recall", "test_loss", "late_recall")]
    [True, True, False, False]
    """
    part, _, metric = variable.partition("_")
    return variable in names or (part in ("train", "validation", "test") and metric in names)
