"""What the command line stores between processes in the user's cache folder: compiled programs and plans."""

import json
import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import jax
import platformdirs

from gdkit.sweeps.programs import timing

_PROGRAM_BYTES = 2**30
_MAX_PLANS = 1000  # the latest choices of the planner, about a hundred bytes each


def use_program_cache() -> None:
    """Store compiled programs in the user's cache folder, unless JAX was given another."""
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    cache = Path(platformdirs.user_cache_dir("gdkit"), "programs")
    _prune(cache)
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


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


def _prune(cache: Path) -> None:
    """Remove the least recently used programs, so that the cache stays bounded."""
    files = [(f.stat().st_atime, f.stat().st_size, f) for f in cache.glob("*") if f.is_file()]
    total = 0
    for _, size, file in sorted(files, reverse=True):
        total += size
        if total > _PROGRAM_BYTES:
            file.unlink(missing_ok=True)
