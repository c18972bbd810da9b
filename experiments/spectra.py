"""The spectrum of a trained network: H becomes G as the loss vanishes, and how well few products estimate its spectrum.

The Hessian of a loss is H = G + Σ rᵢ ∇²fᵢ with the Gauss-Newton matrix G and the derivatives rᵢ of the loss in the
outputs fᵢ. For squared error these are the residuals, so that H − G is of the order of √loss, while G stays; for
cross-entropy G vanishes with the loss as well. The spectra of small networks are dense, to compare with: the trace by
Hutch++ (Meyer et al. 2021), whose error bars should contain the exact value as often as stated, and the density by
stochastic Lanczos quadrature (Ghorbani, Krishnan and Xiao, An investigation into neural net optimization via Hessian
eigenvalue density, 2019).

Not reproduced: for a trained classifier of C classes, C eigenvalues (Papyan, Traces of class/cross-class structure
pervade deep learning spectra, 2020) or C − 1 (Ghorbani et al. 2019) stand apart from the rest. By a rule that was fixed
before the runs, those above the widest ratio between neighbors among the 3 C largest eigenvalues of G after training to
a low loss, these networks do not have as many with either loss at all keys: the table has their numbers.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from matplotlib.figure import Figure
from scipy.stats import t as student

from experiments.common.claims import Claim
from experiments.common.settings import complete_settings
from experiments.common.tables import format_table
from gdkit import Problem, descend, plots, problems
from gdkit.stability import curvature_product, spectral_density, trace
from gdkit.types import Array, Key, Params

DEFAULTS: dict[str, Any] = {
    "width": 10,  # of the hidden layer, with tanh
    "rows": 200,  # of the digits, which the network fits
    "losses": ["squared_error", "cross_entropy"],
    "learning_rate": 0.01,  # of adam
    "steps": 2000,
    "checkpoints": 5,  # at equal ratios of steps, for H − G
    "traces": 40,  # estimates of the trace per network
    "products": 48,  # per estimate
    "probes": 16,  # of the density
    "depth": 40,
    "seeds": 3,
    "key": 300,  # of all random numbers
}
CLASSES = 10
MEYER, GHORBANI = "Meyer et al. 2021", "Ghorbani et al. 2019"


class Network(NamedTuple):
    """One network from one key, at its checkpoints and at the end."""

    name: str  # of its loss
    key: int
    loss: np.ndarray  # (checkpoints,)
    difference: np.ndarray  # (checkpoints,) Frobenius norm of H − G over that of G
    eigenvalues: np.ndarray  # (params,) of the Hessian at the end, ascending, dense
    outer: np.ndarray  # (3 C,) the largest eigenvalues of G at the end, descending
    traces: np.ndarray  # (traces, 2) estimates, and their standard errors
    counts: tuple[float, ...]  # eigenvalues above a tenth of the largest: dense, estimated, standard error
    mean_square: tuple[float, ...]  # of the eigenvalues: likewise

    @property
    def outliers(self) -> int:
        """The number of eigenvalues of G above the widest ratio between neighbours."""
        return int(np.argmax(self.outer[:-1] / self.outer[1:])) + 1

    @property
    def exponent(self) -> float:
        """Of the loss in ‖H − G‖ over ‖G‖, by least squares over the checkpoints after the first."""
        return float(np.polyfit(np.log(self.loss[1:]), np.log(self.difference[1:]), 1)[0])


class Spectra(NamedTuple):
    """Result of the study."""

    settings: dict[str, Any]
    networks: list[Network]

    @property
    def held(self) -> np.ndarray:
        """Whether each estimate of a trace is within two standard errors, (networks · traces,)."""
        return np.concatenate(
            [np.abs(n.traces[:, 0] - n.eigenvalues.sum()) <= 2 * n.traces[:, 1] for n in self.networks]
        )

    def __str__(self) -> str:
        networks = self.networks
        return format_table({
            "loss": ("", [n.name for n in networks]),
            "key": ("d", [n.key for n in networks]),
            "last loss": (".1e", [n.loss[-1] for n in networks]),
            "‖H − G‖/‖G‖ first": (".3f", [n.difference[0] for n in networks]),
            "last": (".4f", [n.difference[-1] for n in networks]),
            "outliers": ("d", [n.outliers for n in networks]),
            "ratio at C − 1": (".2f", [n.outer[CLASSES - 2] / n.outer[CLASSES - 1] for n in networks]),
            "at C": (".2f", [n.outer[CLASSES - 1] / n.outer[CLASSES] for n in networks]),
            "trace": (".4g", [n.eigenvalues.sum() for n in networks]),
            "mean estimate": (".4g", [n.traces[:, 0].mean() for n in networks]),
        })  # fmt: skip


def run(settings: Mapping[str, Any]) -> Spectra:
    """Networks with either loss from several keys."""
    settings = complete_settings(settings, DEFAULTS, signed=("key",))
    keys = range(settings["key"], settings["key"] + settings["seeds"])
    return Spectra(settings, [_measure(settings, loss, key) for loss in settings["losses"] for key in keys])


@functools.cache  # compiled programs belong to one problem
def network(width: int, rows: int, loss: str) -> Problem:
    """A network with one hidden layer on some rows of the digits, full batch."""
    share = rows / 1797
    return problems.mlp("digits", widths=(width,), activation="tanh", loss=loss, split=(share, 0.0, 1 - share))


def _measure(settings: Mapping[str, Any], name: str, key: int) -> Network:
    problem, steps = network(settings["width"], settings["rows"], name), settings["steps"]
    at = np.unique(np.geomspace(steps / 20, steps, settings["checkpoints"]).round().astype(int))
    run = descend(problem, optax.adam, steps, hyperparameters={"learning_rate": settings["learning_rate"]}, key=key,
                  record_params=True)  # fmt: skip
    places = [jax.tree.map(lambda history, i=i: history[i], run.params_history) for i in at]
    whole = lambda matrix, place: np.asarray(dense(problem, matrix)(place), float)
    matrices = [(whole("hessian", place), whole("gauss_newton", place)) for place in places]
    difference = [np.linalg.norm(h - g) / np.linalg.norm(g) for h, g in matrices]
    last, values = places[-1], np.linalg.eigvalsh(matrices[-1][0])
    estimate = _estimate_trace(problem, settings["products"])
    draws = jax.random.split(jax.random.key(key), settings["traces"])
    traces = np.array([estimate(last, draw) for draw in draws], float)
    density = _estimate_density(problem, settings["probes"], settings["depth"])(last, jax.random.key(key))
    border, second = values[-1] / 10, density.moment(2)
    counts = float(np.sum(values > border)), *map(float, density.count_above(border))
    outer = np.linalg.eigvalsh(matrices[-1][1])[::-1][: 3 * CLASSES]
    squares = float(np.mean(values**2)), *map(float, second)
    return Network(name, key, np.asarray(run.loss, float)[at], np.array(difference), values, outer,
                   traces, counts, squares)  # fmt: skip


@functools.cache  # compiled programs serve all params
def dense(problem: Problem, matrix: str) -> Callable[[Params], Array]:
    """A function of params to the Hessian or the Gauss-Newton matrix, written down whole, (params, params)."""

    def write(params: Params) -> Array:
        vector, unravel = ravel_pytree(params)
        apply = curvature_product(problem, params, matrix=matrix)
        return jax.lax.map(lambda row: ravel_pytree(apply(unravel(row)))[0], jnp.eye(vector.size), batch_size=64)

    return jax.jit(write)


@functools.cache
def _estimate_trace(problem: Problem, products: int) -> Callable[[Params, Key], Any]:
    return jax.jit(lambda params, key: jnp.stack(trace(problem, params, products=products, key=key)[:2]))


@functools.cache
def _estimate_density(problem: Problem, probes: int, depth: int) -> Callable[[Params, Key], Any]:
    return jax.jit(lambda params, key: spectral_density(problem, params, probes=probes, depth=depth, key=key))


def plot(result: Spectra) -> dict[str, Figure]:
    """H − G against the loss; the outer eigenvalues of G; the estimates of the trace in standard errors."""
    figure = Figure(figsize=(12.5, 3.8), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    for number, name in enumerate(result.settings["losses"]):
        look, mine = plots.style.series(number), [n for n in result.networks if n.name == name]
        for place, one in enumerate(mine):
            label = name.replace("_", " ") if place == 0 else None
            left.loglog(one.loss, one.difference, **look, linewidth=0.8, markersize=4, label=label)
            middle.semilogy(np.arange(1, len(one.outer) + 1), one.outer, **look, linewidth=0.8, markersize=3)
        errors = np.concatenate([(n.traces[:, 0] - n.eigenvalues.sum()) / n.traces[:, 1] for n in mine])
        right.hist(errors, bins=np.linspace(-4, 4, 33), color=look["color"], alpha=0.6)
    left.set(xlabel="loss", ylabel="‖H − G‖ / ‖G‖")
    left.legend(frameon=False, fontsize="small")
    for border in (CLASSES - 0.5, CLASSES + 0.5):
        middle.axvline(border, color="0.15", linewidth=0.8, linestyle=(0, (1, 1.2)))
    middle.set(xlabel="place", ylabel="eigenvalue of G (dotted: C − 1, C)")
    right.set(xlabel="error of the trace in standard errors", ylabel="estimates")
    return {"spectra": plots.label_panels(figure)}


def claims(result: Spectra) -> list[Claim]:
    """H tends to G, and estimates are as accurate as they say."""
    squared = [n for n in result.networks if n.name == "squared_error"]
    # the standard error of a mean of products/3 samples has as many degrees of freedom, less one
    expected = 1 - 2 * student.sf(2, result.settings["products"] // 3 - 1)
    spread = 3 * np.sqrt(expected * (1 - expected) / len(result.held))
    off = lambda triple: abs(triple[0] - triple[1]) / max(triple[2], 1e-12)
    limit = float(student.isf(0.00135, result.settings["probes"] - 1))  # as rare as three standard errors
    return [
        Claim.theory("squared error: exponent of the loss in ‖H − G‖/‖G‖, mean over keys", "1/2: H − G is linear in "
                     "the residuals", 0.5, 0.2, float(np.mean([n.exponent for n in squared]))),
        Claim.theory("squared error: largest ‖H − G‖/‖G‖ at the end", "0: H − G vanishes with the loss", 0.0, 0.05,
                     max(n.difference[-1] for n in squared)),
        Claim.theory("share of estimates of the trace within two standard errors", f"Student's t; {MEYER}",
                     float(expected), float(spread), float(result.held.mean())),
        Claim.theory("density: largest error of the number of eigenvalues above a tenth of the largest, in standard "
                     "errors", f"unbiased; {GHORBANI}", 0.0, limit, max(off(n.counts) for n in result.networks)),
        Claim.theory("density: largest error of the mean square of the eigenvalues, in standard errors",
                     "exact for each probe", 0.0, limit, max(off(n.mean_square) for n in result.networks)),
    ]  # fmt: skip
