"""Tables as HTML, for notebooks."""

import html
from collections.abc import Iterable, Sequence


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, title: str = "", note: str = "") -> str:
    """A left-aligned table; all arguments are plain text, which is escaped.

    >>> table(["step", "loss"], [["0", "< 9"]], title="a run")
    '<div><p><b>a run</b></p><table><tr><th>step</th><th>loss</th></tr><tr><td>0</td><td>&lt; 9</td></tr></table></div>'
    """
    head = _row("th", heads) if any(heads) else ""
    body = "".join(_row("td", row) for row in rows)
    above = f"<p><b>{_lines(title)}</b></p>" if title else ""
    below = f"<p>{_lines(note)}</p>" if note else ""
    return f"<div>{above}<table>{head}{body}</table>{below}</div>"


def preformat(thing: object) -> str:
    """``str(thing)`` in a fixed-width font, for ``_repr_html_ = html.preformat``."""
    return f"<pre>{html.escape(str(thing))}</pre>"


def _row(tag: str, cells: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{html.escape(cell)}</{tag}>' for cell in cells)}</tr>"


def _lines(text: str) -> str:
    return html.escape(text).replace("\n", "<br>")
