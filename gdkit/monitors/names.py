"""Names of the variables of a result: those of built-in statistics, and checks of those that users choose."""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence

import jax
import jax.numpy as jnp

from gdkit import checks
from gdkit.errors import bad_type, bad_value
from gdkit.monitors.defaults import DEFAULT
from gdkit.monitors.record import read, start_record
from gdkit.tracing import user_code
from gdkit.types import Array, Monitor, State

_COORDINATES = frozenset(
    {"lane", "seed", "optimizer", "regime", "point", "curve_step", "evaluation", "evaluation_step"}
)
_DERIVED = frozenset({"stochastic", "optimum", "reference_loss", "curve_loss", "late_variation", "best_evaluation"})


@functools.cache
def built_in_names() -> frozenset[str]:
    """The names of built-in statistics, and of coordinates and dimensions of a result.

    >>> {"final_loss", "end_kind", "seed", "lane"} <= built_in_names()
    True
    """
    start = lambda: start_record(DEFAULT, State(jnp.zeros(()), (), ()))
    return frozenset(jax.eval_shape(lambda: read(DEFAULT, start()))) | _COORDINATES | _DERIVED


def check_monitor_names(watched: Sequence[Monitor], taken: Iterable[str], start: Callable[[], State]) -> None:
    """Raise for a name that two monitors read, that is taken, or that a result cannot hold.

    Args:
      watched: monitors of the user.
      taken: the names that the result has besides.
      start: returns a state before its first step; it is only traced.

    Raises:
      InputValueError, InputTypeError: such a name, a `read` that returns no mapping, or a `stop` that returns no bool.
    """
    owners = dict.fromkeys(taken, "a statistic, an axis or a dimension of the result has this name")
    for monitor in watched:
        _check_stop(monitor, start)
        values = jax.eval_shape(lambda monitor=monitor: _read_first(monitor, start()))
        dimensions = [f"{name}_{i}" for name, value in values.items() for i in range(1, value.ndim + 1)]
        for name in (*values, *dimensions):
            is_reserved = name in values and name.startswith("curve_") and name not in _DERIVED
            owner = owners.get(name, "names of this form are those of curves over steps" if is_reserved else None)
            if owner:
                raise bad_value("monitors", name, owner, "Return it under another name from read")
            owners[name] = "another monitor reads this name"


def _read_first(monitor: Monitor, state: State) -> dict[str, Array]:
    """What a monitor reads before the first step; names are checked before JAX sorts them."""
    values = monitor.read(monitor.init(state))
    if not isinstance(values, Mapping):
        raise bad_type("monitors", values, "read does not return a mapping", "Return {name: value} from read")
    for name in values:
        checks.check_variable_name("monitors", name)
    return {name: jnp.asarray(value) for name, value in values.items()}


def _check_stop(monitor: Monitor, start: Callable[[], State]) -> None:
    """Raise unless the stopping rule of a monitor, if it has one, maps its memory to one bool."""
    stop = monitor.stop
    if stop is None:
        return
    remedy = "Let stop(memory) return one bool, for example memory.misses >= 5"
    if not callable(stop):
        raise bad_type("monitors", stop, "stop is not a function", remedy)
    with user_code.translate_errors("monitors", stop):
        stops = jax.eval_shape(lambda: jnp.asarray(stop(monitor.init(start()))))
    if stops.shape or stops.dtype != bool:
        found = f"{stops.dtype} of shape {stops.shape}"
        raise bad_type("monitors", stop, f"stop returns {found}, not one bool", remedy)
