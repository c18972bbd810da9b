"""The reports of sweeps, finished or not, and of studies."""

import shlex
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gdkit.app.config.loading import dump
from gdkit.app.config.schema import Config, ConfigOptimizer, StudyConfig, SweepConfig
from gdkit.app.directory import CONFIG, REPORT, SEAL, find_explanations
from gdkit.app.importance import axis_importances
from gdkit.app.labels import humanize
from gdkit.app.report import embed, sections
from gdkit.app.report.figures import FOLDER, SavedFigure, digest_figures, draw_curves_so_far, draw_figures
from gdkit.app.report.page import fill_interactive, fill_page
from gdkit.app.summary import StudyClaim, Summary, describe_provenance, describe_run, summarize
from gdkit.stability import stability_threshold
from gdkit.store.files import publish_output
from gdkit.store.paths import as_path
from gdkit.sweeps.result.result import SweepResult


class Notice(NamedTuple):
    """The notice at the top of the report of an unfinished run."""

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
    """Write the report on the finished runs of a sweep; return its path.

    Args:
      config, result: the sweep.
      summary: of `result`.
      figures: for readers without JavaScript.
      folder: the run directory.
      notice: for an unfinished run.
    """
    return _publish(folder / REPORT, render_report(config, result, summary, figures, folder, notice))


def render_report(
    config: SweepConfig,
    result: SweepResult,
    summary: Summary,
    figures: Iterable[SavedFigure],
    folder: Path,
    notice: Notice | None = None,
) -> str:
    """The page that `write_report` writes."""
    origin = _render_origin(config, folder, describe_provenance(result))
    if notice is None:
        pages = find_explanations(folder, str(result.lanes.attrs.get("run")))
        command = f"gdkit explain {shlex.quote(str(folder))} --lane N"
        origin = sections.render_explanations(pages, command) + origin
    thresholds, every = stability_thresholds(config), curve_intervals(config)
    return _fill_result_page(config.name, result, summary, figures, notice or Notice(), origin, thresholds, every)


def write_result_report(
    result: SweepResult,
    path: str | Path,
    *,
    title: str | None = None,
    by: str | None = None,
    figures: Iterable[SavedFigure] | None = None,
    notice: Notice | None = None,
) -> Path:
    """Write the report of a result without a config; return its path.

    Args:
      result: with some finished lanes.
      path: the file, or an existing folder, where it is ``report.html``.
      title: of the page; by default the name of the file or the folder.
      by: the variable that points are compared by.
      figures: for readers without JavaScript; by default those that `draw_figures` draws.
      notice: for an unfinished run.
    """
    path = as_path("path", path)
    title = title or path.stem or path.absolute().name
    path = path / REPORT if path.is_dir() else path
    summary = summarize(result, by)
    origin = sections.render_provenance(describe_provenance(result))
    with tempfile.TemporaryDirectory() as scratch:
        drawn = draw_figures(result, summary, Path(scratch)) if figures is None else figures
        page = _fill_result_page(title, result, summary, drawn, notice or Notice(), origin)
    return _publish(path, page)


def _fill_result_page(
    title: str,
    result: SweepResult,
    summary: Summary,
    figures: Iterable[SavedFigure],
    notice: Notice,
    origin: str,
    thresholds: Mapping[str, float] | None = None,
    every: Mapping[str, int] | None = None,
) -> str:
    """The page of a result; `origin` is the section on the provenance of its numbers."""
    figures = list(figures)
    drawn = None if notice.text else digest_figures(figures)
    data = embed.embed_sweeps(embed.split_by_optimizer(result, summary, thresholds), summary.by, every=every)
    body = [
        sections.render_notice(notice.text),
        sections.render_answer(summary),
        sections.render_caveats(summary),
        sections.render_optimizers(summary),
        sections.render_outcomes(summary),
        sections.render_importances(axis_importances(result, summary.by), summary.by),
        _render_interactive(summary, data),
        sections.render_figures(figures, FOLDER),
        origin,
    ]
    return fill_page(
        "Learning-rate sweep",
        title,
        describe_run(result),
        body,
        data={"name": title, **data},
        reload_seconds=notice.reload_seconds,
        run=result.lanes.attrs.get("run"),
        figures=drawn,
    )


def write_empty_report(config: SweepConfig, folder: Path, notice: Notice, result: SweepResult | None = None) -> Path:
    """Write the report of a sweep without finished runs, with the curves so far in `result`; return its path."""
    return _publish(folder / REPORT, render_empty_report(config, folder, notice, result))


def render_empty_report(config: SweepConfig, folder: Path, notice: Notice, result: SweepResult | None = None) -> str:
    """The page that `write_empty_report` writes."""
    with tempfile.TemporaryDirectory() as scratch:
        drawn = draw_curves_so_far(result, Path(scratch)) if result is not None else []
        figures = list(map(sections.render_figure, drawn))
    body = [sections.render_notice(notice.text), *figures, _render_origin(config, folder, {})]
    return fill_page("Learning-rate sweep", config.name, "", body, reload_seconds=notice.reload_seconds)


def write_study_report(
    config: StudyConfig,
    output: str,
    claims: Sequence[StudyClaim],
    figures: Iterable[SavedFigure],
    folder: Path,
    provenance: Mapping[str, str] | None = None,
    abstract: str = "",
) -> Path:
    """Write the report of a study; return its path.

    Args:
      config: the study.
      output: its result as text.
      claims, figures: of its result.
      folder: the run directory.
      provenance: versions, device and time.
      abstract: what it is about, in paragraphs.
    """
    body = [
        sections.render_abstract(abstract),
        sections.render_claims(claims) if claims else "",
        *map(sections.render_figure, figures),
        sections.render_output(output) if output else "",
        _render_origin(config, folder, provenance or {}),
    ]
    return _publish(folder / REPORT, fill_page("Study", config.name, config.experiment, body))


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
        f"This page draws and lists {drawn:,} of {data['lanes']:,} runs: evenly spaced values, the best included. "
        "The answer above uses all runs, and the file of results contains all of them."
    )
    return fill_interactive(heading, note if drawn < data["lanes"] else "")


def _render_origin(config: Config, folder: Path, provenance: Mapping[str, str]) -> str:
    command = f"gdkit run {shlex.quote(str(folder / CONFIG))} --new"
    return sections.render_origin(provenance, dump(config), command)


def _publish(path: Path, content: str) -> Path:
    """Write the report atomically: a reader sees the old report or the new one, never a part."""
    publish_output(path, SEAL.sign([content.encode()]))  # two processes may finish at once
    return path
