"""What convex theory says about a schedule: a bound on the last loss, and the learning rate that minimizes it.

For a convex loss, subgradient steps with the learning rates ηₜ, t = 1, ..., T, from a start at distance D of a minimum,
with gradients of norm at most Gₜ, satisfy

  f(x_T) − f* ≤ (D² + Σ ηₜ²Gₜ²) / (2 Σ ηₜ) + ½ Σ_{k<T} ηₖ / (Σ_{t>k} ηₜ) · (Σ_{t≥k} ηₜ²Gₜ²) / (Σ_{t≥k} ηₜ)

where x_T is the point at which the last gradient is taken (Defazio, Cutkosky, Mehta and Mishchenko, When, why and how
much? Adaptive learning rate scheduling by refinement, 2023, Theorem 10; Schaipp, Hägele, Taylor, Simsekli and Bach, The
surprising agreement between convex optimization theory and learning-rate scheduling for large model training, 2025,
Theorem 1, which finds the shapes of the loss curves of language models in it). With ηₜ = γ·sₜ it is A/γ + B·γ: the best
peak is γ* = √(A/B), and its bound 2√(AB). Both fall with the number of steps T like T^(−1/2), up to a logarithm without
a cooldown.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gdkit.checks import as_scalar, check_call, check_integer, check_number
from gdkit.errors import bad_type, bad_value

ScheduleLike = Callable[[Any], Any] | np.ndarray | jax.Array  # count -> share of the peak, or the shares (steps,)


class BestRate(NamedTuple):
    """The peak learning rate that minimizes the bound of a schedule, and the bound there."""

    learning_rate: float
    bound: float


def bound(
    schedule: ScheduleLike, steps: int, *, peak: float = 1.0, distance: float = 1.0, gradient: float | np.ndarray = 1.0
) -> np.ndarray:
    """The bound on f(xₜ) − f* of a convex loss at every step of a schedule, where xₜ is the last iterate.

    Args:
      schedule: ``count -> share of the peak``, as `optimizers.schedule` returns it, or the shares (steps,). They are
        not negative, and above 0 at the first step.
      steps: T, steps of the run.
      peak: γ, the learning rate at a share of 1.
      distance: D, from the start to a minimum.
      gradient: G, the largest norm of a gradient: one number, or one per step (steps,).

    Returns:
      (steps,) in units of the loss: a bound at the point at which the gradient of each step is taken. Where the share
      is 0, the last step's that is not 0 stands for it, which the point does not depend on.

    Raises:
      InputTypeError, InputValueError: an argument cannot be used.

    >>> bound(lambda count: 1.0, 3, peak=0.5).round(4).tolist()  # D²/(2ηt) + (ηG²/2) (1 + 1 + 1/2 + ... + 1/(t − 1))
    [1.25, 1.0, 0.9583]
    """
    shares, squares = _check(schedule, steps, gradient)
    check_number("peak", peak, above=0)
    check_number("distance", distance, above=0)
    terms = np.array([_terms(shares[:t], squares[:t]) for t in range(1, steps + 1)])
    return distance**2 * terms[:, 0] / peak + terms[:, 1] * peak


def best_rate(
    schedule: ScheduleLike, steps: int, *, distance: float = 1.0, gradient: float | np.ndarray = 1.0
) -> BestRate:
    """The peak learning rate that minimizes the `bound` at the last step, √(A/B), and the bound there, 2√(AB).

    Ratios of best rates, between schedules or numbers of steps, do not depend on the distance and the gradients' norm.

    Args:
      schedule, steps, distance, gradient: as in `bound`.

    Raises:
      InputTypeError, InputValueError: as `bound`.

    >>> from gdkit import optimizers
    >>> short, long = (best_rate(optimizers.schedule("linear", steps), steps) for steps in (1000, 4000))
    >>> round(short.learning_rate / long.learning_rate, 2), round(short.bound / long.bound, 2)  # √4
    (1.99, 2.0)
    """
    shares, squares = _check(schedule, steps, gradient)
    check_number("distance", distance, above=0)
    spread, noise = _terms(shares, squares)
    return BestRate(float(distance * np.sqrt(spread / noise)), float(2 * distance * np.sqrt(spread * noise)))


def _terms(shares: np.ndarray, squares: np.ndarray) -> tuple[float, float]:
    """A for a distance of 1, and B: the bound at the last of these steps is A·D²/γ + B·γ."""
    moving = shares > 0
    if not moving[-1]:  # a step that would follow the last that moved
        shares, squares = np.append(shares[moving], shares[moving][-1]), np.append(squares[moving], squares[-1])
    else:
        shares, squares = shares[moving], squares[moving]
    left = np.cumsum(shares[::-1])[::-1]  # Σ_{t≥k} sₜ
    energy = np.cumsum((shares**2 * squares)[::-1])[::-1]  # Σ_{t≥k} sₜ²Gₜ²
    last = np.sum(shares[:-1] / left[1:] * energy[:-1] / left[:-1])
    return 1 / (2 * left[0]), energy[0] / (2 * left[0]) + last / 2


def _check(schedule: ScheduleLike, steps: int, gradient: float | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The shares, and the squares of the gradients' norms, (steps,) each."""
    check_integer("steps", steps)
    if callable(schedule):
        check_call("schedule", schedule, ("count",), "Pass a function of the count of steps")
        share: Callable[[Any], Any] = schedule
        schedule = jax.vmap(lambda count: as_scalar("schedule(count)", share(count)))(jnp.arange(steps))
    shares, norms = _as_floats("schedule", schedule), _as_floats("gradient", gradient)
    if shares.shape != (steps,):
        problem = f"not one share per step, ({steps},)"
        raise bad_value("schedule", shares.shape, problem, "Pass a function of the count, or an array of this shape")
    if not (np.isfinite(shares) & (shares >= 0)).all() or shares[0] == 0:
        remedy = "Leave out steps at the start that do not move"
        raise bad_value("schedule", shares, "its shares are not finite and at least 0, and above 0 at first", remedy)
    if norms.shape not in ((), (steps,)) or not (np.isfinite(norms) & (norms > 0)).all():
        problem = f"not one positive number, or one per step, ({steps},)"
        raise bad_value("gradient", gradient, problem, "Pass the largest norm of a gradient")
    return shares, np.broadcast_to(norms**2, (steps,))


def _as_floats(argument: str, values: Any) -> np.ndarray:
    try:
        return np.asarray(values, float)
    except (TypeError, ValueError) as error:
        raise bad_type(argument, values, "neither a number nor an array of numbers", "Pass real numbers") from error
