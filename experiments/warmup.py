"""Why warm-up works: it lets the sharpness fall, or holds it down, so that larger learning rates train.

Kalra and Barkeshli (Why warmup the learning rate? Underlying mechanisms and improvements, 2024) find that during a
linear warm-up the sharpness stays near 2/η or below, in two regimes. From a sharp start it falls by itself; from a flat
start it rises by itself, up to 2/η, which the growing η pushes down. For Adam the same holds of the preconditioned
sharpness and 38/η (β₁ = 0.9): it is at its highest at the start, since Adam divides by the size of a single gradient.
The benefit of warm-up is that larger rates train. Two remedies replace it in part. A warm-up may start at the catapult
rate, from which on the loss rises in the first steps, since lower rates change nothing
(`gdkit.stability.catapult_rate`); and Adam whose second moments start at the squares of the first gradient (GI-Adam)
starts at a preconditioned sharpness √(1 − β₂) times as high.

Small networks learn a share of the digits, full batch, with squared error: ReLU for the sharp start, and tanh with
small initial weights for the flat one. A rate trains if the loss ends below half of that of a network whose outputs are
0. Not claimed is a lower final loss by a start at the catapult rate: there was none in earlier runs. Nor does the start
save many steps where rates far above it train: less than a tenth of the warm-up here.
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.common.claims import Claim
from experiments.common.drawing import THEORY_LINE
from experiments.common.settings import complete_settings, geometric_grid
from experiments.common.tables import format_table
from gdkit import Problem, SweepResult, optimizers, plots, problems, sgd, stability_threshold, sweep
from gdkit.stability import catapult_rate, preconditioned_sharpness_every, sharpness_every
from gdkit.sweeps.axes import paired
from gdkit.types import Optimizer, OptimizerFactory

DEFAULTS: dict[str, Any] = {
    "widths": [32, 32],
    "share": 0.1,  # of the digits, as training rows
    "starts": {"sharp": {"activation": "relu", "init_scale": 1.0}, "flat": {"activation": "tanh", "init_scale": 0.5}},
    "peak": {"sharp": 0.25, "flat": 0.6, "adam": 0.03},  # learning rates at the end of the warm-up
    "small": 0.02,  # times the peak: a constant rate at which the sharpness goes its own way
    "warmup": 200,  # steps
    "steps": 240,
    "every": 4,  # steps between measurements
    "rates": {
        "sgd": {"from": 0.03, "to": 2.0, "count": 14}, "adam": {"from": 0.01, "to": 100.0, "count": 12},
        "gi_adam": {"from": 0.01, "to": 100.0, "count": 12},
    },
    "warmups": [1, 8, 32, 128],  # steps; 1 is none
    "seeds": 5,
    "key": 710,  # of all random numbers
}  # fmt: skip
OPTIMIZERS: dict[str, OptimizerFactory] = {
    "sgd": sgd, "adam": optax.adam, "gi_adam": optimizers.gradient_initialized(optax.adam),
}  # fmt: skip
TITLES = {"sgd": "gradient descent", "adam": "Adam", "gi_adam": "GI-Adam"}
B2 = 0.999  # Adam's
MARGIN = 1.5  # over the edge: a rising rate exceeds it by little
TRAINED = 0.5  # of the loss of a network whose outputs are 0
KALRA = "Kalra and Barkeshli 2024"


class WarmupRuns(NamedTuple):
    """The curvature along a warm-up, over the edge at the rate of each step: above 1 steps are unstable."""

    step: np.ndarray  # (points,)
    share: np.ndarray  # (points,) of the peak rate
    ratio: np.ndarray  # (seeds, points)

    @property
    def curvature(self) -> np.ndarray:
        """The curvature over the edge at the peak rate, (seeds, points)."""
        return self.ratio / self.share


class Warmup(NamedTuple):
    """Result of the study."""

    settings: dict[str, Any]
    paths: dict[str, WarmupRuns]  # sharp, flat: gradient descent; adam, gi_adam: from the sharp start
    natural: dict[
        str, np.ndarray
    ]  # sharp, flat: sharpness at the end of a small constant rate over its start, (seeds,)
    rates: dict[str, np.ndarray]  # by optimizer, (rates,)
    trained: dict[str, np.ndarray]  # by optimizer, (rates, warmups, seeds) bool
    catapult: np.ndarray  # (seeds,) the catapult rate of the sharp start, times half of its sharpness
    first_rise: np.ndarray  # (seeds,) the smallest rate of the sweep whose loss rises within its first steps, likewise
    trained_later: np.ndarray  # (rates, seeds) bool, of gradient descent whose warm-up starts at the catapult rate
    saved: float  # share of warm-up steps that this saves at the largest rate that trains

    def largest(self, name: str) -> np.ndarray:
        """The largest rate that trains, (warmups, seeds)."""
        return _find_largest(self.rates[name], self.trained[name])

    def __str__(self) -> str:
        cells = {
            f"warm-up {steps}": (".3g", [_geometric_mean(self.largest(name)[i]) for name in self.trained])
            for i, steps in enumerate(self.settings["warmups"])
        }
        low, high = self.catapult.min(), self.catapult.max()
        later = _geometric_mean(_find_largest(self.rates["sgd"], self.trained_later[:, None])[0])
        paths = {
            "curvature over its edge at the peak": ("", list(self.paths)),
            "first": (".3g", [np.median(path.curvature[:, 0]) for path in self.paths.values()]),
            "highest": (".3g", [np.median(path.curvature.max(axis=1)) for path in self.paths.values()]),
            "last": (".3g", [np.median(path.curvature[:, -1]) for path in self.paths.values()]),
        }
        return "\n".join([
            "largest rate that trains, mean over seeds",
            format_table({"optimizer": ("", [TITLES[name] for name in self.trained])} | cells),
            f"the longest warm-up from the catapult rate, with {self.saved:.0%} of its steps saved: {later:.3g}",
            f"catapult rate: {low:.2f} to {high:.2f} times 2/λ at the start",
            "",
            format_table(paths),
        ])  # fmt: skip


def run(settings: Mapping[str, Any]) -> Warmup:
    """Curvature along warm-ups, the largest rates that train, and the catapult rate."""
    settings = complete_settings(settings, DEFAULTS, signed=("key",))
    key, seeds = settings["key"], settings["seeds"]
    build = lambda start: network(tuple(settings["widths"]), settings["share"], **start)
    sharp, flat = map(build, settings["starts"].values())
    paths = {}
    paths["sharp"], sharp_drift = _record(settings, sharp, "sgd", settings["peak"]["sharp"])
    paths["flat"], flat_drift = _record(settings, flat, "sgd", settings["peak"]["flat"])
    for name in ("adam", "gi_adam"):
        paths[name], _ = _record(settings, sharp, name, settings["peak"]["adam"])
    rates = {name: geometric_grid(settings["rates"][name]) for name in OPTIMIZERS}
    # the seeds of a sweep start from their own keys
    keys = [jax.random.fold_in(jax.random.key(key), seed) for seed in range(seeds)]
    ends: dict[str, Any] = {"low": float(rates["sgd"][0]) / 100, "high": float(rates["sgd"][-1]) * 100}
    catapult = np.array([catapult_rate(sharp, sgd, key=one, **ends) for one in keys])
    runs = {name: _train(settings, sharp, name, rates[name], float(catapult.min())) for name in OPTIMIZERS}
    silent = float(sharp.loss(jax.tree.map(jnp.zeros_like, sharp.init(jax.random.key(0))), sharp.data))
    trained = {name: _has_trained(settings, result, TRAINED * silent) for name, result in runs.items()}
    later = trained["sgd"][:, -1]
    trained = {name: one[:, :-1] for name, one in trained.items()}
    half = paths["sharp"].curvature[:, 0] / settings["peak"]["sharp"]  # of the sharpness
    saved = min(1.0, float(catapult.min()) / _geometric_mean(_find_largest(rates["sgd"], trained["sgd"])[-1]))
    rise = _first_rises(settings, runs["sgd"], rates["sgd"])
    natural = {"sharp": sharp_drift, "flat": flat_drift}
    return Warmup(settings, paths, natural, rates, trained, catapult * half, rise * half, later, saved)


@functools.cache  # compiled programs belong to one problem
def network(widths: tuple[int, ...], share: float, activation: str, init_scale: float) -> Problem:
    """A network on a share of the digits, full batch, with squared error."""
    options: dict[str, Any] = {"activation": activation, "init_scale": init_scale, "split": (share, 0.0, 1 - share)}
    return problems.mlp("digits", widths=widths, loss="squared_error", **options)


@functools.cache
def ramp(name: str) -> OptimizerFactory:
    """An optimizer whose rate grows by ``learning_rate / warmup`` per step, from ``start`` to ``learning_rate``."""

    def make(*, learning_rate: Any, warmup: Any, start: Any) -> Optimizer:
        begun = jnp.asarray(start) / jnp.asarray(learning_rate)
        share = lambda count: jnp.minimum(1.0, begun + (count + 1) / jnp.asarray(warmup))
        return optimizers.with_schedule(OPTIMIZERS[name], share)(learning_rate=learning_rate)

    return make


def _sweep(settings: Mapping[str, Any], problem: Problem, name: str, axes: Any, **options: Any) -> SweepResult:
    own = {"steps": settings["steps"], "seeds": settings["seeds"], "key": settings["key"], "statistics": "ends"}
    return sweep(problem, ramp(name), axes, **own | options)


def _record(settings: Mapping[str, Any], problem: Problem, name: str, peak: float) -> tuple[WarmupRuns, np.ndarray]:
    """The curvature along a warm-up to `peak`; and its end over its start at a small constant rate, (seeds,)."""
    every, warmup = settings["every"], settings["warmup"]
    points = settings["steps"] // every + 1
    step = every * np.arange(points)
    share = np.minimum(1.0, (step + 1) / warmup)
    if name == "sgd":
        monitor, column = sharpness_every(problem, every, record=points), "sharpness_curve"
    else:
        monitor = preconditioned_sharpness_every(problem, ramp(name), every, record=points)
        column = "preconditioned_sharpness_curve"
    rates = [peak, settings["small"] * peak]
    axes = paired({"learning_rate": rates, "warmup": [float(warmup), 1.0], "start": [0.0, 0.0]})
    lanes = _sweep(settings, problem, name, axes, monitors=[monitor], curve_points=0).lanes
    curve, slow = lanes[column].values.reshape(2, settings["seeds"], points)
    # in an optimizer with second moments P contains the schedule: this curvature is that at the rate of the step
    at_step = peak * share / 2 if name == "sgd" else peak / stability_threshold("adam", 1.0)
    return WarmupRuns(step, share, curve * at_step), slow[:, -1] / slow[:, 0]


def _train(settings: Mapping[str, Any], problem: Problem, name: str, rates: np.ndarray, catapult: float) -> SweepResult:
    """Runs with every warm-up from 0, and with the longest from the catapult rate."""
    lengths = [*map(float, settings["warmups"]), float(settings["warmups"][-1])]
    starts = [0.0] * len(settings["warmups"]) + [catapult]
    points = [(rate, *ramp) for rate in rates.tolist() for ramp in zip(lengths, starts, strict=True)]
    axes = paired(dict(zip(("learning_rate", "warmup", "start"), map(list, zip(*points, strict=True)), strict=True)))
    return _sweep(settings, problem, name, axes, curve_points=100)


def _has_trained(settings: Mapping[str, Any], result: SweepResult, loss: float) -> np.ndarray:
    """Whether runs end below this loss, (rates, warmups + 1, seeds) bool."""
    below = result.lanes["final_loss"].values < loss  # NaN is not below
    return below.reshape(-1, len(settings["warmups"]) + 1, settings["seeds"])


def _first_rises(settings: Mapping[str, Any], result: SweepResult, rates: np.ndarray) -> np.ndarray:
    """The smallest constant rate whose loss is above its start at some of the first 10 steps, (seeds,)."""
    lanes = np.arange(result.lanes.sizes["lane"]).reshape(len(rates), -1, settings["seeds"])[:, 0]  # a warm-up of 1

    def rises(lane: int) -> bool:
        steps, losses = result.curve(lane)
        return not np.all(losses[steps <= 10] <= losses[0])

    return rates[np.array([[rises(lane) for lane in row] for row in lanes]).argmax(axis=0)]


def _find_largest(rates: np.ndarray, trained: np.ndarray) -> np.ndarray:
    """The largest rate that trains, (warmups, seeds); the first where none does."""
    return rates[np.where(trained, np.arange(len(rates))[:, None, None], 0).max(axis=0)]


def _geometric_mean(values: np.ndarray) -> float:
    return float(np.exp(np.mean(np.log(values))))


def plot(result: Warmup) -> dict[str, Figure]:
    """The curvature along warm-ups, and the largest rates that train against the length of the warm-up."""
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    descent, adam, largest = figure.subplots(1, 3)
    warmup = result.settings["warmup"]
    for ax, names in ((descent, ("sharp", "flat")), (adam, ("adam", "gi_adam"))):
        for number, name in enumerate(names):
            _draw_path(ax, result.paths[name], number, f"{name} start" if ax is descent else TITLES[name])
        path = result.paths[names[0]]
        ax.semilogy(path.step, 1 / path.share, **THEORY_LINE, label="edge at the rate of the step")
        ax.axvline(warmup, color="0.75", linewidth=0.8)
        ax.set_xlabel(f"step (warm-up until {warmup})")
        ax.legend(frameon=False, fontsize="small")
    descent.set_ylabel("sharpness over $2/\\eta$ at the peak")
    adam.set_ylabel("preconditioned sharpness over $38/\\eta$ at the peak")
    for number, name in enumerate(result.trained):
        color, values = plots.SERIES_COLORS[number], result.largest(name)
        for seed in values.T:
            largest.loglog(result.settings["warmups"], seed, ".", color=color, alpha=0.5)
        mean = [_geometric_mean(row) for row in values]
        largest.loglog(result.settings["warmups"], mean, "-", color=color, linewidth=1.2, label=TITLES[name])
    largest.set(xlabel="steps of warm-up (1: none)", ylabel="largest learning rate that trains")
    largest.legend(frameon=False, fontsize="small")
    return {"warmup": plots.label_panels(figure)}


def _draw_path(ax: Axes, path: WarmupRuns, number: int, label: str) -> None:
    for seed, curve in enumerate(path.curvature):
        ax.semilogy(path.step, curve, color=plots.SERIES_COLORS[number], linewidth=0.7, label=None if seed else label)


def claims(result: Warmup) -> list[Claim]:
    """The mechanism, what warm-up gains, and what replaces it."""
    paths, everywhere = result.paths, lambda mask: float(np.mean(mask))
    plain = {name: result.largest(name)[0] for name in result.trained}
    longest = {name: result.largest(name)[-1] for name in result.trained}
    step = float(np.log(result.rates["sgd"][1] / result.rates["sgd"][0]))
    from_catapult = _find_largest(result.rates["sgd"], result.trained_later[:, None])[0]
    at_end = {name: _at_end(path) for name, path in paths.items()}
    rises = {name: np.log(result.largest(name)) for name in ("sgd", "adam")}
    return [
        Claim.published("sharp start: share of seeds whose sharpness falls by itself at a small rate", KALRA, 1.0, 0.0,
                        everywhere(result.natural["sharp"] < 1)),
        Claim.published("flat start: share of seeds whose sharpness rises by itself at a small rate", KALRA, 1.0, 0.0,
                        everywhere(result.natural["flat"] > 1)),
        *(Claim.published(f"{text}: share of measured steps of the warm-up with a {curvature} of at most {MARGIN} "
                          "times the edge at that step", KALRA, 1.0, 0.15, _calm_share(paths[name]))
          for name, text, curvature in (("sharp", "gradient descent, sharp start", "sharpness"),
                                        ("flat", "gradient descent, flat start", "sharpness"),
                                        ("adam", "Adam, sharp start", "preconditioned sharpness"))),
        *(Claim.published(f"{name} start: sharpness in the last quarter of the warm-up over 2/η at that step, median, "
                          "mean over seeds", f"it is held there: {KALRA}", 1.0, 0.3, np.mean(at_end[name]).item())
          for name in ("sharp", "flat")),
        *(Claim.published(f"{text}: share of seeds whose curvature at the start is above twice the edge at the peak "
                          "rate, and near that at its step, or below, late in the warm-up", KALRA, 1.0, 0.0,
                          everywhere((paths[name].curvature[:, 0] > 2) & (at_end[name] <= MARGIN)))
          for name, text in (("sharp", "gradient descent"), ("adam", "Adam"))),
        Claim.theory("GI-Adam: preconditioned sharpness at the first step over Adam's, mean over seeds", "√(1 − β₂)",
                     (1 - B2) ** 0.5, 0.02 * (1 - B2) ** 0.5,
                     float(np.mean(paths["gi_adam"].ratio[:, 0] / paths["adam"].ratio[:, 0]))),
        *(Claim.published(f"{TITLES[name]}: share of seeds whose largest rate that trains is at least doubled by the "
                          "longest warm-up", KALRA, 1.0, 0.0, everywhere(longest[name] > 1.99 * plain[name]))
          for name in ("sgd", "adam")),
        *(Claim.published(f"{TITLES[name]}: share of seeds and neighbouring lengths of warm-up of which the longer "
                          "trains at rates as large", KALRA, 1.0, 0.1,
                          everywhere(np.diff(rises[name], axis=0) > -1e-6)) for name in rises),
        Claim.published("share of seeds for which GI-Adam without warm-up trains at larger rates than Adam without",
                        KALRA, 1.0, 0.0, everywhere(plain["gi_adam"] > plain["adam"])),
        Claim.published("share of seeds whose catapult rate is above 2/λ at the start",
                        "Kalra and Barkeshli, Phase diagram of early training dynamics, 2023", 1.0, 0.0,
                        everywhere(result.catapult >= 0.98)),
        Claim.check("largest log of the smallest rate of a sweep whose loss rises in the first steps over the catapult "
                    "rate, half a step of the sweep less", "the catapult rate by definition", 0.0, 0.5 * step + 0.05,
                    float(np.abs(np.log(result.first_rise / result.catapult) - 0.5 * step).max())),
        Claim.published("warm-up from the catapult rate: log of the largest rate that trains, over that of warm-up "
                        f"from 0, mean over seeds ({result.saved:.0%} of the steps saved)", KALRA, 0.0, step,
                        float(np.mean(np.log(from_catapult / longest["sgd"])))),
    ]  # fmt: skip


def _calm_share(path: WarmupRuns) -> float:
    """Share of measurements up to the end of the warm-up that are at most `MARGIN` times the edge."""
    return float(np.mean(path.ratio[:, path.share < 1] <= MARGIN))


def _at_end(path: WarmupRuns) -> np.ndarray:
    """Curvature over the edge, median of the last quarter of the warm-up, (seeds,)."""
    until = int(np.sum(path.share < 1))
    return np.median(path.ratio[:, until - max(1, until // 4) : until], axis=1)
