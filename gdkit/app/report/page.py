"""One HTML file that holds all it needs: style, program, numbers, figures. Its policy forbids it the network."""

import base64
import hashlib
import importlib.resources
import json
import re
import string
from collections.abc import Iterable, Mapping
from typing import Any

from gdkit.app.report.embed import shades
from gdkit.app.report.parts import text
from gdkit.plots import REGIME_COLORS, SERIES_COLORS

_PROGRAM = ("data.js", "draw.js", "figures.js", "maps.js", "pointing.js", "table.js", "choices.js", "page.js")


def page(
    kicker: str,
    title: str,
    subtitle: str,
    parts: Iterable[str],
    data: Mapping[str, Any] | None = None,
    reload: int | None = None,
) -> str:
    """The whole page.

    Args:
      kicker, title, subtitle: texts at its top, which are escaped.
      parts: HTML.
      data: for the page's program.
      reload: seconds after which it loads itself again: by its program, which waits while somebody reads a number and
        keeps what was chosen; or by the browser, where programs may not run.
    """
    style, program = _style(), _program()
    return _fill(
        "page.html",
        policy=_policy(style, program),
        kicker=text(kicker),
        title=text(title),
        subtitle=text(subtitle),
        style=style,
        program=program,
        refresh=f'<noscript><meta http-equiv="refresh" content="{reload}"></noscript>\n' if reload else "",
        reload=f' data-reload="{reload}"' if reload else "",
        data=_embedded(data) if data else "",
        body="\n".join(part for part in parts if part),
    )


def live(heading: str, score: str, thinned: str) -> str:
    """The places that the page's program fills; hidden until it runs."""
    note = f'<p class="soft">{text(thinned)}</p>' if thinned else ""
    return _fill("live.html", heading=text(heading), score=text(score), thinned=note)


def _policy(style: str, program: str) -> str:
    """Nothing may be loaded; only this very style and this very program count."""
    return (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(program)}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(content: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode('ascii')}"


def _embedded(data: Mapping[str, Any]) -> str:
    """JSON in which no text can end the element that holds it."""
    content = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        content = content.replace(sign, f"\\u{ord(sign):04x}")
    return f'<script type="application/json" id="sweep">{content}</script>\n'


def _program() -> str:
    parts = "\n".join(_read(name) for name in _PROGRAM)
    return f'"use strict";\n(() => {{\n{parts}}})();\n'


def _style() -> str:
    """The style, with colours of regimes and series as in every other figure."""
    colors = {f"r{int(regime)}": color for regime, color in REGIME_COLORS.items()}
    series = {f"c{i}": color if color != "#000000" else "var(--ink)" for i, color in enumerate(SERIES_COLORS)}
    ramps = shades()
    marks = [f".{name} {{ --own: {color}; }}" for name, color in (colors | series).items()]
    marks += [f".q{i} {{ --own: var(--q{i}); }}" for i in range(len(ramps["light"]))]
    variables = {
        scheme: " ".join(f"--q{i}: {color};" for i, color in enumerate(ramp)) for scheme, ramp in ramps.items()
    }
    return re.sub(r"\n\s+", "\n", _fill("page.css", marks="\n".join(marks), **variables))


def _fill(name: str, **parts: str) -> str:
    return string.Template(_read(name)).substitute(parts)


def _read(name: str) -> str:
    folder = importlib.resources.files("gdkit.app").joinpath("templates/report")
    return folder.joinpath(name).read_text(encoding="utf-8")
