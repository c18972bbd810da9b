"""The manifest of a sweep in a run directory: its fingerprint, and how its lanes are cut into tiles."""

import dataclasses
import math
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import gdkit
from gdkit import binding, store
from gdkit.errors import OtherRunError, StoreError, bad_value
from gdkit.store import Kind, Manifest, Partition, Store, differences, digest
from gdkit.sweeps import checkpoints
from gdkit.sweeps.axes import Section
from gdkit.sweeps.description import Description
from gdkit.sweeps.plan.shapes import Shape, count_visible_cores
from gdkit.sweeps.programs import timing
from gdkit.sweeps.programs.groups import TracedGroup, hash_lane
from gdkit.sweeps.programs.job import Job, count_lane_bytes
from gdkit.sweeps.programs.packing import get_host_dtype
from gdkit.sweeps.request import SweepRequest
from gdkit.sweeps.rundir.states import describe_states, verify_tile
from gdkit.sweeps.rundir.unfinished import describe_progress
from gdkit.trees import to_host

STORED_LANE_BYTES = 2**26  # most bytes of lanes that a directory stores at their last step, for resuming them
_TILE_SECONDS = 1.0  # time that a tile should take: long compared with writing its file
_TILES_PER_PROCESS = 4  # least number if there are enough blocks, so that processes end at about the same time
_PROGRAM = "program of group "


@dataclasses.dataclass(frozen=True)
class RunDirectory:
    """The directory of a run, and which of its tiles this process runs.

    Attributes:
      path: the directory.
      config: the text of the config that describes the sweep, if one does.
      shard: (I, N) for every N-th tile from tile I on, counted from 0.
      helps: whether the process runs tiles of other shards after its own, unless another process works on them.
    """

    path: Path
    config: str | None = None
    shard: tuple[int, int] = (0, 1)
    helps: bool = False

    def shard_of_process(self) -> "RunDirectory":
        """The same with the shard of this process under ``jax.distributed``, whose processes help each other."""
        count = jax.process_count()
        return dataclasses.replace(self, shard=(jax.process_index(), count), helps=True) if count > 1 else self


class CompiledSweep(NamedTuple):
    """A sweep whose programs are compiled."""

    request: SweepRequest
    groups: Sequence[TracedGroup]
    jobs: Sequence[Job]  # one per group
    choices: Sequence[timing.Choice]
    workers: int
    processes: int  # number of processes known to run tiles of one shard at once
    description: Description
    stored_lane_bytes: int
    seconds_per_lane_step: Callable[[Job, int], float]  # pace of a job with a number of workers

    @property
    def recorded_points(self) -> int:
        """How many recorded steps the sweep reaches."""
        return len(self.description.curve_step)


def stored_shapes(directory: RunDirectory, request: SweepRequest, groups: Sequence[TracedGroup]) -> list[Shape] | None:
    """The shapes of the run that a directory holds, one per group; None if it holds none.

    Raises:
      OtherRunError: it is another run, by the part of its fingerprint that needs no compiling.
      StoreError: the manifest cannot be read.
    """
    if not (directory.path / store.manifest.NAME).exists():
        return None
    run = Store.open(directory.path)
    stored = run.manifest
    wanted = _fingerprint(request, groups, directory.config)
    lines = differences({n: v for n, v in stored.fingerprint.items() if not n.startswith(_PROGRAM)}, wanted)
    if lines:
        raise OtherRunError(directory.path, lines)
    return shapes_of(run)


def shapes_of(run: Store) -> list[Shape]:
    """The shape of the blocks of each group of a run."""
    plan, groups = run.manifest.plan, run.partition.groups
    chunks = plan.get("chunk", [0] * len(groups))  # runs of earlier versions have none
    return [Shape(g.width, g.depth, u, c) for g, u, c in zip(groups, plan["unroll"], chunks, strict=True)]


def open_finished(
    directory: RunDirectory, request: SweepRequest, groups: Sequence[TracedGroup], store_class: type[Store] = Store
) -> Store | None:
    """The run in a directory if it is this one, finished and undamaged, which needs no compiling; else None.

    Raises:
      OtherRunError, StoreError: as `stored_shapes`.
    """
    if stored_shapes(directory, request, groups) is None:
        return None
    run = store_class.open(directory.path)
    code = run.manifest.plan.get("code")
    if not run.finished().all() or code != [hash_lane(request, group) for group in groups]:
        return None
    run.clean_up()
    try:
        for tile in range(run.partition.tiles):
            verify_tile(run, tile)
    except StoreError:  # whoever runs the tile again warns of it
        return None
    return run


def make_manifest(sweep: CompiledSweep, directory: RunDirectory) -> Manifest:
    """The manifest of a sweep that starts now."""
    request, groups = sweep.request, sweep.groups
    programs = {f"{_PROGRAM}{p.number}": j.programs[0].fingerprint for p, j in zip(groups, sweep.jobs, strict=True)}
    keeps_lanes = _keeps_lanes(sweep)
    lanes = [job.programs[0].carry.lanes for job in sweep.jobs]
    return Manifest(
        _fingerprint(request, groups, directory.config) | programs,
        Partition(tuple(_partition_groups(sweep, directory.shard[1]))),
        _column_kinds(sweep),
        seeds=request.seeds,
        steps=request.steps,
        dtype=_get_dtype(groups),
        plan={
            "unroll": [choice.shape.unroll for choice in sweep.choices],
            "chunk": [choice.shape.chunk for choice in sweep.choices],
            "chosen": [choice.source for choice in sweep.choices],
            "workers": sweep.workers,
            "code": [hash_lane(request, group) for group in groups],
            "keeps_lanes": keeps_lanes,
            "keep_states": request.keep_states,
            "states": describe_states(lanes, request.problem) if keeps_lanes else None,
            "progress": [describe_progress(job) for job in sweep.jobs],
            "result": sweep.description.as_json(),
        },
        **describe_machine(),
        config=directory.config,
    )


def _keeps_lanes(sweep: CompiledSweep) -> bool:
    """Whether the directory stores all lanes at their last step."""
    keep, size = sweep.request.keep_states, sum(map(count_lane_bytes, sweep.jobs))
    return keep is not None and (keep in ("last", "best") or size <= sweep.stored_lane_bytes)


def explain_other_run(error: OtherRunError) -> OtherRunError:
    """The error with an explanation, if only the hashes of programs differ."""
    if not all(line.startswith(_PROGRAM) for line in error.lines):
        return error
    text = "What the loss, an optimizer or a monitor computes has changed. Comments and line breaks do not count."
    return OtherRunError(error.path, [*error.lines, text])


def _fingerprint(request: SweepRequest, groups: Sequence[TracedGroup], config: str | None) -> dict[str, Any]:
    """The fingerprint of a sweep without its programs."""
    finite = lambda value: float(value) if math.isfinite(value) else None
    arrays = {id(p.problem): p.problem for p in groups}.values()
    return {
        "config": None if config is None else digest(config),
        "data": digest(*(to_host(x) for problem in arrays for x in jax.tree.leaves(binding.get_arrays(problem)))),
        **({} if request.start is None else {"start": checkpoints.digest_start(request.start)}),
        **{name: text for section in request.sections for name, text in summarize_axes(section)},
        "key": f"{jax.random.key_impl(request.key)} {np.asarray(jax.random.key_data(request.key)).tolist()}",
        "seeds": request.seeds,
        "steps": request.steps,
        "diverged_above": finite(request.limits.diverged_above),
        "target": finite(request.limits.target),
        "statistics": request.statistics,
        "curve_points": request.curve_points,
        **({"evaluate_every": request.evaluate_every} if request.evaluate_every else {}),
        **({"keep_states": "best"} if request.keep_states == "best" else {}),
        "dtype": _get_dtype(groups),
        **fingerprint_machine(),
    }


def _get_dtype(groups: Sequence[TracedGroup]) -> str:
    return str(binding.get_params_dtype(groups[0].problem))


def fingerprint_machine() -> dict[str, Any]:
    """What else than code and arguments decides the bits of a run."""
    device = jax.devices()[0]
    return {
        "versions": ", ".join(f"{name} {version}" for name, version in list_versions().items()),
        "device": f"{device.platform} {device.device_kind}",
        "cores": count_visible_cores(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


def describe_machine() -> dict[str, Any]:
    """The versions and the device of a run, as fields of its manifest."""
    device = jax.devices()[0]
    kind = {"platform": device.platform, "kind": device.device_kind, "cores": count_visible_cores()}
    return {"versions": list_versions(), "device": kind}


def list_versions() -> dict[str, str]:
    """The versions that decide the bits of a run."""
    return {"gdkit": gdkit.__version__, "jax": jax.__version__, "jaxlib": jax.lib.__version__}


def summarize_axes(section: Section) -> Iterator[tuple[str, str]]:
    """Each axis of a section, in words that a reader recognizes and with a few digits of its hash."""
    label = "" if section.label is None else f" of {section.label}"
    yield f"optimizer{label}", ", ".join(f"{name}={value!r:.60}" for name, value in section.fixed.items())
    for axis in section.axes:
        values = axis.labels.astype(str) if axis.labels.dtype.kind == "O" else axis.labels
        text = f"{len(values)} values, {values[0]} to {values[-1]} ({digest(values)[:10]})"
        yield f"{axis.name}{label}", text


def _partition_groups(sweep: CompiledSweep, shards: int) -> Iterator[store.StoredGroup]:
    """The lanes of each group, cut into blocks and tiles."""
    seeds = sweep.request.seeds
    for group, job in zip(sweep.groups, sweep.jobs, strict=True):
        width, depth = (len(items) for items in job.blocks[0])
        tile = sweep.request.plan.tile or _choose_tile_size(sweep, job, shards)
        yield store.make_group(
            group.group.points, group.group.section.shape,
            first=group.offset, seeds=seeds, width=width, depth=depth, tile=tile,
        )  # fmt: skip


def _choose_tile_size(sweep: CompiledSweep, job: Job, shards: int) -> int:
    """Blocks per tile: as many as take a worker about a second, but few enough for tiles for all processes."""
    most = len(job.blocks) // (_TILES_PER_PROCESS * sweep.processes * shards)
    if most <= 1:
        return 1
    workers = sweep.workers
    seconds = sweep.seconds_per_lane_step(job, workers) * job.lanes_per_block * job.steps * workers
    return int(np.clip(math.ceil(_TILE_SECONDS / seconds), 1, most))


def _column_kinds(sweep: CompiledSweep) -> dict[str, Kind]:
    """Dtype and shape per lane of each column.

    Raises:
      InputValueError: the programs of the groups report different columns.
    """
    first, *others = (_job_kinds(job, sweep.recorded_points) for job in sweep.jobs)
    for other in others:
        for name in first.keys() | other.keys():
            if first.get(name) != other.get(name):
                remedy = "Run the kinds of problem or monitors one by one, or save to a file: store='results.nc'"
                raise bad_value("store", name, "the programs of the sweep report different columns", remedy)
    return first


def _job_kinds(job: Job, recorded_points: int) -> dict[str, Kind]:
    kinds = {}
    for name, like in job.programs[0].output.items():
        shape = (recorded_points,) if name.startswith("curve_") else tuple(like.shape[2:])
        kinds[name] = Kind(get_host_dtype(like.dtype).name, shape)
    size = len(job.evaluation_steps)
    return kinds | {name: Kind(get_host_dtype(like.dtype).name, (size,)) for name, like in job.evaluated.items()}
