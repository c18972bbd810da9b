"""Borders in a plane: where one answer ends and another begins, how rough that line is, and what it is close up.

A plane is two axes and a function that answers at points of it: trained or not, for example. `explore` asks on a
lattice, and finely only where neighbours disagree. `dimension` counts the boxes that hold border at several sizes.
`zoom` follows the border into ever smaller windows. `by_runs` makes the function of a sweep. As in Sohl-Dickstein, The
boundary of neural network trainability is fractal, 2024, a cell holds border if its four corners do not all answer
alike.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from gdkit.errors import bad_type, bad_value, unknown_name
from gdkit.monitors import EndKind
from gdkit.problems import Problem
from gdkit.sweeps.axes import paired
from gdkit.sweeps.plan.shapes import Plan
from gdkit.sweeps.result.result import SweepResult
from gdkit.sweeps.sweep import sweep

Ask = Callable[[np.ndarray], Any]  # points (n, 2) -> answers (n,), bool or whole numbers from 0

_UNKNOWN = -1
_BLOCKS = 8  # along a side: boxes are no larger than such a block, and blocks are what is resampled
_LEAST = {"sizes": 4, "blocks": _BLOCKS - 1}  # below this a slope says nothing; a line through the window meets so many
_RESAMPLES = 2000


class Frame(NamedTuple):
    """A window of the plane: what is answered at the points of a lattice, and which cells between them hold border."""

    x: np.ndarray  # (cells + 1,) increasing
    y: np.ndarray  # (cells + 1,) increasing
    answers: np.ndarray  # (cells + 1, cells + 1) int, y first
    asked: np.ndarray  # (cells + 1, cells + 1) bool; elsewhere the answer is that of the coarser points around

    @property
    def cells(self) -> int:
        """Cells along a side."""
        return len(self.x) - 1

    @property
    def border(self) -> np.ndarray:
        """Whether the corners of a cell disagree, (cells, cells) bool."""
        return _mixed(self.answers)

    def __str__(self) -> str:
        window = " × ".join(f"[{side[0]:.6g}, {side[-1]:.6g}]" for side in (self.x, self.y))
        share = f"{self.asked.sum()} of {self.asked.size} points asked"
        return f"{window}: {self.border.sum()} of {self.cells}² cells hold border; {share}"


class Dimension(NamedTuple):
    """How the number of boxes that hold border grows as boxes shrink: 1 for a smooth line, 2 for what fills a plane."""

    value: float  # −d log(count) / d log(size), by least squares
    low: float  # 95 % of resamples of the window's blocks
    high: float
    sizes: np.ndarray  # (sizes,) int, sides of boxes in cells: 1, 2, 4, ...
    counts: np.ndarray  # (sizes,) boxes that hold border, on average over where their grid begins

    def __str__(self) -> str:
        return f"{self.value:.3f} (95 %: {self.low:.3f} to {self.high:.3f})"


class Trail(NamedTuple):
    """Windows along a border, each within the one before."""

    frames: tuple[Frame, ...]

    @property
    def dimensions(self) -> list[Dimension | None]:
        """Of the border in each window; None where it is too coarse to be measured."""
        return [None if _refusal(frame.answers) else dimension(frame) for frame in self.frames]

    def median(self) -> tuple[float, float, float]:
        """The median over windows of the dimension, and 95 % of it over resamples of the windows.

        Raises:
          InputValueError: fewer than 4 windows could be measured.
        """
        values = np.array([found.value for found in self.dimensions if found])
        if len(values) < 4:
            raise bad_value("frames", len(values), "too few windows could be measured", "Zoom on, or with more cells")
        places = np.random.default_rng(0).integers(len(values), size=(_RESAMPLES, len(values)))
        low, high = np.quantile(np.median(values[places], axis=1), [0.025, 0.975])
        return float(np.median(values)), float(low), float(high)


def explore(ask: Ask, x: tuple[float, float], y: tuple[float, float], *, cells: int = 128, coarse: int = 16) -> Frame:
    """The border in a window, by asking on a coarse lattice and on finer ones where neighbours disagree.

    Each lattice halves the one before and holds its points. Cells that hold border are cut, with all around them, and
    so on along the border as far as it leads. So of the lattice of `cells` every piece of border is found, cell by
    cell, that touches a coarse cell whose corners disagree; what is missed are islands that the coarse points step
    over, and ``coarse=cells`` asks everywhere.

    Args:
      ask: points (n, 2) to answers (n,), bool or whole numbers from 0; called several times.
      x, y: (low, high) of the window.
      cells: along each side at the finest, a power of two.
      coarse: along each side at first, a power of two.

    Raises:
      InputValueError, InputTypeError: an argument cannot be used, or `ask` returns something else.

    >>> found = explore(lambda points: np.hypot(*points.T) < 0.7, (-1.0, 1.0), (-1.0, 1.0))
    >>> print(found)
    [-1, 1] × [-1, 1]: 356 of 128² cells hold border; 2169 of 16641 points asked
    >>> print(dimension(found))
    1.000 (95 %: 0.910 to 1.064)
    """
    plane = _Plane(_bounds("x", x), _bounds("y", y), _power("cells", cells))
    _check_coarse(coarse, cells)
    return _refined(ask, plane, _nothing(cells), coarse)


def zoom(
    ask: Ask,
    x: tuple[float, float],
    y: tuple[float, float],
    *,
    frames: int,
    factor: int = 8,
    toward: str = "roughest",
    cells: int = 128,
    coarse: int = 16,
) -> Trail:
    """Follow the border of a window into smaller and smaller ones.

    The next window is centred on a cell that holds border. Its lattice holds the points of the last, with their
    answers, so no window loses the border that it was put on.

    Args:
      ask, x, y, cells, coarse: as in `explore`.
      frames: how many windows, the first included.
      factor: how much smaller the next one is, a power of two.
      toward: which cell the next window is centred on: ``roughest``, that around which most cells hold border, of
        those the one nearest to the middle; ``middle``, the one nearest to the middle, which does not look for a rough
        place.

    Raises:
      InputValueError, InputTypeError: an argument cannot be used; there is no border in the first window; or the last
        one is so small that float64 cannot tell its points apart.

    >>> halves = lambda points: points[:, 1] > np.sin(points[:, 0])
    >>> trail = zoom(halves, (0.0, 4.0), (-1.5, 1.5), frames=3)
    >>> [round(found.value, 2) for found in trail.dimensions if found]
    [1.0, 1.01, 1.01]
    """
    plane = _Plane(_bounds("x", x), _bounds("y", y), _power("cells", cells))
    _check_coarse(coarse, cells)
    if not _is_power(factor) or not 2 <= factor <= cells // 2:
        raise bad_value("factor", factor, f"not a power of two from 2 to {cells // 2}", "Leave it out for 8")
    if isinstance(frames, bool) or not isinstance(frames, int) or frames < 1:
        raise bad_value("frames", frames, "not a number of windows", "Pass a whole number above 0")
    if toward not in ("roughest", "middle"):
        raise unknown_name("toward", toward, ("roughest", "middle"))
    _check_depth(plane, factor, frames)
    found = [_refined(ask, plane, _nothing(cells), coarse)]
    if not found[0].border.any():
        raise bad_value("x, y", (x, y), "every point answers alike", "Pass a window with a border in it")
    while len(found) < frames:
        row, column = _next(found[-1].border, cells // factor, rough=toward == "roughest")
        plane, known = plane.within(row, column, factor), _nothing(cells)
        part = np.s_[row : row + cells // factor + 1, column : column + cells // factor + 1]
        known[::factor, ::factor] = np.where(found[-1].asked[part], found[-1].answers[part], _UNKNOWN)
        found.append(_refined(ask, plane, known, coarse))
    return Trail(tuple(found))


def dimension(frame: Frame | np.ndarray) -> Dimension:
    """The box-counting dimension of a border, with an interval.

    Boxes of 1, 2, 4, ... cells are counted, up to an eighth of the window, on grids that begin at every point of the
    lattice. As for cells, a box holds border if its corners disagree: so what corners step over is the same share at
    every size, and a rough border is not taken for a smoother one. (Its share of all boxes is the uncertain fraction of
    McDonald et al., Fractal basin boundaries, 1985.) The interval is the bootstrap's over the blocks of the largest
    size: it tells how unlike the parts of the window are.

    Args:
      frame: a Frame, or answers (cells + 1, cells + 1), whole numbers or bool.

    Raises:
      InputValueError: it is too coarse: fewer than 4 sizes of boxes, or a border in fewer than 7 blocks.
      InputTypeError: it is no square of answers.
    """
    answers = frame.answers if isinstance(frame, Frame) else np.asarray(frame)
    if answers.dtype.kind not in "biu" or answers.ndim != 2 or answers.shape[0] != answers.shape[1]:
        remedy = "Pass a Frame, or whole numbers (cells + 1, cells + 1)"
        raise bad_type("frame", frame, "not a square of answers", remedy)
    if (refusal := _refusal(answers)) is not None:
        raise bad_value("frame", f"{len(answers) - 1}² cells", *refusal)
    sizes, counts = _box_counts(answers)
    total = counts.sum(axis=0)
    weights = np.random.default_rng(0).multinomial(len(counts), [1 / len(counts)] * len(counts), size=_RESAMPLES)
    slopes = _slopes(sizes, np.maximum(weights @ counts, 1 / sizes**2))  # a resample may hold no border at all
    low, high = np.quantile(slopes, [0.025, 0.975])
    return Dimension(float(_slopes(sizes, total)), float(low), float(high), sizes, total)


def by_runs(
    problem: Problem | Callable[..., Problem],
    optimizer: Any,
    axes: tuple[str, str],
    *,
    steps: int,
    log: bool | tuple[bool, bool] = True,
    answer: Callable[[SweepResult], Any] | None = None,
    width: int = 16,
    **options: Any,
) -> Ask:
    """What to ask a plane of two hyperparameters: at each point a run, of all points side by side.

    Args:
      problem, optimizer, steps: as in `sweep`.
      axes: the names along x and y.
      log: whether coordinates are the logarithms to base 10 of the hyperparameters, for both or for each.
      answer: a sweep to an answer for each of its lanes, by that lane alone (regimes may depend on the others); by
        default `stayed`.
      width: lanes a block: the same for all, so that the answer at a point is the same whoever asks.
      options: what else `sweep` takes: monitors, key, target, diverged_above, executor.

    Raises:
      GdkitError: an argument cannot be used. When it is asked: the points are closer than the precision tells apart.

    >>> from gdkit import problems, sgd
    >>> ask = by_runs(problems.quadratic([1.0]), sgd, ("learning_rate", "momentum"), steps=100, log=(True, False))
    >>> ask(np.array([[0.1, 0.0], [0.4, 0.0], [0.4, 0.5]]))  # the border is at 2 + 2β
    array([ True, False,  True])
    """
    if isinstance(axes, str) or len(axes) != 2 or axes[0] == axes[1]:
        raise bad_value("axes", axes, "not two names", 'Pass the names along x and y, as ("learning_rate", "momentum")')
    if "seeds" in options:
        raise bad_value("seeds", options["seeds"], "a point is one run", "Leave it out, and pass another key")
    told, logs = answer or stayed, np.broadcast_to(log, 2)

    def ask(points: np.ndarray) -> np.ndarray:
        values = np.array(points, float)
        if values.ndim != 2 or values.shape[1] != 2 or not len(values):
            raise bad_value("points", values.shape, "not the shape (n, 2)", "Pass x and y of each point")
        values[:, logs] = 10 ** values[:, logs]
        _check_apart(points, values)
        filled = np.concatenate([values, np.repeat(values[-1:], -len(values) % width, axis=0)])  # to whole blocks
        lanes = paired({name: filled[:, column].tolist() for column, name in enumerate(axes)})
        shape: dict[str, Any] = {"plan": Plan(width=width), "curve_points": 0}
        result = sweep(problem, optimizer, lanes, steps=steps, **(shape | options))
        return np.asarray(told(result))[: len(points)]

    return ask


def stayed(result: SweepResult) -> np.ndarray:
    """Whether the loss of a lane stayed finite and below ``diverged_above``, (lanes,) bool."""
    return ~np.isin(result.lanes["end_kind"].values, (EndKind.NONFINITE, EndKind.EXCEEDED))


# Where a window lies


class _Plane(NamedTuple):
    """A window, by whole numbers, so that its points are the same numbers as those of the windows around it."""

    x: tuple[float, float]  # of the whole
    y: tuple[float, float]
    cells: int
    scale: int = 1  # windows of this size along a side of the whole
    column: int = 0  # its first, in its own cells
    row: int = 0

    def coordinates(self) -> tuple[np.ndarray, np.ndarray]:
        """Of the points of its lattice along each side, (cells + 1,) each."""
        places = [(start + np.arange(self.cells + 1)) / (self.scale * self.cells) for start in (self.column, self.row)]
        x, y = (low + (high - low) * at for at, (low, high) in zip(places, (self.x, self.y), strict=True))
        return x, y

    def within(self, row: int, column: int, factor: int) -> "_Plane":
        """The window `factor` times smaller from this cell on."""
        smaller = self._replace(scale=self.scale * factor)
        return smaller._replace(column=(self.column + column) * factor, row=(self.row + row) * factor)


def _next(border: np.ndarray, side: int, *, rough: bool) -> tuple[int, int]:
    """The first cell of the next window, of `side` cells: around the middle cell with border, or that with most."""
    cells = len(border)
    sums = np.pad(border.astype(int).cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    within = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    middles = np.argwhere(border)
    starts = np.clip(middles - side // 2, 0, cells - side)
    away = ((2 * middles + 1 - cells) ** 2).sum(axis=1)  # from the middle; whole numbers, so that ties are ties
    row, column = starts[np.lexsort((away, -within[*starts.T] * rough))[0]]
    return int(row), int(column)


# Refining


def _refined(ask: Ask, plane: _Plane, answers: np.ndarray, coarse: int) -> Frame:
    """The window with all answers that its border takes, over those known already; fills `answers`."""
    x, y = plane.coordinates()
    strides = [2**k for k in range(int(math.log2(plane.cells // coarse)), -1, -1)]
    wanted = np.ones((coarse + 1, coarse + 1), bool)
    for stride in strides:
        grid = answers[::stride, ::stride]  # a view
        while (missing := wanted & (grid == _UNKNOWN)).any():
            rows, columns = np.nonzero(missing)
            points = np.stack([x[::stride][columns], y[::stride][rows]], axis=1)
            grid[rows, columns] = _checked(ask(points), len(points))
            wanted = _corners(_mixed(grid), around=1)
        if stride > 1:
            finer = answers[:: stride // 2, :: stride // 2]
            wanted = _corners(_mixed(grid).repeat(2, axis=0).repeat(2, axis=1) | _mixed(finer))
    asked = answers != _UNKNOWN
    for stride in strides[1:]:  # a cell that was not cut has corners alike
        finer, at = answers[::stride, ::stride], np.arange(plane.cells // stride + 1) // 2
        finer[...] = np.where(finer == _UNKNOWN, answers[:: 2 * stride, :: 2 * stride][np.ix_(at, at)], finer)
    return Frame(x, y, answers, asked)


def _mixed(answers: np.ndarray, side: int = 1) -> np.ndarray:
    """Whether the corners of a box that are known disagree: (n + side, n + side) to (n, n)."""
    low, high = answers[:-side], answers[side:]
    corners = [low[:, :-side], low[:, side:], high[:, :-side], high[:, side:]]
    unknown = np.iinfo(np.int32).max
    return np.max(corners, axis=0) > np.min([np.where(c == _UNKNOWN, unknown, c) for c in corners], axis=0)


def _corners(cells: np.ndarray, around: int = 0) -> np.ndarray:
    """The corners of these cells, and of those so far around each: (n, n) to (n + 1, n + 1)."""
    wide, count = np.pad(cells, around + 1), len(cells) + 1
    rows = np.any([wide[shift : shift + count] for shift in range(2 * around + 2)], axis=0)
    return np.any([rows[:, shift : shift + count] for shift in range(2 * around + 2)], axis=0)


def _nothing(cells: int) -> np.ndarray:
    return np.full((cells + 1, cells + 1), _UNKNOWN, np.int32)


# Counting boxes


def _box_counts(answers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sides of boxes (sizes,), and how many hold border in each block that any do, (blocks, sizes)."""
    cells = len(answers) - 1
    side = cells // _BLOCKS
    sizes, counts = 2 ** np.arange(int(math.log2(side)) + 1), []
    for size in sizes:
        first = (side - size) // 2  # so that boxes of all sizes have their middles in the same part of the window
        within = slice(first, first + cells - side + size)
        boxes = _mixed(answers[within, within], size).reshape(_BLOCKS - 1, side, _BLOCKS - 1, side)
        counts.append(boxes.sum(axis=(1, 3)).ravel() / size**2)
    table = np.stack(counts, axis=1)
    return sizes, table[table[:, -1] > 0]


def _slopes(sizes: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """−d log(count) / d log(size) by least squares over the last axis."""
    away = np.log(sizes) - np.log(sizes).mean()
    return -(np.log(counts) @ away) / (away @ away)


def _refusal(answers: np.ndarray) -> tuple[str, str] | None:
    """Why a border is too coarse to be measured, and what would help; None if it is not."""
    cells, least = len(answers) - 1, _BLOCKS * 2 ** (_LEAST["sizes"] - 1)
    if not _is_power(cells) or cells < least:
        return f"fewer than {_LEAST['sizes']} sizes of boxes", f"Explore with {least} cells, {2 * least}, ..."
    blocks = int(np.sum(_box_counts(answers)[1][:, 0] > 0))
    if blocks < _LEAST["blocks"]:
        return f"border in {blocks} blocks of an eighth of its side", "Pass a window that the border goes through"
    return None


# Checks


def _checked(found: Any, count: int) -> np.ndarray:
    found = np.asarray(found)
    if found.shape != (count,) or found.dtype.kind not in "biu":
        shown = f"{found.dtype} of shape {found.shape}"
        raise bad_type("ask", shown, f"not one answer for each of {count} points", "Return bools or whole numbers")
    if found.dtype.kind != "b" and (found < 0).any():
        raise bad_value("ask", int(found.min()), "a negative answer", "Number the answers from 0")
    return found


def _bounds(name: str, bounds: Any) -> tuple[float, float]:
    if not isinstance(bounds, Sequence) or len(bounds) != 2 or not all(isinstance(b, int | float) for b in bounds):
        raise bad_type(name, bounds, "not (low, high)", "Pass two numbers")
    low, high = map(float, bounds)
    if not -math.inf < low < high < math.inf:
        raise bad_value(name, bounds, "not two finite numbers low < high", "Pass (low, high)")
    return low, high


def _is_power(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0 and value & (value - 1) == 0


def _power(name: str, value: int) -> int:
    if not _is_power(value) or value < 2:
        raise bad_value(name, value, "not a power of two", "Pass 64, 128, 256, ...")
    return value


def _check_coarse(coarse: int, cells: int) -> None:
    if _power("coarse", coarse) > cells:
        raise bad_value("coarse", coarse, f"more than the {cells} cells at the finest", "Pass no more")


def _check_depth(plane: _Plane, factor: int, frames: int) -> None:
    for low, high in (plane.x, plane.y):
        spacing = (high - low) / (plane.cells * factor ** (frames - 1))
        if spacing < 8 * np.spacing(max(abs(low), abs(high))):
            remedy = "Zoom less far, or pass a smaller factor"
            raise bad_value("frames", frames, "float64 cannot tell the points of the last window apart", remedy)


def _check_apart(points: np.ndarray, values: np.ndarray) -> None:
    """Raise if points that differ are one in the precision of the runs."""
    dtype = np.dtype(jnp.result_type(float))
    if len(np.unique(values.astype(dtype), axis=0)) < len(np.unique(points, axis=0)):
        remedy = "Zoom less far, or use float64 (in a config: precision: float64)"
        raise bad_value("points", len(points), f"{dtype} cannot tell hyperparameters so close apart", remedy)
