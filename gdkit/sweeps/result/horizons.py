"""The best learning rate of a longer run, from how it moves with the number of steps along one sweep."""

import json
import math
from typing import NamedTuple

import numpy as np

from gdkit.checks import check_integer
from gdkit.errors import bad_value
from gdkit.formatting import format_number, format_range
from gdkit.monitors import EndKind
from gdkit.sweeps.scoring.direction import orient
from gdkit.sweeps.scoring.lane_values import EVALUATION, SweepLike

_BOOTSTRAP = 200  # number of resamples of the seeds
_LEAST_SEEDS = 3  # least number of seeds for an interval
_LEAST_POINTS = 5  # least number of step counts whose best value lies inside the axis
_LEAST_SPAN = 4.0  # ratio of the last of them to the first
_MOST_POINTS = 24  # numbers of steps that are read, geometrically spaced
_EARLIEST = 1 / 32  # share of the steps before which the start decides, not the law
_MOST_UNCERTAIN = 10.0  # ratio of the ends of an interval beyond which nothing is predicted
_FARTHEST = 16  # multiple of the measured steps up to which tests and studies cover predictions


class Horizon(NamedTuple):
    """The best value for a number of steps, between a power law and one whose exponent drifts on; see `forecast`."""

    steps: int  # T
    value: float
    interval: tuple[float, float] | None  # 95 %: seeds, drift and resolution of the axis; three seeds or more
    exponent: float  # of the power law, value(t) ∝ t^exponent, along the sweep
    drift: float  # ratio of the value for `steps` whose exponent drifts on as along the sweep to that of the power law
    measured: tuple[tuple[int, float], ...]  # numbers of steps, and the best value of each

    def __str__(self) -> str:
        interval = f", 95 % interval {format_range(self.interval)}" if self.interval else ""
        at = f"from {len(self.measured)} numbers of steps, {self.measured[0][0]:,} to {self.measured[-1][0]:,}"
        return (
            f"{format_number(self.value)} for {self.steps:,} steps at a constant learning rate{interval}: "
            f"steps^{self.exponent:.2f}, {at}."
        )


class _Fit(NamedTuple):
    """Logarithms of the value at the horizon, (...)."""

    power: np.ndarray  # by the power law
    drifting: np.ndarray  # by one whose exponent is linear in the logarithm of the steps
    exponent: np.ndarray  # of the power law

    @property
    def middle(self) -> np.ndarray:
        return (self.power + self.drifting) / 2


def forecast(
    result: SweepLike, axis: str, by: str, maximize: bool, line: np.ndarray, steps: int
) -> tuple[Horizon | None, list[str]]:
    """The best value of `axis` for `steps` steps and caveats; None if it is not predicted, with the reason as a caveat.

    `line` are the points along the axis, in ascending order of its values. The prediction is midway, on a log scale,
    between a power law and a law whose exponent drifts on as it does along the sweep. The interval is at
    least twice as wide as these two are apart, and wider by the noise of the seeds and the spacing of the axis.

    Raises:
      InputTypeError, InputValueError: `steps` is not an integer of at least 1; no curve of `by` was recorded; the
        optimizer has a schedule, so that an evaluation along a run is not the end of a shorter one.
    """
    check_integer("horizon", steps)
    _refuse_schedules(result, int(line[0]) * result.seeds, steps)
    values, times, scores = _read_line(result, axis, by, maximize, line)
    unknown = f"The best {axis} for {steps:,} steps is not known: "
    if len(values) < 3 or not (values > 0).all():
        return None, [unknown + "there are fewer than three positive values with finished runs."]
    bests = _locate_bests(np.log(values), scores.mean(axis=1))
    known = np.isfinite(bests)
    if known.sum() < _LEAST_POINTS or times[known][-1] < _LEAST_SPAN * times[known][0] or not known[-1]:
        where = f"at {int(known.sum())} of {len(times)} numbers of steps the best value lies inside the axis, "
        need = f"and at least {_LEAST_POINTS} over a factor of {_LEAST_SPAN:.0f}, the last included, are needed."
        return None, [unknown + where + need]
    logs = np.log(times / steps)
    fit = _fit(logs, bests)
    errors = {
        "the exponent drifts along the sweep": abs(float(fit.drifting - fit.power)),
        "the values of the axis are few": _resolution_error(np.log(values), scores.mean(axis=1), logs, fit),
        "seeds disagree": _bootstrap_error(np.log(values), scores, logs) if result.seeds >= _LEAST_SEEDS else 0.0,
    }
    middle, half = float(fit.middle), math.hypot(*errors.values())
    if 2 * half > math.log(_MOST_UNCERTAIN):
        cause = max(errors, key=lambda name: errors[name])
        return None, [f"{unknown}{cause}, which leaves it uncertain by more than a factor of {_MOST_UNCERTAIN:.0f}."]
    interval = (math.exp(middle - half), math.exp(middle + half)) if result.seeds >= _LEAST_SEEDS else None
    measured = tuple(zip(times[known].astype(int).tolist(), np.exp(bests[known]).tolist(), strict=True))
    drift = math.exp(float(fit.drifting - fit.power))
    found = Horizon(steps, math.exp(middle), interval, float(fit.exponent), drift, measured)
    return found, _find_caveats(found, axis, values)


def _find_caveats(found: Horizon, axis: str, values: np.ndarray) -> list[str]:
    caveats, last = [], found.measured[-1][0]
    if found.steps > _FARTHEST * last:
        ratio = f"{found.steps:,} steps are {found.steps / last:.0f} times the longest measured run"
        caveats.append(f"{ratio}; predictions were tested up to {_FARTHEST} times.")
    if found.interval is None:
        caveats.append(f"Fewer than {_LEAST_SEEDS} seeds: the uncertainty of the {axis} of a longer run is unknown.")
    if not values[0] <= found.value <= values[-1]:
        caveats.append(f"The {axis} for {found.steps:,} steps is outside of the axis.")
    return caveats


def _refuse_schedules(result: SweepLike, lane: int, steps: int) -> None:
    """Refuse an optimizer that is known to have a schedule; a schedule inside a user's factory is not detected."""
    label = str(result.lanes["optimizer"].values[lane]) if result.optimizers else ""
    if label in json.loads(result.lanes.attrs.get("scheduled", "[]")):
        problem = f"the learning rate{' of ' * bool(label)}{label} has a schedule: no evaluation ends a shorter run"
        raise bad_value("horizon", steps, problem, "Sweep with a constant learning rate")


def _read_line(
    result: SweepLike, axis: str, by: str, maximize: bool, line: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values of the axis whose runs have finished, (values,), steps (times,), and scores (values, seeds, times)."""
    times, scores = _read_curves(result, by, maximize)
    line = line[result.finished.reshape(-1, result.seeds)[line].all(axis=1)]
    lanes = line[:, None] * result.seeds + np.arange(result.seeds)
    late = _choose_times(times, _find_last(result, lanes))
    return result.lanes[axis].values[lanes[:, 0]].astype(float), times[late], scores[lanes][:, :, late]


def _read_curves(result: SweepLike, by: str, maximize: bool) -> tuple[np.ndarray, np.ndarray]:
    """Steps (times,), and scores along the run, (lanes, times), less is better; infinite where not finite or ended."""
    lanes, curve = result.lanes, "curve_" + ("loss" if by == "final_loss" else by)
    if EVALUATION in lanes[by].dims:
        times, values = lanes["evaluation_step"].values, lanes[by].values
    elif curve in lanes:
        times, values = lanes["curve_step"].values, lanes[curve].values
    else:
        remedy = "Pass evaluate_every= to sweep, or compare by a value with a curve"
        raise bad_value("horizon", by, "it was not evaluated along the run", remedy)
    scores = orient(values.astype(float), maximize)
    ended = lanes["end_step"].values[:, None] < times
    order = np.argsort(times)
    return times[order].astype(float), np.where(np.isfinite(scores) & ~ended, scores, np.inf)[:, order]


def _find_last(result: SweepLike, lanes: np.ndarray) -> float:
    """The last step before any run stopped or reached its target, after which runs are not compared."""
    stopped = np.isin(result.lanes["end_kind"].values[lanes], [EndKind.TARGET, EndKind.STOPPED])
    return float(np.min(result.lanes["end_step"].values[lanes][stopped].astype(float), initial=np.inf))


def _choose_times(times: np.ndarray, last: float) -> np.ndarray:
    """Places of the numbers of steps that are read: late ones, at most about equally many per octave."""
    count = max(int(np.searchsorted(times, last, side="right")), 1)
    wanted = np.geomspace(max(_EARLIEST * times[count - 1], times[0], 1), max(times[count - 1], 1), _MOST_POINTS)
    return np.unique(np.searchsorted(times, wanted * (1 - 1e-9)).clip(max=count - 1))


def _locate_bests(logs: np.ndarray, means: np.ndarray) -> np.ndarray:
    """The logarithm of the best value, (..., times), of means (values, ..., times); NaN where it is at an end.

    It is the vertex of the parabola through the lowest mean and its neighbors; the value itself beside a divergence.
    """
    lowest = np.argmin(means, axis=0)
    i = np.clip(lowest, 1, len(logs) - 2)
    left, center, right = (np.take_along_axis(means, i[None] + side, axis=0)[0] for side in (-1, 0, 1))
    before, after = logs[i] - logs[i - 1], logs[i + 1] - logs[i]
    with np.errstate(invalid="ignore", divide="ignore"):
        fall, rise = (center - left) / before, (right - center) / after
        offset = -(fall * after + rise * before) / (2 * (rise - fall))
    best = logs[i] + np.where(np.isfinite(offset), np.clip(offset, -before, after), 0)
    return np.where((lowest == i) & np.isfinite(center), best, np.nan)


def _resolution_error(logs: np.ndarray, means: np.ndarray, times: np.ndarray, fit: _Fit) -> float:
    """How far the prediction may be off for the spacing of the values; means are (values, times).

    It is the spacing, or the change of the prediction when every other value is left out, if that is larger. Where the
    score rises faster on one side, the vertex of a parabola through three distant values is off by up to about their
    spacing, always in the same direction.
    """
    spacing = float(np.diff(logs).max())
    halves = [_locate_bests(logs[start::2], means[start::2]) for start in (0, 1) if len(logs) >= 6]
    if not halves or min(np.isfinite(half).sum() for half in halves) < _LEAST_POINTS:
        return spacing
    return max(spacing, abs(float(np.mean(_fit(times, np.array(halves)).middle) - fit.middle)))


def _fit(logs: np.ndarray, bests: np.ndarray) -> _Fit:
    """Least squares of bests (..., times), NaN where unknown, with equal weight per octave; the horizon is at log 0."""
    weights = np.where(np.isfinite(bests), np.gradient(logs), 0)
    powers = np.vander(logs, 3, increasing=True)
    normal = np.einsum("...t,ti,tj->...ij", weights, powers, powers)
    moments = np.einsum("...t,ti->...i", weights * np.nan_to_num(bests), powers)[..., None]
    straight = np.linalg.solve(normal[..., :2, :2], moments[..., :2, :])[..., 0]
    return _Fit(straight[..., 0], np.linalg.solve(normal, moments)[..., 0, 0], straight[..., 1])


def _bootstrap_error(logs: np.ndarray, scores: np.ndarray, times: np.ndarray) -> float:
    """Half the width of the 95 % interval of the prediction, by resampling the seeds of (values, seeds, times).

    The bootstrap's standard error times Student's quantile, since quantiles of a few seeds are too narrow. Infinite if
    most resamples have no prediction.
    """
    from scipy.special import stdtrit  # slow to import, and rarely needed

    seeds = scores.shape[1]
    draws = np.random.default_rng(0).multinomial(seeds, np.full(seeds, 1 / seeds), _BOOTSTRAP)  # (resamples, seeds)
    finite = np.isfinite(scores)
    total = np.einsum("bs,vst->vbt", draws, np.where(finite, scores, 0), optimize=True)
    broken = np.einsum("bs,vst->vbt", draws, (~finite).astype(float), optimize=True) > 0
    bests = _locate_bests(logs, np.where(broken, np.inf, total / seeds))
    bests = bests[np.isfinite(bests).sum(axis=1) >= _LEAST_POINTS]
    if len(bests) < _BOOTSTRAP / 2:
        return math.inf
    fit = _fit(times, bests)
    error = max(np.std(level, ddof=1) for level in (fit.power, fit.drifting))
    return float(error * math.sqrt(seeds / (seeds - 1)) * stdtrit(seeds - 1, 0.975))
