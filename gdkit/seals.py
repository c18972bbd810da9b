"""Files that carry the SHA-256 of their own bytes at their end, so that a copy can be verified by itself."""

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

_DIGITS = 64


class Seal(NamedTuple):
    """The end of a kind of file: the hexadecimal SHA-256 of all bytes before its digits, between two texts.

    It detects damage. It is no signature: whoever writes such a file can also compute its checksum.

    >>> seal = Seal(b" sha256 ", b".")
    >>> whole = b"".join(seal.sign([b"content"]))
    >>> seal.find_damage(whole), seal.find_damage(whole.replace(b"c", b"d")), seal.find_damage(whole[:-1])
    (None, 'its checksum does not match', 'it has no checksum, or is cut short')
    """

    before: bytes
    after: bytes

    def sign(self, pieces: Sequence[Any]) -> list[Any]:
        """The pieces of a file, and its end."""
        return [*pieces, self.before, _checksum([*pieces, self.before]), self.after]

    def find_damage(self, content: bytes) -> str | None:
        """What is wrong with the bytes of a file; None if they are those that were written."""
        digits = len(content) - len(self.after) - _DIGITS
        if digits < 0 or not content.endswith(self.after) or not content.endswith(self.before, 0, digits):
            return "it has no checksum, or is cut short"
        view = memoryview(content)
        return None if _checksum([view[:digits]]) == view[digits : digits + _DIGITS] else "its checksum does not match"


def _checksum(pieces: Sequence[Any]) -> bytes:
    sha = hashlib.sha256()
    for piece in pieces:
        sha.update(piece)
    return sha.hexdigest().encode()
