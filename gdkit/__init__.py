"""gdkit: every optimizer is a map; compile thousands of copies, watch where they go, and say why.

The public names are resolved on first use (PEP 562), so that ``import gdkit`` does not import JAX.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "GdkitError": "gdkit.errors",
    "GdkitWarning": "gdkit.errors",
    "Problem": "gdkit.problems",
    "sgd": "gdkit.optimizers",
    "ascent": "gdkit.optimizers",
    "step_map": "gdkit.descent",
    "descend": "gdkit.descent",
    "Trajectory": "gdkit.descent",
    "training_table": "gdkit.gradients",
    "Regime": "gdkit.regimes",
    "Thresholds": "gdkit.regimes",
    "Verdict": "gdkit.regimes",
    "classify": "gdkit.regimes",
    "finite_difference": "gdkit.gradients",
    "partial_derivative": "gdkit.gradients",
    "check_gradient": "gdkit.gradients",
    "chain_rule_trace": "gdkit.gradients",
    "hypergradient": "gdkit.hypergradients",
    "value_and_hypergradient": "gdkit.hypergradients",
    "tune": "gdkit.hypergradients",
    "sharpness": "gdkit.stability",
    "preconditioned_sharpness": "gdkit.stability",
    "multipliers": "gdkit.stability",
    "stability_threshold": "gdkit.stability",
    "critical_learning_rate": "gdkit.stability",
    "lyapunov_exponent": "gdkit.stability",
    "sweep": "gdkit.sweeps.sweep",
    "SweepResult": "gdkit.sweeps.result.result",
    "open": "gdkit.app.opening",
    "successive_halving": "gdkit.sweeps.search.halving",
    "lr_range_test": "gdkit.sweeps.search.range_test",
    "optuna_search": "gdkit.sweeps.search.optuna",
    "static": "gdkit.sweeps.axes",
    "lanes": "gdkit.sweeps.axes",
    "paired": "gdkit.sweeps.axes",
    "random_axes": "gdkit.sweeps.axes",
    "Plan": "gdkit.sweeps.plan.shapes",
    "faster_cpu": "gdkit.environment",
}
_MODULES = ("problems", "optimizers", "monitors", "gradients", "hypergradients", "stability", "boundary", "plots")

__all__ = sorted([*_HOME, *_MODULES])


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"gdkit.{name}")
    raise AttributeError(f"module 'gdkit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
