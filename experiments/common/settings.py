"""Settings of a study: what a config gives, over the study's defaults, checked."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from gdkit.errors import bad_type, bad_value, unknown_name


def complete(
    given: Any, defaults: Mapping[str, Any], *, free: Collection[str] = (), name: str = "settings"
) -> dict[str, Any]:
    """`given` over `defaults`, mappings within them too.

    Each value must be of the kind of its default: a name, a number, a whole number, or a list of these. Numbers must be
    finite and above 0, but for those named in `free`.

    Raises:
      InputTypeError, InputValueError: a name that `defaults` lack, or a value of another kind; the message names it.

    >>> complete({"grid": {"to": 2}}, {"steps": 10, "grid": {"from": 0.1, "to": 1.0}})
    {'steps': 10, 'grid': {'from': 0.1, 'to': 2}}
    """
    if not isinstance(given, Mapping):
        raise bad_type(name, given, "not a mapping", "Give names and values")
    for key in given:
        if key not in defaults:
            raise unknown_name(name, key, defaults)
    return {
        key: _checked(f"{name}.{key}", given.get(key, value), value, -math.inf if key in free else 0)
        for key, value in defaults.items()
    }


def spaced(grid: Mapping[str, Any]) -> np.ndarray:
    """Values at equal ratios, as a grid's from, to and count say, (count,).

    >>> spaced({"from": 0.5, "to": 2.0, "count": 3}).tolist()
    [0.5, 1.0, 2.0]
    """
    return np.geomspace(grid["from"], grid["to"], grid["count"])


def _checked(name: str, value: Any, default: Any, above: float) -> Any:
    if isinstance(default, Mapping):
        return complete(value, default, name=name)
    if isinstance(default, Sequence) and not isinstance(default, str):
        if isinstance(value, str) or not isinstance(value, Sequence) or not value:
            raise bad_type(name, value, "not a list", f"Give one, for example {list(default)}")
        return [_checked(f"{name}[{i}]", item, default[0], above) for i, item in enumerate(value)]
    if isinstance(default, str):
        if not isinstance(value, str):
            raise bad_type(name, value, "not a name", f"Give one, for example {default}")
        return value
    if isinstance(value, bool) or not isinstance(value, int if isinstance(default, int) else int | float):
        raise bad_type(name, value, "not a whole number" if isinstance(default, int) else "not a number", _DEFAULT)
    if not above < value < math.inf:
        raise bad_value(name, value, "not a number above 0" if above == 0 else "not finite", _DEFAULT)
    return value


_DEFAULT = "Leave it out for the default"
