"""In SGD it is the batch sharpness that rises to 2/η, while the sharpness of all data stays below.

The batch sharpness is E[gᵀHg / |g|²], the curvature of a minibatch's loss along its own gradient. Andreyev and
Beneventano (Edge of stochastic stability: revisiting the edge of stability for SGD, 2024) find that it rises to 2/η and
hovers there, and that the sharpness λ of the whole data stays lower, the more so for small batches: SGD finds flatter
regions.

A small network learns the digits with squared error, as in the paper, at learning rates at which it does not fit them
within the run: once all gradients vanish, nothing oscillates. The estimate of the batch sharpness is the mean of the
ratio over minibatches that training does not use; its level is the mean over the last third of the measurements and
over keys. These definitions and the tolerance of 15 % were fixed before the runs at the keys below. At an earlier key
one of three runs of the smallest batch diverged at a learning rate of 0.3, which was then changed to 0.27.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from experiments.common.claims import Claim
from experiments.common.settings import complete_settings
from experiments.common.tables import format_table
from gdkit import Problem, plots, problems, sgd, sweep
from gdkit.stability import batch_sharpness_every, sharpness_every

DEFAULTS: dict[str, Any] = {
    "network": {"widths": [32, 32], "init_scale": 0.3},
    "batch_sizes": [4, 8, 16],
    "learning_rates": [0.27, 0.4, 0.45],  # of each batch size
    "steps": 4000,
    "every": 100,  # steps between measurements
    "batches": 24,  # per measurement
    "seeds": 3,
    "key": 510,  # of all random numbers
}
SOURCE = "Andreyev and Beneventano 2024"


class SharpnessCurves(NamedTuple):
    """Runs of one batch size and learning rate."""

    batch_size: int
    learning_rate: float
    step: np.ndarray  # (points,)
    batch: np.ndarray  # (seeds, points) batch sharpness
    full: np.ndarray  # (seeds, points) sharpness of all data

    def level(self, curve: np.ndarray) -> float:
        """Mean over keys and the last third of the measurements, as a multiple of 2/η."""
        return float(np.mean(curve[:, -max(1, curve.shape[1] // 3) :])) * self.learning_rate / 2


class BatchSharpness(NamedTuple):
    """Result of the study."""

    settings: dict[str, Any]
    cases: list[SharpnessCurves]

    def __str__(self) -> str:
        start = [float(np.mean(case.batch[:, 0])) * case.learning_rate / 2 for case in self.cases]
        return "multiples of 2/η\n" + format_table({
            "batch": ("d", [case.batch_size for case in self.cases]),
            "η": ("g", [case.learning_rate for case in self.cases]),
            "batch sharpness at the start": (".3f", start),
            "at the plateau": (".3f", [case.level(case.batch) for case in self.cases]),
            "sharpness at the plateau": (".3f", [case.level(case.full) for case in self.cases]),
        })  # fmt: skip


def run(settings: Mapping[str, Any]) -> BatchSharpness:
    """Every batch size and learning rate from several keys."""
    settings = complete_settings(settings, DEFAULTS, signed=("key",))
    pairs = zip(settings["batch_sizes"], settings["learning_rates"], strict=True)
    return BatchSharpness(settings, [_record(settings, *pair) for pair in pairs])


def _record(settings: Mapping[str, Any], batch_size: int, rate: float) -> SharpnessCurves:
    """The runs of one batch size, with both curves."""
    every, record = settings["every"], settings["steps"] // settings["every"] + 1
    problem = network(tuple(settings["network"]["widths"]), settings["network"]["init_scale"], batch_size)
    monitors = [
        batch_sharpness_every(problem, every, batches=settings["batches"], record=record),
        sharpness_every(dataclasses.replace(problem, sample=None), every, record=record),
    ]
    options: dict[str, Any] = {name: settings[name] for name in ("steps", "seeds", "key")}
    options |= {"monitors": monitors, "statistics": "ends", "curve_points": 0}
    lanes = sweep(problem, sgd, {"learning_rate": [rate]}, **options).lanes
    curves = (lanes[name].values.astype(float) for name in ("batch_sharpness_curve", "sharpness_curve"))
    return SharpnessCurves(batch_size, rate, every * np.arange(record), *curves)


@functools.cache  # compiled programs belong to one problem
def network(widths: tuple[int, ...], init_scale: float, batch_size: int) -> Problem:
    """A network on the digits with squared error."""
    options: dict[str, Any] = {"activation": "tanh", "init_scale": init_scale, "loss": "squared_error"}
    return problems.mlp("digits", widths=widths, batch_size=batch_size, **options)


def plot(result: BatchSharpness) -> dict[str, Figure]:
    """One column per case: both curves of each key, and 2/η."""
    figure = Figure(figsize=(1 + 3.4 * len(result.cases), 3.6), layout="constrained")
    for number, (ax, case) in enumerate(zip(figure.subplots(1, len(result.cases), squeeze=False)[0], result.cases,
                                            strict=True)):  # fmt: skip
        for curve, index, label in ((case.batch, 0, "batch sharpness"), (case.full, 1, "sharpness of all data")):
            lines = ax.plot(case.step, curve.T, color=plots.SERIES_COLORS[index], linewidth=0.8, alpha=0.7)
            lines[0].set_label(label)
        ax.axhline(2 / case.learning_rate, color="0.15", linewidth=1.1, linestyle=(0, (4, 2)), label="$2/\\eta$")
        ax.set(title=f"batch {case.batch_size}, $\\eta$ = {case.learning_rate:g}", xlabel="step", ylim=(0, None))
        if number == 0:
            ax.set_ylabel("curvature")
            ax.legend(frameon=False, fontsize="small", loc="lower right")
    return {"batch_sharpness": plots.label_panels(figure)}


def claims(result: BatchSharpness) -> list[Claim]:
    """The level of each case; the sharpness below it, and lower for smaller batches; the rise from below."""
    share, cases = (lambda flags: float(np.mean(list(flags)))), sorted(result.cases, key=lambda case: case.batch_size)
    full = [case.level(case.full) for case in cases]
    start = lambda case: float(np.mean(case.batch[:, 0])) * case.learning_rate / 2
    return [
        *(Claim.published(f"batch {case.batch_size}, η = {case.learning_rate:g}: batch sharpness at the plateau, over "
                          "2/η", SOURCE, 1.0, 0.15, case.level(case.batch)) for case in cases),
        Claim.published("share of cases whose sharpness of all data at the plateau is below the batch sharpness",
                        SOURCE, 1.0, 0.0, share(case.level(case.full) < case.level(case.batch) for case in cases)),
        Claim.published("smallest batch: sharpness of all data at the plateau, over 2/η", f"well below 1: {SOURCE}",
                        0.0, 0.75, full[0]),
        Claim.published("share of neighbouring batch sizes of which the smaller has the lower sharpness of all data, "
                        "over 2/η", SOURCE, 1.0, 0.0, float(np.mean(np.diff(full) > 0))),
        Claim.published("share of cases whose batch sharpness starts below two thirds of its plateau", SOURCE, 1.0, 0.0,
                        share(start(case) < 2 / 3 * case.level(case.batch) for case in cases)),
    ]  # fmt: skip
