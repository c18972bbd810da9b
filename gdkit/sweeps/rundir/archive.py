"""What workers leave in a run directory and find again: tiles, lanes on their way, claims."""

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from gdkit.errors import DamagedFileError, OtherRunError, StoreError, warn
from gdkit.store import STALE, Store
from gdkit.sweeps.plan.blocks import Block
from gdkit.sweeps.programs.build import Carry
from gdkit.sweeps.programs.groups import TracedGroup
from gdkit.sweeps.programs.job import Job
from gdkit.sweeps.programs.packing import get_host_shape, to_device, to_host
from gdkit.sweeps.programs.tiles import Checkpoint, FinishedBlock, Tile, TileBlock, cut_tiles, extract_rows
from gdkit.sweeps.request import SweepRequest
from gdkit.sweeps.rundir.manifest import CompiledSweep, RunDirectory, explained, manifest_of


class Claims:
    """The tiles that this process works on, as others see them.

    Until it is closed, none of its claims grows stale, however long a segment takes.
    """

    def __init__(self, run: Store):
        self._run, self._held = run, set()
        self._over = threading.Event()
        self._renewer = threading.Thread(target=self._renew, name="gdkit-claims", daemon=True)
        self._renewer.start()

    def take(self, tile: int) -> bool:
        """Claim a tile; False if somebody else works on it."""
        taken = self._run.claim(tile)
        if taken:
            self._held.add(tile)
        return taken

    def release(self, tile: int) -> None:
        """Give a claim back, unless it is also for another tile that this process works on."""
        self._held.discard(tile)
        if self._held.isdisjoint(self._run.claim_of(tile)):
            self._run.release(tile)

    def close(self) -> None:
        """Give all back."""
        self._over.set()
        self._renewer.join()
        for tile in tuple(self._held):
            self.release(tile)

    def _renew(self) -> None:
        while not self._over.wait(_RENEWED):
            for tile in tuple(self._held):
                self._run.renew(tile)


_RENEWED = STALE / 4  # seconds between renewals


class RunArchive:
    """A run directory as workers use it: a `dispatch.Archive`.

    Without claims, its tiles are dealt by somebody who has them.
    """

    def __init__(self, run: Store, reached: int, claims: Claims | None = None):
        self.run, self._reached, self._claims = run, reached, claims

    @property
    def keeps_lanes(self) -> bool:
        """Whether lanes are kept at their last step too, so that they can go on."""
        return bool(self.run.manifest.plan.get("keeps_lanes"))

    def tile(self, job: Job, number: int) -> Tile:
        """A tile of a job, as `dispatch.run_jobs` takes it."""
        _, low, high = self.run.partition.span(number)
        blocks = zip(job.blocks[low:high], self.run.partition.blocks_of(number), strict=True)
        return Tile([TileBlock(job, block, place) for block, place in blocks], number)

    def take(self, tile: Tile) -> bool:
        """Whether to run a tile now: unless somebody else works on it, or has finished it meanwhile."""
        if self._claims is None:
            return True
        if not self._claims.take(tile.number):
            return False
        if self.is_done(tile):
            self.release(tile)
            return False
        return True

    def release(self, tile: Tile) -> None:
        """Say that nobody works on a tile any more."""
        if self._claims is not None:
            self._claims.release(tile.number)

    def close(self) -> None:
        """Say that this process works on nothing here any more."""
        if self._claims is not None:
            self._claims.close()

    def is_done(self, tile: Tile) -> bool:
        """Whether somebody has finished a tile."""
        try:
            self.run.verify(tile.number)
        except StoreError:
            return False
        return True

    def checkpoint(self, tile: Tile, part: TileBlock) -> Checkpoint | None:
        """Where the lanes of a block are kept; nowhere for a part of one."""
        block = part.number
        if block is None:
            return None

        def save(carry: Carry) -> None:
            self.run.put_carry(block, int(carry.t), [to_host(x) for x in jax.tree.leaves(carry)])

        return Checkpoint(lambda job, device: self._carry(job, device, block), save)

    def _carry(self, job: Job, device: int, block: int) -> Carry | None:
        if not self.run.has_carry(block):
            return None
        like, tree = jax.tree.flatten(job.programs[device].carry)
        try:
            kept = self.run.carry(block, [get_host_shape(x) for x in like])
        except DamagedFileError as error:
            warn(f"{error} Its lanes start anew.")
            return None
        if kept is None:
            return None
        return jax.tree.unflatten(tree, map(to_device, kept.leaves, like))

    def write(self, tile: Tile, finished: list[FinishedBlock]) -> Callable[[], None]:
        """Write a tile; what is returned publishes it, keeps its lanes, and forgets those on their way.

        A process that is killed before the lanes are kept loses them alone: `last_lanes` leaves them out.
        """
        rows = [extract_rows(f.block, f.output, self._reached) for f in finished]
        columns = {name: np.concatenate([r[name] for r in rows]) for name in rows[0]}
        unnamed = self.run.write_tile(tile.number, columns, self._narrower(tile, finished))

        def publish() -> None:
            if unnamed is not None:
                self.run.name_tile(tile.number, unnamed)
            if self.keeps_lanes and len(finished) == len(tile.parts):  # unless blocks were cut for want of memory
                for part, done in zip(tile.parts, finished, strict=True):
                    self._keep(part, done)
            for block in self.run.partition.blocks_of(tile.number):
                self.run.drop_carry(block)
            self.release(tile)

        return publish

    def _keep(self, part: TileBlock, done: FinishedBlock) -> None:
        if part.number is not None:
            leaves = [to_host(x) for x in jax.tree.leaves(done.lanes)]
            self.run.put_carry(part.number, part.job.steps, leaves, last=True)

    def _narrower(self, tile: Tile, finished: list[FinishedBlock]) -> set[tuple[int, int]]:
        """Width and depth of the blocks that ran smaller than planned, after a device ran out of memory."""
        group = self.run.partition.groups[self.run.partition.span(tile.number).group]
        shapes = {(len(f.block.points), len(f.block.seeds)) for f in finished}
        return shapes - {(group.width, group.depth)}


class UnfinishedRun(NamedTuple):
    """A run directory, and what is left to run there."""

    archive: RunArchive
    done: np.ndarray  # (tiles,) bool, whether each was finished when the directory was opened
    where: RunDirectory

    @staticmethod
    def open(setting: CompiledSweep, where: RunDirectory) -> "UnfinishedRun":
        """The run directory of a sweep, made if it is not there; finished tiles are verified, damaged ones named.

        Raises:
          OtherRunError: it holds another run.
          StoreError: it cannot be made or read.
        """
        try:
            run = Store.create(where.path, manifest_of(setting, where))
        except OtherRunError as error:
            raise explained(error) from error
        run.tidy()
        done = _verified(run)
        return UnfinishedRun(RunArchive(run, setting.reached, Claims(run)), done, where)

    def cut_tiles(self, job: Job) -> list[Tile]:
        """The tiles of a job that are this process's to run, as `dispatch.run_jobs` takes them."""
        partition = self.archive.run.partition
        index, count = self.where.shard
        left = [t for t in partition.tiles_in(job.group) if not self.done[t]]
        mine = [t for t in left if t % count == index]
        others = [t for t in left if t % count != index] if self.where.helps else []
        return [self.archive.tile(job, number) for number in mine + others]

    @property
    def lanes_done(self) -> int:
        """How many lanes were finished when the directory was opened."""
        return int(self.archive.run.partition.all_rows()[self.done].sum())

    @property
    def keeps_lanes(self) -> bool:
        """Whether the directory keeps lanes at their last step."""
        return self.archive.keeps_lanes

    def put(self, finished: FinishedBlock) -> None:
        """Nothing: workers leave their tiles there."""

    def columns(self) -> dict[str, np.ndarray]:
        """What all lanes read, name -> ``(lanes, ...)``; with gaps where tiles are missing."""
        return self.archive.run.columns().values

    def load(self, job: Job) -> list[tuple[Block, Any]]:
        """The lanes of a job's group at their last step."""
        return last_lanes(self.archive.run, job)

    def close(self) -> None:
        """Give claims back."""
        self.archive.close()


def last_lanes(run: Store, job: Job) -> list[tuple[Block, Any]]:
    """The lanes of a job's group at the last step of its run, block by block, on the host; those that are there.

    Raises:
      StoreError: they cannot be read.
    """
    like, tree = jax.tree.flatten(job.programs[0].carry.lanes)
    kinds = [get_host_shape(x) for x in like]
    found = []
    for block, number in zip(job.blocks, run.partition.blocks_in(job.group), strict=True):
        try:
            kept = run.carry(number, kinds, last=True)
        except DamagedFileError as error:
            warn(f"{error} Its lanes start anew.")
            continue
        if kept is not None:
            found.append((block, jax.tree.unflatten(tree, kept.leaves)))
    return found


class MemoryColumns:
    """What lanes read, where no directory is asked for."""

    archive, lanes_done, keeps_lanes = None, 0, False

    def __init__(self, request: SweepRequest, prepared: Sequence[TracedGroup], before: Mapping[str, np.ndarray] | None):
        self._request, self._prepared, self._reached = request, prepared, request.recorded_points
        self._columns = _longer(before, self._reached) if before else {}

    def cut_tiles(self, job: Job) -> list[Tile]:
        """The tiles of a job."""
        return cut_tiles(job, self._request.plan.tile or 1)

    def put(self, finished: FinishedBlock) -> None:
        """Keep what a block's lanes read."""
        rows = extract_rows(finished.block, finished.output, self._reached)
        at = self._prepared[finished.job.group].number_rows(finished.block, self._request.seeds)
        where = slice(at[0], at[-1] + 1) if np.all(np.diff(at) == 1) else at
        for name, value in rows.items():
            if name not in self._columns:  # every lane is written
                self._columns[name] = np.empty((self._request.lane_count, *value.shape[1:]), value.dtype)
            self._columns[name][where] = value

    def columns(self) -> dict[str, np.ndarray]:
        """What all lanes read, name -> ``(lanes, ...)``."""
        return self._columns

    def load(self, job: Job) -> list[tuple[Block, Any]]:
        """Nothing: a `Keeper` has the lanes."""
        return []

    def close(self) -> None:
        """Nothing is held."""


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


def _longer(columns: Mapping[str, np.ndarray], reached: int) -> dict[str, np.ndarray]:
    """A copy of the columns, the curves with room for `reached` points."""
    copied = {name: column.copy() for name, column in columns.items()}
    if "curve_loss" in copied:
        curves = copied["curve_loss"]
        room = np.full((len(curves), reached - curves.shape[1]), np.nan, curves.dtype)
        copied["curve_loss"] = np.concatenate([curves, room], axis=1)
    return copied
