"""Ctrl-C and SIGTERM during a run."""

import os
import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gdkit.app.directory import CONFIG, resume_command
from gdkit.app.interrupts import exit_interrupted
from gdkit.store import RESULTS
from gdkit.store.manifest import NAME

_STOPPING = b"\nstopping once the current segments are checkpointed; interrupt again to stop immediately\n"


@contextmanager
def stop_on_signal() -> Generator[threading.Event]:
    """An event that the first SIGINT or SIGTERM sets; the second ends the process immediately."""
    stop = threading.Event()

    def handle(*_: Any) -> None:
        if stop.is_set():
            exit_interrupted()
        stop.set()
        os.write(2, _STOPPING)

    if threading.current_thread() is not threading.main_thread():  # only the main thread can handle signals
        yield stop
        return
    handlers = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def describe_interruption(folder: Path) -> str:
    """How much of an interrupted run is saved in `folder`, and the command that resumes it."""
    if not (folder / CONFIG).is_file():
        return "interrupted before the first run. To start again, run the same command."
    text, purpose = "interrupted.", "resume"
    if (folder / RESULTS).is_file():
        text, purpose = "interrupted. All runs are finished and saved, but the report is not written.", "write it"
    elif (folder / NAME).is_file():
        text = "interrupted. Finished runs are saved; the others resume from their last checkpoint."
    return f"{text} To {purpose}:\n  {resume_command(folder)}"
