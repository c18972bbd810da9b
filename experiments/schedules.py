"""Warm-up takes gradient descent past the learning rate at which a constant one diverges, since it flattens the way.

A network starts out sharp, and a learning rate far above 2/λ₀ diverges from there. Raised little by little it meets
2/η in small: the loss jumps a bit, the sharpness falls, and the next larger learning rate finds a flatter place
(Gilmer et al., A loss curvature perspective on training instability in deep learning, 2022; Kalra and Barkeshli, Why
warmup the learning rate?, 2024). On a quadratic, whose curvature cannot fall, warm-up wins nothing.

Five schedules, each at every learning rate (its peak), on the digits by minibatches: the largest that does not diverge,
and the validation loss at the best.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import optax
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.analysis.sharpness_runs import Watched, watch
from experiments.common.claims import Claim
from experiments.common.drawing import BORDER, FORMULA, INK, STAR
from experiments.common.printing import table
from experiments.common.settings import complete, spaced
from gdkit import Problem, SweepResult, optimizers, plots, problems, sgd, sweep
from gdkit.errors import bad_value
from gdkit.sweeps.result.result import Best

DEFAULTS: dict[str, Any] = {
    "network": {"widths": [32, 32], "batch_size": 64},
    "learning_rates": {"from": 0.02, "to": 1.6, "count": 24},
    "warmup": 0.1,  # of the steps
    "decay": 0.2,  # the end of warm-up, stable, decay
    "steps": 600,
    "seeds": 5,
    "watched": {"beyond": 1.5, "warmup": 0.4, "steps": 300, "every": 3},  # by all data, so many times past the edge
}
BOWL_STEPS = 4000
PLAIN, WARM, STABLE = "constant", "warm-up cosine", "warm-up, stable, decay"
GILMER, KALRA = "Gilmer et al. 2022", "Kalra and Barkeshli 2024"


class Schedules(NamedTuple):
    """What the study found."""

    settings: dict[str, Any]
    runs: SweepResult  # optimizer: the schedules
    bowl: SweepResult  # warmed up on a quadratic of curvature 1
    watched: Watched

    @property
    def found(self) -> dict[str, Best]:
        """The best learning rate of each schedule, by validation loss."""
        return {name: self.runs.select(optimizer=name).best() for name in self.runs.optimizers}

    @property
    def edges(self) -> dict[str, np.ndarray]:
        """Where divergence begins for each seed, (seeds,), by schedule."""
        return {name: _edges(self.runs, name) for name in self.runs.optimizers}

    def __str__(self) -> str:
        plain, edges = np.median(self.edges[PLAIN]), [np.median(edge) for edge in self.edges.values()]
        found = self.found.values()
        return table({
            "schedule": ("", self.found),
            "best η": (".3g", [_rate(best) for best in found]),
            "validation loss": ("", [f"{best.score:.4f} ± {best.spread:.3f}" for best in found]),
            "diverges at η": (".3g", edges),
            "× constant": (".1f", edges / plain),
        })  # fmt: skip


def shares(steps: int, warmup: float, decay: float) -> dict[str, Callable]:
    """The schedules, each the share of the peak learning rate at a step."""
    rise, fall = max(1, round(warmup * steps)), max(1, round(decay * steps))
    parts = optax.linear_schedule(0, 1, rise), optax.constant_schedule(1.0), optax.linear_schedule(1, 0, fall)
    return {
        PLAIN: optimizers.schedule("constant", steps),
        "cosine": optimizers.schedule("cosine", steps),
        WARM: optimizers.schedule("warmup_cosine", steps, warmup=warmup),
        "one-cycle": optax.cosine_onecycle_schedule(steps, 1.0),  # rises for 30 %; Smith and Topin 2018
        STABLE: optax.join_schedules(parts, [rise, steps - fall]),  # Hu et al., MiniCPM, 2024
    }


def run(settings: Mapping[str, Any]) -> Schedules:
    """All schedules at all learning rates, warm-up on a quadratic, and one run's sharpness on its way."""
    chosen = complete(settings, DEFAULTS)
    steps, rise = chosen["steps"], round(chosen["warmup"] * chosen["steps"])
    for name in ("warmup", "decay"):
        if chosen["warmup"] + chosen["decay"] > 1:
            raise bad_value(f"settings.{name}", chosen[name], "warm-up and decay take more than all steps", "Use less")
    problem = _network(tuple(chosen["network"]["widths"]), chosen["network"]["batch_size"])
    every = shares(steps, chosen["warmup"], chosen["decay"])
    named = {name: optimizers.with_schedule(sgd, share) for name, share in every.items()}
    axes = {"optimizer": named, "learning_rate": spaced(chosen["learning_rates"])}
    runs = sweep(problem, None, axes, steps=steps, seeds=chosen["seeds"], curve_points=0)
    # as many steps of warm-up on the bowl, and then enough to grow again; 2/λ is 2 there
    warmed = {
        "warm-up": optimizers.with_schedule(sgd, optimizers.schedule("warmup", BOWL_STEPS, warmup=rise / BOWL_STEPS))
    }
    axes = {"optimizer": warmed, "learning_rate": np.geomspace(0.8, 1.25, 80) * 2}
    bowl = sweep(problems.quadratic(1.0), None, axes, steps=BOWL_STEPS, curve_points=0)
    beyond, *rest = chosen["watched"].values()
    peak = beyond * float(np.median(_edges(runs, PLAIN)))
    return Schedules(chosen, runs, bowl, watch(problem, peak, *rest))


@functools.cache  # compiled programs belong to one problem
def _network(widths: tuple[int, ...], batch_size: int) -> Problem:
    return problems.mlp("digits", widths=widths, batch_size=batch_size, loss="squared_error")


def _edges(runs: SweepResult, name: str) -> np.ndarray:
    return runs.select(optimizer=name).edge("learning_rate")["edge"].values


def plot(result: Schedules) -> dict[str, Figure]:
    """One figure: validation loss against learning rate, where each schedule diverges, and sharpness in a warm-up."""
    figure = Figure(figsize=(13, 4.4), layout="constrained")
    scores, edges, watched = figure.subplots(1, 3, width_ratios=(1.25, 1, 1))
    for number, name in enumerate(result.runs.optimizers):
        _draw_scores(scores, result, name, number)
        values, color = result.edges[name], plots.SERIES_COLORS[number]
        heights = number + np.linspace(-0.16, 0.16, len(values))
        edges.plot(values, heights, "o", markersize=4, color=color, markeredgecolor=INK, markeredgewidth=0.4)
        edges.plot(np.median(values), number, "|", markersize=24, markeredgewidth=2.5, color=color)
    scores.set(xscale="log", yscale="log", xlabel="peak learning rate", ylabel="validation loss (squared error)")
    scores.legend(frameon=False, fontsize="small", loc="lower left")
    edges.set(xscale="log", xlabel="where divergence begins: seeds, median", ylim=(len(result.edges) - 0.5, -0.5))
    edges.set_yticks(range(len(result.edges)), [name.replace(", ", ",\n", 1) for name in result.edges])
    edges.axvline(np.median(result.edges[result.runs.optimizers[0]]), **BORDER)  # of the constant learning rate
    for axis in (scores.xaxis, edges.xaxis, scores.yaxis):
        plots.style.tidy_ticks(axis)
    _draw_watched(watched, result.watched)
    return {"schedules": figure}


def claims(result: Schedules) -> list[Claim]:
    """What warm-up wins on a network, and not on a quadratic, and why."""
    found, median = result.found, {name: float(np.median(edge)) for name, edge in result.edges.items()}
    warm = [name for name in found if name not in (PLAIN, "cosine")]
    share = lambda test: float(np.mean([test(name) for name in warm]))
    rates = result.runs.axes["learning_rate"]
    after = result.watched.step >= result.watched.warm
    ratio = result.watched.sharpness * result.watched.rate[-1] / 2  # of the sharpness to 2/η
    return [
        Claim("where divergence begins on a quadratic with warm-up, over 2/λ", "its curvature cannot fall", 1.0, 0.03,
              float(_edges(result.bowl, "warm-up")[0]) / 2),
        Claim("share of schedules with warm-up that diverge at 1.5 times the constant's learning rate or later", GILMER,
              1.0, 0.0, share(lambda name: median[name] >= 1.5 * median[PLAIN])),
        Claim("where cosine decay without warm-up diverges, over the constant's: its logarithm",
              "divergence begins at the start", 0.0, float(np.log(rates[1] / rates[0])),
              float(np.log(median["cosine"] / median[PLAIN]))),
        Claim("share of schedules with warm-up whose best learning rate is above the constant's", KALRA, 1.0, 0.0,
              share(lambda name: _rate(found[name]) > _rate(found[PLAIN]))),
        Claim("share of seeds at which warm-up lowers the validation loss of cosine, each at its best", KALRA, 1.0, 0.0,
              float(np.mean(_losses(found[WARM]) < _losses(found["cosine"])))),
        Claim(f"share of a run, once warmed up past the constant edge, at which sharpness is at most 1.15 · 2/η (it is "
              f"{ratio[0]:.1f} · 2/η at the start)", GILMER, 1.0, 0.1, float(np.mean(ratio[after] <= 1.15))),
    ]  # fmt: skip


def _rate(best: Best) -> float:
    return float(best.hyperparameters["learning_rate"])


def _losses(best: Best) -> np.ndarray:
    """Of each seed, (seeds,)."""
    return best.lanes["validation_loss"].values


def _draw_scores(ax: Axes, result: Schedules, name: str, number: int) -> None:
    part, best = result.runs.select(optimizer=name), result.found[name]
    mean = part.scores().reshape(-1, part.seeds).mean(axis=1)
    series, rates = plots.style.series(number), part.axes["learning_rate"]
    kept = np.isfinite(mean)
    ax.plot(rates[kept], mean[kept], label=name, linewidth=1, markersize=3.5, **series)
    ax.plot(best.hyperparameters["learning_rate"], best.score, **STAR, color=series["color"], markersize=14)


def _draw_watched(ax: Axes, watched: Watched) -> None:
    look: dict[str, Any] = {"color": plots.SERIES_COLORS[1], "linewidth": 0.8, "markersize": 4}
    ax.semilogy(watched.step, watched.sharpness, ".-", **look, label="sharpness")
    ax.plot(watched.step[1:], 2 / watched.rate[1:], **FORMULA, label="$2/\\eta$ at that step")
    ax.axhline(2 / watched.rate[-1], color=INK, linewidth=0.8, linestyle=(0, (4, 2)))
    ax.axvline(watched.warm, color="0.75", linewidth=0.8)
    ax.set_xlabel(f"step, with warm-up to $\\eta$ = {watched.rate[-1]:.2g} until {watched.warm}")
    ax.set_ylabel("sharpness, all data")
    ax.legend(frameon=False, fontsize="small")
