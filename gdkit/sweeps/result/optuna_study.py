"""A sweep as a study of Optuna: every lane a trial, its hyperparameters, what became of it."""

import importlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from gdkit.errors import bad_type, bad_value, missing_package
from gdkit.monitors import EndKind
from gdkit.regimes import Regime


def optuna() -> Any:
    """The package.

    Raises:
      MissingPackageError: it is not installed.
    """
    try:
        return importlib.import_module("optuna")
    except ImportError as error:
        raise missing_package("optuna", "optuna", "a study") from error


def to_study(result: Any, study: Any, by: str | None, maximize: bool | None) -> Any:
    """What `SweepResult.to_optuna` does."""
    package = optuna()
    if maximize is None:
        maximize = getattr(study, "direction", None) == package.study.StudyDirection.MAXIMIZE
    direction = "maximize" if maximize else "minimize"
    if study is None:
        study = package.create_study(direction=direction)
    check_study(study, direction)
    distributions = distributions_of(result)
    values = capped(result, by, maximize)
    if not np.isfinite(values).all():
        raise bad_value("by", by, "every lane diverged, and nothing can stand for that", "Choose a loss")
    for lane in np.flatnonzero(result.lanes["end_kind"].values != EndKind.RUNNING):
        own = params_of(result, lane)
        trial = package.trial.create_trial(
            value=float(values[lane]),
            params=own,
            distributions={name: distributions[name] for name in own},
            user_attrs=told(result, lane),
            intermediate_values=finite_curve(result, lane),
        )
        study.add_trial(trial)
    return study


def check_study(study: Any, direction: str) -> None:
    """Raise unless `study` is one, with one objective and this direction."""
    if not isinstance(study, optuna().Study):
        raise bad_type("study", study, "not a study", "Pass what optuna.create_study returns, or leave it out")
    found = [d.name.lower() for d in study.directions]
    if found != [direction]:
        remedy = f"Pass one whose direction is to {direction}, or the other `maximize`"
        raise bad_value("study", ", ".join(found), "it has other directions", remedy)


def capped(result: Any, by: str | None = None, maximize: bool = False) -> np.ndarray:
    """A value for every lane: of a loss at most that at the start, which is what a diverged lane gets; (lanes,).

    So min(loss, loss₀), as in the learning-rate sensitivity of Wortsman et al. 2023. Of anything that is not a loss a
    diverged lane gets the worst that a lane which did not diverge has; if there is none, no value is finite.
    """
    by = result.score_name(by)
    scores = result.scores(by, maximize)
    if by.endswith("_loss") and not maximize:
        start = result.lanes["initial_loss"].values.astype(float)
        cap = np.where(np.isfinite(start), start, np.max(start, where=np.isfinite(start), initial=-np.inf))
    else:
        cap = np.max(scores, where=np.isfinite(scores), initial=-np.inf)
    return np.minimum(scores, cap) * (-1 if maximize else 1)


def params_of(result: Any, lane: int) -> dict[str, Any]:
    """The hyperparameters of a lane, those that its optimizer has; the optimizer itself too, if it is an axis."""
    names = [*(["optimizer"] if result.optimizers else []), *result.axes]
    values = {name: result.lanes[name].values[lane] for name in names}
    plain = {name: v.item() if isinstance(v, np.generic) else v for name, v in values.items()}
    return {name: v for name, v in plain.items() if v == v and v != ""}


def told(result: Any, lane: int) -> dict[str, Any]:
    """What became of a lane: its regime and end, its seed, and the loss as it was."""
    row = {name: result.lanes[name].values[lane].item() for name in ("seed", "end_step", "end_kind", "final_loss")}
    kind = EndKind(int(row["end_kind"])).name.lower()
    return {"regime": Regime(int(result.lane_regimes[lane])).name} | row | {"end_kind": kind, "lane": int(lane)}


def finite_curve(result: Any, lane: int) -> dict[int, float]:
    """Step to loss, as far as it is finite."""
    steps, losses = result.curve(lane)
    return {int(s): float(x) for s, x in zip(steps, losses, strict=True) if np.isfinite(x)}


def distributions_of(result: Any) -> dict[str, Any]:
    """A distribution for every axis: floats in between their least and largest, anything else one of its values."""
    package = optuna()
    known: dict[str, Any] = {}
    for name, values in (result.axes | ({"optimizer": result.optimizers} if result.optimizers else {})).items():
        if isinstance(values, np.ndarray) and values.dtype.kind == "f":
            low, high = float(values.min()), float(values.max())
            known[name] = package.distributions.FloatDistribution(low, high, log=is_log(values))
        else:
            known[name] = package.distributions.CategoricalDistribution([*np.asarray(values).tolist()])
    return known


def is_log(values: np.ndarray) -> bool:
    """Whether values lie more evenly in their logarithms; of two, whether a factor of ten lies between them.

    >>> is_log(np.geomspace(1e-3, 1, 5)), is_log(np.linspace(0.1, 0.9, 5)), is_log(np.array([0.01, 1.0]))
    (True, False, True)
    """
    values = np.unique(values)
    if len(values) < 2 or values[0] <= 0:
        return False
    if len(values) == 2:
        return bool(values[1] >= 10 * values[0])
    uneven = lambda x: np.std(np.diff(x)) / np.mean(np.diff(x))
    return bool(uneven(np.log(values)) < uneven(values))


def read_space(space: Any) -> dict[str, Any]:
    """A search space as distributions: pairs of bounds are log-uniform, as in `gdkit.random_axes`.

    Raises:
      InputValueError, InputTypeError: there is nothing in it, or something that is no distribution.
    """
    package = optuna()
    if not isinstance(space, Mapping) or not space:
        remedy = 'Pass for example {"learning_rate": (1e-4, 1.0)}'
        raise bad_type("space", space, "not a mapping of names to bounds or distributions", remedy)
    return {str(name): _distribution(package, str(name), given) for name, given in space.items()}


def _distribution(package: Any, name: str, given: Any) -> Any:
    argument = f"space[{name!r}]"
    if name == "optimizer":
        raise bad_value(argument, given, "a batch has one optimizer", "Search with each in a call of its own")
    if isinstance(given, package.distributions.BaseDistribution):
        return given
    if not isinstance(given, tuple) or len(given) != 2:
        remedy = "Pass (low, high), or one of optuna.distributions"
        raise bad_type(argument, given, "neither two bounds nor a distribution", remedy)
    if not 0 < given[0] < given[1] < np.inf:
        remedy = "Pass (low, high), or one of optuna.distributions"
        raise bad_value(argument, given, "not two bounds 0 < low < high", remedy)
    return package.distributions.FloatDistribution(*map(float, given), log=True)
