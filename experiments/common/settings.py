"""Settings of a study: the values of its config, checked, over its defaults."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from gdkit.errors import bad_type, bad_value, unknown_name

_REMEDY = "Leave it out for the default"


def complete_settings(
    given: Any, defaults: Mapping[str, Any], *, signed: Collection[str] = (), name: str = "settings"
) -> dict[str, Any]:
    """`given` over `defaults`, and likewise for mappings within them.

    Each value must have the kind of its default: a string, a number, an integer, or a list of these. Numbers must be
    finite and, except for the settings named in `signed`, above 0.

    Raises:
      InputTypeError, InputValueError: a name that is not in `defaults`, or a value of another kind.

    >>> complete_settings({"grid": {"to": 2}}, {"steps": 10, "grid": {"from": 0.1, "to": 1.0}})
    {'steps': 10, 'grid': {'from': 0.1, 'to': 2}}
    """
    if not isinstance(given, Mapping):
        raise bad_type(name, given, "not a mapping", "Give names and values")
    for key in given:
        if key not in defaults:
            raise unknown_name(name, key, defaults)
    return {
        key: _check(f"{name}.{key}", given.get(key, default), default, -math.inf if key in signed else 0)
        for key, default in defaults.items()
    }


def geometric_grid(grid: Mapping[str, Any]) -> np.ndarray:
    """`count` values at equal ratios between `from` and `to`, (count,).

    >>> geometric_grid({"from": 0.5, "to": 2.0, "count": 3}).tolist()
    [0.5, 1.0, 2.0]
    """
    return np.geomspace(grid["from"], grid["to"], grid["count"])


def _check(name: str, value: Any, default: Any, above: float) -> Any:
    if isinstance(default, Mapping):
        return complete_settings(value, default, name=name)
    if isinstance(default, Sequence) and not isinstance(default, str):
        if isinstance(value, str) or not isinstance(value, Sequence) or not value:
            raise bad_type(name, value, "not a list", f"Give one, for example {list(default)}")
        return [_check(f"{name}[{i}]", item, default[0], above) for i, item in enumerate(value)]
    if isinstance(default, str):
        if not isinstance(value, str):
            raise bad_type(name, value, "not a string", f"Give one, for example {default}")
        return value
    if isinstance(value, bool) or not isinstance(value, int if isinstance(default, int) else int | float):
        raise bad_type(name, value, "not an integer" if isinstance(default, int) else "not a number", _REMEDY)
    if not above < value < math.inf:
        raise bad_value(name, value, "not a number above 0" if above == 0 else "not finite", _REMEDY)
    return value
