"""A sweep in a run directory, as its manifest says it."""

import dataclasses
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import gdkit
from gdkit import binding, store
from gdkit.errors import OtherRunError, bad_value
from gdkit.store import Kind, Manifest, Partition, Store, differences, digest
from gdkit.sweeps.axes import Section
from gdkit.sweeps.description import Description
from gdkit.sweeps.plan.shapes import Shape, count_visible_cores
from gdkit.sweeps.programs import timing
from gdkit.sweeps.programs.groups import TracedGroup
from gdkit.sweeps.programs.job import Job, count_lane_bytes
from gdkit.sweeps.programs.packing import to_host
from gdkit.sweeps.request import SweepRequest

STORED_BYTES = 2**26  # of lanes that a directory keeps at their last step, so that they can go on
_SECONDS = 1.0  # that a tile should take: long against writing its file
_TILES_A_PROCESS = 4  # at least, where there are so many blocks, so that all processes end at about the same time


@dataclasses.dataclass(frozen=True)
class RunDirectory:
    """Where a sweep is kept while it runs, and which part of it this process runs.

    Attributes:
      path: the run directory.
      config: the text that describes the sweep, where there is one.
      shard: (I, N): of the tiles every N-th, from the I-th on, counted from 0.
      helps: whether it runs the tiles of other shards after its own, as long as nobody else works on them.
    """

    path: Path
    config: str | None = None
    shard: tuple[int, int] = (0, 1)
    helps: bool = False

    def of_this_process(self) -> "RunDirectory":
        """With the shard of this process among those of ``jax.distributed``, which help each other in the end."""
        count = jax.process_count()
        return dataclasses.replace(self, shard=(jax.process_index(), count), helps=True) if count > 1 else self


class CompiledSweep(NamedTuple):
    """A sweep whose programs are compiled."""

    request: SweepRequest
    prepared: Sequence[TracedGroup]
    jobs: Sequence[Job]  # one a group
    choices: Sequence[timing.Choice]
    workers: int
    processes: int  # that run tiles at once, as far as is known here, in every shard
    described: Description

    @property
    def reached(self) -> int:
        """How many recorded steps the sweep reaches."""
        return len(self.described.curve_step)


# The manifest


def shapes_there(where: RunDirectory, request: SweepRequest, prepared: Sequence[TracedGroup]) -> list[Shape] | None:
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


def manifest_of(setting: CompiledSweep, where: RunDirectory) -> Manifest:
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
            "keeps_lanes": sum(map(count_lane_bytes, setting.jobs)) <= STORED_BYTES,
            "result": setting.described.as_json(),
        },
        versions=_versions(),
        device={"platform": device.platform, "kind": device.device_kind, "cores": count_visible_cores()},
        config=where.config,
    )


_PROGRAM = "program of group "


def explained(error: OtherRunError) -> OtherRunError:
    """The same error, with what it means where programs alone differ, of which there are only hashes."""
    if not all(line.startswith(_PROGRAM) for line in error.lines):
        return error
    text = "What the loss, an optimizer or a monitor computes has changed. Comments and line breaks do not count."
    return OtherRunError(error.path, [*error.lines, text])


def _said(request: SweepRequest, prepared: Sequence[TracedGroup], config: str | None) -> dict[str, Any]:
    """The fingerprint of a sweep without its programs."""
    finite = lambda value: float(value) if math.isfinite(value) else None
    arrays = {id(p.problem): p.problem for p in prepared}.values()
    device = jax.devices()[0]
    return {
        "config": None if config is None else digest(config),
        "data": digest(*(_numbers(x) for problem in arrays for x in jax.tree.leaves(binding.get_arrays(problem)))),
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
        "cores": count_visible_cores(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


def _dtype(prepared: Sequence[TracedGroup]) -> Any:
    return binding.get_params_dtype(prepared[0].problem)


def _numbers(x: Any) -> np.ndarray:
    return to_host(x) if isinstance(x, jax.Array) else np.asarray(x)


def _versions() -> dict[str, str]:
    return {"gdkit": gdkit.__version__, "jax": jax.__version__, "jaxlib": jax.lib.__version__}


def _axes(section: Section) -> Iterator[tuple[str, str]]:
    """Each axis of a section, as a reader knows it again, with a few digits of its hash."""
    label = "" if section.label is None else f" of {section.label}"
    yield f"optimizer{label}", ", ".join(f"{name}={value!r:.60}" for name, value in section.fixed.items())
    for axis in (a for d in section.dimensions for a in d.axes):
        values = axis.labels.astype(str) if axis.labels.dtype.kind == "O" else axis.labels
        text = f"{len(values)} values, {values[0]} to {values[-1]} ({digest(values)[:10]})"
        yield f"{axis.name}{label}", text


def _groups(setting: CompiledSweep, shards: int) -> Iterator[store.StoredGroup]:
    """How the lanes of each group are cut."""
    seeds = setting.request.seeds
    for prepared, job in zip(setting.prepared, setting.jobs, strict=True):
        width, depth = (len(items) for items in job.blocks[0])
        tile = setting.request.plan.tile or _tile(job, setting.workers, setting.processes * shards)
        yield store.group_of(
            prepared.group.points, prepared.group.section.shape,
            first=prepared.offset, seeds=seeds, width=width, depth=depth, tile=tile,
        )  # fmt: skip


def _tile(job: Job, workers: int, processes: int) -> int:
    """Blocks that take a worker about a second, yet not so many that a process goes without; threads share a tile."""
    most = len(job.blocks) // (_TILES_A_PROCESS * processes)
    if most <= 1:
        return 1
    seconds = timing.measure_pace(job, workers) * job.lanes_per_block * job.steps * workers
    return int(np.clip(math.ceil(_SECONDS / seconds), 1, most))


def _columns(setting: CompiledSweep) -> dict[str, Kind]:
    """What a lane has of each column.

    Raises:
      InputValueError: groups read different ones.
    """
    found = [_kinds(job, setting.reached) for job in setting.jobs]
    for other in found[1:]:
        for name in found[0].keys() | other.keys():
            if found[0].get(name) != other.get(name):
                remedy = "Run the kinds of problem or monitors one by one, or save to a file: store='results.nc'"
                raise bad_value("store", name, "the programs of the sweep read different things", remedy)
    return found[0]


def _kinds(job: Job, reached: int) -> dict[str, Kind]:
    kinds = {}
    for name, like in job.programs[0].output.items():
        shape = (reached,) if name == "curve_loss" else tuple(like.shape[2:])
        kinds[name] = Kind("float32" if like.dtype.kind == "V" else np.dtype(like.dtype).name, shape)
    return kinds
