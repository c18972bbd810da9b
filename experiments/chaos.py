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

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.claims import Claim
from experiments.settings import complete
from gdkit import Problem, Regime, SweepResult, lyapunov_exponent, plots, sgd, sweep
from gdkit.errors import bad_value
from gdkit.types import Array, Context, Info, Monitor, State

DEFAULTS: dict[str, Any] = {
    "start": 0.5,
    "learning_rates": {"to": 2.02, "count": 4000},  # from the first of so many equal parts on
    "steps": 4000,
    "burn_in": 1000,  # steps before the exponent is averaged
    "doublings": {"count": 6, "learning_rates": 256, "steps": 40000},  # the grid around each
}
CURVATURE = 2.0
KEPT = 100  # iterates
DOUBLINGS = (2 / CURVATURE, 5**0.5 - 1)  # those with a closed form
JOINED, LAST = 1.5 * 3**0.5 - 1, 4 / CURVATURE  # where both wells are visited, and where divergence begins
FEIGENBAUM = 4.669201609
SAME = 1e-4  # iterates no farther apart are one point of a cycle
FORMULA: dict[str, Any] = {"color": plots.SERIES_COLORS[1], "linewidth": 1.3}
BORDER: dict[str, Any] = {"color": "0.15", "linewidth": 1.0, "linestyle": (0, (1, 1.2))}


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
        diverged = self.runs.verdict.regime == Regime.DIVERGED
        return np.where(diverged, np.nan, self.runs.lanes["lyapunov_exponent"].values)

    @property
    def ratios(self) -> np.ndarray:
        """Each interval between doublings over the next, (count − 2,)."""
        intervals = np.diff(self.doublings)
        return intervals[:-1] / intervals[1:]

    def __str__(self) -> str:
        head = f"{'period':>9} | {'from η':>9} | {'closed form':>11} | {'interval over the next':>22}"
        forms = [f"{value:11.7f}" for value in DOUBLINGS] + [" " * 11] * len(self.doublings)
        ratios = [" " * 22, *(f"{r:22.4f}" for r in self.ratios), " " * 22]
        rows = [
            f"{2**k:4} → {2 ** (k + 1):<2} | {value:9.7f} | {form} | {ratio}"
            for k, (value, form, ratio) in enumerate(zip(self.doublings, forms, ratios, strict=False))
        ]
        return "\n".join([head, "-" * len(head), *rows])


@functools.cache  # compiled programs belong to one problem
def double_well(start: float) -> Problem:
    """¼ (x² − 1)² of a scalar x: minima 0 at ±1, of curvature 2."""
    return Problem(lambda x: jnp.square(jnp.square(x) - 1) / 4, start, optimum=0.0, name="double well")


@functools.cache
def last_iterates(count: int) -> Monitor:
    """A monitor of a scalar run's last params, oldest first: ``iterates``, (count,)."""

    def init(state: State) -> tuple[Array, Array]:
        return jnp.full((count,), jnp.nan, jnp.result_type(state.params)), jnp.int32(0)

    def update(m: tuple[Array, Array], before: State, after: State, info: Info, context: Context):
        kept = jax.lax.dynamic_update_index_in_dim(m[0], before.params, context.t % count, 0)
        return kept, context.t + 1

    def read(m: tuple[Array, Array]) -> dict[str, Array]:
        return {"iterates": jnp.roll(m[0], -m[1])}

    return Monitor(init, update, read)


def run(settings: Mapping[str, Any]) -> Chaos:
    """Learning rates from 0 past 4/λ, then finer ones around each doubling, one after the other."""
    chosen = complete(settings, DEFAULTS, free=("start",))
    _check(chosen)
    problem, grid, fine = double_well(chosen["start"]), chosen["learning_rates"], chosen["doublings"]
    watched = [last_iterates(KEPT), lyapunov_exponent(problem, sgd, burn_in=chosen["burn_in"])]
    look = functools.partial(sweep, problem, sgd, monitors=watched, curve_points=0)
    rates = np.union1d(np.linspace(0, grid["to"], grid["count"] + 1)[1:], [*DOUBLINGS, LAST])
    runs = look({"learning_rate": rates}, steps=chosen["steps"])
    found: list[float] = []
    for number in range(fine["count"]):
        window = np.linspace(*_where(found, number), fine["learning_rates"])
        lanes = look({"learning_rate": window}, steps=fine["steps"]).lanes
        found.append(
            float(window[np.argmax(lanes["lyapunov_exponent"].values)])
        )  # it touches 0 there, and is below around it
    return Chaos(chosen, runs, np.array(found))


def _check(chosen: Mapping[str, Any]) -> None:
    if chosen["burn_in"] >= chosen["steps"]:
        raise bad_value("settings.burn_in", chosen["burn_in"], "not below the steps", "Use fewer")
    if chosen["doublings"]["count"] < 3:
        raise bad_value("settings.doublings.count", chosen["doublings"]["count"], "no ratio", "Use 3 or more")
    if chosen["learning_rates"]["to"] <= LAST:
        to = chosen["learning_rates"]["to"]
        raise bad_value("settings.learning_rates.to", to, f"not above {LAST:g}, where divergence begins", "Use more")


def _where(found: list[float], number: int) -> tuple[float, float]:
    """Where the next doubling is looked for: near its closed form, or at a fourth to a sixth of the last interval."""
    if number < len(DOUBLINGS):
        return 0.96 * DOUBLINGS[number], 1.04 * DOUBLINGS[number]
    last = found[-1] - found[-2]
    return found[-1] + last / 6, found[-1] + last / 4


def periods(iterates: np.ndarray) -> np.ndarray:
    """The power of two after which each run repeats itself, infinite if there is none; (runs, iterates) -> (runs,)."""
    found = np.full(len(iterates), np.inf)
    for period in 2 ** np.arange(int(np.log2(iterates.shape[1] - 1)), -1, -1):
        found[np.abs(iterates[:, period:] - iterates[:, :-period]).max(axis=1) <= SAME] = period
    return found


def closed_form(rates: np.ndarray) -> np.ndarray:
    """The Lyapunov exponent up to the second doubling, NaN above it; like `rates`."""
    with np.errstate(divide="ignore"):
        fixed, cycle = np.log(np.abs(1 - CURVATURE * rates)), np.log(np.abs(9 - 2 * (1 + rates) ** 2)) / 2
    return np.select([rates <= DOUBLINGS[0], rates <= DOUBLINGS[1]], [fixed, cycle], np.nan)


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


def _draw_iterates(ax: Axes, result: Chaos) -> None:
    kept = result.runs.lanes["iterates"].values[np.isfinite(result.exponents)]
    rates = np.repeat(result.rates[np.isfinite(result.exponents)], KEPT)
    ax.plot(rates, kept.ravel(), ",", color="0.15", alpha=0.3, rasterized=True)
    ax.set(ylabel=f"x at the last {KEPT} steps", ylim=(-1.55, 1.55), xlim=(0, result.rates[-1]))
    ax.tick_params(labelbottom=False)
    names = ("$2/\\lambda$", "$\\sqrt{5}-1$", "both wells", "$4/\\lambda$")
    for value, name in zip((*DOUBLINGS, JOINED, LAST), names, strict=True):
        ax.axvline(value, **BORDER)
        place: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "ha": "center"}
        ax.annotate(name, (value, 1), (0, 4), fontsize="small", **place)


def _draw_exponents(ax: Axes, result: Chaos) -> None:
    marks: dict[str, Any] = {"linestyle": "none", "marker": ".", "markersize": 2, "rasterized": True}
    ax.axhline(0, color="0.75", linewidth=0.8, zorder=0)
    ax.plot(result.rates, result.exponents, color=plots.SERIES_COLORS[0], label="measured", **marks)
    ax.plot(result.rates, closed_form(result.rates), label="closed form", **FORMULA)
    ax.plot(LAST, np.log(3), "*", markersize=10, color=FORMULA["color"], markeredgecolor="0.15", label="log 3")
    for value in (*DOUBLINGS, JOINED, LAST):
        ax.axvline(value, **BORDER)
    ax.set(xlabel="learning rate $\\eta$", ylabel="Lyapunov exponent", ylim=(-2.6, 1.4))
    ax.legend(frameon=False, fontsize="small", loc="lower left", markerscale=1)


def _draw_intervals(ax: Axes, result: Chaos) -> None:
    intervals = np.diff(result.doublings)
    number = 1 + np.arange(intervals.size)
    line = intervals[-1] * FEIGENBAUM ** (intervals.size - number)
    ax.semilogy(number, line, label=f"ratio {FEIGENBAUM:.3f} (Feigenbaum)", **FORMULA)
    ax.semilogy(number, intervals, "o", color=plots.SERIES_COLORS[0], markeredgecolor="0.15", label="measured")
    for at, ratio in enumerate(result.ratios):
        middle = (number[at] + 0.5, (intervals[at] * intervals[at + 1]) ** 0.5)
        ax.annotate(f"÷ {ratio:.3f}", middle, (6, 4), textcoords="offset points", fontsize="small")
    ax.set(xlabel="doubling", ylabel="learning rates from a doubling to the next", xticks=number)
    ax.margins(x=0.3)
    ax.set_ylim(bottom=intervals[-1] / 4)  # room for the legend
    ax.legend(frameon=False, fontsize="small", loc="lower left")


def claims(result: Chaos) -> list[Claim]:
    """Closed forms and Feigenbaum's constant, against what was measured."""
    rates, exponents, spacing = result.rates, result.exponents, float(np.diff(result.rates).max())
    known = np.abs(rates[:, None] - np.array(DOUBLINGS)).min(axis=1) > 0  # at the doublings it is 0, reached slowly
    wrong = np.abs(np.exp(exponents) - np.exp(closed_form(rates)))  # the exponent itself is −∞ where a slope is 0
    error = lambda low, high: float(wrong[known & (rates > low) & (rates < high)].max())
    crossed = (result.runs.lanes["iterates"].values < 0).any(axis=1)
    point = FEIGENBAUM**2 * (1 / 4 - 1 / 6) / result.settings["doublings"]["learning_rates"]  # of a grid, in the ratio
    first, second = DOUBLINGS
    return [
        Claim("learning rate of the first doubling", "2/λ", first, 2e-3, float(result.doublings[0])),
        Claim("learning rate of the second", "(1 + η)² = 5, where the cycle's multiplier is −1", second, 2e-3,
              float(result.doublings[1])),
        *(Claim(f"Lyapunov exponent at η = {value:.4f}", "a multiplier of −1", 0.0, 0.01,
                float(exponents[rates == value].max())) for value in DOUBLINGS),
        Claim("growth of small changes a step, below 2/λ: largest error", "|1 − ηλ|", 0.0, 0.01, error(0, first)),
        Claim("and from there to the second doubling", "|9 − 2 (1 + η)²|^½", 0.0, 0.01, error(first, second)),
        Claim("share of runs of the period that is due, well between doublings", "2ᵏ after k doublings", 1.0, 0.0,
              _due(result)),
        Claim("the last ratio of an interval between doublings to the next", "Feigenbaum 1978", FEIGENBAUM,
              0.02 + 2 * point, float(result.ratios[-1])),
        Claim("greatest exponent up to the last doubling", "cycles that attract", 0.0, 0.01,
              float(exponents[rates <= result.doublings[-1]].max())),
        Claim("greatest exponent of all", "log 3, of Chebyshev's T₃ at 4/λ", float(np.log(3)), 0.03,
              float(np.nanmax(exponents))),
        Claim("first learning rate at which both wells are visited", "3√3/2 − 1", JOINED, 5 * spacing,
              float(rates[crossed & np.isfinite(exponents)].min(initial=np.inf))),
        Claim("where divergence begins", "4/λ", LAST, 2 * spacing, float(result.runs.edge("learning_rate")["median"])),
    ]  # fmt: skip


def _due(result: Chaos) -> float:
    """The share of runs that have period 2ᵏ, of those in the middle eight tenths of an interval after k doublings."""
    ends, period = np.append(0, result.doublings), periods(result.runs.lanes["iterates"].values)
    place = np.searchsorted(ends, result.rates) - 1
    inside = place < len(result.doublings)
    low, width = ends[place[inside]], np.diff(ends)[place[inside]]
    middle = np.abs((result.rates[inside] - low) / width - 0.5) < 0.4
    return float(np.mean(period[inside][middle] == 2.0 ** place[inside][middle]))
