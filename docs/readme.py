"""Update the outputs and figures of README.md and of the tutorials: ``make readme``. Arguments select pages by name.

Python blocks run in order in one namespace; the text block after a Python block holds its output. The block after
``<!-- output of: COMMAND -->`` holds the output of that command. A line ``... = VALUES  # small: OTHERS`` has the
values for the outputs of a page and, in the comment, those with which the tests run it.
"""

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"```(?P<kind>python|text)\n(?P<body>.*?)```", re.DOTALL)
COMMAND = re.compile(r"<!-- output of: gdkit (?P<command>.*?) -->\n```text\n.*?```", re.DOTALL)
# Pages of docs/ with code and its output, which tests/test_documents.py compares; two pages have tests of their own.
CODE = [page for page in sorted((ROOT / "docs").glob("*.md")) if "```python" in page.read_text(encoding="utf-8")]
TUTORIALS = [page.stem for page in CODE if page.stem not in ("format", "machines")]
SMALL = re.compile(r"(?<== )[^\n#]+?  # small: (?P<values>[^\n]+)")
FIGURES = {"digits_mlp": "final_loss.png", "parabola": "parabola.png"}  # run -> its figure


def shrink(text: str) -> str:
    """A page with the small values of its code.

    >>> shrink("steps, width = 400, 64  # small: 8, 2")
    'steps, width = 8, 2'
    """
    return SMALL.sub(lambda match: match["values"], text)


def outputs(text: str) -> Iterator[tuple[str, str]]:
    """For each Python block with a text block after it: the text block, and the current output of the code."""
    namespace: dict = {"__name__": "readme"}
    printed = ""
    for block in BLOCK.finditer(COMMAND.sub("", text)):
        if block["kind"] == "text":
            yield block["body"], printed
            continue
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(compile(block["body"], "README.md", "exec"), namespace)
        printed = out.getvalue()


def update_outputs(text: str) -> str:
    """`text` with every output replaced by the current one."""
    printed = iter([current for _, current in outputs(text)])

    def replace(block: re.Match) -> str:
        return block[0] if block["kind"] == "python" else f"```text\n{next(printed)}```"

    head, *parts = re.split(r"(<!-- output of: .*? -->\n```text\n.*?```)", text, flags=re.DOTALL)
    parts = [head, *parts]
    return "".join(_update_command(p) if COMMAND.fullmatch(p) else BLOCK.sub(replace, p) for p in parts)


def _update_command(part: str) -> str:
    match = COMMAND.fullmatch(part)
    assert match
    command = [sys.executable, "-m", "gdkit", *match["command"].split()]
    process = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    body = "\n".join(line.rstrip() for line in process.stdout.strip().splitlines())
    return f"<!-- output of: gdkit {match['command']} -->\n```text\n{body}\n```"


def main(names: Sequence[str]) -> None:
    """Update the named pages, or all, and copy the figures of the README from their runs."""
    pages = {"README": ROOT / "README.md", **{name: ROOT / "docs" / f"{name}.md" for name in TUTORIALS}}
    for name in names:
        if name not in pages:
            raise SystemExit(f"{name}: no such page. Available: {', '.join(pages)}")
    for path in (pages[name] for name in names or pages):
        text = path.read_text(encoding="utf-8")
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            new = update_outputs(text)
            for figure in re.findall(r"!\[.*?\]\(figures/(.*?)\)", text):
                shutil.copy(figure, ROOT / "docs" / "figures" / figure)
        os.chdir(ROOT)
        path.write_text(new, encoding="utf-8")
    for run, figure in FIGURES.items() if not names or "README" in names else ():
        if not (ROOT / "runs" / run / "figures" / figure).exists():
            subprocess.run([sys.executable, "-m", "gdkit", "run", f"configs/{run}.yaml"], check=True)
        shutil.copy(ROOT / "runs" / run / "figures" / figure, ROOT / "docs" / "figures" / f"{run}.png")


if __name__ == "__main__":
    main(sys.argv[1:])
