"""``python -m gdkit``, and the command ``gdkit``: a signal during the imports ends it like one during its work."""

import os
import signal
from typing import Any


def _end(*_: Any) -> None:
    os.write(2, b"interrupted. Run the same command again.\n")
    os._exit(130)


_is_heard = lambda number: signal.getsignal(number) != signal.SIG_IGN  # nohup ignores signals
_before = {number: signal.signal(number, _end) for number in (signal.SIGINT, signal.SIGTERM) if _is_heard(number)}

from gdkit.app import cli  # noqa: E402  # after the handlers, since the imports take most of the start


def main() -> int:
    """The exit code of the command line of this process."""
    for number, handler in _before.items():
        signal.signal(number, handler)
    return cli.main()


if __name__ == "__main__":
    raise SystemExit(main())
