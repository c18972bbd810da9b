"""The recommendation: which value of an axis to use, and how reliable that is."""

import dataclasses
from typing import Any

import numpy as np

from gdkit import html
from gdkit.regimes import Regime
from gdkit.sweeps.result.direction import orient
from gdkit.sweeps.result.lane_values import SweepLike
from gdkit.sweeps.result.scores import mean_scores, rankable_points
from gdkit.tables import count, format_number, format_range

_BOOTSTRAP = 1000  # resamples of the seeds: the 2.5 % quantile then rests on 25 of them
UNFINISHED = "not finished yet."  # the end of the caveat that counts unfinished runs

TABLE_HEADS = ("optimizer", "axis", "best", "score", "95 % over seeds", "about as good", "none diverged up to", "edge")


@dataclasses.dataclass(frozen=True)
class Recommendation:
    """Which value of an axis to use, and how reliable that is. An unknown number is None, and a caveat says why."""

    axis: str
    by: str
    best: float | None
    score: float | None  # mean over seeds at `best`, in the units of `by`
    interval: tuple[float, float] | None  # of the best value, 95 % bootstrap over seeds
    safe: float | None  # largest value up to which no seed diverged
    unsafe: float | None  # smallest value at which some seed diverged
    edge: float | None  # median over seeds of where divergence begins
    plateau: tuple[float, float] | None  # the values around the best whose score is nearly as good
    plateau_share: float  # how much worse those may be, as a share of the gap between the initial and the best score
    sensitivity: float | None  # Wortsman et al. 2023: mean over the axis of min(score, initial loss) − best score
    at: dict[str, Any]  # the other hyperparameters
    metrics: dict[str, float]  # means at the best: validation and test losses and metrics
    caveats: tuple[str, ...]

    def __str__(self) -> str:
        caveats = [f"Caveat: {text}" for text in self.caveats]
        if self.best is None:
            return "\n".join([f"{self.axis}: no value can be recommended.", *caveats])
        best, score = format_number(self.best), format_number(self.score)
        lines = [f"{self.axis}: use {best} (mean {self.by} over seeds: {score})."]
        if self.interval:
            lines.append(f"95 % bootstrap interval over seeds: {format_range(self.interval)}.")
        if self.plateau:
            lines.append(f"About as good: {format_range(self.plateau)}.")
        if self.safe is not None:
            lines.append(f"No run diverged up to {format_number(self.safe)}.")
        if self.unsafe is not None:
            lines.append(f"At least one seed diverged at {format_number(self.unsafe)}.")
        lines += [f"{name}: {format_number(value)}" for name, value in self.metrics.items() if name != self.by]
        return "\n".join([*lines, *caveats])

    _repr_html_ = html.printed


def table_row(labels: tuple[str, ...], found: Recommendation) -> tuple[str, ...]:
    """The recommendation of one optimizer, in the columns of `TABLE_HEADS`."""
    best, score, safe, edge = (format_number(value) for value in (found.best, found.score, found.safe, found.edge))
    interval, plateau = format_range(found.interval), format_range(found.plateau)
    return (", ".join(labels) or "–", found.axis, best, score, interval, plateau, safe, edge)


def find_bracket(values: np.ndarray, diverged: np.ndarray) -> tuple[float, float, bool]:
    """The value below the first that diverged, that value, and whether all above it diverged too.

    Args:
      values: increasing, (values,).
      diverged: whether the run at each diverged, (values,).

    Returns:
      The lower value is 0 where the first value diverged; the upper one is infinite where none did.
    """
    if not diverged.any():
        return (values[-1] if len(values) else 0.0), np.inf, True
    first = int(np.argmax(diverged))
    return (values[first - 1] if first else 0.0), values[first], bool(diverged[first:].all())


def recommend(
    result: SweepLike, axis: str, by: str, maximize: bool, *, best: float, plateau_share: float, rounding: float
) -> Recommendation:
    """The recommendation from lanes that vary along `axis` only, of which those at the value `best` are the best."""
    line = np.arange(result.lanes.sizes["lane"]).reshape(-1, result.seeds)
    line = line[np.argsort(result.lanes[axis].values[line[:, 0]], kind="stable")]
    finished, scores = result.finished[line], result.scores(by, maximize)[line]  # (values, seeds)
    ranked = rankable_points(scores, finished)
    if ranked.any():
        line, finished, scores = line[ranked], finished[ranked], scores[ranked]
    values = result.lanes[axis].values[line[:, 0]].astype(float)
    regimes, mean = result.lane_regimes[line], mean_scores(scores, finished)
    diverged = regimes == Regime.DIVERGED
    stable = int(np.argmax(diverged.any(axis=1))) if diverged.any() else len(values)  # values before any divergence
    found = Recommendation(
        axis=axis, by=by, best=None, score=None, interval=None,
        safe=float(values[stable - 1]) if stable else None,
        unsafe=float(values[stable]) if stable < len(values) else None,
        edge=_median_edge(values, diverged), plateau=None, plateau_share=plateau_share, sensitivity=None, at={},
        metrics={}, caveats=_caveats(result, values, mean, regimes, axis),
    )  # fmt: skip
    if not np.isfinite(mean).any():
        return found
    top = int(np.argmin(np.where(values == best, mean, np.inf)))
    start = result.lanes["initial_loss"].values[line]
    cap = np.where(np.isfinite(start), start, np.nanmax(np.where(np.isfinite(start), start, np.nan)))
    gap = max(float(cap.mean()) - mean[top], 0.0)
    return dataclasses.replace(
        found,
        best=float(values[top]),
        score=orient(float(mean[top]), maximize),
        interval=_bootstrap_interval(values, scores, rounding, top) if result.seeds > 1 and finished.all() else None,
        # the initial loss bounds no metric that is to be large
        plateau=None if maximize else _plateau(values, mean, top, mean[top] + plateau_share * gap),
        sensitivity=None if maximize else float(np.mean(np.minimum(scores, cap)[finished]) - mean[top]),
        metrics=_mean_metrics(result, line[top][finished[top]]),
    )


def _median_edge(values: np.ndarray, diverged: np.ndarray) -> float | None:
    """Median over seeds of where divergence begins; None where it lies off the axis."""
    brackets = [find_bracket(values, seed) for seed in diverged.T]
    edges = [np.sqrt(low * high) if low > 0 else 0.0 for low, high, _ in brackets]
    middle = float(np.median(edges))
    return middle if np.isfinite(middle) and middle > 0 else None


def _bootstrap_interval(values: np.ndarray, scores: np.ndarray, rounding: float, top: int) -> tuple[float, float]:
    """95 % interval of the best value by resampling seeds; of several that tie, the one nearest to `top`."""
    near = np.argsort(np.abs(np.arange(len(values)) - top), kind="stable")
    generator = np.random.default_rng(0)
    picks = np.sort(generator.integers(scores.shape[1], size=(_BOOTSTRAP, scores.shape[1])), axis=1)
    distinct, which = np.unique(picks, axis=0, return_inverse=True)  # few seeds have few distinct resamples
    means = (scores[near][:, pick].mean(axis=1) for pick in distinct)
    bests = values[near[[int(np.argmax(mean <= mean.min() + rounding)) for mean in means]]]
    low, high = np.quantile(bests[which], [0.025, 0.975], method="nearest")
    return float(low), float(high)


def _plateau(values: np.ndarray, mean: np.ndarray, top: int, bound: float) -> tuple[float, float]:
    """The ends of the unbroken range of values around the best whose mean score is at most `bound`."""
    good = mean <= bound
    low = high = top
    while low > 0 and good[low - 1]:
        low -= 1
    while high < len(values) - 1 and good[high + 1]:
        high += 1
    return float(values[low]), float(values[high])


def _mean_metrics(result: SweepLike, rows: np.ndarray) -> dict[str, float]:
    names = [str(n) for n in result.lanes.data_vars if str(n).startswith(("validation_", "test_"))]
    means = {name: float(result.lanes[name].values[rows].mean()) for name in names}
    return {name: value for name, value in means.items() if np.isfinite(value)}


def _caveats(
    result: SweepLike, values: np.ndarray, mean: np.ndarray, regimes: np.ndarray, axis: str
) -> tuple[str, ...]:
    """What the sweep does not show, one sentence each."""
    diverged = regimes == Regime.DIVERGED
    arrived = np.isin(regimes, [Regime.CONVERGED, Regime.OSCILLATING, Regime.CATAPULT])
    unfinished = int(np.sum(~result.finished))
    caveats = []
    if not np.isfinite(mean).any():
        caveats.append(f"no best {axis}: at every value some seed diverged{' or is not finished' * bool(unfinished)}.")
    elif len(values) > 1 and int(np.argmin(mean)) in (0, len(values) - 1):
        side = "below" if np.argmin(mean) == 0 else "above"
        end = format_number(values[np.argmin(mean)])
        caveats.append(f"the best {axis} is at the end of the axis; a better one may lie {side} {end}.")
    if not arrived.any():
        caveats.append("no run converged; try more steps or other values.")
    if not diverged.any():
        caveats.append(f"no divergence found up to {format_number(values[-1])}.")
    elif diverged[0].all():
        caveats.append(f"the smallest value, {format_number(values[0])}, diverged: the edge lies below the axis.")
    if any(not find_bracket(values, seed)[2] for seed in diverged.T):
        caveats.append("some values above the edge did not diverge: the edge is not a single value.")
    if unfinished:
        caveats.append(f"{count(unfinished, 'run')} {UNFINISHED}")
    if result.seeds < 3:
        caveats.append(f"{count(result.seeds, 'seed')}: too few to estimate the noise; use at least 3.")
    if not result.lanes.attrs["optimum_known"]:
        caveats.append("the optimum is unknown; the lowest observed loss is used.")
    return tuple(caveats)
