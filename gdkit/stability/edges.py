"""The curvature at which an optimizer's steps become unstable, found from its own update."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gdkit import binding, descent, factories
from gdkit.descent import StepInputs
from gdkit.problems import Problem
from gdkit.stability.dynamic_state import find_dynamic_state, split_floats, vector_map
from gdkit.stability.sharpness import compute_gain
from gdkit.types import Array, Hyperparameters, OptimizerLike, State, StaticHyperparameters

_CURVATURES = 64  # tried by a search, at equal ratios
_SPAN = 1e6  # ratio of the curvatures of the first search, which begins at 0.01 over the learning rate
_EXCESS = 1e-4  # by which rounding may raise a multiplier's modulus above 1


def is_adaptive(optimizer: OptimizerLike, hyperparameters: Hyperparameters) -> bool:
    """Whether the optimizer has second moments, so that its edge limits the preconditioned sharpness."""
    state = jax.eval_shape(lambda: _make_state(optimizer, hyperparameters, jnp.float32(1), 0))
    return bool(split_floats(state, True).held)


def find_edge(
    optimizer: OptimizerLike, hyperparameters: Hyperparameters, counts: Sequence[int] | np.ndarray = (0,)
) -> np.ndarray | None:
    """The sharpness above which steps on a quadratic are unstable at each step count, (counts,); None if there is none.

    2/η for gradient descent, (2 + 2β)/η for heavy ball. For an optimizer with second moments, which are held constant,
    it is the edge of the preconditioned sharpness, (2 + 2β₁)/((1 − β₁) η) for adam. The multipliers of the step are
    followed on ½ λ x² until the first leaves the unit circle, so that no formula of the optimizer is needed; a
    schedule counts with its value at that step, and where that is near 0 the edge is infinite. None where the update
    depends on the form of the params, or on the sign of the gradient alone.

    >>> from gdkit import sgd
    >>> find_edge(sgd, {"learning_rate": 0.1, "momentum": 0.5}).round()
    array([30.])
    """
    own = {name: value for name, value in hyperparameters.items() if not name.startswith(factories.PROBLEM_PREFIX)}
    rate = own.get("learning_rate", 1.0)
    if not factories.is_number(rate) or not rate > 0:
        return None
    floats = {name: value for name, value in own.items() if factories.is_float(value)}
    traced = {name: jnp.asarray(value, binding.traced_dtype()) for name, value in floats.items()}
    static = tuple((name, factories.hashable(value)) for name, value in sorted(own.items()) if name not in floats)
    try:
        program, scale = _compile_step(optimizer, static, tuple(traced))
        low, ratio = np.full(len(counts), 0.01 / rate), _SPAN ** (1 / (_CURVATURES - 1))
        at = jnp.asarray(counts, jnp.int32)
        for _ in range(2):
            curvatures = low[:, None] * ratio ** np.arange(_CURVATURES)
            first = _find_first_unstable(np.asarray(program(traced, at, jnp.asarray(curvatures))))
            known = first >= 1
            if not known.any():
                return None
            first = np.maximum(first, 1)
            low = np.take_along_axis(curvatures, first[:, None] - 1, axis=1)[:, 0]
            ratio **= 1 / (_CURVATURES - 1)
    except (TypeError, ValueError, KeyError, IndexError):  # its update needs params of another form
        return None
    return np.where(known, low * ratio**0.5 * np.asarray(scale(traced, at)), np.inf)


def _find_first_unstable(jacobians: np.ndarray) -> np.ndarray:
    """The index of the first curvature with a multiplier outside the unit circle, (counts,); −1 if there is none."""
    if not np.isfinite(jacobians).all():
        return np.full(len(jacobians), -1)
    unstable = np.abs(np.linalg.eigvals(jacobians.astype(float))).max(axis=-1) > 1 + _EXCESS
    return np.where(unstable.any(axis=1), unstable.argmax(axis=1), -1)


def _make_bowl(curvature: Array) -> Problem:
    return Problem(lambda x: 0.5 * curvature * x**2, init=jnp.float32(1e-6))


def _make_state(optimizer: OptimizerLike, hyperparameters: Hyperparameters, curvature: Array, count: Any) -> State:
    """The state on a bowl with second moments of 1 after `count` steps."""
    problem = _make_bowl(curvature)
    arrays = binding.get_arrays(problem)
    state = descent.initial_state(problem, optimizer, hyperparameters, jax.random.key(0), arrays)
    leaves, treedef = jax.tree.flatten(state)
    held = split_floats(state, True).held
    is_count = lambda leaf: jnp.issubdtype(jnp.result_type(leaf), jnp.integer) and jnp.ndim(leaf) == 0
    filled = [
        jnp.ones_like(leaf) if i in held else jnp.asarray(count, leaf.dtype) if is_count(leaf) else leaf
        for i, leaf in enumerate(leaves)
    ]
    return jax.tree.unflatten(treedef, filled)


@factories.cache_if_hashable(maxsize=32)
def _compile_step(
    optimizer: OptimizerLike, static: StaticHyperparameters, names: tuple[str, ...]
) -> tuple[Callable[..., Array], Callable[..., Array]]:
    """Jacobians of a step at counts (c,) and curvatures (c, n), (c, n, d, d); and the unit of the sharpness, (c,)."""

    def place(traced: dict[str, Array], count: Array, curvature: Array) -> tuple[Problem, State, StepInputs]:
        chosen = dict(static) | traced
        inputs = StepInputs(chosen, count, jax.random.key(0), None)
        return _make_bowl(curvature), _make_state(optimizer, chosen, curvature, count), inputs

    def jacobian(traced: dict[str, Array], count: Array, curvature: Array) -> Array:
        problem, state, inputs = place(traced, count, curvature)
        dynamic = find_dynamic_state(problem, optimizer, True, state, inputs)
        advance, vector = vector_map(problem, optimizer, dynamic, state, inputs)
        return jax.jacfwd(advance)(vector)

    def unit(traced: dict[str, Array], count: Array) -> Array:
        """The preconditioned sharpness of a curvature of 1."""
        problem, state, inputs = place(traced, count, jnp.float32(1))
        if not split_floats(state, True).held:
            return jnp.float32(1)
        dynamic = find_dynamic_state(problem, optimizer, True, state, inputs)
        built = binding.resolve(problem, optimizer, inputs.hyperparameters)[1]
        gain, _ = compute_gain(built, state, dynamic, jnp.float32(1e-6), lambda x: 0.5 * x**2)
        return -gain[0] / inputs.hyperparameters.get("learning_rate", 1.0)

    over_curvatures = jax.vmap(jacobian, (None, None, 0))
    return jax.jit(jax.vmap(over_curvatures, (None, 0, 0))), jax.jit(jax.vmap(unit, (None, 0)))
