"""Adam, too, reaches an edge of stability: its preconditioned sharpness stays at 38/η (Cohen et al. 2022).

Adam steps by −η P⁻¹ times a running mean of gradients, where P is diagonal, (1 − β₁ᵗ) (√ν̂ + ε). If P were constant,
such steps on a quadratic with Hessian H would be stable while the top eigenvalue of P⁻¹H, the preconditioned sharpness,
is below (2 + 2β₁)/((1 − β₁) η), which is 38/η at β₁ = 0.9. On a network it rises to this value as P forgets the large
gradients of the start, whether or not the sharpness itself rises. At the edge the gradients oscillate, which makes P
grow, so the preconditioned sharpness stays.
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import optax
from matplotlib.figure import Figure

from experiments.analysis import edge_runs
from experiments.analysis.edge_runs import CurvatureRun
from experiments.common.claims import Claim
from experiments.common.settings import complete_settings
from gdkit import stability_threshold
from gdkit.stability import preconditioned_sharpness_every

DEFAULTS: dict[str, Any] = {
    "network": edge_runs.NETWORK,
    "learning_rates": [3e-4, 1e-3, 3e-3],
    "b1": 0.9,
    "b2": 0.99,  # a memory of 100 steps; with 0.999 the run would take longer
    "eps": 1e-7,
    "steps": 3000,
    "key": 820,  # of the first initial weights
    "keys": 5,
    "every": 10,  # steps between measurements
}
SOURCE = "Cohen et al., Adaptive gradient methods at the edge of stability, 2022"
CURVATURE = "preconditioned sharpness"


class AdaptiveEdgeOfStability(NamedTuple):
    """Result of the study."""

    settings: dict[str, Any]
    runs: list[CurvatureRun]  # the keys of each learning rate in turn

    def __str__(self) -> str:
        return edge_runs.edge_table({"adam": self.runs})


def run(settings: Mapping[str, Any]) -> AdaptiveEdgeOfStability:
    """Full-batch Adam at several learning rates, with its preconditioned sharpness."""
    settings = complete_settings(settings, DEFAULTS, signed=("key",))
    problem, steps, every = edge_runs.network(settings["network"]), settings["steps"], settings["every"]
    monitor = preconditioned_sharpness_every(
        problem, optax.adam, every, iterations=edge_runs.ITERATIONS, record=steps // every + 1
    )
    keys = range(settings["key"], settings["key"] + settings["keys"])
    options: dict[str, Any] = {"monitor": monitor, "steps": steps, "every": every, "keys": keys}
    record_runs = functools.partial(edge_runs.record_runs, problem, optax.adam, **options)
    others = {name: settings[name] for name in ("b1", "b2", "eps")}
    # Theory bounds ηλ, so its threshold of η for a given λ is also that of λ for a given η.
    runs = [
        run
        for rate in settings["learning_rates"]
        for run in record_runs({"learning_rate": rate} | others, stability_threshold("adam", rate, b1=settings["b1"]))
    ]
    return AdaptiveEdgeOfStability(settings, runs)


def plot(result: AdaptiveEdgeOfStability) -> dict[str, Figure]:
    """One figure: preconditioned sharpness and loss against the step."""
    beta = result.settings["b1"]
    name = f"Adam, $\\beta_1$ = {beta:g}, $\\beta_2$ = {result.settings['b2']:g}"
    formula = f"${stability_threshold('adam', 1.0, b1=beta):.4g}/\\eta$"
    return {"adaptive_edge_of_stability": edge_runs.draw_edge({name: result.runs}, CURVATURE, [formula], scale="log")}


def claims(result: AdaptiveEdgeOfStability) -> list[Claim]:
    """Theory's edges against the plateaus of the preconditioned sharpness."""
    return edge_runs.edge_claims({"Adam": result.runs}, CURVATURE, ["(2 + 2β₁)/((1 − β₁) η)"], SOURCE)
