"""A lane that was run again, step by step."""

from typing import NamedTuple

import numpy as np

from gdkit.formatting import format_number, html, text_table


class Replay(NamedTuple):
    """A lane that was run again; prints as a table."""

    lane: int
    onset: int  # the step at which its regime began, or its last
    watched: dict[str, np.ndarray]  # step, loss, and norm and update of each leaf of the params; (watched steps,)
    same: bool  # whether it ended with the same bits as before

    def __str__(self) -> str:
        rows = [[format_number(value) for value in row] for row in zip(*self.watched.values(), strict=True)]
        ending = "The end is the same, bit for bit." if self.same else "The end differs from that of the sweep."
        return f"{text_table(list(self.watched), rows)}\n{ending}"

    _repr_html_ = html.preformat


def is_same(stored: np.ndarray, value: np.ndarray) -> bool:
    """Whether a result stores `value`: dtypes unknown to NumPy as float32, and curves up to the last step."""
    plain = value.astype(np.float32) if value.dtype.kind == "V" else value
    return np.array_equal(stored, plain[: len(stored)] if stored.ndim else plain, equal_nan=plain.dtype.kind == "f")
