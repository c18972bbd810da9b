"""The answer in words: which value to use, how certain it is, and where divergence begins."""

import itertools
import math
from typing import NamedTuple

import numpy as np

from gdkit.app.labels import humanize
from gdkit.app.summary import Summary, SummaryRow, format_metric, short_number, short_range, short_value
from gdkit.formatting import count
from gdkit.regimes import Regime
from gdkit.sweeps.result.caveats import MAY_HAVE_CONVERGED, next_range
from gdkit.sweeps.result.recommend import Recommendation


class AnswerCard(NamedTuple):
    """A number with its name and one line of detail."""

    name: str
    value: str
    detail: str


def format_answer(summary: Summary) -> str:
    """The whole answer in one or two sentences, for a terminal."""
    recommendation = summary.best.choice
    if recommendation is None or not np.isfinite(summary.best.score):
        return format_headline(summary)
    metric = _format_metric(summary, recommendation)
    mean, score = short_number(recommendation.mean), short_number(recommendation.score)
    corrected = f" ({score} when corrected for choosing the best)" * (mean != score)
    quality = ", ".join(filter(None, [f"{humanize(summary.by)} {mean}{corrected}", metric]))
    answer = f"{format_headline(summary).removesuffix('.')}: {quality}."
    return " ".join(filter(None, [answer, _describe_unsettled(summary.best), _describe_divergence(recommendation)]))


def format_headline(summary: Summary) -> str:
    """Which value to use, in one sentence."""
    row = summary.best
    if not np.isfinite(row.score):
        return _describe_failure(summary)
    if row.choice is None:
        is_single = row.recommendation is not None and len(row.cells) == 1
        at = f" with {humanize(str(summary.axis))} {short_number(row.cells[0].value)}" if is_single else ""
        name = row.optimizer or ("The run" if summary.runs == 1 else "The best run")
        reached = f"{name}{at} reaches a {humanize(summary.by)} of {short_number(row.score)}."
        return f"{_describe_progress(summary)}{reached}"
    settings = describe_settings(row.choice)
    choice = f"{row.optimizer} with {settings}" if row.optimizer else settings
    are_regimes_known = any(row.cells for row in summary.rows)
    if are_regimes_known and not any(row.counts.get(regime) for row in summary.rows for regime in MAY_HAVE_CONVERGED):
        return f"{_describe_progress(summary)}No run converged. The best is {choice}."
    return f"{_describe_progress(summary)}Use {choice}{_describe_axis_end(summary, row)}."


def format_details(summary: Summary) -> str:
    """The sentences after the headline: how good the value is, how certain, and where runs diverge."""
    row, recommendation = summary.best, summary.best.choice
    if recommendation is None:
        return _describe_comparison(summary, row)
    sentences = [
        _describe_quality(summary, row, recommendation),
        "" if _describe_axis_end(summary, row) else _describe_certainty(recommendation),
        _describe_plateau(summary, recommendation),
        _describe_unsettled(row),
        _describe_divergence(recommendation),
        _describe_sensitivity(summary),
        _describe_next(summary, row, recommendation),
    ]
    return " ".join(filter(None, sentences))


def answer_cards(summary: Summary) -> list[AnswerCard]:
    """The numbers of the best optimizer."""
    row, recommendation = summary.best, summary.best.choice
    if recommendation is None:
        return []
    interval = _describe_interval(summary, row, recommendation)
    cards = [
        AnswerCard(f"best {humanize(recommendation.axis)}", short_number(recommendation.best), interval),
        _make_plateau_card(summary, row, recommendation),
    ]
    cards += filter(None, [_make_edge_card(row, recommendation)])
    mean, score = short_number(recommendation.mean), short_number(recommendation.score)
    details = ["corrected for choosing the best" * (mean != score), _format_metric(summary, recommendation)]
    return [*cards, AnswerCard(humanize(summary.by), score, "; ".join(filter(None, details)))]


def _describe_interval(summary: Summary, row: SummaryRow, recommendation: Recommendation) -> str:
    """The interval of the best value, or why there is none or it tells little."""
    seeds, end = len(row.seeds), _describe_axis_end(summary, row).removeprefix(", ")
    if recommendation.interval and end:
        return f"{end}: the best value may lie beyond it"
    if recommendation.interval:
        return f"95 % bootstrap interval over seeds: {short_range(recommendation.interval)}"
    if seeds > 2 and recommendation.finished < recommendation.runs:
        return "no interval until all seeds finish"
    return "all seeds have the same score" if _are_seeds_alike(row) else f"{count(seeds, 'seed')}: no interval"


def _are_seeds_alike(row: SummaryRow) -> bool:
    return len(row.seeds) > 2 and len(set(row.seeds)) == 1


def _make_plateau_card(summary: Summary, row: SummaryRow, recommendation: Recommendation) -> AnswerCard:
    as_good, hidden = recommendation.as_good, _describe_hidden(summary, recommendation)
    if as_good is None:
        unknown = "needs seeds that differ" if _are_seeds_alike(row) else "needs 3 seeds"
        return AnswerCard("about as good", short_range(as_good), unknown)
    is_alone = as_good[0] == as_good[1]
    if hidden:
        detail = f"mean close to the best; {hidden}"
    elif recommendation.interval:
        detail = "its neighbors: beyond the noise of the seeds" if is_alone else "within the noise of the seeds"
    else:
        farther = "farther from the optimum"
        detail = f"its neighbors: more than 5 % {farther}" if is_alone else f"at most 5 % {farther}"
    return AnswerCard("about as good", "no other value" if is_alone else short_range(as_good), detail)


def _make_edge_card(row: SummaryRow, recommendation: Recommendation) -> AnswerCard | None:
    safe, unsafe, edge = recommendation.safe, recommendation.unsafe, recommendation.edge
    if safe is None:
        return None
    unsettled = _find_unsettled(row)
    if unsafe is None and unsettled is not None:
        elsewhere = " with the other settings of the best" * bool(row.counts.get(Regime.DIVERGED))
        detail = f"none diverged{elsewhere} up to {short_number(safe)}"
        return AnswerCard("no run converges from", short_number(unsettled), detail)
    if unsafe is None:
        return AnswerCard("no divergence up to", short_number(safe), "no divergence found")
    bracket = f"no run diverged up to {short_number(safe)}, some did at {short_number(unsafe)}"
    if edge is None:
        return AnswerCard("diverges from", short_number(unsafe), bracket)
    return AnswerCard("diverges above about", short_number(edge), bracket)


def describe_settings(recommendation: Recommendation) -> str:
    """The best value with those of the other axes: ``learning rate 0.1, momentum 0.9 and batch size 32``."""
    first = f"{humanize(recommendation.axis)} {short_value(recommendation.best)}"
    *settings, last = [first, *_list_other_settings(recommendation)]
    return " and ".join(filter(None, [", ".join(settings), last]))


def _list_other_settings(recommendation: Recommendation) -> list[str]:
    """The best value of each other axis: ``momentum 0.9``."""
    others = recommendation.at.items()
    return [f"{humanize(name)} {short_value(value)}" for name, value in others if name != "optimizer"]


def tabulate_optimizers(summary: Summary) -> dict[str, list[str]]:
    """The columns of the table of optimizers: the cells of each head, one per row; an en dash for what is unknown."""
    rows, axis, metric = summary.rows, humanize(summary.axis or ""), summary.metric
    show = lambda text: [text(row.recommendation) if row.recommendation else "–" for row in rows]
    others = [", ".join(_list_other_settings(row.choice)) if row.choice else "" for row in rows]
    columns = {
        "optimizer": [row.optimizer for row in rows],
        f"best {axis}": show(lambda one: short_number(one.best)),
        "with": [text or "–" for text in others] if any(others) else [],
        "95 % interval over seeds": show(lambda one: short_range(one.interval)),
        "about as good": show(lambda one: short_range(one.as_good)),
        humanize(summary.by): [short_number(row.score) for row in rows],
        humanize(metric or ""): show(lambda one: format_metric(metric, one.metrics.get(metric))) if metric else [],
        "no divergence up to": show(lambda one: short_number(one.safe)),
        "some diverged at": [first_divergence(row) for row in rows],
        "diverges above about": show(lambda one: short_number(one.edge)),
    }
    if summary.window:
        columns[f"sensitivity to {axis}"] = [short_number(summary.window.excess.get(row.optimizer)) for row in rows]
    return {head: cells for head, cells in columns.items() if cells}


def first_divergence(row: SummaryRow) -> str:
    """The smallest value at which some seed diverged, for a table."""
    if row.recommendation is None:
        return "–"
    return "never" if row.recommendation.unsafe is None else short_number(row.recommendation.unsafe)


def least_sensitive(summary: Summary) -> str | None:
    """The optimizer whose score depends least on its axis, over windows of equal width; None if they do not compare."""
    excess = summary.window.excess if summary.window else {}
    return min(excess, key=lambda name: excess[name]) if len(set(excess.values())) > 1 else None


def _format_metric(summary: Summary, recommendation: Recommendation) -> str:
    name = summary.metric or ""
    value = recommendation.metrics.get(name)
    return "" if value is None else f"{humanize(name)} {format_metric(name, value)}"


def _describe_progress(summary: Summary) -> str:
    """How many runs of an unfinished sweep have finished; empty for a finished one."""
    if not summary.unfinished:
        return ""
    return f"Partial: {summary.runs - summary.unfinished:,} of {count(summary.runs, 'run')} finished. "


def _describe_failure(summary: Summary) -> str:
    """Why there is no best: all runs diverged, or at least one seed of every point did."""
    if any(number for row in summary.rows for regime, number in row.counts.items() if regime != Regime.DIVERGED):
        why = f"at every value some seed diverged or has no finite {humanize(summary.by)}"
        is_stable = any(not row.cells or not row.cells[0].counts[Regime.DIVERGED] for row in summary.rows)
        remedy = "" if summary.unfinished or is_stable else f" {_suggest_range(summary)}"
        return f"{_describe_progress(summary)}No value can be recommended: {why}.{remedy}"
    if summary.unfinished:
        return "Every finished run diverged."
    return f"Every run diverged. {_suggest_range(summary)}"


def _suggest_range(summary: Summary) -> str:
    """What to try where every run diverged: two decades below the smallest value, or below 2/λ where that is known."""
    tried = [cell.value for row in summary.rows for cell in row.cells]
    if not tried or min(tried) <= 0:
        return "Try smaller values."
    axis, least = humanize(str(summary.axis)), min(tried)
    stable = 2 / summary.sharpness if summary.sharpness and summary.axis == "learning_rate" else math.inf
    top, reason = least / 2, ", below all that diverged"
    if stable < least:
        top, reason = stable, f": gradient descent is stable below 2/λ = {short_number(stable)}"
    return f"Try a {axis} of {short_range((top / 100, top))}{reason}."


def _describe_axis_end(summary: Summary, row: SummaryRow) -> str:
    values = [cell.value for cell in row.cells]
    best = row.choice and row.choice.best
    if len(values) < 2 or best not in (values[0], values[-1]):
        return ""
    tried = "value that has finished" if summary.unfinished else "value tried"
    return f", the largest {tried}" if best == values[-1] else f", the smallest {tried}"


def _describe_quality(summary: Summary, row: SummaryRow, recommendation: Recommendation) -> str:
    finished = int(np.sum(~np.isnan(row.seeds)))
    seeds = f"Mean over {finished} seeds: " if finished > 1 else ""
    mean, score = short_number(recommendation.mean), short_number(recommendation.score)
    corrected = f" ({score} corrected for choosing the best of many)" * (mean != score)
    values = [f"{humanize(summary.by)} {mean}{corrected}", _format_metric(summary, recommendation)]
    text = f"{seeds}{', '.join(filter(None, values))}."
    return text[:1].upper() + text[1:]


def _describe_certainty(recommendation: Recommendation) -> str:
    if recommendation.interval is None:
        return ""
    if short_number(recommendation.interval[0]) == short_number(recommendation.interval[1]):
        return "Every bootstrap resample of the seeds selects the same value."
    return f"95 % bootstrap interval over seeds: {short_range(recommendation.interval)}."


def _describe_plateau(summary: Summary, recommendation: Recommendation) -> str:
    as_good, hidden = recommendation.as_good, _describe_hidden(summary, recommendation)
    if as_good is None or as_good[0] == as_good[1]:
        return f"{hidden}." if hidden else ""
    alike = f"A {humanize(recommendation.axis)} of {short_range(as_good)} does about as well"
    return f"{alike}; {hidden}." if hidden else f"{alike}."


def _describe_hidden(summary: Summary, recommendation: Recommendation) -> str:
    """Values that seeds do not show to be worse: ``3 seeds do not distinguish 0.01–0.3 (mean test loss up to 2)``."""
    if recommendation.plateau == recommendation.as_good:
        return ""
    mean = f"mean {humanize(summary.by)} {'down' if summary.maximize else 'up'} to"
    which = f"{short_range(recommendation.plateau)} ({mean} {short_number(recommendation.worst_mean)})"
    return f"{count(len(recommendation.lanes), 'seed')} do not distinguish {which}"


def _find_unsettled(row: SummaryRow) -> float | None:
    """The value above the best from which on no run converges; None where divergence is all that begins there."""
    settles = lambda cell: any(cell.counts[regime] for regime in MAY_HAVE_CONVERGED)
    values = [cell.value for cell in itertools.takewhile(lambda cell: not settles(cell), reversed(row.cells))]
    if not values or row.choice is None or row.choice.best is None or values[-1] <= row.choice.best:
        return None
    return values[-1] if row.choice.unsafe is None or values[-1] < row.choice.unsafe else None


def _describe_unsettled(row: SummaryRow) -> str:
    """From where on no run of an optimizer converges, at any value of the other axes, and that none diverged if so."""
    value = _find_unsettled(row)
    if value is None or row.recommendation is None:
        return ""
    none = f"No run of {row.optimizer}" if row.optimizer else "No run"
    has_diverged = row.counts.get(Regime.DIVERGED)
    end = "" if has_diverged else f", and none diverged up to {short_number(row.recommendation.safe)}"
    return f"{none} converges from {short_number(value)} on{end}."


def _describe_divergence(recommendation: Recommendation) -> str:
    """The bracket of the edge: up to where no run diverged, and where some did; empty if none did."""
    safe, unsafe = short_number(recommendation.safe), short_number(recommendation.unsafe)
    if recommendation.unsafe is None:
        return ""
    if recommendation.safe is None or (recommendation.best or 0) > recommendation.unsafe:
        return f"Some seeds diverged already at {unsafe}, below this value."
    bracket = f"no run diverged up to {safe}, some did at {unsafe}"
    if recommendation.edge is None or not recommendation.best or recommendation.best <= 0:
        return f"{bracket[:1].upper()}{bracket[1:]}."
    ratio = f"{short_number(recommendation.edge / recommendation.best)} × the best {humanize(recommendation.axis)}"
    return f"Training diverges above about {short_number(recommendation.edge)}, {ratio} ({bracket})."


def _describe_next(summary: Summary, row: SummaryRow, recommendation: Recommendation) -> str:
    """The next step: finish runs, try other values or more seeds, if they could change the answer; else train."""
    values = [cell.value for cell in row.cells]
    place = next((i for i, value in enumerate(values) if value == recommendation.best), 0)
    near = values[max(place - 1, 0) : place + 2]
    if summary.unfinished:
        return "Next: finish the other runs."
    if len(near) < 2:
        return ""
    if _describe_axis_end(summary, row):
        beyond = next_range(np.array(values), below=place == 0)
        axis = humanize(recommendation.axis)
        return f"Next: a {axis} of {short_range(beyond)}." if beyond else f"Next: other values of the {axis}."
    if len(row.seeds) < 3:
        return "Next: at least 3 seeds, which give an interval."
    if recommendation.interval and (recommendation.interval[0] < near[0] or recommendation.interval[1] > near[-1]):
        return "Next: more seeds, which narrow the interval."
    alike = recommendation.as_good
    if alike and alike[0] <= near[0] and near[-1] <= alike[1]:
        return "Next: train with it."
    return f"Next: train with it, or sweep {short_range((near[0], near[-1]))} for a closer value."


def _describe_comparison(summary: Summary, row: SummaryRow) -> str:
    """The next step where values were not compared: finish runs, or run others; empty where that is not known."""
    if not np.isfinite(row.score) or row.recommendation is None:
        return ""
    if summary.unfinished:
        return "Next: finish the other runs."
    value = row.cells[0].value if len(row.cells) == 1 else 0.0
    return f"Next: a {humanize(str(summary.axis))} of {short_range((value / 10, value * 10))}." if value > 0 else ""


def _describe_sensitivity(summary: Summary) -> str:
    window, least = summary.window, least_sensitive(summary)
    if window is None or least is None:
        return ""
    most = max(window.excess, key=lambda name: window.excess[name])
    return (
        f"Sensitivity: within a factor of {short_number(window.factor)} of its best {humanize(str(summary.axis))}, the "
        f"{humanize(summary.by)} of {least} averages {short_number(window.excess[least])} above its best, and that of "
        f"{most}, the most sensitive, {short_number(window.excess[most])}."
    )
