"""Gradient descent on a double well as the cubic map that it is: its closed forms, and how its cycles are told."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from gdkit import Problem
from gdkit.types import Array, Context, Info, Monitor, State

CURVATURE = 2.0  # λ at the minima
DOUBLINGS = (2 / CURVATURE, 5**0.5 - 1)  # those with a closed form
JOINED, LAST = 1.5 * 3**0.5 - 1, 4 / CURVATURE  # where both wells are visited, and where divergence begins
BORDERS = {"$2/\\lambda$": DOUBLINGS[0], "$\\sqrt{5}-1$": DOUBLINGS[1], "both wells": JOINED, "$4/\\lambda$": LAST}
FEIGENBAUM = 4.669201609
KEPT = 100  # iterates
SAME = 1e-4  # iterates no farther apart are one point of a cycle


@functools.cache  # compiled programs belong to one problem
def double_well(start: float) -> Problem:
    """¼ (x² − 1)² of a scalar x: minima 0 at ±1, of curvature 2."""
    return Problem(lambda x: jnp.square(jnp.square(x) - 1) / 4, start, optimum=0.0, name="double well")


@functools.cache
def last_iterates(count: int) -> Monitor:
    """A monitor of a scalar run's last params, oldest first: ``iterates``, (count,)."""

    def init(state: State) -> tuple[Array, Array]:
        return jnp.full((count,), jnp.nan, jnp.result_type(state.params)), jnp.int32(0)

    def update(m: tuple[Array, Array], before: State, after: State, info: Info, context: Context):
        kept = jax.lax.dynamic_update_index_in_dim(m[0], before.params, context.t % count, 0)
        return kept, context.t + 1

    def read(m: tuple[Array, Array]) -> dict[str, Array]:
        return {"iterates": jnp.roll(m[0], -m[1])}

    return Monitor(init, update, read)


def periods(iterates: np.ndarray) -> np.ndarray:
    """The power of two after which each run repeats itself, infinite if there is none; (runs, iterates) -> (runs,)."""
    found = np.full(len(iterates), np.inf)
    for period in 2 ** np.arange(int(np.log2(iterates.shape[1] - 1)), -1, -1):
        found[np.abs(iterates[:, period:] - iterates[:, :-period]).max(axis=1) <= SAME] = period
    return found


def closed_form(rates: np.ndarray) -> np.ndarray:
    """The Lyapunov exponent up to the second doubling, NaN above it; like `rates`."""
    with np.errstate(divide="ignore"):
        fixed, cycle = np.log(np.abs(1 - CURVATURE * rates)), np.log(np.abs(9 - 2 * (1 + rates) ** 2)) / 2
    return np.select([rates <= DOUBLINGS[0], rates <= DOUBLINGS[1]], [fixed, cycle], np.nan)


def window(found: Sequence[float]) -> tuple[float, float]:
    """Where to look for the next doubling: near its closed form, or a sixth to a fourth of the last interval ahead."""
    if len(found) < len(DOUBLINGS):
        return 0.96 * DOUBLINGS[len(found)], 1.04 * DOUBLINGS[len(found)]
    last = found[-1] - found[-2]
    return found[-1] + last / 6, found[-1] + last / 4


def share_due(rates: np.ndarray, iterates: np.ndarray, doublings: np.ndarray) -> float:
    """The share of runs that have period 2ᵏ, of those in the middle eight tenths of an interval after k doublings."""
    ends, period = np.append(0, doublings), periods(iterates)
    place = np.searchsorted(ends, rates) - 1
    inside = place < len(doublings)
    low, width = ends[place[inside]], np.diff(ends)[place[inside]]
    middle = np.abs((rates[inside] - low) / width - 0.5) < 0.4
    return float(np.mean(period[inside][middle] == 2.0 ** place[inside][middle]))
