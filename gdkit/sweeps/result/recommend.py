"""The recommendation: which value of an axis to use, and how far it can be trusted."""

import dataclasses
from typing import Any

import numpy as np

from gdkit import html
from gdkit.regimes import Regime

_BOOTSTRAP = 1000  # resamples of the seeds: the 2.5 % quantile then rests on 25 of them


@dataclasses.dataclass(frozen=True)
class Recommendation:
    """Which value of an axis to use, and how far it can be trusted. What is not known is None, and said in words."""

    axis: str
    by: str
    best: float | None
    score: float | None  # mean over seeds at `best`
    interval: tuple[float, float] | None  # of the best value, 95 % bootstrap over seeds
    safe: float | None  # largest value such that it and all below it diverge for no seed
    unsafe: float | None  # smallest value at which some seed diverged
    edge: float | None  # median over seeds of where divergence begins
    plateau: tuple[float, float] | None  # around the best, within `plateau_share` of it
    plateau_share: float  # as a share of the gap between the start and the best
    sensitivity: float | None  # Wortsman et al. 2023: mean over the axis of min(score, start) − best
    at: dict[str, Any]  # the other hyperparameters
    metrics: dict[str, float]  # means at the best: validation and test losses and metrics
    caveats: tuple[str, ...]

    def __str__(self) -> str:
        if self.best is None:
            return "\n".join([f"{self.axis}: no value can be recommended.", *self.caveats])
        lines = [f"{self.axis}: use {_short(self.best)} ({self.by} {_short(self.score)} on average over seeds)."]
        if self.interval:
            lines.append(f"95 % of resampled seeds would choose {_range(self.interval)}.")
        if self.plateau:
            lines.append(f"About as good: {_range(self.plateau)}.")
        if self.safe is not None:
            lines.append(f"Nothing diverged up to {_short(self.safe)}.")
        if self.unsafe is not None:
            lines.append(f"Some seed diverged at {_short(self.unsafe)}.")
        lines += [f"{name}: {_short(value)}" for name, value in self.metrics.items() if name != self.by]
        return "\n".join([*lines, *(f"Not known: {text}" for text in self.caveats)])

    _repr_html_ = html.printed


def _bracket(values: np.ndarray, diverged: np.ndarray) -> tuple[float, float, bool]:
    if not diverged.any():
        return (values[-1] if len(values) else 0.0), np.inf, True
    first = int(np.argmax(diverged))
    return (values[first - 1] if first else 0.0), values[first], bool(diverged[first:].all())


def _told(scores: np.ndarray, ended: np.ndarray) -> np.ndarray:
    """Of which points something is known, (points,) of (points, seeds): those of which all seeds have ended.

    Where none of these has a finite mean, as at the beginning of a run, those of which any seed has.
    """
    whole = np.asarray(ended.all(axis=1))
    return whole if np.isfinite(scores[whole]).all(axis=1).any() else np.asarray(ended.any(axis=1))


def _means(scores: np.ndarray, ended: np.ndarray) -> np.ndarray:
    """Means over the seeds that have ended, (points,); infinite where nothing is known."""
    count = np.where(_told(scores, ended), ended.sum(axis=1), 0)
    return np.where(count > 0, np.where(ended, scores, 0.0).sum(axis=1) / np.maximum(count, 1), np.inf)


def _least(scores: np.ndarray, rounding: float) -> int:
    """The place of the least score; of several that differ by rounding, the one in their middle.

    >>> _least(np.array([3.0, 0.0, 1e-9, 0.0, 2.0]), 1e-7)
    2
    """
    tied = np.flatnonzero(scores <= scores.min() + rounding) if np.isfinite(scores).any() else np.zeros(1, int)
    return int(tied[len(tied) // 2])


def _recommend(result: Any, axis: str, by: str, plateau_share: float, best: float, rounding: float) -> Recommendation:
    """The recommendation from lanes that vary along `axis` alone, of which those at `best` are the best."""
    line = np.arange(result.lanes.sizes["lane"]).reshape(-1, result.seeds)
    line = line[np.argsort(result.lanes[axis].values[line[:, 0]], kind="stable")]
    ended, scores = result._ended[line], result.scores(by)[line]  # (values, seeds)
    told = _told(scores, ended)
    line, ended, scores = (part[told] if told.any() else part for part in (line, ended, scores))
    values = result.lanes[axis].values[line[:, 0]].astype(float)
    regimes = result.lane_regimes[line]
    mean = _means(scores, ended)
    diverged = (regimes == Regime.DIVERGED).any(axis=1)
    calm = int(np.argmax(diverged)) if diverged.any() else len(values)
    edge = _median_edge(values, regimes == Regime.DIVERGED)
    caveats = _caveats(result, values, mean, regimes, axis)
    safe = float(values[calm - 1]) if calm else None
    unsafe = float(values[calm]) if calm < len(values) else None
    if not np.isfinite(mean).any():
        return Recommendation(
            axis, by, None, None, None, safe, unsafe, edge, None, plateau_share, None, {}, {}, caveats
        )  # fmt: skip
    top = int(np.argmin(np.where(values == best, mean, np.inf)))
    start = result.lanes["initial_loss"].values[line]
    cap = np.where(np.isfinite(start), start, np.nanmax(np.where(np.isfinite(start), start, np.nan)))
    gap = max(float(cap.mean()) - mean[top], 0.0)
    return Recommendation(
        axis=axis,
        by=by,
        best=float(values[top]),
        score=float(mean[top]),
        interval=_interval(values, scores, rounding, top) if result.seeds > 1 and ended.all() else None,
        safe=safe,
        unsafe=unsafe,
        edge=edge,
        plateau=_plateau(values, mean, top, mean[top] + plateau_share * gap),
        plateau_share=plateau_share,
        sensitivity=float(np.mean(np.minimum(scores, cap)[ended]) - mean[top]),
        at={},
        metrics=_metrics(result, line[top][ended[top]]),
        caveats=caveats,
    )


def _median_edge(values: np.ndarray, diverged: np.ndarray) -> float | None:
    """Median over seeds of where divergence begins; None where it lies off the axis."""
    brackets = [_bracket(values, seed) for seed in diverged.T]
    edges = [np.sqrt(low * high) if low > 0 else 0.0 for low, high, _ in brackets]
    middle = float(np.median(edges))
    return middle if np.isfinite(middle) and middle > 0 else None


def _interval(values: np.ndarray, scores: np.ndarray, rounding: float, top: int) -> tuple[float, float]:
    """95 % interval of the best value by resampling seeds; of several that are as good, the one nearest to `top`."""
    near = np.argsort(np.abs(np.arange(len(values)) - top), kind="stable")
    generator = np.random.default_rng(0)
    picks = np.sort(generator.integers(scores.shape[1], size=(_BOOTSTRAP, scores.shape[1])), axis=1)
    distinct, which = np.unique(picks, axis=0, return_inverse=True)  # of few seeds there are few
    means = (scores[near][:, pick].mean(axis=1) for pick in distinct)
    bests = values[near[[int(np.argmax(mean <= mean.min() + rounding)) for mean in means]]]
    low, high = np.quantile(bests[which], [0.025, 0.975], method="nearest")
    return float(low), float(high)


def _plateau(values: np.ndarray, mean: np.ndarray, top: int, bound: float) -> tuple[float, float]:
    """The unbroken stretch around the best whose mean is at most `bound`."""
    good = mean <= bound
    low = high = top
    while low > 0 and good[low - 1]:
        low -= 1
    while high < len(values) - 1 and good[high + 1]:
        high += 1
    return float(values[low]), float(values[high])


def _metrics(result: Any, rows: np.ndarray) -> dict[str, float]:
    names = [str(n) for n in result.lanes.data_vars if str(n).startswith(("validation_", "test_"))]
    found = {name: float(result.lanes[name].values[rows].mean()) for name in names}
    return {name: value for name, value in found.items() if np.isfinite(value)}


def _caveats(result: Any, values: np.ndarray, mean: np.ndarray, regimes: np.ndarray, axis: str) -> tuple[str, ...]:
    """What the sweep cannot tell, in words."""
    diverged = regimes == Regime.DIVERGED
    there = np.isin(regimes, [Regime.CONVERGED, Regime.OSCILLATING, Regime.CATAPULT])
    said = []
    if not np.isfinite(mean).any():
        said.append(
            f"the best {axis}: at every value some seed diverged{' or is not finished' * bool(result.missing)}."
        )
    elif len(values) > 1 and int(np.argmin(mean)) in (0, len(values) - 1):
        side = "below" if np.argmin(mean) == 0 else "above"
        said.append(f"whether a better {axis} lies {side} {_short(values[np.argmin(mean)])}, the end of the axis.")
    if not there.any():
        said.append("what convergence looks like: no run arrived; try more steps or other values.")
    if not diverged.any():
        said.append(f"where it diverges: nothing did up to {_short(values[-1])}.")
    elif diverged[0].all():
        said.append(f"where divergence begins: the smallest value, {_short(values[0])}, diverged.")
    if any(not _bracket(values, seed)[2] for seed in diverged.T):
        said.append("where exactly divergence begins: some larger values did not diverge, so it is not one point.")
    if result.missing:
        said.append(f"what becomes of {_counted(result.missing, 'run')}: not finished yet.")
    if result.seeds < 3:
        said.append(f"how far chance decides: {_counted(result.seeds, 'seed')}; use at least 3.")
    if not result.lanes.attrs["optimum_known"]:
        said.append("the least loss possible: the least that was seen stands in for it.")
    return tuple(said)


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}" + "s" * (count != 1)


def _short(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"


def _range(pair: tuple[float, float]) -> str:
    return _short(pair[0]) if pair[0] == pair[1] else f"{_short(pair[0])} to {_short(pair[1])}"
