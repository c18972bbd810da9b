"""Gradient descent on a network drives its sharpness up to 2/η and holds it there (Cohen et al. 2021).

On a quadratic with curvature λ, steps with learning rate η grow without bound where λ > 2/η. A network is not a
quadratic: its sharpness, the top eigenvalue of the loss's Hessian, changes during training. It rises ("progressive
sharpening") until it reaches 2/η. There the multiplier along the top direction is 1 − ηλ = −1: a step overshoots by as
much as it was off. Above, the oscillation grows and pushes the sharpness down again. So the sharpness stays, and the
loss continues to fall, though no longer at every step. Heavy-ball momentum β puts the edge at (2 + 2β)/η.

Several keys run at each learning rate, and the level is claimed of the median key. An earlier version ran one key; of
its thirty runs at five fresh keys one diverged (heavy ball at the largest rate), and its claims failed at that key.
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from experiments.analysis import edge_runs
from experiments.analysis.edge_runs import CurvatureRun
from experiments.common.claims import Claim
from experiments.common.settings import complete_settings
from gdkit import multipliers, sgd, sharpness, stability_threshold
from gdkit.stability import sharpness_every

DEFAULTS: dict[str, Any] = {
    "network": edge_runs.NETWORK,
    "learning_rates": [0.15, 0.2, 0.3],  # of plain gradient descent
    "heavy_ball": {"momentum": 0.8, "learning_rates": [0.3, 0.4, 0.5]},
    "steps": 3000,
    "key": 820,  # of the first initial weights
    "keys": 5,
    "every": 30,  # steps between measurements
}
SOURCE = "Cohen et al., Gradient descent on neural networks typically occurs at the edge of stability, 2021"
PLAIN, HEAVY = "gradient descent", "heavy ball"


class EdgeOfStability(NamedTuple):
    """Result of the study."""

    settings: dict[str, Any]
    runs: dict[str, list[CurvatureRun]]  # by optimizer, the keys of each learning rate in turn
    multiplier: float  # the most negative one of the step map at the end of the first run
    predicted: float  # 1 − ηλ there

    def __str__(self) -> str:
        last = f"end of the first run: multiplier {self.multiplier:.4f}, 1 − ηλ = {self.predicted:.4f}"
        return f"{edge_runs.edge_table(self.runs)}\n{last}"


def run(settings: Mapping[str, Any]) -> EdgeOfStability:
    """Gradient descent and heavy ball with their sharpness, and a multiplier at the end of the first run."""
    settings = complete_settings(settings, DEFAULTS, signed=("key",))
    problem, steps, every = edge_runs.network(settings["network"]), settings["steps"], settings["every"]
    monitor = sharpness_every(problem, every, iterations=edge_runs.ITERATIONS, record=steps // every + 1)
    keys = range(settings["key"], settings["key"] + settings["keys"])
    options: dict[str, Any] = {"monitor": monitor, "steps": steps, "every": every, "keys": keys}
    record_runs = functools.partial(edge_runs.record_runs, problem, sgd, **options)
    # Theory bounds ηλ, so its threshold of η for a given λ is also that of λ for a given η.
    plain = [
        run
        for rate in settings["learning_rates"]
        for run in record_runs({"learning_rate": rate}, stability_threshold("sgd", rate))
    ]
    beta = {"momentum": settings["heavy_ball"]["momentum"]}
    heavy = [
        run
        for rate in settings["heavy_ball"]["learning_rates"]
        for run in record_runs({"learning_rate": rate} | beta, stability_threshold("momentum", rate, **beta))
    ]
    rate, end = plain[0].learning_rate, plain[0].end
    multiplier = multipliers(problem, sgd, end, hyperparameters={"learning_rate": rate}).farthest.values[0]
    predicted = 1 - rate * float(sharpness(problem, end.params).values[0])
    return EdgeOfStability(settings, {PLAIN: plain, HEAVY: heavy}, float(multiplier.real), predicted)


def plot(result: EdgeOfStability) -> dict[str, Figure]:
    """Sharpness and loss against the step, with one column each for gradient descent and heavy ball."""
    beta = f"{HEAVY}, $\\beta$ = {result.settings['heavy_ball']['momentum']:g}"
    runs = {PLAIN: result.runs[PLAIN], beta: result.runs[HEAVY]}
    formulas = "$2/\\eta$", "$(2+2\\beta)/\\eta$"
    return {"edge_of_stability": edge_runs.draw_edge(runs, "sharpness", formulas, scale="linear")}


def claims(result: EdgeOfStability) -> list[Claim]:
    """Theory's edges against the plateaus of the sharpness, and the multiplier there."""
    return [
        *edge_runs.edge_claims(result.runs, "sharpness", ("2/η", "(2 + 2β)/η"), SOURCE),
        Claim.check("most negative multiplier of the step map at the end of the first run", "1 − ηλ", result.predicted,
              1e-3, result.multiplier),
    ]  # fmt: skip
