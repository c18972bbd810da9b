"""What a caller of the command line, such as a test, can replace. Imports no JAX."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from gdkit.app import resources
from gdkit.app.resources import Resources

# Called with the config, the result and the run's folder. Not typed further, because cyclopts resolves annotations at
# run time, and these types would import JAX.
WriteReport = Callable[..., None]


class Hooks(NamedTuple):
    """Replacements; the defaults are what the command line does."""

    plan: Mapping[str, Any] = {}  # fields of `gdkit.Plan`, which configs and options do not cover
    write_report: WriteReport | None = None  # instead of `gdkit.app.run.outputs.write_report`
    measure_free: Callable[[Path], Resources] = resources.measure_free  # of the run's folder
    settings: Any = None  # an ExecutionSettings; not typed, for the same reason. None: `DEFAULT_SETTINGS`
