"""A run directory as a sweep uses it: its tiles, checkpoints of blocks, lanes at the last step, claims."""

import functools
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from gdkit.errors import DamagedFileError, OtherRunError, StoreError, warn
from gdkit.store import STALE, Store
from gdkit.sweeps.plan.blocks import Block
from gdkit.sweeps.programs.build import Carry
from gdkit.sweeps.programs.job import Job, describe_checkpoint
from gdkit.sweeps.programs.packing import Packed, get_host_shape, to_device
from gdkit.sweeps.programs.tiles import Checkpoint, FinishedBlock, Tile, TileBlock, extract_rows
from gdkit.sweeps.rundir.manifest import CompiledSweep, RunDirectory, explain_other_run, make_manifest
from gdkit.sweeps.rundir.states import StoredStates, verify_tile
from gdkit.sweeps.rundir.unfinished import read_columns
from gdkit.trees import to_host

LoadLanes = Callable[[Job], list[tuple[Block, Packed]]]


class Claims:
    """The claims of this process, renewed until they are released, so that a long segment does not make one stale."""

    def __init__(self, run: Store, renew_seconds: float = STALE / 4):
        self._run, self._renew_seconds = run, renew_seconds
        self._tiles: set[int] = set()
        self._closed = threading.Event()
        self._renewer = threading.Thread(target=self._renew, name="gdkit-claims", daemon=True)
        self._renewer.start()

    def take(self, tile: int) -> bool:
        """Claim a tile; False if another process works on it."""
        is_taken = self._run.claim(tile)
        if is_taken:
            self._tiles.add(tile)
        return is_taken

    def release(self, tile: int) -> None:
        """Release the claim of a tile, unless it is also that of another tile that this process works on."""
        self._tiles.discard(tile)
        if self._tiles.isdisjoint(self._run.tiles_of_claim(tile)):
            self._run.release(tile)

    def close(self) -> None:
        """Release all claims."""
        self._closed.set()
        self._renewer.join()
        for tile in tuple(self._tiles):
            self.release(tile)

    def _renew(self) -> None:
        while not self._closed.wait(self._renew_seconds):
            for tile in tuple(self._tiles):
                self._run.renew(tile)


class RunArchive:
    """Where workers store tiles and checkpoints: a run directory.

    A worker process has no claims: the process that sends it tiles has them.
    """

    def __init__(self, run: Store, recorded_points: int, claims: Claims | None = None):
        self.run, self._recorded_points, self._claims = run, recorded_points, claims

    @property
    def stores_lanes(self) -> bool:
        """Whether the directory stores lanes at their last step."""
        return bool(self.run.manifest.plan.get("keeps_lanes"))

    def tile(self, job: Job, number: int) -> Tile:
        """A tile of a job, for `run_jobs`."""
        _, low, high = self.run.partition.span(number)
        blocks = zip(job.blocks[low:high], self.run.partition.blocks_of(number), strict=True)
        return Tile([TileBlock(job, block, place) for block, place in blocks], number)

    def take(self, tile: int) -> bool:
        """Claim a tile for this process; False if another process works on it, or has finished it meanwhile."""
        if self._claims is None:
            return True
        if not self._claims.take(tile):
            return False
        if self.is_done(tile):
            self.release(tile)
            return False
        return True

    def release(self, tile: int) -> None:
        """Release the claim of a tile."""
        if self._claims is not None:
            self._claims.release(tile)

    def close(self) -> None:
        """Release all claims of this process."""
        if self._claims is not None:
            self._claims.close()

    def is_done(self, tile: int) -> bool:
        """Whether a tile is stored and whole."""
        try:
            verify_tile(self.run, tile)
        except StoreError:
            return False
        return True

    def checkpoint(self, number: int | None) -> Checkpoint | None:
        """The checkpoint of the block of this number; None without one, as for a part of a block."""
        if number is None:
            return None

        def save(carry: Carry) -> None:
            self.run.put_carry(number, int(carry.t), [to_host(x) for x in jax.tree.leaves(carry)])

        return Checkpoint(lambda job, device: self._load_carry(job, device, number), save)

    def _load_carry(self, job: Job, device: int, block: int) -> Carry | None:
        if not self.run.has_carry(block):
            return None
        like, tree = jax.tree.flatten(describe_checkpoint(job, device))
        errors: list[DamagedFileError] = []
        leaves = _read_carry(self.run, block, like, errors)
        _warn_of_damage(errors)
        return None if leaves is None else jax.tree.unflatten(tree, map(to_device, leaves, like))

    def write(self, tile: Tile, finished: list[FinishedBlock]) -> Callable[[], None]:
        """Store the lanes of a tile and write it; the function returned publishes it, and removes its checkpoints.

        Lanes are stored first: a process that finds the tile, even under its temporary name, counts it as finished and
        would not store them.
        """
        numbers = self.run.partition.blocks_of(tile.number)
        if self.stores_lanes and len(finished) == len(tile.parts):  # unless blocks were halved for lack of memory
            for number, block in zip(numbers, finished, strict=True):
                leaves = [to_host(x) for x in jax.tree.leaves(block.lanes)]
                self.run.put_carry(number, block.job.steps, leaves, last=True)
        rows = [extract_rows(f.block, f.output, self._recorded_points) for f in finished]
        columns = {name: np.concatenate([r[name] for r in rows]) for name in rows[0]}
        group = self.run.partition.groups[self.run.partition.span(tile.number).group]
        narrower = {(len(f.block.points), len(f.block.seeds)) for f in finished} - {(group.width, group.depth)}
        unnamed = self.run.write_tile(tile.number, columns, narrower)

        def publish() -> None:
            if unnamed is not None:
                self.run.name_tile(tile.number, unnamed)
            for number in numbers:
                self.run.remove_carry(number)
            self.release(tile.number)

        return publish


class UnfinishedRun(NamedTuple):
    """A run directory, and the tiles that are still to run."""

    archive: RunArchive
    finished: np.ndarray  # (tiles,) bool, whether each was finished when the directory was opened
    directory: RunDirectory

    @staticmethod
    def open(compiled: CompiledSweep, directory: RunDirectory, store: type[Store] = Store) -> "UnfinishedRun":
        """The run directory of a sweep, made if it does not exist; verifies finished tiles and warns of damaged ones.

        Raises:
          OtherRunError: it holds another run.
          StoreError: it cannot be made or read.
        """
        try:
            run = store.create(directory.path, make_manifest(compiled, directory))
        except OtherRunError as error:
            raise explain_other_run(error) from error
        run.clean_up()
        finished = verify_tiles(run)
        return UnfinishedRun(RunArchive(run, compiled.recorded_points, Claims(run)), finished, directory)

    def cut_tiles(self, job: Job) -> list[Tile]:
        """The tiles of a job that this process runs."""
        index, count = self.directory.shard
        left = [t for t in self.archive.run.partition.tiles_in(job.group) if not self.finished[t]]
        own = [t for t in left if t % count == index]
        others = [t for t in left if t % count != index] if self.directory.helps else []
        return [self.archive.tile(job, number) for number in own + others]

    @property
    def lanes_done(self) -> int:
        """Lanes that were finished when the directory was opened."""
        return int(self.archive.run.partition.rows_per_tile()[self.finished].sum())

    @property
    def stores_lanes(self) -> bool:
        """Whether the directory stores lanes at their last step."""
        return self.archive.stores_lanes

    @property
    def states(self) -> StoredStates:
        """The states that the directory stores."""
        return StoredStates(self.archive.run)

    def add(self, finished: FinishedBlock) -> None:
        """Do nothing: workers write the tiles."""

    def columns(self) -> dict[str, np.ndarray]:
        """The values that lanes report, name -> ``(lanes, ...)``; of lanes of missing tiles what `read_columns` has."""
        return read_columns(self.archive.run).values

    @property
    def load(self) -> LoadLanes | None:
        """As `make_lane_loader`."""
        return make_lane_loader(self.archive.run)

    def close(self) -> None:
        """Release the claims of this process."""
        self.archive.close()


def make_lane_loader(run: Store) -> LoadLanes | None:
    """A function that loads the lanes of a job's group at the last step; None where the directory stores no lanes."""
    return functools.partial(load_last_lanes, run) if run.manifest.plan.get("keeps_lanes") else None


def load_last_lanes(run: Store, job: Job) -> list[tuple[Block, Packed]]:
    """The lanes of a job's group at the last step of a run, block by block, on the host; blocks without are left out.

    Raises:
      StoreError: they cannot be read.
    """
    like, tree = jax.tree.flatten(job.programs[0].carry.lanes)
    errors: list[DamagedFileError] = []
    pairs = zip(job.blocks, run.partition.blocks_in(job.group), strict=True)
    lanes = [(block, _read_carry(run, number, like, errors, last=True)) for block, number in pairs]
    _warn_of_damage(errors)
    return [(block, jax.tree.unflatten(tree, leaves)) for block, leaves in lanes if leaves is not None]


def _read_carry(
    run: Store, block: int, like: Sequence[Any], errors: list[DamagedFileError], *, last: bool = False
) -> Sequence[np.ndarray] | None:
    """The leaves of the carry of a block; None if it is missing or damaged, which is then one of `errors`."""
    try:
        stored = run.carry(block, [get_host_shape(x) for x in like], last=last)
    except DamagedFileError as error:
        errors.append(error)
        return None
    return None if stored is None else stored.leaves


def verify_tiles(run: Store) -> np.ndarray:
    """Mask of tiles that are finished and undamaged, ``(tiles,)`` bool; warns of each damaged one."""
    finished = run.finished()
    for tile in map(int, np.flatnonzero(finished)):
        try:
            verify_tile(run, tile)
        except DamagedFileError as error:
            warn(f"{error} It is computed again.")
            finished[tile] = False
    return finished


def _warn_of_damage(errors: Sequence[DamagedFileError]) -> None:
    """Warn once of all files with lanes that cannot be used, by the first of them and the number of the others."""
    if errors:
        others = f", and so do those of {len(errors) - 1} other files" if errors[1:] else ""
        warn(f"{errors[0]} Its lanes start again from step 0{others}.")
