"""Regimes: how a run behaved and whether it arrived, judged by its streaming statistics alone."""

from gdkit.regimes.classification import (
    DEFAULT_THRESHOLDS,
    Regime,
    Thresholds,
    Verdict,
    classify,
    has_diverged,
    has_left_bounds,
    least_loss,
)
from gdkit.regimes.curves import check_curves, classify_curve, curve_statistics

__all__ = [
    "DEFAULT_THRESHOLDS", "Regime", "Thresholds", "Verdict", "check_curves", "classify", "classify_curve",
    "curve_statistics", "has_diverged", "has_left_bounds", "least_loss",
]  # fmt: skip
