"""Tiles: the blocks that are dispatched and stored together."""

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

import numpy as np

from gdkit.sweeps.plan.blocks import Block
from gdkit.sweeps.programs.build import Carry
from gdkit.sweeps.programs.job import Job
from gdkit.sweeps.programs.packing import Packed


class Checkpoint(NamedTuple):
    """Where a block's lanes are kept at the end of each segment."""

    load: Callable[[Job, int], Carry | None]  # for a device; None where there is nothing to go on from
    save: Callable[[Carry], None]


def extract_rows(block: Block, output: Mapping[str, np.ndarray], reached: int) -> dict[str, np.ndarray]:
    """What a block's lanes read without padding, name -> (rows, ...): the seeds of a point side by side."""
    points, seeds = block.sizes
    rows = {}
    for name, value in output.items():
        own = value[:seeds, :points].swapaxes(0, 1).reshape(-1, *value.shape[2:])
        if name == "curve_loss":
            own = own[:, :reached]
        rows[name] = own.astype(np.float32) if own.dtype.kind == "V" else own  # bfloat16, which numpy cannot name
    return rows


class FinishedBlock(NamedTuple):
    """A block that has run."""

    job: Job
    block: Block
    output: dict[str, np.ndarray]  # name -> (seeds, points, ...)
    lanes: Packed | None  # before the last observation; None unless they are kept


class TileBlock(NamedTuple):
    """A block of a tile."""

    job: Job
    block: Block
    number: int | None = None  # of the block in a run directory; None where there is none, or it is a part of one


class Tile(NamedTuple):
    """Blocks that are kept together."""

    parts: list[TileBlock]
    number: int = -1  # in a run directory


class TileArchive(Protocol):
    """Where workers leave tiles, and lanes on their way."""

    def take(self, tile: Tile) -> bool:
        """Whether to run a tile now; nobody else then does."""

    def checkpoint(self, tile: Tile, part: TileBlock) -> Checkpoint | None:
        """Where a block's lanes are kept."""

    def write(self, tile: Tile, finished: list[FinishedBlock]) -> Callable[[], None]:
        """Keep a tile once what is returned has been called, which waits for the disk."""

    def is_done(self, tile: Tile) -> bool:
        """Whether somebody has kept a tile."""


def cut_tiles(job: Job, size: int) -> list[Tile]:
    """The blocks of a job as tiles of `size`."""
    parts = [TileBlock(job, block) for block in job.blocks]
    return [Tile(parts[low : low + size]) for low in range(0, len(parts), size)]
