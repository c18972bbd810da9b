"""Values on validation data along the run, on the host: name -> (..., evaluations), NaN where a lane has none.

Evaluation k is at step k·n, after so many updates, and the last one at the end of the run. A lane that ended earlier is
NaN from its end on, except in the last place, which holds the value at its end.
"""

from collections.abc import Mapping, Sequence

import jax
import numpy as np

from gdkit.sweeps.plan.blocks import Block
from gdkit.sweeps.programs.job import Job
from gdkit.sweeps.programs.packing import Packed, get_host_dtype

Evaluations = dict[str, np.ndarray]


def start_evaluations(job: Job, block: Block) -> Evaluations:
    """The evaluations of a block before its first step, (seeds, points, evaluations): those of the job it resumes."""
    shape = len(block.seeds), len(block.points), len(job.evaluation_steps)
    started = {name: np.full(shape, np.nan, get_host_dtype(x.dtype)) for name, x in job.evaluated.items()}
    if job.resumed is not None:
        for name, earlier in job.resumed.evaluations.items():
            values = earlier[np.ix_(block.points, block.seeds)].swapaxes(0, 1)
            known = count_kept(job.evaluation_steps, job.first_step)
            started[name][..., :known] = values[..., :known]
    return started


def write_evaluations(evaluations: Evaluations, pending: Sequence[tuple[int, Packed]]) -> None:
    """Write what `Program.evaluate` returned, with the places of the evaluations; waits for the device."""
    for place, packed in pending:
        for name, values in jax.device_get(packed).unpack().items():
            evaluations[name][..., place] = values


def read_latest(evaluations: Evaluations, job: Job, step: int) -> Evaluations:
    """The latest values at `step`, (seeds, points); NaN before the first evaluation."""
    place = int(np.sum(job.evaluation_steps <= step)) - 1
    latest = lambda values: values[..., place] if place >= 0 else np.full(values.shape[:-1], np.nan, values.dtype)
    return {name: latest(values) for name, values in evaluations.items()}


def lengthen_evaluations(
    columns: Mapping[str, np.ndarray], names: Sequence[str], steps: int, evaluation_steps: np.ndarray
) -> Evaluations:
    """The evaluations of a sweep of `steps` steps, (lanes, evaluations), as those of a longer one, at other steps."""
    kept, longer = count_kept(evaluation_steps, steps), {}
    for name in names:
        earlier = columns[name]
        values = np.full((len(earlier), len(evaluation_steps)), np.nan, earlier.dtype)
        values[:, :kept] = earlier[:, :kept]
        values[:, -1] = earlier[:, -1]
        longer[name] = mask_after_end(values, evaluation_steps, columns["end_step"])
    return longer


def mask_after_end(values: np.ndarray, evaluation_steps: np.ndarray, end_step: np.ndarray) -> np.ndarray:
    """The values, (..., evaluations), NaN where a lane had ended, at `end_step`, (...), but for the last one."""
    is_over = end_step[..., None] < evaluation_steps
    is_over[..., -1] = False
    return np.where(is_over, values.dtype.type(np.nan), values)


def count_kept(evaluation_steps: np.ndarray, steps: int) -> int:
    """The number of evaluations, the last one not counted, that a shorter sweep of `steps` steps has as well.

    >>> count_kept(np.array([100, 200, 300, 350]), 250), count_kept(np.array([100, 200, 300]), 200)
    (2, 2)
    """
    return int(np.sum(evaluation_steps[:-1] <= steps))
