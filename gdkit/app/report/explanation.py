"""The page that explains why a run ended as it did."""

import tempfile
from pathlib import Path

from matplotlib.figure import Figure

from gdkit import plots
from gdkit.app.directory import SEAL
from gdkit.app.report import sections
from gdkit.app.report.figures import SavedFigure, save_figure
from gdkit.app.report.page import escape, fill_page
from gdkit.store.files import publish_output
from gdkit.sweeps.result.explanation import Explanation


def write_explanation(explanation: Explanation, path: Path, name: str, run: str | None = None) -> Path:
    """Write the page about a lane of the sweep `name`, whose digest is `run`; return its path."""
    lane = explanation.runs[0].lane
    with tempfile.TemporaryDirectory() as scratch:
        body = [
            f'<section><p class="details">{escape(explanation.text)}</p></section>',
            sections.render_figure(_draw(explanation, Path(scratch))),
            sections.render_output(str(explanation).removeprefix(explanation.text).strip()),
        ]
    page = fill_page("Why a run ended as it did", name, f"run {lane}", body, run=run)
    publish_output(path, SEAL.sign([page.encode()]))
    return path


def _draw(explanation: Explanation, folder: Path) -> SavedFigure:
    """One column per run: above its curvature, below its loss."""
    runs = explanation.runs
    figure = Figure(figsize=(0.6 + 4.2 * len(runs), 6.6), layout="constrained")
    for column, run in zip(figure.subplots(2, len(runs), squeeze=False).T, runs, strict=True):
        plots.curvature(run, ax=column[0])
        plots.flow(run, ax=column[1])
        column[0].set_title(f"run {run.lane}" + (f", {run.place}" if run.place else ""), fontsize="medium")
    caption = f"Above, the {explanation.sharpness_name} and the value above which steps are unstable; below, the loss."
    return save_figure(figure, folder / "explanation", "Curvature and loss", caption)
