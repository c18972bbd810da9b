"""The slope of the final loss against the learning rate: informative below the edge of stability, noise above it.

A run maps a learning rate η to a final loss, and this map has a derivative. For a small network on the digits, full
batch, it is computed at every point of a fine grid and compared with the differences between neighbors. While the
sharpness λ of a run stays below 2/η at every step, no step overshoots, and both agree. From where λ reaches 2/η, the
run is at the edge of stability (Cohen et al. 2021, Gradient descent on neural networks typically occurs at the edge of
stability), and after enough steps its end is chaotic in η (Metz et al. 2021, Gradients are not all you need): the
derivative is correct and large, but does not predict the next point of the grid. Narrower networks and fewer steps are
less chaotic: there only regular oscillations begin at the edge.
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from experiments.analysis import sharpness_runs
from experiments.common.claims import Claim
from experiments.common.drawing import BEST_MARK, BORDER_LINE, INK, draw_borders
from experiments.common.settings import complete_settings
from experiments.common.tables import format_table
from gdkit import Problem, critical_learning_rate, plots, problems, sgd, tune, value_and_hypergradient
from gdkit.errors import bad_value
from gdkit.hypergradients import Tuned

DEFAULTS: dict[str, Any] = {
    "share": 0.3,  # of the digits, as training rows
    "width": 16,
    "init_scale": 0.5,  # the sharpness starts low and rises to 2/η
    "steps": 600,
    "grid": {"from": 0.03, "to": 0.98, "count": 300},  # of learning rates; "to" is a share of the critical one
    "sharpness": {"count": 24, "every": 20},  # learning rates, and steps between measurements
    "tune": {"start": 0.01, "rounds": 16},
    "key": 0,
    "keys": 5,  # starts whose slopes above the edge are pooled, the first with that key
}
FAR = 1.5  # times the edge: from there on runs are chaotic to their end
SIDES = {"below the edge": (0.0, 0.9), "above the edge": (1.0, np.inf)}  # learning rates over the edge
BLUE, ORANGE, GREEN = plots.SERIES_COLORS[:3]


class Landscape(NamedTuple):
    """Result of the study."""

    settings: dict[str, Any]
    learning_rate: np.ndarray  # (count,), at equal ratios
    loss: np.ndarray  # (count,) after all steps
    slope: np.ndarray  # (count,) η times the hypergradient: d(final loss) / d log η
    sharpness: np.ndarray  # (2, count) learning rates, and η/2 times the largest sharpness of a run
    edge: float  # the learning rate at which the latter is 1
    critical: float  # the largest learning rate that does not diverge
    tuned: Tuned
    pooled: tuple[
        int, int
    ]  # far above the edge, over all keys: slopes with the sign of the change to the next loss, all

    @property
    def differences(self) -> tuple[np.ndarray, np.ndarray]:
        """Learning rates with two neighbours, (count − 2,), and d(final loss) / d log η between the neighbours."""
        logs = np.log(self.learning_rate)
        return self.learning_rate[1:-1], (self.loss[2:] - self.loss[:-2]) / (logs[2:] - logs[:-2])

    def __str__(self) -> str:
        sides = [measure_slope(self, *side) for side in SIDES.values()]
        table = format_table({
            "learning rates": ("", SIDES),
            "points": ("d", [part.points for part in sides]),
            "sign changes": ("d", [part.sign_changes for part in sides]),
            "slope": (".2g", [part.size for part in sides]),
            "error": (".2g", [part.error for part in sides]),
            "sign agrees": (".0%", [part.sign_agreement for part in sides]),
        })  # fmt: skip
        rate, start = self.tuned.hyperparameters["learning_rate"], self.settings["tune"]["start"]
        summary = (
            f"edge of stability {self.edge:.3g}, divergence {self.critical:.3g}; tuned from {start:g} to {rate:.3g}"
        )
        agreeing, points = self.pooled
        pooled = f"{FAR} times the edge and above, {self.settings['keys']} keys: sign agrees at {agreeing} of {points}"
        return f"{table}\n\n{summary}\n{pooled}"


class SlopeQuality(NamedTuple):
    """Agreement of the slope with differences over a range of learning rates."""

    points: int
    sign_changes: int  # between neighbours
    size: float  # median |slope|
    error: float  # median of |slope − difference of the neighbours| / |slope|
    worst: float  # the largest of these
    sign_agreement: float  # share of points where its sign is that of the next loss minus this one


def run(settings: Mapping[str, Any]) -> Landscape:
    """The final loss and its slope over a grid, the sharpness of runs, and a tuning that starts below the edge."""
    settings = complete_settings(settings, DEFAULTS, signed=("key",))
    first = _record(settings, settings["key"])
    others = [_record(settings, settings["key"] + i, above=FAR) for i in range(1, settings["keys"])]
    start, steps = {"learning_rate": settings["tune"]["start"]}, settings["steps"]
    problem = _problem(settings["share"], settings["width"], settings["init_scale"])
    tuned = tune(problem, sgd, start, steps, rounds=settings["tune"]["rounds"], key=settings["key"])
    landscapes = [Landscape(settings, *recorded, tuned, (0, 0)) for recorded in (first, *others)]
    for side in SIDES.values():
        measure_slope(landscapes[0], *side)  # raises if a side has too few points
    signs = np.concatenate([_compare_signs(one, FAR, np.inf) for one in landscapes])
    return landscapes[0]._replace(pooled=(int(signs.sum()), len(signs)))


def _record(settings: Mapping[str, Any], key: int, above: float = 0.0) -> tuple[Any, ...]:
    """The first fields of a Landscape after its settings, up to the critical learning rate, from one key.

    Of the grid the rates above this multiple of the edge: slopes take most of the time.
    """
    grid, steps = settings["grid"], settings["steps"]
    problem = _problem(settings["share"], settings["width"], settings["init_scale"])
    lane = jax.random.fold_in(jax.random.key(key), 0)  # the key of the only seed of `tune`
    critical = critical_learning_rate(problem, sgd, low=grid["from"], high=100.0, steps=steps, key=lane).value
    rates = np.geomspace(grid["from"], grid["to"] * critical, grid["count"])
    sharpness = sharpness_runs.largest_sharpness(problem, settings, rates[[0, -1]], lane)
    edge = sharpness_runs.find_edge(sharpness, steps)
    rates = rates[rates > above * edge]

    def end(rate: jax.Array, lane: jax.Array) -> tuple[jax.Array, jax.Array]:
        loss, slopes = value_and_hypergradient(problem, sgd, {"learning_rate": rate}, steps, key=lane)
        return loss, rate * slopes["learning_rate"]

    over_rates = lambda rates, lane: jax.lax.map(lambda rate: end(rate, lane), rates, batch_size=8)
    ends = jax.jit(over_rates)(jnp.asarray(rates, jnp.float32), lane)
    return rates, *map(np.asarray, ends), sharpness, edge, critical


def _compare_signs(result: Landscape, low: float, high: float) -> np.ndarray:
    """Whether slopes from `low` to `high` times the edge have the sign of the change to the next loss, (points,)."""
    share = result.learning_rate / result.edge
    inside = (share[:-1] > low) & (share[1:] < high)
    return np.sign(result.slope[:-1][inside]) == np.sign(np.diff(result.loss)[inside])


def measure_slope(result: Landscape, low: float, high: float) -> SlopeQuality:
    """The slope at points whose neighbours both lie between `low` and `high` times the edge."""
    _, difference = result.differences
    share = result.learning_rate / result.edge
    inside = (share[:-2] > low) & (share[2:] < high)
    if not inside.any():
        remedy = "Take more learning rates, or a wider grid"
        raise bad_value("settings.grid", result.settings["grid"], "too few points on one side of the edge", remedy)
    slope, ahead = result.slope[1:-1][inside], np.diff(result.loss)[1:][inside]
    with np.errstate(all="ignore"):
        error = np.abs(slope - difference[inside]) / np.abs(slope)
    sign_changes, agreement = np.sum(np.diff(np.sign(slope)) != 0), np.mean(np.sign(slope) == np.sign(ahead))
    size = np.median(np.abs(slope))
    return SlopeQuality(
        len(slope), int(sign_changes), float(size), float(np.median(error)), float(error.max()), float(agreement)
    )


def plot(result: Landscape) -> dict[str, Figure]:
    """The final loss, its slope, and the largest sharpness against the learning rate."""
    figure = Figure(figsize=(8.4, 7.2), layout="constrained")
    upper, middle, lower = figure.subplots(3, 1, sharex=True, height_ratios=(1.15, 1.15, 0.7))
    rates = result.learning_rate
    upper.plot(rates, result.loss, ".-", color=BLUE, linewidth=0.6, markersize=3.5, label="runs of the grid")
    trials = [(trial.hyperparameters["learning_rate"], trial.final_loss) for trial in result.tuned.history]
    upper.plot(*zip(*trials, strict=True), "o", color=ORANGE, fillstyle="none", label="tried by gdkit.tune")
    best = result.tuned.hyperparameters["learning_rate"], result.tuned.final_loss
    upper.plot(*best, **BEST_MARK, color=ORANGE, markersize=13.0, label="result of gdkit.tune")
    upper.set(ylabel=f"loss after {result.settings['steps']} steps", ylim=(0, 1.1 * result.loss.max()))
    draw_borders(upper, {"edge of stability": result.edge})
    middle.plot(*result.differences, "_", color=ORANGE, markersize=6.0, label="difference of neighbours")
    middle.plot(rates, result.slope, ".", color=BLUE, markersize=3.5, label="hypergradient of a run")
    middle.set_yscale("symlog", linthresh=0.01, linscale=0.5)
    limit = max(10.0, float(np.abs(result.slope).max()))
    decades = 10.0 ** np.arange(0, np.log10(limit), 1 + np.log10(limit) // 5)
    middle.set(yticks=[*-decades[::-1], 0, *decades], ylim=(-2 * limit, 2 * limit), ylabel="$\\eta$ d(loss)/d$\\eta$")
    lower.plot(*result.sharpness, "o-", color=GREEN, markersize=3.5, linewidth=1.0)
    lower.axhline(1, color=INK, linewidth=0.8)
    lower.set(xlabel="learning rate $\\eta$", xscale="log", xlim=(rates[0], rates[-1]), ylim=(0, None))
    lower.set_ylabel("largest $\\eta\\lambda/2$")
    lower.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    lower.xaxis.set_major_formatter("{x:g}")
    lower.xaxis.set_minor_formatter(NullFormatter())
    for ax in (middle, lower):
        ax.axvline(result.edge, **BORDER_LINE)
    for ax in (upper, middle):
        ax.legend(fontsize="small", loc="lower left")
    return {"hypergradient_landscape": plots.label_panels(figure)}


def claims(result: Landscape) -> list[Claim]:
    """The slope is smooth below the edge and chaotic above, and tuning ends where chaos begins."""
    below, above = (measure_slope(result, *side) for side in SIDES.values())
    agreeing, points = result.pooled
    sign_changes = result.learning_rate[1:][np.diff(np.sign(result.slope)) != 0]
    calm = result.loss[result.learning_rate < result.edge]
    return [
        Claim.check("below the edge: largest relative error of the slope against the difference of its neighbours",
              "differences of a smooth function tend to its derivative", 0.0, 0.02, below.worst),
        Claim.theory("below the edge: sign changes of the slope", "a quadratic has none below 2/(λ_min + λ_max)",
              0.0, 0.0, below.sign_changes),
        Claim.published(
              "first learning rate at which the slope changes sign, over that at which the sharpness reaches 2/η",
              "Metz et al. 2021; Cohen et al. 2021", 1.0, 0.3, float(sign_changes.min(initial=np.inf)) / result.edge),
        Claim.check("above the edge: median relative error of the slope",
              "|h − d| / |h| is 1 for a large h unrelated to d", 1.0, 0.5, above.error),
        Claim.published(f"{FAR} times the edge and above, {result.settings['keys']} keys: share of slopes with the "
              "sign of the change to the next loss, up to three standard errors", "1/2: Metz et al. 2021", 0.5,
              1.5 / max(points, 1) ** 0.5, agreeing / max(points, 1)),
        Claim.published("median magnitude of the slope below the edge, over that above",
              "Metz et al. 2021: it grows in chaos", 0.0, 0.5, below.size / above.size),
        Claim.check("final loss of tuning from below, over the smallest loss below the edge", "tuning reaches the edge",
              1.0, 0.15, result.tuned.final_loss / float(calm.min(initial=np.inf))),
    ]  # fmt: skip


@functools.cache  # compiled programs belong to one problem
def _problem(share: float, width: int, init_scale: float) -> Problem:
    split, tanh = (share, (1 - share) / 2, (1 - share) / 2), "tanh"
    return problems.mlp(widths=[width], activation=tanh, loss="squared_error", init_scale=init_scale, split=split)
