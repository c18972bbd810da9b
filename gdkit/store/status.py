"""How far a run is, told from the names of its files."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from gdkit.errors import DamagedFileError
from gdkit.store.claims import Claim


class Status(NamedTuple):
    """How far a run is. Every tile is finished, in flight or missing."""

    tiles: int
    finished: int
    in_flight: int  # not finished, and claimed or with a carry
    missing: int
    damaged: tuple[int, ...] | None  # tiles that are not what was written, counted as missing; None if not looked for
    lanes: int
    lanes_done: int
    carries: dict[int, int | None]  # block -> its step, of tiles that are not finished; None where it is damaged
    claims: dict[int, Claim]  # first tile -> a claim that counts
    narrower: tuple[int, ...]  # tiles with blocks that ran smaller than the manifest says, for want of memory


def status_of(store: Any, *, verify: bool, younger_than: float) -> Status:
    """The status of a `Store`; `verify` reads every tile, otherwise none is read."""
    partition, finished = store.partition, store.finished()
    damaged = tuple(_damaged(store, finished)) if verify else None
    finished[list(damaged or ())] = False
    unfinished = lambda block: not finished[partition.tile_of_block(block)]
    carries = {block: store.step(block) for block in store.carries() if unfinished(block)}
    live = {tile: claim for tile, claim in store.claims().items() if claim.is_live(younger_than)}
    flying = np.zeros(partition.tiles, bool)
    flying[[partition.tile_of_block(block) for block in carries]] = True
    for tile in live:
        flying[list(store.tiles_of_claim(tile))] = True
    in_flight, done = int(np.sum(flying & ~finished)), int(finished.sum())
    return Status(
        tiles=partition.tiles,
        finished=done,
        in_flight=in_flight,
        missing=partition.tiles - done - in_flight,
        damaged=damaged,
        lanes=partition.lanes,
        lanes_done=int(partition.all_rows()[finished].sum()),
        carries=carries,
        claims=live,
        narrower=tuple(store.narrower()),
    )


def _damaged(store: Any, finished: np.ndarray) -> Iterator[int]:
    for tile in map(int, np.flatnonzero(finished)):
        try:
            store.verify(tile)
        except DamagedFileError:
            yield tile
