"""Learning-rate finders of fastai and Lightning: from one run with a growing learning rate to a suggestion.

Each takes the learning rates and raw losses of one run, (steps,), NaN from the step at which the run diverged. Both
smooth the losses (a running mean to which each step adds 2 %), and stop the run where they exceed four times their
minimum. Written from the rules of fastai 2.7 (fastai/callback/schedule.py) and Lightning 2.5.3
(pytorch/tuner/lr_finder.py), the first that takes the slope against the raw learning rate. Before, Lightning took it
against the step, that is, against the logarithm of the learning rate, like gdkit's rule.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from gdkit.sweeps.search.range_test import RULES, smoothed

# Names of the rules of Lightning and gdkit; fastai names its own.
LIGHTNING, SLOPE, TRIED = "Lightning", "gdkit, slope", "gdkit, best of trials"
STOP_FACTOR, SMOOTHING = 4.0, 0.98


def smooth_until_stop(loss: np.ndarray) -> np.ndarray:
    """The smoothed losses up to and including the one that stops the run.

    >>> smooth_until_stop(np.array([1.0, 1.0, 1e3, 1.0])).round().tolist()
    [1.0, 1.0, 341.0]
    """
    curve = smoothed(loss, SMOOTHING)
    exceeds = curve > STOP_FACTOR * np.minimum.accumulate(curve)
    return curve[: int(np.argmax(exceeds)) + 1] if exceeds.any() else curve


def suggest_fastai(rates: np.ndarray, loss: np.ndarray) -> dict[str, float]:
    """fastai's four suggestions, without the first tenth of the steps and the last five; NaN if too few remain."""
    curve = smooth_until_stop(loss)[len(rates) // 10 : -5]
    curve = curve[: int(np.argmax(~np.isfinite(np.append(curve, np.inf))))]
    rates = rates[len(rates) // 10 :][: len(curve)]
    rules = {name: RULES[name] for name in ("valley", "slide", "minimum")} | {"steep": _steep}
    return {name: rule(rates, curve) if len(curve) > 1 else float("nan") for name, rule in rules.items()}


def suggest_lightning(rates: np.ndarray, loss: np.ndarray) -> float:
    """Lightning's suggestion, without the first ten points and the last; NaN if too few remain."""
    curve = smooth_until_stop(loss)[10:-1]
    finite = np.isfinite(curve)
    return RULES["linear"](rates[10:][: len(curve)][finite], curve[finite]) if finite.sum() > 1 else float("nan")


def _steep(rates: np.ndarray, loss: np.ndarray) -> float:
    return float(rates[np.argmin(np.diff(loss) / np.diff(np.log(rates)))])


def suggest_on_noisy_curves(settings: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Suggestions, (curves,) by rule, for curves 1 / (1 + η / steepest) with normal noise.

    The slope of such a curve in log η is steepest at `steepest`.
    """
    rates = np.geomspace(settings["from"], settings["to"], settings["steps"])
    noise = settings["noise"] * np.random.default_rng(0).normal(size=(settings["curves"], len(rates)))
    losses = 1 / (1 + rates / settings["steepest"]) + noise
    return {LIGHTNING: np.array([RULES["linear"](rates[10:-1], loss[10:-1]) for loss in losses]),
            SLOPE: np.array([RULES["steepest"](rates, loss) for loss in losses])}  # fmt: skip
