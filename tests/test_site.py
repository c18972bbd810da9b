"""The documentation site builds from files alone, is whole, and is read without a network."""

import re
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import browser
import pytest
from test_documents import ROOT, load

import gdkit

pytestmark = pytest.mark.full  # the documentation is built

DOCS = ROOT / "docs"
LOADING = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "embed": "src",
    "link": "href",
}
# What the theme's program would fetch from a network: none of it may be on a page.
FETCHED = ("mermaid", "glightbox", "pyodide", "arithmatex")


class Page(HTMLParser):
    """What a page refers to, loads, and can be referred to by."""

    def __init__(self, path: Path):
        super().__init__()
        self.links, self.loads, self.anchors, self.classes = [], [], {""}, set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.anchors.update(found[name] for name in ("id", "name") if found.get(name))
        self.classes.update((found.get("class") or "").split())
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        if found.get(LOADING.get(tag, "")):
            self.loads.append(found[LOADING[tag]])


@pytest.fixture(scope="module")
def writer():
    return load(DOCS / "build_site.py")


@pytest.fixture(scope="module")
def site(writer, tmp_path_factory):
    return writer.build(tmp_path_factory.mktemp("docs") / "site").parent


@pytest.fixture(scope="module")
def pages(site):
    return {path: Page(path) for path in sorted(site.rglob("*.html"))}


def nav_of(entries):
    """Every page that a navigation leads to."""
    for entry in entries:
        for value in entry.values():
            yield from nav_of(value) if isinstance(value, list) else [value]


# --- the built pages


def test_pages_load_nothing_from_a_network(pages):
    assert len(pages) >= 20
    for path, page in pages.items():
        assert page.loads, path
        assert not [target for target in page.loads if urlsplit(target).netloc or urlsplit(target).scheme], path
        assert not page.classes & set(FETCHED), path


def test_styles_load_nothing_from_a_network(site):
    styles = list(site.rglob("*.css"))
    assert styles
    for style in styles:
        assert not re.search(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", style.read_text(encoding="utf-8")), style


@pytest.mark.parametrize("page", ["index", "reference/regimes", "reproductions"])
def test_asterisks_of_formulas_are_not_emphasis(site, page):
    text = re.sub(r"<[^>]+>", "", (site / f"{page}.html").read_text(encoding="utf-8"))
    assert re.search(r"\(L − L\*\)\s*/\s*\(L₀ − L\*\)", text)


def test_links_between_pages_and_their_anchors_lead_somewhere(pages):
    followed = 0
    for path, page in pages.items():
        local = [urlsplit(target) for target in [*page.links, *page.loads] if not re.match(r"\w+:|/", target)]
        for target in local:
            place = (path.parent / unquote(target.path)).resolve() if target.path else path
            assert place.exists(), (path.name, target)
            if target.fragment and place in pages:
                assert unquote(target.fragment) in pages[place].anchors, (path.name, target)
                followed += 1
    assert followed > 100


def test_every_public_name_has_an_entry_in_the_reference(site, pages):
    entries = {anchor for path, page in pages.items() if path.parent.name == "reference" for anchor in page.anchors}
    modules = {name for name in gdkit.__all__ if (site / "reference" / f"{name}.html").exists()}
    assert {"problems", "plots"} <= modules
    assert {f"gdkit.{name}" for name in set(gdkit.__all__) - modules} <= entries


@pytest.mark.skipif(browser.find_chromium() is None, reason="there is no Chromium")
def test_a_browser_reads_and_searches_the_site_from_files(site):
    with browser.open_chromium(browser.find_chromium()) as tab:
        for name in ("index.html", "gallery.html", "reference/sweeps.html", "inside.html"):
            for dark in (False, True):
                tab.open((site / name).as_uri(), width=360, dark=dark)
                assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
                scheme = "slate" if dark else "default"
                assert tab.evaluate("document.body.dataset.mdColorScheme") == scheme
                assert not tab.problems and all(address.startswith("file:") for address in tab.requests), name
                if browser.HAS_AXE and name in ("index.html", "gallery.html"):
                    tab.set_display(width=1280, dark=dark)
                    assert tab.find_violations() == [], (name, dark)
        tab.open((site / "index.html").as_uri())
        tab.evaluate("document.querySelector('.md-search__button, label[for=__search]').click()")
        tab.evaluate("new Promise(done => setTimeout(done, 500))")
        tab.call("Input.insertText", text="sharpness")
        wait = """new Promise(done => {
            const found = () => document.activeElement.shadowRoot?.querySelector('a[href*="gdkit.sharpness"]')?.href;
            const look = (left) => (found() || !left) ? done(found()) : setTimeout(look, 50, left - 1);
            look(400);
        })"""
        assert re.search(r"/reference/stability\.html(\?h=\w*)?#gdkit\.sharpness$", tab.evaluate(wait))
        assert not tab.problems and all(address.startswith("file:") for address in tab.requests)


# --- the pages as they are written


def test_every_page_is_in_the_navigation(writer):
    lines = set(nav_of(tomllib.loads(writer.CONFIG.read_text(encoding="utf-8"))["project"]["nav"]))
    present = set(writer.pages())
    assert {page.name for page in DOCS.glob("*.md")} <= present
    assert present <= lines, "a page needs a line in docs/zensical.toml"


def test_pages_that_are_not_there_have_no_line_in_the_navigation(writer):
    text = writer.config({"index.md", "tour.md"})
    assert set(nav_of(tomllib.loads(text)["project"]["nav"])) == {"index.md", "tour.md"}


def test_links_between_files_become_links_between_pages(writer):
    source = ROOT / "README.md"
    assert writer.rewrite_links("[a](docs/tour.md#where)", source) == "[a](tour.md#where)"
    assert writer.rewrite_links("![a](docs/figures/parabola.png)", source) == "![a](figures/parabola.png)"
    assert writer.rewrite_links("[a](../README.md)", DOCS / "tour.md") == "[a](index.md)"
    assert writer.rewrite_links("[`a`](gdkit/types.py)", source) == "`a`"
    assert writer.rewrite_links("```\n[a](docs/tour.md)\n```", source) == "```\n[a](docs/tour.md)\n```"
    with pytest.raises(SystemExit, match=r"README.md: \[a\]\(docs/none.md\) has no target"):
        writer.rewrite_links("[a](docs/none.md)", source)


def test_the_gallery_shows_every_study_that_has_run(writer):
    gallery = writer.gallery()
    for name, study in writer.reproduce.studies().items():
        assert f"reproductions.md#{name.replace('_', '-')}" in gallery
        assert study.experiment


def test_a_docstring_becomes_prose_lists_and_examples(writer):
    text = """One line <of> `sweep`.

    Args:
      a, b: two things,
        said on two lines.
      rates: as in `SweepResult.best`.

    >>> 1 + 1
    2
    """
    found = writer.reference.docstring_to_markdown("\n".join(line.removeprefix("    ") for line in text.splitlines()))
    best = "[`SweepResult.best`](sweeps.md#gdkit.SweepResult.best)"
    assert found.split("\n\n") == [
        "One line &lt;of> [`sweep`](sweeps.md#gdkit.sweep).",
        "**Args**",
        f"- `a`, `b`: two things,\n    said on two lines.\n- `rates`: as in {best}.",
        "```pycon\n>>> 1 + 1\n2\n```",
    ]


def test_signatures_and_fields_are_those_of_the_source(writer):
    shape = lambda thing: writer.reference._shape(f"gdkit.{thing.__name__}", thing)
    assert shape(gdkit.ascent) == "gdkit.ascent(optimizer: OptimizerLike) -> OptimizerLike"
    assert shape(gdkit.training_table).splitlines()[-3:] == [
        "    hyperparameters: Hyperparameters | None = None,",
        "    key: int | Key = 0,",
        ") -> TrainingTable",
    ]
    assert "SLOW = 0  # the loss is falling" in shape(gdkit.Regime)
    assert "KW_ONLY" in shape(gdkit.Problem)


# --- the page on the inside


def test_the_picture_of_the_design_is_what_its_program_draws_and_names_files_that_exist():
    design = load(DOCS / "design.py")
    assert design.FIGURE.read_text(encoding="utf-8") == design.render(), "run: python docs/design.py"
    assert all((ROOT / box.file).exists() for box in design.BOXES)


def test_the_page_on_the_inside_says_where_every_module_belongs():
    named = set(re.findall(r"`(gdkit/[\w/.]+)`", (DOCS / "inside.md").read_text(encoding="utf-8")))
    assert all((ROOT / name).exists() for name in named)
    for path in (ROOT / "gdkit").rglob("*.py"):
        file = path.relative_to(ROOT).as_posix()
        folders = [f"{parent.as_posix()}/" for parent in path.relative_to(ROOT).parents]
        assert path.name in ("__init__.py", "__main__.py") or named & {file, *folders}, f"{file}: not in docs/inside.md"
