"""How a result prints: its sizes, its regimes, and a table of what it recommends."""

from collections.abc import Mapping

import numpy as np

from gdkit.formatting import count, format_number, format_range, html
from gdkit.regimes import Regime
from gdkit.sweeps.result.recommend import Recommendation
from gdkit.sweeps.scoring.lane_values import SweepLike

_TABLE_HEADS = ("optimizer", "axis", "best", "score", "95 % over seeds", "about as good", "none diverged up to",
               "some diverged at", "median edge")  # fmt: skip


def summarize(result: SweepLike) -> tuple[str, str]:
    """The sizes of the sweep, and the number of lanes per regime."""
    codes, numbers = np.unique(result.lane_regimes[result.finished], return_counts=True)
    counts = [f"{number} {Regime(code).name}" for code, number in zip(codes.tolist(), numbers.tolist(), strict=True)]
    missing = result.finished.size - int(np.sum(numbers))
    counts += [f"{missing} not finished"] if missing else []
    axes = ", ".join(f"{name} ({len(values)})" for name, values in result.axes.items())
    steps = int(result.lanes.attrs["steps"])  # 0: runs from elsewhere, without curves
    sizes = f"SweepResult: {count(result.lanes.sizes['lane'], 'lane')}" + f" of {count(steps, 'step')}" * (steps > 0)
    return "; ".join(filter(None, [sizes, axes, count(result.seeds, "seed")])), ", ".join(counts)


def to_html(head: str, counts: str, found: Mapping[tuple[str, ...], Recommendation], optimizers: int) -> str:
    """A table of the recommendations for the optimizers of a sweep, by their labels, with their caveats below it.

    Where there are none it is `counts` alone, the number of lanes per regime.
    """
    if not found:
        return html.table((), [(counts,)], title=head)
    owners: dict[str, list[str]] = {}  # caveat -> the optimizers that have it
    for labels, one in found.items():
        for text in one.caveats:
            owners.setdefault(text, []).extend(labels)
    prefix = lambda labels: f"{', '.join(labels)}: " if len(labels) < optimizers else ""
    note = "\n".join(f"Caveat: {prefix(labels)}{text}" for text, labels in owners.items())
    rows = [_table_row(labels, one) for labels, one in found.items()]
    return html.table(_TABLE_HEADS, rows, title=f"{head}\n{counts}", note=note)


def _table_row(labels: tuple[str, ...], found: Recommendation) -> tuple[str, ...]:
    """The recommendation of one optimizer, in the columns of `_TABLE_HEADS`."""
    best, score = (format_number(value) for value in (found.best, found.score))
    bracket = (format_number(value) for value in (found.safe, found.unsafe, found.edge))
    interval, as_good = format_range(found.interval), format_range(found.as_good)
    return (", ".join(labels) or "–", found.axis, best, score, interval, as_good, *bracket)
