"""The parts of a report as HTML. Whatever came from a config or a name goes through `text`."""

import base64
import html
import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gdkit.app.directory import UNFINISHED
from gdkit.app.report import answers
from gdkit.app.report.figures import Drawn
from gdkit.app.summary import MEANINGS, RegimeCell, Row, Summary, metric_value, number, span, words
from gdkit.regimes import Regime

_LARGEST_SVG = 300_000  # beyond this many bytes the PNG is smaller and as sharp as a screen
_LONG = ' class="long"'
_ALL_FIGURES = 1_500_000  # bytes of static figures in a page
_CELLS = 240  # of a strip, at most: as many as can be told apart
_DARK = (  # matplotlib's paper and inks, for a dark page
    "<style>@media screen and (prefers-color-scheme: dark) { :root { fill: #ececea } "
    '[style*="fill: #ffffff"] { fill: #1e2023 !important } [style*="fill: #262626"] { fill: #ececea !important } '
    '[style*="fill: #000000"] { fill: #ececea !important } [style*="stroke: #000000"] { stroke: #a9acb2 !important } '
    '[style*="stroke: #262626"] { stroke: #ececea !important } }</style>'
)


def text(content: object) -> str:
    """`content` as text: no part of it is markup."""
    return html.escape(str(content), quote=True)


def table(heads: Sequence[str], rows: Iterable[tuple[bool, Sequence[str]]], texts: Sequence[str] = ()) -> str:
    """A table whose rows are cards on a narrow screen; a row comes with whether it stands out.

    Args:
      heads: names of the columns.
      rows: whether it stands out, and its cells.
      texts: columns of sentences, which may break.
    """
    head = "".join(f'<th scope="col"{_LONG if name in texts else ""}>{text(name)}</th>' for name in heads)
    body = "".join(_table_row(heads, bold, cells, texts) for bold, cells in rows)
    rolling = 'class="wide" tabindex="0" role="region" aria-label="Table"'
    return f'<div {rolling}><table class="cards"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def standing(said: str) -> str:
    """How far a run is that is not finished; nothing of a finished one."""
    return f'{UNFINISHED} role="status">{text(said)}</p>' if said else ""


def answer(summary: Summary) -> str:
    """The answer in words, and its numbers."""
    follow = answers.deck(summary)
    shown = "".join(
        f"<div><dt>{text(tile.name)}</dt><dd>{text(tile.value)}</dd><dd>{text(tile.detail)}</dd></div>"
        for tile in answers.tiles(summary)
    )
    deck = f'<p class="deck">{text(follow)}</p>' if follow else ""
    tiles = f'<dl class="tiles">{shown}</dl>' if shown else ""
    return f'<section><p class="answer">{text(answers.headline(summary))}</p>{deck}{tiles}</section>'


def unknown(summary: Summary) -> str:
    """What is not known."""
    names = tuple(row.optimizer for row in summary.rows if row.optimizer)
    begun = [line if line.startswith(names) else line[:1].upper() + line[1:] for line in summary.unknown]
    lines = "".join(f"<li>{text(line)}</li>" for line in begun)
    return f'<section class="unknown"><h2>What is not known</h2><ul>{lines}</ul></section>' if lines else ""


def optimizers(summary: Summary) -> str:
    """The optimizers side by side."""
    axis = words(summary.axis or "")
    heads = ["optimizer", f"best {axis}", "95 % over seeds", "about as good", words(summary.by)]
    heads += [words(summary.metric)] if summary.metric else []
    heads += ["none diverged up to", "edge", "edge ÷ best", f"sensitivity to {axis}"]
    rows = [(row is summary.best and len(summary.rows) > 1, _optimizer(summary, row)) for row in summary.rows]
    if not any(row.recommendation for row in summary.rows):
        return ""
    least = answers.least_sensitive(summary)
    note = "Sensitivity: what runs lose on average over the values tried against the best (Wortsman et al. 2023)."
    note += f" {least.optimizer} is the least sensitive." if least else ""
    return f'<section><h2>Side by side</h2>{table(heads, rows)}<p class="soft">{text(note)}</p></section>'


def bands(summary: Summary) -> str:
    """What became of the runs along the axis, a strip an optimizer."""
    rows = [row for row in summary.rows if row.band]
    if not rows:
        return ""
    title = f"<h2>What became of the runs, by {text(words(summary.axis or ''))}</h2>"
    strips = "".join(f"<dt>{text(row.optimizer or 'all runs')}</dt><dd>{_strip(row)}</dd>" for row in rows)
    mixed = any(max(cell.counts) < sum(cell.counts) for row in rows for cell in row.band)
    note = '<p class="soft">A column is divided where runs of one value fared differently.</p>' if mixed else ""
    return f'<section>{title}<dl class="bands">{strips}</dl>{_key(summary)}{note}</section>'


def figure(drawn: Drawn) -> str:
    """A figure that was drawn, in the page itself."""
    image, kind = _image(drawn)
    said_of = f"{drawn.title}: {drawn.caption}" if drawn.caption else drawn.title
    caption = f"<figcaption>{text(drawn.caption)}</figcaption>" if drawn.caption else ""
    shown = f'<img src="{image}" alt="{text(said_of)}">'
    return f'<section><h2>{text(drawn.title)}</h2><figure class="drawn {kind}">{shown}{caption}</figure></section>'


def static(figures: Iterable[Drawn], folder: str) -> str:
    """Figures for who reads without JavaScript, as many as the page should carry."""
    shown, size, left = [], 0, 0
    for drawn in figures:
        part = figure(drawn)
        if size + len(part) > _ALL_FIGURES:
            left += 1
            continue
        shown.append(part)
        size += len(part)
    more = f"<p>{left} more in the folder {text(folder)} beside this page.</p>" if left else ""
    hint = '<p class="soft">With JavaScript, these figures answer to the mouse, and a table lists every run.</p>'
    return f"<noscript>{''.join(shown)}{more}{hint}</noscript>" if shown or more else ""


def claims(listed: Sequence[Any]) -> str:
    """What a study claims, and whether it holds."""
    held = sum(bool(claim.holds) for claim in listed)
    heads = ("claim", "source", "expected", "measured", "holds")
    rows = [
        (False, (c.text, c.source, number(c.expected), number(c.measured), "✓ yes" if c.holds else "✗ no"))
        for c in listed
    ]
    return (
        f'<section><p class="answer">{held} of {len(listed)} claims hold.</p>{table(heads, rows, heads[:2])}</section>'
    )


def provenance(made_with: Mapping[str, str], config: str, command: str) -> str:
    """What the numbers were made with, and how to make them again."""
    facts = "".join(f"<tr><td>{text(name)}</td><td>{text(value)}</td></tr>" for name, value in made_with.items())
    made = f'<details><summary>Made with</summary><table class="facts"><tbody>{facts}</tbody></table></details>'
    copy = '<button type="button" data-copy="command" aria-label="Copy the command" hidden>Copy</button>'
    again = f'<p class="again"><code id="command">{text(command)}</code>{copy}</p>' if command else ""
    written = f'<details><summary>Config</summary><pre tabindex="0">{text(config)}</pre></details>' if config else ""
    return f"<section><h2>Run it again</h2>{again}{made if facts else ''}{written}</section>"


def _table_row(heads: Sequence[str], bold: bool, cells: Sequence[str], texts: Sequence[str]) -> str:
    kind = ' class="best"' if bold else ""
    first = f'<th scope="row"{_LONG if heads[0] in texts else ""}>{text(cells[0])}</th>'
    rest = (
        f'<td data-name="{text(head)}"{_LONG if head in texts else ""}>{text(cell)}</td>'
        for head, cell in zip(heads[1:], cells[1:], strict=True)
    )
    return f"<tr{kind}>{first}{''.join(rest)}</tr>"


def _optimizer(summary: Summary, row: Row) -> list[str]:
    found = row.recommendation
    cells = [row.optimizer or "all runs"]
    cells += [number(found.best), span(found.interval), span(found.plateau)] if found else ["–"] * 3
    cells.append(number(row.score))
    if summary.metric:
        cells.append(metric_value(summary.metric, found.metrics.get(summary.metric) if found else None))
    if found is None:
        return [*cells, *["–"] * 4]
    edge = "nowhere" if found.unsafe is None else number(found.edge)
    return [*cells, number(found.safe), edge, number(answers.edge_share(found)), number(found.sensitivity)]


def _strip(row: Row) -> str:
    """A column a value, divided among the regimes of its runs, what diverged on top."""
    places = sorted({round(i * (len(row.band) - 1) / (_CELLS - 1)) for i in range(_CELLS)})
    shown = [row.band[place] for place in places]
    stretches = [(next(same)[0], counts) for counts, same in itertools.groupby(enumerate(shown), _mixture)]
    ends = [start for start, _ in stretches[1:]] + [len(shown)]
    cells = [_stretch(shown[start:end], start, end) for (start, _), end in zip(stretches, ends, strict=True)]
    counts = ", ".join(f"{count} {regime.name.lower()}" for regime, count in row.counts.items())
    drawing = f'viewBox="0 0 {len(shown)} 1" preserveAspectRatio="none" role="img" aria-label="{text(counts)}"'
    low, high = number(row.band[0].value), number(row.band[-1].value)
    return f'<span>{low}</span><svg class="strip" {drawing}>{"".join(cells)}</svg><span>{high}</span>'


def _mixture(numbered: tuple[int, RegimeCell]) -> tuple[float, ...]:
    return tuple(count / sum(numbered[1].counts) for count in numbered[1].counts)


def _stretch(cells: Sequence[RegimeCell], start: int, end: int) -> str:
    """Neighbouring values of which the same share had each regime."""
    shares = dict(zip(Regime, _mixture((0, cells[0])), strict=True))
    found = ", ".join(f"{100 * s:.0f} % {regime.name.lower()}" for regime, s in shares.items() if s)
    what = found.removeprefix("100 % ")
    title = f"<title>{text(span((cells[0].value, cells[-1].value)))}: {text(what)}</title>"
    rects, top = [], 1.0
    for regime, share in shares.items():
        top -= share
        if share:
            size = f'x="{start}" y="{max(top, 0):.4f}" width="{end - start}" height="{share:.4f}"'
            rects.append(f'<rect class="fill r{int(regime)}" {size}/>')
    return f"<g>{title}{''.join(rects)}</g>"


def _key(summary: Summary) -> str:
    items = []
    for regime in Regime:
        count = sum(row.counts.get(regime, 0) for row in summary.rows)
        if count:
            square = f'<rect class="fill r{int(regime)}" width="1" height="1"/>'
            box = f'<svg class="badge" viewBox="0 0 1 1" aria-hidden="true">{square}</svg>'
            items.append(f"<li>{box}{regime.name.lower()} {count:,} – {MEANINGS[regime]}</li>")
    return f'<ul class="key">{"".join(items)}</ul>'


def _image(drawn: Drawn) -> tuple[str, str]:
    """A data address, and the class of what is behind it."""
    vector = _svg(drawn.svg) if drawn.svg else None
    if vector and len(vector) <= _LARGEST_SVG:
        return _address("svg+xml", vector), "ink"
    return _address(drawn.png.suffix.removeprefix("."), drawn.png.read_bytes()), "paper"


def _svg(path: Path) -> bytes:
    head, end, rest = path.read_text(encoding="utf-8").partition("<defs>")
    return f"{head}{_DARK}{end}{rest}".encode()


def _address(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
