"""Stability: curvature, the multipliers of the step map, and the learning rate at which they leave the unit circle."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend.core import Literal
from jax.flatten_util import ravel_pytree

from gdkit import binding, checks, descent, factories, monitors, optimizers
from gdkit.binding import Arrays
from gdkit.descent import Lane
from gdkit.errors import bad_type, bad_value, unknown_name
from gdkit.factories import cache_if_hashable
from gdkit.monitors import EndKind, Limits
from gdkit.problems import Problem
from gdkit.types import Array, Context, Hyperparameters, Info, Key, Monitor, Params, PyTree, State

# Krylov spaces. One factorisation serves Lanczos (its projection is tridiagonal but for rounding) and Arnoldi.


class Spectrum(NamedTuple):
    """Some eigenvalues of an operator, each with how far it can be trusted."""

    values: Array | np.ndarray  # (k,)
    residuals: Array | np.ndarray  # (k,) ‖Av − λv‖ for the unit vector v that goes with the value
    converged: Array | np.ndarray  # (k,) bool, whether the residual is within the tolerance
    products: Array | int  # () int32, products with the operator that this took


class _Krylov(NamedTuple):
    basis: Array  # (m, n), orthonormal rows, zero where not used yet
    projected: Array  # (m, m), the operator within the basis; column j is of A·basis[j]
    direction: Array  # (n,), the next row of the basis
    coupling: Array  # (), the size of what the last product had outside the basis; 0 after a breakdown
    count: Array  # () int32, rows in use
    breakdowns: Array  # () int32, how often the space was invariant, and a random direction went on
    scale: Array  # (), largest ‖A·basis[j]‖: a lower bound of the operator's norm
    key: Key


def _start_krylov(size: int, depth: int, key: Key, dtype: Any) -> _Krylov:
    key, draw = jax.random.split(key)
    direction = jax.random.normal(draw, (size,), dtype)
    zero, none = jnp.zeros((), dtype), jnp.zeros((), jnp.int32)
    blank = jnp.zeros((depth, size), dtype), jnp.zeros((depth, depth), dtype)
    return _Krylov(*blank, direction / jnp.linalg.norm(direction), zero, none, none, zero, key)


def _extend(apply: Callable[[Array], Array], krylov: _Krylov, negligible: Any = 0.0) -> _Krylov:
    """One more product; Gram-Schmidt twice against the whole basis (Daniel et al. 1976).

    What sticks out of the basis by less than `negligible`, as a share of the operator's norm, is dropped as rounding
    is, and the space counts as invariant.
    """
    depth, size = krylov.basis.shape
    j = krylov.count
    basis = krylov.basis.at[j].set(krylov.direction)
    product = apply(krylov.direction)
    scale = jnp.maximum(krylov.scale, _length(product))
    first, rest = _project(basis, product, j + 1)
    length = _length(rest)
    least = jnp.maximum(32 * jnp.finfo(rest.dtype).eps, negligible) * scale
    broken = (length <= least) | (j + 1 == size)
    key, draw = jax.random.split(krylov.key)
    rest = jnp.where(broken, jax.random.normal(draw, rest.shape, rest.dtype), rest / jnp.where(broken, 1, length))
    second, rest = _project(basis, rest, j + 1)
    left = jnp.linalg.norm(rest)
    coupling = jnp.where(broken, 0, length * left)
    column = first + jnp.where(broken, 0, length * second)
    column = jnp.where(jnp.arange(depth) == j + 1, coupling, column)
    projected = krylov.projected.at[:, j].set(column)
    direction = rest / jnp.where(left > 0, left, 1)
    return _Krylov(basis, projected, direction, coupling, j + 1, krylov.breakdowns + broken, scale, key)


def _project(basis: Array, vector: Array, count: Array) -> tuple[Array, Array]:
    """The coefficients of `vector` in the rows in use, zero for others, (m,), and what is left of it, (n,).

    Of a basis with room for many rows most are not in use yet, and reading them is what would take the time.
    """
    rows = math.gcd(len(basis), 8)

    def some(block: Array, found: tuple[Array, Array]) -> tuple[Array, Array]:
        part = jax.lax.dynamic_slice_in_dim(basis, block * rows, rows)
        along = part @ vector
        return jax.lax.dynamic_update_slice_in_dim(found[0], along, block * rows, 0), found[1] - along @ part

    return jax.lax.fori_loop(0, (count + rows - 1) // rows, some, (jnp.zeros(len(basis), vector.dtype), vector))


def _length(vector: Array) -> Array:
    """Euclidean norm, of vectors too whose squares are no numbers any more."""
    most = jnp.max(jnp.abs(vector))
    unit = jnp.where((most > 0) & jnp.isfinite(most), most, 1)
    return unit * jnp.linalg.norm(vector / unit)


def _largest_symmetric(
    apply: Callable[[Array], Array], size: int, k: int, key: Key, dtype: Any, tolerance: Any, depth: int
) -> Spectrum:
    """The k algebraically largest eigenvalues of a symmetric operator on vectors (size,), by Lanczos."""

    def top(krylov: _Krylov) -> tuple[Array, Array]:
        values, residuals = _ritz(krylov)
        return values[-k:][::-1], residuals[-k:][::-1]

    def unfinished(krylov: _Krylov) -> Array:
        # an invariant space has each eigenvalue once: a multiple one shows in the next space, or in a whole basis
        complete = (krylov.breakdowns >= k) | (k == 1) | ((krylov.breakdowns == 0) & (size > depth))
        found = jnp.all(top(krylov)[1] <= tolerance * krylov.scale) & (krylov.count >= k) & complete
        return (krylov.count < krylov.basis.shape[0]) & ~found

    krylov = _start_krylov(size, depth, key, dtype)
    krylov = jax.lax.while_loop(unfinished, lambda old: _extend(apply, old, 0.1 * tolerance), krylov)
    values, residuals = top(krylov)
    return Spectrum(values, residuals, residuals <= tolerance * krylov.scale, krylov.count)


_FEW = 16  # rows; asked for at each step, the eigenvalues of 64 took as long as the products of 100,000 params


def _ritz(krylov: _Krylov) -> tuple[Array, Array]:
    """Eigenvalues of the projection, ascending, and their residuals; the unused come first."""
    depth = len(krylov.projected)

    def within(size: int) -> tuple[Array, Array]:
        used = jnp.arange(size) < krylov.count
        inside = jnp.where(used[:, None] & used[None, :], krylov.projected[:size, :size], 0)
        inside = 0.5 * (inside + inside.T)
        # a padding of zeros would be the top of a negative spectrum
        below = -2 * jnp.max(jnp.sum(jnp.abs(inside), axis=1))
        padded = inside + jnp.diag(jnp.where(used, 0, below))
        values, vectors = jax.lax.platform_dependent(padded, cpu=_eigh_one_by_one, default=_eigh)
        unused = jnp.full((depth - size,), below)
        last = vectors[jnp.minimum(krylov.count, size) - 1]
        return jnp.append(unused, values), jnp.append(jnp.zeros_like(unused), last)

    few = min(_FEW, depth)
    values, last = jax.lax.cond(krylov.count <= few, lambda: within(few), lambda: within(depth))
    return values, krylov.coupling * jnp.abs(last)


def _eigh(matrix: Array) -> tuple[Array, Array]:
    values, vectors = jnp.linalg.eigh(matrix)
    return values, vectors


# On CPU, eigh of a batch deals it to the threads that run the program and blocks one of them meanwhile: two programs
# side by side, as in a sweep, each block one and wait for ever (jaxlib 0.10's ParallelBatchMap, on two cores).
_eigh_one_by_one = jax.custom_batching.sequential_vmap(_eigh)


# Sharpness


def sharpness(
    problem: Problem,
    params: Params,
    k: int = 1,
    *,
    batch: PyTree = None,
    aux: PyTree = (),
    key: int | Key = 0,
    tolerance: float = 1e-4,
    max_iterations: int = 64,
) -> Spectrum:
    """The k largest eigenvalues of the loss's Hessian, matrix-free: the curvature that limits the learning rate.

    Lanczos with full reorthogonalisation; Hessian-vector products forward over reverse. Pure: vmap it over params.
    Where the space breaks down (few distinct eigenvalues) it goes on in a random direction, so that multiple
    eigenvalues are found as often as they occur. Among more params than `max_iterations`, one that is exactly multiple
    and found before any breakdown is counted once.

    Called outside `jit` it compiles at every call: jit what calls it often, with the data as `batch`, an argument.

    Args:
      problem: whose loss.
      params: where, any pytree of float arrays.
      k: how many, at most the number of params.
      batch: on what; None for all the problem's data.
      aux: state that is not trained, for a problem with `has_aux`.
      key: of the random start.
      tolerance: largest residual of a value that counts as converged, as a share of the Hessian's norm.
      max_iterations: most Hessian-vector products, and rows of (params,) held at once.

    Returns:
      Values in descending order, in units of loss per squared param. The largest algebraically: all are negative at a
      maximum. What did not converge says so in `converged`.

    Raises:
      InputTypeError, InputValueError: params that are not float; a `k`, `tolerance` or `max_iterations` out of range.

    >>> from gdkit import problems
    >>> found = sharpness(problems.quadratic([1.0, 4.0, 9.0]), jnp.ones(3), k=2)
    >>> [round(float(x), 4) for x in found.values], found.converged.tolist()
    ([9.0, 4.0], [True, True])
    """
    _check_problem(problem)
    params = _arrays(params)
    vector, unravel = ravel_pytree(params)
    _check_search(k, vector.size, tolerance, max_iterations)
    batch = problem.data if batch is None else batch
    gradient = _raveled_gradient(problem, unravel, batch, aux)
    _, product = jax.linearize(gradient, vector)  # what all products have in common is computed once
    depth = min(max_iterations, vector.size)
    return _largest_symmetric(product, vector.size, k, checks.as_key(key), vector.dtype, tolerance, depth)


def _raveled_gradient(
    problem: Problem, unravel: Callable[[Array], Params], batch: PyTree, aux: PyTree
) -> Callable[[Array], Array]:
    loss = binding.objective(problem, None, batch, aux)
    return jax.grad(lambda x: loss(unravel(x))[0])


def stability_threshold(family: str, curvature: Any, **hyperparameters: Any) -> Any:
    """Theory's critical learning rate of an optimizer at a minimum of this curvature.

    On a quadratic, steps above it grow without bound and steps below it shrink: 2/λ for ``"sgd"``, (2 + 2β)/λ for
    ``"momentum"`` (heavy ball), (2 + 2β)/(λ (1 + 2β)) for ``"nesterov"`` (Cohen et al., Gradient descent on neural
    networks typically occurs at the edge of stability, 2021), and (2 + 2β₁)/((1 − β₁) λ) for ``"adam"``
    with its preconditioner frozen, where λ is the preconditioned sharpness (Cohen et al., Adaptive gradient methods at
    the edge of stability, 2022).

    Args:
      family: "sgd", "momentum", "nesterov" or "adam".
      curvature: λ, the sharpness, or the preconditioned sharpness for adam; a number or an array, positive.
      hyperparameters: ``momentum`` (β) of momentum and nesterov; ``b1`` (β₁) of adam, 0.9 if absent.

    Returns:
      A learning rate of the shape of `curvature`; infinite where there is no curvature, NaN where it is negative.

    Raises:
      InputValueError: an unknown family, a hyperparameter that it does not have, or one that is missing.

    >>> stability_threshold("sgd", 4.0), stability_threshold("momentum", 4.0, momentum=0.5)
    (0.5, 0.75)
    >>> round(stability_threshold("adam", 1.0, b1=0.9), 6)
    38.0
    """
    if family not in _THRESHOLDS:
        raise unknown_name("family", family, _THRESHOLDS)
    formula = _THRESHOLDS[family]
    factories.check_names("hyperparameters", formula, hyperparameters)
    times_curvature = factories.call("family", formula, hyperparameters)
    if isinstance(curvature, jax.Array):
        return jnp.where(curvature >= 0, times_curvature / curvature, jnp.nan)
    with np.errstate(divide="ignore"):
        found = np.where(np.asarray(curvature) >= 0, times_curvature / np.asarray(curvature, float), np.nan)
    return float(found) if found.ndim == 0 else found


_THRESHOLDS: dict[str, Callable[..., Any]] = {
    "sgd": lambda: 2.0,
    "momentum": lambda momentum: 2 + 2 * momentum,
    "nesterov": lambda momentum: (2 + 2 * momentum) / (1 + 2 * momentum),
    "adam": lambda b1=0.9: (2 + 2 * b1) / (1 - b1),
}


# Multipliers


class Multipliers(NamedTuple):
    """Eigenvalues of the Jacobian of the step map, the two sides of the unit circle apart; complex values (k,)."""

    farthest: Spectrum  # farthest from 1, the farthest first: under descent the most negative, which cross at −1
    largest: Spectrum  # of the largest modulus; away from a minimum above 1 by negative curvature alone
    frozen: tuple[str, ...]  # leaves of the optimizer's state that were held constant, () if it was differentiated


DENSE = 64  # up to this many numbers in a state the Jacobian is formed whole

# What optax names the running mean or sum of squared gradients.
SECOND_MOMENTS = frozenset({"nu", "nu_max", "sum_of_squares", "exp_avg_sq", "grad_sum_sq"})


def multipliers(
    problem: Problem | Callable[..., Problem],
    optimizer: Any,
    state: Any,
    k: int = 1,
    *,
    hyperparameters: Hyperparameters | None = None,
    t: int = 0,
    key: int | Key = 0,
    data: PyTree = None,
    freeze: bool = True,
    tolerance: float = 1e-4,
    max_iterations: int = 256,
) -> Multipliers:
    """The multipliers of a step: by what factors it stretches small changes of params, aux and optimizer state.

    At a minimum a run is unstable if any has modulus above 1, and linearly stable if all are below. Arnoldi on J − I
    by Jacobian-vector products, which finds those farthest from 1 soon and those of the largest modulus, which crowd
    near 1, late; states of up to 64 numbers have their whole Jacobian formed. Integer leaves, such as step counts, do
    not take part: a bias correction is that of the count in the state. The Jacobian is JAX's: what a loss hides behind
    ``stop_gradient`` is hidden from it too.

    Args:
      problem, optimizer, hyperparameters: as in `descend`.
      state: a State, or a Trajectory, whose last state it is.
      k: how many on each side.
      t, key, data: of the step: they decide the minibatch.
      freeze: hold second moments (of adam, rmsprop, adagrad and their kind) constant, so that the preconditioner is
        frozen and theory's thresholds apply, and so that the infinite slope of the square root at a second moment of
        zero does no harm. With False they are differentiated as the rest, and are part of the state.
      tolerance: largest error of a value that counts as converged, as a share of the largest distance from 1. The
        error is estimated as the residual times the value's condition number, which momentum makes large.
      max_iterations: most Jacobian-vector products, and vectors held at once.

    Returns:
      Values with residuals. What did not converge, or is not finite, says so in `converged`.

    Raises:
      InputTypeError, InputValueError: an argument cannot be used; the state is another optimizer's.

    >>> from gdkit import problems
    >>> from gdkit.optimizers import SgdState, sgd
    >>> state = State(jnp.zeros(2), (), SgdState((), ()))
    >>> found = multipliers(problems.quadratic([1.0, 4.0]), sgd(0.6), state)
    >>> round(float(found.farthest.values[0].real), 4)  # 1 − 0.6 · 4
    -1.4
    """
    chosen = dict(hyperparameters or {})
    binding.check_hyperparameters(problem, optimizer, chosen)
    arrays, static, traced = binding.bind(problem, optimizer, chosen)
    state = _state(problem, optimizer, chosen, state, arrays)
    part = _part(state, freeze)
    size = sum(jax.tree.leaves(state)[i].size for i in part.moving)
    _check_search(k, size, tolerance, max_iterations)
    data = arrays.data if data is None else data
    arguments = (state, traced, jnp.int32(t), descent.keys_of(key)[1], data)
    program = _jacobian(problem, optimizer, static, freeze)
    if size <= DENSE:
        found = _both_sides(np.asarray(program.whole(*arguments), np.float64), 0.0, k, tolerance, size)
    else:
        found = _arnoldi(program, arguments, size, k, tolerance, min(max_iterations, size))
    return Multipliers(*found, part.frozen)


class _Jacobian(NamedTuple):
    """J − I of a step, in two compiled programs of ``(state, hyperparameters, t, key, data)``."""

    whole: Any  # -> (n, n)
    extend: Any  # krylov, ... -> krylov, a few products later


@cache_if_hashable(maxsize=32)
def _jacobian(problem: Any, factory: Any, static: tuple, freeze: bool) -> _Jacobian:
    def displacement(state: State, traced: Hyperparameters, *rest: Any) -> tuple[Callable[[Array], Array], Array]:
        advance, vector = _vector_map(problem, factory, freeze, state, dict(static) | dict(traced), *rest)
        return (lambda v: jax.jvp(advance, (vector,), (v,))[1] - v), vector

    def whole(*arguments: Any) -> Array:
        apply, vector = displacement(*arguments)
        return jax.vmap(apply, out_axes=1)(jnp.eye(vector.size, dtype=vector.dtype))

    def extend(krylov: _Krylov, *arguments: Any) -> _Krylov:
        apply, _ = displacement(*arguments)
        end = jnp.minimum(krylov.count + 16, len(krylov.basis))
        return jax.lax.while_loop(lambda old: old.count < end, functools.partial(_extend, apply), krylov)

    return _Jacobian(jax.jit(whole), jax.jit(extend))


def _arnoldi(
    program: _Jacobian, arguments: tuple, size: int, k: int, tolerance: float, depth: int
) -> tuple[Spectrum, Spectrum]:
    krylov = _start_krylov(size, depth, jax.random.key(0), ravel_pytree(arguments[0].params)[0].dtype)
    while True:
        krylov = program.extend(krylov, *arguments)
        count = int(krylov.count)
        inside = np.asarray(krylov.projected, np.float64)[:count, :count]
        found = _both_sides(inside, float(krylov.coupling), min(k, count), tolerance, count)
        done = all(side.converged.all() for side in found) and count >= k
        if done or count == depth or not np.isfinite(inside).all():
            return found


def _both_sides(
    matrix: np.ndarray, coupling: float, k: int, tolerance: float, products: int
) -> tuple[Spectrum, Spectrum]:
    """The k eigenvalues of I + `matrix` farthest from 1, and the k of the largest modulus."""
    if not np.isfinite(matrix).all():
        lost = Spectrum(np.full(k, np.nan + 0j), np.full(k, np.nan), np.zeros(k, bool), products)
        return lost, lost
    values, vectors = np.linalg.eig(matrix)
    residuals = coupling * np.abs(vectors[-1])
    accurate = residuals * _conditions(vectors) <= tolerance * np.abs(values).max()
    values = 1 + values.astype(complex)

    def pick(size: np.ndarray) -> Spectrum:
        at = np.argsort(-size, kind="stable")[:k]
        return Spectrum(values[at], residuals[at], accurate[at], products)

    return pick(np.abs(values - 1)), pick(np.abs(values))


def _conditions(vectors: np.ndarray) -> np.ndarray:
    """By what factor an eigenvalue may be off more than its residual: 1 for each of a symmetric matrix."""
    try:
        return np.linalg.norm(np.linalg.inv(vectors), axis=1)
    except np.linalg.LinAlgError:  # two vectors are one
        return np.full(len(vectors), np.inf)


# A state as a vector: its float leaves, without those held constant


class _Part(NamedTuple):
    moving: tuple[int, ...]  # places of the leaves that make the vector
    held: tuple[int, ...]  # places of the second moments
    frozen: tuple[str, ...]  # and their names


def _part(state: State, freeze: bool) -> _Part:
    leaves = jax.tree_util.tree_leaves_with_path(state)
    floats = [i for i, (_, leaf) in enumerate(leaves) if jnp.issubdtype(jnp.result_type(leaf), jnp.floating)]
    held = [i for i in floats if freeze and _is_second_moment(leaves[i][0])]
    names = tuple(jax.tree_util.keystr(leaves[i][0]).removeprefix(".") for i in held)
    return _Part(tuple(i for i in floats if i not in held), tuple(held), names)


def _is_second_moment(path: tuple) -> bool:
    return path[0].name == "opt_state" and not SECOND_MOMENTS.isdisjoint(_fields(path))


def _fields(path: tuple) -> list[str]:
    return [entry.name for entry in path if isinstance(entry, jax.tree_util.GetAttrKey)]


def _vector_map(
    problem: Any,
    factory: Any,
    freeze: bool,
    state: State,
    hyperparameters: Hyperparameters,
    t: Array,
    key: Key,
    data: PyTree,
) -> tuple[Callable[[Array], Array], Array]:
    """The step map from vector to vector, and the vector of `state`."""
    step, part = descent.step_map(problem, factory), _part(state, freeze)
    leaves, treedef = jax.tree.flatten(state)
    vector, unravel = ravel_pytree([leaves[i] for i in part.moving])

    def after(x: Array) -> list[Array]:
        new = dict(zip(part.moving, unravel(x), strict=True))
        before = jax.tree.unflatten(treedef, [new.get(i, leaf) for i, leaf in enumerate(leaves)])
        return jax.tree.leaves(step(before, hyperparameters, t, key, data)[0])

    def advance(x: Array) -> Array:
        out = _holding(after, part.held)(x) if part.held else after(x)
        return ravel_pytree([out[i] for i in part.moving])[0]

    return advance, vector


def _holding(f: Callable[[Any], list[Array]], held: tuple[int, ...]) -> Callable[[Any], list[Array]]:
    """`f` with some of its outputs constant to a derivative, wherever in `f` they are used as well."""

    def evaluate(x: Any) -> list[Array]:
        closed = jax.make_jaxpr(f)(x)
        return _evaluate(closed.jaxpr, closed.consts, jax.tree.leaves(x), set(held))

    return evaluate


def _evaluate(jaxpr: Any, consts: Any, inputs: Any, held: set[int]) -> list[Array]:
    """The outputs of a program, those at the places `held` cut off from derivatives where they are made."""
    values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *inputs), strict=True))
    cut = {jaxpr.outvars[i] for i in held if not isinstance(jaxpr.outvars[i], Literal)}
    read = lambda v: v.val if isinstance(v, Literal) else values[v]
    for equation in jaxpr.eqns:
        given = [read(v) for v in equation.invars]
        inner = {i for i, v in enumerate(equation.outvars) if v in cut}
        if inner and equation.primitive.name in ("jit", "pjit"):
            made = _evaluate(equation.params["jaxpr"].jaxpr, equation.params["jaxpr"].consts, given, inner)
        else:
            bound = equation.primitive.get_bind_params(equation.params)
            functions, params = bound if isinstance(bound, tuple) else ((), bound)  # a pair before JAX 0.10
            made = equation.primitive.bind(*functions, *given, **params)
            made = list(made) if equation.primitive.multiple_results else [made]
        for i, (variable, value) in enumerate(zip(equation.outvars, made, strict=True)):
            values[variable] = jax.lax.stop_gradient(value) if i in inner else value
    return [read(v) for v in jaxpr.outvars]


# Preconditioned sharpness


def preconditioned_sharpness(
    problem: Problem | Callable[..., Problem],
    optimizer: Any,
    state: Any,
    k: int = 1,
    *,
    hyperparameters: Hyperparameters | None = None,
    learning_rate: float | None = None,
    t: int = 0,
    key: int | Key = 0,
    data: PyTree = None,
    tolerance: float = 1e-4,
    max_iterations: int = 64,
) -> Spectrum:
    """The k largest eigenvalues of P⁻¹H, where the optimizer steps by −η P⁻¹ times a mean of gradients.

    P is diagonal and read off the update of the coming step: its derivative in the gradient, with the second moments
    held constant, summed over all later steps (the mean ``mu``, if there is one, counts with all of its weight). For
    adam it is (1 − β₁ᵗ) (√(ν / (1 − β₂ᵗ)) + ε), as in Cohen et al., Adaptive gradient methods at the edge of
    stability, 2022, whose threshold is that of ``stability_threshold("adam", ...)``. Weight decay does not count.

    Args:
      problem, optimizer, hyperparameters: as in `descend`.
      state: a State, or a Trajectory, whose last state it is.
      k, tolerance, max_iterations: as in `sharpness`.
      learning_rate: η, where `hyperparameters` do not hold it.
      t, key, data: of the step: they decide the minibatch.

    Raises:
      InputTypeError: the optimizer has no second moments, or its preconditioner is not diagonal, or it keeps more
        than second moments and one mean of gradients.
      InputValueError: an argument cannot be used; η is not known; P is not positive.

    >>> import optax
    >>> from gdkit import descend, problems
    >>> chosen = {"learning_rate": 1e-3}
    >>> run = descend(problems.quadratic([1.0, 4.0]), optax.rmsprop, 300, hyperparameters=chosen)
    >>> found = preconditioned_sharpness(problems.quadratic([1.0, 4.0]), optax.rmsprop, run, hyperparameters=chosen)
    >>> bool(found.converged[0])
    True
    """
    chosen = dict(hyperparameters or {})
    binding.check_hyperparameters(problem, optimizer, chosen)
    arrays, static, traced = binding.bind(problem, optimizer, chosen)
    rate = _known_rate(chosen, learning_rate)
    state = _state(problem, optimizer, chosen, state, arrays)
    _check_moments(state)
    size = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    _check_search(k, size, tolerance, max_iterations)
    program = _preconditioned(problem, optimizer, static, k, min(max_iterations, size))
    data = arrays.data if data is None else data
    found, diagonal, positive = program(state, traced, jnp.int32(t), descent.keys_of(key)[1], data, rate, tolerance)
    if not diagonal:
        remedy = "Use sharpness, or multipliers, which need no preconditioner"
        raise bad_type("optimizer", optimizer, "its preconditioner is not diagonal", remedy)
    if not positive:
        remedy = "Take a state after some steps"
        raise bad_value("state", state, "the preconditioner is not positive and finite there", remedy)
    return found


@cache_if_hashable(maxsize=32)
def _preconditioned(problem: Any, factory: Any, static: tuple, k: int, depth: int) -> Any:
    def search(state: State, traced: dict, *rest: Any) -> tuple[Spectrum, Array, Array]:
        return _largest_preconditioned(problem, factory, state, dict(static) | traced, *rest, k=k, depth=depth)

    return jax.jit(search)


def _largest_preconditioned(
    problem: Any,
    factory: Any,
    state: State,
    hyperparameters: Hyperparameters,
    t: Array,
    key: Key,
    data: PyTree,
    rate: Any,
    tolerance: Any,
    *,
    k: int,
    depth: int,
) -> tuple[Spectrum, Array, Array]:
    """The k largest eigenvalues of P⁻¹H; whether P is diagonal, and whether it is positive and finite."""
    judged, optimizer = binding.resolve(problem, factory, hyperparameters)
    loss = binding.objective(judged, optimizer, binding.batch_of(judged, t, key, data), state.aux)
    vector, unravel = ravel_pytree(state.params)
    gradient = jax.grad(lambda x: loss(unravel(x))[0])
    gain, diagonal = _gain(optimizer, state, unravel(gradient(vector)), lambda params: loss(params)[0])
    inverse = -gain / rate
    positive = jnp.all((inverse > 0) & jnp.isfinite(inverse))
    root = jnp.sqrt(jnp.where(inverse > 0, inverse, 1))
    _, curved = jax.linearize(gradient, vector)
    product = lambda v: root * curved(root * v)
    found = _largest_symmetric(product, vector.size, k, jax.random.key(0), vector.dtype, tolerance, depth)
    return found, diagonal, positive


def _gain(optimizer: Any, state: State, grad: Params, value_fn: Callable) -> tuple[Array, Array]:
    """How much a lasting gradient of one moves each param a step, (n,), second moments held; whether that is diagonal.

    With the update a·g + b·m and the mean c·g + d·m it is a + b·c / (1 − d).
    """
    leaves, treedef = jax.tree.flatten(state.opt_state)
    part, places = _part(state, freeze=True), len(jax.tree.leaves((state.params, state.aux)))
    offset = len(jax.tree.leaves(grad)) - places
    mean = [i - places for i in part.moving if i >= places]
    means, unravel = ravel_pytree([leaves[i] for i in mean])
    value = value_fn(state.params)
    extra = {"value": value, "grad": grad, "value_fn": value_fn}
    wanted = {name: extra[name] for name in optimizers.extra_arguments(optimizer)}
    flat, unravel_grad = ravel_pytree(grad)

    def update(x: tuple[Array, Array]) -> list[Array]:
        new = dict(zip(mean, unravel(x[1]), strict=True))
        before = jax.tree.unflatten(treedef, [new.get(i, leaf) for i, leaf in enumerate(leaves)])
        return jax.tree.leaves(optimizer.update(unravel_grad(x[0]), before, state.params, **wanted))

    def respond(x: tuple[Array, Array]) -> tuple[Array, Array]:
        out = _holding(update, tuple(i + offset for i in part.held))(x)
        count = len(jax.tree.leaves(grad))
        return ravel_pytree(out[:count])[0], ravel_pytree([out[i + count] for i in mean])[0]

    slope = lambda x, v: jax.jvp(respond, (x,), (v,))[1]
    at, ones = (flat, means), (jnp.ones_like(flat), jnp.zeros_like(means))
    signs = jnp.where(jax.random.bernoulli(jax.random.key(0), 0.5, flat.shape), 1, -1).astype(flat.dtype)
    (a, c), (b, d) = slope(at, ones), slope(at, (jnp.zeros_like(flat), jnp.ones_like(means)))
    turned, _ = slope(at, (signs, jnp.zeros_like(means)))
    bent = jax.jvp(lambda x: slope(x, ones)[0], (at,), ((flat, jnp.zeros_like(means)),))[1]  # all that is held is held
    size = 1e-3 * jnp.linalg.norm(a)
    diagonal = (jnp.linalg.norm(turned - a * signs) <= size) & (jnp.linalg.norm(bent) <= size)
    return (a + b * c / (1 - d) if mean else a), diagonal


# Monitors


class _LyapunovState(NamedTuple):
    tangent: Array  # (n,), of unit length
    growth: Array  # (), mean of the logarithms so far
    count: Array  # (), how many


@functools.lru_cache(maxsize=32)
def lyapunov_exponent(
    problem: Problem | Callable[..., Problem], factory: Any, *, burn_in: int = 1000, freeze: bool = False
) -> Monitor:
    """A monitor of how fast neighbouring runs part: ``lyapunov_exponent``, the mean log-growth of a tangent per step.

    The tangent, of params, aux and optimizer state together, goes through the derivative of every step and is brought
    back to unit length (Benettin et al., Lyapunov characteristic exponents, 1980). On a quadratic under sgd it is
    log max |1 − ηλᵢ|. Positive: runs part, as they do in chaos. It costs about two further steps a step. The derivative
    is JAX's: what a loss hides behind ``stop_gradient`` (a target that moves with the params) is hidden from it too.

    Args:
      problem, factory: those of the run, which a monitor does not see.
      burn_in: steps before the mean starts, in which the tangent turns into its direction; NaN in shorter runs.
      freeze: hold second moments constant, as in `multipliers`; without it, NaN where adam and its kind meet a
        second moment of zero.

    Raises:
      InputTypeError, InputValueError: `burn_in` is not an integer of at least 0.

    >>> from gdkit import descend, problems, sgd
    >>> watched = [lyapunov_exponent(problems.quadratic([1.0, 4.0]), sgd, burn_in=50)]
    >>> run = descend(problems.quadratic([1.0, 4.0]), sgd, 99, hyperparameters={"learning_rate": 0.1}, monitors=watched)
    >>> round(float(run.statistics["lyapunov_exponent"]), 4)  # log 0.9
    -0.1054
    """
    checks.check_integer("burn_in", burn_in, at_least=0)

    def init(state: State) -> _LyapunovState:
        leaves = jax.tree.leaves(state)
        vector, _ = ravel_pytree([leaves[i] for i in _part(state, freeze).moving])
        tangent = jax.random.normal(jax.random.key(0), vector.shape, vector.dtype)
        zero = jnp.zeros((), vector.dtype)
        return _LyapunovState(tangent / jnp.linalg.norm(tangent), zero, zero)

    def update(m: _LyapunovState, before: State, after: State, info: Info, context: Context) -> _LyapunovState:
        at = context.hyperparameters, context.t, context.key, context.data
        advance, vector = _vector_map(problem, factory, freeze, before, *at)
        pushed = jax.jvp(advance, (vector,), (m.tangent,))[1]
        size = jnp.linalg.norm(pushed)
        tangent = jnp.where(size == 0, m.tangent, pushed / jnp.where(size == 0, 1, size))
        counted = context.moves & (context.t >= burn_in)
        count = m.count + counted
        mean = m.growth + (jnp.log(size) - m.growth) / jnp.maximum(count, 1)
        mean = jnp.where((size == 0) | (m.growth == -jnp.inf), -jnp.inf, mean)  # a step that forgets all
        return _LyapunovState(tangent, jnp.where(counted, mean, m.growth), count)

    def read(m: _LyapunovState) -> dict[str, Array]:
        return {"lyapunov_exponent": jnp.where(m.count > 0, m.growth, jnp.nan)}

    return Monitor(init, update, read)


class _CurvatureState(NamedTuple):
    value: Array  # () the last, NaN before the first
    residual: Array  # () of the last
    most: Array  # ()
    curve: Array  # (record,), the first of them, NaN where there is none


@functools.lru_cache(maxsize=32)
def sharpness_every(
    problem: Problem | Callable[..., Problem], every: int, *, iterations: int = 20, record: int = 0
) -> Monitor:
    """A monitor of the sharpness at each `every`-th step, on the step's own batch.

    It reads ``sharpness`` (the last), ``sharpness_residual`` (its accuracy) and ``sharpness_max``, and with `record`
    ``sharpness_curve``: the values at the steps 0, every, 2 · every, ..., NaN at those which the run did not reach.

    Args:
      problem: that of the run, which a monitor does not see.
      every: steps from one to the next; steps between cost nothing.
      iterations: most Hessian-vector products of each.
      record: how many are kept in the curve, from the first on; later ones are not.

    Raises:
      InputTypeError, InputValueError: `every` or `iterations` is not an integer of at least 1, or `record` of 0.

    >>> from gdkit import descend, problems, sgd
    >>> watched = [sharpness_every(problems.parabola(), 5, record=4)]
    >>> run = descend(problems.parabola(), sgd, 10, hyperparameters={"learning_rate": 0.1}, monitors=watched)
    >>> [round(float(x), 4) for x in (run.statistics["sharpness"], *run.statistics["sharpness_curve"])]
    [2.0, 2.0, 2.0, 2.0, nan]
    """

    def measure(before: State, context: Context) -> tuple[Array, Array]:
        judged, _ = binding.resolve_problem(problem, context.hyperparameters)
        batch = binding.batch_of(judged, context.t, context.key, context.data)
        found = sharpness(judged, before.params, batch=batch, aux=before.aux, max_iterations=iterations)
        return found.values[0], found.residuals[0]

    return _curvature_every("sharpness", measure, every, iterations, record)


@functools.lru_cache(maxsize=32)
def preconditioned_sharpness_every(
    problem: Problem | Callable[..., Problem],
    factory: Any,
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
      problem, factory: those of the run, which a monitor does not see.
      every, iterations, record: as in `sharpness_every`.
      learning_rate: η, where the hyperparameters of the run do not hold it.

    Raises:
      InputTypeError, InputValueError: `every` or `iterations` is not an integer of at least 1, or `record` of 0; and,
        when a run begins, what `preconditioned_sharpness` raises of its optimizer and learning rate.

    >>> import optax
    >>> from gdkit import descend, problems
    >>> problem, chosen = problems.quadratic([1.0, 4.0]), {"learning_rate": 1e-3}
    >>> watched = [preconditioned_sharpness_every(problem, optax.adam, 50)]
    >>> run = descend(problem, optax.adam, 100, hyperparameters=chosen, monitors=watched)
    >>> there = preconditioned_sharpness(problem, optax.adam, run, hyperparameters=chosen)
    >>> bool(jnp.isclose(run.statistics["preconditioned_sharpness"], there.values[0]))
    True
    """

    def measure(before: State, context: Context) -> tuple[Array, Array]:
        rate = _known_rate(context.hyperparameters, learning_rate)
        _check_moments(before)
        at = context.hyperparameters, context.t, context.key, context.data, rate, 1e-4
        depth = min(iterations, ravel_pytree(before.params)[0].size)
        found, diagonal, positive = _largest_preconditioned(problem, factory, before, *at, k=1, depth=depth)
        trusted = lambda x: jnp.where(diagonal & positive, x[0], jnp.nan)
        return trusted(found.values), trusted(found.residuals)

    return _curvature_every("preconditioned_sharpness", measure, every, iterations, record)


def _curvature_every(
    name: str, measure: Callable[[State, Context], tuple[Array, Array]], every: int, iterations: int, record: int
) -> Monitor:
    """A monitor of what `measure` finds, value and residual, at each `every`-th step."""
    for argument, value in (("every", every), ("iterations", iterations)):
        checks.check_integer(argument, value)
    checks.check_integer("record", record, at_least=0)

    def init(state: State) -> _CurvatureState:
        nothing = jnp.full((), jnp.nan, ravel_pytree(state.params)[0].dtype)
        return _CurvatureState(nothing, nothing, nothing, jnp.full((record,), jnp.nan, nothing.dtype))

    def look(m: _CurvatureState, before: State, context: Context) -> _CurvatureState:
        value, residual = measure(before, context)
        curve = jnp.where(jnp.arange(record) == context.t // every, value, m.curve)
        return _CurvatureState(value, residual, jnp.fmax(m.most, value), curve)

    def update(m: _CurvatureState, before: State, after: State, info: Info, context: Context) -> _CurvatureState:
        # the step is not a lane's own, so that this stays a branch under vmap
        return jax.lax.cond(context.t % every == 0, look, lambda m, *_: m, m, before, context)

    def read(m: _CurvatureState) -> dict[str, Array]:
        found = {name: m.value, f"{name}_residual": m.residual, f"{name}_max": m.most}
        return found | ({f"{name}_curve": m.curve} if record else {})

    return Monitor(init, update, read)


# The critical learning rate


class Profile(NamedTuple):
    """Every learning rate that was tried, in ascending order, and what became of it."""

    learning_rate: np.ndarray  # (tried,)
    diverged: np.ndarray  # (tried,) bool


class CriticalLearningRate(NamedTuple):
    """The largest learning rate that does not diverge."""

    value: float  # the lower end of the bracket, which did not diverge
    bracket: tuple[float, float]  # the upper end did
    profile: Profile
    simple: bool  # whether, of all that were tried, those above `value` diverged and the others did not


def critical_learning_rate(
    problem: Problem | Callable[..., Problem],
    factory: Any,
    *,
    low: float,
    high: float,
    steps: int,
    rtol: float = 1e-2,
    key: int | Key = 0,
    hyperparameters: Hyperparameters | None = None,
    lanes: int = 16,
    diverged_above: float = 1e6,
) -> CriticalLearningRate:
    """The largest learning rate in [low, high] that does not diverge within `steps`, to a relative `rtol`.

    Runs `lanes` learning rates side by side, in equal ratios, and goes on between the last that does not diverge and
    the next; every round is a call of one compiled program. A run diverges if its loss is not finite or exceeds
    L₀ + diverged_above · max(|L₀|, 1), or if it ends near its highest, more than twice as far above the best loss as
    it began, and climbing: what the default thresholds of `gdkit.classify` call diverged. Close to the border growth
    is slow, and too few `steps` to see it put the border too high: on a quadratic by about 1 / steps.

    Args:
      problem, factory: as in `descend`; the factory takes ``learning_rate``.
      low, high: the interval, of learning rates above 0; the lowest must not diverge, the highest must.
      steps: of each run.
      rtol: the ratio of the bracket's ends, less 1, at most.
      key: the seed's key, or the integer that makes it; every run has the same.
      hyperparameters: the others, name to value.
      lanes: how many run at once, at least 3.
      diverged_above: as in `sweep`.

    Returns:
      The value, its bracket, and all that was tried. The border need not be one point (Sohl-Dickstein, The boundary
      of neural network trainability is fractal, 2024): `simple` is False where a learning rate below the value
      diverged.

    Raises:
      InputTypeError, InputValueError: an argument cannot be used; nothing, or everything, in the interval diverges.

    >>> from gdkit import problems, sgd
    >>> found = critical_learning_rate(problems.quadratic([1.0, 4.0]), sgd, low=0.01, high=10.0, steps=1000)
    >>> abs(found.value - 2 / 4) < 0.01 * found.value, found.simple
    (True, True)
    """
    low, high = _check_interval(low, high, rtol)
    checks.check_integer("steps", steps)
    checks.check_integer("lanes", lanes)
    if lanes < 3:
        raise bad_value("lanes", lanes, "too few to cut an interval", "Pass at least 3")
    diverge = _trial(problem, factory, dict(hyperparameters or {}), key, steps, diverged_above, low)
    tried: dict[float, bool] = {}
    bracket = low, high
    while True:
        rates = np.geomspace(*bracket, lanes)
        rates[[0, -1]] = bracket
        seen = diverge(rates)
        tried |= {rate: bad or tried.get(rate, False) for rate, bad in zip(rates.tolist(), seen.tolist(), strict=True)}
        profile = Profile(np.array(sorted(tried)), np.array([tried[rate] for rate in sorted(tried)]))
        bracket = _bracket(profile)
        if bracket[1] <= bracket[0] * (1 + rtol):
            held = profile.learning_rate <= bracket[0]
            return CriticalLearningRate(bracket[0], bracket, profile, not profile.diverged[held].any())


def _bracket(profile: Profile) -> tuple[float, float]:
    """The last learning rate that does not diverge, and the next."""
    rates, good = profile.learning_rate, np.flatnonzero(~profile.diverged)
    if good.size == 0:
        raise bad_value("low", rates[0], "all that was tried from here on diverges", "Pass a smaller low")
    if good[-1] + 1 == len(rates):
        raise bad_value("high", rates[-1], "it does not diverge", "Pass a larger high, or more steps")
    return float(rates[good[-1]]), float(rates[good[-1] + 1])


def _trial(
    problem: Any, factory: Any, chosen: dict, key: int | Key, steps: int, diverged_above: float, low: float
) -> Callable[[np.ndarray], np.ndarray]:
    """Learning rates (lanes,) to whether each diverges (lanes,); one compiled program for all calls."""
    chosen = chosen | {"learning_rate": low}
    binding.check_hyperparameters(problem, factory, chosen)
    arrays, static, traced = binding.bind(problem, factory, chosen)
    binding.check_run(problem, factory, chosen, checks.as_key(key), arrays)
    dtype = traced["learning_rate"].dtype
    limits = Limits(jnp.asarray(diverged_above, dtype), jnp.asarray(-math.inf, dtype))
    program = _side_by_side(problem, factory, static)
    optimum = binding.resolve_problem(problem, chosen)[0].optimum
    keys, last = descent.keys_of(key), jnp.int32(steps)

    def diverge(rates: np.ndarray) -> np.ndarray:
        statistics = program(jnp.asarray(rates, dtype), traced, keys, arrays, limits, last)
        return _diverged({name: np.asarray(value, np.float64) for name, value in statistics.items()}, optimum)

    return diverge


@cache_if_hashable(maxsize=32)
def _side_by_side(problem: Any, factory: Any, static: tuple) -> Any:
    """Runs that differ in their learning rates: their loss statistics and ends, each (lanes,)."""
    watched = (monitors.loss_statistics(),)
    step = descent.lane_map(problem, factory, watched)

    def run(
        rates: Array, others: dict, keys: tuple[Key, Key], arrays: Arrays, limits: Limits, steps: Array
    ) -> dict[str, Array]:
        point = lambda rate: dict(static) | others | {"learning_rate": rate}
        begin = lambda rate: descent.start_lane(problem, factory, watched, point(rate), keys[0], arrays)
        roll = jax.vmap(lambda lane: monitors.roll(watched, lane.record, lane.state))

        def unfinished(carry: tuple[Array, Lane]) -> Array:
            return (carry[0] <= steps) & jnp.any(carry[1].record.end_kind == EndKind.RUNNING)

        def body(carry: tuple[Array, Lane]) -> tuple[Array, Lane]:
            t, lanes = carry
            record = jax.lax.cond(monitors.starts_window(t), roll, lambda lanes: lanes.record, lanes)
            one = lambda rate, lane: step(lane, point(rate), t, keys[1], arrays.data, limits, t == steps)[0]
            return t + 1, jax.vmap(one)(rates, lanes._replace(record=record))

        _, lanes = jax.lax.while_loop(unfinished, body, (jnp.int32(0), jax.vmap(begin)(rates)))
        return jax.vmap(lambda record: monitors.read(watched, record))(lanes.record)

    return jax.jit(run)


def _diverged(s: Mapping[str, np.ndarray], optimum: Any) -> np.ndarray:
    """Whether runs diverged, as `gdkit.regimes` judges them by default; written anew, as that lies above this layer."""
    stopped = (s["end_kind"] == EndKind.NONFINITE) | (s["end_kind"] == EndKind.EXCEEDED)
    seen = s["min_loss"][np.isfinite(s["min_loss"])]
    best = (np.min(seen) if seen.size else np.nan) if optimum is None else np.asarray(optimum, np.float64)
    with np.errstate(all="ignore"):
        start = np.maximum(s["initial_loss"] - best, np.finfo(np.float32).eps * np.abs(s["initial_loss"]))
        gap, rise = (s["final_loss"] - best) / start, (s["max_loss"] - best) / start
        at_its_highest = (s["max_step"] >= 0.875 * s["end_step"]) & (gap >= 0.5 * rise)
        climbing = (gap > 2) & at_its_highest & (s["late_mean"] > s["earlier_mean"])
    return stopped | ~np.isfinite(s["final_loss"]) | climbing


# The border: what bad input gets


def _known_rate(hyperparameters: Hyperparameters, learning_rate: Any) -> Any:
    """The learning rate of a run, from its hyperparameters or, where they lack it, as it was told."""
    rate = hyperparameters.get("learning_rate", learning_rate)
    if rate is None or callable(rate):
        remedy = "Pass hyperparameters={'learning_rate': ...}, or learning_rate="
        raise bad_value("learning_rate", rate, "not known, and the update holds it as a factor", remedy)
    if not isinstance(rate, Tracer):  # which only the program knows; it finds no preconditioner at 0
        checks.check_number("learning_rate", rate, above=0)
    return rate


def _check_moments(state: State) -> None:
    """Raise unless the optimizer keeps second moments like the params, and else one mean of gradients at most."""
    part = _part(state, freeze=True)
    leaves = jax.tree_util.tree_leaves_with_path(state)
    shapes = [leaf.shape for leaf in jax.tree.leaves(state.params)]
    remedy = "Use sharpness, or multipliers, which need no preconditioner"
    held = [leaves[i][1].shape for i in part.held]
    if not held or any(held[i : i + len(shapes)] != shapes for i in range(0, len(held), len(shapes))):
        problem = "it keeps no second moment for each param, so that no diagonal preconditioner is known"
        raise bad_type("optimizer", jax.tree.structure(state.opt_state), problem, remedy)
    own = [(path, leaf) for path, leaf in (leaves[i] for i in part.moving) if path[0].name == "opt_state"]
    if own and (not all("mu" in _fields(path) for path, _ in own) or [leaf.shape for _, leaf in own] != shapes):
        problem = "it keeps more than second moments and one mean of gradients, so that its gain is not known"
        raise bad_type("optimizer", jax.tree.structure(state.opt_state), problem, remedy)


def _check_interval(low: Any, high: Any, rtol: Any) -> tuple[float, float]:
    for argument, value in (("low", low), ("high", high), ("rtol", rtol)):
        checks.check_number(argument, value, above=0)
    if not low < high:
        raise bad_value("high", high, f"not above low={low}", "Pass low < high")
    if rtol < 1e-6:
        raise bad_value("rtol", rtol, "below the rounding of a learning rate in float32", "Pass at least 1e-6")
    return float(low), float(high)


def _state(problem: Any, optimizer: Any, hyperparameters: Hyperparameters, state: Any, arrays: Arrays) -> State:
    """`state`, or the last of a Trajectory, in the dtypes that the step map returns."""
    if not all(hasattr(state, name) for name in State._fields):
        raise bad_type("state", state, "not a State", "Pass a State(params, aux, opt_state), or a Trajectory")
    state = State(state.params, state.aux, state.opt_state)
    start = functools.partial(descent.initial_state, problem, optimizer, hyperparameters)
    like = jax.eval_shape(lambda: start(jax.random.key(0), arrays))
    if jax.tree.structure(state) != jax.tree.structure(like):
        remedy = f"This optimizer's has the structure {jax.tree.structure(like)}"
        raise bad_value("state", state, "it is not the state of this optimizer on this problem", remedy)
    return jax.tree.map(lambda x, model: jnp.asarray(x, model.dtype), state, like)


def _check_problem(problem: Any) -> None:
    if not isinstance(problem, Problem):
        remedy = "Pass a Problem; call a factory with its hyperparameters first"
        raise bad_type("problem", problem, "not a Problem", remedy)


def _check_search(k: Any, size: int, tolerance: Any, max_iterations: Any) -> None:
    checks.check_integer("k", k)
    checks.check_integer("max_iterations", max_iterations)
    if k > size:
        raise bad_value("k", k, f"there are only {size} eigenvalues", f"Ask for at most {size}")
    if max_iterations < k:
        raise bad_value("max_iterations", max_iterations, f"too few for {k} eigenvalues", f"Allow at least {k}")
    checks.check_number("tolerance", tolerance, above=0)


def _arrays(params: Params) -> Params:
    checks.check_params(params)
    return jax.tree.map(jnp.asarray, params)
