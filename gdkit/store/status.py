"""The status of a run, from the names of its files."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gdkit.errors import DamagedFileError
from gdkit.store.claims import Claim

if TYPE_CHECKING:
    from gdkit.store.store import Store


class Status(NamedTuple):
    """How much of a run is finished. Every tile is finished, in flight or missing."""

    tiles: int
    finished: int
    in_flight: int  # not finished, and claimed or with a checkpoint
    missing: int
    damaged: tuple[int, ...] | None  # tiles that are not what was written; they count as missing; None if not verified
    lanes: int
    lanes_done: int
    carries: dict[int, int | None]  # block of an unfinished tile -> step of its checkpoint, None where that is damaged
    claims: dict[int, Claim]  # first tile -> live claim
    narrower: tuple[int, ...]  # tiles with blocks that ran smaller than planned, for lack of memory


def read_status(store: "Store", *, verify: bool) -> Status:
    """The status of a `Store`; `verify` reads every tile, otherwise none is read."""
    partition, finished = store.partition, store.finished()
    damaged = tuple(_find_damaged(store, finished)) if verify else None
    finished[list(damaged or ())] = False
    unfinished = lambda block: not finished[partition.tile_of_block(block)]
    carries = {block: store.step(block) for block in store.carries() if unfinished(block)}
    live = {tile: claim for tile, claim in store.claims().items() if claim.is_live()}
    is_begun = np.zeros(partition.tiles, bool)
    is_begun[[partition.tile_of_block(block) for block in carries]] = True
    for tile in live:
        is_begun[list(store.tiles_of_claim(tile))] = True
    in_flight, done = int(np.sum(is_begun & ~finished)), int(finished.sum())
    return Status(
        tiles=partition.tiles,
        finished=done,
        in_flight=in_flight,
        missing=partition.tiles - done - in_flight,
        damaged=damaged,
        lanes=partition.lanes,
        lanes_done=int(partition.rows_per_tile()[finished].sum()),
        carries=carries,
        claims=live,
        narrower=tuple(store.narrower()),
    )


def _find_damaged(store: "Store", finished: np.ndarray) -> Iterator[int]:
    for tile in map(int, np.flatnonzero(finished)):
        try:
            store.read_tile(tile)
        except DamagedFileError:
            yield tile
