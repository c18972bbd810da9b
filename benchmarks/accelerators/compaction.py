"""Half of an axis diverges early: what that costs in the layout of accelerators, measured on a CPU.

One block holds all lanes, and one worker advances it, as on an accelerator.
"""

import functools
import time
from typing import Any

import numpy as np

from benchmarks.scaling import half_diverging
from gdkit import sgd
from gdkit.sweeps.execution.block import DEFAULT_SEGMENTS
from gdkit.sweeps.execution.settings import DEFAULT_SETTINGS
from gdkit.sweeps.plan.shapes import Plan
from gdkit.sweeps.programs.groups import build_job
from gdkit.sweeps.programs.layout import ON_ACCELERATOR
from gdkit.sweeps.request import check_request
from gdkit.sweeps.sweep import run_request

ROUNDS = 3
WAYS = {"compacted": ON_ACCELERATOR, "not compacted": ON_ACCELERATOR._replace(compacts=False)}


def measure(*, quick: bool = False) -> dict[str, Any]:
    """Processor times of an axis whose upper half diverges, as shares of that of an axis where nothing does, by way.

    The load of the machine changes them little. All programs are compiled before.
    """
    problem, below, half, steps = half_diverging(quick)

    def run(rates: np.ndarray, way: str) -> Any:
        build = functools.partial(build_job, layout=WAYS[way])
        segments = DEFAULT_SEGMENTS._replace(compaction_gain=0)
        settings = DEFAULT_SETTINGS._replace(build_job=build, segments=segments)
        plan = Plan(width=len(rates), workers=1)
        request = check_request(problem, sgd, {"learning_rate": rates}, steps=steps, plan=plan)
        return run_request(request, None, None, settings=settings)[0]

    runs = {"none": functools.partial(run, below, "compacted")}
    runs |= {way: functools.partial(run, half, way) for way in WAYS}
    for call in runs.values():  # compiles
        call()
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(1 if quick else ROUNDS):
        for name, call in runs.items():
            begin = time.process_time()
            call()
            seconds[name].append(time.process_time() - begin)
    ratios = {way: float(np.median(seconds[way]) / np.median(seconds["none"])) for way in WAYS}
    return {"lanes": len(half), "steps": steps, "ratios": ratios}
