"""Boundaries in a plane of two hyperparameters: their place, and how rough they are.

A function answers at the points of the plane, for example whether a run with these hyperparameters converged. `explore`
evaluates it on a lattice, finely only where neighbors disagree. `dimension` measures the boundary by counting boxes.
`zoom` follows it into ever smaller windows. `by_runs` makes such a function from a sweep. A cell of the lattice is on
the boundary if its four corners do not all have the same answer, as in Sohl-Dickstein, The boundary of neural network
trainability is fractal, 2024.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from gdkit.checks import as_bounds, check_callable, check_choice, check_integer
from gdkit.errors import bad_type, bad_value
from gdkit.formatting import format_number
from gdkit.problems import ProblemLike
from gdkit.regimes import has_left_bounds
from gdkit.sweeps.axes import paired
from gdkit.sweeps.plan.shapes import Plan
from gdkit.sweeps.result.result import SweepResult
from gdkit.sweeps.sweep import sweep
from gdkit.types import OptimizerFactory

Ask = Callable[[np.ndarray], Any]  # points (n, 2) -> answers (n,), bool or integers from 0

_UNKNOWN = -1
_BLOCKS = 8  # blocks along a side; the largest boxes are blocks, and the bootstrap resamples blocks
_MIN_SIZES = 4  # sizes of boxes that a slope needs
_MIN_BLOCKS = _BLOCKS - 1  # blocks on the boundary; a line through the window crosses this many
_RESAMPLES = 2000


class Frame(NamedTuple):
    """A window of the plane: the answers at the points of a lattice, and the cells that are on the boundary."""

    x: np.ndarray  # (cells + 1,) increasing
    y: np.ndarray  # (cells + 1,) increasing
    answers: np.ndarray  # (cells + 1, cells + 1) int, y first
    evaluated: np.ndarray  # (cells + 1, cells + 1) bool; elsewhere the answer is copied from coarser points around

    @property
    def cells(self) -> int:
        """Number of cells along a side."""
        return len(self.x) - 1

    @property
    def border(self) -> np.ndarray:
        """Mask of the cells whose corners disagree, (cells, cells) bool."""
        return _mark_disagreements(self.answers)

    def __str__(self) -> str:
        sides = ((format_number(side[0], 6), format_number(side[-1], 6)) for side in (self.x, self.y))
        window = " × ".join(f"[{low}, {high}]" for low, high in sides)
        share = f"{self.evaluated.sum()} of {self.evaluated.size} points evaluated"
        return f"{window}: {self.border.sum()} of {self.cells}² cells are on the boundary; {share}"


class FractalDimension(NamedTuple):
    """Dimension of a boundary by counting boxes: 1 for a smooth line, 2 for a set that fills the plane."""

    value: float  # −d log(count) / d log(size) by least squares
    low: float  # 95 % bootstrap interval over the blocks of the window
    high: float
    sizes: np.ndarray  # (sizes,) int, sides of boxes in cells: 1, 2, 4, ...
    counts: np.ndarray  # (sizes,) boxes on the boundary, a mean over offsets of the grid; their sides if rougher along
    rougher_along: str | None = None  # "x" or "y" for a boundary that is rougher along one direction, else None

    def __str__(self) -> str:
        return f"{self.value:.3f} (95 %: {self.low:.3f} to {self.high:.3f})"


class Trail(NamedTuple):
    """Windows on a boundary, each inside the one before."""

    frames: tuple[Frame, ...]

    @property
    def dimensions(self) -> list[FractalDimension | None]:
        """The dimension in each window; None where the boundary is too coarse to be measured."""
        return [None if _explain_too_coarse(frame.answers) else dimension(frame) for frame in self.frames]

    def median(self) -> tuple[float, float, float]:
        """The median dimension over windows, and the ends of its 95 % bootstrap interval over windows.

        Raises:
          InputValueError: fewer than 4 windows could be measured.
        """
        values = np.array([measured.value for measured in self.dimensions if measured])
        if len(values) < 4:
            raise bad_value("frames", len(values), "too few windows could be measured", "Use more frames or more cells")
        resamples = np.random.default_rng(0).integers(len(values), size=(_RESAMPLES, len(values)))
        low, high = np.quantile(np.median(values[resamples], axis=1), [0.025, 0.975])
        return float(np.median(values)), float(low), float(high)


def explore(ask: Ask, x: tuple[float, float], y: tuple[float, float], *, cells: int = 128, coarse: int = 16) -> Frame:
    """Find the boundary in a window, on a coarse lattice first and on finer ones where neighbors disagree.

    Each lattice halves the spacing of the one before and contains its points. Cells on the boundary are refined with
    the cells around them, until no new cell on the boundary is found. This finds every part of the boundary that is
    connected, on the lattice of `cells`, to a coarse cell whose corners disagree. Islands between the coarse points are
    missed; ``coarse=cells`` evaluates every point.

    Args:
      ask: points (n, 2) to answers (n,), bool or integers from 0; called several times.
      x, y: (low, high) of the window.
      cells: number of cells along each side of the finest lattice, a power of two.
      coarse: number of cells along each side of the first lattice, a power of two.

    Raises:
      InputValueError, InputTypeError: an argument cannot be used, or `ask` returns something else.

    >>> frame = explore(lambda points: np.hypot(*points.T) < 0.7, (-1.0, 1.0), (-1.0, 1.0))
    >>> print(frame)
    [-1, 1] × [-1, 1]: 356 of 128² cells are on the boundary; 2169 of 16641 points evaluated
    >>> print(dimension(frame))
    1.000 (95 %: 0.910 to 1.064)
    """
    grid = _make_grid(ask, x, y, cells, coarse)
    return _refine(ask, grid, _unknown_answers(cells), coarse)


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
    """Follow the boundary of a window into smaller and smaller windows.

    Each next window is centered on a cell on the boundary. Its lattice contains the points of the one before, with
    their answers, so that no window loses the boundary.

    Args:
      ask, x, y, cells, coarse: as in `explore`.
      frames: number of windows, the first included.
      factor: ratio of the sides of successive windows, a power of two.
      toward: the cell that the next window is centered on: ``roughest``, the one with the most boundary cells around
        it, and of several the one nearest to the middle; ``middle``, the boundary cell nearest to the middle, which
        does not favor rough parts.

    Raises:
      InputValueError, InputTypeError: an argument cannot be used; there is no boundary in the first window; or the last
        window is so small that float64 cannot distinguish its points.

    >>> halves = lambda points: points[:, 1] > np.sin(points[:, 0])
    >>> trail = zoom(halves, (0.0, 4.0), (-1.5, 1.5), frames=3)
    >>> [round(measured.value, 2) for measured in trail.dimensions if measured]
    [1.0, 1.01, 1.01]
    """
    grid = _make_grid(ask, x, y, cells, coarse)
    if not _is_power(factor) or not 2 <= factor <= cells // 2:
        raise bad_value("factor", factor, f"not a power of two from 2 to {cells // 2}", "Leave it out for 8")
    check_integer("frames", frames)
    check_choice("toward", toward, ("roughest", "middle"))
    _check_depth(grid, factor, frames)
    windows = [_refine(ask, grid, _unknown_answers(cells), coarse)]
    if not windows[0].border.any():
        raise bad_value("x, y", (x, y), "all points have the same answer", "Pass a window that contains a boundary")
    while len(windows) < frames:
        last = windows[-1]
        row, column = _choose_window(last.border, cells // factor, rough=toward == "roughest")
        grid, answers = grid.within(row, column, factor), _unknown_answers(cells)
        part = np.s_[row : row + cells // factor + 1, column : column + cells // factor + 1]
        answers[::factor, ::factor] = np.where(last.evaluated[part], last.answers[part], _UNKNOWN)
        windows.append(_refine(ask, grid, answers, coarse))
    return Trail(tuple(windows))


def dimension(frame: Frame | np.ndarray) -> FractalDimension:
    """The box-counting dimension of a boundary, with a 95 % bootstrap interval.

    Boxes of 1, 2, 4, ... cells are counted, up to an eighth of the window, with grids at all offsets. Like a cell, a
    box is on the boundary if its corners disagree, so that corners miss the same share of the boundary at every size,
    and a rough boundary is not measured as a smoother one. (The share of such boxes is the uncertain fraction of
    McDonald et al., Fractal basin boundaries, 1985.)

    Boxes read a boundary that is rougher along one direction as too smooth: of the graph of a function with increments
    like s^(2 − D), the sides along the other direction cross it like a line, whose share only vanishes as s does.
    Where the sides of boxes along x and along y have different exponents, beyond what blocks explain, the larger is
    the dimension, without that bias. Its interval is widened by the difference between the exponents of small and of
    large boxes, since such graphs follow their power law only far below their longest waves.

    The bootstrap resamples blocks of the largest size; its interval shows how much the parts of the window differ.
    It does not show how much the window differs from others: structure as large as the window moves all its blocks.

    Args:
      frame: a Frame, or answers (cells + 1, cells + 1), integers or bool.

    Raises:
      InputValueError: it is too coarse: fewer than 4 sizes of boxes, or a boundary in fewer than 7 blocks.
      InputTypeError: it is not a square array of answers.
    """
    answers = frame.answers if isinstance(frame, Frame) else np.asarray(frame)
    if answers.dtype.kind not in "biu" or answers.ndim != 2 or answers.shape[0] != answers.shape[1]:
        remedy = "Pass a Frame, or integers of shape (cells + 1, cells + 1)"
        raise bad_type("frame", frame, "not a square array of answers", remedy)
    if (reason := _explain_too_coarse(answers)) is not None:
        raise bad_value("frame", f"{len(answers) - 1}² cells", *reason)
    sizes, counts = _count_boxes(answers)
    weights = np.random.default_rng(0).multinomial(len(counts[0]), [1 / len(counts[0])] * len(counts[0]), _RESAMPLES)
    floor = 1 / sizes**2  # a resample may have no boundary at all
    boxes, along_x, along_y = (_fit_slopes(sizes, np.maximum(weights @ table, floor)) for table in counts)
    chosen, slopes, rougher = 0, boxes, None
    if all((table.sum(axis=0) > 0).all() for table in counts):
        low, high = np.quantile(along_x - along_y, [0.005, 0.995])
        if low > 0 or high < 0:
            chosen, slopes, rougher = (1, along_x, "x") if low > 0 else (2, along_y, "y")
    total = counts[chosen].sum(axis=0)
    low, high = np.quantile(slopes, [0.025, 0.975])
    half = len(sizes) // 2 + 1
    drift = abs(_fit_slopes(sizes[:half], total[:half]) - _fit_slopes(sizes[-half:], total[-half:])) if rougher else 0.0
    value = float(_fit_slopes(sizes, total))
    return FractalDimension(value, float(low - drift), float(high + drift), sizes, total, rougher)


def by_runs(
    problem: ProblemLike,
    optimizer: OptimizerFactory,
    axes: tuple[str, str],
    *,
    steps: int,
    log: bool | tuple[bool, bool] = True,
    answer: Callable[[SweepResult], Any] | None = None,
    width: int = 16,
    **options: Any,
) -> Ask:
    """A function for `explore` and `zoom` that answers by one run per point, all points of a call in one sweep.

    Args:
      problem, optimizer, steps: as in `sweep`.
      axes: the names of the hyperparameters along x and y.
      log: whether coordinates are logarithms to base 10 of the hyperparameters, for both axes or for each.
      answer: a sweep to one answer per lane, which must depend on that lane alone (regimes may depend on others); None:
        `is_bounded`.
      width: lanes per block, the same in every call, so that the answer at a point does not depend on the call.
      options: further arguments of `sweep`: monitors, key, target, diverged_above, executor.

    Raises:
      GdkitError: an argument cannot be used. The function that is returned raises it for points that are closer than
        the precision of the runs.

    >>> from gdkit import problems, sgd
    >>> ask = by_runs(problems.quadratic([1.0]), sgd, ("learning_rate", "momentum"), steps=100, log=(True, False))
    >>> ask(np.array([[0.1, 0.0], [0.4, 0.0], [0.4, 0.5]]))  # the boundary is at 2 + 2β
    array([ True, False,  True])
    """
    if not isinstance(axes, Sequence) or isinstance(axes, str) or len(axes) != 2 or axes[0] == axes[1]:
        raise bad_value("axes", axes, "not two names", 'Pass the names along x and y: ("learning_rate", "momentum")')
    if "seeds" in options:
        raise bad_value("seeds", options["seeds"], "a point is one run", "Leave it out, and pass another key")
    answers_of, logs = answer or is_bounded, np.broadcast_to(log, 2)

    def ask(points: np.ndarray) -> np.ndarray:
        values = np.array(points, float)
        if values.ndim != 2 or values.shape[1] != 2 or not len(values):
            raise bad_value("points", values.shape, "not the shape (n, 2)", "Pass x and y of each point")
        values[:, logs] = 10 ** values[:, logs]
        _check_distinct(points, values)
        padded = np.concatenate([values, np.repeat(values[-1:], -len(values) % width, axis=0)])  # to whole blocks
        lanes = paired({name: padded[:, column].tolist() for column, name in enumerate(axes)})
        defaults: dict[str, Any] = {"plan": Plan(width=width), "curve_points": 0}
        result = sweep(problem, optimizer, lanes, steps=steps, **(defaults | options))
        return np.asarray(answers_of(result))[: len(points)]

    return ask


def is_bounded(result: SweepResult) -> np.ndarray:
    """Mask of lanes whose loss stayed finite and below ``diverged_above``, (lanes,) bool."""
    return ~has_left_bounds({"end_kind": result.lanes["end_kind"].values})


# The position of a window


class _Grid(NamedTuple):
    """The lattice of a window; its place is in integers, so that a point has the same coordinates in all windows."""

    x: tuple[float, float]  # of the first window
    y: tuple[float, float]  # of the first window
    cells: int
    scale: int = 1  # windows of this size along a side of the first
    column: int = 0  # the first column, in cells of this window
    row: int = 0  # the first row, in cells of this window

    def coordinates(self) -> tuple[np.ndarray, np.ndarray]:
        """The coordinates x and y of the points, (cells + 1,) each."""
        shares = [(start + np.arange(self.cells + 1)) / (self.scale * self.cells) for start in (self.column, self.row)]
        x, y = (low + (high - low) * at for at, (low, high) in zip(shares, (self.x, self.y), strict=True))
        return x, y

    def within(self, row: int, column: int, factor: int) -> "_Grid":
        """The window that starts at this cell and is `factor` times smaller."""
        smaller = self._replace(scale=self.scale * factor)
        return smaller._replace(column=(self.column + column) * factor, row=(self.row + row) * factor)


def _choose_window(border: np.ndarray, side: int, *, rough: bool) -> tuple[int, int]:
    """Row and column where the next window of `side` cells starts, around the middle or the roughest boundary cell."""
    cells = len(border)
    sums = np.pad(border.astype(int).cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    within = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    middles = np.argwhere(border)
    starts = np.clip(middles - side // 2, 0, cells - side)
    distances = ((2 * middles + 1 - cells) ** 2).sum(axis=1)  # squared integers, so that ties are exact
    row, column = starts[np.lexsort((distances, -within[*starts.T] * rough))[0]]
    return int(row), int(column)


# Refining


def _refine(ask: Ask, grid: _Grid, answers: np.ndarray, coarse: int) -> Frame:
    """Evaluate the points along the boundary of a window whose answers are unknown, and fill `answers`."""
    x, y = grid.coordinates()
    strides = [2**k for k in range(int(math.log2(grid.cells // coarse)), -1, -1)]
    needed = np.ones((coarse + 1, coarse + 1), bool)
    for stride in strides:
        lattice = answers[::stride, ::stride]  # a view
        while (missing := needed & (lattice == _UNKNOWN)).any():
            rows, columns = np.nonzero(missing)
            points = np.stack([x[::stride][columns], y[::stride][rows]], axis=1)
            lattice[rows, columns] = _check_answers(ask(points), len(points))
            needed = _mark_corners(_mark_disagreements(lattice), around=1)
        if stride > 1:
            finer = answers[:: stride // 2, :: stride // 2]
            needed = _mark_corners(
                _mark_disagreements(lattice).repeat(2, axis=0).repeat(2, axis=1) | _mark_disagreements(finer)
            )
    evaluated = answers != _UNKNOWN
    for stride in strides[1:]:  # copy answers into cells that were not refined, whose corners agree
        finer, at = answers[::stride, ::stride], np.arange(grid.cells // stride + 1) // 2
        finer[...] = np.where(finer == _UNKNOWN, answers[:: 2 * stride, :: 2 * stride][np.ix_(at, at)], finer)
    return Frame(x, y, answers, evaluated)


def _mark_disagreements(answers: np.ndarray, side: int = 1) -> np.ndarray:
    """Mask of the boxes whose known corners disagree: (n + side, n + side) to (n, n)."""
    low, high = answers[:-side], answers[side:]
    corners = [low[:, :-side], low[:, side:], high[:, :-side], high[:, side:]]
    unknown = np.iinfo(np.int32).max
    return np.max(corners, axis=0) > np.min([np.where(c == _UNKNOWN, unknown, c) for c in corners], axis=0)


def _mark_corners(cells: np.ndarray, around: int = 0) -> np.ndarray:
    """Mask of the corners of these cells, and of the cells up to `around` away: (n, n) to (n + 1, n + 1)."""
    wide, count = np.pad(cells, around + 1), len(cells) + 1
    rows = np.any([wide[shift : shift + count] for shift in range(2 * around + 2)], axis=0)
    return np.any([rows[:, shift : shift + count] for shift in range(2 * around + 2)], axis=0)


def _unknown_answers(cells: int) -> np.ndarray:
    return np.full((cells + 1, cells + 1), _UNKNOWN, np.int32)


# Counting boxes


def _count_boxes(answers: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """Sides of boxes (sizes,); and the numbers on the boundary in each block that has any, (blocks, sizes) each.

    The first counts boxes, the second their sides along x through the middle, the third those along y.
    """
    cells = len(answers) - 1
    side = cells // _BLOCKS
    sizes = 2 ** np.arange(int(math.log2(side)) + 1)
    counts: list[list[np.ndarray]] = [[], [], []]
    for size in sizes:
        first, half = (side - size) // 2, size // 2  # so that the centers of boxes lie in the same part of the window
        within = answers[first : first + cells - side + size, first : first + cells - side + size]
        middle = slice(half, half + len(within) - size)
        sides = within[middle, size:] != within[middle, :-size], within[size:, middle] != within[:-size, middle]
        for table, marks in zip(counts, (_mark_disagreements(within, size), *sides), strict=True):
            blocks = marks.reshape(_BLOCKS - 1, side, _BLOCKS - 1, side).sum(axis=(1, 3))
            table.append(blocks.ravel() / size**2)
    tables = [np.stack(table, axis=1) for table in counts]
    return sizes, [table[tables[0][:, -1] > 0] for table in tables]


def _fit_slopes(sizes: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """−d log(count) / d log(size) by least squares over the last axis."""
    centered = np.log(sizes) - np.log(sizes).mean()
    return -(np.log(counts) @ centered) / (centered @ centered)


def _explain_too_coarse(answers: np.ndarray) -> tuple[str, str] | None:
    """Why a boundary is too coarse to be measured, and the remedy; None if it can be measured."""
    cells, least = len(answers) - 1, _BLOCKS * 2 ** (_MIN_SIZES - 1)
    if not _is_power(cells) or cells < least:
        return f"fewer than {_MIN_SIZES} sizes of boxes", f"Explore with {least} cells, {2 * least}, ..."
    blocks = int(np.sum(_count_boxes(answers)[1][0][:, 0] > 0))
    if blocks < _MIN_BLOCKS:
        return f"the boundary is in {blocks} of {_BLOCKS}² blocks", "Pass a window that the boundary crosses"
    return None


# Checks


def _check_answers(answers: Any, count: int) -> np.ndarray:
    answers = np.asarray(answers)
    if answers.shape != (count,) or answers.dtype.kind not in "biu":
        returned = f"{answers.dtype} of shape {answers.shape}"
        raise bad_type("ask", returned, f"not one answer for each of {count} points", "Return bools or integers")
    if answers.dtype.kind != "b" and (answers < 0).any():
        raise bad_value("ask", int(answers.min()), "a negative answer", "Number the answers from 0")
    return answers


def _make_grid(ask: Any, x: tuple[float, float], y: tuple[float, float], cells: int, coarse: int) -> _Grid:
    check_callable("ask", ask, "Pass a function of points (n, 2) that returns one answer each")
    grid = _Grid(as_bounds("x", x), as_bounds("y", y), _check_power("cells", cells))
    if _check_power("coarse", coarse) > cells:
        raise bad_value("coarse", coarse, f"more than the {cells} cells of the finest lattice", "Pass a smaller number")
    return grid


def _is_power(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0 and value & (value - 1) == 0


def _check_power(name: str, value: int) -> int:
    if not _is_power(value) or value < 2:
        raise bad_value(name, value, "not a power of two", "Pass 64, 128, 256, ...")
    return value


def _check_depth(grid: _Grid, factor: int, frames: int) -> None:
    for low, high in (grid.x, grid.y):
        spacing = (high - low) / (grid.cells * factor ** (frames - 1))
        if spacing < 8 * np.spacing(max(abs(low), abs(high))):
            remedy = "Pass fewer frames, or a smaller factor"
            raise bad_value("frames", frames, "float64 cannot distinguish the points of the last window", remedy)


def _check_distinct(points: np.ndarray, values: np.ndarray) -> None:
    """Raise if different points are equal in the precision of the runs."""
    dtype = np.dtype(jnp.result_type(float))
    if len(np.unique(values.astype(dtype), axis=0)) < len(np.unique(points, axis=0)):
        remedy = "Use fewer frames, or float64 (in a config: precision: float64)"
        raise bad_value("points", len(points), f"{dtype} cannot distinguish hyperparameters this close", remedy)
