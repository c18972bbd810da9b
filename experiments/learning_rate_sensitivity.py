"""How much a wrong learning rate costs, by optimizer, and what warm-up and gradient clipping save of it.

Wortsman et al. (Small-scale proxies for large-scale Transformer training instabilities, 2023) call the sensitivity of a
training E over η of [min(L(η), L₀) − L*]: the mean over learning rates, here three decades at equal ratios, of what is
lost against the best of them, a run that ends above where it started counting as one that stayed there. They train
transformers for long, with AdamW and clipped gradients, and find that warm-up lowers it.

Here seven optimizers train a multilayer perceptron and a transformer of 6,570 params on the digits, all with cosine
decay. The decades of each family lie around its best learning rate: a claim holds them to that, since the number
depends on them. The runs are short, so that much of the sensitivity comes from learning rates too small to arrive, and
there warm-up costs steps. What it saves lies above the best: that part is told apart.
"""

import functools
import itertools
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.analysis.sensitivity import TREATMENTS, Spread, saved, treated
from experiments.common.best_rates import resampled
from experiments.common.claims import Claim
from experiments.common.drawing import bars, legend_below
from experiments.common.optimizers import FAMILIES
from experiments.common.printing import table
from experiments.common.settings import complete
from gdkit import Problem, SweepResult, plots, problems, sweep
from gdkit.errors import unknown_name

NAMES = ("sgd", "momentum", "nesterov", "adam", "adamw", "lion", "rmsprop")
DEFAULTS: dict[str, Any] = {
    "mlp": {"widths": [32, 32], "batch_size": 32},
    "transformer": {"width": 16, "heads": 2, "depth": 2, "batch_size": 32},
    "optimizers": list(NAMES),
    "lowest": {  # learning rate of each; the highest is 1,000 times as much
        "sgd": 0.03, "momentum": 0.003, "nesterov": 0.003, "adam": 6e-4, "adamw": 6e-4, "lion": 1e-4, "rmsprop": 3e-4,
    },
    "count": 10,  # of learning rates
    "warmup": 0.2,  # of the steps
    "clip_norm": 0.5,
    "steps": 150,
    "seeds": 5,
}  # fmt: skip
DECADES = 3
WORTSMAN, ZHANG = "Wortsman et al. 2023", "Zhang et al., Why gradient clipping accelerates training, 2020"


class Sensitivity(NamedTuple):
    """What the study found."""

    settings: dict[str, Any]
    runs: dict[str, SweepResult]  # by problem; optimizer: the families

    def spread(self, problem: str, family: str, treatment: str) -> Spread:
        """Of one optimizer on one problem."""
        part = self.part(problem, family, treatment)
        shape = (-1, part.seeds)
        start = part.lanes["initial_loss"].values.reshape(shape)
        return Spread(part.axes["learning_rate"], part.scores().reshape(shape), start)

    def part(self, problem: str, family: str, treatment: str) -> SweepResult:
        """The lanes of one optimizer on one problem."""
        at = dict(zip(("warmup", "clipping"), TREATMENTS[treatment], strict=True))
        return self.runs[problem].along("learning_rate", optimizer=family, at=at)

    def ranked(self, problem: str) -> list[str]:
        """The families, the least sensitive first."""
        return sorted(self.settings["optimizers"], key=lambda family: self.spread(problem, family, "plain").sensitivity)

    def __str__(self) -> str:
        lines = ["Sensitivity to the learning rate (nats) ± half of 95 %; the best rate is of plain"]
        said = lambda found: f"{found.sensitivity:.3f} ±{np.ptp(found.interval) / 2:.2f}"
        for problem in self.runs:
            ranked = self.ranked(problem)
            found = {name: [self.spread(problem, family, name) for family in ranked] for name in TREATMENTS}
            best = {"best rate": (".2g", [each.best for each in found["plain"]])}
            cells = {name: ("", [said(each) for each in group]) for name, group in found.items()}
            lines += ["", problem, table({"optimizer": ("", ranked), **best, **cells})]
        return "\n".join(lines)


def run(settings: Mapping[str, Any]) -> Sensitivity:
    """Every family at every learning rate, with and without warm-up and clipping, on both problems."""
    chosen = complete(settings, DEFAULTS)
    for name in chosen["optimizers"]:
        if name not in NAMES:
            raise unknown_name("settings.optimizers", name, NAMES)
    ratios = np.geomspace(1, 10**DECADES, chosen["count"])
    named = {
        name: (treated(FAMILIES[name], chosen["steps"], chosen["warmup"], chosen["clip_norm"]),
               {"learning_rate": chosen["lowest"][name] * ratios})
        for name in chosen["optimizers"]
    }  # fmt: skip
    axes = {"optimizer": named, "warmup": [0.0, 1.0], "clipping": [0.0, 1.0]}
    runs = {
        name: sweep(problem, None, axes, steps=chosen["steps"], seeds=chosen["seeds"], curve_points=0)
        for name, problem in _problems(_frozen(chosen["mlp"]), _frozen(chosen["transformer"])).items()
    }
    return Sensitivity(chosen, runs)


def plot(result: Sensitivity) -> dict[str, Figure]:
    """One figure, a row a problem: loss against the learning rate; sensitivity by optimizer and treatment."""
    figure = Figure(figsize=(11, 7.6), layout="constrained")
    for (left, right), problem in zip(figure.subplots(len(result.runs), 2), result.runs, strict=True):
        for number, family in enumerate(result.settings["optimizers"]):
            found = result.spread(problem, family, "plain")
            loss = np.minimum(found.losses, found.start).mean(axis=1)
            left.plot(found.rates, loss, label=family, linewidth=1.1, markersize=4, **plots.style.series(number))
        left.set(xscale="log", yscale="log", ylabel=f"{problem}\nmin(validation loss, loss at the start)")
        plots.style.tidy_ticks(left.yaxis)
        _draw_ranking(right, result, problem)
    left.set_xlabel("learning rate (plain: cosine decay alone)")
    right.set_xlabel("sensitivity (nats), with 95 % of resampled seeds")
    for ax in (left, right):
        legend_below(ax, 4, drop=0.18)
    return {"learning_rate_sensitivity": figure}


def claims(result: Sensitivity) -> list[Claim]:
    """That the number is the paper's, that its decades are fair, and what warm-up and clipping save."""
    chosen = result.settings["optimizers"]
    surely = lambda text, source, each: Claim(f"{text}: share of resampled seeds", source, 1.0, 0.05, _positive(each))
    by_clipping = {n: saved(*(result.spread("mlp", n, t) for t in ("plain", "clipping"))) for n in chosen}
    by_warmup = lambda n: saved(*(result.spread("transformer", n, t) for t in ("clipping", "both")), above_best=True)
    return [
        Claim("recommend().sensitivity is E[min(L, L₀)] − L*: the largest error", WORTSMAN, 0.0, 1e-6, _error(result)),
        Claim("share of optimizers and problems whose best learning rate lies in the middle third of the decades",
              "a fair comparison", 1.0, 0.0, _centred(result)),
        *(surely(f"{name}, clipped, on the transformer: warm-up lowers the loss above the best learning rate", WORTSMAN,
                 by_warmup(name))
          for name in ("adam", "adamw") if name in chosen),
        *(surely(f"{name} on the mlp: clipping lowers the sensitivity", ZHANG, by_clipping[name])
          for name in ("sgd", "momentum", "nesterov") if name in chosen),
        *(surely(f"on the mlp clipping saves sgd more than {name}", "its steps do not grow with the gradient",
                 by_clipping["sgd"] - by_clipping[name])
          for name in ("adam", "adamw", "lion", "rmsprop") if {"sgd", name} <= set(chosen)),
    ]  # fmt: skip


def _error(result: Sensitivity) -> float:
    """Between the library's sensitivity and the formula."""
    every = itertools.product(result.runs, result.settings["optimizers"], TREATMENTS)
    return max(abs((result.part(*one).recommend().sensitivity or 0) - result.spread(*one).sensitivity) for one in every)


def _centred(result: Sensitivity) -> float:
    lowest = result.settings["lowest"]
    decades = [
        np.log10(result.spread(problem, name, "plain").best / lowest[name])
        for problem, name in itertools.product(result.runs, result.settings["optimizers"])
    ]
    return float(np.mean(np.abs(np.array(decades) - DECADES / 2) < DECADES / 6 + 1e-6))


def _positive(each: np.ndarray) -> float:
    """In what share of resamples of the seeds the mean is above 0."""
    return float(np.mean(resampled(each[None])[1:] > 0))


def _frozen(settings: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple((name, tuple(v) if isinstance(v, list) else v) for name, v in settings.items())


@functools.cache  # compiled programs belong to one problem
def _problems(mlp: tuple[tuple[str, Any], ...], transformer: tuple[tuple[str, Any], ...]) -> dict[str, Problem]:
    return {"mlp": problems.mlp(**dict(mlp)), "transformer": problems.transformer(**dict(transformer))}


def _draw_ranking(ax: Axes, result: Sensitivity, problem: str) -> None:
    ranked = result.ranked(problem)
    for number, treatment in enumerate(TREATMENTS):
        found = [result.spread(problem, family, treatment) for family in ranked]
        value = np.array([s.sensitivity for s in found])
        interval = np.array([s.interval for s in found]).T
        heights = np.arange(len(ranked)) + 0.18 * (number - 1.5)
        look: dict[str, Any] = plots.style.series(number) | {"label": treatment, "markersize": 5, "elinewidth": 1}
        bars(ax, heights, value, interval, flat=True, **look)
    ax.set_yticks(range(len(ranked)), ranked)
    ax.set_ylim(len(ranked) - 0.5, -0.5)
    for place in range(1, len(ranked)):
        ax.axhline(place - 0.5, color="0.85", linewidth=0.8)
    ax.set_xlim(left=0)
