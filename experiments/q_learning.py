"""Q-learning by gradient descent: where it finds Q*, where it diverges, and where it diverges at every learning rate.

A network learns Q on a frozen lake by the squared temporal-difference error, its targets held constant for a while;
value iteration gives Q* to compare it with. But the step is no gradient of any loss, and need not descend: on Baird's
counterexample, linear and without rewards, the weights w ← (I − ηA) w grow at every learning rate η, since A has an
eigenvalue below 0. The spectral radius of I − ηA is known, and gdkit's exponents and multipliers measure it, if the
target is not hidden from their derivatives behind `jax.lax.stop_gradient`: then they see I − ηXᵀX/7, and no growth.
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

import gdkit
from experiments.common.claims import Claim
from experiments.common.drawing import FORMULA, legend_below, seeds
from experiments.common.printing import table
from experiments.common.settings import complete, spaced
from experiments.problems import environments, temporal_differences
from experiments.problems.environments import Baird
from gdkit import Regime, SweepResult, plots
from gdkit.errors import bad_value

DEFAULTS: dict[str, Any] = {
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
        "shown": 0.1,  # the learning rate of the multipliers, and of the run whose growth is measured
    },
}
BAIRD = "Baird 1995: log of the spectral radius of I − ηA"


class Growth(NamedTuple):
    """How fast the weights grow on Baird's counterexample at one learning rate, log a step."""

    foretold: float
    run: float  # of a run from the usual start, in its last half
    multiplier: float  # log of the largest modulus
    stopped: float  # the same behind stop_gradient


class QLearning(NamedTuple):
    """What the study found."""

    settings: dict[str, Any]
    lake: SweepResult  # (problem.period, learning_rate)
    game: Baird
    runs: SweepResult  # (learning_rate,), on Baird's counterexample from the usual start
    exponents: np.ndarray  # (learning_rate,) on it
    stopped: np.ndarray  # (learning_rate,), the same behind stop_gradient
    growth: Growth

    def errors(self, period: int, name: str = "gap") -> np.ndarray:
        """What is read at the end of the runs on the lake, (learning_rate, seed)."""
        found = self.lake.along("learning_rate", at={"problem.period": period}).data[f"validation_{name}"]
        return found.transpose("learning_rate", "seed").values

    @property
    def foretold(self) -> np.ndarray:
        """Log-growth on Baird's counterexample, (learning_rate,)."""
        return np.array([self.game.growth(rate) for rate in self.runs.axes["learning_rate"]])

    def __str__(self) -> str:
        periods = self.settings["lake"]["periods"]
        gaps = {f"renewed every {p}": (".3g", self.errors(p).max(axis=1)) for p in periods}
        edges = self.lake.edge("learning_rate")["median"].values
        return "\n".join([
            "frozen lake: largest |Q − Q*| over states, actions and seeds",
            table({"learning rate": (".4f", self.lake.axes["learning_rate"]), **gaps}),
            *(f"diverges above {rate:.3g}, target renewed every {p}" for p, rate in zip(periods, edges, strict=True)),
            "\nBaird's counterexample: log-growth a step",
            table({
                "learning rate": (".4f", self.runs.axes["learning_rate"]),
                "exponent": (".5f", self.exponents),
                "closed form": (".5f", self.foretold),
                "behind stop_gradient": (".5f", self.stopped),
            }),
        ])  # fmt: skip


def run(settings: Mapping[str, Any]) -> QLearning:
    """Learning rates on the lake, with and without a target network; and on Baird's counterexample."""
    chosen = complete(settings, DEFAULTS)
    for part in ("lake", "baird"):
        if not chosen[part]["discount"] < 1:
            raise bad_value(f"settings.{part}.discount", chosen[part]["discount"], "not below 1", "Use 0.9, say")
    water, star = chosen["lake"], chosen["baird"]
    game, rates = environments.baird(star["discount"]), {"learning_rate": spaced(star["learning_rate"])}
    if game.growth(star["shown"]) < 1e-4:
        raise bad_value("settings.baird.discount", star["discount"], "too small for anything to grow", "Use 0.99, say")
    if not star["burn_in"] < star["steps"]:
        why = f"not less than the {star['steps']} steps"
        raise bad_value("settings.baird.burn_in", star["burn_in"], why, "Lower it")
    factory = functools.partial(temporal_differences.lake, hidden=water["hidden"], discount=water["discount"])
    axes = {"problem.period": gdkit.static(water["periods"]), "learning_rate": spaced(water["learning_rate"])}
    learned = gdkit.sweep(factory, gdkit.sgd, axes, seeds=water["seeds"], steps=water["steps"])
    runs = gdkit.sweep(temporal_differences.baird(game, game.start), gdkit.sgd, rates, steps=star["steps"])
    exponents = []
    for hidden in (False, True):
        rest = temporal_differences.baird(game, 0 * game.start, hidden=hidden)  # there no run ends
        watched = [gdkit.lyapunov_exponent(rest, gdkit.sgd, burn_in=star["burn_in"])]
        still = gdkit.sweep(rest, gdkit.sgd, rates, steps=star["steps"], monitors=watched, curve_points=0)
        exponents.append(still.data["lyapunov_exponent"].squeeze("seed").values)
    return QLearning(chosen, learned, game, runs, *exponents, _growth(game, star["shown"]))


def _growth(game: Baird, rate: float) -> Growth:
    """At one learning rate, in all ways."""
    steps = int(30 / game.growth(rate))  # in which the loss, a square of the weights, grows by e⁶⁰: float32 holds e⁸⁸
    moduli, runs = [], []
    for hidden in (False, True):
        problem = temporal_differences.baird(game, game.start, hidden=hidden)
        end = gdkit.descend(problem, gdkit.sgd, steps, hyperparameters={"learning_rate": rate})
        runs.append(np.log(np.asarray(end.loss, np.float64)))
        found = gdkit.multipliers(problem, gdkit.sgd, end, 8, hyperparameters={"learning_rate": rate})
        moduli.append(float(np.log(np.abs(found.largest.values).max())))
    loss = runs[0][steps // 2 :]
    slope = float(np.polyfit(np.arange(len(loss)), loss, 1)[0])
    return Growth(game.growth(rate), slope / 2, *moduli)


def claims(result: QLearning) -> list[Claim]:
    """Value iteration against the network, the spectral radius against what was measured of growth."""
    periods, growth = result.settings["lake"]["periods"], result.growth
    diverged = result.runs.regimes.values == Regime.DIVERGED
    rate = f"at learning rate {result.settings['baird']['shown']:g}"
    best = {period: int(np.argmin(result.errors(period).mean(axis=1))) for period in periods}
    return [
        *(Claim(f"largest |Q − Q*| at the best learning rate, of all seeds, target renewed every {period} steps",
                "value iteration", 0.0, 2e-3, float(result.errors(period)[best[period]].max())) for period in periods),
        *(Claim(f"most that a greedy action there loses of Q*, target renewed every {period} steps",
                "value iteration", 0.0, 1e-6, float(result.errors(period, "regret")[best[period]].max()))
          for period in periods),
        Claim("share of learning rates at which Baird's counterexample diverges", BAIRD, 1.0, 0.0,
              float(np.mean(diverged))),
        Claim("largest error of its Lyapunov exponents", BAIRD, 0.0, 1e-4,
              float(np.abs(result.exponents - result.foretold).max())),
        Claim(f"log of its largest multiplier {rate}", BAIRD, growth.foretold, 1e-5, growth.multiplier),
        Claim(f"log-growth of its weights in a run {rate}", BAIRD, growth.foretold, 1e-4, growth.run),
        Claim(f"log of the largest multiplier behind stop_gradient {rate}, where none grows", "I − ηXᵀX/7", 0.0, 1e-5,
              growth.stopped),
    ]  # fmt: skip


def plot(result: QLearning) -> dict[str, Figure]:
    """Left, the error of Q on the lake; right, growth on Baird's counterexample, both against the learning rate."""
    figure = Figure(figsize=(10.5, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    rates = result.lake.axes["learning_rate"]
    for number, period in enumerate(result.settings["lake"]["periods"]):
        label = "target renewed every " + (f"{period} steps" if period > 1 else "step")
        seeds(left, rates, result.errors(period), number, label, middle=np.median)
    left.set(title="network on a frozen lake", ylabel="largest $|Q - Q^*|$", yscale="log")
    rates = result.runs.axes["learning_rate"]
    fine = np.geomspace(rates[0], rates[-1], 300)
    grown, held = ([result.game.growth(rate, held=flag) for rate in fine] for flag in (False, True))
    right.plot(fine, grown, **FORMULA | {"linewidth": 1.5}, label=r"theory: $\log \rho(I - \eta A)$")
    right.plot(fine, held, **FORMULA, linestyle="--", label=r"$\log \rho(I - \eta X^\top X / 7)$")
    look: dict[str, Any] = {"linestyle": "none", "markersize": 5}
    right.plot(rates, result.exponents, **plots.style.series(0), **look, label="Lyapunov exponent")
    hollow = plots.style.series(1) | look | {"markerfacecolor": "none"}
    right.plot(rates, result.stopped, **hollow, label="behind stop_gradient")
    right.set(title="Baird's counterexample", ylabel="log-growth a step")
    right.set_yscale("symlog", linthresh=0.01, linscale=0.5)
    right.set_ylim(-0.004, 6)
    for ax in (left, right):
        ax.set(xscale="log", xlabel="learning rate")
        legend_below(ax)
    return {"q_learning": figure}
