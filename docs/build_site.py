"""Build the documentation site in site/html: ``make docs``. It is made of files, and read without a network.

The pages of docs/ are copied to site/pages as they are. The home page is README.md, with CHANGELOG.md and
CONTRIBUTING.md beside it; the reference and the gallery are written here. Links between files of the repository become
links between pages, or plain text where a file is no page; a link to nothing is an error.
"""

import ast
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

DOCS = Path(__file__).parent
ROOT = DOCS.parent
SITE = ROOT / "site"
CONFIG = DOCS / "zensical.toml"
HOME = {"README.md": "index.md", "CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
NAV_LINE = re.compile(r'^ +\{ "[^"]+" = "(?P<page>[^"]+\.md)" \},\n', re.MULTILINE)
_LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)#\s]+)(?P<anchor>#[^)\s]*)?\)")
_FENCED = re.compile(r"(^```.*?^```)", re.DOTALL | re.MULTILINE)
_GALLERY = """# Gallery

Published results and closed forms, each reproduced by one command and checked by a program. A figure leads to what the
study claims, what was expected and what was measured.

<div class="grid cards" markdown>

{cards}

</div>
"""


def pages() -> dict[str, str]:
    """Path in the site to text, of every page."""
    found = {page: ROOT / source for source, page in HOME.items()}
    found |= {page.name: page for page in sorted(DOCS.glob("*.md"))}
    texts = {page: linked(source.read_text(encoding="utf-8"), source) for page, source in found.items()}
    texts |= {f"reference/{name}": text for name, text in reference.written().items()}
    return {**texts, "gallery.md": gallery()}


def linked(text: str, source: Path) -> str:
    """The text of a file with its links to other files made links between pages. Code is left alone."""
    parts = _FENCED.split(text)
    parts[::2] = [_LINK.sub(lambda link: _moved(link, source), part) for part in parts[::2]]
    return "".join(parts)


def _moved(link: re.Match, source: Path) -> str:
    if re.match(r"\w+:", link["target"]):
        return link[0]
    target = (source.parent / link["target"]).resolve()
    if not target.exists():
        raise SystemExit(f"{source.relative_to(ROOT)}: {link[0]} leads to nothing")
    page = HOME.get(str(target.relative_to(ROOT))) or _place(target)
    if page is None:
        return link["text"]
    return f"{link['image']}[{link['text']}]({page}{link['anchor'] or ''})"


def _place(target: Path) -> str | None:
    """Where in the site a page or figure of docs/ is, None if it is not."""
    found = target.is_relative_to(DOCS) and target.suffix in (".md", ".png", ".svg", ".gif")
    return target.relative_to(DOCS).as_posix() if found else None


def gallery() -> str:
    """A card for each study that has run: what it shows, its first figure, and how many of its claims hold."""
    found = json.loads(reproduce.FOUND.read_text(encoding="utf-8"))
    cards = []
    for name, study in reproduce.studies().items():
        if name not in found:
            continue
        module = ROOT / Path(*study.experiment.partition(":")[0].split(".")).with_suffix(".py")
        about = (ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or "").partition("\n\n")[0]
        title, target = reproduce.title(name), f"reproductions.md#{name.replace('_', '-')}"
        held = sum(claim["holds"] for claim in found[name]["claims"])
        lines = [f"-   **[{title}]({target})**", " ".join(about.split())]
        lines += [f"[![{title}](figures/{figure})]({target})" for figure in found[name]["figures"][:1]]
        lines += [f"{held} of {len(found[name]['claims'])} claims hold"]
        cards.append("\n\n    ".join(lines))
    return _GALLERY.format(cards="\n\n".join(cards))


def config(present: set[str]) -> str:
    """docs/zensical.toml without the lines of pages that are not there."""
    text = CONFIG.read_text(encoding="utf-8")
    return NAV_LINE.sub(lambda line: line[0] if line["page"] in present else "", text)


def lay_out(folder: Path) -> Path:
    """Write the pages, the theme and the config into an empty folder; the path of the config."""
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
    """Build the site into `folder`; the path of its home page."""
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--config-file", str(lay_out(folder))]
    subprocess.run(command, check=True)
    return folder / "html" / "index.html"


if __name__ == "__main__":
    print(relpath(build()))
