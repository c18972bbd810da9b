"""The plan of a sweep: how lanes are cut into blocks, tiles and segments, and who works."""

import dataclasses
import os
from typing import Any

import jax
import numpy as np

from gdkit.descent import check_positive


@dataclasses.dataclass(frozen=True)
class Plan:
    """How a sweep runs. What is None is chosen; `width` alone decides the bits of the result.

    Attributes:
      width: points that one program call advances side by side, for each seed in the block.
      tile: blocks that a worker takes at a time.
      segment: steps that a block advances in one call, between which it can be interrupted and reports progress.
      workers: threads; by default one a core, or one an accelerator.
    """

    width: int | None = None
    tile: int = 1
    segment: int = 1000
    workers: int | None = None

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is not None:
                check_positive(f"plan.{field.name}", value)


# Floats of params that a block should hold: some 256 KiB, so that a block and its work stay in a core's cache.
_FLOATS_A_BLOCK = 65_536
_WIDEST = 1024  # beyond this the vector units are full and only the cache is lost


def width_for(params: Any) -> int:
    """Points a block, from the size of one lane's params: a power of two between 1 and 1,024.

    >>> width_for(np.zeros(())), width_for(np.zeros(9_000)), width_for(np.zeros(10**6))
    (1024, 8, 1)
    """
    floats = sum(int(np.prod(x.shape)) for x in jax.tree.leaves(params))
    return int(np.clip(2 ** round(np.log2(_FLOATS_A_BLOCK / max(floats, 1))), 1, _WIDEST))


def workers_for(plan: Plan, devices: int) -> int:
    """Worker threads: as the plan says, else one a core on a CPU, one a device elsewhere."""
    if plan.workers is not None:
        return plan.workers
    return visible_cores() if devices == 1 and jax.default_backend() == "cpu" else devices


def visible_cores() -> int:
    """Cores that this process may use; a result's bits depend on how many."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
