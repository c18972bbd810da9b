"""The summary of a sweep, one row per optimizer: the terminal and the report print the same numbers."""

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from gdkit.app.labels import humanize_names
from gdkit.formatting import count, format_duration, format_number, format_range
from gdkit.regimes import Regime
from gdkit.sweeps.result.caveats import UNFINISHED
from gdkit.sweeps.result.recommend import Recommendation
from gdkit.sweeps.result.result import SweepResult
from gdkit.sweeps.scoring.direction import orient
from gdkit.sweeps.scoring.scores import rounding_error

SIGNS = {
    Regime.SLOW: "·",
    Regime.CONVERGED: "█",
    Regime.OSCILLATING: "≈",
    Regime.CATAPULT: "^",
    Regime.BOUNCING: "~",
    Regime.STALLED: "-",
    Regime.DIVERGED: "×",
    Regime.UNKNOWN: "+",
}
MEANINGS = {
    Regime.SLOW: "still decreasing",
    Regime.CONVERGED: "close to the optimum or the lowest loss",
    Regime.OSCILLATING: "converged while updates reverse direction",
    Regime.CATAPULT: "rose well above the initial loss, then converged",
    Regime.BOUNCING: "keeps moving without converging",
    Regime.STALLED: "updates vanish before convergence",
    Regime.DIVERGED: "loss not finite or out of bounds",
    Regime.UNKNOWN: "did not diverge; regimes need statistics: all, or loss curves",
}
_PLAN = {"chosen": "chosen by"}


class RegimeCell(NamedTuple):
    """Regimes of the runs at one value of an axis."""

    value: float
    counts: tuple[int, ...]  # runs by the code of their regime, (regimes,)

    @property
    def regime(self) -> Regime:
        """The most common regime; the lowest code of several."""
        return Regime(int(np.argmax(self.counts)))

    @property
    def is_divided(self) -> bool:
        """Whether some runs diverged and others did not."""
        return 0 < self.counts[Regime.DIVERGED] < sum(self.counts)


class SummaryRow(NamedTuple):
    """The summary of one optimizer."""

    optimizer: str
    recommendation: Recommendation | None  # None without a numeric axis
    cells: tuple[RegimeCell, ...]  # along the axis
    counts: dict[Regime, int]  # lanes
    score: float  # corrected, of the recommended point; inf if all runs diverged, -inf if it is maximized
    seeds: tuple[float, ...]  # scores of that point by seed; infinite likewise if diverged, NaN if not finished
    lanes: tuple[int, ...] = ()  # of that point, one per seed, among those of the optimizer

    @property
    def choice(self) -> Recommendation | None:
        """The recommendation if it names a value."""
        found = self.recommendation
        return found if found is not None and found.best is not None else None


class Summary(NamedTuple):
    """The summary of a sweep."""

    axis: str | None
    by: str  # the variable that points are compared by
    metric: str | None  # reported beside the score, never used to choose
    rows: tuple[SummaryRow, ...]
    caveats: tuple[str, ...]
    unfinished: int = 0  # runs
    runs: int = 0
    maximize: bool = False  # whether larger scores are better
    sharpness: float | None = None  # median of the runs that measured it

    @property
    def best(self) -> SummaryRow:
        """The row with the best score."""
        return min(self.rows, key=lambda row: orient(row.score, self.maximize))

    @property
    def window(self) -> "SensitivityWindow | None":
        """The sensitivities of the rows; None where they cannot be compared."""
        return compare_sensitivity(self.rows)


class StudyClaim(Protocol):
    """One claim of a study, as its ``claims(result)`` returns it."""

    @property
    def text(self) -> str: ...
    @property
    def source(self) -> str: ...  # the paper or theorem
    @property
    def expected(self) -> float: ...
    @property
    def tolerance(self) -> float: ...
    @property
    def measured(self) -> float: ...
    @property
    def holds(self) -> bool: ...


def summarize(result: SweepResult, by: str | None = None) -> Summary:
    """The rows of all optimizers, in the order of the config."""
    axis, by = result.main_axis, result.score_name(by)
    rows = tuple(_summarize_optimizer(one, label, axis, by) for label, one in results_by_optimizer(result).items())
    counts, sharpness = (result.missing, result.finished.size), _compute_sharpness(result)
    summary = Summary(axis, by, _choose_metric(result, by), rows, (), *counts, result.is_maximized(by), sharpness)
    caveats = (
        unfinished_caveat(result),
        _describe_ties(summary, rounding_error(result.lanes["initial_loss"].values)),
        *_merge_caveats(rows),
    )
    names = [str(name) for name in result.lanes.variables]
    return summary._replace(caveats=tuple(humanize_names(text, names) for text in caveats if text))


def _compute_sharpness(result: SweepResult) -> float | None:
    """The median of the positive sharpnesses; None if no run has one."""
    values = result.lanes["sharpness"].values if "sharpness" in result.lanes else np.zeros(0)
    values = values[np.isfinite(values) & (values > 0)]
    return float(np.median(values)) if values.size else None


def results_by_optimizer(result: SweepResult) -> dict[str, SweepResult]:
    """The result of each optimizer with finished runs, by label; the label is empty if the sweep has no labels."""
    parts = {label: result.select(optimizer=label) for label in result.optimizers} or {"": result}
    return {label: one for label, one in parts.items() if one.finished.any()}


def unfinished_caveat(result: SweepResult) -> str:
    """The caveat that some runs have not finished; empty if all have."""
    runs = count(result.lanes.sizes["lane"], "run")
    return f"{result.missing:,} of {runs} have not finished and are not included." if result.missing else ""


class SensitivityWindow(NamedTuple):
    """Mean excess of the score of each row above its best, within a factor of the best value."""

    factor: float
    excess: dict[str, float]  # by optimizer


def compare_sensitivity(rows: Sequence[SummaryRow]) -> SensitivityWindow | None:
    """Sensitivities over the widest window that all axes cover: from best / factor to best · factor.

    The mean is over the logarithm of the axis, with linear interpolation. None if fewer than two rows have a best
    value, or if an axis has no value between an end of the window and the best, or values that are not positive.
    """
    found = {row.optimizer: row.recommendation for row in rows if row.recommendation and row.recommendation.profile}
    logs = {name: np.log(np.array(one.profile)[:, 0]) for name, one in found.items() if one.profile[0][0] > 0}
    if len(found) < 2 or len(logs) < len(found):
        return None
    steps = {name: logs[name] - np.log(one.best) for name, one in found.items() if one.best is not None}
    half = min(min(-step[0], step[-1]) for step in steps.values()) * (1 + 1e-9)
    inside = [step[(np.abs(step) <= half) & (np.abs(step) > 1e-9)] for step in steps.values()]
    if not all((step < 0).any() and (step > 0).any() for step in inside):
        return None
    excess = {name: _compute_excess(step, np.array(found[name].profile)[:, 1], half) for name, step in steps.items()}
    return SensitivityWindow(float(np.exp(half)), excess) if np.isfinite(list(excess.values())).all() else None


def _compute_excess(steps: np.ndarray, scores: np.ndarray, half: float) -> float:
    """Mean of scores over steps from −half to half, above that at 0."""
    inside = np.abs(steps) < half
    at = np.concatenate([[-half], steps[inside], [half]])
    return float(np.trapezoid(np.interp(at, steps, scores), at) / (2 * half) - np.interp(0.0, steps, scores))


def describe_run(result: SweepResult) -> str:
    """How many runs of how many steps, how long they took, and on what."""
    attributes = result.lanes.attrs
    seconds, steps = json.loads(attributes["timings"]).get("seconds"), int(attributes["steps"])
    lanes = result.lanes.sizes["lane"]
    finished = f"{lanes - result.missing:,} of " if result.missing else ""
    runs = f"{finished}{count(lanes, 'run')}" + f" of {count(steps, 'step')}" * (steps > 0)
    if seconds is None:
        return f"{runs}, trained elsewhere"
    workers = count(result.plan["workers"], "worker")
    return f"{runs} in {format_duration(seconds)} on {attributes['device']}, {workers}"


def describe_provenance(result: SweepResult) -> dict[str, str]:
    """Versions, device, plan, time and key that the numbers come from."""
    attributes, plan = result.lanes.attrs, result.plan
    versions = {"versions": ", ".join(map(" ".join, json.loads(attributes["versions"]).items()))}
    if not plan:  # trained elsewhere
        return versions
    return versions | {
        "device": f"{attributes['device']}, {attributes['cores']} cores visible",
        "plan": ", ".join(f"{_PLAN.get(name, name)} {value}" for name, value in plan.items() if value is not None),
        "time": _describe_time(json.loads(attributes["timings"])),
        "key": str(attributes["key"]),
    }


def _describe_time(timings: Mapping[str, float]) -> str:
    """The total time and, where recorded, how much of it preceded the first step."""
    parts = {"compiling": timings.get("compile_seconds"), "timing plans": timings.get("plan_seconds")}
    recorded = [f"{format_duration(seconds)} {what}" for what, seconds in parts.items() if seconds]
    total = format_duration(timings["seconds"])
    return f"{total}, of which {' and '.join(recorded)}" if recorded else total


def format_expected(claim: StudyClaim) -> str:
    """The expected number of a claim with its tolerance: ``1 ± 0.05``; without one if it is not finite."""
    if not np.isfinite(claim.tolerance):
        return short_number(claim.expected)
    return f"{short_number(claim.expected)} ± {short_number(claim.tolerance)}"


def format_deviation(claim: StudyClaim) -> str:
    """The deviation of a claim from the expected number, in tolerances; an en dash without a tolerance."""
    deviation = (claim.measured - claim.expected) / claim.tolerance if claim.tolerance else float("nan")
    return f"{deviation:+.2f}".replace("-", "−") if np.isfinite(deviation) else "–"


# Numbers and names as the terminal and the report print them


def short_number(value: float | None) -> str:
    """A number with three digits; an en dash for None and numbers that are not finite."""
    return format_number(value if value is not None and np.isfinite(value) else None, 3)


def short_range(bounds: tuple[float, float] | None) -> str:
    """``0.1–0.4``, ``-0.1 to 0.4`` with a minus sign, or one number if both bounds print alike."""
    text = format_range(bounds, 3)
    return text if "-" in text.replace("e-", "") else text.replace(" to ", "–")


def short_value(value: object) -> str:
    """A number with three digits; anything else as a string."""
    return short_number(value) if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def format_metric(name: str, value: float | None) -> str:
    """An accuracy in percent, anything else as a number."""
    if value is not None and name.endswith("accuracy"):
        return f"{100 * value:.1f} %"
    return short_number(value)


# Rows


def _summarize_optimizer(result: SweepResult, label: str, axis: str | None, by: str) -> SummaryRow:
    best, maximize = result.best(by), result.is_maximized(by)
    codes, counts = np.unique(result.lane_regimes[result.finished], return_counts=True)
    has_axis = axis is not None and axis in result.axes and np.asarray(result.axes[axis]).dtype.kind in "fiu"
    recommendation = result.recommend(axis, by=by) if has_axis else None
    lanes = recommendation.lanes if recommendation and recommendation.lanes else best.lane_numbers
    scores = np.where(result.finished, orient(result.scores(by), maximize), np.nan)
    return SummaryRow(
        label,
        recommendation,
        _count_regimes(result, str(axis)) if has_axis and result.lanes.attrs.get("regimes_known", 1) else (),
        {Regime(int(code)): int(count) for code, count in zip(codes, counts, strict=True)},
        recommendation.score if recommendation and recommendation.score is not None else best.score,
        tuple(scores[list(lanes)].tolist()),
        lanes,
    )


def _count_regimes(result: SweepResult, axis: str) -> tuple[RegimeCell, ...]:
    """Regimes of the finished runs per value of the axis."""
    values, places = np.unique(result.lanes[axis].values.astype(float)[result.finished], return_inverse=True)
    counts = np.zeros((len(values), len(Regime)), int)
    np.add.at(counts, (places, result.lane_regimes[result.finished]), 1)
    return tuple(map(RegimeCell, values.tolist(), map(tuple, counts.tolist())))


def _choose_metric(result: SweepResult, by: str) -> str | None:
    """A test metric other than the score itself, or the test loss if there is none."""
    names = [str(name) for name in result.lanes.data_vars if str(name).startswith("test_") and name != by]
    return next((name for name in names if name != "test_loss"), next(iter(names), None))


# Caveats


def _describe_ties(summary: Summary, rounding: float) -> str:
    """The caveat that other optimizers match the best one for some seed, up to `rounding`; empty if none does."""
    best = summary.best
    if not np.isfinite(best.score):
        return ""
    close = [
        row.optimizer
        for row in summary.rows
        if row is not best and _ties_or_wins(row, best, summary.maximize, rounding)
    ]
    others = " or ".join(filter(None, [", ".join(close[:-1]), *close[-1:]]))
    return f"for some seed, {others} is as good as {best.optimizer} or better." if close else ""


def _ties_or_wins(row: SummaryRow, best: SummaryRow, maximize: bool, rounding: float) -> bool:
    """Whether a row is at least as good as the best one for some seed."""
    own, other = orient(np.array([row.seeds, best.seeds]), maximize)
    return bool(np.any(own <= other + rounding))


def _merge_caveats(rows: tuple[SummaryRow, ...]) -> tuple[str, ...]:
    """Each caveat once, preceded by its optimizers unless it holds for all."""
    optimizers: dict[str, list[str]] = {}
    for row in rows:
        texts = row.recommendation.caveats if row.recommendation else ()
        for text in (text for text in texts if not text.endswith(UNFINISHED)):  # `unfinished_caveat` counts all
            optimizers.setdefault(text, []).append(row.optimizer)
    return tuple(
        text if len(labels) == len(rows) else f"{', '.join(labels)}: {text}" for text, labels in optimizers.items()
    )
