"""The data that a report embeds, so that its figures, table and downloads need no other file."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.colors import to_hex

from gdkit.app.labels import labels_of
from gdkit.app.summary import MEANINGS, Summary, SummaryRow, results_by_optimizer
from gdkit.monitors import EndKind
from gdkit.plots import REGIME_MARKERS, SERIES_COLORS
from gdkit.plots.style import choose_scale
from gdkit.regimes import Regime
from gdkit.sweeps.result.result import SweepResult
from gdkit.sweeps.scoring.direction import is_maximized, maximized_names
from gdkit.sweeps.scoring.lane_values import EVALUATION, curve_names, end_values

TABLE_BYTES = 3_400_000  # of all lanes in the page; with figures and curves the page stays below 8 MB
_CURVE_BYTES = 1_800_000  # of all curves in the page
SHADES = 16  # colors of a ramp
LINES = 4  # patterns of dashes, which tell lines apart without color
STABILITY = ("sharpness", "preconditioned_sharpness", "multiplier", "lyapunov_exponent")
_TECHNICAL = (
    "_step",
    "_norm",
    "end_kind",
    "increases",
    "reversal",
    "late_predicted",
    "rounded_away",
    "reference_loss",
    "optimum",
    "time_to",
)
_ENDS = {
    EndKind.RUNNING: "still running",
    EndKind.STEPS: "completed",
    EndKind.NONFINITE: "loss not finite",
    EndKind.EXCEEDED: "loss out of bounds",
    EndKind.TARGET: "target reached",
    EndKind.STOPPED: "ended by a stopping rule",
}


class EmbeddedSweep(NamedTuple):
    """The lanes of one optimizer of one run."""

    label: str
    result: SweepResult  # of one optimizer
    best: int  # first lane of the best point
    score: float  # mean over the seeds of the best point; inf if all runs diverged, -inf if it is maximized
    theory: float | None  # critical learning rate times sharpness, where theory has a formula
    run: int = 0  # number of the run in a comparison


class SeriesStyle(NamedTuple):
    """How a line is drawn."""

    series: int  # index of its color
    dashed: bool  # whether an earlier line has the same color


def split_by_optimizer(
    result: SweepResult, summary: Summary, thresholds: Mapping[str, float] | None = None
) -> list[EmbeddedSweep]:
    """The optimizers with finished runs, in the order of the lanes; `thresholds` are the theory of each, by label."""
    parts = zip(results_by_optimizer(result).values(), summary.rows, strict=True)
    return [EmbeddedSweep(row.optimizer, one, _find_best(one, row), row.score, (thresholds or {}).get(row.optimizer))
            for one, row in parts]  # fmt: skip


def assign_styles(sweeps: Sequence[EmbeddedSweep]) -> list[SeriesStyle]:
    """One color per line; if there are too few, one per optimizer, with later runs dashed."""
    if len(sweeps) <= len(SERIES_COLORS) or sweeps[-1].run == 0:
        return [SeriesStyle(i, i >= len(SERIES_COLORS)) for i in range(len(sweeps))]
    labels = [sweep.result.grids[0].label for sweep in sweeps]
    distinct = list(dict.fromkeys(labels))
    return [SeriesStyle(distinct.index(label), sweep.run > 0) for sweep, label in zip(sweeps, labels, strict=True)]


def embed_sweeps(
    sweeps: Sequence[EmbeddedSweep],
    by: str,
    *,
    every: Mapping[str, int] | None = None,
    table_bytes: int = TABLE_BYTES,
) -> dict[str, Any]:
    """All data that the page's program reads, for `json.dumps`.

    Args:
      sweeps: of one run, or of several that are compared.
      by: the variable that points are compared by.
      every: steps between the values of each further recorded curve, ``NAME_curve``.
      table_bytes: budget of the lanes; above it, lanes at equal distances are embedded.
    """
    sizes = [sweep.result.lanes.sizes["lane"] for sweep in sweeps]
    limit = max(1, int(table_bytes * 3 / 4 / _count_lane_bytes(sweeps[0]) / len(sweeps)))
    grids = [_thin_grid(_get_shape(sweep), _find_best_indices(sweep), limit) for sweep in sweeps]
    rows = [_select_finished(sweep, grid) for sweep, grid in zip(sweeps, grids, strict=True)]
    before, starts = np.cumsum([0, *sizes]), np.cumsum([0, *map(len, rows)])
    columns = _collect_columns(sweeps, rows, before)
    axes = dict.fromkeys(name for sweep in sweeps for name in sweep.result.axes)
    kinds = _find_curves(sweeps, every or {})
    labels = labels_of([*columns, *axes, *kinds], sweeps[0].result.lanes.attrs)
    budget = _CURVE_BYTES // len(sweeps) // len(kinds)
    curves = [
        _embed_curves(sweep, what, steps, grid, own, int(start), budget)
        for what, steps in kinds.items()
        for sweep, grid, own, start in zip(sweeps, grids, rows, starts[:-1], strict=True)
    ]
    return {
        "lanes": sum(sweep.result.lanes.sizes["lane"] - sweep.result.missing for sweep in sweeps),
        "by": by,
        "axis": next((sweep.result.main_axis for sweep in sweeps if sweep.result.main_axis), None),
        "axes": {name: _embed_axis(columns[name]) for name in axes},
        "measures": _group_measures(columns, axes, by),
        "maximized": [name for name in columns if is_maximized(maximized_names(sweeps[0].result.lanes.attrs), name)],
        "optimizers": list(map(_embed_optimizer, sweeps, rows, starts[:-1].tolist(), assign_styles(sweeps))),
        "edges": _embed_edges(sweeps, rows),
        "labels": {name: [label.text, label.unit, label.description] for name, label in labels.items()},
        "columns": [_embed_column(name, values) for name, values in columns.items()],
        "curves": [curve for curve in curves if curve],
        "regimes": [_embed_regime(regime) for regime in Regime],
        "t95": _compute_t_quantiles(len(np.unique(columns["seed"]))),
        "ends": {int(kind): text for kind, text in _ENDS.items()},
    }


def color_ramps() -> dict[str, list[str]]:
    """Colors from a low to a high number, on a light and on a dark page."""
    colors = mpl.colormaps["viridis"]
    return {
        "light": [to_hex(colors(x)) for x in np.linspace(0, 0.87, SHADES)],
        "dark": [to_hex(colors(x)) for x in np.linspace(0.27, 1, SHADES)],
    }


# Lanes: their columns, and which of them are embedded


def _find_best(result: SweepResult, row: SummaryRow) -> int:
    """The first finished lane of the best point of an optimizer."""
    return next((lane for lane in row.lanes if result.finished[lane]), int(np.argmax(result.finished)))


def _count_lane_bytes(sweep: EmbeddedSweep) -> int:
    """Bytes of one lane's numbers and edges."""
    variables = sweep.result.lanes.variables.values()
    numbers = (v.dtype.itemsize for v in variables if v.dims == ("lane",) and v.dtype.kind != "U")
    return 4 * len(sweep.result.axes) + sum(numbers)


def _get_shape(sweep: EmbeddedSweep) -> tuple[int, ...]:
    """Sizes of the dimensions of the lanes, the seeds last."""
    return (*(size for _, _, size in sweep.result.grids[0].dimensions), sweep.result.seeds)


def _find_best_indices(sweep: EmbeddedSweep) -> tuple[int, ...]:
    """The index of the best point along each dimension."""
    return tuple(int(i) for i in np.unravel_index(sweep.best, _get_shape(sweep)))


def _thin_grid(shape: Sequence[int], best: Sequence[int], limit: int) -> list[np.ndarray]:
    """Indices along each dimension, at equal distances and with `best`, whose grid has about `limit` members."""
    sizes = list(shape)
    while np.prod(sizes, dtype=np.int64) > limit and max(sizes) > 1:
        longest = int(np.argmax(sizes))
        sizes[longest] = max(1, int(sizes[longest] * 0.98))
    even = [np.linspace(0, full - 1, size).round().astype(int) for full, size in zip(shape, sizes, strict=True)]
    return [np.union1d(places, place) for places, place in zip(even, best, strict=True)]


def _select_finished(sweep: EmbeddedSweep, grid: Sequence[np.ndarray]) -> np.ndarray:
    lanes = np.ravel_multi_index(np.ix_(*grid), _get_shape(sweep)).ravel()
    return lanes[sweep.result.finished[lanes]]


def _collect_columns(
    sweeps: Sequence[EmbeddedSweep], rows: Sequence[np.ndarray], before: np.ndarray
) -> dict[str, np.ndarray]:
    """Hyperparameters, regime and numbers, one row per lane; in the order of `SweepResult.to_dataframe`."""
    settings, outcomes = [], []
    for sweep, own, first in zip(sweeps, rows, before[:-1], strict=True):
        lanes = sweep.result.lanes
        label = {"optimizer": np.full(len(own), sweep.label)} if sweep.label else {}
        axes = {name: lanes[name].values[own] for name in sweep.result.axes}
        settings.append({"lane": (first + own).astype(np.int32)} | label | axes)
        variables = {str(n): v.values[own] for n, v in end_values(lanes).data_vars.items() if v.dims == ("lane",)}
        outcomes.append({"seed": lanes["seed"].values[own], "regime": sweep.result.lane_regimes[own]} | variables)
    return _concatenate_tables(settings) | _concatenate_tables(outcomes)


def _concatenate_tables(tables: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Tables one below the other; a column that a table lacks is NaN there, or an empty text."""
    names = dict.fromkeys(name for table in tables for name in table)
    lengths = [len(next(iter(table.values()))) for table in tables]
    return {name: _concatenate_columns([table.get(name) for table in tables], lengths) for name in names}


def _concatenate_columns(columns: Sequence[np.ndarray | None], lengths: Sequence[int]) -> np.ndarray:
    text = any(column is not None and column.dtype.kind not in "fiub" for column in columns)
    filled = [np.full(n, "" if text else np.nan) if c is None else c for c, n in zip(columns, lengths, strict=True)]
    return np.concatenate([column.astype(str) for column in filled] if text else filled)


# Edges of divergence


def _embed_edges(sweeps: Sequence[EmbeddedSweep], rows: Sequence[np.ndarray]) -> dict[str, str]:
    """The edge of divergence along each numeric axis, for every embedded lane at its values on the other axes.

    Computed from all lanes of the sweep: the median over seeds, NaN where it lies off the axis.
    """
    names = dict.fromkeys(name for sweep in sweeps for name, v in sweep.result.axes.items() if v.dtype.kind in "fiu")
    edges = lambda name: [_compute_edges(sweep, name)[own] for sweep, own in zip(sweeps, rows, strict=True)]
    return {name: _pack(np.concatenate(edges(name)).astype("<f4")) for name in names}


def _compute_edges(sweep: EmbeddedSweep, axis: str) -> np.ndarray:
    """The edge along an axis at every lane's values on the other axes, (lanes,).

    Of a seed it is the geometric mean of the smallest value that diverged and of the largest finished one below it.
    """
    result, shape = sweep.result, _get_shape(sweep)
    dimension = next((i for i, (_, axes, _) in enumerate(result.grids[0].dimensions) if axis in axes), None)
    if dimension is None:
        return np.full(result.lanes.sizes["lane"], np.nan)
    values, finished = result.lanes[axis].values.astype(float).reshape(shape), result.finished.reshape(shape)
    diverged = (result.lane_regimes == Regime.DIVERGED).reshape(shape)
    high = values.min(axis=dimension, where=diverged, initial=np.inf, keepdims=True)
    low = values.max(axis=dimension, where=finished & (values < high), initial=0.0, keepdims=True)
    with np.errstate(invalid="ignore"):
        median = np.median(np.where(np.isinf(high), np.inf, np.sqrt(low * high)), axis=-1, keepdims=True)
    return np.broadcast_to(np.where(np.isfinite(median) & (median > 0), median, np.nan), shape).ravel()


# Curves


def _find_curves(sweeps: Sequence[EmbeddedSweep], every: Mapping[str, int]) -> dict[str, np.ndarray | None]:
    """The steps of each recorded curve, by its name; None for those whose steps each sweep records.

    These are the loss, and the values on validation data along the run.
    """
    along = [name for sweep in sweeps for name in curve_names(sweep.result.lanes) if _is_evaluated(sweep, name)]
    is_recorded = lambda name: any(f"{name}_curve" in sweep.result.lanes for sweep in sweeps)
    length = lambda name: max(s.result.lanes.get(f"{name}_curve", np.zeros((1, 0))).shape[1] for s in sweeps)
    return dict.fromkeys(["loss", *along]) | {
        name: n * np.arange(length(name)) for name, n in every.items() if is_recorded(name)
    }


def _embed_curves(
    sweep: EmbeddedSweep,
    what: str,
    steps: np.ndarray | None,
    grid: list[np.ndarray],
    rows: np.ndarray,
    start: int,
    budget: int,
) -> dict[str, Any] | None:
    """Curves of as many of the embedded lanes as `budget` bytes hold; a curve ends where its lane does."""
    lanes = sweep.result.lanes
    is_evaluated = _is_evaluated(sweep, what)
    name = what if is_evaluated else "curve_loss" if steps is None else f"{what}_curve"
    if name not in lanes:
        return None
    steps = lanes["evaluation_step" if is_evaluated else "curve_step"].values if steps is None else steps
    best = [int(np.searchsorted(places, i)) for places, i in zip(grid, _find_best_indices(sweep), strict=True)]
    sizes = [len(places) for places in grid]
    thinned = _thin_grid(sizes, best, max(1, int(budget * 3 / 4 / 4 / len(steps))))
    chosen = _select_finished(sweep, [places[kept] for places, kept in zip(grid, thinned, strict=True)])
    places = (start + np.searchsorted(rows, chosen)).astype("<i4")
    values = lanes[name].values[chosen].astype("<f4")
    if is_evaluated:  # the last place of a lane that ended earlier has its value at its end
        values[lanes["end_step"].values[chosen] < steps[-1], -1] = np.nan
    return {"what": what, "steps": steps.tolist(), "rows": _pack(places), "values": _pack(values)}


def _is_evaluated(sweep: EmbeddedSweep, name: str) -> bool:
    """Whether a value has been evaluated along the run."""
    return name in sweep.result.lanes and EVALUATION in sweep.result.lanes[name].dims


# Parts of the embedded data


def _compute_t_quantiles(seeds: int) -> list[float]:
    """The 97.5 % quantiles of Student's t for means of 2 to `seeds` values."""
    from scipy.special import stdtrit  # its import takes a tenth of that of gdkit

    return stdtrit(np.arange(1, seeds), 0.975).round(4).tolist()


def _embed_optimizer(sweep: EmbeddedSweep, rows: np.ndarray, start: int, look: SeriesStyle) -> dict[str, Any]:
    return {
        "label": sweep.label,
        "look": f"c{look.series % len(SERIES_COLORS)} l{(look.series + 2 * look.dashed) % LINES}",
        "start": start,
        "count": len(rows),
        "dimensions": [list(names) for _, names, _ in sweep.result.grids[0].dimensions],
        "best": start + int(np.searchsorted(rows, sweep.best)),
        "score": sweep.score if np.isfinite(sweep.score) else None,
        "theory": sweep.theory,
    }


def _embed_axis(values: np.ndarray) -> dict[str, Any]:
    numeric = values.dtype.kind in "fiu"
    finite = values[np.isfinite(values)] if numeric else values
    return {"numeric": numeric, "scale": choose_scale(finite) if numeric else "text"}


def _group_measures(columns: Mapping[str, np.ndarray], axes: Mapping[str, Any], by: str) -> dict[str, list[str]]:
    """Names of the columns that can be drawn, by kind."""
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
    return {kind: members for kind, members in kinds.items() if members}


def _embed_column(name: str, values: np.ndarray) -> dict[str, Any]:
    """The exact numbers of a column as bytes; texts and regimes as codes with their texts."""
    texts = None
    if name == "regime":
        kind, texts = "u1", [regime.name for regime in Regime]
    elif values.dtype.kind not in "fiu":
        distinct, values = np.unique(values.astype(str), return_inverse=True)
        kind, texts = ("u1" if len(distinct) < 256 else "i4"), distinct.tolist()
    else:
        kind = _choose_type(values)
    column = {"name": name, "type": kind, "data": _pack(values.astype(f"<{kind}"))}
    return column if texts is None else column | {"texts": texts}


def _choose_type(values: np.ndarray) -> str:
    """The smallest type that holds the numbers exactly."""
    if values.dtype.kind == "f":
        return "f4" if values.dtype.itemsize <= 4 else "f8"
    return "i4" if np.abs(values.astype(np.int64)).max(initial=0) < 2**31 else "f8"


def _pack(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode("ascii")


def _embed_regime(regime: Regime) -> dict[str, str]:
    marker = REGIME_MARKERS[regime]
    shape = marker if isinstance(marker, str) else "_"
    return {"name": regime.name.lower(), "meaning": MEANINGS[regime], "marker": shape}
