"""The state that a user gives a run to start from: checked against that of the run, leaf by leaf."""

import os
from typing import Any

import jax
import jax.numpy as jnp

from gdkit.errors import GdkitError, bad_type, bad_value
from gdkit.trees import name_leaves
from gdkit.types import PyTree, State

_KINDS = (jnp.bool_, jnp.integer, jnp.floating, jnp.complexfloating, jax.dtypes.prng_key)
_REMEDY = "Pass a state of the same problem and optimizer, or its params alone"


def as_state(start: State | PyTree) -> State:
    """A state, or params alone as a state without aux and optimizer state.

    Raises:
      InputTypeError: it is the path of a file, which single runs do not read.
    """
    if isinstance(start, str | os.PathLike):
        remedy = "Read it first, for example with safetensors.numpy.load_file(path); gdkit.sweep reads files itself"
        raise bad_type("start", start, "a path, not params", remedy)
    return start if isinstance(start, State) else State(start, None, None)


def fit(argument: str, given: PyTree, like: PyTree, *, same_precision: bool = True) -> PyTree:
    """The leaves of `given` in the structure of `like`.

    They are matched by their paths, so that dicts may stand for classes with fields of these names, and one dict of
    paths joined by ``/``, as in a file, for a nested structure.

    Args:
      argument: its name in errors.
      given: a pytree.
      like: a pytree of arrays or shapes.
      same_precision: whether dtypes must be equal, not only of one kind.

    Raises:
      InputValueError, InputTypeError: a leaf is missing, has no counterpart, or another shape or dtype; the message
        names its path.

    >>> fit("start", {"a/b": 1.0, "c": 2.0}, {"a": {"b": 0.0}, "c": 0.0})
    {'a': {'b': 1.0}, 'c': 2.0}
    """
    leaves, wanted = name_leaves(given), name_leaves(like)
    if list(wanted) == [""] and "params" in leaves:
        leaves = {"": leaves["params"], **{name: leaf for name, leaf in leaves.items() if name != "params"}}
    for name in wanted:
        if name not in leaves:
            wanted_leaf = f"the run has a leaf {name}, which it lacks" if name else "the state of the run is one array"
            raise bad_value(argument, sorted(leaves), wanted_leaf, _REMEDY)
        _check_leaf(_join(argument, name), leaves[name], wanted[name], same_precision=same_precision)
    for name in leaves:
        if name not in wanted:
            raise bad_value(_join(argument, name), leaves[name], "the run has no such leaf", _REMEDY)
    return jax.tree.unflatten(jax.tree.structure(like), [leaves[name] for name in wanted])


def _join(argument: str, name: str) -> str:
    return f"{argument}[{name}]" if name else argument


def _check_leaf(argument: str, leaf: Any, like: Any, *, same_precision: bool) -> None:
    try:
        shape, dtype = jnp.shape(leaf), getattr(leaf, "dtype", None) or jnp.result_type(leaf)
    except (TypeError, ValueError) as error:
        raise bad_type(argument, leaf, "it is not an array", _REMEDY) from error
    if shape != jnp.shape(like):
        raise _differs(argument, f"shape {shape}", f"{jnp.shape(like)}", _REMEDY)
    wanted = jnp.result_type(like)
    is_alike = any(jnp.issubdtype(dtype, kind) and jnp.issubdtype(wanted, kind) for kind in _KINDS)
    if not is_alike or (same_precision and dtype != wanted):
        raise _differs(argument, f"dtype {dtype}", f"{wanted}", f"Cast it: leaf.astype({str(wanted)!r})")


def _differs(argument: str, found: str, wanted: str, remedy: str) -> GdkitError:
    return bad_value(argument, found, f"that of the run is {wanted}", remedy)
