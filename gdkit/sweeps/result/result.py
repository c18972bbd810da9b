"""SweepResult: the lanes of a sweep as labelled arrays, and the questions that they answer."""

import dataclasses
import functools
import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import xarray as xr
from jax.typing import ArrayLike

from gdkit import checks, store
from gdkit.errors import bad_value, missing_package, unknown_name
from gdkit.formatting import count, html
from gdkit.monitors import EndKind
from gdkit.regimes import DEFAULT_THRESHOLDS, Regime, Thresholds, Verdict
from gdkit.store.paths import as_path
from gdkit.sweeps import checkpoints
from gdkit.sweeps.description import LaneGrid
from gdkit.sweeps.result import optuna_study, trackers
from gdkit.sweeps.result.arrays import Judging, arrange_arrays
from gdkit.sweeps.result.evaluations import At, best_steps, best_values
from gdkit.sweeps.result.explanation import Explanation
from gdkit.sweeps.result.product import distinct, unstack
from gdkit.sweeps.result.recommend import TABLE_HEADS, Recommendation, central_lane, recommend, recommend_for, table_row
from gdkit.sweeps.result.replay import Replay, is_same
from gdkit.sweeps.result.resumable import LaneStates, Resumable
from gdkit.sweeps.scoring import judging
from gdkit.sweeps.scoring.direction import default_score, is_maximized, maximized_names, orient
from gdkit.sweeps.scoring.lane_values import curve_names, end_values, plain_values, read_curve
from gdkit.sweeps.scoring.scores import Best, best_point, mean_scores, rounding_error
from gdkit.types import State


@dataclasses.dataclass(frozen=True, eq=False)
class SweepResult:
    """The result of a sweep: one row per lane, diverged lanes included.

    Attributes:
      lanes: every variable on the dimension ``lane``; curves also on ``point``.
      grids: the lanes of each optimizer as a product of axes.
      thresholds: of the regimes; changing them (`with_thresholds`) needs no new run.
      origin: what `extend`, `refine` and `replay` need; None for a part of a sweep, or one read without its code.
      states: returns the state of a lane at its end or at a step; None where there are none. Use `state`.
    """

    lanes: xr.Dataset
    grids: tuple[LaneGrid, ...]
    thresholds: Thresholds = DEFAULT_THRESHOLDS
    origin: "Resumable[SweepResult] | None" = None
    states: "LaneStates | None" = None

    regime_names: ClassVar[dict[int, str]] = {int(r): r.name for r in Regime}

    def __getstate__(self) -> dict[str, Any]:
        """All but origin and states, which stay in their process; `gdkit.open` makes others."""
        return {"lanes": self.lanes, "grids": self.grids, "thresholds": self.thresholds, "origin": None, "states": None}

    @classmethod
    def from_arrays(
        cls,
        axes: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        arrays: Mapping[str, ArrayLike],
        *,
        by: str | None = None,
        maximize: bool | Sequence[str] = False,
        optimum: float | None = None,
        stochastic: bool = False,
        diverged_above: float = 1e6,
        curve_points: int = 200,
    ) -> "SweepResult":
        """The result of runs that were trained elsewhere, on a grid: `best`, `recommend`, `edge`, figures and reports.

        Args:
          axes: as in `sweep`; an axis ``optimizer`` holds labels.
          arrays: name to final values, (points..., seeds), or to curves, (points..., seeds, steps + 1), with one
            dimension per axis in the order of `axes`; (points...) for one seed. ``loss`` is the training loss: of its
            curves regimes are judged as `classify_curve` does. Without curves of it regimes are UNKNOWN, except that a
            run whose loss, or else `by`, is not finite diverged. Curves are recorded as ``curve_NAME``.
          by: the variable that runs are compared by; by default ``validation_loss`` if there is one, else the loss,
            else the only one.
          maximize: whether `by` is better when larger, or the names of all variables that are.
          optimum: the lowest possible loss, if it is known.
          stochastic, diverged_above: as in `classify_curve`.
          curve_points: recorded values of a curve within the first 10,000 steps, geometrically spaced.

        Raises:
          InputValueError, InputTypeError: a shape does not fit the axes; a name is taken; `by` is missing or unknown.

        >>> accuracy = [[0.5, 0.6], [0.9, 0.8], [0.2, 0.1]]  # (learning rates, seeds)
        >>> axes = {"learning_rate": [0.01, 0.1, 1.0]}
        >>> SweepResult.from_arrays(axes, {"accuracy": accuracy}, maximize=True).best().hyperparameters
        {'learning_rate': 0.1}
        """
        judging = Judging(by, maximize, optimum, stochastic, diverged_above, curve_points)
        return cls(*arrange_arrays(axes, arrays, judging))

    # Views

    @functools.cached_property
    def data(self) -> xr.Dataset:
        """The lanes as a product over the axes and ``seed``; on ``lane`` where optimizers have different axes."""
        return unstack(self.lanes, self.grids, self.seeds)

    @property
    def has_all_statistics(self) -> bool:
        """Whether the statistics that regimes need were recorded, not only those of the ends."""
        return judging.has_all_statistics(self.lanes)

    @functools.cached_property
    def _verdict(self) -> Verdict:
        return judging.judge_lanes(self.lanes, self.thresholds)

    @functools.cached_property
    def verdicts(self) -> xr.Dataset:
        """Regime, onset and evidence of every lane, shaped like `data`.

        Raises:
          InputValueError: the sweep recorded the ends alone.
        """
        verdict = self._verdict
        columns = {"regime": self.lane_regimes, "onset": verdict.onset} | verdict.evidence
        variables = {name: ("lane", np.broadcast_to(v, self.lanes.sizes["lane"])) for name, v in columns.items()}
        return unstack(xr.Dataset(variables, self.lanes.coords), self.grids, self.seeds)

    @property
    def regimes(self) -> xr.DataArray:
        """The code of the Regime of every lane, shaped like `data`.

        Raises:
          InputValueError: the sweep recorded the ends alone.
        """
        return self.verdicts["regime"]

    @functools.cached_property
    def lane_regimes(self) -> np.ndarray:
        """The code of the Regime of every lane, in the order of `lanes`; (lanes,).

        Where the ends of runs alone are known, it is DIVERGED where the loss left its bounds, and UNKNOWN elsewhere.
        """
        known = judging.has_regimes(self.lanes)
        return self._verdict.regime if known else judging.judge_ends(self.lanes)

    @property
    def optimizers(self) -> tuple[str, ...]:
        """Labels of the optimizer axis, if there is one."""
        return tuple(grid.label for grid in self.grids if grid.label is not None)

    @property
    def axes(self) -> dict[str, np.ndarray]:
        """Name to values of every axis, over all optimizers."""
        names = dict.fromkeys(axis for grid in self.grids for _, axes, _ in grid.dimensions for axis in axes)
        return {name: distinct(self.lanes[name].values) for name in names}

    @property
    def main_axis(self) -> str | None:
        """The axis of questions that name none: ``learning_rate`` if it is numeric, else the first numeric axis."""
        numeric = [name for name, values in self.axes.items() if values.dtype.kind in "fiu"]
        return "learning_rate" if "learning_rate" in numeric else next(iter(numeric), None)

    @property
    def finished(self) -> np.ndarray:
        """Mask of lanes that have ended, (lanes,); the others are NaN, and their regime is SLOW."""
        return self.lanes["end_kind"].values != EndKind.RUNNING

    @property
    def missing(self) -> int:
        """Number of lanes that have not ended."""
        return int(np.sum(~self.finished))

    @property
    def plan(self) -> dict[str, Any]:
        """How the lanes were run: the fields of `Plan` as carried out, and how they were ``chosen``.

        Width, depth, unroll and choice are lists where there are several programs, in their order.

        >>> from gdkit import problems, sgd, sweep
        >>> sweep(problems.parabola(), sgd, {"learning_rate": [0.1, 0.2]}, steps=3).plan["width"]
        1
        """
        return json.loads(self.lanes.attrs["plan"])

    @property
    def seeds(self) -> int:
        """Runs per point."""
        return int(self.lanes.attrs["seeds"])

    def select(self, *, optimizer: str) -> "SweepResult":
        """The lanes of one optimizer."""
        if optimizer not in self.optimizers:
            raise unknown_name("optimizer", optimizer, self.optimizers)
        grid = next(g for g in self.grids if g.label == optimizer)
        rows = np.flatnonzero(self.lanes["optimizer"].values == optimizer)
        used = {axis for _, axes, _ in grid.dimensions for axis in axes}
        unused = [name for name in self.axes if name not in used]
        part = self._take(rows, grid)
        return dataclasses.replace(part, lanes=part.lanes.drop_vars(unused))

    def along(self, *axes: str, optimizer: str | None = None, at: Mapping[str, Any] | None = None) -> "SweepResult":
        """The lanes of one optimizer that vary along `axes` only.

        Args:
          axes: names of axes.
          optimizer: its label; by default the recommended one.
          at: values of the other axes; by default those that are recommended with the first numeric one of `axes`.
        """
        if len(self.grids) > 1:
            optimizer = optimizer or str(self.lanes["optimizer"].values[central_lane(self, axes)])
        if optimizer is not None and self.optimizers != (optimizer,):
            return self.select(optimizer=optimizer).along(*axes, at=at)
        for name in axes:
            if name not in self.axes:
                raise unknown_name("axis", name, self.axes)
        dimensions = tuple(dimension for dimension in self.grids[0].dimensions if set(axes) & set(dimension[1]))
        fixed = [name for name in self.axes if not any(name in names for _, names, _ in dimensions)]
        for name in at or {}:
            if name not in fixed:
                raise unknown_name("at", name, fixed)
        center = central_lane(self, axes) if len(fixed) > len(at or {}) else 0
        chosen = {name: self.lanes[name].values[center] for name in fixed} | dict(at or {})
        mine = np.ones(self.lanes.sizes["lane"], bool)
        for name, value in chosen.items():
            mine &= self.lanes[name].values == value
        if not mine.any():
            choices = {name: self.axes[name].tolist() for name in chosen}
            raise bad_value("at", dict(at or {}), "the sweep has no such point", f"Choose from {choices}")
        return self._take(np.flatnonzero(mine), LaneGrid(self.grids[0].label, dimensions))

    def with_thresholds(self, **changes: float) -> "SweepResult":
        """The same lanes, with regimes by other thresholds."""
        return dataclasses.replace(self, thresholds=dataclasses.replace(self.thresholds, **changes))

    def curve(self, lane: int, name: str = "loss") -> tuple[np.ndarray, np.ndarray]:
        """Steps and values of one lane up to its end, that at the end included; each ``(points,)``.

        Args:
          lane: its place on ``lane``.
          name: ``loss``; a value on validation data, of a sweep with `evaluate_every`; or what the loss logs under this
            name (`Problem.has_logs`), at the recorded steps.

        Raises:
          InputValueError: nothing of this name was recorded.
        """
        checks.check_choice("name", name, curve_names(self.lanes))
        return read_curve(self.lanes, lane, name)

    # Questions

    def edge(self, axis: str | None = None) -> xr.Dataset:
        """Where divergence begins along `axis` (by default `main_axis`), per seed and per point of the other axes.

        Variables: ``low``, the largest value below the first that diverged (0 if there is none); ``high``, the first
        that diverged (infinite if none did); ``edge`` between them, on a log scale; ``simple``, whether all above the
        edge diverged too; ``median``, of `edge` over seeds.
        """
        if "lane" in self.data.dims:
            remedy = f"Choose one first: .select(optimizer=...).edge(); there are {', '.join(self.optimizers)}"
            raise bad_value("optimizer", None, "optimizers have different axes", remedy)
        columns = {"diverged": self.lane_regimes == Regime.DIVERGED, "finished": self.finished}
        lanes = xr.Dataset({name: ("lane", values) for name, values in columns.items()}, self.lanes.coords)
        shaped = unstack(lanes, self.grids, self.seeds)
        return judging.find_edges(shaped["diverged"], shaped["finished"], self._check_axis(axis, shaped))

    def best(self, by: str | None = None, *, maximize: bool | None = None, at: At = "end") -> Best:
        """The point with the best mean score over seeds; a diverged lane counts as the worst possible.

        Of several whose scores differ by no more than rounding, it is the middle one on every axis.

        Args:
          by: a variable; by default ``validation_loss`` if there is one, else ``final_loss``.
          maximize: whether larger is better; by default as the metric declares it (`gdkit.Metric`).
          at: ``"end"``, or ``"best"`` for the evaluation at which each point has the best mean over its seeds, in a
            sweep with `evaluate_every`.

        Raises:
          InputValueError: no lane has finished; `by` is not a variable, or was not evaluated along the run.
        """
        self._check_finished()
        by, maximize = self.score_name(by), self.is_maximized(by, maximize)
        if at != "end":
            return self._evaluated_at(at, by, maximize).best(by, maximize=maximize)
        scores = self.scores(by, maximize).reshape(-1, self.seeds)
        mean = mean_scores(scores, self.finished.reshape(scores.shape))
        point = best_point(self, mean, rounding_error(self.lanes["initial_loss"].values))
        rows = self.lanes.isel(lane=slice(point * self.seeds, (point + 1) * self.seeds))
        names = [*self.axes, *(["optimizer"] if self.optimizers else [])]
        hyperparameters = plain_values({name: rows[name].values[0] for name in names if name in rows.coords})
        finished = rows["end_kind"].values != EndKind.RUNNING
        spread = float(np.std(scores[point][finished])) if np.isfinite(mean[point]) else float("inf")
        numbers = tuple(range(point * self.seeds, (point + 1) * self.seeds))
        score, states = orient(float(mean[point]), maximize), lambda seed: self.state(numbers[seed])
        return Best(hyperparameters, by, score, spread, rows, numbers, states)

    def recommend(
        self,
        axis: str | None = None,
        *,
        by: str | None = None,
        maximize: bool | None = None,
        at: At = "end",
        horizon: int | None = None,
    ) -> Recommendation:
        """Which value of `axis` to use, and with which values of the other axes: the robust choice.

        The mean scores over seeds are shrunk towards those of their neighbors along every numeric axis, as far as the
        seeds show that their differences are noise. An isolated or bouncing point has to be the better for it. The rule
        and how well it does are in docs/recommendation.md; `best` is the plain optimum.

        Args:
          axis: a numeric axis, by default `main_axis`.
          by: the variable to compare; by default ``validation_loss`` if there is one, else ``final_loss``.
          maximize: whether larger is better; by default as the metric declares it (`gdkit.Metric`).
          at: as in `best`.
          horizon: a number of steps, T, for which to predict the best value from how it moves with the steps along
            this sweep: from the evaluations (`evaluate_every`), or the curve of `by`. `Recommendation.horizon` has the
            law. It holds for a constant learning rate, of which a run up to a step is a shorter run;
            docs/recommendation.md says when nothing is predicted.

        Raises:
          InputValueError: no lane has finished; `axis` is not a numeric axis; `by` is not a variable, or was not
            evaluated along the run; `horizon` is not an integer of at least 1, is passed with `at`, or the optimizer
            has a schedule by `optimizers.with_schedule` or by its config.
        """
        self._check_finished()
        by, axis = self.score_name(by), self._check_axis(axis, self.lanes)
        maximize = self.is_maximized(by, maximize)
        if horizon is not None:
            checks.check_choice("at", at, ("end",))
            return recommend_for(self, axis, by, maximize, horizon)
        evaluated = self._evaluated_at(at, by, maximize)
        found = recommend(evaluated, axis, by, maximize)
        return dataclasses.replace(found, states=lambda seed: evaluated.state(found.lanes[seed]))

    def score_name(self, by: str | None = None) -> str:
        """The variable that lanes are compared by: `by`, or ``validation_loss`` if there is one, or ``final_loss``.

        Where `Problem.evaluate` returns no loss it is, of the values on validation data, the first that
        `Problem.maximize` names, or the first by name.
        """
        by = self.lanes.attrs.get("by") if by is None else by
        if by is None:
            return default_score(list(map(str, self.lanes.data_vars)), maximized_names(self.lanes.attrs))
        if by not in self.lanes:
            raise unknown_name("by", by, map(str, self.lanes.data_vars))
        return by

    def is_maximized(self, by: str | None = None, maximize: bool | None = None) -> bool:
        """Whether `best` and all that ranks prefer large values of `by`: `maximize`, or as the metric declares it."""
        return is_maximized(maximized_names(self.lanes.attrs), self.score_name(by)) if maximize is None else maximize

    def scores(self, by: str | None = None, maximize: bool | None = None) -> np.ndarray:
        """The variable that `best` compares, per lane, its sign such that less is better; infinite if diverged."""
        by = self.score_name(by)
        score = orient(end_values(self.lanes)[by].values.astype(float), self.is_maximized(by, maximize))
        return np.where((self.lane_regimes == Regime.DIVERGED) | ~np.isfinite(score), np.inf, score)

    # States

    def state(self, lane: int, *, at: At = "end") -> State:
        """Params, aux and optimizer state of a lane at its end; a lane that diverged or stopped, where it was frozen.

        Of a Learner it is the state as its `init` and `step` make it.

        They are taken from memory or from the run directory, where they were kept (`sweep`, keep_states); else the
        block of the lane is run again, with the same bits. After `gdkit.open` in another process they have the classes
        of the problem and the optimizer where these are known, and else are dicts, lists and tuples.

        Args:
          lane: its place on ``lane``.
          at: ``"best"`` for its best evaluation along the run, by what `best` compares, at the step that the variable
            ``best_evaluation`` tells; ``best(at="best").state()`` is that at the best mean over seeds.

        Raises:
          InputValueError: no such lane; the sweep kept no states; a result without states, such as one from a file; no
            evaluation along the run.

        >>> from gdkit import problems, sgd, sweep
        >>> result = sweep(problems.parabola(), sgd, {"learning_rate": [0.01, 0.2]}, steps=50)
        >>> round(float(result.best().state(seed=0).params), 3)
        3.0
        """
        lane = self._check_lane(lane)
        if self.states is None:
            remedy = "Take it from the result of sweep, or from a run directory: sweep(store=DIR), gdkit.open(DIR)"
            raise bad_value("result", "its states", "a file of results has none", remedy)
        if not self.finished[lane]:
            raise bad_value("lane", lane, "it has not finished", "Resume the sweep first")
        checks.check_choice("at", at, ("end", "best"))
        if at == "end":
            return self.states(lane)
        by = self.score_name()
        step = int(best_steps(self.lanes.isel(lane=[lane]), by, self.is_maximized(by))[0])
        if step < 0:
            raise bad_value("lane", lane, f"no evaluation of {by} is finite", 'Take its state at="end"')
        return self.states(lane, step)

    def export(self, lane: int, path: str | Path, *, at: At = "end") -> None:
        """Write the trained params of a lane to a file that other libraries read; its state is that of `state`.

        A ``.safetensors`` file holds the params by their paths, such as ``layers/0/w``, and aux by names that begin
        with ``aux/``; a path without a suffix becomes the folder of an Orbax checkpoint, with the items ``params``,
        ``aux``, ``opt_state`` and ``metadata``. Metadata are hyperparameters, seed, step, loss and score.
        `sweep` starts from ``.safetensors`` files by ``start=``.

        Raises:
          MissingPackageError: safetensors, or orbax-checkpoint, is not installed.
          InputValueError: no such lane or state, or the path cannot be used.
          StoreError: the system refused.
        """
        lane, path = self._check_lane(lane), as_path("path", path)
        state, row, by = self.state(lane, at=at), end_values(self.lanes).isel(lane=lane), self.score_name()
        names = [name for name in ("optimizer", *self.axes, "seed") if name in row.coords]
        values = plain_values({name: row[name].values[()] for name in names})
        numbers = {name: row[name].values.item() for name in dict.fromkeys(("end_step", "final_loss", by))}
        numbers |= {"best_evaluation": row["best_evaluation"].values.item()} if at == "best" else {}
        checkpoints.write_params(path, state, values | numbers)

    # Continuing

    def extend(self, steps: int, *, progress: Callable[[Any], None] | None = None) -> "SweepResult":
        """The same sweep with `steps` steps in total: lanes continue where they stopped, unless they ended early.

        The result is that of a sweep of so many steps, bit for bit on CPU.

        Raises:
          InputValueError: no more steps than before, a schedule that depends on their total, a part of a sweep, a
            result from disk without its code, or lanes too large to keep in memory.

        >>> from gdkit import problems, sgd, sweep
        >>> short = sweep(problems.parabola(), sgd, {"learning_rate": [0.01, 0.2]}, steps=20)
        >>> [int(step) for step in short.extend(50).lanes["end_step"]]
        [50, 50]
        """
        longer = self._resumable().extend(steps, progress=progress)
        return dataclasses.replace(longer, thresholds=self.thresholds)

    def refine(
        self,
        axis: str | None = None,
        *,
        around: str | tuple[float, float] = "best",
        count: int = 8,
        by: str | None = None,
        maximize: bool | None = None,
        progress: Callable[[Any], None] | None = None,
    ) -> "SweepResult":
        """The same sweep with more values of `axis`, by the program that is compiled already.

        The result is that of one sweep of all these values: on CPU bit for bit that of one whose plan has the width of
        this one's blocks. Each optimizer gets values around its own best or edge. The other axes keep their values;
        those paired with `axis` take that of the best point.

        Args:
          axis: an axis of lanes, by default `main_axis`.
          around: ``"best"``, between the neighbors of the best value, or as far beyond it at the end of the axis;
            ``"edge"``, between the largest value that did not diverge and the smallest that did; or two values.
          count: number of values to add; spaced as the axis is, by ratio or by difference.
          by, maximize: what the best is, as in `best`.
          progress: a callback, as in `sweep`.

        Raises:
          InputValueError, InputTypeError: an argument cannot be used; the edge is not on the axis; a result that
            cannot be resumed, as in `extend`.

        >>> from gdkit import problems, sgd, sweep
        >>> coarse = sweep(problems.parabola(), sgd, {"learning_rate": [0.01, 0.1, 1.2]}, steps=50)
        >>> fine = coarse.refine(around="edge", count=30)
        >>> bool(abs(fine.recommend().edge - 1.0) < 0.1)
        True
        """
        axis = self._check_axis(axis, self.lanes)
        return self._resumable().refine(self, axis, around, count, progress, by=by, maximize=maximize)

    def replay(self, lane: int, *, around: int = 5) -> Replay:
        """Run one lane again and record it step by step around the onset of its regime, or its end.

        Args:
          lane: its place on ``lane``.
          around: steps to either side of the onset.

        Raises:
          InputValueError: no such lane, or a result that cannot be resumed, as in `extend`.
        """
        lane = self._check_lane(lane)
        checks.check_integer("around", around)
        onsets = self._verdict.onset if self.has_all_statistics else -1
        onset = int(np.broadcast_to(onsets, self.lanes.sizes["lane"])[lane])
        onset = onset if onset >= 0 else int(self.lanes["end_step"].values[lane])
        watched, end = self._resumable().replay(lane, onset, around)
        row = self.lanes.isel(lane=lane)
        same = all(is_same(row[name].values, value) for name, value in end.items() if name in row)
        return Replay(lane, onset, watched, same)

    def explain(self, lane: int | None = None, *, points: int = 50, flow_steps: int = 100) -> Explanation:
        """Why a lane ended as it did: its curvature along the run, beside the runs around where divergence begins.

        The lane, and those of its seed just below and just above the first divergence along `main_axis`, are run again
        one by one, with the sharpness on all data at `points` steps and the curvature at which this optimizer's steps
        become unstable, found from its own update. Runs on minibatches have their batch sharpness too. On all data,
        where it is known, the central flow is followed for `flow_steps` steps from where the run nears the edge of
        stability, and its mean loss compared with that of the run. The answer prints as a paragraph and a table;
        `plots.curvature` and `plots.flow` draw its runs, and ``gdkit explain`` writes a page.

        Args:
          lane: its place on ``lane``; by default the first seed of the recommended point.
          points: measurements per run, each of at most 20 Hessian-vector products.
          flow_steps: steps of the central flow, 0 for none; each takes about as long as a hundred steps of the run.

        Raises:
          InputValueError, InputTypeError: no such lane, or it has not finished; `points` or `flow_steps` is out of
            range; the lane is that of a Learner; a result that cannot be resumed, as in `extend`.

        >>> from gdkit import problems, sgd, sweep
        >>> result = sweep(problems.parabola(), sgd, {"learning_rate": [0.2, 0.9, 1.1]}, steps=20)
        >>> [run.ratio[0].round(2).item() for run in result.explain(0, flow_steps=0).runs]  # sharpness over 2/η
        [0.2, 0.9, 1.1]
        """
        if lane is None:
            self._check_finished()
            lanes = self.recommend().lanes or self.best().lane_numbers
            lane = lanes[0]
        lane = self._check_lane(lane)
        if not self.finished[lane]:
            raise bad_value("lane", lane, "it has not finished", "Resume the sweep first")
        return self._resumable().explain(self, lane, points=points, flow_steps=flow_steps)

    # Exports

    def to_dataframe(self) -> pd.DataFrame:
        """A pandas DataFrame: one row per lane, its regime by name, without curves."""
        lanes = end_values(self.lanes)
        flat = lanes.drop_dims([dim for dim in lanes.dims if dim != "lane"])
        frame = flat.to_dataframe().reset_index(drop=True)
        names = [n for n in ("optimizer", *self.axes, "seed") if n in frame]
        frame.insert(0, "regime", [Regime(int(code)).name for code in self.lane_regimes])
        return frame[[*names, *(c for c in frame if c not in names)]]

    def to_optuna(self, study: Any = None, *, by: str | None = None, maximize: bool | None = None) -> Any:
        """An Optuna study with one complete trial per finished lane.

        Float axes are float distributions, on a log scale where their values are spaced evenly on one; other axes and
        the optimizer are categorical. A trial has the hyperparameters of its optimizer. Its value is min(loss, initial
        loss), so that a diverged lane gets the initial loss; of a variable that is no loss, a diverged lane gets the
        worst value of a lane that did not diverge. Intermediate values are the recorded losses that are finite. User
        attributes are ``regime``, ``seed``, ``end_step``, ``end_kind``, ``final_loss`` (not capped) and ``lane``.

        Args:
          study: the study to add the trials to; by default a new one, in memory.
          by: the variable that is the value; by default as in `best`.
          maximize: whether larger is better; by default as the metric declares it, or as the study does.

        Raises:
          MissingPackageError: Optuna is not installed.
          InputValueError, InputTypeError: `study` is not a study, or has another direction.
        """
        return optuna_study.to_study(self, study, by, maximize)

    def log_to_tensorboard(self, folder: str | Path, *, run: str | Path | None = None) -> None:
        """Write one run of TensorBoard per lane, each in a folder of its own below `folder`.

        A run has the recorded losses at their steps and the other numbers at the last step, finite ones only; the
        hyperparameters, seed, regime and kind of end for the HPARAMS page; the regime as text. The run ``sweep`` has
        the recommendation, and the figures of the run directory `run`, if given. Of very many lanes, select some first
        (`select`, `along`).

        Raises:
          MissingPackageError: tensorboardX is not installed.
        """
        trackers.to_tensorboard(self, folder, run)

    def log_to_mlflow(
        self,
        tracking_uri: str | None = None,
        *,
        experiment: str = "gdkit",
        name: str = "sweep",
        run: str | Path | None = None,
    ) -> str:
        """Log the sweep to MLflow as a run with one nested run per lane; returns the id of the outer run.

        A nested run has hyperparameters and seed as params, recorded losses at their steps and other numbers as
        metrics, finite ones only, and regime and kind of end as tags. The outer run has the recommendation as its
        description, and report and figures of the run directory `run`, if given, as artifacts.

        Args:
          tracking_uri: of a server or a store, for example ``sqlite:///mlflow.db``; by default MLflow's own.
          experiment: its name; it is created if it does not exist.
          name: of the outer run.
          run: a run directory.

        Raises:
          MissingPackageError: MLflow is not installed.
        """
        return trackers.to_mlflow(self, tracking_uri, experiment, name, run)

    def log_to_wandb(
        self, project: str, *, name: str = "sweep", run: str | Path | None = None, **settings: Any
    ) -> None:
        """Log one run of Weights & Biases per lane in the group `name`, and one run for the sweep.

        The run of a lane has hyperparameters, seed, regime and kind of end as config, the last two as tags too,
        recorded losses at their steps, and other numbers as summary, finite ones only. That of the sweep has the
        recommendation as its notes, and report and figures of the run directory `run`, if given, as an artifact.
        `settings` are passed to ``wandb.init``, for example ``mode="offline"``.

        Raises:
          MissingPackageError: wandb is not installed.
        """
        trackers.to_wandb(self, project, name, run, settings)

    def report(self, path: str | Path, *, title: str | None = None, by: str | None = None) -> Path:
        """Write the report: one HTML file with the answer, figures and a table of runs, which works offline.

        Args:
          path: the file, or an existing folder, where it is ``report.html``.
          title: at its top; by default the name of the file or the folder.
          by: the variable that points are compared by, as in `best`.

        Returns:
          The path of the file.

        Raises:
          InputValueError: no lane has finished; `by` is not a variable.
          MissingPackageError: the packages of the extra ``app`` are not installed.
        """
        self._check_finished()
        try:
            # by name, since reports rest on results, and not the other way
            app = importlib.import_module("gdkit.app.report.write")
        except ModuleNotFoundError as error:
            raise missing_package(str(error.name), "app", "A report") from error
        return app.write_result_report(self, path, title=title, by=by)

    def save(self, path: str | Path) -> None:
        """Write the result to one netCDF file, atomically; `gdkit.open` reads it."""
        store.save(self.lanes.assign_attrs(thresholds=json.dumps(dataclasses.asdict(self.thresholds))), path)

    def __repr__(self) -> str:
        lines = self._summary_lines()
        return "\n".join([*lines, str(self.recommend())] if self._can_recommend else lines)

    def _repr_html_(self) -> str:
        head, counts = self._summary_lines()
        if not self._can_recommend:
            return html.table((), [(counts,)], title=head)
        parts = [self.select(optimizer=label) for label in self.optimizers] or [self]
        found = {part.optimizers: part.recommend() for part in parts if part._can_recommend}
        owners: dict[str, list[str]] = {}  # caveat -> the optimizers that have it
        for labels, one in found.items():
            for text in one.caveats:
                owners.setdefault(text, []).extend(labels)
        prefix = lambda labels: f"{', '.join(labels)}: " if len(labels) < len(self.optimizers) else ""
        note = "\n".join(f"Caveat: {prefix(labels)}{text}" for text, labels in owners.items())
        rows = [table_row(labels, one) for labels, one in found.items()]
        return html.table(TABLE_HEADS, rows, title=f"{head}\n{counts}", note=note)

    def _summary_lines(self) -> tuple[str, str]:
        """The sizes of the sweep, and the number of lanes per regime."""
        codes, numbers = np.unique(self.lane_regimes[self.finished], return_counts=True)
        counts = [f"{number} {self.regime_names[int(code)]}" for code, number in zip(codes, numbers, strict=True)]
        counts += [f"{self.missing} not finished"] if self.missing else []
        axes = ", ".join(f"{name} ({len(values)})" for name, values in self.axes.items())
        steps = int(self.lanes.attrs["steps"])  # 0: runs from elsewhere, without curves
        sizes = f"SweepResult: {count(self.lanes.sizes['lane'], 'lane')}" + f" of {count(steps, 'step')}" * (steps > 0)
        return "; ".join(filter(None, [sizes, axes, count(self.seeds, "seed")])), ", ".join(counts)

    # Inside

    def _take(self, rows: np.ndarray, grid: LaneGrid) -> "SweepResult":
        """The lanes at `rows`, which are those of `grid`."""
        states = self.states
        own = None if states is None else lambda lane, step=None: states(int(rows[lane]), step)
        return dataclasses.replace(self, lanes=self.lanes.isel(lane=rows), grids=(grid,), origin=None, states=own)

    def _check_lane(self, lane: int) -> int:
        if isinstance(lane, bool) or not isinstance(lane, int | np.integer) or not 0 <= lane < self.lanes.sizes["lane"]:
            raise bad_value("lane", lane, "no such lane", f"Pass 0 to {self.lanes.sizes['lane'] - 1}")
        return int(lane)

    def _evaluated_at(self, at: At, by: str, maximize: bool) -> "SweepResult":
        """The result with the values on validation data at the end, or at the best evaluation of each point."""
        checks.check_choice("at", at, ("end", "best"))
        if at == "end":
            return self
        lanes, states = best_values(self.lanes, self.seeds, by, maximize), self.states
        steps = lanes["evaluation_step"].values
        own = (
            None if states is None else lambda lane, step=None: states(lane, int(steps[lane]) if step is None else step)
        )
        return dataclasses.replace(self, lanes=lanes, origin=None, states=own)

    def _resumable(self) -> "Resumable[SweepResult]":
        if self.origin is None:
            remedy = (
                "Use the whole result of a sweep; open one from disk by gdkit.open(path, problem=..., optimizer=...)"
            )
            raise bad_value("result", "its lanes", "its problem and optimizer are not known", remedy)
        return self.origin

    @property
    def _can_recommend(self) -> bool:
        """Whether there are a numeric axis and a finished lane."""
        return self.main_axis is not None and bool(self.finished.any())

    def _check_finished(self) -> None:
        if not self.finished.any():
            lanes = count(self.finished.size, "lane")
            raise bad_value("result", lanes, "none has finished, so that none is the best", "Resume the sweep first")

    def _check_axis(self, axis: str | None, array: xr.Dataset | xr.DataArray) -> str:
        axis = self.main_axis if axis is None else axis
        if axis is None:
            raise bad_value("axis", None, "the sweep has no numeric axis", "Sweep one, for example learning_rate")
        if axis not in array.coords:
            raise unknown_name("axis", axis, self.axes)
        if array[axis].dtype.kind not in "fiu":
            raise bad_value("axis", axis, "its values are not numbers", "Choose a numeric axis")
        return axis
