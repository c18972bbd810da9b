"""One HTML file with its style, program, numbers and figures. Its policy forbids it to use the network."""

import base64
import hashlib
import html
import importlib.resources
import json
import re
import string
from collections.abc import Iterable, Mapping
from typing import Any

from gdkit.app.report.embed import color_ramps
from gdkit.plots import REGIME_COLORS, SERIES_COLORS
from gdkit.plots.style import REGIME_COLORS_DARK

_PARTS = (
    "data",
    "draw",
    "figures",
    "curves",
    "maps",
    "parallel",
    "zoom",
    "pointing",
    "table",
    "export",
    "choices",
    "page",
)  # in this order


def escape(content: object) -> str:
    """`content` as text in which nothing is markup."""
    return html.escape(str(content), quote=True)


def fill_page(
    kicker: str,
    title: str,
    subtitle: str,
    sections: Iterable[str],
    *,
    data: Mapping[str, Any] | None = None,
    reload_seconds: int | None = None,
    run: str | None = None,
    figures: str | None = None,
) -> str:
    """The whole page.

    Args:
      kicker, title, subtitle: texts at its top, which are escaped.
      sections: HTML.
      data: for the page's program.
      reload_seconds: after which the page reloads itself. Its program does so, which waits while a reader points at a
        run and keeps the reader's choices; without JavaScript the browser does.
      run: the digest of the run that the page shows.
      figures: the digest of the files of its figures, where the run is finished.
    """
    style, program = _make_style(), _join_program()
    digests = {"run": run, "figures": figures}
    refresh = f'<noscript><meta http-equiv="refresh" content="{reload_seconds}"></noscript>\n'
    return _fill(
        "page.html",
        policy=_make_policy(style, program),
        kicker=escape(kicker),
        title=escape(title),
        subtitle=escape(subtitle),
        style=style,
        program=program,
        run="".join(f'<meta name="gdkit-{n}" content="{escape(x)}">\n' for n, x in digests.items() if x),
        refresh=refresh if reload_seconds else "",
        reload=f' data-reload="{reload_seconds}"' if reload_seconds else "",
        data=_render_data(data) if data else "",
        body="\n".join(section for section in sections if section),
    )


def fill_interactive(heading: str, note: str = "") -> str:
    """The sections that the page's program fills, hidden until it runs; `note` is above the table of runs."""
    paragraph = f'<p class="soft">{escape(note)}</p>' if note else ""
    return _fill("interactive.html", heading=escape(heading), note=paragraph)


def _make_policy(style: str, program: str) -> str:
    """A content security policy that loads nothing, and allows this style and this program only."""
    return (
        f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; script-src '{_digest(program)}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _digest(content: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode('ascii')}"


def _render_data(data: Mapping[str, Any]) -> str:
    """An element with `data` as JSON, in which no text can end the element."""
    content = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        content = content.replace(sign, f"\\u{ord(sign):04x}")
    return f'<script type="application/json" id="sweep">{content}</script>\n'


def _join_program() -> str:
    parts = "\n".join(_read(f"{name}.js") for name in _PARTS)
    parts = re.sub(r"\n\s+", "\n", re.sub(r"^ *//.*\n", "", parts, flags=re.MULTILINE))
    return f'"use strict";\n(() => {{\n{parts}}})();\n'


def _make_style() -> str:
    """The style, with the colors of regimes and series that all figures use."""
    regimes = {f"r{int(regime)}": color for regime, color in REGIME_COLORS.items()}
    series = {f"c{i}": color if color != "#000000" else "var(--ink)" for i, color in enumerate(SERIES_COLORS)}
    ramps = color_ramps()
    marks = [f".{name} {{ --own: {color}; }}" for name, color in (regimes | series).items()]
    dark = " ".join(f".r{int(r)} {{ --own: {c}; }}" for r, c in REGIME_COLORS_DARK.items() if c != REGIME_COLORS[r])
    marks += [f"@media screen and (prefers-color-scheme: dark) {{ {dark} }}"]
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
