"""Learning-rate finders as fastai and Lightning have them: from one run with a growing learning rate to a suggestion.

Each takes what a user's one run gives, learning rates and raw losses, (steps,), NaN from where the run has left. Both
smooth the losses (a running mean of which each step is 2 %), and end the run where they exceed four times the least.
Written from the rules, of fastai 2.7 (fastai/callback/schedule.py) and Lightning 2.5 (pytorch/tuner/lr_finder.py).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from gdkit.sweeps.search.range_test import RULES, smoothed

LIGHTNING, SLOPE, TRIED = "Lightning", "gdkit, slope", "gdkit, tried"  # names of rules; fastai has its own
STOP, SMOOTHING = 4.0, 0.98


def recorded(loss: np.ndarray) -> np.ndarray:
    """The smoothed losses up to the one that ends the run, inclusive.

    >>> recorded(np.array([1.0, 1.0, 1e3, 1.0])).round().tolist()
    [1.0, 1.0, 341.0]
    """
    curve = smoothed(loss, SMOOTHING)
    beyond = curve > STOP * np.minimum.accumulate(curve)
    return curve[: int(np.argmax(beyond)) + 1] if beyond.any() else curve


def fastai(rates: np.ndarray, loss: np.ndarray) -> dict[str, float]:
    """Its four suggestions, from all but the first tenth of the steps and the last five points; NaN where too few."""
    curve = recorded(loss)[len(rates) // 10 : -5]
    curve = curve[: int(np.argmax(~np.isfinite(np.append(curve, np.inf))))]
    rates = rates[len(rates) // 10 :][: len(curve)]
    rules = {name: RULES[name] for name in ("valley", "slide", "minimum")} | {"steep": _steep}
    return {name: rule(rates, curve) if len(curve) > 1 else float("nan") for name, rule in rules.items()}


def lightning(rates: np.ndarray, loss: np.ndarray) -> float:
    """Its suggestion, from all but the first ten points and the last; NaN where too few are left."""
    curve = recorded(loss)[10:-1]
    finite = np.isfinite(curve)
    return RULES["linear"](rates[10:][: len(curve)][finite], curve[finite]) if finite.sum() > 1 else float("nan")


def _steep(rates: np.ndarray, loss: np.ndarray) -> float:
    return float(rates[np.argmin(np.diff(loss) / np.diff(np.log(rates)))])


def noisy(chosen: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Suggestions for curves 1 / (1 + η / steepest), whose slope in log η is steepest there, with normal noise."""
    rates = np.geomspace(chosen["from"], chosen["to"], chosen["steps"])
    noise = chosen["noise"] * np.random.default_rng(0).normal(size=(chosen["curves"], len(rates)))
    losses = 1 / (1 + rates / chosen["steepest"]) + noise
    return {LIGHTNING: np.array([RULES["linear"](rates[10:-1], loss[10:-1]) for loss in losses]),
            SLOPE: np.array([RULES["steepest"](rates, loss) for loss in losses])}  # fmt: skip
