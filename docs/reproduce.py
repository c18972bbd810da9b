"""Run the studies at their full settings and write docs/reproductions.md from their results: ``make reproduce``.

Arguments select studies by name; the page covers every study that has run so far. The page also reports claims that do
not hold; the exit code is then 1. With ``key=K`` the studies run at another key, and the page gets which claims held.
"""

import ast
import json
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from gdkit.app.config.loading import load
from gdkit.app.config.schema import StudyConfig
from gdkit.formatting import format_number

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "reproductions.md"
RESULTS = ROOT / "docs" / "reproductions.json"  # source of the page: seconds, claims and output of each study

HEAD = """# Reproductions

Published results and closed forms, each reproduced by one command. A program ran the studies, drew the figures, checked
the claims and wrote this page (`make reproduce`); no number here was typed.

A claim is *published* if a paper reports it, *theory* if a closed form or a theorem predicts it. A *check* supports the
others, is not evidence by itself, and is not counted with them. Expected values and tolerances are fixed in the studies
before they run.
"""

FRESH = """## Fresh keys

The studies that draw random numbers, run again at keys that were not used when the tolerances were chosen
(`make reproduce KEY=...`): the share of published and theory claims that held. A study with several keys takes those
that follow the named one.

| study | keys | claims that held | claims that failed |
|---|---|---|---|
"""

OUTPUT = """<details markdown="1">
<summary>Output</summary>

```text
{text}
```

</details>
"""


def studies() -> dict[str, StudyConfig]:
    """The configs that run a study, by name."""
    configs = [load(path) for path in sorted((ROOT / "configs").glob("*.yaml"))]
    return {config.name: config for config in configs if isinstance(config, StudyConfig)}


def run_command(name: str, folder: Path, *overrides: str) -> list[dict[str, Any]]:
    """Run one study anew; returns its claims."""
    shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, "-m", "gdkit", "run", f"configs/{name}.yaml", *overrides, "--output", str(folder)]
    process = subprocess.run(command, cwd=ROOT, check=False)
    if not (folder / "claims.json").is_file():
        raise SystemExit(f"{name}: exit code {process.returncode}, and no claims")
    return json.loads((folder / "claims.json").read_text(encoding="utf-8"))


def run(name: str) -> dict[str, Any]:
    """Run one study and copy its figures; returns its seconds, figures, output and claims."""
    folder, start = ROOT / "runs" / name, time.monotonic()
    claims = run_command(name, folder)
    figures = [file for end in ("png", "gif") for file in sorted((folder / "figures").glob(f"*.{end}"))]
    for figure in figures:
        shutil.copy(figure, ROOT / "docs" / "figures" / figure.name)
    seconds = time.monotonic() - start
    output = (folder / "found.txt").read_text(encoding="utf-8") if (folder / "found.txt").is_file() else ""
    names = [figure.name for figure in figures]
    return {"seconds": round(seconds, 1), "figures": names, "said": output, "claims": claims}


def page(results: dict[str, Any]) -> str:
    """Text of the page."""
    finished = {name: config for name, config in studies().items() if name in results}
    counted = [claim for name in finished for claim in results[name]["claims"] if claim["kind"] != "check"]
    held = f"{sum(c['holds'] for c in counted)} of {len(counted)} published and theory claims hold."
    sections = (section(name, config, results[name]) for name, config in finished.items())
    return "\n".join(filter(None, [HEAD, f"{len(finished)} studies; {held}\n", fresh_keys(results), *sections]))


def fresh_keys(results: dict[str, Any]) -> str:
    """Table of the claims at other keys; empty before the first."""
    rows, every = [], []
    for name, result in results.items():
        claims = [c for claims in result.get("fresh", {}).values() for c in claims if c["kind"] != "check"]
        if claims:
            every += claims
            failed = Counter(c["text"] for c in claims if not c["holds"])
            held = f"{len(claims) - failed.total()} of {len(claims)} ({1 - failed.total() / len(claims):.0%})"
            which = "; ".join(f"{_cell(text)} ({times}×)" for text, times in failed.items())
            rows.append(f"| {title(name)} | {', '.join(sorted(result['fresh'], key=int))} | {held} | {which} |")
    held = f"\nIn all, {sum(c['holds'] for c in every)} of {len(every)} claims held.\n"
    return FRESH + "\n".join(rows) + "\n" + held if rows else ""


def section(name: str, config: StudyConfig, result: dict[str, Any]) -> str:
    """Section of one study: its question, command, claims, figures and output."""
    holding = sum(claim["holds"] for claim in result["claims"])
    rows = [f"| {_cell(c['text'])} | {c['kind']} | {_cell(c['source'])} | {_format(c['expected'])} ± "
            f"{_format(c['tolerance'])} | {_format(c['measured'])} | {'yes' if c['holds'] else '**no**'} |"
            for c in result["claims"]]  # fmt: skip
    return "\n".join([
        f"## {title(name)}\n",
        f"{describe(config)}\n",
        f"`gdkit run configs/{name}.yaml`, {result['seconds']:.0f} s; {holding} of {len(rows)} claims hold.\n",
        "| claim | kind | source | expected | measured | holds |",
        "|---|---|---|---|---|---|",
        *rows,
        "",
        *(f"![{title(name)}](figures/{figure})\n" for figure in result["figures"]),
        *([OUTPUT.format(text=result["said"].rstrip())] if result.get("said") else []),
    ])  # fmt: skip


def describe(config: StudyConfig) -> str:
    """What a study is about: the docstring of its module."""
    module = ROOT / Path(*config.experiment.partition(":")[0].split(".")).with_suffix(".py")
    return ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or ""


def title(name: str) -> str:
    """A study's name as a heading: deep_cfr as Deep CFR."""
    words = [word.upper() if word in ("cfr", "lr") else word for word in name.split("_")]
    return " ".join([words[0][0].upper() + words[0][1:], *words[1:]])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _format(value: Any) -> str:
    return format_number(value) if isinstance(value, int | float) else str(value)


def main(words: list[str]) -> int:
    """Run the named studies, or all, and write the page."""
    available = studies()
    names = [word for word in words if not word.startswith("key=")]
    keys = [word.removeprefix("key=") for word in words if word.startswith("key=")]
    for name in names:
        if name not in available:
            raise SystemExit(f"{name}: no such study. Available: {', '.join(available)}")
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    for name in names or available:
        if not keys:
            results[name] = run(name) | {"fresh": results.get(name, {}).get("fresh", {})}
        elif "key" in available[name].settings:
            for key in keys:
                claims = run_command(name, ROOT / "runs" / f"{name}-key-{key}", f"settings.key={key}")
                results[name].setdefault("fresh", {})[key] = claims
        RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        PAGE.write_text(page(results), encoding="utf-8")
    return 0 if keys or all(c["holds"] for name in names or available for c in results[name]["claims"]) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
