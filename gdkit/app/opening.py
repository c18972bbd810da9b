"""gdkit.open: a result from disk, which can run again if its code is known."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gdkit.errors import bad_value
from gdkit.sweeps.request import SweepRequest, check_request
from gdkit.sweeps.result.assemble import read_result
from gdkit.sweeps.result.result import SweepResult
from gdkit.sweeps.resume.reopen import reopened, request_of
from gdkit.sweeps.sweep import run_request
from gdkit.types import Monitor


def open(
    path: Any, *, problem: Any = None, optimizer: Any = None, monitors: Sequence[Monitor] = ()
) -> SweepResult:  # its public name is gdkit.open
    """Open a result that `SweepResult.save` wrote, or that of a run directory, finished or not.

    Lanes that have not ended are NaN, their ``end_kind`` is 0, and `SweepResult.missing` counts them. To run code again
    (`SweepResult.extend`, `SweepResult.replay`) the problem and the optimizer are needed: a run that a config describes
    finds them by itself, others are given them here. They are compared with what is there before anything runs.

    Args:
      path: the file, or the run directory.
      problem: as `sweep` was given it.
      optimizer: the factory; for several optimizers a mapping of labels to factories or (factory, fixed values).
      monitors: as `sweep` was given them.

    Raises:
      GdkitError: there is no result, it is damaged or of another format; one of problem and optimizer is missing.
    """
    result, place = read_result(path), Path(path)
    if problem is None and optimizer is None:
        config = place / "config.yaml"
        return reopened(result, place, lambda: _asked_by(config), run_request) if config.is_file() else result
    for name, value in (("problem", problem), ("optimizer", optimizer)):
        if value is None:
            raise bad_value(name, value, "the other one is given", "Give both, or neither")
    request = request_of(result, problem, optimizer, monitors)
    return reopened(result, place, lambda: request, run_request)


def _asked_by(config: Path) -> SweepRequest:
    """What a config asks for."""
    from gdkit.app.config.build import build_arguments
    from gdkit.app.config.loading import load
    from gdkit.app.config.schema import SweepConfig

    loaded = load(config)
    if not isinstance(loaded, SweepConfig):
        raise bad_value("path", str(config), "a study has no lanes that go on", "Run it again")
    return check_request(**build_arguments(loaded))
