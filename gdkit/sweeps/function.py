"""sweep_function: a sweep over a pure function that trains and returns what it measured."""

import contextlib
import functools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr
from jax.stages import Compiled

from gdkit import checks
from gdkit.binding import traced_dtype
from gdkit.environment import keep_precision
from gdkit.errors import StoreError, bad_type, bad_value, name_type
from gdkit.factories import cache_if_hashable
from gdkit.store import Store
from gdkit.store.paths import as_path
from gdkit.sweeps.axes import Group, group_points, parse_free_axes
from gdkit.sweeps.description import Description, describe_origin
from gdkit.sweeps.execution.settings import DEFAULT_SETTINGS
from gdkit.sweeps.plan.shapes import Plan, check_plan, count_workers
from gdkit.sweeps.result.arrays import (
    Judging,
    check_judging,
    check_lengths,
    check_value_names,
    choose_score,
    describe_lanes,
    judge_lanes,
)
from gdkit.sweeps.result.assemble import assemble, seconds_of
from gdkit.sweeps.result.result import SweepResult
from gdkit.sweeps.rundir.archive import RunArchive
from gdkit.sweeps.rundir.functions import open_function_run
from gdkit.tracing import user_code
from gdkit.tracing.jaxprs import digest_program
from gdkit.types import Array, Hyperparameters, Key, StaticHyperparameters

Train = Callable[[Hyperparameters, Key], Mapping[str, Array]]
T = TypeVar("T")
R = TypeVar("R")


def sweep_function(
    train: Train,
    axes: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    *,
    seeds: int = 1,
    key: int | Key = 0,
    by: str | None = None,
    maximize: bool | Sequence[str] = False,
    optimum: float | None = None,
    stochastic: bool = False,
    diverged_above: float = 1e6,
    curve_points: int = 200,
    store: str | Path | None = None,
    plan: Plan | None = None,
) -> SweepResult:
    """Run a pure function at every point of a grid for every seed side by side, and compare what it returns.

    Use it where a run is more than steps of one loss: training loops of one's own, alternating updates, simulations.
    Each run is one call, so that it cannot be extended, or interrupted within; `sweep` can do that.

    Args:
      train: ``(hyperparameters, key) -> {name: value}``, traceable by JAX. `hyperparameters` has the value of every
        axis by name. A value is a scalar, or a curve (steps + 1,), which is recorded as ``curve_NAME`` with its last
        value as ``NAME``. ``loss`` is the training loss: of its curve regimes are judged as `classify_curve` does.
        Without it only divergence is known, of a run whose `by` is not finite.
      axes: as in `sweep`. Floats and learning rates are lanes of one program. All other values, integers too, are
        static, with one program per combination; `gdkit.lanes` makes integers lanes. ``optimizer`` holds labels, or
        maps them to what `train` gets.
      seeds: runs per point; seed s gets the key ``jax.random.fold_in(key, s)`` at every point.
      key: the root of all seeds.
      by, maximize, optimum, stochastic, diverged_above, curve_points: as in `SweepResult.from_arrays`.
      store: where to write the result: a netCDF file, ``NAME.nc``, written at the end; or a run directory, in which a
        block of lanes is stored when its call returns. The same call on the same directory runs the others only, with
        the same bits, after an interruption or ``kill -9``, and several processes that make it share the work. `train`
        is compared by its operations and constants.
      plan: `width` is the number of lanes per block, by default 8 on a CPU, and `workers` the number of threads.

    Returns:
      A SweepResult; see `SweepResult.best`, `SweepResult.recommend`, `SweepResult.edge` and `SweepResult.regimes`.

    Raises:
      GdkitError: an argument cannot be used, or `train` returns no mapping of scalars and curves of equal length; or
        the directory holds another run.

    >>> def train(hyperparameters, key):
    ...     step = lambda x, _: (x - hyperparameters["learning_rate"] * 2 * x, x**2)
    ...     return {"loss": jax.lax.scan(step, jax.random.normal(key), length=100)[1]}
    >>> result = sweep_function(train, {"learning_rate": [0.01, 0.3, 1.2]}, seeds=3, optimum=0.0)
    >>> result.best().hyperparameters, result.recommend().unsafe
    ({'learning_rate': 0.3}, 1.2)
    """
    checks.check_integer("seeds", seeds)
    check_plan(plan)
    if not callable(train):
        raise bad_type("train", train, "not a function", "Pass train(hyperparameters, key) -> {name: value}")
    checks.check_call("train", train, ("hyperparameters", "key"), "Give it these arguments")
    begin, plan, root, sections = time.monotonic(), plan or Plan(), checks.as_key(key), parse_free_axes(axes)
    path = None if store is None else as_path("store", store)
    offsets = np.cumsum([0, *(section.point_count for section in sections)])
    groups = [(g, offset) for s, offset in zip(sections, offsets[:-1], strict=True) for g in group_points(s)]
    judging = Judging(by, maximize, optimum, stochastic, diverged_above, curve_points)
    check_judging(judging)
    names = [axis.name for section in sections for axis in section.axes]
    traced = [_trace(train, group, root, names, by) for group, _ in groups]  # all are checked before the first one runs
    shapes = _merge_shapes([own for _, own in traced])
    on_cpu, workers = jax.default_backend() == "cpu", count_workers(plan, 1)
    width = plan.width or (8 if on_cpu else 1024)  # few lanes stay in the caches of a core, and all cores have a block
    settings = describe_origin(root, {"width": width, "workers": workers, "chosen": "rule"})
    described = describe_lanes(sections, seeds, shapes, judging, settings)
    work = _TrainWorkload(train, groups, seeds, root, width, shapes, judging, described)
    if path is not None and path.suffix != ".nc":
        return _run_in_directory(work, path, [digest_program(program) for program, _ in traced], workers, begin)
    columns = _run_in_memory(work, workers)
    result = assemble(described, columns, {"seconds": time.monotonic() - begin})
    if path is not None:
        result.save(path)
    return result


class _TrainWorkload(NamedTuple):
    """A checked sweep of a function."""

    train: Train
    groups: Sequence[tuple[Group, int]]  # each with the number of the first point of its section
    seeds: int
    root: Key
    width: int  # lanes per block
    shapes: Mapping[str, tuple[int, ...]]  # name -> shape of the value of a lane
    judging: Judging
    described: Description

    def judge(self, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The columns of lanes from what `train` returned, name -> (lanes, ...); a value that it left out is NaN."""
        lanes = len(next(iter(values.values())))
        complete = {name: np.full((lanes, *shape), np.nan) for name, shape in self.shapes.items()}
        for name, value in values.items():
            complete[name][:] = value
        return judge_lanes(complete, self.judging, self.described.curve_step)


class _TrainBlock(NamedTuple):
    """Lanes that one call trains."""

    program: Compiled
    lanes: np.ndarray  # (lanes,) int, their numbers in the result
    traced: dict[str, Array]  # name -> (width,), those of the lanes first, then padding
    keys: Key  # (width,)

    def run(self) -> dict[str, np.ndarray]:
        """The values of the lanes by name."""
        outputs = self.program(self.traced, self.keys)
        return {name: np.asarray(value)[: len(self.lanes)] for name, value in outputs.items()}


def _run_in_memory(work: _TrainWorkload, workers: int) -> dict[str, np.ndarray]:
    """The columns of all lanes."""
    columns: dict[str, np.ndarray] = {}
    count = sum(len(group.points) for group, _ in work.groups) * work.seeds
    blocks = (block for number in range(len(work.groups)) for block in _cut_blocks(work, number, work.width))
    for lanes, rows in _run_tasks(lambda block: (block.lanes, work.judge(block.run())), blocks, workers):
        for name, values in rows.items():
            if name not in columns:  # every lane is written
                columns[name] = np.empty((count, *values.shape[1:]), values.dtype)
            columns[name][lanes] = values
    return columns


def _run_in_directory(
    work: _TrainWorkload, path: Path, programs: Sequence[str], workers: int, begin: float
) -> SweepResult:
    """The result of a run directory, after its missing tiles have been run; `programs` are digests of their code."""
    identity = {f"program of group {number}": program for number, program in enumerate(programs)}
    identity |= {"key": f"{jax.random.key_impl(work.root)} {np.asarray(jax.random.key_data(work.root)).tolist()}"}
    identity |= {name: getattr(work.judging, name) for name in ("optimum", "diverged_above", "curve_points")}
    example = work.judge({name: np.full((1, *shape), np.nan) for name, shape in work.shapes.items()})
    archive, finished = open_function_run(
        path, work.groups, seeds=work.seeds, width=work.width, described=work.described, columns=example,
        identity=identity,
    )  # fmt: skip

    run = archive.run
    try:
        _run_in_archive(work, archive, finished, workers)
    finally:
        archive.close()
    timings = run.timings() if finished.all() else None
    if timings is None:
        timings = {"seconds": seconds_of(path) if finished.any() else time.monotonic() - begin}
        with contextlib.suppress(StoreError):  # the numbers are complete without them
            run.put_timings(timings)
    return assemble(work.described, run.columns().values, timings)


def _run_in_archive(work: _TrainWorkload, archive: RunArchive, finished: np.ndarray, workers: int) -> None:
    """Run the tiles that are not finished, and wait for those that other processes run."""

    def store_tile(tile: int) -> bool:
        """Store a tile; False if another process works on it, or has finished it."""
        if not archive.take(tile):
            return False
        rows = [work.judge(block.run()) for block in blocks[tile]]
        archive.run.put_tile(tile, {name: np.concatenate([own[name] for own in rows]) for name in rows[0]})
        archive.release(tile)
        return True

    blocks = _cut_missing_tiles(work, archive.run, finished)
    missing = list(blocks)
    while missing:
        stored = _run_tasks(store_tile, missing, workers)
        others = [tile for tile, is_stored in zip(missing, stored, strict=True) if not is_stored]
        missing = [tile for tile in others if not archive.is_done(tile)]
        if missing:
            time.sleep(DEFAULT_SETTINGS.claim_poll_seconds)


def _cut_missing_tiles(work: _TrainWorkload, run: Store, finished: np.ndarray) -> dict[int, list[_TrainBlock]]:
    """The blocks of each tile that is not finished."""
    tiles = {}
    for number, stored in enumerate(run.partition.groups):
        missing = [tile for tile in run.partition.tiles_in(number) if not finished[tile]]
        blocks = list(_cut_blocks(work, number, stored.width)) if missing else []
        for tile in missing:
            _, low, high = run.partition.span(tile)
            tiles[tile] = blocks[low:high]
    return tiles


def _run_tasks(run: Callable[[T], R], tasks: Iterable[T], workers: int) -> Iterator[R]:
    """What `run` returns for each task, in order; after an error or an interruption no other task begins."""
    with ThreadPoolExecutor(workers, thread_name_prefix="gdkit") as pool:
        try:
            yield from pool.map(keep_precision(run), tasks)
        finally:
            pool.shutdown(cancel_futures=True)


def _cut_blocks(work: _TrainWorkload, number: int, width: int) -> Iterator[_TrainBlock]:
    """The blocks of a group, seeds innermost; the last lane of the group fills its last block."""
    group, offset = work.groups[number]
    points, seeds = np.indices((len(group.points), work.seeds)).reshape(2, -1)
    lanes = (offset + group.points[points]) * work.seeds + seeds
    width = min(width, len(lanes))
    keys = jax.vmap(lambda seed: jax.random.fold_in(work.root, seed))(jnp.arange(work.seeds))
    program = _compile(
        work.train, tuple(sorted(group.static.items())), tuple(group.traced), width, keys.dtype, traced_dtype()
    )
    for first in range(0, len(lanes), width):
        rows = np.minimum(np.arange(first, first + width), len(lanes) - 1)
        traced = {name: jnp.asarray(values[points[rows]], traced_dtype()) for name, values in group.traced.items()}
        yield _TrainBlock(program, lanes[first : first + width], traced, keys[seeds[rows]])


@cache_if_hashable(maxsize=32)
def _compile(
    train: Train, static: StaticHyperparameters, traced: tuple[str, ...], width: int, key: Any, wide: Any
) -> Compiled:
    """The program of `width` lanes that share their static values; `key` and `wide` are dtypes of keys and floats."""
    struct = functools.partial(jax.ShapeDtypeStruct, (width,))
    lanes = jax.vmap(lambda traced, key: dict(train(dict(static) | traced, key)))
    return jax.jit(lanes).lower({name: struct(wide) for name in traced}, struct(key)).compile()


def _trace(
    train: Train, group: Group, key: Key, axes: Sequence[str], by: str | None
) -> tuple[ClosedJaxpr, dict[str, tuple[int, ...]]]:
    """The program of a lane, and the shapes of its values: scalars and curves under names that a result can hold."""
    traced = {name: jax.ShapeDtypeStruct((), traced_dtype()) for name in group.traced}
    mapping: list[object] = []  # JAX only returns pytrees, which a mistaken output need not be

    def call(traced: dict[str, Array], key: Key) -> dict[str, Array]:
        mapping.append(train(group.static | traced, key))
        return (
            {str(name): as_array(name, x) for name, x in mapping[0].items()} if isinstance(mapping[0], Mapping) else {}
        )

    def as_array(name: str, x: object) -> Array:
        try:
            return jnp.asarray(x)
        except (TypeError, ValueError) as error:
            raise bad_type("train", train, f"{name!r} is no array: {x!r:.60}", remedy) from error

    remedy = "Return {name: value}, each value a scalar or a curve (steps + 1,)"
    with user_code.translate_errors("train", train):
        program, values = jax.make_jaxpr(call, return_shape=True)(traced, key)
    if not isinstance(mapping[0], Mapping) or not values:
        raise bad_type("train", train, f"it returns {name_type(mapping[0])}, not a mapping with values", remedy)
    check_value_names("train", mapping[0], axes)
    for name, value in values.items():
        if value.ndim > 1 or jnp.issubdtype(value.dtype, jnp.complexfloating):
            raise bad_type("train", train, f"{name!r} is {value.dtype} of shape {value.shape}", remedy)
    check_lengths("train", {name: value.shape[0] for name, value in values.items() if value.ndim})
    choose_score(values, by)
    return program, {name: value.shape for name, value in values.items()}


def _merge_shapes(programs: Sequence[Mapping[str, tuple[int, ...]]]) -> dict[str, tuple[int, ...]]:
    """The shapes of all values of a lane; raise where those of two programs differ."""
    shapes: dict[str, tuple[int, ...]] = {}
    for own in programs:
        for name, shape in own.items():
            if shapes.setdefault(name, shape) != shape:
                problem = f"{name!r} has shape {shapes[name]} for some static values and {shape} for others"
                raise bad_value("train", shape, problem, "Return values of one shape")
    return shapes
