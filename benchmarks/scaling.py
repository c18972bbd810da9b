"""Growth of time and memory with lanes, steps, workers and params, savings by divergence, and costs of the engine."""

import io
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import gdkit
from benchmarks import timing, workloads
from gdkit import Plan, problems
from gdkit.sweeps.plan.shapes import Shape, count_visible_cores
from gdkit.sweeps.programs.groups import build_job, trace_groups
from gdkit.sweeps.programs.job import get_block_inputs
from gdkit.sweeps.request import check_request
from gdkit.sweeps.rundir.manifest import RunDirectory
from gdkit.sweeps.sweep import run_request as run_checked

ROOT = Path(__file__).parent.parent


def run(*, quick: bool = False, full: bool = False) -> dict[str, Any]:
    """Results of all measurements."""
    parts = (steps, workers, params, divergence, repacking, dispatch, sharpness, million, main_job)
    found = {"lanes": lanes(quick, full)} | {part.__name__: part(quick) for part in parts}
    return found | {"help": time_help(quick)}


def _sweep(problem: gdkit.Problem, rates: np.ndarray, steps: int, **options: Any) -> gdkit.SweepResult:
    return gdkit.sweep(problem, gdkit.sgd, {"learning_rate": rates}, steps=steps, **options)


def _time(call: Callable[[], Any], rounds: int) -> float:
    """Median of warm calls, after two calls for compilation and planning."""
    call()
    call()
    return float(np.median([timing.seconds(call) for _ in range(rounds)]))


# --- growth


def lanes(quick: bool, full: bool) -> dict[str, Any]:
    """Time against lanes of a scalar, with a line a + b · lanes that minimizes relative errors."""
    problem, steps = problems.parabola(), 10 if quick else 100
    counts = [1, 10, 100] if quick else [1, 10, 100, 1000, 10_000, 100_000, 1_000_000] + [10_000_000] * full
    rounds = [1 if quick else 5 if n <= 1000 else 3 if n <= 100_000 else 1 for n in counts]
    seconds = [_time(lambda n=n: _sweep(problem, _rates(n), steps), r) for n, r in zip(counts, rounds, strict=True)]
    design = np.stack([np.ones(len(counts)), np.array(counts)], axis=1) / np.array(seconds)[:, None]
    (a, b), *_ = np.linalg.lstsq(design, np.ones(len(counts)), rcond=None)
    slopes = np.diff(seconds) / np.diff(counts)  # b between neighboring sizes, where the time is that of the lanes
    return {"lanes": counts, "steps": steps, "seconds": seconds, "a": a, "b": b, "slopes": slopes.tolist()}


def _rates(count: int) -> np.ndarray:
    return np.geomspace(1e-5, 1e-3, count)  # float64, for a million of float32 would not all differ


def steps(quick: bool) -> dict[str, Any]:
    """Time and peak memory against steps, each in its own process."""
    counts = [10, 100] if quick else [10, 100, 1000, 10_000, 100_000]
    found = [timing.run_module("benchmarks.scaling", {"lanes": 1024, "steps": n}) for n in counts]
    return {"steps": counts, "lanes": 1024, **{name: [f[name] for f in found] for name in found[0]}}


def million(quick: bool) -> dict[str, Any]:
    """Peak memory of a million lanes of a scalar with all statistics and no curves, in its own process."""
    sizes = {"lanes": 1000 if quick else 1_000_000, "steps": 10 if quick else 100, "curve_points": 0}
    return {"lanes": sizes["lanes"]} | timing.run_module("benchmarks.scaling", sizes)


def workers(quick: bool) -> dict[str, Any]:
    """Time of the digits MLP against the number of worker threads."""
    work = workloads.make("digits_mlp", quick=quick)
    counts = list(range(1, count_visible_cores() + 1))
    call = lambda n: lambda: _sweep(work.problem, work.rates, work.steps, plan=Plan(workers=n))
    return {"workers": counts, "seconds": [_time(call(n), 1 if quick else 3) for n in counts]}


def params(quick: bool) -> dict[str, Any]:
    """Time against the params of a quadratic, 16 lanes."""
    counts = [10, 100] if quick else [10, 100, 1000, 10_000, 100_000, 1_000_000]
    rates, steps = np.geomspace(1e-3, 0.1, 16), 10 if quick else 100
    made = [problems.quadratic(dimension=n, condition_number=10.0) for n in counts]
    seconds = [_time(lambda p=p: _sweep(p, rates, steps), 1 if quick else 3) for p in made]
    return {"params": counts, "lanes": len(rates), "steps": steps, "seconds": seconds}


def _child(lanes: int, steps: int, curve_points: int = 200) -> dict[str, float]:
    """Seconds of a warm sweep and the process's memory before it and at its peak, in bytes."""
    jnp.zeros(()).block_until_ready()
    before = timing.read_memory("VmRSS")
    seconds = _time(lambda: _sweep(problems.parabola(), _rates(lanes), steps, curve_points=curve_points), 1)
    return {"seconds": seconds, "before": before, "peak": timing.read_memory("VmHWM")}


# --- what divergence saves, and what the engine costs


def divergence(quick: bool) -> dict[str, Any]:
    """An axis whose upper half diverges in the first tenth of the steps, against one without divergence."""
    problem, below, half, steps = half_diverging(quick)
    count = len(below)
    runs = {"none": lambda: _sweep(problem, below, steps), "half": lambda: _sweep(problem, half, steps)}
    results = {name: run() for name, run in runs.items()}
    ends = results["half"].data["end_step"].values[count // 2 :, 0]
    runs["half"]()
    runs["none"]()
    rounds = 1 if quick else 7
    times = timing.time_interleaved(runs, reference="none", budget=20.0, most=rounds, least=min(3, rounds))
    diverged = int((results["none"].data["end_step"].values < steps).sum())
    ratio = timing.ratio(times, "half", "none")
    return {"ratio": ratio, "steps": steps, "latest_end": int(ends.max()), "diverged_of_none": diverged}


def half_diverging(quick: bool) -> tuple[gdkit.Problem, np.ndarray, np.ndarray, int]:
    """A problem, learning rates without divergence, others whose upper half diverges at once, and the steps."""
    problem = problems.mlp("digits", widths=(64, 64), batch_size=128, activation="tanh", loss="squared_error")
    count, steps = (4, 50) if quick else (64, 300)
    below = np.geomspace(1e-4, 1e-2, count)
    return problem, below, np.append(below[: count // 2], np.geomspace(3.0, 30.0, count // 2)), steps


def repacking(quick: bool) -> dict[str, Any]:
    """Saving by moving the remaining lanes into a block of half the width, where one block holds all lanes.

    That is how an accelerator takes them: then nothing ends before the last lane does. The time of half the lanes from
    the first step on is the least that repacking could reach.
    """
    problem, below, half, steps = half_diverging(quick)
    one_block = lambda rates: lambda: _sweep(problem, rates, steps, plan=Plan(width=len(rates), workers=1))
    runs = {"none": one_block(below), "half": one_block(half), "repacked": one_block(below[: len(below) // 2])}
    for run in (*runs.values(), *runs.values()):
        run()
    rounds = 1 if quick else 7
    times = timing.time_interleaved(runs, reference="none", budget=20.0, most=rounds, least=min(3, rounds))
    return {name: timing.ratio(times, name, "none") for name in ("half", "repacked")}


def dispatch(quick: bool) -> dict[str, Any]:
    """Cost of a tile besides its steps, from twice as many tiles with one lane and one step."""
    problem, count = problems.parabola(), 50 if quick else 2000
    plan = Plan(width=1, workers=1)
    call = lambda n: lambda: _sweep(problem, _rates(n), 1, plan=plan)
    few, many = (_time(call(n), 1 if quick else 5) for n in (count, 2 * count))
    return {"tiles": count, "seconds_a_tile": (many - few) / count, "seconds_a_call": _call(problem, count)}


def _call(problem: gdkit.Problem, count: int) -> float:
    """Seconds of one call of a tile's program without steps, until its outputs are ready, on an idle machine."""
    request = check_request(problem, gdkit.sgd, {"learning_rate": _rates(1)}, steps=1)
    (prepared,) = trace_groups(request)
    job = build_job(request, prepared, jax.local_devices()[:1], Shape(1, 1))
    program, inputs = job.programs[0], get_block_inputs(job, job.blocks[0])
    carry = program.start(*inputs)
    call = lambda: jax.block_until_ready(program.advance(*inputs, carry, np.int32(0), np.int32(1)))
    return float(np.median([timing.seconds(call) for _ in range(count)]))


def main_job(quick: bool) -> dict[str, Any]:
    """Cost of progress and store in the main job, as on the command line with a terminal.

    By the clock, and by the processor time of all threads: that leaves out waiting for the disk, and is less disturbed
    by what else the machine does.
    """
    from gdkit.app.config.build import build_arguments
    from gdkit.app.config.loading import load

    overrides = ("sweep.steps=6",) if quick else ()
    job: Any = load(ROOT / "configs" / "digits_mlp.yaml", overrides)
    request = check_request(**build_arguments(job), plan=Plan())
    spent: dict[str, list[float]] = {"plain": [], "watched": []}
    with tempfile.TemporaryDirectory() as folder:
        fresh = (Path(folder, str(number)) for number in itertools.count())
        ways = {"plain": lambda: run_checked(request), "watched": lambda: _run_watched(request, next(fresh))}
        runs = {name: lambda name=name: _record_spending(ways[name], spent[name]) for name in ways}
        for run in runs.values():
            run()
        rounds = 1 if quick else 21  # of two jobs whose times differ by chance more than by what is looked for
        times = timing.time_interleaved(runs, reference="plain", budget=0.0, most=rounds, least=rounds)
    own: timing.Times = {name: list(taken[1:]) for name, taken in spent.items()}
    share = lambda taken: timing.ratio(taken, "watched", "plain") - 1
    seconds = timing.median(times["plain"])
    return {"share": share(times), "processor_share": share(own), "seconds": seconds, "steps": request.steps}


def _run_watched(request: Any, folder: Path) -> None:
    """Run a sweep in a run directory, with the live table."""
    from rich.console import Console

    from gdkit.app import terminal, watcher

    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    with (
        terminal.show_progress(console) as (on_progress, on_tally),
        watcher.watch_tiles(folder, on_progress, on_tally) as callback,
    ):
        run_checked(request, callback, directory=RunDirectory(folder))


def _record_spending(run: Callable[[], Any], spent: list[float]) -> None:
    """Run the sweep and record the processor time of this process."""
    start = time.process_time()
    run()
    spent.append(time.process_time() - start)


def time_help(quick: bool) -> dict[str, float]:
    """The time of ``gdkit --help``."""
    call = lambda: subprocess.run([sys.executable, "-m", "gdkit", "--help"], cwd=ROOT, check=True, capture_output=True)
    return {"seconds": min(timing.seconds(call) for _ in range(1 if quick else 7))}


def sharpness(quick: bool) -> dict[str, Any]:
    """Full-batch sharpness against its Hessian-vector products alone, both compiled."""
    problem = problems.mlp("digits", widths=(16,) if quick else (300, 256))
    at = problem.init(jax.random.key(0))
    data = jax.device_put(problem.data)
    found = jax.jit(lambda params, batch: gdkit.sharpness(problem, params, batch=batch))
    gradient = lambda params, batch: jax.grad(problem.loss)(params, batch)
    product = jax.jit(lambda params, v, batch: jax.jvp(lambda p: gradient(p, batch), (params,), (v,))[1])
    count = int(found(at, data).products)

    def products() -> Any:
        vector = at
        for _ in range(count):
            vector = product(at, vector, data)
        return vector

    products()
    rounds = 1 if quick else 9
    runs = {"products": products, "sharpness": lambda: found(at, data)}
    times = timing.time_interleaved(runs, reference="products", budget=10.0, most=rounds, least=min(3, rounds))
    size = sum(leaf.size for leaf in jax.tree.leaves(at))
    return {"params": size, "products": count, "ratio": timing.ratio(times, "sharpness", "products")}


if __name__ == "__main__":
    print(json.dumps(_child(**json.loads(sys.argv[1]))))
