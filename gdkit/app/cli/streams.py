"""Output that cannot fail: characters that a terminal cannot show are replaced, and failed writes are discarded."""

import codecs
import io
import os
import sys
import unicodedata
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Any

_ERRORS = "gdkit-stand-in"
_STAND_INS = {
    "█": "#", "≈": "=", "·": ".", "•": "*", "×": "x", "–": "-", "—": "-", "−": "-", "±": "+-", "…": "...",
    "→": "->", "←": "<-", "≤": "<=", "≥": ">=", "√": "sqrt", "∞": "inf", "∇": "grad", "‖": "|", "⟨": "<", "⟩": ">",
    "α": "alpha", "β": "beta", "ε": "epsilon", "η": "eta", "θ": "theta", "λ": "lambda", "μ": "mu", "ρ": "rho",
    "σ": "sigma", "ß": "ss", "ø": "o", "æ": "ae", "ł": "l",
}  # fmt: skip


class _TolerantStream:
    """A text stream whose writes do not raise; output is discarded from the first write that fails."""

    def __init__(self, stream: Any):
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write `text`, if the stream still takes it."""
        try:
            self._stream.write(text)
        except (OSError, ValueError):  # no reader, a full disk; closed
            self._discard()
        return len(text)

    def flush(self) -> None:
        """Flush, if the stream still takes it."""
        try:
            self._stream.flush()
        except (OSError, ValueError):
            self._discard()

    def _discard(self) -> None:
        """Discard what is buffered and all later output."""
        with suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())
            os.close(null)


def replace_unencodable(error: UnicodeError) -> tuple[str, int]:
    """An error handler of `codecs`: ASCII stand-ins for characters that a stream cannot encode.

    >>> "Größe β ≤ 1 × 10⁻³ 漢".encode("ascii", _ERRORS)
    b'Grosse beta <= 1 x 10-3 ?'
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_find_stand_in, error.object[error.start : error.end])), error.end


def _find_stand_in(character: str) -> str:
    """The nearest ASCII text: a letter without its accents, ``#`` for lines and blocks, else a question mark."""
    if "\u2500" <= character <= "\u259f":
        return "#"
    plain = (_STAND_INS.get(c, c) for c in unicodedata.normalize("NFKD", character) if not unicodedata.combining(c))
    return _STAND_INS.get(character) or "".join(plain).encode("ascii", "replace").decode()


codecs.register_error(_ERRORS, replace_unencodable)


@contextmanager
def tolerant_output() -> Generator[None]:
    """Make stdout and stderr of this process streams that neither raise nor refuse a character."""
    before = sys.stdout, sys.stderr
    for stream in before:
        if isinstance(stream, io.TextIOWrapper) and not stream.closed:
            stream.reconfigure(errors=_ERRORS)
    sys.stdout, sys.stderr = (None if stream is None else _TolerantStream(stream) for stream in before)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        sys.stdout, sys.stderr = before
