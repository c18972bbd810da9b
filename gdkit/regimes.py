"""Regimes: what became of a run, judged after it from its streaming statistics alone."""

import dataclasses
from collections.abc import Mapping
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np

from gdkit.errors import bad_value
from gdkit.monitors import EndKind


class Regime(IntEnum):
    """What became of a run."""

    SLOW = 0  # falling, not there yet
    CONVERGED = 1  # there, without overshoot
    OSCILLATING = 2  # there, by updates that reverse
    CATAPULT = 3  # rose well above its start, then got there
    BOUNCING = 4  # bounded, keeps moving, never gets there
    STALLED = 5  # bounded, updates vanish, not there
    DIVERGED = 6


@dataclasses.dataclass(frozen=True)
class Thresholds:
    """Where the regimes part. A gap is (L − L*) / (L₀ − L*): 1 at the start, 0 at the optimum."""

    converged_gap: float = 1e-2  # there: 99 % of what could be lost is lost, well above float32's rounding
    catapult_gap: float = 2.0  # a rise that doubles the gap: more than minibatch noise or momentum's overshoot bring
    reversal: float = 0.0  # successive updates at an obtuse angle on average: each undoes a part of the last
    climbing_gap: float = 2.0  # ends at its highest and above this: growing too slowly to have been stopped
    falling: float = 0.05  # late losses lie lower than earlier ones by this share of their gap, and by their spread
    promised: float = 0.01  # the late slopes predicted a decrease of this share of the gap, and of four times the
    # standard error of the late mean (95 % of noise stays below two): it should have been seen
    kept: float = 0.2  # and less than this share of that came: the run moves, but not down (1 for small steps)
    vanished: float = 1e-3  # updates and what they predict, relative to the largest update and to the gap left

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
                raise bad_value(
                    f"thresholds.{field.name}", value, "not a finite number", "Leave it out for the default"
                )


DEFAULT_THRESHOLDS = Thresholds()


class Verdict(NamedTuple):
    """The judgement of one or many runs; every array has the shape of the statistics."""

    regime: Any  # int8, a Regime
    onset: Any  # int32, the step at which it began to show; -1 where that is not known
    evidence: dict[str, Any]  # the numbers that decided


def classify(
    statistics: Mapping[str, Any], *, optimum: Any = None, thresholds: Thresholds = DEFAULT_THRESHOLDS
) -> Verdict:
    """Tell the regime of each run from its statistics (those of a Trajectory, or of a whole sweep).

    Theory for plain gradient descent on a quadratic of curvature λ: CONVERGED up to 1/λ, OSCILLATING up to 2/λ,
    BOUNCING there, DIVERGED above. Where the loss is that of a minibatch (``stochastic``), late mean losses decide,
    and reversals, which noise alone brings about, are reported but do not.

    Args:
      statistics: name to array, all of one shape: what the default monitors read.
      optimum: the least loss there can be; without it ``reference_loss`` of the statistics, or the least that was
        seen, stands in.
      thresholds: where the regimes part.

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
    s = {name: np.asarray(value, np.float64) for name, value in statistics.items() if not _is_curve(name)}
    stochastic = np.asarray(statistics.get("stochastic", False), bool)
    with np.errstate(all="ignore"):
        evidence = _evidence(s, optimum, stochastic)
        tests = _tests(s, evidence, stochastic, thresholds)
    regime = np.select(list(tests.values()), [int(r) for r in tests], int(Regime.SLOW)).astype(np.int8)
    return Verdict(regime, _onset(s, regime), evidence)


def least_loss(statistics: Mapping[str, Any]) -> float:
    """The least loss seen, of the late means where it is that of a minibatch; NaN if none was finite."""
    stochastic = np.asarray(statistics.get("stochastic", False), bool)
    seen = np.asarray(np.where(stochastic, statistics["late_mean"], statistics["min_loss"]), float)
    left = np.isin(statistics["end_kind"], (EndKind.NONFINITE, EndKind.EXCEEDED)) & np.ones(seen.shape, bool)
    # a run that left counts only where all did: what it saw on its way, a loss without a floor perhaps, is no standard
    seen = seen[np.isfinite(seen) & (~left | left.all())]
    return float(seen.min()) if seen.size else float("nan")


def _evidence(s: Mapping[str, np.ndarray], optimum: Any, stochastic: np.ndarray) -> dict[str, np.ndarray]:
    seen = s["reference_loss"] if "reference_loss" in s else least_loss({**s, "stochastic": stochastic})
    best = np.asarray(seen if optimum is None else optimum, np.float64)
    start = s["initial_loss"] - best
    rounding = np.finfo(np.float32).eps * np.maximum(np.abs(s["initial_loss"]), np.abs(best))
    # a run that starts at its optimum is judged against rounding; where none is known, it has not arrived there
    tiny = np.finfo(np.float64).tiny
    scale = np.maximum(start, np.maximum(rounding, tiny))
    unmoved = (start <= rounding) & (optimum is None)
    gap = lambda loss: np.where(unmoved, 1.0, 0.0) + (loss - best) / scale
    last = gap(np.where(stochastic, s["late_mean"], s["final_loss"]))
    late, earlier = gap(s["late_mean"]), gap(s["earlier_mean"])
    decrease = s["earlier_mean"] - s["late_mean"]
    peak = s["peak_update_norm"]
    return {
        "gap": last,
        "rise": gap(s["max_loss"]),
        "reversal": s["reversal"],
        "predicted": s["late_predicted"] / scale / np.maximum(late, tiny),
        "vanishing": np.where(peak > 0, s["update_norm"] / np.where(peak > 0, peak, 1), 0.0),
        "falling": (earlier - late) / np.abs(earlier),
        "clear": decrease > s["late_spread"],
        # at least an eighth of the steps are late
        "noise": s["late_spread"] / scale / np.maximum(late, tiny) / np.sqrt(np.maximum(s["end_step"] / 8, 1)),
    }


def _tests(
    s: Mapping[str, np.ndarray], e: Mapping[str, np.ndarray], stochastic: np.ndarray, limits: Thresholds
) -> dict[Regime, np.ndarray]:
    """Regimes in the order in which they are tried, each with where its condition holds."""
    end = s["end_kind"]
    stopped = (end == EndKind.NONFINITE) | (end == EndKind.EXCEEDED) | ~np.isfinite(s["final_loss"])
    at_its_highest = (s["max_step"] >= 0.875 * s["end_step"]) & (e["gap"] >= 0.5 * e["rise"])
    climbing = (e["gap"] > limits.climbing_gap) & at_its_highest & (s["late_mean"] > s["earlier_mean"])
    there = (e["gap"] <= limits.converged_gap) | (end == EndKind.TARGET)
    reverses = ~stochastic & (e["reversal"] < limits.reversal)
    still = (e["vanishing"] < limits.vanished) & (np.abs(e["predicted"]) < limits.vanished)
    still |= s["update_norm"] == 0
    falls = (e["falling"] > limits.falling) & e["clear"]
    promised = e["predicted"] > np.maximum(limits.promised, 4 * e["noise"])
    idle = promised & (e["falling"] < limits.kept * e["predicted"])
    return {
        Regime.DIVERGED: stopped | climbing,
        Regime.CATAPULT: there & (e["rise"] > limits.catapult_gap),
        Regime.OSCILLATING: there & reverses,
        Regime.CONVERGED: there,
        Regime.STALLED: still,
        Regime.BOUNCING: idle & ~falls,
    }


def _onset(s: Mapping[str, np.ndarray], regime: np.ndarray) -> np.ndarray:
    """DIVERGED, BOUNCING: the last new low; CATAPULT: the peak; OSCILLATING: the first reversal; else not known."""
    known = {
        Regime.DIVERGED: s["min_step"],
        Regime.BOUNCING: s["min_step"],
        Regime.CATAPULT: s["max_step"],
        Regime.OSCILLATING: s["reversal_step"],
    }
    return np.select([regime == r for r in known], list(known.values()), -1).astype(np.int32)


def _is_curve(name: str) -> bool:
    return name.startswith("curve_")
