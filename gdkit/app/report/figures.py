"""The figures of a sweep, drawn by `gdkit.plots` and saved as PNG and SVG. Only drawing imports matplotlib."""

import hashlib
import itertools
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from gdkit.app.labels import humanize
from gdkit.app.summary import Summary
from gdkit.store.files import FILES, publish_output
from gdkit.store.paths import list_left_behind
from gdkit.sweeps.result.result import SweepResult

if TYPE_CHECKING:
    from matplotlib.animation import Animation
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FOLDER = "figures"
_MAX_LETTERS = 60  # of a file name: some file systems allow 255 bytes, and a letter may take four


class SavedFigure(NamedTuple):
    """A figure with its files."""

    title: str
    caption: str
    png: Path  # a GIF for an animation
    svg: Path | None  # None for an animation


class _FigureSpec(NamedTuple):
    name: str
    title: str
    caption: str
    height: float  # inches
    draw: Callable[["Axes"], object]


def draw_figures(result: SweepResult, summary: Summary, folder: Path) -> list[SavedFigure]:
    """Draw the figures that suit the axes of a sweep into `folder`, the most important first."""
    make_folder(folder)
    specs, run = list(_choose_figures(result, summary)), result.lanes.attrs.get("run")
    names = name_files(spec.name for spec in specs)
    return [
        save_figure(_draw(spec), folder / name, spec.title, spec.caption, run=run)
        for spec, name in zip(specs, names, strict=True)
    ]


def draw_curves_so_far(result: SweepResult, folder: Path) -> list[SavedFigure]:
    """Draw the curves of a sweep without finished runs into `folder`: one figure per optimizer that has started."""
    axis, drawn = result.main_axis, []
    for label in (result.optimizers or (None,)) if axis is not None else ():
        one = result if label is None else result.select(optimizer=label)
        if (one.lanes["end_step"] > 0).any() and axis in one.axes:
            draw = lambda ax, label=label: _plots().curves(result, axis=axis, optimizer=label, ax=ax)
            title, caption = f"Curves so far{_of(label or '')}", f"One run per {humanize(axis)}, of the first seed."
            spec = _FigureSpec("curves", title, caption, 4.2, draw)
            drawn.append(save_figure(_draw(spec), folder / f"curves{len(drawn)}", spec.title, spec.caption))
    return drawn


def list_figures(result: SweepResult, summary: Summary, folder: Path) -> list[SavedFigure]:
    """The figures that `draw_figures` saves, without drawing them."""
    specs = list(_choose_figures(result, summary))
    files = [folder / name for name in name_files(spec.name for spec in specs)]
    ends = lambda file: (file.with_name(f"{file.name}.{end}") for end in ("png", "svg"))
    return [SavedFigure(s.title, s.caption, *ends(file)) for s, file in zip(specs, files, strict=True)]


def digest_figures(figures: Iterable[SavedFigure]) -> str | None:
    """A digest of the names and the bytes of all files of `figures`; None if one cannot be read."""
    sha = hashlib.sha256()
    try:
        for path in (path for figure in figures for path in (figure.png, figure.svg) if path):
            sha.update(f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    except OSError:
        return None
    return sha.hexdigest()


def make_folder(folder: Path) -> None:
    """Create the folder of figures, or remove the temporary files of killed processes from it."""
    folder.mkdir(exist_ok=True)
    for path in list_left_behind(FILES, folder):
        path.unlink(missing_ok=True)


def save_figure(
    figure: "Figure | Animation", path: Path, title: str, caption: str, *, run: str | None = None
) -> SavedFigure:
    """Save a figure as PNG and SVG, or an animation as GIF; `run` is the digest of its run."""
    from matplotlib.animation import Animation, PillowWriter

    from gdkit import plots

    if isinstance(figure, Animation):
        gif = path.with_name(f"{path.name}.gif")
        with tempfile.TemporaryDirectory() as scratch:  # animations can only be written to paths
            figure.save(Path(scratch, gif.name), writer=PillowWriter(fps=plots.FPS))
            publish_output(gif, [Path(scratch, gif.name).read_bytes()])
        return SavedFigure(title, caption, gif, None)
    return SavedFigure(title, caption, *plots.save(figure, path, dpi=160, run=run))


def name_files(names: Iterable[str]) -> list[str]:
    """File names for figures, each different, also where the file system ignores case.

    >>> name_files(["a b", "a-B", "Adam (β₁ = 0.9)", ".."])
    ['a-b', 'a-B-2', 'Adam-β₁-0.9', 'figure']
    """
    files: dict[str, str] = {}
    for name in names:
        stem = re.sub(r"[^\w.]+", "-", name).strip("-.")[:_MAX_LETTERS] or "figure"
        numbered = (stem if n == 1 else f"{stem}-{n}" for n in itertools.count(1))
        file = next(one for one in numbered if one.casefold() not in files)
        files[file.casefold()] = file
    return list(files.values())


def _choose_figures(result: SweepResult, summary: Summary) -> Iterator[_FigureSpec]:
    axis = summary.axis
    if axis is None:
        return
    by, along = humanize(summary.by), humanize(axis)
    yield _FigureSpec(
        "final_loss",
        f"{by.capitalize()} by {along}",
        "Lines: median over seeds; bands: their spread; the strip at the top: regimes.",
        4.6,
        lambda ax: _plots().final_loss(result, by=summary.by, axis=axis, ax=ax),
    )
    for row in summary.rows:
        if row.recommendation is None:
            continue
        if "curve_loss" in result.lanes:
            yield _FigureSpec(
                f"curves_{row.optimizer}",
                f"Loss curves{_of(row.optimizer)}",
                f"One run per {along}, of the first seed; the mark at its end shows its regime.",
                4.2,
                lambda ax, label=row.optimizer or None: _plots().loss_curves(result, axis=axis, optimizer=label, ax=ax),
            )
        yield from _choose_maps(result, axis, row.optimizer)


def _choose_maps(result: SweepResult, axis: str, label: str) -> Iterator[_FigureSpec]:
    """A map over `axis` and each other axis of this optimizer."""
    one = result.select(optimizer=label) if label else result
    for other, values in one.axes.items():
        if other != axis and len(values) > 1:
            yield _FigureSpec(
                f"map_{label}_{other}",
                f"Regimes{_of(label)} by {humanize(axis)} and {humanize(other)}",
                "The most common regime over seeds; the line is the border of divergence, the star the best.",
                4.2,
                lambda ax, other=other: _plots().regime_map(result, x=axis, y=other, optimizer=label or None, ax=ax),
            )


def _of(label: str) -> str:
    """`` of LABEL`` for an optimizer; empty if the sweep has only one."""
    return f" of {label}" if label else ""


def _plots() -> Any:
    from gdkit import plots

    return plots


def _draw(spec: _FigureSpec) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, spec.height))
    # a figure takes a third less time than with a constrained layout; without a rectangle text is measured once
    figure.set_layout_engine("tight", pad=0.4, rect=None)
    spec.draw(figure.subplots())
    return figure
