"""The log of a run, and errors of writing to its folder."""

import importlib.metadata
import os
import platform
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from gdkit.app.config.loading import dump
from gdkit.app.config.schema import Config
from gdkit.app.directory import CONFIG
from gdkit.store.files import failed, publish_output

PACKAGES = ("jax", "jaxlib", "optax", "numpy")


@contextmanager
def log_run(config: Config, folder: Path) -> Generator[None]:
    """Create the folder of a run with its resolved config, and log the start of the run and its error, if any."""
    with raise_store_errors(folder, "the run cannot start"):
        folder.mkdir(parents=True, exist_ok=True)
        publish_output(folder / CONFIG, [dump(config).encode()])  # atomically: another process may read it now
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    write_log(folder, f"started {config.name}: Python {platform.python_version()}, {versions}, {os.cpu_count()} cores")
    try:
        yield
    except BaseException as error:
        write_log(folder, f"not finished: {type(error).__name__}: {error}")
        raise


def write_log(folder: Path, text: str) -> None:
    """Append a line to the log; an error of writing it, such as a full disk, must not hide another error."""
    with suppress(OSError), (folder / "log.txt").open("a", encoding="utf-8") as file:
        file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {text}\n")


@contextmanager
def raise_store_errors(folder: Path, problem: str) -> Generator[None]:
    """Raise errors of the file system as `StoreError`, which names the file, or the folder where that is not known."""
    try:
        yield
    except BrokenPipeError:  # the terminal's, not the folder's
        raise
    except OSError as error:
        raise failed(problem, Path(error.filename or folder), error) from error
