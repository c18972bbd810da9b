"""How the best learning rate grows with the batch: proportionally for gradient descent, as the square root for Adam.

For one step on a quadratic the answer is exact, η_max / (1 + B_noise/B) (`experiments.analysis.gradient_noise`):
proportional to the batch B where noise dominates, and constant above B_noise (McCandlish et al. 2018).

The best learning rate of a whole run depends on its length. At a fixed number of steps a small batch needs nearly the
rate that converges in time, whatever its noise; at a fixed number of rows read, noise decides. There gradient descent
follows a stochastic differential equation that depends on η and B only through η/B (Li et al., Stochastic modified
equations, 2017), and Adam, with 1 − β₁ and 1 − β₂ proportional to B, one that depends on η/√B (Malladi et al., On the
SDEs and scaling rules for adaptive gradient algorithms, 2022), as long as steps are small.

The single step trains an affine map on the digits with squared error, a quadratic; the runs train a small network.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.analysis.gradient_noise import GradientNoise, measure_noise
from experiments.common.best_rates import BestRates, interpolate_best_rate, is_inside, resample_means
from experiments.common.claims import Claim
from experiments.common.drawing import BORDER_LINE, THEORY_LINE, draw_intervals, set_power_of_two_axis
from experiments.common.settings import complete_settings, geometric_grid
from experiments.common.tables import format_table
from experiments.problems import digits
from gdkit import plots, sgd, sweep
from gdkit.errors import bad_value

ENDS: dict[str, Any] = {"statistics": "ends", "curve_points": 0}  # nothing else of a run is read
DEFAULTS: dict[str, Any] = {
    "one_step": {"batch_sizes": [1, 2, 4, 8, 16, 32, 64, 128, 256, 512], "rates": 8, "seeds": 512},
    "width": 16,  # of the hidden layer, in the runs
    "rows": 8192,  # read by each run, whatever its batch
    "seeds": 8,
    "key": 0,  # of all random numbers
    "sgd": {"batch_sizes": [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024], "from": 0.005, "to": 5.0, "count": 26,
            "linear_to": 32, "level_from": 128},
    "adam": {"batch_sizes": [2, 4, 8, 16, 32, 64], "from": 1e-3, "to": 0.15, "count": 20, "b1": 0.9, "b2": 0.99,
             "of": 16},  # the batch size that β₁ and β₂ are meant for
}  # fmt: skip
MCCANDLISH, LI, MALLADI = "McCandlish et al. 2018", "Li et al. 2017", "Malladi et al. 2022"


class BatchSize(NamedTuple):
    """Result of the study."""

    settings: dict[str, Any]
    noise: GradientNoise
    one_step: BestRates
    runs: dict[str, BestRates]  # sgd, adam

    def __str__(self) -> str:
        measured = {"one step": self.one_step, **self.runs}
        law = [f"{rate:.3g}" for rate in self.noise.best_rate(self.one_step.batch_sizes)]
        table = format_table({
            "": ("", [name for name, best in measured.items() for _ in best.rates]),
            "batch": ("d", np.concatenate([best.batch_sizes for best in measured.values()])),
            "best rate": (".3g", np.concatenate([best.rates for best in measured.values()])),
            "from": (".3g", np.concatenate([best.interval[0] for best in measured.values()])),
            "to": (".3g", np.concatenate([best.interval[1] for best in measured.values()])),
            "formula": (">5", law + [""] * sum(len(best.rates) for best in self.runs.values())),
        })  # fmt: skip
        lines = [f"one step: B_noise = {self.noise.scale:.1f}, η_max = {self.noise.full_batch_rate:.3g}",
                 "from, to: 95 % bootstrap interval over seeds", table]  # fmt: skip
        exponents = "{}: exponent of the batch size {:.2f} ({:.2f} to {:.2f})"
        return "\n".join([*lines, *(exponents.format(name, *values) for name, values in self.exponents.items())])

    @property
    def exponents(self) -> dict[str, tuple[float, float, float]]:
        """Exponents of the batch size in the best learning rate, each with its 95 % interval."""
        sgd_settings, best = self.settings["sgd"], self.runs["sgd"]
        return {
            f"sgd up to {sgd_settings['linear_to']}": best.exponent(high=sgd_settings["linear_to"]),
            f"sgd from {sgd_settings['level_from']}": best.exponent(low=sgd_settings["level_from"]),
            "adam": self.runs["adam"].exponent(),
        }


def run(settings: Mapping[str, Any]) -> BatchSize:
    """One step at every batch size, and runs over equally many rows, by gradient descent and Adam."""
    settings = complete_settings(settings, DEFAULTS, signed=("key",))
    _check(settings)
    full_batch = digits.affine(None)
    noise = measure_noise(full_batch, full_batch.init(jax.random.key(0)))
    runs = {name: _run(settings, name) for name in ("sgd", "adam")}
    return BatchSize(settings, noise, _one_step(noise, settings["key"], **settings["one_step"]), runs)


def _check(settings: Mapping[str, Any]) -> None:
    """Refuse, before the first run, settings that determine no exponent."""
    own, sizes = settings["sgd"], np.unique(settings["sgd"]["batch_sizes"])
    if max(*sizes, *settings["adam"]["batch_sizes"]) > settings["rows"]:
        raise bad_value("settings.rows", settings["rows"], "less than the largest batch", "Use more")
    for name, selected in (("linear_to", sizes <= own["linear_to"]), ("level_from", sizes >= own["level_from"])):
        if selected.sum() < 2:
            remedy = "Give more batch sizes, or another bound"
            raise bad_value(f"settings.sgd.{name}", own[name], "leaves fewer than two batch sizes", remedy)
    digits.scale_adam(settings["adam"], max(settings["adam"]["batch_sizes"]))


def _one_step(noise: GradientNoise, key: int, *, batch_sizes: list[int], rates: int, seeds: int) -> BestRates:
    """The loss is a parabola in η, so a few learning rates determine its minimum."""
    samples = []
    for size in batch_sizes:
        grid = noise.best_rate(size) * np.linspace(0.25, 2, rates)
        options: dict[str, Any] = {"steps": 1, "seeds": seeds, "key": key} | ENDS
        result = sweep(digits.affine(size), sgd, {"learning_rate": grid}, **options)
        losses = resample_means(result.scores().reshape(rates, seeds))
        curvature, slope, _ = np.polyfit(grid, losses.T, 2)
        samples.append(-slope / (2 * curvature))
    return BestRates(np.array(batch_sizes), np.array(samples).T)


def _run(settings: Mapping[str, Any], name: str) -> BestRates:
    own, seeds = settings[name], settings["seeds"]
    rates, samples = geometric_grid(own), []
    for size in own["batch_sizes"]:
        optimizer = sgd if name == "sgd" else digits.scale_adam(own, size)
        problem, steps = digits.network(settings["width"], size), settings["rows"] // size
        options: dict[str, Any] = {"steps": steps, "seeds": seeds, "key": settings["key"]} | ENDS
        result = sweep(problem, optimizer, {"learning_rate": rates}, **options)
        samples.append(
            [interpolate_best_rate(rates, losses) for losses in resample_means(result.scores().reshape(-1, seeds))]
        )
    return BestRates(np.array(own["batch_sizes"]), np.array(samples).T)


def plot(result: BatchSize) -> dict[str, Figure]:
    """The best learning rate against the batch size: of one step, and of runs by sgd and adam."""
    figure = Figure(figsize=(12, 4.2), layout="constrained")
    axes = figure.subplots(1, 3)
    noise, rows = result.noise, result.settings["rows"]
    dense = np.geomspace(result.one_step.batch_sizes[0], result.one_step.batch_sizes[-1], 100)
    axes[0].plot(dense, noise.best_rate(dense), **THEORY_LINE, label="$\\eta_{max}/(1+B_{noise}/B)$")
    axes[0].axvline(noise.scale, **BORDER_LINE | {"color": "0.55", "linewidth": 1}, label="$B_{noise}$")
    axes[0].set(title="one step on a quadratic, sgd", ylabel="best learning rate")
    linear = result.settings["sgd"]["linear_to"]
    _draw_power(axes[1], result.runs["sgd"], 1.0, linear, "proportional to $B$")
    axes[1].set_title(f"sgd, runs over {rows:,} rows")
    _draw_power(axes[2], result.runs["adam"], 0.5, np.inf, "proportional to $\\sqrt{B}$")
    axes[2].set_title(f"adam, runs over {rows:,} rows")
    for number, (ax, best) in enumerate(zip(axes, (result.one_step, *result.runs.values()), strict=True)):
        _draw(ax, best, number)
    return {"batch_size": plots.label_panels(figure)}


def claims(result: BatchSize) -> list[Claim]:
    """The exact law of one step, and the exponents of runs."""
    one = result.one_step
    inside = [is_inside(geometric_grid(result.settings[name]), best.rates) for name, best in result.runs.items()]
    small, large, adam = (exponent for exponent, *_ in result.exponents.values())
    return [
        Claim.theory("best learning rate of one step: largest log error over batch sizes", f"{MCCANDLISH}, eq. 2.7",
              0.0, 0.1, float(np.abs(np.log(one.rates / result.noise.best_rate(one.batch_sizes))).max())),
        Claim.check("share of best learning rates of runs that lie inside their grid",
              "at an end the optimum may lie beyond", 1.0, 0.0,
              float(np.mean(np.concatenate(inside)))),
        Claim.published(f"sgd: exponent of the batch size up to {result.settings['sgd']['linear_to']}", f"1: {LI}",
              1.0, 0.2, small),
        Claim.published(f"sgd: exponent of the batch size from {result.settings['sgd']['level_from']}",
              f"constant: {MCCANDLISH}", 0.0, 0.25, large),
        Claim.published("adam, 1 − β proportional to the batch: exponent of the batch size", f"1/2: {MALLADI}", 0.5,
              0.1, adam),
    ]  # fmt: skip


def _draw_power(ax: Axes, best: BestRates, power: float, high: float, label: str) -> None:
    """The law through batch sizes up to `high`, and dotted beyond."""
    selected = best.batch_sizes <= high
    law = best.batch_sizes**power * np.exp(np.mean(np.log(best.rates[selected] / best.batch_sizes[selected] ** power)))
    ax.plot(best.batch_sizes[selected], law[selected], **THEORY_LINE, label=label)
    beyond = (best.batch_sizes >= high) & (law < 3 * best.rates.max())
    ax.plot(best.batch_sizes[beyond], law[beyond], **BORDER_LINE)


def _draw(ax: Axes, best: BestRates, number: int) -> None:
    style: dict[str, Any] = plots.style.series(number) | {"markersize": 6}
    draw_intervals(ax, best.batch_sizes, best.rates, best.interval, **style, label="measured, 95 % interval over seeds")
    set_power_of_two_axis(ax, "batch size (rows)")
    ax.set_yscale("log")
    plots.style.tidy_ticks(ax.yaxis)
    ax.legend(edgecolor="none", framealpha=1, fontsize="small", loc="lower right")
