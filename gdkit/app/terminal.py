"""What the terminal shows: a bar while a sweep runs, tables when it is over."""

import io
import textwrap
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from gdkit.app.resources import Resources, format_bytes
from gdkit.app.summary import (
    MEANINGS,
    SIGNS,
    RegimeCell,
    Row,
    Summary,
    answer,
    counted,
    diverges,
    duration,
    metric_value,
    number,
    shown,
    span,
    words,
)
from gdkit.app.tally import OptimizerTally, Tally
from gdkit.regimes import Regime
from gdkit.sweeps.axes import group_points
from gdkit.sweeps.execution.progress import Progress
from gdkit.sweeps.plan.shapes import count_workers
from gdkit.sweeps.request import select_devices

_COLOURS = {  # of the terminal's own palette, so that they suit its background
    Regime.SLOW: "bright_black",
    Regime.CONVERGED: "green",
    Regime.OSCILLATING: "cyan",
    Regime.CATAPULT: "magenta",
    Regime.BOUNCING: "yellow",
    Regime.STALLED: "blue",
    Regime.DIVERGED: "red",
}
_DIVIDED = "x"  # of values at which some runs diverged and some did not


def show_plan(console: Console, name: str, request: Any, needed: Resources) -> None:
    """Prints what is going to be run, as far as it is known before anything is compiled."""
    programs = sum(len(group_points(section)) for section in request.sections)
    sizes = [f"{s.label} {s.point_count * request.seeds:,}" for s in request.sections if s.label is not None]
    several = f": {_listed(sizes)}" if len(sizes) > 1 else ""
    console.print(Text(f"{name}: {counted(request.lane_count, 'run')} of {counted(request.steps, 'step')}{several}"))
    seeds = f"{counted(request.seeds, 'seed')} a point, " if request.seeds > 1 else ""
    workers = counted(count_workers(request.plan, len(select_devices(request.plan))), "worker")
    console.print(Text(f"{seeds}{counted(programs, 'program')}, {workers}", "bright_black"))
    sizes = f"{format_bytes(needed.memory)} of memory, {format_bytes(needed.disk)} of disk"
    console.print(Text(f"needs at least {sizes}", "bright_black"))


@contextmanager
def progress(console: Console) -> Generator[tuple[Callable[[Progress], None], Callable[[Tally], None]]]:
    """Callbacks for the engine and for finished tiles: a moving table on a terminal, a line now and then elsewhere."""
    if not console.is_terminal:
        lines = _Lines(console)
        yield lines.tell, lines.show
        return
    board = _Board(console)
    with Live(console=console, get_renderable=board.table, refresh_per_second=_FRAMES, transient=True):
        yield board.tell, board.show


class _Board:
    """The table that moves: a line an optimizer, and one for all."""

    def __init__(self, console: Console):
        self._console = console
        self._progress: Progress | None = None
        self._tally: Tally | None = None

    def tell(self, progress: Progress) -> None:
        """Of the engine."""
        self._progress = progress

    def show(self, tally: Tally) -> None:
        """Of the tiles."""
        if self._tally is None:
            self._console.print(Text(_tiles(tally), "bright_black"))
        self._tally = tally

    def table(self) -> Table:
        """What is shown now."""
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False, expand=True)
        table.add_column(no_wrap=True, overflow="ellipsis", max_width=24)
        table.add_column(ratio=1, min_width=6)
        for _ in range(2):
            table.add_column(justify="right", no_wrap=True)
        table.add_column(no_wrap=True, overflow="ellipsis")
        parts = self._tally.parts if self._tally else []
        for part in parts if len(parts) > 1 else []:
            if part in _in_view(parts):
                table.add_row(*_board_row(part))
        table.add_row(*self._whole(parts))
        return table

    def _whole(self, parts: Sequence[OptimizerTally]) -> list[Any]:
        p = self._progress
        if p is None or not p.done:
            return ["preparing", ProgressBar(total=None, pulse=True, animation_time=time.monotonic()), "", "", ""]
        lost, best = sum(part.diverged for part in parts), _best(parts)
        left = f"{_large(p.rate)} steps/s, {duration(p.left)} left" if p.tells else ""
        if len(parts) == 1 and best:
            left = ", ".join(filter(None, [left, _reached(best)]))
        share = f"{p.lanes_done:,}/{p.lanes:,}"
        return [Text("all", "bold"), ProgressBar(p.total, p.done), share, _lost(lost), left]


class _Lines:
    """Plain lines, at most one in some seconds, and one at the end."""

    def __init__(self, console: Console):
        self._console, self._told = console, time.monotonic()
        self._parts: list[OptimizerTally] = []
        self._lock = threading.Lock()

    def show(self, tally: Tally) -> None:
        """Of the tiles."""
        if not self._parts:
            self._print(_tiles(tally))
        self._parts = list(tally.parts)

    def tell(self, p: Progress) -> None:
        """Of the engine."""
        if p.lanes_done == p.lanes:
            self._print(f"100 %  {counted(p.lanes, 'run')} in {duration(p.seconds)}")
        elif p.done and time.monotonic() - self._told >= _LINE_EVERY:
            self._told = time.monotonic()
            begun = [part for part in self._parts if 0 < part.finished < part.lanes] or self._parts
            share = min(99, int(100 * p.done / p.total))
            left = f", {duration(p.left)} left" if p.tells else ""
            said = [f"{share:3} %  {p.lanes_done:,} of {p.lanes:,} runs{left}"]
            self._print("; ".join(said + [_said(part) for part in begun if part.finished]))

    def _print(self, text: str) -> None:
        with self._lock:
            self._console.print(text, markup=False, soft_wrap=True)


_FRAMES = 2  # a second: half a hundredth of a core
_LINE_EVERY = 10.0  # seconds
_ROWS = 12  # optimizers that are shown at once


def _in_view(parts: Sequence[OptimizerTally]) -> list[OptimizerTally]:
    """Those that are running, then those that have ended and those to come, as many as a terminal shows."""
    rank = lambda part: 0 if 0 < part.finished < part.lanes else 1 if part.finished else 2
    return sorted(parts, key=rank)[:_ROWS]


def _board_row(part: OptimizerTally) -> list[Any]:
    done = f"{part.finished:,}/{part.lanes:,}"
    reached = _reached(part) if part.finished else ""
    return [Text(part.label), ProgressBar(part.lanes, part.finished), done, _lost(part.diverged), reached]


def _lost(count: int) -> Text:
    return Text(f"{count:,} diverged", "red") if count else Text("")


def _said(part: OptimizerTally) -> str:
    lost = f", {part.diverged:,} diverged" if part.diverged else ""
    name = f"{part.label} " if part.label else ""
    return f"{name}{part.finished:,} of {part.lanes:,}{lost}, {_reached(part)}"


def _reached(part: OptimizerTally) -> str:
    """The best run so far."""
    if part.best is None:
        return "none arrived" if part.finished else ""
    first = next((value for value in part.at.values()), None)
    return f"best {number(part.best)}" + (f" at {shown(first)}" if first is not None else "")


def _best(parts: Sequence[OptimizerTally]) -> OptimizerTally | None:
    known = [part for part in parts if part.best is not None]
    return min(known, key=lambda part: part.best or 0.0) if known else None


def _tiles(tally: Tally) -> str:
    """What is known of a plan once its programs are compiled."""
    partition = tally.run.partition
    widths = sorted({group.width * group.depth for group in partition.groups})
    width = f"{widths[0]:,}" if len(widths) == 1 else f"{widths[0]:,} to {widths[-1]:,}"
    many = partition.blocks > partition.tiles
    blocks = f" with {counted(partition.blocks, 'block')}" if many else ""
    return f"plan: {counted(partition.tiles, 'tile')}{blocks}, {width} runs {'a block' if many else 'each'}"


def _listed(texts: Sequence[str], most: int = 8) -> str:
    more = len(texts) - most
    return ", ".join(texts) if more <= 1 else f"{', '.join(texts[:most])} and {more} more"


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
        signs = Text.assemble(*map(_sign, _thinned(row.band)))
        ends = (number(row.band[0].value), number(row.band[-1].value)) if row.band else ("", "")
        table.add_row(row.optimizer, Text(ends[0], "bright_black"), signs, Text(ends[1], "bright_black"))
    return table


def _sign(cell: RegimeCell) -> tuple[str, str]:
    """The commonest regime of a value, or that its runs are divided about divergence; and its colour."""
    return (_DIVIDED, "red") if cell.divided else (SIGNS[cell.regime], _COLOURS[cell.regime])


def _thinned(band: tuple[RegimeCell, ...], most: int = 48) -> list[RegimeCell]:
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
    if any(cell.divided for row in summary.rows for cell in _thinned(row.band)):
        table.add_row(Text(_DIVIDED, "red"), "divided", "", Text("some diverged there, some did not", "bright_black"))
    return table


def _narrow(head: str) -> str:
    """A heading on lines of a word or two, so that the table fits 80 columns."""
    return "\n".join(textwrap.wrap(head, 8, break_long_words=False))


def _large(value: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {letter}"
    return f"{value:.3g}"
