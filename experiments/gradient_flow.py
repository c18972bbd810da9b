"""Gradient descent follows its continuous flow to within O(η), and leaves it some time after 2/η is reached.

The flow dθ/dt = −∇L is the limit of gradient descent as η → 0: after the same time ηt their distance is η·D, where D
does not depend on η (Elkabetz and Cohen, Continuous vs. discrete optimization of deep neural networks, 2021). The
flow's sharpness λ rises. Once ηλ > 2, steps along the top direction oscillate, each oscillation ηλ − 1 times the
previous one; there Cohen et al. (2021) see the two separate. They do so with a delay: earlier steps, with ηλ < 2, have
shrunk the oscillation to the rounding of the floats, and it must first grow from there to about 1, by a factor 1/ε. So
the time at which a run leaves follows from the flow alone, by ∑ log |ηλ − 1| over its steps.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.analysis import edge_runs
from experiments.analysis.continuous_flow import FlowSharpness, distance_monitor, integrate
from experiments.common.claims import Claim
from experiments.common.drawing import INK, THEORY_LINE
from experiments.common.settings import complete_settings
from experiments.common.tables import format_table
from gdkit import plots, sgd, sweep
from gdkit.errors import bad_value
from gdkit.stability import sharpness_every

DEFAULTS: dict[str, Any] = {
    "network": edge_runs.NETWORK | {"share": 0.05},
    "intervals": {"length": 2.0, "count": 30},  # of time; runs are compared at their ends
    "key": 0,  # of the initial weights
    "flow_steps": 40,  # of Runge and Kutta, per interval
    "descent_steps": [
        4,
        5,
        6,
        7,
        8,
        9,
        10,
        11,
        12,
        13,
        14,
        16,
        18,
        20,
        24,
        28,
        32,
        40,
        50,
        64,
    ],  # per interval, by run
}
DEPARTED = 1.5  # times the first-order distance: a run farther away has left the flow
EULER, COHEN = "Elkabetz and Cohen 2021", "Cohen et al. 2021"


class GradientFlow(NamedTuple):
    """Result of the study."""

    settings: dict[str, Any]
    time: np.ndarray  # (times,), starts at 0
    sharpness: np.ndarray  # (times,) of the flow
    error: float  # of the flow: the change of its end when its steps are halved
    rates: np.ndarray  # (runs,) learning rates, decreasing
    distance: np.ndarray  # (runs, times), of params from the flow's

    @property
    def scaled(self) -> np.ndarray:
        """The distance over its first-order value ηD, with the D of the smallest η; (runs, times), 1 at the start."""
        first = self.rates[:, None] / self.rates[-1] * self.distance[None, -1, 1:]
        return np.hstack([np.ones((len(self.rates), 1)), self.distance[:, 1:] / first])

    @property
    def departures(self) -> np.ndarray:
        """The time at which each run leaves the flow, infinite if it does not; (runs,)."""
        has_left = self.scaled > DEPARTED
        first = has_left.argmax(axis=1)
        return np.where(has_left.any(axis=1), (self.time[first] + self.time[first - 1]) / 2, np.inf)

    @property
    def curve(self) -> FlowSharpness:
        """The flow's sharpness, interpolated between its measurements."""
        fine = np.linspace(0, self.time[-1], 6001)
        rounding = float(np.log(np.finfo(self.distance.dtype).eps))
        return FlowSharpness(fine, np.interp(fine, self.time, self.sharpness), rounding)

    def __str__(self) -> str:
        show_times = lambda times: [f"{time:.1f}" if np.isfinite(time) else "never" for time in times]
        return format_table({
            "η": (".4f", self.rates),
            "2/η": (".2f", 2 / self.rates),
            "flow reaches it at": (">", show_times(self.curve.crossing_times(self.rates))),
            "predicted to leave at": (">", show_times(self.curve.predicted_departures(self.rates))),
            "leaves at": (">", show_times(self.departures)),
        })  # fmt: skip


def run(settings: Mapping[str, Any]) -> GradientFlow:
    """The flow with its sharpness, and descent at each learning rate, compared after equal times."""
    settings = complete_settings(settings, DEFAULTS, signed=("key",))
    steps = np.unique(settings["descent_steps"])
    if steps.size < 3:
        raise bad_value("settings.descent_steps", settings["descent_steps"], "fewer than 3 runs", "Give more")
    problem, (length, count) = edge_runs.network(settings["network"]), settings["intervals"].values()
    start = jax.tree.map(np.asarray, problem.init(jax.random.key(settings["key"])))
    problem = dataclasses.replace(problem, init=start)  # whatever the seed
    monitor = sharpness_every(problem, settings["flow_steps"], iterations=edge_runs.ITERATIONS, record=count + 1)
    flow, statistics = integrate(problem, length, count, settings["flow_steps"], [monitor])
    finer, _ = integrate(problem, length, count, 2 * settings["flow_steps"])
    sharpness = np.asarray(statistics["sharpness_curve"])
    monitors = [distance_monitor(finer, length)]
    rates = length / steps
    runs = sweep(
        problem, sgd, {"learning_rate": rates}, steps=int(steps[-1]) * count, monitors=monitors, curve_points=0
    )
    error = float(np.linalg.norm(finer[-1] - flow[-1]))
    return GradientFlow(settings, length * np.arange(count + 1), sharpness, error, rates, runs.lanes["distance"].values)


def plot(result: GradientFlow) -> dict[str, Figure]:
    """The distance against time and against the learning rate, and the times at which runs leave the flow."""
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    over_time, over_rates, departures = figure.subplots(1, 3)
    _draw_over_time(over_time, result)
    _draw_over_rates(over_rates, result)
    _draw_departures(departures, result)
    return {"gradient_flow": plots.label_panels(figure)}


def claims(result: GradientFlow) -> list[Claim]:
    """The distance below the edge, and the times at which runs leave the flow."""
    stable = result.rates < 1 / result.sharpness.max()
    logs = np.log(result.rates[stable]), np.log(result.distance[stable, -1])
    slope = np.polyfit(*logs, 1)[0] if stable.sum() > 1 else np.nan
    curve, time, left = result.curve, result.curve.time, result.departures
    predicted, reached = curve.predicted_departures(result.rates), curve.crossing_times(result.rates)
    follows = [
        np.interp(at, result.time, scaled) <= DEPARTED for at, scaled in zip(reached, result.scaled, strict=True)
    ]
    at_rounding = np.array([curve.oscillation(rate).min() <= curve.rounding for rate in result.rates])
    has_left = at_rounding & np.isfinite(left)
    intervals = zip(result.rates[has_left], reached[has_left], left[has_left], strict=True)
    growth = [np.diff(np.interp([start, end], time, curve.growth(rate)))[0] for rate, start, end in intervals]
    is_near = np.abs(np.minimum(left, time[-1]) - np.minimum(predicted, time[-1])) <= result.time[1]
    return [
        Claim.theory("slope of log distance in log η, at the end, of runs below 1/sharpness", f"1: O(η); {EULER}", 1.0,
              0.03, float(slope)),
        Claim.published(
              f"share of runs within {DEPARTED:g} times the first-order distance when the flow's sharpness is 2/η",
              COHEN, 1.0, 0.0, float(np.mean(follows))),
        Claim.theory("log-growth of the oscillation from there until a run leaves, median",
              "−log ε, from rounding to 1",
              -curve.rounding, -0.15 * curve.rounding, float(np.median(growth)) if growth else float("nan")),
        Claim.theory(
              "share of runs, whose oscillation was at rounding, that leave within an interval of the prediction",
              "∑ log |ηλ − 1| = 0, floor log ε", 1.0, 0.0, float(is_near[at_rounding].mean())),
        Claim.check("error of the flow, over the smallest distance from it", "Runge and Kutta, order 4", 0.0, 0.02,
              result.error / float(result.distance[-1, 1:].min())),
    ]  # fmt: skip


def _draw_over_time(ax: Axes, result: GradientFlow) -> None:
    shown = np.unique(np.linspace(0, len(result.rates) - 1, 6).round().astype(int))
    for number, i in enumerate(shown):
        series = plots.style.series(number)
        look: dict[str, Any] = series | {"linewidth": 1, "markersize": 3.5}
        ax.semilogy(result.time[1:], result.distance[i, 1:], label=f"{result.rates[i]:.3g}", **look)
        at = result.curve.crossing_times(result.rates)[i]
        if np.isfinite(at):
            height = np.interp(at, result.time, result.distance[i])
            ax.plot(at, height, "*", markersize=13, color=series["color"], markeredgecolor=INK, zorder=5)
    ax.set(xlabel="time $\\eta t$", ylabel="distance of params from the flow", ylim=(None, 9 * ax.get_ylim()[1]))
    ax.legend(title="$\\eta$ (star: flow at $2/\\eta$)", frameon=False, fontsize="small", ncols=2)


def _draw_over_rates(ax: Axes, result: GradientFlow) -> None:
    for number, i in enumerate((len(result.time) // 5, len(result.time) // 2, len(result.time) - 1)):
        series = plots.style.series(number)
        border = 2 / result.sharpness[: i + 1].max()
        ax.loglog(result.rates, result.distance[:, i], linestyle="none", label=f"time {result.time[i]:g}", **series)
        ax.plot(result.rates, result.rates / result.rates[-1] * result.distance[-1, i], **THEORY_LINE)
        ax.axvline(border, color=series["color"], linewidth=1.2, linestyle=(0, (4, 2)))
        ax.plot(
            border, 0, **series, markersize=5, transform=ax.get_xaxis_transform(), clip_on=False
        )  # identifies the line
    ax.plot([], [], label="$\\propto\\eta$", **THEORY_LINE)
    ax.plot([], [], color="0.4", linestyle=(0, (4, 2)), label="2 / largest sharpness so far")
    ax.set(xlabel="learning rate $\\eta$", ylabel="distance of params from the flow")
    plots.style.tidy_ticks(ax.xaxis)
    ax.legend(frameon=False, fontsize="small")


def _draw_departures(ax: Axes, result: GradientFlow) -> None:
    left, rates = np.isfinite(result.departures), np.linspace(result.rates[-1], result.rates[0], 400)
    ax.plot(result.time, result.sharpness, color=plots.SERIES_COLORS[0], label="sharpness of the flow")
    ax.plot(
        result.curve.predicted_departures(rates), 2 / rates, label="predicted: oscillation back at 1", **THEORY_LINE
    )
    half = (result.time[1] - result.time[0]) / 2
    look: dict[str, Any] = {"fmt": "o", "markersize": 4, "color": plots.SERIES_COLORS[1]}
    ax.errorbar(result.departures[left], 2 / result.rates[left], xerr=half, label="a run leaves the flow", **look)
    ax.set(xlabel="time $\\eta t$", ylabel="sharpness, or $2/\\eta$ of a run")
    ax.set(xlim=(0, result.time[-1]), ylim=(0, None))
    ax.legend(frameon=False, fontsize="small", loc="lower right")
