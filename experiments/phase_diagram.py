"""Learning rate and momentum of the heavy ball on a quadratic: where it diverges, and where it is fastest.

With curvatures from μ to L a run diverges above η = (2 + 2β)/L. Late steps shrink the distance to the minimum by the
largest modulus of a root of z² − (1 + β − ηλ) z + β. The smallest value, (√κ − 1)/(√κ + 1) with κ = L/μ, is reached at
the momentum ((√κ − 1)/(√κ + 1))² and the learning rate 4/(√L + √μ)² (Polyak, Some methods of speeding up the
convergence of iteration methods, 1964). It is the rate of late steps: the first ones are slow there, since the roots
are double, and a short run may converge sooner at other values.
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
from experiments.common.drawing import INK, place_legend_below
from experiments.common.settings import complete_settings
from experiments.common.tables import format_table
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
    """Result of the study."""

    settings: dict[str, Any]
    runs: SweepResult  # (momentum, learning_rate)
    exponents: np.ndarray  # (momentum, learning_rate), Lyapunov exponents

    @property
    def fastest(self) -> linear_steps.RateAndMomentum:
        """The point where late steps shrink the distance the most."""
        row, column = np.unravel_index(np.argmin(self.exponents), self.exponents.shape)
        return linear_steps.RateAndMomentum(
            float(self.runs.axes["learning_rate"][column]), float(self.runs.axes["momentum"][row])
        )

    @property
    def edges(self) -> np.ndarray:
        """Learning rate at which divergence begins, by momentum, (momentum,)."""
        return self.runs.edge("learning_rate")["median"].values

    @property
    def borders(self) -> np.ndarray:
        """The same by theory, (momentum,)."""
        top = self.settings["condition_number"]
        return np.array([gdkit.stability_threshold("momentum", top, momentum=b) for b in self.runs.axes["momentum"]])

    def __str__(self) -> str:
        momenta = self.runs.axes["momentum"]
        rows = np.unique(np.linspace(0, len(momenta) - 1, 9).round().astype(int))
        edges = format_table({
            "momentum": (".3f", momenta[rows]),
            "edge": (".5f", self.edges[rows]),
            "theory": (".5f", self.borders[rows]),
        })  # fmt: skip
        places = {
            "fastest at": self.fastest,
            "Polyak's": linear_steps.polyak_optimum(self.settings["condition_number"]),
        }
        points = [f"{name} learning rate {at[0]:.5f}, momentum {at[1]:.4f}" for name, at in places.items()]
        return "\n".join([edges, *points])


def run(settings: Mapping[str, Any]) -> PhaseDiagram:
    """Two sweeps of the plane: from a start, for regimes; and from the minimum, where no run ends, for exponents."""
    settings = complete_settings(settings, DEFAULTS)
    ratio, rate_grid, momentum_grid, window = (
        settings[n] for n in ("condition_number", "learning_rate", "momentum", "exponents")
    )
    if not momentum_grid["to"] < 1:
        raise bad_value("settings.momentum.to", momentum_grid["to"], "not below 1", "Leave it out for the default")
    if ratio < 1:
        raise bad_value("settings.condition_number", ratio, "below 1", "Pass the largest curvature over the smallest")
    curvatures = np.geomspace(1, ratio, settings["dimension"])
    best = linear_steps.polyak_optimum(ratio)  # added to the grid, which would miss this point
    axes = {
        "momentum": _add_value(best.momentum, np.linspace(0, momentum_grid["to"], momentum_grid["count"])),
        "learning_rate": _add_value(
            best.learning_rate, np.geomspace(rate_grid["from"], rate_grid["to"], rate_grid["count"]) / ratio
        ),
    }
    problem = problems.quadratic(curvatures.tolist(), start=(curvatures**-0.5).tolist())  # equal loss in each direction
    rest = problems.quadratic(curvatures.tolist(), start=0.0)
    monitors = [gdkit.lyapunov_exponent(rest, gdkit.sgd, burn_in=window["burn_in"])]
    runs = gdkit.sweep(problem, gdkit.sgd, axes, steps=settings["steps"], curve_points=0)
    at_rest = gdkit.sweep(
        rest, gdkit.sgd, axes, steps=window["steps"], monitors=monitors, statistics="ends", curve_points=0
    )
    return PhaseDiagram(settings, runs, at_rest.data["lyapunov_exponent"].squeeze("seed").values)


def plot(result: PhaseDiagram) -> dict[str, Figure]:
    """Left, the regimes with theory's border over the measured edge; right, late steps per decimal digit gained."""
    figure = Figure(figsize=(9.2, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    plots.regime_map(result.runs, x="learning_rate", y="momentum", best=False, ax=left)
    _draw_speed(right, result)
    for ax in (left, right):
        ax.plot(result.borders, result.runs.axes["momentum"], **THEORY)
    return {"phase_diagram": plots.label_panels(figure)}


def claims(result: PhaseDiagram) -> list[Claim]:
    """Theory's border against the runs, and Polyak's optimum against the exponents."""
    ratio, runs = result.settings["condition_number"], result.runs
    rates, momenta = runs.axes["learning_rate"], runs.axes["momentum"]
    step, rise = float(np.diff(np.log(rates)).max()), float(np.diff(momenta).max())
    distance = np.log(rates / result.borders[:, None])  # (momentum, learning_rate), 0 on the border
    agrees = (runs.regimes.squeeze("seed").values == Regime.DIVERGED) == (distance > 0)
    curvatures = np.geomspace(1, ratio, result.settings["dimension"])
    radius = linear_steps.spectral_radius("momentum", rates[None, :], curvatures, momenta[:, None])
    ideal, root = linear_steps.polyak_optimum(ratio), ratio**0.5
    return [
        Claim.theory("largest distance of the measured edge from theory, in grid steps", "(2 + 2β) / λ", 0.0, 1.0,
              float(np.abs(np.log(result.edges / result.borders)).max() / step)),
        Claim.theory("share of cells, more than a grid step from the border, that diverge or not as theory predicts",
              "(2 + 2β) / λ", 1.0, 0.0, float(agrees[np.abs(distance) > step].mean())),
        Claim.published("momentum at which late steps shrink the most", "Polyak 1964: ((√κ − 1) / (√κ + 1))²",
              ideal.momentum, rise, result.fastest.momentum),
        Claim.published("learning rate at which late steps shrink the most", "Polyak 1964: 4 / (√L + √μ)²",
              ideal.learning_rate, ideal.learning_rate * step, result.fastest.learning_rate),
        Claim.published("Lyapunov exponent there", "Polyak 1964: log((√κ − 1) / (√κ + 1))",
              np.log((root - 1) / (root + 1)),
              2e-3, float(result.exponents.min())),
        Claim.theory("largest error of a Lyapunov exponent in the plane", "z² − (1 + β − ηλ) z + β", 0.0, 5e-3,
              float(np.abs(result.exponents - np.log(radius)).max())),
    ]  # fmt: skip


def _add_value(value: float, grid: np.ndarray) -> np.ndarray:
    """The grid with `value` added and its closest neighbours removed."""
    return np.sort(np.append(grid[np.abs(grid - value) > 1e-3 * value], value))


def _draw_speed(ax: Axes, result: PhaseDiagram) -> None:
    digit = np.log(10) / np.maximum(-result.exponents, 1e-12)
    shown = np.ma.masked_where(result.exponents >= 0, digit)
    rates, momenta = result.runs.axes["learning_rate"], result.runs.axes["momentum"]
    norm = LogNorm(digit.min(), 100 * digit.min())
    colors = ax.pcolormesh(rates, momenta, shown, cmap="viridis_r", norm=norm, shading="nearest", rasterized=True)
    ax.figure.colorbar(colors, ax=ax, label="late steps per decimal digit gained", extend="max")
    ideal = linear_steps.polyak_optimum(result.settings["condition_number"])
    marks = [ax.plot(*result.fastest, **FASTEST, linestyle="none", label="fastest measured")[0]]
    marks += ax.plot(*ideal, **POLYAK, linestyle="none", label="Polyak's optimum")
    line = Line2D([], [], **THEORY, label="theory: $(2 + 2\\beta)/\\lambda$")
    ax.text(0.97, 0.3, "diverges", transform=ax.transAxes, rotation=90, ha="right", va="center")
    ax.set_xlabel("learning rate")
    place_legend_below(ax, 1, handles=[line, *marks], markerscale=0.6)
