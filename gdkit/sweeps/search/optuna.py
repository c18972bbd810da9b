"""optuna_search: a sampler of Optuna proposes batches of points, and one sweep evaluates each batch."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from gdkit import binding, checks
from gdkit.descent import evaluation
from gdkit.problems import ProblemLike
from gdkit.problems.problem import maximized_names
from gdkit.regimes import Regime
from gdkit.sweeps.axes import lanes, paired, static
from gdkit.sweeps.plan.shapes import Plan
from gdkit.sweeps.request import SweepRequest, check_options, check_request
from gdkit.sweeps.result.exports import optuna_study
from gdkit.sweeps.result.result import SweepResult
from gdkit.sweeps.resume.merge import PartialSweep, merge_sweeps, pad_places
from gdkit.sweeps.resume.origin import attach_origin
from gdkit.sweeps.scoring.direction import default_score, is_maximized
from gdkit.sweeps.scoring.lane_values import finite_scores
from gdkit.sweeps.sweep import run_request
from gdkit.types import Key, OptimizerLike

_OVER_SEEDS: dict[str, Callable[..., np.ndarray]] = {"mean": np.mean, "median": np.median}


class OptunaSearch(NamedTuple):
    """The study that the sampler used, and the sweep of all its points."""

    study: Any  # an optuna.Study
    result: SweepResult  # trial i of the search is point i


def optuna_search(
    problem: ProblemLike,
    optimizer: OptimizerLike | str,
    space: Mapping[str, Any],
    *,
    steps: int,
    trials: int,
    batch: int = 16,
    study: Any = None,
    over_seeds: str = "mean",
    by: str | None = None,
    maximize: bool | None = None,
    **options: Any,
) -> OptunaSearch:
    """Search a space with a sampler of Optuna, `batch` points at a time, each batch as one sweep.

    The sampler proposes `batch` points before it sees any of their values, as
    https://github.com/optuna/optuna/issues/2660 describes: to it the trials of a batch are running. TPE ignores running
    trials unless it has ``constant_liar=True``, which counts them as bad and so spreads the points of a batch; the
    sampler of the default study has it. One compiled program serves every batch; each combination of categorical
    parameters has its own. A diverged trial is complete, with its initial loss as value, as in `SweepResult.to_optuna`.
    A trial fails only if it has no value: of a metric, when every lane of its batch diverged.

    Args:
      problem, optimizer: as in `sweep`.
      space: name to (low, high), log-uniform in between, or to one of ``optuna.distributions``. Categorical parameters
        are static.
      steps: updates per lane.
      trials: number of points.
      batch: number of points per sweep.
      study: any study with one objective, with any sampler; its earlier trials count. By default a new one.
      over_seeds: ``"mean"`` or ``"median"`` of the values of a point's seeds.
      by, maximize: as in `SweepResult.best`.
      options: further arguments of `sweep`: seeds, key, monitors, curve_points, target, diverged_above, plan.

    Raises:
      MissingPackageError: Optuna is not installed.
      GdkitError: an argument cannot be used.
    """
    for argument, value in (("trials", trials), ("batch", batch)):
        checks.check_integer(argument, value)
    checks.check_choice("over_seeds", over_seeds, _OVER_SEEDS)
    check_options(options)
    distributions = optuna_study.read_space(space)
    maximize = _is_maximized(problem, distributions, by) if maximize is None else maximize
    study = _check_or_create_study(study, maximize, options.get("key", 0))
    make_request = functools.partial(
        _make_batch_request, problem, optimizer, distributions, batch, steps=steps, **options
    )
    parts: list[PartialSweep] = []
    proposed: list[Any] = []
    while len(proposed) < trials:
        batch_trials = [study.ask(distributions) for _ in range(min(batch, trials - len(proposed)))]
        places = _fill_blocks([trial.params for trial in batch_trials], distributions, batch)
        result, lanes_ = run_request(make_request([batch_trials[place].params for place in places]))
        values = _OVER_SEEDS[over_seeds](finite_scores(result, by, maximize).reshape(-1, result.seeds), axis=1)
        _report_values(study, batch_trials, result, places, values)
        parts.append(PartialSweep(result, lanes_, len(proposed) + places))
        proposed += batch_trials
    whole = merge_sweeps(make_request([trial.params for trial in proposed]), parts)
    return OptunaSearch(study, attach_origin(*whole, run_request))


def _is_maximized(problem: ProblemLike, distributions: Mapping[str, Any], by: str | None) -> bool:
    """Whether `by`, or else the default score, is better when larger."""
    point = {name: d.choices[0] if _is_categorical(d) else d.low for name, d in distributions.items()}
    concrete, _ = binding.resolve_problem(problem, point)
    names = maximized_names(concrete)
    return is_maximized(names, by or default_score(evaluation.evaluation_names(concrete), names))


def _check_or_create_study(study: Any, maximize: bool, key: int | Key) -> Any:
    """The study, checked; by default a new one, whose sampler fits batches."""
    optuna = optuna_study.import_optuna()
    direction = "maximize" if maximize else "minimize"
    if study is None:
        seed = int(np.asarray(jax.random.key_data(checks.as_key(key))).ravel()[-1])
        sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        return optuna.create_study(sampler=sampler, direction=direction)
    optuna_study.check_study(study, direction)
    return study


def _make_batch_request(
    problem: ProblemLike,
    optimizer: OptimizerLike | str,
    distributions: Mapping[str, Any],
    batch: int,
    points: Sequence[dict[str, Any]],
    **options: Any,
) -> SweepRequest:
    """The sweep of some points, in blocks of the width that all batches have."""
    mark = {name: static if _is_categorical(d) else lanes for name, d in distributions.items()}
    axes = paired({name: mark[name]([point[name] for point in points]) for name in distributions})
    plan = options.pop("plan", None) or Plan()
    if plan.width is None and plan.chunk is None and any(map(_is_categorical, distributions.values())):
        plan = dataclasses.replace(plan, width=_block_width(distributions, batch), depth=plan.depth or 1)
    return check_request(problem, optimizer, axes, plan=plan, **options)


def _is_categorical(distribution: Any) -> bool:
    return hasattr(distribution, "choices")


def _block_width(distributions: Mapping[str, Any], batch: int) -> int:
    """Points per combination of categorical parameters, if all combinations are equally frequent."""
    return math.ceil(batch / math.prod(len(d.choices) for d in distributions.values() if _is_categorical(d)))


def _fill_blocks(points: Sequence[dict[str, Any]], distributions: Mapping[str, Any], batch: int) -> np.ndarray:
    """Places of points, program by program, the last of each repeated to fill its blocks; (padded points,)."""
    names = [name for name, d in distributions.items() if _is_categorical(d)]
    groups: dict[tuple, list[int]] = {}
    for place, point in enumerate(points):
        groups.setdefault(tuple(repr(point[name]) for name in names), []).append(place)
    width = _block_width(distributions, batch)
    return np.concatenate([np.asarray(own)[pad_places(len(own), width)] for own in groups.values()])


def _report_values(study: Any, trials: list, result: SweepResult, places: np.ndarray, values: np.ndarray) -> None:
    """Report to the study the value of every trial, and the regimes and last steps of its seeds."""
    failed = optuna_study.import_optuna().trial.TrialState.FAIL
    for number, trial in enumerate(trials):
        row = int(np.flatnonzero(places == number)[0])
        mine = range(row * result.seeds, (row + 1) * result.seeds)
        trial.set_user_attr("regimes", [Regime(int(result.lane_regimes[lane])).name for lane in mine])
        trial.set_user_attr("end_steps", result.lanes["end_step"].values[mine].tolist())
        value = float(values[row])
        if np.isfinite(value):
            study.tell(trial, value)
        else:
            study.tell(trial, state=failed)
