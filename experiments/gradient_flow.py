"""Gradient descent follows its continuous flow to within O(η), and leaves it some time after 2/η is reached.

The flow dθ/dt = −∇L is what gradient descent becomes as η → 0: after the same time ηt they are η·D apart, where D does
not depend on η (Elkabetz and Cohen, Continuous vs. discrete optimization of deep neural networks, 2021). The flow's
sharpness λ rises. Once ηλ > 2, steps along the top direction swing, and each swing is ηλ − 1 times the last; that is
where Cohen et al. (2021) see the two part. Not at once, though: by then earlier steps, with ηλ < 2, have shrunk the
swing to the rounding of the floats, and it must first grow from there to about 1, by 1/ε in all. So the time at which
a run leaves can be told from the flow alone, by ∑ log |ηλ − 1| over its steps.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments import edge
from experiments.claims import Claim
from experiments.settings import complete
from gdkit import Problem, descend, plots, sgd, sweep
from gdkit.errors import bad_value
from gdkit.stability import sharpness_every
from gdkit.types import Array, Context, Info, Monitor, Optimizer, PyTree, State

DEFAULTS: dict[str, Any] = {
    "network": edge.NETWORK | {"share": 0.05},
    "intervals": {"length": 2.0, "count": 30},  # of time; at their ends the runs are compared
    "flow_steps": 40,  # of Runge and Kutta, an interval
    "descent_steps": [4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 16, 18, 20, 24, 28, 32, 40, 50, 64],  # an interval, by run
}
LEFT = 1.5  # times the first-order distance: a run farther away has left the flow
FORMULA: dict[str, Any] = {"color": "0.15", "linewidth": 1.2}
EULER, COHEN = "Elkabetz and Cohen 2021", "Cohen et al. 2021"


class GradientFlow(NamedTuple):
    """What the study found."""

    settings: dict[str, Any]
    time: np.ndarray  # (times,), from 0 on
    sharpness: np.ndarray  # (times,) of the flow
    error: float  # of the flow: what halving its steps moved its end
    rates: np.ndarray  # (runs,) learning rates, falling
    distance: np.ndarray  # (runs, times), of params from the flow's

    @property
    def scaled(self) -> np.ndarray:
        """The distance over what it is to first order, ηD with the D of the smallest η; (runs, times), 1 at first."""
        first = self.rates[:, None] / self.rates[-1] * self.distance[None, -1, 1:]
        return np.hstack([np.ones((len(self.rates), 1)), self.distance[:, 1:] / first])

    @property
    def left(self) -> np.ndarray:
        """The time at which each run leaves the flow, infinite if it does not; (runs,)."""
        gone = self.scaled > LEFT
        first = gone.argmax(axis=1)
        return np.where(gone.any(axis=1), (self.time[first] + self.time[first - 1]) / 2, np.inf)

    @property
    def reached(self) -> np.ndarray:
        """The time at which the flow's sharpness is at 2/η, infinite if it never is; (runs,)."""
        fine, sharpness = self.fine
        return np.array([_first(fine, rate * sharpness > 2) for rate in self.rates])

    @property
    def fine(self) -> tuple[np.ndarray, np.ndarray]:
        """Time and the flow's sharpness between those that were measured; each (fine times,)."""
        time = np.linspace(0, self.time[-1], 6001)
        return time, np.interp(time, self.time, self.sharpness)

    def __str__(self) -> str:
        head = f"{'η':>7} | {'2/η':>6} | {'the flow is there at':>20} | {'foretold to leave at':>20} | {'leaves at':>9}"
        columns = self.rates, 2 / self.rates, self.reached, foretold(self, self.rates), self.left
        never = lambda value: f"{value:.1f}" if np.isfinite(value) else "never"
        rows = [
            f"{rate:7.4f} | {threshold:6.2f} | {never(there):>20} | {never(told):>20} | {never(left):>9}"
            for rate, threshold, there, told, left in zip(*columns, strict=True)
        ]
        return "\n".join([head, "-" * len(head), *rows])


def runge_kutta(learning_rate: Any) -> Optimizer:
    """The classical method of order 4 for dθ/dt = −∇L as an optimizer whose learning rate is the time of a step."""

    def update(updates: PyTree, state: Any, params: Any = None, *, value_fn: Any = None) -> tuple[PyTree, tuple]:
        ahead = lambda slope, share: jax.tree.map(lambda p, k: p - share * learning_rate * k, params, slope)
        second = jax.grad(value_fn)(ahead(updates, 0.5))
        third = jax.grad(value_fn)(ahead(second, 0.5))
        fourth = jax.grad(value_fn)(ahead(third, 1.0))
        mean = lambda a, b, c, d: -learning_rate * (a + 2 * b + 2 * c + d) / 6
        return jax.tree.map(mean, updates, second, third, fourth), state

    return optax.GradientTransformationExtraArgs(lambda params: (), update)


def distance_to(flow: np.ndarray, interval: float) -> Monitor:
    """A monitor of how far params are from the flow's, (times, params), after intervals: ``distance``, (times,)."""
    last = len(flow) - 1

    def update(m: Array, before: State, after: State, info: Info, context: Context) -> Array:
        steps = jnp.round(interval / context.hyperparameters["learning_rate"]).astype(jnp.int32)  # an interval
        slot = jnp.minimum(context.t // steps, last)
        due = (context.t % steps == 0) & (context.t // steps <= last)
        there = jnp.linalg.norm(ravel_pytree(before.params)[0] - jnp.asarray(flow)[slot])
        return m.at[slot].set(jnp.where(due, there, m[slot]))

    return Monitor(lambda state: jnp.full((last + 1,), jnp.nan, flow.dtype), update, lambda m: {"distance": m})


@functools.cache  # compiled programs belong to one problem
def _fixed(problem: Problem) -> Problem:
    """The problem from one start, whatever the seed."""
    return dataclasses.replace(problem, init=jax.tree.map(np.asarray, problem.init(jax.random.key(0))))


def run(settings: Mapping[str, Any]) -> GradientFlow:
    """The flow with its sharpness, and descent at each learning rate, compared after equal times."""
    chosen = complete(settings, DEFAULTS)
    steps = np.unique(chosen["descent_steps"])
    if steps.size < 3:
        raise bad_value("settings.descent_steps", chosen["descent_steps"], "fewer than 3 runs", "Give more")
    problem, length, count = _problem(chosen["network"]), chosen["intervals"]["length"], chosen["intervals"]["count"]
    flow, sharpness = _flow(problem, length, count, chosen["flow_steps"])
    finer, _ = _flow(problem, length, count, 2 * chosen["flow_steps"])
    watched = [distance_to(finer, length)]
    rates = length / steps
    runs = sweep(problem, sgd, {"learning_rate": rates}, steps=int(steps[-1]) * count, monitors=watched, curve_points=0)
    error = float(np.linalg.norm(finer[-1] - flow[-1]))
    return GradientFlow(chosen, length * np.arange(count + 1), sharpness, error, rates, runs.lanes["distance"].values)


def _problem(network: Mapping[str, Any]) -> Problem:
    """The network from one start, whatever the seed."""
    problem = edge.network(network)
    return dataclasses.replace(problem, init=jax.tree.map(np.asarray, problem.init(jax.random.key(0))))


def _flow(problem: Problem, length: float, count: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Params (count + 1, params) and sharpness (count + 1,) of the flow, after whole intervals of so many steps."""
    watched = sharpness_every(problem, steps, iterations=edge.ITERATIONS, record=count + 1)
    options: dict[str, Any] = {"hyperparameters": {"learning_rate": length / steps}, "monitors": [watched]}
    run = descend(problem, runge_kutta, steps * count, record_every=steps, record_params=True, **options)
    vectors = jax.vmap(lambda params: ravel_pytree(params)[0])(run.params_history)
    return np.asarray(vectors), np.asarray(run.statistics["sharpness_curve"])


def growth(result: GradientFlow, rate: float) -> np.ndarray:
    """Log of how often larger the swing along the top direction is than at the start, by the flow; (fine times,)."""
    time, sharpness = result.fine
    slope = np.log(np.maximum(np.abs(rate * sharpness - 1), 1e-9)) / rate  # a unit of time; 1/η steps
    return np.concatenate([[0], np.cumsum((slope[1:] + slope[:-1]) / 2 * np.diff(time))])


def swing(result: GradientFlow, rate: float) -> np.ndarray:
    """The same, but that rounding lets it become no smaller than ε; (fine times,)."""
    free = growth(result, rate)
    return free + np.maximum.accumulate(np.maximum(_rounding(result) - free, 0))


def foretold(result: GradientFlow, rates: np.ndarray) -> np.ndarray:
    """When a run should leave the flow: once it is past 2/η, and the swing as large as at first; like `rates`."""
    time, sharpness = result.fine
    return np.array([_first(time, (rate * sharpness > 2) & (swing(result, rate) >= 0)) for rate in rates])


def _rounding(result: GradientFlow) -> float:
    return float(np.log(np.finfo(result.distance.dtype).eps))


def _first(time: np.ndarray, there: np.ndarray) -> float:
    return float(time[there.argmax()]) if there.any() else np.inf


def plot(result: GradientFlow) -> dict[str, Figure]:
    """One figure: the distance against time and against the learning rate, and when the flow is left."""
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    along, across, when = figure.subplots(1, 3)
    _draw_along(along, result)
    _draw_across(across, result)
    _draw_when(when, result)
    return {"gradient_flow": figure}


def _draw_along(ax: Axes, result: GradientFlow) -> None:
    shown = np.unique(np.linspace(0, len(result.rates) - 1, 6).round().astype(int))
    for number, i in enumerate(shown):
        series = plots.style.series(number)
        ax.semilogy(
            result.time[1:],
            result.distance[i, 1:],
            label=f"{result.rates[i]:.3g}",
            linewidth=1,
            markersize=3.5,
            **series,
        )
        at = result.reached[i]
        if np.isfinite(at):
            height = np.interp(at, result.time, result.distance[i])
            ax.plot(at, height, "*", markersize=13, color=series["color"], markeredgecolor="0.15", zorder=5)
    ax.set(xlabel="time $\\eta t$", ylabel="distance from the flow, of params", ylim=(None, 9 * ax.get_ylim()[1]))
    ax.legend(title="$\\eta$ (star: flow at $2/\\eta$)", frameon=False, fontsize="small", ncols=2)


def _draw_across(ax: Axes, result: GradientFlow) -> None:
    for number, i in enumerate((len(result.time) // 5, len(result.time) // 2, len(result.time) - 1)):
        series = plots.style.series(number)
        border = 2 / result.sharpness[: i + 1].max()
        ax.loglog(result.rates, result.distance[:, i], linestyle="none", label=f"time {result.time[i]:g}", **series)
        ax.plot(result.rates, result.rates / result.rates[-1] * result.distance[-1, i], **FORMULA)
        ax.axvline(border, color=series["color"], linewidth=1.2, linestyle=(0, (4, 2)))
    ax.plot([], [], label="$\\propto\\eta$", **FORMULA)
    ax.plot([], [], color="0.4", linestyle=(0, (4, 2)), label="2/sharpness by then")
    ax.set(xlabel="learning rate $\\eta$", ylabel="distance from the flow, of params")
    plots.style.tidy_ticks(ax.xaxis)
    ax.legend(frameon=False, fontsize="small")


def _draw_when(ax: Axes, result: GradientFlow) -> None:
    left, rates = np.isfinite(result.left), np.linspace(result.rates[-1], result.rates[0], 400)
    ax.plot(result.time, result.sharpness, color=plots.SERIES_COLORS[0], label="sharpness of the flow")
    ax.plot(foretold(result, rates), 2 / rates, label="foretold: swing back at 1", **FORMULA)
    half = (result.time[1] - result.time[0]) / 2
    ax.errorbar(
        result.left[left], 2 / result.rates[left], xerr=half, fmt="o", markersize=4, color=plots.SERIES_COLORS[1],
        label="a run leaves the flow",
    )  # fmt: skip
    ax.set(
        xlabel="time $\\eta t$", ylabel="sharpness, or $2/\\eta$ of a run", xlim=(0, result.time[-1]), ylim=(0, None)
    )
    ax.legend(frameon=False, fontsize="small", loc="lower right")


def claims(result: GradientFlow) -> list[Claim]:
    """The distance below the edge, and when the flow is left."""
    calm = result.rates < 1 / result.sharpness.max()
    slope = (
        np.polyfit(np.log(result.rates[calm]), np.log(result.distance[calm, -1]), 1)[0] if calm.sum() > 1 else np.nan
    )
    time, _ = result.fine
    left, told, reached = result.left, foretold(result, result.rates), result.reached
    follows = [np.interp(at, result.time, scaled) <= LEFT for at, scaled in zip(reached, result.scaled, strict=True)]
    quiet = np.array([swing(result, rate).min() <= _rounding(result) for rate in result.rates])  # down to rounding
    gone = quiet & np.isfinite(left)
    grown = [
        np.diff(np.interp([a, b], time, growth(result, rate)))[0]
        for rate, a, b in zip(result.rates[gone], reached[gone], left[gone], strict=True)
    ]
    near = np.abs(np.minimum(left, time[-1]) - np.minimum(told, time[-1])) <= result.time[1]
    return [
        Claim("slope of log distance in log η, at the end, of runs below 1/sharpness", f"1: O(η); {EULER}", 1.0, 0.03,
              float(slope)),
        Claim(f"share of runs within {LEFT:g} times the first-order distance when the flow's sharpness is 2/η", COHEN,
              1.0, 0.0, float(np.mean(follows))),
        Claim("log of the swing's growth from there until a run leaves, median", "−log ε, from rounding to 1",
              -_rounding(result), -0.15 * _rounding(result), float(np.median(grown)) if grown else float("nan")),
        Claim("share of runs, their swing once at rounding, that leave within an interval of the time foretold",
              "∑ log |ηλ − 1| = 0, floor log ε", 1.0, 0.0, float(near[quiet].mean())),
        Claim("the flow's own error, over the least distance from it", "Runge and Kutta, order 4", 0.0, 0.02,
              result.error / float(result.distance[-1, 1:].min())),
    ]  # fmt: skip
