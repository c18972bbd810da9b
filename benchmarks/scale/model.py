"""Totals of a sweep of any size from constants per tile, byte and lane, and its first limits."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks.scale.measure import manifest_of
from gdkit.store import Partition, claims, paths

GIB = 2**30


class Linear(NamedTuple):
    """Seconds or bytes as a sum of a cost per tile and a cost per another unit."""

    per_tile: float
    each: float

    def of(self, tiles: float, count: float) -> float:
        """The total."""
        return self.per_tile * tiles + self.each * count


def fit_linear(rows: Sequence[tuple[float, float, float]]) -> Linear:
    """Fit rows of (tiles, count, measured) by least squares of relative errors; costs are not negative."""
    tiles, count, measured = map(np.asarray, zip(*rows, strict=True))
    inputs = np.stack([tiles, count], axis=1) / measured[:, None]
    best, error = (0.0, 0.0), np.inf
    for used in ([0, 1], [0], [1]):
        found = np.zeros(2)
        found[used] = np.linalg.lstsq(inputs[:, used], np.ones(len(measured)))[0]
        miss = float(np.sum((inputs @ found - 1) ** 2))
        if found.min() >= 0 and miss < error:
            best, error = (float(found[0]), float(found[1])), miss
    return Linear(*best)


class Constants(NamedTuple):
    """Costs of a sweep per unit of each kind."""

    write: Linear  # seconds, by tiles and bytes, of the processes that run tiles
    read: Linear  # seconds, by tiles and bytes, of one process
    verify: Linear
    file: Linear  # bytes, by tiles and bytes of numbers
    list: float  # seconds per tile
    deal: float  # seconds per tile, of the process that deals them
    prepare: float  # seconds per lane, of the process that deals tiles and of every worker
    prepared: float  # bytes of memory per lane, of the same processes
    lists: float  # bytes per lane and paired axis, in a file beside the manifest
    sent: float  # bytes per lane of a sweep that is sent to a worker
    tasks: Mapping[str, float]  # seconds per task, by engine
    open: Linear  # seconds, by tiles and lanes
    lane: int  # bytes of a lane's statistics
    curve: int  # bytes of a curve
    held: float  # bytes of memory per lane of an open result


def constants(found: Mapping[str, Any]) -> Constants:
    """Constants from the measurements."""
    fit = lambda what: fit_linear([(s["tiles"], 48 * s["lanes"], s[what]) for s in found["stores"]])
    few, many, narrow, narrower = found["coordinators"]
    per_lane = lambda what: max(0.0, (many[what] - few[what]) / (many["lanes"] - few["lanes"]))
    listing = fit_linear([(0, row["tiles"], row["list"]) for row in found["listing"]])
    return Constants(
        write=fit("write"),
        read=fit("read"),
        verify=fit("verify"),
        file=fit("bytes"),
        list=listing.each,
        deal=(narrower["deal"] - narrow["deal"]) / (narrower["tiles"] - narrow["tiles"]),
        prepare=per_lane("prepare"),
        prepared=per_lane("peak"),
        lists=per_lane("lists"),
        sent=per_lane("sent"),
        tasks={engine: row["task"] for engine, row in found["tasks"].items()},
        open=fit_linear([(o["tiles"], o["lanes"], o["open"]) for o in found["openings"]]),
        lane=found["columns"]["bytes"],
        curve=found["columns"]["curve_bytes"],
        held=found["openings"][0]["peak"] / found["openings"][0]["lanes"],
    )


class Total(NamedTuple):
    """Totals of a sweep with `lanes` lanes in tiles of `rows`."""

    lanes: int
    rows: int
    tiles: int
    folders: int
    claims: int
    manifest: int  # bytes
    lists: float  # bytes, for each paired axis
    disk: float  # bytes, without curves
    curves: float  # bytes besides, with curves of 200 points
    write: float  # seconds of all workers together
    deal: float  # seconds of the coordinator
    tasks: dict[str, float]  # seconds of a scheduler
    prepare: float  # seconds of each process
    prepared: float  # bytes of memory of each process
    list: float  # seconds
    verify: float  # seconds
    read: float  # seconds
    open: float  # seconds
    held: float  # bytes of memory


def total(c: Constants, lanes: int, rows: int) -> Total:
    """Totals from the constants."""
    partition: Partition = manifest_of(lanes, rows).partition
    tiles, numbers = partition.tiles, lanes * c.lane
    return Total(
        lanes, rows, tiles,
        folders=-(-tiles // paths.PER_FOLDER),
        claims=-(-tiles // len(claims.tiles_sharing_claim(0, tiles))),
        manifest=_manifest_bytes(lanes, rows),
        lists=c.lists * lanes,
        disk=c.file.of(tiles, numbers),
        curves=c.file.each * lanes * c.curve,
        write=c.write.of(tiles, numbers),
        deal=c.deal * tiles,
        tasks={engine: task * tiles for engine, task in c.tasks.items()},
        prepare=c.prepare * lanes,
        prepared=c.prepared * lanes,
        list=c.list * tiles,
        verify=c.verify.of(tiles, numbers),
        read=c.read.of(tiles, numbers),
        open=c.open.of(tiles, lanes),
        held=c.held * lanes,
    )  # fmt: skip


def _manifest_bytes(lanes: int, rows: int) -> int:
    from gdkit.store import manifest

    return len(manifest.encode_manifest(manifest_of(lanes, rows))[0])


class Limit(NamedTuple):
    """A budget, and the number of lanes that reaches it."""

    what: str
    budget: str
    lanes: float
    remedy: str


def limits(c: Constants, rows: int) -> list[Limit]:
    """Number of lanes at which a sweep in tiles of `rows` lanes reaches each budget, the smallest first."""
    per_lane = lambda linear: linear.per_tile / rows + linear.each * c.lane
    until = lambda budget, each: budget / each if each else np.inf
    without = c.file.per_tile / rows + c.file.each * c.lane
    wide, apart = "`Plan(tile=…)`: more blocks per tile", "several sweeps, each of a part of the axes"
    found = [
        Limit("memory of `gdkit.open` and of the result that `sweep` returns", "16 GiB", until(16 * GIB, c.held),
              "`Store.open(…).lazy_columns()` reads the tiles of the requested lanes"),
        Limit("the same memory with curves of 200 points", "16 GiB", until(16 * GIB, c.held + c.curve),
              "`curve_points=0`, or `lazy_columns`"),
        Limit("points and axis values in the memory of each process", "16 GiB", until(16 * GIB, c.prepared), apart),
        Limit("a sweep's message to a worker of MPI, sent with every task", "16 MiB", until(2**24, c.sent),
              "process pools and Dask, which send it once per worker, or `--shard I/N`, which sends nothing"),
        Limit("tasks through the scheduler of Dask, one per tile", "10 minutes", until(600 * rows, c.tasks["Dask"]),
              f"{wide}; `--shard I/N`"),
        Limit("the coordinator's list of tiles", "1 minute", until(60 * rows, c.deal), wide),
        Limit("files that list in a few seconds", "10⁶ tiles", 1e6 * rows, wide),
        Limit("verifying existing tiles before resuming", "10 minutes", until(600, per_lane(c.verify)),
              f"{wide}; a disk that reads faster"),
        Limit("bytes on disk without curves", "1 TiB", until(2**40, without), apart),
        Limit("bytes on disk with curves", "1 TiB", until(2**40, without + c.file.each * c.curve),
              "`curve_points=0`, or fewer"),
        Limit("tiles that a manifest may have", "2²⁷ tiles", 2.0**27 * rows, wide),
        Limit("lanes that a manifest may have", "2⁴⁰ lanes", 2.0**40, apart),
    ]  # fmt: skip
    return sorted((x for x in found if x.lanes <= 2**40), key=lambda limit: limit.lanes)


class Prediction(NamedTuple):
    """A prediction and its measurement."""

    what: str
    predicted: float
    measured: float

    @property
    def factor(self) -> float:
        """Their ratio, at least 1."""
        least, most = sorted((self.measured, self.predicted))
        return most / least if least else np.inf


def compare(c: Constants, point: Mapping[str, float]) -> list[Prediction]:
    """Compare the model with an independent store of 12 statistics in single precision."""
    tiles, numbers = total(c, int(point["lanes"]), int(point["rows"])).tiles, 48 * point["lanes"]
    return [
        Prediction("bytes of its tiles", c.file.of(tiles, numbers), point["bytes"]),
        Prediction("seconds to write it", c.write.of(tiles, numbers), point["write"]),
        Prediction("seconds to verify it", c.verify.of(tiles, numbers), point["verify"]),
        Prediction("seconds to read all columns", c.read.of(tiles, numbers), point["read"]),
        Prediction("bytes of memory to do so", numbers, point["read_peak"]),
    ]
