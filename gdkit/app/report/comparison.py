"""One page that compares several runs: the best of each, and whether their seeds can tell them apart."""

import dataclasses
import shlex
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gdkit.app import directory as folders
from gdkit.app.answers import describe_settings, first_divergence, least_sensitive
from gdkit.app.config.build import build_thresholds
from gdkit.app.config.schema import SweepConfig
from gdkit.app.config.source import ConfigError, format_path, format_value
from gdkit.app.labels import humanize
from gdkit.app.report import figures, sections
from gdkit.app.report.differences import Difference, compare_scores
from gdkit.app.report.embed import EmbeddedSweep, SeriesStyle, assign_styles, embed_sweeps, split_by_optimizer
from gdkit.app.report.page import escape, fill_interactive, fill_page
from gdkit.app.summary import Summary, SummaryRow, describe_run, short_number, short_range, summarize, unfinished_caveat
from gdkit.errors import bad_value
from gdkit.plots import style
from gdkit.plots.lines import select_line
from gdkit.regimes import Regime
from gdkit.store.files import publish_output
from gdkit.sweeps.result.assemble import read_result
from gdkit.sweeps.result.result import SweepResult
from gdkit.sweeps.scoring.lane_values import end_values


class ComparedRun(NamedTuple):
    """A run directory that is compared."""

    name: str
    config: SweepConfig
    result: SweepResult


class _Entry(NamedTuple):
    """One optimizer of one run."""

    run: ComparedRun
    row: SummaryRow


def write_comparison(directories: Sequence[Path], out: Path) -> Path:
    """Write a page that compares the runs in several folders; returns its path.

    Raises:
      ConfigError: a folder does not hold a run, or holds a study, or a run without finished lanes.
      InputValueError: the folder of `out` does not exist.
    """
    if not out.absolute().parent.is_dir():
        remedy = f"Make it first: {shlex.join(['mkdir', '-p', str(out.parent)])}"
        raise bad_value("--output", str(out), "its folder does not exist", remedy)
    runs = _read_runs(directories)
    by = _choose_score(runs)
    summaries = [summarize(run.result, by) for run in runs]
    entries = [_Entry(run, row) for run, summary in zip(runs, summaries, strict=True) for row in summary.rows]
    merged = Summary(summaries[0].axis, by, None, tuple(map(_label_row, entries)), _find_caveats(runs, by))
    sweeps = [
        _label_sweep(run, i, sweep)
        for i, (run, summary) in enumerate(zip(runs, summaries, strict=True))
        for sweep in split_by_optimizer(run.result, summary)
    ]
    best = min(entries, key=lambda entry: entry.row.score)
    body = [
        _render_answer(entries, best, merged),
        _render_settings(runs),
        sections.render_caveats(merged),
        _render_entries(entries, best, merged),
        sections.render_outcomes(merged),
        fill_interactive(f"{humanize(by).capitalize()} of all runs"),
        f"<noscript>{_render_overlay(sweeps, by)}</noscript>",
        _render_runs(runs),
    ]
    title = ", ".join(run.name for run in runs)
    data = {"name": "comparison", **embed_sweeps(sweeps, by)}
    publish_output(out, [fill_page("Comparison of learning-rate sweeps", title, "", body, data=data).encode()])
    return out


def _read_runs(directories: Sequence[Path]) -> list[ComparedRun]:
    names = [directory.name for directory in directories]
    runs = []
    for directory in directories:
        config = folders.load_config(directory)
        if not isinstance(config, SweepConfig):
            raise ConfigError(f"{directory}: this is a study, not a sweep. Compare runs of sweeps.")
        result = dataclasses.replace(read_result(directory), thresholds=build_thresholds(config))
        if not result.finished.any():
            raise ConfigError(f"{directory}: no run has finished yet. To resume: {folders.resume_command(directory)}")
        name = directory.name if names.count(directory.name) == 1 else str(directory)
        runs.append(ComparedRun(name or str(directory), config, result))
    return runs


def _choose_score(runs: Sequence[ComparedRun]) -> str:
    """The default score, if all runs share it and it is minimized; else the final loss."""
    first, *others = (None if run.result.is_maximized() else run.result.score_name() for run in runs)
    return first if first is not None and all(name == first for name in others) else "final_loss"


def _is_paired(one: ComparedRun, other: ComparedRun) -> bool:
    """Whether each seed has the same initial state and the same batches in both."""
    a, b = one.result.lanes.attrs, other.result.lanes.attrs
    return a["key"] == b["key"] and int(a["seeds"]) == int(b["seeds"]) and one.config.problem == other.config.problem


def _find_caveats(runs: Sequence[ComparedRun], by: str) -> tuple[str, ...]:
    """Differences between the runs other than their optimizers, and unfinished runs."""
    first, caveats = runs[0], []
    if any(run.config.problem != first.config.problem for run in runs):
        caveats.append(f"The problems differ, so {humanize(by)} may not mean the same in all runs.")
    steps = [int(run.result.lanes.attrs["steps"]) for run in runs]
    if len(set(steps)) > 1:
        caveats.append(f"The numbers of steps differ: {', '.join(f'{n:,}' for n in steps)}.")
    if not all(_is_paired(run, first) for run in runs):
        caveats.append("Initial states or batches differ between the runs, so their seeds are not paired.")
    return (*caveats, *(f"{run.name}: {unfinished_caveat(run.result)}" for run in runs if run.result.missing))


def _label(run: ComparedRun, optimizer: str) -> str:
    return f"{run.name} · {optimizer}" if optimizer else run.name


def _label_row(entry: _Entry) -> SummaryRow:
    return entry.row._replace(optimizer=_label(entry.run, entry.row.optimizer))


def _label_sweep(run: ComparedRun, number: int, sweep: EmbeddedSweep) -> EmbeddedSweep:
    return sweep._replace(label=_label(run, sweep.label), run=number)


def _compare(entry: _Entry, best: _Entry) -> Difference:
    return compare_scores(entry.row.seeds, best.row.seeds, paired=_is_paired(entry.run, best.run))


def _render_answer(entries: Sequence[_Entry], best: _Entry, merged: Summary) -> str:
    headline = f'<p class="answer">{escape(_format_headline(entries, best, merged.by))}</p>'
    details = f'<p class="details">{escape(_format_details(best, merged))}</p>' if np.isfinite(best.row.score) else ""
    return f"<section>{headline}{details}</section>"


def _format_headline(entries: Sequence[_Entry], best: _Entry, by: str) -> str:
    if not np.isfinite(best.row.score):
        return "No best run: at every value some seed diverged."
    headline = f"{_label(best.run, best.row.optimizer)} has the lowest {humanize(by)}"
    others = [entry for entry in entries if entry is not best]
    ties = sum(not _compare(entry, best).is_significant for entry in others)
    if not others:
        return f"{headline}."
    if not ties:
        return f"{headline}, significantly below {'all others' if len(others) > 1 else 'the other'}."
    if len(others) == 1:
        return f"{headline}, but the difference is not significant ({_compare(others[0], best).objection})."
    which = "any of the others" if ties == len(others) else f"{ties} of the {len(others)} others"
    return f"{headline}, but not significantly below {which}."


def _format_details(best: _Entry, merged: Summary) -> str:
    least, choice = least_sensitive(merged), best.row.choice
    settings = f" with {describe_settings(choice)}" if choice else ""
    score = f"Its {humanize(merged.by)} is {short_number(best.row.score)}{settings}."
    return f"{score} {least} is the least sensitive to its {humanize(str(merged.axis))}." if least else score


def _render_entries(entries: Sequence[_Entry], best: _Entry, merged: Summary) -> str:
    heads = ("run", "optimizer", "best", "95 % interval over seeds", humanize(merged.by), "above the first")
    heads += ("significant?", "none diverged up to", "some diverged at")
    heads += ("sensitivity (×\u00a0the first)",) if merged.window else ()
    texts = ("optimizer", "significant?")
    rows = [
        (entry is best, _format_cells(entry, best, merged))
        for entry in sorted(entries, key=lambda entry: entry.row.score)
    ]
    note = "Each optimizer at its best value. Differences: 95 % bootstrap interval over seeds, paired where possible; "
    note += "significant where p ≤ 0.05 in a permutation test over the seeds."
    table = sections.render_table("Runs by score", heads, rows, texts)
    return f'<section><h2>Runs by score</h2>{table}<p class="soft">{note}</p></section>'


def _format_cells(entry: _Entry, best: _Entry, merged: Summary) -> list[str]:
    recommendation = entry.row.recommendation
    difference, is_best = _compare(entry, best), entry is best
    above = short_number(difference.mean)
    above += f" ({short_range(difference.interval)})" if difference.interval else ""
    significant = "yes" if difference.is_significant else f"no: {difference.objection}"
    value, interval = (
        (short_number(recommendation.best), short_range(recommendation.interval)) if recommendation else ("–", "–")
    )
    cells = [entry.run.name, entry.row.optimizer or "–", value, interval, short_number(entry.row.score)]
    cells += ["–", "–"] if is_best else [above, significant]
    cells += [short_number(recommendation.safe) if recommendation else "–", first_divergence(entry.row)]
    if merged.window is None:
        return cells
    own, first = (merged.window.excess.get(_label_row(one).optimizer) for one in (entry, best))
    return [*cells, short_number(own) + ("" if is_best else _format_ratio(own, first))]


def _format_ratio(value: float | None, other: float | None) -> str:
    return f" (×\u00a0{short_number(value / other)})" if value and other else ""


def _render_overlay(sweeps: Sequence[EmbeddedSweep], by: str) -> str:
    """The medians of all runs in one figure, for readers without JavaScript."""
    figure = Figure(figsize=(7.6, 4.6), layout="constrained")
    ax = figure.subplots()
    lines = [
        _plot_median(ax, sweep, str(sweep.result.main_axis), by, look)
        for sweep, look in zip(sweeps, assign_styles(sweeps), strict=True)
        if sweep.result.main_axis is not None
    ]
    if lines:
        style.set_scale(ax, "x", np.unique(np.concatenate([line.get_xdata() for line in lines])))
        style.set_loss_axis(ax, np.concatenate([line.get_ydata() for line in lines]))
    ax.set_ylabel(style.format_name(by))
    with tempfile.TemporaryDirectory() as folder:
        saved = figures.save_figure(figure, Path(folder, "all"), "All runs", "Lines: median over seeds.")
        return sections.render_figure(saved)


def _plot_median(ax: Axes, sweep: EmbeddedSweep, axis: str, by: str, look: SeriesStyle) -> Line2D:
    line = select_line(sweep.result, axis, None, None)
    scores = np.where(line.regimes == Regime.DIVERGED, np.nan, end_values(line.result.lanes)[by].values[line.rows])
    dashes: dict[str, Any] = {"linestyle": "--", "markerfacecolor": "white"} if look.dashed else {}
    options: dict[str, Any] = style.series(look.series) | dashes | {"markersize": 3.5}
    [drawn] = ax.plot(line.values, np.median(scores, axis=1), label=style.escape_math(sweep.label), **options)
    ax.set_xlabel(style.format_name(axis))
    ax.legend(fontsize="small")
    return drawn


def _render_settings(runs: Sequence[ComparedRun]) -> str:
    """The settings in which the configs differ, one row each."""
    trees = [dict(_flatten(run.config.model_dump(by_alias=True, exclude={"name", "output"}))) for run in runs]
    names = dict.fromkeys(name for tree in trees for name in tree)
    absent = object()
    rows = [(name, [tree.get(name, absent) for tree in trees]) for name in names]
    differing = [(name, values) for name, values in rows if any(repr(value) != repr(values[0]) for value in values)]
    if not differing:
        return "<section><h2>What differs</h2><p>The configs differ only in their names.</p></section>"
    show = lambda value: "–" if value is absent else value if isinstance(value, str) else format_value(value)
    cells = [(False, (name, *map(show, values))) for name, values in differing]
    heads = ("setting", *(run.name for run in runs))
    table = sections.render_table("What differs", heads, cells, heads)
    return f"<section><h2>What differs</h2>{table}</section>"


def _flatten(tree: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str, Any]]:
    """The settings of a config by their paths; those that are not set are left out."""
    items = tree.items() if isinstance(tree, Mapping) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        holds_mappings = isinstance(value, list) and any(isinstance(part, Mapping) for part in value)
        if isinstance(value, Mapping) or holds_mappings:
            yield from _flatten(value, (*path, key))
        elif value is not None:
            yield format_path((*path, key)), value


def _render_runs(runs: Sequence[ComparedRun]) -> str:
    facts = sections.render_facts((run.name, describe_run(run.result)) for run in runs)
    return f"<section><h2>Compared runs</h2>{facts}</section>"
