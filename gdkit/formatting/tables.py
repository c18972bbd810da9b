"""Tables as text."""

from collections.abc import Sequence


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
