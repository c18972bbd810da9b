"""The report: one HTML file with the answer first, which works offline and is readable without JavaScript."""

from gdkit.app.report.figures import SavedFigure, draw_figures, save_figure
from gdkit.app.report.write import Notice, write_empty_report, write_report, write_result_report, write_study_report

__all__ = [
    "Notice", "SavedFigure", "draw_figures", "save_figure", "write_empty_report", "write_report",
    "write_result_report", "write_study_report",
]  # fmt: skip
