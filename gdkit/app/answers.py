"""The answer in words: which value to use, how certain it is, and where runs diverge."""

from typing import NamedTuple

import numpy as np

from gdkit.app.summary import (
    Summary,
    SummaryRow,
    format_metric,
    humanize,
    short_number,
    short_range,
    short_value,
)
from gdkit.regimes import Regime
from gdkit.sweeps.result.recommend import Recommendation

_CONVERGED = (Regime.CONVERGED, Regime.OSCILLATING, Regime.CATAPULT)


class AnswerCard(NamedTuple):
    """A number with its name and one line of detail."""

    name: str
    value: str
    detail: str


def format_answer(summary: Summary) -> str:
    """The whole answer in one or two sentences, for a terminal."""
    row, found = summary.best, summary.best.recommendation
    if not np.isfinite(row.score) or found is None or found.best is None:
        return format_headline(summary)
    metric = _format_metric(summary, found)
    quality = ", ".join(filter(None, [f"{humanize(summary.by)} {short_number(found.score)}", metric]))
    safe = f" No run diverged up to {short_number(found.safe)}." if found.safe is not None else ""
    return f"Use {_name_choice(row, found)}: {quality}.{safe}"


def format_headline(summary: Summary) -> str:
    """Which value to use, in one sentence."""
    row, found = summary.best, summary.best.recommendation
    if not np.isfinite(row.score):
        return "Every finished run diverged." if summary.unfinished else "Every run diverged. Try smaller values."
    if found is None or found.best is None:
        return f"{row.optimizer or 'The best run'} reaches a {humanize(summary.by)} of {short_number(row.score)}."
    choice = _name_choice(row, found)
    if not any(row.counts.get(regime) for row in summary.rows for regime in _CONVERGED):
        return f"No run converged. The best is {choice}."
    return f"Use {choice}{_end_of_axis(row)}."


def format_details(summary: Summary) -> str:
    """The sentences after the headline: how good the value is, how certain, and where runs diverge."""
    row, found = summary.best, summary.best.recommendation
    if found is None or found.best is None:
        return ""
    sentences = [
        _describe_quality(summary, row, found),
        _describe_certainty(found),
        _describe_plateau(found),
        _describe_divergence(found),
        _describe_sensitivity(summary),
    ]
    return " ".join(filter(None, sentences))


def answer_cards(summary: Summary) -> list[AnswerCard]:
    """The numbers of the best optimizer."""
    row, found = summary.best, summary.best.recommendation
    if found is None or found.best is None:
        return []
    missing = "one seed: no interval" if len(row.seeds) == 1 else "no interval until all seeds finish"
    interval = f"95 % interval over seeds: {short_range(found.interval)}" if found.interval else missing
    plateau = f"within {100 * found.plateau_share:g} % of the gap between start and best"
    cards = [
        AnswerCard(f"best {humanize(found.axis)}", short_number(found.best), interval),
        AnswerCard("about as good", short_range(found.plateau), plateau),
    ]
    if found.safe is not None:
        divergence = "no divergence found" if found.unsafe is None else f"some seed diverged at {first_divergence(row)}"
        cards.append(AnswerCard("no divergence up to", short_number(found.safe), divergence))
    ratio = edge_ratio(found)
    if ratio is not None:
        times = f"{short_number(ratio)} times the best"
        cards.append(AnswerCard("edge of divergence", short_number(found.edge), times))
    return [*cards, AnswerCard(humanize(summary.by), short_number(found.score), _format_metric(summary, found))]


def describe_settings(found: Recommendation) -> str:
    """The best value with those of the other axes: ``learning rate 0.1, momentum 0.9 and batch size 32``."""
    others = {name: value for name, value in found.at.items() if name != "optimizer"}
    settings = [f"{humanize(name)} {short_value(value)}" for name, value in ({found.axis: found.best} | others).items()]
    return " and ".join(filter(None, [", ".join(settings[:-1]), settings[-1]]))


def first_divergence(row: SummaryRow) -> str:
    """The smallest value at which some seed diverged, for a table."""
    found = row.recommendation
    if found is None:
        return "–"
    return "never" if found.unsafe is None else short_number(found.unsafe)


def edge_ratio(found: Recommendation) -> float | None:
    """The edge as a multiple of the best value; None unless both are known."""
    return found.edge / found.best if found.edge and found.best and found.best > 0 else None


def least_sensitive(summary: Summary) -> SummaryRow | None:
    """The optimizer whose score depends least on its axis; None without two to compare."""
    rows = [row for row in summary.rows if np.isfinite(_sensitivity(row))]
    return min(rows, key=_sensitivity) if len(rows) > 1 else None


def _sensitivity(row: SummaryRow) -> float:
    found = row.recommendation
    return found.sensitivity if found and found.sensitivity is not None else float("inf")


def _name_choice(row: SummaryRow, found: Recommendation) -> str:
    settings = describe_settings(found)
    return f"{row.optimizer} with {settings}" if row.optimizer else settings


def _format_metric(summary: Summary, found: Recommendation) -> str:
    name = summary.metric or ""
    value = found.metrics.get(name)
    return "" if value is None else f"{humanize(name)} {format_metric(name, value)}"


def _end_of_axis(row: SummaryRow) -> str:
    values = [cell.value for cell in row.cells]
    best = row.recommendation.best if row.recommendation else None
    if len(values) < 2 or best not in (values[0], values[-1]):
        return ""
    return ", the largest value tried" if best == values[-1] else ", the smallest value tried"


def _describe_quality(summary: Summary, row: SummaryRow, found: Recommendation) -> str:
    metric = _format_metric(summary, found)
    and_metric = f" and its {metric}" if metric else ""
    finished = int(np.sum(~np.isnan(row.seeds)))
    seeds = f", averaged over {finished} seeds" if finished > 1 else ""
    return f"Its {humanize(summary.by)} is {short_number(row.score)}{and_metric}{seeds}."


def _describe_certainty(found: Recommendation) -> str:
    if found.interval is None:
        return ""
    if short_number(found.interval[0]) == short_number(found.interval[1]):
        return "Every bootstrap resample of the seeds selects the same value."
    return f"95 % bootstrap interval over seeds: {short_range(found.interval)}."


def _describe_plateau(found: Recommendation) -> str:
    if found.plateau is None or found.plateau[0] == found.plateau[1]:
        return ""
    return f"Values from {short_number(found.plateau[0])} to {short_number(found.plateau[1])} do about as well."


def _describe_divergence(found: Recommendation) -> str:
    ratio = edge_ratio(found)
    if ratio is None:
        return f"No run diverged up to {short_number(found.safe)}." if found.unsafe is None else ""
    if ratio < 1:
        return f"This value is not safe: the median seed diverges from {short_number(found.edge)} on."
    safe = f"; no run diverged up to {short_number(found.safe)}" if found.safe is not None else ""
    return f"Divergence begins at {short_number(found.edge)}, {short_number(ratio)} times this value{safe}."


def _describe_sensitivity(summary: Summary) -> str:
    least = least_sensitive(summary)
    if least is None:
        return ""
    most = max((row for row in summary.rows if np.isfinite(_sensitivity(row))), key=_sensitivity)
    return (
        f"{least.optimizer} is the least sensitive to its {humanize(str(summary.axis))}: over the values tried it "
        f"averages {short_number(_sensitivity(least))} above its best, and {most.optimizer}, the most sensitive, "
        f"{short_number(_sensitivity(most))}."
    )
