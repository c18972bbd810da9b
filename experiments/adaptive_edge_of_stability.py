"""Adam, too, comes to an edge of stability: its preconditioned sharpness stays at 38/η (Cohen et al. 2022).

Adam steps by −η P⁻¹ times a running mean of gradients, where P is diagonal, (1 − β₁ᵗ) (√ν̂ + ε). Were P constant, then
on a quadratic of Hessian H such steps would be stable while the top eigenvalue of P⁻¹H, the preconditioned sharpness,
is below (2 + 2β₁)/((1 − β₁) η), which is 38/η at β₁ = 0.9. On a network it rises until it is there, as P forgets the
large gradients of the start, whether or not the sharpness itself rises. At the edge the gradients swing, P with them
grows, and so the preconditioned sharpness stays.
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import optax
from matplotlib.figure import Figure

from experiments.analysis import edge_runs
from experiments.analysis.edge_runs import Run
from experiments.common.claims import Claim
from experiments.common.settings import complete
from gdkit import stability_threshold
from gdkit.stability import preconditioned_sharpness_every

DEFAULTS: dict[str, Any] = {
    "network": edge_runs.NETWORK,
    "learning_rates": [3e-4, 1e-3, 3e-3],
    "b1": 0.9,
    "b2": 0.99,  # 100 steps of memory: with 0.999 all takes longer
    "eps": 1e-7,
    "steps": 3000,
    "every": 10,  # steps from one measurement to the next
}
SOURCE = "Cohen et al., Adaptive gradient methods at the edge of stability, 2022"
CURVATURE = "preconditioned sharpness"


class AdaptiveEdgeOfStability(NamedTuple):
    """What the study found."""

    settings: dict[str, Any]
    runs: list[Run]

    def __str__(self) -> str:
        return edge_runs.table({"adam": self.runs})


def run(settings: Mapping[str, Any]) -> AdaptiveEdgeOfStability:
    """Full-batch Adam at several learning rates, its preconditioned sharpness measured on the way."""
    chosen = complete(settings, DEFAULTS)
    problem, steps, every = edge_runs.network(chosen["network"]), chosen["steps"], chosen["every"]
    watched = preconditioned_sharpness_every(
        problem, optax.adam, every, iterations=edge_runs.ITERATIONS, record=steps // every + 1
    )
    follow = functools.partial(edge_runs.follow, problem, optax.adam, watched=watched, steps=steps, every=every)
    others = {name: chosen[name] for name in ("b1", "b2", "eps")}
    # ηλ is what theory bounds, so that its threshold of η, given λ, is that of λ, given η
    runs = [
        follow({"learning_rate": rate} | others, stability_threshold("adam", rate, b1=chosen["b1"]))
        for rate in chosen["learning_rates"]
    ]
    return AdaptiveEdgeOfStability(chosen, runs)


def plot(result: AdaptiveEdgeOfStability) -> dict[str, Figure]:
    """One figure: preconditioned sharpness and loss against the step."""
    beta = result.settings["b1"]
    name = f"Adam, $\\beta_1$ = {beta:g}, $\\beta_2$ = {result.settings['b2']:g}"
    formula = f"${stability_threshold('adam', 1.0, b1=beta):.4g}/\\eta$"
    return {"adaptive_edge_of_stability": edge_runs.draw({name: result.runs}, CURVATURE, [formula], scale="log")}


def claims(result: AdaptiveEdgeOfStability) -> list[Claim]:
    """Theory's edges against where the preconditioned sharpness stays."""
    return edge_runs.claims({"Adam": result.runs}, CURVATURE, ["(2 + 2β₁)/((1 − β₁) η)"], SOURCE)
