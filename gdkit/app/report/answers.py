"""The answer in words, from the numbers: what to use, how sure that is, where it breaks."""

from typing import NamedTuple

import numpy as np

from gdkit.app.summary import Row, Summary, all_diverged, diverges, metric_value, number, settings, span, words
from gdkit.regimes import Regime
from gdkit.sweeps.result.recommend import Recommendation

_THERE = (Regime.CONVERGED, Regime.OSCILLATING, Regime.CATAPULT)


class AnswerCard(NamedTuple):
    """A number at a glance."""

    name: str
    value: str
    detail: str


def headline(summary: Summary) -> str:
    """What to use, in a sentence."""
    row, found = summary.best, summary.best.recommendation
    if not np.isfinite(row.score):
        return all_diverged(summary)
    if found is None or found.best is None:
        return f"{row.optimizer or 'The best run'} reaches a {words(summary.by)} of {number(row.score)}."
    what = f"{row.optimizer} with " if row.optimizer else ""
    what += settings(found)
    if not any(row.counts.get(regime) for row in summary.rows for regime in _THERE):
        return f"No run arrived. Closest came {what}."
    return f"Use {what}{_at_the_end(row)}."


def deck(summary: Summary) -> str:
    """What follows the headline: how good that is, how sure, and where it breaks."""
    row, found = summary.best, summary.best.recommendation
    if found is None or found.best is None:
        return ""
    said = [_quality(summary, row, found), _certainty(found), _breadth(found), _breaks(found), _least(summary)]
    return " ".join(filter(None, said))


def tiles(summary: Summary) -> list[AnswerCard]:
    """The numbers of the best optimizer."""
    row, found = summary.best, summary.best.recommendation
    if found is None or found.best is None:
        return []
    alone = "one seed: no interval" if len(row.seeds) == 1 else "no interval before all seeds have ended"
    interval = f"95 % over seeds: {span(found.interval)}" if found.interval else alone
    gain = f"within {100 * found.plateau_share:g} % of what there is to gain"
    shown = [
        AnswerCard(f"best {words(found.axis)}", number(found.best), interval),
        AnswerCard("about as good", span(found.plateau), gain),
    ]
    if found.safe is not None:
        shown.append(AnswerCard("none diverged up to", number(found.safe), f"some diverged at: {diverges(row)}"))
    share = edge_share(found)
    if share is not None:
        shown.append(AnswerCard("edge of divergence", number(found.edge), f"{number(share)} times the best"))
    return [*shown, AnswerCard(words(summary.by), number(found.score), _metric(summary, found))]


def edge_share(found: Recommendation) -> float | None:
    """The edge as a multiple of the best value; None where either is not known."""
    return found.edge / found.best if found.edge and found.best and found.best > 0 else None


def least_sensitive(summary: Summary) -> Row | None:
    """The optimizer whose score depends least on its axis; None where there is nothing to compare."""
    known = [row for row in summary.rows if np.isfinite(_sensitivity(row))]
    return min(known, key=_sensitivity) if len(known) > 1 else None


def _sensitivity(row: Row) -> float:
    found = row.recommendation
    return found.sensitivity if found and found.sensitivity is not None else float("inf")


def _metric(summary: Summary, found: Recommendation) -> str:
    value = found.metrics.get(summary.metric or "")
    return f"{words(str(summary.metric))} {metric_value(str(summary.metric), value)}" if value is not None else ""


def _at_the_end(row: Row) -> str:
    values = [cell.value for cell in row.band]
    best = row.recommendation.best if row.recommendation else None
    if len(values) < 2 or best not in (values[0], values[-1]):
        return ""
    return ", the largest that was tried" if best == values[-1] else ", the smallest that was tried"


def _quality(summary: Summary, row: Row, found: Recommendation) -> str:
    metric = _metric(summary, found)
    also = f" and its {metric}" if metric else ""
    ended = int(np.sum(~np.isnan(row.seeds)))
    seeds = f", on average over {ended} seeds" if ended > 1 else ""
    return f"Its {words(summary.by)} is {number(row.score)}{also}{seeds}."


def _certainty(found: Recommendation) -> str:
    if found.interval is None:
        return ""
    low, high = map(number, found.interval)
    if low == high:
        return "Resampled seeds would choose the same value."
    return f"Of resampled seeds, 95 % would choose a value from {low} to {high}."


def _breadth(found: Recommendation) -> str:
    if found.plateau is None or found.plateau[0] == found.plateau[1]:
        return ""
    return f"Anything from {number(found.plateau[0])} to {number(found.plateau[1])} does about as well."


def _breaks(found: Recommendation) -> str:
    share = edge_share(found)
    if share is None:
        return f"Nothing diverged up to {number(found.safe)}." if found.unsafe is None else ""
    if share < 1:
        return f"For the median seed divergence begins at {number(found.edge)}, below that: it is not safe."
    safe = f"; nothing diverged up to {number(found.safe)}" if found.safe is not None else ""
    return f"Divergence begins at {number(found.edge)}, {number(share)} times that{safe}."


def _least(summary: Summary) -> str:
    row = least_sensitive(summary)
    if row is None:
        return ""
    most = max((row for row in summary.rows if np.isfinite(_sensitivity(row))), key=_sensitivity)
    return (
        f"Of the optimizers, {row.optimizer} depends least on its {words(str(summary.axis))}: over the values it was "
        f"given it loses {number(_sensitivity(row))} on average against its best, {most.optimizer} "
        f"{number(_sensitivity(most))}."
    )
