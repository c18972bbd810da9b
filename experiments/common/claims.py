"""A claim of a study: an expected number, its tolerance, and the number that was measured."""

from typing import Literal, NamedTuple, Self


class Claim(NamedTuple):
    """A statement about a study's result that a program can check."""

    text: str
    source: str  # the paper, or the formula, of the expected number
    expected: float
    tolerance: float  # absolute
    measured: float
    kind: Literal["published", "theory", "check"] = "check"

    @classmethod
    def published(cls, text: str, source: str, expected: float, tolerance: float, measured: float) -> Self:
        """What a paper reports."""
        return cls(text, source, expected, tolerance, measured, "published")

    @classmethod
    def theory(cls, text: str, source: str, expected: float, tolerance: float, measured: float) -> Self:
        """What a closed form or a theorem predicts."""
        return cls(text, source, expected, tolerance, measured, "theory")

    @classmethod
    def check(cls, text: str, source: str, expected: float, tolerance: float, measured: float) -> Self:
        """What holds if the study works as intended: it supports the other claims, and is not counted with them."""
        return cls(text, source, expected, tolerance, measured, "check")

    @property
    def holds(self) -> bool:
        """Whether the measured number lies within the tolerance of the expected one.

        >>> Claim("half", "1 / 2", 0.5, 0.01, 0.505).holds, Claim("half", "1 / 2", 0.5, 0.01, float("nan")).holds
        (True, False)
        """
        return abs(self.measured - self.expected) <= self.tolerance
