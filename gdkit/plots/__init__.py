"""Figures of sweeps, single runs, derivatives and boundaries, with matplotlib.

Every function takes ``ax=None`` and returns the Axes that it drew on; without `ax` it makes a pyplot figure. No global
setting is changed; `paper` returns settings for the columns of a paper. Legends are below the axes, strips above; a
figure of several axes needs a layout with space for them: ``plt.subplots(2, 2, layout="constrained")``. A run that
leaves the axes is drawn up to their edge, with a marker there.
"""

from gdkit.plots.boundary import FPS, answer_handles, answers, zoom
from gdkit.plots.curves import curves, loss_curves
from gdkit.plots.derivatives import chain_rule, difference_error, tangent
from gdkit.plots.maps import regime_map
from gdkit.plots.runs import coordinate_check, curvature, descent_1d, flow, trajectories
from gdkit.plots.style import (
    REGIME_COLORS,
    REGIME_LABELS,
    REGIME_MARKERS,
    SERIES_COLORS,
    SERIES_MARKERS,
    label_panels,
    paper,
    save,
)
from gdkit.plots.sweeps import final_loss, regime_strip

__all__ = [
    "FPS", "REGIME_COLORS", "REGIME_LABELS", "REGIME_MARKERS", "SERIES_COLORS", "SERIES_MARKERS",
    "answer_handles", "answers", "chain_rule", "coordinate_check", "curvature", "curves", "descent_1d",
    "difference_error", "final_loss", "flow", "label_panels", "loss_curves", "paper", "regime_map", "regime_strip",
    "save", "tangent", "trajectories", "zoom",
]  # fmt: skip
