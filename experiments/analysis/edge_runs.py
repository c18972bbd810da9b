"""Runs with their curvature recorded, and the claims, table and figure that the edge-of-stability studies share."""

import functools
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.common.claims import Claim
from experiments.common.tables import format_table
from gdkit import Problem, Trajectory, descend, plots, problems
from gdkit.types import Monitor, OptimizerFactory

NETWORK: dict[str, Any] = {"widths": [32, 32], "activation": "tanh", "init_scale": 0.5, "share": 0.15}
ITERATIONS = 64  # of Lanczos: several eigenvalues reach the edge, where they lie close together
SHARE = 0.1  # of runs that may not do as most: in fresh runs one in thirty diverged at the edge
BELOW = 2 / 3  # of the edge: a run whose curvature was never lower has not risen to the edge


class CurvatureRun(NamedTuple):
    """One run, and its curvature along the way: the sharpness, or that of the preconditioned Hessian."""

    learning_rate: float
    edge: float  # the curvature above which, in theory, steps of this size are unstable
    end: Trajectory
    step: np.ndarray  # (points,), of the curvature
    curvature: np.ndarray  # (points,)
    key: int = 0  # of the initial weights

    @property
    def loss(self) -> np.ndarray:
        """Loss at every step, (steps + 1,)."""
        return np.asarray(self.end.loss)

    @property
    def plateau(self) -> float:
        """Median curvature over the last third of the run."""
        return float(np.median(self.curvature[-max(1, len(self.curvature) // 3) :]))

    @property
    def arrival_step(self) -> int | None:
        """Step at which the curvature, after its minimum, is first measured at the edge or above."""
        lowest = int(np.argmin(self.curvature))
        at_edge = np.flatnonzero(self.curvature[lowest:] >= self.edge)
        return int(self.step[lowest + at_edge[0]]) if at_edge.size else None

    @property
    def has_sharpened(self) -> bool:
        """Whether the curvature reaches the edge from well below."""
        return self.arrival_step is not None and bool(self.curvature.min() < BELOW * self.edge)

    @property
    def has_descended(self) -> bool:
        """Whether the loss, once at the edge, rises at some steps, yet falls from third to third of the rest."""
        if self.arrival_step is None:
            return False
        rest = self.loss[self.arrival_step :]
        medians = [np.median(part) for part in np.array_split(rest, 3)]
        return bool(np.any(np.diff(rest) > 0) and np.all(np.diff(medians) < 0))


def network(settings: Mapping[str, Any]) -> Problem:
    """A network on a share of the digits, full batch, with squared error.

    Under cross-entropy the curvature would fall again once the data are fitted.
    """
    return _network(tuple(settings["widths"]), settings["activation"], settings["init_scale"], settings["share"])


@functools.cache  # compiled programs belong to one problem
def _network(widths: tuple[int, ...], activation: str, init_scale: float, share: float) -> Problem:
    options: dict[str, Any] = {"activation": activation, "init_scale": init_scale, "split": (share, 0.0, 1 - share)}
    return problems.mlp("digits", widths=widths, loss="squared_error", **options)


def record_runs(
    problem: Problem,
    optimizer: OptimizerFactory,
    hyperparameters: Mapping[str, float],
    edge: float,
    monitor: Monitor,
    *,
    steps: int,
    every: int,
    keys: Iterable[int] = (0,),
) -> list[CurvatureRun]:
    """A run from the start of each key, with the curvature that `monitor` records at every `every`-th step."""
    runs = []
    for key in keys:
        end = descend(problem, optimizer, steps, hyperparameters=hyperparameters, monitors=[monitor], key=key)
        curve = next(np.asarray(value) for name, value in end.statistics.items() if name.endswith("sharpness_curve"))
        runs.append(
            CurvatureRun(hyperparameters["learning_rate"], edge, end, np.arange(len(curve)) * every, curve, key)
        )
    return runs


def group_by_rate(runs: Sequence[CurvatureRun]) -> list[list[CurvatureRun]]:
    """The runs of each learning rate, one per key."""
    return [list(group) for _, group in itertools.groupby(runs, lambda run: run.learning_rate)]


def median_plateau(runs: Sequence[CurvatureRun]) -> float:
    """The plateau at the median key; that of a run that diverged is infinite."""
    return float(np.median([run.plateau if np.isfinite(run.plateau) else np.inf for run in runs]))


def edge_claims(
    runs: Mapping[str, Sequence[CurvatureRun]], curvature: str, formulas: Sequence[str], source: str
) -> list[Claim]:
    """Runs of the median key stay within 3 % of the edge; nearly all reach it from below, and descend there."""
    all_runs = [run for group in runs.values() for run in group]
    share = lambda flags: float(np.mean(list(flags)))
    return [
        *(
            Claim.published(f"{name}, η = {per_key[0].learning_rate:g}: {curvature} at the plateau, median of keys",
                  f"{formula}; {source}", per_key[0].edge, 0.03 * per_key[0].edge, median_plateau(per_key))
            for (name, group), formula in zip(runs.items(), formulas, strict=True) for per_key in group_by_rate(group)
        ),
        Claim.published(f"share of runs whose {curvature} reaches the edge from below two thirds of it", source, 1.0,
              SHARE, share(run.has_sharpened for run in all_runs)),
        Claim.published("share of runs whose loss, at the edge, rises at some steps and falls in the long run", source,
              1.0, SHARE, share(run.has_descended for run in all_runs)),
    ]  # fmt: skip


def edge_table(runs: Mapping[str, Sequence[CurvatureRun]]) -> str:
    """One line per run: the lowest curvature, the edge, the plateau, and the last loss."""
    rows = [(name, run) for name, group in runs.items() for run in group]
    return format_table({
        "optimizer": ("", [name for name, _ in rows]),
        "η": ("g", [run.learning_rate for _, run in rows]),
        "key": ("d", [run.key for _, run in rows]),
        "lowest": (",.1f", [run.curvature.min() for _, run in rows]),
        "edge": (",.1f", [run.edge for _, run in rows]),
        "plateau": (",.1f", [run.plateau for _, run in rows]),
        "of edge": (".3f", [run.plateau / run.edge for _, run in rows]),
        "last loss": (".1e", [run.loss[-1] for _, run in rows]),
    })  # fmt: skip


def draw_edge(
    runs: Mapping[str, Sequence[CurvatureRun]], curvature: str, formulas: Sequence[str], *, scale: str
) -> Figure:
    """One column per optimizer, first key: above, the curvature and the edge of each learning rate; below, the loss."""
    runs = {name: [per_key[0] for per_key in group_by_rate(group)] for name, group in runs.items()}
    figure = Figure(figsize=(1.2 + 4.2 * len(runs), 5.6), layout="constrained")
    upper, lower = figure.subplots(
        2, len(runs), sharex=True, sharey="row", squeeze=False, gridspec_kw={"height_ratios": (1.3, 1)}
    )
    for above, below, (name, group), formula in zip(upper, lower, runs.items(), formulas, strict=True):
        for number, run in enumerate(group):
            _draw_run(above, below, run, formula, number)
        above.set(title=name, yscale=scale)
        below.set(xlabel="step", yscale="log", xlim=(0, group[0].end.step[-1]))
        below.legend(frameon=False, fontsize="small", loc="upper right", markerscale=1.4)
    upper[0].set_ylabel(curvature)
    lower[0].set_ylabel("loss")
    return plots.label_panels(figure)


def _draw_run(above: Axes, below: Axes, run: CurvatureRun, formula: str, number: int) -> None:
    color, marker = (series[number % len(series)] for series in (plots.SERIES_COLORS, plots.SERIES_MARKERS))
    above.plot(run.step, run.curvature, color=color, linestyle="none", marker=marker, markersize=2.2)
    above.axhline(run.edge, color="0.15", linewidth=1.1, linestyle=(0, (4, 2)))
    value = f"{run.edge:,.0f}" if run.edge >= 1000 else f"{run.edge:.3g}"
    above.annotate(
        f"{formula} = {value}", (1, run.edge), (4, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
        va="center", fontsize="small",
    )  # fmt: skip
    spacing = max(1, run.loss.size // 8)
    mark: dict[str, Any] = {"marker": marker, "markersize": 4, "markevery": (spacing // 4 * (number + 1), spacing)}
    below.plot(run.loss, color=color, linewidth=0.9, label=f"$\\eta$ = {run.learning_rate:g}", **mark)
