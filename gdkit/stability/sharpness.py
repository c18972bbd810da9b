"""Sharpness, the curvature that limits the learning rate, and the limits that theory derives from it."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.flatten_util import ravel_pytree

from gdkit import binding, checks, descent, factories
from gdkit.descent import StepInputs, Trajectory
from gdkit.errors import bad_type, bad_value
from gdkit.optimizers import states
from gdkit.problems import Problem, ProblemLike
from gdkit.stability.curvature import check_curvature, find_curvature
from gdkit.stability.dynamic_state import DynamicState, as_state, find_dynamic_state, get_field_names, widen
from gdkit.stability.krylov import Spectrum, check_search, extreme_symmetric
from gdkit.tracing import jaxprs
from gdkit.types import (
    Array,
    Hyperparameters,
    Key,
    Numeric,
    Optimizer,
    OptimizerLike,
    Params,
    PyTree,
    State,
    StaticHyperparameters,
)


def sharpness(
    problem: Problem,
    params: Params,
    k: int = 1,
    *,
    which: str = "largest",
    batch: PyTree = None,
    aux: PyTree = (),
    key: int | Key = 0,
    tolerance: float = 1e-4,
    max_iterations: int | None = None,
) -> Spectrum:
    """The k outermost eigenvalues of the loss's Hessian, matrix-free: the curvature that limits the learning rate.

    Block Lanczos from k random starts with full reorthogonalization, so that an eigenvalue is found as often as it
    occurs (one start finds a multiple eigenvalue once); Hessian-vector products forward over reverse. Pure: vmap it
    over params. Params in half precision, and data and aux beside them, are converted to float32.

    Outside `jit` it compiles once per problem, shapes and options: reuse a problem, and pass other data as `batch`.

    Args:
      problem: the problem whose loss is measured.
      params: the point, any pytree of float arrays.
      k: the number of eigenvalues, at most the number of params; for both ends at most half of it.
      which: "largest", "smallest", or "both" for k of each; algebraically, not by magnitude.
      batch: the data of the loss; None for all the problem's data.
      aux: state that is not trained, for a problem with `has_aux`.
      key: of the random start.
      tolerance: largest relative residual of a value that counts as converged, relative to the Hessian's norm.
      max_iterations: most Hessian-vector products, and rows of (params,) in memory at once; None: 64, or 16 per value
        where that is more.

    Returns:
      Values in units of loss per squared param: the largest in descending order, the smallest in ascending order, both
      in descending order with the smallest last. `vectors` has the unit eigenvectors, leaves like the params' with k in
      front. Values that did not converge are False in `converged`; the largest are then lower bounds, the smallest
      upper bounds, and their residuals are the distances within which an eigenvalue lies.

    Raises:
      InputTypeError, InputValueError: params that are not float; an unknown `which`; a `k`, `tolerance` or
        `max_iterations` out of range.

    >>> from gdkit import problems
    >>> spectrum = sharpness(problems.quadratic([1.0, 4.0, 9.0]), jnp.ones(3), k=2)
    >>> [round(float(x), 4) for x in spectrum.values], spectrum.converged.tolist()
    ([9.0, 4.0], [True, True])
    >>> abs(spectrum.vectors[0]).round(4).tolist()
    [0.0, 0.0, 1.0]
    """
    return find_spectrum(problem, params, "hessian", k, which, batch, aux, key, tolerance, max_iterations)


def gauss_newton(
    problem: Problem,
    params: Params,
    k: int = 1,
    *,
    which: str = "largest",
    batch: PyTree = None,
    key: int | Key = 0,
    tolerance: float = 1e-4,
    max_iterations: int | None = None,
) -> Spectrum:
    """The k outermost eigenvalues of the generalized Gauss-Newton matrix JᵀH_outJ, matrix-free.

    J is the derivative of the model's outputs with respect to the params, and H_out the Hessian of the loss in the
    outputs (Schraudolph 2002). The Hessian is this matrix and a part that vanishes with the derivative of the loss in
    the outputs, so at a loss near zero the two agree. It has no negative eigenvalue where the loss is convex in the
    outputs. A penalty of the params counts with its whole Hessian. `curvature_product` has its products.

    Args:
      problem: its loss is a `problems.ModelLoss`; the problems of `problems.supervised`, `problems.mlp` and so on are.
      params, k, which, batch, key, tolerance, max_iterations: as in `sharpness`.

    Returns:
      As `sharpness`.

    Raises:
      InputTypeError, InputValueError: as `sharpness`; a loss of another form, or with `has_aux`.

    >>> from gdkit import problems
    >>> problem = problems.logistic_regression("iris")  # linear in its params, so that both are the same
    >>> top = gauss_newton(problem, problem.init).values
    >>> bool(jnp.isclose(top[0], sharpness(problem, problem.init).values[0]))
    True
    """
    return find_spectrum(problem, params, "gauss_newton", k, which, batch, (), key, tolerance, max_iterations)


def find_spectrum(
    problem: Problem,
    params: Params,
    matrix: str,
    k: int,
    which: str,
    batch: PyTree,
    aux: PyTree,
    key: int | Key,
    tolerance: float,
    max_iterations: int | None,
) -> Spectrum:
    """The k outermost eigenvalues of a matrix of second derivatives, and their vectors like the params."""
    check_curvature(problem, params, matrix)
    binding.check_takes_data("batch", batch, problem)
    checks.check_choice("which", which, ("largest", "smallest", "both"))
    size = sum(np.size(leaf) for leaf in jax.tree.leaves(params))
    depth = check_search(k, size, tolerance, max_iterations, ends=1 + (which == "both"))
    arguments = params, problem.data if batch is None else batch, aux, checks.as_key(key)
    is_value = lambda leaf: isinstance(leaf, float | np.ndarray | jax.Array) and not isinstance(leaf, Tracer)
    make = _compile_search if all(map(is_value, jax.tree.leaves(arguments))) else _make_search
    return make(problem, matrix, k, which, tolerance, depth)(*arguments)


def _make_search(
    problem: Problem, matrix: str, k: int, which: str, tolerance: float, depth: int
) -> Callable[[Params, PyTree, PyTree, Key], Spectrum]:
    def search(params: Params, batch: PyTree, aux: PyTree, key: Key) -> Spectrum:
        product, vector, unravel = find_curvature(problem, params, matrix, batch, aux)
        found = extreme_symmetric(product, vector.size, k, key, vector.dtype, tolerance, depth, which)
        return found._replace(vectors=jax.vmap(unravel)(found.vectors))

    return search


@factories.cache_if_hashable(maxsize=8)
def _compile_search(*settings: Any) -> Callable[[Params, PyTree, PyTree, Key], Spectrum]:
    return jax.jit(_make_search(*settings))


def stability_threshold(family: str, curvature: Numeric, **hyperparameters: Any) -> Any:
    """Theory's critical learning rate of an optimizer at a minimum of this curvature.

    On a quadratic, steps above it grow without bound and steps below it shrink: 2/λ for ``"sgd"``, (2 + 2β)/λ for
    ``"momentum"`` (heavy ball), (2 + 2β)/(λ (1 + 2β)) for ``"nesterov"`` (Cohen et al., Gradient descent on neural
    networks typically occurs at the edge of stability, 2021), and (2 + 2β₁)/((1 − β₁) λ) for ``"adam"``
    with its preconditioner frozen, where λ is the preconditioned sharpness (Cohen et al., Adaptive gradient methods at
    the edge of stability, 2022). Steepest descent in another norm, ``"steepest"``, has 2/λ, where λ is its generalized
    sharpness; its normalized forms ``"normalized"`` (ℓ₂), ``"sign"`` (ℓ∞) and ``"muon"`` (spectral norm, without
    momentum), whose steps are as long at any gradient g, have 2 ‖g‖*/λ with the dual norm (Islamov et al.,
    Non-Euclidean gradient descent operates at the edge of stability, 2026).

    Args:
      family: "sgd", "momentum", "nesterov", "adam", "steepest", "normalized", "sign" or "muon".
      curvature: λ, the sharpness, the preconditioned sharpness for adam, or the `generalized_sharpness` in the norm of
        the last four; a number or an array, positive.
      hyperparameters: ``momentum`` (β) of momentum and nesterov; ``b1`` (β₁) of adam, 0.9 if absent; ``dual_norm``
        (‖g‖*, see `dual_norm`) of normalized, sign and muon.

    Returns:
      A learning rate of the shape of `curvature`; infinite where there is no curvature, NaN where it is negative.

    Raises:
      InputValueError, InputTypeError: an unknown family, a hyperparameter that it does not have, or one that is missing
        or outside of the theory, such as a momentum of 1; a curvature that is no number.

    >>> stability_threshold("sgd", 4.0), stability_threshold("momentum", 4.0, momentum=0.5)
    (0.5, 0.75)
    >>> round(stability_threshold("adam", 1.0, b1=0.9), 6)
    38.0
    """
    checks.check_choice("family", family, _THRESHOLDS)
    formula = _THRESHOLDS[family]
    factories.check_names("hyperparameters", formula, hyperparameters)
    for name, parameter in factories.parameters(formula).items():
        value = hyperparameters.get(name, parameter.default)
        if value is parameter.empty:
            raise bad_value("family", family, f"its threshold depends on {name}", f"Pass {name}=")
        _check_threshold_argument(name, value, below=math.inf if name == "dual_norm" else 1)
    _check_threshold_argument("curvature", curvature)
    times_curvature = formula(**hyperparameters)
    if isinstance(curvature, jax.Array):
        return jnp.where(curvature >= 0, times_curvature / curvature, jnp.nan)
    with np.errstate(divide="ignore"):
        rate = np.where(np.asarray(curvature) >= 0, times_curvature / np.asarray(curvature, float), np.nan)
    return float(rate) if rate.ndim == 0 else rate


def _check_threshold_argument(name: str, value: Any, below: float | None = None) -> None:
    """Raise unless `value` is a real number or an array of them, and from 0 to `below` where this is given."""
    if isinstance(value, Tracer):
        return
    values = np.asarray(value)
    if values.dtype.kind not in "fiuV":  # V: bfloat16
        raise bad_type(name, value, "neither a number nor an array of numbers", "Pass real numbers")
    if below is not None and not np.all((values >= 0) & (values < below)):
        bound = f" and below {below:g}" if below < math.inf else ""
        raise bad_value(name, value, "outside of the theory", f"Pass finite numbers of at least 0{bound}")


_THRESHOLDS: dict[str, Callable[..., Any]] = {
    "sgd": lambda: 2.0,
    "momentum": lambda momentum: 2 + 2 * momentum,
    "nesterov": lambda momentum: (2 + 2 * momentum) / (1 + 2 * momentum),
    "adam": lambda b1=0.9: (2 + 2 * b1) / (1 - b1),
    "steepest": lambda: 2.0,
    "normalized": lambda dual_norm: 2 * dual_norm,
    "sign": lambda dual_norm: 2 * dual_norm,
    "muon": lambda dual_norm: 2 * dual_norm,
}


# Preconditioned sharpness


def preconditioned_sharpness(
    problem: ProblemLike,
    optimizer: OptimizerLike,
    state: State | Trajectory,
    k: int = 1,
    *,
    hyperparameters: Hyperparameters | None = None,
    learning_rate: float | None = None,
    t: int = 0,
    key: int | Key = 0,
    data: PyTree = None,
    tolerance: float = 1e-4,
    max_iterations: int | None = None,
) -> Spectrum:
    """The k largest eigenvalues of P⁻¹H, where the optimizer steps by −η P⁻¹ times a mean of gradients.

    P is diagonal and derived from the update of the coming step: its derivative with respect to the gradient, with the
    second moments held constant. If the state has a mean of gradients (``mu``), the effects of one gradient on all
    later updates are summed. For adam P is (1 − β₁ᵗ) (√(ν / (1 − β₂ᵗ)) + ε), as in Cohen et al., Adaptive gradient
    methods at the edge of stability, 2022, whose threshold is that of ``stability_threshold("adam", ...)``. Weight
    decay does not count.

    Args:
      problem, optimizer, hyperparameters: as in `descend`.
      state: a State, or a Trajectory, whose last state is used.
      k, tolerance, max_iterations: as in `sharpness`.
      learning_rate: η, if it is not in `hyperparameters`.
      t, key, data: of the step: they decide the minibatch.

    Raises:
      InputTypeError: the optimizer has no second moments, or its preconditioner is not diagonal, or its state holds
        more than second moments and one mean of gradients.
      InputValueError: an argument cannot be used; η is unknown; P is not positive.

    >>> import optax
    >>> from gdkit import descend, problems
    >>> chosen = {"learning_rate": 1e-3}
    >>> run = descend(problems.quadratic([1.0, 4.0]), optax.rmsprop, 300, hyperparameters=chosen)
    >>> spectrum = preconditioned_sharpness(problems.quadratic([1.0, 4.0]), optax.rmsprop, run, hyperparameters=chosen)
    >>> bool(spectrum.converged[0])
    True
    """
    chosen = checks.as_hyperparameters(hyperparameters)
    arrays, static, traced = binding.bind(problem, optimizer, chosen)
    rate = get_learning_rate(chosen, learning_rate)
    state = as_state(problem, optimizer, chosen, state, arrays)
    depth = check_search(k, sum(leaf.size for leaf in jax.tree.leaves(state.params)), tolerance, max_iterations)
    program = _compile_preconditioned(problem, optimizer, static, k, depth)
    data = binding.replace_data(problem, chosen, arrays, data).data
    inputs = StepInputs(traced, jnp.int32(t), descent.split_key(key)[1], data)
    spectrum, is_diagonal, is_positive = program(state, inputs, rate, tolerance)
    if not is_diagonal:
        remedy = "Use sharpness, or multipliers, which need no preconditioner"
        raise bad_type("optimizer", optimizer, "its preconditioner is not diagonal", remedy)
    if not is_positive:
        remedy = "Take a state after some steps"
        raise bad_value("state", state, "the preconditioner is not positive and finite there", remedy)
    return spectrum


@factories.cache_if_hashable(maxsize=32)
def _compile_preconditioned(
    problem: ProblemLike, optimizer: OptimizerLike, static: StaticHyperparameters, k: int, depth: int
) -> Callable[..., tuple[Spectrum, Array, Array]]:
    def search(state: State, inputs: StepInputs, *rest: Numeric) -> tuple[Spectrum, Array, Array]:
        return largest_preconditioned(problem, optimizer, state, inputs.with_static(static), *rest, k=k, depth=depth)

    return jax.jit(search)


def largest_preconditioned(
    problem: ProblemLike,
    optimizer: OptimizerLike,
    state: State,
    inputs: StepInputs,
    rate: Numeric,
    tolerance: Numeric,
    *,
    k: int,
    depth: int,
) -> tuple[Spectrum, Array, Array]:
    """The k largest eigenvalues of P⁻¹H; whether P is diagonal, and whether it is positive and finite."""
    state, data = widen(state, inputs.data)
    inputs = inputs._replace(data=data)
    dynamic = find_dynamic_state(problem, optimizer, True, state, inputs)
    _check_moments(state, dynamic)
    concrete, built = binding.resolve(problem, optimizer, inputs.hyperparameters)
    loss = binding.objective(concrete, built, binding.get_batch(concrete, *inputs[1:]), state.aux)
    vector, unravel = ravel_pytree(state.params)
    gradient = jax.grad(lambda x: loss(unravel(x))[0])
    gain, is_diagonal = compute_gain(built, state, dynamic, unravel(gradient(vector)), lambda params: loss(params)[0])
    inverse = -gain / rate
    is_positive = jnp.all((inverse > 0) & jnp.isfinite(inverse))
    root = jnp.sqrt(jnp.where(inverse > 0, inverse, 1))
    _, curved = jax.linearize(gradient, vector)
    product = lambda v: root * curved(root * v)
    spectrum = extreme_symmetric(product, vector.size, k, jax.random.key(0), vector.dtype, tolerance, depth)
    return spectrum._replace(vectors=None), is_diagonal, is_positive


def compute_gain(
    optimizer: Optimizer, state: State, dynamic: DynamicState, grad: Params, value_fn: Callable[[Params], Array]
) -> tuple[Array, Array]:
    """How far a constant gradient of 1 moves each param per step, (n,); and whether each depends on its gradient alone.

    Second moments are held constant. With the update a·g + b·m and the mean c·g + d·m it is a + b·c / (1 − d).
    """
    leaves, treedef = jax.tree.flatten(state.opt_state)
    places = len(jax.tree.leaves((state.params, state.aux)))
    offset = len(jax.tree.leaves(grad)) - places
    mean = [i - places for i in dynamic.moving if i >= places]
    means, unravel = ravel_pytree([leaves[i] for i in mean])
    value = value_fn(state.params)
    flat, unravel_grad = ravel_pytree(grad)
    updates = functools.partial(states.update, optimizer, value=value, value_fn=value_fn)

    def update(x: tuple[Array, Array]) -> list[Array]:
        new = dict(zip(mean, unravel(x[1]), strict=True))
        before = jax.tree.unflatten(treedef, [new.get(i, leaf) for i, leaf in enumerate(leaves)])
        return jax.tree.leaves(updates(unravel_grad(x[0]), before, state.params))

    def respond(x: tuple[Array, Array]) -> tuple[Array, Array]:
        out = jaxprs.hold_outputs(update, [i + offset for i in dynamic.held])(x)
        count = len(jax.tree.leaves(grad))
        return ravel_pytree(out[:count])[0], ravel_pytree([out[i + count] for i in mean])[0]

    slope = lambda x, v: jax.jvp(respond, (x,), (v,))[1]
    at, ones = (flat, means), (jnp.ones_like(flat), jnp.zeros_like(means))
    signs = jnp.where(jax.random.bernoulli(jax.random.key(0), 0.5, flat.shape), 1, -1).astype(flat.dtype)
    (a, c), (b, d) = slope(at, ones), slope(at, (jnp.zeros_like(flat), jnp.ones_like(means)))
    turned, _ = slope(at, (signs, jnp.zeros_like(means)))
    # the second derivative vanishes unless second moments of another name take part
    bent = jax.jvp(lambda x: slope(x, ones)[0], (at,), ((flat, jnp.zeros_like(means)),))[1]
    size = 1e-3 * jnp.linalg.norm(a)
    is_diagonal = (jnp.linalg.norm(turned - a * signs) <= size) & (jnp.linalg.norm(bent) <= size)
    return (a + b * c / (1 - d) if mean else a), is_diagonal


def get_learning_rate(hyperparameters: Hyperparameters, learning_rate: float | None) -> Numeric:
    """The learning rate of a run, from its hyperparameters or else the one given.

    Raises:
      InputTypeError, InputValueError: it is unknown, or not a finite number above 0.
    """
    rate = hyperparameters.get("learning_rate", learning_rate)
    if rate is None or callable(rate):
        remedy = "Pass hyperparameters={'learning_rate': ...}, or learning_rate="
        raise bad_value("learning_rate", rate, "unknown, and the update is proportional to it", remedy)
    if not isinstance(rate, Tracer):  # at a traced 0 the program finds that P is not positive
        checks.check_number("learning_rate", rate, above=0)
    return rate


def _check_moments(state: State, dynamic: DynamicState) -> None:
    """Raise unless the optimizer's state moves by second moments like the params, and at most one mean of gradients."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    shapes = [leaf.shape for leaf in jax.tree.leaves(state.params)]
    remedy = "Use sharpness, or multipliers, which need no preconditioner"
    held = [leaves[i][1].shape for i in dynamic.held]
    if not held or any(held[i : i + len(shapes)] != shapes for i in range(0, len(held), len(shapes))):
        problem = "its state has no second moment for each param, so that no diagonal preconditioner is known"
        raise bad_type("optimizer", jax.tree.structure(state.opt_state), problem, remedy)
    own = [(path, leaf) for path, leaf in (leaves[i] for i in dynamic.moving) if path[0].name == "opt_state"]
    if own and (not all("mu" in get_field_names(path) for path, _ in own) or [leaf.shape for _, leaf in own] != shapes):
        problem = "its state has more than second moments and one mean of gradients, so that its gain is unknown"
        raise bad_type("optimizer", jax.tree.structure(state.opt_state), problem, remedy)
