"""Tiles: the blocks that are dispatched and stored together."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from gdkit.sweeps.plan.blocks import Block
from gdkit.sweeps.programs.build import Carry
from gdkit.sweeps.programs.job import Job
from gdkit.sweeps.programs.packing import Packed


class Checkpoint(NamedTuple):
    """Loads and saves the carry of one block."""

    load: Callable[[Job, int], Carry | None]  # takes a device number; returns None without a saved carry
    save: Callable[[Carry], None]


class FinishedBlock(NamedTuple):
    """A block that has run."""

    job: Job
    block: Block
    output: dict[str, np.ndarray]  # name -> (seeds, points, ...)
    lanes: Packed | None  # at the last step, before its loss is observed; None unless the job returns lanes


class SegmentOutput(NamedTuple):
    """The values of a block at the end of a segment."""

    job: Job
    block: Block
    step: int  # the step that its lanes have reached, unless they ended before
    output: Mapping[str, np.ndarray]  # name -> (seeds, points, ...)


class TileBlock(NamedTuple):
    """A block of a tile."""

    job: Job
    block: Block
    number: int | None = None  # in the run directory; None without one, or for a part of a block that was cut


class Tile(NamedTuple):
    """Blocks that are dispatched and stored together."""

    parts: list[TileBlock]
    number: int = -1  # in the run directory; -1 without one


def cut_tiles(job: Job, size: int) -> list[Tile]:
    """The blocks of a job as tiles of `size` blocks."""
    parts = [TileBlock(job, block) for block in job.blocks]
    return [Tile(parts[low : low + size]) for low in range(0, len(parts), size)]


def extract_rows(block: Block, output: Mapping[str, np.ndarray], recorded_points: int) -> dict[str, np.ndarray]:
    """The output of a block without padding, name -> (rows, ...), with the seeds of a point in adjacent rows."""
    points, seeds = block.sizes
    rows = {}
    for name, value in output.items():
        own = value[:seeds, :points].swapaxes(0, 1).reshape(-1, *value.shape[2:])
        if name.startswith("curve_"):
            own = own[:, :recorded_points]
        rows[name] = own.astype(np.float32) if own.dtype.kind == "V" else own  # bfloat16, which NumPy cannot name
    return rows
