"""The folder of a run: how it is chosen, and how its contents are protected. Imports no JAX."""

import itertools
import shlex
from pathlib import Path
from typing import Any

from gdkit.app.config.loading import load, loads
from gdkit.app.config.schema import Config
from gdkit.app.config.source import ConfigError, format_path, shorten
from gdkit.errors import StoreError, warn
from gdkit.seals import Seal

CONFIG, REPORT = "config.yaml", "report.html"
SEAL = Seal(b"<!-- sha256 ", b" -->\n")  # at the end of a report
UNFINISHED = '<p class="standing"'  # only reports of unfinished runs contain it
_MANIFEST, _RESULTS = "manifest.json", "results.nc"  # as in `gdkit.store`, whose import would take NumPy
_RESULT_FILES = (_MANIFEST, _RESULTS, REPORT)  # a folder without them has no results to protect
_EXAMPLE = "Give the folder of a run, for example runs/digits_mlp."


class TakenError(ConfigError):
    """The folder contains files that the run would overwrite."""


def choose_folder(config: Config, output: str | Path | None, *, new: bool) -> Path:
    """The folder that a run of `config` may write to: absent, empty, without results, or with a run of the same config.

    Raises:
      TakenError: it holds something else, and `new` is not set.
    """
    folder = Path(output or config.output or Path("runs", config.name))
    existing = next(path for path in folder.absolute().parents if path.exists())
    if not existing.is_dir():
        raise TakenError(f"{folder}: {existing.name} is a file, and a run needs a folder. Give another --output.")
    conflict = _find_conflict(config, folder)
    if conflict and not new:
        raise TakenError(f"{conflict} Use --new to write to a new folder beside it, or --output DIR.")
    return find_free_folder(folder) if conflict else folder


def find_free_folder(folder: Path) -> Path:
    """The first of NAME-2, NAME-3, ... that does not exist."""
    others = (folder.with_name(f"{folder.name}-{n}") for n in itertools.count(2))
    return next(other for other in others if not other.exists())


def load_config(folder: Path) -> Config:
    """The config of the run in `folder`; if the file was changed, that of the manifest, with a warning.

    Raises:
      ConfigError: it is not the folder of a run.
    """
    if not folder.is_dir():
        problem = "this is a file" if folder.exists() else "no such folder"
        raise ConfigError(f"{folder}: {problem}. {_EXAMPLE}")
    if not (folder / CONFIG).is_file():
        raise ConfigError(f"{folder}: not the folder of a run: it has no {CONFIG}. {_EXAMPLE}")
    stored = _read_stored_config(folder)
    try:
        config = load(folder / CONFIG)
    except ConfigError as error:
        if stored is None:
            raise
        warn(f"{error} The config in {folder / _MANIFEST} is used instead.")
        return stored
    if stored is None:
        return config
    changes = _list_differences(_get_result_settings(stored), _get_result_settings(config))
    if not changes:
        return config
    warn(f"{folder / CONFIG}: it is not the config of this run: {'; '.join(changes[:5])}. That of {_MANIFEST} is used.")
    return stored


def find_report_damage(folder: Path, run: str, figures: str = "") -> str | None:
    """What is wrong with the report of a finished run, whose digest is `run`; None if nothing is.

    `figures` is the digest of the files of its figures, where these are compared as well.
    """
    page = (folder / REPORT).read_bytes() if (folder / REPORT).is_file() else b""
    if not page or UNFINISHED.encode() in page:
        return "is not written"
    damage = SEAL.find_damage(page)
    if damage:
        return f"is damaged ({damage})"
    if f'name="gdkit-run" content="{run}"'.encode() not in page:
        return "is that of another run"
    if figures and f'name="gdkit-figures" content="{figures}"'.encode() not in page:
        return "has other figures"
    return None


def find_explanations(folder: Path, run: str) -> dict[int, Path]:
    """The pages that explain runs of the sweep with the digest `run`, by lane."""
    mark = f'name="gdkit-run" content="{run}"'.encode()
    lanes = {path.stem.removeprefix("explain-"): path for path in folder.glob("explain-*.html")}
    found = {int(lane): path for lane, path in lanes.items() if lane.isdecimal() and mark in path.read_bytes()}
    return dict(sorted(found.items()))


def _read_stored_config(folder: Path) -> Config | None:
    """The config in the manifest; None if there is none, or it cannot be read."""
    try:
        text = _read_stored_text(folder)
        return None if text is None else loads(text, file=str(folder / _MANIFEST))
    except (StoreError, ConfigError):
        return None


def _read_stored_text(folder: Path) -> str | None:
    """The text of the config in the manifest, if it has one."""
    from gdkit.store import Store

    return Store.open(folder).manifest.config


def is_library_run(folder: Path) -> bool:
    """Whether `folder` is a run directory that `gdkit.sweep` wrote from Python, without a config."""
    return (folder / _MANIFEST).is_file() and not (folder / CONFIG).exists() and _read_stored_text(folder) is None


def contains_runs(folder: Path) -> bool:
    """Whether `folder` is not that of a run itself and holds folders of runs."""
    if not folder.is_dir() or (folder / CONFIG).exists() or (folder / _MANIFEST).exists():
        return False
    return any((inner / name).is_file() for inner in folder.iterdir() for name in (CONFIG, _MANIFEST))


def resume_command(folder: Path) -> str:
    """The command that resumes the run in `folder`."""
    return shlex.join(["gdkit", "run", str(folder / CONFIG), "--output", str(folder)])


def describe_interruption(folder: Path) -> str:
    """How much of an interrupted run is saved in `folder`, and the command that resumes it."""
    if not (folder / CONFIG).is_file():
        return "interrupted before the first run. To start again, run the same command."
    text, purpose = "interrupted.", "resume"
    if (folder / _RESULTS).is_file():
        text, purpose = "interrupted. All runs are finished and saved, but the report is not written.", "write it"
    elif (folder / _MANIFEST).is_file():
        text = "interrupted. Finished runs are saved; the others resume from their last checkpoint."
    return f"{text} To {purpose}:\n  {resume_command(folder)}"


def _find_conflict(config: Config, folder: Path) -> str:
    """Why a run of `config` may not write to `folder`; empty if it may."""
    if folder.exists() and not folder.is_dir():
        return f"{folder}: this is a file, and a run needs a folder."
    if not folder.exists() or all(file.name.startswith(f".{CONFIG}.") for file in folder.iterdir()):
        return ""  # such a file: another process is writing its config now
    if not (folder / CONFIG).is_file():
        return f"{folder}: not empty, and not the folder of a run (it has no {CONFIG})."
    if not any((folder / name).exists() for name in _RESULT_FILES):
        return ""
    try:
        existing = load(folder / CONFIG)
    except ConfigError as error:
        return f"{folder}: it holds a run whose config cannot be read ({error})."
    changes = _list_differences(_get_result_settings(existing), _get_result_settings(config))
    return f"{folder}: it holds a run of another config: {'; '.join(changes[:5])}." if changes else ""


def _get_result_settings(config: Config) -> dict[str, Any]:
    """The values that determine the results: all but the output folder."""
    return {k: v for k, v in config.model_dump(by_alias=True).items() if k != "output"}


def _list_differences(old: Any, new: Any, path: tuple[str | int, ...] = ()) -> list[str]:
    """Each value that differs, as ``path is OLD there and NEW here``."""
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        old, new = dict(enumerate(old)), dict(enumerate(new))
    if isinstance(old, dict) and isinstance(new, dict):
        keys = list(dict.fromkeys([*old, *new]))
        return [d for k in keys for d in _list_differences(old.get(k), new.get(k), (*path, k))]
    same = repr(old) == repr(new)
    return [] if same else [f"{format_path(path)} is {shorten(old)} there and {shorten(new)} here"]
