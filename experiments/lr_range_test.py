"""Learning-rate finders against the full sweep: how good the suggestions of fastai, Lightning and gdkit are.

A finder increases the learning rate within one short run and takes a suggestion from the loss (Smith, Cyclical learning
rates for training neural networks, 2017). fastai has four rules, Lightning one, which takes the slope of the loss
against the learning rate itself: there the smallest learning rates are so close together that any noise makes the
steepest slope, so on a noisy curve it suggests about the smallest learning rate of all. gdkit takes the slope against
the logarithm, runs several seeds at once, and then tries a few learning rates around the suggestion in short runs, and
finds by bisection where they begin to diverge.

The reference is a sweep of constant learning rates over longer runs. A suggestion is measured by its ratio to the best
of them, and by its regret: the share of the best decrease of the loss that a run with it misses.
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
from experiments.common.drawing import INK, THEORY_LINE
from experiments.common.settings import complete_settings, geometric_grid
from experiments.common.tables import format_table
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
    "key": 0,  # of all random numbers
    "sweep": {"from": 1e-5, "to": 10.0, "count": 25, "steps": 300},
    "noisy": {"steepest": 3.2e-3, "noise": 1e-3, "from": 1e-8, "to": 1.0, "steps": 100, "curves": 200},  # Lightning's
}  # fmt: skip
OPTIMIZERS = {"sgd": sgd, "adam": optax.adam}
NOISE = "noise over the smallest distance is the steepest slope"
LOWEST, HIGHEST = 1e-3, 10.0  # regrets of the figure


class FinderCase(NamedTuple):
    """One problem and optimizer."""

    problem: str
    optimizer: str
    test: RangeTest
    suggestions: dict[str, np.ndarray]  # rule -> (seeds,), one per run, or (1,) for all seeds together
    regret: dict[str, np.ndarray]  # rule -> like suggestions, share of the best decrease missed; infinite: diverged
    rates: np.ndarray  # (rates,) of the sweep
    sweep_regret: np.ndarray  # (rates,), the same for the learning rates of the sweep

    @property
    def best(self) -> float:
        """The best learning rate of the sweep."""
        return float(self.rates[np.argmin(self.sweep_regret)])

    @property
    def distance(self) -> dict[str, float]:
        """Rule -> log10 of its suggestion over the best, median over seeds; NaN where it has none."""
        return {rule: float(np.log10(np.median(rates) / self.best)) for rule, rates in self.suggestions.items()}

    @property
    def regrets(self) -> dict[str, float]:
        """Rule -> the median regret over seeds."""
        return {rule: float(np.median(regret)) for rule, regret in self.regret.items()}


class FinderComparison(NamedTuple):
    """Result of the study."""

    settings: dict[str, Any]
    cases: list[FinderCase]
    noisy: dict[str, np.ndarray]  # rule -> (curves,), suggestions for noisy curves with a known steepest point

    def __str__(self) -> str:
        rules, regrets = list(self.cases[0].suggestions), [case.regrets for case in self.cases]
        names = [f"{case.problem}, {case.optimizer}" for case in self.cases]
        summaries = [
            {rule: summary([one[rule] for one in regrets]) for rule in rules} for summary in (np.median, np.max)
        ]
        tabulate = lambda head, rows, values: format_table({
            head: ("", rows),
            **{rule.removeprefix("gdkit, "): (".2f", [one[rule] for one in values]) for rule in rules},
        })  # fmt: skip
        distances = tabulate("log10(suggestion / best)", names, [case.distance for case in self.cases])
        missed = tabulate("share of the decrease missed", [*names, "median", "worst"], [*regrets, *summaries])
        return f"{distances}\n\n{missed}"


def run(settings: Mapping[str, Any]) -> FinderComparison:
    """Every finder and a sweep on every problem with every optimizer, and noisy curves with a known steepest point."""
    settings = complete_settings(settings, DEFAULTS, signed=("key",))
    for name, known in (("problems", suite.MINIBATCH_PROBLEMS), ("optimizers", OPTIMIZERS)):
        for value in settings[name]:
            if value not in known:
                raise unknown_name(f"settings.{name}", value, known)
    cases = [
        _case(settings, problem, optimizer) for problem in settings["problems"] for optimizer in settings["optimizers"]
    ]
    return FinderComparison(settings, cases, rate_finders.suggest_on_noisy_curves(settings["noisy"]))


def _case(settings: Mapping[str, Any], name: str, optimizer: str) -> FinderCase:
    finder, grid, problem = settings["finder"], settings["sweep"], _problem(name)
    ends = {"low": finder["from"], "high": finder["to"]}
    options: dict[str, Any] = {"seeds": settings["seeds"], "key": settings["key"]}
    test = lr_range_test(problem, OPTIMIZERS[optimizer], **ends, steps=finder["steps"], **options)
    by_run = [{LIGHTNING: rate_finders.suggest_lightning(test.learning_rate, loss)}
              | rate_finders.suggest_fastai(test.learning_rate, loss) for loss in test.loss]  # fmt: skip
    suggestions = {rule: np.array([one[rule] for one in by_run]) for rule in by_run[0]}
    suggestions |= {SLOPE: np.array([test.suggestions["steepest"]]), TRIED: np.array([test.best])}
    rates = geometric_grid(grid)
    every = np.unique(np.concatenate([rates, *suggestions.values()]).astype(np.float32))
    every = every[np.isfinite(every)].astype(float)
    axes = {"learning_rate": every}
    full = sweep(problem, OPTIMIZERS[optimizer], axes, steps=grid["steps"], curve_points=0, **options)
    score = full.scores().reshape(-1, settings["seeds"]).mean(axis=1)
    start, best = float(full.lanes["initial_loss"].mean()), score[np.isin(every, rates.astype(np.float32))].min()
    regrets = dict(zip(every, (score - best) / (start - best), strict=True))
    regret = lambda rates: np.array([regrets.get(float(np.float32(rate)), np.inf) for rate in rates])
    return FinderCase(
        name, optimizer, test, suggestions, {r: regret(s) for r, s in suggestions.items()}, rates, regret(rates)
    )


@functools.cache  # compiled programs belong to one problem
def _problem(name: str) -> Problem:
    return suite.MINIBATCH_PROBLEMS[name]()


def plot(result: FinderComparison) -> dict[str, Figure]:
    """Suggestions on a real and on noisy curves; their distance from the best learning rate, and their regret."""
    figure = Figure(figsize=(13, 7.2), layout="constrained")
    grid = figure.add_gridspec(2, 3, width_ratios=(1.1, 1, 1))
    _draw_real(figure.add_subplot(grid[0, 0]), result.cases[-len(result.settings["optimizers"])])
    _draw_noisy(figure.add_subplot(grid[1, 0]), result)
    distance = figure.add_subplot(grid[:, 1])
    cost = figure.add_subplot(grid[:, 2], sharey=distance)
    rules = list(result.cases[0].suggestions)
    for number, rule in enumerate(rules):
        rows = np.arange(len(result.cases)) + 0.3 * (number / (len(rules) - 1) - 0.5)
        look: dict[str, Any] = plots.style.series(number) | {"label": rule, "linestyle": "none", "markersize": 6}
        look |= {"markeredgecolor": INK, "markeredgewidth": 0.5}
        distance.plot([case.distance[rule] for case in result.cases], rows, **look)
        cost.plot(np.clip([case.regrets[rule] for case in result.cases], LOWEST, HIGHEST), rows, **look)
    distance.axvline(0, color=INK, linewidth=1)
    distance.set(xlabel="$\\log_{10}$ (suggestion / best of the sweep)", ylim=(len(result.cases) - 0.5, -0.5))
    distance.set_yticks(
        range(len(result.cases)), [f"{c.problem}, {c.optimizer}" for c in result.cases], fontsize="small"
    )
    cost.set(xscale="log", xlim=(LOWEST / 1.5, HIGHEST * 1.5), xlabel="share of the decrease missed (∞: diverged)")
    cost.set_xticks([LOWEST, 1e-2, 1e-1, 1, HIGHEST], ["≤.001", "0.01", "0.1", "1", "∞"])
    cost.tick_params(labelleft=False)
    for ax in (distance, cost):
        for row in range(len(result.cases)):
            ax.axhspan(row - 0.3, row + 0.3, color="0.95", zorder=0)
    figure.legend(
        *distance.get_legend_handles_labels(), loc="outside lower right", ncols=7, frameon=False, fontsize="small"
    )
    return {"lr_range_test": plots.label_panels(figure)}


def claims(result: FinderComparison) -> list[Claim]:
    """Effect of noise on the rules of Lightning and gdkit, and the value of trying learning rates."""
    decades = {rule: float(np.median(np.log10(rates))) for rule, rates in result.noisy.items()}
    steepest = result.settings["noisy"]["steepest"]
    cases, others = result.cases, [rule for rule in result.cases[0].suggestions if rule not in (SLOPE, TRIED)]
    median = lambda rule: float(np.median([case.regrets[rule] for case in cases]))
    return [
        Claim.theory("noisy curves: median log10 of the suggestion by the slope against the learning rate", NOISE,
              -7.0, 0.5, decades[LIGHTNING]),
        Claim.theory("noisy curves: median log10 of the suggestion by the slope against its logarithm",
              "the curve's steepest point", float(np.log10(steepest)), 0.1, decades[SLOPE]),
        Claim.check("share of cases in which Lightning's suggestion is less than a hundredth of the best", NOISE,
              1.0, 0.0, float(np.mean([case.distance[LIGHTNING] < -2 for case in cases]))),
        *(Claim.theory(f"stability limit of sgd on the {case.problem} over 2/λ", "2/λ", 1.0, 0.03,
          _limit_over_theory(case)) for case in cases if (case.problem, case.optimizer) == ("quadratic", "sgd")),
        Claim.check("share of cases in which the learning rate chosen by trying is below the stability limit",
              "a check",
              1.0, 0.0, float(np.mean([c.test.limit is None or c.test.best <= c.test.limit.value for c in cases]))),
        Claim.check("share of the rules of fastai and Lightning with a larger median regret than trying",
              "a curve is one short run", 1.0, 0.0, float(np.mean([median(TRIED) < median(rule) for rule in others]))),
    ]  # fmt: skip


def _limit_over_theory(case: FinderCase) -> float:
    problem = _problem(case.problem)
    top = float(sharpness(problem, problem.init(jax.random.key(0))).values[0])
    return case.test.limit.value / (2 / top) if case.test.limit is not None else float("nan")


def _draw_real(ax: Axes, case: FinderCase) -> None:
    test, shown = case.test, slice(0, len(case.test.smooth))
    for loss in test.loss:
        ax.plot(test.learning_rate, loss, color="0.8", linewidth=0.6)
    ax.plot(test.learning_rate[shown], test.smooth, color=INK, linewidth=2.4, label="median, smoothed")
    marks = {LIGHTNING: np.median(case.suggestions[LIGHTNING]), SLOPE: case.suggestions[SLOPE][0], "best": case.best}
    if test.limit is not None:
        marks["limit"] = test.limit.value
    top = 1.1 * float(np.nanmax(test.smooth))
    for (name, rate), style in zip(marks.items(), ("--", "-.", "-", ":"), strict=False):
        ax.axvline(rate, **THEORY_LINE, linestyle=style, label=name)
    ax.legend(frameon=False, fontsize="small", loc="lower center")
    ax.set(xscale="log", ylim=(0, top), xlabel="learning rate, growing within the run", ylabel="loss")
    ax.set_title(f"{case.problem}, {case.optimizer}: {len(test.loss)} seeds", fontsize="medium")


def _draw_noisy(ax: Axes, result: FinderComparison) -> None:
    noisy = result.settings["noisy"]
    bins = np.geomspace(noisy["from"], noisy["to"], 65).tolist()
    for number, (rule, rates) in enumerate(result.noisy.items()):
        ax.hist(rates, bins, label=rule, color=plots.SERIES_COLORS[1 - number], hatch=("////", "")[number],
                edgecolor=INK, linewidth=0.4)  # fmt: skip
    ax.axvline(noisy["steepest"], color=INK, linewidth=1, linestyle=":", label="steepest")
    ax.set(xscale="log", xlabel="suggested learning rate", ylabel=f"number of {noisy['curves']} noisy curves")
    ax.legend(frameon=False, fontsize="small", loc="upper center")
