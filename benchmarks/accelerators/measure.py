"""Measure gdkit on the device of this machine: ``python -m benchmarks.accelerators.measure OUT.json [--quick]``.

It takes less than eight minutes and writes JSON. It checks sweeps, regimes
and resumed runs there, times all workloads against one ``jit(vmap(scan))`` by hand, and tries compiler options, each in
a process of its own, since some of them have crashed. Parts for which no time is left are recorded as skipped.
"""

import functools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # processes share the device

import jax
import numpy as np
import optax

import gdkit
from benchmarks import records, timing
from benchmarks.accelerators.counts import MODELS
from benchmarks.peers import gdkit_peer, jax_peers
from benchmarks.workloads import make
from gdkit.sweeps.plan.shapes import Plan
from gdkit.sweeps.programs import compile as compiling
from gdkit.sweeps.programs.groups import build_job, trace_groups
from gdkit.sweeps.programs.timing import time_lane_step
from gdkit.sweeps.request import check_request

SECONDS = 440  # in all, beyond which only the part that has begun is finished
PART_SECONDS = 60
GRAPHS = "FUSION,CUBLAS,CUBLASLT,CUSTOM_CALL,CUDNN,DYNAMIC_SLICE_FUSION,CONDITIONAL,WHILE"
OPTIONS: dict[str, dict[str, Any]] = {
    "as gdkit compiles": {},
    "loops within graphs": {"xla_gpu_enable_command_buffer": GRAPHS, "xla_gpu_graph_min_graph_size": 1},
    "no Triton products": {"xla_gpu_enable_triton_gemm": False},
    "latency hiding": {"xla_gpu_enable_latency_hiding_scheduler": True},
}


def main(arguments: list[str]) -> int:
    """Measure everything, or with ``--option NAME`` the steps of one workload under the options of that name."""
    jax.config.update("jax_default_matmul_precision", "float32")
    quick = "--quick" in arguments
    if arguments[:1] == ["--option"]:
        print(json.dumps(_time_steps(arguments[1], quick=quick)))
        return 0
    file, begin = Path(arguments[0]), time.monotonic()
    found: dict[str, Any] = {"machine": records.machine(), "jax": jax.__version__}
    for name, measure in _list_parts(quick=quick):
        found[name] = _attempt(measure) if time.monotonic() - begin < SECONDS else {"skipped": "no time was left"}
        found["seconds"] = time.monotonic() - begin
        file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        print(name, json.dumps(found[name]), flush=True)
    return 1 if any("error" in part for part in found.values() if isinstance(part, dict)) else 0


def _list_parts(*, quick: bool) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    yield "checks", check_sweeps
    for model in MODELS[:1] if quick else MODELS:
        yield f"times of {model}", functools.partial(time_model, model, quick=quick)
    for option in OPTIONS:
        yield f"steps, {option}", functools.partial(_time_in_process, option, quick=quick)


def _attempt(measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The result of a part, or what it raised: the other parts are measured all the same."""
    try:
        return measure()
    except Exception as error:  # of any kind: a program that a device refuses must not end the other measurements
        return {"error": f"{type(error).__name__}: {error}"[:500]}


def check_sweeps() -> dict[str, Any]:
    """Sweeps on the device against single calls, one of them extended; regimes and ends have to be equal."""
    problem = gdkit.problems.logistic_regression("iris", batch_size=16)
    axes = {"learning_rate": np.geomspace(1e-2, 100, 12)}
    run = functools.partial(gdkit.sweep, problem, optax.adam, axes, seeds=2)
    whole, single = run(steps=100), run(steps=100, plan=Plan(width=12, depth=2, unroll=0))
    extended = run(steps=60).extend(100)
    losses = lambda result: result.lanes["final_loss"].values
    size = losses(single) + single.lanes["initial_loss"].values  # losses of runs that converge end in noise
    differ = lambda other: float(np.nanmax(np.abs(losses(other) - losses(whole)) / size))
    return {
        "regimes equal": bool((whole.regimes.values == single.regimes.values).all()),
        "ends equal": bool((whole.lanes["end_step"].values == single.lanes["end_step"].values).all()),
        "difference of losses": differ(single),
        "difference of extended losses": differ(extended),
    }


def time_model(model: str, *, quick: bool) -> dict[str, Any]:
    """Median seconds of whole sweeps, with all statistics and with ends, and of the same by hand."""
    work = make(model, quick=quick)
    peers = [gdkit_peer(work), gdkit_peer(work, "ends")]
    peers += [next(peer for peer in jax_peers(work, way) if peer.title == "jit(vmap(scan))") for way in work.flavours]
    runs = {f"{peer.title}, {peer.flavour}": peer.run for peer in peers}
    first = {name: timing.seconds(run) for name, run in runs.items()}
    times = timing.time_interleaved(runs, reference="gdkit, all", budget=1.0 if quick else PART_SECONDS / 8)
    seconds = {name: float(np.median([x for x in taken if x is not None])) for name, taken in times.items()}
    return {"steps": work.steps, "lanes": len(work.rates), "seconds": seconds, "first call": first}


def _time_in_process(option: str, *, quick: bool) -> dict[str, Any]:
    words = [sys.executable, "-m", "benchmarks.accelerators.measure", "--option", option]
    done = subprocess.run(
        [*words, *(["--quick"] if quick else [])], capture_output=True, text=True, timeout=2 * PART_SECONDS, check=False
    )
    if done.returncode:
        return {"error": f"exit code {done.returncode}: {done.stderr.strip()[-300:]}"}
    return json.loads(done.stdout.strip().splitlines()[-1])


def _time_steps(option: str, *, quick: bool) -> dict[str, Any]:
    """Seconds per step of a block of the digits MLP under compiler options."""
    compiling.GPU_OPTIONS.update(OPTIONS[option])
    work = make("scalar" if quick else "digits_mlp", quick=quick)
    request = check_request(work.problem, gdkit.sgd, {"learning_rate": work.rates}, steps=work.steps)
    (group,) = trace_groups(request)
    job = build_job(request, group, jax.local_devices()[:1], group.choose_shape(request))
    return {"seconds per step": time_lane_step(job, 1) * job.lanes_per_block, "lanes": job.lanes_per_block}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
