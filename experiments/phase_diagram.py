"""Learning rate and momentum of the heavy ball on a quadratic: where it diverges, and where it is fastest.

With curvatures from μ to L a run diverges above η = (2 + 2β)/L. Late steps shrink the distance to the minimum by the
largest modulus of a root of z² − (1 + β − ηλ) z + β. That is least, (√κ − 1)/(√κ + 1) with κ = L/μ, at the momentum
((√κ − 1)/(√κ + 1))² and the learning rate 4/(√L + √μ)² (Polyak, Some methods of speeding up the convergence of
iteration methods, 1964). It is the rate of late steps: the first ones there are slow, since the roots are double, and
a short run may arrive sooner at other values.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

import gdkit
from experiments.analysis import linear_steps
from experiments.common.claims import Claim
from experiments.common.drawing import INK, legend_below
from experiments.common.printing import table
from experiments.common.settings import complete
from gdkit import Regime, SweepResult, plots, problems
from gdkit.errors import bad_value

DEFAULTS: dict[str, Any] = {
    "condition_number": 100.0,  # curvatures from 1 to this
    "dimension": 5,
    "momentum": {"to": 0.98, "count": 50},  # from 0
    "learning_rate": {"from": 0.2, "to": 5.0, "count": 100},  # times the largest curvature
    "steps": 400,
    "exponents": {"burn_in": 1000, "steps": 3000},
}
THEORY: dict[str, Any] = {"color": plots.SERIES_COLORS[5], "linewidth": 1.8}
POLYAK: dict[str, Any] = {"marker": "*", "markersize": 13, "color": "white", "markeredgecolor": INK, "zorder": 5}
FASTEST: dict[str, Any] = {"marker": "o", "markersize": 17, "markerfacecolor": "none", "zorder": 5}
FASTEST |= {"color": plots.SERIES_COLORS[1]}


class PhaseDiagram(NamedTuple):
    """What the study found."""

    settings: dict[str, Any]
    runs: SweepResult  # (momentum, learning_rate)
    exponents: np.ndarray  # (momentum, learning_rate), log-growth a step of small changes

    @property
    def fastest(self) -> linear_steps.Point:
        """Where late steps shrink the most."""
        row, column = np.unravel_index(np.argmin(self.exponents), self.exponents.shape)
        return linear_steps.Point(
            float(self.runs.axes["learning_rate"][column]), float(self.runs.axes["momentum"][row])
        )

    @property
    def edges(self) -> np.ndarray:
        """Where divergence begins at each momentum, (momentum,)."""
        return self.runs.edge("learning_rate")["median"].values

    @property
    def borders(self) -> np.ndarray:
        """Theory's edges, (momentum,)."""
        top = self.settings["condition_number"]
        return np.array([gdkit.stability_threshold("momentum", top, momentum=b) for b in self.runs.axes["momentum"]])

    def __str__(self) -> str:
        momenta = self.runs.axes["momentum"]
        rows = np.unique(np.linspace(0, len(momenta) - 1, 9).round().astype(int))
        edges = table({
            "momentum": (".3f", momenta[rows]),
            "edge": (".5f", self.edges[rows]),
            "theory": (".5f", self.borders[rows]),
        })  # fmt: skip
        places = {"fastest at": self.fastest, "Polyak's": linear_steps.polyak(self.settings["condition_number"])}
        said = [f"{name} learning rate {at[0]:.5f}, momentum {at[1]:.4f}" for name, at in places.items()]
        return "\n".join([edges, *said])


def run(settings: Mapping[str, Any]) -> PhaseDiagram:
    """The plane twice: from a start, for the regimes; and at the minimum, where no run ends, for the exponents."""
    chosen = complete(settings, DEFAULTS)
    ratio, across, up, window = (chosen[n] for n in ("condition_number", "learning_rate", "momentum", "exponents"))
    if not up["to"] < 1:
        raise bad_value("settings.momentum.to", up["to"], "not below 1", "Leave it out for the default")
    if ratio < 1:
        raise bad_value("settings.condition_number", ratio, "below 1", "Pass the largest curvature over the least")
    curvatures = np.geomspace(1, ratio, chosen["dimension"])
    best = linear_steps.polyak(ratio)  # one point: no grid meets it by chance
    axes = {
        "momentum": _with(best.momentum, np.linspace(0, up["to"], up["count"])),
        "learning_rate": _with(best.learning_rate, np.geomspace(across["from"], across["to"], across["count"]) / ratio),
    }
    problem = problems.quadratic(curvatures.tolist(), start=(curvatures**-0.5).tolist())  # each holds as much loss
    rest = problems.quadratic(curvatures.tolist(), start=0.0)
    watched = [gdkit.lyapunov_exponent(rest, gdkit.sgd, burn_in=window["burn_in"])]
    runs = gdkit.sweep(problem, gdkit.sgd, axes, steps=chosen["steps"], curve_points=0)
    still = gdkit.sweep(rest, gdkit.sgd, axes, steps=window["steps"], monitors=watched, curve_points=0)
    return PhaseDiagram(chosen, runs, still.data["lyapunov_exponent"].squeeze("seed").values)


def plot(result: PhaseDiagram) -> dict[str, Figure]:
    """Left, the regimes with theory's border over the measured edge; right, how many late steps gain a digit."""
    figure = Figure(figsize=(11.5, 5.2), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    plots.regime_map(result.runs, x="learning_rate", y="momentum", ax=left)
    _draw_speed(right, result)
    for ax in (left, right):
        ax.plot(result.borders, result.runs.axes["momentum"], **THEORY)
    return {"phase_diagram": figure}


def claims(result: PhaseDiagram) -> list[Claim]:
    """Theory's border against the runs, and Polyak's optimum against the exponents."""
    ratio, found = result.settings["condition_number"], result.runs
    rates, momenta = found.axes["learning_rate"], found.axes["momentum"]
    step, rise = float(np.diff(np.log(rates)).max()), float(np.diff(momenta).max())
    away = np.log(rates / result.borders[:, None])  # (momentum, learning_rate), 0 on the border
    agrees = (found.regimes.squeeze("seed").values == Regime.DIVERGED) == (away > 0)
    curvatures = np.geomspace(1, ratio, result.settings["dimension"])
    radius = linear_steps.radius("momentum", rates[None, :], curvatures, momenta[:, None])
    ideal, root = linear_steps.polyak(ratio), ratio**0.5
    return [
        Claim("largest distance of the measured edge from theory, in grid steps", "(2 + 2β) / λ", 0.0, 1.0,
              float(np.abs(np.log(result.edges / result.borders)).max() / step)),
        Claim("share of cells, more than a grid step from the border, that diverge or not as theory says",
              "(2 + 2β) / λ", 1.0, 0.0, float(agrees[np.abs(away) > step].mean())),
        Claim("momentum at which late steps shrink the most", "Polyak 1964: ((√κ − 1) / (√κ + 1))²", ideal.momentum,
              rise, result.fastest.momentum),
        Claim("learning rate at which late steps shrink the most", "Polyak 1964: 4 / (√L + √μ)²", ideal.learning_rate,
              ideal.learning_rate * step, result.fastest.learning_rate),
        Claim("Lyapunov exponent there", "Polyak 1964: log((√κ − 1) / (√κ + 1))", np.log((root - 1) / (root + 1)),
              2e-3, float(result.exponents.min())),
        Claim("largest error of a Lyapunov exponent in the plane", "z² − (1 + β − ηλ) z + β", 0.0, 5e-3,
              float(np.abs(result.exponents - np.log(radius)).max())),
    ]  # fmt: skip


def _with(value: float, grid: np.ndarray) -> np.ndarray:
    """A grid with `value` in it, in place of what lies next to it."""
    return np.sort(np.append(grid[np.abs(grid - value) > 1e-3 * value], value))


def _draw_speed(ax: Axes, result: PhaseDiagram) -> None:
    digit = np.log(10) / np.maximum(-result.exponents, 1e-12)
    shown = np.ma.masked_where(result.exponents >= 0, digit)
    rates, momenta = result.runs.axes["learning_rate"], result.runs.axes["momentum"]
    norm = LogNorm(digit.min(), 100 * digit.min())
    colors = ax.pcolormesh(rates, momenta, shown, cmap="viridis_r", norm=norm, shading="nearest", rasterized=True)
    ax.figure.colorbar(colors, ax=ax, label="late steps that gain one decimal digit", extend="max")
    ideal = linear_steps.polyak(result.settings["condition_number"])
    marks = [ax.plot(*result.fastest, **FASTEST, linestyle="none", label="fastest measured")[0]]
    marks += ax.plot(*ideal, **POLYAK, linestyle="none", label="Polyak's optimum")
    line = Line2D([], [], **THEORY, label="theory: $(2 + 2\\beta)/\\lambda$")
    ax.text(0.97, 0.3, "diverges", transform=ax.transAxes, rotation=90, ha="right", va="center")
    ax.set_xlabel("learning rate")
    legend_below(ax, 3, handles=[line, *marks], markerscale=0.6)
