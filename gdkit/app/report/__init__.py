"""The report: one HTML file with the answer first, that works offline and is readable without JavaScript."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gdkit.app.config.loading import dump
from gdkit.app.config.schema import ConfigOptimizer, StudyConfig, SweepConfig
from gdkit.app.directory import CONFIG, REPORT
from gdkit.app.report import embed, parts
from gdkit.app.report.figures import FOLDER, Drawn
from gdkit.app.report.page import live, page
from gdkit.app.summary import Summary, measured, provenance, words
from gdkit.stability import stability_threshold
from gdkit.store.files import FILES, publish
from gdkit.sweeps.result.result import SweepResult


class Standing(NamedTuple):
    """How far a run is that is not finished."""

    text: str = ""  # what is said of it; nothing of a finished run
    reload: int | None = None  # seconds after which the page loads itself again


OVER = Standing()
_READING = (
    "Lines: median over seeds; shaded: least to most; crosses at the top: diverged. Point at a run to read its "
    "numbers; click to pin its curve."
)


def write(
    job: SweepConfig,
    result: SweepResult,
    summary: Summary,
    figures: Iterable[Drawn],
    folder: Path,
    standing: Standing = OVER,
) -> Path:
    """Writes the report of a sweep, of the runs that have ended; returns its path."""
    data = embed.content(embed.parts_of(result, summary.by, theory_of(job)), summary.by, every=spacing_of(job))
    body = [
        parts.standing(standing.text),
        parts.answer(summary),
        parts.unknown(summary),
        parts.optimizers(summary),
        parts.bands(summary),
        _live(summary, data),
        parts.static(figures, FOLDER),
        parts.provenance(provenance(result), dump(job), again(folder)),
    ]
    data = {"name": job.name, **data}
    return _write(folder, page("Learning-rate sweep", job.name, measured(result), body, data, standing.reload))


def write_begun(job: SweepConfig, folder: Path, standing: Standing) -> Path:
    """Writes the report of a sweep of which no run has ended; returns its path."""
    body = [parts.standing(standing.text), parts.provenance({}, dump(job), again(folder))]
    return _write(folder, page("Learning-rate sweep", job.name, "", body, None, standing.reload))


def write_study(
    study: StudyConfig,
    said: str,
    claims: Sequence[Any],
    figures: Iterable[Drawn],
    folder: Path,
    made_with: Mapping[str, str] | None = None,
) -> Path:
    """Writes the report of a study; returns its path."""
    body = [
        parts.claims(claims) if claims else "",
        *map(parts.figure, figures),
        f'<pre tabindex="0">{parts.text(said)}</pre>' if said else "",
        parts.provenance(made_with or {}, dump(study), again(folder)),
    ]
    return _write(folder, page("Study", study.name, study.experiment, body))


def again(folder: Path) -> str:
    """The command that runs what is in `folder` again."""
    return f"gdkit run {shlex.quote(str(folder / CONFIG))} --new"


def theory_of(job: SweepConfig) -> dict[str, float]:
    """Critical learning rate times sharpness of each optimizer for which theory has a formula."""
    return {optimizer.title: value for optimizer in job.optimizer if (value := _theory(optimizer)) is not None}


def spacing_of(job: SweepConfig) -> dict[str, int]:
    """Steps from one value to the next of each curve that the config's monitors record."""
    every = {str(m.name).removesuffix("_every"): m.arguments.get("every") for m in job.sweep.monitors if m.name}
    return {name: steps for name, steps in every.items() if isinstance(steps, int)}


def _theory(optimizer: ConfigOptimizer) -> float | None:
    fixed = optimizer.fixed
    if optimizer.schedule or optimizer.clip_norm or any(name != "learning_rate" for name in optimizer.axes):
        return None
    momentum, nesterov = fixed.pop("momentum", None), fixed.pop("nesterov", False)
    if optimizer.name != "sgd" or set(fixed) - {"learning_rate"}:
        return None
    if not momentum:
        return stability_threshold("sgd", 1.0)
    return stability_threshold("nesterov" if nesterov else "momentum", 1.0, momentum=momentum)


def _live(summary: Summary, data: dict[str, Any]) -> str:
    along = words(summary.axis) if summary.axis else "optimizer"
    heading = f"{words(summary.by).capitalize()} by {along}, and how it fell"
    kept = sum(optimizer["count"] for optimizer in data["optimizers"])
    thinned = (
        f"{data['lanes']:,} runs are more than a page can hold: this one draws and lists {kept:,} of them, at equal "
        "distances and with the best. The answer above is from all; results.nc beside this page has all."
    )
    return live(heading, _READING, thinned if kept < data["lanes"] else "")


def _write(folder: Path, content: str) -> Path:
    """Writes the report whole: who reads it meanwhile has the one before."""
    path = folder / REPORT
    publish(FILES, path, [content.encode()])  # two processes may end at once
    return path
