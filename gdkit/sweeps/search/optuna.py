"""Batched ask and tell: a sampler of Optuna proposes points, one sweep answers for all of them."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from gdkit import checks
from gdkit.errors import bad_value
from gdkit.problems import Problem
from gdkit.regimes import Regime
from gdkit.sweeps.axes import lanes, paired, static
from gdkit.sweeps.plan.shapes import Plan
from gdkit.sweeps.request import SweepRequest, check_request
from gdkit.sweeps.result import optuna_study
from gdkit.sweeps.result.lane_values import finite_scores
from gdkit.sweeps.result.result import SweepResult
from gdkit.sweeps.resume.merge import PartialSweep, filled, merge_sweeps
from gdkit.sweeps.resume.origin import attach_origin
from gdkit.sweeps.sweep import run_request

_OVER_SEEDS: dict[str, Callable[..., np.ndarray]] = {"mean": np.mean, "median": np.median}


class Searched(NamedTuple):
    """What a search found: the study that a sampler saw, and the sweep of all of its points."""

    study: Any
    result: SweepResult  # trial i of the search is point i


def optuna_search(
    problem: Problem | Callable[..., Problem],
    optimizer: Any,
    space: Mapping[str, Any],
    *,
    steps: int,
    trials: int,
    batch: int = 16,
    study: Any = None,
    over_seeds: str = "mean",
    by: str | None = None,
    maximize: bool = False,
    **options: Any,
) -> Searched:
    """Let a sampler of Optuna propose `batch` points at a time, and run each batch as one sweep.

    The sampler is asked `batch` times before it is told anything, as https://github.com/optuna/optuna/issues/2660
    describes: it sees the trials of a batch as running. TPE leaves those out unless it has ``constant_liar=True``,
    which takes them for bad and so keeps the points of a batch apart; the study that is made here has that. Then all
    are told, in order. One compiled program serves every batch; of categorical parameters each combination has its own.
    A diverged trial is complete, with its initial loss as value, as in `SweepResult.to_optuna`; a trial fails only
    where no value can be made up, of a metric when a whole batch diverged.

    Args:
      problem, optimizer: as in `sweep`.
      space: name to (low, high), log-uniform in between, or to one of ``optuna.distributions``. Categorical ones are
        static.
      steps: updates a lane.
      trials: how many points in all.
      batch: how many at a time.
      study: any study with one objective, and so any sampler; what it has seen before counts.
      over_seeds: ``"mean"`` or ``"median"`` of the values of a point's seeds.
      by, maximize: as in `SweepResult.best`.
      options: what else `sweep` takes: seeds, key, monitors, curve_points, target, diverged_above, plan.

    Raises:
      MissingPackageError: Optuna is not installed.
      GdkitError: an argument cannot be used.
    """
    for argument, value in (("trials", trials), ("batch", batch)):
        checks.check_integer(argument, value)
    if over_seeds not in _OVER_SEEDS:
        raise bad_value("over_seeds", over_seeds, "not a way to put seeds together", "Pass 'mean' or 'median'")
    known = optuna_study.read_space(space)
    study = _study(study, maximize, options.get("key", 0))
    make = lambda points: _request(problem, optimizer, known, points, batch, steps=steps, **options)
    parts, asked = [], []
    while len(asked) < trials:
        now = [study.ask(known) for _ in range(min(batch, trials - len(asked)))]
        points, places = _whole_blocks([trial.params for trial in now], known, batch)
        result, kept = run_request(make(points))
        _tell(study, now, result, places, _OVER_SEEDS[over_seeds], by, maximize)
        parts.append(PartialSweep(result, kept, len(asked) + places))
        asked += now
    return Searched(study, attach_origin(*merge_sweeps(make([trial.params for trial in asked]), parts), run_request))


def _study(study: Any, maximize: bool, key: Any) -> Any:
    """The study, or one with a sampler for batches."""
    package = optuna_study.import_optuna()
    direction = "maximize" if maximize else "minimize"
    if study is None:
        seed = int(np.asarray(jax.random.key_data(checks.as_key(key))).ravel()[-1])
        sampler = package.samplers.TPESampler(seed=seed, constant_liar=True)
        return package.create_study(sampler=sampler, direction=direction)
    optuna_study.check_study(study, direction)
    return study


def _request(
    problem: Any, factory: Any, known: Mapping, points: list[dict], batch: int, **options: Any
) -> SweepRequest:
    """The sweep of some points, in blocks of the width that all batches have."""
    mark = {name: static if _is_static(d) else lanes for name, d in known.items()}
    axes = paired({name: mark[name]([point[name] for point in points]) for name in known})
    plan = options.pop("plan", None) or Plan()
    if plan.width is None and any(map(_is_static, known.values())):
        options["plan"] = Plan(**(vars(plan) | {"width": _width(known, batch), "depth": plan.depth or 1}))
    else:
        options["plan"] = plan
    return check_request(problem, factory, axes, **options)


def _is_static(distribution: Any) -> bool:
    return hasattr(distribution, "choices")


def _width(known: Mapping, batch: int) -> int:
    """Points of one combination of categorical parameters, if all came equally often."""
    return math.ceil(batch / math.prod(len(d.choices) for d in known.values() if _is_static(d)))


def _whole_blocks(points: list[dict], known: Mapping, batch: int) -> tuple[list[dict], np.ndarray]:
    """The points of each program, the last repeated until they fill its blocks; and which point each one is."""
    names = [name for name, d in known.items() if _is_static(d)]
    groups: dict[tuple, list[int]] = {}
    for number, point in enumerate(points):
        groups.setdefault(tuple(repr(point[name]) for name in names), []).append(number)
    width = _width(known, batch)
    places = np.concatenate([np.asarray(own)[filled(len(own), width)] for own in groups.values()])
    return [points[place] for place in places], places


def _tell(
    study: Any,
    trials: list,
    result: SweepResult,
    places: np.ndarray,
    together: Callable[..., np.ndarray],
    by: str | None,
    maximize: bool,
) -> None:
    """Tell the study the value of every trial, and what became of its seeds."""
    values = finite_scores(result, by, maximize).reshape(-1, result.seeds)
    for number, trial in enumerate(trials):
        row = int(np.flatnonzero(places == number)[0])
        mine = range(row * result.seeds, (row + 1) * result.seeds)
        trial.set_user_attr("regimes", [Regime(int(result.lane_regimes[lane])).name for lane in mine])
        trial.set_user_attr("end_steps", result.lanes["end_step"].values[mine].tolist())
        value = float(together(values[row]))
        if np.isfinite(value):
            study.tell(trial, value)
        else:
            study.tell(trial, state=optuna_study.import_optuna().trial.TrialState.FAIL)
