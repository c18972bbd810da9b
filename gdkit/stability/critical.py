"""The critical learning rate: the largest that does not diverge, found by runs side by side."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gdkit import binding, checks, descent, monitors, regimes
from gdkit.binding import Arrays
from gdkit.descent import Lane, StepInputs
from gdkit.errors import bad_value
from gdkit.factories import cache_if_hashable
from gdkit.monitors import EndKind, Limits
from gdkit.problems import ProblemLike
from gdkit.types import Array, Hyperparameters, Key, OptimizerLike, StaticHyperparameters


class Profile(NamedTuple):
    """Every learning rate that was tried, in ascending order, and whether it diverged."""

    learning_rate: np.ndarray  # (tried,)
    diverged: np.ndarray  # (tried,) bool


class CriticalLearningRate(NamedTuple):
    """The largest learning rate that does not diverge."""

    value: float  # the lower end of the bracket, which did not diverge
    bracket: tuple[float, float]  # the upper end diverged
    profile: Profile
    simple: bool  # whether all tried learning rates up to `value` were stable and all above it diverged


def critical_learning_rate(
    problem: ProblemLike,
    optimizer: OptimizerLike,
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

    Runs `lanes` learning rates at equal ratios side by side, then again between the last that does not diverge and the
    next; every round is a call of one compiled program. A run diverges if its loss is not finite or exceeds
    L₀ + diverged_above · max(|L₀|, 1), or if it ends near its highest, more than twice as far above the best loss as
    it began, and climbing: the DIVERGED of `gdkit.classify` with its default thresholds, judged by the last loss on
    minibatches too. Close to the border losses grow slowly, so that few `steps` put it too high: on a quadratic by
    about 1 / steps.

    Args:
      problem, optimizer: as in `descend`; the optimizer is a factory that takes ``learning_rate``.
      low, high: the interval, of learning rates above 0; the lowest must not diverge, the highest must.
      steps: the number of steps of each run.
      rtol: how far the ratio of the bracket's ends may exceed 1.
      key: the seed's key, or the integer that makes it; every run has the same.
      hyperparameters: all others, name to value.
      lanes: the number of runs side by side, at least 3.
      diverged_above: as in `sweep`.

    Returns:
      The value, its bracket, and all that was tried. The border need not be one point (Sohl-Dickstein, The boundary
      of neural network trainability is fractal, 2024): `simple` is False where a learning rate below the value
      diverged.

    Raises:
      InputTypeError, InputValueError: an argument cannot be used; nothing, or everything, in the interval diverges.

    >>> from gdkit import problems, sgd
    >>> critical = critical_learning_rate(problems.quadratic([1.0, 4.0]), sgd, low=0.01, high=10.0, steps=1000)
    >>> abs(critical.value - 2 / 4) < 0.01 * critical.value, critical.simple
    (True, True)
    """
    checks.check_interval(low, high, rtol=rtol)
    if rtol < 1e-6:
        raise bad_value("rtol", rtol, "below the rounding of a learning rate in float32", "Pass at least 1e-6")
    checks.check_integer("steps", steps)
    checks.check_integer("lanes", lanes, at_least=3)
    checks.check_diverged_above(diverged_above)
    others = checks.as_hyperparameters(hyperparameters, varied="learning_rate")
    diverge = _make_trial(problem, optimizer, others, key, steps, diverged_above, float(low))
    tried: dict[float, bool] = {}
    bracket = float(low), float(high)
    while True:
        rates = np.geomspace(*bracket, lanes)
        rates[[0, -1]] = bracket
        outcomes = zip(rates.tolist(), diverge(rates).tolist(), strict=True)
        tried |= {rate: diverged or tried.get(rate, False) for rate, diverged in outcomes}
        profile = Profile(np.array(sorted(tried)), np.array([tried[rate] for rate in sorted(tried)]))
        bracket = _find_bracket(profile)
        if bracket[1] <= bracket[0] * (1 + rtol):
            below = profile.learning_rate <= bracket[0]
            return CriticalLearningRate(bracket[0], bracket, profile, not profile.diverged[below].any())


def _find_bracket(profile: Profile) -> tuple[float, float]:
    """The last learning rate that does not diverge, and the next."""
    rates, bounded = profile.learning_rate, np.flatnonzero(~profile.diverged)
    if bounded.size == 0:
        raise bad_value("low", rates[0], "every learning rate that was tried diverges", "Pass a smaller low")
    if bounded[-1] + 1 == len(rates):
        raise bad_value("high", rates[-1], "it does not diverge", "Pass a larger high, or more steps")
    return float(rates[bounded[-1]]), float(rates[bounded[-1] + 1])


def _make_trial(
    problem: ProblemLike,
    optimizer: OptimizerLike,
    chosen: dict[str, Any],
    key: int | Key,
    steps: int,
    diverged_above: float,
    low: float,
) -> Callable[[np.ndarray], np.ndarray]:
    """A function that returns whether each learning rate diverges, (lanes,) to (lanes,); it compiles once."""
    chosen = chosen | {"learning_rate": low}
    arrays, static, traced = binding.bind(problem, optimizer, chosen)
    binding.check_run(problem, optimizer, chosen, checks.as_key(key), arrays)
    dtype = traced["learning_rate"].dtype
    limits = Limits(jnp.asarray(diverged_above, dtype), jnp.asarray(-math.inf, dtype))
    program = _compile_runs(problem, optimizer, static)
    optimum = binding.resolve_problem(problem, chosen)[0].optimum
    keys, last = descent.split_key(key), jnp.int32(steps)

    def diverge(rates: np.ndarray) -> np.ndarray:
        statistics = program(jnp.asarray(rates, dtype), traced, keys, arrays, limits, last)
        diverged = regimes.has_diverged(statistics, optimum=optimum, diverged_above=diverged_above)
        if diverged.all():
            descent.check_first_step(problem, optimizer, chosen, checks.as_key(key), arrays)
        return diverged

    return diverge


@cache_if_hashable(maxsize=32)
def _compile_runs(
    problem: ProblemLike, optimizer: OptimizerLike, static: StaticHyperparameters
) -> Callable[..., dict[str, Array]]:
    """Runs that differ in their learning rates: their loss statistics and ends, each (lanes,)."""
    watched = (monitors.loss_statistics(),)
    step = descent.observed_step(problem, optimizer, watched)

    def run(
        rates: Array, others: dict[str, Array], keys: tuple[Key, Key], arrays: Arrays, limits: Limits, steps: Array
    ) -> dict[str, Array]:
        point = lambda rate: dict(static) | others | {"learning_rate": rate}
        start = lambda rate: descent.start_lane(problem, optimizer, watched, point(rate), keys[0], arrays)

        def is_unfinished(carry: tuple[Array, Lane]) -> Array:
            return (carry[0] <= steps) & jnp.any(carry[1].record.end_kind == EndKind.RUNNING)

        def body(carry: tuple[Array, Lane]) -> tuple[Array, Lane]:
            t, lanes = carry
            inputs = lambda rate: StepInputs(point(rate), t, keys[1], arrays.data)
            return t + 1, jax.vmap(lambda rate, lane: step(lane, inputs(rate), limits, t == steps)[0])(rates, lanes)

        _, lanes = jax.lax.while_loop(is_unfinished, body, (jnp.int32(0), jax.vmap(start)(rates)))
        return jax.vmap(lambda record: monitors.read(watched, record))(lanes.record)

    return jax.jit(run)
