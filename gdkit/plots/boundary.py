"""Figures of boundaries in a plane, and an animation that zooms into one."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.animation import FuncAnimation
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Patch, Rectangle

from gdkit.boundary import Frame, Trail
from gdkit.checks import check_number
from gdkit.errors import bad_type
from gdkit.plots import style

# Of different lightness, so that answers can be distinguished in gray
_COLORS = ("#2b2f55", "#f3e7c4", "#4f7d8c", "#a9c3a0", "#8a6f94", "#c9a24b")
_OUTLINE_COLOR = "#d55e00"
FPS = 10  # frames per second of the animation


def answers(
    frame: Frame, *, names: Sequence[str] = (), inner: Frame | None = None, ticks: bool = True, ax: Axes | None = None
) -> Axes:
    """Draw the answer at each point of a window as a color.

    Args:
      frame: the result of `boundary.explore`, or one of the frames of `boundary.zoom`.
      names: names of the answers 0, 1, ... for a legend.
      inner: a window inside this one, to outline.
      ticks: whether to show coordinates; in deep windows they have too many digits.
      ax: the Axes to draw on.

    Raises:
      InputValueError, InputTypeError: an argument cannot be used.
    """
    if not isinstance(frame, Frame):
        raise bad_type("frame", frame, "not a Frame", "Pass what boundary.explore returned, or one of trail.frames")
    ax = style.get_axes(ax)
    _draw(ax, frame)
    ax.set(xlim=frame.x[[0, -1]], ylim=frame.y[[0, -1]])
    if not ticks:
        ax.set(xticks=[], yticks=[])
    if inner is not None:
        ax.add_patch(_make_outline(inner))
    if names:
        style.draw_legend(ax, answer_handles(names))
    return ax


def answer_handles(names: Sequence[str]) -> list[Patch]:
    """The legend entries of the answers 0, 1, ..."""
    return [Patch(facecolor=_COLORS[k], edgecolor=style.INK, label=name) for k, name in enumerate(names)]


def zoom(
    trail: Trail, *, names: Sequence[str] = (), labels: tuple[str, str] = ("", ""), seconds: float = 1.5
) -> FuncAnimation:
    """An animation from the first window of a trail to its last, at a constant rate of magnification.

    Write it with ``.save("zoom.gif", writer="pillow")``.

    Args:
      trail: the result of `boundary.zoom`.
      names: names of the answers, as in `answers`.
      labels: labels of the axes.
      seconds: time from one window to the next.

    Raises:
      InputValueError, InputTypeError: an argument cannot be used.
    """
    if not isinstance(trail, Trail):
        raise bad_type("trail", trail, "not a Trail", "Pass what boundary.zoom returned")
    check_number("seconds", seconds, above=0)
    figure = Figure(figsize=(4.6, 5.0), layout="constrained")
    ax = answers(trail.frames[0], names=names, ax=figure.subplots())
    for depth, frame in enumerate(trail.frames[1:], start=1):
        _draw(ax, frame).set_zorder(depth)
    ax.set(xlabel=labels[0], ylabel=labels[1])
    title = ax.set_title("× 1")
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # a layout per frame would make the axes jump
    windows = _interpolate_windows(trail, max(1, round(seconds * FPS)))

    def show(number: int) -> Any:
        (left, right), (low, high) = windows[number]
        ax.set(xlim=(left, right), ylim=(low, high))
        magnified = (trail.frames[0].x[-1] - trail.frames[0].x[0]) / (right - left)
        title.set_text(f"× {magnified:,.0f}")
        if number:  # coordinates of smaller windows have too many digits
            ax.set(xticks=[], yticks=[])
        return (title,)

    return FuncAnimation(figure, show, frames=len(windows), interval=1000 / FPS, repeat=True)


def _draw(ax: Axes, frame: Frame) -> AxesImage:
    """Draw each point of the lattice as the center of a pixel."""
    (left, right), (low, high) = (_find_bounds(side) for side in (frame.x, frame.y))
    colors = ListedColormap(_COLORS)
    shown = np.minimum(frame.answers, len(_COLORS) - 1)
    return ax.imshow(shown, cmap=colors, vmin=-0.5, vmax=len(_COLORS) - 0.5, origin="lower", interpolation="nearest",
                      extent=(left, right, low, high), aspect="auto", rasterized=True)  # fmt: skip


def _find_bounds(side: np.ndarray) -> tuple[float, float]:
    half = (side[1] - side[0]) / 2
    return side[0] - half, side[-1] + half


def _make_outline(frame: Frame) -> Rectangle:
    width, height = (side[-1] - side[0] for side in (frame.x, frame.y))
    return Rectangle((frame.x[0], frame.y[0]), width, height, fill=False, edgecolor=_OUTLINE_COLOR, linewidth=1.6)


def _interpolate_windows(trail: Trail, between: int) -> list[np.ndarray]:
    """The window of each frame of the animation, (2, 2): between two windows it shrinks by equal ratios."""
    shown: list[np.ndarray] = []
    for one, two in zip(trail.frames[:-1], trail.frames[1:], strict=True):
        a, b = (np.array([f.x[[0, -1]], f.y[[0, -1]]]) for f in (one, two))
        ratio = (b[:, 1] - b[:, 0]) / (a[:, 1] - a[:, 0])
        fixed = (b[:, 0] - ratio * a[:, 0]) / (1 - ratio)  # fixed point of the map of one window onto the other
        grown = [ratio[:, None] ** (step / between) for step in range(between)]
        shown += [fixed[:, None] + (a - fixed[:, None]) * size for size in grown]
    last = trail.frames[-1]
    return shown + [np.array([last.x[[0, -1]], last.y[[0, -1]]])] * between
