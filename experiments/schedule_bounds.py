"""A bound of convex theory predicts how learning-rate schedules compare on a network.

For subgradient steps on a convex loss the last loss is at most A/γ + B·γ, where A and B follow from the schedule alone
and γ is the peak learning rate (Defazio et al., When, why and how much?, 2023, Theorem 10). Linear decay has 2 D G/√T,
the best order possible, and its best peak falls as T^−1/2. Schaipp et al. (The surprising agreement between convex
optimization theory and learning-rate scheduling for large model training, 2025) find the bound's shape in the losses of
language models: the drop in the cooldown of a constant rate (WSD), and the ratio of the best peaks of WSD and cosine.

The bound is checked on a loss that is convex and not smooth, max |aᵢ·x − bᵢ|, at every step of every schedule. On the
digits a network trains by each schedule at many peaks, a share of its labels being random, so that the noise of its
gradients does not vanish with the loss, as in language models: its best peaks, and the cooldown's effect, are compared
with those of the bound, which knows nothing of the network. The course of the cooldown is not predicted: halfway
through it, the bound has half of the drop, and the network more (the table has both).
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from experiments.common.best_rates import interpolate_best_rate, resample_means
from experiments.common.claims import Claim
from experiments.common.settings import complete_settings, geometric_grid
from experiments.common.tables import format_table
from experiments.problems.digits import flip_labels, validate_on_training_rows
from gdkit import Problem, SweepResult, optimizers, plots, problems, schedules, sgd, sweep

DEFAULTS: dict[str, Any] = {
    "convex": {"dimension": 20, "rows": 60, "steps": 300, "peaks": 9},
    "network": {"widths": [16], "batch_size": 8, "flipped": 0.3},  # flipped: share of random labels
    "learning_rates": {"from": 0.01, "to": 1.0, "count": 14},
    "cooldown": 0.2,  # of the steps
    "steps": 1500,
    "every": 25,  # steps between evaluations
    "seeds": 8,
    "key": 400,  # of all random numbers
}
COSINE, STABLE, LINEAR, CONSTANT = "cosine", "constant, cooldown", "linear", "constant"
DEFAZIO, SCHAIPP = "Defazio et al. 2023", "Schaipp et al. 2025"
LENGTHS = (400, 1600, 6400)  # of schedules whose best peaks are compared


class ScheduleBounds(NamedTuple):
    """Result of the study."""

    settings: dict[str, Any]
    kept: np.ndarray  # (schedules, peaks, steps) loss over the bound on the convex problem
    runs: SweepResult  # optimizer: the schedules

    def best(self, name: str) -> np.ndarray:
        """The best peak over all seeds, and over resampled seeds, (1 + samples,)."""
        part = self.runs.select(optimizer=name)
        losses = part.scores().reshape(-1, part.seeds)
        return np.array([interpolate_best_rate(part.axes["learning_rate"], means) for means in resample_means(losses)])

    def bound_rate(self, name: str) -> float:
        """The best peak by the bound, up to a factor that all schedules share."""
        return schedules.best_rate(self.shares[name], self.settings["steps"]).learning_rate

    @property
    def shares(self) -> dict[str, Callable]:
        """The schedules."""
        return make_schedules(self.settings["steps"], self.settings["cooldown"])

    def curve(self, name: str, place: int) -> tuple[np.ndarray, np.ndarray]:
        """Steps and losses (evaluations, seeds) of the runs at the peak in this place."""
        part = self.runs.select(optimizer=name)
        losses = part.lanes["validation_loss"].values.reshape(-1, part.seeds, part.lanes.sizes["evaluation"])[place]
        return part.lanes["evaluation_step"].values, losses.T

    @property
    def place(self) -> int:
        """The place of the best peak of the schedule with a cooldown."""
        rates = self.runs.axes["learning_rate"]
        return int(np.argmin(np.abs(np.log(rates / self.best(STABLE)[0]))))

    @property
    def halfway(self) -> tuple[float, float]:
        """Share of the cooldown's drop of the loss that is done halfway through it: of runs, and by the bound."""
        steps, cooldown = self.settings["steps"], self.settings["cooldown"]
        step, losses = self.curve(STABLE, self.place)
        begin, middle = (1 - cooldown) * steps, (1 - cooldown / 2) * steps
        predicted = schedules.bound(self.shares[STABLE], steps, peak=self.bound_rate(STABLE))
        at = lambda x, y: np.interp([begin, middle, steps], x, y)
        share = lambda values: float((values[0] - values[1]) / (values[0] - values[2]))
        return share(at(step, losses.mean(axis=1))), share(at(np.arange(1, steps + 1), predicted))

    def __str__(self) -> str:
        names = list(self.shares)
        best = {name: self.best(name) for name in names}
        low, high = np.transpose([np.quantile(best[name][1:], [0.025, 0.975]) for name in names])
        losses = [self.runs.select(optimizer=name).best() for name in names]
        table = format_table({
            "schedule": ("", names),
            "best peak": (".3g", [best[name][0] for name in names]),
            "from": (".3g", low),
            "to": (".3g", high),
            "over cosine's": (".2f", [best[name][0] / best[COSINE][0] for name in names]),
            "by the bound": (".2f", [self.bound_rate(name) / self.bound_rate(COSINE) for name in names]),
            "loss": ("", [f"{one.score:.4f} ± {one.spread:.4f}" for one in losses]),
        })  # fmt: skip
        measured, predicted = self.halfway
        return f"{table}\nshare of the cooldown's drop done halfway: {measured:.2f}, by the bound {predicted:.2f}"


def make_schedules(steps: int, cooldown: float) -> dict[str, Callable]:
    """The schedules over `steps` steps; each maps a step to a share of the peak."""
    fall = max(1, round(cooldown * steps))
    parts = optax.constant_schedule(1.0), optax.linear_schedule(1.0, 0.0, fall)
    return {
        CONSTANT: optimizers.schedule("constant", steps),
        COSINE: optimizers.schedule("cosine", steps),
        LINEAR: optimizers.schedule("linear", steps),
        STABLE: optax.join_schedules(parts, [steps - fall]),
    }


def run(settings: Mapping[str, Any]) -> ScheduleBounds:
    """The bound on the convex problem, and every schedule at every peak on the network."""
    settings = complete_settings(settings, DEFAULTS, signed=("key",))
    named = {
        name: optimizers.with_schedule(sgd, share)
        for name, share in make_schedules(settings["steps"], settings["cooldown"]).items()
    }
    axes = {"optimizer": named, "learning_rate": geometric_grid(settings["learning_rates"])}
    options: dict[str, Any] = {name: settings[name] for name in ("steps", "seeds", "key")}
    options |= {"statistics": "ends", "curve_points": 0, "evaluate_every": settings["every"]}
    widths, *rest = settings["network"].values()
    runs = sweep(network(tuple(widths), *rest), None, axes, **options)
    return ScheduleBounds(settings, _check_bound(settings["convex"], settings["cooldown"], settings["key"]), runs)


@functools.cache  # compiled programs belong to one problem
def network(widths: tuple[int, ...], batch_size: int, flipped: float) -> Problem:
    """A network on the digits with a share of random labels, judged by its loss on all training rows."""
    problem = problems.mlp("digits", widths=widths, batch_size=batch_size)
    return validate_on_training_rows(flip_labels(problem, flipped))


def _check_bound(own: Mapping[str, Any], cooldown: float, key: int) -> np.ndarray:
    """Loss over bound for subgradient steps on max |aᵢ·x − bᵢ|, whose minimum is 0, (schedules, peaks, steps)."""
    generator, steps = np.random.default_rng(key), own["steps"]
    matrix = generator.normal(size=(own["rows"], own["dimension"]))
    solution = generator.normal(size=own["dimension"])
    problem = Problem(
        lambda x, rows: jnp.max(jnp.abs(rows @ (x - solution))), np.zeros(own["dimension"], np.float32), data=matrix
    )
    distance, gradient = float(np.linalg.norm(solution)), float(np.linalg.norm(matrix, axis=1).max())
    shares, kept = make_schedules(steps, cooldown), []
    for share in shares.values():
        best = schedules.best_rate(share, steps, distance=distance, gradient=gradient).learning_rate
        peaks = best * np.geomspace(0.1, 10, own["peaks"])
        runs = sweep(problem, optimizers.with_schedule(sgd, share), {"learning_rate": peaks}, steps=steps,
                     curve_points=steps + 1)  # fmt: skip
        rows = []
        for lane, peak in enumerate(peaks):
            step, losses = runs.curve(lane)
            bounds = schedules.bound(share, steps, peak=peak, distance=distance, gradient=gradient)
            rows.append(np.interp(np.arange(steps), step, losses) / bounds)
        kept.append(rows)
    return np.array(kept)


def plot(result: ScheduleBounds) -> dict[str, Figure]:
    """Loss against the peak, with the best; the loss along the cooldown, and the bound."""
    figure = Figure(figsize=(12, 3.9), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    for number, name in enumerate(result.shares):
        part, look = result.runs.select(optimizer=name), plots.style.series(number)
        means = part.scores().reshape(-1, part.seeds).mean(axis=1)
        shown = np.isfinite(means)
        left.loglog(part.axes["learning_rate"][shown], means[shown], **look, linewidth=1, markersize=3.5, label=name)
        step, losses = result.curve(name, result.place)
        middle.semilogy(step, losses.mean(axis=1), color=look["color"], linewidth=1)
        bounds = schedules.bound(result.shares[name], result.settings["steps"], peak=result.bound_rate(STABLE))
        right.semilogy(bounds, color=look["color"], linewidth=1)
    left.set(xlabel="peak learning rate", ylabel="loss on all training rows (nats)")
    left.legend(frameon=False, fontsize="small")
    middle.set(xlabel="step", ylabel="loss at one peak, mean over keys")
    right.set(xlabel="step", ylabel="bound at its best peak (units of D G)")
    return {"schedule_bounds": plots.label_panels(figure)}


def claims(result: ScheduleBounds) -> list[Claim]:
    """The bound holds, has the rates of theory, and predicts the network's best peaks and cooldown."""
    steps = np.array(LENGTHS)
    exponent = lambda name: float(np.polyfit(np.log(steps), np.log([
        schedules.best_rate(make_schedules(n, result.settings["cooldown"])[name], n).learning_rate for n in LENGTHS]),
        1)[0])  # fmt: skip
    minimax = schedules.best_rate(make_schedules(1600, 0.2)[LINEAR], 1600).bound * 1600**0.5
    ratio = lambda name: float(np.log(result.best(name)[0] / result.best(COSINE)[0])
                               - np.log(result.bound_rate(name) / result.bound_rate(COSINE)))  # fmt: skip
    loss = {name: result.runs.select(optimizer=name).best().score for name in (COSINE, STABLE)}
    ends = [result.curve(name, result.place)[1][-1] for name in (STABLE, CONSTANT)]
    return [
        Claim.theory("share of schedules, peaks and steps on the convex problem whose loss is at most the bound",
                     f"{DEFAZIO}, Theorem 10", 1.0, 0.0, float(np.mean(result.kept <= 1 + 1e-5))),
        Claim.theory("exponent of the steps in the best peak of linear decay by the bound", f"−1/2: {DEFAZIO}", -0.5,
                     0.01, exponent(LINEAR)),
        Claim.theory("best bound of linear decay over 1600 steps, over D G/√T", "2: closed form for many steps", 2.0,
                     0.02, float(minimax)),
        *(Claim.published(f"log of the best peak of {name} over that of cosine, less that by the bound", SCHAIPP, 0.0,
                          float(np.log(1.5)), ratio(name)) for name in (STABLE, CONSTANT, LINEAR)),
        Claim.published("log of the best loss with a cooldown over that of cosine", f"equal: {SCHAIPP}", 0.0, 0.2,
                        float(np.log(loss[STABLE] / loss[COSINE]))),
        Claim.published("share of keys for which the cooldown ends below a constant rate at the same peak", SCHAIPP,
                        1.0, 0.0, float(np.mean(ends[0] < ends[1]))),
    ]  # fmt: skip
