"""A claim of a study: an expected number, its tolerance, and the number that was measured."""

from typing import NamedTuple


class Claim(NamedTuple):
    """A statement about a study's result that a program can check."""

    text: str
    source: str  # the paper, or the formula, of the expected number
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
