"""What the command line stores between processes in the user's cache folder: compiled programs and plans."""

import json
import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import platformdirs

from gdkit import environment
from gdkit.sweeps.programs import timing

_MAX_PLANS = 1000  # the latest plans are stored, about a hundred bytes each


def use_program_cache() -> None:
    """Store compiled programs in the user's cache folder, unless JAX was given another."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        environment.cache_programs()


@contextmanager
def store_plans() -> Generator[None]:
    """Read the planner's choices of earlier processes and store new ones; a damaged file is replaced."""
    file = Path(platformdirs.user_cache_dir("gdkit"), "plans.json")
    with suppress(OSError, ValueError):
        timing.import_choices(json.loads(file.read_text(encoding="utf-8")))
    before = timing.export_choices()
    yield
    choices = timing.export_choices()
    if choices != before:
        with suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            temporary = file.with_suffix(f".{os.getpid()}")
            temporary.write_text(json.dumps(dict(list(choices.items())[-_MAX_PLANS:])), encoding="utf-8")
            temporary.replace(file)
