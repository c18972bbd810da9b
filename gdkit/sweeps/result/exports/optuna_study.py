"""A sweep as a study of Optuna: one trial per lane; and search spaces and studies that are passed in, checked."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from gdkit.checks import as_bounds
from gdkit.errors import bad_type, bad_value, import_package
from gdkit.sweeps.axes import is_log
from gdkit.sweeps.scoring.lane_values import SweepLike, finite_curve, finite_scores, hyperparameters_of, outcome_of


def import_optuna() -> Any:
    """The package; raises if it is not installed."""
    return import_package("optuna", "optuna", "a study")


def to_optuna(result: SweepLike, study: Any = None, *, by: str | None = None, maximize: bool | None = None) -> Any:
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
    optuna = import_optuna()
    if maximize is None:
        maximize = result.is_maximized(by)
        maximize |= getattr(study, "direction", None) == optuna.study.StudyDirection.MAXIMIZE
    direction = "maximize" if maximize else "minimize"
    if study is None:
        study = optuna.create_study(direction=direction)
    check_study(study, direction)
    distributions = _distributions_of(result)
    values = finite_scores(result, by, maximize)
    if not np.isfinite(values).all():
        raise bad_value("by", by, "every lane diverged, so no trial has a value", "Choose a loss")
    for lane in np.flatnonzero(result.finished):
        params = hyperparameters_of(result, lane)
        trial = optuna.trial.create_trial(
            value=float(values[lane]),
            params=params,
            distributions={name: distributions[name] for name in params},
            user_attrs=outcome_of(result, lane),
            intermediate_values=finite_curve(result, lane),
        )
        study.add_trial(trial)
    return study


def check_study(study: Any, direction: str) -> None:
    """Raise unless `study` is an Optuna study with one objective in this direction."""
    if not isinstance(study, import_optuna().Study):
        raise bad_type("study", study, "not a study", "Pass what optuna.create_study returns, or leave it out")
    directions = [d.name.lower() for d in study.directions]
    if directions != [direction]:
        remedy = f"Pass a study with the direction {direction}, or change `maximize`"
        raise bad_value("study", ", ".join(directions), "it has other directions", remedy)


def read_space(space: Mapping[str, Any]) -> dict[str, Any]:
    """A search space as distributions; pairs of bounds are log-uniform, as in `gdkit.random_axes`.

    Raises:
      InputValueError, InputTypeError: it is empty, or an entry is no distribution.
    """
    optuna = import_optuna()
    if not isinstance(space, Mapping) or not space:
        remedy = 'Pass for example {"learning_rate": (1e-4, 1.0)}'
        raise bad_type("space", space, "not a mapping of names to bounds or distributions", remedy)
    return {str(name): _distribution(optuna, str(name), entry) for name, entry in space.items()}


def _distribution(optuna: Any, name: str, entry: Any) -> Any:
    argument = f"space[{name!r}]"
    if name == "optimizer":
        raise bad_value(argument, entry, "a search has one optimizer", "Call it once per optimizer")
    if isinstance(entry, optuna.distributions.BaseDistribution):
        return entry
    remedy = "Pass (low, high), or one of optuna.distributions"
    if not isinstance(entry, tuple):
        raise bad_type(argument, entry, "neither two bounds nor a distribution", remedy)
    return optuna.distributions.FloatDistribution(*as_bounds(argument, entry, above=0), log=True)


def _distributions_of(result: SweepLike) -> dict[str, Any]:
    """The distribution of every axis: floats between its lowest and highest value, others categorical."""
    optuna = import_optuna()
    distributions: dict[str, Any] = {}
    for name, values in (result.axes | ({"optimizer": result.optimizers} if result.optimizers else {})).items():
        if isinstance(values, np.ndarray) and values.dtype.kind == "f":
            low, high = float(values.min()), float(values.max())
            distributions[name] = optuna.distributions.FloatDistribution(low, high, log=is_log(values))
        else:
            distributions[name] = optuna.distributions.CategoricalDistribution([*np.asarray(values).tolist()])
    return distributions
