"""The best learning rate of a narrow network is that of a wide one, if steps are scaled by width (μP).

In the standard parametrisation one learning rate serves all layers, and the wider the network, the smaller it must be:
every output sums over as many inputs as the network is wide, and each moves by a step. So the best learning rate of
Adam falls as 1/width, and that of gradient descent as 1/√width: cross-entropy bears logits that grow, as long as hidden
layers do not (Haas et al., On the surprising effectiveness of large learning rates under standard width scaling, 2025).

Maximal update parametrisation (Yang et al., Tensor Programs V, Tuning large neural networks via zero-shot
hyperparameter transfer, 2022) scales each layer's steps, so that one step changes every layer's output by as much at
every width. That is the coordinate check; and then the best learning rate stays. The last layer starts at 0 here in
both, as they advise (D.2): the parametrisations differ in nothing but steps, and all widths start with equal outputs.
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.common.best_rates import curve, inside, vertex
from experiments.common.claims import Claim
from experiments.common.drawing import BORDER
from experiments.common.printing import table
from experiments.common.settings import complete, spaced
from experiments.problems.digits import judged_on_training_rows
from gdkit import Problem, SweepResult, descend, optimizers, plots, problems, sgd, sweep
from gdkit.errors import bad_value
from gdkit.types import OptimizerFactory

DEFAULTS: dict[str, Any] = {
    "widths": [64, 128, 256, 512, 1024],  # of both hidden layers; the first is the base of μP
    "batch_size": 64,
    "steps": 60,
    "seeds": 3,
    "adam": {"from": 5e-4, "to": 0.032, "count": 13},  # learning rates
    "sgd": {"from": 0.08, "to": 1.81, "count": 10},
    "check": {"steps": 4, "seeds": 5, "adam": 1e-4, "sgd": 4e-3},  # the coordinate check, at small learning rates
}
STANDARD, MUP = "standard", "μP"
FACTORIES: dict[str, OptimizerFactory] = {"adam": optax.adam, "sgd": sgd}
YANG, HAAS = "Yang et al. 2022", "Haas et al. 2025"
# A grid step at one end of the widths moves an exponent by 0.1; seeds move the best learning rate by two or so. What is
# allowed of the two parametrisations does not overlap.
DRIFT = {"adam": (-1.0, 1 / 3, f"−1: {YANG}"), "sgd": (-0.5, 0.2, f"−1/2: {HAAS}")}  # exponent, tolerance, source
LAYERS = ("first layer", "second layer", "outputs")


class Transfer(NamedTuple):
    """What the study found, by (optimizer, parametrisation)."""

    settings: dict[str, Any]
    runs: dict[tuple[str, str], list[SweepResult]]  # one a width
    changes: dict[tuple[str, str], np.ndarray]  # (widths, seeds, layers), mean |h_t − h_0| of the coordinate check

    def best(self, optimizer: str, kind: str) -> np.ndarray:
        """The best learning rate at each width, (widths,)."""
        return np.array([vertex(*curve(found)) for found in self.runs[optimizer, kind]])

    def slope(self, values: np.ndarray) -> float:
        """The exponent of width in positive values, (widths,), by least squares."""
        return float(np.polyfit(np.log(self.settings["widths"]), np.log(values), 1)[0])

    def __str__(self) -> str:
        best = {key: self.best(*key) for key in self.runs}
        every = enumerate(self.settings["widths"])
        return "Best learning rate by width, and the exponent of width in it\n" + table({
            "optimizer": ("", [optimizer for optimizer, _ in best]),
            "steps": ("", [kind for _, kind in best]),
            **{f"{width}": (".3g", [rates[at] for rates in best.values()]) for at, width in every},
            "exponent": (".2f", [self.slope(rates) for rates in best.values()]),
        })  # fmt: skip


def run(settings: Mapping[str, Any]) -> Transfer:
    """The learning rates of every width, in both parametrisations, and the coordinate check."""
    chosen = complete(settings, DEFAULTS)
    if len(set(chosen["widths"])) < 2:
        raise bad_value("settings.widths", chosen["widths"], "no width to transfer to", "Give at least two")
    widths = chosen["widths"]
    found: dict[tuple[str, str], list[tuple[SweepResult, np.ndarray]]] = {}
    for optimizer in FACTORIES:
        found[optimizer, STANDARD] = [_measure(chosen, optimizer, STANDARD, width) for width in widths]
        wider = [_measure(chosen, optimizer, MUP, width) for width in widths[1:]]
        found[optimizer, MUP] = [found[optimizer, STANDARD][0], *wider]  # at the base width they are one
    runs = {key: [made for made, _ in group] for key, group in found.items()}
    return Transfer(chosen, runs, {key: np.stack([change for _, change in group]) for key, group in found.items()})


def plot(result: Transfer) -> dict[str, Figure]:
    """One figure, a row an optimizer, a column a parametrisation of: loss against learning rate; coordinate check."""
    figure = Figure(figsize=(13, 6.8), layout="constrained")
    axes = figure.subplots(2, 4)
    optimizers, kinds = (tuple(dict.fromkeys(names)) for names in zip(*result.runs, strict=True))
    for row, optimizer in zip(axes, optimizers, strict=True):
        row[1].sharex(row[0])
        row[1].sharey(row[0])
        row[3].sharey(row[2])
        for ax, kind in zip(row[:2], kinds, strict=True):
            _draw_losses(ax, result, optimizer, kind)
        for ax, kind in zip(row[2:], kinds, strict=True):
            plots.coordinate_check(result.settings["widths"], result.changes[optimizer, kind], labels=LAYERS, ax=ax)
            ax.get_legend().remove()
            ax.set_title(f"{optimizer}, {kind}: coordinate check", fontsize="medium")
        for ax in row[1::2]:
            ax.set_ylabel("")  # as beside it
    for ax, side in ((axes[0, 0], "left"), (axes[0, 2], "right")):
        handles, labels = ax.get_legend_handles_labels()
        style: dict[str, Any] = {"loc": f"outside lower {side}", "ncols": len(labels), "frameon": False}
        figure.legend(handles, labels, **style)
    return {"learning_rate_transfer": figure}


def claims(result: Transfer) -> list[Claim]:
    """Where the best learning rate goes with width, and what one learning rate does to outputs."""
    known = [inside(curve(found)[0], vertex(*curve(found))) for group in result.runs.values() for found in group]
    share = float(np.mean(known))
    made = [
        Claim("share of best learning rates that lie inside their grid", "else they are not known", 1.0, 0.0, share)
    ]
    for optimizer, kind in result.runs:
        expected, tolerance, source = DRIFT[optimizer] if kind == STANDARD else (0.0, 0.2, f"it stays: {YANG}")
        moved = 1.0 if kind == STANDARD else 0.0
        outputs = result.changes[optimizer, kind][..., -1].mean(axis=1)
        made += [
            Claim(f"{optimizer}, {kind}: exponent of width in the best learning rate", source, expected, tolerance,
                  result.slope(result.best(optimizer, kind))),
            Claim(f"{optimizer}, {kind}: exponent of width in how far training moves the outputs", f"{moved:g}: {YANG}",
                  moved, 0.25, result.slope(outputs)),
        ]  # fmt: skip
    return made


@functools.cache  # compiled programs belong to one problem and one factory
def _setup(optimizer: str, kind: str, width: int, base: int, batch_size: int) -> tuple[Problem, OptimizerFactory]:
    make = lambda width: judged_on_training_rows(
        problems.mlp("digits", widths=(width, width), zero_last=True, batch_size=batch_size)
    )
    if kind == STANDARD:
        return make(width), FACTORIES[optimizer]
    at_base = jax.eval_shape(make(base).init, jax.random.key(0))
    return make(width), optimizers.mup(FACTORIES[optimizer], at_base, optimizer)


def _measure(chosen: Mapping[str, Any], optimizer: str, kind: str, width: int) -> tuple[SweepResult, np.ndarray]:
    """A sweep of learning rates, and the coordinate check, (seeds, layers)."""
    setup = _setup(optimizer, kind, width, chosen["widths"][0], chosen["batch_size"])
    grid, check = chosen[optimizer], chosen["check"]
    rates = spaced(grid)
    made = sweep(*setup, {"learning_rate": rates}, steps=chosen["steps"], seeds=chosen["seeds"], curve_points=0)
    return made, _check(*setup, check[optimizer], check["steps"], check["seeds"])


def _check(problem: Problem, factory: OptimizerFactory, rate: float, steps: int, seeds: int) -> np.ndarray:
    """mean |h_t − h_0| of each layer on the first rows of data after a few steps, (seeds, layers)."""
    run = functools.partial(descend, problem, factory, steps, hyperparameters={"learning_rate": rate})
    histories = [run(key=seed, record_every=steps, record_params=True).params_history for seed in range(seeds)]
    every = jax.tree.map(lambda *leaves: np.stack(leaves), *histories)
    change = lambda history: problems.layer_changes(problems.mlp_layers, history, problem.data[0][:256])[-1]
    return np.asarray(jax.lax.map(change, every))


def _draw_losses(ax: Axes, result: Transfer, optimizer: str, kind: str) -> None:
    start = max(float(found.lanes["initial_loss"].mean()) for found in result.runs[optimizer, kind])
    for number, (width, found) in enumerate(zip(result.settings["widths"], result.runs[optimizer, kind], strict=True)):
        rates, losses = curve(found)
        series = plots.style.series(number)
        shown = losses <= start  # what ends above its start is left out
        ax.plot(rates[shown], losses[shown], label=f"width {width}", linewidth=1.1, markersize=4, **series)
        best = vertex(rates, losses)
        ax.axvline(best, color=series["color"], linewidth=1, linestyle=BORDER["linestyle"])
        ax.plot(best, 1, **series, markersize=4, transform=ax.get_xaxis_transform(), clip_on=False)  # whose it is
    ax.set(xscale="log", yscale="log", xlabel="learning rate (dotted: best)", ylabel="loss of all training rows (nats)")
    ax.set_title(f"{optimizer}, {kind}", fontsize="medium")
    plots.style.tidy_ticks(ax.yaxis)
