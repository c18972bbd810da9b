"""Runs watched for their curvature: what the studies of the edge of stability share."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.common.claims import Claim
from gdkit import Problem, Trajectory, descend, plots, problems
from gdkit.types import Monitor

NETWORK: dict[str, Any] = {"widths": [32, 32], "activation": "tanh", "init_scale": 0.5, "share": 0.15}
ITERATIONS = 64  # of Lanczos: several eigenvalues come to the edge, and lie close together there
BELOW = 2 / 3  # of the edge: a run that never was lower has not come to it


class Run(NamedTuple):
    """One run, and its curvature on the way: the sharpness, or that of the preconditioned Hessian."""

    learning_rate: float
    edge: float  # the curvature above which, in theory, steps of this size are unstable
    end: Trajectory
    step: np.ndarray  # (points,), of the curvature
    curvature: np.ndarray  # (points,)

    @property
    def loss(self) -> np.ndarray:
        """Of every step, (steps + 1,)."""
        return np.asarray(self.end.loss)

    @property
    def level(self) -> float:
        """Where the curvature stays: its median over the last third."""
        return float(np.median(self.curvature[-max(1, len(self.curvature) // 3) :]))

    @property
    def arrival(self) -> int | None:
        """The step at which the curvature, having been lowest, is first seen at the edge."""
        lowest = int(np.argmin(self.curvature))
        there = np.flatnonzero(self.curvature[lowest:] >= self.edge)
        return int(self.step[lowest + there[0]]) if there.size else None

    @property
    def sharpens(self) -> bool:
        """Whether the curvature comes to the edge from well below."""
        return self.arrival is not None and bool(self.curvature.min() < BELOW * self.edge)

    @property
    def descends(self) -> bool:
        """Whether, once at the edge, the loss rises at some steps, and yet falls from third to third of the rest."""
        if self.arrival is None:
            return False
        rest = self.loss[self.arrival :]
        medians = [np.median(part) for part in np.array_split(rest, 3)]
        return bool(np.any(np.diff(rest) > 0) and np.all(np.diff(medians) < 0))


def network(settings: Mapping[str, Any]) -> Problem:
    """A network on a share of the digits, all of them at every step, by squared error.

    Under cross-entropy the curvature would fall again once the data are fitted.
    """
    return _network(tuple(settings["widths"]), settings["activation"], settings["init_scale"], settings["share"])


@functools.cache  # compiled programs belong to one problem
def _network(widths: tuple[int, ...], activation: str, init_scale: float, share: float) -> Problem:
    options: dict[str, Any] = {"activation": activation, "init_scale": init_scale, "split": (share, 0.0, 1 - share)}
    return problems.mlp("digits", widths=widths, loss="squared_error", **options)


def follow(
    problem: Problem,
    factory: Any,
    hyperparameters: Mapping[str, float],
    edge: float,
    watched: Monitor,
    *,
    steps: int,
    every: int,
) -> Run:
    """A run from the common start, with the curvature that a monitor records at each `every`-th step."""
    end = descend(problem, factory, steps, hyperparameters=hyperparameters, monitors=[watched])
    curve = next(np.asarray(value) for name, value in end.statistics.items() if name.endswith("sharpness_curve"))
    return Run(hyperparameters["learning_rate"], edge, end, np.arange(len(curve)) * every, curve)


def claims(runs: Mapping[str, Sequence[Run]], curvature: str, formulas: Sequence[str], source: str) -> list[Claim]:
    """Of every run, that it stays within 3 % of its edge; of all, how they come there and what the loss does there."""
    every = [r for group in runs.values() for r in group]
    share = lambda flags: float(np.mean(list(flags)))
    return [
        *(
            Claim(f"{curvature} at which {name} stays, η = {r.learning_rate:g}", f"{formula}; {source}",
                  r.edge, 0.03 * r.edge, r.level)
            for (name, group), formula in zip(runs.items(), formulas, strict=True) for r in group
        ),
        Claim(f"share of runs whose {curvature} comes to the edge from below two thirds of it", source, 1.0, 0.0,
              share(r.sharpens for r in every)),
        Claim("share of runs whose loss, at the edge, rises at times and falls in the long run", source, 1.0, 0.0,
              share(r.descends for r in every)),
    ]  # fmt: skip


def table(runs: Mapping[str, Sequence[Run]]) -> str:
    """A line a run: the lowest curvature, the edge, where it stays, and the last loss."""
    head = f"{'optimizer':<17}{'η':>8}{'lowest':>11}{'edge':>11}{'stays at':>11}{'of edge':>9}{'last loss':>11}"
    lines = [
        f"{name:<17}{r.learning_rate:>8g}{r.curvature.min():>11.5g}{r.edge:>11.5g}{r.level:>11.5g}"
        f"{r.level / r.edge:>9.3f}{r.loss[-1]:>11.1e}"
        for name, group in runs.items()
        for r in group
    ]
    return "\n".join([head, "-" * len(head), *lines])


def draw(runs: Mapping[str, Sequence[Run]], curvature: str, formulas: Sequence[str], *, scale: str) -> Figure:
    """A column an optimizer: above, the curvature and the edge of each learning rate; below, the loss."""
    figure = Figure(figsize=(1.2 + 4.2 * len(runs), 5.6), layout="constrained")
    upper, lower = figure.subplots(
        2, len(runs), sharex=True, sharey="row", squeeze=False, gridspec_kw={"height_ratios": (1.3, 1)}
    )
    for above, below, (name, group), formula in zip(upper, lower, runs.items(), formulas, strict=True):
        for number, r in enumerate(group):
            _draw_run(above, below, r, formula, number)
        above.set(title=name, yscale=scale)
        below.set(xlabel="step", yscale="log", xlim=(0, group[0].end.step[-1]))
        below.legend(frameon=False, fontsize="small", loc="upper right", markerscale=1.4)
    upper[0].set_ylabel(curvature)
    lower[0].set_ylabel("loss")
    return figure


def _draw_run(above: Axes, below: Axes, r: Run, formula: str, number: int) -> None:
    color, marker = (series[number % len(series)] for series in (plots.SERIES_COLORS, plots.SERIES_MARKERS))
    above.plot(r.step, r.curvature, color=color, linestyle="none", marker=marker, markersize=2.2)
    above.axhline(r.edge, color="0.15", linewidth=1.1, linestyle=(0, (4, 2)))
    value = f"{r.edge:,.0f}" if r.edge >= 1000 else f"{r.edge:.3g}"
    above.annotate(
        f"{formula} = {value}", (1, r.edge), (4, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
        va="center", fontsize="small",
    )  # fmt: skip
    apart = max(1, r.loss.size // 8)
    mark: dict[str, Any] = {"marker": marker, "markersize": 4, "markevery": (apart // 4 * (number + 1), apart)}
    below.plot(r.loss, color=color, linewidth=0.9, label=f"$\\eta$ = {r.learning_rate:g}", **mark)
