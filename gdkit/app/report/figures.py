"""The figures of a sweep, drawn by `gdkit.plots` and written as PNG and SVG."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from matplotlib.animation import Animation, PillowWriter
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gdkit import plots
from gdkit.app.summary import Summary, words
from gdkit.sweeps.result.result import SweepResult

FOLDER = "figures"


class Drawn(NamedTuple):
    """A figure that was drawn."""

    title: str
    caption: str
    png: Path  # a GIF where it moves
    svg: Path | None  # None where it moves


class _Figure(NamedTuple):
    name: str
    title: str
    caption: str
    height: float  # inches
    draw: Callable[[Axes], object]


def write(result: SweepResult, summary: Summary, folder: Path) -> list[Drawn]:
    """Draws what suits the axes of a sweep into `folder`; the figure that answers comes first."""
    folder.mkdir(exist_ok=True)
    return [save(_blank(f.height, f.draw), folder / f.name, f.title, f.caption) for f in _figures(result, summary)]


def save(figure: Figure | Animation, path: Path, title: str, caption: str) -> Drawn:
    """Writes one figure as PNG and SVG, or an animation as GIF."""
    if isinstance(figure, Animation):
        gif = path.with_name(f"{path.name}.gif")
        figure.save(gif, writer=PillowWriter(fps=plots.FPS))
        return Drawn(title, caption, gif, None)
    return Drawn(title, caption, *plots.save(figure, path, dpi=160))


def slug(label: str) -> str:
    """`label` as a part of a file's name.

    >>> slug("Adam (β₁ = 0.9)")
    'Adam-β₁-0.9'
    """
    return re.sub(r"[^\w.]+", "-", label).strip("-") or "figure"


def _figures(result: SweepResult, summary: Summary) -> Iterator[_Figure]:
    axis = summary.axis
    if axis is None:
        return
    by, along = words(summary.by), words(axis)
    yield _Figure(
        "final_loss",
        f"{by.capitalize()} by {along}",
        "Lines: median over seeds; bands: their spread; the strip above: what became of the runs.",
        4.6,
        lambda ax: plots.final_loss(result, by=summary.by, axis=axis, ax=ax),
    )
    for row in summary.rows:
        if row.recommendation is None:
            continue
        yield _Figure(
            f"curves_{slug(row.optimizer)}",
            f"Loss curves of {row.optimizer}",
            f"One run of the first seed a {along}; the mark at its end tells what became of it.",
            4.2,
            lambda ax, label=row.optimizer: plots.loss_curves(result, axis=axis, optimizer=label, ax=ax),
        )
        yield from _maps(result, axis, row.optimizer)


def _maps(result: SweepResult, axis: str, label: str) -> Iterator[_Figure]:
    """A map over the axis and each other one that this optimizer has."""
    for other, values in result.select(optimizer=label).axes.items():
        if other != axis and len(values) > 1:
            yield _Figure(
                f"map_{slug(label)}_{slug(other)}",
                f"Regimes of {label} by {words(axis)} and {words(other)}",
                "The commonest regime over seeds; the line is the border of divergence.",
                4.2,
                lambda ax, other=other: plots.regime_map(result, x=axis, y=other, optimizer=label, ax=ax),
            )


def _blank(height: float, draw: Callable[[Axes], object]) -> Figure:
    figure = Figure(figsize=(7.6, height), layout="constrained")
    draw(figure.subplots())
    return figure
