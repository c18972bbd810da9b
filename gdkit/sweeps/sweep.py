"""sweep: from axes to a result."""

import dataclasses
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from gdkit import descent, factories, optimizers
from gdkit import monitors as monitors_
from gdkit.errors import OtherRunError, bad_type, bad_value, warn
from gdkit.monitors import EndKind, Limits
from gdkit.problems import Problem
from gdkit.sweeps import execute, planner, stored
from gdkit.sweeps.axes import Group, Section, groups_of, read_sections
from gdkit.sweeps.plan import Plan, Shape, lanes_for, shape_for, workers_for
from gdkit.sweeps.progress import Meter, Progress, plain_lines
from gdkit.sweeps.result import Description, SweepResult, assemble, describe, seconds_of
from gdkit.types import Key, Monitor


class Sweep(NamedTuple):
    """A sweep that has been checked and not yet run."""

    problem: Any
    sections: tuple[Section, ...]
    seeds: int
    steps: int
    key: Key
    monitors: tuple[Monitor, ...]
    curve_points: int
    limits: Limits
    plan: Plan

    @property
    def lanes(self) -> int:
        """How many lanes."""
        return sum(s.points for s in self.sections) * self.seeds

    @property
    def reached(self) -> int:
        """How many recorded steps the sweep reaches."""
        return int(np.sum(monitors_.curve_steps(self.curve_points) <= self.steps)) if self.curve_points else 0

    @property
    def watching(self) -> execute.Watching:
        """What is recorded: what every lane has, the user's monitors, the curve."""
        return execute.Watching(monitors_.DEFAULT + self.monitors, curve_within(self.curve_points, self.steps))


_HORIZON = 10_000  # a curve has room for this many steps at least, so that sweeps of fewer share a program


def curve_within(points: int, steps: int) -> tuple[int, ...]:
    """The steps of a curve that `steps` reach, and one more; those of 10,000 where they are fewer."""
    if not points:
        return ()
    at = monitors_.curve_steps(points)
    reached = int(np.sum(at <= max(steps, _HORIZON))) if steps <= _HORIZON else len(at)
    return tuple(at[: reached + 1].tolist())


def sweep(
    problem: Problem | Callable[..., Problem],
    optimizer_factory: Any,
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
    executor: Executor | None = None,
    plan: Plan | None = None,
    progress: Callable[[Progress], None] | bool | None = None,
) -> SweepResult:
    """Run every point of a grid for every seed, side by side, and tell what became of each.

    Args:
      problem: a Problem, or a factory of one for axes named ``problem.NAME``.
      optimizer_factory: a factory such as ``optax.adam``, or the name of one; None where `axes` has ``optimizer``.
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
        while the sweep runs. There the same call goes on where it was stopped, with the same bits, after a crash too.
      executor: a thread pool to run on, in place of one of our own.
      plan: the shape of blocks, tile, segment, workers, devices; what is not given is chosen, by timing where the sweep
        takes long enough to pay for it.
      progress: True for lines on stderr, or a callback, called from worker threads.

    Returns:
      A SweepResult: a row for every lane, diverged ones too; `regimes`, `edge`, `best` and `recommend` judge them.

    Raises:
      GdkitError: an argument cannot be used; the message names it, its value and the mend.

    >>> from gdkit import problems, sgd
    >>> result = sweep(problems.parabola(), sgd, {"learning_rate": [0.01, 0.2, 0.8, 1.0, 1.2]}, steps=400)
    >>> [result.regime_names[code] for code in result.regimes.squeeze("seed").values]
    ['CONVERGED', 'CONVERGED', 'OSCILLATING', 'BOUNCING', 'DIVERGED']
    """
    request = check(
        problem, optimizer_factory, axes, seeds=seeds, steps=steps, key=key, monitors=monitors,
        curve_points=curve_points, target=target, diverged_above=diverged_above, plan=plan,
    )  # fmt: skip
    if executor is not None and not isinstance(executor, ThreadPoolExecutor):
        raise bad_type("executor", executor, "not a thread pool", "Pass a ThreadPoolExecutor, or leave it out")
    if progress not in (None, True, False) and not callable(progress):
        raise bad_type("progress", progress, "not a callback", "Pass True for lines on stderr, or a function")
    tell = plain_lines() if progress is True else progress or None
    is_file = store is not None and Path(store).suffix == ".nc"
    where = stored.Directory(Path(store)) if store is not None and not is_file else None
    result = finished(*run(request, tell, executor, where=where))
    if is_file:
        result.save(store)
    return result


def check(
    problem: Any,
    optimizer_factory: Any,
    axes: Any,
    *,
    seeds: int = 1,
    steps: int,
    key: int | Key = 0,
    monitors: Sequence[Monitor] = (),
    curve_points: int = 200,
    target: float | None = None,
    diverged_above: float = 1e6,
    plan: Plan | None = None,
) -> Sweep:
    """The sweep that these arguments of `sweep` describe, checked as far as that goes without compiling."""
    descent.check_positive("steps", steps)
    descent.check_positive("seeds", seeds)
    if curve_points != 0:
        descent.check_positive("curve_points", curve_points)
    for name, value in (("diverged_above", diverged_above), ("target", 0.0 if target is None else target)):
        if not factories.is_number(value):
            raise bad_type(name, value, "not a number", "Leave it out for the default")
    if not diverged_above > 0:
        raise bad_value("diverged_above", diverged_above, "not positive", "Leave it out for 1e6")
    for monitor in monitors:
        if not isinstance(monitor, Monitor):
            mend = "Pass for example gdkit.monitors.time_to(0.1), or a gdkit.monitors.Monitor of your own"
            raise bad_type("monitors", monitor, "not a Monitor", mend)
    if not isinstance(problem, Problem) and not callable(problem):
        raise bad_type("problem", problem, "neither a Problem nor a factory of one", "Pass gdkit.Problem(loss, init)")
    sections = read_sections(problem, optimizer_factory, axes)
    for section in sections:
        names = [axis.name for d in section.dimensions for axis in d.axes]
        descent.check_hyperparameters(problem, section.factory, [*names, *section.fixed])
    key = descent.key_of(key)
    limits = Limits(diverged_above, -np.inf if target is None else target)
    return Sweep(problem, sections, seeds, steps, key, tuple(monitors), curve_points, limits, plan or Plan())


class Prepared(NamedTuple):
    """A group with all that running it needs, but not compiled."""

    number: int  # of the group
    offset: int  # of its section's first lane
    group: Group
    problem: Problem  # concrete
    static: dict[str, Any]
    most: int  # lanes a block should have
    unroll: int  # as the rule has it

    def lanes_of(self, block: execute.Block, seeds: int) -> np.ndarray:
        """The numbers of a block's lanes in a sweep of so many seeds, (seeds, points)."""
        return self.offset + self.group.points[block.points][None, :] * seeds + block.seeds[:, None]

    def rows_at(self, block: execute.Block, seeds: int) -> np.ndarray:
        """The numbers of a block's lanes as `stored.rows_of` puts them, without padding."""
        points, own = block.sizes
        return self.lanes_of(block, seeds)[:own, :points].T.ravel()

    def shape(self, request: Sweep) -> Shape:
        """The shape of its blocks by the rule; it depends on the machine's workers, not on those of this run."""
        usual = workers_for(Plan(), len(devices_of(request.plan)))
        return shape_for(len(self.group.points), request.seeds, self.most, request.plan, usual, self.unroll)


def prepared_groups(request: Sweep) -> Iterator[Prepared]:
    """Every group, checked by tracing one step."""
    number = offset = 0
    checked: set[int] = set()
    for section in request.sections:
        for group in groups_of(section):
            yield _prepare(request, group, checked)._replace(number=number, offset=offset)
            number += 1
        offset += section.points * request.seeds


def devices_of(plan: Plan) -> list[Any]:
    """The devices that a sweep uses.

    Raises:
      InputValueError: the plan wants more than there are.
    """
    devices = jax.local_devices()
    if plan.devices is not None and plan.devices > len(devices):
        mend = "Use fewer; a CPU is split with XLA_FLAGS=--xla_force_host_platform_device_count=N before JAX starts"
        raise bad_value("plan.devices", plan.devices, f"there are {len(devices)}", mend)
    return devices[: plan.devices]


def _prepare(request: Sweep, group: Group, checked: set[int]) -> Prepared:
    first = {name: values[0] for name, values in group.traced.items()}
    concrete, _ = descent.resolve_problem(request.problem, group.static | first)
    static = {n: factories.hashable(v) for n, v in group.static.items()}
    arrays = descent.arrays_of(concrete)
    loss = descent.check_run(request.problem, group.section.factory, group.static | first, request.key, arrays)
    if id(concrete) not in checked:
        checked.add(id(concrete))
        _warn(request, concrete)
    _check_used(request, group, concrete, static)
    if jax.default_backend() == "cpu" and descent.has_convolutions(loss):
        # XLA brings convolutions into their fast form only outside of loops, and those of many filters are slow
        return Prepared(0, 0, group, concrete, static, most=1, unroll=0)
    return Prepared(0, 0, group, concrete, static, lanes_for(descent.params_shape(concrete)), unroll=1)


class Kept(NamedTuple):
    """A finished sweep's lanes, as they go on from its last step."""

    request: Sweep
    prepared: list[Prepared]
    shapes: list[Shape]  # one a group
    parts: list[list[tuple[execute.Block, Any]]]  # one a group: its blocks and their lanes
    columns: dict[str, np.ndarray]  # what all lanes read so far

    def lanes(self, group: int) -> execute.Kept:
        """The lanes of a group, as a job takes them."""
        points, seeds = self.prepared[group].group.points, self.request.seeds
        at = self.prepared[group].lanes_of(execute.Block(np.arange(len(points)), np.arange(seeds)), seeds)
        curve = self.columns["curve_loss"][at.T] if "curve_loss" in self.columns else np.zeros((*at.T.shape, 0))
        return execute.Kept(execute.gathered(self.parts[group], len(points), seeds), curve)

    def go_on(
        self, steps: int, points: list[np.ndarray] | None = None, **options: Any
    ) -> tuple[SweepResult, "Kept | None"]:
        """Run lanes on until `steps`: all, or for each group those of some points; the others stay as they are."""
        return run(self.request._replace(steps=steps), before=self, points=points, **options)


def run(
    request: Sweep,
    tell: Callable[[Progress], None] | None = None,
    executor: Executor | None = None,
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
    planned = _Planned(request, prepared, devices, workers)
    jobs = planned.again(before, points) if before else planned.jobs()
    archive = None
    if where is not None:
        jobs, archive = planned.archive(where)
        meter.add(archive.lanes_done() * request.steps, archive.lanes_done())
    keeper = _Keeper(before, keeps=archive is None or not archive.done.any())
    reached = request.reached
    columns = _longer(before.columns, reached) if before else {}
    running = execute.run_jobs(
        (job._replace(keep=keeper.fits(job)) for job in jobs),
        tiles_of=archive.tiles_of if archive else lambda job: execute.tiles_of(job, request.plan.tile or 1),
        workers=workers, segment=request.plan.segment, executor=executor, narrower=planned.narrower, archive=archive,
        report=lambda block, steps: meter.add(steps * block.lanes), stop=stop,
    )  # fmt: skip
    for finished in running:
        if archive is None:
            rows = stored.rows_of(finished.block, finished.output, reached)
            _write(columns, rows, prepared[finished.job.group].rows_at(finished.block, request.seeds), request.lanes)
        keeper.put(finished)
        meter.add(0, finished.block.lanes)
    columns = archive.run.columns().values if archive else columns
    _check_start(columns)
    described = planned.described(optimum_known="optimum" in columns)
    seconds = seconds_of(archive.run.path) if archive and archive.done.any() else time.monotonic() - begin
    result = assemble(described, columns, planned.timings(seconds))
    if not keeper.keeps or (archive and keeper.lanes < request.lanes):
        return result, None
    shapes = [choice.shape for choice in planned.chosen[: len(prepared)]]
    return result, Kept(request, prepared, shapes, [keeper.parts[p.number] for p in prepared], columns)


class _Planned:
    """Compiles the jobs of a sweep, group by group, and notes how their shapes came about."""

    def __init__(self, request: Sweep, prepared: list[Prepared], devices: Sequence[Any], workers: int):
        self.request, self.prepared, self.devices, self.workers = request, prepared, devices, workers
        self.chosen: list[planner.Choice] = []
        self.compiling = 0.0  # seconds

    def jobs(self, shapes: Sequence[Shape] | None = None) -> Iterator[execute.Job]:
        """One job a group, in the shapes given or in those that the planner chooses."""
        for number, group in enumerate(self.prepared):
            start = time.monotonic()
            if shapes is None:
                job, choice = planned_job(self.request, group, self.devices, self.workers)
            else:
                job = job_of(self.request, group, self.devices, shapes[number])
                choice = planner.Choice(shapes[number], "stored")
            self._note(choice, start)
            yield job

    def again(self, before: Kept, points: list[np.ndarray] | None) -> Iterator[execute.Job]:
        """One job a group whose lanes go on, those of all points or of some."""
        for group in self.prepared:
            start, choice = time.monotonic(), planner.Choice(before.shapes[group.number], "given")
            which = np.arange(len(group.group.points)) if points is None else points[group.number]
            if not which.size:
                self.chosen.append(choice)
                continue
            blocks = execute.cut(execute.Block(which, np.arange(self.request.seeds)), choice.shape)
            job = job_of(self.request, group, self.devices, choice.shape, blocks)
            self._note(choice, start)
            yield job._replace(begin=before.request.steps, kept=before.lanes(group.number))

    def archive(self, where: stored.Directory) -> tuple[list[execute.Job], stored.Archive]:
        """All jobs, and the directory that they are kept in: in the shapes of the run that is there, if one is."""
        while True:
            shapes = stored.shapes_there(where, self.request, self.prepared)
            self.chosen.clear()
            jobs = list(self.jobs(shapes))
            described = self.described(optimum_known="optimum" in jobs[0].programs[0].output)
            try:
                setting = stored.Setting(self.request, self.prepared, jobs, self.chosen, self.workers, described)
                return jobs, stored.Archive.open(setting, where)
            except OtherRunError:
                if shapes is not None:
                    raise  # else another process was faster, perhaps with other shapes

    def narrower(self, job: execute.Job, block: execute.Block) -> execute.Job:
        """The job of a block's lanes in blocks of half the size."""
        shape = planner.half(Shape(len(block.points), len(block.seeds)))
        self.chosen.append(planner.Choice(shape, "memory"))
        lanes = execute.Block(np.unique(block.points), np.unique(block.seeds))
        blocks = execute.cut(lanes, shape)
        made = job_of(self.request, self.prepared[job.group], self.devices, shape, blocks)
        return made._replace(begin=job.begin, kept=job.kept, keep=job.keep)

    def described(self, *, optimum_known: bool) -> Description:
        """What the sweep is."""
        plan = _recorded(self.request.plan, self.chosen, self.workers, len(self.devices))
        stochastic = any(p.problem.sample is not None for p in self.prepared)
        return describe(self.request, stochastic=stochastic, optimum_known=optimum_known, plan=plan)

    def timings(self, seconds: float) -> dict[str, float]:
        """How long everything took."""
        planning = sum(choice.seconds for choice in self.chosen)
        return {"seconds": seconds, "compile_seconds": self.compiling, "plan_seconds": planning}

    def _note(self, choice: planner.Choice, start: float) -> None:
        self.compiling += time.monotonic() - start - choice.seconds
        self.chosen.append(choice)


def finished(result: SweepResult, kept: Kept | None) -> SweepResult:
    """The result, which can go on."""
    return dataclasses.replace(result, origin=Origin(result.lanes.attrs["steps"], kept))


@dataclasses.dataclass(frozen=True)
class Origin:
    """What a result that this process has run can do besides what a read one can."""

    steps: int
    kept: Kept | None  # None where the lanes were too large

    def extend(self, steps: int, *, progress: Callable[[Progress], None] | None = None) -> SweepResult:
        """Every lane until `steps` in all; those that ended stay as they are."""
        descent.check_positive("steps", steps)
        if steps <= self.steps:
            raise bad_value("steps", steps, f"the sweep has run {self.steps} already", "Pass how many there are in all")
        kept = self._kept()
        for section in kept.request.sections:
            if optimizers.counts_steps(section.factory):
                mend = "Run the sweep again with more steps"
                raise bad_value("steps", steps, "the schedule depends on how many steps there are in all", mend)
        return finished(*kept.go_on(steps, tell=progress))

    def replay(self, lane: int, onset: int, around: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """One lane run again: norms step by step around `onset`, and all that it reads at its end."""
        kept = self._kept()
        seed = lane % kept.request.seeds
        mine = next(p for p in reversed(kept.prepared) if p.offset <= lane and self._place(p, lane) is not None)
        shape, place = kept.shapes[mine.number], self._place(mine, lane)
        points, seeds = len(mine.group.points), kept.request.seeds
        block = next(b for b in execute.blocks_of(points, seeds, shape) if place in b.points and seed in b.seeds)
        job = job_of(kept.request, mine, devices_of(kept.request.plan)[:1], shape, [block])
        at = int(np.flatnonzero(block.seeds == seed)[0]), int(np.flatnonzero(block.points == place)[0])
        return execute.replay(job, block, at, onset, around)

    def _place(self, prepared: Prepared, lane: int) -> int | None:
        """Where a lane's point stands in a group, None if it is another group's."""
        assert self.kept
        found = np.flatnonzero(prepared.group.points == (lane - prepared.offset) // self.kept.request.seeds)
        return int(found[0]) if found.size else None

    def _kept(self) -> Kept:
        if self.kept is None:
            mend = f"Run the sweep again with more steps; lanes are kept up to {_KEPT_BYTES >> 20} MiB"
            raise bad_value(
                "result", "its lanes", "they were too large to be kept, or finished by another process", mend
            )
        return self.kept


_KEPT_BYTES = 2**28  # of lanes that a result keeps, so that they can go on


class _Keeper:
    """Collects the lanes of a sweep at its last step, for as long as all of them are small enough to be kept."""

    def __init__(self, before: Kept | None, keeps: bool):
        self.parts: dict[int, list] = {
            number: list(parts) for number, parts in enumerate(before.parts if before else ())
        }
        self.keeps, self.lanes = keeps, 0
        self._left = _KEPT_BYTES

    def fits(self, job: execute.Job) -> bool:
        """Whether the lanes of `job` are kept; if they are not, none are."""
        block = sum(x.dtype.itemsize * math.prod(x.shape) for x in jax.tree.leaves(job.programs[0].carry.lanes))
        self._left -= len(job.blocks) * block
        self.keeps = self.keeps and self._left >= 0
        return self.keeps

    def put(self, finished: execute.Finished) -> None:
        """Keep the lanes of a block."""
        if self.keeps and finished.lanes is not None:
            self.parts.setdefault(finished.job.group, []).append((finished.block, finished.lanes))
            self.lanes += finished.block.lanes


def _recorded(plan: Plan, chosen: Sequence[planner.Choice], workers: int, devices: int) -> dict[str, Any]:
    """The plan as it was carried out; its shapes in the order of the groups."""
    shapes = {name: [getattr(choice.shape, name) for choice in chosen] for name in planner.Shape._fields}
    one = lambda values: values[0] if len(set(values)) == 1 else values
    return {name: one(values) for name, values in shapes.items()} | {
        "chosen": one([choice.source for choice in chosen]),
        "tile": plan.tile,
        "segment": plan.segment,
        "workers": workers,
        "devices": devices,
    }


def planned_job(
    request: Sweep, prepared: Prepared, devices: Sequence[Any], workers: int
) -> tuple[execute.Job, planner.Choice]:
    """The job of a group in the shape that the planner chooses, compiled and placed on `devices`."""
    make = lambda shape: job_of(request, prepared, devices, shape)
    lanes = len(prepared.group.points) * request.seeds
    return planner.choose(make, prepared.shape(request), request.plan, most=prepared.most, lanes=lanes, workers=workers)


def job_of(
    request: Sweep,
    prepared: Prepared,
    devices: Sequence[Any],
    shape: Shape,
    blocks: list[execute.Block] | None = None,
) -> execute.Job:
    """The job of a group in blocks of a shape, compiled and placed on `devices`."""
    floorless = prepared.problem.optimum is None and request.limits.target == -np.inf
    limits = request.limits._replace(unbounded_below=request.limits.diverged_above if floorless else np.inf)
    return execute.prepare(
        request.problem,
        prepared.group.section.factory,
        prepared.static,
        prepared.group.traced,
        request.watching,
        execute.Shared(request.key, descent.arrays_of(prepared.problem), limits),
        dtype=descent.params_dtype(prepared.problem),
        steps=request.steps,
        blocks=blocks or execute.blocks_of(len(prepared.group.points), request.seeds, shape),
        devices=devices,
        unroll=shape.unroll,
        group=prepared.number,
    )


def _write(columns: dict[str, np.ndarray], rows: Mapping[str, np.ndarray], at: np.ndarray, lanes: int) -> None:
    """Put rows into the columns, which have so many lanes, at the lanes `at`."""
    where = slice(at[0], at[-1] + 1) if np.all(np.diff(at) == 1) else at
    for name, value in rows.items():
        if name not in columns:
            columns[name] = np.empty((lanes, *value.shape[1:]), value.dtype)  # every lane is written
        columns[name][where] = value


def _longer(columns: Mapping[str, np.ndarray], reached: int) -> dict[str, np.ndarray]:
    """A copy of the columns, the curves with room for `reached` points."""
    copied = {name: column.copy() for name, column in columns.items()}
    if "curve_loss" in copied:
        curves = copied["curve_loss"]
        room = np.full((len(curves), reached - curves.shape[1]), np.nan, curves.dtype)
        copied["curve_loss"] = np.concatenate([curves, room], axis=1)
    return copied


def _check_start(columns: Mapping[str, np.ndarray]) -> None:
    dead = (columns["end_kind"] == EndKind.NONFINITE) & (columns["end_step"] == 0)
    if np.all(dead):
        value = columns["initial_loss"].ravel()[0]
        raise bad_value("problem", float(value), "the loss is not finite at the start", "Look at init and at the data")


def _warn(request: Sweep, problem: Problem) -> None:
    """Warn of what is allowed and probably not meant: seeds that change nothing, a loss that is not pure."""
    if request.seeds > 1 and not is_seeded(problem, request.key):
        text = f"seeds={request.seeds}: neither the start nor the batches depend on the seed, so all runs are the same"
        warn(text)
    if descent.is_impure(problem, request.key):
        text = "loss: it is not pure, two traces of it differ; draw random numbers in sample(key, t, data)"
        warn(text)


def is_seeded(problem: Problem, key: Key) -> bool:
    """Whether the start or the batches depend on the seed."""
    if problem.sample is not None:
        return True
    return problem.init_is_function and any(descent.depends_on(jax.make_jaxpr(problem.init)(key).jaxpr))


def _check_used(request: Sweep, group: Group, problem: Problem, static: dict[str, Any]) -> None:
    """Behind ``**kwargs`` a misspelt name is swallowed: raise for a traced hyperparameter that nothing uses."""
    for name in group.traced:
        inside = name.startswith(factories.PROBLEM_PREFIX)
        factory = request.problem if inside else group.section.factory
        known = factories.parameters(factory)
        if name.removeprefix(factories.PROBLEM_PREFIX) in known or not factories.takes_any_name(factory):
            continue
        point = {n: values[0] for n, values in group.traced.items()}
        arrays = descent.arrays_of(problem)
        if not descent.is_used(request.problem, group.section.factory, static | point, name, request.key, arrays):
            mend = f"Check its spelling; named parameters are {', '.join(known) or 'none'}"
            raise bad_value("axes", name, "the factory takes it and nothing uses it", mend)
