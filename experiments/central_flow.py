"""The central flow predicts gradient descent at the edge of stability, where the gradient flow does not.

At the edge a run oscillates along the top eigenvectors of the Hessian. The gradient flow does not model this: its
sharpness keeps rising, and it departs from the run. The central flow (Cohen et al., Understanding optimization in deep
learning with central flows, 2025) averages over the oscillation: it finds the covariance Σ for which the sharpness
stays at 2/η, stays near the run, and predicts its mean loss to be L + ½⟨Σ, H⟩, well above the loss L on its own path.

Small networks fit polynomials from several keys. Both flows start from the params of the run when its sharpness nears
2/η: before that, the run differs from both because its steps are finite; where the slope of the loss changes slowly, it
lags behind. At the edge the run's oscillation grows from almost nothing, so that its sharpness first exceeds 2/η and
its loss then has a spike; the flow has the mean oscillation at once. Losses are therefore compared after a transient,
as means over all steps after it, since the oscillation comes and goes in cycles of some tens of steps or more; the
table has the errors of the transient too.
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from matplotlib.figure import Figure

import gdkit
from experiments.common.claims import Claim
from experiments.common.settings import complete_settings
from experiments.common.tables import format_table
from gdkit import Problem, plots, problems
from gdkit.problems import ProblemLike
from gdkit.stability import sharpness_every

DEFAULTS: dict[str, Any] = {
    "widths": [20, 20],  # of hidden layers, with tanh
    "rows": 20,  # of data, at which the network fits Chebyshev's polynomial
    "degrees": [3, 4, 5],  # of it, each with its learning rate
    "learning_rates": [0.1, 0.1, 0.1],
    "key": 100,  # of the first start
    "starts": 3,
    "approach": 3000,  # steps within which the sharpness nears the edge
    "near": 0.95,  # of the edge, where the flows start; before it where the sharpness rises past the edge at once
    "steps": 1000,  # from there
    "every": 10,  # steps between comparisons
    "transient": 250,  # steps before losses are compared
    "k": 3,  # eigenvectors along which the flow may oscillate
    "substeps": 4,
}
SOURCE = "Cohen et al., Understanding optimization in deep learning with central flows, 2025"
WINDOW = 50  # steps over which the figure averages


class FlowComparison(NamedTuple):
    """One network from one key: a run from near the edge on, and both flows beside it; NaN if it does not come near."""

    degree: int
    key: int
    edge: float  # 2/η
    begin: int  # the step of the run at which the flows start
    step: np.ndarray  # (points,) from there
    loss: np.ndarray  # (steps + 1,) of the run
    predicted: np.ndarray  # (points,) mean loss, by the central flow
    on_flow: np.ndarray  # (points,) the loss on its path
    measured: np.ndarray  # (points,) sharpness of the run
    sharpness: np.ndarray  # (points, k) of the central flow
    central: np.ndarray  # (points,) distance of its params from the run's
    gradient: np.ndarray  # (points,) distance of the gradient flow's

    def error(self, losses: np.ndarray, first: int, last: int | None = None) -> float:
        """Relative difference of the mean of `losses` from that of the run, from step `first` to before `last`."""
        chosen = slice(first, last)
        dense = np.interp(np.arange(len(self.loss)), self.step, losses)
        return float(abs(dense[chosen].mean() / self.loss[chosen].mean() - 1))


class CentralFlowStudy(NamedTuple):
    """Result of the study."""

    settings: dict[str, Any]
    cases: list[FlowComparison]

    def __str__(self) -> str:
        transient, cases = self.settings["transient"], self.cases
        return format_table({
            "degree": ("d", [case.degree for case in cases]),
            "key": ("d", [case.key for case in cases]),
            "from step": ("d", [case.begin for case in cases]),
            "at the edge": ("d", [int((case.sharpness > 0.99 * case.edge).sum(1).max()) for case in cases]),
            "error in transient": (".3f", [case.error(case.predicted, 0, transient) for case in cases]),
            "error after": (".3f", [case.error(case.predicted, transient) for case in cases]),
            "of the loss on the path": (".3f", [case.error(case.on_flow, transient) for case in cases]),
            "distance": (".3f", [case.central[-1] for case in cases]),
            "of gradient flow": (".3f", [case.gradient[-1] for case in cases]),
        })  # fmt: skip


def run(settings: Mapping[str, Any]) -> CentralFlowStudy:
    """A run and both flows for every network and key."""
    settings = complete_settings(settings, DEFAULTS, signed=("key",))
    keys = range(settings["key"], settings["key"] + settings["starts"])
    rates = zip(settings["degrees"], settings["learning_rates"], strict=True)
    return CentralFlowStudy(settings, [compare(settings, *case, key) for case in rates for key in keys])


@functools.cache  # compiled programs belong to one factory
def chebyshev(widths: tuple[int, ...], rows: int) -> ProblemLike:
    """A network with squared error on Chebyshev's polynomial of a degree at evenly spaced points.

    Its sharpness rises far and smoothly (Cohen et al., Gradient descent on neural networks typically occurs at the edge
    of stability, 2021, appendix B).
    """
    x = np.linspace(-1, 1, rows)[:, None]
    net = problems.mlp((x, 0 * x), widths=widths, activation="tanh", loss="squared_error", split=(1.0, 0.0, 0.0))
    angle = jnp.arccos(jnp.asarray(x, jnp.float32))

    def fit(degree: float) -> Problem:
        return Problem(lambda params: net.loss(params, (jnp.cos(angle), jnp.cos(degree * angle))), net.init)

    return fit


def compare(settings: Mapping[str, Any], degree: int, rate: float, key: int) -> FlowComparison:
    """Gradient descent from one key, and both flows beside it from where its sharpness nears the edge."""
    problem, steps, every = chebyshev(tuple(settings["widths"]), settings["rows"]), settings["steps"], settings["every"]
    chosen, length = {"learning_rate": rate, "problem.degree": float(degree)}, settings["approach"] + steps
    monitor = sharpness_every(problem, every, iterations=32, record=length // every + 1)
    run = gdkit.descend(
        problem, gdkit.sgd, length, hyperparameters=chosen, key=key, monitors=[monitor], record_params=True
    )
    curve, edge = np.asarray(run.statistics["sharpness_curve"], float), 2 / rate
    near = np.flatnonzero(curve[: settings["approach"] // every + 1] >= settings["near"] * edge)
    first = max(0, near[0] - (curve[near[0]] > edge)) if near.size else 0  # where it is past the edge, the one before
    begin = int(first) * every if near.size else settings["approach"]
    start = jax.tree.map(lambda history: history[begin], run.params_history)
    options: dict[str, Any] = {"start": start, "record_every": every, "record_params": True}
    central = gdkit.central_flow(
        problem, gdkit.sgd, steps, hyperparameters=chosen, k=settings["k"], substeps=settings["substeps"], **options
    )
    degree_alone = {"problem.degree": chosen["problem.degree"]}
    stable = gdkit.gradient_flow(problem, steps, learning_rate=rate, hyperparameters=degree_alone, **options)
    step, path = np.asarray(central.step), _vectors(run.params_history)[begin:]
    distance = lambda flow: np.linalg.norm(_vectors(flow.params_history) - path[step], axis=1)
    known = 1.0 if near.size else np.nan
    return FlowComparison(
        degree, key, edge, begin, step, known * np.asarray(run.loss, float)[begin : begin + steps + 1],
        np.asarray(central.predicted_loss, float), np.asarray(central.loss, float),
        np.interp(begin + step, np.arange(len(curve)) * every, curve), np.asarray(central.sharpness, float),
        known * distance(central), known * distance(stable),
    )  # fmt: skip


def _vectors(history: Any) -> np.ndarray:
    """Params at recorded steps as (points, params)."""
    return np.asarray(jax.vmap(lambda params: ravel_pytree(params)[0])(history), float)


def plot(result: CentralFlowStudy) -> dict[str, Figure]:
    """One column per network, from the first key: the losses, the sharpness, and the distances from the run."""
    cases = result.cases[:: result.settings["starts"]]
    figure = Figure(figsize=(1 + 3.6 * len(cases), 7.5), layout="constrained")
    axes = figure.subplots(3, len(cases), sharex="col", squeeze=False)
    run, central, gradient = (plots.SERIES_COLORS[i] for i in (0, 1, 2))
    for (losses, sharpness, distances), case in zip(axes.T, cases, strict=True):
        mean = np.convolve(case.loss, np.full(min(WINDOW, case.loss.size), 1 / min(WINDOW, case.loss.size)), "valid")
        losses.semilogy((case.loss.size - mean.size) // 2 + np.arange(mean.size), mean, color=run, label="mean of run")
        losses.semilogy(case.step, case.predicted, color=central, linestyle="--", label="predicted")
        losses.semilogy(case.step, case.on_flow, color=central, linestyle=":", label="on the central flow")
        losses.set_title(f"degree {case.degree}, key {case.key}")
        sharpness.plot(case.step, case.measured, color=run, linewidth=0.8)
        sharpness.plot(case.step, case.sharpness, color=central, linewidth=1)
        sharpness.axhline(case.edge, color="0.15", linewidth=1.1, linestyle=(0, (4, 2)))
        distances.plot(case.step, case.central, color=central, label="central flow")
        distances.plot(case.step, case.gradient, color=gradient, linestyle="-.", label="gradient flow")
        distances.set_xlabel("step, from near the edge")
    for ax, label in zip(axes[:, 0], ("loss", "eigenvalues, and $2/\\eta$", "distance from the run"), strict=True):
        ax.set_ylabel(label)
    axes[0, 0].legend(frameon=False, fontsize="small")
    axes[2, 0].legend(frameon=False, fontsize="small")
    return {"central_flow": plots.label_panels(figure)}


def claims(result: CentralFlowStudy) -> list[Claim]:
    """The mean loss, the distance and the sharpness of each network, at the worst of its keys."""
    transient, degrees = result.settings["transient"], result.settings["degrees"]
    groups = [[case for case in result.cases if case.degree == degree] for degree in degrees]
    closer = [case.error(case.predicted, transient) < case.error(case.on_flow, transient) for case in result.cases]
    return [
        *(claim for cases in groups for claim in _claims_of(cases, transient)),
        Claim.published("share of cases in which the predicted loss is closer to the run's mean than the loss on the "
                        "path", SOURCE, 1.0, 0.0, float(np.mean(closer))),
    ]  # fmt: skip


def _claims_of(cases: list[FlowComparison], transient: int) -> list[Claim]:
    """The claims on one network; NaN at one key is the worst."""
    name = f"degree {cases[0].degree}, worst of {len(cases)} keys"
    errors = [case.error(case.predicted, transient) for case in cases]
    ratios = [case.central[-1] / case.gradient[-1] for case in cases]
    levels = [case.sharpness.max() / case.edge for case in cases]
    return [
        Claim.published(f"{name}: relative error of the predicted mean loss, after {transient} steps", SOURCE, 0.0,
                        0.05, float(np.max(errors))),
        Claim.published(f"{name}: distance of the central flow from the run at the end, over that of gradient flow",
                        SOURCE, 0.0, 0.2, float(np.max(ratios))),
        Claim.theory(f"{name}: largest sharpness of the central flow over 2/η", "H ⪯ 2/η", 1.0, 1e-3,
                     float(np.max(levels))),
    ]  # fmt: skip
