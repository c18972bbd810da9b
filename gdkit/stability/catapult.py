"""The learning rate at which the loss first rises, from which a warm-up may start."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gdkit import binding, checks, descent
from gdkit.binding import Arrays
from gdkit.errors import bad_value
from gdkit.factories import cache_if_hashable
from gdkit.problems import ProblemLike
from gdkit.types import Array, Hyperparameters, Key, OptimizerLike, StaticHyperparameters


def catapult_rate(
    problem: ProblemLike,
    optimizer: OptimizerLike,
    *,
    low: float,
    high: float,
    steps: int = 10,
    rtol: float = 0.05,
    key: int | Key = 0,
    hyperparameters: Hyperparameters | None = None,
    lanes: int = 16,
) -> float:
    """The largest learning rate below which the loss stays at most as high as at the start, for `steps` steps.

    Above it the loss rises first and the run catapults to a flatter region, or diverges. A warm-up from 0 spends its
    first steps at rates that are stable anyway; started here, it needs fewer (Kalra and Barkeshli, Why warmup the
    learning rate? Underlying mechanisms and improvements, 2024; the border is c_loss of their Phase diagram of early
    training dynamics, 2023, within ten steps): ``schedule("warmup", steps, start=rate / peak)``.
    No Hessian is needed; on a quadratic it tends to 2/λ with the steps. `lanes` rates at equal ratios run side
    by side; the next round lies between the first rate whose loss rises and the one before it.

    Args:
      problem, optimizer, key, hyperparameters: as in `descend`; the optimizer is a factory that takes
        ``learning_rate``.
      low, high: the interval, above 0; the loss must rise at the highest and not at the lowest.
      steps: the number of steps of each run.
      rtol: how far the ratio of the last two rates may exceed 1.
      lanes: the number of runs side by side, at least 3.

    Raises:
      InputTypeError, InputValueError: an argument cannot be used; the loss rises everywhere, or nowhere.

    >>> from gdkit import problems, sgd
    >>> rate = catapult_rate(problems.quadratic([4.0]), sgd, low=0.01, high=10.0, rtol=0.001)
    >>> abs(rate - 2 / 4) < 0.001
    True
    """
    checks.check_interval(low, high, rtol=rtol)
    checks.check_integer("steps", steps)
    checks.check_integer("lanes", lanes, at_least=3)
    chosen = checks.as_hyperparameters(hyperparameters, varied="learning_rate") | {"learning_rate": low}
    arrays, static, traced = binding.bind(problem, optimizer, chosen)
    binding.check_run(problem, optimizer, chosen, checks.as_key(key), arrays)
    program, dtype = _compile_runs(problem, optimizer, static, steps), traced["learning_rate"].dtype
    while True:
        rates = np.geomspace(low, high, lanes)
        rises = np.asarray(program(jnp.asarray(rates, dtype), traced, checks.as_key(key), arrays))
        if rises[0] or not rises.any():
            name, problem_text, remedy = (
                ("low", "the loss rises there", "Pass a smaller low") if rises[0]
                else ("high", "the loss does not rise there", "Pass a larger high, or more steps")
            )  # fmt: skip
            raise bad_value(name, low if rises[0] else high, problem_text, remedy)
        first = int(rises.argmax())
        low, high = float(rates[first - 1]), float(rates[first])
        if high <= low * (1 + max(rtol, 1e-5)):
            return low


@cache_if_hashable(maxsize=32)
def _compile_runs(
    problem: ProblemLike, optimizer: OptimizerLike, static: StaticHyperparameters, steps: int
) -> Callable[[Array, dict[str, Array], Key, Arrays], Array]:
    """A program that tells for learning rates, (lanes,), whether the loss of each run exceeds its first loss."""
    step = descent.step_map(problem, optimizer)

    def rises(rate: Array, traced: dict[str, Array], keys: tuple[Key, Key], arrays: Arrays) -> Array:
        hyperparameters = dict(static) | traced | {"learning_rate": rate}
        state = descent.initial_state(problem, optimizer, hyperparameters, keys[0], arrays)

        def body(state: Any, t: Array) -> tuple[Any, Array]:
            after, info = step(state, hyperparameters, t, keys[1], arrays.data)
            return after, info.loss

        _, losses = jax.lax.scan(body, state, jnp.arange(steps + 1, dtype=jnp.int32))
        return ~jnp.all(losses <= losses[0])  # NaN counts as a rise

    def run(rates: Array, traced: dict[str, Array], key: Key, arrays: Arrays) -> Array:
        keys = descent.split_key(key)
        return jax.vmap(lambda rate: rises(rate, traced, keys, arrays))(rates)

    return jax.jit(run)
