"""The terminal after a run: a table of optimizers, their regimes along the axis, and the answer."""

import io
import textwrap
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gdkit.app.answers import format_answer, tabulate_optimizers
from gdkit.app.summary import (
    MEANINGS,
    SIGNS,
    RegimeCell,
    StudyClaim,
    Summary,
    format_deviation,
    format_expected,
    short_number,
)
from gdkit.regimes import Regime

_COLORS = {  # from the terminal's own palette, so that they suit its background
    Regime.SLOW: "bright_black",
    Regime.CONVERGED: "green",
    Regime.OSCILLATING: "cyan",
    Regime.CATAPULT: "magenta",
    Regime.BOUNCING: "yellow",
    Regime.STALLED: "blue",
    Regime.DIVERGED: "red",
    Regime.UNKNOWN: "white",
}
_HEADS = {  # in place of those of the report; empty for columns that a terminal has no room for
    "95 % interval over seeds": "95 % interval",
    "no divergence up to": "none diverged up to",
    "about as good": "",
    "diverges above about": "",
}
_DIVIDED = "x"  # sign of a value at which some runs diverged and others did not


def print_summary(console: Console, summary: Summary) -> None:
    """Print the tables, the answer and the caveats."""
    console.print(_build_optimizer_table(summary, console))
    console.print()
    if any(row.cells for row in summary.rows):
        console.print(_build_regime_table(summary, console.width))
    console.print(_build_legend(summary))
    console.print()
    console.print(Text(format_answer(summary), style="bold"))
    for text in summary.caveats:
        console.print(Text.assemble(("Caveat: ", "bright_black"), text))


def print_claims(console: Console, claims: Sequence[StudyClaim]) -> None:
    """Print the claims of a study, whether they hold, and their deviations in tolerances."""
    if not claims:
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bright_black")
    table.add_column("")
    table.add_column("claim")
    for head in ("expected", "measured", "off by"):
        table.add_column(head, justify="right")
    for claim in claims:
        sign = Text("✓", "green") if claim.holds else Text("✗", "bold red")
        numbers = (format_expected(claim), short_number(claim.measured), format_deviation(claim))
        table.add_row(sign, Text(claim.text), *numbers)
    console.print()
    console.print(table)


def format_summary(summary: Summary) -> str:
    """The output of `print_summary` without colors, for a file."""
    console = Console(file=io.StringIO(), width=120, highlight=False)
    with console.capture() as captured:
        print_summary(console, summary)
    return captured.get()


def _build_optimizer_table(summary: Summary, console: Console) -> Table:
    """One row per optimizer; where the console is too narrow for it, one line per number."""
    columns = {_HEADS.get(head, head): cells for head, cells in tabulate_optimizers(summary).items()}
    heads = [head for head in columns if head and not head.startswith("sensitivity")]
    rows = list(zip(*(columns[head] for head in heads), strict=True))
    styles = ["bold" if row is summary.best else "" for row in summary.rows]
    for gap in (2, 1):
        table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="bright_black")
        for index, head in enumerate(heads):
            justify = "right" if index else "left"
            table.add_column(_wrap_head(head), justify=justify, vertical="bottom", no_wrap=True)
        for cells, style in zip(rows, styles, strict=True):
            table.add_row(*cells, style=style)
        if console.measure(table, options=console.options.update(width=1000)).maximum <= console.width:
            return table
    listing = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    for cells, style in zip(rows, styles, strict=True):
        listing.add_row(cells[0], style=style or "underline")
        for head, cell in zip(heads[1:], cells[1:], strict=True):
            listing.add_row("  " + head, cell, style=style)
    return listing


def _build_regime_table(summary: Summary, width: int) -> Table:
    """The regimes of each optimizer along the axis, one sign per value, or fewer where `width` is too small."""
    names = max(len(row.optimizer) for row in summary.rows)
    most = max(8, min(48, width - names - 20))  # 20 characters hold both ends and the gaps
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), show_header=False)
    for justify in ("left", "right", "left", "left"):
        table.add_column(justify=justify)
    for row in summary.rows:
        signs = Text.assemble(*map(_choose_sign, _thin(row.cells, most)))
        ends = (short_number(row.cells[0].value), short_number(row.cells[-1].value)) if row.cells else ("", "")
        table.add_row(row.optimizer, Text(ends[0], "bright_black"), signs, Text(ends[1], "bright_black"))
    return table


def _choose_sign(cell: RegimeCell) -> tuple[str, str]:
    """The sign and color of a value: its most common regime, or that only some of its runs diverged."""
    return (_DIVIDED, "red") if cell.is_divided else (SIGNS[cell.regime], _COLORS[cell.regime])


def _thin(cells: tuple[RegimeCell, ...], most: int = 48) -> list[RegimeCell]:
    """About `most` cells at equal distances, the first and the last included."""
    every = -(-len(cells) // most)
    return [*cells[:-1:every], *cells[-1:]] if every > 1 else list(cells)


def _build_legend(summary: Summary) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), show_header=False)
    for justify in ("left", "left", "right", "left"):
        table.add_column(justify=justify)
    for regime in Regime:
        runs = sum(row.counts.get(regime, 0) for row in summary.rows)
        if runs:
            sign = Text(SIGNS[regime], _COLORS[regime])
            table.add_row(sign, regime.name.lower(), f"{runs:,}", Text(MEANINGS[regime], "bright_black"))
    if any(cell.is_divided for row in summary.rows for cell in _thin(row.cells)):
        meaning = Text("some runs at this value diverged, others did not", "bright_black")
        table.add_row(Text(_DIVIDED, "red"), "split", "", meaning)
    return table


def _wrap_head(head: str) -> str:
    """A heading on lines of one or two words."""
    return "\n".join(textwrap.wrap(head, 8, break_long_words=False))
