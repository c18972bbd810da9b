"""Above 2/λ gradient descent need not diverge: on a quartic it goes through period doublings into chaos.

On L(x) = ¼ (x² − 1)² a step is the cubic map x → (1 + η) x − η x³, and the curvature at the minimum x = 1 is λ = 2.
There the multiplier is 1 − ηλ. At η = 2/λ = 1 it is −1, and a cycle of two appears: xy = 1/η and x² + y² = 1 + 1/η
solve it, so its multiplier is f'(x) f'(y) = 9 − 2 (1 + η)², which is −1 at η = √5 − 1. The doublings continue, and the
intervals between them shrink by Feigenbaum's 4.669, as in every such map. Chaos follows: first in one well; from η =
3√3/2 − 1, where the largest value is mapped to the maximum between the wells, in both; and at η = 4/λ the map is
Chebyshev's polynomial T₃, with exponent log 3. Above, runs diverge.
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.analysis import period_doubling as theory
from experiments.common.claims import Claim
from experiments.common.drawing import BORDER_LINE, INK, THEORY_LINE, draw_borders
from experiments.common.settings import complete_settings
from experiments.common.tables import format_table
from gdkit import Regime, SweepResult, lyapunov_exponent, plots, sgd, sweep
from gdkit.errors import bad_value

DEFAULTS: dict[str, Any] = {
    "start": 0.5,
    "learning_rates": {"to": 2.02, "count": 4000},  # equally spaced, without 0
    "steps": 4000,
    "burn_in": 1000,  # steps before the exponent is averaged
    "doublings": {"count": 6, "learning_rates": 256, "steps": 40000},  # of the grid around each doubling
}
THEORY: dict[str, Any] = THEORY_LINE | {"color": plots.SERIES_COLORS[1]}


class Chaos(NamedTuple):
    """Result of the study."""

    settings: dict[str, Any]
    runs: SweepResult
    doublings: np.ndarray  # (count,) learning rates

    @property
    def rates(self) -> np.ndarray:
        """Learning rates of the runs, (lanes,)."""
        return self.runs.lanes["learning_rate"].values

    @property
    def exponents(self) -> np.ndarray:
        """Lyapunov exponents of the runs, NaN where they diverge, (lanes,)."""
        diverged = self.runs.lane_regimes == Regime.DIVERGED
        return np.where(diverged, np.nan, self.runs.lanes["lyapunov_exponent"].values)

    @property
    def ratios(self) -> np.ndarray:
        """Each interval between doublings over the next, (count − 2,)."""
        intervals = np.diff(self.doublings)
        return intervals[:-1] / intervals[1:]

    def __str__(self) -> str:
        blank = [""] * len(self.doublings)
        return format_table({
            "period": ("", [f"{2**k} → {2 ** (k + 1)}" for k in range(len(self.doublings))]),
            "from η": (".7f", self.doublings),
            "closed form": (">9", [*(f"{value:.7f}" for value in theory.DOUBLINGS), *blank][: len(blank)]),
            "interval over the next": (">7", ["", *(f"{ratio:.4f}" for ratio in self.ratios), ""]),
        })  # fmt: skip


def run(settings: Mapping[str, Any]) -> Chaos:
    """Learning rates from 0 to above 4/λ, then a finer grid around each doubling in turn."""
    settings = complete_settings(settings, DEFAULTS, signed=("start",))
    _check(settings)
    problem, grid, fine = theory.double_well(settings["start"]), settings["learning_rates"], settings["doublings"]
    monitors = [theory.last_iterates(theory.ITERATES), lyapunov_exponent(problem, sgd, burn_in=settings["burn_in"])]
    measure = functools.partial(sweep, problem, sgd, monitors=monitors, curve_points=0)
    rates = np.union1d(np.linspace(0, grid["to"], grid["count"] + 1)[1:], [*theory.DOUBLINGS, theory.DIVERGENCE])
    runs = measure({"learning_rate": rates}, steps=settings["steps"])
    doublings: list[float] = []
    for _ in range(fine["count"]):
        near = np.linspace(*theory.doubling_window(doublings), fine["learning_rates"])
        lanes = measure({"learning_rate": near}, steps=fine["steps"]).lanes
        largest = np.argmax(lanes["lyapunov_exponent"].values)  # 0 at a doubling, negative around it
        doublings.append(float(near[largest]))
    return Chaos(settings, runs, np.array(doublings))


def _check(settings: Mapping[str, Any]) -> None:
    if settings["burn_in"] >= settings["steps"]:
        raise bad_value("settings.burn_in", settings["burn_in"], "not below the steps", "Use fewer")
    if settings["doublings"]["count"] < 3:
        raise bad_value(
            "settings.doublings.count",
            settings["doublings"]["count"],
            "gives no ratio",
            "Use 3 or more",
        )
    if settings["learning_rates"]["to"] <= theory.DIVERGENCE:
        why = f"not above {theory.DIVERGENCE:g}, where divergence begins"
        raise bad_value("settings.learning_rates.to", settings["learning_rates"]["to"], why, "Use more")


def plot(result: Chaos) -> dict[str, Figure]:
    """The last iterates, the exponent below them, and the intervals between doublings beside them."""
    figure = Figure(figsize=(9.6, 6.0), layout="constrained")
    grid = figure.add_gridspec(2, 2, width_ratios=(3, 1), height_ratios=(1.5, 1))
    above = figure.add_subplot(grid[0, 0])
    below = figure.add_subplot(grid[1, 0], sharex=above)
    _draw_iterates(above, result)
    _draw_exponents(below, result)
    _draw_intervals(figure.add_subplot(grid[:, 1]), result)
    return {"chaos": plots.label_panels(figure)}


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
    width = lambda k: (
        float(np.ptp(theory.doubling_window(list(result.doublings[:k])))) / (grid - 1)
    )  # between grid points
    length = result.settings["steps"] - result.settings["burn_in"]
    slow = 1.5 * np.log(result.settings["steps"] / result.settings["burn_in"]) / length  # the exponent at a doubling
    return [
        Claim.theory("learning rate of the first doubling", "2/λ", first, width(0), float(result.doublings[0])),
        Claim.theory("learning rate of the second doubling", "(1 + η)² = 5, where the cycle's multiplier is −1",
              second, width(1), float(result.doublings[1])),
        *(Claim.theory(f"Lyapunov exponent at η = {value:.4f}", "−(3/2) log(T/B)/(T − B) from step B to T: "
                "distances shrink as t^(−1/2)", -slow, 0.25 * slow,
                float(exponents[rates == value].max())) for value in theory.DOUBLINGS),
        Claim.theory("below 2/λ: largest error of the growth of a perturbation per step", "|1 − ηλ|", 0.0, slow,
              error(0, first)),
        Claim.theory("from there to the second doubling: the same error", "|9 − 2 (1 + η)²|^½", 0.0, slow,
              error(first, second)),
        Claim.theory("share of runs with the expected period, well between doublings", "2ᵏ after k doublings", 1.0, 0.0,
              theory.share_with_expected_period(rates, result.runs.lanes["iterates"].values, result.doublings)),
        Claim.published("last ratio of an interval between doublings to the next", "Feigenbaum 1978", theory.FEIGENBAUM,
              0.005 + 2 * point, float(result.ratios[-1])),
        Claim.theory("largest exponent up to the last doubling", "attracting cycles", 0.0, slow,
              float(exponents[rates <= result.doublings[-1]].max())),
        Claim.theory("largest exponent of all", "log 3, of Chebyshev's T₃ at 4/λ", float(np.log(3)), 3 / length,
              float(np.nanmax(exponents))),
        Claim.theory("first learning rate at which both wells are visited", "3√3/2 − 1", theory.BOTH_WELLS, 5 * spacing,
              float(rates[crossed & np.isfinite(exponents)].min(initial=np.inf))),
        Claim.theory("learning rate at which divergence begins", "4/λ", theory.DIVERGENCE, 2 * spacing,
              float(result.runs.edge("learning_rate")["median"])),
    ]  # fmt: skip


def _draw_iterates(ax: Axes, result: Chaos) -> None:
    iterates = result.runs.lanes["iterates"].values[np.isfinite(result.exponents)]
    rates = np.repeat(result.rates[np.isfinite(result.exponents)], theory.ITERATES)
    ax.plot(rates, iterates.ravel(), ",", color=INK, alpha=0.3, rasterized=True)
    ax.set(ylabel=f"x at the last {theory.ITERATES} steps", ylim=(-1.55, 1.55), xlim=(0, result.rates[-1]))
    ax.tick_params(labelbottom=False)
    draw_borders(ax, theory.BORDERS, above=True)


def _draw_exponents(ax: Axes, result: Chaos) -> None:
    marks: dict[str, Any] = {"linestyle": "none", "marker": ".", "markersize": 2, "rasterized": True}
    ax.axhline(0, color="0.75", linewidth=0.8, zorder=0)
    ax.plot(result.rates, result.exponents, color=plots.SERIES_COLORS[0], label="measured", **marks)
    ax.plot(result.rates, theory.closed_form(result.rates), label="closed form", **THEORY)
    ax.plot(theory.DIVERGENCE, np.log(3), "*", markersize=10, color=THEORY["color"], markeredgecolor=INK, label="log 3")
    for value in theory.BORDERS.values():
        ax.axvline(value, **BORDER_LINE)
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
    ax.set(xlabel="doubling", ylabel="interval of learning rates to the next doubling", xticks=number)
    ax.set_xlim(0.2, intervals.size + 1.8)
    ax.set_ylim(bottom=intervals[-1] / 4)  # room for the legend
    ax.legend(frameon=False, fontsize="small", loc="lower left")
