"""Costs of real training beyond its steps: batches from the host, evaluation along the run, kept states, memory."""

import itertools
import json
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gdkit
from benchmarks import timing
from gdkit import Problem, problems
from gdkit.sweeps.plan.shapes import Shape
from gdkit.sweeps.programs.compile import advance_block
from gdkit.sweeps.programs.groups import build_job, trace_groups
from gdkit.sweeps.programs.job import get_block_inputs
from gdkit.sweeps.request import check_request

ROOT = Path(__file__).parent.parent
FEATURES, CLASSES, BATCH = 64, 10, 128
RATES = {"learning_rate": np.geomspace(1e-3, 0.1, 16)}
PLAN = gdkit.Plan(width=4, depth=1)  # so that no time goes into choosing it, and blocks of a seed share their batches


def run(*, quick: bool = False) -> dict[str, Any]:
    """Results of all measurements."""
    return {part.__name__: part(quick) for part in (batches, waiting, evaluation, states, memory)}


def _data(rows: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    x = generator.standard_normal((rows, FEATURES), np.float32)
    return x, np.argmax(x @ generator.standard_normal((FEATURES, CLASSES)), axis=1).astype(np.int32)


def _init(key: Any) -> list[Any]:
    sizes = (FEATURES, 64, 64, CLASSES)
    keys = jax.random.split(key, len(sizes) - 1)
    pairs = zip(keys, itertools.pairwise(sizes), strict=True)
    return [(jax.random.normal(key, (i, o)) / i**0.5, jnp.zeros(o)) for key, (i, o) in pairs]


def _loss(params: list[Any], batch: Any) -> Any:
    x, y = batch
    for weight, bias in params[:-1]:
        x = jax.nn.relu(x @ weight + bias[None])
    weight, bias = params[-1]
    return optax.softmax_cross_entropy_with_integer_labels(x @ weight + bias[None], y).mean()


def _sweep(problem: Problem, steps: int, **options: Any) -> gdkit.SweepResult:
    return gdkit.sweep(problem, optax.adam, RATES, steps=steps, plan=PLAN, **options)


def _compare(runs: dict[str, Any], reference: str, quick: bool) -> dict[str, float]:
    """Time of each other run as a share beyond that of the reference, and the seconds of the reference."""
    for call in (*runs.values(), *runs.values()):
        call()
    rounds = 1 if quick else 31
    times = timing.time_interleaved(runs, reference=reference, budget=45.0, most=rounds, least=min(9, rounds))
    shares = {name: timing.ratio(times, name, reference) - 1 for name in runs if name != reference}
    return shares | {"seconds": timing.median(times[reference])}


def batches(quick: bool) -> dict[str, Any]:
    """How often each batch is read, per seed and step; once for all blocks, the loss at the end included."""
    steps, seeds, calls, lock = 6 if quick else 300, 2, [], threading.Lock()
    source = gdkit.data.from_arrays(_data(1000), batch_size=BATCH)

    def count_reads(seed: int, t: int) -> Any:
        with lock:
            calls.append((seed, t))
        return source(seed, t)

    _sweep(Problem(_loss, _init, batches=count_reads), steps, seeds=seeds)
    blocks = len(RATES["learning_rate"]) // PLAN.width
    return {"ratio": len(calls) / (seeds * (steps + 1)), "steps": steps, "seeds": seeds, "blocks": blocks}


def waiting(quick: bool) -> dict[str, Any]:
    """A sweep over a memory map against the same sweep over one batch that is in memory."""
    steps, rows = (6, 1000) if quick else (400, 200_000)
    with tempfile.TemporaryDirectory() as folder:
        source = gdkit.data.from_arrays(_map_rows(Path(folder), rows), batch_size=BATCH)
        begin = time.perf_counter()
        for t in range(steps):
            first = source(0, t)
        batch = (time.perf_counter() - begin) / steps
        made = {"read": source, "ready": lambda seed, t: first}
        runs = {name: _streaming(Problem(_loss, _init, batches=one), steps) for name, one in made.items()}
        found = _compare(runs, "ready", quick)
    return {"share": found["read"], "batch_seconds": batch, "step_seconds": found["seconds"] / (2 * steps)}


def _streaming(problem: Problem, steps: int) -> Any:
    return lambda: _sweep(problem, steps, seeds=2)


def _map_rows(folder: Path, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows in memory maps, written block by block."""
    x = np.memmap(folder / "x.bin", np.float32, "w+", shape=(rows, FEATURES))
    y = np.memmap(folder / "y.bin", np.int32, "w+", shape=(rows,))
    block = _data(1000)
    for first in range(0, rows, 1000):
        x[first : first + 1000], y[first : first + 1000] = block
    return x, y


def evaluation(quick: bool) -> dict[str, Any]:
    """What evaluating along the run costs beyond the evaluations themselves, as a share of the run."""
    steps, every = (6, 2) if quick else (800, 100)
    problem = _held_out()
    runs = {"along": lambda: _sweep(problem, steps, evaluate_every=every), "end": lambda: _sweep(problem, steps)}
    found = _compare(runs, "end", quick)
    themselves = _time_evaluations(problem, steps, every) / found["seconds"]
    return {"share": found["along"] - themselves, "whole": found["along"], "steps": steps, "every": every}


def _held_out() -> Problem:
    x, y = _data(4000)
    sample = problems.minibatches(BATCH)
    return Problem(_loss, _init, data=(x[:2000], y[:2000]), sample=sample, validation=(x[2000:], y[2000:]))


def _time_evaluations(problem: Problem, steps: int, every: int) -> float:
    """Seconds of the evaluations before the last: the same program on as many workers, each call after as many steps.

    Steps and evaluations take the caches from each other, whoever writes the loop: an evaluation that follows another
    one takes two thirds of the time.
    """
    plan = _sweep(problem, steps, evaluate_every=every).plan
    request = check_request(problem, optax.adam, RATES, steps=steps, evaluate_every=every)
    (group,) = trace_groups(request)
    job = build_job(request, group, jax.local_devices()[:1], Shape(*(plan[name] for name in Shape._fields)))
    started = [(get_block_inputs(job, block), job.programs[0]) for block in job.blocks]
    carries = [(program, inputs, program.start(*inputs)) for inputs, program in started]

    def evaluate(block: Any) -> float:
        (program, inputs, carry), taken = block, 0.0
        for t in range(every, steps, every):
            carry = jax.block_until_ready(advance_block(program, inputs, carry, t - every, t, steps))
            taken += timing.seconds(lambda carry=carry: program.evaluate(*inputs, carry))
        return taken

    with ThreadPoolExecutor(plan["workers"]) as pool:
        return float(np.median([sum(pool.map(evaluate, carries)) for _ in range(9)])) / plan["workers"]


def states(quick: bool) -> dict[str, Any]:
    """What keeping the last and the best states costs, as a share of a run that keeps none."""
    steps, every = (6, 2) if quick else (800, 100)
    problem = _held_out()
    keep = lambda kind: lambda: _sweep(problem, steps, evaluate_every=every, keep_states=kind)
    found = _compare({"none": keep(None), "last": keep("last"), "best": keep("best")}, "none", quick)
    return {"last": found["last"], "best": found["best"], "steps": steps, "every": every}


def memory(quick: bool) -> dict[str, Any]:
    """Peak memory of streaming sweeps, cached pages of the file not counted: with more steps, and a larger source.

    glibc gives threads arenas of their own, each of which retains some freed memory: by chance up to a tenth of the
    peak, in runs of any length. With one arena, what is measured is what the sweep holds.
    """
    steps, rows = (6, 1000) if quick else (200, 20_000)
    sizes = {"reference": (steps, rows), "steps": (10 * steps, rows), "rows": (steps, 20 * rows)}
    run = lambda size: timing.run_module("benchmarks.training", size, MALLOC_ARENA_MAX="1")
    peaks = {name: run(size) for name, size in sizes.items()}
    grown = {name: peaks[name] / peaks["reference"] for name in ("steps", "rows")}
    return {"sizes": sizes, "peaks": peaks, "steps": grown["steps"], "rows": grown["rows"]}


def _child(steps: int, rows: int) -> float:
    """Peak of the memory of this process that is not file cache, in bytes."""
    with tempfile.TemporaryDirectory() as folder:
        source = gdkit.data.from_arrays(_map_rows(Path(folder), rows), batch_size=BATCH)
        done, peaks = threading.Event(), [timing.read_memory("RssAnon")]

        def watch() -> None:
            while not done.wait(0.01):
                peaks.append(timing.read_memory("RssAnon"))

        watcher = threading.Thread(target=watch)
        watcher.start()
        _sweep(Problem(_loss, _init, batches=source), steps, seeds=2, curve_points=50)
        done.set()
        watcher.join()
    return max(peaks)


if __name__ == "__main__":
    print(_child(*json.loads(sys.argv[1])))
