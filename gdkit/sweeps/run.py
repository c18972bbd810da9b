"""Running a checked sweep, or going on with one."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from typing import Any

import numpy as np

from gdkit.errors import bad_value
from gdkit.monitors import EndKind
from gdkit.sweeps import dispatch, execute, remote, stored
from gdkit.sweeps.archive import Memory, Remaining
from gdkit.sweeps.jobs import Planned
from gdkit.sweeps.kept import Keeper, Kept
from gdkit.sweeps.plan import workers_for
from gdkit.sweeps.pools import is_remote, pool_of
from gdkit.sweeps.prepared import prepared_groups
from gdkit.sweeps.progress import Meter, Progress
from gdkit.sweeps.request import Sweep, devices_of
from gdkit.sweeps.result import SweepResult, assemble, seconds_of


def run(
    request: Sweep,
    tell: Callable[[Progress], None] | None = None,
    executor: Any = None,
    *,
    before: Kept | None = None,
    points: list[np.ndarray] | None = None,
    where: stored.Directory | None = None,
    stop: threading.Event | None = None,
) -> tuple[SweepResult, Kept | None]:
    """Run a checked sweep, or go on with one: its result, and its lanes unless they are too large to be kept.

    With a directory it is kept there, and goes on from what is there. Where `stop` was set on the way, or others have
    not finished their shards, lanes are missing.
    """
    begin = time.monotonic()
    devices = devices_of(request.plan)
    workers = workers_for(request.plan, len(devices))
    meter = Meter(tell, request.lanes, request.steps)
    prepared = before.prepared if before else list(prepared_groups(request))  # all are checked before the first is run
    processes = pool_of(executor).size if is_remote(executor) else 1
    planned = Planned(request, prepared, devices, workers, processes)
    if where is not None:
        jobs, shelf = planned.archive(where)
    else:
        jobs = planned.again(before, points) if before else planned.jobs()
        shelf = Memory(request, prepared, before and before.columns)
    goes_on = shelf.lanes_done > 0
    meter.found(shelf.lanes_done * request.steps, shelf.lanes_done)
    keeper = Keeper(before, keeps=not goes_on and not is_remote(executor))
    jobs = (job._replace(keep=keeper.fits(job) or shelf.keeps_lanes) for job in jobs)
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
    return result, Kept(request, prepared, shapes, columns, parts, shelf.load if shelf.keeps_lanes else None)


def _running(
    planned: Planned,
    jobs: Iterable[execute.Job],
    shelf: Remaining | Memory,
    executor: Any,
    meter: Meter,
    stop: threading.Event,
) -> Iterator[dispatch.Finished]:
    """The blocks of all jobs as they finish: run by threads, or by the processes of an executor."""
    request, report = planned.request, lambda block, steps: meter.add(steps * block.lanes)
    if is_remote(executor):
        lanes = lambda part: planned.prepared[part.job.group].rows_at(part.block, request.seeds)
        return remote.run_jobs(
            jobs, tiles_of=shelf.tiles_of, pool=pool_of(executor), request=request, report=report,
            lanes_of=lambda tile: np.concatenate(list(map(lanes, tile.parts))), archive=shelf.archive, stop=stop,
        )  # fmt: skip
    return dispatch.run_jobs(
        jobs, tiles_of=shelf.tiles_of, workers=planned.workers, segment=request.plan.segment, executor=executor,
        narrower=planned.narrower, report=report, archive=shelf.archive, stop=stop,
    )  # fmt: skip


def go_on(
    kept: Kept, steps: int, points: list[np.ndarray] | None = None, **options: Any
) -> tuple[SweepResult, Kept | None]:
    """Run lanes on until `steps`: all, or for each group those of some points; the others stay as they are."""
    return run(kept.request._replace(steps=steps), before=kept, points=points, **options)


def _check_start(columns: Mapping[str, np.ndarray]) -> None:
    dead = (columns["end_kind"] == EndKind.NONFINITE) & (columns["end_step"] == 0)
    if np.all(dead):
        value = columns["initial_loss"].ravel()[0]
        raise bad_value("problem", float(value), "the loss is not finite at the start", "Look at init and at the data")
