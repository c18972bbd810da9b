"""Deep counterfactual regret minimization on Kuhn poker, and the learning rate of its regret networks.

The average strategy of a player that chooses actions in proportion to their positive regrets converges to an
equilibrium of a two-player zero-sum game. With a table of regrets that takes a few hundred iterations here. Deep CFR
(Brown et al. 2019) replaces the table by networks that predict regrets, trained by gradient descent on a memory of
them. The distance of a strategy from equilibrium is known exactly: its exploitability, from the best responses to it.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import gdkit
from experiments.common.best_rates import choose_rate
from experiments.common.claims import Claim
from experiments.common.drawing import INK, place_legend_below
from experiments.common.settings import complete_settings, geometric_grid
from experiments.common.tables import format_table
from experiments.problems import deep_regret, kuhn
from gdkit import SweepResult, plots

DEFAULTS: dict[str, Any] = {
    "tabular_iterations": 1000,
    "hidden": 32,
    "iterations": 100,
    "period": 200,  # gradient steps between two turns; an iteration has two
    "rows": 128,  # of memory, per step
    "sgd": {"from": 1e-3, "to": 1.0, "count": 7},  # learning rates
    "adam": {"from": 1e-5, "to": 0.1, "count": 9},
    "seeds": 4,
    "key": 0,  # of all random numbers
}
TOLERANCE = 0.02  # antes per game: a twentieth of the exploitability of the uniform strategies at the start
OPTIMIZERS = {"sgd": gdkit.sgd, "adam": optax.adam}
ZINKEVICH = "Zinkevich et al. 2007"
BROWN = "Brown et al., Deep counterfactual regret minimization, 2019"


class DeepCfr(NamedTuple):
    """Result of the study."""

    settings: dict[str, Any]
    tabular_value: float  # of the average strategy, to the first player
    tabular: np.ndarray  # (tabular_iterations,), exploitability after each
    equilibria: float  # the largest exploitability of Kuhn's equilibria
    deep: SweepResult  # each optimizer with its own learning rates

    def exploitability(self, optimizer: str) -> tuple[np.ndarray, np.ndarray]:
        """Learning rates, and exploitabilities (learning_rate, seed, iteration), NaN after a run diverged."""
        data = self.deep.select(optimizer=optimizer).data
        values = data["exploitability"].transpose("learning_rate", "seed", ...).values
        return data["learning_rate"].values, np.where(np.isfinite(values[..., -1:]), values, np.nan)

    def best(self, optimizer: str) -> tuple[float, np.ndarray]:
        """Learning rate of the smallest final exploitability, mean over seeds, and its values (seed, iteration)."""
        rates, values = self.exploitability(optimizer)
        best = int(np.argmin(np.nan_to_num(values[..., -1].mean(axis=1), nan=np.inf)))
        return float(rates[best]), values[best]

    def __str__(self) -> str:
        parts = [f"tabular: value {self.tabular_value:.5f}, exploitability {self.tabular[-1]:.2e}"]
        for name in OPTIMIZERS:
            rates, values = self.exploitability(name)
            seeds = [" ".join(f"{x:.4f}" for x in row) for row in values[..., -1]]
            columns = {f"{name}, learning rate": (".2e", rates), "exploitability of each seed": ("", seeds)}
            parts.append(format_table(columns))
        return "\n\n".join(parts)


def run(settings: Mapping[str, Any]) -> DeepCfr:
    """Tabular regret minimization, then networks at every learning rate."""
    settings = complete_settings(settings, DEFAULTS, signed=("key",))
    strategy, tabular = jax.jit(kuhn.tabular_cfr, static_argnums=0)(settings["tabular_iterations"])
    solutions = np.stack([kuhn.equilibrium(bluff) for bluff in np.linspace(0, 1 / 3, 5)])
    equilibria = float(jnp.max(jax.jit(jax.vmap(kuhn.exploitability))(solutions)))
    sizes = {name: settings[name] for name in ("hidden", "iterations", "period", "rows")}
    axes = {
        name: (optimizer, {"learning_rate": geometric_grid(settings[name])}) for name, optimizer in OPTIMIZERS.items()
    }
    deep = gdkit.sweep(
        deep_regret.regret_network(**sizes), None, {"optimizer": axes}, seeds=settings["seeds"],
        key=settings["key"], steps=2 * settings["period"] * settings["iterations"],
        monitors=[deep_regret.exploitability(settings["iterations"])], statistics="ends", curve_points=0,
    )  # fmt: skip
    return DeepCfr(settings, float(jax.jit(kuhn.value)(strategy)), np.asarray(tabular), equilibria, deep)


def claims(result: DeepCfr) -> list[Claim]:
    """The game's value, and the exploitability of each method."""
    diverged = np.isnan(result.exploitability("sgd")[1][-1, :, -1])
    held_out = lambda name: choose_rate(result.exploitability(name)[1][..., -1])[1]
    return [
        Claim.published("largest exploitability of Kuhn's equilibria", "Kuhn 1950", 0.0,
              float(np.finfo(np.float32).eps), result.equilibria),
        Claim.check("value of the tabular average strategy", "−1/18 (Kuhn 1950) up to its exploitability",
              kuhn.VALUE, 2e-4, result.tabular_value),
        Claim.published("exploitability of the tabular average strategy", ZINKEVICH, 0.0, 2e-4,
              float(result.tabular[-1])),
        *(Claim.published(f"exploitability by {name} at the learning rate that half of the seeds choose, mean of the "
                          "others", BROWN, 0.0, TOLERANCE, float(held_out(name).mean())) for name in OPTIMIZERS),
        Claim.check("share of seeds that diverge at sgd's largest learning rate", "far above 2/λ of the squared error",
              1.0, 0.0, float(np.mean(diverged))),
    ]  # fmt: skip


def plot(result: DeepCfr) -> dict[str, Figure]:
    """Exploitability against the iteration at the best learning rates, and at the end against the learning rate."""
    figure = Figure(figsize=(9.2, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    left.plot(np.arange(1, len(result.tabular) + 1), result.tabular, color=INK, linestyle="--", label="tabular")
    for number, name in enumerate(OPTIMIZERS):
        _draw(left, right, result, number, name)
    at = result.tabular[min(result.settings["iterations"], len(result.tabular)) - 1]
    right.axhline(at, color=INK, linestyle="--", label="tabular")
    left.set(xlabel="iteration", ylabel="exploitability, antes per game", xscale="log", yscale="log")
    left.set_title("at the best learning rate, range of seeds")
    right.set(
        xlabel="learning rate",
        xscale="log",
        title=f"after {result.settings['iterations']} iterations, seeds and mean",
    )
    for ax in (left, right):
        place_legend_below(ax, 4)
    return {"deep_cfr": plots.label_panels(figure)}


def _draw(left: Axes, right: Axes, result: DeepCfr, number: int, name: str) -> None:
    look: dict[str, Any] = {"color": plots.SERIES_COLORS[number]}
    marker: dict[str, Any] = look | {"marker": plots.SERIES_MARKERS[number]}
    rate, curves = result.best(name)
    iteration = np.arange(1, curves.shape[1] + 1)
    left.fill_between(iteration, curves.min(axis=0), curves.max(axis=0), **look, alpha=0.2, linewidth=0)
    left.plot(iteration, curves.mean(axis=0), **marker, markevery=0.12, label=f"{name}, $\\eta$ = {rate:.2g}")
    rates, values = result.exploitability(name)
    ends = values[..., -1]
    right.plot(np.repeat(rates, ends.shape[1]), ends.ravel(), **marker, linestyle="none", alpha=0.35, markersize=4)
    right.plot(rates, ends.mean(axis=1), **marker, label=name)
    diverged = rates[~np.isfinite(ends).all(axis=1)]
    across = right.get_xaxis_transform()
    if diverged.size:
        crosses: dict[str, Any] = look | {"marker": "x", "linestyle": "none", "transform": across}
        right.plot(diverged, np.full(len(diverged), 0.96), **crosses, label=f"{name} diverged")
