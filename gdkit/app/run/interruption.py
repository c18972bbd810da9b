"""What Ctrl-C and SIGTERM do to a run."""

import os
import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gdkit.app.directory import CONFIG, resume_command
from gdkit.store import RESULTS
from gdkit.store.manifest import NAME

_STOPPING = b"\nstopping once the current segments are checkpointed; interrupt again to stop immediately\n"


@contextmanager
def stop_on_signal() -> Generator[threading.Event]:
    """An event that the first SIGINT or SIGTERM sets; the second ends the process immediately."""
    stop = threading.Event()

    def handle(*_: Any) -> None:
        if stop.is_set():
            os.write(2, b"\x1b[?25h" if os.isatty(2) else b"")  # the progress table hides the cursor
            os._exit(128 + signal.SIGINT)
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


@contextmanager
def explain_interruption(folder: Path) -> Generator[None]:
    """Add to a KeyboardInterrupt without a message what is saved in `folder`, and the command that resumes the run."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise error if error.args else KeyboardInterrupt(_describe_interruption(folder)) from None


def _describe_interruption(folder: Path) -> str:
    if not (folder / CONFIG).is_file():
        return "interrupted before the first run. To start again, run the same command."
    text, purpose = "interrupted.", "resume"
    if (folder / RESULTS).is_file():
        text, purpose = "interrupted. All runs are finished and saved, but the report is not written.", "write it"
    elif (folder / NAME).is_file():
        text = "interrupted. Finished runs are saved, the others continue from their last checkpoint."
    return f"{text} To {purpose}:\n  {resume_command(folder)}"
