"""How much a wrong learning rate costs, by optimizer, and how warm-up and gradient clipping reduce this cost.

Wortsman et al. (Small-scale proxies for large-scale Transformer training instabilities, 2023) call the sensitivity of a
training E over η of [min(L(η), L₀) − L*]: the mean excess loss, over three decades of learning rates here, above the
best of them, where a run that ends above its start counts as ending there. They train transformers for many steps, with
AdamW and clipped gradients, and find that warm-up lowers the sensitivity.

Here seven optimizers train a multilayer perceptron and a transformer of 6,570 params on the digits, all with cosine
decay. The decades of each optimizer lie around its best learning rate: a claim checks this, since the number depends on
it. The runs are short, so much of the sensitivity comes from learning rates too small to converge, where warm-up costs
steps and clipping changes nothing. The benefit of both lies above the best learning rate. There it is claimed, of both
models alike, as a decrease above three standard errors over seeds. Not reproduced is a lower sensitivity over all three
decades for Adam and AdamW on the transformer: neither warm-up nor clipping changes it beyond the errors, and at an
earlier key warm-up raised it. On the perceptron clipping lowers it for optimizers whose steps grow with the gradient.
"""

import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.analysis.sensitivity import TREATMENTS, RateSensitivity, sensitivity_reduction, treat_optimizer
from experiments.common.claims import Claim
from experiments.common.drawing import draw_intervals, place_legend_below
from experiments.common.optimizers import OPTIMIZER_FACTORIES
from experiments.common.settings import complete_settings
from experiments.common.tables import format_table
from gdkit import Problem, SweepResult, plots, problems, sweep
from gdkit.errors import unknown_name

NAMES = ("sgd", "momentum", "nesterov", "adam", "adamw", "lion", "rmsprop")
DEFAULTS: dict[str, Any] = {
    "mlp": {"widths": [32, 32], "batch_size": 32},
    "transformer": {"width": 16, "heads": 2, "depth": 2, "batch_size": 32},
    "optimizers": list(NAMES),
    "lowest": {  # learning rate of each; the highest is 1,000 times larger
        "sgd": 0.03, "momentum": 0.003, "nesterov": 0.003, "adam": 6e-4, "adamw": 6e-4, "lion": 1e-4, "rmsprop": 3e-4,
    },
    "count": 10,  # of learning rates
    "warmup": 0.2,  # of the steps
    "clip_norm": 0.5,
    "steps": 150,
    "seeds": 5,
    "key": 410,  # of all random numbers
}  # fmt: skip
DECADES = 3
WORTSMAN, ZHANG = "Wortsman et al. 2023", "Zhang et al., Why gradient clipping accelerates training, 2020"


class Sensitivity(NamedTuple):
    """Result of the study."""

    settings: dict[str, Any]
    runs: dict[str, SweepResult]  # by problem

    def sensitivity(self, problem: str, family: str, treatment: str) -> RateSensitivity:
        """Losses and sensitivity of one optimizer with one treatment on one problem."""
        part = self.part(problem, family, treatment)
        shape = (-1, part.seeds)
        start = part.lanes["initial_loss"].values.reshape(shape)
        return RateSensitivity(part.axes["learning_rate"], part.scores().reshape(shape), start)

    def part(self, problem: str, family: str, treatment: str) -> SweepResult:
        """The lanes of one optimizer with one treatment on one problem."""
        at = dict(zip(("warmup", "clipping"), TREATMENTS[treatment], strict=True))
        return self.runs[problem].along("learning_rate", optimizer=family, at=at)

    def ranking(self, problem: str) -> list[str]:
        """The optimizers, the least sensitive first."""
        return sorted(
            self.settings["optimizers"], key=lambda family: self.sensitivity(problem, family, "plain").sensitivity
        )

    def __str__(self) -> str:
        lines = ["Sensitivity to the learning rate (nats) ± half the 95 % interval; the best rate is that of plain"]
        show = lambda one: f"{one.sensitivity:.3f} ±{np.ptp(one.interval) / 2:.2f}"
        for problem in self.runs:
            ranked = self.ranking(problem)
            values = {name: [self.sensitivity(problem, family, name) for family in ranked] for name in TREATMENTS}
            best = {"best rate": (".2g", [one.best for one in values["plain"]])}
            cells = {name: ("", [show(one) for one in group]) for name, group in values.items()}
            lines += ["", problem, format_table({"optimizer": ("", ranked), **best, **cells})]
        return "\n".join(lines)


def run(settings: Mapping[str, Any]) -> Sensitivity:
    """Every optimizer at every learning rate, with and without warm-up and clipping, on both problems."""
    settings = complete_settings(settings, DEFAULTS, signed=("key",))
    for name in settings["optimizers"]:
        if name not in NAMES:
            raise unknown_name("settings.optimizers", name, NAMES)
    ratios = np.geomspace(1, 10**DECADES, settings["count"])
    named = {
        name: (treat_optimizer(OPTIMIZER_FACTORIES[name], settings["steps"], settings["warmup"], settings["clip_norm"]),
               {"learning_rate": settings["lowest"][name] * ratios})
        for name in settings["optimizers"]
    }  # fmt: skip
    axes = {"optimizer": named, "warmup": [0.0, 1.0], "clipping": [0.0, 1.0]}
    options = {name: settings[name] for name in ("steps", "seeds", "key")}
    runs = {
        name: sweep(problem, None, axes, **options, statistics="ends", curve_points=0)
        for name, problem in _problems(_frozen(settings["mlp"]), _frozen(settings["transformer"])).items()
    }
    return Sensitivity(settings, runs)


def plot(result: Sensitivity) -> dict[str, Figure]:
    """One row per problem: loss against the learning rate, and sensitivity by optimizer and treatment."""
    figure = Figure(figsize=(11, 7.6), layout="constrained")
    for (left, right), problem in zip(figure.subplots(len(result.runs), 2), result.runs, strict=True):
        for number, family in enumerate(_in_order(result.settings["optimizers"])):
            plain = result.sensitivity(problem, family, "plain")
            loss = np.minimum(plain.losses, plain.start).mean(axis=1)
            left.plot(
                plain.rates,
                loss,
                label=family,
                linewidth=1.1,
                markersize=4,
                linestyle=plots.style.dashes(number),
                **plots.style.series(number),
            )
        left.set(xscale="log", yscale="log", ylabel=f"{problem}\nmin(validation loss, loss at the start)")
        plots.style.tidy_ticks(left.yaxis)
        _draw_sensitivities(right, result, problem)
    left.set_xlabel("learning rate (plain: cosine decay alone)")
    right.set_xlabel("sensitivity (nats), 95 % interval over seeds")
    for ax in (left, right):
        place_legend_below(ax, 4, drop=0.18)
    return {"learning_rate_sensitivity": plots.label_panels(figure)}


def claims(result: Sensitivity) -> list[Claim]:
    """The number is the paper's, its decades are fair, and warm-up and clipping reduce the loss above the best rate."""
    by_clipping = lambda name: (result.sensitivity("mlp", name, treatment) for treatment in ("plain", "clipping"))
    return [
        Claim.check("largest error of recommend().sensitivity against E[min(L, L₀)] − L*", WORTSMAN, 0.0, 1e-6,
              _error(result)),
        Claim.check("share of optimizers and problems whose best learning rate lies in the middle third of the decades",
              "a fair comparison", 1.0, 0.0, _centered_share(result)),
        *(claim for problem in result.runs for claim in _claims_above_best(result, problem)),
        *(_decrease(f"{name} on the mlp: clipping lowers the sensitivity", ZHANG,
                    sensitivity_reduction(*by_clipping(name)))
          for name in ("sgd", "momentum", "nesterov") if name in result.settings["optimizers"]),
    ]  # fmt: skip


def _claims_above_best(result: Sensitivity, problem: str) -> list[Claim]:
    """The same claims of every model, on the loss above the best learning rate."""
    own = lambda *names: [name for name in names if name in result.settings["optimizers"]]

    def lowers(name: str, before: str, after: str) -> np.ndarray:
        pair = (result.sensitivity(problem, name, treatment) for treatment in (before, after))
        return sensitivity_reduction(*pair, above_best=True)

    clipping, effect = {name: lowers(name, "plain", "clipping") for name in own(*NAMES)}, "the loss above the best rate"
    warmups = {"clipped": ("clipping", "both"), "not clipped": ("plain", "warm-up")}
    return [
        *(_decrease(f"{name} on the {problem}, {text}: warm-up lowers {effect}", WORTSMAN, lowers(name, *pair))
          for name in own("adam", "adamw") for text, pair in warmups.items()),
        *(_decrease(f"{name} on the {problem}: clipping lowers {effect}", ZHANG, clipping[name])
          for name in own("sgd", "momentum", "nesterov")),
        *(_decrease(f"on the {problem} clipping lowers {effect} of sgd more than that of {name}",
                    "its steps do not grow with the gradient", clipping["sgd"] - clipping[name])
          for name in own("adam", "adamw", "lion", "rmsprop") if "sgd" in clipping),
    ]  # fmt: skip


def _decrease(text: str, source: str, each: np.ndarray) -> Claim:
    """That the mean over seeds is above three standard errors: their ratio is between 0 and 1."""
    mean = float(np.mean(each))
    ratio = 3 * np.std(each, ddof=1) / len(each) ** 0.5 / mean if mean else np.inf
    return Claim.published(f"{text}: three standard errors over the mean decrease", source, 0.5, 0.5, float(ratio))


def _error(result: Sensitivity) -> float:
    """Largest difference between the library's sensitivity and the formula."""
    every = itertools.product(result.runs, result.settings["optimizers"], TREATMENTS)
    return max(
        abs((result.part(*one).recommend().sensitivity or 0) - result.sensitivity(*one).sensitivity) for one in every
    )


def _centered_share(result: Sensitivity) -> float:
    lowest = result.settings["lowest"]
    decades = [
        np.log10(result.sensitivity(problem, name, "plain").best / lowest[name])
        for problem, name in itertools.product(result.runs, result.settings["optimizers"])
    ]
    return float(np.mean(np.abs(np.array(decades) - DECADES / 2) < DECADES / 6 + 1e-6))


def _frozen(settings: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple((name, tuple(v) if isinstance(v, list) else v) for name, v in settings.items())


@functools.cache  # compiled programs belong to one problem
def _problems(mlp: tuple[tuple[str, Any], ...], transformer: tuple[tuple[str, Any], ...]) -> dict[str, Problem]:
    return {"mlp": problems.mlp(**dict(mlp)), "transformer": problems.transformer(**dict(transformer))}


def _in_order(families: Sequence[str]) -> list[str]:
    """The optimizers in the order in which every study draws them."""
    return sorted(families, key=list(OPTIMIZER_FACTORIES).index)


def _draw_sensitivities(ax: Axes, result: Sensitivity, problem: str) -> None:
    shown = _in_order(result.settings["optimizers"])
    for number, treatment in enumerate(TREATMENTS):
        values = [result.sensitivity(problem, family, treatment) for family in shown]
        value = np.array([s.sensitivity for s in values])
        interval = np.array([s.interval for s in values]).T
        heights = np.arange(len(shown)) + 0.18 * (number - 1.5)
        look: dict[str, Any] = plots.style.series(number) | {"label": treatment, "markersize": 5, "elinewidth": 1}
        draw_intervals(ax, heights, value, interval, horizontal=True, **look)
    ax.set_yticks(range(len(shown)), shown)
    ax.set_ylim(len(shown) - 0.5, -0.5)
    for place in range(1, len(shown)):
        ax.axhline(place - 0.5, color="0.85", linewidth=0.8)
    ax.set_xlim(left=0)
