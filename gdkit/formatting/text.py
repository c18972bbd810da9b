"""Numbers, ranges, durations, counts and tables as text."""

from collections.abc import Sequence
from typing import SupportsFloat


def format_number(value: SupportsFloat | None, digits: int = 4) -> str:
    """`value` rounded to that many significant digits, with a short exponent; an en dash for None.

    >>> [format_number(x) for x in (0.25, 12345.6, 1.5e-05, 2e10, float("inf"), None)]
    ['0.25', '12350', '1.5e-5', '2e10', 'inf', '–']
    """
    if value is None:
        return "–"
    return f"{float(f'{float(value):.{digits}g}'):g}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")


def format_range(bounds: tuple[SupportsFloat, SupportsFloat] | None, digits: int = 4) -> str:
    """``0.1 to 0.4``, or one number where both bounds print alike; an en dash for None.

    >>> format_range((0.1, 0.4)), format_range((0.1, 0.1))
    ('0.1 to 0.4', '0.1')
    """
    if bounds is None:
        return "–"
    low, high = (format_number(bound, digits) for bound in bounds)
    return low if low == high else f"{low} to {high}"


def format_duration(seconds: float) -> str:
    """Seconds in a unit that suits them.

    >>> [format_duration(x) for x in (1.5, 42.0, 600.0, 7200.0)]
    ['1.5 s', '42 s', '10 min', '2.0 h']
    """
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def count(number: int, noun: str) -> str:
    """A number with its noun.

    >>> count(1, "lane"), count(12000, "lane")
    ('1 lane', '12,000 lanes')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def text_table(heads: Sequence[str], rows: Sequence[Sequence[str]], align: str = ">") -> str:
    """Columns under their heads, as wide as their longest cell.

    Args:
      heads: the names of the columns.
      rows: the cells, row by row.
      align: ``<`` or ``>`` for each column, or one character for all columns.

    >>> print(text_table(["name", "loss"], [["sgd", "0.25"], ["adam", "0.5"]], "<>"))
    name | loss
    -----------
    sgd  | 0.25
    adam |  0.5
    """
    align = align if len(align) > 1 else align * len(heads)
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    lines = [" | ".join(f"{c:{a}{w}}" for c, a, w in zip(row, align, widths, strict=True)) for row in (heads, *rows)]
    return "\n".join([lines[0].rstrip(), "-" * len(lines[0]), *(line.rstrip() for line in lines[1:])])


def first_paragraph(docstring: str | None) -> str:
    """The first paragraph of a docstring, in one line; empty without one.

    >>> first_paragraph("Short\\n  and sweet.\\n\\nMore.")
    'Short and sweet.'
    """
    return " ".join((docstring or "").partition("\n\n")[0].split())
