"""The unfinished lanes of a run directory: their steps and their curves so far, read from checkpoints."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from gdkit.monitors import EndKind
from gdkit.store import Columns, Store
from gdkit.sweeps.description import Description
from gdkit.sweeps.programs.job import Job, describe_checkpoint


def describe_progress(job: Job) -> dict[str, Any]:
    """Where in a checkpoint of a block of `job` its progress is, as JSON.

    The number of a leaf; of the values of the record, which are packed, also the column of the leaf, or None.
    """
    leaves, structure = jax.tree.flatten(describe_checkpoint(job, 0))
    numbers = jax.tree.unflatten(structure, range(len(leaves)))
    packed = numbers.lanes
    places = [(packed.arrays[array], column) for array, column in packed.places]
    record = jax.tree.unflatten(packed.structure, places).record
    return {
        "end_step": list(record.end_step),
        "end_kind": list(record.end_kind),
        "curve": numbers.curve,
        "evaluations": dict(numbers.evaluations),
    }


def read_columns(run: Store) -> Columns:
    """The columns of a run; for unfinished lanes, the values that their checkpoint holds.

    Unfinished lanes have ``end_kind`` 0, the step of their last loss as ``end_step``, and their losses and values on
    validation data so far; all other values are missing.
    """
    columns, places = run.columns(), run.manifest.plan.get("progress")
    if places is None or columns.finished.all():
        return columns
    described = Description.from_json(run.manifest.plan["result"])
    for block in run.carries():
        lanes = run.partition.lanes_in(block)
        if not columns.finished[lanes].any():
            group = run.partition.find_lane(int(lanes[0, 0])).group
            for name, values in _read_block(run, block, lanes, places[group], described).items():
                if name in columns.values:
                    columns.values[name][lanes] = values
    return columns


def _read_block(
    run: Store, block: int, lanes: np.ndarray, places: Mapping[str, Any], described: Description
) -> dict[str, np.ndarray]:
    """The values of lanes in the checkpoint of a block of (points, seeds): name -> (points, seeds, ...)."""
    evaluations: Mapping[str, int] = places["evaluations"]
    (step, step_column), (kind, kind_column) = places["end_step"], places["end_kind"]
    stored = run.carry_leaves(block, [step, kind, places["curve"], *evaluations.values()])
    if stored is None:
        return {}
    points, seeds = lanes.shape
    own = lambda x: np.swapaxes(x[:seeds, :points], 0, 1)
    take = lambda x, column: own(x if column is None else x[..., column])
    end_step, end_kind = take(stored[0], step_column), take(stored[1], kind_column)
    curve = own(np.moveaxis(stored[2], 0, -1))[..., : len(described.curve_step)]
    curve = np.where(described.curve_step <= end_step[..., None], curve, np.nan)
    is_over = (end_kind != EndKind.RUNNING)[..., None] & (end_step[..., None] < described.evaluation_step)
    along = zip(evaluations, stored[3:], strict=True)
    found = {name: np.where(is_over, np.nan, own(values)) for name, values in along}
    return {"end_step": end_step, "curve_loss": curve} | found
