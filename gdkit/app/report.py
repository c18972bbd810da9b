"""The report: one HTML file that holds its figures, works offline, and is readable without JavaScript."""

import base64
import html
import importlib.resources
import string
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gdkit.app.config import Job, Study, dump
from gdkit.app.figures import Drawn
from gdkit.app.summary import (
    MEANINGS,
    Row,
    Summary,
    answer,
    diverges,
    measured,
    metric_value,
    number,
    provenance,
    span,
    words,
)
from gdkit.plots import REGIME_COLORS
from gdkit.regimes import Regime
from gdkit.sweeps.result import SweepResult

REPORT = "report.html"
_LARGEST_SVG = 300_000  # beyond this many bytes the PNG is smaller and as sharp as a screen


def write(job: Job, result: SweepResult, summary: Summary, figures: Iterable[Drawn], folder: Path) -> Path:
    """Writes the report of a sweep; returns its path."""
    parts = [
        f'<p class="answer">{_text(answer(summary))}</p>',
        _answers(summary),
        _unknown(summary.unknown),
        _bands(summary),
        *map(_figure, figures),
        _made_with(provenance(result)),
        _config(job),
    ]
    return _page(folder, job.name, measured(result), parts)


def write_study(study: Study, said: str, claims: Sequence[Any], figures: Iterable[Drawn], folder: Path) -> Path:
    """Writes the report of a study; returns its path."""
    parts = [
        _claims(claims) if claims else "",
        *map(_figure, figures),
        f"<pre>{_text(said)}</pre>" if said else "",
        _config(study),
    ]
    return _page(folder, study.name, study.experiment, parts)


def _claims(claims: Sequence[Any]) -> str:
    held = sum(claim.holds for claim in claims)
    head = "".join(f"<th>{text}</th>" for text in ("claim", "source", "expected", "measured", "holds"))
    rows = "".join(
        f'<tr><td class="long">{_text(claim.text)}</td><td class="long">{_text(claim.source)}</td>'
        f"<td>{number(claim.expected)}</td><td>{number(claim.measured)}</td><td>{'✓' if claim.holds else '✗'}</td></tr>"
        for claim in claims
    )
    table = f'<div class="wide claims"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    return f'<p class="answer">{held} of {len(claims)} claims hold.</p>{table}'


def _page(folder: Path, title: str, subtitle: str, parts: Iterable[str]) -> Path:
    template = importlib.resources.files("gdkit.app").joinpath("templates/report.html.txt").read_text(encoding="utf-8")
    body = "\n".join(part for part in parts if part)
    page = string.Template(template).substitute(title=_text(title), subtitle=_text(subtitle), body=body)
    path = folder / REPORT
    path.write_text(page, encoding="utf-8")
    return path


def _answers(summary: Summary) -> str:
    heads = ["optimizer", f"best {words(summary.axis or '')}", "95 % over seeds", "about as good", words(summary.by)]
    heads += [words(summary.metric)] if summary.metric else []
    heads += ["none diverged up to", "some diverged at"]
    rows = "".join(_answer(summary, row) for row in summary.rows)
    head = "".join(f"<th>{_text(text)}</th>" for text in heads)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _answer(summary: Summary, row: Row) -> str:
    found = row.recommendation
    cells = [row.optimizer]
    cells += [number(found.best), span(found.interval), span(found.plateau)] if found else ["–"] * 3
    cells.append(number(row.score))
    if summary.metric:
        cells.append(metric_value(summary.metric, found.metrics.get(summary.metric) if found else None))
    cells += [number(found.safe) if found else "–", diverges(row)]
    kind = ' class="best"' if row is summary.best else ""
    return f"<tr{kind}>{''.join(f'<td>{_text(cell)}</td>' for cell in cells)}</tr>"


def _unknown(texts: Iterable[str]) -> str:
    lines = "".join(f"<li>{_text(text)}</li>" for text in texts)
    return f"<h2>What is not known</h2><ul>{lines}</ul>" if lines else ""


def _bands(summary: Summary) -> str:
    rows = []
    for row in summary.rows:
        if row.band:
            cells = "".join(_cell(value, regime) for value, regime in row.band)
            low, high = number(row.band[0][0]), number(row.band[-1][0])
            band = f'<div class="band" role="img" aria-label="{_text(_said(row))}">{cells}</div>'
            ends = f'<td class="soft">{low}</td><td class="fill">{band}</td><td class="soft">{high}</td>'
            rows.append(f"<tr><td>{_text(row.optimizer)}</td>{ends}</tr>")
    if not rows:
        return ""
    title = f"<h2>What became of the runs, by {_text(words(summary.axis or ''))}</h2>"
    return f'{title}<div class="wide"><table class="bands">{"".join(rows)}</table></div>{_key(summary)}'


def _cell(value: float, regime: Regime) -> str:
    return f'<i style="background:{REGIME_COLORS[regime]}" title="{number(value)}: {regime.name.lower()}"></i>'


def _said(row: Row) -> str:
    return ", ".join(f"{count} {regime.name.lower()}" for regime, count in row.counts.items())


def _key(summary: Summary) -> str:
    items = []
    for regime in Regime:
        count = sum(row.counts.get(regime, 0) for row in summary.rows)
        if count:
            dot = f'<i style="background:{REGIME_COLORS[regime]}"></i>'
            items.append(f"<li>{dot}{regime.name.lower()} {count:,} – {MEANINGS[regime]}</li>")
    return f'<ul class="key">{"".join(items)}</ul>'


def _figure(figure: Drawn) -> str:
    svg = figure.svg.read_bytes()
    kind, content = ("svg+xml", svg) if len(svg) <= _LARGEST_SVG else ("png", figure.png.read_bytes())
    source = f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
    image = f'<img src="{source}" alt="{_text(figure.title)}: {_text(figure.caption)}">'
    return f"<h2>{_text(figure.title)}</h2><figure>{image}<figcaption>{_text(figure.caption)}</figcaption></figure>"


def _made_with(content: Mapping[str, str]) -> str:
    rows = "".join(f"<tr><td>{_text(key)}</td><td>{_text(value)}</td></tr>" for key, value in content.items())
    return f'<details><summary>Made with</summary><div class="wide"><table>{rows}</table></div></details>'


def _config(config: Job | Study) -> str:
    return f"<details><summary>Config</summary><pre>{_text(dump(config))}</pre></details>"


def _text(text: str) -> str:
    return html.escape(text, quote=True)
