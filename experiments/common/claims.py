"""Claims: what a study says of its own result, so that a program can tell whether it holds."""

from typing import NamedTuple


class Claim(NamedTuple):
    """A statement with a number in it, what the source says it is, and what was measured."""

    text: str
    source: str  # the paper, or the formula
    expected: float
    tolerance: float  # absolute
    measured: float

    @property
    def holds(self) -> bool:
        """Whether the measured number lies within the tolerance of the expected one.

        >>> Claim("half", "1 / 2", 0.5, 0.01, 0.505).holds, Claim("half", "1 / 2", 0.5, 0.01, float("nan")).holds
        (True, False)
        """
        return abs(self.measured - self.expected) <= self.tolerance
