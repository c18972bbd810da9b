"""The gradient noise scale tells how large a batch may be before it stops saving steps.

Tuned at every batch size B, training to a fixed loss takes S steps and reads E = B S rows. McCandlish et al. (An
empirical model of large-batch training, 2018) find S = S_min (1 + B_crit / B), so that (S/S_min − 1)(E/E_min − 1) = 1:
small batches save rows, large ones steps, and B_crit = E_min/S_min divides them. The noise scale B_simple = tr Σ/|G|²,
which is measured during a run, predicts B_crit up to a factor of two or three, as it grows along the run. Above B_crit
the best learning rate no longer grows with the batch.

A small network is trained on the digits by gradient descent until its loss on all training rows falls below a target,
at many batch sizes and learning rates. S is the mean over keys at the best rate. B_crit comes from a least-squares fit
of log S, with an interval from resampled keys.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from scipy.optimize import least_squares

from experiments.common.claims import Claim
from experiments.common.settings import complete_settings, geometric_grid
from experiments.common.tables import format_table
from experiments.problems.digits import validate_on_training_rows
from gdkit import Problem, plots, problems, sgd, sweep
from gdkit.stability import gradient_noise_scale

DEFAULTS: dict[str, Any] = {
    "width": 16,  # of the hidden layer
    "target": 0.35,  # of the loss on all training rows, in nats
    "batch_sizes": [4, 8, 16, 32, 64, 128, 256, 512],
    "rows": 6144,  # most that a run reads, and
    "steps": 60,  # the most steps of the largest batches
    "learning_rates": {"from": 0.02, "to": 4.0, "count": 12},
    "evaluations": 60,  # along a run
    "seeds": 5,
    "key": 900,  # of all random numbers
}
MCCANDLISH = "McCandlish et al. 2018"


class BatchRuns(NamedTuple):
    """Runs of one batch size."""

    batch_size: int
    rates: np.ndarray  # (rates,)
    steps: np.ndarray  # (rates, seeds) until the target, infinite where it is not reached
    noise: np.ndarray  # (seeds,) mean noise scale up to the target at the best rate

    @property
    def best(self) -> int:
        """The place of the learning rate that needs the fewest steps."""
        return int(self.steps.mean(axis=1).argmin())

    def fewest(self, seeds: Any = slice(None)) -> float:
        """Steps at the learning rate that needs the fewest, over these seeds."""
        return float(self.steps[:, seeds].mean(axis=1).min())


class NoiseScale(NamedTuple):
    """Result of the study."""

    settings: dict[str, Any]
    runs: list[BatchRuns]
    fits: np.ndarray  # (1 + samples, 2) S_min and B_crit over all keys, and over resampled keys

    @property
    def sizes(self) -> np.ndarray:
        """Batch sizes, (sizes,)."""
        return np.array([one.batch_size for one in self.runs], float)

    @property
    def measured(self) -> float:
        """The noise scale along runs, the mean of its logarithm over batch sizes and keys."""
        return float(np.exp(np.mean([np.log(one.noise).mean() for one in self.runs])))

    def __str__(self) -> str:
        fits = self.fits
        (least, critical), (low, high) = fits[0], np.quantile(fits[1:, 1], [0.025, 0.975])
        table = format_table({
            "batch": ("d", [one.batch_size for one in self.runs]),
            "best rate": (".3g", [one.rates[one.best] for one in self.runs]),
            "steps": (".1f", [one.fewest() for one in self.runs]),
            "fit": (".1f", least * (1 + critical / self.sizes)),
            "rows": (".0f", [one.batch_size * one.fewest() for one in self.runs]),
            "noise scale": (".1f", [float(np.exp(np.log(one.noise).mean())) for one in self.runs]),
        })  # fmt: skip
        return (
            f"{table}\ncritical batch size {critical:.1f} ({low:.1f} to {high:.1f}); noise scale along runs "
            f"{self.measured:.1f}"
        )


def fit_hyperbola(sizes: np.ndarray, steps: Any) -> tuple[float, float]:
    """S_min and B_crit of S = S_min (1 + B_crit / B), by least squares of log S.

    >>> [round(x, 3) for x in fit_hyperbola(np.array([1.0, 4.0, 16.0, 64.0]), 10 * (1 + 8 / np.array([1, 4, 16, 64])))]
    [10.0, 8.0]
    """
    steps = np.asarray(steps, float)
    if not np.isfinite(steps).all():
        return np.nan, np.nan
    error = lambda x: x[0] + np.log1p(np.exp(x[1]) / sizes) - np.log(steps)
    found = least_squares(error, [np.log(steps.min()), np.log(np.median(sizes))]).x
    return float(np.exp(found[0])), float(np.exp(found[1]))


def run(settings: Mapping[str, Any]) -> NoiseScale:
    """Every learning rate at every batch size."""
    settings = complete_settings(settings, DEFAULTS, signed=("key",))
    runs = [_measure(settings, size) for size in settings["batch_sizes"]]
    return NoiseScale(settings, runs, fit_runs(runs))


def fit_runs(runs: Sequence[BatchRuns]) -> np.ndarray:
    """S_min and B_crit over all keys, and over resampled keys, (1 + samples, 2)."""
    sizes, seeds = np.array([one.batch_size for one in runs], float), runs[0].steps.shape[1]
    picks = [np.arange(seeds), *np.random.default_rng(0).integers(seeds, size=(200, seeds))]
    return np.array([fit_hyperbola(sizes, [one.fewest(pick) for one in runs]) for pick in picks])


@functools.cache  # compiled programs belong to one problem
def network(width: int, batch_size: int) -> Problem:
    """A network on the digits, judged by its loss on all training rows."""
    return validate_on_training_rows(problems.mlp("digits", widths=(width,), batch_size=batch_size))


def _measure(settings: Mapping[str, Any], batch_size: int) -> BatchRuns:
    steps = max(settings["steps"], settings["rows"] // batch_size)
    every = max(1, steps // settings["evaluations"])
    problem, rates = network(settings["width"], batch_size), geometric_grid(settings["learning_rates"])
    monitor = gradient_noise_scale(problem, every, batches=4, memory=1e6, record=steps // every + 1)
    options: dict[str, Any] = {"steps": steps, "seeds": settings["seeds"], "key": settings["key"]}
    lanes = sweep(problem, sgd, {"learning_rate": rates}, **options, evaluate_every=every, monitors=[monitor],
                  statistics="ends", curve_points=0).lanes  # fmt: skip
    shape = (len(rates), settings["seeds"], -1)
    losses = lanes["validation_loss"].values.reshape(shape)
    needed = steps_to(losses, lanes["evaluation_step"].values, settings["target"])
    best = int(needed.mean(axis=1).argmin())
    curve = lanes["gradient_noise_scale_curve"].values.reshape(shape)[best]  # running averages, from the start on
    last = np.minimum(np.nan_to_num(needed[best], posinf=steps) // every, curve.shape[1] - 1).astype(int)
    return BatchRuns(batch_size, rates, needed, curve[np.arange(len(last)), last])


def steps_to(losses: np.ndarray, steps: np.ndarray, target: float) -> np.ndarray:
    """Steps until curves, (..., evaluations), fall below a target, interpolated; infinite if they do not.

    >>> steps_to(np.array([[4.0, 2.0, 1.0], [4.0, 4.0, 4.0]]), np.array([10, 20, 30]), 3.0).tolist()
    [15.0, inf]
    """
    below = losses < target
    first = below.argmax(axis=-1)
    before = np.maximum(first - 1, 0)
    at = lambda place: np.take_along_axis(losses, place[..., None], axis=-1)[..., 0]
    high, low = at(before), at(first)
    share = np.where(high > low, (high - target) / np.where(high > low, high - low, 1), 1.0)
    found = steps[before] + np.clip(np.nan_to_num(share, nan=1.0), 0, 1) * (steps[first] - steps[before])
    return np.where(below.any(axis=-1), found, np.inf)


def plot(result: NoiseScale) -> dict[str, Figure]:
    """Steps and rows against the batch size with the fit, the trade-off, and the best learning rates."""
    figure = Figure(figsize=(12, 3.9), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    sizes, (least, critical) = result.sizes, result.fits[0]
    steps = np.array([one.fewest() for one in result.runs])
    look = plots.style.series(0)
    dense = np.geomspace(sizes[0], sizes[-1], 100)
    left.loglog(sizes, steps, **look, linestyle="none", label="measured")
    left.loglog(dense, least * (1 + critical / dense), color="0.15", linewidth=1, label="fit")
    left.axvline(critical, color="0.55", linewidth=1, linestyle=":", label="$B_{crit}$")
    left.axvline(result.measured, color=plots.SERIES_COLORS[1], linewidth=1, linestyle="--", label="noise scale")
    left.set(xlabel="batch size (rows)", ylabel="steps to the target")
    middle.loglog(steps, steps * sizes, **look, linestyle="none")
    middle.loglog(least * (1 + critical / dense), least * (dense + critical), color="0.15", linewidth=1)
    middle.set(xlabel="steps", ylabel="rows read")
    right.loglog(sizes, [one.rates[one.best] for one in result.runs], **look)
    right.set(xlabel="batch size (rows)", ylabel="best learning rate")
    left.legend(frameon=False, fontsize="small")
    return {"noise_scale": plots.label_panels(figure)}


def claims(result: NoiseScale) -> list[Claim]:
    """The trade-off is the hyperbola; its critical batch size is near the noise scale."""
    sizes, (least, critical) = result.sizes, result.fits[0]
    steps = np.array([one.fewest() for one in result.runs])
    off = np.abs(np.log(steps / (least * (1 + critical / sizes)))).max()
    exponent = lambda i: float(np.log(steps[i + 1] / steps[i]) / np.log(sizes[i + 1] / sizes[i]))
    spread = np.log(result.fits[1:, 1]).std()
    return [
        Claim.published("largest log error of the steps by the hyperbola over batch sizes", MCCANDLISH, 0.0,
                        float(np.log(1.3)), float(off)),
        Claim.published("log₁₀ of the critical batch size over the noise scale along runs",
                        f"within a factor of three: {MCCANDLISH}", 0.0, float(np.log10(3)),
                        float(np.log10(critical / result.measured))),
        Claim.published("exponent of the batch size in the steps, from the smallest batch to the next", "−1: rows "
                        "decide far below B_crit", -1.0, 0.25, exponent(0)),
        Claim.published("exponent of the batch size in the steps, from the last but one batch to the largest", "0: "
                        "steps decide far above B_crit", 0.0, 0.25, exponent(-2)),
        Claim.check("standard error of the log of the critical batch size, from resampled keys", "else it is not known",
                    0.0, 0.4, float(spread)),
    ]  # fmt: skip
