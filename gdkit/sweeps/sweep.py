"""sweep: from axes to a result."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from gdkit.errors import bad_type, bad_value
from gdkit.monitors import EndKind
from gdkit.problems import Problem
from gdkit.sweeps.execution import processes, threads
from gdkit.sweeps.execution.executors import is_remote, pool_of
from gdkit.sweeps.execution.jobs import JobCompiler
from gdkit.sweeps.execution.lanes import LaneCollector, ResumableSweep
from gdkit.sweeps.execution.progress import Meter, Progress, plain_lines
from gdkit.sweeps.plan.shapes import Plan, count_workers
from gdkit.sweeps.programs.groups import trace_groups
from gdkit.sweeps.programs.job import Job
from gdkit.sweeps.programs.tiles import FinishedBlock
from gdkit.sweeps.request import SweepRequest, check_request, select_devices
from gdkit.sweeps.result.assemble import assemble, seconds_of
from gdkit.sweeps.result.result import SweepResult
from gdkit.sweeps.resume.origin import attach_origin
from gdkit.sweeps.rundir.archive import MemoryColumns, UnfinishedRun
from gdkit.sweeps.rundir.manifest import RunDirectory
from gdkit.types import Key, Monitor


def sweep(
    problem: Problem | Callable[..., Problem],
    optimizer: Any,
    axes: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    *,
    seeds: int = 1,
    steps: int,
    key: int | Key = 0,
    monitors: Sequence[Monitor] = (),
    curve_points: int = 200,
    target: float | None = None,
    diverged_above: float = 1e6,
    store: Any = None,
    executor: Any = None,
    plan: Plan | None = None,
    progress: Callable[[Progress], None] | bool | None = None,
) -> SweepResult:
    """Run every point of a grid for every seed, side by side, and tell what became of each.

    Args:
      problem: a Problem, or a factory of one for axes named ``problem.NAME``.
      optimizer: a factory such as ``optax.adam``, or the name of one; None where `axes` has ``optimizer``.
      axes: name to values; their product is run. ``optimizer`` maps labels to factories or (factory, own axes).
        Values with any float are lanes of one program; others one program each (`gdkit.lanes`, `gdkit.static` say it
        outright). `gdkit.paired` axes vary together. A sequence of mappings is multiplied out too.
      seeds: runs a point; seed s has the same start and the same batches at every point.
      steps: updates a lane.
      key: what all seeds come from; the run of seed s is `descend` with ``key=jax.random.fold_in(key, s)``.
      monitors: further statistics.
      curve_points: recorded losses within the first 10,000 steps, geometrically spaced; 0 for none.
      target: a lane ends when its loss is at most this.
      diverged_above: a lane ends when its loss exceeds L₀ + diverged_above · max(|L₀|, 1), or falls as far below L₀
        where neither an optimum nor a target is known.
      store: where to keep the result: a netCDF file, ``NAME.nc``, written at the end; or a directory, which fills up
        while the sweep runs. There the same call goes on where it was stopped, with the same bits, after a crash too,
        and calls in several processes share the work, those of ``jax.distributed`` a shard each to begin with.
      executor: what runs tiles, in place of threads of our own: a ``concurrent.futures.Executor`` of threads or of
        processes (of the standard library, loky, mpi4py), or a ``dask.distributed.Client``. The bits stay the same. A
        directory as `store` must lie where all workers find it; without one, what lanes read comes back.
      plan: the shape of blocks, tile, segment, workers, devices; what is not given is chosen, by timing where the sweep
        takes long enough to pay for it.
      progress: True for lines on stderr, or a callback, called from worker threads.

    Returns:
      A SweepResult: a row for every lane, diverged ones too; `regimes`, `edge`, `best` and `recommend` judge them.

    Raises:
      GdkitError: an argument cannot be used; the message names it, its value and the remedy.

    >>> from gdkit import problems, sgd
    >>> result = sweep(problems.parabola(), sgd, {"learning_rate": [0.01, 0.2, 0.8, 1.0, 1.2]}, steps=400)
    >>> [result.regime_names[code] for code in result.regimes.squeeze("seed").values]
    ['CONVERGED', 'CONVERGED', 'OSCILLATING', 'BOUNCING', 'DIVERGED']
    """
    request = check_request(
        problem, optimizer, axes, seeds=seeds, steps=steps, key=key, monitors=monitors,
        curve_points=curve_points, target=target, diverged_above=diverged_above, plan=plan,
    )  # fmt: skip
    if is_remote(executor):
        pool_of(executor)  # checks it
    if progress not in (None, True, False) and not callable(progress):
        raise bad_type("progress", progress, "not a callback", "Pass True for lines on stderr, or a function")
    tell = plain_lines() if progress is True else progress or None
    is_file = store is not None and Path(store).suffix == ".nc"
    where = RunDirectory(Path(store)).of_this_process() if store is not None and not is_file else None
    result = attach_origin(*run_request(request, tell, executor, where=where), run_request)
    if is_file:
        result.save(store)
    return result


def run_request(
    request: SweepRequest,
    tell: Callable[[Progress], None] | None = None,
    executor: Any = None,
    *,
    before: ResumableSweep | None = None,
    points: list[np.ndarray] | None = None,
    where: RunDirectory | None = None,
    stop: threading.Event | None = None,
) -> tuple[SweepResult, ResumableSweep | None]:
    """Run a checked sweep, or go on with one: its result, and its lanes unless they are too large to be kept.

    With a directory it is kept there, and goes on from what is there. Where `stop` was set on the way, or others have
    not finished their shards, lanes are missing.
    """
    begin = time.monotonic()
    devices = select_devices(request.plan)
    workers = count_workers(request.plan, len(devices))
    meter = Meter(tell, request.lane_count, request.steps)
    prepared = before.prepared if before else list(trace_groups(request))  # all are checked before the first is run
    processes = pool_of(executor).size if is_remote(executor) else 1
    planned = JobCompiler(request, prepared, devices, workers, processes)
    if where is not None:
        jobs, shelf = planned.archive(where)
    else:
        jobs = planned.again(before, points) if before else planned.jobs()
        shelf = MemoryColumns(request, prepared, before and before.columns)
    goes_on = shelf.lanes_done > 0
    meter.found(shelf.lanes_done * request.steps, shelf.lanes_done)
    keeper = LaneCollector(before, keeps=not goes_on and not is_remote(executor))
    jobs = (job._replace(returns_lanes=keeper.fits(job) or shelf.keeps_lanes) for job in jobs)
    with closing(shelf):
        for finished in _running(planned, jobs, shelf, executor, meter, stop or threading.Event()):
            shelf.put(finished)  # here: workers that did it would take longer, for they share caches and Python's lock
            keeper.put(finished)
            meter.add(0, finished.block.lanes)
        columns = shelf.columns()
    _check_start(columns)
    described = planned.described(optimum_known="optimum" in columns)
    seconds = seconds_of(where.path) if where and goes_on else time.monotonic() - begin
    narrower = shelf.archive.run.narrower() if shelf.archive else None
    result = assemble(described, columns, planned.timings(seconds), narrower)
    if result.missing:
        return result, None
    meter.over()
    shapes = [choice.shape for choice in planned.chosen[: len(prepared)]]
    parts = [keeper.parts[p.number] for p in prepared] if keeper.is_whole(request) else None
    return result, ResumableSweep(request, prepared, shapes, columns, parts, shelf.load if shelf.keeps_lanes else None)


def _running(
    planned: JobCompiler,
    jobs: Iterable[Job],
    shelf: UnfinishedRun | MemoryColumns,
    executor: Any,
    meter: Meter,
    stop: threading.Event,
) -> Iterator[FinishedBlock]:
    """The blocks of all jobs as they finish: run by threads, or by the processes of an executor."""
    request, report = planned.request, lambda block, steps: meter.add(steps * block.lanes)
    if is_remote(executor):
        lanes = lambda part: planned.prepared[part.job.group].number_rows(part.block, request.seeds)
        return processes.run_jobs(
            jobs, tiles_of=shelf.cut_tiles, pool=pool_of(executor), request=request, report=report,
            lanes_of=lambda tile: np.concatenate(list(map(lanes, tile.parts))), archive=shelf.archive, stop=stop,
        )  # fmt: skip
    return threads.run_jobs(
        jobs, tiles_of=shelf.cut_tiles, workers=planned.workers, segment=request.plan.segment, executor=executor,
        narrower=planned.narrower, report=report, archive=shelf.archive, stop=stop,
    )  # fmt: skip


def go_on(
    kept: ResumableSweep, steps: int, points: list[np.ndarray] | None = None, **options: Any
) -> tuple[SweepResult, ResumableSweep | None]:
    """Run lanes on until `steps`: all, or for each group those of some points; the others stay as they are."""
    return run_request(kept.request._replace(steps=steps), before=kept, points=points, **options)


def _check_start(columns: Mapping[str, np.ndarray]) -> None:
    dead = (columns["end_kind"] == EndKind.NONFINITE) & (columns["end_step"] == 0)
    if np.all(dead):
        value = columns["initial_loss"].ravel()[0]
        raise bad_value("problem", float(value), "the loss is not finite at the start", "Look at init and at the data")
