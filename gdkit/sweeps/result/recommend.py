"""The recommendation: which value of an axis to use, and how reliable that is."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gdkit.formatting import count, format_number, format_range, html
from gdkit.regimes import Regime
from gdkit.sweeps.result.caveats import find_caveats
from gdkit.sweeps.result.horizons import Horizon, forecast
from gdkit.sweeps.scoring.direction import orient
from gdkit.sweeps.scoring.lane_values import SweepLike, end_values, hyperparameters_of
from gdkit.sweeps.scoring.ranking import Ranking, points_along, rank
from gdkit.sweeps.scoring.scores import best_point, find_bracket, mean_scores, rounding_error, state_of_seed
from gdkit.types import State

_BOOTSTRAP = 1000  # number of resamples of the seeds, so that 25 lie below the 2.5 % quantile
_LEAST_SEEDS = 3  # least number of seeds for an interval
_PLATEAU_SHARE = 0.05  # share of the distance of the best from a known optimum
_ALIKE = np.log(1.25)  # a value is about as good up to this difference on the scale: a quarter farther from the floor


@dataclasses.dataclass(frozen=True)
class Recommendation:
    """Which value of an axis to use, and how reliable that is. An unknown number is None, and a caveat says why.

    Scores are in the units of `by`; docs/recommendation.md says how `best` is chosen and `score` corrected.
    """

    axis: str
    by: str
    best: float | None  # the robust choice
    score: float | None  # expected at `best`: the mean over seeds, corrected for being the best of many
    mean: float | None  # over seeds at `best`
    plain_best: float | None  # the value of `axis` at the point with the best mean, that of `SweepResult.best`
    interval: tuple[float, float] | None  # of `best`, 95 % bootstrap over seeds; three seeds or more
    safe: float | None  # largest value up to which no seed diverged
    unsafe: float | None  # smallest value at which some seed diverged
    edge: float | None  # median over seeds of where divergence begins
    plateau: tuple[float, float] | None  # values not worse than `best` beyond paired noise, or 5 % from the optimum
    as_good: tuple[float, float] | None  # values of `plateau` around `best` with a mean close to the best
    worst_mean: float | None  # of the values of `plateau`
    sensitivity: float | None  # Wortsman et al. 2023: mean over the axis of min(score, initial loss) − lowest mean
    profile: tuple[tuple[float, float], ...]  # values of `axis`, and there the mean of min(score, initial loss)
    at: dict[str, Any]  # the other hyperparameters
    lanes: tuple[int, ...]  # of the recommended point, one per seed
    metrics: dict[str, float]  # means at the best: validation and test losses and metrics
    caveats: tuple[str, ...]
    finished: int  # number of finished runs, on which all statements are based
    runs: int
    horizon: Horizon | None = None  # the law by which `best` was predicted for a longer run; else None
    states: Callable[[int], State] | None = dataclasses.field(default=None, repr=False, compare=False)  # seed -> state

    def __getstate__(self) -> dict[str, Any]:
        """All but the states, which stay in their process."""
        return vars(self) | {"states": None}

    def state(self, seed: int = 0) -> State:
        """The state of the run of a seed at the recommended point, as `SweepResult.state` returns it."""
        return state_of_seed(self.states, seed, len(self.lanes))

    def __str__(self) -> str:
        caveats = [f"Caveat: {text}" for text in self.caveats]
        some = f"Of {self.finished:,} finished of {count(self.runs, 'run')}: " * (self.finished < self.runs)
        if self.best is None:
            return "\n".join([f"{some}{self.axis}: no value can be recommended.", *caveats])
        if self.horizon is not None:
            return "\n".join([f"{some}{self.axis}: use {self.horizon}", *caveats])
        best, mean, score = (format_number(value) for value in (self.best, self.mean, self.score))
        corrected = f"; {score} when corrected for choosing the best" if score != mean else ""
        measured = f"mean {self.by} over seeds" if len(self.lanes) > 1 else self.by
        lines = [f"{some}{self.axis}: use {best} ({measured}: {mean}{corrected})."]
        if self.interval:
            lines.append(f"95 % bootstrap interval over seeds: {format_range(self.interval)}.")
        if self.as_good:
            is_one = self.as_good[0] == self.as_good[1]
            lines.append(f"About as good: {'no other value' if is_one else format_range(self.as_good)}.")
        if self.plateau != self.as_good:
            side = "up" if (self.worst_mean or 0.0) > (self.mean or 0.0) else "down"
            worst = f"mean {side} to {format_number(self.worst_mean)}"
            lines.append(f"Not distinguished by {len(self.lanes)} seeds: {format_range(self.plateau)} ({worst}).")
        if self.safe is not None and self.unsafe is not None:  # otherwise a caveat says that none diverged
            lines.append(f"No run diverged up to {format_number(self.safe)}.")
        if self.unsafe is not None:
            lines.append(f"At least one seed diverged at {format_number(self.unsafe)}.")
        lines += [f"{name}: {format_number(value)}" for name, value in self.metrics.items() if name != self.by]
        return "\n".join([*lines, *caveats])

    _repr_html_ = html.preformat


def recommend(result: SweepLike, axis: str, by: str, maximize: bool, ranking: Ranking | None = None) -> Recommendation:
    """The recommendation of a value of `axis`, with all other hyperparameters, by the ranking of all points."""
    ranking = rank(result, axis, by, maximize) if ranking is None else ranking
    line = points_along(result, axis, ranking.top)
    line = line[ranking.ranked[line]] if ranking.ranked[line].any() else line
    lanes = line[:, None] * result.seeds + np.arange(result.seeds)  # (values, seeds)
    values = result.lanes[axis].values[lanes[:, 0]].astype(float)
    diverged = result.lane_regimes[lanes] == Regime.DIVERGED
    stable = int(np.argmax(diverged.any(axis=1))) if diverged.any() else len(values)  # values before any divergence
    plain = result.lanes[axis].values[ranking.plain * result.seeds]
    found = Recommendation(
        axis=axis, by=by, best=None, score=None, mean=None,
        plain_best=float(plain) if np.isfinite(ranking.mean[ranking.plain]) else None, interval=None,
        safe=float(values[stable - 1]) if stable else None,
        unsafe=float(values[stable]) if stable < len(values) else None,
        edge=_median_edge(values, diverged), plateau=None, as_good=None, worst_mean=None,
        sensitivity=None, profile=(), lanes=(),
        at={n: v for n, v in hyperparameters_of(result, ranking.top * result.seeds).items() if n != axis},
        metrics={}, caveats=find_caveats(result, axis, by, maximize, ranking, line),
        finished=int(np.sum(result.finished)), runs=result.finished.size,
    )  # fmt: skip
    if len(values) == 1 or not np.isfinite(ranking.total[line]).any():
        return found
    top = int(np.flatnonzero(line == ranking.top)[0])
    enough = result.seeds >= _LEAST_SEEDS and ranking.has_noise and bool(result.finished[lanes].all())
    plateau = _plateau(ranking, line, top, rounding_error(result.lanes["initial_loss"].values))
    return dataclasses.replace(
        found,
        best=float(values[top]),
        score=orient(_corrected_score(ranking), maximize),
        mean=orient(float(ranking.mean[ranking.top]), maximize),
        interval=_bootstrap_interval(values, ranking, line, top) if enough else None,
        **_about_plateau(values, ranking, line, top, plateau, maximize),
        **({} if maximize else _about_sensitivity(result, ranking, line, values)),
        lanes=tuple(lanes[top].tolist()),
        metrics=_mean_metrics(result, lanes[top][ranking.finished[ranking.top]]),
    )


def recommend_for(result: SweepLike, axis: str, by: str, maximize: bool, steps: int) -> Recommendation:
    """The value of `axis` that is predicted for a run of `steps` steps, with all other hyperparameters as recommended.

    `best` and `interval` are those of the prediction; the scores there are unknown.
    """
    ranking = rank(result, axis, by, maximize)
    found, line = recommend(result, axis, by, maximize, ranking), points_along(result, axis, ranking.top)
    horizon, caveats = forecast(result, axis, by, maximize, line, steps)
    return dataclasses.replace(
        found,
        best=None if horizon is None else horizon.value,
        interval=None if horizon is None else horizon.interval,
        score=None, mean=None, plateau=None, as_good=None, worst_mean=None, lanes=(), metrics={}, horizon=horizon,
        caveats=tuple(caveats),
    )  # fmt: skip


def central_lane(result: SweepLike, axes: Sequence[str]) -> int:
    """A lane of the point that is recommended for the first numeric one of `axes`; of the best point without one."""
    if not result.finished.any():
        return 0
    by = result.score_name()
    numeric = [name for name in axes if name in result.axes and result.axes[name].dtype.kind in "fiu"]
    if numeric:
        return rank(result, numeric[0], by, result.is_maximized(by)).top * result.seeds
    scores, finished = (a.reshape(-1, result.seeds) for a in (result.scores(by), result.finished))
    rounding = rounding_error(result.lanes["initial_loss"].values)
    return best_point(result, mean_scores(scores, finished), rounding) * result.seeds


def _corrected_score(ranking: Ranking) -> float:
    """The shrunk score of the recommended point in the units of scores: the mean itself where nothing was shrunk."""
    mean, shrunk = float(ranking.mean[ranking.top]), ranking.shrunk[ranking.top].mean()
    unmoved = np.isclose(shrunk, ranking.scale.apply(np.array(mean)), rtol=0, atol=1e-6)
    return mean if unmoved else float(ranking.scale.invert(shrunk))


def _median_edge(values: np.ndarray, diverged: np.ndarray) -> float | None:
    """Median over seeds of where divergence begins; None where it lies off the axis."""
    brackets = [find_bracket(values, seed) for seed in diverged.T]
    edges = [np.sqrt(low * high) if low > 0 else 0.0 for low, high, _ in brackets]
    middle = float(np.median(edges))
    return middle if np.isfinite(middle) and middle > 0 else None


def _bootstrap_interval(values: np.ndarray, ranking: Ranking, line: np.ndarray, top: int) -> tuple[float, float]:
    """95 % interval of the choice by resampling seeds; of several values that tie, the one nearest to `top`."""
    known = np.isfinite(ranking.total[line])
    values, line, top = values[known], line[known], int(np.sum(known[:top]))
    scores = ranking.shrunk[line]
    scores = scores + (ranking.total[line] - scores.mean(axis=1))[:, None]
    near = np.argsort(np.abs(np.arange(len(values)) - top), kind="stable")
    generator = np.random.default_rng(0)
    picks = np.sort(generator.integers(scores.shape[1], size=(_BOOTSTRAP, scores.shape[1])), axis=1)
    distinct, which = np.unique(picks, axis=0, return_inverse=True)  # few seeds have few distinct resamples
    means = (scores[near][:, pick].mean(axis=1) for pick in distinct)
    bests = values[near[[int(np.argmax(mean <= mean.min() + ranking.tie)) for mean in means]]]
    low, high = np.quantile(bests[which], [0.025, 0.975], method="nearest")
    return float(low), float(high)


def _plateau(ranking: Ranking, line: np.ndarray, top: int, rounding: float) -> np.ndarray | None:
    """Places of the unbroken range of values around the best that are not worse than it; None if that is not known.

    A value is not worse if its mean is within the 95 % t interval of the paired differences between seeds, both of the
    scores themselves and on the scale on which they are compared, or at most 5 % farther from a known optimum.
    """
    scores, mean = ranking.scores[line], ranking.mean[line]
    seeds = scores.shape[1]
    enough = seeds >= _LEAST_SEEDS and ranking.has_noise and bool(ranking.finished[line].all())
    if not enough and ranking.optimum is None:
        return None
    good = np.zeros(len(line), bool)
    if enough:
        good |= _within_noise(ranking.scale.apply(scores), top, ranking.tie) & _within_noise(scores, top, rounding)
    if ranking.optimum is not None:
        good |= mean - ranking.optimum <= (1 + _PLATEAU_SHARE) * (mean[top] - ranking.optimum) + rounding
    good &= np.isfinite(mean)
    return _expand_range(top, good)


def _expand_range(top: int, good: np.ndarray) -> np.ndarray:
    """Places of the unbroken range around `top` in which `good` holds; `top` belongs to it."""
    low = high = top
    while low > 0 and good[low - 1]:
        low -= 1
    while high < len(good) - 1 and good[high + 1]:
        high += 1
    return np.arange(low, high + 1)


def _about_plateau(
    values: np.ndarray, ranking: Ranking, line: np.ndarray, top: int, plateau: np.ndarray | None, maximize: bool
) -> dict[str, Any]:
    """The plateau, the part of it that is about as good as the best, and its worst mean.

    The wide noise of few seeds hides large differences, so that a value of the plateau may have twice the loss.
    """
    if plateau is None:
        return {}
    distance = ranking.scale.apply(ranking.mean[line])
    alike = np.isin(np.arange(len(line)), plateau) & (distance - distance[top] <= _ALIKE)
    ends = lambda places: (float(values[places[0]]), float(values[places[-1]]))
    worst = orient(float(ranking.mean[line[plateau]].max()), maximize)
    return {"plateau": ends(plateau), "as_good": ends(_expand_range(top, alike)), "worst_mean": worst}


def _within_noise(scores: np.ndarray, top: int, tie: float) -> np.ndarray:
    """Mask of values whose mean is within the paired noise of that at `top`, (values,); `scores` is (values, seeds)."""
    from scipy.special import stdtrit  # its import takes a tenth of the time of that of gdkit

    with np.errstate(invalid="ignore"):
        difference = scores - scores[top]
        seeds = difference.shape[1]
        noise = stdtrit(seeds - 1, 0.975) * difference.std(axis=1, ddof=1) / np.sqrt(seeds)
        return difference.mean(axis=1) <= noise + tie


def _about_sensitivity(result: SweepLike, ranking: Ranking, line: np.ndarray, values: np.ndarray) -> dict[str, Any]:
    """The sensitivity and its profile, from min(score, initial loss) of the finished runs.

    An initial loss that is not finite is replaced by the largest finite one.
    """
    start = result.lanes["initial_loss"].values[line[:, None] * result.seeds + np.arange(result.seeds)].astype(float)
    largest = np.max(start, initial=-np.inf, where=np.isfinite(start)) if np.isfinite(start).any() else np.inf
    capped = np.minimum(ranking.scores[line], np.where(np.isfinite(start), start, largest))
    capped = np.where(ranking.finished[line], capped, np.nan)  # (values, seeds)
    profile = tuple(zip(values.tolist(), np.nanmean(capped, axis=1).tolist(), strict=True))
    return {"sensitivity": float(np.nanmean(capped) - np.min(ranking.mean[line])), "profile": profile}


def _mean_metrics(result: SweepLike, rows: np.ndarray) -> dict[str, float]:
    names = [str(n) for n in result.lanes.data_vars if str(n).startswith(("validation_", "test_", "train_"))]
    lanes = end_values(result.lanes)
    means = {name: float(lanes[name].values[rows].mean()) for name in names}
    return {name: value for name, value in means.items() if np.isfinite(value)}
