"""Warm-up allows learning rates at which a constant one diverges, since the sharpness falls meanwhile.

A network starts at high sharpness, from where a learning rate far above 2/λ₀ diverges. A gradually increasing learning
rate exceeds 2/η by little: the loss rises slightly, the sharpness falls, and the next learning rate starts flatter
(Gilmer et al., A loss curvature perspective on training instability in deep learning, 2022; Kalra and Barkeshli, Why
warmup the learning rate?, 2024). On a quadratic, whose curvature cannot fall, warm-up changes nothing.

The study compares five schedules on the digits with minibatches, each at every peak learning rate: the largest that
does not diverge, and the validation loss at the best.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import optax
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.analysis.sharpness_runs import WarmupRun, record_warmup
from experiments.common.claims import Claim
from experiments.common.drawing import BEST_MARK, BORDER_LINE, INK, THEORY_LINE
from experiments.common.settings import complete_settings, geometric_grid
from experiments.common.tables import format_table
from gdkit import Problem, SweepResult, optimizers, plots, problems, sgd, sweep
from gdkit.errors import bad_value
from gdkit.sweeps.scoring.scores import Best

ENDS: dict[str, Any] = {"statistics": "ends", "curve_points": 0}  # nothing else of a run is read
DEFAULTS: dict[str, Any] = {
    "network": {"widths": [32, 32], "batch_size": 64},
    "learning_rates": {"from": 0.02, "to": 1.6, "count": 24},
    "warmup": 0.1,  # of the steps
    "decay": 0.2,  # of the steps, in warm-up, stable, decay
    "steps": 600,
    "seeds": 5,
    "key": 0,  # of all random numbers
    "warmup_run": {"beyond": 1.5, "warmup": 0.4, "steps": 300, "every": 3},  # full batch; its peak over the edge
}
QUADRATIC_STEPS = 4000
PLAIN, WARM, STABLE = "constant", "warm-up cosine", "warm-up, stable, decay"
GILMER, KALRA = "Gilmer et al. 2022", "Kalra and Barkeshli 2024"


class Schedules(NamedTuple):
    """Result of the study."""

    settings: dict[str, Any]
    runs: SweepResult  # optimizer: the schedules
    quadratic: SweepResult  # with warm-up, curvature 1
    warmup_run: WarmupRun

    @property
    def best(self) -> dict[str, Best]:
        """The best learning rate of each schedule, by validation loss."""
        return {name: self.runs.select(optimizer=name).best() for name in self.runs.optimizers}

    @property
    def edges(self) -> dict[str, np.ndarray]:
        """Learning rate at which divergence begins for each seed, (seeds,), by schedule."""
        return {name: _edges(self.runs, name) for name in self.runs.optimizers}

    def __str__(self) -> str:
        plain, edges = np.median(self.edges[PLAIN]), [np.median(edge) for edge in self.edges.values()]
        best = self.best.values()
        return format_table({
            "schedule": ("", self.best),
            "best η": (".3g", [_rate(each) for each in best]),
            "validation loss": ("", [f"{each.score:.4f} ± {each.spread:.3f}" for each in best]),
            "diverges at η": (".3g", edges),
            "× constant": (".1f", edges / plain),
        })  # fmt: skip


def shares(steps: int, warmup: float, decay: float) -> dict[str, Callable]:
    """The schedules; each maps a step to a share of the peak learning rate."""
    rise, fall = max(1, round(warmup * steps)), max(1, round(decay * steps))
    parts = optax.linear_schedule(0, 1, rise), optax.constant_schedule(1.0), optax.linear_schedule(1, 0, fall)
    return {
        PLAIN: optimizers.schedule("constant", steps),
        "cosine": optimizers.schedule("cosine", steps),
        WARM: optimizers.schedule("warmup_cosine", steps, warmup=warmup),
        "one-cycle": optax.cosine_onecycle_schedule(steps, 1.0),  # 30 % warm-up; Smith and Topin 2018
        STABLE: optax.join_schedules(parts, [rise, steps - fall]),  # Hu et al., MiniCPM, 2024
    }


def run(settings: Mapping[str, Any]) -> Schedules:
    """All schedules at all learning rates, warm-up on a quadratic, and the sharpness of one run with warm-up."""
    settings = complete_settings(settings, DEFAULTS, signed=("key",))
    steps, rise = settings["steps"], round(settings["warmup"] * settings["steps"])
    for name in ("warmup", "decay"):
        if settings["warmup"] + settings["decay"] > 1:
            raise bad_value(
                f"settings.{name}", settings[name], "warm-up and decay take more than all steps", "Use less"
            )
    problem = _network(tuple(settings["network"]["widths"]), settings["network"]["batch_size"])
    schedules = shares(steps, settings["warmup"], settings["decay"])
    named = {name: optimizers.with_schedule(sgd, share) for name, share in schedules.items()}
    axes = {"optimizer": named, "learning_rate": geometric_grid(settings["learning_rates"])}
    options: dict[str, Any] = {"seeds": settings["seeds"], "key": settings["key"]} | ENDS
    runs = sweep(problem, None, axes, steps=steps, **options)
    # As many steps of warm-up on the quadratic, and then enough to diverge; 2/λ is 2 there.
    warmed = {
        "warm-up": optimizers.with_schedule(
            sgd, optimizers.schedule("warmup", QUADRATIC_STEPS, warmup=rise / QUADRATIC_STEPS)
        )
    }
    axes = {"optimizer": warmed, "learning_rate": np.geomspace(0.8, 1.25, 80) * 2}
    quadratic = sweep(problems.quadratic(1.0), None, axes, steps=QUADRATIC_STEPS, **ENDS)
    beyond, *rest = settings["warmup_run"].values()
    peak = beyond * float(np.median(_edges(runs, PLAIN)))
    return Schedules(settings, runs, quadratic, record_warmup(problem, peak, *rest, key=settings["key"]))


@functools.cache  # compiled programs belong to one problem
def _network(widths: tuple[int, ...], batch_size: int) -> Problem:
    return problems.mlp("digits", widths=widths, batch_size=batch_size, loss="squared_error")


def _edges(runs: SweepResult, name: str) -> np.ndarray:
    return runs.select(optimizer=name).edge("learning_rate")["edge"].values


def plot(result: Schedules) -> dict[str, Figure]:
    """Validation loss against the learning rate, where each schedule diverges, and the sharpness through a warm-up."""
    figure = Figure(figsize=(13, 4.4), layout="constrained")
    scores, edges, warmup_run = figure.subplots(1, 3, width_ratios=(1.25, 1, 1))
    for number, name in enumerate(result.runs.optimizers):
        _draw_scores(scores, result, name, number)
        values, color = result.edges[name], plots.SERIES_COLORS[number]
        heights = number + np.linspace(-0.16, 0.16, len(values))
        edges.plot(values, heights, "o", markersize=4, color=color, markeredgecolor=INK, markeredgewidth=0.4)
        edges.plot(np.median(values), number, "|", markersize=24, markeredgewidth=2.5, color=color)
    scores.set(xscale="log", yscale="log", xlabel="peak learning rate", ylabel="validation loss (squared error)")
    scores.legend(frameon=False, fontsize="small", loc="lower left")
    edges.set(xscale="log", xlabel="learning rate of divergence: seeds, median", ylim=(len(result.edges) - 0.5, -0.5))
    edges.set_yticks(range(len(result.edges)), [name.replace(", ", ",\n", 1) for name in result.edges])
    edges.axvline(np.median(result.edges[result.runs.optimizers[0]]), **BORDER_LINE)  # of the constant learning rate
    for axis in (scores.xaxis, edges.xaxis, scores.yaxis):
        plots.style.tidy_ticks(axis)
    _draw_warmup(warmup_run, result.warmup_run)
    return {"schedules": plots.label_panels(figure)}


def claims(result: Schedules) -> list[Claim]:
    """What warm-up gains on a network, but not on a quadratic, and why."""
    best, median = result.best, {name: float(np.median(edge)) for name, edge in result.edges.items()}
    warm = [name for name in best if name not in (PLAIN, "cosine")]
    share = lambda test: float(np.mean([test(name) for name in warm]))
    rates = result.runs.axes["learning_rate"]
    after = result.warmup_run.step >= result.warmup_run.warmup_steps
    ratio = result.warmup_run.sharpness * result.warmup_run.rate[-1] / 2  # of the sharpness to 2/η
    return [
        Claim.theory("learning rate at which divergence begins on a quadratic with warm-up, over 2/λ",
              "its curvature cannot fall", 1.0, 0.03, float(_edges(result.quadratic, "warm-up")[0]) / 2),
        Claim.published(
              "share of schedules with warm-up that diverge at 1.5 times the constant's learning rate or later", GILMER,
              1.0, 0.0, share(lambda name: median[name] >= 1.5 * median[PLAIN])),
        Claim.theory("cosine decay without warm-up: log of the learning rate of divergence over the constant's",
              "divergence begins at the start", 0.0, float(np.log(rates[1] / rates[0])),
              float(np.log(median["cosine"] / median[PLAIN]))),
        Claim.published("share of schedules with warm-up whose best learning rate is above the constant's", KALRA, 1.0,
              0.0, share(lambda name: _rate(best[name]) > _rate(best[PLAIN]))),
        Claim.published("share of seeds for which warm-up lowers the validation loss of cosine, each at its best",
              KALRA, 1.0, 0.0, float(np.mean(_losses(best[WARM]) < _losses(best["cosine"])))),
        Claim.published(
              f"share of steps, after warm-up above the constant's edge, with sharpness at most 1.15 · 2/η (it is "
              f"{ratio[0]:.1f} · 2/η at the start)", GILMER, 1.0, 0.1, float(np.mean(ratio[after] <= 1.15))),
    ]  # fmt: skip


def _rate(best: Best) -> float:
    return float(best.hyperparameters["learning_rate"])


def _losses(best: Best) -> np.ndarray:
    """Validation loss of each seed, (seeds,)."""
    return best.lanes["validation_loss"].values


def _draw_scores(ax: Axes, result: Schedules, name: str, number: int) -> None:
    part, best = result.runs.select(optimizer=name), result.best[name]
    mean = part.scores().reshape(-1, part.seeds).mean(axis=1)
    series, rates = plots.style.series(number), part.axes["learning_rate"]
    finite = np.isfinite(mean)
    ax.plot(rates[finite], mean[finite], label=name, linewidth=1, markersize=3.5, **series)
    ax.plot(best.hyperparameters["learning_rate"], best.score, **BEST_MARK, color=series["color"], markersize=14)


def _draw_warmup(ax: Axes, run: WarmupRun) -> None:
    look: dict[str, Any] = {"color": plots.SERIES_COLORS[1], "linewidth": 0.8, "markersize": 4}
    ax.semilogy(run.step, run.sharpness, ".-", **look, label="sharpness")
    ax.plot(run.step[1:], 2 / run.rate[1:], **THEORY_LINE, label="$2/\\eta$ at that step")
    ax.axhline(2 / run.rate[-1], color=INK, linewidth=0.8, linestyle=(0, (4, 2)))
    ax.axvline(run.warmup_steps, color="0.75", linewidth=0.8)
    ax.set_xlabel(f"step, with warm-up to $\\eta$ = {run.rate[-1]:.2g} until {run.warmup_steps}")
    ax.set_ylabel("full-batch sharpness")
    ax.legend(frameon=False, fontsize="small")
