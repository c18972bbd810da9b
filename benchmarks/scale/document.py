"""docs/scale.md, written from stored measurements."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.scale import model
from benchmarks.scale.measure import STATISTICS
from gdkit.store import STALE

LANES = (10**6, 10**7, 10**8, 10**9)
ROWS = (1024, 65_536)  # lanes per tile: one block of the largest width, and 64 blocks
FACTOR = 2.0  # largest ratio between the model and a measurement
SUPERSCRIPTS = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")

HEAD = """# Scale

Overhead of a sweep of {fewest} to {most} lanes besides its arithmetic, its first limits, and the settings that move
them. A program measured the constants, computed the totals, validated them with a store of {validated} lanes, and
wrote this page and `docs/scale.json` (`python -m benchmarks.scale`). Only the sizes and the budgets were typed.
"""


def page(found: Mapping[str, Any]) -> str:
    """Text of the page."""
    c = model.constants(found)
    validated = _power(found["validation"]["lanes"])
    head = HEAD.format(fewest=_power(LANES[0]), most=_power(LANES[-1]), validated=validated)
    parts = [head, *_targets(found), *_constants(found, c), *_totals(c), *_limits(c), *_validation(found, c)]
    return "\n".join(parts)


def targets(found: Mapping[str, Any]) -> list[tuple[str, str, float, float]]:
    """Targets: description, unit, upper bound, and measured number."""
    (writing,) = (s for s in found["stores"] if s["rows"] == 8192)
    opening, *_ = found["openings"]
    (listing,) = (row for row in found["listing"] if row["tiles"] == 10**6)
    return [
        (f"writing 10⁶ lanes × {STATISTICS} statistics", "s", 5, writing["write"]),
        ("memory for writing, besides the numbers", "MiB", 64, writing["write_peak"] / 2**20),
        (f"`gdkit.open` of 10⁶ lanes × {STATISTICS} statistics in a run directory", "s", 2, opening["open"]),
        ("`gdkit.open` of the same in a file", "s", 2, opening["open_file"]),
        ("opening them lazily", "s", 2, writing["lazy"]),
        ("reading one of these lanes", "s", 2, writing["one_lane"]),
        ("listing 10⁶ tiles", "s", 5, listing["list"]),
        ("`gdkit status` of 10⁶ tiles, whole command", "s", 5, listing["status"]),
    ]


def _targets(found: Mapping[str, Any]) -> Iterator[str]:
    yield "## Targets\n"
    rows = [(what, f"{most} {unit}", f"{value:.2g} {unit}", _yes(value <= most)) for what, unit, most, value in
            targets(found)]  # fmt: skip
    yield _table(("quantity", "at most", "measured", "holds"), rows)


def _constants(found: Mapping[str, Any], c: model.Constants) -> Iterator[str]:
    m, pool, dask = found["machine"], *(found["tasks"][name] for name in ("a process pool", "Dask"))
    statistics = found["columns"]["statistics"]
    sizes = ", ".join(f"{s['rows']:,}" for s in found["stores"])
    yield "## Constants\n"
    yield (f"On {m['cores']} cores with {_bytes(m['memory'])}, Python {m['python']}, JAX {m['jax']}, on a local disk "
           f"that is synced after every tile. Stores of 10⁶ lanes in tiles of {sizes} lanes give the cost per "
           "tile and per byte.\n")  # fmt: skip
    opened = "; ".join(
        f"{_time(o['open'])} for {o['lanes']:,} lanes in {o['tiles']:,} tiles" for o in found["openings"]
    )
    listed = "; ".join(f"{_time(row['status'])} for {row['tiles']:,} tiles" for row in found["listing"])
    looks = ", ".join(f"{_time(value)} for {int(n):,}" for n, value in found["looking"].items())
    rows = [
        ("write a tile", f"{_time(c.write.per_tile)} per tile, {_time(c.write.each * 2**20)} per MiB"),
        ("verify a tile", f"{_time(c.verify.per_tile)} per tile, {_time(c.verify.each * 2**20)} per MiB"),
        ("read all columns", f"{_time(c.read.per_tile)} per tile, {_time(c.read.each * 2**20)} per MiB"),
        ("bytes of a file", f"{c.file.per_tile:,.0f} per tile, {c.file.each:.4f} per byte of numbers"),
        ("`gdkit.open`", f"{_time(c.open.per_tile)} per tile, {_time(c.open.each * 1e6)} per million lanes"),
        ("`gdkit.open`, as measured", opened),
        ("`gdkit status`, from its start to its end, as measured", listed),
        ("find a tile by its name", f"{_time(c.list)} per tile"),
        ("bytes of a lane", f"{c.lane} in {statistics} statistics, and {c.curve} with a curve of 200 points"),
        ("prepare a million lanes, in each process", f"{_time(c.prepare * 1e6)}, {_bytes(c.prepared * 1e6)} of memory"),
        ("assign tiles", f"{_time(c.deal)} per tile"),
        ("a sweep sent to a worker", f"{_bytes(c.sent * 1e6)} per million values of an axis"),
        ("an axis beside the manifest", f"{c.lists:.2g} bytes per value"),
        ("an empty task through a process pool", f"{_time(pool['task'])}, {pool['message']} bytes besides the sweep"),
        ("an empty task through Dask", f"{_time(dask['task'])}, on the {dask['workers']} workers of one machine"),
        ("checking the running tasks", looks),
        ("start a worker: import, and make the problem", _time(found["worker"]["import"])),
        ("start a worker: trace, compile and run a block of a small network", _time(found["worker"]["cold"])),
        ("the same with JAX's compilation cache", _time(found["worker"]["warm"])),
        ("memory of an open result", f"{c.held:.0f} bytes per lane for {STATISTICS} statistics and one axis"),
    ]  # fmt: skip
    yield _table(("what", "takes"), rows)


def _totals(c: model.Constants) -> Iterator[str]:
    yield "## Totals\n"
    yield ("A scalar loss, the statistics that every sweep has, and one axis. Times to write are those of all workers "
           "together; to list, verify and read, of one process. Claims are temporary files; the table has the largest "
           f"number at one time, and each is renewed every {STALE / 4:.0f} s.\n")  # fmt: skip
    for rows in ROWS:
        yield f"### Tiles of {rows:,} lanes\n"
        found = [model.total(c, lanes, rows) for lanes in LANES]
        lines = [(what, *(show(t) for t in found)) for what, show in _SHOWN.items()]
        yield _table(("", *(f"{_power(lanes)} lanes" for lanes in LANES)), lines)


_SHOWN = {
    "tiles, one file each": lambda t: f"{t.tiles:,}",
    "folders": lambda t: f"{t.folders:,}",
    "claims, at most": lambda t: f"{t.claims:,}",
    "manifest": lambda t: _bytes(t.manifest),
    "list beside it, per paired axis": lambda t: _bytes(t.lists),
    "on disk": lambda t: _bytes(t.disk),
    "with curves of 200 points": lambda t: _bytes(t.disk + t.curves),
    "write": lambda t: _time(t.write),
    "tasks through a process pool": lambda t: _time(t.tasks["a process pool"]),
    "tasks through Dask": lambda t: _time(t.tasks["Dask"]),
    "assign tiles": lambda t: _time(t.deal),
    "prepare, in each process": lambda t: _time(t.prepare),
    "memory to prepare, in each process": lambda t: _bytes(t.prepared),
    "list": lambda t: _time(t.list),
    "verify before resuming": lambda t: _time(t.verify),
    "read all columns": lambda t: _time(t.read),
    "`gdkit.open`": lambda t: _time(t.open),
    "memory of an open result": lambda t: _bytes(t.held),
}


def _limits(c: model.Constants) -> Iterator[str]:
    yield "## First limits\n"
    yield ("The number of lanes at which a sweep reaches each budget, the first at the top. The memory of a sweep "
           "depends on its points and that of a result on its columns, not on the tiles.\n")  # fmt: skip
    for rows in ROWS:
        yield f"### Tiles of {rows:,} lanes\n"
        found = [(limit.what, limit.budget, _power(limit.lanes), limit.remedy) for limit in model.limits(c, rows)]
        yield _table(("limit", "budget", "reached at", "remedy"), found)
    yield _advice(c)


def _advice(c: model.Constants) -> str:
    first, *_ = model.limits(c, ROWS[0])
    times = ROWS[1] // ROWS[0]
    return f"""In short: up to {_power(first.lanes)} lanes no budget is reached and no setting is needed. A tile is
planned to take about one second, so it holds many blocks if lanes are short; if it is one block of {ROWS[0]:,}
lanes, `Plan(tile={times})` divides files, tasks and claims by {times}. Beyond that omit curves (`curve_points=0`),
read with `gdkit.store.Store.open(folder).lazy_columns()`, and distribute tiles with `--shard I/N`, which has no
coordinator. If the memory of a process is the limit, split the axes into several sweeps, each in its own
directory: their lanes are independent. The width of a block (`Plan(width=…)`) determines the speed and memory on
a device, and the bits; scale alone is no reason to change it.
"""


def _validation(found: Mapping[str, Any], c: model.Constants) -> Iterator[str]:
    point = found["validation"]
    rows = model.compare(c, point)
    yield "## Validation of the model\n"
    yield (f"A store of {_power(point['lanes'])} lanes × {STATISTICS} statistics in {point['tiles']:,} tiles, "
           f"independent of the constants, must agree within a factor of {FACTOR:g}. The store was listed in "
           f"{_time(point['list'])}, opened lazily in {_time(point['lazy'])}, and one lane was read in "
           f"{_time(point['one_lane'])}; writing it took {_bytes(point['write_peak'])} of memory.\n")  # fmt: skip
    shown = [
        (j.what, f"{j.predicted:.3g}", f"{j.measured:.3g}", f"{j.factor:.2f}", _yes(j.factor <= FACTOR)) for j in rows
    ]
    yield _table(("quantity", "predicted", "measured", "factor", "holds"), shown)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _yes(holds: bool) -> str:
    return "yes" if holds else "**no**"


def _bytes(size: float) -> str:
    for unit, factor in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size >= factor:
            return f"{size / factor:.3g} {unit}"
    return f"{size:.0f} bytes"


def _time(seconds: float) -> str:
    for unit, factor in (("h", 3600), ("min", 60), ("s", 1), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= factor or unit == "µs":
            break
    return f"{seconds / factor:.2g} {unit}" if seconds < 99 * factor else f"{seconds / factor:,.0f} {unit}"


def _power(value: float) -> str:
    digits, exponent = f"{value:.1e}".split("e")
    power = "10" + str(int(exponent)).translate(SUPERSCRIPTS)
    return power if digits == "1.0" else f"{digits} · {power}"
