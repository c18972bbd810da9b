"""The figure of `experiments.learning_rate_transfer`."""

from typing import TYPE_CHECKING, Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.drawing import BORDER
from experiments.learning_rates import curve, vertex
from gdkit import plots

if TYPE_CHECKING:
    from experiments.learning_rate_transfer import Transfer

LAYERS = ("first layer", "second layer", "outputs")


def draw(result: "Transfer") -> Figure:
    """One figure, a row an optimizer, a column a parametrisation of: loss against learning rate; coordinate check."""
    figure = Figure(figsize=(13, 6.8), layout="constrained")
    axes = figure.subplots(2, 4)
    optimizers, kinds = (tuple(dict.fromkeys(names)) for names in zip(*result.runs, strict=True))
    for row, optimizer in zip(axes, optimizers, strict=True):
        row[1].sharex(row[0])
        row[1].sharey(row[0])
        row[3].sharey(row[2])
        for ax, kind in zip(row[:2], kinds, strict=True):
            _draw_losses(ax, result, optimizer, kind)
        for ax, kind in zip(row[2:], kinds, strict=True):
            plots.coordinate_check(result.settings["widths"], result.changes[optimizer, kind], labels=LAYERS, ax=ax)
            ax.get_legend().remove()
            ax.set_title(f"{optimizer}, {kind}: coordinate check", fontsize="medium")
        for ax in row[1::2]:
            ax.set_ylabel("")  # as beside it
    for ax, side in ((axes[0, 0], "left"), (axes[0, 2], "right")):
        handles, labels = ax.get_legend_handles_labels()
        style: dict[str, Any] = {"loc": f"outside lower {side}", "ncols": len(labels), "frameon": False}
        figure.legend(handles, labels, **style)
    return figure


def _draw_losses(ax: Axes, result: "Transfer", optimizer: str, kind: str) -> None:
    start = max(float(found.lanes["initial_loss"].mean()) for found in result.runs[optimizer, kind])
    for number, (width, found) in enumerate(zip(result.settings["widths"], result.runs[optimizer, kind], strict=True)):
        rates, losses = curve(found)
        series = plots.style.series(number)
        shown = losses <= start  # what ends above its start is left out
        ax.plot(rates[shown], losses[shown], label=f"width {width}", linewidth=1.1, markersize=4, **series)
        best = vertex(rates, losses)
        ax.axvline(best, color=series["color"], linewidth=1, linestyle=BORDER["linestyle"])
        ax.plot(best, 1, **series, markersize=4, transform=ax.get_xaxis_transform(), clip_on=False)  # whose it is
    ax.set(xscale="log", yscale="log", xlabel="learning rate (dotted: best)", ylabel="loss of all training rows (nats)")
    ax.set_title(f"{optimizer}, {kind}", fontsize="medium")
    plots.style.tidy_ticks(ax.yaxis)
