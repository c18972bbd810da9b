"""Gradient descent follows its continuous flow to within O(η), and leaves it some time after 2/η is reached.

The flow dθ/dt = −∇L is the limit of gradient descent as η → 0: after the same time ηt their distance is η·D, where D
does not depend on η (Elkabetz and Cohen, Continuous vs. discrete optimization of deep neural networks, 2021). The
flow's sharpness λ rises. Once ηλ > 2, steps along the top direction oscillate, each oscillation ηλ − 1 times the
previous one; there Cohen et al. (2021) see the two separate. They do so with a delay: earlier steps, with ηλ < 2, have
shrunk the oscillation to what rounding adds at every step, and it must first grow from there, about 10⁷ times.

So the time at which a run leaves follows without the run: its oscillation has the variance V ← (ηλ − 1)² V + σ², where
σ is the rounding of the params along the top eigenvector (a rounding by one unit u has variance u²/12), and λ is the
sharpness to first order in η, from the flow and the run of the smallest η. The run has left when the oscillation
brings its distance to 1.5 times ηD. The rounding of gradients is left out; it is of the same order.

An earlier version took the flow's own sharpness for λ and 1 for the size at which a run has left, and claimed the
growth between, −log ε, of one key. At three of five fresh keys it failed: runs are less sharp than the flow by a first
order in η, which over the steps of the growth makes a factor of ten and more. The claims below, over five keys, were
made before the runs at these keys.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.analysis import edge_runs
from experiments.analysis.continuous_flow import FlowSharpness, distance_monitor, flatten_params, integrate
from experiments.common.claims import Claim
from experiments.common.drawing import INK, THEORY_LINE
from experiments.common.settings import complete_settings
from experiments.common.tables import format_table
from gdkit import Problem, descend, plots, sgd, sharpness, sweep
from gdkit.errors import bad_value

DEFAULTS: dict[str, Any] = {
    "network": edge_runs.NETWORK | {"share": 0.05},
    "intervals": {"length": 2.0, "count": 30},  # of time; runs are compared at their ends
    "key": 810,  # of the first initial weights
    "keys": 5,
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
MEAN_LOG = -(np.euler_gamma + np.log(2)) / 2  # of the absolute value of a unit normal
EULER, COHEN = "Elkabetz and Cohen 2021", "Cohen et al. 2021"


class FlowRuns(NamedTuple):
    """The flow from one key, and the runs beside it."""

    key: int
    curve: FlowSharpness
    error: float  # of the flow: the change of its end when its steps are halved
    rates: np.ndarray  # (runs,) learning rates, decreasing
    distance: np.ndarray  # (runs, times), of params from the flow's

    @property
    def first_order(self) -> np.ndarray:
        """The distance over η of the smallest η, D, (times,), infinite at the start, where no run can have left."""
        return np.append(np.inf, self.distance[-1, 1:] / self.rates[-1])

    @property
    def scaled(self) -> np.ndarray:
        """The distance over its first-order value ηD; (runs, times), 1 at the start."""
        first = self.rates[:, None] * self.first_order[1:]
        return np.hstack([np.ones((len(self.rates), 1)), self.distance[:, 1:] / first])

    @property
    def departures(self) -> np.ndarray:
        """The time at which each run leaves the flow, infinite if it does not; (runs,)."""
        has_left, time = self.scaled > DEPARTED, self.curve.time
        first = has_left.argmax(axis=1)
        return np.where(has_left.any(axis=1), (time[first] + time[first - 1]) / 2, np.inf)

    @property
    def limit(self) -> np.ndarray:
        """The oscillation over η that brings the distance to where a run has left, (times,)."""
        at_start = self.first_order[1]  # which is not known there
        return (DEPARTED**2 - 1) ** 0.5 * np.append(at_start, self.first_order[1:])

    def predict(self, rates: np.ndarray) -> np.ndarray:
        """The times at which runs should leave, infinite for never; like `rates`."""
        return self.curve.predicted_departures(rates, self.limit)

    @property
    def is_rounding(self) -> np.ndarray:
        """Whether the oscillation of each run, of order 1 at the start, shrinks to rounding, (runs,)."""
        rounding = np.log(np.finfo(self.distance.dtype).eps)
        return np.array([self.curve.growth(rate).min() <= rounding for rate in self.rates])

    @property
    def excess(self) -> np.ndarray:
        """Log of the predicted oscillation over the run's when it leaves, of runs that were at rounding, (leaving,)."""
        chosen = self.is_rounding & np.isfinite(self.departures)
        logs = []
        for rate, left in zip(self.rates[chosen], self.departures[chosen], strict=True):
            predicted = np.interp(left, self.curve.steps(rate)[0], self.curve.oscillation(rate))
            logs.append(np.log(predicted / (rate * np.interp(left, self.curve.time, self.limit))) + MEAN_LOG)
        return np.array(logs)

    @property
    def is_near(self) -> np.ndarray:
        """Whether runs that leave, or should, do so within an interval of the prediction; those at rounding."""
        end, left, predicted = self.curve.time[-1], self.departures, self.predict(self.rates)
        chosen = self.is_rounding & np.isfinite(np.minimum(left, predicted))
        return np.abs(np.minimum(left, end) - np.minimum(predicted, end))[chosen] <= self.curve.time[1]


class GradientFlow(NamedTuple):
    """Result of the study."""

    settings: dict[str, Any]
    starts: list[FlowRuns]  # one per key

    def __str__(self) -> str:
        show_times = lambda times: [f"{time:.1f}" if np.isfinite(time) else "never" for time in times]
        first, starts = self.starts[0], self.starts
        runs = format_table({
            "η": (".4f", first.rates),
            "2/η": (".2f", 2 / first.rates),
            "flow reaches it at": (">", show_times(first.curve.crossing_times(first.rates))),
            "predicted to leave at": (">", show_times(first.predict(first.rates))),
            "leaves at": (">", show_times(first.departures)),
        })  # fmt: skip
        keys = format_table({
            "key": ("d", [one.key for one in starts]),
            "runs that leave": ("d", [len(one.excess) for one in starts]),
            "mean log of predicted over measured oscillation": (".2f", [_mean(one.excess) for one in starts]),
            "within an interval": (">", [f"{one.is_near.sum()} of {len(one.is_near)}" for one in starts]),
        })  # fmt: skip
        return f"key {first.key}\n{runs}\n\n{keys}"


def _mean(values: np.ndarray) -> float:
    return float(np.mean(values)) if len(values) else float("nan")


def run(settings: Mapping[str, Any]) -> GradientFlow:
    """The flow with its sharpness, and descent at each learning rate, compared after equal times, from every key."""
    settings = complete_settings(settings, DEFAULTS, signed=("key",))
    steps = np.unique(settings["descent_steps"])
    if steps.size < 3:
        raise bad_value("settings.descent_steps", settings["descent_steps"], "fewer than 3 runs", "Give more")
    keys = range(settings["key"], settings["key"] + settings["keys"])
    return GradientFlow(settings, [_compare(settings, key, steps) for key in keys])


def _compare(settings: Mapping[str, Any], key: int, steps: np.ndarray) -> FlowRuns:
    """The flow from one key, and runs with these numbers of steps per interval."""
    problem, (length, count) = edge_runs.network(settings["network"]), settings["intervals"].values()
    lane = jax.random.fold_in(jax.random.key(key), 0)  # the key of the only seed of `sweep`
    flow = integrate(problem, length, count, settings["flow_steps"], key=lane)
    finer = integrate(problem, length, count, 2 * settings["flow_steps"], key=lane)
    rates, total = length / steps, int(steps[-1]) * count
    monitors = [distance_monitor(finer, length)]
    runs = sweep(problem, sgd, {"learning_rate": rates}, steps=total, key=key, monitors=monitors, curve_points=0)
    slowest = descend(problem, sgd, total, hyperparameters={"learning_rate": rates[-1]}, key=lane,
                      record_every=int(steps[-1]), record_params=True)  # fmt: skip
    error = float(np.linalg.norm(finer[-1] - flow[-1]))
    measure, slow = _sharpness_along(problem), flatten_params(slowest.params_history)
    values, directions = map(np.asarray, measure(finer))
    slope = (np.asarray(measure(slow)[0]) - values) / rates[-1]
    rounding = np.linalg.norm(directions * np.spacing(np.abs(finer)), axis=1) / 12**0.5
    curve = FlowSharpness(length * np.arange(count + 1), values, slope, rounding)
    return FlowRuns(key, curve, error, rates, runs.lanes["distance"].values)


@functools.cache  # compiled programs belong to one problem
def _sharpness_along(problem: Problem) -> Callable[[np.ndarray], tuple[jax.Array, jax.Array]]:
    """Function from params (times, params) to the sharpness, (times,), and its unit eigenvector, (times, params)."""
    unravel = ravel_pytree(jax.tree.map(jnp.zeros_like, jax.eval_shape(problem.init, jax.random.key(0))))[1]

    def measure(vector: jax.Array) -> tuple[jax.Array, jax.Array]:
        top = sharpness(problem, unravel(vector), max_iterations=edge_runs.ITERATIONS)
        return top.values[0], ravel_pytree(top.vectors)[0]

    return jax.jit(lambda vectors: jax.lax.map(measure, vectors))


def plot(result: GradientFlow) -> dict[str, Figure]:
    """Of the first key the distance against time and against the learning rate, and when runs leave the flow."""
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    over_time, over_rates, departures = figure.subplots(1, 3)
    _draw_over_time(over_time, result.starts[0])
    _draw_over_rates(over_rates, result.starts[0])
    _draw_departures(departures, result.starts[0])
    return {"gradient_flow": plots.label_panels(figure)}


def claims(result: GradientFlow) -> list[Claim]:
    """The distance below the edge, and the times at which runs leave the flow, over all keys."""
    starts = result.starts
    excess, is_near = (np.concatenate([getattr(one, name) for one in starts]) for name in ("excess", "is_near"))
    return [
        Claim.theory("slope of log distance in log η, at the end, of runs below 1/sharpness, mean over keys",
              f"1: O(η); {EULER}", 1.0, 0.03, float(np.mean([_slope(one) for one in starts]))),
        Claim.published(
              f"share of runs within {DEPARTED:g} times the first-order distance when the flow's sharpness is 2/η",
              COHEN, 1.0, 0.0, float(np.mean(np.concatenate([_follows(one) for one in starts])))),
        Claim.theory("log of the oscillation that rounding predicts over that of a run when it leaves, mean over runs",
              "V ← (ηλ − 1)² V + σ²; up to a factor of 2, rounding of gradients, and of 2, three standard errors", 0.0,
              float(np.log(4)), _mean(excess)),
        Claim.theory("share of runs, whose oscillation was at rounding and that leave or should, within an interval "
              "of the prediction", "V ← (ηλ − 1)² V + σ²; one in ten by chance", 1.0, 0.1, _mean(is_near)),
        Claim.check("error of the flow, over the smallest distance from it", "Runge and Kutta, order 4", 0.0, 0.02,
              max(one.error / float(one.distance[-1, 1:].min()) for one in starts)),
    ]  # fmt: skip


def _slope(one: FlowRuns) -> float:
    """Of log distance in log η, at the end, of runs below 1/sharpness."""
    stable = one.rates < 1 / one.curve.values.max()
    logs = np.log(one.rates[stable]), np.log(one.distance[stable, -1])
    return float(np.polyfit(*logs, 1)[0]) if stable.sum() > 1 else float("nan")


def _follows(one: FlowRuns) -> np.ndarray:
    """Whether each run is near the flow when the flow's sharpness is 2/η, or at the end, (runs,)."""
    reached = one.curve.crossing_times(one.rates)
    pairs = zip(reached, one.scaled, strict=True)
    return np.array([np.interp(at, one.curve.time, scaled) <= DEPARTED for at, scaled in pairs])


def _draw_over_time(ax: Axes, one: FlowRuns) -> None:
    shown = np.unique(np.linspace(0, len(one.rates) - 1, 6).round().astype(int))
    for number, i in enumerate(shown):
        series = plots.style.series(number)
        look: dict[str, Any] = series | {"linewidth": 1, "markersize": 3.5}
        ax.semilogy(one.curve.time[1:], one.distance[i, 1:], label=f"{one.rates[i]:.3g}", **look)
        at = one.curve.crossing_times(one.rates)[i]
        if np.isfinite(at):
            height = np.interp(at, one.curve.time, one.distance[i])
            ax.plot(at, height, "*", markersize=13, color=series["color"], markeredgecolor=INK, zorder=5)
    ax.set(xlabel="time $\\eta t$", ylabel="distance of params from the flow", ylim=(None, 9 * ax.get_ylim()[1]))
    ax.legend(title="$\\eta$ (star: flow at $2/\\eta$)", frameon=False, fontsize="small", ncols=2)


def _draw_over_rates(ax: Axes, one: FlowRuns) -> None:
    for number, i in enumerate((len(one.curve.time) // 5, len(one.curve.time) // 2, len(one.curve.time) - 1)):
        series = plots.style.series(number)
        border = 2 / one.curve.values[: i + 1].max()
        ax.loglog(one.rates, one.distance[:, i], linestyle="none", label=f"time {one.curve.time[i]:g}", **series)
        ax.plot(one.rates, one.rates / one.rates[-1] * one.distance[-1, i], **THEORY_LINE)
        ax.axvline(border, color=series["color"], linewidth=1.2, linestyle=(0, (4, 2)))
        ax.plot(
            border, 0, **series, markersize=5, transform=ax.get_xaxis_transform(), clip_on=False
        )  # identifies the line
    ax.plot([], [], label="$\\propto\\eta$", **THEORY_LINE)
    ax.plot([], [], color="0.4", linestyle=(0, (4, 2)), label="2 / largest sharpness so far")
    ax.set(xlabel="learning rate $\\eta$", ylabel="distance of params from the flow")
    plots.style.tidy_ticks(ax.xaxis)
    ax.legend(frameon=False, fontsize="small")


def _draw_departures(ax: Axes, one: FlowRuns) -> None:
    left, rates = np.isfinite(one.departures), np.linspace(one.rates[-1], one.rates[0], 400)
    ax.plot(one.curve.time, one.curve.values, color=plots.SERIES_COLORS[0], label="sharpness of the flow")
    ax.plot(one.predict(rates), 2 / rates, label="predicted: oscillation has grown", **THEORY_LINE)
    half = (one.curve.time[1] - one.curve.time[0]) / 2
    look: dict[str, Any] = {"fmt": "o", "markersize": 4, "color": plots.SERIES_COLORS[1]}
    ax.errorbar(one.departures[left], 2 / one.rates[left], xerr=half, label="a run leaves the flow", **look)
    ax.set(xlabel="time $\\eta t$", ylabel="sharpness, or $2/\\eta$ of a run")
    ax.set(xlim=(0, one.curve.time[-1]), ylim=(0, None))
    ax.legend(frameon=False, fontsize="small", loc="lower right")
