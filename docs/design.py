"""Draw docs/figures/design.svg, the picture of the design: ``python docs/design.py``.

Boxes are placed in columns and rows; the tile in the middle has lanes from top to bottom and steps from left to right.
"""

from html import escape
from pathlib import Path
from typing import NamedTuple

FIGURE = Path(__file__).parent / "figures" / "design.svg"
WIDTH, HEIGHT = 960, 560
BOX = 176, 58  # width and height of a box
COLUMNS = {"left": 16, "right": WIDTH - BOX[0] - 16}
ROWS = [40 + 84 * row for row in range(6)]
BLUE, GREEN, RED, GREY, INK = "#0072b2", "#d9efe6", "#c0392b", "#8a8f98", "#1d2026"


class Box(NamedTuple):
    """A part of the design, and the file that holds it."""

    name: str
    file: str
    column: str
    row: int


BOXES = [
    Box("Problem", "gdkit/problems/", "left", 0),
    Box("optimizer", "gdkit/optimizers/", "left", 1),
    Box("monitors", "gdkit/monitors/", "left", 2),
    Box("axes × seeds", "gdkit/sweeps/axes.py", "left", 3),
    Box("planner", "gdkit/sweeps/programs/timing.py", "left", 4),
    Box("executor", "gdkit/sweeps/execution/threads.py", "left", 5),
    Box("stability", "gdkit/stability/", "right", 0),
    Box("store", "gdkit/store/", "right", 1),
    Box("SweepResult", "gdkit/sweeps/result/result.py", "right", 2),
    Box("regimes", "gdkit/regimes/", "right", 3),
    Box("plots", "gdkit/plots/", "right", 4),
    Box("CLI, report", "gdkit/app/", "right", 5),
]
TILE = 264, 150, 432, 300  # left, top, width and height of the tile
BLOCKS, LANES, SEGMENTS = 3, 4, 4  # blocks of the tile, lanes of a block, segments of a lane
ENDS = [1, 1, 1, 1, 1, 1, 0.86, 0.7, 0.4, 0.3, 0.22, 0.15]  # the share of the steps after which each lane has ended


def render() -> str:
    """The picture as SVG."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" role="img">',
        "<title>From a problem, an optimizer and axes to lanes, blocks and tiles, and to a result</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        (
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
            f'<path d="M0 0 L8 4 L0 8 z" fill="{GREY}"/></marker></defs>'
        ),
        *(_box(box) for box in BOXES),
        *_arrows(),
        *_tile(),
    ]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _box(box: Box) -> str:
    x, y = COLUMNS[box.column], ROWS[box.row]
    frame = f'<rect x="{x}" y="{y}" width="{BOX[0]}" height="{BOX[1]}" rx="6" fill="#f2f5f9" stroke="{BLUE}"/>'
    name = _text(x + BOX[0] / 2, y + 25, box.name, size=15, weight="bold")
    return frame + name + _text(x + BOX[0] / 2, y + 44, box.file, size=11.5, color="#4a5058")


def _text(
    x: float, y: float, text: str, *, size: float = 13, color: str = INK, anchor: str = "middle", weight="normal"
):
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{size:g}" fill="{color}" text-anchor="{anchor}" font-weight="{weight}">'
        f"{escape(text)}</text>"
    )


def _line(x1: float, y1: float, x2: float, y2: float, look: str) -> str:
    return f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" {look}/>'


def _arrows() -> list[str]:
    """Arrows into and out of the step map and the tile."""
    left, top, width, height = TILE
    from_left, to_right = COLUMNS["left"] + BOX[0], COLUMNS["right"]
    middle = [row + BOX[1] / 2 for row in ROWS]
    lines = [(from_left, middle[row], left + 34, 62) for row in (0, 1, 2)]
    lines += [(from_left, middle[row], left - 4, middle[row]) for row in (3, 4)]
    lines += [(from_left, middle[5], left + 60, top + height + 8)]
    lines += [(left + width / 2, 92, left + width / 2, top - 32)]
    lines += [(left + width - 34, 62, to_right, middle[0]), (left + width + 4, top + 30, to_right, middle[1])]
    lines += [(to_right + BOX[0] / 2, ROWS[row] + BOX[1], to_right + BOX[0] / 2, ROWS[row + 1]) for row in range(1, 5)]
    return [_line(*line, f'stroke="{GREY}" stroke-width="1.4" marker-end="url(#tip)"') for line in lines]


def _tile() -> list[str]:
    """The step map above a tile of blocks; each lane in a block extends to the right until it ends."""
    left, top, width, height = TILE
    parts = [
        f'<rect x="{left + 34}" y="32" width="{width - 68}" height="60" rx="6" fill="{GREEN}" stroke="{INK}"/>',
        _text(left + width / 2, 50, "step map", size=15, weight="bold"),
        _text(left + width / 2, 67, "(state, hyperparameters) → (state, info)", size=12.5),
        _text(left + width / 2, 84, "gdkit/descent/", size=11.5, color="#4a5058"),
        _text(left + width - 26, 50, "its derivative", size=12, anchor="start"),
        _text(left + width / 2 + 8, 112, "compiled once, by vmap over a block", size=12, anchor="start"),
        (
            f'<rect x="{left}" y="{top}" width="{width}" height="{height}" rx="6" fill="none" stroke="{INK}" '
            f'stroke-width="1.6"/>'
        ),
        _text(left + 8, top - 10, "a tile: dispatched, stored and retried as one", anchor="start", weight="bold"),
    ]
    tall = (height - 20) / BLOCKS
    for block in range(BLOCKS):
        parts += _block(left + 12, top + 10 + block * tall + 4, width - 24, tall - 8, block)
    for segment in range(1, SEGMENTS):
        x = left + 12 + (width - 24) * segment / SEGMENTS
        parts.append(_line(x, top + 6, x, top + height - 6, f'stroke="{GREY}" stroke-dasharray="3 4"'))
    caption = top + height + 24
    parts += [
        _text(left + width, caption, "steps →  dashed: ends of segments, where the carry can be stored", size=12,
              anchor="end"),
        _text(left + width, caption + 19, "line: a lane, which is one run; frame: a block", size=12, anchor="end"),
        _text(left + width, caption + 38, "red: a lane ends; a block stops when all its lanes have ended", size=12,
              anchor="end"),
    ]  # fmt: skip
    return parts


def _block(x: float, y: float, width: float, height: float, block: int) -> list[str]:
    parts = [f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="4" fill="#f7f9fb" stroke="{BLUE}"/>']
    for lane in range(LANES):
        end, at = ENDS[block * LANES + lane], y + height * (lane + 1) / (LANES + 1)
        stop = x + 6 + (width - 12) * end
        parts.append(_line(x + 6, at, stop, at, f'stroke="{BLUE}" stroke-width="3"'))
        if end < 1:
            parts.append(f'<circle cx="{stop:g}" cy="{at:g}" r="4" fill="{RED}"/>')
    return parts


if __name__ == "__main__":
    FIGURE.write_text(render(), encoding="utf-8")
