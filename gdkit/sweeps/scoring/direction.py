"""The direction of a variable: whether small or large values are good. Small scores are good."""

import json
from collections.abc import Mapping
from typing import Any, overload

import numpy as np

from gdkit.descent.evaluation import default_score as default_score
from gdkit.descent.evaluation import is_maximized as is_maximized
from gdkit.problems.problem import MAXIMIZED


@overload
def orient(values: float, maximize: bool) -> float: ...
@overload
def orient(values: np.ndarray, maximize: bool) -> np.ndarray: ...
def orient(values: float | np.ndarray, maximize: bool) -> float | np.ndarray:
    """Values of a variable as scores, small if good; and the inverse, scores as values of the variable."""
    return 0 - values if maximize else values  # not −values: no negative zeros


def maximized_names(attrs: Mapping[str, Any]) -> tuple[str, ...]:
    """The metrics that are better when larger, from the attributes of the lanes; older files do not list them."""
    return tuple(json.loads(attrs["maximized"])) if "maximized" in attrs else MAXIMIZED
