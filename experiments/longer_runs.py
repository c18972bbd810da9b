"""The best learning rate of a longer run is predicted from short ones, with an interval of the stated coverage.

Sweeps are made with short runs, and training is long. At a constant learning rate the first part of a run is itself a
shorter run, so one sweep shows how the best rate moves with the number of steps; `recommend(horizon=T)` extends this to
T steps.

Three problems whose gradients stay noisy (a quadratic, and logistic regression and a network on the digits with a share
of random labels) are swept for T₀ steps, several times with other keys, and from each sweep the best rates for 4 T₀ and
16 T₀ steps are predicted. The true best rates are measured separately, by sweeps of those lengths with more seeds and
other keys, up to their bootstrap intervals. Intervals of 95 % should contain the true rate in at least 95 % of the
cases (up to three standard errors of that share); where nothing is predicted, the reason is counted. The price of a
prediction is the loss of the long run at the predicted rate relative to the lowest, and is compared with the price of
using the short sweep's best rate.
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from experiments.common.best_rates import interpolate_best_rate, resample_means
from experiments.common.claims import Claim
from experiments.common.settings import complete_settings, geometric_grid
from experiments.common.tables import format_table
from experiments.problems.digits import flip_labels, validate_on_training_rows
from gdkit import Problem, SweepResult, plots, problems, sgd, sweep
from gdkit.errors import unknown_name

DEFAULTS: dict[str, Any] = {
    "problems": ["quadratic", "logistic", "network"],
    "steps": 100,  # T₀
    "evaluations": 20,  # along the short sweep
    "seeds": 8,
    "repeats": 6,  # short sweeps per problem
    "truth_seeds": 12,
    "key": 600,  # of the first sweep
    "quadratic": {"from": 1e-3, "to": 1.5, "count": 25},  # learning rates
    "logistic": {"from": 3e-3, "to": 1.0, "count": 20},  # on the digits, with random labels
    "network": {"from": 0.01, "to": 1.5, "count": 20},  # likewise, with a hidden layer
}
TIMES = (4, 16)
NAMES = ("quadratic", "logistic", "network")  # of the problems


class Prediction(NamedTuple):
    """What one short sweep says of a longer run."""

    problem: str
    times: int
    value: float  # NaN where nothing is predicted
    interval: tuple[float, float]  # NaN likewise
    short: float  # the best rate of the short sweep


class Truth(NamedTuple):
    """Long runs of one problem."""

    rates: np.ndarray  # (rates,)
    losses: np.ndarray  # (rates, seeds), infinite where diverged

    @property
    def best(self) -> np.ndarray:
        """The best rate over all seeds, and over resampled seeds, (1 + samples,)."""
        return np.array([interpolate_best_rate(self.rates, means) for means in resample_means(self.losses)])

    @property
    def interval(self) -> np.ndarray:
        """Central 95 % of the bootstrap of the best rate, (2,)."""
        return np.quantile(self.best, [0.025, 0.975])

    def excess(self, rate: float) -> float:
        """Log of the mean loss at a rate, interpolated on log axes, over that at the best."""
        means = np.log(self.losses.mean(axis=1))
        finite = np.isfinite(means)
        at = lambda x: np.interp(np.log(x), np.log(self.rates[finite]), means[finite])
        return float(at(rate) - at(self.best[0]))


class LongerRuns(NamedTuple):
    """Result of the study."""

    settings: dict[str, Any]
    truths: dict[tuple[str, int], Truth]
    predictions: list[Prediction]

    def select(self, problem: str | None = None, times: int | None = None) -> list[Prediction]:
        """The predictions of a problem, for a multiple of the steps, that were made."""
        return [p for p in self.predictions if problem in (None, p.problem) and times in (None, p.times)
                and np.isfinite(p.value)]  # fmt: skip

    def is_covered(self, one: Prediction) -> bool:
        """Whether the interval meets that of the truth."""
        low, high = self.truths[one.problem, one.times].interval
        return one.interval[0] <= high and low <= one.interval[1]

    def excess(self, one: Prediction, *, short: bool = False) -> float:
        """Log of the loss of the long run at the predicted rate, or at the short sweep's best, over the lowest."""
        return self.truths[one.problem, one.times].excess(one.short if short else one.value)

    def __str__(self) -> str:
        cases = list(self.truths)
        made = [self.select(*case) for case in cases]
        mean = lambda values: float(np.mean(list(values))) if len(list(values)) else np.nan
        return format_table({
            "problem": ("", [problem for problem, _ in cases]),
            "× steps": ("d", [times for _, times in cases]),
            "best rate": (".3g", [truth.best[0] for truth in self.truths.values()]),
            "predicted": (".3g", [np.median([p.value for p in group]) if group else np.nan for group in made]),
            "short sweep": (".3g", [np.median([p.short for p in group]) if group else np.nan for group in made]),
            "predictions": ("d", [len(group) for group in made]),
            "covered": (".0%", [mean([self.is_covered(p) for p in group]) for group in made]),
            "width (ratio)": (".2f", [mean([p.interval[1] / p.interval[0] for p in group]) for group in made]),
            "log excess": (".3f", [mean([self.excess(p) for p in group]) for group in made]),
            "of the short best": (".3f", [mean([self.excess(p, short=True) for p in group]) for group in made]),
        })  # fmt: skip


def run(settings: Mapping[str, Any]) -> LongerRuns:
    """Short sweeps with their predictions, and long ones for the truth."""
    settings = complete_settings(settings, DEFAULTS, signed=("key",))
    truths, predictions = {}, []
    for name in settings["problems"]:
        if name not in NAMES:
            raise unknown_name("settings.problems", name, NAMES)
        truths |= {(name, times): _measure_truth(settings, name, times) for times in TIMES}
        for repeat in range(settings["repeats"]):
            short = _sweep(settings, name, settings["steps"], settings["seeds"], settings["key"] + repeat)
            predictions += [_predict(short, name, settings["steps"], times) for times in TIMES]
    return LongerRuns(settings, truths, predictions)


def _measure_truth(settings: Mapping[str, Any], name: str, times: int) -> Truth:
    key = settings["key"] + settings["repeats"] + times
    result = _sweep(settings, name, times * settings["steps"], settings["truth_seeds"], key)
    return Truth(result.axes["learning_rate"], result.scores().reshape(-1, result.seeds))


def _sweep(settings: Mapping[str, Any], name: str, steps: int, seeds: int, key: int) -> SweepResult:
    every = max(1, settings["steps"] // settings["evaluations"])
    every = every if steps == settings["steps"] else steps
    axes = {"learning_rate": geometric_grid(settings[name])}
    options: dict[str, Any] = {"steps": steps, "seeds": seeds, "key": key, "evaluate_every": every}
    return sweep(problem_of(name), sgd, axes, **options, statistics="ends", curve_points=0)


@functools.cache  # compiled programs belong to one problem
def problem_of(name: str) -> Problem:
    """The problem of this name, judged by its loss without noise: on all rows, or in expectation."""
    if name != "quadratic":
        problem = problems.mlp("digits", widths=(16,) if name == "network" else (), batch_size=8)
        return validate_on_training_rows(flip_labels(problem, 0.3))
    curvatures = jnp.geomspace(0.02, 1.0, 10)
    exact = lambda params: 0.5 * jnp.sum(curvatures * params**2)
    noisy = lambda params, noise: exact(params) + jnp.sum(params * noise)
    draw = lambda key, t, data: 0.2 * jax.random.normal(key, (1, 10))[0]
    evaluate = lambda params, data, aux: {"loss": exact(params)}
    held_out: dict[str, Any] = {"validation": jnp.zeros(10), "evaluate": evaluate, "optimum": 0.0}
    return Problem(noisy, jnp.ones(10), data=jnp.zeros(1), sample=draw, **held_out, name="noisy quadratic")


def _predict(short: SweepResult, name: str, steps: int, times: int) -> Prediction:
    found, now = short.recommend(horizon=times * steps), short.recommend()
    horizon = found.horizon
    value, interval = (horizon.value, horizon.interval) if horizon is not None else (np.nan, None)
    return Prediction(name, times, value, interval or (np.nan, np.nan), float(now.best or np.nan))


def plot(result: LongerRuns) -> dict[str, Figure]:
    """One panel per problem: predicted intervals beside the truth, at each multiple of the steps."""
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    names = list(dict.fromkeys(name for name, _ in result.truths))
    for ax, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        for number, times in enumerate(TIMES):
            color, group = plots.SERIES_COLORS[number], result.select(name, times)
            low, high = result.truths[name, times].interval
            ax.axhspan(low, high, color=color, alpha=0.25, linewidth=0)
            ax.axhline(result.truths[name, times].best[0], color=color, linewidth=1, label=f"truth at {times} T₀")
            at = np.arange(len(group)) + 0.25 * number
            for x, one in zip(at, group, strict=True):
                ax.plot([x, x], one.interval, color=color, linewidth=1.2)
                ax.plot(x, one.value, "o", color=color, markersize=4)
        ax.set(yscale="log", xlabel="short sweep", title=name)
        ax.legend(frameon=False, fontsize="small")
    figure.axes[0].set_ylabel("best learning rate")
    return {"longer_runs": plots.label_panels(figure)}


def claims(result: LongerRuns) -> list[Claim]:
    """Coverage, the price of a prediction, and how often one is made."""
    made = result.select()
    covered = [result.is_covered(one) for one in made]
    # the share holds if it is at least 95 % less three of its standard errors
    least = 0.95 - 3 * np.sqrt(0.95 * 0.05 / max(len(made), 1))
    mean_excess = lambda times: float(np.mean([result.excess(one) for one in result.select(times=times)]))
    gains = [result.excess(one, short=True) - result.excess(one) for one in result.select(times=TIMES[-1])]
    return [
        Claim.theory("share of intervals that hold the best rate of the longer run", "95 % or more, less three "
                     "standard errors", (1 + least) / 2, (1 - least) / 2, float(np.mean(covered or [np.nan]))),
        *(Claim.theory(f"mean log excess of the loss at the predicted rate, {times} times the steps",
                       "0: the best rate", 0.0, tolerance, mean_excess(times))
          for times, tolerance in zip(TIMES, (0.05, 0.1), strict=True)),
        Claim.check("share of sweeps from which something is predicted", "else the claims are about few", 0.75, 0.25,
                    len(made) / len(result.predictions)),
        Claim.check("mean log gain over the short sweep's best rate at 16 times the steps", "above 0", 1.0, 1.0,
                    float(np.mean(gains)) if gains else np.nan),
    ]  # fmt: skip
