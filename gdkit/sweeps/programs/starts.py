"""Runs that end at step 0, with the cause: an error if all runs of a sweep do, else a warning."""

from collections.abc import Mapping, Sequence
from itertools import islice

import jax
import numpy as np

from gdkit import descent
from gdkit.errors import bad_value, warn
from gdkit.monitors import EndKind
from gdkit.sweeps.programs.groups import TracedGroup
from gdkit.sweeps.request import SweepRequest

_MOST_LOOKED_AT = 4  # most starts that are examined, since each compiles a gradient


def check_start(request: SweepRequest, groups: Sequence[TracedGroup], columns: Mapping[str, np.ndarray]) -> None:
    """Warn of runs that end at step 0, with the cause.

    Raises:
      InputValueError: all runs do, because the loss or its gradient is not finite at the start.
    """
    ended = (columns["end_kind"] == EndKind.NONFINITE) & (columns["end_step"] == 0)
    stuck = ended & np.isfinite(columns["initial_loss"])
    if ended.all() and not stuck.any():
        value = columns["initial_loss"].ravel()[0]
        raise bad_value("problem", float(value), "the loss is not finite at the start", descent.LOSS_REMEDY)
    cause = _find_cause(request, groups, stuck) if stuck.any() else None
    if cause and ended.all():
        raise bad_value("problem", groups[0].problem.name or groups[0].problem.loss, *cause)
    if cause:
        warn(f"{stuck.sum()} of {stuck.size} runs end at step 0: {'. '.join(cause)}.")


def _find_cause(request: SweepRequest, groups: Sequence[TracedGroup], stuck: np.ndarray) -> tuple[str, str] | None:
    """What is not finite in the first step of the lanes `stuck`, and the remedy, from one lane per group and seed."""
    starts = [(group, seed) for group in groups for seed in range(request.seeds)]
    lanes = ((group, seed, _first_point(group, seed, request.seeds, stuck)) for group, seed in starts)
    for group, seed, place in islice((lane for lane in lanes if lane[2] is not None), _MOST_LOOKED_AT):
        point = group.static | {name: values[place] for name, values in group.group.traced.items()}
        key, arrays = jax.random.fold_in(request.key, seed), request.get_arrays(group.problem)
        found = descent.find_bad_start(request.problem, group.group.section.optimizer, point, key, arrays)
        if found:
            return found
    return None


def _first_point(group: TracedGroup, seed: int, seeds: int, stuck: np.ndarray) -> int | None:
    """The place in the group of the first lane of a seed that is in the mask `stuck`."""
    places = np.flatnonzero(stuck[group.offset + group.group.points * seeds + seed])
    return int(places[0]) if places.size else None
