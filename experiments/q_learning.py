"""Q-learning by gradient descent: a case that finds Q*, and one that diverges at every learning rate.

A network learns Q on a frozen lake from the squared temporal-difference error, with targets held constant for a while;
value iteration gives the exact Q*. But the step is not the gradient of any loss, and need not descend: on Baird's
counterexample, linear and without rewards, the weights w ← (I − ηA) w grow at every learning rate η, since A has a
negative eigenvalue. The spectral radius of I − ηA is known, and gdkit's exponents and multipliers measure it, unless
the target is hidden from their derivatives behind `jax.lax.stop_gradient`: then they see I − ηXᵀX/7, which does not
grow.
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

import gdkit
from experiments.common.best_rates import choose_rate
from experiments.common.claims import Claim
from experiments.common.drawing import THEORY_LINE, draw_seeds, place_legend_below
from experiments.common.settings import complete_settings, geometric_grid
from experiments.common.tables import format_table
from experiments.problems import environments, temporal_differences
from experiments.problems.environments import Baird
from gdkit import Regime, SweepResult, plots
from gdkit.errors import bad_value

GAP = 1e-4  # of Q and Q*: what the claims tolerate, and below which learning rates are equally good; 40 ε/(1 − γ)
ROUNDING = 8 * float(np.finfo(np.float32).eps)  # of a logarithm of numbers near 1
DEFAULTS: dict[str, Any] = {
    "key": 0,  # of all random numbers
    "lake": {
        "hidden": 32,
        "discount": 0.95,
        "periods": [1, 50],  # steps after which the target network is renewed
        "learning_rate": {"from": 0.01, "to": 10.0, "count": 19},
        "steps": 8000,
        "seeds": 4,
    },
    "baird": {
        "discount": 0.99,
        "learning_rate": {"from": 0.03, "to": 20.0, "count": 27},
        "steps": 3000,
        "burn_in": 1500,  # steps before exponents are measured
        "example_rate": 0.1,  # learning rate of the multipliers, and of the run whose growth is measured
    },
}
BAIRD = "Baird 1995: log of the spectral radius of I − ηA"


class Growth(NamedTuple):
    """Log-growth of the weights per step on Baird's counterexample at one learning rate."""

    predicted: float
    run: float  # over the last half of a run from the usual start
    multiplier: float  # log of the largest modulus
    stopped: float  # the same behind stop_gradient


class QLearning(NamedTuple):
    """Result of the study."""

    settings: dict[str, Any]
    lake: SweepResult  # (problem.period, learning_rate)
    game: Baird
    runs: SweepResult  # (learning_rate,), on Baird's counterexample from the usual start
    exponents: np.ndarray  # (learning_rate,), on the same counterexample
    stopped: np.ndarray  # (learning_rate,), the same behind stop_gradient
    growth: Growth

    def errors(self, period: int, name: str = "gap") -> np.ndarray:
        """Final ``gap`` or ``regret`` on the lake, (learning_rate, seed)."""
        values = self.lake.along("learning_rate", at={"problem.period": period}).data[f"validation_{name}"]
        return values.transpose("learning_rate", "seed").values

    @property
    def predicted(self) -> np.ndarray:
        """Log-growth on Baird's counterexample by its closed form, (learning_rate,)."""
        return np.array([self.game.growth(rate) for rate in self.runs.axes["learning_rate"]])

    def __str__(self) -> str:
        periods = self.settings["lake"]["periods"]
        gaps = {f"renewed every {p}": (".3g", self.errors(p).max(axis=1)) for p in periods}
        edges = self.lake.edge("learning_rate")["median"].values
        return "\n".join([
            "frozen lake: largest |Q − Q*| over states, actions and seeds",
            format_table({"learning rate": (".4f", self.lake.axes["learning_rate"]), **gaps}),
            *(f"diverges above {rate:.3g}, target renewed every {p}" for p, rate in zip(periods, edges, strict=True)),
            "\nBaird's counterexample: log-growth per step",
            format_table({
                "learning rate": (".4f", self.runs.axes["learning_rate"]),
                "exponent": (".5f", self.exponents),
                "closed form": (".5f", self.predicted),
                "behind stop_gradient": (".5f", self.stopped),
            }),
        ])  # fmt: skip


def run(settings: Mapping[str, Any]) -> QLearning:
    """Sweeps of the learning rate on the lake, with each target network, and on Baird's counterexample."""
    settings = complete_settings(settings, DEFAULTS, signed=("key",))
    for part in ("lake", "baird"):
        if not settings[part]["discount"] < 1:
            raise bad_value(f"settings.{part}.discount", settings[part]["discount"], "not below 1", "Try 0.9")
    lake, star = settings["lake"], settings["baird"]
    game, rates = environments.baird(star["discount"]), {"learning_rate": geometric_grid(star["learning_rate"])}
    if game.growth(star["example_rate"]) < 1e-4:
        raise bad_value("settings.baird.discount", star["discount"], "the weights would not grow", "Try 0.99")
    if not star["burn_in"] < star["steps"]:
        why = f"not less than the {star['steps']} steps"
        raise bad_value("settings.baird.burn_in", star["burn_in"], why, "Lower it")
    problem = functools.partial(temporal_differences.lake, hidden=lake["hidden"], discount=lake["discount"])
    axes = {"problem.period": gdkit.static(lake["periods"]), "learning_rate": geometric_grid(lake["learning_rate"])}
    options = {"seeds": lake["seeds"], "steps": lake["steps"], "key": settings["key"]}
    lake_runs = gdkit.sweep(problem, gdkit.sgd, axes, **options)
    runs = gdkit.sweep(temporal_differences.baird(game, game.start), gdkit.sgd, rates, steps=star["steps"])
    exponents = []
    for stop_gradient in (False, True):
        at_rest = temporal_differences.baird(game, 0 * game.start, stop_gradient=stop_gradient)  # from here no run ends
        monitors = [gdkit.lyapunov_exponent(at_rest, gdkit.sgd, burn_in=star["burn_in"])]
        measured = gdkit.sweep(at_rest, gdkit.sgd, rates, steps=star["steps"], monitors=monitors, curve_points=0)
        exponents.append(measured.data["lyapunov_exponent"].squeeze("seed").values)
    return QLearning(settings, lake_runs, game, runs, *exponents, _growth(game, star["example_rate"]))


def _growth(game: Baird, rate: float) -> Growth:
    """Growth at one learning rate, measured in every way."""
    steps = int(30 / game.growth(rate))  # the loss, quadratic in the weights, grows by e⁶⁰; float32 holds e⁸⁸
    moduli, runs = [], []
    for stop_gradient in (False, True):
        problem = temporal_differences.baird(game, game.start, stop_gradient=stop_gradient)
        end = gdkit.descend(problem, gdkit.sgd, steps, hyperparameters={"learning_rate": rate})
        runs.append(np.log(np.asarray(end.loss, np.float64)))
        multipliers = gdkit.multipliers(problem, gdkit.sgd, end, 8, hyperparameters={"learning_rate": rate})
        moduli.append(float(np.log(np.abs(multipliers.largest.values).max())))
    loss = runs[0][steps // 2 :]
    slope = float(np.polyfit(np.arange(len(loss)), loss, 1)[0])
    return Growth(game.growth(rate), slope / 2, *moduli)


def claims(result: QLearning) -> list[Claim]:
    """The network against value iteration, and the measured growth against the spectral radius."""
    periods, growth = result.settings["lake"]["periods"], result.growth
    diverged = result.runs.regimes.values == Regime.DIVERGED
    rate = f"at learning rate {result.settings['baird']['example_rate']:g}"
    best = {period: choose_rate(result.errors(period), GAP)[0] for period in periods}
    held_out = lambda period, name="gap": result.errors(period, name)[best[period], result.lake.seeds // 2 :].max()
    return [
        *(Claim.theory(f"target renewed every {period} steps: largest |Q − Q*| at the learning rate that half of the "
                "seeds choose, over the others",
                "value iteration", 0.0, GAP, float(held_out(period)))
          for period in periods),
        *(Claim.theory(f"target renewed every {period} steps: largest decrease of Q* by a greedy action there",
                "value iteration", 0.0, ROUNDING, float(held_out(period, "regret")))
          for period in periods),
        Claim.published("share of learning rates at which Baird's counterexample diverges", BAIRD, 1.0, 0.0,
              float(np.mean(diverged))),
        Claim.theory("largest error of its Lyapunov exponents", BAIRD, 0.0, ROUNDING,
              float(np.abs(result.exponents - result.predicted).max())),
        Claim.theory(f"log of its largest multiplier {rate}", BAIRD, growth.predicted, ROUNDING,
              growth.multiplier),
        Claim.theory(f"log-growth of its weights in a run {rate}", BAIRD, growth.predicted, ROUNDING, growth.run),
        Claim.theory(f"log of the largest multiplier behind stop_gradient {rate}", "I − ηXᵀX/7", 0.0, ROUNDING,
              growth.stopped),
    ]  # fmt: skip


def plot(result: QLearning) -> dict[str, Figure]:
    """Error of Q on the lake, and growth on Baird's counterexample, against the learning rate."""
    figure = Figure(figsize=(9.2, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    rates = result.lake.axes["learning_rate"]
    for number, period in enumerate(result.settings["lake"]["periods"]):
        label = "target renewed every " + (f"{period} steps" if period > 1 else "step")
        draw_seeds(left, rates, result.errors(period), number, label, average=np.median)
    left.set(title="network on a frozen lake", ylabel="largest $|Q - Q^*|$", yscale="log")
    rates = result.runs.axes["learning_rate"]
    fine = np.geomspace(rates[0], rates[-1], 300)
    growth, fixed = ([result.game.growth(rate, fixed_targets=flag) for rate in fine] for flag in (False, True))
    right.plot(fine, growth, **THEORY_LINE | {"linewidth": 1.5}, label=r"theory: $\log \rho(I - \eta A)$")
    right.plot(fine, fixed, **THEORY_LINE, linestyle="--", label=r"$\log \rho(I - \eta X^\top X / 7)$")
    look: dict[str, Any] = {"linestyle": "none", "markersize": 5}
    right.plot(rates, result.exponents, **plots.style.series(0), **look, label="Lyapunov exponent")
    hollow = plots.style.series(1) | look | {"markerfacecolor": "none"}
    right.plot(rates, result.stopped, **hollow, label="behind stop_gradient")
    right.set(title="Baird's counterexample", ylabel="log-growth per step")
    right.set_yscale("symlog", linthresh=0.01, linscale=0.5)
    right.set_ylim(-0.004, 6)
    for ax in (left, right):
        ax.set(xscale="log", xlabel="learning rate")
        place_legend_below(ax)
    return {"q_learning": plots.label_panels(figure)}
