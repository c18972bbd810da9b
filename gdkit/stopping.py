"""Stopping rules: monitors that end a run."""

import functools
from typing import NamedTuple

import jax.numpy as jnp

from gdkit.checks import check_integer, check_number
from gdkit.errors import bad_value
from gdkit.trees import select, statistics_dtype
from gdkit.types import Array, Context, Info, Monitor, State


class PatienceState(NamedTuple):
    """What `patience` remembers."""

    total: Array  # () of the losses since the last check
    count: Array  # () int32, their number
    least: Array  # () lowest value at a check
    misses: Array  # () int32, checks since then


def patience(name: str = "loss", *, checks: int, every: int = 1, min_delta: float = 0.0) -> Monitor:
    """A stopping rule: a run ends where `name` has not improved for `checks` checks.

    A check is made after every `every` losses, of their mean: that of a minibatch is too noisy to be compared step by
    step. It improves if it is lower than at every check before by more than `min_delta`. The run ends at the step of
    the check, with the params at which that loss was observed, as `EndKind.STOPPED`. ``patience_loss`` is whether this
    rule ended it.

    Args:
      name: ``"loss"``, the training loss at every step.
      checks: checks without improvement after which a run ends.
      every: steps from one check to the next.
      min_delta: the least decrease that counts.

    Raises:
      InputValueError, InputTypeError: an argument cannot be used.

    >>> from gdkit import descend, problems, sgd
    >>> rule = patience("loss", checks=5)
    >>> run = descend(problems.parabola(), sgd, 50, hyperparameters={"learning_rate": 1.0}, monitors=[rule])
    >>> int(run.statistics["end_kind"]), int(run.statistics["end_step"])  # the loss is 9 at every step
    (5, 5)
    """
    if name != "loss":
        raise bad_value("name", name, "not a value that is recorded at every step", "Pass 'loss'")
    check_integer("checks", checks)
    check_integer("every", every)
    check_number("min_delta", min_delta, at_least=0)
    return _make_patience(name, int(checks), int(every), float(min_delta))


@functools.cache
def _make_patience(name: str, checks: int, every: int, min_delta: float) -> Monitor:
    """The monitor of `patience`; cached, so that equal rules are one object and a program compiles once."""

    def init(state: State) -> PatienceState:
        zero, none = jnp.zeros((), statistics_dtype(state.params)), jnp.zeros((), jnp.int32)
        return PatienceState(zero, none, jnp.full_like(zero, jnp.inf), none)

    def update(m: PatienceState, before: State, after: State, info: Info, context: Context) -> PatienceState:
        m = m._replace(total=m.total + info.loss, count=m.count + 1)
        checked = update_patience(m, m.total / every, min_delta)
        return select(m.count == every, checked._replace(total=jnp.zeros_like(m.total), count=m.count - every), m)

    return Monitor(
        init,
        update,
        read=lambda m: {f"patience_{name}": m.misses >= checks},
        stop=lambda m: m.misses >= checks,
    )


def update_patience(m: PatienceState, value: Array, min_delta: float) -> PatienceState:
    """The memory of `patience` after a check of `value`."""
    improved = value < m.least - min_delta
    misses = jnp.where(improved, 0, m.misses + 1)
    return m._replace(least=jnp.where(improved, value, m.least), misses=misses)
