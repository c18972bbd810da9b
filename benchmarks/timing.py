"""Wall-clock times of several ways to do the same work, interleaved, so that the machine's moods meet all of them."""

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax

Times = dict[str, list[float | None]]  # name -> seconds a round, None where it did not take part


def seconds(run: Callable[[], Any]) -> float:
    """How long one call takes until its results are there."""
    start = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - start


def interleaved(
    runs: Mapping[str, Callable[[], Any]], *, reference: str, budget: float, most: int = 15, least: int = 3
) -> Times:
    """Times round by round, each round starting with another run.

    Args:
      runs: name to what is timed; warm, so that nothing compiles in what is timed.
      reference: the run that takes part in every round.
      budget: seconds that one of the others may take in all, and the reference four times as many, once they have had
        their `least` rounds.
      most, least: rounds.
    """
    times: Times = {name: [] for name in runs}
    names = list(runs)
    gc.disable()
    try:
        for number in range(most):
            spent = {name: sum(filter(None, taken)) for name, taken in times.items()}
            going = [name for name in names if number < least or spent[name] < budget]
            if number >= least and (set(going) <= {reference} or spent[reference] > 4 * budget):
                break
            for name in names:
                times[name].append(seconds(runs[name]) if name in going or name == reference else None)
            names.append(names.pop(0))
            gc.collect()
    finally:
        gc.enable()
    return times


def median(times: list[float | None]) -> float:
    """Of the rounds that took place."""
    return statistics.median(t for t in times if t is not None)


def spread(times: list[float | None]) -> float:
    """Half the distance between the quartiles, as a share of the median: how restless the machine was."""
    taken = [t for t in times if t is not None]
    if len(taken) < 2:
        return 0.0
    low, _, high = statistics.quantiles(taken, n=4, method="inclusive")
    return (high - low) / 2 / statistics.median(taken)


def ratio(times: Times, name: str, reference: str) -> float:
    """Median over rounds of the time of `name` as a multiple of that of `reference` in the same round."""
    pairs = zip(times[name], times[reference], strict=True)
    return statistics.median(a / b for a, b in pairs if a is not None and b is not None)
