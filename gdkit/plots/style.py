"""The common style of figures: colors, markers, scales, legends, files."""

import contextlib
import io
import math
import string
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.collections import Collection
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from gdkit.errors import bad_type, bad_value
from gdkit.formatting import count, format_number
from gdkit.regimes import Regime
from gdkit.store.files import publish_output

# Distinct under protanopia, deuteranopia and tritanopia, and in gray: any two differ by 7 in lightness (CIE L*).
REGIME_COLORS = {
    Regime.SLOW: "#b4e0f7",
    Regime.CONVERGED: "#20a157",
    Regime.OSCILLATING: "#2746ad",
    Regime.CATAPULT: "#571e64",
    Regime.BOUNCING: "#f2b701",
    Regime.STALLED: "#a3a3a3",
    Regime.DIVERGED: "#cf2205",
    Regime.UNKNOWN: "#f5f0e0",
}
REGIME_COLORS_DARK = REGIME_COLORS | {Regime.CATAPULT: "#ad5fa7"}  # on a dark page; 3.9 times its luminance
REGIME_LABELS = {regime: regime.name.lower() for regime in Regime}
_BAR = ((-1.0, -0.4), (1.0, -0.4), (1.0, 0.4), (-1.0, 0.4), (-1.0, -0.4))
REGIME_MARKERS: dict[Regime, Any] = {
    Regime.SLOW: "v",
    Regime.CONVERGED: "o",
    Regime.OSCILLATING: "D",
    Regime.CATAPULT: "^",
    Regime.BOUNCING: "s",
    Regime.STALLED: _BAR,
    Regime.DIVERGED: "X",
    Regime.UNKNOWN: "P",
}
# Okabe and Ito, Color universal design, 2008
SERIES_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
SERIES_MARKERS = ("o", "s", "^", "D", "v", "P", "p", "h")
_DECADES = 16  # range of a loss axis; lower losses are drawn at the bottom
INK = "0.15"
_OUTLINE: dict[str, Any] = {"markeredgecolor": INK, "markeredgewidth": 0.5, "linestyle": "none"}


def save(figure: Figure, path: str | Path, *, dpi: int = 200, run: str | None = None) -> tuple[Path, Path]:
    """Write ``path.png`` and ``path.svg``, each whole or not at all; equal figures give equal bytes.

    The metadata hold `run`, the digest of the run that the figure shows: ``gdkit-run`` of a PNG, the identifier of an
    SVG.

    Artists with very many points, which would take megabytes as paths, are images within the SVG.

    >>> import tempfile
    >>> [file.name for file in save(Figure(), Path(tempfile.mkdtemp(), "empty"))]
    ['empty.png', 'empty.svg']
    """
    base = Path(path)
    if not base.parent.is_dir():
        raise bad_value("path", str(path), "its folder does not exist", f"Create it: mkdir -p {base.parent}")
    png, svg = (base.with_name(base.name + end) for end in (".png", ".svg"))
    for axes in figure.axes:
        for artist in (*axes.lines, *axes.collections):
            if _count_points(artist) > _MAX_VECTOR_POINTS:
                artist.set_rasterized(True)
    pixels, paths = io.BytesIO(), io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "gdkit", "svg.fonttype": "path"}), _open_canvas(figure, dpi) as canvas:
        about = {"Software": None} | ({"gdkit-run": run} if run else {})
        canvas.print_png(pixels, metadata=about)
        about = {"Date": None, "Creator": None, "Identifier": run and f"gdkit-run:{run}"}
        figure.set_layout_engine("none")
        FigureCanvasSVG(figure).print_svg(paths, metadata=about)
    publish_output(png, [pixels.getbuffer()])
    publish_output(svg, [paths.getbuffer()])
    return png, svg


@contextlib.contextmanager
def _open_canvas(figure: Figure, dpi: int) -> Generator[FigureCanvasAgg]:
    """A canvas of a figure at a resolution, which draws a file once; afterwards the figure is as before.

    `Figure.savefig` draws each file twice, and takes a third more time.
    """
    engine, canvas, before = figure.get_layout_engine(), figure.canvas, figure.dpi
    own = FigureCanvasAgg(figure)  # before the resolution changes, which resizes the window of a canvas that has one
    figure.set_dpi(dpi)
    try:
        yield own
    finally:
        figure.set_dpi(before)
        figure.set_canvas(canvas)
        if engine is not None:
            figure.set_layout_engine(engine)


_MAX_VECTOR_POINTS = 50_000


def _count_points(artist: Any) -> int:
    """The number of points that a line or a collection draws."""
    if isinstance(artist, Line2D):
        return len(artist.get_xydata())
    if isinstance(artist, Collection):
        return max(len(artist.get_offsets()), sum(len(path.vertices) for path in artist.get_paths()))
    return 0


def paper(columns: int = 1, *, ratio: float = 0.72) -> dict[str, Any]:
    """Settings of matplotlib for a figure as wide as one column (3.3 inches) or two (6.8 inches) of a paper.

    Text has 8 points, tick labels and legends 7, legends below axes 6.7. Figures made without `ax` have this size.

    Args:
      columns: 1 or 2.
      ratio: height over width.

    Raises:
      InputValueError: `columns` is neither.

    >>> with mpl.rc_context(paper(columns=2)):
    ...     mpl.rcParams["figure.figsize"]
    [6.8, 4.896]
    """
    if columns not in _PAPER_WIDTHS:
        raise bad_value("columns", columns, "no such width", "Use 1 (3.3 inches) or 2 (6.8 inches)")
    width = _PAPER_WIDTHS[columns]
    small = dict.fromkeys(("xtick.labelsize", "ytick.labelsize", "legend.fontsize", "legend.title_fontsize"), 7.0)
    normal = dict.fromkeys(("font.size", "axes.labelsize", "axes.titlesize", "figure.titlesize"), 8.0)
    thin = dict.fromkeys(("axes.linewidth", "xtick.major.width", "ytick.major.width"), 0.6)
    shape: dict[str, Any] = {"figure.figsize": (width, ratio * width), "lines.linewidth": 1.2, "lines.markersize": 4.0}
    return shape | normal | small | thin | {"savefig.dpi": 300, "pdf.fonttype": 42, "ps.fonttype": 42}


_PAPER_WIDTHS = {1: 3.3, 2: 6.8}  # inches


def label_panels(figure: Figure, panels: Iterable[Axes] | None = None) -> Figure:
    """Write (a), (b), … before the titles of the panels, from left to right and from top to bottom.

    Args:
      figure: with several Axes.
      panels: None: all Axes of the figure except color bars.

    >>> figure = Figure()
    >>> _ = figure.subplots(1, 2)[1].set_title("zoom")
    >>> [ax.get_title(loc="left") or ax.get_title() for ax in label_panels(figure).axes]
    ['(a)', '(b) zoom']
    """
    chosen = [ax for ax in figure.axes if ax.get_label() != "<colorbar>"] if panels is None else list(panels)
    for letter, ax in zip(string.ascii_lowercase, chosen if len(chosen) > 1 else [], strict=False):
        if ax.get_title():
            ax.title.set_text(f"({letter}) {ax.get_title()}")
        else:
            ax.set_title(f"({letter}) {ax.get_title('left')}".strip(), loc="left", fontsize="medium")
    return figure


def regime_handles(regimes: Iterable[Any], color: str | None = None) -> list[Line2D]:
    """A legend entry for each regime that occurs; `color` replaces the colors of regimes."""
    found = sorted({Regime(int(code)) for code in regimes})
    own: dict[str, Any] = {} if color is None else {"color": color}
    marks = {regime: mark(regime, 7) | own for regime in found}
    return [Line2D([], [], **mark, label=REGIME_LABELS[regime]) for regime, mark in marks.items()]


def draw_legend(ax: Axes, *groups: Sequence[Any]) -> None:
    """Draw groups of legend entries below each other, under the label of the x axis."""
    style: dict[str, Any] = {"fontsize": "small", "handletextpad": 0.5, "columnspacing": 1.3, "handlelength": 1.8}
    points = FontProperties(size="small").get_size_in_points()
    row = 1.63 * 72 * get_figure(ax).get_figwidth() * min(1.0, ax.get_position().width / 0.775) / points  # letters
    below = 4.2  # in letters: height of the ticks and the label
    for group in filter(None, groups):
        letters = max(len(str(handle.get_label())) for handle in group) + 4
        rows = math.ceil(len(group) / max(1, row // letters))
        place: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, 0.0), "borderaxespad": below}
        former = ax.get_legend()
        ax.legend(handles=group, ncols=math.ceil(len(group) / rows), frameon=False, **place, **style)
        if former is not None and below > 4.2:
            ax.add_artist(former)  # ax.legend replaces the former legend
        below += 1.55 * rows + 0.6
    if get_figure(ax).get_layout_engine() is None:
        _raise_bottom(ax, below)


def _raise_bottom(ax: Axes, letters: float) -> None:
    """Raise the bottom of axes without a layout engine."""
    points = FontProperties(size="small").get_size_in_points()
    share = letters * points / 72 * get_figure(ax).dpi / ax.figure.bbox.height
    box = ax.get_position()
    if box.y0 < share < box.y1 - 0.1:
        ax.set_position((box.x0, share, box.width, box.y1 - share))


def get_axes(ax: Any, *, height: float = 4.0) -> Axes:
    """The Axes given, or those of a new figure."""
    if ax is None:
        import matplotlib.pyplot as plt  # chooses a backend, so only where a figure must be made

        width = mpl.rcParams["figure.figsize"][0]  # 6.4 unless a style such as `paper` is set
        return plt.subplots(figsize=(width, height * (0.4 + 0.6 * width / 6.4)), layout="constrained")[1]
    if not isinstance(ax, Axes):
        raise bad_type("ax", ax, "not matplotlib Axes", "Pass one Axes, for example from plt.subplots()")
    return ax


def get_figure(ax: Axes) -> Figure:
    """The root figure of `ax`."""
    figure = ax.get_figure(root=True)
    if figure is None:
        raise bad_value("ax", ax, "it was removed from its figure", "Pass Axes of a figure")
    return figure


def choose_scale(values: np.ndarray) -> str:
    """``log`` where values are more evenly spaced on it, ``symlog`` if one of them is 0, else ``linear``."""
    distinct = np.unique(values)
    positive = distinct[distinct > 0]
    if distinct[0] < 0 or not positive.size or distinct.size - positive.size > 1:
        return "linear"
    if positive.size < 3:
        even = positive.size == 1 or positive[-1] >= 4 * positive[0]
        return "log" if even and positive.size == distinct.size else "linear"
    uneven = lambda v: float(np.std(np.diff(v)) / np.mean(np.diff(v)))
    wide = positive[-1] >= 100 * positive[0] and uneven(positive) > 0.01
    if not wide and uneven(np.log(positive)) > uneven(positive):
        return "linear"
    return "log" if positive.size == distinct.size else "symlog"


def set_scale(ax: Axes, which: str, values: np.ndarray) -> None:
    """Set the scale that suits the values of an axis; strings become ticks."""
    axis = ax.xaxis if which == "x" else ax.yaxis
    if values.dtype.kind not in "fiu":
        axis.set_ticks(range(len(values)), [escape_math(str(v)) for v in values])
        return
    scale = choose_scale(values)
    extra: dict[str, Any] = {"linthresh": float(values[values > 0].min()), "linscale": 0.5} if scale == "symlog" else {}
    (ax.set_xscale if which == "x" else ax.set_yscale)(scale, **extra)


def set_loss_axis(ax: Axes, losses: np.ndarray, *, margin: float = 0.0, linear: bool = False) -> None:
    """Set a log axis around the finite losses, or a linear one where a log axis does not suit them.

    A log axis suits positive losses, and losses of 0 among them if the positive ones span three decades.
    `margin` is the share of the height to leave free at the top.
    """
    losses = losses[np.isfinite(losses)]
    positive = losses[losses > 0]
    suits = positive.size and losses.min() >= (0 if positive.max() > 1000 * positive.min() else positive.min())
    if not linear and suits:
        top = np.log10(positive.max())
        bottom = max(np.log10(positive.min()), top - _DECADES)
        width = max(top - bottom, 0.3)
        ax.set_yscale("log")
        ax.set_ylim(10 ** (bottom - 0.05 * width), 10 ** (top + (0.05 + margin / (1 - margin)) * width))
        tidy_ticks(ax.yaxis)
        return
    if not losses.size:
        ax.set_yticks([])
    low, high = (float(losses.min()), float(losses.max())) if losses.size else (0.0, 1.0)
    width = high - low or 1.0
    ax.set_ylim(low - 0.05 * width, high + (0.05 + margin / (1 - margin)) * width)


def tidy_ticks(axis: Any) -> None:
    """Label powers of ten on a log or symlog axis; below two decades, label more ticks, in plain numbers.

    Labels are plain text, and minor ticks few: formulas and ticks at 2 to 9 take a third of the time of a figure.
    """
    low, high = sorted(axis.get_view_interval())
    if axis.get_scale() not in ("log", "symlog"):
        return
    axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(format_power)
    if axis.get_scale() == "symlog":
        return
    axis.set_minor_locator(LogLocator(subs=(2, 5)))
    if high < 100 * low:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high > 4 * low else (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)))
        axis.set_major_formatter(lambda value, _: f"{value:g}")


_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def format_power(value: float, _: int | None = None) -> str:
    """A power of ten as text, for tick labels; another number in plain digits.

    >>> [format_power(value) for value in (1e-3, 1.0, -100.0, 0.0, 25.0)]
    ['10⁻³', '10⁰', '−10²', '0', '25']
    """
    exponent = round(math.log10(abs(value))) if value else 0
    is_power, sign = math.isclose(abs(value), 10.0**exponent), "-" if value < 0 else ""
    if mpl.rcParams["text.usetex"]:  # LaTeX does not know the characters below
        return f"${sign}10^{{{exponent}}}$" if is_power else f"${value:g}$"
    text = f"{sign}10{str(exponent).translate(_RAISED)}" if is_power else f"{value:g}"
    return text.replace("-", "−")


def cell_edges(axis: Any, values: np.ndarray) -> np.ndarray:
    """Edges of the cells around increasing values, halfway on the scale of the axis; (values + 1,)."""
    scale = axis.get_transform()
    return scale.inverted().transform(find_edges(scale.transform(positions(values))))


def find_edges(places: np.ndarray) -> np.ndarray:
    """Edges of the cells around increasing places: halfway between neighbors, and as far beyond the ends."""
    if places.size == 1:
        return places[0] + np.array([-0.3, 0.3])
    middles = (places[1:] + places[:-1]) / 2
    return np.concatenate([[2 * places[0] - middles[0]], middles, [2 * places[-1] - middles[-1]]])


def positions(values: np.ndarray) -> np.ndarray:
    """Numbers unchanged; strings as their index."""
    return values.astype(float) if values.dtype.kind in "fiu" else np.arange(len(values), dtype=float)


def scale_size(points: float) -> float:
    """`points`, a size that suits text of 10 points, scaled to the font size that is set."""
    return points * mpl.rcParams["font.size"] / 10


def mark(regime: Regime, size: float) -> dict[str, Any]:
    """Marker of a regime in its color."""
    return {"marker": REGIME_MARKERS[regime], "color": REGIME_COLORS[regime], "markersize": scale_size(size)} | _OUTLINE


def symbol(regime: Regime, size: float) -> dict[str, Any]:
    """Marker of a regime on a background of its color: white on dark, black on light."""
    dark = regime in (Regime.OSCILLATING, Regime.CATAPULT, Regime.DIVERGED, Regime.CONVERGED)
    color = "white" if dark else INK
    return {"marker": REGIME_MARKERS[regime], "color": color, "markersize": scale_size(size), "linestyle": "none"}


def series(number: int) -> dict[str, Any]:
    """Color and marker of the n-th series; colors and markers repeat with different periods."""
    color = SERIES_COLORS[number % len(SERIES_COLORS)]
    return {"color": color, "marker": SERIES_MARKERS[number % len(SERIES_MARKERS)]}


def dashes(number: int) -> Any:
    """The line style of the n-th series; an earlier line at the same place is seen through its gaps."""
    return _DASHES[number % len(_DASHES)]


_DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.2, 1.6)), (0, (6, 2, 1.2, 2)))


def format_name(name: str) -> str:
    """The name of an axis or variable in words."""
    return escape_math(name.removeprefix("problem.").replace("_", " "))


def escape_math(text: str) -> str:
    r"""Text that matplotlib draws as it is: its dollar signs do not begin mathematics.

    >>> print(escape_math("US$ 5"))
    US\$ 5
    """
    return text.replace("$", r"\$")


def format_short(value: Any) -> str:
    """A number with three significant digits; any other value as a string."""
    return format_number(value, 3) if isinstance(value, int | float | np.number) else escape_math(str(value))


def clip_path(path: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """A path up to its last point inside a box, extended to the side of the box where it leaves."""
    inside = (np.isfinite(path) & (path >= low) & (path <= high)).all(axis=1)
    if not inside.any():
        return np.clip(np.nan_to_num(path[:1]), low, high)
    last = int(np.flatnonzero(inside)[-1])
    inside_path = path[: last + 1][np.isfinite(path[: last + 1]).all(axis=1)]
    if last + 1 == len(path) or not np.isfinite(path[last + 1]).all():
        return inside_path
    start, move = path[last], path[last + 1] - path[last]
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = np.where(move > 0, (high - start) / move, np.where(move < 0, (low - start) / move, np.inf))
    return np.vstack([inside_path, start + shares.min() * move])


def check_labels(labels: Sequence[str] | None, number: int, noun: str) -> None:
    """Raise unless there are no labels, or as many as there are tables, runs or layers: the `noun`."""
    if labels is not None and len(labels) != number:
        problem = f"{count(len(labels), 'label')} for {count(number, noun)}"
        raise bad_value("labels", labels, problem, f"Pass one per {noun}")


def check_limits(limits: Any, shape: tuple[int, ...]) -> None:
    """Raise unless `limits` are increasing pairs of this shape, or None."""
    if limits is None:
        return
    remedy = "Pass (left, right)" if shape == (2,) else "Pass ((left, right), (bottom, top))"
    pairs = np.asarray(limits, float) if np.shape(limits) == shape else None
    if pairs is None or not np.isfinite(pairs).all() or not (np.diff(pairs) > 0).all():
        raise bad_value("limits", limits, "not increasing pairs of numbers", remedy)
