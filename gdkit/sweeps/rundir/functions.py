"""The run directory of a sweep of a function: a tile is some blocks of lanes, stored once they have returned."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gdkit.errors import OtherRunError
from gdkit.store import Kind, Manifest, Partition, Store, StoredGroup, make_group
from gdkit.sweeps.axes import Group
from gdkit.sweeps.description import Description
from gdkit.sweeps.rundir.archive import Claims, RunArchive, verify_tiles
from gdkit.sweeps.rundir.manifest import describe_machine, fingerprint_machine, summarize_axes

_MOST_TILES = 256  # per group: syncing a file for every block of short runs would take longer than the runs


def open_function_run(
    path: Path,
    groups: Sequence[tuple[Group, int]],
    *,
    seeds: int,
    width: int,
    described: Description,
    columns: Mapping[str, np.ndarray],
    identity: Mapping[str, Any],
) -> tuple[RunArchive, np.ndarray]:
    """The run directory of a sweep of a function, made if it does not exist, and which of its tiles are finished.

    The archive has the claims of this process, until it is closed. Each group comes with the number of the first point
    of its section. `width` is the number of lanes per block; a directory that exists keeps its own. `columns` are those
    of a few lanes, name -> (lanes, ...); `identity` is what the values of lanes depend on besides the axes.

    Raises:
      OtherRunError: it holds another run.
      StoreError: it cannot be made or read.
    """
    fingerprint = {
        **{name: text for group, _ in groups for name, text in summarize_axes(group.section)},
        **identity,
        "seeds": seeds,
        **fingerprint_machine(),
    }
    manifest = Manifest(
        fingerprint,
        Partition(tuple(_partition_group(group, offset, seeds, width) for group, offset in groups)),
        {name: Kind(column.dtype.name, column.shape[1:]) for name, column in columns.items()},
        seeds=seeds,
        steps=int(described.attrs["steps"]),
        dtype="float64",
        plan={"result": described.as_json()},
        **describe_machine(),
    )
    try:
        run = Store.create(path, manifest)
    except OtherRunError as error:
        note = "What train computes is compared by its operations. Comments and line breaks do not count."
        raise OtherRunError(error.path, [*error.lines, note]) from error
    run.clean_up()
    finished = verify_tiles(run)
    return RunArchive(run, 0, Claims(run)), finished


def _partition_group(group: Group, offset: int, seeds: int, width: int) -> StoredGroup:
    """The lanes of a group in blocks and tiles. The seed is one more dimension, so that blocks have any lanes."""
    lanes = (group.points[:, None] * seeds + np.arange(seeds)).ravel()
    blocks = -(-len(lanes) // width)
    return make_group(
        lanes, (*group.section.shape, seeds),
        first=int(offset) * seeds, seeds=1, width=width, depth=1, tile=-(-blocks // _MOST_TILES),
    )  # fmt: skip
