"""Past 2/λ gradient descent need not diverge: on a quartic it doubles its period again and again, into chaos.

On L(x) = ¼ (x² − 1)² a step is the cubic map x → (1 + η) x − η x³, and the curvature at the minimum x = 1 is λ = 2.
There the multiplier is 1 − ηλ. At η = 2/λ = 1 it is −1, and a cycle of two takes over: xy = 1/η and x² + y² = 1 + 1/η
solve it, so that its multiplier is f'(x) f'(y) = 9 − 2 (1 + η)², which is −1 at η = √5 − 1. The doublings go on, and
the intervals between them shrink by Feigenbaum's 4.669, as they do in every such map. Then comes chaos: first in one
well; from η = 3√3/2 − 1 on, where the greatest value is mapped to the top between the wells, in both; and at η = 4/λ
the map is Chebyshev's polynomial T₃, of exponent log 3. Above, runs diverge.
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.analysis import period_doubling as theory
from experiments.common.claims import Claim
from experiments.common.drawing import BORDER, FORMULA, INK, borders
from experiments.common.printing import table
from experiments.common.settings import complete
from gdkit import Regime, SweepResult, lyapunov_exponent, plots, sgd, sweep
from gdkit.errors import bad_value

DEFAULTS: dict[str, Any] = {
    "start": 0.5,
    "learning_rates": {"to": 2.02, "count": 4000},  # from the first of so many equal parts on
    "steps": 4000,
    "burn_in": 1000,  # steps before the exponent is averaged
    "doublings": {"count": 6, "learning_rates": 256, "steps": 40000},  # the grid around each
}
THEORY: dict[str, Any] = FORMULA | {"color": plots.SERIES_COLORS[1]}


class Chaos(NamedTuple):
    """What the study found."""

    settings: dict[str, Any]
    runs: SweepResult
    doublings: np.ndarray  # (count,) learning rates

    @property
    def rates(self) -> np.ndarray:
        """Learning rates of the runs, (lanes,)."""
        return self.runs.lanes["learning_rate"].values

    @property
    def exponents(self) -> np.ndarray:
        """Their Lyapunov exponents, NaN where they diverge, (lanes,)."""
        diverged = self.runs.lane_regimes == Regime.DIVERGED
        return np.where(diverged, np.nan, self.runs.lanes["lyapunov_exponent"].values)

    @property
    def ratios(self) -> np.ndarray:
        """Each interval between doublings over the next, (count − 2,)."""
        intervals = np.diff(self.doublings)
        return intervals[:-1] / intervals[1:]

    def __str__(self) -> str:
        blank = [""] * len(self.doublings)
        return table({
            "period": ("", [f"{2**k} → {2 ** (k + 1)}" for k in range(len(self.doublings))]),
            "from η": (".7f", self.doublings),
            "closed form": (">9", [*(f"{value:.7f}" for value in theory.DOUBLINGS), *blank][: len(blank)]),
            "interval over the next": (">7", ["", *(f"{ratio:.4f}" for ratio in self.ratios), ""]),
        })  # fmt: skip


def run(settings: Mapping[str, Any]) -> Chaos:
    """Learning rates from 0 past 4/λ, then finer ones around each doubling, one after the other."""
    chosen = complete(settings, DEFAULTS, free=("start",))
    _check(chosen)
    problem, grid, fine = theory.double_well(chosen["start"]), chosen["learning_rates"], chosen["doublings"]
    watched = [theory.last_iterates(theory.KEPT), lyapunov_exponent(problem, sgd, burn_in=chosen["burn_in"])]
    look = functools.partial(sweep, problem, sgd, monitors=watched, curve_points=0)
    rates = np.union1d(np.linspace(0, grid["to"], grid["count"] + 1)[1:], [*theory.DOUBLINGS, theory.LAST])
    runs = look({"learning_rate": rates}, steps=chosen["steps"])
    found: list[float] = []
    for _ in range(fine["count"]):
        near = np.linspace(*theory.window(found), fine["learning_rates"])
        lanes = look({"learning_rate": near}, steps=fine["steps"]).lanes
        touching = np.argmax(lanes["lyapunov_exponent"].values)  # 0 at a doubling, below it around
        found.append(float(near[touching]))
    return Chaos(chosen, runs, np.array(found))


def _check(chosen: Mapping[str, Any]) -> None:
    if chosen["burn_in"] >= chosen["steps"]:
        raise bad_value("settings.burn_in", chosen["burn_in"], "not below the steps", "Use fewer")
    if chosen["doublings"]["count"] < 3:
        raise bad_value("settings.doublings.count", chosen["doublings"]["count"], "no ratio", "Use 3 or more")
    if chosen["learning_rates"]["to"] <= theory.LAST:
        why = f"not above {theory.LAST:g}, where divergence begins"
        raise bad_value("settings.learning_rates.to", chosen["learning_rates"]["to"], why, "Use more")


def plot(result: Chaos) -> dict[str, Figure]:
    """One figure: the last iterates, below them the exponent, and beside them the intervals between doublings."""
    figure = Figure(figsize=(11, 6.2), layout="constrained")
    grid = figure.add_gridspec(2, 2, width_ratios=(3, 1), height_ratios=(1.5, 1))
    above = figure.add_subplot(grid[0, 0])
    below = figure.add_subplot(grid[1, 0], sharex=above)
    _draw_iterates(above, result)
    _draw_exponents(below, result)
    _draw_intervals(figure.add_subplot(grid[:, 1]), result)
    return {"chaos": figure}


def claims(result: Chaos) -> list[Claim]:
    """Closed forms and Feigenbaum's constant, against what was measured."""
    rates, exponents, spacing = result.rates, result.exponents, float(np.diff(result.rates).max())
    known = ~np.isin(rates, theory.DOUBLINGS)  # there it is 0, reached slowly
    wrong = np.abs(np.exp(exponents) - np.exp(theory.closed_form(rates)))  # the exponent is −∞ where a slope is 0
    error = lambda low, high: float(wrong[known & (rates > low) & (rates < high)].max())
    crossed = (result.runs.lanes["iterates"].values < 0).any(axis=1)
    grid = result.settings["doublings"]["learning_rates"]
    point = theory.FEIGENBAUM**2 * (1 / 4 - 1 / 6) / grid  # what one of its points is in the ratio
    first, second = theory.DOUBLINGS
    return [
        Claim("learning rate of the first doubling", "2/λ", first, 2e-3, float(result.doublings[0])),
        Claim("learning rate of the second", "(1 + η)² = 5, where the cycle's multiplier is −1", second, 2e-3,
              float(result.doublings[1])),
        *(Claim(f"Lyapunov exponent at η = {value:.4f}", "a multiplier of −1", 0.0, 0.01,
                float(exponents[rates == value].max())) for value in theory.DOUBLINGS),
        Claim("growth of small changes a step, below 2/λ: largest error", "|1 − ηλ|", 0.0, 0.01, error(0, first)),
        Claim("and from there to the second doubling", "|9 − 2 (1 + η)²|^½", 0.0, 0.01, error(first, second)),
        Claim("share of runs of the period that is due, well between doublings", "2ᵏ after k doublings", 1.0, 0.0,
              theory.share_due(rates, result.runs.lanes["iterates"].values, result.doublings)),
        Claim("the last ratio of an interval between doublings to the next", "Feigenbaum 1978", theory.FEIGENBAUM,
              0.02 + 2 * point, float(result.ratios[-1])),
        Claim("greatest exponent up to the last doubling", "cycles that attract", 0.0, 0.01,
              float(exponents[rates <= result.doublings[-1]].max())),
        Claim("greatest exponent of all", "log 3, of Chebyshev's T₃ at 4/λ", float(np.log(3)), 0.03,
              float(np.nanmax(exponents))),
        Claim("first learning rate at which both wells are visited", "3√3/2 − 1", theory.JOINED, 5 * spacing,
              float(rates[crossed & np.isfinite(exponents)].min(initial=np.inf))),
        Claim("where divergence begins", "4/λ", theory.LAST, 2 * spacing,
              float(result.runs.edge("learning_rate")["median"])),
    ]  # fmt: skip


def _draw_iterates(ax: Axes, result: Chaos) -> None:
    kept = result.runs.lanes["iterates"].values[np.isfinite(result.exponents)]
    rates = np.repeat(result.rates[np.isfinite(result.exponents)], theory.KEPT)
    ax.plot(rates, kept.ravel(), ",", color=INK, alpha=0.3, rasterized=True)
    ax.set(ylabel=f"x at the last {theory.KEPT} steps", ylim=(-1.55, 1.55), xlim=(0, result.rates[-1]))
    ax.tick_params(labelbottom=False)
    borders(ax, theory.BORDERS, above=True)


def _draw_exponents(ax: Axes, result: Chaos) -> None:
    marks: dict[str, Any] = {"linestyle": "none", "marker": ".", "markersize": 2, "rasterized": True}
    ax.axhline(0, color="0.75", linewidth=0.8, zorder=0)
    ax.plot(result.rates, result.exponents, color=plots.SERIES_COLORS[0], label="measured", **marks)
    ax.plot(result.rates, theory.closed_form(result.rates), label="closed form", **THEORY)
    ax.plot(theory.LAST, np.log(3), "*", markersize=10, color=THEORY["color"], markeredgecolor=INK, label="log 3")
    for value in theory.BORDERS.values():
        ax.axvline(value, **BORDER)
    ax.set(xlabel="learning rate $\\eta$", ylabel="Lyapunov exponent", ylim=(-2.6, 1.4))
    ax.legend(frameon=False, fontsize="small", loc="lower left", markerscale=1)


def _draw_intervals(ax: Axes, result: Chaos) -> None:
    intervals = np.diff(result.doublings)
    number = 1 + np.arange(intervals.size)
    line = intervals[-1] * theory.FEIGENBAUM ** (intervals.size - number)
    ax.semilogy(number, line, label=f"ratio {theory.FEIGENBAUM:.3f} (Feigenbaum)", **THEORY)
    ax.semilogy(number, intervals, "o", color=plots.SERIES_COLORS[0], markeredgecolor=INK, label="measured")
    for at, ratio in enumerate(result.ratios):
        middle = (number[at] + 0.5, (intervals[at] * intervals[at + 1]) ** 0.5)
        ax.annotate(f"÷ {ratio:.3f}", middle, (6, 4), textcoords="offset points", fontsize="small")
    ax.set(xlabel="doubling", ylabel="learning rates from a doubling to the next", xticks=number)
    ax.margins(x=0.3)
    ax.set_ylim(bottom=intervals[-1] / 4)  # room for the legend
    ax.legend(frameon=False, fontsize="small", loc="lower left")
