"""One page that compares several runs: what is best in each, and whether their seeds can tell them apart."""

import dataclasses
import math
import shlex
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from gdkit.app import directory as folders
from gdkit.app.config.build import build_thresholds
from gdkit.app.config.schema import SweepConfig
from gdkit.app.config.source import ConfigError
from gdkit.app.report import embed, figures, parts
from gdkit.app.report.answers import least_sensitive
from gdkit.app.report.page import live, page
from gdkit.app.summary import Row, Summary, counted, measured, number, settings, span, summarise, words
from gdkit.errors import bad_value
from gdkit.plots import style
from gdkit.regimes import Regime
from gdkit.sweeps.result.result import SweepResult
from gdkit.sweeps.result.result import open as open_result

_RESAMPLES = 2000
_CHANCE = 0.05  # what chance alone may bring about, where seeds are said to tell two apart


class Run(NamedTuple):
    """A run that is compared."""

    name: str
    job: SweepConfig
    result: SweepResult


class Difference(NamedTuple):
    """How much more one's score is than the other's."""

    mean: float
    interval: tuple[float, float] | None  # 95 %, by resampling seeds; None of one seed
    verdict: str  # whether the seeds can tell them apart


def compare(directories: Sequence[Path], out: Path) -> Path:
    """Writes a page that compares the runs in several folders; returns its path.

    Raises:
      ConfigError: a folder is not of a run, or of a study, or of a run of which nothing has ended.
      InputValueError: there is no folder for `out`.
    """
    if not out.absolute().parent.is_dir():
        remedy = f"Make it first: {shlex.join(['mkdir', '-p', str(out.parent)])}"
        raise bad_value("--output", str(out), "its folder does not exist", remedy)
    runs = _read(directories)
    by = _common(runs)
    summaries = [summarise(run.result, by) for run in runs]
    entries = [(run, row) for run, summary in zip(runs, summaries, strict=True) for row in summary.rows]
    together = Summary(summaries[0].axis, by, None, tuple(_named(run, row) for run, row in entries), _unlike(runs, by))
    shown = [_relabelled(run, i, part) for i, run in enumerate(runs) for part in embed.parts_of(run.result, by)]
    lead = min(range(len(entries)), key=lambda i: entries[i][1].score)
    headline = f'<p class="answer">{parts.text(_headline(entries, lead))}</p>'
    body = [
        f"<section>{headline}{_deck(entries, lead, together)}</section>",
        parts.unknown(together),
        _table(entries, lead, by),
        parts.bands(together),
        live(f"{words(by).capitalize()}, overlaid", "Lines: median over seeds; shaded: least to most.", ""),
        f"<noscript>{_overlay(shown, by)}</noscript>",
        _origins(runs),
    ]
    data = embed.content(shown, by)
    title = ", ".join(run.name for run in runs)
    content = page("Comparison of learning-rate sweeps", title, "", body, {"name": "comparison", **data})
    out.write_text(content, encoding="utf-8")
    return out


def difference(ours: Sequence[float], theirs: Sequence[float], *, paired: bool) -> Difference:
    """Mean of `ours` less `theirs`, and whether so many seeds can tell them apart.

    They can where the bootstrap interval leaves out 0 and chance alone would part so many seeds so clearly at most
    once in twenty: six pairs of one sign (2 / 2⁶), or four seeds all above four others (2 / C(8, 4)).

    >>> difference([0.5, 0.6, 0.7], [0.4, 0.5, 0.6], paired=True).verdict
    "can't tell: 3 seeds agree by chance once in 4"
    """
    a, b = np.asarray(ours, float), np.asarray(theirs, float)
    if np.isnan([*a, *b]).any():
        return Difference(float("nan"), None, "can't tell: some seed has not ended")
    mean = float(a.mean() - b.mean())
    if not np.isfinite(mean):
        return Difference(mean, None, "can't tell: some seed diverged")
    if min(len(a), len(b)) < 2:
        return Difference(mean, None, "can't tell: one seed")
    low, high = np.quantile(_resampled(a, b, paired), [0.025, 0.975])
    interval = (float(low), float(high))
    if low <= 0 <= high:
        return Difference(mean, interval, "can't tell: it may be none")
    chance = 2.0 ** (1 - len(a)) if paired else 2 / math.comb(len(a) + len(b), len(a))
    if chance > _CHANCE:
        seeds = len(a) if paired else f"{len(a)} and {len(b)}"
        return Difference(mean, interval, f"can't tell: {seeds} seeds agree by chance once in {round(1 / chance)}")
    return Difference(mean, interval, "yes")


def _resampled(a: np.ndarray, b: np.ndarray, paired: bool) -> np.ndarray:
    generator = np.random.default_rng(0)
    draw = lambda values: values[generator.integers(len(values), size=(_RESAMPLES, len(values)))].mean(axis=1)
    return draw(a - b) if paired else draw(a) - draw(b)


def _read(directories: Sequence[Path]) -> list[Run]:
    names = [directory.name for directory in directories]
    found = []
    for directory in directories:
        job = folders.load_config(directory)
        if not isinstance(job, SweepConfig):
            raise ConfigError(f"{directory}: this is a study, not a sweep. Compare runs of sweeps.")
        result = dataclasses.replace(open_result(directory), thresholds=build_thresholds(job))
        if result.missing == result.lanes.sizes["lane"]:
            raise ConfigError(f"{directory}: no run has finished yet. To resume: {folders.resume_command(directory)}")
        name = directory.name if names.count(directory.name) == 1 else str(directory)
        found.append(Run(name or str(directory), job, result))
    return found


def _common(runs: Sequence[Run]) -> str:
    """The score that all have."""
    return "validation_loss" if all("validation_loss" in run.result.lanes for run in runs) else "final_loss"


def _paired(one: Run, other: Run) -> bool:
    """Whether seed s has the same start and the same batches in both."""
    mine, theirs = one.result.lanes.attrs, other.result.lanes.attrs
    same = mine["key"] == theirs["key"] and int(mine["seeds"]) == int(theirs["seeds"])
    return same and one.job.problem == other.job.problem


def _unlike(runs: Sequence[Run], by: str) -> tuple[str, ...]:
    """What keeps the runs from being compared plainly."""
    said = []
    if any(run.job.problem != runs[0].job.problem for run in runs):
        said.append(f"whether a {words(by)} means the same in all: their problems differ.")
    steps = [int(run.result.lanes.attrs["steps"]) for run in runs]
    if len(set(steps)) > 1:
        said.append(f"how they compare at equal length: they took {', '.join(f'{n:,}' for n in steps)} steps.")
    if not all(_paired(run, runs[0]) for run in runs):
        said.append("what seeds would tell if they were paired: starts or batches differ from run to run.")
    left = {run.name: run.result.missing for run in runs}
    said += [f"what becomes of {counted(n, 'run')} of {name}: not finished yet." for name, n in left.items() if n]
    return tuple(said)


def _label(run: Run, row: str) -> str:
    return f"{run.name} · {row}" if row else run.name


def _named(run: Run, row: Row) -> Row:
    return row._replace(optimizer=_label(run, row.optimizer))


def _relabelled(run: Run, number: int, part: embed.EmbeddedSweep) -> embed.EmbeddedSweep:
    return part._replace(label=_label(run, part.label), run=number)


def _headline(entries: Sequence[tuple[Run, Row]], lead: int) -> str:
    run, row = entries[lead]
    if not np.isfinite(row.score):
        return "Every run diverged."
    others = [entry for i, entry in enumerate(entries) if i != lead]
    told = [_difference(entry, entries[lead]).verdict == "yes" for entry in others]
    best = f"{_label(run, row.optimizer)} does best"
    if not others:
        return f"{best}."
    if all(told):
        return f"{best}, and the seeds tell it from all others."
    close = told.count(False)
    said = f"{best}, but the seeds cannot tell it from"
    if len(others) == 1:
        return f"{said} the other."
    return f"{said} {close} of {len(others)} others." if any(told) else f"{said} any of the {close} others."


def _deck(entries: Sequence[tuple[Run, Row]], lead: int, together: Summary) -> str:
    row = entries[lead][1]
    found, least = row.recommendation, least_sensitive(together)
    place = f" with {settings(found)}" if found and found.best is not None else ""
    said = [f"Its {words(together.by)} is {number(row.score)}{place}."]
    said += [f"{least.optimizer} depends least on its {words(str(together.axis))}."] if least else []
    return f'<p class="deck">{parts.text(" ".join(said))}</p>' if np.isfinite(row.score) else ""


def _difference(entry: tuple[Run, Row], other: tuple[Run, Row]) -> Difference:
    return difference(entry[1].seeds, other[1].seeds, paired=_paired(entry[0], other[0]))


def _table(entries: Sequence[tuple[Run, Row]], lead: int, by: str) -> str:
    heads = ("run", "optimizer", "best", "95 % over seeds", words(by), "more than the first", "can seeds tell?")
    heads += ("edge (×\u00a0the first's)", "sensitivity (×\u00a0the first's)")
    texts = ("optimizer", "can seeds tell?")
    order = sorted(range(len(entries)), key=lambda i: entries[i][1].score)
    rows = [(i == lead, _cells(entries[i], entries[lead], i == lead)) for i in order]
    note = "Each at its own best, by the same seeds. Differences: 95 % by resampling seeds, in pairs where possible."
    return f'<section><h2>Side by side</h2>{parts.table(heads, rows, texts)}<p class="soft">{note}</p></section>'


def _cells(entry: tuple[Run, Row], lead: tuple[Run, Row], first: bool) -> list[str]:
    run, row = entry
    found, best = row.recommendation, lead[1].recommendation
    told = _difference(entry, lead)
    more = number(told.mean) + (f" ({span(told.interval)})" if told.interval else "")
    value, interval = (number(found.best), span(found.interval)) if found else ("–", "–")
    cells = [run.name, row.optimizer or "–", value, interval]
    cells += [number(row.score), "–" if first else more, "–" if first else told.verdict]
    edges = (found.edge if found else None, best.edge if best else None)
    losses = (found.sensitivity if found else None, best.sensitivity if best else None)
    return [*cells, *(number(pair[0]) + ("" if first else _share(*pair)) for pair in (edges, losses))]


def _share(value: float | None, other: float | None) -> str:
    return f" (×\u00a0{number(value / other)})" if value and other else ""


def _overlay(shown: Sequence[embed.EmbeddedSweep], by: str) -> str:
    """The medians of all, for who reads without JavaScript."""
    figure = Figure(figsize=(7.6, 4.6), layout="constrained")
    ax = figure.subplots()
    for part, look in zip(shown, embed.looks_of(shown), strict=True):
        axis = part.result.main_axis
        if axis is not None:
            _draw(ax, part.result.along(axis), axis, by, part.label, look)
    ax.set(xscale="log", yscale="log", ylabel=words(by))
    with tempfile.TemporaryDirectory() as folder:
        return parts.figure(figures.save(figure, Path(folder, "all"), "All runs", "Lines: median over seeds."))


def _draw(ax: Any, line: SweepResult, axis: str, by: str, label: str, look: embed.Look) -> None:
    values = line.lanes[axis].values.reshape(-1, line.seeds)[:, 0]
    scores = np.where(line.lane_regimes == Regime.DIVERGED, np.nan, line.lanes[by].values).reshape(-1, line.seeds)
    order = np.argsort(values)
    middle = np.median(scores, axis=1)[order]
    later: dict[str, Any] = {"linestyle": "--", "markerfacecolor": "white"} if look.later else {}
    drawn = style.series(look.series) | later | {"markersize": 3.5, "label": label}
    ax.plot(values[order], np.where(middle > 0, middle, np.nan), **drawn)
    ax.set_xlabel(words(axis))
    ax.legend(fontsize="small")


def _origins(runs: Sequence[Run]) -> str:
    rows = "".join(f"<tr><td>{parts.text(r.name)}</td><td>{parts.text(measured(r.result))}</td></tr>" for r in runs)
    return f'<section><h2>What was compared</h2><table class="facts"><tbody>{rows}</tbody></table></section>'
