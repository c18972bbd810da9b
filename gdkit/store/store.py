"""Store: the files of a run directory, opened, read and written."""

import contextlib
import os
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from gdkit.errors import DamagedFileError, OtherRunError, StoreError, bad_value
from gdkit.store import arrays, claims, lists, manifest, paths
from gdkit.store.arrays import Kind
from gdkit.store.claims import STALE, Claim
from gdkit.store.columns import Columns, lazy_columns, read_columns
from gdkit.store.files import FILES, Files, failed, give_name, make_folder, publish, publish_output, write_temporary
from gdkit.store.manifest import Manifest, differences
from gdkit.store.partition import Partition
from gdkit.store.status import Status, read_status

if TYPE_CHECKING:
    import xarray as xr

_TILES, _CARRY, _LANES, _CLAIMS = "tiles", "carry", "lanes", "claims"
_TIMINGS = "timings"
_FORMAT = 1  # of tiles and carries


class StoredTile(NamedTuple):
    """The content of a tile's file."""

    columns: dict[str, np.ndarray]  # name -> (rows, ...), read-only
    narrower: tuple[tuple[int, int], ...]  # width and depth of blocks that ran smaller than planned


class StoredCarry(NamedTuple):
    """The lanes of a block at a step."""

    step: int
    leaves: list[np.ndarray]


class Store(NamedTuple):
    """A run directory, and the manifest that it was opened with."""

    path: Path
    manifest: Manifest
    run: str  # the manifest's digest
    files: Files
    made: set[Path]  # folders that this process has created

    @classmethod
    def create(cls, path: str | os.PathLike[str], wanted: Manifest, *, files: Files = FILES) -> Self:
        """Open the run directory of a run, and create it if it does not exist.

        The first process writes the manifest; the others read plan and partition from it.

        Raises:
          OtherRunError: the directory holds a run with another fingerprint.
          StoreError: the directory cannot be created or read.
          InputValueError: the manifest holds a value that cannot be stored.
        """
        path, (text, long) = Path(path), manifest.encode_manifest(wanted)
        target = path / manifest.NAME
        try:
            if not target.exists():
                path.mkdir(parents=True, exist_ok=True)
                for folder in (path, path / _TILES, path / _CARRY, path / _LANES, path / _CLAIMS):
                    make_folder(files, folder)
                if _can_create(files, path, wanted.run):
                    lists.write_lists(files, path, long)  # first, so that no manifest names a missing file
                    with contextlib.suppress(FileExistsError):
                        publish(files, target, [text], exclusive=True)
        except OSError as error:
            raise failed("the manifest cannot be written", target, error) from error
        store = cls.open(path, files=files)
        lines = differences(store.manifest.fingerprint, wanted.fingerprint)
        if lines:
            raise OtherRunError(path, lines)
        return store

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, files: Files = FILES) -> Self:
        """Open a run directory that exists.

        Raises:
          StoreError: there is none, or its manifest is damaged or of another format.
        """
        path = Path(path)
        try:
            stored = manifest.read_manifest(files, path / manifest.NAME)
        except FileNotFoundError as error:
            if next(paths.list_numbers(files, path / _TILES), None) is not None:
                raise _no_manifest_error(path) from error
            raise StoreError(
                f"{path}: no run is stored here. Name a directory that `gdkit run` or sweep(store=...) has written."
            ) from error
        except OSError as error:
            raise failed("the manifest cannot be read", path / manifest.NAME, error) from error
        return cls(path, stored, stored.run, files, set())

    @property
    def partition(self) -> Partition:
        """The lanes of each tile."""
        return self.manifest.partition

    # Tiles

    def put_tile(
        self, tile: int, columns: Mapping[str, np.ndarray], narrower: Collection[tuple[int, int]] = ()
    ) -> bool:
        """Store a tile.

        Args:
          tile: its number.
          columns: name -> ``(rows, ...)``, the values that its lanes report, in the order of `Partition.lanes_of`.
          narrower: width and depth of its blocks that ran smaller than planned, for lack of memory. The tile's file
            lists them, and an empty file beside it marks the tile.

        Returns:
          False if the tile was stored before and is whole: then it stays as it is.

        Raises:
          InputValueError: the columns are not those of the manifest.
          StoreError: the system refused; the tile is as before.
        """
        unnamed = self.write_tile(tile, columns, narrower)
        if unnamed is not None:
            self.name_tile(tile, unnamed)
        return unnamed is not None

    def write_tile(
        self, tile: int, columns: Mapping[str, np.ndarray], narrower: Collection[tuple[int, int]] = ()
    ) -> Path | None:
        """The first half of `put_tile`, which does not wait for the disk: write the tile under a temporary name.

        Returns None if the tile was stored before. Where a process is killed before `name_tile`, the second half,
        `clean_up` does it later.
        """
        path, like = self._tile_path(tile), self._tile_kinds(tile)
        if columns.keys() != like.keys():
            names = ", ".join(sorted(columns.keys() ^ like.keys()))
            raise bad_value("columns", names, "not the names in the manifest", "Pass every column, and no others")
        for name, kind in like.items():
            given = Kind(columns[name].dtype.name, columns[name].shape)
            if given != kind:
                raise bad_value(f"columns[{name!r}]", tuple(given), "not as the manifest says", f"Pass {tuple(kind)}")
        if path.exists():
            with contextlib.suppress(DamagedFileError):
                self.read_tile(tile)
                return None
        about = self._about("tile", tile)
        if narrower:
            about["narrower"] = sorted(narrower)
            self._make_marker(path.with_suffix(paths.NARROWER))
        with _store_errors(f"tile {tile} cannot be written", path):
            self._make_folder(path.parent)
            return write_temporary(self.files, path, arrays.pack_arrays(about, columns))

    def name_tile(self, tile: int, unnamed: Path) -> None:
        """The second half, which waits for the disk: sync the file of `write_tile`, and give it the tile's name."""
        path = self._tile_path(tile)
        with _store_errors(f"tile {tile} cannot be written", path):
            give_name(self.files, unnamed, path)

    def tile(self, tile: int, columns: Iterable[str] | None = None) -> dict[str, np.ndarray]:
        """A tile's columns, read-only, verified against its checksum.

        Raises:
          DamagedFileError: the file is not what was written; the message says what is wrong.
          StoreError: the tile is not stored, or the system refused.
        """
        stored = self.read_tile(tile).columns
        return stored if columns is None else {name: stored[name] for name in columns}

    def read_tile(self, tile: int) -> StoredTile:
        """The whole content of a tile's file; raises as `tile`."""
        path = self._tile_path(tile)
        try:
            about, columns = self._read(path, self._about("tile", tile), self._tile_kinds(tile))
        except FileNotFoundError as error:
            raise StoreError(f"{path}: tile {tile} is not finished. Run the same command again to resume.") from error
        return StoredTile(columns, _parse_narrower(about))

    def narrower(self) -> dict[int, tuple[tuple[int, int], ...]]:
        """Tiles with blocks that ran smaller than planned, and their widths and depths. Reads these tiles."""
        marked = paths.list_numbers(self.files, self.path / _TILES, paths.NARROWER)
        narrower = {}
        for tile in sorted(number for number in marked if number < self.partition.tiles):
            with contextlib.suppress(StoreError):  # the tile is not stored yet, or damaged
                narrower[tile] = self.read_tile(tile).narrower
        return {tile: shapes for tile, shapes in narrower.items() if shapes}

    def finished(self) -> np.ndarray:
        """Mask of stored tiles, ``(tiles,)`` bool, by the names of files alone."""
        finished = np.zeros(self.partition.tiles, bool)
        numbers = np.fromiter(paths.list_numbers(self.files, self.path / _TILES), np.int64)
        finished[numbers[numbers < len(finished)]] = True
        return finished

    def columns(self, names: Sequence[str] | None = None) -> Columns:
        """The columns of all finished tiles, in memory."""
        return read_columns(self, names)

    def lazy_columns(self, names: Sequence[str] | None = None) -> "xr.Dataset":
        """An ``xarray.Dataset`` on the dimension ``lane`` that reads a tile when one of its lanes is indexed."""
        return lazy_columns(self, names)

    # Carries

    def put_carry(self, block: int, step: int, leaves: Sequence[np.ndarray], *, last: bool = False) -> None:
        """Store the lanes of a block at a step, in place of earlier ones. Those at the `last` step have their own file.

        Raises:
          InputTypeError: a leaf is not an array of numbers.
          StoreError: the system refused; the carry is as before.
        """
        plain, bits = arrays.encode_exotic(leaves)
        about = self._about("lanes" if last else "carry", block) | {"step": int(step), "bits": bits}
        pieces = arrays.pack_arrays(about, {f"leaf{i}": leaf for i, leaf in enumerate(plain)})
        path = self._carry_path(block, last)
        with _store_errors(f"the carry of block {block} cannot be written", path):
            self._make_folder(path.parent)
            publish(self.files, path, pieces, lasting=not last)

    def carry(self, block: int, like: Sequence[Any] | None = None, *, last: bool = False) -> StoredCarry | None:
        """The lanes of a block at the step that was stored most recently; None if none was.

        Args:
          block: its number in the run.
          like: shape and dtype that each leaf must have: anything with ``shape`` and ``dtype``. Without it a file of
            any size is read.
          last: whether to read the lanes at the run's last step.

        Raises:
          DamagedFileError: the file is not what was written, or its leaves are not `like` those.
          StoreError: the system refused.
        """
        path, kinds = self._carry_path(block, last), None
        if like is not None:
            kinds = {f"leaf{i}": Kind(arrays.stored_dtype(x.dtype), tuple(x.shape)) for i, x in enumerate(like)}
        try:
            about, stored = self._read(path, self._about("lanes" if last else "carry", block), kinds)
        except FileNotFoundError:
            return None
        try:
            leaves = arrays.decode_exotic([stored[f"leaf{i}"] for i in range(len(stored))], about["bits"])
        except (KeyError, TypeError, ValueError) as error:
            raise arrays.damage_error(path, f"{type(error).__name__}: {error}") from error
        step = about.get("step")
        if not isinstance(step, int):
            raise arrays.damage_error(path, "it has no step")
        for number, (leaf, wanted) in enumerate(zip(leaves, like or leaves, strict=True)):
            if leaf.dtype.name != np.dtype(wanted.dtype).name:
                raise arrays.damage_error(path, f"leaf {number} is {leaf.dtype} and should be {wanted.dtype}")
        return StoredCarry(step, leaves)

    def carry_leaves(self, block: int, numbers: Sequence[int]) -> list[np.ndarray] | None:
        """Some leaves of a block's checkpoint, read without verifying it; None where it is damaged or missing."""
        names, path = [f"leaf{number}" for number in numbers], self._carry_path(block)
        try:
            about, stored = arrays.read_arrays(self.files, path, only=names)
            bits = {str(i): about["bits"][str(n)] for i, n in enumerate(numbers) if str(n) in about["bits"]}
            leaves = arrays.decode_exotic([stored[name] for name in names], bits)
        except (OSError, DamagedFileError, KeyError, TypeError, ValueError):
            return None
        return leaves if about.get("run") == self.run else None

    def has_carry(self, block: int) -> bool:
        """Whether a block has a checkpoint."""
        return self._carry_path(block).exists()

    def carries(self) -> Iterator[int]:
        """The numbers of the blocks that have a checkpoint, by the names of files alone."""
        return (b for b in paths.list_numbers(self.files, self.path / _CARRY) if b < self.partition.blocks)

    def step(self, block: int, *, last: bool = False) -> int | None:
        """The step of a block's checkpoint, or of its lanes at the `last` step, without reading their leaves.

        None where the file is damaged or missing.
        """
        try:
            step = arrays.read_arrays(self.files, self._carry_path(block, last), only=())[0].get("step")
        except (OSError, DamagedFileError):
            return None
        return step if isinstance(step, int) else None

    def remove_carry(self, block: int) -> None:
        """Remove the checkpoint of a block."""
        with contextlib.suppress(OSError):
            self.files.unlink(self._carry_path(block))

    # Timings

    def put_timings(self, timings: Mapping[str, float]) -> None:
        """Store the seconds that the finished run took, which no tile holds.

        Raises:
          StoreError: the system refused.
        """
        pieces = arrays.pack_arrays(self._about(_TIMINGS, 0) | {"timings": dict(timings)}, {})
        publish_output(self._timings_path, pieces, files=self.files)

    def timings(self) -> dict[str, float] | None:
        """Seconds of the finished run by what they were spent on; None if they are not stored, or damaged."""
        try:
            timings = self._read(self._timings_path, self._about(_TIMINGS, 0), {})[0].get("timings")
        except (OSError, StoreError):
            return None
        return timings if isinstance(timings, dict) and "seconds" in timings else None

    # Claims

    def claim(self, tile: int, younger_than: float = STALE) -> bool:
        """Claim a tile, and those that share its claim, for this process; False if another process has claimed it."""
        return claims.take_claim(self.files, self._claim_path(tile), younger_than)

    def renew(self, tile: int) -> None:
        """Renew a claim, so that it does not become stale."""
        claims.renew_claim(self.files, self._claim_path(tile))

    def release(self, tile: int) -> None:
        """Release a claim."""
        claims.remove_claim(self.files, self._claim_path(tile))

    def claimed(self, tile: int, younger_than: float = STALE) -> bool:
        """Whether another process has a live claim on a tile."""
        claim = claims.read_claim(self.files, self._claim_path(tile))
        return claim is not None and not claim.is_mine and claim.is_live(younger_than)

    def tiles_of_claim(self, tile: int) -> range:
        """The tiles that share a claim with this one: only itself, unless the run has more than 10,000 tiles."""
        return claims.tiles_sharing_claim(tile, self.partition.tiles)

    def claims(self) -> dict[int, Claim]:
        """Every claim, by the first of its tiles."""
        firsts = claims.first_tiles(self.files, self.path / _CLAIMS, self.partition.tiles)
        by_tile = {first: claims.read_claim(self.files, self._claim_path(first)) for first in firsts}
        return {first: claim for first, claim in by_tile.items() if claim is not None}

    def stop_file(self, token: str) -> Path:
        """The file that tells the workers of one sweep to stop; `token` names the process that sent them."""
        return self.path / _CLAIMS / f"stop-{token}"

    # The directory

    def status(self, *, verify: bool = False) -> Status:
        """How many tiles and lanes are finished: by the names of files alone, or with every tile verified."""
        return read_status(self, verify=verify)

    def clean_up(self) -> int:
        """Clean up after processes that were killed; returns the number of their temporary files.

        Temporary files are left behind if their process is dead or they are a day old: a whole tile gets its name, all
        others are removed. Claims that are not live and checkpoints of finished tiles are removed too.
        """
        inside = [f for name in (_TILES, _CARRY, _LANES) for f in paths.list_folders(self.files, self.path / name)]
        left = [path for folder in (self.path, *inside) for path in paths.list_left_behind(self.files, folder)]
        for path in left:
            with contextlib.suppress(OSError):
                self._publish_left_tile(path)
            with contextlib.suppress(OSError):
                self.files.unlink(path)
        for block in self.carries():
            if self._tile_path(self.partition.tile_of_block(block)).exists():
                self.remove_carry(block)
        for first, claim in self.claims().items():
            if not claim.is_live():
                self.release(first)
        return len(left)

    def _publish_left_tile(self, temporary: Path) -> None:
        """Publish a temporary file if it is a whole tile that is not stored yet."""
        tile = paths.temporary_number(temporary)
        if tile is None or tile >= self.partition.tiles:
            return
        path = self._tile_path(tile)
        if temporary.parent != path.parent or path.exists():
            return
        with contextlib.suppress(StoreError):
            self._read(temporary, self._about("tile", tile), self._tile_kinds(tile))
            give_name(self.files, temporary, path)

    def _tile_kinds(self, tile: int) -> dict[str, Kind]:
        rows = self.partition.rows(tile)
        return {name: Kind(kind.dtype, (rows, *kind.shape)) for name, kind in self.manifest.columns.items()}

    def _about(self, kind: str, number: int) -> dict[str, Any]:
        return {"format": _FORMAT, "kind": kind, "number": int(number), "run": self.run}

    def _read(self, path: Path, about: Mapping[str, Any], like: Mapping[str, Kind] | None) -> tuple[dict, dict]:
        try:
            header, stored = arrays.read_arrays(self.files, path, like)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise failed("it cannot be read", path, error) from error
        for part, value in about.items():
            if header.get(part) != value:
                raise arrays.damage_error(path, f"its {part} is {header.get(part)!r:.80} and should be {value!r}")
        return header, stored

    def _make_marker(self, path: Path) -> None:
        """Create an empty file; its name is synced with that of the tile beside it, by their folder."""
        with _store_errors("it cannot be created", path), contextlib.suppress(FileExistsError):
            self._make_folder(path.parent)
            self.files.close(self.files.create(path))

    @property
    def _timings_path(self) -> Path:
        return self.path / f"{_TIMINGS}.npz"

    def _make_folder(self, path: Path) -> None:
        if path in self.made:
            return
        try:
            make_folder(self.files, path)
        except FileNotFoundError:
            if path.parent.exists():
                raise
            make_folder(self.files, path.parent)
            make_folder(self.files, path)
        self.made.add(path)

    def _tile_path(self, tile: int) -> Path:
        return paths.numbered_path(self.path / _TILES, "tile", tile, self.partition.tiles)

    def _carry_path(self, block: int, last: bool = False) -> Path:
        return paths.numbered_path(self.path / (_LANES if last else _CARRY), "block", block, self.partition.blocks)

    def _claim_path(self, tile: int) -> Path:
        return claims.claim_path(self.path / _CLAIMS, tile, self.partition.tiles)


@contextlib.contextmanager
def _store_errors(what: str, path: Path) -> Generator[None]:
    """Where the system refuses an operation, raise a `StoreError` that says what was attempted."""
    try:
        yield
    except OSError as error:
        raise failed(what, path, error) from error


def open_with_extensions(path: str | os.PathLike[str]) -> tuple[Store, ...]:
    """The run in a directory, and those that extend its axes, in the order in which they were run.

    Raises:
      StoreError: there is no run, or a manifest is damaged or of another format.
    """
    extensions = [folder for folder in paths.extension_folders(Path(path)) if (folder / manifest.NAME).exists()]
    return tuple(map(Store.open, (path, *extensions)))


def run_digest(run: Sequence[Store]) -> str:
    """The digest that files derived from a run carry: that of its manifest; with extensions, over those of all."""
    return run[0].run if len(run) == 1 else arrays.digest(*(part.run for part in run))


def _parse_narrower(about: Mapping[str, Any]) -> tuple[tuple[int, int], ...]:
    """Width and depth of the blocks that ran smaller than planned, as a tile's file lists them."""
    listed = about.get("narrower")
    shapes = listed if isinstance(listed, list) else []
    return tuple((s[0], s[1]) for s in shapes if isinstance(s, list) and list(map(type, s)) == [int, int])


def _can_create(files: Files, path: Path, run: str) -> bool:
    """Whether the manifest is missing and that of `run` fits the stored tiles, if there are any.

    Raises:
      StoreError: it does not.
    """
    tile = next(paths.list_numbers(files, path / _TILES), None)
    if tile is None:
        return True
    if (path / manifest.NAME).exists():  # another process was faster
        return False
    header, _ = arrays.read_arrays(files, paths.numbered_path(path / _TILES, "tile", tile, tile + 1), only=())
    if header.get("run") != run:
        raise _no_manifest_error(path)
    return True


def _no_manifest_error(path: Path) -> StoreError:
    remedy = (
        "Run again with the same config, plan and version, which writes it anew if it fits. Or name another directory"
    )
    return StoreError(f"{path / manifest.NAME}: it is missing, and the tiles cannot be read without it. {remedy}.")
