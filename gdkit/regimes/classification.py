"""The regimes, the thresholds between them, and the classification of runs by their statistics."""

import dataclasses
from collections.abc import Mapping
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike

from gdkit.checks import check_diverged_above, check_number
from gdkit.monitors import EndKind


class Regime(IntEnum):
    """The behavior of a run. A run has arrived if its last gap is at most `Thresholds.converged_gap`."""

    SLOW = 0  # the loss is falling: it has not arrived, or its optimum is unknown and it still falls much
    CONVERGED = 1  # arrived without overshoot
    OSCILLATING = 2  # arrived by updates that reverse
    CATAPULT = 3  # rose well above its start, then arrived
    BOUNCING = 4  # stays bounded and keeps moving without arriving
    STALLED = 5  # stays bounded, updates vanish, or are lost in the rounding of the params, before it arrives
    DIVERGED = 6
    UNKNOWN = 7  # did not diverge; the statistics that would tell more were not recorded


@dataclasses.dataclass(frozen=True)
class Thresholds:
    """The borders between regimes. A gap is (L − L*) / (L₀ − L*): 1 at the start, 0 at the optimum."""

    converged_gap: float = 1e-2  # arrived: 99 % of the possible decrease is done, well above float32's rounding
    catapult_gap: float = 2.0  # a rise that doubles the gap: more than minibatch noise or momentum's overshoot cause
    reversal: float = 0.0  # successive updates at an obtuse angle on average: each undoes a part of the last
    climbing_gap: float = 2.0  # ends at its highest and above this: growing too slowly to have been stopped
    falling: float = 0.05  # late losses are lower than earlier ones by this share of their gap, and by their spread
    # The late slopes predicted a decrease of this share of the gap, and of four times the standard error of the late
    # mean (95 % of noise stays below two): large enough to be measured.
    promised: float = 0.01
    kept: float = 0.2  # the loss fell by less than this share of the prediction (1: small steps): moves, but not down
    vanished: float = 1e-3  # updates and their predicted decrease, relative to the largest update and to the late gap

    def __post_init__(self):
        for field in dataclasses.fields(self):
            check_number(f"thresholds.{field.name}", getattr(self, field.name))


DEFAULT_THRESHOLDS = Thresholds()


class Verdict(NamedTuple):
    """The regimes of one or many runs; every array has the shape of the statistics."""

    regime: np.ndarray  # int8, a Regime
    onset: np.ndarray  # int32, the step at which the regime began to show; -1 where no step is known
    evidence: dict[str, np.ndarray]  # the numbers that decided


def classify(
    statistics: Mapping[str, ArrayLike],
    *,
    optimum: ArrayLike | None = None,
    thresholds: Thresholds = DEFAULT_THRESHOLDS,
    diverged_above: float = 1e6,
) -> Verdict:
    """Judge the regime of each run from its statistics (those of a Trajectory, or of a whole sweep).

    Theory for plain gradient descent on a quadratic of curvature λ: CONVERGED up to 1/λ, OSCILLATING up to 2/λ,
    BOUNCING there, DIVERGED above. Where the loss is that of a minibatch (``stochastic``), late mean losses decide,
    and reversals, which noise alone causes, are reported and decide nothing.

    A run that a stopping rule ended is judged by what it did until then, and is never DIVERGED: one that was climbing
    is BOUNCING.

    Losses enter as differences, relative to L₀ − L*: a constant that is added to the loss changes no regime.

    Args:
      statistics: name to array, all of one shape: the statistics of the default monitors.
      optimum: the lowest possible loss. If it is None, the lowest observed loss is used: ``reference_loss`` of the
        statistics, or `least_loss` of these runs; a run that still falls towards it has not arrived.
      thresholds: the borders between regimes.
      diverged_above: as in `sweep`; a run is also DIVERGED if it rose by more than diverged_above · max(L₀ − L*, 1).

    Returns:
      The verdict. Its evidence: ``gap`` (of the last loss, or of the late mean), ``rise`` (largest gap), ``reversal``
      (mean cosine of successive late updates), ``predicted`` (decrease that the late slopes predicted, in late gaps),
      ``vanishing`` (late mean update over the largest), ``falling`` (late decrease as a share of the gap), ``clear``
      (whether that exceeds the spread of late losses), ``noise`` (standard error of the late mean, in late gaps).

    >>> from gdkit import Problem, descend, sgd
    >>> problem = Problem(lambda x: (x - 3) ** 2, 0.0, optimum=0.0)
    >>> for rate in (0.001, 0.2, 0.8, 1.0, 1.2):
    ...     run = descend(problem, sgd, 400, hyperparameters={"learning_rate": rate})
    ...     print(rate, Regime(int(classify(run.statistics, optimum=0.0).regime)).name)
    0.001 SLOW
    0.2 CONVERGED
    0.8 OSCILLATING
    1.0 BOUNCING
    1.2 DIVERGED
    """
    check_diverged_above(diverged_above)
    s, stochastic = _as_float64(statistics, thresholds)
    with np.errstate(all="ignore"):
        gaps = _compute_gaps(s, optimum, stochastic)
        evidence = _compute_evidence(s, gaps)
        tests = _test_regimes(
            s, gaps, evidence, stochastic, thresholds, diverged_above, is_optimum_known=optimum is not None
        )
    regime = np.select(list(tests.values()), [int(r) for r in tests], int(Regime.SLOW)).astype(np.int8)
    return Verdict(regime, _find_onset(s, regime), evidence)


def has_diverged(
    statistics: Mapping[str, ArrayLike],
    *,
    optimum: ArrayLike | None = None,
    thresholds: Thresholds = DEFAULT_THRESHOLDS,
    diverged_above: float = 1e6,
) -> np.ndarray:
    """Mask of the runs that `classify` calls DIVERGED; the statistics of losses and ends suffice."""
    s, stochastic = _as_float64(statistics, thresholds)
    with np.errstate(all="ignore"):
        return _has_diverged(s, _compute_gaps(s, optimum, stochastic), thresholds, diverged_above)


def has_left_bounds(statistics: Mapping[str, ArrayLike]) -> np.ndarray:
    """Mask of the runs that ended because their loss was not finite or out of bounds."""
    return np.isin(statistics["end_kind"], (EndKind.NONFINITE, EndKind.EXCEEDED))


def least_loss(statistics: Mapping[str, ArrayLike]) -> float:
    """The lowest observed loss, of the late means where it is that of a minibatch; NaN if none was finite."""
    stochastic = np.asarray(statistics.get("stochastic", False), bool)
    late = statistics.get("late_mean", statistics["min_loss"])  # not recorded by a sweep with statistics="ends"
    losses = np.asarray(np.where(stochastic, late, statistics["min_loss"]), float)
    stopped = has_left_bounds(statistics) & np.ones(losses.shape, bool)
    # a run that was stopped may have recorded a loss on a fall without bound; it counts only where all were stopped
    losses = losses[np.isfinite(losses) & (~stopped | stopped.all())]
    return float(losses.min()) if losses.size else float("nan")


def _as_float64(statistics: Mapping[str, ArrayLike], limits: Thresholds) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The statistics without curves as float64, and the mask of runs on minibatches."""
    values = {name: np.asarray(x, np.float64) for name, x in statistics.items() if not name.startswith("curve_")}
    stochastic = np.asarray(statistics.get("stochastic", False), bool)
    if "late_variation" in values:
        values |= _replace_slopes(values, stochastic, limits)
    return values, stochastic


def _replace_slopes(s: Mapping[str, np.ndarray], stochastic: np.ndarray, limits: Thresholds) -> dict[str, np.ndarray]:
    """Changes of the loss in place of unknown statistics: slopes of a Learner; slopes and updates of losses alone.

    On minibatches the changes are noise, and count as unknown. Updates that reverse and do not vanish promise a
    decrease, however little the loss changes.
    """
    late = np.where(stochastic, np.nan, s["late_variation"])
    if "reversal" in s:
        swings = (s["reversal"] < limits.reversal) & (s["update_norm"] > limits.vanished * s["peak_update_norm"])
        return {"late_predicted": np.where(swings & ~stochastic, np.inf, late)}
    changes = {"update_norm": "late_change", "peak_update_norm": "peak_change"}
    known = {name: np.where(stochastic, np.nan, s[change]) for name, change in changes.items()}
    shape = s["late_change"].shape
    return known | {"late_predicted": late, "reversal": np.full(shape, np.nan), "reversal_step": np.full(shape, -1.0)}


_TINY = np.finfo(np.float64).tiny


class _Gaps(NamedTuple):
    """Losses as gaps; each array has the shape of the statistics."""

    scale: np.ndarray  # of the initial gap
    last: np.ndarray  # of the last loss, or of the late mean on minibatches
    rise: np.ndarray  # of the largest loss
    late: np.ndarray  # of the late mean
    earlier: np.ndarray  # of the earlier mean


def _compute_gaps(s: Mapping[str, np.ndarray], optimum: ArrayLike | None, stochastic: np.ndarray) -> _Gaps:
    least = s["reference_loss"] if "reference_loss" in s else least_loss({**s, "stochastic": stochastic})
    best = np.asarray(least if optimum is None else optimum, np.float64)
    start = s["initial_loss"] - best
    rounding = np.finfo(np.float32).eps * np.maximum(np.abs(s["initial_loss"]), np.abs(best))
    # a run that starts at its optimum is judged against rounding; if the optimum is unknown, it has not arrived there
    scale = np.maximum(start, np.maximum(rounding, _TINY))
    unmoved = (start <= rounding) & (optimum is None)
    gap = lambda loss: np.where(unmoved, 1.0, 0.0) + (loss - best) / scale
    last = np.where(stochastic, s["late_mean"], s["final_loss"])
    return _Gaps(scale, gap(last), gap(s["max_loss"]), gap(s["late_mean"]), gap(s["earlier_mean"]))


def _compute_evidence(s: Mapping[str, np.ndarray], gaps: _Gaps) -> dict[str, np.ndarray]:
    late, peak = np.maximum(gaps.late, _TINY), s["peak_update_norm"]
    return {
        "gap": gaps.last,
        "rise": gaps.rise,
        "reversal": s["reversal"],
        "predicted": s["late_predicted"] / gaps.scale / late,
        "vanishing": np.where(peak > 0, s["update_norm"] / np.where(peak > 0, peak, 1), 0.0),
        "falling": (gaps.earlier - gaps.late) / np.abs(gaps.earlier),
        "clear": s["earlier_mean"] - s["late_mean"] > s["late_spread"],
        # at least an eighth of the steps are late
        "noise": s["late_spread"] / gaps.scale / late / np.sqrt(np.maximum(s["end_step"] / 8, 1)),
    }


def _has_diverged(s: Mapping[str, np.ndarray], gaps: _Gaps, limits: Thresholds, diverged_above: float) -> np.ndarray:
    """Mask of runs that left their bounds; one that a stopping rule ended before might have stayed within them."""
    return _has_climbed(s, gaps, limits, diverged_above) & (s["end_kind"] != EndKind.STOPPED)


def _has_climbed(s: Mapping[str, np.ndarray], gaps: _Gaps, limits: Thresholds, diverged_above: float) -> np.ndarray:
    """Mask of runs that were stopped by their loss, or end near their highest loss, above the limit and climbing.

    A run is stopped relative to |L₀|, since nothing else is known while it runs; the first test here repeats this
    relative to L₀ − L*, which does not depend on the zero of the loss.
    """
    stopped = s["max_loss"] - s["initial_loss"] > diverged_above * np.maximum(gaps.scale, 1)
    lost = ~np.isfinite(s["final_loss"]) & np.isfinite(s["initial_loss"])  # if neither is finite, no loss is known
    stopped |= has_left_bounds(s) | lost
    at_its_highest = (s["max_step"] >= 0.875 * s["end_step"]) & (gaps.last >= 0.5 * gaps.rise)
    return stopped | ((gaps.last > limits.climbing_gap) & at_its_highest & (s["late_mean"] > s["earlier_mean"]))


def _test_regimes(
    s: Mapping[str, np.ndarray],
    gaps: _Gaps,
    evidence: Mapping[str, np.ndarray],
    stochastic: np.ndarray,
    limits: Thresholds,
    diverged_above: float,
    *,
    is_optimum_known: bool,
) -> dict[Regime, np.ndarray]:
    """Regimes in the order in which they are tried, each with the mask of runs for which its condition holds."""
    arrived = gaps.last <= limits.converged_gap
    if not is_optimum_known:
        arrived &= ~_keeps_falling(s, gaps, evidence, limits)
    arrived |= s["end_kind"] == EndKind.TARGET
    reverses = ~stochastic & (evidence["reversal"] < limits.reversal)
    still = (evidence["vanishing"] < limits.vanished) & (np.abs(evidence["predicted"]) < limits.vanished)
    still |= (s["update_norm"] == 0) | (s.get("rounded_away", np.zeros(())) != 0)
    falls = (evidence["falling"] > limits.falling) & evidence["clear"]
    promised = evidence["predicted"] > np.maximum(limits.promised, 4 * evidence["noise"])
    idle = promised & (evidence["falling"] < limits.kept * evidence["predicted"])
    return {
        Regime.DIVERGED: _has_diverged(s, gaps, limits, diverged_above),
        Regime.CATAPULT: arrived & (gaps.rise > limits.catapult_gap),
        Regime.OSCILLATING: arrived & reverses,
        Regime.CONVERGED: arrived,
        Regime.STALLED: still,
        Regime.BOUNCING: (idle & ~falls) | _has_climbed(s, gaps, limits, diverged_above),
    }


def _keeps_falling(
    s: Mapping[str, np.ndarray], gaps: _Gaps, evidence: Mapping[str, np.ndarray], limits: Thresholds
) -> np.ndarray:
    """Mask of runs whose late losses fell, and by their slopes will fall, by more than the gap that counts as arrived.

    The lowest observed loss is then no optimum: the loss may not have a floor.
    """
    drop, slope = gaps.earlier - gaps.late, s["late_predicted"] / gaps.scale
    return evidence["clear"] & (drop > limits.converged_gap) & (slope > limits.converged_gap)


def _find_onset(s: Mapping[str, np.ndarray], regime: np.ndarray) -> np.ndarray:
    """The step of the last new low (DIVERGED, BOUNCING), of the peak (CATAPULT) or of the first reversal; else -1."""
    steps = {
        Regime.DIVERGED: s["min_step"],
        Regime.BOUNCING: s["min_step"],
        Regime.CATAPULT: s["max_step"],
        Regime.OSCILLATING: s["reversal_step"],
    }
    return np.select([regime == r for r in steps], list(steps.values()), -1).astype(np.int32)
