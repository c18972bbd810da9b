"""A sweep in a run directory: what its manifest says, and what workers leave there and find again."""

import dataclasses
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import gdkit
from gdkit import descent
from gdkit.errors import DamagedFileError, OtherRunError, bad_value, warn
from gdkit.sweeps import execute, planner, store
from gdkit.sweeps.plan import Shape, visible_cores
from gdkit.sweeps.result import Description
from gdkit.sweeps.store import Kind, Manifest, Partition, Store, differences, digest

_SECONDS = 1.0  # that a tile should take: long against writing its file
_TILES_A_WORKER = 4  # at least, where there are so many blocks, so that all workers end at about the same time


@dataclasses.dataclass(frozen=True)
class Directory:
    """Where a sweep is kept while it runs, and which part of it this process runs.

    Attributes:
      path: the run directory.
      config: the text that describes the sweep, where there is one.
      shard: (I, N): of the tiles every N-th, from the I-th on, counted from 0.
    """

    path: Path
    config: str | None = None
    shard: tuple[int, int] = (0, 1)


class Setting(NamedTuple):
    """A sweep whose programs are compiled."""

    request: Any  # a Sweep
    prepared: Sequence[Any]  # its groups
    jobs: Sequence[execute.Job]  # one a group
    choices: Sequence[planner.Choice]
    workers: int
    described: Description

    @property
    def reached(self) -> int:
        """How many recorded steps the sweep reaches."""
        return len(self.described.curve_step)


def rows_of(block: execute.Block, output: Mapping[str, np.ndarray], reached: int) -> dict[str, np.ndarray]:
    """What a block's lanes read without padding, name -> (rows, ...): the seeds of a point side by side."""
    points, seeds = block.sizes
    rows = {}
    for name, value in output.items():
        own = np.swapaxes(value[:seeds, :points], 0, 1).reshape(-1, *value.shape[2:])
        if name == "curve_loss":
            own = own[:, :reached]
        rows[name] = own.astype(np.float32) if own.dtype.kind == "V" else own  # bfloat16, which numpy cannot name
    return rows


# The manifest


def shapes_there(where: Directory, request: Any, prepared: Sequence[Any]) -> list[Shape] | None:
    """The shapes of the run that is in a directory, None if none is.

    Raises:
      OtherRunError: it is another one, as far as that can be told without compiling.
      StoreError: what is there cannot be read.
    """
    if not (where.path / store.manifest.NAME).exists():
        return None
    there = Store.open(where.path).manifest
    wanted = _said(request, prepared, where.config)
    lines = differences({n: v for n, v in there.fingerprint.items() if not n.startswith(_PROGRAM)}, wanted)
    if lines:
        raise OtherRunError(where.path, lines)
    unroll = there.plan["unroll"]
    return [Shape(g.width, g.depth, u) for g, u in zip(there.partition.groups, unroll, strict=True)]


def manifest_of(setting: Setting, where: Directory) -> Manifest:
    """The manifest of a sweep that starts now."""
    request, prepared = setting.request, setting.prepared
    programs = {f"{_PROGRAM}{p.number}": j.programs[0].fingerprint for p, j in zip(prepared, setting.jobs, strict=True)}
    device = jax.devices()[0]
    return Manifest(
        _said(request, prepared, where.config) | programs,
        Partition(tuple(_groups(setting, where.shard[1]))),
        _columns(setting),
        seeds=request.seeds,
        steps=request.steps,
        dtype=str(_dtype(prepared)),
        plan={
            "unroll": [choice.shape.unroll for choice in setting.choices],
            "chosen": [choice.source for choice in setting.choices],
            "workers": setting.workers,
            "result": setting.described.as_json(),
        },
        versions=_versions(),
        device={"platform": device.platform, "kind": device.device_kind, "cores": visible_cores()},
        config=where.config,
    )


_PROGRAM = "program of group "


def _said(request: Any, prepared: Sequence[Any], config: str | None) -> dict[str, Any]:
    """The fingerprint of a sweep without its programs."""
    finite = lambda value: float(value) if math.isfinite(value) else None
    arrays = {id(p.problem): p.problem for p in prepared}.values()
    device = jax.devices()[0]
    return {
        "config": None if config is None else digest(config),
        "data": digest(*(_numbers(x) for problem in arrays for x in jax.tree.leaves(descent.arrays_of(problem)))),
        **{name: text for section in request.sections for name, text in _axes(section)},
        "key": f"{jax.random.key_impl(request.key)} {np.asarray(jax.random.key_data(request.key)).tolist()}",
        "seeds": request.seeds,
        "steps": request.steps,
        "diverged_above": finite(request.limits.diverged_above),
        "target": finite(request.limits.target),
        "curve_points": request.curve_points,
        "dtype": str(_dtype(prepared)),
        "versions": ", ".join(f"{name} {version}" for name, version in _versions().items()),
        "device": f"{device.platform} {device.device_kind}",
        "cores": visible_cores(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


def _dtype(prepared: Sequence[Any]) -> Any:
    return descent.params_dtype(prepared[0].problem)


def _numbers(x: Any) -> np.ndarray:
    return execute.on_host(x) if isinstance(x, jax.Array) else np.asarray(x)


def _versions() -> dict[str, str]:
    return {"gdkit": gdkit.__version__, "jax": jax.__version__, "jaxlib": jax.lib.__version__}


def _axes(section: Any) -> Iterator[tuple[str, str]]:
    """Each axis of a section, as a reader knows it again, with a few digits of its hash."""
    label = "" if section.label is None else f" of {section.label}"
    yield f"optimizer{label}", ", ".join(f"{name}={value!r:.60}" for name, value in section.fixed.items())
    for axis in (a for d in section.dimensions for a in d.axes):
        values = axis.labels.astype(str) if axis.labels.dtype.kind == "O" else axis.labels
        text = f"{len(values)} values, {values[0]} to {values[-1]} ({digest(values)[:10]})"
        yield f"{axis.name}{label}", text


def _groups(setting: Setting, shards: int) -> Iterator[store.Group]:
    """How the lanes of each group are cut."""
    seeds = setting.request.seeds
    for prepared, job in zip(setting.prepared, setting.jobs, strict=True):
        width, depth = (len(items) for items in job.blocks[0])
        tile = setting.request.plan.tile or _tile(job, setting.workers * shards)
        yield store.group_of(
            prepared.group.points, prepared.group.section.shape,
            first=prepared.offset, seeds=seeds, width=width, depth=depth, tile=tile,
        )  # fmt: skip


def _tile(job: execute.Job, workers: int) -> int:
    """Blocks that take about a second, yet no so many that workers go without."""
    most = len(job.blocks) // (_TILES_A_WORKER * workers)
    if most <= 1:
        return 1
    seconds = planner.pace(job, workers) * job.lanes_a_block * job.steps * workers
    return int(np.clip(math.ceil(_SECONDS / seconds), 1, most))


def _columns(setting: Setting) -> dict[str, Kind]:
    """What a lane has of each column.

    Raises:
      InputValueError: groups read different ones.
    """
    found = [_kinds(job, setting.reached) for job in setting.jobs]
    for other in found[1:]:
        for name in found[0].keys() | other.keys():
            if found[0].get(name) != other.get(name):
                mend = "Run the kinds of problem or monitors one by one, or save to a file: store='results.nc'"
                raise bad_value("store", name, "the programs of the sweep read different things", mend)
    return found[0]


def _kinds(job: execute.Job, reached: int) -> dict[str, Kind]:
    kinds = {}
    for name, like in job.programs[0].output.items():
        shape = (reached,) if name == "curve_loss" else tuple(like.shape[2:])
        kinds[name] = Kind("float32" if like.dtype.kind == "V" else np.dtype(like.dtype).name, shape)
    return kinds


# The archive


class Archive:
    """A run directory as workers use it: an `execute.Archive`."""

    def __init__(self, run: Store, setting: Setting, where: Directory):
        self.run, self.done = run, _verified(run)
        self._reached, self._shard = setting.reached, where.shard
        partition = run.partition
        self._by_group: list[list[int]] = [[] for _ in partition.groups]
        for tile in range(partition.tiles):
            self._by_group[partition.span(tile).group].append(tile)

    @staticmethod
    def open(setting: Setting, where: Directory) -> "Archive":
        """The run directory of a sweep, made if it is not there; finished tiles are verified, damaged ones named.

        Raises:
          OtherRunError: it holds another run.
          StoreError: it cannot be made or read.
        """
        run = Store.create(where.path, manifest_of(setting, where))
        run.tidy()
        return Archive(run, setting, where)

    def tiles_of(self, job: execute.Job) -> list[execute.Tile]:
        """The tiles of a job that are this process's to run and not finished, as `execute.run_jobs` takes them."""
        index, count = self._shard
        wanted = [t for t in self._by_group[job.group] if not self.done[t] and t % count == index]
        return [execute.Tile(list(self._parts(job, tile)), tile) for tile in wanted]

    def _parts(self, job: execute.Job, tile: int) -> Iterator[execute.Part]:
        _, low, high = self.run.partition.span(tile)
        for block, number in zip(job.blocks[low:high], self.run.partition.blocks_of(tile), strict=True):
            yield execute.Part(job, block, number)

    def lanes_done(self) -> int:
        """How many lanes were finished when the directory was opened."""
        return int(self.run.partition.all_rows()[self.done].sum())

    def take(self, tile: execute.Tile) -> bool:
        """Whether to run a tile now: unless somebody else works on it."""
        return self.run.claim(tile.number)

    def is_done(self, tile: execute.Tile) -> bool:
        """Whether somebody has finished a tile."""
        return bool(self.run.finished()[tile.number])

    def checkpoint(self, tile: execute.Tile, part: execute.Part) -> execute.Checkpoint | None:
        """Where the lanes of a block are kept; nowhere for a part of one."""
        block = part.number
        if block is None:
            return None

        def save(carry: execute.Carry) -> None:
            self.run.put_carry(block, int(carry.t), [execute.on_host(x) for x in jax.tree.leaves(carry)])
            self.run.renew(tile.number)

        return execute.Checkpoint(lambda job, device: self._carry(job, device, block), save)

    def _carry(self, job: execute.Job, device: int, block: int) -> execute.Carry | None:
        like, tree = jax.tree.flatten(job.programs[device].carry)
        try:
            kept = self.run.carry(block, [execute.shape_on_host(x) for x in like])
        except DamagedFileError as error:
            warn(f"{error} Its lanes start anew.")
            return None
        if kept is None:
            return None
        return jax.tree.unflatten(tree, map(execute.on_device, kept.leaves, like))

    def put(self, tile: execute.Tile, finished: list[execute.Finished]) -> None:
        """Publish a tile, and forget the lanes on their way."""
        rows = [rows_of(f.block, f.output, self._reached) for f in finished]
        self.run.put_tile(tile.number, {name: np.concatenate([r[name] for r in rows]) for name in rows[0]})
        for block in self.run.partition.blocks_of(tile.number):
            self.run.drop_carry(block)
        self.run.release(tile.number)


def _verified(run: Store) -> np.ndarray:
    """Which tiles are finished and as they were written, ``(tiles,)`` bool; warns of the others."""
    done = run.finished()
    for tile in map(int, np.flatnonzero(done)):
        try:
            run.verify(tile)
        except DamagedFileError as error:
            warn(f"{error} It is computed again.")
            done[tile] = False
    return done
