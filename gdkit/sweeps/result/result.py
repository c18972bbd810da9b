"""SweepResult: what became of every lane, as labelled arrays, and the questions people ask of it."""

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import xarray as xr

from gdkit import checks, html, store
from gdkit.errors import bad_value, unknown_name
from gdkit.monitors import EndKind
from gdkit.regimes import DEFAULT_THRESHOLDS, Regime, Thresholds, Verdict, classify, least_loss
from gdkit.sweeps.description import Description, LaneGrid, read_grids
from gdkit.sweeps.result import optuna_study, trackers
from gdkit.sweeps.result.recommend import Recommendation, _bracket, _counted, _least, _means, _range, _recommend, _short


@dataclasses.dataclass(frozen=True)
class Best:
    """The point with the least mean score over its seeds."""

    hyperparameters: dict[str, Any]
    by: str
    score: float
    spread: float  # standard deviation over seeds
    lanes: xr.Dataset  # of this point, dimension lane: one a seed

    def mean(self, name: str) -> float:
        """Mean over seeds of a variable, for example ``test_accuracy``."""
        return float(self.lanes[name].mean())

    def __str__(self) -> str:
        at = [f"{name} {_short(v) if isinstance(v, float) else v}" for name, v in self.hyperparameters.items()]
        seeds = _counted(self.lanes.sizes["lane"], "seed")
        return f"{', '.join(at)}: {self.by} {_short(self.score)}, spread {_short(self.spread)} over {seeds}"

    _repr_html_ = html.printed


class Replay(NamedTuple):
    """A lane that was run again; prints as a table."""

    lane: int
    onset: int  # the step that was looked at
    watched: dict[str, np.ndarray]  # step, loss, and norm and update of each leaf of the params; (watched steps,)
    same: bool  # whether it ended with the same bits as before

    def __str__(self) -> str:
        names = list(self.watched)
        rows = [[f"{value:.4g}" for value in row] for row in zip(*self.watched.values(), strict=True)]
        widths = [max(map(len, column)) for column in zip(names, *rows, strict=True)]
        lines = [" | ".join(f"{cell:>{w}}" for cell, w in zip(row, widths, strict=True)) for row in (names, *rows)]
        ending = "It ended as before." if self.same else "It did not end as before."
        return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:], ending])

    _repr_html_ = html.printed


@dataclasses.dataclass(frozen=True, eq=False)
class SweepResult:
    """A sweep that has run: a row for every lane, diverged ones too.

    Attributes:
      lanes: every variable on the dimension ``lane``; curves also on ``point``.
      grids: the lanes of each optimizer as a product of axes.
      thresholds: where `regimes` part; changing them (`with_thresholds`) needs no new run.
      origin: what `extend` and `replay` need, in the process that ran the sweep.
    """

    lanes: xr.Dataset
    grids: tuple[LaneGrid, ...]
    thresholds: Thresholds = DEFAULT_THRESHOLDS
    origin: Any = None  # what lets its lanes go on; None where they were read from a file, or are a part

    regime_names: ClassVar[dict[int, str]] = {int(r): r.name for r in Regime}

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled: all that it tells. What can go on stays where it ran; `gdkit.open` finds it again."""
        return {"lanes": self.lanes, "grids": self.grids, "thresholds": self.thresholds, "origin": None}

    # Views

    @functools.cached_property
    def data(self) -> xr.Dataset:
        """The lanes as a product over the axes and ``seed``; on ``lane`` where optimizers have axes of their own."""
        return self._unstacked(self.lanes)

    @functools.cached_property
    def _verdict(self) -> Verdict:
        """The verdict on every lane, each array (lanes,); an unfinished lane counts as SLOW."""
        statistics = {str(n): v.values for n, v in self.lanes.data_vars.items() if v.dims == ("lane",)}
        stochastic = bool(self.lanes.attrs["stochastic"])
        optimum = self.lanes["reference_loss"].values if self.lanes.attrs["optimum_known"] else None
        verdict = classify(statistics | {"stochastic": stochastic}, optimum=optimum, thresholds=self.thresholds)
        return verdict._replace(regime=np.where(self._ended, verdict.regime, np.int8(Regime.SLOW)))

    @functools.cached_property
    def verdicts(self) -> xr.Dataset:
        """Regime, onset and evidence of every lane, shaped like `data`."""
        columns = {"regime": self._verdict.regime, "onset": self._verdict.onset} | self._verdict.evidence
        variables = {name: ("lane", np.broadcast_to(v, self.lanes.sizes["lane"])) for name, v in columns.items()}
        return self._unstacked(xr.Dataset(variables, self.lanes.coords))

    @property
    def regimes(self) -> xr.DataArray:
        """The code of the Regime of every lane, shaped like `data`."""
        return self.verdicts["regime"]

    @property
    def lane_regimes(self) -> np.ndarray:
        """The code of the Regime of every lane, in the order of `lanes`; (lanes,)."""
        return self._verdict.regime

    @property
    def optimizers(self) -> tuple[str, ...]:
        """Labels of the optimizer axis, if there is one."""
        return tuple(grid.label for grid in self.grids if grid.label is not None)

    @property
    def axes(self) -> dict[str, np.ndarray]:
        """Name to values of every axis; of all optimizers together."""
        names = dict.fromkeys(axis for grid in self.grids for _, axes, _ in grid.dimensions for axis in axes)
        return {name: _distinct(self.lanes[name].values) for name in names}

    @property
    def main_axis(self) -> str | None:
        """The axis that questions are about unless they say another: the learning rate, else the first of numbers."""
        numeric = [name for name, values in self.axes.items() if values.dtype.kind in "fiu"]
        return "learning_rate" if "learning_rate" in numeric else next(iter(numeric), None)

    @property
    def missing(self) -> int:
        """How many lanes have not ended, in a run that is not finished: NaN, and SLOW, that is not there yet."""
        return int(np.sum(~self._ended))

    @property
    def _ended(self) -> np.ndarray:
        return self.lanes["end_kind"].values != EndKind.RUNNING

    @property
    def plan(self) -> dict[str, Any]:
        """How the lanes were run: `Plan`'s fields as they were carried out, and by what they were ``chosen``.

        The width, depth, unroll and choice of several programs are lists, in their order.

        >>> from gdkit import problems, sgd, sweep
        >>> sweep(problems.parabola(), sgd, {"learning_rate": [0.1, 0.2]}, steps=3).plan["width"]
        1
        """
        return json.loads(self.lanes.attrs["plan"])

    @property
    def seeds(self) -> int:
        """Runs a point."""
        return int(self.lanes.attrs["seeds"])

    def select(self, *, optimizer: str) -> "SweepResult":
        """The lanes of one optimizer, as a product."""
        if optimizer not in self.optimizers:
            raise unknown_name("optimizer", optimizer, self.optimizers)
        grid = next(f for f in self.grids if f.label == optimizer)
        mine = self.lanes.isel(lane=self.lanes["optimizer"].values == optimizer)
        used = {axis for _, axes, _ in grid.dimensions for axis in axes}
        unused = [name for name in self.axes if name not in used]
        return dataclasses.replace(self, lanes=mine.drop_vars(unused), grids=(grid,), origin=None)

    def along(self, *axes: str, optimizer: str | None = None, at: Mapping[str, Any] | None = None) -> "SweepResult":
        """The lanes of one optimizer that vary along `axes` alone, as a sweep of its own.

        Args:
          axes: names of axes.
          optimizer: its label; by default that of the best lane.
          at: values of the other axes; by default those of the best point.
        """
        if len(self.grids) > 1:
            optimizer = optimizer or self.best().hyperparameters["optimizer"]
        if optimizer is not None and self.optimizers != (optimizer,):
            return self.select(optimizer=optimizer).along(*axes, at=at)
        for name in axes:
            if name not in self.axes:
                raise unknown_name("axis", name, self.axes)
        kept = tuple(dimension for dimension in self.grids[0].dimensions if set(axes) & set(dimension[1]))
        fixed = [name for name in self.axes if not any(name in names for _, names, _ in kept)]
        for name in at or {}:
            if name not in fixed:
                raise unknown_name("at", name, fixed)
        best = self.best()
        chosen = {name: best.lanes[name].values[0] for name in fixed} | dict(at or {})
        mine = np.ones(self.lanes.sizes["lane"], bool)
        for name, value in chosen.items():
            mine &= self.lanes[name].values == value
        if not mine.any():
            known = {name: self.axes[name].tolist() for name in chosen}
            raise bad_value("at", dict(at or {}), "the sweep has no such point", f"Choose from {known}")
        lanes = self.lanes.isel(lane=np.flatnonzero(mine))
        return dataclasses.replace(self, lanes=lanes, grids=(LaneGrid(self.grids[0].label, kept),), origin=None)

    def with_thresholds(self, **changes: float) -> "SweepResult":
        """The same lanes, judged by other thresholds."""
        return dataclasses.replace(self, thresholds=dataclasses.replace(self.thresholds, **changes))

    def curve(self, lane: int) -> tuple[np.ndarray, np.ndarray]:
        """Steps and losses of one lane up to its end, the last loss included; each ``(points,)``."""
        row = self.lanes.isel(lane=lane)
        end = int(row["end_step"])
        known = "curve_loss" in row
        steps = row["curve_step"].values if known else np.zeros(0, np.int32)
        losses = row["curve_loss"].values if known else np.zeros(0)
        before = steps < end
        return np.append(steps[before], end), np.append(losses[before], row["final_loss"].values)

    # Questions

    def edge(self, axis: str | None = None) -> xr.Dataset:
        """Where divergence begins along `axis` (by default `main_axis`), for each seed and every other axis.

        Variables: ``low``, the largest value below the first that diverged (0 if there is none); ``high``, the first
        that diverged (infinite if none did); ``edge`` between them, on a log scale; ``simple``, whether all above the
        edge diverged too; ``median``, of `edge` over seeds.
        """
        diverged = self._product("edge")["regime"] == Regime.DIVERGED
        axis = self._check_axis(axis, diverged)
        diverged = diverged.sortby(axis)
        ended = (self.data["end_kind"] != EndKind.RUNNING).sortby(axis)
        values = diverged[axis].values.astype(float)
        dimension = diverged[axis].dims[0]
        low, high, simple = xr.apply_ufunc(
            lambda diverged, ended: _bracket(values[ended], diverged[ended]),
            diverged,
            ended,
            input_core_dims=[[dimension], [dimension]],
            output_core_dims=[[], [], []],
            vectorize=True,
        )
        middle = xr.where((low > 0) & np.isfinite(high), np.sqrt(low * high), (low + high) / 2)
        found = xr.Dataset({"low": low, "high": high, "edge": xr.where(low > 0, middle, low), "simple": simple})
        return found.assign(median=found["edge"].median("seed"))

    def best(self, by: str | None = None, *, maximize: bool = False) -> Best:
        """The point with the best mean score over seeds; a diverged lane counts as the worst there is.

        Of several that rounding alone tells apart, the one in their middle on every axis, which `recommend` names too.

        Args:
          by: a variable; by default ``validation_loss`` if there is one, else ``final_loss``.
          maximize: whether more is better.
        """
        by = self.score_name(by)
        scores = self.scores(by, maximize).reshape(-1, self.seeds)
        mean = _means(scores, self._ended.reshape(scores.shape))
        point = self._centred(mean)
        rows = self.lanes.isel(lane=slice(point * self.seeds, (point + 1) * self.seeds))
        sign = -1 if maximize else 1
        names = [*self.axes, *(["optimizer"] if self.optimizers else [])]
        chosen = {name: _item(rows[name].values[0]) for name in names if name in rows.coords}
        chosen = {n: v for n, v in chosen.items() if v == v and v != ""}
        ended = rows["end_kind"].values != EndKind.RUNNING
        spread = float(np.std(scores[point][ended])) if np.isfinite(mean[point]) else float("inf")
        return Best(chosen, by, sign * float(mean[point]), spread, rows)

    def recommend(
        self, axis: str | None = None, *, by: str | None = None, plateau_share: float = 0.05
    ) -> Recommendation:
        """Which value of `axis` to use, at the best of everything else.

        Args:
          axis: a numeric axis, by default `main_axis`.
          by: the variable to be small; by default ``validation_loss`` if there is one, else ``final_loss``.
          plateau_share: what counts as about as good, as a share of the gap between the start and the best.
        """
        by = self.score_name(by)
        axis = self._check_axis(axis, self.lanes)
        best = self.best(by)
        others = {name: value for name, value in best.hyperparameters.items() if name not in (axis, "optimizer")}
        home = next(names for grid in self.grids for _, names, _ in grid.dimensions if axis in names)
        fixed = {name: value for name, value in others.items() if name not in home}
        one = self.along(axis, optimizer=best.hyperparameters.get("optimizer"), at=fixed)
        found = _recommend(one, axis, by, plateau_share, float(best.lanes[axis].values[0]), self._rounding())
        return dataclasses.replace(found, at={n: v for n, v in best.hyperparameters.items() if n != axis})

    # More of it

    def extend(self, steps: int, *, progress: Callable[[Any], None] | None = None) -> "SweepResult":
        """The same sweep with `steps` steps in all: lanes go on from where they stand, those that ended stay.

        The result is that of a sweep of so many steps, bit for bit on CPU.

        Raises:
          InputValueError: no more steps than before, a schedule that depends on how many there are in all, a part of a
            sweep, a result from disk without its code, or lanes that were too large to be kept.

        >>> from gdkit import problems, sgd, sweep
        >>> short = sweep(problems.parabola(), sgd, {"learning_rate": [0.01, 0.2]}, steps=20)
        >>> [int(step) for step in short.extend(50).lanes["end_step"]]
        [50, 50]
        """
        longer = self._origin().extend(steps, progress=progress)
        return dataclasses.replace(longer, thresholds=self.thresholds)

    def refine(
        self,
        axis: str | None = None,
        *,
        around: str | tuple[float, float] = "best",
        count: int = 8,
        progress: Callable[[Any], None] | None = None,
    ) -> "SweepResult":
        """The same sweep with more values of `axis`, by the program that is compiled already.

        The result is that of one sweep of all these values: on a CPU bit for bit that of one whose plan has the width
        of this one's blocks. Of several optimizers each gets values around its own best or edge. Every other axis is
        run as it was; those that are paired with `axis` stay as at the best point.

        Args:
          axis: an axis of lanes, by default `main_axis`.
          around: ``"best"``, between the neighbours of the best value, or as far beyond it at the end of the axis;
            ``"edge"``, between what diverged and what did not; or two values.
          count: values to add; spaced as the axis is, by ratio or by difference.
          progress: a callback, as in `sweep`.

        Raises:
          InputValueError, InputTypeError: an argument cannot be used; the edge is not on the axis; a result that
            cannot run again, as in `extend`.

        >>> from gdkit import problems, sgd, sweep
        >>> coarse = sweep(problems.parabola(), sgd, {"learning_rate": [0.01, 0.1, 1.2]}, steps=50)
        >>> fine = coarse.refine(around="edge", count=30)
        >>> bool(abs(fine.recommend().edge - 1.0) < 0.1)
        True
        """
        axis = self._check_axis(axis, self.lanes)
        return self._origin().refine(self, axis, around, count, progress)

    def replay(self, lane: int, *, around: int = 5) -> Replay:
        """Run one lane again and watch it step by step around the onset of its regime, or its end.

        Args:
          lane: its place on ``lane``.
          around: steps to either side of the onset.

        Raises:
          InputValueError: no such lane, or a result that cannot run again, as in `extend`.
        """
        if isinstance(lane, bool) or not isinstance(lane, int | np.integer) or not 0 <= lane < self.lanes.sizes["lane"]:
            raise bad_value("lane", lane, "no such lane", f"Pass 0 to {self.lanes.sizes['lane'] - 1}")
        checks.check_integer("around", around)
        onset = int(np.broadcast_to(self._verdict.onset, self.lanes.sizes["lane"])[lane])
        onset = onset if onset >= 0 else int(self.lanes["end_step"].values[lane])
        watched, end = self._origin().replay(int(lane), onset, around)
        row = self.lanes.isel(lane=lane)
        same = all(_same(row[name].values, value) for name, value in end.items() if name in row)
        return Replay(int(lane), onset, watched, same)

    def to_dataframe(self) -> Any:
        """A pandas DataFrame with a row a lane, its regime by name, without curves."""
        flat = self.lanes.drop_dims([dim for dim in self.lanes.dims if dim != "lane"])
        frame = flat.to_dataframe().reset_index(drop=True)
        names = [n for n in ("optimizer", *self.axes, "seed") if n in frame]
        frame.insert(0, "regime", [Regime(int(code)).name for code in self.lane_regimes])
        return frame[[*names, *(c for c in frame if c not in names)]]

    def to_optuna(self, study: Any = None, *, by: str | None = None, maximize: bool | None = None) -> Any:
        """An Optuna study with every lane that has ended as a complete trial.

        Axes of floats are float distributions, on a log scale where the values are evenly spaced on one; other axes
        and the optimizer are categorical. A trial has the hyperparameters that its optimizer has. Its value is
        min(loss, initial loss), which for a diverged lane is the initial loss (of what is no loss: the worst of a lane
        that did not diverge); its intermediate values are the recorded losses, as far as they are finite; its user
        attributes are ``regime``, ``seed``, ``end_step``, ``end_kind``, ``final_loss`` (not capped) and ``lane``.

        Args:
          study: one to add the trials to; by default a new one, in memory.
          by: the variable that is the value; by default as in `best`.
          maximize: whether more is better; by default as the study has it, or not.

        Raises:
          MissingPackageError: Optuna is not installed.
          InputValueError, InputTypeError: the study is none, or has another direction.
        """
        return optuna_study.to_study(self, study, by, maximize)

    def log_to_tensorboard(self, folder: Any, *, run: Any = None) -> None:
        """Write every lane as a run of TensorBoard below `folder`.

        Each has its recorded losses at their steps and its other numbers at its last step, as far as they are finite;
        its hyperparameters, seed, regime and end for the HPARAMS page; its regime as text. The run ``sweep`` has the
        recommendation, and the figures of the run directory `run`, if one is given. A folder a lane: choose by
        `select` and `along` among very many.

        Raises:
          MissingPackageError: tensorboardX is not installed.
        """
        trackers.to_tensorboard(self, folder, run)

    def log_to_mlflow(
        self, tracking_uri: str | None = None, *, experiment: str = "gdkit", name: str = "sweep", run: Any = None
    ) -> str:
        """Log the sweep to MLflow as a run, and every lane as a run nested in it; returns the id of the first.

        Lanes have their hyperparameters and seed as params, recorded losses at their steps and other numbers as
        metrics, as far as they are finite, and regime and end as tags; the sweep has the recommendation as its
        description, and report and figures of the run directory `run`, if one is given, as artifacts.

        Args:
          tracking_uri: of a server or a store, for example ``sqlite:///mlflow.db``; by default MLflow's own.
          experiment: its name; it is made where there is none.
          name: of the run.
          run: a run directory.

        Raises:
          MissingPackageError: MLflow is not installed.
        """
        return trackers.to_mlflow(self, tracking_uri, experiment, name, run)

    def log_to_wandb(self, project: str, *, name: str = "sweep", run: Any = None, **settings: Any) -> None:
        """Log every lane as a run of Weights & Biases in the group `name`, and one for the sweep.

        Lanes have their hyperparameters, seed, regime and end as config, regime and end as tags too, recorded losses at
        their steps, and other numbers as summary, as far as they are finite; the sweep has the recommendation as its
        notes, and report and figures of the run directory `run`, if one is given, as an artifact. `settings` go to
        ``wandb.init``, for example ``mode="offline"``.

        Raises:
          MissingPackageError: wandb is not installed.
        """
        trackers.to_wandb(self, project, name, run, settings)

    def save(self, path: Any) -> None:
        """Write everything to one netCDF file, whole or not at all; `gdkit.open` reads it."""
        store.save(self.lanes.assign_attrs(thresholds=json.dumps(dataclasses.asdict(self.thresholds))), path)

    def __repr__(self) -> str:
        counts = {
            Regime(int(c)).name: int(n)
            for c, n in zip(*np.unique(self.lane_regimes[self._ended], return_counts=True), strict=True)
        } | ({"not finished": self.missing} if self.missing else {})
        axes = ", ".join(f"{name} ({len(values)})" for name, values in self.axes.items())
        steps = self.lanes.attrs["steps"]
        sizes = f"{_counted(self.lanes.sizes['lane'], 'lane')} of {_counted(steps, 'step')}"
        head = "; ".join(filter(None, [f"SweepResult: {sizes}", axes, _counted(self.seeds, "seed")]))
        lines = [head, ", ".join(f"{n} {name}" for name, n in counts.items())]
        return "\n".join(lines if self.main_axis is None else [*lines, str(self.recommend())])

    def _repr_html_(self) -> str:
        head, counts, *_ = repr(self).splitlines()
        if self.main_axis is None:
            return html.table((), [(counts,)], title=head)
        parts = [self.select(optimizer=label) for label in self.optimizers] or [self]
        heads = (
            "optimizer",
            "axis",
            "best",
            "score",
            "95 % over seeds",
            "about as good",
            "none diverged up to",
            "edge",
        )
        rows = [_cells(part) for part in parts if part.main_axis is not None]
        said: dict[str, list[str]] = {}
        for part in parts:
            for text in part.recommend().caveats if part.main_axis is not None else ():
                said.setdefault(text, []).extend(part.optimizers)
        of = lambda who: f"{', '.join(who)}: " if len(who) < len(self.optimizers) else ""
        unknown = "\n".join(f"Not known: {of(who)}{text}" for text, who in said.items())
        return html.table(heads, rows, title=f"{head}\n{counts}", note=unknown)

    # Inside

    def _unstacked(self, lanes: xr.Dataset) -> xr.Dataset:
        """`lanes` reshaped to the product that the grids describe, or as it is where they differ."""
        first = self.grids[0]
        names = [axis for _, axes, _ in first.dimensions for axis in axes]
        rows = first.points * self.seeds
        for number, grid in enumerate(self.grids):
            mine = slice(number * rows, (number + 1) * rows)
            same = grid.dimensions == first.dimensions
            if not same or any(not np.array_equal(lanes[n].values[mine], lanes[n].values[:rows]) for n in names):
                return lanes
        sizes = {name: size for name, _, size in first.dimensions} | {"seed": self.seeds}
        several = len(self.grids) > 1
        if several:
            sizes = {"optimizer": len(self.grids)} | sizes
        coords: dict[str, Any] = {"seed": ("seed", np.arange(self.seeds))}
        if first.label is not None:
            coords["optimizer"] = ("optimizer", [f.label for f in self.grids]) if several else first.label
        grid = np.arange(rows).reshape([size for _, _, size in first.dimensions] + [self.seeds])
        for place, (dimension, axes, _) in enumerate(first.dimensions):
            along = np.moveaxis(grid, place, 0).reshape(grid.shape[place], -1)[:, 0]
            coords |= {axis: (dimension, lanes[axis].values[along]) for axis in axes}
        shape = tuple(sizes.values())
        variables = {
            name: ((*sizes, *v.dims[1:]), v.values.reshape(*shape, *v.shape[1:])) for name, v in lanes.data_vars.items()
        }
        if "curve_step" in lanes.coords:
            coords["curve_step"] = lanes["curve_step"]
        return xr.Dataset(variables, coords, lanes.attrs)

    def _rounding(self) -> float:
        """Differences of scores that single precision, from losses such as those at the start, does not tell apart."""
        start = np.abs(self.lanes["initial_loss"].values.astype(float))
        return (
            float(np.finfo(np.float32).eps * np.median(start[np.isfinite(start)])) if np.isfinite(start).any() else 0.0
        )

    def _centred(self, mean: np.ndarray) -> int:
        """The point with the least mean, (points,); among those that rounding alone tells from it, in their middle.

        In that of each axis in turn, `main_axis` last: in the order of lanes the middle of several axes may be at the
        end of one of them.
        """
        point, tied = _least(mean, self._rounding()), mean <= mean.min() + self._rounding()
        if not np.isfinite(mean[point]) or np.count_nonzero(tied) == 1:
            return point
        ends = np.cumsum([grid.points for grid in self.grids])
        number = int(np.searchsorted(ends, point, side="right"))
        dimensions, end = self.grids[number].dimensions, int(ends[number])
        grid = np.arange(end - self.grids[number].points, end).reshape([size for *_, size in dimensions])
        for i in sorted(range(grid.ndim), key=lambda i: self.main_axis in dimensions[i][1]):
            place = np.argwhere(grid == point)[0]
            line = grid[(*place[:i], slice(None), *place[i + 1 :])]
            line = line[tied[line]]
            values = self.lanes[dimensions[i][1][0]].values[line * self.seeds]
            ordered = line[np.argsort(values, kind="stable")] if values.dtype.kind in "fiu" else line
            point = int(ordered[len(ordered) // 2])
        return point

    def _origin(self) -> Any:
        if self.origin is None:
            remedy = (
                "Ask the whole of a sweep; one from disk is opened with gdkit.open(path, problem=..., optimizer=...)"
            )
            raise bad_value("result", "its lanes", "its problem and optimizer are not known", remedy)
        return self.origin

    def _product(self, question: str) -> xr.Dataset:
        if "lane" in self.verdicts.dims:
            remedy = f"Choose one first: .select(optimizer=...).{question}(); there are {', '.join(self.optimizers)}"
            raise bad_value("optimizer", None, "optimizers have axes of their own", remedy)
        return self.verdicts

    def _check_axis(self, axis: str | None, array: Any) -> str:
        axis = self.main_axis if axis is None else axis
        if axis is None:
            raise bad_value("axis", None, "the sweep has no axis of numbers", "Sweep one, for example learning_rate")
        if axis not in array.coords:
            raise unknown_name("axis", axis, self.axes)
        if array[axis].dtype.kind not in "fiu":
            raise bad_value("axis", axis, "its values are not numbers", "Choose a numeric axis")
        return axis

    def score_name(self, by: str | None = None) -> str:
        """The variable that lanes are compared by: `by`, or ``validation_loss`` if there is one, or ``final_loss``."""
        if by is None:
            return "validation_loss" if "validation_loss" in self.lanes else "final_loss"
        if by not in self.lanes:
            raise unknown_name("by", by, map(str, self.lanes.data_vars))
        return by

    def scores(self, by: str | None = None, maximize: bool = False) -> np.ndarray:
        """Scores to be small, of every lane, by the variable that `best` goes by; infinite where it diverged."""
        by = self.score_name(by)
        score = self.lanes[by].values.astype(float) * (-1 if maximize else 1)
        return np.where((self.lane_regimes == Regime.DIVERGED) | ~np.isfinite(score), np.inf, score)


def assemble(
    described: Description, columns: Mapping[str, np.ndarray], timings: Mapping, narrower: Mapping | None = None
) -> SweepResult:
    """The result of a sweep, from its description and what its lanes read; ``end_kind`` 0 where one has not ended.

    `narrower` are the tiles of a run directory with blocks that ran smaller than planned: their widths and depths.
    """
    coords = _coordinates(described)
    variables: dict[str, Any] = {name: ("lane", v) for name, v in columns.items() if v.ndim == 1}
    variables |= {
        name: (("lane", *(f"{name}_{i}" for i in range(1, v.ndim))), v) for name, v in columns.items() if v.ndim > 1
    }
    if "curve_loss" in columns:
        variables["curve_loss"] = (("lane", "point"), columns["curve_loss"])
        coords["curve_step"] = ("point", described.curve_step)
    problem_axes = [n for n in coords if n.startswith("problem.")]
    stochastic = bool(described.attrs["stochastic"])
    variables["reference_loss"] = ("lane", _reference(columns, coords, problem_axes, stochastic))
    attrs = described.attrs | {"timings": json.dumps(timings)}
    attrs |= {"narrower": json.dumps(narrower)} if narrower else {}
    return SweepResult(xr.Dataset(variables, coords, attrs), described.grids)


def open(path: Any) -> SweepResult:
    """What a file or a run directory says, and no more; `gdkit.open` finds what can run it again."""
    path = Path(path)
    if (path / store.manifest.NAME).is_file() and not (path / store.RESULTS).is_file():
        return _open_run(store.Store.open(path))
    lanes = store.load(path)
    saved = json.loads(lanes.attrs.pop("thresholds"))
    known = {f.name for f in dataclasses.fields(Thresholds)}
    thresholds = Thresholds(**{name: value for name, value in saved.items() if name in known})
    return SweepResult(lanes, read_grids(json.loads(lanes.attrs["forms"])), thresholds)


def _open_run(run: store.Store) -> SweepResult:
    """What the tiles of a run hold."""
    try:
        described = Description.from_json(run.manifest.plan["result"])
    except (KeyError, TypeError, ValueError) as error:
        raise bad_value(
            "path", str(run.path), f"its manifest describes no sweep ({error!r})", "Run it again"
        ) from error
    columns = run.columns()
    return assemble(described, columns.values, {"seconds": seconds_of(run.path)}, columns.narrower)


def seconds_of(run: Path) -> float:
    """Seconds from a run's manifest to its last tile, in all processes and with the time between them."""
    begin = (run / store.manifest.NAME).stat().st_mtime
    return max((folder.stat().st_mtime for folder in (run / "tiles").iterdir()), default=begin) - begin


def _same(held: np.ndarray, value: np.ndarray) -> bool:
    """Whether a result holds `value`: what numpy cannot name as float32, a curve up to what was reached."""
    plain = value.astype(np.float32) if value.dtype.kind == "V" else value
    return np.array_equal(held, plain[: len(held)] if held.ndim else plain, equal_nan=plain.dtype.kind == "f")


def _coordinates(described: Description) -> dict[str, Any]:
    """Every axis, the optimizer and the seed as coordinates on ``lane``."""
    seeds, grids = described.attrs["seeds"], described.grids
    names = dict.fromkeys(name for own in described.axes for name in own)
    parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for grid, axes in zip(grids, described.axes, strict=True):
        shape = tuple(size for *_, size in grid.dimensions)
        at = np.indices(shape).reshape(len(shape), grid.points)
        own = {a: axes[a][i] for (_, mine, _), i in zip(grid.dimensions, at, strict=True) for a in mine}
        for name in names:
            missing = np.full(grid.points, np.nan)
            parts[name].append(np.repeat(own.get(name, missing), seeds))
    coords: dict[str, Any] = {name: ("lane", _joined(values)) for name, values in parts.items()}
    coords["seed"] = ("lane", np.tile(np.arange(seeds), sum(grid.points for grid in grids)))
    if grids[0].label is not None:
        labels = [np.full(grid.points * seeds, grid.label, dtype=object) for grid in grids]
        coords["optimizer"] = ("lane", np.concatenate(labels).astype(str))
    return coords


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    """One coordinate of several sections; text where any of them is, with nothing where a section lacks the axis."""
    if all(p.dtype.kind in "fiu" for p in parts):
        return np.concatenate(parts)
    texts = [np.full(len(p), "") if p.dtype.kind == "f" and np.isnan(p).all() else p.astype(str) for p in parts]
    return np.concatenate(texts)


def _reference(columns: Mapping, coords: Mapping, problem_axes: list[str], stochastic: bool) -> np.ndarray:
    """The loss that stands for the optimum: the known one, else the least seen on the same problem."""
    lanes = len(columns["final_loss"])
    known = columns.get("optimum", np.full(lanes, np.nan)).astype(float)
    codes = np.zeros(lanes, np.int64)
    for name in problem_axes:
        values, index = np.unique(coords[name][1], return_inverse=True)
        codes = codes * len(values) + index
    found = np.zeros(lanes)
    for code in np.unique(codes):
        mine = (codes == code) & (columns["end_kind"] != EndKind.RUNNING)
        seen = {n: columns[n][mine] for n in ("late_mean", "min_loss", "end_kind")}
        found[codes == code] = least_loss(seen | {"stochastic": stochastic})
    return np.where(np.isnan(known), found, known)


def _distinct(values: np.ndarray) -> np.ndarray:
    """Distinct values in order of appearance, missing ones left out."""
    kept = [v for v in dict.fromkeys(values.tolist()) if v == v and v != ""]
    return np.asarray(kept)


def _cells(result: SweepResult) -> tuple[str, ...]:
    """One optimizer's recommendation, for a table."""
    found = result.recommend()
    pairs = [_range(pair) if pair else "–" for pair in (found.interval, found.plateau)]
    single = [
        _short(value) if value is not None else "–" for value in (found.best, found.score, found.safe, found.edge)
    ]
    return (", ".join(result.optimizers) or "–", found.axis, *single[:2], *pairs, *single[2:])


def _item(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
