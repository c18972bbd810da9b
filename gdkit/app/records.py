"""The answer of a sweep and the list of runs in a folder, for other programs."""

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from gdkit.app.answers import format_headline
from gdkit.app.directory import CONFIG, REPORT
from gdkit.app.labels import humanize
from gdkit.app.summary import Summary, SummaryRow, short_number
from gdkit.store.manifest import NAME as MANIFEST
from gdkit.sweeps.result.recommend import Recommendation

CLAIMS = "claims.json"  # of a study
_MAX_DEPTH = 4  # of folders that are searched for runs


class RunRecord(NamedTuple):
    """One line of the list of runs."""

    folder: Path
    kind: str  # sweep or study
    status: str  # "finished", "16 of 96 runs finished"
    answer: str  # in one sentence
    is_finished: bool
    changed: float  # time of the last change, in seconds since 1970


def answer_record(name: str, summary: Summary, paths: Mapping[str, Path]) -> dict[str, Any]:
    """The answer for `json.dumps`: values are None where they are unknown or not finite."""
    rows = [_record_row(row) for row in summary.rows]
    return {
        "name": name,
        "answer": format_headline(summary),
        "runs": summary.runs,
        "finished": summary.runs - summary.unfinished,
        "measure": summary.by,
        "maximize": summary.maximize,
        "best": rows[summary.rows.index(summary.best)],
        "optimizers": rows,
        "caveats": list(summary.caveats),
        "paths": {what: str(path) for what, path in paths.items()},
    }


def format_line(name: str, summary: Summary, path: Path) -> str:
    """The answer in one line of a log."""
    recommendation = summary.best.recommendation
    score = recommendation.mean if recommendation is not None and recommendation.mean is not None else None
    quality = f" {humanize(summary.by).capitalize()}: {short_number(score)}." if score is not None else ""
    return f"{name}: {format_headline(summary)}{quality} Report: {path}"


def dump(record: Mapping[str, Any]) -> str:
    """A record as JSON."""
    return json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False)


def find_runs(folder: Path) -> Iterator[Path]:
    """The folders of runs in `folder`, at any depth up to four, in the order of their names."""
    for place, inner, files in os.walk(folder):
        path = Path(place)
        if path != folder and is_run(files):
            yield path
            inner.clear()
        elif len(path.relative_to(folder).parts) >= _MAX_DEPTH:
            inner.clear()
        else:
            inner[:] = sorted(name for name in inner if not name.startswith("."))


def is_run(files: list[str]) -> bool:
    """Whether a folder with these files is that of a run: of a sweep, or of a study that has ended."""
    return MANIFEST in files or (CONFIG in files and not {REPORT, CLAIMS}.isdisjoint(files))


def _record_row(row: SummaryRow) -> dict[str, Any]:
    recommendation = row.recommendation
    numbers = {"optimizer": row.optimizer or None, "score": _as_finite(row.score)}
    return numbers if recommendation is None else numbers | _record_recommendation(recommendation)


def _record_recommendation(recommendation: Recommendation) -> dict[str, Any]:
    others = {name: _as_json(value) for name, value in recommendation.at.items() if name != "optimizer"}
    values = {} if recommendation.best is None else {recommendation.axis: recommendation.best} | others
    pair = lambda bounds: None if bounds is None else [_as_finite(bound) for bound in bounds]
    return {
        "values": values,
        "mean": _as_finite(recommendation.mean),
        "interval": pair(recommendation.interval),
        "about_as_good": pair(recommendation.as_good),
        "within_noise": pair(recommendation.plateau),
        "worst_mean_within_noise": _as_finite(recommendation.worst_mean),
        "edge": {
            "none_up_to": _as_finite(recommendation.safe),
            "some_at": _as_finite(recommendation.unsafe),
            "median": _as_finite(recommendation.edge),
        },
        "metrics": {name: _as_finite(value) for name, value in recommendation.metrics.items()},
    }


def _as_finite(value: Any) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _as_json(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    return value if isinstance(value, str | bool | int) or value is None else _as_finite(value)
