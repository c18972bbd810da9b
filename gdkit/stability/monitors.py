"""Monitors of curvature, and of how fast neighboring runs separate."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from gdkit.binding import get_run_batch
from gdkit.checks import check_choice, check_flag, check_integer
from gdkit.descent import StepInputs
from gdkit.factories import cache_if_hashable
from gdkit.problems import ProblemLike
from gdkit.stability.curvature import MATRICES
from gdkit.stability.dynamic_state import DynamicState, find_dynamic_state, split_floats, vector_map, widen
from gdkit.stability.measuring import measure_every
from gdkit.stability.norms import NORMS, generalized_sharpness
from gdkit.stability.sharpness import gauss_newton, get_learning_rate, largest_preconditioned, sharpness
from gdkit.stability.spectrum import spectral_density, trace
from gdkit.types import Array, Context, Info, Monitor, OptimizerLike, State


class _LyapunovState(NamedTuple):
    tangent: Array  # (n,), of unit length
    growth: Array  # (), mean of the logarithms so far
    count: Array  # (), their number


@cache_if_hashable(maxsize=32)
def lyapunov_exponent(
    problem: ProblemLike, optimizer: OptimizerLike, *, burn_in: int = 1000, freeze: bool = False
) -> Monitor:
    """A monitor of how fast neighboring runs separate: ``lyapunov_exponent``, a tangent's mean log-growth per step.

    The tangent is a vector in the space of the dynamic state (as in `multipliers`: the params, and what in aux and
    optimizer state moves them and is moved by them). Each step multiplies it by the derivative of the step, and scales
    it back to unit length (Benettin et al., Lyapunov characteristic exponents, 1980). On a quadratic under sgd the
    exponent is log max |1 − ηλᵢ|. Positive: runs separate, as they do in chaos. It costs about two further steps per
    step. The derivative is JAX's: it does not follow a loss through ``stop_gradient`` (a target that moves with the
    params).

    Args:
      problem, optimizer: the problem and the optimizer of the run, which monitors do not receive.
      burn_in: steps before the mean starts, in which the tangent turns into its direction; NaN in shorter runs.
      freeze: hold second moments constant, as in `multipliers`; without it, NaN where adam and similar optimizers
        meet a second moment of zero.

    Raises:
      InputTypeError, InputValueError: `burn_in` is not an integer of at least 0, or `freeze` not a bool.

    >>> from gdkit import descend, problems, sgd
    >>> watched = [lyapunov_exponent(problems.quadratic([1.0, 4.0]), sgd, burn_in=50)]
    >>> run = descend(problems.quadratic([1.0, 4.0]), sgd, 99, hyperparameters={"learning_rate": 0.1}, monitors=watched)
    >>> round(float(run.statistics["lyapunov_exponent"]), 4)  # log 0.9
    -0.1054
    """
    check_integer("burn_in", burn_in, at_least=0)
    check_flag("freeze", freeze)

    def init(state: State) -> _LyapunovState:
        leaves = jax.tree.leaves(widen(state)[0])
        vector, _ = ravel_pytree([leaves[i] for i in split_floats(state, freeze).moving])
        tangent = jax.random.normal(jax.random.key(0), vector.shape, vector.dtype)
        zero = jnp.zeros((), vector.dtype)
        return _LyapunovState(tangent / jnp.linalg.norm(tangent), zero, zero)

    def update(m: _LyapunovState, before: State, after: State, info: Info, context: Context) -> _LyapunovState:
        before, data = widen(before, context.data)
        at = before, StepInputs(context.hyperparameters, context.t, context.key, data)
        floats, dynamic = split_floats(before, freeze), find_dynamic_state(problem, optimizer, freeze, *at)
        advance, vector = vector_map(problem, optimizer, floats, *at)
        tangent = _restrict(m.tangent, before, floats, dynamic)
        tangent = tangent if dynamic == floats else tangent / jnp.linalg.norm(tangent)
        pushed = _restrict(jax.jvp(advance, (vector,), (tangent,))[1], before, floats, dynamic)
        size = jnp.linalg.norm(pushed)
        tangent = jnp.where(size == 0, tangent, pushed / jnp.where(size == 0, 1, size))
        counted = context.moves & (context.t >= burn_in)
        count = m.count + counted.astype(m.count.dtype)
        mean = m.growth + (jnp.log(size) - m.growth) / jnp.maximum(count, 1)
        mean = jnp.where((size == 0) | (m.growth == -jnp.inf), -jnp.inf, mean)  # after a step that forgets the state
        return _LyapunovState(tangent, jnp.where(counted, mean, m.growth), count)

    def read(m: _LyapunovState) -> dict[str, Array]:
        return {"lyapunov_exponent": jnp.where(m.count > 0, m.growth, jnp.nan)}

    return Monitor(init, update, read)


def _restrict(vector: Array, state: State, floats: DynamicState, dynamic: DynamicState) -> Array:
    """`vector`, (n,), of all float leaves, with zeros for leaves that take no part in the dynamics."""
    if dynamic == floats:
        return vector
    leaves = jax.tree.leaves(state)
    mask = np.concatenate([np.full(jnp.size(leaves[i]), i in dynamic.moving) for i in floats.moving])
    return jnp.where(mask, vector, 0)


@cache_if_hashable(maxsize=32)
def sharpness_every(
    problem: ProblemLike, every: int, *, which: str = "largest", iterations: int = 20, record: int = 0
) -> Monitor:
    """A monitor of the sharpness at each `every`-th step, on the step's own batch.

    It reads ``sharpness`` (the last), ``sharpness_residual`` (its accuracy) and ``sharpness_max``, and with `record`
    ``sharpness_curve``: the values at the steps 0, every, 2 · every, ..., NaN at steps that the run did not reach.
    With ``which="smallest"`` the names begin with ``smallest_curvature``.

    Args:
      problem: the problem of the run, which monitors do not receive.
      every: steps from one measurement to the next; the steps between them cost nothing.
      which: "largest" or "smallest" eigenvalue.
      iterations: most Hessian-vector products per measurement.
      record: the number of values in the curve; later values are not recorded.

    Raises:
      InputTypeError, InputValueError: `every` or `iterations` is not an integer of at least 1, or `record` of 0; an
        unknown `which`.

    >>> from gdkit import descend, problems, sgd
    >>> watched = [sharpness_every(problems.parabola(), 5, record=4)]
    >>> run = descend(problems.parabola(), sgd, 10, hyperparameters={"learning_rate": 0.1}, monitors=watched)
    >>> [round(float(x), 4) for x in (run.statistics["sharpness"], *run.statistics["sharpness_curve"])]
    [2.0, 2.0, 2.0, 2.0, nan]
    """

    check_choice("which", which, ("largest", "smallest"))

    def measure(before: State, context: Context) -> tuple[Array, Array]:
        concrete, batch = get_run_batch(problem, context)
        found = sharpness(concrete, before.params, which=which, max_iterations=iterations, batch=batch, aux=before.aux)
        return found.values[0], found.residuals[0]

    name = "sharpness" if which == "largest" else "smallest_curvature"
    return _curvature_every(name, measure, every, iterations, record)


@cache_if_hashable(maxsize=32)
def gauss_newton_every(problem: ProblemLike, every: int, *, iterations: int = 20, record: int = 0) -> Monitor:
    """A monitor of the largest eigenvalue of the Gauss-Newton matrix at each `every`-th step, on the step's own batch.

    It reads ``gauss_newton``, ``gauss_newton_residual`` and ``gauss_newton_max``, and with `record`
    ``gauss_newton_curve``, as `sharpness_every` does.

    Args:
      problem, every, iterations, record: as in `sharpness_every`; the loss as in `gauss_newton`.

    Raises:
      InputTypeError, InputValueError: as `sharpness_every`; when a run starts, as `gauss_newton`.

    >>> from gdkit import descend, problems, sgd
    >>> problem = problems.logistic_regression("iris")
    >>> run = descend(problem, sgd(0.1), 3, monitors=[gauss_newton_every(problem, 2), sharpness_every(problem, 2)])
    >>> bool(jnp.isclose(run.statistics["gauss_newton"], run.statistics["sharpness"], rtol=1e-4))
    True
    """

    def measure(before: State, context: Context) -> tuple[Array, Array]:
        concrete, batch = get_run_batch(problem, context)
        spectrum = gauss_newton(concrete, before.params, batch=batch, max_iterations=iterations)
        return spectrum.values[0], spectrum.residuals[0]

    return _curvature_every("gauss_newton", measure, every, iterations, record)


@cache_if_hashable(maxsize=32)
def trace_every(
    problem: ProblemLike, every: int, *, matrix: str = "hessian", products: int = 48, record: int = 0
) -> Monitor:
    """A monitor of the trace of the Hessian, or of the Gauss-Newton matrix, at each `every`-th step.

    It reads ``trace``, ``trace_residual`` (its standard error) and ``trace_max``, and with `record` ``trace_curve``, as
    `sharpness_every` does; the names begin with ``gauss_newton_trace`` for that matrix. All measurements have the same
    random vectors, so that differences along a run are those of the matrix.

    Args:
      problem, every, record: as in `sharpness_every`.
      matrix, products: as in `trace`.

    Raises:
      InputTypeError, InputValueError: as `sharpness_every`; an unknown matrix, or fewer than 6 products.

    >>> from gdkit import descend, problems, sgd
    >>> problem = problems.quadratic([1.0, 4.0])
    >>> run = descend(problem, sgd(0.1), 3, monitors=[trace_every(problem, 2)])
    >>> float(run.statistics["trace"]), float(run.statistics["trace_residual"])
    (5.0, 0.0)
    """
    check_choice("matrix", matrix, MATRICES)
    check_integer("products", products, at_least=6)

    def measure(before: State, context: Context) -> tuple[Array, Array]:
        concrete, batch = get_run_batch(problem, context)
        found = trace(concrete, before.params, matrix=matrix, products=products, batch=batch, aux=before.aux)
        return found.value, found.error

    return _curvature_every(_NAMES[matrix] + "trace", measure, every, 1, record)


@cache_if_hashable(maxsize=32)
def generalized_sharpness_every(
    problem: ProblemLike, every: int, norm: str, *, starts: int = 2, iterations: int = 20, record: int = 0
) -> Monitor:
    """A monitor of the sharpness in another norm at each `every`-th step, on the step's own batch.

    It reads ``sharpness_NORM``, ``sharpness_NORM_residual`` (the distance from the value to its upper bound) and
    ``sharpness_NORM_max``, and with `record` ``sharpness_NORM_curve``, as `sharpness_every` does.

    Args:
      problem, every, record: as in `sharpness_every`.
      norm, starts, iterations: as in `generalized_sharpness`.

    Raises:
      InputTypeError, InputValueError: as `sharpness_every` and `generalized_sharpness`.

    >>> from gdkit import descend, problems, sgd
    >>> problem = problems.quadratic([1.0, 4.0])
    >>> run = descend(problem, sgd(0.1), 3, monitors=[generalized_sharpness_every(problem, 2, "linf")])
    >>> round(float(run.statistics["sharpness_linf"]), 3)
    5.0
    """
    check_choice("norm", norm, NORMS)
    check_integer("starts", starts)

    def measure(before: State, context: Context) -> tuple[Array, Array]:
        concrete, batch = get_run_batch(problem, context)
        at: dict[str, Any] = {"batch": batch, "aux": before.aux}
        found = generalized_sharpness(concrete, before.params, norm, starts=starts, iterations=iterations, **at)
        return found.value, found.bound - found.value

    return _curvature_every(f"sharpness_{norm}", measure, every, iterations, record)


class _DensityState(NamedTuple):
    nodes: Array  # (probes, depth) of the last measurement, NaN before the first
    weights: Array  # (probes, depth)


@cache_if_hashable(maxsize=32)
def spectral_density_every(
    problem: ProblemLike, every: int, *, matrix: str = "hessian", probes: int = 2, depth: int = 24
) -> Monitor:
    """A monitor of the density of eigenvalues at each `every`-th step, on the step's own batch.

    It reads ``spectral_nodes`` and ``spectral_weights``, (probes, depth) each, of the last measurement; their names
    begin with ``gauss_newton_`` for that matrix. ``SpectralDensity(nodes, weights, size)`` reads densities, moments and
    counts off them.

    Args:
      problem, every: as in `sharpness_every`.
      matrix, probes, depth: as in `spectral_density`.

    Raises:
      InputTypeError, InputValueError: `every`, `probes` or `depth` is not an integer in range; an unknown matrix.

    >>> from gdkit import descend, problems, sgd
    >>> problem = problems.quadratic([1.0, 4.0])
    >>> run = descend(problem, sgd(0.1), 3, monitors=[spectral_density_every(problem, 2, depth=2)])
    >>> run.statistics["spectral_nodes"].round(3).tolist()
    [[1.0, 4.0], [1.0, 4.0]]
    """
    check_choice("matrix", matrix, MATRICES)
    for argument, value, least in (("every", every, 1), ("probes", probes, 2), ("depth", depth, 1)):
        check_integer(argument, value, at_least=least)

    def init(state: State) -> _DensityState:
        params = ravel_pytree(widen(state.params)[0])[0]
        nothing = jnp.full((probes, min(depth, params.size)), jnp.nan, params.dtype)
        return _DensityState(nothing, nothing)

    def observe(m: _DensityState, before: State, context: Context) -> _DensityState:
        concrete, batch = get_run_batch(problem, context)
        at: dict[str, Any] = {"batch": batch, "aux": before.aux}
        found = spectral_density(concrete, before.params, matrix=matrix, probes=probes, depth=depth, **at)
        return _DensityState(found.nodes, found.weights)

    def update(m: _DensityState, before: State, after: State, info: Info, context: Context) -> _DensityState:
        return jax.lax.cond(context.t % every == 0, observe, lambda m, *_: m, m, before, context)

    def read(m: _DensityState) -> dict[str, Array]:
        return {_NAMES[matrix] + "spectral_nodes": m.nodes, _NAMES[matrix] + "spectral_weights": m.weights}

    return Monitor(init, update, read)


_NAMES = {"hessian": "", "gauss_newton": "gauss_newton_"}  # prefixes of the names of statistics


@cache_if_hashable(maxsize=32)
def preconditioned_sharpness_every(
    problem: ProblemLike,
    optimizer: OptimizerLike,
    every: int,
    *,
    learning_rate: float | None = None,
    iterations: int = 20,
    record: int = 0,
) -> Monitor:
    """A monitor of the preconditioned sharpness at each `every`-th step, on the step's own batch.

    It reads ``preconditioned_sharpness``, ``preconditioned_sharpness_residual`` and ``preconditioned_sharpness_max``,
    and with `record` ``preconditioned_sharpness_curve``, as `sharpness_every` does. NaN where the preconditioner is
    not diagonal, or not positive.

    Args:
      problem, optimizer: the problem and the optimizer of the run, which monitors do not receive.
      every, iterations, record: as in `sharpness_every`.
      learning_rate: η, if it is not among the hyperparameters of the run.

    Raises:
      InputTypeError, InputValueError: `every` or `iterations` is not an integer of at least 1, or `record` of 0; and,
        when a run starts, what `preconditioned_sharpness` raises for its optimizer and learning rate.

    >>> import gdkit, optax
    >>> from gdkit import descend, problems
    >>> problem, chosen = problems.quadratic([1.0, 4.0]), {"learning_rate": 1e-3}
    >>> watched = [preconditioned_sharpness_every(problem, optax.adam, 50)]
    >>> run = descend(problem, optax.adam, 100, hyperparameters=chosen, monitors=watched)
    >>> there = gdkit.preconditioned_sharpness(problem, optax.adam, run, hyperparameters=chosen)
    >>> bool(jnp.isclose(run.statistics["preconditioned_sharpness"], there.values[0]))
    True
    """

    def measure(before: State, context: Context) -> tuple[Array, Array]:
        rate = get_learning_rate(context.hyperparameters, learning_rate)
        inputs = StepInputs(context.hyperparameters, context.t, context.key, context.data)
        depth = min(iterations, ravel_pytree(before.params)[0].size)
        spectrum, diagonal, positive = largest_preconditioned(
            problem, optimizer, before, inputs, rate, 1e-4, k=1, depth=depth
        )
        or_nan = lambda x: jnp.where(diagonal & positive, x[0], jnp.nan)
        return or_nan(spectrum.values), or_nan(spectrum.residuals)

    return _curvature_every("preconditioned_sharpness", measure, every, iterations, record)


def _curvature_every(
    name: str, measure: Callable[[State, Context], tuple[Array, Array]], every: int, iterations: int, record: int
) -> Monitor:
    """A monitor of what `measure` returns, value and residual, at each `every`-th step."""
    check_integer("iterations", iterations)
    without_sums = lambda sums, before, after, info, context: (sums, measure(before, context))
    return measure_every((name, f"{name}_residual"), without_sums, every, record)
