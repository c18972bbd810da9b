"""The terminal before and while a sweep runs: the plan, then a live table, or lines if the output is no terminal."""

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from gdkit.app.labels import humanize
from gdkit.app.resources import Resources, format_bytes
from gdkit.app.summary import short_number, short_value
from gdkit.app.tally import OptimizerTally, Tally
from gdkit.formatting import count, format_duration
from gdkit.store.partition import Partition
from gdkit.sweeps.axes import group_points
from gdkit.sweeps.execution.progress import Progress
from gdkit.sweeps.plan.shapes import count_workers
from gdkit.sweeps.request import SweepRequest, select_devices
from gdkit.sweeps.scoring.direction import orient

_FRAMES = 2  # per second: half a percent of one core
_LINE_INTERVAL = 10.0  # seconds
_MAX_ROWS = 12  # optimizers shown at once
_WIDE = 70  # columns of a terminal that holds all numbers


def print_plan(console: Console, name: str, request: SweepRequest, needed: Resources) -> None:
    """Print the size of a run, as known before anything is compiled."""
    programs = sum(len(group_points(section)) for section in request.sections)
    sizes = [f"{s.label} {s.point_count * request.seeds:,}" for s in request.sections if s.label is not None]
    optimizers = f": {_shorten_list(sizes)}" if len(sizes) > 1 else ""
    console.print(Text(f"{name}: {count(request.lane_count, 'run')} of {count(request.steps, 'step')}{optimizers}"))
    seeds = f"{count(request.seeds, 'seed')} per point, " if request.seeds > 1 else ""
    workers = count(count_workers(request.plan, len(select_devices(request.plan))), "worker")
    console.print(Text(f"{seeds}{count(programs, 'program')}, {workers}", "bright_black"))
    needs = f"needs at least {format_bytes(needed.memory)} of memory and {format_bytes(needed.disk)} of disk"
    console.print(Text(needs, "bright_black"))


@contextmanager
def show_progress(console: Console) -> Generator[tuple[Callable[[Progress], None], Callable[[Tally], None]]]:
    """Yield callbacks for progress and for tallies: a live table on a terminal, lines at intervals elsewhere."""
    if not console.is_terminal or console.quiet:
        lines = ProgressLines(console)
        yield lines.update_progress, lines.update_tally
        return
    board = ProgressBoard(console)
    with Live(console=console, get_renderable=board.table, refresh_per_second=_FRAMES, transient=True):
        yield board.update_progress, board.update_tally


class ProgressBoard:
    """The live table: one line per optimizer, and one for all."""

    def __init__(self, console: Console):
        self._console = console
        self._progress: Progress | None = None
        self._optimizers: list[OptimizerTally] = []

    def update_progress(self, progress: Progress) -> None:
        """Show the latest progress of the sweep."""
        self._progress = progress

    def update_tally(self, tally: Tally) -> None:
        """Show the latest counts over finished tiles; the first time, print the plan of tiles."""
        if not self._optimizers:
            self._console.print(Text(_describe_tiles(tally.store.partition), "bright_black"))
        self.update_optimizers(tally.optimizers)

    def update_optimizers(self, optimizers: Sequence[OptimizerTally]) -> None:
        """Show the latest counts of every optimizer."""
        self._optimizers = list(optimizers)

    def table(self) -> Table:
        """The table as it is now."""
        gap = 2 if self._console.width >= _WIDE else 1
        table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), show_header=False, expand=True)
        table.add_column(no_wrap=True, overflow="ellipsis", max_width=24 if gap == 2 else 10)
        table.add_column(ratio=1, min_width=6 if gap == 2 else 2)
        for _ in range(2):
            table.add_column(justify="right", no_wrap=True)
        table.add_column(no_wrap=True, overflow="ellipsis")
        visible = _select_visible(self._optimizers)
        for optimizer in self._optimizers if len(self._optimizers) > 1 else []:
            if optimizer in visible:
                table.add_row(*_format_optimizer(optimizer, is_wide=gap == 2))
        table.add_row(*self._format_total())
        return table

    def _format_total(self) -> list[RenderableType]:
        p, optimizers = self._progress, self._optimizers
        if p is None or not p.done:
            return ["preparing", ProgressBar(total=None, pulse=True, animation_time=time.monotonic()), "", "", ""]
        best = _find_best(optimizers)
        is_wide = self._console.width >= _WIDE
        remaining = f"{format_duration(p.seconds_left)} left" if p.has_rate else ""
        if is_wide:
            rate = f"{_format_rate(p.rate)} steps/s" if p.has_rate and self._console.width >= 100 else ""
            remaining = ", ".join(filter(None, [_describe_steps(p), rate, remaining]))
        if len(optimizers) == 1 and best:
            remaining = ", ".join(filter(None, [remaining, _describe_best(best, is_wide=is_wide)]))
        diverged = _format_diverged(sum(optimizer.diverged for optimizer in optimizers)) if is_wide else ""
        return [
            Text("all", "bold"),
            ProgressBar(p.total, p.done),
            f"{p.lanes_done:,}/{p.lanes:,}",
            diverged,
            remaining,
        ]


class ProgressLines:
    """Plain lines, at most one every few seconds, and one at the end."""

    def __init__(self, console: Console):
        self._console, self._printed_at = console, time.monotonic()
        self._optimizers: list[OptimizerTally] = []

    def update_tally(self, tally: Tally) -> None:
        """Show the latest counts over finished tiles; the first time, print the plan of tiles."""
        if not self._optimizers:
            self._print(_describe_tiles(tally.store.partition))
        self._optimizers = list(tally.optimizers)

    def update_progress(self, p: Progress) -> None:
        """Print a line if the last one is some seconds old, or if all runs have finished."""
        if p.lanes_done == p.lanes:
            self._print(f"100 %  {count(p.lanes, 'run')} in {format_duration(p.seconds)}")
        elif p.done and time.monotonic() - self._printed_at >= _LINE_INTERVAL:
            self._printed_at = time.monotonic()
            running = [o for o in self._optimizers if 0 < o.finished < o.lanes] or self._optimizers
            share = min(99, int(100 * p.done / p.total))
            remaining = f", {format_duration(p.seconds_left)} left" if p.has_rate else ""
            parts = [f"{share:3} %  {_describe_steps(p)}, {p.lanes_done:,} of {p.lanes:,} runs finished{remaining}"]
            self._print("; ".join(parts + [_describe_optimizer(o) for o in running if o.finished]))

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)


def _select_visible(optimizers: Sequence[OptimizerTally]) -> list[OptimizerTally]:
    """Running optimizers first, then finished ones, then the others, as many as a terminal shows."""
    rank = lambda o: 0 if 0 < o.finished < o.lanes else 1 if o.finished else 2
    return sorted(optimizers, key=rank)[:_MAX_ROWS]


def _describe_steps(p: Progress) -> str:
    """How many steps, over all runs, are completed."""
    return f"{_format_rate(p.done)} of {_format_rate(p.total)} steps"


def _format_optimizer(optimizer: OptimizerTally, *, is_wide: bool) -> list[RenderableType]:
    return [
        Text(optimizer.label),
        ProgressBar(optimizer.lanes, optimizer.finished),
        f"{optimizer.finished:,}/{optimizer.lanes:,}",
        _format_diverged(optimizer.diverged) if is_wide else "",
        _describe_best(optimizer, is_wide=is_wide),
    ]


def _format_diverged(runs: int) -> Text:
    return Text(f"{runs:,} diverged", "red") if runs else Text("")


def _describe_optimizer(optimizer: OptimizerTally) -> str:
    diverged = f", {optimizer.diverged:,} diverged" if optimizer.diverged else ""
    name = f"{optimizer.label} " if optimizer.label else ""
    return f"{name}{optimizer.finished:,} of {optimizer.lanes:,}{diverged}, {_describe_best(optimizer)}"


def _describe_best(optimizer: OptimizerTally, *, is_wide: bool = True) -> str:
    """The best mean score over seeds so far; empty before the first point has finished."""
    if optimizer.best is None:
        return "no finite score" if optimizer.finished == optimizer.lanes else ""
    value = next(iter(optimizer.best_at.values()), None)
    measure = f"{humanize(optimizer.by)} " if is_wide and optimizer.by else ""
    return f"{measure}{short_number(optimizer.best)}" + (f" at {short_value(value)}" if value is not None else "")


def _find_best(optimizers: Sequence[OptimizerTally]) -> OptimizerTally | None:
    scored = [optimizer for optimizer in optimizers if optimizer.best is not None]
    return min(scored, key=lambda one: orient(one.best or 0.0, one.maximize)) if scored else None


def _describe_tiles(partition: Partition) -> str:
    """The plan of tiles and blocks, known once the programs are compiled."""
    widths = sorted({group.width * group.depth for group in partition.groups})
    width = f"{widths[0]:,}" if len(widths) == 1 else f"{widths[0]:,} to {widths[-1]:,}"
    runs = "run" if width == "1" else "runs"
    if partition.blocks <= partition.tiles:
        return f"plan: {count(partition.tiles, 'tile')}, {width} {runs} per tile"
    return f"plan: {count(partition.tiles, 'tile')} with {count(partition.blocks, 'block')}, {width} {runs} per block"


def _format_rate(value: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {letter}"
    return f"{value:.3g}"


def _shorten_list(texts: Sequence[str], most: int = 8) -> str:
    more = len(texts) - most
    return ", ".join(texts) if more <= 1 else f"{', '.join(texts[:most])} and {more} more"
