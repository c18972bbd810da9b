"""What a sweep found, as rows: one form for the terminal and for the report."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from gdkit.monitors import EndKind
from gdkit.regimes import Regime
from gdkit.sweeps.result.recommend import Recommendation
from gdkit.sweeps.result.result import SweepResult

SIGNS = {
    Regime.SLOW: "·",
    Regime.CONVERGED: "█",
    Regime.OSCILLATING: "≈",
    Regime.CATAPULT: "^",
    Regime.BOUNCING: "~",
    Regime.STALLED: "-",
    Regime.DIVERGED: "×",
}
MEANINGS = {
    Regime.SLOW: "still falling",
    Regime.CONVERGED: "arrived",
    Regime.OSCILLATING: "arrived by updates that reverse",
    Regime.CATAPULT: "rose well above its start, then arrived",
    Regime.BOUNCING: "keeps moving, never arrives",
    Regime.STALLED: "updates vanish before it arrives",
    Regime.DIVERGED: "left for good",
}
_PLAN = {"chosen": "chosen by"}


class RegimeCell(NamedTuple):
    """What became of the runs at one value of an axis."""

    value: float
    counts: tuple[int, ...]  # runs by the code of their regime, (regimes,)

    @property
    def regime(self) -> Regime:
        """The commonest; the lowest of several."""
        return Regime(int(np.argmax(self.counts)))

    @property
    def divided(self) -> bool:
        """Whether some runs diverged, and some did not."""
        return 0 < self.counts[Regime.DIVERGED] < sum(self.counts)


class Row(NamedTuple):
    """One optimizer's part of the answer."""

    optimizer: str
    recommendation: Recommendation | None  # None without a numeric axis
    band: tuple[RegimeCell, ...]  # along the axis
    counts: dict[Regime, int]  # lanes
    score: float  # of the best point, to be small; infinite where all diverged
    seeds: tuple[float, ...]  # the scores of that point's seeds; infinite if diverged, NaN if not ended


class Summary(NamedTuple):
    """What a sweep found."""

    axis: str | None
    by: str  # the variable that is to be small
    metric: str | None  # what is reported beside it, and never chosen by
    rows: tuple[Row, ...]
    unknown: tuple[str, ...]  # what is not known, in words
    missing: int = 0  # runs that have not ended

    @property
    def best(self) -> Row:
        """The row with the best score."""
        return min(self.rows, key=lambda row: row.score)


def summarise(result: SweepResult, by: str | None = None) -> Summary:
    """The rows of every optimizer, in the order of the config."""
    axis = result.main_axis
    by = result.score_name(by)
    rows = tuple(_row(one, label, axis, by) for label, one in begun(result).items())
    found = Summary(axis, by, _metric(result), rows, (), result.missing)
    close = undecided(found) if np.isfinite(found.best.score) else ""
    left = f"what becomes of {counted(result.missing, 'run')}: not finished yet." if result.missing else ""
    return found._replace(unknown=tuple(filter(None, (left, close, *_unknown(rows)))))


def begun(result: SweepResult) -> dict[str, SweepResult]:
    """The optimizers of which runs have ended, by their labels; one without a name where there is no choice."""
    parts = {label: result.select(optimizer=label) for label in result.optimizers} or {"": result}
    return {label: one for label, one in parts.items() if one.missing < one.lanes.sizes["lane"]}


def answer(summary: Summary) -> str:
    """The answer in a sentence or two."""
    row = summary.best
    found = row.recommendation
    if not np.isfinite(row.score):
        return all_diverged(summary)
    if found is None or found.best is None:
        return f"{row.optimizer} is best, with {words(summary.by)} {number(row.score)}."
    said = f"Use {row.optimizer} with {settings(found)}: {words(summary.by)} {number(found.score)}"
    said += _reported(summary, found) + "."
    if found.safe is not None:
        said += f" Nothing diverged up to {number(found.safe)}."
    return said


def all_diverged(summary: Summary) -> str:
    """What is said where no run is left to recommend."""
    return "Every run that has ended diverged." if summary.missing else "Every run diverged. Try smaller values."


def settings(found: Recommendation) -> str:
    """The best value with those of the other axes, as people say them."""
    others = {name: value for name, value in found.at.items() if name != "optimizer"}
    said = [f"{words(name)} {shown(value)}" for name, value in ({found.axis: found.best} | others).items()]
    return " and ".join(filter(None, [", ".join(said[:-1]), said[-1]]))


def undecided(summary: Summary) -> str:
    """Which optimizers the seeds cannot tell from the best: those that beat it for some seed. Empty if none."""
    best = summary.best
    close = [
        row.optimizer
        for row in summary.rows
        if row is not best and any(a <= b for a, b in zip(row.seeds, best.seeds, strict=True))
    ]
    return f"whether {best.optimizer} is better than {', '.join(close)}: for some seed it is not." if close else ""


def measured(result: SweepResult) -> str:
    """How many runs, how long, on what."""
    attributes = result.lanes.attrs
    seconds = json.loads(attributes["timings"])["seconds"]
    plan = result.plan
    runs = f"{result.lanes.sizes['lane']:,} runs of {int(attributes['steps']):,} steps"
    return f"{runs} in {duration(seconds)} on {attributes['device']}, {counted(plan['workers'], 'worker')}"


def provenance(result: SweepResult) -> dict[str, str]:
    """What the numbers were made with."""
    attributes = result.lanes.attrs
    versions = json.loads(attributes["versions"])
    plan = result.plan
    return {
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "device": f"{attributes['device']}, {attributes['cores']} cores visible",
        "plan": ", ".join(f"{_PLAN.get(name, name)} {value}" for name, value in plan.items() if value is not None),
        "time": _time(json.loads(attributes["timings"])),
        "key": str(attributes["key"]),
    }


def _time(timings: Mapping[str, float]) -> str:
    """How long the whole took and, where that is known, what came before the first step."""
    parts = {"compiling": timings.get("compile_seconds"), "timing plans": timings.get("plan_seconds")}
    known = [f"{duration(seconds)} {what}" for what, seconds in parts.items() if seconds]
    whole = duration(timings["seconds"])
    return f"{whole}, of which {' and '.join(known)}" if known else whole


def number(value: float | None) -> str:
    """Three digits, as people write them."""
    if value is None or not np.isfinite(value):
        return "–"
    return f"{float(f'{value:.3g}'):g}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")


def shown(value: Any) -> str:
    """A number with three digits, anything else as it is."""
    return number(value) if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def span(pair: tuple[float, float] | None) -> str:
    """``0.1 to 0.4``, or one number where both are the same."""
    if pair is None:
        return "–"
    low, high = map(number, pair)
    return low if low == high else f"{low} to {high}"


def words(name: str) -> str:
    """``validation_loss`` as people say it."""
    return name.removeprefix("problem.").replace("_", " ")


def metric_value(name: str, value: float | None) -> str:
    """An accuracy in per cent, anything else as a number."""
    if value is not None and name.endswith("accuracy"):
        return f"{100 * value:.1f} %"
    return number(value)


def duration(seconds: float) -> str:
    """Seconds as a person would say them."""
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def counted(count: int, noun: str) -> str:
    """``1 worker``, ``2 workers``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def diverges(row: Row) -> str:
    """The smallest value at which some seed diverged."""
    if row.recommendation is None:
        return "–"
    return "nowhere" if row.recommendation.unsafe is None else number(row.recommendation.unsafe)


def _metric(result: SweepResult) -> str | None:
    names = [str(name) for name in result.lanes.data_vars if str(name).startswith("test_")]
    return next((name for name in names if name != "test_loss"), next(iter(names), None))


def _row(result: SweepResult, label: str, axis: str | None, by: str) -> Row:
    best, regimes = result.best(by), result.lane_regimes[_ended(result)]
    codes, counts = np.unique(regimes, return_counts=True)
    own = axis is not None and axis in result.axes and np.asarray(result.axes[axis]).dtype.kind in "fiu"
    found = result.recommend(axis, by=by) if own else None
    return Row(
        label,
        found,
        _band(result, str(axis)) if own else (),
        {Regime(int(code)): int(count) for code, count in zip(codes, counts, strict=True)},
        found.score if found and found.score is not None else best.score,
        _seeds(best.lanes, by),
    )


def _seeds(lanes: Any, by: str) -> tuple[float, ...]:
    """Scores of a point's seeds; infinite where one diverged, NaN where it has not ended."""
    scores = lanes[by].values.astype(float)
    running = lanes["end_kind"].values == EndKind.RUNNING
    return tuple(np.where(running, np.nan, np.where(np.isfinite(scores), scores, np.inf)).tolist())


def _band(result: SweepResult, axis: str) -> tuple[RegimeCell, ...]:
    ended = _ended(result)
    values, places = np.unique(result.lanes[axis].values.astype(float)[ended], return_inverse=True)
    counts = np.zeros((len(values), len(Regime)), int)
    np.add.at(counts, (places, result.lane_regimes[ended]), 1)
    return tuple(map(RegimeCell, values.tolist(), map(tuple, counts.tolist())))


def _ended(result: SweepResult) -> np.ndarray:
    """Which lanes have ended: all of a finished run."""
    return result.lanes["end_kind"].values != EndKind.RUNNING


def _reported(summary: Summary, found: Recommendation) -> str:
    value = found.metrics.get(summary.metric or "")
    return "" if value is None else f", {words(str(summary.metric))} {metric_value(str(summary.metric), value)}"


def _unknown(rows: tuple[Row, ...]) -> tuple[str, ...]:
    """Each thing that is not known once, with the optimizers of which it is not."""
    said: dict[str, list[str]] = {}
    for row in rows:
        texts = row.recommendation.caveats if row.recommendation else ()
        for text in (text for text in texts if not text.startswith("what becomes of")):  # told of all at once
            said.setdefault(text, []).append(row.optimizer)
    everywhere = len(rows)
    return tuple(text if len(who) == everywhere else f"{', '.join(who)}: {text}" for text, who in said.items())
