"""What a report embeds of a sweep, so that its figures, its table and its downloads need no other file."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.colors import to_hex

from gdkit.app.summary import MEANINGS, begun, words
from gdkit.monitors import EndKind
from gdkit.plots import REGIME_MARKERS, SERIES_COLORS, SERIES_MARKERS
from gdkit.plots.style import scale_of
from gdkit.regimes import Regime
from gdkit.sweeps.result.result import SweepResult

TABLE_BYTES = 3_400_000  # of all lanes' numbers in the page; with figures and curves it stays below 8 MB
CURVE_BYTES = 1_800_000
SHADES = 16  # of the colours that tell a number
STABILITY = ("sharpness", "preconditioned_sharpness", "multiplier", "lyapunov_exponent")
_TECHNICAL = (
    "_step",
    "_norm",
    "end_kind",
    "increases",
    "reversal",
    "late_predicted",
    "reference_loss",
    "optimum",
    "time_to",
)
_TYPES = {"f4": "<f4", "f8": "<f8", "i4": "<i4", "u1": "u1"}


class EmbeddedSweep(NamedTuple):
    """The lanes of one optimizer of one run."""

    label: str
    result: SweepResult  # of one form
    best: int  # the first lane of the best point
    score: float  # of the best point, the mean over its seeds; infinite where all diverged
    theory: float | None  # critical learning rate times sharpness, where theory has a formula
    run: int = 0  # of those that are compared


class Look(NamedTuple):
    """How a part is told from others."""

    series: int  # the number of its colour and its marker
    later: bool  # dashed, with hollow marks: another has this colour too


def parts_of(result: SweepResult, by: str, theory: Mapping[str, float] | None = None) -> list[EmbeddedSweep]:
    """The optimizers of a result of which runs have ended, in the order of its lanes."""
    return [
        EmbeddedSweep(label, one, *_best(one, by), (theory or {}).get(label)) for label, one in begun(result).items()
    ]


def looks_of(parts: Sequence[EmbeddedSweep]) -> list[Look]:
    """A colour for each; where there are not enough, one for each optimizer, and later runs of it dashed."""
    if len(parts) <= len(SERIES_COLORS) or parts[-1].run == 0:
        return [Look(i, i >= len(SERIES_COLORS)) for i in range(len(parts))]
    labels = [part.result.grids[0].label for part in parts]
    known = list(dict.fromkeys(labels))
    return [Look(known.index(label), part.run > 0) for part, label in zip(parts, labels, strict=True)]


def content(
    parts: Sequence[EmbeddedSweep],
    by: str,
    *,
    every: Mapping[str, int] | None = None,
    table_bytes: int = TABLE_BYTES,
    curve_bytes: int = CURVE_BYTES,
) -> dict[str, Any]:
    """Everything that the page's program reads, for `json.dumps`.

    Args:
      parts: of one run, or of several that are compared.
      by: the variable that is to be small.
      every: of each further curve that was recorded, ``NAME_curve``, the steps from one value to the next.
      table_bytes: where the lanes take more, some at equal distances stand for all.
      curve_bytes: the same for curves.
    """
    sizes = [part.result.lanes.sizes["lane"] for part in parts]
    limit = max(1, int(table_bytes * 3 / 4 / _width(parts[0]) / len(parts)))
    grids = [_picks(_sizes(part), _place(part), limit) for part in parts]
    rows = [_ended(part, _rows(_sizes(part), grid)) for part, grid in zip(parts, grids, strict=True)]
    before, starts = np.cumsum([0, *sizes]), np.cumsum([0, *map(len, rows)])
    columns = _columns(parts, rows, before)
    axes = dict.fromkeys(name for part in parts for name in part.result.axes)
    kinds = _curve_kinds(parts, every or {})
    curves = [
        _curves(part, what, steps, grid, mine, int(start), curve_bytes // len(parts) // len(kinds))
        for what, steps in kinds.items()
        for part, grid, mine, start in zip(parts, grids, rows, starts[:-1], strict=True)
    ]
    return {
        "lanes": sum(part.result.lanes.sizes["lane"] - part.result.missing for part in parts),
        "by": by,
        "axis": next((part.result.main_axis for part in parts if part.result.main_axis), None),
        "axes": {name: _axis(columns[name]) for name in axes},
        "measures": _measures(columns, axes, by),
        "optimizers": list(map(_optimizer, parts, rows, starts[:-1].tolist(), looks_of(parts))),
        "edges": _edges(parts, rows),
        "columns": [_column(name, values) for name, values in columns.items()],
        "curves": [curve for curve in curves if curve],
        "regimes": [_regime(regime) for regime in Regime],
        "ends": {int(kind): text for kind, text in _ENDS.items()},
    }


def shades() -> dict[str, list[str]]:
    """Colours from a low to a high number, on a light and on a dark page."""
    colors = mpl.colormaps["viridis"]
    return {
        "light": [to_hex(colors(x)) for x in np.linspace(0, 0.87, SHADES)],
        "dark": [to_hex(colors(x)) for x in np.linspace(0.27, 1, SHADES)],
    }


_ENDS = {
    EndKind.RUNNING: "still running",
    EndKind.STEPS: "all its steps",
    EndKind.NONFINITE: "loss not finite",
    EndKind.EXCEEDED: "loss out of bounds",
    EndKind.TARGET: "target reached",
}


def _best(one: SweepResult, by: str) -> tuple[int, float]:
    """The first lane of the best point, which is the one that is recommended, and the mean score there."""
    best = one.best(by)
    same = one.lanes["end_kind"].values != EndKind.RUNNING
    ended = same.copy()
    for name in one.axes.keys() & best.hyperparameters.keys():
        same &= one.lanes[name].values == best.hyperparameters[name]
    return int(np.argmax(same if same.any() else ended)), best.score


def _width(part: EmbeddedSweep) -> int:
    """Bytes of one lane's numbers, its edges among them."""
    return 4 * len(part.result.axes) + sum(
        v.dtype.itemsize for v in part.result.lanes.variables.values() if v.dims == ("lane",) and v.dtype.kind != "U"
    )


def _columns(parts: Sequence[EmbeddedSweep], rows: Sequence[np.ndarray], before: np.ndarray) -> dict[str, np.ndarray]:
    """A row a lane: what it is, its regime, its numbers; in the order of `SweepResult.to_dataframe`."""
    named, judged = [], []
    for part, mine, first in zip(parts, rows, before[:-1], strict=True):
        lanes = part.result.lanes
        label = {"optimizer": np.full(len(mine), part.label)} if part.label else {}
        axes = {name: lanes[name].values[mine] for name in part.result.axes}
        named.append({"lane": (first + mine).astype(np.int32)} | label | axes)
        variables = {str(name): v.values[mine] for name, v in lanes.data_vars.items() if v.dims == ("lane",)}
        judged.append({"seed": lanes["seed"].values[mine], "regime": part.result.lane_regimes[mine]} | variables)
    return _joined(named) | _joined(judged)


def _joined(tables: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Tables one below the other; a column that one of them lacks is not a number there, or an empty text."""
    names = dict.fromkeys(name for table in tables for name in table)
    lengths = [len(next(iter(table.values()))) for table in tables]
    return {name: _stacked([table.get(name) for table in tables], lengths) for name in names}


def _stacked(columns: Sequence[np.ndarray | None], lengths: Sequence[int]) -> np.ndarray:
    text = any(column is not None and column.dtype.kind not in "fiub" for column in columns)
    filled = [np.full(n, "" if text else np.nan) if c is None else c for c, n in zip(columns, lengths, strict=True)]
    return np.concatenate([column.astype(str) for column in filled] if text else filled)


def _edges(parts: Sequence[EmbeddedSweep], rows: Sequence[np.ndarray]) -> dict[str, str]:
    """Where divergence begins along each numeric axis, at the place of each lane in the page on the other axes.

    By all lanes of the sweep: the median over seeds, NaN where it lies off the axis.
    """
    names = dict.fromkeys(name for part in parts for name, v in part.result.axes.items() if v.dtype.kind in "fiu")
    found = {name: [_edge_of(part, name)[mine] for part, mine in zip(parts, rows, strict=True)] for name in names}
    return {name: _packed(np.concatenate(edges).astype("<f4")) for name, edges in found.items()}


def _edge_of(part: EmbeddedSweep, axis: str) -> np.ndarray:
    """The edge along an axis at the place of every lane, (lanes,)."""
    result, sizes = part.result, _sizes(part)
    names = [own for _, own, _ in result.grids[0].dimensions]
    home = next((i for i, own in enumerate(names) if axis in own), None)
    if home is None:
        return np.full(result.lanes.sizes["lane"], np.nan)
    along = lambda values: np.moveaxis(values.reshape(sizes), home, -1)
    values = along(result.lanes[axis].values.astype(float))
    order = np.argsort(values, axis=-1, kind="stable")
    sort = lambda values: np.take_along_axis(values, order, axis=-1)
    lost = sort(along(result.lane_regimes == Regime.DIVERGED))
    ended = sort(along(result.lanes["end_kind"].values != EndKind.RUNNING))
    edges = _between(sort(values), lost, ended)  # one a seed, the last dimension but one now
    with np.errstate(invalid="ignore"):
        middle = np.median(edges, axis=-1, keepdims=True)
    middle = np.where(np.isfinite(middle) & (middle > 0), middle, np.nan)
    whole = np.broadcast_to(middle[..., None], values.shape)
    return np.moveaxis(whole, -1, home).ravel()


def _between(values: np.ndarray, lost: np.ndarray, ended: np.ndarray) -> np.ndarray:
    """The middle, on a log scale, of the first value that diverged and the one below it that has ended.

    Along the last dimension; infinite where none diverged, 0 where the smallest did.
    """
    first = np.argmax(lost, axis=-1)[..., None]
    places = np.where(ended, np.arange(values.shape[-1]), -1)
    below = np.take_along_axis(np.maximum.accumulate(places, axis=-1), np.maximum(first - 1, 0), axis=-1)
    below = np.where(first > 0, below, -1)
    low = np.where(below >= 0, np.take_along_axis(values, np.maximum(below, 0), axis=-1), 0.0)
    high = np.take_along_axis(values, first, axis=-1)
    edge = np.sqrt(np.maximum(low, 0.0) * high)
    return np.where(lost.any(axis=-1), edge[..., 0], np.inf)


def _sizes(part: EmbeddedSweep) -> tuple[int, ...]:
    return (*(size for _, _, size in part.result.grids[0].dimensions), part.result.seeds)


def _place(part: EmbeddedSweep) -> tuple[int, ...]:
    """The best point's place along each dimension."""
    return tuple(int(i) for i in np.unravel_index(part.best, _sizes(part)))


def _picks(sizes: Sequence[int], best: Sequence[int], limit: int) -> list[np.ndarray]:
    """Places along each dimension whose product has about `limit` members, at equal distances, the best among them."""
    kept = list(sizes)
    while np.prod(kept, dtype=np.int64) > limit and max(kept) > 1:
        longest = int(np.argmax(kept))
        kept[longest] = max(1, int(kept[longest] * 0.98))
    even = [np.linspace(0, n - 1, k).round().astype(int) for n, k in zip(sizes, kept, strict=True)]
    return [np.union1d(places, place) for places, place in zip(even, best, strict=True)]


def _rows(sizes: Sequence[int], picks: Sequence[np.ndarray]) -> np.ndarray:
    return np.ravel_multi_index(np.ix_(*picks), tuple(sizes)).ravel()


def _ended(part: EmbeddedSweep, rows: np.ndarray) -> np.ndarray:
    """Those of some lanes that have ended, of a run that goes on."""
    return rows[part.result.lanes["end_kind"].values[rows] != EndKind.RUNNING]


def _curve_kinds(parts: Sequence[EmbeddedSweep], every: Mapping[str, int]) -> dict[str, np.ndarray | None]:
    """Name of each curve that some part has -> its steps; None where every part has its own, as the loss does."""
    has = lambda name: any(f"{name}_curve" in part.result.lanes for part in parts)
    length = lambda name: max(p.result.lanes.get(f"{name}_curve", np.zeros((1, 0))).shape[1] for p in parts)
    return {"loss": None} | {name: n * np.arange(length(name)) for name, n in every.items() if has(name)}


def _curves(
    part: EmbeddedSweep,
    what: str,
    steps: np.ndarray | None,
    grid: list[np.ndarray],
    rows: np.ndarray,
    start: int,
    room: int,
) -> dict[str, Any] | None:
    """Curves of as many of these lanes as there is room for; a curve ends where its lane does."""
    lanes = part.result.lanes
    name = "curve_loss" if steps is None else f"{what}_curve"
    if name not in lanes:
        return None
    steps = lanes["curve_step"].values if steps is None else steps
    best = [int(np.searchsorted(places, i)) for places, i in zip(grid, _place(part), strict=True)]
    kept = [len(places) for places in grid]
    picked = _rows(kept, _picks(kept, best, max(1, int(room * 3 / 4 / 4 / len(steps)))))
    chosen = _ended(part, _rows(_sizes(part), grid)[picked])
    places = (start + np.searchsorted(rows, chosen)).astype("<i4")
    values = lanes[name].values[chosen].astype("<f4")
    return {"what": what, "steps": steps.tolist(), "rows": _packed(places), "values": _packed(values)}


def _optimizer(part: EmbeddedSweep, rows: np.ndarray, start: int, look: Look) -> dict[str, Any]:
    return {
        "label": part.label,
        "look": f"c{look.series % len(SERIES_COLORS)}" + (" later" if look.later else ""),
        "marker": SERIES_MARKERS[look.series % len(SERIES_MARKERS)],
        "start": start,
        "count": len(rows),
        "dimensions": [list(names) for _, names, _ in part.result.grids[0].dimensions],
        "best": start + int(np.searchsorted(rows, part.best)),
        "score": part.score if np.isfinite(part.score) else None,
        "theory": part.theory,
    }


def _axis(values: np.ndarray) -> dict[str, Any]:
    numeric = values.dtype.kind in "fiu"
    finite = values[np.isfinite(values)] if numeric else values
    return {"numeric": numeric, "scale": scale_of(finite) if numeric else "text"}


def _measures(columns: Mapping[str, np.ndarray], axes: Mapping[str, Any], by: str) -> dict[str, list[str]]:
    """Names of what can be drawn, by kind."""
    skipped = {"lane", "optimizer", "seed", "regime", *axes}
    names = [n for n, v in columns.items() if n not in skipped and v.dtype.kind in "fiu" and np.isfinite(v).any()]
    kinds: dict[str, list[str]] = {"validation": [], "test": [], "training": [], "stability": [], "about the run": []}
    for name in sorted(names, key=lambda n: (n != by, not n.endswith("loss"), not n.startswith("final"))):
        if name.startswith(STABILITY):
            kinds["stability"] += [] if name.endswith("_residual") else [name]
        elif name.startswith(("validation_", "test_")):
            kinds[name.partition("_")[0]].append(name)
        elif any(part in name for part in _TECHNICAL):
            kinds["about the run"] += [name] if name != "end_kind" else []
        else:
            kinds["training"].append(name)
    return {kind: found for kind, found in kinds.items() if found}


def _column(name: str, values: np.ndarray) -> dict[str, Any]:
    """A column's exact numbers, as bytes; texts and regimes as codes and what these say."""
    if name == "regime":
        texts = [regime.name for regime in Regime]
        return {"name": name, "words": name, "type": "u1", "data": _packed(values.astype("u1")), "texts": texts}
    if values.dtype.kind not in "fiu":
        texts, codes = np.unique(values.astype(str), return_inverse=True)
        kind = "u1" if len(texts) < 256 else "i4"
        packed = _packed(codes.astype(_TYPES[kind]))
        return {"name": name, "words": words(name), "type": kind, "data": packed, "texts": texts.tolist()}
    kind = _kind(values)
    return {"name": name, "words": words(name), "type": kind, "data": _packed(values.astype(_TYPES[kind]))}


def _kind(values: np.ndarray) -> str:
    if values.dtype.kind == "f":
        return "f4" if values.dtype.itemsize <= 4 else "f8"
    return "i4" if np.abs(values.astype(np.int64)).max(initial=0) < 2**31 else "f8"


def _packed(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode("ascii")


def _regime(regime: Regime) -> dict[str, str]:
    marker = REGIME_MARKERS[regime]
    shape = marker if isinstance(marker, str) else "_"
    return {"name": regime.name.lower(), "meaning": MEANINGS[regime], "marker": shape}
