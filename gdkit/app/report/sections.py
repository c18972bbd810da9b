"""The sections of a report as HTML. Every text from a config or a name goes through `escape`."""

import base64
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from gdkit.app.answers import answer_cards, format_details, format_headline, tabulate_optimizers
from gdkit.app.directory import UNFINISHED
from gdkit.app.importance import AxisImportance, describe_importance
from gdkit.app.labels import humanize
from gdkit.app.report.figures import SavedFigure
from gdkit.app.report.page import escape
from gdkit.app.summary import (
    MEANINGS,
    RegimeCell,
    StudyClaim,
    Summary,
    SummaryRow,
    format_deviation,
    format_expected,
    short_number,
    short_range,
)
from gdkit.formatting import count
from gdkit.plots.style import REGIME_COLORS, REGIME_COLORS_DARK, find_edges
from gdkit.regimes import Regime
from gdkit.sweeps.axes import is_log

_LARGEST_SVG = 300_000  # bytes, above which the PNG is smaller and as sharp on a screen
_LONG = ' class="long"'
_FOLDED = {"about as good", "no divergence up to", "some diverged at", "diverges above about"}  # on a phone
_FIGURE_BYTES = 1_500_000  # of all static figures in a page
_LINKS = {  # pattern of a reference -> the address that its first group is appended to
    r"(https?://[^\s<)]+[^\s<).,;])": "",
    r"arXiv[: ](\d{4}\.\d{4,5})": "https://arxiv.org/abs/",
    r"doi[: ](10\.[^\s<),;]+)": "https://doi.org/",
}
_STRIP_CELLS = 240  # at most: more cannot be distinguished
_DARK = (  # matplotlib's paper and inks, for a dark page
    "<style>@media screen and (prefers-color-scheme: dark) { :root { fill: #ececea } "
    '[style*="fill: #ffffff"] { fill: #1e2023 !important } [style*="fill: #262626"] { fill: #ececea !important } '
    '[style*="fill: #000000"] { fill: #ececea !important } [style*="stroke: #000000"] { stroke: #a9acb2 !important } '
    '[style*="stroke: #262626"] { stroke: #ececea !important } '
    + " ".join(
        f'[style*="{part}: {color}"] {{ {part}: {REGIME_COLORS_DARK[regime]} !important }}'
        for part in ("fill", "stroke")
        for regime, color in REGIME_COLORS.items()
        if color != REGIME_COLORS_DARK[regime]
    )
    + "}</style>"
)


def render_notice(text: str) -> str:
    """How far an unfinished run is; empty for a finished one."""
    return f'{UNFINISHED} role="status">{escape(text)}</p>' if text else ""


def render_answer(summary: Summary) -> str:
    """The answer in words, and its numbers."""
    cards = "".join(
        f"<div><dt>{escape(card.name)}</dt><dd>{escape(card.value)}</dd><dd>{escape(card.detail)}</dd></div>"
        for card in answer_cards(summary)
    )
    text = format_details(summary)
    details = f'<p class="details">{escape(text)}</p>' if text else ""
    numbers = f'<dl class="tiles">{cards}</dl>' if cards else ""
    return f'<section><p class="answer">{escape(format_headline(summary))}</p>{details}{numbers}</section>'


def render_caveats(summary: Summary) -> str:
    """The caveats, each a sentence; labels of optimizers and names of variables keep their case."""
    labels = tuple(row.optimizer for row in summary.rows if row.optimizer)
    keeps_case = lambda text: text.startswith(labels) or "_" in text.partition(" ")[0]
    texts = [text if keeps_case(text) else text[:1].upper() + text[1:] for text in summary.caveats]
    items = "".join(f"<li>{escape(text)}</li>" for text in texts)
    return f'<section class="caveats"><h2>Caveats</h2><ul>{items}</ul></section>' if items else ""


def render_optimizers(summary: Summary) -> str:
    """A table of the optimizers."""
    if not any(row.choice for row in summary.rows):
        return ""
    columns, axis = tabulate_optimizers(summary), humanize(summary.axis or "")
    columns["optimizer"] = [name or "all runs" for name in columns["optimizer"]]
    is_best = [row is summary.best and len(summary.rows) > 1 for row in summary.rows]
    rows = list(zip(is_best, zip(*columns.values(), strict=True), strict=True))
    recommendations = [row.recommendation for row in summary.rows if row.recommendation]
    is_corrected = any(short_number(one.mean) != short_number(one.score) for one in recommendations)
    note = f"The {humanize(summary.by)} is corrected for choosing the best of many." if is_corrected else ""
    if any(one.as_good and one.interval for one in recommendations):
        note += " About as good: within the noise of the seeds, and with a mean close to the best."
    if summary.window:
        within = f"within a factor of {short_number(summary.window.factor)} of the best {axis}"
        note += f" Sensitivity: how far the {humanize(summary.by)} averages above its best {within}."
    title = "Optimizers" if len(rows) > 1 else "Summary"
    notes = f'<p class="soft">{escape(note.strip())}</p>' if note else ""
    return f"<section><h2>{title}</h2>{render_table(title, list(columns), rows)}{notes}</section>"


def render_outcomes(summary: Summary) -> str:
    """The regimes along the axis, one strip per optimizer."""
    rows = [row for row in summary.rows if row.cells]
    if not rows:
        return ""
    title = f"<h2>Outcome by {escape(humanize(summary.axis or ''))}</h2>"
    edges = _place_cells(rows)
    strips = "".join(
        f"<dt>{escape(row.optimizer or 'all runs')}</dt><dd>{_render_strip(row, own)}</dd>"
        for row, own in zip(rows, edges, strict=True)
    )
    divided = any(max(cell.counts) < sum(cell.counts) for row in rows for cell in row.cells)
    note = f'<p class="soft">{_explain_split(rows)}</p>' if divided else ""
    return f'<section>{title}<dl class="strips">{strips}</dl>{_render_key(summary)}{note}</section>'


def render_explanations(pages: Mapping[int, Path], command: str) -> str:
    """Links to the pages on why runs ended as they did, by lane, and the command that writes one."""
    links = ", ".join(f'<a href="{escape(page.name)}">run {lane}</a>' for lane, page in pages.items())
    linked = f"Why a run ended as it did: {links}. " if links else ""
    about = f"{linked}<code>{escape(command)}</code> explains run N by its curvature and the edge of stability."
    return f'<section><p class="soft">{about}</p></section>'


def render_importances(importances: Mapping[str, Sequence[AxisImportance]], by: str) -> str:
    """How much of the variance each axis explains, per optimizer: a sentence and bars."""
    if not importances:
        return ""
    parts = "".join(_render_importance(label, axes) for label, axes in importances.items())
    note = (
        f"Shares of the variance of the ranks by {humanize(by)}, over the values of this sweep; points with a diverged "
        "seed rank last. Inner bar: the axis alone. Outer bar: with its interactions, which count for every axis, so "
        "that these shares can exceed 100 %."
    )
    return f'<section><h2>Importance of each axis</h2>{parts}<p class="soft">{escape(note)}</p></section>'


def _render_importance(label: str, axes: Sequence[AxisImportance]) -> str:
    rows = "".join(f"<dt>{escape(axis.name)}</dt><dd>{_render_shares(axis)}</dd>" for axis in axes)
    text = describe_importance(axes)
    text = f"{label}: {text}" if label else text[:1].upper() + text[1:]
    return f'<p>{escape(text)}</p><dl class="strips">{rows}</dl>'


def _render_shares(axis: AxisImportance) -> str:
    bars = "".join(
        f'<rect class="{kind}" width="{min(max(share, 0.0), 1.0):.4f}" height="1"/>'
        for kind, share in (("share-total", axis.total), ("share-alone", axis.alone))
    )
    frame = 'viewBox="0 0 1 1" preserveAspectRatio="none" aria-hidden="true"'
    alone, total = (f"<span>{100 * share:.0f} %</span>" for share in (axis.alone, axis.total))
    return f'{alone}<svg class="strip" {frame}>{bars}</svg>{total}'


def _explain_split(rows: Sequence[SummaryRow]) -> str:
    """Why runs at one value can differ: their seeds, and the other axes."""
    others = {humanize(name) for row in rows if row.recommendation for name in row.recommendation.at}
    varied = sorted(others - {"optimizer"})
    if not varied:
        return "Split columns: seeds disagree."
    seeds = "seeds and " * any(len(row.seeds) > 1 for row in rows)
    return f"Split columns: outcomes differ between {seeds}values of {', '.join(varied)}."


def render_figure(figure: SavedFigure) -> str:
    """A figure, embedded."""
    address, kind = _encode_image(figure)
    description = f"{figure.title}: {figure.caption}" if figure.caption else figure.title
    caption = f"<figcaption>{escape(figure.caption)}</figcaption>" if figure.caption else ""
    image = f'<img src="{address}" alt="{escape(description)}">'
    return f'<section><h2>{escape(figure.title)}</h2><figure class="drawn {kind}">{image}{caption}</figure></section>'


def render_figures(figures: Iterable[SavedFigure], folder: str) -> str:
    """Figures for readers without JavaScript, within the size that a page should have."""
    included, size, omitted = [], 0, 0
    for figure in figures:
        rendered = render_figure(figure)
        if size + len(rendered) > _FIGURE_BYTES:
            omitted += 1
            continue
        included.append(rendered)
        size += len(rendered)
    more = f"<p>{omitted} more figures are in the folder {escape(folder)} beside this page.</p>" if omitted else ""
    hint = '<p class="soft">With JavaScript, these figures are interactive, and a table lists every run.</p>'
    return f"<noscript>{''.join(included)}{more}{hint}</noscript>" if included or more else ""


def render_claims(claims: Sequence[StudyClaim]) -> str:
    """The claims of a study and whether they hold."""
    held = sum(bool(claim.holds) for claim in claims)
    heads = ("claim", "source", "expected", "measured", "error / tolerance", "holds")
    cells = lambda c: (c.text, c.source, format_expected(c), short_number(c.measured), format_deviation(c))
    rows = [(False, (*cells(claim), "✓ yes" if claim.holds else "✗ no")) for claim in claims]
    table = link_sources(render_table("Claims", heads, rows, heads[:2]))
    return f'<section><p class="answer">{held} of {count(len(claims), "claim")} hold.</p>{table}</section>'


def render_abstract(text: str) -> str:
    """What a study is about: the paragraphs of its docstring."""
    paragraphs = "".join(f"<p>{escape(' '.join(part.split()))}</p>" for part in re.split(r"\n\s*\n", text.strip()))
    paragraphs = re.sub("`+([^`<]+)`+", r"<code>\1</code>", paragraphs)
    return f'<section class="abstract">{link_sources(paragraphs)}</section>' if text.strip() else ""


def link_sources(markup: str) -> str:
    """Escaped text in which addresses, arXiv numbers and DOIs are links."""
    for pattern, address in _LINKS.items():
        markup = re.sub(pattern, rf'<a href="{address}\1">\g<0></a>', markup)
    return markup


def render_output(text: str) -> str:
    """Printed text, in its columns."""
    return f'<pre tabindex="0">{escape(text)}</pre>'


def render_origin(provenance: Mapping[str, str], config: str, command: str) -> str:
    """How to reproduce the run by a command or from its YAML, and the provenance of its numbers."""
    button = '<button type="button" data-copy="command" aria-label="Copy the command" hidden>Copy</button>'
    rerun = f'<p class="rerun"><code id="command">{escape(command)}</code>{button}</p>'
    details = _render_versions(provenance)
    yaml = f"<details><summary>Config</summary>{render_output(config)}</details>"
    return f"<section><h2>Run it again</h2>{rerun}{details}{yaml}</section>"


def render_provenance(provenance: Mapping[str, str]) -> str:
    """The provenance of a result without a config."""
    return f"<section>{_render_versions(provenance)}</section>" if provenance else ""


def _render_versions(provenance: Mapping[str, str]) -> str:
    facts = render_facts(provenance.items())
    return f"<details><summary>Versions and plan</summary>{facts}</details>" if provenance else ""


def render_facts(facts: Iterable[tuple[str, str]]) -> str:
    """A table of names and values."""
    rows = "".join(f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in facts)
    return f'<table class="facts"><tbody>{rows}</tbody></table>'


def render_table(
    name: str, heads: Sequence[str], rows: Iterable[tuple[bool, Sequence[str]]], texts: Sequence[str] = ()
) -> str:
    """A table whose rows become cards on a narrow screen.

    Args:
      name: of the table, for screen readers.
      heads: names of the columns.
      rows: whether the row is highlighted, and its cells.
      texts: columns of sentences, which may break.
    """
    head = "".join(f'<th scope="col"{_LONG if name in texts else ""}>{escape(name)}</th>' for name in heads)
    body = "".join(_render_row(heads, highlighted, cells, texts) for highlighted, cells in rows)
    region = f'class="wide" tabindex="0" role="region" aria-label="{escape(name)}"'
    return f'<div {region}><table class="cards"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _render_row(heads: Sequence[str], highlighted: bool, cells: Sequence[str], texts: Sequence[str]) -> str:
    kind = ' class="best"' if highlighted else ""
    first = f'<th scope="row"{_LONG if heads[0] in texts else ""}>{escape(cells[0])}</th>'
    more = lambda head: ' class="more"' if head in _FOLDED or head.startswith("sensitivity") else ""
    rest = (
        f'<td data-name="{escape(head)}"{_LONG if head in texts else more(head)}>{escape(cell)}</td>'
        for head, cell in zip(heads[1:], cells[1:], strict=True)
    )
    return f"<tr{kind}>{first}{''.join(rest)}</tr>"


# Strips of regimes


def _place_cells(rows: Sequence[SummaryRow]) -> list[np.ndarray]:
    """The edges of the cells of every row on one scale, from 0 to the width of a strip, each (cells + 1,)."""
    values = [np.array([cell.value for cell in row.cells]) for row in rows]
    scale = np.log if is_log(np.concatenate(values)) else np.asarray
    edges = [find_edges(scale(own)) for own in values]
    low, high = min(own[0] for own in edges), max(own[-1] for own in edges)
    return [_STRIP_CELLS * (own - low) / (high - low) for own in edges]


def _render_strip(row: SummaryRow, edges: np.ndarray) -> str:
    """One column per value, divided into the shares of its regimes, diverged runs on top."""
    places = sorted({round(i * (len(row.cells) - 1) / (_STRIP_CELLS - 1)) for i in range(_STRIP_CELLS)})
    cells, edges = [row.cells[place] for place in places], edges[[*places, -1]]
    groups = itertools.groupby(enumerate(cells), lambda numbered: _compute_shares(numbered[1]))
    starts = [next(group)[0] for _, group in groups]
    ends = [*starts[1:], len(cells)]
    stretches = [
        _render_stretch(cells[start:end], *edges[[start, end]]) for start, end in zip(starts, ends, strict=True)
    ]
    counts = ", ".join(f"{count} {regime.name.lower()}" for regime, count in row.counts.items())
    frame = f'viewBox="0 0 {_STRIP_CELLS} 1" preserveAspectRatio="none" role="img" aria-label="{escape(counts)}"'
    low, high = short_number(row.cells[0].value), short_number(row.cells[-1].value)
    return f'<span>{low}</span><svg class="strip" {frame}>{"".join(stretches)}</svg><span>{high}</span>'


def _compute_shares(cell: RegimeCell) -> tuple[float, ...]:
    return tuple(count / sum(cell.counts) for count in cell.counts)


def _render_stretch(cells: Sequence[RegimeCell], start: float, end: float) -> str:
    """Neighboring values with the same share of every regime."""
    shares = dict(zip(Regime, _compute_shares(cells[0]), strict=True))
    text = ", ".join(f"{100 * share:.0f} % {regime.name.lower()}" for regime, share in shares.items() if share)
    values = short_range((cells[0].value, cells[-1].value))
    title = f"<title>{escape(values)}: {escape(text.removeprefix('100 % '))}</title>"
    rects, top = [], 1.0
    for regime, share in shares.items():
        top -= share
        if share:
            size = f'x="{start:.2f}" y="{max(top, 0):.4f}" width="{end - start:.2f}" height="{share:.4f}"'
            rects.append(f'<rect class="fill r{int(regime)}" {size}/>')
    return f"<g>{title}{''.join(rects)}</g>"


def _render_key(summary: Summary) -> str:
    items = []
    for regime in Regime:
        runs = sum(row.counts.get(regime, 0) for row in summary.rows)
        if runs:
            square = f'<rect class="fill r{int(regime)}" width="1" height="1"/>'
            box = f'<svg class="badge" viewBox="0 0 1 1" aria-hidden="true">{square}</svg>'
            items.append(f"<li>{box}{regime.name.lower()} {runs:,} – {MEANINGS[regime]}</li>")
    return f'<ul class="key">{"".join(items)}</ul>'


# Images


def _encode_image(figure: SavedFigure) -> tuple[str, str]:
    """A data URL, and the CSS class of its background."""
    vector = _read_svg(figure.svg) if figure.svg else None
    if vector and len(vector) <= _LARGEST_SVG:
        return _encode_url("svg+xml", vector), "ink"
    return _encode_url(figure.png.suffix.removeprefix("."), figure.png.read_bytes()), "paper"


def _read_svg(path: Path) -> bytes:
    head, end, rest = path.read_text(encoding="utf-8").partition("<defs>")
    shorter = re.sub(r'(?<= )(?:d|x|y)="[^"]*', lambda part: re.sub(r"(\.\d\d)\d+", r"\1", part[0]), rest)
    return f"{head}{_DARK}{end}{shorter}".encode()  # in points: hundredths are far finer than a pixel


def _encode_url(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
