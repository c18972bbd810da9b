"""gdkit: every optimizer is a map; compile thousands of copies, watch where they go, and say why.

The public names are resolved on first use (PEP 562), so that ``import gdkit`` does not import JAX.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_NAMES = {
    "gdkit.errors": ("GdkitError", "GdkitWarning"),
    "gdkit.problems": ("Problem", "Metric", "Learner"),
    "gdkit.optimizers": ("sgd", "ascent", "ema"),
    "gdkit.descent": ("step_map", "descend", "Trajectory"),
    "gdkit.gradients": (
        "training_table",
        "finite_difference",
        "partial_derivative",
        "check_gradient",
        "chain_rule_trace",
    ),
    "gdkit.types": ("State",),
    "gdkit.regimes": ("Regime", "Thresholds", "Verdict", "classify", "classify_curve"),
    "gdkit.hypergradients": ("hypergradient", "value_and_hypergradient", "tune"),
    "gdkit.stability": (
        "sharpness",
        "preconditioned_sharpness",
        "multipliers",
        "stability_threshold",
        "critical_learning_rate",
        "lyapunov_exponent",
        "central_flow",
        "gradient_flow",
    ),
    "gdkit.sweeps.sweep": ("sweep",),
    "gdkit.sweeps.function": ("sweep_function",),
    "gdkit.sweeps.result.result": ("SweepResult",),
    "gdkit.app.opening": ("open",),
    "gdkit.sweeps.search.halving": ("successive_halving",),
    "gdkit.sweeps.search.range_test": ("lr_range_test",),
    "gdkit.sweeps.search.optuna": ("optuna_search",),
    "gdkit.sweeps.axes": ("static", "lanes", "paired", "random_axes"),
    "gdkit.sweeps.plan.shapes": ("Plan",),
    "gdkit.environment": ("faster_cpu", "cache_programs"),
}
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names}
_MODULES = (
    "data",
    "datasets",
    "problems",
    "optimizers",
    "schedules",
    "monitors",
    "gradients",
    "hypergradients",
    "stability",
    "boundary",
    "live",
    "plots",
)

__all__ = sorted([*_MODULE_OF, *_MODULES])


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        return getattr(importlib.import_module(_MODULE_OF[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"gdkit.{name}")
    raise AttributeError(f"module 'gdkit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
