"""What the terminal shows: a bar while a sweep runs, tables when it is over."""

import io
import textwrap
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from gdkit.app.summary import (
    MEANINGS,
    SIGNS,
    Row,
    Summary,
    answer,
    diverges,
    duration,
    metric_value,
    number,
    span,
    words,
)
from gdkit.regimes import Regime
from gdkit.sweeps.progress import Progress, plain_lines

_COLOURS = {  # of the terminal's own palette, so that they suit its background
    Regime.SLOW: "bright_black",
    Regime.CONVERGED: "green",
    Regime.OSCILLATING: "cyan",
    Regime.CATAPULT: "magenta",
    Regime.BOUNCING: "yellow",
    Regime.STALLED: "blue",
    Regime.DIVERGED: "red",
}


@contextmanager
def progress(console: Console) -> Generator[Callable[[Progress], None]]:
    """A callback that moves a bar on a terminal, or prints a line now and then elsewhere."""
    if not console.is_terminal:
        yield plain_lines()
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(None),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]}"),
    )
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task("compiling", total=None, rate="")

        def tell(p: Progress) -> None:
            rate = f"{_large(p.rate)} lane-steps/s, {duration(p.left)} left" if p.done else ""
            bar.update(task, description=f"{p.lanes:,} runs", total=p.total, completed=p.done, rate=rate)

        yield tell


def show(console: Console, summary: Summary) -> None:
    """Prints the tables, the answer, and what is not known."""
    console.print(_answers(summary))
    console.print()
    if any(row.band for row in summary.rows):
        console.print(_bands(summary))
    console.print(_legend(summary))
    console.print()
    console.print(Text(answer(summary), style="bold"))
    for text in summary.unknown:
        console.print(Text.assemble(("Not known: ", "bright_black"), text))


def show_claims(console: Console, claims: Sequence[Any]) -> None:
    """Prints what a study says of its result, and whether it holds."""
    if not claims:
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bright_black")
    table.add_column("")
    table.add_column("claim")
    for head in ("expected", "measured"):
        table.add_column(head, justify="right")
    for claim in claims:
        sign = Text("✓", "green") if claim.holds else Text("✗", "bold red")
        table.add_row(sign, Text(claim.text), number(claim.expected), number(claim.measured))
    console.print()
    console.print(table)


def as_text(summary: Summary) -> str:
    """What `show` prints, without colours, for a file."""
    console = Console(file=io.StringIO(), width=120, highlight=False)
    with console.capture() as captured:
        show(console, summary)
    return captured.get()


def _answers(summary: Summary) -> Table:
    heads = ["best " + words(summary.axis or ""), "95 % of seeds", words(summary.by)]
    heads += [words(summary.metric)] if summary.metric else []
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bright_black")
    table.add_column("optimizer", min_width=min(12, max(len(row.optimizer) for row in summary.rows)), vertical="bottom")
    for head in (*heads, "none diverged to", "some diverged at"):
        table.add_column(_narrow(head), justify="right", vertical="bottom", no_wrap=True)
    for row in summary.rows:
        style = "bold" if row is summary.best else ""
        table.add_row(*_cells(summary, row), style=style)
    return table


def _cells(summary: Summary, row: Row) -> list[str]:
    found = row.recommendation
    cells = [row.optimizer]
    cells += [number(found.best), span(found.interval).replace(" to ", "–")] if found else ["–", "–"]
    cells.append(number(row.score))
    if summary.metric:
        cells.append(metric_value(summary.metric, found.metrics.get(summary.metric) if found else None))
    return [*cells, number(found.safe) if found else "–", diverges(row)]


def _bands(summary: Summary) -> Table:
    """Each optimizer's regimes along the axis, a sign a value."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), show_header=False)
    for right in (False, True, False, False):
        table.add_column(justify="right" if right else "left")
    for row in summary.rows:
        signs = Text.assemble(*((SIGNS[regime], _COLOURS[regime]) for _, regime in _thinned(row.band)))
        ends = (number(row.band[0][0]), number(row.band[-1][0])) if row.band else ("", "")
        table.add_row(row.optimizer, Text(ends[0], "bright_black"), signs, Text(ends[1], "bright_black"))
    return table


def _thinned(band: tuple[tuple[float, Regime], ...], most: int = 48) -> list[tuple[float, Regime]]:
    """At most about `most` values of a band, its ends kept."""
    every = -(-len(band) // most)
    return [*band[:-1:every], *band[-1:]] if every > 1 else list(band)


def _legend(summary: Summary) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), show_header=False)
    for right in (False, False, True, False):
        table.add_column(justify="right" if right else "left")
    for regime in Regime:
        count = sum(row.counts.get(regime, 0) for row in summary.rows)
        if count:
            sign = Text(SIGNS[regime], _COLOURS[regime])
            table.add_row(sign, regime.name.lower(), f"{count:,}", Text(MEANINGS[regime], "bright_black"))
    return table


def _narrow(head: str) -> str:
    """A heading on lines of a word or two, so that the table fits 80 columns."""
    return "\n".join(textwrap.wrap(head, 8, break_long_words=False))


def _large(value: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {letter}"
    return f"{value:.3g}"
