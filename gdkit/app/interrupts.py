"""SIGINT and SIGTERM end the process of the command with exit code 130 and a message, at any moment.

While a sweep runs, the first signal makes it store checkpoints and end. Otherwise the process ends within the handler:
an exception would be raised at an arbitrary place, aborts imports of extension modules, and is swallowed by code that
catches all exceptions. Imports nothing heavy.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

INTERRUPTED = 130
_MESSAGE = "interrupted. Run the same command again."
_STOPPING = b"\nstopping once the current segments are checkpointed; interrupt again to stop immediately\n"
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_descriptions: list[Callable[[], str]] = []


def exit_on_signals() -> None:
    """End this process at SIGINT or SIGTERM. A signal that it ignores, as under nohup, stays ignored."""
    for number in _SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _handle)


def ignore_signals() -> None:
    """Ignore later signals, so that they do not change the exit code of a command that has ended."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def exit_interrupted(message: str = "") -> NoReturn:
    """End this process at once, with what it has printed and `message`."""
    with suppress(Exception):  # a stream may be closed, or in the middle of a write
        sys.stdout.flush()
    with suppress(Exception):
        cursor = "\x1b[?25h" if os.isatty(2) else ""  # the progress table hides it
        os.write(2, (cursor + message).encode(sys.stderr.encoding or "utf-8", "replace"))
    os._exit(INTERRUPTED)


@contextmanager
def explain_interruption(describe: Callable[[], str]) -> Generator[None]:
    """Use `describe()` as the message of an interruption that has none of its own."""
    _descriptions.append(describe)
    try:
        yield
    except KeyboardInterrupt as error:
        raise error if error.args else KeyboardInterrupt(describe()) from None
    finally:
        _descriptions.pop()


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
    handlers = {number: signal.signal(number, handle) for number in _SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def describe_error(error: KeyboardInterrupt) -> str:
    """The message of an interruption."""
    return str(error) if error.args else _MESSAGE


def _handle(*_: Any) -> None:
    text = _MESSAGE
    with suppress(Exception):  # a description may read files
        text = _descriptions[-1]()
    exit_interrupted(f"{text}\n")
