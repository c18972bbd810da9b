"""SweepResult: the lanes of a sweep as labelled arrays, and the questions that they answer."""

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import xarray as xr
from jax.typing import ArrayLike

from gdkit import checks
from gdkit.errors import bad_value, unknown_name
from gdkit.monitors import EndKind
from gdkit.regimes import DEFAULT_THRESHOLDS, Regime, Thresholds, Verdict
from gdkit.sweeps.description import LaneGrid
from gdkit.sweeps.result import resumable
from gdkit.sweeps.result.arguments import check_axis, check_finished, check_lane, check_score_name
from gdkit.sweeps.result.arrays import Judging, arrange_arrays
from gdkit.sweeps.result.evaluations import best_step, best_values
from gdkit.sweeps.result.exports import files, optuna_study, trackers
from gdkit.sweeps.result.labels import distinct, find_rows, unstack
from gdkit.sweeps.result.printing import summarize, to_html
from gdkit.sweeps.result.recommend import Recommendation, central_lane, recommend, recommend_for
from gdkit.sweeps.result.resumable import LaneStates, Refinement, Resumable, check_resumable
from gdkit.sweeps.scoring import judging
from gdkit.sweeps.scoring.direction import default_score, is_maximized, maximized_names, orient
from gdkit.sweeps.scoring.lane_values import At, curve_names, end_values, plain_values, read_curve
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
        return self._shape({"regime": self.lane_regimes, "onset": self._verdict.onset} | self._verdict.evidence)

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

        If only the ends of runs are known, it is DIVERGED where the loss left its bounds, and UNKNOWN elsewhere.
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
        names = dict.fromkeys(axis for grid in self.grids for axis in grid.axes)
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

        Width, depth, unroll, chunk and choice are lists where there are several programs, in their order.

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
        part, unused = self._take(rows, grid), self.axes.keys() - set(grid.axes)
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
            checks.check_choice("axis", name, self.axes)
        line = LaneGrid(self.grids[0].label, tuple(d for d in self.grids[0].dimensions if set(axes) & set(d[1])))
        fixed = [name for name in self.axes if name not in line.axes]
        for name in at or {}:
            if name not in fixed:
                raise unknown_name("at", name, fixed)
        center = central_lane(self, axes) if len(fixed) > len(at or {}) else 0
        chosen = {name: self.lanes[name].values[center] for name in fixed} | dict(at or {})
        rows = find_rows(self.lanes, chosen)
        if not rows.size:
            choices = {name: self.axes[name].tolist() for name in chosen}
            raise bad_value("at", dict(at or {}), "the sweep has no such point", f"Choose from {choices}")
        return self._take(rows, line)

    def with_thresholds(self, **changes: float) -> "SweepResult":
        """The same lanes, with regimes by other thresholds, those of `Thresholds` by name.

        Raises:
          InputValueError, InputTypeError: there is no such threshold, or it is no finite number.
        """
        for name in changes:
            checks.check_choice("thresholds", name, [field.name for field in dataclasses.fields(Thresholds)])
        return dataclasses.replace(self, thresholds=dataclasses.replace(self.thresholds, **changes))

    def curve(self, lane: int, name: str = "loss") -> tuple[np.ndarray, np.ndarray]:
        """Steps and values of one lane up to its end, that at the end included; each ``(points,)``.

        Args:
          lane: its place on ``lane``.
          name: ``loss``; a value on validation data, of a sweep with `evaluate_every`; or what the loss logs under this
            name (`Problem.has_logs`), at the recorded steps.

        Raises:
          InputValueError: nothing of this name was recorded; no such lane.
        """
        checks.check_choice("name", name, curve_names(self.lanes))
        return read_curve(self.lanes, check_lane(self, lane), name)

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
        shaped = self._shape({"diverged": self.lane_regimes == Regime.DIVERGED, "finished": self.finished})
        return judging.find_edges(shaped["diverged"], shaped["finished"], check_axis(self, axis, shaped))

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
        check_finished(self)
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

        The mean scores over seeds are shrunk towards those of their neighbors along every numeric axis, to the extent
        that the seeds show differences to be noise. An isolated or bouncing point has to be better by a margin.
        docs/recommendation.md has the rule and how well it does; `best` is the plain optimum.

        Args:
          axis: a numeric axis, by default `main_axis`.
          by: the variable to compare; by default ``validation_loss`` if there is one, else ``final_loss``.
          maximize: whether larger is better; by default as the metric declares it (`gdkit.Metric`).
          at: as in `best`.
          horizon: a number of steps, T, for which to predict the best value from how it moves with the steps along
            this sweep: from the evaluations (`evaluate_every`), or the curve of `by`. `Recommendation.horizon` has the
            law. It holds for a constant learning rate, where a run up to some step equals a shorter run;
            docs/recommendation.md says when nothing is predicted.

        Raises:
          InputValueError: no lane has finished; `axis` is not a numeric axis; `by` is not a variable, or was not
            evaluated along the run; `horizon` is not an integer of at least 1, is passed with `at`, or the optimizer
            has a schedule by `optimizers.with_schedule` or by its config.
        """
        check_finished(self)
        by, axis = self.score_name(by), check_axis(self, axis, self.lanes)
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
        return check_score_name(self, by)

    def is_maximized(self, by: str | None = None, maximize: bool | None = None) -> bool:
        """Whether `best` and `recommend` prefer large values of `by`: `maximize`, or as the metric declares it."""
        if maximize is None:
            return is_maximized(maximized_names(self.lanes.attrs), self.score_name(by))
        checks.check_flag("maximize", maximize)
        return maximize

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
        lane = check_lane(self, lane)
        if self.states is None:
            remedy = "Take it from the result of sweep, or from a run directory: sweep(store=DIR), gdkit.open(DIR)"
            raise bad_value("result", "its states", "a file of results and a sweep of a function have none", remedy)
        if not self.finished[lane]:
            raise bad_value("lane", lane, "it has not finished", "Resume the sweep first")
        checks.check_choice("at", at, ("end", "best"))
        if at == "end":
            return self.states(lane)
        by = self.score_name()
        return self.states(lane, best_step(self.lanes, lane, by, self.is_maximized(by)))

    # Continuing

    def extend(self, steps: int, *, progress: Callable[[Any], None] | None = None) -> "SweepResult":
        """The same sweep with `steps` steps in total: lanes continue where they stopped, unless they ended early.

        The result is that of a sweep of so many steps, bit for bit on CPU.

        Raises:
          InputValueError: `steps` is not larger than before, a schedule depends on it, or the lanes were too large to
            keep in memory; the result is part of a sweep, or was read from disk without its code.

        >>> from gdkit import problems, sgd, sweep
        >>> short = sweep(problems.parabola(), sgd, {"learning_rate": [0.01, 0.2]}, steps=20)
        >>> [int(step) for step in short.extend(50).lanes["end_step"]]
        [50, 50]
        """
        longer = check_resumable(self.origin, self.lanes).extend(steps, progress=progress)
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
        refinement = Refinement(check_axis(self, axis, self.lanes), around, count, by, maximize)
        return check_resumable(self.origin, self.lanes).refine(self, refinement, progress)

    replay = resumable.replay
    explain = resumable.explain

    # Exports

    to_dataframe = files.to_dataframe
    to_optuna = optuna_study.to_optuna
    log_to_tensorboard = trackers.log_to_tensorboard
    log_to_mlflow = trackers.log_to_mlflow
    log_to_wandb = trackers.log_to_wandb
    export = files.export
    report = files.report
    save = files.save

    def __repr__(self) -> str:
        lines = summarize(self)
        return "\n".join([*lines, str(self.recommend())] if self._can_recommend else lines)

    def _repr_html_(self) -> str:
        parts = [self.select(optimizer=label) for label in self.optimizers] or [self]
        found = {part.optimizers: part.recommend() for part in parts if part._can_recommend}
        return to_html(*summarize(self), found, len(self.optimizers))

    # Inside

    def _take(self, rows: np.ndarray, grid: LaneGrid) -> "SweepResult":
        """The lanes at `rows`, which are those of `grid`."""
        states = self.states
        own = None if states is None else lambda lane, step=None: states(int(rows[lane]), step)
        return dataclasses.replace(self, lanes=self.lanes.isel(lane=rows), grids=(grid,), origin=None, states=own)

    def _shape(self, columns: Mapping[str, np.ndarray]) -> xr.Dataset:
        """Values per lane, shaped like `data`."""
        variables = {name: ("lane", np.broadcast_to(v, self.lanes.sizes["lane"])) for name, v in columns.items()}
        return unstack(xr.Dataset(variables, self.lanes.coords), self.grids, self.seeds)

    def _evaluated_at(self, at: At, by: str, maximize: bool) -> "SweepResult":
        """The result with the values on validation data at the end, or at the best evaluation of each point."""
        checks.check_choice("at", at, ("end", "best"))
        if at == "end":
            return self
        lanes, states = best_values(self.lanes, self.seeds, by, maximize), self.states
        steps = lanes["evaluation_step"].values
        find = lambda lane, step: int(steps[lane]) if step is None else step
        own = None if states is None else lambda lane, step=None: states(lane, find(lane, step))
        return dataclasses.replace(self, lanes=lanes, origin=None, states=own)

    @property
    def _can_recommend(self) -> bool:
        """Whether there are a numeric axis and a finished lane."""
        return self.main_axis is not None and bool(self.finished.any())
