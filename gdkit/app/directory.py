"""The folder of a run: where it is, and that nothing in it is lost."""

import itertools
import shlex
from pathlib import Path
from typing import Any

from gdkit.app.config.schema import Config, load
from gdkit.app.config.source import ConfigError, dotted, short

CONFIG, REPORT = "config.yaml", "report.html"
UNFINISHED = '<p class="standing"'  # what is in a report that was written while its run went on
_BEGUN = ("manifest.json", "results.nc", REPORT)  # what only a run that is worth keeping has written


class TakenError(ConfigError):
    """The folder of a run holds something else."""


def choose(config: Config, output: str | Path | None, *, new: bool) -> Path:
    """The folder that a run of `config` may write to: absent, empty, of the same config, or of one that never began.

    Raises:
      TakenError: it holds something else, and `new` is not set.
    """
    named = Path(output or config.output or Path("runs", config.name))
    problem = _conflict(config, named)
    if problem and not new:
        raise TakenError(f"{problem} Give --new to write beside it, or --output DIR.")
    return beside(named) if problem else named


def beside(named: Path) -> Path:
    """The first of NAME-2, NAME-3, ... that is not there."""
    others = (named.with_name(f"{named.name}-{n}") for n in itertools.count(2))
    return next(folder for folder in others if not folder.exists())


def config(folder: Path) -> Config:
    """The config of the run in `folder`.

    Raises:
      ConfigError: no run there.
    """
    if not folder.is_dir():
        what = "this is a file" if folder.exists() else "no such folder"
        raise ConfigError(f"{folder}: {what}. Name the folder of a run, for example runs/digits_mlp.")
    if not (folder / CONFIG).is_file():
        remedy = "Name the folder of a run, for example runs/digits_mlp."
        raise ConfigError(f"{folder}: not the folder of a run: it has no {CONFIG}. {remedy}")
    return load(folder / CONFIG)


def to_go_on(folder: Path) -> str:
    """The command that goes on with the run in `folder`."""
    return shlex.join(["gdkit", "run", str(folder / CONFIG), "--output", str(folder)])


def _conflict(config: Config, folder: Path) -> str:
    """Why a run of `config` may not write to `folder`, or nothing."""
    if folder.exists() and not folder.is_dir():
        return f"{folder}: this is a file, and a run needs a folder."
    if not folder.exists() or all(file.name.startswith(f".{CONFIG}.") for file in folder.iterdir()):
        return ""  # or another process writes its config there right now
    if not (folder / CONFIG).is_file():
        return f"{folder}: not empty, and not the folder of a run (it has no {CONFIG})."
    if not any((folder / name).exists() for name in _BEGUN):
        return ""
    try:
        there = load(folder / CONFIG)
    except ConfigError as error:
        return f"{folder}: it holds a run whose config cannot be read ({error})."
    changed = _differences(_content(there), _content(config))
    return f"{folder}: it holds a run of another config: {'; '.join(changed[:5])}." if changed else ""


def _content(config: Config) -> dict[str, Any]:
    """What decides the results: where they are written does not."""
    return {k: v for k, v in config.model_dump(by_alias=True).items() if k != "output"}


def _differences(there: Any, here: Any, path: tuple[str | int, ...] = ()) -> list[str]:
    """Each value that differs, as ``path: there -> here``."""
    if isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        there, here = dict(enumerate(there)), dict(enumerate(here))
    if isinstance(there, dict) and isinstance(here, dict):
        keys = list(dict.fromkeys([*there, *here]))
        return [d for k in keys for d in _differences(there.get(k), here.get(k), (*path, k))]
    same = repr(there) == repr(here)
    return [] if same else [f"{dotted(path)} is {short(there)} there and {short(here)} here"]
