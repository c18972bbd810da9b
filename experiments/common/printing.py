"""How studies print their tables."""

from collections.abc import Iterable, Mapping
from typing import Any


def table(columns: Mapping[str, tuple[str, Iterable[Any]]]) -> str:
    """Columns side by side under their names, each with the format of its values.

    >>> print(table({"name": ("", ["sgd", "adam"]), "best": (".3g", [0.25, 0.00316])}))
    name |    best
    --------------
    sgd  |    0.25
    adam | 0.00316
    """
    made = []
    for name, (form, values) in columns.items():
        cells = [format(value, form) for value in values]
        width = max(map(len, [name, *cells]))
        place = str.rjust if form else str.ljust
        made.append([place(cell, width) for cell in (name, *cells)])
    head, *rows = (" | ".join(row).rstrip() for row in zip(*made, strict=True))
    return "\n".join([head, "-" * max(map(len, [head, *rows])), *rows])
