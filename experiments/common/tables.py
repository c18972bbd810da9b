"""Tables of results as text."""

from collections.abc import Iterable, Mapping
from typing import Any

from gdkit.formatting import text_table


def format_table(columns: Mapping[str, tuple[str, Iterable[Any]]]) -> str:
    """Columns by name, each a format and its values; a column with the empty format is aligned to the left.

    >>> print(format_table({"name": ("", ["sgd", "adam"]), "best": (".3g", [0.25, 0.00316])}))
    name |    best
    --------------
    sgd  |    0.25
    adam | 0.00316
    """
    cells = [[format(value, form) for value in values] for form, values in columns.values()]
    align = "".join(">" if form else "<" for form, _ in columns.values())
    return text_table(list(columns), list(zip(*cells, strict=True)), align)
