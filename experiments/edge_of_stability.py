"""Gradient descent on a network drives its sharpness up to 2/η, and holds it there (Cohen et al. 2021).

On a quadratic of curvature λ, steps of η grow without bound where λ > 2/η. A network is no quadratic: its sharpness,
the top eigenvalue of the loss's Hessian, changes on the way. It rises ("progressive sharpening") until it meets 2/η.
There a step overshoots along the top direction by as much as it was off, its multiplier being 1 − ηλ = −1; above, the
swing grows, and pushes the sharpness down again. So the sharpness stays, and the loss falls on, though no longer at
every step. Heavy-ball momentum β puts the edge at (2 + 2β)/η.
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from experiments.analysis import edge_runs
from experiments.analysis.edge_runs import Run
from experiments.common.claims import Claim
from experiments.common.settings import complete
from gdkit import multipliers, sgd, sharpness, stability_threshold
from gdkit.stability import sharpness_every

DEFAULTS: dict[str, Any] = {
    "network": edge_runs.NETWORK,
    "learning_rates": [0.15, 0.2, 0.3],  # of plain gradient descent
    "heavy_ball": {"momentum": 0.8, "learning_rates": [0.3, 0.4, 0.5]},
    "steps": 3000,
    "every": 10,  # steps from one measurement to the next
}
SOURCE = "Cohen et al., Gradient descent on neural networks typically occurs at the edge of stability, 2021"
PLAIN, HEAVY = "gradient descent", "heavy ball"


class EdgeOfStability(NamedTuple):
    """What the study found."""

    settings: dict[str, Any]
    runs: dict[str, list[Run]]  # by optimizer
    multiplier: float  # the most negative of the step map, where the first run ends
    foretold: float  # 1 − ηλ there

    def __str__(self) -> str:
        last = f"where the first run ends: multiplier {self.multiplier:.4f}, 1 − ηλ = {self.foretold:.4f}"
        return f"{edge_runs.table(self.runs)}\n{last}"


def run(settings: Mapping[str, Any]) -> EdgeOfStability:
    """Gradient descent and heavy ball, the sharpness measured on the way, and a multiplier where the first run ends."""
    chosen = complete(settings, DEFAULTS)
    problem, steps, every = edge_runs.network(chosen["network"]), chosen["steps"], chosen["every"]
    watched = sharpness_every(problem, every, iterations=edge_runs.ITERATIONS, record=steps // every + 1)
    follow = functools.partial(edge_runs.follow, problem, sgd, watched=watched, steps=steps, every=every)
    # ηλ is what theory bounds, so that its threshold of η, given λ, is that of λ, given η
    plain = [follow({"learning_rate": rate}, stability_threshold("sgd", rate)) for rate in chosen["learning_rates"]]
    beta = {"momentum": chosen["heavy_ball"]["momentum"]}
    heavy = [
        follow({"learning_rate": rate} | beta, stability_threshold("momentum", rate, **beta))
        for rate in chosen["heavy_ball"]["learning_rates"]
    ]
    rate, end = plain[0].learning_rate, plain[0].end
    found = multipliers(problem, sgd, end, hyperparameters={"learning_rate": rate}).farthest.values[0]
    foretold = 1 - rate * float(sharpness(problem, end.params).values[0])
    return EdgeOfStability(chosen, {PLAIN: plain, HEAVY: heavy}, float(found.real), foretold)


def plot(result: EdgeOfStability) -> dict[str, Figure]:
    """One figure: sharpness and loss against the step, a column each for gradient descent and heavy ball."""
    beta = f"{HEAVY}, $\\beta$ = {result.settings['heavy_ball']['momentum']:g}"
    runs = {PLAIN: result.runs[PLAIN], beta: result.runs[HEAVY]}
    return {
        "edge_of_stability": edge_runs.draw(runs, "sharpness", ("$2/\\eta$", "$(2+2\\beta)/\\eta$"), scale="linear")
    }


def claims(result: EdgeOfStability) -> list[Claim]:
    """Theory's edges against where the sharpness stays, and the multiplier there."""
    return [
        *edge_runs.claims(result.runs, "sharpness", ("2/η", "(2 + 2β)/η"), SOURCE),
        Claim("most negative multiplier of the step map, where the first run ends", "1 − ηλ", result.foretold, 1e-3,
              result.multiplier),
    ]  # fmt: skip
