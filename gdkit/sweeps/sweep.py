"""sweep: from a request over plan, programs and execution to a result."""

import contextlib
import functools
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gdkit import checks
from gdkit.errors import StoreError, bad_type, bad_value
from gdkit.problems import ProblemLike
from gdkit.store import Store
from gdkit.store.paths import as_path
from gdkit.sweeps.description import Description, list_grids
from gdkit.sweeps.execution import processes, threads
from gdkit.sweeps.execution.executors import ExecutorLike, ParsedExecutor, Pool, parse_executor
from gdkit.sweeps.execution.head_start import HeadStart
from gdkit.sweeps.execution.jobs import JobCompiler
from gdkit.sweeps.execution.lanes import LaneCollector, MemoryColumns, ResumableSweep
from gdkit.sweeps.execution.progress import Meter, Progress, SegmentUpdate, print_lines
from gdkit.sweeps.execution.settings import DEFAULT_SETTINGS, ExecutionSettings
from gdkit.sweeps.plan.shapes import Plan
from gdkit.sweeps.programs.groups import trace_groups
from gdkit.sweeps.programs.job import Job
from gdkit.sweeps.programs.starts import check_start
from gdkit.sweeps.programs.tiles import FinishedBlock, SegmentOutput, extract_rows
from gdkit.sweeps.request import KeepStates, SweepRequest, check_request
from gdkit.sweeps.result.assemble import assemble, seconds_of
from gdkit.sweeps.result.labels import import_array_types, lane_coordinates
from gdkit.sweeps.result.result import SweepResult
from gdkit.sweeps.resume.bracket import check_bracketable, extend_until_bracketed
from gdkit.sweeps.resume.origin import attach_origin
from gdkit.sweeps.rundir.archive import UnfinishedRun, make_lane_loader
from gdkit.sweeps.rundir.manifest import RunDirectory, open_finished, shapes_of
from gdkit.sweeps.rundir.states import StoredStates
from gdkit.types import Key, Monitor, OptimizerLike, PyTree, State


def sweep(
    problem: ProblemLike,
    optimizer: OptimizerLike | str | None,
    axes: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    *,
    seeds: int = 1,
    steps: int,
    key: int | Key = 0,
    monitors: Sequence[Monitor] = (),
    statistics: str = "all",
    evaluate_every: int | None = None,
    curve_points: int = 200,
    target: float | None = None,
    diverged_above: float = 1e6,
    until_bracketed: bool = False,
    keep_states: KeepStates = "auto",
    start: State | PyTree | str | Path = None,
    store: str | Path | None = None,
    executor: ExecutorLike | None = None,
    plan: Plan | None = None,
    progress: Callable[[Progress], None] | bool | None = None,
    on_segment: Callable[[SegmentUpdate], None] | None = None,
) -> SweepResult:
    """Run every point of a grid for every seed side by side, and report the outcome of each run.

    Args:
      problem: a Problem, or a factory of one for axes named ``problem.NAME``; or a Learner, a step map of your own.
      optimizer: a factory such as ``optax.adam``, or the name of one; None where `axes` has ``optimizer``, and for a
        Learner.
      axes: name -> values; every combination of values is run. ``optimizer`` maps labels to factories or to
        (factory, axes of its own). All values of an axis of floats are lanes of one program; other values take one
        program each (`gdkit.lanes` and `gdkit.static` decide it). Axes in `gdkit.paired` vary together. The mappings
        of a sequence are combined with each other.
      seeds: runs per point. Seed s has the same start and the same batches at every point.
      steps: updates per lane.
      key: the root of all seeds; the run of seed s is `descend` with ``key=jax.random.fold_in(key, s)``.
      monitors: further statistics, and stopping rules such as `gdkit.monitors.patience`.
      statistics: ``"all"``, which regimes need, or ``"ends"``: initial, final and least loss, the last step and how a
        lane ended, which costs less. `best`, `edge` and `recommend` then work without regimes, and a run that still
        climbs at its last step does not count as diverged.
      evaluate_every: evaluate the validation data at every n-th step, as well as at the end. The ``validation_``
        variables then have the dimension ``evaluation`` with the coordinate ``evaluation_step``, the number of updates
        made: n, 2n, ..., and the last step. A lane that ends earlier is NaN from there on, except in the last place,
        which holds its value at the end. Test data are evaluated at the end only; metrics on the training data, where
        there are no others, as validation data. No training bit depends on it.
      curve_points: recorded losses within the first 10,000 steps, geometrically spaced; 0 for none.
      target: a lane ends when its loss is at most this.
      diverged_above: a lane ends when its loss exceeds L₀ + diverged_above · max(|L₀|, 1), or falls as far below L₀
        where neither an optimum nor a target is known. Regimes repeat this test relative to max(L₀ − L*, 1), so that
        a constant that is added to the loss changes none.
      until_bracketed: extend the learning rate, or else the first numeric axis, beyond its end until the best value
        lies inside it or the next one diverges: each time by half as many values as it has, at most 8 times. In a run
        directory each extension has its own directory, ``extended-1`` and so on.
      keep_states: which states of lanes `SweepResult.state` returns. ``"auto"``: those at the last step; they are kept
        in memory up to 256 MiB, in a run directory up to 64 MiB, and beyond that a lane's block is run again on demand,
        with the same bits. ``"last"``: the same, kept whatever their size, in the run directory if there is one.
        ``"best"``: with `evaluate_every`, also those at the best evaluation of each lane so far, by what `best`
        compares; ``best(at="best").state()`` then needs no replay. None: none, and `SweepResult.extend` cannot resume
        either.
      start: where all lanes start, in place of `Problem.init`: a `State`, params alone, or the path of what
        `SweepResult.export` writes: a ``.safetensors`` file of params, or the folder of an Orbax checkpoint, which has
        the optimizer state too. A ``.npz`` file of params is read as well. See `descend`; hyperparameters are
        those of each lane. It belongs to the identity of a run directory, by its numbers.
      store: where to write the result: a netCDF file, ``NAME.nc``, written at the end; or a run directory, written
        while the sweep runs. The same call on the same directory resumes an interrupted run with the same bits, and
        several processes that make this call share the work; under ``jax.distributed`` each starts with its own shard.
      executor: runs the tiles instead of gdkit's own threads: a ``concurrent.futures.Executor`` of threads or of
        processes (of the standard library, loky, mpi4py), or a ``dask.distributed.Client``. The bits are the same.
        All workers must find a directory in `store`; without one, they send their values back. Batches from the host
        are read once per seed and step with threads, whose number then limits how many blocks work at once; each
        process reads those of its own tiles once.
      plan: shapes of blocks and tiles, segments, workers, devices, and whether these divide each block among them. The
        planner chooses what is not given, by timing where the sweep takes long enough to pay for it.
      progress: True for lines on stderr, or a callback, called from worker threads.
      on_segment: a callback for logging, called in the caller's thread with a `SegmentUpdate` for each block and each
        of its segments, about twice per second and core: columns of lanes, hyperparameters and values. It reads the
        block, validation data included. Its exception stops the sweep, which can be resumed from its run directory.
        Processes of an `executor` do not call it, which is an error.

    Returns:
      A SweepResult with one row per lane, diverged lanes included; see `regimes`, `edge`, `best` and `recommend`.

    Raises:
      GdkitError: an argument cannot be used; the message names it, its value and the remedy.

    >>> from gdkit import problems, sgd
    >>> result = sweep(problems.parabola(), sgd, {"learning_rate": [0.01, 0.2, 0.8, 1.0, 1.2]}, steps=400)
    >>> [result.regime_names[code] for code in result.regimes.squeeze("seed").values]
    ['CONVERGED', 'CONVERGED', 'OSCILLATING', 'BOUNCING', 'DIVERGED']
    """
    request = check_request(
        problem, optimizer, axes, seeds=seeds, steps=steps, key=key, monitors=monitors, statistics=statistics,
        evaluate_every=evaluate_every, curve_points=curve_points, target=target, diverged_above=diverged_above,
        plan=plan, keep_states=keep_states, start=start,
    )  # fmt: skip
    checks.check_flag("until_bracketed", until_bracketed)
    pool, report_progress = parse_executor(executor), _progress_callback(progress)
    _check_on_segment(on_segment, pool)
    path = None if store is None else as_path("store", store)
    is_file = path is not None and path.suffix == ".nc"
    directory = RunDirectory(path).shard_of_process() if path is not None and not is_file else None
    run = functools.partial(run_request, report_progress=report_progress, executor=pool, on_segment=on_segment)
    if until_bracketed:
        check_bracketable(request)
    result, resumable = run(request, directory=directory)
    if until_bracketed:
        result, resumable = extend_until_bracketed(result, resumable, run, directory)
    result = attach_origin(result, resumable, run_request)
    if path is not None and is_file:
        result.save(path)
    return result


def run_request(
    request: SweepRequest,
    report_progress: Callable[[Progress], None] | None = None,
    executor: ExecutorLike | None = None,
    *,
    resumed: ResumableSweep | None = None,
    points: list[np.ndarray] | None = None,
    directory: RunDirectory | None = None,
    stop: threading.Event | None = None,
    on_segment: Callable[[SegmentUpdate], None] | None = None,
    settings: ExecutionSettings = DEFAULT_SETTINGS,
) -> tuple[SweepResult, ResumableSweep | None]:
    """Run a checked sweep, and return its result and its lanes at the last step.

    Args:
      report_progress: a callback, called from worker threads.
      executor, on_segment: as in `sweep`.
      resumed: a shorter sweep whose lanes are continued.
      points: the points that are continued, per group of `resumed`, while others stay as they are; by default all.
      directory: the run directory. A run that it holds is resumed.
      stop: an event that interrupts the sweep at the end of a segment.

    Returns:
      The result; lanes are missing where `stop` was set, or where other processes have not finished their shards. And
      the sweep to resume from, None where lanes are missing.
    """
    begin = time.monotonic()
    pool = parse_executor(executor, settings.large_request_bytes)
    groups = resumed.groups if resumed else list(trace_groups(request))  # which checks all before the first one runs
    compiler = JobCompiler(request, groups, processes=pool.size if isinstance(pool, Pool) else 1, settings=settings)
    meter = Meter(report_progress, request.lane_count, request.steps, settings.progress_seconds)
    finished_run = open_finished(directory, request, groups, settings.store_class) if directory else None
    if finished_run is not None:
        meter.complete()
        return _read_finished(compiler, finished_run)
    workers = compiler.workers - 1 if executor is None and on_segment is None else 0
    with HeadStart(workers, request.plan.segment, settings) as head_start:
        jobs, destination = _compile(compiler, head_start, directory, resumed, points)
        with contextlib.closing(destination):
            lanes = _make_collector(request, resumed, destination, pool, settings)
            jobs = _mark_jobs(jobs, lanes, destination)
            meter.add_resumed(destination.lanes_done * request.steps, destination.lanes_done)
            report_output = _segment_reporter(compiler, on_segment) if on_segment else None
            stop = stop or threading.Event()
            for finished in _run_jobs(compiler, jobs, destination, pool, meter, stop, report_output):
                destination.add(finished)  # not in workers, which would be slower: they share caches and Python's lock
                lanes.add(finished)
                meter.add(0, finished.block.lanes)
            columns = destination.columns()
    check_start(request, groups, columns)
    result = _assemble_result(compiler, destination, columns, begin)
    if result.missing:
        return result, None
    meter.complete()
    return result, _resumable_sweep(compiler, destination, columns, lanes)


# The stages


def _compile(
    compiler: JobCompiler,
    head_start: HeadStart,
    directory: RunDirectory | None,
    resumed: ResumableSweep | None,
    points: list[np.ndarray] | None,
) -> tuple[Iterable[Job], UnfinishedRun | MemoryColumns]:
    """The jobs of a sweep, and where their blocks go. A job is compiled while earlier ones run."""
    if directory is not None:
        return compiler.open_run(directory, head_start)
    columns = MemoryColumns(compiler.request, compiler.groups, resumed)
    return compiler.compile_resumed_jobs(resumed, points) if resumed else compiler.compile_jobs(), columns


def _mark_jobs(jobs: Iterable[Job], lanes: LaneCollector, destination: UnfinishedRun | MemoryColumns) -> Iterator[Job]:
    """The jobs, marked where finished blocks carry their lanes, to be kept in memory or in the run directory."""
    for job in jobs:
        yield job._replace(returns_lanes=lanes.reserve(job) or destination.stores_lanes)
    import_array_types()  # while the workers run the jobs


def _run_jobs(
    compiler: JobCompiler,
    jobs: Iterable[Job],
    destination: UnfinishedRun | MemoryColumns,
    pool: ParsedExecutor,
    meter: Meter,
    stop: threading.Event,
    report_output: Callable[[SegmentOutput], None] | None,
) -> Iterator[FinishedBlock]:
    """The blocks of all jobs as they finish, run by threads or by the processes of a pool."""
    request = compiler.request
    report = lambda block, steps: meter.add(steps * block.lanes)
    if isinstance(pool, Pool):
        rows_of = lambda part: compiler.groups[part.job.group].number_rows(part.block, request.seeds)
        return processes.run_jobs(
            jobs, cut_tiles=destination.cut_tiles, pool=pool, request=request, report=report,
            lanes_of=lambda tile: np.concatenate(list(map(rows_of, tile.parts))), archive=destination.archive,
            stop=stop, settings=compiler.settings,
        )  # fmt: skip
    return threads.run_jobs(
        jobs, cut_tiles=destination.cut_tiles, workers=compiler.workers, segment_steps=request.plan.segment,
        executor=pool, halve_block=compiler.halve_block, report=report, archive=destination.archive,
        stop=stop, report_output=report_output, settings=compiler.settings,
    )  # fmt: skip


def _segment_reporter(
    compiler: JobCompiler, on_segment: Callable[[SegmentUpdate], None]
) -> Callable[[SegmentOutput], None]:
    """A function that calls `on_segment` with the values of a block as columns."""
    request, groups = compiler.request, compiler.groups
    coordinates = lane_coordinates(*zip(*list_grids(request.sections), strict=True), request.seeds)
    hyperparameters = {name: values for name, (_, values) in coordinates.items()}

    def report(segment: SegmentOutput) -> None:
        lanes = groups[segment.job.group].number_rows(segment.block, request.seeds)
        rows = extract_rows(segment.block, segment.output, request.recorded_points)
        values = {"loss": rows["final_loss"]} | {name: value for name, value in rows.items() if value.ndim == 1}
        own = {name: column[lanes] for name, column in hyperparameters.items()}
        try:
            on_segment(SegmentUpdate(lanes, own, segment.step, values))
        except Exception as error:
            error.add_note("It was raised by on_segment, and stopped the sweep.")
            raise

    return report


def _read_finished(compiler: JobCompiler, run: Store) -> tuple[SweepResult, ResumableSweep]:
    """The result of a run that was finished before, and the sweep to resume from."""
    request, groups, columns = compiler.request, compiler.groups, run.columns().values
    check_start(request, groups, columns)
    description = Description.from_json(run.manifest.plan["result"])
    timings = run.timings() or _store_timings(run, {"seconds": seconds_of(run.path)})
    result = assemble(description, columns, timings, run.narrower())
    load = make_lane_loader(run)
    return result, ResumableSweep(request, groups, shapes_of(run), columns, None, load, StoredStates(run))


def _assemble_result(
    compiler: JobCompiler, destination: UnfinishedRun | MemoryColumns, columns: Mapping[str, np.ndarray], begin: float
) -> SweepResult:
    """The result of a sweep. The time of a resumed run counts from the first process on."""
    description = compiler.describe(optimum_known="optimum" in columns)
    if not isinstance(destination, UnfinishedRun):
        return assemble(description, columns, compiler.timings(time.monotonic() - begin))
    run = destination.archive.run
    is_resumed = destination.lanes_done > 0
    seconds = seconds_of(run.path) if is_resumed else time.monotonic() - begin
    is_finished = destination.lanes_done == compiler.request.lane_count
    timings = (run.timings() if is_finished else None) or compiler.timings(seconds)
    result = assemble(description, columns, timings, run.narrower())
    if not result.missing:
        _store_timings(run, timings)
    return result


def _store_timings(run: Store, timings: Mapping[str, float]) -> Mapping[str, float]:
    """Store the timings of a finished run, if the disk has room: its numbers are complete without them."""
    with contextlib.suppress(StoreError):
        run.put_timings(timings)
    return timings


def _resumable_sweep(
    compiler: JobCompiler,
    destination: UnfinishedRun | MemoryColumns,
    columns: Mapping[str, np.ndarray],
    lanes: LaneCollector,
) -> ResumableSweep:
    """The sweep to resume from, with its lanes in memory or in the run directory, where they were small enough."""
    groups = compiler.groups
    shapes = [choice.shape for choice in compiler.choices[: len(groups)]]
    parts = [lanes.parts[group.number] for group in groups] if lanes.is_complete(compiler.request) else None
    return ResumableSweep(compiler.request, groups, shapes, columns, parts, destination.load, destination.states)


def _make_collector(
    request: SweepRequest,
    resumed: ResumableSweep | None,
    destination: UnfinishedRun | MemoryColumns,
    pool: ParsedExecutor,
    settings: ExecutionSettings,
) -> LaneCollector:
    """The collector of lanes, which is on if this process sees all of them at their last step."""
    sees_all = destination.lanes_done == 0 and not isinstance(pool, Pool)
    is_unlimited = request.keep_states in ("last", "best") and not destination.stores_lanes
    most_bytes = sys.maxsize if is_unlimited else settings.lane_bytes
    return LaneCollector(resumed, is_on=sees_all and request.keep_states is not None, most_bytes=most_bytes)


# Checks


def _progress_callback(progress: Callable[[Progress], None] | bool | None) -> Callable[[Progress], None] | None:
    if progress is True:
        return print_lines()
    if progress and not callable(progress):
        raise bad_type("progress", progress, "not a callback", "Pass True for lines on stderr, or a function")
    return progress or None


def _check_on_segment(on_segment: Callable[[SegmentUpdate], None] | None, pool: ParsedExecutor) -> None:
    if on_segment is not None and not callable(on_segment):
        raise bad_type("on_segment", on_segment, "not a callback", "Pass a function of one SegmentUpdate")
    if on_segment is not None and isinstance(pool, Pool):
        remedy = "Leave executor out, or pass one of threads; progress= works with all of them"
        raise bad_value("on_segment", on_segment, "the processes of the executor send no values while they run", remedy)
