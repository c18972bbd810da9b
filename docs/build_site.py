"""Build the documentation site in site/html: ``make docs``. The site consists of files and needs no network.

The pages of docs/ are copied to site/pages. The home page is README.md, beside CHANGELOG.md and CONTRIBUTING.md; this
program writes the reference and the gallery. Links between files of the repository become links between pages, or plain
text where a file has no page; a link without a target is an error.
"""

import json
import re
import shutil
import subprocess
import sys
from os.path import relpath
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import reference
import reproduce

from gdkit.formatting import first_paragraph

DOCS = Path(__file__).parent
ROOT = DOCS.parent
SITE = ROOT / "site"
CONFIG = DOCS / "zensical.toml"
HOME = {"README.md": "index.md", "CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
NAV_LINE = re.compile(r'^ +\{ "[^"]+" = "(?P<page>[^"]+\.md)" \},\n', re.MULTILINE)
_LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)#\s]+)(?P<anchor>#[^)\s]*)?\)")
_FENCED = re.compile(r"(^```.*?^```)", re.DOTALL | re.MULTILINE)
_GALLERY = """# Gallery

Published results and closed forms, each reproduced by one command and checked by a program. Each figure links to the
claims of its study, with expected and measured numbers.

<div class="grid cards" markdown>

{cards}

</div>
"""


def pages() -> dict[str, str]:
    """Path in the site -> text, for every page."""
    sources = {page: ROOT / source for source, page in HOME.items()}
    sources |= {page.name: page for page in sorted(DOCS.glob("*.md"))}
    texts = {page: rewrite_links(source.read_text(encoding="utf-8"), source) for page, source in sources.items()}
    texts |= {f"reference/{name}": text for name, text in reference.reference_pages().items()}
    return {**texts, "gallery.md": gallery()}


def rewrite_links(text: str, source: Path) -> str:
    """`text` of a file with its links to files changed to links between pages, except within code."""
    parts = _FENCED.split(text)
    parts[::2] = [_LINK.sub(lambda link: _rewrite_link(link, source), part) for part in parts[::2]]
    return "".join(parts)


def _rewrite_link(link: re.Match, source: Path) -> str:
    if re.match(r"\w+:", link["target"]):
        return link[0]
    target = (source.parent / link["target"]).resolve()
    if not target.exists():
        raise SystemExit(f"{source.relative_to(ROOT)}: {link[0]} has no target")
    page = HOME.get(str(target.relative_to(ROOT))) or _site_path(target)
    if page is None:
        return link["text"]
    return f"{link['image']}[{link['text']}]({page}{link['anchor'] or ''})"


def _site_path(target: Path) -> str | None:
    """Path in the site of a page or figure of docs/, None for other files."""
    is_shown = target.is_relative_to(DOCS) and target.suffix in (".md", ".png", ".svg", ".gif")
    return target.relative_to(DOCS).as_posix() if is_shown else None


def gallery() -> str:
    """A card for each study with results: its summary, its first figure, and how many of its claims hold."""
    results = json.loads(reproduce.RESULTS.read_text(encoding="utf-8"))
    cards = []
    for name, study in reproduce.studies().items():
        if name not in results:
            continue
        title, target = reproduce.title(name), f"reproductions.md#{name.replace('_', '-')}"
        holding = sum(claim["holds"] for claim in results[name]["claims"])
        lines = [f"-   **[{title}]({target})**", first_paragraph(reproduce.describe(study))]
        lines += [f"[![{title}](figures/{figure})]({target})" for figure in results[name]["figures"][:1]]
        lines += [f"{holding} of {len(results[name]['claims'])} claims hold"]
        cards.append("\n\n    ".join(lines))
    return _GALLERY.format(cards="\n\n".join(cards))


def config(present: set[str]) -> str:
    """docs/zensical.toml without the lines of missing pages."""
    text = CONFIG.read_text(encoding="utf-8")
    return NAV_LINE.sub(lambda line: line[0] if line["page"] in present else "", text)


def write_sources(folder: Path) -> Path:
    """Write the pages, the theme and the config into an empty folder; returns the path of the config."""
    shutil.rmtree(folder, ignore_errors=True)
    texts = pages()
    for page, text in texts.items():
        path = folder / "pages" / page
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    shutil.copytree(DOCS / "figures", folder / "pages" / "figures")
    shutil.copytree(DOCS / "theme", folder / "theme")
    (folder / "zensical.toml").write_text(config(set(texts)), encoding="utf-8")
    return folder / "zensical.toml"


def build(folder: Path = SITE) -> Path:
    """Build the site into `folder`; returns the path of its home page."""
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--config-file", str(write_sources(folder))]
    subprocess.run(command, check=True)
    return folder / "html" / "index.html"


if __name__ == "__main__":
    print(relpath(build()))
