"""Run the studies at their full settings and write docs/reproductions.md from what they found: ``make reproduce``.

With names as arguments only those are run; the page is written from every study that has run so far. A claim that does
not hold says so in the page, and ends this program with exit code 1.
"""

import ast
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from gdkit.app.config.loading import load
from gdkit.app.config.schema import StudyConfig

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "reproductions.md"
FOUND = ROOT / "docs" / "reproductions.json"  # what the page is written from: seconds and claims of each study

HEAD = """# Reproductions

Results that others have published, and closed forms, each reproduced by one command. A program ran the studies, drew
the figures, checked the claims and wrote this page (`make reproduce`); no number here was typed.
"""

PRINTED = """<details markdown="1">
<summary>What it prints</summary>

```text
{said}
```

</details>
"""


def studies() -> dict[str, StudyConfig]:
    """The configs that run a study, by name."""
    found = [load(path) for path in sorted((ROOT / "configs").glob("*.yaml"))]
    return {config.name: config for config in found if isinstance(config, StudyConfig)}


def run(name: str) -> dict[str, Any]:
    """Run one study and copy its figures; its seconds, figures and claims."""
    folder, begin = ROOT / "runs" / name, time.monotonic()
    shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, "-m", "gdkit", "run", f"configs/{name}.yaml", "--output", str(folder)]
    done = subprocess.run(command, cwd=ROOT, check=False)
    if not (folder / "claims.json").is_file():
        raise SystemExit(f"{name}: exit code {done.returncode}, and no claims")
    figures = [file for end in ("png", "gif") for file in sorted((folder / "figures").glob(f"*.{end}"))]
    for figure in figures:
        shutil.copy(figure, ROOT / "docs" / "figures" / figure.name)
    claims = json.loads((folder / "claims.json").read_text(encoding="utf-8"))
    seconds = time.monotonic() - begin
    said = (folder / "found.txt").read_text(encoding="utf-8") if (folder / "found.txt").is_file() else ""
    drawn = [figure.name for figure in figures]
    return {"seconds": round(seconds, 1), "figures": drawn, "said": said, "claims": claims}


def page(found: dict[str, Any]) -> str:
    """The document."""
    parts = [HEAD, *(section(name, config, found[name]) for name, config in studies().items() if name in found)]
    return "\n".join(parts)


def section(name: str, config: StudyConfig, result: dict[str, Any]) -> str:
    """One study: what it asks, its claims, its figures, and how to run it."""
    module = ROOT / Path(*config.experiment.partition(":")[0].split(".")).with_suffix(".py")
    about = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or ""
    held = sum(claim["holds"] for claim in result["claims"])
    rows = [f"| {_cell(c['text'])} | {_cell(c['source'])} | {_short(c['expected'])} ± {_short(c['tolerance'])} | "
            f"{_short(c['measured'])} | {'yes' if c['holds'] else '**no**'} |" for c in result["claims"]]  # fmt: skip
    return "\n".join([
        f"## {title(name)}\n",
        f"{about}\n",
        f"`gdkit run configs/{name}.yaml`, {result['seconds']:.0f} s; {held} of {len(rows)} claims hold.\n",
        "| claim | source | expected | measured | holds |",
        "|---|---|---|---|---|",
        *rows,
        "",
        *(f"![{title(name)}](figures/{figure})\n" for figure in result["figures"]),
        *([PRINTED.format(said=result["said"].rstrip())] if result.get("said") else []),
    ])  # fmt: skip


def title(name: str) -> str:
    """A study's name as a heading: deep_cfr as Deep CFR."""
    words = [word.upper() if word in ("cfr", "lr") else word for word in name.split("_")]
    return " ".join([words[0][0].upper() + words[0][1:], *words[1:]])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else str(value)


def main(names: list[str]) -> int:
    """Run the studies named, or all, and write the page."""
    known = studies()
    for name in names:
        if name not in known:
            raise SystemExit(f"{name}: no such study. There are {', '.join(known)}")
    found = json.loads(FOUND.read_text(encoding="utf-8")) if FOUND.is_file() else {}
    for name in names or known:
        found[name] = run(name)
        FOUND.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        PAGE.write_text(page(found), encoding="utf-8")
    return 0 if all(claim["holds"] for name in names or known for claim in found[name]["claims"]) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
