"""The best learning rate of a narrow network is that of a wide one, if steps are scaled by width (μP).

In the standard parametrization all layers have one learning rate, which must be smaller for wider networks: every
output sums over as many inputs as the network is wide, and each step changes all of them. So the best learning rate of
Adam falls as 1/width in the limit of wide networks, and that of gradient descent as 1/√width: cross-entropy tolerates
growing logits, as long as hidden layers do not grow (Haas et al., On the surprising effectiveness of large learning
rates under standard width scaling, 2025). It falls less at the widths here, where the steps of the first layer, whose
number of inputs is fixed, still matter.

Maximal update parametrization (Yang et al., Tensor Programs V, Tuning large neural networks via zero-shot
hyperparameter transfer, 2022) scales each layer's steps, so that one step changes every layer's output by the same
amount at every width (the coordinate check), and the best learning rate stays the same. The last layer starts at 0 in
both, as they advise (D.2): the parametrizations differ only in their steps, and all widths start with equal outputs.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.common.best_rates import interpolate_best_rate, is_inside, resample_means
from experiments.common.claims import Claim
from experiments.common.drawing import BORDER_LINE
from experiments.common.settings import complete_settings, geometric_grid
from experiments.common.tables import format_table
from experiments.problems.digits import validate_on_training_rows
from gdkit import Problem, SweepResult, descend, optimizers, plots, problems, sgd, sweep
from gdkit.errors import bad_value
from gdkit.types import Array, OptimizerFactory, PyTree

DEFAULTS: dict[str, Any] = {
    "widths": [64, 128, 256, 512],  # of both hidden layers; the first is the base of μP
    "batch_size": 64,
    "steps": 60,
    "seeds": 12,
    "key": 830,  # of all random numbers
    "adam": {"from": 5e-4, "to": 0.032, "count": 13},  # learning rates
    "sgd": {"from": 0.08, "to": 1.81, "count": 10},
    "check": {"steps": 4, "seeds": 5, "adam": 1e-4, "sgd": 4e-3},  # the coordinate check, at small learning rates
}
STANDARD, MUP = "standard", "μP"
FACTORIES: dict[str, OptimizerFactory] = {"adam": optax.adam, "sgd": sgd}
YANG, HAAS = "Yang et al. 2022", "Haas et al. 2025"
# Exponent of width in the limit, and its source. At finite width between a third and the whole of it is expected, and
# with μP at most a third of the smaller one, so that the tolerances of the two parametrizations do not overlap. Three
# standard errors over 10 seeds at key 0 are 0.5 and 0.3 with standard steps, 0.1 and 0.26 with μP.
DRIFT = {"adam": (-1.0, f"−1 in the limit: {YANG}"), "sgd": (-0.5, f"−1/2 in the limit: {HAAS}")}
LAYERS = ("first layer", "second layer", "outputs")


class Transfer(NamedTuple):
    """Result of the study, by (optimizer, parametrization)."""

    settings: dict[str, Any]
    runs: dict[tuple[str, str], list[SweepResult]]  # one per width
    changes: dict[tuple[str, str], np.ndarray]  # (widths, seeds, layers), mean |h_t − h_0| of the coordinate check

    def best(self, optimizer: str, kind: str) -> np.ndarray:
        """The best learning rate at each width, (widths,)."""
        return np.array([interpolate_best_rate(*_mean_losses(one)) for one in self.runs[optimizer, kind]])

    def interval(self, optimizer: str, kind: str) -> np.ndarray:
        """95 % bootstrap interval over seeds of the exponent of width in the best learning rate, (2,)."""
        samples = [
            [interpolate_best_rate(one.axes["learning_rate"], np.exp(means)) for means in means_of_logs]
            for one in self.runs[optimizer, kind]
            for means_of_logs in (resample_means(_log_losses(one)),)
        ]
        return np.quantile([self.slope(np.array(best)) for best in zip(*samples, strict=True)], [0.025, 0.975])

    def slope(self, values: np.ndarray) -> float:
        """The exponent of width in positive values, (widths,), by least squares."""
        return float(np.polyfit(np.log(self.settings["widths"]), np.log(values), 1)[0])

    def __str__(self) -> str:
        best = {key: self.best(*key) for key in self.runs}
        every = enumerate(self.settings["widths"])
        low, high = np.transpose([self.interval(*key) for key in self.runs])
        head = "Best learning rate by width, and the exponent of width in it with its 95 % interval over seeds\n"
        return head + format_table({
            "optimizer": ("", [optimizer for optimizer, _ in best]),
            "steps": ("", [kind for _, kind in best]),
            **{f"{width}": (".3g", [rates[at] for rates in best.values()]) for at, width in every},
            "exponent": (".2f", [self.slope(rates) for rates in best.values()]),
            "from": (".2f", low),
            "to": (".2f", high),
        })  # fmt: skip


def run(settings: Mapping[str, Any]) -> Transfer:
    """The learning rates of every width, in both parametrizations, and the coordinate check."""
    settings = complete_settings(settings, DEFAULTS, signed=("key",))
    if len(set(settings["widths"])) < 2:
        raise bad_value("settings.widths", settings["widths"], "no width to transfer to", "Give at least two")
    widths = settings["widths"]
    measured: dict[tuple[str, str], list[tuple[SweepResult, np.ndarray]]] = {}
    for optimizer in FACTORIES:
        measured[optimizer, STANDARD] = [_measure(settings, optimizer, STANDARD, width) for width in widths]
        wider = [_measure(settings, optimizer, MUP, width) for width in widths[1:]]
        # At the base width the two parametrizations are the same.
        measured[optimizer, MUP] = [measured[optimizer, STANDARD][0], *wider]
    runs = {key: [result for result, _ in group] for key, group in measured.items()}
    return Transfer(settings, runs, {key: np.stack([change for _, change in group]) for key, group in measured.items()})


def plot(result: Transfer) -> dict[str, Figure]:
    """One row per optimizer: loss against the learning rate and coordinate check, for each parametrization."""
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
            ax.set_ylabel("")  # the same as on the left
    for ax, side in ((axes[0, 0], "left"), (axes[0, 2], "right")):
        handles, labels = ax.get_legend_handles_labels()
        style: dict[str, Any] = {"loc": f"outside lower {side}", "ncols": len(labels), "frameon": False}
        figure.legend(handles, labels, **style)
    return {"learning_rate_transfer": plots.label_panels(figure)}


def claims(result: Transfer) -> list[Claim]:
    """Exponents of width in the best learning rate, and in the change of the outputs at one learning rate."""
    curves = [_mean_losses(one) for group in result.runs.values() for one in group]
    inside = [is_inside(rates, interpolate_best_rate(rates, losses)) for rates, losses in curves]
    result_claims = [
        Claim.check("share of best learning rates that lie inside their grid", "at an end the optimum may lie beyond",
              1.0, 0.0, float(np.mean(inside)))
    ]  # fmt: skip
    for optimizer, kind in result.runs:
        limit, source = DRIFT[optimizer] if kind == STANDARD else (0.0, f"constant: {YANG}")
        expected, tolerance = 2 / 3 * limit, abs(limit) / 3 or 1 / 6
        moved = 1.0 if kind == STANDARD else 0.0
        outputs = result.changes[optimizer, kind][..., -1].mean(axis=1)
        result_claims += [
            Claim.published(f"{optimizer}, {kind}: exponent of width in the best learning rate", source, expected,
                  tolerance, result.slope(result.best(optimizer, kind))),
            Claim.published(f"{optimizer}, {kind}: exponent of width in the change of the outputs by training",
                  f"{moved:g}: {YANG}", moved, 0.25, result.slope(outputs)),
        ]  # fmt: skip
    return result_claims


def _log_losses(result: SweepResult) -> np.ndarray:
    """Logarithms of the losses, (rates, seeds): a minibatch may throw a run far up in its last steps."""
    return np.log(result.scores().reshape(-1, result.seeds))


def _mean_losses(result: SweepResult) -> tuple[np.ndarray, np.ndarray]:
    """Learning rates, and the geometric mean of the losses over seeds at each, (rates,)."""
    return result.axes["learning_rate"], np.exp(_log_losses(result).mean(axis=1))


@functools.cache  # compiled programs belong to one problem and one optimizer
def _setup(optimizer: str, kind: str, width: int, base: int, batch_size: int) -> tuple[Problem, OptimizerFactory]:
    make = lambda width: validate_on_training_rows(
        problems.mlp("digits", widths=(width, width), zero_last=True, batch_size=batch_size)
    )
    if kind == STANDARD:
        return make(width), FACTORIES[optimizer]
    at_base = jax.eval_shape(make(base).init, jax.random.key(0))
    return make(width), optimizers.mup(FACTORIES[optimizer], at_base, optimizer)


def _measure(settings: Mapping[str, Any], optimizer: str, kind: str, width: int) -> tuple[SweepResult, np.ndarray]:
    """A sweep of learning rates, and the coordinate check, (seeds, layers)."""
    setup = _setup(optimizer, kind, width, settings["widths"][0], settings["batch_size"])
    grid, check = settings[optimizer], settings["check"]
    rates = geometric_grid(grid)
    options = {name: settings[name] for name in ("steps", "seeds", "key")}
    result = sweep(*setup, {"learning_rate": rates}, **options, statistics="ends", curve_points=0)
    keys = range(settings["key"], settings["key"] + check["seeds"])
    return result, _check(*setup, check[optimizer], check["steps"], keys)


def _check(problem: Problem, optimizer: OptimizerFactory, rate: float, steps: int, keys: Sequence[int]) -> np.ndarray:
    """mean |h_t − h_0| of each layer on the first rows of data after a few steps, (seeds, layers)."""
    run = functools.partial(descend, problem, optimizer, steps, hyperparameters={"learning_rate": rate})
    histories = [run(key=key, record_every=steps, record_params=True).params_history for key in keys]
    every = jax.tree.map(lambda *leaves: np.stack(leaves), *histories)
    return np.asarray(_last_changes(every, problem.data[0][:256]))


@jax.jit
def _last_changes(histories: PyTree, rows: Array) -> Array:
    """The changes of each layer at the end of each history, (histories, layers)."""
    return jax.lax.map(lambda history: problems.layer_changes(problems.mlp_layers, history, rows)[-1], histories)


def _draw_losses(ax: Axes, result: Transfer, optimizer: str, kind: str) -> None:
    start = max(float(one.lanes["initial_loss"].mean()) for one in result.runs[optimizer, kind])
    for number, (width, one) in enumerate(zip(result.settings["widths"], result.runs[optimizer, kind], strict=True)):
        rates, losses = _mean_losses(one)
        series = plots.style.series(number)
        shown = losses <= start  # without runs that end above their start
        ax.plot(rates[shown], losses[shown], label=f"width {width}", linewidth=1.1, markersize=4, **series)
        best = interpolate_best_rate(rates, losses)
        ax.axvline(best, color=series["color"], linewidth=1, linestyle=BORDER_LINE["linestyle"])
        ax.plot(
            best, 1, **series, markersize=4, transform=ax.get_xaxis_transform(), clip_on=False
        )  # identifies the line
    ax.set(xscale="log", yscale="log", xlabel="learning rate (dotted: best)", ylabel="loss on all training rows (nats)")
    ax.set_title(f"{optimizer}, {kind}", fontsize="medium")
    plots.style.tidy_ticks(ax.yaxis)
