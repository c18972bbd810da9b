"""Multipliers: the eigenvalues of the Jacobian of the step map."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from gdkit import binding, checks, descent
from gdkit.descent import StepInputs, Trajectory
from gdkit.factories import cache_if_hashable
from gdkit.problems import ProblemLike
from gdkit.stability.dynamic_state import DynamicState, as_state, cached_dynamic_state, vector_map, widen
from gdkit.stability.krylov import Krylov, Spectrum, check_search, extend, start_krylov
from gdkit.types import Array, Hyperparameters, Key, OptimizerLike, PyTree, State, StaticHyperparameters


class Multipliers(NamedTuple):
    """Eigenvalues of the Jacobian of the step map, by two orders; complex values (k,)."""

    farthest: Spectrum  # farthest from 1, the farthest first: under descent the most negative, which cross at −1
    largest: Spectrum  # of the largest modulus; away from a minimum, negative curvature alone raises it above 1
    frozen: tuple[str, ...]  # leaves of the optimizer's state that were held constant, () if it was differentiated


_DENSE = 64  # most numbers in a state for which the whole Jacobian is formed


def multipliers(
    problem: ProblemLike,
    optimizer: OptimizerLike,
    state: State | Trajectory,
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
    """The multipliers of a step: the factors by which it stretches small changes of params, aux and optimizer state.

    At a minimum a run is unstable if any has modulus above 1, and linearly stable if all are below. Arnoldi on J − I by
    Jacobian-vector products soon finds the multipliers farthest from 1, and late those of the largest modulus, which
    crowd near 1; for states of up to 64 numbers the whole Jacobian is formed. Only the dynamic state counts: the
    params, and the float leaves that params move and that move params. Numbers that the state only stores, such as
    injected hyperparameters, the scale of ``reduce_on_plateau`` or averages that no update reads, are constant, and so
    are integers, such as step counts: a bias correction uses the count in the state. The Jacobian is JAX's: it does not
    follow a loss through ``stop_gradient``.

    Args:
      problem, optimizer, hyperparameters: as in `descend`.
      state: a State, or a Trajectory, whose last state is used.
      k: the number of multipliers on each side.
      t, key, data: those of the step; they decide the minibatch.
      freeze: hold second moments (of adam, rmsprop, adagrad and similar optimizers) constant, so that the
        preconditioner is frozen and theory's thresholds apply, and so that the infinite slope of the square root at a
        second moment of zero does no harm. With False they are differentiated as the rest of the state.
      tolerance: largest relative residual of a value that counts as converged, relative to the largest distance from
        1. The residual is multiplied by the value's condition number, which momentum makes large.
      max_iterations: most Jacobian-vector products, and vectors in memory at once.

    Returns:
      Values with residuals. Those that did not converge, or are not finite, are False in `converged`.

    Raises:
      InputTypeError, InputValueError: an argument cannot be used; the state is that of another optimizer.

    >>> from gdkit import problems
    >>> from gdkit.optimizers import SgdState, sgd
    >>> state = State(jnp.zeros(2), (), SgdState((), ()))
    >>> spectra = multipliers(problems.quadratic([1.0, 4.0]), sgd(0.6), state)
    >>> round(float(spectra.farthest.values[0].real), 4)  # 1 − 0.6 · 4
    -1.4
    """
    checks.check_flag("freeze", freeze)
    chosen = checks.as_hyperparameters(hyperparameters)
    arrays, static, traced = binding.bind(problem, optimizer, chosen)
    state = as_state(problem, optimizer, chosen, state, arrays)
    state, data = widen(state, binding.replace_data(problem, chosen, arrays, data).data)
    arguments = state, StepInputs(traced, jnp.int32(t), descent.split_key(key)[1], data)
    dynamic = cached_dynamic_state(problem, optimizer, static, freeze, *arguments)
    size = sum(jax.tree.leaves(state)[i].size for i in dynamic.moving)
    depth = check_search(k, size, tolerance, max_iterations)
    program = _compile_jacobian(problem, optimizer, static, dynamic)
    if size <= _DENSE:
        matrix = np.asarray(program.whole(*arguments), np.float64)
        spectra = _select_spectra(matrix, np.zeros((1, size)), k, tolerance, size)
    else:
        spectra = _run_arnoldi(program, arguments, size, k, tolerance, depth)
    return Multipliers(*spectra, dynamic.frozen)


class _Jacobian(NamedTuple):
    """Two compiled programs with J − I of a step, whose arguments are ``(state, inputs)``."""

    whole: Callable[..., Array]  # -> (n, n)
    extend: Callable[..., Krylov]  # krylov, ... -> krylov after up to 16 more products


@cache_if_hashable(maxsize=32)
def _compile_jacobian(
    problem: ProblemLike, optimizer: OptimizerLike, static: StaticHyperparameters, dynamic: DynamicState
) -> _Jacobian:
    def displacement(state: State, inputs: StepInputs) -> tuple[Callable[[Array], Array], Array]:
        advance, vector = vector_map(problem, optimizer, dynamic, state, inputs.with_static(static))
        return (lambda v: jax.jvp(advance, (vector,), (v,))[1] - v), vector

    def whole(state: State, inputs: StepInputs) -> Array:
        apply, vector = displacement(state, inputs)
        return jax.vmap(apply, out_axes=1)(jnp.eye(vector.size, dtype=vector.dtype))

    def extend_krylov(krylov: Krylov, state: State, inputs: StepInputs) -> Krylov:
        apply, _ = displacement(state, inputs)
        end = jnp.minimum(krylov.count + 16, len(krylov.basis))
        return jax.lax.while_loop(lambda old: old.count < end, functools.partial(extend, apply), krylov)

    return _Jacobian(jax.jit(whole), jax.jit(extend_krylov))


def _run_arnoldi(
    program: _Jacobian, arguments: tuple[State, StepInputs], size: int, k: int, tolerance: float, depth: int
) -> tuple[Spectrum, Spectrum]:
    krylov = start_krylov(size, depth, k, jax.random.key(0), ravel_pytree(arguments[0].params)[0].dtype)
    while True:
        krylov = program.extend(krylov, *arguments)
        count = int(krylov.count)
        inside = np.asarray(krylov.projected, np.float64)[:count, :count]
        outside = np.asarray(krylov.coupling, np.float64)[:, :count]
        spectra = _select_spectra(inside, outside, min(k, count), tolerance, count)
        converged = all(side.converged.all() for side in spectra) and count >= k
        if converged or count == depth or not np.isfinite(inside).all():
            return spectra


def _select_spectra(
    matrix: np.ndarray, coupling: np.ndarray, k: int, tolerance: float, products: int
) -> tuple[Spectrum, Spectrum]:
    """The k eigenvalues of I + `matrix` farthest from 1, and the k of the largest modulus."""
    if not np.isfinite(matrix).all():
        nothing = Spectrum(np.full(k, np.nan + 0j), np.full(k, np.nan), np.zeros(k, bool), products)
        return nothing, nothing
    values, vectors = np.linalg.eig(matrix)
    residuals = np.linalg.norm(coupling @ vectors, axis=0)
    accurate = residuals * _find_condition_numbers(vectors) <= tolerance * np.abs(values).max()
    values = 1 + values.astype(complex)

    def pick(size: np.ndarray) -> Spectrum:
        at = np.argsort(-size, kind="stable")[:k]
        return Spectrum(values[at], residuals[at], accurate[at], products)

    return pick(np.abs(values - 1)), pick(np.abs(values))


def _find_condition_numbers(vectors: np.ndarray) -> np.ndarray:
    """The factor by which the error of an eigenvalue may exceed its residual: 1 for each of a symmetric matrix."""
    try:
        return np.linalg.norm(np.linalg.inv(vectors), axis=1)
    except np.linalg.LinAlgError:  # two eigenvectors coincide
        return np.full(len(vectors), np.inf)
