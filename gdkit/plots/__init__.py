"""Figures of sweeps, of single runs, of derivatives and of borders, on matplotlib.

Every function takes ``ax=None`` and returns the Axes it drew on; without `ax` it makes a pyplot figure. Nothing global
is changed. Legends stand below the axes, strips above; a figure of several axes needs a layout that makes room for
them: ``plt.subplots(2, 2, layout="constrained")``. A run that leaves the picture is drawn to where it left, with a mark
there.
"""

from gdkit.plots.boundary import FPS, answer_handles, answers, zoom
from gdkit.plots.derivatives import chain_rule, difference_error, tangent
from gdkit.plots.runs import coordinate_check, descent_1d, trajectories
from gdkit.plots.style import REGIME_COLORS, REGIME_LABELS, REGIME_MARKERS, SERIES_COLORS, SERIES_MARKERS, save
from gdkit.plots.sweeps import final_loss, loss_curves, regime_map, regime_strip

__all__ = [
    "FPS", "REGIME_COLORS", "REGIME_LABELS", "REGIME_MARKERS", "SERIES_COLORS", "SERIES_MARKERS",
    "answer_handles", "answers", "chain_rule", "coordinate_check", "descent_1d", "difference_error", "final_loss",
    "loss_curves", "regime_map", "regime_strip", "save", "tangent", "trajectories", "zoom",
]  # fmt: skip
