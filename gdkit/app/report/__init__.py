"""The report: one HTML file with the answer first, which works offline and is readable without JavaScript.

Its names are resolved on first use, so that a command that finds its report written does not import matplotlib.
"""

import importlib
from typing import Any

_MODULE_OF = {
    "SavedFigure": "figures",
    "draw_figures": "figures",
    "save_figure": "figures",
    "Notice": "write",
    "render_empty_report": "write",
    "render_report": "write",
    "write_empty_report": "write",
    "write_index": "index",
    "write_report": "write",
    "write_result_report": "write",
    "write_study_report": "write",
}


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
