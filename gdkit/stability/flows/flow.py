"""Flows of optimizers: the gradient flow, and the central flow, which follows the mean of a run that oscillates."""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.experimental.ode import odeint
from jax.flatten_util import ravel_pytree

from gdkit import binding, checks, descent, optimizers
from gdkit.binding import Arrays
from gdkit.descent import StepInputs, given_state
from gdkit.errors import GdkitWarning, bad_type, bad_value
from gdkit.factories import cache_if_hashable
from gdkit.problems import ProblemLike
from gdkit.stability.dynamic_state import find_dynamic_state, widen
from gdkit.stability.flows.oscillation import Flow, Point, System, advance, find_directions
from gdkit.stability.preconditioners import Preconditioner
from gdkit.stability.sharpness import get_learning_rate
from gdkit.trees import select
from gdkit.types import Array, Hyperparameters, Key, OptimizerLike, Params, PyTree, State, StaticHyperparameters


class GradientFlow(NamedTuple):
    """The gradient flow dθ/dt = −∇L at recorded times."""

    params: Params  # at the end
    step: Array  # (points,) int32; the time is the learning rate times it
    loss: Array  # (points,)
    distance: Array  # (points,) of the params from their start
    params_history: Params | None = None  # (points, ...), with `record_params`


class CentralFlow(NamedTuple):
    """The central flow at recorded times.

    Covariances are in the basis of the k top eigenvectors at their time, u₁ to u_k, which are orthonormal for gradient
    descent, and otherwise in the scalar product of the preconditioner: Σ = ∑ covariance[i, j] uᵢ uⱼᵀ.
    """

    params: Params  # at the end
    step: Array  # (points,) int32, in steps of the optimizer
    loss: Array  # (points,) at the params of the flow
    predicted_loss: Array  # (points,) L + ½⟨Σ, H⟩, the mean loss of the run that oscillates around them
    distance: Array  # (points,) of the params from their start
    sharpness: Array  # (points, k), descending; preconditioned, unless the optimizer is gradient descent
    covariance: Array  # (points, k, k) Σ, of the oscillation
    edge: Array  # (points,) 2/η, where the oscillation keeps the sharpness
    eigenvectors: Array  # (k, params) at the end, of unit length in their scalar product
    params_history: Params | None = None  # (points, ...), with `record_params`


def gradient_flow(
    problem: ProblemLike,
    steps: int,
    *,
    learning_rate: float,
    hyperparameters: Hyperparameters | None = None,
    key: int | Key = 0,
    start: State | PyTree = None,
    record_every: int = 1,
    record_params: bool = False,
    rtol: float = 1e-5,
) -> GradientFlow:
    """The gradient flow dθ/dt = −∇L for the time of `steps` steps of gradient descent.

    Gradient descent stays within O(η) of it while its sharpness is below 2/η (Elkabetz and Cohen, Continuous vs.
    discrete optimization of deep neural networks, 2021). Integrated by the method of Dormand and Prince with adaptive
    steps, about eight gradients per step or more.

    Args:
      problem: a Problem, or a factory of one, that is deterministic: without `sample`, `batches` and `has_aux`.
      steps: the number of steps; the flow ends at the time learning_rate · steps.
      learning_rate: the time of a step.
      hyperparameters: those of the problem, named ``problem.NAME``.
      key, start: as in `descend`.
      record_every: record each n-th step, and the last.
      record_params: record the params too.
      rtol: relative tolerance of the params per step of the integration.

    Raises:
      InputTypeError, InputValueError: an argument cannot be used; the problem is not deterministic.

    >>> from gdkit import problems
    >>> flow = gradient_flow(problems.quadratic([1.0, 4.0]), 10, learning_rate=0.1)
    >>> bool(jnp.allclose(flow.params, jnp.exp(-jnp.array([1.0, 4.0])), rtol=1e-4))
    True
    """
    checks.check_number("learning_rate", learning_rate, above=0)
    checks.check_number("rtol", rtol, above=0)
    checks.check_flag("record_params", record_params)
    chosen = checks.as_hyperparameters(hyperparameters) | {"learning_rate": learning_rate}
    arrays, static, traced = _bind(problem, optimizers.sgd, chosen, steps, record_every, start, key)
    program = _compile_gradient_flow(problem, static, steps, record_every, record_params, float(rtol))
    return program(traced, checks.as_key(key), arrays)


def central_flow(
    problem: ProblemLike,
    optimizer: OptimizerLike,
    steps: int,
    *,
    hyperparameters: Hyperparameters | None = None,
    learning_rate: float | None = None,
    k: int | None = None,
    key: int | Key = 0,
    start: State | PyTree = None,
    substeps: int = 4,
    record_every: int = 1,
    record_params: bool = False,
) -> CentralFlow:
    """The central flow of an optimizer: the path that the mean of its oscillations follows, and their covariance.

    Where the sharpness of a full-batch run reaches 2/η, the run oscillates along the top eigenvectors, and the
    oscillation, by the third derivatives of the loss, holds the sharpness there. The central flow averages over it
    (Cohen, Damian, Talwalkar, Kolter and Lee, Understanding optimization in deep learning with central flows, 2025):

        dθ/dt = −P⁻¹ ∇(L + ½⟨Σ, H⟩),  with 0 ⪯ Σ ⊥ 2P − H ⪰ 0 for all t,

    where P is 1/η for gradient descent and diag(√ν + ε)/η for RMSProp, whose second moments ν follow
    (1 − β₂)/β₂ (∇L² + diag(HΣH) − ν). The mean loss of the run is predicted to be L + ½⟨Σ, H⟩. The complementarity
    problem is solved at every substep for the next one, as in the paper's appendix, in the space of the k top
    eigenvectors, which block Lanczos updates from the last substep's. Where nothing is at the edge this is the stable
    flow −P⁻¹∇L, for gradient descent the gradient flow; it is integrated by the method of Runge and Kutta.

    A substep at the edge takes k (k + 1) / 2 third derivatives and 3 k Hessian-vector products. The time of a step is
    1, and a schedule's rate is constant within it.

    Args:
      problem: a Problem, or a factory of one, that is deterministic: without `sample`, `batches` and `has_aux`, and
        whose loss has third derivatives (a network with smooth activations).
      optimizer: gradient descent (gdkit or optax), `optax.rmsprop`, `gdkit.optimizers.scalar_rmsprop`, `optax.adam`
        with ``b1=0``, or others of their form; momentum, weight decay and clipping are refused.
      steps: the number of steps of the optimizer.
      hyperparameters: name to value, for the factories.
      learning_rate: η, if it is not among `hyperparameters`, in whose units the sharpness is for an RMSProp.
      k: the number of eigenvectors along which a run may oscillate, None: 4, or the number of params where that is
        less; a warning says when it is too few.
      key, start: as in `descend`. Second moments that start at zero give a first step of RMSProp that no flow
        describes: start from the `state` of a `descend` of some steps.
      substeps: per step.
      record_every: record each n-th step, and the last.
      record_params: record the params too.

    Raises:
      InputTypeError, InputValueError: an argument cannot be used; the problem is not deterministic; the central flow of
        the optimizer is not known; the sharpness at the start is above 2/η.

    >>> from gdkit import Problem, sgd
    >>> valley = Problem(lambda p: 0.5 * (4 + p[0]) * p[1] ** 2 - p[0], init=jnp.array([-1.0, 0.0]))
    >>> flow = central_flow(valley, sgd, 40, hyperparameters={"learning_rate": 0.4}, k=1)
    >>> round(float(flow.sharpness[-1, 0]), 2), round(float(flow.covariance[-1, 0, 0]), 2)  # 2/η, and ½Σ balances 1
    (5.0, 2.0)
    """
    checks.check_integer("substeps", substeps)
    checks.check_integer("k", 1 if k is None else k)
    checks.check_flag("record_params", record_params)
    chosen = checks.as_hyperparameters(hyperparameters)
    arrays, static, traced = _bind(problem, optimizer, chosen, steps, record_every, start, key)
    size = sum(x.size for x in jax.tree.leaves(binding.get_params_shape(binding.resolve_problem(problem, chosen)[0])))
    k = min(4, size) if k is None else k
    if k > size:
        raise bad_value("k", k, f"there are only {size} params", f"Pass at most {size}")
    rate = chosen.get("learning_rate", learning_rate)
    program = _compile_central_flow(problem, optimizer, static, steps, k, substeps, record_every, record_params)
    rate_or_nan = jnp.nan if rate is None or callable(rate) else rate
    is_described = _compile_check(problem, optimizer, static)(traced, checks.as_key(key), arrays)
    if not isinstance(is_described, Tracer) and not is_described:
        raise bad_type("optimizer", optimizer, "its central flow is not known", _DERIVED)
    flow, outside = program(traced, checks.as_key(key), arrays, rate_or_nan)
    if not isinstance(flow.loss, Tracer):
        if jnp.isnan(flow.edge[0]):
            get_learning_rate(chosen, learning_rate)  # raises: it is unknown
        _check_flow(flow, np.asarray(outside))
    return flow


_DERIVED = (
    "It is derived for gradient descent, for RMSProp with one second moment per param or one for all, and for adam "
    "with b1=0; without momentum, weight decay and clipping"
)


_FAR = 1.05  # times 2/η, which the oscillation holds to a thousandth


def _check_flow(flow: CentralFlow, outside: np.ndarray) -> None:
    """Raise for a start above the edge; warn of a flow that leaves it or is not finite, or has too few eigenvectors.

    `outside`, (points,), is the next eigenvalue, along which the flow does not oscillate.
    """
    sharpness, edge = np.asarray(flow.sharpness), np.asarray(flow.edge)
    if sharpness[0, 0] > _FAR * edge[0]:
        remedy = "Start from the state of a descend of some steps (start=run.state), or lower the learning rate"
        problem = f"the sharpness there is above 2/η = {edge[0]:.4g}, where no central flow begins"
        raise bad_value("sharpness at the start", float(sharpness[0, 0]), problem, remedy)
    has_left = ~(sharpness[:, 0] <= _FAR * edge) | ~np.isfinite(flow.loss)
    if has_left.any():
        text = f"The central flow is far above 2/η or not finite at step {int(np.asarray(flow.step)[has_left][0])}"
        warnings.warn(f"{text}. Raise substeps or k.", GdkitWarning, stacklevel=3)
    elif np.any(outside > edge):
        first, k = int(np.asarray(flow.step)[outside > edge][0]), sharpness.shape[1]
        text = f"At step {first} of the central flow more than {k} eigenvalues are at 2/η. Raise k."
        warnings.warn(text, GdkitWarning, stacklevel=3)


def _bind(
    problem: ProblemLike,
    optimizer: OptimizerLike,
    chosen: dict[str, Any],
    steps: int,
    record_every: int,
    start: Any,
    key: int | Key,
) -> tuple[Arrays, StaticHyperparameters, dict[str, Array]]:
    """The arrays and hyperparameters of a flow; raise unless the problem is deterministic."""
    checks.check_integer("steps", steps)
    checks.check_integer("record_every", record_every)
    arrays, static, traced = binding.bind(problem, optimizer, chosen)
    concrete, _ = binding.resolve_problem(problem, chosen)
    for name, is_given in (("sample", concrete.sample is not None), ("has_aux", concrete.has_aux)):
        if is_given:
            remedy = "Pass a Problem whose loss is a function of params and data alone, on all data"
            raise bad_value("problem", concrete.name or concrete.loss, f"it has {name}, and a flow has none", remedy)
    binding.check_run(problem, optimizer, chosen, checks.as_key(key), arrays)
    if start is not None:
        arrays = arrays._replace(start=given_state.as_state(start))
    return arrays, static, traced


def _record_steps(steps: int, record_every: int) -> np.ndarray:
    return np.append(np.arange(0, steps, record_every), steps).astype(np.int32)


# Gradient flow


@cache_if_hashable(maxsize=32)
def _compile_gradient_flow(*settings: Any) -> Callable[..., GradientFlow]:
    return jax.jit(lambda *arguments: _integrate_gradient_flow(*settings, *arguments))


def _integrate_gradient_flow(
    problem: ProblemLike,
    static: StaticHyperparameters,
    steps: int,
    record_every: int,
    record_params: bool,
    rtol: float,
    traced: dict[str, Array],
    key: Key,
    arrays: Arrays,
) -> GradientFlow:
    hyperparameters = dict(static) | traced
    concrete, built = binding.resolve(problem, optimizers.sgd, hyperparameters)
    init_key, _ = descent.split_key(key)
    state = descent.initial_state(problem, optimizers.sgd, hyperparameters, init_key, arrays)
    params, data = widen(state.params, arrays.data)
    first, unravel = ravel_pytree(params)
    loss = lambda x: binding.objective(concrete, built, data, ())(unravel(x))[0]
    at = _record_steps(steps, record_every)
    time = traced["learning_rate"].astype(first.dtype) * jnp.asarray(at, first.dtype)
    slope = lambda x, t: -jax.grad(loss)(x)

    def follow(x: Array, interval: Array) -> tuple[Array, Any]:
        after = odeint(slope, x, jnp.stack([jnp.zeros_like(interval), interval]), rtol=rtol, atol=rtol * 1e-2)[-1]
        return after, (loss(after), jnp.linalg.norm(after - first), after if record_params else ())

    last, (losses, distances, history) = jax.lax.scan(follow, first, jnp.diff(time))
    losses, distances = jnp.append(loss(first), losses), jnp.append(0.0, distances)
    history = jax.vmap(unravel)(jnp.concatenate([first[None], history])) if record_params else None
    return GradientFlow(unravel(last), jnp.asarray(at), losses, distances, history)


# Central flow


@cache_if_hashable(maxsize=32)
def _compile_central_flow(*settings: Any) -> Callable[..., tuple[CentralFlow, Array]]:
    return jax.jit(lambda *arguments: _integrate_central_flow(*settings, *arguments))


def _integrate_central_flow(
    problem: ProblemLike,
    optimizer: OptimizerLike,
    static: StaticHyperparameters,
    steps: int,
    k: int,
    substeps: int,
    record_every: int,
    record_params: bool,
    traced: dict[str, Array],
    key: Key,
    arrays: Arrays,
    rate: Array,
) -> tuple[CentralFlow, Array]:
    preconditioner, loss, _ = _resolve(problem, optimizer, dict(static) | traced, key, arrays)
    system, flow = _start(preconditioner, loss, rate, k)
    first, (_, unravel) = flow.vector, ravel_pytree(preconditioner.state.params)
    at = _record_steps(steps, record_every)
    lengths = np.append(np.diff(at), 0)  # of the intervals; a substep whose result is dropped records the last point

    def substep(i: Array, carry: tuple[Flow, Point]) -> tuple[Flow, Point]:
        after, point = advance(system, carry[0], k, 1.0 / substeps)
        counted = preconditioner.update(jnp.zeros_like(first), after.moments, after.opt_state)[2]
        ends_step = (i + 1) % substeps == 0
        after = after._replace(opt_state=select(ends_step, counted, after.opt_state))
        return after, select(i == 0, point, carry[1])  # that of the start of an interval

    def record(carry: tuple[Flow, Point, Array], length: Array) -> tuple[tuple[Flow, Point, Array], Any]:
        before, point, _ = carry
        after, point = jax.lax.fori_loop(0, jnp.maximum(length * substeps, 1), substep, (before, point))
        distance = jnp.linalg.norm(before.vector - first)
        seen = point._replace(eigenvectors=()), distance, before.vector if record_params else ()
        return (after, point, before.vector), seen

    shape = jax.eval_shape(lambda flow: advance(system, flow, k, 1.0 / substeps)[1], flow)
    nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shape)
    (_, end, last), seen = jax.lax.scan(record, (flow, nothing, first), jnp.asarray(lengths))
    points, distances, history = seen
    history = jax.vmap(unravel)(history) if record_params else None
    path = points.loss, points.predicted_loss, distances, points.sharpness, points.covariance, points.edge
    flow = CentralFlow(unravel(last), jnp.asarray(at), *path, end.eigenvectors, history)
    return flow, points.outside


def _start(preconditioner: Preconditioner, loss: Callable[[Array], Array], rate: Array, k: int) -> tuple[System, Flow]:
    """The functions of a flow, and where it starts: with the second moments after the first gradient."""
    state = preconditioner.state
    vector, _ = ravel_pytree(state.params)
    before = preconditioner.get_moments(state.opt_state)
    moments = preconditioner.update(jax.grad(loss)(vector), before, state.opt_state)[1]
    system = System(loss, preconditioner, jnp.asarray(rate, vector.dtype))
    block = min(k + 1, vector.size)  # one more than needed, so that a rising eigenvalue is found in time
    starts, _ = jnp.linalg.qr(jax.random.normal(jax.random.key(0), (vector.size, block), vector.dtype))
    inverse = preconditioner.inverse(moments, state.opt_state)
    refine = lambda _, found: find_directions(system, vector, inverse, found)[1]
    directions = jax.lax.fori_loop(0, _REFINEMENTS, refine, starts.T)
    return system, Flow(vector, moments, state.opt_state, directions)


def _resolve(
    problem: ProblemLike, optimizer: OptimizerLike, hyperparameters: Hyperparameters, key: Key, arrays: Arrays
) -> tuple[Preconditioner, Callable[[Array], Array], tuple[int, ...]]:
    """The optimizer as a preconditioner, the loss of a vector, and other leaves of its state that gradients move."""
    concrete, built = binding.resolve(problem, optimizer, hyperparameters)
    init_key, sample_key = descent.split_key(key)
    state = descent.initial_state(problem, optimizer, hyperparameters, init_key, arrays)
    state, data = widen(state, arrays.data)
    inputs = StepInputs(hyperparameters, jnp.int32(0), sample_key, data)
    dynamic = find_dynamic_state(problem, optimizer, True, state, inputs)
    offset = len(jax.tree.leaves((state.params, state.aux)))
    within = lambda places: tuple(i - offset for i in places if i >= offset)
    _, unravel = ravel_pytree(state.params)
    loss = lambda x: binding.objective(concrete, built, data, ())(unravel(x))[0]
    return Preconditioner(built, state, within(dynamic.held)), loss, within(dynamic.moving)


@cache_if_hashable(maxsize=32)
def _compile_check(
    problem: ProblemLike, optimizer: OptimizerLike, static: StaticHyperparameters
) -> Callable[[dict[str, Array], Key, Arrays], Array]:
    """Whether the optimizer has the form for which central flows are known."""

    def check(traced: dict[str, Array], key: Key, arrays: Arrays) -> Array:
        preconditioner, _, others = _resolve(problem, optimizer, dict(static) | traced, key, arrays)
        return preconditioner.describes(preconditioner.state.opt_state, others)

    return jax.jit(check)


_REFINEMENTS = 20  # of the eigenvectors at the start; later each substep makes one
