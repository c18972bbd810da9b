"""Writes the report of a sweep, finished or not, and of a study."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gdkit.app.config.loading import dump
from gdkit.app.config.schema import Config, ConfigOptimizer, StudyConfig, SweepConfig
from gdkit.app.directory import CONFIG, REPORT, SEAL
from gdkit.app.report import embed, sections
from gdkit.app.report.figures import FOLDER, SavedFigure
from gdkit.app.report.page import fill_interactive, fill_page
from gdkit.app.summary import StudyClaim, Summary, describe_provenance, describe_run, humanize
from gdkit.stability import stability_threshold
from gdkit.store.files import publish_output
from gdkit.sweeps.result.result import SweepResult

_CAPTION = (
    "Lines: median over seeds; shaded: minimum to maximum; crosses at the top: diverged runs. Point at a run to read "
    "its numbers; click to pin its curve."
)


class Notice(NamedTuple):
    """What the report of an unfinished run says at its top."""

    text: str = ""  # empty for a finished run
    reload_seconds: int | None = None  # after which the page reloads itself


def write_report(
    config: SweepConfig,
    result: SweepResult,
    summary: Summary,
    figures: Iterable[SavedFigure],
    folder: Path,
    notice: Notice | None = None,
) -> Path:
    """Writes the report on the finished runs of a sweep; returns its path.

    Args:
      config, result: the sweep.
      summary: of `result`.
      figures: for readers without JavaScript.
      folder: the run directory.
      notice: for an unfinished run.
    """
    notice = notice or Notice()
    sweeps = embed.split_by_optimizer(result, summary.by, stability_thresholds(config))
    data = embed.embed_sweeps(sweeps, summary.by, every=curve_intervals(config))
    body = [
        sections.render_notice(notice.text),
        sections.render_answer(summary),
        sections.render_caveats(summary),
        sections.render_optimizers(summary),
        sections.render_outcomes(summary),
        _render_interactive(summary, data),
        sections.render_figures(figures, FOLDER),
        _render_origin(config, folder, describe_provenance(result)),
    ]
    data = {"name": config.name, **data}
    seconds, run = notice.reload_seconds, result.lanes.attrs.get("run")
    page = fill_page("Learning-rate sweep", config.name, describe_run(result), body, data, seconds, run)
    return _publish(folder, page)


def write_empty_report(config: SweepConfig, folder: Path, notice: Notice) -> Path:
    """Writes the report of a sweep without finished runs; returns its path."""
    body = [sections.render_notice(notice.text), _render_origin(config, folder, {})]
    return _publish(folder, fill_page("Learning-rate sweep", config.name, "", body, None, notice.reload_seconds))


def write_study_report(
    config: StudyConfig,
    output: str,
    claims: Sequence[StudyClaim],
    figures: Iterable[SavedFigure],
    folder: Path,
    provenance: Mapping[str, str] | None = None,
) -> Path:
    """Writes the report of a study; returns its path.

    Args:
      config: the study.
      output: what its result prints.
      claims, figures: of its result.
      folder: the run directory.
      provenance: versions, device and time.
    """
    body = [
        sections.render_claims(claims) if claims else "",
        *map(sections.render_figure, figures),
        sections.render_output(output) if output else "",
        _render_origin(config, folder, provenance or {}),
    ]
    return _publish(folder, fill_page("Study", config.name, config.experiment, body))


def stability_thresholds(config: SweepConfig) -> dict[str, float]:
    """Critical learning rate times sharpness of each optimizer for which theory has a formula, by label."""
    thresholds = {optimizer.title: _stability_threshold(optimizer) for optimizer in config.optimizer}
    return {label: threshold for label, threshold in thresholds.items() if threshold is not None}


def curve_intervals(config: SweepConfig) -> dict[str, int]:
    """Steps between the values of each curve that the config's monitors record."""
    every = {str(m.name).removesuffix("_every"): m.arguments.get("every") for m in config.sweep.monitors if m.name}
    return {name: steps for name, steps in every.items() if isinstance(steps, int)}


def _stability_threshold(optimizer: ConfigOptimizer) -> float | None:
    fixed = optimizer.fixed
    if optimizer.schedule or optimizer.clip_norm or any(name != "learning_rate" for name in optimizer.axes):
        return None
    momentum, nesterov = fixed.pop("momentum", None), fixed.pop("nesterov", False)
    if optimizer.name != "sgd" or set(fixed) - {"learning_rate"}:
        return None
    if not momentum:
        return stability_threshold("sgd", 1.0)
    return stability_threshold("nesterov" if nesterov else "momentum", 1.0, momentum=momentum)


def _render_interactive(summary: Summary, data: dict[str, Any]) -> str:
    axis = humanize(summary.axis) if summary.axis else "optimizer"
    heading = f"{humanize(summary.by).capitalize()} by {axis}, and loss curves"
    drawn = sum(optimizer["count"] for optimizer in data["optimizers"])
    note = (
        f"This page draws and lists {drawn:,} of {data['lanes']:,} runs: values at equal distances, the best included. "
        "The answer above uses all runs; results.nc beside this page has all of them."
    )
    return fill_interactive(heading, _CAPTION, note if drawn < data["lanes"] else "")


def _render_origin(config: Config, folder: Path, provenance: Mapping[str, str]) -> str:
    command = f"gdkit run {shlex.quote(str(folder / CONFIG))} --new"
    return sections.render_origin(provenance, dump(config), command)


def _publish(folder: Path, content: str) -> Path:
    """Writes the report atomically: a reader sees the old report or the new one, never a part."""
    path = folder / REPORT
    publish_output(path, SEAL.sign([content.encode()]))  # two processes may finish at once
    return path
