"""gdkit.open: a result from disk, which can be resumed if its problem and optimizer are known."""

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gdkit.errors import DamagedFileError, bad_value, warn
from gdkit.problems import Learner, ProblemLike
from gdkit.regimes import DEFAULT_THRESHOLDS, Thresholds
from gdkit.store import manifest
from gdkit.store.paths import as_path
from gdkit.sweeps.request import SweepRequest, check_request
from gdkit.sweeps.result.assemble import read_result
from gdkit.sweeps.result.result import SweepResult
from gdkit.sweeps.resume.reopen import Optimizers, make_resumable, rebuild_request
from gdkit.sweeps.rundir.states import open_states
from gdkit.sweeps.sweep import run_request
from gdkit.types import Monitor


def open(
    path: str | Path,
    *,
    problem: ProblemLike | None = None,
    optimizer: Optimizers | None = None,
    monitors: Sequence[Monitor] = (),
    start: Any = None,
) -> SweepResult:  # its public name is gdkit.open
    """Open a result that `SweepResult.save` wrote, or that of a run directory, finished or not.

    The file is verified before it is read. If the ``results.nc`` of a run directory is damaged or of another run, the
    tiles are read instead, with a warning.

    Lanes that have not finished have ``end_kind`` 0, and `SweepResult.missing` counts them. If the directory has their
    checkpoint, they have their losses and their values on validation data so far, up to ``end_step``; all else is NaN.
    No answer uses them.

    `SweepResult.extend`, `SweepResult.refine` and `SweepResult.replay` need the problem and the optimizer. The run of a
    config finds them by itself; for other results pass them here. What they and the monitors compute is compared with a
    run directory before anything is extended, refined or replayed: where it differs, this is an error.

    Args:
      path: the file, or the run directory.
      problem: as passed to `sweep`.
      optimizer: as passed to `sweep`, None for a Learner; for several optimizers, a mapping of labels to optimizers or
        (optimizer, fixed values).
      monitors: as passed to `sweep`.
      start: as passed to `sweep`.

    Raises:
      GdkitError: there is no result, or it is damaged or of another format; only one of problem and optimizer is given,
        and the problem is no Learner.
    """
    path = as_path("path", path)
    result = read_result(path, _read_thresholds)
    if (path / manifest.NAME).is_file():
        with contextlib.suppress(DamagedFileError):  # `read_result` has named it
            states = open_states(path)
            result = dataclasses.replace(result, states=states and states.state)
    if problem is None and optimizer is None:
        config = path / "config.yaml"
        return make_resumable(result, path, lambda: _read_request(config), run_request) if config.is_file() else result
    if problem is None or (optimizer is None and not isinstance(problem, Learner)):
        name = "problem" if problem is None else "optimizer"
        raise bad_value(name, None, "problem and optimizer belong together", "Pass both, or neither")
    request = rebuild_request(result, problem, optimizer, monitors, start)
    return make_resumable(result, path, lambda: request, run_request)


def _read_thresholds(config: str) -> Thresholds:
    """The thresholds in the text of a config."""
    from gdkit.app.config.build import build_thresholds
    from gdkit.app.config.loading import loads
    from gdkit.app.config.schema import SweepConfig
    from gdkit.app.config.source import ConfigError

    try:
        loaded = loads(config)
    except ConfigError as error:  # of another version of gdkit
        warn(f"the default thresholds of regimes are used, since the config of the run cannot be read: {error}")
        return DEFAULT_THRESHOLDS
    return build_thresholds(loaded) if isinstance(loaded, SweepConfig) else DEFAULT_THRESHOLDS


def _read_request(config: Path) -> SweepRequest:
    """The request of a config."""
    from gdkit.app.config.build import build_arguments
    from gdkit.app.config.loading import load
    from gdkit.app.config.schema import SweepConfig

    loaded = load(config)
    if not isinstance(loaded, SweepConfig):
        raise bad_value("path", str(config), "a study has no lanes to resume", "Run it again")
    return check_request(**build_arguments(loaded))
