"""Results on disk: a run directory that fills up tile by tile and can be killed at any instant, and netCDF files.

``docs/format.md`` says what lies in a run directory. There are no locks: the manifest is made once and everybody reads
the partition from it; tiles do not change once they are there, and equal runs make equal ones.
"""

import contextlib
import os
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from gdkit.errors import DamagedFileError, OtherRunError, StoreError, bad_value
from gdkit.store import arrays, claims, manifest, places
from gdkit.store.arrays import Kind, digest
from gdkit.store.claims import STALE, Claim
from gdkit.store.columns import Columns, lazy_columns, read_columns
from gdkit.store.files import FILES, Files, failed, give_name, make_folder, publish, written
from gdkit.store.manifest import Manifest, differences
from gdkit.store.netcdf import FORMAT, RESULTS, load, save
from gdkit.store.partition import Partition, StoredGroup, group_of
from gdkit.store.status import Status, status_of

__all__ = [
    "FORMAT",
    "RESULTS",
    "STALE",
    "Claim",
    "Columns",
    "Kind",
    "Manifest",
    "Partition",
    "Status",
    "Store",
    "StoredCarry",
    "StoredGroup",
    "StoredTile",
    "differences",
    "digest",
    "group_of",
    "load",
    "save",
]  # fmt: skip

_TILES, _CARRY, _LANES, _CLAIMS = "tiles", "carry", "lanes", "claims"
_FORMAT = 1  # of tiles and carries


class StoredTile(NamedTuple):
    """What lies in a tile's file."""

    columns: dict[str, np.ndarray]  # name -> (rows, ...), read-only
    narrower: tuple[tuple[int, int], ...]  # width and depth of blocks that ran smaller than their group's


class StoredCarry(NamedTuple):
    """A block's lanes as they stand at a step."""

    step: int
    leaves: list[np.ndarray]


class Store(NamedTuple):
    """A run directory, and the manifest that it was opened with."""

    path: Path
    manifest: Manifest
    run: str  # the manifest's digest
    files: Files
    made: set[Path]  # folders that this process has made

    @classmethod
    def create(cls, path: str | os.PathLike[str], wanted: Manifest, *, files: Files = FILES) -> Self:
        """Open the run directory of a run, made if it is not there yet.

        Whoever comes first writes the manifest; the others take theirs, plan and partition, from it.

        Raises:
          OtherRunError: the directory holds a run of another fingerprint.
          StoreError: it cannot be made, or what is in it cannot be read.
          InputValueError: something in the manifest cannot be stored.
        """
        path, (text, lists) = Path(path), manifest.written(wanted)
        target = path / manifest.NAME
        try:
            if not target.exists():
                path.mkdir(parents=True, exist_ok=True)
                for folder in (path, path / _TILES, path / _CARRY, path / _LANES, path / _CLAIMS):
                    make_folder(files, folder)
                if _fits(files, path, wanted.run):
                    lists.write(files, path)  # first, so that no manifest names what is not there
                    with contextlib.suppress(FileExistsError):
                        publish(files, target, [text], exclusive=True)
        except OSError as error:
            raise failed("the manifest cannot be made", target, error) from error
        store = cls.open(path, files=files)
        lines = differences(store.manifest.fingerprint, wanted.fingerprint)
        if lines:
            raise OtherRunError(path, lines)
        return store

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, files: Files = FILES) -> Self:
        """Open a run directory, to read it or to go on.

        Raises:
          StoreError: there is none, or its manifest is damaged or of another format.
        """
        path = Path(path)
        try:
            found = manifest.read(files, path / manifest.NAME)
        except FileNotFoundError as error:
            if next(places.numbers(files, path / _TILES), None) is not None:
                raise _orphaned(path) from error
            raise StoreError(f"{path}: there is no run here. Name a directory that gdkit run has made.") from error
        except OSError as error:
            raise failed("the manifest cannot be read", path / manifest.NAME, error) from error
        return cls(path, found, found.run, files, set())

    @property
    def partition(self) -> Partition:
        """Which lanes a tile holds."""
        return self.manifest.partition

    # Tiles

    def put_tile(
        self, tile: int, columns: Mapping[str, np.ndarray], narrower: Collection[tuple[int, int]] = ()
    ) -> bool:
        """Store a tile for good; each column is ``(rows, ...)`` in the order of `Partition.lanes_of`.

        Args:
          tile: its number.
          columns: what its lanes read.
          narrower: width and depth of those of its blocks that ran smaller than the manifest says, for want of memory.
            The file tells, and a name beside it tells where to look.

        Returns:
          False if it was there already, whole: then it stays as it is.

        Raises:
          InputValueError: the columns are not those of the manifest.
          StoreError: the system refused; the tile is as it was.
        """
        unnamed = self.write_tile(tile, columns, narrower)
        if unnamed is not None:
            self.name_tile(tile, unnamed)
        return unnamed is not None

    def write_tile(
        self, tile: int, columns: Mapping[str, np.ndarray], narrower: Collection[tuple[int, int]] = ()
    ) -> Path | None:
        """Half of `put_tile`, quick: the tile under a temporary name, None if it was there already.

        A process that is killed before `name_tile` has done the other half leaves it for `clean_up` to do.
        """
        path, like = self._tile_path(tile), self._like(tile)
        if columns.keys() != like.keys():
            names = ", ".join(sorted(columns.keys() ^ like.keys()))
            raise bad_value("columns", names, "not the names in the manifest", "Store every column, and no others")
        for name, kind in like.items():
            found = Kind(columns[name].dtype.name, columns[name].shape)
            if found != kind:
                raise bad_value(f"columns[{name!r}]", tuple(found), "not as the manifest says", f"Store {tuple(kind)}")
        if path.exists():
            with contextlib.suppress(DamagedFileError):
                self.verify(tile)
                return None
        about = self._about("tile", tile)
        if narrower:
            about["narrower"] = sorted(narrower)
            self._mark(path.with_suffix(places.NARROWER))
        with _refused(f"tile {tile} cannot be written", path):
            self._folder(path.parent)
            return written(self.files, path, arrays.packed(about, columns))

    def name_tile(self, tile: int, unnamed: Path) -> None:
        """The other half, which waits for the disk: sync what `write_tile` has written, and give it the tile's name."""
        path = self._tile_path(tile)
        with _refused(f"tile {tile} cannot be written", path):
            give_name(self.files, unnamed, path)

    def tile(self, tile: int, columns: Iterable[str] | None = None) -> dict[str, np.ndarray]:
        """A tile's columns, read-only, verified against its checksum.

        Raises:
          DamagedFileError: the file is not what was written; the message says what is wrong.
          StoreError: the tile is not there, or the system refused.
        """
        found = self.read_tile(tile).columns
        return found if columns is None else {name: found[name] for name in columns}

    def read_tile(self, tile: int) -> StoredTile:
        """All that lies in a tile's file, as `tile` reads it."""
        path = self._tile_path(tile)
        try:
            about, found = self._read(path, self._about("tile", tile), self._like(tile))
        except FileNotFoundError as error:
            raise StoreError(f"{path}: tile {tile} is not finished. Run the same again: it goes on.") from error
        return StoredTile(found, _shapes(about))

    def narrower(self) -> dict[int, tuple[tuple[int, int], ...]]:
        """Tiles with blocks that ran smaller than the manifest says: their widths and depths. Reads these tiles."""
        marked = places.numbers(self.files, self.path / _TILES, places.NARROWER)
        found = {}
        for tile in sorted(number for number in marked if number < self.partition.tiles):
            with contextlib.suppress(StoreError):  # not there yet, or no longer whole
                found[tile] = self.read_tile(tile).narrower
        return {tile: shapes for tile, shapes in found.items() if shapes}

    def verify(self, tile: int) -> None:
        """Read a tile for its errors alone."""
        self.tile(tile)

    def finished(self) -> np.ndarray:
        """Whether each tile is there, ``(tiles,)`` bool, by its name alone."""
        found = np.zeros(self.partition.tiles, bool)
        numbers = np.fromiter(places.numbers(self.files, self.path / _TILES), np.int64)
        found[numbers[numbers < len(found)]] = True
        return found

    def columns(self, names: Sequence[str] | None = None) -> Columns:
        """All finished tiles together, in memory."""
        return read_columns(self, names)

    def lazy_columns(self, names: Sequence[str] | None = None) -> Any:
        """An ``xarray.Dataset`` on the dimension ``lane`` that reads a tile when one of its lanes is asked for."""
        return lazy_columns(self, names)

    # Carries

    def put_carry(self, block: int, step: int, leaves: Sequence[np.ndarray], *, last: bool = False) -> None:
        """Store the lanes of a block at a step, in place of those before; apart from them where it is the `last`.

        Raises:
          InputTypeError: a leaf is not an array of numbers.
          StoreError: the system refused; the carry is as it was.
        """
        plain, bits = arrays.to_bits(leaves)
        about = self._about("lanes" if last else "carry", block) | {"step": int(step), "bits": bits}
        pieces = arrays.packed(about, {f"leaf{i}": leaf for i, leaf in enumerate(plain)})
        path = self._carry_path(block, last)
        with _refused(f"the carry of block {block} cannot be written", path):
            self._folder(path.parent)
            publish(self.files, path, pieces, lasting=not last)

    def carry(self, block: int, like: Sequence[Any] | None = None, *, last: bool = False) -> StoredCarry | None:
        """The lanes of a block at the step that was stored last, None if none was.

        Args:
          block: its number in the run.
          like: what each leaf must be: anything with ``shape`` and ``dtype``. Without it a file as large as it says it
            is will be read.
          last: whether those at the run's last step are asked for.

        Raises:
          DamagedFileError: the file is not what was written, or not `like` what it should be.
          StoreError: the system refused.
        """
        path, kinds = self._carry_path(block, last), None
        if like is not None:
            kinds = {f"leaf{i}": Kind(arrays.bits_of(x.dtype), tuple(x.shape)) for i, x in enumerate(like)}
        try:
            about, found = self._read(path, self._about("lanes" if last else "carry", block), kinds)
        except FileNotFoundError:
            return None
        try:
            leaves = arrays.from_bits([found[f"leaf{i}"] for i in range(len(found))], about["bits"])
        except (KeyError, TypeError, ValueError) as error:
            raise arrays.damaged(path, f"{type(error).__name__}: {error}") from error
        step = about.get("step")
        if not isinstance(step, int):
            raise arrays.damaged(path, "it does not say its step")
        for number, (leaf, wanted) in enumerate(zip(leaves, like or leaves, strict=True)):
            if leaf.dtype.name != np.dtype(wanted.dtype).name:
                raise arrays.damaged(path, f"leaf {number} is {leaf.dtype} and should be {wanted.dtype}")
        return StoredCarry(step, leaves)

    def has_carry(self, block: int) -> bool:
        """Whether the lanes of a block were stored on their way."""
        return self._carry_path(block).exists()

    def carries(self) -> Iterator[int]:
        """The numbers of the blocks that have a carry, by their names alone."""
        return (b for b in places.numbers(self.files, self.path / _CARRY) if b < self.partition.blocks)

    def step(self, block: int) -> int | None:
        """The step of a block's carry, without reading its leaves; None where it is damaged or gone."""
        try:
            step = arrays.read(self.files, self._carry_path(block), only=())[0].get("step")
        except (OSError, DamagedFileError):
            return None
        return step if isinstance(step, int) else None

    def remove_carry(self, block: int) -> None:
        """Forget the lanes of a block."""
        with contextlib.suppress(OSError):
            self.files.unlink(self._carry_path(block))

    # Claims

    def claim(self, tile: int, younger_than: float = STALE) -> bool:
        """Say that this process works on a tile and those that share its claim; False if somebody else does."""
        return claims.take(self.files, self._claim_path(tile), younger_than)

    def renew(self, tile: int) -> None:
        """Say so again, so that the claim does not grow stale."""
        claims.renew(self.files, self._claim_path(tile))

    def release(self, tile: int) -> None:
        """Give a claim back."""
        claims.drop(self.files, self._claim_path(tile))

    def claimed(self, tile: int, younger_than: float = STALE) -> bool:
        """Whether somebody else works on a tile, as far as is known."""
        held = claims.look(self.files, self._claim_path(tile))
        return held is not None and not held.is_mine and held.is_live(younger_than)

    def tiles_of_claim(self, tile: int) -> range:
        """The tiles that share a claim with this one: itself alone, unless there are more than 10,000."""
        return claims.shared(tile, self.partition.tiles)

    def claims(self) -> dict[int, Claim]:
        """Every claim, by the first tile that it is for."""
        firsts = claims.firsts(self.files, self.path / _CLAIMS, self.partition.tiles)
        held = {first: claims.look(self.files, self._claim_path(first)) for first in firsts}
        return {first: claim for first, claim in held.items() if claim is not None}

    def stop_file(self, token: str) -> Path:
        """The file that asks the workers of one sender to stop."""
        return self.path / _CLAIMS / f"stop-{token}"

    # The whole

    def status(self, *, verify: bool = False, younger_than: float = STALE) -> Status:
        """How far the run is: from the names of files alone, or with every tile verified."""
        return status_of(self, verify=verify, younger_than=younger_than)

    def clean_up(self) -> int:
        """See to what processes left behind that are no more; returns how many temporary files of theirs there were.

        Of temporary files, those of dead processes or a day old, a whole tile gets its name and all others are removed.
        So are claims that no longer count, and the lanes on their way of tiles that are finished.
        """
        inside = [f for name in (_TILES, _CARRY, _LANES) for f in places.folders(self.files, self.path / name)]
        left = [path for folder in (self.path, *inside) for path in places.left_behind(self.files, folder)]
        for path in left:
            with contextlib.suppress(OSError):
                self._adopt(path)
            with contextlib.suppress(OSError):
                self.files.unlink(path)
        for block in self.carries():
            if self._tile_path(self.partition.tile_of_block(block)).exists():
                self.remove_carry(block)
        for first, claim in self.claims().items():
            if not claim.is_live():
                self.release(first)
        return len(left)

    def _adopt(self, temporary: Path) -> None:
        """Give a tile its name if that is what a temporary file is, and nobody else has."""
        tile = places.number_of(temporary)
        if tile is None or tile >= self.partition.tiles:
            return
        path = self._tile_path(tile)
        if temporary.parent != path.parent or path.exists():
            return
        with contextlib.suppress(StoreError):
            self._read(temporary, self._about("tile", tile), self._like(tile))
            give_name(self.files, temporary, path)

    def _like(self, tile: int) -> dict[str, Kind]:
        rows = self.partition.rows(tile)
        return {name: Kind(kind.dtype, (rows, *kind.shape)) for name, kind in self.manifest.columns.items()}

    def _about(self, kind: str, number: int) -> dict[str, Any]:
        return {"format": _FORMAT, "kind": kind, "number": int(number), "run": self.run}

    def _read(self, path: Path, about: Mapping[str, Any], like: Mapping[str, Kind] | None) -> tuple[dict, dict]:
        try:
            said, found = arrays.read(self.files, path, like)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise failed("it cannot be read", path, error) from error
        for part, value in about.items():
            if said.get(part) != value:
                raise arrays.damaged(path, f"its {part} is {said.get(part)!r:.80} and should be {value!r}")
        return said, found

    def _mark(self, path: Path) -> None:
        """Make a file of no content, kept once a tile beside it is: both names are synced with their folder."""
        with _refused("it cannot be made", path), contextlib.suppress(FileExistsError):
            self._folder(path.parent)
            self.files.close(self.files.create(path))

    def _folder(self, path: Path) -> None:
        if path not in self.made:
            make_folder(self.files, path)
            self.made.add(path)

    def _tile_path(self, tile: int) -> Path:
        return places.place(self.path / _TILES, "tile", tile, self.partition.tiles)

    def _carry_path(self, block: int, last: bool = False) -> Path:
        return places.place(self.path / (_LANES if last else _CARRY), "block", block, self.partition.blocks)

    def _claim_path(self, tile: int) -> Path:
        return claims.place(self.path / _CLAIMS, tile, self.partition.tiles)


@contextlib.contextmanager
def _refused(what: str, path: Path) -> Generator[None]:
    """Says of what the system refuses within what it was for."""
    try:
        yield
    except OSError as error:
        raise failed(what, path, error) from error


def _shapes(about: Mapping[str, Any]) -> tuple[tuple[int, int], ...]:
    """What a tile's file says of blocks that ran smaller."""
    said = about.get("narrower")
    shapes = said if isinstance(said, list) else []
    return tuple((s[0], s[1]) for s in shapes if isinstance(s, list) and list(map(type, s)) == [int, int])


def _fits(files: Files, path: Path, run: str) -> bool:
    """Whether a manifest is missing, and would be right for the tiles that are there without one, if any are."""
    tile = next(places.numbers(files, path / _TILES), None)
    if tile is None:
        return True
    if (path / manifest.NAME).exists():  # another process was faster
        return False
    said, _ = arrays.read(files, places.place(path / _TILES, "tile", tile, tile + 1), only=())
    if said.get("run") != run:
        raise _orphaned(path)
    return True


def _orphaned(path: Path) -> StoreError:
    remedy = (
        "Run with the same config, plan and version again: it is made anew if it fits them. Or name another directory"
    )
    return StoreError(f"{path / manifest.NAME}: it is missing, and tiles cannot be read without it. {remedy}.")
