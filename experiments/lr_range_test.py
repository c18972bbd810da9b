"""Learning-rate finders against the full sweep: what the suggestions of fastai, Lightning and gdkit are worth.

A finder lets the learning rate grow within one short run and reads a suggestion off the loss (Smith, Cyclical learning
rates for training neural networks, 2017). fastai has four rules, Lightning one, which takes the slope of the loss
against the learning rate itself: there the smallest learning rates are so close together that the least noise is the
steepest slope of all, and so on a noisy curve it suggests about the smallest it looks at. gdkit takes the slope against
the logarithm, runs several seeds at once, and then does what a finder would spare: it tries a few learning rates around
the suggestion in short real runs, and finds by bisection where they begin to diverge.

The truth is a sweep of constant learning rates over longer runs. A suggestion's regret is its ratio to the best of
them, and the share of the best run's decrease of the loss that a run with it misses.
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.analysis import rate_finders
from experiments.analysis.rate_finders import LIGHTNING, SLOPE, TRIED
from experiments.common.claims import Claim
from experiments.common.drawing import FORMULA, INK
from experiments.common.printing import table
from experiments.common.settings import complete, spaced
from experiments.problems import suite
from gdkit import Problem, lr_range_test, plots, sgd, sharpness, sweep
from gdkit.errors import unknown_name
from gdkit.sweeps.search.range_test import RangeTest

DEFAULTS: dict[str, Any] = {
    "problems": ["quadratic", "rosenbrock", "logistic, breast_cancer", "logistic, digits", "mlp, diabetes",
                 "mlp, digits", "attention, digits"],
    "optimizers": ["sgd", "adam"],
    "finder": {"from": 1e-7, "to": 10.0, "steps": 100},  # as in fastai
    "seeds": 5,
    "sweep": {"from": 1e-5, "to": 10.0, "count": 25, "steps": 300},
    "noisy": {"steepest": 3.2e-3, "noise": 1e-3, "from": 1e-8, "to": 1.0, "steps": 100, "curves": 200},  # Lightning's
}  # fmt: skip
OPTIMIZERS = {"sgd": sgd, "adam": optax.adam}
LEAST_STEPS = "the least noise over the least distance is the steepest slope"
LEAST, MOST = 1e-3, 10.0  # of the missed decrease, in the figure


class Case(NamedTuple):
    """One problem and optimizer."""

    problem: str
    optimizer: str
    found: RangeTest
    suggestions: dict[str, np.ndarray]  # rule -> (seeds,), one a run; (1,) where it is made of all seeds at once
    regret: dict[str, np.ndarray]  # rule -> likewise, share of the best decrease that is missed; infinite: diverged
    rates: np.ndarray  # (rates,) of the sweep
    missed: np.ndarray  # (rates,), the same share for the sweep

    @property
    def best(self) -> float:
        """The best learning rate of the sweep."""
        return float(self.rates[np.argmin(self.missed)])

    @property
    def decades(self) -> dict[str, float]:
        """Rule -> log10 of its suggestion over the best, the median over seeds; NaN where it has none."""
        return {rule: float(np.log10(np.median(rates) / self.best)) for rule, rates in self.suggestions.items()}

    @property
    def lost(self) -> dict[str, float]:
        """Rule -> the median regret over seeds."""
        return {rule: float(np.median(regret)) for rule, regret in self.regret.items()}


class Finders(NamedTuple):
    """What the study found."""

    settings: dict[str, Any]
    cases: list[Case]
    noisy: dict[str, np.ndarray]  # rule -> (curves,), suggestions for noisy curves whose steepest point is known

    def __str__(self) -> str:
        rules, lost = list(self.cases[0].suggestions), [case.lost for case in self.cases]
        names = [f"{case.problem}, {case.optimizer}" for case in self.cases]
        over = [{rule: summary([one[rule] for one in lost]) for rule in rules} for summary in (np.median, np.max)]
        said = lambda head, rows, found: table({
            head: ("", rows), **{rule.removeprefix("gdkit, "): (".2f", [one[rule] for one in found]) for rule in rules},
        })  # fmt: skip
        off = said("log10(suggestion / best)", names, [case.decades for case in self.cases])
        return f"{off}\n\n{said('share of the decrease missed', [*names, 'median', 'worst'], [*lost, *over])}"


def run(settings: Mapping[str, Any]) -> Finders:
    """Every finder on every problem with every optimizer, a sweep of each, and noisy curves of known steepest point."""
    chosen = complete(settings, DEFAULTS)
    for name, known in (("problems", suite.NOISY), ("optimizers", OPTIMIZERS)):
        for value in chosen[name]:
            if value not in known:
                raise unknown_name(f"settings.{name}", value, known)
    cases = [_case(chosen, problem, optimizer) for problem in chosen["problems"] for optimizer in chosen["optimizers"]]
    return Finders(chosen, cases, rate_finders.noisy(chosen["noisy"]))


def _case(chosen: Mapping[str, Any], name: str, optimizer: str) -> Case:
    finder, grid, problem = chosen["finder"], chosen["sweep"], _problem(name)
    ends = {"low": finder["from"], "high": finder["to"]}
    found = lr_range_test(problem, OPTIMIZERS[optimizer], **ends, steps=finder["steps"], seeds=chosen["seeds"])
    single = [{LIGHTNING: rate_finders.lightning(found.learning_rate, loss)}
              | rate_finders.fastai(found.learning_rate, loss) for loss in found.loss]  # fmt: skip
    suggestions = {rule: np.array([one[rule] for one in single]) for rule in single[0]}
    suggestions |= {SLOPE: np.array([found.suggestions["steepest"]]), TRIED: np.array([found.best])}
    rates = spaced(grid)
    every = np.unique(np.concatenate([rates, *suggestions.values()]).astype(np.float32))
    every = every[np.isfinite(every)].astype(float)
    full = sweep(problem, OPTIMIZERS[optimizer], {"learning_rate": every}, steps=grid["steps"], seeds=chosen["seeds"],
                 curve_points=0)  # fmt: skip
    score = full.scores().reshape(-1, chosen["seeds"]).mean(axis=1)
    start, least = float(full.lanes["initial_loss"].mean()), score[np.isin(every, rates.astype(np.float32))].min()
    missed = dict(zip(every, (score - least) / (start - least), strict=True))
    at = lambda rates: np.array([missed.get(float(np.float32(rate)), np.inf) for rate in rates])
    return Case(name, optimizer, found, suggestions, {r: at(s) for r, s in suggestions.items()}, rates, at(rates))


@functools.cache  # compiled programs belong to one problem
def _problem(name: str) -> Problem:
    return suite.NOISY[name]()


def plot(result: Finders) -> dict[str, Figure]:
    """One figure: what is read off a real and off noisy curves; how far each suggestion is off, and what it costs."""
    figure = Figure(figsize=(13, 7.2), layout="constrained")
    grid = figure.add_gridspec(2, 3, width_ratios=(1.1, 1, 1))
    _draw_real(figure.add_subplot(grid[0, 0]), result.cases[-len(result.settings["optimizers"])])
    _draw_noisy(figure.add_subplot(grid[1, 0]), result)
    off = figure.add_subplot(grid[:, 1])
    cost = figure.add_subplot(grid[:, 2], sharey=off)
    rules = list(result.cases[0].suggestions)
    for number, rule in enumerate(rules):
        rows = np.arange(len(result.cases)) + 0.3 * (number / (len(rules) - 1) - 0.5)
        look: dict[str, Any] = plots.style.series(number) | {"label": rule, "linestyle": "none", "markersize": 6}
        look |= {"markeredgecolor": INK, "markeredgewidth": 0.5}
        off.plot([case.decades[rule] for case in result.cases], rows, **look)
        cost.plot(np.clip([case.lost[rule] for case in result.cases], LEAST, MOST), rows, **look)
    off.axvline(0, color=INK, linewidth=1)
    off.set(xlabel="$\\log_{10}$ (suggestion / best of the sweep)", ylim=(len(result.cases) - 0.5, -0.5))
    off.set_yticks(range(len(result.cases)), [f"{c.problem}, {c.optimizer}" for c in result.cases], fontsize="small")
    cost.set(xscale="log", xlim=(LEAST / 1.5, MOST * 1.5), xlabel="share of the decrease missed (∞: diverged)")
    cost.set_xticks([LEAST, 1e-2, 1e-1, 1, MOST], ["≤.001", "0.01", "0.1", "1", "∞"])
    cost.tick_params(labelleft=False)
    for ax in (off, cost):
        for row in range(len(result.cases)):
            ax.axhspan(row - 0.3, row + 0.3, color="0.95", zorder=0)
    figure.legend(*off.get_legend_handles_labels(), loc="outside lower right", ncols=7, frameon=False, fontsize="small")
    return {"lr_range_test": figure}


def claims(result: Finders) -> list[Claim]:
    """What Lightning's rule makes of noise, what gdkit's does, and what trying is worth."""
    decades = {rule: float(np.median(np.log10(found))) for rule, found in result.noisy.items()}
    steepest = result.settings["noisy"]["steepest"]
    cases, others = result.cases, [rule for rule in result.cases[0].suggestions if rule not in (SLOPE, TRIED)]
    median = lambda rule: float(np.median([case.lost[rule] for case in cases]))
    return [
        Claim("noisy curves: log10 of what the slope against the learning rate suggests, the median", LEAST_STEPS,
              -7.0, 0.5, decades[LIGHTNING]),
        Claim("noisy curves: log10 of what the slope against its logarithm suggests, the median",
              "the curve's steepest point", float(np.log10(steepest)), 0.1, decades[SLOPE]),
        Claim("share of cases in which Lightning's suggestion is less than a hundredth of the best", LEAST_STEPS, 1.0,
              0.0, float(np.mean([case.decades[LIGHTNING] < -2 for case in cases]))),
        *(Claim(f"stability limit of sgd on the {case.problem} over 2/λ", "2/λ", 1.0, 0.03, _limit_over_theory(case))
          for case in cases if (case.problem, case.optimizer) == ("quadratic", "sgd")),
        Claim("share of cases in which the learning rate that was tried is below the stability limit", "a check",
              1.0, 0.0, float(np.mean([c.found.limit is None or c.found.best <= c.found.limit.value for c in cases]))),
        Claim("share of the rules of fastai and Lightning whose median case misses more than what was tried",
              "a curve is one short run", 1.0, 0.0, float(np.mean([median(TRIED) < median(rule) for rule in others]))),
    ]  # fmt: skip


def _limit_over_theory(case: Case) -> float:
    problem = _problem(case.problem)
    top = float(sharpness(problem, problem.init(jax.random.key(0))).values[0])
    return case.found.limit.value / (2 / top) if case.found.limit is not None else float("nan")


def _draw_real(ax: Axes, case: Case) -> None:
    found, shown = case.found, slice(0, len(case.found.smooth))
    for loss in found.loss:
        ax.plot(found.learning_rate, loss, color="0.8", linewidth=0.6)
    ax.plot(found.learning_rate[shown], found.smooth, color=INK, linewidth=2.4, label="median, smoothed")
    marks = {LIGHTNING: np.median(case.suggestions[LIGHTNING]), SLOPE: case.suggestions[SLOPE][0], "best": case.best}
    if found.limit is not None:
        marks["limit"] = found.limit.value
    top = 1.1 * float(np.nanmax(found.smooth))
    for (name, rate), style in zip(marks.items(), ("--", "-.", "-", ":"), strict=False):
        ax.axvline(rate, **FORMULA, linestyle=style, label=name)
    ax.legend(frameon=False, fontsize="small", loc="lower center")
    ax.set(xscale="log", ylim=(0, top), xlabel="learning rate, growing within the run", ylabel="loss")
    ax.set_title(f"{case.problem}, {case.optimizer}: {len(found.loss)} seeds", fontsize="medium")


def _draw_noisy(ax: Axes, result: Finders) -> None:
    noisy = result.settings["noisy"]
    bins = np.geomspace(noisy["from"], noisy["to"], 65).tolist()
    for number, (rule, found) in enumerate(result.noisy.items()):
        ax.hist(found, bins, label=rule, color=plots.SERIES_COLORS[1 - number], hatch=("////", "")[number],
                edgecolor=INK, linewidth=0.4)  # fmt: skip
    ax.axvline(noisy["steepest"], color=INK, linewidth=1, linestyle=":", label="steepest")
    ax.set(xscale="log", xlabel="suggested learning rate", ylabel=f"of {noisy['curves']} noisy curves")
    ax.legend(frameon=False, fontsize="small", loc="upper center")
