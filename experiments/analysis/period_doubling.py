"""Gradient descent on a double well as a cubic map: its closed forms, and how the period of a run is measured."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from gdkit import Problem
from gdkit.types import Array, Context, Info, Monitor, State

CURVATURE = 2.0  # λ at the minima
DOUBLINGS = (2 / CURVATURE, 5**0.5 - 1)  # the first two period doublings have a closed form
BOTH_WELLS, DIVERGENCE = 1.5 * 3**0.5 - 1, 4 / CURVATURE  # from where runs visit both wells, and diverge
BORDERS = {
    "$2/\\lambda$": DOUBLINGS[0],
    "$\\sqrt{5}-1$": DOUBLINGS[1],
    "both wells": BOTH_WELLS,
    "$4/\\lambda$": DIVERGENCE,
}
FEIGENBAUM = 4.669201609
ITERATES = 100  # recorded at the end of each run
CYCLE_TOLERANCE = 1e-4  # iterates closer than this are one point of a cycle


@functools.cache  # compiled programs belong to one problem
def double_well(start: float) -> Problem:
    """¼ (x² − 1)² of a scalar x: minima 0 at ±1, of curvature 2."""
    return Problem(lambda x: jnp.square(jnp.square(x) - 1) / 4, start, optimum=0.0, name="double well")


@functools.cache
def last_iterates(count: int) -> Monitor:
    """A monitor of the last params of a run on a scalar, oldest first: ``iterates``, (count,)."""

    def init(state: State) -> tuple[Array, Array]:
        return jnp.full((count,), jnp.nan, jnp.result_type(state.params)), jnp.int32(0)

    def update(m: tuple[Array, Array], before: State, after: State, info: Info, context: Context):
        iterates = jax.lax.dynamic_update_index_in_dim(m[0], before.params, context.t % count, 0)
        return iterates, context.t + 1

    def read(m: tuple[Array, Array]) -> dict[str, Array]:
        return {"iterates": jnp.roll(m[0], -m[1])}

    return Monitor(init, update, read)


def periods(iterates: np.ndarray) -> np.ndarray:
    """Period of each run, the smallest power of two or infinity: (runs, iterates) -> (runs,)."""
    result = np.full(len(iterates), np.inf)
    for period in 2 ** np.arange(int(np.log2(iterates.shape[1] - 1)), -1, -1):
        result[np.abs(iterates[:, period:] - iterates[:, :-period]).max(axis=1) <= CYCLE_TOLERANCE] = period
    return result


def closed_form(rates: np.ndarray) -> np.ndarray:
    """The Lyapunov exponent up to the second doubling, NaN above it; like `rates`."""
    with np.errstate(divide="ignore"):
        fixed, cycle = np.log(np.abs(1 - CURVATURE * rates)), np.log(np.abs(9 - 2 * (1 + rates) ** 2)) / 2
    return np.select([rates <= DOUBLINGS[0], rates <= DOUBLINGS[1]], [fixed, cycle], np.nan)


def doubling_window(doublings: Sequence[float]) -> tuple[float, float]:
    """Interval that holds the next doubling: near its closed form, or a sixth to a fourth of the last gap ahead."""
    if len(doublings) < len(DOUBLINGS):
        return 0.96 * DOUBLINGS[len(doublings)], 1.04 * DOUBLINGS[len(doublings)]
    gap = doublings[-1] - doublings[-2]
    return doublings[-1] + gap / 6, doublings[-1] + gap / 4


def share_with_expected_period(rates: np.ndarray, iterates: np.ndarray, doublings: np.ndarray) -> float:
    """Share of runs with period 2ᵏ among those in the middle eight tenths of the interval after k doublings."""
    ends, period = np.append(0, doublings), periods(iterates)
    place = np.searchsorted(ends, rates) - 1
    inside = place < len(doublings)
    low, width = ends[place[inside]], np.diff(ends)[place[inside]]
    middle = np.abs((rates[inside] - low) / width - 0.5) < 0.4
    return float(np.mean(period[inside][middle] == 2.0 ** place[inside][middle]))
