"""The part of a result that continues its lanes."""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import numpy as np

from gdkit.sweeps.result.explanation import Explanation
from gdkit.types import State

_Result = TypeVar("_Result")


class LaneStates(Protocol):
    """Returns the state of a lane, at its end or at the step of an evaluation."""

    def __call__(self, lane: int, step: int | None = None) -> State: ...


class Resumable(Protocol[_Result]):
    """What continues a sweep whose problem and optimizer are known; `gdkit.sweeps.resume` has it."""

    def extend(self, steps: int, *, progress: Callable[[Any], None] | None = None) -> _Result:
        """The sweep with `steps` steps in total."""

    def refine(
        self,
        result: _Result,
        axis: str,
        around: str | tuple[float, float],
        count: int,
        progress: Callable[[Any], None] | None = None,
        *,
        by: str | None = None,
        maximize: bool | None = None,
    ) -> _Result:
        """The sweep with `count` more values of `axis`."""

    def replay(self, lane: int, onset: int, around: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """What a lane does around the step `onset`, step by step, and all columns that it reports at its end."""

    def explain(self, result: _Result, lane: int, *, points: int, flow_steps: int) -> Explanation:
        """Why a lane ended as it did."""
