"""SIGINT and SIGTERM end the process of the command with exit code 130 and a message, at any moment.

The process ends within the handler. An exception would be raised at an arbitrary place instead: it aborts imports of
extension modules, and code that catches all exceptions swallows it. Imports nothing heavy.
"""

import os
import signal
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

INTERRUPTED = 130
_AGAIN = "interrupted. Run the same command again."
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


def describe_error(error: KeyboardInterrupt) -> str:
    """The message of an interruption."""
    return str(error) if error.args else _AGAIN


def _handle(*_: Any) -> None:
    text = _AGAIN
    with suppress(Exception):  # a description may read files
        text = _descriptions[-1]()
    exit_interrupted(f"{text}\n")
