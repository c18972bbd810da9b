"""Stopping rules: monitors that end a run."""

import functools
from typing import NamedTuple

import jax.numpy as jnp

from gdkit.checks import check_integer, check_number
from gdkit.errors import bad_value, unknown_name
from gdkit.trees import select, statistics_dtype
from gdkit.types import Array, Context, Evaluation, Info, Monitor, State


class PatienceState(NamedTuple):
    """What `patience` remembers of its checks."""

    least: Array  # () lowest value at a check; of a value that is maximized, the lowest negative one
    misses: Array  # () int32, checks since then


class _AveragedLosses(NamedTuple):
    total: Array  # () of the losses since the last check
    count: Array  # () int32, their number
    checks: PatienceState


def patience(name: str = "loss", *, checks: int, every: int = 1, min_delta: float = 0.0) -> Monitor:
    """A stopping rule: a run ends where `name` has not improved for `checks` checks.

    The training loss is checked after every `every` losses, by their mean: that of a minibatch is too noisy to be
    compared step by step. The run ends at the step of the check, with the params at which that loss was observed. A
    value on validation data is checked whenever it is evaluated (`evaluate_every`), in its own direction
    (`gdkit.Metric`, `Problem.maximize`), and the run ends with the params that were evaluated.

    A check improves if it is better than every check before by more than `min_delta`. How the run ended is
    `EndKind.STOPPED`; ``patience_NAME`` is whether this rule ended it.

    Args:
      name: ``"loss"``, the training loss at every step; or a value that is evaluated along the run, such as
        ``"validation_loss"`` or ``"validation_accuracy"``.
      checks: checks without improvement after which a run ends.
      every: of the training loss, steps from one check to the next.
      min_delta: the least improvement that counts.

    Raises:
      InputValueError, InputTypeError: an argument cannot be used.

    >>> from gdkit import descend, problems, sgd
    >>> rule = patience("loss", checks=5)
    >>> run = descend(problems.parabola(), sgd, 50, hyperparameters={"learning_rate": 1.0}, monitors=[rule])
    >>> int(run.statistics["end_kind"]), int(run.statistics["end_step"])  # the loss is 9 at every step
    (5, 5)
    """
    is_evaluated = isinstance(name, str) and name.startswith(("validation_", "train_"))
    if name != "loss" and not is_evaluated:
        remedy = "Pass 'loss' or the name of a value on validation data, such as 'validation_loss'"
        raise bad_value("name", name, "neither the training loss nor evaluated along a run", remedy)
    check_integer("checks", checks)
    check_integer("every", every)
    check_number("min_delta", min_delta, at_least=0)
    if is_evaluated and every != 1:
        raise bad_value(
            "every", every, f"{name} is checked at each evaluation", "Set evaluate_every of the run instead"
        )
    if is_evaluated:
        return _make_evaluated_patience(name, int(checks), float(min_delta))
    return _make_patience(name, int(checks), int(every), float(min_delta))


@functools.cache
def _make_patience(name: str, checks: int, every: int, min_delta: float) -> Monitor:
    """The monitor of `patience`; cached, so that equal rules are one object and a program compiles once."""

    def init(state: State) -> _AveragedLosses:
        zero, none = jnp.zeros((), statistics_dtype(state.params)), jnp.zeros((), jnp.int32)
        return _AveragedLosses(zero, none, PatienceState(jnp.full_like(zero, jnp.inf), none))

    def update(m: _AveragedLosses, before: State, after: State, info: Info, context: Context) -> _AveragedLosses:
        m = m._replace(total=m.total + info.loss, count=m.count + 1)
        checked = _AveragedLosses(
            jnp.zeros_like(m.total), m.count - every, update_patience(m.checks, m.total / every, min_delta)
        )
        return select(m.count == every, checked, m)

    return Monitor(
        init,
        update,
        read=lambda m: {f"patience_{name}": m.checks.misses >= checks},
        stop=lambda m: m.checks.misses >= checks,
    )


@functools.cache
def _make_evaluated_patience(name: str, checks: int, min_delta: float) -> Monitor:
    """The monitor of `patience` for a value that is evaluated along the run; the step after a check ends the run."""

    def init(state: State) -> PatienceState:
        return PatienceState(jnp.full((), jnp.inf, statistics_dtype(state.params)), jnp.zeros((), jnp.int32))

    def on_evaluation(m: PatienceState, state: State, evaluation: Evaluation) -> PatienceState:
        if name not in evaluation.values:
            raise unknown_name("name", name, evaluation.values)
        value = evaluation.values[name].astype(m.least.dtype)
        return update_patience(m, -value if name in evaluation.maximized else value, min_delta)

    return Monitor(
        init,
        update=lambda m, *_: m,
        read=lambda m: {f"patience_{name}": m.misses >= checks},
        stop=lambda m: m.misses >= checks,
        on_evaluation=on_evaluation,
    )


def update_patience(m: PatienceState, value: Array, min_delta: float) -> PatienceState:
    """The memory of `patience` after a check of `value`."""
    improved = value < m.least - min_delta
    misses = jnp.where(improved, 0, m.misses + 1)
    return PatienceState(jnp.where(improved, value, m.least), misses)
