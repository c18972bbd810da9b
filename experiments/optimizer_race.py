"""Eight optimizers over a suite of problems, at tuned and at default learning rates, by performance profiles.

Time is measured in steps until the gap (L − L*) / (L₀ − L*) is at most a tolerance, where L* is the known optimum or,
if there is none, the lowest loss that any optimizer reached at any learning rate (the convergence test of Moré and
Wild, Benchmarking derivative-free optimization algorithms, 2009). The time of a run that does not reach it is infinite.
The result is the median over paired seeds, each with its own start, so a problem is solved if most seeds solve it. The
tuned learning rate is the best of a sweep; the default is that of Keras's documentation, since optax has none: 0.01 for
gradient descent with and without momentum, 0.001 for all others. Both profiles are relative to the fastest of all on
each problem (Dolan and Moré 2002); their score is AlgoPerf's (Dahl et al. 2023, arXiv 2306.07179).
"""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import optax
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.analysis.performance_profiles import (
    LARGEST_RATIO,
    algoperf_score,
    performance_profile,
    performance_ratios,
)
from experiments.common.claims import Claim
from experiments.common.optimizers import OPTIMIZER_FACTORIES
from experiments.common.settings import complete_settings, geometric_grid
from experiments.common.tables import format_table
from experiments.problems import suite
from gdkit import paired, plots, problems, sgd, sweep
from gdkit.errors import unknown_name

DEFAULTS: dict[str, Any] = {
    "kinds": list(suite.KINDS),  # of problems
    "learning_rates": {"from": 1e-5, "to": 100.0, "count": 22},
    "seeds": 3,
    "key": 0,  # of all random numbers
    "spread": 0.1,  # of the starts
    "steps": 3000,
    "tolerance": {"known": 1e-4, "unknown": 1e-2},  # of the gap, by whether the optimum is known
    "conditions": [30.0, 100.0, 300.0, 1000.0],  # of the quadratics that compare momentum with theory
}
NAMES = ("sgd", "momentum", "nesterov", "rmsprop", "adagrad", "adam", "nadam")
LION = functools.partial(optax.lion, weight_decay=0.0)  # like the others
OPTIMIZERS: dict[str, Any] = {name: OPTIMIZER_FACTORIES[name] for name in NAMES} | {"lion": LION}
DEFAULT_RATES = np.array([0.01, 0.01, 0.01, *[0.001] * 5])
POLYAK = "Polyak, Some methods of speeding up the convergence of iteration methods, 1964"
SUITS = "0.001 is a step length for adam, 0.01 an inverse curvature for gradient descent"
TUNED, DEFAULT = "tuned", "default"
COLORS = (*plots.SERIES_COLORS, "0.5")
STYLES: Any = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)), (0, (9, 1)), (0, (4, 1, 1, 1)), (0, (1, 1)))


class Race(NamedTuple):
    """Result of the study."""

    settings: dict[str, Any]
    problems: tuple[str, ...]
    kinds: np.ndarray  # (problems,) of str
    rates: np.ndarray  # (rates,)
    steps: np.ndarray  # (optimizers, problems, rates), to the target; median over seeds, infinite where not reached
    quadratic_steps: np.ndarray  # (2, conditions), of gradient descent and heavy ball, each at theory's best

    @property
    def names(self) -> list[str]:
        """Names of the optimizers."""
        return list(OPTIMIZERS)

    @property
    def times(self) -> dict[str, np.ndarray]:
        """Steps at the tuned and at the default learning rates, each (optimizers, problems)."""
        default = np.argmin(np.abs(np.log(self.rates / DEFAULT_RATES[:, None])), axis=1)
        return {TUNED: self.steps.min(axis=2), DEFAULT: self.steps[np.arange(len(default)), :, default]}

    @property
    def ratios(self) -> dict[str, np.ndarray]:
        """The same relative to the fastest of all."""
        both = performance_ratios(np.concatenate(list(self.times.values())))
        return dict(zip(self.times, np.split(both, 2), strict=True))

    def __str__(self) -> str:
        score, time = ({name: values[name] for name in (TUNED, DEFAULT)} for values in (self.ratios, self.times))
        return f"{len(self.problems)} problems\n" + format_table({
            "optimizer": ("", OPTIMIZERS),
            **{f"score, {name}": (".2f", algoperf_score(ratio)) for name, ratio in score.items()},
            **{f"solved, {name}": (".2f", np.isfinite(steps).mean(axis=1)) for name, steps in time.items()},
        })  # fmt: skip


def run(settings: Mapping[str, Any]) -> Race:
    """Every optimizer at every learning rate on every problem, and momentum at theory's best on quadratics."""
    settings = complete_settings(settings, DEFAULTS, signed=("key",))
    for kind in settings["kinds"]:
        if kind not in suite.KINDS:
            raise unknown_name("settings.kinds", kind, suite.KINDS)
    rates, defaults = geometric_grid(settings["learning_rates"]), np.unique(DEFAULT_RATES)
    rates = np.sort(np.append(rates[np.abs(np.log(rates / defaults[:, None])).min(axis=0) > 1e-6], defaults))
    families = [family for family in suite.problem_families(settings["spread"]) if family.kind in settings["kinds"]]
    axes = {"optimizer": OPTIMIZERS, "learning_rate": rates}
    results = [_steps(settings, family.problem, None, axes | dict(family.axis)) for family in families]
    order = ("optimizer", ..., "learning_rate")
    steps = [part.transpose(*order).values.reshape(len(OPTIMIZERS), -1, len(rates)) for part in results]
    names = tuple(name for family in families for name in family.names)
    kinds = np.array([family.kind for family in families for _ in family.names])
    return Race(settings, names, kinds, rates, np.concatenate(steps, axis=1), _quadratic_steps(settings))


def _steps(settings: Mapping[str, Any], problem: Any, optimizer: Any, axes: Mapping[str, Any]) -> xr.DataArray:
    """Steps to the target, the median over seeds, for every point of `axes`."""
    steps = settings["steps"]
    every = math.ceil(steps * (1 + math.log(max(10_000 / steps, 1)))) + 8  # enough curve points to record every step
    options: dict[str, Any] = {"steps": steps, "seeds": settings["seeds"], "key": settings["key"]}
    data = sweep(problem, optimizer, axes, **options, statistics="ends", curve_points=every).data
    tolerance = settings["tolerance"]["known" if data.attrs["optimum_known"] else "unknown"]
    target = data["reference_loss"] + tolerance * (data["initial_loss"] - data["reference_loss"])
    is_reached = data["curve_loss"] <= target
    first = data["curve_step"][is_reached.argmax("point")]
    return first.where(is_reached.any("point"), np.inf).median("seed")


def _quadratic_steps(settings: Mapping[str, Any]) -> np.ndarray:
    """Steps of gradient descent and heavy ball on quadratics, at the optimal η and β (Polyak 1964), (2, conditions)."""
    condition = np.array(settings["conditions"])
    root = np.sqrt(condition)
    rates = np.append(2 / (1 + condition), 4 / (1 + root) ** 2)
    momentum = np.append(0 * root, ((root - 1) / (root + 1)) ** 2)
    axes = paired({"problem.condition_number": np.tile(condition, 2), "momentum": momentum, "learning_rate": rates})
    problem = functools.partial(problems.quadratic, dimension=suite.DIMENSION)
    steps = _steps({**settings, "seeds": 1}, problem, sgd, axes)
    return steps.values.reshape(2, -1)


def plot(result: Race) -> dict[str, Figure]:
    """The profiles at tuned and at default learning rates, side by side."""
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    far = 10 ** np.ceil(np.log10(max(np.max(r[np.isfinite(r)], initial=10.0) for r in result.ratios.values())))
    for ax, (name, ratio) in zip(axes, result.ratios.items(), strict=True):
        _draw(ax, result.names, ratio, far)
        ax.set_title(f"{name} learning rates, with scores", fontsize="medium")
    axes[0].set_ylabel(f"$\\rho(\\tau)$: share of {len(result.problems)} problems solved")
    return {"optimizer_race": plots.label_panels(figure)}


def claims(result: Race) -> list[Claim]:
    """A check of the profiles, theory of momentum, and which optimizer the defaults suit."""
    tau = np.geomspace(1, 1e6, 1000)
    tuned, default = (performance_profile(ratio, tau) for ratio in result.ratios.values())
    sgd_steps, heavy_steps = result.quadratic_steps
    exponent = lambda steps: float(np.polyfit(np.log(result.settings["conditions"]), np.log(steps), 1)[0])
    solved = lambda kind: np.isfinite(result.times[DEFAULT])[:, result.kinds == kind].sum(axis=1)
    names = result.names
    rows = [
        Claim.check("share of optimizers and τ at which the tuned profile is not below the default one",
              "a check: the default is on the tuned grid", 1.0, 0.0, float(np.mean(tuned >= default))),
        Claim.theory("exponent of the condition number in the steps of gradient descent on quadratics", POLYAK, 1.0,
              0.05, exponent(sgd_steps)),
        Claim.theory(
              "exponent of the condition number in the steps of heavy ball (slightly larger, its roots are double)",
              POLYAK, 0.5, 0.1, exponent(heavy_steps)),
    ]  # fmt: skip
    for kind, more, less in (("networks", "adam", "sgd"), ("functions", "sgd", "adam")):
        if kind in result.kinds:
            count = solved(kind)
            leads = float(count[names.index(more)] > count[names.index(less)])
            text = f"{more}'s default solves more of the {kind} than {less}'s"
            rows.append(Claim.check(text, SUITS, 1.0, 0.0, leads))
    return rows


def _draw(ax: Axes, names: Sequence[str], ratio: np.ndarray, far: float) -> None:
    tau = np.unique(np.append(ratio[np.isfinite(ratio)], [1.0, far]))
    rho, scores = performance_profile(ratio, tau), algoperf_score(ratio)
    ax.axvspan(1, LARGEST_RATIO, color="0.93", zorder=0)
    ax.text(np.sqrt(LARGEST_RATIO), 1.0, "scored", fontsize="small", color="0.35", ha="center", va="top")
    order = np.argsort(rho[:, -1], kind="stable")
    heights = _spread_out(rho[order, -1], 0.062)
    for i, height in zip(order, heights, strict=True):
        color, text = COLORS[i], f"{names[i]}  {scores[i]:.2f}"
        ax.step(tau, rho[i], where="post", color=color, linestyle=STYLES[i], linewidth=1.7)
        line = {"arrowstyle": "-", "color": color, "linewidth": 0.7, "relpos": (0, 0.5), "shrinkA": 0, "shrinkB": 0}
        look: dict[str, Any] = {"color": color, "va": "center", "fontsize": "small", "annotation_clip": False}
        ax.annotate(text, (far, rho[i, -1]), (far * 1.5, height), arrowprops=line, **look)
    ax.set(xscale="log", xlim=(1, far), ylim=(0, 1.02), xlabel="$\\tau$: steps relative to the fastest")


def _spread_out(values: np.ndarray, gap: float) -> np.ndarray:
    """Positions in [0, 1] near the increasing `values`, at least `gap` from each other."""
    steps = gap * np.arange(len(values))
    low = values - steps
    middle = (np.maximum.accumulate(low) + np.minimum.accumulate(low[::-1])[::-1]) / 2
    return np.clip(middle, 0, 1 - steps[-1]) + steps
