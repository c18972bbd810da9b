"""Wall-clock times of several implementations, interleaved so that changes of the machine's speed affect all alike.

Also the memory of this process, and measurements in a process of their own.
"""

import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

Times = dict[str, list[float | None]]  # name -> seconds per round, None for rounds without it


def seconds(run: Callable[[], Any]) -> float:
    """Seconds of one call until its results are ready."""
    start = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - start


def time_interleaved(
    runs: Mapping[str, Callable[[], Any]], *, reference: str, budget: float, most: int = 15, least: int = 3
) -> Times:
    """Times by round; each round starts with a different run.

    Args:
      runs: name -> function to time; already warm, so that nothing compiles during the rounds.
      reference: the run that takes part in every round.
      budget: total seconds for each other run, and a quarter of those for the reference, after `least` rounds.
      most, least: numbers of rounds.
    """
    times: Times = {name: [] for name in runs}
    names = list(runs)
    gc.disable()
    try:
        for number in range(most):
            spent = {name: sum(filter(None, taken)) for name, taken in times.items()}
            active = [name for name in names if number < least or spent[name] < budget]
            if number >= least and (set(active) <= {reference} or spent[reference] > 4 * budget):
                break
            for name in names:
                times[name].append(seconds(runs[name]) if name in active or name == reference else None)
            names.append(names.pop(0))
            gc.collect()
    finally:
        gc.enable()
    return times


def median(times: list[float | None]) -> float:
    """Median over the rounds of a run."""
    return statistics.median(t for t in times if t is not None)


def spread(times: list[float | None]) -> float:
    """Half the distance between the quartiles, as a share of the median: a measure of the machine's noise."""
    taken = [t for t in times if t is not None]
    if len(taken) < 2:
        return 0.0
    low, _, high = statistics.quantiles(taken, n=4, method="inclusive")
    return (high - low) / 2 / statistics.median(taken)


def ratio(times: Times, name: str, reference: str) -> float:
    """Median over rounds of the time of `name` as a multiple of that of `reference` in the same round."""
    pairs = zip(times[name], times[reference], strict=True)
    return statistics.median(a / b for a, b in pairs if a is not None and b is not None)


def read_memory(field: str) -> int:
    """Bytes of a field of Linux's status of this process; children inherit the peak of getrusage from their parent."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def run_module(module: str, argument: Any, **environment: str) -> Any:
    """What ``python -m module ARGUMENT`` prints last; both are JSON."""
    command = [sys.executable, "-m", module, json.dumps(argument)]
    settings: dict[str, Any] = {"cwd": Path(__file__).parent.parent, "env": os.environ | environment}
    done = subprocess.run(command, check=True, capture_output=True, text=True, **settings)
    return json.loads(done.stdout.splitlines()[-1])
