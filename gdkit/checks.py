"""Checks of arguments: one for each kind of argument, for the whole library."""

import inspect
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from gdkit.errors import bad_type, bad_value, name_type, unknown_name
from gdkit.factories import is_number
from gdkit.types import Array, Key, PyTree

MAX_KEY = 2**32 - 1  # largest integer that makes a key: it has 32 bits without x64
MAX_COUNT = 2**31 - 2  # counters are int32, and one more than the last step is counted


def check_integer(argument: str, value: Any, *, at_least: int = 1, at_most: int = MAX_COUNT) -> None:
    """Raise unless `value` is an integer within its bounds; a boolean does not count as one."""
    remedy = f"Pass an integer of at least {at_least}"
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise bad_type(argument, value, "not an integer", remedy)
    if value < at_least:
        raise bad_value(argument, value, f"must be at least {at_least}", remedy)
    if value > at_most:
        raise bad_value(argument, value, f"must be at most {at_most}", f"Pass an integer of at most {at_most}")


def check_number(
    argument: str,
    value: Any,
    *,
    above: float = -math.inf,
    at_least: float = -math.inf,
    or_infinite: bool = False,
) -> None:
    """Raise unless `value` is a finite real number within its bounds; of a traced one only the type is checked.

    With `or_infinite` it may be positive infinity too.
    """
    bound = f" above {above:g}" if above > -math.inf else f" of at least {at_least:g}" if at_least > -math.inf else ""
    if not is_number(value):
        raise bad_type(argument, value, "not a number", f"Pass a finite number{bound}")
    if isinstance(value, Tracer):
        return
    if isinstance(value, np.generic | np.ndarray | jax.Array):
        value = value.item()  # in float32 the largest float64 would overflow
    if or_infinite and value == math.inf:
        return
    if not (abs(value) <= float(np.finfo(np.float64).max) and value > above and value >= at_least):
        raise bad_value(argument, value, f"must be a finite number{bound}", f"Pass a finite number{bound}")


def check_representable(argument: str, values: Any) -> None:
    """Raise for a number so large that it would be infinite as a hyperparameter, float32 or float64 under x64."""
    dtype, numbers = np.dtype(jnp.result_type(float)), np.atleast_1d(np.asarray(values, float))
    for value in numbers[np.abs(numbers) > float(np.finfo(dtype).max)]:
        raise bad_value(argument, value.item(), f"{dtype} cannot hold it", "Pass a smaller number")


def as_bounds(argument: str, bounds: Any, *, above: float = -math.inf) -> tuple[float, float]:
    """Two finite numbers low < high as floats."""
    form = "low < high" if above == -math.inf else f"{above:g} < low < high"
    pair = bounds.tolist() if isinstance(bounds, np.ndarray) else bounds
    if not isinstance(pair, Sequence) or len(pair) != 2 or not all(map(is_number, pair)):
        raise bad_type(argument, bounds, "not a pair of numbers", "Pass (low, high)")
    low, high = map(float, pair)
    if not above < low < high < math.inf:
        raise bad_value(argument, bounds, f"not two finite numbers {form}", "Pass (low, high)")
    return low, high


def check_interval(low: Any, high: Any, **others: Any) -> None:
    """Raise unless 0 < low < high, and the others are positive too, all of them finite numbers."""
    for argument, value in {"low": low, "high": high, **others}.items():
        check_number(argument, value, above=0)
    if not low < high:
        raise bad_value("high", high, f"not above low={low}", "Pass low < high")


def check_choice(argument: str, value: Any, choices: Iterable[str]) -> None:
    """Raise unless `value` is one of `choices`, with the nearest one."""
    if not isinstance(value, str) or value not in choices:
        raise unknown_name(argument, value, choices)


def check_flag(argument: str, value: Any) -> None:
    """Raise unless `value` is True or False: "no", 0 and None would otherwise count as one of them."""
    if not isinstance(value, bool | np.bool_):
        raise bad_type(argument, value, "neither True nor False", "Pass True or False")


def check_named(argument: str, values: Any, remedy: str) -> None:
    """Raise unless `values` maps names to values; `remedy` has an example."""
    if not isinstance(values, Mapping):
        raise bad_type(argument, values, "not a mapping of names to values", remedy)
    for name in values:
        if not isinstance(name, str):
            raise bad_type(argument, name, "a name must be a string", remedy)


def check_instances(argument: str, values: Any, kind: type, remedy: str) -> None:
    """Raise unless `values` is a sequence, or a set, of objects of one class."""
    name = "string" if kind is str else kind.__name__
    if not isinstance(values, Collection) or isinstance(values, str | bytes | Mapping | kind):
        raise bad_type(argument, values, f"not a sequence of {name}s", remedy)
    for value in values:
        if not isinstance(value, kind):
            raise bad_type(argument, value, f"not a {name}", remedy)


def as_hyperparameters(values: Any, *, varied: str | None = None) -> dict[str, Any]:
    """The values by name; raise for a number that is not finite, or a learning rate that is no number or schedule.

    `varied` is a name that the caller gives values of its own, which would replace one of the user.
    """
    values = {} if values is None else values
    check_named("hyperparameters", values, 'Pass for example {"learning_rate": 0.1}')
    if varied in values:
        raise bad_value("hyperparameters", dict(values), f"the search sets {varied} itself", f"Leave {varied} out")
    for name, value in values.items():
        argument = f"hyperparameters[{name!r}]"
        if is_number(value):
            check_number(argument, value)
            if not isinstance(value, Tracer):
                check_representable(argument, value)
        elif name == "learning_rate" and not callable(value):
            raise bad_type(argument, value, "neither a number nor a schedule", "Pass a finite number")
    return dict(values)


def check_diverged_above(value: Any) -> None:
    """Raise unless `value` is a positive number or infinite."""
    if not is_number(value):
        raise bad_type("diverged_above", value, "not a number", "Leave it out for 1e6")
    if not value > 0:
        raise bad_value("diverged_above", value, "not positive", "Leave it out for 1e6")


def check_optimum(value: Any) -> None:
    """Raise unless `value`, the lowest possible loss, is None or a finite number."""
    if value is not None:
        check_number("optimum", value)


def is_finite(value: Any) -> bool:
    """Whether every entry of an array or a number is finite; a traced one counts as finite."""
    return isinstance(value, Tracer) or bool(np.all(np.isfinite(np.asarray(value))))


def as_key(key: int | Key, argument: str = "key") -> Key:
    """`key` itself, or the key that an integer from 0 to 2³² − 1 makes.

    Raises:
      InputTypeError: it is neither, or several keys.
      InputValueError: an integer out of this range, which JAX would reduce modulo 2³² to the key of another integer.
    """
    if isinstance(key, jax.Array) and key.ndim == 0 and jnp.issubdtype(key.dtype, jnp.integer):
        key = key if isinstance(key, Tracer) else int(key)
        return jax.random.key(key) if isinstance(key, Tracer) else as_key(key, argument)
    if isinstance(key, int | np.integer) and not isinstance(key, bool):
        check_integer(argument, key, at_least=0, at_most=MAX_KEY)
        return jax.random.key(int(key))
    if not isinstance(key, jax.Array) or not _is_key(key):
        raise bad_type(argument, key, "neither an integer nor a JAX key", "Pass an integer, or jax.random.key(0)")
    return key


def _is_key(key: jax.Array) -> bool:
    """Whether an array is one key, typed or a vector of uint32 as `jax.random.PRNGKey` makes it."""
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        return key.ndim == 0
    return key.ndim == 1 and key.dtype == jnp.uint32


def check_floats(argument: str, tree: PyTree, *, finite: bool = False) -> None:
    """Raise unless `tree` has leaves, all of them real floats or arrays of these, and finite where this is asked."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    if not leaves:
        raise bad_value(argument, tree, "it has no leaves", "Pass floats, arrays of them, or a pytree of these")
    for path, leaf in leaves:
        where = argument + jax.tree_util.keystr(path)
        if not hasattr(leaf, "dtype") and not isinstance(leaf, int | float | complex):
            remedy = "Pass floats, arrays of them, or a pytree of these; use closures for other values"
            raise bad_type(where, leaf, "not a number or an array", remedy)
        if getattr(getattr(leaf, "dtype", None), "kind", "f") in "OSUMm":
            raise bad_type(where, leaf, f"its dtype is {leaf.dtype}", "Pass an array of floats")
        dtype = jnp.result_type(leaf)
        if not jnp.issubdtype(dtype, jnp.floating):
            problem = f"its dtype is {dtype}, which has no derivative"
            raise bad_type(where, leaf, problem, "Make it float, e.g. 3.0 for 3")
        if finite and not is_finite(leaf):
            raise bad_value(where, leaf, "not finite", "Pass finite numbers")


def check_arrays(argument: str, tree: PyTree) -> None:
    """Raise unless all leaves of `tree` are what a compiled program takes: numbers, arrays of them, or keys."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        try:
            jax.typeof(leaf)
        except (TypeError, OverflowError) as error:
            remedy = "Convert it to an array of numbers, for example with numpy.asarray; encode text as integers"
            raise bad_type(argument + jax.tree_util.keystr(path), leaf, "not an array of numbers", remedy) from error


def check_scalar(argument: str, value: Any, *, finite: bool = False) -> None:
    """Raise unless `value`, or the shape of a value, which the function `argument` returned, is one real float."""
    shape, dtype = getattr(value, "shape", ()), getattr(value, "dtype", None)
    if shape != () or (dtype is None and not isinstance(value, int | float | complex)):
        remedy = "Reduce it, for example with jnp.mean, or select one entry"
        raise bad_type(argument, shape or name_type(value), "it does not return a scalar", remedy)
    dtype = jnp.result_type(value if dtype is None else dtype)
    if not jnp.issubdtype(dtype, jnp.floating):
        remedy = "Return a real float; integers and complex numbers have no derivative"
        raise bad_type(argument, str(dtype), "it does not return a float", remedy)
    if finite and not is_finite(value):
        raise bad_value(argument, float(value), "its value is not finite here", "Choose another point")


def check_callable(argument: str, function: Any, remedy: str) -> None:
    """Raise unless `function` can be called."""
    if not callable(function):
        raise bad_type(argument, function, "not callable", remedy)


def check_call(argument: str, function: Callable[..., Any], names: tuple[str, ...], remedy: str) -> None:
    """Raise unless `function` can be called with these positional arguments; a function without a signature passes."""
    check_callable(argument, function, remedy)
    try:
        inspect.signature(function).bind(*names)
    except TypeError as error:
        form = f"{argument}({', '.join(names)})"
        raise bad_type(argument, function, f"it cannot be called as {form} ({error})", remedy) from error
    except ValueError:
        pass  # a builtin without a signature


def check_variable_name(argument: str, name: Any) -> None:
    """Raise unless `name` can name a variable of a result and of its files (netCDF, HDF5 and zip)."""
    remedy = "Give it a name of letters, digits and _"
    if not isinstance(name, str):
        raise bad_type(argument, name, "not a string", remedy)
    if not name.strip(".") or name != name.strip() or "/" in name or not name.isprintable():
        raise bad_value(argument, name, "a file cannot hold a variable of this name", remedy)


def check_logs(argument: str, logs: Any) -> dict[str, Array]:
    """The logs as arrays; raise unless they are real scalars by name."""
    if not isinstance(logs, Mapping) or not logs:
        raise bad_type(argument, logs, "its logs are not a dictionary of scalars", "Return {name: scalar} as the last")
    for name in logs:
        check_variable_name(argument, name)
        if name in ("loss", "step"):
            raise bad_value(argument, name, f"curve_{name} is a variable of the result", "Give the log another name")
    return {name: as_scalar(f"logs[{name!r}]", value) for name, value in sorted(logs.items())}


def as_scalar(argument: str, value: Any) -> Array:
    """A real number as an array; raise unless it is one."""
    is_number = isinstance(value, jax.Array | np.ndarray | np.number | np.bool_ | int | float)
    if not is_number or jnp.shape(value) or jnp.iscomplexobj(value):
        raise bad_type(argument, value, "not a scalar", "Reduce it to a real number, for example with jnp.mean")
    return jnp.asarray(value)
