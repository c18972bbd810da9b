"""Derivatives step by step: finite differences, the chain rule, the training table, and checks of gradients."""

from gdkit.gradients.chain_rule import ChainRow, ChainRuleTrace, Graph, chain_rule_trace
from gdkit.gradients.differences import (
    FiniteDifference,
    GradientCheck,
    LeafCheck,
    Sensitivity,
    SensitivityRow,
    check_gradient,
    finite_difference,
    partial_derivative,
    sensitivity,
)
from gdkit.gradients.training_table import TrainingRow, TrainingTable, training_table

__all__ = [
    "ChainRow", "ChainRuleTrace", "FiniteDifference", "GradientCheck", "Graph", "LeafCheck", "Sensitivity",
    "SensitivityRow", "TrainingRow", "TrainingTable", "chain_rule_trace", "check_gradient", "finite_difference",
    "partial_derivative", "sensitivity", "training_table",
]  # fmt: skip
