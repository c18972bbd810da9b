"""How the best learning rate grows with the batch: in proportion for gradient descent, as the root for Adam.

Of one step on a quadratic the answer is exact, η_max / (1 + B_noise/B) (`experiments.analysis.gradient_noise`): in
proportion to the batch B where noise dominates, and level above B_noise (McCandlish et al. 2018).

Of a whole run the best learning rate depends on how long it is. At a fixed number of steps a small batch wants nearly
the rate that arrives in time, whatever its noise; at a fixed number of rows read, noise decides. There gradient
descent follows a stochastic differential equation that knows η and B by η/B alone (Li et al., Stochastic modified
equations, 2017), and Adam, with 1 − β₁ and 1 − β₂ in proportion to B, one that knows them by η/√B (Malladi et al., On
the SDEs and scaling rules for adaptive gradient algorithms, 2022), as long as steps are small.

The step is one of an affine map on the digits by squared error, a quadratic; the runs are of a small network.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.analysis.gradient_noise import Noise, measure
from experiments.common.best_rates import Best, inside, resampled, vertex
from experiments.common.claims import Claim
from experiments.common.drawing import BORDER, FORMULA, bars, powers_of_two
from experiments.common.printing import table
from experiments.common.settings import complete, spaced
from experiments.problems import digits
from gdkit import plots, sgd, sweep
from gdkit.errors import bad_value

DEFAULTS: dict[str, Any] = {
    "one_step": {"batch_sizes": [1, 2, 4, 8, 16, 32, 64, 128, 256, 512], "rates": 8, "seeds": 512},
    "width": 16,  # of the hidden layer, in the runs
    "rows": 8192,  # that a run reads, whatever its batch
    "seeds": 8,
    "sgd": {"batch_sizes": [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024], "from": 0.005, "to": 5.0, "count": 26,
            "linear_to": 32, "level_from": 128},
    "adam": {"batch_sizes": [2, 4, 8, 16, 32, 64], "from": 1e-3, "to": 0.15, "count": 20, "b1": 0.9, "b2": 0.99,
             "of": 16},  # the batch to which β₁ and β₂ belong
}  # fmt: skip
MCCANDLISH, LI, MALLADI = "McCandlish et al. 2018", "Li et al. 2017", "Malladi et al. 2022"


class BatchSize(NamedTuple):
    """What the study found."""

    settings: dict[str, Any]
    noise: Noise
    one_step: Best
    runs: dict[str, Best]  # sgd, adam

    def __str__(self) -> str:
        both = {"one step": self.one_step, **self.runs}
        law = [f"{rate:.3g}" for rate in self.noise.best(self.one_step.batch_sizes)]
        said = table({
            "": ("", [name for name, found in both.items() for _ in found.rates]),
            "batch": ("d", np.concatenate([found.batch_sizes for found in both.values()])),
            "best rate": (".3g", np.concatenate([found.rates for found in both.values()])),
            "from": (".3g", np.concatenate([found.interval[0] for found in both.values()])),
            "to": (".3g", np.concatenate([found.interval[1] for found in both.values()])),
            "formula": (">5", law + [""] * sum(len(found.rates) for found in self.runs.values())),
        })  # fmt: skip
        lines = [f"one step: B_noise = {self.noise.scale:.1f}, η_max = {self.noise.highest:.3g}",
                 "from, to: 95 % of resampled seeds", said]  # fmt: skip
        exponents = "{}: exponent of the batch size {:.2f} ({:.2f} to {:.2f})"
        return "\n".join([*lines, *(exponents.format(name, *found) for name, found in self.exponents.items())])

    @property
    def exponents(self) -> dict[str, tuple[float, float, float]]:
        """Of the batch size in the best learning rate, and 95 % of each."""
        own, sgds = self.settings["sgd"], self.runs["sgd"]
        return {
            f"sgd up to {own['linear_to']}": sgds.slope(most=own["linear_to"]),
            f"sgd from {own['level_from']}": sgds.slope(least=own["level_from"]),
            "adam": self.runs["adam"].slope(),
        }


def run(settings: Mapping[str, Any]) -> BatchSize:
    """One step at every batch size, and runs of as many rows, by gradient descent and Adam."""
    chosen = complete(settings, DEFAULTS)
    _check(chosen)
    whole = digits.affine(None)
    noise = measure(whole, whole.init(jax.random.key(0)))
    runs = {name: _run(chosen, name) for name in ("sgd", "adam")}
    return BatchSize(chosen, noise, _one_step(noise, **chosen["one_step"]), runs)


def _check(chosen: Mapping[str, Any]) -> None:
    """Refuse, before the first run, settings that no exponent follows from."""
    own, sizes = chosen["sgd"], np.unique(chosen["sgd"]["batch_sizes"])
    if max(*sizes, *chosen["adam"]["batch_sizes"]) > chosen["rows"]:
        raise bad_value("settings.rows", chosen["rows"], "not one batch of the largest", "Use more")
    for name, among in (("linear_to", sizes <= own["linear_to"]), ("level_from", sizes >= own["level_from"])):
        if among.sum() < 2:
            remedy = "Give more batch sizes, or another bound"
            raise bad_value(f"settings.sgd.{name}", own[name], "it leaves fewer than two batch sizes", remedy)
    digits.adam_of(chosen["adam"], max(chosen["adam"]["batch_sizes"]))


def _one_step(noise: Noise, batch_sizes: list[int], rates: int, seeds: int) -> Best:
    """The loss is a parabola in η, which any few learning rates determine."""
    drawn = []
    for size in batch_sizes:
        grid = noise.best(size) * np.linspace(0.25, 2, rates)
        found = sweep(digits.affine(size), sgd, {"learning_rate": grid}, steps=1, seeds=seeds, curve_points=0)
        losses = resampled(found.scores().reshape(rates, seeds))
        bend, slope, _ = np.polyfit(grid, losses.T, 2)
        drawn.append(-slope / (2 * bend))
    return Best(np.array(batch_sizes), np.array(drawn).T)


def _run(settings: Mapping[str, Any], name: str) -> Best:
    own, seeds = settings[name], settings["seeds"]
    rates, drawn = spaced(own), []
    for size in own["batch_sizes"]:
        factory = sgd if name == "sgd" else digits.adam_of(own, size)
        problem, steps = digits.network(settings["width"], size), settings["rows"] // size
        found = sweep(problem, factory, {"learning_rate": rates}, steps=steps, seeds=seeds, curve_points=0)
        drawn.append([vertex(rates, losses) for losses in resampled(found.scores().reshape(-1, seeds))])
    return Best(np.array(own["batch_sizes"]), np.array(drawn).T)


def plot(result: BatchSize) -> dict[str, Figure]:
    """One figure: the best learning rate against the batch size, of one step, and of runs by sgd and adam."""
    figure = Figure(figsize=(12, 4.2), layout="constrained")
    axes = figure.subplots(1, 3)
    noise, rows = result.noise, result.settings["rows"]
    dense = np.geomspace(result.one_step.batch_sizes[0], result.one_step.batch_sizes[-1], 100)
    axes[0].plot(dense, noise.best(dense), **FORMULA, label="$\\eta_{max}/(1+B_{noise}/B)$")
    axes[0].axvline(noise.scale, **BORDER | {"color": "0.55", "linewidth": 1}, label="$B_{noise}$")
    axes[0].set(title="one step on a quadratic, sgd", ylabel="best learning rate")
    linear = result.settings["sgd"]["linear_to"]
    _draw_power(axes[1], result.runs["sgd"], 1.0, linear, "in proportion to $B$")
    axes[1].set_title(f"sgd, runs that read {rows:,} rows")
    _draw_power(axes[2], result.runs["adam"], 0.5, np.inf, "in proportion to $\\sqrt{B}$")
    axes[2].set_title(f"adam, runs that read {rows:,} rows")
    for number, (ax, found) in enumerate(zip(axes, (result.one_step, *result.runs.values()), strict=True)):
        _draw(ax, found, number)
    return {"batch_size": figure}


def claims(result: BatchSize) -> list[Claim]:
    """The exact law of one step, and the exponents of runs."""
    one = result.one_step
    known = [inside(spaced(result.settings[name]), found.rates) for name, found in result.runs.items()]
    small, large, adam = (found[0] for found in result.exponents.values())
    return [
        Claim("best learning rate of one step: the largest log error over batch sizes", f"{MCCANDLISH}, eq. 2.7", 0.0,
              0.1, float(np.abs(np.log(one.rates / result.noise.best(one.batch_sizes))).max())),
        Claim("share of best learning rates of runs that lie inside their grid", "else they are not known", 1.0, 0.0,
              float(np.mean(np.concatenate(known)))),
        Claim(f"sgd: the exponent of the batch size up to {result.settings['sgd']['linear_to']}", f"1: {LI}", 1.0, 0.2,
              small),
        Claim(f"sgd: the exponent of the batch size from {result.settings['sgd']['level_from']}",
              f"levelling off: {MCCANDLISH}", 0.0, 0.25, large),
        Claim("adam, 1 − β in proportion to the batch: the exponent of the batch size", f"1/2: {MALLADI}", 0.5, 0.1,
              adam),
    ]  # fmt: skip


def _draw_power(ax: Axes, found: Best, power: float, most: float, label: str) -> None:
    """The law through batch sizes up to `most`, and dotted beyond."""
    kept = found.batch_sizes <= most
    law = found.batch_sizes**power * np.exp(np.mean(np.log(found.rates[kept] / found.batch_sizes[kept] ** power)))
    ax.plot(found.batch_sizes[kept], law[kept], **FORMULA, label=label)
    beyond = (found.batch_sizes >= most) & (law < 3 * found.rates.max())
    ax.plot(found.batch_sizes[beyond], law[beyond], **BORDER)


def _draw(ax: Axes, found: Best, number: int) -> None:
    look: dict[str, Any] = plots.style.series(number) | {"markersize": 6, "label": "measured, 95 % of seeds"}
    bars(ax, found.batch_sizes, found.rates, found.interval, **look)
    powers_of_two(ax, "batch size (rows)")
    ax.set_yscale("log")
    plots.style.tidy_ticks(ax.yaxis)
    ax.legend(edgecolor="none", framealpha=1, fontsize="small", loc="lower right")
